#!/bin/sh
# C as clang-format 14 writes it; other versions differ in details. Tables (.def) are laid out by hand.
for tool in clang-format-14 clang-format; do
    $tool --version 2>/dev/null | grep -q ' version 14\.' && break
    tool=
done
[ "$tool" ] || { echo "skip: no clang-format 14 here (make deps)"; exit 77; }
tests/lint/judged '*.c' '*.h' '*.cu' | xargs $tool --dry-run 2>&1 | awk -F: -v tool=$tool '
/warning: code should be/ && !seen[$1]++ { print $1 ":" $2 ": differs; run: " tool " -i " $1 }
END { exit length(seen) > 0 }'
