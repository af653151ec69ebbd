# SPDX-License-Identifier: Apache-2.0
# tests/planted.sh - plants a mistake in a kernel of kernels/cuda and looks whether its checks catch it; sourced
# after tests/common.sh by t-cuda-planted and long-cuda-planted.  The sources are not touched: the kernel is compiled
# for the shim once more, and its checks run with a stand-in for the driver that has it.
B=$(dirname "$BIN")
# Checks look for ../shim/libcuda.so.1 beside the program that they are.
mkdir -p "$T/tests" "$T/shim"
shimcc=$(sed -n 's/^.*| *\(-DMOE_CUDA_SHIM [^|]*\)|.*/\1/p' "$B/flags")
sanflags=$(echo "$shimcc" | tr ' ' '\n' | grep '^-fsanitize' || true)
[ -n "$shimcc" ] || fail "$B/flags has no flags for the shim"

# plant NAME SED CHECK...: the kernels of kernels/cuda/NAME.cu, changed by a sed script, or with HEADER=FILE.h the header
# that they include.  0: caught by one of the checks, and $T/why is its last line; 1: by none.
plant()
{
    name=$1 script=$2 file=${HEADER:-$1.cu}
    shift 2
    rm -rf "$T/kernels" && mkdir -p "$T/kernels/cuda"
    cp "kernels/cuda/$name.cu" "$T/kernels/cuda"
    sed -E "$script" "kernels/cuda/$file" >"$T/kernels/cuda/$file"
    ! cmp -s "$T/kernels/cuda/$file" "kernels/cuda/$file" || fail "nothing of kernels/cuda/$file is changed by $script"
    eval "${CC:-cc} -x c++ -std=c++17 -I'$T' -fno-exceptions -fno-threadsafe-statics $shimcc -w -MF '$T/d' -c -o '$T/m.o' \
        '$T/kernels/cuda/$name.cu'" >"$T/out" 2>&1 || { cat "$T/out"; fail "kernels/cuda/$file does not compile after $script"; }
    others=
    for o in "$B"/shim/*.o; do [ "$(basename "$o")" = "$name.cu.o" ] || others="$others $o"; done
    ok ${CC:-cc} -shared $sanflags -Wl,-soname,libcuda.so.1 -o "$T/shim/libcuda.so.1" "$T/m.o" $others -lpthread
    for c; do
        [ -e "$T/tests/$c" ] || cp "$GEN/$c" "$T/tests" || fail "no program $c"
        r=0
        (timeout 120 "$T/tests/$c") >"$T/said" 2>&1 || r=$?
        tail -n 1 "$T/said" >"$T/why"
        [ $r != 77 ] || { cat "$T/said"; skip "$c is skipped"; }
        [ $r = 0 ] || return 0
    done
    return 1
}

# catches WHAT NAME SED CHECK...
catches()
{
    what=$1
    shift
    plant "$@" || fail "$what in $1.cu ($2) is not caught by $3"
    echo "$1.cu, $what: $(cat "$T/why")"
}
