#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""peers-ladder.py - what other quantizers reach on the fixture, judged by moe-run.

    peers-ladder.py BIN [--model DIR] [--calib FILE] [--valid FILE] [--windows N] [--methods A,B] [--work DIR] [--threads N] [--json FILE]

BIN holds our tools.  Needs torch, and for each family of methods its package: nvidia-modelopt (modelopt-*), llmcompressor and
compressed-tensors (llmc-*); a family whose package is not installed is skipped and named, exit 77 when that leaves nothing.

Each method quantizes the routed experts alone, from the BF16 weights in float32, with the first N (256) windows of 256 ids of the
calibration text.  Its weights are then written as an NVFP4 checkpoint in modelopt's layout (which fails unless every value is
e2m1 * e4m3 * global, so what is scored is exactly what the method made) and scored by moe-run against the BF16 model: one forward pass
and one arithmetic for all, W4A16 and W4A4.  AWQ scales the input channels, which such a checkpoint does not hold: its effective weights are
written as float32 and scored W4A16 alone.

The calibration forward pass is a plain one in this file: its experts are nn.Linear modules, which is what these packages expect.  Two
of modelopt's calls need CUDA; they are replaced by the same arithmetic in torch (see cpu_modelopt).  llm-compressor's own functions for Hessians,
factorisation and rounding are called layer by layer as its sequential pipeline does: the layer's Hessians from what reaches it through
the quantized layers before, all of its modules at once, and by default every token through every expert (llmc-gptq-routed: its own tokens
alone).  gate and up share their global scale everywhere but in AWQ, whose channel scales differ between them."""
import argparse, copy, json, math, os, shutil, subprocess, sys

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


# ---- files ----

def read_safetensors(path):
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        head, data = json.loads(f.read(n)), f.read()
    head.pop("__metadata__", None)
    out = {}
    for name, t in head.items():
        raw = data[t["data_offsets"][0]:t["data_offsets"][1]]
        if t["dtype"] == "BF16":
            a = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        elif t["dtype"] == "F32":
            a = np.frombuffer(raw, "<f4")
        else:
            raise SystemExit(f"{path}: {name}: cannot read {t['dtype']}")
        out[name] = torch.from_numpy(a.reshape(t["shape"]).copy())
    return out


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    head, at = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, _, raw in tensors.values():
            f.write(raw)


def weights_of(model):
    out = {}
    for name in sorted(os.listdir(model)):
        if name.endswith(".safetensors"):
            out.update(read_safetensors(os.path.join(model, name)))
    return out


def bf16(t):
    return (t.numpy().view("<u4") >> 16).astype("<u2").tobytes()


# ---- the model ----

class Mlp(nn.Module):
    def __init__(self, hidden, inter):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inter, bias=False)
        self.up_proj = nn.Linear(hidden, inter, bias=False)
        self.down_proj = nn.Linear(inter, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Norm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Moe(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.k, self.scale = c["num_experts_per_tok"], c["routed_scaling_factor"]
        self.every_expert = False  # True while Hessians are gathered: each expert sees all tokens, also those not routed to it
        self.gate = nn.Linear(c["hidden_size"], c["n_routed_experts"], bias=False)
        self.gate.e_score_correction_bias = nn.Parameter(torch.zeros(c["n_routed_experts"]))
        self.experts = nn.ModuleList(Mlp(c["hidden_size"], c["moe_intermediate_size"]) for _ in range(c["n_routed_experts"]))
        self.shared_experts = Mlp(c["hidden_size"], c["n_shared_experts"] * c["moe_intermediate_size"])

    def forward(self, x):
        s = torch.sigmoid(F.linear(x, self.gate.weight))
        chosen = torch.topk(s + self.gate.e_score_correction_bias, self.k).indices
        w = s.gather(1, chosen)
        w = w / (w.sum(1, keepdim=True) + 1e-20) * self.scale
        out = self.shared_experts(x)
        for e, expert in enumerate(self.experts):
            t, j = (chosen == e).nonzero(as_tuple=True)
            if self.every_expert:
                out = out.index_add(0, t, expert(x)[t] * w[t, j, None])
            elif len(t):
                out = out.index_add(0, t, expert(x[t]) * w[t, j, None])
        return out


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, h, heads = c, c["hidden_size"], c["num_attention_heads"]
        self.nope, self.rope, self.v, self.kl = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
        self.q_a_proj = nn.Linear(h, c["q_lora_rank"], bias=False)
        self.q_a_layernorm = Norm(c["q_lora_rank"], c["rms_norm_eps"])
        self.q_b_proj = nn.Linear(c["q_lora_rank"], heads * (self.nope + self.rope), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(h, self.kl + self.rope, bias=False)
        self.kv_a_layernorm = Norm(self.kl, c["rms_norm_eps"])
        self.kv_b_proj = nn.Linear(self.kl, heads * (self.nope + self.v), bias=False)
        self.o_proj = nn.Linear(heads * self.v, h, bias=False)

    def yarn(self, n):
        """cos and sin [n, rope / 2] of YaRN's rotations, and the factor of the scores."""
        s, d, theta = self.c["rope_scaling"], self.rope, self.c["rope_theta"]
        i = torch.arange(0, d, 2, dtype=torch.float64) / d
        fe = theta ** -i
        turn = [d * math.log(s["original_max_position_embeddings"] / (s[b] * 2 * math.pi)) / (2 * math.log(theta)) for b in ("beta_fast", "beta_slow")]
        low, high = max(math.floor(turn[0]), 0), min(math.ceil(turn[1]), d - 1)
        ramp = ((torch.arange(d // 2) - low) / (0.001 if low == high else high - low)).clamp(0, 1)
        freq = fe * (1 - ramp) + fe / s["factor"] * ramp
        m = [0.1 * s[k] * math.log(s["factor"]) + 1 for k in ("mscale", "mscale_all_dim")]
        a = torch.arange(n, dtype=torch.float64)[:, None] * freq
        return (a.cos() * m[0] / m[1]).float(), (a.sin() * m[0] / m[1]).float(), m[1] ** 2 / math.sqrt(self.nope + self.rope)

    def rotate(self, x, cos, sin):
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)

    def forward(self, x):  # [windows, n, hidden]
        b, n, _ = x.shape
        heads, (cos, sin, scale) = self.c["num_attention_heads"], self.yarn(n)
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).view(b, n, heads, -1).transpose(1, 2)
        ckv = self.kv_a_proj_with_mqa(x)
        kv = self.kv_b_proj(self.kv_a_layernorm(ckv[..., :self.kl])).view(b, n, heads, -1).transpose(1, 2)
        k_pe = self.rotate(ckv[..., self.kl:], cos, sin)[:, None].expand(b, heads, n, self.rope)
        q = torch.cat((q[..., :self.nope], self.rotate(q[..., self.nope:], cos, sin)), -1)
        k = torch.cat((kv[..., :self.nope], k_pe), -1)
        s = (q @ k.transpose(2, 3)) * scale + torch.full((n, n), -math.inf).triu(1)
        return self.o_proj((s.softmax(-1) @ kv[..., self.nope:]).transpose(1, 2).reshape(b, n, -1))


class Layer(nn.Module):
    def __init__(self, c, l):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"]), Norm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.mlp = Moe(c) if l >= c["first_k_dense_replace"] else Mlp(c["hidden_size"], c["intermediate_size"])

    def forward(self, h):
        h = h + self.self_attn(self.input_layernorm(h))
        x = self.post_attention_layernorm(h)
        return h + self.mlp(x.flatten(0, 1)).view_as(h)


class K2(nn.Module):
    def __init__(self, c, weights):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(Layer(c, l) for l in range(c["num_hidden_layers"]))
        self.model.norm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        self.load_state_dict(weights)
        self.requires_grad_(False).eval()

    def forward(self, ids):
        h = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            h = layer(h)
        return self.lm_head(self.model.norm(h))

    def experts(self):
        for l, layer in enumerate(self.model.layers):
            if isinstance(layer.mlp, Moe):
                for e, expert in enumerate(layer.mlp.experts):
                    yield l, e, expert


# ---- what a method gives ----

class Result:
    """weight and scale: [layer, expert, projection] -> the weight, and its global scale (None: no NVFP4 checkpoint can hold it).
    amax: [layer, "gate_proj" or "down_proj"] -> the largest input of these projections."""

    def __init__(self):
        self.weight, self.scale, self.amax = {}, {}, {}

    def put(self, l, e, name, weight, scale, amax):
        self.weight[l, e, name], self.scale[l, e, name] = weight.detach().float().contiguous(), scale
        kind = "down_proj" if name == "down_proj" else "gate_proj"
        self.amax[l, kind] = max(self.amax.get((l, kind), 0.0), float(amax))


def observe_amax(model, run):
    """The largest input of each expert's projection, by module."""
    amax, hooks = {}, []
    for _, _, x in model.experts():
        for m in (x.gate_proj, x.up_proj, x.down_proj):
            def saw(mod, args):
                amax[mod] = max(amax.get(mod, 0.0), float(args[0].abs().max()))
            hooks.append(m.register_forward_pre_hook(saw))
    run(model)
    for h in hooks:
        h.remove()
    return amax


# ---- modelopt ----

def round_e2m1(a):
    return E2M1[torch.bucketize(a, torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])) +
                ((a == 0.75) | (a == 1.75) | (a == 3.5)).long()]


