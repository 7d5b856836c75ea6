#!/bin/sh
# field_names.sh FLIS SYNTH: names that people's files have, at the command line: --variant, --vae, --vocab with a folder or a
# tokenizer.json, the vocabulary of a folder's tokenizer/, folders that are no models, and what wrong files are called.
# Prints one line per failed check and "field_names: N passed, N failed". It works in a directory that it makes and removes.
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
[ $# -ge 2 ] || { echo "usage: field_names.sh FLIS SYNTH" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
flis=$(absolute "$1")
synth=$(absolute "$2")
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-names.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1

passed=0
failed=0
check() { # NAME STATUS PATTERN COMMAND…: exit status, and (unless empty) a pattern on stderr; nothing is left in out/
    name=$1 wanted=$2 pattern=$3
    shift 3
    mkdir -p out
    "$@" >so 2>err
    status=$?
    if [ $status = "$wanted" ] && { [ -z "$pattern" ] || grep -q -e "$pattern" err; } &&
        { [ "$wanted" = 0 ] || [ -z "$(ls -A out)" ]; }; then passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL field_names: $name: exit $status, wanted $wanted and \"$pattern\""
        sed 's/^/    stderr: /' err | head -3
    fi
}
is() { # NAME CONDITION…
    name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL field_names: $name: not so: $*"
    fi
}
tensors() { # FILE HEADER BYTES: a safetensors file whose values are zero
    {
        printf "\\$(printf %03o $((${#2} % 256)))\\$(printf %03o $((${#2} / 256)))\\000\\000\\000\\000\\000\\000"
        printf %s "$2"
        [ "$3" = 0 ] || dd if=/dev/zero bs="$3" count=1 2>/dev/null
    } >"$1"
}

"$synth" tinyA model.safetensors 2>/dev/null || exit 1
awk 'BEGIN { print "#version: 0.2"; s = "abcdefghijklmnopqrstuvwxyz"
    for (n = i = 1; i <= 26; i++) for (k = 1; k <= 26 && n <= 486; k++) if (i != k) { n++
        print substr(s, i, 1) " " substr(s, k, 1) } }' >merges.txt
awk 'BEGIN { printf "{\"model\": {\"type\": \"BPE\", \"merges\": [" }
    NR > 1 { printf "%s[\"%s\", \"%s\"]", (NR > 2 ? ", " : ""), $1, $2 } END { print "]}}" }' merges.txt >tokenizer.json
printf 'P2\n2 1\n255\n3 7\n' >label.pgm
printf '{"text_label_mapping": {"sea": 7, "sky": 3}, "layout_path": "label.pgm"}\n' >layout.json
tensors empty.safetensors '{}' 0
tensors z.safetensors '{"z":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}' 1024
# The library takes weights that have the checkpoint's names already, so one part may hold them all.
folder() { # NAME WEIGHTS
    rm -rf "$1"
    mkdir -p "$1/unet" "$1/vae" "$1/text_encoder"
    printf '{"block_out_channels": [32, 64, 64], "layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 32,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]}' >"$1/unet/config.json"
    printf '{"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1}' >"$1/vae/config.json"
    printf '{"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2,
        "vocab_size": 1000}' >"$1/text_encoder/config.json"
    ln model.safetensors "$1/unet/$2" 2>/dev/null || cp model.safetensors "$1/unet/$2"
    cp empty.safetensors "$1/vae/diffusion_pytorch_model.safetensors"
    cp empty.safetensors "$1/text_encoder/model.safetensors"
}
g="generate -j layout.json --size 64 --steps 1 -q -o out/p.png"

# ---- Variants ----------------------------------------------------------------------------------------------------
folder plain diffusion_pytorch_model.safetensors
folder fp16 diffusion_pytorch_model.fp16.safetensors
check "a plain folder" 0 '' "$flis" $g -m plain --vocab merges.txt
is "a plain folder: no warning" test ! -s err
check "a folder of fp16 alone" 0 'warning: fp16/unet/*: no diffusion_pytorch_model.safetensors: took diffusion_pytorch_model.fp16.safetensors' \
    "$flis" $g -m fp16 --vocab merges.txt
