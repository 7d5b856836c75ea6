#!/bin/sh
# cli.sh FLIS SYNTH [COUNTS]: tests the command line: every option, exit codes, which files are written and which are not.
# Prints one line per failed check and "N passed, N failed"; the same line goes to the file COUNTS, for the runner. It works in
# a directory that it makes and removes.
LC_ALL=C
OMP_WAIT_POLICY=passive        # threads that spin starve each other on a busy machine
export LC_ALL OMP_WAIT_POLICY
[ $# -ge 2 ] || { echo "usage: cli.sh FLIS SYNTH [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
flis=$(absolute "$1")
synth=$(absolute "$2")
counts=${3:+$(absolute "$3")}
golden=$(cd "$(dirname "$0")/.." && pwd)/golden
[ -z "$counts" ] || rm -f "$counts"
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-cli.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1
mkdir out

passed=0
failed=0
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL cli: $*"
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
# wrong NAME PATTERN COMMAND…: exit 2, nothing on stdout, one message that matches
wrong() {
    name=$1 pattern=$2
    shift 2
    run "$@"
    if [ $status = 2 ] && [ ! -s so ] && [ "$(lines err)" = 1 ] && has err "$pattern"; then pass
    else fail "$name: exit $status, wanted 2 and one sentence with \"$pattern\""; fi
}
# broken NAME PATTERN COMMAND…: exit 1, a message that matches, no file left in out/
broken() {
    name=$1 pattern=$2
    shift 2
    run "$@"
    if [ $status = 1 ] && has err "$pattern" && [ -z "$(ls -A out)" ]; then pass
    else fail "$name: exit $status, wanted 1, \"$pattern\" and nothing in out/ ($(ls -A out))"; fi
    rm -rf out
    mkdir out
}
# tensors FILE HEADER BYTES: writes a safetensors file whose values are zero bytes, or stdin's bytes if BYTES is -
tensors() {
    {
        printf "\\$(printf %03o $((${#2} % 256)))\\$(printf %03o $((${#2} / 256)))\\000\\000\\000\\000\\000\\000"
        printf %s "$2"
        if [ "$3" = - ]; then cat; elif [ "$3" != 0 ]; then dd if=/dev/zero bs="$3" count=1 2>/dev/null; fi
    } >"$1"
}

# ---- Input of the checks -----------------------------------------------------------------------------------------
# Both have 1000 tokens: 512 for bytes, 486 merges, BOS 998, EOS 999.
done_ok "synth tinyA" "$synth" tinyA model.safetensors
done_ok "synth tinyB" "$synth" tinyB tinyB.safetensors
done_ok "synth tinyA with CLIP's vocabulary" "$synth" tinyA clip.safetensors --tokens 49408
done_ok "has a row for each token" sh -c '"$0" info clip.safetensors | grep -q "token_embedding.weight F32 .49408,32"; s=$?; rm clip.safetensors; exit $s' "$flis"
awk 'BEGIN { print "#version: 0.2"; s = "abcdefghijklmnopqrstuvwxyz"
    for (n = i = 1; i <= 26; i++) for (k = 1; k <= 26 && n <= 486; k++) if (i != k) { n++
        print substr(s, i, 1) " " substr(s, k, 1) } }' >merges.txt
printf 'P2\n4 4\n255\n3 3 3 3\n3 3 3 3\n7 7 7 7\n7 7 7 7\n' >label.pgm
printf '{"text_label_mapping": {"sea": 7, "sky": 3, "in oil": -1}, "layout_path": "label.pgm"}\n' >layout.json
printf '{"text_label_mapping": {"sea": 7, "sky": 3, "in oil": -1}}\n' >plain.json
printf '{"text_label_mapping": {"sea": 7, "sky" 3}}\n' >bad.json
tensors noise.st '{"x_T":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}' 1024
printf '{"text_label_mapping": {"sea": 7}, "layout_path": "absent.png"}\n' >nolabel.json
tensors empty.st '{}' 0

# ---- Help and version -------------------------------------------------------------------------------------------
done_ok "--help" "$flis" --help
is "--help on stdout" has so "flis generate"
is "--help says nothing on stderr" test ! -s err
done_ok "-h" "$flis" -h
done_ok "--version" "$flis" --version
is "--version's line" has so '^flis [0-9]'
done_ok "help" "$flis" help
is "help is --help" has so "^usage: flis COMMAND"
done_ok "help of a command" "$flis" help generate
is "help of a command is its --help" has so "^usage: flis generate"
wrong "help of an unknown command" "unknown command 'paint'" "$flis" help paint
done_ok "noise, an older name" "$flis" noise --help
is "noise is precision" has so "^usage: flis precision"
"$flis" --help >so
is "noise is not listed" test "$(grep -c noise so)" = 0
for command in generate stage precision tokens info layout digest conformance; do
    done_ok "$command --help" "$flis" $command --help
    is "$command --help on stdout" has so "usage: flis $command"
    is "$command --help: at most 116 columns" test -z "$(awk 'length > 116' so)"
    is "$command --help has options" has so '^  -h, --help'
    done_ok "$command --version" "$flis" $command --version
    is "$command --version's line" has so '^flis [0-9]'
    wrong "$command: unknown option" 'unknown option --frobnicate' "$flis" $command --frobnicate
    wrong "$command: unknown letter" 'unknown option -z' "$flis" $command -z
done

# ---- Wrong usage ------------------------------------------------------------------------------------------------
g="generate -m model.safetensors -j layout.json -o out/p.png"
wrong "no command" 'command is missing' "$flis"
wrong "unknown command" "unknown command 'paint'" "$flis" paint
wrong "unknown first option" 'unknown option --paint' "$flis" --paint
wrong "generate without -j" '-j' "$flis" generate -m model.safetensors -o out/p.png
wrong "generate without -o" '-o' "$flis" generate -m model.safetensors -j layout.json
wrong "generate with a word, a second layout" "2 layouts ('layout.json', 'word') need a folder" "$flis" $g word
wrong "option without value" '--steps needs a value' "$flis" $g --steps
wrong "flag with value" 'takes no value' "$flis" $g --quiet=1
wrong "one dash, long name" 'unknown option -steps' "$flis" $g -steps 4
for value in '' 0 -1 1001 4x 4.0 ' 4' 0x4 99999999999999999999; do
    wrong "--steps '$value'" "^flis generate: invalid value '$value' for --steps: wanted a whole number from 1 to 1000 " \
        "$flis" $g --steps "$value"