def scaled_e2m1(x, scale):
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    q = round_e2m1(x.abs() / safe) * safe
    return torch.where(scale == 0, torch.zeros_like(x), torch.where(x >= 0, q, -q))


def cpu_modelopt():
    """Its two fake-quantize kernels for CUDA, in torch: dynamic blocks (scale = e4m3(amax16 / (6 g)) g, g = amax / (6 448)) and static ones."""
    import modelopt.torch.quantization.tensor_quant as tq

    def dynamic(x, block, amax, *_):
        g = amax.float().amax() / (6 * 448)
        b = x.reshape(-1, block)
        s = (b.abs().amax(1, keepdim=True) / (6 * g)).clamp(max=448).to(torch.float8_e4m3fn).float() * g
        return scaled_e2m1(b, s).reshape(x.shape)

    def static(x, amax, global_amax=None, quantize_block_scales=True, fp8_max=448.0, out_dtype=None):
        s = amax.float() / 6
        if quantize_block_scales:
            g = amax.float().amax() if global_amax is None else global_amax.float()
            s = tq.scaled_e4m3_impl(s, g * (448.0 / fp8_max) / 6)
        return scaled_e2m1(x.reshape(amax.numel(), -1), s.reshape(-1, 1)).reshape(x.shape).to(out_dtype or x.dtype)

    tq.dynamic_block_quantize_op = dynamic
    tq.triton_kernel.IS_AVAILABLE = True
    tq.triton_kernel.static_blockwise_fp4_fake_quant = static


