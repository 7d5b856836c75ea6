#!/bin/sh
# field_cli.sh FLIS SYNTH [COUNTS]: `flis generate` as people call it: several pictures, layouts and folders, negative prompts, names
# of other formats, options of other programs, and --again. Prints one line per failed check and "N passed, N failed"; the same line
# goes to the file COUNTS, for the runner. It works in a directory that it makes and removes.
LC_ALL=C
OMP_WAIT_POLICY=passive        # threads that spin starve each other on a busy machine
export LC_ALL OMP_WAIT_POLICY
[ $# -ge 2 ] || { echo "usage: field_cli.sh FLIS SYNTH [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
flis=$(absolute "$1")
synth=$(absolute "$2")
counts=${3:+$(absolute "$3")}
[ -z "$counts" ] || rm -f "$counts"
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-field.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1
mkdir out

passed=0
failed=0
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL field_cli: $*"
    [ ! -s err ] || sed 's/^/    stderr: /' err | head -5
}
# run COMMAND…: leaves the status in $status, output in the files so and err
run() {
    "$@" >so 2>err
    status=$?
}
# is NAME CONDITION…: one check
is() {
    name=$1
    shift
    if "$@"; then pass; else fail "$name: not so: $*"; fi
}
lines() { wc -l <"$1" | tr -d ' '; }
# has FILE PATTERN
has() { [ -f "$1" ] && tr -c '[:print:]' '\n' <"$1" | grep -e "$2" >/dev/null; }
# done_ok NAME COMMAND…: exit 0
done_ok() {
    name=$1
    shift
    run "$@"
    if [ $status = 0 ]; then pass; else fail "$name: exit $status, wanted 0"; fi
}
# refused STATUS NAME PATTERN COMMAND…: that exit status, nothing on stdout, one sentence that matches, nothing in out/
refused() {
    wanted=$1 name=$2 pattern=$3
    shift 3
    run "$@"
    if [ $status = "$wanted" ] && [ ! -s so ] && [ "$(lines err)" = 1 ] && has err "$pattern" && [ -z "$(ls -A out)" ]; then pass
    else fail "$name: exit $status, wanted $wanted, one sentence with \"$pattern\" and nothing in out/ ($(ls -A out))"; fi
    rm -rf out
    mkdir out
}
wrong() { refused 2 "$@"; }
broken() { refused 1 "$@"; }
# same NAME FILE FILE
same() { is "$1" cmp -s "$2" "$3"; }
clear() { rm -rf out; mkdir out; }

# ---- Input of the checks -----------------------------------------------------------------------------------------
"$synth" tinyA model.safetensors >so 2>err
"$synth" tinyB other.safetensors >so 2>err
awk 'BEGIN { print "#version: 0.2"; s = "abcdefghijklmnopqrstuvwxyz"
    for (n = i = 1; i <= 26; i++) for (k = 1; k <= 26 && n <= 486; k++) if (i != k) { n++
        print substr(s, i, 1) " " substr(s, k, 1) } }' >merges.txt
{ cat merges.txt; echo; } >merges2.txt # the same merges, other bytes
printf 'P2\n4 4\n255\n3 3 3 3\n3 3 3 3\n7 7 7 7\n7 7 7 7\n' >label.pgm
printf '{"text_label_mapping": {"sea": 7, "sky": 3, "in oil": -1}, "layout_path": "label.pgm"}\n' >a.json
printf '{"text_label_mapping": [["sky", 3], ["sea \\u00e9\\u6d77\\"", 7], ["sky", 7]], "layout_path": "label.pgm"}\n' >b.c.json
printf '{"text_label_mapping": {"sea": 7}}\n' >plain.json
printf '{"text_label_mapping": {"sea" 7}}\n' >bad.json
mkdir sub
cp a.json label.pgm sub/
header='{"x_T":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}'
for n in 1 2; do
    { printf "\\$(printf %03o ${#header})\\000\\000\\000\\000\\000\\000\\000%s" "$header"
      awk -v n=$n 'BEGIN { for (i = 0; i < 256; i++) printf "%c%c%c?", 1 + n, 1 + i % 64, 32 + n }'; } >noise$n.st
