// params: the weights of one model part, looked up by key while a graph is built.
//
// A builder asks for each key with the shape it expects. The first missing key or wrong shape becomes
// the graph's sticky error ("unet/diffusion_pytorch_model.safetensors: conv_in.weight is (320, 4, 3, 3),
// want (320, 8, 3, 3)"). When the graph is built, params_finish says which keys nobody asked for.
//
//     Params *p;
//     TRY(params_open(&p, "models/svd/unet"));
//     Tensor *w = params_get(p, g, "conv_in.weight", SHAPE(320, 8, 3, 3));
//     ...
//     TRY(params_finish(p));           // surplus keys are an error
//
// Matrices and kernels stay in the file (mapped, any float type) and are used as they lie there. Vectors
// and scalars are widened to F32 once, as the engine wants them. NaN or Inf in a weight is found when it
// is first asked for: ERR_NUMERIC with file and key.
#ifndef COMMON_MODEL_PARAMS_H
#define COMMON_MODEL_PARAMS_H

#include "common/tensor/graph.h"

typedef struct Params Params;

// Opens the weights of a part: a folder with weights as Hugging Face names them, a .safetensors file or
// index, or a PyTorch zip checkpoint. `prefix` (may be "") is put in front of every key that is asked for
// ("module.backbone.", "vjepa2."); `sub` (may be NULL) picks a dictionary of a checkpoint ("target_encoder").
Err params_open(Params **out, const char *path, const char *prefix, const char *sub);
// A file that others keep open too is opened once per Params; mapping it twice costs nothing.
void params_close(Params *p); // after every plan of every graph that uses it

// The file's name for messages.
const char *params_path(const Params *p);

bool params_has(const Params *p, const char *key);

// The weight as a tensor of g, in the shape stored; NULL with g's error set if it is missing or has another shape.
// A stored trailing or leading 1 does not match: shapes are exact.
Tensor *params_get(Params *p, Graph *g, const char *key, Shape shape);

// The same, but (shape_span equal) any stored shape, viewed as `shape`: a Conv3d patch kernel as a matrix.
Tensor *params_get_as(Params *p, Graph *g, const char *key, Shape shape);

// Keys that match this fnmatch pattern may stay unused ("*.position_ids").
void params_ignore(Params *p, const char *pattern);

// ERR_FORMAT if keys are left that nobody asked for; names the first five and their number.
Err params_finish(const Params *p);

#endif
