#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares a checkpoint with a copy that went through a container: names, files and their order, dtypes, shapes and bytes of all
tensors, the index, and the other files.  Standard library only.

    sametensors.py [--allow-missing PREFIX,...] CHECKPOINT COPY

COPY may lack the tensors whose names, or what follows a dot in them, begin with a PREFIX, and buffers called inv_freq."""
import json, os, struct, sys

allowed = []
args = sys.argv[1:]
if args[0] == "--allow-missing":
    allowed, args = args[1].split(","), args[2:]

def load(d):
    """name -> (file, dtype, shape, where its bytes begin in the file, how many they are)"""
    out = {}
    for f in sorted(os.listdir(d)):
        if not f.endswith(".safetensors"):
            continue
        with open(os.path.join(d, f), "rb") as fh:
            n = struct.unpack("<Q", fh.read(8))[0]
            h = json.loads(fh.read(n))
        h.pop("__metadata__", None)
        for name, t in sorted(h.items(), key=lambda kv: kv[1]["data_offsets"]):
            out[name] = (f, t["dtype"], t["shape"], 8 + n + t["data_offsets"][0], t["data_offsets"][1] - t["data_offsets"][0])
    return out

def read(d, t):
    with open(os.path.join(d, t[0]), "rb") as fh:
        fh.seek(t[3])
        return fh.read(t[4])

a, b = load(args[0]), load(args[1])
missing = [n for n in a if n not in b and not any(n.startswith(p) or ("." + p) in n for p in allowed) and "inv_freq" not in n]
assert not missing, f"missing: {missing[:3]}"
assert not [n for n in b if n not in a], "extra tensors"
assert [n for n in a if n in b] == list(b), "the tensors stand in another order"
for n, t in b.items():
    assert a[n][:3] == t[:3], f"{n}: {a[n][:3]} != {t[:3]}"
    assert read(args[0], a[n]) == read(args[1], t), f"{n}: the bytes differ"
files = {t[0] for t in a.values()}
index = "model.safetensors.index.json"
if os.path.exists(os.path.join(args[0], index)):
    x, y = (json.load(open(os.path.join(d, index)))["weight_map"] for d in args)
    assert {k: v for k, v in x.items() if k in b} == y, "the indexes differ"
for f in os.listdir(args[0]):
    if f.endswith((".json", ".model")) and f != index:
        assert open(os.path.join(args[0], f), "rb").read() == open(os.path.join(args[1], f), "rb").read(), f
print(f"sametensors: {len(b)} tensors in {len(files)} files")
