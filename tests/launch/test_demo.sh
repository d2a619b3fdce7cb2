#!/usr/bin/env bash
# The demo's trained models load and work: every part is whole, one update of each config runs, the base model continues
# a held-out photograph, and nothing is evaluated on a picture that was trained on.
set -u
out=$TMPDIR/out
demo=tests/data/demo
fail() { echo "FAIL: $*"; tail -n 20 "$out"; exit 1; }
run() { "$VADER" "$@" >"$out" 2>&1 || fail "vader $*: status $?"; }

for part in svd videomae judge vjepa; do
    run doctor $demo/$part
done
[ "$(du -sk $demo | cut -f1)" -le 25600 ] || fail "$demo is larger than 25 MB"
for conf in launch/conf/demo.yaml launch/conf/demo-long.yaml; do
    grep -q '^data.images: \[\]$' $conf || fail "$conf trains on other pictures than those of its list"
    grep -q '^data.list: .*photos/train.txt"$' $conf || fail "$conf does not train on the pictures to train on"
    grep '^eval.images' $conf | grep -q photos/train && fail "$conf evaluates a picture that it trains on"
done

grep -qv '^train/' $demo/photos/train.txt && fail "$demo/photos/train.txt: a picture of another folder"
[ "$(sed 's,^train/,,' $demo/photos/train.txt | LC_ALL=C sort)" = "$(ls $demo/photos/train | LC_ALL=C sort)" ] ||
    fail "$demo/photos: train.txt and train/ are not the same pictures"

for id in $(basename -a -s .png $demo/photos/*/*.png | sed 's/-2$//'); do
    grep -q "^| $id |" $demo/ATTRIBUTION.md || fail "$demo/ATTRIBUTION.md does not say whose photograph $id is"
done

one="optim.updates=1 optim.rollouts=1 optim.lag=0 preview.every=0"
# Where every load and store is looked at, the demo would take an hour: smaller pictures, fewer steps, and no word about quality.
[ "${MODE:-}" = tsan ] && one="$one sampler.steps=2 window.range=[0,1] video.width=64 video.height=64"
run train launch/conf/demo.yaml run="$TMPDIR/demo" $one --inline
run train launch/conf/demo-long.yaml run="$TMPDIR/long" $one video.handover=learner --inline
run eval "$TMPDIR/demo" eval.images="[$PWD/$demo/photos/held-out/citrus.png]" eval.real="[$PWD/$demo/clips/citrus.mp4]" eval.seeds=1
if [ "${MODE:-}" != tsan ]; then
    sample() { grep -o '"base": {"reward"[^}]*' "$TMPDIR/demo/eval.json" | grep -o "\"$1\": [-0-9.]*" | cut -d' ' -f2; }
    psnr=$(sample first_frame_psnr)
    awk -v x="${psnr:-0}" 'BEGIN { exit !(x > 16) }' || fail "the first frame is its picture at $psnr dB, want 16"
    # The reward for it is the same error, but for colours outside of [0, 1].
    awk -v x="$psnr" -v r="$(sample first_frame.1)" 'BEGIN { d = x + 10 * log(-r) / log(10); exit !(d > -0.01 && d < 0.5) }' ||
        fail "the first frame is its picture at $psnr dB, but its reward is $(sample first_frame.1)"
fi
run report "$TMPDIR/demo"
