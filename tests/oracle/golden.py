#!/usr/bin/env python3
"""Makes golden cases from the public libraries, and checks stored ones.

  golden.py CASE… --out DIR [--seed S] [--size key=value …]    one folder DIR/CASE per case
  golden.py --verify FOLDER…                                   runs stored folders again and compares
  golden.py --set committed|aside --out DIR                    a whole collection (collections below)

CASE: unet_svd unet_svd_lora vae_temporal clip_vision videomae vjepa euler pipeline_step aesthetic.
A case has two halves. make() chooses sizes, writes the model as its library does, and draws the inputs;
run() reads nothing but the folder and computes every output and gradient in float64. So run() on a folder made
by somebody else is a check of that folder, and of this file.
"""
import argparse
import json
import os
import re
import sys
from pathlib import Path

import store
from store import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Case, Rng, call, gradients, normalise, resize

import torch
from safetensors.torch import load_file, save_file

import vjepa as jepa


# ---- UNet ----------------------------------------------------------------------------------------------------

UNET_IN = ("sample", "timestep", "encoder_hidden_states", "added_time_ids")
CROSS, PLAIN = "CrossAttn", ""


def unet_config(size):
    """`attn` says, level by level from the top, which have attention: "10" = first level only."""
    channels, attn = size["channels"], str(size["attn"])
    name = lambda way, flag: (CROSS if flag == "1" else PLAIN) + way + "BlockSpatioTemporal"
    return dict(sample_size=size["hw"][0], in_channels=8, out_channels=4, block_out_channels=tuple(channels),
                down_block_types=tuple(name("Down", f) for f in attn),
                up_block_types=tuple(name("Up", f) for f in reversed(attn)),
                addition_time_embed_dim=size["time_dim"], projection_class_embeddings_input_dim=3 * size["time_dim"],
                layers_per_block=size["layers"], cross_attention_dim=size["context"],
                transformer_layers_per_block=size["transformer_layers"],
                num_attention_heads=tuple(size["heads"]), num_frames=size["frames"])


def load_unet(folder):
    from diffusers import UNetSpatioTemporalConditionModel
    model = UNetSpatioTemporalConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    return model.to(store.DTYPE).eval().requires_grad_(False)


def load_lora(unet, folder):
    """The unet with its adapter, and the adapter's matrices by their keys in adapter_model.safetensors."""
    from peft import PeftModel
    model = PeftModel.from_pretrained(unet, folder, is_trainable=True).to(store.DTYPE)
    return model, {name.replace(".default.", "."): p for name, p in model.named_parameters() if p.requires_grad}


class UnetSvd:
    size = dict(channels=(64, 96), heads=(1, 3), attn="10", layers=2, transformer_layers=1, context=48, time_dim=32,
                batch=2, frames=3, hw=(8, 12), f16=0,
                weights=r"\.(to_q|to_k|to_v|to_out\.0)\.weight$|mix_factor$|^conv_in\.|^conv_out\.|^up_blocks\.1\.resnets\.2\.")

    def make(self, folder, rng, size):
        from diffusers import UNetSpatioTemporalConditionModel
        model = store.randomise(UNetSpatioTemporalConditionModel(**unet_config(size)), rng)
        model.save_pretrained(folder)
        if size["f16"]:
            store.to_half(folder)
        case = Case(folder)
        self.inputs(case, rng, size)
        case.meta = {"case": "unet_svd", "about": "SVD's denoiser: outputs, input gradients, and the gradients of some weights",
                     "calls": [call("", "unet(sample, timestep, encoder_hidden_states, added_time_ids)", {},
                                    ["in." + n for n in UNET_IN], ["out.sample"], ["cot.sample"],
                                    ["grad.in." + n for n in UNET_IN] + ["grad.w.*"])],
                     "model": ".", "class": "UNetSpatioTemporalConditionModel", "norm_eps": store.norm_eps(model),
                     "weights_with_gradient": size["weights"]}
        return case

    @staticmethod
    def inputs(case, rng, size):
        batch, frames, (h, w) = size["batch"], size["frames"], size["hw"]
        case.t["in.sample"] = rng.normal(batch, frames, 8, h, w)
        case.t["in.timestep"] = rng.uniform(1, low=-1.5, high=1.6)
        case.t["in.encoder_hidden_states"] = rng.normal(batch, 1, size["context"])
        ids = torch.tensor([6.0, 127.0, 0.02], dtype=torch.float64) + torch.arange(batch)[:, None] * torch.tensor([1.0, -30.0, 0.01], dtype=torch.float64)
        case.t["in.added_time_ids"] = ids.float().double()
        case.t["cot.sample"] = rng.normal(batch, frames, 4, h, w)

    def run(self, case):
        model = load_unet(case.path("model"))
        wrt = {"in." + n: case.t["in." + n].clone().requires_grad_() for n in UNET_IN}
        if "lora" in case.meta:
            model, lora = load_lora(model, case.path("lora"))
            wrt.update({"lora." + key: p for key, p in lora.items()})
        else:
            for key, p in model.named_parameters():
                if re.search(case.meta["weights_with_gradient"], key):
                    wrt["w." + key] = p.requires_grad_()
        out = model(*(wrt["in." + n] for n in UNET_IN)).sample
        found = gradients([(out, case.t["cot.sample"])], wrt)
        return {"out.sample": out, **{"grad." + name: g for name, g in found.items()}}


