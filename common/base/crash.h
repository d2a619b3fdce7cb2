// crash: a process that dies of a bug says where.
//
//     crash_install("learner.0");   // first thing in main
//
// On SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT it writes the name, the signal, the faulting address
// and a backtrace to stderr, then dies of the same signal, so that the parent sees the true cause of death
// and a core is dumped where cores are on. Works on a full stack (an alternate one is set for the
// calling thread; threads that want that too call crash_thread). `addr2line -e PROGRAM` resolves static
// functions.
#ifndef COMMON_BASE_CRASH_H
#define COMMON_BASE_CRASH_H

// The name is copied.
void crash_install(const char *name);

// An alternate signal stack for the calling thread, released by the end of the process.
void crash_thread(void);

#endif
