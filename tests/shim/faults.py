# SPDX-License-Identifier: Apache-2.0
"""tests/shim/faults.py BIN HELPERS WORK [quick|all] [JOB]: every call of a tool fails in turn (tests/shim/fault-preload.c); see docs/design/testing.md.

Each job is run once to count its calls and to have its result.  Then once for each kind of call, each error of that kind and
each number of the call.  A run that succeeds must give the same bytes and the same JSON.  One that fails must end with the exit
code of that error, one sentence and the same sentence in JSON; leave the source alone; leave no output, or the whole one; leave
nothing beside it but what --resume takes up; and --resume without a fault must then give the same bytes.
"""
import hashlib, json, os, re, shutil, signal, subprocess, sys, zlib

BIN, HELPERS, WORK = (os.path.abspath(p) for p in sys.argv[1:4])
ALL = len(sys.argv) > 4 and sys.argv[4] == "all"
ONLY = sys.argv[5:]
SAN = os.environ.get("MOE_SAN") == "1"
SHIM = os.path.join(HELPERS, "fault-preload.so")
TINY = os.path.abspath("tests/data/tiny-k2/bf16")
IO = {"EIO": 11, "EACCES": 11, "EMFILE": 11, "ENOSPC": 12, "EDQUOT": 12, "ENOMEM": 10, "EAGAIN": 10, "EINVAL": 11, "EOPNOTSUPP": 11}
HANDLED = {"EINTR", "short"}  # must not be seen at all
TAKEN = set()  # pairs of call and error of which a job has taken one
SIGNALS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}
ERRORS = {
    "alloc": "ENOMEM ENOMEM+", "open": "EIO EMFILE EINTR", "openat": "EIO EINTR", "close": "EIO", "fopen": "EMFILE", "opendir": "EIO ENOMEM",
    "fdopendir": "ENOMEM", "readdir": "EIO", "fstat": "EIO", "stat": "EIO", "lstat": "EIO", "statvfs": "EIO EINTR",
    "pread": "EIO EINTR short short+ SIGTERM", "pwrite": "EIO ENOSPC ENOSPC+ EINTR short short+ SIGKILL", "fsync": "EIO ENOSPC EINTR SIGKILL",
    "fdatasync": "EIO EINTR", "sync_file_range": "EIO", "copy_file_range": "EIO EINTR", "fallocate": "ENOSPC EOPNOTSUPP+ EINTR",
    "ftruncate": "EIO EINTR ENOSPC", "fadvise": "EIO+", "rename": "EIO ENOSPC SIGKILL", "renameat2": "EIO EINVAL+ SIGKILL", "linkat": "EIO",
    "mkdir": "EIO ENOSPC SIGKILL", "rmdir": "EIO", "unlink": "EIO", "unlinkat": "EIO SIGKILL", "flock": "EIO EINTR", "mmap": "ENOMEM",
    "madvise": "EIO", "pthread_create": "EAGAIN EAGAIN+",
}
EXPORTS = {"export", "export-force", "export-same", "gguf", "hf-nvfp4", "onepass", "onepass-force", "onepass-calibrate", "plan", "plan-stage"}
# What a tool may do without: it goes on (EOPNOTSUPP of fallocate, EINVAL of renameat2: another way is taken).
GOES_ON = {"fadvise", "madvise", "sync_file_range", ("fallocate", "EOPNOTSUPP"), ("renameat2", "EINVAL")}


def digest(path):
    """Every name, type and byte below a path; None when it is not there."""
    if not os.path.lexists(path): return None
    h = hashlib.sha256()
    for top, dirs, files in os.walk(path) if os.path.isdir(path) else [(os.path.dirname(path), [], [os.path.basename(path)])]:
        dirs.sort()
        for name in sorted(files):
            with open(os.path.join(top, name), "rb") as f: data = f.read()
            h.update(f"{os.path.relpath(os.path.join(top, name), path)}\0{len(data)}\0".encode() + data)
        h.update("\0".join(dirs).encode())
    return h.hexdigest()


def stamp(path):
    """What changes when a file below is touched."""
    return sorted((os.path.join(t, n), s.st_size, s.st_mtime_ns, s.st_ino) for t, _, files in os.walk(path) for n in files
                  for s in [os.stat(os.path.join(t, n))])


