#!/usr/bin/env python3
"""Writes tests/common/format/data/media/: pictures as Pillow writes them, and what its Lanczos makes of one.

  make_media.py            needs Pillow (made with 10.4)

picture.png (41 x 29) and the same as jpg, webp (lossless), bmp, tiff, gif, ppm; small.png, wide.png, large.png are
picture.png resized to 16 x 12, 61 x 17 and 90 x 70; rgba.png, gray.png, palette.png, deep.png (16 bits) are other kinds;
turned-N.jpg have EXIF orientation N, upright.png is what all of them show.
"""
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
