// plan: a graph made ready to run on one backend: order, kernels, and one memory offset per tensor.
//
//     Plan *plan;
//     TRY(plan_new(&plan, g, backend, (PlanOptions){.memory_bytes = 8ull << 30}));
//     plan_print(plan, stdout);                        // the memory table
//     TRY(plan_write(plan, x, data));                  // or plan_bind(plan, x, shared_memory)
//     TRY(plan_run(plan));
//     const float *y = plan_data(plan, out);
//
// The plan keeps a pointer to the graph and to its weights' bytes: both must outlive it. plan_run
// allocates no memory; the same inputs give the same bits at every run.
//
// Only what an output needs is run. A tensor's memory is reused after its last reader, elementwise ops
// write into their input when nobody reads it again, views cost nothing. Inputs and outputs keep their
// storage through the whole run.
#ifndef COMMON_TENSOR_PLAN_H
#define COMMON_TENSOR_PLAN_H

#include <stdio.h>

#include "common/tensor/backend.h"
#include "common/tensor/graph.h"

typedef struct Plan Plan;

typedef struct PlanOptions {
    uint64_t memory_bytes; // refuse with ERR_MEMORY above this; 0 = no limit
    bool dry;      // fill the table only: allocate nothing, pack nothing; such a plan cannot run
    bool no_reuse; // every tensor keeps its own memory (tests compare the bits)
    bool check;    // after each node look for NaN/Inf; plan_run then fails with its name
} PlanOptions;

// What the table shows, in bytes. The arena is what plan_new allocates.
typedef struct PlanMemory {
    uint64_t arena_bytes;            // activations, gradients, workspace at their peak
    uint64_t peak_bytes[KIND_COUNT]; // of the arena at the moment of its peak, by kind
    uint64_t io_bytes;               // inputs and outputs, unless bound
    uint64_t work_bytes;             // largest kernel workspace (part of the arena)
    uint64_t weight_bytes;           // weights as stored (mapped files)
    uint64_t packed_bytes;           // packed copies this plan uses
    uint64_t total_bytes;            // arena + io + packed + weights that are not only packed from
    int node_cnt, run_cnt;           // nodes in the graph; kernels per run
    double flops;                    // floating point operations per run (multiply-add = 2)
} PlanMemory;

// Compiles. ERR_SHAPE and friends when the graph is broken, ERR_MEMORY with the missing bytes and the
// five largest tensors when it does not fit; nothing is allocated then.
Err plan_new(Plan **out, Graph *g, Backend *be, PlanOptions opt);
void plan_free(Plan *plan); // NULL is fine

const PlanMemory *plan_memory(const Plan *plan);
// The memory table: kinds, largest tensors by name, algorithms with their counts.
void plan_print(const Plan *plan, FILE *out);

// Copies row-major host data of the tensor's dtype into an input; the backend converts if it stores
// another type. plan_read is the reverse for an input or output.
Err plan_write(Plan *plan, const Tensor *input, const void *data);
Err plan_read(Plan *plan, const Tensor *tensor, void *data);

// Uses the caller's memory (64-byte aligned, of the backend's storage type) for an input or output from
// the next run on; nothing is copied. It must stay valid for every run.
Err plan_bind(Plan *plan, const Tensor *tensor, void *data);

// Storage of an input or output; NULL if the plan does not hold it (unused input).
void *plan_data(const Plan *plan, const Tensor *tensor);

// Runs all steps. Fails only in check mode: ERR_NUMERIC "<node>: NaN at element 17 of (2, 3)".
Err plan_run(Plan *plan);

// The same run in two parts: the steps up to the one that makes an output, later the others. Inputs that only later
// steps read (a cotangent) may be written and bound in between; any other run of the plan voids the first part.
Err plan_run_until(Plan *plan, const Tensor *output);
Err plan_run_after(Plan *plan, const Tensor *output);
// Floating point operations of the first part.
double plan_flops_until(const Plan *plan, const Tensor *output);

// Called after each step with its node and storage, for dumps and profiles; NULL = none.
typedef void PlanObserver(void *ctx, const Tensor *node, const void *data, int64_t ns);
void plan_observe(Plan *plan, PlanObserver *fn, void *ctx);

#endif
