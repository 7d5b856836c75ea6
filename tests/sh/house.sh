#!/bin/sh
# house.sh: which file may do what. Checks by reading the sources, then, on broken copies, that each rule is enforced.
#
#   sh tests/sh/house.sh
#
#   1 includes   the library includes flis.h and libc; tools/common adds its own headers; a program adds its own too (train,
#                evaluate and paper also those of world and evaluate). No file includes a .c file.
#   2 headers    hold no code but static inline functions of at most 10 lines
#   3 files      only flis.c in the library, and only tools/common in the tools, opens, renames or removes a file
#   4 state      the library has no mutable data of static duration; it never exits, prints, asserts or aborts
#   5 platforms  what C99 lacks is in one block of flis.c and in tools/common/machine.c
#   6 size       no function over 110 lines, no file of tools over 900
#   7 places     the top level has no .c or .h but the library's
#
# Comments and strings are ignored. Definitions are recognised by the format of .clang-format: a body begins and ends with
# a brace in the first column. Prints one line per fault, and "house: N passed, N failed", where N counts files and broken
# copies. Exit 1 if any failed.
LC_ALL=C
export LC_ALL
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-house.XXXXXX") || exit 2
LIBRARY="flis.c tensor.c clip.c unet.c vae.c sampler.c flis.h"

