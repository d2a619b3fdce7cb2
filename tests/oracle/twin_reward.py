"""The rewards of a run in PyTorch: VideoMAE's probability of a class, V-JEPA's masked loss and likeness of first frames.

    reward = Reward(cfg, scored)                    # scored: frames of a segment that are decoded with gradient
    total, terms = reward(frames, pictures, sample) # frames (segments * scored, 3, H, W) as the VAE decodes them,
                                                    # pictures (segments, 3, H, W) in [0, 1] that the segments begin with

What each term means is said in common/model/reward.h; the masks are drawn as common/model/vjepa.c draws them.
"""
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import store
import twin_chance as chance
import vjepa as jepa

GENERATORS = ((8, 0.15), (2, 0.7))      # blocks and the area of one, for V-JEPA's short-range and long-range masks
SHORTEST_OF = 64                        # draws that settle how long the lists of tokens are


def enter(frames, spec, height, width):
    """(L, 3, H, W) as decoded -> clamped, resized, normalised."""
    x = (frames / 2 + 0.5).clamp(0, 1)
    if spec["resize"] == "crop":
        h, w = x.shape[-2:]
        longer = int(height * max(h, w) / min(h, w))
        size = (longer, height) if h > w else (height, longer)
    else:
        size = (height, width)
    if size != tuple(x.shape[-2:]):
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=spec["antialias"])
    if spec["resize"] == "crop":
        corner = round((max(size) - height) / 2)
        x = x[..., corner:corner + height, :] if h > w else x[..., corner:corner + height]
    return store.normalise(x, store.IMAGENET_MEAN, store.IMAGENET_STD)


