/* compare - compares a port's tensors with a reference's and says where the port first went wrong, and how.
 *
 * As cmp(1): exit 0 if every tensor is within its tolerance, 1 if one differs, 2 if the comparison could not be made. Tensors are
 * taken in order of execution: a trace holds them in that order, and where a file is sorted by name (as PyTorch's writer leaves
 * it) the authors' module paths determine it. What is said of a tensor that differs is measured, never guessed from its name
 * alone: each explanation is a prediction of OTHER's values, and is printed with the share of the error's energy that it removes.
 */
#include "tools/compare/compare.h"

#include <stdlib.h>

/* An empty prefix is allowed: scripts pass what they have. */
static bool set_ref_prefix(void *o, const char *text)
{
    ((options *)o)->ref_prefix = text;
    return true;
}

static bool set_other_prefix(void *o, const char *text)
{
    ((options *)o)->other_prefix = text;
    return true;
}

#define FIELD(name) offsetof(options, name)
static const option OPTIONS[] = {
    {.name = "profile",
     .kind = OPTION_WORD,
     .value = "NAME",
     .offset = FIELD(profile),
     .words = PROFILE_NAMES,
     .help = "tolerances of a correct port in f32, tf32, fp16 or bf16; default "},
    {.name = "tolerance",
     .kind = OPTION_NUMBER,
     .value = "ABS",
     .offset = FIELD(absolute),
     .max = DBL_MAX,
     .help = "largest error allowed; default: the profile's"},
    {.name = "relative",
     .kind = OPTION_NUMBER,
     .value = "REL",
     .offset = FIELD(relative),
     .max = DBL_MAX,
     .help = "rms error / rms of REF allowed; default: the profile's"},
    {.name = "match",
     .kind = OPTION_TEXT,
     .value = "GLOB",
     .offset = FIELD(match),
     .help = "only REF's tensors of that name (* ? [a-z]); default: all"},
    {.name = "ref-prefix",
     .kind = OPTION_CALL,
     .value = "TEXT",
     .parse = set_ref_prefix,
     .help = "only REF's tensors whose names start with TEXT, which is removed; default: all"},
    {.name = "other-prefix",
     .kind = OPTION_CALL,
     .value = "TEXT",
     .parse = set_other_prefix,
     .help = "the same for OTHER's; default: all"},
    {.name = "map",
     .kind = OPTION_TEXT,
     .value = "FILE",
     .offset = FIELD(map),
     .help =
         "lines \"other ref\": OTHER's names of REF's tensors; one * in each stands for the same text; default: none"},
    {.name = "allow-missing",
     .kind = OPTION_FLAG,
     .offset = FIELD(allow_missing),
     .help = "a tensor that OTHER lacks is no difference"},
    {.name = "all", .kind = OPTION_FLAG, .offset = FIELD(all), .help = "list every tensor, not only those that differ"},
    {.name = "json", .kind = OPTION_FLAG, .offset = FIELD(json), .help = "the result as JSON on stdout"},
    {.name = "html",
     .kind = OPTION_TEXT,
     .value = "FILE",
     .offset = FIELD(html),
     .help = "the result as one page, with a plot of the error by layer; default: none"},
    {.name = "quiet", .letter = 'q', .kind = OPTION_FLAG, .offset = FIELD(quiet), .help = "exit status alone"},
};

static const options DEFAULTS = {.absolute = -1, .relative = -1};

static const program COMPARE = {
    .name = "compare",
    .arguments = "REF.safetensors OTHER.safetensors [options]",
    .summary = "Compares OTHER's tensors with REF's in order of execution and names the first that is wrong. Either\n"
               "file may be the JSON that flis --trace-digest writes.",
    .details =
        "Names are equal with or without model., model.diffusion_model., first_stage_model. and the like, and (where\n"
        "that is unambiguous) with or without step.N., cond. and uncond.\n",
    .exit_status = "0 the same within tolerance, 1 different, 2 failed or wrong usage (one sentence on stderr)",
    .options = OPTIONS,
    .count = sizeof OPTIONS / sizeof *OPTIONS,
    .defaults = &DEFAULTS,
};

static void comparison_free(comparison *c)
{
    side_close(&c->ref);
    side_close(&c->other);
    free(c->pair);
    flis_free(&c->ctx);
}

/* The page must be none of the inputs. */
static bool check_files(flis_ctx *ctx, const options *o)
{
    const char *const in[] = {o->path[0], o->path[1], o->map}, *const out[] = {o->html};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (in[i] && !input_check(ctx, in[i])) return false;
    return outputs_check(ctx, in, sizeof in / sizeof *in, out, 1);
}

int main(int argc, char **argv)
{
    comparison c = {.o = DEFAULTS};
    options *o = &c.o;
    int words;
    int status = options_read(&COMPARE, o, argc, argv, &words);
    if (status >= 0) return finish("compare", NULL, status) ? 2 : 0;
    if (words < 2) return missing_argument(&COMPARE, words ? "OTHER.safetensors" : "REF.safetensors");
    if (words > 2) return unexpected_argument(&COMPARE, argv[2]);
    for (int i = 0; i < 2; i++) o->path[i] = argv[i];
    const bool page_alone = o->html && leads_to_stdout(o->html);
    if (page_alone && o->json) return usage_error(&COMPARE, "--json and --html %s: both are standard output", o->html);
    if (flis_init(&c.ctx) && check_files(&c.ctx, o) && pairs_make(&c) && measure_all(&c)) {
        if (c.first && (!o->quiet || o->html)) diagnose(&c);
        if (o->html) write_html(&c);
    }
    if (flis_ok(&c.ctx) && !o->quiet && !page_alone) {
        if (o->json) print_json(&c);
        else print_table(&c);
    }
    status = finish("compare", &c.ctx, 0) ? 2 : differs(&c);
    comparison_free(&c);
    return status;
}
