#!/bin/sh
# spec.sh [-i|-w]: SPEC.md, the sources, the tests and the documents refer to each other correctly (SPEC 0.2).
#
#   sh tests/sh/spec.sh        check this tree; then check, on broken copies of it, that each kind of fault is reported
#   sh tests/sh/spec.sh -i     print the index: for each file its functions with their sections
#   sh tests/sh/spec.sh -w     rewrite the paragraphs "Functions:" of SPEC.md by the tags: functions that have a tag and
#                              are not named are added, those that no longer exist are removed
#
# The tags of a function are the "SPEC n.n" of the comment that ends on the line above its definition. The functions of
# a section are the names in backticks of its paragraph "Functions:". What is checked:
#   library    every public function has a tag; a tag and its section name each other
#   tools      a function that a section names (tools/PROGRAM:NAME) is defined in that folder and has the tag
#   sections   every section has its paragraph "Functions:", or, in section 15, its five lines
#   names      every flis_x, file.c:x and tools/PROGRAM:x in backticks, in SPEC.md, README.md and docs, is a function
#              (in README.md and docs: or a type of flis.h); every check of a line "- Checks:" in docs exists
#   references every "SPEC n.n" in sources, tests, tools and documents is a section; nothing refers to a document that
#              the repository does not have
#   items      the checks that section 15 names are functions of tests/unit, and those of tests/sh/mutations/mutants.txt
#              are among them; its vectors are those of the manifest
# Prints one line per fault and "spec: N passed, N failed", where N counts functions, items and kinds of fault.
# Exit 1 if any failed.
LC_ALL=C
export LC_ALL
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-spec.XXXXXX") || exit 2

