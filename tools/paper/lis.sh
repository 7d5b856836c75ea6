#!/bin/sh
# lis.sh [DIR]: the chain of the paper's Table 1 with the small model on the small world, from the data set to the two figures,
# with real files: pictures of 200 held-out layouts, painted in shards side by side, then the measures. All is kept in DIR
# (build/lis). A second run paints what is missing and measures again. Two minutes on two cores.
#
#   N=200      layouts          STEPS=20   of the sampler (DDIM, as the authors' default)
#   SHARDS=4   processes, each on one thread; SIZE=128, of the pictures
#
# Beyond one machine, the loop over shards is one of these lines (docs/table1.md):
#   parallel -j 4 flis lis OPTIONS --shard {}/4 ::: 1 2 3 4
#   sbatch --array=1-4 --wrap 'flis lis OPTIONS --shard $SLURM_ARRAY_TASK_ID/4'
set -eu
dir=${1:-build/lis} N=${N:-200} STEPS=${STEPS:-20} SHARDS=${SHARDS:-4} SIZE=${SIZE:-128}
FLIS=${FLIS:-./flis} BIN=${BIN:-bin} MODELS=${MODELS:-models}
data=$dir/data-$N out=$dir/pictures-$N-$STEPS-$SIZE
mkdir -p "$dir"

# The list is written last: where it is, the data set is complete.
[ -f "$data/val.txt" ] || "$BIN/world" --coco "$data" --validation "$N" --training 0

# In a subshell, whose process the program then is.
lis() {
    exec "$FLIS" lis -m "$MODELS/flis-small.safetensors" --vocab "$MODELS/vocab.txt" --dataset "$data/classes.tsv" --data-root "$data" \
        --txt-file "$data/val.txt" --outdir "$out" --size $SIZE --ddim-steps "$STEPS" --scale 2 --seed 42 --batch-size 8 "$@"
}

# The shards; the first one shows progress. Stopped by Ctrl-C, each finishes its record.
pictures() { find "$out" -name '*.jpg' 2>/dev/null | wc -l; }
before=$(pictures) began=$(date +%s) processes='' failed=0
trap 'for p in $processes; do kill "$p" 2>/dev/null || true; done; wait; exit 1' INT TERM HUP
for shard in $(seq "$SHARDS"); do
    [ "$shard" = 1 ] && quiet='' || quiet=--quiet
    (lis --shard "$shard/$SHARDS" --threads 1 $quiet) &
    processes="$processes $!"
done
for p in $processes; do wait "$p" || failed=$((failed + 1)); done
trap - INT TERM HUP
[ $failed = 0 ] || { echo "lis.sh: $failed of $SHARDS shards failed; run it again to go on" >&2; exit 1; }
took=$(($(date +%s) - began)) painted=$(($(pictures) - before))

# All of them at once: every picture is checked against the records, and the page is written.
(lis --quiet --grid "$dir/page.html")

# The measures. Lists pair the files line by line: the pictures, the real ones, their label maps, those that the segmenter finds.
names=$(sed 's|.*/||; s|\.jpg$||' "$data/val.txt")
list() { for name in $names; do printf '%s/%s.%s\n' "$1" "$name" "$2"; done; }
list "$out" jpg >"$dir/pictures.txt"
list "$data/val2017" jpg >"$dir/real.txt"
list "$data/stuffthingmaps_trainval2017/val2017" png >"$dir/truth.txt"
measure() { # pictures of LIST.txt: their labels and features, and the mIoU
    "$BIN/evaluate" segment "$MODELS/flis-segmenter.safetensors" --pictures "$dir/$1.txt" -o "$dir/labels-$1" \
        --features "$dir/$1.safetensors" --quiet
    list "$dir/labels-$1" png >"$dir/labels-$1.txt"
    "$BIN/evaluate" miou --truth "$dir/truth.txt" --predicted "$dir/labels-$1.txt" --first 1 --names "$data/classes.tsv" \
        --quiet >"$dir/miou-$1.txt"
    sed -n 's/^mIoU \([0-9.]*\).*/\1/p' "$dir/miou-$1.txt"
}
real=$(measure real)
ours=$(measure pictures)
distance=$("$BIN/evaluate" frechet "$dir/pictures.safetensors" "$dir/real.safetensors" --quiet)

# The records have seconds per picture, each on one thread.
seconds=$(cat "$out"/manifest*.tsv | awk -F '\t' '!/^#/ && $6 + 0 > 0 { s += $6; n++ } END { printf "%.2f", n ? s / n : 0 }')
rate='all were there already'
[ "$painted" = 0 ] || [ "$took" = 0 ] || rate=$(awk "BEGIN { printf \"%d painted now, %.2f a second in $SHARDS shards\", $painted, $painted / $took }")
cat <<END
pictures   $N of $SIZE x $SIZE, $STEPS steps, $seconds s each on one thread; $rate
mIoU       $ours (real pictures: $real), by the small world's segmenter
distance   $distance from the real pictures, between the segmenter's features (not comparable with anybody's FID)
page       $dir/page.html
END
