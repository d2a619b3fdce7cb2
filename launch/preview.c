// preview: raw frames out, one encoder child per preview.
#include "launch/preview.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/log.h"
#include "launch/supervisor.h"

enum { CHILDREN_MAX = 64 };

typedef struct Child {
    pid_t pid;
    char raw[80]; // removed when the encoder is done; "" = kept
} Child;

struct Preview {
    const Config *cfg;
    Run *run;
    Child child[CHILDREN_MAX];
    int child_cnt;
};

Preview *preview_new(const Config *cfg, Run *run) {
    Preview *p = calloc(1, sizeof *p);
    die_unless(p, "preview: out of memory");
    *p = (Preview){.cfg = cfg, .run = run};
    return p;
}

static Err write_raw(const Preview *p, const char *path, uint32_t slot) {
    uint64_t bytes = p->run->state->table.bytes[SECTION_PREVIEW];
    FILE *f = fopen(path, "wb");
    if (!f) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    bool ok = true;
    for (uint32_t s = 0; s < p->run->state->segments; s++) {
        const void *frames;
        ok &= !run_read(p->run, SECTION_PREVIEW, slot, s, 1, &frames) &&
              fwrite(frames, 1, bytes, f) == bytes;
    }
    run_release(p->run);
    if (fclose(f) || !ok) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    return ERR_OK;
}

// After a resume the base's frames may be missing: then the preview stands alone.
static Err start_encoder(Preview *p, const char *raw, const char *base, const char *name,
                         bool keep_raw) {
    const Config *cfg = p->cfg;
    char program[4096], frames[16], width[16], height[16], fps[16];
    TRY(supervisor_sibling("tool", program));
    snprintf(frames, sizeof frames, "%lld", (long long)(cfg->frames * cfg->segments));
    snprintf(width, sizeof width, "%lld", (long long)cfg->width);
    snprintf(height, sizeof height, "%lld", (long long)cfg->height);
    snprintf(fps, sizeof fps, "%lld", (long long)cfg->preview_fps);
    char *const argv[] = {program,
                          "encode",
                          "--frames",
                          frames,
                          "--width",
                          width,
                          "--height",
                          height,
                          "--fps",
                          fps,
                          "--out",
                          (char *)(uintptr_t)name,
                          (char *)(uintptr_t)raw,
                          base ? "--base" : NULL,
                          (char *)(uintptr_t)base,
                          NULL};
    int log = open("log/previews.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    Child *c = &p->child[p->child_cnt];
    c->pid = fork();
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        if (log >= 0) dup2(log, STDERR_FILENO);
        execv(program, argv);
        _exit(127);
    }
    if (log >= 0) close(log);
    if (c->pid < 0) FAIL(ERR_IO, "fork: %s", strerror(errno));
    snprintf(c->raw, sizeof c->raw, "%s", keep_raw ? "" : raw);
    p->child_cnt++;
    return ERR_OK;
}

static void reap(Preview *p, int options) {
    for (int i = p->child_cnt - 1; i >= 0; i--) {
        int status;
        if (waitpid(p->child[i].pid, &status, options) <= 0) continue;
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            log_warn("a preview could not be encoded; see log/previews.log");
        if (*p->child[i].raw) unlink(p->child[i].raw);
        p->child[i] = p->child[--p->child_cnt];
    }
}

Err preview_take(Preview *p, uint32_t slot) {
    const SlotHeader *h = &p->run->state->slot[slot].header;
    char raw[80], base[64], name[64];
    bool is_base = !h->tuned;
    if (mkdir("previews", 0700) && errno != EEXIST) FAIL(ERR_IO, "previews: %s", strerror(errno));
    snprintf(base, sizeof base, "previews/base-%llu.raw", (unsigned long long)h->sample);
    snprintf(name, sizeof name, "previews/step-%06llu-%llu", (unsigned long long)h->update,
             (unsigned long long)h->sample);
    snprintf(raw, sizeof raw, "%s.raw", name);
    while (p->child_cnt == CHILDREN_MAX) reap(p, 0);
    TRY(write_raw(p, is_base ? base : raw, slot));
    return start_encoder(p, is_base ? base : raw, !is_base && !access(base, R_OK) ? base : NULL,
                         name, is_base);
}

void preview_poll(Preview *p) { reap(p, WNOHANG); }

void preview_free(Preview *p) {
    if (!p) return;
    while (p->child_cnt) reap(p, 0);
    free(p);
}
