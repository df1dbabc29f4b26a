#!/usr/bin/env bash
# Pillow 12.0.0 and OpenCV 4.12.0 turn over a grey TIFF of which 0 is white (PhotometricInterpretation 0) if it has
# 8 bits, and not if it has 16: the same picture, written twice, is read as itself and as its negative, by both.
# TIFF 6.0, section 4, says the same of both depths. tifffile gives the stored numbers, as it says it does.
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==12.0.0 opencv-python-headless==4.12.0.88 numpy==2.2.6 tifffile==2025.5.10
venv/bin/python - <<'PY'
import cv2
import numpy as np
import tifffile
from PIL import Image

found = {}
for bits, dtype in ((8, np.uint8), (16, np.uint16)):
    top = 2**bits - 1
    seen = (np.arange(16).reshape(4, 4) * (top // 15)).astype(dtype)  # as a viewer shows it: black first, white last
    tifffile.imwrite(f"{bits}.tif", top - seen, photometric="miniswhite", metadata=None)
    for name, read in (
        ("Pillow", lambda path: np.asarray(Image.open(path))),
        ("OpenCV", lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED)),
    ):
        pixels = read(f"{bits}.tif")
        found[name, bits] = "right" if np.array_equal(pixels, seen) else "negative" if np.array_equal(pixels, top - seen) else "else"
        print(f"{name}, {bits} bits: black is read as {pixels[0, 0]}, white as {pixels[-1, -1]}: {found[name, bits]}")
# Seen:
#   Pillow, 8 bits: black is read as 0, white as 255: right
#   OpenCV, 8 bits: black is read as 0, white as 255: right
#   Pillow, 16 bits: black is read as 65535, white as 0: negative
#   OpenCV, 16 bits: black is read as 65535, white as 0: negative
wanted = {(name, bits): word for name in ("Pillow", "OpenCV") for bits, word in ((8, "right"), (16, "negative"))}
raise SystemExit(found != wanted)
PY
