#!/usr/bin/env python3
"""Writes a random UNet with every key and shape of the full-size SVD-XT checkpoint, in float16, and inputs for it.

  full_size_unet.py OUT_DIR [--frames 14] [--latent 32x32] [--rank 16] [--seed S] [--keys tests/data/svd_unet_keys.tsv]

OUT_DIR/config.json, OUT_DIR/diffusion_pytorch_model.safetensors (3.05 GB), OUT_DIR/inputs.safetensors with
in.sample (1, F, 8, h, w), in.timestep, in.encoder_hidden_states, in.added_time_ids, and OUT_DIR/cotangent.safetensors
with cot.sample (1, F, 4, h, w). Matrices are normal, scaled by 1/sqrt(fan-in) and less in front of each residual
sum, norm gains near 1, so that activations stay of order 1 to 10. OUT_DIR/lora is a PEFT adapter of rank R on every
attention that has an effect. Streams to disk; needs numpy only.
"""
import argparse
import csv
import json
import math
import re
import struct
from pathlib import Path

import numpy as np

CONFIG = {
    "_class_name": "UNetSpatioTemporalConditionModel", "_diffusers_version": "0.24.0.dev0", "addition_time_embed_dim": 256,
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"], "in_channels": 8,
    "layers_per_block": 2, "num_attention_heads": [5, 10, 20, 20], "num_frames": 25, "out_channels": 4,
    "projection_class_embeddings_input_dim": 768, "sample_size": 96, "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
}
RESIDUAL = re.compile(r"(conv2|to_out\.0|ff\.net\.2|ff_in\.net\.2|proj_out)\.weight$")      # the last layer of a branch
POOL = 1 << 22      # normals are drawn once and reused from random offsets: drawing 1.5 billion would take minutes


def read_keys(path):
    with open(path, newline="") as f:
        return [(row["key"], [int(n) for n in row["shape"].split("x")]) for row in csv.DictReader(f, delimiter="\t")]


def header_bytes(entries, itemsize, dtype):
    """A safetensors header for tensors laid out one after the other, padded to 8 bytes."""
    table, at = {"__metadata__": {"format": "pt"}}, 0
    for key, shape in entries:
        size = math.prod(shape) * itemsize
        table[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, at


def draw(key, shape, pool, rng):
    """One tensor's values as float32, flat."""
    count = math.prod(shape)
    if key.endswith("mix_factor"):
        return rng.standard_normal(count, dtype=np.float32) * 0.5
    out = np.empty(count, np.float32)
    for begin in range(0, count, POOL // 2):
        end = min(begin + POOL // 2, count)
        offset = int(rng.integers(0, POOL - (end - begin) + 1))
        out[begin:end] = pool[offset:offset + end - begin]
    if ("norm" in key) and len(shape) == 1:
        return out * 0.05 + (1.0 if key.endswith(".weight") else 0.0)
    if len(shape) == 1:
        return out * 0.02
    return out * ((0.5 if RESIDUAL.search(key) else 1.0) * math.prod(shape[1:]) ** -0.5)


def write_tensors(path, tensors):
    entries = [(key, list(x.shape)) for key, x in tensors.items()]
    header, _ = header_bytes(entries, 4, "F32")
    with open(path, "wb") as f:
        f.write(header)
        for x in tensors.values():
            f.write(np.ascontiguousarray(x, "<f4").tobytes())


def write_lora(out, keys, rank, rng):
    """A PEFT folder: A and B both random, so that every gradient has a value."""
    rows = [row for row in csv.reader(open(keys, newline=""), delimiter="\t")][1:]
    tensors = {}
    for key, shape, dead in rows:
        if dead == "0":
            dims = [rank if n == "r" else int(n) for n in shape.split("x")]
            tensors[key] = rng.standard_normal(dims, dtype=np.float32) * dims[1] ** -0.5 * 0.1
    paths = sorted({re.sub(r"^base_model\.model\.|\.lora_[AB]\.weight$", "", key) for key in tensors})
    out.mkdir(exist_ok=True)
    write_tensors(out / "adapter_model.safetensors", tensors)
    (out / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": paths, "lora_dropout": 0.0, "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True}, indent=1) + "\n")
    print(f"{out}: rank {rank}, {len(paths)} modules")


def main():
    default = Path(__file__).resolve().parent.parent / "data" / "svd_unet_keys.tsv"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--latent", default="32x32", metavar="HxW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keys", type=Path, default=default)
    parser.add_argument("--inputs-only", action="store_true", help="other frames or latents for weights already there")
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    pool = rng.standard_normal(POOL, dtype=np.float32)

    if not args.inputs_only:
        entries = read_keys(args.keys)
        header, total = header_bytes(entries, 2, "F16")
        (args.out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
        with open(args.out / "diffusion_pytorch_model.safetensors", "wb") as f:
            f.write(header)
            for key, shape in entries:
                draw(key, shape, pool, rng).astype("<f2").tofile(f)
            assert f.tell() == len(header) + total
        print(f"{args.out}: {len(entries)} tensors, {sum(math.prod(s) for _, s in entries):,} parameters, {total / 1e9:.2f} GB")

    write_lora(args.out / "lora", args.keys.parent / "svd_lora_keys.tsv", args.rank, rng)
    h, w = (int(n) for n in args.latent.split("x"))
    normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    write_tensors(args.out / "inputs.safetensors", {
        "in.sample": normal(1, args.frames, 8, h, w), "in.timestep": np.array([0.2], np.float32),
        "in.encoder_hidden_states": normal(1, 1, CONFIG["cross_attention_dim"]), "in.added_time_ids": np.array([[6, 127, 0.02]], np.float32)})
    write_tensors(args.out / "cotangent.safetensors", {"cot.sample": normal(1, args.frames, 4, h, w)})
    print(f"{args.out}: inputs for {args.frames} frames of {h}x{w}")


if __name__ == "__main__":
    main()
