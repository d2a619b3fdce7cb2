// Blocks of bulk memory: owner and readers in processes of their own, two kinds of memory, and what is refused.
//
// The second kind stands for another device: nothing maps it, every piece is a copy (pread of a memfd).
#include "common/transport/device_mem.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

enum { BYTES = 8192 };

// ---- A device whose memory only copies reach ----

static int copies;       // fetches since the block was opened
static bool copies_fail; // as a lost device would

static Err far_create(DeviceMem *m, const char *what, uint64_t bytes) {
    int fd = memfd_create(what, 0);
    if (fd < 0 || ftruncate(fd, (off_t)bytes)) FAIL(ERR_DEVICE, "%s: no memfd", what);
    m->device_word = fd;
    m->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return ERR_OK;
}

static void far_export(const DeviceMem *m, unsigned char opaque[DEVICE_MEM_OPAQUE]) {
    memcpy(opaque, &m->device_word, sizeof m->device_word);
}

static Err far_open(DeviceMem *m, const char *what, const unsigned char opaque[DEVICE_MEM_OPAQUE],
                    uint64_t bytes) {
    copies = 0;
    memcpy(&m->device_word, opaque, sizeof m->device_word);
    return ERR_OK;
}

static Err far_fetch(DeviceMem *m, uint64_t at, uint64_t bytes, void *to) {
    copies++;
    if (copies_fail || pread((int)m->device_word, to, bytes, (off_t)at) != (ssize_t)bytes)
        FAIL(ERR_DEVICE, "the copy failed");
    return ERR_OK;
}

static void far_close(DeviceMem *m) {
    if (m->base) munmap(m->base, m->bytes + DEVICE_MEM_TAIL);
    if (m->writes) close((int)m->device_word);
}

static const DeviceMemKind far_kind = {77,       "far",     far_create, far_export,
                                       far_open, far_fetch, far_close};

// A mapping that shows other bytes than the owner's, as a broken peer path would.
static unsigned char elsewhere[BYTES + DEVICE_MEM_TAIL];

static Err broken_open(DeviceMem *m, const char *what,
                       const unsigned char opaque[DEVICE_MEM_OPAQUE], uint64_t bytes) {
    TRY(far_open(m, what, opaque, bytes));
    m->base = elsewhere;
    return ERR_OK;
}

static void broken_close(DeviceMem *m) {}

static const DeviceMemKind broken_kind = {77,          "broken",  far_create,  far_export,
                                          broken_open, far_fetch, broken_close};

// ---- A block and a reader in another process ----

static void fill(const DeviceMem *m) {
    unsigned char *to = device_mem_write(m, 0, BYTES);
    for (int i = 0; i < BYTES; i++) to[i] = (unsigned char)(i * 7 >> 3);
}

static bool reads_right(DeviceMem *m) {
    const void *a, *b;
    if (device_mem_acquire(m, 100, 1000, &a) || device_mem_acquire(m, 5000, 300, &b)) return false;
    bool ok = true;
    for (int i = 0; i < 1000; i++)
        ok &= ((const unsigned char *)a)[i] == ((100 + i) * 7 >> 3 & 255);
    for (int i = 0; i < 300; i++)
        ok &= ((const unsigned char *)b)[i] == ((5000 + i) * 7 >> 3 & 255);
    device_mem_release(m);
    return ok;
}

static int wait_for(pid_t pid) {
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

// Status of a process that opens the block by its handle and reads it three times.
static int reader(const DeviceMemKind *kind, DeviceHandle h) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid) return wait_for(pid);
    DeviceMem m;
    bool ok = !device_mem_open(&m, kind, "sections", &h, 3, false, 2048);
    for (int i = 0; ok && i < 3; i++) ok = reads_right(&m);
    device_mem_close(&m);
    _exit(!ok);
}

TEST(a_reader_of_another_process_maps_the_host) {
    DeviceMem m;
    CHECK_OK(device_mem_create(&m, &device_mem_host, "sections", BYTES));
    fill(&m);
    CHECK_EQ(reader(&device_mem_host, device_mem_export(&m, 3)), 0);
    device_mem_close(&m);
    device_mem_close(&m); // again is fine
}

TEST(a_reader_of_another_device_gets_copies) {
    DeviceMem m;
    CHECK_OK(device_mem_create(&m, &far_kind, "sections", BYTES));
    fill(&m);
    CHECK_EQ(reader(&far_kind, device_mem_export(&m, 3)), 0);
    device_mem_close(&m);
}

TEST(a_mapping_that_fails_the_pattern_is_given_up_for_copies) {
    DeviceMem m;
    CHECK_OK(device_mem_create(&m, &far_kind, "sections", BYTES));
    fill(&m);
    CHECK_EQ(reader(&broken_kind, device_mem_export(&m, 3)), 0);
    device_mem_close(&m);
}