done
words=$(awk 'BEGIN { for (i = 0; i < 76; i++) printf "a " }')
m="-m model.safetensors --size 64 --steps 1"

# ---- Several pictures --------------------------------------------------------------------------------------------
done_ok "one picture, seed 42" "$flis" generate $m a.json -o p42.png
is "one picture: no count on stderr" test "$(grep -c 'picture' err)" = 0
done_ok "one picture, seed 43" "$flis" generate $m -j a.json -o p43.png --seed 43 -q
done_ok "-n 2" "$flis" generate $m -j a.json -o out/p.png -n 2
same "-n 2: the first is that of the seed" out/p-42.png p42.png
same "-n 2: the second is that of the next seed" out/p-43.png p43.png
is "-n 2: no other file" test "$(ls -A out | tr '\n' ' ')" = 'p-42.png p-43.png '
is "-n 2: which picture of how many" has err '^picture 2 of 2: p-43.png, seed 43$'
[ ! -r /proc/meminfo ] || is "-n 2: the model is loaded once" test "$(grep -c '^load' err)" = 3
clear
done_ok "-n 1 is a single picture" "$flis" generate $m -j a.json -o out/p --count=1 -q
same "-n 1: the name stays, without ending too" out/p p42.png
clear
done_ok "-n 2 without ending" "$flis" generate $m -j a.json -o ./out/.p -n 2 -q
is "-n 2 without ending: names" test "$(ls -A out | tr '\n' ' ')" = '.p-42 .p-43 '
clear
wrong "-n 0" "invalid value '0' for --count: wanted a whole number from 1" "$flis" generate $m a.json -o out/p.png -n 0
wrong "seeds beyond the last" 'beyond 2^64-1' "$flis" generate $m a.json -o out/p.png -n 2 --seed 18446744073709551615
wrong "-n 2 to standard output" '^flis generate: -o - takes one picture, got 2' "$flis" generate $m a.json -o - -n 2
wrong "-n 2 with a trace" 'a trace belongs to one picture' "$flis" generate $m a.json -o out/p.png -n 2 --trace out/t.st
mkdir taken taken/p-43.png
broken "a name of -n 2 is taken by a folder" 'p-43.png: is a folder' "$flis" generate $m a.json -o taken/p.png -n 2
is "nothing was painted" test ! -e taken/p-42.png
# stops NAME: 1000 pictures have been begun; waits until two are finished
stops() {
    "$flis" generate $m a.json -o out/p.png -n 1000 >so 2>err &
    child=$!
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        [ ! -e out/p-44.png ] || break
        sleep 1
    done
}
stops
kill -TERM $child
wait $child
is "interrupted: exit 1" test $? = 1
is "interrupted: what is finished" has err '^flis generate: interrupted (picture [0-9]* of 1000, out/p-[0-9]*.png; finished: out/p-42.png to out/p-[0-9]*.png)$'
same "interrupted: finished pictures stay" out/p-43.png p43.png
is "interrupted: the last one is that of the sentence" has err "to $(ls out/p-* | sort -t- -k2 -n | tail -1))"
is "interrupted: no partial file" test "$(ls -A out | grep -cv '^p-[0-9]*.png$')" = 0
clear
stops
mv out moved
wait $child
is "a failure in the middle: exit 1" test $? = 1
is "a failure in the middle: why, and what is finished" has err '^flis generate: out/p-[0-9]*.png: cannot be written.* (picture [0-9]* of 1000, out/p-[0-9]*.png; finished: out/p-42.png to '
same "a failure in the middle: finished pictures stay" moved/p-43.png p43.png
rm -rf moved
clear