def seam(length, segments, s):
    """The first frame of segment s among `length` that are kept; >= 1 where the repeated ones are left out."""
    if length % segments == 0:
        return s * (length // segments)
    each = (length + segments - 1) // segments
    return each + (s - 1) * (each - 1)


class FirstFrame:
    def __init__(self, cfg, length):
        segments = cfg["video.segments"]
        self.first = [seam(length, segments, s) for s in range(segments)] if length % segments == 0 else [0]

    def __call__(self, frames, pictures, sample):
        return -(frames[self.first] / 2 + 0.5 - pictures[:len(self.first)]).square().mean()


class VideoMae:
    def __init__(self, spec, length):
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification
        config = VideoMAEConfig.from_pretrained(spec["path"])
        self.spec, self.image, self.length = spec, config.image_size, length - length % config.tubelet_size
        config.num_frames = self.length                 # its position table follows; no weight depends on it
        self.model = VideoMAEForVideoClassification.from_pretrained(spec["path"], config=config, dtype=torch.float32)
        self.model.eval().requires_grad_(False)
        names = {name.lower(): i for i, name in config.id2label.items()}
        self.label = names[spec["class"].lower()] if spec["class"].lower() in names else int(spec["class"])

    def __call__(self, frames, pictures, sample):
        pixels = enter(frames[:self.length], self.spec, self.image, self.image)
        log_prob = torch.log_softmax(self.model(pixels[None]).logits, dim=-1)[0, self.label]
        return log_prob.exp() if self.spec["form"] == "prob" else log_prob


class VJepa:
    def __init__(self, cfg, spec, length):
        folder = Path(spec["path"])
        self.cfg, self.spec, self.length = cfg, spec, length
        self.config = c = json.loads((folder / "config.json").read_text())
        self.w = {key: x.float() for key, x in load_file(folder / "model.safetensors").items()}
        self.clip = min(c["num_frames"], length - length % c["tubelet_size"])
        _, grid_h, grid_w = jepa.grid_of(c)
        self.image = (grid_h * c["patch_size"], grid_w * c["patch_size"])
        self.grid = (self.clip // c["tubelet_size"], grid_h, grid_w)
        self.index, self.first_frame = self.windows()
        self.from_time = self.first_frame // c["tubelet_size"]
        self.counts = [self.shortest(j) for j in range(2)]

    # ---- Windows of the video ----

    def windows(self):
        """Frames of every clip (windows, clip), and for `segmented` where the newer segment begins in each."""
        kind, last, segments = self.cfg["vjepa.windows"], self.length - self.clip, self.cfg["video.segments"]
        if kind == "linspace":
            return torch.tensor([[round(j * (self.length - 1) / (self.clip - 1)) if self.clip > 1 else 0 for j in range(self.clip)]]), 0
        if kind.startswith("slide"):
            starts = list(range(0, last + 1, int(kind.split()[1])))
        elif segments == 1:
            starts = [last // 2]
        else:
            starts = [min(max(seam(self.length, segments, s) - self.clip // 2, 0), last) for s in range(1, segments)]
        first = seam(self.length, segments, 1) - starts[0] if self.cfg["vjepa.gradient"] == "segmented" else 0
        return torch.tensor(starts)[:, None] + torch.arange(self.clip), first

    # ---- Masks ----

    def draw(self, j, key, batch, least=(0, 0)):
        """Context and masked tokens of generator j for `batch` clips, two (batch, count) arrays cut to `least` or to the shortest."""
        time, grid_h, grid_w = self.grid
        blocks, scale = GENERATORS[j]
        stream = chance.Stream(key)
        aspect, area = 0.75 + stream.uniform() * 0.75, math.floor(grid_h * grid_w * scale)
        h = min(max(round(math.sqrt(area * aspect)), 1), grid_h)
        w = min(max(round(math.sqrt(area / aspect)), 1), grid_w)
        context, masked = [], []
        while len(context) < batch:
            hidden = np.zeros((grid_h, grid_w), bool)
            for _ in range(blocks):
                top = stream.below(grid_h - h + 1)
                left = stream.below(grid_w - w + 1)
                hidden[top:top + h, left:left + w] = True
            hidden = np.tile(hidden.reshape(-1), time)
            old = np.arange(hidden.size) < self.from_time * grid_h * grid_w
            seen = np.flatnonzero(old if self.from_time else ~hidden)
            wanted = np.flatnonzero(hidden & ~old)
            if len(seen) and len(seen) >= least[0] and len(wanted) >= least[1]:
                context.append(seen)
                masked.append(wanted)
        cut = lambda rows, count: torch.from_numpy(np.stack([row[:count or min(map(len, rows))] for row in rows]))
        return cut(context, least[0]), cut(masked, least[1])

    def shortest(self, j):
        draws = [self.draw(j, chance.Key(0, i, 0, chance.use(chance.MASKS, draw=j)), 1) for i in range(SHORTEST_OF)]
        return min(c.shape[1] for c, _ in draws), min(m.shape[1] for _, m in draws)

    def masks(self, sample):
        name = 0 if self.cfg["vjepa.masks"] == "fixed" else sample
        key = lambda j: chance.Key(self.cfg["seed"], chance.train(name), 0, chance.use(chance.MASKS, draw=j))
        return [self.draw(j, key(j), len(self.index), self.counts[j]) for j in range(2)]

    # ---- The loss ----

    def __call__(self, frames, pictures, sample):
        option, first = self.cfg["vjepa.gradient"], self.first_frame
        pixels = enter(frames, self.spec, *self.image)
        clips = pixels[self.index].transpose(1, 2)              # (windows, 3, clip, H, W)
        for_h = torch.cat([clips[:, :, :first].detach(), clips[:, :, first:]], dim=2) if first else clips
        with torch.set_grad_enabled(option != "stop_target"):
            h = jepa.encode(self.w, self.config, for_h, tower="target_encoder")
            h = F.layer_norm(h, h.shape[-1:], eps=jepa.EPS_TARGET)
        loss, power = 0.0, self.config["loss_exp"]
        for j, (keep, wanted) in enumerate(self.masks(sample)):
            with torch.set_grad_enabled(option in ("stop_target", "full")):
                z = jepa.predict(self.w, self.config, jepa.encode(self.w, self.config, clips, keep), keep, wanted, j)
            loss = loss + ((z - jepa.gather(h, wanted)).abs() ** power).mean() / power
        return -loss / 2


class Reward:
    def __init__(self, cfg, scored):
        segments = cfg["video.segments"]
        drop = cfg["video.seam"] == "drop_first"
        self.kept = [f for f in range(segments * scored) if not (drop and f and f % scored == 0)]
        self.all, self.specs = segments * scored, cfg["reward"]
        make = {"videomae": lambda spec: VideoMae(spec, len(self.kept)), "vjepa": lambda spec: VJepa(cfg, spec, len(self.kept)),
                "first_frame": lambda spec: FirstFrame(cfg, len(self.kept))}
        for spec in self.specs:
            if spec["model"] not in make:
                raise SystemExit(f"reward {spec['model']}: only {', '.join(make)} are here")
        self.terms = [make[spec["model"]](spec) for spec in self.specs]
        self.names = [f"{spec['model']}.{i}" for i, spec in enumerate(self.specs)]

    def __call__(self, frames, pictures, sample):
        frames = frames if len(self.kept) == self.all else frames[self.kept]
        terms = [term(frames, pictures, sample) for term in self.terms]
        return sum(spec["weight"] * x for spec, x in zip(self.specs, terms)), terms
