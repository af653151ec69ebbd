# SPDX-License-Identifier: Apache-2.0
"""Counts the machine instructions of GPU kernels: sass.py CUOBJDUMP FATBIN ARCH [KERNEL:TOKENS:MOST ...]

Prints a line for each kernel of the fatbin: instructions, those of the inner loop around tensor-core products, and
accesses to local memory, of which there must be none (an array that is not in registers, a spilled register).

KERNEL:TOKENS:MOST: the inner loop of this kernel multiplies TOKENS rows of x with NVFP4 weights, two at a time.
A product m16n8k16 takes 8 weights of each lane; the loop may have at most MOST instructions for 8 weights.

cuobjdump is in the package nvidia-cuda-cuobjdump on PyPI, and needs nvdisasm (nvidia-cuda-nvdisasm) beside it.
"""
import re
import subprocess
import sys
from collections import Counter


def kernels(text):
    """name: [(address, operation, whole instruction)]"""
    out, now = {}, None
    for line in text.split("\n"):
        m = re.search(r"Function : (\w+)", line)
        if m:
            now = out.setdefault(m.group(1), [])
        m = re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line)
        if m and now is not None:
            operation = re.sub(r"^@!?U?P\w+\s+", "", m.group(2)).split()[0]
            now.append((int(m.group(1), 16), operation, m.group(2)))
    return out


def inner_loop(code):
    """The shortest run of instructions that a backward branch closes and that has the most products."""
    best, products = [], 0
    for at, operation, whole in code:
        m = re.search(r"BRA.* 0x([0-9a-f]+)", whole) if operation.startswith("BRA") else None
        if not m or int(m.group(1), 16) > at:
            continue
        loop = [i for i in code if int(m.group(1), 16) <= i[0] <= at]
        n = sum(i[1].startswith("HMMA") for i in loop)
        if n > products or (n == products and n and len(loop) < len(best)):
            best, products = loop, n
    return best, products


def main(cuobjdump, fatbin, arch, *bars):
    text = subprocess.run([cuobjdump, "-sass", "-arch", arch, fatbin], capture_output=True, text=True, check=True).stdout
    bars = {b.split(":")[0]: (int(b.split(":")[1]), float(b.split(":")[2])) for b in bars}
    wrong = []
    found = kernels(text)
    for name, code in sorted(found.items()):
        count = Counter(i[1].split(".")[0] for i in code)
        local = count["LDL"] + count["STL"]
        loop, products = inner_loop(code)
        line = f"{arch} {name}: {len(code)} instructions"
        if local and (arch, name) != ("sm_100f", "moe_cuda_nvfp4_8"):  # known, see t-cuda-build.sh
            wrong.append(f"{name} has {local} accesses to local memory")
        if products:
            line += f", loop {len(loop)} with {products} products"
        if name in bars:
            tokens, most = bars.pop(name)
            each = len(loop) / (products / max(1, tokens // 2)) if products else 0
            line += f", {each:.1f} for 8 weights (at most {most})"
            if not products or each > most:
                wrong.append(f"{name} takes {each:.1f} instructions for 8 weights, at most {most}")
        print(line)
    if bars or not found:
        wrong.append("not in the fatbin: " + " ".join(bars))
    for w in wrong:
        print("FAIL:", arch, w)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
