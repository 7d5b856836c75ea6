/* command_frechet.c - evaluate frechet: features, or their statistics, from safetensors and NumPy's files. */
#include "tools/evaluate/command.h"

#include <math.h>
#include <stdlib.h>

/* Values of a file, and what an error sentence calls them. */
typedef struct values {
    char where[512];
    int rank;
    uint64_t shape[FLIS_MAX_DIMS];
    double *x;
} values;

static bool check_values(flis_ctx *ctx, const values *v, size_t count)
{
    const size_t d = v->rank > 1 ? (size_t)v->shape[1] : 1;
    for (size_t i = 0; v->x && flis_ok(ctx) && i < count; i++)
        if (!(fabs(v->x[i]) <= 1e100))
            flis_fail(ctx, "%s: sample %zu, dimension %zu is not finite, or beyond 1e100", v->where, i / d, i % d);
    return v->x && flis_ok(ctx);
}

/* Features [n][d], also [n][d][1][1], as PyTorch's pooling leaves them. */
static bool check_features(flis_ctx *ctx, values *v)
{
    bool flat = v->rank >= 2 && v->shape[0] && v->shape[1];
    for (int i = 2; i < v->rank; i++) flat = flat && v->shape[i] == 1;
    if (!flat)
        return flis_fail(ctx, "%s: got %d dimensions, wanted [samples, dimensions]%s", v->where, v->rank,
                         v->rank > 2 ? ", or [samples, dimensions, 1, 1]" : "");
    return true;
}

static bool from_entry(flis_ctx *ctx, flis_file *file, const flis_entry *e, const char *path, values *v)
{
    snprintf(v->where, sizeof v->where, "%.300s: tensor \"%.180s\"", path, e->name);
    v->rank = e->rank;
    for (int i = 0; i < e->rank; i++) v->shape[i] = e->shape[i];
    if (!check_features(ctx, v)) return false;
    const size_t count = (size_t)flis_entry_count(e);
    if ((v->x = flis_alloc(ctx, count, sizeof *v->x))) flis_file_read_f64(ctx, file, e, v->x);
    return check_values(ctx, v, count);
}

/* The tensor that --tensor names, or the only one. */
static bool from_safetensors(run *p, const char *path, values *v)
{
    const char *tensor = p->o->tensor;
    flis_file *file = input_check(&p->ctx, path) ? flis_file_open(&p->ctx, path) : NULL;
    if (!file) return false;
    const flis_entry *e = tensor ? flis_file_find(file, tensor) : file->count == 1 ? &file->entry[0] : NULL;
    if (e) from_entry(&p->ctx, file, e, path, v);
    else if (tensor) flis_fail(&p->ctx, "%s: tensor \"%s\" is missing", path, tensor);
    else flis_fail(&p->ctx, "%s: got %zu tensors, wanted one, or its name with --tensor", path, file->count);
    flis_file_close(file);
    return flis_ok(&p->ctx);
}

static bool from_array(flis_ctx *ctx, const npy_array *a, values *v)
{
    v->rank = a->rank;
    for (int i = 0; i < a->rank; i++) v->shape[i] = a->shape[i];
    v->x = flis_alloc(ctx, a->count + 1, sizeof *v->x);
    for (size_t i = 0; v->x && i < a->count; i++) v->x[i] = npy_number(a, i);
    return check_values(ctx, v, a->count);
}

static bool from_npy(run *p, const char *path, values *v)
{
    npy_array a;
    if (p->o->tensor)
        return flis_fail(&p->ctx, "%s: has one array without a name, --tensor is for .safetensors and .npz", path);
    snprintf(v->where, sizeof v->where, "%.500s", path);
    const bool good = npy_read(&p->ctx, path, &a) && from_array(&p->ctx, &a, v) && check_features(&p->ctx, v);
    npy_free(&a);
    return good;
}

static bool from_npz(run *p, const npz *z, int i, values *v)
{
    npy_array a;
    snprintf(v->where, sizeof v->where, "%.300s: array %.180s", z->path, z->entry[i].name);
    const bool good = npz_array(&p->ctx, z, i, &a) && from_array(&p->ctx, &a, v);
    npy_free(&a);
    return good;
}

/* One side of the comparison. samples 0: statistics, which do not say of how many. */
typedef struct side {
    gaussian g;
    size_t samples;
} side;

