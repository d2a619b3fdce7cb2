# A finished tiny run with previews in $TMPDIR/run, and an evaluation of it, for tests of its report. Sourced from the
# root of the tree by tests/launch/test_report*.sh, which need VADER and TMPDIR as tests/run sets them.
set -u
run=$TMPDIR/run
out=$TMPDIR/out
fail() { echo "FAIL: $*"; cat "$out" 2>/dev/null; exit 1; }

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
preview.every: 2
ckpt.every: 2
reward:
  - {model: videomae, path: $PWD/tests/data/tiny-videomae, class: drift}
END

report() { "$VADER" report "$run" >"$out" 2>&1 || fail "report: status $?"; }
has() { grep -qF -- "$1" "$run/report.html" || fail "the report does not say: $1"; }
lacks() { grep -qF -- "$1" "$run/report.html" && fail "the report says: $1"; }

# eval.json and eval/ as `vader eval` leaves them, made of the run's previews and of numbers: what is shown is what counts.
evaluate() {
    local i video samples= comma=
    mkdir -p "$run/eval"
    for i in 0 1; do
        video=eval/dawn-$i
        for ext in mp4 png; do cp "$run/previews/step-000004-$i.$ext" "$run/$video.$ext"; done
        samples+="$comma{\"image\": \"held-out/dawn.png\", \"seed\": $i, \"video\": \"$video.mp4\",
            \"base\": {\"reward\": -1.$i, \"motion\": 3}, \"tuned\": {\"reward\": -0.$i, \"motion\": 1}}"
        comma=,
    done
    interval() { echo "{\"mean\": $1, \"low\": $2, \"high\": $3}"; }
    row() { # name, then mean, low, high of base, tuned, difference
        echo "\"$1\": {\"base\": $(interval "$2" "$3" "$4"), \"tuned\": $(interval "$5" "$6" "$7"),
            \"difference\": $(interval "$8" "$9" "${10}")}"
    }
    cat >"$run/eval.json" <<END
{"version": 1, "updates": 4, "adapter": "ckpt/step-000004.tar", "target": "drift", "images": ["held-out/dawn.png"],
 "seeds": 2, "fps": 7,
 "metrics": [{"name": "reward", "unit": "", "better": "up", "about": "the reward"},
             {"name": "motion", "unit": "levels", "better": "", "about": "mean difference of neighbouring frames",
              "kept": {"sign": "videos that stand still", "least": 0.7}},
             {"name": "vjepa_loss", "unit": "", "better": "down", "about": "V-JEPA's prediction loss"}],
 "samples": [$samples],
 "summary": {$(row reward -1 -1.2 -0.8 -0.1 -0.2 0 0.9 0.7 1.1), $(row motion 3 2.8 3.2 1 0.9 1.1 -2 -2.2 -1.8),
             $(row vjepa_loss 0.42 0.41 0.43 0.35 0.34 0.36 -0.07 -0.09 -0.05)},
 "headroom": {"real": $(interval 0.3 0.29 0.31), "base": $(interval 0.42 0.41 0.43),
              "frozen": $(interval 0.28 0.27 0.29), "blurred": $(interval 0.36 0.35 0.37)},
 "classes": {"base": {"drift": 0.3, "still": 0.5, "a class with a very long name": 0.2},
             "tuned": {"drift": 0.9, "still": 0.1, "a class with a very long name": 0}}}
END
}
