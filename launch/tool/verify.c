// verify: proves a run by making it again.
//
//     vader verify RUN
//
// Re-executes the run's config inline, in a temporary folder inside RUN, to the version that RUN has reached, and
// compares theta, both moments and metrics.jsonl byte by byte. Bundles under RUN/ckpt are read whole, every
// hash checked. Numerics must be those of the run (another instruction set gives other bits).
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/format/bundle.h"
#include "common/transport/ledger.h"
#include "launch/tool/inline.h"
#include "launch/tool/tool.h"

#define FOLDER "verify.tmp"

typedef struct Bytes {
    char *data;
    size_t len;
} Bytes;

static Err read_file(Bytes *out, const char *path) {
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st)) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    *out = (Bytes){malloc((size_t)st.st_size + 1), (size_t)st.st_size};
    die_unless(out->data, "verify: out of memory");
    size_t n = fread(out->data, 1, out->len, f);
    fclose(f);
    if (n != out->len) FAIL(ERR_IO, "%s: cannot be read", path);
    return ERR_OK;
}

static Err compare_files(const char *a, const char *b, size_t len) {
    Bytes x = {0}, y = {0};
    Err err = read_file(&x, a);
    if (!err) err = read_file(&y, b);
    if (!err && (x.len < len || y.len < len))
        err = err_fail(ERR_FORMAT, __FILE__, __LINE__, __func__,
                       "%s has %zu bytes, the run made again %zu, want %zu", a, x.len, y.len, len);
    for (size_t i = 0; !err && i < len; i++)
        if (x.data[i] != y.data[i])
            err = err_fail(ERR_FORMAT, __FILE__, __LINE__, __func__,
                           "%s differs from the run made again at byte %zu", a, i);
    free(x.data);
    free(y.data);
    return err;
}

static void remove_folder(void) {
    static const char *const names[] = {"state-0", "state-1", "metrics.jsonl", "timing.jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[96];
        snprintf(path, sizeof path, FOLDER "/%s", names[i]);
        unlink(path);
    }
    rmdir(FOLDER);
}

static Err run_again(const LedgerHead *head) {
    char updates[64];
    Config *cfg;
    snprintf(updates, sizeof updates, "optim.updates=%llu", (unsigned long long)head->version);
    const char *const set[] = {updates, "preview.every=0", "ckpt.every=0"};
    TRY(config_load(&cfg, "config.yaml", 3, set));
    Err err = chdir(FOLDER)
                  ? err_fail(ERR_IO, __FILE__, __LINE__, __func__, FOLDER ": %s", strerror(errno))
                  : inline_run(cfg, false, NULL, false);
    config_free(cfg);
    if (chdir("..") && !err) FAIL(ERR_IO, "..: %s", strerror(errno));
    return err;
}

static Err compare(const LedgerHead *head) {
    char mine[32], again[64];
    LedgerHead other;
    int found;
    TRY(ledger_read(FOLDER, &other, NULL, &found));
    if (strcmp(head->numerics, other.numerics))
        FAIL(
            ERR_USAGE,
            "the numerics or the models' weights differ: the run was made with \"%s\", this is \"%s\"",
            head->numerics, other.numerics);
    TRY(compare_files("metrics.jsonl", FOLDER "/metrics.jsonl", head->metrics_bytes));
    snprintf(mine, sizeof mine, "state-%d", (int)(head->version % 2));
    snprintf(again, sizeof again, FOLDER "/%s", mine);
    struct stat st;
    if (stat(mine, &st)) FAIL(ERR_IO, "%s: %s", mine, strerror(errno));
    return compare_files(mine, again, (size_t)st.st_size);
}

// Every bundle of the run, read whole. *cnt receives how many.
static Err verify_bundles(int *cnt) {
    DIR *dir = opendir("ckpt");
    Err err = ERR_OK;
    if (!dir) return ERR_OK;
    for (struct dirent *e; !err && (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        char path[300];
        if (n < 4 || strcmp(e->d_name + n - 4, ".tar")) continue;
        snprintf(path, sizeof path, "ckpt/%s", e->d_name);
        err = bundle_verify(path);
        ++*cnt;
    }
    closedir(dir);
    return err;
}

Err tool_verify(int argc, char **argv) {
    LedgerHead head;
    int found, bundles = 0;
    if (argc != 2) FAIL(ERR_USAGE, "usage: vader verify RUN");
    if (chdir(argv[1])) FAIL(ERR_USAGE, "%s: %s", argv[1], strerror(errno));
    TRY(ledger_read(".", &head, NULL, &found));
    if (!found)
        FAIL(ERR_USAGE, "%s: no update is durable yet, there is nothing to verify", argv[1]);
    TRY(verify_bundles(&bundles));
    remove_folder();
    if (mkdir(FOLDER, 0700)) FAIL(ERR_IO, "%s/" FOLDER ": %s", argv[1], strerror(errno));
    Err err = run_again(&head);
    if (!err) err = compare(&head);
    remove_folder();
    if (err) return err_up(err, __FILE__, __LINE__, __func__);
    printf("%s: %llu updates made again, every byte the same; %d bundles whole\n", argv[1],
           (unsigned long long)head.version, bundles);
    return ERR_OK;
}
