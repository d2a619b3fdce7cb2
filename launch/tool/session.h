// session: what the calls of one `vader forward` share: options, files, the device, and opened models.
//
// Models are opened once per folder and stay open, so that packed weights serve every call.
#ifndef LAUNCH_TOOL_SESSION_H
#define LAUNCH_TOOL_SESSION_H

#include <regex.h>

#include "common/format/model_dir.h"
#include "common/model/aesthetic.h"
#include "common/model/lora.h"
#include "common/model/params.h"
#include "common/model/vjepa.h"
#include "common/tensor/backend.h"
#include "common/tensor/plan.h"
#include "launch/tool/recipe.h"
#include "launch/tool/sink.h"

typedef struct SessionOptions {
    const char *dir, *in, *out, *cotangent, *lora, *wrt, *call, *dtype;
    int64_t threads, repeat;
    uint64_t memory_bytes;
    bool exact, recompute, mapped, table, check;
} SessionOptions;

// One opened folder. What it holds depends on its class.
typedef struct SessionModel {
    const char *path;
    ModelPart *part;
    Params *params;
    Vjepa *vjepa;
    Aesthetic *aesthetic;
    struct SessionModel *next;
} SessionModel;

typedef struct Session {
    SessionOptions opt;
    Recipe recipe;
    Safetensors *in, *cot; // cot NULL: no gradient
    Sink sink;
    Backend *be;
    SessionModel *model;
    Lora *lora;       // NULL: none
    bool lora_loaded; // its values are in place
    regex_t wrt;
    bool has_wrt;
    int cot_used; // cotangents that some call took
} Session;

// Opens files and device. Whatever it returns, session_fini may be called.
Err session_init(Session *s, const SessionOptions *opt);
void session_fini(Session *s);

// The open model at path. classes as in model_dir_open. Owned by the session.
Err session_model(Session *s, const char *path, const char *classes, SessionModel **out);
// V-JEPA's three dictionaries; the aesthetic tower and head.
Err session_vjepa(Session *s, const char *path, Vjepa **out);
Err session_aesthetic(Session *s, const char *clip, const char *head, Aesthetic **out);

// After a graph with the adapter was built: puts its values in place, once.
Err session_lora_ready(Session *s);

#endif
