// torch_pickle: one switch over the instructions, one table of globals.
#include "common/format/torch_pickle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef TorchPickleValue Value;
typedef TorchPickleItems Items;

enum { SHOWN_BYTES = 80 };

typedef enum GlobalKind {
    STORAGE_CLASS,
    REBUILD_TENSOR,
    REBUILD_PARAMETER,
    DICT_CLASS,
    SIZE_CLASS,
    OPAQUE
} GlobalKind;

// The closed list. An OPAQUE may be named, called and given state; none of that does anything.
static const struct {
    const char *module, *name;
    GlobalKind kind;
    DType dtype;
} globals[] = {
    {"torch", "FloatStorage", STORAGE_CLASS, DTYPE_F32},
    {"torch", "HalfStorage", STORAGE_CLASS, DTYPE_F16},
    {"torch", "BFloat16Storage", STORAGE_CLASS, DTYPE_BF16},
    {"torch", "DoubleStorage", STORAGE_CLASS, DTYPE_F64},
    {"torch", "IntStorage", STORAGE_CLASS, DTYPE_I32},
    {"torch", "LongStorage", STORAGE_CLASS, DTYPE_I64},
    {"torch", "ByteStorage", STORAGE_CLASS, DTYPE_U8},
    {"torch", "BoolStorage", STORAGE_CLASS, DTYPE_BOOL},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0},
    {"collections", "OrderedDict", DICT_CLASS, 0},
    {"collections", "defaultdict", DICT_CLASS, 0},
    {"torch", "Size", SIZE_CLASS, 0},
    {"torch", "device", OPAQUE, 0},
    {"torch", "float32", OPAQUE, 0},
    {"torch", "float16", OPAQUE, 0},
    {"torch", "bfloat16", OPAQUE, 0},
    {"torch", "float64", OPAQUE, 0},
    {"torch", "int64", OPAQUE, 0},
    {"argparse", "Namespace", OPAQUE, 0},
    {"numpy", "dtype", OPAQUE, 0},
    {"numpy.core.multiarray", "scalar", OPAQUE, 0},
    {"numpy._core.multiarray", "scalar", OPAQUE, 0},
    {"_codecs", "encode", OPAQUE, 0},
    {"__builtin__", "dict", OPAQUE, 0},
    {"builtins", "dict", OPAQUE, 0},
    {"__builtin__", "list", OPAQUE, 0},
    {"builtins", "list", OPAQUE, 0},
    {"__builtin__", "int", OPAQUE, 0},
    {"builtins", "int", OPAQUE, 0},
};
enum { GLOBALS_CNT = sizeof globals / sizeof *globals };

typedef struct Machine {
    Arena *arena;
    const char *label;
    const unsigned char *start, *p, *end;
    size_t at;     // of the instruction that runs, for messages
    Value **stack; // NULL marks a MARK
    size_t stack_cnt, stack_room;
    Value **memo;
    size_t memo_cnt, memo_room; // cnt: indices that are set; MEMOIZE stores there
    size_t value_cnt;
    TorchPickleStorage *storages;
    size_t storage_cnt, storage_room;
} Machine;

#define BAD(m, fmt, ...) \
    FAIL(ERR_FORMAT, "%s: data.pkl byte %zu: " fmt, (m)->label, (m)->at, __VA_ARGS__)

// Text from the file for a message.
static const char *shown(const char *s, size_t len, char buf[SHOWN_BYTES + 1]) {
    size_t n = len < SHOWN_BYTES ? len : SHOWN_BYTES;
    for (size_t i = 0; i < n; i++) buf[i] = s[i] < ' ' || s[i] == 127 ? '?' : s[i];
    buf[n] = 0;
    return buf;
}

// Grows an array of cnt elements to hold index `cnt`; doubling, in the arena.
static void *grow(Arena *a, void *old, size_t cnt, size_t *room, size_t want, size_t element) {
    if (want <= *room) return old;
    size_t n = *room ? *room : 8;
    while (n < want) n *= 2;
    void *new = arena_alloc(a, n * element);
    if (cnt) memcpy(new, old, cnt * element);
    *room = n;
    return new;
}

// ---- bytes, stack, memo

static Err take(Machine *m, size_t n, const unsigned char **out) {
    *out = m->p;
    if (n > (size_t)(m->end - m->p))
        BAD(m, "the pickle ends in the middle of an instruction (%zu bytes more)", n);
    m->p += n;
    return ERR_OK;
}

