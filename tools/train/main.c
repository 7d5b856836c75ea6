/* main.c - train: trains the small models of flis, and tunes any model of Stable Diffusion v1's kind to layouts.
 *
 * The paper starts from Stable Diffusion and tunes its U-Net with rectified cross-attention (RCA). Here everything before
 * that is trained too, in the same order, on the small world (tools/world) or on folders of pictures:
 *
 *   vae          the autoencoder, on crops
 *   latents      encodes scenes once, for the next two: moments, small label maps, tokens
 *   text2image   text encoder and U-Net on captions
 *   layout       the paper's fine-tuning: the same loss with RCA, the U-Net alone
 *   segmenter    a small U-Net that labels the world's pictures; its features measure Fréchet distances
 *
 * This file: options and help. train.h lists the others.
 */
#include "tools/train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- Options ----------------------------------------------------------------------------------------------------- */

/* Bits of the stages, for the table. */
enum {
    V = 1 << VAE,
    E = 1 << LATENTS,
    T = 1 << TEXT2IMAGE,
    L = 1 << LAYOUT,
    S = 1 << SEGMENTER,
    TRAINING = V | T | L | S
};

#define FIELD(name) offsetof(options, name)
#define TEXT(name) OPTION_TEXT, FIELD(name)
#define WHOLE(name) OPTION_WHOLE, FIELD(name)
#define NUMBER(name) OPTION_NUMBER, FIELD(name)
#define FLAG(name) OPTION_FLAG, FIELD(name), NULL
#define WORD(name) OPTION_WORD, FIELD(name)

static const char *const ORDERS[] = {[ORDER_DRAWN] = "drawn", [ORDER_EPOCHS] = "epochs", NULL},
                         *const PHRASES[] = {[PHRASES_LARGEST] = "largest", [PHRASES_ALL] = "all", NULL},
                         *const RESIZED[] = {[RESIZE_REALS] = "reals", [RESIZE_BYTES] = "bytes", NULL},
                         *const RECIPES[] = {[RECIPE_NONE] = "none", [RECIPE_AUTHORS] = "authors", NULL};

