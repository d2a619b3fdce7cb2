#!/usr/bin/env python3
"""Where should the window of steps that carry gradient lie? The demo, at equal updates, each choice at its best rate.

  window.py WORK [--vader ./vader] [--conf launch/conf/demo.yaml] [--updates 50] [--seeds 3] [--rates 3e-3 6e-3 1.2e-2]

Every choice of window.at runs with seed 0 at every rate; the rate whose last third of updates has the highest mean reward is
the choice's own, and runs with the other seeds. Writes WORK/window.json and WORK/window.svg (reward against update, a line
for the mean over the seeds, a band from the lowest seed to the highest) and prints a table. Runs that are in WORK, of
the same settings and the same models, are not made again. No numbers but those of metrics.jsonl are used; how busy the
machine is changes nothing.
"""
import argparse
import json
import subprocess
from pathlib import Path

CHOICES = {  # name: words of the config
    "last step": ["window.at=last"],
    "early step": ["window.at=1"],
    "largest gain": ["window.at=gain"],
    "random, 2 or 3": ["window.at=random", "window.range=[2,3]"],
}
COLOURS = ["#c0392b", "#2c7fb8", "#31a354", "#756bb1"]
SMOOTH = 5


def rewards(options, name, words, seed, rate):
    run = Path(options.work, f"{name.replace(',', '').replace(' ', '-')}.{rate:g}.{seed}")
    words = [f"seed={seed}", f"optim.lr={rate:g}", "optim.half_life=0", f"optim.updates={options.updates}", "preview.every=0",
             "ckpt.every=0", *words]
    asked, settings = Path(f"{run}.asked"), Path(options.conf).read_text() + "\n".join(words)
    made = asked.exists() and asked.read_text() == settings
    # resume goes on with a run that was stopped, and refuses one whose models have changed
    if not made or subprocess.run([options.vader, "resume", run], stdout=subprocess.DEVNULL).returncode:
        subprocess.run(["rm", "-rf", run], check=True)
        asked.write_text(settings)
        subprocess.run([options.vader, "train", options.conf, f"run={run}", *words], check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line)["reward"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def end(curve):
    """Mean reward of the last third."""
    tail = curve[-(len(curve) // 3):]
    return sum(tail) / len(tail)


def smooth(curve):
    return [sum(curve[max(0, i - SMOOTH + 1):i + 1]) / len(curve[max(0, i - SMOOTH + 1):i + 1]) for i in range(len(curve))]


def measure(options):
    found = {}
    for name, words in CHOICES.items():
        tried = {rate: rewards(options, name, words, 0, rate) for rate in options.rates}
        best = max(options.rates, key=lambda rate: end(tried[rate]))
        curves = [tried[best]] + [rewards(options, name, words, seed, best) for seed in range(1, options.seeds)]
        found[name] = {"rate": best, "tried": {f"{r:g}": end(c) for r, c in tried.items()}, "curves": curves,
                       "end": [end(c) for c in curves]}
        print(f"{name:14} rate {best:g}   reward of the last third {sum(found[name]['end']) / options.seeds:.2f}"
              f" [{min(found[name]['end']):.2f}, {max(found[name]['end']):.2f}]   seed 0 at other rates: "
              + ", ".join(f"{r} {v:.2f}" for r, v in found[name]["tried"].items()), flush=True)
    return found


def draw(found, updates):
    """A chart of 720 x 360."""
    lines = {name: [smooth(c) for c in f["curves"]] for name, f in found.items()}
    low = min(min(c) for cs in lines.values() for c in cs)
    left, right, top, bottom = 56, 700, 16, 320

    def x(i):
        return left + (right - left) * i / (updates - 1)

    def y(v):
        return top + (bottom - top) * v / low

    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 360" font-family="sans-serif" font-size="12">',
           '<rect width="720" height="360" fill="white"/>']
    for v in range(0, int(low) - 1, -1):
        out.append(f'<path d="M{left} {y(v):.1f}H{right}" stroke="#ddd"/><text x="{left - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>')
    for i in range(0, updates, 10):
        out.append(f'<text x="{x(i):.1f}" y="{bottom + 18}" text-anchor="middle">{i}</text>')
    out.append(f'<text x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle">update</text>')
    out.append(f'<text x="{right}" y="{bottom - 8}" text-anchor="end">mean reward of an update (running mean of {SMOOTH}); band: lowest to highest seed</text>')
    for n, (colour, (name, curves)) in enumerate(zip(COLOURS, lines.items())):
        high = [max(c[i] for c in curves) for i in range(updates)]
        lows = [min(c[i] for c in curves) for i in range(updates)]
        mean = [sum(c[i] for c in curves) / len(curves) for i in range(updates)]
        band = [f"{x(i):.1f} {y(v):.1f}" for i, v in enumerate(high)] + [f"{x(i):.1f} {y(lows[i]):.1f}" for i in range(updates - 1, -1, -1)]
        out.append(f'<path d="M{"L".join(band)}Z" fill="{colour}" opacity="0.15"/>')
        out.append(f'<path d="M{"L".join(f"{x(i):.1f} {y(v):.1f}" for i, v in enumerate(mean))}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{left + 12}" y="{top + 16 * (n + 1)}" fill="{colour}">{name} (rate {found[name]["rate"]:g})</text>')
    return "\n".join(out + ["</svg>\n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work")
    parser.add_argument("--vader", default="./vader")
    parser.add_argument("--conf", default="launch/conf/demo.yaml")
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 6e-3, 1.2e-2])
    options = parser.parse_args()
    Path(options.work).mkdir(parents=True, exist_ok=True)
    found = measure(options)
    Path(options.work, "window.json").write_text(json.dumps(found))
    Path(options.work, "window.svg").write_text(draw(found, options.updates))


if __name__ == "__main__":
    main()
