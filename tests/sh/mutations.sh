#!/bin/sh
# mutations.sh mutants|vectors|mistakes BUILD_DIR [COUNTS]: deliberate mistakes in a copy of the sources must be detected.
#
#   mutants    each item of SPEC's "easy to get wrong" has a unit check, which must fail on the item's wrong variants
#   vectors    each conformance vector must reject its wrong variants and accept correct answers; the committed vectors must be those
#              that bin/golden writes
#   mistakes   bin/compare, given the trace of a port with one mistake, must name the first wrong tensor and describe the error
#
# The tables are tests/sh/mutations/KIND.txt; the first line of each names its columns. A substitution that changes nothing is a
# failure, because the table must match the code. ROWS=N tests every Nth row only, MATCH=TEXT only the rows whose line contains
# TEXT. Prints the rows that failed (all with VERBOSE=1) and "N passed, N failed"; the latter goes to the file COUNTS too.
set -u
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
usage() { echo "usage: mutations.sh mutants|vectors|mistakes BUILD_DIR [COUNTS]" >&2; exit 2; }
[ $# -ge 2 ] || usage
root=$(cd "$(dirname "$0")/../.." && pwd)
kind=$1 counts=${3:-}
case $kind in mutants | vectors | mistakes) ;; *) usage ;; esac
mkdir -p "$2" || exit 2
work=$(cd "$2" && pwd)
case $counts in '' | /*) ;; *) counts=$PWD/$counts ;; esac
[ -z "$counts" ] || rm -f "$counts"
if ! command -v perl >/dev/null 2>&1; then
    echo "note: perl is missing: $kind are not tested"
    [ -z "$counts" ] || echo "0 passed, 0 failed" >"$counts"
    exit 0
fi
cd "$work" || exit 2
CC=${CC:-cc}
FLAGS="-std=c99 -ffp-contract=off -O1 -I$root -I$work"
for f in -march=native -mcpu=native; do # without fma in hardware it would take minutes
    if echo 'int main(void) { return 0; }' | $CC $f -x c - -o probe 2>/dev/null; then FLAGS="$FLAGS $f"; break; fi
done

passed=0 failed=0
pass() { passed=$((passed + 1)); [ -z "${VERBOSE:-}" ] || echo "ok   $*"; }
fail() { failed=$((failed + 1)); echo "FAIL $kind: $*"; }
trim() { echo "$1" | sed 's/^ *//; s/ *$//'; }
rows() { grep -v '^#' "$root/tests/sh/mutations/$kind.txt" | grep -F -e "${MATCH:-}" | awk -v n="${ROWS:-1}" 'NR % n == 1 || n == 1'; }

