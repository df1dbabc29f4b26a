#!/usr/bin/env bash
# README's second command: environment, lint, types, tests with coverage of the rooms that know no framework.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/environment.sh demo dev extra_arches metrics
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy
pure=()
for room in archs data distillation losses metrics; do
    pure+=("--cov=rainoerme_plugin.$room")
done
python -m pytest "${pure[@]}" --cov-report=term:skip-covered --cov-fail-under=90 "$@"
