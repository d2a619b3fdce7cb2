"""A run's settings for Python: the keys, types and defaults of common/config/config.def, read from that file.

    cfg = load("launch/conf/tiny.yaml", ["optim.updates=5"])
    cfg["optim.lr"], cfg["reward"][0]["path"]

vader judges what a config may hold; here only unknown keys are refused.
"""
import re
from pathlib import Path

import yaml

ROWS = Path(__file__).resolve().parents[2] / "common" / "config" / "config.def"
ROW = re.compile(r'^(INT|REAL|BOOL|STR|ENUM|STRS|INTS)\s*\(\s*\w+\s*,\s*"([^"]*)",\s*("[^"]*"|[^,]+),\s*("[^"]*"|[^,]+),', re.M)
PATHS = {"data.images", "preview.images", "eval.images", "eval.real"}        # lists whose entries are files


def rows(text):
    return {key: (kind, default.strip('"'), choices.strip('"')) for kind, key, default, choices in ROW.findall(text)}


def table():
    """Rows of a run, and rows of one entry of `reward`: {key: (type, default, choices)}."""
    run, reward = ROWS.read_text().split("#else", 1)
    return rows(run), rows(reward)


def convert(row, key, value, folder):
    kind, _, choices = row
    if kind == "INT":
        return int(value)
    if kind == "REAL":
        return float(value)
    if kind == "BOOL":
        return value if isinstance(value, bool) else value == "true"
    file = lambda x: str((folder / x).resolve()) if x and (choices == "path" or key in PATHS) else x
    if kind == "STRS":
        return [file(str(x)) for x in value]
    if kind == "INTS":
        return [int(x) for x in value]
    if kind == "ENUM":
        return choices.split("|")[int(value)] if isinstance(value, int) else str(value)
    return file(str(value))


def defaults(known):
    empty = {"STRS": [], "INTS": []}
    return {key: convert(row, key, empty.get(row[0], row[1] if row[0] != "ENUM" else int(row[1])), Path("/")) for key, row in known.items()}


def flatten(tree, at=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{at}{key}.")
        else:
            yield at + key, value


def fill(known, given, folder, file):
    out = defaults(known)
    for key, value in given:
        if key not in known:
            raise SystemExit(f"{file}: unknown key {key}")
        if value is not None:
            out[key] = convert(known[key], key, value, folder)
    return out


def load(file, settings=()):
    """{key: value} with `reward` a list of such; paths relative to the file (settings: to the working directory)."""
    run, reward = table()
    tree = yaml.safe_load(Path(file).read_text())
    entries = tree.pop("reward", [])
    out = fill(run, flatten(tree), Path(file).resolve().parent, file)
    out["reward"] = [fill(reward, flatten(x), Path(file).resolve().parent, file) for x in entries]
    for word in settings:
        key, _, value = word.partition("=")
        value, match = yaml.safe_load(value), re.match(r"reward\.(\d+)\.(.*)", key)
        if match and match[2] in reward and int(match[1]) < len(out["reward"]):
            out["reward"][int(match[1])][match[2]] = convert(reward[match[2]], match[2], value, Path.cwd())
        elif key in run:
            out[key] = convert(run[key], key, value if value is not None else "", Path.cwd())
        else:
            raise SystemExit(f"unknown key {key}")
    return out