static const option OPTIONS[] = {
    {"output", 'o', TEXT(out), "FILE", "the safetensors file to write", .commands = 0},
    {"model", 0, TEXT(model), "FILE", "the file with the autoencoder, from train vae", .commands = E | T},
    {"model", 0, TEXT(model), "FILE", "the model to tune: autoencoder, text encoder and U-Net", .commands = L},
    {"model", 0, TEXT(model), "FILE", "an autoencoder, through which every second scene is seen; default: none",
     .commands = S},
    {"start", 0, TEXT(start), "FILE", "weights to begin with, from an earlier -o; default: new ones",
     .commands = V | T | S},
    {"latents", 0, TEXT(latents), "FILE", "encoded scenes, from train latents", .commands = T | L},
    {"data", 0, TEXT(data), "FOLDER",
     "pictures/NAME.png, .jpg, .jpeg or .ppm, and captions.txt with one line per picture, in the order of their names",
     .commands = T},
    {"data", 0, TEXT(data), "FOLDER",
     "pictures/NAME.png, .jpg, .jpeg or .ppm, labels/NAME.png or .pgm, classes.txt (lines of label, tab, name)",
     .commands = L},
    {"dataset", 0, TEXT(dataset), "NAME",
     "a data set in the authors' folders: coco (COCO-Stuff) or ade20k; or a list of classes (lines of label, tab, "
     "name), whose label maps lie in --data-root itself; default: none",
     .commands = L},
    {"data-root", 0, TEXT(data_root), "DIR",
     "--dataset: the folder that has stuffthingmaps_trainval2017 or annotations; default: none, must be given",
     .commands = L},
    {"train-txt-file", 0, TEXT(train_list), "FILE",
     "--dataset: a list of pictures (JPEG, PNG or PPM), a path on each line, as given or below --data-root; default: "
     "none, must be given",
     .commands = L},
    {"val-txt-file", 0, TEXT(val_list), "FILE",
     "--dataset: the list of validation pictures, as main.py has it, for the validation loss; default: none",
     .commands = L},
    {"validate", 0, TEXT(validate), "FILES",
     "samples that are not learned from: for --data a folder of the same kind, for --latents a file of latents; their "
     "mean loss, with a fixed timestep and noise for each, is a column of the log and a curve of the plot; default: "
     "none",
     .commands = T | L},
    {"validate-every", 0, WHOLE(validate_every), "N",
     "steps between two validation losses, a multiple of 25; one more at the end; default ", 25, 1 << 30,
     .commands = T | L},
    {"validate-count", 0, WHOLE(validate_count), "N", "samples of the validation, spread over all; 0: all; default ",
     .commands = T | L},
    {"show-every", 0, WHOLE(show_every), "N",
     "paint the same layouts every N steps, before the first and after the last, into OUT.pictures/step-NNNNNN.png: "
     "layout, picture, picture by the averages; changes no bit of the training; 0: none; default ",
     .commands = T | L},
    {"show", 0, TEXT(show), "FILES",
     "--show-every: a layout (JSON) as flis generate takes it, or a folder of them; default: validation samples, where "
     "there are none, training samples",
     .commands = T | L},
    {"show-count", 0, WHOLE(show_count), "N", "--show-every: at most N of them, spread over all; default ", 1, 64,
     .commands = T | L},
    {"show-steps", 0, WHOLE(show_steps), "N", "--show-every: PLMS steps of a picture (seed 42); default ", 1, 1000,
     .commands = T | L},
    {"show-scale", 0, NUMBER(show_scale), "S", "--show-every: guidance scale; default ", -1e6, 1e6, .commands = T | L},
    {"check-data", 0, FLAG(check_data),
     "read and check all pictures, label maps and prompts, validation's too, and end: a line on stdout for each sample "
     "that cannot be used; exit status 0: all can (--model and -o are not needed; 13 ms of a core for 640 x 480)",
     .commands = T | L},
    {"recipe", 0, WORD(recipe), "NAME",
     "authors: the settings of FreestyleNet's fine-tuning become the defaults (below); none; default ",
     .words = RECIPES, .commands = L},
    {"size", 0, WHOLE(size), "N",
     "--data, --dataset: pictures are resized to N x N (bicubic; labels nearest); a multiple of 64; default ", 64, 2048,
     .commands = T | L},
    {"resize", 0, WORD(resize), "HOW",
     "bytes: values of resized pictures are rounded to 0 ... 255, which gives the bytes of PIL; reals: they are not; "
     "default ",
     .words = RESIZED, .commands = T | L},
    {"flip", 0, NUMBER(flip), "P", "--data, --dataset: share of pictures that are mirrored, left to right; default ", 0,
     1, .commands = T | L},
    {"order", 0, WORD(order), "HOW",
     "--data, --dataset: each picture is drawn among all; or epochs: every picture once, then again in another order; "
     "default ",
     .words = ORDERS, .commands = T | L},
    {"phrases", 0, WORD(phrases), "WHICH",
     "--data, --dataset: a prompt names all classes of the label map, and more than 75 tokens are an error; or the "
     "largest that fit, at most 18; default ",
     .words = PHRASES, .commands = L},
    {"vocab", 0, TEXT(vocab), "FILE", "the tokens; default ", .commands = E | T | L},
    {"set", 0, TEXT(set), "NAME", "which scenes of the small world (see world --help); default ",
     .commands = V | E | S},
    {"count", 0, WHOLE(count), "N", "number of scenes; default ", 1, 1 << 24, .commands = E},
    {"crop", 0, WHOLE(crop), "N", "two N x N pieces of each scene; a multiple of 8; default ", 8, WORLD_SIDE,
     .commands = V},
    {"window", 0, WHOLE(window), "N",
     "N x N latent cells of each scene, with the phrases that are visible in them (latents of a plain set); a multiple "
     "of 8; default: whole scenes",
     .commands = T | L},
    {"things", 0, FLAG(things), "with --window: around things alone, so that a boat is seen more often than the sea",
     .commands = T | L},
    {"alone", 0, NUMBER(alone), "P",
     "with --window: share of windows that name only the phrase which they are cut around, and the picture's style "
     "(windows that are cut around a style name all); default ",
     0, 1, .commands = T},
    {"steps", 0, WHOLE(steps), "N", "updates of the weights; default ", 1, .commands = TRAINING},
    {"batch", 0, WHOLE(batch), "N", "samples per step; default ", 1, MAX_BATCH, .commands = TRAINING},
    {"accumulate", 0, WHOLE(accumulate), "N",
     "batches per step, one after the other: their gradients are averaged, in the memory of one; default ", 1, 1 << 20,
     .commands = T | L},
    {"rate", 0, NUMBER(rate), "R", "learning rate; default ", 0, 1e9, .commands = TRAINING},
    {"fall", 0, NUMBER(fall), "P",
     "share of the steps, the last ones, in which the learning rate falls to a tenth; 0: it stays; default ", 0, 1,
     .commands = TRAINING},
    {"warmup", 0, WHOLE(warmup), "N", "steps in which the learning rate rises to --rate; default ",
     .commands = TRAINING},
    {"decay", 0, NUMBER(decay), "D",
     "AdamW's weight decay, decoupled (its other values: beta 0.9 and 0.999, eps 1e-8); default ", 0, 1e9,
     .commands = TRAINING},
    {"ema", 0, NUMBER(ema), "D",
     "decay of the weights' moving averages, which are what -o gets; 0: no averages; default ", 0, 1,
     .commands = TRAINING},
    {"clip", 0, NUMBER(clip), "N", "largest norm of the gradient; 0: no limit; default ", 0, 1e9, .commands = TRAINING},
    {"dropout", 0, NUMBER(dropout), "P", "share of samples with the empty prompt, which guidance needs; default ", 0, 1,
     .commands = T | L},
    {"frozen-text", 0, FLAG(frozen_text), "do not train the text encoder: it stays random, or as --start has it",
     .commands = T},
    {"frozen-encoder", 0, FLAG(frozen_encoder), "train the decoder of --start alone, so that latents do not change",
     .commands = V},
    {"kl", 0, NUMBER(kl), "W", "weight of the KL divergence; default ", 0, 1e9, .commands = V},
    {"edges", 0, NUMBER(edges), "W", "weight of differences between neighbouring pixels; default ", 0, 1e9,
     .commands = V},
    {"colours", 0, NUMBER(colours), "W", "weight of differences between colours; default ", 0, 1e9, .commands = V},
    {"things-weight", 0, NUMBER(things_weight), "W", "weight of the pixels of things; the others have 1; default ", 0,
     1e9, .commands = V},
    {"seed", 0, WHOLE(seed), "S", "seed of all random numbers; default ", .commands = 0},
    {"workers", 0, WHOLE(workers), "N",
     "split each batch among N workers with one thread each, which is faster than --threads where the network is "
     "small; "
     "another N gives other bits, another --threads does not; default ",
     1, MAX_BATCH, .commands = TRAINING},
    {"less-memory", 0, FLAG(less_memory), "compute blocks twice instead of keeping their activations (the same bits)",
     .commands = TRAINING},
    {"state", 0, TEXT(state), "FILE", "all that --resume needs; default OUT.state", .commands = TRAINING},
    {"every", 0, NUMBER(every), "M",
     "minutes between two states, besides the one at the end; 0: only that one; default ", 0, 1e9,
     .commands = TRAINING},
    {"minutes", 0, NUMBER(minutes), "M", "stop after M minutes, with a state; default: no limit", 0, 1e9,
     .commands = TRAINING},
    {"resume", 0, FLAG(resume), "continue from the state: the same bits as without a break", .commands = TRAINING},
    {"log", 0, TEXT(log), "FILE", "lines of step, loss, norm of the gradient; default OUT.tsv", .commands = TRAINING},
    {"plot", 0, TEXT(plot), "FILE", "the loss as SVG; default OUT.svg", .commands = TRAINING},
    {"f32", 0, FLAG(f32), "write the weights as F32; default: F16", .commands = TRAINING},
    {"record", 0, TEXT(record), "FOLDER",
     "what every step computes, in files: samples, loss, gradients, weights, to check a port against "
     "(docs/training.md); default: none",
     .commands = T | L},
    {"threads", 0, WHOLE(threads), "N", "0: as many as there are processors; changes no bit; default ", 0, 1024,
     .commands = 0},
    {"quiet", 'q', FLAG(quiet), "print nothing on stderr but errors", .commands = 0},
};
enum { OPTION_COUNT = sizeof OPTIONS / sizeof *OPTIONS };

