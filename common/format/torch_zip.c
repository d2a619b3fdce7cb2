// torch_zip: libarchive walks the zip twice: first for data.pkl, then for the storages that are wanted.
#include "common/format/torch_zip.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/format/torch_pickle.h"

enum { SMALL_BYTES_MAX = 64, KEYS_TEXT_BYTES = 300 };

typedef struct Storage {
    const unsigned char *data; // NULL until loaded
    size_t bytes;
    void *owned; // when data was copied
    bool wanted, seen;
} Storage;

struct TorchZip {
    Arena arena;
    const char *path;
    const unsigned char *bytes;
    size_t len;
    bool mapped;
    TorchPickle pickle;
    Storage *storages;
    size_t inflated_bytes; // memory taken for copies so far
    SafetensorsEntry *entries;
    const TorchPickleTensor **views; // of each entry
    size_t cnt, room, visited;
    const SafetensorsEntry **by_name;
};

// ---- the zip

typedef struct Walk { // over the entries of the zip, each with its name below the root
    struct archive *archive;
    struct archive_entry *entry;
    char root[256];
    const char *name;
    size_t cnt;
} Walk;

static Err walk_start(Walk *w, const TorchZip *t) {
    *w = (Walk){.archive = archive_read_new()};
    die_unless(w->archive, "torch_zip: out of memory");
    if (archive_read_support_format_zip_seekable(w->archive) != ARCHIVE_OK ||
        archive_read_open_memory(w->archive, t->bytes, t->len) != ARCHIVE_OK)
        FAIL(ERR_FORMAT, "%s: not a zip: %s", t->path, archive_error_string(w->archive));
    return ERR_OK;
}

static void walk_end(Walk *w) {
    if (w->archive) archive_read_free(w->archive);
}

// The next entry; w->name is NULL after the last.
static Err walk_next(Walk *w, const TorchZip *t) {
    int r = archive_read_next_header(w->archive, &w->entry);
    w->name = NULL;
    if (r == ARCHIVE_EOF) return ERR_OK;
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
        FAIL(ERR_FORMAT, "%s: zip: %s", t->path, archive_error_string(w->archive));
    if (++w->cnt > TORCH_ZIP_ENTRIES_MAX)
        FAIL(ERR_FORMAT, "%s: more than %d zip entries", t->path, TORCH_ZIP_ENTRIES_MAX);
    const char *name = archive_entry_pathname(w->entry);
    if (!name) name = archive_entry_pathname_utf8(w->entry);
    const char *slash = name ? strchr(name, '/') : NULL;
    size_t n = slash ? (size_t)(slash - name) : 0;
    if (!slash || n >= sizeof w->root)
        FAIL(ERR_FORMAT, "%s: zip entry %zu is not <root>/...: not a PyTorch checkpoint", t->path,
             w->cnt);
    if (w->cnt == 1) memcpy(w->root, name, n);
    if (strncmp(w->root, name, n) || w->root[n])
        FAIL(ERR_FORMAT, "%s: zip entry %zu lies under another root than the first", t->path,
             w->cnt);
    w->name = slash + 1;
    return ERR_OK;
}

static Err entry_check(const Walk *w, const TorchZip *t, int64_t max) {
    if (archive_entry_filetype(w->entry) != AE_IFREG)
        FAIL(ERR_FORMAT, "%s: zip entry %s is not a regular file", t->path, w->name);
    if (!archive_entry_size_is_set(w->entry) || archive_entry_size(w->entry) < 0 ||
        archive_entry_size(w->entry) > max)
        FAIL(ERR_FORMAT, "%s: zip entry %s has %" PRId64 " bytes, want at most %" PRId64, t->path,
             w->name, (int64_t)archive_entry_size(w->entry), max);
    return ERR_OK;
}

