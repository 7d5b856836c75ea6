#!/bin/sh
# mistakes.sh - what tools/compare says of a port that has one deliberate mistake. A copy of the sources gets one at a time,
# makes the same picture, and its trace is held against the right one: compare must fail, name the first tensor that the
# mistake touches, and (unless only "no pattern" is honest there) say what it looks like.
#
#   sh tests/sh/mistakes.sh BUILD_DIR COMPARE SYNTH [PATTERN]
#
# A line of the table: what is wrong | file | perl substitution | first wrong tensor (shell pattern) | in what compare says
# (extended regular expression). A substitution that changes nothing is an error: the table must follow the code.
set -u
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
root=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -ge 3 ] || { echo "usage: mistakes.sh BUILD_DIR COMPARE SYNTH [PATTERN]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
work=$(absolute "$1") compare=$(absolute "$2") synth=$(absolute "$3") only=${4:-}
mkdir -p "$work" || exit 2
CC=${CC:-cc}
FLAGS="-std=c99 -ffp-contract=off -O1 -I$root"
for f in -march=native -mcpu=native; do     # fma without hardware would take minutes
    if echo 'int main(void) { return 0; }' | $CC $f -x c - -o "$work/probe" 2>/dev/null; then FLAGS="$FLAGS $f"; break; fi
done

B='step.0.cond.input_blocks.1.1.transformer_blocks.0'
R='step.0.cond.input_blocks.1.0'
table() {
    grep -v '^#' <<TABLE
token k in column k, not k + 1 | unet.c | s/FLIS_TOKENS \+ k \+ 1\]/FLIS_TOKENS + k]/ | $B.attn2.mask | mask off by one column
class -1 is masked | unet.c | s/if \(rca->class_ids\[k\] == -1\) continue;// | $B.attn2.mask | columns from 5 to 8 are closed that are open everywhere in REF
PIL's rule for the label maps | flis.c | s/floor\(\(double\)\(\(float\)i \* scale\)\)/floor(((double)i + 0.5) * scale)/ | $B.attn2.mask | nearest-neighbour rule
layout transposed | flis.c | s/out\[y \* out_w \+ x\] = row\[torch_source/out[x * out_w + y] = row[torch_source/ | $B.attn2.mask | H and W swapped
closed scores are -1, not -max | tensor.c | s/out\[j\] = -REAL_MAX/out[j] = -1/g; s/\? -REAL_MAX : score\[j\]/? -1 : score[j]/ | clip.encoder.layers.0.self_attn | causal mask
no mask in the middle block | unet.c | s/if \(!config->attention\[level\] && level \+ 1 < config->levels\) continue/if (level + 1 == config->levels) continue/ | *.attn2.weights | mask is not applied
the mask is not used at all | unet.c | s/rectified = \{\.attended = .*?\};/rectified = {0};/ | $B.attn2.weights | mask is not applied
self-attention is masked too | unet.c | s/mask, name, module\);\n    flis_tensor \*y = flis_attention\(ctx, q, k, v, heads, scale, mask\)/mask, name, module);\n    if (!text) mask.causal = true;\n    flis_tensor *y = flis_attention(ctx, q, k, v, heads, scale, mask)/ | $B.attn1 | every index of tokens but the last
unconditional pass is rectified too | flis.c | s/g->uncond, NULL, "uncond\."/g->uncond, g->rca, "uncond."/ | step.0.uncond.input_blocks.1.1.transformer_blocks.0.attn2.weights | 0 in OTHER only|per row|per index
cond and uncond swapped | flis.c | s/g->context, g->rca, "cond\.", eps\)/g->uncond, NULL, "cond.", eps)/; s/g->uncond, NULL, "uncond\.", uncond\)/g->context, g->rca, "uncond.", uncond)/ | $B.attn2.to_k | cond and uncond swapped
ResBlocks with eps 1e-6 | unet.c | s/RESBLOCK_EPS = 1e-5/RESBLOCK_EPS = 1e-6/ | $R.in_layers.0 | another eps: 1e-06 instead of 1e-05
SpatialTransformers with eps 1e-5 | unet.c | s/TRANSFORMER_EPS = 1e-6/TRANSFORMER_EPS = 1e-5/ | step.0.cond.input_blocks.1.1.norm | another eps: 1e-05 instead of 1e-06
autoencoder with eps 1e-5 | vae.c | s/VAE_EPS = 1e-6/VAE_EPS = 1e-5/ | decode.decoder.mid.block_1.norm[12] | another eps: 1e-05 instead of 1e-06
layer norm with eps 1e-6 | tensor.c | s/\(double\)c \+ 1e-5\);\n        for/(double)c + 1e-6);\n        for/ | clip.encoder.layers.0.layer_norm1 | another eps: 1e-06 instead of 1e-05
group norm's variance by n - 1 | tensor.c | s/slope\[k\] = a->weight\[k\] \/ sqrt\(variance\[k\]/slope[k] = a->weight[k] \/ sqrt(variance[k] * (double)(places * c \/ a->groups) \/ ((double)(places * c \/ a->groups) - 1)/ | $R.in_layers.0 | divided by n - 1
GEGLU gates with the first half | tensor.c | s/out\[k\] = value\[k\] \* gelu\(gate\[k\]\)/out[k] = gate[k] * gelu(value[k])/ | $B.ff.net.0 | swapped halves: value and gate
tanh GELU | tensor.c | s/return \(flis_real\)\(x \* 0\.5 \* erfc_with\(.*?\)\);/return (flis_real)((double)x \/ (1 + flis_exp(-1.5957691216057308 * ((double)x + 0.044715 * x * x * x))));/ | $B.ff.net.0 | tanh GELU instead of erf
quick GELU where GELU is exact | tensor.c | s/return \(flis_real\)\(x \* 0\.5 \* erfc_with\(.*?\)\);/return swish(x, 1.702);/ | $B.ff.net.0 | quick GELU instead of erf
CLIP with SiLU | clip.c | s/flis_quick_gelu\(ctx, y\)/flis_silu(ctx, y)/ | clip.encoder.layers.0.mlp | .
no causal mask | clip.c | s/\.causal = true/.causal = false/ | clip.encoder.layers.0.self_attn | causal mask is missing
no final layer norm | clip.c | s/x = flis_layer_norm\(ctx, x, &clip->norm_weight, &clip->norm_bias\);// | clip.final_layer_norm | stale|equals
q scaled before its bias | clip.c | s/flis_linear\(ctx, normed, &l->q_w, &l->q_b, NULL\)/flis_linear(ctx, normed, &l->q_w, NULL, NULL)/ | clip.encoder.layers.0.self_attn.q_proj | constant per index of channels
sines before cosines | unet.c | s/\(flis_real\)flis_cos\(angle\)/(flis_real)flis_sin(angle)/; s/out\[half \+ i\] = \(flis_real\)flis_sin/out[half + i] = (flis_real)flis_cos/ | step.0.cond.time_embed.0 | cos, sin
timesteps without the + 1 | sampler.c | s/i \* stride \+ 1;/i * stride;/ | step.0.cond.time_embed.0 | time embedding
attention scaled by all channels | unet.c | s/\(double\)\(x->c \/ heads\)/(double)x->c/ | $B.attn1.scores | sqrt\(2\)
no scale in attention | unet.c | s/1\.0 \/ sqrt\(\(double\)\(x->c \/ heads\)\)/1.0/ | $B.attn1.scores | factor of 4
no scale in the autoencoder's attention | vae.c | s/1\.0 \/ sqrt\(\(double\)x->c\)/1.0/ | decode.decoder.mid.attn_1.proj_out | one head
k and v swapped | unet.c | s/(k = flis_linear\(ctx, source, &a->)k,/\$1v,/; s/(v = flis_linear\(ctx, source, &a->)v,/\$1k,/ | $B.attn1.to_k | equals another tensor, .*attn1.to_v
queries from the text's layer norm | unet.c | s/q = flis_linear\(ctx, normed, &a->q/q = flis_linear(ctx, x, &a->q/ | $B.attn1.to_q | .
no bias in to_out | unet.c | s/flis_linear\(ctx, x, w, b, NULL\);\n/flis_linear(ctx, x, w, NULL, NULL);\n/ | $B.attn1 | constant per index of channels: a bias
no residual around attention | unet.c | s/return flis_add\(ctx, y, residual\);/return strcmp(module, "attn1") ? flis_add(ctx, y, residual) : y;/ | $B.norm2 | proj_in is missing in the norm's input
# with one channel a group, as in block 1, a norm takes away what is added to a whole channel
no time embedding in ResBlocks | unet.c | s/flis_add_to_all\(ctx, y, emb\)/y/ | step.0.cond.input_blocks.3.0.out_layers.0 | emb_layers.1 is missing in the norm's input
no SiLU before emb_layers | unet.c | s/return flis_silu\(ctx, y\);\n}/return y;\n}/ | $R.emb_layers.1 | SiLU
no residual in ResBlocks | unet.c | s/y = flis_conv_add\(ctx, y, &r->out_w, &r->out_b, skip, name, "\.out_layers\.3"\);/y = flis_conv(ctx, y, &r->out_w, &r->out_b, FLIS_SAME, NULL); flis_trace(ctx, y, "%s.out_layers.3", name);/ | $R | stale: equals the tensor before
U-Net pads right and below only | unet.c | s/FLIS_STRIDE2/FLIS_STRIDE2_ASYMMETRIC/ | step.0.cond.input_blocks.2.0 | pads 1 on every side
skip before h | unet.c | s/flis_concat\(ctx, x, skip\)/flis_concat(ctx, skip, x)/ | step.0.cond.output_blocks.0.0.in_layers.0 | skip order|swapped halves
wrong guidance formula | sampler.c | s/s->uncond\[i\] \+ scale \* \(e\[i\] - s->uncond\[i\]\)/e[i] + scale * (e[i] - s->uncond[i])/ | step.0.next.cond.input_blocks.0 | .
history holds what was stepped with | sampler.c | s/memcpy\(oldest, s->e,/memcpy(oldest, s->eps_prime,/ | step.[1-9].x_prev | .
alphas_prev\[0\] = 1 | sampler.c | s/: schedule->alpha_bar32\[0\]/: 1/ | step.[0-9].x_prev | .
noise in another order | sampler.c | s/x\[j\] = radius \* cosine;\n        x\[j \+ BOX \/ 2\] = radius \* sine;/x[j] = radius * sine;\n        x[j + BOX \/ 2] = radius * cosine;/g | x_T | same values|interleaved|order|halves
latents divided by nothing | flis.c | s/flis_vae_decode\(ctx, vae, flis_scale\(ctx, z, \(double\)factor\)\)/(void)factor, flis_vae_decode(ctx, vae, z)/; s/= \(void\)factor, / = / | decode.post_quant_conv | factor
upsample shifted by one | tensor.c | s/\(size_t\)\(row >> halved\)/(size_t)((row - (halved && row > 0)) >> halved)/ | step.0.cond.output_blocks.1.2 | shifted by one along H
TABLE
}

cd "$work" || exit 2
[ -f model.safetensors ] || "$synth" tinyA model.safetensors || exit 2
awk 'BEGIN { print "#version: 0.2"; s = "abcdefghijklmnopqrstuvwxyz"
    for (n = i = 1; i <= 26; i++) for (k = 1; k <= 26 && n <= 486; k++) if (i != k) { n++
        print substr(s, i, 1) " " substr(s, k, 1) } }' >merges.txt