/* mu [d] and sigma [d, d]: pytorch-fid's statistics. */
static bool from_statistics(run *p, const npz *z, int mu, int sigma, side *out)
{
    values mean = {.x = NULL}, covariance = {.x = NULL};
    bool good = from_npz(p, z, mu, &mean) && from_npz(p, z, sigma, &covariance);
    if (good && (mean.rank != 1 || !mean.shape[0]))
        good = flis_fail(&p->ctx, "%s: got %d dimensions, wanted [dimensions]", mean.where, mean.rank);
    if (good && (covariance.rank != 2 || covariance.shape[0] != mean.shape[0] || covariance.shape[1] != mean.shape[0]))
        good = flis_fail(&p->ctx, "%s: wanted %llu x %llu values, as mu has %llu", covariance.where,
                         (unsigned long long)mean.shape[0], (unsigned long long)mean.shape[0],
                         (unsigned long long)mean.shape[0]);
    good =
        good && gaussian_of_covariance(&p->ctx, covariance.where, mean.x, covariance.x, (size_t)mean.shape[0], &out->g);
    free(mean.x);
    free(covariance.x);
    return good;
}

static bool from_samples(run *p, values *v, side *out)
{
    out->samples = (size_t)v->shape[0];
    if (out->samples < 2) return flis_fail(&p->ctx, "%s: got 1 sample, wanted at least 2", v->where);
    return gaussian_of_samples(&p->ctx, v->x, out->samples, (size_t)v->shape[1], &out->g);
}

static bool from_archive(run *p, const char *path, values *v, side *out)
{
    npz z;
    if (!npz_open(&p->ctx, path, &z)) return false;
    const char *tensor = p->o->tensor;
    const int mu = npz_find(&z, "mu"), sigma = npz_find(&z, "sigma"),
              i = tensor         ? npz_find(&z, tensor)
                  : z.count == 1 ? 0
                                 : -1;
    if (i >= 0) {
        if (from_npz(p, &z, i, v) && check_features(&p->ctx, v)) from_samples(p, v, out);
    } else if (tensor) flis_fail(&p->ctx, "%s: array \"%s\" is missing", path, tensor);
    else if (mu >= 0 && sigma >= 0) from_statistics(p, &z, mu, sigma, out);
    else
        flis_fail(&p->ctx, "%s: got %zu arrays, wanted one, or its name with --tensor, or the statistics mu and sigma",
                  path, z.count);
    npz_close(&z);
    return flis_ok(&p->ctx);
}

static bool read_side(run *p, const char *path, side *out)
{
    values v = {.x = NULL};
    const flis_kind kind = flis_file_kind(path);
    if (kind == FLIS_KIND_ZIP) from_archive(p, path, &v, out);
    else if (kind == FLIS_KIND_NPY ? from_npy(p, path, &v) : from_safetensors(p, path, &v)) from_samples(p, &v, out);
    free(v.x);
    return flis_ok(&p->ctx);
}

static void print_samples(size_t samples)
{
    if (samples) printf("%zu", samples);
    else printf("null");
}

/* For ctx->progress. */
static void show(void *user, const char *what, size_t done, size_t total)
{
    progress_show(user, what, done, total);
}

bool run_frechet(run *p)
{
    p->ctx.progress = show;
    p->ctx.progress_user = &p->progress;
    side a = {.samples = 0}, b = {.samples = 0};
    double distance_ab = 0;
    bool good = read_side(p, p->o->file[0], &a) && read_side(p, p->o->file[1], &b);
    if (good && a.g.d != b.g.d)
        good = flis_fail(&p->ctx, "%s: got %zu dimensions, wanted %zu, as %s has", p->o->file[1], b.g.d, a.g.d,
                         p->o->file[0]);
    good = good && gaussian_distance(&p->ctx, &a.g, &b.g, &distance_ab);
    progress_end(&p->progress);
    if (good && p->o->json) {
        printf("{\"frechet\": %.12g, \"samples\": [", distance_ab);
        print_samples(a.samples);
        printf(", ");
        print_samples(b.samples);
        printf("], \"dimensions\": %zu}\n", a.g.d);
    } else if (good) printf("%.9g\n", distance_ab);
    gaussian_free(&a.g);
    gaussian_free(&b.g);
    return good;
}
