#!/bin/sh
# field_outputs.sh FLIS BIN: no program writes over what it reads. Every output of every program is named for every input: by the
# same path, another spelling, a symbolic link, a hard link. Also: two outputs in one file, standard output, pipes, devices, full
# disks, files of the user beside the output. BIN is the folder of the other programs. It works in a directory that it makes
# and removes, and prints one line per failed check and "N passed, N failed".
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
[ $# = 2 ] || { echo "usage: field_outputs.sh FLIS BIN" >&2; exit 2; }
flis=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
bin=$(cd "$2" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-outputs.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1

passed=0
failed=0
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL outputs: $*"
    [ ! -s err ] || sed 's/^/    stderr: /' err | head -3
}
is() {
    name=$1
    shift
    if "$@"; then pass; else fail "$name"; fi
}

# ---- Inputs --------------------------------------------------------------------------------------------------------
"$bin/synth" tinyA m.safetensors 2>err || fail "synth tinyA"
awk 'BEGIN { print "#version: 0.2"; s = "abcdefghijklmnopqrstuvwxyz"
    for (n = i = 1; i <= 26; i++) for (k = 1; k <= 26 && n <= 486; k++) if (i != k) { n++
        print substr(s, i, 1) " " substr(s, k, 1) } }' >merges.txt
printf 'P2\n2 2\n255\n3 3 7 7\n' >map.pgm
printf '{"text_label_mapping": {"sea": 7, "sky": 3}, "layout_path": "map.pgm"}\n' >l.json
for file in noise.st in.st truth.st a.st b.st seg.st plain.st lat.st start.st a.ckpt; do echo "$file" >$file; done
echo 'one two' >map.txt
mkdir sub pics diff diff/unet blobs data data/pictures
echo unet >diff/unet/diffusion_pytorch_model.safetensors
echo '{}' >diff/unet/config.json
ln -s ../../blobs/vae diff/unet/linked.safetensors
echo blob >blobs/vae
{
    printf '\126\000\000\000\000\000\000\000'
    printf '%s' '{"model.diffusion_model.out.2.bias":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    head -c 16 /dev/zero
} >part.st
echo '{"weight_map": {"model.diffusion_model.out.2.bias": "part.st"}}' >x.safetensors.index.json
printf 'P6\n8 8\n255\n' >data/pictures/0.ppm
head -c 192 /dev/zero >>data/pictures/0.ppm
cp data/pictures/0.ppm data/pictures/0.png
cp data/pictures/0.png pics/1.png
ln -s pics pics.link
echo data/pictures/0.ppm >list.txt
echo caption >data/captions.txt

# ---- An output that is an input ------------------------------------------------------------------------------------
# refuses NAME INPUT PATTERN COMMAND…: exit 1 or 2 with one sentence; the input keeps its bytes, and nothing is left beside it.
refuses() {
    name=$1 input=$2 pattern=$3
    shift 3
    before=$(cksum <"$input")
    ls -R . >names
    "$@" >so 2>err
    status=$?
    ls -R . >names.after
    if { [ $status = 1 ] || [ $status = 2 ]; } && [ "$before" = "$(cksum <"$input")" ] && [ ! -s so ] &&
        [ "$(wc -l <err)" -eq 1 ] && grep "$pattern" err >/dev/null && cmp -s names names.after; then pass
    else fail "$name: exit $status, wanted 1, one sentence with \"$pattern\", and all files as they were"; fi
}
# over INPUT COMMAND… with the word OUT for the output.
over() {
    input=$1
    shift
    base=$(basename "$input")
    rm -f link.out hard.out link2.out
    ln -s "$input" link.out
    ln -s link.out link2.out
    ln "$input" hard.out
    touch so err names names.after
    for as in "$input" "sub/../$input" "./$input" "$dir/$input" link.out link2.out hard.out; do
        command=
        for word in "$@"; do
            [ "$word" = OUT ] && word=$as
            command="$command '$word'"
        done
        eval "refuses \"\$2 \$3: $as over $base\" '$input' 'the output is the input\\|pictures are PNG or JPEG files' $command"
    done
    rm -f link.out hard.out link2.out
}
g="$flis generate -q -j l.json --size 64 --steps 1"
for input in l.json map.pgm m.safetensors merges.txt noise.st; do
    over $input $g -m m.safetensors --noise noise.st -o OUT
