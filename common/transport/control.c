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
#include "common/transport/bell.h"

enum { HWM = 1000, DELAYED_MAX = 32, ID_MAX = 48, ADDRESS_MAX = 108 };

// Tests: messages and bells held back.
typedef struct Delayed {
    void *socket; // NULL: a bell
    int bell;
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
    void *star; // ROUTER (launcher) or DEALER (stage)
    int bell;
    bool rung;
    bool is_launcher;
    char dir[ADDRESS_MAX];
    uint32_t stage, replica, incarnation;
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

static void routing_id(char out[ID_MAX], const Msg *m) {
    snprintf(out, ID_MAX, "%s.%u.%u", itinerary_stage_name((StageKind)m->stage), m->replica,
             m->incarnation);
}

static Control *control_new(const char *dir, int bell) {
    Control *c = calloc(1, sizeof *c);
    die_unless(c, "control: out of memory");
    snprintf(c->dir, sizeof c->dir, "%s", dir);
    c->bell = bell;
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

Err control_listen(Control **out, const char *dir, int bell) {
    if (strlen(dir) >= ADDRESS_MAX) FAIL(ERR_USAGE, "the socket folder %s is too long", dir);
    Control *c = control_new(dir, bell);
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
    char text[ADDRESS_MAX + 8], id[ID_MAX];
    routing_id(id, &(Msg){.stage = c->stage, .replica = c->replica, .incarnation = c->incarnation});
    TRY(socket_new(c, ZMQ_DEALER, &c->star));
    ZMQ_TRY(zmq_setsockopt(c->star, ZMQ_ROUTING_ID, id, strlen(id)), "routing id");
    TRY(address(c, "launcher", text));
    ZMQ_TRY(zmq_connect(c->star, text), text);
    return ERR_OK;
}

Err control_connect(Control **out, const char *dir, StageKind stage, uint32_t replica,
                    uint32_t incarnation, int bell) {
    if (strlen(dir) >= ADDRESS_MAX) FAIL(ERR_USAGE, "the socket folder %s is too long", dir);
    Control *c = control_new(dir, bell);
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
    if (c->star) zmq_close(c->star);
    zmq_ctx_term(c->context);
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
        else if (!h->socket)
            bell_ring(h->bell);
        else
            send_now(h->socket, h->id, h->bytes,
                     h->len); // lost again if the peer has gone: it is a test
    }
    d->held_cnt = kept;
}

// How often something is to be sent now: 0 dropped or, with *held, to be filled in for later; 2 doubled.
static int disturb_times(Disturb *d, Delayed **held) {
    *held = NULL;
    disturb_flush(d);
    unsigned draw = disturb_draw(d);
    if (draw < d->how.drop) return 0;
    if (draw < d->how.drop + d->how.twice) return 2;
    if (draw < 1000 - d->how.delay || d->held_cnt == DELAYED_MAX) return 1;
    *held = &d->held[d->held_cnt++];
    **held = (Delayed){.due_ns = clock_ns() + (int64_t)disturb_draw(d) * 50000};
    return 0;
}

static Err disturbed_send(Disturb *d, void *socket, const char *id, const uint8_t *bytes,
                          size_t len) {
    Delayed *h;
    for (int times = disturb_times(d, &h); times > 0; times--)
        TRY(send_now(socket, id, bytes, len));
    if (!h) return ERR_OK;
    h->socket = socket;
    h->len = len;
    snprintf(h->id, sizeof h->id, "%s", id);
    memcpy(h->bytes, bytes, len);
    return ERR_OK;
}

static Err send_message(Control *c, void *socket, const char *id, const Msg *m) {
    uint8_t bytes[MSG_BYTES_MAX];
    size_t len = msg_encode(m, bytes);
    bool disturbed = c->disturb && c->disturb->how.all;
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

void control_ring(Control *c, int bell) {
    Delayed *h = NULL;
    for (int times = c->disturb ? disturb_times(c->disturb, &h) : 1; times > 0; times--)
        bell_ring(bell);
    if (h) h->bell = bell;
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

static bool receive_message(Control *c, Msg *m) {
    void *socket = c->star;
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
    if (ok && c->is_launcher)
        m->stage = from.stage, m->replica = from.replica, m->incarnation = from.incarnation;
    if (!ok && !c->refused++)
        log_warn("control: a message of %d bytes is not one of ours; dropped", len);
    return ok;
}

Err control_receive(Control *c, int timeout_ms, Msg *m, bool *got) {
    *got = false;
    if (c->disturb) disturb_flush(c->disturb);
    zmq_pollitem_t item[] = {{.socket = c->star, .events = ZMQ_POLLIN},
                             {.fd = c->bell, .events = ZMQ_POLLIN}};
    int rc = zmq_poll(item, c->bell < 0 ? 1 : 2, timeout_ms);
    if (rc < 0 && zmq_errno() != EINTR) FAIL(ERR_PEER, "zmq_poll: %s", zmq_strerror(zmq_errno()));
    if (rc > 0 && item[1].revents) c->rung |= bell_answer(c->bell);
    if (rc > 0 && item[0].revents & ZMQ_POLLIN) *got = receive_message(c, m);
    return ERR_OK;
}

bool control_rung(Control *c) {
    bool rung = c->rung;
    c->rung = false;
    return rung;
}

uint64_t control_sent_bytes(const Control *c) { return c->sent_bytes; }

void control_fds(Control *c, int fd[CONTROL_FDS]) {
    size_t size = sizeof *fd;
    fd[0] = -1;
    zmq_getsockopt(c->star, ZMQ_FD, fd, &size);
    fd[1] = c->bell;
}

void control_disturb(Control *c, const ControlDisturb *how) {
    if (!c->disturb) c->disturb = calloc(1, sizeof *c->disturb);
    die_unless(c->disturb, "control: out of memory");
    *c->disturb = (Disturb){.how = *how, .state = how->seed * 2654435761u + 88172645463325252u};
}
