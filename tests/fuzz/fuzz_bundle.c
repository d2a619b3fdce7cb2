// fuzz_bundle: the input is a tar; one that opens has only known names, and its entries can be read again.
#include <stdlib.h>
#include <string.h>

#include "common/format/bundle.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    Bundle *b;
    if (bundle_open_bytes(&b, "fuzz", bytes, len)) return 0;
    for (int i = 0; i < bundle_count(b); i++) {
        const BundleEntry *e = bundle_at(b, i);
        if (!bundle_knows(e->name) || strstr(e->name, "/..")) abort();
        if (e->bytes > 1 << 20) continue;
        char *data;
        size_t n;
        if (bundle_load(b, e->name, &data, &n) || n != e->bytes) abort();
        free(data);
    }
    bundle_close(b);
    return 0;
}
