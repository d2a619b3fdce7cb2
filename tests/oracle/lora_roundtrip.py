#!/usr/bin/env python3
"""Checks that a LoRA folder loads in the public libraries, and that all ways of loading it compute the same.

  lora_roundtrip.py UNET_DIR LORA_DIR [--golden CASE_DIR] [--like OTHER_LORA_DIR] [--diffusers FILE]

LORA_DIR holds adapter_model.safetensors and adapter_config.json, by whoever wrote them (vader or peft).
  1. every key and shape of the file is one that peft itself would write for these targets, none is missing
  2. PeftModel.from_pretrained on the diffusers UNet: output, and with --golden its distance from out.sample
  3. diffusers' own loader (PeftAdapterMixin.load_lora_adapter) on the same tensors: the same output
  4. with --like: the other adapter's tensors are equal, bit for bit, and so is the output
  5. with --diffusers: a pytorch_lora_weights.safetensors, loaded without metadata (alpha = r): the same output
Exit status 0: all hold. Runs in float64.
"""
import argparse
import sys
from pathlib import Path

import golden
import store
from store import Case, Rng

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

PREFIX = "base_model.model."


class LoraUnet(PeftAdapterMixin, UNetSpatioTemporalConditionModel):
    """The same UNet with the adapter loader that diffusers' text-to-video pipelines use; SVD's class lacks it."""


def forward(model, case):
    with torch.no_grad(), store.double_embeddings():
        return model(*(case.t["in." + name] for name in golden.UNET_IN)).sample


def through_diffusers(unet_dir, tensors, config=None):
    """Output of the UNet after load_lora_adapter; `config` is a LoraConfig, or None for the file's own scale 1."""
    unet = LoraUnet.from_pretrained(unet_dir, torch_dtype=torch.float32).double().eval()
    metadata = config.to_dict() if config is not None else None
    unet.load_lora_adapter(dict(tensors), prefix=None, metadata=metadata)
    return unet.double()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unet", type=Path)
    parser.add_argument("lora", type=Path)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--like", type=Path)
    parser.add_argument("--diffusers", type=Path)
    args = parser.parse_args()
    ok = True

    def check(text, good):
        nonlocal ok
        ok &= bool(good)
        print(f"{'ok  ' if good else 'FAIL'} {text}")

    def close(text, a, b, limit=1e-12):
        error = ((a - b).norm() / b.norm()).item()
        check(f"{text}: relative difference {error:.1e}", error <= limit)

    config = LoraConfig.from_pretrained(str(args.lora))
    tensors = load_file(args.lora / "adapter_model.safetensors")
    reference = get_peft_model(golden.load_unet(args.unet), LoraConfig(r=config.r, lora_alpha=config.lora_alpha, target_modules=config.target_modules,
                                                                       exclude_modules=config.exclude_modules, rank_pattern=config.rank_pattern))
    wanted = {key: tuple(x.shape) for key, x in get_peft_model_state_dict(reference).items()}
    found = {key: tuple(x.shape) for key, x in tensors.items()}
    wrong = sorted(key for key in set(wanted) | set(found) if wanted.get(key) != found.get(key))
    check(f"{len(found)} keys and shapes are peft's" + "".join(f"\n       {key}: peft {wanted.get(key)}, file {found.get(key)}" for key in wrong[:8]), not wrong)

    if args.golden:
        case = Case.load(args.golden)
    else:
        unet_config, case = golden.load_unet(args.unet).config, Case(args.lora)
        golden.UnetSvd.inputs(case, Rng(1), dict(batch=2, frames=3, hw=(8, 8), context=unet_config.cross_attention_dim))
    ours = forward(golden.load_lora(golden.load_unet(args.unet), args.lora)[0], case)
    base = forward(golden.load_unet(args.unet), case)
    check(f"the adapter changes the output, by {((ours - base).norm() / base.norm()).item():.1e}", not torch.equal(ours, base) or not any(
        x.abs().max() for key, x in tensors.items() if "lora_B" in key))
    if args.golden:
        close("PeftModel.from_pretrained against out.sample", ours, case.t["out.sample"], 1e-5)

    bare = {key.removeprefix(PREFIX): x for key, x in tensors.items()}
    close("diffusers' load_lora_adapter against PeftModel", forward(through_diffusers(args.unet, bare, config), case), ours)
    if args.like:
        other = load_file(args.like / "adapter_model.safetensors")
        check("tensors equal those of " + str(args.like), other.keys() == tensors.keys() and all(torch.equal(x, tensors[key]) for key, x in other.items()))
        close("output against " + str(args.like), forward(golden.load_lora(golden.load_unet(args.unet), args.like)[0], case), ours, 0)
    if args.diffusers:
        single = {key.removeprefix("unet."): x for key, x in load_file(args.diffusers).items()}
        close(f"{args.diffusers.name} without metadata against PeftModel", forward(through_diffusers(args.unet, single), case), ours, 1e-6)
    sys.exit(not ok)


if __name__ == "__main__":
    main()