# ---- Several layouts, folders -----------------------------------------------------------------------------------------
done_ok "two layouts" "$flis" generate $m a.json -j b.c.json -o out/new/ -q
is "two layouts: named as they are" test "$(ls -A out/new | tr '\n' ' ')" = 'a.png b.c.png '
same "two layouts: the same bytes as alone" out/new/a.png p42.png
clear
done_ok "two layouts, two seeds, a folder that exists" "$flis" generate $m -j a.json -j plain.json -o out -n 2 -q
is "two layouts, two seeds: names" test "$(ls -A out | tr '\n' ' ')" = 'a-42.png a-43.png plain-42.png plain-43.png '
same "two layouts, two seeds: the same bytes as alone" out/a-43.png p43.png
clear
done_ok "one layout into a folder" "$flis" generate $m a.json -o out -q
same "one layout into a folder: its stem" out/a.png p42.png
clear
wrong "two layouts into a file" '2 layouts (.a.json., .b.c.json.) need a folder for their pictures: -o DIR/' \
    "$flis" generate $m a.json b.c.json -o out/p.png
wrong "two layouts of one stem" "layouts 'a.json' and 'sub/a.json' would both be painted to 'a.png': rename one" \
    "$flis" generate $m a.json sub/a.json -o out/
wrong "a layout given twice" "layout 'a.json' is given twice" "$flis" generate $m a.json -j a.json -o out/
wrong "--json with an empty name" "invalid value '' for --json" "$flis" generate $m --json= -o out/p.png
broken "the second layout is wrong" 'bad.json:1:' "$flis" generate $m a.json bad.json -o out/new/
broken "a folder in a missing folder" 'out/no/new: the folder cannot be made' "$flis" generate $m a.json b.c.json -o out/no/new/
printf '{"text_label_mapping": {"%s": 7}, "layout_path": "label.pgm"}\n' "$words" >long.json
broken "the second layout has too many tokens" '^flis generate: long.json: prompt: 76 tokens' "$flis" generate $m a.json long.json -o out/
cp label.pgm sub/label.png
printf '{"text_label_mapping": {"sea": 7}, "layout_path": "label.png"}\n' >sub/label.json
broken "a picture over a label map" 'sub/label.png: the output is the input' "$flis" generate $m a.json sub/label.json -o sub
is "a picture over a label map: nothing was painted" test ! -e sub/a.png

# ---- Which sentence comes first ---------------------------------------------------------------------------------------
printf '<!DOCTYPE html><html><title>404</title></html>\n' >page.safetensors
broken "a wrong model before a wrong vocabulary" '^flis generate: page.safetensors: ' \
    "$flis" generate -m page.safetensors --vocab absent.txt -j absent.json -o out/p.png
broken "no model before no vocabulary" '^flis generate: absent.safetensors: ' \
    "$flis" generate -m absent.safetensors --vocab absent.txt -j absent.json -o out/p.png
broken "a wrong vocabulary before a wrong layout" '^flis generate: absent.txt: ' \
    "$flis" generate $m --vocab absent.txt -j absent.json -o out/p.png

# ---- The negative prompt ----------------------------------------------------------------------------------------------
done_ok "--negative" "$flis" generate $m a.json -o out/n.png --negative 'a blurred sea' -q
is "--negative changes the picture" test "$(cmp -s out/n.png p42.png; echo $?)" = 1
is "--negative is in the PNG" has out/n.png 'a blurred sea'
done_ok "an empty --negative" "$flis" generate $m a.json -o out/e.png --negative '' -q
same "an empty --negative changes nothing" out/e.png p42.png
done_ok "--negative in a trace" "$flis" generate $m a.json -o out/n.png --negative=fog -q --trace out/t.st --trace-match x_T
"$flis" info out/t.st >so 2>err
is "--negative: a fact of the trace" grep -q '^metadata negative fog$' so
clear
wrong "--negative with --scale 1" 'no effect with --scale 1' "$flis" generate $m a.json -o out/p.png --negative fog --scale 1
broken "a long --negative" '^flis generate: negative prompt: got 76 tokens, wanted at most 75' \
    "$flis" generate $m -q a.json -o out/p.png --negative "$words"

