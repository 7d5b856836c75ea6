/* report.c - the result as a table on the terminal, and as JSON. */
#include "tools/compare/compare.h"

#include <string.h>

/* ---- Table ------------------------------------------------------------------------------------------------------- */

enum { NAME_WIDTH = 37, AT_WIDTH = 15 };

typedef struct paint {
    const char *bad, *good, *dim, *strong, *off;
} paint;

static paint paints(void)
{
    if (!wants_color(stdout)) return (paint){"", "", "", "", ""};
    return (paint){"\033[31m", "\033[32m", "\033[2m", "\033[1m", "\033[0m"};
}

/* The end of a name says more than its beginning. What is not printable becomes '?'. */
static const char *short_name(const char *name, char out[NAME_WIDTH + 1])
{
    const size_t length = strlen(name);
    if (length <= NAME_WIDTH) snprintf(out, NAME_WIDTH + 1, "%s", name);
    else snprintf(out, NAME_WIDTH + 1, "..%s", name + length - (NAME_WIDTH - 2));
    for (char *p = out; *p;) {
        const size_t n = flis_printable(p);
        if (!n) *p = '?';
        p += n ? n : 1;
    }
    return out;
}

const char *shape_text(const flis_entry *e, char out[200])
{
    size_t used = 1;
    strcpy(out, "[");
    for (int i = 0; i < e->rank; i++)
        used += (size_t)snprintf(out + used, 200 - used, "%s%llu", i ? "," : "", (unsigned long long)e->shape[i]);
    snprintf(out + used, 200 - used, "]");
    return out;
}

const char *index_text(const flis_entry *e, uint64_t at, char out[200])
{
    uint64_t index[FLIS_MAX_DIMS];
    size_t used = 1;
    for (int i = e->rank; i-- > 0;) {
        index[i] = e->shape[i] ? at % e->shape[i] : 0;
        at /= e->shape[i] ? e->shape[i] : 1;
    }
    strcpy(out, "[");
    for (int i = 0; i < e->rank; i++)
        used += (size_t)snprintf(out + used, 200 - used, "%s%llu", i ? "," : "", (unsigned long long)index[i]);
    snprintf(out + used, 200 - used, "]");
    return out;
}

static const char *excess_text(double x, char out[16])
{
    if (x < 9.995) snprintf(out, 16, "%.2f", x);
    else if (x < 1e5) snprintf(out, 16, "%.0f", x);
    else snprintf(out, 16, "%.0e", x);
    return out;
}

static void print_row(const pair *p, const paint *color)
{
    char name[NAME_WIDTH + 1], at[200], shape[200], times[16], ulp[16] = "-";
    const char *mark = p->verdict == SAME ? " " : "!", *on = p->verdict == SAME ? "" : color->bad;
    const measures *m = &p->m;
    printf("%s%s %-*s ", on, mark, NAME_WIDTH, short_name(p->ref->name, name));
    if (p->verdict == SHAPE)
        printf("shape %s, wanted %s", shape_text(p->other->entry, at), shape_text(p->ref->entry, shape));
    else if (p->verdict == NOT_FINITE)
        printf("%llu NaN or Inf%s, first at %s", (unsigned long long)(m->bad_other ? m->bad_other : m->bad_ref),
               m->bad_other ? "" : " in REF", index_text(p->ref->entry, m->first_bad, at));
    else {
        if (m->ulp == m->ulp) snprintf(ulp, sizeof ulp, m->ulp < 1e5 ? "%.0f" : "%.0e", m->ulp);
        printf("%7.1e %-*s %7.1e %7.1e %7.1e %6s %6s", m->max_error, AT_WIDTH, index_text(p->ref->entry, m->at, at),
               m->rms_error, m->relative, 1 - m->cosine, ulp, excess_text(m->excess, times));
    }
    printf("%s\n", *on ? color->off : "");
}

