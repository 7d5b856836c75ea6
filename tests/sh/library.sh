#!/bin/sh
# library.sh [quick|full] - tests the installed library: found by pkg-config, used from C, C++ and Python.
# quick: `make install` for this machine only; full: the default `make install`.
#
# Installs into a temporary folder (make install DESTDIR=…), compiles the examples against it, static and shared, and runs
# them: each picture must equal the command's. Also checks that float and double cannot be mixed, that two threads with a
# context each pass the thread sanitizer, and that uninstall leaves nothing. Checks whose tools are missing are skipped, with a
# line each. Prints one line per check and "N passed, N failed"; exit 1 if any failed. MAKE, CC, CXX, PYTHON choose the
# programs.
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-library.XXXXXX") || exit 2
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0
: "${MAKE:=make}" "${CC:=cc}" "${CXX:=c++}" "${PYTHON:=python3}"
export CC
model=$root/models/flis-small.safetensors vocab=$root/models/vocab.txt layouts=$root/examples
prefix=$dir/usr/local lib=$dir/usr/local/lib
unset MAKEFLAGS MFLAGS CFLAGS LDFLAGS VARIANT
native=$(echo 'int main(void) { return 0; }' >"$dir/p.c" && $CC -march=native "$dir/p.c" -o "$dir/p" 2>/dev/null && echo -march=native)
level=${1:-full}
case $level in quick | full) ;; *) echo "usage: library.sh [quick|full]" >&2; exit 2 ;; esac

# check NAME COMMAND...: the command must succeed; its last lines are printed if it fails.
check() {
    begun=$(date +%s)
    name=$1
    shift
    if "$@" >"$dir/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $name ($(($(date +%s) - begun)) s)"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        tail -n 15 "$dir/log" | sed 's/^/    /'
    fi
}
skip() { echo "skip $1: $2"; }
have() { command -v "$1" >/dev/null 2>&1; }
finish() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
    exit
}

# ---- Installed

