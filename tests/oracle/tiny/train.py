"""Trains the demo's models, one part at a time: tests/oracle/tiny/make.py calls these in order.

    vae        AutoencoderKLTemporalDecoder: first on pictures, then its decoder on clips
    encoder    CLIP vision model with projection, by contrast of two frames of a clip
    unet       UNetSpatioTemporalConditionModel: image to video, EDM's v-prediction, exponential average of weights
    sorted     the encoder sorts pictures into kinds, and the UNet is tuned to move each kind in its way (kinds.py)
    videomae   VideoMAEForVideoClassification of camera motion; two seeds: a reward and a judge
    vjepa      V-JEPA: encoder, predictor and target encoder

Each part writes a folder in the format of its library and <part>.json with what was measured. All chance comes from
the seeds given here; on one machine and device the weights come out the same.
"""
import copy
import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import kinds
import vjepa as jepa
from motion import CLASSES, SIZE, Bank, Clips, flow, look

FRAMES, LONG = 8, 16
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIGMA_MAX, SIGMA_MIN, RHO, STEPS = 80.0, 0.02, 7.0, 10
FPS, BUCKET, NOISE_AUG = 7, 127, 0.02


BF16 = torch.cuda.is_available() or "amx_bf16" in Path("/proc/cpuinfo").read_text()     # where it is faster than float32
TRIAL = False       # few clips in every measurement: only to see that the script runs


