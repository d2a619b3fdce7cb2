// model_dir: a model part as Hugging Face lays it out on disk: its config, its class and its weights.
//
// A model folder has a model_index.json and one folder per part; a part folder has a config and weights:
//     svd/model_index.json                       {"unet": ["diffusers", "UNetSpatioTemporalConditionModel"], ...}
//     svd/unet/config.json                       {"_class_name": "UNetSpatioTemporalConditionModel", ...}
//     svd/unet/diffusion_pytorch_model[.fp16].safetensors, or shards and their .index.json
//
//     ModelPart *unet;
//     TRY(model_dir_open(&unet, "models/svd", "unet", "UNetSpatioTemporalConditionModel", NULL));
//     TRY_OUT(json_want_int(unet->config, "in_channels", &c.in_channels));
//     TRY_OUT(model_dir_want(unet, "conv_in.weight", &w));
//     model_dir_close(unet);
//
// `path` may be the model folder, the part's own folder, a weight file (.safetensors, its index, or a
// PyTorch zip checkpoint), or a folder of the download cache (models--org--name with refs/ and snapshots/).
// Nothing is downloaded or written.
#ifndef COMMON_FORMAT_MODEL_DIR_H
#define COMMON_FORMAT_MODEL_DIR_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/format/json.h"
#include "common/format/safetensors.h"
#include "common/format/torch_zip.h"

enum { MODEL_DIR_CLASS_BYTES = 128 };

typedef struct ModelDirOptions {
    const char
        *variant;     // "fp16": taken before files without a variant; NULL: those first, then fp16
    const char *sub;  // of a PyTorch checkpoint: the dictionary to read ("target_encoder")
    bool config_only; // a scheduler, a tokenizer: there are no weights to look for
    bool adapter; // a LoRA folder: adapter_config.json + adapter_model.*, or pytorch_lora_weights.*
} ModelDirOptions;

typedef struct ModelPart {
    const char *path; // its folder, or the weight file given; for messages
    const char *
        class_name; // config: _class_name, else architectures[0], else model_type; "" without config
    Json *config;   // NULL when there is none; closed with the part
    const char *weights;      // the file, index or checkpoint; NULL when config_only
    Safetensors *safetensors; // this one or the other holds the tensors
    TorchZip *torch_zip;
} ModelPart;

// Opens a part. Caller closes.
//   part     "unet"; NULL: path is the part itself. Without model_index.json, and when path has no folder of
//            that name, path is taken for the part's own folder.
//   classes  the classes that will do, "A|B"; NULL: any. Then a config is required, and its class (and the
//            one in model_index.json) must be among them: ERR_FORMAT says wanted and found.
//   options  NULL: all zero.
// Looked for in this order: config.json, scheduler_config.json, preprocessor_config.json; weights
// diffusion_pytorch_model, model (.safetensors, .safetensors.index.json), then pytorch_model (.bin).
Err model_dir_open(ModelPart **out, const char *path, const char *part, const char *classes,
                   const ModelDirOptions *options);
void model_dir_close(ModelPart *p); // NULL is fine

// The tensors, whichever format holds them; as safetensors.h says. None when config_only.
const SafetensorsEntry *model_dir_find(const ModelPart *p, const char *name);
Err model_dir_want(const ModelPart *p, const char *name, const SafetensorsEntry **out);
size_t model_dir_count(const ModelPart *p);
const SafetensorsEntry *model_dir_at(const ModelPart *p, size_t i);

// The pipeline's class in model_index.json ("StableVideoDiffusionPipeline"); "" when the folder has none.
Err model_dir_pipeline(const char *path, char class_name[MODEL_DIR_CLASS_BYTES]);

#endif