done
wrong "--steps=0" "invalid value '0' for --steps" "$flis" $g --steps=0
wrong "--seed: what is wanted" 'wanted a whole number from 0 to 2^64-1' "$flis" $g --seed x
wrong "--model with an empty name" "invalid value '' for --model" "$flis" $g --model=
for value in -1 x 18446744073709551616 1e3 +1; do wrong "--seed $value" '--seed' "$flis" $g --seed "$value"; done
for value in -0.1 1.5 nan x 0.5y; do wrong "--eta $value" '--eta' "$flis" $g --sampler ddim --eta "$value"; done
for value in inf x 2,5 0x2 1e999; do wrong "--scale $value" '--scale' "$flis" $g --scale "$value"; done
for value in 0 100 64x 64x65 x64 64x64x64 -64 64X64 8256 64x65536; do wrong "--size $value" '--size' "$flis" $g --size "$value"; done
for value in 0 two 99999; do wrong "--threads $value" '--threads' "$flis" $g --threads "$value"; done
for value in , 1, 3-1 a 1-2-3; do
    wrong "--trace-steps $value" '--trace-steps' "$flis" $g --trace out/t.st --trace-steps "$value"
done
wrong "--trace-steps beyond the last step" "^flis generate: invalid value '9' for --trace-steps: wanted 0 to 1," \
    "$flis" $g --steps 2 --trace out/t.st --trace-steps 0,9
wrong "--sampler" 'wanted plms or ddim' "$flis" $g --sampler euler
wrong "--rng" 'wanted cpu or cuda' "$flis" $g --rng gpu
wrong "--trace-match without --trace" '--trace' "$flis" $g --trace-match '*'
wrong "--trace-steps without a trace" '--trace' "$flis" $g --trace-steps 1
wrong "--trace-digest without a name" '--trace-digest needs a value' "$flis" $g --trace-digest
wrong "precision with a word" "unexpected argument 'word'" "$flis" precision -m model.safetensors word
wrong "precision --truth and --trace" '--truth' "$flis" precision -m model.safetensors --truth a.st --trace b.st
wrong "precision --steps" 'unknown option --steps' "$flis" precision --steps 4
wrong "stage without a name" "NAME is missing: clip" "$flis" stage -i empty.st -o out/o.st
wrong "unknown stage" "unknown stage 'paint'" "$flis" stage paint -i empty.st -o out/o.st
wrong "stage without -i" '-i' "$flis" stage rca -o out/o.st
wrong "stage without -o" '-o' "$flis" stage rca -i empty.st
wrong "stage with two names" "unexpected argument 'rca'" "$flis" stage rca rca -i empty.st -o out/o.st
wrong "info without a model" 'MODEL' "$flis" info
wrong "info with two" 'unexpected argument' "$flis" info model.safetensors model.safetensors
wrong "layout without a file" 'LAYOUT.json' "$flis" layout
wrong "layout with two" 'unexpected argument' "$flis" layout layout.json layout.json
wrong "digest with a word" "unexpected argument 'word'" "$flis" digest word
wrong "generate's option at stage" 'unknown option --no-layout' "$flis" stage rca --no-layout

# ---- Failures: an error message, and no file --------------------------------------------------------------------
broken "no such model" 'absent.safetensors' "$flis" generate -m absent.safetensors -j layout.json -o out/p.png
printf 'PK\3\4 and more' >"my model"
broken "a checkpoint under another name" "bin/ckpt2safetensors 'my model' OUT" "$flis" info "my model"
cp "my model" model.ckpt
broken "a .ckpt" 'bin/ckpt2safetensors model.ckpt' "$flis" generate -m model.ckpt -j layout.json -o out/p.png
broken "no such model, and no vocabulary" '^flis generate: none: cannot be opened' "$flis" generate -m none -j layout.json -o out/p.png
is "no seed before an error" test "$(grep -c seed err)" = 0
mkdir folder
broken "a folder for a model" 'folder: is an empty folder, wanted a model' "$flis" info folder
broken "a folder for a layout" 'folder: is a folder, wanted a file' "$flis" generate -m model.safetensors -j folder -o out/p.png
broken "a folder for a vocabulary" 'folder: is a folder without merges.txt or tokenizer.json' "$flis" $g --vocab folder
broken "a folder for the noise" 'folder: is a folder, wanted a file' "$flis" $g --noise folder
broken "no such json" 'absent.json' "$flis" generate -m model.safetensors -j absent.json -o out/p.png
broken "a JSON error has line and column" 'bad.json:1:[0-9]' "$flis" generate -m model.safetensors -j bad.json -o out/p.png
broken "no such layout" 'absent.png' "$flis" generate -m model.safetensors -j nolabel.json -o out/p.png
broken "no such vocabulary" 'absent.txt' "$flis" $g --vocab absent.txt
broken "a forbidden step count" '27' "$flis" $g --steps 27
broken "PLMS with eta" 'eta' "$flis" $g --eta 0.5
broken "no such noise" 'absent.st' "$flis" $g --size 64 --noise absent.st
broken "output in a missing folder" 'out/no/p.png' "$flis" generate -m model.safetensors -j layout.json -o out/no/p.png
broken "trace in a missing folder" 'out/no/t.st' "$flis" $g --trace out/no/t.st
broken "digest in a missing folder" 'out/no/d.json' "$flis" $g --trace-digest out/no/d.json
broken "a trace that fails later" 'absent.st' \
    "$flis" $g --size 64 --noise absent.st --trace out/t.st --trace-digest out/d.json
