#!/bin/sh
# platforms.sh [NAME…]: builds `flis digest` for each platform below, runs it, and compares every stage with tests/golden. One
# line per platform: name, compiler, first digits of the last digest, verdict, seconds that the digest took. The last line is "N
# same, N skipped, N differ, N refused"; exit 1 if any differ. Without a name all platforms are tested; -l lists them.
#
# Compilers, C libraries and emulators are Debian packages; missing ones are installed if apt-get is allowed to
# (PLATFORMS_INSTALL=0: never). Platforms that cannot be built or run here are skipped, and their line states why. Binaries and
# outputs stay in build/platform-NAME; foreign binaries are static and run under qemu-user.
set -u
cd "$(dirname "$0")/../.." || exit 2
LC_ALL=C
export LC_ALL
unset MAKEFLAGS CC CFLAGS CPPFLAGS LDFLAGS LDLIBS
MAKE=${MAKE:-make}
jobs=$(nproc 2>/dev/null || echo 2)

# name|compiler|CFLAGS (empty: the Makefile's, -O3 -march=native)|make's arguments|emulator|digest's arguments|packages
# A name ending in -64 is the double-precision build. A row whose compiler is =NAME runs that row's binary. "x87" must be
# refused by the compiler, refused-… at start: these call functions of the C library that round wrongly (mingw's sqrt without
# optimisation; mingw's fma and fmaf, and mips64el's fma, which the macros declare to be the processor's). Windows programs run
# under wine, in a prefix of their own. Three kinds of rows do not run the digest: golden-… write the conformance vectors with another row's objects, and the
# files must equal tests/golden; checks-… run the checks of tests/unit/test_ops.c, every operation against its naive loop, with
# the tiles of the target; fma compares 10^8 cases of the emulated fma with the processor's or the C library's.
table() {
    cat <<'END'
gcc-O0|gcc|-O0||||gcc libc6-dev
gcc-O2|gcc|-O2||||gcc libc6-dev
gcc-native|gcc|||||gcc libc6-dev
gcc-sse2|gcc|-O3 -march=x86-64||||gcc libc6-dev
gcc-v3|gcc|-O3 -march=x86-64-v3||||gcc libc6-dev
gcc-m32|i686-linux-gnu-gcc|-O2 -msse2 -mfpmath=sse|OPENMP=0 LDFLAGS=-static|||gcc-i686-linux-gnu libc6-dev-i386-cross
gcc-m32-O0|i686-linux-gnu-gcc|-O0 -msse2 -mfpmath=sse|OPENMP=0 LDFLAGS=-static|||gcc-i686-linux-gnu libc6-dev-i386-cross
x87|i686-linux-gnu-gcc|-O2 -mfpmath=387|OPENMP=0 LDFLAGS=-static|||gcc-i686-linux-gnu libc6-dev-i386-cross
clang-O0|clang|-O0||||clang libomp-14-dev
clang-O3|clang|||||clang libomp-14-dev
clang-sse2|clang|-O3 -march=x86-64||||clang libomp-14-dev
tcc|tcc|-O2||||tcc libc6-dev
serial|gcc||OPENMP=0|||gcc libc6-dev
threads-1|=gcc-native||||--threads 1|
threads-2|=gcc-native||||--threads 2|
threads-3|=gcc-native||||--threads 3|
threads-7|=gcc-native||||--threads 7|
clang-threads-7|=clang-O3||||--threads 7|
aarch64|aarch64-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-aarch64||gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
armhf|arm-linux-gnueabihf-gcc|-O2|LDFLAGS=-static|qemu-arm||gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user
armhf-neon|arm-linux-gnueabihf-gcc|-O3 -mfpu=neon-vfpv4|LDFLAGS=-static|qemu-arm||gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user
riscv64|riscv64-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-riscv64||gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user
ppc64le|powerpc64le-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-ppc64le||gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross qemu-user
s390x|s390x-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-s390x||gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user
mips|mips-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-mips||gcc-mips-linux-gnu libc6-dev-mips-cross qemu-user
mips64el|mips64el-linux-gnuabi64-gcc|-O2|LDFLAGS=-static|qemu-mips64el||gcc-mips64el-linux-gnuabi64 libc6-dev-mips64el-cross qemu-user
windows|x86_64-w64-mingw32-gcc|-O2|LDFLAGS=-static|wine||gcc-mingw-w64-x86-64 wine wine64
s390x-file|=s390x|||qemu-s390x|-m build/tinyA.safetensors|
golden-sse2|=gcc-sse2|||||
golden-m32|=gcc-m32|||||
golden-s390x|=s390x|||qemu-s390x||
golden-mips|=mips|||qemu-mips||
golden-windows|=windows|||wine||
checks-v3|gcc|-O3 -march=x86-64-v3||||gcc libc6-dev
checks-sse2|gcc|-O3 -march=x86-64||||gcc libc6-dev
checks-aarch64|aarch64-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-aarch64|-q|gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
fma|gcc|||||gcc libc6-dev
gcc-native-64|gcc|||||gcc libc6-dev
gcc-m32-64|i686-linux-gnu-gcc|-O2 -msse2 -mfpmath=sse|OPENMP=0 LDFLAGS=-static|||gcc-i686-linux-gnu libc6-dev-i386-cross
aarch64-64|aarch64-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-aarch64||gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
s390x-64|s390x-linux-gnu-gcc|-O2|LDFLAGS=-static|qemu-s390x||gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user
windows-64|x86_64-w64-mingw32-gcc|-O2|LDFLAGS=-static|wine||gcc-mingw-w64-x86-64 wine wine64
refused-sqrt|x86_64-w64-mingw32-gcc|-O0|LDFLAGS=-static|wine||gcc-mingw-w64-x86-64 wine wine64
refused-fma|x86_64-w64-mingw32-gcc|-O2 -DFP_FAST_FMAF|LDFLAGS=-static|wine||gcc-mingw-w64-x86-64 wine wine64
refused-fma-64|x86_64-w64-mingw32-gcc|-O2 -DFP_FAST_FMA|LDFLAGS=-static|wine||gcc-mingw-w64-x86-64 wine wine64
refused-mips-64|mips64el-linux-gnuabi64-gcc|-O2 -DFP_FAST_FMA|LDFLAGS=-static|qemu-mips64el||gcc-mips64el-linux-gnuabi64 libc6-dev-mips64el-cross qemu-user
END
}

