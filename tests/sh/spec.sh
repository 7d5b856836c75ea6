#!/bin/sh
# spec.sh [-i|-w]: SPEC.md and the sources name each other (SPEC.md 0.2).
#
#   sh tests/sh/spec.sh        check this tree, and that the check notices each of the mistakes below, on copies
#   sh tests/sh/spec.sh -i     print the index, which section 15 must be
#   sh tests/sh/spec.sh -w     write it there
#
# A function's tags are the "SPEC n.n" of the comment that ends on the line above its definition; a section's functions
# are the names in backticks of its paragraph "Functions:". What must hold:
#   every function of the library that is not static has a tag; every tag's section exists and names the function;
#   every function that a section names exists and has that section's tag; every section has its paragraph;
#   every name in backticks of the form flis_x or file.c:x is a function; every "SPEC n.n" in the sources exists.
# Prints one line per fault and "N passed, N failed", where N counts functions and mistakes. Exit 1 if any failed.
LC_ALL=C
export LC_ALL
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-spec.XXXXXX") || exit 2

# All definitions of the .c files given, one a line: file, name, static or public, line, tags; and every tag anywhere:
# file, "-", "-", line, tag.
functions() {
    awk '
    function file_name(path) { sub(/.*\//, "", path); return path }
    function tags_of(text,    out) {
        out = ""
        while (match(text, /SPEC [0-9]+\.[0-9]+/)) {
            out = out " " substr(text, RSTART + 5, RLENGTH - 5)
            text = substr(text, RSTART + RLENGTH)
        }
        return out
    }
    FNR == 1 { inside = 0; pending = 0; ended = -1; text = "" }
    {
        found = tags_of($0)
        count = split(found, each, " ")
        for (i = 1; i <= count; i++) print file_name(FILENAME), "-", "-", FNR, each[i]
    }
    inside { text = text " " $0; if ($0 ~ /\*\//) { inside = 0; ended = FNR }; next }
    /^\/\*/ { text = $0; if ($0 ~ /\*\//) ended = FNR; else inside = 1; next }
    {
        line = $0
        gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
        while (match(line, /\/\*([^*]|\*[^\/])*\*\//)) line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
        if (line ~ /\/\*/) { inside = 1; text = ""; sub(/\/\*.*/, "", line) }
        sub(/[ \t]+$/, "", line)
    }
    pending && line ~ /^\{/ { print file, name, kind, at, tags; pending = 0; next }
    line ~ /^[A-Za-z_][A-Za-z0-9_ *]*[ *][A-Za-z_][A-Za-z0-9_]*\(/ && line !~ /^(typedef|return|else|struct [a-z_]+ \{)/ {
        pending = 0
        head = substr(line, 1, index(line, "(") - 1)
        if (head ~ /=/ || line ~ /;$/) next
        file = file_name(FILENAME)
        name = head
        sub(/.*[ *]/, "", name)
        kind = head ~ /(^|[ ])static([ ]|$)/ ? "static" : "public"
        at = FNR
        tags = ended == FNR - 1 ? tags_of(text) : ""
        if (line ~ /\{/) print file, name, kind, at, tags
        else pending = 1
        next
    }
    pending && line ~ /;$/ { pending = 0 }
    ' "$@"
}

# SPEC.md: "section n.n", "names n.n" where it has its paragraph, "function n.n NAME" in it, "mention LINE NAME" anywhere.
sections() {
    awk '
    /^## / { section = "" }
    /^### [0-9]+\.[0-9]+ / { section = $2; print "section", section }
    /^Functions:/ && section != "" { listing = 1; print "names", section }
    /^$/ { listing = 0 }
    {
        rest = $0
        while (match(rest, /`[^`]*`/)) {
            name = substr(rest, RSTART + 1, RLENGTH - 2)
            rest = substr(rest, RSTART + RLENGTH)
            if (name !~ /^(flis_[a-z0-9_]+|[a-z0-9_]+\.c:[A-Za-z0-9_]+)$/) continue
            print "mention", FNR, name
            if (listing) print "function", section, name
        }
    }' "$1"
}

# The index: per file its functions with their sections.
index_of() {
    functions "$1"/*.c "$1"/tools/*/*.c | awk '$2 != "-" && NF > 4 {
        line = $1 " " $2
        for (i = 5; i <= NF; i++) line = line " " $i
        print line
    }' | sort | awk '
    function flush() { if (out != "") print out; out = "" }
    function put(word) {
        if (length(out) + 1 + length(word) > 120) { print out; out = "  " word } else out = out " " word
    }
    $1 != file { flush(); file = $1; out = "- **" file "**:"; comma = "" }
    {
        if (NR > 1 && comma != "") out = out comma
        word = $3
        for (i = 4; i <= NF; i++) word = word "+" $i
        put($2 " " word)
        comma = ","
    }
    END { flush() }'
}

# Every fault of the tree in $1, one a line; last "functions N".
faults() {
    { functions "$1"/*.c | sed 's/^/library /'; functions "$1"/tools/*/*.c | sed 's/^/tool /'; sections "$1/SPEC.md"; } | awk '
    function full(file, name, kind) { return kind == "static" ? file ":" name : name }
    $1 == "section" { known[$2] = 1; order[++sections] = $2; next }
    $1 == "names" { described[$2] = 1; next }
    $1 == "function" { named[$3, $2] = 1; list[++names] = $3 SUBSEP $2; next }
    $1 == "mention" { mention[++mentions] = $2 SUBSEP $3; next }
    $3 == "-" { reference[++references] = $2 ":" $5 SUBSEP $6; next }
    {
        if ($1 == "tool" && $4 != "static") next
        id = full($2, $3, $4)
        exists[id] = $2 ":" $5
        if ($1 == "library" || NF > 5) functions++
        if ($1 == "library" && $4 == "public" && NF == 5)
            print $2 ":" $5 ": " $3 " has no SPEC n.n in the comment above it"
        for (i = 6; i <= NF; i++) tagged[id, $i] = 1
        for (i = 6; i <= NF; i++) pair[++pairs] = id SUBSEP $i
    }
    END {
        for (i = 1; i <= references; i++) {
            split(reference[i], part, SUBSEP)
            if (!(part[2] in known)) print part[1] ": SPEC.md has no section " part[2]
        }
        for (i = 1; i <= pairs; i++) {
            split(pair[i], part, SUBSEP)
            if (!((part[1], part[2]) in named))
                print "SPEC.md: section " part[2] " does not name " part[1] ", which names it (" exists[part[1]] ")"
        }
        for (i = 1; i <= names; i++) {
            split(list[i], part, SUBSEP)
            if ((part[1] in exists) && !((part[1], part[2]) in tagged))
                print exists[part[1]] ": " part[1] " has no SPEC " part[2] ", whose section names it"
        }
        for (i = 1; i <= mentions; i++) {
            split(mention[i], part, SUBSEP)
            if (!(part[2] in exists)) print "SPEC.md:" part[1] ": there is no function " part[2]
        }
        for (i = 1; i <= sections; i++)
            if (!(order[i] in described)) print "SPEC.md: section " order[i] " has no paragraph \"Functions:\""
        print "functions", functions
    }'
    index_of "$1" >"$dir/index"
    sed '1,/^## 15\./d' "$1/SPEC.md" | grep '^[- ] ' >"$dir/stands" || :
    cmp -s "$dir/index" "$dir/stands" ||
        echo "SPEC.md: section 15 is not what sh tests/sh/spec.sh -i prints (-w writes it)"
}

trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
case ${1:-} in
'') ;;
-i) index_of "$root"; exit ;;
-w)
    { sed '/^## 15\./,$!d' "$root/SPEC.md" | sed '/^[- ] /d'; index_of "$root"; } >"$dir/section"
    sed '/^## 15\./,$d' "$root/SPEC.md" >"$dir/whole" && cat "$dir/section" >>"$dir/whole"
    cp "$dir/whole" "$root/SPEC.md"
    exit ;;
*) echo "usage: sh tests/sh/spec.sh [-i|-w]" >&2; exit 2 ;;
esac
faults "$root" >"$dir/faults"
count=$(sed -n 's/^functions //p' "$dir/faults")
grep -v '^functions ' "$dir/faults"
failed=$(grep -vc '^functions ' "$dir/faults")
[ "${count:-0}" -gt 0 ] || failed=$((failed + 1))
passed=$((${count:-0} > failed ? count - failed : 0))

# The mistakes. mistake NAME FILE SED SENTENCE: the copy must have a fault that matches, and a change to begin with.
mistake() {
    rm -rf "$dir/copy"
    mkdir "$dir/copy" || exit 2
    cp "$root"/*.c "$root/SPEC.md" "$dir/copy" && cp -r "$root/tools" "$dir/copy" || exit 2
    sed "$3" "$root/$2" >"$dir/copy/$2"
    if cmp -s "$root/$2" "$dir/copy/$2"; then echo "FAIL spec: $1: changes nothing"
    elif ! faults "$dir/copy" | grep "$4" >/dev/null; then echo "FAIL spec: $1: not noticed"
    else
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
}
mistake "a function is renamed" unet.c 's/^bool flis_rca_mask(/bool flis_rca_masks(/' 'there is no function flis_rca_mask$'
mistake "a static function is renamed" tensor.c 's/double exp_with(/double exp_by(/' 'no function tensor.c:exp_with$'
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
mistake "the index is old" SPEC.md 's/flis_rca_mask 4\.3/flis_rca_mask 4.4/' 'section 15 is not'
echo "spec: $passed passed, $failed failed"
[ "$failed" = 0 ]
