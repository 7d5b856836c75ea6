/* main.c - the `flis` command: its subcommands, their options, and which of them runs.
 *
 * Data goes to stdout, everything else to stderr. Exit 0: done; 1: failed, one sentence says why and no result was written;
 * 2: wrong usage.
 */
#include "tools/flis/command.h"

#include <stdlib.h>
#include <string.h>

/* ---- Options -------------------------------------------------------------------------------------------------------- */

enum {
    GENERATE = 1,
    STAGE = 2,
    PRECISION = 4,
    TOKENS = 8,
    INFO = 16,
    LAYOUT = 32,
    DIGEST = 64,
    CONFORMANCE = 128,
    LIS = 256,
    PAINTING = GENERATE | LIS,
    SAMPLING = PAINTING | STAGE
};

static const char *const SAMPLERS[] = {"plms", "ddim", NULL};
static const char *const GENERATORS[] = {"cpu", "cuda", NULL};
static const char *const FORMATS[] = {"png", "jpg", NULL};

/* The library's limit. */
enum { LARGEST_SIDE = 8192 };

/* Of `flis lis`: far above what a graphics card holds. */
enum { LARGEST_BATCH = 65536 };

/* "512" or "640x448". */
static bool parse_size(void *options, const char *text)
{
    settings *s = options;
    char first[24];
    uint64_t w, h;
    const size_t length = strcspn(text, "x");
    if (length >= sizeof first) return false;
    memcpy(first, text, length);
    first[length] = 0;
    if (!parse_whole(first, &w)) return false;
    if (!text[length]) h = w;
    else if (!parse_whole(text + length + 1, &h)) return false;
    if (!w || !h || w % 64 || h % 64 || w > LARGEST_SIDE || h > LARGEST_SIDE) return false;
    s->width = (size_t)w;
    s->height = (size_t)h;
    return true;
}

/* "0,49" or "0-3,10". */
static bool parse_ranges(void *options, const char *text)
{
    settings *s = options;
    for (s->trace_steps = 0;;) {
        char part[48], *dash;
        const size_t length = strcspn(text, ",");
        if (length >= sizeof part || s->trace_steps == MAX_RANGES) return false;
        memcpy(part, text, length);
        part[length] = 0;
        if ((dash = strchr(part, '-'))) *dash++ = 0;
        range *r = &s->trace_step[s->trace_steps++];
        if (!parse_whole(part, &r->first) || !parse_whole(dash ? dash : part, &r->last) || r->last < r->first)
            return false;
        if (!text[length]) return true;
        text += length + 1;
    }
}

/* "2/8": shard 2 of 8. */
static bool parse_shard(void *options, const char *text)
{
    settings *s = options;
    char first[24];
    const size_t length = strcspn(text, "/");
    if (length >= sizeof first || !text[length]) return false;
    memcpy(first, text, length);
    first[length] = 0;
    return parse_whole(first, &s->shard) && parse_whole(text + length + 1, &s->shards) && s->shard > 0 &&
           s->shard <= s->shards && s->shards <= 1000000;
}

/* "8,588,7": picture 7 of batch 588, of batches of 8; with ",fixed" of a run with a fixed code. */
static bool parse_of_batch(void *options, const char *text)
{
    settings *s = options;
    uint64_t number[3];
    size_t count = 0;
    char numbers[80];
    const char *fixed = strstr(text, ",fixed");
    const size_t length = fixed ? (size_t)(fixed - text) : strlen(text);
    if (length >= sizeof numbers || (fixed && fixed[6])) return false;
    memcpy(numbers, text, length);
    numbers[length] = 0;
    if (!parse_list(numbers, 0, (uint64_t)1 << 40, number, 3, &count) || count != 3) return false;
    s->of_batch = true;
    s->fixed_code = fixed != NULL;
    s->batch = number[0];
    s->batch_number = number[1];
    s->batch_index = number[2];
    return s->batch >= 1 && s->batch <= LARGEST_BATCH && s->batch_index < s->batch;
}

