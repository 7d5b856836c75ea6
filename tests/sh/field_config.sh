#!/bin/sh
# field_config.sh [-w]: docs/models.md lists the configuration keys that flis.c knows, and every key that can be refused is
# one of the rows of tests/unit/test_field_config.c.
#
#   sh tests/sh/field_config.sh       check this tree; prints one line per fault and "field_config: N passed, N failed"
#   sh tests/sh/field_config.sh -w    rewrite the tables of docs/models.md, between the lines <!-- keys of FILE --> and
#                                     <!-- end -->
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/../.." || exit 2
doc=docs/models.md
tmp=$(mktemp -d "${TMPDIR:-/tmp}/flis-config.XXXXXX") || exit 2
trap 'rm -rf "$tmp"' EXIT

# The tables of flis.c as "TABLE<tab>key<tab>rule<tab>wanted<tab>absent" and "TABLE<tab>harmless<tab>keys".
rows() {
    awk '
    function unquote(s) { s = substr(s, 2, length(s) - 2); gsub(/\\"/, "\"", s); return s }
    function next_string(    s) {
        if (!match(rest, /"([^"\\]|\\.)*"|NULL/)) return ""
        s = substr(rest, RSTART, RLENGTH)
        rest = substr(rest, RSTART + RLENGTH)
        return s == "NULL" ? "" : unquote(s)
    }
    function emit(text,    key, rule, wanted) {
        gsub(/" +"/, "", text)
        if (!match(text, /\{"/)) return
        rest = substr(text, RSTART + 1)
        key = next_string()
        match(rest, /CONFIG_[A-Z]+/)
        rule = substr(rest, RSTART + 7, RLENGTH - 7)
        rest = substr(rest, RSTART + RLENGTH)
        wanted = next_string()
        print table "\t" key "\t" rule "\t" wanted "\t" next_string()
    }
    /^static const config_key [A-Z]+_KEYS\[\] = \{/ { table = $4; sub(/_KEYS.*/, "", table); inside = 1; text = ""; next }
    /^static const config_file CONFIG_[A-Z]+ = \{/ { table = $4; sub(/CONFIG_/, "", table); whole = 1; text = "" }
    inside && /^\};/ { inside = 0 }
    inside { text = text " " $0; if (/\},$/) { emit(text); text = "" } }
    whole {
        text = text $0
        if (/\};$/) {
            whole = 0
            gsub(/" +"/, "", text)
            sub(/.*\), */, "", text)
            match(text, /"[^"]*"/)
            print table "\tharmless\t" substr(text, RSTART + 1, RLENGTH - 2)
        }
    }' flis.c
}

# The part of the page for one table.
part() {
    awk -F '\t' -v table="$1" '
    function code(s) { gsub(/ or /, "` or `", s); return "`" s "`" }
    function words(s,    n, w, i, out) {
        n = split(s, w, " ")
        for (i = 1; i <= n; i++) out = out (i > 1 ? ", " : "") "`" w[i] "`"
        return out
    }
    $1 != table { next }
    !head++ { print "| key | to flis |"; print "|---|---|" }
    $2 == "harmless" {
        print ""
        n = split("Harmless: " words($3) ".", w, " ")
        for (i = 1; i <= n; i++) {
            if (length(line) + length(w[i]) >= 119) { print line; line = "" }
            line = line (line == "" ? "" : " ") w[i]
        }
        print line
        next
    }
    {
        to = $3 == "READ" ? "computed" : $3 == "WEIGHTS" ? "computed from the weights, must agree with them" : \
             $3 == "CLASS" ? "must be one of " words($4) : "must be " code($4)
        if ($3 == "LEVELS") to = to ", or a list of that"
        if ($3 == "EXACT") to = to ", not null"
        if ($5 != "") to = to "; absent means `" $5 "` and is refused"
        print "| `" $2 "` | " to " |"
    }' "$tmp/rows"
}

rows > "$tmp/rows"
awk -v tmp="$tmp" '
/^<!-- keys of / { print; name = $4; inside = 1; print "@" name; next }
/^<!-- end -->/ { inside = 0 }
!inside { print }' "$doc" > "$tmp/frame"
while IFS= read -r line; do
    case $line in
    @*) table=$(echo "$line" | sed 's/^@//; s/unet.config.json/UNET/; s/vae.config.json/VAE/; s/text_encoder.config.json/TEXT/; s/scheduler.*/SCHEDULER/')
        echo; part "$table"; echo ;;
    *) printf '%s\n' "$line" ;;
    esac
done < "$tmp/frame" > "$tmp/doc"
[ "$1" = -w ] && { cp "$tmp/doc" "$doc"; exit 0; }

failed=0
passed=$(grep -c . "$tmp/rows")
[ "$passed" -gt 80 ] || { echo "flis.c: got $passed rows of configuration keys, wanted more than 80"; failed=1; }
diff "$doc" "$tmp/doc" > "$tmp/diff" || { echo "$doc: not the keys of flis.c (sh tests/sh/field_config.sh -w):"; cat "$tmp/diff"; failed=$((failed + 1)); }
for key in $(awk -F '\t' '$2 != "harmless" && $2 != "norm_num_groups" && $2 != "scaling_factor" { print $1 "_FILE.*" $2 }' "$tmp/rows"); do
    grep -q "{${key%%.*}, \"${key#*.\*}\"," tests/unit/test_field_config.c && continue
    [ "$key" = TEXT_FILE.*num_attention_heads ] && continue
    echo "tests/unit/test_field_config.c: no row for $key"
    failed=$((failed + 1))
done
echo "field_config: $passed passed, $failed failed"
[ "$failed" = 0 ]
