// dtype: the element types of tensors in files, sections and graphs, and exact conversion between them.
//
// One enum serves the whole program: file readers name what they found, the engine what it stores.
// Arithmetic is on F32 everywhere; the 16-bit types are storage. dtype_convert is the only place
// where a number changes its type, so every reader, backend and writer rounds alike.
//
//     float *w = arena_array(a, float, cnt);
//     dtype_convert(w, DTYPE_F32, entry->data, entry->dtype, cnt);
//
// To F16 and BF16 it rounds to the nearest, ties to even; overflow becomes Inf, subnormals are kept, NaN
// stays NaN (quiet, sign and the upper payload bits kept). F16 and BF16 to F32 are exact. The result is the
// same bits on every machine: no hardware conversion and no flush-to-zero mode takes part, except that
// between F64 and the others a C cast does part of the work and follows the mode of the calling thread.
#ifndef COMMON_BASE_DTYPE_H
#define COMMON_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum DType {
    DTYPE_F32,
    DTYPE_F16,  // IEEE binary16
    DTYPE_BF16, // upper half of an F32
    DTYPE_F64,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_U8,
    DTYPE_BOOL, // one byte: 0 false, else true
    DTYPE_CNT,
} DType;

// Bytes of one element.
size_t dtype_bytes(DType t);

// "f32", "bf16", ...: the spelling in configs and messages.
const char *dtype_name(DType t);

// Finds a type by that spelling, any case ("F32", "bf16"). False when there is none; *out is then untouched.
bool dtype_from_name(const char *name, DType *out);

// F32, F16, BF16, F64.
bool dtype_is_float(DType t);

// Converts cnt elements. Any pair of types; src and dst need no alignment. dst may be src when the sizes
// are equal, and must not overlap it otherwise. Float to integer truncates towards zero and clamps to the
// range (NaN becomes 0); I64 to F32 rounds to nearest even; to BOOL: 1 where the value is not 0.
void dtype_convert(void *dst, DType dst_type, const void *src, DType src_type, size_t cnt);

// One element, as bits. For kernels and tests; bulk work goes through dtype_convert.
float dtype_f16_to_f32(uint16_t bits);
uint16_t dtype_f32_to_f16(float x);
float dtype_bf16_to_f32(uint16_t bits);
uint16_t dtype_f32_to_bf16(float x);

#endif