/* Any text, the empty one too. */
static bool parse_negative(void *options, const char *text)
{
    ((settings *)options)->negative = text;
    return true;
}

#define FIELD(name) offsetof(settings, name)
#define SIZE_OPTION .parse = parse_size, .wanted = "N or WxH, multiples of 64 up to 8192"

static const option OPTIONS[] = {
    {"model", 'm', OPTION_TEXT, FIELD(model), "FILE", "safetensors checkpoint; default: the small model",
     .commands = SAMPLING | TOKENS | LAYOUT | PRECISION},
    {"model", 'm', OPTION_TEXT, FIELD(model), "FILE",
     "safetensors checkpoint; default: a tiny model with formula weights", .commands = DIGEST},
    {"variant", 0, OPTION_TEXT, FIELD(variant), "NAME",
     "of a diffusers folder: the weights named so, as fp16, non_ema; default: the plain ones, else the only ones",
     .commands = SAMPLING | PRECISION | TOKENS | INFO | LAYOUT | DIGEST},
    {"vae", 0, OPTION_TEXT, FIELD(vae), "FILE",
     "take the autoencoder from this safetensors file or diffusers folder; default: the model's own",
     .commands = SAMPLING | INFO},
    {"packed", 0, OPTION_FLAG, FIELD(packed), NULL,
     "copy the weights into memory, packed for the kernels, instead of mapping the model's file; no bit depends on it",
     .commands = SAMPLING | PRECISION | DIGEST},
    {"json", 'j', OPTION_ARGUMENT, 0, "FILE",
     "the phrases, and the layout that they act in; several may be given, also without -j; -: standard input, whose "
     "layout_path is relative to the working directory",
     .commands = GENERATE},
    {"dataset", 0, OPTION_TEXT, FIELD(dataset), "NAME",
     "coco, ade20k, or a file with lines of label, tab, name (0 and 255 are void where it does not name them); default "
     "coco",
     .commands = LIS},
    {"data-root", 0, OPTION_TEXT, FIELD(data_root), "DIR",
     "the folder with stuffthingmaps_trainval2017/val2017 or annotations/validation, or a folder of label maps",
     .commands = LIS},
    {"txt-file", 0, OPTION_TEXT, FIELD(txt_file), "FILE",
     "a picture's path on each line, of which the name counts; default: all label maps of the folder", .commands = LIS},
    {"outdir", 'o', OPTION_TEXT, FIELD(outdir), "DIR", "where NAME.jpg and the manifest go; made if it is not there",
     .commands = LIS},
    {"shard", 0, OPTION_CALL, 0, "I/N", "paint pictures I, I + N, I + 2 N, ... of the list; default 1/1",
     .parse = parse_shard, .wanted = "I/N, with I from 1 to N", .commands = LIS},
    {"format", 0, OPTION_WORD, FIELD(format), "NAME", "png or jpg (quality 75, as the authors' program); default jpg",
     .words = FORMATS, .commands = LIS},
    {"grid", 0, OPTION_TEXT, FIELD(grid), "FILE", "write an HTML page with the layouts beside their pictures",
     .commands = LIS},
    {"input", 'i', OPTION_TEXT, FIELD(in), "FILE", "safetensors with the stage's inputs", .commands = STAGE},
    {"output", 'o', OPTION_TEXT, FIELD(out), "FILE",
     "the PNG or JPEG (.jpg, .jpeg) to write, or a folder (DIR/): pictures are named as their layouts",
     .commands = GENERATE},
    {"format", 0, OPTION_WORD, FIELD(format), "KIND",
     "png or jpg (PIL's default: quality 75, 4:2:0); default: by the ending of -o, else png", .words = FORMATS,
     .commands = GENERATE},
    {"count", 'n', OPTION_WHOLE, FIELD(count), "N",
     "pictures of each layout, with the seeds S, S+1, ..., named out-S.png, ...; default 1", 1, 100000,
     .commands = GENERATE},
    {"output", 'o', OPTION_TEXT, FIELD(out), "FILE", "the safetensors file to write", .commands = STAGE},
    {"vocab", 0, OPTION_TEXT, FIELD(vocab), "FILE",
     "bpe_simple_vocab_16e6.txt[.gz], merges.txt, tokenizer.json, or a folder with one; default: the model's "
     "tokenizer/, or "
     "beside the model",
     .commands = PAINTING | TOKENS | LAYOUT},
    {"vocab", 0, OPTION_TEXT, FIELD(vocab), "FILE",
     "the same kind of file as in `flis tokens`; default: 1000 built-in tokens", .commands = DIGEST},
    {"steps", 0, OPTION_WHOLE, FIELD(steps), "N", "sampler steps; default 50", 1, FLIS_TIMESTEPS, .commands = SAMPLING},
    {"ddim-steps", 0, OPTION_WHOLE, FIELD(steps), "N", "the authors' name of --steps", 1, FLIS_TIMESTEPS,
     .commands = LIS},
    {"sampler", 0, OPTION_WORD, FIELD(sampler), "NAME", "plms or ddim; default plms", .words = SAMPLERS,
     .commands = GENERATE | STAGE},
    {"sampler", 0, OPTION_WORD, FIELD(sampler), "NAME", "plms or ddim; default ddim", .words = SAMPLERS,
     .commands = LIS},
    {"plms", 0, OPTION_FLAG, FIELD(plms), NULL, "the authors' name of --sampler plms", .commands = LIS},
    {"eta", 0, OPTION_NUMBER, FIELD(eta), "X", "noise that DDIM adds, 0 to 1; default 0", 0, 1, .commands = SAMPLING},
    {"ddim-eta", 0, OPTION_NUMBER, FIELD(eta), "X", "the authors' name of --eta", 0, 1, .commands = LIS},
    {"scale", 0, OPTION_NUMBER, FIELD(scale), "X", "guidance scale; 1: no guidance; default 2", -1000, 1000,
     .commands = SAMPLING},
    {"seed", 0, OPTION_WHOLE, FIELD(seed), "N", "of the noise, 0 to 2^64-1; default 42",
     .commands = SAMPLING | PRECISION},
    {"rng", 0, OPTION_WORD, FIELD(rng), "KIND", "PyTorch's generator: cpu or cuda; default cpu", .words = GENERATORS,
     .commands = SAMPLING},
    {"batch-size", 0, OPTION_WHOLE, FIELD(batch), "N",
     "noise is drawn for N pictures at once, as the authors' program does: it determines the pictures; default 8", 1,
     LARGEST_BATCH, .commands = LIS},
    {"fixed-code", 0, OPTION_FLAG, FIELD(fixed_code), NULL, "all batches start from the same noise", .commands = LIS},
    {"noise-by-picture", 0, OPTION_FLAG, FIELD(by_picture), NULL,
     "each picture's noise is its own: picture I of the list (from 0) has seed S + I", .commands = LIS},
    {"of-batch", 0, OPTION_CALL, 0, "N,B,I",
     "with the noise that flis lis --batch-size N draws for picture I of batch B (from 0)", .parse = parse_of_batch,
     .wanted = "three numbers N,B,I, with I from 0 to N - 1", .commands = GENERATE},
    {"size", 0, OPTION_CALL, 0, "WxH", "of the picture, multiples of 64, or one number; default 512", SIZE_OPTION,
     .commands = PAINTING | LAYOUT},
    {"size", 0, OPTION_CALL, 0, "WxH", "of the picture, multiples of 64, or one number; default 128", SIZE_OPTION,
     .commands = PRECISION},
    {"truth", 0, OPTION_TEXT, FIELD(truth), "FILE", "compare with this: what flis64 precision --trace wrote",
     .commands = PRECISION},
    {"json", 0, OPTION_TEXT, FIELD(json), "FILE", "write the table to this JSON file too", .commands = PRECISION},
    {"negative", 0, OPTION_CALL, 0, "TEXT", "what guidance leads away from, at most 75 tokens; default: \"\"",
     .parse = parse_negative, .wanted = "a text", .commands = GENERATE},
    {"again", 0, OPTION_TEXT, FIELD(again), "FILE",
     "paint this PNG of generate again (a JPEG keeps nothing of how it was made); options given beside it replace its "
     "own",
     .commands = GENERATE},
    {"no-layout", 0, OPTION_FLAG, FIELD(no_layout), NULL, "plain Stable Diffusion: the phrases act everywhere",
     .commands = GENERATE},
    {"noise", 0, OPTION_TEXT, FIELD(noise), "FILE", "safetensors with x_T [1,4,h,w]; default: drawn from the seed",
     .commands = GENERATE},
    {"threads", 0, OPTION_WHOLE, FIELD(threads), "N", "no bit of the result depends on it; default: all cores", 1, 4096,
     .commands = SAMPLING | PRECISION | DIGEST},
    {"trace", 0, OPTION_TEXT, FIELD(trace), "FILE", "write intermediates to this safetensors file",
     .commands = GENERATE | STAGE},
    {"trace", 0, OPTION_TEXT, FIELD(trace), "FILE", "write the reference and its inputs to this safetensors file",
     .commands = PRECISION},
    {"trace-match", 0, OPTION_TEXT, FIELD(trace_match), "GLOB",
     "only intermediates whose whole name matches (* ? [a-z])", .commands = GENERATE | STAGE},
    {"trace-steps", 0, OPTION_CALL, 0, "LIST", "only those sampler steps, from 0: 0,49 or 0-3", .parse = parse_ranges,
     .wanted = "steps and ranges of steps like 0,10-12,49", .commands = GENERATE | STAGE},
    {"trace-digest", 0, OPTION_TEXT, FIELD(trace_digest), "FILE",
     "write the digest and statistics of every intermediate to this JSON file", .commands = GENERATE | STAGE},
    {"manifest", 0, OPTION_TEXT, FIELD(manifest), "DIR",
     "the folder of manifest.json and its files; default: tests/golden", .commands = CONFORMANCE},
    {"match", 0, OPTION_TEXT, FIELD(match), "GLOB", "only vectors whose whole id matches (* ? [a-z]); default: all",
     .commands = CONFORMANCE},
    {"diffable", 0, OPTION_FLAG, FIELD(diffable), NULL, "leave out the position of each tensor in the file",
     .commands = INFO},
    {"verify", 0, OPTION_FLAG, FIELD(verify), NULL,
     "read every value of every tensor, and fail where one is NaN or infinite", .commands = INFO},
    {"quiet", 'q', OPTION_FLAG, FIELD(quiet), NULL, "print nothing on stderr but warnings and errors",
     .commands = SAMPLING | PRECISION},
    {"no-warnings", 0, OPTION_FLAG, FIELD(no_warnings), NULL, "print no warnings",
     .commands = SAMPLING | PRECISION | TOKENS | INFO | LAYOUT | DIGEST | CONFORMANCE},
};

