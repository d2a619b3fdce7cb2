// V-JEPA: position tables, masks, and the four places where gradient may enter.
#include "common/model/vjepa.h"
#include "common/tensor/op.h"
#include "tests/common/model/golden.h"

#define CASE "tests/golden/vjepa_hd24"

// ---- Positions ----

TEST(positions_are_those_of_a_checkpoint) {
    Golden c;
    ModelPart *part;
    const SafetensorsEntry *e;
    Arena a = {0};
    CHECK_OK(golden_open(&c, CASE));
    CHECK_OK(model_dir_open(&part, CASE, NULL, NULL, NULL));
    CHECK_OK(model_dir_want(part, "encoder.module.backbone.pos_embed", &e));
    CHECK_EQ(e->dim[1], 3 * 4 * 4); // 6 frames in tubelets of 2, 32 pixels in patches of 8
    const float *want = e->data, *got = vjepa_positions(&a, 3, 4, 4, e->dim[2], true);
    double worst = 0;
    for (int64_t i = 0; i < e->dim[1] * e->dim[2]; i++)
        worst = fmax(worst, fabs((double)want[i] - (double)got[i]));
    CHECK_NEAR(worst, 0, 1e-6);
    model_dir_close(part);
    golden_close(&c);
    arena_free(&a);
}

TEST(positions_by_hand) {
    Arena a = {0};
    // 12 columns of 3 axes: 4 each, [sin 1p, sin .01p, cos 1p, cos .01p]; token 5 of 2x2x2 is t 1, h 0, w 1.
    const float *row = vjepa_positions(&a, 2, 2, 2, 12, true) + 5 * 12;
    const double want[12] = {sin(1), sin(.01), cos(1), cos(.01), 0,      0,
                             1,      1,        sin(1), sin(.01), cos(1), cos(.01)};
    for (int i = 0; i < 12; i++) CHECK_NEAR((double)row[i], want[i], 1e-7);
    // Half the columns for time, a quarter for each of the others.
    row = vjepa_positions(&a, 2, 2, 2, 8, false) + 5 * 8;
    const double uneven[8] = {sin(1), sin(.01), cos(1), cos(.01), 0, 1, sin(1), cos(1)};
    for (int i = 0; i < 8; i++) CHECK_NEAR((double)row[i], uneven[i], 1e-7);
    arena_free(&a);
}

// ---- Masks ----

enum { T = 8, GRID = 14, TOKENS = T * GRID * GRID };

static RngKey key_of(uint64_t sample, unsigned generator) {
    return (RngKey){.seed = 7, .sample = sample, .use = rng_use(RNG_MASKS, 0, 0, 0, generator)};
}

TEST(one_mask_is_a_partition_the_same_at_all_times) {
    static int32_t context[TOKENS], masked[TOKENS];
    static uint8_t seen[TOKENS];
    VjepaMaskShape s = {.t = T, .grid_h = GRID, .grid_w = GRID};
    CHECK_OK(vjepa_mask_draw(&vjepa_masks[0], key_of(1, 0), 1, &s, context, masked));
    CHECK_EQ(s.context_cnt + s.masked_cnt, TOKENS);
    for (int64_t i = 0; i < s.context_cnt; i++) {
        CHECK(i == 0 || context[i] > context[i - 1]);
        seen[context[i]] = 1;
    }
    for (int64_t i = 0; i < s.masked_cnt; i++) {
        CHECK(i == 0 || masked[i] > masked[i - 1]);
        CHECK(!seen[masked[i]]);
    }
    for (int i = 0; i < TOKENS; i++) CHECK_EQ(seen[i], seen[i % (GRID * GRID)]);
    static int32_t again_context[TOKENS], again_masked[TOKENS];
    VjepaMaskShape r = {.t = T, .grid_h = GRID, .grid_w = GRID};
    CHECK_OK(vjepa_mask_draw(&vjepa_masks[0], key_of(1, 0), 1, &r, again_context, again_masked));
    CHECK(!memcmp(context, again_context, sizeof context) &&
          !memcmp(masked, again_masked, sizeof masked));
}

