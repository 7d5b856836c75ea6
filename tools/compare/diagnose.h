/* diagnose.h - hypotheses on how a tensor became wrong.
 *
 * A hypothesis predicts OTHER's values q from REF's. It leaves the share left = sum (o - q)^2 / sum (o - r)^2 of the error's
 * energy; with k fitted numbers that is multiplied by n / (n - k). The one that leaves least is reported; of those that leave
 * about as little, the one of the lowest cost, which is the simplest.
 */
#ifndef DIAGNOSE_H
#define DIAGNOSE_H

#include "tools/compare/compare.h"

typedef struct finding {
    double left;
    int cost;
    char text[512];
} finding;

typedef struct subject {
    comparison *c;
    const pair *p;
    int rank; /* of REF; its axes' lengths, and the distance of neighbours along each */
    size_t dim[FLIS_MAX_DIMS], stride[FLIS_MAX_DIMS], n;
    double *r, *o, *q;   /* REF, OTHER, a prediction */
    double energy, rr;   /* sum (o - r)^2, sum r^2 */
    size_t *spot, spots; /* indices to try a hypothesis at first, half of them where the error is */
    finding best;
} subject;

static const double NEVER = 2; /* left of a hypothesis that does not apply */

/* Costs: the simplest is reported where several leave next to nothing. */
enum { PLAIN, SIMPLE, FITTED, FITTED2, NUMEROUS };

/* A hypothesis that leaves `left` with so many fitted numbers: kept if it is better than the best so far. */
void consider(subject *s, double left, size_t fitted, int cost, const char *format, ...);
/* What the prediction q leaves. */
double left_by(const subject *s, const double *q);
/* "H", "tokens", "axis 5". */
const char *axis_name(const subject *s, int axis);
static inline size_t index_of(const subject *s, size_t flat, int axis)
{
    return flat / s->stride[axis] % s->dim[axis];
}

/* The last words of a path: "…attn2.weights" ends in "weights". */
bool path_ends(const char *name, const char *tail);
enum { NAME_ROOM = 512 };
/* A path with its last `drop` words replaced by `tail`. */
const char *relative_path(const char *name, int drop, const char *tail, char out[NAME_ROOM]);
const struct named *find_ref(const comparison *c, const char *name);

/* Lines of the diagnosis. */
typedef struct report {
    char *at;
    size_t room;
} report;
void say(report *out, const char *format, ...);

/* ---- Hypotheses ---------------------------------------------------------------------------------------------------- */

void try_orders(subject *s); /* diagnose_order.c */
void try_rotations(subject *s);
void try_shifts(subject *s);
void try_same_values(subject *s);
void try_constant(subject *s); /* diagnose_factors.c */
void try_groupings(subject *s);
void try_integers(subject *s);
void try_functions(subject *s); /* diagnose_functions.c */
void try_geglu(subject *s);
void try_tensors(subject *s);       /* diagnose_tensors.c */
void try_norms(subject *s);         /* diagnose_norms.c */
void try_masked_scores(subject *s); /* diagnose_masks.c */
void try_nearest(subject *s);
void try_attended_columns(subject *s);
void try_softmax(subject *s);

/* The narrow format that holds all of OTHER's values, but not REF's; NULL: none (diagnose_factors.c). */
const char *format_of(const subject *s);
/* Lines on the indices where the error is, and on values that are not finite (diagnose_where.c). */
void locate_error(const subject *s, report *out);
void not_finite_found(const subject *s, report *out);

#endif
