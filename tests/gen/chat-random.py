#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Conversations made at random, and what the models' own templates make of them.

  chat-random.py TEMPLATES COUNT OUT

TEMPLATES holds the published templates (tests/data/chat-templates), whose names are those of the styles. A line of OUT for each of COUNT
conversations and each template: {"template", "name", "request", "text"}, as in chat-golden.jsonl, rendered by jinja2 as transformers does it.
What the renderer writes otherwise on purpose (docs/reference/tokenizer.md) does not occur; TypeScript, which is no part of the templates, is in the goldens."""
import glob, json, os, random, sys
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

templates, count, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
env.filters["tojson"] = lambda x, separators=None: json.dumps(x, ensure_ascii=False, separators=separators)
known = {os.path.basename(p)[:-6]: env.from_string(open(p, newline="").read()) for p in sorted(glob.glob(templates + "/*.jinja"))}
rng = random.Random(12)

def text():
    pieces = ["Hello", " ", "\n", "\n\n", "  ", "{{ x }}", "{% if %}", "é", "世界", "\U0001f600", "\t", "<b>", "&amp;", "'", '"', "\\n", "{\"a\": 1}", "## Return of x\n", "1 < 2"]
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(6)))

def content(parts): return [{"type": "text", "text": text()} for _ in range(rng.randrange(3))] if parts and rng.random() < .2 else text()

def value(depth=0):
    kind = rng.randrange(7 if depth < 2 else 5)
    if kind == 5: return [value(depth + 1) for _ in range(rng.randrange(3))]
    if kind == 6: return {rng.choice("cabé"): value(depth + 1) for _ in range(rng.randrange(3))}
    return (text(), rng.randrange(-9, 99), rng.choice([1.5, 0.25, -2.0]), True, None)[kind]

def calls(first):
    names = [rng.choice(["f", "get_weather", "a-b"]) for _ in range(rng.randrange(1, 3))]
    return [{"id": f"functions.{n}:{i}" if first or rng.random() < .7 else "call_" + n, "type": "function",
             "function": {"name": n, "arguments": rng.choice([{"q": value()}, json.dumps({"q": text()}), ""])}} for i, n in enumerate(names)]

def message(role, first):
    m = {"role": role, "content": content(True)}
    if role == "tool": m.update(tool_call_id=rng.choice(["functions.f:0", "call_1"]), content=content(False))
    if role == "assistant":
        if first: m["content"] = content(False) # beside calls it would write a list as Python does
        if rng.random() < .4: m["tool_calls"] = calls(first)
        if m.get("tool_calls") and rng.random() < .5: m["content"] = None
        if not first and rng.random() < .5: m["reasoning_content"] = text()
    if not first and rng.random() < .1: m["name"] = rng.choice(["ann", "bot"])
    return m

def deepseek():
    """Text alone, and calls without text."""
    messages = [{"role": rng.choice(["user", "assistant", "tool", "system"]), "content": text()} for _ in range(rng.randrange(1, 8))]
    for m in messages:
        if m["role"] == "assistant" and rng.random() < .4:
            m["content"] = None
            m["tool_calls"] = [{"id": "i", "type": "function", "function": {"name": "f", "arguments": json.dumps({"q": text()})}} for _ in range(rng.randrange(1, 4))]
    return {"messages": messages, "add_generation_prompt": rng.random() < .5}

def request(style):
    if style.startswith("deepseek"): return deepseek()
    first = style == "k2-first"
    r = {"messages": [message(rng.choice(["user", "assistant", "tool", "system"] if i else ["user", "user", "system"]), first) for i in range(rng.randrange(1, 8))]}
    if rng.random() < .5: r["add_generation_prompt"] = rng.random() < .5
    if style in ("k2-first", "k2-instruct", "k2-thinking") and rng.random() < .4:
        r["tools"] = [{"type": "function", "function": {"name": n, "description": text(), "parameters": {"type": "object", "x": value()}}} for n in ("g", "f")[:rng.randrange(3)]]
    switches = {"k2.5": ["thinking"], "k2.6": ["thinking", "preserve_thinking"]}.get(style, [])
    chosen = {s: rng.random() < .5 for s in switches if rng.random() < .5}
    if chosen: r["chat_template_kwargs"] = chosen
    return r

def deep_sort(x):
    if isinstance(x, dict): return {k: deep_sort(v) for k, v in sorted(x.items())}
    return [deep_sort(v) for v in x] if isinstance(x, list) else x

with open(out, "w") as f:
    for i in range(count):
        for style, template in known.items():
            r = request(style)
            got = template.render(messages=r["messages"], tools=deep_sort(r.get("tools")), add_generation_prompt=r.get("add_generation_prompt", True),
                                  bos_token="<｜begin▁of▁sentence｜>", **r.get("chat_template_kwargs", {}))
            f.write(json.dumps({"template": style, "name": f"random {i}", "request": r, "text": got}, ensure_ascii=False) + "\n")