// Means over 2000 draws at 224 pixels, computed from V-JEPA's own sampler: 585 and 290 context tokens.
TEST(as_much_context_as_in_training) {
    static int32_t context[TOKENS], masked[TOKENS];
    static const double want[2] = {585, 290};
    for (unsigned j = 0; j < 2; j++) {
        double sum = 0;
        for (uint64_t i = 0; i < 2000; i++) {
            VjepaMaskShape s = {.t = T, .grid_h = GRID, .grid_w = GRID};
            CHECK_OK(vjepa_mask_draw(&vjepa_masks[j], key_of(i, j), 1, &s, context, masked));
            CHECK(s.context_cnt > 0 && s.masked_cnt > 0);
            sum += (double)s.context_cnt;
        }
        CHECK_NEAR(sum / 2000, want[j], 0.03 * want[j]);
    }
}

TEST(a_batch_is_cut_to_its_shortest_and_to_limits) {
    static int32_t context[4 * TOKENS], masked[4 * TOKENS];
    VjepaMaskShape s = {.t = T, .grid_h = GRID, .grid_w = GRID};
    CHECK_OK(vjepa_mask_counts(&vjepa_masks[1], key_of(0, 1), &s));
    int64_t n_context = s.context_cnt, n_masked = s.masked_cnt;
    for (uint64_t i = 100; i < 200; i++) {
        CHECK_OK(vjepa_mask_draw(&vjepa_masks[1], key_of(i, 1), 4, &s, context, masked));
        CHECK_EQ(s.context_cnt, n_context);
        CHECK_EQ(s.masked_cnt, n_masked);
        for (int64_t k = 0; k < 4 * n_context; k++)
            CHECK(k % n_context == 0 || context[k] > context[k - 1]);
        for (int64_t k = 0; k < 4 * n_masked; k++)
            CHECK(k % n_masked == 0 || masked[k] > masked[k - 1]);
    }
    s.context_cnt = TOKENS; // nothing masked: never
    CHECK_ERR(vjepa_mask_draw(&vjepa_masks[1], key_of(0, 1), 1, &s, context, masked), ERR_USAGE,
              "no draw");
}

TEST(segmented_masks_hide_only_what_is_new) {
    static int32_t context[TOKENS], masked[TOKENS];
    VjepaMaskShape s = {.t = T, .grid_h = GRID, .grid_w = GRID, .from_time = 4};
    CHECK_OK(vjepa_mask_draw(&vjepa_masks[0], key_of(3, 0), 1, &s, context, masked));
    CHECK_EQ(s.context_cnt, 4 * GRID * GRID);
    for (int64_t i = 0; i < s.context_cnt; i++) CHECK_EQ(context[i], i);
    CHECK(s.masked_cnt > 0);
    for (int64_t i = 0; i < s.masked_cnt; i++) CHECK(masked[i] >= 4 * GRID * GRID);
}

// ---- Gradient ----

// The pixel gradient of the golden clip under an option. free() it.
static float *gradient(VjepaGradient option, int64_t first_frame, double *loss) {
    Golden c;
    Vjepa *v = NULL;
    VjepaLoss out;
    Tensor *d = NULL;
    Plan *plan = NULL;
    Backend *be = NULL;
    float *dx = NULL, one = 1;
    Graph *g = graph_new();
    Err err = golden_open(&c, CASE);
    if (!err) err = vjepa_open(&v, CASE);
    if (!err) err = backend_open(&be, "cpu", (BackendOptions){.pack_weights = true});
    if (err) goto out;
    Tensor *clips = graph_input(g, "clips", DTYPE_F32, SHAPE(2, 6, 32, 32, 3));
    Tensor *cot = graph_input(g, "cot", DTYPE_F32, SHAPE(1));
    VjepaMask mask[2] = {{graph_input(g, "c0", DTYPE_I32, SHAPE(2, 15)),
                          graph_input(g, "m0", DTYPE_I32, SHAPE(2, 30))},
                         {graph_input(g, "c1", DTYPE_I32, SHAPE(2, 12)),
                          graph_input(g, "m1", DTYPE_I32, SHAPE(2, 36))}};
    vjepa_build(v, g, clips, mask, 2, option, first_frame, true, &out);
    err = graph_check(g);
    if (!err) err = vjepa_grad(g, &out, cot, clips, &d);
    if (err) goto out;
    graph_output(g, &out.loss, "loss");
    graph_output(g, &d, "d");
    err = plan_new(&plan, g, be, (PlanOptions){0});
    if (err) goto out;
    // The file has (B, 3, T, H, W): channels last is one move.
    err = golden_write(&c, plan, clips, "in.clips", 1);
    static const char *const names[2][2] = {{"in.masks_enc.0", "in.masks_pred.0"},
                                            {"in.masks_enc.1", "in.masks_pred.1"}};
    for (int j = 0; j < 2; j++) {
        const SafetensorsEntry *e = safetensors_find(c.file, names[j][0]),
                               *m = safetensors_find(c.file, names[j][1]);
        if (!err) err = plan_write(plan, mask[j].context, e->data);
        if (!err) err = plan_write(plan, mask[j].masked, m->data);
    }
    if (!err) err = plan_write(plan, cot, &one);
    if (!err) err = plan_run(plan);
    if (err) goto out;
    float value;
    err = plan_read(plan, out.loss, &value);
    *loss = value;
    dx = malloc((size_t)shape_count(d->shape) * sizeof *dx);
    err = plan_read(plan, d, dx);
out:
    if (err) TEST_FAIL("%s", err_trace());
    plan_free(plan);
    graph_free(g);
    backend_close(be);
    vjepa_close(v);
    golden_close(&c);
    return dx;
}

