/* conformance.c - `flis conformance`: grades a port's answers to the conformance vectors (tests/golden, tools/golden). */
#include "tools/flis/command.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_MANIFEST = 1 << 24 };
typedef enum { PASSED, FAILED, MISSING } verdict;

typedef struct grading {
    job *j;
    flis_json *manifest;
    flis_file *wanted, *got;
    size_t count[3];      /* of vectors, by verdict */
    double share;         /* of the current vector: largest error / tolerance */
    double error;         /* that error */
    bool exact;           /* all its outputs so far were compared for equality */
    char complaint[1024]; /* the first thing that is wrong with it */
} grading;

static const char *json_text(const flis_json *object, const char *key)
{
    const flis_json *j = flis_json_get(object, key);
    return j && j->type == FLIS_STRING ? j->string : "";
}

static double json_value(const flis_json *object, const char *key, double otherwise)
{
    const flis_json *j = flis_json_get(object, key);
    return j && j->type == FLIS_NUMBER ? j->number : otherwise;
}

/* "[2,5]": a shape, or the position of a flat index in it. */
static void shape_text(const flis_entry *e, uint64_t flat, bool place, char out[192])
{
    uint64_t index[FLIS_MAX_DIMS];
    out[0] = 0;
    for (int i = e->rank; i-- > 0;) {
        index[i] = place ? flat % (e->shape[i] ? e->shape[i] : 1) : e->shape[i];
        flat /= e->shape[i] ? e->shape[i] : 1;
    }
    text_append(out, 192, "[");
    for (int i = 0; i < e->rank; i++) text_append(out, 192, i ? ",%llu" : "%llu", (unsigned long long)index[i]);
    text_append(out, 192, "]");
}

static verdict complain(grading *g, verdict v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!*g->complaint) vsnprintf(g->complaint, sizeof g->complaint, format, args);
    va_end(args);
    return v;
}

/* The largest error that a value may have. */
static double allowed(const flis_json *rule, double wanted)
{
    const double relative = json_value(rule, "relative", 0);
    return relative > 0 ? relative * fabs(wanted) : json_value(rule, "tolerance", 0);
}

/* Compares values: NaN first, then the largest error in units of the tolerance. SPEC 11.3. */
static verdict judge_values(grading *g, const flis_json *rule, const flis_entry *e, const double *got,
                            const double *wanted)
{
    const size_t count = (size_t)flis_entry_count(e);
    const double share = json_value(rule, "share", 1);
    size_t off = 0, different = 0, worst = 0;
    double most = -1;
    char at[192];
    for (size_t i = 0; i < count; i++) {
        const double error = fabs(got[i] - wanted[i]), room = allowed(rule, wanted[i]);
        const double part = error == 0 ? 0 : !(error <= DBL_MAX) ? HUGE_VAL : room > 0 ? error / room : HUGE_VAL;
        different += !(error == 0);
        off += !(part <= 1);
        if (part > most) {
            most = part;
            worst = i;
        }
    }
    if (count && most >= g->share) {
        g->share = most;
        g->error = fabs(got[worst] - wanted[worst]);
    }
    if (!flis_json_get(rule, "exact")) g->exact = false;
    const bool many = (double)different > share * (double)count;
    if (!off && !many) return PASSED;
    shape_text(e, worst, true, at);
    return complain(g, FAILED, "%s: got %.9g at %s, wanted %.9g%s, the error is %.2g; %zu of %zu values are off%s",
                    e->name, got[worst], at, wanted[worst], flis_json_get(rule, "exact") ? " exactly" : "",
                    fabs(got[worst] - wanted[worst]), off ? off : different, count,
                    off ? "" : ", each by no more than is allowed, but too many of them");
}

static verdict judge_output(grading *g, const flis_json *rule)
{
    flis_ctx *ctx = &g->j->ctx;
    const char *name = json_text(rule, "name");
    const flis_entry *wanted = flis_file_find(g->wanted, name), *got = flis_file_find(g->got, name);
    char got_shape[192], wanted_shape[192];
    if (!wanted) {
        flis_fail(ctx, "%s: tensor \"%s\": missing, but the manifest has it", g->wanted->path, name);
        return FAILED;
    }
    if (!got) return complain(g, MISSING, "%s is not in the file", name);
    bool same = got->rank == wanted->rank;
    for (int i = 0; same && i < got->rank; i++) same = got->shape[i] == wanted->shape[i];
    if (!same) {
        shape_text(got, 0, false, got_shape);
        shape_text(wanted, 0, false, wanted_shape);
        g->share = HUGE_VAL;
        return complain(g, FAILED, "%s: got the shape %s, wanted %s", name, got_shape, wanted_shape);
    }
    const size_t count = (size_t)flis_entry_count(wanted);
    double *a = flis_alloc(ctx, count ? count : 1, sizeof *a), *b = flis_alloc(ctx, count ? count : 1, sizeof *b);
    verdict v = FAILED;
    if (a && b && flis_file_read_f64(ctx, g->got, got, a) && flis_file_read_f64(ctx, g->wanted, wanted, b))
        v = judge_values(g, rule, wanted, a, b);
    free(a);
    free(b);
    return v;
}