done
over merges.txt $g -m m.safetensors --vocab merges.txt -o OUT
over l.json $g -m m.safetensors -o p.png --trace OUT
over map.pgm $g -m m.safetensors -o p.png --trace-digest OUT
over m.safetensors $g -m m.safetensors -o p.png --trace-digest OUT
over diff/unet/diffusion_pytorch_model.safetensors $g -m diff --vocab merges.txt -o OUT
over blobs/vae $g -m diff --vocab merges.txt -o OUT
over part.st $g -m x.safetensors.index.json --vocab merges.txt -o OUT
over x.safetensors.index.json $g -m x.safetensors.index.json --vocab merges.txt -o OUT
s="$flis stage -q -m m.safetensors -i in.st decode"
for option in -o '-o out.st --trace' '-o out.st --trace-digest'; do
    over in.st $s $option OUT
    over m.safetensors $s $option OUT
done
for input in m.safetensors truth.st; do over $input $flis precision -m m.safetensors --truth truth.st --json OUT; done
over m.safetensors $flis precision -m m.safetensors --trace OUT
for input in a.st b.st map.txt; do over $input $bin/compare a.st b.st --map map.txt --html OUT; done
over a.ckpt $bin/ckpt2safetensors a.ckpt OUT
for input in seg.st plain.st m.safetensors merges.txt; do
    over $input $bin/paper -q --segmenter seg.st --plain plain.st --model m.safetensors --vocab merges.txt -o OUT
done
over m.safetensors $bin/train latents -q --model m.safetensors -o OUT
for option in -o '-o x.st --state' '-o x.st --log' '-o x.st --plot'; do
    over start.st $bin/train vae -q --steps 1 --start start.st $option OUT
    over data/pictures/0.ppm $bin/train text2image -q --steps 1 --model m.safetensors --vocab merges.txt --data data $option OUT
done
over data/captions.txt $bin/train text2image -q --steps 1 --model m.safetensors --vocab merges.txt --data data -o x.st --log OUT
over lat.st $bin/train layout -q --steps 1 --model m.safetensors --vocab merges.txt --latents lat.st -o OUT
over merges.txt $bin/train layout -q --steps 1 --model m.safetensors --vocab merges.txt --latents lat.st -o OUT

for input in seg.st list.txt data/pictures/0.ppm; do
    over $input $bin/evaluate segment -q seg.st --pictures list.txt --features OUT
done
over pics/1.png $bin/evaluate segment -q seg.st --pictures pics --features OUT
# A label map has the name of its picture, and would take its place.
refuses "label maps over pictures" pics/1.png 'the output is the input' \
    $bin/evaluate segment -q seg.st --pictures pics -o pics
refuses "label maps over pictures, through a link" pics/1.png 'the output is the input' \
    $bin/evaluate segment -q seg.st --pictures pics -o pics.link
refuses "two pictures with one label map" data/pictures/0.png 'named for two outputs' \
    $bin/evaluate segment -q seg.st --pictures data/pictures -o sub

mkdir gold
echo mine >gold/layout.scratch
refuses "golden's temporary file" gold/layout.scratch 'exists already' $bin/golden gold
echo mine >answers.st.layout
refuses "golden's other temporary file" answers.st.layout 'exists already' $bin/golden --answers answers.st

