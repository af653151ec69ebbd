# SPDX-License-Identifier: Apache-2.0
"""talk.py SCRIPT COMMAND...: a command with all its streams on a terminal, and a person who types.

SCRIPT is a file of lines: `< TEXT` waits until TEXT has been shown behind all that was waited for before (\\n in
it stands for a line's end); `> TEXT` types TEXT and a line's end; `= TEXT` types TEXT alone, with ^C, ^D and \\n for those;
`! SECONDS` waits; `+ N` waits until N characters have been shown behind what was waited for (what is typed is
among them). Prints all that was shown; gives the exit code, or 99 when a text did not come within a
minute."""
import os, pty, select, sys, time

script = open(sys.argv[1], encoding="utf-8", errors="surrogateescape").read().split("\n")
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
shown, seen, alive = "", 0, True


def take(seconds):
    """Adds to `shown` what the command writes within so many seconds; False when it wrote nothing or has ended."""
    global shown, alive
    if not select.select([master], [], [], seconds)[0]: return False
    try: data = os.read(master, 65536)
    except OSError: data = b""
    alive = bool(data)
    shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
    return alive


def end(code):
    sys.stdout.write(shown)
    sys.stdout.flush()
    sys.exit(code)


for step in script:
    what, text = step[:1], step[2:].replace("\\n", "\n").replace("^C", "\x03").replace("^D", "\x04")
    if what in ("<", "+"):
        def came(): return len(shown) - seen >= int(text) if what == "+" else text in shown[seen:]
        limit = time.monotonic() + 60
        while not came() and alive and time.monotonic() < limit: take(1)
        if not came():
            os.close(master)
            shown += "\n-- not shown: %r\n" % text
            end(99)
        if what == "<": seen = shown.index(text, seen) + len(text)
    elif what in ("=", ">"): os.write(master, (text + "\n" * (what == ">")).encode("utf-8", "surrogateescape"))
    elif what == "!": time.sleep(float(text))
while alive: take(60)
end(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
