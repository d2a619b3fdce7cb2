// op: the table that op.def generates, and the operation counts.
#include "common/tensor/op.h"

#include "common/tensor/ops/rules.h"

static Err no_shape(Tensor *t) { die("%s: leaf or view without a shape", t->name); }
static void no_grad(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    die("%s: no rule", t->name);
}

static const OpInfo table[OP_COUNT] = {
    [OP_INPUT] = {"input", 0, 0, 0, no_shape, no_grad},
    [OP_WEIGHT] = {"weight", 0, 0, 0, no_shape, no_grad},
    [OP_VIEW] = {"view", 1, 1, 0, no_shape, no_grad},
#define OP(name, inputs_min, inputs_max, flags) \
    [OP_##name] = {#name, inputs_min, inputs_max, flags, op_shape_##name, op_grad_##name},
#include "common/tensor/op.def"
#undef OP
};

const OpInfo *op_info(Op op) { return &table[op]; }

double op_flops(const Tensor *t) {
    double out = (double)shape_count(t->shape);
    switch (t->op) {
    case OP_linear:
    case OP_lora_linear: return 2 * out * (double)last_dim(t->in[0]);
    case OP_linear_dw:
        return 2 * out * (double)shape_count(t->in[0]->shape) / (double)last_dim(t->in[0]);
    case OP_bmm: {
        const Shape a = t->in[0]->shape;
        return 2 * out * (double)a.dim[t->attr.bmm.ta ? a.rank - 2 : a.rank - 1];
    }
    case OP_conv: return 2 * out * (double)shape_span(t->in[1]->shape, 1, 5);
    case OP_conv_dx:
        return 2 * (double)shape_count(t->in[0]->shape) * (double)shape_span(t->in[1]->shape, 1, 5);
    case OP_conv_dw:
        return 2 * (double)shape_count(t->in[0]->shape) * (double)shape_span(t->shape, 1, 5);
    case OP_sdpa: return 4 * out * (double)t->in[1]->shape.dim[t->attr.sdpa.axis];
    case OP_sdpa_back:
        return 10 * (double)shape_count(t->in[1]->shape) *
               (double)t->in[2]->shape.dim[t->attr.sdpa.axis];
    default: return out;
    }
}
