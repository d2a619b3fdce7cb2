"""Camera motion over photographs: where all training clips of the demo's models come from.

A clip is one photograph seen through a window that moves: pan, tilt, zoom, or not at all. The window's first place is
drawn before the motion is, with one law for all motions and a margin that all of them fit in, so that a first frame
says nothing about what follows. Every frame, the first included, is resampled the same way: bicubic at twice the
resolution, at a random offset of less than a pixel, then averaged over 2 x 2.

    np.save("train.npy", cut_bank(read_photos(folder, "train"), 2000, device, seed=1))
    bank = Bank("train.npy", device, seed=1)                         # patches of photographs, uint8
    Clips.make("clips.pt", bank.clips, 6000, frames=8)               # once
    frames, motion, speed = Clips("clips.pt", device, 1).draw(32)    # (32, 8, 3, 128, 128) in [-1, 1], (32), (32)

Names say what the camera does: pan_left shows content that moves to the right.
"""
import csv
import math
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

CLASSES = ["pan_left", "pan_right", "tilt_up", "tilt_down", "zoom_in", "zoom_out", "still"]
SIZE, PATCH = 128, 576          # of a frame; of a patch, which has twice the resolution
SPEED, GROWTH = (3.0, 5.0), (0.03, 0.04)    # pixels, and share of the size, per frame
LONG_PACE = (2.5, 4.0), (0.02, 0.03)        # the same for clips of many frames
SCALE = (1.0, 4.0)              # pixels of the photograph per pixel of a frame


def read_photo(file):
    from PIL import Image
    return np.asarray(Image.open(file).convert("RGB"))


def read_photos(folder, split):
    """The photographs of a split as uint8 arrays (H, W, 3) by name, in order."""
    rows = list(csv.DictReader(open(Path(folder) / "photos.tsv"), delimiter="\t"))
    names = sorted(row["id"] for row in rows if row["split"] == split)
    with Pool() as pool:
        return dict(zip(names, pool.map(read_photo, [Path(folder) / f"{name}.webp" for name in names])))


def texture(patch):
    """Mean change from one pixel to the next at a quarter of the resolution, of 255."""
    small = F.avg_pool2d(patch.float().mean(0, keepdim=True), 4)
    return ((small.diff(dim=1).abs().mean() + small.diff(dim=2).abs().mean()) / 2).item()


def cut_patches(photo, cnt, rng, scale=SCALE, least=4.0):
    """cnt patches (3, PATCH, PATCH), uint8, of a photograph (3, H, W), at twice the resolution of a frame; scale: bounds
    of photo pixels per pixel of it. Where nothing is to be seen, motion is not either: of up to eight places, the first
    whose texture is enough, or the best."""
    height, width = photo.shape[1:]
    for _ in range(cnt):
        best, most = None, -1.0
        for _ in range(8):
            side = int(min(PATCH / 2 * math.exp(rng.uniform(*map(math.log, scale))), height, width))
            y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
            cut = F.interpolate(photo[None, :, y:y + side, x:x + side].float(), (PATCH, PATCH), mode="bicubic", antialias=True)
            cut = cut[0].round().clamp(0, 255).to(torch.uint8)
            if (now := texture(cut)) > most:
                best, most = cut, now
            if most >= least:
                break
        yield best


def eased(frames, device):
    """Distance travelled by frame: starts from rest, then one unit a frame."""
    t = torch.arange(frames, device=device, dtype=torch.float32)
    return torch.where(t > 0, t - 0.5 * (1 - torch.exp(-2 * t)), t)


def path(motion, speed, growth, frames):
    """Centre (B, frames, 2) in pixels of a frame and size (B, frames) of the window, per clip."""
    s = eased(frames, motion.device)[None]
    dx = ((motion == 1).float() - (motion == 0).float())[:, None] * speed[:, None] * s
    dy = ((motion == 3).float() - (motion == 2).float())[:, None] * speed[:, None] * s
    zoom = ((motion == 5).float() - (motion == 4).float())[:, None] * growth[:, None].log1p() * s
    return torch.stack([dx, dy], -1), zoom.exp()


