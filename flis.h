/* flis.h - freestyle layout-to-image synthesis: text and a layout in, a picture out. Portable C99.
 *
 * FreestyleNet (Xue et al., CVPR 2023, arXiv 2303.14412) is Stable Diffusion v1.4 with rectified cross-attention: each
 * phrase of the prompt acts only inside its region of a segmentation layout. The whole of it, without includes, main and
 * clean-up:
 *
 *     flis_ctx ctx;
 *     flis_options options;
 *     flis_layout layout;
 *     flis_picture picture;
 *     flis_init(&ctx);
 *     flis_options_default(&options);
 *     options.width = options.height = 128;                                        // the small model's size
 *     flis_vocab *vocab = flis_vocab_read(&ctx, "models/vocab.txt");
 *     flis_model *model = flis_model_load(&ctx, "models/flis-small.safetensors", FLIS_PARTS_PAINT);
 *     flis_layout_read(&ctx, "examples/harbour.json", &layout);
 *     flis_model_generate(&ctx, model, vocab, &layout, &options, &picture);        // as often as you like
 *     flis_write_png(&ctx, "harbour.png", &picture, NULL);
 *     if (!flis_ok(&ctx)) fprintf(stderr, "%s\n", ctx.error);                      // the first failure, if any
 *
 * examples/paint.c is that program with its clean-up; docs/embedding.md has the same in C++ and Python, and how to compile.
 *
 * ORDER. "Using flis" comes first: version, context, model, vocabulary, layout, generate, pictures. Then "The workshop",
 * for those who build on the parts: tensors, operations, weights, networks, samplers, files, JSON, training.
 *
 * ERRORS. A function that returns bool returns true when it did its work; one that returns a pointer returns NULL when it
 * failed. Then ctx->error holds one sentence: what, where, got, wanted. The error is sticky: on a failed context every
 * function returns false or NULL at once and accepts the NULLs that earlier ones returned, so code needs no check after
 * each call; the first sentence stays. flis_clear_error makes the context usable again. Nothing in this library exits,
 * prints, or asserts on what a caller gave.
 *
 * MEMORY. Who calls …_new, …_load, …_read or …_open owns the result and frees it with its …_free or …_close (NULL is
 * accepted). Results marked "free() it" are malloc'ed; flis_release is the same free for callers with another C library.
 * A struct named `out` is set by the call: whatever was in it is overwritten, not freed; after a failure it is all zero
 * (and may be freed). Pointers passed in are borrowed for the call unless the comment says otherwise. Activations live in
 * the context's arena: they stay valid until flis_rewind to an earlier mark, or flis_free.
 *
 * THREADS. A context belongs to one thread at a time. Everything that is only read may be shared between threads: a model
 * whose parts are loaded, a vocabulary, a layout, a clip, a U-Net, an autoencoder, weights. So: one context a thread, one
 * model for all. The library keeps no other state. Inside a call, OpenMP uses ctx->threads threads; no bit depends on it.
 *
 * UNITS AND SHAPES. n samples, h height and w width (of the latent; H and W of the picture, 8 times those), c channels,
 * t tokens, d width of a token, k inner index of a dot product. Activations are [n][h][w][c] or [n][t][c]. Files and traces
 * are in PyTorch's order: [n][c][h][w], [n][t][c]. Pictures are bytes [height][width][channels]. Timesteps are 0..999.
 *
 * SOURCES. "FreestyleNet@5dcb8b8 FILE:LINE" is the authors' code at that commit; "SPEC n.n" in the .c files is a section of
 * SPEC.md, which defines every operation to the bit.
 */
#ifndef FLIS_H
#define FLIS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Activations and weights are float. The second library, flis64, computes in double: "the truth" that float is compared
   with. Its functions have names of their own (flis64_init…); include flis64.h, which defines FLIS_DOUBLE and maps the
   names below to those. A program that mixes the two libraries fails to link. */
#ifdef FLIS_DOUBLE
#ifndef FLIS64_NAMES
#error "FLIS_DOUBLE is not defined by hand: include flis64.h, and link with -lflis64"
#endif
typedef double flis_real;
#else
typedef float flis_real;
#endif

enum {
    FLIS_TOKENS = 77,        /* positions of the text encoder: BOS, at most 75 tokens, EOS and padding */
    FLIS_PHRASE_TOKENS = 75, /* tokens that a prompt may have */
    FLIS_TIMESTEPS = 1000,   /* steps of the diffusion process that the U-Net was trained on */
    FLIS_FACTOR = 8,         /* picture pixels per latent cell, each way */
    FLIS_MAX_DIMS = 8        /* dimensions of a tensor in a file */
};

/* ================================================ USING FLIS ===================================================== */

/* ---- Version ----------------------------------------------------------------------------------------------------- */

/* Of this header; the number is major * 10000 + minor * 100 + patch. */
#define FLIS_VERSION "0.1.0"
#define FLIS_VERSION_NUMBER 100
/* Of the arithmetic's definition (SPEC.md 1 to 9): versions with the same edition paint the same pixels. */
#define FLIS_EDITION 1
/* Of the library that was linked. A program that finds another FLIS_VERSION_NUMBER here was compiled with another header. */
int flis_version(void);
const char *flis_version_text(void);

/* ---- Context ----------------------------------------------------------------------------------------------------- */

typedef struct flis_tensor flis_tensor;

/* Memory for activations: allocated at the top, freed by rewinding to a mark. Use it through flis_here and flis_rewind. */
typedef struct flis_arena {
    struct flis_chunk *top;   /* the chunk that is being filled; older ones hang below it */
    struct flis_chunk *spare; /* emptied chunks, kept because fresh pages are slow */
    size_t used;              /* bytes allocated now, in all chunks (while dry: that would have been) */
    size_t peak;              /* the largest `used` so far */
} flis_arena;

/* torch.randn's generators; "Random numbers" below has the functions. */
typedef enum { FLIS_RNG_CPU, FLIS_RNG_CUDA } flis_rng_kind;
typedef struct flis_rng {
    flis_rng_kind kind;
    uint32_t mt[624];     /* mt19937 state (CPU) */
    int at;               /* next word of mt, 624: refill */
    bool has_next_normal; /* below 16 values the second of a Box-Muller pair is kept for the next call */
    double next_normal;
    uint64_t seed;  /* Philox key (CUDA) */
    uint32_t calls; /* Philox: normal calls since seeding */
    /* Set them after seeding: flis_randn(count) then draws the `batch` * count numbers of a whole batch and returns those of
       picture `index` of it, from index * count on. batch 0: a batch of one. */
    size_t batch, index;
} flis_rng;

/* A number format whose rounding is emulated: each operation's result is rounded to it, and so are the operands of
   products (weights and biases too); for tf32 the operands alone, to 10 bits, while results are float32. Sums are
   accumulated in `flis_real` as always; norms and softmax work in double inside. It shows how large the error of a
   correct port in that format may be. */
typedef enum { FLIS_EXACT, FLIS_AS_F32, FLIS_AS_TF32, FLIS_AS_F16, FLIS_AS_BF16 } flis_precision;

enum { FLIS_MAGIC = 0x464C4953 };
typedef struct flis_ctx {
    char error[4096]; /* the first failure, one sentence (several lines where it lists tensors); "" if none */
    uint32_t magic;   /* FLIS_MAGIC after flis_init; a context without it is refused */
    int threads;      /* OpenMP threads, 1 or more; the bits do not depend on it */
    bool naive;       /* every operation runs its definition: slow, the same bits; for checks and for readers */
    bool dry;         /* operations only compute shapes and count memory and work: how stages size the arena */
    uint64_t macs;    /* multiply-adds that operations did (or, dry, would have done) */
    flis_arena arena;
    flis_rng rng;
    flis_precision precision; /* FLIS_EXACT: nothing is emulated, at no cost */
    /* Called by long work; `what` is "load", "sample", "decode"…; done goes from 0 to total. May be NULL. */
    void (*progress)(void *user, const char *what, size_t done, size_t total);
    void *progress_user;
    /* Called with every named intermediate, in order of execution. May be NULL. The name is the module path of the
       authors' code, after ctx->scope. The tensor is the operation's own memory: read it before returning. */
    void (*trace)(void *user, const char *name, const flis_tensor *tensor);
    /* Asked before something of `count` values is computed for the trace alone: an attention's insides. NULL: no. */
    bool (*trace_wants)(void *user, const char *name, size_t count);
    void *trace_user;
    char scope[64]; /* put before every trace name, e.g. "step.0.cond." */
    /* Called with one line for every tensor that a load finds missing, misshaped, mistyped, non-finite, or extra (which
       is no error); the error sentence has room for the first ones only. May be NULL. */
    void (*report)(void *user, const char *line);
    void *report_user;
    /* Called with one sentence (what, where) for what a person should look at although the work goes on: names that were
       guessed, members that nobody knows, damage that changes nothing. May be NULL. */
    void (*warn)(void *user, const char *sentence);
    void *warn_user;
    /* Polled between operations; a non-zero value makes the context fail with "interrupted". May be NULL. */
    const volatile int *interrupted;
    struct flis_tape *tape; /* records operations for their backward; NULL: nothing is recorded */
} flis_ctx;

/* Everything zero, threads = what OpenMP would use (1 without it). Checks once that this machine and build keep IEEE
   arithmetic (no flush to zero, no excess precision, no contraction; sqrt, floor and fma rounded exactly); fails with a
   sentence if not. Call it before anything else: a context that was not initialised is refused. */