# ---- Names of other formats -------------------------------------------------------------------------------------------
for ending in jpe webp bmp tiff TIF gif avif ppm json safetensors; do
    wrong "-o p.$ending" "invalid value 'out/p.$ending' for --output: pictures are PNG or JPEG files" \
        "$flis" generate $m a.json -o out/p.$ending
done
done_ok "-o P.PNG" "$flis" generate $m a.json -o out/P.PNG -q
done_ok "-o version-1.5" "$flis" generate $m a.json -o out/version-1.5 -q
clear

# ---- JPEG -------------------------------------------------------------------------------------------------------------
# The sum and length of what PIL 9.4 saves of p42.png's pixels (quality 75, 4:2:0).
is_jpeg() {
    sum=$(cksum <"$2")
    is "$1: PIL's bytes" test "$sum" = '2316204411 2382'
}
for file in p.jpg p.JPEG version-1.jpg; do
    done_ok "-o $file" "$flis" generate $m a.json -o out/$file -q
    is_jpeg "-o $file" out/$file
done
done_ok "--format jpg without an ending" "$flis" generate $m a.json -o out/p --format jpg -q
is_jpeg "--format jpg without an ending" out/p
done_ok "--format jpg to standard output" "$flis" generate $m a.json -o - --format=jpg -q
is_jpeg "--format jpg to standard output" so
done_ok "--again p42.png as a JPEG" "$flis" generate -m model.safetensors --again p42.png -o out/again.jpg -q
is_jpeg "--again p42.png as a JPEG" out/again.jpg
clear
done_ok "--format jpg into a folder" "$flis" generate $m a.json b.c.json -o out/f/ --format jpg -n 2 -q
is_jpeg "--format jpg into a folder" out/f/a-42.jpg
is "--format jpg into a folder: names" test "$(ls out/f | tr '\n' ' ')" = 'a-42.jpg a-43.jpg b.c-42.jpg b.c-43.jpg '
done_ok "-n 2 -o p.jpg" "$flis" generate $m a.json -o out/p.jpg -n 2 -q
is_jpeg "-n 2 -o p.jpg" out/p-42.jpg
is "-n 2 -o p.jpg: the other seed" cmp -s out/p-43.jpg out/f/a-43.jpg
done_ok "a folder whose name ends in .jpg" "$flis" generate $m a.json -o out/g.jpg/ -q
same "a folder whose name ends in .jpg holds PNGs" out/g.jpg/a.png p42.png
done_ok "--format png is the default" "$flis" generate $m a.json -o out/p --format png -q
same "--format png is the default" out/p p42.png
clear
wrong "--format jpg, but .png" '^flis generate: -o out/p.PNG and --format jpg contradict' "$flis" generate $m a.json -o out/p.PNG --format jpg
wrong "--format png, but .jpg" '^flis generate: -o out/p.jpeg and --format png contradict' "$flis" generate $m a.json -o out/p.jpeg --format png
wrong "--format webp" "invalid value 'webp' for --format: wanted png or jpg" "$flis" generate $m a.json -o out/p --format webp
wrong "--format of another command" 'unknown option --format' "$flis" tokens --format jpg
wrong "two layouts of one name as JPEGs" "both be painted to 'a.jpg'" "$flis" generate $m a.json sub/a.json -o out/ --format jpg

