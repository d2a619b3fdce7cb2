// Building graphs: shapes that do not fit name both tensors, the first error stays, NULL runs through.
#include "common/tensor/graph.h"
#include "common/tensor/op.h"
#include "tests/test.h"

// A new graph for one block; the end of the block frees it.
#define GRAPH(g)                                                 \
    __attribute__((cleanup(free_graph))) Graph *g = graph_new(); \
    (void)g
static void free_graph(Graph **g) { graph_free(*g); }

#define F32 DTYPE_F32
static Tensor *in(Graph *g, const char *name, Shape shape) {
    return graph_input(g, name, F32, shape);
}

// ---- Shapes ------------------------------------------------------------------------------------

TEST(shapes) {
    char text[96];
    CHECK_STR(shape_text(SHAPE(2, 3, 64), text), "(2, 3, 64)");
    CHECK_STR(shape_text(shape_make(0, NULL), text), "()");
    CHECK_EQ(shape_count(SHAPE(2, 3, 64)), 384);
    CHECK_EQ(shape_count(shape_make(0, NULL)), 1);
    CHECK_EQ(shape_span(SHAPE(2, 3, 64), 1, 3), 192);
    CHECK(shape_equal(SHAPE(2, 3), SHAPE(2, 3)));
    CHECK(!shape_equal(SHAPE(2, 3), SHAPE(2, 3, 1)));
}

// What is built, and the message that must come of it, in full.
typedef struct Mismatch {
    Tensor *(*build)(Graph *g, Tensor *a, Tensor *b);
    Shape a, b;
    const char *message;
} Mismatch;

static Tensor *add(Graph *g, Tensor *a, Tensor *b) { return op_add(g, a, b); }
static Tensor *linear(Graph *g, Tensor *a, Tensor *b) { return op_linear(g, a, b, NULL, NULL); }
static Tensor *biased(Graph *g, Tensor *a, Tensor *b) { return op_linear(g, a, a, b, NULL); }
static Tensor *conv(Graph *g, Tensor *a, Tensor *b) {
    return op_conv(g, a, b, NULL, NULL, (ConvSpec){0});
}
static Tensor *bmm(Graph *g, Tensor *a, Tensor *b) { return op_bmm(g, a, b, false, false); }
static Tensor *concat(Graph *g, Tensor *a, Tensor *b) {
    return op_concat(g, 1, 2, (Tensor *[]){a, b});
}
static Tensor *layernorm(Graph *g, Tensor *a, Tensor *b) {
    return op_layernorm(g, a, b, NULL, 1e-5);
}
static Tensor *gather(Graph *g, Tensor *a, Tensor *b) { return op_gather(g, a, b, 0); }
static Tensor *reshape(Graph *g, Tensor *a, Tensor *b) { return op_reshape(g, a, SHAPE(5, -1)); }
static Tensor *slice(Graph *g, Tensor *a, Tensor *b) { return op_slice(g, a, 1, 2, 2); }
static Tensor *expand(Graph *g, Tensor *a, Tensor *b) { return op_expand(g, a, b->shape); }
static Tensor *sdpa(Graph *g, Tensor *a, Tensor *b) { return op_sdpa(g, a, b, b, 3, 2, 1, false); }
static Tensor *scoped(Graph *g, Tensor *a, Tensor *b) {
    graph_scope(g, "mid.%d", 3);
    return op_mul(g, a, b);
}
static Tensor *later(Graph *g, Tensor *a, Tensor *b) {
    return op_mul(g, op_unary(g, UNARY_silu, a), b);
}