bool flis_init(flis_ctx *ctx);
/* Frees the arena. The error text stays readable. NULL is accepted. */
void flis_free(flis_ctx *ctx);
bool flis_ok(const flis_ctx *ctx); /* NULL: false */
/* Makes a failed context usable again: forgets the sentence and the trace scope. What failed has already freed its
   memory; tensors from before the failure stay valid. If ctx->interrupted caused it, reset that flag first. */
void flis_clear_error(flis_ctx *ctx);
/* free() of this library's C library, for callers that have another (Python, C++ on Windows). NULL is accepted. */
void flis_release(void *memory);

/* ---- Model ------------------------------------------------------------------------------------------------------- */

/* A model that is loaded once and paints many pictures. What people have is accepted: a safetensors file; a sharded one
   (…safetensors.index.json); a diffusers folder (unet/, vae/, text_encoder/). Weights that are multiplied stay in
   the file, which is mapped: loading takes a moment, and their memory is the system's cache of the file. So the model's files
   must stay as they are until flis_model_free. Replacing them by a rename is fine: the old file is used until then. A file
   that is written to or cut is noticed before each operation, which fails with a sentence; cut in the middle of an operation,
   a mapped file ends the program (SIGBUS). flis_choice.packed copies the weights into memory instead, in the type that they
   have in the file (F16 and BF16 stay 2 bytes); the bits are the same. */
typedef struct flis_model flis_model;
/* Which weights are taken where there is a choice. All NULL (or no flis_choice): none is made. The strings are borrowed for
   the call. */
typedef struct flis_choice {
    /* Of a diffusers folder: "fp16" takes diffusion_pytorch_model.fp16.safetensors and model.fp16.safetensors (or their
       shards) in every part that has them. An error where no part has them, and with a model of one file. NULL: the plain
       files; where a part has none, its only variant, or of fp32, fp16 and bf16 the most precise, with a warning. */
    const char *variant;
    /* The autoencoder comes from here: a safetensors file (a whole model or an autoencoder alone), a diffusers folder, or
       its vae/. The scale factor and the norms' groups that it states are taken with it; where it states none, the model's
       stay. NULL: the model's own. */
    const char *vae;
    /* The weights are copied into memory, in the order of the kernels: 10 seconds and 3.4 GB for Stable Diffusion in F32. The
       files are then closed once FLIS_PARTS_PAINT are loaded. */
    bool packed;
} flis_choice;
enum {
    FLIS_PART_TEXT = 1,    /* CLIP's text transformer */
    FLIS_PART_UNET = 2,    /* the U-Net */
    FLIS_PART_DECODER = 4, /* the autoencoder's decoder: latents to pictures */
    FLIS_PART_ENCODER = 8, /* its encoder: pictures to latents; generating does not need it */
    FLIS_PARTS_NONE = 0,
    FLIS_PARTS_PAINT = 7, /* what flis_model_generate needs */
    FLIS_PARTS_ALL = 15
};
/* Opens a model and loads `parts` of it. flis_model_generate loads any other part that it needs from the file for the
   time of its work and frees it again: FLIS_PARTS_NONE paints with the least memory, FLIS_PARTS_PAINT the fastest.
   Errors: the file cannot be read or breaks a rule of its format; tensors are missing, misshaped or non-finite (each is
   reported to ctx->report). A non-finite value of a mapped weight is found when the weight is used. */
flis_model *flis_model_load(flis_ctx *ctx, const char *path, unsigned parts);
/* The same with a choice (NULL: none). */
flis_model *flis_model_load_with(flis_ctx *ctx, const char *path, const flis_choice *choice, unsigned parts);
/* The same from the bytes of one safetensors file; `name` is used in sentences. The bytes are borrowed until
   flis_model_free, or only for this call when parts include FLIS_PARTS_PAINT, whose weights are copied. */
flis_model *flis_model_load_memory(flis_ctx *ctx, const char *name, const void *bytes, size_t length, unsigned parts);
/* Frees *model and sets it to NULL, so that a freed model is refused with a sentence. NULL and *model == NULL are fine. */
void flis_model_free(flis_model **model);

/* ---- Vocabulary -------------------------------------------------------------------------------------------------- */

typedef struct flis_vocab flis_vocab;
/* bpe_simple_vocab_16e6.txt, the same .gz, a merges.txt, the tokenizer.json of a CLIP tokenizer, or a folder that has one of
   them (tokenizer/); at most 48894 merges are used. The number of tokens is 512 + merges + 2; BOS is the last but one, EOS
   (also the padding) the last. path NULL: no merges, bytes alone. Errors: another kind of file or of tokenizer; a
   tokenizer.json, or a vocab.json beside merges.txt, whose ids are not those that the merges give. */
flis_vocab *flis_vocab_read(flis_ctx *ctx, const char *path);
/* True if there is a vocabulary in a folder, or in its tokenizer/ (a diffusers folder, or its folder in a Hugging Face cache):
   out gets the path of merges.txt, tokenizer.json, vocab.txt or bpe_simple_vocab_16e6.txt[.gz], the first that is there. */
bool flis_vocab_find(const char *folder, char *out, size_t room);
/* The same from the text of a merges.txt or a tokenizer.json; `name` is used in error sentences. */
flis_vocab *flis_vocab_parse(flis_ctx *ctx, const char *name, const char *text, size_t length);
void flis_vocab_free(flis_vocab *vocab);

/* ---- Layout ------------------------------------------------------------------------------------------------------ */

typedef struct flis_picture {
    size_t width, height, channels; /* 1: gray or palette index; 3: RGB */
    uint8_t *pixels;                /* [height][width][channels], malloc'ed: flis_picture_free */
} flis_picture;
typedef struct flis_phrase {
    char *text; /* UTF-8; it may have several words */
    int id;     /* 0..255: the class in the label map where the phrase acts; -1: everywhere */
} flis_phrase;
typedef struct flis_color { /* a colour of the label map that stands for an id */
    uint8_t red, green, blue, id;
    size_t pixels; /* of the label map that have it */
    char *name;    /* the label in a labelmap.txt; NULL: none */
} flis_color;
typedef struct flis_layout {
    size_t count;
    flis_phrase *phrase; /* in the order of the prompt */
    flis_picture label; /* 1 channel, one class id per pixel, of any size; width 0: no layout, plain Stable Diffusion */
    size_t colors;
    flis_color *color; /* the table that gave the label map its ids; colors 0: the map had ids */
    char *label_path;  /* the file that flis_layout_read took the label map from; NULL: none. malloc'ed */
    char *colors_path; /* the labelmap.txt that the table is from; NULL: none. malloc'ed */
} flis_layout;
/* {"text_label_mapping": {"phrase": id, …} or [["phrase", id], …], "layout_path": "file"}. A relative layout_path is
   looked for beside the JSON, then (as the authors write "examples/x.png") its last part beside the JSON, then as given
   from the working directory. Of an absolute path that is not there, and of a path of another system (C:\\maps\\x.png), the
   last part beside the JSON is taken. FreestyleNet@5dcb8b8 scripts/FLIS.py load_data.
   A label map in colours needs a table of ids: "colors": {"#rrggbb": id, …} or [["#rrggbb" or [r, g, b], id], …]; or
   "labelmap": "file", CVAT's labelmap.txt, whose labels have the ids 0, 1, 2… in the order of their lines. With a table the
   colours of any map count, a palette's and gray ones too; without one an RGB map whose pixels are not R = G = B takes the
   labelmap.txt of its folder or of the folder above. A colour without an id is an error.
   A member that resembles layout_path, colors or labelmap where that is missing is an error; other unknown members, and no
   layout_path at all, are warnings. json_path "-" is standard input; layout_path is then relative to the working directory. */
bool flis_layout_read(flis_ctx *ctx, const char *json_path, flis_layout *out);
/* The phrases alone, for flis_options.no_layout: the label map is not looked for. */
bool flis_layout_read_phrases(flis_ctx *ctx, const char *json_path, flis_layout *out);
/* The same as flis_layout_read from memory, opening no file: the JSON's text (`name` is used in sentences), and the label map
   as a picture, which is copied: 1 channel of ids; or 3, R = G = B or colours of the JSON's "colors". label NULL: no map; then
   a layout_path in the text is refused. */
bool flis_layout_parse(flis_ctx *ctx, const char *name, const char *text, size_t length, const flis_picture *label,
                       flis_layout *out);
/* Or piece by piece, from a layout of zeros: adds a phrase (copied) with its id, -1 to 255; copies a label map
   [height][width] in place of the one that is there. On failure the layout stays as it was. */
bool flis_layout_add(flis_ctx *ctx, flis_layout *layout, const char *phrase, int id);
bool flis_layout_set_label(flis_ctx *ctx, flis_layout *layout, const uint8_t *label, size_t width, size_t height);
void flis_layout_free(flis_layout *layout);
/* Warns for each phrase whose region has no cell at a scale of the U-Net (512/64/32/16/8 for a 512 picture): it has no
   effect there. warn NULL: nothing happens. */
void flis_layout_warnings(flis_ctx *ctx, const flis_layout *layout, size_t width, size_t height,
                          void (*warn)(void *user, const char *sentence), void *user);

/* ---- Generate ---------------------------------------------------------------------------------------------------- */

