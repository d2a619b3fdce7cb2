// unet_svd: the denoiser of Stable Video Diffusion (UNetSpatioTemporalConditionModel of diffusers >= 0.28).
//
//     UnetSvdConfig cfg;
//     TRY(unet_svd_config(&cfg, part->config));
//     Tensor *v = unet_svd_build(&nn, &cfg, (UnetSvdIo){x, t, context, ids}, (UnetSvdOptions){0});
//     TRY(graph_check(nn.g));
//     TRY(params_finish(nn.params));
//
// Gradients reach every input and every weight that grad_build is asked for. The context is one token, so
// cross attention is to_out(to_v(context)), one vector per video and layer: to_q, to_k and norm2 are
// checked for shape and values and not computed with. An adapter's dropout there draws one mask per
// video, not per token.
#ifndef COMMON_MODEL_UNET_SVD_H
#define COMMON_MODEL_UNET_SVD_H

#include "common/format/json.h"
#include "common/model/nn.h"

enum { UNET_SVD_LEVELS_MAX = 8 };

// config.json; entries of a list are per level, outermost first.
typedef struct UnetSvdConfig {
    int in_channels, out_channels; // 8, 4
    int level_cnt;
    int channels[UNET_SVD_LEVELS_MAX];           // block_out_channels: multiples of 32
    int layers[UNET_SVD_LEVELS_MAX];             // layers_per_block; one more on the way up
    int heads[UNET_SVD_LEVELS_MAX];              // num_attention_heads
    int transformer_layers[UNET_SVD_LEVELS_MAX]; // transformer_layers_per_block
    bool down_attends[UNET_SVD_LEVELS_MAX];      // down_block_types: CrossAttn...
    bool up_attends[UNET_SVD_LEVELS_MAX];        // up_block_types, innermost first
    int context_dim;                             // cross_attention_dim
    int ids_dim; // addition_time_embed_dim: width of one id's embedding
    int ids_cnt; // projection_class_embeddings_input_dim / ids_dim
} UnetSvdConfig;

// Reads and checks every key; ERR_FORMAT names the file and the key.
Err unet_svd_config(UnetSvdConfig *out, Json *config);

typedef struct UnetSvdIo {
    Tensor *sample;   // (B, F, h, w, in_channels); h, w multiples of 2^(levels - 1)
    Tensor *timestep; // (B) or (1): 0.25 ln(sigma)
    Tensor *context;  // (B, 1, context_dim): the image embedding
    Tensor *time_ids; // (B, ids_cnt): fps - 1, motion bucket, noise augmentation
} UnetSvdIo;

typedef struct UnetSvdOptions {
    bool recompute; // one recompute segment per residual block and per transformer
} UnetSvdOptions;

// (B, F, h, w, out_channels); NULL with the graph's error set on failure.
Tensor *unet_svd_build(NN *nn, const UnetSvdConfig *cfg, UnetSvdIo io, UnetSvdOptions opt);

// The same as a DenoiseNet (denoise.h); self is one of these.
typedef struct UnetSvdDenoiser {
    UnetSvdConfig cfg;
    UnetSvdOptions opt;
} UnetSvdDenoiser;
Tensor *unet_svd_denoiser(const void *self, NN *nn, Tensor *sample, Tensor *timestep,
                          Tensor *context, Tensor *time_ids);

#endif
