#!/bin/sh
# train.sh TRAIN WORLD EVALUATE FLIS [COUNTS]: training as people run it, in its smallest form: every stage, the same bits
# however often it was stopped and with any number of threads, folders of pictures, refusals, and that a model comes out.
# Prints one line per failed check and "N passed, N failed"; the same line goes to the file COUNTS, for the runner.
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
[ $# -ge 4 ] || { echo "usage: train.sh TRAIN WORLD EVALUATE FLIS [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
train=$(absolute "$1") world=$(absolute "$2") evaluate=$(absolute "$3") flis=$(absolute "$4") counts=${5:+$(absolute "$5")}
vocab=$(cd "$(dirname "$0")/../.." && pwd)/models/vocab.txt
[ -z "$counts" ] || rm -f "$counts"
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-train.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1

passed=0 failed=0
# ok NAME COMMAND…: exit 0
ok() {
    name=$1
    shift
    if "$@" >so 2>err; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL train: $name"
        head -3 err | sed 's/^/    stderr: /'
    fi
}
# fails NAME STATUS PATTERN COMMAND…: that status, and one sentence that matches
fails() {
    name=$1 wanted=$2 pattern=$3
    shift 3
    "$@" >so 2>err
    status=$?
    if [ $status = "$wanted" ] && [ "$(wc -l <err | tr -d ' ')" = 1 ] && grep -q -e "$pattern" err; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL train: $name: exit $status, wanted $wanted and one sentence with \"$pattern\""
        head -3 err | sed 's/^/    stderr: /'
    fi
}
missing() { [ ! -e "$1" ]; }

# ---- The same bits -----------------------------------------------------------------------------------------------
small="--batch 1 --steps 30 --warmup 5 -q"
ok "segmenter, one thread" "$train" segmenter -o a.safetensors $small --threads 1
ok "segmenter, three threads" "$train" segmenter -o b.safetensors $small --threads 3
ok "threads do not matter" cmp a.safetensors b.safetensors
ok "stopped at the first log line" "$train" segmenter -o c.safetensors $small --minutes 0.00001
ok "a stopped training writes no model" missing c.safetensors
ok "but its state" test -s c.safetensors.state
ok "and its log: step 25" grep -q '^25	' c.safetensors.tsv
ok "resumed" "$train" segmenter -o c.safetensors $small --resume
ok "resuming gives the same model" cmp a.safetensors c.safetensors
ok "the same state" cmp a.safetensors.state c.safetensors.state
ok "and the same log" cmp a.safetensors.tsv c.safetensors.tsv
ok "the plot is SVG" grep -q '<polyline' a.safetensors.svg
fails "resuming with other options" 1 'its options were "segmenter seed 0 batch 1' "$train" segmenter -o c.safetensors $small --seed 1 --resume
fails "resuming from nothing" 1 'cannot be opened' "$train" segmenter -o d.safetensors $small --resume
ok "a seed is another model" "$train" segmenter -o d.safetensors --batch 1 --steps 1 -q --seed 1
fails "the same bits for another seed" 1 'differ' sh -c '"$0" segmenter -o e.safetensors --batch 1 --steps 1 -q && cmp d.safetensors e.safetensors >&2' "$train"

# A batch that is dealt out: the same sum in another order, so the losses are the same within 1e-7 (found 6e-9), and the norms of their
# gradients within 1e-6 (found 9.5e-8); with any number of threads, and stopped or not, the same bits.
first_line() { sed -n 2p "$1.safetensors.tsv"; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { split(a, x); split(b, y); exit !(x[2] > 0 && (x[2] - y[2]) ^ 2 < (1e-7 * x[2]) ^ 2 && (x[3] - y[3]) ^ 2 < (1e-6 * x[3]) ^ 2) }'; }
ok "a batch of three" "$train" segmenter -o h1.safetensors --batch 3 --steps 1 -q
ok "two workers" "$train" segmenter -o h2.safetensors --batch 3 --steps 1 -q --workers 2
ok "see the same batch" near "$(first_line h1)" "$(first_line h2)"
ok "two crops' scenes" "$train" vae -o v1.safetensors --batch 4 --crop 32 --steps 1 -q
ok "in two workers" "$train" vae -o v2.safetensors --batch 4 --crop 32 --steps 1 -q --workers 2
ok "are the same too" near "$(first_line v1)" "$(first_line v2)"
workers="--batch 3 --workers 2 --steps 30 --warmup 5 -q"
ok "two workers, one thread" "$train" segmenter -o h3.safetensors $workers --threads 1
ok "two workers, three threads, stopped" "$train" segmenter -o h4.safetensors $workers --threads 3 --minutes 0.00001
ok "and resumed" "$train" segmenter -o h4.safetensors $workers --threads 2 --resume
ok "give the same model" cmp h3.safetensors h4.safetensors
fails "resuming with other workers" 1 'workers 2", wanted' "$train" segmenter -o h4.safetensors --batch 3 --steps 30 --warmup 5 -q --resume
fails "more workers than samples" 1 'more than the 3 parts' "$train" segmenter -o x.safetensors --batch 3 --workers 4 --steps 1

# ---- All stages --------------------------------------------------------------------------------------------------
ok "vae" "$train" vae -o vae.safetensors --batch 2 --steps 2 -q
ok "vae from an earlier one, smaller crops" "$train" vae --start vae.safetensors -o vae2.safetensors --batch 2 --crop 32 --steps 1 -q
ok "no loss of colours" "$train" vae -o vae3.safetensors --batch 2 --colours 0 --steps 2 -q
ok "is another model" sh -c '! cmp -s vae.safetensors vae3.safetensors'
ok "things that count more" "$train" vae -o vae5.safetensors --batch 2 --things-weight 3 --steps 2 -q
ok "make another model" sh -c '! cmp -s vae.safetensors vae5.safetensors'
fails "resuming with things that count more" 1 'wanted ".* things weight 2"' "$train" vae -o vae5.safetensors --batch 2 --things-weight 2 --steps 3 -q --resume
ok "things that count as much" "$train" vae -o vae5.safetensors --batch 2 --things-weight 1 --steps 2 -q
ok "make the same" cmp vae.safetensors vae5.safetensors
ok "vae, the decoder alone" "$train" vae --start vae.safetensors --frozen-encoder -o vae4.safetensors --batch 2 --steps 2 -q
ok "is another model too" sh -c '! cmp -s vae.safetensors vae4.safetensors'
ok "segmenter, from an earlier one, through an autoencoder" "$train" segmenter --start a.safetensors --model vae4.safetensors -o f.safetensors \
    --batch 2 --steps 2 -q
ok "segmenter, dealt out" "$train" segmenter --start a.safetensors --model vae4.safetensors -o fh.safetensors --batch 2 --steps 2 -q --workers 2
ok "sees the same scenes through the autoencoder" near "$(first_line f)" "$(first_line fh)"
ok "segmenter, without" "$train" segmenter --start a.safetensors -o g.safetensors --batch 2 --steps 2 -q
ok "is another one" sh -c '! cmp -s f.safetensors g.safetensors'
ok "and holds no autoencoder" sh -c '[ "$(wc -c <f.safetensors)" = "$(wc -c <g.safetensors)" ]'
ok "latents of the one" "$train" latents --model vae.safetensors --vocab "$vocab" --set anything --count 2 -o la.safetensors -q
ok "and of the other" "$train" latents --model vae4.safetensors --vocab "$vocab" --set anything --count 2 -o lb.safetensors -q
ok "are the same" cmp la.safetensors lb.safetensors
ok "latents of captions" "$train" latents --model vae.safetensors --vocab "$vocab" --count 3 -o t.safetensors -q
ok "latents of layouts" "$train" latents --model vae.safetensors --vocab "$vocab" --set layout --count 3 -o l.safetensors -q
ok "text2image" "$train" text2image --model vae.safetensors --vocab "$vocab" --latents t.safetensors -o plain.safetensors --batch 2 --steps 2 -q
ok "text2image from an earlier one" "$train" text2image --model vae.safetensors --start plain.safetensors --vocab "$vocab" \
    --latents t.safetensors -o on.safetensors --batch 2 --steps 1 -q
ok "latents of phrases" "$train" latents --model vae.safetensors --vocab "$vocab" --set phrases --count 3 -o w.safetensors -q
ok "text2image on windows" "$train" text2image --model vae.safetensors --vocab "$vocab" --latents w.safetensors --window 8 --frozen-text \
    -o words.safetensors --batch 2 --steps 1 -q
ok "text2image with an earlier one's text encoder" "$train" text2image --model vae.safetensors --start plain.safetensors --frozen-text \
    --vocab "$vocab" --latents w.safetensors --window 8 -o more.safetensors --batch 2 --steps 2 -q
ok "text2image on windows around things" "$train" text2image --model vae.safetensors --start words.safetensors --frozen-text \
    --vocab "$vocab" --latents w.safetensors --window 8 --things -o things.safetensors --batch 2 --steps 1 -q
ok "which are named alone" "$train" text2image --model vae.safetensors --start words.safetensors --frozen-text \
    --vocab "$vocab" --latents w.safetensors --window 8 --things --alone 1 -o alone.safetensors --batch 2 --steps 1 -q
ok "is another model again" sh -c '! cmp -s things.safetensors alone.safetensors'
fails "resuming with fewer of them" 1 'alone 1", wanted' "$train" text2image --model vae.safetensors --start words.safetensors --frozen-text \
    --vocab "$vocab" --latents w.safetensors --window 8 --things --alone 0.5 -o alone.safetensors --batch 2 --steps 2 -q --resume
digest_of() { "$flis" digest -m "$1.safetensors" --vocab "$vocab" | grep "^$2 "; }
ok "which stays" [ "$(digest_of plain clip)" = "$(digest_of more clip)" ]
ok "while the U-Net learns" [ "$(digest_of plain ddim.0.cond.eps)" != "$(digest_of more ddim.0.cond.eps)" ]
ok "layout on windows" "$train" layout --model plain.safetensors --vocab "$vocab" --latents l.safetensors --window 8 -o parts.safetensors \
    --batch 2 --steps 1 -q
ok "layout" "$train" layout --model plain.safetensors --vocab "$vocab" --latents l.safetensors -o tuned.safetensors --batch 2 --steps 2 -q
ok "layout, dealt out" "$train" layout --model plain.safetensors --vocab "$vocab" --latents l.safetensors -o dealt.safetensors \
    --batch 2 --steps 2 -q --workers 2
ok "is the same but for rounding" near "$(first_line tuned)" "$(first_line dealt)"
ok "layout, blocks computed twice" "$train" layout --model plain.safetensors --vocab "$vocab" --latents l.safetensors -o twice.safetensors \
    --batch 2 --steps 2 -q --less-memory
ok "is the same" cmp tuned.safetensors twice.safetensors
ok "the world writes a folder" "$world" --set layout --count 2 -o data
ok "and its classes" sh -c '"$0" --classes >data/classes.txt' "$world"
ok "layout from a folder" "$train" layout --model plain.safetensors --vocab "$vocab" --data data --size 64 -o folder.safetensors --batch 1 --steps 2 -q
ok "text2image from a folder" "$train" text2image --model vae.safetensors --vocab "$vocab" --data data --size 64 -o words.safetensors --batch 1 \
    --steps 1 -q
ok "a picture comes out" "$flis" generate -m tuned.safetensors --vocab "$vocab" -j data/layouts/000000.json --size 128x128 --steps 2 -o p.png -q
mkdir found
ok "segmenter finds labels" "$evaluate" segment a.safetensors --pictures data/pictures -o found --features features.safetensors
ok "which are label maps" "$evaluate" miou --truth data/labels --predicted found --void 0 --modulo 100
ok "and features" "$evaluate" frechet features.safetensors features.safetensors

# ---- Refusals ----------------------------------------------------------------------------------------------------
fails "no stage" 2 'wanted a stage' "$train"
fails "another stage" 2 'not a stage' "$train" unet
fails "no output" 2 'wanted -o' "$train" vae
fails "no model" 2 'wanted --model' "$train" layout -o x
fails "no data" 2 'wanted --latents FILE or --data' "$train" layout --model plain.safetensors -o x
fails "a start that is no autoencoder" 1 'missing' "$train" vae --start a.safetensors -o x.safetensors --steps 1
fails "a frozen encoder from nothing" 2 '--frozen-encoder' "$train" vae -o x --frozen-encoder
fails "a start for layouts" 2 '--start' "$train" layout --model plain.safetensors --start plain.safetensors --latents l.safetensors -o x
fails "crops that are no multiple of 8" 2 '--crop' "$train" vae -o x --crop 12
fails "windows that are no multiple of 8" 2 '--window' "$train" layout --model plain.safetensors --latents l.safetensors -o x --window 12
fails "things of whole scenes" 2 '--things' "$train" layout --model plain.safetensors --latents l.safetensors -o x --things
fails "a phrase alone of whole scenes" 2 '--alone' "$train" text2image --model vae.safetensors --latents t.safetensors -o x --alone 0.5
fails "a phrase alone for layouts" 2 '--alone' "$train" layout --model plain.safetensors --latents l.safetensors -o x --window 8 --alone 0.5
fails "a phrase alone of windows as large as scenes" 1 'smaller than its 16 x 16' "$train" text2image --model vae.safetensors --vocab "$vocab" \
    --latents w.safetensors --window 16 --alone 0.5 -o x.safetensors --batch 1 --steps 1
fails "fewer alone than a hundredth" 2 '--alone' "$train" text2image --model vae.safetensors --latents w.safetensors -o x --window 8 --alone 0.001
fails "things that count nothing" 2 '--things-weight' "$train" vae -o x --things-weight 0
fails "things of no pictures" 2 '--things-weight' "$train" segmenter -o x --things-weight 2
fails "windows of a folder" 2 '--latents' "$train" layout --model plain.safetensors --data data -o x --window 8
fails "windows of sentences" 1 'no places' "$train" text2image --model vae.safetensors --vocab "$vocab" --latents t.safetensors --window 8 -o x
fails "no such option" 2 'not an option' "$train" vae -o x --fast
fails "no number" 2 'its value is not one' "$train" vae -o x --steps many
fails "no workers" 2 'wanted 1 to 256 --workers' "$train" vae -o x --workers 0
fails "workers for latents" 2 'wanted 1 to 256 --workers' "$train" latents --model vae.safetensors -o x --workers 2
fails "no such set" 2 'not a set' "$train" vae -o x --set photos
fails "no steps" 2 'at least 1 step' "$train" vae -o x --steps 0
fails "latents that are none" 1 'wanted a file of latents' "$train" layout --model plain.safetensors --vocab "$vocab" --latents vae.safetensors -o x.safetensors
fails "no folder" 1 'no such folder' "$train" layout --model plain.safetensors --vocab "$vocab" --data nowhere -o x.safetensors
rm -r data/labels
fails "no labels" 1 'labels' "$train" layout --model plain.safetensors --vocab "$vocab" --data data --size 64 -o x.safetensors --batch 1 --steps 1 -q
ok "nothing half-written" missing x.safetensors
ok "help" sh -c '"$0" --help | grep -q usage' "$train"

line="$passed passed, $failed failed"
echo "training: $line"
[ -z "$counts" ] || echo "$line" >"$counts"
[ $failed = 0 ]