// Reads the whole entry: exactly `want` bytes, checksum included. When it lies in the mapped file as one
// aligned piece, *borrowed points there; else it is copied into buf, which is made by the first piece.
static Err entry_read(const Walk *w, TorchZip *t, size_t want, size_t align,
                      const unsigned char **borrowed, void **buf) {
    size_t got = 0;
    for (;;) {
        const void *piece;
        size_t n;
        la_int64_t at;
        int r = archive_read_data_block(w->archive, &piece, &n, &at);
        if (r == ARCHIVE_EOF) break;
        if (r != ARCHIVE_OK)
            FAIL(ERR_FORMAT, "%s: zip entry %s: %s", t->path, w->name,
                 archive_error_string(w->archive));
        if (!n) continue;
        if (at != (la_int64_t)got || n > want - got)
            FAIL(ERR_FORMAT, "%s: zip entry %s is longer than %zu bytes", t->path, w->name, want);
        uintptr_t p = (uintptr_t)piece, map = (uintptr_t)t->bytes;
        if (n == want && p % align == 0 && p >= map && p + n <= map + t->len) {
            *borrowed = piece;
        } else {
            if (!*buf) {
                t->inflated_bytes += want;
                if (t->inflated_bytes / TORCH_ZIP_RATIO_MAX > t->len + (1 << 16))
                    FAIL(ERR_FORMAT, "%s: inflates to more than %d times its %zu bytes", t->path,
                         TORCH_ZIP_RATIO_MAX, t->len);
                *buf = aligned_alloc(64, (want + 63) / 64 * 64);
                if (!*buf) FAIL(ERR_MEMORY, "%s: out of memory for %zu bytes", t->path, want);
            }
            memcpy((char *)*buf + got, piece, n);
        }
        got += n;
    }
    if (got != want)
        FAIL(ERR_FORMAT, "%s: zip entry %s ends after %zu bytes, want %zu", t->path, w->name, got,
             want);
    return ERR_OK;
}

