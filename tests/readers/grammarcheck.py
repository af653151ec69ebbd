#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""grammarcheck.py GENGRAMMAR [SEED [ROUNDS]]

Random JSON schemas with random documents: a grammar must accept a document exactly when jsonschema, an independent
validator, says that it is valid.  Texts made by random choices from the masks, of schemas and of calls of random
sets of tools, must be valid.  Random regular expressions are compared with Python's, dates, addresses and UUIDs with its
library; where llguidance is installed, it must accept the same texts.  Exit 77 without jsonschema."""
import datetime
import ipaddress
import json
import random
import re
import subprocess
import sys
import uuid

try:
    from jsonschema import Draft202012Validator
except ImportError:
    print("skip: no jsonschema (pip install jsonschema)")
    sys.exit(77)
try:
    import llguidance
except ImportError:
    llguidance = None

KEYS = ["name", "city", "kind", "value", "a", "ab", "\u00e4", "with space", 'q"uote', "b"]
PATTERNS = [("^[a-c]+$", "abc"), ("^x.?", "x1"), ("[0-9]{2}$", "a42"), ("^(red|green)$", "red"), ("\\d-\\d", "1-2"),
            ("^\u00e4*$", "\u00e4\u00e4"), ('^"', '"q'), ("^[^x]$", "\\")]


def schema(r, depth):
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "types", "pattern"]
    if depth > 0:
        kinds += ["object", "object", "object", "array", "array", "anyOf", "ref", "map", "tuple", "any", "oneOf", "allOf", "beside"]
    kind = r.choice(kinds)
    if kind == "string":
        s = {"type": "string"}
        if r.random() < 0.4:
            s["minLength"] = r.randrange(3)
        if r.random() < 0.4:
            s["maxLength"] = r.randrange(2, 6)
        return s
    if kind in ("integer", "number"):
        s = {"type": kind}
        low = r.randrange(-120, 120) / (1 if kind == "integer" else 4)
        if r.random() < 0.4:
            s[r.choice(["minimum", "exclusiveMinimum"])] = low
        if r.random() < 0.4:
            s[r.choice(["maximum", "exclusiveMaximum"])] = low + r.randrange(2, 2000)
        if kind == "integer" and r.random() < 0.2:
            s["multipleOf"] = r.choice([2, 3, 7, 10])
        return {k: int(v) if isinstance(v, float) and v == int(v) else v for k, v in s.items()}
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "enum":
        return {"enum": r.sample(["red", "green", 1, 2.5, None, True, "\u00e4", 'q"'], 3)}
    if kind == "const":
        return {"const": r.choice(["x", 5, None, False, -1.25])}
    if kind == "types":
        return {"type": r.sample(["string", "integer", "boolean", "null", "array", "object"], 2)}
    if kind == "pattern":
        s = {"type": "string", "pattern": r.choice(PATTERNS)[0]}
        if r.random() < 0.3:
            s["maxLength"] = 4
        return s
    if kind == "object":
        keys = r.sample(KEYS, r.randrange(0, 5))
        s = {"type": "object", "properties": {k: schema(r, depth - 1) for k in keys}}
        s["required"] = [k for k in keys if r.random() < 0.5]
        if r.random() < 0.6:
            s["additionalProperties"] = False if r.random() < 0.7 else schema(r, depth - 1)
        return s
    if kind == "map":
        s = {"type": "object", "additionalProperties": schema(r, depth - 1)}
        if r.random() < 0.5:
            s["minProperties"], s["maxProperties"] = 1, r.randrange(1, 4)
        if r.random() < 0.3:
            s["propertyNames"] = {"pattern": "^[a-n]"}
        return s
    if kind == "array":
        s = {"type": "array", "items": schema(r, depth - 1)}
        if r.random() < 0.5:
            s["minItems"] = r.randrange(3)
        if r.random() < 0.5:
            s["maxItems"] = r.randrange(2, 5)
        return s
    if kind == "tuple":
        s = {"type": "array", "prefixItems": [schema(r, depth - 1) for _ in range(r.randrange(1, 3))]}
        if r.random() < 0.6:
            s["items"] = False if r.random() < 0.6 else schema(r, depth - 1)
        if r.random() < 0.4:
            s["minItems"] = r.randrange(3)
        return s
    if kind == "oneOf":
        return {"oneOf": [{"type": "object", "properties": {"kind": {"const": c}, "value": schema(r, depth - 1)},
                           "required": ["kind"]} for c in ("cat", "dog", 3)]}
    if kind == "allOf":
        number = {"type": "number", "minimum": r.randrange(9)}
        return {"allOf": [{"type": "object", "properties": {"name": schema(r, 0), "a": number}, "required": ["a"]},
                          {"properties": {"a": {"type": "integer", "maximum": r.randrange(9, 20)}, "b": schema(r, 0)}}],
                "required": ["name"]}
    if kind == "beside":
        return {"type": "object", "properties": {k: {"type": "integer"} for k in ("a", "b")},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}, {"properties": {"a": {"const": 1}}}]}
    if kind == "anyOf":
        return {"anyOf": [schema(r, depth - 1) for _ in range(r.randrange(1, 4))]}
    if kind == "ref":
        return {"$ref": "#/$defs/%s" % r.choice("xy")}
    return {}


def whole(r):
    s = schema(r, 3)
    x = {"type": "object", "properties": {"v": schema(r, 1), "w": schema(r, 1)}, "additionalProperties": False}
    return {"$defs": {"x": x if r.random() < 0.7 else schema(r, 0), "y": {"type": "array", "items": {"$ref": "#/$defs/x"}}}, **s}


def anything(r, depth=2):
    k = r.randrange(8 if depth else 5)
    return ([None, True, "red", r.randrange(-200, 200), r.randrange(-99, 99) + 0.5][k] if k < 5 else
            [anything(r, depth - 1) for _ in range(r.randrange(3))] if k < 6 else
            {r.choice(KEYS): anything(r, depth - 1) for _ in range(r.randrange(2))})  # one key is in any order


def document(r, s, root, depth=6):
    """A document that meets the schema more often than not; keys in the order of the schema."""
    if depth == 0 or not isinstance(s, dict):
        return anything(r)
    if "$ref" in s:
        return document(r, root["$defs"][s["$ref"][-1]], root, depth - 1)
    if "allOf" in s:
        o = {}
        for part in s["allOf"] * 2:
            for k, v in part["properties"].items():
                if r.random() < 0.7:
                    o[k] = document(r, v, root, depth - 1)
        return {k: o[k] for k in ("name", "a", "b") if k in o}
    if "anyOf" in s and "properties" not in s or "oneOf" in s:
        return document(r, r.choice(s.get("anyOf", s.get("oneOf"))), root, depth - 1)
    if "enum" in s:
        return r.choice(s["enum"])
    if "const" in s:
        return s["const"]
    t = s.get("type", "any")
    t = r.choice(t) if isinstance(t, list) else t
    if t == "string":
        if "pattern" in s:
            return dict(PATTERNS)[s["pattern"]] if r.random() < 0.7 else r.choice(["", "zz", "abcabc", "x"])
        return "".join(r.choice("ab\u00e4 \n\"\\") for _ in range(r.randrange(s.get("minLength", 0), s.get("maxLength", 5) + 2)))
    if t in ("integer", "number"):
        low = s.get("minimum", s.get("exclusiveMinimum", -50))
        high = max(low, s.get("maximum", s.get("exclusiveMaximum", low + 100)))
        v = r.randrange(int(low) - 2, int(high) + 3)
        return v if t == "integer" or r.random() < 0.4 else v + r.choice([0.25, 0.5, 0.75])
    if t == "boolean":
        return r.random() < 0.5
    if t == "null":
        return None
    if t == "array":
        n = r.randrange(s.get("minItems", 0), s.get("maxItems", 3) + 2)
        prefix = s.get("prefixItems", [])
        return [document(r, prefix[i] if i < len(prefix) else s.get("items", {}), root, depth - 1) for i in range(n)]
    if t == "object":
        o = {k: document(r, v, root, depth - 1) for k, v in s.get("properties", {}).items()
             if k in s.get("required", []) or r.random() < 0.6}
        more = s.get("additionalProperties", True)
        for k in r.sample(KEYS, r.randrange(3)) if r.random() < 0.6 else []:
            if k not in s.get("properties", {}):
                o[k] = document(r, more, root, depth - 1)
        if o and r.random() < 0.1:
            del o[r.choice(list(o))]
        return o
    return anything(r)


def spelled(r, v):
    return r.choice([lambda: json.dumps(v, ensure_ascii=False, separators=(",", ":")),
                     lambda: json.dumps(v, ensure_ascii=False), lambda: json.dumps(v, ensure_ascii=False, indent=2)])()


def expected(s, v):
    return Draft202012Validator(s).is_valid(v)


def ask(helper, cases):
    lines = "".join(json.dumps(c) + "\n" for c in cases)
    p = subprocess.run([helper], input=lines, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in p.stdout.splitlines()]


def compare_llguidance(cases, answers):
    """Another engine for constrained decoding must accept the same texts."""
    wrong, same, tokenizer = [], 0, llguidance.LLTokenizer("byte")
    for c, answer in zip(cases, answers):
        matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(c["schema"]))
        if "code" in answer or matcher.is_error():  # it has no propertyNames
            continue
        for text, got in zip(c["texts"], answer["accepts"]):
            m, ids = matcher.deep_copy(), tokenizer.tokenize_bytes(text.encode())
            m.reset()
            true = m.try_consume_tokens(ids) == len(ids) and m.is_accepting()
            same += true == got
            if true != got:
                wrong.append((c["schema"], text, "accepted by llguidance" if true else "refused by llguidance"))
    print("llguidance: %d texts as here" % same)
    return wrong


def check_schemas(helper, r, rounds):
    cases, truths, wrong = [], [], []
    for i in range(rounds):
        s = whole(r)
        docs = [document(r, s, s) if r.random() < 0.85 else anything(r) for _ in range(12)]
        cases.append({"schema": json.dumps(s), "texts": [spelled(r, d) for d in docs], "walks": 3, "seed": i})
        truths.append([expected(s, d) for d in docs])
    valid = invalid = walks = refused = 0
    answers = ask(helper, cases)
    if llguidance:
        wrong += compare_llguidance(cases, answers)
    for c, truth, answer in zip(cases, truths, answers):
        s = json.loads(c["schema"])
        if "code" in answer:
            refused += 1
            # the only reason that these schemas give is that nothing meets them
            if answer["message"] != "no text meets it" or any(truth):
                wrong.append((c["schema"], answer["message"]))
            continue
        for text, true, got in zip(c["texts"], truth, answer["accepts"]):
            valid, invalid = valid + true, invalid + (not true)
            if true != got:
                wrong.append((c["schema"], text, "valid" if true else "invalid"))
        for text in answer["walks"]:
            walks += 1
            try:
                good = expected(s, json.loads(text))
            except ValueError:
                good = False
            if not good:
                wrong.append((c["schema"], text, "made by masks"))
    print("%d schemas: %d valid and %d invalid documents, %d texts made by masks, %d schemas that nothing meets"
          % (rounds, valid, invalid, walks, refused))
    return wrong


def check_tools(helper, r, rounds):
    cases, sets, wrong, calls = [], [], [], 0
    for i in range(rounds):
        tools = {}
        for name in r.sample(["get_weather", "get.time", "search-web", "f", "functions"], r.randrange(1, 4)):
            s = whole(r)
            while s.get("type") != "object":
                s = whole(r)
            tools[name] = s
        sets.append(tools)
        cases.append({"tools": [{"name": n, "parameters": json.dumps(s)} for n, s in tools.items()], "walks": 2, "seed": i})
    refused = 0
    for tools, answer in zip(sets, ask(helper, cases)):
        if "code" in answer:
            refused += 1
            if answer["message"] != "no text meets it":
                wrong.append((tools, answer["message"]))
            continue
        for text in answer["walks"]:
            section = re.fullmatch("\ue000((?:\ue002[^\ue003]*\ue003[^\ue004]*\ue004)+)\ue001", text, re.S)
            if not section:
                wrong.append((tools, text, "not a section"))
                continue
            for k, (name, index, arguments) in enumerate(re.findall(
                    "\ue002functions\\.([^\ue003]*):(\\d+)\ue003([^\ue004]*)\ue004", section.group(1))):
                calls += 1
                if name not in tools or int(index) != k or not expected(tools[name], json.loads(arguments)):
                    wrong.append((tools.get(name), text, "call %d" % k))
    print("%d sets of tools: %d calls, %d sets that nothing meets" % (rounds, calls, refused))
    return wrong


def regex(r, depth):
    """A random regular expression of the syntax that both know."""
    atom = r.choice(["a", "b", "c", "-", "\\.", "\\d", "\\w", "\\s", "\\W", "[a-c]", "[^a]", "[\\d-]", ".", "\u00e4", "[^\\w]",
                     "\\u00e4", "\\x41", "[\\]b]", "\\n"])
    if depth and r.random() < 0.6:
        inner = "|".join("".join(regex(r, depth - 1) for _ in range(r.randrange(1, 4))) for _ in range(r.randrange(1, 3)))
        atom = r.choice(["(%s)", "(?:%s)"]) % inner
    return atom + (r.choice(["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "{0,1}"]) if r.random() < 0.4 else "")


def check_regexes(helper, r, rounds):
    cases, truths, wrong, matches, others, large = [], [], [], 0, 0, 0
    for _ in range(rounds):
        p = "".join(regex(r, 2) for _ in range(r.randrange(1, 4)))
        texts = ["".join(r.choice("abc-. 1A]_\u00e4\u20ac\n") for _ in range(r.randrange(7))) for _ in range(40)]
        cases.append({"regex": p, "texts": texts})
        truths.append([re.fullmatch(p, t, re.A) is not None for t in texts])
        begin, end = r.choice(["", "^"]), r.choice(["", "$"])
        p = begin + p + end
        texts = [t for t in texts if not t.endswith("\n")]  # before which Python's $ matches
        cases.append({"schema": json.dumps({"type": "string", "pattern": p}), "pattern": p,
                      "texts": [json.dumps(t, ensure_ascii=False) for t in texts]})
        truths.append([re.search(p, t, re.A) is not None for t in texts])
    for c, truth, answer in zip(cases, truths, ask(helper, cases)):
        if "code" in answer:
            large += 1
            if "too large" not in answer["message"] or large > rounds // 5:
                wrong.append((c, answer["message"]))
            continue
        matches += sum(truth)
        others += len(truth) - sum(truth)
        wrong += [(c.get("pattern", c.get("regex")), t, "matches" if true else "does not match")
                  for t, true, got in zip(c["texts"], truth, answer["accepts"]) if true != got]
    print("%d regular expressions: %d texts that match, %d that do not; %d too large"
          % (2 * rounds, matches, others, large))
    return wrong


def is_a(kind, text):
    try:
        if kind == "date":
            return re.fullmatch("\\d{4}-\\d\\d-\\d\\d", text, re.A) and bool(datetime.date.fromisoformat(text))
        if kind == "uuid":
            return re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) and bool(uuid.UUID(text))
        return bool(ipaddress.IPv4Address(text) if kind == "ipv4" else ipaddress.IPv6Address(text))
    except ValueError:
        return False


def check_formats(helper, r, rounds):
    def hex_words(n):
        return ["%x" % r.randrange(1 << r.choice([4, 8, 16])) for _ in range(n)]
    made = {
        "date": lambda: "%04d-%02d-%02d" % (r.choice([1900, 2000, 2023, 2024, 2100, 2400, 1]), r.randrange(14), r.randrange(33)),
        "uuid": lambda: str(uuid.UUID(int=r.getrandbits(128))),
        "ipv4": lambda: ".".join(str(r.choice([0, 9, 10, 99, 100, 199, 249, 255, 256])) for _ in range(r.choice([3, 4, 4, 4, 5]))),
        "ipv6": lambda: r.choice([":".join(hex_words(8)), ":".join(hex_words(r.randrange(9))) + "::" + ":".join(hex_words(r.randrange(9)))]),
    }
    cases, wrong, valid = [], [], 0
    for kind, make in made.items():
        texts = [make() for _ in range(rounds)]
        for t in texts[::4]:  # one character changed
            i = r.randrange(len(t))
            texts.append(t[:i] + r.choice("0159:.-ag") + t[i + 1:])
        texts = [t for t in texts if kind != "ipv6" or "." not in t]
        cases.append({"schema": json.dumps({"type": "string", "format": kind}), "kind": kind, "texts": [json.dumps(t) for t in texts]})
    for c, answer in zip(cases, ask(helper, cases)):
        for text, got in zip(c["texts"], answer["accepts"]):
            true = bool(is_a(c["kind"], json.loads(text)))
            valid += true
            if true != got:
                wrong.append((c["kind"], text, "valid" if true else "invalid"))
    print("formats: %d valid texts, %d invalid" % (valid, sum(len(c["texts"]) for c in cases) - valid))
    return wrong


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 400
    r = random.Random(seed)
    wrong = check_schemas(sys.argv[1], r, rounds) + check_tools(sys.argv[1], r, 200)
    wrong += check_regexes(sys.argv[1], r, rounds // 4) + check_formats(sys.argv[1], r, rounds)
    for w in wrong[:10]:
        print("wrong:", *w, sep="\n  ")
    sys.exit(1 if wrong else 0)


main()