class UnetSvdLora(UnetSvd):
    """Adapter on the model of another case's folder (`model`, relative), with fresh inputs."""
    size = dict(model="../unet_svd", rank=4, alpha=8, targets=("to_q", "to_k", "to_v", "to_out.0"), rslora=0, batch=2,
                frames=3, hw=(8, 12))

    def make(self, folder, rng, size):
        from peft import LoraConfig, get_peft_model
        unet = load_unet(Path(folder) / size["model"]).float()
        config = LoraConfig(r=size["rank"], lora_alpha=size["alpha"], target_modules=list(size["targets"]),
                            use_rslora=bool(size["rslora"]))
        model = get_peft_model(unet, config)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_" in name:
                    p.copy_(rng.normal(*p.shape, scale=p.shape[1] ** -0.5 * (0.5 if "lora_B" in name else 1.0)))
        model.save_pretrained(folder)
        (Path(folder) / "README.md").unlink(missing_ok=True)        # a blank model card
        path = Path(folder) / "adapter_config.json"                 # target_modules is a set there, in any order
        path.write_text(json.dumps({k: sorted(x) if k == "target_modules" else x for k, x in json.loads(path.read_text()).items()}, indent=2))
        case = Case(folder)
        self.inputs(case, rng, {**size, "context": unet.config.cross_attention_dim})
        scale = "lora_alpha / sqrt(r)" if size["rslora"] else "lora_alpha / r"
        case.meta = {"case": "unet_svd_lora", "about": "the same denoiser with a LoRA: gradients of all A and B",
                     "calls": [call("", "unet with adapter(sample, timestep, encoder_hidden_states, added_time_ids)", {},
                                    ["in." + n for n in UNET_IN], ["out.sample"], ["cot.sample"],
                                    ["grad.in." + n for n in UNET_IN] + ["grad.lora.*"])],
                     "model": size["model"], "lora": ".", "class": "UNetSpatioTemporalConditionModel",
                     "lora_formula": f"y = W x + b + ({scale}) B (A x)"}
        return case


# ---- VAE -----------------------------------------------------------------------------------------------------

def load_vae(folder):
    from diffusers import AutoencoderKLTemporalDecoder
    model = AutoencoderKLTemporalDecoder.from_pretrained(folder, torch_dtype=torch.float32)
    return model.to(store.DTYPE).eval().requires_grad_(False)


class VaeTemporal:
    size = dict(channels=(64, 64), layers=2, frames=3, images=2, hw=(8, 12), scaling_factor=0.18215, f16=0)

    def make(self, folder, rng, size):
        from diffusers import AutoencoderKLTemporalDecoder
        channels, (h, w) = tuple(size["channels"]), size["hw"]
        up = 2 ** (len(channels) - 1)
        model = AutoencoderKLTemporalDecoder(block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * len(channels),
                                             layers_per_block=size["layers"], latent_channels=4, sample_size=up * h,
                                             scaling_factor=size["scaling_factor"], force_upcast=True)
        store.randomise(model, rng).save_pretrained(folder)
        if size["f16"]:
            store.to_half(folder)
        case = Case(folder)
        case.t["in.encode.image"] = rng.uniform(size["images"], 3, up * h, up * w, low=-1.0)
        case.t["cot.encode.latent"] = rng.normal(size["images"], 4, h, w)
        calls = [call("encode", "vae.encode(image).latent_dist.mode()", {"note": "image in [-1, 1]; not multiplied by scaling_factor"},
                      ["in.encode.image"], ["out.encode.latent"], ["cot.encode.latent"], ["grad.in.encode.image"])]
        for name, frames in (("decode", size["frames"]), ("decode1", 1)):
            case.t[f"in.{name}.z"] = rng.normal(frames, 4, h, w)
            case.t[f"cot.{name}.frames"] = rng.normal(frames, 3, up * h, up * w)
            calls.append(call(name, f"vae.decode(z, num_frames={frames}).sample",
                              {"num_frames": frames, "note": "z is the latent already divided by scaling_factor"},
                              [f"in.{name}.z"], [f"out.{name}.frames"], [f"cot.{name}.frames"], [f"grad.in.{name}.z"]))
        case.meta = {"case": "vae_temporal", "about": "SVD's VAE: encoder (mode of the posterior), temporal decoder of several frames and of one",
                     "calls": calls, "model": ".", "class": "AutoencoderKLTemporalDecoder", "norm_eps": store.norm_eps(model)}
        return case

    def run(self, case):
        model, results = load_vae(case.path("model")), {}
        for c in case.meta["calls"]:
            (source,), (target,) = c["in"], c["out"]
            x = case.t[source].clone().requires_grad_()
            y = model.encode(x).latent_dist.mode() if c["name"] == "encode" else model.decode(x, num_frames=c["args"]["num_frames"]).sample
            results[target] = y
            results["grad." + source] = gradients([(y, case.t[target.replace("out.", "cot.", 1)])], {"x": x})["x"]
        return results


# ---- CLIP and the aesthetic head -----------------------------------------------------------------------------

