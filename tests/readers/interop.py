#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What other people's packages make of our exports.  Each check needs the packages it is named after (pip); t-interop.sh runs those it can.

  interop.py safetensors DIR...                 the library opens every file, and would itself have written the same bytes
  interop.py modelopt DIR VALUES                NVFP4QTensor's own dequantization gives VALUES (gen-values DIR), bit for bit
  interop.py compressed-tensors DIR VALUES      the library's own decompression gives VALUES rounded to BF16, bit for bit
  interop.py inputs SOURCE DIR FLAVOR           the input scales of a calibrated checkpoint are in its export
  interop.py calibrated NAME.moe DIR FLAVOR     the input scales that a calibration left in a container are in its export, and so are its values (DIR.safetensors)
  interop.py activations FILE                   the library's own quantization of activations gives what gen-activations wrote
  interop.py configs DIR FLAVOR                 the configuration is what the tool's own code makes of it
  interop.py transformers DIR TRACE TOKENS [VALUES]
                                                DeepseekV3ForCausalLM in float32 gives the logits that moe-run --trace wrote;
                                                with VALUES these replace the weights that transformers cannot read itself
  interop.py golden OUT                         make tests/data/export-golden.json anew, with modelopt and compressed-tensors alone
"""
import copy, glob, hashlib, json, os, struct, sys, tempfile

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "tiny-k2")


def need(ok, *what):
    if not ok:
        print("interop:", *what)
        sys.exit(1)


def files_of(d):
    return sorted(glob.glob(os.path.join(d, "*.safetensors")))


def tensors_of(d):
    from safetensors.torch import load_file
    out = {}
    for f in files_of(d) if os.path.isdir(d) else [d]:
        part = load_file(f)
        need(not set(part) & set(out), "a tensor lies in two files")
        out.update(part)
    return out


def config_of(d):
    with open(os.path.join(d, "config.json")) as f:
        return json.load(f)


# ---- safetensors ----

def check_safetensors(*dirs):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    for d in dirs:
        names = {}
        with tempfile.TemporaryDirectory() as t:
            for f in files_of(d):
                with safe_open(f, framework="pt") as s:
                    need(s.metadata() == {"format": "pt"}, f, s.metadata())
                    names.update({n: os.path.basename(f) for n in s.keys()})
                copy = os.path.join(t, "copy")
                save_file(load_file(f), copy, metadata={"format": "pt"})
                with open(f, "rb") as a, open(copy, "rb") as b:
                    need(a.read() == b.read(), f, "is not what the library would write")
        index = os.path.join(d, "model.safetensors.index.json")
        if os.path.exists(index):
            with open(index) as f:
                need(json.load(f)["weight_map"] == names, index, "does not agree with the files")
        print("safetensors: %d tensors in %d files of %s, byte for byte as the library writes them" % (len(names), len(files_of(d)), d))


# ---- values ----

def same_values(got, want, what):
    import torch
    need(got.shape == want.shape and got.dtype == want.dtype, what, got.shape, got.dtype, want.shape, want.dtype)
    view = torch.int32 if got.dtype == torch.float32 else torch.int16
    bad = (got.view(view) != want.view(view)) & ~((got == 0) & (want == 0))  # -0 and 0 are one value
    need(not bad.any(), what, "has %d other values" % int(bad.sum()))


def check_modelopt(d, values):
    import torch
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor
    t, want, n = tensors_of(d), tensors_of(values), 0
    calibrated = config_of(d)["quantization_config"]["quant_algo"] == "NVFP4"
    for name, w in want.items():
        head = name[:-len("weight")]
        need(t[head + "weight_scale_2"].shape == (), name, "its global scale has dimensions")
        need((head + "input_scale" in t) == calibrated, name, "an input scale under W4A16_NVFP4, or none under NVFP4")
        if calibrated:
            x = t[head + "input_scale"]
            need(x.shape == () and torch.isfinite(x) and x > 0, name, "input_scale", x)
        q = NVFP4QTensor(w.shape, torch.float32, t[name])
        got = q.dequantize(dtype=torch.float32, scale=t[head + "weight_scale"], double_scale=t[head + "weight_scale_2"], block_sizes={-1: 16})
        same_values(got, w, name)
        n += w.numel()
    need(len(want) == sum(x.dtype == torch.uint8 for x in t.values()), "not all NVFP4 weights were checked")
    print("modelopt: %d values of %d weights, bit for bit" % (n, len(want)))


def check_compressed_tensors(d, values):
    import torch
    from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
    from compressed_tensors.quantization import QuantizationConfig
    scheme = QuantizationConfig.model_validate(config_of(d)["quantization_config"]).config_groups["group_0"]
    need(set(NVFP4PackedCompressor.compression_param_names(scheme)) >= {"weight_packed", "weight_scale", "weight_global_scale"}, "names")
    t, want, n = tensors_of(d), tensors_of(values), 0
    for name, w in want.items():
        head = name[:-len("weight")]
        part = {k: t[head + k] for k in NVFP4PackedCompressor.compression_param_names(scheme) if head + k in t}
        need(part["weight_global_scale"].shape == (1,), name, "its global scale is not [1]")
        need(("input_global_scale" in {k[len(head):] for k in t if k.startswith(head)}) == (scheme.input_activations is not None), name,
             "an input scale where the config has none, or none where it has one")
        got = NVFP4PackedCompressor.decompress(part, scheme)["weight"]
        same_values(got, w.to(torch.bfloat16), name)
        n += w.numel()
    need(len(want) == sum(x.dtype == torch.uint8 for x in t.values()), "not all NVFP4 weights were checked")
    print("compressed-tensors: %d values of %d weights, bit for bit in bf16" % (n, len(want)))


def check_inputs(source, d, flavor):
    """Input scales of `source` (modelopt's layout) arrive, in the spelling of the flavor, and ask for quantized activations."""
    import torch
    t, want, n = tensors_of(d), tensors_of(source), 0
    for name, scale in want.items():
        if not name.endswith(".input_scale"):
            continue
        got = t[name] if flavor == "modelopt" else t[name[:-len("input_scale")] + "input_global_scale"]
        need(torch.equal(got.reshape(()), scale.reshape(()) if flavor == "modelopt" else 1 / scale.reshape(())), name, got, scale)
        n += 1
    need(n > 0 and len({float(x) for k, x in want.items() if k.endswith(".input_scale")}) > 1, "nothing was calibrated")
    group = config_of(d)["quantization_config"]["config_groups"]["group_0"]
    need(group["input_activations"] is not None, "the configuration does not quantize activations")
    print("inputs: %d input scales in %s" % (n, d))


def check_calibrated(container, d, flavor):
    """Input scales of the container, as tests/readers/readmoe.py reads them: none is 1, gate and up share theirs, all experts of a layer theirs."""
    import torch
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import readmoe
    t, values, n, layers = tensors_of(d), tensors_of(d + ".safetensors"), 0, {}
    for shard in readmoe.Container(container).shards.values():
        for name, w in shard.tensors.items():
            if w["type"] != readmoe.NVFP4:
                continue
            head, scale = name[:-len("weight")], torch.tensor(list(readmoe.floats(shard.plane(w, readmoe.INPUT))))
            got = t[head + "input_scale"] if flavor == "modelopt" else t[head + "input_global_scale"]
            need(bool(torch.isfinite(got)) and float(got) > 0 and float(got) != 1, name, "input scale", got)
            need(torch.equal(got.reshape(1), scale if flavor == "modelopt" else 1 / scale), name, got, scale)
            here, there = torch.frombuffer(readmoe.decode(shard, w), dtype=torch.float32), values[name].reshape(-1)
            if flavor == "modelopt":
                same_values(there, here, name)
            else:  # its global scale is the inverse, rounded
                need(bool(((there - here).abs() <= 2 ** -21 * here.abs()).all()), name, "other values")
            if ".experts." in name:
                a, b = name.split(".experts.")
                layers.setdefault((a, b.split(".")[1] == "down_proj"), set()).add(float(got))
            n += 1
    need(n > 0 and all(len(s) == 1 for s in layers.values()) and len({min(s) for s in layers.values()}) > 2, "input scales of experts", layers)
    group = config_of(d)["quantization_config"]["config_groups"]["group_0"]
    need(group["input_activations"] is not None, "the configuration does not quantize activations")
    print("calibrated: %d input scales of %s in %s" % (n, container, d))


def check_activations(path):
    """compressed-tensors' own dynamic quantization of activations under a global scale, on the CPU, against ours (gen-activations)."""
    import torch
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.quant_scheme import NVFP4
    from compressed_tensors.quantization.utils import calculate_qparams
    t, args, n, other = tensors_of(path), NVFP4["input_activations"], 0, 0
    for name, scale in t.items():
        if not name.endswith(".scale"):
            continue
        x, ours, g = t[name[:-5] + "x"], t[name[:-5] + "out"], 1 / scale.reshape(1)
        b = x.unflatten(1, (-1, 16))
        s, zero = calculate_qparams(b.amin(2), b.amax(2), args, global_scale=g)
        theirs = fake_quantize(x, s, zero, args, global_scale=g)
        # they divide where a GPU multiplies by reciprocals, so a value within rounding of a tie may get the next code: at most a third of the block's maximum away
        unit = b.abs().amax(2, keepdim=True).expand_as(b).flatten(1) / 3
        apart = (theirs - ours).abs() > 1e-5 * unit
        need(bool(((theirs - ours).abs() <= unit * 1.2).all()), name, "differs by more than one code")
        n, other = n + x.numel(), other + int(apart.sum())
    need(n > 100000 and other <= n // 1000, "%d of %d activations differ" % (other, n))
    print("activations: %d values as compressed-tensors quantizes them, %d of them the next code" % (n, other))


# ---- configurations ----

def linear_modules(d):
    """Modules that quantizers look at, by the model's own tree: linear layers and routers in order; experts one by one, as on disk."""
    import torch
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
    c = config_of(d)
    c.pop("quantization_config", None)
    with torch.device("meta"):
        model = DeepseekV3ForCausalLM(DeepseekV3Config(**c))
    return [n for n, m in model.named_modules()
            if isinstance(m, torch.nn.Linear) or type(m).__name__ == "DeepseekV3TopkRouter"], [n for n, m in model.named_modules() if isinstance(m, torch.nn.Embedding)]


def modules_of(d):
    """(quantized, not quantized) by what is on disk: 2-dimensional weights, without norms."""
    quantized, plain = set(), set()
    for f in files_of(d):
        with open(f, "rb") as h:
            head = json.loads(h.read(struct.unpack("<Q", h.read(8))[0]))
        for n, t in head.items():
            if n.endswith((".weight", ".weight_packed")) and len(t["shape"]) == 2:
                (quantized if t["dtype"] == "U8" else plain).add(n.rsplit(".", 1)[0])
    return quantized, plain


def check_configs(d, flavor):
    q = config_of(d)["quantization_config"]
    quantized, plain = modules_of(d)
    if flavor == "modelopt":
        from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
        from modelopt.torch.export.quant_utils import _prefix_wildcard_summarize_exclude_modules
        with open(os.path.join(d, "hf_quant_config.json")) as f:
            hf = json.load(f)
        need(convert_hf_quant_config_format(hf) == q, "config.json does not follow from hf_quant_config.json")
        need(hf["producer"]["name"] == "moe" and hf["quantization"]["kv_cache_quant_algo"] is None, "hf_quant_config.json", hf)
        need(sorted(_prefix_wildcard_summarize_exclude_modules(sorted(plain), quantized)) == q["ignore"], "exclude_modules", q["ignore"])
    else:
        from compressed_tensors.quantization import QuantizationConfig
        from compressed_tensors.quantization.quant_scheme import NVFP4, NVFP4A16, QuantizationScheme
        group = q["config_groups"]["group_0"]
        fmt = "nvfp4-pack-quantized"
        made = QuantizationConfig(config_groups={"group_0": QuantizationScheme(**(NVFP4 if group["input_activations"] else NVFP4A16), targets=["Linear"], format=fmt)},
                                  ignore=q["ignore"], format=fmt, quantization_status="compressed").model_dump(mode="json")
        want = {"version": q["version"], "sparsity_config": {}, "transform_config": {}, **made}
        import compressed_tensors
        if compressed_tensors.__version__ == q["version"]:  # others have more fields, or fewer
            need(want == q, "quantization_config", want, q)
        else:
            print("configs: compressed-tensors %s is installed, the configuration is %s's: not compared" % (compressed_tensors.__version__, q["version"]))
        try:
            order, _ = linear_modules(d)
        except ImportError:
            order = None
        embed = {n for n in plain if n.endswith("embed_tokens")}
        need(set(q["ignore"]) == plain - embed, "ignore", set(q["ignore"]) ^ (plain - embed))
        if order:
            need(set(q["ignore"]) - {n for n in plain if ".experts." in n} == set(order) - quantized, "ignore is not what the model's modules give")
    print("configs: %s, %d patterns for %d modules" % (flavor, len(q["ignore"]), len(plain)))


# ---- transformers ----

def load_model(d, tensors, dtype):
    """DeepseekV3ForCausalLM with these tensors under the config of d, every one taken and none made up."""
    from safetensors.torch import save_file
    from transformers import DeepseekV3ForCausalLM
    c = config_of(d)
    c.pop("quantization_config", None)
    c["model_type"] = "deepseek_v3"  # the name under which transformers has the architecture of kimi_k2
    with tempfile.TemporaryDirectory() as tmp:
        save_file(tensors, os.path.join(tmp, "model.safetensors"), metadata={"format": "pt"})
        with open(os.path.join(tmp, "config.json"), "w") as f:
            json.dump(c, f)
        model, info = DeepseekV3ForCausalLM.from_pretrained(tmp, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    need(not info["missing_keys"] and not info["unexpected_keys"], "not all tensors were taken:", info)
    return model


def check_transformers(d, trace, tokens, values=None):
    import torch
    t = tensors_of(values) if values else {}  # the NVFP4 weights decoded by this project, which check_modelopt holds against theirs
    t.update({n: w for n, w in tensors_of(d).items() if n not in t and not (values and n.endswith(("_scale", "_scale_2")))})
    model = load_model(d, t, torch.float32)
    want = tensors_of(trace)["logits"]
    with torch.no_grad():
        got = model(torch.tensor([[int(x) for x in tokens.split(",")]])).logits[0]
    worst = float((got - want).abs().max() / want.abs().max())
    need(got.shape == want.shape and worst <= 2e-5, "logits differ by", worst, got.shape, want.shape)
    print("transformers: logits of %d tokens within %.1e of the largest" % (len(want), worst))


# ---- goldens ----

def digests(tensors):
    """One digest for each (layer, projection, part) over its experts in order, and one for each other tensor."""
    import torch
    groups = {}
    for n in tensors:
        a = n.split(".")
        key = ".".join("*" if k and a[k - 1] == "experts" else x for k, x in enumerate(a))
        groups.setdefault(key, []).append((int(a[a.index("experts") + 1]) if "experts" in a else -1, n))
    out = {}
    for key, members in sorted(groups.items()):
        h = hashlib.sha256()
        for _, n in sorted(members):
            t = tensors[n]
            h.update(("%s %s\n" % (t.dtype, list(t.shape))).encode())
            h.update(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        out[key] = h.hexdigest()[:24]
    return out


def modelopt_export(tmp):
    """tiny-k2 quantized and exported by modelopt itself: experts only, the max rule, weights alone (W4A16_NVFP4)."""
    import torch
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    src = os.path.join(TINY, "bf16")
    model = load_model(src, tensors_of(src), torch.bfloat16)
    config = copy.deepcopy(mtq.NVFP4_EXPERTS_ONLY_CFG)
    config["quant_cfg"].append({"quantizer_name": "*input_quantizer", "enable": False})
    model = mtq.quantize(model, config, lambda m: [m(torch.arange(a, a + 252).view(1, -1)) for a in range(0, 1008, 252)])
    export_hf_checkpoint(model, export_dir=tmp)
    t = tensors_of(tmp)
    need(config_of(tmp)["quantization_config"]["quant_algo"] == "W4A16_NVFP4", "modelopt names another quant_algo")
    need(not [n for n in t if n.endswith(".input_scale")], "modelopt wrote input scales")
    source = tensors_of(src)
    for n in t:
        if n.endswith(("e_score_correction_bias", "mlp.gate.weight")):
            need(bool((t[n].bfloat16() == source[n].bfloat16()).all()), n, "is not the source's")
            t[n] = source[n]  # transformers loads the bias in BF16 and the router in F32; checkpoints, and so we, have them the other way about
    return t


def golden(out):
    from compressed_tensors import __version__ as ct_version
    from compressed_tensors.entrypoints.convert.converters import ModelOptNvfp4Converter
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.quantization.quant_scheme import NVFP4A16, QuantizationScheme
    with tempfile.TemporaryDirectory() as tmp:
        t = modelopt_export(tmp)
        with open(os.path.join(tmp, "hf_quant_config.json")) as f:
            hf = json.load(f)
        modelopt_config = config_of(tmp)["quantization_config"]
    result = {"made by": "tests/readers/interop.py golden", "modelopt": {"hf_quant_config": hf, "quantization_config": modelopt_config, "tensors": digests(t)}}
    converted = ModelOptNvfp4Converter(targets=[r"re:.*mlp\.experts\.\d+\.(gate|up|down)_proj$"]).process(dict(t))
    converted = {n: (w.reshape(1) if n.endswith("_global_scale") else w) for n, w in converted.items() if not n.endswith(".input_global_scale")}
    order, _ = linear_modules(os.path.join(TINY, "bf16"))
    fmt = "nvfp4-pack-quantized"
    q = QuantizationConfig(config_groups={"group_0": QuantizationScheme(**NVFP4A16, targets=["Linear"], format=fmt)}, format=fmt,
                           ignore=[n for n in order if ".experts." not in n], quantization_status="compressed").model_dump(mode="json")
    q.update(version=ct_version, sparsity_config={}, transform_config={})
    result["compressed-tensors"] = {"quantization_config": q, "tensors": digests(converted)}
    with open(out, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    print("golden: %d and %d digests" % tuple(len(result[k]["tensors"]) for k in ("modelopt", "compressed-tensors")))


if __name__ == "__main__":
    checks = {"safetensors": check_safetensors, "modelopt": check_modelopt, "compressed-tensors": check_compressed_tensors,
              "inputs": check_inputs, "calibrated": check_calibrated, "activations": check_activations, "configs": check_configs, "transformers": check_transformers, "golden": golden}
    if len(sys.argv) < 3 or sys.argv[1] not in checks:
        sys.exit(__doc__)
    checks[sys.argv[1]](*sys.argv[2:])
