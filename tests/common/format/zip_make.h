// zip_make: small zips in memory, right or with a wrong checksum; for tests and fuzz targets of torch_zip.
#ifndef TESTS_COMMON_FORMAT_ZIP_MAKE_H
#define TESTS_COMMON_FORMAT_ZIP_MAKE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t zip_crc(const unsigned char *p, size_t n) {
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
    }
    return ~c;
}

enum { ZIP_FILE_BYTES = 65536 };

typedef struct Zip {
    unsigned char file[ZIP_FILE_BYTES], central[1024]; // the caller keeps within both
    size_t len, central_len;
    int cnt;
} Zip;

static inline size_t zip_le(unsigned char *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> 8 * i);
    return (size_t)bytes;
}

// One stored entry; `harm` is added to its checksum.
static inline void zip_add(Zip *z, const char *name, const void *bytes, size_t n, uint32_t harm) {
    unsigned char *h = z->file + z->len, *c = z->central + z->central_len;
    size_t name_len = strlen(name);
    unsigned char common[26] = {20, 0};
    zip_le(common + 10, zip_crc(bytes, n) + harm, 4);
    zip_le(common + 14, n, 4);
    zip_le(common + 18, n, 4);
    zip_le(common + 22, name_len, 2);
    zip_le(h, 0x04034b50, 4);
    memcpy(h + 4, common, 26);
    memcpy(h + 30, name, name_len);
    memcpy(h + 30 + name_len, bytes, n);
    memset(c, 0, 46);
    zip_le(c, 0x02014b50, 4);
    c[4] = 20;
    memcpy(c + 6, common, 26);
    zip_le(c + 42, z->len, 4);
    memcpy(c + 46, name, name_len);
    z->len += 30 + name_len + n;
    z->central_len += 46 + name_len;
    z->cnt++;
}

static inline void zip_end(Zip *z) {
    unsigned char *e = z->file + z->len;
    memcpy(e, z->central, z->central_len);
    e += z->central_len;
    memset(e, 0, 22);
    zip_le(e, 0x06054b50, 4);
    zip_le(e + 8, (uint64_t)z->cnt, 2);
    zip_le(e + 10, (uint64_t)z->cnt, 2);
    zip_le(e + 12, z->central_len, 4);
    zip_le(e + 16, z->len, 4);
    z->len += z->central_len + 22;
}

#endif