static void print_lists(const comparison *c)
{
    char a[200], b[200];
    for (size_t i = 0; i < c->count; i++) {
        const pair *p = &c->pair[i];
        if (p->verdict == MISSING) {
            printf("missing: ");
            print_name(stdout, p->ref->name);
            printf(" %s %s\n", flis_dtype_name(p->ref->entry->dtype), shape_text(p->ref->entry, a));
        } else if (p->measured && !shapes_agree(p->ref->entry, p->other->entry, true)) {
            printf("shape: ");
            print_name(stdout, p->ref->name);
            printf(" %s, wanted %s\n", shape_text(p->other->entry, a), shape_text(p->ref->entry, b));
        }
    }
    for (size_t i = 0; i < c->other.count; i++) {
        if (c->other.item[i].taken) continue;
        printf("extra: ");
        print_name(stdout, c->other.item[i].name);
        printf(" %s %s\n", flis_dtype_name(c->other.item[i].entry->dtype), shape_text(c->other.item[i].entry, a));
    }
}

/* One line for each pair of dtypes: a port that writes F16 differs in every tensor. */
static void print_dtypes(const comparison *c)
{
    for (int a = FLIS_F64; a <= FLIS_BOOL; a++)
        for (int b = FLIS_F64; b <= FLIS_BOOL; b++) {
            size_t count = 0;
            const char *one = NULL;
            for (size_t i = 0; a != b && i < c->count; i++) {
                const pair *p = &c->pair[i];
                if (!p->other || (int)p->ref->entry->dtype != a || (int)p->other->entry->dtype != b) continue;
                if (!count++) one = p->ref->name;
            }
            if (!count) continue;
            printf("dtype: %zu tensor%s %s where REF has %s: ", count, count > 1 ? "s" : "",
                   flis_dtype_name((flis_dtype)b), flis_dtype_name((flis_dtype)a));
            print_name(stdout, one);
            printf("%s\n", count > 1 ? " and others" : "");
        }
}

static void print_summary(const comparison *c, const paint *color)
{
    const options *o = &c->o;
    printf("%zu compared, %s%zu differ%s%s", c->compared, c->failed ? color->bad : color->good, c->failed,
           c->failed == 1 ? "s" : "", color->off);
    if (c->not_finite) printf(" (%zu not finite)", c->not_finite);
    if (c->missing) printf(", %zu missing", c->missing);
    if (c->extra) printf(", %zu extra", c->extra);
    if (o->absolute >= 0 || o->relative >= 0) {
        printf("; tolerance");
        if (o->absolute >= 0) printf(" %g absolute", o->absolute);
        if (o->relative >= 0) printf(" %g relative", o->relative);
    } else printf("; profile %s", PROFILE_NAMES[o->profile]);
    if (c->order) printf("; order of %s", c->order);
    printf("\n");
}

static void print_first(const comparison *c, const paint *color)
{
    const pair *p = c->first;
    char at[200], a[200];
    if (!p) return;
    printf("%sfirst wrong:%s %s", color->strong, color->off, color->bad);
    print_name(stdout, p->ref->name);
    printf("%s %s %s", color->off, flis_dtype_name(p->ref->entry->dtype), shape_text(p->ref->entry, a));
    if (strcmp(p->ref->name, p->other->name) != 0) {
        printf(" (OTHER's ");
        print_name(stdout, p->other->name);
        printf(")");
    }
    if (p->verdict == DIFFERENT)
        printf("\n  largest error %.3g at %s: got %.9g, wanted %.9g", p->m.max_error,
               index_text(p->ref->entry, p->m.at, at), p->m.other_at, p->m.ref_at);
    printf("\n%s", c->diagnosis);
}

