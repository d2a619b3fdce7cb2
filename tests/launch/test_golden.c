// `vader forward` over every case of tests/golden: all outputs and gradients within their tolerances.
#include <dirent.h>
#include <unistd.h>

#include "tests/golden_compare.h"
#include "tests/test.h"

enum { CASES_MAX = 256 };

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static int list_cases(const char *root, char name[CASES_MAX][128]) {
    int cnt = 0;
    char path[512];
    DIR *dir = opendir(root);
    for (struct dirent *e; dir && (e = readdir(dir)) && cnt < CASES_MAX;) {
        snprintf(path, sizeof path, "%s/%.200s/case.json", root, e->d_name);
        if (!access(path, F_OK)) snprintf(name[cnt++], 128, "%.120s", e->d_name);
    }
    if (dir) closedir(dir);
    qsort(name, (size_t)cnt, sizeof *name, by_text);
    return cnt;
}

static void print_worst(const char *what, const GoldenWorst *w) {
    if (w->cnt) printf("    %-5s %8.1e of %4d  %s\n", what, w->error, w->cnt, w->name);
}

static void run_case(const char *root, const char *name, const char *options) {
    char command[2048], golden[512], out[512];
    GoldenCompare c;
    const char *vader = getenv("VADER"), *tmp = getenv("TMPDIR");
    snprintf(golden, sizeof golden, "%s/%s/golden.safetensors", root, name);
    snprintf(out, sizeof out, "%s/%s.safetensors", tmp ? tmp : "/tmp", name);
    snprintf(command, sizeof command, "%s forward %s/%s --in %s --cotangent %s --out %s %s",
             vader ? vader : "./vader", root, name, golden, golden, out, options);
    int rc = system(command);
    CHECK_MSG(!rc, "%s: exit status %d", command, rc);
    CHECK_OK(golden_compare(golden, out, &c));
    printf("%s %s\n", name, options);
    print_worst("out", &c.out);
    print_worst("grad", &c.grad);
    print_worst("mix", &c.mix);
    print_worst("zero", &c.zero);
    unlink(out);
    CHECK_MSG(!c.bad_cnt, "%s: %d tensors: %s", name, c.bad_cnt, c.bad);
}

// GOLDEN names another folder of cases.
static const char *golden_root(void) {
    return getenv("GOLDEN") ? getenv("GOLDEN") : "tests/golden";
}

TEST(every_case) {
    static char name[CASES_MAX][128];
    int cnt = list_cases(golden_root(), name);
    CHECK(cnt > 0);
    for (int i = 0; i < cnt; i++) run_case(golden_root(), name[i], "");
}

TEST(recomputing_changes_nothing) {
    run_case("tests/golden", "unet_svd_lora", "--recompute");
    run_case("tests/golden", "vae_temporal", "--recompute");
    run_case("tests/golden", "videomae", "--recompute");
}

TEST(other_kernels) {
    run_case("tests/golden", "unet_svd_lora", "--exact --mapped --check --threads 1");
    run_case("tests/golden", "videomae", "--dtype ref");
}
