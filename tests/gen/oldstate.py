#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes of NAME.moe or NAME.moe.partial what a version before the digest of the weights would have left: its records without it, sealed again.

    oldstate.py NAME.moe | NAME.moe.partial
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "readers"))
sys.dont_write_bytecode = True
import readmoe
from reseal import rewrite

DROP = {"weights", "replace", "replaces", "kernels"}


def without(text):
    """Lines of an indented object; the members that go are whole lines, and none is the last of its object."""
    return b"".join(l for l in text.splitlines(True) if l.strip().split(b'"')[1:2] not in [[d.encode()] for d in DROP])


def main(path):
    state = os.path.join(path, "state.json")
    if not os.path.exists(state):
        rewrite(os.path.join(path, "manifest.json"), without)
        return
    with open(state, "rb") as f: before = readmoe.xxh3_64(f.read())
    after = readmoe.xxh3_64(rewrite(state, without))
    for name in os.listdir(path):
        if name.endswith(".json") and name != "state.json":
            rewrite(os.path.join(path, name), lambda text: text.replace(b"%016x" % before, b"%016x" % after))


main(sys.argv[1])
