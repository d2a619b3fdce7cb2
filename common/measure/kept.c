// kept: the table.
#include "common/measure/kept.h"

#include <math.h>

const Kept kept[KEPT] = {
    {"motion", 0.7, INFINITY, "videos that stand still"},
    {"diversity", 0.7, INFINITY, "the same video whatever the noise"},
    {"sharpness", 0.8, INFINITY, "blur"},
    {"contrast", 0, 1.4, "glare"},
    {"chroma", 0, 1.4, "garish colours"},
};

bool kept_lost(const Kept *k, double share) { return share < k->least || share > k->most; }