// Before anything else, files that are something else get a better message than "not a zip".
static Err magic_check(const TorchZip *t) {
    static const unsigned char legacy[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                           0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    if (t->len >= 14 && t->bytes[0] == 0x80 && !memcmp(t->bytes + 2, legacy, sizeof legacy))
        FAIL(ERR_FORMAT,
             "%s: the format of PyTorch before 1.6; load it there and torch.save it again, or save "
             "safetensors",
             t->path);
    if (t->len < 4 || memcmp(t->bytes, "PK\3\4", 4))
        FAIL(ERR_FORMAT, "%s: does not start as a zip: not a PyTorch checkpoint", t->path);
    return ERR_OK;
}

static Err byteorder_check(const Walk *w, TorchZip *t) {
    const unsigned char *borrowed = NULL;
    void *buf = NULL;
    TRY(entry_check(w, t, SMALL_BYTES_MAX));
    size_t n = (size_t)archive_entry_size(w->entry);
    Err err = entry_read(w, t, n, 1, &borrowed, &buf);
    const void *s = borrowed ? borrowed : buf;
    bool little = !err && n == 6 && !memcmp(s, "little", 6);
    free(buf);
    TRY(err);
    if (!little) FAIL(ERR_FORMAT, "%s: byteorder is not little", t->path);
    return ERR_OK;
}

// First walk: what is in the zip; data.pkl is kept, and parsed when all names are known.
static Err tree_read(TorchZip *t) {
    Err err = ERR_OK;
    Walk w = {0};
    const unsigned char *pkl = NULL;
    void *buf = NULL;
    size_t len = 0;
    bool script = false, found = false;
    TRY_OUT(walk_start(&w, t));
    for (;;) {
        TRY_OUT(walk_next(&w, t));
        if (!w.name) break;
        script |= !strcmp(w.name, "constants.pkl") || !strncmp(w.name, "code/", 5);
        if (!strcmp(w.name, "byteorder")) TRY_OUT(byteorder_check(&w, t));
        if (strcmp(w.name, "data.pkl")) continue;
        if (found) FAIL_OUT(ERR_FORMAT, "%s: zip entry data.pkl is there twice", t->path);
        found = true;
        TRY_OUT(entry_check(&w, t, TORCH_PICKLE_BYTES_MAX));
        len = (size_t)archive_entry_size(w.entry);
        TRY_OUT(entry_read(&w, t, len, 1, &pkl, &buf));
        if (!pkl) pkl = buf;
    }
    if (script)
        FAIL_OUT(ERR_FORMAT,
                 "%s: a TorchScript archive; save the state_dict of the model in it instead",
                 t->path);
    if (!found)
        FAIL_OUT(ERR_FORMAT, "%s: the zip has no data.pkl: not a PyTorch checkpoint", t->path);
    TRY_OUT(torch_pickle_parse(&t->pickle, &t->arena, t->path, pkl, len));
    t->storages = arena_array(&t->arena, Storage, t->pickle.storage_cnt);
out:
    walk_end(&w);
    free(buf);
    return err;
}

// "data/<n>" of a storage that the tree knows; -1 for other names.
static int storage_of(const TorchZip *t, const char *name) {
    if (strncmp(name, "data/", 5)) return -1;
    const char *n = name + 5;
    size_t len = strlen(n);
    int k = 0;
    if (!len || len > 5 || (len > 1 && *n == '0')) return -1;
    for (; *n; n++) {
        if (*n < '0' || *n > '9') return -1;
        k = k * 10 + *n - '0';
    }
    return k < t->pickle.storage_cnt && t->pickle.storages[k].used ? k : -1;
}

// Second walk: the storages that entries need.
static Err storages_read(TorchZip *t) {
    Err err = ERR_OK;
    Walk w = {0};
    TRY_OUT(walk_start(&w, t));
    for (;;) {
        TRY_OUT(walk_next(&w, t));
        if (!w.name) break;
        int k = storage_of(t, w.name);
        if (k < 0) continue;
        Storage *s = t->storages + k;
        if (s->seen) FAIL_OUT(ERR_FORMAT, "%s: zip entry data/%d is there twice", t->path, k);
        s->seen = true;
        if (!s->wanted) continue;
        s->bytes = (size_t)t->pickle.storages[k].numel * dtype_bytes(t->pickle.storages[k].dtype);
        TRY_OUT(entry_check(&w, t, INT64_MAX));
        if ((size_t)archive_entry_size(w.entry) != s->bytes)
            FAIL_OUT(ERR_FORMAT,
                     "%s: zip entry data/%d has %" PRId64 " bytes, want %zu (truncated?)", t->path,
                     k, (int64_t)archive_entry_size(w.entry), s->bytes);
        static const unsigned char nothing[8];
        s->data = s->bytes ? NULL : nothing;
        size_t align = dtype_bytes(t->pickle.storages[k].dtype);
        TRY_OUT(entry_read(&w, t, s->bytes, align, &s->data, &s->owned));
        if (!s->data) s->data = s->owned;
    }
    for (int k = 0; k < t->pickle.storage_cnt; k++)
        if (t->storages[k].wanted && !t->storages[k].data)
            FAIL_OUT(ERR_FORMAT, "%s: zip entry data/%d is missing", t->path, k);
out:
    walk_end(&w);
    return err;
}

// ---- the tree

static Err entry_add(TorchZip *t, const char *name, const TorchPickleTensor *view) {
    if (t->cnt == SAFETENSORS_TENSORS_MAX)
        FAIL(ERR_FORMAT, "%s: more than %d tensors", t->path, SAFETENSORS_TENSORS_MAX);
    if (t->cnt == t->room) {
        size_t room = t->room ? 2 * t->room : 256;
        SafetensorsEntry *e = arena_array(&t->arena, SafetensorsEntry, room);
        const TorchPickleTensor **v = arena_array(&t->arena, const TorchPickleTensor *, room);
        if (t->cnt) {
            memcpy(e, t->entries, t->cnt * sizeof *e);
            memcpy(v, t->views, t->cnt * sizeof *v);
        }
        t->entries = e;
        t->views = v;
        t->room = room;
    }
    SafetensorsEntry *e = t->entries + t->cnt;
    *e = (SafetensorsEntry){.name = arena_strdup(&t->arena, name),
                            .path = t->path,
                            .dtype = t->pickle.storages[view->storage].dtype,
                            .rank = view->rank};
    for (int i = 0; i < SAFETENSORS_DIMS_MAX; i++) e->dim[i] = i < view->rank ? view->dim[i] : 1;
    e->bytes = (size_t)view->numel * dtype_bytes(e->dtype);
    t->storages[view->storage].wanted = true;
    t->views[t->cnt++] = view;
    return ERR_OK;
}

// Appends "/key" to the name of len bytes. Keys of other kinds have no tensors with names below them.
static Err name_join(const TorchZip *t, char name[SAFETENSORS_NAME_BYTES_MAX + 1], size_t len,
                     const TorchPickleValue *key, size_t *out_len) {
    char number[32];
    const char *s = number;
    size_t n;
    if (key->kind == TORCH_PICKLE_STR) {
        s = key->str.s;
        n = key->str.len;
    } else if (key->kind == TORCH_PICKLE_INT) {
        n = (size_t)snprintf(number, sizeof number, "%" PRId64, key->i);
    } else {
        FAIL(ERR_FORMAT, "%s: below '%s' there is a dict key that is neither text nor integer",
             t->path, name);
    }
    if (len + (len != 0) + n > SAFETENSORS_NAME_BYTES_MAX)
        FAIL(ERR_FORMAT, "%s: a name below '%.80s' has more than %d bytes", t->path, name,
             SAFETENSORS_NAME_BYTES_MAX);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < ' ' || s[i] == 127)
            FAIL(ERR_FORMAT, "%s: a name below '%.80s' has a control character", t->path, name);
    if (len) name[len++] = '/';
    memcpy(name + len, s, n);
    name[len + n] = 0;
    *out_len = len + n;
    return ERR_OK;
}

