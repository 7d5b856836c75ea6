#!/bin/sh
# lis.sh FLIS BIN [COUNTS]: `flis lis` by the thousand, on a handful of layouts of the small world in COCO-Stuff's folders
# (world --coco): the same pictures from one run, from four shards (by GNU parallel where it is installed), from runs that were killed
# with -9 and resumed; damaged files are painted again; the records; the page; the evaluation of tools/paper/lis.sh. BIN is the folder of the other programs. Prints one line per failed check and "N passed, N failed"; the same
# line goes to the file COUNTS, for the runner.
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
[ $# -ge 2 ] || { echo "usage: lis.sh FLIS BIN [COUNTS]" >&2; exit 2; }
flis=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
bin=$(cd "$2" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
counts=${3:+$(cd "$(dirname "$3")" && pwd)/$(basename "$3")}
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-lis.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1

passed=0
failed=0
# is NAME COMMAND…: exit 0
is() {
    name=$1
    shift
    if "$@" >so 2>err; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL lis: $name"
        head -3 err | sed 's/^/    stderr: /'
    fi
}
# fails NAME STATUS PATTERN COMMAND…: that status and one sentence
fails() {
    name=$1 wanted=$2 pattern=$3
    shift 3
    "$@" >so 2>err
    status=$?
    if [ $status = "$wanted" ] && [ "$(wc -l <err)" -eq 1 ] && grep -q -e "$pattern" err; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL lis: $name: exit $status, wanted $wanted and one sentence with \"$pattern\""
        head -3 err | sed 's/^/    stderr: /'
    fi
}
same() { [ "$(cat "$1")" = "$(cat "$2")" ]; }
equal() { [ "$1" = "$2" ] || { echo "got '$1', wanted '$2'" >&2; false; }; }
files() { (cd "$1" && find . -type f | sort | while read -r f; do cksum "$f"; done); }

# ---- The small world in COCO-Stuff's folders -----------------------------------------------------------------------
COUNT=6
is "world --coco" "$bin/world" --coco data --validation $COUNT --training 2 -q
is "its files" equal "$(cd data && find . -type f | sort | tr '\n' ' ')" "$(
    {
        for i in 0 1 2 3 4 5; do
            echo ./val2017/00000100000$i.jpg
            echo ./stuffthingmaps_trainval2017/val2017/00000100000$i.png
        done
        for i in 0 1; do
            echo ./train2017/00000000000$i.jpg
            echo ./stuffthingmaps_trainval2017/train2017/00000000000$i.png
        done
        printf './classes.tsv\n./train.txt\n./val.txt\n'
    } | sort | tr '\n' ' '
)"
is "its lists" equal "$(cat data/val.txt data/train.txt | sed -n '1p;6,8p' | tr '\n' ' ')" \
    'val2017/000001000000.jpg val2017/000001000005.jpg train2017/000000000000.jpg train2017/000000000001.jpg '
is "its classes" equal "$(sed -n '1p;32p' data/classes.tsv)" "$(printf '1\tsky\n32\twindmill')"
files data >before
is "world --coco again" "$bin/world" --coco data --validation $COUNT --training 2 -q
files data >after
is "writes the same bytes" same before after
"$bin/world" --set test --seed 1000000 -o scene -q
is "label maps are those of the set test" cmp scene/labels/000000.png data/stuffthingmaps_trainval2017/val2017/000001000000.png
"$bin/world" --set layout -o scene -q
is "and of the set layout" cmp scene/labels/000000.png data/stuffthingmaps_trainval2017/train2017/000000000000.png
fails "--coco with --set" 2 '^world: --coco takes --validation N and --training N, not --set or --count' "$bin/world" --coco x --set test
fails "--coco with --count" 2 'not --set or --count' "$bin/world" --coco x --count 3
fails "--training alone" 2 '^world: --validation and --training need --coco DIR' "$bin/world" -o x --training 3
fails "--coco into a file" 1 '^world: before: is a file, wanted a folder$' "$bin/world" --coco before
fails "--seed too large" 2 "beyond 2^64-1" "$bin/world" --coco x --seed 18446744073709551615

# ---- Shards ----------------------------------------------------------------------------------------------------------
is "synth" "$bin/synth" tinyA m.safetensors
awk 'BEGIN { print "#version: 0.2"; s = "abcdefghijklmnopqrstuvwxyz"
    for (n = i = 1; i <= 26; i++) for (k = 1; k <= 26 && n <= 486; k++) if (i != k) { n++
        print substr(s, i, 1) " " substr(s, k, 1) } }' >merges.txt
cat >lis <<END
exec "$flis" lis -m m.safetensors --vocab merges.txt --dataset data/classes.tsv --data-root data --txt-file data/val.txt \\
    --size 64x64 --ddim-steps 2 --batch-size 4 --seed 7 --threads 1 --quiet "\$@"