broken "precision: no such model" 'absent.safetensors' "$flis" precision -m absent.safetensors --json out/n.json
broken "precision: no such truth" 'none.st: cannot be opened' "$flis" precision -m small.safetensors --truth none.st
broken "precision: an invalid file for --truth" 'in.context' "$flis" precision -m model.safetensors --size 64 --truth noise.st
mkdir -p taken/layout.png
broken "output is a folder" 'is a folder' "$flis" generate -m model.safetensors -j layout.json -o taken
head -c 100000 model.safetensors >cut.safetensors
broken "a model cut short" 'cut.safetensors' "$flis" generate -m cut.safetensors -j layout.json -o out/p.png
tensors small.safetensors '{"model.diffusion_model.out.2.bias":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}' 16
broken "a model without its tensors" 'small.safetensors' \
    "$flis" generate -m small.safetensors -j layout.json -o out/p.png
mkdir alone
cp model.safetensors alone/
broken "no vocabulary" 'no vocabulary' "$flis" generate -m alone/model.safetensors -j layout.json -o out/p.png
awk 'NR <= 20' merges.txt >few.txt
broken "a vocabulary of another size" '[0-9]' "$flis" $g --size 64 --steps 2 --vocab few.txt
broken "digest: no such model" 'absent' "$flis" digest -m absent
broken "digest: no such vocabulary" 'absent' "$flis" digest --vocab absent
broken "info: no such file" 'absent' "$flis" info absent.safetensors
broken "info: not a model" 'merges.txt' "$flis" info merges.txt
broken "layout: no such file" 'absent' "$flis" layout absent.json
broken "tokens: no such vocabulary" 'absent' "$flis" tokens --vocab absent.txt x

# ---- tokens -----------------------------------------------------------------------------------------------------
done_ok "tokens" "$flis" tokens --vocab merges.txt abc "" "AB"
printf '998 512 322 999\n998 999\n998 64 321 999\n' >want
is "tokens: merges, the empty text, lower case" cmp -s so want
printf 'abc\n\nAB' | "$flis" tokens --vocab merges.txt >so 2>err
is "tokens: one text per line of stdin" cmp -s so want
"$flis" tokens --vocab merges.txt </dev/null >so 2>err
is "tokens: no text" test ! -s so
done_ok "tokens: after --" "$flis" tokens --vocab merges.txt -- --help
is "tokens: --help as a text" test "$(lines so)" = 1
done_ok "tokens: the last option wins" "$flis" tokens --vocab absent.txt --vocab=merges.txt abc
done_ok "tokens: vocabulary beside the model" "$flis" tokens -m model.safetensors abc
mkdir -p folder/tokenizer
cp merges.txt folder/tokenizer/
done_ok "tokens: vocabulary in a diffusers folder" "$flis" tokens -m folder abc
long=$(awk 'BEGIN { for (i = 0; i < 90; i++) printf "a " }')
done_ok "tokens: a long text" "$flis" tokens --vocab merges.txt "$long"
is "tokens: cut to 77" test "$(wc -w <so | tr -d ' ')" = 77
if [ -c /dev/full ]; then
    "$flis" tokens --vocab merges.txt abc >/dev/full 2>err
    is "tokens: disk full" test $? = 1
    "$flis" --help >/dev/full 2>err
    is "--help: disk full" test $? = 1
fi

# ---- info, layout -----------------------------------------------------------------------------------------------
done_ok "info" "$flis" info tinyB.safetensors
for line in '^tensors [1-9]' '^unet .*channels 32 mult 1,2,4,4 .*blocks 2 heads 4 context 48' \
    '^clip .*vocab 1000 width 48 layers 4 heads 4' '^vae .*channels 32 mult 1,2,4,4 .*encoder yes' \
    '^model.diffusion_model.out.2.weight F32 \[4,32,3,3\]'; do
    is "info: $line" has so "$line"
done
is "info: position of a tensor" has so '^model.diffusion_model.out.2.weight F32 \[4,32,3,3\] 0:[0-9]*-[0-9]*$'
done_ok "info --diffable" "$flis" info --diffable tinyB.safetensors
grep '^[a-z_]*[.].* F32' so | sed 's/ .*//' >names
is "info: sorted" env LC_ALL=C sort -c names
cp so first
"$flis" info --diffable tinyB.safetensors >so 2>err
is "info: the same output for the same model" cmp -s so first
done_ok "info --verify" "$flis" info --verify tinyB.safetensors
is "info --verify: says so" has so '^every value is finite$'
# A NaN in value 3 of a matrix: listed by --verify; found where the weight is used, or when all weights are loaded.
cp model.safetensors nan.safetensors
at=$("$flis" info model.safetensors | sed -n 's/^model.diffusion_model.out.2.weight .* 0:\([0-9]*\)-.*/\1/p')
at=$((at + $(wc -c <model.safetensors) - $("$flis" info model.safetensors | sed -n 's/^bytes //p')))
printf '\000\000\300\177' | dd of=nan.safetensors bs=1 seek=$((at + 12)) conv=notrunc 2>/dev/null
run "$flis" info --verify nan.safetensors
is "info --verify: a NaN is exit 1" test $status = 1
is "info --verify: which tensor and value" has so '^not finite model.diffusion_model.out.2.weight 3$'
for packed in "" --packed; do
    broken "generate $packed: a NaN among the weights" 'out.2.weight: value 3 is NaN or infinite' \
        "$flis" generate -m nan.safetensors -j layout.json -o out/p.png --size 64x64 --steps 2 $packed
done
# a name from a file must neither end a line nor control the terminal
printf '\134\0\0\0\0\0\0\0{"__metadata__":{"k":"\\u001b[2J\\nv"},"a\\nb":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}\0\0\0\0' >odd.safetensors
done_ok "info of unprintable names" "$flis" info --diffable odd.safetensors
is "info: metadata on a line" grep -q '^metadata k ?\[2J?v$' so
is "info: a name on a line" grep -q '^a?b F32 \[\]$' so
done_ok "layout" "$flis" layout layout.json --vocab merges.txt
is "layout: prompt" has so 'sea sky in oil'
printf '7\t131072\t2048\t512\t128\t32\tsea\n' >want
awk '$1 == 7 && NF == 7' so >got
is "layout: pixels per id" cmp -s got want
done_ok "layout --size" "$flis" layout layout.json --vocab merges.txt --size 128x64
is "layout --size: grids" has so '128x64'
done_ok "layout without a picture" "$flis" layout plain.json --vocab merges.txt
is "layout: reports that there is no label map" has so 'none'