MODELOPT = {
    "modelopt-max": "NVFP4_DEFAULT_CFG", "modelopt-4/6": "NVFP4_FOUR_OVER_SIX_CFG", "modelopt-mse": "NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG",
    "modelopt-local-hessian": "NVFP4_W4A4_WEIGHT_LOCAL_HESSIAN_CFG", "modelopt-awq-lite": "NVFP4_AWQ_LITE_CFG",
    "modelopt-awq-full": "NVFP4_AWQ_FULL_CFG", "modelopt-awq-clip": "NVFP4_AWQ_CLIP_CFG",
}


def modelopt(name, model, run):
    import modelopt.torch.quantization as mtq
    cpu_modelopt()
    preset = getattr(mtq, MODELOPT[name])
    weight = next(e for e in preset["quant_cfg"] if e["quantizer_name"] == "*weight_quantizer" and "cfg" in e)
    amax = observe_amax(model, run)
    config = {"algorithm": copy.deepcopy(preset["algorithm"]),
              "quant_cfg": [{"quantizer_name": "*", "enable": False},
                            {"quantizer_name": "*mlp.experts.*weight_quantizer", "cfg": copy.deepcopy(weight["cfg"])}]}
    mtq.quantize(model, config, run)
    out, awq, four = Result(), "awq" in name, name == "modelopt-4/6"
    for l, e, x in model.experts():
        pair = [x.gate_proj.weight_quantizer, x.up_proj.weight_quantizer]
        dynamic = weight["cfg"]["block_sizes"]["type"] == "dynamic"
        if dynamic and not awq:
            most = max(float(q.amax.amax()) for q in pair)
            for q in pair:
                q.amax = torch.tensor(most)
        for n, m in (("gate_proj", x.gate_proj), ("up_proj", x.up_proj), ("down_proj", x.down_proj)):
            q = m.weight_quantizer
            w = q(m.weight)
            pre = getattr(m.input_quantizer, "pre_quant_scale", None)
            if pre is not None:
                w = w * pre.reshape(1, -1)
            most = q.amax.amax() if dynamic else q.global_amax
            out.put(l, e, n, w, None if awq else float(most) / (6 * (256 if four else 448)), amax.get(m, 0.0))
    return out


# ---- llm-compressor ----