# ---- Options of other programs, and misspelt ones ---------------------------------------------------------------------
for pair in ddim_steps:--steps num_inference_steps:--steps H:--size W:--size height:--size width:--size n_samples:--count \
    n_iter:--count batch_size:--count plms:--sampler ddim_eta:--eta ckpt:--model config:model outdir:--output \
    skip_grid:grid prompt:--json layout:--json data_root:--json fixed_code:--seed f:model C:model precision:flis64 \
    guidance_scale:--scale cfg-scale:--scale cfg_scale:--scale negative_prompt:--negative negative-prompt:--negative \
    sampler_name:--sampler scheduler:--sampler device:--threads half:--threads tokenizer:--vocab; do
    wrong "--${pair%%:*}" "^flis generate: unknown option --${pair%%:*}: .*${pair#*:}" "$flis" generate --"${pair%%:*}" 4 a.json -o out/p.png
done
wrong "--ddim_steps=4" 'unknown option --ddim_steps: it is --steps N here' "$flis" generate --ddim_steps=4 a.json -o out/p.png
for pair in stpes:steps step:steps sede:seed Seed:seed no_layuot:no-layout neg:negative sampelr:sampler mdoel:model outptu:output \
    voacb:vocab trace_stepz:trace-steps; do
    wrong "--${pair%%:*}" "unknown option --${pair%%:*}: did you mean --${pair#*:}?" "$flis" generate --"${pair%%:*}" 4
done
wrong "one dash, a letter that is an option" 'unknown option -output: did you mean --output?' "$flis" generate -output x
wrong "one dash" 'unknown option -steps: did you mean --steps?' "$flis" generate -steps 4
wrong "the spelling of the authors' scripts" '--no-layout takes no value' "$flis" generate --no_layout=1
wrong "a value in the same word" 'unknown option -n4: did you mean -n 4?' "$flis" generate -n4 a.json
wrong "a layout without a command" 'a command is missing: flis generate a.json' "$flis" a.json
wrong "nothing similar" 'unknown option --frobnicate (see' "$flis" generate --frobnicate
wrong "another command has no advice for it" 'unknown option --ddim_steps (see' "$flis" tokens --ddim_steps 4
wrong "another program" '^synth: unknown option --haf: did you mean --half?' "$synth" --haf
wrong "a misspelt command" "unknown command 'genrate': did you mean generate?" "$flis" genrate

# ---- Again --------------------------------------------------------------------------------------------------------------
# again NAME OPTION…: a picture that is made with the options is made again from itself, to the byte
again() {
    name=$1
    shift
    run "$flis" generate -m model.safetensors --steps 1 -o out/first.png -q "$@"
    if [ $status != 0 ]; then fail "$name: the first picture"; return; fi
    done_ok "$name" "$flis" generate -m model.safetensors --again out/first.png -o out/again.png -q $noise
    same "$name: the same bytes" out/again.png out/first.png
    clear
}
noise=
again "again" a.json --size 64
again "again: every number" a.json --size 128x64 --sampler ddim --eta 0.3 --scale 3.7 --rng cuda --seed 18446744073709551615
again "again: scale 1, PLMS of 2 steps" a.json --size 64 --scale 1 --steps 2
again "again: --no-layout" a.json --size 64 --no-layout
again "again: a layout without a map" plain.json --size 64
again "again: phrases as a list, in Unicode, twice the same" b.c.json --size 64
again "again: a negative prompt" a.json --size 64 --negative 'gray "fog" é'
noise="--noise noise1.st"
again "again: a noise file" a.json --size 64 --noise noise1.st
done_ok "with noise" "$flis" generate $m a.json -o pn.png --noise noise1.st -q
noise="--vae other.safetensors"
again "again: another autoencoder" a.json --size 64 --vae other.safetensors
done_ok "with another autoencoder" "$flis" generate $m a.json -o pv.png --vae other.safetensors -q
noise=
cp model.safetensors renamed.safetensors
cp merges.txt renamed.txt
done_ok "again: renamed files" "$flis" generate -m renamed.safetensors --vocab renamed.txt --again p42.png -o out/p.png -q
same "again: renamed files, the same bytes" out/p.png p42.png
mkdir tok
cp merges.txt tok/
done_ok "again: a folder for a vocabulary" "$flis" generate -m model.safetensors --vocab tok --again p42.png -o out/p.png -q
same "again: a folder for a vocabulary, the same bytes" out/p.png p42.png
done_ok "again, with another seed" "$flis" generate -m model.safetensors --again p42.png -o out/p.png --seed 43 -q
same "again, with another seed: that one's picture" out/p.png p43.png
done_ok "again, two seeds into a folder" "$flis" generate -m model.safetensors --again p42.png -n 2 -o out/f/ -q
same "again, two seeds: the second" out/f/p42-43.png p43.png
clear
r="generate -m model.safetensors -o out/p.png -q --again"
broken "again: another model" 'p42.png: was made with the model model.safetensors of SHA-256 [0-9a-f]\{64\}, got other.safetensors of SHA-256 [0-9a-f]\{64\}: give the right one with --model' \
    "$flis" generate -m other.safetensors --vocab merges.txt -o out/p.png -q --again p42.png
