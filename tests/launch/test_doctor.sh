#!/usr/bin/env bash
# vader doctor: what it expects of full-size models is what the published key lists say; what it finds wrong.
set -u
tab=$(printf '\t')
out=$TMPDIR/out
fail() { echo "FAIL: $*"; cat "$out" 2>/dev/null; exit 1; }
doctor() { "$VADER" doctor "$@" >"$out" 2>&1; }
says() { grep -qF -- "$1" "$out" || fail "no '$1' in the output"; }

# ---- Full size, from configs alone
svd=$TMPDIR/svd
mkdir -p "$svd"/{unet,vae,image_encoder,scheduler,videomae}
cat >"$svd/unet/config.json" <<'J'
{"_class_name": "UNetSpatioTemporalConditionModel", "_diffusers_version": "0.24.0", "addition_time_embed_dim": 256,
 "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 1024,
 "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal",
                      "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
 "in_channels": 8, "layers_per_block": 2, "num_attention_heads": [5, 10, 20, 20], "num_frames": 25, "out_channels": 4,
 "projection_class_embeddings_input_dim": 768, "sample_size": 96, "transformer_layers_per_block": 1,
 "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal",
                    "CrossAttnUpBlockSpatioTemporal"]}
J
cat >"$svd/vae/config.json" <<'J'
{"_class_name": "AutoencoderKLTemporalDecoder", "block_out_channels": [128, 256, 512, 512], "in_channels": 3,
 "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
 "force_upcast": true, "latent_channels": 4, "layers_per_block": 2, "out_channels": 3, "sample_size": 768,
 "scaling_factor": 0.18215}
J
cat >"$svd/image_encoder/config.json" <<'J'
{"architectures": ["CLIPVisionModelWithProjection"], "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "gelu",
 "hidden_size": 1280, "image_size": 224, "initializer_factor": 1.0, "initializer_range": 0.02,
 "intermediate_size": 5120, "layer_norm_eps": 1e-05, "model_type": "clip_vision_model", "num_attention_heads": 16,
 "num_channels": 3, "num_hidden_layers": 32, "patch_size": 14, "projection_dim": 1024, "torch_dtype": "float16"}
J
cat >"$svd/videomae/config.json" <<'J'
{"architectures": ["VideoMAEForVideoClassification"], "hidden_act": "gelu", "hidden_size": 768, "image_size": 224,
 "intermediate_size": 3072, "layer_norm_eps": 1e-12, "model_type": "videomae", "num_attention_heads": 12,
 "num_channels": 3, "num_frames": 16, "num_hidden_layers": 12, "patch_size": 16, "qkv_bias": true, "tubelet_size": 2,
 "use_mean_pooling": true, "num_labels": 400}
J
cp tests/golden/euler/scheduler_config.json "$svd/scheduler/"

doctor "$svd" --keys || fail "--keys of full-size configs"
compare() { # part, list
    diff <(grep "^$1$tab" "$out" | cut -f2,3 | sort) <(tail -n +2 "tests/data/$2" | cut -f1,2 | grep -v position_ids | sort) \
        >"$TMPDIR/diff" || fail "$1 differs from $2: $(head -n 5 "$TMPDIR/diff")"
    echo "$1: $(grep -c "^$1$tab" "$out") keys as in $2"
}
compare unet svd_unet_keys.tsv
compare vae svd_vae_keys.tsv
compare image_encoder svd_clip_vision_keys.tsv
compare videomae videomae_base_keys.tsv

doctor "$svd" && fail "a folder without weights passes"
says "1428 tensors, 1,524,623,082 parameters"
says "374 tensors, 97,742,847 parameters"
says "520 tensors, 632,076,800 parameters"
says "192 modules, 64 more without effect; rank 16: 4,917,248 parameters"
says "25 steps: sigma 700 to 0.002"
says "no weights"

# ---- A whole model, then one thing wrong at a time
copy() { rm -rf "$TMPDIR/m" && cp -r "tests/golden/$1" "$TMPDIR/m" && chmod -R u+w "$TMPDIR/m"; }
for part in unet_svd vae_temporal videomae euler; do
    doctor "tests/golden/$part" || fail "tests/golden/$part does not pass"
done

copy videomae
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 3/' "$TMPDIR/m/config.json"
doctor "$TMPDIR/m" && fail "missing keys pass"
says "missing      videomae.encoder.layer.2.attention.attention.key.weight (48, 48)"
says "more"

sed -i 's/"num_hidden_layers": 3/"num_hidden_layers": 1/' "$TMPDIR/m/config.json"
doctor "$TMPDIR/m" && fail "surplus keys pass"
says "surplus      videomae.encoder.layer.1."

copy videomae
sed -i 's/"intermediate_size": 96/"intermediate_size": 97/' "$TMPDIR/m/config.json"
doctor "$TMPDIR/m" && fail "wrong shapes pass"
says "intermediate.dense.bias is [96], want (97)"

copy videomae
sed -i 's/"use_mean_pooling"/"new_kind_of_pooling"/' "$TMPDIR/m/config.json"
doctor "$TMPDIR/m" && fail "an unknown key passes"
says "key 'new_kind_of_pooling' = true is not supported"

copy videomae
sed -i 's/VideoMAEForVideoClassification/VideoSwinForEverything/' "$TMPDIR/m/config.json"
doctor "$TMPDIR/m" && fail "an unknown class passes"
says "class 'VideoSwinForEverything' is not built"

copy videomae
head -c 1000 "$TMPDIR/m/model.safetensors" >"$TMPDIR/short" && mv "$TMPDIR/short" "$TMPDIR/m/model.safetensors"
doctor "$TMPDIR/m" && fail "a truncated file passes"
says "weights"
says "model.safetensors"

"$VADER" doctor >"$out" 2>&1
[ $? = 2 ] || fail "no folder: want exit status 2"
"$VADER" doctor /nowhere >"$out" 2>&1
[ $? = 1 ] || fail "no such folder: want exit status 1"
says "/nowhere"
echo "doctor: ok"