def llmc(name, model, run, ids, batch):
    from compressed_tensors.quantization import ActivationOrdering
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.quant_scheme import NVFP4A16
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
    from llmcompressor.modifiers.gptq.helpers import accumulate_hessian, make_empty_hessian
    args, out = copy.deepcopy(NVFP4A16["weights"]), Result()
    args.actorder = ActivationOrdering.WEIGHT if name == "llmc-gptq-order" else None

    def scales(w, g):
        b = w.unflatten(1, (-1, args.group_size))
        return calculate_qparams(b.amin(2), b.amax(2), args, global_scale=g)

    def finish(l, x, hessians, amax):
        for e, expert in enumerate(x):
            for names in (("gate_proj", "up_proj"), ("down_proj",)):
                mods = [getattr(expert, n) for n in names]
                g = generate_gparam(min(m.weight.min() for m in mods), max(m.weight.max() for m in mods)).reshape(1)
                for n, m in zip(names, mods):
                    scale, zero = scales(m.weight, g)
                    if name == "llmc-rtn" or m not in hessians:
                        q = fake_quantize(m.weight, scale, zero, args, global_scale=g)
                    else:
                        h, k = hessians[m]
                        q = quantize_weight(m.weight.clone()[None], (h / k)[None], scale[None], zero[None], g, args)[0][0]
                    m.weight.data.copy_(q)
                    out.put(l, e, n, q, 1 / float(g), amax.get(m, 0.0))

    states = [model.model.embed_tokens(ids[i:i + batch]) for i in range(0, len(ids), batch)]
    for l, layer in enumerate(model.model.layers):
        hessians, amax, hooks = {}, {}, []
        if isinstance(layer.mlp, Moe):
            for x in layer.mlp.experts:
                for m in (x.gate_proj, x.up_proj, x.down_proj):
                    def saw(mod, a):
                        amax[mod] = max(amax.get(mod, 0.0), float(a[0].abs().max()))
                        if name != "llmc-rtn":
                            h, k = hessians.get(mod, (None, None))
                            h = make_empty_hessian(mod) if h is None else h
                            hessians[mod] = accumulate_hessian(a[0], mod, h, torch.zeros(()) if k is None else k)
                    hooks.append(m.register_forward_pre_hook(saw))
            layer.mlp.every_expert = not name.endswith("routed")
            for h in states:
                layer(h)
            layer.mlp.every_expert = False
            for h in hooks:
                h.remove()
            finish(l, layer.mlp.experts, hessians, amax)
        states = [layer(h) for h in states]
    return out


# ---- checkpoints ----

def pack(w, g):
    """Codes and scales of a weight whose every block is e2m1 * (e4m3 * g); raises when one is not."""
    b = (w.double() / g).reshape(-1, 16)
    code, most = torch.full((len(b),), 0x38, dtype=torch.uint8), b.abs().amax(1)
    todo = most > 0
    scales = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    for c in range(126, 0, -1):
        if not todo.any():
            break
        a = b / scales[c]
        q = round_e2m1(a.abs().float()).double()
        fits = todo & ((q - a.abs()).abs().amax(1) < 1e-4)
        code[fits] = c
        todo &= ~fits
    if todo.any():
        raise SystemExit(f"{int(todo.sum())} of {len(b)} blocks are not NVFP4 values")
    a = b / scales[code.long()][:, None]
    q = torch.bucketize(a.abs().float() - 1e-3, E2M1).clamp(max=7).to(torch.uint8) | ((a < 0).to(torch.uint8) << 3)
    q = q.reshape(len(w), -1)
    return (q[:, 1::2] << 4 | q[:, 0::2]).numpy().tobytes(), code.numpy().tobytes()


