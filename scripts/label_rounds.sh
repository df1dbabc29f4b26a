#!/usr/bin/env bash
# Label rounds: train, make soft labels of the result (running mean, averaged over flips), train on them, and so on.
#   bash scripts/label_rounds.sh OPTIONS.yml RAINY ROOT [ROUNDS] [KEY=VALUE ...]
# RAINY is the folder that the options train on. Stops when the score without a clean image (scripts/no_reference.py) is
# not better than in the best round by STEP (0.005), or after ROUNDS (4), and names that round's run. Run again, it goes
# on. PYTHON names an interpreter with the package, else .venv is used; DEVICE is auto, cpu, cuda or mps. BEST names
# filters, such as '[{type: streaks, window: [1, 7]}]': a photograph's label is then the best of theirs and of those of all
# rounds' networks, by measure: separation, not always the last network's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

options=${1:?which option file?} rainy=${2:?which folder of rainy images?} root=${3:?which folder for the results?}
shift 3
rounds=4
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
    rounds=$1
    shift
fi
python=${PYTHON:-$here/../.venv/bin/python} device=${DEVICE:-auto} step=${STEP:-0.005}

best='' best_score=-1 label=() networks=() among=()
[ -z "${BEST:-}" ] || among=(type=best_of "filters=$BEST")
for ((round = 1; round <= rounds; round++)); do
    name=round_$round run=$root/experiments/round_$round labels=$root/labels_$round
    if ! [ -e "$run/models/net_g_latest.pth" ]; then
        "$python" -m rainoerme_plugin train -opt "$options" "$@" "${label[@]}" name="$name" --device "$device" \
            --root "$root" --auto_resume
    fi
    [ -n "${BEST:-}" ] || networks=()
    networks+=(--weights "$run")
    "$python" -m rainoerme_plugin prepare labels "$rainy" "${among[@]}" "${networks[@]}" --flips --device "$device" -o "$labels"
    result=$("$python" "$here/no_reference.py" "$rainy" "$labels")
    echo "round $round: $result" | tee -a "$root/rounds.txt"
    score=$("$python" -c 'import json, sys; print(json.loads(sys.argv[1])["score"])' "$result")
    if ! "$python" -c 'import sys; sys.exit(not float(sys.argv[1]) > float(sys.argv[2]) + float(sys.argv[3]))' \
        "$score" "$best_score" "$step"; then
        break
    fi
    best=$run best_score=$score
    label=("datasets.train.label={_delete_: true, type: folder, path: $labels}")
done
echo "best: $best (score $best_score)"
