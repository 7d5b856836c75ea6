/* diagnose_tensors.c - hypotheses: OTHER has another tensor of REF's instead, or added, or left out. */
#include "tools/compare/diagnose.h"

#include <stdlib.h>
#include <string.h>

/* How tensor x of REF's could explain OTHER's values: equal to it; or the error is a multiple of it. */
static void try_tensor(subject *s, const struct named *x, const double *v, bool nearest)
{
    double equal = 0, vv = 0, ve = 0, dd = 0, de = 0;
    for (size_t i = 0; i < s->n; i++) {
        const double e = s->o[i] - s->r[i], d = v[i] - s->r[i];
        equal += (s->o[i] - v[i]) * (s->o[i] - v[i]);
        vv += v[i] * v[i];
        ve += v[i] * e;
        dd += d * d;
        de += d * e;
    }
    const char *here = s->p->ref->name, *there = x->name;
    const bool same_module = strcmp(behind_scope(here), behind_scope(there)) == 0;
    const bool same_step = strncmp(here, "step.", 5) != 0 || strncmp(there, "step.", 5) != 0 ||
                           strtoul(here + 5, NULL, 10) == strtoul(there + 5, NULL, 10);
    if (dd == 0) return; /* equal to REF's own values */
    if (same_module && same_step)
        consider(s, equal / s->energy, 0, PLAIN, "cond and uncond swapped: equals REF's %s", there);
    else if (same_module) consider(s, equal / s->energy, 0, PLAIN, "another timestep: equals REF's %s", there);
    else if (nearest) consider(s, equal / s->energy, 0, PLAIN, "stale: equals the tensor before, %s", there);
    else consider(s, equal / s->energy, 0, SIMPLE, "equals another tensor, %s", there);
    const double factor = vv > 0 ? ve / vv : 0, blend = de / dd;
    const double left = 1 - ve * factor / s->energy;
    if (factor > -1.01 && factor < -0.99)
        consider(s, left, 1, SIMPLE, "%s is missing: OTHER = REF - it (a residual, a skip connection, an embedding)",
                 there);
    else if (factor > 0.99 && factor < 1.01)
        consider(s, left, 1, SIMPLE, "%s added once too often: OTHER = REF + it", there);
    else if (same_module || nearest) consider(s, left, 1, FITTED, "the error is %.4g x %s", factor, there);
    if (same_module && same_step && fabs(blend - 1) > 0.01)
        consider(s, 1 - de * blend / s->energy, 1, FITTED,
                 "another guidance scale: %.4g of the way from REF to REF's %s", blend, there);
}

/* REF's tensors with as many values, the same module elsewhere first, then those before, the nearest first; at most 256 MiB
   of them are read. */
void try_tensors(subject *s)
{
    comparison *c = s->c;
    size_t budget = ((size_t)256 << 20) / sizeof(double);
    const size_t here = (size_t)(s->p->ref - c->ref.item);
    const char *module = behind_scope(s->p->ref->name);
    for (int pass = 0; pass < 2; pass++) {
        bool nearest = true;
        for (size_t k = 1; k < c->ref.count + 1; k++) {
            const bool later = pass == 0 || k > here; /* pass 1: backwards from here, then forwards */
            const size_t i = pass == 0 ? k - 1 : later ? k - 1 : here - k;
            const struct named *x = &c->ref.item[i];
            if (i == here || (pass == 1 && later && i < here) || flis_entry_count(x->entry) != s->n) continue;
            if ((strcmp(behind_scope(x->name), module) == 0) != (pass == 0) || budget < s->n) continue;
            double *v = read_values(c, &c->ref, x->entry);
            if (!v) return;
            for (size_t j = 0; j < s->n; j++)
                if (!(fabs(v[j]) < MASKED)) v[j] = 0;
            try_tensor(s, x, v, pass == 1 && nearest && !later);
            nearest = false;
            budget -= s->n;
            free(v);
        }
    }
}
