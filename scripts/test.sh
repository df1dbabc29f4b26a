#!/usr/bin/env bash
# README's second command: environment, lint, types, tests, with coverage of the rooms that know no framework.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/environment.sh demo dev extra_arches metrics onnx video
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy
# A process a core, of one thread each: most tests are too small for more.
export OMP_NUM_THREADS=1
test_files() { python -m pytest -n auto --dist loadfile "$@"; }
# The rooms that know no framework are covered by tests of their own; counting lines doubles the time of all others.
pure=() others=()
for room in archs data distillation losses metrics; do
    pure+=("--cov=rainoerme_plugin.$room" "tests/$room")
    others+=("--ignore=tests/$room")
done
status=0
test_files "${pure[@]}" --cov-report=term:skip-covered --cov-fail-under=90 "$@" || status=$?
test_files "${others[@]}" "$@" || status=$?
exit "$status"
