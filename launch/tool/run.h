// run: one call of a model part: a graph in the library's layout outside and ours inside, its vjp, its numbers.
//
// A part (parts.h) asks for inputs and names outputs; the rest is the same for all of them: cotangents that
// are in the file make a gradient for every float input, for the weights that --wrt matches and for the
// adapter; the plan is made, run --repeat times, and what it computed goes to the session's sink.
//
//     Run r;
//     run_begin(&r, session, call, part);
//     Tensor *x = run_input(&r, "sample", 5);               // (B, F, C, h, w), as the library has it
//     y = unet_svd_build(...);
//     run_output(&r, "sample", y);
//     TRY(run_finish(&r));                                  // gradient, plan, runs, results
#ifndef LAUNCH_TOOL_RUN_H
#define LAUNCH_TOOL_RUN_H

#include "launch/tool/session.h"

// What a part takes; the text of shapes is for messages. The list ends with a row without name.
typedef struct RunTakes {
    const char *name; // fnmatch pattern: "masks_enc.*"
    const char *shape;
    bool optional;
    bool is_index; // whole numbers, I32
} RunTakes;

enum {
    RUN_INPUTS_MAX = 1024,
    RUN_OUTPUTS_MAX = 3072,
    RUN_WRT_MAX = 8192
}; // a scheduler of 1000 steps

typedef struct RunInput {
    const char *name;
    Tensor *tensor;
    const SafetensorsEntry *entry;
} RunInput;

typedef struct RunOutput {
    const char *name; // without "out."
    Tensor *tensor;
    const SafetensorsEntry *cot_entry; // NULL: none given
    Tensor *cot;
} RunOutput;

// One gradient that is wanted: where it goes and of what.
typedef struct RunGrad {
    const char *name; // in the file
    int rank;
    const int64_t *dim; // of the file
    Tensor *of, *dx;    // dx NULL: zero
} RunGrad;

typedef struct Run Run;
// A vjp that is not simply that of the graph (gradient stopped on one path). As grad_build.
typedef Err RunVjp(Run *r, int out_cnt, Tensor *const *out, Tensor *const *cot, int wrt_cnt,
                   Tensor *const *wrt, Tensor **dx);

struct Run {
    Session *s;
    RecipeCall *call;
    const char *class_name;
    const RunTakes *takes;
    Graph *g;
    Err err; // first failure outside the graph
    RunInput input[RUN_INPUTS_MAX];
    RunOutput output[RUN_OUTPUTS_MAX];
    int input_cnt, output_cnt;
    RunGrad *grad; // in the graph's arena
    int grad_cnt;
    Tensor **lora; // 2 per live module: inputs, then their gradients
    int lora_cnt;
    SessionModel *model; // whose weights --wrt may pick; NULL: none
    RunVjp *vjp;         // NULL: grad_build
    void *vjp_ctx;
    Plan *plan;
};

// Time and memory of one call, for the report.
typedef struct RunReport {
    double min_s, median_s, flops;
    uint64_t plan_bytes;
} RunReport;

void run_begin(Run *r, Session *s, RecipeCall *call, const char *class_name, const RunTakes *takes);
void run_end(Run *r);

// The NN of an open model, with the session's adapter if asked.
NN run_nn(Run *r, SessionModel *m, bool with_lora);

bool run_has_input(const Run *r, const char *name);
// A graph input with the shape the file has, F32 (or I32, as the table of what is taken says). NULL after a
// failure: it is missing, or its rank is not `rank` (0: any).
Tensor *run_input(Run *r, const char *name, int rank);
// Marks a result. Returns what the graph should go on with when it computes more from it.
Tensor *run_output(Run *r, const char *name, Tensor *t);

// Everything after building. *report is of this call.
Err run_finish(Run *r, RunReport *report);

// A missing input's message: what the part takes.
Err run_fail_missing(const Session *s, const char *class_name, const RunTakes *takes,
                     const char *call, const char *name);

// The tensor "in.<call>.<name>", "in.<name>" or either without "in."; NULL when there is none. The same for "cot.".
const SafetensorsEntry *run_find(const Safetensors *file, const char *kind, const char *call,
                                 const char *name);

// As F32 in row-major order, of the arena.
float *run_floats(Arena *a, const SafetensorsEntry *e);

// Adds "grad.lora.[call.]<adapter key>" for every module, from a gradient laid out as theta.
void run_sink_lora(Session *s, const RecipeCall *call, const float *theta_grad);

#endif
