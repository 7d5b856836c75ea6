#!/bin/sh
# model.sh [DIR]: trains the default model from scratch: all commands that made models/flis-small.safetensors and
# models/flis-segmenter.safetensors, with their seeds and sizes. States, logs and plots are kept in DIR (build/model). A second
# run continues where the first was stopped and gives the same bits. SHORT=1 runs a few steps of each stage, to check that two
# runs give the same files.
set -eu
dir=${1:-build/model}
mkdir -p "$dir"
if [ "${SHORT:-0}" = 1 ]; then
    first=50 vae=50 decoder=50 words=50 text=50 broad=50 broad_2=50 shaped=50 rarer=50 harder=50 parts=50 layout=50 segment=50 judge=50 blurred=50
    longer=50 sharper=50 again=50 parts_2=50 layout_2=50
    phrases=64 layouts=64 captions=64 anything=64 shapes=64 rare=64 hard=64 hard_2=64
else
    first=2725 vae=6000 decoder=9000 words=13200 text=2600 broad=12000 broad_2=6000 shaped=9000 rarer=3000 harder=13000 parts=2500 layout=2000
    segment=6000 judge=3000 blurred=1500
    longer=8000 sharper=12000 again=36000 parts_2=1500 layout_2=1000
    phrases=12000 layouts=8000 captions=6000 anything=16000 shapes=16000 rare=4000 hard=12000 hard_2=28000
fi

# make OUT STAGE OPTIONS…: runs a stage unless OUT exists
make() {
    out=$dir/$1.safetensors stage=$2
    shift 2
    [ -f "$out" ] && return
    [ -f "$out.state" ] && resume=--resume || resume=
    bin/train "$stage" -o "$out" "$@" $resume
    [ -f "$out" ] || exit 1             # stopped: the state is saved
}

# The autoencoder. Its latents do not change between vae and vae-2.
make vae-1 vae --steps $first --batch 4 --colours 0
make vae vae --start "$dir/vae-1.safetensors" --steps $vae --batch 4
make decoder vae --start "$dir/vae.safetensors" --frozen-encoder --set anything --steps $decoder --batch 4 --rate 8e-4
make phrases latents --model "$dir/vae.safetensors" --set phrases --count $phrases
make layouts latents --model "$dir/vae.safetensors" --set layout-shapes --count $layouts
make captions latents --model "$dir/vae.safetensors" --set text2image --count $captions
make anything latents --model "$dir/vae.safetensors" --set anything --count $anything
make shapes latents --model "$dir/vae.safetensors" --set shapes --count $shapes
make rare latents --model "$dir/vae.safetensors" --set rare --count $rare
make hard latents --model "$dir/vae.safetensors" --set hard --count $hard
# Text to image: single phrases, whole captions, any class at any position, any class in any outline, rare things, things that
# are hard to learn; then layouts.
make words text2image --model "$dir/vae.safetensors" --latents "$dir/phrases.safetensors" --window 8 --frozen-text --steps $words \
    --batch 16 --rate 1e-3 --warmup 100
make plain text2image --model "$dir/vae.safetensors" --latents "$dir/captions.safetensors" --start "$dir/words.safetensors" --steps $text \
    --batch 16 --rate 4e-4 --warmup 100
make broad text2image --model "$dir/decoder.safetensors" --latents "$dir/anything.safetensors" --start "$dir/plain.safetensors" --window 8 \
    --frozen-text --steps $broad --batch 16 --rate 6e-4 --warmup 100
make broad-2 text2image --model "$dir/decoder.safetensors" --latents "$dir/anything.safetensors" --start "$dir/broad.safetensors" --window 8 \
    --frozen-text --steps $broad_2 --batch 16 --rate 6e-4 --warmup 100 --seed 1
make shaped text2image --model "$dir/decoder.safetensors" --latents "$dir/shapes.safetensors" --start "$dir/broad-2.safetensors" --window 8 \
    --frozen-text --steps $shaped --batch 16 --rate 6e-4 --warmup 100 --seed 2
make rarer text2image --model "$dir/decoder.safetensors" --latents "$dir/rare.safetensors" --start "$dir/shaped.safetensors" --window 8 \
    --things --frozen-text --steps $rarer --batch 16 --rate 6e-4 --warmup 100 --seed 3
make harder text2image --model "$dir/decoder.safetensors" --latents "$dir/hard.safetensors" --start "$dir/rarer.safetensors" --window 8 \
    --things --frozen-text --steps $harder --batch 16 --rate 6e-4 --warmup 100 --seed 4
make parts layout --model "$dir/harder.safetensors" --latents "$dir/layouts.safetensors" --window 8 --steps $parts --batch 16 --rate 1e-4 \
    --warmup 50
make tuned layout --model "$dir/parts.safetensors" --latents "$dir/layouts.safetensors" --steps $layout --batch 16 --rate 1e-4 --warmup 50
# A second round from that model: the autoencoder for longer, then with more weight on things; text to image on its latents,
# with four of ten windows named by one phrase alone, since a region attends to one phrase under RCA; layouts.
make vae-2 vae --start "$dir/tuned.safetensors" --set anything --steps $longer --batch 4 --rate 1e-3 --seed 9
make vae-3 vae --start "$dir/vae-2.safetensors" --set anything --things-weight 4 --edges 1 --steps $sharper --batch 4 --rate 1e-3 --seed 1 \
    --workers 2
make hard-2 latents --model "$dir/vae-3.safetensors" --set hard --count $hard_2
make layouts-2 latents --model "$dir/vae-3.safetensors" --set layout-shapes --count $layouts
make again text2image --model "$dir/vae-3.safetensors" --latents "$dir/hard-2.safetensors" --start "$dir/tuned.safetensors" --window 8 --things \
    --alone 0.4 --frozen-text --steps $again --batch 16 --rate 1e-3 --warmup 200 --seed 6 --workers 2
make parts-2 layout --model "$dir/again.safetensors" --latents "$dir/layouts-2.safetensors" --window 8 --things --steps $parts_2 --batch 16 \
    --rate 1e-4 --warmup 50 --workers 2
make tuned-2 layout --model "$dir/parts-2.safetensors" --latents "$dir/layouts-2.safetensors" --steps $layout_2 --batch 16 --rate 1e-4 \
    --warmup 50 --workers 2
# The segmenter that measures pictures: on usual scenes, then with things at any position, then with every second scene encoded and
# decoded by the autoencoder.
make segmenter segmenter --steps $segment --batch 8
make judge segmenter --start "$dir/segmenter.safetensors" --set anything --steps $judge --batch 8 --rate 6e-4
make judge-2 segmenter --start "$dir/judge.safetensors" --model "$dir/decoder.safetensors" --set anything --steps $blurred --batch 8 --rate 5e-4
if command -v sha256sum >/dev/null; then sha256sum "$dir/tuned-2.safetensors" "$dir/judge-2.safetensors"; fi
