#!/usr/bin/env python3
"""Compares a file of outputs and gradients with a case's golden.safetensors, tensor by tensor.

  compare.py CASE_DIR Y.safetensors [--call NAME] [--all]

Relative L2, |a - b| / |b|. out.* 1e-5, grad.* 1e-4, grad.w.*mix_factor 1e-3. A gradient that is exactly zero by
construction (to_q and to_k of every attn2: the context is one token; a bias in front of a norm with one channel per
group) is compared with the largest gradient of its kind: 1e-6 of that. Names in Y are those of golden.safetensors; with --call NAME, names that lack the call's name
are looked up with it (out.z -> out.decode.z). A tensor that Y does not hold is an error unless --some is given.
Needs only numpy. Exit status 0: all within tolerance.
"""
import argparse
import json
import re
import struct
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "u1"}


def read(path):
    """A safetensors file as {name: array}."""
    data = Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, base, out = json.loads(data[8:8 + size]), 8 + size, {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (base + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            x = (np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16).view("<f4")
        else:
            x = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]])
        out[name] = x.reshape(entry["shape"])
    return out


def group_of(name):
    """Tensors that are reported together, and share a largest gradient: the name up to its second or third dot."""
    words = name.split(".")
    if words[0] == "grad" and words[1] in ("w", "lora"):
        if words[1] == "lora":
            call = "" if words[2] == "base_model" else words[2] + "."
            return f"grad.lora.{call}{words[-2]}"
        return "grad.w." + ("mix_factor" if words[-1] == "mix_factor" else ".".join(words[-2:]) if words[-2] != "0" else ".".join(words[-3:]))
    return ".".join(words[:2])


def always_zero(name):
    """Gradients that vanish by construction."""
    return bool(re.search(r"^grad\.(w|lora)\..*\battn2\.to_[qk]\.", name))


def differences(ours, golden, tolerance_out=1e-5, tolerance_grad=1e-4, tolerance_mix=1e-3, zero=1e-6, some=False):
    """(failures, rows): lines of text, and (group, error, limit, name) per compared tensor."""
    array = lambda x: np.asarray(x.detach() if hasattr(x, "detach") else x, dtype=np.float64).reshape(-1)
    largest, rows, failures = defaultdict(float), [], []
    for name, want in golden.items():
        if name.startswith("grad."):
            largest[group_of(name)] = max(largest[group_of(name)], np.linalg.norm(array(want)))
    for name in sorted(golden):
        if name not in ours:
            if not some:
                failures.append(f"{name}: missing")
            continue
        got, want, group = array(ours[name]), array(golden[name]), group_of(name)
        if got.shape != want.shape:
            failures.append(f"{name}: {got.size} numbers, want {want.size}")
            continue
        limit = tolerance_out if name.startswith("out.") else tolerance_mix if name.endswith("mix_factor") else tolerance_grad
        norm, error = np.linalg.norm(want), np.linalg.norm(got - want)
        if always_zero(name) or norm <= 1e-10 * largest[group_of(name)]:        # all there is is rounding of float64
            group, limit = group + " (zero)", zero
            error /= largest[group_of(name)] or 1.0
        else:
            error /= norm
        rows.append((group, error, limit, name))
        if not error <= limit:
            failures.append(f"{name}: {error:.2e}, allowed {limit:.0e}")
    return failures, rows


def report(title, ours, golden, every=False, **limits):
    """Prints the worst error per group; True when all are within tolerance."""
    failures, rows = differences(ours, golden, **limits)
    print(f"{title}: {'ok' if not failures else 'DIFFERS'}, {len(rows)} of {len(golden)} tensors")
    groups = defaultdict(list)
    for group, *row in rows:
        groups[group].append(row)
    for group in sorted(groups):
        for error, limit, name in sorted(groups[group], key=lambda row: row[2]) if every else []:
            print(f"  {error:9.2e} / {limit:.0e}  {name}")
        error, limit, name = max(groups[group], key=lambda row: (row[0] != row[0], row[0]))     # a NaN is the worst
        print(f"  {error:9.2e} / {limit:.0e}  {group:44s} {len(groups[group]):4d} tensors, worst {name}")
    for line in failures[:20]:
        print("  FAIL " + line)
    if len(failures) > 20:
        print(f"  FAIL … and {len(failures) - 20} more")
    return not failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="a case folder, or a golden.safetensors")
    parser.add_argument("file", type=Path, help="what `vader forward` wrote")
    parser.add_argument("--call", default="", help="only this call of the case")
    parser.add_argument("--some", action="store_true", help="compare what the file holds, do not ask for the rest")
    parser.add_argument("--all", action="store_true", help="print every tensor")
    args = parser.parse_args()
    golden = read(args.case / "golden.safetensors" if args.case.is_dir() else args.case)
    golden = {name: x for name, x in golden.items() if name.startswith(("out.", "grad."))}
    ours = read(args.file)
    if args.call:
        meta = json.loads((args.case / "case.json").read_text())
        chosen, = [c for c in meta["calls"] if c["name"] == args.call]
        patterns = [re.escape(p).replace(r"\*", ".*") + "$" for p in chosen["out"] + chosen["grad"]]
        golden = {name: x for name, x in golden.items() if any(re.match(p, name) for p in patterns)}
        for name in list(golden):
            bare = name.replace(f".{args.call}.", ".", 1)
            if name not in ours and bare in ours:
                ours[name] = ours[bare]
    sys.exit(not report(str(args.case), ours, golden, some=args.some, every=args.all))


if __name__ == "__main__":
    main()
