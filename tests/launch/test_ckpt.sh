#!/usr/bin/env bash
# A run seen from outside: status while it goes and after, its trace, its bundles, and a run made of a bundle.
set -u
out=$TMPDIR/out
run=$TMPDIR/run
fail() { echo "FAIL: $*"; cat "$out"; exit 1; }
status() { # wanted status, message part, arguments
    local want=$1 part=$2
    shift 2
    "$VADER" "$@" >"$out" 2>&1
    local rc=$?
    [ $rc = "$want" ] || fail "vader $*: status $rc, want $want"
    grep -qF -- "$part" "$out" || fail "vader $*: no '$part'"
}
cat >"$TMPDIR/tiny.yaml" <<END
model: $PWD/tests/data/tiny-svd
stages: {sampler.threads: 1, decoder.threads: 1, rewarder.threads: 1, learner.threads: 1}
sampler.steps: 3
guidance: {min: 1, max: 1}
video: {frames: 4, width: 32, height: 32}
window.at: 1
data.images: [$PWD/tests/data/pictures/dawn.png, $PWD/tests/data/pictures/hills.png]
lora: {rank: 2, alpha: 3}
optim: {rollouts: 2, updates: 4, lr: 0.01}
ckpt.every: 2
reward:
  - {model: videomae, path: $PWD/tests/data/tiny-videomae, class: drift}
END

# Status of a run that goes on, that was killed, and that has ended.
"$VADER" train "$TMPDIR/tiny.yaml" run="$run" --fault delay:1:100000 >"$TMPDIR/log" 2>&1 &
launcher=$!
for _ in $(seq 300); do
    [ -s "$run/metrics.jsonl" ] && break
    sleep 0.1
done
status 0 "launcher $launcher" status "$run"
grep -q "^learner.0 .*%" "$out" || fail "status: no learner"
kill -9 $launcher
wait $launcher 2>/dev/null
for _ in $(seq 100); do
    "$VADER" status "$run" >"$out" 2>&1
    grep -q "killed .* ago" "$out" && break
    sleep 0.1
done
grep -q "killed .* ago" "$out" || fail "status: does not say that it was killed"
status 0 "" resume "$run"
status 0 "update 4 of 4, reward" status "$run" --watch
grep -q "ended .* ago" "$out" || fail "status: does not say that it has ended"

# The trace is JSON in which every sample's arrows begin and end.
status 0 "overlap" trace "$run"
grep -q "bound by the " "$out" || fail "trace: no bounding stage"
count() { grep -c "$1" "$run/trace.json"; }
[ "$(count '"ph":"s"')" = "$(count '"ph":"f"')" ] || fail "trace: arrows without an end"
[ "$(count '"name":"learn.0"')" -ge 4 ] || fail "trace: learn.0 is missing" # the kill lost the last 0.2 s
[ "$(count '"name":"update"')" -ge 2 ] || fail "trace: updates are missing"
if command -v python3 >/dev/null; then
    python3 -m json.tool "$run/trace.json" >/dev/null 2>"$out" || fail "trace: not JSON"
fi

# Bundles.
status 0 "step-000004.tar: whole" ckpt verify "$run/ckpt/step-000002.tar" "$run/ckpt/step-000004.tar"
status 0 "diffusers/pytorch_lora_weights.safetensors" ckpt ls "$run/ckpt/step-000004.tar"
status 0 "peft" ckpt export "$run/ckpt/step-000004.tar" --peft "$TMPDIR/peft"
status 2 "File exists" ckpt export "$run/ckpt/step-000004.tar" --peft "$TMPDIR/peft"
status 0 "lora.safetensors" ckpt export "$run/ckpt/step-000004.tar" --diffusers "$TMPDIR/lora.safetensors"
status 0 "files" ckpt extract "$run/ckpt/step-000004.tar" "$TMPDIR/all"
cmp "$TMPDIR/all/diffusers/pytorch_lora_weights.safetensors" "$TMPDIR/lora.safetensors" || fail "export and extract differ"
cmp "$TMPDIR/all/metrics.jsonl" "$run/metrics.jsonl" || fail "metrics of the bundle differ"
head -c 5000 "$run/ckpt/step-000004.tar" >"$TMPDIR/cut.tar"
status 1 "cut.tar" ckpt verify "$TMPDIR/cut.tar"
status 2 "did you mean verify" ckpt verfy "$TMPDIR/cut.tar"
status 2 "usage: vader ckpt export" ckpt export "$run/ckpt/step-000004.tar"

# Proved by making it again; one bit anywhere in a bundle, here where tar has no use for it, and it fails.
status 0 "every byte the same; 2 bundles whole" verify "$run"
flip() { # file, place
    local byte
    byte=$(od -An -tu1 -j"$2" -N1 "$1")
    printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
padding=$((512 + ($(stat -c %s "$run/config.yaml") + 511) / 512 * 512 - 1)) # behind the first entry
flip "$run/ckpt/step-000002.tar" $padding
status 1 "step-000002.tar: damaged" verify "$run"
status 1 "step-000002.tar: damaged" ckpt verify "$run/ckpt/step-000002.tar"
flip "$run/ckpt/step-000002.tar" $padding
flip "$run/metrics.jsonl" 30
status 1 "metrics.jsonl differs from the run made again at byte 30" verify "$run"
flip "$run/metrics.jsonl" 30
status 0 "every byte the same" verify "$run"

# A run made of the bundle of version 2 comes to the same bytes.
status 2 "run=DIR" resume "$run/ckpt/step-000002.tar"
(cd "$TMPDIR" && "$VADER" resume run/ckpt/step-000002.tar run=other >"$out" 2>&1) || fail "resume of a bundle"
for f in metrics.jsonl state-0 state-1; do
    cmp "$run/$f" "$TMPDIR/other/$f" || fail "$f differs after a resume from a bundle"
done
status 2 "there is a config.yaml already" resume "$run/ckpt/step-000002.tar" run="$TMPDIR/other"
status 2 "no run there" status "$TMPDIR/none"
echo "ckpt: ok"
