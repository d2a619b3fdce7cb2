// A stranger of the same user on the sockets of a run: garbage, mutated and forged messages from the moment the stages
// are at work until the run is over. It ends as it would have, with the same bytes.
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/transport/control.h"
#include "tests/test.h"

enum { STRANGERS_MAX = 32, PATH_BYTES = 600 };

static char dir[300];
static RngStream chance;

static pid_t start(const char *name, const char *option, const char *value) {
    char run[400], log[400];
    snprintf(run, sizeof run, "run=%s/%s", dir, name);
    snprintf(log, sizeof log, "%s/%s.log", dir, name);
    fflush(stdout);
    pid_t pid = fork();
    if (pid) return pid;
    if (!freopen(log, "w", stderr)) _exit(1);
    execl(getenv("VADER"), "vader", "train", "tests/pipeline/tiny.yaml", run, "optim.updates=4",
          option, value, (char *)NULL);
    _exit(127);
}

static bool ended(pid_t pid, int *status) { return waitpid(pid, status, WNOHANG) == pid; }

static bool is_there(const char *name) {
    char path[PATH_BYTES];
    struct stat st;
    snprintf(path, sizeof path, "%s/attacked/%s", dir, name);
    return !stat(path, &st) && st.st_size > 0;
}

// ---- What a stranger says ----

static size_t forge(uint8_t bytes[MSG_BYTES_MAX]) {
    Msg m = {.kind = (MsgKind)rng_u32_below(&chance, MSG_CNT),
             .stage = rng_u32_below(&chance, STAGE_CNT),
             .replica = rng_u32_below(&chance, 2),
             .incarnation = rng_u32_below(&chance, 2),
             .epoch = rng_u32_below(&chance, 4),
             .value = rng_u32_below(&chance, 100),
             .text = "forged"};
    size_t len = msg_encode(&m, bytes);
    for (uint32_t n = rng_u32_below(&chance, 4); n > 1; n--) // half of them stay whole
        bytes[rng_u32_below(&chance, (uint32_t)len)] = (uint8_t)rng_u32_below(&chance, 256);
    return rng_u32_below(&chance, 8) ? len : rng_u32_below(&chance, (uint32_t)len);
}

typedef struct Strangers {
    void *context, *socket[STRANGERS_MAX];
    int cnt;
} Strangers;

static void add(Strangers *s, const char *path, const char *id) {
    char address[PATH_BYTES + 8];
    const int zero = 0;
    void *z = s->socket[s->cnt++] = zmq_socket(s->context, ZMQ_DEALER);
    snprintf(address, sizeof address, "ipc://%.*s", PATH_BYTES - 1, path);
    zmq_setsockopt(z, ZMQ_LINGER, &zero, sizeof zero);
    if (*id) zmq_setsockopt(z, ZMQ_ROUTING_ID, id, strlen(id));
    if (zmq_connect(z, address)) TEST_FAIL("%s: %s", address, zmq_strerror(zmq_errno()));
}

// Names that are taken, free, and impossible.
static void add_all(Strangers *s, const char *path) {
    static const char *const name[] = {"sampler.0.0",  "learner.0.0", "decoder.0.1",
                                       "rewarder.7.7", "stranger",    ""};
    for (int i = 0; i < 6; i++) add(s, path, name[i]);
}

// Bytes that are not ZeroMQ's.
static void connect_raw(const char *path) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char bytes[64];
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)rng_u32_below(&chance, 256);
    if (!connect(fd, (struct sockaddr *)&to, sizeof to))
        send(fd, bytes, rng_u32_below(&chance, sizeof bytes), MSG_NOSIGNAL);
    close(fd);
}

static void send_all(const Strangers *s) {
    for (int i = 0; i < s->cnt; i++) {
        uint8_t bytes[MSG_BYTES_MAX];
        size_t len = forge(bytes);
        int flags = ZMQ_DONTWAIT | (rng_u32_below(&chance, 16) ? 0 : ZMQ_SNDMORE);
        zmq_send(s->socket[i], bytes, len, flags);
    }
}

// Until the run is over; the number of rounds.
static int attack(pid_t pid, int *status) {
    Strangers s = {.context = zmq_ctx_new()};
    char path[STRANGERS_MAX][PATH_BYTES], sock[400];
    int cnt = 0, rounds = 0;
    snprintf(sock, sizeof sock, "%s/attacked/sock", dir);
    DIR *d = opendir(sock);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (*e->d_name == '.') continue;
        snprintf(path[cnt], PATH_BYTES, "%s/%.60s", sock, e->d_name);
        add_all(&s, path[cnt++]);
    }
    if (d) closedir(d);
    if (cnt != 1) TEST_FAIL("%d sockets in %s, want the launcher's", cnt, sock);
    for (; !ended(pid, status); rounds++) {
        send_all(&s);
        if (cnt) connect_raw(path[rounds % cnt]);
        clock_sleep_ns(300000);
    }
    for (int i = 0; i < s.cnt; i++) zmq_close(s.socket[i]);
    zmq_ctx_term(s.context);
    return rounds;
}

static void check_same(const char *name) {
    char command[1000];
    snprintf(command, sizeof command, "cmp '%s/attacked/%s' '%s/quiet/%s'", dir, name, dir, name);
    CHECK_EQ(system(command), 0);
}

TEST(a_run_under_attack) {
    int status = -1, quiet = -1;
    // Socket paths are absolute here, and the system takes 107 bytes of them.
    snprintf(dir, sizeof dir, "/tmp/vader-hostile.XXXXXX");
    CHECK(mkdtemp(dir));
    chance = rng_stream((RngKey){.use = rng_use(RNG_TEST, 0, 0, 0, 0)});
    pid_t pid = start("attacked", "--fault", "delay:1:20000"); // time for many rounds
    for (int i = 0; i < 3000 && !is_there("metrics.jsonl"); i++) clock_sleep_ns(10000000);
    CHECK(is_there("metrics.jsonl"));
    int rounds = attack(pid, &status);
    CHECK_EQ(status, 0);
    CHECK_MSG(rounds > 20, "only %d rounds", rounds);
    pid = start("quiet", "--inline", NULL);
    CHECK(waitpid(pid, &quiet, 0) == pid);
    CHECK_EQ(quiet, 0);
    check_same("metrics.jsonl");
    check_same("state-0");
    check_same("state-1");
    printf("%d rounds\n", rounds);
    char command[400];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    CHECK_EQ(system(command), 0);
}