// Collects the tensors below v. The tree may contain itself: depth and visits are bounded.
static Err flatten(TorchZip *t, const TorchPickleValue *v, char *name, size_t len, int depth) {
    if (depth > TORCH_ZIP_DEPTH_MAX)
        FAIL(ERR_FORMAT, "%s: '%.80s' lies more than %d deep", t->path, name, TORCH_ZIP_DEPTH_MAX);
    if (++t->visited > TORCH_PICKLE_VALUES_MAX)
        FAIL(ERR_FORMAT, "%s: the tree has more than %d values", t->path, TORCH_PICKLE_VALUES_MAX);
    if (v->kind == TORCH_PICKLE_TENSOR) return entry_add(t, name, v->tensor);
    if (v->kind != TORCH_PICKLE_DICT && v->kind != TORCH_PICKLE_SEQ) return ERR_OK;
    bool dict = v->kind == TORCH_PICKLE_DICT;
    for (size_t i = 0; i < v->items.cnt; i += 1 + dict) {
        const TorchPickleValue *child = v->items.item[i + dict];
        TorchPickleValue idx = {.kind = TORCH_PICKLE_INT, .i = (int64_t)i};
        size_t child_len = 0;
        if (child->kind != TORCH_PICKLE_TENSOR && child->kind != TORCH_PICKLE_DICT &&
            child->kind != TORCH_PICKLE_SEQ)
            continue;
        TRY(name_join(t, name, len, dict ? v->items.item[i] : &idx, &child_len));
        TRY(flatten(t, child, name, child_len, depth + 1));
        name[len] = 0;
    }
    return ERR_OK;
}

