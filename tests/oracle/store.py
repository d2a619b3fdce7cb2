"""What every golden case shares: reading and writing a case folder, float64, random weights."""
import contextlib
import json
import math
import os
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch
import diffusers
import transformers
from safetensors.torch import load_file, save_file

diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


DTYPE = torch.float64       # of every run; float32 only to see what rounding does to it


def versions():
    import peft
    return {"torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__,
            "transformers": transformers.__version__, "peft": peft.__version__}


class Rng:
    """Seeded float64 numbers that are exact in float32, so that what is stored is what was used."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape, scale=1.0, mean=0.0):
        x = torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale + mean
        return x.float().double()

    def uniform(self, *shape, low=0.0, high=1.0):
        x = torch.rand(*shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        return x.float().double()

    def smooth(self, *shape, cells=5):
        """A field in [0, 1] with both slow and fast parts along its last two axes, like a picture."""
        coarse = torch.rand(math.prod(shape[:-2]), 1, cells, cells + 2, generator=self.generator, dtype=torch.float64)
        slow = torch.nn.functional.interpolate(coarse, size=shape[-2:], mode="bicubic", align_corners=False)
        fast = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return (0.7 * slow.reshape(shape) + 0.3 * fast).clamp(0.01, 0.99).float().double()


def randomise(model, rng):
    """Weights that hide nothing: gains around 1, biases and mix factors away from 0, matrices scaled by fan-in."""
    norms = {f"{name}.weight" for name, part in model.named_modules() if "Norm" in type(part).__name__}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in norms:
                p.copy_(rng.normal(*p.shape, scale=0.2, mean=1.0))
            elif name.endswith("mix_factor"):
                p.copy_(rng.normal(*p.shape, scale=1.0))
            elif p.dim() >= 2 and "position_embedding" not in name:
                p.copy_(rng.normal(*p.shape, scale=p[0].numel() ** -0.5))
            else:
                p.copy_(rng.normal(*p.shape, scale=0.2))
    return model


def norm_eps(model):
    """Every eps with a * for the last block number, as case.json lists them."""
    out = {}
    for name, part in model.named_modules():
        if hasattr(part, "eps") and "Norm" in type(part).__name__:
            words = name.split(".")
            keep = 1 if words[0] in ("down_blocks", "up_blocks") or words[1:2] in (["down_blocks"], ["up_blocks"]) else 0
            starred = []
            for word in words:
                if word.isdigit():
                    keep, word = keep - 1, (word if keep > 0 else "*")
                starred.append(word)
            out[".".join(starred)] = part.eps
    return out


@contextlib.contextmanager
def double_embeddings():
    """Sinusoidal embeddings in float64: the library evaluates them in float32 whatever the model's dtype."""
    from diffusers.models import embeddings

    def exact(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
        half = embedding_dim // 2
        rate = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift))
        angle = scale * timesteps[:, None].double() * rate
        parts = [torch.cos(angle), torch.sin(angle)] if flip_sin_to_cos else [torch.sin(angle), torch.cos(angle)]
        return torch.cat(parts, dim=-1)

    library = embeddings.get_timestep_embedding
    embeddings.get_timestep_embedding = exact
    try:
        yield
    finally:
        embeddings.get_timestep_embedding = library


class Case:
    """One folder: `meta` is case.json, `t` the tensors of golden.safetensors by name (float64, or int64)."""

    def __init__(self, folder):
        self.folder, self.meta, self.t = Path(folder), {}, {}

    @classmethod
    def load(cls, folder):
        case = cls(folder)
        case.meta = json.loads((case.folder / "case.json").read_text())
        for name, x in load_file(case.folder / "golden.safetensors").items():
            case.t[name] = x.to(DTYPE) if x.is_floating_point() else x.long()
        return case

    def path(self, key):
        return self.folder / self.meta[key]

    def inputs(self):
        """What a run may read: inputs and cotangents."""
        return {name: x for name, x in self.t.items() if name.startswith(("in.", "cot."))}

    def finish(self, results):
        """Writes golden.safetensors and case.json, with the results of the case's run beside its inputs."""
        everything = {**self.inputs(), **results}
        for name, x in everything.items():
            if x.is_floating_point() and not torch.isfinite(x).all():
                raise SystemExit(f"{self.folder}: {name} is not finite")
        out = {name: (x.float() if x.is_floating_point() else x.int()).reshape(x.shape or (1,)).contiguous().clone()
               for name, x in sorted(everything.items())}
        save_file(out, self.folder / "golden.safetensors", metadata={"format": "pt"})
        self.meta["dtype"] = "computed in float64 from the stored weights and float32 inputs; stored as F32"
        self.meta["versions"] = versions()
        (self.folder / "case.json").write_text(json.dumps(self.meta, indent=1) + "\n")


def call(name, run, args, inputs, outputs, grad_of=(), grad=()):
    return {"name": name, "run": run, "args": args, "in": list(inputs), "out": list(outputs),
            "grad_of": list(grad_of), "grad": list(grad)}


def gradients(pairs, wrt):
    """Gradients of sum cot * out over `pairs` = [(out, cot)] with respect to the tensors of the dictionary `wrt`."""
    total = sum((out * cot.reshape(out.shape)).sum() for out, cot in pairs)
    found = torch.autograd.grad(total, list(wrt.values()), allow_unused=True, retain_graph=True)
    return {name: (torch.zeros_like(x) if g is None else g) for (name, x), g in zip(wrt.items(), found)}


def resize(x, size):
    """Bilinear, antialiased, aspect ratio not kept: (…, H, W) -> (…, *size)."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    flat = torch.nn.functional.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return flat.reshape(*x.shape[:-2], *size)


def normalise(x, mean, std):
    """Per channel, channels third from last."""
    column = lambda v: torch.tensor(v, dtype=x.dtype).reshape(-1, 1, 1)
    return (x - column(mean)) / column(std)


def to_half(folder):
    """Rewrites a folder's weights as float16 (call it before the case is run: the rounded weights count)."""
    path = Path(folder) / "diffusion_pytorch_model.safetensors"
    save_file({key: x.half() for key, x in load_file(path).items()}, path, metadata={"format": "pt"})
