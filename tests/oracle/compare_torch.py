#!/usr/bin/env python3
"""vader and its twin in PyTorch (vader_torch.py) on one config: the same numbers, time per update, memory, reward curves.

  compare_torch.py CONF [key=value …]                      agreement of five updates, then time and memory in turns
  compare_torch.py CONF --only agree|speed|curves [...]    one of the three; curves: --seeds 5 --updates 50
  compare_torch.py CONF --cases FILE                       agreement under every line of settings of a file (torch_cases.txt)
  options: --vader ./vader --python build/oracle/bin/python --work DIR --json FILE --rounds 3 --updates N --threads 2
           --twin "--layout nchw --checkpoint both"        options of vader_torch.py: then none is tried out

agree   Both make five updates from the same config and seed. Reward, gradient norm and the adapter after every update agree
        to 1e-3 relative (adapter: L2 of all matrices; B alone, all of which was learned, is shown beside it). PyTorch computes
        without channels last here, which is nearer to float64. Where they do not agree it is run again with channels last: how
        far PyTorch is from itself by then is printed, too.
speed   What makes PyTorch fastest on this machine is tried out first: memory layout, waiting threads that sleep, a malloc
        that keeps its memory. Then runs of both take turns (A B A B …), each a fresh process; what is timed begins when the
        first update is complete, so that loading, compiling and warming up are left out, and ends before vader's sampler
        runs out of work, so that its last updates do not flatter it. Time per update is wall time; processor time is shown
        beside it, because it says what a busy machine hides. Memory is the largest sum over all processes of the program at
        one moment of their proportional set sizes: pages that processes share count once. For PyTorch, one process, it is
        the resident set. Bars: our time at most 0.5 x, our memory at most 0.6 x. How much of PyTorch's memory is there when
        its libraries are loaded and nothing has been done is shown, too.
curves  Both make --updates updates for seeds 0 .. --seeds - 1. Each program's mean reward lies within the other's range over
        the seeds at every update, each curve being averaged over --smooth updates.

Exit status 0: everything that was asked for holds. Leave the machine alone while it times.
"""
import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import numpy as np

import compare
import twin_config

HERE = Path(__file__).resolve().parent
TOLERANCE, TIME_BAR, MEMORY_BAR, AGREE = 1e-3, 0.5, 0.6, 5
TICKS, POLL_S, LOOK_AGAIN, DEADLINE_S = os.sysconf("SC_CLK_TCK"), 0.2, 10, 7200


# ---- Watching a program --------------------------------------------------------------------------------------

