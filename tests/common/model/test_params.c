// params: one message for each way in which weights can be wrong.
#include "common/model/params.h"

#include "common/format/safetensors.h"
#include "tests/test.h"

static const char *scratch(const char *name, char path[512]) {
    snprintf(path, 512, "%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
    return path;
}

// A file with a.weight (2, 3) of `dtype`, a.bias (2) F16, b.table (1, 2) F16; element `bad` of a.weight is NaN.
static Err write_file(const char *path, DType dtype, int bad, float nan) {
    float w[6] = {1, -2, 3, -4, 65504, 6};
    unsigned char stored[48], bias[4], table[4];
    if (bad >= 0) w[bad] = nan;
    dtype_convert(stored, dtype, w, DTYPE_F32, 6);
    dtype_convert(bias, DTYPE_F16, (float[]){0.5f, -0.25f}, DTYPE_F32, 2);
    dtype_convert(table, DTYPE_F16, (float[]){7, 8}, DTYPE_F32, 2);
    SafetensorsEntry e[] = {
        {"a.weight", NULL, dtype, 2, {2, 3}, stored, 6 * dtype_bytes(dtype)},
        {"a.bias", NULL, DTYPE_F16, 1, {2}, bias, 4},
        {"b.table", NULL, DTYPE_F16, 2, {1, 2}, table, 4},
    };
    return safetensors_write(path, e, 3, NULL, 0);
}

TEST(finds) {
    char path[512];
    Params *p;
    CHECK_OK(write_file(scratch("w.safetensors", path), DTYPE_F16, -1, 0));
    CHECK_OK(params_open(&p, path, "", NULL));
    Graph *g = graph_new();
    Tensor *w = params_get(p, g, "a.weight", SHAPE(2, 3));
    CHECK(w && w->dtype == DTYPE_F16 && w->op == OP_WEIGHT);
    Tensor *b = params_get(p, g, "a.bias", SHAPE(2)); // vectors are widened
    CHECK(b && b->dtype == DTYPE_F32);
    CHECK_NEAR(((const float *)b->data)[1], -0.25, 0);
    Tensor *again = params_get(p, g, "a.bias", SHAPE(2));
    CHECK(again != b && again->data == b->data);
    Tensor *seen = params_get_as(p, g, "a.weight", SHAPE(2, 3), SHAPE(6, 1));
    CHECK(seen && seen->shape.dim[0] == 6);
    CHECK_ERR(params_finish(p), ERR_FORMAT, "1 tensors that this model does not have: b.table");
    Tensor *t = params_get_f32(p, g, "b.table", SHAPE(1, 2), SHAPE(2));
    CHECK(t && t->dtype == DTYPE_F32);
    CHECK_NEAR(((const float *)t->data)[1], 8, 0);
    CHECK_OK(params_finish(p));
    CHECK_OK(graph_check(g));
    graph_free(g);
    params_close(p);
}

TEST(prefix_and_ignore) {
    char path[512];
    Params *p;
    CHECK_OK(write_file(scratch("w.safetensors", path), DTYPE_F32, -1, 0));
    CHECK_OK(params_open(&p, path, "a.", NULL));
    CHECK(params_has(p, "bias") && !params_has(p, "a.bias") && !params_has(p, "table"));
    Graph *g = graph_new();
    CHECK(params_get(p, g, "weight", SHAPE(2, 3)));
    CHECK_ERR(params_finish(p), ERR_FORMAT, "a.bias"); // b.table is another part's
    params_ignore(p, "b*s");
    CHECK_OK(params_finish(p));
    graph_free(g);
    params_close(p);
    CHECK_ERR(params_open(&p, path, "c.", NULL), ERR_FORMAT, "no tensor's name begins with 'c.'");
}

static void refuse(const char *path, const char *key, Shape shape, Err code, const char *says) {
    Params *p;
    CHECK_OK(params_open(&p, path, "", NULL));
    Graph *g = graph_new();
    CHECK(!params_get(p, g, key, shape));
    CHECK_ERR(graph_check(g), code, says);
    CHECK_ERR(graph_check(g), code, "w.safetensors");
    CHECK(!params_get(p, g, "a.bias", SHAPE(2))); // sticky
    graph_free(g);
    params_close(p);
}

TEST(refuses) {
    char path[512];
    CHECK_OK(write_file(scratch("w.safetensors", path), DTYPE_F32, -1, 0));
    refuse(path, "c.weight", SHAPE(4, 5), ERR_FORMAT, "c.weight is missing, want a tensor (4, 5)");
    refuse(path, "a.weight", SHAPE(3, 3), ERR_FORMAT, "a.weight is (2, 3), want (3, 3)");
    refuse(path, "a.weight", SHAPE(2, 3, 1), ERR_FORMAT, "a.weight is (2, 3), want (2, 3, 1)");
}

TEST(nan_and_inf) {
    static const DType types[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32, DTYPE_F64};
    char path[512], says[64];
    for (int t = 0; t < 4; t++)
        for (int bad = 0; bad < 6; bad += 5)
            for (int inf = 0; inf < 2; inf++) {
                CHECK_OK(write_file(scratch("w.safetensors", path), types[t], bad,
                                    inf ? -INFINITY : NAN));
                snprintf(says, sizeof says, "a.weight has %s at element %d", inf ? "Inf" : "NaN",
                         bad);
                refuse(path, "a.weight", SHAPE(2, 3), ERR_NUMERIC, says);
                if (test_failed()) return;
            }
}