TEST(copies_are_made_per_piece_and_their_failure_is_told) {
    DeviceMem m, r;
    const void *p;
    CHECK_OK(device_mem_create(&m, &far_kind, "sections", BYTES));
    fill(&m);
    DeviceHandle h = device_mem_export(&m, 3);
    CHECK_OK(device_mem_open(&r, &far_kind, "sections", &h, 3, false, 2048));
    CHECK_EQ(copies, 1); // the pattern
    CHECK(reads_right(&r));
    CHECK_EQ(copies, 3);
    copies_fail = true;
    CHECK_ERR(device_mem_acquire(&r, 0, 64, &p), ERR_DEVICE, "the copy failed");
    copies_fail = false;
    device_mem_close(&r);
    device_mem_close(&m);
}

// ---- What is refused ----

// Status of a process that does something impossible with a block that it opened to read.
static int status_of(const DeviceHandle *h, void (*wrong)(DeviceMem *)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid) return wait_for(pid);
    fclose(stderr);
    DeviceMem m;
    if (device_mem_open(&m, &device_mem_host, "sections", h, 3, false, 0)) _exit(0);
    wrong(&m);
    _exit(0);
}

static void store(DeviceMem *m) {
    const void *p;
    if (device_mem_acquire(m, 0, 4, &p)) return;
    *(volatile int *)(uintptr_t)p = 1;
}
static void ask_to_write(DeviceMem *m) { device_mem_write(m, 0, 4); }
static void read_beyond(DeviceMem *m) {
    const void *p;
    if (device_mem_acquire(m, BYTES - 4, 8, &p)) return;
}
static void read_wrapped(DeviceMem *m) {
    const void *p;
    if (device_mem_acquire(m, 16, UINT64_MAX - 8, &p)) return;
}
static void read_in_bounds(DeviceMem *m) {
    const void *p;
    if (device_mem_acquire(m, BYTES - 4, 4, &p)) abort();
}

TEST(readers_neither_write_nor_leave_the_block) {
    DeviceMem m;
    CHECK_OK(device_mem_create(&m, &device_mem_host, "sections", BYTES));
    DeviceHandle h = device_mem_export(&m, 3);
    CHECK_EQ(status_of(&h, read_in_bounds), 0);
    CHECK(status_of(&h, store) != 0); // SIGSEGV; under asan its report
    CHECK(status_of(&h, ask_to_write) != 0);
    CHECK(status_of(&h, read_beyond) != 0);
    CHECK(status_of(&h, read_wrapped) != 0);
    CHECK_EQ(*(int *)device_mem_write(&m, 0, 4), 0); // nobody's store arrived
    device_mem_close(&m);
}

// As another process would inherit it: closing its block leaves ours.
static DeviceHandle inherited(const DeviceMem *m) {
    DeviceHandle h = device_mem_export(m, 3);
    int fd;
    memcpy(&fd, h.opaque, sizeof fd);
    fd = dup(fd);
    memcpy(h.opaque, &fd, sizeof fd);
    return h;
}

TEST(handles_of_other_times_and_kinds_are_refused) {
    DeviceMem m, r;
    CHECK_OK(device_mem_create(&m, &device_mem_host, "sections", BYTES));
    DeviceHandle h = device_mem_export(&m, 3);
    CHECK_ERR(device_mem_open(&r, &device_mem_host, "sections", &h, 4, false, 0), ERR_PEER,
              "exported in epoch 3, now is 4");
    device_mem_close(&r);
    CHECK_ERR(device_mem_open(&r, &far_kind, "sections", &h, 3, false, 0), ERR_PEER,
              "memory of kind 1, want far (77)");
    h = inherited(&m);
    h.pattern ^= 1;
    CHECK_ERR(device_mem_open(&r, &device_mem_host, "sections", &h, 3, false, 0), ERR_PEER,
              "where its owner wrote");
    h = inherited(&m);
    h.bytes *= 2;
    CHECK_ERR(device_mem_open(&r, &device_mem_host, "sections", &h, 3, false, 0), ERR_PEER,
              "want 16448");
    device_mem_close(&m);
}

TEST(a_writer_opens_its_block_by_handle) {
    DeviceMem m, w;
    CHECK_OK(device_mem_create(&m, &device_mem_host, "sections", BYTES));
    DeviceHandle h = inherited(&m);
    CHECK_OK(device_mem_open(&w, &device_mem_host, "sections", &h, 3, true, 0));
    *(int *)device_mem_write(&w, 4096, 4) = 42;
    CHECK_EQ(*(int *)device_mem_write(&m, 4096, 4), 42);
    device_mem_close(&w);
    device_mem_close(&m);
}
