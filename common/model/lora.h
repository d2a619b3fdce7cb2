// lora: the adapter of one model: which modules carry one, its values in one flat block, its files.
//
// Hu et al. 2021, arXiv:2106.09685: y = W x + b + (alpha/r) B (A x), A (r, in), B (out, r); A starts
// Kaiming-uniform U(+-1/sqrt(in)), B starts at zero.
//
// Life: lora_plan_targets says what to adapt; building the model visits its linears in order and
// each one that matches registers itself (lora_attach), which makes the graph inputs for A and B. After
// the first build the table of modules is complete, and `theta` (all A and B in visiting order, each
// starting at a multiple of 16 floats) can be filled (lora_init, lora_read) and bound to a plan
// (lora_bind). A second build of the same model finds the same table.
//
// Files: a PEFT folder (adapter_config.json + adapter_model.safetensors, keys
// "base_model.model.<path>.lora_A.weight") or a diffusers file (pytorch_lora_weights.safetensors, keys
// "unet.<path>.lora_A.weight", alpha/r folded into B because that loader assumes alpha = r).
//
// Dead modules: to_q and to_k of a cross-attention whose context is one token get no gradient and have no
// effect. They are not attached; files we write leave them out by listing exact target paths, and files we
// read may carry them (checked for shape, kept aside and written back).
#ifndef COMMON_MODEL_LORA_H
#define COMMON_MODEL_LORA_H

#include "common/tensor/graph.h"
#include "common/tensor/plan.h"

typedef struct LoraModule {
    const char *path; // "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    int64_t in, out;
    int64_t a_at, b_at; // first float of A (r, in) and B (out, r) within theta
    bool dead;          // never read by the model: kept for the file only
} LoraModule;

typedef struct Lora Lora;

typedef struct LoraConfig {
    int rank;
    double alpha;
    double dropout; // 0 in inference
    int target_cnt;
    const char *const *target; // suffixes ("to_q", "to_out.0") or full paths
} LoraConfig;

Lora *lora_new(const LoraConfig *cfg);
void lora_free(Lora *l);

const LoraConfig *lora_config(const Lora *l);
int lora_module_count(const Lora *l);
const LoraModule *lora_module(const Lora *l, int i);
// Floats in theta (padding included, always zero).
int64_t lora_theta_count(const Lora *l);
float *lora_theta(Lora *l);

// Does this module path carry an adapter?
bool lora_wants(const Lora *l, const char *path);

// While building: the graph inputs of the module's A and B ("lora.<path>.A", ".B"), registering it on first sight.
void lora_attach(Lora *l, Graph *g, const char *path, int64_t in, int64_t out, Tensor **a,
                 Tensor **b);
// While building: records a module that matches but has no effect.
void lora_attach_dead(Lora *l, const char *path, int64_t in, int64_t out);
double lora_scale(const Lora *l);

// After building. Every target must have matched at least one module, else ERR_USAGE names it.
Err lora_finish(Lora *l);
// A from Philox (seed, use LORA), B = 0.
void lora_init(Lora *l, uint64_t seed);
// The A and B inputs of g, in theta order: tensors[2*i], tensors[2*i+1] for live module i. Dead ones are skipped.
int lora_inputs(const Lora *l, const Graph *g, Tensor **tensors);
// Binds (or copies, where the backend stores another type) theta into the inputs of the plan.
Err lora_bind(const Lora *l, const Graph *g, Plan *plan, const float *theta);

// Reads the rank, alpha, targets and values of a PEFT folder or a diffusers file. Values are placed by lora_load_values
// once the model has been built with this Lora; a key no module took, or a module without key, is an error.
Err lora_read(Lora **out, const char *path);
Err lora_load_values(Lora *l);

Err lora_write_peft(const Lora *l, const float *theta, const char *dir);
Err lora_write_diffusers(const Lora *l, const float *theta, const char *file);

#endif
