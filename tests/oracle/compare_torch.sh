#!/bin/sh
# vader against its twin in PyTorch on one config: tests/oracle/compare_torch.py says what, and lists the options.
#
#   tests/oracle/compare_torch.sh CONF [key=value ...] [options]
#
# VENV (build/oracle) is made from tests/oracle/requirements.txt when it is not there; VADER (./vader) is the command.
set -eu
VENV=${VENV:-build/oracle}
here=$(dirname "$0")

if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -c 'import torch, diffusers, transformers, peft, yaml, PIL' 2>/dev/null; then
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet -r "$here/requirements.txt"
fi
exec "$VENV/bin/python" "$here/compare_torch.py" "$@" --vader "${VADER:-./vader}"
