#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What moe-quantize --calib --dry-run says against what the run takes: peak memory, files in --scratch, files beside the container, seconds.

    estimate.py [--time] MOE_QUANTIZE OPTION... MODEL      (no -o: a directory of its own)

Prints a line for the setting; exits 1 when memory or files are not as foretold.  Seconds are printed, and held to a factor of 1.5 with --time."""
import json, os, subprocess, sys, tempfile, time


def bytes_open_in(pid, directory):
    """Of files in the directory that have no name there any more."""
    total = 0
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{fd}"
            try:
                if os.readlink(path).startswith(directory): total += os.stat(path).st_size
            except OSError: pass
    except OSError: pass
    return total


def bytes_of_work(partial):
    try: return sum(e.stat().st_size for e in os.scandir(partial) if ".work" in e.name)
    except OSError: return 0


def main():
    args = sys.argv[1:]
    held = args[0] == "--time"
    base = args[held:] + ["-q", "--json"]
    scratch = os.path.realpath(base[base.index("--scratch") + 1]) + "/" if "--scratch" in base else None
    said = json.loads(subprocess.run(base + ["--dry-run"], check=True, stdout=subprocess.PIPE).stdout)
    if not said["fits"]: sys.exit(f"estimate.py: {' '.join(base[1:])} does not fit, --dry-run says")
    files = beside = 0
    with tempfile.TemporaryDirectory(dir=os.environ.get("T")) as where, open(os.path.join(where, "said"), "w+") as out:
        start = time.monotonic()
        run = subprocess.Popen(base + ["-o", os.path.join(where, "q.moe")], stdout=out)
        while run.poll() is None:
            if scratch: files = max(files, bytes_open_in(run.pid, scratch))
            beside = max(beside, bytes_of_work(os.path.join(where, "q.moe.partial")))
            time.sleep(0.01)
        seconds = time.monotonic() - start
        if run.returncode: sys.exit(f"estimate.py: exit {run.returncode}")
        out.seek(0)
        took = json.load(out)
    memory, time_ratio = said["memory_bytes"] / took["peak_rss"], said["seconds_estimated"] / seconds
    name = " ".join(a for a in base[1:] if a not in ("-q", "--json"))
    mib = 1 << 20
    print(f"foretold / real: memory {memory:.2f} ({took['peak_rss'] / mib:.0f} MiB), scratch {said['scratch_bytes'] / mib:.1f} / {files / mib:.1f} MiB, "
          f"beside {said['partial_bytes'] / mib:.2f} / {beside / mib:.2f} MiB, seconds {time_ratio:.2f} ({seconds:.1f} s): {name}")
    wrong = []
    if not 0.98 < memory < 1.5: wrong.append("memory")
    if scratch and abs(said["scratch_bytes"] - files) > 0.01 * files: wrong.append("scratch")
    if beside > 1.01 * said["partial_bytes"] or beside < 0.5 * said["partial_bytes"]: wrong.append("files beside the container")
    if held and not 1 / 1.5 < time_ratio < 1.5: wrong.append("seconds")
    if wrong: sys.exit("estimate.py: not as foretold: " + ", ".join(wrong))


main()