def session(leader):
    """{pid: name} of a session's processes."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text()
            except OSError:         # it has just ended
                continue
            if int(text[text.rindex(")") + 2:].split()[3]) == leader:
                found[int(entry.name)] = text[text.index("(") + 1:text.rindex(")")]
    return found


def usage(pid):
    """(processor seconds, bytes by kind: Rss, Pss, Pss_Anon, Pss_File, Pss_Shmem) of a process; None once it has ended."""
    try:
        fields, rollup = Path(f"/proc/{pid}/stat").read_text(), Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    user, system = fields[fields.rindex(")") + 2:].split()[11:13]
    kinds = {name: int(kb) * 1024 for name, kb in re.findall(r"^(Rss|Pss|Pss_Anon|Pss_File|Pss_Shmem):\s+(\d+) kB", rollup, re.M)}
    return ((int(user) + int(system)) / TICKS, kinds) if kinds else None


class Watched:
    """A command in a session of its own, polled while it runs: memory, and the processor time spent when each line of `run`'s
    metrics came."""

    def __init__(self, command, run, env=None):
        self.run, self.spent_at, self.peak, self.at_peak, self.spent = Path(run), [], 0, {}, {}
        with tempfile.TemporaryFile("w+") as log:
            child = subprocess.Popen([str(x) for x in command], stdout=log, stderr=log, start_new_session=True, env=env)
            stop = threading.Event()
            watcher = threading.Thread(target=self.watch, args=(child.pid, stop))
            watcher.start()
            try:
                child.wait(DEADLINE_S)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                raise
            finally:
                stop.set()
                watcher.join()
            log.seek(0)
            if child.returncode:
                sys.exit(f"{' '.join(map(str, command))}\nended with {child.returncode}:\n{log.read()[-4000:]}")

    def watch(self, leader, stop):
        names, polls, metrics = {}, 0, self.run / "metrics.jsonl"
        while not stop.wait(POLL_S):
            if polls % LOOK_AGAIN == 0:
                names = session(leader)
            polls += 1
            seen = {pid: used for pid in names if (used := usage(pid))}
            self.spent.update({pid: seconds for pid, (seconds, _) in seen.items()})
            total = sum(kinds["Pss"] for _, kinds in seen.values())
            if total > self.peak:
                self.peak, self.at_peak = total, {f"{names[pid]}.{pid}": kinds for pid, (_, kinds) in seen.items()}
            lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            self.spent_at += [sum(self.spent.values())] * (lines - len(self.spent_at))

    def per_update(self, last):
        """Wall and processor seconds per update, from the end of the first to the end of update `last`."""
        seconds = [json.loads(line)["seconds"] for line in (self.run / "timing.jsonl").read_text().splitlines()]
        return sum(seconds[1:last]) / (last - 1), (self.spent_at[last - 1] - self.spent_at[0]) / (last - 1)


def table(watched):
    for name, m in sorted(watched.at_peak.items()):
        kinds = ", ".join(f"{kind.lower()} {m.get('Pss_' + kind, 0) / 1e6:.0f}" for kind in ("Anon", "File", "Shmem"))
        print(f"    {name.rsplit('.', 1)[0]:18s} {m['Pss'] / 1e6:7.0f} MB  ({kinds})")


# ---- The two programs ----------------------------------------------------------------------------------------

class Programs:
    def __init__(self, args):
        self.args, self.work, self.case = args, args.work, []
        self.work.mkdir(parents=True, exist_ok=True)

    def settings(self):
        return self.args.settings + self.case

    def vader(self, updates, *settings):
        run = self.work / "vader"
        shutil.rmtree(run, ignore_errors=True)
        words = [f"run={run}", f"optim.updates={updates}", "preview.every=0", "ckpt.every=0", *self.settings(), *settings]
        return run, Watched([self.args.vader, "train", self.args.conf, *words], run)

    def twin(self, updates, *options, env=None):
        run, options = self.work / "twin", [str(x) for x in options]
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        settings = [x for x in options if "=" in x]
        words = [self.args.conf, *self.settings(), *settings, "--updates", updates, "--threads", self.args.threads,
                 "--out", run / "metrics.jsonl", "--timing", run / "timing.jsonl", *self.args.twin.split(),
                 *(x for x in options if x not in settings)]
        threads = {name: str(self.args.threads) for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS")}
        return run, Watched([self.args.python, HERE / "vader_torch.py", *words], run, {**os.environ, **threads, **(env or {})})

    def imports(self):
        """Resident bytes of a Python that has loaded the libraries and a folder's configs, and nothing else."""
        code = ("import torch, diffusers, transformers, peft\nfrom diffusers import UNetSpatioTemporalConditionModel, AutoencoderKLTemporalDecoder\n"
                "from transformers import CLIPVisionModelWithProjection, VideoMAEForVideoClassification\n"
                "import re; print(re.search(r'Rss:\\s+(\\d+)', open('/proc/self/smaps_rollup').read())[1])")
        done = subprocess.run([self.args.python, "-c", code], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1]) * 1024


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def relative(a, b):
    return abs(a - b) / max(abs(b), 1e-300)


# ---- Agreement -----------------------------------------------------------------------------------------------

def adapter_of_bundle(run, update, into):
    with tarfile.open(run / "ckpt" / f"step-{update:06d}.tar") as tar:
        into.write_bytes(tar.extractfile("peft/adapter_model.safetensors").read())
    return compare.read(into)


def distance(ours, theirs, which):
    """Relative L2 over all matrices of a kind that the twin has; those it has not are dead, and zero or unused in ours."""
    keys = [key for key in theirs if which in key]
    gap = sum(float(np.square(ours[key].astype(np.float64) - theirs[key]).sum()) for key in keys)
    return (gap / sum(float(np.square(theirs[key].astype(np.float64)).sum()) for key in keys)) ** 0.5


def with_adapters(run, adapters):
    """The lines of a run's metrics, each with the adapter after it."""
    return list(zip(lines(run), adapters, strict=True))


def differences(ours, theirs):
    rows = []
    for (a, mine), (b, other) in zip(ours, theirs, strict=True):
        row = {name: relative(a[name], b[name]) for name in b if name not in ("update", "samples")}
        rows.append({**row, "adapter": distance(mine, other, "lora_"), "adapter.B": distance(mine, other, "lora_B")})
    return rows


