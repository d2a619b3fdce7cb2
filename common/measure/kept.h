// kept: what a model can give up, or overdo, to please a reward, and how much of it is no cause for alarm.
//
// `vader eval` warns and the report cautions by the same table.
#ifndef COMMON_MEASURE_KEPT_H
#define COMMON_MEASURE_KEPT_H

#include <stdbool.h>

typedef struct Kept {
    const char *metric; // as eval.json calls it
    double least,
        most; // of the base model's mean: the share between which the tuned model's has to stay
    const char *sign; // what one sees otherwise: "blur"
} Kept;

enum { KEPT = 5 };
extern const Kept kept[KEPT];

// Is a share (tuned / base) outside of what is allowed? Not if it is NaN: then one of the two was not measured.
bool kept_lost(const Kept *k, double share);

#endif
