// session: opens once, closes in the right order: plans are gone, then the device, then the weights.
#include "launch/tool/session.h"

#include <stdlib.h>
#include <string.h>

static Err open_device(Session *s) {
    const char *name = !s->opt.dtype || !strcmp(s->opt.dtype, "f32") ? "cpu" : s->opt.dtype;
    if (strcmp(name, "cpu") && strcmp(name, "ref"))
        FAIL(ERR_USAGE,
             "--dtype %s: want f32 (oneDNN and own kernels) or ref (plain loops in double)", name);
    BackendOptions o = {
        .threads = (int)s->opt.threads, .pack_weights = !s->opt.mapped, .exact = s->opt.exact};
    return backend_open(&s->be, name, o);
}

static Err open_wrt(Session *s) {
    const char *text = s->opt.wrt ? s->opt.wrt : s->recipe.weights;
    if (!text) return ERR_OK;
    int rc = regcomp(&s->wrt, text, REG_EXTENDED | REG_NOSUB);
    if (rc) {
        char why[128];
        regerror(rc, &s->wrt, why, sizeof why);
        FAIL(ERR_USAGE, "--wrt '%s': %s", text, why);
    }
    s->has_wrt = true;
    return ERR_OK;
}

Err session_init(Session *s, const SessionOptions *opt) {
    *s = (Session){.opt = *opt};
    TRY(recipe_open(&s->recipe, opt->dir));
    TRY(open_wrt(s));
    TRY(safetensors_open(&s->in, opt->in));
    if (opt->cotangent) TRY(safetensors_open(&s->cot, opt->cotangent));
    const char *lora = opt->lora ? opt->lora : s->recipe.lora;
    if (lora) TRY(lora_read(&s->lora, lora));
    return open_device(s);
}

void session_fini(Session *s) {
    backend_close(s->be);
    for (SessionModel *m = s->model, *next; m; m = next) {
        next = m->next;
        params_close(m->params);
        model_dir_close(m->part);
        vjepa_close(m->vjepa);
        aesthetic_close(m->aesthetic);
        free(m);
    }
    lora_free(s->lora);
    if (s->has_wrt) regfree(&s->wrt);
    safetensors_close(s->in);
    safetensors_close(s->cot);
    sink_fini(&s->sink);
    recipe_fini(&s->recipe);
}

static SessionModel *add_model(Session *s, const char *path) {
    SessionModel *m = calloc(1, sizeof *m);
    die_unless(m, "session: out of memory");
    m->path = path;
    m->next = s->model;
    return s->model = m;
}

static SessionModel *find_model(const Session *s, const char *path) {
    SessionModel *m = s->model;
    while (m && strcmp(m->path, path)) m = m->next;
    return m;
}

Err session_model(Session *s, const char *path, const char *classes, SessionModel **out) {
    SessionModel *m = find_model(s, path);
    if (!m) {
        m = add_model(s, path);
        TRY(model_dir_open(&m->part, path, NULL, classes, NULL));
        TRY(params_of_part(&m->params, m->part, ""));
    }
    *out = m;
    return ERR_OK;
}

Err session_vjepa(Session *s, const char *path, Vjepa **out) {
    SessionModel *m = find_model(s, path);
    if (!m) {
        m = add_model(s, path);
        TRY(vjepa_open(&m->vjepa, path));
    }
    *out = m->vjepa;
    return ERR_OK;
}

Err session_aesthetic(Session *s, const char *clip, const char *head, Aesthetic **out) {
    SessionModel *m = find_model(s, clip);
    if (!m) {
        m = add_model(s, clip);
        TRY(aesthetic_open(&m->aesthetic, clip, head));
    }
    *out = m->aesthetic;
    return ERR_OK;
}

Err session_lora_ready(Session *s) {
    if (!s->lora || s->lora_loaded) return ERR_OK;
    TRY(lora_finish(s->lora));
    TRY(lora_load_values(s->lora));
    s->lora_loaded = true;
    return ERR_OK;
}
