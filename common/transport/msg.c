// msg: control messages as msgpack: [kind, stage, replica, incarnation, epoch, value, text].
//
// Written by msgpack-c. Read by hand, because the library's reader allocates what an array header claims
// before it has seen the bytes; the layout is fixed, so the reader is a page.
#include <msgpack.h>
#include <string.h>

#include "common/transport/control.h"

enum { FIELDS = 7 };

const char *msg_name(MsgKind kind) {
    static const char *const names[] = {
#define MSG(name, has_text, doc) #name,
#include "common/transport/msg.def"
#undef MSG
    };
    return (unsigned)kind < MSG_CNT ? names[kind] : "?";
}

static bool carries_text(MsgKind kind) {
    static const bool text[] = {
#define MSG(name, has_text, doc) has_text,
#include "common/transport/msg.def"
#undef MSG
    };
    return text[kind];
}

// A msgpack sink of fixed size.
typedef struct Sink {
    uint8_t *at, *end;
} Sink;

static int sink_write(void *data, const char *buf, size_t len) {
    Sink *s = data;
    die_unless(len <= (size_t)(s->end - s->at), "msg: %zu bytes do not fit", len);
    memcpy(s->at, buf, len);
    s->at += len;
    return 0;
}

size_t msg_encode(const Msg *m, uint8_t buf[MSG_BYTES_MAX]) {
    Sink sink = {buf, buf + MSG_BYTES_MAX};
    msgpack_packer pk;
    msgpack_packer_init(&pk, &sink, sink_write);
    const uint64_t number[] = {m->kind, m->stage, m->replica, m->incarnation, m->epoch, m->value};
    msgpack_pack_array(&pk, FIELDS);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) msgpack_pack_uint64(&pk, number[i]);
    size_t len = carries_text(m->kind) ? strnlen(m->text, MSG_TEXT_MAX - 1) : 0;
    msgpack_pack_str(&pk, len);
    if (len) msgpack_pack_str_body(&pk, m->text, len);
    return (size_t)(sink.at - buf);
}

// ---- Reading ----

typedef struct Reader {
    const uint8_t *at, *end;
} Reader;

// n big-endian bytes.
static bool read_be(Reader *r, int n, uint64_t *out) {
    if (r->end - r->at < n) return false;
    *out = 0;
    while (n--) *out = *out << 8 | *r->at++;
    return true;
}

static bool read_uint(Reader *r, uint64_t *out) {
    if (r->at == r->end) return false;
    uint8_t tag = *r->at++;
    if (tag < 0x80) return *out = tag, true;
    return tag >= 0xcc && tag <= 0xcf && read_be(r, 1 << (tag - 0xcc), out);
}

static bool read_text(Reader *r, char *out) {
    uint64_t len;
    if (r->at == r->end) return false;
    uint8_t tag = *r->at++;
    if (tag >= 0xa0 && tag <= 0xbf)
        len = tag & 0x1f;
    else if (tag < 0xd9 || tag > 0xda || !read_be(r, tag == 0xd9 ? 1 : 2, &len))
        return false;
    if (len >= MSG_TEXT_MAX || len > (uint64_t)(r->end - r->at) || memchr(r->at, 0, len))
        return false;
    memcpy(out, r->at, len);
    out[len] = 0;
    r->at += len;
    return true;
}

bool msg_decode(Msg *m, const uint8_t *bytes, size_t len) {
    Reader r = {bytes, bytes + len};
    uint64_t kind, stage, replica, incarnation;
    *m = (Msg){0};
    if (len > MSG_BYTES_MAX || !len || *r.at++ != (0x90 | FIELDS)) return false;
    if (!read_uint(&r, &kind) || !read_uint(&r, &stage) || !read_uint(&r, &replica) ||
        !read_uint(&r, &incarnation) || !read_uint(&r, &m->epoch) || !read_uint(&r, &m->value) ||
        !read_text(&r, m->text))
        return false;
    if (kind >= MSG_CNT || stage >= STAGE_CNT || replica > UINT32_MAX || incarnation > UINT32_MAX)
        return false;
    if (*m->text && !carries_text((MsgKind)kind)) return false;
    m->kind = (MsgKind)kind;
    m->stage = (uint32_t)stage;
    m->replica = (uint32_t)replica;
    m->incarnation = (uint32_t)incarnation;
    return r.at == r.end;
}
