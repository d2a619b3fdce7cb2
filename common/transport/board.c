// board: layout and access. All offsets follow from BoardSpec, so that every process computes the same.
#include "common/transport/board.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BOARD_VERSION = 1, PAGE = 4096 };
static const uint64_t BOARD_MAGIC = 0x3164726f42444156; // "VADBord1"

// First bytes of the segment.
typedef struct Header {
    uint64_t magic;  // written last by board_create
    uint32_t format; // BOARD_VERSION
    uint32_t ring_cnt;
    uint64_t bytes;
    uint64_t layout_hash;
    BoardSpec spec;
    _Alignas(SLOT_LINE) _Atomic uint64_t version; // learner
    _Alignas(SLOT_LINE) _Atomic uint64_t durable; // launcher
    _Alignas(SLOT_LINE) _Atomic uint64_t ready;   // learner; launcher on resume
} Header;

typedef struct Tag {
    _Alignas(SLOT_LINE) _Atomic uint64_t value; // learner
} Tag;

typedef struct Layout {
    uint64_t modules, tags, row_notes, notes, theta, moments, rows, end;
    uint64_t block_bytes; // of one theta-sized block
    uint32_t ring_cnt;
} Layout;

struct Board {
    unsigned char *base;
    Header *header;
    Layout at;
};

static uint64_t up(uint64_t n) { return (n + PAGE - 1) / PAGE * PAGE; }

static Layout layout_of(const BoardSpec *s) {
    Layout l = {.ring_cnt = (s->lag + 1 > 2 ? s->lag + 1 : 2) + 1,
                .block_bytes = up((uint64_t)s->theta_cnt * sizeof(float))};
    l.modules = up(sizeof(Header));
    l.tags = up(l.modules + (uint64_t)s->module_cnt * sizeof(BoardModule));
    l.row_notes = up(l.tags + (uint64_t)s->rollouts * sizeof(Tag));
    l.notes = up(l.row_notes + 2 * (uint64_t)s->rollouts * sizeof(BoardRowNote));
    l.theta = up(l.notes + (uint64_t)l.ring_cnt * sizeof(BoardNote));
    l.moments = l.theta + l.ring_cnt * l.block_bytes;
    l.rows = l.moments + 4 * l.block_bytes;
    l.end = l.rows + s->rollouts * l.block_bytes;
    return l;
}

// FNV-1a over what the layout depends on: two builds that disagree cannot share a board.
static uint64_t layout_hash(const Layout *l) {
    const uint64_t words[] = {sizeof(Header),
                              sizeof(BoardModule),
                              sizeof(BoardRowNote),
                              sizeof(BoardNote),
                              sizeof(Tag),
                              l->modules,
                              l->row_notes,
                              l->theta,
                              l->moments,
                              l->rows,
                              l->end,
                              l->ring_cnt};
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) h = (h ^ words[i]) * 0x100000001b3;
    return h;
}

static Board *attach(void *memory, Layout at) {
    Board *b = malloc(sizeof *b);
    die_unless(b, "board: out of memory");
    *b = (Board){.base = memory, .header = memory, .at = at};
    return b;
}

uint64_t board_bytes(const BoardSpec *spec) { return layout_of(spec).end; }

Err board_create(Board **out, void *memory, const BoardSpec *spec, const BoardModule *modules) {
    if (spec->theta_cnt < 1 || spec->rollouts < 1)
        FAIL(ERR_USAGE, "board: %lld parameters and %u rollouts, want at least 1 of each",
             (long long)spec->theta_cnt, spec->rollouts);
    Board *b = attach(memory, layout_of(spec));
    *b->header = (Header){.format = BOARD_VERSION,
                          .ring_cnt = b->at.ring_cnt,
                          .bytes = b->at.end,
                          .layout_hash = layout_hash(&b->at),
                          .spec = *spec};
    if (spec->module_cnt)
        memcpy(b->base + b->at.modules, modules, spec->module_cnt * sizeof *modules);
    b->header->magic = BOARD_MAGIC;
    *out = b;
    return ERR_OK;
}

Err board_join(Board **out, void *memory, uint64_t bytes) {
    const Header *h = memory;
    if (bytes < sizeof *h || h->magic != BOARD_MAGIC)
        FAIL(ERR_PEER, "board: no board in this segment");
    if (h->format != BOARD_VERSION)
        FAIL(ERR_PEER, "board: format %u, want %d", h->format, BOARD_VERSION);
    Layout at = layout_of(&h->spec);
    if (h->bytes != at.end || bytes < at.end || h->layout_hash != layout_hash(&at))
        FAIL(ERR_PEER, "board: made by another build (%llu bytes, want %llu)",
             (unsigned long long)h->bytes, (unsigned long long)at.end);
    *out = attach(memory, at);
    return ERR_OK;
}

void board_leave(Board *b) { free(b); }

const BoardSpec *board_spec(const Board *b) { return &b->header->spec; }
const BoardModule *board_module(const Board *b, uint32_t i) {
    return (const BoardModule *)(b->base + b->at.modules) + i;
}

uint64_t board_version(const Board *b) {
    return atomic_load_explicit(&b->header->version, memory_order_acquire);
}
void board_commit(Board *b, uint64_t v) {
    atomic_store_explicit(&b->header->version, v, memory_order_release);
}
uint64_t board_durable(const Board *b) {
    return atomic_load_explicit(&b->header->durable, memory_order_acquire);
}
void board_set_durable(Board *b, uint64_t v) {
    atomic_store_explicit(&b->header->durable, v, memory_order_release);
}

int board_ready(const Board *b) {
    return atomic_load_explicit(&b->header->ready, memory_order_acquire) != 0;
}
void board_set_ready(Board *b) {
    atomic_store_explicit(&b->header->ready, 1, memory_order_release);
}

static float *block(const Board *b, uint64_t start, uint64_t i) {
    return (float *)(void *)(b->base + start + i * b->at.block_bytes);
}
float *board_theta(const Board *b, uint64_t v) { return block(b, b->at.theta, v % b->at.ring_cnt); }
float *board_m(const Board *b, uint64_t v) { return block(b, b->at.moments, 2 * (v % 2)); }
float *board_v(const Board *b, uint64_t v) { return block(b, b->at.moments, 2 * (v % 2) + 1); }
float *board_row(const Board *b, uint64_t sample) {
    return block(b, b->at.rows, sample % b->header->spec.rollouts);
}

BoardRowNote *board_row_note(const Board *b, uint64_t sample) {
    return (BoardRowNote *)(void *)(b->base + b->at.row_notes) +
           sample % (2 * (uint64_t)b->header->spec.rollouts);
}
BoardNote *board_note(const Board *b, uint64_t v) {
    return (BoardNote *)(void *)(b->base + b->at.notes) + v % b->at.ring_cnt;
}

static _Atomic uint64_t *tag(const Board *b, uint64_t sample) {
    return &((Tag *)(void *)(b->base + b->at.tags))[sample % b->header->spec.rollouts].value;
}
uint64_t board_tag(const Board *b, uint64_t sample) {
    return atomic_load_explicit(tag(b, sample), memory_order_acquire);
}
void board_set_tag(Board *b, uint64_t sample) {
    atomic_store_explicit(tag(b, sample), sample + 1, memory_order_release);
}

int board_update_ready(const Board *b, uint64_t update) {
    uint64_t rollouts = b->header->spec.rollouts;
    for (uint64_t i = update * rollouts; i < (update + 1) * rollouts; i++)
        if (board_tag(b, i) != i + 1) return 0;
    return 1;
}
