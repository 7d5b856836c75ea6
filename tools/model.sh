#!/bin/sh
# model.sh [DIR]: the default model, from nothing: every command that made models/flis-small.safetensors and
# models/flis-segmenter.safetensors, its seeds and sizes. States, logs and plots are kept in DIR (build/model); a second run
# goes on where the first was stopped, to the same bits. SHORT=1 does a few steps of each, to see that two runs give the
# same files.
set -eu
dir=${1:-build/model}
mkdir -p "$dir"
if [ "${SHORT:-0}" = 1 ]; then first=50 vae=50 words=50 text=50 layout=50 segment=50 phrases=64 layouts=64 captions=64
else first=2725 vae=6000 words=13200 text=2600 layout=3000 segment=6000 phrases=12000 layouts=8000 captions=6000; fi

# make OUT STAGE OPTIONS…: unless it is there
make() {
    out=$dir/$1.safetensors stage=$2
    shift 2
    [ -f "$out" ] && return
    [ -f "$out.state" ] && resume=--resume || resume=
    tools/train "$stage" -o "$out" "$@" $resume
    [ -f "$out" ] || exit 1             # stopped: its state is there
}

make vae-1 vae --steps $first --batch 4 --colours 0
make vae vae --start "$dir/vae-1.safetensors" --steps $vae --batch 4
make phrases latents --model "$dir/vae.safetensors" --set phrases --count $phrases
make layouts latents --model "$dir/vae.safetensors" --set layout --count $layouts
make captions latents --model "$dir/vae.safetensors" --set text2image --count $captions
make words text2image --model "$dir/vae.safetensors" --latents "$dir/phrases.safetensors" --window 8 --frozen-text --steps $words \
    --batch 16 --rate 1e-3 --warmup 100
make plain text2image --model "$dir/vae.safetensors" --latents "$dir/captions.safetensors" --start "$dir/words.safetensors" --steps $text \
    --batch 16 --rate 4e-4 --warmup 100
make tuned layout --model "$dir/plain.safetensors" --latents "$dir/layouts.safetensors" --steps $layout --batch 16 --rate 3e-4 --warmup 50
make segmenter segmenter --steps $segment --batch 8
if command -v sha256sum >/dev/null; then sha256sum "$dir/tuned.safetensors" "$dir/segmenter.safetensors"; fi
