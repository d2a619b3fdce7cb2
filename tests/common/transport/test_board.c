// The board: layout, rings, tags, and who may join.
#include "common/transport/board.h"

#include "tests/test.h"

static const BoardSpec SPEC = {
    .theta_cnt = 1000, .rollouts = 3, .lag = 2, .module_cnt = 2, .rank = 4, .alpha = 8};
static const BoardModule MODULES[2] = {{.path = "one.to_q", .in = 10, .out = 20, .b_at = 40},
                                       {.path = "two.to_k", .in = 5, .out = 6, .a_at = 120}};

static void *memory_of(const BoardSpec *spec) {
    void *m = aligned_alloc(4096, (size_t)board_bytes(spec));
    if (m) memset(m, 0, (size_t)board_bytes(spec));
    return m;
}

TEST(create_and_join) {
    void *m = memory_of(&SPEC);
    Board *b, *c;
    CHECK_OK(board_create(&b, m, &SPEC, MODULES));
    CHECK_OK(board_join(&c, m, board_bytes(&SPEC)));
    CHECK_EQ(board_spec(c)->theta_cnt, 1000);
    CHECK_EQ(board_spec(c)->lag, 2);
    CHECK_STR(board_module(c, 1)->path, "two.to_k");
    CHECK_EQ(board_module(c, 1)->a_at, 120);
    CHECK_EQ(board_version(c), 0);
    CHECK_EQ(board_ready(c), 0);
    board_set_ready(b);
    CHECK_EQ(board_ready(c), 1);
    board_commit(b, 5);
    CHECK_EQ(board_version(c), 5);
    CHECK_EQ(board_durable(c), 0);
    board_set_durable(b, 4);
    CHECK_EQ(board_durable(c), 4);
    board_leave(b);
    board_leave(c);
    free(m);
}

TEST(blocks_do_not_overlap) {
    for (uint32_t lag = 0; lag < 4; lag++) {
        BoardSpec spec = SPEC;
        spec.lag = lag;
        char *m = memory_of(&spec);
        Board *b;
        CHECK_OK(board_create(&b, m, &spec, MODULES));
        uint32_t ring = (lag + 1 > 2 ? lag + 1 : 2) + 1;
        float *block[32];
        int cnt = 0;
        for (uint32_t v = 0; v < ring; v++) block[cnt++] = board_theta(b, v);
        for (uint64_t v = 0; v < 2; v++) block[cnt++] = board_m(b, v), block[cnt++] = board_v(b, v);
        for (uint64_t i = 0; i < spec.rollouts; i++) block[cnt++] = board_row(b, i);
        for (int i = 0; i < cnt; i++) {
            CHECK((char *)block[i] >= m);
            CHECK((char *)(block[i] + spec.theta_cnt) <= m + board_bytes(&spec));
            for (int j = 0; j < i; j++)
                CHECK(block[i] + spec.theta_cnt <= block[j] ||
                      block[j] + spec.theta_cnt <= block[i]);
            CHECK_EQ((uintptr_t)block[i] % 64, 0);
            memset(block[i], 0x55, (size_t)spec.theta_cnt * sizeof(float));
        }
        CHECK_EQ(board_version(b), 0); // the header is not among them
        CHECK_STR(board_module(b, 0)->path, "one.to_q");
        CHECK_EQ(board_tag(b, 0), 0);
        // rings: what the sampler of lag l and the learner use at once is distinct
        for (uint64_t v = 7; v < 20; v++) {
            for (uint64_t back = 0; back <= lag; back++)
                CHECK(board_theta(b, v + 1) != board_theta(b, v - back));
            CHECK(board_theta(b, v + ring) == board_theta(b, v));
            CHECK(board_m(b, v) != board_m(b, v + 1) && board_v(b, v) != board_m(b, v));
        }
        board_leave(b);
        free(m);
    }
}

TEST(tags_and_notes) {
    void *m = memory_of(&SPEC);
    Board *b;
    CHECK_OK(board_create(&b, m, &SPEC, MODULES));
    CHECK(!board_update_ready(b, 0)); // zero is no tag of sample 0
    for (uint64_t i = 0; i < 3; i++) {
        CHECK(!board_update_ready(b, 0));
        board_set_tag(b, i);
        CHECK_EQ(board_tag(b, i), i + 1);
    }
    CHECK(board_update_ready(b, 0));
    CHECK(!board_update_ready(b, 1)); // same rows, older samples
    board_set_tag(b, 4);
    CHECK(!board_update_ready(b, 0) && !board_update_ready(b, 1));
    CHECK_EQ(board_tag(b, 1), 5); // sample 1 and 4 share row and tag
    CHECK(board_row(b, 1) == board_row(b, 4));
    board_row_note(b, 5)->grad_norm = 3;
    CHECK_NEAR(board_row_note(b, 2)->grad_norm, 0,
               0); // of the update before: not read yet, perhaps
    CHECK_NEAR(board_row_note(b, 11)->grad_norm, 3, 0);
    board_row_note(b, 5)->sample = ~0ull; // the last one: room for all
    CHECK_NEAR(board_note(b, 0)->lr, 0, 0);
    board_note(b, 3)->lr = 1;
    CHECK_NEAR(board_note(b, 2)->lr, 0, 0);
    board_leave(b);
    free(m);
}

TEST(what_cannot_be_joined) {
    void *m = memory_of(&SPEC);
    Board *b;
    CHECK_ERR(board_join(&b, m, board_bytes(&SPEC)), ERR_PEER, "no board");
    CHECK_OK(board_create(&b, m, &SPEC, MODULES));
    board_leave(b);
    CHECK_ERR(board_join(&b, m, board_bytes(&SPEC) - 1), ERR_PEER, "another build");
    CHECK_ERR(board_join(&b, m, 8), ERR_PEER, "no board");
    uint32_t *word = m;
    word[2]++; // format
    CHECK_ERR(board_join(&b, m, board_bytes(&SPEC)), ERR_PEER, "format");
    word[2]--;
    word[6] ^= 1; // layout hash
    CHECK_ERR(board_join(&b, m, board_bytes(&SPEC)), ERR_PEER, "another build");
    BoardSpec none = SPEC;
    none.theta_cnt = 0;
    CHECK_ERR(board_create(&b, m, &none, MODULES), ERR_USAGE, "at least 1");
    none = SPEC;
    none.rollouts = 0;
    CHECK_ERR(board_create(&b, m, &none, MODULES), ERR_USAGE, "at least 1");
    free(m);
}
