#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8.1's swscale): grey of 10 bits does not survive RGB of 16 bits. Taken to rgb48le and back to
# gray10le without any change between, 843 of the 1,024 levels come back brighter, by up to 3, although 16 bits could
# hold each. Grey of 8 bits through rgb24 comes back as it was. Seen:
#   gray -> rgb24 -> gray: 0 of 256 levels change, by 0 to 0
#   gray10le -> rgb48le -> gray10le: 843 of 1024 levels change, by 0 to 3
# Exits 0 while this is so.
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install -q av==18.1.0 numpy==2.2.6
venv/bin/python - <<'PY'
import sys

import av
import numpy as np


def there_and_back(grey, through, kind):
    frame = av.VideoFrame(grey.size, 1, format=grey_format)
    row = np.zeros(frame.planes[0].buffer_size // np.dtype(kind).itemsize, kind)
    row[: grey.size] = grey
    frame.planes[0].update(row.tobytes())
    back = frame.reformat(format=through).reformat(format=grey_format)
    return np.frombuffer(bytes(back.planes[0]), kind)[: grey.size].astype(int)


changed = {}
for grey_format, through, kind, levels in (("gray", "rgb24", np.uint8, 256), ("gray10le", "rgb48le", np.uint16, 1024)):
    grey = np.arange(levels).astype(kind)
    difference = there_and_back(grey, through, kind) - grey
    changed[grey_format] = int(np.count_nonzero(difference))
    least, most = difference.min(), difference.max()
    print(f"{grey_format} -> {through} -> {grey_format}: {changed[grey_format]} of {levels} levels change, by {least} to {most}")
sys.exit(0 if changed == {"gray": 0, "gray10le": 843} else 1)
PY
