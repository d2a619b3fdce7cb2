"""Makes tests/common/format/data: checkpoints written by torch.save, and a file by the official safetensors.

    python tests/oracle/make_torch_zip.py [folder]

Values follow from positions (element i of tensor number k is 100 k + i), so that the tests need no second file.
"""
import argparse
import collections
import io
import os
import sys
import zipfile

import torch
from safetensors.torch import save_file

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64, torch.uint8]


def numbered(k, *shape, dtype=torch.float32):
    count = 1
    for n in shape:
        count *= n
    return (100 * k + torch.arange(count)).reshape(shape).to(dtype)


def state_dict():
    """What V-JEPA's and VideoMAE's trainers save, in small: nested dicts, an optimiser, scalars, arguments."""
    encoder = collections.OrderedDict()
    encoder["module.backbone.pos_embed"] = numbered(0, 1, 4, 6)
    encoder["module.backbone.blocks.0.attn.qkv.weight"] = numbered(1, 6, 2)
    target = collections.OrderedDict((k, v + 0.5) for k, v in encoder.items())
    tied = numbered(2, 3, 4)
    return {
        "encoder": encoder,
        "target_encoder": target,
        "views": {"transposed": tied.t(), "row": tied[1], "whole": tied, "column": tied[:, 2],
                  "parameter": torch.nn.Parameter(numbered(3, 5)), "scalar": torch.tensor(7.25),
                  "empty": torch.zeros(0, 3)},
        "types": {str(t).split(".")[1]: numbered(0, 5, dtype=t) for t in TYPES}
                 | {"bool": torch.tensor([True, False, True])},
        "opt": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": numbered(4, 2, 2)}},
                "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0], "fused": None}]},
        "scaler": None, "epoch": 300, "big": 1 << 40, "negative": -5, "loss": 0.125, "name": "vit_tiny",
        "args": argparse.Namespace(lr=1.0, model="tiny"), "size": torch.Size([2, 3]), "dtype": torch.float32,
    }


def rezipped(data, method):
    """The same entries, compressed or not, as `zip -r` after `unzip` would leave them."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as src, zipfile.ZipFile(out, "w", method) as dst:
        for info in src.infolist():
            dst.writestr(zipfile.ZipInfo(info.filename), src.read(info), compress_type=method)
    return out.getvalue()


class Attack:
    def __reduce__(self):
        return os.system, ("echo attacked",)


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x)


def main(folder):
    os.makedirs(folder, exist_ok=True)
    at = lambda name: os.path.join(folder, name)
    torch.save(state_dict(), at("nested.pth.tar"))
    torch.save(state_dict(), at("protocol4.pt"), pickle_protocol=4)
    with open(at("nested.pth.tar"), "rb") as f:
        nested = f.read()
    with open(at("deflated.pt"), "wb") as f:
        f.write(rezipped(nested, zipfile.ZIP_DEFLATED))
    torch.save({"layers.0.weight": numbered(0, 2, 3), "layers.0.bias": numbered(1, 2)}, at("flat.pt"))
    torch.save({"weight": numbered(0, 2)}, at("legacy.pt"), _use_new_zipfile_serialization=False)
    torch.save({"model": Attack()}, at("attack.pt"))
    torch.save(Tiny(), at("module.pt"))
    torch.jit.script(Tiny()).save(at("script.pt"))
    mixed = {"b.half": numbered(0, 3, dtype=torch.float16), "a": numbered(1, 2, 3), "bf": numbered(0, 5, dtype=torch.bfloat16),
             "é": numbered(0, 3, dtype=torch.int64), "empty": torch.zeros(0, 4), "scalar": torch.tensor(3.5, dtype=torch.float64),
             "u8": numbered(0, 3, dtype=torch.uint8), "bool": torch.tensor([True, False, True]),
             "i": numbered(1, 3, dtype=torch.int32)}
    save_file(mixed, at("official.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../common/format/data"))
