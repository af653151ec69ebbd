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

# stand_in NAME: the stand-in for the driver with kernels/cuda/NAME.cu as it is in $T/kernels; fails where it does not
# compile.
stand_in()
{
    eval "${CC:-cc} -x c++ -std=c++17 -I'$T' -fno-exceptions -fno-threadsafe-statics $shimcc -w -MF '$T/d' -c -o '$T/m.o' \
        '$T/kernels/cuda/$1.cu'" >"$T/out" 2>&1 || { cat "$T/out"; fail "a changed kernel $1 does not compile"; }
    others=
    for o in "$B"/shim/*.o; do [ "$(basename "$o")" = "$1.cu.o" ] || others="$others $o"; done
    ok ${CC:-cc} -shared $sanflags -Wl,-soname,libcuda.so.1 -o "$T/shim/libcuda.so.1" "$T/m.o" $others -lpthread
}

# check NAME: runs a check with this stand-in; its exit status, and what it says in $T/said
check()
{
    [ -e "$T/tests/$1" ] || cp "$GEN/$1" "$T/tests" || fail "no program $1"
    r=0
    (timeout -k 5 120 "$T/tests/$1") >"$T/said" 2>&1 || r=$?
    tail -n 1 "$T/said" >"$T/why"
    return $r
}

# control NAME CHECK...: each check passes where nothing is planted, or what it says about a mistake means nothing.
control()
{
    name=$1
    shift
    for c; do
        [ ! -e "$T/control.$name.$c" ] || continue
        rm -rf "$T/kernels" && mkdir -p "$T/kernels/cuda"
        cp "kernels/cuda/$name.cu" "$T/kernels/cuda"
        stand_in "$name"
        check "$c" && r=0 || r=$?
        [ $r != 77 ] || { cat "$T/said"; skip "$c is skipped"; }
        [ $r = 0 ] || { cat "$T/said"; fail "$c ends with $r where nothing is planted in $name.cu"; }
        : >"$T/control.$name.$c"
    done
}

# caught STATUS: whether a check ended as one that found a mistake does: it says FAIL, or the shim or a sanitizer does, and it
# exits with 1 or aborts.  It may also fault or run for ever, where FAULTS=1 or HANGS=1 says that such a mistake does that.
caught()
{
    case $1 in
    1 | 134) grep -qE '^(FAIL|shim): |ERROR: AddressSanitizer|runtime error: ' "$T/said" ;;
    139) [ "${FAULTS:-}" = 1 ] ;;
    124 | 137) [ "${HANGS:-}" = 1 ] ;;
    *) false ;;
    esac
}

# plant NAME SED CHECK...: the kernels of kernels/cuda/NAME.cu, changed by a sed script, or with HEADER=FILE.h the header
# that they include.  0: caught by one of the checks, and $T/why is its last line; 1: by none.
plant()
{
    name=$1 script=$2 file=${HEADER:-$1.cu}
    shift 2
    control "$name" "$@"
    rm -rf "$T/kernels" && mkdir -p "$T/kernels/cuda"
    cp "kernels/cuda/$name.cu" "$T/kernels/cuda"
    sed -E "$script" "kernels/cuda/$file" >"$T/kernels/cuda/$file"
    ! cmp -s "$T/kernels/cuda/$file" "kernels/cuda/$file" || fail "nothing of kernels/cuda/$file is changed by $script"
    stand_in "$name"
    for c; do
        check "$c" && r=0 || r=$?
        ! caught $r || return 0
        [ $r = 0 ] || { cat "$T/said"; fail "$c ends with $r where $script is planted in $file, and does not say why"; }
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
