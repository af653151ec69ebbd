# SPDX-License-Identifier: Apache-2.0
"""Run a command with standard error on a terminal and look at its progress lines:

    progress.py [--columns N] COMMAND...      on a terminal of N columns (200)

Prints {"exit", "lines", "widest", "text"}: the exit code; {"label", "percent", "done", "total", "left", "seconds"} for each
progress line that was drawn whole, where "left" is the time that the line says is left and "seconds" is when it was drawn; how
many columns the widest line had; and the last 2,000 characters that were written.
"""
import fcntl, json, os, pty, re, struct, sys, termios, time

line = re.compile(r"(?P<label>[^\r\x1b]*?) \[[# ]{20}\] +(?P<percent>\d+)%  (?P<done>[\d.]+ ?\w*) of (?P<total>[\d.]+ ?\w*)  \S+ ?\S*/s  (?P<left>.*?) left")


def main():
    columns = 200
    if sys.argv[1] == "--columns":
        columns = int(sys.argv[2])
        del sys.argv[1:3]
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(master)
        os.dup2(slave, 2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.environ["TERM"] = "xterm"
        os.execvp(sys.argv[1], sys.argv[1:])
    os.close(slave)
    text, lines, seen = "", [], 0
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        text += data.decode("utf-8", "replace").replace("\x1b[K", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
        for m in line.finditer(text, seen):
            seen = m.end()
            lines.append({"label": m["label"].strip(), "percent": int(m["percent"]), "done": m["done"], "total": m["total"], "left": m["left"],
                          "seconds": round(time.monotonic() - start, 2)})
    status = os.waitpid(pid, 0)[1]
    json.dump({"exit": os.waitstatus_to_exitcode(status), "lines": lines, "widest": max(map(len, re.split(r"[\r\n]+", text))),
               "text": text[-2000:]}, sys.stdout)


main()