def make_clip(folder, rng, size):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    config = CLIPVisionConfig(hidden_size=size["hidden"], intermediate_size=size["mlp"], num_hidden_layers=size["layers"],
                              num_attention_heads=size["heads"], patch_size=size["patch"], image_size=size["image"],
                              projection_dim=size["projection"], hidden_act=size["act"])
    model = store.randomise(CLIPVisionModelWithProjection(config), rng)
    model.save_pretrained(folder)
    return model


def load_clip(folder):
    from transformers import CLIPVisionModelWithProjection
    model = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.to(store.DTYPE).eval().requires_grad_(False)


class ClipVision:
    size = dict(hidden=64, mlp=96, layers=2, heads=4, patch=14, image=224, projection=48, act="gelu", hw=(704, 48), batch=1)

    def make(self, folder, rng, size):
        model = make_clip(folder, rng, size)
        case = Case(folder)
        case.t["in.image"] = rng.smooth(size["batch"], 3, *size["hw"])
        case.t["cot.image_embeds"] = rng.normal(size["batch"], size["projection"])
        side = [size["image"]] * 2
        case.meta = {"case": "clip_vision", "about": "image conditioning: antialiased resize of a raw image, and CLIP vision embeddings",
                     "calls": [call("", f"resized = (_resize_with_antialiasing(2 image - 1, {side}) + 1) / 2; "
                                    "image_embeds = clip((resized - mean) / std).image_embeds",
                                    {"size": side, "mean": CLIP_MEAN, "std": CLIP_STD, "note": "image (B, 3, H, W) in [0, 1]; the resize "
                                     "alone: in.image -> out.resized, and back grad.out.resized -> grad.in.image"},
                                    ["in.image"], ["out.resized", "out.image_embeds"], ["cot.image_embeds"],
                                    ["grad.in.image", "grad.out.resized"])],
                     "model": ".", "class": "CLIPVisionModelWithProjection", "norm_eps": store.norm_eps(model)}
        return case

    def run(self, case):
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
        model, args = load_clip(case.path("model")), case.meta["calls"][0]["args"]
        image = case.t["in.image"].clone().requires_grad_()
        resized = (_resize_with_antialiasing(2 * image - 1, args["size"]) + 1) / 2
        embeds = model(pixel_values=normalise(resized, args["mean"], args["std"])).image_embeds
        found = gradients([(embeds, case.t["cot.image_embeds"])], {"in.image": image, "out.resized": resized})
        return {"out.resized": resized, "out.image_embeds": embeds, **{"grad." + n: g for n, g in found.items()}}


class Aesthetic:
    size = dict(hidden=64, mlp=96, layers=2, heads=4, patch=14, image=56, projection=32, act="quick_gelu", hw=(40, 90), batch=2,
                head=(40, 24, 12, 6, 1))
    layers = (0, 2, 4, 6, 7)        # the numbers between are dropouts

    def make(self, folder, rng, size):
        folder = Path(folder)
        model = make_clip(folder / "clip", rng, size)
        widths, head = (size["projection"], *size["head"]), {}
        for layer, n_in, n_out in zip(self.layers, widths, widths[1:]):
            head[f"layers.{layer}.weight"] = rng.normal(n_out, n_in, scale=n_in ** -0.5).float()
            head[f"layers.{layer}.bias"] = rng.normal(n_out, scale=0.3).float()
        (folder / "head").mkdir(exist_ok=True)
        save_file(head, folder / "head" / "model.safetensors", metadata={"format": "pt"})
        case = Case(folder)
        case.t["in.pixels"] = rng.smooth(size["batch"], 3, *size["hw"])
        case.t["cot.score"] = rng.normal(size["batch"])
        case.meta = {"case": "aesthetic", "about": "aesthetic score: squash resize, CLIP vision, L2 norm, five linear layers; pixel gradient",
                     "calls": [call("", "pixel_values = (resize(pixels) - mean) / std; score = head(e / |e|), e = clip(pixel_values).image_embeds",
                                    {"resize": [size["image"]] * 2, "resize_mode": "bilinear, antialias, align_corners false, aspect ratio not kept",
                                     "mean": CLIP_MEAN, "std": CLIP_STD},
                                    ["in.pixels"], ["out.score", "out.image_embeds", "out.pixel_values"], ["cot.score"],
                                    ["grad.in.pixels", "grad.out.pixel_values"])],
                     "clip": "clip", "head": "head", "class": "CLIPVisionModelWithProjection", "norm_eps": store.norm_eps(model),
                     "note": "pixels (N, 3, H, W) in [0, 1]; head: layers.0, 2, 4, 6, 7, no activation between them"}
        return case

    def run(self, case):
        model, args = load_clip(case.path("clip")), case.meta["calls"][0]["args"]
        head = {key: x.to(store.DTYPE) for key, x in load_file(case.path("head") / "model.safetensors").items()}
        pixels = case.t["in.pixels"].clone().requires_grad_()
        values = normalise(resize(pixels, args["resize"]), args["mean"], args["std"])
        embeds = model(pixel_values=values).image_embeds
        x = embeds / embeds.norm(dim=-1, keepdim=True)
        for layer in self.layers:
            x = torch.nn.functional.linear(x, head[f"layers.{layer}.weight"], head[f"layers.{layer}.bias"])
        found = gradients([(x, case.t["cot.score"])], {"in.pixels": pixels, "out.pixel_values": values})
        return {"out.score": x[:, 0], "out.image_embeds": embeds, "out.pixel_values": values, **{"grad." + n: g for n, g in found.items()}}


