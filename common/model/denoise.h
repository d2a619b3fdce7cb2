// denoise: sampling steps with a network, forward and back. One compiled plan serves all steps of a kind.
//
// Forward (sampler, learner): a graph of one step, whose scalars are inputs, and a loop over steps on
// the host.
// Back (learner): a graph of the vjp of one network call, run once per step of the window, last first:
//     lambda_{k+1} = tail * dR/dx_0 at the window's end
//     dtheta  += (dv_k/dtheta)^T b_k lambda_{k+1}
//     lambda_k = a_k lambda_{k+1} + (dv_k/dx_k)^T b_k lambda_{k+1}
// dv/dx goes through c_in, the latent channels only, and both guidance branches. The vjp recomputes
// the network's forward from the saved x_k, so nothing of the forward plan is kept.
//
//     DenoiseGraph step = {0}, back = {0};
//     TRY(denoise_build(&step, &nn, &spec));                       // in a graph of its own
//     TRY(denoise_build_vjp(&back, &nn2, &spec, (DenoiseVjpOptions){.input_gradient = true}));
//     TRY(plan_new(&step_plan, ...)); TRY(plan_new(&back_plan, ...));
//     DenoiseJob job = {.schedule = &s, .window = w, .name = {.seed = seed, .sample = i}};
//     TRY(denoise_write(&step, step_plan, &conditioning));
//     TRY(denoise_run(&step, step_plan, &job, 0, w.first, x, NULL));                // sampler: x_K
//     TRY(denoise_run(&step, step_plan, &job, w.first, diffusion_end(&s, w), x, saved));   // learner: x_0
//     TRY(denoise_write(&back, back_plan, &conditioning));
//     TRY(denoise_pull(&back, back_plan, &job, saved, dx0, grad));
//
// Latents on the host are F32, (B, F, h, w, C). Nothing is allocated by a run. Sums run in a fixed order:
// cond branch and uncond branch within a step as the graph orders them, then steps last to first.
// With NN.dropout both branches of a step draw the same masks, and the vjp those of the forward run.
#ifndef COMMON_MODEL_DENOISE_H
#define COMMON_MODEL_DENOISE_H

#include "common/model/diffusion.h"
#include "common/model/nn.h"
#include "common/tensor/plan.h"

// Appends the network: sample (B, F, h, w, C + image channels), timestep (1), context (B, L, D), time
// ids (B, n) -> (B, F, h, w, C). unet_svd_denoiser is one.
typedef Tensor *DenoiseNet(const void *self, NN *nn, Tensor *sample, Tensor *timestep,
                           Tensor *context, Tensor *time_ids);

typedef struct DenoiseSpec {
    DenoiseNet *net;
    const void *self;
    int64_t videos, frames, h, w; // B, F and size of the latents
    int64_t channels;             // of the latents: 4
    int64_t image_channels;       // of the image latents joined behind them: 4
    int64_t context_len, context_dim, ids_cnt;
    const float *guidance; // [frames] by diffusion_guidance, copied; NULL: no unconditional branch
    bool batch_branches;   // both branches as one batch of 2B: faster, more memory, other rounding
    bool stochastic;       // the schedule has noise
} DenoiseSpec;

typedef struct DenoiseVjpOptions {
    bool
        input_gradient; // false: `detach_input`, lambda_k = a_k lambda_{k+1}; also enough for K = 1
    bool
        cond_only; // guidance_gradient: cond. The unconditional branch is a constant and is not run
} DenoiseVjpOptions;

// Inputs and outputs of a built graph; NULL where there is none.
typedef struct DenoiseGraph {
    Graph *g;
    const Lora *lora;
    bool dropout; // the graph has keys
    DenoiseSpec spec;
    Tensor *x;                     // (B, F, h, w, C)
    Tensor *image, *context, *ids; // (B, 1, h, w, Ci), (B, L, D), (B, n)
    Tensor *t, *c_in, *a, *b;      // (1)
    Tensor *z, *noise;             // (1), (B, F, h, w, C): stochastic schedules
    Tensor *cot;                   // (B, F, h, w, C): lambda_{k+1}
    Tensor *x_next, *v; // outputs of the forward graph: x_{k+1} and the guided network output
    Tensor *cot_next;   // output of the vjp graph: lambda_k
    Tensor **d;         // gradients of A and B, as lora_add_gradient takes them
    float *x_tmp;       // host, one latent
} DenoiseGraph;

// Appends to nn->g. ERR_SHAPE and friends from the graph. The unconditional branch has zeros for
// context and image.
Err denoise_build(DenoiseGraph *out, NN *nn, const DenoiseSpec *spec);
// nn->lora must be finished (a forward build comes first); every live module becomes an output.
Err denoise_build_vjp(DenoiseGraph *out, NN *nn, const DenoiseSpec *spec, DenoiseVjpOptions opt);

// What stays the same over the steps of a rollout; row-major F32.
typedef struct DenoiseConditioning {
    const float *image;   // (B, h, w, Ci), one for all frames; NULL when image_channels is 0
    const float *context; // (B, L, D)
    const float *ids;     // (B, n)
} DenoiseConditioning;
Err denoise_write(const DenoiseGraph *d, Plan *plan, const DenoiseConditioning *c);

typedef struct DenoiseJob {
    const DiffusionSchedule *schedule;
    DiffusionWindow window; // all zero: none
    RngKey name; // seed, sample, segment: of dropout masks and of the noise of stochastic schedules
} DenoiseJob;

// Runs steps from .. to-1 on x in place. x before each step of the window goes to saved (cnt latents,
// one behind the other), unless that is NULL. Weights must have been written (lora_write_theta).
Err denoise_run(const DenoiseGraph *d, Plan *plan, const DenoiseJob *job, int from, int to,
                float *x, float *saved);

// The vjp of the window and of what follows it. saved: from denoise_run with the same theta. cot:
// dR/dx_0, overwritten. grad (as theta): overwritten with dR/dtheta.
Err denoise_pull(const DenoiseGraph *d, Plan *plan, const DenoiseJob *job, const float *saved,
                 float *cot, float *grad);

#endif