def show(title, rows):
    print(f"{title}: relative differences after each update\n{'':6s}  " + " ".join(f"{name[:11]:>11s}" for name in rows[0]))
    for u, row in enumerate(rows, 1):
        print(f"{u:6d}  " + " ".join(f"{x:11.1e}" for x in row.values()), flush=True)


def agree(programs, out):
    def twin(*options):
        run, _ = programs.twin(AGREE, "--adapters", programs.work / "twin", *options)
        return with_adapters(run, [compare.read(run / f"step-{u:06d}.safetensors") for u in range(1, AGREE + 1)])

    run, _ = programs.vader(AGREE, "ckpt.every=1")
    vader = with_adapters(run, [adapter_of_bundle(run, u, programs.work / "adapter.safetensors") for u in range(1, AGREE + 1)])
    torch = twin(*([] if programs.args.twin else ["--layout", "nchw"]))
    rows = differences(vader, torch)
    show("vader and PyTorch", rows)
    held = [row[name] for row in rows for name in ("reward", "grad_norm", "adapter")]
    worst, good = max(held), all(x <= TOLERANCE for x in held)      # a NaN is not good
    print(f"reward, gradient norm, adapter: {worst:.1e} at most, {'within' if good else 'NOT within'} {TOLERANCE:g}\n")
    out["agree"] = {"vader": [line for line, _ in vader], "torch": [line for line, _ in torch], "differences": rows, "worst": worst, "good": good}
    if not good and not programs.args.twin:
        show("PyTorch with channels last and PyTorch without", differences(twin(), torch))
    return good


VJEPA = ["reward.0.model=vjepa", "reward.0.path=tests/data/tiny-vjepa", "reward.0.form=score", "reward.0.class="]


def cases(programs, out):
    """agree for every line of a file: settings in which ~ stands for a space, V for the V-JEPA reward."""
    failed = 0
    out["cases"] = {}
    for line in programs.args.cases.read_text().splitlines():
        if not line.startswith("#"):
            programs.case = [x for word in line.split() for x in (VJEPA if word == "V" else [word.replace("~", " ")])]
            print(f"== {line}", flush=True)
            failed += not agree(programs, out["cases"].setdefault(line, {}))
    print(f"{len(out['cases'])} cases, {failed} failed")
    return not failed


# ---- Time and memory -----------------------------------------------------------------------------------------

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 34), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def tune(programs):
    """(options, environment) with which PyTorch is fastest here: each is kept if it gains 2 %."""
    options, env, best = [], {}, None
    for name, more, also in (("channels last", [], {}), ("nchw", ["--layout", "nchw"], {}), ("threads sleep", [], {"OMP_WAIT_POLICY": "PASSIVE"}),
                             ("malloc keeps memory", [], MALLOC)):
        wall = programs.twin(3, *options, *more, "optim.rollouts=1", env={**env, **also})[1].per_update(3)[0]
        taken = best is None or wall < 0.98 * best
        print(f"  trying PyTorch, {name:20s} {wall:8.3f} s per rollout{'' if taken else ', not taken'}", flush=True)
        if taken:
            options, env, best = options + more, {**env, **also}, wall
    return options, env


