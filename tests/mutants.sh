#!/bin/sh
# mutants.sh - each item of the design's "Easy to get wrong" has a named check; here each check is shown to fail on its
# wrong variant. A copy of the sources gets one deliberate mistake at a time, is built, and the check must fail.
#
#   sh tests/mutants.sh BUILD_DIR [ITEM]
#
# A line of the table: item | what is wrong | file | perl substitution | checks, at least one of which must fail.
# A substitution that changes nothing is an error: the table must follow the code.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:?usage: mutants.sh BUILD_DIR [ITEM]}
only=${2:-}
mkdir -p "$work" || exit 2
work=$(cd "$work" && pwd)
CC=${CC:-cc}
FLAGS="-std=c99 -ffp-contract=off -O1 -I$root -DTESTS_DIR=\"$root/tests\""

table() {
    grep -v '^#' <<'TABLE'
1 | column k instead of k + 1 | unet.c | s/FLIS_TOKENS \+ k \+ 1\]/FLIS_TOKENS + k]/ | test_unet_mask_edges
1 | class -1 is masked | unet.c | s/if \(rca->class_ids\[k\] == -1\) continue;// | test_unet_mask_edges
2 | closed scores are -1, not -max | tensor.c | s/out\[j\] = -REAL_MAX/out[j] = -1/g | test_tensor_attention
2 | no RCA in the middle block | unet.c | s/&& level \+ 1 < config->levels\) continue/) continue/ | test_unet_blocks_boat
2 | RCA at full size only | unet.c | s/\.open = \(const uint8_t \*const \*\)pass->open\[level\]/.open = level ? NULL : (const uint8_t *const *)pass->open[level]/ | test_unet_blocks_boat
3 | the unconditional pass is rectified too | flis.c | s/MUTANT_UNCOND/MUTANT_UNCOND/ | test_pipeline_plms10
4 | torch's rule used for PIL's | flis.c | s/MUTANT_PIL/MUTANT_PIL/ | test_files_*
5 | 76 tokens are taken | clip.c | s/MUTANT_75/MUTANT_75/ | test_tokens_*
6 | latents taken for square | unet.c | s/w = x->w >> level;/w = h;/ | test_unet_not_square
7 | ResBlocks with 1e-6 | unet.c | s/RESBLOCK_EPS = 1e-5/RESBLOCK_EPS = 1e-6/ | test_unet_eps_of_norms
7 | SpatialTransformers with 1e-5 | unet.c | s/TRANSFORMER_EPS = 1e-6/TRANSFORMER_EPS = 1e-5/ | test_unet_eps_of_norms
7 | autoencoder with 1e-5 | vae.c | s/VAE_EPS = 1e-6/VAE_EPS = 1e-5/ | test_vae_eps_of_norms
7 | layer norm with 1e-6 | tensor.c | s/\+ 1e-5\)/+ 1e-6)/ | test_tensor_layer_norm
8 | GEGLU gates with the first half | tensor.c | s/out\[k\] = value\[k\] \* gelu\(gate\[k\]\)/out[k] = gate[k] * gelu(value[k])/ | test_tensor_elementwise
8 | quick GELU where GELU is exact | tensor.c | s/return \(real\)\(x \* 0\.5 \* erfc_with\(.*\)\);/return swish(x, 1.702);/ | test_tensor_elementwise
8 | CLIP with SiLU | clip.c | s/flis_quick_gelu\(ctx, y\)/flis_silu(ctx, y)/ | test_clip_layers
9 | no causal mask | clip.c | s/\.causal = true/.causal = false/ | test_clip_layers
9 | no final layer norm | clip.c | s/x = flis_layer_norm\(ctx, x, &clip->gain, &clip->bias\);// | test_clip_layers
9 | q scaled before its bias | clip.c | s/flis_scale\(ctx, flis_linear\(ctx, normed, &l->q_w, &l->q_b, NULL\), (1\.0 \/ sqrt\(\(double\)d\))\)/flis_linear(ctx, flis_scale(ctx, normed, $1), &l->q_w, &l->q_b, NULL)/ | test_clip_layers
10 | sines before cosines | unet.c | s/\(real\)flis_cos\(angle\)/(real)flis_sin(angle)/ | test_unet_time_embedding
10 | frequencies to half - 1 | unet.c | s/\(double\)i \/ \(double\)half\)/(double)i \/ (double)(half - 1))/ | test_unet_time_embedding
16 | attention scaled by all channels | unet.c | s/\(double\)\(x->c \/ heads\)/(double)x->c/ | test_unet_blocks_plain
16 | no scale in the autoencoder | vae.c | s/1\.0 \/ sqrt\(\(double\)x->c\)/1.0/ | test_vae_decode
17 | the encoder pads on both sides | vae.c | s/FLIS_DOWN_AFTER/FLIS_DOWN_BOTH/ | test_vae_encode
17 | the U-Net pads right and below only | unet.c | s/FLIS_DOWN_BOTH/FLIS_DOWN_AFTER/ | test_unet_blocks_plain
19 | skip before h | unet.c | s/flis_concat\(ctx, y, skip\[--skips\]\)/flis_concat(ctx, skip[--skips], y)/ | test_unet_blocks_plain
20 | one chain over all of k | tensor.c | s/BLOCK = 256,/BLOCK = 1 << 20,/ | test_tensor_linear
TABLE
}

sources="tensor flis clip unet vae sampler"
for f in $sources; do $CC $FLAGS -c "$root/$f.c" -o "$work/$f.o" || exit 2; done
tests=""
for f in "$root"/tests/test_*.c "$root/tests/run.c" "$root/tests/trace.c"; do
    o=$work/$(basename "$f" .c).o
    $CC $FLAGS -I"$root/tests" -c "$f" -o "$o" || exit 2
    tests="$tests $o"
done
objects=""
for f in $sources; do objects="$objects $work/$f.o"; done

passed=0 failed=0
table >"$work/table"
while IFS='|' read -r item what file change checks; do
    item=$(echo $item) file=$(echo $file) what=$(echo "$what" | sed 's/^ *//; s/ *$//')
    [ -z "$only" ] || [ "$only" = "$item" ] || continue
    perl -0pe "$change" "$root/$file" >"$work/mutant.c"
    if cmp -s "$root/$file" "$work/mutant.c"; then
        echo "item $item: $what: the substitution no longer matches $file"
        failed=$((failed + 1))
        continue
    fi
    mutant_objects=$(echo "$objects" | sed "s#$work/$(basename "$file" .c).o#$work/mutant.o#")
    if ! $CC $FLAGS -c "$work/mutant.c" -o "$work/mutant.o" || ! $CC $mutant_objects $tests -o "$work/run" -lm; then
        echo "item $item: $what: does not build"
        failed=$((failed + 1))
    elif "$work/run" $checks >"$work/out" 2>&1; then
        echo "item $item: $what: NOT NOTICED by $checks"
        failed=$((failed + 1))
    else
        echo "item $item: $what: noticed by$checks"
        passed=$((passed + 1))
    fi
done <"$work/table"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
