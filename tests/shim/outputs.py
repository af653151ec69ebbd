# SPDX-License-Identifier: Apache-2.0
"""tests/shim/outputs.py BIN HELPERS WORK: every writer of the tools against what others do to its paths; called by t-outputs.sh.

Races are made with tests/shim/fault-preload.c: the tool stops just before the call that gives its output a name.
"""
import fcntl, hashlib, json, os, shutil, signal, subprocess, sys

BIN, HELPERS, WORK = (os.path.abspath(p) for p in sys.argv[1:4])
SHIM = os.path.join(HELPERS, "fault-preload.so")
HERE = os.getcwd()
os.chdir(WORK)
checks = 0


def check(ok, *what):
    global checks
    checks += 1
    if not ok: sys.exit("FAIL: " + " ".join(map(str, what)))


def argv(a): return [os.path.join(BIN, a[0]), *a[1:], "-q"]


def run(*a): return subprocess.run(argv(a), capture_output=True, text=True, stdin=subprocess.DEVNULL)


def good(*a):
    r = run(*a)
    check(r.returncode == 0, a, "exit", r.returncode, r.stderr)


def refused(codes, text, *a):
    """Runs the tool, which has to fail with one of these codes and one line that has this text."""
    r = run(*a)
    check(r.returncode in codes and text in r.stderr and r.stderr.count("\n") == 1, a, "exit", r.returncode, r.stderr)


