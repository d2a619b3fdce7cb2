#!/bin/sh
# vader against PyTorch on one small video UNet, forward and backward to a LoRA: time, peak memory, numbers.
#
#   tests/bench/torch/run.sh [rounds.py options, e.g. --rounds 5 --runs 7 --threads 2]
#
# VENV (build/oracle) is made from tests/oracle/requirements.txt when it is not there; DIR (build/bench-torch) keeps
# the model; VADER (./vader) is the command. Leave the machine alone while it runs.
set -eu
cd "$(dirname "$0")/../../.."
VENV=${VENV:-build/oracle}
DIR=${DIR:-build/bench-torch}
VADER=${VADER:-./vader}
here=tests/bench/torch

if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -c 'import torch, diffusers, peft' 2>/dev/null; then
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet -r tests/oracle/requirements.txt
fi
# What the model depends on is newer than the model: make it again.
if [ ! -f "$DIR/golden.safetensors" ] || [ "$here/bench_unet.py" -nt "$DIR/golden.safetensors" ]; then
    rm -rf "$DIR"
    "$VENV/bin/python" "$here/bench_unet.py" prepare "$DIR"
    "$VENV/bin/python" "$here/bench_unet.py" golden "$DIR"
fi
exec python3 "$here/rounds.py" "$DIR" --python "$VENV/bin/python" --vader "$VADER" "$@"