static const struct stage_row {
    const char *arguments, *summary;
} STAGE_ROW[STAGES] = {
    [VAE] = {"-o VAE.safetensors [options]", "Trains an autoencoder on crops of the small world's scenes."},
    [LATENTS] = {"--model VAE.safetensors -o LATENTS.safetensors [options]",
                 "Encodes scenes, for train text2image and train layout."},
    [TEXT2IMAGE] =
        {"--model VAE.safetensors --latents LATENTS.safetensors -o MODEL.safetensors [options]\n"
         "--model VAE.safetensors --data FOLDER -o MODEL.safetensors [options]",
         "Trains a text encoder and a U-Net on captions, and writes them with the autoencoder as one model."},
    [LAYOUT] =
        {"--model MODEL.safetensors --latents LATENTS.safetensors -o TUNED.safetensors [options]\n"
         "--model SD.safetensors --data FOLDER -o TUNED.safetensors [options]\n"
         "--model SD.safetensors --dataset coco --data-root DIR --train-txt-file FILE -o TUNED.safetensors [options]",
         "Tunes a model of Stable Diffusion v1's kind to layouts: the paper's fine-tuning."},
    [SEGMENTER] = {"[--model VAE.safetensors] -o SEGMENTER.safetensors [options]",
                   "Trains a network that labels the small world's pictures."},
};

