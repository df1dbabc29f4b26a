#!/usr/bin/env bash
# Rain100L without pairs on a GPU for so many minutes, then the score on the test pairs:
#   RAINOERME_DATA=FOLDER bash scripts/rain100l_gpu.sh 60 [RECIPE] [KEY=VALUE ...]
# RECIPE is rain100l_unpaired (distill.yml, if none is named), rain100l_labels (distill_labels.yml), rain100l_prenet (the
# same with PReNet), or rain100l_paper (the paper's). Run again, it goes on. PYTHON names an interpreter with the package; else .venv is
# used. The log has the iteration times.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:?for how many minutes?}
shift
recipe=rain100l_unpaired
if [ "$#" -gt 0 ] && [[ "$1" != *=* ]]; then
    recipe=$1
    shift
fi
python=${PYTHON:-.venv/bin/python}
status=0
timeout --signal=INT "${minutes}m" "$python" -m rainoerme_plugin train -opt "options/$recipe.yml" \
    --device cuda --auto_resume "$@" || status=$?
if [ "$status" != 0 ] && [ "$status" != 124 ]; then # 124: time was up, and the state was saved
    exit "$status"
fi
network=$(ls -t "experiments/$recipe"/models/net_g_*.pth | head -n 1)
"$python" -m rainoerme_plugin test -opt options/test_rain100l.yml --device cuda network_g.file="$network"
