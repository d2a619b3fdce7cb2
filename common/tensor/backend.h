// backend: how a plan turns nodes into work. Two exist on the CPU: `ref` (plain loops in double, the
// oracle) and `cpu` (oneDNN and own kernels). CUDA fits the same table.
//
// A Backend is the open device: threads or a stream, and the packed weights of this process. One
// device serves many plans, one after the other (plans of a device do not run at the same time).
//
// Life of a node's kernel:
//   prepare  once, when the plan is compiled. Sees shapes, not data. Chooses the algorithm by shape
//            and options only (never by timing), fills step->work_bytes, step->note and step->state, and
//            asks for packed weights with backend_pack().
//   run      any number of times. Reads step->src[], writes all of step->dst, may use step->work.
//            Allocates nothing. Threads split work by shape only, so bits do not depend on their number.
//
// Storage: dtype_bytes says how a dtype is stored. `ref` stores every float dtype of a graph tensor as
// double; weights (OP_WEIGHT) and I32 keep their own type on every backend.
#ifndef COMMON_TENSOR_BACKEND_H
#define COMMON_TENSOR_BACKEND_H

#include "common/tensor/graph.h"

typedef struct Backend Backend;

// One packed copy of a weight, shared by all steps and plans of the device that ask for the same key.
typedef struct Packed {
    const void *weight; // key: the weight's bytes and
    const char *layout; // the name of the layout (a literal)
    size_t bytes;
    void *data;                                                 // NULL until committed
    void (*fill)(Backend *be, const Tensor *weight, void *dst); // reads weight->data
    const Tensor *source;                                       // valid until committed
    struct Packed *next;
} Packed;

// A node made ready to run.
typedef struct Step {
    const Tensor *node;
    void *dst;                          // storage of node
    const void *src[TENSOR_INPUTS_MAX]; // storage of in[i] (views: already offset); NULL if absent
    void *work;                         // work_bytes of scratch, 64-byte aligned, this run only
    size_t work_bytes;                  // set by prepare
    Packed *packed;                     // set by prepare where a weight was packed
    void *state;                        // set by prepare, from step->arena
    char note[24]; // the algorithm, for the table: "winograd", "direct"; set by prepare
    Arena *arena;  // the plan's; lives as long as the plan
} Step;

typedef struct Kernel {
    Err (*prepare)(Backend *be, Step *step); // NULL = nothing to prepare
    void (*run)(Backend *be, Step *step);
    void (*release)(Backend *be, Step *step); // optional: frees what state holds outside the arena
} Kernel;

typedef struct BackendOptions {
    int threads; // 0 = all cores this process may use
    bool
        pack_weights; // keep packed F32 copies of weights; false: widen and pack at each run (less memory)
    bool exact; // no Winograd: direct convolution everywhere
} BackendOptions;

struct Backend {
    const char *name; // "cpu", "ref"
    BackendOptions opt;
    const Kernel *kernel;               // [OP_COUNT]; entries without run are not supported
    size_t (*dtype_bytes)(DType dtype); // storage of one element of a graph tensor
    void (*fingerprint)(Backend *be, char *buf,
                        size_t len); // ISA, libraries: what decides the bits
    void (*close)(Backend *be);
    Packed *packed; // all packed copies, committed or not
    void *self;     // the backend's own (thread pool, kernel table)
};

// ref/ref.c and cpu/cpu.c. The caller closes.
Err backend_open_ref(Backend **out, BackendOptions opt);
Err backend_open_cpu(Backend **out, BackendOptions opt);
// By name; ERR_USAGE names the known ones.
Err backend_open(Backend **out, const char *name, BackendOptions opt);
void backend_close(Backend *be); // NULL is fine; no plan of it may be left

// Finds or registers the packed copy (weight->data, layout). fill is called once, by backend_commit.
Packed *backend_pack(Backend *be, const Tensor *weight, const char *layout, size_t bytes,
                     void (*fill)(Backend *be, const Tensor *weight, void *dst));
// Bytes registered but not yet allocated, and all bytes allocated.
size_t backend_pack_pending(const Backend *be);
size_t backend_pack_bytes(const Backend *be);
// Allocates and fills what is pending; or forgets it (a plan was refused).
Err backend_commit(Backend *be);
void backend_forget_pending(Backend *be);

#endif
