"""Puts what was trained where the project keeps it: float16 weights in the layouts of Hugging Face, pictures to
condition on, and real continuations of them."""
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from motion import CLASSES, cut_patches, look, path, read_photos, texture

SCHEDULER = {"_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
             "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": False,
             "sigma_max": 80.0, "sigma_min": 0.02, "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading",
             "timestep_type": "continuous", "trained_betas": None, "use_karras_sigmas": True}
INDEX = {"_class_name": "StableVideoDiffusionPipeline", "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
         "scheduler": ["diffusers", "EulerDiscreteScheduler"], "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
         "vae": ["diffusers", "AutoencoderKLTemporalDecoder"]}
CONTINUATION = 24           # frames


def copy_halved(source, target):
    """A model folder, its weights in float16, its JSON without what says when it was made."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in sorted(Path(source).iterdir()):
        if file.suffix == ".safetensors":
            weights = {key: x.half().contiguous() for key, x in sorted(load_file(file).items())}
            save_file(weights, target / file.name, metadata={"format": "pt"})
        elif file.suffix == ".json":
            value = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("transformers_version", "_name_or_path", "dtype", "torch_dtype")}
            (target / file.name).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def scene(photo, rng, scale):
    """The most textured of several patches: one in which motion is plain to see."""
    return max(cut_patches(torch.from_numpy(photo).permute(2, 0, 1), 4, rng, scale, least=1e9), key=texture)


def picture(patch):
    one = look(patch[None], torch.zeros(1, 1, 2), torch.ones(1, 1))[0, 0]
    return ((one + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def continuation(patch, motion):
    """CONTINUATION frames of a slow camera motion, (T, H, W, 3) uint8; the first is the picture."""
    centre, size = path(torch.tensor([motion]), torch.tensor([3.0]), torch.tensor([0.025]), CONTINUATION)
    frames = look(patch[None], centre, size)[0]
    return ((frames + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def write_video(file, frames, fps=7):
    import av
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"crf": "12", "threads": "1"}
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


def pack_pictures(photos, out):
    """Of the photographs with most texture a picture each; to train with, another of the better half of them."""
    from PIL import Image
    for split, count, twice in (("train", 32, 16), ("held-out", 8, 0)):
        rng = np.random.default_rng(31)
        whole = read_photos(photos, split)
        scenes = []
        for name, photo in whole.items():
            cut = scene(photo, rng, (1.5, 4.0))
            scenes.append((texture(cut), name, cut))
        shutil.rmtree(out / "photos" / split, ignore_errors=True)
        (out / "photos" / split).mkdir(parents=True)
        chosen = sorted(scenes, key=lambda s: -s[0])[:count]
        rng = np.random.default_rng(32)
        chosen += [(0, f"{name}-2", scene(whole[name], rng, (1.5, 4.0))) for _, name, _ in chosen[:twice]]
        chosen.sort(key=lambda s: s[1])
        if split == "train":
            (out / "photos/train.txt").write_text("".join(f"train/{name}.png\n" for _, name, _ in chosen))
        for i, (_, name, cut) in enumerate(chosen):
            Image.fromarray(picture(cut)).save(out / "photos" / split / f"{name}.png", optimize=True)
            if split == "held-out":
                (out / "clips").mkdir(parents=True, exist_ok=True)
                write_video(out / "clips" / f"{name}.mp4", continuation(cut, i % (len(CLASSES) - 1)))


def pack(work, photos, out):
    out.mkdir(parents=True, exist_ok=True)
    for part in ("unet", "vae", "image_encoder"):
        copy_halved(work / "sorted" / part, out / "svd" / part)
    (out / "svd/scheduler").mkdir(parents=True, exist_ok=True)
    (out / "svd/scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=1, sort_keys=True) + "\n")
    (out / "svd/model_index.json").write_text(json.dumps(INDEX, indent=1, sort_keys=True) + "\n")
    for part in ("videomae", "judge", "vjepa"):
        copy_halved(work / part, out / part)
    pack_pictures(photos, out)
    report = {name: json.loads((work / file).read_text()) for name, file in
              dict(vae="svd/vae.json", image_encoder="svd/image_encoder.json", unet="svd/unet.json", sorted="sorted.json", videomae="videomae.json",
                   judge="judge.json", vjepa="vjepa.json", base="base.json").items()}
    (out / "quality.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