// Unsigned, little-endian, n <= 8 bytes.
static Err take_uint(Machine *m, size_t n, uint64_t *out) {
    const unsigned char *b;
    *out = 0;
    TRY(take(m, n, &b));
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)b[i] << 8 * i;
    return ERR_OK;
}

// Text up to a newline.
static Err take_line(Machine *m, const char **s, size_t *len) {
    *s = NULL;
    *len = 0;
    const unsigned char *nl = memchr(m->p, '\n', (size_t)(m->end - m->p));
    if (!nl) BAD(m, "%s", "the pickle ends in the middle of a line");
    *s = (const char *)m->p;
    *len = (size_t)(nl - m->p);
    m->p = nl + 1;
    return ERR_OK;
}

static Err value_new(Machine *m, TorchPickleKind kind, Value **out) {
    *out = NULL;
    if (++m->value_cnt > TORCH_PICKLE_VALUES_MAX)
        BAD(m, "more than %d values", TORCH_PICKLE_VALUES_MAX);
    *out = arena_new(m->arena, Value);
    (*out)->kind = kind;
    return ERR_OK;
}

static Err push(Machine *m, Value *v) {
    if (m->stack_cnt >= TORCH_PICKLE_VALUES_MAX)
        BAD(m, "more than %d values on the stack", TORCH_PICKLE_VALUES_MAX);
    m->stack =
        grow(m->arena, m->stack, m->stack_cnt, &m->stack_room, m->stack_cnt + 1, sizeof *m->stack);
    m->stack[m->stack_cnt++] = v;
    return ERR_OK;
}

static Err push_new(Machine *m, TorchPickleKind kind, int64_t i) {
    Value *v;
    TRY(value_new(m, kind, &v));
    if (kind == TORCH_PICKLE_INT || kind == TORCH_PICKLE_BOOL || kind == TORCH_PICKLE_GLOBAL)
        v->i = i;
    return push(m, v);
}

static Err push_str(Machine *m, const void *s, size_t len) {
    Value *v;
    TRY(value_new(m, TORCH_PICKLE_STR, &v));
    char *copy = arena_alloc(m->arena, len + 1);
    memcpy(copy, s, len);
    v->str.s = copy;
    v->str.len = len;
    return push(m, v);
}

// The value on top, which is not a MARK.
static Err pop(Machine *m, Value **out) {
    *out = NULL;
    if (!m->stack_cnt || !m->stack[m->stack_cnt - 1]) BAD(m, "%s", "the stack is empty");
    *out = m->stack[--m->stack_cnt];
    return ERR_OK;
}

static Err top(Machine *m, Value **out) {
    TRY(pop(m, out));
    m->stack_cnt++;
    return ERR_OK;
}

// Removes the values above the last MARK, and the MARK; they stay readable until the next push.
static Err pop_mark(Machine *m, Value ***first, size_t *cnt) {
    *first = NULL;
    *cnt = 0;
    size_t i = m->stack_cnt;
    while (i && m->stack[i - 1]) i--;
    if (!i) BAD(m, "%s", "no MARK on the stack");
    *first = m->stack + i;
    *cnt = m->stack_cnt - i;
    m->stack_cnt = i - 1;
    return ERR_OK;
}

static Err memo_put(Machine *m, uint64_t idx) {
    Value *v;
    TRY(top(m, &v));
    if (idx >= TORCH_PICKLE_VALUES_MAX)
        BAD(m, "memo index %" PRIu64 ", want below %d", idx, TORCH_PICKLE_VALUES_MAX);
    m->memo = grow(m->arena, m->memo, m->memo_room, &m->memo_room, idx + 1, sizeof *m->memo);
    m->memo_cnt += !m->memo[idx];
    m->memo[idx] = v;
    return ERR_OK;
}

static Err memo_get(Machine *m, uint64_t idx) {
    if (idx >= m->memo_room || !m->memo[idx]) BAD(m, "memo index %" PRIu64 " was never set", idx);
    return push(m, m->memo[idx]);
}

// ---- containers

static void items_add(Machine *m, Items *t, Value *const *values, size_t cnt) {
    if (!cnt) return;
    t->item = grow(m->arena, t->item, t->cnt, &t->room, t->cnt + cnt, sizeof *t->item);
    memcpy(t->item + t->cnt, values, cnt * sizeof *values);
    t->cnt += cnt;
}

