# SPDX-License-Identifier: Apache-2.0
"""moe-quantize's report against the container that was written, by readmoe.py's arithmetic:

    reportcheck.py REPORT.json QUANTIZED.moe SOURCE.moe LAYER

Relative errors of the layer's experts, their input scales and those of attention against the largest activation, tokens against routing.json, clipped activations counted
over all that there are.  Prints the number of checks."""
import json, math, os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import readmoe

report, layer = json.load(open(sys.argv[1])), int(sys.argv[4])
got, source = readmoe.Container(sys.argv[2]), readmoe.Container(sys.argv[3])
note = next(n for n in report["calibration"] if n["layer"] == layer)
error = next(e for e in report["relative_error"]["layers"] if e["layer"] == layer)
config = json.load(open(os.path.join(sys.argv[3], "manifest.json")))["config"]
checks = 0


def check(ok, *what):
    global checks
    checks += 1
    if not ok:
        sys.exit("reportcheck: " + " ".join(str(w) for w in what))


for role in ("gate", "up", "down"):
    num = den = 0.0
    for e in range(len(note["tokens"])):
        name = "model.layers.%d.mlp.experts.%d.%s_proj.weight" % (layer, e, role)
        s, t = got.find(name)
        q, w = readmoe.decode(s, t), readmoe.decode(*source.find(name))
        num += math.fsum((a - b) ** 2 for a, b in zip(q, w))
        den += math.fsum(b * b for b in w)
        scale, = readmoe.floats(s.plane(t, readmoe.INPUT))
        amax = note["amax_y" if role == "down" else "amax_x"]
        check(abs(scale * 6 * 448 / amax - 1) < 1e-6, name, "input scale", scale, "of", amax)
    check(abs(math.sqrt(num / den) - error[role]) < 2e-6, "relative error of", role, math.sqrt(num / den), error[role])

counts = next(l["counts"] for l in json.load(open(os.path.join(sys.argv[2], "routing.json")))["layers"] if l["layer"] == layer)
check(counts == note["tokens"], "routing.json is not the report's tokens")
tokens = sum(counts) // config["num_experts_per_tok"]
check(sum(counts) == tokens * config["num_experts_per_tok"], "tokens")
sizes = {"gate_up": config["num_experts_per_tok"] * config["hidden_size"], "down": config["num_experts_per_tok"] * config["moe_intermediate_size"],
         "shared_gate_up": config["hidden_size"], "shared_down": config["n_shared_experts"] * config["moe_intermediate_size"],
         "q_a_kv_a": config["hidden_size"], "q_b": config["q_lora_rank"], "kv_b": config["kv_lora_rank"], "o": config["num_attention_heads"] * config["v_head_dim"]}
here = [c for c in note["clipped"] if c["layer"] == layer]
check({c["input"] for c in here} >= {"gate_up", "down"}, "clipped says nothing of experts")
for c in here:
    check(c["of"] == tokens * sizes[c["input"]], "clipped of", c)
    check((c["clipped"] > 0) == (c["largest"] > c["limit"]), "clipped", c)
experts = {c["input"]: c for c in here}
check(experts["gate_up"]["clipped"] == 0 and abs(experts["gate_up"]["largest"] - note["amax_x"]) < 1e-6 * note["amax_x"], "amax_x", experts["gate_up"])
check(experts["down"]["clipped"] == 0 and abs(experts["down"]["largest"] - note["amax_y"]) < 1e-6 * note["amax_y"], "amax_y", experts["down"])
attention = {"q_a_kv_a": ("q_a_proj", "kv_a_proj_with_mqa"), "q_b": ("q_b_proj",), "kv_b": ("kv_b_proj",), "o": ("o_proj",)}
for c in here: # the scale is of what the rounded projections before it give
    for module in attention.get(c["input"], ()):
        s, t = got.find("model.layers.%d.self_attn.%s.weight" % (layer, module))
        scale, = readmoe.floats(s.plane(t, readmoe.INPUT))
        check(c["clipped"] == 0 and abs(scale * 6 * 448 / c["largest"] - 1) < 1e-6, module, "input scale", scale, c)
worst = [w[1] for w in note["worst"]]
check(len(worst) == min(10, len(counts)) and worst == sorted(worst, reverse=True) and worst[0] >= note["output_error"], "worst", note["worst"])
check(all(counts[w[0]] == w[2] for w in note["worst"]), "worst")
check(note["bytes"] == os.path.getsize(os.path.join(sys.argv[2], "layer-%03d.moe" % layer)), "bytes")
check(0 < note["peak_rss"] <= report["peak_rss"], "peak_rss")
check(sum(sum(n["flops"].values()) for n in report["calibration"]) <= report["flops"], "flops")
print("reportcheck: %d checks" % checks)
