#!/bin/bash
# A source exports only symbols that begin with its own stem: slot.c exports slot_*. Where several files
# share one header, that header's prefix serves all of them: the table in prefixes() says where.
set -f
cd "$(dirname "$0")/../.." || exit 2
B=${BUILD_DIR:-build/cpu-release}
[ -e "$B/libvader.a" ] || { echo "skip: no library in $B"; exit 77; }

prefixes() { # source
    local stem=${1##*/}
    stem=${stem%.c}
    case $1 in
    common/base/err.c) echo err_ die_at ;; # die() is read more often than err_die() would be
    common/tensor/ops/*) echo op_ ;;       # op.h
    common/tensor/graph.c) echo graph_ shape_ tensor_ ;; # graph.h makes all three types
    common/tensor/ref/*) echo ref_ "${stem}_" backend_open_ref ;;
    common/tensor/cpu/simd/*) echo '*_base' '*_avx2' '*_avx512' simd_ ;; # compiled once for each
    common/tensor/cpu/*) echo cpu_ "${stem}_" backend_open_cpu ;;
    */main.c) echo main ;;
    launch/tool/*) echo tool_ "${stem}_" ;;
    *) echo "${stem}_" ;;
    esac
}

bad=0
for c in $(tests/lint/judged 'common/*.c' 'launch/*.c' 'sampler/*.c' 'decoder/*.c' 'rewarder/*.c' 'learner/*.c'); do
    read -ra want <<<"$(prefixes "$c")"
    for o in "$B/${c%.c}"{,.base,.avx2,.avx512}.o; do
        [ -e "$o" ] || continue
        for symbol in $(nm -g --defined-only "$o" | awk '$2 ~ /[A-Z]/ { print $3 }'); do
            for p in "${want[@]}"; do
                case $symbol in $p* | "${p%_}" | __*) continue 2 ;; esac
            done
            echo "$c: exports $symbol, want ${want[*]}*"
            bad=1
        done
    done
done
exit $bad
