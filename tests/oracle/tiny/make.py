"""Makes the demo's models, pictures and clips: everything under tests/data/demo, from photographs.

    build/oracle/bin/python tests/oracle/tiny/photos.py build/photos            # fetches and shrinks the photographs
    build/oracle/bin/python tests/oracle/tiny/make.py --photos build/photos --work build/tiny --out tests/data/demo

Parts that are there already under --work are not made again. --only picks parts, --jobs runs those at once that do
not need each other (for a GPU), --hasten F runs a fraction F of the steps (to try the script).
"""
import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

# Part: what it needs. Each is made by the function of its name below.
PARTS = {
    "patches": [],
    "clips": ["patches"],
    "encoder": ["clips"],
    "vae": ["clips"],
    "vjepa": ["clips"],
    "videomae": ["vae"],
    "judge": ["vae"],
    "unet": ["vae", "encoder"],
    "sorted": ["unet"],
    "base": ["sorted", "judge"],
    "pack": ["base", "videomae", "vjepa"],
}


def steps(a, n):
    return max(2, int(n * a.hasten))


def make_patches(a):
    import numpy as np
    from motion import SCALE, cut_bank, read_photos
    small = lambda n: max(8, int(n * min(1, 20 * a.hasten)))
    banks = {"train": ("train", a.patches, SCALE, 4), "held-out": ("held-out", 400, SCALE, 4),
             "smooth": ("held-out", 64, (1.0, 2.0), 0), "natural": ("held-out", 64, (2.0, 5.0), 0)}
    photos = {split: read_photos(a.photos, split) for split in ("train", "held-out")}
    for seed, (name, (split, cnt, scale, least)) in enumerate(banks.items()):
        np.save(a.work / f"{name}.npy", cut_bank(photos[split], small(cnt), a.device, seed + 1, scale, least))


def make_clips(a):
    from motion import Bank, Clips
    bank = Bank(a.work / "train.npy", a.device, 6)
    Clips.make(a.work / "clips.pt", bank.clips, 3 * len(bank.patch), frames=8)
    Clips.make(a.work / "long.pt", bank.long_clips, len(bank.patch), frames=16)


def make_encoder(a):
    import train
    train.train_encoder(a.work / "svd/image_encoder", a.work, a.device, 11, steps(a, 700), 64, limit=a.limit.get("encoder"))


def make_vae(a):
    import train
    train.train_vae(a.work / "svd/vae", a.work, a.device, 12, steps(a, 3300), steps(a, 1000), 16, a.latents, (32, 64, 64, 64), 1, limit=a.limit.get("vae"))


def make_unet(a):
    import train
    train.train_unet(a.work / "svd/unet", a.work / "svd", a.work, a.device, 13, steps(a, 2500), a.batch, (64, 128), 1, steps(a, 8000),
                     limit=a.limit.get("unet"))


def make_sorted(a):
    import train
    train.sort_pictures(a.work / "sorted", a.work / "svd", a.work, a.device, 17, steps(a, 1500), 4, 0.5, limit=a.limit.get("sorted"))


def make_videomae(a):
    import train
    train.train_videomae(a.work / "videomae", a.work / "svd", a.work, a.device, 14, steps(a, 2000), 16, limit=a.limit.get("videomae"))


def make_judge(a):
    import train
    train.train_videomae(a.work / "judge", a.work / "svd", a.work, a.device, 15, steps(a, 2000), 16, limit=a.limit.get("judge"))


def make_vjepa(a):
    import train
    train.train_vjepa(a.work / "vjepa", a.work, a.device, 16, steps(a, 1900), 32, limit=a.limit.get("vjepa"))


def make_base(a):
    """The base model's videos, and whether they are what the demo needs."""
    import train
    report, videos, clips = train.base_quality(a.work / "sorted", a.work / "judge", a.work, a.device, 21, 64, 2)
    train.write_json(a.work / "base.json", report)
    from PIL import Image
    rows = [clips[0], *videos.flatten(0, 1)[:12]]
    sheet = ((torch_cat(rows) / 2 + 0.5).clamp(0, 1) * 255).byte().numpy()
    Image.fromarray(sheet).save(a.work / "base.png")


def torch_cat(rows):
    """Clips (T, 3, H, W) as rows of one picture (H * n, W * T, 3)."""
    import torch
    return torch.cat([row.permute(2, 0, 3, 1).flatten(1, 2) for row in rows])


def make_pack(a):
    import pack
    pack.pack(a.work, a.photos, a.out)


def run_at_once(a, parts):
    """Each part in a process of its own, as soon as what it needs is there."""
    done = {p for p in PARTS if (a.work / f"{p}.done").exists() and p not in parts}
    waiting, running, failed = list(parts), {}, []
    while waiting or running:
        for part in list(waiting):
            need = [n for n in PARTS[part] if n in parts or n not in done]
            if any(n in failed for n in need):
                failed.append(part), waiting.remove(part)
            elif len(running) < a.jobs and all(n in done for n in PARTS[part] if n in parts):
                words = [sys.executable, __file__, *a.words, "--only", part, "--jobs", "1"]
                running[part] = subprocess.Popen(words, stdout=open(a.work / f"{part}.log", "w"), stderr=subprocess.STDOUT)
                waiting.remove(part)
        for part, child in list(running.items()):
            if child.poll() is not None:
                del running[part]
                (done.add if child.returncode == 0 else failed.append)(part)
                print(f"{part}: {'done' if child.returncode == 0 else 'FAILED'} after {time.time() - a.start:.0f} s", flush=True)
        time.sleep(0.2)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--hasten", type=float, default=1)
    parser.add_argument("--limit", nargs="*", default=[], metavar="PART=SECONDS", help="end a part's training in time")
    parser.add_argument("--latents", type=int, default=8, help="channels of a latent")
    parser.add_argument("--batch", type=int, default=32, help="clips per step of the UNet")
    parser.add_argument("--patches", type=int, default=2000, help="pieces of photographs kept in memory, 1 MB each")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    a.limit = {part: float(seconds) for part, seconds in (word.split("=") for word in a.limit)}
    a.start, a.words = time.time(), [w for w in sys.argv[1:]]
    if "--only" in a.words:
        at = a.words.index("--only")
        end = next((i for i in range(at + 1, len(a.words)) if a.words[i].startswith("--")), len(a.words))
        a.words = a.words[:at] + a.words[end:]
    todo = [p for p in PARTS if p in a.only and not (a.work / f"{p}.done").exists()]
    if a.jobs > 1:
        sys.exit(1 if run_at_once(a, todo) else 0)
    import torch
    import train
    train.TRIAL = a.hasten < 0.01
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    for part in todo:
        globals()[f"make_{part}"](a)
        (a.work / f"{part}.done").touch()


if __name__ == "__main__":
    main()
