#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A reader of GGUF files in Python's standard library alone, written from ggml's description of the format.

    readgguf.py check FILE.gguf               structure: bounds, order, alignment, zero padding, names
    readgguf.py same FILE.gguf NAME.moe TYPE [TENSOR=KIND|rounded=N]...
                                              metadata, tokenizer and every value against the container's, as readmoe.py reads it;
                                              TYPE: what --outtype was (auto, q6_k, bf16, f32); TENSOR=KIND: this tensor has that
                                              type instead of the one that the rule gives; rounded=N: N blocks of NVFP4 have a
                                              rounded scale
    readgguf.py package FILE.gguf             the PyPI package gguf reads the same pairs, descriptions and values (exit 77 without it)

It exits with 0, or with 1 after it has printed what is wrong.
"""
import array
import base64
import json
import math
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import readmoe  # noqa: E402

E2M1 = readmoe.E2M1
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2), 40: ("NVFP4", 64, 36)}


def need(ok, *what):
    if not ok:
        sys.exit("readgguf: " + " ".join(str(w) for w in what))


def f32(x):
    return array.array("f", (x,))[0]


class Gguf:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.b = f.read()
        self.at = 24
        magic, version, n_tensors, n_pairs = struct.unpack_from("<4sIQQ", self.b)
        need(magic == b"GGUF" and version == 3, "magic or version")
        self.meta = {}
        for _ in range(n_pairs):
            key = self.string().decode()
            need(key not in self.meta, key, "twice")
            self.meta[key] = self.value(self.number("<I"))
        self.tensors = {}
        for _ in range(n_tensors):
            name = self.string().decode()
            dims = [self.number("<Q") for _ in range(self.number("<I"))]
            kind, offset = self.number("<I"), self.number("<Q")
            need(name not in self.tensors and len(name) < 64 and 1 <= len(dims) <= 4 and kind in TYPES, name, dims, kind)
            size = math.prod(dims) // TYPES[kind][1] * TYPES[kind][2]
            need(dims[0] % TYPES[kind][1] == 0, name, "blocks")
            self.tensors[name] = (TYPES[kind][0], dims, offset, size)
        self.data = (self.at + 31) // 32 * 32
        need(not any(self.b[self.at:self.data]), "padding of the head")
        at = 0
        for name, (_, _, offset, size) in self.tensors.items():
            need(offset == at, name, "offset", offset, "not", at)
            at = (offset + size + 31) // 32 * 32
            need(self.data + at <= len(self.b) and not any(self.b[self.data + offset + size:self.data + at]), name, "bounds or padding")
        need(self.data + at == len(self.b), "bytes after the last tensor")

    def number(self, form):
        v, = struct.unpack_from(form, self.b, self.at)
        self.at += struct.calcsize(form)
        return v

    def string(self):
        n = self.number("<Q")
        need(self.at + n <= len(self.b), "a string of", n)
        self.at += n
        return self.b[self.at - n:self.at]

    def value(self, kind):
        if kind == 9:
            kind, n = self.number("<I"), self.number("<Q")
            return [self.value(kind) for _ in range(n)]
        if kind == 8:
            return self.string().decode()
        form = {4: "<I", 5: "<i", 6: "<f", 7: "<?"}
        need(kind in form, "type", kind, "of a value")
        return self.number(form[kind])

    def bytes(self, name):
        _, _, offset, size = self.tensors[name]
        return self.b[self.data + offset:self.data + offset + size]

    def values(self, name):
        """Row-major float32."""
        kind, dims, _, _ = self.tensors[name]
        d = self.bytes(name)
        if kind == "F32":
            return readmoe.floats(d)
        if kind == "BF16":
            return readmoe.bf16(d)
        if kind == "F16":
            return readmoe.numbers(d, "f16")
        out = array.array("f", bytes(4 * math.prod(dims)))
        if kind == "Q4_0":
            for b in range(len(d) // 18):
                s, = struct.unpack_from("<e", d, 18 * b)
                row = [(q - 8) * s for q in range(16)]
                code = d[18 * b + 2:18 * b + 18]
                out[32 * b:32 * b + 32] = array.array("f", [row[c & 15] for c in code] + [row[c >> 4] for c in code])
            return out
        if kind == "Q6_K":
            for b in range(len(d) // 210):
                out[256 * b:256 * b + 256] = q6_k(d[210 * b:210 * b + 210])
            return out
        need(name[:-6] + "scale" not in self.tensors, name, "has a second scale")  # llama.cpp would not multiply by it
        for b in range(len(d) // 36):
            for k in range(4):
                c = d[36 * b + k]
                need(c < 0x7f, name, "has a scale byte", c)
                s = readmoe.e4m3(c)
                row = [v * s for v in E2M1]
                code = d[36 * b + 4 + 8 * k:36 * b + 12 + 8 * k]
                at = 64 * b + 16 * k
                out[at:at + 16] = array.array("f", [row[c & 15] for c in code] + [row[c >> 4] for c in code])
        return out


def q6_k(b):
    """256 values of one block."""
    low, high, scales, (d,) = b[:128], b[128:192], struct.unpack_from("16b", b, 192), struct.unpack_from("<e", b, 208)
    out = array.array("f")
    for i in range(256):
        half, j = divmod(i, 128)
        q = low[64 * half + j % 64] >> (4 if j >= 64 else 0) & 15 | (high[32 * half + j % 32] >> 2 * (j // 32) & 3) << 4
        out.append(d * scales[i // 16] * (q - 32))  # exact: 11 + 7 + 5 bits
    return out


# ---- against a container ----

LAYER = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_a_proj": "attn_q_a",
         "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b", "self_attn.q_proj": "attn_q",
         "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "mlp.gate": "ffn_gate_inp", "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
         "mlp.shared_experts.down_proj": "ffn_down_shexp"}
MODEL = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
# What reads a vector that a power of two was multiplied into, by the tensor that carries it.
READERS = {"attn_norm": ("attn_q_a", "attn_kv_a_mqa", "attn_q"), "attn_q_a_norm": ("attn_q_b",), "attn_v_b": ("attn_output",),
           "ffn_norm": ("ffn_gate_inp", "ffn_gate", "ffn_up", "ffn_gate_shexp", "ffn_up_shexp", "ffn_gate_exps", "ffn_up_exps"),
           "output_norm": ("output",)}
CARRIER = {reader: carrier for carrier, readers in READERS.items() for reader in readers}
NO_INPUTS = ("attn_q_a", "attn_q_b", "attn_kv_a_mqa")  # llama.cpp has no place for theirs
NO_CARRIER = ("ffn_down", "ffn_down_shexp")  # no other tensor can carry their powers of two: only their own block scales can


def place(name):
    """The GGUF name of a canonical name, and the number of the expert (None: the tensor is of no routed expert)."""
    if name in MODEL:
        return MODEL[name], None
    layer, rest = name[len("model.layers."):].split(".", 1)
    if rest.startswith("mlp.experts."):
        expert, proj, _ = rest[len("mlp.experts."):].split(".")
        return "blk.%s.ffn_%s_exps.weight" % (layer, proj[:-5]), int(expert)
    if rest == "mlp.gate.e_score_correction_bias":
        return "blk.%s.exp_probs_b.bias" % layer, None
    return "blk.%s.%s.weight" % (layer, LAYER[rest[:-7]]), None


def to_bf16(a):
    """float32 rounded to nearest, ties to even, at 8 bits."""
    u = array.array("I", a.tobytes())
    return array.array("f", array.array("I", [(x + 0x7fff + (x >> 16 & 1)) & 0xffff0000 for x in u]).tobytes())


def is_power(x):
    return x > 0 and math.frexp(x)[0] == 0.5


def wanted_types(name, typ, cols, outtype, powers):
    """The types that the rule allows.  powers: all global scales of the tensor, or of its stack of experts, are powers of two."""
    base = name.rsplit(".", 2)[-2]
    packed = ("Q6_K",) if cols % 256 == 0 else ("BF16",)
    if base.endswith("_norm") or base in ("ffn_gate_inp", "exp_probs_b", "output_norm") or typ == readmoe.F32:
        return ("F32",)
    if typ == readmoe.BF16:
        return ("BF16",)
    if typ == readmoe.F16:
        return ("F16", "F32")  # F32 where it takes a power of two
    if outtype in ("auto", "q6_k") and base not in ("attn_k_b", "attn_v_b"):
        if typ in readmoe.INT4_SCALES:
            return ("Q4_0",)
        if typ == readmoe.NVFP4 and (outtype == "q6_k" or not powers or cols % 64 or base == "token_embd"):
            return packed
        if typ == readmoe.NVFP4:
            return ("NVFP4",) + (packed if base in NO_CARRIER else ())
    return ("F32",) if outtype == "f32" else ("BF16",)


class Compare:
    def __init__(self, path, container, outtype, exceptions=()):
        self.g, self.outtype = Gguf(path), outtype
        self.c = readmoe.Container(container)
        need(not self.c.problems, self.c.problems)
        with open(os.path.join(container, "hf", "config.json")) as f:
            config = json.load(f)
        self.config = config.get("text_config", config)
        self.dir, self.exceptions, self.blocks = container, dict(b.split("=") for b in exceptions), 0
        self.have, self.seen, self.power, self.kinds = {}, set(), {}, {}
        self.globals = {}  # of each tensor of the file: whether all that make it are powers of two
        for shard in self.c.shards.values():
            for name, t in shard.tensors.items():
                if t["type"] == readmoe.NVFP4:
                    to = place(name)[0] if not name.endswith("kv_b_proj.weight") else name
                    power = is_power(readmoe.floats(shard.plane(t, readmoe.GLOBAL))[0])
                    self.globals[to] = self.globals.get(to, True) and power

    def values(self, name):
        if name not in self.have:
            self.have = {k: v for k, v in self.have.items() if "_exps" in k}  # stacks are used again and again
            if len(self.have) > 3:
                self.have.clear()
            self.have[name] = self.g.values(name)
        return self.have[name]

    def carried(self, name, got, want):
        """The power of two by which a norm, or v_b, in the file is larger than in the model."""
        i = max(range(len(want)), key=lambda k: abs(want[k]))
        p = got[i] / want[i] if want[i] else 1.0
        need(is_power(p), name, "is the model's times", p)
        self.power[name.rsplit(".", 1)[0]] = p
        return p

    def factor(self, name):
        """By how much the values of a tensor in the file are larger than in the model."""
        stem, base = name.rsplit(".", 1)[0], name.rsplit(".", 2)[-2]
        layer = stem[:len(stem) - len(base)]
        if base == "ffn_down_exps":
            return f32(self.config["routed_scaling_factor"]) / self.routing
        return 1 / self.power.get(layer + CARRIER[base], 1.0) if base in CARRIER else 1.0

    def tensor(self, name, part, typ, dims, want):
        need(name in self.g.tensors, name, "missing")
        kind, have_dims = self.g.tensors[name][:2]
        kinds = wanted_types(name, typ, dims[0], self.outtype, self.globals.get(name, False))
        kinds = (self.exceptions[name],) if name in self.exceptions else kinds
        need(kind in kinds, name, "is", kind, "not", kinds)
        need(have_dims == dims, name, have_dims, "not", dims)
        got, n = self.values(name), len(want)
        if part is not None:
            got = got[part * n:part * n + n]
        base = name.rsplit(".", 2)[-2]
        if kind == "BF16" and typ != readmoe.BF16:
            want = to_bf16(want)
        by = self.carried(name, got, want) if base in READERS and self.outtype in ("auto", "q6_k") else self.factor(name)
        if by != 1:
            want = array.array("f", [v * by for v in want])
        self.seen.add(name)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind == "Q6_K":
            self.near(name, part, got, want)
            return n
        bad = [] if got.tobytes() == want.tobytes() else [i for i in range(n) if struct.pack("f", got[i]) != struct.pack("f", want[i])]
        if kind == "NVFP4" and "rounded" in self.exceptions:  # to a multiple of the smallest e4m3: by at most half of it, times 6
            self.blocks += len({i // 16 for i in bad})
            bad = [i for i in bad if abs(got[i] - want[i]) > 6 * 2.0 ** -10]
        need(not bad, name, part, "differs at", bad[:3], [got[i] for i in bad[:3]], [want[i] for i in bad[:3]])
        return n

    def near(self, name, part, got, want):
        """Q6_K: all of a block within a 250th of its largest value, on average within a 500th (real weights: 1e-4); codes of 0 exact."""
        num = den = 0.0
        for b in range(0, len(want), 256):
            g, w = got[b:b + 256], want[b:b + 256]
            most = max(map(abs, w))
            far = max(abs(x - y) for x, y in zip(g, w))
            need(far <= most / 250, name, part, "block", b // 256, "is off by", far, "of", most)
            need(all(x == 0 for x, y in zip(g, w) if y == 0), name, part, "zeros")
            num += math.dist(g, w) ** 2
            den += sum(y * y for y in w)
        need(num <= 4e-6 * den, name, part, "relative error", math.sqrt(num / den if den else num))
        self.worst = max(getattr(self, "worst", 0.0), math.sqrt(num / den) if den else 0.0)

    def kv_b(self, layer, t, want):
        c = self.config
        heads, nope, v, rank = c["num_attention_heads"], c["qk_nope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
        k_b, v_b = array.array("f"), array.array("f")
        for h in range(heads):
            rows = [want[(h * (nope + v) + i) * rank:(h * (nope + v) + i + 1) * rank] for i in range(nope + v)]
            for col in range(rank):
                k_b.extend([rows[i][col] for i in range(nope)])
            for row in rows[nope:]:
                v_b.extend(row)
        n = self.tensor("blk.%s.attn_k_b.weight" % layer, None, t["type"], [nope, rank, heads], k_b)
        return n + self.tensor("blk.%s.attn_v_b.weight" % layer, None, t["type"], [rank, v, heads], v_b)

    def tensors(self):
        n, all_of_it = 0, [(name, shard, t) for shard in self.c.shards.values() for name, t in shard.tensors.items()]
        self.routing = self.g.meta["deepseek2.expert_weights_scale"]
        # what carries powers of two first
        for name, shard, t in sorted(all_of_it, key=lambda x: not x[0].endswith(("norm.weight", "kv_b_proj.weight"))):
            want = readmoe.decode(shard, t)
            if name.endswith("self_attn.kv_b_proj.weight"):
                n += self.kv_b(name.split(".")[2], t, want)
                continue
            to, expert = place(name)
            dims = [t["cols"]] + ([] if t["rows"] == 1 and self.one_row(to) else [t["rows"]])
            if expert is not None:
                dims.append(self.config["n_routed_experts"])
            n += self.tensor(to, expert, t["type"], dims, want)
            if self.g.tensors[to][0] == "NVFP4":
                self.inputs(shard, t, to, expert or 0)
        need(self.blocks == int(self.exceptions.get("rounded", 0)), self.blocks, "blocks are rounded")
        need(self.seen == set(self.g.tensors), "not accounted for:", sorted(set(self.g.tensors) - self.seen)[:5])
        return n

    @staticmethod
    def one_row(to):
        return to.endswith("_norm.weight") or to.endswith(".bias")

    def inputs(self, shard, t, to, at):
        """The input scales: those of the vector that the file's weight reads; none where all are 1."""
        want = readmoe.floats(shard.plane(t, readmoe.INPUT))[0]
        want = f32(1 / want) if t["flags"] else want
        base, name = to.rsplit(".", 2)[-2], to[:-6] + "input_scale"
        if want != 1 and not base.startswith("ffn_down"):
            want = f32(want / self.factor(to))
        if name in self.g.tensors:
            need(self.g.values(name)[at] == want, name, at, self.g.values(name)[at], "not", want)
            self.seen.add(name)
        else:
            need(want == 1.0 or base in NO_INPUTS, name, "is missing")

    def metadata(self):
        c, m = self.config, self.g.meta
        want = {"moe.producer": "moe-convert", "general.architecture": "deepseek2", "general.type": "model", "general.quantization_version": 2}
        arch = {"block_count": c["num_hidden_layers"], "context_length": c["max_position_embeddings"], "embedding_length": c["hidden_size"],
                "feed_forward_length": c["intermediate_size"], "attention.head_count": c["num_attention_heads"], "attention.head_count_kv": 1,
                "rope.freq_base": f32(c["rope_theta"]), "attention.layer_norm_rms_epsilon": f32(c["rms_norm_eps"]),
                "expert_used_count": c["num_experts_per_tok"], "expert_gating_func": 2, "leading_dense_block_count": c["first_k_dense_replace"],
                "vocab_size": c["vocab_size"], "attention.kv_lora_rank": c["kv_lora_rank"],
                "attention.key_length": c["kv_lora_rank"] + c["qk_rope_head_dim"], "attention.value_length": c["kv_lora_rank"],
                "attention.key_length_mla": c["qk_nope_head_dim"] + c["qk_rope_head_dim"], "attention.value_length_mla": c["v_head_dim"],
                "expert_feed_forward_length": c["moe_intermediate_size"], "expert_count": c["n_routed_experts"],
                "expert_shared_count": c["n_shared_experts"],
                "expert_weights_norm": True, "rope.dimension_count": c["qk_rope_head_dim"], "expert_group_count": c["n_group"],
                "expert_group_used_count": c["topk_group"]}
        if c.get("q_lora_rank"):
            arch["attention.q_lora_rank"] = c["q_lora_rank"]
        r = c.get("rope_scaling")
        if r:
            arch.update({"rope.scaling.type": "yarn", "rope.scaling.factor": f32(r["factor"]),
                         "rope.scaling.original_context_length": r["original_max_position_embeddings"],
                         "rope.scaling.yarn_beta_fast": f32(r["beta_fast"]), "rope.scaling.yarn_beta_slow": f32(r["beta_slow"]),
                         "rope.scaling.yarn_log_multiplier": f32(0.1 * r["mscale_all_dim"])})
        want.update({"deepseek2." + k: v for k, v in arch.items()})
        routing = m.get("deepseek2.expert_weights_scale") / f32(c["routed_scaling_factor"])
        need(is_power(routing) if self.outtype in ("auto", "q6_k") else routing == 1, "routing weights times", routing)
        want["deepseek2.expert_weights_scale"] = m["deepseek2.expert_weights_scale"]
        kinds = {t[0] for t in self.g.tensors.values()}
        want["general.file_type"] = 39 if "NVFP4" in kinds else 18 if "Q6_K" in kinds else 2 if "Q4_0" in kinds else 32 if "BF16" in kinds else 1 if "F16" in kinds else 0
        for k, v in want.items():
            need(m.get(k) == v, k, "is", m.get(k), "not", v)
        rest = {k for k in m if not k.startswith("tokenizer.")} - set(want)
        need(rest == {"general.name", "general.size_label"}, "other keys:", rest)

    def tokenizer(self):
        m, files = self.g.meta, os.path.join(self.dir, "tokenizer")
        if not os.path.exists(os.path.join(files, "tiktoken.model")):
            need(m["tokenizer.ggml.model"] == "none" and "tokenizer.ggml.tokens" not in m, "tokenizer")
            return 0
        need((m["tokenizer.ggml.model"], m["tokenizer.ggml.pre"]) == ("gpt2", "kimi-k2"), "kind of tokenizer")
        ranks = {}
        with open(os.path.join(files, "tiktoken.model"), "rb") as f:
            for line in f:
                token, rank = line.split()
                ranks[base64.b64decode(token)] = int(rank)
        letters = gpt2_letters()
        spell = lambda b: "".join(letters[x] for x in b)  # noqa: E731
        with open(os.path.join(files, "tokenizer_config.json")) as f:
            config = json.load(f)
        special = {int(k): v["content"] for k, v in config["added_tokens_decoder"].items()}
        by_rank = sorted(ranks, key=ranks.get)
        tokens = [spell(b) for b in by_rank]
        tokens += [special.get(i, "<|reserved_token_%d|>" % i) for i in range(len(tokens), self.config["vocab_size"])]
        need(m["tokenizer.ggml.tokens"] == tokens, "tokens")
        text = {int(k) for k, v in config["added_tokens_decoder"].items() if not v.get("special")}
        types = [1] * len(by_rank) + [4 if i in text else 3 for i in range(len(by_rank), len(tokens))]
        need(m["tokenizer.ggml.token_type"] == types, "types")
        merges = []
        for b in by_rank:
            parts = split(ranks, b)
            if len(b) > 1 and len(parts) == 2:
                merges.append(" ".join(map(spell, parts)))
        need(m["tokenizer.ggml.merges"] == merges, "merges")
        for k in ("bos", "eos", "pad"):
            key = "tokenizer.ggml.%s_token_id" % ("padding" if k == "pad" else k)
            v = self.config.get(k + "_token_id")
            need(m.get(key) == (v[0] if isinstance(v, list) else v), key, m.get(key))
        template = config.get("chat_template")
        path = os.path.join(files, "chat_template.jinja")
        if template is None and os.path.exists(path):
            with open(path, encoding="utf-8", newline="") as f:
                template = f.read()
        need(m.get("tokenizer.chat_template") == template, "chat template")
        return len(merges)