/* ---- Commands ------------------------------------------------------------------------------------------------------- */

typedef struct command {
    const char *name, *alias; /* an older name that still works */
    int (*run)(job *j);
    program program;
} command;

static const char GENERATE_DETAILS[] =
    "The seed is printed on stderr and stored in the PNG, with everything else that reproduces the picture: options, "
    "phrases, label map, and the SHA-256 of model, vocabulary and noise (15 s for 4 GB, after the first picture). "
    "--again paints such a PNG "
    "again, "
    "to the bit, and refuses other files. A JPEG keeps none of this, so --again needs a PNG. Ctrl-C stops between two "
    "operations and leaves no partial file; finished "
    "pictures of several stay.\n\nWith --count N, -o out.png writes out-42.png, out-43.png, ...; into a folder, -o "
    "DIR/ "
    "writes DIR/LAYOUT.png, or DIR/LAYOUT-42.png, ... (with --format jpg: .jpg). A folder that does not exist is made. "
    "All layouts are read "
    "before the "
    "first picture, and the model is loaded once if memory allows.\n\nTraced tensors have the names of the authors' "
    "modules, after the step and the pass, and are in PyTorch's order. They are kept in memory until the end; without "
    "--trace-match that is all of them, except attention scores and weights of more than 2^24 values. Traces and "
    "digests also hold what reproduces the run.";