END
pictures() { (cd "$1" && cksum ./*.jpg); }
# agree NAME FOLDER: the pictures of that folder are the single run's, and nothing incomplete is left
agree() {
    pictures "$2" >got 2>&1
    is "$1" same wanted got
}
# wait_for_picture FOLDER NAME: until it is there, or something is wrong
wait_for_picture() {
    tries=0
    while [ -z "$(find "$1" -name "$2" 2>/dev/null)" ] && [ $tries -lt 1000 ]; do
        sleep 0.02
        tries=$((tries + 1))
    done
}
# Every picture once in the records of a folder, with the digest of its file.
recorded() {
    cat "$1"/manifest*.tsv | awk -F '\t' '!/^#/ && $1 != "picture" { print $5 "  " $1 }' | sort -k 2 >records
    equal "$(wc -l <records | tr -d ' ')" $COUNT || return
    ! command -v sha256sum >/dev/null || (cd "$1" && sha256sum ./*.jpg | sed 's|\./||') | sort -k 2 | diff - records >&2
}

is "one run" sh lis --outdir one
pictures one >wanted
is "$COUNT pictures" equal "$(wc -l <wanted | tr -d ' ')" $COUNT
is "no two are equal" equal "$(cut -d ' ' -f 1 wanted | sort -u | wc -l | tr -d ' ')" $COUNT
is "its record" recorded one

# Four shards. One of them is killed with -9 after its first picture; the same commands again paint what is missing: by GNU parallel
# where it is installed.
cat >shard <<'END'
echo $$ >pid.$1
set -- --outdir four --shard $1/4
. ./lis
END
if command -v parallel >/dev/null; then shards() { parallel -j 4 sh shard ::: 1 2 3 4; }; else
    shards() {
        status=0
        for shard in 4 2 3 1; do sh shard $shard || status=1; done
        return $status
    }
fi
shards >so 2>err &
wait_for_picture four '00000100000[15].jpg'
kill -9 "$(cat pid.2)" 2>/dev/null
wait $!
is "four shards, again" shards
agree "four shards paint the same pictures, also if one was killed" four
is "their records" recorded four
is "shard 1 has every fourth picture" equal "$(sed -n '/^0/s/\.jpg.*//p' four/manifest-1-of-4.tsv | tr '\n' ' ')" \
    '000001000000 000001000004 '

# One run, killed after its first picture.
sh lis --outdir killed 2>err &
wait_for_picture killed '*.jpg'
kill -9 $!
wait $! 2>/dev/null
before=$(find killed -name '*.jpg' | wc -l)
is "something is painted when the run is killed" [ "$before" -ge 1 ]
is "it goes on" sh lis --outdir killed
agree "with the same pictures" killed
is "each is recorded" recorded killed
old() { find "$1" -name '*.jpg' ! -newer m.safetensors | wc -l | tr -d ' '; }

# What is finished stays; what is damaged or lost is painted again.
touch -t 200001010000 four/*.jpg
printf x | dd of=four/000001000003.jpg bs=1 seek=400 conv=notrunc 2>/dev/null
head -c 300 four/000001000002.jpg >cut && mv cut four/000001000002.jpg
rm four/000001000005.jpg
touch -t 200001010000 four/*.jpg
is "a run without shards over those of shards" sh lis --outdir four --grid page.html
agree "repairs damaged pictures" four
is "and leaves the others alone" equal "$(old four)" 3
fails "other settings" 1 'is the record of another run: steps: got 2, wanted 4' sh lis --outdir four --ddim-steps 4

# ---- The page --------------------------------------------------------------------------------------------------------
is "the page has every picture" equal "$(grep -o '<a href="four/[0-9]*.jpg">' page.html | sort -u | wc -l | tr -d ' ')" $COUNT
is "and every layout" equal "$(grep -c '^<figure .*alt="layout" src="data:image/png;base64,iVBORw0KGgo' page.html)" $COUNT
is "the page's title" grep -q '<title>classes.tsv: 6 of 6 layouts, painted by m.safetensors</title>' page.html
rm four/000001000001.jpg
is "shard 1 alone, beside a lost picture of shard 2" sh lis --outdir four --shard 1/4 --grid part.html
is "a page of what is there" grep -q '<title>classes.tsv: 5 of 6 layouts' part.html

# ---- The whole chain ---------------------------------------------------------------------------------------------------
chain() { (cd "$root" && FLIS=$flis BIN=$bin N=2 STEPS=1 SIZE=64 SHARDS=2 sh tools/paper/lis.sh "$dir/chain" >"$dir/figures"); }
is "make lis" chain
is "its figures" equal "$(grep -c -e '^pictures   2 of 64 x 64, 1 steps' -e '^mIoU       0\.[0-9]* (real pictures: 0\.[0-9]*)' \
    -e '^distance   [0-9.e-]* from' -e '^page  ' figures)" 4
is "again" chain
is "paints nothing" grep -q 'all were there already$' figures

echo "$passed passed, $failed failed"
[ -z "$counts" ] || echo "$passed passed, $failed failed" >"$counts"
[ $failed = 0 ]
