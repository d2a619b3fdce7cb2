"""V-JEPA written from its formulas: encoder, predictor, position table, masks, masked loss.

Key names and shapes are those of the released checkpoints with the prefix of each dictionary in front:
encoder.module.backbone.*, predictor.module.backbone.*, target_encoder.module.backbone.*. Everything works on
a plain dictionary of tensors, in whatever dtype those have.

  x      (B, 3, T, H, W)   normalised clip
  tokens (B, N, D)         in (t, h, w) order, N = T/tubelet * H/patch * W/patch
  z_j  = predictor(encoder(x at C_j), C_j, M_j);   h = layer_norm(target_encoder(x)), no gain, no bias
  loss = 1/2 sum_j mean |z_j - h at M_j|^p / p
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

EPS = 1e-6          # every LayerNorm with a gain
EPS_TARGET = 1e-5   # the one without


def grid_of(config):
    """Tokens per axis (time, height, width)."""
    size = config["crop_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return config["num_frames"] // config["tubelet_size"], height // config["patch_size"], width // config["patch_size"]


def sincos_table(dim, grid, uniform_power):
    """The fixed position table (1, N, dim) in float64: per axis [sin | cos], axes in the order time, height, width."""
    widths = [2 * math.ceil(dim / 6)] * 3 if uniform_power else [dim // 2, dim // 4, dim // 4]
    parts = []
    for axis, (count, width) in enumerate(zip(grid, widths)):
        angle = np.arange(count)[:, None] * 10000.0 ** (-np.arange(width // 2) / (width / 2))
        table = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)          # (count, width)
        shape = [1, 1, 1, width]
        shape[axis] = count
        parts.append(np.broadcast_to(table.reshape(shape), (*grid, width)))
    return torch.from_numpy(np.concatenate(parts, axis=3).reshape(1, -1, sum(widths))[:, :, :dim].copy())


def shapes(config):
    """Every key of the three dictionaries with its shape, in the order of the modules."""
    depth, heads = config["depth"], config["num_heads"]
    dim, narrow = config["embed_dim"], config["pred_embed_dim"]
    assert dim % heads == 0 and narrow % heads == 0
    tokens = math.prod(grid_of(config))

    def block(prefix, width):
        hidden = int(width * config["mlp_ratio"])
        for name, shape in (("norm1.weight", [width]), ("norm1.bias", [width]),
                            ("attn.qkv.weight", [3 * width, width]), ("attn.qkv.bias", [3 * width]),
                            ("attn.proj.weight", [width, width]), ("attn.proj.bias", [width]),
                            ("norm2.weight", [width]), ("norm2.bias", [width]),
                            ("mlp.fc1.weight", [hidden, width]), ("mlp.fc1.bias", [hidden]),
                            ("mlp.fc2.weight", [width, hidden]), ("mlp.fc2.bias", [width])):
            yield prefix + name, shape

    out = {}
    for tower in ("encoder", "target_encoder"):
        at = tower + ".module.backbone."
        out[at + "pos_embed"] = [1, tokens, dim]
        out[at + "patch_embed.proj.weight"] = [dim, 3, config["tubelet_size"], config["patch_size"], config["patch_size"]]
        out[at + "patch_embed.proj.bias"] = [dim]
        for i in range(depth):
            out.update(block(f"{at}blocks.{i}.", dim))
        out[at + "norm.weight"], out[at + "norm.bias"] = [dim], [dim]
    at = "predictor.module.backbone."
    for j in range(config["num_mask_tokens"]):
        out[f"{at}mask_tokens.{j}"] = [1, 1, narrow]
    out[at + "predictor_pos_embed"] = [1, tokens, narrow]
    out[at + "predictor_embed.weight"], out[at + "predictor_embed.bias"] = [narrow, dim], [narrow]
    for i in range(config["pred_depth"]):
        out.update(block(f"{at}predictor_blocks.{i}.", narrow))
    out[at + "predictor_norm.weight"], out[at + "predictor_norm.bias"] = [narrow], [narrow]
    out[at + "predictor_proj.weight"], out[at + "predictor_proj.bias"] = [dim, narrow], [dim]
    return out


def sample_masks(config, batch, generator):
    """Multiblock-3d masks: a list of (context, predicted) index tensors, (B, |C|) and (B, |M|), for the short-
    range generator (8 blocks of 15 % of a frame) and the long-range one (2 blocks of 70 %)."""
    _, height, width = grid = grid_of(config)
    uniform = lambda low, high: low + (high - low) * torch.rand(1, generator=generator).item()
    integer = lambda high: int(torch.randint(0, high, (1,), generator=generator))
    out = []
    for blocks, scale in ((8, 0.15), (2, 0.7)):
        area, aspect = int(height * width * scale), uniform(0.75, 1.5)
        h = min(max(1, round(math.sqrt(area * aspect))), height)
        w = min(max(1, round(math.sqrt(area / aspect))), width)
        contexts, predicted = [], []
        while len(contexts) < batch:
            keep = torch.ones(grid, dtype=torch.bool)
            for _ in range(blocks):
                top, left = integer(height - h + 1), integer(width - w + 1)
                keep[:, top:top + h, left:left + w] = False
            if keep.any() and not keep.all():
                contexts.append(keep.flatten().nonzero().squeeze(1))
                predicted.append((~keep).flatten().nonzero().squeeze(1))
        shortest = lambda rows: torch.stack([row[:min(map(len, rows))] for row in rows])
        out.append((shortest(contexts), shortest(predicted)))
    return out


def _norm(w, key, x):
    return F.layer_norm(x, x.shape[-1:], w[key + ".weight"], w[key + ".bias"], EPS)


def _linear(w, key, x):
    return F.linear(x, w[key + ".weight"], w[key + ".bias"])


def _block(w, at, x, heads):
    batch, count, width = x.shape
    qkv = _linear(w, at + "attn.qkv", _norm(w, at + "norm1", x))
    y = F.scaled_dot_product_attention(*qkv.reshape(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4))    # (B, A, L, d)
    x = x + _linear(w, at + "attn.proj", y.transpose(1, 2).reshape(batch, count, width))
    return x + _linear(w, at + "mlp.fc2", F.gelu(_linear(w, at + "mlp.fc1", _norm(w, at + "norm2", x))))


def gather(x, index):
    """Rows `index` (B, n) of the tokens x (B, N, D)."""
    return torch.gather(x, 1, index.long().unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def encode(w, config, clips, keep=None, tower="encoder"):
    """(B, 3, T, H, W) -> (B, N, D); with keep (B, n) only those tokens are ever seen."""
    at = tower + ".module.backbone."
    stride = (config["tubelet_size"], config["patch_size"], config["patch_size"])
    x = F.conv3d(clips, w[at + "patch_embed.proj.weight"], w[at + "patch_embed.proj.bias"], stride=stride)
    x = x.flatten(2).transpose(1, 2)
    x = x + w[at + "pos_embed"][:, :x.shape[1]]         # a short clip has the first time steps
    if keep is not None:
        x = gather(x, keep)
    for i in range(config["depth"]):
        x = _block(w, f"{at}blocks.{i}.", x, config["num_heads"])
    return _norm(w, at + "norm", x)


def predict(w, config, context, keep, wanted, j):
    """Features at `wanted` (B, m) from the encoded context at `keep` (B, n), with mask token j."""
    at = "predictor.module.backbone."
    table = w[at + "predictor_pos_embed"].expand(len(context), -1, -1)
    seen = _linear(w, at + "predictor_embed", context) + gather(table, keep)
    token = w[f"{at}mask_tokens.{j % config['num_mask_tokens']}"]
    x = torch.cat([seen, token + gather(table, wanted)], dim=1)
    for i in range(config["pred_depth"]):
        x = _block(w, f"{at}predictor_blocks.{i}.", x, config["num_heads"])
    return _linear(w, at + "predictor_proj", _norm(w, at + "predictor_norm", x)[:, keep.shape[1]:])


def masked_loss(w, config, clips, masks, gradient_through_target):
    """The loss, the target features h (B, N, D), and z_j (B, |M_j|, D) per mask pair."""
    with torch.set_grad_enabled(gradient_through_target):
        h = encode(w, config, clips, tower="target_encoder")
        h = F.layer_norm(h, h.shape[-1:], eps=EPS_TARGET)
    power, z, loss = config["loss_exp"], [], 0.0
    for j, (keep, wanted) in enumerate(masks):
        z.append(predict(w, config, encode(w, config, clips, keep), keep, wanted, j))
        loss = loss + ((z[j] - gather(h, wanted)).abs() ** power).mean() / power
    return loss / len(masks), h, z