if [ "${1:-}" = -l ]; then
    table | cut -d'|' -f1
    exit 0
fi
for wanted; do
    table | cut -d'|' -f1 | grep -qxF -e "$wanted" || { echo "platforms.sh: no platform $wanted; -l lists them" >&2; exit 2; }
done

# Without a display, messages and questions; nothing of the user's own prefix is touched.
WINEPREFIX=$PWD/build/wine WINEDEBUG=-all WINEDLLOVERRIDES='mscoree=;mshtml='
export WINEPREFIX WINEDEBUG WINEDLLOVERRIDES
# 700 MB, made in 10 seconds; wine's server writes to it for a few seconds after the last program.
remove_prefix() {
    for _ in 1 2 3 4 5 6 7 8; do
        rm -rf build/wine 2>/dev/null && return
        sleep 1
    done
}
trap remove_prefix EXIT
trap 'exit 1' HUP INT TERM

# ---- Packages ---------------------------------------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }
updated=
install() {
    [ "${PLATFORMS_INSTALL:-1}" != 0 ] && have apt-get || return 1
    sudo=
    [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null && sudo='sudo -n'; } || return 1
    [ -n "$updated" ] || $sudo apt-get update -qq >/dev/null 2>&1
    updated=yes
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $1 >/dev/null 2>&1
}

