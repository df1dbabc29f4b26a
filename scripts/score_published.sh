#!/usr/bin/env bash
# Scores of the published derainers on the data sets that their authors scored them on: the table in docs/benchmarks.md.
#   RAINOERME_DATA=FOLDER RAINOERME_WEIGHTS=FOLDER bash scripts/score_published.sh [KEY=VALUE ...]
# The authors of PReNet and BRN wrote their results rounded down, and so their figures are reproduced.
# PYTHON names an interpreter with the package; else .venv is used. Some 25 minutes on two CPU cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data=${RAINOERME_DATA:?names the folder with Rain100L/test, Rain200H/test and SPA}
weights=${RAINOERME_WEIGHTS:?names the folder with the published files}
python=${PYTHON:-.venv/bin/python}

score() { # FILE FOLDER PROTOCOL [KEY=VALUE ...]
    local file=$1 folder=$2 protocol=$3
    shift 3
    echo "$file, $folder, $protocol"
    "$python" -m rainoerme_plugin test -opt options/test.yml name="${file%.pth}" "network_g.file=$weights/$file" \
        "datasets.test.dataroot=$data/$folder" "val.metrics.psnr.protocol=$protocol" "val.metrics.ssim.protocol=$protocol" \
        "$@" 2>results/score_published.log | grep -E "rainy|derained" || {
        tail -n 1 results/score_published.log >&2
        exit 2
    }
}

mkdir -p results
for network in PRN6 PReNet6 PRN6_r PReNet6_r BRN; do
    score "${network}_Rain100L.pth" Rain100L/test matlab_y val.rounding=floor "$@"
done
score RainOerMe_Rain200L.pth Rain100L/test matlab_y "$@"
for network in RESCAN SPANet; do
    score "${network}_RainHeavy.pth" Rain200H/test matlab_y "$@"
done
score VRGNet-PReNet_SPA.pth SPA basicsr_y "$@"
score SPANet_SPA.pth SPA rgb "$@"