/* Prints what is wrong, and the mistake that the vector exposes. */
static void print_failure(const grading *g, const flis_json *vector)
{
    const flis_json *items = flis_json_get(g->manifest, "items");
    const double number = json_value(vector, "item", 0);
    const size_t item = number >= 1 && number <= 1000 ? (size_t)number : 0;
    printf("         %s\n         what it is: %s\n         points at: %s\n         see SPEC.md %s", g->complaint,
           json_text(vector, "what"), json_text(vector, "catches"), json_text(vector, "spec"));
    if (item && items && items->type == FLIS_ARRAY && item <= items->count && items->item[item - 1].type == FLIS_STRING)
        printf("; easy to get wrong, no. %zu: %s", item, items->item[item - 1].string);
    printf("\n");
}

static void judge_vector(grading *g, const flis_json *vector)
{
    const flis_json *outputs = flis_json_get(vector, "outputs");
    static const char *const words[] = {"pass", "FAIL", "MISSING"};
    verdict worst = PASSED;
    g->share = g->error = 0;
    g->exact = true;
    g->complaint[0] = 0;
    if (vector->type != FLIS_OBJECT || !outputs || outputs->type != FLIS_ARRAY || !outputs->count) {
        flis_fail(&g->j->ctx, "manifest.json:%d: a vector without outputs", vector->line);
        return;
    }
    for (size_t i = 0; i < outputs->count && flis_ok(&g->j->ctx); i++) {
        const verdict v = judge_output(g, &outputs->item[i]);
        if (v == FAILED || (v == MISSING && worst == PASSED)) worst = v;
    }
    if (!flis_ok(&g->j->ctx)) return;
    g->count[worst]++;
    printf("%-8s %-28s", words[worst], json_text(vector, "id"));
    if (worst == PASSED && g->exact) printf(" equal\n");
    else if (worst == PASSED) printf(" %.1f %% of the tolerance (error %.2g)\n", 100 * g->share, g->error);
    else {
        printf("\n");
        print_failure(g, vector);
    }
}

/* Opens what the manifest names. The digest of the manifest goes into the report and identifies the vectors. */
static bool open_vectors(grading *g)
{
    flis_ctx *ctx = &g->j->ctx;
    char folder[PATH_ROOM], path[PATH_ROOM + 16], hex[65];
    size_t length;
    flis_sha256 sum;
    if (!find_manifest(g->j, folder)) return false;
    snprintf(path, sizeof path, "%smanifest.json", folder);
    char *text = flis_read_file(ctx, path, LARGEST_MANIFEST, &length);
    if (text) g->manifest = flis_json_parse(ctx, path, text, length);
    if (g->manifest) {
        const flis_json *vectors = flis_json_get(g->manifest, "vectors");
        const char *name = json_text(g->manifest, "outputs");
        const bool ours = strcmp(json_text(g->manifest, "format"), "flis conformance") == 0;
        if (!ours || json_value(g->manifest, "version", 0) != 1 || !vectors || vectors->type != FLIS_ARRAY || !*name ||
            strlen(folder) + strlen(name) >= PATH_ROOM)
            flis_fail(ctx, "%s: got another kind of JSON, wanted a manifest of conformance vectors, version 1", path);
        else {
            flis_sha256_begin(&sum);
            flis_sha256_add(&sum, text, length);
            flis_sha256_end(&sum, hex);
            snprintf(path, sizeof path, "%s%s", folder, name);
            g->wanted = flis_file_open(ctx, path);
        }
    }
    free(text);
    if (!g->wanted || !(g->got = flis_file_open(ctx, g->j->word[0]))) return false;
    const char *generator = flis_file_metadata(g->got, "generator");
    printf("flis %s conformance; manifest %.16s\nresults: %s", FLIS_VERSION, hex, base_name(g->j->word[0]));
    if (generator) {
        printf(", made by ");
        print_name(stdout, generator);
    }
    printf("\n\n");
    return true;
}

int run_conformance(job *j)
{
    grading g = {.j = j};
    if (!j->words) return missing_argument(j->program, "RESULTS.safetensors");
    if (j->words > 1) return unexpected_argument(j->program, j->word[1]);
    job_begin(j);
    if (input_check(&j->ctx, j->word[0]) && open_vectors(&g)) {
        const flis_json *vectors = flis_json_get(g.manifest, "vectors");
        for (size_t i = 0; i < vectors->count && flis_ok(&j->ctx); i++)
            if (!j->set.match || glob_match(j->set.match, json_text(&vectors->item[i], "id")))
                judge_vector(&g, &vectors->item[i]);
    }
    const size_t all = g.count[PASSED] + g.count[FAILED] + g.count[MISSING];
    if (flis_ok(&j->ctx) && !all)
        flis_fail(&j->ctx, "--match: no vector has an id like %.100s", j->set.match ? j->set.match : "*");
    if (flis_ok(&j->ctx))
        printf("\n%zu passed, %zu failed, %zu missing of %zu vectors\n", g.count[PASSED], g.count[FAILED],
               g.count[MISSING], all);
    flis_file_close(g.wanted);
    flis_file_close(g.got);
    flis_json_free(g.manifest);
    return flis_ok(&j->ctx) && g.count[PASSED] == all ? 0 : 1;
}
