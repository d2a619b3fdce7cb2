// pool: a ticket word {job, next chunk} that threads advance by compare-and-swap, and two futexes.
//
// A thread reads the ticket, then fn/ctx/chunk_cnt, then swaps the ticket for the next chunk.
// Before the caller changes those three it closes the ticket (a chunk past any count), and they are
// stored with release and loaded with acquire: whoever saw a field of the next job finds its swap
// refused.
#include "common/tensor/cpu/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xmmintrin.h>

#include "common/base/err.h"

enum {
    POOL_SPINS = 2000, // pauses before sleeping; 10x more loses under foreign load
    POOL_THREADS_MAX = 1024,
    MXCSR_FTZ_DAZ = 0x8040,
};

typedef struct Worker {
    Pool *pool;
    pthread_t thread;
    int index;
} Worker;

struct Pool {
    // written by the caller of pool_run before it publishes the ticket
    _Atomic(PoolFn *) fn;
    _Atomic(void *) ctx;
    _Atomic int64_t chunk_cnt;
    // written by all
    _Alignas(128) _Atomic uint64_t ticket; // job number << 32 | next chunk
    _Alignas(128) _Atomic uint32_t done;   // finished chunks; futex of the caller
    _Alignas(
        128) _Atomic uint32_t job; // written by the caller after the ticket; futex of the workers
    _Atomic uint32_t asleep;       // workers in or near futex wait
    _Atomic bool caller_asleep;
    _Atomic bool stop;
    int threads;
    Worker *worker; // [threads]; 0 is the caller
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

// Runs chunks of the job that `job` numbers until none is left to take.
static void work(Pool *p, uint32_t job, int worker) {
    for (;;) {
        uint64_t ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
        if ((uint32_t)(ticket >> 32) != job) return;
        PoolFn *fn = atomic_load_explicit(&p->fn, memory_order_acquire);
        void *ctx = atomic_load_explicit(&p->ctx, memory_order_acquire);
        int64_t chunk_cnt = atomic_load_explicit(&p->chunk_cnt, memory_order_acquire);
        int64_t chunk = (uint32_t)ticket;
        if (chunk >= chunk_cnt) return;
        if (!atomic_compare_exchange_weak_explicit(&p->ticket, &ticket, ticket + 1,
                                                   memory_order_acq_rel, memory_order_relaxed))
            continue;
        fn(ctx, chunk, worker);
        if ((int64_t)atomic_fetch_add(&p->done, 1) + 1 == chunk_cnt &&
            atomic_load(&p->caller_asleep))
            futex_wake(&p->done);
    }
}

static void *worker_main(void *arg) {
    Worker *w = arg;
    Pool *p = w->pool;
    _mm_setcsr(_mm_getcsr() | MXCSR_FTZ_DAZ);
    uint32_t seen = 0;
    for (;;) {
        uint32_t job = atomic_load(&p->job);
        for (int i = 0; job == seen && i < POOL_SPINS; i++) {
            _mm_pause();
            job = atomic_load_explicit(&p->job, memory_order_acquire);
        }
        if (job == seen) {
            atomic_fetch_add(&p->asleep, 1);
            futex_wait(&p->job, seen);
            atomic_fetch_sub(&p->asleep, 1);
            continue;
        }
        if (atomic_load(&p->stop)) return NULL;
        work(p, job, w->index);
        seen = job;
    }
}

static int cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

Pool *pool_new(int threads) {
    if (threads <= 0) threads = cores();
    if (threads > POOL_THREADS_MAX) threads = POOL_THREADS_MAX;
    Pool *p = aligned_alloc(128, sizeof *p);
    die_unless(p, "pool: out of memory");
    *p = (Pool){.threads = 1};
    p->worker = calloc((size_t)threads, sizeof *p->worker);
    die_unless(p->worker, "pool: out of memory");
    for (; p->threads < threads; p->threads++) {
        Worker *w = &p->worker[p->threads];
        *w = (Worker){.pool = p, .index = p->threads};
        if (pthread_create(&w->thread, NULL, worker_main, w)) {
            pool_free(p);
            return NULL;
        }
    }
    return p;
}

void pool_free(Pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->job, 1);
    futex_wake(&p->job);
    for (int i = 1; i < p->threads; i++) pthread_join(p->worker[i].thread, NULL);
    free(p->worker);
    free(p);
}

int pool_threads(const Pool *p) { return p->threads; }

void pool_run(Pool *p, int64_t chunk_cnt, PoolFn *fn, void *ctx) {
    if (chunk_cnt <= 0) return;
    die_unless(chunk_cnt <= INT32_MAX, "pool: %lld chunks", (long long)chunk_cnt);
    unsigned mxcsr = _mm_getcsr();
    _mm_setcsr(mxcsr | MXCSR_FTZ_DAZ);

    if (p->threads == 1 || chunk_cnt == 1) {
        for (int64_t i = 0; i < chunk_cnt; i++) fn(ctx, i, 0);
    } else {
        uint32_t job = atomic_load_explicit(&p->job, memory_order_relaxed) + 1;
        atomic_store(&p->ticket, (uint64_t)job << 32 | UINT32_MAX);
        atomic_store_explicit(&p->fn, fn, memory_order_release);
        atomic_store_explicit(&p->ctx, ctx, memory_order_release);
        atomic_store_explicit(&p->chunk_cnt, chunk_cnt, memory_order_release);
        atomic_store_explicit(&p->done, 0, memory_order_relaxed);
        atomic_store_explicit(&p->ticket, (uint64_t)job << 32, memory_order_release);
        atomic_store(&p->job, job);
        if (atomic_load(&p->asleep)) futex_wake(&p->job);
        work(p, job, 0);
        uint32_t done = atomic_load(&p->done);
        for (int i = 0; done != chunk_cnt && i < POOL_SPINS; i++) {
            _mm_pause();
            done = atomic_load_explicit(&p->done, memory_order_acquire);
        }
        atomic_store(&p->caller_asleep, true);
        while ((done = atomic_load(&p->done)) != chunk_cnt) futex_wait(&p->done, done);
        atomic_store(&p->caller_asleep, false);
    }
    _mm_setcsr(mxcsr);
}
