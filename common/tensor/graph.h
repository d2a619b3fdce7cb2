// graph: a list of tensors, each the result of one operator. Building runs nothing.
//
// A model builder appends nodes; grad.h appends the nodes of a vjp to the same list; plan.h turns the
// list into memory offsets and kernels. The list order is the order of execution.
//
//     Graph *g = graph_new();
//     Tensor *x = graph_input(g, "x", DTYPE_F32, SHAPE(2, 3, 64));       // (N, L, D)
//     Tensor *w = graph_weight(g, "fc.weight", DTYPE_F16, SHAPE(32, 64), file_bytes);
//     Tensor *y = op_linear(g, x, w, NULL, NULL);                        // op.h: (N, L, 32)
//     graph_output(g, &y, "y");
//     TRY(graph_check(g));
//
// Errors are sticky: a builder call that fails (shapes that do not go together, ...) records the
// message with the names and shapes of its inputs and returns NULL; every builder given a NULL
// required input returns NULL. graph_check (or plan_new) reports the first message, so that model
// text has no error handling between the lines.
//
// Layout: every tensor is row-major with up to 6 dims; feature maps are channels last (N, T, H, W, C).
// A view (slice, reshape) shares the storage of its base. All arithmetic is on DTYPE_F32; weights may
// be stored as F16 or BF16 and are widened by the kernels that read them; indices are I32.
#ifndef COMMON_TENSOR_GRAPH_H
#define COMMON_TENSOR_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/dtype.h"
#include "common/base/err.h"

enum {
    TENSOR_DIMS_MAX = 6,
    TENSOR_INPUTS_MAX = 6,
};

typedef struct Shape {
    int rank;
    int64_t dim[TENSOR_DIMS_MAX]; // outermost first; dims past rank are 1
} Shape;

