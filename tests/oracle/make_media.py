#!/usr/bin/env python3
"""Writes tests/common/format/data/media/: pictures as Pillow writes them, and what its Lanczos makes of one.

  make_media.py [FFMPEG]   needs Pillow (made with 10.4) and ffmpeg (9.0)

picture.png (41 x 29) and the same as jpg, webp (lossless), bmp, tiff, gif, ppm; small.png, wide.png, large.png are
picture.png resized to 16 x 12, 61 x 17 and 90 x 70; rgba.png, gray.png, palette.png, deep.png (16 bits) are other kinds;
turned-N.jpg have EXIF orientation N, upright.png is what all of them show. video.mp4 is H.264 with sound, video-turned.mp4
the same with a display matrix and no sound, video-part2.mp4 MPEG-4 part 2; video-sound.mp4 and video-jpeg.mov are refused.
"""
import subprocess
import sys
from pathlib import Path

from PIL import Image

out = Path(__file__).parent.parent / "common/format/data/media"
out.mkdir(parents=True, exist_ok=True)
W, H = 41, 29


def pixel(x, y):
    # Smooth, with an edge and a few sharp dots, so that ringing and clipping are seen.
    r, g, b = 6 * x, 8 * y, 255 if (x // 8 + y // 8) % 2 else 0
    return (255, 255, 255) if (x * 7 + y * 13) % 31 == 0 else (r, g, b)


image = Image.new("RGB", (W, H))
image.putdata([pixel(x, y) for y in range(H) for x in range(W)])
image.save(out / "picture.png")
image.save(out / "picture.bmp")
image.save(out / "picture.ppm")
image.save(out / "picture.tiff")
image.save(out / "picture.jpg", quality=95, subsampling=0)
image.save(out / "picture.webp", lossless=True)
image.convert("P", palette=Image.ADAPTIVE, colors=32, dither=Image.NONE).save(out / "picture.gif")
for name, size in {"small": (16, 12), "wide": (61, 17), "large": (90, 70)}.items():
    image.resize(size, Image.LANCZOS).save(out / f"{name}.png")
rgba = image.convert("RGBA")
rgba.putalpha(image.convert("L"))
rgba.save(out / "rgba.png")
image.convert("L").save(out / "gray.png")
image.quantize(64, dither=Image.NONE).save(out / "palette.png")
image.quantize(64, dither=Image.NONE).convert("RGB").save(out / "palette-rgb.png")
image.convert("L").convert("I;16").point(lambda v: v * 257).save(out / "deep.png")

upright = Image.new("RGB", (24, 16), (200, 30, 30))
upright.paste((30, 200, 30), (0, 0, 8, 8))
upright.paste((30, 30, 200), (16, 8, 24, 16))
upright.save(out / "upright.png")
undo = {1: None, 2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE,
        6: Image.ROTATE_90, 7: Image.TRANSVERSE, 8: Image.ROTATE_270}
for n, how in undo.items():
    turned = upright if how is None else upright.transpose(how)
    exif = Image.Exif()
    exif[0x0112] = n
    turned.save(out / f"turned-{n}.jpg", quality=95, subsampling=0, exif=exif)


# ---- Videos: a white square that moves over blue, by ffmpeg ----
def film(name, *options, sound=False, picture=True):
    size, frames = (48, 32), 6
    raw = b""
    for t in range(frames):
        frame = Image.new("RGB", size, (0, 0, 255))
        frame.paste((255, 255, 255), (4 + 5 * t, 12, 12 + 5 * t, 20))
        raw += frame.tobytes()
    command = [ffmpeg, "-y", "-loglevel", "error"]
    if picture:
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "48x32", "-r", "7", "-i", "-"]
    if sound:
        command += ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.8", "-c:a", "aac", "-b:a", "32k"]
    command += ["-fflags", "+bitexact", "-flags", "+bitexact", "-map_metadata", "-1", *options, str(out / name)]
    subprocess.run(command, input=raw, check=True)


ffmpeg = sys.argv[1] if len(sys.argv) > 1 else "ffmpeg"
to709 = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p", "-colorspace", "bt709", "-color_range", "tv"]
film("video.mp4", *to709, "-c:v", "libx264", "-crf", "12", "-bf", "2", "-movflags", "+faststart", sound=True)
film("video-part2.mp4", *to709, "-c:v", "mpeg4", "-q:v", "3")
film("video-sound.mp4", sound=True, picture=False)
film("video-jpeg.mov", "-c:v", "mjpeg", "-q:v", "5", "-pix_fmt", "yuvj420p")
subprocess.run([ffmpeg, "-y", "-loglevel", "error", "-display_rotation:v:0", "90", "-i", str(out / "video.mp4"), "-map", "0:v",
                "-c", "copy", "-fflags", "+bitexact", "-movflags", "+faststart", str(out / "video-turned.mp4")], check=True)
