#!/usr/bin/env bash
# Stopping and resuming where tests cannot look: on CUDA, with nccl, with float16.
#   bash scripts/resume_gpu.sh                               # all GPUs, nccl; two minutes
#   DEVICE=cpu PROCESSES=2 bash scripts/resume_gpu.sh        # the same with gloo
# Trains the demo twice for 60 iterations, once with a SIGTERM in the middle, in each precision, and prints the largest
# difference of the weights: 0 on a CPU; on a GPU what two runs without a break differ by, which is printed beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

device=${DEVICE:-cuda}
processes=${PROCESSES:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -d datasets/demo ] || basicsr prepare demo

train=(
    torchrun --nproc_per_node="$processes" --master_port="${PORT:-29577}" -m rainoerme_plugin train -opt options/demo.yml
    --device "$device" --launcher pytorch --root "$work" train.total_iter=60 val.val_freq=1000
    logger.save_checkpoint_freq=50 logger.use_tb_logger=false
)

for precision in float32 bfloat16 float16; do
    for name in whole again; do
        "${train[@]}" name="$name" train.precision="$precision" >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    done
    "${train[@]}" name=stopped train.precision="$precision" logger.print_freq=1 >/dev/null 2>"$work/log" &
    until grep -q 'iter: *20,' "$work/log"; do
        kill -0 $! || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
    kill -TERM $!
    wait $! || grep "Saved the state" "$work/log" >&2
    "${train[@]}" name=stopped train.precision="$precision" --auto_resume >/dev/null 2>"$work/log"
    python - "$work" "$precision" "$device" "$processes" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch

work, precision, device, processes = sys.argv[1:]
whole, again, stopped = (
    torch.load(Path(work) / "experiments" / name / "models" / "net_g_latest.pth", weights_only=True)["params"]
    for name in ("whole", "again", "stopped")
)


def apart(other: dict[str, torch.Tensor]) -> float:
    return max(float((whole[name] - other[name]).abs().max()) for name in whole)


print(json.dumps({"device": device, "processes": int(processes), "precision": precision,
                  "stopped and resumed": apart(stopped), "two runs without a break": apart(again)}), flush=True)
PYTHON
    rm -rf "$work/experiments"
done
