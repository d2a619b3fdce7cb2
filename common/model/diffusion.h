// diffusion: the sampler as numbers: coefficients of every step, the gradient window, guidance per frame.
//
// One step is affine in the latents x and the raw network output v (v-prediction, or epsilon):
//     v_k = net(c_in x_k, t_k)          x_{k+1} = a_k x_k + b_k v_k + z_k noise
//     clean estimate of step k          clean_x x_k + clean_v v_k
//
//     Euler in EDM form (EulerDiscreteScheduler, Karras et al. 2022, arXiv:2206.00364), s = sigma:
//         s_i = (smax^(1/rho) + i/(n-1) (smin^(1/rho) - smax^(1/rho)))^rho, rounded to F32; s_n = 0
//         c_in = 1/sqrt(s^2+1), t = ln(s)/4, clean = x/(s^2+1) - v s/sqrt(s^2+1)
//         x' = x + (s'-s)(x - clean)/s
//     DDIM (DDIMScheduler, Song et al. 2020, arXiv:2010.02502), A = cumulative alpha:
//         clean = (x - sqrt(1-A) eps)/sqrt(A), x' = sqrt(A') clean + sqrt(1-A'-c^2) eps + c noise,
//         c = eta sqrt((1-A')/(1-A) (1-A/A'));  v-prediction: eps = sqrt(A) v + sqrt(1-A) x
//
// The window is the steps whose network output carries gradient (Algorithm 1's last K, or others).
// After it x is linear in x, so that the cotangent at its end is tail * dR/dx_0. How much a step's
// output counts in x_0 is its gain,
//     gain_i = |b_i| prod_{k>i} a_k, of the Euler step on sigma = sqrt((1-A)/A), whatever the sampler is.
//
// Everything here is double arithmetic on the host and allocates from the caller's arena.
#ifndef COMMON_MODEL_DIFFUSION_H
#define COMMON_MODEL_DIFFUSION_H

#include <stdbool.h>
#include <stdio.h>

#include "common/base/arena.h"
#include "common/base/rng.h"
#include "common/format/json.h"

enum { DIFFUSION_STEPS_MAX = 1000 };

typedef enum DiffusionFinalAlpha {
    DIFFUSION_FINAL_AS_CONFIG, // set_alpha_to_one of the scheduler's config
    DIFFUSION_FINAL_ONE,
    DIFFUSION_FINAL_FIRST, // cumulative alpha of training step 0
} DiffusionFinalAlpha;

typedef struct DiffusionOptions {
    int steps;
    double sigma_min, sigma_max, rho; // Euler; 0: what the config says (rho: 7)
    double eta;                       // DDIM: 0 deterministic, 1 ancestral
    DiffusionFinalAlpha final_alpha;  // DDIM
} DiffusionOptions;

typedef struct DiffusionStep {
    double sigma; // noise level before the step
    double t;     // what the network is told
    double c_in;
    double a, b, z;
    double clean_x, clean_v;
    double gain;
} DiffusionStep;

typedef struct DiffusionSchedule {
    const char *sampler;    // "euler", "ddim"
    const char *prediction; // "v_prediction", "epsilon"
    int cnt;                // steps
    DiffusionStep *step;    // [cnt]
    double last_sigma; // noise level after the last step: 0, or a little with final_alpha first
    double init_noise_sigma; // x_0th = this times a standard normal
    bool stochastic;         // some z is not 0
} DiffusionSchedule;

// From scheduler_config.json, by its _class_name; every key is checked. ERR_FORMAT for what is not
// computed.
Err diffusion_schedule(DiffusionSchedule *out, Arena *arena, Json *config,
                       const DiffusionOptions *opt);

// One line per step: index, sigma, t, a, b, gain.
void diffusion_print(const DiffusionSchedule *s, FILE *out);

// ---- Window ----

typedef enum DiffusionAt {
    DIFFUSION_AT_LAST,   // ends with the last step
    DIFFUSION_AT_GAIN,   // where the sum of gains is largest; ties to the later place
    DIFFUSION_AT_INDEX,  // begins at `index`
    DIFFUSION_AT_RANDOM, // begins in lo .. hi, drawn per rollout
} DiffusionAt;

typedef struct DiffusionWindowOptions {
    int steps; // K; 0: to the end
    DiffusionAt at;
    int index;
    int lo, hi; // random: first and last place, both possible; hi < 0: the latest that fits
    bool predict;
} DiffusionWindowOptions;

typedef struct DiffusionWindow {
    int first, cnt;
    bool predict; // x_0 is the clean estimate of its last step; no later step runs
} DiffusionWindow;

// name: seed, sample and segment of the rollout, for `random`. ERR_USAGE when the window does not fit.
Err diffusion_window(DiffusionWindow *out, const DiffusionSchedule *s,
                     const DiffusionWindowOptions *opt, RngKey name);

// d x_0 / d x at the window's end: product of a over the later steps; 1 with predict.
double diffusion_tail(const DiffusionSchedule *s, DiffusionWindow w);

// Steps that a rollout runs, from 0: all, or with predict to the window's end.
int diffusion_end(const DiffusionSchedule *s, DiffusionWindow w);

// What step k of a rollout computes: x' = a x + b v + z noise. With predict the window's last step
// makes the clean estimate instead.
void diffusion_coefficients(const DiffusionSchedule *s, DiffusionWindow w, int k, double *a,
                            double *b, double *z);

// ---- Guidance ----

// g[f] from min to max over the frames: v_f = v_u + g_f (v_c - v_u). *on: is there an unconditional
// branch at all (max > 1, the rule of diffusers)? ERR_USAGE for min > max, and for min != 1 where it
// is off.
Err diffusion_guidance(double min, double max, int frames, float *g, bool *on);

// ---- Noise ----

// Standard normals for latents (frames, h, w, channels); number i of the key goes to the place that is i-th
// in the order (frames, channels, h, w).
void diffusion_noise(RngKey key, int64_t frames, int64_t h, int64_t w, int64_t channels, float *x);

#endif
