/* diagnose.c - what the first wrong tensor's error looks like. */
#include "tools/compare/diagnose.h"

#include <stdlib.h>
#include <string.h>

enum { SPOTS = 2048 };

static int class_of(double left)
{
    return (int)floor(log(fmax(left, 1e-6)) / log(4.0));
}

void consider(subject *s, double left, size_t fitted, int cost, const char *format, ...)
{
    va_list args;
    if (!(left < 1) || s->n < 2 * fitted) return;
    left = fmax(left, 0) * (double)s->n / (double)(s->n - fitted);
    const int mine = class_of(left), theirs = class_of(s->best.left);
    if (mine > theirs || (mine == theirs && (cost > s->best.cost || (cost == s->best.cost && left >= s->best.left))))
        return;
    s->best.left = left;
    s->best.cost = cost;
    va_start(args, format);
    vsnprintf(s->best.text, sizeof s->best.text, format, args);
    va_end(args);
}

double left_by(const subject *s, const double *q)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) sum += (s->o[i] - q[i]) * (s->o[i] - q[i]);
    return sum / s->energy;
}

static size_t scatter(size_t i, size_t n)
{
    uint64_t z = ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (size_t)((z ^ (z >> 31)) % n);
}

static bool subject_spots(subject *s)
{
    size_t wrong = 0, seen = 0;
    if (!(s->spot = flis_alloc(&s->c->ctx, 2 * SPOTS, sizeof *s->spot))) return false;
    for (size_t i = 0; i < s->n; i++) wrong += s->o[i] != s->r[i];
    const size_t step = wrong / SPOTS + 1;
    for (size_t i = 0; i < s->n && s->spots < SPOTS; i++)
        if (s->o[i] != s->r[i] && seen++ % step == 0) s->spot[s->spots++] = i;
    for (size_t i = 0, others = s->spots; i < others; i++) s->spot[s->spots++] = scatter(i, s->n);
    return true;
}

static bool subject_open(comparison *c, const pair *p, subject *s)
{
    const flis_entry *e = p->ref->entry;
    *s = (subject){.c = c, .p = p, .rank = e->rank, .n = (size_t)flis_entry_count(e), .best = {.left = NEVER}};
    size_t stride = 1;
    for (int i = e->rank; i-- > 0; stride *= s->dim[i]) {
        s->dim[i] = (size_t)e->shape[i];
        s->stride[i] = stride;
    }
    if (!s->n || flis_entry_count(p->other->entry) != s->n) return false;
    s->r = read_values(c, &c->ref, e);
    s->o = s->r ? read_values(c, &c->other, p->other->entry) : NULL;
    s->q = s->o ? flis_alloc(&c->ctx, s->n, sizeof *s->q) : NULL;
    if (!s->q) return false;
    for (size_t i = 0; i < s->n; i++) {
        if (masked_in_both(s->r[i], s->o[i])) s->r[i] = s->o[i] = 0;
        s->energy += (s->o[i] - s->r[i]) * (s->o[i] - s->r[i]);
        s->rr += s->r[i] * s->r[i];
    }
    return p->verdict == NOT_FINITE || (s->energy > 0 && subject_spots(s));
}

static void subject_close(subject *s)
{
    free(s->r);
    free(s->o);
    free(s->q);
    free(s->spot);
}

bool path_ends(const char *name, const char *tail)
{
    const size_t a = strlen(name), b = strlen(tail);
    return a >= b && strcmp(name + a - b, tail) == 0 && (a == b || name[a - b - 1] == '.');
}

const char *axis_name(const subject *s, int axis)
{
    static const char *const image[] = {"N", "C", "H", "W"}, *const rows[] = {"N", "tokens", "channels"},
                             *const pairs[] = {"heads", "queries", "keys"},
                             *const heads[] = {"heads", "tokens", "width"}, *const flat[] = {"rows", "columns"},
                             *const numbered[] = {"axis 0", "axis 1", "axis 2", "axis 3",
                                                  "axis 4", "axis 5", "axis 6", "axis 7"};
    const char *name = s->p->ref->name;
    if (s->rank == 4) return image[axis];
    if (s->rank == 3 && (path_ends(name, "scores") || path_ends(name, "weights") || path_ends(name, "mask")))
        return pairs[axis];
    if (s->rank == 3 && (path_ends(name, "q") || path_ends(name, "k") || path_ends(name, "v"))) return heads[axis];
    if (s->rank == 3) return rows[axis];
    if (s->rank == 2) return flat[axis];
    return numbered[axis];
}

