#!/usr/bin/env python3
"""A run of vader in PyTorch: the same config, chance, rollouts, rewards and updates with diffusers, transformers and peft.

  vader_torch.py CONF [key=value …] [--updates N] [--out metrics.jsonl] [--timing timing.jsonl] [--adapters DIR]

One process, rollouts one after the other, gradients accumulated over them, as a trainer for one device does it. It is
written to be fast where that is honest: base weights frozen, no gradient outside the window, both branches of the
guidance in one batch, fused attention, channels-last convolutions, denormals flushed, adapters only where they have an
effect (softmax over SVD's one context token makes attn2's to_q and to_k dead). The frame that a segment hands on is taken
from the decode that is scored, where that decode is the same. --checkpoint picks gradient checkpointing of diffusers, which
trades time for memory: unet, vae, both or none.

--out gets the lines of vader's metrics.jsonl, by the same names; --timing the seconds of every update; --adapters a
PEFT file after every update, step-000001.safetensors and so on.
"""
import argparse
import json
import math
import os
import time
from pathlib import Path

import store
import twin_chance as chance
import twin_config
from twin_reward import Reward

import numpy as np
import torch
from safetensors.torch import save_file

USUAL = ["to_q", "to_k", "to_v", "to_out.0"]
DEAD = ("attn2.to_q", "attn2.to_k")


# ---- Schedule and window -------------------------------------------------------------------------------------

class Schedule:
    """EulerDiscreteScheduler with Karras sigmas and v-prediction: x' = a x + b v, clean = clean_x x + clean_v v."""

    def __init__(self, cfg):
        from diffusers import EulerDiscreteScheduler
        config, n = EulerDiscreteScheduler.load_config(Path(cfg["model"]) / "scheduler"), cfg["sampler.steps"]
        if not (config["use_karras_sigmas"] and config["prediction_type"] == "v_prediction" and config["timestep_type"] == "continuous"):
            raise SystemExit(f"{cfg['model']}/scheduler: want Karras sigmas, v_prediction, continuous time steps")
        rho = cfg["sampler.rho"]
        high = (cfg["sampler.sigma_max"] or config["sigma_max"]) ** (1 / rho)
        low = (cfg["sampler.sigma_min"] or config["sigma_min"]) ** (1 / rho)
        ramp = np.arange(n) / max(n - 1, 1)
        s = ((high + ramp * (low - high)) ** rho).astype(np.float32).astype(np.float64)
        then = np.append(s[1:], 0)
        self.steps, self.init, self.sigma = n, math.sqrt(s[0] ** 2 + 1), s
        self.t, self.c_in = 0.25 * np.log(s), 1 / np.sqrt(s ** 2 + 1)
        self.clean_x, self.clean_v = 1 / (s ** 2 + 1), -s / np.sqrt(s ** 2 + 1)
        self.a, self.b = then / s + (1 - then / s) / (s ** 2 + 1), -(s - then) / np.sqrt(s ** 2 + 1)
        self.gain = np.array([abs(self.b[i]) * np.prod(self.a[i + 1:]) for i in range(n)])


class Window:
    """The steps whose network output carries gradient."""

    def __init__(self, cfg, schedule):
        at, n = cfg["window.at"], schedule.steps
        self.cfg, self.predict = cfg, cfg["window.finish"] == "predict"
        k = 0 if cfg["window.steps"] == "to_end" else int(cfg["window.steps"])
        latest = n - max(k, 1)
        if at == "last":
            self.first = latest
        elif at == "gain":
            sums = [schedule.gain[i:i + k].sum() for i in range(latest + 1)]
            self.first = max(range(latest + 1), key=lambda i: (sums[i], i))
        else:
            self.first = None if at == "random" else int(at)
        self.count = k or n - self.first if self.first is not None else k
        self.steps = n

    def place(self, sample, segment):
        """(first step, one past the last step of the window, one past the last step that runs)"""
        first = self.first
        if first is None:
            low, high = self.cfg["window.range"]
            key = chance.Key(self.cfg["seed"], chance.train(sample), segment, chance.use(chance.WINDOW))
            first = low + chance.Stream(key).below(high - low + 1)
        end = first + self.count if self.count else self.steps
        return first, end, end if self.predict else self.steps


# ---- Models --------------------------------------------------------------------------------------------------