static const char LIS_DETAILS[] =
    "The prompt of a layout is the names of its classes, in the order of their labels, without void. The model is "
    "loaded "
    "once, and a prompt is encoded once.\n\nNoise: one generator draws for whole batches, as the authors' program "
    "does, "
    "so picture 4711 of a run is the same whichever shard paints it. --size changes the size of label maps too. The "
    "authors' spellings are taken (--data_root, --ddim_steps, ...).\n\nStopped at any moment, even by kill -9, and "
    "started again with the same command, the run goes on: pictures appear whole, and those that are there with the "
    "digest of the manifest are kept. DIR/manifest.tsv (of a shard: manifest-I-of-N.tsv) has picture, prompt, seed, "
    "shard, "
    "SHA-256 and seconds. A folder with pictures of another run is refused. A layout that cannot be painted is named "
    "at "
    "the end, and the exit status is then 1.\n\nOn several machines, each with --shard I/N and its own copy of the "
    "data "
    "or a shared folder; with GNU parallel: seq 8 | parallel -j 2 flis lis ... --threads 1 --shard {}/8";

static const char STAGE_DETAILS[] =
    "  clip    ids I32 [n,77]                                     -> last_hidden_state [n,77,d]\n"
    "  rca     label U8 [H,W], class_ids F32 [k], size I32 [2]    -> mask U8 [h*w,77]; size is h, w\n"
    "  unet    x [n,4,h,w], t [n], context [n,77,d],\n"
    "          optional label U8 [H,W] and class_ids F32 [k]      -> eps [n,4,h,w]\n"
    "  decode  z [n,4,h,w], already divided by the scale factor   -> image [n,3,8h,8w]\n"
    "  encode  image [n,3,H,W]                                    -> moments [n,8,H/8,W/8]\n"
    "  sample  x_T [1,4,h,w], context [1,77,d], uncond [1,77,d]   -> latents [1,4,h,w]; of each step t I64 [S],\n"
    "          (not with --scale 1), optional label and              and [S,4,h,w]: e_t, x_prev, pred_x0, and x,\n"
    "          class_ids                                             the latent that the step started from\n"
    "\n"
    "The noise of sample is that of --seed after one draw of x_T's size, as if x_T itself had been drawn: with the x_T "
    "of the same seed, runs with --eta above 0 equal the authors'. Without x_T, size I32 [2] (h, w) has it drawn.\n\n"
    "label has the size of the picture; other integer types and one extra leading 1 are accepted. Outputs are F32 "
    "(flis64: F64). Intermediates have the names of the authors' modules (sample: after the step and the pass). "
    "--trace-match without --trace adds those that match to the output file.";