def gpt2_letters():
    plain = list(range(0x21, 0x7f)) + list(range(0xa1, 0xad)) + list(range(0xae, 0x100))
    other = [b for b in range(256) if b not in plain]
    letters = {b: chr(b) for b in plain}
    letters.update({b: chr(256 + i) for i, b in enumerate(other)})
    return letters


def split(ranks, token):
    """Merge the bytes of a token by ranks below its own, lowest first, leftmost among equals."""
    parts, limit = [token[i:i + 1] for i in range(len(token))], ranks[token]
    while len(parts) > 1:
        rank, i = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        if rank >= limit:
            break
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return parts


# ---- against the package ----

def package(path):
    try:
        import gguf
        import numpy
    except ImportError:
        print("readgguf: no package gguf")
        sys.exit(77)
    g, r = Gguf(path), gguf.GGUFReader(path)
    theirs = {k: f.contents() for k, f in r.fields.items() if not k.startswith("GGUF.")}
    need(theirs == g.meta, "metadata differs:", [k for k in g.meta if theirs.get(k) != g.meta[k]][:5], set(theirs) - set(g.meta))
    need([t.name for t in r.tensors] == list(g.tensors), "names or order")
    n, shared, expert, experts = 0, 0, 0, g.meta["deepseek2.expert_count"]
    for name, (_, dims, _, _) in g.tensors.items():
        stack = "_exps." in name and len(dims) == 3
        expert, shared = expert + (math.prod(dims) // dims[2] if stack else 0), shared + (0 if stack else math.prod(dims))
    need(g.meta["general.size_label"] == gguf.size_label(shared + expert * experts, shared, expert, experts), g.meta["general.size_label"])
    for t in r.tensors:
        kind, dims, _, size = g.tensors[t.name]
        need((t.tensor_type.name, [int(x) for x in t.shape], t.n_bytes) == (kind, dims, size), t.name)
        values = gguf.dequantize(t.data, t.tensor_type).reshape(-1)
        ours = numpy.frombuffer(g.values(t.name).tobytes(), dtype=numpy.float32)
        same = values == ours if kind in ("NVFP4", "Q6_K") else values.view(numpy.uint32) == ours.view(numpy.uint32)  # -0 is 0 there
        need(same.all(), t.name, "values")
        n += len(values)
    print("readgguf: package gguf reads %d pairs, %d tensors, %d values the same" % (len(theirs), len(r.tensors), n))


def main():
    if sys.argv[1:2] == ["check"]:
        g = Gguf(sys.argv[2])
        print("readgguf: %d pairs, %d tensors, %d bytes" % (len(g.meta), len(g.tensors), len(g.b)))
    elif sys.argv[1:2] == ["same"]:
        c = Compare(*sys.argv[2:5], sys.argv[5:])
        c.metadata()
        merges, n = c.tokenizer(), c.tensors()
        print("readgguf: %d values, %d merges and all metadata are the container's; %s%s" %
              (n, merges, c.kinds, "; Q6_K within %.2g" % c.worst if hasattr(c, "worst") else ""))
    elif sys.argv[1:2] == ["package"]:
        package(sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
