#!/usr/bin/env bash
# The paper's Rain200L recipe on Rain100L without pairs, on a GPU, for so many minutes, then the score on the test pairs:
#   RAINOERME_DATA=FOLDER bash scripts/rain100l_gpu.sh 60 [KEY=VALUE ...]
# Run again, it goes on. PYTHON names an interpreter with the package; else .venv is used. The log has the iteration times.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:?for how many minutes?}
shift
python=${PYTHON:-.venv/bin/python}
status=0
timeout --signal=INT "${minutes}m" "$python" -m rainoerme_plugin train -opt options/rain100l_unpaired.yml \
    --device cuda --auto_resume "$@" || status=$?
if [ "$status" != 0 ] && [ "$status" != 124 ]; then # 124: time was up, and the state was saved
    exit "$status"
fi
network=$(ls -t experiments/rain100l_unpaired/models/net_g_*.pth | head -n 1)
"$python" -m rainoerme_plugin test -opt options/test_rain100l.yml --device cuda network_g.file="$network"
