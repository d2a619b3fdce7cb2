// motion: how the content of a video moves from frame to frame: shift and zoom.
//
// First the shift, by phase correlation, which finds it however large it is: two frames of luma, under a Hann window,
// have spectra A and B; of B conj(A) only the phase is kept. A shift of the content is then a ramp of the phase, and
// the transform back a peak at that shift. The phase is damped by exp(-2 pi^2 f^2), which makes the peak a Gaussian, so
// that the logarithms of three neighbours lie on a parabola whose top is the shift (Kuglin, Hines 1975).
//
// Then shift d and zoom s together, from there, by least squares with the same window (Lucas, Kanade 1981):
//
//     least sum_p w(p) (b(c + s (p - c) + d) - a(p))^2        c: the centre; Gauss-Newton in (d, log s)
//
// over frames blurred by 4 pixels, then by 2. (A log-polar map of |A|, the other way to a zoom, was tried: as good on
// sharp pictures, useless on blurred ones, where what it compares is noise.)
//
//     MotionMeter *m = motion_new(height, width);
//     Motion v = motion_of_video(m, luma, frames, frames);
//     printf("the content moves %g px to the right a frame\n", v.shift_x);
//     motion_free(m);
//
// Frames with a side above MOTION_SIDE_MAX are averaged down by a whole factor first. Shifts beyond a quarter of a side
// and zooms beyond 25 % are not found. Content without detail has no motion: 0. NaN gives anything: look elsewhere.
#ifndef COMMON_MEASURE_MOTION_H
#define COMMON_MEASURE_MOTION_H

enum { MOTION_SIDE_MAX = 256 };

typedef struct MotionMeter MotionMeter; // what frames of one size need; one thread at a time

typedef struct Motion {
    double shift_x,
        shift_y; // px a frame, at the centre; content that moves right, or down, is positive
    double zoom; // percent a frame; content that grows is positive
} Motion;

MotionMeter *motion_new(int height, int width);
void motion_free(MotionMeter *m); // NULL is fine

// The median of each over pairs of neighbouring frames of luma (T, H, W). `segment` frames are one segment of a long
// video: pairs across a seam are left out, since a segment begins with the frame that the one before ended with.
// At least one pair must be left (dies).
Motion motion_of_video(MotionMeter *m, const float *luma, int frames, int segment);

#endif
