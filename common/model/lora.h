// lora: the adapter of one model: which modules carry one, its values in one flat block, its files.
//
// Hu et al. 2021, arXiv:2106.09685: y = W x + b + (alpha/r) B (A x), A (r, in), B (out, r); A starts
// Kaiming-uniform U(+-1/sqrt(in)), B starts at zero.
//
// Life: a LoraConfig says what to adapt; building the model visits its linears in order and
// each one that matches registers itself (lora_attach), which makes the graph inputs for A and B. After
// the first build the table of modules is complete, and `theta` (all A and B in visiting order, each
// starting at a multiple of 16 floats) can be filled (lora_init, lora_load_values) and written to plans
// (lora_write_theta). A second build of the same model finds the same table.
//
//     Lora *l = lora_new(&(LoraConfig){.rank = 16, .alpha = 16, .target_cnt = 1, .target = t});
//     NN nn = {.g = g, .params = p, .lora = l};
//     ... build ...
//     TRY(lora_finish(l));
//     lora_init(l, seed);
//     TRY(lora_write_theta(l, g, plan, lora_theta(l)));
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

#include "common/base/rng.h"
#include "common/tensor/graph.h"
#include "common/tensor/plan.h"

typedef struct LoraModule {
    const char *path; // "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    int64_t in, out;
    int64_t a_at, b_at; // first float of A (r, in) and B (out, r) within theta; -1 for dead ones
    bool dead;          // never read by the model: kept for the file only
} LoraModule;

typedef struct Lora Lora;

typedef struct LoraConfig {
    int rank;
    double alpha;
    double dropout; // in [0, 1): of what A reads; only drawn where NN.dropout says so
    int target_cnt;
    const char *const *target; // suffixes ("to_q", "to_out.0") or full paths
} LoraConfig;

// Copies cfg. Never NULL.
Lora *lora_new(const LoraConfig *cfg);
void lora_free(Lora *l); // NULL is fine

const LoraConfig *lora_config(const Lora *l);
// Modules in visiting order, dead ones among them.
int lora_module_count(const Lora *l);
const LoraModule *lora_module(const Lora *l, int i);
// Floats in theta (padding included, always zero).
int64_t lora_theta_count(const Lora *l);
// The values, 64-byte aligned; complete and zero after lora_finish, NULL before.
float *lora_theta(Lora *l);

// Does this module path carry an adapter?
bool lora_wants(const Lora *l, const char *path);

// While building: the graph inputs of the module's A and B ("lora.<path>.A", ".B"), registering it on
// first sight; a second visit within one graph gets the same inputs.
void lora_attach(Lora *l, Graph *g, const char *path, int64_t in, int64_t out, Tensor **a,
                 Tensor **b);
// While building: records a module that matches but has no effect.
void lora_attach_dead(Lora *l, const char *path, int64_t in, int64_t out);
// While building: the graph input "lora.<path>.key" (8) I32 of an attached module's dropout.
Tensor *lora_key(Lora *l, Graph *g, const char *path);
// alpha / rank
double lora_scale(const Lora *l);

// After building. Every target must have matched at least one module, else ERR_USAGE names it.
Err lora_finish(Lora *l);
// A from Philox (kind INIT, module = its position in the table), B = 0.
void lora_init(Lora *l, uint64_t seed);

// The A and B inputs of g, in theta order: tensor[2*i], tensor[2*i+1] for the i-th live module, NULL
// where g does not use it. Returns how many were written; tensor has room for 2 * lora_module_count.
int lora_inputs(const Lora *l, const Graph *g, Tensor **tensor);
// Copies theta into the inputs of the plan, which keeps them: once after each change of theta.
Err lora_write_theta(const Lora *l, const Graph *g, Plan *plan, const float *theta);
// Writes the dropout keys of a plan whose graph has them: key names the rollout (seed, sample, segment),
// step and branch the network call; the module's number is added. The same mask for the same name.
Err lora_write_keys(const Lora *l, const Graph *g, Plan *plan, RngKey key, unsigned step,
                    unsigned branch);
// grad += the gradients of A and B that a plan has computed, laid out as theta. d: from grad_build for
// lora_inputs in the same order and marked as outputs; NULL entries are zero. Sums one module after
// the other.
Err lora_add_gradient(const Lora *l, Plan *plan, Tensor *const *d, float *grad);

// Reads the rank, alpha, targets and values of a PEFT folder or a diffusers file. Values are placed by
// lora_load_values once the model has been built with this Lora (after lora_finish); a key no module took,
// or a module without key, is an error.
Err lora_read(Lora **out, const char *path);
Err lora_load_values(Lora *l);

// Writes theta (as lora_theta lays it out). dir is made when it is not there; both files are whole or
// absent.
Err lora_write_peft(const Lora *l, const float *theta, const char *dir);
Err lora_write_diffusers(const Lora *l, const float *theta, const char *file);

#endif
