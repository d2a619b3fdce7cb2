// control: ZeroMQ sockets. Nothing here blocks but control_receive, which has a timeout.
#include "common/transport/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum { HWM = 1000, BELLS_MAX = 64, DELAYED_MAX = 32, ID_MAX = 48, ADDRESS_MAX = 108 };

// A connected doorbell of another process.
typedef struct Bell {
    uint32_t stage, replica;
    void *socket;
} Bell;

// Tests: messages held back, to be sent later.
typedef struct Delayed {
    void *socket;
    int64_t due_ns;
    char id[ID_MAX]; // routing id in front; "" = none
    size_t len;
    uint8_t bytes[MSG_BYTES_MAX];
} Delayed;

typedef struct Disturb {
    ControlDisturb how;
    uint64_t state;
    Delayed held[DELAYED_MAX];
    int held_cnt;
} Disturb;

struct Control {
    void *context;
    void *star;  // ROUTER (launcher) or DEALER (stage)
    void *inbox; // PULL; NULL in the launcher
    bool is_launcher;
    char dir[ADDRESS_MAX];
    char inbox_path[ADDRESS_MAX + 8];
    uint32_t stage, replica, incarnation;
    Bell bell[BELLS_MAX];
    int bell_cnt;
    uint64_t refused;    // messages that msg_decode did not take
    uint64_t sent_bytes; // of messages, routing ids apart
    Disturb *disturb;
};

#define ZMQ_TRY(call, what)                                                          \
    do {                                                                             \
        if ((call) < 0) FAIL(ERR_PEER, "%s: %s", (what), zmq_strerror(zmq_errno())); \
    } while (0)

// ---- Sockets ----

static Err socket_new(Control *c, int type, void **out) {
    const int zero = 0, hwm = HWM;
    const int64_t most = MSG_BYTES_MAX;
    void *s = *out = zmq_socket(c->context, type);
    if (!s) FAIL(ERR_PEER, "zmq_socket: %s", zmq_strerror(zmq_errno()));
    ZMQ_TRY(zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero), "linger");
    ZMQ_TRY(zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof hwm), "high-water mark");
    ZMQ_TRY(zmq_setsockopt(s, ZMQ_RCVHWM, &hwm, sizeof hwm), "high-water mark");
    ZMQ_TRY(zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &most, sizeof most), "message size");
    return ERR_OK;
}

// "ipc://<dir>/<name>"; the kernel takes 107 bytes of path.
static Err address(const Control *c, const char *name, char out[ADDRESS_MAX + 8]) {
    int n = snprintf(out, ADDRESS_MAX + 8, "ipc://%s/%s", c->dir, name);
    if (n - 6 >= ADDRESS_MAX)
        FAIL(ERR_USAGE,
             "the socket path %s/%s has %d bytes, the system takes %d: use a shorter run directory",
             c->dir, name, n - 6, ADDRESS_MAX - 1);
    return ERR_OK;
}

static void inbox_name(char out[ID_MAX], uint32_t stage, uint32_t replica) {
    snprintf(out, ID_MAX, "%s.%u", itinerary_stage_name((StageKind)stage), replica);
}

static void routing_id(char out[ID_MAX], const Msg *m) {
    snprintf(out, ID_MAX, "%s.%u.%u", itinerary_stage_name((StageKind)m->stage), m->replica,
             m->incarnation);
}

static Control *control_new(const char *dir) {
    Control *c = calloc(1, sizeof *c);
    die_unless(c, "control: out of memory");
    snprintf(c->dir, sizeof c->dir, "%s", dir);
    c->context = zmq_ctx_new();
    die_unless(c->context, "control: zmq_ctx_new: %s", zmq_strerror(zmq_errno()));
    return c;
}

static Err listen_on(Control *c) {
    char text[ADDRESS_MAX + 8];
    const int one = 1;
    TRY(address(c, "launcher", text));
    TRY(socket_new(c, ZMQ_ROUTER, &c->star)); // no handover: who is connected keeps its routing id
    ZMQ_TRY(zmq_setsockopt(c->star, ZMQ_ROUTER_MANDATORY, &one, sizeof one), "mandatory");
    ZMQ_TRY(zmq_bind(c->star, text), text);
    return ERR_OK;
}

