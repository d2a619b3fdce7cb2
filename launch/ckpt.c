// ckpt: a table of verbs over bundle.h.
#include "launch/ckpt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/arena.h"
#include "common/base/nearest.h"
#include "common/format/bundle.h"

#define USAGE "usage: vader ckpt "

static Err list(int argc, char **argv) {
    Bundle *b;
    if (argc != 2) FAIL(ERR_USAGE, USAGE "ls BUNDLE");
    TRY(bundle_open(&b, argv[1]));
    const BundleFacts *f = bundle_facts(b);
    printf("version %" PRIu64 " of %" PRIu64 " updates, made by vader %s\nconfig %016" PRIx64
           "\nnumerics %s\n",
           f->version, f->updates, f->vader, f->config_hash, f->numerics);
    for (int i = 0; i < bundle_count(b); i++) {
        const BundleEntry *e = bundle_at(b, i);
        printf("%14" PRIu64 "  %s  %s\n", e->bytes, e->hash, e->name);
    }
    bundle_close(b);
    return ERR_OK;
}

static Err verify(int argc, char **argv) {
    if (argc < 2) FAIL(ERR_USAGE, USAGE "verify BUNDLE ...");
    for (int i = 1; i < argc; i++) {
        Bundle *b;
        TRY(bundle_verify(argv[i]));
        TRY(bundle_open(&b, argv[i]));
        printf("%s: whole: version %" PRIu64 ", %d entries, every byte as it was written\n",
               argv[i], bundle_facts(b)->version, bundle_count(b));
        bundle_close(b);
    }
    return ERR_OK;
}

static Err extract(int argc, char **argv) {
    Bundle *b;
    if (argc != 3) FAIL(ERR_USAGE, USAGE "extract BUNDLE DIR");
    TRY(bundle_open(&b, argv[1]));
    Err err = bundle_extract(b, argv[2]);
    if (!err) printf("%s: %d files\n", argv[2], bundle_count(b));
    bundle_close(b);
    return err;
}

static Err export_peft(const Bundle *b, const char *dir) {
    static const char *const names[] = {"adapter_model.safetensors", "adapter_config.json"};
    Err err = ERR_OK;
    Arena a = {0};
    if (mkdir(dir, 0777)) {
        int e = errno;
        FAIL_OUT(e == EEXIST ? ERR_USAGE : ERR_IO, "%s: %s (want a folder that can be made)", dir,
                 strerror(e));
    }
    for (int i = 0; i < 2; i++)
        TRY_OUT(bundle_extract_entry(b, arena_printf(&a, "peft/%s", names[i]),
                                     arena_printf(&a, "%s/%s", dir, names[i])));
out:
    arena_free(&a);
    return err;
}

static Err export_adapter(int argc, char **argv) {
    Bundle *b;
    bool peft = argc == 4 && !strcmp(argv[2], "--peft");
    if (!peft && !(argc == 4 && !strcmp(argv[2], "--diffusers")))
        FAIL(ERR_USAGE, USAGE "export BUNDLE --peft DIR | --diffusers FILE");
    TRY(bundle_open(&b, argv[1]));
    Err err = peft ? export_peft(b, argv[3])
                   : bundle_extract_entry(b, "diffusers/pytorch_lora_weights.safetensors", argv[3]);
    if (!err) printf("%s\n", argv[3]);
    bundle_close(b);
    return err;
}

static const struct {
    const char *name;
    Err (*run)(int argc, char **argv); // argv[0] is the verb
} verbs[] = {{"ls", list}, {"verify", verify}, {"extract", extract}, {"export", export_adapter}};

enum { VERBS = sizeof verbs / sizeof *verbs };

Err ckpt_main(int argc, char **argv) {
    const char *names[VERBS];
    if (argc < 2) FAIL(ERR_USAGE, USAGE "ls|verify|extract|export BUNDLE ...");
    for (int i = 0; i < VERBS; i++) {
        names[i] = verbs[i].name;
        if (!strcmp(argv[1], names[i])) return verbs[i].run(argc - 1, argv + 1);
    }
    const char *near = nearest_word(argv[1], names, VERBS);
    FAIL(ERR_USAGE, "vader ckpt: unknown '%s', want ls, verify, extract or export%s%s", argv[1],
         near ? "; did you mean " : "", near ? near : "");
}