# All definitions of the .c files given, one per line: place, name, static or public, line, tags. The place is the file's
# name, or tools/PROGRAM.
functions() {
    awk '
    function place_of(path) {
        if (path ~ /^tools\//) { sub(/\/[^\/]*$/, "", path); return path }
        sub(/.*\//, "", path)
        return path
    }
    function tags_of(text,    out) {
        out = ""
        while (match(text, /SPEC [0-9]+\.[0-9]+/)) {
            out = out " " substr(text, RSTART + 5, RLENGTH - 5)
            text = substr(text, RSTART + RLENGTH)
        }
        return out
    }
    FNR == 1 { inside = 0; pending = 0; ended = -1; text = "" }
    inside { text = text " " $0; if ($0 ~ /\*\//) { inside = 0; ended = FNR }; next }
    /^\/\*/ { text = $0; if ($0 ~ /\*\//) ended = FNR; else inside = 1; next }
    {
        line = $0
        gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
        while (match(line, /\/\*([^*]|\*[^\/])*\*\//)) line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
        if (line ~ /\/\*/) { inside = 1; text = ""; sub(/\/\*.*/, "", line) }
        sub(/[ \t]+$/, "", line)
    }
    pending && line ~ /^\{/ { print place, name, kind, at, tags; pending = 0; next }
    line ~ /^[A-Za-z_][A-Za-z0-9_ *]*[ *][A-Za-z_][A-Za-z0-9_]*\(/ && line !~ /^(typedef|return|else|struct [a-z_]+ \{)/ {
        pending = 0
        head = substr(line, 1, index(line, "(") - 1)
        if (head ~ /=/ || line ~ /;$/) next
        place = place_of(FILENAME)
        name = head
        sub(/.*[ *]/, "", name)
        kind = head ~ /(^|[ ])static([ ]|$)/ ? "static" : "public"
        at = FNR
        tags = ended == FNR - 1 ? tags_of(text) : ""
        if (line ~ /\{/) print place, name, kind, at, tags
        else pending = 1
        next
    }
    pending && line ~ /;$/ { pending = 0 }
    ' "$@"
}

# Names in backticks of a document: "mention FILE:LINE NAME". Of SPEC.md also "section n" and "section n.n", "names n.n"
# where a section has its paragraph, "function n.n NAME" in it, and of section 15 "line n.n LABEL", "check n.n NAME" and
# "vector n.n ID"; of a line "- Checks:" elsewhere "run FILE:LINE NAME", a check as the runner names it.
documents() {
    awk '
    FNR == 1 { section = ""; list = "" }
    FILENAME == "SPEC.md" && /^## [0-9]+\. / { section = ""; number = $2; sub(/\./, "", number); print "section", number }
    FILENAME == "SPEC.md" && /^### [0-9]+\.[0-9]+ / { section = $2; print "section", section }
    FILENAME == "SPEC.md" && /^Functions:/ && section != "" { list = "function"; print "names", section }
    section ~ /^15\./ && /^- \*\*[A-Z][a-z]*:\*\*/ {
        label = $2
        gsub(/[*:]/, "", label)
        print "line", section, label
        list = label == "Checks" ? "check" : label == "Vectors" ? "vector" : ""
    }
    /^$/ { list = "" }
    {
        rest = $0
        while (match(rest, /`[^`]*`/)) {
            name = substr(rest, RSTART + 1, RLENGTH - 2)
            rest = substr(rest, RSTART + RLENGTH)
            if (/^- Checks: / && name ~ /^[a-z0-9_]+$/) print "run", FILENAME ":" FNR, name
            if (list == "check" || list == "vector") print list, section, name
            if (name !~ /^(flis_[a-z0-9_]+|[a-z0-9_]+\.c:[A-Za-z0-9_]+|tools\/[a-z0-9]+:[A-Za-z0-9_]+)$/) continue
            print "mention", FILENAME ":" FNR, name
            if (list == "function") print "function", section, name
        }
    }' "$@"
}

# Every reference to a section, "reference FILE:LINE n.n", and every reference to what is not there, "stale FILE:LINE".
references() {
    awk '
    /(^|[^A-Z_a-z])DESIGN([^A-Z_a-z]|$)/ || /shared RNG notes/ || /(^|[^A-Za-z])Items? [0-9]/ { print "stale", FILENAME ":" FNR }
    /SPEC/ {
        rest = $0
        while (match(rest, /SPEC(\.md)?(, section| section)? [0-9]+(\.[0-9]+)?/)) {
            number = substr(rest, RSTART, RLENGTH)
            rest = substr(rest, RSTART + RLENGTH)
            sub(/.* /, "", number)
            print "reference", FILENAME ":" FNR, number
        }
    }' "$@"
}

# The manifest: "item VECTOR n" and "manifest VECTOR n.n", its section.
manifest() {
    sed -n 's/^ *{"id": "\([^"]*\)", "spec": "\([0-9.]*\)".*/manifest \1 \2/p' "$1"
    sed -n 's/^ *{"id": "\([^"]*\)".* "item": \([0-9]*\).*/item \1 \2/p' "$1"
}

# The index: per file its functions with their sections.
index_of() {
    functions *.c tools/*/*.c | awk 'NF > 4 {
        line = $1 " " $2
        for (i = 5; i <= NF; i++) line = line " " $i
        print line
    }' | sort -u | awk '
    function flush() { if (out != "") print out; out = "" }
    function put(word) {
        if (length(out) + 1 + length(word) > 120) { print out; out = "  " word } else out = out " " word
    }
    $1 != file { flush(); file = $1; out = file ":"; comma = "" }
    {
        if (comma != "") out = out comma
        word = $3
        for (i = 4; i <= NF; i++) word = word "+" $i
        put($2 " " word)
        comma = ","
    }
    END { flush() }'
}

# Every fault of the tree in the current directory, one per line; last "count N", what was checked.
faults() {
    {
        functions *.c | sed 's/^/library /'
        functions tools/*/*.c | sed 's/^/tool /'
        documents SPEC.md README.md docs/*.md
        references *.c *.h Makefile README.md SPEC.md docs/*.md tools/*/* tools/*.py tests/*/*.[ch] tests/external/*.py \
            $(find tests/sh -type f ! -name spec.sh)
        manifest tests/golden/manifest.json
        grep -o 'flis_[a-z0-9_]*' flis.h | sort -u | sed 's/^/word /'
        sed -n 's/^void \(test_[A-Za-z0-9_]*\)(void).*/test \1/p' tests/unit/*.c
        sed -n 's/^\([0-9][0-9]*\) *|.*|\([^|]*\)$/mutant \1 \2/p' tests/sh/mutations/mutants.txt
    } | awk '
    $1 == "section" { known[$2] = 1; if ($2 ~ /\./) order[++sections] = $2; next }
    $1 == "names" { described[$2] = 1; next }
    $1 == "line" { item_line[$2, $3] = 1; next }
    $1 == "check" { check[++checks] = $2 SUBSEP $3; has_check[$2, $3] = 1; next }
    $1 == "word" { word[$2] = 1; next }
    $1 == "run" { run[++runs] = $2 SUBSEP $3; next }
    $1 == "mutant" { for (i = 3; i <= NF; i++) if ($i ~ /^[a-z0-9_]+$/) mutant[++mutants] = "15." $2 SUBSEP $i; next }
    $1 == "vector" { vector[++vectors] = $2 SUBSEP $3; has_vector[$2, $3] = 1; next }
    $1 == "function" { named[$3, $2] = 1; list[++names] = $3 SUBSEP $2; next }
    $1 == "mention" { mention[++mentions] = $2 SUBSEP $3; next }
    $1 == "reference" { reference[++referenced] = $2 SUBSEP $3; next }
    $1 == "stale" { print $2 ": refers to an item or a document that the repository does not have"; next }
    $1 == "manifest" { spec_of[$2] = $3; next }
    $1 == "item" { item_of[$2] = $3; next }
    $1 == "test" { tests[$2] = 1; next }
    {
        id = $1 == "library" && $4 == "public" ? $3 : $2 ":" $3
        exists[id] = $2 ":" $5
        if ($1 == "library" && $4 == "public" && NF == 5)
            print $2 ":" $5 ": " $3 " has no SPEC n.n in the comment above it"
        if ($1 == "library") count++
        for (i = 6; i <= NF; i++) {
            tagged[id, $i] = 1
            if ($1 == "library") pair[++pairs] = id SUBSEP $i
        }
    }
    END {
        for (i = 1; i <= referenced; i++) {
            split(reference[i], part, SUBSEP)
            if (!(part[2] in known)) print part[1] ": SPEC.md has no section " part[2]
        }
        for (i = 1; i <= pairs; i++) {
            split(pair[i], part, SUBSEP)
            if (!((part[1], part[2]) in named))
                print "SPEC.md: section " part[2] " does not name " part[1] ", which has its tag (" exists[part[1]] ")"
        }
        for (i = 1; i <= names; i++) {
            split(list[i], part, SUBSEP)
            if ((part[1] in exists) && !((part[1], part[2]) in tagged))
                print exists[part[1]] ": " part[1] " has no SPEC " part[2] ", though that section names it"
        }
        for (i = 1; i <= mentions; i++) {
            split(mention[i], part, SUBSEP)
            if (!(part[2] in exists) && (part[1] ~ /^SPEC/ || !(part[2] in word)))
                print part[1] ": there is no function " part[2]
        }
        labels = split("Right Wrong Where Checks Vectors", label, " ")
        for (i = 1; i <= sections; i++) {
            if (order[i] !~ /^15\./) {
                if (!(order[i] in described)) print "SPEC.md: section " order[i] " has no paragraph \"Functions:\""
                continue
            }
            items++
            for (k = 1; k <= labels; k++)
                if (!((order[i], label[k]) in item_line)) print "SPEC.md: section " order[i] " has no line " label[k]
        }
        for (i = 1; i <= checks; i++) {
            split(check[i], part, SUBSEP)
            if (!(part[2] in tests)) print "SPEC.md: section " part[1] " names the check " part[2] ", which tests/unit does not have"
        }
        for (i = 1; i <= runs; i++) {
            split(run[i], part, SUBSEP)
            if (!(("test_" part[2]) in tests)) print part[1] ": there is no check " part[2]
        }
        for (i = 1; i <= mutants; i++) {
            split(mutant[i], part, SUBSEP)
            if (!((part[1], part[2]) in has_check))
                print "SPEC.md: section " part[1] " does not name the check " part[2] ", which mutants.txt has for it"
        }
        for (i = 1; i <= vectors; i++) {
            split(vector[i], part, SUBSEP)
            if (!(part[2] in spec_of)) print "SPEC.md: section " part[1] " names the vector " part[2] ", which the manifest does not have"
            else if ("15." item_of[part[2]] != part[1]) print "SPEC.md: section " part[1] " names the vector " part[2] " of another item"
        }
        for (id in spec_of) if (!(spec_of[id] in known)) print "manifest.json: " id ": SPEC.md has no section " spec_of[id]
        for (id in item_of)
            if (!(("15." item_of[id], id) in has_vector)) print "SPEC.md: section 15." item_of[id] " does not name the vector " id
        print "count", count + items
    }'
}

# SPEC.md with the paragraphs "Functions:" that the tags imply; the order of names that stay is kept.
rewritten() {
    {
        functions *.c | sed 's/^/library /'
        functions tools/*/*.c | sed 's/^/tool /'
        echo text
        cat SPEC.md
    } | awk '
    function put(word) {
        if (length(line) + 1 + length(word) > 120) { print line; line = word } else line = line " " word
    }
    function flush(    i, name, total) {
        line = "Functions:"
        total = 0
        for (i = 1; i <= old; i++) if ((kept[i], section) in tagged) out[++total] = kept[i]
        for (i = 1; i <= added[section]; i++) {
            name = addition[section, i]
            if (!(name in mentioned)) out[++total] = name
        }
        for (i = 1; i <= total; i++) put("`" out[i] "`" (i < total ? "," : "."))
        if (total) print line
        else print old ? "Functions: none of its own." : prose
        for (name in mentioned) delete mentioned[name]
        old = listing = 0
    }
    !text && $1 == "text" { text = 1; next }
    !text {
        id = $1 == "library" && $4 == "public" ? $3 : $2 ":" $3
        for (i = 6; i <= NF; i++) {
            if (!((id, $i) in tagged)) addition[$i, ++added[$i]] = id
            tagged[id, $i] = 1
        }
        next
    }
    /^### [0-9]+\.[0-9]+ / { section = $2 }
    /^Functions:/ && section != "" { listing = 1; prose = "" }
    listing && /^$/ { flush() }
    listing {
        prose = prose == "" ? $0 : prose "\n" $0
        rest = $0
        while (match(rest, /`[^`]*`/)) {
            name = substr(rest, RSTART + 1, RLENGTH - 2)
            rest = substr(rest, RSTART + RLENGTH)
            kept[++old] = name
            mentioned[name] = 1
        }
        next
    }
    { print }
    END { if (listing) flush() }'
}

trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$root" || exit 2
case ${1:-} in
'') ;;
-i) index_of; exit ;;
-w) rewritten >"$dir/spec" && cp "$dir/spec" SPEC.md; exit ;;
*) echo "usage: sh tests/sh/spec.sh [-i|-w]" >&2; exit 2 ;;
esac
faults >"$dir/faults"
count=$(sed -n 's/^count //p' "$dir/faults")
grep -v '^count ' "$dir/faults"
failed=$(grep -vc '^count ' "$dir/faults")
[ "${count:-0}" -gt 0 ] || failed=$((failed + 1))
passed=$((${count:-0} > failed ? count - failed : 0))

# The broken copies. mistake NAME FILE SED SENTENCE: with FILE changed by SED, a fault must match SENTENCE that does not
# match before.
mkdir -p "$dir/copy/tests/golden" "$dir/copy/docs" || exit 2
cp ./*.c ./*.h SPEC.md README.md Makefile "$dir/copy" && cp docs/*.md "$dir/copy/docs" && cp -r tools "$dir/copy" &&
    cp -r tests/unit tests/sh tests/external tests/fuzz "$dir/copy/tests" &&
    cp tests/golden/manifest.json "$dir/copy/tests/golden" || exit 2
mistake() {
    sed "$3" "$root/$2" >"$dir/copy/$2"
    problem=
    if cmp -s "$root/$2" "$dir/copy/$2"; then problem="changes nothing"
    elif grep "$4" "$dir/faults" >/dev/null; then problem="reported without the mistake"
    elif ! (cd "$dir/copy" && faults) | grep "$4" >/dev/null; then problem="not reported"
    fi
    cp "$root/$2" "$dir/copy/$2"
    if [ -z "$problem" ]; then passed=$((passed + 1)); return; fi
    echo "FAIL spec: $1: $problem"
    failed=$((failed + 1))
}
mistake "a function is renamed" unet.c 's/^bool flis_rca_mask(/bool flis_rca_masks(/' 'there is no function flis_rca_mask$'
mistake "a static function is renamed" tensor.c 's/double exp_with(/double exp_by(/' 'no function tensor.c:exp_with$'
mistake "a tool's function is missing" SPEC.md 's,`tools/golden:make_vectors`,`tools/golden:absent`,' \
    'no function tools/golden:absent$'
mistake "a tag is removed" unet.c 's/ SPEC 4\.3//' 'flis_rca_mask has no SPEC'
mistake "a tag names another section" unet.c 's/SPEC 4\.3/SPEC 4.2/' 'section 4.2 does not name flis_rca_mask'
mistake "a section is removed" SPEC.md '/^### 4\.3 /,/^### 4\.4 /{/^### 4\.4 /!d;}' 'SPEC.md has no section 4.3$'
mistake "a section forgets a function" SPEC.md 's/^Functions: `flis_rca_mask`\./Functions: none./' \
    'section 4.3 does not name flis_rca_mask'
mistake "a section has no paragraph" SPEC.md '/^Functions: `flis_rca_mask`\./d' 'section 4.3 has no paragraph'
mistake "a function is new" vae.c '$a\
int flis_new(void)\
{\
    return 0;\
}' 'flis_new has no SPEC'
mistake "a test refers to no section" tests/unit/test_unet.c '1s/^/\/* SPEC 4.99 *\/ /' 'test_unet.c:1: SPEC.md has no section 4.99$'
mistake "a script refers to no section" tests/sh/cli.sh '2s/^/# SPEC 77 /' 'cli.sh:2: SPEC.md has no section 77$'
mistake "a test refers to no document" tests/unit/test_vae.c '1s/^/\/* DESIGN section 8 *\/ /' \
    'test_vae.c:1: refers to an item or a document'
mistake "an item's check is missing" SPEC.md 's/`test_unet_not_square`/`test_unet_square`/' 'check test_unet_square,'
mistake "an item's check is renamed" tests/unit/test_vae.c 's/^void test_vae_bytes(/void test_vae_octets(/' \
    'check test_vae_bytes,'
mistake "a stop of the tour has no check" docs/tour.md 's/`unet_mask_edges`/`unet_mask_corners`/' 'no check unet_mask_corners$'
mistake "an item forgets a mutant's check" SPEC.md 's/`test_unet_not_square`/`test_unet_mask`/' \
    '15.6 does not name the check test_unet_not_square,'
mistake "an item's vector is missing" SPEC.md 's/`steps\.first`/`steps.last`/' 'vector steps.last,'
mistake "an item forgets a vector" SPEC.md '/^- \*\*Vectors:\*\* `steps\.first`/d' '15.12 does not name the vector steps.first$'
mistake "an item lacks a line" SPEC.md '/^### 15\.19 /,/^### 15\.20 /{/Wrong:/d;}' 'section 15.19 has no line Wrong$'
echo "spec: $passed passed, $failed failed"
[ "$failed" = 0 ]