static const char PRECISION_DETAILS[] =
    "Runs text encoder, U-Net (t = 981, a layout of four quarters) and decoder on fixed inputs. The result of each "
    "operation is rounded to the format, and so are the operands of products (tf32: the operands alone, to 10 "
    "bits).\n\nflis64 compares with double; its f32 does not round partial sums: the errors of real float32 are 4 to 5 "
    "times larger. flis compares with its own float32, or, with --truth, compares all four, its float32 among them, "
    "with the double of flis64.\n\nOne line per tensor: root mean square, and for each format the largest error, the "
    "root mean square error, and the latter relative to the tensor's; then a line per stage and format. Where a format "
    "overflows, the tensors with non-finite values are counted and the first is named.";

static const char TOKENS_DETAILS[] = "BOS and EOS are included, with at most 75 tokens between them and no padding. A "
                                     "text that begins with - goes after --.";

static const char INFO_DETAILS[] =
    "MODEL is a safetensors file, an index of shards, or a diffusers folder. Tensors are sorted by name; each line "
    "ends with file:begin-end. Exit status 1 if a part is incomplete.";

static const char LAYOUT_DETAILS[] = "Warnings on stderr name the phrases whose regions vanish at a scale.";

static const char DIGEST_DETAILS[] =
    "Each line is STAGE, two spaces, and the SHA-256 of the stage's values, little-endian, in PyTorch's order; the "
    "last, \"all\", is that of the lines before it. Without -m no file is read: weights are formulas (those of synth "
    "tinyA), 8x8 latents, a 64x64 picture. Where two machines differ, the first line that differs names the stage.";

