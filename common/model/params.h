// params: the weights of one model part, looked up by key while a graph is built.
//
// A builder asks for each key with the shape it expects. The first missing key or wrong shape becomes
// the graph's sticky error ("unet/diffusion_pytorch_model.safetensors: conv_in.weight is (320, 4, 3, 3),
// want (320, 8, 3, 3)"). When the graph is built, params_finish says which keys nobody asked for.
//
//     Params *p;
//     TRY(params_open(&p, "models/svd/unet", "", NULL));
//     Tensor *w = params_get(p, g, "conv_in.weight", SHAPE(320, 8, 3, 3));
//     ...
//     TRY(params_finish(p));           // surplus keys are an error
//
// Matrices and kernels stay in the file (mapped, any float type) and are used as they lie there. Vectors
// and scalars are widened to F32 once, as the engine wants them, and so are F64. NaN or Inf in a
// weight is found when it is first asked for: ERR_NUMERIC with file and key. Its bytes are hashed in the same go
// (XXH3) into the graph's weights_hash, by which a run knows its models again.
#ifndef COMMON_MODEL_PARAMS_H
#define COMMON_MODEL_PARAMS_H

#include "common/format/model_dir.h"
#include "common/tensor/graph.h"

typedef struct Params Params;

// Opens the weights of a part: a folder with weights as Hugging Face names them, a .safetensors file or
// index, or a PyTorch zip checkpoint. `prefix` (may be "") is put in front of every key that is asked for
// ("module.backbone.", "vjepa2."); keys without it belong to other parts and are not looked at. `sub`
// (may be NULL) picks a dictionary of a checkpoint ("target_encoder").
Err params_open(Params **out, const char *path, const char *prefix, const char *sub);
// The same for a part that is open; it must stay so.
Err params_of_part(Params **out, const ModelPart *part, const char *prefix);
// After every plan of every graph that uses it. NULL is fine.
void params_close(Params *p);

// The file's name for messages.
const char *params_path(const Params *p);

bool params_has(const Params *p, const char *key);

// The weight as a tensor of g, in the shape stored; NULL with g's error set if it is missing or has
// another shape. A stored trailing or leading 1 does not match: shapes are exact. Asked for twice, it
// is two tensors of g on the same bytes.
Tensor *params_get(Params *p, Graph *g, const char *key, Shape shape);

// The same for a weight stored as `stored` (exact), seen as `as`: a Conv3d patch kernel as a matrix.
Tensor *params_get_as(Params *p, Graph *g, const char *key, Shape stored, Shape as);

// The same, widened to F32 whatever its rank: position tables and tokens, which ops other than linear
// and conv read.
Tensor *params_get_f32(Params *p, Graph *g, const char *key, Shape stored, Shape as);

// Keys that match this fnmatch pattern (without the prefix) may stay unused ("*.position_ids"). Copied.
void params_ignore(Params *p, const char *pattern);
bool params_ignores(const Params *p, const char *key);

// ---- Without a file: what does a model need? ----
// A recorder has every key in whatever shape it is asked for. A graph built with it is for its shapes and
// operation counts only: the weights have no bytes, a plan of it must not run.
Params *params_new_recorder(void);
int params_recorded_count(const Params *p);
// The i-th key asked for, in the order of building, each once; *stored receives its shape.
const char *params_recorded(const Params *p, int i, Shape *stored);

// ---- Afterwards ----

// ERR_FORMAT if keys are left that nobody asked for; names the first five and their number.
Err params_finish(const Params *p);

#endif
