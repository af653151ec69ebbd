#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""relayout.py: the same model in the other layouts that checkpoints come in.  Standard library only.
overlay FROM TO PATTERN FILE...  each FILE gets a copy of all tensors whose names match.  The index names the first FILE for the first
                                 of these tensors, the second for the second, and the last for the rest; a copy that it does not
                                 name is stale: it has other bytes
prefer FROM TO                   FROM, an overlay, without its stale copies
fuse FROM TO [HOW]               experts in two tensors a layer, as transformers 5 keeps them; HOW: transposed, fp8, short, scaled, twice
rename FROM TO A B               every tensor name with A replaced by B
predict FROM TO N LAYER...       FROM, in one file, with layers for multi-token prediction, 3x without its eh_proj; N is config.json's
                                 num_nextn_predict_layers, "" for none"""
import json, os, re, shutil, struct, sys

INDEX = "model.safetensors.index.json"


def read(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        head, data = json.loads(f.read(n)), f.read()
    meta = head.pop("__metadata__", None)
    return {n: (e["dtype"], e["shape"], data[e["data_offsets"][0]:e["data_offsets"][1]]) for n, e in head.items()}, meta


def write(path, tensors, meta={"format": "pt"}):
    head, at = {"__metadata__": meta} if meta else {}, 0
    for n, (d, s, b) in tensors.items():
        head[n] = {"dtype": d, "shape": s, "data_offsets": [at, at + len(b)]}
        at += len(b)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(b for d, s, b in tensors.values()))


def write_index(to, held):
    with open(os.path.join(to, INDEX), "w") as f:
        json.dump({"metadata": {"total_size": 1}, "weight_map": held}, f, indent=1)


def shards(d):
    return {f: read(os.path.join(d, f)) for f in sorted(os.listdir(d)) if f.endswith(".safetensors")}


def file_of_each(d):
    """tensor name -> the file that the index names for it"""
    if os.path.exists(os.path.join(d, INDEX)):
        return json.load(open(os.path.join(d, INDEX)))["weight_map"]
    return {n: f for f, (t, m) in shards(d).items() for n in t}


def overlay(source, to, pattern, *files):
    shutil.copytree(source, to)
    held, new = file_of_each(source), {}
    for f, (tensors, meta) in shards(source).items():
        for n, t in tensors.items():
            if re.search(pattern, n) and held[n] == f: new[n] = t
        if any(n in new for n in tensors):
            write(os.path.join(to, f), {n: stale(t, 1) if n in new else t for n, t in tensors.items()}, meta)
    assert new, "no tensor matches"
    owner = {n: files[min(k, len(files) - 1)] for k, n in enumerate(new)}
    for k, f in enumerate(files):
        write(os.path.join(to, f), {n: t if owner[n] == f else stale(t, k + 2) for n, t in new.items()})
    held.update(owner)
    write_index(to, held)


def stale(t, how):
    """A copy of a tensor with other bytes."""
    return (t[0], t[1], bytes(b ^ how for b in t[2]))


def prefer(source, to):
    held = file_of_each(source)
    shutil.copytree(source, to)
    for f, (tensors, meta) in shards(source).items():
        write(os.path.join(to, f), {n: t for n, t in tensors.items() if held[n] == f}, meta)


def transposed(data, rows, cols, size):
    return b"".join(data[(r * cols + c) * size:(r * cols + c + 1) * size] for c in range(cols) for r in range(rows))


def fuse(source, to, how=""):
    shutil.copytree(source, to)
    held, c = {}, json.load(open(os.path.join(source, "config.json")))
    c = c.get("text_config", c)
    e, h, i = c["n_routed_experts"], c["hidden_size"], c["moe_intermediate_size"]
    experts = {n: t for f, (ts, m) in shards(source).items() for n, t in ts.items() if ".mlp.experts." in n}
    for f, (tensors, meta) in shards(source).items():
        out = {}
        for n, t in tensors.items():
            p = n.split(".experts.")[0] + ".experts."
            if ".experts." not in n: out[n] = t; continue
            if how == "twice" and n.endswith("experts.1.up_proj.weight"): out[n] = t
            if n != p + "0.gate_proj.weight": continue
            get = lambda k, what: experts["%s%d.%s_proj.weight" % (p, k, what)][2]
            up, down = b"".join(get(k, w) for k in range(e) for w in ("gate", "up")), b"".join(get(k, "down") for k in range(e))
            shapes = [[e, 2 * i, h], [e, h, i]]
            size = len(down) // (e * h * i)
            if how == "transposed":
                split = lambda b, r, c: b"".join(transposed(b[k * r * c * size:(k + 1) * r * c * size], r, c, size) for k in range(e))
                up, down, shapes = split(up, 2 * i, h), split(down, h, i), [[e, h, 2 * i], [e, i, h]]
            dtype, tail = t[0], "_blocks" if how == "scaled" else ""
            if how == "short": shapes[0][0] -= 1; up = up[:len(up) // e * (e - 1)]
            if how == "fp8": dtype, up, down = "F8_E4M3", up[::2], down[::2]
            out[p + "gate_up_proj" + tail], out[p + "down_proj"] = (dtype, shapes[0], up), (dtype, shapes[1], down)
        write(os.path.join(to, f), out, meta)
        held.update({n: f for n in out})
    if os.path.exists(os.path.join(source, INDEX)): write_index(to, held)


def rename(source, to, a, b):
    shutil.copytree(source, to)
    for f, (tensors, meta) in shards(source).items():
        write(os.path.join(to, f), {n.replace(a, b): t for n, t in tensors.items()}, meta)


def predict(source, to, n, *layers):
    shutil.copytree(source, to)
    weights, config = os.path.join(to, "model.safetensors"), os.path.join(to, "config.json")
    tensors, meta = read(weights)
    for l in layers:
        for name in ["enorm", "mlp.experts.0.up_proj"] + ["eh_proj"] * ("x" not in l):
            tensors["model.layers.%s.%s.weight" % (l.strip("x"), name)] = ("F32", [2], bytes(8))
    write(weights, tensors, meta)
    c = json.load(open(config))
    c.pop("num_nextn_predict_layers", None)
    if n: c["num_nextn_predict_layers"] = int(n)
    json.dump(c, open(config, "w"))


if __name__ == "__main__":
    {"overlay": overlay, "prefer": prefer, "fuse": fuse, "rename": rename, "predict": predict}[sys.argv[1]](*sys.argv[2:])
