#!/usr/bin/env bash
# Make .venv beside this folder, or reuse it, and put everything into it that the extras named need:
#   bash scripts/environment.sh demo dev
# A second run with the same requirements does nothing. PYTHON names the interpreter to use (3.10 to 3.12).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=$(IFS=,; echo "$*")
# What an installation was made for stays beside it: the extras on one line, the requirements' checksum on the next.
requirements=$(cat setup.cfg constraints.txt | cksum)
if [ -f .venv/installed-for ] && [ "$(tail -n 1 .venv/installed-for)" = "$requirements" ]; then
    installed=",$(head -n 1 .venv/installed-for),"
    missing=0
    for extra in "$@"; do
        [[ $installed == *",$extra,"* ]] || missing=1
    done
    [ "$missing" = 0 ] && exit 0
fi

fits() { "$1" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

if [ ! -x .venv/bin/python ] || ! fits .venv/bin/python; then
    rm -rf .venv
    for python in ${PYTHON:-} python3 python3.12 python3.11 python3.10 python; do
        if fits "$python"; then
            "$python" -m venv .venv
            break
        fi
    done
fi
if [ ! -x .venv/bin/python ]; then
    echo "No Python 3.10, 3.11 or 3.12 with the venv module found; install one or name it: PYTHON=/path/to/python" >&2
    exit 2
fi

echo "Installing into .venv ($(.venv/bin/python --version)); the first time takes a minute or more" >&2
pip() { .venv/bin/python -m pip --disable-pip-version-check -qq "$@"; }
# basicsr comes as source whose build asks for torch: torch first, and no isolated build that would fetch another one.
pip install -c constraints.txt "pip>=25" setuptools wheel
pip install -c constraints.txt torch torchvision
pip install -c constraints.txt --no-build-isolation -e ".[$extras]"
printf '%s\n%s\n' "$extras" "$requirements" >.venv/installed-for
