"""Makes the seeds of fuzz_msg, fuzz_config and fuzz_ledger; needs only Python.

    python tests/oracle/make_run_seeds.py
"""
import os
import struct

here = os.path.dirname(os.path.abspath(__file__))
seeds = os.path.join(here, "../fuzz/seeds")


def put(target, name, content):
    folder = os.path.join(seeds, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(content)


# [kind, stage, replica, incarnation, epoch, value, text]
put("msg", "ready", b"\x97\x06\x01\x00\x00\x05\x03\xa0")
put("msg", "hello", b"\x97\x00\x03\x00\x02\x00\xcd\x12\x34\xa0")
put("msg", "report", b"\x97\x05\x02\x01\xcc\x80\xce\x00\x01\x00\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xd9\x05wrong")
put("msg", "long", b"\x97\x05\x02\x01\x00\x00\x00\xda\x01\x00" + b"x" * 256)

base = b"model: m\ndata.images: [a.png, b.png]\nreward:\n  - {model: videomae, path: p, class: two}\n"
put("config", "base", base)
put("config", "nested", base + b"video:\n  frames: 4\n  segments: 2\nwindow: {at: random, range: [0, 3]}\noptim: {lr: 1e-3, lag: 1}\n")
put("config", "words", base + b"\0optim.lr=0.1\0lora.targets=[to_q,to_k]\0reward.1.model=vjepa\0reward.1.form=score\0reward.1.path=x")
put("config", "quoted", b'model: "a: b # c"\ndata.list: \'it\'\'s\'\nreward:\n- model: vjepa\n  form: score\n  path: |\n    folded\n')

# magic, format, head bytes, payload bytes, parameters, lag, theta versions; version, next sample, metrics bytes,
# numerics, config hash; then theta versions and both moments. The target adds the hash.
head = struct.calcsize("<8sIIQqII") + struct.calcsize("<QQQ512sQ")


def state(version, versions, parameters=8, lag=1):
    payload = struct.pack(f"<{(versions + 2) * parameters}f", *range((versions + 2) * parameters))
    return (struct.pack("<8sIIQqII", b"VADstate", 1, head, len(payload), parameters, lag, versions) +
            struct.pack("<QQQ512sQ", version, version, 100 * version, b"cpu avx2", 7) + payload)


put("ledger", "zero", state(0, 1))
put("ledger", "three", state(3, 2))
put("ledger", "other_model", state(3, 2, parameters=9))
put("ledger", "other_lag", state(3, 4, lag=3))
put("ledger", "no_hash", state(3, 2) + b"0123")
