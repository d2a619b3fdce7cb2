// rng: random numbers that are a function of their name: Philox4x32-10, for C and CUDA alike.
//
// No generator has a state that anything could advance out of turn. A number is named by what it is for:
// (seed, sample, segment, use, element), and every process, thread and device that asks for that name gets
// the same bits, in any order and any number of times. Public source: Salmon, Moraes, Dror, Shaw,
// "Parallel Random Numbers: As Easy as 1, 2, 3" (2011).
//
//     RngKey key = {.seed = seed, .sample = rng_sample(RNG_TRAIN, i), .segment = s,
//                   .use = rng_use(RNG_LATENTS, 0, 0, 0, 0)};
//     rng_fill_normal(key, noise, cnt);          // element j is the j-th number of this key
//
//     RngStream r = rng_stream(key);             // or by hand, in a kernel
//     float u = rng_uniform(&r, j);
//
// How 256 bits of name go into Philox's 64-bit key and 128-bit counter, both low word first:
//
//     h = philox(key = seed, counter = {sample lo, sample hi, segment, use})
//     block b = philox(key = {h0, h1}, counter = {b lo, b hi, h2, h3})      elements 4b .. 4b+3
//
// Philox is a bijection of its counter, so for one seed two names differ in h, hence in key or counter:
// no two of them ever share a block. Between seeds that holds by chance only (2^-128 a pair).
//
// A test against the published vectors and numbers of the whole chain is in tests/common/base/test_rng.c;
// changing any of this changes every run.
#ifndef COMMON_BASE_RNG_H
#define COMMON_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define RNG_FN static inline __host__ __device__
#else
#define RNG_FN static inline
#endif

// The name of a row of numbers, and the first one wanted: element i below is number element + i of it.
typedef struct RngKey {
    uint64_t seed;
    uint64_t sample;  // rng_sample
    uint32_t segment; // of a long video; 0 where there is none
    uint32_t use;     // rng_use
    uint64_t
        element; // of the first number, in the order (F, C, H, W) whatever the layout in memory
} RngKey;

// A key made ready; 24 bytes, copied freely.
typedef struct RngStream {
    uint32_t key[2];
    uint32_t high[2]; // upper half of the counter
    uint64_t element;
} RngStream;

typedef struct RngBlock {
    uint32_t x[4];
} RngBlock;

// ---- Names ---------------------------------------------------------------------------------------

// What a number is for. Values are part of every run: append only; at most 16.
typedef enum RngKind {
    RNG_IMAGE_NOISE, // noise on the conditioning image
    RNG_LATENTS,     // what sampling starts from
    RNG_STEP_NOISE,  // z of a stochastic sampler
    RNG_WINDOW,      // where the gradient window lies
    RNG_FRAMES,      // which frames are scored
    RNG_MASKS,       // masked tokens of a reward model
    RNG_DROPOUT,
    RNG_INIT,     // first values of trainable parameters
    RNG_ORDER,    // which prompt or image a sample takes
    RNG_TEST,     // tests and benchmarks
    RNG_RESAMPLE, // which values a bootstrap draws
} RngKind;

// Samples of training, previews and evaluation never share a number.
typedef enum RngPhase { RNG_TRAIN, RNG_PREVIEW, RNG_EVAL } RngPhase;

// Packs a use: kind 4 bits, denoising step 10, guidance branch 2, module 12, draw 4; what does not apply
// is 0. Values out of range end the process.
uint32_t rng_use(RngKind kind, unsigned step, unsigned branch, unsigned module, unsigned draw);

// Number n (below 2^62) of a phase, counted over the whole run.
uint64_t rng_sample(RngPhase phase, uint64_t n);

// A key as eight 32-bit words, the form in which graphs carry it: the fields in order, low word first.
RNG_FN void rng_key_to_words(RngKey k, int32_t words[8]) {
    uint64_t field[4] = {k.seed, k.sample, k.segment | (uint64_t)k.use << 32, k.element};
    for (int i = 0; i < 8; i++) words[i] = (int32_t)(uint32_t)(field[i / 2] >> (i % 2 * 32));
}

RNG_FN RngKey rng_key_from_words(const int32_t words[8]) {
    uint64_t field[4];
    for (int i = 0; i < 4; i++)
        field[i] = (uint32_t)words[2 * i] | (uint64_t)(uint32_t)words[2 * i + 1] << 32;
    RngKey k = {field[0], field[1], (uint32_t)field[2], (uint32_t)(field[2] >> 32), field[3]};
    return k;
}

// ---- Numbers: the same bits in C and CUDA --------------------------------------------------------

// Philox4x32 with 10 rounds, as published.
RNG_FN RngBlock rng_philox4x32(RngBlock counter, uint32_t key0, uint32_t key1) {
    uint32_t a = counter.x[0], b = counter.x[1], c = counter.x[2], d = counter.x[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * a, q = (uint64_t)0xCD9E8D57u * c;
        a = (uint32_t)(q >> 32) ^ b ^ key0;
        b = (uint32_t)q;
        c = (uint32_t)(p >> 32) ^ d ^ key1;
        d = (uint32_t)p;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    RngBlock out = {{a, b, c, d}};
    return out;
}

RNG_FN RngStream rng_stream(RngKey k) {
    RngBlock name = {{(uint32_t)k.sample, (uint32_t)(k.sample >> 32), k.segment, k.use}};
    RngBlock h = rng_philox4x32(name, (uint32_t)k.seed, (uint32_t)(k.seed >> 32));
    RngStream r = {{h.x[0], h.x[1]}, {h.x[2], h.x[3]}, k.element};
    return r;
}

// Numbers 4b .. 4b+3, counted from 0 and not from r->element: for loops that use all four.
RNG_FN RngBlock rng_block(const RngStream *r, uint64_t b) {
    RngBlock counter = {{(uint32_t)b, (uint32_t)(b >> 32), r->high[0], r->high[1]}};
    return rng_philox4x32(counter, r->key[0], r->key[1]);
}

// 32 random bits of element i.
RNG_FN uint32_t rng_u32(const RngStream *r, uint64_t i) {
    uint64_t e = r->element + i;
    return rng_block(r, e / 4).x[e % 4];
}

// Bits as a uniform number: odd multiples of 2^-24, so never 0 or 1, and exact in F32 on any machine.
RNG_FN float rng_uniform_from_bits(uint32_t bits) {
    return ((float)(bits >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

// Element i, uniform in (0, 1).
RNG_FN float rng_uniform(const RngStream *r, uint64_t i) {
    return rng_uniform_from_bits(rng_u32(r, i));
}

// ---- Numbers: host only --------------------------------------------------------------------------
// Normals go through log, sin and cos of the C library in double and are rounded once to F32; another
// libm may round one in many millions differently, so a run makes them on the host and ships them.

// Element i, normal with mean 0 and variance 1: Box-Muller on the numbers e and e^1, e = r->element + i.
float rng_normal(const RngStream *r, uint64_t i);

// Elements 0 .. cnt-1 of a key: out[i] is rng_uniform or rng_normal of element i.
void rng_fill_uniform(RngKey key, float *out, size_t cnt);
void rng_fill_normal(RngKey key, float *out, size_t cnt);

// The next integer in 0 .. n-1, each with exactly the same probability; n > 0. Takes one number, rarely
// more, and moves r->element past them. For choices made one after the other.
uint32_t rng_u32_below(RngStream *r, uint32_t n);

// Puts 0 .. n-1 into order[] in random order; moves r->element likewise.
void rng_shuffle(RngStream *r, uint32_t *order, uint32_t n);

#endif