# compile SOURCE OBJECT [FLAG...]
compile() {
    from=$1 to=$2
    shift 2
    $CC $FLAGS "$@" -c "$from" -o "$to"
}
# objects NAME SOURCE...: compiles each source; the list of objects goes to $NAME
objects() {
    list=
    name=$1
    shift
    for f; do
        o=$(echo "${f#"$root/"}" | tr / _ | sed 's/\.c$/.o/')
        compile "$f" "$o" -DTESTS_DIR="\"$root/tests\"" || exit 2
        list="$list $o"
    done
    eval "$name=\$list"
}
library=
for f in tensor flis clip unet vae sampler; do library="$library $root/$f.c"; done
parts() { for p; do ls "$root/tools/$p"/*.c | grep -v '/main\.c$'; done; }

# substitute CHANGE FILE: mutant.c becomes FILE with the mistake
substitute() {
    perl -0pe "$1" "$root/$2" >mutant.c && ! cmp -s "$root/$2" mutant.c && return
    fail "$what: the substitution no longer matches $2"
    return 1
}
# without NAME LIST...: the objects except that of the library's file NAME
without() {
    skip=$(basename "$1" .c).o
    shift
    for o; do [ "$o" = "$skip" ] || printf '%s ' "$o"; done
}

# ---- mutants -------------------------------------------------------------------------------------------------------

# The runner links the parts of the programs that its checks call.
all_mutants() {
    sh "$root/tests/sh/checks.sh" "$root"/tests/unit/test_*.c >checks.h
    objects lib $library
    objects tests "$root"/tests/unit/*.c "$root"/tools/common/*.c $(parts train world evaluate ckpt2safetensors) "$root"/tools/flis/lis_page.c
    while IFS='|' read -r item what file change checks; do
        file=$(trim "$file") what="item $(trim "$item"): $(trim "$what")"
        substitute "$change" "$file" || continue
        if ! compile mutant.c mutant.o || ! $CC $(without "$file" $lib) mutant.o $tests -o run -lm; then fail "$what: does not build"
        elif ./run -j 1 $checks >out 2>&1; then fail "$what: not detected by $checks"
        else pass "$what: detected by$checks"; fi
    done <table
}

# ---- vectors -------------------------------------------------------------------------------------------------------

# One copy contains all mistakes, each enabled by its number. flis conformance grades the answers of every number.
all_vectors() {
    golden=$root/tests/golden
    for f in $library; do cp "$f" .; done
    number=0
    while IFS='|' read -r what ids file change; do
        number=$((number + 1))
        file=$(trim "$file") what=$(trim "$what")
        change=$(printf '%s\n' "$change" | perl -pe "s/\bON\b/(flis_mutant == $number)/g")
        perl -0pe "$change" "$file" >mutated.c || { fail "$what: no such substitution"; continue; }
        if cmp -s "$file" mutated.c; then fail "$what: the substitution no longer matches $file"; else mv mutated.c "$file"; fi
    done <table
    echo 'extern int flis_mutant;' >mutant.h
    cat >main_mutant.c <<'END'
#include <stdlib.h>
#include <string.h>
int flis_mutant;
int golden_main(int argc, char **argv);
int flis_main(int argc, char **argv);
int main(int argc, char **argv)
{
    flis_mutant = atoi(argv[1]);
    argv[1] = argv[0];
    return strcmp(argv[2], "conformance") == 0 ? flis_main(argc - 1, argv + 1) : golden_main(argc - 1, argv + 1);
}
END
    objects programs $(parts golden flis) "$root"/tools/common/*.c
    compile "$root/tools/golden/main.c" golden_main.o -Dmain=golden_main && compile "$root/tools/flis/main.c" flis_main.o -Dmain=flis_main &&
        compile main_mutant.c main_mutant.o || exit 2
    lib=
    for f in tensor flis clip unet vae sampler; do
        compile "$f.c" "$f.o" -include mutant.h || { echo "mutations.sh: $f.c does not build with its mistakes"; exit 1; }
        lib="$lib $f.o"
    done
    $CC $FLAGS main_mutant.o golden_main.o flis_main.o $programs $lib -o answers -lm || exit 1
    rm -rf written
    mkdir written
    if ./answers 0 written && cmp -s written/manifest.json "$golden/manifest.json" &&
        cmp -s written/inputs.safetensors "$golden/inputs.safetensors" &&
        cmp -s written/outputs.safetensors "$golden/outputs.safetensors"; then pass "the committed vectors equal those that bin/golden writes"
    else fail "tests/golden differs from what bin/golden writes: run make golden"; fi
    if ./answers 0 --answers right.st && ./answers 0 conformance right.st --manifest "$golden" >right.txt; then pass "the correct answers pass"
    else fail "the correct answers do not pass: $(grep -E '^(FAIL|MISSING)' right.txt | head -3)"; fi
    number=0
    while IFS='|' read -r what ids file change; do
        number=$((number + 1))
        what=$(trim "$what")
        ./answers $number --answers wrong.st 2>err || : # a program that fails leaves answers out, which are then missing
        ./answers 0 conformance wrong.st --manifest "$golden" >report 2>>err
        if [ $? != 1 ]; then fail "$what: not detected $(head -1 err)"; continue; fi
        missed=
        for id in $ids; do grep -Eq "^(FAIL|MISSING) *$id *$" report || missed="$missed $id"; done
        if [ -z "$missed" ]; then pass "$what: rejected by $(grep -c '^[FM][AI]' report) vectors,$ids"
        else fail "$what: not rejected by$missed"; fi
    done <table
    [ -z "${ROWS:-}${MATCH:-}" ] || return
    cut -d'|' -f2 table | tr ' ' '\n' | sort -u >covered
    for id in $(sed -n 's/^    {"id": "\([^"]*\)".*/\1/p' "$golden/manifest.json"); do
        grep -qxF -e "$id" covered || fail "$id has no wrong variant in the table"
    done
}

