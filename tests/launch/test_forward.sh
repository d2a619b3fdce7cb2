#!/usr/bin/env bash
# vader forward: names without a case, options, and one message for each kind of bad input.
set -u
out=$TMPDIR/out
y=$TMPDIR/y.safetensors
fail() { echo "FAIL: $*"; cat "$out" 2>/dev/null; exit 1; }
says() { grep -qF -- "$1" "$out" || fail "no '$1' in the output"; }
wrong() { # status, message part, arguments of forward
    local status=$1 part=$2
    shift 2
    rm -f "$y"
    "$VADER" forward "$@" --out "$y" >"$out" 2>&1
    local rc=$?
    [ $rc = "$status" ] || fail "forward $*: status $rc, want $status"
    says "$part"
    [ "$(grep -c '^vader: ' "$out")" = 1 ] || fail "want one message"
    [ ! -e "$y" ] || fail "a result in spite of the error"
}
header() { # file: names of its tensors, one per line
    head -c "$((8 + $(od -An -t u4 -N 4 "$1")))" "$1" | tail -c +9 | grep -o '"[^"]*":{"dtype"' | cut -d'"' -f2 | sort
}
copy() { rm -rf "$TMPDIR/m" && cp -r "tests/golden/$1" "$TMPDIR/m" && chmod -R u+w "$TMPDIR/m"; }
g=tests/golden

# ---- A model part without case.json: calls by the names of the inputs
copy vae_temporal
rm "$TMPDIR/m/case.json"
"$VADER" forward "$TMPDIR/m" --in $g/vae_temporal/golden.safetensors --out "$y" --repeat 2 >"$out" 2>&1 || fail "plain folder"
[ "$(header "$y" | tr '\n' ' ')" = "out.decode.frames out.decode1.frames out.encode.latent " ] || fail "names: $(header "$y")"
says "decode1"
says "GFLOP/s"
says "peak memory"
"$VADER" forward "$TMPDIR/m" --in $g/vae_temporal/golden.safetensors --cotangent $g/vae_temporal/golden.safetensors \
    --call encode --wrt '^encoder.conv_in' --out "$y" >"$out" 2>&1 || fail "gradient of a plain folder"
[ "$(header "$y" | tr '\n' ' ')" = "grad.in.encode.image grad.w.encoder.conv_in.bias grad.w.encoder.conv_in.weight out.encode.latent " ] ||
    fail "names: $(header "$y")"

copy unet_svd
rm "$TMPDIR/m/case.json"
"$VADER" forward "$TMPDIR/m" --in $g/unet_svd_lora/golden.safetensors --cotangent $g/unet_svd_lora/golden.safetensors \
    --lora $g/unet_svd_lora --out "$y" --plan >"$out" 2>&1 || fail "an adapter on a plain folder"
[ "$(header "$y" | grep -c '^grad.lora.base_model.model.')" = "$(header $g/unet_svd_lora/golden.safetensors | grep -c '^grad.lora.')" ] ||
    fail "adapter keys"
says "inputs and outputs"

# ---- What goes wrong, goes wrong with one message
i=$g/videomae/golden.safetensors
wrong 2 "want DIR, --in FILE" $g/videomae
wrong 2 "unknown option --treads, did you mean --threads?" $g/videomae --in $i --treads 2
wrong 2 "--threads two: want a whole number" $g/videomae --in $i --threads two
wrong 2 "--memory 3X: want bytes" $g/videomae --in $i --memory 3X
wrong 2 "--dtype f16: want f32" $g/videomae --in $i --dtype f16
wrong 2 "--wrt '(': " $g/videomae --in $i --wrt '('
wrong 2 "--call nothing: want one of logits, prob, ce" $g/videomae --in $i --call nothing
wrong 1 "No such file" $g/videomae --in "$TMPDIR/none.safetensors"
wrong 1 "/nowhere: no such file or folder" /nowhere --in $i
wrong 1 "the limit is 1.00 KiB" $g/videomae --in $i --memory 1K
wrong 1 "in.clips is no input of VideoMAEForVideoClassification" $g/videomae --in $g/vjepa_hd24/golden.safetensors
wrong 1 "pixels are (2, 6, 20, 20, 3), want (N, T, 24, 24, 3)" $g/videomae --in $g/videomae_t3/golden.safetensors
wrong 1 "input 'in.sample' is missing; UNetSpatioTemporalConditionModel takes in.sample (B, F, C, h, w), in.timestep" \
    $g/unet_svd --in $g/videomae/model.safetensors

copy videomae # weights: truncated, NaN, surplus, missing, another shape, another class
m=$TMPDIR/m/model.safetensors
size=$(stat -c %s "$m")
head -c $((size - 100)) "$m" >"$TMPDIR/short" && mv "$TMPDIR/short" "$m"
wrong 1 "model.safetensors" "$TMPDIR/m" --in $i
copy videomae
printf '\000\000\300\177' | dd of="$m" bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null
wrong 1 "has NaN at element" "$TMPDIR/m" --in $i
copy videomae
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' "$TMPDIR/m/config.json"
wrong 1 "tensors that this model does not have: videomae.encoder.layer.1." "$TMPDIR/m" --in $i
sed -i 's/"num_hidden_layers": 1/"num_hidden_layers": 3/' "$TMPDIR/m/config.json"
wrong 1 "videomae.encoder.layer.2.layernorm_before.weight is missing, want a tensor (48)" "$TMPDIR/m" --in $i
copy videomae
sed -i 's/"intermediate_size": 96/"intermediate_size": 80/' "$TMPDIR/m/config.json"
wrong 1 "intermediate.dense.weight is (96, 48), want (80, 48)" "$TMPDIR/m" --in $i
copy videomae
sed -i 's/VideoMAEForVideoClassification/TimesformerForVideoClassification/' "$TMPDIR/m/config.json"
wrong 1 "class 'TimesformerForVideoClassification'" "$TMPDIR/m" --in $i
copy videomae
sed -i 's/"patch_size": 8/"patch_size": 7/' "$TMPDIR/m/config.json"
wrong 1 "image_size 24 is not a multiple of patch_size 7" "$TMPDIR/m" --in $i

# A cotangent that fits nothing is an error, not silence.
wrong 1 "no cotangent here fits an output" $g/videomae --in $i --cotangent $g/unet_svd/golden.safetensors
# Same bits whatever the number of threads.
for n in 1 2 3; do
    "$VADER" forward $g/unet_svd_lora --in $g/unet_svd_lora/golden.safetensors --cotangent $g/unet_svd_lora/golden.safetensors \
        --threads $n --out "$TMPDIR/t$n.safetensors" >"$out" 2>&1 || fail "--threads $n"
    cmp "$TMPDIR/t1.safetensors" "$TMPDIR/t$n.safetensors" || fail "bits differ with $n threads"
done
echo "forward: ok"