static const char CONFORMANCE_DETAILS[] =
    "manifest.json describes each vector: what it is, its inputs and weights (formulas), its outputs and how they are "
    "judged. RESULTS holds the outputs under their names, of any floating or integer type; `golden --answers` writes "
    "those of flis. One line per vector; for one that failed also the largest error, its position, and the mistake "
    "that the vector exposes. Exit status 1 if a vector failed or an output is missing.";

/* NAME as a word, its bit, and the function that runs it; then arguments and summary. */
#define COMMAND(word, older, bit, function, arguments_, summary_) \
    { \
        word, older, function, \
        { \
            .name = "flis " word, .arguments = arguments_, .summary = summary_, .details = bit##_DETAILS, \
            .options = OPTIONS, .count = sizeof OPTIONS / sizeof *OPTIONS, .command = bit, .foreign = FOREIGN \
        } \
    }

static const command COMMANDS[] = {
    COMMAND("generate", NULL, GENERATE, run_generate,
            "[-m MODEL] -j LAYOUT.json -o OUT.png [options]\n[-m MODEL] LAYOUT.json... -o DIR/ [options]\n"
            "[-m MODEL] --again PICTURE.png -o OUT.png [options]",
            "A layout and its phrases in, a picture out."),
    COMMAND("lis", NULL, LIS, run_lis, "[-m MODEL] --dataset NAME --data-root DIR [--txt-file FILE] --outdir DIR",
            "The layouts of a data set, by the thousand: a picture of each, of its classes."),
    COMMAND("stage", NULL, STAGE, run_stage, "NAME [-m MODEL] -i IN.safetensors -o OUT.safetensors [options]",
            "One stage of the pipeline on given tensors, in PyTorch's order, batch first."),
    COMMAND(
        "precision", "noise", PRECISION, run_precision, "[-m MODEL] [options]",
        "The errors of a correct port: every intermediate in float32, tf32, fp16 and bf16, compared with the truth."),
    COMMAND("tokens", NULL, TOKENS, run_tokens, "[-m MODEL] [--vocab FILE] [TEXT...]",
            "Token ids of each text (or of each line of stdin), one line per text."),
    COMMAND("info", NULL, INFO, run_info, "MODEL [options]",
            "What a model holds: its kind, sizes, configuration, what is missing or unexpected, every tensor."),
    COMMAND("layout", NULL, LAYOUT, run_layout, "LAYOUT.json [options]",
            "What a layout (-: of standard input) holds: phrases, tokens and classes, cells per id at every scale."),
    COMMAND("digest", NULL, DIGEST, run_digest, "[-m MODEL] [options]",
            "One SHA-256 per stage, from tokens to PNG, and one of all: the same on every machine."),
    COMMAND("conformance", NULL, CONFORMANCE, run_conformance, "RESULTS.safetensors [options]",
            "Grades a port's answers to the conformance vectors; the report can be pasted into an issue."),
};
enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS };

static const program FLIS = {.name = "flis"};

static const command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(name, COMMANDS[i].name) == 0 || (COMMANDS[i].alias && strcmp(name, COMMANDS[i].alias) == 0))
            return &COMMANDS[i];
    return NULL;
}

