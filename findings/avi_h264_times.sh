#!/usr/bin/env bash
# AVI stores no time of its own for a frame: the n-th one is shown at n / rate. PyAV 16.0.1 (FFmpeg 8) gives packets of
# Motion JPEG in AVI that time, but packets of H.264, written by the same muxer with no B-frames at all, a pts of one
# frame more, for it guesses that one might be decoded ahead. dts is the time in the file. Whoever writes frames at the
# pts that he has read shows them late against the sound. Seen:
#   mjpeg: first dts 0, first pts 0
#   libx264 without B-frames: first dts 0, first pts 1
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==16.0.1 numpy==2.2.6
venv/bin/python - <<'PY'
import av
import numpy as np

found = {}
for codec, options in (("mjpeg", {}), ("libx264", {"bf": "0"})):
    with av.open("film.avi", "w") as film:
        stream = film.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(10):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode(None))
    with av.open("film.avi") as film:
        first = next(packet for packet in film.demux(video=0) if packet.size)
        found[codec] = first.dts, first.pts
print(f"mjpeg: first dts {found['mjpeg'][0]}, first pts {found['mjpeg'][1]}")
print(f"libx264 without B-frames: first dts {found['libx264'][0]}, first pts {found['libx264'][1]}")
raise SystemExit(found != {"mjpeg": (0, 0), "libx264": (0, 1)})
PY
