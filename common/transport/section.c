// section: names, writers and offsets.
#include "common/transport/section.h"

enum { SECTION_ALIGN = 256 };

const char *section_name(SectionKind kind) {
    static const char *const names[SECTION_CNT] = {
#define X(name, writer, what) #name,
        SECTION_TABLE(X)
#undef X
    };
    return names[kind];
}

StageKind section_writer(SectionKind kind) {
    static const StageKind writers[SECTION_CNT] = {
#define X(name, writer, what) STAGE_##writer,
        SECTION_TABLE(X)
#undef X
    };
    return writers[kind];
}

static uint64_t stride_of(const SectionTable *t, SectionKind kind) {
    return (t->bytes[kind] + SECTION_ALIGN - 1) / SECTION_ALIGN * SECTION_ALIGN;
}

void section_layout(SectionTable *t) {
    for (int s = 0; s < STAGE_CNT; s++) t->block_bytes[s] = 0;
    for (int k = 0; k < SECTION_CNT; k++) {
        uint64_t *block = &t->block_bytes[section_writer((SectionKind)k)];
        t->offset[k] = *block;
        *block += stride_of(t, (SectionKind)k) * t->slots * t->segments;
    }
}

uint64_t section_at(const SectionTable *t, SectionKind kind, uint32_t slot, uint32_t segment) {
    return t->offset[kind] + stride_of(t, kind) * ((uint64_t)slot * t->segments + segment);
}

uint64_t section_span(const SectionTable *t, SectionKind kind, uint32_t cnt) {
    return cnt ? stride_of(t, kind) * (cnt - 1) + t->bytes[kind] : 0;
}

uint64_t section_slot_bytes(const SectionTable *t, StageKind writer) {
    uint64_t bytes = 0;
    for (int k = 0; k < SECTION_CNT; k++)
        if (section_writer((SectionKind)k) == writer)
            bytes += stride_of(t, (SectionKind)k) * t->segments;
    return bytes;
}
