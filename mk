#!/bin/sh
# make, on a machine that may not have it yet: installs it (apt, with sudo when not root) and passes all
# arguments on. The Makefile then installs the other packages that are missing.
set -e
cd "$(dirname "$0")"
if ! command -v make >/dev/null; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    command -v apt-get >/dev/null || { echo "mk: there is neither make nor apt-get here" >&2; exit 1; }
    $sudo apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends make
fi
exec make "$@"
