#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goldens of the chat renderer: conversations, and what the models' own templates make of them.

  make-chat-golden.py TEMPLATES CASES ENCODER OUT

TEMPLATES holds what tests/data/chat-templates does, and deepseek-v3.jinja (R1's without its thinking; not kept here); CASES is a JSON file of further conversations ({"cases": [{"name", "messages", "tools", "add_generation_prompt",
"chat_template_kwargs", "expected": {TEMPLATE: PROMPT}}]}), whose prompts are compared with what comes out; ENCODER is the path of Moonshot's
tool_declaration_ts.py or a copy.  Rendered by jinja2 3.1.6 as transformers does it, tools sorted by key first as Moonshot's tokenizer does.

A line of OUT: {"template", "name", "request", "text"}."""
import importlib.util, json, random, sys
import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

KIMI = ["k2-instruct", "k2-thinking", "k2.5", "k2.6"]
templates, cases, encoder, out = sys.argv[1:]
spec = importlib.util.spec_from_file_location("ts", encoder)
ts = importlib.util.module_from_spec(spec); sys.modules["ts"] = ts; spec.loader.exec_module(ts)
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
env.filters["tojson"] = lambda x, separators=None: json.dumps(x, ensure_ascii=False, separators=separators)

def deep_sort(x):
    if isinstance(x, dict): return {k: deep_sort(v) for k, v in sorted(x.items())}
    return [deep_sort(v) for v in x] if isinstance(x, list) else x

def render(name, r):
    """The prompt that template `name` makes of a request."""
    extra = dict(r.get("chat_template_kwargs", {}))
    tools = deep_sort(r.get("tools"))
    if name in ("k2.5", "k2.6") and tools:
        try: extra["tools_ts_str"] = ts.encode_tools_to_typescript_style(tools)
        except Exception: pass
    return env.from_string(open(f"{templates}/{name}.jinja").read()).render(
        messages=r["messages"], tools=tools, add_generation_prompt=r.get("add_generation_prompt", True), bos_token="<｜begin▁of▁sentence｜>", **extra)

def call(name, arguments, id=None): return {"id": id or f"functions.{name}:0", "type": "function", "function": {"name": name, "arguments": arguments}}
def tool(name, parameters=None, description=None, **more):
    f = {"name": name, **({"description": description} if description is not None else {}), **({"parameters": parameters} if parameters is not None else {}), **more}
    return {"type": "function", "function": f}
def obj(properties, required=None, **more):
    return {"type": "object", "properties": properties, **({"required": required} if required is not None else {}), **more}
U = {"role": "user", "content": "Go"}

SCHEMAS = {
    "defaults": obj({"a": {"type": "integer", "default": 5}, "b": {"type": "boolean", "default": True}, "c": {"type": "string", "default": 'q"\n'}, "d": {"type": "number", "default": 1e-7},
                     "e": {"type": "array", "default": [1, "x", None, 2.0]}, "f": {"type": "object", "default": {"z": 1, "a": False}}, "g": {"type": "number", "default": 0}, "h": {"default": None}}),
    "numbers": obj({"a": {"type": "number", "minimum": 1.0, "maximum": 1e22}, "b": {"type": "integer", "minimum": -9007199254740993, "maximum": 0}, "c": {"type": "number", "minimum": 0.1, "maximum": 123456789.125},
                    "d": {"type": "number", "minimum": 1e16, "maximum": 1e15}, "e": {"type": "number", "minimum": 0.0001, "maximum": 0.00001}}),
    "enums": obj({"a": {"enum": ["x", "y\"z", None, 1, 2.5, True]}, "b": {"type": ["string", "null"], "enum": ["p", None]}, "c": {"type": "integer", "enum": [1, 2]}, "d": {"enum": []}}, ["b"]),
    "bad enum": obj({"a": {"type": "string", "enum": [1]}}), "bad enum type": obj({"a": {"type": ["string", "integer"], "enum": ["a"]}}),
    "arrays": obj({"a": {"type": "array", "items": {"type": "string", "description": "each\n\none", "pattern": "^a$"}}, "b": {"type": "array", "items": {}}, "c": {"type": "array", "items": True, "minItems": 1, "maxItems": 2},
                   "d": {"type": "array", "items": obj({"x": {"type": "integer", "description": "deep"}}, ["x"], description="an item")}, "e": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}}),
    "nested": obj({"o": obj({"p": obj({"q": {"type": "null"}}, [], additionalProperties={"type": "string"}), "r": obj({})}, description="outer", additionalProperties=True), "any": {}, "yes": True, "no": False}, ["o", "missing"]),
    "refs": obj({"n": {"$ref": "#/$defs/Node"}, "m": {"anyOf": [{"$ref": "#/$defs/Leaf"}, {"type": "null"}], "description": "one of"}}, ["n"],
                **{"$defs": {"Node": obj({"next": {"$ref": "#/$defs/Node"}, "v": {"type": "string"}}, ["v"], description="a node\nof a list"), "Leaf": {"type": "string", "enum": ["a"]}}}),
    "self": obj({"children": {"type": "array", "items": {"$ref": "#"}}, "name": {"type": "string", "description": "x"}}, ["name"]),
    "unknown ref": obj({"a": {"$ref": "#/$defs/None"}}), "other ref": obj({"a": {"$ref": "other.json"}}), "oneOf": obj({"a": {"oneOf": [{"const": "x"}]}}),
    "union": obj({"a": {"type": ["integer", "array", "object", "null"]}}), "bad union": obj({"a": {"type": ["date"]}}), "odd type": obj({"a": {"type": "date"}}),
    "nothing": {}, "no properties": {"type": "object"}, "closed": {"type": "object", "additionalProperties": False}, "bad more": obj({}, additionalProperties="x"),
    "ünïcode": obj({"größe": {"type": "string", "description": "Größe \u4e16\u754c \u007f \u2028"}}),
}

TEXT, REF = {"type": "string"}, {"$ref": "#/$defs/T"}
def odd(**more): return {"type": "object", **more}
ODD = {
    "null members of a schema": odd(description=None, **{"$defs": None}, additionalProperties=None, properties={
        "a": odd(description=None, properties={"b": {"type": "string", "description": None, "default": None, "minLength": None}}),
        "n": {"type": None}, "e": {"enum": [None], "type": None}, "l": {"type": "array", "items": None, "maxItems": None}}),
    "a null list of required names": odd(properties={"a": TEXT}, required=None),
    "null alternatives": odd(properties={"a": {"anyOf": None}}),
    "an entry of $defs that defines its own name anew": odd(properties={"a": REF}, **{"$defs": {"T": odd(properties={"x": TEXT, "y": {"$ref": "#/$defs/U"}}, **{"$defs": {"T": {"type": "integer"}, "U": TEXT}})}}),
    "a list as a constraint": odd(properties={"a": REF, "b": {"type": "array", "minItems": [1, "it's", None, {"k": 1.5}]}}, **{"$defs": {"T": {"type": "array", "minItems": [1]}}}),
    "descriptions that are no text, where none is written": odd(description={"en": "x"}, properties={"a": {"anyOf": [{"type": "string", "description": ["x"]}]}}),
    "a description that is no text": odd(properties={"a": {"type": "string", "description": ["x"]}}),
    "required names and values in a text": odd(properties={"a": {"enum": "xé"}, "bc": TEXT}, required="abc"),
    "more than 256 entries of $defs": odd(properties={"a": {"$ref": "#/$defs/T299"}}, **{"$defs": {"T%d" % i: {} for i in range(300)}}),
}

def extra():
    """Further conversations, most for what the tools' schemas may hold; "only" names the templates that are asked, else all of KIMI."""
    for name, s in SCHEMAS.items():
        yield {"name": "schema: " + name, "messages": [U], "tools": [tool("f-" + name.split()[0], s, "does it\nwell\n" if len(name) % 2 else None)]}
    yield {"name": "several tools, some of other types", "messages": [U], "tools": [{"type": "_plugin", "function": {"name": "p"}}, tool("b", {}), tool("a", None, ""), {"type": "function"}, tool("strict", obj({}), "s", strict=True)]}
    yield {"name": "no function among the tools", "messages": [U], "tools": [{"type": "_plugin", "name": "p"}]}
    yield {"name": "escapes in tools", "messages": [U], "tools": [tool("f", obj({"q": {"type": "string", "default": "\\ \b\f\n\r\t\u0001\u007f/ \U0001f600"}}))]}
    args = {"b": [1, 2.0, 1e100, -0.5, {"x": None}], "a": "é\n\"", "n": 12345678901234567890, "f": 0.1, "t": True}
    yield {"name": "arguments as an object", "messages": [U, {"role": "assistant", "content": None, "tool_calls": [call("f", args)]}, {"role": "tool", "tool_call_id": "functions.f:0", "content": "1"}]}
    yield {"name": "two calls in a message", "messages": [U, {"role": "assistant", "content": "Both.", "reasoning_content": "two", "tool_calls": [call("f", "{}"), call("g", "{ }", "functions.g:1")]},
           {"role": "tool", "tool_call_id": "functions.f:0", "content": "1"}, {"role": "tool", "tool_call_id": "functions.g:1", "content": "2"}, {"role": "assistant", "content": "3", "reasoning_content": "sum"}], "add_generation_prompt": False}
    yield {"name": "developer", "messages": [{"role": "developer", "content": "Be terse."}, U]}
    yield {"name": "names", "messages": [{"role": "system", "name": "boss", "content": "S"}, {"role": "user", "name": "ann", "content": "u"}, {"role": "assistant", "name": "bot", "content": "a"}, {"role": "user", "name": "", "content": "v"}]}
    yield {"name": "a system turn that is not the first", "messages": [U, {"role": "system", "content": "Now be brief."}]}
    yield {"name": "empty contents", "messages": [{"role": "system", "content": ""}, {"role": "user", "content": []}, {"role": "assistant", "content": None}]}
    yield {"name": "white space stays", "messages": [{"role": "user", "content": "  a \r\n\n b\t"}, {"role": "assistant", "content": "\n"}, {"role": "user", "content": " "}]}
    yield {"name": "empty tool_calls", "messages": [U, {"role": "assistant", "content": "x", "reasoning_content": "y", "tool_calls": []}, U]}
    long = [U, {"role": "assistant", "content": "a", "reasoning_content": "r1", "tool_calls": [call("f", "{}")]}, {"role": "tool", "tool_call_id": "functions.f:0", "content": "t"},
            {"role": "assistant", "content": "b", "reasoning_content": "r2"}, {"role": "user", "content": "more"}, {"role": "assistant", "content": "", "reasoning_content": "r3", "tool_calls": [call("f", "{}", "functions.f:1")]},
            {"role": "tool", "tool_call_id": "functions.f:1", "content": "t2"}]
    for kw in ({}, {"thinking": False}, {"thinking": True}):
        yield {"name": f"a long conversation {kw}", "messages": long, **({"chat_template_kwargs": kw} if kw else {}), "only": KIMI if not kw else ["k2.5", "k2.6"]}
    for kw in ({"preserve_thinking": True}, {"preserve_thinking": True, "thinking": False}, {"preserve_thinking": False}):
        yield {"name": f"a long conversation {kw}", "messages": long, "chat_template_kwargs": kw, "only": ["k2.6"]}

    for name, s in ODD.items(): yield {"name": name, "messages": [{"role": "user", "content": "q"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": s}}], "only": ["k2.5"]}

def plain(messages): return all(m["role"] in ("system", "user", "assistant", "tool") and (isinstance(m.get("content"), str) or m.get("tool_calls")) and m.get("tool_calls") != [] and
                               all(isinstance(c["function"]["arguments"], str) for c in m.get("tool_calls", [])) for m in messages)

lines = []
def put(name, c, expected=None):
    """Adds the golden of template `name` and conversation c, which has to be `expected` where the case says so."""
    r = {k: c[k] for k in ("messages", "tools", "chat_template_kwargs", "add_generation_prompt") if k in c}
    text = render(name, r)
    if expected is not None and text != expected: sys.exit(f"{name}: {c['name']}: the case says\n{expected!r}\nand the template\n{text!r}")
    lines.append({"template": name, "name": c["name"], "request": r, "text": text})

for c in json.load(open(cases))["cases"]:
    for name, text in c["expected"].items(): put(name, c, text)
    if plain(c["messages"]) and "chat_template_kwargs" not in c:
        put("deepseek-v3", {k: v for k, v in c.items() if k != "tools"})
        if all(isinstance(m["content"], str) and "name" not in m for m in c["messages"]): put("k2-first", c)
for c in extra():
    for name in c.get("only", KIMI): put(name, c)
    if plain(c["messages"]) and "tools" not in c and "chat_template_kwargs" not in c: put("deepseek-v3", c)
with open(out, "w") as f:
    for l in lines: f.write(json.dumps(l, ensure_ascii=False) + "\n")
print(len(lines), "prompts")