# ---- VideoMAE ------------------------------------------------------------------------------------------------

def load_videomae(folder):
    from transformers import VideoMAEForVideoClassification
    model = VideoMAEForVideoClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.to(store.DTYPE).eval().requires_grad_(False)


class VideoMae:
    size = dict(hidden=48, mlp=96, layers=2, heads=4, patch=8, tubelet=2, image=24, frames=4, labels=5, target=2, batch=2,
                mean_pooling=1)

    def make(self, folder, rng, size):
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification
        config = VideoMAEConfig(image_size=size["image"], patch_size=size["patch"], num_frames=size["frames"], tubelet_size=size["tubelet"],
                                hidden_size=size["hidden"], num_hidden_layers=size["layers"], num_attention_heads=size["heads"],
                                intermediate_size=size["mlp"], num_labels=size["labels"], use_mean_pooling=bool(size["mean_pooling"]))
        model = store.randomise(VideoMAEForVideoClassification(config), rng)
        model.save_pretrained(folder)
        case, t, target = Case(folder), None, size["target"]
        image = size["image"] if isinstance(size["image"], (list, tuple)) else (size["image"],) * 2
        case.t["in.pixel_values"] = rng.normal(size["batch"], size["frames"], 3, *image)
        case.t["cot.logits.logits"] = rng.normal(size["batch"], size["labels"])
        case.t["cot.prob.prob"] = rng.normal(size["batch"])
        case.t["cot.ce.loss"] = rng.normal(1)
        one = lambda name, run, out, args: call(name, run, args, ["in.pixel_values"], [f"out.{name}.{out}"], [f"cot.{name}.{out}"],
                                                [f"grad.in.{name}.pixel_values"])
        case.meta = {"case": "videomae", "about": "video classifier: logits, probability of one class, cross-entropy",
                     "calls": [one("logits", "videomae(pixel_values).logits", "logits", {}),
                               one("prob", f"softmax(logits)[:, {target}]", "prob", {"class": target}),
                               one("ce", f"cross_entropy(logits, class {target}), mean over the batch", "loss", {"class": target})],
                     "model": ".", "class": "VideoMAEForVideoClassification", "norm_eps": store.norm_eps(model),
                     "note": "pixel_values (B, frames, 3, H, W), already normalised"}
        return case

    def run(self, case):
        model, results = load_videomae(case.path("model")), {}
        for c in case.meta["calls"]:
            x = case.t["in.pixel_values"].clone().requires_grad_()
            y = model(x).logits
            if c["name"] == "prob":
                y = torch.softmax(y, dim=-1)[:, c["args"]["class"]]
            elif c["name"] == "ce":
                y = torch.nn.functional.cross_entropy(y, torch.full((len(x),), c["args"]["class"]))
            (target,), (grad,) = c["out"], c["grad"]
            results[target] = y
            results[grad] = gradients([(y, case.t[target.replace("out.", "cot.", 1)])], {"x": x})["x"]
        return results


# ---- V-JEPA --------------------------------------------------------------------------------------------------

