#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the claims of a plan.json against statistics, with nothing but Python's standard library: verifyplan.py PLAN [STATS...] [--from OLD].

A third implementation of docs/reference/placement.md, beside the planner and moe-plan verify: slots and coverage, loads, bounds, the min-cut split (by the
named cut from below, by a flow from above), loads after each loss (worst layers), batch figures, moves.  It prints each wrong claim, and exits with 1 when there is one."""
import collections, gzip, json, math, statistics, sys

problems = []
compared = 0


def problem(text):
    problems.append(text)


def near(a, b, rel=1e-6):
    return abs(a - b) <= rel * max(abs(a), abs(b)) + 1e-9


def check_claim(o, key, value, where):
    """Compares what the plan claims under this key, if it does, with the value computed here."""
    global compared
    if key not in o:
        return
    compared += 1
    if not near(o[key], value):
        problem("%s: %s is %.9g, the plan says %.9g" % (where, key, value, o[key]))


def read_stats(path, layers):
    """Windows, each a list of rows in the order of the plan's layers."""
    raw = open(path, "rb").read()
    j = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    if "logical_count" in j:
        c = j["logical_count"]
        c = [c] if isinstance(c[0][0], int) else c
        return [w if len(w) == len(layers) else [w[l] for l in layers] for w in c]
    out = []
    for w in j.get("windows", [j]):
        rows = {l["layer"]: l["counts"] for l in w["layers"]}
        out.append([rows[l] for l in layers])
    return out


def max_flow_fits(weights, copies, ranks, cap):
    """Whether the experts' weights can be split over their copies so that no rank has more than cap, by augmenting paths on whole units."""
    total = sum(weights)
    if total <= 0:
        return True
    scale = 2.0 ** 40 / total
    room = [int(cap * scale) + 1 for _ in range(ranks)]
    sent = [dict() for _ in weights]
    order = sorted((e for e in range(len(weights)) if copies[e]), key=lambda e: (len(copies[e]), -weights[e]))
    holders = [[] for _ in range(ranks)]
    for e in range(len(weights)):
        for r in copies[e]:
            holders[r].append(e)
    for e in order:
        need = int(weights[e] * scale)
        for r in sorted(copies[e], key=lambda r: -room[r]):
            go = min(need, room[r])
            if go > 0:
                sent[e][r] = sent[e].get(r, 0) + go
                room[r] -= go
                need -= go
        while need > 0:  # a path: e -> rank -> expert that sends there -> another rank ... -> rank with room
            back, queue, seen, end = {}, [], set(), None
            for r in copies[e]:
                back[r] = (e, None)
                seen.add(r)
                queue.append(r)
            for r in queue:
                if room[r] > 0:
                    end = r
                    break
                for f in holders[r]:
                    if sent[f].get(r, 0) > 0:
                        for q in copies[f]:
                            if q not in seen:
                                seen.add(q)
                                back[q] = (f, r)
                                queue.append(q)
            if end is None:
                return False
            path, r, push = [], end, min(need, room[end])
            while r is not None:
                f, p = back[r]
                path.append((f, p, r))
                if p is not None:
                    push = min(push, sent[f][p])
                r = p
            for f, p, r in path:
                sent[f][r] = sent[f].get(r, 0) + push
                if p is not None:
                    sent[f][p] -= push
            room[end] -= push
            need -= push
    return True


def piece_bound(w, ranks, slots, floor):
    """A lower bound on the largest load: the least size of pieces for which the slots suffice to cut up all experts."""
    lo, hi = max(w) / ranks * (1 - 1e-12), max(w)
    for _ in range(100):
        mid = (lo + hi) / 2
        n = [max(floor, math.ceil(x / mid - 1e-9)) if x > 0 else floor for x in w]
        if sum(n) <= slots and max(n) <= ranks:
            hi = mid
        else:
            lo = mid
    return lo


