// config: the settings of a run, from YAML and `key=value` words.
//
// Every key is a row of config.def; nothing else is accepted. An unknown key is an error that names the
// line and the nearest known key; a value of the wrong type or out of bounds says what was wanted:
//
//     runs/a.yaml:14: optim.lr is 20, want 0 to 10
//     runs/a.yaml:9: unknown key video.frame, did you mean video.frames?
//
// A file may nest mappings (video: {frames: 14}) or spell keys with dots; both are the same. Paths in a
// file are relative to the folder of that file; on the command line, to the working directory; both become
// absolute here. A list on the command line is written as in YAML: window.range=[0,7], data.images=["a, b.png", c.png].
// All these errors are ERR_USAGE (exit status 2).
//
//     Config *cfg;
//     TRY(config_load(&cfg, "launch/conf/tiny.yaml", 1, (const char *[]){"optim.updates=5"}));
//     printf("%lld\n", (long long)cfg->updates);
//     config_free(cfg);
#ifndef COMMON_CONFIG_CONFIG_H
#define COMMON_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/arena.h"
#include "common/base/err.h"

enum { CONFIG_LIST_MAX = 4096, CONFIG_REWARDS_MAX = 8 };

typedef struct ConfigStrs {
    int cnt;
    const char **item;
} ConfigStrs;

typedef struct ConfigInts {
    int cnt;
    int64_t *item;
} ConfigInts;

// Generated structs: one member per row of config.def.
#define GROUP(name, doc)
#define INT(member, ...) int64_t member;
#define REAL(member, ...) double member;
#define BOOL(member, ...) bool member;
#define STR(member, ...) const char *member;
#define ENUM(member, ...) int member;
#define STRS(member, ...) ConfigStrs member;
#define INTS(member, ...) ConfigInts member;
typedef struct ConfigReward {
#define CONFIG_REWARD_ROWS
#include "common/config/config.def"
#undef CONFIG_REWARD_ROWS
} ConfigReward;

typedef struct Config {
#include "common/config/config.def"
    int reward_cnt;
    ConfigReward reward[CONFIG_REWARDS_MAX];
    const char *file; // where it came from
    Arena arena;      // owns every string and list
} Config;
#undef GROUP
#undef INT
#undef REAL
#undef BOOL
#undef STR
#undef ENUM
#undef STRS
#undef INTS

// Values of the ENUM members, in the order of their rows.
enum { CONFIG_WEIGHTS_PACKED, CONFIG_WEIGHTS_MAPPED };
enum { CONFIG_GUIDANCE_BOTH, CONFIG_GUIDANCE_COND };
enum { CONFIG_SEAM_KEEP, CONFIG_SEAM_DROP_FIRST };
enum { CONFIG_HANDOVER_LEARNER, CONFIG_HANDOVER_SAMPLER };
enum { CONFIG_FINISH_DENOISE, CONFIG_FINISH_PREDICT };
enum { CONFIG_ORDER_WITH_REPLACEMENT, CONFIG_ORDER_EPOCH };
enum { CONFIG_MASKS_FRESH, CONFIG_MASKS_FIXED };
enum {
    CONFIG_VJEPA_STOP_TARGET,
    CONFIG_VJEPA_FULL,
    CONFIG_VJEPA_TARGET_ONLY,
    CONFIG_VJEPA_SEGMENTED
};
enum {
    CONFIG_REWARD_VIDEOMAE,
    CONFIG_REWARD_VJEPA,
    CONFIG_REWARD_AESTHETIC,
    CONFIG_REWARD_FIRST_FRAME
};
enum { CONFIG_FORM_LOG_PROB, CONFIG_FORM_PROB, CONFIG_FORM_SCORE, CONFIG_FORM_ABS_TARGET };
enum { CONFIG_RESIZE_SQUASH, CONFIG_RESIZE_CROP };
enum { CONFIG_PER_FRAME_MEAN, CONFIG_PER_FRAME_SUM };

// Reads the file, then the `key=value` words in order, then checks what keys mean together (config_check).
Err config_load(Config **out, const char *path, int set_cnt, const char *const *set);
// The same from memory, which is not kept; `label` is what messages call it, `dir` what paths are relative to.
Err config_load_text(Config **out, const char *label, const char *dir, const char *text, size_t len,
                     int set_cnt, const char *const *set);
void config_free(Config *cfg); // NULL is fine

// The run directory: the key `run`, else runs/<name of the file without its ending>. In the config's arena.
const char *config_run_dir(Config *cfg);

// "videomae", as `reward.N.model` spells it; metrics and evaluations call term N "videomae.N".
const char *config_reward_name(const ConfigReward *r);

// Combinations that cannot be run, each with the reason.
Err config_check(const Config *cfg);

// Every key with its value, as YAML that config_load reads back to the same Config; with `docs` each key is preceded by
// its one-line description.
void config_write(const Config *cfg, FILE *out, bool docs);

// One line per key whose value differs: "optim.lr: 0.0002 -> 0.001" into the arena; "" when none does.
// `loose` leaves out keys that do not decide the numbers (slots, replicas, run, preview, ckpt, eval, updates).
char *config_diff(const Config *a, const Config *b, Arena *arena, bool loose);

// A hash over the keys that decide numbers (those that config_diff keeps when loose).
uint64_t config_hash(const Config *cfg);

// `vader help [key]`: the description of a key, a group, or all. ERR_USAGE names the nearest key.
Err config_help(const char *key, FILE *out);

#endif
