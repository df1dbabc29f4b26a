#!/usr/bin/env bash
# PyTorch 2.13.0: torch.save takes pickle_protocol, and torch.load, which reads safely by default (weights_only=True),
# knows the steps of protocol 2, and of 3 as far as they are the same: a plain dictionary of tensors that torch.save has
# written with protocol 4 or 5 is refused, with words that speak of weights_only and of trust. Seen:
#   protocol 2: read
#   protocol 3: read
#   protocol 4: UnpicklingError
#   protocol 5: UnpicklingError
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.2.6
venv/bin/python - <<'PY'
import torch

found = {}
for protocol in (2, 3, 4, 5):
    torch.save({"weight": torch.arange(4.0)}, "weights.pth", pickle_protocol=protocol)
    try:
        found[protocol] = "read" if torch.load("weights.pth")["weight"].sum() == 6 else "read wrongly"
    except Exception as error:
        found[protocol] = type(error).__name__
        print(f"  ({str(error).splitlines()[0][:150]} ...)")
    print(f"protocol {protocol}: {found[protocol]}")
raise SystemExit(found != {2: "read", 3: "read", 4: "UnpicklingError", 5: "UnpicklingError"})
PY
