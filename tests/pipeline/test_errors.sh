#!/bin/bash
# What goes wrong is said, with the right exit status, and nothing is left behind.
. tests/pipeline/lib.sh

# Settings
refused 2 "did you mean video.frames" video.frame=3
refused 2 "want 0 to 10" optim.lr=20
refused 2 "No such file" data.images=no/such.png
refused 2 "multiples of" video.width=36
refused 2 "no/such/model" model=no/such/model
refused 2 "no/such" reward.0.path=no/such
refused 2 "ebbing" reward.0.class=ebbing
refused 2 "are missing" video.width=2048 video.height=2048 video.frames=32
refused 2 "fault" --fault explode:score@1
refused 2 "unknown option" --inlnie
"$VADER" train no/such.yaml >"$TMPDIR/refused.log" 2>&1
[ $? = 2 ] || fail "a config that is not there: $(cat "$TMPDIR/refused.log")"

# Models and images that are not what they should be
bad=$TMPDIR/bad
copy_model() { rm -rf "$bad"; cp -r tests/data/tiny-svd "$bad"; chmod -R u+w "$bad"; }
copy_model
rm "$bad/vae/config.json"
refused 2 "vae: no config.json" model="$bad"
copy_model
truncate -s -100 "$bad/unet/diffusion_pytorch_model.safetensors"
refused 2 "diffusion_pytorch_model.safetensors" model="$bad"
copy_model
sed -i 's/"cross_attention_dim": 32/"cross_attention_dim": 48/' "$bad/unet/config.json"
refused 2 "unet" model="$bad"
head -c 5000 /dev/urandom >"$TMPDIR/noise.png"
refused 2 "noise.png: not a picture" data.images="$TMPDIR/noise.png"
refused 2 "noise.png: not a picture" preview.images="$TMPDIR/noise.png"
refused 2 "noise.png: not a picture" data.images="$TMPDIR/noise.png" --inline
head -c 300 tests/data/pictures/dawn.png >"$TMPDIR/torn.png"
refused 2 "torn.png" data.images="$TMPDIR/torn.png"
echo "$TMPDIR/torn.png" >"$TMPDIR/list.txt"
refused 2 "torn.png" data.images= data.list="$TMPDIR/list.txt"
refused 2 "needs a video of at least 2 frames" video.frames=1
refused 2 "V-JEPA: 1 frames, want at least 2" video.frames=1 reward.0.{model=vjepa,path=tests/data/tiny-vjepa,form=score}
# Nothing was begun: no stage has a log
for f in "$TMPDIR"/refused/log/*; do case $f in */plan.*) ;; *) fail "$f: a stage was started" ;; esac; done

# NaN among the weights: the last number of the file is a half
nan_in() { # part, file
    copy_model
    printf '\000\176' | dd of="$bad/$1" bs=1 seek=$(($(stat -c %s "$bad/$1") - 2)) conv=notrunc 2>/dev/null
}
nan_in unet/diffusion_pytorch_model.safetensors
refused 2 "has NaN at element" model="$bad"
nan_in vae/diffusion_pytorch_model.safetensors
refused 2 "has NaN at element" model="$bad"

# NaN while it runs: where a gradient is zero, AdamW without eps divides zero by zero; no state keeps that
refused 1 "update 0: the new parameters are not finite" optim.eps=0
[ -e "$TMPDIR/refused/state-1" ] && fail "a state with NaN was written"

# A stage that says it failed ends the run; one that dies again and again does, too
refused 1 "this step was told to fail" --fault fail:score@1
grep -q restarts "$TMPDIR/refused.log" && fail "a stage that failed was restarted"
refused 1 "died 4 times at the same step of sample 1" --fault crash:score@1:before
refused 1 "learner.0 died 4 times" --fault crash:update@1:after
[ "$(wc -l <"$TMPDIR/refused/metrics.jsonl")" = 1 ] || fail "the updates before it are not kept"
"$VADER" resume "$TMPDIR/refused" >"$TMPDIR/resumed.log" 2>&1 || fail "going on: $(tail -n 2 "$TMPDIR/resumed.log")"
train ref --inline
same refused ref

