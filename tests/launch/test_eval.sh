#!/usr/bin/env bash
# vader eval: what cannot be evaluated, and the words for it; long videos; a run that is evaluated stays as it was.
set -u
out=$TMPDIR/out
run=$TMPDIR/run
conf=tests/launch/eval.yaml
pictures=$PWD/tests/data/pictures
fail() { echo "FAIL: $*"; cat "$out"; exit 1; }
status() { # wanted status, message part, arguments
    local want=$1 part=$2
    shift 2
    "$VADER" "$@" >"$out" 2>&1
    local rc=$?
    [ $rc = "$want" ] || fail "vader $*: status $rc, want $want"
    grep -qF -- "$part" "$out" || fail "vader $*: no '$part'"
}

# The command line, and no run
status 0 "--lora ADAPTER" eval --help
status 0 "eval.judge" help eval
status 2 "want RUN or CONF" eval
status 2 "unknown option --lra" eval $conf --lra x
status 2 "no/such" eval no/such
status 2 "did you mean eval.seeds" eval $conf eval.seed=3
status 2 "no adapter: there is no run with a durable update" eval $conf run="$run"

# The base model alone, before there is a run; its numbers are those that it has beside an adapter
status 0 "adapter: none" eval $conf run="$run" eval.lora_scale=0 eval.seeds=1
grep -q "real continuations" "$out" || fail "no headroom"
base() { grep -o '"base": {"reward": [-0-9.e]*' "$run/eval.json"; }
alone=$(base)
[ "$(echo "$alone" | wc -l)" = 2 ] || fail "want two samples: $alone"
"$VADER" train $conf run="$run" --inline >"$out" 2>&1 || fail "train"
status 0 "adapter: update 6 of the run" eval "$run" eval.seeds=1
[ "$(base)" = "$alone" ] || fail "the base model's videos depend on the adapter"
sum() { (cd "$run" && cat metrics.jsonl state-0 state-1 config.yaml | cksum); }
before=$(sum)

# Images
status 2 "no images: eval.images or eval.list" eval "$run" eval.images=[] eval.real=[]
status 2 "no/such.png: No such file" eval "$run" eval.images=no/such.png eval.real=[]
head -c 300 "$pictures/dawn.png" >"$TMPDIR/torn.png"
status 1 "torn.png: the PNG picture is cut short" eval "$run" eval.images="[$pictures/hills.png,$TMPDIR/torn.png]"
status 2 "is given twice" eval "$run" eval.images="[$pictures/hills.png,$pictures/hills.png]"
status 2 "not both" eval "$run" eval.list="$TMPDIR/list"
printf '%s\n' "$pictures/hills.png" "# no image" "$pictures/tiles.png" >"$TMPDIR/list"
status 0 "2 images, 1 seeds" eval "$run" eval.images=[] eval.list="$TMPDIR/list" eval.seeds=1
mkdir -p "$TMPDIR/x" "$TMPDIR/y"
cp "$pictures/hills.png" "$TMPDIR/x/"
cp "$pictures/tiles.png" "$TMPDIR/y/hills.png"
status 0 "2 images, 1 seeds" eval "$run" eval.images="[$TMPDIR/x/hills.png,$TMPDIR/y/hills.png]" eval.seeds=1
[ -s "$run/eval/x-hills-0.mp4" ] && [ -s "$run/eval/y-hills-0.mp4" ] || fail "two images of one name"

# Adapters
status 1 "no/such: No such file" eval "$run" --lora no/such
status 1 "the model has no such module" eval "$run" --lora tests/golden/unet_svd_lora
"$VADER" ckpt export "$run/ckpt/step-000006.tar" --peft "$TMPDIR/peft" >"$out" || fail "export"
sed -i 's/"r": 2/"r": 3/' "$TMPDIR/peft/adapter_config.json"
status 1 "want floats [3, " eval "$run" --lora "$TMPDIR/peft"
"$VADER" ckpt export "$run/ckpt/step-000006.tar" --diffusers "$TMPDIR/lora.safetensors" >"$out" || fail "export"
status 0 "lora.safetensors; wanted class: drift" eval "$run" --lora "$TMPDIR/lora.safetensors" eval.seeds=1
status 0 "no/such" eval $conf run="$TMPDIR/no/such" --lora "$TMPDIR/lora.safetensors" eval.seeds=1
[ -s "$TMPDIR/no/such/eval.json" ] || fail "an adapter without a run"