const struct named *find_ref(const comparison *c, const char *name)
{
    for (size_t i = 0; i < c->ref.count; i++)
        if (strcmp(c->ref.item[i].name, name) == 0) return &c->ref.item[i];
    return NULL;
}

const char *relative_path(const char *name, int drop, const char *tail, char out[NAME_ROOM])
{
    snprintf(out, NAME_ROOM, "%s", name);
    size_t length = strlen(out);
    while (drop > 0 && length > 0)
        if (out[--length] == '.' || length == 0) drop--;
    if (length && *tail) out[length++] = '.';
    snprintf(out + length, NAME_ROOM - length, "%s", tail);
    return out;
}

void say(report *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(out->at, out->room, format, args);
    va_end(args);
    if (length < 0) return;
    const size_t used = (size_t)length < out->room ? (size_t)length : out->room - 1;
    out->at += used;
    out->room -= used;
}

/* What is easily wrong at a module, by its path: for errors in which no pattern is recognised. */
static const struct {
    const char *match, *text;
} CHECKS[] = {
    {"*time_embed*",
     "the time embedding is [cos, sin], frequencies exp(-ln(10000) i / half); then linear, SiLU, linear"},
    {"*embeddings", "token ids (BOS 49406, padding is EOS 49407), token plus position embedding"},
    {"*self_attn", "q is scaled after its bias, by 64^-0.5; the mask is causal; heads; out_proj's bias"},
    {"*mlp", "the activation is quick GELU, x sigmoid(1.702 x); fc2's bias"},
    {"*final_layer_norm", "after the last layer (not the last but one), eps 1e-5"},
    {"*attn2.mask", "column of phrase token k is k + 1; BOS, EOS, padding and class -1 are always attended; an "
                    "absent class masks its column"},
    {"*attn2.to_[kv]", "the text features: last_hidden_state after the final layer norm; no bias; cond before uncond"},
    {"*attn2", "masked scores are -max before the softmax; scale d_head^-0.5, 8 heads; heads merged [tokens, "
               "heads, width]; to_out's bias"},
    {"*attn1",
     "no mask in self-attention; scale d_head^-0.5, 8 heads; heads merged [tokens, heads, width]; to_out's bias"},
    {"*attn_1*", "one head, scale c^-0.5; norm eps 1e-6; the residual"},
    {"*.ff", "GEGLU: the first half times exact (erf) GELU of the second"},
    {"*net.0", "GEGLU: the first half times exact (erf) GELU of the second"},
    {"*emb_layers*", "linear of SiLU(time embedding)"},
    {"*proj_in", "group norm with eps 1e-6 before it; 1x1 convolution; pixels in rows, [n, h w, c]"},
    {"*norm[123]", "layer norm over channels, eps 1e-5; or (autoencoder) group norm, eps 1e-6, then SiLU"},
    {"*.norm", "group norm of 32 groups, eps 1e-6"},
    {"*.0.in_layers.0", "[h, skip] in that order (output blocks); group norm of 32 groups, eps 1e-5"},
    {"*layers.0", "group norm of 32 groups, eps 1e-5; the time embedding is added before it"},
    {"*output_blocks.*.0",
     "[h, skip] in that order, the last skip first; group norms eps 1e-5, SiLU; the time embedding; the residual"},
    {"*blocks.[0-9].0",
     "group norms eps 1e-5, SiLU, the time embedding, the residual; a downsample pads 1 on every side"},
    {"*blocks.[0-9][0-9].0",
     "group norms eps 1e-5, SiLU, the time embedding, the residual; a downsample pads 1 on every side"},
    {"*middle_block.[02]", "group norms eps 1e-5, SiLU, the time embedding, the residual"},
    {"*downsample", "zeros right and below only, (0, 1, 0, 1); stride 2"},
    {"*upsample", "nearest neighbour, then a 3x3 convolution"},
    {"*post_quant_conv", "latents are divided by the scale factor 0.18215 before it"},
    {"*conv_in", "inputs in [-1, 1], RGB; latents divided by 0.18215"},
    {"*block*", "group norms eps 1e-6, SiLU, the residual"},
    {"*out.0", "group norm eps 1e-5 of the last block"},
    {"*e_t", "guidance: uncond + scale (cond - uncond)"},
    {"*pred_x0", "(x - sqrt(1 - a) e) / sqrt(a), alphas as float32"},
    {"*x_prev", "alphas_prev[0] is alphas_cumprod[0]; PLMS: history of guided eps, the first step evaluates twice"},
    {"*image*", "clamp((x + 1) / 2), 255 x truncated to a byte; RGB"}};

