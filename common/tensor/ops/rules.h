// rules: what every file in ops/ needs to state an op: the declarations that op.def generates, and
// checks that fail with one sentence.
#ifndef COMMON_TENSOR_OPS_RULES_H
#define COMMON_TENSOR_OPS_RULES_H

#include "common/tensor/op.h"

#define OP(name, inputs_min, inputs_max, flags) \
    Err op_shape_##name(Tensor *t);             \
    void op_grad_##name(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx);
#include "common/tensor/op.def"
#undef OP

#define WANT(cond, ...)                            \
    do {                                           \
        if (!(cond)) FAIL(ERR_SHAPE, __VA_ARGS__); \
    } while (0)

#define NODE(g, op, attr, ...)                                                                 \
    graph_node((g), (op), (attr), (int)(sizeof((Tensor *[]){__VA_ARGS__}) / sizeof(Tensor *)), \
               (Tensor *[]){__VA_ARGS__})

// The op has no gradient: recorded as an error when one is asked for.
static inline void no_gradient(Graph *g, const Tensor *t) {
    graph_fail(g, ERR_USAGE, "%s: %s has no gradient", t->name, op_info(t->op)->name);
}

static inline int64_t last_dim(const Tensor *t) { return t->shape.dim[t->shape.rank - 1]; }

#endif
