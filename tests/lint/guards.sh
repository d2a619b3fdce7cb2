#!/bin/sh
# Every header has a guard that is its path: common/base/err.h has COMMON_BASE_ERR_H. Every source and
# header opens with a comment that says what it is for.
bad=0
for f in $(tests/lint/judged '*.h'); do
    want=$(echo "$f" | tr 'a-z/.-' 'A-Z___')
    got=$(sed -n 's/^#ifndef \([A-Z0-9_]*\)$/\1/p' "$f" | head -n 1)
    [ "$got" = "$want" ] || { echo "$f: the guard is '$got', want $want"; bad=1; }
done
for f in $(tests/lint/judged '*.c' '*.h' '*.cu' '*.def'); do
    head -n 1 "$f" | grep -q '^// .' || { echo "$f:1: want a first line that says what it is for"; bad=1; }
done
exit $bad