static Err push_tuple(Machine *m, Value *const *values, size_t cnt) {
    Value *v;
    TRY(value_new(m, TORCH_PICKLE_SEQ, &v));
    items_add(m, &v->items, values, cnt);
    return push(m, v);
}

static Err push_tuple_of_last(Machine *m, size_t cnt) {
    Value *v[3];
    for (size_t i = cnt; i--;) TRY(pop(m, v + i));
    return push_tuple(m, v, cnt);
}

// APPEND(S), SETITEM(S): onto the container on top.
static Err extend(Machine *m, TorchPickleKind kind, Value *const *values, size_t cnt) {
    Value *v;
    TRY(top(m, &v));
    if (v->kind == TORCH_PICKLE_OPAQUE) return ERR_OK;
    if (v->kind != kind)
        BAD(m, "%s to a value that is none",
            kind == TORCH_PICKLE_DICT ? "setting an item of a dict" : "appending to a list");
    if (kind == TORCH_PICKLE_DICT && cnt % 2) BAD(m, "%s", "a key without value");
    items_add(m, &v->items, values, cnt);
    return ERR_OK;
}

// ---- globals, storages, tensors

static Err push_global(Machine *m, const char *module, size_t module_len, const char *name,
                       size_t name_len) {
    char buf[SHOWN_BYTES + 1], buf2[SHOWN_BYTES + 1];
    for (int i = 0; i < GLOBALS_CNT; i++)
        if (strlen(globals[i].module) == module_len &&
            !memcmp(globals[i].module, module, module_len) && strlen(globals[i].name) == name_len &&
            !memcmp(globals[i].name, name, name_len))
            return push_new(m, TORCH_PICKLE_GLOBAL, i);
    BAD(m, "global '%s.%s' is not allowed in a checkpoint of tensors",
        shown(module, module_len, buf), shown(name, name_len, buf2));
}

static const Value *arg(const Value *args, size_t i, TorchPickleKind kind) {
    return i < args->items.cnt && args->items.item[i]->kind == kind ? args->items.item[i] : NULL;
}

// "0", "12": a number without sign, blanks or leading zeros.
static bool decimal(const char *s, size_t len, int64_t *out) {
    *out = 0;
    if (!len || len > 9 || (len > 1 && *s == '0')) return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        *out = *out * 10 + s[i] - '0';
    }
    return true;
}

// BINPERSID: ("storage", class, number, device, numel).
static Err push_storage(Machine *m) {
    Value *id, *v;
    int64_t k;
    TRY(pop(m, &id));
    if (id->kind != TORCH_PICKLE_SEQ) BAD(m, "%s", "a persistent id that is no tuple");
    const Value *tag = arg(id, 0, TORCH_PICKLE_STR), *class = arg(id, 1, TORCH_PICKLE_GLOBAL);
    const Value *key = arg(id, 2, TORCH_PICKLE_STR), *numel = arg(id, 4, TORCH_PICKLE_INT);
    if (!tag || strcmp(tag->str.s, "storage") || !class || !numel ||
        globals[class->i].kind != STORAGE_CLASS)
        BAD(m, "%s", "a persistent id that is not (\"storage\", class, number, device, count)");
    if (!key || !decimal(key->str.s, key->str.len, &k) || k >= TORCH_PICKLE_STORAGES_MAX)
        BAD(m, "a storage number that is not a text below \"%d\"", TORCH_PICKLE_STORAGES_MAX);
    if (numel->i < 0 || numel->i > INT64_MAX / 8)
        BAD(m, "storage %" PRId64 " of %" PRId64 " elements", k, numel->i);
    m->storages = grow(m->arena, m->storages, m->storage_cnt, &m->storage_room, (size_t)k + 1,
                       sizeof *m->storages);
    if ((size_t)k >= m->storage_cnt) m->storage_cnt = (size_t)k + 1;
    TorchPickleStorage *s = m->storages + k;
    DType dtype = globals[class->i].dtype;
    if (s->used && (s->dtype != dtype || s->numel != numel->i))
        BAD(m, "storage %" PRId64 " is %s x %" PRId64 ", before it was %s x %" PRId64, k,
            dtype_name(dtype), numel->i, dtype_name(s->dtype), s->numel);
    *s = (TorchPickleStorage){true, dtype, numel->i};
    TRY(value_new(m, TORCH_PICKLE_STORAGE, &v));
    v->i = k;
    return push(m, v);
}

