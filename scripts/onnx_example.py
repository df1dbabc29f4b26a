"""Take the rain out of a picture with an exported network: NumPy, Pillow and ONNX Runtime are all that it needs.

basicsr export -o derainer.onnx
python scripts/onnx_example.py derainer.onnx rainy.jpg derained.png
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    network, source, target = sys.argv[1:]
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    with Image.open(source) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.float32)
    # (H, W, 3) from 0 to 255 becomes (1, 3, H, W) from 0 to 1, and back.
    rainy = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    (derained,) = session.run(["derained"], {"rainy": rainy})
    Image.fromarray(np.rint(derained[0].transpose(1, 2, 0) * 255).astype(np.uint8)).save(target)


if __name__ == "__main__":
    main()
