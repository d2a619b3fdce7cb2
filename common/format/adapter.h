// adapter: LoRA matrices as the files that other programs load. Knows no model: paths and matrices only.
//
//   PEFT folder      adapter_config.json, adapter_model.safetensors: base_model.model.<path>.lora_A.weight
//   diffusers file   unet.<path>.lora_A.weight, with alpha / r folded into B, because that loader takes alpha = r
//
//     AdapterModule m[] = {{"mid_block.attn1.to_q", 320, 320, a, b}};
//     Adapter x = {.rank = 16, .alpha = 16, .module = m, .module_cnt = 1};
//     TRY(adapter_write_peft(&x, "adapter"));
//
// The modules are named one by one as PEFT's targets, in the order given; those without matrices are left out.
#ifndef COMMON_FORMAT_ADAPTER_H
#define COMMON_FORMAT_ADAPTER_H

#include <stdint.h>

#include "common/base/err.h"

typedef struct AdapterModule {
    const char *path; // "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    int64_t in, out;
    const float *a, *b; // A (rank, in), B (out, rank); NULL: left out
} AdapterModule;

typedef struct Adapter {
    int rank;
    double alpha, dropout;
    const AdapterModule *module;
    int module_cnt;
} Adapter;

// dir is made when it is not there; each file is whole or absent.
Err adapter_write_peft(const Adapter *x, const char *dir);
Err adapter_write_diffusers(const Adapter *x, const char *file);

#endif
