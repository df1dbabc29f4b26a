#!/usr/bin/env bash
# All that is fast, measured on a CUDA GPU; a line of JSON a result:
#   RAINOERME_DATA=FOLDER RAINOERME_WEIGHTS=FOLDER bash scripts/bench_gpu.sh > gpu.jsonl
# PYTHON names an interpreter with the package; else .venv is used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
"$python" -m pytest -q tests/distillation/test_graphs.py 1>&2
"$python" scripts/bench_training.py --device cuda --repeats 50 --loop 2000
"$python" scripts/bench_data.py --only rate
"$python" scripts/bench_inference.py --device cuda
