#!/usr/bin/env bash
# mmengine's engine where tests cannot look: on CUDA, by DDP, FSDP and DeepSpeed.
#   bash scripts/mmengine_gpu.sh                             # all GPUs; some minutes
# Trains the demo by both engines and prints how far their losses are apart; then by each of options/mmengine's configs
# for 60 iterations, 40 and, resumed, 20 more, and derains with what came of it. PYTHON names an interpreter with the
# package; else .venv is used. DeepSpeed's part is left out where it is not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-$PWD/.venv/bin/python}
processes=${PROCESSES:-$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -d datasets/demo ] || "$python" -m rainoerme_plugin prepare demo

say() { echo "{\"$1\": \"$2\"}"; }

# --- both engines, one GPU ---
for engine in basicsr mmengine; do
    "$python" -m rainoerme_plugin train -opt options/demo.yml --engine $engine --device cuda --root "$work" name=$engine \
        train.total_iter=200 logger.print_freq=1 logger.use_tb_logger=false val.val_freq=200 >"$work/$engine.log" 2>&1 ||
        { tail -n 30 "$work/$engine.log"; exit 1; }
done
"$python" - "$work" <<'PYTHON'
import json
import re
import sys
from pathlib import Path

work = Path(sys.argv[1])
losses = {
    engine: {key: [float(value) for value in re.findall(rf"{key}: ([\d.e+-]+)", (work / f"{engine}.log").read_text())]
             for key in ("l_soft", "l_hard")}
    for engine in ("basicsr", "mmengine")
}
for count in (50, 200):
    apart = max(abs(one - other) for key in ("l_soft", "l_hard")
                for one, other in zip(losses["basicsr"][key][:count], losses["mmengine"][key][:count], strict=True))
    print(json.dumps({"iterations": count, "losses of both engines are apart by": apart}))
PYTHON

# --- several processes, and sharded ---
common=(
    train_dataloader.dataset.dataroot_rainy=datasets/demo/rainy train_dataloader.dataset.dataroot_clean=datasets/demo/clean
    'train_dataloader.dataset.label.window=[1,5]' val_dataloader.dataset.dataroot=datasets/demo/test/rain
    val_dataloader.dataset.limit=2 train_cfg.val_interval=20 default_hooks.logger.interval=20
    default_hooks.checkpoint.interval=20
)
for kind in ddp fsdp deepspeed; do
    if [ $kind = deepspeed ] && ! "$python" -c 'import deepspeed' 2>/dev/null; then
        say deepspeed "not installed"
        continue
    fi
    for until in 40 60; do
        resume=()
        [ $until = 40 ] || resume=(--auto_resume)
        "$python" -m torch.distributed.run --nproc_per_node="$processes" --master_port="${PORT:-29578}" -m rainoerme_plugin \
            train --engine mmengine --launcher pytorch -opt options/mmengine/distill_$kind.py "${resume[@]}" "${common[@]}" \
            work_dir="$work/$kind" train_cfg.max_iters=$until >"$work/$kind.log" 2>&1 ||
            { tail -n 30 "$work/$kind.log"; say $kind failed; continue 2; }
        say "$kind, $processes GPUs, iteration $until" "$(grep -o 'loss: .*' "$work/$kind.log" | tail -n 1)"
    done
    network=$work/$kind/iter_60.pth
    [ -f "$network" ] || network=$work/$kind/network_60.pth
    "$python" -m rainoerme_plugin derain datasets/demo/test/rain -o "$work/derained" --weights "$network" --overwrite \
        >"$work/derain.log" 2>&1 && say "$kind derains" "$(tail -n 1 "$work/derain.log")" || tail -n 5 "$work/derain.log"
done
