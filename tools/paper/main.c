/* main.c - the program paper: repeats the paper's experiments, and writes one page of results. */
#include "tools/paper/paper.h"

#include <stdlib.h>

static const option OPTIONS[] = {
    {.name = "model",
     .kind = OPTION_TEXT,
     .offset = offsetof(options, model),
     .value = "FILE",
     .help = "model fine-tuned to layouts (train layout); default "},
    {.name = "plain",
     .kind = OPTION_TEXT,
     .offset = offsetof(options, plain),
     .value = "FILE",
     .help = "the model before that fine-tuning (train text2image)"},
    {.name = "segmenter",
     .kind = OPTION_TEXT,
     .offset = offsetof(options, segmenter),
     .value = "FILE",
     .help = "segmenter of the small world (train segmenter)"},
    {.name = "vocab",
     .kind = OPTION_TEXT,
     .offset = offsetof(options, vocab),
     .value = "FILE",
     .help = "vocabulary; default "},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = offsetof(options, out),
     .value = "PAGE.html",
     .help = "the page to write"},
    {.name = "count",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, count),
     .value = "N",
     .min = 2,
     .max = 1 << 20,
     .help = "layouts of the table; default "},
    {.name = "trials",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, trials),
     .value = "N",
     .min = 1,
     .max = 1 << 20,
     .help = "layouts of each other experiment; default "},
    {.name = "steps",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, steps),
     .value = "N",
     .min = 1,
     .max = 1000,
     .help = "steps of PLMS; default "},
    {.name = "scale",
     .kind = OPTION_NUMBER,
     .offset = offsetof(options, scale),
     .value = "S",
     .min = 0,
     .max = 1000,
     .help = "guidance scale; default "},
    {.name = "seed",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, seed),
     .value = "S",
     .max = 0x1p60,
     .help = "seed of the first scene; default "},
    {.name = "workers",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, workers),
     .value = "N",
     .min = 1,
     .max = 1024,
     .help = "layouts that are made at once, one thread each; default: as many as there are processors"},
    {.name = "threads",
     .kind = OPTION_WHOLE,
     .offset = offsetof(options, workers),
     .value = "N",
     .min = 1,
     .max = 1024,
     .help = "an older name of --workers"},
    {.name = "quiet", .letter = 'q', .kind = OPTION_FLAG, .offset = offsetof(options, quiet), .help = "no progress"},
};

/* Model and vocabulary are looked for in the folders of data_file. */
static const options DEFAULTS = {.model = "models/flis-small.safetensors",
                                 .vocab = "models/vocab.txt",
                                 .count = 500,
                                 .trials = 50,
                                 .steps = 50,
                                 .seed = 1000000,
                                 .scale = 2};

static const program PAPER = {
    .name = "paper",
    .arguments = "--plain FILE --segmenter FILE [--model FILE] -o PAGE.html [options]",
    .summary = "Repeats the paper's experiments with a model of the small world, and writes one page of results.\n"
               "The results are also printed.",
    .options = OPTIONS,
    .count = sizeof OPTIONS / sizeof *OPTIONS,
    .defaults = &DEFAULTS,
};

static bool prepare(paper *p)
{
    flis_ctx *ctx = &p->ctx;
    const char *const in[] = {p->o.vocab, p->o.model, p->o.plain, p->o.segmenter};
    if (!outputs_check(ctx, in, sizeof in / sizeof *in, &p->o.out, 1)) return false; /* now rather than after hours */
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (!input_check(ctx, in[i])) return false;
    p->caption = flis_alloc(ctx, QUESTIONS + 1, sizeof *p->caption);
    p->show = flis_alloc(ctx, (QUESTIONS + 1) * SHOWN * (METHODS + 1), WORLD_PIXELS * 3);
    if (!p->caption || !p->show || !(p->vocab = flis_vocab_read(ctx, p->o.vocab))) return false;
    if (!model_load(p, p->o.model, &p->tuned) || !model_load(p, p->o.plain, &p->plain)) return false;
    p->segmenter = segmenter_load(ctx, p->o.segmenter);
    return p->segmenter && (p->judges = judges_learn(ctx, repaint_coded, p)) != NULL;
}

static bool run(paper *p)
{
    bool good = prepare(p);
    progress_end(&p->progress);
    good = good && run_table(p);
    for (question q = 0; good && q < QUESTIONS; q++) good = run_question(p, q);
    if (good && !leads_to_stdout(p->o.out)) print_results(p);
    return good && write_page(p);
}

static void clean_up(paper *p)
{
    model_free(&p->tuned);
    model_free(&p->plain);
    flis_unet_free(p->segmenter);
    flis_vocab_free(p->vocab);
    free(p->judges);
    for (int m = 0; m < METHODS; m++) free(p->confusion[m].count);
    free(p->features);
    free(p->caption);
    free(p->show);
    flis_free(&p->ctx);
}

int main(int argc, char **argv)
{
    paper p = {.o = DEFAULTS};
    char default_model[PATH_ROOM], default_vocab[PATH_ROOM];
    const char *self = argv[0]; /* options_read puts other arguments there */
    int words;
    const int status = options_read(&PAPER, &p.o, argc, argv, &words);
    if (status >= 0) return finish("paper", NULL, status);
    if (words) return unexpected_argument(&PAPER, argv[0]);
    if (!p.o.plain) return missing_argument(&PAPER, "--plain FILE");
    if (!p.o.segmenter) return missing_argument(&PAPER, "--segmenter FILE");
    if (!p.o.out) return missing_argument(&PAPER, "-o PAGE.html");
    if (p.o.model == DEFAULTS.model) data_file(self, base_name(p.o.model), default_model), p.o.model = default_model;
    if (p.o.vocab == DEFAULTS.vocab) data_file(self, base_name(p.o.vocab), default_vocab), p.o.vocab = default_vocab;
    p.progress = (progress){.quiet = p.o.quiet, .unit = "scene"};
    if (flis_init(&p.ctx)) {
        p.ctx.interrupted = catch_signals();
        if (p.o.workers) p.ctx.threads = (int)p.o.workers;
        run(&p);
    }
    clean_up(&p);
    return finish("paper", &p.ctx, 0);
}