typedef enum { FLIS_PLMS, FLIS_DDIM } flis_sampler_kind;
typedef struct flis_sampling {
    flis_sampler_kind kind;
    int steps;    /* 1 to 1000; see flis_steps_make for those that are refused */
    double eta;   /* DDIM only */
    double scale; /* guidance: e = e_uncond + scale (e_cond - e_uncond); 1: no unconditional call */
} flis_sampling;
typedef struct flis_step flis_step; /* one step's record: "Samplers" below */
typedef struct flis_options {
    flis_sampling sampling; /* {FLIS_PLMS, 50, 0, 2} */
    uint64_t seed;          /* 42 */
    flis_rng_kind rng;      /* FLIS_RNG_CPU */
    size_t width, height;   /* of the picture, in pixels: 512, 512; multiples of 64 up to 8192 */
    bool no_layout;         /* plain Stable Diffusion: the phrases, no rectified attention */
    /* What guidance leads away from, UTF-8, at most 75 tokens, in place of "" in the unconditional pass; the layout does not
       act on it. NULL: "". A text is an error with scale 1, which has no unconditional pass. */
    const char *negative;
    /* x_T, for h = height / 8 and w = width / 8: a safetensors file with [1][4][h][w], or an array [4][h][w] of noise_count
       = 4 h w values, which is borrowed. Giving both is an error; both NULL: drawn from the seed. */
    const char *noise;
    const flis_real *noise_values;
    size_t noise_count;
    /* The generator to draw from, in place of seed and rng; copied. With its members batch and index set, the picture is one
       of a batch, as scripts/LIS.py paints them. NULL: a new one of the seed. */
    const flis_rng *random;
    /* Text features that are computed already, [77][d] of the prompt and of the unconditional pass: the text encoder is then
       not needed. features_count = 77 d; borrowed. uncond_features may be NULL when scale is 1. Both NULL: computed. */
    const flis_real *features, *uncond_features;
    size_t features_count;
    void (*warn)(void *user, const char *sentence); /* of phrases without a cell; may be NULL */
    void *warn_user;
    void (*step)(flis_ctx *ctx, void *user, const flis_step *step); /* after each sampler step; may be NULL */
    void *step_user;
} flis_options;
/* Sets every member to the default above, the authors' (FreestyleNet@5dcb8b8 scripts/FLIS.py, the parser in main). */
void flis_options_default(flis_options *options);
/* Paints one picture: tokens, text features, x_T, sampler, decoder (FreestyleNet@5dcb8b8 scripts/FLIS.py main). *out is RGB,
   options->height x options->width; on failure it is all zero. The model is only read; parts that are not loaded are
   loaded for the time of their work. The same arguments give the same bytes on every machine. Errors: options out of
   range; noise of another shape or non-finite; a layout without phrases, with an id outside -1..255, or whose label map
   is not of 1 channel; more than 75 tokens, in the prompt or in options->negative; a vocabulary or parts that do not fit each other; interrupted. */
bool flis_model_generate(flis_ctx *ctx, const flis_model *model, const flis_vocab *vocab, const flis_layout *layout,
                         const flis_options *options, flis_picture *out);
/* The same in one call: opens the model at `path`, paints, closes it. One part's weights at a time are in memory: text
   encoder, U-Net, decoder. Options are checked before a file is opened. */
bool flis_generate(flis_ctx *ctx, const char *path, const flis_vocab *vocab, const flis_layout *layout,
                   const flis_options *options, flis_picture *out);

/* ---- Pictures ---------------------------------------------------------------------------------------------------- */

/* Writes a PNG of 1 or 3 channels. text: key, value, key, value, …, NULL, or NULL: kept as tEXt (or iTXt when not
   Latin-1). The bytes are a pure function of the pixels and text. The file is replaced in one step (flis_output_open). */
bool flis_write_png(flis_ctx *ctx, const char *path, const flis_picture *picture, const char *const *text);
/* The same bytes in memory; free() them. */
uint8_t *flis_png_bytes(flis_ctx *ctx, const flis_picture *picture, const char *const *text, size_t *length);
/* A label map: PNG, interlaced too, or PGM (P2, P5). The ids are what the authors' code (PIL) reads: the gray value of 8 and 16
   bits, 0 and 1 of 1 bit, 85 and 17 times the value of 2 and 4 bits; the *index* of a palette; and R of RGB where R = G = B
   everywhere. Values above 255, other RGB, RGB of 16 bits, and alpha other than 255 are refused. A gray palette, and damage
   that no pixel depends on, are warnings. */
bool flis_read_label(flis_ctx *ctx, const char *path, flis_picture *out);
/* The same from the bytes of such a file; `name` is used in sentences. */
bool flis_read_label_memory(flis_ctx *ctx, const char *name, const void *bytes, size_t length, flis_picture *out);
/* The colours of such a file, 3 channels, for flis_layout_parse with "colors": RGB, a palette's colours, gray v as (v, v, v). */
bool flis_read_label_colors(flis_ctx *ctx, const char *name, const void *bytes, size_t length, flis_picture *out);
/* Frees the pixels and sets everything to zero. */
void flis_picture_free(flis_picture *picture);

/* =============================================== THE WORKSHOP ==================================================== */

/* ---- Errors, arena, dry runs ------------------------------------------------------------------------------------- */

#ifndef __cplusplus /* designated initialisers are C99, and C++20 */
/* A context without the arithmetic check, for work while another context has failed. */
#define FLIS_CTX_PLAIN \
    { \
        .magic = FLIS_MAGIC, .threads = 1 \
    }
#endif

/* Records the first error; returns false, so that `return flis_fail(...)` reads well. Bytes that do not print (names in
   files may hold anything) become '?'. */
bool flis_fail(flis_ctx *ctx, const char *format, ...);
/* The check at the start of a function. True if work may begin in this context and `argument` is not NULL; else, unless the
   context has failed before, it fails with a sentence: "WHAT: got NULL", or what makes the context unusable. */
bool flis_given(flis_ctx *ctx, const void *argument, const char *what);
/* Passes a sentence, made printable, to ctx->warn. Nothing happens without one, or on a failed context. */
void flis_warn(flis_ctx *ctx, const char *format, ...);
/* Puts `where` and a colon before the sentence of a context that failed; true where none has. */
bool flis_fail_in(flis_ctx *ctx, const char *where);
/* Bytes of the printable UTF-8 character at the start of text; 0 where there is none (a control character, an end of
   line, a bidirectional control character, invalid UTF-8): what foreign names are printed with. */
size_t flis_printable(const char *text);
/* Replaces what is not printable by '?', as flis_fail does with its sentences. */
void flis_make_printable(char *text);
/* Fails the context with "interrupted" if ctx->interrupted asks for it; true while the context is usable. */
bool flis_poll(flis_ctx *ctx);
/* malloc that fails the context with a sentence; size count*size is overflow-checked. Zero-filled. free() it. */
void *flis_alloc(flis_ctx *ctx, size_t count, size_t size);

typedef struct {
    struct flis_chunk *chunk;
    size_t fill, used;
} flis_mark;
/* Current arena position. */
flis_mark flis_here(const flis_ctx *ctx);
/* Frees everything allocated after the mark. */
void flis_rewind(flis_ctx *ctx, flis_mark mark);
/* Frees everything allocated after the mark except y, which is moved down to it. With a tape, keeps everything. */
flis_tensor *flis_keep(flis_ctx *ctx, flis_mark mark, flis_tensor *y);
/* Makes room for `bytes` more in one piece, so that the chunks do not fragment. */
bool flis_reserve(flis_ctx *ctx, size_t bytes);
/* Sizing the arena before long work: between begin and end (which reserves the most that was in use) the same
   operations run dry. begin returns false, and there is nothing to end, where sizing makes no sense: already dry, failed,
   or taping. */
typedef struct flis_dry {
    flis_mark mark;
    size_t peak;
    uint64_t macs;
} flis_dry;
bool flis_dry_begin(flis_ctx *ctx, flis_dry *dry);
void flis_dry_end(flis_ctx *ctx, const flis_dry *dry);
/* Raw arena memory, 64-byte aligned, not zeroed; NULL when failed or dry. */
void *flis_scratch(flis_ctx *ctx, size_t count, size_t size);

/* ---- Tensors (tensor.c) ------------------------------------------------------------------------------------------ */

/* An activation in the arena. rank 4: [n][h][w][c]. rank 3: [n][t][c], stored with h = t, w = 1. rank 2: [n][c], stored
   with h = w = 1. */
struct flis_tensor {
    int rank;
    bool bytes; /* a traced mask: its values are 0 and 1, and files hold them as U8 */
    size_t n, h, w, c;
    flis_real *x;           /* n*h*w*c values; NULL while dry */
    struct flis_grad *grad; /* accumulates the loss's gradient ("Training"), views' too; NULL: none is wanted */
};

/* New tensors in the arena; the values are not set. */
flis_tensor *flis_image(flis_ctx *ctx, size_t n, size_t h, size_t w, size_t c);
flis_tensor *flis_rows(flis_ctx *ctx, size_t n, size_t t, size_t c);
flis_tensor *flis_vectors(flis_ctx *ctx, size_t n, size_t c);
size_t flis_count(const flis_tensor *x); /* values: n h w c */
/* The same values seen as [n][h*w][c], or as [n][h][w][c] with h*w = t. No copy. */
flis_tensor *flis_as_rows(flis_ctx *ctx, const flis_tensor *x);
flis_tensor *flis_as_image(flis_ctx *ctx, const flis_tensor *x, size_t h, size_t w);
/* From and to PyTorch's order [n][c][h][w]. */
flis_tensor *flis_from_nchw(flis_ctx *ctx, const flis_real *x, size_t n, size_t c, size_t h, size_t w);
void flis_to_nchw(const flis_tensor *x, flis_real *out);
/* Passes x to ctx->trace under scope + the formatted name. Costs nothing without a trace. */
void flis_trace(flis_ctx *ctx, const flis_tensor *x, const char *format, ...);
/* True if the trace wants something of `count` values that would be computed for it alone. */
bool flis_trace_wants(flis_ctx *ctx, size_t count, const char *format, ...);
/* The digest of a tensor: of its values' little-endian IEEE bytes, in the order that files have ([n][c][h][w] for images),
   as float32 (flis64: float64); of a traced mask, its bytes. 64 hexadecimal digits and a NUL; "" for a tensor that is NULL
   or has no values (dry). */