static Err ints_of(Machine *m, const Value *v, const char *what, int64_t *out, int *cnt) {
    if (!v || v->items.cnt > TORCH_PICKLE_DIMS_MAX)
        BAD(m, "a tensor's %s is not a tuple of at most %d", what, TORCH_PICKLE_DIMS_MAX);
    for (size_t i = 0; i < v->items.cnt; i++) {
        const Value *n = v->items.item[i];
        if (n->kind != TORCH_PICKLE_INT || n->i < 0)
            BAD(m, "a tensor's %s has an entry that is not a count", what);
        out[i] = n->i;
    }
    *cnt = (int)v->items.cnt;
    return ERR_OK;
}

// Every element must lie within the storage, and there must not be more of them than the storage has.
static Err tensor_check(Machine *m, TorchPickleTensor *t, int64_t room) {
    int64_t numel = 1, last = t->offset;
    bool empty = false;
    for (int i = 0; i < t->rank; i++) {
        int64_t reach;
        empty |= t->dim[i] == 0;
        if (!t->dim[i]) continue;
        if (__builtin_mul_overflow(numel, t->dim[i], &numel) || numel > INT64_MAX / 8)
            BAD(m, "%s", "a tensor's shape overflows");
        if (__builtin_mul_overflow(t->dim[i] - 1, t->stride[i], &reach) ||
            __builtin_add_overflow(last, reach, &last))
            BAD(m, "%s", "a tensor's strides overflow");
    }
    t->numel = empty ? 0 : numel;
    if (empty) return ERR_OK;
    if (last >= room)
        BAD(m, "a tensor reaches element %" PRId64 " of storage %d, which has %" PRId64, last,
            t->storage, room);
    if (numel > room)
        BAD(m, "an expanded tensor: %" PRId64 " elements in storage %d, which has %" PRId64, numel,
            t->storage, room);
    return ERR_OK;
}

// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, ...)
static Err push_tensor(Machine *m, const Value *args) {
    Value *v;
    int strides;
    const Value *storage = arg(args, 0, TORCH_PICKLE_STORAGE),
                *offset = arg(args, 1, TORCH_PICKLE_INT);
    if (!storage || !offset || offset->i < 0) BAD(m, "%s", "a tensor without storage and offset");
    TorchPickleTensor *t = arena_new(m->arena, TorchPickleTensor);
    t->storage = (int)storage->i;
    t->offset = offset->i;
    TRY(ints_of(m, arg(args, 2, TORCH_PICKLE_SEQ), "size", t->dim, &t->rank));
    TRY(ints_of(m, arg(args, 3, TORCH_PICKLE_SEQ), "stride", t->stride, &strides));
    if (strides != t->rank) BAD(m, "a tensor of %d dims with %d strides", t->rank, strides);
    TRY(tensor_check(m, t, m->storages[t->storage].numel));
    TRY(value_new(m, TORCH_PICKLE_TENSOR, &v));
    v->tensor = t;
    return push(m, v);
}

static Err reduce(Machine *m) {
    Value *args, *f;
    TRY(pop(m, &args));
    TRY(pop(m, &f));
    if (f->kind != TORCH_PICKLE_GLOBAL || args->kind != TORCH_PICKLE_SEQ)
        BAD(m, "%s", "a call of a value that is no function");
    switch (globals[f->i].kind) {
    case REBUILD_TENSOR: return push_tensor(m, args);
    case REBUILD_PARAMETER:
        if (!arg(args, 0, TORCH_PICKLE_TENSOR)) BAD(m, "%s", "a parameter without tensor");
        return push(m, args->items.item[0]);
    case DICT_CLASS:
        if (args->items.cnt && !arg(args, 0, TORCH_PICKLE_GLOBAL))
            BAD(m, "%s", "a dict made from values");
        return push_new(m, TORCH_PICKLE_DICT, 0);
    case SIZE_CLASS:
        if (!arg(args, 0, TORCH_PICKLE_SEQ)) BAD(m, "%s", "a torch.Size without tuple");
        return push(m, args->items.item[0]);
    case OPAQUE: return push_new(m, TORCH_PICKLE_OPAQUE, 0);
    case STORAGE_CLASS: break;
    }
    BAD(m, "%s.%s is not called in a checkpoint", globals[f->i].module, globals[f->i].name);
}