def flow(motion, speed, grid):
    """How far the content of each of grid x grid squares goes per frame, once in motion, in clips of Bank.clips:
    (B, grid * grid, 2) pixels, x and y. What the window does, the content does the other way."""
    growth = GROWTH[0] + (GROWTH[1] - GROWTH[0]) * (speed - SPEED[0]) / (SPEED[1] - SPEED[0])
    centre, size = path(motion, speed, growth, 8)
    step, grown = centre[:, -1] - centre[:, -2], size[:, -1] / size[:, -2] - 1
    at = (torch.arange(grid, device=motion.device) + 0.5) * SIZE / grid - SIZE / 2
    squares = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).flatten(0, 1)
    return -(step[:, None] + grown[:, None, None] * squares)


def look(patch, centre, size):
    """Frames (B, T, 3, SIZE, SIZE) in [-1, 1] through windows of `size` x SIZE pixels around centre, in
    pixels from the middle of the patches (B, 3, P, P), uint8."""
    b, t = size.shape
    p = patch.shape[-1]
    at = (torch.arange(2 * SIZE, device=patch.device, dtype=torch.float32) + 0.5) / (2 * SIZE) - 0.5
    gx = (2 * centre[..., 0, None] + 2 * SIZE * size[..., None] * at) * 2 / p       # (B, T, 2 SIZE)
    gy = (2 * centre[..., 1, None] + 2 * SIZE * size[..., None] * at) * 2 / p
    grid = torch.stack([gx[:, :, None, :].expand(b, t, 2 * SIZE, 2 * SIZE), gy[:, :, :, None].expand(b, t, 2 * SIZE, 2 * SIZE)], -1)
    pixels = patch.float() / 127.5 - 1
    out = F.grid_sample(pixels.repeat_interleave(t, 0), grid.flatten(0, 1), mode="bicubic", padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(out, 2).clamp(-1, 1).unflatten(0, (b, t))


def cut_bank(photos, cnt, device, seed, scale=SCALE, least=4.0):
    """About cnt patches (n, 3, PATCH, PATCH) of photographs, equally many of each."""
    rng, out = np.random.default_rng(seed), []
    for photo in photos.values():
        picture = torch.from_numpy(photo).to(device).permute(2, 0, 1)
        out += [cut.cpu() for cut in cut_patches(picture, -(-cnt // len(photos)), rng, scale, least)]
    return torch.stack(out).numpy()


class Bank:
    """Patches of a file on a device, and clips of them as a camera would take them."""

    def __init__(self, file, device, seed):
        self.patch = torch.from_numpy(np.load(file)).to(device)
        self.rng = torch.Generator(device).manual_seed(seed)
        self.device = device

    def uniform(self, n, low, high):
        return low + (high - low) * torch.rand(n, generator=self.rng, device=self.device)

    def motion(self, n, still=1 / 7):
        """Motions, all alike but for `still`, which gets that share."""
        weight = torch.full((len(CLASSES),), (1 - still) / (len(CLASSES) - 1), device=self.device)
        weight[-1] = still
        return torch.multinomial(weight, n, True, generator=self.rng)

    def start(self, n):
        """A patch for each clip, and the first place of its window: the middle, moved by up to half a pixel."""
        pick = torch.randint(len(self.patch), (n,), generator=self.rng, device=self.device)
        return self.patch[pick], self.uniform(2 * n, -0.5, 0.5).view(n, 1, 2)

    def clips(self, n, frames, still=1 / 7):
        """n clips (n, frames, 3, SIZE, SIZE), the motion of each (n), and its pixels per frame (n)."""
        patch, start = self.start(n)
        motion, u = self.motion(n, still), self.uniform(n, 0, 1)
        speed, growth = (low + (high - low) * u for low, high in (SPEED, GROWTH))
        centre, size = path(motion, speed, growth, frames)
        return look(patch, start + centre, size), motion, speed

    def long_clips(self, n, frames, change=0.3, repeat=0.3):
        """Clips whose motion may change in the middle, as where two segments of a long video meet: a share of them
        takes another motion there, a share shows the frame before once more."""
        patch, start = self.start(n)
        seam, first, second = frames // 2, self.motion(n), self.motion(n)
        second = torch.where(self.uniform(n, 0, 1) < change, second, first)
        u = self.uniform(n, 0, 1)
        speed, growth = (low + (high - low) * u for low, high in LONG_PACE)
        c0, z0 = path(first, speed, growth, frames)
        c1, z1 = path(second, speed, growth, frames - seam + 1)
        new = (second != first)[:, None]
        centre = torch.cat([c0[:, :seam], torch.where(new[..., None], c0[:, seam - 1:seam] + c1[:, 1:], c0[:, seam:])], 1)
        size = torch.cat([z0[:, :seam], torch.where(new, z0[:, seam - 1:seam] * z1[:, 1:], z0[:, seam:])], 1)
        back = torch.arange(frames, device=self.device)
        back = torch.where(back < seam, back, back - 1)[None].expand(n, -1)
        index = torch.where((self.uniform(n, 0, 1) < repeat)[:, None], back, torch.arange(frames, device=self.device)[None])
        centre = torch.gather(centre, 1, index[..., None].expand(-1, -1, 2))
        return look(patch, start + centre, torch.gather(size, 1, index)), first, speed


class Clips:
    """Clips made once and kept as uint8; each draw mirrors or turns them, and their motions with them, and changes their
    colours a little.

        Clips.make("clips.pt", bank.clips, 6000, frames=8)
        clips = Clips("clips.pt", device, seed=1)
        frames, motion, speed = clips.draw(32)      # (32, 8, 3, SIZE, SIZE) in [-1, 1], (32), (32)
    """

    @staticmethod
    def make(file, make, n, **kwargs):
        parts = [make(min(16, n - at), **kwargs) for at in range(0, n, 16)]
        frames = torch.cat([((x + 1) * 127.5).round().to(torch.uint8).cpu() for x, _, _ in parts])
        torch.save({"frames": frames, "motion": torch.cat([p[1] for p in parts]).cpu(), "speed": torch.cat([p[2] for p in parts]).cpu()}, file)

    def __init__(self, file, device, seed, still=1.0, zoom=1):
        """still: the share that is kept of the clips without motion. zoom: how many times as often zooms are drawn."""
        data = torch.load(file, mmap=True)
        self.frames, self.motion, self.speed = (data[name].to(device) for name in ("frames", "motion", "speed"))
        keep = (self.motion != len(CLASSES) - 1) | (torch.arange(len(self.motion), device=device) % 100 < 100 * still)
        zooms = ((self.motion == 4) | (self.motion == 5)).nonzero().flatten()
        self.index = torch.cat([keep.nonzero().flatten()] + (zoom - 1) * [zooms])
        self.rng, self.kind = torch.Generator(device).manual_seed(seed), np.random.default_rng(seed)
        mirror = torch.tensor([1, 0, 2, 3, 4, 5, 6], device=device)
        turn = torch.tensor([3, 2, 0, 1, 4, 5, 6], device=device)        # a quarter, against the clock
        self.after = [torch.arange(7, device=device)]
        for _ in range(3):
            self.after.append(turn[self.after[-1]])
        self.after.append(mirror)

    def draw(self, n, jitter=True, only=None):
        """n clips, all turned alike; only: just these of their frames."""
        pick = self.index[torch.randint(len(self.index), (n,), generator=self.rng, device=self.index.device)]
        frames = self.frames[pick] if only is None else self.frames[pick][:, only]
        k = int(self.kind.integers(8))
        frames = torch.rot90(frames.flip(4) if k >= 4 else frames, k % 4, (3, 4)) / 127.5 - 1
        motion = self.motion[pick]
        motion = self.after[k % 4][self.after[4][motion] if k >= 4 else motion]
        return self.jitter(frames) if jitter else frames, motion, self.speed[pick]

    def jitter(self, frames):
        """One brightness, contrast and colour balance per clip, on [-1, 1]."""
        n = len(frames)
        u = torch.rand(n, 5, generator=self.rng, device=frames.device)
        gain = (0.8 + 0.35 * u[:, 0]).view(n, 1, 1, 1, 1) * (0.94 + 0.12 * u[:, 1:4]).view(n, 1, 3, 1, 1)
        return (frames * gain + (0.3 * u[:, 4] - 0.15).view(n, 1, 1, 1, 1)).clamp(-1, 1)