#define SHAPE(...) \
    shape_make((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
Shape shape_make(int rank, const int64_t *dim);
int64_t shape_count(Shape s); // product of dims
bool shape_equal(Shape a, Shape b);
// Product of dims [from, to).
int64_t shape_span(Shape s, int from, int to);
// "(2, 3, 64)" into buf; returns buf.
char *shape_text(Shape s, char buf[96]);

typedef enum Op {
    OP_INPUT,  // written or bound by the caller before each run
    OP_WEIGHT, // constant bytes known while building; packed once by the backend
    OP_VIEW,   // reshape or slice of in[0]; has no kernel
#define OP(name, inputs_min, inputs_max, flags) OP_##name,
#include "common/tensor/op.def"
#undef OP
    OP_COUNT,
} Op;

// What the memory table books a tensor under.
typedef enum TensorKind {
    KIND_WEIGHT,
    KIND_INPUT,
    KIND_OUTPUT,
    KIND_ACTIVATION,
    KIND_GRADIENT,
    KIND_COUNT,
} TensorKind;

// Parameters of an operator; the member is named after the op that reads it (op.h says what each means).
typedef union OpAttr {
    struct {
        bool trans;
        double scale;
    } linear; // linear, lora_linear
    struct {
        bool ta, tb;
    } bmm;
    struct {
        int stride[3], lo[3], hi[3];
        int64_t in[3];
        int64_t kernel[3];
    } conv; // (T, H, W)
    struct {
        double eps;
        int groups;
        bool silu;
    } norm; // layernorm, groupnorm
    struct {
        int kind;
    } unary; // UnaryKind
    struct {
        double a, b;
    } affine; // affine, clamp (lo, hi)
    struct {
        int heads, axis;
        double scale;
        bool causal;
    } sdpa;
    struct {
        int axis;
        int64_t len;
    } index; // gather, scatter_add, concat
    struct {
        int64_t lo[TENSOR_DIMS_MAX], hi[TENSOR_DIMS_MAX];
    } pad;
    struct {
        int perm[TENSOR_DIMS_MAX];
    } permute;
    struct {
        bool axis[TENSOR_DIMS_MAX];
    } sum;
    struct {
        int64_t h, w;
    } resize; // size of the other side
    struct {
        int pt, ph, pw;
        int64_t t, h, w, c;
    } patch;
    struct {
        double p;
    } dropout;
    struct {
        int64_t dim;
    } sinusoid;
} OpAttr;

typedef struct Tensor Tensor;
struct Tensor {
    const char *name;
    Op op;
    TensorKind kind;
    DType dtype;
    Shape shape;
    int64_t stride[TENSOR_DIMS_MAX]; // in elements; row-major unless a view
    int in_cnt;                      // trailing optional inputs that are absent are NULL
    Tensor *in[TENSOR_INPUTS_MAX];
    OpAttr attr;
    Tensor *base;     // views: the tensor that owns the storage (never itself a view); else NULL
    int64_t offset;   // views: first element within base
    const void *data; // OP_WEIGHT: the bytes, borrowed for the life of every plan of this graph
    int id;           // position in the list
    int segment;      // recompute segment, 0 = none
    bool is_output;
    bool is_gradient; // appended by grad_build
};

typedef struct Graph {
    Arena arena;
    Tensor **node; // in order of execution
    int node_cnt, node_cap;
    int segment, segment_cnt; // segment that new nodes join; how many exist
    const char *scope;        // prefix of new names
    bool building_gradient;
    uint64_t weights_hash; // of the weights that params handed out for it, in that order
    Err err;               // first failure, sticky
    char *err_msg;
} Graph;

Graph *graph_new(void);
void graph_free(Graph *g);

// First recorded failure, or ERR_OK.
Err graph_check(const Graph *g);

// Records a failure (the first one wins). Returns NULL so that builders can return it.
Tensor *graph_fail(Graph *g, Err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// A tensor whose storage the caller writes or binds before each run. The name is copied.
Tensor *graph_input(Graph *g, const char *name, DType dtype, Shape shape);

// A constant. `data` is borrowed: it must stay readable and unchanged (a memory-mapped file, usually) while a
// plan of g lives, and until the backend is closed if it packs weights: its copies are keyed by `data`.
Tensor *graph_weight(Graph *g, const char *name, DType dtype, Shape shape, const void *data);

// Marks *t as a result: it keeps its value until the next run and can be read by plan_data(). A view,
// input or weight is first copied into a tensor of its own, which replaces *t. Renames it to name.
void graph_output(Graph *g, Tensor **t, const char *name);

// Names new nodes "<scope>.<op>..." until the next call; NULL = none. The text is copied.
void graph_scope(Graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Nodes between begin and end form one recompute segment: grad_build re-emits them in front of their
// gradient instead of keeping their values alive. Values that later nodes read survive as usual.
void graph_segment_begin(Graph *g);
void graph_segment_end(Graph *g);

// Appends a node: runs the op's shape rule, computes strides. For op.c and grad.c; models use op.h.
Tensor *graph_node(Graph *g, Op op, OpAttr attr, int in_cnt, Tensor *const *in);
// Appends a view of in. Strides and offset are relative to in's base.
Tensor *graph_view(Graph *g, Tensor *in, Shape shape, const int64_t *stride,
                   int64_t offset_in_view);

// Row-major without gaps.
bool tensor_is_contiguous(const Tensor *t);
// All but the last axis can be walked as rows of equal stride (a slice of the last axis qualifies);
// *row_stride receives it, in elements.
bool tensor_has_rows(const Tensor *t, int64_t *row_stride);

// Static facts about an op.
typedef struct OpInfo {
    const char *name;
    int in_min, in_max;
    unsigned flags;          // OP_FLAG_*
    Err (*shape)(Tensor *t); // sets dtype and shape from in[] and attr
    // Appends gradient nodes: for each i with want[i], dx[i] = vjp of input i for the cotangent dy.
    void (*grad)(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx);
} OpInfo;
enum {
    OP_FLAG_INPLACE = 1, // output may take the storage of in[0] (same size, elementwise)
    OP_FLAG_ROWS = 2, // inputs may be row-strided views (tensor_has_rows); else the builder copies
    OP_FLAG_STRIDED = 4, // any view is accepted
    OP_FLAG_INT = 8,     // an input may be I32 (the shape rule says which); else that is an error
};
const OpInfo *op_info(Op op);

#endif
