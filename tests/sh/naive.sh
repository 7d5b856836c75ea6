#!/bin/sh
# naive.sh [BUILD_DIR]: checks and counts the definitions. flis-naive, built separately with gcov, must give the golden digest.
# Then it evaluates a U-Net once, and the executed lines are counted: those that a reader of the definitions has to read.
#
# Prints the lines per file, the functions with the most lines, and "N passed, N failed".
set -u
LC_ALL=C
export LC_ALL
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
mkdir -p "${1:-$root/build/naive-cov}" || exit 2
work=$(cd "${1:-$root/build/naive-cov}" && pwd)
cd "$work" || exit 2
CC=${CC:-cc}
command -v "${GCOV:-gcov}" >/dev/null 2>&1 || { echo "note: gcov is missing: the lines of the definitions are not counted"; exit 0; }
FLAGS="-std=c99 -ffp-contract=off -O0 -I$root -DFLIS_NAIVE --coverage"
for f in -march=native -mcpu=native; do # without fma in hardware it would take minutes
    if echo 'int main(void) { return 0; }' | $CC $f -x c - -o probe 2>/dev/null; then FLAGS="$FLAGS $f"; break; fi
done
# The objects are in this folder, so that gcov finds their counts beside them.
rm -f ./*.gcda
objects=
for f in tensor flis clip unet vae sampler; do
    $CC $FLAGS -c "$root/$f.c" -o "$f.o" || exit 2
    objects="$objects $f.o"
done
for f in "$root"/tools/flis/*.c "$root"/tools/common/*.c "$root"/tools/synth/*.c; do
    o=$(echo "${f#"$root/"}" | tr / _ | sed 's/\.c$/.o/')
    $CC $(echo "$FLAGS" | sed 's/ --coverage//') -c "$f" -o "$o" || exit 2
done
$CC --coverage tools_flis_*.o tools_common_*.o $objects -o flis-naive -lm || exit 2
$CC --coverage tools_synth_*.o tools_common_*.o $objects -o synth -lm || exit 2

passed=0 failed=0
if ./flis-naive digest | cmp -s - "$root/tests/golden/digest.txt"; then passed=1
else failed=1; echo "FAIL flis-naive digest differs from tests/golden/digest.txt"; fi

# inputs WIDTH: x [1,4,8,8], t, a text of this width, a layout of one phrase; all zero, because the executed lines do not depend
# on the values.
inputs() {
    text=$((1032 + 77 * $1 * 4))
    header='{"x":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]},"t":{"dtype":"I64","shape":[1],"data_offsets":[1024,1032]},'
    header=$header'"context":{"dtype":"F32","shape":[1,77,'$1'],"data_offsets":[1032,'$text']},'
    header=$header'"label":{"dtype":"U8","shape":[64,64],"data_offsets":['$text,$((text + 4096))']},'
    header=$header'"class_ids":{"dtype":"F32","shape":[1],"data_offsets":['$((text + 4096)),$((text + 4100))']}}'
    printf "$(printf '\\%03o\\%03o\\000\\000\\000\\000\\000\\000' $((${#header} % 256)) $((${#header} / 256)))"
    printf '%s' "$header"
    head -c $((text + 4100)) /dev/zero
}
# executed LIST: runs the stage; its lines per function go to LIST: lines, file, function.
executed() {
    rm -f ./*.gcda
    ./flis-naive stage unet -q -m model.safetensors -i in.safetensors -o out.safetensors 2>err
    status=$?
    for f in tensor unet; do
        ${GCOV:-gcov} -f "$f.o" 2>/dev/null | awk -v file="$f.c" '
            /^Function / { name = $2; gsub(/\047/, "", name); next }
            /^File / { name = "" }
            /^Lines executed:/ && name != "" {
                sub(/.*executed:/, "")
                split($0, part, "% of ")
                lines = int(part[1] * part[2] / 100 + 0.5)
                if (lines) print lines, file, name
                name = ""
            }'
    done | sort -k1,1nr -k2 >"$1"
    return $status
}
./synth tinyA model.safetensors || exit 2
# A text of the wrong width fails after the model is loaded: the functions that ran until then only load the model.
inputs 31 >in.safetensors
executed loading
inputs 32 >in.safetensors
if executed all; then passed=$((passed + 1))
else failed=$((failed + 1)); echo "FAIL stage unet: $(cat err)"; fi
awk 'NR == FNR { loads[$2 $3] = 1; next } !(($2 $3) in loads)' loading all >computing
echo "A U-Net evaluation, of what flis-naive executes:"
awk '{ lines[$2] += $1; functions[$2]++ }
    END { for (f in lines) print f ": " lines[f] " lines in " functions[f] " functions" }' computing | sort
awk '{ all += $1 } END { print "together: " all " lines in " NR " functions" }' computing
echo "The ten functions with the most lines:"
head -n 10 computing | awk '{ printf "%4d  %s %s\n", $1, $2, $3 }'
echo "naive: $passed passed, $failed failed"
[ "$failed" = 0 ]