# ---- generate ---------------------------------------------------------------------------------------------------
s="--size 64x64 --steps 2"
done_ok "generate" "$flis" $g $s
is "generate: nothing on stdout" test ! -s so
is "generate: the seed" has err 'seed 42'
is "generate: few progress lines" test "$(grep -c '^step' err)" = 1
is "generate: the last step" has err '^step 2/2, '
is "generate: no warning" test "$(grep -c warning err)" = 0
is "generate: a PNG" has out/p.png 'IHDR'
is "generate: no other file" test "$(ls -A out)" = p.png
for text in seed steps sampler eta scale rng size model prompt layout Software; do
    is "tEXt $text" has out/p.png "$text"
done
mv out/p.png first.png
ln -s real.png out/p.png
done_ok "generate --threads 1 --quiet, into a link" "$flis" $g $s --threads 1 --quiet
is "generate: the same bytes" cmp -s out/real.png first.png
is "generate: the link stays" test -h out/p.png
is "--quiet: nothing on stderr" test ! -s err
rm -f out/*
done_ok "generate: options spelled out" "$flis" generate $s --json=layout.json --model=model.safetensors --output out/p.png \
    --threads 2 --seed 42 --sampler plms --eta 0 --scale 2 --rng cpu
is "generate: the defaults are those of --help" cmp -s out/p.png first.png
done_ok "generate --packed" "$flis" $g $s --packed -q
is "--packed: the same bytes" cmp -s out/p.png first.png
done_ok "generate --seed" "$flis" $g $s --seed 18446744073709551615 -q
is "--seed: different bytes" test "$(cmp -s out/p.png first.png; echo $?)" = 1
is "--seed: in full" has out/p.png 18446744073709551615
done_ok "generate --no-layout" "$flis" $g $s --no-layout -q
mv out/p.png plain.png
is "--no-layout: different bytes" test "$(cmp -s plain.png first.png; echo $?)" = 1
done_ok "generate without layout_path" "$flis" generate -m model.safetensors -j plain.json -o out/p.png $s -q
is "no layout_path is --no-layout" cmp -s out/p.png plain.png
done_ok "generate: not square, ddim, cuda" \
    "$flis" $g --size 128x64 --steps 2 --sampler ddim --eta 0.5 --rng cuda --scale 1 -q
done_ok "generate --noise" "$flis" $g $s --noise noise.st -q
rm -f out/*
broken "noise of another shape" 'noise.st' "$flis" $g --size 128x64 --steps 2 --noise noise.st
done_ok "generate --trace" "$flis" $g $s -q --trace out/t.st --trace-match '*middle_block*attn2' --trace-steps 1
"$flis" info --diffable out/t.st >so 2>err
is "--trace: the guided step 1 alone" test "$(grep -c 'step.1.*attn2 F32' so)" = 2 -a "$(grep -c 'step.0' so)" = 0
rm -f out/*
done_ok "generate --trace-match of nothing" "$flis" $g $s --trace out/t.st --trace-match 'nothing*'
is "--trace-match of nothing: a warning" has err "^flis generate: warning: no intermediate matches 'nothing\*'"
rm -f out/*
# Digests: every tensor, with the SHA-256 of the values in the trace file. (Below, stage: JSON for our strict reader.)
d="--trace out/t.st --trace-match *attn2.mask --trace-digest out/d.json"
set -f
done_ok "generate --trace-digest" "$flis" $g $s -q $d
set +f
is "tracing changes no byte" cmp -s out/p.png first.png
grep '^{"name": ' out/d.json >lines
is "--trace-digest: a line per tensor" test "$(lines lines)" -gt 1000
is "--trace-digest: in order of execution" test "$(sed -n '1s/{"name": "\([^"]*\)".*/\1/p' lines)" = clip.embeddings
digests=$(dirname "$synth")/compare
done_ok "compare a digest with itself" "$digests" out/d.json out/d.json
is "compare: every tensor of it" has so "^$(lines lines) compared, 0 differ"
done_ok "compare a digest with the trace of the same run" "$digests" --allow-missing out/d.json out/t.st
sed 's/"samples": \[0/"samples": [9/' out/d.json >out/other.json
run "$digests" out/d.json out/other.json
is "compare: a different sample is exit 1" test $status = 1
head -c 2000 out/d.json >out/cut.json
run "$digests" out/cut.json out/d.json
is "compare: a truncated digest is exit 2" test $status = 2
rm -f out/other.json out/cut.json
is "--trace-digest: the model's digest" has out/d.json '"model.sha256": "[0-9a-f]*"'
"$flis" info out/t.st >so 2>err
for key in flis.version flis.real command model.sha256 phrases ids class_ids layout.sha256 size seed rng steps sampler \
    eta scale; do
    is "trace: metadata $key" has so "^metadata $key "
done
is "trace: token ids" has so '^metadata ids 998 .* 999$'
if command -v sha256sum >sha 2>err; then
    digest=$(sha256sum <model.safetensors | sed 's/ .*//')
    is "trace: the model's digest is its file's" has so "^metadata model.sha256 $digest"
    start=$(($(wc -c <out/t.st) - $(sed -n 's/.* 0:[0-9]*-\([0-9]*\)$/\1/p' so | sort -n | tail -1)))
    sed -n 's/^\(step[^ ]*\) U8 .* 0:\([0-9]*\)-\([0-9]*\)$/\1 \2 \3/p' so >masks
    is "trace: masks" test "$(lines masks)" = 30
    head -3 masks | while read -r name begin end; do
        digest=$(tail -c +$((start + begin + 1)) out/t.st | head -c $((end - begin)) | sha256sum | sed 's/ .*//')
        grep "^{\"name\": \"$name\", \"dtype\": \"U8\".*\"sha256\": \"$digest\"}" lines || echo "$name $digest" >>wrong
    done >so
    is "trace: the digests are the tensors'" test ! -e wrong