def shimmed(**more):
    """The environment of a tool under fault-preload.c, which reads the variables in `more`."""
    return dict(os.environ, LD_PRELOAD=":".join(filter(None, (SHIM, os.environ.get("LD_PRELOAD")))),
                ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0", **more)


def stopped(plan, *a):
    """Starts the tool, and returns its process when it has stopped before the call that `plan` (KIND:N) names."""
    p = subprocess.Popen(argv(a), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                         env=shimmed(MOE_FAULT=plan + ":SIGSTOP"))
    _, status = os.waitpid(p.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status): sys.exit(f"FAIL: {a} did not stop before {plan}: {p.stderr.read().decode()}")
    return p


def keeps_attributes():
    """Whether the file system keeps the extended attribute by which a tool knows its own finished work again."""
    write_text("attribute", "")
    try: os.setxattr("attribute", "user.moe.work", b"x")
    except OSError: return False
    finally: os.unlink("attribute")
    return True


def published(part, *a):
    """Runs the tool once more: finished work that waits as `part` gets its name.  Without extended attributes the tool cannot know
    its work again; then it refuses, and `part` is removed here."""
    if KEEPS: good(*a)
    else: refused([4], "waits for its name", *a), clear(part)
    check(not os.path.exists(part), a, "left", part)


def go_on(p):
    """Lets a stopped tool go on; returns its exit code and what it wrote to standard error."""
    p.send_signal(signal.SIGCONT)
    e = p.communicate()[1].decode()
    return p.returncode, e


def naming_call(name, more=0): return f"renameat2:{NAMING_CALL.get(name, 1) + more}"


def calls(kind, *a):
    """How many calls of that kind it makes."""
    subprocess.run(argv(a), capture_output=True, env=shimmed(MOE_FAULT_COUNT="counts"), stdin=subprocess.DEVNULL, check=True)
    n = dict(line.split() for line in read_text("counts").splitlines())[kind]
    clear("counts")
    return int(n)


def killed(plan, *a):
    """Runs the tool, and kills it before that call."""
    p = stopped(plan, *a)
    p.kill()
    p.communicate()


def read_text(path):
    with open(path) as f: return f.read()


def read_bytes(path):
    with open(path, "rb") as f: return f.read()


def write_text(path, data):
    with open(path, "w") as f: f.write(data)


def digest(path):
    h = hashlib.sha256()
    for top, dirs, files in os.walk(path):
        dirs.sort()
        for name in sorted(files):
            with open(os.path.join(top, name), "rb") as f: h.update(name.encode() + f.read())
    return h.hexdigest()


def clear(*names):
    for n in names:
        if os.path.islink(n) or os.path.lexists(n) and not os.path.isdir(n): os.unlink(n)
        else: shutil.rmtree(n, True)


WRITERS = {  # a file's name and what writes it; those in REPLACING replace a file of their own without --force
    "plan.json": ("moe-plan", "m.moe", "--ranks", "2", "-o"),
    "sglang.json": ("moe-plan", "export", "p.json", "--to", "sglang", "-o"),
    "trt.yaml": ("moe-plan", "export", "p.json", "--to", "tensorrt-llm", "-o"),
    "plot.svg": ("moe-plan", "plot", "p.json", "-o"),
    "r.json": ("moe-run", "m", "--tokens", "1,2,3", "-n", "1", "--record-routing"),
    "t.st": ("moe-run", "m", "--tokens", "1,2,3", "-n", "0", "--trace"),
    "rep.json": ("moe-quantize", "m", "-o", "gone.moe", "--method", "max", "--report"),
}
REPLACING = ("r.json", "t.st", "rep.json")
DIRS = {  # a directory's name and what writes it
    "c.moe": ("moe-convert", "m", "-o"), "q2.moe": ("moe-quantize", "m", "--method", "max", "-o"), "hf": ("moe-convert", "m.moe", "--to", "hf", "-o"),
    "hf4": ("moe-convert", "q.moe", "--to", "hf-nvfp4", "-o"),
    "one": ("moe-quantize", "m", "--method", "max", "--to", "hf-nvfp4", "--shard-size", "150K", "-o"), "s.moe": ("moe-plan", "stage", "p.json", "--model", "m.moe", "--rank", "0", "-o"),
}


# Which call of renameat2 gives an output its name, where it is not the first one: "one" publishes a container before.
NAMING_CALL = {"one": 2}
OTHER = {  # what writes something else of the same kind
    "s.moe": ("moe-plan", "stage", "p.json", "--model", "m.moe", "--rank", "1", "-o"), "hf": ("moe-convert", "m3.moe", "--to", "hf", "-o"),
    "hf4": ("moe-convert", "q.moe", "--to", "hf-nvfp4", "--flavor", "compressed-tensors", "-o"),
    "one": ("moe-quantize", "m", "--method", "search", "--to", "hf-nvfp4", "--shard-size", "150K", "-o"),
    "g.gguf": ("moe-convert", "m.moe", "--to", "gguf", "--outtype", "f32", "-o"),
}


def set_up():
    for name, seed in (("m", "3"), ("m3", "4")):
        subprocess.run([f"{HELPERS}/genmodel", "-o", f"{WORK}/{name}", "--format", "bf16", "--layers", "2", "--experts", "4", "--top-k", "2",
                        "--hidden", "128", "--inter", "64", "--seed", seed], check=True, capture_output=True, cwd=HERE)
        good("moe-convert", name, "-o", name + ".moe")
    good("moe-quantize", "m", "-o", "q.moe", "--method", "max")
    good("moe-run", "m", "--tokens", "1,2,3", "-n", "1", "--record-routing", "stats.json.gz")
    good("moe-plan", "m.moe", "--ranks", "2", "--stats", "stats.json.gz", "-o", "p.json")


def test_files():
    for name, a in WRITERS.items():
        write_text("victim", "years of work")
        os.symlink("victim", name + ".tmp")
        clear("gone.moe")
        good(*a, name)
        check(read_text("victim") == "years of work" and not os.path.islink(name), name, "follows a link at", name + ".tmp")
        clear(name + ".tmp", "gone.moe")
        os.mkfifo("pipe")
        refused([4], "'pipe'", *a, "pipe")
        check(not os.path.exists("gone.moe"), name, "works before it finds that it cannot write")
        clear("pipe")
        refused([3], "none", *a, "none/" + name)
        check(not os.path.exists("gone.moe"), name, "works before it finds that it cannot write")
        if name not in REPLACING:
            refused([4], "already exists", *a, name)
            good(*a, name, "--force")
            write_text("thesis", "years of work")
            refused([4], "is not a plan", *a, "thesis", "--force")
            check(read_text("thesis") == "years of work", name, "--force replaced a stranger's file")
            clear(name)
            os.symlink("nothing", name)
            refused([4], "is a symbolic link to 'nothing', where nothing is", *a, name)
            clear(name)
            good(*a, "ours")
            os.symlink("ours", name)
            refused([4], "is a symbolic link to 'ours' (--force replaces the link", *a, name)
            with open("ours", "rb") as f: was = f.read()
            good(*a, name, "--force")
            with open("ours", "rb") as f: now = f.read()
            check(now == was and not os.path.islink(name), name, "writes through a link")
            clear(name, "ours")
            p = stopped("linkat:1", *a, name)
            write_text(name, "somebody's")
            rc, e = go_on(p)
            check(rc == 4 and "appeared" in e and read_text(name) == "somebody's", name, "replaced what appeared", rc, e)
        else:
            write_text("victim", "years of work")
            clear(name)
            for to in "victim", "nothing":
                os.symlink(to, name)
                refused([4], "already exists and is not", *a, name)
                check(read_text("victim") == "years of work" and os.readlink(name) == to, name, "replaces a link to", to)
                clear("gone.moe", name)
            good(*a, "ours")
            os.symlink("ours", name)
            with open("ours", "rb") as f: was = f.read()
            clear("gone.moe")
            good(*a, name)
            with open("ours", "rb") as f: check(f.read() == was and not os.path.islink(name), name, "writes through a link")
            clear("ours")
            clear("gone.moe")
        clear(name)
    check(not [n for n in os.listdir() if n.startswith(".moe-")], "temporary files are left", os.listdir())


def test_two_writers():
    """One path, two runs: one whole file of a run that ended well."""
    trace = lambda tokens: ("moe-run", "m", "--tokens", tokens, "-n", "0", "--trace", "t")
    whole = []
    for tokens in ("1,2,3,4,5,6,7", "9,8"):
        good(*trace(tokens))
        with open("t", "rb") as f: whole.append(f.read())
        clear("t")
    p = stopped("linkat:1", *trace("1,2,3,4,5,6,7"))
    good(*trace("9,8"))
    rc, _ = go_on(p)
    with open("t", "rb") as f: check(rc == 0 and f.read() == whole[0], "two traces in one file")
    clear("t")


def test_started_together():
    """Two writers of one output begin at the same time: one of them succeeds, and what it wrote is whole."""
    for rounds, name, a in ((20, "c.moe", DIRS["c.moe"]), (10, "hf", DIRS["hf"]), (10, "g.gguf", ("moe-convert", "m.moe", "--to", "gguf", "-o"))):
        for i in range(rounds):
            two = [subprocess.Popen(argv((*a, name)), stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) for _ in range(2)]
            said = [(p.communicate()[1], p.returncode) for p in two]
            check(sorted(rc for _, rc in said) == [0, 4], name, "by two writers:", said)
            if name == "c.moe": check(digest(name) == digest("m.moe"), name, "of two writers is another one")
            if name == "hf": check(digest(name) == digest("m"), name, "of two writers is another one")
            clear(name, name + ".partial")


def test_dirs():
    for name, a in DIRS.items():
        part = name + ".partial"
        # what is somebody else's stays, with --force too
        os.mkdir(part)
        write_text(part + "/thesis", "years of work")
        for force in ((), ("--force",)): refused([4], part, *a, name, *force)
        check(read_text(part + "/thesis") == "years of work" and not os.path.exists(name), name, "touched a stranger's directory")
        clear(part)
        os.mkdir("elsewhere")
        os.symlink("elsewhere", part)
        for force in ((), ("--force",)): refused([4], part, *a, name, *force)
        check(not os.listdir("elsewhere") and os.path.islink(part), name, "follows a link at", part)
        clear(part, "elsewhere")
        os.mkdir(part)
        fd = os.open(part, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        for force in ((), ("--force",)): refused([4], "another process", *a, name, *force)
        os.close(fd)
        clear(part)
        # what appears meanwhile stays, and the work, too
        for what in ("directory", "file"):
            p = stopped(naming_call(name), *a, name)
            if what == "file": write_text(name, "years of work")
            else: os.mkdir(name), write_text(name + "/thesis", "years of work")
            rc, e = go_on(p)
            kept = read_text(name if what == "file" else name + "/thesis")
            check(rc == 4 and kept == "years of work" and part in e, name, "deleted the", what, "that appeared:", rc, e)
            good("moe-inspect", part) if what == "file" and name != "s.moe" else None
            clear(name)
            if name in ("c.moe", "q2.moe"): good(*a, name, "--resume"), check(not os.path.exists(part), name, "left", part)
            else: published(part, *a, name, *([] if name == "s.moe" else ["--resume"]))
            clear(name)
        # a slash at the end; --force replaces what this tool wrote and leaves nothing
        good(*a, name + "/")
        before = digest(name)
        good(*a, name + "/", "--force")
        check(digest(name) == before and not os.path.exists(part) and not any(n.startswith(".") for n in os.listdir(name)), name, os.listdir(name))
        check(not os.stat(name).st_mode & 0o1000, name, "is still marked as unfinished")
        # a link to one's own directory: neither replaced nor followed; what it points to is named, and may be given
        os.mkdir("disk")
        os.rename(name, "disk/" + name)
        os.symlink("disk/" + name, name)
        for force in ((), ("--force",)):
            refused([4], "is a symbolic link to 'disk/" + name + "'", *a, name, *force)
        check(os.path.islink(name) and digest("disk/" + name) == before and os.listdir("disk") == [name], name, "was written behind a link")
        good(*a, "disk/" + name, "--force")
        clear(name, "disk")
        os.symlink("disk/nothing", name)
        for force in ((), ("--force",)):
            refused([4], "is a symbolic link to 'disk/nothing'", *a, name, *force)
        clear(name)


def test_overlap():
    """The output is not the input, nor in it, nor around it."""
    os.mkdir("around")
    shutil.copytree("m.moe", "around/m.moe")
    shutil.copytree("q.moe", "around/q.moe")
    shutil.copytree("m", "around/m")
    write_text("around/manifest.json", "{}")
    os.symlink("around", "link")
    before = digest("around")
    for name, a in DIRS.items():
        a = [{"m": "around/m", "m.moe": "around/m.moe", "q.moe": "around/q.moe"}.get(x, x) for x in a]
        source = next(x for x in a if x.startswith("around/"))
        for out in (source, source + "/", source.replace("around", "link"), source + "/inside", "around", "link/../around/" + source[7:] + "/x"):
            for force in ((), ("--force",)): refused([2, 4], "'", *a, out, *force)
        check(digest("around") == before, name, "touched its source")
    refused([2], "which is read", "moe-convert", "around/m.moe", "--to", "gguf", "-o", "around/m.moe/x.gguf")
    # files that are replaced without asking are never the model's
    weights = next(n for n in sorted(os.listdir("m")) if n.endswith(".safetensors"))
    refused([4], "which is read", *WRITERS["t.st"], "m/" + weights)
    refused([4], "which is read", *WRITERS["r.json"], "m/config.json")
    refused([4], "which is read", *WRITERS["rep.json"], "m/config.json")
    check(digest("around/m") == digest("m") and not os.path.exists("gone.moe"), "a report replaced a file of the model")
    clear("around", "link")


def test_other_paths():
    """An output is none of the other paths of its command, and lies in none."""
    for n in ("calib.txt", "prompt.txt", "key"): write_text(n, "And it came to pass, that the words of many were weighed. " * 20)
    os.chmod("key", 0o600)
    os.symlink("calib.txt", "link.txt")
    os.link("calib.txt", "hard.txt")
    good("moe-run", "m", "--tokens", "1,2", "-n", "0", "--trace", "ours.st")
    before = {n: digest(n) if os.path.isdir(n) else read_text(n) for n in ("m", "m.moe", "q.moe", "calib.txt", "prompt.txt", "key", "p.json")}
    run_ = ("moe-run", "m", "-n", "1")
    quantize = ("moe-quantize", "m", "-o", "gone.moe", "--method", "gptq", "--calib-tokens", "64", "--calib", "calib.txt")
    plan = ("moe-plan", "m.moe", "--ranks", "2")
    for a, out in [(quantize, o) for o in ("calib.txt", "./calib.txt", "link.txt", "hard.txt")] + [
            ((*quantize, "--force"), "m/report.json"), (quantize, "gone.moe"), ((*quantize, "--report", "r.txt"), "r.txt")]:
        refused([2, 4], "names" if "m/" not in out else "is read", *a, "--report", out)
    for opt in ("--trace", "--record-routing"):
        refused([4], "--prompt-file names", *run_, "--prompt-file", "prompt.txt", opt, "prompt.txt")
        refused([2], "lies in 'm', which is read", *run_, "--tokens", "1,2", opt, "m/new")
        refused([2], "lies in 'm', which is read", *run_, "--tokens", "1,2", opt, "m/../m/new")
    for opt in ("--prompts", "--score"): refused([4], opt + " names", *run_, opt, "prompt.txt", "--record-routing", "prompt.txt")
    refused([4], "--plan names", *run_, "--tokens", "1", "--plan", "p.json", "--record-routing", "p.json")
    refused([4], "--secret-file names", *run_, "--tokens", "1", "--comm", "ucx", "--ranks", "2", "--secret-file", "key", "--record-routing", "key")
    refused([4], "--reference names", *run_, "--score", "prompt.txt", "--reference", "q.moe", "--record-routing", "q.moe/dense.moe")
    refused([2], "--reference names", *run_, "--score", "prompt.txt", "--reference", "q.moe", "--record-routing", "q.moe/new.json")
    refused([2], "is read", *plan, "-o", "m.moe/plan.json")
    refused([2], "is read", *plan, "-o", "m.moe/plan-staged.json")
    refused([2], "is read", *plan, "-o", "m.moe/hf/plan-x.json")
    refused([2], "is read", "moe-plan", "m", "--ranks", "2", "-o", "m/plan-x.json")
    refused([4], "--stats names", *plan, "--stats", "stats.json.gz", "-o", "stats.json.gz", "--force")
    refused([4], "--from names", *plan, "--from", "p.json", "-o", "p.json", "--force")
    refused([4], "is read", "moe-plan", "plot", "p.json", "-o", "p.json", "--force")
    refused([2], "--calib names", *quantize[:3], "calib.txt", *quantize[4:], "--force")
    good(*plan, "-o", "m.moe/plan-x.json")
    good("moe-inspect", "m.moe", "--verify")
    clear("m.moe/plan-x.json")
    check(before == {n: digest(n) if os.path.isdir(n) else read_text(n) for n in before}, "an output replaced another path of its command")
    check(not os.path.exists("gone.moe") and not os.path.exists("gone.moe.partial"), "works before it looks at its outputs")
    # "-" is no name, and nothing is written to standard output in its place
    for name, a in (*WRITERS.items(), *DIRS.items(), ("g.gguf", ("moe-convert", "m.moe", "--to", "gguf", "-o"))):
        for out in ("-", *(("-/",) if name in DIRS else ())): refused([2], "needs a name", *a, out)
    check(not os.path.lexists("-") and not os.path.lexists("-.partial") and not os.path.exists("gone.moe"), "something is called -")
    # what is nobody's on the command line is replaced only when this tool wrote it
    for name in REPLACING:
        for other, what in (("calib.txt", "a text"), ("ours.st" if name != "t.st" else "p.json", "another output"), ("m.moe/manifest.json", "JSON")):
            shutil.copy(other, "x")
            had = open("x", "rb").read()
            refused([4], "already exists and is not", *WRITERS[name], "x")
            check(open("x", "rb").read() == had and not os.path.exists("gone.moe"), name, "replaced", what)
        clear("x")
        for last in ("x", "x", "y.txt"): # as JSON and as text
            good(*WRITERS[name], last)
            clear("gone.moe")
        good(*WRITERS[name], "y.txt")
        clear("x", "y.txt", "gone.moe")
    p = stopped("renameat2:1", *WRITERS["rep.json"], "x") # hours pass between the two looks at a report's path
    write_text("x", "years of work")
    rc, e = go_on(p)
    check(rc == 4 and read_text("x") == "years of work", "a report replaced what appeared", rc, e)
    clear("x", "gone.moe")
    clear("ours.st", "link.txt", "hard.txt", "calib.txt", "prompt.txt", "key")


def test_renamed():
    """A whole container that somebody called NAME.moe.partial, and a stranger's state.json, are not unfinished work."""
    shutil.copytree("m.moe", "n.moe.partial")
    before = digest("n.moe.partial")
    for how in ((), ("--force",)): refused([4], "n.moe.partial", "moe-convert", "m", "-o", "n.moe", *how)
    refused([15], "n.moe.partial", "moe-convert", "m", "--to", "nvfp4", "-o", "n.moe", "--resume")
    check(digest("n.moe.partial") == before, "a container was taken for unfinished work")
    clear("n.moe.partial")
    os.mkdir("n.moe.partial")
    write_text("n.moe.partial/state.json", '{"my": "state"}')
    for how in ((), ("--force",), ("--resume",)): refused([4], "n.moe.partial", "moe-convert", "m", "-o", "n.moe", *how)
    check(read_text("n.moe.partial/state.json") == '{"my": "state"}', "a stranger's state.json was replaced")
    clear("n.moe.partial")


def check_complete(name, a, b, file):
    """--resume of an export that is there already: nothing to do; not of another one, nor once `file` of it was changed."""
    ino = os.stat(name).st_ino
    if KEEPS: good(*a, name, "--resume")
    for x in (b, (a[0], "m3.moe", *a[2:])) if name not in ("hf4", "one") else (b,): refused([4], "already exists", *x, name, "--resume")
    refused([4], "already exists", *a, name)
    os.utime(file, (1, 1))
    refused([4], "already exists", *a, name, "--resume")
    check(os.stat(name).st_ino == ino and not os.path.exists(name + ".partial"), name, "was made again")


def test_gguf():
    a = ("moe-convert", "m.moe", "--to", "gguf", "-o", "g.gguf")
    p = stopped("renameat2:1", *a)
    write_text("g.gguf", "years of work")
    rc, e = go_on(p)
    check(rc == 4 and read_text("g.gguf") == "years of work" and "g.gguf.partial" in e, "a GGUF file replaced what appeared", rc, e)
    with open("g.gguf.partial", "rb") as f: check(f.read(4) == b"GGUF", "the finished file is gone")
    clear("g.gguf")
    published("g.gguf.partial", *a, "--resume")
    was = read_bytes("g.gguf")
    os.rename("g.gguf", "on-a-disk.gguf")
    for to in "on-a-disk.gguf", "nothing.gguf":
        os.symlink(to, "g.gguf")
        for more in ((), ("--force",)):
            refused([4], f"is a symbolic link to '{to}', and a new file would lie beside", *a, *more)
        kept = os.readlink("g.gguf") == to and read_bytes("on-a-disk.gguf") == was
        check(kept, "a GGUF file took a link's place")
        clear("g.gguf")
    good(*a[:-1], "on-a-disk.gguf", "--force")
    os.rename("on-a-disk.gguf", "g.gguf")
    if not KEEPS: good(*a)
    # an unfinished one is no GGUF file; the same work starts it over, and replaces what stood there when it was begun
    before = read_bytes("g.gguf")
    for force in ((), ("--force",)):
        if not force: clear("g.gguf")
        killed("pwrite:4", *a, *force)
        check(read_bytes("g.gguf.partial")[:4] != b"GGUF", "half a GGUF file looks like a whole one")
        for other in (("moe-convert", "m3.moe", *a[2:]), (*a, "--outtype", "f32")): refused([15], "another input", *other, "--resume")
        if force:
            later = read_bytes("g.gguf")
            shutil.copy("g.gguf", "x"), os.rename("x", "x.gguf"), os.rename("g.gguf", "kept.gguf"), os.rename("x.gguf", "g.gguf")
            refused([4], "already exists", *a, "--resume")
            check(read_bytes("g.gguf") == later, "--resume replaced what came later")
            os.rename("kept.gguf", "g.gguf")
        good(*a, "--resume")
        check(read_bytes("g.gguf") == before and not os.path.exists("g.gguf.partial"), "another GGUF file")
    check_complete("g.gguf", a[:-1], OTHER["g.gguf"], "g.gguf")
    clear("g.gguf")


def test_strangers():
    """--force replaces what the tools wrote, file by file; one that they did not write keeps all of it."""
    strangers = {
        "c.moe": ("notes.txt", "hf/thesis.txt", "hf/deep/thesis.txt", "my.work/thesis.txt", "layer-900.moe", "state.json", "plan-holiday.json", "manifest.json.tmp"),
        "s.moe": ("hf/thesis.txt", ".git/config"),
        "hf": (".git/config", "train.py", "optimizer.pt", "model-stray.safetensors", "hf/thesis.txt"),
        "hf4": ("train.py", "checkpoint-9/model.safetensors"), "one": ("train.py", "quantized.moe/thesis.txt"),
    }
    for name, of in strangers.items():
        a = DIRS[name]
        good(*a, name)
        before = digest(name)
        for stranger in of:
            path = name + "/" + stranger
            had = os.path.dirname(path) in (name, name + "/hf") and os.path.isdir(os.path.dirname(path))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_text(path, "years of work")
            refused([4], "'" + stranger.split("/")[0], *a, name, "--force")
            check(read_text(path) == "years of work" and not os.path.exists(name + ".partial"), name, "deleted", stranger)
            clear(path if had else name + "/" + stranger.split("/")[0])
        if name.endswith(".moe"): shutil.copy("p.json", name + "/plan-8.json")
        good(*a, name, "--force")
        check(digest(name) == before, name, "--force left another directory")
        if name.endswith(".moe"): # another program's manifest, and one of ours that is damaged
            for manifest in ('{"name": "app", "icons": []}', read_text(name + "/manifest.json").replace('"moe"', '"moe" ', 1)):
                write_text(name + "/manifest.json", manifest)
                refused([4], "manifest.json" if "moe" in manifest else "not a container", *a, name, "--force")
                check(read_text(name + "/manifest.json") == manifest and len(os.listdir(name)) > 4, name, "is gone")
        clear(name)
    write_text("my.svg", '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h9"/></svg>')
    refused([4], "is not a plan", *WRITERS["plot.svg"], "my.svg", "--force")
    clear("my.svg")


def test_origin():
    """--force of an export replaces an export, not a checkpoint that has the same names: a fine-tune of the same base."""
    hf, hf4, one = DIRS["hf"], DIRS["hf4"], DIRS["one"]
    newer = ("moe-convert", "m3.moe", "--to", "hf", "-o")
    def plain(name): # as a copy without the line that the writer left, or another file system, has it
        for a in os.listxattr(name): os.removexattr(name, a)
    def stays(name, why, *a):
        before = digest(name)
        refused([4], why, *a, name, "--force")
        check(digest(name) == before and not os.path.exists(name + ".partial"), name, "is not what it was")
    good(*newer, "b")
    plain("b")
    check(digest("b") == digest("m3"))
    for a in (hf, hf4, one): stays("b", "nothing shows", *a) # another model's weights under the very same names
    with open("b/config.json", "a") as f: f.write(" ")
    stays("b", "nothing shows", *newer)
    clear("b")
    shutil.copytree("m3", "b")
    plain("b")
    good(*newer, "b", "--force") # nothing is lost: these very bytes
    if KEEPS: # a newer version of the model, by name alone
        good(*hf, "b", "--force")
        check(digest("b") == digest("m"))
        weights = "b/" + next(n for n in sorted(os.listdir("b")) if n.endswith(".safetensors"))
        with open(weights, "r+b") as f: f.seek(-1, 2), f.write(b"\x01")
        for a in (hf, hf4, one): stays("b", "changed since", *a)
    clear("b")
    shutil.copytree("m", "b")
    plain("b")
    stays("b", "nothing shows", *hf4) # the source itself is not an export in another form
    clear("b")
    good(*hf4, "b")
    if KEEPS:
        os.utime("b/config.json")
        stays("b", "changed since", *hf4)
    plain("b")
    for a in (one, hf4): good(*a, "b", "--force") # the producer in its config is this tool
    clear("b")


def test_came_later():
    """A killed --force run replaces what stood there when it began, and no container that came later."""
    begin = ("moe-convert", "m", "-o", "n.moe")
    for there, later in (("q.moe", "m3.moe"), (None, "q.moe"), ("q.moe", None)):
        if there: shutil.copytree(there, "n.moe")
        p = stopped("linkat:4", *begin, "--force") # a state, a unit and its journal are there
        p.kill()
        p.communicate()
        check(os.path.exists("n.moe.partial/state.json") and not os.path.exists("n.moe.partial/manifest.json"), os.listdir("n.moe.partial"))
        if later:
            clear("n.moe")
            shutil.copytree(later, "n.moe")
            before, left = digest("n.moe"), digest("n.moe.partial")
            refused([4], "another container is there", *begin, "--resume")
            check(digest("n.moe") == before and digest("n.moe.partial") == left, "--resume replaced a container that came later")
            clear("n.moe")
        else: # an older version did not record which container it might replace
            shutil.copytree("n.moe.partial", "kept.partial")
            subprocess.run([sys.executable, HERE + "/tests/gen/oldstate.py", "n.moe.partial"], check=True)
            refused([4], "another container is there", *begin, "--resume")
            clear("n.moe.partial")
            os.rename("kept.partial", "n.moe.partial")
        good(*begin, "--resume")
        check(digest("n.moe") == digest("m.moe") and not os.path.exists("n.moe.partial"), "work is not gone on with")
        clear("n.moe")
    # while it is written
    shutil.copytree("q.moe", "n.moe")
    p = stopped("linkat:4", *begin, "--force")
    clear("n.moe")
    shutil.copytree("m.moe", "n.moe")
    write_text("n.moe/plan-7.json", read_text("p.json"))
    rc, e = go_on(p)
    check(rc == 4 and "appeared" in e and read_text("n.moe/plan-7.json") == read_text("p.json"), "replaced what came meanwhile", rc, e)
    clear("n.moe")
    good(*begin, "--resume")
    clear("n.moe")


def test_unfinished():
    """Unfinished directories are started over by the same work alone, and by --force, and never when somebody's file is in them."""
    for name in ("hf", "hf4", "one", "s.moe"):
        a, b, part = DIRS[name], OTHER[name], name + ".partial"
        plain = () if name == "s.moe" else ("--resume",)
        good(*a, name)
        before = digest(name)
        weights = [n for n in os.listdir(name) if n.endswith(".safetensors")]
        begins = f"linkat:{len(weights) + 4}" if name == "one" else "linkat:3" # of the former a unit is done
        clear(name)
        for record in (True, False): # an older version left no record
            killed(begins, *a, name)
            check(len(os.listdir(part)) > 1 and ".moe-export" in os.listdir(part), name, "is not unfinished", os.listdir(part))
            write_text(part + "/notes.txt", "years of work")
            for how in (plain, ("--force",)): refused([4], "notes.txt" if plain else "not a container's", *a, name, *how)
            check(read_text(part + "/notes.txt") == "years of work", name, "deleted a file in", part)
            os.unlink(part + "/notes.txt")
            if not record:
                write_text(part + "/.moe-export", "")
                if KEEPS: os.removexattr(part, "user.moe.work")
            left = digest(part)
            refused([15], "another input" if name != "one" or not record else "method", *(b if record else a), name, *plain)
            check(digest(part) == left, "another work touched", part)
            good(*a, name, *(plain if record else ("--force",)))
            check(digest(name) == before and not os.path.exists(part), name, "is another one after a kill")
            clear(name)
        if not plain: continue
        good(*a, name)
        for when in (begins, naming_call(name, 1)) if KEEPS else (begins,): # unfinished; whole, and not yet exchanged
            killed(when, *a, name, "--force")
            shutil.copytree(name, "later"), os.utime("later/config.json", (1, 1)), os.rename(name, "kept"), os.rename("later", name)
            refused([4], "already exists", *a, name, "--resume")
            check(os.path.exists(part), "is gone:", part)
            clear(name)
            os.rename("kept", name)
            good(*a, name, "--resume")
            check(digest(name) == before and not os.path.exists(part), name, "is another one after a killed --force")
        if KEEPS: # the old one is half removed
            killed(f"unlinkat:{calls('unlinkat', *a, name, '--force') - 2}", *a, name, "--force")
            check(os.path.exists(part) and digest(name) == before, name, "is not whole beside the old one")
            good(*a, name, "--resume")
            check(digest(name) == before and not os.path.exists(part), name, "left the old one at", part)
        check_complete(name, a, b, name + "/config.json")
        clear(name)


def test_waiting():
    """Finished work whose name was taken waits for it: another work refuses, and only --force throws it away."""
    for name, b in OTHER.items():
        clear(name)
        a, part = DIRS.get(name) or ("moe-convert", "m.moe", "--to", "gguf", "-o"), name + ".partial"
        p = stopped(naming_call(name), *a, name)
        write_text(name, "years of work")
        rc, e = go_on(p)
        check(rc == 4 and part in e, name, rc, e)
        clear(name)
        before, ino = (digest(part) if os.path.isdir(part) else None), os.stat(part).st_ino
        plain = () if name == "s.moe" else ("--resume",)
        refused([4], "waits for its name", *b, name, *plain)
        if plain: refused([4], "waits for its name", *a, name)
        check(not os.path.exists(name) and os.stat(part).st_ino == ino and (before is None or digest(part) == before), name, "touched", part)
        published(part, *a, name, *plain)
        if KEEPS: check(os.stat(name).st_ino == ino and not set(os.listxattr(name)) - {'user.moe.made', 'user.moe.madeby'} and not os.stat(name).st_mode & 0o1000, name, "was made again")
        clear(name)
        p = stopped(naming_call(name), *b, "x") # for a mark and a name of its own
        p.kill()
        p.communicate()
        clear(part)
        os.rename("x.partial", part)
        refused([4], "waits for its name", *a, name, *plain)
        good(*a, name, "--force")
        check(not os.path.exists(part), name, "left", part)
        clear(name, part)


KEEPS = keeps_attributes()
set_up()
for test in (test_files, test_two_writers, test_started_together, test_dirs, test_overlap, test_other_paths, test_renamed, test_gguf,
             test_strangers, test_origin, test_came_later, test_unfinished, test_waiting):
    test()
print(f"t-outputs: {checks} checks")