# ---- Two outputs in one file ---------------------------------------------------------------------------------------
# twice PATTERN COMMAND… with OUT and OTHER; both are free names, or one is a link that leads nowhere.
twice() {
    pattern=$1
    shift
    rm -f p.one p.link
    ln -s p.one p.link
    for pair in 'p.one p.one' 'p.one ./p.one' 'sub/../p.one p.one' "$dir/p.one p.one" 'p.link p.one' 'p.one p.link'; do
        command=
        for word in "$@"; do
            [ "$word" = OUT ] && word=${pair% *}
            [ "$word" = OTHER ] && word=${pair#* }
            command="$command '$word'"
        done
        touch p.one
        eval "refuses 'two outputs, both there: $pair' l.json '$pattern' $command"
        rm -f p.one
        eval "refuses 'two outputs, not there yet: $pair' l.json '$pattern' $command"
    done
    rm -f p.link
}
twice 'named for two outputs' $g -m m.safetensors -o OUT --trace OTHER
twice 'named for two outputs' $g -m m.safetensors -o p.png --trace OUT --trace-digest OTHER
twice 'named for two outputs' $flis precision -m m.safetensors --trace OUT --json OTHER
twice 'named for two outputs' $bin/train vae -q --steps 1 -o x.st --log OUT --plot OTHER
refuses "an output where another is kept" l.json 'until it is complete' \
    $g -m m.safetensors -o p.png --trace p.png.partial
refuses "two outputs on standard output" l.json 'two outputs' $g -m m.safetensors -o - --trace-digest -
refuses "standard output twice" l.json 'two outputs' $g -m m.safetensors -o - --trace /dev/stdout

# ---- Where nothing can be written ----------------------------------------------------------------------------------
refuses "a folder that is missing" l.json 'there is no folder none/' $g -m m.safetensors -o none/p.png
refuses "a folder's name" l.json 'wanted a file name' $g -m m.safetensors -o p.png --trace sub/
refuses "a folder" l.json 'is a folder' $g -m m.safetensors -o p.png --trace sub
refuses "a file as a folder" l.json 'there is no folder l.json/' $g -m m.safetensors -o l.json/p.png
long=$(printf '%0300d' 0)
refuses "a name too long" l.json 'cannot be written' $g -m m.safetensors -o "$long"
ln -s nowhere/p.png dangling
refuses "a link to a folder that is missing" l.json 'there is no folder nowhere/' $g -m m.safetensors -o dangling
refuses "training to standard output" l.json 'wanted a file name' $bin/train vae -q --steps 1 -o -

# ---- Pipes, devices, links: the same bytes -------------------------------------------------------------------------
paint="$g -m m.safetensors"
$paint -o ref.png 2>err || fail "a picture"
same() { is "$1" cmp -s "$2" ref.png; }
$paint -o - >so.png 2>err
same "-o -" so.png
$paint -o - 2>err | cat >so.png
same "-o - through a pipe" so.png
$paint -o ./- 2>err
same "-o ./- is a file" ./-
{ echo before; $paint -o /dev/stdout; echo after; } >so 2>err
{ echo before; cat ref.png; echo after; } >wanted
is "/dev/stdout in a file is written where it stands" cmp -s so wanted
$paint -o /dev/fd/3 3>so.png 2>err
same "/dev/fd/3" so.png
ln -s /dev/stdout out.link
$paint -o out.link 2>err | cat >so.png
same "a link to standard output" so.png
is "a link to standard output stays" test -h out.link
mkfifo pipe
cat pipe >so.png &
$paint -o pipe 2>err
wait
same "a named pipe" so.png
is "a named pipe stays" test -p pipe
ln -s ref2.png link.png
$paint -o link.png 2>err
same "what a link points to" ref2.png
is "a link stays" test -h link.png
{ mknod null c 1 3 && mknod full c 1 7; } 2>/dev/null
for device in /dev/null null; do
    [ -c $device ] && [ -w $device ] || continue
    cp $device /dev/null 2>/dev/null || continue # a container may forbid devices
    [ $device = null ] || [ ! -w /dev ] || continue # root, who could replace it, tries only a device of its own
    is "$device" $paint -o $device 2>err
    is "$device stays" test -c $device
done
for device in /dev/full full; do
    [ -c $device ] && ! echo x 2>/dev/null >$device || continue
    $paint -o - >$device 2>err
    is "a full disk: exit 1" test $? = 1
    is "a full disk: one sentence" grep -q '^flis generate: -: cannot be written: No space left' err
done
{ $paint -o - 2>err; echo $? >status; } | true
# The picture may have been in the pipe before its reader ended.
is "a pipe that nobody reads" test "$(cat status)" = 0 -o "$(grep -c 'cannot be written: Broken pipe' err)" = 1
$flis precision -m m.safetensors --size 64 -q --json - >so 2>err
is "precision --json -" test "$(head -c 1 so)$(tail -c 3 so)" = '{]}'

# ---- What is beside the output -------------------------------------------------------------------------------------
rm -f so.png
echo mine >so.png.partial
$paint -o so.png 2>err
same "a picture beside a file of its temporary name" so.png
is "a file of the temporary name stays" test "$(cat so.png.partial)" = mine
is "no other file is left" test "$(ls so.png*)" = "$(printf 'so.png\nso.png.partial')"
chmod 600 so.png
$paint -o so.png 2>err
is "a replaced file keeps its permissions" test "$(ls -l so.png | cut -c1-10)" = -rw-------
name=$(printf '%0250d' 0).png
$paint -o "$name" 2>err
same "a name with no room for .partial" "$name"
$paint -o both.png 2>err &
$paint -o both.png 2>err2
wait
same "two runs with one output" both.png
is "two runs leave nothing" test "$(ls both.png*)" = both.png

# ---- The end -------------------------------------------------------------------------------------------------------
is "no temporary file is left" test "$(ls -R . | grep -c partial)" = 1
echo "outputs: $passed passed, $failed failed"
[ $failed = 0 ]