def steady(text):
    """A tool's JSON without what differs from run to run."""
    try: o = json.loads(text)
    except ValueError: return text
    drop = re.compile("seconds|per_second|peak_|memory_bytes|profile|flops")  # flops: those of this run, the rest an interrupted one did

    def keep(x):
        if isinstance(x, list): return [keep(v) for v in x]
        return {k: keep(v) for k, v in x.items() if not drop.search(k)} if isinstance(x, dict) else x
    return keep(o)


def steady_file(path):
    if not os.path.lexists(path): return None
    with open(path) as f: o = steady(f.read())
    if isinstance(o, dict): o.pop("calibration", None)  # of a container that was complete already nothing is said
    return o


class Job:
    """outs: what it writes below its directory; base: what stands there before; resume: whether it takes --resume; scratch: a directory that it
    leaves empty; kinds: the calls that fail in it; given: a file that is its standard input."""
    def __init__(self, name, argv, outs=(), source=None, base=(), resume=True, scratch=None, kinds=None, given=None):
        self.name, self.argv, self.outs, self.source, self.base, self.resume, self.scratch = name, argv, outs, source, base, resume, scratch
        self.given = given
        self.kinds = (kinds or " ".join(ERRORS)).split()
        self.dir = os.path.join(WORK, "job-" + name)
        self.cases = 0

    def path(self, name): return os.path.join(self.dir, name)

    def run(self, plan=None, more=(), **env):
        e = dict(os.environ, LD_PRELOAD=SHIM, **env)
        e["ASAN_OPTIONS"] = e.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0:allocator_may_return_null=1"
        if plan: e["MOE_FAULT"] = plan
        argv = [os.path.join(BIN, self.argv[0])] + [a.replace("@", self.dir) for a in self.argv[1:]]
        argv = [a for a in argv if a != "--force"] if "--resume" in more and not self.base else argv
        argv += ["--json", "-q", *more]
        with open(self.given or os.devnull, "rb") as given: return subprocess.run(argv, stdin=given, capture_output=True, env=e)

    def fresh(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        os.mkdir(self.dir)
        for name, what in self.base: shutil.copytree(what, self.path(name))

    def state(self): return [steady_file(self.path(o)) if o == "report" else digest(self.path(o)) for o in self.outs]

    def start(self):
        self.fresh()
        self.before = self.state()
        counts = os.path.join(WORK, "counts")
        r = self.run(MOE_FAULT_COUNT=counts)
        assert r.returncode == 0, (self.name, r)
        with open(counts) as f: self.counts = {k: int(v) for k, v in (line.split() for line in f)}
        self.stdout, self.after = steady(r.stdout), self.state()
        assert all(self.after), (self.name, os.listdir(self.dir))
        self.stamp = self.source and stamp(self.source)

    # ---- one fault ----

    def bad(self, plan, r, why):
        where = os.path.join(WORK, "where")
        self.fresh()
        self.run(plan, MOE_FAULT_WHERE=where)
        print(f"FAIL: {self.name} {plan}: {why}\n  exit {r.returncode}\n  stderr: {r.stderr[:3000].decode(errors='replace')}\n  stdout: {r.stdout[-300:].decode(errors='replace')}")
        if os.path.exists(where):
            with open(where) as f: print("  " + "  ".join(l for l in f if "fault-preload" not in l)[:1500])
            os.unlink(where)
        self.fresh()
        return False

    def one(self, kind, n, error):
        plus, error = error.endswith("+"), error.rstrip("+")
        plan = f"{kind}:{n}{'+' if plus else ''}:{error}"
        self.cases += 1
        r = self.run(plan)
        why = self.judge(kind, error, plus, r)
        if why: return self.bad(plan, r, why)
        if r.returncode == 0 or not self.outs:
            if self.outs: self.fresh()
            return True
        whole = self.state() == self.after and sorted(os.listdir(self.dir)) == sorted(self.outs)
        if self.base and self.state() == self.before or whole and self.name in EXPORTS:  # an export that failed after its rename
            self.fresh()
            return True
        again = self.run(None, ["--resume"] if self.resume else [])
        if again.returncode != 0 and self.base: again = self.run()
        ok = again.returncode == 0 and self.state() == self.after and sorted(os.listdir(self.dir)) == sorted(self.outs)
        if not ok: return self.bad(plan, again, f"then --resume: {sorted(os.listdir(self.dir))}")
        self.fresh()
        return True

    def judge(self, kind, error, plus, r):
        """What is wrong with a run; None."""
        if self.source and stamp(self.source) != self.stamp: return "the source was touched"
        if self.scratch and os.listdir(self.scratch):
            left = os.listdir(self.scratch)
            for n in left: os.unlink(os.path.join(self.scratch, n))
            if error != "SIGKILL": return f"leaves {left} in scratch"
        if r.returncode == 0:
            if error in SIGNALS: return None
            if r.stderr: return "succeeds, but says something"
            if steady(r.stdout) != self.stdout: return f"succeeds with another report than {self.stdout}"
            if self.state() != self.after: return "succeeds with other bytes"
            return None if sorted(os.listdir(self.dir)) == sorted(self.outs) else f"leaves {os.listdir(self.dir)}"
        if error in HANDLED or kind in GOES_ON or (kind, error) in GOES_ON: return "is not handled"
        want = {SIGNALS.get(error) or IO[error]}
        if self.name == "verify" and error != "ENOMEM": want.add(16)  # what cannot be read is not verified
        if r.returncode not in want: return f"want exit {sorted(want)}"
        left = set(os.listdir(self.dir)) - set(self.outs) - {o + ".partial" for o in self.outs}
        if left and error != "SIGKILL": return f"leaves {sorted(left)}"
        for o, is_, before, after in zip(self.outs, self.state(), self.before, self.after):
            if is_ != before and is_ != after: return f"{o} is neither whole nor as before"
        return None if error == "SIGKILL" else self.sentence(error, plus, r)

    def sentence(self, error, plus, r):
        text = r.stderr.decode()
        if text.count("\n") != 1 or not text.startswith(self.argv[0] + ": "): return "not one sentence"
        if plus and error == "ENOMEM": return None  # no memory for JSON either
        try: e = json.loads(r.stdout)["error"]
        except (ValueError, KeyError): return "no error object on standard output"
        if e["code"] != r.returncode or text != f"{self.argv[0]}: {e['message']}\n": return "JSON says something else"
        if r.returncode in (11, 12, 16) and not e["file"]: return "names no file"
        return None

    def numbers(self, count, kind, error):
        """Which calls: all, or the first few, the last and some between."""
        if error in ("ENOMEM+", "short+", "SIGKILL", "SIGTERM") and ALL and count > 400: return sorted(set(range(1, count + 1, count // 200)))
        if ALL or count < 1: return range(1, count + 1)
        # Another call for each job, kind and error, of memory some; the last one for half of them.
        some = (2 if SAN else 4) if error == "ENOMEM" else 1
        hashed = zlib.crc32(f"{self.name} {kind} {error}".encode())
        sample = {1 + (hashed + count * k // some) % count for k in range(some)}
        # Of the pairs of call and error each job takes others: half, under sanitizers, where a run takes ten times as long, a
        # quarter.  The first job with such a call takes the pair in any case, so that none is left out.
        first = (kind, error) not in TAKEN
        TAKEN.add((kind, error))
        if not first and kind != "alloc" and hashed >> 17 & (3 if SAN else 1): return ()
        return sorted(sample if SAN else sample | ({count} if hashed >> 16 & 1 else set()))

    def all(self):
        self.start()
        self.fresh()
        failed = 0
        for kind, count in self.counts.items():
            for error in ERRORS[kind].split() if kind in self.kinds else ():
                for n in self.numbers(count, kind, error):
                    failed += not self.one(kind, n, error)
                    if failed > 2000: sys.exit("too many failures")
        print(f"{self.name}: {self.cases} faults in " + ", ".join(f"{v} {k}" for k, v in self.counts.items() if v), flush=True)
        return failed


def memory_for_scratch(job):
    """--memory that holds this calibration but not its hidden states: the middle between too little and what holds them, too, with
    room on both sides, since the memory a process begins with varies by some hundred KiB from run to run."""
    def least(enough):
        low, high = 0, 1 << 20
        while high - low > 64:
            k = (low + high) // 2
            job.fresh()
            r = job.run(None, ["--memory", f"{k}K", "--dry-run"])
            low, high = (low, k) if json.loads(r.stdout)["fits"] and enough(json.loads(r.stdout)) else (k, high)
        return high
    low, high = least(lambda plan: True), least(lambda plan: plan["scratch_bytes"] == 0)
    assert high - low > 3 << 10, (low, high)
    return f"{(low + high) // 2}K"


def main():
    def make(*argv): subprocess.run(argv, check=True, capture_output=True)
    m, c, q = (os.path.join(WORK, n) for n in ("m", "m.moe", "q.moe"))
    make(f"{HELPERS}/genmodel", "-o", m, "--format", "bf16", "--layers", "2", "--experts", "2", "--top-k", "2", "--hidden", "128", "--inter", "64", "--seed", "3")
    make(f"{BIN}/moe-convert", m, "-o", c)
    make(f"{BIN}/moe-quantize", m, "-o", q, "--method", "max")
    # Experts fused into one tensor, and a copy of some of them that does not count.
    fused, stale, kept = (os.path.join(WORK, n) for n in ("fused", "stale", "stale.moe"))
    make("python3", "tests/gen/relayout.py", "fuse", m, fused)
    make("python3", "tests/gen/relayout.py", "overlay", fused, stale, "mlp.experts.down_proj|o_proj", "patch.safetensors")
    make(f"{BIN}/moe-convert", stale, "-o", kept)
    out = ["-o", "@/out"]
    s, scratch = os.path.join(WORK, "s"), os.path.join(WORK, "scratch")
    os.mkdir(scratch)
    make(f"{HELPERS}/genmodel", "-o", s, "--format", "bf16", "--layers", "2", "--experts", "2", "--top-k", "2", "--hidden", "256", "--inter", "16", "--vocab", "1024",
         "--tokenizer", TINY, "--seed", "3")
    calib = ["--calib", os.path.join(os.path.dirname(TINY), "calib.txt"), "--sequence-length", "32", "--effort", "balanced", "-t", "1", "--calib-tokens"]
    small = Job("calibrate-scratch", ["moe-quantize", s, *calib, "2048", "--scratch", scratch, *out], ["out"], s, scratch=scratch,
                kinds="alloc open close fstat statvfs pread pwrite fsync fallocate ftruncate mmap unlinkat")  # what "calibrate" has no such calls of
    memory = None if SAN else memory_for_scratch(small)  # there memory is another, and a run takes seconds
    small.argv += ["--memory", memory or ""]
    stats, plan = os.path.join(WORK, "routing.json.gz"), os.path.join(WORK, "plan.json")
    make(f"{BIN}/moe-run", "-q", c, "--tokens", "1,2,3,4,5,6,7", "-n", "1", "--record-routing", stats)
    make(f"{BIN}/moe-plan", "-q", c, "--ranks", "2", "--stats", stats, "-o", plan)
    # What a --force replaces: an export whose writer left no line with it, and whose own config says whose it is.
    old = os.path.join(WORK, "old")
    make(f"{BIN}/moe-convert", q, "--to", "hf-nvfp4", "-o", old)
    for name in os.listxattr(old): os.removexattr(old, name)
    with open(os.path.join(old, "config.json"), "a") as f: f.write(" ")
    jobs = [
        Job("convert", ["moe-convert", m, "-t", "1", *out], ["out"], m),
        Job("convert-threads", ["moe-convert", m, "-t", "3", *out], ["out"], m),
        Job("nvfp4", ["moe-convert", m, "--to", "nvfp4", "-t", "1", *out], ["out"], m),
        Job("quantize", ["moe-quantize", c, "--method", "max", "--tensor-type", "experts.1.*up=bf16", "--report", "@/report", "-t", "1", *out], ["out", "report"], c),
        Job("force", ["moe-quantize", m, "--method", "max", "--force", "-t", "1", *out], ["out"], m, [("out", c)]),
        Job("export", ["moe-convert", c, "--to", "hf", "-t", "1", *out], ["out"], c),
        Job("stale", ["moe-convert", stale, "-t", "1", *out], ["out"], stale, kinds="alloc open close pread pwrite fsync"),
        Job("stale-export", ["moe-convert", kept, "--to", "hf", "-t", "1", *out], ["out"], kept, kinds="alloc open close pread pwrite fsync"),
        Job("export-force", ["moe-convert", q, "--to", "hf-nvfp4", "--force", "-t", "1", *out], ["out"], q, [("out", old)]),
        Job("export-same", ["moe-convert", c, "--to", "hf", "--force", "-t", "1", *out], ["out"], c, [("out", m)]),
        Job("gguf", ["moe-convert", c, "--to", "gguf", "-t", "1", *out], ["out"], c),
        Job("hf-nvfp4", ["moe-convert", q, "--to", "hf-nvfp4", "-t", "1", *out], ["out"], q),
        Job("onepass", ["moe-quantize", m, "--method", "max", "--tensor-type", "kv_b=nvfp4", "--to", "hf-nvfp4", "--shard-size", "150K", "-t", "2",
                        *out], ["out"], m),
        Job("onepass-force", ["moe-quantize", m, "--method", "max", "--to", "hf-nvfp4", "--force", "-t", "1", *out], ["out"], m, [("out", old)]),
        Job("onepass-calibrate", ["moe-quantize", s, *calib, "64", "--quantize", "all-linear", "--to", "hf-nvfp4", "--shard-size", "64K", *out],
            ["out"], s),
        Job("inspect", ["moe-inspect", m, "--experts", "--tensors=expert", "-t", "1"], source=m),
        Job("verify", ["moe-inspect", "--verify", q, "--experts", "-t", "2"], source=q),
        Job("gguf-head", ["moe-inspect", "tests/corpus/gguf/good", "--tensors"]),
        Job("diff", ["moe-inspect", c, "--diff", m, "-t", "1"], source=c),
        Job("tokenize", ["moe-inspect", TINY, "--tokenize", "CONTRIBUTING.md"]),
        Job("stdin", ["moe-run", TINY, "--prompts", "-", "-n", "1", "-t", "1"], source=TINY, given=os.path.join(WORK, "text")),
        Job("dry-run", ["moe-convert", m, "--to", "nvfp4", "--dry-run", "-t", "1"], source=m),
        Job("run", ["moe-run", TINY, "--prompt", "And", "-n", "2", "-t", "1"], source=TINY),
        Job("trace", ["moe-run", q, "--tokens", "1,2,3", "-n", "1", "-t", "2", "--trace", "@/trace"], ["trace"], q, resume=False),
        Job("calibrate", ["moe-quantize", s, *calib, "64", "--quantize", "all-linear", "--report", "@/report", *out], ["out", "report"], s),
        small,
        Job("plan", ["moe-plan", c, "--ranks", "2", "--stats", stats, "--from", plan, "--baseline", "all", "-o", "@/plan.json", "-t", "2"], ["plan.json"], c, resume=False),
        Job("plan-verify", ["moe-plan", "verify", plan, "--stats", stats], source=c),
        Job("plan-stage", ["moe-plan", "stage", plan, "--model", c, "--rank", "0", "-o", "@/out"], ["out"], c, resume=False),
        Job("score", ["moe-run", TINY, "--score", os.path.join(WORK, "text"), "--window", "16", "--reference", TINY, "-t", "1"], source=TINY),
    ]
    with open("tests/data/tiny-k2/valid.txt") as f, open(os.path.join(WORK, "text"), "w") as g: g.write(f.read(400))
    if b"hf-nvfp4 is not" in subprocess.run([f"{BIN}/moe-convert", q, "--to", "hf-nvfp4", "-n"], capture_output=True).stderr: jobs = [j for j in jobs if j.name != "hf-nvfp4"]
    if not memory: jobs.remove(small)
    failed = sum(j.all() for j in jobs if not ONLY or j.name in ONLY)
    print(f"faults: {sum(j.cases for j in jobs)} faults, {failed} failures")
    sys.exit(failed > 0)


main()