Err control_listen(Control **out, const char *dir) {
    if (strlen(dir) >= ADDRESS_MAX) FAIL(ERR_USAGE, "the socket folder %s is too long", dir);
    Control *c = control_new(dir);
    c->is_launcher = true;
    Err err = listen_on(c);
    if (err) {
        control_close(c);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = c;
    return ERR_OK;
}

static Err connect_stage(Control *c) {
    char text[ADDRESS_MAX + 8], id[ID_MAX], name[ID_MAX];
    routing_id(id, &(Msg){.stage = c->stage, .replica = c->replica, .incarnation = c->incarnation});
    TRY(socket_new(c, ZMQ_DEALER, &c->star));
    ZMQ_TRY(zmq_setsockopt(c->star, ZMQ_ROUTING_ID, id, strlen(id)), "routing id");
    TRY(address(c, "launcher", text));
    ZMQ_TRY(zmq_connect(c->star, text), text);
    inbox_name(name, c->stage, c->replica);
    TRY(address(c, name, text));
    TRY(socket_new(c, ZMQ_PULL, &c->inbox));
    snprintf(c->inbox_path, sizeof c->inbox_path, "%s", text + strlen("ipc://"));
    ZMQ_TRY(zmq_bind(c->inbox, text), text);
    return ERR_OK;
}

Err control_connect(Control **out, const char *dir, StageKind stage, uint32_t replica,
                    uint32_t incarnation) {
    if (strlen(dir) >= ADDRESS_MAX) FAIL(ERR_USAGE, "the socket folder %s is too long", dir);
    Control *c = control_new(dir);
    c->stage = stage;
    c->replica = replica;
    c->incarnation = incarnation;
    Err err = connect_stage(c);
    if (err) {
        control_close(c);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = c;
    return ERR_OK;
}

void control_close(Control *c) {
    if (!c) return;
    for (int i = 0; i < c->bell_cnt; i++) zmq_close(c->bell[i].socket);
    if (c->inbox) zmq_close(c->inbox);
    if (c->star) zmq_close(c->star);
    zmq_ctx_term(c->context);
    if (*c->inbox_path) unlink(c->inbox_path);
    free(c->disturb);
    free(c);
}

// ---- Sending ----

// One attempt. id: routing frame for a ROUTER, "" otherwise.
static Err send_now(void *socket, const char *id, const uint8_t *bytes, size_t len) {
    if (*id && zmq_send(socket, id, strlen(id), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        FAIL(ERR_PEER, "%s is not connected: %s", id, zmq_strerror(zmq_errno()));
    if (zmq_send(socket, bytes, len, ZMQ_DONTWAIT) < 0)
        FAIL(ERR_PEER, "message not sent: %s", zmq_strerror(zmq_errno()));
    return ERR_OK;
}

// A xorshift step: chance of a test, not of a model.
static unsigned disturb_draw(Disturb *d) {
    d->state ^= d->state << 13;
    d->state ^= d->state >> 7;
    d->state ^= d->state << 17;
    return (unsigned)(d->state % 1000);
}

static void disturb_flush(Disturb *d) {
    int64_t now = clock_ns();
    int kept = 0;
    for (int i = 0; i < d->held_cnt; i++) {
        Delayed *h = &d->held[i];
        if (h->due_ns > now)
            d->held[kept++] = *h;
        else
            send_now(h->socket, h->id, h->bytes,
                     h->len); // lost again if the peer has gone: it is a test
    }
    d->held_cnt = kept;
}

static Err disturbed_send(Disturb *d, void *socket, const char *id, const uint8_t *bytes,
                          size_t len) {
    disturb_flush(d);
    unsigned draw = disturb_draw(d);
    if (draw < d->how.drop) return ERR_OK;
    if (draw < d->how.drop + d->how.twice) TRY(send_now(socket, id, bytes, len));
    if (draw >= 1000 - d->how.delay && d->held_cnt < DELAYED_MAX) {
        Delayed *h = &d->held[d->held_cnt++];
        *h = (Delayed){
            .socket = socket, .due_ns = clock_ns() + (int64_t)disturb_draw(d) * 50000, .len = len};
        snprintf(h->id, sizeof h->id, "%s", id);
        memcpy(h->bytes, bytes, len);
        return ERR_OK;
    }
    return send_now(socket, id, bytes, len);
}

static Err send_message(Control *c, void *socket, const char *id, const Msg *m) {
    uint8_t bytes[MSG_BYTES_MAX];
    size_t len = msg_encode(m, bytes);
    bool disturbed = c->disturb && (c->disturb->how.all || m->kind == MSG_READY);
    c->sent_bytes += len;
    return disturbed ? disturbed_send(c->disturb, socket, id, bytes, len)
                     : send_now(socket, id, bytes, len);
}

Err control_send(Control *c, const Msg *m) {
    char id[ID_MAX] = "";
    Msg own = *m;
    if (c->is_launcher)
        routing_id(id, m);
    else
        own.stage = c->stage, own.replica = c->replica, own.incarnation = c->incarnation;
    return send_message(c, c->star, id, &own);
}

static void *bell_socket(Control *c, uint32_t stage, uint32_t replica) {
    for (int i = 0; i < c->bell_cnt; i++)
        if (c->bell[i].stage == stage && c->bell[i].replica == replica) return c->bell[i].socket;
    char name[ID_MAX], text[ADDRESS_MAX + 8];
    void *s = NULL;
    inbox_name(name, stage, replica);
    if (c->bell_cnt == BELLS_MAX || address(c, name, text) || socket_new(c, ZMQ_PUSH, &s) ||
        zmq_connect(s, text) < 0) {
        if (s) zmq_close(s);
        return NULL;
    }
    c->bell[c->bell_cnt++] = (Bell){stage, replica, s};
    return s;
}

void control_ring(Control *c, StageKind stage, uint32_t replica, uint32_t slot, uint64_t epoch) {
    void *s = bell_socket(c, stage, replica);
    Msg m = {.kind = MSG_READY,
             .stage = c->stage,
             .replica = c->replica,
             .incarnation = c->incarnation,
             .epoch = epoch,
             .value = slot};
    if (s) send_message(c, s, "", &m); // a full or absent inbox drops the bell
}

// ---- Receiving ----

static bool parse_id(const char *id, size_t len, Msg *m) {
    char text[ID_MAX], stage[16];
    if (len >= sizeof text) return false;
    memcpy(text, id, len);
    text[len] = 0;
    if (sscanf(text, "%15[a-z].%u.%u", stage, &m->replica, &m->incarnation) != 3) return false;
    for (int i = 0; i < STAGE_CNT; i++)
        if (!strcmp(stage, itinerary_stage_name((StageKind)i))) return m->stage = (uint32_t)i, true;
    return false;
}

// Throws away the rest of a multipart message; true if there was any.
static bool drain_parts(void *socket) {
    int more = 0;
    size_t size = sizeof more;
    bool any = false;
    char skip[1];
    while (!zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) && more &&
           zmq_recv(socket, skip, sizeof skip, ZMQ_DONTWAIT) >= 0)
        any = true;
    return any;
}

// An inbox takes bells and nothing else: whoever may ring may not command.
static bool receive_from(Control *c, void *socket, Msg *m) {
    char id[ID_MAX];
    int id_len = 0;
    if (c->is_launcher) {
        id_len = zmq_recv(socket, id, sizeof id, ZMQ_DONTWAIT);
        if (id_len < 0) return false;
    }
    uint8_t bytes[MSG_BYTES_MAX];
    int len = zmq_recv(socket, bytes, sizeof bytes, ZMQ_DONTWAIT);
    if (len < 0) return false;
    bool extra = drain_parts(socket);
    Msg from = {0};
    bool ok =
        !extra && len <= (int)sizeof bytes && msg_decode(m, bytes, (size_t)len) &&
        (!c->is_launcher || (id_len <= (int)sizeof id && parse_id(id, (size_t)id_len, &from)));
    ok = ok && (socket == c->inbox ? m->kind == MSG_READY : true);
    if (ok && c->is_launcher)
        m->stage = from.stage, m->replica = from.replica, m->incarnation = from.incarnation;
    if (!ok && !c->refused++)
        log_warn("control: a message of %d bytes is not one of ours; dropped", len);
    return ok;
}

Err control_receive(Control *c, int timeout_ms, Msg *m, bool *got) {
    *got = false;
    if (c->disturb) disturb_flush(c->disturb);
    zmq_pollitem_t item[2] = {{.socket = c->star, .events = ZMQ_POLLIN},
                              {.socket = c->inbox, .events = ZMQ_POLLIN}};
    int cnt = c->inbox ? 2 : 1, rc = zmq_poll(item, cnt, timeout_ms);
    if (rc < 0 && zmq_errno() != EINTR) FAIL(ERR_PEER, "zmq_poll: %s", zmq_strerror(zmq_errno()));
    for (int i = 0; i < cnt && rc > 0 && !*got; i++)
        if (item[i].revents & ZMQ_POLLIN) *got = receive_from(c, item[i].socket, m);
    return ERR_OK;
}

uint64_t control_sent_bytes(const Control *c) { return c->sent_bytes; }

int control_fd(Control *c) {
    int fd = -1;
    size_t size = sizeof fd;
    zmq_getsockopt(c->star, ZMQ_FD, &fd, &size);
    return fd;
}

void control_disturb(Control *c, const ControlDisturb *how) {
    if (!c->disturb) c->disturb = calloc(1, sizeof *c->disturb);
    die_unless(c->disturb, "control: out of memory");
    *c->disturb = (Disturb){.how = *how, .state = how->seed * 2654435761u + 88172645463325252u};
}
