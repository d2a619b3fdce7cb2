// Control messages: round trips, and everything else is refused.
#include "common/transport/control.h"
#include "tests/test.h"

static uint8_t buf[MSG_BYTES_MAX];

TEST(round_trip) {
    static const uint64_t numbers[] = {0, 1, 127, 128, 255, 256, 65535, 65536, UINT32_MAX};
    for (unsigned kind = 0; kind < MSG_CNT; kind++) {
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            Msg m = {.kind = kind,
                     .stage = (uint32_t)(i % STAGE_CNT),
                     .replica = (uint32_t)numbers[i],
                     .incarnation = (uint32_t)numbers[8 - i],
                     .epoch = numbers[i] << 20,
                     .value = UINT64_MAX - numbers[i]},
                got;
            if (kind == MSG_REPORT) snprintf(m.text, sizeof m.text, "reward.0: wä%zu", i);
            size_t len = msg_encode(&m, buf);
            CHECK(len > 0 && len <= MSG_BYTES_MAX);
            CHECK(msg_decode(&got, buf, len));
            CHECK(!memcmp(&m, &got, sizeof m));
        }
    }
}

TEST(text_is_cut_to_its_room_and_only_where_it_belongs) {
    Msg m = {.kind = MSG_REPORT}, got;
    memset(m.text, 'x', sizeof m.text - 1);
    CHECK(msg_decode(&got, buf, msg_encode(&m, buf)));
    CHECK_EQ(strlen(got.text), MSG_TEXT_MAX - 1);
    m.kind = MSG_ACK; // carries none
    CHECK(msg_decode(&got, buf, msg_encode(&m, buf)));
    CHECK_STR(got.text, "");
}

TEST(cut_short_or_too_long) {
    Msg m = {.kind = MSG_REPORT, .epoch = 70000, .text = "why"}, got;
    size_t len = msg_encode(&m, buf);
    for (size_t n = 0; n < len; n++) CHECK(!msg_decode(&got, buf, n));
    CHECK(!msg_decode(&got, buf, len + 1));
    CHECK(!msg_decode(&got, buf, MSG_BYTES_MAX));
}

TEST(other_types_and_values) {
    Msg m = {.kind = MSG_ACK}, got;
    size_t len = msg_encode(&m, buf);
    CHECK(len == 8); // array of 7, six small numbers, an empty text
    static const struct {
        int at;
        uint8_t byte;
    } bad[] = {
        {0, 0x96}, {0, 0x98}, {0, 0xdc},      {1, MSG_CNT}, {1, 0xff},
        {1, 0xc0}, {1, 0xca}, {2, STAGE_CNT}, {3, 0xd0},    {4, 0xa1},
        {5, 0x91}, {7, 0xa1}, {7, 0xc4},      {7, 0xdb},    {7, 0x80},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t copy[16];
        memcpy(copy, buf, len);
        copy[bad[i].at] = bad[i].byte;
        CHECK_MSG(!msg_decode(&got, copy, len), "byte %d as %02x was taken", bad[i].at,
                  bad[i].byte);
    }
    // a replica that does not fit, text where none belongs, a NUL within text
    const uint8_t wide[] = {0x97, MSG_ACK, 0, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xa0};
    CHECK(!msg_decode(&got, wide, sizeof wide));
    const uint8_t text[] = {0x97, MSG_ACK, 0, 0, 0, 0, 0, 0xa1, 'x'};
    CHECK(!msg_decode(&got, text, sizeof text));
    const uint8_t nul[] = {0x97, MSG_REPORT, 0, 0, 0, 0, 0, 0xa2, 'x', 0};
    CHECK(!msg_decode(&got, nul, sizeof nul));
    const uint8_t claims[] = {0x97, MSG_REPORT, 0, 0, 0, 0, 0, 0xda, 0xff, 0xff, 'x'};
    CHECK(!msg_decode(&got, claims, sizeof claims));
}

TEST(names) {
    CHECK_STR(msg_name(MSG_HELLO), "HELLO");
    CHECK_STR(msg_name((MsgKind)99), "?");
}
