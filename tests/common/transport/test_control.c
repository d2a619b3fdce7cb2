// The star over real sockets and the bells, with both ends in this process.
#include "common/transport/control.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/transport/bell.h"
#include "tests/test.h"

static char dir[256];
static Control *launcher, *stage;
static int bell; // of the stage

static void begin(void) {
    snprintf(dir, sizeof dir, "%s/c.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    CHECK(mkdtemp(dir));
    if (strlen(dir) > 80) { // the system's limit on socket paths
        CHECK(!chdir(dir));
        strcpy(dir, ".");
    }
    CHECK_OK(bell_create(&bell));
    CHECK_OK(control_listen(&launcher, dir, -1));
    CHECK_OK(control_connect(&stage, dir, STAGE_DECODER, 1, 0, bell));
}

static void end(void) {
    control_close(stage);
    control_close(launcher);
    close(bell);
    stage = launcher = NULL;
}

static bool next(Control *c, Msg *m) {
    bool got = false;
    for (int i = 0; i < 100 && !got; i++)
        if (control_receive(c, 20, m, &got)) return false;
    return got;
}

TEST(hello_and_welcome) {
    Msg m;
    begin();
    if (test_failed()) return;
    CHECK_OK(control_send(stage, &(Msg){.kind = MSG_HELLO, .value = 42, .replica = 9}));
    CHECK(next(launcher, &m));
    CHECK_EQ(m.kind, MSG_HELLO);
    CHECK_EQ(m.value, 42);
    CHECK_EQ(m.stage, STAGE_DECODER);
    CHECK_EQ(m.replica, 1); // from the routing id, whatever the message claims
    CHECK_OK(control_send(
        launcher, &(Msg){.kind = MSG_WELCOME, .stage = STAGE_DECODER, .replica = 1, .epoch = 3}));
    CHECK(next(stage, &m));
    CHECK_EQ(m.kind, MSG_WELCOME);
    CHECK_EQ(m.epoch, 3);
    end();
}

TEST(who_is_not_connected_is_an_error) {
    begin();
    if (test_failed()) return;
    CHECK_ERR(control_send(launcher, &(Msg){.kind = MSG_STOP, .stage = STAGE_LEARNER}), ERR_PEER,
              "learner.0.0 is not connected");
    end();
}

TEST(a_new_incarnation_takes_over) {
    Msg m;
    begin();
    if (test_failed()) return;
    CHECK_OK(control_send(stage, &(Msg){.kind = MSG_HELLO}));
    CHECK(next(launcher, &m));
    Control *again;
    CHECK_OK(
        control_connect(&again, dir, STAGE_DECODER, 1, 1, -1)); // before the old one has closed
    CHECK_OK(control_send(again, &(Msg){.kind = MSG_HELLO, .value = 2}));
    CHECK(next(launcher, &m));
    CHECK_EQ(m.incarnation, 1);
    CHECK_OK(control_send(
        launcher,
        &(Msg){.kind = MSG_WELCOME, .stage = STAGE_DECODER, .replica = 1, .incarnation = 1}));
    CHECK(next(again, &m));
    CHECK_EQ(m.kind, MSG_WELCOME);
    control_close(again);
    end();
}

TEST(a_bell_ends_the_wait) {
    Msg m;
    bool got = true;
    begin();
    if (test_failed()) return;
    CHECK(!control_rung(stage));
    control_ring(launcher, bell);
    control_ring(launcher, bell); // several are one
    int64_t start = clock_ns();
    CHECK_OK(control_receive(stage, 20000, &m, &got));
    CHECK(!got && clock_ns() - start < 10000000000);
    CHECK(control_rung(stage));
    CHECK(!control_rung(stage));
    CHECK_OK(control_receive(stage, 1, &m, &got));
    CHECK(!got && !control_rung(stage));
    end();
}

TEST(a_bell_and_a_message_both_arrive) {
    Msg m;
    begin();
    if (test_failed()) return;
    CHECK_OK(control_send(stage, &(Msg){.kind = MSG_HELLO}));
    CHECK(next(launcher, &m));
    control_ring(launcher, bell);
    CHECK_OK(
        control_send(launcher, &(Msg){.kind = MSG_STOP, .stage = STAGE_DECODER, .replica = 1}));
    CHECK(next(stage, &m));
    CHECK_EQ(m.kind, MSG_STOP);
    CHECK(control_rung(stage));
    end();
}

TEST(a_timeout_is_kept) {
    Msg m;
    bool got = true;
    begin();
    if (test_failed()) return;
    int64_t start = clock_ns();
    CHECK_OK(control_receive(stage, 30, &m, &got));
    CHECK(!got);
    int64_t waited = clock_ns() - start;
    CHECK(waited > 25000000 && waited < 2000000000);
    end();
}

// What is not a message of ours: dropped, and the next one still arrives.
TEST(foreign_bytes) {
    Msg m;
    char address[300];
    begin();
    if (test_failed()) return;
    void *context = zmq_ctx_new(), *dealer = zmq_socket(context, ZMQ_DEALER);
    const int zero = 0;
    uint8_t bytes[MSG_BYTES_MAX];
    size_t len = msg_encode(&(Msg){.kind = MSG_ACK, .value = 77}, bytes);
    zmq_setsockopt(dealer, ZMQ_LINGER, &zero, sizeof zero);
    snprintf(address, sizeof address, "ipc://%s/launcher", dir);
    zmq_setsockopt(dealer, ZMQ_ROUTING_ID, "sampler.3.0", 11); // a name that could be ours
    CHECK(!zmq_connect(dealer, address));
    zmq_send(dealer, "\x97garbage", 8, 0);
    zmq_send(dealer, "", 0, 0);
    zmq_send(dealer, bytes, 1, 0);
    zmq_send(dealer, "two", 3, ZMQ_SNDMORE);
    zmq_send(dealer, "parts", 5, 0);
    zmq_send(dealer, bytes, len, 0);
    CHECK(next(launcher, &m));
    CHECK_EQ(m.value, 77);
    CHECK_EQ(m.stage, STAGE_SAMPLER);
    zmq_close(dealer);
    dealer = zmq_socket(context, ZMQ_DEALER); // no routing id of ours
    zmq_setsockopt(dealer, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(dealer, ZMQ_ROUTING_ID, "stranger", 8);
    CHECK(!zmq_connect(dealer, address));
    zmq_send(dealer, bytes, len, 0);
    CHECK_OK(control_send(stage, &(Msg){.kind = MSG_ACK, .epoch = 8}));
    CHECK(next(launcher, &m));
    CHECK_EQ(m.kind, MSG_ACK);
    CHECK_EQ(m.epoch, 8);
    zmq_close(dealer);
    zmq_ctx_term(context);
    end();
}

// A message larger than any of ours closes the stranger's connection, not ours.
TEST(a_huge_message) {
    Msg m;
    char address[300];
    static char big[1 << 20];
    begin();
    if (test_failed()) return;
    void *context = zmq_ctx_new(), *dealer = zmq_socket(context, ZMQ_DEALER);
    const int zero = 0;
    zmq_setsockopt(dealer, ZMQ_LINGER, &zero, sizeof zero);
    snprintf(address, sizeof address, "ipc://%s/launcher", dir);
    CHECK(!zmq_connect(dealer, address));
    zmq_send(dealer, big, sizeof big, 0);
    CHECK_OK(control_send(stage, &(Msg){.kind = MSG_ACK, .value = 6}));
    CHECK(next(launcher, &m));
    CHECK_EQ(m.value, 6);
    zmq_close(dealer);
    zmq_ctx_term(context);
    end();
}

TEST(lost_and_delayed_bells) {
    Msg m;
    int heard = 0, late = 0;
    begin();
    if (test_failed()) return;
    control_disturb(launcher,
                    &(ControlDisturb){.drop = 300, .twice = 200, .delay = 200, .seed = 11});
    for (int i = 0; i < 200; i++) {
        control_ring(launcher, bell);
        heard += bell_answer(bell);
    }
    for (int i = 0; i < 5; i++) { // what was held back comes now
        bool got;
        CHECK_OK(control_receive(launcher, 20, &m, &got));
        late += bell_answer(bell);
    }
    CHECK_MSG(heard > 80 && heard < 180, "%d of 200 heard at once", heard);
    CHECK(late > 0);
    end();
}

TEST(lost_doubled_and_delayed_messages) {
    Msg m;
    int seen[200] = {0}, none = 0, twice = 0;
    begin();
    if (test_failed()) return;
    control_disturb(
        stage, &(ControlDisturb){.drop = 300, .twice = 200, .delay = 200, .all = true, .seed = 11});
    for (int i = 0; i < 400; i++) {
        bool got;
        if (i < 200) CHECK_OK(control_send(stage, &(Msg){.kind = MSG_ACK, .value = (uint64_t)i}));
        CHECK_OK(control_receive(stage, 1, &m, &got)); // sends what is due
        while (!control_receive(launcher, 1, &m, &got) && got) seen[m.value]++;
    }
    for (int i = 0; i < 200; i++) none += !seen[i], twice += seen[i] > 1;
    CHECK_MSG(none > 20 && none < 120, "%d of 200 lost", none);
    CHECK_MSG(twice > 10 && twice < 90, "%d of 200 doubled", twice);
    end();
}

TEST(a_path_too_long) {
    char deep[200];
    Control *c = NULL;
    memset(deep, 'a', sizeof deep);
    deep[sizeof deep - 1] = 0;
    CHECK_ERR(control_listen(&c, deep, -1), ERR_USAGE, "too long");
    CHECK_ERR(control_connect(&c, deep, STAGE_SAMPLER, 0, 0, -1), ERR_USAGE, "too long");
    deep[104] = 0;
    CHECK_ERR(control_listen(&c, deep, -1), ERR_USAGE, "use a shorter run directory");
}

TEST(the_descriptor_wakes_a_poll) {
    Msg m;
    bool got = true;
    begin();
    if (test_failed()) return;
    while (got) CHECK_OK(control_receive(launcher, 0, &m, &got)); // edge-triggered: empty first
    CHECK_OK(control_send(stage, &(Msg){.kind = MSG_ACK, .epoch = 1}));
    int cnt = 0;
    for (int i = 0; i < 20 && !cnt; i++) {
        int fd[CONTROL_FDS];
        control_fds(launcher, fd);
        CHECK_EQ(fd[1], -1);
        struct pollfd p = {.fd = fd[0], .events = POLLIN};
        CHECK(poll(&p, 1, 5000) == 1);
        CHECK_OK(control_receive(launcher, 0, &m, &got));
        cnt += got;
    }
    CHECK_EQ(cnt, 1);
    end();
}