static const char DETAILS[] =
    "Progress on stderr: one line that is redrawn on a terminal, elsewhere a line every 50th step. The log has a line\n"
    "every 25th step. Ctrl-C stops at once with a state of the last whole step (exit status 0), from which --resume\n"
    "continues; a second Ctrl-C ends the program without one.\n";

static const program TRAIN = {
    .name = "train",
    .arguments = "STAGE [options]",
    .summary = "Trains the small model of flis on the small world (see world --help), or tunes a model of Stable\n"
               "Diffusion v1's kind to layouts. The stages, in this order:\n"
               "  vae          an autoencoder\n"
               "  latents      encoded scenes, for the next two\n"
               "  text2image   text encoder and U-Net, on captions\n"
               "  layout       the U-Net with rectified cross-attention, on layouts: the paper's fine-tuning\n"
               "  segmenter    labels pictures, to judge what a model paints",
    .details = "train STAGE --help lists the options of a stage, with their defaults.\n",
};

static const char DEFAULT_VOCAB[] = "models/vocab.txt"; /* in one of the folders of data_file */

/* Of layout: what --recipe authors sets otherwise than the stage's defaults. */
static void recipe_text(const program *p, const options *defaults, char *out, size_t room)
{
    options authors = *defaults;
    settings_recipe(&authors, RECIPE_AUTHORS);
    authors.recipe = defaults->recipe;
    snprintf(out, room, "--recipe authors (FreestyleNet@5dcb8b8; docs/training.md has the lines) stands for:");
    options_list_changes(p, defaults, &authors, out, room);
    text_append(out, room, ". Its other settings are the defaults above. An option beside it wins.\n\n%s", DETAILS);
}

/* ---- Conditions -------------------------------------------------------------------------------------------------- */

static int refuse_number(const program *p, const char *name, double value, const char *wanted)
{
    return usage_error(p, "invalid value '%.10g' for %s: wanted %s", value, name, wanted);
}

/* Values that the table cannot judge. -1: good. */
static int check_values(const program *p, const options *o)
{
    if (!world_set(o->set))
        return usage_error(p, "invalid value '%s' for --set: wanted a set of the small world (see world --help)",
                           o->set);
    if (o->ema >= 1) return refuse_number(p, "--ema", o->ema, "a number from 0 to below 1");
    if (o->alone > 0 && o->alone < 0.01) return refuse_number(p, "--alone", o->alone, "0 or a number from 0.01 to 1");
    if (o->things_weight == 0) return refuse_number(p, "--things-weight", o->things_weight, "a number above 0");
    if (o->crop % 8) return refuse_number(p, "--crop", (double)o->crop, "a multiple of 8");
    if (o->window % 8) return refuse_number(p, "--window", (double)o->window, "a multiple of 8");
    if (o->size % 64) return refuse_number(p, "--size", (double)o->size, "a multiple of 64");
    if (o->flip > 0 && o->flip < 0.01) return refuse_number(p, "--flip", o->flip, "0 or a number from 0.01 to 1");
    return -1;
}