static const char *to_check(const char *name)
{
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++)
        if (glob_match(CHECKS[i].match, name)) return CHECKS[i].text;
    return NULL;
}

/* The narrowest profile, wider than the one asked for, that everything measured is within; NULL: none. */
static const char *wider_profile(const comparison *c)
{
    for (int i = c->o.profile + 1; PROFILE_NAMES[i]; i++) {
        const options o = {.profile = i, .absolute = -1, .relative = -1};
        bool all = true;
        for (size_t k = 0; all && k < c->count; k++) {
            const pair *p = &c->pair[k];
            all =
                p->verdict == MISSING || (p->measured && p->verdict != NOT_FINITE && excess_of(&o, &p->m, p->ref) <= 1);
        }
        if (all) return PROFILE_NAMES[i];
    }
    return NULL;
}

/* The share explained is rounded down: 100 % means all of the error. */
static void say_found(const subject *s, const char *what, report *out)
{
    const double explained = floor((1 - s->best.left) * 1e4) / 100;
    const double rest = s->rr > 0 ? sqrt(s->best.left * s->energy / s->rr) : 0;
    say(out, "  %s: %s (explains %.2f %% of the error", what, s->best.text, explained);
    if (s->best.left > 0 && rest <= limits_of(s->p->ref->name, s->c->o.profile).relative)
        say(out, "; the rest is within tolerance");
    say(out, ")\n");
}

static void try_all(subject *s)
{
    try_constant(s);
    try_groupings(s);
    try_rotations(s);
    try_shifts(s);
    try_orders(s);
    try_functions(s);
    try_integers(s);
    try_masked_scores(s);
    try_nearest(s);
    try_attended_columns(s);
    try_same_values(s);
    try_norms(s);
    try_geglu(s);
    try_softmax(s);
    try_tensors(s);
}

/* The lines on a tensor whose values are finite. */
static void explain(subject *s, report *out)
{
    const char *wider = wider_profile(s->c), *format = format_of(s), *check = to_check(s->p->ref->name);
    try_all(s);
    const bool found = s->best.left <= 0.05; /* hypotheses that explained less have named wrong causes */
    if (found) say_found(s, "looks like", out);
    else if (wider)
        say(out, "  looks like: rounding of %s: no pattern in it, and every tensor is within profile %s\n", wider,
            wider);
    else {
        say(out, "  no pattern recognised\n");
        if (s->best.left <= 0.6) say_found(s, "nearest", out);
    }
    if (format) say(out, "  OTHER's values are all %s numbers\n", format);
    if (s->p->measured) locate_error(s, out);
    if (!found && !wider && check) say(out, "  to check: %s\n", check);
}

void diagnose(comparison *c)
{
    subject s;
    report out = {c->diagnosis, sizeof c->diagnosis};
    const pair *p = c->first;
    if (c->ref.samples || c->other.samples) {
        say(&out, "  no pattern can be recognised in %zu samples of a tensor: compare whole traces\n",
            (size_t)FLIS_SAMPLES);
        return;
    }
    if (subject_open(c, p, &s)) {
        if (p->verdict == NOT_FINITE) not_finite_found(&s, &out);
        else explain(&s, &out);
    } else if (flis_ok(&c->ctx))
        say(&out, "  %llu values instead of %llu\n", (unsigned long long)flis_entry_count(p->other->entry),
            (unsigned long long)flis_entry_count(p->ref->entry));
    subject_close(&s);
}