def fixed_bound(w, ranks, slots, floor):
    """The bound by pigeonhole where there are just enough slots for `floor` copies of each expert, so that all pieces are known."""
    p = sorted((x / floor for x in w for _ in range(floor)), reverse=True)
    k, best = slots // ranks, 0
    for j in range((len(p) + ranks - 1) // ranks):  # one more than k where some ranks have one slot more
        rest = max(0, k - 1 - j)
        best = max(best, sum(p[j * ranks - j:j * ranks + 1]) + (sum(p[-rest:]) if rest else 0))
    return best


def check_layer(plan, o, rows, old, worst_only):
    where = "layer %d" % o["layer"]
    ranks, experts, survive = plan["ranks"], plan["experts"], plan.get("survive", 0)
    lists = o["ranks"]
    copies = [[] for _ in range(experts)]
    if len(lists) != ranks:
        problem("%s: %d ranks" % (where, len(lists)))
        return 0, 0
    for r, mine in enumerate(lists):
        if len(set(mine)) != len(mine):
            problem("%s: rank %d holds an expert twice" % (where, r))
        for e in mine:
            copies[e].append(r)
    if sum(map(len, lists)) != plan["slots"]:
        problem("%s: %d slots" % (where, sum(map(len, lists))))
    if max(map(len, lists)) - min(map(len, lists)) > 1:
        problem("%s: slots are not even" % where)
    least = min(map(len, copies))
    if least <= survive:
        problem("%s: an expert has %d copies" % (where, least))
    lost = max(sum(1 for c in copies if c and all(q == r for q in c)) for r in range(ranks)) if ranks > 1 else 0
    check_claim(o, "copies_min", least, where)
    check_claim(o, "experts_lost_worst", lost, where)
    if old:
        was = {l["layer"]: l for l in old["layers"]}[o["layer"]]["ranks"]
        check_claim(o, "slots_moved", sum(e not in (was[r] if r < len(was) else []) for r, mine in enumerate(lists) for e in mine), where)
    if not rows:
        return 0, 0
    sums = [sum(w) for w in rows]
    full = [s for s in sums if s > 0]
    total = sum(full) / len(full) if full else 0
    weights = [[x * (total / s) for x in w] if s > 0 else [0.0] * experts for w, s in zip(rows, sums)]
    loads = [max(sum(w[e] / len(copies[e]) for e in mine) for w in weights) for mine in lists]
    load, mean = max(loads), total / ranks
    check_claim(o, "load_max", load, where)
    check_claim(o, "load_mean", mean, where)
    bound = 0
    for w in weights:
        if sum(w) > 0:
            bound = max(bound, sum(w) / ranks, piece_bound(w, ranks, plan["slots"], survive + 1))
            if plan["slots"] == experts * (survive + 1):
                bound = max(bound, fixed_bound(w, ranks, plan["slots"], survive + 1))
    if "bound" in o:
        check_claim(o, "gap", load / o["bound"] - 1 if o["bound"] else 0, where)
        if o["bound"] > load * (1 + 1e-6):
            problem("%s: bound above the load" % where)
        if o["bound_kind"] not in ("packing", "exact"):
            check_claim(o, "bound", bound, where)
        elif o["bound"] < bound * (1 - 1e-6):
            problem("%s: bound %.9g, %.9g is proven" % (where, o["bound"], bound))
    if "loads" in o and any(not near(a, b) for a, b in zip(o["loads"], loads)):
        problem("%s: loads" % where)
    if "min_cut" in o:
        cut = set(o["min_cut_ranks"])
        inside = max(sum(w[e] for e in range(experts) if copies[e] and set(copies[e]) <= cut) for w in weights)
        check_claim(o, "min_cut", inside / len(cut), where)
        for w in weights:
            if not max_flow_fits(w, copies, ranks, o["min_cut"] * (1 + 1e-6)):
                problem("%s: no split attains min_cut" % where)
    if "load_max_after_loss" in o and ranks > 1:
        said, worst = o["load_max_after_loss"], o["loss_rank"]
        for r in range(ranks) if not worst_only else [worst]:  # flows are slow here: all ranks in the worst layers alone
            left = [[q for q in c if q != r] for c in copies]
            for w in weights:
                if not max_flow_fits(w, left, ranks, said * (1 + 1e-6)):
                    problem("%s: without rank %d no split attains load_max_after_loss" % (where, r))
        left = [[q for q in c if q != worst] for c in copies]
        if said > 0 and all(max_flow_fits(w, left, ranks, said * (1 - 1e-6)) for w in weights):
            problem("%s: load_max_after_loss can be had lower" % where)
    if "batch" in plan and "experts_per_token" in plan and total > 0:
        choices = plan["batch"] * plan["experts_per_token"] * ranks
        n = [sum(w[e] for w in weights) / len(weights) / total * choices for e in range(experts)]
        check_claim(o, "activated_max", max(sum(1 - math.exp(-n[e] / len(copies[e])) for e in mine) for mine in lists), where)
        variance = sum(n[e] / len(copies[e]) ** 2 for mine in lists for e in mine) / ranks
        z = statistics.NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)) if ranks > 1 else 0
        check_claim(o, "noise_floor", 1 + z * math.sqrt(variance) / (choices / ranks), where)
    return load, o.get("bound", 0)


def main():
    args = sys.argv[1:]
    old = None
    if "--from" in args:
        i = args.index("--from")
        old = json.load(open(args[i + 1]))
        del args[i:i + 2]
    plan = json.load(open(args[0]))
    numbers = [l["layer"] for l in plan["layers"]]
    if plan["version"] != 1 or numbers != sorted(set(numbers)):
        problem("version or order of layers")
    windows = [w for path in args[1:] for w in read_stats(path, numbers)]
    load = bound = 0
    worst = sorted(range(len(numbers)), key=lambda i: -plan["layers"][i].get("load_max_after_loss", 0))[:1]
    for i, o in enumerate(plan["layers"]):
        a, b = check_layer(plan, o, [w[i] for w in windows], old, i not in worst)
        load, bound = load + a, bound + b
    if windows and bound:
        check_claim(plan, "gap_total", load / bound - 1, "all layers")
    check_claim(plan, "experts_lost_worst", max(l.get("experts_lost_worst", 0) for l in plan["layers"]), "all layers")
    copies = [collections.Counter(e for r in l["ranks"] for e in r) for l in plan["layers"]]
    check_claim(plan, "copies_min", min(c[e] for c in copies for e in range(plan["experts"])), "all layers")
    moved = sum(l.get("slots_moved", 0) for l in plan["layers"])  # each was compared with the old plan, where that was given
    check_claim(plan, "slots_moved", moved, "all layers")
    if "expert_bytes" in plan:
        check_claim(plan, "bytes_per_rank", plan["replicated_bytes"] + max(len(r) for l in plan["layers"] for r in l["ranks"]) * len(numbers) * plan["expert_bytes"], "all layers")
        check_claim(plan, "bytes_moved", moved * plan["expert_bytes"], "all layers")
    for p in problems[:20]:
        print(p)
    print("verifyplan: %d claims, %d problems" % (compared, len(problems)))
    sys.exit(1 if problems else 0)


main()
