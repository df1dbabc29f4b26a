#!/usr/bin/env bash
# spandrel 0.4.2: calling the descriptor of an RCAN multiplies the caller's own image by 255, in place.
# A second call with the same tensor then gets values of up to 255 where [0, 1] is asked for, and answers with white.
# Networks of other kinds leave what they are given as it is; pass rainy.clone() to be safe.
# Output seen (torch 2.13.0):
#   before 0.4963  after 126.5454  second result equal to the first: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchvision==0.28.0 spandrel==0.4.2 numpy
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - "$folder/rcan.pth" <<'P'
import sys

import torch

try:
    import torchvision
except RuntimeError:  # a build for another torch, whose operators nobody calls here: that they are declared is enough
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from spandrel import ModelLoader
from spandrel.architectures.RCAN import RCAN

torch.manual_seed(0)
torch.save(RCAN(scale=1, unshuffle_mod=True, n_resgroups=1, n_resblocks=1, n_feats=16).state_dict(), sys.argv[1])
model = ModelLoader("cpu").load_from_file(sys.argv[1]).eval()
torch.manual_seed(0)
image = torch.rand(1, 3, 64, 64)
before = image.clone()
with torch.no_grad():
    first = model(image).clone()
    after = image.clone()
    second = model(image)
same = torch.equal(first, second)
print(f"before {before.flatten()[0]:.4f}  after {after.flatten()[0]:.4f}  second result equal to the first: {same}")
sys.exit(not (torch.allclose(after, 255 * before) and not same))
P
