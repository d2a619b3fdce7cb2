// forward: `vader forward DIR --in X --out Y`: runs a model part or a case on tensors from a file.
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/tool/args.h"
#include "launch/tool/parts.h"
#include "launch/tool/tool.h"

static const char usage[] =
    "usage: vader forward DIR --in X.safetensors --out Y.safetensors [options]\n\n"
    "DIR is a model part (config.json, weights) or a case (case.json). X holds the inputs, named in.<name> or\n"
    "in.<call>.<name>; Y receives out.*. With cotangents cot.* it also receives grad.in.*, grad.out.* where the case\n"
    "lists them, grad.w.* and grad.lora.*. Names, shapes and axis order are those of the Python library.\n\n";

// ---- Which calls ----

static bool takes_name(const Part *part, const char *name) {
    for (const RunTakes *t = part->takes; t->name; t++)
        if (!fnmatch(t->name, name, 0)) return true;
    return false;
}

// "in.decode.z" is z of call decode if the part takes no "decode.z". False: the part does not take it.
static bool split_name(const Part *part, const char *full, char call[64], const char **name) {
    const char *rest = full + 3, *dot = strchr(rest, '.');
    *call = 0;
    *name = rest;
    if (takes_name(part, rest)) return true;
    if (!dot || dot - rest >= 63 || !takes_name(part, dot + 1)) return false;
    snprintf(call, 64, "%.*s", (int)(dot - rest), rest);
    *name = dot + 1;
    return true;
}

// Every input in the file must be one that the part takes; for a model part they also say which calls there are.
static Err find_calls(Session *s, const Part *part) {
    char call[64];
    const char *name;
    bool plain = !s->recipe.json;
    for (size_t i = 0; i < safetensors_count(s->in); i++) {
        const SafetensorsEntry *e = safetensors_at(s->in, i);
        if (strncmp(e->name, "in.", 3)) continue;
        if (!split_name(part, e->name, call, &name)) {
            char first[64];
            snprintf(first, sizeof first, "%s", part->takes[0].name);
            FAIL(ERR_FORMAT, "%s: %s is no input of %s; the first it takes is in.%s %s", e->path,
                 e->name, part->class_name, first, part->takes[0].shape);
        }
        if (plain) recipe_add_call(&s->recipe, call);
    }
    if (!s->recipe.call_cnt) recipe_add_call(&s->recipe, "");
    return ERR_OK;
}

static Err check_call_name(const Session *s) {
    char list[512] = "";
    size_t len = 0;
    for (int i = 0; i < s->recipe.call_cnt; i++) {
        const char *name = s->recipe.call[i].name;
        if (!s->opt.call || !strcmp(name, s->opt.call)) return ERR_OK;
        if (len < sizeof list)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "",
                                    *name ? name : "(unnamed)");
    }
    FAIL(ERR_USAGE, "--call %s: want one of %s", s->opt.call, list);
}

// ---- Report ----

static double peak_mib(void) {
    char line[256];
    double kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1) break;
    if (f) fclose(f);
    return kib / 1024;
}

static void report_call(const RecipeCall *c, const RunReport *r) {
    if (r->min_s <= 0) return; // no graph ran
    printf("%-12s min %10.3f ms, median %10.3f ms, %8.2f GFLOP, %7.2f GFLOP/s, plan %.1f MiB\n",
           *c->name ? c->name : "forward", r->min_s * 1e3, r->median_s * 1e3, r->flops * 1e-9,
           r->flops / r->min_s * 1e-9, (double)r->plan_bytes / (1 << 20));
}

// ---- The command ----

static Err run_calls(Session *s) {
    const Part *part;
    TRY(parts_of_recipe(s, &part));
    TRY(find_calls(s, part));
    TRY(check_call_name(s));
    for (int i = 0; i < s->recipe.call_cnt; i++) {
        RecipeCall *c = &s->recipe.call[i];
        RunReport report = {0};
        if (s->opt.call && strcmp(c->name, s->opt.call)) continue;
        TRY(part->call(s, part, c, &report));
        report_call(c, &report);
    }
    if (s->cot && !s->cot_used)
        FAIL(
            ERR_FORMAT,
            "%s: no cotangent here fits an output; they are named cot.<output> or cot.<call>.<output>",
            safetensors_path(s->cot));
    TRY(sink_write(&s->sink, s->opt.out));
    printf("%-12s %zu tensors in %s; peak memory %.1f MiB\n", "wrote", s->sink.cnt, s->opt.out,
           peak_mib());
    return ERR_OK;
}

Err tool_forward(int argc, char **argv) {
    SessionOptions o = {.repeat = 1};
    bool help = false;
    const Arg table[] = {
        {"in", ARG_STR, &o.in, "FILE", "input tensors (safetensors)"},
        {"out", ARG_STR, &o.out, "FILE", "where results go (safetensors)"},
        {"cotangent", ARG_STR, &o.cotangent, "FILE",
         "cotangents of outputs; may be the same file as --in"},
        {"lora", ARG_STR, &o.lora, "PATH", "adapter: a PEFT folder or a diffusers file"},
        {"wrt", ARG_STR, &o.wrt, "REGEX", "weights whose gradient is wanted"},
        {"call", ARG_STR, &o.call, "NAME", "only this call"},
        {"dtype", ARG_STR, &o.dtype, "f32|ref", "arithmetic: f32, or plain loops in double"},
        {"threads", ARG_INT, &o.threads, "N", "threads; 0: all cores"},
        {"repeat", ARG_INT, &o.repeat, "N", "runs to time; results are of the last"},
        {"memory", ARG_BYTES, &o.memory_bytes, "BYTES",
         "refuse a plan that needs more (4096, 512M, 20G)"},
        {"recompute", ARG_FLAG, &o.recompute, NULL,
         "recompute blocks in the backward pass: less memory"},
        {"exact", ARG_FLAG, &o.exact, NULL, "direct convolution only"},
        {"mapped", ARG_FLAG, &o.mapped, NULL, "no packed copies of weights: less memory, slower"},
        {"check", ARG_FLAG, &o.check, NULL, "look for NaN and Inf after every operator"},
        {"plan", ARG_FLAG, &o.table, NULL, "print the memory table of every plan"},
        {"help", ARG_FLAG, &help, NULL, "this text"},
        {0},
    };
    int words = 0;
    TRY(args_parse(table, argc, argv, &o.dir, 1, &words));
    if (help) {
        fputs(usage, stdout);
        args_help(table, stdout);
        return ERR_OK;
    }
    if (!words || !o.in || !o.out)
        FAIL(ERR_USAGE,
             "forward: want DIR, --in FILE and --out FILE; `vader forward --help` says more");
    Session s;
    Err err = session_init(&s, &o);
    if (!err) err = run_calls(&s);
    session_fini(&s);
    return err;
}