void print_table(const comparison *c)
{
    const paint color = paints();
    if (c->o.all || c->failed)
        printf("%s  %-*s %7s %-*s %7s %7s %7s %6s %6s%s\n", color.dim, NAME_WIDTH, "tensor", "max err", AT_WIDTH, "at",
               "rms err", "rel err", "1-cos", "ulp", "x tol", color.off);
    for (size_t i = 0; i < c->count; i++)
        if (c->pair[i].verdict != MISSING && (c->o.all || c->pair[i].verdict != SAME)) print_row(&c->pair[i], &color);
    print_lists(c);
    print_dtypes(c);
    print_summary(c, &color);
    print_first(c, &color);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void json_number(const char *key, double x)
{
    printf(", \"%s\": ", key);
    print_json_number(stdout, x);
}

static void json_tensor(const comparison *c, const pair *p)
{
    static const char *const verdicts[] = {"same", "different", "not finite", "shape", "missing"};
    char text[200];
    const measures *m = &p->m;
    printf("    {\"name\": ");
    print_json_string(stdout, p->ref->name);
    printf(", \"verdict\": \"%s\", \"dtype\": \"%s\", \"shape\": %s", verdicts[p->verdict],
           flis_dtype_name(p->ref->entry->dtype), shape_text(p->ref->entry, text));
    if (p->other) {
        printf(", \"other\": ");
        print_json_string(stdout, p->other->name);
        printf(", \"other_dtype\": \"%s\", \"other_shape\": %s", flis_dtype_name(p->other->entry->dtype),
               shape_text(p->other->entry, text));
    }
    if (p->measured) {
        printf(", \"not_finite\": %llu, \"ref_not_finite\": %llu", (unsigned long long)m->bad_other,
               (unsigned long long)m->bad_ref);
        if (p->verdict == NOT_FINITE) printf(", \"not_finite_at\": %s", index_text(p->ref->entry, m->first_bad, text));
        json_number("max_error", m->max_error);
        printf(", \"max_error_at\": %s", index_text(p->ref->entry, m->at, text));
        json_number("got", m->other_at);
        json_number("wanted", m->ref_at);
        json_number("rms_error", m->rms_error);
        json_number("relative_error", m->relative);
        json_number("cosine", m->cosine);
        json_number("ulp_median", m->ulp);
        json_number("largest", m->largest);
        json_number("rms", m->rms);
        json_number("times_tolerance", m->excess);
    }
    printf("}%s\n", p + 1 < c->pair + c->count ? "," : "");
}

void print_json(const comparison *c)
{
    const options *o = &c->o;
    const bool given = o->absolute >= 0 || o->relative >= 0;
    printf("{\n  \"compare\": \"" FLIS_VERSION "\",\n  \"reference\": ");
    print_json_string(stdout, o->path[0]);
    printf(",\n  \"other\": ");
    print_json_string(stdout, o->path[1]);
    printf(",\n  \"verdict\": \"%s\",\n  \"profile\": ", differs(c) ? "different" : "same");
    if (given) printf("null");
    else print_json_string(stdout, PROFILE_NAMES[o->profile]);
    printf(",\n  \"limits\": {\"given\": %s", given ? "true" : "false");
    json_number("absolute", o->absolute >= 0 ? o->absolute : (double)NAN);
    json_number("relative", o->relative >= 0 ? o->relative : (double)NAN);
    printf("},\n  \"compared\": %zu, \"failed\": %zu, \"not_finite\": %zu, \"missing\": %zu, \"extra\": %zu, "
           "\"shapes\": %zu, \"dtypes\": %zu,\n  \"first_wrong\": ",
           c->compared, c->failed, c->not_finite, c->missing, c->extra, c->reshaped, c->recast);
    if (c->first) print_json_string(stdout, c->first->ref->name);
    else printf("null");
    printf(",\n  \"tensors\": [\n");
    for (size_t i = 0; i < c->count; i++) json_tensor(c, &c->pair[i]);
    printf("  ],\n  \"extra_tensors\": [");
    for (size_t i = 0, printed = 0; i < c->other.count; i++) {
        if (c->other.item[i].taken) continue;
        if (printed++) printf(", ");
        print_json_string(stdout, c->other.item[i].name);
    }
    printf("]\n}\n");
}