void flis_tensor_digest(const flis_tensor *x, char hex[65]);
/* Summary statistics of a tensor; all zero where its digest is "". Indices count in the order that files have. */
enum { FLIS_SAMPLES = 64 };
typedef struct flis_summary {
    size_t count, not_finite; /* values; how many of them are NaN or infinite */
    double mean, std;         /* population standard deviation; NaN or infinite where a value is */
    double largest;           /* |x|; where a value is non-finite, that of the first such */
    size_t largest_at;        /* index of its first occurrence */
    size_t samples, stride;   /* sample[i] is value i * stride, stride = count / 64, at least 1 */
    double sample[FLIS_SAMPLES];
    char sha256[65];
} flis_summary;
void flis_tensor_summary(const flis_tensor *x, flis_summary *out);

/* ---- Weights ------------------------------------------------------------------------------------------------------ */

typedef struct flis_file flis_file; /* "Files of tensors" below */
typedef struct flis_entry flis_entry;

/* A weight as the checkpoint names it. Vectors are copied when they are loaded. Matrices and kernels are multiplied as panels of
   outputs, [panel][k][lane], k running over (kh, kw, ci): they are either packed once, when loaded, or stay in their file, and
   each operation packs the panels that it is at. In flis-naive nothing is packed: value, half or the file holds every weight
   in the checkpoint's order. */
typedef struct flis_param {
    int rank;
    size_t shape[4];   /* as in the checkpoint: [out], [out][in], [out][in][kh][kw] */
    bool table;        /* looked up by row (an embedding), never multiplied: stays unpacked */
    size_t groups;     /* a group norm's weight: groups of channels; 0: 32, as in Stable Diffusion */
    flis_real *value;  /* unpacked values in the checkpoint's order (vectors, embeddings); else NULL */
    flis_real *packed; /* panels (matrices and kernels); else NULL */
    uint16_t *half;    /* the same panels as F16 or BF16, widened where they are used: half the memory */
    bool half_is_bf16;
    /* A matrix, kernel or embedding that stays in its file, in the checkpoint's order and the file's type (F64, F32, F16, BF16).
       Borrowed: the file must stay open. entry NULL: the values are in memory. */
    const flis_file *file;
    const flis_entry *entry;
    /* Training: allocated by flis_param_train, in the checkpoint's order like value, which is kept then. */
    flis_real *grad; /* [workers] d loss / d value, accumulated over backward passes; NULL: frozen */
} flis_param;

/* Fills a param, whose rank and shape are set, from values in the checkpoint's order: packs matrices and kernels, copies
   vectors and embeddings. The memory is the param's: flis_free_visit frees it. The second takes F16 or BF16 bits, for
   matrices and kernels only. */
bool flis_param_set(flis_ctx *ctx, flis_param *param, const flis_real *values, bool keep_unpacked);
bool flis_param_set_half(flis_ctx *ctx, flis_param *param, const uint16_t *values, bool bf16);
/* The values in the checkpoint's order, however they are kept (halves: widened). NaN where they stay in a file that can no
   longer be read. */
void flis_param_get(const flis_param *param, flis_real *out);
size_t flis_param_count(const flis_param *param); /* values: the product of its shape */

/* ---- Operations (tensor.c) ---------------------------------------------------------------------------------------- */

/* Each operation returns a new tensor in the arena and leaves its inputs alone. Its equation and its definition, a slow
   loop, are in tensor.c. On a failed context operations return NULL, and accept NULL; on any other a NULL that is not
   allowed below, a wrong shape, or ctx->threads below 1 fails the context with a sentence. */

/* y[i,o] = sum_k x[i,k] w[o,k] + b[o] (+ add[i,o]). x [..][c] of any rank, w [c_out][c] or [c_out][c][1][1], b [c_out] or
   NULL; add like y, or NULL; y [..][c_out]. torch.nn.Linear. */
flis_tensor *flis_linear(flis_ctx *ctx, const flis_tensor *x, const flis_param *w, const flis_param *b,
                         const flis_tensor *add);

typedef enum {
    FLIS_SAME,               /* zeros all around: 1 for a 3x3 kernel, 0 for 1x1; stride 1 */
    FLIS_STRIDE2,            /* 3x3, stride 2, 1 zero all around (the U-Net's downsample) */
    FLIS_STRIDE2_ASYMMETRIC, /* 3x3, stride 2, 1 zero right and below only (the VAE encoder's) */
    FLIS_UPSAMPLE2           /* 3x3 over the input enlarged twice by nearest neighbour, 1 zero all around */
} flis_conv_kind;
/* y[i,j,o] = sum_{kh,kw,ci} x[.,.,ci] w[o,ci,kh,kw] + b[o] (+ add). x [n][h][w][c], w [c_out][c][k][k], k = 1 or 3, b
   [c_out] or NULL; y [n][h'][w'][c_out], where h' is h, (h + 1) / 2 for the strides, or 2 h; add like y, or NULL.
   torch.nn.Conv2d; FreestyleNet@5dcb8b8 openaimodel_FLIS.py Upsample, Downsample; model.py Downsample (asymmetric). */
flis_tensor *flis_conv(flis_ctx *ctx, const flis_tensor *x, const flis_param *w, const flis_param *b,
                       flis_conv_kind kind, const flis_tensor *add);
/* Group norm of x [n][h][w][c] over weight->groups (32) groups of neighbouring channels, (x - mean) / sqrt(var + eps), then
   weight and bias [c]; then SiLU if asked. The U-Net's ResBlocks use eps 1e-5, its transformers and the autoencoder 1e-6. */
flis_tensor *flis_group_norm(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias,
                             double eps, bool silu);
/* Layer norm over c, eps 1e-5; weight and bias [c]. */
flis_tensor *flis_layer_norm(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias);
flis_tensor *flis_silu(flis_ctx *ctx, const flis_tensor *x);       /* x sigmoid(x) */
flis_tensor *flis_quick_gelu(flis_ctx *ctx, const flis_tensor *x); /* x sigmoid(1.702 x): CLIP's */
flis_tensor *flis_geglu(flis_ctx *ctx, const flis_tensor *x); /* first half of c times exact (erf) GELU of the second */
/* Elementwise sum of two tensors of one shape. */
flis_tensor *flis_add(flis_ctx *ctx, const flis_tensor *a, const flis_tensor *b);
/* x [n][h][w][c] plus v [n][c] at every position: how the time embedding enters a ResBlock. */
flis_tensor *flis_add_to_all(flis_ctx *ctx, const flis_tensor *x, const flis_tensor *v);
flis_tensor *flis_scale(flis_ctx *ctx, const flis_tensor *x, double factor);
flis_tensor *flis_concat(flis_ctx *ctx, const flis_tensor *a, const flis_tensor *b); /* channels of a, then of b */
/* y[n][i] = token[ids[n][i]] + position[i]: ids [n][t], token [vocab][d], position [t][d]; y [n][t][d]. CLIP's, t = 77. */
flis_tensor *flis_embed(flis_ctx *ctx, const int32_t *ids, size_t n, const flis_param *token,
                        const flis_param *position);

/* Which keys a query attends to. All NULL/false: every key. */
typedef struct flis_mask {
    bool causal; /* query i attends to key j only if j <= i */
    /* per sample [t_query][t_key], 1 attended, 0 masked; attended[i] NULL: all attended */
    const uint8_t *const *attended;
} flis_mask;
/* Multi-head attention: heads side by side in c; score = (q . k) * scale, masked: -max(real); softmax over keys; the
   weighted sum of v. q [n][tq][c], k and v [n][tk][c]; y like q. Never holds more than 32 query rows of scores per
   thread. FreestyleNet@5dcb8b8 ldm/modules/attention_FLIS.py CrossAttention.forward. */
flis_tensor *flis_attention(flis_ctx *ctx, const flis_tensor *q, const flis_tensor *k, const flis_tensor *v,
                            size_t heads, double scale, flis_mask mask);

/* What that attention computes inside, for the trace and only where ctx->trace_wants it, under name + ".q", ".k", ".v"
   [n heads][t][d]; ".scores" (scaled, before the mask) and ".weights" (after softmax) [n heads][tq][tk]; ".mask"
   [tq][tk], for n > 1 [n][tq][tk], where mask.attended is given. */
void flis_trace_attention(flis_ctx *ctx, const flis_tensor *q, const flis_tensor *k, const flis_tensor *v, size_t heads,
                          double scale, flis_mask mask, const char *name);
/* Fused operations, split when tracing; the bits are the same. Group norm, traced under name + part, then SiLU; and a
   convolution, traced likewise, to which `add` is added. */
flis_tensor *flis_norm_silu(flis_ctx *ctx, const flis_tensor *x, const flis_param *weight, const flis_param *bias,
                            double eps, const char *name, const char *part);
flis_tensor *flis_conv_add(flis_ctx *ctx, const flis_tensor *x, const flis_param *w, const flis_param *b,
                           const flis_tensor *add, const char *name, const char *part);

/* ---- Elementary functions and number formats (tensor.c) ----------------------------------------------------------- */