check "--variant fp16" 0 '' "$flis" $g -m fp16 --vocab merges.txt --variant fp16
is "--variant fp16: no warning" test ! -s err
is "--variant: in the picture" grep -q 'variant' out/p.png
rm -f out/*
check "--variant that no part has" 1 'variant bf16: no part has it: there are fp16' "$flis" $g -m fp16 --vocab merges.txt --variant bf16
check "--variant of a file" 1 'is one file, which has no variants' "$flis" $g -m model.safetensors --vocab merges.txt --variant fp16
check "--variant: info" 0 '' "$flis" info fp16 --variant fp16
check "--variant: info of another" 1 'no part has it' "$flis" info fp16 --variant bf16
check "--variant: stage" 1 'no part has it' "$flis" stage decode -m fp16 --variant bf16 -i z.safetensors -o out/o.safetensors
check "--variant: precision" 1 'no part has it' "$flis" precision -m fp16 --variant bf16 -q
check "--variant: digest" 1 'no part has it' "$flis" digest -m fp16 --variant bf16
check "--variant: tokens" 0 '' "$flis" tokens --vocab merges.txt --variant fp16 sea
cp empty.safetensors fp16/unet/diffusion_pytorch_model.non_ema.safetensors
check "several variants" 1 'several variants: .*non_ema.*--variant' "$flis" $g -m fp16 --vocab merges.txt

# ---- Another autoencoder -----------------------------------------------------------------------------------------
check "--vae" 0 '' "$flis" $g -m model.safetensors --vocab merges.txt --vae model.safetensors --trace-digest out/t.json
is "--vae: in the picture" grep -q vae out/p.png
is "--vae: its digest" grep -q '"vae.sha256"' out/t.json
rm -f out/*
folder other diffusion_pytorch_model.safetensors
cp model.safetensors other/vae/diffusion_pytorch_model.safetensors
check "--vae: stage, of a folder" 0 '' "$flis" stage decode -m model.safetensors --vae other -i z.safetensors -o out/o.safetensors -q
check "--vae: info" 0 '' "$flis" info model.safetensors --vae model.safetensors
is "--vae: info counts its file" grep -q '^files 2$' so
rm -f out/*
check "--vae that is absent" 1 'absent: cannot be opened' "$flis" $g -m model.safetensors --vocab merges.txt --vae absent
check "--vae: a picture" 0 '' "$flis" $g -m model.safetensors --vocab merges.txt --vae other -o v.png
check "--again with --vae" 0 '' "$flis" generate -q -m model.safetensors --vocab merges.txt --vae other --again v.png -o v2.png
is "--again with --vae: the same bytes" cmp -s v.png v2.png
cp other/vae/config.json config.kept
echo '{"scaling_factor": 0.2}' >other/vae/config.json
check "--again with another scale factor" 1 'another configuration' \
    "$flis" generate -q -m model.safetensors --vocab merges.txt --vae other --again v.png -o v3.png
cp config.kept other/vae/config.json
cp other/vae/diffusion_pytorch_model.safetensors kept
ln other/vae/diffusion_pytorch_model.safetensors vae.png
check "-o over --vae" 1 'input' "$flis" $g -m model.safetensors --vocab merges.txt --vae other -o vae.png
is "-o over --vae: it is still there" cmp -s kept other/vae/diffusion_pytorch_model.safetensors
rm -rf lacks out/*
cp -r plain lacks
rm -r lacks/vae
check "a folder without vae/" 1 'lacks: has no vae/config.json.*--vae' "$flis" $g -m lacks --vocab merges.txt
check "a folder without vae/, --vae" 0 '' "$flis" $g -m lacks --vocab merges.txt --vae model.safetensors --trace-digest out/t.json
if command -v sha256sum >/dev/null; then
    sum=$(cat lacks/unet/*.safetensors lacks/text_encoder/*.safetensors | sha256sum | cut -c1-64)
    is "a folder without vae/: its digest is that of its files" grep -q "\"model.sha256\": \"$sum\"" out/t.json
fi
check "a folder without vae/: --again" 0 '' "$flis" generate -q -m lacks --vocab merges.txt --vae model.safetensors --again out/p.png -o again.png
is "a folder without vae/: the same bytes" cmp -s out/p.png again.png
check "a folder without vae/: info" 0 '' "$flis" info lacks --vae model.safetensors
check "a folder without vae/: stage" 0 '' "$flis" stage decode -m lacks --vae model.safetensors -i z.safetensors -o out/o.safetensors -q
rm -f out/*
check "--vae without one" 1 'wanted an autoencoder' "$flis" $g -m model.safetensors --vocab merges.txt --vae z.safetensors
check "--vae of a layout" 1 'layout.json: is a layout' "$flis" $g -m model.safetensors --vocab merges.txt --vae layout.json

# ---- Vocabularies ------------------------------------------------------------------------------------------------
"$flis" tokens --vocab merges.txt "sea sky" >want
check "tokenizer.json" 0 '' "$flis" tokens --vocab tokenizer.json "sea sky"
is "tokenizer.json: the same tokens" cmp -s so want
mkdir tokenizer plain/tokenizer
check "a folder without a vocabulary" 1 'tokenizer: is a folder without merges.txt or tokenizer.json' "$flis" tokens --vocab tokenizer sea
printf '{"a": 0}' >tokenizer/vocab.json
check "a folder with vocab.json alone" 1 'vocab.json has the tokens' "$flis" tokens --vocab tokenizer sea
check "vocab.json" 1 'wanted merges.txt' "$flis" tokens --vocab tokenizer/vocab.json sea
check "a model's tokenizer/ without a vocabulary" 1 'plain/tokenizer: is a folder without merges.txt' "$flis" $g -m plain
cp tokenizer.json tokenizer
check "--vocab tokenizer/" 0 '' "$flis" tokens --vocab tokenizer/ "sea sky"
is "--vocab tokenizer/: the same tokens" cmp -s so want
cp tokenizer.json plain/tokenizer
mv merges.txt elsewhere.txt # nothing is beside the model
check "a model's tokenizer/" 0 '' "$flis" tokens -m plain "sea sky"
is "a model's tokenizer/: the same tokens" cmp -s so want
check "a model's tokenizer/ paints" 0 '' "$flis" $g -m plain
rm -f out/*
check "a layout for a vocabulary" 1 'layout.json: is a layout, wanted a vocabulary' "$flis" $g -m model.safetensors --vocab layout.json
check "a model for a vocabulary" 1 'is a safetensors file, wanted a vocabulary' "$flis" $g -m model.safetensors --vocab model.safetensors

# ---- What is no model --------------------------------------------------------------------------------------------
check "a vocabulary for a model" 1 'is a vocabulary, wanted a safetensors file' "$flis" $g -m elsewhere.txt --vocab elsewhere.txt
check "an empty folder" 1 'is an empty folder' "$flis" $g -m out --vocab elsewhere.txt
mkdir repository
cp empty.safetensors repository/one.safetensors
check "a folder with a model's file" 1 'it holds one.safetensors: give the file' "$flis" $g -m repository --vocab elsewhere.txt
check "one part of a folder" 1 'is one part of a diffusers folder' "$flis" $g -m plain/unet --vocab elsewhere.txt
rm plain/unet/diffusion_pytorch_model.safetensors
printf 'version https://git-lfs.github.com/spec/v1\n' >plain/unet/diffusion_pytorch_model.safetensors
check "a clone without its weights" 1 'is a Git LFS pointer' "$flis" $g -m plain
mv plain/unet/diffusion_pytorch_model.safetensors plain/unet/diffusion_pytorch_model.bin
check "PyTorch's files" 1 '^  bin/ckpt2safetensors plain/unet/diffusion_pytorch_model.bin plain/unet/diffusion_pytorch_model.safetensors$' \
    "$flis" $g -m plain
mkdir -p models--a--b/refs models--a--b/snapshots
mv fp16 models--a--b/snapshots/0123
rm models--a--b/snapshots/0123/unet/*non_ema*
check "a cache without refs" 1 'Hugging Face cache' "$flis" $g -m models--a--b --vocab elsewhere.txt
printf 0123 >models--a--b/refs/main
check "a folder of the Hugging Face cache" 0 '' "$flis" $g -m models--a--b --vocab elsewhere.txt

# ---- Types that nobody asks for ----------------------------------------------------------------------------------
tensors types.safetensors '{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"X9","shape":[],"data_offsets":[2,3]}}' 3
check "info of other types" 0 '' "$flis" info types.safetensors
is "info of other types: their names" grep -q '^a F8_E4M3 \[2\]' so

echo "field_names: $passed passed, $failed failed"
[ $failed = 0 ]
