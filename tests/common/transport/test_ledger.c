// The ledger: what is written comes back; whatever is torn, damaged or full, an older whole state does.
#include "common/transport/ledger.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

enum { THETA = 40 };

static char dir[512];
static BoardSpec spec = {.theta_cnt = THETA, .rollouts = 2, .lag = 1, .rank = 1, .alpha = 1};
static Board *board;
static void *memory;

static void begin(void) {
    snprintf(dir, sizeof dir, "%s/ledger.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    CHECK(mkdtemp(dir));
    free(memory);
    board_leave(board);
    board = NULL;
    memory = aligned_alloc(4096, (size_t)board_bytes(&spec));
    memset(memory, 0, (size_t)board_bytes(&spec));
    CHECK_OK(board_create(&board, memory, &spec, NULL));
}

static const char *path(int i) {
    static char text[2][600];
    snprintf(text[i], sizeof text[i], "%s/state-%d", dir, i);
    return text[i];
}

// Numbers that name their version.
static void fill(uint64_t version) {
    for (int i = 0; i < THETA; i++) {
        board_theta(board, version)[i] = (float)(version * 100 + (uint64_t)i);
        board_m(board, version)[i] = (float)(version * 100 + (uint64_t)i) + 0.25f;
        board_v(board, version)[i] = (float)(version * 100 + (uint64_t)i) + 0.5f;
    }
}

static LedgerHead head_of(uint64_t version) {
    LedgerHead h = {.version = version,
                    .next_sample = version * 2,
                    .metrics_bytes = version * 10,
                    .config_hash = 99};
    strcpy(h.numerics, "cpu avx2");
    return h;
}

static Err write_version(uint64_t version) {
    LedgerHead h = head_of(version);
    fill(version);
    return ledger_write(dir, &h, board);
}

// Reads into a board of other content; the version that came back, or -1 - found.
static int64_t read_version(void) {
    LedgerHead h = {0};
    int found = 0;
    for (uint64_t v = 0; v < 3; v++) memset(board_theta(board, v), 0x7f, THETA * sizeof(float));
    if (ledger_read(dir, &h, board, &found)) return -2;
    if (!found) return -1;
    uint64_t oldest = h.version > spec.lag ? h.version - spec.lag : 0;
    for (uint64_t v = oldest; v <= h.version; v++)
        for (int i = 0; i < THETA; i++)
            if (board_theta(board, v)[i] != (float)(v * 100 + (uint64_t)i)) return -10;
    for (int i = 0; i < THETA; i++)
        if (board_m(board, h.version)[i] != board_theta(board, h.version)[i] + 0.25f ||
            board_v(board, h.version)[i] != board_theta(board, h.version)[i] + 0.5f)
            return -11;
    if (board_version(board) != h.version || board_durable(board) != h.version) return -12;
    if (h.next_sample != h.version * 2 || h.metrics_bytes != h.version * 10 ||
        strcmp(h.numerics, "cpu avx2") || h.config_hash != 99)
        return -13;
    return (int64_t)h.version;
}

static long size_of(const char *name) {
    struct stat st;
    return stat(name, &st) ? -1 : (long)st.st_size;
}

static void flip(const char *name, long at) {
    int fd = open(name, O_RDWR);
    char c = 0;
    CHECK(fd >= 0 && pread(fd, &c, 1, at) == 1);
    c ^= 0x10;
    CHECK(pwrite(fd, &c, 1, at) == 1);
    close(fd);
}

TEST(nothing_there) {
    begin();
    CHECK_EQ(read_version(), -1);
}

TEST(versions_alternate_and_the_newest_is_read) {
    begin();
    fill(0);
    for (uint64_t v = 1; v < 7; v++) {
        CHECK_OK(write_version(v));
        CHECK_EQ(read_version(), v);
        fill(v), fill(v - 1); // what the next write takes
    }
    CHECK(size_of(path(0)) > 0 && size_of(path(1)) == size_of(path(0)));
    LedgerHead h;
    int found;
    CHECK_OK(ledger_read(dir, &h, NULL, &found)); // the head alone
    CHECK_EQ(h.version, 6);
}

TEST(version_zero_of_a_lagging_run) {
    begin();
    CHECK_OK(write_version(0)); // one theta: there is no version -1
    CHECK_EQ(read_version(), 0);
}

// Every byte class: magic, format, sizes, counts, head, theta, moments, hash: flipped, and cut there.
TEST(damage_at_every_place) {
    begin();
    fill(0);
    CHECK_OK(write_version(1));
    CHECK_OK(write_version(2));
    long size = size_of(path(0));
    for (long at = 0; at < size; at += at < 700 || at > size - 40 ? 1 : 13) {
        flip(path(0), at);
        CHECK_MSG(read_version() == 1, "byte %ld flipped: %lld", at, (long long)read_version());
        flip(path(0), at);
        fill(1), fill(2);
    }
    CHECK_EQ(read_version(), 2);
    for (long len = size - 1; len >= 0; len -= len < 700 || len > size - 40 ? 1 : 13) {
        CHECK(!truncate(path(0), len));
        CHECK_MSG(read_version() == 1, "cut to %ld bytes: %lld", len, (long long)read_version());
        fill(1);
    }
}

TEST(bytes_too_many) {
    begin();
    fill(0);
    CHECK_OK(write_version(1));
    CHECK_OK(write_version(2));
    FILE *f = fopen(path(0), "ab");
    CHECK(f && fputc(0, f) == 0 && !fclose(f));
    CHECK_EQ(read_version(), 1);
}

// What cannot be read may be the newest: to go on from the older one would be wrong without a word.
TEST(one_that_cannot_be_read) {
    LedgerHead head;
    int found;
    begin();
    CHECK_OK(write_version(4));
    CHECK(!mkdir(path(1), 0700));
    CHECK_ERR(ledger_read(dir, &head, NULL, &found), ERR_IO, "state-1");
}

TEST(both_bad) {
    begin();
    fill(0);
    CHECK_OK(write_version(1));
    CHECK_OK(write_version(2));
    flip(path(0), 900);
    flip(path(1), 30);
    LedgerHead h;
    int found = 7;
    CHECK_ERR(ledger_read(dir, &h, board, &found), ERR_FORMAT, "no whole state is left");
    CHECK_EQ(found, 0);
    CHECK(!unlink(path(0)));
    CHECK_ERR(ledger_read(dir, &h, board, &found), ERR_FORMAT, "no whole state is left");
}

TEST(a_leftover_of_a_torn_write_is_ignored) {
    begin();
    fill(0);
    CHECK_OK(write_version(1));
    char tmp[700];
    snprintf(tmp, sizeof tmp, "%s.tmp", path(0));
    FILE *f = fopen(tmp, "wb");
    CHECK(f && fputs("VADstate torn", f) >= 0 && !fclose(f));
    CHECK_EQ(read_version(), 1);
    fill(1);
    CHECK_OK(write_version(2)); // and written over
    CHECK_EQ(read_version(), 2);
}

TEST(of_another_model) {
    begin();
    fill(0);
    CHECK_OK(write_version(1));
    LedgerHead h;
    int found;
    BoardSpec other = spec;
    other.theta_cnt = THETA + 1;
    void *m = calloc(1, (size_t)board_bytes(&other));
    Board *b;
    CHECK_OK(board_create(&b, m, &other, NULL));
    CHECK_ERR(ledger_read(dir, &h, b, &found), ERR_FORMAT, "40 parameters, the model wants 41");
    board_leave(b);
    free(m);
    other = spec;
    other.lag = 3;
    m = calloc(1, (size_t)board_bytes(&other));
    CHECK_OK(board_create(&b, m, &other, NULL));
    CHECK_ERR(ledger_read(dir, &h, b, &found), ERR_FORMAT, "lag 1, the config has 3");
    board_leave(b);
    free(m);
}

// A disk that fills up at every possible byte: the write fails with its name, the older state stays.
TEST(a_full_disk) {
    begin();
    fill(0);
    CHECK_OK(write_version(1));
    CHECK_OK(write_version(2));
    long size = size_of(path(0));
    fflush(stdout);
    for (long limit = 0; limit < size; limit += limit < 64 || limit > size - 64 ? 1 : 97) {
        pid_t pid = fork();
        if (!pid) {
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)limit, (rlim_t)limit});
            Err err = write_version(3);
            _exit(err == ERR_IO && strstr(err_text(), "state-1.tmp") ? 0 : 1);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK_MSG(WEXITSTATUS(status) == 0, "limit %ld", limit);
    }
    CHECK_EQ(read_version(), 2);
}

// Killed at any moment of a write.
TEST(killed_while_writing) {
    begin();
    fill(0);
    CHECK_OK(write_version(1));
    CHECK_OK(write_version(2));
    fflush(stdout);
    for (int i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (!pid)
            for (uint64_t v = 3;; v++)
                if (write_version(v)) _exit(1);
        usleep((useconds_t)(i * 211));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        LedgerHead h;
        int found;
        CHECK_OK(ledger_read(dir, &h, NULL, &found));
        CHECK(found && h.version >= 2);
        fill(h.version - 1), fill(h.version);
        CHECK(read_version() >= 2);
    }
}

TEST(no_folder) {
    begin();
    rmdir(dir);
    CHECK_ERR(write_version(1), ERR_IO, dir);
    CHECK_EQ(read_version(), -1);
}
