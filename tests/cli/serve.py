# SPDX-License-Identifier: Apache-2.0
"""Tests a running moe-serve with Python's standard library: serve.py BIN TMP MODEL [GROUP...]."""
import atexit
import collections
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

BIN, TMP, MODEL = sys.argv[1:4]
SLOW = 10 if os.environ.get("MOE_SAN") == "1" else 1  # sanitizers take that many times as long
checks = 0


def check(ok, what, *seen):
    global checks
    checks += 1
    if not ok:
        raise SystemExit("FAIL: %s %s" % (what, " ".join(repr(x)[:600] for x in seen)))


class Server:
    def __init__(self, *options, model=MODEL):
        self.process = subprocess.Popen([BIN + "/moe-serve", model, "--port", "0", "--json", "-q", *options],
                                        stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)  # where a check fails
        line = self.process.stdout.readline()
        check(line, "no first line")
        self.info = json.loads(line)
        self.port = int(self.info["listening"].rsplit(":", 1)[1])

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)

    def ask(self, path, body=None, method=None, headers={}):
        """The status, headers and body (JSON) of one request."""
        c = self.connect()
        data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        c.request(method or ("GET" if body is None else "POST"), path, data, headers)
        r = c.getresponse()
        text = r.read()
        c.close()
        return r.status, r.headers, json.loads(text) if text else None

    def complete(self, **body):
        status, _, answer = self.ask("/v1/completions", body)
        check(status == 200, "completion", body, status, answer)
        return answer

    def stream(self, path="/v1/completions", **body):
        c = self.connect()
        c.request("POST", path, json.dumps(dict(body, stream=True)))
        r = c.getresponse()
        check(r.status == 200 and r.headers["Content-Type"] == "text/event-stream", "stream", r.status)
        events = events_of(r.read().decode())
        c.close()
        return events

    def info_now(self):
        return self.ask("/server_info")[2]

    def wait(self, what, holds, seconds=10):
        """Waits until the numbers of the server are so; returns the seconds that it took."""
        begun = time.monotonic()
        while time.monotonic() < begun + seconds * SLOW:
            now = self.info_now()
            if holds(now):
                return time.monotonic() - begun
            time.sleep(0.02)
        check(False, what, now)

    def idle(self, seconds=10):
        return self.wait("idle", lambda n: n["requests"] == 1 and not n["running"] and not n["waiting"] and
                         not n["held"] and not n["pages_used"], seconds)

    def end(self, code=0):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(60) == code, "exit code", self.process.returncode)


def events_of(text):
    check(text.endswith("data: [DONE]\n\n"), "no end of the stream", text[-200:])
    lines = [x for x in text.split("\n\n") if x and x != ":"]
    check(all(x.startswith("data: ") for x in lines), "events", lines[:3])
    return [json.loads(x[6:]) for x in lines[:-1]]


def run_alone(requests):
    """What moe-run answers, each prompt alone in its own order."""
    path = TMP + "/requests.jsonl"
    with open(path, "w") as f:
        f.write("".join(json.dumps(q) + "\n" for q in requests))
    out = subprocess.run([BIN + "/moe-run", MODEL, "-q", "--json", "--prompts", path, "--max-sequences", "1"],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)["sequences"]


def refused(server, status, param, text, body, path="/v1/completions", code=None):
    got, _, answer = server.ask(path, body)
    e = (answer or {}).get("error", {})
    check(got == status and e.get("param") == param and text in e.get("message", "") and e.get("code") == code,
          "refusal of %r" % (body,), got, answer)


# ---- the groups ----

