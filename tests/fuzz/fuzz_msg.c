// fuzz_msg: control messages from outside: never read past the end, and what is taken can be written again.
#include <stdlib.h>
#include <string.h>

#include "common/transport/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    Msg m, again;
    uint8_t buf[MSG_BYTES_MAX];
    if (!msg_decode(&m, bytes, len)) return 0;
    if (m.kind >= MSG_CNT || m.stage >= STAGE_CNT || strlen(m.text) >= MSG_TEXT_MAX) abort();
    size_t n = msg_encode(&m, buf);
    if (!msg_decode(&again, buf, n) || memcmp(&m, &again, sizeof m)) abort();
    return 0;
}