install_it() {
    set -- DESTDIR="$dir" PREFIX=/usr/local
    [ $level = full ] || set -- "$@" CFLAGS="-O3 $native"
    (cd "$root" && "$MAKE" --no-print-directory -s install "$@")
}
check "make install" install_it
[ $failed = 0 ] || finish
everything() {
    for f in bin/flis bin/flis64 bin/flis-compare bin/flis-ckpt2safetensors include/flis.h include/flis64.h lib/libflis.a \
        lib/libflis64.a lib/libflis.so lib/libflis.so.0 lib/pkgconfig/flis.pc lib/pkgconfig/flis64.pc share/man/man1/flis.1 \
        share/flis/python/flis.py share/flis/python/torch_trace.py share/flis/golden/manifest.json; do
        [ -f "$prefix/$f" ] || { echo "$f is not installed"; return 1; }
    done
    for p in "$root"/tools/*/main.c; do
        p=$(basename "$(dirname "$p")")
        [ "$p" = flis ] || [ -x "$prefix/bin/flis-$p" ] || { echo "flis-$p is not installed"; return 1; }
    done
}
check "every program, library and header is installed" everything
version() { [ "$("$prefix/bin/flis" --version | grep -o '[0-9.]*' | head -n 1)" = "$(sed -n 's/^#define FLIS_VERSION "\(.*\)"/\1/p' "$prefix/include/flis.h")" ]; }
check "the installed command runs" version

# ---- Start

# flis_init on a C library whose functions round wrongly, imitated by macros in tensor.c: it must fail and name the function.
others=
for f in flis clip unet vae sampler; do
    $CC -std=c99 -ffp-contract=off -I"$root" -c "$root/$f.c" -o "$dir/start-$f.o" || exit 1
    others="$others $dir/start-$f.o"
done
refused() { # MESSAGE MACROS...
    wanted=$1
    shift
    cat >"$dir/start.c" <<'END'
#include "flis.h"
#include <stdio.h>
int main(void)
{
    flis_ctx ctx;
    puts(flis_init(&ctx) ? "accepted" : ctx.error);
    return 0;
}
END
    echo '#include <math.h>' >"$dir/wrong.h"
    printf '#define %s\n' "$@" >>"$dir/wrong.h"
    $CC -std=c99 -ffp-contract=off -fno-math-errno -I"$root" -include "$dir/wrong.h" "$dir/start.c" "$root/tensor.c" $others -o "$dir/start" -lm &&
        "$dir/start" | grep -e "$wanted"
}
check "correct functions are accepted at start" refused '^accepted$' 'NOTHING'
check "a wrong sqrt is refused at start" refused 'sqrt is not rounded as IEEE 754' 'sqrt(x) (sqrt(x) * 1.0000000000000002)'
check "a wrong sqrtf is refused at start" refused 'sqrtf is not rounded as IEEE 754' 'sqrtf(x) (float)(sqrtf(x) * 1.00000006)'
check "a wrong floor is refused at start" refused 'floor is not rounded as IEEE 754' 'floor(x) floor((x) + 0x1p-53)'
check "a wrong fma is refused at start" refused 'fma is not rounded as IEEE 754' 'FP_FAST_FMAF' \
    '__builtin_fmaf(a, b, c) ((a) * (b) + (c))' 'fmaf(a, b, c) ((a) * (b) + (c))'

# ---- Symbols

names() { nm "$1" 2>/dev/null | sed -n 's/^[0-9a-f]* [TDBRC] //p' | sort -u; }
apart() {
    names "$lib/libflis.a" >"$dir/single"
    names "$lib/libflis64.a" >"$dir/double"
    [ -s "$dir/single" ] && [ -s "$dir/double" ] || { echo "no symbols"; return 1; }
    both=$(comm -12 "$dir/single" "$dir/double" | grep '^_*flis')
    [ -z "$both" ] || { echo "in both: $both"; return 1; }
    [ "$(wc -l <"$dir/single")" = "$(wc -l <"$dir/double")" ]
}
only_ours() {
    other=$(nm -D --defined-only "$lib/libflis.so" | sed -n 's/^[0-9a-f]* [TDBRC] //p' | grep -v '^flis_')
    [ -z "$other" ] || { echo "exported: $other"; return 1; }
}
if have nm; then
    check "the float and the double library share no symbol" apart
    check "libflis.so exports flis_ names only" only_ours
else skip "symbols" "no nm"; fi

# ---- C and C++

if have pkg-config; then
    PKG_CONFIG_PATH=$lib/pkgconfig
    export PKG_CONFIG_PATH
    pc() { pkg-config --define-variable=prefix="$prefix" "$@"; }
else # the same flags without pkg-config, so that only pkg-config itself is skipped
    skip "pkg-config" "it is missing; the flags are written out"
    pc() {
        n=flis; for a; do case $a in flis64) n=flis64 ;; esac; done
        echo "-I$prefix/include -L$lib -l$n $(sed -n "s/^Libs.private: //p" "$lib/pkgconfig/$n.pc")"
    }
fi
strict='-O1 -Wall -Wextra -Wshadow -pedantic -Werror'
# shellcheck disable=SC2046,SC2086
{
    c_shared() { $CC -std=c99 $strict "$root/examples/paint.c" $(pc --cflags --libs flis) -o "$dir/paint-shared"; }
    c_static() {
        $CC -std=c99 $strict "$root/examples/paint.c" $(pc --static --cflags --libs flis | sed "s|-lflis|$lib/libflis.a|") \
            -o "$dir/paint-static"
    }
    cpp_shared() { $CXX -std=c++11 $strict "$root/examples/paint.cpp" $(pc --cflags --libs flis) -o "$dir/paint-cpp"; }
    double() {
        sed 's/<flis.h>/<flis64.h>/' "$root/examples/paint.c" >"$dir/paint64.c"
        $CC -std=c99 $strict "$dir/paint64.c" $(pc --cflags --libs flis64) -o "$dir/paint64"
    }
    # A program compiled for one library must not link with the other, and the linker must name the missing function.
    mixed() {
        $CC -std=c99 "$1" $(pc --cflags flis) -c -o "$dir/mixed.o" || return 1
        if $CC "$dir/mixed.o" $(pc --static --libs "$2" | sed "s|-l$2|$lib/lib$2.a|") -o "$dir/mixed"; then
            echo "it was linked"
            return 1
        fi >"$dir/mixed.log" 2>&1
        grep -e "$3" "$dir/mixed.log"
    }
    both_headers() {
        printf '#include <flis.h>\n#include <flis64.h>\n' >"$dir/both.c"
        ! $CC $(pc --cflags flis) -c "$dir/both.c" -o "$dir/both.o"
    }
}
check "the C example compiles, shared" c_shared
check "the C example compiles, static" c_static
check "a program in double precision compiles" double
check "float program, double library: no link" mixed "$root/examples/paint.c" flis64 flis_init
check "double program, float library: no link" mixed "$dir/paint64.c" flis flis64_init
check "both headers in one file are refused" both_headers

# The pictures differ from the command's in their text chunks only: the bytes after header and text chunks must be equal.
mkdir "$dir/command" "$dir/shared" "$dir/static" "$dir/python"
command_paints() {
    for l in harbour meadow night; do
        "$prefix/bin/flis" generate -q -m "$model" --vocab "$vocab" -j "$layouts/$l.json" --size 128x128 --seed 7 \
            -o "$dir/command/$l.png" || return 1
    done
}
check "the installed command paints three layouts" command_paints
same_pixels() {
    for l in harbour meadow night; do
        [ -z "$2" ] || [ "$l" = "$2" ] || continue
        tail -c +34 "$1/$l.png" >"$dir/wanted" # after signature and IHDR
        tail -c "$(wc -c <"$dir/wanted")" "$dir/command/$l.png" | cmp - "$dir/wanted" || return 1
    done
}
# paints FOLDER COMMAND...
paints() {
    folder=$1
    shift
    (cd "$folder" && LD_LIBRARY_PATH=$lib "$@" "$model" "$vocab" "$layouts/harbour.json" "$layouts/meadow.json" "$layouts/night.json") &&
        same_pixels "$folder"
}
check "C, shared: one model, three layouts, the command's pixels" paints "$dir/shared" "$dir/paint-shared"
# The static library is portable code, which is slow where fma must be emulated. So the static program only runs into an early
# error.
says() { "$@" >"$dir/said" 2>&1; status=$?; cat "$dir/said"; [ $status = 1 ] && grep 'absent: cannot be opened' "$dir/said"; }
check "C, static: it runs" says "$dir/paint-static" absent absent absent
if have "$CXX"; then
    check "the C++ example compiles" cpp_shared
    cpp_paints() { LD_LIBRARY_PATH=$lib "$dir/paint-cpp" "$model" "$vocab" "$dir/cpp.png" && [ "$(wc -c <"$dir/cpp.png")" -gt 5000 ]; }
    check "C++: a layout from memory is painted" cpp_paints
else skip "C++" "no $CXX"; fi

# ---- Python

for python in "$PYTHON" /usr/bin/python3; do
    [ "$python" = "$PYTHON" ] || [ "$(command -v "$PYTHON")" != "$python" ] || continue
    if ! have "$python"; then skip "Python" "no $python"; continue; fi
    numpy=$("$python" -c 'import numpy; print("with numpy")' 2>/dev/null || echo 'without numpy')
    PYTHONPATH=$prefix/share/flis/python PYTHONDONTWRITEBYTECODE=1
    export PYTHONPATH PYTHONDONTWRITEBYTECODE
    check "Python $numpy: the binding's checks" "$python" "$root/tests/external/python_check.py" "$model" "$vocab" "$dir"
    check "Python $numpy: one model, three layouts, the command's pixels" paints "$dir/python" "$python" "$root/examples/paint.py"
done

# ---- Threads

sources="$root/flis.c $root/tensor.c $root/clip.c $root/unet.c $root/vae.c $root/sampler.c"
# shellcheck disable=SC2086
threads_compile() {
    $CC -std=c99 -O1 -g $native -ffp-contract=off -w -fsanitize=thread -I"$root" "$root/tests/external/threads.c" $sources -lm -lpthread \
        -o "$dir/threads"
}
if echo 'int main(void) { return 0; }' >"$dir/p.c" && $CC -fsanitize=thread "$dir/p.c" -o "$dir/p" 2>/dev/null && "$dir/p"; then
    check "two threads: it compiles with the thread sanitizer" threads_compile
    check "two threads, a context each, one model: no race, the same pictures" \
        "$dir/threads" "$model" "$vocab" "$layouts/harbour.json" "$layouts/night.json"
else skip "two threads" "no thread sanitizer that runs"; fi

# ---- Uninstalled

uninstalled() {
    (cd "$root" && "$MAKE" --no-print-directory -s uninstall DESTDIR="$dir" PREFIX=/usr/local) || return 1
    left=$(find "$dir/usr" ! -type d)
    [ -z "$left" ] || { echo "left: $left"; return 1; }
}
check "make uninstall leaves no file" uninstalled
finish