# ---- mistakes ------------------------------------------------------------------------------------------------------

# picture FLIS TRACE: four steps of PLMS, tracing every tensor
picture() {
    "$1" generate -m model.safetensors --vocab merges.txt -j layout.json -o p.png --size 128 --steps 4 -q --trace "$2" 2>err ||
        { cat err; return 1; }
}
all_mistakes() {
    objects lib $library
    objects flis "$root"/tools/flis/*.c "$root"/tools/common/*.c
    objects compare "$root"/tools/compare/*.c
    objects synth "$root"/tools/synth/*.c
    common=$(echo $flis | tr ' ' '\n' | grep tools_common)
    $CC $flis $lib -o right -lm && $CC $compare $common $lib -o compare -lm && $CC $synth $common $lib -o synth -lm || exit 2
    [ -f model.safetensors ] || ./synth tinyA model.safetensors || exit 2
    awk 'BEGIN { print "#version: 0.2"; s = "abcdefghijklmnopqrstuvwxyz"
        for (n = i = 1; i <= 26; i++) for (k = 1; k <= 26 && n <= 486; k++) if (i != k) { n++
            print substr(s, i, 1) " " substr(s, k, 1) } }' >merges.txt
    awk 'BEGIN { print "P2 64 64 255"; for (y = 0; y < 64; y++) for (x = 0; x < 64; x++)
        print (x < 21 ? 7 : y < 27 ? 3 : (x - 40) * (x - 40) + (y - 45) * (y - 45) < 150 ? 11 : 9) }' >label.pgm
    printf '{"text_label_mapping": {"sea": 7, "sky": 3, "in oil": -1, "tree": 11}, "layout_path": "label.pgm"}\n' >layout.json
    picture ./right right.st || exit 2
    if ./compare -q right.st right.st; then pass "the correct trace equals itself"; else fail "the correct trace differs from itself"; fi
    while IFS='|' read -r what file change first says; do
        what=$(trim "$what") file=$(trim "$file") says=$(trim "$says")
        first=$(echo "$first" | tr -d ' ' |
            sed 's/\$B/step.0.cond.input_blocks.1.1.transformer_blocks.0/; s/\$R/step.0.cond.input_blocks.1.0/')
        substitute "$change" "$file" || continue
        if ! compile mutant.c mutant.o || ! $CC $(without "$file" $lib) mutant.o $flis -o wrong -lm || ! picture ./wrong wrong.st; then
            fail "$what: does not build or run"
            continue
        fi
        ./compare right.st wrong.st >out
        status=$?
        name=$(sed -n 's/^first wrong: *\([^ ]*\).*/\1/p' out)
        said=$(sed -n '/^first wrong/,$p' out | sed '1,2d' | tr '\n' ' ' | sed 's/  */ /g; s/^ //')
        line="$what | ${name:-none} | $said"
        case $name in $first) ;; *) fail "$line (wanted $first)"; continue ;; esac
        if [ $status != 1 ]; then fail "$line (exit $status)"
        elif ! echo "$said" | grep -Eq -e "$says"; then fail "$line (wanted \"$says\")"
        else pass "$line"; fi
    done <table
}

rows >table
all_$kind
echo "$kind: $passed passed, $failed failed"
[ -z "$counts" ] || echo "$passed passed, $failed failed" >"$counts"
[ "$failed" = 0 ]
