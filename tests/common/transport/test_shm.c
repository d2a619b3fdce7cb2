// Shared memory: reserved for good, invisible by name, inherited by children, and refused with numbers.
#include "common/transport/shm.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

// Names of ours in /dev/shm.
static int left_behind(void) {
    int cnt = 0;
    char ours[32];
    DIR *d = opendir("/dev/shm");
    snprintf(ours, sizeof ours, "vader-%d-", (int)getpid());
    for (struct dirent *e; d && (e = readdir(d));) cnt += !strncmp(e->d_name, ours, strlen(ours));
    if (d) closedir(d);
    return cnt;
}

static int open_descriptors(void) {
    int cnt = 0;
    for (int fd = 0; fd < 256; fd++) cnt += fcntl(fd, F_GETFD) >= 0;
    return cnt;
}

TEST(memory_is_zero_reserved_and_nameless) {
    Shm s;
    struct stat st;
    CHECK_OK(shm_create(&s, "test", 100000));
    CHECK_EQ(s.bytes, 100000);
    for (int i = 0; i < 100000; i++) CHECK_EQ(((unsigned char *)s.base)[i], 0);
    CHECK(!fstat(s.fd, &st));
    CHECK(st.st_blocks * 512 >= 100000); // every page is there now
    CHECK_EQ(left_behind(), 0);
    CHECK(!(fcntl(s.fd, F_GETFD) & FD_CLOEXEC)); // stages inherit it
    shm_leave(&s);
    CHECK_EQ(s.fd, -1);
    shm_leave(&s); // again is fine
}

TEST(a_child_joins_by_descriptor) {
    Shm s, t;
    CHECK_OK(shm_create(&s, "test", 8192));
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        bool ok = !shm_join(&t, "test", s.fd, 8192, true) && t.base != s.base;
        if (ok) strcpy((char *)t.base + 5000, "hello");
        _exit(!ok);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK_STR((char *)s.base + 5000, "hello");
    shm_leave(&s);
}

TEST(joining_what_is_not_there) {
    Shm s, t;
    CHECK_ERR(shm_join(&t, "board", 250, 1, true), ERR_PEER, "descriptor 250");
    CHECK_EQ(t.fd, -1);
    CHECK_OK(shm_create(&s, "test", 4096));
    CHECK_ERR(shm_join(&t, "board", s.fd, 5000, true), ERR_PEER, "has 4096 bytes, want 5000");
    CHECK(fcntl(s.fd, F_GETFD) >= 0); // the descriptor is still the caller's
    shm_leave(&s);
}

TEST(more_than_there_is) {
    Shm s;
    struct statvfs fs;
    CHECK(!statvfs("/dev/shm", &fs));
    int before = open_descriptors();
    uint64_t too_much = ((uint64_t)fs.f_blocks + 1000) * fs.f_frsize;
    CHECK_ERR(shm_create(&s, "sections of the decoder", too_much), ERR_MEMORY, "/dev/shm has");
    CHECK_HAS(err_text(), "sections of the decoder");
    CHECK_HAS(err_text(), "--shm-size");
    CHECK_EQ(s.fd, -1);
    CHECK(!s.base);
    CHECK_EQ(open_descriptors(), before);
    CHECK_EQ(left_behind(), 0);
    CHECK_OK(shm_create(&s, "small", 4096)); // what was reserved in vain is free again
    shm_leave(&s);
}

TEST(a_limit_on_file_size) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        Shm s;
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20});
        Err err = shm_create(&s, "test", 2 << 20);
        bool ok = err == ERR_MEMORY && strstr(err_text(), "File too large") && s.fd == -1 &&
                  left_behind() == 0;
        _exit(!ok);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(no_address_space_left) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        Shm s;
        setrlimit(RLIMIT_AS, &(struct rlimit){1 << 26, 1 << 26});
        Err err = shm_create(&s, "test", 1 << 27);
        _exit(!(err == ERR_MEMORY && s.fd == -1));
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
#ifndef __SANITIZE_ADDRESS__
    CHECK_EQ(WEXITSTATUS(status), 0);
#endif
}

TEST(kill_leaves_nothing) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        Shm s;
        if (shm_create(&s, "test", 1 << 20)) _exit(1);
        raise(SIGKILL);
    }
    int status;
    char name[64];
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    snprintf(name, sizeof name, "/dev/shm/vader-%d-0", (int)pid);
    CHECK(access(name, F_OK));
}