def routes(s):
    check(set(s.info) == {"listening", "model", "context", "cache_tokens", "role"} and s.info["model"] == "bf16",
          "first line", s.info)
    check(s.ask("/health")[::2] == (200, {"status": "ready"}), "health")
    check(s.ask("/version")[2]["version"], "version")
    models = s.ask("/v1/models")[2]
    check([m["id"] for m in models["data"]] == ["bf16"] and models["data"][0]["max_model_len"] == s.info["context"],
          "models", models)
    check(s.ask("/v1/models/bf16")[2]["id"] == "bf16", "a model")
    check(s.ask("/v1/models/x")[0] == 404 and s.ask("/v1/model")[0] == 404 and s.ask("/v1/completions/")[0] == 404, "404")
    status, headers, _ = s.ask("/health", {}, "POST")
    check(status == 405 and headers["Allow"] == "GET, HEAD", "405", status, headers)
    status, headers, _ = s.ask("/v1/completions")
    check(status == 405 and headers["Allow"] == "POST", "405 of a GET", status, headers)
    check(s.ask("/health", method="HEAD")[0] == 200, "HEAD")
    ids = s.ask("/tokenize", {"prompt": "Once upon <|im_end|>"})[2]
    check(len(ids["tokens"]) == ids["count"] > 4 and ids["max_model_len"] == s.info["context"], "tokenize", ids)
    check(s.ask("/detokenize", {"tokens": ids["tokens"]})[2] == {"prompt": "Once upon <|im_end|>"}, "detokenize")
    check(s.ask("/health", headers={"X-Request-Id": "abc-1"})[1]["X-Request-Id"] == "abc-1", "request id")
    check(s.ask("/health", headers={"X-Request-Id": "a b"})[1]["X-Request-Id"].startswith("req-"), "a bad request id")


def refusals(s):
    p = {"prompt": "Once"}
    for status, param, text, body in [
            (400, "prompt", "no 'prompt'", {}), (400, "prompt", "neither", {"prompt": 1}),
            (400, "prompt", "neither", {"prompt": ["a", {}]}), (400, "prompt", "empty", {"prompt": []}),
            (400, "prompt", "neither", {"prompt": [1.5]}),
            (400, "prompt", "outside the model's vocabulary of 1024", {"prompt": [1, 1024]}),
            (400, "n", "want 1 to 128", dict(p, n=129)), (400, "n", "more than 128", {"prompt": ["a", "b"], "n": 65}),
            (400, "temperature", "", dict(p, temperature=-1)), (400, "stop", "", dict(p, stop=1)),
            (400, "echo", "not supported", dict(p, echo=True)), (400, "guided_json", "", dict(p, guided_json={})),
            (400, "response_format", "", dict(p, response_format={"type": "json_object"})),
            (400, "stream_options", "", dict(p, stream_options={})), (400, "logprobs", "", dict(p, logprobs=21)),
            (400, "model", "not a text", dict(p, model=1)),
            (400, None, "not JSON", "{"), (400, None, "object", "[1]"), (400, None, "", b'{"prompt": "\xff"}'),
            (400, None, "", '{"prompt": "a", "prompt": "b"}'), (400, None, "", '{"a":' * 70 + "1" + "}" * 70)]:
        refused(s, status, param, text, body)
    refused(s, 404, "model", "'bf16' is served", dict(p, model="gpt-4"), code="model_not_found")
    refused(s, 400, "prompt", "1025 tokens, and the context holds 1024", {"prompt": [1] * 1025},
            code="context_length_exceeded")
    refused(s, 400, "tokens", "no id below 1024", {"tokens": [1024]}, "/detokenize")
    refused(s, 400, "prompt", "not a text", {"prompt": 1}, "/tokenize")
    s.complete(prompt="Once", unknown=1, user="u", best_of=1, stream=None)
    check(s.complete(prompt=[1] * 1024)["choices"][0]["finish_reason"] == "length", "a full context")


PROMPTS = ["Once upon", "And it came to pass", "In the beginning", "Blessed are the", [1, 2, 3], "And the LORD"]


def request(i):
    """One of many requests, all different."""
    q = {"prompt": PROMPTS[i % len(PROMPTS)], "max_tokens": 3 + i % 23, "temperature": [0, 0.8, 1.3][i % 3], "seed": i}
    if i % 4 == 1:
        q["stop"] = ["and", " the LORD"]
    if i % 5 == 2:
        q["n"] = 2
    if i % 7 == 3:
        q["frequency_penalty"] = 0.5
    if i % 6 == 5:
        q["ignore_eos"] = True
    return q


def as_run(sequence):
    choices = sequence.get("choices") or [sequence]
    return [(c["text"], c["tokens"], c["finish_reason"]) for c in choices]


