#!/usr/bin/env python3
"""Fetches the photographs of photos.tsv and writes them as OUT_DIR/<id>.webp, with a copy of the table.

  photos.py OUT_DIR        needs Debian 12 (apt-get, dpkg-deb) and Pillow (written with 13.0); nothing is installed

The packages are kept in build/photos and fetched again only if they are not there in the version of the table. A long side
of more than 2048 px becomes 2048 (Lanczos). The same Pillow writes the same bytes each time.

In photos.tsv, min_side is the short side inside the package, and flat the part of the photograph that shows no motion: of its
64 px tiles at a long side of 1024, those in which neighbours differ by less than 1.5 of 255 on average, in x or in y.
"""
import csv
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[2] / "build/photos"
LONG_SIDE = 2048
QUALITY = 90


def rows():
    """The table: a list of dictionaries, in order; two rows never share an id or a picture."""
    with open(HERE / "photos.tsv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for keys in (["id"], ["package", "path"]):
        seen = [tuple(row[key] for key in keys) for row in table]
        if len(set(seen)) != len(seen):
            sys.exit(f"photos.tsv: want each {' and '.join(keys)} once, found {sorted(x for x in seen if seen.count(x) > 1)}")
    for row in table:
        if row["split"] not in ("train", "held-out"):
            sys.exit(f"photos.tsv: {row['id']}: want split train or held-out, found {row['split']!r}")
    return table


def cached(package, version):
    """The package's file in the cache, or None."""
    for deb in sorted(CACHE.glob(f"{package}_*.deb")):
        got = subprocess.run(["dpkg-deb", "-f", deb, "Version"], capture_output=True, text=True, check=True).stdout.strip()
        if got == version:
            return deb
    return None


def fetch(package, version):
    """The package's file, from the cache or from the archive that apt-get knows."""
    deb = cached(package, version)
    if deb:
        return deb
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"fetching {package} {version}", flush=True)
    done = subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=CACHE, capture_output=True, text=True)
    deb = cached(package, version)
    if done.returncode or not deb:
        sys.exit(f"{package}: want version {version}, as in photos.tsv; apt-get download: {done.stderr.strip() or 'no file'}")
    return deb


def write(row, file, out):
    """One photograph: checked, made smaller, written."""
    with Image.open(file) as image:
        if min(image.size) != int(row["min_side"]):
            sys.exit(f"{row['id']}: want a short side of {row['min_side']}, found {image.size} in {row['package']}: {row['path']}")
        image = image.convert("RGB")
    scale = LONG_SIDE / max(image.size)
    if scale < 1:
        image = image.resize([round(side * scale) for side in image.size], Image.LANCZOS)
    image.save(out / f"{row['id']}.webp", quality=QUALITY, method=4)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    table = rows()
    missing = {row["id"]: row for row in table}
    for package, version in sorted({(row["package"], row["version"]) for row in table}):
        wanted = {row["path"]: row for row in table if (row["package"], row["version"]) == (package, version)}
        dpkg = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", fetch(package, version)], stdout=subprocess.PIPE)
        with tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar:
            for member in tar:
                row = wanted.get(member.name.removeprefix("./"))
                if row and member.isfile():
                    write(row, tar.extractfile(member), out)
                    del missing[row["id"]]
        dpkg.stdout.close()
        if dpkg.wait():
            sys.exit(f"{package}: dpkg-deb --fsys-tarfile ended with {dpkg.returncode}")
    if missing:
        sys.exit("".join(f"{row['id']}: no {row['path']} in {row['package']} {row['version']}\n" for row in missing.values()).strip())
    shutil.copyfile(HERE / "photos.tsv", out / "photos.tsv")
    held_out = sum(row["split"] == "held-out" for row in table)
    print(f"{len(table)} photographs in {out}: {len(table) - held_out} to train on, {held_out} held out")


main()