/* Own elementary functions: + - * / alone, in double, so that every machine agrees. Errors below 1 ulp of double. */
double flis_exp(double x);
double flis_log(double x); /* x > 0 */
double flis_sin(double x); /* |x| up to 1e5 */
double flis_cos(double x);
double flis_erfc(double x);
float flis_fma_soft(float a, float b, float c); /* fmaf to the bit from double arithmetic alone */
double flis_fma(double a, double b, double c);  /* fma to the bit from integers alone: C libraries' own may be wrong */
float flis_half_to_float(uint16_t bits);
uint16_t flis_float_to_half(float x); /* to nearest, ties to even */
float flis_bf16_to_float(uint16_t bits);
uint16_t flis_float_to_bf16(float x);

/* ---- Lists of weights, loading, formula weights (flis.c, tensor.c) ------------------------------------------------ */

/* Key tables. A module's weights are a struct of flis_param; its table gives each one's name, its shape as letters that
   the module's own dimensions resolve ("oi33": [o][i][3][3]), and its offset. The loader, the inspector and
   synth walk the same tables, through a visitor. */
typedef struct flis_key {
    const char *name;
    const char *shape;
    size_t offset;
} flis_key; /* shape "=vd": a table */
#define FLIS_KEY(type, field, name, shape) \
    { \
        name, shape, offsetof(type, field) \
    }
/* Sees one weight: its full name, and param with rank and shape filled in. Returns false to stop. */
typedef bool flis_visit(flis_ctx *ctx, void *user, const char *name, flis_param *param);
typedef struct flis_walk { /* a visit in progress: where the names start, and the visitor */
    flis_visit *visit;
    void *user;
    char prefix[256];
} flis_walk;
/* Visits each key of a table. dims: letter, size pairs, e.g. {'o', 320, 'i', 4, 0}. Name = walk prefix + module + key. */
bool flis_walk_keys(flis_ctx *ctx, flis_walk *walk, const char *module, const flis_key *keys, size_t count, void *base,
                    const size_t *dims);
/* A visitor's work when loading: finds `name` in the file, checks its shape, allocates and packs; or, where file->mapped is set,
   leaves what will be multiplied in the file. Every missing or
   misshaped tensor adds a line to `problems` and is reported, so that all are reported at once. Dry: checks, reads nothing.
   bad: tensors with a problem; nonfinite: those with NaN or infinity; listed: those that `problems` has room for. */
typedef struct flis_loader {
    flis_file *file;
    const char *path; /* of the part's file, for the sentence */
    char problems[3072];
    size_t bad, nonfinite, listed, done, total;
} flis_loader;
bool flis_load_visit(flis_ctx *ctx, void *loader, const char *name, flis_param *param);
/* Turns collected problems into ctx->error, and reports tensors under `prefix` (may be NULL) that
   no part asked for. */
bool flis_load_finish(flis_ctx *ctx, flis_loader *loader, const char *prefix);
/* Visitors: count weights into a size_t; free a weight's memory. */
bool flis_count_visit(flis_ctx *ctx, void *size_t_count, const char *name, flis_param *param);
bool flis_free_visit(flis_ctx *ctx, void *unused, const char *name, flis_param *param);
/* Formula weights: a model that every port can make for itself, to the bit, from the tensors' names alone. Values
   first..first+count-1 (flat index, checkpoint's order) of tensor `name`: with h = FNV-1a-64 of the name, z = splitmix64's
   finaliser of h + (i+1) * 0x9E3779B97F4A7C15, u = ((z >> 40) - 2^23) * 2^-23:
     two or more dimensions, fan_in = product of shape[1..]: u * 2^round(log2(sqrt(3 / fan_in)));
     one dimension: 1 + u * 2^-4 if the name ends in "weight", else u * 2^-6;
   rounded to float32 (only the norms' weights need it). The logarithm's ties, at fan_in 6 * 4^k, go to the even exponent. */
void flis_formula_weights(const char *name, int rank, const size_t *shape, size_t first, size_t count, flis_real *out);
/* A visitor that fills one weight with them. */
bool flis_formula_visit(flis_ctx *ctx, void *unused, const char *name, flis_param *param);

/* ---- Text (clip.c) ------------------------------------------------------------------------------------------------ */

/* Number of tokens, 0 for NULL; ids of "begin" and "end of text", -1 for NULL. */
size_t flis_vocab_size(const flis_vocab *vocab);
int32_t flis_vocab_bos(const flis_vocab *vocab);
int32_t flis_vocab_eos(const flis_vocab *vocab);
/* Tokens of a text, without BOS, EOS and padding, as the authors' environment gives them (SPEC.md "Text"). Any bytes
   are accepted. Returns how many there are and allocates *ids (free() it); -1 when failed. */
long flis_tokenize(flis_ctx *ctx, const flis_vocab *vocab, const char *text, size_t length, int32_t **ids);

typedef struct flis_prompt {
    char *text;               /* the phrases, joined by spaces as the authors do */
    int32_t ids[FLIS_TOKENS]; /* BOS, tokens, EOS, padding */
    size_t tokens;            /* between BOS and EOS */
    size_t classes;           /* of class_ids */
    /* class of prompt token k, which is column k + 1 of the mask; -1: attended everywhere */
    float class_ids[FLIS_TOKENS];
} flis_prompt;
/* Splits each phrase at U+0020, counts each item's tokens, and tokenises the whole prompt. Refuses more than 75 tokens
   and special tokens inside a phrase, where the authors' alignment breaks (FreestyleNet@5dcb8b8 scripts/FLIS.py:20-27,
   40-55). */
bool flis_prompt_make(flis_ctx *ctx, const flis_vocab *vocab, const flis_phrase *phrase, size_t count,
                      flis_prompt *out);
void flis_prompt_free(flis_prompt *prompt);

typedef struct flis_clip flis_clip; /* CLIP's text transformer */
typedef struct flis_clip_config {
    size_t vocab, width, layers, heads, hidden, positions;
} flis_clip_config;
/* An empty transformer of that shape, whose weights flis_clip_walk visits (for loading, listing, making). */
flis_clip *flis_clip_new(flis_ctx *ctx, const flis_clip_config *config);
bool flis_clip_walk(flis_ctx *ctx, flis_clip *clip, flis_visit *visit, void *user);
/* The shape is read from the file's tensors and metadata, then the weights; every problem is listed in the error. */
flis_clip *flis_clip_load(flis_ctx *ctx, flis_file *file);
void flis_clip_free(flis_clip *clip);
const flis_clip_config *flis_clip_get_config(const flis_clip *clip);
/* ids [n][77] -> last_hidden_state [n][77][width], after the final layer norm.
   FreestyleNet@5dcb8b8 ldm/modules/encoders/modules.py FrozenCLIPEmbedder.forward. */
flis_tensor *flis_clip_encode(flis_ctx *ctx, const flis_clip *clip, const int32_t *ids, size_t n);

/* ---- Label maps at the scales of the U-Net (flis.c) --------------------------------------------------------------- */

/* The first brings the user's map to the picture's size, the second the picture's to each scale of the U-Net.
   PIL's NEAREST: source index floor((i + 0.5) * in / out). in [h][w] -> out [out_h][out_w]. */
void flis_label_pil(const uint8_t *in, size_t h, size_t w, uint8_t *out, size_t out_h, size_t out_w);
/* torch's nearest: source index min(floor(i * (float)in / out), in - 1), the scale in float. A different rule. */
void flis_label_torch(const uint8_t *in, size_t h, size_t w, uint8_t *out, size_t out_h, size_t out_w);

/* ---- U-Net and rectified cross-attention (unet.c) ----------------------------------------------------------------- */

/* A layout as the U-Net needs it. */
typedef struct flis_rca {
    const uint8_t *label; /* [height][width], at picture size */
    size_t height, width;
    const float *class_ids; /* of prompt token k = 0..classes-1 */
    size_t classes;
} flis_rca;
/* mask[i][j] for the h*w queries of a scale and the 77 text positions: 1 attended, 0 masked. Column k + 1 belongs to
   class_ids[k]; every other column stays attended. Paper section 3.3 equation 4;
   FreestyleNet@5dcb8b8 ldm/modules/attention_FLIS.py:203-226. */
bool flis_rca_mask(flis_ctx *ctx, const flis_rca *rca, size_t h, size_t w, uint8_t *mask);

typedef struct flis_unet flis_unet;
enum { FLIS_MAX_LEVELS = 8 };
typedef struct flis_unet_config {
    size_t in, out, channels; /* latent channels in and out; model_channels */
    size_t levels, mult[FLIS_MAX_LEVELS];
    bool attention[FLIS_MAX_LEVELS]; /* a SpatialTransformer at this level */
    size_t blocks;                   /* num_res_blocks */
    size_t heads, context;           /* num_heads; width of the text features */
    size_t groups;                   /* of the group norms; 0: 32, as in Stable Diffusion */
} flis_unet_config;
/* As for flis_clip: an empty network, its weights, loading, freeing. */
flis_unet *flis_unet_new(flis_ctx *ctx, const flis_unet_config *config);
bool flis_unet_walk(flis_ctx *ctx, flis_unet *unet, flis_visit *visit, void *user);
flis_unet *flis_unet_load(flis_ctx *ctx, flis_file *file);
void flis_unet_free(flis_unet *unet);
const flis_unet_config *flis_unet_get_config(const flis_unet *unet);
/* eps [n][h][w][4] from latents x [n][h][w][4], timesteps t [n], text features [n][77][context]; rca[i] NULL: plain
   cross-attention for sample i; rca NULL: for all. h and w multiples of 2^(levels-1).
   FreestyleNet@5dcb8b8 ldm/modules/diffusionmodules/openaimodel_FLIS.py UNetModel.forward. */