static int unknown_command(const char *text)
{
    const char *meant = NULL;
    size_t best = SIZE_MAX;
    if (ends_in(text, ".json"))
        return usage_error(&FLIS, "a command is missing: flis generate %s, or flis layout", text);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const size_t distance = typed_distance(text, strlen(text), COMMANDS[i].name);
        if (distance < best) best = distance, meant = COMMANDS[i].name;
    }
    if (meant) return usage_error(&FLIS, "unknown command '%s': did you mean %s?", text, meant);
    return usage_error(&FLIS, "unknown command '%s'", text);
}

static void print_commands(void)
{
    printf(
        "usage: flis COMMAND [options]\n\nFreestyle layout-to-image synthesis: a layout and its phrases in, a picture "
        "out.\n\ncommands:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const program *p = &COMMANDS[i].program;
        printf("  %s %.*s\n      %s\n", p->name, (int)strcspn(p->arguments, "\n"), p->arguments, p->summary);
    }
    printf("\nflis COMMAND --help, or flis help COMMAND, lists the options of a command; flis --version prints the "
           "version.\n"
           "Data goes to stdout, everything else to stderr.\n"
           "Exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage.\n");
}

/* `flis help [COMMAND]`. */
static int run_help(int argc, char **argv)
{
    if (argc > 3) return unexpected_argument(&FLIS, argv[3]);
    const command *which = argc == 3 ? find_command(argv[2]) : NULL;
    if (argc == 3 && !which) return unknown_command(argv[2]);
    if (which) options_help(&which->program);
    else print_commands();
    return finish("flis", NULL, 0);
}

/* ---- main ----------------------------------------------------------------------------------------------------------- */

static settings default_settings(const command *which)
{
    flis_options o;
    settings s = {0};
    flis_options_default(&o);
    s.steps = (uint64_t)o.sampling.steps;
    s.seed = o.seed;
    s.count = 1;
    s.format = FORMAT_BY_NAME;
    s.dataset = "coco";
    s.shard = s.shards = 1;
    s.batch = 8;
    if (which->program.command == LIS) {
        s.format = FORMAT_JPEG;
        s.sampler = 1;
    }
    s.eta = o.sampling.eta;
    s.scale = o.sampling.scale;
    s.width = s.height = which->program.command == PRECISION ? 128 : o.width;
    return s;
}

static int run_command(const command *which, int argc, char **argv)
{
    job j = {.progress = {.quiet = false}};
    j.self = argv[0];
    j.program = &which->program;
    j.word = argv + 1;
    j.set = j.fresh = default_settings(which);
    j.argc = argc - 1;
    j.argv = malloc((size_t)argc * sizeof *j.argv);
    if (!j.argv) return usage_error(j.program, "out of memory");
    memcpy(j.argv, argv + 1, (size_t)argc * sizeof *j.argv);
    int status = options_read(j.program, &j.set, argc - 1, argv + 1, &j.words);
    if (status >= 0) {
        free(j.argv);
        return finish(j.program->name, NULL, status);
    }
    const bool good = flis_init(&j.ctx);
    warnings w = {.name = j.program->name, .progress = &j.progress, .off = j.set.no_warnings};
    j.ctx.warn = print_warning;
    j.ctx.warn_user = &w;
    status = good ? which->run(&j) : 1;
    progress_end(&j.progress);
    free_tensors(&j.outputs);
    free_tensors(&j.traced);
    free_facts(&j);
    model_close_files(&j);
    free(j.argv);
    flis_free(&j.ctx);
    return finish(j.program->name, &j.ctx, status);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage_error(&FLIS,
                           "a command is missing: generate, lis, stage, precision, tokens, info, layout, digest or "
                           "conformance");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return run_help(argc, argv);
    int words;
    if (strcmp(argv[1], "--version") == 0) return finish("flis", NULL, options_read(&FLIS, NULL, 2, argv, &words));
    const command *which = find_command(argv[1]);
    if (which) return run_command(which, argc, argv);
    return argv[1][0] == '-' ? usage_error(&FLIS, "unknown option %s", argv[1]) : unknown_command(argv[1]);
}