def as_served(answer):
    return [(c["text"], c["token_ids"], c["finish_reason"]) for c in answer["choices"]]


def joined(events):
    """The choices of a stream, put together."""
    out = {}
    for e in events:
        for c in e["choices"]:
            o = out.setdefault(c["index"], {"text": "", "token_ids": [], "finish_reason": None, "logprobs": None})
            check(o["finish_reason"] is None, "something behind the end of a choice", e)
            o["text"] += c["text"]
            o["token_ids"] += c.get("token_ids", [])
            o["finish_reason"] = c["finish_reason"]
            for k, v in (c["logprobs"] or {}).items():
                o["logprobs"] = o["logprobs"] or {}
                o["logprobs"].setdefault(k, []).extend(v)
    return {"choices": [out[i] for i in sorted(out)]}


def same_tokens(s):
    requests = [request(i) for i in range(24)]
    for q, sequence in zip(requests, run_alone(requests)):
        whole = s.complete(**q, return_token_ids=True, logprobs=2)
        check(as_served(whole) == as_run(sequence), "not moe-run's answer", q, whole, sequence)
        events = s.stream(**q, return_token_ids=True, logprobs=2, stream_options={"include_usage": True})
        usage = events.pop()
        parts = joined(events)
        check(as_served(parts) == as_served(whole), "the stream is not the whole", parts, whole)
        check([c["logprobs"] for c in parts["choices"]] == [c["logprobs"] for c in whole["choices"]],
              "logprobs of a stream", parts, whole)
        check(usage["choices"] == [] and usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] ==
              sum(len(c["token_ids"]) for c in whole["choices"]), "usage", usage, whole["usage"])
        check(len({e["id"] for e in events + [usage]}) == 1 and all("usage" not in e for e in events), "ids", events[:2])
    several = s.complete(prompt=["Once upon", [1, 2, 3]], n=2, temperature=0, max_tokens=4, return_token_ids=True)
    alone = [s.complete(prompt=p, temperature=0, max_tokens=4, return_token_ids=True) for p in ("Once upon", [1, 2, 3])]
    check(as_served(several) == [c for a in alone for c in as_served(a) * 2], "several prompts", several)
    check([c["index"] for c in several["choices"]] == [0, 1, 2, 3], "indices", several)
    check(several["usage"]["prompt_tokens"] == sum(a["usage"]["prompt_tokens"] for a in alone), "usage of several", several)
    check(s.complete(prompt=[5] * 200, max_tokens=1)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "cached")
    check(s.complete(prompt=[5] * 200, max_tokens=1)["usage"]["prompt_tokens_details"]["cached_tokens"] >= 192, "cached")
    texts = {s.complete(prompt="Once upon", temperature=2, max_tokens=12)["choices"][0]["text"] for _ in range(4)}
    check(len(texts) > 1, "without a seed each answer has the same draws", texts)


def long(i=0, **more):
    """A request that takes long: 128 answers that go on to the end of the context."""
    return dict({"prompt": "Once upon", "n": 128, "max_tokens": 1000, "ignore_eos": True, "temperature": 1, "seed": i}, **more)


def send(s, body, room=0):
    """A connection with a request; room: bytes that it takes without being read."""
    c = socket.socket()
    if room:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    c.connect(("127.0.0.1", s.port))
    data = json.dumps(body).encode()
    c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return c


def gone(s):
    """Clients that close: their requests end within about a second."""
    for stream in (False, True):
        for reset in (False, True):
            c = send(s, long(stream=stream))
            s.wait("running", lambda n: n["running"] == 128)
            if reset:
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            c.close()
            took = s.idle()
            check(took < 1.2 * SLOW, "a client that is gone took %.2f s" % took)
    for _ in range(20):  # before the answer has begun
        send(s, long()).close()
    check(s.idle() < 3 * SLOW, "clients that close at once")