flis_tensor *flis_unet_eps(flis_ctx *ctx, const flis_unet *unet, const flis_tensor *x, const double *t,
                           const flis_tensor *context, const flis_rca *const *rca);
/* [cos, sin] of t * exp(-ln(10000) i / half), i < half = dim / 2: out [dim].
   FreestyleNet@5dcb8b8 ldm/modules/diffusionmodules/util.py timestep_embedding. */
void flis_time_embedding(double t, size_t dim, flis_real *out);

/* ---- Autoencoder (vae.c) ------------------------------------------------------------------------------------------ */

typedef struct flis_vae flis_vae;
typedef struct flis_vae_config {
    size_t channels, levels, mult[FLIS_MAX_LEVELS], blocks, z, embed;
    double scale_factor; /* latents are encodings times this */
    size_t groups;       /* of the group norms; 0: 32, as in Stable Diffusion */
} flis_vae_config;
/* As for flis_clip: an empty autoencoder with the halves that are wanted, its weights, loading, freeing. */
flis_vae *flis_vae_new(flis_ctx *ctx, const flis_vae_config *config, bool decoder, bool encoder);
bool flis_vae_walk(flis_ctx *ctx, flis_vae *vae, flis_visit *visit, void *user);
flis_vae *flis_vae_load(flis_ctx *ctx, flis_file *file, bool decoder, bool encoder);
void flis_vae_free(flis_vae *vae);
const flis_vae_config *flis_vae_get_config(const flis_vae *vae);
/* Latents (divided by the scale factor) z [n][h][w][4] to pictures [n][8h][8w][3], values about -1..1. The second, from
   pictures [n][H][W][3] to moments [n][H/8][W/8][8]: means, then log variances.
   FreestyleNet@5dcb8b8 ldm/modules/diffusionmodules/model.py Decoder.forward, Encoder.forward. */
flis_tensor *flis_vae_decode(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *z);
flis_tensor *flis_vae_encode(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *image);
/* Latents z [n][h][w][4] as the sampler leaves them to the first sample's RGB bytes: z * float32(1 / scale factor), decode,
   clamp((x + 1) / 2, 0, 1), 255 x truncated. FreestyleNet@5dcb8b8 scripts/FLIS.py:186-194, ddpm.py decode_first_stage. */
bool flis_decode_picture(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *z, flis_picture *out);

/* ---- Random numbers (sampler.c) ----------------------------------------------------------------------------------- */

/* PyTorch's generators. The state is the caller's (ctx->rng, or one of its own); each call continues where
   the last one ended and writes out[count]. They cannot fail; with a generator or an array that is NULL they do nothing.
   The CUDA kind has normal numbers only: the uniform ones and integers are mt19937's, of the same seed, for both kinds;
   with high 0, integers are 0. */
void flis_rng_seed(flis_rng *rng, flis_rng_kind kind, uint64_t seed);        /* torch.manual_seed */
uint32_t flis_rng_u32(flis_rng *rng);                                        /* mt19937's next word; 0 for NULL */
void flis_rand(flis_rng *rng, float *out, size_t count);                     /* torch.rand(count) */
void flis_rand_f64(flis_rng *rng, double *out, size_t count);                /* the same with dtype=torch.float64 */
void flis_randint(flis_rng *rng, int64_t *out, size_t count, uint32_t high); /* torch.randint(high, (count,)) */
void flis_randn(flis_rng *rng, float *out, size_t count);      /* torch.randn(count), to the bit for the CPU kind */
void flis_randn_f64(flis_rng *rng, double *out, size_t count); /* rng->batch and index do not matter to it */
/* As if flis_randn(count) had been called `calls` times (rng->batch counts); a nanosecond for 8 values. */
void flis_randn_skip(flis_rng *rng, size_t count, uint64_t calls);

/* ---- Samplers (sampler.c) ----------------------------------------------------------------------------------------- */

typedef struct flis_schedule {         /* FreestyleNet@5dcb8b8 ldm/models/diffusion/ddpm.py register_schedule */
    double beta[FLIS_TIMESTEPS];       /* linear in sqrt from 0.00085 to 0.0120 */
    double alpha_bar[FLIS_TIMESTEPS];  /* alphas_cumprod */
    float alpha_bar32[FLIS_TIMESTEPS]; /* the registered float32 buffer */
} flis_schedule;
/* Fills all 1000 entries: alpha_bar[t] is the product of 1 - beta[s] for s up to t. It cannot fail. */
void flis_schedule_make(flis_schedule *schedule);

typedef struct flis_steps { /* index 0 is the smallest timestep, as in the authors' arrays */
    size_t count;           /* not always what was asked: range(0, 1000, 1000 / steps) */
    int64_t t[FLIS_TIMESTEPS];
    float alpha[FLIS_TIMESTEPS];       /* ddim_alphas */
    double alpha_prev[FLIS_TIMESTEPS]; /* ddim_alphas_prev; [0] is alphas_cumprod[0], not 1 */
    double sigma[FLIS_TIMESTEPS];      /* ddim_sigmas */
    float sqrt_one_minus_alpha[FLIS_TIMESTEPS];
} flis_steps;
/* The timesteps of a sampler and its coefficients. FreestyleNet@5dcb8b8 ldm/modules/diffusionmodules/util.py
   make_ddim_timesteps, make_ddim_sampling_parameters. Refuses (with a sentence) 0, above 1000, and every step count that
   reads timestep 1000 and crashes the authors' code; PLMS refuses eta != 0. */
bool flis_steps_make(flis_ctx *ctx, const flis_schedule *schedule, flis_sampler_kind kind, int steps, double eta,
                     flis_steps *out);
/* One step's record. Arrays hold `count` values each and are gone when the callback returns. */
struct flis_step {
    size_t number, total;              /* 0..total-1 in order of execution */
    size_t index;                      /* into flis_steps */
    int64_t t;                         /* timestep */
    const flis_real *e_t;              /* guided eps before the multistep combination */
    const flis_real *x_prev, *pred_x0; /* the step's result; its estimate of the clean latent */
};
typedef struct flis_model_fn {
    /* eps of latents x (both `count` values, [4][h][w]) at timestep t. guided: write the conditional eps to eps and the
       unconditional one to uncond; else uncond is NULL and only eps is wanted. */
    bool (*eps)(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond);
    void (*step)(flis_ctx *ctx, void *user, const flis_step *step); /* may be NULL */
    void *user;
} flis_model_fn;
/* Runs a sampler from x = x_T to the final latents, in place. Noise comes from ctx->rng in PyTorch's order, drawn every
   step even where sigma is 0 (PLMS' first step draws twice). FreestyleNet@5dcb8b8 ldm/models/diffusion/plms.py, ddim.py. */
bool flis_sample(flis_ctx *ctx, const flis_sampling *options, size_t count, flis_real *x, const flis_model_fn *model);
/* The eps function of a loaded U-Net for flis_sample (user: a flis_guided): conditional pass with RCA, then unconditional
   without, as separate calls of batch 1. x, eps and uncond [4][h][w]; uncond NULL: no second pass. */
typedef struct flis_guided {
    const flis_unet *unet;
    size_t h, w;                       /* of the latent */
    const flis_real *context, *uncond; /* [77][d]; uncond may be NULL when scale is 1 */
    const flis_rca *rca;               /* NULL: plain */
} flis_guided;
bool flis_guided_eps(flis_ctx *ctx, void *guided, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond);

/* ---- Files of tensors: safetensors (flis.c) ----------------------------------------------------------------------- */

typedef enum {
    FLIS_F64,
    FLIS_F32,
    FLIS_F16,
    FLIS_BF16,
    FLIS_I64,
    FLIS_I32,
    FLIS_I16,
    FLIS_I8,
    FLIS_U8,
    FLIS_BOOL,
    FLIS_OTHER /* a type that flis does not compute with (F8_E4M3, U32…): listed, never read */
} flis_dtype;

struct flis_entry {
    char *name;
    flis_dtype dtype;
    char *other; /* FLIS_OTHER: the type's name in the header; else NULL */
    int rank;
    uint64_t shape[FLIS_MAX_DIMS];
    uint64_t begin, end; /* bytes, from the start of the data section */
    size_t shard;        /* which of flis_file's shards holds it */
    bool used;           /* some part of the model asked for it */
};

/* The tensors of one file, or of several that are seen as one: shards, or the parts of a diffusers folder. */
typedef struct flis_shard {
    char *path;
    FILE *stream;
    uint64_t data;            /* offset of the data section, in bytes */
    uint64_t size;            /* of the file, when it was opened; 0: in memory */
    int64_t time;             /* of its last change then, where the system says it; else 0 */
    const unsigned char *map; /* the whole file, read only; NULL: not mapped */
} flis_shard;
struct flis_file {
    char *path; /* as the user gave it */
    size_t shards;
    flis_shard *shard;
    size_t count;
    flis_entry *entry; /* sorted by name */
    size_t metadata_count;
    char **metadata; /* key, value, key, value… */
    char *vae_path;  /* of another file's autoencoder (flis_choice.vae); NULL: the file's own, or none */
    /* Of a file in memory: there is one shard, without a stream. NULL: a file on disk. */
    const unsigned char *bytes;
    size_t length;
    /* Set it before loading a part: weights that are multiplied stay in the file, which must then be open as long as the part
       is used. It is mapped where the system can (POSIX); elsewhere each operation reads the tensors that it needs. */
    bool mapped;
};

