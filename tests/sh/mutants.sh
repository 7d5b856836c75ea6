#!/bin/sh
# mutants.sh - each item of the design's "Easy to get wrong" has a named check; here each check is shown to fail on its
# wrong variant. A copy of the sources gets one deliberate mistake at a time, is built, and the check must fail.
#
#   sh tests/sh/mutants.sh BUILD_DIR [ITEM]
#
# A line of the table: item | what is wrong | file | perl substitution | checks, at least one of which must fail.
# A substitution that changes nothing is an error: the table must follow the code.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
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
2 | closed scores are -1, not -max | tensor.c | s/out\[j\] = -REAL_MAX/out[j] = -1/g | test_ops_attention
2 | no RCA in the middle block | unet.c | s/&& level \+ 1 < config->levels\) continue/) continue/ | test_unet_blocks_boat
2 | RCA at full size only | unet.c | s/\.attended = \(const uint8_t \*const \*\)pass->open\[level\]/.attended = level ? NULL : (const uint8_t *const *)pass->open[level]/ | test_unet_blocks_boat
3 | the unconditional pass is rectified too | flis.c | s/g->uncond, NULL, "uncond\."/g->uncond, g->rca, "uncond."/ | test_pipeline_plms10
4 | torch's rule used for PIL's | flis.c | s/\(2 \* \(uint64_t\)y \+ 1\) \* h/(2 * (uint64_t)y) * h/ | test_label_* test_layout_* test_pil_*
4 | PIL's rule used for torch's | flis.c | s/floor\(\(double\)\(\(float\)i \* scale\)\)/floor(((double)i + 0.5) * scale)/ | test_unet_mask test_label_*
5 | 76 tokens are taken | clip.c | s/n > FLIS_PHRASE_TOKENS\)/n > FLIS_PHRASE_TOKENS + 1)/; s/out->classes > FLIS_PHRASE_TOKENS\)/out->classes > FLIS_PHRASE_TOKENS + 1)/ | test_tokens_limit
5 | tokens counted per phrase | clip.c | s/strcspn\(item, " "\)/strlen(item)/ | test_tokens_alignment
6 | latents taken for square | unet.c | s/w = x->w >> level;/w = h;/ | test_unet_not_square
7 | ResBlocks with 1e-6 | unet.c | s/RESBLOCK_EPS = 1e-5/RESBLOCK_EPS = 1e-6/ | test_unet_eps_of_norms
7 | SpatialTransformers with 1e-5 | unet.c | s/TRANSFORMER_EPS = 1e-6/TRANSFORMER_EPS = 1e-5/ | test_unet_eps_of_norms
7 | autoencoder with 1e-5 | vae.c | s/VAE_EPS = 1e-6/VAE_EPS = 1e-5/ | test_vae_eps_of_norms
7 | layer norm with 1e-6 | tensor.c | s/\(double\)c \+ 1e-5\)/(double)c + 1e-6)/g | test_ops_layer_norm
8 | GEGLU gates with the first half | tensor.c | s/out\[k\] = value\[k\] \* gelu\(gate\[k\]\)/out[k] = gate[k] * gelu(value[k])/ | test_tensor_elementwise
8 | quick GELU where GELU is exact | tensor.c | s/return \(flis_real\)\(x \* 0\.5 \* erfc_with\(.*\)\);/return swish(x, 1.702);/ | test_tensor_elementwise
8 | CLIP with SiLU | clip.c | s/flis_quick_gelu\(ctx, y\)/flis_silu(ctx, y)/ | test_clip_layers
9 | no causal mask | clip.c | s/\.causal = true/.causal = false/ | test_clip_layers
9 | no final layer norm | clip.c | s/x = flis_layer_norm\(ctx, x, &clip->norm_weight, &clip->norm_bias\);// | test_clip_layers
9 | q scaled before its bias | clip.c | s/\*q = flis_linear\(ctx, normed,/*q = flis_linear(ctx, flis_scale(ctx, normed, 1.0 \/ sqrt((double)d)),/; s/q = flis_scale\(ctx, q, [^;]*;// | test_clip_layers
10 | sines before cosines | unet.c | s/\(flis_real\)flis_cos\(angle\)/(flis_real)flis_sin(angle)/ | test_unet_time_embedding
10 | frequencies to half - 1 | unet.c | s/\(double\)i \/ \(double\)half\)/(double)i \/ (double)(half - 1))/ | test_unet_time_embedding
11 | betas linear | sampler.c | s/root \* root/(0.00085 + (0.0120 - 0.00085) * t \/ 999)/ | test_sampler_schedule
11 | timesteps without the + 1 | sampler.c | s/i \* stride \+ 1;/i * stride;/ | test_sampler_steps
11 | crashing step counts are taken | sampler.c | s/\(count - 1\) \* stride \+ 1 >= FLIS_TIMESTEPS/false/ | test_sampler_refused_steps
12 | alphas_prev[0] = 1 | sampler.c | s/: schedule->alpha_bar32\[0\]/: 1/ | test_sampler_steps
13 | PLMS steps from the improved x | sampler.c | s/(e_next\)\) return false;)/$1 memcpy(s->x, s->x_prev, s->count * sizeof *s->x);/ | test_sampler_replay
13 | history holds what was stepped with | sampler.c | s/memcpy\(oldest, s->e,/memcpy(oldest, s->eps_prime,/ | test_sampler_replay
13 | one evaluation in the first step | sampler.c | s/if \(!guided_eps\(ctx, s, s->x_prev.*?return false;/memcpy(s->e_next, s->e, s->count * sizeof *s->e);/ | test_sampler_replay
14 | no noise drawn where sigma is 0 | sampler.c | s/    flis_randn\(&ctx->rng, s->noise, s->count\);/    if (sigma != 0) flis_randn(&ctx->rng, s->noise, s->count);/ | test_sampler_noise_stays_in_step
15 | the last 16 are not redrawn | sampler.c | s/if \(count % BOX\) \{/if (0) {/g | test_sampler_rng
15 | vector path below 16 values too | sampler.c | s/if \(count < BOX\) \{/if (count < 1) {/g | test_sampler_rng_sequences
15 | sine and cosine swapped | sampler.c | s/x\[j\] = radius \* cosine;\n        x\[j \+ BOX \/ 2\] = radius \* sine;/x[j] = radius * sine;\n        x[j + BOX \/ 2] = radius * cosine;/g | test_sampler_rng
15 | Philox with 9 rounds | sampler.c | s/round < 10/round < 9/ | test_sampler_philox
16 | attention scaled by all channels | unet.c | s/\(double\)\(x->c \/ heads\)/(double)x->c/ | test_unet_blocks_plain
16 | no scale in the autoencoder | vae.c | s/1\.0 \/ sqrt\(\(double\)x->c\)/1.0/ | test_vae_decode
17 | the encoder pads on both sides | vae.c | s/FLIS_STRIDE2_ASYMMETRIC/FLIS_STRIDE2/ | test_vae_encode
17 | the U-Net pads right and below only | unet.c | s/FLIS_STRIDE2/FLIS_STRIDE2_ASYMMETRIC/ | test_unet_blocks_plain
18 | bytes rounded | flis.c | s/\(uint8_t\)\(255 \* v\)/(uint8_t)(255 * v + (flis_real)0.5)/ | test_vae_bytes
18 | latents divided by nothing | flis.c | s/flis_scale\(ctx, z, \(double\)factor\)/(void)factor, z/; s/flis_vae_decode\(ctx, vae, \(void\)factor, z\)/flis_vae_decode(ctx, vae, ((void)factor, z))/ | test_vae_bytes
19 | skip before h | unet.c | s/flis_concat\(ctx, x, skip\)/flis_concat(ctx, skip, x)/ | test_unet_blocks_plain
20 | one chain over all of k | tensor.c | s/BLOCK = 256,/BLOCK = 1 << 20,/ | test_ops_linear
TABLE
}

sources="tensor flis clip unet vae sampler"
for f in $sources; do $CC $FLAGS -c "$root/$f.c" -o "$work/$f.o" || exit 2; done
tests=""
for f in "$root"/tests/unit/*.c; do
    o=$work/$(basename "$f" .c).o
    $CC $FLAGS  -c "$f" -o "$o" || exit 2
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
