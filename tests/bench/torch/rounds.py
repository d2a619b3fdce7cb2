#!/usr/bin/env python3
"""Runs PyTorch and vader on the same small UNet, turn by turn, and prints both times, both peak memories, the ratios.

  rounds.py DIR --python PYTHON [--vader ./vader] [--rounds 3] [--runs 5] [--threads 2]

Each turn is a process of its own, so that its peak memory is its own: the kernel's figure for vader, too. Times are
of a warm forward and backward, without loading: PyTorch's median of --runs, and what `vader forward --repeat` prints
(in a line with "forward", "backward", "total" or "median", milliseconds or seconds). Then both are compared with
float64. Standard library only; --python is an interpreter with torch.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
TIME = r"{}\b[^0-9\n]*([0-9]+(?:\.[0-9]+)?)\s*(ns|us|µs|ms|s)\b"


def torch_turn(args, layout, runs):
    command = [args.python, HERE / "bench_unet.py", "time", args.folder, "--layout", layout, "--threads", str(args.threads), "--runs", str(runs)]
    done = subprocess.run([*map(str, command), *(["--grad-inputs"] if args.grad_inputs else [])], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def vader_run(args, backward):
    """(seconds it printed by name, peak MB, wall seconds, its text) of one `vader forward`, with or without cotangent."""
    d = args.folder
    command = [args.vader, "forward", d / "unet", "--in", d / "inputs.safetensors", "--out", d / ("vader.safetensors" if backward else "vader-forward.safetensors"),
               *(["--cotangent", d / "cotangent.safetensors"] if backward else []), "--lora", d / "lora", "--threads", str(args.threads), *args.vader_args]
    with tempfile.TemporaryFile("w+") as log:
        begin = time.perf_counter()
        child = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        text = log.read()
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nended with {child.returncode}:\n{text}")
    found = {}
    for what in ("forward", "backward", "total", "median"):
        times = [float(value) * SECONDS[unit] for value, unit in re.findall(TIME.format(what), text, re.IGNORECASE)]
        if times:
            found[what] = statistics.median(times)
    return found, usage.ru_maxrss * 1024 / 1e6, wall, text


def vader_turn(args):
    """One turn of vader. It may print forward and backward apart, or one median of both: then a second process without
    a cotangent gives the forward alone, and the backward is what is left."""
    found, peak, wall, text = vader_run(args, True)
    forward, backward, total = found.get("forward"), found.get("backward"), found.get("total", found.get("median"))
    if forward is not None and backward is not None:
        total = forward + backward
    elif total is not None:
        alone = vader_run(args, False)[0]
        forward = alone.get("total", alone.get("median"))
        backward = total - forward if forward is not None else None
    return {"forward_s": forward, "backward_s": backward, "total_s": total, "wall_s": wall, "peak_mb": peak, "text": text}


def line(name, turns):
    middle = lambda key: statistics.median(t[key] for t in turns) if all(t.get(key) is not None for t in turns) else float("nan")
    print(f"{name:30s} {middle('forward_s'):9.3f} {middle('backward_s'):9.3f} {middle('total_s'):9.3f} {middle('peak_mb'):9.0f}", flush=True)
    return middle("total_s"), middle("peak_mb")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--vader", default="./vader")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--grad-inputs", action="store_true", help="PyTorch also computes the inputs' gradients")
    parser.add_argument("vader_args", nargs="*", help="more arguments for vader forward, after --")
    args = parser.parse_args()

    ready = os.access(args.vader, os.X_OK)
    if os.getloadavg()[0] > 0.5:
        print(f"the machine is busy (load {os.getloadavg()[0]:.1f}): the times below are not to be quoted")
    if ready:
        known = subprocess.run([args.vader, "forward", "--help"], capture_output=True, text=True)
        if "--repeat" in known.stdout + known.stderr and "--repeat" not in args.vader_args:
            args.vader_args += ["--repeat", str(args.runs)]
    first = {layout: torch_turn(args, layout, max(2, args.runs // 2)) for layout in ("nchw", "channels_last")}
    layout = min(first, key=lambda name: first[name]["best_s"])
    print("PyTorch, best of each layout: " + ", ".join(f"{name} {turn['best_s']:.2f} s" for name, turn in first.items()) + f"; taking {layout}")

    torch_turns, vader_turns = [], []
    for _ in range(args.rounds):
        torch_turns.append(torch_turn(args, layout, args.runs))
        if ready:
            vader_turns.append(vader_turn(args))
    print(f"\n{args.threads} threads, median of {args.rounds} turns{'':11s}forward  backward  together   peak MB")
    torch_total, torch_peak = line(f"PyTorch ({layout})", torch_turns)
    if not ready:
        sys.exit(f"{args.vader} is not built: no comparison")
    total, peak = line("vader", vader_turns)
    if total != total:
        print(f"vader printed no times; with loading it took {statistics.median(t['wall_s'] for t in vader_turns):.3f} s. It said:\n{vader_turns[-1]['text']}")
    print(f"{'PyTorch / vader':30s} {'':9s} {'':9s} {torch_total / total:8.2f}x {torch_peak / peak:8.2f}x")
    print("range of both together: PyTorch " + " ".join(f"{t['total_s']:.2f}" for t in torch_turns) +
          "; vader " + " ".join(f"{t['total_s']:.2f}" for t in vader_turns if t["total_s"]))

    compare = [args.python, HERE.parents[1] / "oracle" / "compare.py", args.folder / "golden.safetensors"]
    for name, path in (("PyTorch", "torch.safetensors"), ("vader", "vader.safetensors")):
        print(f"\n{name} against float64:", flush=True)
        status = subprocess.run([*map(str, compare), str(args.folder / path), "--some"]).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
