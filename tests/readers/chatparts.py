# SPDX-License-Identifier: Apache-2.0
"""Checks what moe-run says of an answer in a chat: chatparts.py FILE SPECIAL THINKING [PRINTED].

FILE has the JSON of a run with logprobs, SPECIAL the tokenizer_config.json with the markers' names; THINKING is 1
when the answer begins with thinking; PRINTED is the output of the same run without --json.  The parts are made
again here from the bytes of the tokens, in another way: all of the answer at once, cut at markers."""
import codecs, json, re, sys

codecs.register_error("each", lambda e: ("\ufffd" * (e.end - e.start), e.end))
run = json.load(open(sys.argv[1]))
added = json.load(open(sys.argv[2]))["added_tokens_decoder"]
names = {int(i): v["content"] for i, v in added.items()}
text_too = {i for i, v in ((int(i), v) for i, v in added.items()) if not v["special"]}
thinking = sys.argv[3] == "1"

# pieces: markers as (name, None), text as (None, text); only so much as `text` has
pieces, data = [], b""
def flush():
    global data
    if data: pieces.append((None, data.decode("utf-8", "each")))
    data = b""
for t in run["logprobs"]["content"]:
    if t["id"] not in names: data += bytes(t["bytes"])
    elif t["id"] in text_too: flush(); pieces.append((names[t["id"]], None))
flush()
left, kept = len(run["text"].encode()), []
for mark, text in pieces:
    size = len((mark or text).encode())
    if size > left and mark:
        left = 0
        break
    kept.append((mark, text if mark or size <= left else text.encode()[:left].decode()))
    left -= size
    if left < 0: break
assert left <= 0 or len(kept) == len(pieces), (left, pieces)

SECTION, END, CALL, ARG, CALL_END = ("<|tool_call%s|>" % s for s in ("s_section_begin", "s_section_end", "_begin", "_argument_begin", "_end"))
parts, calls = [], []                 # (kind, text); [id, name, arguments, complete]
where, id = "thinking" if thinking else "content", ""
def content(s):
    global where
    if where == "behind":
        s = s.lstrip(" \t\r\n")
        if s: where = "content"
    if s: parts.append(("reasoning" if where == "thinking" else "content", s))
def no_call():
    global where, id
    where, s, id = "behind", id, ""
    content(s)
for mark, text in kept:
    inside = where in ("id", "arguments")
    if mark in ("<think>", "</think>") and inside: mark, text = None, mark
    if mark is None:
        if where == "id": id += text
        elif where == "arguments": calls[-1][2] += text; parts.append(("arguments", text))
        else: content(text)
    elif mark == "<think>": where = "thinking"
    elif mark == "</think>": where = "content" if where == "thinking" else where
    elif mark == ARG:
        if where != "id": continue
        name = re.sub(r"^functions\.", "", id.strip(" \t\r\n"))
        if re.fullmatch(r"(?s).*:[0-9]+", name): name = name[:name.rindex(":")]
        if not name: no_call(); continue
        calls.append([id.strip(" \t\r\n"), name, "", False]); parts.append(("call", len(calls) - 1))
        where, id = "arguments", ""
    elif mark == CALL_END:
        if where == "id": no_call()
        elif where == "arguments": calls[-1][3] = True; where = "behind"
    else:
        if where == "id": no_call()
        if where == "arguments": where = "behind"
        if mark == CALL: where, id = "id", ""
        elif mark == SECTION or where != "thinking": where = "behind"

def joined(kind): return "".join(s for k, s in parts if k == kind)
want = {"content": joined("content") or None}
if joined("reasoning"): want["reasoning_content"] = joined("reasoning")
if calls: want["tool_calls"] = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a, _ in calls]
got = {k: run[k] for k in ("content", "reasoning_content", "tool_calls") if k in run}
assert got == want, "\n%s\nis not\n%s\nof %s" % (got, want, kept)

if len(sys.argv) > 4:
    out, last = "", None
    def fresh(): return "" if not out or out.endswith("\n") else "\n"
    for kind, s in parts:
        if last == "reasoning" and kind != "reasoning": out += fresh() + "</think>\n"
        if kind == "call" or (last in ("call", "arguments") and kind in ("content", "reasoning")): out += fresh()
        if kind == "reasoning" and last != "reasoning": out += fresh() + "<think>\n"
        out += "tool call %s (%s): " % (calls[s][1], calls[s][0]) if kind == "call" else s
        last = kind
    out += "\n" if run["tokens"] else ""
    printed = open(sys.argv[4], newline="").read()
    assert printed == out, "\n%r\nis not\n%r" % (printed, out)
print(len(calls), "reasoning_content" in got, bool(got["content"]))