# True if compiler and emulator can build and run a program here with these flags; code for AVX2 and FMA needs a processor with
# both.
usable() {
    have "$compiler" && { [ -z "$emulator" ] || have "$emulator"; } || return 1
    mkdir -p build
    cat >build/usable.c <<'END'
#include <stdio.h>
#if !defined(__AVX2__) || !defined(__x86_64__)
#define __builtin_cpu_supports(feature) 1
#endif
int main(void) { return puts("") < 0 || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"); }
END
    link=
    case $options in *-static*) link=-static ;; esac
    # shellcheck disable=SC2086
    $compiler $flags build/usable.c -o build/usable.exe $link 2>/dev/null && $emulator build/usable.exe >/dev/null 2>&1
    works=$?
    rm -f build/usable.exe build/usable.c
    return $works
}

# "gcc 12.2.0 -O2"
describe() {
    version=$($compiler -dumpfullversion 2>/dev/null || $compiler -dumpversion 2>/dev/null || $compiler -v 2>/dev/null)
    echo "$compiler $(echo "$version" | sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p;q') ${flags:--O3 -march=native}"
}

# ---- One platform -----------------------------------------------------------------------------------------------

same=0 skipped=0 differ=0 refused=0
say() { printf '%-15s %-62s %-16s %-9s %s\n' "$@"; }
skip() {
    say "$name" "$what" - skipped "$1"
    skipped=$((skipped + 1))
}
differs() {
    say "$name" "$what" "$1" DIFFERS "$2"
    differ=$((differ + 1))
}

# Builds $program, of the row $of; its messages go to build/platform-$of/log.
build() {
    mkdir -p "build/platform-$of"
    set -- "CC=$compiler" "VARIANT=platform-$of"
    [ -z "$flags" ] || set -- "$@" "CFLAGS=$flags"
    case $of in *-64) set -- "$@" CPPFLAGS=-DFLIS_DOUBLE ;; esac
    # shellcheck disable=SC2086
    $MAKE --no-print-directory -s -j"$jobs" "$@" $options "$program" >"build/platform-$of/log" 2>&1 || return 1
    case $compiler in *-mingw32-*) program=$program.exe ;; esac
}

# A platform without IEEE arithmetic must be refused with this error message.
must_refuse() {
    if build; then differs - "it was built, but must be refused"
    elif sentence=$(grep -o 'Floats are computed with excess precision[^"]*' "build/platform-$name/log"); then
        say "$name" "$what" - refused "as required: $(echo "$sentence" | head -n 1)"
        refused=$((refused + 1))
    else differs - "refused, but not with the expected message: see build/platform-$name/log"; fi
}

# A program whose C library rounds wrongly must be refused at start, with this error message.
must_refuse_at_start() {
    build || { differs - "does not build: $(grep -m 1 -i error "build/platform-$of/log")"; return; }
    $emulator "$program" digest >"build/platform-$name/digest.txt" 2>"build/platform-$name/err"
    status=$?
    sentence=$(grep -o "this build's [a-z]* is not rounded as IEEE 754 requires" "build/platform-$name/err")
    if [ $status = 1 ] && [ -n "$sentence" ] && [ ! -s "build/platform-$name/digest.txt" ]; then
        say "$name" "$what" - refused "as required: $sentence"
        refused=$((refused + 1))
    else differs - "exit $status, but must be refused with the expected message: see build/platform-$name/err"; fi
}

# Runs the digest and compares it; names the first stage that differs.
measure() {
    out=build/platform-$name/digest.txt golden=tests/golden/digest.txt
    case $name in *-64) golden=tests/golden/digest64.txt ;; esac
    mkdir -p "build/platform-$name"
    start=$(date +%s)
    # shellcheck disable=SC2086
    OMP_WAIT_POLICY=passive $emulator "$program" digest $arguments >"$out" 2>"build/platform-$name/err"
    status=$?
    seconds=$(($(date +%s) - start))
    digest=$(sed -n 's/^all  \(.\{16\}\).*/\1/p' "$out")
    if [ $status = 0 ] && cmp -s "$out" $golden; then
        say "$name" "$what" "$digest" same "$seconds s"
        same=$((same + 1))
    else
        first=$(diff "$out" $golden | sed -n 's/^[<>] \([^ ]*\)  .*/\1/p' | head -n 1)
        [ -n "$digest" ] || first="nothing after it: exit $status: $(head -n 1 "build/platform-$name/err")"
        differs "${digest:--}" "$seconds s; first stage that differs: $first"
    fi
}

