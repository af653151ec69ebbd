# SPDX-License-Identifier: Apache-2.0
"""Run a command with standard error on a terminal and look at its progress lines:

    progress.py COMMAND...      prints {"exit", "lines": [{"label", "percent", "done", "total", "seconds"}, ...]} for each line that was drawn
"""
import json, os, pty, re, sys, time

line = re.compile(r"(?P<label>[^\r\x1b]*?) \[[# ]{20}\] +(?P<percent>\d+)%  (?P<done>[\d.]+ ?\w*) of (?P<total>[\d.]+ ?\w*)  \S+ ?\S*/s  (?P<left>.*?) left")


def main():
    master, slave = pty.openpty()
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
    json.dump({"exit": os.waitstatus_to_exitcode(status), "lines": lines, "text": text[-2000:]}, sys.stdout)


main()
