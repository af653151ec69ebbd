"""A placement plan for tests: makeplan.py RANKS COPIES [SEED [LAYERS [EXPERTS]]] -> plan.json on standard output.
Every expert has COPIES copies on ranks drawn at random among the emptiest."""
import json
import random
import sys

ranks, copies, seed, layers, experts = [int(a) for a in sys.argv[1:]] + [0, 3, 32][len(sys.argv) - 3:]
draw = random.Random(seed)
plan = []
for layer in range(1, layers + 1):
    slots = [[] for _ in range(ranks)]
    for expert in draw.sample(range(experts), experts):
        for r in sorted(range(ranks), key=lambda r: (len(slots[r]), draw.random()))[:copies]:
            slots[r].append(expert)
    plan.append({"layer": layer, "ranks": slots})
json.dump({"version": 1, "ranks": ranks, "layers": plan}, sys.stdout)
