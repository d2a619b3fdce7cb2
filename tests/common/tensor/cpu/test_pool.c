// The pool: every chunk once, jobs of any size in quick succession, workers that have gone to
// sleep.
#include <stdatomic.h>
#include <unistd.h>

#include "common/tensor/cpu/pool.h"
#include "tests/test.h"

enum { CHUNKS_MAX = 1000 };
static _Atomic int visits[CHUNKS_MAX];
static int worker_limit;
static _Atomic bool stranger; // a worker index out of range was seen

static void visit(void *ctx, int64_t chunk, int worker) {
    atomic_fetch_add(&visits[chunk], 1);
    if (worker < 0 || worker >= worker_limit) stranger = true;
}

static void run_and_check(Pool *pool, int64_t cnt) {
    for (int i = 0; i < CHUNKS_MAX; i++) visits[i] = 0;
    pool_run(pool, cnt, visit, NULL);
    for (int i = 0; i < CHUNKS_MAX; i++) CHECK_EQ(visits[i], i < cnt);
    CHECK(!stranger);
}

TEST(every_chunk_runs_once) {
    for (int threads = 1; threads <= 4; threads++) {
        Pool *pool = pool_new(threads);
        CHECK(pool);
        CHECK_EQ(pool_threads(pool), threads);
        worker_limit = threads;
        for (int64_t cnt = 0; cnt < 2000 && !test_failed(); cnt++) run_and_check(pool, cnt % 41);
        run_and_check(pool, CHUNKS_MAX);
        pool_free(pool);
    }
}

TEST(sleeping_workers_wake) {
    Pool *pool = pool_new(3);
    CHECK(pool);
    worker_limit = 3;
    for (int i = 0; i < 20 && !test_failed(); i++) {
        usleep(2000);
        run_and_check(pool, 50);
    }
    pool_free(pool);
}

static void denormal(void *ctx, int64_t chunk, int worker) {
    volatile float tiny = 1e-30f;
    if (tiny * 1e-10f != 0) atomic_fetch_add(&visits[0], 1);
}
TEST(denormals_are_zero_inside_only) {
    Pool *pool = pool_new(2);
    CHECK(pool);
    visits[0] = 0;
    pool_run(pool, 100, denormal, NULL);
    CHECK_EQ(visits[0], 0);
    volatile float tiny = 1e-30f;
    CHECK(tiny * 1e-10f != 0);
    pool_free(pool);
}