# Judges and V-JEPA
cp -r tests/data/tiny-videomae "$TMPDIR/judge"
chmod -R u+w "$TMPDIR/judge"
sed -i 's/"still"/"rest"/; s/"still"/"rest"/' "$TMPDIR/judge/config.json"
status 2 "no class 'still', which the reward's classifier has" eval "$run" eval.judge="$TMPDIR/judge"
status 1 "want VideoMAEForVideoClassification" eval "$run" eval.judge=tests/data/tiny-svd/unet
status 1 "no/such" eval "$run" eval.vjepa=no/such
status 2 "eval.vjepa is missing" eval "$run" eval.vjepa=
status 2 "want one for each" eval "$run" eval.real="$TMPDIR/torn.png"
status 1 "torn.png: not a video" eval "$run" eval.real="[$TMPDIR/torn.png,$TMPDIR/torn.png]"
media=$PWD/tests/common/format/data/media
status 2 "video.mp4: 6 frames, want at least 8" eval "$run" eval.real="[$media/video.mp4,$media/video.mp4]" video.frames=8
cat >"$TMPDIR/still.yaml" <<END
model: $PWD/tests/data/tiny-svd
sampler.steps: 3
guidance: {min: 1, max: 1}
video: {frames: 1, width: 32, height: 32}
data.images: [$pictures/dawn.png]
lora: {rank: 2, alpha: 3}
eval: {images: [$pictures/dawn.png], seeds: 2}
reward: [{model: aesthetic, path: $PWD/tests/data/tiny-aesthetic/clip, head: $PWD/tests/data/tiny-aesthetic/head/model.safetensors, form: score}]
END
status 0 "aesthetic.0" eval "$TMPDIR/still.yaml" run="$TMPDIR/still" --lora "$TMPDIR/lora.safetensors"
grep -qE "motion|shift|zoom|consistency|diversity|class" "$TMPDIR/still/eval.json" && fail "a video of one frame does not move"
status 2 "V-JEPA: 1 frames, want at least 2" eval "$TMPDIR/still.yaml" run="$TMPDIR/still" --lora "$TMPDIR/lora.safetensors" \
    eval.vjepa=tests/data/tiny-vjepa
status 2 "needs a video of at least 2 frames, this one has 1" eval "$run" video.frames=1
sed 's/^reward:.*//' "$TMPDIR/still.yaml" >"$TMPDIR/none.yaml"
status 2 "no reward is given" eval "$TMPDIR/none.yaml" run="$TMPDIR/still" --lora "$TMPDIR/lora.safetensors"

# NaN is an error, named: a picture cannot have it, a classifier's bias can
cp -r tests/data/tiny-videomae "$TMPDIR/nan"
chmod -R u+w "$TMPDIR/nan"
printf '\000\176' | dd of="$TMPDIR/nan/model.safetensors" bs=1 seek=$(($(stat -c %s "$TMPDIR/nan/model.safetensors") - 2)) conv=notrunc 2>/dev/null
status 1 "NaN" eval "$run" eval.judge="$TMPDIR/nan"

# Long videos: the frame that a segment repeats is neither motion nor predictable
for seam in keep drop_first; do
    status 0 "V-JEPA's loss of" eval "$run" video.segments=2 video.seam=$seam eval.seeds=1 eval.real=[]
    cp "$run/eval.json" "$TMPDIR/$seam.json"
done
metric() { grep -o "\"$2\": {\"base\": {\"mean\": [-0-9.e]*" "$TMPDIR/$1.json" | head -n 1; }
for m in motion vjepa_loss consistency shift_x; do
    [ -n "$(metric keep $m)" ] && [ "$(metric keep $m)" = "$(metric drop_first $m)" ] ||
        fail "$m of a long video depends on what is scored"
done
[ "$(metric keep reward)" != "$(metric drop_first reward)" ] || fail "the reward does not depend on video.seam"
# Where later first frames are not scored, the first one is all that first_frame is about
for shape in "1 keep" "2 drop_first" "2 keep"; do
    status 0 "first_frame.2" eval "$run" video.segments=${shape% *} video.seam=${shape#* } eval.seeds=1 eval.real=[] \
        reward.2.model=first_frame reward.2.form=score
    cp "$run/eval.json" "$TMPDIR/${shape/ /}.json"
done
[ "$(metric 1keep first_frame.2)" = "$(metric 2drop_first first_frame.2)" ] || fail "the first frame's error is of other frames, too"
[ "$(metric 1keep first_frame.2)" != "$(metric 2keep first_frame.2)" ] || fail "the second segment's first frame is not scored"

# The report takes it, whosever adapter it is
for lora in "" "--lora $TMPDIR/lora.safetensors"; do
    status 0 "2 images, 1 seeds" eval "$run" eval.seeds=1 $lora
    status 0 "report.html" report "$run"
    grep -q "Not measured yet" "$run/report.html" && fail "the report does not see the evaluation"
    grep -q "tiles.png, seed 0" "$run/report.html" || fail "the report shows no videos of the evaluation"
done

[ "$(sum)" = "$before" ] || fail "the run was changed"
[ -z "$(find "$TMPDIR" -name '*.tmp*')" ] || fail "temporary files are left"
echo "eval: ok"
