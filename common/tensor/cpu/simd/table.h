// table: the functions that exist once per instruction set, as a struct of pointers.
//
// simd.def has one row per function; the struct here and the three tables (table.c, compiled three
// times) are generated from it. All pointers are borrowed for the call; nothing here starts
// threads.
#ifndef COMMON_TENSOR_CPU_SIMD_TABLE_H
#define COMMON_TENSOR_CPU_SIMD_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"
#include "common/tensor/cpu/simd/attention.h"
#include "common/tensor/cpu/simd/norm.h"

enum { GEMM_ADD = 1, GEMM_COLD = 2 }; // of gemm

typedef struct SimdTable {
    const char *isa; // "avx512", "avx2", "base"
    int vlen;        // floats per vector: 16, 8, 4
#define SIMD_FN(ret, name, ...) ret (*name)(__VA_ARGS__);
#include "common/tensor/cpu/simd/simd.def"
#undef SIMD_FN
} SimdTable;

extern const SimdTable simd_table_avx512, simd_table_avx2, simd_table_base;

#endif
