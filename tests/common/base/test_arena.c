// test_arena: alignment, zeroed memory, blocks that do not move.
#include "common/base/arena.h"

#include <stdint.h>

#include "tests/test.h"

TEST(memory_is_zero_and_aligned) {
    Arena a = {0};
    for (size_t bytes = 0; bytes < 200000; bytes = bytes * 3 + 1) {
        unsigned char *p = arena_alloc(&a, bytes);
        CHECK_EQ((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < bytes; i++) CHECK(!p[i]);
        memset(p, 0xff, bytes);
    }
    CHECK(a.used_bytes >= 100000);
    arena_free(&a);
    CHECK_EQ(a.used_bytes, 0);
}

TEST(texts_stay) {
    Arena a = {0};
    char *kept[1000];
    for (int i = 0; i < 1000; i++) kept[i] = arena_printf(&a, "down.%d.%0*d", i, i % 300, 7);
    char *copy = arena_strdup(&a, "copy");
    for (int i = 0; i < 1000; i++) {
        char want[32];
        snprintf(want, sizeof want, "down.%d.", i);
        CHECK(!strncmp(kept[i], want, strlen(want)));
    }
    CHECK_STR(copy, "copy");
    arena_free(&a);
    arena_free(&a);
}
