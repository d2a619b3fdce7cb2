#!/bin/bash
# The run of launch/conf/tiny.yaml learns: 50 updates raise the reward. Judged by `vader eval`: base model and adapter
# on the same images and the same noise, which training never saw; the difference with its bootstrap interval.
. tests/pipeline/lib.sh

CONF=launch/conf/tiny.yaml
train tiny
[ "$(wc -l <"$TMPDIR/tiny/metrics.jsonl")" = 50 ] || fail "not 50 updates"
"$VADER" eval "$TMPDIR/tiny" >"$TMPDIR/eval.log" 2>&1 || fail "eval ended with status $?: $(tail -n 2 "$TMPDIR/eval.log")"
low=$(sed -nE 's/^reward .* [+]-?[0-9.]+ \[ *(-?[0-9.]+),.*/\1/p' "$TMPDIR/eval.log")
grep '^reward ' "$TMPDIR/eval.log"
awk -v low="$low" 'BEGIN {exit !(low != "" && low > 0.3)}' ||
    fail "log p gains at least \"$low\" with 95 %, want more than 0.3: $(cat "$TMPDIR/eval.log")"

# That is not the noise of evaluation: without learning there is no difference.
train still optim.lr=0 optim.updates=2
"$VADER" eval "$TMPDIR/still" >"$TMPDIR/eval.log" 2>&1 || fail "eval ended with status $?: $(tail -n 2 "$TMPDIR/eval.log")"
grep -qE '^reward .* [+]0 \[ *0, *0\]' "$TMPDIR/eval.log" || fail "no learning, but: $(grep '^reward ' "$TMPDIR/eval.log")"
finish