def write_checkpoint(path, o, weights, r):
    """modelopt's layout, or BF16 and float32 where a result has no global scales."""
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    out, nvfp4 = {}, all(s is not None for s in r.scale.values())
    for name, w in weights.items():
        p = name.split(".")
        if "experts" not in p:
            kind = "F32" if name.endswith("e_score_correction_bias") else "BF16"
            out[name] = (kind, w.shape, w.numpy().astype("<f4").tobytes() if kind == "F32" else bf16(w))
            continue
        l, e, proj = int(p[2]), int(p[5]), p[6]
        q = r.weight[l, e, proj]
        if not nvfp4:
            out[name] = ("F32", q.shape, q.numpy().astype("<f4").tobytes())
            continue
        g = np.float32(r.scale[l, e, proj])
        codes, scales = pack(q, float(g))
        stem = name[:-len("weight")]
        out[name] = ("U8", (q.shape[0], q.shape[1] // 2), codes)
        out[stem + "weight_scale"] = ("F8_E4M3", (q.shape[0], q.shape[1] // 16), scales)
        out[stem + "weight_scale_2"] = ("F32", (), np.float32(g).tobytes())
        amax = r.amax[l, "down_proj" if proj == "down_proj" else "gate_proj"]
        out[stem + "input_scale"] = ("F32", (), np.float32(amax / (6 * 448)).tobytes())
    write_safetensors(os.path.join(path, "model.safetensors"), out)
    c = json.load(open(os.path.join(o.model, "config.json")))
    if nvfp4:
        c["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "*self_attn*", "*shared_experts*", "*layers.0.*"],
                                    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16},
                                                                  "input_activations": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}}}}
    json.dump(c, open(os.path.join(path, "config.json"), "w"))
    for f in ("tiktoken.model", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(os.path.join(o.model, f), os.path.join(path, f))
    return nvfp4


def tool(o, name, *args):
    r = subprocess.run([os.path.join(o.bin, name), *args], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"{name} {' '.join(args)}: exit {r.returncode}: {r.stderr.strip()}")
    return json.loads(r.stdout)


def score(o, path, activations):
    return tool(o, "moe-run", "-q", "--json", path, "--score", o.valid, "--window", "256", "--reference", o.model, "--activations", activations,
                *(["--threads", str(o.threads)] if o.threads else []))


# ---- the ladder ----

def installed(*names):
    import importlib.util
    return all(importlib.util.find_spec(n) for n in names)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bin")
    p.add_argument("--model", default="tests/data/tiny-k2/bf16")
    p.add_argument("--calib", default="tests/data/tiny-k2/calib.txt")
    p.add_argument("--valid", default="tests/data/tiny-k2/valid.txt")
    p.add_argument("--windows", type=int, default=256)
    p.add_argument("--methods", default="")
    p.add_argument("--work", default="")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--json", default="")
    o = p.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    torch.set_grad_enabled(False)
    import tempfile
    work = o.work or tempfile.mkdtemp(prefix="moe-peers-")
    methods = list(MODELOPT) if installed("modelopt") else []
    methods += ["llmc-rtn", "llmc-gptq", "llmc-gptq-order", "llmc-gptq-routed"] if installed("llmcompressor", "compressed_tensors") else []
    missing = [n for n in ("modelopt", "llmcompressor") if not installed(n)]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
    if o.methods:
        methods = [m for m in o.methods.split(",") if m in methods]
    if not methods:
        print("skip: no quantizer of others is installed")
        return 77
    config = json.load(open(os.path.join(o.model, "config.json")))
    weights = weights_of(o.model)
    ids = torch.tensor(tool(o, "moe-inspect", o.model, "--tokenize", o.calib, "--json")["tokens"])[:o.windows * 256].view(-1, 256)
    batch, rows = 16, []

    def run(model):
        for i in range(0, len(ids), batch):
            model(ids[i:i + batch])

    print(f"| method ({len(ids)} windows of 256) | KL, W4A16 | top-1 | perplexity ratio | KL, W4A4 | top-1 |\n|---|---|---|---|---|---|", flush=True)
    for name in methods:
        torch.manual_seed(0)
        model = K2(config, weights)
        sys.stdout.flush()
        hide = os.dup(1)
        os.dup2(2, 1)  # the packages print on standard output, which holds our table
        r = modelopt(name, model, run) if name in MODELOPT else llmc(name, model, run, ids, batch)
        sys.stdout.flush()
        os.dup2(hide, 1)
        os.close(hide)
        path = os.path.join(work, name.replace("/", ""))
        nvfp4 = write_checkpoint(path, o, weights, r)
        a, b = score(o, path, "float"), score(o, path, "nvfp4") if nvfp4 else None
        rows.append({"method": name, "windows": len(ids), "w4a16": {k: a[k] for k in ("kl", "top1_agreement", "perplexity_ratio")},
                     "w4a4": {k: b[k] for k in ("kl", "top1_agreement", "perplexity_ratio")} if b else None})
        print(f"| {name} | {a['kl']:.5f} | {a['top1_agreement']:.4f} | {a['perplexity_ratio']:.5f} | " +
              (f"{b['kl']:.5f} | {b['top1_agreement']:.4f} |" if b else "| |"), flush=True)
        if o.json:
            json.dump(rows, open(o.json, "w"), indent=1)
        if not o.work:
            shutil.rmtree(path)
    if not o.work:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