// "model, opt, epoch": the text keys of a dict, for a message.
static const char *keys_text(const TorchPickleValue *v, char buf[KEYS_TEXT_BYTES]) {
    size_t n = 0;
    *buf = 0;
    if (v->kind != TORCH_PICKLE_DICT) return "no dict";
    for (size_t i = 0; i < v->items.cnt && n < KEYS_TEXT_BYTES; i += 2)
        if (v->items.item[i]->kind == TORCH_PICKLE_STR)
            n += (size_t)snprintf(buf + n, KEYS_TEXT_BYTES - n, "%s%.60s", n ? ", " : "",
                                  v->items.item[i]->str.s);
    for (char *c = buf; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    return buf;
}

static const TorchPickleValue *descend(const TorchPickleValue *v, const char *path,
                                       const TorchPickleValue **last) {
    while (v && path && *path) {
        size_t n = strcspn(path, "/");
        *last = v;
        v = torch_pickle_at(v, path, n);
        path += n + (path[n] == '/');
    }
    return v;
}

static Err tree_flatten(TorchZip *t, const char *sub) {
    char name[SAFETENSORS_NAME_BYTES_MAX + 1] = "", buf[KEYS_TEXT_BYTES];
    const TorchPickleValue *last = t->pickle.root, *v = descend(last, sub, &last);
    if (!v)
        FAIL(ERR_FORMAT, "%s: no dictionary '%s'; there is: %s", t->path, sub,
             keys_text(last, buf));
    if (v->kind != TORCH_PICKLE_DICT && v->kind != TORCH_PICKLE_SEQ)
        FAIL(ERR_FORMAT, "%s: the %s '%s' is not a dictionary of tensors", t->path,
             sub ? "value" : "top of", sub ? sub : "data.pkl");
    return flatten(t, v, name, 0, 0);
}

// ---- the tensors

static bool contiguous(const TorchPickleTensor *v) {
    int64_t want = 1;
    for (int i = v->rank; i--;) {
        if (v->dim[i] != 1 && v->stride[i] != want) return false;
        want *= v->dim[i];
    }
    return true;
}

// Row-major copy of a strided view; element size 1, 2, 4 or 8.
static void gather(unsigned char *dst, const unsigned char *src, const TorchPickleTensor *v,
                   size_t element) {
    int64_t idx[TORCH_PICKLE_DIMS_MAX] = {0}, at = v->offset;
    for (int64_t n = 0; n < v->numel; n++) {
        memcpy(dst + (size_t)n * element, src + (size_t)at * element, element);
        for (int i = v->rank; i--;) {
            at += v->stride[i];
            if (++idx[i] < v->dim[i]) break;
            at -= v->stride[i] * v->dim[i];
            idx[i] = 0;
        }
    }
}

static Err tensors_place(TorchZip *t) {
    size_t stored = 0, copied = 0;
    for (int k = 0; k < t->pickle.storage_cnt; k++) stored += t->storages[k].bytes;
    for (size_t i = 0; i < t->cnt; i++) {
        SafetensorsEntry *e = t->entries + i;
        const TorchPickleTensor *v = t->views[i];
        const unsigned char *data = t->storages[v->storage].data;
        size_t element = dtype_bytes(e->dtype);
        if (!v->numel) {
            e->data = data;
        } else if (contiguous(v)) {
            e->data = data + (size_t)v->offset * element;
        } else {
            copied += e->bytes;
            if (copied / 4 > stored)
                FAIL(ERR_FORMAT, "%s: '%s': views copy more than four times the storages", t->path,
                     e->name);
            unsigned char *dst = arena_alloc(&t->arena, e->bytes);
            gather(dst, data, v, element);
            e->data = dst;
        }
    }
    return ERR_OK;
}

static int by_name_order(const void *a, const void *b) {
    return strcmp((*(const SafetensorsEntry *const *)a)->name,
                  (*(const SafetensorsEntry *const *)b)->name);
}

static Err names_index(TorchZip *t) {
    t->by_name = arena_array(&t->arena, const SafetensorsEntry *, t->cnt);
    for (size_t i = 0; i < t->cnt; i++) t->by_name[i] = t->entries + i;
    if (t->cnt) qsort(t->by_name, t->cnt, sizeof *t->by_name, by_name_order);
    for (size_t i = 1; i < t->cnt; i++)
        if (!strcmp(t->by_name[i]->name, t->by_name[i - 1]->name))
            FAIL(ERR_FORMAT, "%s: two tensors are named '%s'", t->path, t->by_name[i]->name);
    return ERR_OK;
}

static Err load(TorchZip *t, const char *sub) {
    TRY(magic_check(t));
    TRY(tree_read(t));
    TRY(tree_flatten(t, sub));
    TRY(names_index(t));
    TRY(storages_read(t));
    TRY(tensors_place(t));
    return ERR_OK;
}

static TorchZip *zip_new(const char *path) {
    TorchZip *t = calloc(1, sizeof *t);
    die_unless(t, "torch_zip: out of memory");
    t->path = arena_strdup(&t->arena, path);
    return t;
}

Err torch_zip_open_bytes(TorchZip **out, const char *label, const void *bytes, size_t len,
                         const char *sub) {
    Err err = ERR_OK;
    TorchZip *t = zip_new(label);
    *out = NULL;
    t->bytes = bytes;
    t->len = len;
    TRY_OUT(load(t, sub));
    *out = t;
out:
    if (err) torch_zip_close(t);
    return err;
}

static Err file_map(TorchZip *t) {
    Err err = ERR_OK;
    struct stat st;
    int fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", t->path, strerror(errno));
    if (fstat(fd, &st)) FAIL_OUT(ERR_IO, "%s: %s", t->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) FAIL_OUT(ERR_IO, "%s: not a regular file", t->path);
    if (!st.st_size) FAIL_OUT(ERR_FORMAT, "%s: the file is empty", t->path);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) FAIL_OUT(ERR_IO, "%s: mmap: %s", t->path, strerror(errno));
    t->bytes = p;
    t->len = (size_t)st.st_size;
    t->mapped = true;
out:
    close(fd);
    return err;
}

