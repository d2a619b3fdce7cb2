// control: the messages between processes. Truth is in shared memory; a lost message costs a rescan.
//
// A star of ZeroMQ sockets, ipc:// in the run's 0700 socket folder: the launcher's ROUTER (mandatory) and one DEALER
// per stage carry hello, welcome, epoch, ack, stop, report. Routing id "<stage>.<replica>.<incarnation>". Between
// stages pass bells only (bell.h); one wait serves both.
//
// Any message may be lost, come twice or late: a bell is made up for by the rescan, and whoever waits for an answer on
// the star asks again every CONTROL_AGAIN_MS.
//
// All sockets have LINGER 0, finite high-water marks and MAXMSGSIZE; none is shared between threads.
// A message is a msgpack array of fixed layout (msg.def); the decoder takes that layout and nothing else, and
// allocates nothing. A message it refuses is counted and dropped.
#ifndef COMMON_TRANSPORT_CONTROL_H
#define COMMON_TRANSPORT_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/proc/itinerary.h"

enum { MSG_TEXT_MAX = 1024, MSG_BYTES_MAX = 2048, CONTROL_AGAIN_MS = 200 };

typedef enum MsgKind {
#define MSG(name, has_text, doc) MSG_##name,
#include "common/transport/msg.def"
#undef MSG
    MSG_CNT,
} MsgKind;

// Every message has the same fields; what a kind does not use is 0.
typedef struct Msg {
    MsgKind kind;
    uint32_t stage, replica, incarnation; // sender or addressee
    uint64_t epoch;
    uint64_t value;          // pid, slot, ... (msg.def)
    char text[MSG_TEXT_MAX]; // NUL terminated, valid UTF-8
} Msg;

// Bytes written to buf, at most MSG_BYTES_MAX.
size_t msg_encode(const Msg *m, uint8_t buf[MSG_BYTES_MAX]);
// False if the bytes are anything but one message of msg.def. Never reads past len, never allocates.
bool msg_decode(Msg *m, const uint8_t *bytes, size_t len);
const char *msg_name(MsgKind kind);

typedef struct Control Control; // one end of the star, and the bell that wakes it

// Launcher. dir: the socket folder; its path must leave room for the 107 bytes of an ipc address (ERR_USAGE says so).
// bell: what others ring to wake us; -1: nobody does. The caller closes it, later.
Err control_listen(Control **out, const char *dir, int bell);
// Stage: connects to the star.
Err control_connect(Control **out, const char *dir, StageKind stage, uint32_t replica,
                    uint32_t incarnation, int bell);
void control_close(Control *c); // NULL is fine

// Launcher: m->stage, replica, incarnation say to whom. ERR_PEER if that process is not connected.
// Stage: to the launcher. Never blocks.
Err control_send(Control *c, const Msg *m);
// Waits up to timeout_ms for a message or our bell. *got = false after the timeout, and when only the bell rang.
// Launcher: sender in m->stage, replica, incarnation (from the routing id, not from the message's own claim).
Err control_receive(Control *c, int timeout_ms, Msg *m, bool *got);
// True if our bell has rung since the last call.
bool control_rung(Control *c);
// Rings another process's bell.
void control_ring(Control *c, int bell);
// Bytes of all messages sent so far: what passes between processes besides shared memory.
uint64_t control_sent_bytes(const Control *c);
// Descriptors, one of which polls readable when control_receive may have something (for the launcher's own poll
// loop). The bell's is -1 if there is none.
enum { CONTROL_FDS = 2 };
void control_fds(Control *c, int fd[CONTROL_FDS]);

// Tests: what happens to outgoing messages and bells, each with a chance in per mille.
typedef struct ControlDisturb {
    unsigned drop, twice, delay;
    bool all; // false: only bells
    uint64_t seed;
} ControlDisturb;
void control_disturb(Control *c, const ControlDisturb *how);

#endif