size_t flis_dtype_size(flis_dtype dtype);
const char *flis_dtype_name(flis_dtype dtype); /* as safetensors writes it: "F32" */
/* The same of an entry, whose type may be any; "?" for NULL. */
const char *flis_entry_dtype(const flis_entry *entry);
/* Number of values of an entry (1 for rank 0). */
uint64_t flis_entry_count(const flis_entry *entry);
/* Opens and checks a safetensors file: every rule of the format is enforced. Close with flis_file_close. */
flis_file *flis_file_open(flis_ctx *ctx, const char *path);
/* The same from the bytes of such a file, which are borrowed until flis_file_close; `name` is used in sentences. */
flis_file *flis_file_open_memory(flis_ctx *ctx, const char *name, const void *bytes, size_t length);
/* The same in steps, for models of several files: new, append each (renaming its tensors where rename is given; it writes
   the new name and returns true, or returns false to leave the name), metadata, then ready. A failed file is closed by the
   caller. */
typedef bool flis_rename(void *user, const char *name, char *out, size_t room);
flis_file *flis_file_new(flis_ctx *ctx, const char *path);
bool flis_file_append(flis_ctx *ctx, flis_file *file, const char *path, flis_rename *rename, void *user);
bool flis_file_set_metadata(flis_ctx *ctx, flis_file *file, const char *key, const char *value);
bool flis_file_ready(flis_ctx *ctx, flis_file *file);
void flis_file_close(flis_file *file); /* NULL is fine */
/* By name; NULL: absent, or an argument was NULL. */
const flis_entry *flis_file_find(const flis_file *file, const char *name);
/* True if any tensor name starts with the prefix: which parts a file has is not decided by one tensor, which may be
   missing. */
bool flis_file_any(const flis_file *file, const char *prefix);
const char *flis_file_metadata(const flis_file *file, const char *key); /* NULL: absent */
/* A metadata string that must be a number above 0, at most 65536; absent, or failed: `otherwise`. */
double flis_file_number(flis_ctx *ctx, const flis_file *file, const char *key, bool whole, double otherwise);
/* The values, converted. out holds flis_entry_count values. Integers must fit. */
bool flis_file_read_real(flis_ctx *ctx, flis_file *file, const flis_entry *entry, flis_real *out);
bool flis_file_read_f64(flis_ctx *ctx, flis_file *file, const flis_entry *entry, double *out);
bool flis_file_read_i64(flis_ctx *ctx, flis_file *file, const flis_entry *entry, int64_t *out);
bool flis_file_read_u16(flis_ctx *ctx, flis_file *file, const flis_entry *entry, uint16_t *out); /* F16, BF16: bits */
bool flis_file_read_u8(flis_ctx *ctx, flis_file *file, const flis_entry *entry, uint8_t *out);
/* The bytes of the values as the file has them (little-endian, at any address), in the map or in the bytes in memory; where there
   is neither, they are read into the arena. Fails where the file's length or the time of its last change is not what it was
   when the file was opened. NULL: failed, or dry. */
const unsigned char *flis_file_bytes(flis_ctx *ctx, const flis_file *file, const flis_entry *entry);

/* Writing: declare every tensor, then give their values in the same order (in pieces if wanted), then finish. The file
   is replaced in one step at the end (flis_output_open); on failure nothing is left. */
typedef struct flis_writer flis_writer;
flis_writer *flis_write_begin(flis_ctx *ctx, const char *path);
bool flis_write_metadata(flis_ctx *ctx, flis_writer *writer, const char *key, const char *value);
bool flis_write_declare(flis_ctx *ctx, flis_writer *writer, const char *name, flis_dtype dtype, int rank,
                        const uint64_t *shape);
/* Values, converted to the dtype declared; raw: little-endian bytes of `count` values of that dtype. */
bool flis_write_real(flis_ctx *ctx, flis_writer *writer, const flis_real *x, size_t count);
bool flis_write_f64(flis_ctx *ctx, flis_writer *writer, const double *x, size_t count);
bool flis_write_i64(flis_ctx *ctx, flis_writer *writer, const int64_t *x, size_t count);
bool flis_write_u8(flis_ctx *ctx, flis_writer *writer, const uint8_t *x, size_t count);
bool flis_write_raw(flis_ctx *ctx, flis_writer *writer, const unsigned char *bytes, size_t count);
bool flis_write_end(flis_ctx *ctx, flis_writer *writer); /* frees the writer, also when it fails */
void flis_write_abort(flis_writer *writer);              /* removes the temporary, frees; NULL is fine */

/* ---- Models on disk (flis.c) -------------------------------------------------------------------------------------- */

/* A model as people have it: a safetensors file, whatever its name; a sharded one (…safetensors.index.json); or a diffusers
   folder (unet/, vae/, text_encoder/; also the folder of a Hugging Face cache that has it in snapshots/). Tensors get their
   checkpoint names, from diffusers' and from those of other programs (SPEC.md 10.4); config.json files become metadata. What a
   configuration says otherwise than flis computes fails with file, key, got, wanted (docs/models.md lists the keys); keys
   that nobody knows are passed to ctx->warn. A PyTorch checkpoint is refused with the line that converts it, any other file
   with what it is. */
flis_file *flis_model_open(flis_ctx *ctx, const char *path);
/* The same with a choice (NULL: none). */
flis_file *flis_model_open_with(flis_ctx *ctx, const char *path, const flis_choice *choice);
/* The autoencoder alone of what flis_choice.vae may name, its tensors under first_stage_model. */
flis_file *flis_vae_open(flis_ctx *ctx, const char *path);
/* What a file of tensors holds where it is no whole model: "a LoRA (…)", "an autoencoder alone"…, for "X: is …, wanted …".
   NULL: text encoder, U-Net and autoencoder are there. Judged by names; no tensor is checked. */
const char *flis_model_lacks(const flis_file *file);
/* What a file holds that changes or steers another model (a LoRA, an embedding, a ControlNet…), in such words; NULL: no such
   thing, or a whole model too. Judged by names and widths. */
const char *flis_model_adapter(const flis_file *file);
/* The path that a sentence about a tensor names: another file's for an autoencoder that comes from there, else the file's. */
const char *flis_file_path(const flis_file *file, const char *tensor);
/* For loaders: fails with "FILE: no PART in it: TENSOR is missing", and with what the file is instead; returns false. */
bool flis_fail_no_part(flis_ctx *ctx, const flis_file *file, const char *part, const char *tensor);
/* Fails with a sentence that names the model where the names and sizes of the tensors, the metadata or the buffers
   (alphas_cumprod) show another one than Stable Diffusion v1 or FreestyleNet: Stable Diffusion 2, XL, an inpainting model, one
   that predicts v… flis_model_open checks this, except on a dry context, so that such a file can be listed. */
bool flis_model_check(flis_ctx *ctx, flis_file *file);
/* diffusers' names of U-Net, autoencoder and text encoder weights, turned into the checkpoint's. For flis_file_append. */
typedef struct flis_diffusers {
    size_t blocks, levels;
    bool up_attention[FLIS_MAX_LEVELS];
} flis_diffusers;
bool flis_unet_rename(void *diffusers, const char *name, char *out, size_t room);
bool flis_vae_rename(void *diffusers, const char *name, char *out, size_t room);
bool flis_clip_rename(void *diffusers, const char *name, char *out, size_t room);
/* The loaded parts of a model; NULL where a part is not loaded. They belong to the model. The autoencoder has the halves
   that were asked for (FLIS_PART_DECODER, FLIS_PART_ENCODER). */
const flis_clip *flis_model_clip(const flis_model *model);
const flis_unet *flis_model_unet(const flis_model *model);
const flis_vae *flis_model_vae(const flis_model *model);

/* ---- JSON, compressed streams, whole files, SHA-256 (flis.c) ------------------------------------------------------ */

/* JSON, as a tree. Strings are UTF-8, NUL-terminated, length given because \u0000 is legal. */
typedef enum { FLIS_NULL, FLIS_FALSE, FLIS_TRUE, FLIS_NUMBER, FLIS_STRING, FLIS_ARRAY, FLIS_OBJECT } flis_json_type;
typedef struct flis_json {
    flis_json_type type;
    double number;
    const char *literal; /* NUMBER: the digits as written (64-bit integers survive) */
    char *string;
    size_t length;
    size_t count;           /* ARRAY, OBJECT: members, in the file's order */
    struct flis_json *item; /* values */
    struct flis_json *key;  /* OBJECT: strings; duplicates are kept, the reader decides */
    int line, column;       /* where it began, from 1 */
} flis_json;
/* Strict RFC 8259, at most 64 levels deep; a byte order mark is skipped. `name` is used in error sentences
   ("name:line:column: …"). */
flis_json *flis_json_parse(flis_ctx *ctx, const char *name, const char *text, size_t length);
void flis_json_free(flis_json *json);
const flis_json *flis_json_get(const flis_json *object, const char *key); /* last of that name, NULL: absent */
bool flis_json_u64(const flis_json *number, uint64_t *out);               /* exact non-negative integers only */
/* For "got X" in sentences: a number's digits, else "a string", "an object"…; NULL: "nothing". */
const char *flis_json_got(const flis_json *json);

