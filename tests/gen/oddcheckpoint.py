#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""oddcheckpoint.py FROM TO HOW: the checkpoint FROM with its text written in another legal way.  Standard library only.
HOW: spaces (json.dumps), bare (no __metadata__, nothing padded), late (__metadata__ at the end, with more in it), shuffled (names in
another order than the data, keys of entries too), loose (newlines, tabs, escaped names, many spaces after the header)."""
import json, os, random, shutil, struct, sys

source, to, how = sys.argv[1:]
rng = random.Random(5)


def header(h):
    meta = h.pop("__metadata__", None)
    names = list(h)
    if how == "shuffled":
        rng.shuffle(names)
        return json.dumps({n: dict(rng.sample(list(h[n].items()), 3)) for n in names}, separators=(",", ":")) + " "
    if how == "spaces":
        return json.dumps({"__metadata__": meta, **h} if meta else h)
    if how == "bare":
        return json.dumps(h, separators=(",", ":"))
    if how == "late":
        return json.dumps({**h, "__metadata__": {"format": "pt", "note": "a \u00e4 \" \\ note"}}, separators=(",", ":"), ensure_ascii=False) + " " * 3
    text = json.dumps(h, indent="\t").replace("_proj", "\\u005fproj")
    return "{ \n\r\t" + text[1:] + " " * 77


def rewrite(a, b):
    with open(a, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    text = header(json.loads(data[8:8 + n])).encode()
    with open(b, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data[8 + n:])


os.makedirs(to)
for name in os.listdir(source):
    a, b = os.path.join(source, name), os.path.join(to, name)
    if name.endswith(".safetensors"):
        rewrite(a, b)
    elif name == "model.safetensors.index.json":
        with open(a) as f:
            index = json.load(f)
        index["metadata"] = {"total_size": 12, "made by": how}
        with open(b, "w") as f:
            json.dump(index, f, indent=4 if how == "loose" else None)
    else:
        shutil.copy(a, b)