def slow_reader(s):
    """A client that does not read holds nobody up, and gets all when it reads."""
    q = dict(long(3, n=4), stream=True, logprobs=20, return_token_ids=True)
    c = send(s, q, 4096)
    s.wait("held", lambda n: n["held"] > 0 and not n["running"], 20)
    begun = time.monotonic()
    check(s.complete(prompt="Once upon", temperature=0, max_tokens=8)["usage"]["completion_tokens"] == 8, "others")
    check(time.monotonic() - begun < 2 * SLOW, "a client that does not read holds up others")
    r = http.client.HTTPResponse(c, method="POST")
    r.begin()
    parts = joined(events_of(r.read().decode()))
    c.close()
    whole = s.complete(**dict(q, stream=False, logprobs=None))
    check(as_served(parts) == as_served(whole), "what a slow reader gets")
    s.idle()


def get_raw(s, data, wait=True):
    c = socket.create_connection(("127.0.0.1", s.port), timeout=2 * SLOW)
    try:
        c.sendall(data)
        if wait:
            c.shutdown(socket.SHUT_WR)
        out = b""
        while wait:
            got = c.recv(65536)
            if not got:
                break
            out += got
        return out
    except OSError:  # it was closed
        return b""
    finally:
        c.close()


def hostile(s):
    for data in (b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\n\r\n",
                 b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100000 + b"\r\n\r\n", b"GET /" + b"a" * 100000,
                 b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
                 b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
                 b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{}"):
        out = get_raw(s, data)
        check(not out.startswith(b"HTTP/1.1 200"), "answered", data[:60], out[:100])
    # two requests at once on one connection; a body in chunks; HTTP/1.0
    two = get_raw(s, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    check(two.count(b"200 OK") == 2 and b"version" in two, "pipelined", two)
    check(b"200 OK" in get_raw(s, b"GET /health HTTP/1.0\r\n\r\n"), "HTTP/1.0")
    c = s.connect()
    c.request("POST", "/v1/completions", iter([b'{"prompt": "On', b'ce", "max_tokens": 2}']), encode_chunked=True,
              headers={"Transfer-Encoding": "chunked"})
    check(c.getresponse().status == 200, "a body in chunks")
    c.close()
    # bodies at and above the limit; far above it
    limit = 4 << 20
    at = json.dumps({"prompt": [1], "max_tokens": 1, "x": ""}).encode()
    body = at[:-2] + b"a" * (limit - len(at)) + at[-2:]
    check(len(body) == limit and s.ask("/v1/completions", body)[0] == 200, "a body at the limit")
    check(s.ask("/v1/completions", body + b" ")[0] == 413, "a body above the limit")
    got = get_raw(s, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", True)
    check(b" 413 " in got, "a body far above the limit", got)
    s.wait("no bytes of bodies", lambda n: n["body_bytes"] == 0, 3)
    # bodies that never come hold nobody up
    slow = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(50)]
    for i, c in enumerate(slow):
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"[:20 + 2 * i])
    check(s.ask("/health")[0] == 200, "health beside slow bodies")
    for c in slow:
        c.close()
    s.idle()


def connections(s):
    """1,000 connections that do nothing."""
    idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(1000)]
    begun = time.monotonic()
    check(s.ask("/health")[0] == 200 and time.monotonic() - begun < 1 * SLOW, "health beside 1,000 connections")
    for c in idle:
        c.close()


def crowd():
    """200 requests at once, some of which are given up, in a small cache: each answer is moe-run's."""
    s = Server("--cache", "500K", "--max-sequences", "16", "--queue", "1000")
    requests = [request(i) for i in range(200)]
    for q in requests[::2]: # these outgrow a page of the cache, which takes pages from others
        q.update(max_tokens=180, ignore_eos=True)
    alone = run_alone(requests)
    failed = []

    def ask(i):
        try:
            if i % 10 == 9:
                c = send(s, dict(requests[i], max_tokens=900, ignore_eos=True, stream=i % 20 == 9))
                time.sleep(0.01 * (i % 7))
                c.close()
            elif i % 2:
                events = s.stream(**requests[i], return_token_ids=True)
                check(as_served(joined(events)) == as_run(alone[i]), "a stream in a crowd", requests[i], events)
            else:
                check(as_served(s.complete(**requests[i], return_token_ids=True)) == as_run(alone[i]), "an answer in a crowd",
                      requests[i])
        except BaseException as e:  # of a thread, which would end alone
            failed.append((i, e))
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check(not failed, "a crowd", failed[:3])
    s.idle(20)
    check(s.info_now()["preemptions"] > 0, "nothing was preempted", s.info_now())
    s.end()


def full():
    """A queue that is full; then a server that drains, or is made to end."""
    s = Server("--max-sequences", "2", "--queue", "2", "--batch-tokens", "8")
    c = send(s, long(n=2))
    s.wait("running", lambda n: n["running"] == 2)
    d = send(s, long(n=2))
    s.wait("waiting", lambda n: n["waiting"] == 2)
    status, headers, answer = s.ask("/v1/completions", {"prompt": "a"})
    check(status == 429 and headers["Retry-After"] == "1" and answer["error"]["code"] == "queue_full", "429", status, answer)
    c.close()
    d.close()
    s.idle()
    s.complete(prompt="a")
    s.end()


def numbers(server, headers={}):
    """The metrics as a dictionary; their format is checked."""
    c = server.connect()
    c.request("GET", "/metrics", headers=headers)
    r = c.getresponse()
    text = r.read().decode()
    c.close()
    check(r.status == 200 and r.headers["Content-Type"].startswith("text/plain; version=0.0.4"), "metrics", r.status)
    out, typed = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            check(line.split()[2] not in typed, "a type twice", line)
            typed.add(line.split()[2])
        elif not line.startswith("#"):
            check(re.fullmatch(r'[a-z:_0-9A-Z]+(\{([a-z_]+="[^"]*",?)+\})? [-+.e0-9]+', line), "a line of metrics", line)
            key, value = line.rsplit(" ", 1)
            check(key not in out, "a number twice", line)
            out[key] = float(value)
            check(re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", key) in typed or key.split("{")[0] in typed, "no type", key)
    return out


def operation():
    """Metrics, keys, the access log."""
    keys, log = TMP + "/keys", TMP + "/access.jsonl"
    secret = {"alice": "a-key-of-alice-0123", "bob": "b-key-of-bob-012345"}
    digest = hashlib.sha256(secret["bob"].encode()).hexdigest()
    with open(keys, "w") as f:
        f.write("# keys\n\nalice %s\nbob sha256:%s\n" % (secret["alice"], digest))

    def refuses(text, *options):
        r = subprocess.run([BIN + "/moe-serve", MODEL, "--port", "0", *options], capture_output=True, text=True)
        check(r.returncode == 2 and text in r.stderr and "alice-0123" not in r.stderr, "options", options, r)
    os.chmod(keys, 0o644)
    refuses("others can reach the keys", "--api-key-file", keys)
    os.chmod(keys, 0o600)
    for text, lines in (("line 1 has a key of fewer", "short\n"), ("line 2 has a key that was there", "a-key-of-alice-0123\n" * 2),
                        ("line 1 has no digest", "x sha256:12\n"), ("holds no key", "#\n"), ("line 1 has more than", "a b c\n")):
        with open(keys + ".bad", "w") as f:
            f.write(lines)
        os.chmod(keys + ".bad", 0o600)
        refuses(text, "--api-key-file", keys + ".bad")
    refuses("others may reach it", "--host", "0.0.0.0")
    s = Server("--host", "0.0.0.0", "--api-key-file", keys, "--access-log", log)
    as_user = {n: {"Authorization": "Bearer " + k} for n, k in secret.items()}
    q = {"prompt": [7] * 200, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic " + secret["alice"]}, {"Authorization": "Bearer "},
                    {"Authorization": "Bearer " + secret["alice"] + "x"}, {"Authorization": "Bearer sha256:" + digest}):
        status, got, answer = s.ask("/v1/completions", q, headers=headers)
        check(status == 401 and got["WWW-Authenticate"] == "Bearer" and answer["error"]["code"] == "invalid_api_key", "401", status)
        check(s.ask("/nothing", headers=headers)[0] == 401 and s.ask("/metrics", headers=headers)[0] == 401, "401 elsewhere")
    check(s.ask("/health")[0] == 200 and s.ask("/version")[0] == 200, "what needs no key")

    def cached(user, **more):
        status, _, answer = s.ask("/v1/completions", dict(q, **more), headers=as_user[user])
        check(status == 200, "a key", status, answer)
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    check(cached("alice") == 0 and cached("bob") == 0 and cached("alice") > 100 and cached("bob") > 100, "a cache for each key")
    check(cached("bob", cache_salt="x") == 0 and cached("bob", cache_salt="x") > 100, "a cache for each salt of a key")
    c = s.connect()
    c.request("POST", "/v1/completions", json.dumps(dict(q, stream=True)), as_user["alice"])
    c.getresponse().read()
    c.close()
    time.sleep(0.3)
    n = numbers(s, as_user["alice"])
    check(n["moe_generated_tokens_total"] == 28 == n['vllm:generation_tokens_total{model_name="bf16"}'], "tokens", n)
    check(n['moe_requests_finished_total{reason="length"}'] == 7 == n["moe_request_seconds_count"] ==
          n["moe_time_to_first_token_seconds_count"] == n['moe_time_to_first_token_seconds_bucket{le="+Inf"}'], "requests", n)
    check(n['moe_http_answers_total{status="2xx"}'] == 9 and n['moe_http_answers_total{status="4xx"}'] == 18, "answers", n)
    check(n["moe_prompt_tokens_found_total"] + n["moe_prompt_tokens_computed_total"] == 7 * 200, "tokens of prompts", n)
    check(n["moe_requests_running"] == 0 and n['vllm:cache_config_info{model_name="bf16",block_size="64",num_gpu_blocks="%d"}' %
                                                n["moe_pages"]] == 1, "aliases", n)
    s.end()
    lines = [json.loads(x) for x in open(log)]
    check(len(lines) == 28 and os.stat(log).st_mode & 0o77 == 0, "lines of the log", len(lines))
    check(not any(k in open(log).read() for k in secret.values()), "a key is in the log")
    check(collections.Counter(x.get("key") for x in lines) == {None: 20, "alice": 4, "bob": 4}, "keys in the log", lines)
    check(sum(x.get("completion_tokens", 0) for x in lines) == 28 and sum(x.get("prompt_tokens", 0) for x in lines) == 1400 and
          all(x["bytes_out"] > 0 and x["client"] == "127.0.0.1" for x in lines), "numbers in the log", lines[-1])
    s = Server("--api-key-file", keys, "--share-cache", "--access-log", "/dev/full")
    check(cached("alice") == 0 and cached("bob") > 100, "a shared cache")
    time.sleep(0.3)
    n = numbers(s, as_user["bob"])
    check(n["moe_access_log_lost_total"] == 2, "a log that is full", n)
    c = s.connect()
    c.request("POST", "/v1/completions", json.dumps(long(n=16)), as_user["bob"])
    s.ask("/health")
    time.sleep(0.2)
    c.close()
    time.sleep(1 * SLOW)
    check(numbers(s, as_user["bob"])['moe_http_answers_total{status="0xx"}'] == 1, "a client that was gone")
    s.end()


def drain():
    s = Server()
    c = s.connect()
    c.request("POST", "/v1/completions", json.dumps(long(n=8, stream=True)))
    r = c.getresponse()
    s.process.send_signal(signal.SIGTERM)
    s_health = [None]
    begun = time.monotonic()
    while s_health[0] != 503 and time.monotonic() < begun + 2 * SLOW:
        s_health = s.ask("/health")
    check(s_health[0] == 503 and s_health[2] == {"status": "draining"}, "health while it drains", s_health)
    status, headers, _ = s.ask("/v1/completions", {"prompt": "a"})
    check(status == 503 and headers["Retry-After"], "503 while it drains", status)
    events = events_of(r.read().decode())
    check(sum(1 for e in events if e["choices"][0]["finish_reason"]) == 8, "an answer while it drains")
    check(s.process.wait(20 * SLOW) == 0, "drained", s.process.returncode)

    s = Server("--drain-timeout", "0.2", "--batch-tokens", "4")  # what runs takes longer
    c = send(s, long(n=64, stream=True))
    s.wait("running", lambda n: n["running"] > 0)
    begun = time.monotonic()
    s.process.send_signal(signal.SIGTERM)
    check(s.process.wait(20 * SLOW) == 0 and time.monotonic() - begun < 3 * SLOW, "the end of draining", s.process.returncode)
    out = b""
    while got := c.recv(65536):
        out += got
    check(b"[DONE]" not in out, "a stream that was cut off says that it is whole")

    s = Server("--batch-tokens", "4")
    c = send(s, long(n=64, stream=True))
    s.wait("running", lambda n: n["running"] > 0)
    s.process.send_signal(signal.SIGTERM)
    time.sleep(0.3 * SLOW)
    s.process.send_signal(signal.SIGTERM)
    check(s.process.wait(10 * SLOW) == -signal.SIGTERM, "a second signal", s.process.returncode)


MARKERS = {"1013": "<|tool_calls_section_begin|>", "1014": "<|tool_calls_section_end|>", "1015": "<|tool_call_begin|>",
           "1018": "<|tool_call_argument_begin|>", "1019": "<|tool_call_end|>", "1020": "<think>", "1021": "</think>"}


def with_markers():
    """A copy of the model whose vocabulary has the markers of thinking and tools."""
    path = TMP + "/markers"
    os.makedirs(path, exist_ok=True)
    for name in os.listdir(MODEL):
        if name != "tokenizer_config.json":
            os.path.lexists(path + "/" + name) or os.symlink(os.path.abspath(MODEL + "/" + name), path + "/" + name)
    config = json.load(open(MODEL + "/tokenizer_config.json"))
    for i, text in MARKERS.items():
        config["added_tokens_decoder"][i].update(content=text, special=False)
    json.dump(config, open(path + "/tokenizer_config.json", "w"))
    return path


def joined_chat(events):
    """The choices of a stream as messages; the rules of the format are checked on the way."""
    out = {}
    for e in events:
        check(e["object"] == "chat.completion.chunk", "object", e)
        for c in e["choices"]:
            first = c["index"] not in out
            o = out.setdefault(c["index"], {"role": None, "content": "", "calls": [], "ids": [], "logprobs": [], "finish": None})
            d = c["delta"]
            check(first == (d.get("role") == "assistant") and o["finish"] is None, "the first or last event", e)
            o["content"] += d.get("content") or ""
            if d.get("reasoning_content"):
                o["reasoning"] = o.get("reasoning", "") + d["reasoning_content"]
            for call in d.get("tool_calls", []):
                if call["index"] == len(o["calls"]):
                    check(call["id"] and call["type"] == "function" and call["function"]["name"], "a call begins", call)
                    o["calls"].append({"id": call["id"], "type": "function", "function": dict(call["function"])})
                else:
                    check(call["index"] == len(o["calls"]) - 1 and set(call) == {"index", "function"}, "a call goes on", call)
                    o["calls"][-1]["function"]["arguments"] += call["function"]["arguments"]
            o["ids"] += c.get("token_ids", [])
            o["logprobs"] += (c["logprobs"] or {}).get("content", [])
            o["finish"] = c["finish_reason"]
    return [(o["content"] or None, o.get("reasoning"), o["calls"] or None, o["finish"], o["ids"], o["logprobs"])
            for _, o in sorted(out.items())]


def as_message(answer):
    return [(c["message"]["content"] or None, c["message"].get("reasoning_content"), c["message"].get("tool_calls"),
             c["finish_reason"], c.get("token_ids", []), (c["logprobs"] or {}).get("content", [])) for c in answer["choices"]]


def chat():
    """Conversations: prompts against the goldens, text against moe-run, streams against whole answers."""
    goldens = [json.loads(x) for x in open("tests/data/chat-golden.jsonl")]
    for template, extra in (("k2-thinking", True), ("k2.6", False)):
        s = Server("--chat-template", template, model=with_markers())
        n = 0
        for g in goldens:
            if g["template"] == template:
                status, _, got = s.ask("/apply-template", g["request"])
                check(status == 200 and got["prompt"] == g["text"], "a prompt", g["name"], got, g["text"])
                n += 1
        check(n > 40, "goldens", n)
        made = collections.Counter()
        for i in range(60):
            weights = {k: 15 + (i * 7 + int(k)) % 4 for k in MARKERS}
            q = {"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 40, "temperature": 1.5, "seed": i, "n": 1 + i % 3,
                 "logit_bias": weights, "return_token_ids": True, "tools": [{"type": "function", "function": {"name": "f"}}]}
            if i % 4 == 3:
                q["stop"] = ["e", "the "]
            if i % 5 == 4:
                q["logprobs"] = True
            if not extra and i % 2:
                q["thinking"] = {"type": "disabled"}
            status, _, whole = s.ask("/v1/chat/completions", q)
            check(status == 200 and whole["object"] == "chat.completion", "chat", status, whole)
            parts = joined_chat(s.stream("/v1/chat/completions", **q))
            check(parts == as_message(whole), "the stream is not the whole", q, parts, as_message(whole))
            for content, reasoning, calls, finish, ids, _ in parts:
                made.update(k for k, v in (("content", content), ("reasoning", reasoning), ("calls", calls), (finish, True)) if v)
                check((finish == "tool_calls") <= bool(calls), "finish_reason", parts)
                check("stop" not in q or not any(x in (content or "") + (reasoning or "") for x in q["stop"]), "a stop text", q, parts)
        check(all(made[k] > 3 for k in ("content", "reasoning", "calls", "stop", "length")), "what was made", made)
        s.end()

    s = Server("--chat-template", "k2-instruct")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who made the heaven?"}]
    q = {"messages": messages, "max_tokens": 12, "temperature": 0}
    path = TMP + "/chat.jsonl"
    with open(path, "w") as f:
        f.write(json.dumps(q) + "\n")
    out = subprocess.run([BIN + "/moe-run", MODEL, "-q", "--json", "--prompts", path, "--chat-template", "k2-instruct"],
                         capture_output=True, text=True, check=True).stdout
    answer = s.ask("/v1/chat/completions", q)[2]
    check(answer["choices"][0]["message"] == {"role": "assistant", "content": json.loads(out)["sequences"][0]["text"]},
          "not moe-run's text", answer, out)
    ids = s.ask("/apply-template", {"messages": messages})[2]["tokens"]
    check(answer["usage"]["prompt_tokens"] == len(ids) and s.ask("/tokenize", {"messages": messages})[2]["tokens"] == ids, "ids")
    u = {"role": "user", "content": "a"}
    for param, text, body in [
            ("messages", "no 'messages'", {}), ("messages", "not a list", {"messages": {}}), ("messages", "no turn", {"messages": []}),
            ("messages", "", {"messages": [{"role": "nobody", "content": "a"}]}),
            ("messages", "", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            ("tool_choice", "", {"messages": [u], "tool_choice": "required"}),
            ("chat_template_kwargs", "", {"messages": [u], "chat_template_kwargs": {"thinking": False}}),
            ("chat_template_kwargs", "not an object", {"messages": [u], "chat_template_kwargs": 1}),
            ("thinking", "", {"messages": [u], "thinking": True}),
            ("response_format", "", {"messages": [u], "response_format": {"type": "json_object"}})]:
        refused(s, 400, param, text, body, "/v1/chat/completions")
    refused(s, 400, "messages", "the context holds 1024", {"messages": [{"role": "user", "content": "a " * 3000}]},
            "/v1/chat/completions", "context_length_exceeded")
    s.end()


SHARED = [routes, refusals, same_tokens, gone, slow_reader, hostile, connections]
APART = [chat, operation, crowd, full, drain]
wanted = sys.argv[4:]
groups = [g for g in SHARED + APART if not wanted or g.__name__ in wanted]
if any(g in SHARED for g in groups):
    server = Server()
    for group in groups:
        if group in SHARED:
            begun = time.monotonic()
            group(server)
            print("%s: %.1f s" % (group.__name__, time.monotonic() - begun))
    check(server.ask("/health")[0] == 200, "health at the end")
    server.end()
for group in groups:
    if group in APART:
        begun = time.monotonic()
        group()
        print("%s: %.1f s" % (group.__name__, time.monotonic() - begun))
print("serve.py: %d checks" % checks)
