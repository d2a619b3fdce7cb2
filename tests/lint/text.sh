#!/bin/bash
# Text is plain: no tabs or spaces at line ends, no carriage returns, no notes to self, nothing that is true
# on one machine only.
bad=0
look() { # what, pattern, files ...
    local what=$1 pattern=$2
    shift 2
    tests/lint/judged "$@" | grep -v '^tests/lint/text.sh$\|^LICENSE$\|^tests/golden/\|^tests/data/' |
        xargs -r grep -nIE -- "$pattern" /dev/null | sed "s|^|$what: |" | grep . && bad=1
}
look 'space at the end' '[[:space:]]$' '*'
look 'tab' "$(printf '\t')" '*.c' '*.h' '*.def' '*.cu' '*.py' '*.sh' '*.md' '*.yaml'
look 'note to self' '\b(TODO|FIXME|XXX)\b' '*'
look 'path of one machine' '(^|[^A-Za-z0-9_.])/(work|home|Users|mnt|data)/[A-Za-z]' '*'
exit $bad
