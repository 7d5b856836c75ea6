/* diagnose_functions.c - hypotheses: a function of each value, and the gates of GEGLU. */
#include "tools/compare/diagnose.h"

#include <stdlib.h>

static double same_f(double x)
{
    return x;
}
static double sigmoid(double x)
{
    return 1 / (1 + flis_exp(-x));
}
static double silu(double x)
{
    return x * sigmoid(x);
}
static double gelu(double x)
{
    return x * 0.5 * flis_erfc(x * -0.70710678118654752);
}
static double quick_gelu(double x)
{
    return x * sigmoid(1.702 * x);
}
static double relu(double x)
{
    return x > 0 ? x : 0;
}
static double tanh_f(double x)
{
    return 2 * sigmoid(2 * x) - 1;
}
/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the approximation that differs from erf's by up to 4.7e-4. */
static double gelu_tanh(double x)
{
    return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}
static double clamp1(double x)
{
    return x < -1 ? -1 : x > 1 ? 1 : x;
}
static double clamp01(double x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}
static double clamp_byte(double x)
{
    return x < 0 ? 0 : x > 255 ? 255 : x;
}
static double unit(double x)
{
    return clamp01((x + 1) / 2);
}
static double round_f(double x)
{
    return floor(x + 0.5);
}
static double square(double x)
{
    return x * x;
}

typedef struct function {
    double (*f)(double x);
    const char *name;
} function;
static const function functions[] = {{silu, "SiLU"},
                                     {gelu, "GELU"},
                                     {gelu_tanh, "tanh GELU"},
                                     {quick_gelu, "quick GELU"},
                                     {relu, "ReLU"},
                                     {sigmoid, "sigmoid"},
                                     {tanh_f, "tanh"},
                                     {clamp1, "a clamp to [-1, 1]"},
                                     {clamp01, "a clamp to [0, 1]"},
                                     {clamp_byte, "a clamp to bytes"},
                                     {unit, "clamp((x + 1) / 2)"},
                                     {floor, "floor"},
                                     {round_f, "rounding to integers"},
                                     {fabs, "the absolute value"},
                                     {square, "the square"},
                                     {flis_exp, "exp"}};

/* Left by OTHER = f(REF), or (missing) by f(OTHER) = REF; at the spots, or everywhere. */
static double function_left(const subject *s, double (*f)(double x), bool missing, bool full)
{
    double sum = 0, error = 0, moved = 0;
    for (size_t i = 0; i < (full ? s->n : s->spots); i++) {
        const size_t at = full ? i : s->spot[i];
        const double x = missing ? s->o[at] : s->r[at], y = f(x), d = y - (missing ? s->r[at] : s->o[at]),
                     e = s->o[at] - s->r[at];
        sum += d * d;
        error += e * e;
        moved += fabs(y - x);
    }
    return moved > 0 && error > 0 ? sum / error : NEVER;
}

/* OTHER = f(REF): one operation too many. f(OTHER) = REF: one is missing. */
void try_functions(subject *s)
{
    for (size_t k = 0; k < sizeof functions / sizeof *functions; k++) {
        if (function_left(s, functions[k].f, false, false) < 0.5)
            consider(s, function_left(s, functions[k].f, false, true), 0, SIMPLE, "%s applied once more",
                     functions[k].name);
        if (function_left(s, functions[k].f, true, false) < 0.5)
            consider(s, function_left(s, functions[k].f, true, true), 0, PLAIN,
                     "missing final operation: %s of OTHER is REF", functions[k].name);
    }
}

/* GEGLU's ways to go wrong, from the projection that it gates: value GELU(gate), value the first half. */
void try_geglu(subject *s)
{
    static const function gates[] = {
        {gelu, "erf GELU"}, {gelu_tanh, "tanh GELU"}, {quick_gelu, "quick GELU"}, {silu, "SiLU"},
        {relu, "ReLU"},     {sigmoid, "sigmoid"},     {same_f, "no GELU at all"}};
    char name[NAME_ROOM];
    relative_path(s->p->ref->name, 0, "proj", name);
    const struct named *x = find_ref(s->c, name);
    const size_t width = s->rank ? s->dim[s->rank - 1] : 0;
    if (!path_ends(s->p->ref->name, "net.0") || !x || flis_entry_count(x->entry) != 2 * s->n) return;
    double *u = read_values(s->c, &s->c->ref, x->entry);
    for (int layout = 0; u && layout < 3; layout++)
        for (size_t k = 0; k < sizeof gates / sizeof *gates; k++) {
            for (size_t i = 0; i < s->n; i++) {
                const double *row = u + i / width * 2 * width;
                const size_t j = i % width;
                const double value = layout == 0 ? row[j] : layout == 1 ? row[width + j] : row[2 * j];
                const double gate = layout == 0 ? row[width + j] : layout == 1 ? row[j] : row[2 * j + 1];
                s->q[i] = value * gates[k].f(gate);
            }
            if (layout || k)
                consider(s, left_by(s, s->q), 0, layout && k ? SIMPLE : PLAIN, "%s%s%s%s",
                         layout == 1 ? "swapped halves: value and gate of GEGLU"
                         : layout    ? "value and gate of GEGLU interleaved"
                                     : "",
                         layout && k ? ", and " : "", layout && !k ? "" : gates[k].name,
                         k ? " instead of erf GELU" : "");
        }
    free(u);
}
