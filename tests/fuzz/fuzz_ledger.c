// fuzz_ledger: the input becomes state-0, with its hash put right so that what lies behind it is reached; a
// state that is taken fits the board.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/transport/ledger.h"

enum { THETA = 8 };

static char dir[256];
static Board *board;

static const char *state(int i) {
    static char path[300];
    snprintf(path, sizeof path, "%s/state-%d", dir, i);
    return path;
}

static void folder_remove(void) {
    for (int i = 0; i < 2; i++) unlink(state(i));
    rmdir(dir);
}

static void begin(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/fuzz_ledger.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) abort();
    atexit(folder_remove);
    BoardSpec spec = {.theta_cnt = THETA, .rollouts = 1, .lag = 1};
    void *memory = calloc(1, (size_t)board_bytes(&spec));
    if (!memory || board_create(&board, memory, &spec, NULL)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (!*dir) begin();
    FILE *f = fopen(state(0), "wb");
    if (!f || fwrite(bytes, 1, len, f) != len) abort();
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits(bytes, len));
    if (len % 8 == 0 && fwrite(&sum, 1, sizeof sum, f) != sizeof sum) abort(); // else as it is
    fclose(f);
    LedgerHead head;
    int found = 0;
    if (ledger_read(dir, &head, board, &found)) return 0;
    if (!found || board_version(board) != head.version) abort();
    if (!memchr(head.numerics, 0, sizeof head.numerics)) abort();
    return 0;
}