def speed(programs, out):
    args, lag = programs.args, twin_config.load(programs.args.conf, programs.settings())["optim.lag"]
    last, busy = 1 + (args.updates or 4), os.getloadavg()[0]
    if busy > 0.5:
        print(f"the machine is busy (load {busy:.1f}): the wall times below are not to be quoted")
    options, env = ([], {}) if args.twin else tune(programs)
    turns = {"vader": [], "PyTorch": []}
    for _ in range(args.rounds):
        for name, turn in (("PyTorch", lambda: programs.twin(last, *options, env=env)), ("vader", lambda: programs.vader(last + lag))):
            watched = turn()[1]
            wall, cpu = watched.per_update(last)
            rss = sum(kinds["Rss"] for kinds in watched.at_peak.values())
            turns[name].append({"wall_s": wall, "cpu_s": cpu, "bytes": rss if name == "PyTorch" else watched.peak, "watched": watched})
            print(f"  {name:8s} {wall:8.3f} s per update, {cpu:8.3f} s of processors, {turns[name][-1]['bytes'] / 1e6:7.0f} MB", flush=True)
    for name in turns:
        print(f"  {name}, at its peak:")
        table(turns[name][-1]["watched"])
    middle = {name: {key: statistics.median(t[key] for t in rounds) for key in ("wall_s", "cpu_s", "bytes")} for name, rounds in turns.items()}
    ratio = {key: middle["vader"][key] / middle["PyTorch"][key] for key in middle["vader"]}
    base = programs.imports()
    print(f"PyTorch's libraries alone: {base / 1e6:.0f} MB; memory beyond that: vader / PyTorch {middle['vader']['bytes'] / (middle['PyTorch']['bytes'] - base):.2f}")
    good = ratio["wall_s"] <= TIME_BAR and ratio["bytes"] <= MEMORY_BAR
    print(f"vader / PyTorch: time {ratio['wall_s']:.2f} (bar {TIME_BAR}), processor time {ratio['cpu_s']:.2f}, memory {ratio['bytes']:.2f} (bar {MEMORY_BAR}): "
          f"{'both bars met' if good else 'NOT met'}\n")
    clean = {name: [{**{k: v for k, v in t.items() if k != "watched"}, "processes": t["watched"].at_peak} for t in rounds] for name, rounds in turns.items()}
    out["speed"] = {"load": busy, "torch": {"options": options, "environment": env}, "turns": clean, "median": middle, "ratio": ratio, "libraries_bytes": base, "good": good}
    return good


# ---- Reward curves -------------------------------------------------------------------------------------------

def smooth(curves, width):
    kernel = np.ones(width) / width
    return np.stack([np.convolve(c, kernel, "valid") for c in curves])


def curves(programs, out):
    args, found = programs.args, {"vader": [], "PyTorch": []}
    updates = args.updates or 50
    for seed in range(args.seeds):
        for name, turn in (("PyTorch", programs.twin), ("vader", programs.vader)):
            found[name].append([line["reward"] for line in lines(turn(updates, f"seed={seed}")[0])])
            print(f"  seed {seed}, {name:8s} reward {found[name][-1][0]:.4f} -> {np.mean(found[name][-1][-args.smooth:]):.4f}", flush=True)
    flat = {name: smooth(np.array(c), min(args.smooth, updates)) for name, c in found.items()}
    stats = {name: (c.mean(0), c.min(0), c.max(0)) for name, c in flat.items()}
    inside = np.ones(len(stats["vader"][0]), bool)
    for mine, other in (("vader", "PyTorch"), ("PyTorch", "vader")):
        inside &= (stats[mine][0] >= stats[other][1]) & (stats[mine][0] <= stats[other][2])
    print(f"{'update':>7s} {'vader mean':>11s} {'[lowest, highest]':>22s} {'PyTorch mean':>13s} {'[lowest, highest]':>22s}")
    for i in sorted({*range(0, len(inside), max(1, len(inside) // 10)), len(inside) - 1}):
        text = lambda name: "{:11.4f} [{:9.4f}, {:9.4f}]".format(*(s[i] for s in stats[name]))
        print(f"{i + 1:7d} {text('vader')} {text('PyTorch'):>37s} {'' if inside[i] else 'OUTSIDE'}")
    good = bool(inside.all())
    print(f"{args.seeds} seeds, curves averaged over {min(args.smooth, updates)} updates: each mean lies within the other's range at "
          f"{int(inside.sum())} of {len(inside)} places\n")
    out["curves"] = {"seeds": args.seeds, "smooth": args.smooth, "rewards": found, "inside": inside.tolist(), "good": good,
                     **{name: {k: s.tolist() for k, s in zip(("mean", "low", "high"), stats[name])} for name in stats}}
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conf", type=Path)
    parser.add_argument("settings", nargs="*", help="key=value, for both")
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--only", choices=("agree", "speed", "curves"))
    parser.add_argument("--vader", default="./vader")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--twin", default="", help="more options for vader_torch.py")
    parser.add_argument("--work", type=Path, default=Path("build/bench-demo-torch"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, help="timed ones (4), or of a curve (50)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--smooth", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_intermixed_args()
    programs, out = Programs(args), {"conf": str(args.conf), "settings": args.settings}
    parts = [cases] if args.cases else [{"agree": agree, "speed": speed, "curves": curves}[args.only]] if args.only else [agree, speed]
    good = [part(programs, out) for part in parts]
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