class VJepa:
    size = dict(crop=32, patch=8, frames=8, tubelet=2, dim=96, depth=3, heads=6, pred_dim=48, pred_depth=2, uniform_power=1,
                loss_exp=1.0, batch=2)

    def make(self, folder, rng, size):
        config = {"model_type": "vjepa", "crop_size": size["crop"], "patch_size": size["patch"], "num_frames": size["frames"],
                  "tubelet_size": size["tubelet"], "embed_dim": size["dim"], "depth": size["depth"], "num_heads": size["heads"],
                  "mlp_ratio": 4.0, "pred_embed_dim": size["pred_dim"], "pred_depth": size["pred_depth"],
                  "uniform_power": bool(size["uniform_power"]), "use_mask_tokens": True, "num_mask_tokens": 2, "loss_exp": size["loss_exp"]}
        weights = {}
        for key, shape in jepa.shapes(config).items():
            if "pos_embed" in key:
                weights[key] = jepa.sincos_table(shape[-1], jepa.grid_of(config), config["uniform_power"])
            elif key.startswith("target_encoder."):         # an average that lags behind the encoder
                source = weights[key.removeprefix("target_")]
                weights[key] = source + 0.3 * source.std() * rng.normal(*shape)
            elif "norm" in key and key.endswith(".weight"):
                weights[key] = rng.normal(*shape, scale=0.2, mean=1.0)
            else:
                fan_in = weights_fan_in(shape)
                weights[key] = rng.normal(*shape, scale=fan_in ** -0.5 if key.endswith(".weight") else 0.2)
        save_file({key: x.float().contiguous() for key, x in weights.items()}, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        case, masks = Case(folder), jepa.sample_masks(config, size["batch"], rng.generator)
        crop = size["crop"] if isinstance(size["crop"], (list, tuple)) else (size["crop"],) * 2
        case.t["in.clips"] = rng.normal(size["batch"], 3, size["frames"], *crop)
        for j, (context, predicted) in enumerate(masks):
            case.t[f"in.masks_enc.{j}"], case.t[f"in.masks_pred.{j}"] = context, predicted
        case.t["cot.loss"] = rng.normal(1)
        names = ["in.clips"] + [f"in.masks_{kind}.{j}" for kind in ("enc", "pred") for j in range(len(masks))]
        outs = ["out.loss", "out.h"] + [f"out.z.{j}" for j in range(len(masks))]
        power = "" if size["loss_exp"] == 1 else f"^{size['loss_exp']:g} / {size['loss_exp']:g}"
        text = (f"loss = 1/2 sum_j mean |z_j - h[masks_pred_j]|{power},  z_j = predictor(encoder(clips, masks_enc_j), masks_enc_j, masks_pred_j, "
                "mask token j),  h = layer_norm(target_encoder(clips)) without gain and bias, eps 1e-5")
        case.meta = {"case": "vjepa", "about": "V-JEPA's masked loss and its pixel gradient, with and without gradient through the target",
                     "calls": [call(name, text, {"gradient_through_target": through}, names, outs, ["cot.loss"], [f"grad.in.{name}.clips"])
                               for name, through in (("stop_target", False), ("full", True))],
                     "model": ".", "class": "VisionTransformer, VisionTransformerPredictor",
                     "norm_eps": {f"{tower}.{name}": 1e-6 for tower, names in
                                  (("encoder", ("blocks.*.norm1", "blocks.*.norm2", "norm")),
                                   ("predictor", ("predictor_blocks.*.norm1", "predictor_blocks.*.norm2", "predictor_norm")),
                                   ("target_encoder", ("blocks.*.norm1", "blocks.*.norm2", "norm"))) for name in names},
                     "note": "clips (B, 3, T, H, W), already normalised; masks index tokens in (t, h, w) order; keys are those of the "
                             "released checkpoints (encoder / predictor / target_encoder dictionaries, each key starting with module.backbone.)"}
        return case

    def run(self, case):
        folder = case.path("model")
        config = json.loads((folder / "config.json").read_text())
        w = {key: x.to(store.DTYPE) for key, x in load_file(folder / "model.safetensors").items()}
        masks = [(case.t[f"in.masks_enc.{j}"], case.t[f"in.masks_pred.{j}"]) for j in range(2)]
        results = {}
        for c in case.meta["calls"]:
            clips = case.t["in.clips"].clone().requires_grad_()
            loss, h, z = jepa.masked_loss(w, config, clips, masks, c["args"]["gradient_through_target"])
            results.update({"out.loss": loss, "out.h": h, **{f"out.z.{j}": x for j, x in enumerate(z)}})
            results[c["grad"][0]] = gradients([(loss, case.t["cot.loss"])], {"clips": clips})["clips"]
        case.meta["smallest_abs_difference"] = min((z[j] - jepa.gather(h, masks[j][1])).abs().min().item() for j in range(2))
        return results


def weights_fan_in(shape):
    total = 1
    for n in shape[1:]:
        total *= n
    return total


# ---- Scheduler -----------------------------------------------------------------------------------------------

def make_scheduler(folder, sigma_min=0.002, sigma_max=700.0):
    from diffusers import EulerDiscreteScheduler
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
                                       use_karras_sigmas=True, sigma_min=sigma_min, sigma_max=sigma_max, timestep_type="continuous",
                                       timestep_spacing="leading", steps_offset=1)
    scheduler.save_pretrained(folder)


def load_schedule(folder, steps):
    """(scheduler, sigmas with the final 0, timesteps), the numbers as the library has them in float32."""
    from diffusers import EulerDiscreteScheduler
    scheduler = EulerDiscreteScheduler.from_pretrained(folder)
    scheduler.set_timesteps(steps)
    return scheduler, scheduler.sigmas.to(store.DTYPE), scheduler.timesteps.to(store.DTYPE)


def euler_step(x, v, now, then):
    """One step from sigma `now` to `then`: (x', clean)."""
    clean = x / (now ** 2 + 1) - v * now / (now ** 2 + 1) ** 0.5
    return x + (then - now) * (x - clean) / now, clean


