// picture: what can be said of frames without a model: luma, change, sharpness, contrast, chroma, distance, blur.
//
// Values are in [0, 1]; rgb is (H, W, 3), luma (H, W). All sums are in double and in order: the same bits always.
#ifndef COMMON_MEASURE_PICTURE_H
#define COMMON_MEASURE_PICTURE_H

#include <stddef.h>

// Raw values as a VAE decodes them, about [-1, 1], to [0, 1]: clamp(x / 2 + 1/2). NaN stays NaN.
void picture_from_raw(const float *raw, size_t cnt, float *out);

// 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) of each of `pixels` pixels.
void picture_luma(const float *rgb, size_t pixels, float *luma);

// Mean |a - b|.
double picture_change(const float *a, const float *b, size_t cnt);

// Energy of the Laplacian, mean over inner pixels of (left + right + above + below - 4 centre)^2; 0 when there are none.
double picture_sharpness(const float *luma, int height, int width);

// Standard deviation of luma over the picture's pixels, at least one.
double picture_contrast(const float *luma, size_t pixels);

// How colourful a picture is: mean over pixels, at least one, of max(R, G, B) - min(R, G, B), the chroma of HSV.
// A NaN beside numbers is passed over; luma and contrast have it.
double picture_chroma(const float *rgb, size_t pixels);

// -10 log10(mean (a - b)^2) in dB; at most PICTURE_PSNR_MAX, which equal pictures have.
#define PICTURE_PSNR_MAX 100.0
double picture_psnr(const float *a, const float *b, size_t cnt);

// Gaussian blur of standard deviation sigma (pixels), cut at 3 sigma; edges are repeated. out may not be rgb.
void picture_blur(const float *rgb, int height, int width, double sigma, float *out);

#endif
