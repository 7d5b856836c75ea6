#!/bin/sh
# field_layouts.sh FLIS [COUNTS]: layouts that need folders: label maps of other systems' paths, tables of colours beside and above
# the map, and what `flis layout` and --no-layout say. Prints one line per failed check and "N passed, N failed"; the same line
# goes to the file COUNTS, for the runner. It works in a directory that it makes and removes.
LC_ALL=C
export LC_ALL
[ $# -ge 1 ] || { echo "usage: field_layouts.sh FLIS [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
flis=$(absolute "$1")
counts=${2:+$(absolute "$2")}
root=$(cd "$(dirname "$0")/../.." && pwd)
[ -z "$counts" ] || rm -f "$counts"
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-field.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1

passed=0
failed=0
# check NAME STATUS PATTERN-IN-OUTPUT PATTERN-IN-MESSAGES COMMAND…: a pattern "-" wants nothing there (of stdout: anything)
check() {
    name=$1 wanted=$2 out=$3 message=$4
    shift 4
    "$@" >so 2>err
    status=$?
    bad=
    [ $status = "$wanted" ] || bad="exit $status, wanted $wanted"
    [ "$out" = - ] || grep -e "$out" so >/dev/null || bad="$bad; no \"$out\" on stdout"
    if [ "$message" = - ]; then [ ! -s err ] || bad="$bad; messages"
    else grep -e "$message" err >/dev/null || bad="$bad; no \"$message\" on stderr"; fi
    if [ -z "$bad" ]; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "FAIL field_layouts: $name: $bad"
    sed 's/^/    stderr: /' err | head -5
}
tab=$(printf '\t')
layout() { printf '{"text_label_mapping": {"sea": 1, "sky": 2}, %s}\n' "$2" >"$1"; }
vocab="--vocab $root/models/vocab.txt"

# Backslashes are separators of folders, on every system.
mkdir maps maps/old
echo "P2 2 1 255 1 2" >maps/old/map.pgm
echo "P2 2 1 255 1 1" >map.pgm
layout deep.json '"layout_path": "maps\\\\old\\\\map.pgm"'
check "a path with backslashes" 0 "^2$tab.*sky" - "$flis" layout $vocab deep.json
layout deep.json '"layout_path": "C:\\\\maps\\\\old\\\\map.pgm"'
check "a path of another machine" 0 - 'layout_path: "C:.*maps.*old.*map.pgm" cannot be read: "map.pgm" beside the JSON is taken' \
    "$flis" layout $vocab deep.json

# Two pixels: #8b0000 and #008000.
{
    printf '\211\120\116\107\015\012\032\012\000\000\000\015\111\110\104\122\000\000\000\002\000\000\000\001\010\002\000'
    printf '\000\000\173\100\350\335\000\000\000\022\111\104\101\124\170\001\001\007\000\370\377\000\213\000\000\000\200'
    printf '\000\004\111\001\014\067\012\366\166\000\000\000\000\111\105\116\104\256\102\140\202'
} >maps/masks.png
layout masks.json '"layout_path": "maps/masks.png"'
check "colours without a table" 1 - 'maps/masks.png: got colour #8b0000 at pixel (0, 0) (1 pixel of it, and 1 other colour: #008000)' \
    "$flis" layout $vocab masks.json
printf '# label:color_rgb:parts:actions\nbackground:0,0,0::\nsea:0,128,0::\nsky:139,0,0::\n' >labelmap.txt
check "labelmap.txt above the map" 0 "^#8b0000${tab}2${tab}1${tab}sky$" 'its colours have the ids of maps/../labelmap.txt' \
    "$flis" layout $vocab masks.json
printf 'sky:139,0,0::\nsea:0,128,0::\n' >maps/labelmap.txt
check "labelmap.txt beside the map comes first" 0 "^#8b0000${tab}0${tab}1${tab}sky$" 'its colours have the ids of maps/labelmap.txt' \
    "$flis" layout $vocab masks.json
layout masks.json '"layout_path": "maps/masks.png", "labelmap": "labelmap.txt"'
check "labelmap in the JSON" 0 "^#000000${tab}0${tab}0${tab}background$" - "$flis" layout $vocab masks.json
layout masks.json '"layout_path": "maps/masks.png", "colors": {"#8b0000": 2, "#008000": 1}'
check "colors in the JSON" 0 "^#008000${tab}1${tab}1${tab}-$" - "$flis" layout $vocab masks.json

# A misspelt layout_path is refused, unless no layout is wanted.
layout wrong.json '"layoutPath": "map.pgm"'
small="-m $root/models/flis-small.safetensors $vocab --size 64 --steps 1 -q"
check "a misspelt layout_path" 1 - 'wrong.json:1:46: "layoutPath": a layout has no such member' \
    "$flis" generate $small -j wrong.json -o a.png
[ ! -e a.png ] || { failed=$((failed + 1)); echo "FAIL field_layouts: a picture without its layout"; }
check "a misspelt layout_path with --no-layout" 0 - - "$flis" generate $small -j wrong.json --no-layout -o a.png
check "a picture in place of the JSON" 1 - 'maps/masks.png: is a PNG picture, wanted the JSON of a layout' \
    "$flis" generate $small -j maps/masks.png -o b.png

# Standard input: layout_path is relative to the working directory, where it is not the JSON's.
mkdir sub
echo "P2 4 2 255 1 1 2 2 1 1 2 2" >sub/here.pgm
cp sub/here.pgm here.pgm
layout sub/in.json '"layout_path": "here.pgm"'
layout there.json '"layout_path": "sub/here.pgm"'
check "layout -" 0 "^2$tab.*sky$" - "$flis" layout $vocab - <sub/in.json
mv here.pgm aside.pgm
check "layout -, without the map" 1 - 'standard input:1:61: layout_path: "here.pgm" cannot be read' "$flis" layout $vocab - <sub/in.json
check "generate -j -" 0 - - "$flis" generate $small -j - -o in.png <there.json
check "generate -j -, of a pipe" 0 - - sh -c 'cat there.json | "$@"' sh "$flis" generate $small -j - -o pipe.png
cp there.json stdin # the name is in the picture
check "generate -j FILE" 0 - - "$flis" generate $small -j stdin -o there.png
check "the same picture" 0 - - cmp in.png there.png
check "the same picture from a pipe" 0 - - cmp in.png pipe.png
check "generate - into a folder" 0 - - "$flis" generate $small - -o folder/ <there.json
check "is named for it" 0 - - cmp in.png folder/stdin.png
check "generate -j - -o -" 0 PNG - "$flis" generate $small -j - -o - <there.json
cp so out.png
check "is the same picture" 0 - - cmp in.png out.png
check "generate - -" 2 - "layout '-' is given twice" "$flis" generate $small - - -o folder/ <there.json
check "no JSON" 1 - 'standard input: is an HTML page, not the file.*, wanted the JSON of a layout' sh -c 'echo "<html>" | "$@"' sh "$flis" layout $vocab -
check "half of it" 1 - "standard input:1:22: got the end of the text" sh -c 'printf "{\"text_label_mapping\"" | "$@"' sh "$flis" layout $vocab -
check "nothing" 1 - 'standard input:1:1: got the end of the text' "$flis" layout $vocab - </dev/null
check "too much" 1 - 'standard input: got more bytes than the 1048576' sh -c 'head -c 1100000 /dev/zero | "$@"' sh "$flis" layout $vocab -
echo '{"text_label_mapping": {"sea": 1}}' >./-
check "a file of that name" 0 "^sea${tab}1$" './-: it has no layout_path' "$flis" layout $vocab --size 64 ./-
check "help" 0 'standard input, whose' - "$flis" generate --help

line="$passed passed, $failed failed"
[ -z "$counts" ] || echo "$line" >"$counts"
echo "field_layouts: $line"
[ $failed = 0 ]