# No memory: whatever is refused first, by whom, it is one message and no restart. A sanitizer reserves
# more addresses for itself than any such limit.
limits="60000 100000 140000 170000 190000 210000"
case ${MODE:-} in asan | tsan) limits= ;; esac
for kib in $limits; do
    (
        ulimit -v $kib
        exec "$VADER" train "$CONF" run="$TMPDIR/limited" optim.updates=1
    ) >"$TMPDIR/refused.log" 2>&1
    got=$?
    [ $got = 0 ] || grep -q "^vader: .* died of signal" "$TMPDIR/refused.log" && fail "$kib KiB: $(cat "$TMPDIR/refused.log")"
    [ $got = 0 ] || grep -v "run directory" "$TMPDIR/refused.log" | grep -q "^vader: ..*: ..*" ||
        fail "$kib KiB, status $got: $(cat "$TMPDIR/refused.log")"
    rm -rf "$TMPDIR/limited"
    nothing_left
done

# No room: files, shared memory
refused_limited() { # KiB, text
    (
        trap '' XFSZ
        ulimit -f "$1"
        exec "$VADER" train "$CONF" run="$TMPDIR/limited"
    ) >"$TMPDIR/refused.log" 2>&1
    local got=$?
    [ $got = 1 ] || fail "files of $1 KiB: status $got"
    grep -qF "$2" "$TMPDIR/refused.log" || fail "files of $1 KiB: $(tail -n 2 "$TMPDIR/refused.log")"
    rm -rf "$TMPDIR/limited"
    nothing_left
}
refused_limited 100 "shared memory wanted"
if unshare -m true 2>/dev/null; then
    apart() { unshare -m "$@"; }
elif unshare -rm true 2>/dev/null; then
    apart() { unshare -rm "$@"; }
else
    apart() { return 99; }
    echo "no mount namespaces here: a full /dev/shm is tried by the limit on file sizes only, a full disk by test_ledger"
fi
if apart true; then
    apart bash -c "mount -t tmpfs -o size=1m none /dev/shm && exec '$VADER' train $CONF run='$TMPDIR/shm'" \
        >"$TMPDIR/refused.log" 2>&1
    [ $? = 2 ] && grep -q "MiB of shared memory, /dev/shm has .* free" "$TMPDIR/refused.log" ||
        fail "a full /dev/shm: $(tail -n 2 "$TMPDIR/refused.log")"
    apart bash -c "mkdir -p '$TMPDIR/disk' && mount -t tmpfs -o size=300k none '$TMPDIR/disk' &&
        exec '$VADER' train $CONF run='$TMPDIR/disk/run'" >"$TMPDIR/refused.log" 2>&1
    [ $? = 1 ] && grep -qi "no space" "$TMPDIR/refused.log" || fail "a full disk: $(tail -n 2 "$TMPDIR/refused.log")"
    nothing_left

    # It fills up while the run goes on; with room again the run goes on from its last update.
    train ref8 --inline optim.updates=8
    apart bash -c "
        . tests/pipeline/lib.sh
        mkdir -p '$TMPDIR/filling' && mount -t tmpfs -o size=4m none '$TMPDIR/filling' || exit 1
        '$VADER' train $CONF run='$TMPDIR/filling/run' optim.updates=8 preview.every=2 --fault delay:1:20000 >'$TMPDIR/refused.log' 2>&1 &
        until_true 60 has_updates filling/run 2 || exit 2
        cat /dev/zero >'$TMPDIR/filling/ballast' 2>/dev/null
        wait \$!
        [ \$? = 1 ] || exit 3
        nothing_left
        rm '$TMPDIR/filling/ballast'
        '$VADER' resume '$TMPDIR/filling/run' >'$TMPDIR/resumed.log' 2>&1 || exit 4
        mkdir '$TMPDIR/filled' && cp '$TMPDIR/filling/run/'* '$TMPDIR/filled/' 2>/dev/null
        exit \$failed" || fail "a disk that fills up: step $?: $(tail -n 2 "$TMPDIR/refused.log" "$TMPDIR/resumed.log")"
    grep -qi "no space" "$TMPDIR/refused.log" || fail "a disk that fills up: $(tail -n 2 "$TMPDIR/refused.log")"
    same filled ref8
fi

# A run directory that is too deep for sockets is none of our user's business: they are relative
deep=$TMPDIR/$(printf 'a%.0s' {1..150})/$(printf 'b%.0s' {1..100})
"$VADER" train "$CONF" run="$deep" optim.updates=1 >"$TMPDIR/refused.log" 2>&1 || fail "a long path: $(tail -n 2 "$TMPDIR/refused.log")"
finish
