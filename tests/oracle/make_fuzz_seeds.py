"""Makes the seeds of the weight-format fuzz targets from tests/common/format/data; needs only Python.

    python tests/oracle/make_fuzz_seeds.py
"""
import io
import json
import os
import struct
import zipfile

here = os.path.dirname(os.path.abspath(__file__))
data = os.path.join(here, "../common/format/data")
seeds = os.path.join(here, "../fuzz/seeds")


def put(target, name, content):
    folder = os.path.join(seeds, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(content)


def read(name):
    with open(os.path.join(data, name), "rb") as f:
        return f.read()


def safetensors(header, size):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


put("safetensors", "official", read("official.safetensors"))
put("safetensors", "empty", safetensors({}, 0))
put("safetensors", "two", safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                                       "b": {"dtype": "F32", "shape": [2, 1], "data_offsets": [1, 9]}}, 9))
put("safetensors", "nothing", safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                                           "b": {"dtype": "F32", "shape": [0, 1], "data_offsets": [1, 1]}}, 1))
put("torch_zip", "flat.pt", read("flat.pt"))
put("torch_zip", "deflated.pt", read("deflated.pt"))
for name in ["nested.pth.tar", "protocol4.pt", "flat.pt", "attack.pt"]:
    with zipfile.ZipFile(io.BytesIO(read(name))) as z:
        pkl = next(n for n in z.namelist() if n.endswith("/data.pkl"))
        put("torch_zip", name.split(".")[0] + ".pkl", z.read(pkl))

unet = "UNetSpatioTemporalConditionModel"
index = {"_class_name": "StableVideoDiffusionPipeline", "unet": ["diffusers", unet], "vae": [None, None]}
config = {"_class_name": unet, "in_channels": 8, "block_out_channels": [320, 640], "flag": False}
weights = {"metadata": {"total_size": 8}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
put("model_dir", "svd", b"\0".join(json.dumps(x).encode() for x in (index, config, weights)))
put("model_dir", "plain", b"\0".join(json.dumps(x).encode() for x in ({}, {"architectures": ["A"]}, weights)))