platform() {
    IFS='|' read -r name compiler flags options emulator arguments packages <<END
$1
END
    of=$name
    case $compiler in
    =*) of=${compiler#=}
        IFS='|' read -r _ compiler flags options emulator _ packages <<END
$(table | grep "^$of|")
END
        ;;
    esac
    program=build/platform-$of/flis what="$compiler $flags"
    usable || { install "$packages" && usable; } ||
        { skip "cannot build and run a program here; Debian's packages: $packages"; return; }
    what=$(describe)
    case $name in
    golden-*) golden; return ;;
    x87) must_refuse; return ;;
    refused-*) must_refuse_at_start; return ;;
    fma) check "${FMA_CASES:-100000000}" 'fma_*'; return ;;
    checks-*) check 100000 'ops_*'; return ;;
    esac
    build || { differs - "does not build: $(grep -m 1 -i error "build/platform-$of/log")"; return; }
    case $arguments in *tinyA*) make_model || { skip "bin/synth cannot be built here"; return; } ;; esac
    what="$what${arguments:+, $arguments}"
    measure
}

# Writes the conformance vectors with the program of another row, and compares every byte.
golden() {
    program=build/platform-$of/bin/golden out=build/platform-$name
    build || { differs - "does not build: $(grep -m 1 -i error "build/platform-$of/log")"; return; }
    rm -rf "$out"
    mkdir -p "$out"
    start=$(date +%s)
    OMP_WAIT_POLICY=passive $emulator "$program" "$out" >"build/platform-$of/log" 2>&1
    status=$?
    seconds=$(($(date +%s) - start))
    digest=$(cat "$out/manifest.json" "$out"/*puts.safetensors 2>/dev/null | sha256sum | cut -c1-16)
    for f in manifest.json inputs.safetensors outputs.safetensors; do
        [ $status = 0 ] && cmp -s "$out/$f" "tests/golden/$f" ||
            { differs "$digest" "$seconds s; exit $status; $out/$f differs from tests/golden/$f"; return; }
    done
    say "$name" "$what, conformance vectors" "$digest" same "$seconds s"
    same=$((same + 1))
}

# Runs checks of the suite; their output stays in build/platform-NAME/out.
check() {
    program=build/platform-$name/run out=build/platform-$name/out
    build || { differs - "does not build: $(grep -m 1 -i error "build/platform-$name/log")"; return; }
    start=$(date +%s)
    # shellcheck disable=SC2086
    OMP_WAIT_POLICY=passive FLIS_FMA_CASES=$1 $emulator $program $arguments "$2" >"$out" 2>&1
    status=$?
    seconds=$(($(date +%s) - start))
    if [ $status = 0 ]; then
        say "$name" "$what" "$(sed -n 's/\([0-9]*\) passed, 0 failed/\1 checks/p' "$out")" same "$seconds s"
        same=$((same + 1))
    else differs - "$seconds s; see $out"; fi
}

# Writes the digest's own weights to a file here; the platform's program reads it.
make_model() {
    [ -f build/tinyA.safetensors ] || {
        $MAKE --no-print-directory -s VARIANT=platform-host build/platform-host/bin/synth >/dev/null 2>&1 &&
            build/platform-host/bin/synth tinyA build/tinyA.safetensors
    }
}

rows=$(table)
[ $# = 0 ] || rows=$(for wanted; do echo "$rows" | grep "^$wanted|"; done)
while IFS= read -r row; do
    platform "$row" </dev/null
done <<END
$rows
END
echo "$same same, $skipped skipped, $differ differ, $refused refused"
[ $differ = 0 ]
