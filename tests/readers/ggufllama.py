#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp on an exported file against moe-run on the model, where the PyPI package xllamacpp (llama.cpp built in) is installed.

    ggufllama.py BIN FILE.gguf MODEL TEXT           log-probabilities of the next token after pieces of TEXT, and its token count
    ggufllama.py BIN FILE.gguf MODEL TEXT rounded   the same of a file whose products round activations to 8 bits (NVFP4, Q6_K): that
                                                    moves a token to other experts now and then, so that medians and the perplexity count
    ggufllama.py prints FILE.gguf TOKEN TEXT        what it prints when the model says this token is TEXT

Exit 0; 1 with what differs; 77 without the package.  llama.cpp's arithmetic is not ours (BF16 products round activations to
BF16), so logits agree in KL divergence, not in bits.
"""
import array
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

try:
    import xllamacpp as x
except ImportError:
    print("ggufllama: no package xllamacpp")
    sys.exit(77)

LENGTHS = (1, 3, 17, 64, 200, 120)
MEDIAN_KL = 3e-4  # rounded; seen: 3e-5 to 1e-4
PERPLEXITY = 0.02  # rounded: nats a token may be off over POSITIONS; a file without its scales is off by nats
POSITIONS = range(8, 256, 8)
MEAN_KL = 1e-4  # nats; seen: 1e-6 (F32) to 4e-5 (Q4_0, whose products round activations to 8 bits)


def server(path):
    p = x.CommonParams()
    p.model.path = path
    p.n_ctx, p.n_parallel, p.warmup, p.n_gpu_layers, p.fit_params, p.verbosity = 512, 1, False, 0, False, 0
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 2
    p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
    p.yarn_beta_fast = p.yarn_beta_slow = 1.0  # its loader does not take them from a deepseek2 file (docs/reference/gguf.md)
    return x.Server(p)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def ours(binary, model, ids):
    """Log-probabilities after the last of these tokens."""
    with tempfile.TemporaryDirectory() as t:
        path = os.path.join(t, "trace")
        run(os.path.join(binary, "moe-run"), model, "--tokens", ",".join(map(str, ids)), "-n", "0", "--trace", path, "--quiet")
        with open(path, "rb") as f:
            n, = struct.unpack("<Q", f.read(8))
            logits = json.loads(f.read(n))["logits"]
            vocab = logits["shape"][1]
            f.seek(8 + n + logits["data_offsets"][1] - 4 * vocab)
            row = array.array("f", f.read(4 * vocab))
    top = max(row)
    total = math.log(sum(math.exp(v - top) for v in row)) + top
    return [v - total for v in row]


def theirs(s, prompt, vocab):
    r = s.handle_completions({"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": vocab, "cache_prompt": False})
    p = {t["id"]: t["logprob"] for t in r["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
    return p, r["usage"]["prompt_tokens"]


def perplexity(s, binary, model, ids):
    """Mean over POSITIONS of -log p(next token), ours and theirs, and of the KL divergence."""
    mine = other = kl = 0.0
    for n in POSITIONS:
        p = ours(binary, model, ids[:n])
        q, _ = theirs(s, ids[:n], len(p))
        mine -= p[ids[n]] / len(POSITIONS)
        other -= q[ids[n]] / len(POSITIONS)
        kl += sum(math.exp(v) * (v - q[t]) for t, v in enumerate(p)) / len(POSITIONS)
    return mine, other, kl


def prints(path, token, text):
    r = server(path).handle_completions({"prompt": [1, 2, 3], "max_tokens": 1, "temperature": 0, "logit_bias": [[int(token), 1000]]})
    got = r["choices"][0]["text"]
    if got != text:
        sys.exit("ggufllama: token %s is printed as %r, not %r" % (token, got, text))


def main():
    if sys.argv[1:2] == ["prints"]:
        return prints(*sys.argv[2:])
    binary, path, model, text = sys.argv[1:5]
    rounded = sys.argv[5:] == ["rounded"]
    ids = json.loads(run(os.path.join(binary, "moe-inspect"), model, "--tokenize", text, "--json"))["tokens"]
    s, kls = server(path), []
    for i, n in enumerate(LENGTHS):
        piece = ids[500 * i:500 * i + n]
        p = ours(binary, model, piece)
        q, count = theirs(s, piece, len(p))
        if count != n or len(q) != len(p) or None in q.values():
            sys.exit("ggufllama: %d tokens, %d probabilities, not finite: %s" % (count, len(q), None in q.values()))
        kls.append(sum(math.exp(v) * (v - q[t]) for t, v in enumerate(p)))
        if not rounded and max(range(len(p)), key=p.__getitem__) != max(q, key=q.get):
            sys.exit("ggufllama: another best token after %d tokens" % n)
    if sorted(kls)[len(kls) // 2] > MEDIAN_KL if rounded else sum(kls) / len(kls) > MEAN_KL:
        sys.exit("ggufllama: KL divergence %s" % kls)
    if rounded:
        mine, other, kl = perplexity(s, binary, model, ids)
        print("ggufllama: %.4f nats a token, moe-run %.4f; KL %.2g, over %d positions" % (other, mine, kl, len(POSITIONS)))
        if abs(mine - other) > PERPLEXITY:
            sys.exit("ggufllama: another perplexity")
    with open(text, encoding="utf-8") as f:
        sample = f.read(1200)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as f:
        f.write(sample)
        f.flush()
        want = len(json.loads(run(os.path.join(binary, "moe-inspect"), model, "--tokenize", f.name, "--json"))["tokens"])
    got = theirs(s, sample, 1)[1]
    if got != want:
        sys.exit("ggufllama: %d tokens of the text, not %d" % (got, want))
    print("ggufllama: mean KL %.2g over %d prompts, %d tokens of text" % (sum(kls) / len(kls), len(kls), got))


main()