enum { FRAME = 32 * 32 * 3, CLIP = 6 * FRAME, ALL = 2 * CLIP };

TEST(the_two_paths_make_the_whole) {
    double loss[4];
    float *stop = gradient(VJEPA_STOP_TARGET, 0, &loss[0]),
          *full = gradient(VJEPA_FULL, 0, &loss[1]);
    float *target = gradient(VJEPA_TARGET_ONLY, 0, &loss[2]),
          *segmented = gradient(VJEPA_SEGMENTED, 2, &loss[3]);
    CHECK(stop && full && target && segmented);
    for (int i = 1; i < 4; i++)
        CHECK(loss[i] == loss[0]); // the value does not depend on the option
    double diff = 0, norm = 0, seam = 0;
    for (int i = 0; i < ALL; i++) {
        double d = (double)stop[i] + (double)target[i] - (double)full[i];
        diff += d * d;
        norm += (double)full[i] * (double)full[i];
        bool old = i % CLIP < 2 * FRAME; // frames 0 and 1
        seam = fmax(seam, fabs((double)segmented[i] - (old ? 0 : (double)target[i])));
    }
    CHECK_NEAR(sqrt(diff / norm), 0, 1e-6);
    CHECK_NEAR(seam, 0, 1e-9);
    free(stop);
    free(full);
    free(target);
    free(segmented);
}

TEST(refused) {
    VjepaGradient option;
    CHECK_OK(vjepa_gradient_parse("target_only", &option));
    CHECK_EQ(option, VJEPA_TARGET_ONLY);
    CHECK_ERR(vjepa_gradient_parse("half", &option), ERR_USAGE,
              "want stop_target, full, target_only or segmented");
    Vjepa *v;
    VjepaLoss out;
    CHECK_OK(vjepa_open(&v, CASE));
    Graph *g = graph_new();
    VjepaMask mask = {graph_input(g, "c", DTYPE_I32, SHAPE(1, 3)),
                      graph_input(g, "m", DTYPE_I32, SHAPE(1, 3))};
    Tensor *clips = graph_input(g, "clips", DTYPE_F32, SHAPE(1, 6, 32, 32, 3));
    vjepa_build(v, g, clips, &mask, 1, VJEPA_SEGMENTED, 3, false, &out); // splits a tubelet
    CHECK_ERR(graph_check(g), ERR_USAGE, "begins at frame 3 of 6, want a multiple of 2");
    graph_free(g);
    g = graph_new();
    mask = (VjepaMask){graph_input(g, "c", DTYPE_I32, SHAPE(1, 3)),
                       graph_input(g, "m", DTYPE_I32, SHAPE(1, 3))};
    vjepa_build(v, g, graph_input(g, "clips", DTYPE_F32, SHAPE(1, 8, 32, 32, 3)), &mask, 1,
                VJEPA_FULL, 0, false, &out);
    CHECK_ERR(graph_check(g), ERR_SHAPE,
              "clips are (1, 8, 32, 32, 3), want (N, T, 32, 32, 3), T a multiple of 2 up to 6");
    graph_free(g);
    vjepa_close(v);
}
