// fuzz_safetensors: any bytes as a safetensors file; what is accepted must be readable to the last byte.
#include <stdlib.h>
#include <string.h>

#include "common/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    Safetensors *s;
    if (safetensors_open_bytes(&s, "fuzz", bytes, len)) return 0;
    size_t sum = 0, total = 0;
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const SafetensorsEntry *e = safetensors_at(s, i);
        int64_t cnt = 1;
        for (int k = 0; k < SAFETENSORS_DIMS_MAX; k++) cnt *= e->dim[k];
        if ((size_t)cnt * dtype_bytes(e->dtype) != e->bytes) abort();
        if ((uintptr_t)e->data % dtype_bytes(e->dtype)) abort();
        if (safetensors_find(s, e->name) != e) abort();
        for (size_t k = 0; k < e->bytes; k++) sum += ((const uint8_t *)e->data)[k];
        total += e->bytes;
    }
    if (total > len || sum > total * 255) abort();
    safetensors_close(s);
    return 0;
}
