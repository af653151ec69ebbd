#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Replaces a text in a sealed JSON file (a journal, a manifest) and seals the file again.

    reseal.py FILE OLD NEW
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "readers"))
sys.dont_write_bytecode = True
import readmoe


def seal(text):
    """The text of a file whose last "checksum" is this one's."""
    digits = json.loads(text)["checksum"].encode()
    at = text.rindex(digits)
    zeros = text[:at] + b"0" * 32 + text[at + 32:]
    return zeros[:at] + b"%032x" % readmoe.xxh3_128(zeros) + zeros[at + 32:]


def rewrite(path, change):
    with open(path, "rb") as f: text = f.read()
    text = seal(change(text))
    with open(path, "wb") as f: f.write(text)
    return text


def main(path, old, new):
    def replace(text):
        if old.encode() not in text: sys.exit(f"reseal.py: {path} has no {old}")
        return text.replace(old.encode(), new.encode())
    rewrite(path, replace)


if __name__ == "__main__": main(*sys.argv[1:])
