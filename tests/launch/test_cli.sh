#!/usr/bin/env bash
# vader: help, version, unknown commands, and the sibling program found beside the binary.
set -u
out=$TMPDIR/out
fail() { echo "FAIL: $*"; cat "$out"; exit 1; }
status() { # wanted status, message part, arguments
    local want=$1 part=$2
    shift 2
    "$VADER" "$@" >"$out" 2>&1
    local rc=$?
    [ $rc = "$want" ] || fail "vader $*: status $rc, want $want"
    grep -qF -- "$part" "$out" || fail "vader $*: no '$part'"
}
status 0 "usage: vader COMMAND" --help
status 0 "forward" help
status 0 "vader " --version
status 2 "usage: vader COMMAND"
status 2 "unknown command 'forwrad', did you mean 'forward'?" forwrad
status 2 "unknown command 'xyzzy'" xyzzy
status 0 "--cotangent FILE" forward --help
status 0 "--keys" doctor --help
status 0 "--image FILE" sample --help
status 0 "usage: vader report RUN" report --help

# Through a link elsewhere the program beside the real binary runs; without one the message says so.
ln -s "$VADER" "$TMPDIR/link"
"$TMPDIR/link" doctor --help >"$out" 2>&1 || fail "through a link"
cp "$VADER" "$TMPDIR/alone"
"$TMPDIR/alone" doctor --help >"$out" 2>&1
[ $? = 1 ] || fail "alone: want status 1"
grep -qF "it belongs beside the vader binary" "$out" || fail "alone: no advice"
echo "cli: ok"