class Euler:
    size = dict(steps=5, tables=(5, 10, 25), sigma_min=0.002, sigma_max=700.0, latent=(1, 3, 4, 4, 6))

    def make(self, folder, rng, size):
        make_scheduler(folder, size["sigma_min"], size["sigma_max"])
        case, n = Case(folder), size["steps"]
        case.t["in.loop.noise"] = rng.normal(*size["latent"])
        for i in range(n):
            case.t[f"in.loop.v.{i}"] = rng.normal(*size["latent"])
        case.t[f"cot.loop.latents.{n}"] = rng.normal(*size["latent"])
        tables = [call(f"n{k}", f"set_timesteps({k})", {"num_inference_steps": k}, [],
                       [f"out.n{k}.{name}" for name in ("sigmas", "timesteps", "c_in", "coef_x", "coef_v", "init_noise_sigma")])
                  for k in size["tables"]]
        names = ["in.loop.noise"] + [f"in.loop.v.{i}" for i in range(n)]
        outs = [f"out.loop.{what}.{i}" for i in range(n) for what in ("latents", "model_input", "clean")] + [f"out.loop.latents.{n}"]
        loop = call("loop", f"latents.0 = noise * init_noise_sigma; {n} steps with the given predictions v.i; latents.i: before step i; "
                    "clean.i: predicted clean sample", {"num_inference_steps": n}, names, outs, [f"cot.loop.latents.{n}"],
                    ["grad." + name for name in names])
        case.meta = {"case": "euler", "about": "SVD's scheduler: noise levels, time steps, coefficients, and one loop over given predictions",
                     "calls": tables + [loop], "scheduler": "scheduler_config.json", "class": "EulerDiscreteScheduler",
                     "note": "out.n<N>.*: sigmas (N+1, the last is 0) and timesteps as the library has them, in float32; from those sigmas in "
                             "float64: c_in = 1/sqrt(s^2+1) scales the model input, and x' = coef_x x + coef_v v"}
        return case

    def run(self, case):
        results = {}
        for c in case.meta["calls"]:
            n = c["args"]["num_inference_steps"]
            scheduler, s, t = load_schedule(case.folder, n)
            if c["name"] != "loop":
                one = torch.ones(n, dtype=store.DTYPE)
                values = {"sigmas": s, "timesteps": t, "c_in": (s[:-1] ** 2 + 1) ** -0.5,
                          "coef_x": torch.stack([euler_step(one[i], 0 * one[i], s[i], s[i + 1])[0] for i in range(n)]),
                          "coef_v": torch.stack([euler_step(0 * one[i], one[i], s[i], s[i + 1])[0] for i in range(n)]),
                          "init_noise_sigma": (s[0] ** 2 + 1).sqrt().reshape(1)}
                results.update({f"out.{c['name']}.{name}": x for name, x in values.items()})
                continue
            wrt = {name: case.t[name].clone().requires_grad_() for name in c["in"]}
            x = wrt["in.loop.noise"] * (s[0] ** 2 + 1).sqrt()
            for i in range(n):
                results[f"out.loop.latents.{i}"], results[f"out.loop.model_input.{i}"] = x, x * (s[i] ** 2 + 1) ** -0.5
                v = wrt[f"in.loop.v.{i}"]
                library = scheduler.step(v.detach(), scheduler.timesteps[i], x.detach())
                x, results[f"out.loop.clean.{i}"] = euler_step(x, v, s[i], s[i + 1])
                for ours, theirs in ((x, library.prev_sample), (results[f"out.loop.clean.{i}"], library.pred_original_sample)):
                    assert (ours - theirs.double()).norm() <= 2e-6 * ours.norm() + 1e-4 * v.norm() * (s[i] > 10), "the library steps otherwise"
            results[f"out.loop.latents.{n}"] = x
            found = gradients([(x, case.t[c["grad_of"][0]])], wrt)
            results.update({"grad." + name: g for name, g in found.items()})
        return results


# ---- The whole chain -----------------------------------------------------------------------------------------

