#!/usr/bin/env bash
# README's first command: environment, demo data, training without pairs, scores and a picture of before and after.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/environment.sh demo
basicsr=.venv/bin/basicsr
"$basicsr" prepare demo -o datasets/demo
if [ ! -f experiments/demo/models/net_g_latest.pth ]; then
    "$basicsr" train -opt options/demo.yml --auto_resume
fi
"$basicsr" test -opt options/demo_test.yml
echo "Before and after: results/demo/visualization/panels/demo_test/"