fi
rm -f out/*
# Phrases without a cell at the finest scale give one line of warning, before the model is read.
awk 'BEGIN { print "P2 64 64 255"; for (i = 0; i < 4096; i++) { x = i % 64; y = int(i / 64)
    print (x >= 8 && x < 16 && y >= 8 && y < 16 ? 9 : x == 3 && y == 3 ? 5 : 7) } }' >regions.pgm
printf '{"text_label_mapping": {"sea": 7, "boat": 9, "bird": 5, "fox": 4}, "layout_path": "regions.pgm"}\n' >regions.json
r="generate -m small.safetensors --vocab merges.txt -j regions.json --size 64 -o out/p.png"
broken "generate: a phrase without a region" 'warning: no cell of the 8x8 latent belongs to "bird" (id 5), "fox" (id 4)' \
    "$flis" $r
"$flis" $r >so 2>err
is "generate: one warning" test "$(grep -c 'warning' err)" = 1
is "generate: no warning about regions that the finest scale has" test "$(grep -c boat err)" = 0
broken "generate -q: the warning and the error" '^flis generate: small' "$flis" $r -q
is "generate -q: warnings stay" test "$(grep -c 'warning' err)" = 1
broken "generate --no-warnings: the error alone" '^flis generate: small' "$flis" $r -q --no-warnings
is "generate --no-warnings: no warning" test "$(grep -c 'warning' err)" = 0
"$flis" layout regions.json --vocab merges.txt --size 64 >so 2>err
is "layout: a warning for each of them" test "$(grep -c 'warning: phrase' err)" = 3
# A full disk: the PNG is larger than the limit, and the signal that comes with it is ignored.
broken "generate: disk full" 'p.png' sh -c "trap '' XFSZ; ulimit -f 8; exec \"\$@\"" sh "$flis" $g $s -q
"$flis" generate -m tinyB.safetensors -j layout.json -o out/p.png --size 64 --steps 200 >so 2>err &
child=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    grep '^step' err >/dev/null && break
    sleep 1
done
kill -TERM $child
wait $child
is "interrupted: exit 1" test $? = 1
is "interrupted: the message" has err 'interrupted'
is "interrupted: no file left" test -z "$(ls -A out)"

# ---- stage ------------------------------------------------------------------------------------------------------
h='{"label":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},'
h=$h'"class_ids":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"size":{"dtype":"I32","shape":[2],"data_offsets":[8,16]}}'
printf '\000\001\001\001\000\000\200\077\002\000\000\000\002\000\000\000' | tensors rca.st "$h" -
ln -s real.st out/o.st
done_ok "stage rca, into a link" "$flis" stage rca -i rca.st -o out/o.st
is "stage: the link stays" test -h out/o.st -a -f out/real.st
tail -c 308 out/o.st | od -An -v -tu1 | tr -s ' ' '\n' | grep . >got
awk 'BEGIN { for (i = 0; i < 308; i++) print (i != 1) }' >want
is "stage rca: mask" cmp -s got want
rm -f out/*
m="-m tinyB.safetensors -o out/o.st -q"
broken "stage rca: size missing" '"size": missing' "$flis" stage rca -i empty.st -o out/o.st
broken "stage: no such input" 'absent.st' "$flis" stage decode $m -i absent.st
broken "stage decode: z missing" '"z": missing' "$flis" stage decode $m -i empty.st
tensors in.st '{"z":{"dtype":"F32","shape":[1,3,8,8],"data_offsets":[0,768]}}' 768
broken "stage decode: wrong shape" 'got shape \[1,3,8,8\], wanted \[n,4,h,w\]' "$flis" stage decode $m -i in.st
# shapes NAME LINE…: the stage wrote these tensors
shapes() {
    which=$1
    shift
    "$flis" info --diffable out/o.st >so 2>err
    for line; do is "$which: $line" grep -qxF "$line" so; done
    rm -f out/*
}
tensors in.st '{"z":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}' 1024
done_ok "stage decode" "$flis" stage decode $m -i in.st
shapes "stage decode" 'image F32 [1,3,64,64]'
tensors in.st '{"image":{"dtype":"F32","shape":[1,3,64,64],"data_offsets":[0,49152]}}' 49152
done_ok "stage encode" "$flis" stage encode $m -i in.st
shapes "stage encode" 'moments F32 [1,8,8,8]'
tensors in.st '{"ids":{"dtype":"I32","shape":[2,77],"data_offsets":[0,616]}}' 616
done_ok "stage clip" "$flis" stage clip $m -i in.st
shapes "stage clip" 'last_hidden_state F32 [2,77,48]'
h='{"x":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]},'
h=$h'"t":{"dtype":"I64","shape":[1],"data_offsets":[1024,1032]},'
h=$h'"context":{"dtype":"F32","shape":[1,77,48],"data_offsets":[1032,15816]}'
tensors in.st "$h}" 15816
done_ok "stage unet" "$flis" stage unet $m -i in.st --trace-match 'middle_block.1.*attn[2]'
shapes "stage unet" 'eps F32 [1,4,8,8]' 'middle_block.1.transformer_blocks.0.attn2 F32 [1,1,128]'
done_ok "stage unet --trace" \
    "$flis" stage unet $m -i in.st --trace out/t.st --trace-match '*attn2*' --trace-digest out/d.json
"$flis" info --diffable out/t.st >so 2>err
for line in 'middle_block.1.transformer_blocks.0.attn2.weights F32 [4,1,77]' \
    'middle_block.1.transformer_blocks.0.attn2.q F32 [4,1,32]' 'metadata command stage unet' 'tensors 144'; do
    is "stage unet --trace: $line" grep -qxF "$line" so
done
is "stage unet --trace: input's digest" has so '^metadata input.sha256 '
is "stage unet --trace-digest" has out/d.json '"name": "output_blocks.11.1.transformer_blocks.0.attn1.scores"'
"$flis" layout out/d.json >so 2>err
is "--trace-digest: JSON" has err 'text_label_mapping'
rm -f out/t.st out/d.json
shapes "stage unet --trace" 'tensors 1' 'eps F32 [1,4,8,8]'
h=$h',"label":{"dtype":"I64","shape":[1,16,16],"data_offsets":[15816,17864]},"class_ids":{"dtype":"F32","shape":[1,2],'
h=$h'"data_offsets":[17864,17872]}'
tensors in.st "$h}" 17872
done_ok "stage unet with a layout" "$flis" stage unet $m -i in.st
shapes "stage unet" 'eps F32 [1,4,8,8]'
h='{"size":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},'
h=$h'"context":{"dtype":"F32","shape":[1,77,48],"data_offsets":[8,14792]}}'
{ printf '\010\000\000\000\010\000\000\000'; dd if=/dev/zero bs=14784 count=1 2>/dev/null; } | tensors in.st "$h" -
done_ok "stage sample" \
    "$flis" stage sample $m -i in.st --steps 4 --scale 1 --sampler ddim --eta 0.5 --seed 7 --trace-match '*.time_embed'
shapes "stage sample" 'latents F32 [1,4,8,8]' 't I64 [4]' 'e_t F32 [4,4,8,8]' 'x_prev F32 [4,4,8,8]' \
    'pred_x0 F32 [4,4,8,8]' 'x F32 [4,4,8,8]' 'step.3.cond.time_embed F32 [1,128]'
broken "stage sample: uncond missing" '"uncond": missing' "$flis" stage sample $m -i in.st --steps 4

# ---- digest -----------------------------------------------------------------------------------------------------
# The bits must be the same on every machine, also in an empty directory. The first line that differs names the stage.
digest=$golden/digest.txt
"$flis" --version >so && has so 'double' && digest=$golden/digest64.txt
# same_digest NAME ARGUMENT…
same_digest() {
    name=$1
    shift
    done_ok "$name" "$flis" digest "$@"
    is "$name: every stage" diff "$digest" so
}
mkdir empty
cd empty || exit 1
same_digest "digest, 1 thread" --threads 1
cd .. || exit 1
same_digest "digest, 3 threads" --threads 3
same_digest "digest of the same weights from a file" -m model.safetensors
if command -v sha256sum >/dev/null; then
    is "digest: the last line" test "$(sed '$d' so | sha256sum | cut -d' ' -f1)" = "$(sed -n 's/^all  //p' so)"
fi
done_ok "digest of another model" "$flis" digest -m tinyB.safetensors
is "digest of another model: different bits" test "$(tail -n 1 so)" != "$(tail -n 1 "$digest")"

# ---- precision --------------------------------------------------------------------------------------------------
done_ok "precision" "$flis" precision -m model.safetensors --size 64 -q --json out/n.json --trace out/ref.st
is "precision: a line per tensor" grep -q '^unet.middle_block.1.transformer_blocks.0.attn2.weights	' so
for format in tf32 fp16 bf16; do is "precision: $format" grep -q "^unet	$format	[1-9]" so; done
is "precision: JSON" has out/n.json '"stage": "decode", "format": "bf16"'
"$flis" layout out/n.json >first 2>err
is "precision: valid JSON" has err 'text_label_mapping'
cp so first
done_ok "precision --truth" "$flis" precision -m model.safetensors --size 64 -q --truth out/ref.st
is "precision --truth: float32 is compared too" grep -q '^unet	f32	' so
is "precision --truth: no error against itself" grep -q '^unet	f32	[0-9]*	0	0	' so
is "precision --truth: the other formats are unchanged" test "$(grep '^[a-z]*	bf16	' so)" = "$(grep '^[a-z]*	bf16	' first)"
mv out/ref.st ref.st
rm -f out/*
# A bias of 100000, which is too large for fp16 but not for bf16.
"$flis" info model.safetensors >so 2>err
start=$(($(wc -c <model.safetensors) - $(sed -n 's/.* 0:[0-9]*-\([0-9]*\)$/\1/p' so | sort -n | tail -1)))
begin=$(sed -n 's/^model.diffusion_model.input_blocks.0.0.bias .* 0:\([0-9]*\)-.*/\1/p' so)
cp model.safetensors hot.safetensors
printf '\000\120\303\107' | dd of=hot.safetensors bs=1 seek=$((start + begin)) conv=notrunc 2>/dev/null
done_ok "precision: overflow" "$flis" precision -m hot.safetensors --size 64 -q --json hot.json
is "precision: fp16 overflows, first in this tensor" grep -q '^unet	fp16	.*	inf	.*	unet.input_blocks.0$' so
is "precision: bf16 does not" grep -q '^unet	bf16	.*	0	-$' so
is "precision: JSON has an infinity" has hot.json '"name": "unet.input_blocks.0", .*"fp16": {"not_finite": 64, "max": "Infinity"'
n="--size 64 -q --truth ref.st"
broken "precision --truth of another seed" 'its inputs differ' "$flis" precision -m model.safetensors $n --seed 7
broken "precision --truth of another model" 'another model' "$flis" precision -m tinyB.safetensors $n

