# SPDX-License-Identifier: Apache-2.0
# Fails where a folder includes one above it, or another folder's *-internal.h, and where a main has 200 lines or
# more.  awk -v cli="SOURCES" -f layers.awk FILES, where SOURCES are those of libcli.a, which speak for a tool:
# the Makefile's clisrc.
function of_tool(file) {
    if (file ~ /^base\/cli\// || file ~ /\/moe-[a-z]*\.c$/) return 1
    sub(/\.[ch]$/, ".c", file)
    return file in speaks
}
BEGIN {
    for (k = split(cli, names, " "); k; k--) speaks[names[k]] = 1
    r["base"] = 0; r["formats"] = 1; r["kernels"] = 2; r["model"] = 3; r["convert"] = r["quantize"] = r["runtime"] = 4
    within["plan"] = 0; within["comm"] = 1; within["parallel"] = 2; within["engine"] = 3 # of runtime/
    within["server"] = 4
    within["ops"] = 0; within["export"] = 1; within["rewrite"] = 2 # of model/, whose own files stand beside them
    within["rounding"] = 0; within["passes"] = 1; within["calibrate"] = 2 # of quantize/
}
/^#include "/ {
    split(FILENAME, f, "/"); split($2, i, /["\/]/)
    if (!(f[1] in r) || !(i[2] in r)) next
    if (r[i[2]] > r[f[1]] || (r[i[2]] == 4 && i[2] != f[1])) {
        print FILENAME ":" FNR ": " f[1] " may not include " i[2]; bad = 1
    }
    inside = f[1] == i[2] && (f[1] == "runtime" || (f[1] == "quantize" && 3 in f) ||
                                (f[1] == "model" && 3 in f && $2 ~ /\/.*\//))
    if (inside && (!(f[2] in within) || !(i[3] in within) || within[i[3]] > within[f[2]])) {
        print FILENAME ":" FNR ": " f[1] "/" f[2] " may not include " i[2] "/" i[3]; bad = 1
    }
    folder = FILENAME; sub(/\/[^\/]*$/, "", folder)
    of = $2; gsub(/"/, "", of)
    # of the command line only what belongs to a tool's main may know
    if (of_tool(of) && !of_tool(FILENAME)) { print FILENAME ":" FNR ": " of " is for tools alone"; bad = 1 }
    name = of; sub(/\/[^\/]*$/, "", of)
    if (name ~ /-internal\.h$/ && of != folder) { print FILENAME ":" FNR ": " name " is for " of "/ alone"; bad = 1 }
}
FILENAME ~ /^include\// && /^#include/ && !/<(moe\/[a-z]+|std(bool|def|int))\.h>/ {
    print FILENAME ":" FNR ": a public header includes public headers, stdbool.h, stddef.h and stdint.h alone"; bad = 1
}
/^#include <cuda/ && FILENAME !~ /^kernels\/cuda\// { print FILENAME ":" FNR ": CUDA types stay in kernels/cuda"; bad = 1 }
/(^|[^a-z_])(exit|printf|puts) *\(/ && FILENAME ~ /^(base|formats|kernels|model|convert|quantize|runtime)\// && FILENAME !~ /moe-[a-z]*\.c$/ {
    print FILENAME ":" FNR ": only a tool's main prints or exits"; bad = 1
}
FILENAME ~ /\/moe-[a-z]*\.c$/ { lines[FILENAME] = FNR }
END {
    for (m in lines) if (lines[m] >= 200) { print m ": a main has " lines[m] " lines, and 199 at most"; bad = 1 }
    exit bad
}