TEST(mismatches_name_both_tensors) {
    static const Mismatch cases[] = {
        {add,
         {2, {2, 3, 1, 1, 1, 1}},
         {2, {2, 4, 1, 1, 1, 1}},
         "add#2: shapes do not broadcast; inputs: a (2, 3), b (2, 4)"},
        {linear,
         {2, {7, 3, 1, 1, 1, 1}},
         {2, {5, 4, 1, 1, 1, 1}},
         "linear#2: x has 3 columns, the weight takes 4; inputs: a (7, 3), b (5, 4)"},
        {biased,
         {2, {3, 3, 1, 1, 1, 1}},
         {1, {4, 1, 1, 1, 1, 1}},
         "linear#2: the bias must be (3); inputs: a (3, 3), a (3, 3), b (4)"},
        {conv,
         {5, {1, 1, 8, 8, 3, 1}},
         {5, {4, 2, 1, 3, 3, 1}},
         "conv#2: x has 3 channels, the weight takes 2; inputs: a (1, 1, 8, 8, 3), b (4, 2, 1, 3, 3)"},
        {conv,
         {5, {1, 1, 2, 8, 3, 1}},
         {5, {4, 3, 1, 3, 3, 1}},
         "conv#2: the kernel is larger than the padded input; inputs: a (1, 1, 2, 8, 3), b (4, 3, 1, "
         "3, 3)"},
        {bmm,
         {3, {2, 3, 4, 1, 1, 1}},
         {3, {2, 5, 3, 1, 1, 1}},
         "bmm#2: the contracted axes differ; inputs: a (2, 3, 4), b (2, 5, 3)"},
        {concat,
         {2, {2, 3, 1, 1, 1, 1}},
         {2, {3, 3, 1, 1, 1, 1}},
         "concat#2: inputs may differ along axis 1 only; inputs: a (2, 3), b (3, 3)"},
        {layernorm,
         {2, {2, 3, 1, 1, 1, 1}},
         {1, {3, 1, 1, 1, 1, 1}},
         "layernorm#2: want gain and bias, or neither; inputs: a (2, 3), b (3)"},
        {gather,
         {2, {2, 3, 1, 1, 1, 1}},
         {1, {3, 1, 1, 1, 1, 1}},
         "gather#2: indices are f32, want i32; inputs: a (2, 3), b (3)"},
        {reshape,
         {2, {2, 3, 1, 1, 1, 1}},
         {1, {1, 1, 1, 1, 1, 1}},
         "a: reshape of (2, 3) to (5, 1)"},
        {slice,
         {2, {2, 3, 1, 1, 1, 1}},
         {1, {1, 1, 1, 1, 1, 1}},
         "a: slice [2, 4) of axis 1 of (2, 3)"},
        {expand,
         {2, {2, 3, 1, 1, 1, 1}},
         {2, {2, 6, 1, 1, 1, 1}},
         "expand#2: axis 1 has 3 entries, want 1 or 6; inputs: a (2, 3)"},
        {sdpa,
         {4, {1, 1, 5, 8, 1, 1}},
         {4, {1, 1, 5, 8, 1, 1}},
         "sdpa#2: 8 channels do not split into 3 heads; inputs: a (1, 1, 5, 8), b (1, 1, 5, 8), b (1, "
         "1, 5, 8)"},
        {scoped,
         {1, {2, 1, 1, 1, 1, 1}},
         {1, {3, 1, 1, 1, 1, 1}},
         "mid.3.mul#2: shapes do not broadcast; inputs: a (2), b (3)"},
        {later,
         {1, {2, 1, 1, 1, 1, 1}},
         {1, {3, 1, 1, 1, 1, 1}},
         "mul#3: shapes do not broadcast; inputs: unary#2 (2), b (3)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        GRAPH(g);
        Tensor *a = in(g, "a", cases[i].a), *b = in(g, "b", cases[i].b);
        CHECK(!cases[i].build(g, a, b));
        CHECK_ERR(graph_check(g), ERR_SHAPE, "");
        CHECK_STR(err_text(), cases[i].message);
    }
}

TEST(empty_dims_are_refused) {
    GRAPH(g);
    CHECK(!in(g, "x", SHAPE(2, 0, 3)));
    CHECK_ERR(graph_check(g), ERR_SHAPE, "x: shape (2, 0, 3) has an empty dim");
}

TEST(a_weight_needs_data) {
    GRAPH(g);
    CHECK(!graph_weight(g, "fc.weight", F32, SHAPE(2), NULL));
    CHECK_ERR(graph_check(g), ERR_FORMAT, "weight fc.weight has no data");
}

// ---- Errors ------------------------------------------------------------------------------------

TEST(the_first_error_stays) {
    GRAPH(g);
    Tensor *a = in(g, "a", SHAPE(2)), *b = in(g, "b", SHAPE(3)), *c = in(g, "c", SHAPE(5));
    CHECK_OK(graph_check(g));
    op_add(g, a, b);
    op_add(g, b, c);
    graph_fail(g, ERR_FORMAT, "something else");
    for (int i = 0; i < 2; i++)
        CHECK_ERR(graph_check(g), ERR_SHAPE,
                  "add#3: shapes do not broadcast; inputs: a (2), b (3)");
    CHECK(!op_add(g, a, a)); // nothing is built after an error
    CHECK_EQ(g->node_cnt, 3);
}

TEST(null_runs_through) {
    GRAPH(g);
    Tensor *a = in(g, "a", SHAPE(2, 4)), *none = NULL;
    int nodes = g->node_cnt;
    CHECK(!op_reshape(g, none, SHAPE(2)) && !op_slice(g, none, 0, 0, 1) && !op_copy(g, none, F32));
    CHECK(!op_add(g, a, none) && !op_add(g, none, a) && !op_unary(g, UNARY_exp, none));
    CHECK(!op_linear(g, a, none, NULL, NULL) && !op_linear(g, none, a, NULL, NULL));
    CHECK(!op_concat(g, 0, 2, (Tensor *[]){a, none}) && !op_gather(g, a, none, 0));
    CHECK(!op_mean(g, none, 1) && !op_l2_normalize(g, none) && !op_expand(g, none, SHAPE(2)));
    CHECK(!op_permute(g, none, (int[]){0}) && !op_pad(g, none, NULL, NULL));
    CHECK(!op_sdpa(g, a, none, none, 1, 2, 1, false) && !op_softmax(g, none));
    CHECK(!op_layernorm(g, none, NULL, NULL, 1e-5) &&
          !op_groupnorm(g, a, none, none, 2, 1e-5, true));
    CHECK(!op_sinusoid_dx(g, none, a) && !op_dropout(g, none, a, 0.5) && !op_clamp(g, none, 0, 1));
    graph_output(g, &none, "y");
    CHECK_EQ(g->node_cnt, nodes); // and appends nothing
    CHECK_OK(graph_check(g)); // a missing input is not the graph's error: who made it has said why
}

// ---- Names and outputs -------------------------------------------------------------------------

TEST(names_and_scopes) {
    GRAPH(g);
    char name[] = "x";
    Tensor *x = in(g, name, SHAPE(2, 3));
    name[0] = 'y';
    CHECK_STR(x->name, "x"); // copied
    CHECK_STR(op_softmax(g, x)->name, "softmax#1");
    graph_scope(g, "down_blocks.%d.attn", 2);
    CHECK_STR(op_softmax(g, x)->name, "down_blocks.2.attn.softmax#2");
    CHECK_STR(op_slice(g, x, 1, 0, 2)->name, "down_blocks.2.attn.view#3");
    graph_scope(g, NULL);
    CHECK_STR(op_softmax(g, x)->name, "softmax#4");
}

TEST(outputs_own_their_memory) {
    GRAPH(g);
    static const float bytes[6];
    Tensor *x = in(g, "x", SHAPE(2, 3)), *w = graph_weight(g, "w", F32, SHAPE(2, 3), bytes);
    Tensor *view = op_reshape(g, x, SHAPE(6)), *y = op_add(g, x, w);
    Tensor *out[] = {x, w, view, y, y};
    for (int i = 0; i < 5; i++) {
        graph_output(g, &out[i], "out");
        CHECK(out[i]->is_output && out[i]->kind == KIND_OUTPUT);
        CHECK_STR(out[i]->name, "out");
    }
    CHECK(out[0] != x && out[1] != w && out[2] != view); // copied
    CHECK(out[3] == y && out[4] != y);                   // the second time, too
    CHECK(shape_equal(out[2]->shape, SHAPE(6)));
    CHECK(!x->is_output && x->kind == KIND_INPUT && w->kind == KIND_WEIGHT);
}

// ---- Views -------------------------------------------------------------------------------------

TEST(views_share_their_base) {
    GRAPH(g);
    int64_t row;
    Tensor *x = in(g, "x", SHAPE(4, 5, 6));
    Tensor *mid = op_slice(g, x, 1, 2, 2); // (4, 2, 6)
    Tensor *deep = op_slice(g, mid, -1, 3, 2);
    CHECK(mid->base == x && deep->base == x);
    CHECK_EQ(mid->offset, 12);
    CHECK_EQ(deep->offset, 15);
    CHECK(!tensor_is_contiguous(mid) && !tensor_has_rows(mid, &row));
    Tensor *columns = op_slice(g, x, 2, 1, 3);
    CHECK(tensor_has_rows(columns, &row));
    CHECK_EQ(row, 6);
    CHECK(tensor_is_contiguous(op_slice(g, x, 0, 1, 2)));
    CHECK(op_slice(g, x, 2, 0, 6) == x && op_reshape(g, x, x->shape) == x); // nothing to do
    Tensor *flat = op_reshape(g, x, SHAPE(-1));
    CHECK(flat->base == x && shape_equal(flat->shape, SHAPE(120)));
    Tensor *copied = op_reshape(g, mid, SHAPE(8, 6)); // cannot be a view of x
    CHECK(copied->base != x && copied->base->op == OP_copy);
}

TEST(builders_copy_what_a_kernel_cannot_walk) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(4, 5, 6)), *w = in(g, "w", SHAPE(7, 3));
    Tensor *columns = op_slice(g, x, 2, 1, 3), *mid = op_slice(g, x, 1, 1, 3);
    CHECK(op_linear(g, columns, w, NULL, NULL)->in[0] == columns); // rows of one stride
    CHECK(op_softmax(g, columns)->in[0]->op == OP_copy);
    CHECK(op_copy(g, mid, F32)->in[0] == mid);
    Tensor *y = op_concat(g, 0, 2, (Tensor *[]){mid, mid});
    CHECK(y->in[0]->op == OP_copy && y->in[1]->op == OP_copy);
}