/* What text2image and layout learn from: one of --latents, --data and --dataset, with what belongs to it. -1: good. */
static int check_sources(const program *p, const options *o)
{
    const int given = (o->latents != NULL) + (o->data != NULL) + (o->dataset != NULL);
    if (!given)
        return missing_argument(p, o->stage == LAYOUT ? "--latents FILE, --data FOLDER or --dataset NAME"
                                                      : "--latents FILE or --data FOLDER");
    if (given > 1)
        return usage_error(p, "%s and %s exclude each other", o->latents ? "--latents" : "--data",
                           o->dataset ? "--dataset" : "--data");
    if (o->dataset && !o->data_root) return missing_argument(p, "--data-root DIR");
    if (o->dataset && !o->train_list) return missing_argument(p, "--train-txt-file FILE");
    if (!o->dataset && (o->data_root || o->train_list || o->val_list))
        return usage_error(p, "%s needs --dataset NAME",
                           o->data_root    ? "--data-root"
                           : o->train_list ? "--train-txt-file"
                                           : "--val-txt-file");
    if (o->validate && o->dataset) return usage_error(p, "--dataset has --val-txt-file FILE in place of --validate");
    if (o->validate_every % LOG_EVERY)
        return refuse_number(p, "--validate-every", (double)o->validate_every, "a multiple of 25");
    if (o->show && !o->show_every) return usage_error(p, "--show needs --show-every N");
    if (!o->latents) return -1;
    if (o->recipe != RECIPE_NONE)
        return usage_error(p, "--recipe %s needs --data FOLDER or --dataset NAME", RECIPES[o->recipe]);
    if (o->order != ORDER_DRAWN || o->phrases != PHRASES_LARGEST || o->resize != RESIZE_REALS || o->flip != 0.5)
        return usage_error(p, "--order, --phrases, --resize and --flip need --data FOLDER or --dataset NAME");
    return -1;
}

/* Options that need others. -1: good. */
static int check_options(const program *p, const options *o)
{
    if (!o->out && !o->check_data) return missing_argument(p, "-o FILE");
    if (!o->check_data && (o->stage == LATENTS || o->stage == TEXT2IMAGE || o->stage == LAYOUT) && !o->model)
        return missing_argument(p, "--model FILE");
    const int data = o->stage == TEXT2IMAGE || o->stage == LAYOUT ? check_sources(p, o) : -1;
    if (data >= 0) return data;
    if (o->frozen_encoder && !o->start) return usage_error(p, "--frozen-encoder needs --start FILE");
    if (o->window && !o->latents) return usage_error(p, "--window needs --latents FILE");
    if (o->things && !o->window) return usage_error(p, "--things needs --window N");
    if (o->alone > 0 && !o->window) return usage_error(p, "--alone needs --window N");
    if (o->record && o->workers > 1) return usage_error(p, "--record and --workers exclude each other");
    return -1;
}

/* Before hours of work: no result is a folder or cannot be written, no two have the same name, and none is an input. */
static bool check_files(flis_ctx *ctx, const options *o)
{
    static const char *const SETS[] = {"/pictures", "/labels", "/layouts", "/captions.txt", "/classes.txt"};
    const char *const out[] = {o->out, o->state, o->log, o->plot},
                      *in[6 + 5] = {o->model, o->start, o->vocab, o->latents, o->train_list, o->val_list};
    const size_t outputs = o->stage == LATENTS ? 1 : 4;
    char *data[5] = {NULL};
    if (outputs > 1 && strcmp(o->out, "-") == 0)
        return flis_fail(ctx, "-o -: training writes files beside the model; wanted a file name");
    for (size_t k = 1; k < 6; k++) /* a model may be a folder */
        if (in[k] && kind_of_file(in[k]) == FILE_FOLDER) return input_check(ctx, in[k]);
    if (o->data && !folder_check(ctx, o->data)) return false;
    for (size_t i = 0; o->data && i < 5; i++) in[6 + i] = data[i] = path_with(ctx, o->data, SETS[i]);
    if (binary_check(ctx, o->out)) outputs_check(ctx, in, sizeof in / sizeof *in, out, outputs);
    for (size_t i = 0; i < 5; i++) free(data[i]);
    return flis_ok(ctx);
}