awk 'BEGIN { print "P2 64 64 255"; for (y = 0; y < 64; y++) for (x = 0; x < 64; x++)
    print (x < 21 ? 7 : y < 27 ? 3 : (x - 40) * (x - 40) + (y - 45) * (y - 45) < 150 ? 11 : 9) }' >label.pgm
printf '{"text_label_mapping": {"sea": 7, "sky": 3, "in oil": -1, "tree": 11}, "layout_path": "label.pgm"}\n' >layout.json
sources="tensor flis clip unet vae sampler"
for f in $sources; do $CC $FLAGS -c "$root/$f.c" -o $f.o || exit 2; done
$CC $FLAGS -c "$root/tools/flis/main.c" -o cli.o || exit 2
objects=""
for f in $sources cli; do objects="$objects $f.o"; done
# picture FLIS TRACE: three steps of DDIM, every intermediate
picture() {
    "$1" generate -m model.safetensors --vocab merges.txt -j layout.json -o p.png --size 128 --steps 4 -q --trace "$2" 2>err ||
        { cat err; return 1; }
}
$CC $objects -o right -lm && picture ./right right.st || exit 2
"$compare" -q right.st right.st || { echo "the right trace differs from itself"; exit 1; }

passed=0 failed=0
table >table
while IFS='|' read -r what file change first says; do
    what=$(echo "$what" | sed 's/^ *//; s/ *$//') file=$(echo $file) first=$(echo "$first" | tr -d ' ')
    says=$(echo "$says" | sed 's/^ *//; s/ *$//')
    case $what in *"$only"*) ;; *) continue ;; esac
    perl -0pe "$change" "$root/$file" >mutant.c
    if cmp -s "$root/$file" mutant.c; then
        echo "FAIL $what: the substitution no longer matches $file"
        failed=$((failed + 1))
        continue
    fi
    mutants=$(echo "$objects" | sed "s# $(basename "$file" .c).o# mutant.o#")
    if ! $CC $FLAGS -c mutant.c -o mutant.o || ! $CC $mutants -o wrong -lm || ! picture ./wrong wrong.st; then
        echo "FAIL $what: does not build or run"
        failed=$((failed + 1))
        continue
    fi
    "$compare" right.st wrong.st >out
    status=$?
    name=$(sed -n 's/^first wrong: *\([^ ]*\).*/\1/p' out)
    said=$(sed -n '/^first wrong/,$p' out | sed '1,2d' | tr '\n' ' ' | sed 's/  */ /g; s/^ //')
    ok=ok
    case $name in $first) ;; *) ok="FAIL (wanted $first)" ;; esac
    echo "$said" | grep -Eq -e "$says" || ok="$ok FAIL (wanted \"$says\")"
    [ $status = 1 ] || ok="FAIL (exit $status)"
    case $ok in ok) passed=$((passed + 1)) ;; *) failed=$((failed + 1)) ;; esac
    echo "$what | ${name:-none} | $said | $ok"
done <table
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