Err torch_zip_open(TorchZip **out, const char *path, const char *sub) {
    Err err = ERR_OK;
    TorchZip *t = zip_new(path);
    *out = NULL;
    TRY_OUT(file_map(t));
    TRY_OUT(load(t, sub));
    *out = t;
out:
    if (err) torch_zip_close(t);
    return err;
}

void torch_zip_close(TorchZip *t) {
    if (!t) return;
    for (int k = 0; t->storages && k < t->pickle.storage_cnt; k++) free(t->storages[k].owned);
    if (t->mapped) munmap((void *)t->bytes, t->len);
    arena_free(&t->arena);
    free(t);
}

const SafetensorsEntry *torch_zip_find(const TorchZip *t, const char *name) {
    const SafetensorsEntry key = {.name = name}, *k = &key;
    const SafetensorsEntry **found =
        t->cnt ? bsearch(&k, t->by_name, t->cnt, sizeof *t->by_name, by_name_order) : NULL;
    return found ? *found : NULL;
}

Err torch_zip_want(const TorchZip *t, const char *name, const SafetensorsEntry **out) {
    *out = torch_zip_find(t, name);
    if (!*out) FAIL(ERR_FORMAT, "%s: tensor '%s' is missing", t->path, name);
    return ERR_OK;
}

size_t torch_zip_count(const TorchZip *t) { return t->cnt; }

const SafetensorsEntry *torch_zip_at(const TorchZip *t, size_t i) {
    die_unless(i < t->cnt, "torch_zip: entry %zu of %zu", i, t->cnt);
    return t->entries + i;
}

const char *torch_zip_path(const TorchZip *t) { return t->path; }

bool torch_zip_number(const TorchZip *t, const char *path, double *out) {
    const TorchPickleValue *last, *v = descend(t->pickle.root, path, &last);
    if (!v || (v->kind != TORCH_PICKLE_INT && v->kind != TORCH_PICKLE_BOOL &&
               v->kind != TORCH_PICKLE_FLOAT))
        return false;
    *out = v->kind == TORCH_PICKLE_FLOAT ? v->f : (double)v->i;
    return true;
}

const char *torch_zip_text(const TorchZip *t, const char *path) {
    const TorchPickleValue *last, *v = descend(t->pickle.root, path, &last);
    return v && v->kind == TORCH_PICKLE_STR ? v->str.s : NULL;
}
