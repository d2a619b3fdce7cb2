// table: this instruction set's row of functions.
#include "common/tensor/cpu/simd/simd.h"

const SimdTable SIMD(simd_table) = {
    .isa = SIMD_TEXT(SIMD_ISA),
    .vlen = VLEN,
#define SIMD_FN(ret, name, ...) .name = SIMD(name),
#include "common/tensor/cpu/simd/simd.def"
#undef SIMD_FN
};