# ---- conformance ------------------------------------------------------------------------------------------------
# bin/golden writes the committed vectors, the answers of flis pass, and wrong answers are reported by name.
writer=$(dirname "$synth")/golden
mkdir vectors
done_ok "golden" "$writer" vectors
for f in manifest.json inputs.safetensors outputs.safetensors; do is "golden: $f (make golden)" cmp -s vectors/$f "$golden/$f"; done
is "golden writes no other file" test "$(ls vectors | wc -l)" -eq 3
done_ok "golden --answers" "$writer" --answers answers.st
done_ok "conformance" "$flis" conformance answers.st --manifest "$golden"
is "conformance: none failed" has so '^[0-9]* passed, 0 failed, 0 missing of'
is "conformance: the manifest's digest" has so 'manifest [0-9a-f]\{16\}$'
is "conformance: the program that answered" has so 'made by flis'
done_ok "conformance --match" "$flis" conformance answers.st --manifest vectors --match 'op.*'
is "conformance --match: only these" test "$(grep -c '^pass *op[.]' so)" -eq "$(grep -c '^pass' so)"
cp answers.st wrong.st
# Changes the last byte, the end of the last tensor.
printf '\377' | dd of=wrong.st bs=1 seek=$(($(wc -c <answers.st) - 1)) conv=notrunc 2>/dev/null
run "$flis" conformance wrong.st --manifest vectors
is "conformance: a wrong value is exit 1" test $status = 1
is "conformance: one vector failed" has so ' passed, 1 failed, 0 missing of'
is "conformance: position and wanted value" has so 'got .* at \[.*wanted '
is "conformance: the mistake it points at" has so 'points at: '
run "$flis" conformance empty.st --manifest vectors
is "conformance: no answer is exit 1" test $status = 1
is "conformance: all missing" has so '^0 passed, 0 failed, [0-9]* missing of'
tensors zeros.st '{"op.silu/y":{"dtype":"F32","shape":[1,8,32],"data_offsets":[0,1024]}}' 1024
cp zeros.st nan.st
printf '\300\177' | dd of=nan.st bs=1 seek=$(($(wc -c <nan.st) - 2)) conv=notrunc 2>/dev/null
run "$flis" conformance nan.st --manifest vectors --match op.silu
is "conformance: NaN first" has so 'got -*nan at \[0,7,31\]'
tensors shape.st '{"op.silu/y":{"dtype":"F32","shape":[8,32],"data_offsets":[0,1024]}}' 1024
run "$flis" conformance shape.st --manifest vectors --match op.silu
is "conformance: a wrong shape" has so 'got the shape \[8,32\], wanted \[1,8,32\]'
wrong "conformance without a file" 'RESULTS.safetensors is missing' "$flis" conformance
wrong "conformance with two" 'unexpected argument' "$flis" conformance a b
broken "conformance of a missing file" 'absent.st' "$flis" conformance absent.st --manifest vectors
broken "conformance without a manifest" 'manifest.json' "$flis" conformance answers.st --manifest out
broken "conformance of no vector" 'no vector has an id' "$flis" conformance answers.st --manifest vectors --match 'none.*'
cp layout.json vectors/manifest.json
broken "conformance with another JSON" 'wanted a manifest' "$flis" conformance answers.st --manifest vectors
wrong "golden without a folder" 'DIR or --answers FILE.safetensors is missing' "$writer"
broken "golden into a missing folder" 'absent' "$writer" absent
broken "golden into a file" 'merges.txt: is a file, wanted a folder' "$writer" merges.txt
rm -rf vectors

