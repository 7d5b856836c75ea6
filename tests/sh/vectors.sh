#!/bin/sh
# vectors.sh - each conformance vector rejects its wrong variant, and the right answers pass. All mistakes below go into one
# copy of the sources, each behind a number; the answers of every number are graded by `flis conformance`.
#
#   sh tests/sh/vectors.sh FLIS [COUNTS]
#
# A line of the table: what is wrong | vectors, all of which must fail | file | perl substitution, in which ON is true where
# the mistake is wanted. A substitution that changes nothing is an error: the table must follow the code. Every vector of the
# manifest must be in some line. Also: the committed vectors are what tools/golden writes.
# Prints the lines that went wrong (all with VERBOSE=1) and "N passed, N failed"; the latter goes to the file COUNTS too.
set -u
LC_ALL=C
OMP_WAIT_POLICY=passive
export LC_ALL OMP_WAIT_POLICY
[ $# -ge 1 ] || { echo "usage: vectors.sh FLIS [COUNTS]" >&2; exit 2; }
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
root=$(cd "$(dirname "$0")/../.." && pwd)
flis=$(absolute "$1") counts=${2:+$(absolute "$2")} golden=$root/tests/golden
[ -z "$counts" ] || rm -f "$counts"
if ! command -v perl >/dev/null 2>&1; then
    echo "note: no perl here: the conformance vectors' wrong variants are not tried"
    [ -z "$counts" ] || echo "0 passed, 0 failed" >"$counts"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/flis-vectors.XXXXXX") || exit 2
trap 'cd /; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
cd "$work" || exit 2
CC=${CC:-cc}
FLAGS="-std=c99 -ffp-contract=off -O1 -I$root -I$work"
for f in -march=native -mcpu=native; do     # fma without hardware is slow
    if echo 'int main(void) { return 0; }' | $CC $f -x c - -o probe 2>/dev/null; then FLAGS="$FLAGS $f"; break; fi
done

table() {
    grep -v '^#' <<'TABLE'
# ---- operations
a bias is left out | op.linear op.conv.same op.conv.1x1 | tensor.c | s/if \(bias\) value \+= bias\[j\];/if (bias && !ON) value += bias[j];/
fp16 arithmetic | op.linear unet.layout unet.plain vae.decode clip | tensor.c | s/ctx->threads = 1;\n/ctx->threads = 1;\n    if (ON) ctx->precision = FLIS_AS_F16;\n/
kernels are flipped | op.conv.same unet.plain vae.decode | tensor.c | s/\(int64_t\)\(tap \/ 3\) - pad/(int64_t)((ON ? 8 - tap : tap) \/ 3) - pad/; s/\(int64_t\)\(tap % 3\) - pad/(int64_t)((ON ? 8 - tap : tap) % 3) - pad/
1x1 convolutions with H and W swapped | op.conv.1x1 vae.decode | tensor.c | s/const int64_t at = \(int64_t\)column \* t->stride/if (ON && is_linear(g)) {\n        const size_t places = g->x->h * g->x->w, m = column % places;\n        return t->row + (column - m + (m % g->x->w * g->x->h + m \/ g->x->w) % places) * g->x->c;\n    }\n    $&/
the U-Net pads right and below only | op.conv.down-both unet.down unet.plain | tensor.c | s/int64_t pad = g->kind == FLIS_STRIDE2_ASYMMETRIC \?/int64_t pad = (ON && g->kind == FLIS_STRIDE2) || g->kind == FLIS_STRIDE2_ASYMMETRIC ?/
the encoder pads on both sides | op.conv.down-after vae.down vae.encode | tensor.c | s/\|\| g->kind == FLIS_STRIDE2_ASYMMETRIC \? 0 : 1/|| (g->kind == FLIS_STRIDE2_ASYMMETRIC && !ON) ? 0 : 1/
the enlarged picture is shifted by one | op.conv.upsampled unet.up vae.up vae.decode | tensor.c | s/\(size_t\)\(row >> halved\)/(size_t)((row - (ON && halved && row > 0)) >> halved)/
group norm with 1e-6 everywhere | op.group-norm unet.eps.resblock unet.eps.out unet.small | tensor.c | s/slope\[k\] = a->weight\[k\] \/ sqrt\(variance\[k\] \+ a->eps\)/slope[k] = a->weight[k] \/ sqrt(variance[k] + (ON ? 1e-6 : a->eps))/
group norm with 1e-5 everywhere | op.group-norm.silu unet.eps.transformer vae.eps.resnet vae.eps.attention vae.eps.out | tensor.c | s/\? 1e-6 : a->eps\)/? 1e-6 : ON ? 1e-5 : a->eps)/
group norm's variance by n - 1 | op.group-norm unet.resblock.norm unet.out-norm | tensor.c | s/sqrt\(variance\[k\] \+ \(/sqrt(variance[k] * (ON ? (double)(places * c \/ a->groups) \/ ((double)(places * c \/ a->groups) - 1) : 1) + (/
group norm over channels that are 32 apart | op.group-norm unet.skip.norm | tensor.c | s/channel \+= part\[s \* c \+ k\];/channel += part[s * c + (ON ? k % width * groups + g : k)];/; s/out\[k\] = total \/ \(\(double\)places/out[ON ? k % width * groups + g : k] = total \/ ((double)places/
no SiLU behind group norm | op.group-norm.silu unet.plain | tensor.c | s/if \(a->silu\)\n            for \(size_t k = 0; k < c; k\+\+\) to\[k\]/if (a->silu && !ON)\n            for (size_t k = 0; k < c; k++) to[k]/
layer norm with 1e-6 | op.layer-norm | tensor.c | s/row_sum\(in, c, mean, true\) \/ \(double\)c \+ 1e-5\)/row_sum(in, c, mean, true) \/ (double)c + (ON ? 1e-6 : 1e-5))/
layer norm with 1e-12 | op.layer-norm | tensor.c | s/\? 1e-6 : 1e-5\)/? 1e-6 : ON ? 1e-12 : 1e-5)/
quick GELU for SiLU | op.silu unet.time-embed | tensor.c | s/swish_of\(ctx, x, 1\.0\)/swish_of(ctx, x, ON ? 1.702 : 1.0)/
SiLU for quick GELU | op.quick-gelu clip.mlp clip | tensor.c | s/swish_of\(ctx, x, 1\.702\)/swish_of(ctx, x, ON ? 1.0 : 1.702)/
tanh GELU | op.geglu unet.ff | tensor.c | s/inline flis_real gelu\(flis_real x\)\n\{\n/$&    if (ON) return (flis_real)((double)x \/ (1 + flis_exp(-1.5957691216057308 * ((double)x + 0.044715 * x * x * x))));\n/
quick GELU where GELU is exact | op.geglu unet.ff | tensor.c | s/inline flis_real gelu\(flis_real x\)\n\{\n/$&    if (ON) return swish(x, 1.702);\n/
GEGLU gates with the first half | op.geglu unet.ff | tensor.c | s/out\[k\] = value\[k\] \* gelu\(gate\[k\]\)/out[k] = ON ? gate[k] * gelu(value[k]) : value[k] * gelu(gate[k])/
the second addend is left out | op.add clip.last-layer vae.resnet | tensor.c | s/y->x\[i \* c \+ k\] = a->x\[i \* c \+ k\] \+ b->x\[i \* c \+ k\]/y->x[i * c + k] = a->x[i * c + k] + (ON ? 0 : b->x[i * c + k])/
the first sample's vector for all | op.add-to-all | tensor.c | s/v->x\[i \/ places \* c \+ k\]/v->x[(ON ? 0 : i \/ places * c) + k]/
nothing is scaled | op.scale vae.bytes clip | tensor.c | s/const flis_real by = \(flis_real\)factor;/const flis_real by = ON ? 1 : (flis_real)factor;/
skip before h | op.concat unet.skip.norm unet.skip-connection unet.plain | tensor.c | s/flis_tensor \*flis_concat\(.*?\)\n\{\n/$&    const flis_tensor *first = ON ? b : a;\n    b = ON ? a : b;\n    a = first;\n/
positions are left out | op.embed clip | tensor.c | s/from\[k\] \+ place\[k\]/from[k] + (ON ? 0 : place[k])/
no scale in attention | op.attention vae.attention vae.decode | tensor.c | s/\.scale = scale,/.scale = ON ? 1 : scale,/
softmax without its sum | op.attention unet.attn1 vae.attention | tensor.c | s/\(flis_real\)\(total\[i \* PANEL \+ j\] \/ sum\[j\]\)/(flis_real)(total[i * PANEL + j] \/ (ON ? 1 : sum[j]))/
no causal mask | op.attention.causal clip.attention clip | tensor.c | s/if \(a->mask\.causal\)/if (a->mask.causal && !ON)/
a token does not see itself | op.attention.causal clip.attention | tensor.c | s/if \(key \+ i > query \+ j\)/if (key + i + ON > query + j)/
closed scores are -1 | op.attention.masked unet.attn2.weights unet.attn2 | tensor.c | s/key \+ i\]\) out\[j\] = -REAL_MAX;/key + i]) out[j] = ON ? -1 : -REAL_MAX;/; s/\? -REAL_MAX : score\[j\]/? (ON ? -1 : -REAL_MAX) : score[j]/
closed scores are minus infinity | op.attention.masked | tensor.c | s/key \+ i\]\) out\[j\] = /$&ON ? (flis_real)-INFINITY : /
# ---- text
numbers are kept together | tokens.words | clip.c | s/if \(k == NUMBER\) return 1;\n    if \(k == LETTER/if (k == NUMBER && !ON) return 1;\n    if (k == NUMBER || k == LETTER/
contractions are not split | tokens.words | clip.c | s/if \(\*s == '<' \|\| \*s == '\\''\)/if (*s == '<' || (*s == '\\'' && !ON))/
pairs merge from left to right | tokens.merges | clip.c | s/return a\.merged != b\.merged/return !ON && a.merged != b.merged/
words without <\/w> | tokens.merges prompt | clip.c | s/\(i \+ 1 == length \? BYTES : 0\)/(i + 1 == length && !ON ? BYTES : 0)/
text is not lowered | tokens.case | clip.c | s/: lower_of\(c\)\)/: ON ? c : lower_of(c))/
white space is kept | tokens.case | clip.c | s/if \(!space && gap && out->count\) put\(ctx, out, ' '\);/$&\n        if (ON && space) put(ctx, out, '_');/
entities are kept | tokens.unicode | clip.c | s/entities && in->at\[i\] == '&'/!ON && entities && in->at[i] == '&'/
accents are kept apart | tokens.unicode | clip.c | s/fix_characters\(ctx, &w->spare, &w->next\);\n        delete_controls\(ctx, &w->next, &w->spare\);\n        normalise\(ctx, &w->spare, &w->next, &w->clean\);/fix_characters(ctx, &w->spare, &w->next);\n        delete_controls(ctx, &w->next, &w->spare);\n        if (ON) swap(&w->spare, &w->next);\n        else normalise(ctx, &w->spare, &w->next, &w->clean);/
BOS is among the tokens | tokens.none tokens.words | clip.c | s/if \(!e\.ids\) e\.ids/if (ON) put_id(&e, flis_vocab_bos(vocab) - 1);\n    if (!e.ids) e.ids/
tokens counted per phrase | prompt.words | clip.c | s/strcspn\(item, " "\)/(ON ? strlen(item) : strcspn(item, " "))/
a class per word | prompt prompt.words | clip.c | s/for \(long i = 0; i < n; i\+\+, out->classes\+\+\)/for (long i = 0; i < (ON ? 1 : n); i++, out->classes++)/
padding with 0 | prompt | clip.c | s/\? ids\[i - 1\] : flis_vocab_eos\(vocab\)/? ids[i - 1] : ON && i > out->tokens + 1 ? 0 : flis_vocab_eos(vocab)/
75 tokens are refused | prompt.full | clip.c | s/if \(n > FLIS_PHRASE_TOKENS\)/if (n > FLIS_PHRASE_TOKENS - ON)/
76 tokens are taken | prompt.too-long | clip.c | s/if \(n > FLIS_PHRASE_TOKENS - /if (n > FLIS_PHRASE_TOKENS + ON - /; s/if \(out->classes > FLIS_PHRASE_TOKENS\)/if (out->classes > (size_t)(FLIS_PHRASE_TOKENS + ON))/
special tokens inside a phrase are taken | prompt.special | clip.c | s/if \(\(\*ids\)\[i\] < flis_vocab_bos\(vocab\)\) continue;/if (ON || (*ids)[i] < flis_vocab_bos(vocab)) continue;/
no bias of queries | clip.q clip | clip.c | s/flis_linear\(ctx, normed, &l->q_w, &l->q_b, NULL\)/flis_linear(ctx, normed, &l->q_w, ON ? NULL : &l->q_b, NULL)/
queries scaled before their bias | clip.attention clip | clip.c | s/q = flis_scale\(ctx, q, 1\.0 \/ sqrt\(\(double\)d\)\);/q = ON ? flis_linear(ctx, flis_scale(ctx, normed, 1.0 \/ sqrt((double)d)), &l->q_w, &l->q_b, NULL) : flis_scale(ctx, q, 1.0 \/ sqrt((double)d));/
no final layer norm | clip | clip.c | s/x = flis_layer_norm\(ctx, x, &clip->norm_weight, &clip->norm_bias\);/if (!ON) $&/
the last layer but one | clip | clip.c | s/i < clip->config\.layers; i\+\+\) x = /i < clip->config.layers - ON; i++) x = /
no residual around the MLP | clip.last-layer | clip.c | s/y = flis_add\(ctx, y, x\);/y = flis_add(ctx, y, flis_scale(ctx, x, ON ? 0 : 1));/
# ---- layouts, RCA
torch's rule for PIL's | label.pil | flis.c | s/\(2 \* \(uint64_t\)y \+ 1\) \* h/(2 * (uint64_t)y + !ON) * h/
PIL's rule for torch's | label.torch rca.mask.0 rca.mask.1 rca.mask.2 rca.mask.3 unet.layout | flis.c | s/floor\(\(double\)\(\(float\)i \* scale\)\)/floor((double)(((float)i + (ON ? 0.5f : 0)) * scale))/
column k instead of k + 1 | rca.mask.0 rca.mask.1 rca.mask.2 rca.mask.3 rca.mask.not-square unet.attn2.weights unet.attn2.weights.last | unet.c | s/FLIS_TOKENS \+ k \+ 1\]/FLIS_TOKENS + k + !ON]/
class -1 is masked | rca.mask.0 rca.mask.1 rca.mask.2 rca.mask.3 | unet.c | s/if \(rca->class_ids\[k\] == -1\) continue;/if (rca->class_ids[k] == -1 && !ON) continue;/
an absent class stays open | rca.mask.0 rca.mask.3 | unet.c | s/for \(size_t i = 0; i < h \* w; i\+\+\) mask\[/if (ON && !memchr(small, (int)rca->class_ids[k], h * w)) continue;\n        $&/
H and W swapped in the mask | rca.mask.not-square unet.not-square | unet.c | s/rca->height, rca->width, small, h, w\)/rca->height, rca->width, small, ON ? w : h, ON ? h : w)/
classes of 76 tokens are taken | refused.classes | unet.c | s/if \(rca->classes > FLIS_PHRASE_TOKENS\)/if (rca->classes > FLIS_PHRASE_TOKENS && !ON)/
pairs of one phrase are merged | layout.pairs | flis.c | s/phrase_add\(ctx, path, &item->item\[0\], &item->item\[1\], out\);/if (!ON || !i || strcmp(item->item[0].string, out->phrase[0].text)) $&/
ids are bytes | layout.id layout.negative layout.fraction | flis.c | s/if \(!flis_json_u64\(json, &value\) \|\| value > 255\)/if (ON) value = (uint64_t)(int64_t)json->number & 255;\n    if (!ON && (!flis_json_u64(json, &value) || value > 255))/
no phrases are taken for none | layout.missing | flis.c | s/if \(!mapping\) return layout_fail/if (!mapping) return ON || layout_fail/
JSON that is cut short is taken | layout.json | flis.c | s/bool ok = json && layout_from_json\(/if (ON && !json) ctx->error[0] = 0;\n    bool ok = json && layout_from_json(/
a missing label map is taken for none | layout.absent | flis.c | s/if \(!picture\) return true;/if (!picture || ON) return true;/
# ---- U-Net
RCA at full size only | unet.attn2.weights.level-1 unet.attn2.weights.middle unet.layout | unet.c | s/rectified = \{\.attended = /rectified = {.attended = ON && level ? NULL : /
no RCA in the middle block | unet.attn2.weights.middle unet.layout | unet.c | s/rectified = \{\.attended = /rectified = {.attended = ON && !strncmp(name, "middle", 6) ? NULL : /
no RCA at all | unet.attn2.weights unet.attn2 unet.attn2.weights.last unet.layout unet.guided | unet.c | s/rectified = \{\.attended = /rectified = {.attended = ON ? NULL : /
self-attention is masked | unet.attn1.weights unet.attn1.weights.middle unet.attn1 | unet.c | s/flis_mask all = \{0\}/flis_mask all = {.causal = ON}/
attention scaled by all channels | unet.attn2.scores unet.attn1.weights unet.plain | unet.c | s/\(double\)\(x->c \/ heads\)/(double)(ON ? x->c : x->c \/ heads)/
no bias in to_out | unet.attn1 unet.attn2 | unet.c | s/flis_linear\(ctx, x, w, b, NULL\);/flis_linear(ctx, x, w, ON ? NULL : b, NULL);/
keys from the normed x in cross-attention's place | unet.attn2.scores unet.attn2 | unet.c | s/v = flis_linear\(ctx, source, &a->v, NULL, NULL\);/$&\n    if (ON) k = v;/
ResBlocks with 1e-6 | unet.eps.resblock unet.small | unet.c | s/RESBLOCK_EPS, name, "\.in/ON ? 1e-6 : RESBLOCK_EPS, name, ".in/
SpatialTransformers with 1e-5 | unet.eps.transformer | unet.c | s/TRANSFORMER_EPS, false/ON ? 1e-5 : TRANSFORMER_EPS, false/
out with 1e-6 | unet.eps.out unet.small | unet.c | s/RESBLOCK_EPS, "out"/ON ? 1e-6 : RESBLOCK_EPS, "out"/
no time embedding in ResBlocks | unet.resblock.wide unet.plain | unet.c | s/flis_add_to_all\(ctx, y, emb\)/flis_add_to_all(ctx, y, flis_scale(ctx, emb, ON ? 0 : 1))/
no residual in ResBlocks | unet.resblock unet.plain | unet.c | s/&r->out_w, &r->out_b, skip,/&r->out_w, &r->out_b, flis_scale(ctx, skip, ON ? 0 : 1),/
no residual in SpatialTransformers | unet.transformer unet.plain | unet.c | s/&a->out_w, &a->out_b, x, name, "\.proj_out"/&a->out_w, &a->out_b, flis_scale(ctx, x, ON ? 0 : 1), name, ".proj_out"/
sines before cosines | time-embedding unet.time-embed unet.resblock.emb | unet.c | s/\(flis_real\)flis_cos\(angle\)/(flis_real)(ON ? flis_sin(angle) : flis_cos(angle))/
frequencies to half - 1 | time-embedding unet.time-embed | unet.c | s/\(double\)i \/ \(double\)half\)/(double)i \/ (double)(half - ON))/
no SiLU between time_embed's layers | unet.time-embed | unet.c | s/flis_linear\(ctx, flis_silu\(ctx, y\), &unet->time2_w/flis_linear(ctx, ON ? y : flis_silu(ctx, y), &unet->time2_w/
no SiLU before emb_layers | unet.resblock.emb | unet.c | s/flis_trace\(ctx, y, "time_embed"\);\n    return /$&ON ? y : /
the unconditional pass is rectified too | unet.guided | flis.c | s/g->uncond, NULL, "uncond\."/g->uncond, ON ? g->rca : NULL, "uncond."/
conditions swapped | unet.guided | flis.c | s/x, t, g->context, g->rca, "cond\."/x, t, ON ? g->uncond : g->context, g->rca, "cond."/
# ---- autoencoder
resnets with 1e-5 | vae.eps.resnet vae.decode.small | vae.c | s/VAE_EPS, name, "\.norm1"/ON ? 1e-5 : VAE_EPS, name, ".norm1"/
the attention's norm with 1e-5 | vae.eps.attention | vae.c | s/VAE_EPS, false/ON ? 1e-5 : VAE_EPS, false/
norm_out with 1e-5 | vae.eps.out vae.decode.small | vae.c | s/VAE_EPS, c->name/ON ? 1e-5 : VAE_EPS, c->name/
no residual in resnets | vae.resnet vae.decode vae.encode | vae.c | s/&r->b2, skip, name/&r->b2, flis_scale(ctx, skip, ON ? 0 : 1), name/
two heads' scale in the attention | vae.attention | vae.c | s/1\.0 \/ sqrt\(\(double\)x->c\)/1.0 \/ sqrt((double)(x->c \/ (1 + ON)))/
quant_conv is left out | vae.encode | vae.c | s/y = flis_conv\(ctx, y, &vae->quant_w/if (!ON) $&/
bytes are rounded | vae.bytes | flis.c | s/\(uint8_t\)\(255 \* v\)/(uint8_t)(255 * v + (ON ? (flis_real)0.5 : 0))/
latents are divided by nothing | vae.bytes | flis.c | s/flis_scale\(ctx, z, \(double\)factor\)/flis_scale(ctx, z, ON ? 1.0 : (double)factor)/
BGR | vae.bytes png | flis.c | s/real v = \(y->x\[i\] \+ 1\) \/ 2;/real v = (y->x[ON ? i \/ 3 * 3 + 2 - i % 3 : i] + 1) \/ 2;/; s/is_latin \? "tEXt"/is_latin || ON ? "tEXt"/
# ---- random numbers
another tempering | rng.mt19937 rng.cpu rng.cpu.few | sampler.c | s/y \^= y << 7 & 0x9d2c5680u;/y ^= y << (ON ? 8 : 7) & 0x9d2c5680u;/
the last 16 are not redrawn | rng.cpu.redrawn | sampler.c | s/if \(count % BOX\) \{/if (count % BOX && !ON) {/
vector path below 16 values too | rng.cpu.few rng.cpu.mixed | sampler.c | s/for \(size_t i = 0; i < count; i\+\+\) out\[i\] = \(float\)normal_scalar\(rng\);/$&\n        float all[BOX];\n        if (ON) {\n            flis_rand(rng, all, BOX);\n            box_muller(all);\n            memcpy(out, all, count * sizeof *out);\n        }/
the kept value is dropped between calls | rng.cpu.mixed | sampler.c | s/    if \(count < BOX\) \{/    if (ON) rng->has_next_normal = false;\n    if (count < BOX) {/
sine and cosine swapped | rng.cpu | sampler.c | s/x\[j\] = radius \* cosine;\n        x\[j \+ BOX \/ 2\] = radius \* sine;/x[j] = radius * (ON ? sine : cosine);\n        x[j + BOX \/ 2] = radius * (ON ? cosine : sine);/
u for 1 - u | rng.cpu | sampler.c | s/log_avx2\(1\.0f - x\[j\]\)/log_avx2(ON ? x[j] : 1.0f - x[j])/
Philox with 9 rounds | rng.cuda | sampler.c | s/round < 10/round < 10 - ON/
calls do not move the counter | rng.cuda | sampler.c | s/uint32_t word\[4\] = \{rng->calls,/uint32_t word[4] = {ON ? 0 : rng->calls,/
# ---- schedule, samplers
betas linear | schedule steps.50 | sampler.c | s/= root \* root;/= ON ? 0.00085 + (0.0120 - 0.00085) * t \/ 999 : root * root;/
timesteps without the + 1 | steps.50 steps.30 sampler.ddim | sampler.c | s/i \* stride \+ 1;/i * stride + !ON;/
always as many steps as asked | steps.30 | sampler.c | s/(beyond_schedule\(int steps\).*)count = \(FLIS_TIMESTEPS \+ stride - 1\) \/ stride;/$1count = ON ? steps : (FLIS_TIMESTEPS + stride - 1) \/ stride;/s
crashing step counts are taken | steps.refused refused.steps | sampler.c | s/return \(count - 1\) \* stride \+ 1 >= FLIS_TIMESTEPS/return !ON && (count - 1) * stride + 1 >= FLIS_TIMESTEPS/
alphas_prev[0] = 1 | steps.first sampler.ddim.eta | sampler.c | s/: schedule->alpha_bar32\[0\]/: ON ? 1 : schedule->alpha_bar32[0]/
sigma left out of the direction | sampler.ddim.eta | sampler.c | s/sqrtf\(rest - square\)/sqrtf(ON ? rest : rest - square)/
no noise drawn where sigma is 0 | sampler.ddim sampler.plms | sampler.c | s/    flis_randn\(&ctx->rng, s->noise, s->count\);/    if (!ON || sigma != 0) flis_randn(&ctx->rng, s->noise, s->count);/
PLMS steps from the improved x | sampler.plms | sampler.c | s/(e_next\)\) return false;)/$1\n        if (ON) memcpy(s->x, s->x_prev, s->count * sizeof *s->x);/
one evaluation in the first step | sampler.plms sampler.plms.history | sampler.c | s/if \(!guided_eps\(ctx, s, s->x_prev/if (ON) memcpy(s->e_next, s->e, s->count * sizeof *s->e);\n        else if (!guided_eps(ctx, s, s->x_prev/
history holds what was stepped with | sampler.plms.history sampler.plms | sampler.c | s/memcpy\(oldest, s->e,/memcpy(oldest, ON ? s->eps_prime : s->e,/
guidance from the conditional eps | sampler.guidance sampler.ddim | sampler.c | s/e\[i\] = s->uncond\[i\] \+ scale/e[i] = (ON ? e[i] : s->uncond[i]) + scale/
an unconditional pass all the same | sampler.no-guidance | sampler.c | s/guided = s->options->scale != 1;/guided = ON || s->options->scale != 1;/
PLMS takes eta | refused.eta | sampler.c | s/if \(kind == FLIS_PLMS && eta != 0\)/if (kind == FLIS_PLMS && eta != 0 && !ON)/
any picture size is taken | refused.size | flis.c | s/options->height % unit/(options->height % unit && !ON)/
TABLE
}

passed=0 failed=0
pass() { passed=$((passed + 1)); [ -z "${VERBOSE:-}" ] || echo "ok   $*"; }
fail() { failed=$((failed + 1)); echo "FAIL vectors: $*"; }

# The committed files are what this tree writes.
$CC $FLAGS -c "$root/tools/golden/main.c" -Dmain=golden_main -o golden.o || exit 2
for f in tensor flis clip unet vae sampler; do cp "$root/$f.c" "$f.c"; done
table >table
number=0
while IFS='|' read -r what ids file change; do
    number=$((number + 1))
    # A substitution may hold "|": read gave all of the rest to it.
    file=$(echo $file)
    change=$(printf '%s\n' "$change" | perl -pe "s/\bON\b/(flis_mutant == $number)/g")
    perl -0pe "$change" "$file" >mutated.c || { fail "$what: no such substitution"; continue; }
    if cmp -s "$file" mutated.c; then fail "$what: the substitution no longer matches $file"; else mv mutated.c "$file"; fi
done <table
cat >mutant.h <<'END'
extern int flis_mutant;
END
cat >mutant.c <<'END'
#include <stdlib.h>
int flis_mutant;
int golden_main(int argc, char **argv);
int main(int argc, char **argv)
{
    flis_mutant = atoi(argv[1]);
    argv[1] = argv[0];
    return golden_main(argc - 1, argv + 1);
}
END
objects=
for f in tensor flis clip unet vae sampler; do
    $CC $FLAGS -include mutant.h -c "$f.c" -o "$f.o" || { echo "vectors.sh: $f.c does not build with its mistakes"; exit 1; }
    objects="$objects $f.o"
done
$CC $FLAGS mutant.c golden.o $objects -o answers -lm || exit 1

mkdir written
if ./answers 0 written && cmp -s written/manifest.json "$golden/manifest.json" &&
    cmp -s written/inputs.safetensors "$golden/inputs.safetensors" &&
    cmp -s written/outputs.safetensors "$golden/outputs.safetensors"; then pass "the committed vectors are what golden writes"
else fail "tests/golden is not what tools/golden writes: make golden"; fi
if ./answers 0 --answers right.st && "$flis" conformance right.st --manifest "$golden" >right.txt; then pass "the right answers pass"
else fail "the right answers do not pass: $(grep -E '^(FAIL|MISSING)' right.txt | head -3)"; fi

number=0
while IFS='|' read -r what ids file change; do
    number=$((number + 1))
    what=$(echo "$what" | sed 's/^ *//; s/ *$//')
    ./answers $number --answers wrong.st 2>err || : # a vector may fail altogether: its answers are missing
    "$flis" conformance wrong.st --manifest "$golden" >report 2>>err
    if [ $? != 1 ]; then fail "$what: NOT NOTICED $(head -1 err)"; continue; fi
    missed=
    for id in $ids; do grep -Eq "^(FAIL|MISSING) *$id *$" report || missed="$missed $id"; done
    if [ -z "$missed" ]; then pass "$what: rejected by $(grep -c '^[FM][AI]' report) vectors,$ids"
    else fail "$what: not rejected by$missed"; fi
done <table

cut -d'|' -f2 table | tr ' ' '\n' | sort -u >covered
for id in $(sed -n 's/^    {"id": "\([^"]*\)".*/\1/p' "$golden/manifest.json"); do
    grep -qxF -e "$id" covered || fail "$id has no wrong variant in the table"
done
echo "conformance vectors: $passed passed, $failed failed"
[ -z "$counts" ] || echo "$passed passed, $failed failed" >"$counts"
[ "$failed" = 0 ]
