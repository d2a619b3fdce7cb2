// vae_temporal: the VAE of Stable Video Diffusion (AutoencoderKLTemporalDecoder), both ways.
//
//     VaeTemporalConfig cfg;
//     TRY(vae_temporal_config(&cfg, part->config));
//     Tensor *z = op_affine(g, x_0, 1 / cfg.scaling_factor, 0);          // the latents of the denoiser
//     Tensor *frames = vae_temporal_decode(&nn, &cfg, z, (VaeTemporalOptions){0});
//
// The frames of one decode call are one video: its GroupNorms and time convolutions span them and see zeros
// beyond the ends. Decoding a window of frames is therefore not a part of decoding all of them; a window of
// one frame is allowed. The encoder works on each image alone.
//
// A process that builds one half tells params so: params_ignore(p, VAE_TEMPORAL_ENCODER) and
// VAE_TEMPORAL_QUANT, or VAE_TEMPORAL_DECODER.
#ifndef COMMON_MODEL_VAE_TEMPORAL_H
#define COMMON_MODEL_VAE_TEMPORAL_H

#include "common/format/json.h"
#include "common/model/nn.h"

enum { VAE_TEMPORAL_LEVELS_MAX = 8 };

// Patterns for params_ignore.
#define VAE_TEMPORAL_ENCODER "encoder.*"
#define VAE_TEMPORAL_QUANT "quant_conv.*"
#define VAE_TEMPORAL_DECODER "decoder.*"

typedef struct VaeTemporalConfig {
    int in_channels, out_channels, latent_channels; // 3, 3, 4
    int level_cnt;
    int channels[VAE_TEMPORAL_LEVELS_MAX]; // block_out_channels, multiples of 32
    int layers;                            // layers_per_block; one more on the way up
    double scaling_factor; // latents of the denoiser = scaling_factor * z. The caller applies it
} VaeTemporalConfig;

// Reads and checks every key; ERR_FORMAT names the file and the key.
Err vae_temporal_config(VaeTemporalConfig *out, Json *config);

// Pixels per latent along H and W.
int vae_temporal_stride(const VaeTemporalConfig *cfg);

typedef struct VaeTemporalOptions {
    bool recompute; // one recompute segment per residual block
} VaeTemporalOptions;

// image (N, T, H, W, in_channels) in [-1, 1] -> mode of the posterior (N, T, h, w, latent_channels),
// unscaled. H and W must be multiples of the stride.
Tensor *vae_temporal_encode(NN *nn, const VaeTemporalConfig *cfg, Tensor *image,
                            VaeTemporalOptions opt);

// z (N, F, h, w, latent_channels), already divided by scaling_factor -> frames (N, F, H, W,
// out_channels), raw: about [-1, 1], not clamped.
Tensor *vae_temporal_decode(NN *nn, const VaeTemporalConfig *cfg, Tensor *z,
                            VaeTemporalOptions opt);

#endif
