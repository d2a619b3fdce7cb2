"""The collections that `golden.py --set` makes: rows of (case, folder name, seed, sizes).

COMMITTED is tests/golden (small; beside it lie cases that came with the specification). ASIDE is larger and not
kept: other architectures and corners, for checking by hand after a change.
"""
SMALL_WEIGHTS = r"attn1\.to_(q|v)\.weight$|attn2\.to_q\.weight$|mix_factor$|^conv_in\.|^conv_out\.|spatial_res_block\.norm1|(mid_block|blocks\.1)\..*time_emb_proj\.bias$|add_embedding\.linear_1\.bias"
UNET = dict(layers=1, weights=SMALL_WEIGHTS)

COMMITTED = [
    # three levels of 1, 2 and 3 channels per group, attention in the middle one (head dim 32) and below (head dim 24); float16 weights
    ("unet_svd", "unet_svd", 11, dict(UNET, f16=1, channels=(32, 64, 96), heads=(1, 2, 4), attn="010", context=20, time_dim=16, hw=(12, 8))),
    ("unet_svd_lora", "unet_svd_lora", 13, dict(rank=3, alpha=5, frames=4, hw=(4, 8))),
    ("vae_temporal", "vae_temporal", 14, dict(channels=(32, 64), frames=4, hw=(6, 10), scaling_factor=0.2, f16=1)),
    ("clip_vision", "clip_vision_p12", 15, dict(hidden=72, mlp=80, heads=3, patch=12, image=48, projection=20, act="quick_gelu", hw=(61, 110), batch=2)),
    ("videomae", "videomae_t3", 16, dict(hidden=72, mlp=100, heads=3, patch=10, tubelet=3, image=20, frames=6, labels=7, target=4)),
    ("vjepa", "vjepa_hd24", 17, dict(crop=32, patch=8, frames=6, dim=48, depth=2, heads=2, pred_dim=24, pred_depth=2)),
    ("euler", "euler_n7", 18, dict(steps=7, tables=(1, 2, 7), sigma_min=0.05, sigma_max=80.0, latent=(2, 3, 4, 3, 5))),
    ("aesthetic", "aesthetic_up", 19, dict(hidden=48, mlp=64, heads=2, patch=8, image=48, projection=24, head=(20, 16, 12, 8, 1), hw=(33, 77))),
    ("pipeline_step", "pipeline_step", 20, dict(videomae="../videomae_t3", scheduler="../euler_n7/scheduler_config.json", steps=4, guidance=(1.4, 2.2),
                                                hw=(8, 12), target=4, windows="k2_mid:1,2 k1_last:3 predict:1,2")),
]