class PipelineStep:
    size = dict(unet="../unet_svd", lora="../unet_svd_lora", vae="../vae_temporal", videomae="../videomae",
                scheduler="../euler/scheduler_config.json", steps=5, guidance=(1.0, 3.0), hw=(8, 14), target=2, batch=1,
                windows="k1_mid:3 k2_last:3,4 k2_mid:2,3 k1_last:4 predict:3")

    def make(self, folder, rng, size):
        folder = Path(folder)
        read = lambda where: json.loads((folder / size[where] / "config.json").read_text())
        unet, vae, videomae = read("unet"), read("vae"), read("videomae")
        case, batch, frames, (h, w) = Case(folder), size["batch"], videomae["num_frames"], size["hw"]
        case.t["in.noise"] = rng.normal(batch, frames, 4, h, w)
        case.t["in.image_latents"] = rng.normal(batch, 4, h, w, scale=0.5)
        case.t["in.image_embeds"] = rng.normal(batch, 1, unet["cross_attention_dim"])
        case.t["in.added_time_ids"] = torch.tensor([[6.0, 127.0, 0.02]], dtype=torch.float64).float().double().repeat(batch, 1)
        case.t["cot.R"], case.t["cot.predict.R"] = rng.normal(batch), rng.normal(batch)
        windows = [(name, [int(i) for i in steps.split(",")]) for name, steps in (item.split(":") for item in size["windows"].split())]
        inputs, calls, n = ["in.noise", "in.image_latents", "in.image_embeds", "in.added_time_ids"], [], size["steps"]
        for name, window in windows:
            args = {"window": window, "finish": "predict" if name == "predict" else "denoise", "x_K": f"out.latents.{window[0]}"}
            at = "predict." if name == "predict" else ""
            outs = [f"out.{what}.{i}" for i in range(n) for what in ("latents", "v")] if not at else []
            outs += [f"out.{at}{what}" for what in ("x_0", "frames", "log_prob", "R")]
            run = ("the window's own predicted clean sample is decoded; no later step is run" if at else
                   "gradient enters the predictions of the window's steps only; later predictions are constants, but the later updates "
                   "still carry gradient through their linear part")
            calls.append(call(name, f"K = {len(window)}: {run}", args, inputs, outs, [f"cot.{at}R"],
                              [f"grad.out.{at}x_0", f"grad.out.{at}frames", f"grad.lora.{name}.*"]))
        low, high = size["guidance"]
        side = videomae["image_size"] if isinstance(videomae["image_size"], list) else [videomae["image_size"]] * 2
        case.meta = {"case": "pipeline_step", "about": "the whole chain: denoise with guidance, decode, reward; gradient of the reward inside a window of steps",
                     "calls": calls, "class": "the models of the cases above", "model": size["unet"], "lora": size["lora"], "vae": size["vae"],
                     "videomae": size["videomae"], "scheduler": size["scheduler"], "num_inference_steps": n,
                     "guidance": {"min": low, "max": high}, "num_frames": frames, "scaling_factor": vae["scaling_factor"],
                     "reward": {"class": size["target"], "R": "softmax(logits)[class]; d log_prob = dR / R", "resize": side,
                                "resize_mode": "bilinear, antialias, align_corners false, aspect ratio not kept", "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
                     "steps": ["x = noise * sqrt(sigma_0^2 + 1)",
                               "for each i: v_u, v_c = unet([x / sqrt(sigma_i^2 + 1), image_latents on every frame], t_i, image_embeds, added_time_ids), "
                               "where the unconditional half has zeros for image_latents and image_embeds; v = v_u + g_f (v_c - v_u), "
                               "g = linspace(min, max, num_frames); when max <= 1 there is no unconditional half and v = v_c",
                               "clean = x / (sigma_i^2 + 1) - v sigma_i / sqrt(sigma_i^2 + 1);  x = x + (sigma_{i+1} - sigma_i) (x - clean) / sigma_i",
                               "frames = clamp(vae.decode(x_0 / scaling_factor, all frames) / 2 + 0.5, 0, 1), shape (B, frames, 3, H, W)",
                               "R = softmax(videomae(normalise(resize(frames))))[class]"],
                     "note": "out.latents.i: before step i; out.v.i: guided prediction; x_K = latents before the first step of the window, no gradient "
                             "flows through it (out.x_K is that of the first call). Forward values are common to all calls but predict, and so are "
                             "grad.out.frames and grad.out.x_0; grad.lora.<call>.<key> = d(cot R)/d(adapter key)"}
        return case

    def run(self, case):
        meta, t = case.meta, case.t
        unet, lora = load_lora(load_unet(case.path("model")), case.path("lora"))
        vae, videomae = load_vae(case.path("vae")), load_videomae(case.path("videomae"))
        n, frames = meta["num_inference_steps"], meta["num_frames"]
        _, s, times = load_schedule(case.path("scheduler").parent, n)
        low, high = meta["guidance"]["min"], meta["guidance"]["max"]
        g = torch.linspace(low, high, frames, dtype=store.DTYPE).reshape(1, frames, 1, 1, 1)
        image = t["in.image_latents"].unsqueeze(1).expand(-1, frames, -1, -1, -1)
        context, ids = t["in.image_embeds"], t["in.added_time_ids"]
        margin = []

        def predict(x, i):
            half = lambda picture, embed: torch.cat([x * (s[i] ** 2 + 1) ** -0.5, picture], dim=2)
            if high <= 1:
                return unet(half(image, context), times[i:i + 1], context, ids).sample
            both = torch.cat([half(0 * image, context), half(image, context)])
            v_u, v_c = unet(both, times[i:i + 1], torch.cat([0 * context, context]), torch.cat([ids, ids])).sample.chunk(2)
            return v_u + g * (v_c - v_u)

        def reward(x_0):
            raw = vae.decode(x_0.flatten(0, 1) / meta["scaling_factor"], num_frames=frames).sample
            raw = (raw / 2 + 0.5).reshape(-1, frames, *raw.shape[1:])
            margin.append(torch.minimum(raw.abs(), (raw - 1).abs()).min().item())
            pixels, r = raw.clamp(0, 1), meta["reward"]
            pixels.retain_grad()
            log_prob = torch.log_softmax(videomae(normalise(resize(pixels, r["resize"]), r["mean"], r["std"])).logits, dim=-1)[:, r["class"]]
            return pixels, log_prob, log_prob.exp()

        def outputs(at, x_0, cot):
            leaf = x_0.detach().requires_grad_()
            pixels, log_prob, R = reward(leaf)
            (R * cot).sum().backward()
            return {f"out.{at}x_0": leaf, f"out.{at}frames": pixels, f"out.{at}log_prob": log_prob, f"out.{at}R": R,
                    f"grad.out.{at}x_0": leaf.grad, f"grad.out.{at}frames": pixels.grad}

        results, latents, values = {}, [t["in.noise"] * (s[0] ** 2 + 1).sqrt()], []
        with torch.no_grad():
            for i in range(n):
                values.append(predict(latents[i], i))
                latents.append(euler_step(latents[i], values[i], s[i], s[i + 1])[0])
        for i in range(n):
            results[f"out.latents.{i}"], results[f"out.v.{i}"] = latents[i], values[i]
        results.update(outputs("", latents[n], t["cot.R"]))
        for c in meta["calls"]:
            window, at = c["args"]["window"], ""
            results.setdefault("out.x_K", latents[window[0]])
            x = latents[window[0]].detach()
            for i in range(window[0], n):
                v = predict(x, i) if i in window else values[i]
                x, clean = euler_step(x, v, s[i], s[i + 1])
                if c["args"]["finish"] == "predict" and i == window[-1]:
                    x, at = clean, "predict."
                    results.update(outputs(at, x, t["cot.predict.R"]))
                    break
            found = gradients([(x, results[f"grad.out.{at}x_0"])], lora)
            results.update({f"grad.lora.{c['name']}.{key}": grad for key, grad in found.items()})
        meta["sigmas"], meta["timesteps"] = s.tolist(), times.tolist()
        meta["smallest_distance_to_clamp"] = min(margin)
        return {name: x.detach() for name, x in results.items()}


# ---- Command line --------------------------------------------------------------------------------------------

CASES = {"unet_svd": UnetSvd(), "unet_svd_lora": UnetSvdLora(), "vae_temporal": VaeTemporal(), "clip_vision": ClipVision(),
         "videomae": VideoMae(), "vjepa": VJepa(), "euler": Euler(), "pipeline_step": PipelineStep(), "aesthetic": Aesthetic()}


def run(case):
    with store.double_embeddings():
        return {name: x.detach() for name, x in CASES[case.meta["case"]].run(case).items()}


def build(kind, folder, seed, **size):
    """Makes one case folder. A draw whose numbers float32 cannot reproduce comfortably is thrown away for another."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    unknown = set(size) - set(CASES[kind].size)
    if unknown:
        raise SystemExit(f"{kind} has no size {sorted(unknown)}, only {sorted(CASES[kind].size)}")
    for seed in range(seed, seed + 10000, 1000):
        case = CASES[kind].make(folder, Rng(seed), {**CASES[kind].size, **size})
        case.finish(run(case))
        complaint = ill_conditioned(folder)
        if not complaint:
            break
        print(f"{folder}: seed {seed}: {complaint}", flush=True)
    else:
        raise SystemExit(f"{folder}: no seed gives a well-conditioned case")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    total = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {kind}, seed {seed}, {total / 1e6:.2f} MB", flush=True)


def ill_conditioned(folder):
    """Why a case is a bad one, or "": a value beside a corner of clamp or |x|, or a float32 run of the library itself
    that uses up half of a tolerance (sums that cancel almost to nothing)."""
    import compare
    case = Case.load(folder)
    smooth = case.meta["case"] == "vjepa" and "^2" in case.meta["calls"][0]["run"]
    for corner in ("smallest_distance_to_clamp", "smallest_abs_difference"):
        if case.meta.get(corner, 1.0) < 2e-5 and not smooth:
            return f"{corner} is {case.meta[corner]:.1e}"
    if case.meta["case"] == "euler":        # its scalars are to be computed in float64
        return ""
    store.DTYPE = torch.float32
    try:
        stored = Case.load(folder)
        results = run(stored)
    finally:
        store.DTYPE = torch.float64
    failures = compare.differences(results, {k: x for k, x in case.t.items() if k.startswith(("out.", "grad."))},
                                   5e-6, 5e-5, 5e-4, 1e-6)[0]
    return failures[0] if failures else ""


def verify(folder, single):
    """Runs a stored folder again; True when every output is within 1e-6 and every gradient within 1e-5. With `single`
    it runs in float32 and the tolerances are those asked of a float32 implementation: they must be within reach."""
    import compare
    store.DTYPE = torch.float32 if single else torch.float64
    limits = {} if single else dict(tolerance_out=1e-6, tolerance_grad=1e-5, tolerance_mix=1e-4, zero=1e-9)
    case = Case.load(folder)
    stored = dict(case.t)
    case.t = case.inputs()
    results = run(case)
    return compare.report(str(folder), results, {k: x for k, x in stored.items() if k.startswith(("out.", "grad."))}, **limits)


def value_of(text):
    """3 -> int, 0.5 -> float, 8x12 or 64,96 -> tuple, anything else -> text."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", text):
        return float(text)
    if re.fullmatch(r"\d[\d.]*([x,][\d.]+)+", text):
        return tuple(value_of(part) for part in re.split("[x,]", text))
    return tuple(text.split(",")) if "," in text else text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", metavar="CASE")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--verify", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--float32", action="store_true", help="with --verify: run in float32, with the tolerances for it")
    parser.add_argument("--set", dest="collection", metavar="NAME")
    parser.add_argument("--only", default="", help="with --set: a regular expression over folder names")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("ORACLE_THREADS", "2")))
    if args.verify:
        sys.exit(not all([verify(folder, args.float32) for folder in args.verify if (folder / "case.json").exists()]))
    if not args.out:
        parser.error("--out DIR is missing")
    if args.collection:
        import sets
        for kind, name, seed, size in getattr(sets, args.collection.upper()):
            if re.search(args.only, name):
                build(kind, args.out / name, seed, **size)
        return
    size = {key: value_of(value) for key, value in (item.split("=", 1) for item in args.size)}
    for kind in args.case:
        if kind not in CASES:
            parser.error(f"no case {kind}: one of {', '.join(CASES)}")
        build(kind, args.out / kind, args.seed, **size)


if __name__ == "__main__":
    main()
