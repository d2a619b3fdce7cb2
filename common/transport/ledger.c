// ledger: two alternating state files.
#include "common/transport/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/log.h"

enum { LEDGER_FORMAT = 1, PATH_BYTES = 4096 };
static const char LEDGER_MAGIC[8] = "VADstate";

// The first bytes of a file; native byte order (a state does not leave its kind of machine).
typedef struct FileHead {
    char magic[8];
    uint32_t format, head_bytes;
    uint64_t payload_bytes;
    int64_t theta_cnt;
    uint32_t lag, theta_versions; // how many theta blocks follow, oldest first
    LedgerHead ledger;
} FileHead;

// Versions v - lag .. v, as far as they exist.
static uint32_t theta_versions(uint64_t version, uint32_t lag) {
    return (uint32_t)(version < lag ? version : lag) + 1;
}

static void path_of(char out[PATH_BYTES], const char *dir, uint64_t version, const char *suffix) {
    snprintf(out, PATH_BYTES, "%s/state-%llu%s", dir, (unsigned long long)(version % 2), suffix);
}

// ---- Writing ----

typedef struct Writer {
    int fd;
    const char *path;
    XXH3_state_t *hash;
} Writer;

static Err write_all(Writer *w, const void *data, size_t len) {
    for (const unsigned char *p = data; len;) {
        ssize_t n = write(w->fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) FAIL(ERR_IO, "%s: write: %s", w->path, strerror(n ? errno : ENOSPC));
        p += n;
        len -= (size_t)n;
    }
    return ERR_OK;
}

static Err write_hashed(Writer *w, const void *data, size_t len) {
    XXH3_128bits_update(w->hash, data, len);
    return write_all(w, data, len);
}

static Err write_file(Writer *w, const LedgerHead *head, const Board *board) {
    const BoardSpec *spec = board_spec(board);
    size_t block = (size_t)spec->theta_cnt * sizeof(float);
    uint32_t versions = theta_versions(head->version, spec->lag);
    FileHead file = {.format = LEDGER_FORMAT,
                     .head_bytes = sizeof file,
                     .payload_bytes = (versions + 2) * (uint64_t)block,
                     .theta_cnt = spec->theta_cnt,
                     .lag = spec->lag,
                     .theta_versions = versions,
                     .ledger = *head};
    memcpy(file.magic, LEDGER_MAGIC, sizeof file.magic);
    TRY(write_hashed(w, &file, sizeof file));
    for (uint32_t i = 0; i < versions; i++)
        TRY(write_hashed(w, board_theta(board, head->version - (versions - 1 - i)), block));
    TRY(write_hashed(w, board_m(board, head->version), block));
    TRY(write_hashed(w, board_v(board, head->version), block));
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(w->hash));
    TRY(write_all(w, &sum, sizeof sum));
    if (fsync(w->fd)) FAIL(ERR_IO, "%s: fsync: %s", w->path, strerror(errno));
    return ERR_OK;
}

static Err sync_folder(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", dir, strerror(errno));
    int rc = fsync(fd), e = errno;
    close(fd);
    if (rc) FAIL(ERR_IO, "%s: fsync: %s", dir, strerror(e));
    return ERR_OK;
}

Err ledger_write(const char *run_dir, const LedgerHead *head, const Board *board) {
    Err err = ERR_OK;
    char tmp[PATH_BYTES], path[PATH_BYTES];
    path_of(tmp, run_dir, head->version, ".tmp");
    path_of(path, run_dir, head->version, "");
    Writer w = {.path = tmp, .hash = XXH3_createState()};
    die_unless(w.hash, "ledger: out of memory");
    XXH3_128bits_reset(w.hash);
    w.fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w.fd < 0) FAIL_OUT(ERR_IO, "%s: %s", tmp, strerror(errno));
    TRY_OUT(write_file(&w, head, board));
    if (rename(tmp, path)) FAIL_OUT(ERR_IO, "%s: rename: %s", path, strerror(errno));
    TRY_OUT(sync_folder(run_dir));
out:
    if (w.fd >= 0) close(w.fd);
    XXH3_freeState(w.hash);
    return err;
}

// ---- Reading ----

typedef struct File {
    unsigned char *bytes;
    size_t len;
    FileHead head;
} File;

