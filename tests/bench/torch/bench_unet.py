#!/usr/bin/env python3
"""The small video UNet in PyTorch: forward, and backward to a LoRA, timed in a process of its own.

  bench_unet.py prepare DIR                 writes DIR/unet, DIR/lora, DIR/inputs.safetensors, DIR/cotangent.safetensors
  bench_unet.py time DIR [--layout L] [--threads 2] [--runs 5] [--grad-inputs]
                                            one JSON line: seconds of forward and backward, peak memory
  bench_unet.py golden DIR                  DIR/golden.safetensors: outputs and gradients in float64, and how far float32 is

UNetSpatioTemporalConditionModel, channels (32, 96), attention on the first level and in the middle, 14 frames of
32x32 latents, one video, LoRA of rank 8 on every to_q, to_k, to_v, to_out.0; float32, base weights frozen, so that
only what the LoRA gradients need is computed. Tuned as PyTorch is at its best on a CPU: its own MKL and oneDNN, the
fused attention, denormals flushed, as many threads as cores, memory layout tried both ways, memory kept by malloc.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "oracle"))
import golden
import store
from store import Rng

import torch
from safetensors.torch import load_file, save_file

SIZE = dict(golden.UnetSvd.size, channels=(32, 96), heads=(1, 3), attn="10", layers=2, context=32, time_dim=32, batch=1, frames=14, hw=(32, 32))
LORA = dict(rank=8, alpha=8, targets=("to_q", "to_k", "to_v", "to_out.0"))


def peak_mb():
    """Largest resident size of this process so far, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def prepare(folder):
    from diffusers import UNetSpatioTemporalConditionModel
    from peft import LoraConfig, get_peft_model
    folder.mkdir(parents=True, exist_ok=True)
    rng = Rng(5)
    unet = store.randomise(UNetSpatioTemporalConditionModel(**golden.unet_config(SIZE)), rng)
    unet.save_pretrained(folder / "unet")
    model = get_peft_model(unet, LoraConfig(r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules=list(LORA["targets"])))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(rng.normal(*p.shape, scale=p.shape[1] ** -0.5 * (0.5 if "lora_B" in name else 1.0)))
    model.save_pretrained(folder / "lora")
    (folder / "lora" / "README.md").unlink(missing_ok=True)
    case = store.Case(folder)
    golden.UnetSvd.inputs(case, rng, SIZE)
    for name, prefix in (("inputs", "in."), ("cotangent", "cot.")):
        save_file({k: x.float() for k, x in case.t.items() if k.startswith(prefix)}, folder / f"{name}.safetensors", metadata={"format": "pt"})
    total = sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name)
    print(f"{folder}: {total:,} parameters, {sum(p.numel() for p in model.parameters()) - total:,} of LoRA")


def load(folder, dtype, layout="nchw"):
    """(model with adapter, {adapter key: matrix}, inputs, cotangent)"""
    store.DTYPE = dtype
    model, lora = golden.load_lora(golden.load_unet(folder / "unet"), folder / "lora")
    if layout == "channels_last":
        for p in model.parameters():
            if p.dim() in (4, 5):
                p.data = p.data.contiguous(memory_format=torch.channels_last if p.dim() == 4 else torch.channels_last_3d)
    files = {**load_file(folder / "inputs.safetensors"), **load_file(folder / "cotangent.safetensors")}
    return model, lora, [files["in." + name].to(dtype) for name in golden.UNET_IN], files["cot.sample"].to(dtype)


def measure(folder, layout, threads, runs, grad_inputs):
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    model, lora, inputs, cotangent = load(folder, torch.float32, layout)
    loaded = peak_mb()
    wrt = list(lora.values())
    if grad_inputs:
        inputs = [x.requires_grad_() for x in inputs]
        wrt += inputs
    forward, backward = [], []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        out = model(*inputs).sample
        middle = time.perf_counter()
        grads = torch.autograd.grad(out, wrt, cotangent)
        end = time.perf_counter()
        forward.append(middle - begin)
        backward.append(end - middle)
    results = {"out.sample": out.detach(), **{"grad.lora." + key: g for key, g in zip(lora, grads)}}
    save_file({k: x.contiguous() for k, x in results.items()}, folder / "torch.safetensors", metadata={"format": "pt"})
    both = sorted(f + b for f, b in zip(forward[1:], backward[1:]))         # the first is the warm-up
    print(json.dumps({"layout": layout, "threads": threads, "runs": runs, "forward_s": statistics.median(forward[1:]),
                      "backward_s": statistics.median(backward[1:]), "total_s": statistics.median(both), "best_s": both[0],
                      "peak_mb": peak_mb(), "loaded_mb": loaded}))


def exact(folder):
    """Float64 outputs and gradients; prints how far the last timed float32 run is from them."""
    import compare
    model, lora, inputs, cotangent = load(folder, torch.float64)
    inputs = {"in." + name: x.requires_grad_() for name, x in zip(golden.UNET_IN, inputs)}
    with store.double_embeddings():
        out = model(*inputs.values()).sample
    found = store.gradients([(out, cotangent)], {**inputs, **{"lora." + key: p for key, p in lora.items()}})
    results = {"out.sample": out.detach(), **{"grad." + name: g for name, g in found.items()}}
    save_file({k: x.float().contiguous() for k, x in results.items()}, folder / "golden.safetensors", metadata={"format": "pt"})
    if (folder / "torch.safetensors").exists():
        compare.report("float32 PyTorch against float64", load_file(folder / "torch.safetensors"), results, some=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "time", "golden"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=("nchw", "channels_last"), default="nchw")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--grad-inputs", action="store_true", help="also gradients of the inputs, as `vader forward` writes them")
    args = parser.parse_args()
    if args.what == "prepare":
        prepare(args.folder)
    elif args.what == "time":
        measure(args.folder, args.layout, args.threads, args.runs, args.grad_inputs)
    else:
        exact(args.folder)


if __name__ == "__main__":
    main()
