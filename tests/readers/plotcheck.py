# SPDX-License-Identifier: Apache-2.0
"""Hold a picture of a plan against the plan:

    plotcheck.py PLAN.json PICTURE.svg [REPORT.json]

Every number drawn is computed from the plan's loads again; REPORT (--json with --baseline eplb) has the baseline's.  Each text lies
within the view box, at an approximate width of 0.62 of its size a character.
"""
import json, re, sys
import xml.etree.ElementTree as ET

NS = "{http://www.w3.org/2000/svg}"
plan, svg = json.load(open(sys.argv[1])), ET.parse(sys.argv[2]).getroot()
eplb = json.load(open(sys.argv[3]))["baselines"]["eplb"]["load_max_layers"] if len(sys.argv) > 3 else None


def check(ok, *what):
    if not ok: sys.exit("FAIL: " + " ".join(map(str, what)))


box = list(map(float, svg.get("viewBox").split()))
texts = []
for t in svg.iter(NS + "text"):
    size, x, y = float(t.get("font-size", svg.get("font-size"))), float(t.get("x")), float(t.get("y"))
    wide = 0.62 * size * len(t.text)
    left = x - {"middle": wide / 2, "end": wide}.get(t.get("text-anchor"), 0)
    check(left >= 0 and left + wide <= box[2] and size <= y <= box[3] - 2, "text leaves the picture:", t.text)
    texts.append((y, left, left + wide, t.text))
for i, a in enumerate(texts):
    for b in texts[i + 1:]:
        check(abs(a[0] - b[0]) >= 9 or a[2] <= b[1] or b[2] <= a[1], "texts overlap:", a[3], b[3])
survive = plan["survive"]
bound = f"bound under --survive {survive}: no such placement has less" if survive else "bound: no placement has less"
for word in ["layer", "rank", "fullest rank: load / mean", "0", "1", "this plan's fullest rank", bound,
             "EPLB of the same statistics" + (", without --survive" if survive else "") if eplb else "no baseline: it needs --stats FILE"]:
    check(any(t[3] == word for t in texts), "no label", word)
want = {}
for i, l in enumerate(plan["layers"]):
    mean = l["load_mean"]
    for r, x in enumerate(l["loads"]):
        want[f"layer {l['layer']} rank {r}"] = f"{x / mean:.4f}" if mean else "no tokens"
    if mean:
        more = f", EPLB {eplb[i] / mean:.4f}" if eplb else ""
        want[f"layer {l['layer']}, fullest rank"] = f"{max(l['loads']) / mean:.4f}, bound {l['bound'] / mean:.4f}{more}"
got = dict(t.text.split(": ", 1) for t in svg.iter(NS + "title"))
check(got == want, "numbers differ:", [(k, got.get(k), want.get(k)) for k in {**got, **want} if got.get(k) != want.get(k)][:3])
for e in svg.iter():
    if e.tag == NS + "rect" and e.get("x"):
        check(float(e.get("x")) >= 0 and float(e.get("x")) + float(e.get("width")) <= box[2] and
              float(e.get("y")) + float(e.get("height")) <= box[3], "a rectangle leaves the picture")
# The bars begin at zero: their widths are in the ratio of the loads.
bars = [(float(e.get("width")), float(re.match(r".*fullest rank: ([\d.]+)", e[0].text)[1])) for e in svg.iter(NS + "rect")
        if len(e) and "fullest" in e[0].text]
for w, v in bars: check(abs(w / v - bars[0][0] / bars[0][1]) < 0.01 * bars[0][0] / bars[0][1], "bars are not drawn from zero", w, v)