// Attributes of a dict (state_dict's _metadata) and of opaque objects are passed over.
static Err build(Machine *m) {
    Value *state, *v;
    TRY(pop(m, &state));
    TRY(top(m, &v));
    if (v->kind != TORCH_PICKLE_DICT && v->kind != TORCH_PICKLE_OPAQUE)
        BAD(m, "%s", "state for a value that has none");
    return ERR_OK;
}

static Err newobj(Machine *m) {
    Value *args, *class;
    TRY(pop(m, &args));
    TRY(pop(m, &class));
    if (class->kind != TORCH_PICKLE_GLOBAL || globals[class->i].kind != OPAQUE)
        BAD(m, "%s", "an object of a class that is not known");
    return push_new(m, TORCH_PICKLE_OPAQUE, 0);
}

// ---- the instructions

static Err step_number(Machine *m, int op) {
    uint64_t u, n;
    Value *v;
    switch (op) {
    case 'J': // BININT
        TRY(take_uint(m, 4, &u));
        return push_new(m, TORCH_PICKLE_INT, (int32_t)u);
    case 'K': // BININT1
    case 'M': // BININT2
        TRY(take_uint(m, op == 'K' ? 1 : 2, &u));
        return push_new(m, TORCH_PICKLE_INT, (int64_t)u);
    case 0x8a: // LONG1: two's complement of n bytes
        TRY(take_uint(m, 1, &n));
        if (n > 8) BAD(m, "an integer of %" PRIu64 " bytes, want at most 8", n);
        TRY(take_uint(m, n, &u));
        if (n && n < 8 && u >> (8 * n - 1)) u |= ~(uint64_t)0 << 8 * n;
        return push_new(m, TORCH_PICKLE_INT, (int64_t)u);
    default: // BINFLOAT, big-endian
        TRY(take_uint(m, 8, &u));
        TRY(value_new(m, TORCH_PICKLE_FLOAT, &v));
        u = __builtin_bswap64(u);
        memcpy(&v->f, &u, 8);
        return push(m, v);
    }
}

// Text and bytes with a length in front.
static Err step_str(Machine *m, size_t length_bytes) {
    uint64_t n;
    const unsigned char *s;
    TRY(take_uint(m, length_bytes, &n));
    TRY(take(m, n, &s));
    return push_str(m, s, n);
}

static Err step_global(Machine *m, int op) {
    const char *module, *name;
    size_t module_len, name_len;
    Value *a, *b;
    if (op == 'c') { // GLOBAL: two lines
        TRY(take_line(m, &module, &module_len));
        TRY(take_line(m, &name, &name_len));
        return push_global(m, module, module_len, name, name_len);
    }
    TRY(pop(m, &b)); // STACK_GLOBAL
    TRY(pop(m, &a));
    if (a->kind != TORCH_PICKLE_STR || b->kind != TORCH_PICKLE_STR)
        BAD(m, "%s", "a global without name");
    return push_global(m, a->str.s, a->str.len, b->str.s, b->str.len);
}

static Err step_container(Machine *m, int op) {
    Value *last[2], **values;
    size_t cnt;
    switch (op) {
    case 'a': // APPEND
        TRY(pop(m, last));
        return extend(m, TORCH_PICKLE_SEQ, last, 1);
    case 's': // SETITEM
        TRY(pop(m, last + 1));
        TRY(pop(m, last));
        return extend(m, TORCH_PICKLE_DICT, last, 2);
    default: // APPENDS, SETITEMS, TUPLE
        TRY(pop_mark(m, &values, &cnt));
        if (op == 't') { // the push below may overwrite the slot of the MARK, not the values
            Value *v;
            TRY(value_new(m, TORCH_PICKLE_SEQ, &v));
            items_add(m, &v->items, values, cnt);
            return push(m, v);
        }
        return extend(m, op == 'e' ? TORCH_PICKLE_SEQ : TORCH_PICKLE_DICT, values, cnt);
    }
}