broken "again: another vocabulary" 'p42.png: was made with the vocabulary merges.txt of SHA-256 .*, got merges2.txt of .* with --vocab' \
    "$flis" $r p42.png --vocab merges2.txt
broken "again: without the autoencoder" 'pv.png: was made with the autoencoder of other.safetensors: give it with --vae' "$flis" $r pv.png
broken "again: with another autoencoder" 'pv.png: was made with the autoencoder other.safetensors of SHA-256 .*, got model.safetensors' \
    "$flis" $r pv.png --vae model.safetensors
broken "again: without the noise" 'pn.png: was made with a noise file, noise1.st: give it with --noise FILE' "$flis" $r pn.png
broken "again: with another noise" 'pn.png: was made with the noise noise1.st of SHA-256 .*, got noise2.st' "$flis" $r pn.png --noise noise2.st
wrong "again, with a layout" "'a.json' is one too many" "$flis" $r p42.png a.json
wrong "again, --scale 1 over a negative prompt" 'no effect with --scale 1' sh -c '"$@" --negative fog --scale 1' sh "$flis" $r p42.png
broken "again, over itself" 'p42.png: the output is the input' "$flis" generate -m model.safetensors --again p42.png -o p42.png
broken "again: no such picture" 'absent.png: cannot be opened' "$flis" $r absent.png
printf '\377\330\377\340\000\020JFIF\000' >photo.png
broken "again: a JPEG" 'photo.png: is a JPEG picture, which keeps nothing of how it was made, wanted a PNG' "$flis" $r photo.png
broken "again: a layout" 'a.json: is JSON\|a.json: is a JSON\|wanted a PNG picture' "$flis" $r a.json

