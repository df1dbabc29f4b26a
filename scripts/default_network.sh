#!/usr/bin/env bash
# Train the network that comes with the package anew (docs/default-network.md); a quarter of an hour on one idle CPU core.
# It goes to experiments/default_network, and with --install into the package.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/environment.sh demo
basicsr=.venv/bin/basicsr data=datasets/default_network
"$basicsr" prepare demo -o "$data" --renderings 24 --scale 2.5
# The licence of the motorcycle (Middlebury's stereo data) is not stated; the rocket is in the public domain.
rm -f "$data/clean/motorcycle_left.png"
cp "$data/test/norain/rocket_1.png" "$data/clean/rocket.png"
# One thread: sums of several differ in their last bit from one number of cores to another.
OMP_NUM_THREADS=1 "$basicsr" train -opt options/default_network.yml --device cpu --auto_resume
if [ "${1:-}" = --install ]; then
    cp experiments/default_network/models/net_g_latest.safetensors rainoerme_plugin/inference/default_network.safetensors
fi
