#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""patchtensors.py DIR REGEX HOW N: change tensors of a safetensors checkpoint in place.  Standard library only.
HOW: times (BF16 and F32, times 2^N), put (the first bytes of each become N, in hexadecimal), xor (they are changed by N)."""
import json, os, re, struct, sys

directory, names, how = sys.argv[1], re.compile(sys.argv[2]), sys.argv[3]
n = int(sys.argv[4]) if how == "times" else bytes.fromhex(sys.argv[4])


def patched(t, data):
    if how == "put":
        return n + data[len(n):]
    if how == "xor":
        return bytes(a ^ b for a, b in zip(data, n)) + data[len(n):]
    size, low = {"BF16": (2, 7), "F32": (4, 23)}[t["dtype"]]
    out = bytearray()
    for v in struct.unpack("<%d%s" % (len(data) // size, {2: "H", 4: "I"}[size]), data):
        e = v >> low & 255
        out += (v + (n << low) if e and 0 < e + n < 255 else v).to_bytes(size, "little")
    return bytes(out)


done = 0
for name in sorted(os.listdir(directory)):
    if not name.endswith(".safetensors"):
        continue
    with open(os.path.join(directory, name), "r+b") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        head = json.loads(f.read(size))
        for tensor in sorted(h for h in head if h != "__metadata__" and names.search(h)):
            a, b = head[tensor]["data_offsets"]
            f.seek(8 + size + a)
            data = patched(head[tensor], f.read(b - a))
            f.seek(8 + size + a)
            f.write(data)
            done += 1
if not done:
    sys.exit("patchtensors: no tensor is named so")
