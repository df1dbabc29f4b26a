#!/usr/bin/env bash
# Pillow 12.0.0 rounds luma DOWN where it makes YCbCr of RGB (Image.convert): it is half a level darker on average than the
# formula of JFIF (ITU-T T.871), whose values are to be rounded to the nearest. OpenCV 4.12.0 rounds to the nearest.
# Whoever encodes planes that Pillow has converted gets a darker picture, for decoders go back by the formula. Seen:
#   Pillow: luma - formula = -0.49 on average, at most 0.02 above it
#   OpenCV: luma - formula = +0.00 on average
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==12.0.0 opencv-python-headless==4.12.0.88 numpy==2.2.6
venv/bin/python - <<'PY'
import cv2
import numpy as np
from PIL import Image

rgb = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
exact = rgb @ np.array([0.299, 0.587, 0.114])
pillow = np.asarray(Image.fromarray(rgb).convert("YCbCr"))[..., 0] - exact
opencv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., 0] - exact
print(f"Pillow: luma - formula = {pillow.mean():+.2f} on average, at most {pillow.max():.2f} above it")
print(f"OpenCV: luma - formula = {opencv.mean():+.2f} on average")
rounds_down = -0.51 < pillow.mean() < -0.48 and pillow.max() < 0.05
raise SystemExit(not (rounds_down and abs(opencv.mean()) < 0.01))
PY
