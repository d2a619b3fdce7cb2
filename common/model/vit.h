// vit: the pre-norm transformer block that every vision tower here is made of.
//
//     x += proj(attention(norm1(x)));   x += fc2(act(fc1(norm2(x))))
//
// Families differ in what their keys are called, in which biases exist and in the activation; a VitKeys
// says the first two, so that one block serves CLIP, VideoMAE and V-JEPA (encoder and predictor).
// Attention is over all tokens, scaled by head_dim^-1/2; head_dim is width / heads, any number.
//
//     static const VitKeys KEYS = {.norm1 = "norm1", .qkv = "attn.qkv", ...};
//     VitBlock b = {&KEYS, .width = 1024, .hidden = 4096, .heads = 16, .eps = 1e-6, .act = UNARY_gelu_erf};
//     x = vit_blocks(nn, &b, "blocks", 24, recompute, x);    // (N, L, D)
#ifndef COMMON_MODEL_VIT_H
#define COMMON_MODEL_VIT_H

#include "common/format/json.h"
#include "common/model/nn.h"

// Names below the block's prefix. norm1, norm2, proj, fc1, fc2 and qkv have ".weight" and ".bias".
typedef struct VitKeys {
    const char *norm1, *norm2;
    const char *qkv;                      // one matrix (3D, D) in the order q, k, v; NULL: three
    const char *q, *k, *v;                // without qkv: the matrices, ".weight" follows
    const char *q_bias, *k_bias, *v_bias; // without qkv: whole names; NULL = no bias
    const char *proj, *fc1, *fc2;
} VitKeys;

typedef struct VitBlock {
    const VitKeys *keys;
    int64_t width, hidden; // D, and D of the MLP
    int heads;
    double eps;
    UnaryKind act;
} VitBlock;

// One block under the current prefix. x (N, L, D) -> (N, L, D).
Tensor *vit_block(NN *nn, const VitBlock *b, Tensor *x);

// Blocks "<stem>.0" to "<stem>.<depth-1>"; each is a recompute segment if asked.
Tensor *vit_blocks(NN *nn, const VitBlock *b, const char *stem, int depth, bool recompute,
                   Tensor *x);

// Cuts frames into tokens by a convolution whose stride is its kernel: x (N, T, H, W, C) -> (N, L, width),
// tokens in the order (t, h, w). "<name>.weight" is a Conv3d's (width, C, pt, ph, pw), with "<name>.bias";
// pt = 0 is for images: a Conv2d's (width, C, ph, pw) without bias.
Tensor *vit_patch_embed(NN *nn, const char *name, Tensor *x, int64_t width, int pt, int ph, int pw);

// The parameter "<prefix>.<name>" as F32: tables and tokens that are looked up and added.
Tensor *vit_table(NN *nn, const char *name, Shape stored, Shape as);

// "gelu", "quick_gelu", "gelu_new", ... as Hugging Face configs spell it. ERR_FORMAT names file and value.
Err vit_activation(Json *config, const char *key, UnaryKind *out);

// Keys of a config.json that do not change what is computed here; for json_finish.
extern const char *const vit_config_ignored[];

#endif