def linear_order(unet):
    """Every linear layer of the UNet in the order in which a sample meets it; what has no effect is there, too."""
    config, names = unet.config, {name for name, part in unet.named_modules() if isinstance(part, torch.nn.Linear)}
    each = lambda x, i: x[i] if isinstance(x, (list, tuple)) else x
    attention = lambda at, name: [f"{at}.{name}.{x}" for x in USUAL]
    out = ["time_embedding.linear_1", "time_embedding.linear_2", "add_embedding.linear_1", "add_embedding.linear_2"]

    def tokens(at, depth):
        ff = lambda block, name: [f"{block}.{name}.net.0.proj", f"{block}.{name}.net.2"]
        out.extend(f"{at}.{name}" for name in ("time_pos_embed.linear_1", "time_pos_embed.linear_2", "proj_in"))
        for i in range(depth):
            space, times = f"{at}.transformer_blocks.{i}", f"{at}.temporal_transformer_blocks.{i}"
            out.extend(attention(space, "attn2") + attention(space, "attn1") + ff(space, "ff"))
            out.extend(ff(times, "ff_in") + attention(times, "attn2") + attention(times, "attn1") + ff(times, "ff"))
        out.append(f"{at}.proj_out")

    def layer(block, j, level):
        out.extend(f"{block}.resnets.{j}.{kind}_res_block.time_emb_proj" for kind in ("spatial", "temporal"))
        if f"{block}.attentions.{j}.proj_in" in names:
            tokens(f"{block}.attentions.{j}", each(config.transformer_layers_per_block, level))

    levels = range(len(config.block_out_channels))
    for i in levels:
        for j in range(each(config.layers_per_block, i)):
            layer(f"down_blocks.{i}", j, i)
    for j in range(2):
        layer("mid_block", j, levels[-1])
    for i in levels:
        for j in range(each(config.layers_per_block, levels[-1] - i) + 1):
            layer(f"up_blocks.{i}", j, levels[-1] - i)
    assert set(out) == names and len(out) == len(names), sorted(set(out) ^ names)
    return out


class Adapter:
    """The LoRA's matrices by their keys in adapter_model.safetensors, older versions of them, and AdamW."""

    def __init__(self, cfg, unet):
        from peft import LoraConfig, get_peft_model
        if cfg["lora.dropout"] or cfg["lora.init"]:
            raise SystemExit("lora.dropout and lora.init are not here: want 0 and an empty name")
        targets = cfg["lora.targets"] or USUAL
        wanted = lambda path: any(path == t or path.endswith("." + t) for t in targets)
        every = [path for path in linear_order(unet) if wanted(path)]
        alive = [path for path in every if not path.endswith(DEAD)]
        self.model = get_peft_model(unet, LoraConfig(r=cfg["lora.rank"], lora_alpha=cfg["lora.alpha"], target_modules=alive))
        self.matrix = {name.replace(".default.", "."): p for name, p in self.model.named_parameters() if p.requires_grad}
        for i, path in enumerate(every):
            if path in alive:
                a = self.matrix[f"base_model.model.{path}.lora_A.weight"]
                u = chance.uniform(chance.Key(cfg["seed"], use=chance.use(chance.INIT, module=i)), a.numel()).astype(np.float64)
                a.data.copy_(torch.from_numpy(((2 * u - 1) / math.sqrt(a.shape[1])).astype(np.float32)).reshape(a.shape))
                self.matrix[f"base_model.model.{path}.lora_B.weight"].data.zero_()
        self.parameters, self.cfg = list(self.matrix.values()), cfg
        self.newest = [p.data for p in self.parameters]
        self.older = [[x.clone() for x in self.newest] for _ in range(cfg["optim.lag"])]        # newest first
        self.optimiser = torch.optim.AdamW(self.parameters, lr=cfg["optim.lr"], betas=(cfg["optim.beta1"], cfg["optim.beta2"]),
                                           eps=cfg["optim.eps"], weight_decay=cfg["optim.weight_decay"], maximize=True, fused=True)

    def use(self, update, version):
        """Lets the model compute with an older version; the newest comes back before any gradient is taken."""
        data = self.newest if version == update else self.older[update - version - 1]
        for p, x in zip(self.parameters, data):
            p.data = x

    def update(self, number, gradient):
        """One step along the mean gradient: what the metrics say of it."""
        cfg = self.cfg
        if self.older:
            self.older = [[x.clone() for x in self.newest]] + self.older[:-1]
        norm = float(torch.nn.utils.get_total_norm(gradient))
        scale = cfg["optim.clip"] / norm if 0 < cfg["optim.clip"] < norm else 1.0
        rate = cfg["optim.lr"] * (min(1.0, number / cfg["optim.warmup"]) if cfg["optim.warmup"] else 1.0)
        if cfg["optim.half_life"]:
            rate *= 2.0 ** (-(number - 1) / cfg["optim.half_life"])
        for p, g in zip(self.parameters, gradient):
            p.grad = g * scale
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        return {"grad_norm": norm, "clip": scale, "theta_norm": float(torch.nn.utils.get_total_norm(self.newest)), "lr": rate}

    def save(self, path):
        save_file({name: p.detach().contiguous() for name, p in self.matrix.items()}, path, metadata={"format": "pt"})


