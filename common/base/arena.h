// arena: memory that is released all at once.
//
// A lifetime is an arena (process, graph, step), not a set of malloc/free pairs. Blocks grow as
// needed and never move. Not thread safe: one owner.
//
//     Arena a = {0};
//     char *name = arena_printf(&a, "down.%d", i);
//     ...
//     arena_free(&a);
#ifndef COMMON_BASE_ARENA_H
#define COMMON_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

typedef struct ArenaBlock ArenaBlock;
typedef struct Arena {
    ArenaBlock *head;  // newest block
    size_t used_bytes; // sum over all allocations
} Arena;

// Zeroed memory aligned to 64 bytes; never NULL (out of memory ends the process: these are small).
void *arena_alloc(Arena *a, size_t bytes);
#define arena_new(a, Type) ((Type *)arena_alloc((a), sizeof(Type)))
#define arena_array(a, Type, cnt) ((Type *)arena_alloc((a), sizeof(Type) * (size_t)(cnt)))

// Copies of text in the arena.
char *arena_strdup(Arena *a, const char *s);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(Arena *a, const char *fmt, va_list ap);

// Releases everything; the arena is then empty and usable again.
void arena_free(Arena *a);

#endif
