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
says "an empty file" 1 'is an empty file' "$converter" empty.ckpt out.safetensors
head -c 200 two.ckpt >cut.ckpt
says "a file cut short" 1 'cut.ckpt: ' "$converter" cut.ckpt out.safetensors
if [ -e EXECUT ]; then fail "a pickle was executed"; else passed=$((passed + 1)); fi

line="$passed passed, $failed failed"
echo "field_checkpoints: $line"
[ -z "$counts" ] || echo "$line" >"$counts"
[ $failed = 0 ]