def channels_last(model):
    for p in model.parameters():
        if p.dim() in (4, 5):
            p.data = p.data.contiguous(memory_format=torch.channels_last if p.dim() == 4 else torch.channels_last_3d)


class Models:
    def __init__(self, cfg, layout, checkpoint):
        from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
        from transformers import CLIPVisionModelWithProjection
        folder = Path(cfg["model"])
        load = lambda kind, name, **more: kind.from_pretrained(folder / name, **more).eval().requires_grad_(False)
        self.unet = load(UNetSpatioTemporalConditionModel, "unet", torch_dtype=torch.float32)
        self.vae = load(AutoencoderKLTemporalDecoder, "vae", torch_dtype=torch.float32)
        self.clip = load(CLIPVisionModelWithProjection, "image_encoder", dtype=torch.float32)
        if checkpoint in ("unet", "both"):
            self.unet.enable_gradient_checkpointing()
        if checkpoint in ("vae", "both"):
            self.vae.enable_gradient_checkpointing()
        if layout == "channels_last":
            channels_last(self.unet)
            channels_last(self.vae)
        self.adapter = Adapter(cfg, self.unet)
        self.cfg, self.scaling = cfg, self.vae.config.scaling_factor
        self.stride, self.channels = 2 ** (len(self.vae.config.block_out_channels) - 1), self.vae.config.latent_channels
        low, high, frames = cfg["guidance.min"], cfg["guidance.max"], cfg["video.frames"]
        self.guidance = torch.linspace(low, high, frames).reshape(1, frames, 1, 1, 1) if high > 1 else None
        self.ids = torch.tensor([[cfg["cond.fps"] - 1, cfg["cond.motion_bucket"], cfg["cond.noise_aug"]]])

    def embed(self, image):
        """(1, 3, H, W) in [0, 1] -> (1, 1, D)"""
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
        side = self.clip.config.image_size
        resized = (_resize_with_antialiasing(2 * image - 1, (side, side)) + 1) / 2
        return self.clip(pixel_values=store.normalise(resized, store.CLIP_MEAN, store.CLIP_STD)).image_embeds[:, None]

    def encode(self, image, noise):
        """The conditioning latent of an image with a little noise: (1, C, h, w)."""
        return self.vae.encode(2 * image - 1 + self.cfg["cond.noise_aug"] * noise).latent_dist.mode()

    def decode(self, x):
        """(F, C, h, w) -> (F, 3, H, W), in videos of decode.chunk frames."""
        chunk = self.cfg["decode.chunk"] or len(x)
        parts = [self.vae.decode(part / self.scaling, num_frames=len(part)).sample for part in x.split(chunk)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def velocity(self, x, t, c_in, latent, context):
        """v of x (F, C, h, w) with guidance."""
        frames = len(x)
        t, x = torch.tensor([t], dtype=torch.float32), (x * c_in)[None]
        picture = latent.expand(frames, -1, -1, -1)[None]
        both = lambda pair: torch.cat(pair) if self.guidance is not None else pair[1]
        join = lambda a, b: torch.cat([a, b], dim=2)
        call = lambda sample, context, ids: self.unet(sample, t, context, added_time_ids=ids, return_dict=False)[0]
        if self.guidance is not None and self.cfg["guidance.gradient"] == "cond" and torch.is_grad_enabled():
            with torch.no_grad():
                v_u = call(join(x, torch.zeros_like(picture)), torch.zeros_like(context), self.ids)
            v_c = call(join(x, picture), context, self.ids)
        else:
            sample = both((join(x, torch.zeros_like(picture)), join(x, picture)))
            v = call(sample, both((torch.zeros_like(context), context)), both((self.ids, self.ids)))
            if self.guidance is None:
                return v[0]
            v_u, v_c = v.chunk(2)
        return (v_u + self.guidance * (v_c - v_u))[0]


# ---- One rollout ---------------------------------------------------------------------------------------------

class Trainer:
    def __init__(self, cfg, layout, checkpoint):
        self.cfg, self.models = cfg, Models(cfg, layout, checkpoint)
        self.schedule = Schedule(cfg)
        self.window = Window(cfg, self.schedule)
        kind, frames = cfg["decode.grad_frames"], cfg["video.frames"]
        self.scored = frames if kind == "all" else 1 if kind == "random 1" else (frames + 1) // 2 if kind == "alt" else int(kind.split()[1])
        self.reward = Reward(cfg, self.scored)
        self.images = cfg["data.images"] or self.read_list(cfg["data.list"])
        self.pixels = {}

    @staticmethod
    def read_list(file):
        lines = [line for line in Path(file).read_text().splitlines() if line and not line.startswith("#")]
        return [str(Path(file).parent / line) for line in lines]

    def image(self, sample):
        """The image of a sample (1, 3, H, W), drawn, or by its place in a shuffled epoch."""
        count, seed, name = len(self.images), self.cfg["seed"], chance.use(chance.ORDER)
        if self.cfg["data.order"] == "epoch":
            order = chance.Stream(chance.Key(seed, chance.train(sample // count), use=name)).shuffle(count)
            path = self.images[order[sample % count]]
        else:
            path = self.images[chance.Stream(chance.Key(seed, chance.train(sample), use=name)).below(count)]
        if path not in self.pixels:
            from PIL import Image
            picture, width, height = Image.open(path).convert("RGB"), self.cfg["video.width"], self.cfg["video.height"]
            for size in ((width, picture.height), (width, height)):     # Pillow 13 may take the other axis first, none before it does
                picture = picture if picture.size == size else picture.resize(size, Image.LANCZOS)
            self.pixels[path] = torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)[None].float() / 255
        return self.pixels[path]

    def noise(self, kind, sample, segment, *shape):
        key = chance.Key(self.cfg["seed"], chance.train(sample), segment, chance.use(kind))
        return torch.from_numpy(chance.normal(key, math.prod(shape))).reshape(shape)

    def chosen(self, sample, segment):
        """The latent frames that are decoded and scored."""
        frames, n = self.cfg["video.frames"], self.scored
        if self.cfg["decode.grad_frames"] == "alt":
            return list(range(0, frames, 2))
        first = 0
        if n < frames:
            key = chance.Key(self.cfg["seed"], chance.train(sample), segment, chance.use(chance.FRAMES))
            first = chance.Stream(key).below(frames - n + 1)
        return list(range(first, first + n))

    def run(self, x, steps, window, latent, context):
        """Steps of the sampler; only those of the window have a graph of their own."""
        s, m = self.schedule, self.models
        first, end, _ = window
        for k in steps:
            inside = first <= k < end
            seen = x.detach() if self.cfg["window.detach_input"] or not inside else x
            with torch.set_grad_enabled(inside and torch.is_grad_enabled()):
                v = m.velocity(seen, s.t[k], s.c_in[k], latent, context)
            clean = self.window.predict and k == end - 1
            x = float(s.clean_x[k] if clean else s.a[k]) * x + float(s.clean_v[k] if clean else s.b[k]) * v
        return x

    @torch.no_grad()
    def begin(self, image, sample, segment, window):
        """Conditioning and x before the window: (x, latent, context)."""
        cfg, m = self.cfg, self.models
        height, width = cfg["video.height"], cfg["video.width"]
        context = m.embed(image)
        latent = m.encode(image, self.noise(chance.IMAGE_NOISE, sample, segment, 1, 3, height, width))
        x = self.noise(chance.LATENTS, sample, segment, cfg["video.frames"], m.channels, height // m.stride, width // m.stride)
        return self.run(x * self.schedule.init, range(window[0]), window, latent, context), latent, context

    @torch.no_grad()
    def last_frame(self, x):
        """What the next segment starts from: the last frame of the segment's last chunk."""
        chunk = self.cfg["decode.chunk"] or len(x)
        return self.unit(self.models.decode(x[-(len(x) % chunk or chunk):])[-1:])

    @staticmethod
    def unit(frame):
        return (frame.detach() / 2 + 0.5).clamp(0, 1)

    def rollout(self, update, sample):
        """(gradients of R by the adapter's matrices, what the metrics say of the sample)"""
        cfg, m = self.cfg, self.models
        segments, ahead = range(cfg["video.segments"]), cfg["video.handover"] == "sampler"
        old = max(0, update - cfg["optim.lag"])
        windows = [self.window.place(sample, s) for s in segments]
        image, pictures, starts, clean, frames = self.image(sample), [], [], [], []

        def finish(s):
            """The window and what follows, with the newest adapter; then the frames that are scored."""
            m.adapter.use(update, update)
            first, _, end = windows[s]
            x, latent, context = starts[s]
            clean.append(self.run(x, range(first, end), windows[s], latent, context))
            frames.append(m.decode(clean[-1] if self.scored == cfg["video.frames"] else clean[-1][self.chosen(sample, s)]))

        for s in segments:
            m.adapter.use(update, old)
            pictures.append(image)
            starts.append(self.begin(image, sample, s, windows[s]))
            if ahead and s + 1 < len(segments):
                with torch.no_grad():
                    x, latent, context = starts[s]
                    image = self.last_frame(self.run(x, range(windows[s][0], windows[s][2]), windows[s], latent, context))
            elif not ahead:
                finish(s)
                if s + 1 < len(segments):
                    image = self.unit(frames[-1][-1:]) if self.scored == cfg["video.frames"] else self.last_frame(clean[-1])
        for s in segments if ahead else ():
            finish(s)
        video = torch.cat(frames) if len(frames) > 1 else frames[0]
        total, terms = self.reward(video, torch.cat(pictures), sample)
        found = torch.autograd.grad(total, m.adapter.parameters + clean, allow_unused=True)
        found = [torch.zeros_like(p) if g is None else g for g, p in zip(found, m.adapter.parameters + clean)]
        gradient, cotangent = found[:len(m.adapter.parameters)], found[len(m.adapter.parameters):]
        note = {"reward": total.item(), **{name: x.item() for name, x in zip(self.reward.names, terms)},
                "window": float(np.mean([w[0] for w in windows])),
                "gain": float(np.mean([self.schedule.gain[w[0]:w[1]].sum() for w in windows])),
                "grad_x0": float(np.mean([c.norm().item() for c in cotangent])),
                "grad_sample": float(torch.nn.utils.get_total_norm(gradient)),
                "saturated": ((video < -1) | (video > 1)).float().mean().item()}
        return gradient, note

    def update(self, u):
        """Rollouts, mean gradient, AdamW: the line of metrics.jsonl."""
        count, mean, notes = self.cfg["optim.rollouts"], None, []
        for sample in range(u * count, (u + 1) * count):
            gradient, note = self.rollout(u, sample)
            notes.append(note)
            mean = gradient if mean is None else torch._foreach_add(mean, gradient)
        average = {name: float(np.mean([n[name] for n in notes])) for name in notes[0]}
        after = self.models.adapter.update(u + 1, torch._foreach_div(mean, count))
        saturated = average.pop("saturated")
        return {"update": u + 1, "samples": [u * count, (u + 1) * count - 1], **average, **after, "saturated": saturated}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conf", type=Path)
    parser.add_argument("settings", nargs="*", help="key=value")
    parser.add_argument("--updates", type=int)
    parser.add_argument("--out", type=Path, default=Path("metrics.jsonl"))
    parser.add_argument("--timing", type=Path)
    parser.add_argument("--adapters", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layout", choices=("nchw", "channels_last"), default="channels_last")
    parser.add_argument("--checkpoint", choices=("none", "unet", "vae", "both"), default="none")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    cfg = twin_config.load(args.conf, args.settings)
    trainer = Trainer(cfg, args.layout, args.checkpoint)
    if args.adapters:
        args.adapters.mkdir(parents=True, exist_ok=True)
    timing = open(args.timing, "w") if args.timing else None
    with open(args.out, "w") as metrics:
        for u in range(args.updates or cfg["optim.updates"]):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            line = trainer.update(u)
            seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
            print(json.dumps(line), file=metrics, flush=True)
            if timing:
                print(json.dumps({"update": u + 1, "seconds": seconds, "cpu_seconds": cpu}), file=timing, flush=True)
            if args.adapters:
                trainer.models.adapter.save(args.adapters / f"step-{u + 1:06d}.safetensors")


if __name__ == "__main__":
    main()
