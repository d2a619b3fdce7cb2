// eval_worker: one thread's share of `vader eval`: models of its own, and what it does with them.
//
//     EvalWorker *w;
//     TRY(eval_worker_open(&w, &job, threads));
//     TRY_OUT(eval_worker_sample(w, 7));          // both videos of sample 7, into job.result and RUN/eval/
//   out:
//     eval_worker_close(w);
//
// The numbers of a sample depend on its image and seed alone, not on the worker or on what it did before.
#ifndef LAUNCH_TOOL_EVAL_WORKER_H
#define LAUNCH_TOOL_EVAL_WORKER_H

#include "common/model/lora.h"
#include "launch/tool/evaluation.h"
#include "launch/tool/scorer.h"

// What all workers share; only *result is written, each sample by who makes it.
typedef struct EvalJob {
    const Config *cfg;
    const char *run_dir;
    const ConfigStrs *images; // paths
    Evaluation *result;
    bool base_alone; // there is no adapter: the tuned side is a copy
} EvalJob;

typedef struct EvalWorker EvalWorker;

// job is borrowed until close; its result may be made after this. threads: of each operator.
Err eval_worker_open(EvalWorker **out, const EvalJob *job, int threads);
void eval_worker_close(EvalWorker *w); // NULL is fine

// Memory that one needs, in bytes, without opening it.
Err eval_worker_memory(const Config *cfg, uint64_t *bytes);

// The adapter, whose values (lora_theta) may be changed before the first sample.
Lora *eval_worker_lora(EvalWorker *w);
const Scorer *eval_worker_scorer(const EvalWorker *w);

// Makes, measures and writes both videos of sample i. ERR_NUMERIC: something is not finite.
Err eval_worker_sample(EvalWorker *w, int i);

// V-JEPA's loss of the real continuation of an image: as many frames as a rollout shows, from the start. ERR_USAGE when it
// has fewer.
Err eval_worker_real(EvalWorker *w, int image);

#endif
