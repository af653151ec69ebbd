#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""digests.py GOLDEN DIR FLAVOR: a checkpoint's tensors and quantization config against what the tools themselves write
(tests/data/export-golden.json, made by tests/readers/interop.py golden).  Python's standard library alone."""
import glob, hashlib, json, os, struct, sys

NAME = {"BF16": "bfloat16", "F32": "float32", "U8": "uint8", "F8_E4M3": "float8_e4m3fn"}


def tensors_of(d):
    for path in sorted(glob.glob(os.path.join(d, "*.safetensors"))):
        with open(path, "rb") as f:
            b = f.read()
        n = struct.unpack("<Q", b[:8])[0]
        for name, t in json.loads(b[8:8 + n]).items():
            if name != "__metadata__":
                first, last = t["data_offsets"]
                yield name, t, b[8 + n + first:8 + n + last]


def digests(d):
    groups, out = {}, {}
    for name, t, data in tensors_of(d):
        a = name.split(".")
        key = ".".join("*" if k and a[k - 1] == "experts" else x for k, x in enumerate(a))
        groups.setdefault(key, []).append((int(a[a.index("experts") + 1]) if "experts" in a else -1, t, data))
    for key, members in groups.items():
        h = hashlib.sha256()
        for _, t, data in sorted(members, key=lambda m: m[0]):
            h.update(("torch.%s %s\n" % (NAME[t["dtype"]], t["shape"])).encode() + data)
        out[key] = h.hexdigest()[:24]
    return out


def differ(what, got, want):
    return ["%s %s: %.200r, want %.200r" % (what, k, got.get(k), want.get(k)) for k in sorted(set(got) | set(want)) if got.get(k) != want.get(k)]


def main():
    golden, d, flavor = sys.argv[1:]
    with open(golden) as f:
        want = json.load(f)[flavor]
    wrong = differ("tensor", digests(d), want["tensors"])
    print("digests: %d tensors and groups, %d differ" % (len(want["tensors"]), len(wrong)))
    for line in wrong[:10]:
        print(line)
    sys.exit(bool(wrong))


main()
