#!/usr/bin/env bash
# The demo's trained models load and work: every part is whole, an update of both configs runs, the base model
# continues a held-out photograph, and the classifiers see in real clips the motion that is in them.
set -u
out=$TMPDIR/out
demo=tests/data/demo
fail() { echo "FAIL: $*"; tail -n 20 "$out"; exit 1; }
run() { "$VADER" "$@" >"$out" 2>&1 || fail "vader $*: status $?"; }

for part in svd videomae judge vjepa; do
    run doctor $demo/$part
done
[ "$(du -sk $demo | cut -f1)" -le 25600 ] || fail "$demo is larger than 25 MB"

# Every picture that a config names is there, and none for evaluation is one to train on
run plan launch/conf/demo.yaml run="$TMPDIR/plan"
grep -q "held-out" <(grep '^data.images' launch/conf/demo*.yaml) && fail "a held-out picture in data.images"

small="optim.updates=1 optim.rollouts=1 preview.every=0 eval.seeds=1"
one="eval.images=[\"$PWD/$demo/photos/held-out/citrus.png\"] eval.real=[]"
run train launch/conf/demo.yaml run="$TMPDIR/demo" $small --inline
run eval "$TMPDIR/demo" "$one" eval.real=[] eval.seeds=1
value() { sed -n "s/.*\"$1\": \([-0-9.e]*\).*/\1/p" "$TMPDIR/demo/eval.json" | head -n 1; }
awk -v x="$(value first_frame_psnr)" 'BEGIN { exit !(x > 20) }' || fail "first frame: $(value first_frame_psnr) dB, want 20"
run report "$TMPDIR/demo"
