#!/bin/sh
# evaluate.sh EVALUATE [COUNTS]: the measures from the command line: label maps of every kind and size, data sets and lists of classes,
# features and statistics of NumPy, refusals. Half a second. Prints one line per failed check and "N passed, N failed"; the same line
# goes to the file COUNTS, for the runner.
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
[ $# -ge 1 ] || { echo "usage: evaluate.sh EVALUATE [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
evaluate=$(absolute "$1") counts=${2:+$(absolute "$2")}
corpus=$(cd "$(dirname "$0")/../fuzz/corpus/npy" && pwd)
[ -z "$counts" ] || rm -f "$counts"
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-evaluate.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1

passed=0 failed=0
fail() { failed=$((failed + 1)); echo "FAIL evaluate: $1"; head -3 so err | sed 's/^/    /'; }
# gives NAME PATTERN COMMAND…: exit 0, nothing on stderr, and a line of stdout that matches
gives() {
    name=$1 pattern=$2
    shift 2
    "$evaluate" "$@" >so 2>err && [ ! -s err ] && grep -q -e "$pattern" so && passed=$((passed + 1)) || fail "$name"
}
# notes NAME PATTERN COMMAND…: exit 0, and one line on stderr that matches
notes() {
    name=$1 pattern=$2
    shift 2
    "$evaluate" "$@" >so 2>err && [ "$(wc -l <err | tr -d ' ')" = 1 ] && grep -q -e "$pattern" err && passed=$((passed + 1)) || fail "$name"
}
# fails NAME STATUS PATTERN COMMAND…: that status, one sentence that matches, nothing on stdout
fails() {
    name=$1 wanted=$2 pattern=$3
    shift 3
    "$evaluate" "$@" >so 2>err
    status=$?
    [ $status = "$wanted" ] && [ ! -s so ] && [ "$(wc -l <err | tr -d ' ')" = 1 ] && grep -q -e "$pattern" err && passed=$((passed + 1)) ||
        fail "$name: exit $status, wanted $wanted and \"$pattern\""
}
# npy FILE TYPE SHAPE BYTES: an array of version 1
npy() {
    header="{'descr': '$2', 'fortran_order': False, 'shape': $3, }"
    printf "\\223NUMPY\\001\\000\\$(printf %o ${#header})\\000%s$4" "$header" >"$1"
}
miou() { echo miou -q --truth t --predicted p; }

# ---- mIoU --------------------------------------------------------------------------------------------------------
# Truth 2 x 2: person, bicycle, void, car. Predicted right except for the car, where there is a bus.
mkdir t p one
printf 'P2 2 2 255\n0 1 255 2\n' >t/a.pgm
printf 'P2 2 2 255\n0 1 0 5\n' >p/a.pgm
gives "the last line, as it always was" '^mIoU 0.6667 over the 3 classes present, 0.6667 over all 3; pixel accuracy 0.6667, mean accuracy 0.6667; 1 images$' $(miou)
[ "$(tail -1 so | cut -c1-4)" = mIoU ] && passed=$((passed + 1)) || fail "the last line is mIoU's"
gives "the classes' lines, as they always were" '^  1  1.0000           1           1  $' $(miou)
gives "coco" '^mean IoU 0.5000 over the 4 classes in the ground truth or in the predicted maps$' $(miou) --classes coco
gives "coco: over all" '^mIoU 0.6667 over the 3 classes present, 0.0110 over all 182;' $(miou) --classes COCO
gives "its names" '  bicycle$' $(miou) --classes coco
gives "a number of classes" 'over all 9;' $(miou) --classes 9
gives "table: a header" '^label	IoU	accuracy	truth	predicted	name$' $(miou) --classes coco --table
gives "table: a class" '^1	1.000000	1.000000	1	1	bicycle$' $(miou) --classes coco --table
gives "table: only in the ground truth" '^2	0.000000	0.000000	1	0	car$' $(miou) --classes coco --table
gives "table: only predicted" '^5	0.000000	-	0	1	bus$' $(miou) --classes coco --table
gives "table: in neither" '^181	-	-	0	0	wood$' $(miou) --classes coco --table
gives "table: the means" '^# mIoU 0.6667 ' $(miou) --classes coco --table
gives "JSON" '"miou_present": 0.666666667, .*"miou_either": 0.5, ' $(miou) --classes coco --json
printf '0\tperson\n1\tbicycle\n2\tcar\n5\tbus\n' >list.tsv
gives "a list of classes" '^mIoU 0.6667 over the 3 classes present, 0.5000 over all 4;' $(miou) --classes list.tsv
printf '0\tperson\n1\tbicycle\n' >short.tsv
fails "a label that the list does not have" 1 'a.pgm: pixel 3 has label 2, wanted 0 to 1, or the void label$' $(miou) --classes short.tsv
fails "no such list" 1 'cocco: there is no such file, wanted coco, ade20k, or a file' $(miou) --classes cocco
fails "coco and --void" 2 '^evaluate miou: --classes coco sets --void as well: give one of the two' $(miou) --classes coco --void 255
fails "too many classes" 2 "invalid value '257' for --classes: wanted a whole number from 1 to 256" $(miou) --classes 257
fails "no class" 2 "invalid value '0' for --classes" $(miou) --classes 0
fails "beyond the last label" 2 '--first and --classes exceed label 255' $(miou) --first 1 --classes 256
fails "--table and --json" 2 '--json and --table exclude each other' $(miou) --table --json

# Sizes: predicted twice as large, then a third of it. PIL's nearest takes the pixel at (i + 1/2) scale.
printf 'P2 4 4 255\n9 9 9 9\n9 0 9 1\n9 9 9 9\n9 7 9 2\n' >p/a.pgm
notes "another size is noted" '^evaluate miou: note: 1 of 1 predicted label maps were resized to their ground truth' $(miou)
"$evaluate" $(miou) 2>/dev/null | grep -q '^mIoU 1.0000 over the 3' && passed=$((passed + 1)) || fail "resized to the ground truth"
gives "--size predicted" 'mIoU 0.2500 over the 3 classes present' $(miou) --size predicted --classes coco
gives "--size of both" '"pixels": 6, ' $(miou) --size 4x2 --json
gives "--size of one number" '"pixels": 12, ' $(miou) --size 4 --json
fails "--size of nothing" 2 "invalid value '0' for --size: wanted truth, predicted, N or WxH" $(miou) --size 0
fails "--size of words" 2 "invalid value '4x' for --size" $(miou) --size 4x

# Kinds: NumPy's arrays, JPEG, values above 255.
rm p/a.pgm
npy p/a.npy '|u1' '(2, 2)' '\000\001\000\005'
gives "an array of bytes" '^mIoU 0.6667 over the 3 classes present' $(miou)
npy p/a.npy '<i4' '(1, 2, 2)' '\000\000\000\000\001\000\000\000\000\000\000\000\005\000\000\000'
gives "int32, [1, h, w]" '^mIoU 0.6667 over the 3 classes present' $(miou)
npy p/a.npy '<i8' '(2, 2)' '\000\000\000\000\000\000\000\000\001\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\005\000\000\000\000\000\000\000'
gives "int64" '^mIoU 0.6667 over the 3 classes present' $(miou)
npy p/a.npy '<i4' '(2, 2)' '\000\000\000\000\377\377\377\377\000\000\000\000\005\000\000\000'
fails "-1" 1 'p/a.npy: got -1 at pixel (1, 0), wanted class numbers from 0 to 255$' $(miou)
npy p/a.npy '|u1' '(4,)' '\000\001\000\005'
fails "one dimension" 1 'p/a.npy: got an array of 1 dimensions, wanted the class of each pixel: \[height, width\]$' $(miou)
npy p/a.npy '<f2' '(2, 2)' '\000\000\000\000\000\000\000\000'
fails "floats" 1 'p/a.npy: got an array of floats, wanted whole numbers: classes$' $(miou)
rm p/a.npy
printf 'P2 2 2 300\n0 1 0 300\n' >p/a.pgm
fails "above 255" 1 'p/a.pgm: got 300 at pixel (1, 1), wanted class numbers up to 255$' $(miou)
printf '\377\330\377\340\000\020JFIF' >one/a.jpg
echo one/a.jpg >jpegs.txt && echo t/a.pgm >truths.txt
fails "JPEG" 1 'one/a.jpg: got a JPEG picture, whose compression changes ids at every edge, wanted a label map' miou -q --truth truths.txt --predicted jpegs.txt

fails "a folder without label maps" 1 '^evaluate miou: one: the folder has no file that ends in .png, .pgm or .npy$' miou -q --truth t --predicted one

# ADE20K: wall and building; a segmenter that counts from 0 calls them 0 and 1.
printf 'P2 2 1 255\n1 2\n' >t/a.pgm
printf 'P2 2 1 255\n0 1\n' >p/a.pgm
gives "ade20k, predicted from 0" '^mIoU 1.0000 over the 2 classes present, 0.0133 over all 150;' $(miou) --classes ade20k --predicted-first 0
gives "and as the ground truth counts" '^mIoU 0.0000 over the 2' $(miou) --classes ade20k
fails "--predicted-first 256" 2 "invalid value '256' for --predicted-first: wanted a whole number from 0 to 255" $(miou) --predicted-first 256

# ---- Fréchet distance --------------------------------------------------------------------------------------------
npy a.npy '<f4' '(2, 1)' '\000\000\000\000\000\000\000\100'
npy b.npy '>f8' '(2, 1, 1, 1)' '\100\044\000\000\000\000\000\000\100\054\000\000\000\000\000\000'
gives "arrays: 0, 2 and 10, 14: 121 + 2" '^123$' frechet a.npy b.npy
gives "JSON" '^{"frechet": 123, "samples": \[2, 2\], "dimensions": 1}$' frechet a.npy b.npy --json
gives "statistics, stored and deflated" '^{"frechet": [0-9.e-]*, "samples": \[null, null\], "dimensions": 2}$' \
    frechet "$corpus/39dc44efa26f" "$corpus/6184e83acd53" --json
gives "one array of an archive" '^0$' frechet --tensor sigma "$corpus/39dc44efa26f" "$corpus/39dc44efa26f"
fails "an array that is not there" 1 'array "x" is missing$' frechet --tensor x "$corpus/39dc44efa26f" "$corpus/39dc44efa26f"
fails "a name for a file without names" 1 'a.npy: has one array without a name' frechet --tensor x a.npy b.npy
fails "other dimensions" 1 'got 1 dimensions, wanted 2' frechet "$corpus/39dc44efa26f" a.npy
npy c.npy '<f4' '(2, 1, 2)' '\000\000\000\000\000\000\000\100\000\000\000\000\000\000\000\100'
fails "a map of features" 1 'c.npy: got 3 dimensions, wanted \[samples, dimensions\], or \[samples, dimensions, 1, 1\]$' frechet c.npy a.npy
npy c.npy '<f4' '(2, 1)' '\000\000\000\000\000\000\300\177'
fails "not finite" 1 'c.npy: sample 1, dimension 0 is not finite' frechet c.npy a.npy
npy c.npy '<f4' '(1, 1)' '\000\000\000\000'
fails "one sample" 1 'c.npy: got 1 sample, wanted at least 2' frechet c.npy a.npy
npy c.npy '<f4' '(9, 1)' '\000\000\000\000'
fails "cut short" 1 'c.npy: cut short .*: got 4 bytes of values, wanted 36$' frechet c.npy a.npy
npy c.npy '|O' '(1, 1)' '\200\004'
fails "Python objects" 1 'c.npy: holds Python objects' frechet c.npy a.npy
fails "one file" 2 '^evaluate frechet: file B is missing' frechet a.npy

line="$passed passed, $failed failed"
echo "evaluate: $line"
[ -z "$counts" ] || echo "$line" >"$counts"
[ $failed = 0 ]
