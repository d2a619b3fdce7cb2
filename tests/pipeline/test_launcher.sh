#!/bin/bash
# Contract 2, launcher: kill -9 at any moment, then resume: the same bytes. Signals end a run in order; a second
# run waits its turn or is refused.
. tests/pipeline/lib.sh

shape="video.segments=2 optim.updates=5 slots=3 optim.lag=1"
train ref --inline $shape

# Killed before, between and after updates, and again while it goes on.
kill_launcher() {
    kill -9 $launcher 2>/dev/null
    wait $launcher 2>/dev/null
    until_true 10 gone || fail "stages outlive the launcher: $(processes | tr '\n' ' ')"
}
for updates in 0 1 2 4; do
    start killed $shape --fault delay:$updates:3000
    if [ $updates = 0 ]; then
        until_true 20 test -s "$TMPDIR/killed/config.yaml" && sleep 0.1
    else
        until_true 60 has_updates killed $updates || fail "update $updates never came"
    fi
    kill_launcher
    resume killed
    same killed ref
done
start twice $shape --fault delay:9:3000
until_true 60 has_updates twice 1
kill_launcher
"$VADER" resume "$TMPDIR/twice" --fault delay:8:3000 >>"$TMPDIR/twice.log" 2>&1 &
launcher=$!
until_true 60 has_updates twice 3
kill_launcher
resume twice --inline # and the other way of carrying it out goes on from there
same twice ref

# Launcher and a stage at once.
start both $shape --fault delay:7:3000
until_true 60 has_updates both 2
kill -9 "$(processes learner | head -n 1)"
kill_launcher
resume both
same both ref

# The newest state is damaged: the one before goes on.
start damaged $shape --fault delay:6:3000
until_true 60 has_updates damaged 3
kill_launcher
newest=$(ls -t "$TMPDIR"/damaged/state-[01] | head -n 1)
printf 'x' | dd of="$newest" bs=1 seek=2000 conv=notrunc 2>/dev/null
resume damaged
grep -q "its hash does not match" "$TMPDIR/damaged.log" || fail "the damage was not reported"
same damaged ref

# Asked once to stop: running steps are finished, all is in order. Asked twice: at once.
for sig in INT TERM; do
    start asked $shape --fault delay:3:4000
    until_true 60 has_updates asked 1
    kill -$sig $launcher
    wait $launcher || fail "SIG$sig: status $?"
    grep -q "resume" "$TMPDIR/asked.log" || fail "SIG$sig: it does not say how to go on"
    nothing_left
    resume asked
    same asked ref
done
start twice $shape --fault delay:3:300000
until_true 60 alive learner
sleep 0.5
before=$(date +%s%N)
kill -INT $launcher
sleep 0.1
kill -INT $launcher
wait $launcher
[ $((($(date +%s%N) - before) / 1000000)) -lt 5000 ] || fail "asked twice, it took longer than 5 s"
nothing_left
resume twice
same twice ref

# Stages see no Ctrl-C of the terminal, only the launcher does.
start terminal $shape --fault delay:2:150000 # long enough for what follows
until_true 60 has_updates terminal 1
group_of() { sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 3; } # "PID (NAME) STATE PARENT GROUP ..."
[ "$(group_of $$)" -gt 0 ] || fail "no process group in /proc"
for p in $(processes sampler) $(processes decoder); do
    [ "$(group_of "$p")" = "$(group_of $launcher)" ] && fail "a stage shares the launcher's process group"
done
# While it runs: a second one is refused, and does it no harm.
"$VADER" train "$CONF" run="$TMPDIR/terminal" $shape >"$TMPDIR/second.log" 2>&1
[ $? = 2 ] && grep -q "another run is active" "$TMPDIR/second.log" || fail "a second run: $(cat "$TMPDIR/second.log")"
wait $launcher || fail "terminal: status $?"
cp -r "$TMPDIR/terminal" "$TMPDIR/finished"
same terminal ref

# When it is done: another is refused, resume has nothing to do, more updates go on.
"$VADER" train "$CONF" run="$TMPDIR/finished" $shape >"$TMPDIR/second.log" 2>&1
[ $? = 2 ] && grep -q "holds a run already" "$TMPDIR/second.log" || fail "again: $(cat "$TMPDIR/second.log")"
resume finished
train ref7 --inline $shape optim.updates=7
resume finished optim.updates=7
same finished ref7

# Settings that decide numbers do not change by accident.
start changed $shape
wait $launcher
"$VADER" resume "$TMPDIR/changed" optim.lr=0.5 optim.updates=6 >"$TMPDIR/second.log" 2>&1
[ $? = 2 ] && grep -q "optim.lr" "$TMPDIR/second.log" || fail "a changed setting: $(cat "$TMPDIR/second.log")"
resume changed optim.lr=0.5 optim.updates=6 --accept-change
[ "$(wc -l <"$TMPDIR/changed/metrics.jsonl")" = 6 ] || fail "an accepted change did not go on"

# Nor do models: one bit of one weight, of the denoiser and of a reward. The run knows them by their bytes, not their place.
cp -r tests/data/tiny-svd "$TMPDIR/svd"
cp -r tests/data/tiny-videomae "$TMPDIR/videomae"
start models $shape model="$TMPDIR/svd" reward.0.path="$TMPDIR/videomae"
wait $launcher
for weights in svd/unet/diffusion_pytorch_model videomae/model; do
    file=$TMPDIR/$weights.safetensors
    cp "$file" "$TMPDIR/kept"
    at=$(($(stat -c %s "$file") - 4)) # the last weight's lowest byte
    printf "\\$(printf %o $(($(od -An -tu1 -j $at -N 1 "$file") ^ 1)))" | dd of="$file" bs=1 seek=$at conv=notrunc status=none
    cmp -s "$file" "$TMPDIR/kept" && fail "$weights: the test did not change it"
    "$VADER" resume "$TMPDIR/models" optim.updates=6 >"$TMPDIR/second.log" 2>&1
    [ $? = 2 ] && grep -q "models' weights differ" "$TMPDIR/second.log" || fail "$weights changed: $(cat "$TMPDIR/second.log")"
    "$VADER" verify "$TMPDIR/models" >"$TMPDIR/second.log" 2>&1
    [ $? = 2 ] && grep -q "models' weights differ" "$TMPDIR/second.log" || fail "verify, $weights: $(cat "$TMPDIR/second.log")"
    cp "$TMPDIR/kept" "$file"
done
resume models optim.updates=6
[ "$(wc -l <"$TMPDIR/models/metrics.jsonl")" = 6 ] || fail "the models as they were: the run did not go on"
"$VADER" resume "$TMPDIR/no_such_run" >"$TMPDIR/second.log" 2>&1
[ $? = 2 ] || fail "resume of nothing"
finish