# ---- bench ------------------------------------------------------------------------------------------------------
bench=$(dirname "$synth")/bench
done_ok "bench --help" "$bench" --help
wrong "bench: an unknown part" "^bench: invalid value 'peak,nothing' for --only" "$bench" --only peak,nothing
wrong "bench: no runs" "^bench: invalid value '0' for --runs" "$bench" --runs 0
wrong "bench: a list with an empty item" "^bench: invalid value '1,,2' for --threads" "$bench" -t 1,,2
wrong "bench: a size that the network cannot have" "^bench: invalid value '100' for --sizes" "$bench" --sizes=100
wrong "bench: two sizes of network" 'exclude each other' "$bench" --small --full
broken "bench: a missing model" 'nosuch' "$bench" -m nosuch
broken "bench: no such operation" 'no operation.s line contains zzz' "$bench" --small --only kernels --match zzz
TMPDIR=$dir/out done_ok "bench" "$bench" --small --only peak,clip,unet,vae,load --runs 1 -t 1 --sizes=64 --json
is "bench: the temporary model is gone" test -z "$(ls -A out)"
for part in peak clip unet vae load; do is "bench: $part" has so "\"part\": \"$part\""; done
is "bench: fractions of the peak" has so '"unet".*"of_peak": 0\.[0-9]'
cp so bench.json
"$flis" layout bench.json >so 2>err
is "bench: valid JSON" has err 'text_label_mapping'
done_ok "bench: one operation" "$bench" --small --only kernels --match 'conv 3x3 up 8x8' --runs 1 -t 1
is "bench: its line" test "$(grep -c '^conv 3x3 up 8x8 .* %$' so)" = 1
done_ok "bench of a model" "$bench" -m model.safetensors --only clip --runs 2 -t 1
is "bench of a model: memory" has so '^clip  *[0-9]'