// No file: *exists is false and nothing is read.
static Err load(File *f, const char *path, bool *exists) {
    struct stat st;
    FILE *in = fopen(path, "rb");
    *exists = in || errno != ENOENT;
    if (!*exists) return ERR_OK;
    if (!in) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    bool ok =
        !fstat(fileno(in), &st) && st.st_size >= 0 && (f->bytes = malloc((size_t)st.st_size + 1));
    f->len = ok ? fread(f->bytes, 1, (size_t)st.st_size, in) : 0;
    fclose(in);
    if (!ok || f->len != (size_t)st.st_size) FAIL(ERR_IO, "%s: cannot be read", path);
    return ERR_OK;
}

static Err check(File *f, const char *path) {
    const size_t sum_bytes = sizeof(XXH128_canonical_t);
    if (f->len < sizeof f->head + sum_bytes)
        FAIL(ERR_FORMAT, "%s: %zu bytes, too short for a state", path, f->len);
    memcpy(&f->head, f->bytes, sizeof f->head);
    if (memcmp(f->head.magic, LEDGER_MAGIC, sizeof f->head.magic) ||
        f->head.format != LEDGER_FORMAT || f->head.head_bytes != sizeof f->head)
        FAIL(ERR_FORMAT, "%s: not a state of this version of vader", path);
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits(f->bytes, f->len - sum_bytes));
    if (memcmp(&sum, f->bytes + f->len - sum_bytes, sum_bytes))
        FAIL(ERR_FORMAT, "%s: damaged: its hash does not match", path);
    const FileHead *h = &f->head;
    const LedgerHead *l = &h->ledger;
    uint64_t payload = f->len - sizeof *h - sum_bytes, blocks = (uint64_t)h->theta_versions + 2;
    if (h->payload_bytes != payload || h->theta_cnt < 1 || h->lag > 1024 ||
        h->theta_versions != theta_versions(l->version, h->lag) ||
        payload % (blocks * sizeof(float)) ||
        payload / (blocks * sizeof(float)) != (uint64_t)h->theta_cnt ||
        !memchr(l->numerics, 0, sizeof l->numerics))
        FAIL(ERR_FORMAT, "%s: its parts do not add up", path);
    return ERR_OK;
}

static Err restore(const File *f, const char *dir, Board *board) {
    const BoardSpec *spec = board_spec(board);
    const FileHead *h = &f->head;
    if (h->theta_cnt != spec->theta_cnt)
        FAIL(ERR_FORMAT, "%s: the state has %lld parameters, the model wants %lld", dir,
             (long long)h->theta_cnt, (long long)spec->theta_cnt);
    if (h->lag != spec->lag)
        FAIL(ERR_FORMAT, "%s: the state was written with lag %u, the config has %u", dir, h->lag,
             spec->lag);
    size_t block = (size_t)spec->theta_cnt * sizeof(float);
    const unsigned char *at = f->bytes + sizeof *h;
    uint64_t version = h->ledger.version;
    for (uint32_t i = 0; i < h->theta_versions; i++, at += block)
        memcpy(board_theta(board, version - (h->theta_versions - 1 - i)), at, block);
    memcpy(board_m(board, version), at, block);
    memcpy(board_v(board, version), at + block, block);
    board_commit(board, version);
    board_set_durable(board, version);
    return ERR_OK;
}

Err ledger_read(const char *run_dir, LedgerHead *head, Board *board, int *found) {
    File file[2] = {0};
    Err err = ERR_OK;
    int best = -1, exist = 0;
    for (int i = 0; i < 2; i++) {
        char path[PATH_BYTES];
        bool exists;
        path_of(path, run_dir, (uint64_t)i, "");
        TRY_OUT(load(&file[i], path, &exists));
        if (!exists) continue;
        exist++;
        if (check(&file[i], path)) {
            log_warn("%s", err_text());
            continue;
        }
        if (best < 0 || file[i].head.ledger.version > file[best].head.ledger.version) best = i;
    }
    *found = best >= 0;
    if (exist && best < 0)
        FAIL_OUT(ERR_FORMAT, "%s: no whole state is left: %s", run_dir, err_text());
    if (best < 0) goto out;
    *head = file[best].head.ledger;
    if (board) TRY_OUT(restore(&file[best], run_dir, board));
out:
    for (int i = 0; i < 2; i++) free(file[i].bytes);
    return err;
}
