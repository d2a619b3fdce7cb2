// denoiser: the trained model as sampler and learner share it: UNet, adapter, schedule, window, and the
// compiled plans of one denoising step and of its vjp.
//
//     Denoiser *d;
//     TRY(denoiser_open(&d, cfg, STAGE_LEARNER, true, dry, table, plan));
//     TRY(denoiser_use(d, theta));                         // after each change of theta
//     DenoiseJob job = denoiser_job(d, header, segment);
//     TRY(denoise_write(&d->step, d->step_plan, &conditioning));
//     TRY(denoise_run(&d->step, d->step_plan, &job, 0, job.window.first, x, NULL));
#ifndef COMMON_STAGES_DENOISER_H
#define COMMON_STAGES_DENOISER_H

#include "common/model/denoise.h"
#include "common/model/unet_svd.h"
#include "common/stages/setup.h"
#include "common/transport/slot.h"

typedef struct Denoiser {
    const Config *cfg;
    Arena arena;
    Backend *be;
    ModelPart *part;
    Params *params;
    Lora *lora;
    UnetSvdDenoiser net;
    DiffusionSchedule schedule;
    DiffusionWindow window; // where it lies is per rollout when random; its length is fixed
    DenoiseSpec spec;
    float *guidance; // (frames), NULL when off
    DenoiseGraph step, back;
    Plan *step_plan, *back_plan; // back: only with a vjp
    Graph *step_graph, *back_graph;
    int64_t latent_cnt; // floats of one segment's latents (F, h, w, C)
    int64_t image_cnt;  // of the conditioning latent (h, w, C)
    const float *theta_in_step,
        *theta_in_back; // which theta the plans hold, by address and version
    uint64_t version_in_step, version_in_back;
} Denoiser;

// with_vjp: also compiles the backward plan (learner). Fills section sizes, memory, operation counts and the window of
// *plan; the learner's adapter table too.
Err denoiser_open(Denoiser **out, const Config *cfg, StageKind stage, bool with_vjp, bool dry,
                  FILE *table, StagePlan *plan);
void denoiser_close(Denoiser *d); // NULL is fine

// The job of one segment of a rollout: schedule, its window, the name of its chance.
DenoiseJob denoiser_job(const Denoiser *d, const SlotHeader *header, uint32_t segment);

// Puts theta (version v of the board; NULL: the base model, all zeros) into the forward plan / the vjp plan,
// unless it is there already.
Err denoiser_use(Denoiser *d, const float *theta, uint64_t version);
Err denoiser_use_back(Denoiser *d, const float *theta, uint64_t version);

// Sum of the gains of a window's steps: how much its outputs count in x_0.
double denoiser_gain(const Denoiser *d, DiffusionWindow w);

// Time ids of the config: fps - 1, motion bucket, noise augmentation.
void denoiser_ids(const Denoiser *d, float ids[3]);

#endif
