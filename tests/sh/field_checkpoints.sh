#!/bin/sh
# field_checkpoints.sh CKPT2SAFETENSORS [COUNTS]: what ckpt2safetensors says and how it exits on checkpoints as people have
# them: weights under any key, several sets of them, prefixes of wrappers, objects of unknown classes, files of other kinds.
# What it writes is checked in tests/unit/test_field_checkpoints.c.
# Prints one line per failed check and "N passed, N failed"; the same line goes to the file COUNTS, for the runner.
LC_ALL=C
export LC_ALL
[ $# -ge 1 ] || { echo "usage: field_checkpoints.sh CKPT2SAFETENSORS [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
converter=$(absolute "$1") counts=${2:+$(absolute "$2")}
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
[ -z "$counts" ] || rm -f "$counts"
dir=$(mktemp -d "${TMPDIR:-/tmp}/flis-field.XXXXXX") || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
cd "$dir" || exit 1

passed=0 failed=0
fail() {
    failed=$((failed + 1))
    echo "FAIL field_checkpoints: $*"
    sed 's/^/    stderr: /' err | head -5
}
# says NAME STATUS PATTERN COMMAND…: exits so, with a line on stderr that matches; a file is written only if the status is 0
says() {
    name=$1 wanted=$2 pattern=$3
    shift 3
    rm -f out.safetensors
    "$@" >so 2>err
    status=$?
    if [ $status != "$wanted" ]; then fail "$name: exit $status, wanted $wanted"
    elif [ -s so ]; then fail "$name: it writes to stdout"
    elif ! grep -e "$pattern" err >/dev/null; then fail "$name: no line with \"$pattern\""
    elif [ $status = 0 ] && [ ! -f out.safetensors ]; then fail "$name: nothing was written"
    elif [ $status != 0 ] && [ -f out.safetensors ]; then fail "$name: a file was written"
    elif [ $status != 0 ] && [ "$(wc -l <err | tr -d ' ')" != 1 ]; then fail "$name: more than one line"
    else passed=$((passed + 1)); fi
}
# old FILE OBJECT…: a checkpoint in PyTorch's older format: magic number, protocol, system information, the object, the keys of
# storages, and storage 0 of one value (of $value, if that is set)
old() {
    file=$1
    shift
    {
        printf '\200\002\212\012l\374\234F\371\040j\250P\031.\200\002M\351\003.\200\002}.\200\002'
        printf "$@"
        printf '.\200\002]X\001\000\000\0000a.\001\000\000\000\000\000\000\000'
        printf "${value:-\\000\\000\\200\\077}"
    } >"$file"
}
# The opcodes of pickles as printf's formats: text LENGTH (octal) TEXT, a tensor of storage 0.
tensor='ctorch._utils\n_rebuild_tensor_v2\n((U\007storagectorch\nFloatStorage\nU\0010U\003cpuK\001tQK\000K\001\205K\001\205\211}tR'
object='cos\nsystem\n(U\014touch EXECUTtR'

old plain.ckpt "}(U\\005model}(U\\010module.a${tensor}U\\010module.b${tensor}uU\\004args${object}u"
old two.ckpt "}(U\\011generator}(U\\003g.a${tensor}uU\\006critic}(U\\003c.a${tensor}uu"
old inert.ckpt "}(U\\003x.a${tensor}U\\003x.b${object}U\\004args${object}u"

value='\377\377\377\377' && old nan.ckpt "}(U\\003x.a${tensor}U\\003x.b${tensor}U\\003x.c${tensor}U\\003x.d${tensor}U\\003x.e${tensor}u" && value=

says "values that are not numbers" 0 'warning: 2 more tensors' "$converter" nan.ckpt out.safetensors
says "one set" 0 "took the weights under 'model'" "$converter" plain.ckpt out.safetensors
says "a prefix" 0 "removed the prefix 'module.' from all names" "$converter" plain.ckpt out.safetensors
says "several sets" 1 "'generator' (1 tensors.*'critic' (1 tensors" "$converter" two.ckpt out.safetensors
says "the way on" 1 '--key' "$converter" two.ckpt out.safetensors
says "--key" 0 "took the weights under 'critic'" "$converter" --key critic two.ckpt out.safetensors
says "--key, what else there is" 0 "left out the tensors under 'generator' (1;" "$converter" --key=critic two.ckpt out.safetensors
says "--key that is none" 1 "got no weights under that key.*'generator'" "$converter" --key gen two.ckpt out.safetensors
says "--key without a name" 2 '--key' "$converter" two.ckpt out.safetensors --key
says "an inert weight" 1 "tensor x.b: is made by os.system.*never called.*--without" "$converter" inert.ckpt out.safetensors
says "--without" 0 'left out 1 values that are not tensors: args' "$converter" --without 'x.b' inert.ckpt out.safetensors
says "a safetensors file" 1 'is a safetensors file already' "$converter" "$root/models/flis-small.safetensors" out.safetensors
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 4265380512\n' >lfs.ckpt
says "a Git LFS pointer" 1 'Git LFS pointer' "$converter" lfs.ckpt out.safetensors
printf '<!DOCTYPE html><html><title>Virus scan warning</title></html>' >page.ckpt
says "an HTML page" 1 'HTML page' "$converter" page.ckpt out.safetensors
: >empty.ckpt
for bytes in x 'PK\003\004abc' '\200\002}q' '{"a":1}'; do
    printf "$bytes" >short.ckpt
    says "a file of $(wc -c <short.ckpt | tr -d ' ') bytes" 1 "is too short, .* got $(wc -c <short.ckpt | tr -d ' ') bytes" \
        "$converter" short.ckpt out.safetensors
done
says "an empty file" 1 'is an empty file' "$converter" empty.ckpt out.safetensors
head -c 200 two.ckpt >cut.ckpt
says "a file cut short" 1 'cut.ckpt: ' "$converter" cut.ckpt out.safetensors
# What changes a model and is none. word: 768 values, a word's features.
word=$(printf %s "$tensor" | sed 's/K.001.205K.001.205/M\\000\\003\\205K\\000\\205/')
key() { printf 'U\\%03o%s' ${#1} "$1"; } # as a format
adapter() { # WHAT NAME…: tensors of these names
    what=$1
    names=
    shift
    for name in "$@"; do names="$names$(key "$name")$tensor"; done
    old adapter.ckpt "}($(key state_dict)}(${names}uu"
    says "$what: $1" 1 "adapter.ckpt: is $what.*, wanted the checkpoint of a model" "$converter" adapter.ckpt out.safetensors
    says "$what: $1, --key" 1 "is $what" "$converter" --key state_dict adapter.ckpt out.safetensors
}
adapter 'a LoRA' lora_unet_down_blocks_0_attn1_to_q.lora_down.weight lora_unet_down_blocks_0_attn1_to_q.alpha
adapter 'a LoRA' module.unet.mid_block.to_q.lora_A.weight module.unet.mid_block.to_q.lora_B.weight
adapter 'a LoRA' mid_block.attn1.processor.to_q_lora.up.weight mid_block.attn1.processor.to_q_lora.down.weight
adapter 'a LoHa' lora_unet_x.hada_w1_a lora_unet_x.hada_w1_b
adapter 'a ControlNet' control_model.input_blocks.0.0.weight control_model.zero_convs.0.0.weight
adapter 'a ControlNet' controlnet_cond_embedding.conv_in.weight down_blocks.0.resnets.0.conv1.weight
adapter 'a ControlNet' input_hint_block.0.weight zero_convs.0.0.weight
adapter 'a T2I-Adapter' body.0.block1.weight body.0.block2.weight
adapter 'an IP-Adapter' image_proj.proj.weight ip_adapter.1.to_k_ip.weight
adapter 'a textual-inversion embedding' emb_params
embedding() { # NAME PICKLE
    old embedding.pt "$2"
    says "an embedding: $1" 1 'embedding.pt: is a textual-inversion embedding' "$converter" embedding.pt out.safetensors
}
embedding "diffusers'" "}($(key '<cat-toy>')${word}u"
embedding 'two words' "}($(key '<cat>')${word}$(key '<toy>')${word}u"
embedding 'web UI' "}($(key string_to_token)}($(key '*')${tensor}u$(key string_to_param)}($(key '*')${word}u$(key name)$(key cat)u"
# One part, a whole model with a LoRA or a ControlNet in it, and what is nothing of Stable Diffusion's, are converted.
taken() { # NAME…
    names=
    for name in "$@"; do names="$names$(key "$name")$tensor"; done
    old taken.ckpt "}(${names}u"
    says "taken: $*" 0 "out.safetensors: $# tensors" "$converter" taken.ckpt out.safetensors
}
taken first_stage_model.decoder.conv_in.weight first_stage_model.decoder.conv_in.bias
taken model.diffusion_model.out.2.bias first_stage_model.a.bias cond_stage_model.transformer.text_model.a.bias lora_up.weight control_model.a.bias
taken decoder.layers.0.weight visual.proj.weight model.0.weight shared.weight
taken weight bias
if [ -e EXECUT ]; then fail "a pickle was executed"; else passed=$((passed + 1)); fi

line="$passed passed, $failed failed"
echo "field_checkpoints: $line"
[ -z "$counts" ] || echo "$line" >"$counts"
[ $failed = 0 ]
