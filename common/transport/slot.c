// slot: the transitions of a slot's word.
#include "common/transport/slot.h"

#include "common/base/err.h"
#include "common/proc/itinerary.h"

bool slot_advance(Slot *s, uint64_t from, uint32_t next_step) {
    uint64_t to = slot_word(slot_epoch(from), next_step);
    return atomic_compare_exchange_strong_explicit(&s->word, &from, to, memory_order_release,
                                                   memory_order_relaxed);
}

void slot_publish(Slot *s, uint32_t epoch, const SlotHeader *header) {
    uint64_t word = slot_load(s);
    die_unless(slot_step(word) == ITINERARY_DONE, "slot of sample %llu is at step %u, not done",
               (unsigned long long)s->header.sample, slot_step(word));
    s->header = *header;
    atomic_store_explicit(&s->word, slot_word(epoch, 0), memory_order_release);
}

void slot_reset(Slot *s, uint32_t epoch, uint32_t step) {
    atomic_store_explicit(&s->word, slot_word(epoch, step), memory_order_release);
}