/* ---- Main -------------------------------------------------------------------------------------------------------- */

/* OUT.state and so on, where they were not given. `made` is to be freed. */
static const char *beside(flis_ctx *ctx, const char *given, const char *out, const char *end, char **made)
{
    return given ? given : (*made = path_with(ctx, out, end));
}

/* --check-data: nothing is written. */
static int check_all(const char *name, job *j)
{
    if (check_only(j) && !j->o.quiet) {
        const size_t learned = learns_pictures(&j->o) ? j->folder.files.count : j->data.count;
        fprintf(stderr, "%s: %zu samples can be used", name, learned);
        if (j->validation.of) fprintf(stderr, ", and %zu for validation", j->validation.of);
        fputc('\n', stderr);
    }
    const int status = finish(name, &j->ctx, 0);
    job_free(j);
    return status;
}

static int run(const char *name, options *o)
{
    job j = {.o = *o, .progress = {.quiet = o->quiet, .unit = o->stage == LATENTS ? "scene" : "step"}};
    char *made[3] = {NULL, NULL, NULL};
    if (flis_init(&j.ctx)) {
        if (!o->quiet) j.ctx.warn = job_print_warning, j.ctx.warn_user = &j;
        if (o->threads) j.ctx.threads = (int)o->threads;
        j.ctx.interrupted = j.stop = catch_signals();
        if (o->check_data) return check_all(name, &j);
        j.o.state = beside(&j.ctx, o->state, o->out, ".state", &made[0]);
        j.o.log = beside(&j.ctx, o->log, o->out, ".tsv", &made[1]);
        j.o.plot = beside(&j.ctx, o->plot, o->out, ".svg", &made[2]);
        if (flis_ok(&j.ctx) && check_files(&j.ctx, &j.o)) o->stage == LATENTS ? make_latents(&j) : train(&j);
        progress_end(&j.progress);
    }
    const int status = finish(name, &j.ctx, 0);
    for (int i = 0; i < 3; i++) free(made[i]);
    job_free(&j);
    return status;
}

int main(int argc, char **argv)
{
    static const char stages[] = "vae, latents, text2image, layout or segmenter";
    options o, defaults;
    char name[32], vocab[PATH_ROOM], details[2048];
    int s = VAE, words, status;
    if (argc < 2) return usage_error(&TRAIN, "a stage is missing: %s", stages);
    if (argv[1][0] == '-') {
        status = options_read(&TRAIN, &o, 2, argv, &words);
        return status >= 0 ? finish("train", NULL, status) : usage_error(&TRAIN, "a stage is missing: %s", stages);
    }
    while (s < STAGES && strcmp(argv[1], STAGE[s]) != 0) s++;
    if (s == STAGES) return usage_error(&TRAIN, "unknown stage '%s': wanted %s", argv[1], stages);
    settings_default(&defaults, (stage)s);
    defaults.vocab = DEFAULT_VOCAB;
    snprintf(name, sizeof name, "train %s", STAGE[s]);
    const program p = {.name = name,
                       .arguments = STAGE_ROW[s].arguments,
                       .summary = STAGE_ROW[s].summary,
                       .details = s == LATENTS  ? NULL
                                  : s == LAYOUT ? details
                                                : DETAILS,
                       .options = OPTIONS,
                       .count = OPTION_COUNT,
                       .command = 1u << s,
                       .defaults = &defaults};
    if (s == LAYOUT) recipe_text(&p, &defaults, details, sizeof details);
    const char *recipe = options_find(&p, argc - 1, argv + 1, "recipe");
    if (recipe && strcmp(recipe, RECIPES[RECIPE_AUTHORS]) == 0) settings_recipe(&defaults, RECIPE_AUTHORS);
    o = defaults;
    status = options_read(&p, &o, argc - 1, argv + 1, &words);
    if (status < 0 && words) status = unexpected_argument(&p, argv[1]);
    if (status < 0) status = check_values(&p, &o);
    if (status < 0) status = check_options(&p, &o);
    if (o.vocab == DEFAULT_VOCAB && data_file(argv[0], base_name(DEFAULT_VOCAB), vocab)) o.vocab = vocab;
    return status < 0 ? run(name, &o) : finish(name, NULL, status);
}