# Every fault of the tree in the current directory: "FILE:LINE: rule N: SENTENCE".
faults() {
    for f in *.c *.h; do
        case " $LIBRARY " in *" $f "*) ;; *) echo "$f:1: rule 7: is not a file of the library, and only those are at the top" ;; esac
    done
    awk '
    function fault(rule, sentence) { print FILENAME ":" FNR ": rule " rule ": " sentence }
    function calls(names) { return code ~ ("(^|[^A-Za-z0-9_.>])(" names ")[ ]*\\(") }
    function is_c99(name) {
        return name ~ /^(assert|complex|ctype|errno|fenv|float|inttypes|iso646|limits|locale|math|setjmp|signal|stdarg|stdbool|stddef|stdint|stdio|stdlib|string|tgmath|time|wchar|wctype)\.h$/
    }
    # May a file in this place include this one?
    function may_include(name) {
        if (name == "flis.h") return 1
        if (area == "test" || area == "library") return area == "test"
        if (name ~ /^tools\/common\/[a-z0-9_]*\.h$/) return 1
        if (index(name, "tools/" program "/") == 1) return 1
        if (program ~ /^(train|evaluate|paper)$/) return name ~ /^tools\/(world|evaluate)\/[a-z0-9_]*\.h$/
        return 0
    }
    # Without strings, characters and comments.
    function code_of(line,    from) {
        gsub(/\\\\/, "", line)
        gsub(/\\["\047]/, "", line)
        gsub(/\047[^\047]*\047/, "0", line)
        gsub(/"[^"]*"/, "\"\"", line)
        if (commented) {
            if (!(from = index(line, "*/"))) return ""
            line = substr(line, from + 2)
            commented = 0
        }
        while (match(line, /\/\*([^*]|\*+[^*\/])*\*+\//)) line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
        if ((from = index(line, "/*"))) { line = substr(line, 1, from - 1); commented = 1 }
        sub(/[ \t]+$/, "", line)
        return line
    }
    function end_of_file() {
        if (file ~ /^tools\// && lines > 900) print file ":" lines ": rule 6: has more than 900 lines"
        if (block_first && block_last - block_first > 40)
            print file ":" block_last ": rule 5: is outside the block that begins on line " block_first
    }
    FNR == 1 {
        if (NR > 1) end_of_file()
        file = FILENAME
        commented = body = depth = continued = 0
        start = block_first = block_last = 0
        part = split(file, path, "/")
        area = part == 1 ? "library" : path[1] == "tools" ? "tool" : "test"
        program = part > 1 ? path[2] : ""
        header = file ~ /\.h$/
    }
    { lines = FNR; code = code_of($0); directive = continued || code ~ /^[ \t]*#/; continued = directive && $0 ~ /\\$/ }

    # 1: includes.
    /^[ \t]*#[ \t]*include/ && !commented {
        name = $0
        if (match(name, /"[^"]*"/)) {
            name = substr(name, RSTART + 1, RLENGTH - 2)
            if (name ~ /\.c$/) fault(1, "includes " name ", a source file")
            else if (!may_include(name)) fault(1, "includes " name)
        } else if (match(name, /<[^>]*>/) && area != "test") {
            name = substr(name, RSTART + 1, RLENGTH - 2)
            if (!is_c99(name) && name != "omp.h" && file != "flis.c" && file != "tools/common/machine.c")
                fault(1, "includes " name ", which is not in C99")
        }
    }

    # 2 and 6: bodies of functions, from the line of the name to the closing brace.
    !directive && !body && code ~ /^[A-Za-z_].*\(/ && code !~ /;$/ && code !~ /=/ { start = FNR; opening = code }
    !directive && !body && code ~ /^\{/ && start { body = FNR; }
    !directive && !body && code ~ /^[A-Za-z_].*\).*\{.*\}$/ && header && code !~ /static inline/ { fault(2, "has code") }
    body && code ~ /^\}/ {
        if (header && opening !~ /static inline/) fault(2, "has the body of a function that is not static inline")
        if (header && FNR - body - 1 > 10) fault(2, "has an inline function of more than 10 lines")
        if (area != "test" && FNR - start + 1 > 110) fault(6, "has a function of more than 110 lines")
        body = start = depth = 0
        next
    }

    # 3: files.
    area == "library" && file != "flis.c" && !header && calls("fopen|freopen|tmpfile|rename|remove|unlink") {
        fault(3, "opens, renames or removes a file; in the library only flis.c does")
    }
    area == "tool" && program != "common" && calls("fopen|freopen|tmpfile|rename|remove|unlink") {
        fault(3, "opens, renames or removes a file; in the tools only tools/common does")
    }

    # 4: state.
    area == "library" && !directive && (body ? code ~ /^[ \t]+static / : code ~ /^static /) && code !~ /^[^=;]*\(/ {
        declared = code
        sub(/[=;[].*/, "", declared)
        pointed = declared
        if (declared !~ /(^|[ ])const[ ]/ || (sub(/.*\*/, "", pointed) && pointed !~ /^const[ ]/))
            fault(4, "has mutable data of static duration")
    }
    area == "library" && !directive && !body && !depth && !header && code ~ /^[a-z_][A-Za-z0-9_ *]*[ *][A-Za-z0-9_]+(\[[^]]*\])*( = .*|;)$/ &&
        code !~ /^(static|typedef|extern|struct [a-z_]+;|return|const )/ { fault(4, "has data with external linkage") }
    area == "library" && !directive && calls("exit|_Exit|abort|assert|printf|vprintf|puts|putchar|perror") {
        fault(4, "exits, prints, asserts or aborts")
    }
    area == "library" && code ~ /(^|[^A-Za-z0-9_])(stdout|stderr)([^A-Za-z0-9_]|$)/ { fault(4, "writes to a standard stream") }

    # 5: platforms.
    code ~ /(^|[^A-Za-z0-9_])(isatty|mmap|fseeko|ftello|_fseeki64|_WIN32|__unix__|__APPLE__|__linux__|_POSIX_C_SOURCE|_XOPEN_SOURCE)([^A-Za-z0-9_]|$)/ {
        if (file == "flis.c") {
            if (!block_first) block_first = FNR
            block_last = FNR
        } else if (area != "test" && file != "tools/common/machine.c") fault(5, "asks for what C99 does not have")
    }

    !directive { depth += gsub(/\{/, "{", code) - gsub(/\}/, "}", code) }
    END { end_of_file() }
    ' *.c *.h tools/*/*.[ch] tests/*/*.[ch]
}

trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$root" || exit 2
faults >"$dir/faults"
cat "$dir/faults"
files=$(ls *.c *.h tools/*/*.[ch] tests/*/*.[ch] | wc -l)
wrong=$(cut -d: -f1 "$dir/faults" | sort -u | wc -l)
passed=$((files - wrong))
failed=$(wc -l <"$dir/faults")

# The broken copies. broken NAME FILE SED FAULT [FROM]: FILE, made by SED from FROM (or itself), must have a new FAULT.
mkdir -p "$dir/copy/tests" || exit 2
cp ./*.c ./*.h "$dir/copy" && cp -r tools "$dir/copy" && cp -r tests/unit "$dir/copy/tests" || exit 2
broken() {
    problem=
    sed "$3" "$root/${5:-$2}" >"$dir/copy/$2"
    if [ -z "${5:-}" ] && cmp -s "$root/$2" "$dir/copy/$2"; then problem="changes nothing"
    elif grep "$4" "$dir/faults" >/dev/null; then problem="reported without the change"
    elif ! (cd "$dir/copy" && faults) | grep "$4" >/dev/null; then problem="not reported"
    fi
    if [ -f "$root/$2" ]; then cp "$root/$2" "$dir/copy/$2"; else rm -f "$dir/copy/$2"; fi
    if [ -z "$problem" ]; then passed=$((passed + 1)); return; fi
    echo "FAIL house: $1: $problem"
    failed=$((failed + 1))
}
broken "the library includes a tool's header" vae.c '1i\
#include "tools/common/common.h"' '^vae.c:1: rule 1'
broken "tools/common includes a program's header" tools/common/text.c '1i\
#include "tools/train/adamw.h"' '^tools/common/text.c:1: rule 1'
broken "a program includes another's header" tools/synth/main.c '1i\
#include "tools/train/adamw.h"' '^tools/synth/main.c:1: rule 1'
broken "a test includes a source file" tests/unit/test_clip.c '1i\
#include "clip.c"' '^tests/unit/test_clip.c:1: rule 1'
broken "a program includes a header of POSIX" tools/synth/main.c '1i\
#include <unistd.h>' '^tools/synth/main.c:1: rule 1'
broken "a header has code" tools/train/adamw.h '1i\
static int twice(int x)\
{\
    return 2 * x;\
}' '^tools/train/adamw.h:4: rule 2'
broken "an inline function is long" tools/train/adamw.h '1i\
static inline int long_one(int x)\
{\
    x++;\
    x++;\
    x++;\
    x++;\
    x++;\
    x++;\
    x++;\
    x++;\
    x++;\
    x++;\
    return x;\
}' '^tools/train/adamw.h:14: rule 2'
broken "the sampler opens a file" sampler.c 's/^    memset(rng, 0, sizeof \*rng);/    fclose(fopen("x", "rb"));/' \
    '^sampler.c:[0-9]*: rule 3'
broken "a program removes a file" tools/synth/main.c '1i\
static int gone = remove("x");' '^tools/synth/main.c:1: rule 3'
broken "a counter in a function" vae.c 's/^    flis_mask all = {0};/    static int calls;/' '^vae.c:[0-9]*: rule 4: has mutable'
broken "a pointer at file scope" vae.c '/^enum { MAX_RESNETS/i\
static const char *last_name;' '^vae.c:[0-9]*: rule 4: has mutable'
broken "a global" vae.c '$a\
int last_count = 0;' '^vae.c:[0-9]*: rule 4: has data'
broken "the library exits" clip.c 's/^    free(vocab);/    exit(1);/' '^clip.c:[0-9]*: rule 4: exits'
broken "the library prints" clip.c 's/^    free(vocab);/    fprintf(stderr, "x");/' '^clip.c:[0-9]*: rule 4: writes'
broken "the U-Net asks for the platform" unet.c '1i\
#ifdef _WIN32\
#endif' '^unet.c:1: rule 5'
broken "flis.c asks for the platform twice" flis.c '$a\
#ifdef _WIN32\
#endif' '^flis.c:[0-9]*: rule 5'
broken "a program asks for a terminal" tools/synth/main.c '1i\
int isatty(int);' '^tools/synth/main.c:1: rule 5'
broken "a function is long" vae.c "$(awk 'BEGIN { print "/^    flis_mask all = {0};/i\\"; for (i = 0; i < 110; i++) print "    x = x;\\"; print "" }')" \
    '^vae.c:[0-9]*: rule 6'
broken "a file of tools is long" tools/synth/main.c "$(awk 'BEGIN { print "$a\\"; for (i = 0; i < 900; i++) print "\\"; print "" }')" \
    '^tools/synth/main.c:[0-9]*: rule 6'
broken "a file at the top" helper.c '' '^helper.c:1: rule 7' vae.c
echo "house: $passed passed, $failed failed"
[ "$failed" = 0 ]
