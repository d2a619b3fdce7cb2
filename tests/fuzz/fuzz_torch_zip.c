// fuzz_torch_zip: bytes that start like a pickle are put into a zip with right checksums, others are a file.
#include <stdlib.h>
#include <string.h>

#include "common/format/torch_zip.h"
#include "tests/common/format/zip_make.h"

static void open_and_read(const uint8_t *bytes, size_t len, const char *sub) {
    TorchZip *t;
    double number;
    if (torch_zip_open_bytes(&t, "fuzz", bytes, len, sub)) return;
    size_t sum = 0, total = 0;
    for (size_t i = 0; i < torch_zip_count(t); i++) {
        const SafetensorsEntry *e = torch_zip_at(t, i);
        if (torch_zip_find(t, e->name) != e) abort();
        if ((uintptr_t)e->data % dtype_bytes(e->dtype)) abort();
        for (size_t k = 0; k < e->bytes; k++) sum += ((const uint8_t *)e->data)[k];
        total += e->bytes;
    }
    if (sum > total * 255) abort();
    (void)torch_zip_number(t, "epoch", &number);
    (void)torch_zip_text(t, "0/name");
    torch_zip_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (!len || *bytes != 0x80) {
        open_and_read(bytes, len, NULL);
        return 0;
    }
    static const uint8_t storage[96]; // twelve I64: what the seeds' storages 0 and 1 have
    static Zip z;
    if (len > ZIP_FILE_BYTES - 1024) return 0;
    z.len = z.central_len = 0;
    z.cnt = 0;
    zip_add(&z, "a/data.pkl", bytes, len, 0);
    zip_add(&z, "a/data/0", storage, 96, 0);
    zip_add(&z, "a/data/1", storage, 48, 0);
    zip_end(&z);
    open_and_read(z.file, z.len, NULL);
    open_and_read(z.file, z.len, "encoder");
    return 0;
}