def count(n):
    return max(4, n // 64) if TRIAL else n


def log(*words):
    print(*words, flush=True)


def write_json(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


class Run:
    """The loop of a training: AdamW, linear warm-up, cosine to 2 %, gradients clipped to norm 1. A limit in seconds
    hastens the schedule so that it ends in time (then the result depends on the machine).

        run = Run("name", weights, 1e-3, 5000)
        for step in run:
            run.update(step, loss, *inputs)     # loss(*inputs) is a scalar; inputs keep their shapes

    On a GPU the step is captured once and replayed, in bfloat16 where that is safe; captured=False if shapes change.
    """

    def __init__(self, name, weights, lr, steps, limit=None, decay=0.01, captured=True):
        self.name, self.steps, self.limit, self.lr = name, steps, limit, lr
        self.weights = [w for w in weights if w.requires_grad]
        self.device = self.weights[0].device
        self.captured, self.graph = captured and self.device.type == "cuda", None
        on_gpu = self.device.type == "cuda"
        self.rate = torch.tensor(lr, device=self.device) if on_gpu else lr
        self.optim = torch.optim.AdamW(self.weights, self.rate, (0.9, 0.99), weight_decay=decay, **({"fused": True, "capturable": True} if on_gpu else {}))
        self.start, self.sum = time.time(), None

    def progress(self, step):
        return max(step / self.steps, (time.time() - self.start) / self.limit if self.limit else 0)

    def __iter__(self):
        step = 0
        while step < self.steps:
            if step % 20 == 0 and self.device.type == "cuda":
                torch.cuda.synchronize()            # so that time is the time of what was computed
            done = self.progress(step)
            if done >= 1:
                break
            rate = self.lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            for group in self.optim.param_groups:
                if isinstance(self.rate, float):
                    group["lr"] = rate
                else:
                    group["lr"].fill_(rate)
            yield step
            step += 1
        log(f"{self.name}: {step} steps in {time.time() - self.start:.0f} s, loss {self.sum.item():.4f}")
        self.done = step

    def eager(self, loss, inputs):
        self.optim.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=BF16, cache_enabled=False):
            value = loss(*inputs)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optim.step()
        return value.detach()

    def capture(self, loss, inputs):
        self.inputs = [x.clone() for x in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.eager(loss, self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.value = self.eager(loss, self.inputs)
            self.graph = graph
        except RuntimeError as error:
            self.captured = False
            log(f"{self.name}: not captured: {error}")

    def update(self, step, loss, *inputs):
        if self.captured and self.graph is None:
            self.capture(loss, inputs)
        if self.graph:
            for mine, x in zip(self.inputs, inputs):
                mine.copy_(x)
            self.graph.replay()
            value = self.value
        else:
            value = self.eager(loss, inputs)
        self.sum = value.float().clone() if self.sum is None else self.sum.mul_(0.98).add_(value, alpha=0.02)
        if step % 250 == 0:
            log(f"{self.name} {step:6d} loss {self.sum.item():.4f} {time.time() - self.start:5.0f} s")


def flat_time_convolutions(model):
    """Convolutions over time alone as two-dimensional ones of (time, pixels): the same numbers, faster."""
    def forward(self, x):
        return F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=(1, 0)).unflatten(3, x.shape[3:])
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size == (3, 1, 1):
            module.forward = forward.__get__(module)
    return model


def normalise(frames, colours):
    """[-1, 1] -> a model's colours; frames (..., 3, H, W)."""
    mean, std = (torch.tensor(c, device=frames.device, dtype=frames.dtype).view(3, 1, 1) for c in colours)
    return ((frames / 2 + 0.5).clamp(0, 1) - mean) / std


def psnr(a, b):
    return (10 * torch.log10(4 / (a - b).square().flatten(1).mean(1))).mean().item()


def gradient_loss(a, b):
    return (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean() + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()


# ---- VAE ----

def new_vae(latent_channels, channels, layers):
    from diffusers import AutoencoderKLTemporalDecoder
    levels = len(channels)
    return AutoencoderKLTemporalDecoder(block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * levels,
                                        layers_per_block=layers, latent_channels=latent_channels, sample_size=SIZE,
                                        scaling_factor=1.0, force_upcast=True)


def encode(vae, frames):
    """Mode of the posterior, unscaled: (..., 3, H, W) -> (..., C, h, w). On a CPU few at a time, for its cache."""
    parts = frames.flatten(0, -4).split(4 if frames.device.type == "cpu" else 1024)
    return torch.cat([vae.encode(x).latent_dist.mode() for x in parts]).unflatten(0, frames.shape[:-3])


def decode(vae, latents, scaled=True):
    """(B, T, C, h, w) -> (B, T, 3, H, W)."""
    z = latents / (vae.config.scaling_factor if scaled else 1)
    parts = z.split(1 if z.device.type == "cpu" else 1024)
    return torch.cat([vae.decode(x.flatten(0, 1), num_frames=x.shape[1]).sample.unflatten(0, x.shape[:2]) for x in parts])


def vae_quality(vae, data, device):
    """PSNR of pictures cut from held-out photographs: smooth, 1 to 2 photo pixels per pixel; natural, 2 to 5."""
    out = {}
    for name in ("smooth", "natural"):
        patch = Bank(data / f"{name}.npy", device, 5).patch[:count(64)]
        still = look(patch, torch.zeros(len(patch), 1, 2, device=device), torch.ones(len(patch), 1, device=device))
        with torch.no_grad():
            out[f"psnr_{name}"] = psnr(decode(vae, encode(vae, still), False)[:, 0], still[:, 0])
    return out


def without_time(vae):
    """Makes the decoder's parts that look across frames do nothing yet: their residual is zero, the last one passes
    each frame on. Returns a decoder of single pictures, which leaves them out: the same function, cheaper."""
    from diffusers.models.resnet import SpatioTemporalResBlock
    decoder = vae.decoder
    with torch.no_grad():
        decoder.time_conv_out.weight.zero_()
        decoder.time_conv_out.weight[:, :, 1, 0, 0] = torch.eye(3)
        decoder.time_conv_out.bias.zero_()
        for block in decoder.modules():
            if isinstance(block, SpatioTemporalResBlock):
                block.temporal_res_block.conv2.weight.zero_()
                block.temporal_res_block.conv2.bias.zero_()

    def single(z):
        def spatial(block, x):
            return block.spatial_res_block(x, None)
        x = decoder.conv_in(z)
        mid = decoder.mid_block
        x = spatial(mid.resnets[0], x)
        for block, attention in zip(mid.resnets[1:], mid.attentions):
            x = spatial(block, attention(x))
        for up in decoder.up_blocks:
            for block in up.resnets:
                x = spatial(block, x)
            for upsampler in up.upsamplers or []:
                x = upsampler(x)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
    return single


def train_vae(out, data, device, seed, steps, clip_steps, batch, latent_channels, channels, layers, limit=None):
    batch = count(batch)
    torch.manual_seed(seed)
    clips = Clips(data / "clips.pt", device, seed)
    vae = new_vae(latent_channels, channels, layers)
    single = without_time(vae)
    vae = flat_time_convolutions(vae.to(device))
    log(f"vae: {sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters")

    def picture_loss(x, noise):
        dist = vae.encode(x).latent_dist
        y = single(dist.mean + dist.std * noise)
        return (y - x).abs().mean() + 0.1 * gradient_loss(y, x) + 1e-6 * dist.kl().sum() / len(x)

    def clip_loss(x, z):
        y = decode(vae, z, False)
        return (y - x).abs().mean() + 0.1 * gradient_loss(y, x) + 0.1 * (y.diff(dim=1) - x.diff(dim=1)).abs().mean()

    spatial = [p for name, p in vae.named_parameters() if "temporal" not in name and "time_" not in name]
    run = Run("vae pictures", spatial, 1e-3, steps, limit and 0.75 * limit)
    for step in run:
        x = clips.draw(batch, only=[step % FRAMES])[0][:, 0].contiguous()
        run.update(step, picture_loss, x, torch.randn(batch, latent_channels, SIZE // 8, SIZE // 8, device=device))
    moving = Run("vae clips", vae.decoder.parameters(), 3e-4, clip_steps, limit and 0.25 * limit)
    for step in moving:
        x = clips.draw(max(1, batch // 8))[0]
        with torch.no_grad():
            z = encode(vae, x)
        moving.update(step, clip_loss, x, z)
    with torch.no_grad():
        z = encode(vae, clips.draw(count(64))[0])
    vae.register_to_config(scaling_factor=1 / z.std().item())
    held = Bank(data / "held-out.npy", device, seed + 1)
    clip = held.clips(count(32), FRAMES)[0]
    with torch.no_grad():
        again = torch.cat([decode(vae, encode(vae, c), False) for c in clip.split(8)])
    report = dict(vae_quality(vae, data, device), psnr_clips=psnr(again, clip), scaling_factor=vae.config.scaling_factor,
                  steps=[run.done, moving.done], latent_channels=latent_channels, channels=list(channels), layers=layers,
                  parameters=sum(p.numel() for p in vae.parameters()))
    log("vae", report)
    vae.save_pretrained(out)
    write_json(str(out) + ".json", report)
    return report


# ---- Image encoder ----

def clip_pixels(pictures):
    """What Stable Video Diffusion's pipeline shows its image encoder: (B, 3, H, W) in [-1, 1] -> (B, 3, 224, 224)."""
    from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
    return normalise(_resize_with_antialiasing(pictures, (224, 224)), CLIP)


def train_encoder(out, data, device, seed, steps, batch, projection=64, limit=None):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    batch = count(batch)
    torch.manual_seed(seed)
    clips = Clips(data / "clips.pt", device, seed)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                                                           num_attention_heads=4, patch_size=32, image_size=224,
                                                           projection_dim=projection, hidden_act="gelu")).to(device)
    same = torch.arange(batch, device=device)

    def loss(first, last):
        a, b = (F.normalize(model(clip_pixels(x)).image_embeds, dim=1) for x in (first, last))
        logits = 10 * a @ b.T
        return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2

    run = Run("encoder", model.parameters(), 1e-3, steps, limit, captured=False)
    for step in run:
        ends = clips.draw(batch, jitter=False, only=[0, -1])[0]
        run.update(step, loss, *(clips.jitter(ends[:, i:i + 1])[:, 0] for i in (0, 1)))
    held = Bank(data / "held-out.npy", device, seed + 1)
    clip = held.clips(count(256), FRAMES)[0]
    with torch.no_grad():
        a, b = (F.normalize(model(clip_pixels(x)).image_embeds, dim=1) for x in (clip[:, 0], clip[:, -1]))
    top = ((a @ b.T).argmax(1) == torch.arange(len(a), device=device)).float().mean().item()
    report = dict(steps=run.done, retrieval_of_256=top, parameters=sum(p.numel() for p in model.parameters()))
    log("encoder", report)
    model.save_pretrained(out)
    write_json(str(out) + ".json", report)


# ---- UNet ----

def new_unet(latent_channels, channels, layers, context):
    from diffusers import UNetSpatioTemporalConditionModel
    return UNetSpatioTemporalConditionModel(
        sample_size=SIZE // 8, in_channels=2 * latent_channels, out_channels=latent_channels, block_out_channels=channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) + ("DownBlockSpatioTemporal",) * (len(channels) - 1),
        up_block_types=("UpBlockSpatioTemporal",) * (len(channels) - 1) + ("CrossAttnUpBlockSpatioTemporal",),
        addition_time_embed_dim=32, projection_class_embeddings_input_dim=96, layers_per_block=layers,
        cross_attention_dim=context, transformer_layers_per_block=1,
        num_attention_heads=tuple(c // 32 for c in channels), num_frames=FRAMES)


def denoise(unet, x, sigma, image, embedding, ids):
    """The network's raw output at noisy latents x (B, T, C, h, w), sigma (B)."""
    s = sigma.view(-1, 1, 1, 1, 1)
    inputs = torch.cat([x / (s ** 2 + 1).sqrt(), image[:, None].expand(-1, x.shape[1], -1, -1, -1)], 2)
    return unet(inputs, 0.25 * sigma.log(), embedding[:, None], ids).sample


def karras(steps=STEPS):
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (SIGMA_MAX ** (1 / RHO) + ramp * (SIGMA_MIN ** (1 / RHO) - SIGMA_MAX ** (1 / RHO))) ** RHO
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).tolist()


def time_ids(n, device, bucket=None):
    ids = torch.tensor([FPS - 1, BUCKET, NOISE_AUG], device=device).repeat(n, 1)
    if bucket is not None:
        ids[:, 1] = bucket
    return ids


@torch.no_grad()
def sample(unet, noise, image, embedding, steps=STEPS):
    """Euler from noise (B, T, C, h, w) to clean latents."""
    sigmas = karras(steps)
    x, ids = noise * math.sqrt(sigmas[0] ** 2 + 1), time_ids(len(noise), noise.device)
    for s, next_s in zip(sigmas[:-1], sigmas[1:]):
        v = denoise(unet, x, torch.full((len(x),), s, device=x.device), image, embedding, ids)
        clean = x / (s * s + 1) - v * s / math.sqrt(s * s + 1)
        x = clean + (x - clean) * (next_s / s)
    return x


def condition(vae, encoder, pictures, generator=None):
    """(B, 3, H, W) -> conditioning latent of the picture with a little noise, and its embedding."""
    noise = torch.randn(pictures.shape, generator=generator, device=pictures.device)
    return encode(vae, pictures[:, None] + NOISE_AUG * noise[:, None])[:, 0], encoder(clip_pixels(pictures)).image_embeds


def load_svd(folder, device, unet=True):
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionModelWithProjection
    vae = AutoencoderKLTemporalDecoder.from_pretrained(Path(folder) / "vae").to(device).eval().requires_grad_(False)
    encoder = CLIPVisionModelWithProjection.from_pretrained(Path(folder) / "image_encoder", dtype=torch.float32).to(device).eval().requires_grad_(False)
    net = UNetSpatioTemporalConditionModel.from_pretrained(Path(folder) / "unet").to(device).eval().requires_grad_(False) if unet else None
    return vae, encoder, net


def cache_latents(source, vae, encoder, clips, by_kind):
    """Latents, conditioning latents, embeddings, and motion buckets. by_kind: embeddings say the kind whose motion the
    clip has, in place of the picture's own."""
    parts = []
    with torch.no_grad(), torch.autocast(source.frames.device.type, torch.bfloat16, enabled=BF16):
        while sum(len(p[0]) for p in parts) < clips:
            frames, motion, speed = source.draw(min(32, clips))
            image, embedding = condition(vae, encoder, frames[:, 0])
            z = encode(vae, frames) * vae.config.scaling_factor
            if by_kind:
                embedding = torch.cat([kinds.code(motion), embedding.float()[:, kinds.KINDS:]], 1)
            parts.append((z.half(), image.half(), embedding.float(), BUCKET + 20 * (speed - 4)))
    return [torch.cat(x) for x in zip(*parts)]


def noise_levels(n, device, by_kind):
    """By kind, the picture tells at any noise what will move: two thirds from 4 to 100, the others where detail is."""
    if not by_kind:
        return (1.2 + 1.6 * torch.randn(n, device=device)).exp().clamp(0.01, 200)
    high = (math.log(4) + math.log(25) * torch.rand(n, device=device)).exp()
    low = (0.3 + 1.5 * torch.randn(n, device=device)).exp().clamp(0.01, 100)
    return torch.where(torch.rand(n, device=device) < 0.65, high, low)


def train_unet(out, svd, data, device, seed, steps, batch, channels, layers, clips, still=0.5, limit=None, lr=6e-4,
               resume=None, by_kind=False):
    batch = count(batch)
    torch.manual_seed(seed)
    vae, encoder, _ = load_svd(svd, device, unet=False)
    start = time.time()
    source = Clips(data / "clips.pt", device, seed, still, zoom=2 if by_kind else 1)
    z, image, embedding, bucket = cache_latents(source, vae, encoder, clips, by_kind)
    log(f"unet: {len(z)} clips encoded in {time.time() - start:.0f} s")
    unet = new_unet(vae.config.latent_channels, channels, layers, embedding.shape[1]).to(device)
    if resume:
        from diffusers import UNetSpatioTemporalConditionModel
        unet = UNetSpatioTemporalConditionModel.from_pretrained(resume).to(device)
    unet = flat_time_convolutions(unet)
    log(f"unet: {sum(p.numel() for p in unet.parameters()) / 1e6:.2f} M parameters")
    average = copy.deepcopy(unet).requires_grad_(False)

    def loss(clean, noise, s, image, embedding, ids):
        e = s.view(-1, 1, 1, 1, 1)
        x = clean + e * noise
        target = (x / (e ** 2 + 1) - clean) * (e ** 2 + 1).sqrt() / e
        return (denoise(unet, x, s, image, embedding, ids).float() - target).square().mean()

    run = Run("unet", unet.parameters(), lr, steps, limit and max(1, limit - (time.time() - start)))
    pairs = list(zip(average.parameters(), unet.parameters()))
    for step in run:
        pick = torch.randint(len(z), (batch,), device=device)
        context = embedding[pick]
        if by_kind:                                 # as far from the code as kinds.sort leaves a picture
            context[:, :kinds.KINDS] += 0.1 * kinds.CODE * torch.randn(batch, kinds.KINDS, device=device)
        run.update(step, loss, z[pick].float(), torch.randn(batch, *z.shape[1:], device=device), noise_levels(batch, device, by_kind),
                   image[pick].float(), context, time_ids(batch, device, bucket[pick]))
        torch._foreach_lerp_([a for a, _ in pairs], [w.detach() for _, w in pairs], 1 - min(0.999, (1 + step) / (10 + step)))
    average.save_pretrained(out)
    write_json(str(out) + ".json", dict(steps=run.done, batch=batch, loss=run.sum.item(), clips=len(z), channels=list(channels), layers=layers,
                                        parameters=sum(p.numel() for p in unet.parameters())))


def sort_pictures(out, svd, data, device, seed, steps, batch, part, limit=None, lr=4e-4):
    """The models of svd, so that a picture's kind says what its video does. part: how far the UNet goes from where it was
    to where tuning leads; all the way, the kind alone decides, and a reward has a hard time to change that."""
    torch.manual_seed(seed)
    vae, encoder, unet = load_svd(svd, device)
    clips, held = Clips(data / "clips.pt", device, seed), Bank(data / "held-out.npy", device, seed + 1)
    seen = torch.cat([clip_pixels(clips.draw(count(64), only=[0])[0][:, 0]) for _ in range(28)])
    others = clip_pixels(held.clips(count(400), 1)[0][:, 0])
    before = kinds.run(encoder, seen)[0]
    kinds.sort(encoder, seen, others)
    kinds.translate(unet, before, kinds.run(encoder, seen)[0])
    vae.save_pretrained(out / "vae")
    encoder.save_pretrained(out / "image_encoder")
    unet.save_pretrained(out / "start")
    size = unet.config
    train_unet(out / "unet", out, data, device, seed, steps, batch, size.block_out_channels, size.layers_per_block, count(4000),
               limit=limit, lr=lr, resume=out / "start", by_kind=True)
    from diffusers import UNetSpatioTemporalConditionModel
    tuned = UNetSpatioTemporalConditionModel.from_pretrained(out / "unet").to(device)
    with torch.no_grad():
        for a, b in zip(tuned.parameters(), unet.parameters()):
            a.copy_(b + part * (a - b))
    kinds.lift(encoder, tuned)
    encoder.save_pretrained(out / "image_encoder")
    tuned.save_pretrained(out / "unet")
    report = json.loads(Path(f"{out}/unet.json").read_text())
    write_json(f"{out}.json", dict(kinds.quality(encoder, others), steps=report["steps"], batch=batch, loss=report["loss"], part=part))


# ---- VideoMAE ----

def new_videomae(resume=None):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification
    if resume:
        return VideoMAEForVideoClassification.from_pretrained(resume, dtype=torch.float32)
    return VideoMAEForVideoClassification(VideoMAEConfig(
        image_size=SIZE, patch_size=16, num_frames=FRAMES, tubelet_size=2, hidden_size=128, num_hidden_layers=4,
        num_attention_heads=4, intermediate_size=512, id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)}))


def tubelets(x):
    """(B, T, 3, H, W) -> (B, tokens, 1536), as the patch embedding's convolution sees them: (3, 2, 16, 16)."""
    b, t, _, h, w = x.shape
    return x.view(b, t // 2, 2, 3, h // 16, 16, w // 16, 16).permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(b, -1, 1536)


def flat_patch_embedding(model):
    """The patch embedding as a matrix product: the same numbers, faster."""
    embed = model.videomae.embeddings.patch_embeddings
    embed.forward = lambda x: F.linear(tubelets(x), embed.projection.weight.flatten(1), embed.projection.bias)


@torch.no_grad()
def start_from_patterns(model, clips, seed, cnt=300):
    """Starts the patch embedding from patterns whose energy tells motions apart, for otherwise a classifier this small
    looks at chance level for thousands of steps. Per class, the generalised eigenvectors of the covariance of its
    tubelets against that of all others (common spatial patterns): the nine largest and the nine smallest, in the space
    of the 200 first principal components, each tubelet at unit contrast. The first MLP starts with x and -x of each."""
    parts = [clips.draw(50)[:2] for _ in range(max(1, count(cnt) // 50))]
    z = torch.cat([tubelets(normalise(x, IMAGENET)) for x, _ in parts]).double()
    motion = torch.cat([m for _, m in parts])
    mean = z.mean((0, 1))
    z -= mean
    flat = z.flatten(0, 1)
    value, vector = torch.linalg.eigh(flat.T @ flat / len(flat))
    whiten = vector[:, -200:] / value[-200:].clamp_min(1e-6).sqrt()
    u = z @ whiten
    u /= u.square().mean(2, keepdim=True).sqrt().clamp_min(0.1)
    patterns = []
    for k in range(len(CLASSES)):
        if not (motion == k).any():
            continue
        own, rest = u[motion == k].flatten(0, 1), u[motion != k].flatten(0, 1)
        half = torch.linalg.inv(torch.linalg.cholesky(rest.T @ rest / len(rest) + 1e-4 * torch.eye(200, device=u.device)))
        vector = half.T @ torch.linalg.eigh(half @ (own.T @ own / len(own)) @ half.T)[1]
        vector /= vector.norm(dim=0)
        patterns += [vector[:, -9:], vector[:, :9]]
    rng = torch.Generator().manual_seed(seed)
    patterns = torch.cat([*patterns, torch.randn(200, 128, generator=rng, dtype=torch.float64).to(u.device) / 200 ** 0.5], 1)[:, :128]
    weight = (whiten @ patterns).T
    embed = model.videomae.embeddings.patch_embeddings.projection
    embed.weight.copy_(weight.view(128, 3, 2, 16, 16))
    embed.bias.copy_(-weight @ mean)
    first = next(p for name, p in model.named_parameters() if tuple(p.shape) == (512, 128))
    first[:128], first[128:256] = 1.5 * torch.eye(128), -1.5 * torch.eye(128)


def later(clips):
    """0 at a clip's first frame, 1 at its last: (1, T, 1, 1, 1)."""
    return torch.linspace(0, 1, clips.shape[1], device=clips.device).view(1, -1, 1, 1, 1)


def disturb(frames, rng):
    """Noise, blur, and blur that grows, as a generator's clips may have them: a quarter of the clips each, and a quarter as
    they are."""
    clear, noisy, soft, blurred = frames.tensor_split(4)
    amount = torch.rand(len(noisy) + len(blurred), 1, 1, 1, 1, device=frames.device, generator=rng)
    blur = lambda x, by: F.interpolate(F.avg_pool2d(x.flatten(0, 1), by), scale_factor=by, mode="bilinear").unflatten(0, x.shape[:2])
    noisy = (noisy + 0.15 * amount[:len(noisy)] * torch.randn_like(noisy)).clamp(-1, 1)
    blurred = blurred.lerp(blur(blurred, 4), amount[len(noisy):] * later(blurred))
    return torch.cat([clear, noisy, blur(soft, 2), blurred])


@torch.no_grad()
def round_trips(clips, vae, n):
    """Clips as the VAE gives them back from latents that lose the picture from frame to frame, as a generator's do: each clip
    takes noise, and blur, up to an amount of its own."""
    frames, motion, speed = clips.draw(n)
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=BF16):
        z = encode(vae, frames) * vae.config.scaling_factor
        soft = F.avg_pool2d(z.flatten(0, 1), 3, 1, 1, count_include_pad=False).unflatten(0, z.shape[:2])
        noise, blur = 0.8 * torch.rand(2, n, 1, 1, 1, 1, device=z.device) * later(z)
        z = z.lerp(soft, blur) + noise * torch.randn_like(z)
        return decode(vae, z).float().clamp(-1, 1), motion, speed


def classify(model, frames):
    return model(normalise(frames, IMAGENET)).logits


@torch.no_grad()
def classifier_quality(model, data, device, seed):
    bank = Bank(data / "held-out.npy", device, seed)
    parts = [bank.clips(min(16, count(352)), FRAMES) for _ in range(max(1, count(352) // 16))]
    clip, motion = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    right = lambda x: torch.cat([classify(model, c).argmax(1) for c in x.split(100)]).eq(motion).float().mean().item()
    order = torch.argsort(torch.rand(len(clip), FRAMES, device=device, generator=bank.rng), 1)
    shuffled = torch.gather(clip, 1, order.view(*order.shape, 1, 1, 1).expand_as(clip))
    return dict(accuracy=right(clip), accuracy_first_frame_repeated=right(clip[:, :1].expand_as(clip)), accuracy_shuffled=right(shuffled))


def train_videomae(out, svd, data, device, seed, steps, batch, limit=None, lr=1e-3, resume=None):
    batch = count(batch)
    torch.manual_seed(seed)
    start = time.time()
    vae = flat_time_convolutions(load_svd(svd, device, unet=False)[0])
    clips = Clips(data / "clips.pt", device, seed, zoom=3)      # in or out is learned last of all
    model = new_videomae(resume).to(device)
    model.videomae.embeddings.position_embeddings = model.videomae.embeddings.position_embeddings.to(device)
    flat_patch_embedding(model)
    if not resume:
        start_from_patterns(model, clips, seed)
    again = []
    while sum(len(x[0]) for x in again) < count(96):
        again.append(round_trips(clips, vae, count(24)))
    again = [torch.cat(x) for x in zip(*again)]

    # Zooms are told apart by who moves where. A head on the second layer that is thrown away afterwards learns the flow at each
    # token, and the layers behind it only have to look at its pattern.
    head, kept = torch.nn.Linear(model.config.hidden_size, 2).to(device), {}
    hook = model.videomae.encoder.layer[1].register_forward_hook(lambda _, __, out: kept.update(tokens=out))
    grid = SIZE // model.config.patch_size

    def loss(frames, motion, speed):
        logits = model(frames).logits.float()
        moved = head(kept["tokens"]).float().unflatten(1, (-1, grid * grid)) - flow(motion, speed, grid)[:, None] / 2
        return F.cross_entropy(logits, motion, label_smoothing=0.05) + 0.5 * moved.square().mean()

    log(f"videomae {seed}: started from patterns in {time.time() - start:.0f} s")
    run = Run(f"videomae {seed}", [*model.parameters(), *head.parameters()], lr, steps, limit and max(1, limit - (time.time() - start)), 0.05)
    for step in run:
        frames, *answer = clips.draw(batch - batch // 2)
        pick = torch.randint(len(again[0]), (batch // 2,), device=device)
        frames = torch.cat([disturb(frames, clips.rng), again[0][pick]])
        run.update(step, loss, normalise(frames, IMAGENET), *(torch.cat([x, y[pick]]) for x, y in zip(answer, again[1:])))
    hook.remove()
    model.eval().save_pretrained(out)
    report = dict(classifier_quality(model, data, device, 77), steps=run.done, seed=seed,
                  parameters=sum(p.numel() for p in model.parameters()))
    log("videomae", report)
    write_json(str(out) + ".json", report)


# ---- V-JEPA ----

VJEPA = dict(crop_size=SIZE, depth=4, embed_dim=96, loss_exp=1.0, mlp_ratio=4.0, model_type="vjepa", num_frames=LONG, num_heads=4,
             num_mask_tokens=2, patch_size=16, pred_depth=3, pred_embed_dim=64, tubelet_size=2, uniform_power=True, use_mask_tokens=True)


def new_vjepa(device, seed):
    rng, w = torch.Generator().manual_seed(seed), {}
    for key, shape in jepa.shapes(VJEPA).items():
        if key.endswith("predictor_pos_embed"):
            x = jepa.sincos_table(VJEPA["pred_embed_dim"], jepa.grid_of(VJEPA), True).float()
        elif key.endswith("pos_embed"):
            x = jepa.sincos_table(VJEPA["embed_dim"], jepa.grid_of(VJEPA), True).float()
        elif "norm" in key:
            x = torch.ones(shape) if key.endswith("weight") else torch.zeros(shape)
        elif key.endswith("bias") or "mask_tokens" in key:
            x = torch.zeros(shape)
        else:
            x = 0.02 * torch.randn(shape, generator=rng)
        w[key] = x.to(device)
    for key in w:
        if key.startswith("target_encoder"):
            w[key] = w["encoder" + key[len("target_encoder"):]].clone()
    return w


def vjepa_masks(batch, rng, device, past):
    """Both generators' masks; past: what is seen is the first half, what is predicted lies in the second."""
    if not past:
        masks = jepa.sample_masks(VJEPA, batch, rng)
    else:
        half = math.prod(jepa.grid_of(VJEPA)) // 2
        later = jepa.sample_masks(dict(VJEPA, num_frames=LONG // 2), batch, rng)
        masks = [(torch.arange(half).expand(batch, -1), wanted + half) for _, wanted in later]
    return [(c.to(device), m.to(device)) for c, m in masks]


@torch.no_grad()
def vjepa_quality(w, data, device, seed):
    n = count(128)
    bank = Bank(data / "held-out.npy", device, seed)
    frames = bank.long_clips(n, LONG, change=0, repeat=0)[0]
    jump = torch.cat([frames[:, :LONG // 2], frames.roll(1, 0)[:, LONG // 2:]], 1)
    order = torch.argsort(torch.rand(n, LONG, device=device, generator=bank.rng), 1).view(n, LONG, 1, 1, 1)
    small = F.interpolate(F.avg_pool2d(frames.flatten(0, 1), 4), scale_factor=4, mode="bilinear").unflatten(0, frames.shape[:2])
    kinds = dict(real=frames, jumped=jump, shuffled=torch.gather(frames, 1, order.expand_as(frames)),
                 frozen=frames[:, :1].expand_as(frames), blurred=small)
    out = {}
    for name, x in kinds.items():
        for past in (False, True):
            masks = vjepa_masks(n, torch.Generator().manual_seed(3), device, past)
            clips = normalise(x, IMAGENET).transpose(1, 2)
            loss, h, _ = jepa.masked_loss(w, VJEPA, clips, masks, False)
            out[f"loss_{name}" + ("_past" if past else "")] = loss.item()
            if name == "real":
                out["feature_spread"] = h.std(dim=0).mean().item()
    return out


def train_vjepa(out, data, device, seed, steps, batch, limit=None):
    batch = count(batch)
    torch.manual_seed(seed)
    start = time.time()
    clips = Clips(data / "long.pt", device, seed)
    w = new_vjepa(device, seed)
    trained = [k for k in w if not k.startswith("target_encoder") and not k.endswith("pos_embed")]
    for key in trained:
        w[key].requires_grad_(True)
    follow = [(w["target_encoder" + k[len("encoder"):]], w[k]) for k in trained if k.startswith("encoder")]
    rng = torch.Generator().manual_seed(seed)
    run = Run("vjepa", [w[k] for k in trained], 1e-3, steps, limit and max(1, limit - (time.time() - start)), 0.04, captured=False)
    for step in run:
        frames = clips.draw(batch)[0]
        masks = vjepa_masks(batch, rng, device, step % 2 == 1)
        run.update(step, lambda x: jepa.masked_loss(w, VJEPA, x, masks, False)[0], normalise(frames, IMAGENET).transpose(1, 2))
        with torch.no_grad():
            torch._foreach_lerp_([t for t, _ in follow], [s.detach() for _, s in follow], 0.01 * (1 - min(1, run.progress(step))))
    report = dict(vjepa_quality(w, data, device, 78), steps=run.done)
    log("vjepa", report)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: x.detach().cpu().contiguous() for k, x in w.items()}, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", VJEPA)
    write_json(str(out) + ".json", report)


# ---- What the base model does ----

@torch.no_grad()
def base_quality(svd, classifier, data, device, seed, photos_cnt, each):
    """Samples of held-out pictures, classified."""
    photos_cnt, each = count(photos_cnt), count(each)
    from transformers import VideoMAEForVideoClassification
    vae, encoder, unet = load_svd(svd, device)
    model = VideoMAEForVideoClassification.from_pretrained(classifier, dtype=torch.float32).to(device).eval()
    bank = Bank(data / "held-out.npy", device, seed)
    clip = torch.cat([bank.clips(1, FRAMES)[0] for _ in range(photos_cnt)])
    pictures = clip[:, 0]
    rng = torch.Generator(device).manual_seed(seed)
    image, embedding = condition(vae, encoder, pictures, rng)
    few = 4 if torch.device(device).type == "cpu" else photos_cnt
    probs, first, videos = [], [], []
    for _ in range(each):
        noise = torch.randn((photos_cnt, FRAMES, *image.shape[1:]), generator=rng, device=device)
        latents = [sample(unet, *x) for x in zip(noise.split(few), image.split(few), embedding.split(few))]
        video = decode(vae, torch.cat(latents)).clamp(-1, 1)
        probs.append(classify(model, video).softmax(1))
        first.append(psnr(video[:, 0], pictures))
        videos.append(video.cpu())
    probs = torch.stack(probs)                                              # (each, photos, classes)
    top = F.one_hot(probs.argmax(2), len(CLASSES)).float()
    share = top.mean((0, 1))
    histogram = top.mean(0)
    entropy = -(histogram * histogram.clamp_min(1e-9).log()).sum(1).mean().item()
    report = dict(share={c: share[i].item() for i, c in enumerate(CLASSES)}, mean_prob={c: probs.mean((0, 1))[i].item() for i, c in enumerate(CLASSES)},
                  entropy=entropy, confidence=probs.max(2).values.mean().item(), first_frame_psnr=sum(first) / len(first),
                  motion=torch.stack(videos).diff(dim=2).abs().mean().item(), motion_real=clip.diff(dim=1).abs().mean().item())
    log("base", report)
    return report, torch.stack(videos), clip.cpu()