/* A whole file in memory with a NUL after it; fails above `limit` bytes. free() it. */
char *flis_read_file(flis_ctx *ctx, const char *path, size_t limit, size_t *length);
/* What a file is, judged by its first bytes (FLIS_KIND_BYTES of them, or all that there are), whatever its name says. */
typedef enum {
    FLIS_KIND_UNKNOWN, /* text without a mark, or anything else */
    FLIS_KIND_EMPTY,
    FLIS_KIND_SAFETENSORS,
    FLIS_KIND_ZIP, /* what torch.save writes; also .npz, ONNX archives, … */
    FLIS_KIND_PICKLE,
    FLIS_KIND_TAR,
    FLIS_KIND_GZIP,
    FLIS_KIND_ARCHIVE, /* 7z, RAR, xz, bzip2, zstd */
    FLIS_KIND_LFS,     /* a Git LFS pointer */
    FLIS_KIND_HTML,
    FLIS_KIND_XML,
    FLIS_KIND_JSON, /* begins as an object or an array */
    FLIS_KIND_UTF16,
    FLIS_KIND_GGUF,
    FLIS_KIND_ONNX,
    FLIS_KIND_TFLITE,
    FLIS_KIND_HDF5,
    FLIS_KIND_NPY,
    FLIS_KIND_PNG,
    FLIS_KIND_JPEG,
    FLIS_KIND_PICTURE, /* GIF, BMP, TIFF, WebP */
    FLIS_KIND_PDF,
    FLIS_KIND_PROGRAM, /* ELF, Windows, macOS */
    FLIS_KINDS
} flis_kind;
enum { FLIS_KIND_BYTES = 512 };
flis_kind flis_kind_of(const void *bytes, size_t length);
/* For "X: is …, wanted …": "an HTML page (a download that …)"; NULL: FLIS_KIND_UNKNOWN. */
const char *flis_kind_text(flis_kind kind);
/* The kind of a file on disk; FLIS_KIND_UNKNOWN where it cannot be read. Only regular files are opened: a pipe can be read
   once. */
flis_kind flis_file_kind(const char *path);

/* Raw deflate (RFC 1951), zlib (RFC 1950) and gzip (RFC 1952) streams; fails beyond `limit` output bytes. free() it. */
typedef enum { FLIS_DEFLATE, FLIS_ZLIB, FLIS_GZIP } flis_stream_kind;
uint8_t *flis_inflate(flis_ctx *ctx, const char *name, flis_stream_kind kind, const uint8_t *in, size_t length,
                      size_t limit, size_t *out_length);

/* Writing a file so that it appears under its name only when every byte is on the disk: write to the stream that open
   returns, then close, which flushes and renames; or abort, which removes what was written. The bytes go to PATH.partial
   beside the target, or where a file of that name exists to PATH.2.partial, and so on. A symbolic link is followed: what
   it points to is replaced, the link stays; the new file has the permissions of the one that it replaces. Nothing but a
   regular file is ever replaced: a pipe or a character device gets the bytes as they are written (partial is NULL then),
   and so does an open descriptor: "-" or /dev/stdout is standard output, /dev/fd/3 is descriptor 3. A file named "-" is
   "./-". Folders, sockets and block devices are refused. The library writes every file this way. */
typedef struct flis_output {
    FILE *stream;  /* NULL: not open */
    char *path;    /* as the caller gave it, for sentences */
    char *target;  /* path with symbolic links followed */
    char *partial; /* where the bytes are until close; NULL: they go straight to a pipe, a device or a descriptor */
} flis_output;
FILE *flis_output_open(flis_ctx *ctx, const char *path, flis_output *out); /* NULL when failed */
bool flis_output_close(flis_ctx *ctx, flis_output *out); /* on a failed context: aborts, false; closed already: fine */
void flis_output_abort(flis_output *out);                /* a closed or zero output is fine */

/* SHA-256 (FIPS 180-4), in pieces: begin, add as often as wanted, end. hex gets 64 digits and a NUL. */
typedef struct flis_sha256 {
    uint32_t h[8];
    uint64_t length;
    uint8_t block[64];
} flis_sha256;
void flis_sha256_begin(flis_sha256 *s);
void flis_sha256_add(flis_sha256 *s, const void *bytes, size_t count);
void flis_sha256_end(flis_sha256 *s, char hex[65]);

/* ---- Bindings for other languages (flis.c) ------------------------------------------------------------------------ */

/* Size of a type ("flis_tensor") or offset and size of a member ("flis_tensor.h"), in bytes, as this library was
   compiled: with it a binding needs no copy of a struct, or checks the one it has. false: no such name is listed.
   tools/python/flis.py shows its use. */
bool flis_abi(const char *name, size_t *offset, size_t *size);

/* ---- Training (tensor.c) ------------------------------------------------------------------------------------------ */

/* With a tape in the context, the operations record themselves wherever a gradient is wanted: for weights
   that flis_param_train has seen, for tensors that flis_watch names, and for what is computed from either. What needs no
   gradient (a frozen text encoder) is not recorded, and none is computed into it. What a recorded operation was given
   (tensors, weights, masks) must last, unchanged, until flis_backward. The networks are made of
   these operations, so they train as they infer. Results and gradients do not depend on the number of threads.
   A step, with tape and training set up once:

     flis_mark mark = flis_here(ctx);
     flis_tape_begin(ctx, &tape);
     eps = flis_unet_eps(ctx, unet, z, t, text, rca);
     loss = flis_mse(ctx, eps, noise, NULL, 1.0);
     flis_backward(ctx);
     flis_tape_end(ctx);
     flis_rewind(ctx, mark);
     ... an optimiser reads the gradients, changes the values and calls flis_param_repack (tools/train/adamw.c)

   All but the last may be repeated before it, on other samples: weights' gradients add up (seed losses with 1/count). Or
   they may run at the same time (data parallelism), each with a context and a tape of its own: workers = N for
   flis_param_train, and tape.worker = 0..N-1. How a batch is divided among workers changes the bits; threads do not. */

/* The gradient of one tensor; in the arena. */
typedef struct flis_grad {
    flis_real *x; /* like the tensor's values; NULL: nothing has been accumulated yet */
    size_t count;
    bool watched;               /* stays after flis_backward, until flis_tape_end */
    struct flis_buffer *buffer; /* whose memory x is */
} flis_grad;

typedef struct flis_tape { /* all zero to begin with; kept from step to step, because fresh pages are slow */
    /* set it: whose share of the weights' gradients is added to, below the workers of flis_param_train */
    size_t worker;
    bool checkpoint;        /* set it: flis_checkpoint keeps only what goes in and out, and computes it again later */
    struct flis_node *last; /* the newest recorded operation */
    struct flis_buffer *buffers; /* memory for tensors' gradients */
    size_t bytes;                /* of it */
} flis_tape;
bool flis_tape_begin(flis_ctx *ctx, flis_tape *tape); /* fails when already recording, or while dry */
void flis_tape_end(flis_ctx *ctx);                    /* stops recording, forgets; tensors' gradients are gone */
void flis_tape_free(flis_tape *tape);
/* Wants the gradient of x, an input or something computed: x->grad->x after flis_backward. Before x is used. */
void flis_watch(flis_ctx *ctx, flis_tensor *x);
/* Runs what was recorded, newest first, from the gradients that losses seeded; then the tape is empty. Gradients add to
   what weights' grad holds. */
bool flis_backward(flis_ctx *ctx);
/* block(ctx, user, in), where in holds `count` tensors. With tape->checkpoint set it runs unrecorded, so that nothing but
   its result stays in memory, and once more, recorded, when its backward is due: the same bits for less memory. user,
   what it points to and the tensors must last until flis_backward, so they belong in the arena; `in` is copied. */
typedef flis_tensor *flis_block(flis_ctx *ctx, void *user, flis_tensor *const *in);
flis_tensor *flis_checkpoint(flis_ctx *ctx, flis_block *block, void *user, flis_tensor *const *in, size_t count);

/* Losses. Each returns its value (0 when failed), summed in double, and seeds y's gradient with `scale` times its
   derivative; without a tape it only returns. target: like y's values; weight: one for each position [n][h][w], NULL: 1. */
/* Mean over all values of weight (y - target)^2. */
double flis_mse(flis_ctx *ctx, const flis_tensor *y, const flis_real *target, const flis_real *weight, double scale);
/* Mean over all values of weight |y - target|. */
double flis_l1(flis_ctx *ctx, const flis_tensor *y, const flis_real *target, const flis_real *weight, double scale);
/* Mean over the positions whose label is not void_label (-1: every position counts) of log sum_c exp(y[c]) - y[label]; label
   [n][h][w]; 0 where no position counts. */
double flis_cross_entropy(flis_ctx *ctx, const flis_tensor *y, const uint8_t *label, int void_label, double scale);
/* Moments [n][h][w][2z], as flis_vae_encode gives them: means, then log variances, which are clamped to [-30, 20].
   1/2 sum of mean^2 + variance - 1 - log variance, over n. CompVis' ldm/modules/distributions/distributions.py. */
double flis_kl(flis_ctx *ctx, const flis_tensor *moments, double scale);
/* mean + exp(log variance / 2) noise, [n][h][w][z]; noise like it; an operation, recorded as the others. */
flis_tensor *flis_posterior_sample(flis_ctx *ctx, const flis_tensor *moments, const flis_tensor *noise);

/* Makes a weight trainable: keeps its values unpacked beside the panels (halves are widened), and allocates its gradient,
   zero, once for each of `workers` (1 where there is no data parallelism). */
bool flis_param_train(flis_ctx *ctx, flis_param *param, size_t workers);
/* Packs the panels anew from param->value, which an optimiser changed. */
void flis_param_repack(flis_param *param);

#ifdef __cplusplus
}
#endif
#endif