# ---- compare ----------------------------------------------------------------------------------------------------
# Small tensors whose values are digits 1 to 8 (n: NaN), as float32.
compare=$(dirname "$synth")/compare
floats() {
    for d in $1; do
        case $d in
        1) printf '\000\000\200\077' ;; 2) printf '\000\000\000\100' ;; 3) printf '\000\000\100\100' ;; 4) printf '\000\000\200\100' ;;
        5) printf '\000\000\240\100' ;; 6) printf '\000\000\300\100' ;; 7) printf '\000\000\340\100' ;; 8) printf '\000\000\000\101' ;;
        n) printf '\000\000\300\177' ;; *) printf '\000\000\000\000' ;;
        esac
    done
}
# digits HOW: 2 channels of 8 x 8, right or with a mistake
digits() {
    awk -v how="$1" 'function at(c, y, x) { return 1 + int((c * 64 + y * 8 + x + 1) * 7919 % 1009 / 1009 * 4) }
    BEGIN { for (c = 0; c < 2; c++) for (y = 0; y < 8; y++) for (x = 0; x < 8; x++) {
        v = at(c, y, x)
        if (how == "swapped") v = at(c, x, y)
        if (how == "shifted") v = x ? at(c, y, x - 1) : 1
        if (how == "twice") v = 2 * v
        if (how == "channels") v = at(1 - c, y, x)
        if (how == "nan" && c + y + x == 0) v = "n"
        print v } }' | tr '\n' ' '
}
one='{"a.b":{"dtype":"F32","shape":[1,2,8,8],"data_offsets":[0,512]}}'
for how in right swapped shifted twice channels nan; do floats "$(digits $how)" | tensors $how.st "$one" -; done
# finds HOW PATTERN: the trace differs, and the report matches
finds() {
    run "$compare" right.st $1.st
    if [ $status = 1 ] && grep -q '^first wrong: *a\.b' so && grep -q -e "$2" so; then pass
    else fail "compare: $1: exit $status, wanted 1 and \"$2\""; sed 's/^/    /' so | tail -5; fi
}
done_ok "compare with itself" "$compare" right.st right.st
is "compare: no tensor differs" has so '1 compared, 0 differ'
done_ok "compare -q" "$compare" -q right.st right.st
is "compare -q: no output" test ! -s so
finds swapped 'H and W'
finds shifted 'shifted by one along W'
finds twice 'factor of 2'
finds channels 'mirrored along C'
finds nan 'not finite\|NaN'
tensors shape.st '{"a.b":{"dtype":"F32","shape":[2,1,8,8],"data_offsets":[0,512]}}' 512
run "$compare" right.st shape.st
is "compare: another shape is a difference" test $status = 1
tensors none.st '{"c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 4
run "$compare" right.st none.st
is "compare: no common name is exit 2" test $status = 2
tensors more.st '{"a.b":{"dtype":"F32","shape":[1,2,8,8],"data_offsets":[0,512]},"c":{"dtype":"F32","shape":[1],"data_offsets":[512,516]}}' 516
run "$compare" more.st shape.st
is "compare: a missing tensor is a difference" test $status = 1
tensors half.st '{"a.b":{"dtype":"F64","shape":[1,2,8,8],"data_offsets":[0,1024]}}' 1024
run "$compare" right.st half.st
is "compare: another dtype is compared" has so 'a\.b'
is "compare: zeros are wrong" test $status = 1
run "$compare" --relative 10 right.st twice.st
is "compare --relative: within" test $status = 0
run "$compare" --match 'c*' right.st twice.st
is "compare --match: nothing to compare is exit 2" test $status = 2
run "$compare" --json right.st swapped.st
is "compare --json" has so '"first_wrong": "a.b"'
run "$compare" --html page.html right.st swapped.st
is "compare --html is still a difference" test $status = 1
is "compare --html: a plot" has page.html '<circle'
is "compare --html: the diagnosis" has page.html 'looks like'
is "compare --html: no external resource" sh -c '! grep -q "src=\|href=" page.html'
tensors named.st '{"<b>":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 4
done_ok "compare --html of a strange name" "$compare" --html page.html named.st named.st
is "compare --html: names are escaped" has page.html '&lt;b&gt;'
run "$compare" right.st absent.st
is "compare: an error is exit 2" test $status = 2
is "compare: one sentence" test "$(lines err)" = 1
run "$compare" right.st
is "compare of one file is exit 2" test $status = 2
is "compare of one file: what is missing" has err '^compare: OTHER.safetensors is missing (see compare --help)$'
wrong "compare without a file" '^compare: REF.safetensors is missing' "$compare"
run "$compare" right.st out
is "compare with a folder" has err '^compare: out: is a folder, wanted a file$'
run "$compare" --html out/no/page.html right.st right.st
is "compare --html that cannot be written is exit 2" test $status = 2

# ---- Other programs ---------------------------------------------------------------------------------------------
bin=$(dirname "$synth")
wrong "synth without a file" '^synth: OUT.safetensors is missing' "$synth" tinyA
wrong "ckpt2safetensors without a file" '^ckpt2safetensors: IN.ckpt is missing' "$bin/ckpt2safetensors"
broken "ckpt2safetensors of a folder" 'folder: is a folder, wanted a file' "$bin/ckpt2safetensors" folder out/o.st
wrong "learnbpe without a text" '^learnbpe: TEXTFILE is missing' "$bin/learnbpe" 4
wrong "paper without a model" '^paper: --plain FILE is missing' "$bin/paper" --output out/page.html
broken "paper: the files first" 'merges.st: cannot be opened' "$bin/paper" --vocab merges.txt --model model.safetensors --plain merges.st --segmenter empty.st --workers 1 --output out/page.html
wrong "world without an output" '--sheet FILE.png, --coco DIR, --captions N or --classes is missing' "$bin/world"
broken "world into a file" '^world: merges.txt: is a file, wanted a folder$' "$bin/world" --output merges.txt
broken "world: a folder for a sheet" '^world: folder: is a folder' "$bin/world" --sheet folder --count 4000
wrong "evaluate without a command" '^evaluate: a command is missing: miou' "$bin/evaluate"
wrong "evaluate miou without files" '^evaluate miou: --predicted FILES is missing' "$bin/evaluate" miou --truth out
wrong "evaluate segment without an output" '-o DIR or --features FILE is missing' "$bin/evaluate" segment empty.st --pictures out
broken "evaluate: the command in the message" '^evaluate frechet: absent.st: cannot be opened' "$bin/evaluate" frechet absent.st absent.st
"$bin/evaluate" --help >so
is "evaluate --help: the commands of an option" has so ' segment, attributes: 8-bit pictures'
"$bin/evaluate" frechet --help >so
is "evaluate frechet --help: only what it has" test "$(grep -c 'FILES\|frechet:' so)" = 0
# Default files are found from another folder.
mkdir elsewhere installed installed/bin installed/models
cp merges.txt installed/models/vocab.txt
cp "$bin/train" installed/bin/
cd elsewhere || exit 1
run ../installed/bin/train latents --model absent.st -o x.st
cd .. || exit 1
is "train: the vocabulary beside the program's folder" has elsewhere/err 'absent.st: cannot be opened'

# ---- All programs -----------------------------------------------------------------------------------------------
# -h, --help, --version, and one message for an unknown option.
every_program() {
    for path in "$flis" "$(dirname "$synth")"/*; do
        program=$(basename "$path")
        case $program in flis*) program=flis ;; esac
        for option in -h --help; do
            done_ok "$program $option" "$path" $option
            is "$program $option: usage" has so "^usage: $program "
            is "$program $option: nothing on stderr" test ! -s err
            is "$program $option: at most 116 columns" test -z "$(awk 'length > 116' so)"
        done
        done_ok "$program --version" "$path" --version
        is "$program --version: its line" has so "^$program [0-9]"
        wrong "$program: an unknown option" "^$program: unknown option --frobnicate.*(see $program --help)\$" \
            "$path" --frobnicate=1
    done
}
every_program

# ---- The end ----------------------------------------------------------------------------------------------------
rm -f err
is "no temporary file left" test -z "$(ls -A out; ls | grep partial)"
line="$passed passed, $failed failed"
echo "command line: $line"
[ -z "$counts" ] || echo "$line" >"$counts"
[ $failed = 0 ]
