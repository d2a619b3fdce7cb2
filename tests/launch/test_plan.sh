#!/usr/bin/env bash
# vader plan: memory by kind, measured steps, what follows from them; refusals; nothing left behind.
set -u
out=$TMPDIR/out
fail() { echo "FAIL: $*"; cat "$out"; exit 1; }
plan() { # wanted status, arguments
    local want=$1
    shift
    "$VADER" plan tests/pipeline/tiny.yaml "$@" >"$out" 2>&1
    local rc=$?
    [ $rc = "$want" ] || fail "vader plan $*: status $rc, want $want"
    [ -z "$(find "$TMPDIR" -mindepth 1 -name 'vader-plan-*')" ] || fail "vader plan $*: a folder is left"
}
has() { grep -qE -- "$1" "$out" || fail "no '$1'"; }
hasnot() { grep -qE -- "$1" "$out" && fail "there is '$1'"; }
row() { awk -v name="$1" -v col="$2" '$1 == name {print $col; exit}' "$out"; } # first row of a table

plan 0
has "^MiB +processes +threads +each +packed +activations +gradients +workspace +buffers"
has "gradient window: steps 1 \.\. 1 of 0 \.\. 2, gain"
for stage in sampler decoder rewarder learner; do # each is the sum of its kinds
    awk -v s=$stage '$1 == s {d = $4 - ($5 + $6 + $7 + $8 + $9); exit !(d * d < 0.09)}' "$out" ||
        fail "$stage: kinds do not add up"
done
for step in encode sample denoise decode score pull learn update; do has " $step [0-9.]+ (s|ms|us)"; done
hasnot "handover"
has "an update of 2 rollouts takes at least [0-9.]+ m?s"
has "bound by the (sampler|decoder|learner): "
for stage in sampler decoder rewarder; do has "one more $stage +[0-9.]+ m?s +(no gain|-[0-9]+%)"; done
has "^3 updates: about "
hasnot "nodes, " # the long tables

# Segments, the sampler's hand-over, a window at random, replicas
plan 0 video.segments=2 video.handover=sampler optim.lag=1 window.at=random "window.range=[0, 2]" stages.decoder.replicas=2
has " handover [0-9.]+ "
has "window: 1 of steps 0 \.\. 2, begins at random in 0 \.\. 2"
[ "$(row decoder 2)" = 2 ] || fail "decoder: not two processes"

# --dry measures nothing; --tables shows all
plan 0 --dry --tables
hasnot "an update of"
has "^decoding and its vjp of 4 frames: [0-9]+ nodes"
has "^   2 .* gain|^step +sigma"

# Too large, not readable, not understood: exit status 2, before anything is measured
plan 2 video.width=2048 video.height=2048 video.frames=32
has "are missing"
hasnot "rollouts are measured"
plan 2 model=no/such/model
has "no/such/model"
plan 2 optim.lrr=1
has "did you mean optim.lr"
plan 2 --wet
has "unknown option --wet"
"$VADER" plan >"$out" 2>&1
[ $? = 2 ] || fail "no config"
has "usage: vader plan CONF"

# Interrupted while it measures: it ends, and nothing is left
"$VADER" plan tests/pipeline/tiny.yaml sampler.steps=200 >"$out" 2>&1 &
pid=$!
for _ in $(seq 500); do grep -q "are measured" "$out" && break; sleep 0.02; done
sleep 0.3
kill -INT $pid
sleep 0.1
kill -INT $pid 2>/dev/null
wait $pid
hasnot "an update of"
[ -z "$(find "$TMPDIR" -mindepth 1 -name 'vader-plan-*')" ] || fail "interrupted: a folder is left"
for p in $(find /proc/[0-9]* -maxdepth 1 -name cwd -lname "$TMPDIR/*" 2>/dev/null); do fail "process ${p%/cwd} is left"; done
echo "plan: ok"
