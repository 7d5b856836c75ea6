#!/bin/sh
# train.sh [quick|full] TRAIN WORLD EVALUATE FLIS [COUNTS]: tests training from the command line: the same bits with any number
# of threads, and if stopped and resumed; workers; every stage; folders of pictures; refusals; no incomplete files.
#   quick   each kind of check on its smallest case: crops of 8 pixels, batches of 1, weights from models/ (half a minute
#           with sanitizers)
#   full    quick's checks and all others (the default): the stages from new weights, every option (half an hour with
#           sanitizers)
# Prints one line per failed check and "N passed, N failed"; the same line goes to the file COUNTS, for the runner.
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
level=full
case ${1:-} in quick | full) level=$1 && shift ;; esac
[ $# -ge 4 ] || { echo "usage: train.sh [quick|full] TRAIN WORLD EVALUATE FLIS [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
train=$(absolute "$1") world=$(absolute "$2") evaluate=$(absolute "$3") flis=$(absolute "$4") counts=${5:+$(absolute "$5")}
models=$(cd "$(dirname "$0")/../.." && pwd)/models
vocab=$models/vocab.txt shipped=$models/flis-small.safetensors
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
# fails NAME STATUS PATTERN COMMAND…: that status, and one message that matches
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
# Every option of a program's help that takes a value names its default, or is one of those that must be given.
tells_defaults() {
    "$@" --help | awk '/^  -.,|^      --|^$/ { if (open) print name; name = $0; open = /--[a-z-]* [A-Z]/ && !/--(output|model|latents|data) / }
        /default/ { open = 0 }' >untold
    [ ! -s untold ] || { cat untold >&2; false; }
}
silent() { "$@" >silence 2>&1 && [ ! -s silence ]; }
prints() { pattern=$1 && shift && "$@" >printed 2>&1 && grep -q -e "$pattern" printed; }
# Compares two lines of logs: the relative difference of the losses is below 1e-7, that of the gradient norms below 1e-6.
first_line() { sed -n 2p "$1.safetensors.tsv"; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { split(a, x); split(b, y); exit !(x[2] > 0 && (x[2] - y[2]) ^ 2 < (1e-7 * x[2]) ^ 2 && (x[3] - y[3]) ^ 2 < (1e-6 * x[3]) ^ 2) }'; }
digest_of() { "$flis" digest -m "$1.safetensors" --vocab "$vocab" | grep "^$2 "; }

# ---- Quick -------------------------------------------------------------------------------------------------------
quick() {
    mkdir quick && cd quick || exit 1
    decoder="--start $shipped --frozen-encoder"
    ok "decoder, one thread" silent "$train" vae $decoder -o a.safetensors --batch 4 --crop 8 --steps 2 -q --threads 1
    ok "decoder, three threads" silent "$train" vae $decoder --output=b.safetensors --batch=4 --crop=8 --steps=2 -q --threads=3
    ok "threads do not matter" cmp a.safetensors b.safetensors
    ok "two workers" "$train" vae $decoder -o c.safetensors --batch 4 --crop 8 --steps 2 -q --workers 2
    ok "process the same batch" near "$(first_line a)" "$(first_line c)"
    ok "another seed" "$train" vae $decoder -o d.safetensors --batch 4 --crop 8 --steps 2 -q --seed 1
    ok "is another model" sh -c '! cmp -s a.safetensors d.safetensors'
    smallest="--batch 1 --crop 8 --steps 26"
    ok "progress is a line at the end" prints '^vae 26/26, .*, loss [0-9.]*, gradient norm [0-9.]*$' "$train" vae $decoder -o e.safetensors $smallest
    ok "stopped after the first step" prints '^train vae: stopped at step 1; --resume continues$' \
        "$train" vae $decoder -o f.safetensors $smallest --minutes 0.00001
    ok "and no model is written" missing f.safetensors
    ok "resumed" silent "$train" vae $decoder -o f.safetensors $smallest --resume -q
    for end in '' .state .tsv .svg; do ok "resuming gives the same OUT$end" cmp e.safetensors$end f.safetensors$end; done
    ok "the log has two lines" [ "$(wc -l <e.safetensors.tsv | tr -d ' ')" = 3 ]
    ok "the plot is SVG" grep -q '<polyline' e.safetensors.svg
    fails "resuming with other options" 1 'its options were "vae seed 0 batch 1' "$train" vae $decoder -o f.safetensors $smallest --seed 1 --resume
    ok "the whole autoencoder, one step" "$train" vae --start "$shipped" -o g.safetensors $smallest -q --minutes 0.00001
    ok "which has trained the encoder" [ "$(wc -c <g.safetensors.state)" -gt "$(wc -c <f.safetensors.state)" ]
    ok "segmenter" "$train" segmenter -o s.safetensors --batch 1 --steps 1 -q
    ok "latents" "$train" latents --model "$shipped" --vocab "$vocab" --set phrases --count 1 -o l.safetensors -q
    window="--vocab $vocab --latents l.safetensors --window 8 --batch 1 --steps 1 -q"
    ok "text2image" "$train" text2image --model "$shipped" $window -o t.safetensors
    ok "layout" "$train" layout --model t.safetensors $window -o y.safetensors
    ok "layout, blocks computed twice" "$train" layout --model t.safetensors $window -o twice.safetensors --less-memory
    ok "is the same" cmp y.safetensors twice.safetensors
    ok "the world writes a folder" "$world" --set layout --count 1 -o data
    ok "and its classes" sh -c '"$0" --classes >data/classes.txt' "$world"
    ok "layout from a folder" "$train" layout --model t.safetensors --vocab "$vocab" --data data --size 64 -o folder.safetensors --batch 1 --steps 1 -q
    ok "a picture comes out" "$flis" generate -m folder.safetensors --vocab "$vocab" -j data/layouts/000000.json --size 64x64 --steps 1 -o p.png -q
    fails "windows with a folder of pictures" 2 '--window needs --latents' "$train" layout --model t.safetensors --data data -o x --window 8
    fails "a file that has no latents" 1 'wanted a file of latents' "$train" layout --model t.safetensors --vocab "$vocab" --latents t.safetensors -o x.safetensors
    field
    datasets
    watching
    ok "no incomplete file" sh -c 'set -- *.partial x*; [ "$*" = "*.partial x*" ]'
    cd ..
}

# ---- What people have --------------------------------------------------------------------------------------------
# Data that cannot be learned from is refused before the first step, and leaves no file; a state goes on with its own data only.
# with FILE TEXT COMMAND…: runs the command while FILE of the folder "data" has this text
with() {
    file=$1
    cp "$file" kept && printf "$2" >"$file"
    shift 2
    "$@"
    status=$?
    mv kept "$file"
    return $status
}
field() {
    "$world" --set layout --count 3 -o data -q
    layout="layout --model t.safetensors --vocab $vocab --data data --size 64 --batch 1 --steps 1"
    first=data/pictures/000001.png map=data/labels/000002.png
    with data/classes.txt '0: unlabeled\n' fails "classes of COCO-Stuff's labels.txt" 1 'data/classes.txt:1: got "0: unlabeled", wanted a label from 0 to 255, a tab and a name' \
        "$train" $layout -o x.safetensors
    with $first 'no picture' fails "a broken picture" 1 '000001.png: got a file that is no PNG, wanted a picture' "$train" $layout -o x.safetensors
    with $map 'no map' fails "a broken label map" 1 '^train layout: data/labels/000002.png: ' "$train" $layout -o x.safetensors
    mv $map map.png
    fails "a picture without a label map" 1 'data/labels/000002.png: cannot be opened' "$train" $layout -o x.safetensors
    mv map.png $map
    mv $first picture.png && ln -s /dev/null $first
    fails "a picture that is no file" 1 'data/pictures/000001.png: is not a regular file' "$train" $layout -o x.safetensors
    mv picture.png $first
    fails "the log over a picture" 1 'data/pictures/000001.png: the output is the input' "$train" $layout -o x.safetensors --log $first
    head -200 "$vocab" >other.txt
    fails "a vocabulary of another size" 1 'other.txt: got a vocabulary of [0-9]* tokens, wanted 1000, as many as the text encoder of t.safetensors has' \
        "$train" layout --model t.safetensors --vocab other.txt --data data --size 64 --steps 1 -o x.safetensors
    fails "for --start, too" 1 'other.txt: got a vocabulary of' "$train" text2image --model t.safetensors --start t.safetensors --vocab other.txt \
        --data data --size 64 --batch 1 --steps 1 -o x.safetensors
    fails "latents of another vocabulary" 1 'l.safetensors: sample 0: its tokens begin with 998 and end with 999, wanted' \
        "$train" text2image --model t.safetensors --vocab other.txt --latents l.safetensors -o x.safetensors
    ok "no file is left of those" missing x.safetensors.state
    ok "a step" "$train" $layout -o r.safetensors --steps 9 --minutes 0.00001 -q
    ok "files that are not used are named" prints 'train layout: warning: data/pictures: 1 file is not used, .*: a.gif$' \
        sh -c 'train=$1 && shift && : >data/pictures/a.gif && "$train" "$@"' sh "$train" $layout -o r.safetensors --steps 1 --minutes 0.00001 --resume
    rm data/pictures/a.gif r.safetensors
    cp $map map.png && echo >>$map && cp data/labels/000000.png other.png && echo >>data/labels/000000.png
    ok "a warning of label maps is one line" prints '000000.png: 1 bytes behind its end are ignored (the first of 2 samples with a warning)$' \
        "$train" $layout -o w.safetensors
    ok "also while it trains" [ "$(grep -c warning printed)" = 1 ]
    mv map.png $map && mv other.png data/labels/000000.png
    ok "an unfinished state is not replaced without a word" prints 'r.safetensors.state: is the state of a training that is not finished' \
        "$train" $layout -o r.safetensors --steps 9 --minutes 0.00001
    ok "other --steps are named" prints 'warning: r.safetensors.state: its training had --steps 9, now it is 8' \
        "$train" $layout -o r.safetensors --steps 8 --minutes 0.00001 --resume
    with $first "$(printf 'P6')" fails "resuming needs its data as well" 1 'wanted a binary PPM' "$train" $layout -o r.safetensors --steps 9 --resume
    cp $first picture.png && cp data/pictures/000000.png $first
    fails "resuming with another picture" 1 'r.safetensors.state: its training had another --data: got data with SHA-256' \
        "$train" $layout -o r.safetensors --steps 9 --resume
    mv picture.png $first
    fails "resuming with another model" 1 'its training had another --model: got y.safetensors with SHA-256' \
        "$train" layout --model y.safetensors --vocab "$vocab" --data data --size 64 --batch 1 -o r.safetensors --steps 9 --resume
    { cat "$vocab"; echo; } >copy.txt
    fails "resuming with another vocabulary" 1 'its training had another --vocab: got copy.txt with SHA-256' \
        "$train" layout --model t.safetensors --vocab copy.txt --data data --size 64 --batch 1 -o r.safetensors --steps 9 --resume
    ok "resuming with its own" "$train" $layout -o r.safetensors --steps 9 --resume -q
    # A step of this takes far longer than a second. It is left in the middle, or the weights are not made yet.
    "$train" vae -o s0.safetensors --batch 24 --crop 128 --steps 1 2>stopped &
    running=$!
    sleep 1
    kill -TERM $running
    wait $running
    ok "a signal does not wait for the end of a step" grep -q 'stopped at step 0; --resume continues$\|interrupted$' stopped
}

# ---- The authors' data sets --------------------------------------------------------------------------------------
# The folder "data" in ADE20K's structure, which has classes 1 to 150: the small world's labels are below 100, or void.
datasets() {
    mkdir -p ade/annotations/training ade/images/training
    for i in 0 1 2; do
        cp data/pictures/00000$i.png ade/images/training/ && cp data/labels/00000$i.p* ade/annotations/training/
    done
    printf 'images/training/00000%d.png\n' 0 1 >ade/list.txt
    echo "$PWD/ade/images/training/000002.png" >>ade/list.txt
    ade="layout --recipe authors --model t.safetensors --vocab $vocab --dataset ade20k --data_root ade --train_txt_file ade/list.txt --size 64"
    ok "the authors' recipe, stopped after a step" prints 'stopped at step 1; --resume continues' "$train" $ade -o e1.safetensors --steps 2 --accumulate 2 --minutes 0.00001
    ok "resumed" silent "$train" $ade -o e1.safetensors --steps 2 --accumulate 2 --resume -q
    ok "without a break, recorded" silent "$train" $ade -o e2.safetensors --steps 2 --accumulate 2 --record e -q --threads 1
    ok "is the same" cmp e1.safetensors e2.safetensors
    ok "and the same state" cmp e1.safetensors.state e2.safetensors.state
    ok "files of each step" sh -c 'set -- e/*; [ $# = 8 ] && [ -s e/step-2-batch-2.safetensors ] && [ -s e/step-1-gradients.safetensors ] && [ -s e/step-2-weights.safetensors ]'
    fails "resuming with another --accumulate" 1 '"accumulate 2" is not "fall 0"' "$train" $ade -o e1.safetensors --steps 3 --resume
    ok "other --steps change nothing before" prints '^layout 3/3' "$train" $ade -o e1.safetensors --steps 3 --accumulate 2 --resume
    ok "as F32" "$train" $ade -o e3.safetensors --steps 2 --accumulate 2 --f32 -q
    ok "is twice as large" [ "$(wc -c <e3.safetensors)" -gt "$(($(wc -c <e2.safetensors) * 19 / 10))" ]
    ok "and the same training" cmp e2.safetensors.state e3.safetensors.state
    ok "with validation pictures" silent "$train" $ade -o e4.safetensors --steps 1 --val_txt_file ade/list.txt -q
    ok "the log has their loss" sh -c 'tail -1 e4.safetensors.tsv | cut -f 4 | grep -q "^[0-9]*\.[0-9]*$"'
}

# ---- Watching ----------------------------------------------------------------------------------------------------
# Validation and pictures change no bit of a training; what cannot be used is named sample by sample.
broken_lines() { grep -c 'data/' so; }
watching() {
    layout="layout --model t.safetensors --vocab $vocab --data data --size 64 --batch 1 --steps 2 -q"
    watch="--validate data --validate-count 2 --show-every 2 --show-count 1 --show data/layouts/000000.json --show-steps 1"
    ok "a training" "$train" $layout -o u.safetensors --threads 1
    ok "watched, stopped" "$train" $layout $watch -o v.safetensors --threads 2 --minutes 0.00001
    ok "and resumed" "$train" $layout $watch -o v.safetensors --threads 1 --resume
    for end in '' .state; do ok "is the same OUT$end" cmp u.safetensors$end v.safetensors$end; done
    ok "the log has the same columns, and validation" sh -c '[ "$(cut -f 1-3 v.safetensors.tsv)" = "$(cat u.safetensors.tsv)" ] && [ "$(cut -f 4 v.safetensors.tsv | head -1)" = validation ] && tail -1 v.safetensors.tsv | grep -q "	0\.[0-9]*$"'
    ok "one before the first step, one at the end" [ "$(ls v.safetensors.pictures | tr '\n' ' ')" = 'step-000000.png step-000002.png ' ]
    ok "which differ" sh -c '! cmp -s v.safetensors.pictures/*'
    ok "data that is good" prints '^train layout: 3 samples can be used, and 3 for validation$' \
        "$train" layout --vocab "$vocab" --size 64 --data data --validate data --check-data
    printf P6 >data/pictures/000000.png && rm data/labels/000002.png
    fails "data that is not" 1 '^train layout: data: 2 of 3 samples cannot be used$' "$train" layout --vocab "$vocab" --size 64 --data data --check-data
    ok "has a line for each sample" [ "$(broken_lines)" = 2 ]
    fails "a folder for validation that is not good" 1 '2 of 3 samples cannot be used; nowhere/pictures: there is no such folder$' \
        "$train" layout --vocab "$vocab" --size 64 --data data --validate nowhere --check-data
    fails "steps that PLMS has not" 2 "invalid value '0' for --show-steps" "$train" $layout -o x.safetensors --show-every 1 --show-steps 0
    fails "--show alone" 2 '--show needs --show-every' "$train" $layout -o x.safetensors --show data/layouts
    fails "validation between two lines of the log" 2 "'30' for --validate-every: wanted a multiple of 25" "$train" $layout -o x.safetensors --validate data --validate-every 30
}

# ---- Refusals ----------------------------------------------------------------------------------------------------
refusals() {
    fails "no stage" 2 'a stage is missing: vae' "$train"
    fails "unknown stage" 2 "unknown stage 'unet': wanted vae" "$train" unet
    fails "no output" 2 '-o FILE is missing' "$train" vae
    fails "no model" 2 '--model FILE is missing' "$train" layout -o x
    fails "no data" 2 '--latents FILE, --data FOLDER or --dataset NAME is missing' "$train" layout --model plain.safetensors -o x
    fails "both kinds of data" 2 '--latents and --data exclude each other' "$train" layout --model plain.safetensors --latents l --data d -o x
    fails "no folder of a data set" 2 '--data-root DIR is missing' "$train" layout --model m --dataset coco -o x
    fails "no list of its pictures" 2 '--train-txt-file FILE is missing' "$train" layout --model m --dataset coco --data-root . -o x
    fails "a folder without a data set" 2 '--data-root needs --dataset NAME' "$train" layout --model m --data d --data-root . -o x
    fails "two kinds of pictures" 2 '--data and --dataset exclude each other' "$train" layout --model m --data d --dataset coco -o x
    fails "the recipe without pictures" 2 '--recipe authors needs --data FOLDER or --dataset NAME' "$train" layout --model m --latents l -o x --recipe authors
    fails "an order without pictures" 2 '--order, --phrases, --resize and --flip need --data' "$train" layout --model m --latents l -o x --order epochs
    fails "another recipe" 2 "invalid value 'theirs' for --recipe: wanted none or authors" "$train" layout --model m --data d -o x --recipe theirs
    fails "a record with workers" 2 '--record and --workers exclude each other' "$train" layout --model m --data d -o x --record r --workers 2
    fails "a data set for captions" 2 'unknown option --dataset' "$train" text2image --model m --dataset coco -o x
    fails "no such data set" 1 'coko: there is no such file, wanted coco, ade20k, or a file' "$train" layout --model "$shipped" --vocab "$vocab" --dataset coko --data-root . \
        --train-txt-file "$vocab" -o x.safetensors
    ok "help of the recipe has its rate" prints '--rate R  *learning rate; default 1e-06$' "$train" layout --recipe authors --help
    ok "help without it tells what it sets" prints '^--recipe authors .*--resize bytes' "$train" layout --help
    fails "a frozen encoder without --start" 2 '--frozen-encoder needs --start' "$train" vae -o x --frozen-encoder
    fails "--start for layouts" 2 'unknown option --start' "$train" layout --model plain.safetensors --start plain.safetensors --latents l.safetensors -o x
    fails "crops that are not a multiple of 8" 2 "invalid value '12' for --crop: wanted a multiple of 8" "$train" vae -o x --crop 12
    fails "windows that are not a multiple of 8" 2 "invalid value '12' for --window" "$train" layout --model m --latents l.safetensors -o x --window 12
    fails "a size that is not a multiple of 64" 2 "invalid value '96' for --size" "$train" layout --model m --data d -o x --size 96
    fails "--things without windows" 2 '--things needs --window' "$train" layout --model m --latents l.safetensors -o x --things
    fails "--alone without windows" 2 '--alone needs --window' "$train" text2image --model m --latents t.safetensors -o x --alone 0.5
    fails "--alone for layouts" 2 'unknown option --alone' "$train" layout --model m --latents l.safetensors -o x --window 8 --alone 0.5
    fails "--alone below 0.01" 2 "invalid value '0.001' for --alone" "$train" text2image --model m --latents w.safetensors -o x --window 8 --alone 0.001
    fails "a weight of 0 on things" 2 "invalid value '0' for --things-weight" "$train" vae -o x --things-weight 0
    fails "--things-weight for the segmenter" 2 'unknown option --things-weight' "$train" segmenter -o x --things-weight 2
    fails "--ema 1" 2 "invalid value '1' for --ema: wanted a number from 0 to below 1" "$train" vae -o x --ema 1
    fails "unknown option" 2 'unknown option --fast' "$train" vae -o x --fast
    fails "no value" 2 '--steps needs a value: N' "$train" vae -o x --steps
    fails "no number" 2 "train vae: invalid value 'many' for --steps: wanted a whole number" "$train" vae -o x --steps many
    fails "no workers" 2 "invalid value '0' for --workers: wanted a whole number from 1 to 256" "$train" vae -o x --workers 0
    fails "workers for latents" 2 'unknown option --workers' "$train" latents --model m -o x --workers 2
    fails "no such set" 2 "invalid value 'photos' for --set: wanted a set of the small world" "$train" vae -o x --set photos
    fails "no steps" 2 "invalid value '0' for --steps: wanted a whole number from 1" "$train" vae -o x --steps 0
    fails "an argument too many" 2 "unexpected argument 'y'" "$train" vae -o x y
    fails "a folder that does not exist" 1 'cannot be written' "$train" vae -o nowhere/x.safetensors
    fails "a folder as input" 1 'is a folder, wanted a file' "$train" vae -o x.safetensors --start "$dir"
    fails "a folder as output" 1 'is a folder' "$train" vae -o x.safetensors --log "$dir"
    fails "two results with one file name" 1 'is named for two outputs' "$train" vae -o x.safetensors --log x.safetensors
    echo input >m.safetensors
    fails "a result over an input" 1 'the output is the input' "$train" latents --model m.safetensors -o m.safetensors
    ok "the input is unchanged" grep -q '^input$' m.safetensors
    fails "a log that cannot be written" 1 'nowhere/x.tsv: cannot be written' "$train" vae -o x.safetensors \
        --log nowhere/x.tsv
    ok "no incomplete file" missing x.safetensors
    ok "help lists the stages" prints '^  text2image ' "$train" --help
    for stage in vae text2image layout segmenter; do ok "help of $stage" prints '--steps N .*; default [0-9]*$' "$train" $stage --help; done
    for stage in vae latents text2image layout segmenter; do ok "help of $stage tells every default" tells_defaults "$train" $stage; done
    ok "help of world has a default from its code" prints '--set NAME .*; default text2image$' "$world" --help
    ok "help of evaluate, too" prints '--void L .*; default 255$' "$evaluate" miou --help
    ok "help has a stage's own default" prints 'default 6000$' "$train" layout -h
    ok "help of latents" prints '--count N .*; default 20000$' "$train" latents --help
    ok "version" prints '^train [0-9.]*' "$train" vae --version
}

# ---- Full --------------------------------------------------------------------------------------------------------
bits() {
    small="--batch 1 --steps 30 --warmup 5 -q"
    ok "segmenter, one thread" "$train" segmenter -o a.safetensors $small --threads 1
    ok "segmenter, three threads" "$train" segmenter -o b.safetensors $small --threads 3
    ok "threads do not matter" cmp a.safetensors b.safetensors
    ok "stopped after a step" "$train" segmenter -o c.safetensors $small --minutes 0.00001
    ok "a stopped training writes no model" missing c.safetensors
    ok "but its state" test -s c.safetensors.state
    ok "and its log, without a line yet" [ "$(wc -l <c.safetensors.tsv | tr -d ' ')" = 1 ]
    ok "resumed" "$train" segmenter -o c.safetensors $small --resume
    ok "resuming gives the same model" cmp a.safetensors c.safetensors
    ok "the same state" cmp a.safetensors.state c.safetensors.state
    ok "and the same log" cmp a.safetensors.tsv c.safetensors.tsv
    ok "the plot is SVG" grep -q '<polyline' a.safetensors.svg
    fails "resuming with other options" 1 'its options were "segmenter seed 0 batch 1' "$train" segmenter -o c.safetensors $small --seed 1 --resume
    fails "resuming without a state" 1 'cannot be opened' "$train" segmenter -o d.safetensors $small --resume
    ok "another seed" "$train" segmenter -o d.safetensors --batch 1 --steps 1 -q --seed 1
    fails "another seed gives another model" 1 'differ' sh -c '"$0" segmenter -o e.safetensors --batch 1 --steps 1 -q && cmp d.safetensors e.safetensors >&2' "$train"

    # With a batch that is split among workers the sum has another order, so the losses agree within 1e-7 (measured 6e-9), and
    # the norms of their gradients within 1e-6 (measured 9.5e-8). With any number of threads, and stopped or not, the bits are
    # the same.
    ok "a batch of three" "$train" segmenter -o h1.safetensors --batch 3 --steps 1 -q
    ok "two workers" "$train" segmenter -o h2.safetensors --batch 3 --steps 1 -q --workers 2
    ok "process the same batch" near "$(first_line h1)" "$(first_line h2)"
    ok "two crops' scenes" "$train" vae -o v1.safetensors --batch 4 --crop 32 --steps 1 -q
    ok "in two workers" "$train" vae -o v2.safetensors --batch 4 --crop 32 --steps 1 -q --workers 2
    ok "are the same too" near "$(first_line v1)" "$(first_line v2)"
    workers="--batch 3 --workers 2 --steps 30 --warmup 5 -q"
    ok "two workers, one thread" "$train" segmenter -o h3.safetensors $workers --threads 1
    ok "two workers, three threads, stopped" "$train" segmenter -o h4.safetensors $workers --threads 3 --minutes 0.00001
    ok "and resumed" "$train" segmenter -o h4.safetensors $workers --threads 2 --resume
    ok "give the same model" cmp h3.safetensors h4.safetensors
    fails "resuming with other workers" 1 'workers 2", wanted' "$train" segmenter -o h4.safetensors --batch 3 --steps 30 --warmup 5 -q --resume
    fails "more workers than samples" 1 'wanted at most 3, the parts' "$train" segmenter -o x.safetensors --batch 3 --workers 4 --steps 1

    # Like Ctrl-C, but with a signal that a shell does not ignore for its background processes.
    "$train" segmenter --start a.safetensors -o i.safetensors --batch 1 --steps 1000000 --every 0.00001 -q &
    running=$!
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -s i.safetensors.state ] || sleep $i; done
    kill -TERM $running
    ok "stopped by a signal: exit 0" wait $running
    ok "with a state, and the log of its steps" sh -c '[ -s i.safetensors.state ] && [ $(($(tail -n 1 i.safetensors.tsv | cut -f 1) % 25)) = 0 ]'
    ok "and no model" missing i.safetensors
    ok "no incomplete file" sh -c 'set -- *.partial; [ "$*" = "*.partial" ]'
}

stages() {
    ok "vae" "$train" vae -o vae.safetensors --batch 2 --steps 2 -q
    ok "vae from an earlier one, smaller crops" "$train" vae --start vae.safetensors -o vae2.safetensors --batch 2 --crop 32 --steps 1 -q
    ok "vae without the loss of colours" "$train" vae -o vae3.safetensors --batch 2 --colours 0 --steps 2 -q
    ok "is another model" sh -c '! cmp -s vae.safetensors vae3.safetensors'
    ok "vae with more weight on things" "$train" vae -o vae5.safetensors --batch 2 --things-weight 3 --steps 2 -q
    ok "gives another model" sh -c '! cmp -s vae.safetensors vae5.safetensors'
    fails "resuming with another weight" 1 'wanted ".* things weight 2"' "$train" vae -o vae5.safetensors --batch 2 --things-weight 2 --steps 3 -q --resume
    ok "vae with equal weights" "$train" vae -o vae5.safetensors --batch 2 --things-weight 1 --steps 2 -q
    ok "gives the same model" cmp vae.safetensors vae5.safetensors
    ok "vae with a frozen encoder" "$train" vae --start vae.safetensors --frozen-encoder -o vae4.safetensors --batch 2 --steps 2 -q
    ok "gives another model too" sh -c '! cmp -s vae.safetensors vae4.safetensors'
    ok "segmenter, from an earlier one, through an autoencoder" "$train" segmenter --start a.safetensors --model vae4.safetensors -o f.safetensors \
        --batch 2 --steps 2 -q
    ok "segmenter, split among workers" "$train" segmenter --start a.safetensors --model vae4.safetensors -o fh.safetensors --batch 2 --steps 2 -q --workers 2
    ok "processes the same scenes" near "$(first_line f)" "$(first_line fh)"
    ok "segmenter without an autoencoder" "$train" segmenter --start a.safetensors -o g.safetensors --batch 2 --steps 2 -q
    ok "is another model" sh -c '! cmp -s f.safetensors g.safetensors'
    ok "and contains no autoencoder" sh -c '[ "$(wc -c <f.safetensors)" = "$(wc -c <g.safetensors)" ]'
    ok "latents of the first autoencoder" "$train" latents --model vae.safetensors --vocab "$vocab" --set anything --count 2 -o la.safetensors -q
    ok "latents of the model with a frozen encoder" "$train" latents --model vae4.safetensors --vocab "$vocab" --set anything --count 2 -o lb.safetensors -q
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
    ok "text2image on windows that name one phrase only" "$train" text2image --model vae.safetensors --start words.safetensors --frozen-text \
        --vocab "$vocab" --latents w.safetensors --window 8 --things --alone 1 -o alone.safetensors --batch 2 --steps 1 -q
    ok "gives another model again" sh -c '! cmp -s things.safetensors alone.safetensors'
    fails "resuming with another share of them" 1 'alone 1", wanted' "$train" text2image --model vae.safetensors --start words.safetensors --frozen-text \
        --vocab "$vocab" --latents w.safetensors --window 8 --things --alone 0.5 -o alone.safetensors --batch 2 --steps 2 -q --resume
    ok "the frozen text encoder does not change" [ "$(digest_of plain clip)" = "$(digest_of more clip)" ]
    ok "but the U-Net does" [ "$(digest_of plain ddim.0.cond.eps)" != "$(digest_of more ddim.0.cond.eps)" ]
    ok "layout on windows" "$train" layout --model plain.safetensors --vocab "$vocab" --latents l.safetensors --window 8 -o parts.safetensors \
        --batch 2 --steps 1 -q
    ok "layout" "$train" layout --model plain.safetensors --vocab "$vocab" --latents l.safetensors -o tuned.safetensors --batch 2 --steps 2 -q
    ok "layout, split among workers" "$train" layout --model plain.safetensors --vocab "$vocab" --latents l.safetensors -o split.safetensors \
        --batch 2 --steps 2 -q --workers 2
    ok "differs by rounding only" near "$(first_line tuned)" "$(first_line split)"
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

    fails "a start that has no autoencoder" 1 'missing' "$train" vae --start a.safetensors -o x.safetensors --steps 1
    fails "--alone with windows as large as scenes" 1 'smaller than its 16 x 16' "$train" text2image --model vae.safetensors --vocab "$vocab" \
        --latents w.safetensors --window 16 --alone 0.5 -o x.safetensors --batch 1 --steps 1
    fails "windows with a folder" 2 '--latents' "$train" layout --model plain.safetensors --data data -o x --window 8
    fails "windows of captions" 1 'no regions' "$train" text2image --model vae.safetensors --vocab "$vocab" --latents t.safetensors --window 8 -o x
    fails "a file that has no latents" 1 'wanted a file of latents' "$train" layout --model plain.safetensors --vocab "$vocab" --latents vae.safetensors -o x.safetensors
    fails "a missing folder" 1 'no such folder' "$train" layout --model plain.safetensors --vocab "$vocab" --data nowhere -o x.safetensors
    rm -r data/labels
    fails "missing label maps" 1 'labels' "$train" layout --model plain.safetensors --vocab "$vocab" --data data --size 64 -o x.safetensors --batch 1 --steps 1 -q
    rm data/captions.txt && : >data/captions.txt
    fails "missing captions" 1 'line [12] is missing' "$train" text2image --model vae.safetensors --vocab "$vocab" --data data --size 64 -o x.safetensors \
        --batch 1 --steps 1 -q
    ok "no incomplete file" missing x.safetensors
}

quick
refusals
if [ $level = full ]; then
    bits
    stages
fi

line="$passed passed, $failed failed"
echo "training ($level): $line"
[ -z "$counts" ] || echo "$line" >"$counts"
[ $failed = 0 ]
