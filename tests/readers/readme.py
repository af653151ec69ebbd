#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs what README.md and docs/guide tell a reader to type, and compares the numbers that they print with the results.

    readme.py [--all] BIN_DIR HELPER_DIR TEMPORARY_DIR PAGE...

What is run, page by page, with the tools on PATH, in one new directory where the entries of the source tree
are links.  All pages share it, as they do for a reader with one clone, so no page may write what another one
writes.  Each page is a shell of its own, from top to bottom, so its variables stay:

- every fenced block marked `sh`; a line that ends in `# exit N` (and more) has to end with that code, all
  others with 0;
- every command of a table whose last column is called `command`.  Rows with a number in a column
  of `scored` take half a minute each: only --all (long-readme) runs them.

A block marked `console` is not run, and its first line says why: `# not run by the tests: WHY`.  A block with
another mark (`text`, `c`, `json`, `yaml`) shows something and is no command.

What is compared: in a table with commands, the columns named in `compared` below.  A row's command makes a container,
or says what it would make.  Its numbers are compared with the JSON of that command, and of the page's first
command with --score and --reference, run on that container.  Besides: links lead to files that are there;
what stands under `the sentence says` is in a message of the tools; no line is longer than 110 columns, and
README.md has fewer than 200 lines.
"""
import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys

WIDTH, README_LINES = 110, 200
NOT_RUN = "# not run by the tests: "

# column -> (how the number follows from the JSON of the row's commands, relative tolerance, calibrated).
# Kernels differ in rounding, which moves a calibrated result more than one without data.
compared = {
    "KL": (lambda made, score: score["kl"], 0.003, 0.05),
    "top-1": (lambda made, score: score["top1_agreement"], 0.001, 0.002),
    "perplexity": (lambda made, score: score["perplexity"], 0.0005, 0.002),
    "MiB": (lambda made, score: made["output_bytes"] / 2**20, 0.02, 0.02),
    "GiB written": (lambda made, score: made["output_bytes"] / 2**30, 0.005, 0.005),
    "GiB scratch": (lambda made, score: made["scratch_bytes"] / 2**30, 0.02, 0.02),
}
scored = {"KL", "top-1", "perplexity"}


@functools.cache
def messages():
    """The source of everything that fails: what a page says that a message says is looked up here."""
    layers = "base", "formats", "model", "convert", "quantize", "runtime"
    names = [n for d in layers for n in glob.glob(d + "/**/*.[ch]", recursive=True)]
    return "\n".join(open(n, encoding="utf-8").read() for n in names)


class Page:
    def __init__(self, path, number, everything):
        self.path, self.number, self.everything = path, number, everything
        self.left = 0     # rows that are left to --all
        self.lines = open(path, encoding="utf-8").read().split("\n")
        self.steps = []   # (line number, shell text)
        self.rows = []    # (line number, {column: number printed}, JSON of command, of score, calibrated)
        self.wrong = []
        self.score = None  # how the page says that a container is scored
        self.read()

    def complain(self, n, text):
        self.wrong.append("%s:%d: %s" % (self.path, n, text))

    def read(self):
        n, block, columns = 0, None, None
        while n < len(self.lines):
            line = self.lines[n]
            if len(line) > WIDTH:
                self.complain(n + 1, "%d columns" % len(line))
            if line.lstrip().startswith("```"):
                n = self.read_block(n)
                continue
            if line.startswith("|"):
                cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
                if columns is None:
                    columns = cells
                elif re.match(r"^[-: ]*$", "".join(cells)):
                    pass
                elif columns[-1] == "command":
                    self.read_row(n + 1, dict(zip(columns, cells)))
                elif columns[0] == "the sentence says" and cells[0] not in messages():
                    self.complain(n + 1, "no message of the tools says '%s'" % cells[0])
            else:
                columns = None
            self.check_links(n + 1, line)
            for code in [line.strip()] if line.startswith("    ") else re.findall(r"`([^`]+)`", line):
                self.find_score(code)
            n += 1

    def read_block(self, n):
        """Reads the fenced block that begins at line n; returns the line behind it."""
        kind = self.lines[n].strip()[3:]
        end = n + 1
        while end < len(self.lines) and self.lines[end].strip() != "```":
            if len(self.lines[end]) > WIDTH:
                self.complain(end + 1, "%d columns" % len(self.lines[end]))
            end += 1
        text = "\n".join(self.lines[n + 1:end])
        if end == len(self.lines):
            self.complain(n + 1, "a block that does not end")
        if kind == "sh":
            fails = r"^(\S.*?)\s+(# exit (\d+)\b.*)$"
            self.steps.append((n + 2, re.sub(fails, r"r=0; \1 || r=$?; test $r = \3 \2", text, flags=re.M)))
            self.find_score(text)
        elif kind == "console":
            if not text.lstrip().startswith(NOT_RUN):
                self.complain(n + 1, "a console block has to begin with '%sWHY'" % NOT_RUN)
        elif kind == "" and re.search(r"^\s*(\$ )?(moe-(inspect|convert|quantize|plan|run)) ", text, re.M):
            self.complain(n + 1, "commands in a block without a mark: sh or console?")
        return end + 1

    def find_score(self, text):
        """Keeps the first command with --score and --reference: it says how the page scores a container."""
        for line in text.split("\n"):
            if self.score is None and "--score" in line and "--reference" in line:
                self.score = line

    def read_row(self, n, cells):
        """Reads a row of a table with commands: column -> cell."""
        commands = re.findall(r"`([^`]+)`", cells["command"].replace(r"\|", "|"))
        numbers = {}
        for column in compared:
            if cells.get(column) not in (None, ""):
                numbers[column] = cells[column].strip("*")
        if not self.everything and scored & set(numbers):
            self.left += 1
            return
        for command in commands:
            self.find_score(command)
        if not numbers:
            self.steps += [(n, c) for c in commands]
            return
        made = score = None
        if commands:
            made, calibrated = "made.%d.%d.json" % (self.number, n), "--calib" in commands[-1]
            self.steps += [(n, c) for c in commands[:-1]]
            self.steps.append((n, "%s --json >%s" % (commands[-1], made)))
            if scored & set(numbers):
                out = re.search(r" -o (\S+)", commands[-1])
                if out is None or self.score is None:
                    return self.complain(n, "nothing says how this is scored")
                score = "score.%d.%d.json" % (self.number, n)
                command = re.sub(r"(moe-run) \S+", r"\1 " + out[1], self.score, count=1)
                self.steps.append((n, "%s --json >%s" % (command, score)))
            self.rows.append((n, numbers, made, score, calibrated))
        else:  # the source itself: what the others were compared with
            self.rows.append((n, numbers, None, None, False))

    def check_links(self, n, line):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if "://" in target:
                continue
            path = target.split("#")[0]
            if path and not os.path.exists(os.path.join(os.path.dirname(self.path), path)):
                self.complain(n, "a link to %s, which is not there" % path)

    def run(self, where, environment):
        marks = os.path.join(where, ".marks.%d" % self.number)
        script = ["set -e", "exec 9>%s" % marks]
        # make from where the tests were built, whatever directory this is
        script.append('make() { flock "$README_ROOT/$README_BUILD/make.lock" \\\n'
                      '    make --no-print-directory -C "$README_ROOT" B="$README_BUILD" "$@"; }')
        for n, text in self.steps:
            script += ["echo %d >&9" % n, text]
        path = os.path.join(where, ".script.%d" % self.number)
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(script) + "\n")
        done = subprocess.run(["sh", path], cwd=where, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            last = open(marks).read().split()
            said = "\n        ".join(done.stdout.decode("utf-8", "replace").strip().split("\n")[-8:])
            self.complain(int(last[-1]) if last else 1, "exit %d: %s" % (done.returncode, said))
            return
        self.compare(where)

    def compare(self, where):
        """Compares the numbers of all rows with the JSON that their commands have written."""
        load = lambda name: json.load(open(os.path.join(where, name))) if name else None
        reference = [load(score) for _, _, _, score, _ in self.rows if score]
        for n, numbers, made, score, calibrated in self.rows:
            if made:
                made, score = load(made), load(score)
            else:
                score = {"kl": 0, "top1_agreement": 1, "perplexity": reference[0]["perplexity_reference"]}
            for column, printed in numbers.items():
                value, tolerance, when_calibrated = compared[column]
                value = value(made, score)
                if calibrated:
                    tolerance = when_calibrated
                digits = len(printed.partition(".")[2])
                room = max(tolerance * abs(value), 0.51 * 10.0 ** -digits)
                if abs(float(printed) - value) > room:
                    self.complain(n, "%s is printed as %s, the command gives %.6g" % (column, printed, value))


def make_clone(where, root, bin_dir):
    """Makes a directory that looks like a clone after make: what the tree has, as links."""
    os.makedirs(os.path.join(where, "build"))
    for name in os.listdir(root):
        if not name.startswith(".") and name != "build":
            os.symlink(os.path.join(root, name), os.path.join(where, name))
    os.symlink(bin_dir, os.path.join(where, "build", "bin"))


def main():
    everything = sys.argv[1] == "--all"
    del sys.argv[1:1 + everything]
    bin_dir, helpers, temporary = (os.path.abspath(p) for p in sys.argv[1:4])
    root, where = os.getcwd(), os.path.join(temporary, "clone")
    make_clone(where, root, bin_dir)
    environment = dict(os.environ, README_ROOT=root, README_BUILD=os.path.relpath(os.path.dirname(bin_dir), root),
                       PATH=bin_dir + os.pathsep + helpers + os.pathsep + os.environ["PATH"])
    wrong, commands, numbers, left = [], 0, 0, 0
    for i, path in enumerate(sys.argv[4:]):
        page = Page(path, i, everything)
        if path == "README.md" and len(page.lines) > README_LINES:
            page.complain(len(page.lines), "more than %d lines" % README_LINES)
        if "pkg-config" in "".join(text for _, text in page.steps) and not shutil.which("pkg-config"):
            print("no pkg-config: %s is not run" % path)
        elif page.steps and not page.wrong:
            page.run(where, environment)
        wrong += page.wrong
        commands += len(page.steps)
        numbers += sum(len(r[1]) for r in page.rows)
        left += page.left
    for line in wrong:
        print(line)
    print("%s: %d pages, %d blocks and commands run, %d numbers held, %d slow rows left to long-readme" %
          ("long-readme" if everything else "t-readme", i + 1, commands, numbers, left))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