ASIDE = [
    # architectures of the UNet: attention in every place, head dims 16 … 96, deeper transformers, wide contexts
    ("unet_svd", "unet_all_attn", 101, dict(channels=(64, 128), heads=(4, 2), attn="11", layers=1, context=96, hw=(6, 8))),
    ("unet_svd", "unet_no_attn_down", 102, dict(channels=(64, 96), heads=(2, 3), attn="00", layers=2, context=32, hw=(8, 6))),
    ("unet_svd", "unet_svd_like", 103, dict(channels=(64, 96, 128, 128), heads=(2, 3, 4, 4), attn="1110", layers=2, context=64, frames=3, hw=(8, 16), batch=1)),
    ("unet_svd", "unet_hd40", 104, dict(channels=(64, 160), heads=(1, 4), attn="11", layers=1, context=48, frames=5, hw=(4, 10))),
    ("unet_svd", "unet_hd80", 105, dict(channels=(96, 160), heads=(4, 2), attn="01", layers=2, context=128, frames=4, hw=(6, 4))),
    ("unet_svd", "unet_two_transformers", 106, dict(channels=(64, 96), heads=(2, 2), attn="10", layers=1, transformer_layers=2, hw=(6, 8))),
    ("unet_svd", "unet_batch3_frames14", 107, dict(channels=(64, 64), heads=(8, 8), attn="10", layers=1, batch=3, frames=14, hw=(4, 6))),
    # a latent that halves to odd sizes: the library then upsamples to the size of the skip
    ("unet_svd", "unet_odd_latent", 108, dict(channels=(64, 64, 96), heads=(2, 2, 3), attn="110", layers=1, frames=3, hw=(7, 10))),
    ("unet_svd", "unet_one_frame", 109, dict(channels=(64, 96), heads=(1, 3), attn="10", layers=1, frames=1, hw=(8, 8))),
    ("unet_svd", "unet_64_96", 116, dict(UNET, channels=(64, 96), heads=(2, 4), attn="10", context=40, time_dim=24, frames=3, hw=(6, 10))),
    ("unet_svd", "unet_deep", 117, dict(UNET, channels=(64, 64, 64), heads=(1, 2, 4), attn="010", context=20, time_dim=16, frames=4, hw=(12, 8))),
    ("unet_svd", "unet_32_96", 110, dict(weights=SMALL_WEIGHTS, channels=(32, 96), heads=(1, 3), attn="10", layers=2, frames=4, hw=(8, 12))),
    # adapters: few targets, alpha != r, rank-stabilised scale
    ("unet_svd_lora", "lora_qv_only", 111, dict(model="../unet_all_attn", rank=8, alpha=16, targets=("to_q", "to_v"), hw=(6, 4))),
    ("unet_svd_lora", "lora_like_svd", 112, dict(model="../unet_svd_like", rank=4, alpha=4, batch=1, frames=3, hw=(8, 8))),
    ("unet_svd_lora", "lora_rslora", 113, dict(model="../unet_hd40", rank=4, alpha=6, rslora=1, hw=(4, 6))),
    ("unet_svd_lora", "lora_deep", 114, dict(model="../unet_odd_latent", rank=2, alpha=7, frames=4, hw=(4, 8))),
    ("vae_temporal", "vae_3level", 121, dict(channels=(32, 64, 96), frames=5, hw=(4, 6))),
    ("vae_temporal", "vae_4level", 122, dict(channels=(32, 64, 64, 64), frames=3, images=1, hw=(4, 3))),
    ("vae_temporal", "vae_one_layer", 123, dict(channels=(64, 96), layers=1, frames=4, hw=(6, 5))),
    ("vae_temporal", "vae_three_layers", 124, dict(channels=(32, 64), layers=3, frames=2, hw=(5, 6))),
    ("clip_vision", "clip_p16_quick", 131, dict(hidden=64, heads=2, patch=16, act="quick_gelu", hw=(320, 512))),
    ("clip_vision", "clip_hd80_up", 132, dict(hidden=160, mlp=128, heads=2, patch=14, hw=(97, 150), batch=2)),
    ("clip_vision", "clip_svd_frame", 133, dict(hidden=64, heads=4, patch=14, hw=(576, 1024))),
    ("aesthetic", "aesthetic_224", 134, dict(hidden=64, heads=4, patch=14, image=224, projection=48, hw=(300, 180))),
    ("aesthetic", "aesthetic_gelu", 135, dict(hidden=48, heads=3, patch=14, image=70, act="gelu", hw=(70, 70), batch=1)),
    ("videomae", "videomae_no_pool", 141, dict(mean_pooling=0, hidden=64, heads=4)),
    ("videomae", "videomae_t1", 142, dict(tubelet=1, frames=3, patch=6, image=24, hidden=60, heads=5)),
    ("videomae", "videomae_t4_16frames", 143, dict(tubelet=4, frames=16, patch=16, image=48, hidden=96, heads=6, layers=3, labels=11, target=10)),
    ("videomae", "videomae_odd_frames", 144, dict(tubelet=2, frames=6, patch=7, image=28, hidden=32, heads=2, batch=1)),
    ("vjepa", "vjepa_not_uniform", 151, dict(uniform_power=0, crop=48, frames=4, dim=64, heads=4, pred_dim=32)),
    ("vjepa", "vjepa_hd80", 152, dict(dim=160, heads=2, pred_dim=48, depth=2, crop=48, patch=16, frames=8)),
    ("vjepa", "vjepa_square_loss", 153, dict(loss_exp=2.0, dim=72, heads=3, pred_dim=72)),
    ("vjepa", "vjepa_wide_clip", 154, dict(crop=(32, 56), frames=4, dim=48, heads=2, pred_dim=24, batch=1)),
    ("vjepa", "vjepa_tubelet1", 155, dict(tubelet=1, frames=3, dim=48, heads=4, pred_dim=24, batch=3)),
    ("euler", "euler_svd", 161, dict(steps=25, tables=(1, 3, 14, 25, 50))),
    ("euler", "euler_low_sigma", 162, dict(steps=6, tables=(6,), sigma_min=0.3, sigma_max=20.0)),
    # chains; on very small latents the group norms of the lower levels see a handful of numbers, and rounding grows
    ("pipeline_step", "pipe_no_guidance", 171, dict(unet="../unet_all_attn", lora="../lora_qv_only", vae="../vae_3level", videomae="../videomae_odd_frames",
                                                    scheduler="../euler_low_sigma/scheduler_config.json", steps=4, guidance=(1.0, 1.0), hw=(4, 6),
                                                    windows="k1_mid:2 all:0,1,2,3 predict:2")),
    ("pipeline_step", "pipe_whole_run", 172, dict(unet="../unet_svd_like", lora="../lora_like_svd", vae="../vae_4level", videomae="../videomae_t1",
                                                  scheduler="../euler_low_sigma/scheduler_config.json", steps=3, guidance=(1.0, 2.5), hw=(8, 8),
                                                  windows="all:0,1,2 k1_first:0 predict:0,1,2")),
    ("pipeline_step", "pipe_batch2", 173, dict(unet="../unet_all_attn", lora="../lora_qv_only", vae="../vae_one_layer", videomae="../videomae_t1",
                                               scheduler="../euler_low_sigma/scheduler_config.json", steps=4, guidance=(1.5, 2.0), hw=(6, 8), batch=2,
                                               windows="k1_mid:2 k2_mid:1,2 k1_last:3 k3_end:1,2,3 predict:2")),
]