// One instruction; *stop is set by STOP.
static Err step(Machine *m, bool *stop) {
    const unsigned char *b;
    uint64_t u;
    Value *v;
    m->at = (size_t)(m->p - m->start);
    TRY(take(m, 1, &b));
    switch (*b) {
    case 0x80: // PROTO
        TRY(take_uint(m, 1, &u));
        if (u < 2 || u > 5) BAD(m, "pickle protocol %" PRIu64 ", want 2 to 5", u);
        return ERR_OK;
    case 0x95: // FRAME: a hint about buffering
        TRY(take_uint(m, 8, &u));
        if (u > (uint64_t)(m->end - m->p))
            BAD(m, "a frame of %" PRIu64 " bytes reaches past the end", u);
        return ERR_OK;
    case '.': *stop = true; return ERR_OK;
    case '(': return push(m, NULL); // MARK
    case '0': return pop(m, &v);    // POP
    case 'N': return push_new(m, TORCH_PICKLE_NONE, 0);
    case 0x88: return push_new(m, TORCH_PICKLE_BOOL, 1); // NEWTRUE
    case 0x89: return push_new(m, TORCH_PICKLE_BOOL, 0); // NEWFALSE
    case 'J':
    case 'K':
    case 'M':
    case 'G':
    case 0x8a: return step_number(m, *b);
    case 'X': return step_str(m, 4);  // BINUNICODE
    case 'B': return step_str(m, 4);  // BINBYTES
    case 0x8c: return step_str(m, 1); // SHORT_BINUNICODE
    case 'C': return step_str(m, 1);  // SHORT_BINBYTES
    case '}': return push_new(m, TORCH_PICKLE_DICT, 0);
    case ']': return push_new(m, TORCH_PICKLE_SEQ, 0);
    case ')': return push_tuple(m, NULL, 0);
    case 0x85: return push_tuple_of_last(m, 1);
    case 0x86: return push_tuple_of_last(m, 2);
    case 0x87: return push_tuple_of_last(m, 3);
    case 'a':
    case 'e':
    case 's':
    case 'u':
    case 't': return step_container(m, *b);
    case 'q': // BINPUT
    case 'r': // LONG_BINPUT
        TRY(take_uint(m, *b == 'q' ? 1 : 4, &u));
        return memo_put(m, u);
    case 0x94: return memo_put(m, m->memo_cnt); // MEMOIZE
    case 'h':                                   // BINGET
    case 'j':                                   // LONG_BINGET
        TRY(take_uint(m, *b == 'h' ? 1 : 4, &u));
        return memo_get(m, u);
    case 'c':
    case 0x93: return step_global(m, *b);
    case 'Q': return push_storage(m); // BINPERSID
    case 'R': return reduce(m);
    case 'b': return build(m);
    case 0x81: return newobj(m);
    }
    BAD(m, "instruction 0x%02x is not allowed in a checkpoint of tensors", *b);
}

Err torch_pickle_parse(TorchPickle *out, Arena *a, const char *label, const void *bytes,
                       size_t len) {
    Machine m = {.arena = a,
                 .label = label,
                 .start = bytes,
                 .p = bytes,
                 .end = (const unsigned char *)bytes + len};
    bool stop = false;
    if (len > TORCH_PICKLE_BYTES_MAX)
        FAIL(ERR_FORMAT, "%s: data.pkl has %zu bytes, want at most %d", label, len,
             TORCH_PICKLE_BYTES_MAX);
    while (!stop) TRY(step(&m, &stop));
    TRY(pop(&m, &out->root));
    if (m.stack_cnt || m.p != m.end)
        BAD(&m, "the pickle stops with %zu values on the stack and %td bytes unread", m.stack_cnt,
            m.end - m.p);
    out->storages = m.storages;
    out->storage_cnt = (int)m.storage_cnt;
    return ERR_OK;
}

const TorchPickleValue *torch_pickle_at(const TorchPickleValue *v, const char *key,
                                        size_t key_len) {
    const Items *t = &v->items;
    int64_t n;
    bool number = decimal(key, key_len, &n);
    if (v->kind == TORCH_PICKLE_SEQ) return number && (size_t)n < t->cnt ? t->item[n] : NULL;
    if (v->kind != TORCH_PICKLE_DICT) return NULL;
    for (size_t i = t->cnt; i; i -= 2) { // a key set twice: the last one holds
        const Value *k = t->item[i - 2];
        if (k->kind == TORCH_PICKLE_STR ? k->str.len == key_len && !memcmp(k->str.s, key, key_len)
                                        : k->kind == TORCH_PICKLE_INT && number && k->i == n)
            return t->item[i - 1];
    }
    return NULL;
}
