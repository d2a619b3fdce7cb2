// fft: the discrete Fourier transform of a picture whose sides are powers of two.
//
//     X[k, l] = sum_yx x[y, x] exp(-2 pi i (k y / H + l x / W))        forward
//     x[y, x] = 1/(H W) sum_kl X[k, l] exp(+2 pi i (k y / H + l x / W)) inverse
//
//     Fft *f = fft_new(128, 256);
//     fft_forward(f, x);                 // in place, (H, W)
//     fft_free(f);
//
// Radix 2, in double; the same bits at every call. For measuring motion (motion.h): some hundred
// transforms of small pictures, next to which the models weigh thousands of times more.
#ifndef COMMON_MEASURE_FFT_H
#define COMMON_MEASURE_FFT_H

typedef struct FftValue {
    double re, im;
} FftValue;

typedef struct Fft Fft;

// Dies unless both sides are powers of two of at most 2^15. Never NULL. Any number of threads may use it at once.
Fft *fft_new(int height, int width);
void fft_free(Fft *f); // NULL is fine

void fft_forward(const Fft *f, FftValue *x); // (H, W)
void fft_inverse(const Fft *f, FftValue *x); // (H, W)

// The least power of two that is not below n.
int fft_side(int n);

#endif
