"""Makes the tiny models and pictures of tests/data: random weights in the formats of the real ones.

    build/oracle/bin/python tests/oracle/tiny_random.py --out tests/data

What they compute means nothing; their formats, keys and proportions are those of Stable Video Diffusion, VideoMAE,
V-JEPA and the aesthetic predictor, small enough that one rollout takes a fraction of a second on one core. All weights
are float16. Made with the versions of requirements.txt, the files come out the same byte for byte.
"""
import argparse
import json
import math
import shutil
from pathlib import Path

import store
from store import Rng, randomise

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import golden
import vjepa as jepa

VAE_STRIDE, PIXELS, FRAMES = 4, 32, 4       # what the output scales below are set for


def halve(folder):
    """Float16 for every weight file of a folder."""
    for path in Path(folder).rglob("*.safetensors"):
        save_file({key: x.half().contiguous() for key, x in sorted(load_file(path).items())}, path, metadata={"format": "pt"})


def plain_json(folder):
    """Keys in order, and no versions that only say when it was made."""
    for path in Path(folder).rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1, sort_keys=True) + "\n")


def make_unet(folder, rng):
    from diffusers import UNetSpatioTemporalConditionModel
    model = UNetSpatioTemporalConditionModel(
        sample_size=PIXELS // VAE_STRIDE, in_channels=8, out_channels=4, block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, layers_per_block=1,
        cross_attention_dim=32, transformer_layers_per_block=1, num_attention_heads=(1, 2), num_frames=FRAMES)
    randomise(model, rng).save_pretrained(folder)
    return model


def make_vae(folder, rng):
    """conv_out is scaled so that decoded frames fill [-1, 1] without leaving it much."""
    from diffusers import AutoencoderKLTemporalDecoder
    levels = 1 + int(math.log2(VAE_STRIDE))
    model = AutoencoderKLTemporalDecoder(block_out_channels=(32,) * levels, down_block_types=("DownEncoderBlock2D",) * levels,
                                         layers_per_block=1, latent_channels=4, sample_size=PIXELS, scaling_factor=0.18215,
                                         force_upcast=True)
    randomise(model, rng)
    with torch.no_grad():
        z = rng.normal(FRAMES, 4, PIXELS // VAE_STRIDE, PIXELS // VAE_STRIDE).float() / model.config.scaling_factor
        model.decoder.conv_out.bias.zero_()
        model.decoder.time_conv_out.bias.zero_()
        frames = model.decode(z, num_frames=FRAMES).sample
        model.decoder.conv_out.weight *= 0.5 / frames.std()
    model.save_pretrained(folder)


def make_svd(folder, rng):
    shutil.rmtree(folder, ignore_errors=True)
    make_unet(folder / "unet", rng)
    make_vae(folder / "vae", rng)
    golden.make_clip(folder / "image_encoder", rng, dict(hidden=32, mlp=64, layers=2, heads=2, patch=14, image=56, projection=32,
                                                         act="gelu"))
    golden.make_scheduler(folder / "scheduler")
    index = {"_class_name": "StableVideoDiffusionPipeline", "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
             "scheduler": ["diffusers", "EulerDiscreteScheduler"], "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
             "vae": ["diffusers", "AutoencoderKLTemporalDecoder"]}
    (folder / "model_index.json").write_text(json.dumps(index))


def make_videomae(folder, rng):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification
    shutil.rmtree(folder, ignore_errors=True)
    names = ["ebb", "flow", "drift", "still"]
    config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=32, num_hidden_layers=2,
                            num_attention_heads=2, intermediate_size=64, id2label=dict(enumerate(names)),
                            label2id={name: i for i, name in enumerate(names)})
    randomise(VideoMAEForVideoClassification(config), rng).save_pretrained(folder)


def make_vjepa(folder, rng):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    golden.VJepa().make(folder, rng, dict(golden.VJepa.size, crop=32, patch=8, frames=8, dim=48, depth=2, heads=2, pred_dim=24,
                                          pred_depth=1, batch=1))


def make_aesthetic(folder, rng):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    golden.Aesthetic().make(folder, rng, dict(golden.Aesthetic.size, hidden=32, mlp=64, layers=1, heads=2, patch=14, image=28,
                                              projection=24, head=(16, 12, 8, 4, 1)))


def make_pictures(folder):
    """Three pictures by formula: a sunrise, hills, tiles; none has the size of the video."""
    from PIL import Image
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:1:64j, 0:1:96j]
    sun = np.exp(-((x - 0.62) ** 2 * 9 + (y - 0.55) ** 2 * 18) * 4)
    dawn = np.stack([0.25 + 0.5 * y + 0.6 * sun, 0.2 + 0.3 * y + 0.45 * sun, 0.5 - 0.25 * y + 0.1 * sun], -1)
    dawn[y > 0.7] *= np.array([0.35, 0.45, 0.6])
    y, x = np.mgrid[0:1:64j, 0:1:64j]
    hills = np.stack([0.55 - 0.2 * y, 0.7 - 0.2 * y, 0.9 - 0.1 * y], -1)
    for i, (height, colour) in enumerate(((0.45, (0.35, 0.5, 0.45)), (0.6, (0.25, 0.42, 0.25)), (0.78, (0.15, 0.3, 0.12)))):
        hills[y > height + 0.08 * np.sin(2 * np.pi * (x * (1.2 + 0.5 * i) + 0.3 * i))] = colour
    y, x = np.mgrid[0:72, 0:48]
    board = ((x // 8 + y // 8) % 2)[..., None]
    tiles = board * np.array([0.85, 0.8, 0.7]) + (1 - board) * np.array([0.3, 0.2, 0.35])
    for name, picture in (("dawn", dawn), ("hills", hills), ("tiles", tiles)):
        Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8)).save(folder / f"{name}.png", optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2024)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)        # what randomise does not reach
    makers = {"tiny-svd": make_svd, "tiny-videomae": make_videomae, "tiny-vjepa": make_vjepa, "tiny-aesthetic": make_aesthetic}
    for i, (name, make) in enumerate(makers.items()):
        make(args.out / name, Rng(args.seed + i))
        for unused in ("case.json", "golden.safetensors", "README.md"):
            (args.out / name / unused).unlink(missing_ok=True)
        halve(args.out / name)
        plain_json(args.out / name)
    make_pictures(args.out / "pictures")


if __name__ == "__main__":
    main()