# Pictures with texts of any kind. A chunk is its length, type, data and CRC-32, which gzip computes too.
bytes() { printf "$(printf '\\%03o\\%03o\\%03o\\%03o' "$@")"; }
chunk() {
    n=$(($(wc -c <data)))
    bytes $((n >> 24)) $((n >> 16 & 255)) $((n >> 8 & 255)) $((n & 255))
    { printf %s "$1"; cat data; } >typed
    cat typed
    set -- $(gzip -c typed | tail -c 8 | head -c 4 | od -An -tu1)
    bytes "$4" "$3" "$2" "$1"
}
# texts KEY VALUE…: h.png with these texts
texts() {
    head -c 33 p42.png >h.png
    while [ $# -gt 1 ]; do
        { printf '%s\000' "$1"; printf %s "$2"; } >data
        chunk tEXt >>h.png
        shift 2
    done
    tail -c 12 p42.png >>h.png
}
real=F32
"$flis" --version >so && ! has so double || real=F64
map=iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgBwAACQAIICPDjAAAAABJRU5ErkJggg==
# hostile NAME PATTERN KEY VALUE: a picture of ours in which one text is replaced
hostile() {
    name=$1 pattern=$2 key=$3 value=$4
    set --
    for pair in "Software:flis 0.1.0" seed:42 steps:1 sampler:plms eta:0 scale:2 rng:cpu size:64x64 model:m prompt:sea layout:a.json \
        edition:1 "flis.real:$real" 'phrases:[["sea", 7]]' model.sha256:0 vocab:v vocab.sha256:0 "layout.map:$map"; do
        if [ "${pair%%:*}" != "$key" ]; then set -- "$@" "${pair%%:*}" "${pair#*:}"
        elif [ -n "$value" ]; then set -- "$@" "$key" "$value"; fi
    done
    texts "$@"
    broken "again: $name" "^flis generate: h.png: *$pattern\|^flis generate: h.png:[0-9:]* *$pattern" "$flis" $r h.png
}
texts Software GIMP
broken "again: no text of ours" 'h.png: has no text of flis' "$flis" $r h.png
texts parameters 'sea, sky Steps: 20'
broken "again: A1111's text" "h.png: was made by AUTOMATIC1111's web UI (its text \"parameters\")" "$flis" $r h.png
texts workflow '{}' prompt '{}'
broken "again: ComfyUI's text" 'h.png: was made by ComfyUI' "$flis" $r h.png
texts Software 'flis 0.1.0' seed 42 prompt sea layout a.json
broken "again: an older picture of ours" 'h.png: was made by a version of flis (flis 0.1.0) that did not keep' "$flis" $r h.png
hostile "texts that are right" 'was made with the model m of SHA-256 0, got model.safetensors' none none
hostile "another edition" 'was made by flis 0.1.0, whose arithmetic is edition 2, but this version.s is edition 1' edition 2
hostile "another precision" 'was made in BF16' flis.real BF16
for pair in seed:-1 seed:1e9 steps:0 steps:9999 steps: sampler:euler eta:nan eta:2 scale:1e99 rng:gpu size:63x64 size:64x65536; do
    hostile "${pair#*:} for ${pair%%:*}" "text \"${pair%%:*}\": \(got '${pair#*:}', wanted\|missing\)" "${pair%%:*}" "${pair#*:}"
done
hostile "no digest" 'text "model.sha256": missing' model.sha256 ''
hostile "no map" 'text "layout.map": missing' layout.map ''
hostile "a map that is not base64" 'text "layout.map": is not base64' layout.map 'iVBO*w=='
hostile "a map that is cut" 'text "layout.map": damaged PNG' layout.map "$(printf %.40s "$map")"
hostile "phrases that are not JSON" '.*text "phrases":1:11: ' phrases '[["sea", 7'
hostile "phrases that are an object" 'text "phrases": got an object, wanted an array' phrases '{"sea": 7}'
hostile "phrases with an id out of range" '.*text "phrases".*256' phrases '[["sea", 256]]'
hostile "phrases with a file's name" '.*text "phrases":1:1[0-9]: ' phrases '[["sea", 7]], "layout_path": "/etc/passwd"'
texts Software 'flis 0.1.0' edition 1 phrases '[]' phrases '[["sea", 7]]' layout none flis.real $real seed 1 seed 2
broken "again: a text twice" 'text "seed": duplicated' "$flis" $r h.png
cp p42.png h.png
printf X | dd of=h.png bs=1 seek=60 conv=notrunc 2>/dev/null
broken "again: a damaged text" 'h.png: damaged PNG: the text at byte [0-9]* does not have its CRC' "$flis" $r h.png
head -c 700 p42.png >h.png
broken "again: a picture that is cut" 'h.png: damaged PNG: it ends early' "$flis" $r h.png

# ---- The end ------------------------------------------------------------------------------------------------------------
line="$passed passed, $failed failed"
echo "field, command line: $line"
[ -z "$counts" ] || echo "$line" >"$counts"
[ $failed = 0 ]
