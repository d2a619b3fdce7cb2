// pool: the threads of one device. Work is a number of chunks; whoever is free takes the next one.
//
// Chunks are cut by shape only, never by the number of threads, and no chunk depends on another:
// the same bits come out for 1 or 64 threads. A reduction writes one partial per chunk and the
// caller adds them in chunk order.
//
//     static void rows(void *ctx, int64_t chunk, int worker) { ... }
//     pool_run(pool, chunk_cnt, rows, &job);      // returns when every chunk is done
//
// The caller works too. Idle workers spin for some microseconds and then sleep, and a job never
// waits for a worker that has not taken a chunk of it: a busy foreign process costs its share and
// no more (libgomp's barriers cost 3x to 10x there). While a job runs, every thread of it flushes
// denormals to zero.
//
// One job at a time: pool_run is not reentrant, and two threads must not call it at once.
#ifndef COMMON_TENSOR_CPU_POOL_H
#define COMMON_TENSOR_CPU_POOL_H

#include <stdint.h>

typedef struct Pool Pool;

// worker is in [0, pool_threads()): an index for per-thread scratch; the caller is worker 0.
typedef void PoolFn(void *ctx, int64_t chunk, int worker);

// threads counts the caller; 0 = all cores this process may use. NULL if threads cannot be started.
Pool *pool_new(int threads);
void pool_free(Pool *pool); // NULL is fine
int pool_threads(const Pool *pool);

// Calls fn for each chunk in [0, chunk_cnt), at most 2^31 - 1, in any order and on any thread.
void pool_run(Pool *pool, int64_t chunk_cnt, PoolFn *fn, void *ctx);

#endif
