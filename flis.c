/* flis.c - the pipeline, the front door of the library, and everything that touches a file.
 *
 * In this order: the pipeline (text and layout in, picture out: FreestyleNet@5dcb8b8 scripts/FLIS.py); models that are
 * loaded once; models on disk; loading weights; layouts and label maps; then the formats: safetensors, JSON (RFC 8259),
 * PNG and PGM, inflate and deflate (RFC 1950 to 1952), SHA-256 (FIPS 180-4). This is the one file of the library that opens
 * files. What comes from a user's disk is distrusted byte by byte: damaged files end in a sentence. What is written is a
 * pure function of the values, on every machine.
 * What this file is not: a general picture library; and no arithmetic of the model is here, except the last line, from
 * the decoder's values to bytes.
 *
 * Letters: h, w height and width of the latent; H, W of the picture, 8 times those; d width of the text features.
 */
#define _FILE_OFFSET_BITS 64
#define _POSIX_C_SOURCE 200809L

#include "flis.h"

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Everything that C99 leaves to the system is in this block, each with a fallback: what rename does where the new name
   exists (POSIX replaces in one step; elsewhere the old file must be removed first), which paths are absolute, offsets
   beyond 2 GiB, links, kinds of files, listing a folder, new files, descriptors, flushing to the disk, mapping files. */
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#define HAVE_WINDOWS 1
#define REPLACE(from, to) (remove(to), rename(from, to))
#define IS_SEPARATOR(c) ((c) == '/' || (c) == '\\')
#define IS_ABSOLUTE(path) (IS_SEPARATOR((path)[0]) || ((path)[0] && (path)[1] == ':'))
#else
#define HAVE_WINDOWS 0
#define REPLACE(from, to) rename(from, to)
#define IS_SEPARATOR(c) ((c) == '/')
#define IS_ABSOLUTE(path) ((path)[0] == '/')
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#define HAVE_POSIX 1
#define SEEK64(stream, offset, whence) fseeko(stream, (off_t)(offset), whence)
#define TELL64(stream) ((int64_t)ftello(stream))
#if defined(_POSIX_MAPPED_FILES) && _POSIX_MAPPED_FILES > 0 && !defined(__EMSCRIPTEN__) /* which would copy */
#define MAP_OF(stream, size) mmap(NULL, size, PROT_READ, MAP_SHARED, fileno(stream), 0)
#define UNMAP(map, size) munmap(map, size)
#define NO_MAP MAP_FAILED
#endif
#else
#define HAVE_POSIX 0
#define SEEK64(stream, offset, whence) ((offset) > LONG_MAX ? -1 : fseek(stream, (long)(offset), whence))
#define TELL64(stream) ((int64_t)ftell(stream))
#endif
#ifndef MAP_OF
#define MAP_OF(stream, size) ((stream) && (size) ? NULL : NULL)
#define UNMAP(map, size) ((void)(map), (void)(size))
#define NO_MAP NULL
#endif

/* How the attempt to make a file that did not exist ended. */
typedef enum { MADE, EXISTED, NAME_TOO_LONG, NOT_MADE } made;

/* A file of `size` bytes in memory, read only, whose pages the system reads when they are used; NULL: it cannot be mapped. */
static const unsigned char *map_file(FILE *stream, uint64_t size)
{
    void *map = stream && size && size <= SIZE_MAX ? MAP_OF(stream, (size_t)size) : NO_MAP;
    return map == NO_MAP ? NULL : map;
}

static void unmap_file(const unsigned char *map, uint64_t size)
{
    if (map) UNMAP((void *)(uintptr_t)map, (size_t)size);
}

/* Symbolic links, kinds of files, listing a folder, new files, descriptors, flushing to the disk, reading without a position.
   Elsewhere there are no links, everything can be replaced, no folder can be listed, fflush is all that there is, and only a
   stream of one's own has a position that no other thread moves. */
#if HAVE_POSIX
/* The length of an open file, and the time of its last change. */
static bool file_state(FILE *stream, uint64_t *size, int64_t *time)
{
    struct stat info;
    if (fstat(fileno(stream), &info) != 0 || info.st_size < 0) return false;
    *size = (uint64_t)info.st_size;
    *time = (int64_t)info.st_mtime;
    return true;
}

/* Bytes of a file that other threads read as well. */
static bool read_shared(FILE *stream, const char *path, uint64_t at, unsigned char *out, size_t count)
{
    (void)path;
    while (count) {
        const ssize_t got = pread(fileno(stream), out, count < (1u << 30) ? count : 1u << 30, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        out += got;
        at += (uint64_t)got;
        count -= (size_t)got;
    }
    return true;
}

static ptrdiff_t link_text(const char *path, char *out, size_t room)
{
    return readlink(path, out, room); /* -1: no link, or nothing */
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

/* Bytes can be sent to a pipe or a character device, not to a disk's own device or a socket. */
static bool is_sink(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode));
}

static bool is_protected(const char *path)
{
    return access(path, F_OK) == 0 && access(path, W_OK) != 0;
}

/* The new file gets the permissions of the file that it will replace, if there is one. */
static made make_new(const char *path, const char *replaced, FILE **stream)
{
    struct stat info;
    const bool replaces = stat(replaced, &info) == 0;
    const mode_t mode = replaces ? info.st_mode & 0777 : 0666;
    if (!replaces && errno == ENAMETOOLONG) return NOT_MADE;
    const int file = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (file < 0) return errno == EEXIST ? EXISTED : errno == ENAMETOOLONG ? NAME_TOO_LONG : NOT_MADE;
    if (replaces && fchmod(file, mode) != 0) errno = 0; /* some file systems have no permissions */
    *stream = fdopen(file, "wb");
    if (!*stream) close(file);
    return *stream ? MADE : NOT_MADE;
}

/* An open descriptor, or (-1) a pipe or device by its name, as a stream. */
static FILE *open_sink(int descriptor, const char *path)
{
    const int file = descriptor < 0 ? open(path, O_WRONLY | O_NOCTTY) : dup(descriptor);
    FILE *stream = file < 0 ? NULL : fdopen(file, "wb");
    if (file >= 0 && !stream) close(file);
    return stream;
}

/* Whether the first `length` bytes of a path name that folder. */
static bool is_that_folder(const char *path, size_t length, const char *folder)
{
    char copy[4096];
    struct stat a, b;
    if (length >= sizeof copy || stat(folder, &b) != 0) return false;
    memcpy(copy, path, length);
    copy[length] = 0;
    return stat(copy, &a) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}
/* Calls each for every name in a folder; false: it cannot be listed. */
static bool each_name(const char *path, void (*each)(void *user, const char *name), void *user)
{
    DIR *folder = opendir(path);
    if (!folder) return false;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(user, entry->d_name);
    closedir(folder);
    return true;
}

static bool flush_to_disk(FILE *stream)
{
    if (fflush(stream) != 0) return false;
    return fsync(fileno(stream)) == 0 || errno == EINVAL || errno == ENOSYS; /* some file systems cannot */
}
#else
static bool file_state(FILE *stream, uint64_t *size, int64_t *time)
{
    const int64_t at = TELL64(stream), end = SEEK64(stream, 0, SEEK_END) == 0 ? TELL64(stream) : -1;
    *size = (uint64_t)end;
    *time = 0;
    return SEEK64(stream, at, SEEK_SET) == 0 && end >= 0;
}

static bool read_shared(FILE *stream, const char *path, uint64_t at, unsigned char *out, size_t count)
{
    FILE *own = stream ? fopen(path, "rb") : NULL;
    const bool read = own && SEEK64(own, at, SEEK_SET) == 0 && fread(out, 1, count, own) == count;
    if (own) fclose(own);
    return read;
}

static ptrdiff_t link_text(const char *path, char *out, size_t room)
{
    return path && out && room ? -1 : 0;
}

static bool is_folder(const char *path)
{
    return !path;
}

static bool is_special(const char *path)
{
    return !path;
}

static bool is_sink(const char *path)
{
    return !path;
}

static bool is_protected(const char *path)
{
    return !path;
}

static bool is_that_folder(const char *path, size_t length, const char *folder)
{
    return !path && !folder && !length;
}

static bool each_name(const char *path, void (*each)(void *user, const char *name), void *user)
{
    return !path && !each && !user;
}

static bool flush_to_disk(FILE *stream)
{
    return fflush(stream) == 0;
}

static made make_new(const char *path, const char *replaced, FILE **stream)
{
    FILE *there = fopen(path, "rb");
    (void)replaced;
    if (there) fclose(there);
    if (there) return EXISTED;
#if HAVE_WINDOWS
    const int file = _open(path, _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY, _S_IREAD | _S_IWRITE);
    *stream = file < 0 ? NULL : _fdopen(file, "wb");
    if (file >= 0 && !*stream) _close(file);
#else
    *stream = fopen(path, "wb");
#endif
    return *stream ? MADE : NOT_MADE;
}

static FILE *open_sink(int descriptor, const char *path)
{
#if HAVE_WINDOWS
    const int file = descriptor < 0 ? -1 : _dup(descriptor);
    FILE *stream = file < 0 || _setmode(file, _O_BINARY) < 0 ? NULL : _fdopen(file, "wb");
    if (file >= 0 && !stream) _close(file);
    return path ? stream : NULL;
#else
    return path && descriptor < -1 ? fopen(path, "wb") : NULL; /* C99 has no binary standard output */
#endif
}
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define UNET_PREFIX "model.diffusion_model."
#define VAE_PREFIX "first_stage_model."
#define TEXT_PREFIX "cond_stage_model.transformer.text_model."
#define TOKEN_TABLE TEXT_PREFIX "embeddings.token_embedding.weight"

/* ---- Declared here, because the pipeline comes first; defined below -------------------------------------------------- */

/* A growing array. Zero to begin with; free(at). */
typedef struct byte_buffer {
    uint8_t *at;
    size_t count, room;
} byte_buffer;

/* The picture of a label map before its pixels are ids. */
typedef struct label_file {
    flis_picture picture;  /* 1 channel: gray values or indices of a palette; 3: RGB */
    bool palette, bilevel; /* bilevel: gray of 1 bit, whose 1 is white */
    size_t colors;         /* of the palette */
    uint8_t color[256][3];
} label_file;

static bool bytes_reserve(flis_ctx *ctx, byte_buffer *b, size_t more);
static char *read_stream(flis_ctx *ctx, FILE *file, const char *path, size_t limit, size_t *length);
static bool size_fits(flis_ctx *ctx, const char *path, size_t width, size_t height);
static void file_release(flis_file *file);
static bool warn_of_extra_tensors(flis_ctx *ctx, flis_file *file);
static bool write_failed(flis_ctx *ctx, const char *path);
static bool checkpoint_names(flis_ctx *ctx, flis_file *file);
static void bytes_put(flis_ctx *ctx, byte_buffer *b, const void *from, size_t count);
static void bytes_put_u8(flis_ctx *ctx, byte_buffer *b, unsigned value);
static const char *shell_word(const char *path, char *out, size_t room);
static bool is_utf8(const char *text);
static flis_entry *find_entry(const flis_file *file, const char *name);
static bool begins_with(const uint8_t *text, size_t length, const char *word);
static char *copy_text(flis_ctx *ctx, const char *text, size_t length);
static bool label_read(flis_ctx *ctx, const char *path, label_file *out);
static bool label_ids(flis_ctx *ctx, const char *path, label_file *file, flis_layout *layout);
static bool table_suits(flis_ctx *ctx, const label_file *file, const flis_layout *layout);
static bool read_png(flis_ctx *ctx, const char *path, const uint8_t *in, size_t length, label_file *out);
static bool fail_kind(flis_ctx *ctx, const char *path, const void *head, size_t length, const char *wanted);
static bool read_pgm(flis_ctx *ctx, const char *path, const uint8_t *in, size_t length, flis_picture *out);
static bool deflate_zlib(flis_ctx *ctx, const uint8_t *in, size_t length, byte_buffer *out);
/* How the bytes that were wanted of a zlib stream ended: with the stream; the stream goes on; it is cut behind them. */
typedef enum { INFLATE_WHOLE, INFLATE_MORE, INFLATE_CUT } inflate_end;
static uint8_t *inflate_prefix(flis_ctx *ctx, const char *name, const byte_buffer *in, size_t wanted, size_t *got,
                               inflate_end *end, size_t *spare);
static uint32_t crc32(uint32_t crc, const uint8_t *p, size_t count);
static uint32_t adler32(const uint8_t *p, size_t count);

/* ---- Arguments ---------------------------------------------------------------------------------------------------- */

/* A path or a name that must not be empty. SPEC 14.1. */
static bool named(flis_ctx *ctx, const char *path, const char *what)
{
    if (!flis_given(ctx, path, what)) return false;
    return *path || flis_fail(ctx, "%s: got \"\", wanted a name", what);
}

/* ---- The pipeline ------------------------------------------------------------------------------------------------- */

/* The defaults of the authors' command line: scripts/FLIS.py, the parser in main; PLMS as in their README. SPEC 8.7. */
void flis_options_default(flis_options *options)
{
    if (!options) return;
    memset(options, 0, sizeof *options);
    options->sampling.kind = FLIS_PLMS;
    options->sampling.steps = 50;
    options->sampling.scale = 2;
    options->seed = 42;
    options->rng = FLIS_RNG_CPU;
    options->width = options->height = 512;
}

/* The cells that a U-Net with Stable Diffusion's four levels sees, and the picture's own: sides divided by these. */
enum { SCALES = 5 };
static const size_t SCALE_FACTOR[SCALES] = {1, 8, 16, 32, 64};

/* seen[s][id]: true if any cell at scale s has that id. SPEC 14.4. */
static bool ids_seen(flis_ctx *ctx, const flis_picture *label, size_t width, size_t height, bool seen[SCALES][256])
{
    if (height && width > SIZE_MAX / height) return flis_fail(ctx, "%zu x %zu pixels are too many", width, height);
    uint8_t *full = flis_alloc(ctx, width, height), *cells = flis_alloc(ctx, width, height);
    if (full && cells) {
        flis_label_pil(label->pixels, label->height, label->width, full, height, width);
        for (size_t s = 0; s < SCALES; s++) {
            const size_t w = width / SCALE_FACTOR[s], h = height / SCALE_FACTOR[s];
            flis_label_torch(full, height, width, cells, h, w);
            for (size_t i = 0; i < w * h; i++) seen[s][cells[i]] = true;
        }
    }
    free(full);
    free(cells);
    return flis_ok(ctx);
}

/* A phrase without a cell at a scale is masked everywhere there: it has no effect in those layers. SPEC 14.4. */
void flis_layout_warnings(flis_ctx *ctx, const flis_layout *layout, size_t width, size_t height,
                          void (*warn)(void *user, const char *sentence), void *user)
{
    bool seen[SCALES][256] = {{false}};
    if (!warn || !flis_given(ctx, layout, "layout") || !layout->label.width ||
        !ids_seen(ctx, &layout->label, width, height, seen))
        return;
    for (size_t i = 0; i < layout->count; i++) {
        const flis_phrase *phrase = &layout->phrase[i];
        char scales[SCALES * 48] = "", sentence[512];
        if (phrase->id < 0 || phrase->id > 255) continue;
        for (size_t s = 0; s < SCALES; s++) {
            const size_t used = strlen(scales), w = width / SCALE_FACTOR[s], h = height / SCALE_FACTOR[s];
            if (!seen[s][phrase->id] && w && h)
                snprintf(scales + used, sizeof scales - used, "%s%zux%zu", used ? ", " : "", w, h);
        }
        if (!scales[0]) continue;
        snprintf(sentence, sizeof sentence, "phrase \"%.150s\" (id %d) has no cell at %s: it does nothing there",
                 phrase->text, phrase->id, scales);
        warn(user, sentence);
    }
}

/* eps of one pass, in NCHW order, under ctx->scope + suffix. Leaves the arena as it was. SPEC 8.5. */
static bool guided_pass(flis_ctx *ctx, const flis_guided *g, const flis_real *x, int64_t t, const flis_real *text,
                        const flis_rca *rca, const char *suffix, flis_real *out)
{
    const flis_unet_config *config = flis_unet_get_config(g->unet);
    const double time = (double)t;
    char scope[sizeof ctx->scope];
    if (!flis_ok(ctx)) return false;
    if (config->in != 4 || config->out != 4)
        return flis_fail(ctx, "U-Net: got %zu latent channels in and %zu out, wanted 4", config->in, config->out);
    memcpy(scope, ctx->scope, sizeof scope);
    strncat(ctx->scope, suffix, sizeof scope - 1 - strlen(scope));
    flis_mark mark = flis_here(ctx);
    flis_tensor *latent = flis_from_nchw(ctx, x, 1, 4, g->h, g->w);
    flis_tensor *context = flis_rows(ctx, 1, FLIS_TOKENS, config->context);
    if (context && context->x) memcpy(context->x, text, flis_count(context) * sizeof *text);
    flis_tensor *eps = flis_unet_eps(ctx, g->unet, latent, &time, context, rca ? &rca : NULL);
    if (eps && flis_ok(ctx)) flis_to_nchw(eps, out);
    flis_rewind(ctx, mark);
    memcpy(ctx->scope, scope, sizeof scope);
    return flis_ok(ctx);
}

/* eps_c = U-Net(x, t, prompt, layout), eps_u = U-Net(x, t, ""): the layout acts on the conditional pass alone, and the two
   passes are separate calls, as in the authors' samplers. The sampler combines them. SPEC 8.5. */
bool flis_guided_eps(flis_ctx *ctx, void *guided, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    const flis_guided *g = guided;
    if (!flis_given(ctx, g, "guidance") || !flis_given(ctx, g->unet, "guidance: the U-Net") ||
        !flis_given(ctx, x, "guidance: the latents") || !flis_given(ctx, eps, "guidance: where eps goes") ||
        !flis_given(ctx, g->context, "guidance: the text features"))
        return false;
    if (uncond && !g->uncond) return flis_fail(ctx, "guidance needs the text features of the empty prompt");
    if (!guided_pass(ctx, g, x, t, g->context, g->rca, "cond.", eps)) return false;
    return !uncond || guided_pass(ctx, g, x, t, g->uncond, NULL, "uncond.", uncond);
}

/* byte = (uint8)(255 clamp((y + 1) / 2, 0, 1)), y = decode(z float32(1 / scale factor)). FLIS.py:186-194. SPEC 9.1. */
bool flis_decode_picture(flis_ctx *ctx, const flis_vae *vae, const flis_tensor *z, flis_picture *out)
{
    if (out) memset(out, 0, sizeof *out); /* on a failed context too: its owner may free it */
    if (!flis_given(ctx, out, "decode: the picture")) return false;
    if (!flis_given(ctx, z, "decode: the latents") || !flis_given(ctx, vae, "decode: the autoencoder")) return false;
    flis_mark mark = flis_here(ctx);
    const float factor = (float)(1.0 / flis_vae_get_config(vae)->scale_factor); /* torch multiplies by a float32 */
    const flis_tensor *y = flis_vae_decode(ctx, vae, flis_scale(ctx, z, (double)factor));
    if (y && flis_ok(ctx) && y->x) {
        out->width = y->w;
        out->height = y->h;
        out->channels = 3;
        out->pixels = flis_alloc(ctx, y->h * y->w, 3);
        for (size_t i = 0; out->pixels && i < y->h * y->w * 3; i++) {
            flis_real v = (y->x[i] + 1) / 2;
            if (v != v)
                flis_fail(ctx, "decode: the value at pixel (%zu, %zu) is not a number", i / 3 % y->w, i / 3 / y->w);
            v = v > 0 ? v < 1 ? v : 1 : 0;
            out->pixels[i] = (uint8_t)(255 * v); /* truncated, not rounded: astype(np.uint8) */
        }
    }
    flis_rewind(ctx, mark);
    if (flis_ok(ctx) && out->pixels) return true;
    free(out->pixels);
    memset(out, 0, sizeof *out);
    return false;
}

/* One picture in progress; guided is what the U-Net needs, the rest is for names and progress. */
typedef struct generation {
    flis_guided guided;
    const flis_options *options;
    size_t h, w, count;          /* of the latent: count = 4 h w */
    size_t steps;                /* of the sampler, in all */
    size_t step, evaluation;     /* the current step, and the evaluations of the U-Net in it so far */
    flis_real *context, *uncond; /* [77][d] */
    uint8_t *label;              /* [H][W], or NULL */
    flis_prompt prompt;
    int32_t negative[FLIS_TOKENS]; /* of the unconditional pass: BOS, tokens, EOS, padding */
    flis_rca rca;
    flis_real *x; /* [4][h][w]: x_T, in the end the latents */
} generation;

/* Every mistake that the options alone show. SPEC 8.7. */
static bool check_options(flis_ctx *ctx, const flis_options *options, generation *g)
{
    const size_t unit = 64, most = 8192;
    const flis_sampling *s = &options->sampling;
    if (!options->width || !options->height || options->width % unit || options->height % unit ||
        options->width > most || options->height > most)
        return flis_fail(ctx, "picture size: got %zux%zu, wanted multiples of %zu from %zu to %zu", options->width,
                         options->height, unit, unit, most);
    if (!(fabs(s->scale) <= 1e6))
        return flis_fail(ctx, "guidance scale: got %g, wanted a number within 1e6 of 0", s->scale);
    if (options->negative && *options->negative && s->scale == 1)
        return flis_fail(ctx, "negative prompt: it has no effect with guidance scale 1; wanted another scale");
    if (options->random && options->random->batch > 1 && options->random->index >= options->random->batch)
        return flis_fail(ctx, "random: got picture %zu of a batch of %zu", options->random->index,
                         options->random->batch);
    if (options->rng != FLIS_RNG_CPU && options->rng != FLIS_RNG_CUDA)
        return flis_fail(ctx, "options: got a generator of kind %d, wanted FLIS_RNG_CPU (%d) or FLIS_RNG_CUDA (%d)",
                         (int)options->rng, (int)FLIS_RNG_CPU, (int)FLIS_RNG_CUDA);
    g->options = options;
    g->h = g->guided.h = options->height / FLIS_FACTOR;
    g->w = g->guided.w = options->width / FLIS_FACTOR;
    g->count = 4 * g->h * g->w;
    flis_schedule *schedule = flis_alloc(ctx, 1, sizeof *schedule);
    flis_steps *steps = flis_alloc(ctx, 1, sizeof *steps);
    if (schedule && steps) {
        flis_schedule_make(schedule);
        if (flis_steps_make(ctx, schedule, s->kind, s->steps, s->eta, steps)) g->steps = steps->count;
    }
    free(schedule);
    free(steps);
    return flis_ok(ctx);
}

/* A noise tensor of another shape or type. */
static bool noise_fails(flis_ctx *ctx, const char *path, const flis_entry *e, const generation *g)
{
    char shape[FLIS_MAX_DIMS * 21 + 1] = "";
    for (int i = 0, used = 0; i < e->rank; i++)
        used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%llu", i ? "," : "",
                         (unsigned long long)e->shape[i]);
    return flis_fail(ctx, "%s: tensor \"%.200s\": got %s [%s], wanted F32 [1,4,%zu,%zu]", path, e->name,
                     flis_entry_dtype(e), shape, g->h, g->w);
}

/* x_T from a safetensors file: its tensor x_T, or its only one. SPEC 8.7. */
static bool read_noise(flis_ctx *ctx, generation *g, const char *path)
{
    flis_file *file = flis_file_open(ctx, path);
    if (!file) return false;
    const flis_entry *e = flis_file_find(file, "x_T");
    if (!e && file->count == 1) e = file->entry;
    if (!e) flis_fail(ctx, "%s: got %zu tensors, wanted one, or one named x_T", path, file->count);
    else if ((e->dtype != FLIS_F32 && e->dtype != FLIS_F64) || e->rank != 4 || e->shape[0] != 1 || e->shape[1] != 4 ||
             e->shape[2] != g->h || e->shape[3] != g->w)
        noise_fails(ctx, path, e, g);
    else flis_file_read_real(ctx, file, e, g->x);
    for (size_t i = 0; i < g->count && flis_ok(ctx); i++)
        if (!(fabs((double)g->x[i]) <= DBL_MAX))
            flis_fail(ctx, "%s: tensor \"%.200s\": value %zu is not finite", path, e->name, i);
    flis_file_close(file);
    return flis_ok(ctx);
}

/* x_T from the caller's array. SPEC 8.7. */
static bool copy_noise(flis_ctx *ctx, generation *g)
{
    const flis_real *values = g->options->noise_values;
    if (g->options->noise_count != g->count)
        return flis_fail(ctx, "noise: got an array of %zu values, wanted %zu: [4,%zu,%zu]", g->options->noise_count,
                         g->count, g->h, g->w);
    for (size_t i = 0; i < g->count; i++) {
        if (!(fabs((double)values[i]) <= DBL_MAX)) return flis_fail(ctx, "noise: value %zu is not finite", i);
        g->x[i] = values[i];
    }
    return true;
}

/* Seeds the generator, or takes the caller's, and draws x_T. Given noise replaces what was drawn, so that the noise of later
   steps is the same as if it had been drawn. SPEC 8.7. */
static bool make_noise(flis_ctx *ctx, generation *g)
{
    const flis_options *o = g->options;
    float *drawn = flis_alloc(ctx, g->count, sizeof *drawn);
    g->x = flis_alloc(ctx, g->count, sizeof *g->x);
    if (drawn && g->x) {
        if (o->random) ctx->rng = *o->random;
        else flis_rng_seed(&ctx->rng, o->rng, o->seed);
        flis_randn(&ctx->rng, drawn, g->count);
        for (size_t i = 0; i < g->count; i++) g->x[i] = (flis_real)drawn[i];
    }
    free(drawn);
    if (!flis_ok(ctx)) return false;
    if (o->noise && o->noise_values) return flis_fail(ctx, "noise: got a file and an array, wanted one of them");
    return o->noise ? read_noise(ctx, g, o->noise) : !o->noise_values || copy_noise(ctx, g);
}

/* One dimension of a tensor must be what another part gives; says so before hours are spent on the other parts.
   SPEC 13.2. */
static bool check_dimension(flis_ctx *ctx, const flis_file *file, const char *name, int which, uint64_t wanted,
                            const char *why)
{
    const flis_entry *e = flis_file_find(file, name);
    const char *path = flis_file_path(file, name);
    if (!e) return flis_fail(ctx, "%s: tensor \"%s\": missing", path, name);
    if (e->rank > which && e->shape[which] == wanted) return true;
    return flis_fail(ctx, "%s: tensor \"%s\": got size %llu in dimension %d, wanted %llu, %s", path, name,
                     (unsigned long long)(e->rank > which ? e->shape[which] : 0), which, (unsigned long long)wanted,
                     why);
}

/* The label map of a layout: bytes, one class id per pixel. SPEC 10.9. */
static bool check_label(flis_ctx *ctx, const char *where, const flis_picture *label)
{
    if (label->channels != 1)
        return flis_fail(ctx, "%s: got a label map of %zu channels, wanted 1: one class id per pixel", where,
                         label->channels);
    return flis_given(ctx, label->pixels, "label map: its pixels") &&
           size_fits(ctx, where, label->width, label->height);
}

/* A layout may come from a caller's own memory: what flis_layout_read would refuse is refused here. SPEC 10.9. */
static bool check_layout(flis_ctx *ctx, const flis_layout *layout, bool no_layout)
{
    if (!flis_given(ctx, layout, "layout")) return false;
    if (!layout->count) return flis_fail(ctx, "layout: got no phrases, wanted at least one");
    if (!flis_given(ctx, layout->phrase, "layout: its phrases")) return false;
    for (size_t i = 0; i < layout->count; i++) {
        const flis_phrase *phrase = &layout->phrase[i];
        if (!phrase->text) return flis_fail(ctx, "layout: phrase %zu: got NULL, wanted a text", i);
        if (phrase->id < -1 || phrase->id > 255)
            return flis_fail(ctx, "layout: phrase \"%.200s\": got id %d, wanted an integer from -1 to 255",
                             phrase->text, phrase->id);
    }
    return no_layout || !layout->label.width || check_label(ctx, "layout", &layout->label);
}

/* The vocabulary's tokens are the rows of the text encoder's table. The rows that textual inversion added after CLIP's own
   are never looked up. With another vocabulary, a few rows more are taken for such ones and named in a warning, because a
   vocabulary that lost its last lines would look the same. SPEC 13.2. */
static bool check_tokens(flis_ctx *ctx, const flis_file *file, const flis_vocab *vocab)
{
    enum { CLIP_TOKENS = 49408, MOST_ADDED = 64 };
    const size_t tokens = flis_vocab_size(vocab);
    const flis_entry *e = flis_file_find(file, TOKEN_TABLE);
    const uint64_t rows = e && e->rank > 0 ? e->shape[0] : 0;
    const bool clip = tokens == CLIP_TOKENS, other = rows < CLIP_TOKENS && rows <= tokens + MOST_ADDED;
    if (rows <= tokens || !(clip || other))
        return check_dimension(ctx, file, TOKEN_TABLE, 0, tokens, "the size of the vocabulary");
    flis_warn(ctx,
              "%s: the text encoder has %llu token embeddings, the vocabulary %zu tokens: the last %llu are taken for "
              "added tokens, which no text becomes here",
              file->path, (unsigned long long)rows, tokens, (unsigned long long)(rows - tokens));
    return flis_ok(ctx);
}

/* The parts must fit each other, and the vocabulary the text encoder. SPEC 13.2. */
static bool check_model(flis_ctx *ctx, const flis_file *file, const flis_vocab *vocab)
{
    static const char unet[] = "model.diffusion_model.", keys[] = ".attn2.to_k.weight";
    const flis_entry *e = flis_file_find(file, TOKEN_TABLE);
    const char *lacks = flis_model_lacks(file);
    if (!flis_given(ctx, vocab, "vocabulary")) return false;
    if (lacks)
        return flis_fail(ctx, "%s: is %s, wanted a whole model: text encoder, U-Net and autoencoder", file->path,
                         lacks);
    if (!check_tokens(ctx, file, vocab) ||
        !check_dimension(ctx, file, "model.diffusion_model.input_blocks.0.0.weight", 1, 4,
                         "the channels of a latent") ||
        !check_dimension(ctx, file, "model.diffusion_model.out.2.weight", 0, 4, "the channels of a latent") ||
        !check_dimension(ctx, file, "first_stage_model.post_quant_conv.weight", 1, 4, "the channels of a latent") ||
        !check_dimension(ctx, file, "first_stage_model.decoder.conv_out.weight", 0, 3, "red, green and blue"))
        return false;
    const uint64_t width = e->rank > 1 ? e->shape[1] : 0;
    for (size_t i = 0; i < file->count; i++) {
        const char *name = file->entry[i].name;
        const size_t length = strlen(name);
        if (strncmp(name, unet, strlen(unet)) != 0 || length < sizeof keys ||
            strcmp(name + length - (sizeof keys - 1), keys) != 0)
            continue;
        if (!check_dimension(ctx, file, name, 1, width, "the width of the text encoder")) return false;
    }
    return true;
}

/* last_hidden_state of one prompt, [77][d], malloc'ed. */
static flis_real *encode(flis_ctx *ctx, const flis_clip *clip, const int32_t *ids, const char *scope)
{
    flis_mark mark = flis_here(ctx);
    snprintf(ctx->scope, sizeof ctx->scope, "%s", scope);
    const flis_tensor *y = flis_clip_encode(ctx, clip, ids, 1);
    flis_real *out = y && flis_ok(ctx) ? flis_alloc(ctx, flis_count(y), sizeof *out) : NULL;
    if (out && y->x) memcpy(out, y->x, flis_count(y) * sizeof *out);
    flis_rewind(ctx, mark);
    return out;
}

/* A model that is loaded once. The parts that are NULL are read from the file when they are needed. */
struct flis_model {
    flis_file *file;
    flis_clip *clip;
    flis_unet *unet;
    flis_vae *vae;
    unsigned parts; /* that were asked for: FLIS_PART_… */
};

/* The ids of the unconditional pass: those of "", BOS and then EOS to the end, or of the negative prompt. As a whole text, since
   no classes are counted along it. SPEC 8.7. */
static bool make_negative(flis_ctx *ctx, const flis_vocab *vocab, generation *g)
{
    const char *text = g->options->negative ? g->options->negative : "";
    int32_t *ids = NULL;
    const long n = flis_tokenize(ctx, vocab, text, strlen(text), &ids);
    if (n > FLIS_PHRASE_TOKENS)
        flis_fail(ctx, "negative prompt: got %ld tokens, wanted at most %d", n, FLIS_PHRASE_TOKENS);
    for (long i = 0; flis_ok(ctx) && i < FLIS_TOKENS; i++)
        g->negative[i] = i == 0 ? flis_vocab_bos(vocab) : i <= n ? ids[i - 1] : flis_vocab_eos(vocab);
    free(ids);
    return flis_ok(ctx);
}

/* The caller's text features, which belong to a U-Net of their width. SPEC 8.7. */
static bool take_features(flis_ctx *ctx, const flis_model *model, generation *g)
{
    const flis_options *o = g->options;
    const flis_entry *e = flis_file_find(model->file, TOKEN_TABLE);
    const uint64_t wanted = e && e->rank == 2 ? e->shape[1] * FLIS_TOKENS : 0;
    if (o->features_count != wanted)
        return flis_fail(ctx, "text features: got %zu values, wanted %llu: [%d,%llu]", o->features_count,
                         (unsigned long long)wanted, FLIS_TOKENS, (unsigned long long)(wanted / FLIS_TOKENS));
    if (!o->uncond_features && o->sampling.scale != 1)
        return flis_fail(ctx, "text features: got none of the unconditional pass, which scale %g needs",
                         o->sampling.scale);
    g->guided.context = o->features;
    g->guided.uncond = o->sampling.scale != 1 ? o->uncond_features : NULL;
    return true;
}

/* Text features of the prompt and, where guidance needs them, of the unconditional pass. SPEC 8.7. */
static bool encode_prompts(flis_ctx *ctx, const flis_model *model, generation *g)
{
    if (g->options->features) return take_features(ctx, model, g);
    flis_clip *own = model->clip ? NULL : flis_clip_load(ctx, model->file);
    const flis_clip *clip = model->clip ? model->clip : own;
    if (!clip) return false;
    g->context = encode(ctx, clip, g->prompt.ids, "clip.");
    if (g->options->sampling.scale != 1) g->uncond = encode(ctx, clip, g->negative, "clip.uncond.");
    flis_clip_free(own);
    g->guided.context = g->context;
    g->guided.uncond = g->uncond;
    return flis_ok(ctx);
}

/* A latent for the trace, under scope + name. SPEC 10.12. */
static void trace_latent(flis_ctx *ctx, const generation *g, const flis_real *x, const char *name)
{
    if (!ctx->trace || !flis_ok(ctx)) return;
    flis_mark mark = flis_here(ctx);
    flis_trace(ctx, flis_from_nchw(ctx, x, 1, 4, g->h, g->w), "%s", name);
    flis_rewind(ctx, mark);
}

/* Names the step for the trace; PLMS evaluates a second time in its first step, one timestep further. SPEC 8.7. */
static bool generation_eps(flis_ctx *ctx, void *user, const flis_real *x, int64_t t, flis_real *eps, flis_real *uncond)
{
    generation *g = user;
    snprintf(ctx->scope, sizeof ctx->scope, "step.%zu.%s", g->step, g->evaluation++ ? "next." : "");
    return flis_guided_eps(ctx, &g->guided, x, t, eps, uncond);
}

/* After a step: its tensors go to the trace, the record to the caller. SPEC 10.12. */
static void generation_step(flis_ctx *ctx, void *user, const flis_step *step)
{
    generation *g = user;
    snprintf(ctx->scope, sizeof ctx->scope, "step.%zu.", g->step);
    trace_latent(ctx, g, step->e_t, "e_t");
    trace_latent(ctx, g, step->x_prev, "x_prev");
    trace_latent(ctx, g, step->pred_x0, "pred_x0");
    g->step++;
    g->evaluation = 0;
    if (g->options->step) g->options->step(ctx, g->options->step_user, step);
}

/* x_T to the final latents, in g->x. SPEC 8.7. */
static bool sample(flis_ctx *ctx, const flis_model *model, generation *g)
{
    const flis_model_fn function = {generation_eps, generation_step, g};
    flis_unet *own = model->unet ? NULL : flis_unet_load(ctx, model->file);
    g->guided.unet = model->unet ? model->unet : own;
    if (!g->guided.unet) return false;
    ctx->scope[0] = 0;
    trace_latent(ctx, g, g->x, "x_T");
    bool ok = flis_sample(ctx, &g->options->sampling, g->count, g->x, &function);
    flis_unet_free(own);
    return ok;
}

/* The final latents to the picture's bytes. SPEC 9.1. */
static bool decode(flis_ctx *ctx, const flis_model *model, const generation *g, flis_picture *out)
{
    const bool loaded = model->parts & FLIS_PART_DECODER;
    flis_vae *own = loaded ? NULL : flis_vae_load(ctx, model->file, true, false);
    const flis_vae *vae = loaded ? model->vae : own;
    if (!vae) return false;
    flis_mark mark = flis_here(ctx);
    snprintf(ctx->scope, sizeof ctx->scope, "decode.");
    bool ok = flis_decode_picture(ctx, vae, flis_from_nchw(ctx, g->x, 1, 4, g->h, g->w), out);
    flis_rewind(ctx, mark);
    flis_vae_free(own);
    return ok;
}

/* Brings the label map to the picture's size, and warns of phrases that have no cell at some scale. SPEC 8.7. */
static bool make_rca(flis_ctx *ctx, const flis_layout *layout, generation *g)
{
    const flis_options *o = g->options;
    if (o->no_layout || !layout->label.width) return true;
    flis_layout_warnings(ctx, layout, o->width, o->height, o->warn, o->warn_user);
    g->label = flis_alloc(ctx, o->height, o->width);
    if (!g->label) return false;
    flis_label_pil(layout->label.pixels, layout->label.height, layout->label.width, g->label, o->height, o->width);
    g->rca = (flis_rca){g->label, o->height, o->width, g->prompt.class_ids, g->prompt.classes};
    g->guided.rca = &g->rca;
    return true;
}

/* scripts/FLIS.py main after the options: tokens, text features, sampler, decoder. What needs no weights comes first, so
   that mistakes show at once; a part that is not loaded is in memory only while it works. SPEC 8.7. */
static bool paint(flis_ctx *ctx, const flis_model *model, const flis_vocab *vocab, const flis_layout *layout,
                  generation *g, flis_picture *out)
{
    char scope[sizeof ctx->scope];
    memcpy(scope, ctx->scope, sizeof scope);
    bool ok = check_model(ctx, model->file, vocab) && check_layout(ctx, layout, g->options->no_layout) &&
              flis_prompt_make(ctx, vocab, layout->phrase, layout->count, &g->prompt) && make_negative(ctx, vocab, g) &&
              make_rca(ctx, layout, g) && encode_prompts(ctx, model, g) && sample(ctx, model, g) &&
              decode(ctx, model, g, out);
    memcpy(ctx->scope, scope, sizeof scope);
    return ok;
}

static void generation_free(generation *g)
{
    flis_prompt_free(&g->prompt);
    free(g->context);
    free(g->uncond);
    free(g->label);
    free(g->x);
}

/* With a model that is loaded already. SPEC 8.7. */
bool flis_model_generate(flis_ctx *ctx, const flis_model *model, const flis_vocab *vocab, const flis_layout *layout,
                         const flis_options *options, flis_picture *out)
{
    generation g = {.h = 0};
    if (out) memset(out, 0, sizeof *out);
    if (!flis_given(ctx, out, "generate: the picture") || !flis_given(ctx, options, "generate: the options") ||
        !flis_given(ctx, model, "generate: the model (not loaded, or freed)"))
        return false;
    bool ok = check_options(ctx, options, &g) && make_noise(ctx, &g) && paint(ctx, model, vocab, layout, &g, out);
    generation_free(&g);
    return ok;
}

/* From a model on disk, one part's weights in memory at a time; options are checked before the file is opened.
   SPEC 8.7. */
bool flis_generate(flis_ctx *ctx, const char *path, const flis_vocab *vocab, const flis_layout *layout,
                   const flis_options *options, flis_picture *out)
{
    generation g = {.h = 0};
    flis_model *model = NULL;
    if (out) memset(out, 0, sizeof *out);
    if (!flis_given(ctx, out, "generate: the picture") || !flis_given(ctx, options, "generate: the options"))
        return false;
    bool ok = check_options(ctx, options, &g) && make_noise(ctx, &g) &&
              (model = flis_model_load(ctx, path, FLIS_PARTS_NONE)) != NULL &&
              paint(ctx, model, vocab, layout, &g, out);
    flis_model_free(&model);
    generation_free(&g);
    return ok;
}

/* ---- Models that are loaded once ---------------------------------------------------------------------------------- */

/* Takes the opened file over. Once all that painting needs is packed, the file's data is not needed any more. SPEC 8.7. */
static flis_model *model_of(flis_ctx *ctx, flis_file *file, bool packed, unsigned parts)
{
    flis_model *model = file ? flis_alloc(ctx, 1, sizeof *model) : NULL;
    if (!model) {
        flis_file_close(file);
        return NULL;
    }
    model->file = file;
    model->parts = parts;
    file->mapped = !packed;
    const bool decoder = parts & FLIS_PART_DECODER, encoder = parts & FLIS_PART_ENCODER;
    if (parts & FLIS_PART_TEXT) model->clip = flis_clip_load(ctx, file);
    if (parts & FLIS_PART_UNET) model->unet = flis_unet_load(ctx, file);
    if (decoder || encoder) model->vae = flis_vae_load(ctx, file, decoder, encoder);
    warn_of_extra_tensors(ctx, file); /* here, so that it is said once, however many pictures are painted */
    if (packed && (parts & FLIS_PARTS_PAINT) == FLIS_PARTS_PAINT) file_release(file);
    if (!flis_ok(ctx)) flis_model_free(&model);
    return model;
}

static bool check_parts(flis_ctx *ctx, unsigned parts)
{
    if (parts <= FLIS_PARTS_ALL) return true;
    return flis_fail(ctx, "model: got parts 0x%x, wanted a sum of FLIS_PART_TEXT, _UNET, _DECODER, _ENCODER", parts);
}

/* Opens the model and loads those of its parts that are wanted; the rest stays on disk. SPEC 8.7. */
flis_model *flis_model_load(flis_ctx *ctx, const char *path, unsigned parts)
{
    return flis_model_load_with(ctx, path, NULL, parts);
}

/* The same with a variant, or another file's autoencoder. SPEC 8.7. */
flis_model *flis_model_load_with(flis_ctx *ctx, const char *path, const flis_choice *choice, unsigned parts)
{
    if (!named(ctx, path, "model: its path") || !check_parts(ctx, parts)) return NULL;
    return model_of(ctx, flis_model_open_with(ctx, path, choice), choice && choice->packed, parts);
}

/* The same from bytes in memory. SPEC 8.7. */
flis_model *flis_model_load_memory(flis_ctx *ctx, const char *name, const void *bytes, size_t length, unsigned parts)
{
    if (!flis_given(ctx, bytes, "model: its bytes") || !check_parts(ctx, parts)) return NULL;
    flis_file *file = flis_file_open_memory(ctx, name, bytes, length);
    if (file && checkpoint_names(ctx, file) && flis_model_check(ctx, file))
        return model_of(ctx, file, (parts & FLIS_PARTS_PAINT) == FLIS_PARTS_PAINT, parts);
    flis_file_close(file);
    return NULL;
}

/* Sets the caller's pointer to NULL, so that a freed model is recognised. SPEC 8.7. */
void flis_model_free(flis_model **model)
{
    if (!model || !*model) return;
    flis_clip_free((*model)->clip);
    flis_unet_free((*model)->unet);
    flis_vae_free((*model)->vae);
    flis_file_close((*model)->file);
    free(*model);
    *model = NULL;
}

/* The loaded text encoder, or NULL. SPEC 8.7. */
const flis_clip *flis_model_clip(const flis_model *model)
{
    return model ? model->clip : NULL;
}

/* The loaded U-Net, or NULL. SPEC 8.7. */
const flis_unet *flis_model_unet(const flis_model *model)
{
    return model ? model->unet : NULL;
}

/* The loaded autoencoder, or NULL. SPEC 8.7. */
const flis_vae *flis_model_vae(const flis_model *model)
{
    return model ? model->vae : NULL;
}

/* ---- The library's surface: version, failures, bindings ----------------------------------------------------------- */

/* The number of the library that runs, for comparison with the header's. SPEC 14.1. */
int flis_version(void)
{
    return FLIS_VERSION_NUMBER;
}

/* The same as text. SPEC 14.1. */
const char *flis_version_text(void)
{
    return FLIS_VERSION;
}

/* The context can be used again; nothing that it holds is touched. SPEC 14.1. */
void flis_clear_error(flis_ctx *ctx)
{
    if (!ctx) return;
    ctx->error[0] = 0;
    ctx->scope[0] = 0;
}

/* free, for callers that have another C library. SPEC 14.1. */
void flis_release(void *memory)
{
    free(memory);
}

/* One row for every type and member that a binding needs. */
#define TYPE(type) \
    { \
#type, 0, sizeof(type) \
    }
#define MEMBER(type, member) \
    { \
#type "." #member, offsetof(type, member), sizeof(((type *)NULL)->member) \
    }
static const struct {
    const char *name;
    size_t offset, size;
} ABI[] = {
    TYPE(flis_real),
    TYPE(flis_ctx),
    MEMBER(flis_ctx, error),
    MEMBER(flis_ctx, threads),
    MEMBER(flis_ctx, macs),
    MEMBER(flis_ctx, rng),
    MEMBER(flis_ctx, precision),
    MEMBER(flis_ctx, progress),
    MEMBER(flis_ctx, progress_user),
    MEMBER(flis_ctx, trace),
    MEMBER(flis_ctx, trace_wants),
    MEMBER(flis_ctx, trace_user),
    TYPE(flis_mark),
    TYPE(flis_tensor),
    MEMBER(flis_tensor, rank),
    MEMBER(flis_tensor, bytes),
    MEMBER(flis_tensor, n),
    MEMBER(flis_tensor, h),
    MEMBER(flis_tensor, w),
    MEMBER(flis_tensor, c),
    MEMBER(flis_tensor, x),
    TYPE(flis_param),
    MEMBER(flis_param, rank),
    MEMBER(flis_param, shape),
    MEMBER(flis_param, table),
    MEMBER(flis_param, groups),
    TYPE(flis_mask),
    MEMBER(flis_mask, causal),
    MEMBER(flis_mask, attended),
    TYPE(flis_picture),
    MEMBER(flis_picture, width),
    MEMBER(flis_picture, height),
    MEMBER(flis_picture, channels),
    MEMBER(flis_picture, pixels),
    TYPE(flis_layout),
    MEMBER(flis_layout, count),
    MEMBER(flis_layout, phrase),
    TYPE(flis_options),
    MEMBER(flis_options, sampling),
    MEMBER(flis_options, seed),
    MEMBER(flis_options, rng),
    MEMBER(flis_options, width),
    MEMBER(flis_options, height),
    MEMBER(flis_options, no_layout),
    MEMBER(flis_options, negative),
    MEMBER(flis_options, noise_values),
    MEMBER(flis_options, noise_count),
    MEMBER(flis_options, random),
    MEMBER(flis_options, features),
    MEMBER(flis_options, uncond_features),
    MEMBER(flis_options, features_count),
    TYPE(flis_sampling),
    MEMBER(flis_sampling, kind),
    MEMBER(flis_sampling, steps),
    MEMBER(flis_sampling, eta),
    MEMBER(flis_sampling, scale),
    TYPE(flis_prompt),
    MEMBER(flis_prompt, text),
    MEMBER(flis_prompt, ids),
    MEMBER(flis_prompt, tokens),
    MEMBER(flis_prompt, classes),
    MEMBER(flis_prompt, class_ids),
    TYPE(flis_rca),
    MEMBER(flis_rca, label),
    MEMBER(flis_rca, height),
    MEMBER(flis_rca, width),
    MEMBER(flis_rca, class_ids),
    MEMBER(flis_rca, classes),
    TYPE(flis_rng),
    TYPE(flis_schedule),
    MEMBER(flis_schedule, beta),
    MEMBER(flis_schedule, alpha_bar),
    TYPE(flis_steps),
    MEMBER(flis_steps, count),
    MEMBER(flis_steps, t),
    MEMBER(flis_steps, alpha),
    MEMBER(flis_steps, alpha_prev),
    MEMBER(flis_steps, sigma),
};
#undef TYPE
#undef MEMBER

/* Sizes of types and offsets of members, as this library was compiled. SPEC 14.1. */
bool flis_abi(const char *name, size_t *offset, size_t *size)
{
    for (size_t i = 0; name && i < COUNT(ABI); i++) {
        if (strcmp(ABI[i].name, name) != 0) continue;
        if (offset) *offset = ABI[i].offset;
        if (size) *size = ABI[i].size;
        return true;
    }
    return false;
}

/* ---- Models: one file, shards, a diffusers folder ---------------------------------------------------------------- */

enum { PATH_ROOM = 4096, LARGEST_CONFIG = 1 << 24 };

static bool path_ends(const char *path, const char *tail)
{
    const size_t length = strlen(path), end = strlen(tail);
    return length >= end && strcmp(path + length - end, tail) == 0;
}

/* folder + "/" + name, or "" where that is too long. */
static const char *path_in(char *out, const char *folder, size_t folder_length, const char *name)
{
    int length = snprintf(out, PATH_ROOM, "%.*s%s%s", (int)folder_length, folder,
                          folder_length && folder[folder_length - 1] != '/' ? "/" : "", name);
    if (length < 0 || length >= PATH_ROOM) out[0] = 0;
    return out;
}

static bool readable(const char *path)
{
    FILE *stream = *path ? fopen(path, "rb") : NULL;
    if (stream) fclose(stream);
    return stream != NULL;
}

/* json.dumps of Python writes -Infinity (lambda_min_clipped of DPM-Solver), Infinity and NaN, which are no JSON: in quotes
   they are, and equal no number. malloc'ed. */
static char *quote_pythons_numbers(flis_ctx *ctx, const char *text, size_t *length)
{
    static const char *const words[] = {"-Infinity", "Infinity", "NaN"};
    char *out = flis_alloc(ctx, *length + 1, 2);
    bool quoted = false;
    size_t used = 0;
    for (size_t i = 0; out && i < *length; i++) {
        size_t k = quoted ? COUNT(words) : 0;
        while (k < COUNT(words) && strncmp(text + i, words[k], strlen(words[k])) != 0) k++;
        if (k < COUNT(words)) {
            used += (size_t)sprintf(out + used, "\"%s\"", words[k]);
            i += strlen(words[k]) - 1;
            continue;
        }
        if (text[i] == '"') quoted = !quoted;
        out[used++] = text[i];
        if (quoted && text[i] == '\\' && i + 1 < *length) out[used++] = text[++i];
    }
    *length = used;
    return out;
}

/* An object, as Python writes it. What is another kind of file gets its name in place of an error of JSON. */
static flis_json *read_json(flis_ctx *ctx, const char *path)
{
    size_t length = 0;
    char *text = flis_read_file(ctx, path, LARGEST_CONFIG, &length);
    const flis_kind kind = text ? flis_kind_of(text, length) : FLIS_KIND_UNKNOWN;
    if (kind != FLIS_KIND_JSON && kind != FLIS_KIND_UTF16 && flis_kind_text(kind))
        flis_fail(ctx, "%s: is %s, wanted JSON", path, flis_kind_text(kind));
    char *quoted = text && flis_ok(ctx) ? quote_pythons_numbers(ctx, text, &length) : NULL;
    flis_json *json = quoted ? flis_json_parse(ctx, path, quoted, length) : NULL;
    free(quoted);
    free(text);
    const flis_json *error = json ? flis_json_get(json, "error") : NULL;
    if (json && json->type != FLIS_OBJECT)
        flis_fail(ctx, "%s:%d:%d: got %.40s, wanted an object", path, json->line, json->column, flis_json_got(json));
    else if (error && error->type == FLIS_STRING)
        flis_fail(ctx, "%s: is a server's error message, not the file: \"%.100s\"", path, error->string);
    return json;
}

/* {"weight_map": {"tensor": "file", …}}: every file that it names, once each, beside the index. Each tensor must be in the
   file that the map says. SPEC 10.3. */
static bool append_index(flis_ctx *ctx, flis_file *file, const char *index, flis_rename *rename_tensor, void *user)
{
    char path[PATH_ROOM];
    const char *slash = strrchr(index, '/');
    const size_t folder = slash ? (size_t)(slash - index) + 1 : 0;
    flis_json *json = read_json(ctx, index);
    const flis_json *map = json && flis_ok(ctx) ? flis_json_get(json, "weight_map") : NULL;
    if (json && (!map || map->type != FLIS_OBJECT))
        flis_fail(ctx, "%s: weight_map: got %.40s, wanted an object", index, flis_json_got(map));
    else if (map && !map->count) flis_fail(ctx, "%s: weight_map: got no tensors, wanted some", index);
    for (size_t i = 0; flis_ok(ctx) && i < map->count; i++) {
        const flis_json *name = &map->item[i];
        if (strlen(map->key[i].string) != map->key[i].length) {
            flis_fail(ctx, "%s: weight_map: \"%.200s\": a NUL character in it", index, map->key[i].string);
            break;
        }
        if (name->type != FLIS_STRING || !name->length || name->length > 255 || strpbrk(name->string, "/\\") ||
            strlen(name->string) != name->length) {
            const bool text = name->type == FLIS_STRING;
            flis_fail(ctx, "%s: weight_map: \"%.200s\": got %s%.200s%s, wanted the name of a file beside the index",
                      index, map->key[i].string, text ? "\"" : "", text ? name->string : flis_json_got(name),
                      !text                                  ? ""
                      : strlen(name->string) == name->length ? "\""
                                                             : "\" and a NUL character");
            break;
        }
        path_in(path, index, folder, name->string);
        size_t known = 0;
        while (known < file->shards && strcmp(file->shard[known].path, path) != 0) known++;
        if (known == file->shards && !flis_file_append(ctx, file, path, rename_tensor, user)) flis_fail_in(ctx, index);
    }
    flis_file_ready(ctx, file);
    for (size_t i = 0; flis_ok(ctx) && i < map->count; i++) {
        char renamed[512];
        const char *tensor = map->key[i].string;
        if (rename_tensor && rename_tensor(user, tensor, renamed, sizeof renamed)) tensor = renamed;
        const flis_entry *entry = flis_file_find(file, tensor);
        path_in(path, index, folder, map->item[i].string);
        if (!entry || strcmp(file->shard[entry->shard].path, path) != 0)
            flis_fail(ctx, "%s: weight_map: \"%.200s\" is not in %.200s", index, map->key[i].string,
                      map->item[i].string);
    }
    flis_json_free(json);
    return flis_ok(ctx);
}

/* ---- Parts of a diffusers folder: variants, shards, what else lies there ------------------------------------------ */

/* What the names in a part's folder show. */
enum { WORD_ROOM = 48, MOST_WORDS = 12, NAME_ROOM = 256 };
typedef struct part_list {
    char word[MOST_WORDS][WORD_ROOM]; /* variants: fp16, non_ema… */
    size_t words;
    char shard[NAME_ROOM];  /* the first of several files, "…-00001-of-00002.safetensors" */
    char pickle[NAME_ROOM]; /* the first file of PyTorch's, preferring the plain one */
    size_t names;
} part_list;

/* The names that diffusers and transformers give weights: BASE, the variant between these two, and PyTorch's. */
static const char *const PART_BASE[] = {"diffusion_pytorch_model", "model"};
static const char *const PLAIN_END[] = {".safetensors", ".safetensors.index.json"};
static const struct {
    const char *before, *after;
} VARIANT[] = {{".", ".safetensors"}, {".safetensors.index.", ".json"}, {".", ".safetensors.index.json"}};

static bool ends(const char *text, size_t length, const char *tail)
{
    const size_t end = strlen(tail);
    return length >= end && memcmp(text + length - end, tail, end) == 0;
}

/* folder/part/name; part "": folder/name. */
static const char *part_file(char *out, const char *folder, const char *part, const char *name)
{
    char inner[NAME_ROOM + 32];
    snprintf(inner, sizeof inner, "%s%s%s", part, *part && *name ? "/" : "", name);
    return path_in(out, folder, strlen(folder), inner);
}

/* The weights of a part in a variant ("": the plain ones), as one file or an index: true, and their path, where they
   are. SPEC 10.3. */
static bool find_part(char *path, const char *folder, const char *part, const char *word)
{
    char name[NAME_ROOM];
    const size_t forms = *word ? COUNT(VARIANT) : COUNT(PLAIN_END);
    for (size_t form = 0; form < forms; form++)
        for (size_t base = 0; base < COUNT(PART_BASE); base++) {
            if (*word)
                snprintf(name, sizeof name, "%s%s%.64s%s", PART_BASE[base], VARIANT[form].before, word,
                         VARIANT[form].after);
            else snprintf(name, sizeof name, "%s%s", PART_BASE[base], PLAIN_END[form]);
            if (readable(part_file(path, folder, part, name))) return true;
        }
    return false;
}

static bool is_word(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", text[i])) return false;
    return length && length < WORD_ROOM;
}

static void add_word(part_list *list, const char *text, size_t length)
{
    for (size_t i = 0; i < list->words; i++)
        if (strlen(list->word[i]) == length && memcmp(list->word[i], text, length) == 0) return;
    if (list->words == MOST_WORDS || !is_word(text, length)) return;
    memcpy(list->word[list->words], text, length);
    list->word[list->words++][length] = 0;
}

/* One name of a part's folder: a variant, a shard, or a file of PyTorch's. SPEC 10.3. */
static void see_name(void *user, const char *name)
{
    part_list *list = user;
    const size_t length = strlen(name);
    list->names++;
    if (length >= NAME_ROOM) return;
    const bool pickle = strncmp(name, "diffusion_pytorch_model", 23) == 0 || strncmp(name, "pytorch_model", 13) == 0;
    if (pickle && ends(name, length, ".bin") &&
        (!*list->pickle || strlen(list->pickle) > length ||
         (strlen(list->pickle) == length && strcmp(name, list->pickle) < 0)))
        strcpy(list->pickle, name);
    for (size_t base = 0; base < COUNT(PART_BASE); base++) {
        const size_t start = strlen(PART_BASE[base]);
        if (strncmp(name, PART_BASE[base], start) != 0) continue;
        if (strstr(name, "-00001-of-") && ends(name, length, ".safetensors") &&
            (!*list->shard || strcmp(name, list->shard) < 0))
            strcpy(list->shard, name);
        for (size_t form = 0; form < COUNT(VARIANT); form++) {
            const size_t before = strlen(VARIANT[form].before), after = strlen(VARIANT[form].after);
            if (length > start + before + after && strncmp(name + start, VARIANT[form].before, before) == 0 &&
                ends(name, length, VARIANT[form].after) && !strstr(name, "-of-"))
                add_word(list, name + start + before, length - start - before - after);
        }
    }
}

/* Where a folder cannot be listed, the usual names are tried. */
static void list_part(part_list *list, const char *folder, const char *part)
{
    static const char *const usual[] = {"fp32", "fp16", "bf16", "non_ema", "ema"};
    static const char *const pickles[] = {"diffusion_pytorch_model.bin", "pytorch_model.bin"};
    char path[PATH_ROOM];
    memset(list, 0, sizeof *list);
    if (each_name(part_file(path, folder, part, ""), see_name, list)) return;
    for (size_t i = 0; i < COUNT(usual); i++)
        if (find_part(path, folder, part, usual[i])) add_word(list, usual[i], strlen(usual[i]));
    for (size_t i = 0; i < COUNT(pickles); i++)
        if (readable(part_file(path, folder, part, pickles[i]))) see_name(list, pickles[i]);
}

/* "fp16, non_ema" */
static void words_text(const part_list *list, char *out, size_t room)
{
    size_t used = 0;
    for (size_t i = 0; i < list->words && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%s", i ? ", " : "", list->word[i]);
}

/* The only variant; or, where all are roundings of the same weights, the most precise of them. Others (ema, non_ema) are
   different weights, which nobody but the user can choose between. SPEC 10.3. */
static const char *only_word(const part_list *list)
{
    static const char *const precise[] = {"fp32", "fp16", "bf16"}; /* 23, 10 and 7 bits of mantissa */
    size_t known = 0;
    const char *best = NULL;
    if (list->words == 1) return list->word[0];
    for (size_t k = 0; k < COUNT(precise); k++)
        for (size_t i = 0; i < list->words; i++) {
            if (strcmp(list->word[i], precise[k]) != 0) continue;
            if (!best) best = list->word[i];
            known++;
        }
    return known == list->words ? best : NULL;
}

/* A path on a line of its own, made printable. */
static void put_words(flis_ctx *ctx, byte_buffer *b, const char *before, const char *path)
{
    char word[PATH_ROOM], printable[PATH_ROOM];
    snprintf(printable, sizeof printable, "%s", shell_word(path, word, sizeof word));
    flis_make_printable(printable);
    bytes_put(ctx, b, before, strlen(before));
    bytes_put(ctx, b, printable, strlen(printable));
}

/* The line that converts a file of PyTorch's: "diffusion_pytorch_model.fp16.bin" becomes ….fp16.safetensors, and
   "pytorch_model.bin" model.safetensors. Appends it to the sentence. */
static void put_line(flis_ctx *ctx, byte_buffer *b, const char *folder, const char *part, const char *name)
{
    char from[PATH_ROOM], to[PATH_ROOM], target[NAME_ROOM + 16];
    const char *stem = strncmp(name, "pytorch_model", 13) == 0 ? name + 8 : name;
    snprintf(target, sizeof target, "%.*s.safetensors", (int)(strlen(stem) - 4), stem);
    put_words(ctx, b, "\n  bin/ckpt2safetensors ", part_file(from, folder, part, name));
    put_words(ctx, b, " ", part_file(to, folder, part, target));
}

/* A folder whose weights are PyTorch's files: every part's lines at once. Of shards, a line for each. SPEC 10.3. */
static bool fail_pickles(flis_ctx *ctx, const char *folder)
{
    static const char *const parts[] = {"unet", "vae", "text_encoder"};
    char path[PATH_ROOM], name[NAME_ROOM];
    byte_buffer b = {0};
    part_list list;
    for (size_t i = 0; i < COUNT(parts); i++) {
        unsigned count = 0;
        list_part(&list, folder, parts[i]);
        if (!*list.pickle || list.words || *list.shard || find_part(path, folder, parts[i], "")) continue;
        char *of = strstr(list.pickle, "-00001-of-");
        if (!of || sscanf(of, "-00001-of-%5u", &count) != 1 || count > 99) {
            put_line(ctx, &b, folder, parts[i], list.pickle);
            continue;
        }
        for (unsigned k = 1; k <= count; k++) {
            snprintf(name, sizeof name, "%.*s-%05u%s", (int)(of - list.pickle), list.pickle, k, of + 6);
            put_line(ctx, &b, folder, parts[i], name);
        }
    }
    bytes_put_u8(ctx, &b, 0);
    if (flis_ok(ctx)) {
        flis_fail(ctx, "%s: holds PyTorch's files (.bin), which must be converted first:", folder);
        const size_t used = strlen(ctx->error); /* the lines keep their ends */
        snprintf(ctx->error + used, sizeof ctx->error - used, "%s", (const char *)b.at);
    }
    free(b.at);
    return false;
}

/* Why a part has no weights that can be taken. SPEC 10.3. */
static bool fail_part(flis_ctx *ctx, const char *folder, const char *part, const part_list *list)
{
    char words[MOST_WORDS * (WORD_ROOM + 2)] = "", path[PATH_ROOM];
    const char *where = part_file(path, folder, part, "");
    words_text(list, words, sizeof words);
    if (list->words)
        return flis_fail(ctx,
                         "%s: no plain weights, but several variants: %s: choose one (--variant %s), because they may "
                         "be different weights",
                         where, words, list->word[0]);
    if (*list->pickle) return fail_pickles(ctx, folder);
    return flis_fail(ctx,
                     "%s: no weights: wanted diffusion_pytorch_model.safetensors or model.safetensors there (of .bin "
                     "files, bin/ckpt2safetensors makes them)",
                     where);
}

/* All of "…-00001-of-0000N.safetensors", which no index lists. SPEC 10.3. */
static bool append_shards(flis_ctx *ctx, flis_file *file, const char *first, flis_rename *rename_tensor, void *user)
{
    char path[PATH_ROOM];
    unsigned count = 0;
    const char *of = strstr(first, "-00001-of-");
    if (!of || sscanf(of, "-00001-of-%5u", &count) != 1 || !count)
        return flis_fail(ctx, "%s: got no number of shards in its name", first);
    for (unsigned i = 1; i <= count && flis_ok(ctx); i++) {
        snprintf(path, sizeof path, "%.*s-%05u%s", (int)(of - first), first, i, of + 6);
        flis_file_append(ctx, file, path, rename_tensor, user);
    }
    return flis_ok(ctx);
}

/* What wrappers put before every name: PyTorch's, in any file; a whole pipeline's, before diffusers' names alone. */
static const char *const WRAPPERS[] = {"module.", "_orig_mod.",    "state_dict.", "unet.",
                                       "vae.",    "text_encoder.", "model."};
enum { WRAPPERS_OF_ALL = 3 };

/* A part's names behind what all of them begin with. */
typedef struct unwrapping {
    flis_rename *rename_tensor;
    void *user;
    char prefix[64]; /* of the first name that has one */
    char other[96];  /* a name that is neither diffusers' nor the checkpoint's */
    bool seen, differ;
} unwrapping;

static bool unwrap_name(void *user, const char *name, char *out, size_t room)
{
    unwrapping *u = user;
    const char *at = name;
    while (!u->rename_tensor(u->user, at, out, room)) {
        size_t i = 0;
        while (i < COUNT(WRAPPERS) && strncmp(at, WRAPPERS[i], strlen(WRAPPERS[i])) != 0) i++;
        if (i == COUNT(WRAPPERS)) {
            const bool checkpoints = strncmp(name, UNET_PREFIX, strlen(UNET_PREFIX)) == 0 ||
                                     strncmp(name, VAE_PREFIX, strlen(VAE_PREFIX)) == 0 ||
                                     strncmp(name, "cond_stage_model.", 17) == 0;
            if (!checkpoints && strchr(name, '.')) snprintf(u->other, sizeof u->other, "%s", name);
            return false;
        }
        at += strlen(WRAPPERS[i]);
    }
    const size_t length = (size_t)(at - name);
    u->differ = u->differ || (u->seen && (strlen(u->prefix) != length || strncmp(u->prefix, name, length) != 0));
    if (!*u->prefix) snprintf(u->prefix, sizeof u->prefix, "%.*s", (int)length, name);
    u->seen = true;
    return true;
}

/* A part of a diffusers folder: the variant that was chosen, the plain weights, or the only variant, which is said.
   SPEC 10.3. */
static bool append_part(flis_ctx *ctx, flis_file *file, const char *folder, const char *part, const char *variant,
                        flis_rename *rename_tensor, void *user)
{
    char path[PATH_ROOM], where[PATH_ROOM];
    unwrapping u = {.rename_tensor = rename_tensor, .user = user};
    part_list list;
    bool shards = false;
    if (!(variant && find_part(path, folder, part, variant)) && !find_part(path, folder, part, "")) {
        list_part(&list, folder, part);
        const char *word = only_word(&list);
        shards = !word && *list.shard && !list.words;
        if (shards) part_file(path, folder, part, list.shard);
        else if (!word || !find_part(path, folder, part, word)) return fail_part(ctx, folder, part, &list);
        else
            flis_warn(ctx, "%s: no %s: took %s", part_file(where, folder, part, ""),
                      strcmp(part, "text_encoder") == 0 ? "model.safetensors" : "diffusion_pytorch_model.safetensors",
                      strrchr(path, '/') + 1);
    }
    if (shards) append_shards(ctx, file, path, unwrap_name, &u);
    else if (path_ends(path, ".json")) append_index(ctx, file, path, unwrap_name, &u);
    else flis_file_append(ctx, file, path, unwrap_name, &u);
    if (u.differ)
        return flis_fail(ctx, "%s: some names begin with \"%s\", others do not: wanted one prefix or none for all",
                         path, u.prefix);
    if (!u.seen && *u.other)
        return flis_fail(ctx, "%s: got names like \"%s\", wanted those of diffusers for %s/", path, u.other, part);
    if (*u.prefix) flis_warn(ctx, "%s: all names begin with \"%s\": read without it", path, u.prefix);
    return flis_ok(ctx);
}

/* A variant that was asked for must be there, in some part. SPEC 10.3. */
static bool check_variant(flis_ctx *ctx, const char *folder, const char *variant)
{
    static const char *const parts[] = {"unet", "vae", "text_encoder"};
    char path[PATH_ROOM], words[MOST_WORDS * (WORD_ROOM + 2)] = "";
    part_list all = {{{0}}, 0, "", "", 0}, list;
    if (!variant) return true;
    if (!is_word(variant, strlen(variant)))
        return flis_fail(ctx, "variant \"%.60s\": wanted a word like fp16, bf16 or non_ema", variant);
    for (size_t i = 0; i < COUNT(parts); i++) {
        if (find_part(path, folder, parts[i], variant)) return true;
        list_part(&list, folder, parts[i]);
        for (size_t k = 0; k < list.words; k++) add_word(&all, list.word[k], strlen(list.word[k]));
    }
    words_text(&all, words, sizeof words);
    return flis_fail(ctx, "%s: variant %s: no part has it%s%s", folder, variant,
                     all.words ? ": there are " : ": there are only plain weights", words);
}

/* A member of part/config.json: absent and null (which diffusers writes) mean `otherwise`. A list has one item for each
   level; flis computes the same at all levels, so they must be equal. */
static double number_in(flis_ctx *ctx, const char *folder, const char *part, const flis_json *config, const char *key,
                        double otherwise)
{
    const flis_json *value = flis_ok(ctx) ? flis_json_get(config, key) : NULL;
    if (value && value->type == FLIS_ARRAY && value->count) {
        const flis_json *list = value;
        value = &list->item[0];
        for (size_t i = 1; i < list->count && value->type == FLIS_NUMBER; i++) {
            if (list->item[i].type == FLIS_NUMBER && list->item[i].number == value->number) continue;
            flis_fail(
                ctx,
                "%s/%s/config.json: %s: got %.40s at level 0 and %.40s at level %zu, wanted the same at all levels",
                folder, part, key, value->literal, flis_json_got(&list->item[i]), i);
            return otherwise;
        }
    }
    if (!value || value->type == FLIS_NULL) return otherwise;
    if (value->type != FLIS_NUMBER || !(value->number > 0 && value->number <= 65536))
        flis_fail(ctx, "%s/%s/config.json: %s: got %.40s, wanted a number above 0, at most 65536", folder, part, key,
                  flis_json_got(value));
    return value->number;
}

/* A member that is a list, one item for each level; NULL where it is absent. */
static const flis_json *list_in(flis_ctx *ctx, const char *folder, const char *part, const flis_json *config,
                                const char *key, flis_json_type type)
{
    const flis_json *list = flis_ok(ctx) ? flis_json_get(config, key) : NULL;
    if (!list) return NULL;
    bool good = list->type == FLIS_ARRAY && list->count >= 1 && list->count <= FLIS_MAX_LEVELS;
    for (size_t i = 0; good && i < list->count; i++) good = list->item[i].type == type;
    if (good) return list;
    flis_fail(ctx, "%s/%s/config.json: %s: got %.40s%s, wanted a list of 1 to %d %s", folder, part, key,
              flis_json_got(list), list->type == FLIS_ARRAY ? " of something else" : "", FLIS_MAX_LEVELS,
              type == FLIS_NUMBER ? "numbers" : "names");
    return NULL;
}

static void set_number(flis_ctx *ctx, flis_file *file, const char *key, double number)
{
    char text[32];
    snprintf(text, sizeof text, "%.17g", number);
    flis_file_set_metadata(ctx, file, key, text);
}

/* Compares all of the string, not only the part before a NUL. */
static bool is_string(const flis_json *json, const char *text)
{
    return json->type == FLIS_STRING && json->length == strlen(text) && memcmp(json->string, text, json->length) == 0;
}

/* ---- Configurations of a diffusers folder ------------------------------------------------------------------------ */

/* What each key of a configuration file is to flis. A key that can change a result is never ignored: it is read, compared
   with the weights, or must have the value that flis computes. Names and defaults are those of diffusers 0.3x and
   transformers 4 and 5. docs/models.md holds the same tables; tests/sh/field_config.sh compares them. SPEC 10.3. */
typedef enum {
    CONFIG_READ,    /* read, into metadata or into the tensors' names */
    CONFIG_WEIGHTS, /* follows from the weights' shapes, which it must agree with */
    CONFIG_MUST,    /* must have the value that flis computes; null counts as absent, as false where that is wanted */
    CONFIG_LEVELS,  /* the same, or a list of that value for the levels */
    CONFIG_EXACT,   /* the same, and null is a value of its own */
    CONFIG_CLASS    /* the name of a Python class, one of those in `wanted` */
} config_rule;
typedef struct config_key {
    const char *key;
    config_rule rule;
    const char *wanted; /* JSON, alternatives separated by " or "; WEIGHTS: what derive_config finds; CLASS: names */
    const char *absent; /* what the class takes for an absent key, where that is not a wanted value */
} config_key;

static const config_key UNET_KEYS[] = {
    {"_class_name", CONFIG_CLASS, "UNet2DConditionModel FlaxUNet2DConditionModel", NULL},
    {"cross_attention_dim", CONFIG_WEIGHTS, "unet context", NULL},
    {"in_channels", CONFIG_WEIGHTS, "1 of model.diffusion_model.input_blocks.0.0.weight", NULL},
    {"out_channels", CONFIG_WEIGHTS, "0 of model.diffusion_model.out.2.weight", NULL},
    {"time_cond_proj_dim", CONFIG_MUST, "null", NULL},
    {"addition_embed_type", CONFIG_MUST, "null", NULL},
    {"class_embed_type", CONFIG_MUST, "null", NULL},
    {"num_class_embeds", CONFIG_MUST, "null", NULL},
    {"encoder_hid_dim", CONFIG_MUST, "null", NULL},
    {"encoder_hid_dim_type", CONFIG_MUST, "null", NULL},
    {"use_linear_projection", CONFIG_MUST, "false", NULL},
    {"attention_type", CONFIG_MUST, "\"default\"", NULL},
    {"attention_head_dim", CONFIG_READ, NULL, NULL},
    {"num_attention_heads", CONFIG_READ, NULL, NULL},
    {"norm_num_groups", CONFIG_READ, NULL, NULL},
    {"layers_per_block", CONFIG_READ, NULL, NULL},
    {"block_out_channels", CONFIG_WEIGHTS, "unet widths", NULL},
    {"down_block_types", CONFIG_WEIGHTS, "unet down", NULL},
    {"up_block_types", CONFIG_WEIGHTS, "unet up", NULL},
    {"mid_block_type", CONFIG_EXACT, "\"UNetMidBlock2DCrossAttn\"", NULL},
    {"time_embedding_dim", CONFIG_WEIGHTS, "0 of model.diffusion_model.time_embed.0.weight", NULL},
    {"act_fn", CONFIG_MUST, "\"silu\" or \"swish\"", NULL},
    {"norm_eps", CONFIG_MUST, "1e-05", NULL},
    {"flip_sin_to_cos", CONFIG_MUST, "true", NULL},
    {"freq_shift", CONFIG_MUST, "0", NULL},
    {"center_input_sample", CONFIG_MUST, "false", NULL},
    {"only_cross_attention", CONFIG_LEVELS, "false", NULL},
    {"mid_block_only_cross_attention", CONFIG_MUST, "null or false", NULL},
    {"dual_cross_attention", CONFIG_MUST, "false", NULL},
    {"cross_attention_norm", CONFIG_MUST, "null or false", NULL},
    {"transformer_layers_per_block", CONFIG_LEVELS, "1", NULL},
    {"reverse_transformer_layers_per_block", CONFIG_LEVELS, "null or 1", NULL},
    {"resnet_time_scale_shift", CONFIG_MUST, "\"default\"", NULL},
    {"resnet_skip_time_act", CONFIG_MUST, "false", NULL},
    {"resnet_out_scale_factor", CONFIG_MUST, "1", NULL},
    {"mid_block_scale_factor", CONFIG_MUST, "1", NULL},
    {"downsample_padding", CONFIG_MUST, "1", NULL},
    {"conv_in_kernel", CONFIG_MUST, "3", NULL},
    {"conv_out_kernel", CONFIG_MUST, "3", NULL},
    {"time_embedding_type", CONFIG_MUST, "\"positional\"", NULL},
    {"time_embedding_act_fn", CONFIG_MUST, "null", NULL},
    {"timestep_post_act", CONFIG_MUST, "null", NULL},
    {"class_embeddings_concat", CONFIG_MUST, "false", NULL},
    {"quantization_config", CONFIG_MUST, "null", NULL},
};
static const config_key VAE_KEYS[] = {
    {"_class_name", CONFIG_CLASS, "AutoencoderKL FlaxAutoencoderKL", NULL},
    {"latent_channels", CONFIG_WEIGHTS, "0 of first_stage_model.post_quant_conv.weight", NULL},
    {"in_channels", CONFIG_WEIGHTS, "1 of first_stage_model.encoder.conv_in.weight", NULL},
    {"out_channels", CONFIG_WEIGHTS, "0 of first_stage_model.decoder.conv_out.weight", NULL},
    {"block_out_channels", CONFIG_WEIGHTS, "vae widths", NULL},
    {"layers_per_block", CONFIG_WEIGHTS, "vae blocks", NULL},
    {"norm_num_groups", CONFIG_READ, NULL, NULL},
    {"scaling_factor", CONFIG_READ, NULL, NULL},
    {"shift_factor", CONFIG_MUST, "null or 0", NULL},
    {"latents_mean", CONFIG_MUST, "null", NULL},
    {"latents_std", CONFIG_MUST, "null", NULL},
    {"act_fn", CONFIG_MUST, "\"silu\" or \"swish\"", NULL},
    {"down_block_types", CONFIG_LEVELS, "\"DownEncoderBlock2D\"", NULL},
    {"up_block_types", CONFIG_LEVELS, "\"UpDecoderBlock2D\"", NULL},
    {"use_quant_conv", CONFIG_MUST, "true", NULL},
    {"use_post_quant_conv", CONFIG_MUST, "true", NULL},
    {"mid_block_add_attention", CONFIG_MUST, "true", NULL},
    {"quantization_config", CONFIG_MUST, "null", NULL},
};
static const config_key TEXT_KEYS[] = {
    {"model_type", CONFIG_CLASS, "clip_text_model clip", NULL},
    {"architectures", CONFIG_CLASS, "CLIPTextModel CLIPTextModelWithProjection CLIPModel FlaxCLIPTextModel", NULL},
    {"hidden_size", CONFIG_WEIGHTS, "1 of cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
     NULL},
    {"max_position_embeddings", CONFIG_WEIGHTS,
     "0 of cond_stage_model.transformer.text_model.embeddings.position_embedding.weight", NULL},
    {"intermediate_size", CONFIG_WEIGHTS,
     "0 of cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight", NULL},
    {"num_hidden_layers", CONFIG_WEIGHTS, "text layers", NULL},
    {"num_attention_heads", CONFIG_READ, NULL, NULL},
    {"hidden_act", CONFIG_MUST, "\"quick_gelu\"", NULL},
    {"layer_norm_eps", CONFIG_MUST, "1e-05", NULL},
    {"pruned_heads", CONFIG_MUST, "{} or null", NULL},
    {"add_cross_attention", CONFIG_MUST, "false", NULL},
    {"quantization_config", CONFIG_MUST, "null", NULL},
};
static const config_key SCHEDULER_KEYS[] = {
    {"_class_name", CONFIG_CLASS,
     "PNDMScheduler DDIMScheduler DDPMScheduler LMSDiscreteScheduler EulerDiscreteScheduler "
     "EulerAncestralDiscreteScheduler HeunDiscreteScheduler DPMSolverMultistepScheduler DPMSolverSinglestepScheduler "
     "DPMSolverSDEScheduler KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler DEISMultistepScheduler "
     "UniPCMultistepScheduler SASolverScheduler DDIMParallelScheduler DDPMParallelScheduler DDIMInverseScheduler "
     "DPMSolverMultistepInverseScheduler FlaxPNDMScheduler FlaxDDIMScheduler FlaxDDPMScheduler "
     "FlaxLMSDiscreteScheduler FlaxEulerDiscreteScheduler FlaxDPMSolverMultistepScheduler",
     NULL},
    {"prediction_type", CONFIG_MUST, "\"epsilon\"", NULL},
    {"predict_epsilon", CONFIG_MUST, "true", NULL},
    {"beta_schedule", CONFIG_MUST, "\"scaled_linear\"", "\"linear\""},
    {"beta_start", CONFIG_MUST, "0.00085", "0.0001"},
    {"beta_end", CONFIG_MUST, "0.012", "0.02"},
    {"num_train_timesteps", CONFIG_MUST, "1000", NULL},
    {"trained_betas", CONFIG_MUST, "null", NULL},
    {"rescale_betas_zero_snr", CONFIG_MUST, "false", NULL},
    {"snr_shift_scale", CONFIG_MUST, "1", NULL},
    {"thresholding", CONFIG_MUST, "false", NULL},
    {"variance_type", CONFIG_MUST,
     "null or \"fixed_small\" or \"fixed_small_log\" or \"fixed_large\" or \"fixed_large_log\"", NULL},
    {"timestep_type", CONFIG_MUST, "\"discrete\"", NULL},
    {"sigma_min", CONFIG_MUST, "null", NULL},
    {"sigma_max", CONFIG_MUST, "null", NULL},
    {"sigma_data", CONFIG_MUST, "null", NULL},
    {"use_flow_sigmas", CONFIG_MUST, "false", NULL},
};

/* The rows of a file, and the keys that change nothing that flis computes: sizes and sampling that are options of `flis
   generate`, training, storage, and what transformers writes about generating text. */
typedef struct config_file {
    const char *path;
    const config_key *key;
    size_t keys;
    const char *harmless;
} config_file;
static const config_file CONFIG_UNET = {
    "unet/config.json", UNET_KEYS, COUNT(UNET_KEYS),
    "sample_size dropout upcast_attention addition_embed_type_num_heads addition_time_embed_dim "
    "projection_class_embeddings_input_dim decay inv_gamma min_decay optimization_step power update_after_step "
    "use_ema_warmup dtype torch_dtype"};
static const config_file CONFIG_VAE = {"vae/config.json", VAE_KEYS, COUNT(VAE_KEYS),
                                       "sample_size force_upcast dropout dtype torch_dtype"};
static const config_file CONFIG_TEXT = {
    "text_encoder/config.json", TEXT_KEYS, COUNT(TEXT_KEYS),
    "vocab_size bos_token_id eos_token_id pad_token_id sep_token_id projection_dim attention_dropout dropout "
    "initializer_factor initializer_range gradient_checkpointing use_cache transformers_version torch_dtype dtype "
    "logit_scale_init_value text_config text_config_dict vision_config vision_config_dict bad_words_ids "
    "begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id "
    "diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty "
    "finetuning_task forced_bos_token_id forced_eos_token_id id2label is_decoder is_encoder_decoder label2id "
    "length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_labels "
    "num_return_sequences output_attentions output_hidden_states output_scores prefix problem_type "
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate suppress_tokens "
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k "
    "top_p torchscript typical_p use_bfloat16 attn_implementation experts_implementation name_or_path"};
static const config_file CONFIG_SCHEDULER = {
    "scheduler/scheduler_config.json", SCHEDULER_KEYS, COUNT(SCHEDULER_KEYS),
    "set_alpha_to_one steps_offset skip_prk_steps timestep_spacing clip_sample clip_sample_range "
    "dynamic_thresholding_ratio sample_max_value interpolation_type use_karras_sigmas use_exponential_sigmas "
    "use_beta_sigmas use_lu_lambdas final_sigmas_type euler_at_final lower_order_final lambda_min_clipped solver_order "
    "solver_type solver_p algorithm_type predict_x0 disable_corrector predictor_order corrector_order tau_func rho "
    "flow_shift use_dynamic_shifting time_shift_type noise_sampler_seed timestep_values tensor_format dtype"};

/* Names of classes and of components that belong to other models, by their beginnings. */
static const struct {
    const char *name, *kind;
} OTHER_CLASSES[] = {
    {"StableDiffusionXL", "Stable Diffusion XL"},
    {"StableDiffusion3", "Stable Diffusion 3"},
    {"StableDiffusionInstructPix2Pix", "InstructPix2Pix"},
    {"StableDiffusionDepth2Img", "the depth-to-image model of Stable Diffusion 2"},
    {"StableDiffusionUpscale", "Stable Diffusion's upscaler"},
    {"StableDiffusionLatentUpscale", "the latent upscaler"},
    {"StableDiffusionImageVariation", "an image variations model, conditioned on pictures"},
    {"StableDiffusionGLIGEN", "GLIGEN"},
    {"StableDiffusionLDM3D", "LDM3D"},
    {"StableUnCLIP", "unCLIP"},
    {"UnCLIP", "unCLIP"},
    {"StableVideo", "Stable Video Diffusion"},
    {"StableCascade", "Stable Cascade"},
    {"Wuerstchen", "Wuerstchen"},
    {"LatentConsistencyModel", "a latent consistency model (LCM)"},
    {"LCM", "a latent consistency model (LCM)"},
    {"TCD", "a trajectory consistency model (TCD)"},
    {"CMStochastic", "a consistency model"},
    {"ConsistencyModel", "a consistency model"},
    {"ConsistencyDecoder", "a consistency decoder"},
    {"FlowMatch", "a flow matching model (Stable Diffusion 3, FLUX)"},
    {"Flux", "FLUX"},
    {"EDM", "an EDM model"},
    {"PixArt", "PixArt"},
    {"Kandinsky", "Kandinsky"},
    {"AnimateDiff", "AnimateDiff, a video model"},
    {"TextToVideo", "a video model"},
    {"UNet3D", "a video model"},
    {"UNetMotion", "AnimateDiff, a video model"},
    {"UNetSpatioTemporal", "Stable Video Diffusion"},
    {"AltDiffusion", "AltDiffusion"},
    {"RobertaSeries", "AltDiffusion"},
    {"VersatileDiffusion", "Versatile Diffusion"},
    {"LDMTextToImage", "the latent diffusion model before Stable Diffusion"},
    {"LDMBert", "the latent diffusion model before Stable Diffusion"},
    {"IFPipeline", "DeepFloyd IF"},
    {"AutoencoderTiny", "the tiny autoencoder (TAESD)"},
    {"AsymmetricAutoencoder", "the asymmetric autoencoder"},
    {"AutoencoderKLTemporal", "Stable Video Diffusion"},
    {"VQModel", "a VQ autoencoder"},
    {"ControlNet", "a ControlNet"},
    {"T5", "a T5 text encoder"},
    {"t5", "a T5 text encoder"},
    {"CLIPVision", "a vision encoder"},
    {"clip_vision", "a vision encoder"},
};
static const struct {
    const char *name, *kind;
} OTHER_COMPONENTS[] = {
    {"transformer", "a diffusion transformer (Stable Diffusion 3, FLUX, PixArt)"},
    {"text_encoder_2", "Stable Diffusion XL or 3, with more than one text encoder"},
    {"text_encoder_3", "Stable Diffusion 3"},
    {"motion_adapter", "AnimateDiff, a video model"},
    {"depth_estimator", "the depth-to-image model of Stable Diffusion 2"},
    {"low_res_scheduler", "Stable Diffusion's upscaler"},
    {"image_normalizer", "unCLIP"},
    {"prior", "a model with a prior (unCLIP, Kandinsky, Stable Cascade)"},
    {"vqvae", "the latent diffusion model before Stable Diffusion"},
    {"bert", "the latent diffusion model before Stable Diffusion"},
};
static const char WANTED_MODEL[] = "Stable Diffusion v1 or FreestyleNet";

/* A value as JSON, cut where it does not fit. */
static size_t json_text(const flis_json *json, char *out, size_t room)
{
    size_t used = 0;
    if (!room) return 0;
    if (json && json->type == FLIS_STRING) used = (size_t)snprintf(out, room, "\"%.60s\"", json->string);
    else if (json && json->type == FLIS_OBJECT && !json->count) used = (size_t)snprintf(out, room, "{}");
    else if (!json || json->type != FLIS_ARRAY) used = (size_t)snprintf(out, room, "%.40s", flis_json_got(json));
    else {
        used = (size_t)snprintf(out, room, "[");
        for (size_t i = 0; i < json->count && used + 8 < room; i++) {
            if (i) used += (size_t)snprintf(out + used, room - used, ", ");
            used += json_text(&json->item[i], out + used, room - used);
        }
        if (used < room) used += (size_t)snprintf(out + used, room - used, "]");
    }
    return used < room ? used : room - 1;
}

/* Whether a value is what a wanted one means: numbers are compared as numbers, in float32 (a file may hold the float32's
   digits); true is 1 and false is 0, as in Python, where null is false as well. */
static bool json_equal(const flis_json *value, const flis_json *wanted)
{
    const bool number = value->type == FLIS_NUMBER || value->type == FLIS_TRUE || value->type == FLIS_FALSE;
    const double x = value->type == FLIS_NUMBER ? value->number : value->type == FLIS_TRUE;
    switch (wanted->type) {
    case FLIS_NULL: return value->type == FLIS_NULL;
    case FLIS_TRUE: return number && x == 1;
    case FLIS_FALSE: return value->type == FLIS_NULL || (number && x == 0);
    case FLIS_NUMBER: return number && fabs(x) < 3e38 && (float)x == (float)wanted->number;
    case FLIS_STRING:
        return value->type == FLIS_STRING && value->length == wanted->length &&
               memcmp(value->string, wanted->string, wanted->length) == 0;
    default: break;
    }
    if (value->type != wanted->type || value->count != wanted->count) return false;
    for (size_t i = 0; i < value->count; i++)
        if (value->type == FLIS_OBJECT || !json_equal(&value->item[i], &wanted->item[i])) return false;
    return true;
}

/* One of the alternatives in `wanted`. */
static bool is_wanted(const flis_json *value, const char *wanted)
{
    bool found = false;
    for (const char *next, *at = wanted; at && !found; at = next ? next + 4 : NULL) {
        flis_ctx quiet = FLIS_CTX_PLAIN;
        next = strstr(at, " or ");
        flis_json *json = flis_json_parse(&quiet, "wanted", at, next ? (size_t)(next - at) : strlen(at));
        found = json && json_equal(value, json);
        flis_json_free(json);
    }
    return found;
}

/* A value, or lists of it, which are not empty. */
static bool is_wanted_everywhere(const flis_json *value, const char *wanted)
{
    if (value->type != FLIS_ARRAY || !value->count) return is_wanted(value, wanted);
    for (size_t i = 0; i < value->count; i++)
        if (!is_wanted_everywhere(&value->item[i], wanted)) return false;
    return true;
}

static bool is_word_of(const char *words, const char *word, size_t length)
{
    if (!length || strchr(word, ' ')) return false;
    for (const char *at = words; (at = strstr(at, word)) != NULL; at++)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || !at[length])) return true;
    return false;
}

/* The kind of another model that a class' name belongs to; NULL: none that flis knows. */
static const char *kind_of_class(const char *name)
{
    if (strncmp(name, "Flax", 4) == 0 || strncmp(name, "Onnx", 4) == 0) name += 4;
    for (size_t i = 0; i < COUNT(OTHER_CLASSES); i++)
        if (strncmp(name, OTHER_CLASSES[i].name, strlen(OTHER_CLASSES[i].name)) == 0) return OTHER_CLASSES[i].kind;
    return NULL;
}

/* A class' name, or a list of them, must be among `names`; the sentence lists the first. */
static bool check_class(flis_ctx *ctx, const char *path, const char *key, const flis_json *value, const char *names)
{
    char got[128];
    if (value->type == FLIS_ARRAY) {
        for (size_t i = 0; i < value->count; i++)
            if (!check_class(ctx, path, key, &value->item[i], names)) return false;
        return true;
    }
    if (value->type == FLIS_NULL) return true;
    const bool text = value->type == FLIS_STRING && strlen(value->string) == value->length;
    if (text && is_word_of(names, value->string, value->length)) return true;
    const char *kind = text ? kind_of_class(value->string) : NULL;
    json_text(value, got, sizeof got);
    return flis_fail(ctx, "%s: %s: got %s%s%s, wanted \"%.*s\"%s", path, key, got, kind ? ", the class of " : "",
                     kind ? kind : "", (int)strcspn(names, " "), names,
                     strstr(names, "DDIM") ? " or another scheduler of the same noise" : "");
}

/* One key of a file against its row; `value` is NULL where it is absent. */
static bool check_key(flis_ctx *ctx, const char *path, const config_key *row, const flis_json *value)
{
    char got[160];
    if (row->rule == CONFIG_CLASS) return !value || check_class(ctx, path, row->key, value, row->wanted);
    if (row->rule == CONFIG_READ || row->rule == CONFIG_WEIGHTS) return true;
    const bool boolean = strstr(row->wanted, "true") || strstr(row->wanted, "false");
    const bool absent = !value || (value->type == FLIS_NULL && !boolean && row->rule != CONFIG_EXACT);
    if (absent && !row->absent) return true;
    if (absent)
        return flis_fail(ctx, "%s: %s: got nothing, which means %s to diffusers, wanted %s", path, row->key,
                         row->absent, row->wanted);
    if (row->rule == CONFIG_LEVELS ? is_wanted_everywhere(value, row->wanted) : is_wanted(value, row->wanted))
        return true;
    json_text(value, got, sizeof got);
    return flis_fail(ctx, "%s: %s: got %s, wanted %s", path, row->key, got, row->wanted);
}

/* The keys that no row and no list names, in one warning. Those that begin with _ are diffusers' own notes. */
static void warn_of_unknown_keys(flis_ctx *ctx, const char *path, const config_file *file, const flis_json *config)
{
    char list[512] = "";
    size_t used = 0, more = 0;
    for (size_t i = 0; i < config->count; i++) {
        const flis_json *key = &config->key[i];
        bool known = key->string[0] == '_' || is_word_of(file->harmless, key->string, key->length) ||
                     flis_json_get(config, key->string) != &config->item[i];
        for (size_t k = 0; k < file->keys && !known; k++) known = is_string(key, file->key[k].key);
        if (known) continue;
        if (used + key->length + 3 >= sizeof list) more++;
        else used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", key->string);
    }
    if (used && more) flis_warn(ctx, "%s: keys that flis does not know, ignored: %s and %zu more", path, list, more);
    else if (used) flis_warn(ctx, "%s: keys that flis does not know, ignored: %s", path, list);
    else if (more) flis_warn(ctx, "%s: %zu keys that flis does not know, ignored", path, more);
}

/* Every key of one configuration file. SPEC 10.3. */
static bool check_config(flis_ctx *ctx, const char *folder, const config_file *file, const flis_json *config)
{
    char path[PATH_ROOM];
    path_in(path, folder, strlen(folder), file->path);
    for (size_t i = 0; config && i < file->keys; i++)
        if (!check_key(ctx, path, &file->key[i], flis_json_get(config, file->key[i].key))) return false;
    if (config) warn_of_unknown_keys(ctx, path, file, config);
    return flis_ok(ctx);
}

/* The levels of a U-Net, as its tensors show them. */
typedef struct unet_levels {
    size_t levels, blocks, width[FLIS_MAX_LEVELS];
    bool down[FLIS_MAX_LEVELS], up[FLIS_MAX_LEVELS]; /* with attention; up_blocks from the coarsest level on */
} unet_levels;

static void find_levels(const flis_file *file, unet_levels *u)
{
    static const char blocks[] = "model.diffusion_model.input_blocks";
    char name[96];
    size_t level = 0, count = 0;
    memset(u, 0, sizeof *u);
    for (size_t i = 1; level < FLIS_MAX_LEVELS; i++) {
        snprintf(name, sizeof name, "%s.%zu.0.in_layers.2.weight", blocks, i);
        const flis_entry *res = flis_file_find(file, name);
        snprintf(name, sizeof name, "%s.%zu.0.op.", blocks, i);
        if (!res && !flis_file_any(file, name)) break;
        if (!res) {
            level++;
            count = 0;
            continue;
        }
        if (!u->width[level]) u->width[level] = (size_t)res->shape[0];
        if (++count > u->blocks) u->blocks = count;
        u->levels = level + 1;
        snprintf(name, sizeof name, "%s.%zu.1.transformer_blocks.", blocks, i);
        if (flis_file_any(file, name)) u->down[level] = true;
    }
    for (size_t i = 0; i < u->levels; i++) {
        snprintf(name, sizeof name, "model.diffusion_model.output_blocks.%zu.1.transformer_blocks.",
                 i * (u->blocks + 1));
        u->up[i] = flis_file_any(file, name);
    }
}

/* The value of a key of rule WEIGHTS, as JSON; false: the weights that determine it are not there. */
static bool derive_config(const flis_file *file, const char *what, char *out, size_t room)
{
    unet_levels u;
    char name[128];
    size_t used = 0, count = 0, items = 0;
    const bool names = strcmp(what, "unet down") == 0 || strcmp(what, "unet up") == 0;
    if (strncmp(what + 1, " of ", 4) == 0 || strcmp(what, "unet context") == 0) {
        const bool context = what[0] == 'u';
        const int dimension = context ? 1 : what[0] - '0';
        const flis_entry *e = flis_file_find(
            file, context ? "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight" : what + 5);
        if (!e || e->rank <= dimension) return false;
        return snprintf(out, room, "%llu", (unsigned long long)e->shape[dimension]) > 0;
    }
    if (strcmp(what, "text layers") == 0 || strcmp(what, "vae blocks") == 0) {
        const bool text = what[0] == 't';
        for (;; count++) {
            snprintf(name, sizeof name, "%s.%zu.",
                     text ? "cond_stage_model.transformer.text_model.encoder.layers"
                          : "first_stage_model.decoder.up.0.block",
                     count);
            if (!flis_file_any(file, name)) break;
        }
        if (count < (text ? 1 : 2)) return false;
        return snprintf(out, room, "%zu", text ? count : count - 1) > 0;
    }
    find_levels(file, &u);
    out[used++] = '[';
    for (; items < FLIS_MAX_LEVELS && used + 32 < room; items++) {
        snprintf(name, sizeof name, "first_stage_model.decoder.up.%zu.block.0.norm2.weight", items);
        const flis_entry *e = what[0] == 'v' ? flis_file_find(file, name) : NULL;
        if (what[0] == 'v' ? !e : items >= u.levels) break;
        used += (size_t)snprintf(out + used, room - used, "%s", items ? ", " : "");
        if (names) {
            const bool down = what[5] == 'd';
            used += (size_t)snprintf(out + used, room - used, "\"%s%sBlock2D\"",
                                     (down ? u.down : u.up)[items] ? "CrossAttn" : "", down ? "Down" : "Up");
        } else
            used += (size_t)snprintf(out + used, room - used, "%llu",
                                     e ? (unsigned long long)e->shape[0] : (unsigned long long)u.width[items]);
    }
    snprintf(out + used, room - used, "]");
    return items > 0;
}

/* A configuration says of the weights what they show: a file that asks for 11 layers of a text encoder that has 12 (to
   skip the last) changes the result. */
static bool check_against_weights(flis_ctx *ctx, const flis_file *file, const char *path, const config_file *rows,
                                  const flis_json *config)
{
    char wanted[320], got[320];
    for (size_t i = 0; i < rows->keys; i++) {
        const config_key *row = &rows->key[i];
        const flis_json *value = row->rule == CONFIG_WEIGHTS ? flis_json_get(config, row->key) : NULL;
        if (!value || value->type == FLIS_NULL || !derive_config(file, row->wanted, wanted, sizeof wanted) ||
            (wanted[0] == '[' ? is_wanted : is_wanted_everywhere)(value, wanted))
            continue;
        json_text(value, got, sizeof got);
        return flis_fail(ctx, "%s: %s: got %s, wanted %s, which the weights have", path, row->key, got, wanted);
    }
    return true;
}

/* A configuration file. NULL: failed, or it is absent and may be. */
static flis_json *read_config(flis_ctx *ctx, const char *folder, const char *name, bool required)
{
    char path[PATH_ROOM];
    if (!flis_ok(ctx) || (!readable(path_in(path, folder, strlen(folder), name)) && !required)) return NULL;
    return read_json(ctx, path);
}

/* transformers' CLIPConfig has the text encoder's keys in text_config. */
static const flis_json *text_config_in(const flis_json *config)
{
    const flis_json *inner = config ? flis_json_get(config, "text_config") : NULL;
    return inner && inner->type == FLIS_OBJECT && !flis_json_get(config, "hidden_size") ? inner : config;
}

/* A size that belongs to another model, in its configuration or in its weights. */
static const struct {
    const config_file *file;
    const char *key, *tensor;
    int dimension;
    uint64_t value;
    const char *kind;
} OTHER_SIZES[] = {
#define UNET "model.diffusion_model."
#define TEXT "cond_stage_model.transformer.text_model.embeddings."
#define CONTEXT "cross_attention_dim", UNET "middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1
#define INPUT "in_channels", UNET "input_blocks.0.0.weight", 1
    {&CONFIG_UNET, INPUT, 9, "an inpainting model (9 input channels)"},
    {&CONFIG_UNET, CONTEXT, 1024, "Stable Diffusion 2 (text features 1024 wide)"},
    {&CONFIG_UNET, CONTEXT, 2048, "Stable Diffusion XL (text features 2048 wide)"},
    {&CONFIG_UNET, CONTEXT, 1280,
     "Stable Diffusion XL's refiner, or a latent diffusion model before Stable Diffusion (text features 1280 wide)"},
    {&CONFIG_UNET, INPUT, 8, "InstructPix2Pix, or the latent upscaler (8 input channels)"},
    {&CONFIG_UNET, INPUT, 7, "Stable Diffusion's upscaler (7 input channels)"},
    {&CONFIG_UNET, INPUT, 5, "the depth-to-image model (5 input channels)"},
    {&CONFIG_UNET, INPUT, 16, "Stable Diffusion 3 or a model like it (16 input channels)"},
    {&CONFIG_TEXT, "hidden_size", TEXT "token_embedding.weight", 1, 1024, "Stable Diffusion 2 (OpenCLIP ViT-H)"},
    {&CONFIG_TEXT, "hidden_size", TEXT "token_embedding.weight", 1, 1280, "Stable Diffusion XL (OpenCLIP ViT-bigG)"},
    {&CONFIG_TEXT, "max_position_embeddings", TEXT "position_embedding.weight", 0, 248,
     "a model with Long-CLIP's text encoder (248 positions, not 77)"},
#undef CONTEXT
#undef INPUT
#undef TEXT
};

/* Tensors that other models have: a beginning of their names, or with * a piece of them. */
static const struct {
    const char *name, *kind;
} OTHER_TENSORS[] = {
    {"conditioner.embedders.", "Stable Diffusion XL"},
    {"add_embedding.", "Stable Diffusion XL, or another model with added conditions"},
    {"text_encoders.", "Stable Diffusion 3 or FLUX"},
    {UNET "joint_blocks.", "Stable Diffusion 3"},
    {"joint_blocks.", "Stable Diffusion 3"},
    {UNET "double_blocks.", "FLUX"},
    {"double_blocks.", "FLUX"},
    {"single_transformer_blocks.", "FLUX"},
    {UNET "adaln_single.", "PixArt"},
    {"adaln_single.", "PixArt"},
    {UNET "clip_txt_mapper.", "Stable Cascade"},
    {"clip_txt_mapper.", "Stable Cascade"},
    {UNET "clip_txt_pooled_mapper.", "Stable Cascade"},
    {"clip_txt_pooled_mapper.", "Stable Cascade"},
    {UNET "effnet_mapper.", "Stable Cascade"},
    {"encoder_hid_proj.", "Kandinsky, DeepFloyd IF, or another model with projected conditions"},
    {UNET "time_embed.cond_proj.", "a latent consistency model (LCM)"},
    {UNET "time_embedding.cond_proj.", "a latent consistency model (LCM)"},
    {"time_embedding.cond_proj.", "a latent consistency model (LCM)"},
    {"embedder.model.visual.", "unCLIP"},
    {UNET "label_emb.", "a model with class or size embeddings (Stable Diffusion XL, an upscaler, unCLIP)"},
    {"class_embedding.", "a model with class embeddings (an upscaler, unCLIP)"},
    {"cond_stage_model.model.visual.", "an image variations model, conditioned on pictures"},
    {"cond_stage_model.model.", "Stable Diffusion 2 (its text encoder is OpenCLIP's)"},
    {"cond_stage_model.transformer.token_emb.", "the latent diffusion model before Stable Diffusion"},
    {"brushnet.", "BrushNet"},
    {"conv_in_condition.", "BrushNet"},
    {"*motion_modules.", "AnimateDiff, a video model"},
    {"*.time_stack.", "Stable Video Diffusion"},
    {"*.temporal_transformer_block", "Stable Video Diffusion"},
    {"*.temp_convs.", "a video model"},
    {"*.fuser.", "GLIGEN"},
    {"position_net.", "GLIGEN"},
    {"*positional_embedding_res", "a model with Long-CLIP's text encoder"},
    {"*position_embedding_res", "a model with Long-CLIP's text encoder"},
    {"v_pred", "a model that predicts v, not the noise (prediction_type v, not epsilon)"},
    {"ztsnr", "a model trained with zero terminal SNR, another noise schedule"},
    {"edm_mean", "an EDM model, with another noise schedule"},
    {"edm_std", "an EDM model, with another noise schedule"},
    {"edm_vpred.", "an EDM model that predicts v, not the noise"},
#undef UNET
};

/* Metadata of a file: what each key must say, in lower case, one of several words. A key that ends with * needs a value
   that only begins so. Keys of modelspec (kohya, ComfyUI, InvokeAI), of kohya's training (ss_), of other programs. */
static const struct {
    const char *key, *wanted;
} METADATA_MUST[] = {
    {"modelspec.prediction_type", "epsilon eps"},
    {"modelspec.predict_key", "epsilon eps"},
    {"modelspec.predict_type", "epsilon eps"},
    {"prediction_type", "epsilon eps"},
    {"ss_v2", "false 0 none"},
    {"ss_v_parameterization", "false 0 none"},
    {"ss_zero_terminal_snr", "false 0 none"},
    {"v_pred", "false 0 none"},
    {"ztsnr", "false 0 none"},
    {"ss_base_model_version", "sd_v1 sd_1.5 sd_1 sd1 sd15 sd_v1.5 sd_v1-5 none"},
};

/* The other model that modelspec.architecture names, in lower case; latents: its autoencoder's are not v1's. */
static const struct {
    const char *piece, *kind;
    bool latents;
} ARCHITECTURES[] = {
    {"/lora", "a LoRA", false},
    {"lycoris", "a LoRA", false},
    {"/textual-inversion", "an embedding", false},
    {"control", "a ControlNet", false},
    {"-xl", "Stable Diffusion XL", true},
    {"sdxl", "Stable Diffusion XL", true},
    {"inpaint", "an inpainting model", false},
    {"unclip", "unCLIP", false},
    {"video", "Stable Video Diffusion", true},
    {"cascade", "Stable Cascade", true},
    {"diffusion-v2", "Stable Diffusion 2", false},
    {"diffusion-2", "Stable Diffusion 2", false},
    {"sd2", "Stable Diffusion 2", false},
    {"diffusion-v3", "Stable Diffusion 3", true},
    {"diffusion-3", "Stable Diffusion 3", true},
    {"sd3", "Stable Diffusion 3", true},
    {"sd_3", "Stable Diffusion 3", true},
    {"flux", "FLUX", true},
};

/* A value of metadata in lower case, cut to the room; its length. */
static size_t lower_text(const char *value, char *out, size_t room)
{
    size_t n = 0;
    for (; value[n] && n + 1 < room; n++)
        out[n] = value[n] >= 'A' && value[n] <= 'Z' ? (char)(value[n] + 'a' - 'A') : value[n];
    out[n] = 0;
    return n;
}

/* The row of ARCHITECTURES for a value in lower case; COUNT: none. */
static size_t architecture_of(const char *lower)
{
    size_t i = 0;
    while (i < COUNT(ARCHITECTURES) && !strstr(lower, ARCHITECTURES[i].piece)) i++;
    return i;
}

/* "stable-diffusion-v1", "stable-diffusion-v1-5", "sd1.5"…, without an adapter's "/lora". */
static bool is_v1_architecture(const char *lower)
{
    static const char *const begins[] = {"stable-diffusion-v1", "stable-diffusion-1", "sd-v1", "sd1", "sd_v1"};
    if (!*lower) return true;
    if (strchr(lower, '/') || strstr(lower, "inpaint")) return false;
    for (size_t i = 0; i < COUNT(begins); i++) {
        const char *rest = lower + strlen(begins[i]);
        if (strncmp(lower, begins[i], strlen(begins[i])) == 0 && (!*rest || strchr(".-_5", *rest))) return true;
    }
    return false;
}

/* One pair of metadata. Settings for which a model was made but with which it can be run otherwise are warned of. */
static bool check_metadata(flis_ctx *ctx, const char *path, const char *key, const char *value)
{
    char lower[96];
    const size_t n = lower_text(value, lower, sizeof lower);
    for (size_t i = 0; i < COUNT(METADATA_MUST); i++)
        if (strcmp(key, METADATA_MUST[i].key) == 0 && n && !is_word_of(METADATA_MUST[i].wanted, lower, n))
            return flis_fail(ctx, "%s: metadata %s: got \"%.60s\", wanted \"%.*s\" (flis computes %s)", path, key,
                             value, (int)strcspn(METADATA_MUST[i].wanted, " "), METADATA_MUST[i].wanted, WANTED_MODEL);
    if (strcmp(key, "modelspec.architecture") == 0 && !is_v1_architecture(lower)) {
        const size_t row = architecture_of(lower);
        const char *kind = row < COUNT(ARCHITECTURES) ? ARCHITECTURES[row].kind : NULL;
        return flis_fail(ctx, "%s: metadata %s: got \"%.60s\"%s%s%s, wanted \"stable-diffusion-v1\" (flis computes %s)",
                         path, key, value, kind ? " (" : "", kind ? kind : "", kind ? ")" : "", WANTED_MODEL);
    }
    if ((strcmp(key, "modelspec.encoder_layer") == 0 || strcmp(key, "ss_clip_skip") == 0) && n &&
        !is_word_of("1 none 0", lower, n))
        flis_warn(ctx,
                  "%s: metadata %s: \"%.20s\": the model was trained on an earlier layer of its text encoder; "
                  "flis uses the last one",
                  path, key, value);
    return true;
}

/* The buffers of a checkpoint that the authors' code computes with: alphas_cumprod (plms.py, ddim.py make_schedule) and
   scale_factor (ddpm.py decode_first_stage). They may have been rounded, at most to BF16's 8 bits. SPEC 10.3. */
static bool check_buffers(flis_ctx *ctx, flis_file *file)
{
    static const char *const names[] = {"alphas_cumprod", "scale_factor"};
    if (!flis_file_find(file, names[0]) && !flis_file_find(file, names[1])) return true;
    const double scale = flis_file_number(ctx, file, "vae.scale_factor", false, 0.18215);
    flis_schedule *schedule = flis_alloc(ctx, 1, sizeof *schedule);
    flis_schedule_make(schedule);
    for (size_t k = 0; k < COUNT(names) && flis_ok(ctx); k++) {
        double got[FLIS_TIMESTEPS];
        const size_t count = k ? 1 : FLIS_TIMESTEPS;
        const double *want = k ? &scale : schedule->alpha_bar;
        const flis_entry *e = flis_file_find(file, names[k]);
        if (e && (flis_entry_count(e) != count || e->dtype > FLIS_BF16))
            flis_fail(ctx, "%s: tensor \"%s\": got %llu values of %.40s, wanted %zu of F32", file->path, names[k],
                      (unsigned long long)flis_entry_count(e), flis_entry_dtype(e), count);
        size_t i = e && flis_ok(ctx) && flis_file_read_f64(ctx, file, e, got) ? 0 : count;
        while (i < count && fabs(got[i] - want[i]) <= want[i] / 256) i++;
        if (i < count)
            flis_fail(ctx, "%s: tensor \"%s\": value %zu: got %.9g, wanted %.9g%s", file->path, names[k], i, got[i],
                      want[i],
                      k ? ", vae.scale_factor (0.18215 where none is stated; bin/ckpt2safetensors --set writes one)"
                        : ": its noise schedule is not Stable Diffusion v1's");
    }
    free(schedule);
    return flis_ok(ctx);
}

/* Refuses a model of another kind, by the names and sizes of its tensors, by its metadata, and by its buffers.
   SPEC 10.3. */
bool flis_model_check(flis_ctx *ctx, flis_file *file)
{
    if (!flis_given(ctx, file, "model: its file")) return false;
    for (size_t i = 0; i < COUNT(OTHER_TENSORS); i++) {
        const char *name = OTHER_TENSORS[i].name, *found = NULL;
        const bool piece = *name == '*', whole = !strchr(name, '.');
        for (size_t k = 0; piece && k < file->count && !found; k++)
            if (strstr(file->entry[k].name, name + 1)) found = file->entry[k].name;
        if (piece ? !found : whole ? !flis_file_find(file, name) : !flis_file_any(file, name)) continue;
        return flis_fail(ctx, "%s: is %s, wanted %s (it has the tensor%s %.200s%s)", file->path, OTHER_TENSORS[i].kind,
                         WANTED_MODEL, piece || whole ? "" : "s", found ? found : name, piece || whole ? "" : "*");
    }
    for (size_t i = 0; i < COUNT(OTHER_SIZES); i++) {
        const flis_entry *e = flis_file_find(file, OTHER_SIZES[i].tensor);
        const int d = OTHER_SIZES[i].dimension;
        if (!e || e->rank <= d || e->shape[d] != OTHER_SIZES[i].value) continue;
        return flis_fail(ctx, "%s: is %s, wanted %s (shape of %s)", file->path, OTHER_SIZES[i].kind, WANTED_MODEL,
                         e->name);
    }
    /* An adapter alone is no model, whatever its metadata says of the model that it is for. */
    const bool adapter =
        flis_file_metadata(file, "ss_network_module") && !flis_file_any(file, "model.diffusion_model.");
    for (size_t i = 0; i < file->metadata_count && !adapter; i++)
        if (!check_metadata(ctx, file->path, file->metadata[2 * i], file->metadata[2 * i + 1])) return false;
    return check_buffers(ctx, file);
}

/* model_index.json: the pipeline's class and those of the components, [library, class] each; [null, null] is none. */
static bool check_index(flis_ctx *ctx, const char *folder)
{
    static const char harmless[] = "_class_name safety_checker feature_extractor tokenizer image_encoder "
                                   "requires_safety_checker force_zeros_for_empty_prompt";
    static const struct {
        const char *key;
        const config_file *file;
    } parts[] = {
        {"unet", &CONFIG_UNET}, {"vae", &CONFIG_VAE}, {"text_encoder", &CONFIG_TEXT}, {"scheduler", &CONFIG_SCHEDULER}};
    char path[PATH_ROOM];
    flis_json *index = read_config(ctx, folder, "model_index.json", false);
    path_in(path, folder, strlen(folder), "model_index.json");
    const flis_json *name = index && flis_ok(ctx) ? flis_json_get(index, "_class_name") : NULL;
    if (name && name->type == FLIS_ARRAY && name->count) name = &name->item[name->count - 1]; /* [file, class] */
    const char *text = name && name->type == FLIS_STRING ? name->string : "";
    const char *kind = kind_of_class(text);
    if (kind)
        flis_fail(ctx, "%s: _class_name: got \"%.60s\", the pipeline of %s, wanted %s", path, text, kind, WANTED_MODEL);
    if (*text && !strstr(text, "StableDiffusion"))
        flis_warn(ctx, "%s: _class_name: \"%.60s\" a pipeline that flis does not know; read as %s", path, text,
                  WANTED_MODEL);
    for (size_t i = 0; index && flis_ok(ctx) && i < index->count; i++) {
        const flis_json *key = &index->key[i], *value = &index->item[i];
        const bool pair = value->type == FLIS_ARRAY && value->count == 2;
        if (pair) value = &value->item[1];
        bool known =
            value->type == FLIS_NULL || key->string[0] == '_' || is_word_of(harmless, key->string, key->length);
        for (size_t k = 0; k < COUNT(OTHER_COMPONENTS) && !known; k++)
            if (is_string(key, OTHER_COMPONENTS[k].name))
                flis_fail(ctx, "%s: %s: the folder holds %s, wanted %s", path, key->string, OTHER_COMPONENTS[k].kind,
                          WANTED_MODEL);
        for (size_t k = 0; k < COUNT(parts) && !known; k++)
            if (is_string(key, parts[k].key)) {
                const config_key *row = &parts[k].file->key[parts[k].file == &CONFIG_TEXT]; /* of text: architectures */
                known = true;
                if (pair) check_class(ctx, path, key->string, value, row->wanted);
            }
        if (!known) flis_warn(ctx, "%s: %.60s: a component that flis does not know, ignored", path, key->string);
    }
    flis_json_free(index);
    return flis_ok(ctx);
}

/* The special tokens of a folder's tokenizer, as strings or as {"content": string}: flis pads with the end token, as Stable
   Diffusion v1 does; Stable Diffusion 2 pads with "!". */
static bool check_special_tokens(flis_ctx *ctx, const char *folder)
{
    static const char *const files[] = {"tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json"};
    static const config_key tokens[] = {
        {"bos_token", CONFIG_MUST, "\"<|startoftext|>\"", NULL},
        {"eos_token", CONFIG_MUST, "\"<|endoftext|>\"", NULL},
        {"pad_token", CONFIG_MUST, "\"<|endoftext|>\"", NULL},
    };
    char path[PATH_ROOM];
    for (size_t i = 0; i < COUNT(files) && flis_ok(ctx); i++) {
        flis_json *json = read_config(ctx, folder, files[i], false);
        path_in(path, folder, strlen(folder), files[i]);
        for (size_t k = 0; json && flis_ok(ctx) && k < COUNT(tokens); k++) {
            const flis_json *value = flis_json_get(json, tokens[k].key);
            const flis_json *content = value && value->type == FLIS_OBJECT ? flis_json_get(value, "content") : NULL;
            check_key(ctx, path, &tokens[k], content ? content : value);
        }
        flis_json_free(json);
    }
    return flis_ok(ctx);
}

/* The value of a key in the text of a .yaml, quotes and comments removed; false: the key is absent. */
static bool yaml_value(const char *text, const char *key, char *out, size_t room)
{
    const size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *at = line + strspn(line, " \t-");
        if (strncmp(at, key, length) != 0 || at[length] != ':') {
            if (!*line) break;
            continue;
        }
        at += length + 1;
        at += strspn(at, " \t\"'");
        const size_t n = strcspn(at, " \t\r\n\"'#");
        snprintf(out, room, "%.*s", (int)(n < room ? n : room - 1), at);
        return true;
    }
    return false;
}

/* MODEL.yaml beside MODEL.safetensors: how the authors' code and others after it say what a checkpoint is. Only what tells
   another model is looked at. */
static bool check_yaml(flis_ctx *ctx, const char *model)
{
    static const char *const must[][2] = {{"parameterization", "eps"},
                                          {"linear_start", "0.00085"},
                                          {"linear_end", "0.012"},
                                          {"timesteps", "1000"},
                                          {"layer", "last"}};
    char path[PATH_ROOM], got[64];
    size_t length = 0;
    const size_t stem = path_ends(model, ".safetensors") ? strlen(model) - strlen(".safetensors") : 0;
    if (!flis_ok(ctx) || !stem || stem + 6 > sizeof path) return flis_ok(ctx);
    snprintf(path, sizeof path, "%.*s.yaml", (int)stem, model);
    char *text = readable(path) ? flis_read_file(ctx, path, LARGEST_CONFIG, &length) : NULL;
    for (size_t i = 0; text && i < COUNT(must) && flis_ok(ctx); i++) {
        if (!yaml_value(text, must[i][0], got, sizeof got)) continue;
        flis_ctx quiet = FLIS_CTX_PLAIN;
        flis_json *x = flis_json_parse(&quiet, path, got, strlen(got));
        const bool equal = x && x->type == FLIS_NUMBER ? is_wanted(x, must[i][1]) : strcmp(got, must[i][1]) == 0;
        flis_json_free(x);
        if (!equal)
            flis_fail(ctx, "%s: %s: got %s, wanted %s (flis computes %s)", path, must[i][0], got, must[i][1],
                      WANTED_MODEL);
    }
    free(text);
    return flis_ok(ctx);
}

/* What the configurations of a folder say: first what names another model, then every key. SPEC 10.3. */
static bool check_configs(flis_ctx *ctx, const char *folder, const flis_json *unet, const flis_json *vae,
                          const flis_json *text)
{
    char path[PATH_ROOM];
    const size_t length = strlen(folder);
    if (!flis_ok(ctx)) return false;
    flis_json *scheduler = read_config(ctx, folder, CONFIG_SCHEDULER.path, false);
    const flis_json *inner = text_config_in(text);
    for (size_t i = 0; i < COUNT(OTHER_SIZES) && flis_ok(ctx); i++) {
        const flis_json *value = flis_json_get(OTHER_SIZES[i].file == &CONFIG_UNET ? unet : inner, OTHER_SIZES[i].key);
        if (value && value->type == FLIS_ARRAY && value->count) value = &value->item[0];
        if (!value || value->type != FLIS_NUMBER || value->number != (double)OTHER_SIZES[i].value) continue;
        flis_fail(ctx, "%s: %s: got %.40s: it is %s, wanted %s",
                  path_in(path, folder, length, OTHER_SIZES[i].file->path), OTHER_SIZES[i].key, value->literal,
                  OTHER_SIZES[i].kind, WANTED_MODEL);
    }
    const flis_json *guidance = flis_json_get(unet, "time_cond_proj_dim");
    if (guidance && guidance->type == FLIS_NUMBER && flis_ok(ctx))
        flis_fail(ctx,
                  "%s: time_cond_proj_dim: got %.40s, wanted null: it is a latent consistency model (LCM), whose U-Net "
                  "takes the guidance scale as an input, not %s",
                  path_in(path, folder, length, CONFIG_UNET.path), guidance->literal, WANTED_MODEL);
    if (flis_ok(ctx)) {
        check_config(ctx, folder, &CONFIG_UNET, unet);
        check_config(ctx, folder, &CONFIG_VAE, vae);
        check_config(ctx, folder, &CONFIG_TEXT, text);
        if (inner != text) check_config(ctx, folder, &CONFIG_TEXT, inner);
        check_config(ctx, folder, &CONFIG_SCHEDULER, scheduler);
        check_special_tokens(ctx, folder);
    }
    flis_json_free(scheduler);
    return flis_ok(ctx);
}

/* After the weights are listed: the keys that they determine. */
static bool check_folder_weights(flis_ctx *ctx, const flis_file *file, const char *folder, bool own_vae)
{
    static const config_file *const files[] = {&CONFIG_UNET, &CONFIG_VAE, &CONFIG_TEXT};
    char path[PATH_ROOM];
    for (size_t i = 0; i < COUNT(files) && flis_ok(ctx); i++) {
        if (i == 1 && !own_vae) continue;
        flis_json *config = read_config(ctx, folder, files[i]->path, true);
        path_in(path, folder, strlen(folder), files[i]->path);
        if (flis_ok(ctx)) check_against_weights(ctx, file, path, files[i], i == 2 ? text_config_in(config) : config);
        flis_json_free(config);
    }
    return flis_ok(ctx);
}

/* A bare name of an autoencoder's, or not. */
static bool rename_bare_vae(void *names, const char *name, char *out, size_t room)
{
    static const char *const starts[] = {"encoder.", "decoder.", "quant_conv.", "post_quant_conv."};
    for (size_t i = 0; i < COUNT(starts) && strlen(name) < 200; i++)
        if (strncmp(name, starts[i], strlen(starts[i])) == 0) return flis_vae_rename(names, name, out, room);
    return false;
}

/* The names of a part's tensors, and how many blocks diffusers' own names have: a configuration with another number would
   give the tensors the names of others. */
typedef struct counted_names {
    flis_diffusers names;
    flis_rename *rename_tensor;
    const char *prefix[2]; /* one of them stands before the number that is counted */
    size_t found;          /* one more than the largest */
} counted_names;

static bool rename_and_count(void *user, const char *name, char *out, size_t room)
{
    counted_names *n = user;
    for (int i = 0; i < 2; i++) {
        const size_t length = n->prefix[i] ? strlen(n->prefix[i]) : 0;
        if (!length || strncmp(name, n->prefix[i], length) != 0) continue;
        const unsigned long number = strtoul(name + length, NULL, 10);
        if (number < 1000 && number >= n->found) n->found = number + 1;
    }
    return n->rename_tensor(&n->names, name, out, room);
}

/* The tensors of a part whose names depend on `key`, a number or the length of a list, which `expected` is. */
static bool append_counted(flis_ctx *ctx, flis_file *file, const char *folder, const char *part, const char *variant,
                           const char *key, size_t expected, counted_names *names)
{
    if (!append_part(ctx, file, folder, part, variant, rename_and_count, names)) return false;
    return !names->found || names->found == expected ||
           flis_fail(ctx, "%s%s%s/config.json: %s: got %zu%s, wanted %zu, which the weights have", folder,
                     path_ends(folder, "/") ? "" : "/", part, key, expected,
                     strcmp(key, "block_out_channels") == 0 ? " levels" : "", names->found);
}

/* unet/, vae/ and text_encoder/ with their config.json: what shapes do not determine becomes metadata. diffusers calls the
   number of heads attention_head_dim. own_vae: false where another file has the autoencoder; of vae/, which may be absent
   then, the configuration alone is read. SPEC 10.3. */
static bool append_folder(flis_ctx *ctx, flis_file *file, const char *folder, const char *variant, bool own_vae)
{
    check_index(ctx, folder);
    flis_json *unet = read_config(ctx, folder, CONFIG_UNET.path, true);
    flis_json *vae = read_config(ctx, folder, CONFIG_VAE.path, own_vae);
    flis_json *text = read_config(ctx, folder, CONFIG_TEXT.path, true);
    check_configs(ctx, folder, unet, vae, text);
    counted_names unet_names = {{.blocks = 2}, flis_unet_rename, {"down_blocks.0.resnets.", NULL}, 0};
    counted_names vae_names = {{.levels = 4}, rename_bare_vae, {"decoder.up_blocks.", "encoder.down_blocks."}, 0};
    const double blocks = number_in(ctx, folder, "unet", unet, "layers_per_block", 2);
    if (flis_ok(ctx) && !(blocks >= 1 && blocks <= 64 && floor(blocks) == blocks))
        flis_fail(ctx, "%s/unet/config.json: layers_per_block: got %g, wanted a whole number from 1 to 64", folder,
                  blocks);
    if (flis_ok(ctx)) unet_names.names.blocks = (size_t)blocks;
    const flis_json *up = list_in(ctx, folder, "unet", unet, "up_block_types", FLIS_STRING);
    for (size_t i = 0; i < FLIS_MAX_LEVELS; i++) /* Stable Diffusion v1: all but the first */
        unet_names.names.up_attention[i] =
            up && i < up->count ? strncmp(up->item[i].string, "CrossAttn", 9) == 0 : i > 0;
    const flis_json *widths = list_in(ctx, folder, "vae", vae, "block_out_channels", FLIS_NUMBER);
    if (widths) vae_names.names.levels = widths->count;
    const double heads = number_in(ctx, folder, "unet", unet, "attention_head_dim", 8);
    set_number(ctx, file, "unet.num_heads", number_in(ctx, folder, "unet", unet, "num_attention_heads", heads));
    set_number(ctx, file, "unet.norm_num_groups", number_in(ctx, folder, "unet", unet, "norm_num_groups", 32));
    if (vae) {
        set_number(ctx, file, "vae.norm_num_groups", number_in(ctx, folder, "vae", vae, "norm_num_groups", 32));
        set_number(ctx, file, "vae.scale_factor", number_in(ctx, folder, "vae", vae, "scaling_factor", 0.18215));
    }
    set_number(ctx, file, "clip.num_heads",
               number_in(ctx, folder, "text_encoder", text_config_in(text), "num_attention_heads", 8));
    flis_json_free(unet);
    flis_json_free(vae);
    flis_json_free(text);
    return flis_ok(ctx) &&
           append_counted(ctx, file, folder, "unet", variant, "layers_per_block", unet_names.names.blocks,
                          &unet_names) &&
           (!own_vae || append_counted(ctx, file, folder, "vae", variant, "block_out_channels", vae_names.names.levels,
                                       &vae_names)) &&
           append_part(ctx, file, folder, "text_encoder", variant, flis_clip_rename, NULL);
}

/* What torch.save writes, whatever its name: a zip file, a pickle, or a tar archive. A name alone counts where the bytes
   say nothing. A file of less than 8 bytes is nothing. */
static bool is_checkpoint(const char *path)
{
    char bytes[8];
    FILE *stream = is_folder(path) || is_special(path) ? NULL : fopen(path, "rb");
    const bool brief = stream && fread(bytes, 1, sizeof bytes, stream) < sizeof bytes;
    if (stream) fclose(stream);
    if (brief) return false;
    const flis_kind kind = flis_file_kind(path);
    if (kind == FLIS_KIND_ZIP || kind == FLIS_KIND_PICKLE || kind == FLIS_KIND_TAR) return true;
    return kind == FLIS_KIND_UNKNOWN && !is_folder(path) &&
           (path_ends(path, ".ckpt") || path_ends(path, ".pt") || path_ends(path, ".pth") || path_ends(path, ".bin"));
}

/* A path as a shell takes it: quoted where it holds more than letters, digits and ._-/. */
static const char *shell_word(const char *path, char *out, size_t room)
{
    size_t n = 0;
    if (!path[strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/")]) return path;
    if (room < 7) return path;
    out[n++] = '\'';
    for (; *path && n + 6 < room; path++) {
        if (*path == '\'') n += (size_t)sprintf(out + n, "'\\''");
        else out[n++] = *path;
    }
    out[n++] = '\'';
    out[n] = 0;
    return out;
}

/* ---- Names of other programs ------------------------------------------------------------------------------------- */

/* prefix + rest. */
static bool any_below(const flis_file *file, const char *prefix, const char *rest)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, rest);
    return flis_file_any(file, name);
}

/* Whether a weight or bias is below the prefix: traces have the names of modules alone. */
static bool has_weights(const flis_file *file, const char *prefix)
{
    for (size_t i = 0; i < file->count; i++) {
        const char *name = file->entry[i].name;
        if (strncmp(name, prefix, strlen(prefix)) == 0 && (path_ends(name, ".weight") || path_ends(name, ".bias")))
            return true;
    }
    return false;
}

/* Gives the tensors under `prefix` the names that rename_tensor makes of the rest, or (NULL) `to` and the rest. */
static bool move_names(flis_ctx *ctx, flis_file *file, const char *prefix, const char *to, flis_rename *rename_tensor,
                       void *user)
{
    const size_t length = strlen(prefix);
    for (size_t i = 0; i < file->count && flis_ok(ctx); i++) {
        flis_entry *e = &file->entry[i];
        char name[512];
        if (strncmp(e->name, prefix, length) != 0) continue;
        if (!rename_tensor) snprintf(name, sizeof name, "%s%.400s", to, e->name + length);
        else if (!rename_tensor(user, e->name + length, name, sizeof name)) continue;
        char *copy = copy_text(ctx, name, strlen(name));
        if (!copy) return false;
        free(e->name);
        e->name = copy;
    }
    return flis_file_ready(ctx, file);
}

/* What diffusers' configuration would say, read from the names. */
static void derive_diffusers(const flis_file *file, const char *prefix, flis_diffusers *d)
{
    char rest[64];
    memset(d, 0, sizeof *d);
    for (size_t i = 0; i < 64; i++) {
        snprintf(rest, sizeof rest, "down_blocks.0.resnets.%zu.", i);
        if (any_below(file, prefix, rest)) d->blocks = i + 1;
    }
    for (size_t i = 0; i < FLIS_MAX_LEVELS; i++) {
        snprintf(rest, sizeof rest, "up_blocks.%zu.attentions.", i);
        d->up_attention[i] = any_below(file, prefix, rest);
        snprintf(rest, sizeof rest, "decoder.up_blocks.%zu.", i);
        if (any_below(file, prefix, rest)) d->levels = i + 1;
        snprintf(rest, sizeof rest, "encoder.down_blocks.%zu.", i);
        if (any_below(file, prefix, rest)) d->levels = i + 1;
    }
}

/* The U-Net under a prefix, in the checkpoint's names or in diffusers'. A ControlNet has no up_blocks. SPEC 10.4. */
static bool take_unet(flis_ctx *ctx, flis_file *file, const char *prefix)
{
    flis_diffusers names;
    if (any_below(file, prefix, "down_blocks.") && any_below(file, prefix, "up_blocks.")) {
        derive_diffusers(file, prefix, &names);
        return move_names(ctx, file, prefix, NULL, flis_unet_rename, &names);
    }
    if (!any_below(file, prefix, "input_blocks.") || !any_below(file, prefix, "output_blocks.")) return false;
    return !*prefix || strcmp(prefix, UNET_PREFIX) == 0 || move_names(ctx, file, prefix, UNET_PREFIX, NULL, NULL);
}

/* The autoencoder under a prefix; its attention is called q, to_q or query. SPEC 10.4. */
static bool take_vae(flis_ctx *ctx, flis_file *file, const char *prefix)
{
    flis_diffusers names;
    if (!any_below(file, prefix, "decoder.mid") && !any_below(file, prefix, "encoder.mid")) return false;
    derive_diffusers(file, prefix, &names);
    return move_names(ctx, file, prefix, NULL, rename_bare_vae, &names);
}

/* The text encoder under a prefix, with or without "text_model.". SPEC 10.4. */
static bool take_text(flis_ctx *ctx, flis_file *file, const char *prefix)
{
    if (!any_below(file, prefix, "text_model.embeddings.") && !any_below(file, prefix, "embeddings.token_embedding."))
        return false;
    return move_names(ctx, file, prefix, NULL, flis_clip_rename, NULL);
}

/* A bare U-Net in the checkpoint's names. */
static bool rename_bare_unet(void *unused, const char *name, char *out, size_t room)
{
    static const char *const starts[] = {"time_embed.", "input_blocks.", "middle_block.", "output_blocks.", "out."};
    (void)unused;
    for (size_t i = 0; i < COUNT(starts); i++)
        if (strncmp(name, starts[i], strlen(starts[i])) == 0)
            return snprintf(out, room, "%s%.400s", UNET_PREFIX, name) > 0;
    return false;
}

/* Drops what PyTorch's wrappers put before every name. */
static bool drop_wrappers(flis_ctx *ctx, flis_file *file)
{
    for (size_t i = 0, rounds = 0; i < WRAPPERS_OF_ALL && rounds < 4; i++) {
        const size_t length = strlen(WRAPPERS[i]);
        size_t with = 0;
        while (with < file->count && strncmp(file->entry[with].name, WRAPPERS[i], length) == 0) with++;
        if (!with || with < file->count) continue;
        if (!move_names(ctx, file, WRAPPERS[i], "", NULL, NULL)) return false;
        i = (size_t)-1; /* one may wrap another */
        rounds++;
    }
    return true;
}

/* The first prefix that has the part. */
static bool take_part(flis_ctx *ctx, flis_file *file, bool (*take)(flis_ctx *ctx, flis_file *file, const char *prefix),
                      const char *const *prefixes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (take(ctx, file, prefixes[i])) return true;
    return false;
}

/* Gives the tensors of one file the checkpoint's names, where it has those of another program: of each part the first
   prefix that has it. A name without any prefix counts only in a file of one part. SPEC 10.4. */
static bool checkpoint_names(flis_ctx *ctx, flis_file *file)
{
    static const char *const unet[] = {"model.diffusion_model.", "diffusion_model.", "unet."};
    static const char *const vae[] = {"first_stage_model.", "vae."};
    static const char *const text[] = {"cond_stage_model.transformer.",
                                       "cond_stage_model.clip_l.transformer.",
                                       "text_encoders.clip_l.transformer.",
                                       "clip_l.transformer.",
                                       "clip_l.",
                                       "text_encoder.",
                                       "te."};
    if (!drop_wrappers(ctx, file)) return false;
    const bool has_unet = take_part(ctx, file, take_unet, unet, COUNT(unet)),
               has_vae = take_part(ctx, file, take_vae, vae, COUNT(vae)),
               has_text = take_part(ctx, file, take_text, text, COUNT(text));
    if (has_unet || has_vae || has_text || !flis_ok(ctx)) return flis_ok(ctx);
    if ((has_weights(file, "input_blocks.") || has_weights(file, "down_blocks.")) && take_unet(ctx, file, ""))
        move_names(ctx, file, "", NULL, rename_bare_unet, NULL);
    else if (!((has_weights(file, "decoder.") || has_weights(file, "encoder.")) && take_vae(ctx, file, "")))
        take_text(ctx, file, "");
    return flis_ok(ctx);
}

/* ---- What a file of tensors is ----------------------------------------------------------------------------------- */

/* A tensor whose name starts and contains so shows what the file is; the first row that fits counts. First what changes or
   steers another model. */
typedef struct tensor_mark {
    const char *start, *piece, *what;
} tensor_mark;

static const tensor_mark ADAPTER_MARKS[] = {
#define LORA "low-rank changes to another model's weights, which flis does not apply)"
    {"", ".dora_scale", "a DoRA (" LORA},
    {"", ".hada_w1", "a LoHa of LyCORIS (" LORA},
    {"", ".lokr_w", "a LoKr of LyCORIS (" LORA},
    {"", ".oft_", "an OFT adapter (changes to another model's weights, which flis does not apply)"},
    {"lora_", "", "a LoRA (" LORA},
    {"", "lora_A.", "a LoRA (" LORA},
    {"", "lora_B.", "a LoRA (" LORA},
    {"", "lora_up.", "a LoRA (" LORA},
    {"", "lora_down.", "a LoRA (" LORA},
    {"", "lora.up.", "a LoRA (" LORA},
    {"", "lora.down.", "a LoRA (" LORA},
    {"", "lora_linear_layer.", "a LoRA (" LORA},
    {"lycoris_", "", "a LyCORIS adapter (" LORA},
#undef LORA
    {"lllite_", "", "a ControlNet-LLLite"},
    {"control_model.", "", "a ControlNet"},
    {"control_", "input_hint_block.", "a ControlNet"},
    {"", "input_hint_block.", "a ControlNet"},
    {"", "controlnet_cond_embedding.", "a ControlNet"},
    {"", "controlnet_down_blocks.", "a ControlNet"},
    {"zero_convs.", "", "a ControlNet"},
    {"adapter.", "", "a T2I-Adapter"},
    {"body.0.block", "", "a T2I-Adapter"},
    {"body.0.in_conv", "", "a T2I-Adapter"},
    {"image_proj.", "", "an IP-Adapter"},
    {"ip_adapter.", "", "an IP-Adapter"},
    {"", "motion_modules.", "a motion module of AnimateDiff"},
    {"emb_params", "", "a textual-inversion embedding (a word's features, not a model)"},
    {"string_to_param", "", "a textual-inversion embedding (a word's features, not a model)"},
    {"320.", ".linear", "a hypernetwork"},
    {"640.", ".linear", "a hypernetwork"},
    {"768.", ".linear", "a hypernetwork"},
    {"1280.", ".linear", "a hypernetwork"},
};

static const tensor_mark OTHER_MARKS[] = {
    {"concept_embeds", "", "the safety checker of Stable Diffusion"},
    {"special_care_embeds", "", "the safety checker of Stable Diffusion"},
    {"vision_model.", "", "CLIP's image encoder"},
    {"visual.", "", "an OpenCLIP model"},
    {"conv_first.", "", "an upscaler (ESRGAN)"},
    {"model.0.weight", "", "an upscaler (ESRGAN)"},
    {"model.1.sub.", "", "an upscaler (ESRGAN)"},
    {"RRDB_trunk.", "", "an upscaler (ESRGAN)"},
    {"decoder.layers.", "", "a tiny autoencoder (TAESD), which flis does not compute"},
    {"taesd_", "", "a tiny autoencoder (TAESD), which flis does not compute"},
    {"shared.weight", "", "a T5 text encoder"},
    {"encoder.block.0.layer.", "", "a T5 text encoder"},
    {"conditioner.embedders.", "", "Stable Diffusion XL"},
    {"cond_stage_model.model.", "", "Stable Diffusion 2"},
    {"step.", "", "a trace of flis"},
};

static const char *mark_of(const flis_file *file, const tensor_mark *mark, size_t count)
{
    for (size_t row = 0; row < count; row++)
        for (size_t i = 0; i < file->count; i++) {
            const char *name = file->entry[i].name;
            if (strncmp(name, mark[row].start, strlen(mark[row].start)) == 0 && strstr(name, mark[row].piece))
                return mark[row].what;
        }
    return NULL;
}

/* diffusers' embeddings are tensors under the words' names; those for Stable Diffusion XL are clip_l and clip_g. */
static bool is_embedding(const flis_file *file)
{
    if (flis_file_find(file, "clip_l") || flis_file_find(file, "clip_g")) return file->count <= 2;
    for (size_t i = 0; i < file->count; i++) {
        const flis_entry *e = &file->entry[i];
        if (e->rank < 1 || e->rank > 2 || strchr(e->name, '.') || !strcmp(e->name, "x_T")) return false;
        const uint64_t width = e->shape[e->rank - 1];
        if (width != 768 && width != 1024 && width != 1280) return false;
    }
    return file->count > 0;
}

/* Text encoder (1), U-Net (2) and autoencoder (4). */
static unsigned parts_of(const flis_file *file)
{
    return 1u * flis_file_any(file, TEXT_PREFIX) + 2u * flis_file_any(file, UNET_PREFIX) +
           4u * flis_file_any(file, VAE_PREFIX);
}

/* Judged by names and widths. SPEC 13.2. */
const char *flis_model_adapter(const flis_file *file)
{
    if (!file || parts_of(file) == 7) return NULL;
    const char *mark = mark_of(file, ADAPTER_MARKS, COUNT(ADAPTER_MARKS));
    return mark || !is_embedding(file) ? mark : "a textual-inversion embedding (a word's features, not a model)";
}

/* Judged by the names of tensors. SPEC 13.2. */
const char *flis_model_lacks(const flis_file *file)
{
    static const char *const lacks[8] = {
        "no model that flis knows",
        "a text encoder alone",
        "a U-Net alone",
        "a text encoder and a U-Net without an autoencoder (--vae takes one from another file)",
        "an autoencoder alone (--vae takes it in place of a model's own)",
        "a text encoder and an autoencoder without a U-Net",
        "a U-Net and an autoencoder without a text encoder",
        NULL, /* all */
    };
    static const char ema[] =
        "the averaged weights alone (model_ema.*) of a checkpoint, which bin/ckpt2safetensors --ema "
        "takes";
    if (!file) return NULL;
    if (!file->count) return "a file without tensors";
    const unsigned parts = parts_of(file);
    if (!(parts & 2) && flis_file_any(file, "model_ema.")) return ema;
    const char *trained = flis_file_metadata(file, "flis.trained"), *mark = flis_model_adapter(file);
    if (parts == 2 && trained && strcmp(trained, "segmenter") == 0) return "a segmenter of bin/train";
    if (!mark && parts != 7) mark = mark_of(file, OTHER_MARKS, COUNT(OTHER_MARKS));
    return mark ? mark : lacks[parts];
}

/* The sentence of a loader that finds nothing of its part. SPEC 13.2. */
bool flis_fail_no_part(flis_ctx *ctx, const flis_file *file, const char *part, const char *tensor)
{
    static const char *const prefixes[] = {UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX};
    const char *lacks = flis_model_lacks(file);
    for (size_t i = 0; i < COUNT(prefixes); i++) /* of a part that is there in pieces nothing more is known */
        if (strncmp(tensor, prefixes[i], strlen(prefixes[i])) == 0 && flis_file_any(file, prefixes[i])) lacks = NULL;
    return flis_fail(ctx, "%s: no %s in it: %s is missing%s%s", flis_file_path(file, tensor), part, tensor,
                     lacks ? "; the file is " : "", lacks ? lacks : "");
}

/* ---- Opening a model --------------------------------------------------------------------------------------------- */

/* Whether a word occurs in bytes that no NUL ends. */
static bool has_word(const unsigned char *bytes, size_t length, const char *word)
{
    const size_t n = strlen(word);
    for (size_t i = 0; i + n <= length; i++)
        if (memcmp(bytes + i, word, n) == 0) return true;
    return false;
}

/* What a text in place of weights is: by its ending, by a word in it, or because all of its beginning prints. */
static const char *text_kind(const char *path, const unsigned char *head, size_t length)
{
    if (has_word(head, length, "text_label_mapping")) return "a layout";
    if (has_word(head, length < 64 ? length : 64, "#version")) return "a vocabulary";
    if (length > 2 && head[0] == 'P' && head[1] >= '1' && head[1] <= '6' && (head[2] == '\n' || head[2] == ' '))
        return "a PGM or PPM picture";
    if (path_ends(path, ".yaml") || path_ends(path, ".yml"))
        return "a YAML configuration (the weights are in another file)";
    for (size_t i = 0; i < length; i++)
        if ((head[i] < ' ' && head[i] != '\t' && head[i] != '\r' && head[i] != '\n') || head[i] == 0x7F) return NULL;
    return length ? "a text file" : NULL;
}

/* "X: is …, wanted …", of a file whose first bytes show what it is; false also where they do not. */
static bool fail_kind(flis_ctx *ctx, const char *path, const void *head, size_t length, const char *wanted)
{
    const flis_kind kind = flis_kind_of(head, length);
    const char *text = kind == FLIS_KIND_JSON || kind == FLIS_KIND_UNKNOWN ? text_kind(path, head, length) : NULL;
    const char *what = kind == FLIS_KIND_JSON && text && strcmp(text, "a layout") != 0 ? flis_kind_text(kind) : text;
    char word[PATH_ROOM], json[80] = "";
    if (kind == FLIS_KIND_SAFETENSORS || kind == FLIS_KIND_EMPTY) return false;
    if (kind == FLIS_KIND_ZIP || kind == FLIS_KIND_PICKLE || kind == FLIS_KIND_TAR)
        return flis_fail(ctx,
                         "%s: a PyTorch checkpoint must be converted first: bin/ckpt2safetensors %s OUT.safetensors",
                         path, shell_word(path, word, sizeof word));
    if (kind == FLIS_KIND_JSON && what != text)
        snprintf(json, sizeof json, ": %.*s%s", (int)(length < 60 ? length : 60), (const char *)head,
                 length < 60 ? "" : "...");
    for (char *at = json; *at; at++)
        if (*at == '\n' || *at == '\r' || *at == '\t') *at = ' ';
    if (!what) what = flis_kind_text(kind);
    if (what) flis_fail(ctx, "%s: is %s%s, wanted %s", path, what, json, wanted);
    return what != NULL;
}

/* The folder of a Hugging Face cache, models--OWNER--NAME, has the commits of a model in snapshots/ and the name of the
   current one in refs/main. out: the folder to open. SPEC 10.3. */
static bool hub_snapshot(flis_ctx *ctx, const char *path, char *out)
{
    char refs[PATH_ROOM], snapshots[PATH_ROOM], commit[64] = "";
    FILE *file = NULL;
    if (readable(path_in(refs, path, strlen(path), "refs/main"))) file = fopen(refs, "rb");
    size_t length = file ? fread(commit, 1, sizeof commit - 1, file) : 0;
    if (file) fclose(file);
    while (length && strchr(" \r\n", commit[length - 1])) commit[--length] = 0;
    path_in(snapshots, path, strlen(path), "snapshots");
    if (!is_word(commit, length)) {
        if (is_folder(snapshots))
            flis_fail(ctx, "%s: is a folder of the Hugging Face cache without refs/main: give one of the folders in %s",
                      path, snapshots);
        return false;
    }
    path_in(out, snapshots, strlen(snapshots), commit);
    if (HAVE_POSIX && !is_folder(out)) {
        flis_fail(ctx, "%s: is a folder of the Hugging Face cache, whose refs/main names %s, which is not there", path,
                  out);
        return false;
    }
    return true;
}

/* The first of the names that vocabularies have. SPEC 2.8. */
bool flis_vocab_find(const char *folder, char *out, size_t room)
{
    static const char *const names[] = {"merges.txt", "tokenizer.json", "vocab.txt", "bpe_simple_vocab_16e6.txt",
                                        "bpe_simple_vocab_16e6.txt.gz"};
    flis_ctx quiet = FLIS_CTX_PLAIN;
    char snapshot[PATH_ROOM], path[PATH_ROOM];
    if (!folder || !*folder || !out) return false;
    if (hub_snapshot(&quiet, folder, snapshot)) folder = snapshot;
    for (int below = 0; below < 2; below++)
        for (size_t i = 0; i < COUNT(names); i++) {
            part_file(path, folder, below ? "tokenizer" : "", names[i]);
            if (!readable(path) || is_folder(path) || strlen(path) >= room) continue;
            strcpy(out, path);
            return true;
        }
    return false;
}

static bool has_part(const char *folder, const char *part)
{
    char path[PATH_ROOM];
    return readable(part_file(path, folder, part, "config.json"));
}

/* What a folder that is no diffusers folder is. */
static void fail_folder(flis_ctx *ctx, const char *path)
{
    char config[PATH_ROOM];
    part_list list;
    memset(&list, 0, sizeof list);
    each_name(path, see_name, &list);
    if (!list.names) flis_fail(ctx, "%s: is an empty folder, wanted a model", path);
    else if (readable(path_in(config, path, strlen(path), "model_index.json")))
        flis_fail(ctx,
                  "%s: is a diffusers folder without unet/, vae/ and text_encoder/ (a download of some files only?)",
                  path);
    else if (readable(path_in(config, path, strlen(path), "config.json")))
        flis_fail(ctx, "%s: is one part of a diffusers folder, wanted the folder above it, or the weights' file", path);
    else
        flis_fail(
            ctx,
            "%s: is a folder without unet/, vae/ or text_encoder/, wanted a diffusers folder or the file of a model",
            path);
}

/* A folder that lacks a part altogether. */
static bool check_folder(flis_ctx *ctx, const char *folder, bool own_vae)
{
    static const char *const parts[] = {"unet", "vae", "text_encoder"};
    for (size_t i = 0; i < COUNT(parts); i++)
        if (!has_part(folder, parts[i]) && (i != 1 || own_vae))
            return flis_fail(
                ctx, "%s: has no %s/config.json, wanted a diffusers folder with unet/, vae/ and text_encoder/%s",
                folder, parts[i], i == 1 ? " (--vae takes an autoencoder from another file)" : "");
    return true;
}

/* JSON in place of a model: what it belongs to. False: it is no JSON. */
static bool fail_json(flis_ctx *ctx, const char *path)
{
    if (flis_file_kind(path) != FLIS_KIND_JSON) return false;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const int folder = slash ? (int)(slash - path) : 0;
    if (strcmp(name, "model_index.json") == 0)
        return flis_fail(ctx, "%s: is the index of a diffusers folder, wanted the folder: %.*s", path,
                         slash ? folder : 1, slash ? path : "."),
               true;
    if (strcmp(name, "config.json") == 0)
        return flis_fail(ctx,
                         "%s: is a configuration, wanted the model that it belongs to: the weights' file, or the "
                         "diffusers folder",
                         path),
               true;
    return false;
}

/* An index of shards, in either spelling of a variant. */
static bool is_index(const char *path)
{
    return path_ends(path, ".index.json") || (path_ends(path, ".json") && strstr(path, ".safetensors.index."));
}

/* Which form a model has is decided by its bytes and by the files that are there, then its tensors are listed as one file's.
   SPEC 10.3. */
flis_file *flis_model_open(flis_ctx *ctx, const char *path)
{
    return flis_model_open_with(ctx, path, NULL);
}

/* Appends the tensors of a model, whatever its form. *folder: it is a diffusers folder; own_vae as in append_folder. */
static bool append_model(flis_ctx *ctx, flis_file *file, const char *path, const char *variant, bool own_vae,
                         bool *folder)
{
    char word[PATH_ROOM];
    if (is_checkpoint(path))
        return flis_fail(ctx,
                         "%s: a PyTorch checkpoint must be converted first: bin/ckpt2safetensors %s OUT.safetensors",
                         path, shell_word(path, word, sizeof word));
    *folder = has_part(path, "unet") || has_part(path, "vae") || has_part(path, "text_encoder");
    if (*folder)
        return check_folder(ctx, path, own_vae) && check_variant(ctx, path, variant) &&
               append_folder(ctx, file, path, variant, own_vae) && flis_file_ready(ctx, file);
    if (is_folder(path)) {
        if (flis_ok(ctx)) fail_folder(ctx, path);
        return false;
    }
    if (variant) return flis_fail(ctx, "%s: is one file, which has no variants: got the variant %.60s", path, variant);
    if (is_index(path)) append_index(ctx, file, path, NULL, NULL);
    else if (!fail_json(ctx, path)) flis_file_append(ctx, file, path, NULL, NULL);
    return flis_ok(ctx) && flis_file_ready(ctx, file) && checkpoint_names(ctx, file);
}

/* Drops the tensors under a prefix. The files that hold them stay open. */
static void drop_tensors(flis_file *file, const char *prefix, bool others)
{
    size_t kept = 0;
    for (size_t i = 0; i < file->count; i++) {
        const bool below = strncmp(file->entry[i].name, prefix, strlen(prefix)) == 0;
        if (below != others) {
            free(file->entry[i].name);
            free(file->entry[i].other);
        } else file->entry[kept++] = file->entry[i];
    }
    file->count = kept;
}

/* The autoencoder's tensors and metadata of `from` in place of those of `file`; from is closed. SPEC 10.3. */
static bool replace_vae(flis_ctx *ctx, flis_file *file, flis_file *from)
{
    static const char *const keys[] = {"vae.scale_factor", "vae.norm_num_groups"};
    flis_entry *entries = realloc(file->entry, (file->count + from->count + 1) * sizeof *entries);
    if (entries) file->entry = entries;
    flis_shard *shards = realloc(file->shard, (file->shards + from->shards + 1) * sizeof *shards);
    if (shards) file->shard = shards;
    if (!entries || !shards) flis_fail(ctx, "out of memory: %zu tensors", file->count + from->count);
    for (size_t k = 0; k < COUNT(keys) && flis_ok(ctx); k++) {
        const char *value = flis_file_metadata(from, keys[k]), *own = flis_file_metadata(file, keys[k]);
        if (value && k == 0 && (own || flis_file_any(file, VAE_PREFIX)) &&
            flis_file_number(ctx, from, keys[0], false, 0) != flis_file_number(ctx, file, keys[0], false, 0.18215))
            flis_warn(ctx, "%s: vae.scale_factor %.40s, the model's is %.40s: its own is taken", from->path, value,
                      own ? own : "0.18215");
        for (size_t i = 0; value && i < file->metadata_count; i++)
            if (strcmp(file->metadata[2 * i], keys[k]) == 0) {
                char *copy = copy_text(ctx, value, strlen(value));
                free(file->metadata[2 * i + 1]);
                file->metadata[2 * i + 1] = copy ? copy : copy_text(ctx, "", 0);
                value = NULL;
            }
        if (value) flis_file_set_metadata(ctx, file, keys[k], value);
    }
    if (flis_ok(ctx)) {
        drop_tensors(file, VAE_PREFIX, false);
        for (size_t i = 0; i < from->count; i++) {
            from->entry[i].shard += file->shards;
            file->entry[file->count++] = from->entry[i];
        }
        if (from->shards) memcpy(file->shard + file->shards, from->shard, from->shards * sizeof *from->shard);
        file->shards += from->shards;
        from->count = from->shards = 0; /* they belong to `file` now */
        file->vae_path = from->path;
        from->path = NULL;
    }
    flis_file_close(from);
    return flis_ok(ctx) && flis_file_ready(ctx, file);
}

/* What the file says of itself, and what lies beside it, must be a model that is computed here. */
static bool check_opened(flis_ctx *ctx, flis_file *file, const char *path, bool folder, bool own_vae)
{
    if (!ctx->dry && flis_model_check(ctx, file) && !folder) check_yaml(ctx, path);
    return flis_ok(ctx) && (!folder || check_folder_weights(ctx, file, path, own_vae));
}

/* Which form a model has is decided by its bytes and by the files that are there, then its tensors are listed as one
   file's; another file's autoencoder comes last. SPEC 10.3. */
flis_file *flis_model_open_with(flis_ctx *ctx, const char *path, const flis_choice *choice)
{
    char snapshot[PATH_ROOM];
    const char *variant = choice ? choice->variant : NULL, *vae = choice ? choice->vae : NULL;
    if (!named(ctx, path, "model: its path")) return NULL;
    bool folder = false;
    const char *from = hub_snapshot(ctx, path, snapshot) ? snapshot : path;
    flis_file *file = flis_file_new(ctx, path), *other = NULL;
    if (file && append_model(ctx, file, from, variant, !vae, &folder) && check_opened(ctx, file, from, folder, !vae)) {
        if (!vae || ((other = flis_vae_open(ctx, vae)) != NULL && replace_vae(ctx, file, other))) return file;
    }
    flis_file_close(file);
    return NULL;
}

/* Another model's autoencoder; shown: by what. */
static bool fail_latents(flis_ctx *ctx, const char *path, const char *shown, const char *model)
{
    return flis_fail(ctx,
                     "%s: is the autoencoder of %s (%s), whose latents are others; wanted one of Stable Diffusion v1",
                     path, model, shown);
}

/* The autoencoder's folder of diffusers: "" within a vae/, or "vae" within the folder of a whole model. */
static bool append_vae_folder(flis_ctx *ctx, flis_file *file, const char *folder, const char *part)
{
    const char *where = *part ? part : "."; /* within sentences */
    config_file rows = CONFIG_VAE;
    char path[PATH_ROOM];
    flis_diffusers names = {.levels = 4};
    if (!*part) rows.path = "config.json";
    part_file(path, folder, part, "config.json");
    flis_json *json = read_config(ctx, folder, rows.path, true);
    const flis_json *shift = flis_json_get(json, "shift_factor"), *z = flis_json_get(json, "latent_channels");
    const bool shifted = shift && shift->type == FLIS_NUMBER && shift->number != 0;
    if (shifted || (z && z->type == FLIS_NUMBER && z->number == 16))
        fail_latents(ctx, path, shifted ? "shift_factor" : "latent_channels",
                     "Stable Diffusion 3, FLUX, or a model like them");
    const flis_json *widths = list_in(ctx, folder, where, json, "block_out_channels", FLIS_NUMBER);
    if (widths) names.levels = widths->count;
    if (json && flis_json_get(json, "scaling_factor"))
        set_number(ctx, file, "vae.scale_factor", number_in(ctx, folder, where, json, "scaling_factor", 0.18215));
    if (json && flis_json_get(json, "norm_num_groups"))
        set_number(ctx, file, "vae.norm_num_groups", number_in(ctx, folder, where, json, "norm_num_groups", 32));
    if (flis_ok(ctx) && check_config(ctx, folder, &rows, json) &&
        append_part(ctx, file, folder, part, NULL, rename_bare_vae, &names) && flis_file_ready(ctx, file))
        check_against_weights(ctx, file, path, &rows, json);
    flis_json_free(json);
    return flis_ok(ctx);
}

/* The autoencoders of other models may have the shapes of v1's, but not its latents. SPEC 10.3. */
static bool check_vae(flis_ctx *ctx, const flis_file *file, const char *path)
{
    static const char *const keys[] = {"modelspec.architecture", "ss_base_model_version"};
    const char *lacks = flis_model_lacks(file);
    const flis_entry *in = flis_file_find(file, VAE_PREFIX "decoder.conv_in.weight");
    if (!flis_file_any(file, VAE_PREFIX))
        return flis_fail(ctx, "%s: is %s, wanted an autoencoder", path,
                         lacks ? lacks : "a file without an autoencoder");
    if (flis_file_any(file, "conditioner.embedders."))
        return fail_latents(ctx, path, "conditioner.embedders.*", "Stable Diffusion XL");
    for (size_t i = 0; i < COUNT(keys); i++) {
        char lower[96];
        const char *value = flis_file_metadata(file, keys[i]);
        lower_text(value ? value : "", lower, sizeof lower);
        const size_t row = architecture_of(lower);
        if (row < COUNT(ARCHITECTURES) && ARCHITECTURES[row].latents)
            return fail_latents(ctx, path, keys[i], ARCHITECTURES[row].kind);
    }
    if (in && in->rank == 4 && in->shape[1] == 16)
        return fail_latents(ctx, path, "latents of 16 channels", "Stable Diffusion 3, FLUX, or a model like them");
    if (fabs(flis_file_number(ctx, file, "vae.scale_factor", false, 0.18215) - 0.13025) > 1e-9) return flis_ok(ctx);
    return fail_latents(ctx, path, "scale factor 0.13025", "Stable Diffusion XL");
}

/* A whole model's autoencoder, or one alone, from a file or a folder. SPEC 10.3. */
flis_file *flis_vae_open(flis_ctx *ctx, const char *path)
{
    char snapshot[PATH_ROOM], config[PATH_ROOM];
    if (!named(ctx, path, "autoencoder: its path")) return NULL;
    const char *from = hub_snapshot(ctx, path, snapshot) ? snapshot : path;
    flis_file *file = flis_file_new(ctx, path);
    bool ok = false, folder = false;
    if (file && has_part(from, "vae")) ok = append_vae_folder(ctx, file, from, "vae");
    else if (file && is_folder(from) && readable(path_in(config, from, strlen(from), "config.json")))
        ok = append_vae_folder(ctx, file, from, "");
    else if (file) ok = append_model(ctx, file, from, NULL, true, &folder);
    if (ok && check_vae(ctx, file, path)) {
        drop_tensors(file, VAE_PREFIX, true);
        return file;
    }
    flis_file_close(file);
    return NULL;
}

/* ---- Loading weights ------------------------------------------------------------------------------------------------- */

static bool multiplies(const flis_param *param)
{
    return param->rank >= 2 && !param->table;
}

/* Adds a line to the loader's list, which has room for the first ones, and reports it. */
static void problem(flis_ctx *ctx, flis_loader *loader, const char *format, ...)
{
    size_t used = strlen(loader->problems), room = sizeof loader->problems - used;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    flis_make_printable(line);
    const size_t length = strlen(line);
    loader->bad++;
    if (length + 4 < room) {
        snprintf(loader->problems + used, room, "\n  %s", line);
        loader->listed++;
    }
    if (ctx->report) ctx->report(ctx->report_user, line);
}

static void shape_text(char *out, size_t room, const uint64_t *shape, int rank)
{
    size_t used = (size_t)snprintf(out, room, "[");
    for (int i = 0; i < rank && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%llu", i ? "," : "", (unsigned long long)shape[i]);
    if (used < room) snprintf(out + used, room - used, "]");
}

/* Halves that will be multiplied stay halves; everything else becomes reals. SPEC 10.3. */
static void load_values(flis_ctx *ctx, flis_loader *loader, const flis_entry *entry, const char *name,
                        flis_param *param)
{
    const size_t count = flis_param_count(param);
    const bool half = multiplies(param) && (entry->dtype == FLIS_F16 || entry->dtype == FLIS_BF16);
    size_t bad = count;
    void *values = flis_alloc(ctx, count, half ? sizeof(uint16_t) : sizeof(flis_real));
    if (values && half && flis_file_read_u16(ctx, loader->file, entry, values)) {
        const uint16_t *x = values, exponent = entry->dtype == FLIS_F16 ? 0x7c00 : 0x7f80;
        for (bad = 0; bad < count && (x[bad] & exponent) != exponent; bad++) {}
        flis_param_set_half(ctx, param, x, entry->dtype == FLIS_BF16);
    } else if (values && !half && flis_file_read_real(ctx, loader->file, entry, values)) {
        const flis_real *x = values;
        for (bad = 0; bad < count && x[bad] - x[bad] == 0; bad++) {}
        flis_param_set(ctx, param, x, false);
    }
    if (bad < count) {
        problem(ctx, loader, "%s: value %zu is NaN or infinite", name, bad);
        loader->nonfinite++;
    }
    free(values);
}

/* Leaves a weight in its file. A shard that cannot be mapped is read by each operation. SPEC 14.3. */
static void leave_in_file(flis_file *file, const flis_entry *entry, flis_param *param)
{
    flis_shard *shard = &file->shard[entry->shard];
    if (!shard->map && shard->stream) shard->map = map_file(shard->stream, shard->size);
    param->file = file;
    param->entry = entry;
}

/* Finds the tensor of a weight, checks its shape and type, and fills the weight; what is wrong is collected. SPEC 10.3. */
bool flis_load_visit(flis_ctx *ctx, void *user, const char *name, flis_param *param)
{
    flis_loader *loader = user;
    flis_entry *entry = find_entry(loader->file, name);
    loader->done++;
    loader->path = flis_file_path(loader->file, name);
    if (!entry) {
        problem(ctx, loader, "%s: missing", name);
        return true;
    }
    entry->used = true;
    uint64_t wanted[4] = {0};
    /* [c][c] and [c][c][1][1] hold the same: checkpoints differ in how they write a 1x1 convolution. */
    bool fits = true;
    for (int i = 0; i < entry->rank || i < param->rank; i++) {
        if (i < param->rank) wanted[i] = param->shape[i];
        fits = fits && (i < entry->rank ? entry->shape[i] : 1) == (i < param->rank ? wanted[i] : 1);
    }
    if (!fits) {
        char got_text[192], wanted_text[96];
        shape_text(got_text, sizeof got_text, entry->shape, entry->rank);
        shape_text(wanted_text, sizeof wanted_text, wanted, param->rank);
        problem(ctx, loader, "%s: got shape %s, wanted %s", name, got_text, wanted_text);
        return true;
    }
    if (entry->dtype > FLIS_BF16) {
        problem(ctx, loader, "%s: got dtype %.40s, wanted F64, F32, F16 or BF16", name, flis_entry_dtype(entry));
        return true;
    }
    if (loader->bad > loader->nonfinite || ctx->dry)
        return true; /* the load will fail: only the cheap checks go on, to list every problem */
    if (loader->file->mapped && param->rank >= 2 && flis_param_count(param)) leave_in_file(loader->file, entry, param);
    else load_values(ctx, loader, entry, name, param);
    if (ctx->progress) ctx->progress(ctx->progress_user, "load", loader->done, loader->total);
    return flis_poll(ctx) && !ctx->dry;
}

/* The collected problems become the error sentence; tensors that no part asked for are only reported. SPEC 10.3. */
bool flis_load_finish(flis_ctx *ctx, flis_loader *loader, const char *prefix)
{
    if (!flis_ok(ctx)) return false;
    for (size_t i = 0; prefix && ctx->report && i < loader->file->count; i++) {
        const flis_entry *entry = &loader->file->entry[i];
        char line[512];
        if (entry->used || strncmp(entry->name, prefix, strlen(prefix)) != 0) continue;
        snprintf(line, sizeof line, "%.400s: extra", entry->name);
        flis_make_printable(line);
        ctx->report(ctx->report_user, line);
    }
    if (!loader->bad) return true;
    char more[64] = "";
    if (loader->bad > loader->listed) snprintf(more, sizeof more, "\n  and %zu more", loader->bad - loader->listed);
    flis_fail(ctx, "%s: %zu tensor%s missing, of another shape or type, or not finite:", loader->path, loader->bad,
              loader->bad == 1 ? " is" : "s are");
    const size_t used = strlen(ctx->error);
    snprintf(ctx->error + used, sizeof ctx->error - used, "%s%s", loader->problems, more);
    return false;
}

/* ---- What a model file holds beyond the model ---------------------------------------------------------------------- */

/* What every checkpoint of Stable Diffusion v1 holds beside the weights that are computed with: buffers of the schedule,
   positions, the loss of the autoencoder, CLIP's projection. */
static bool is_ordinary_extra(const char *name)
{
    static const char schedule[] =
        "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod "
        "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance "
        "posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2 logvar lvlb_weights scale_factor";
    static const char *const ends[] = {"position_ids", "logit_scale", "text_projection", "text_projection.weight"};
    if (is_word_of(schedule, name, strlen(name)) || strncmp(name, "first_stage_model.loss.", 23) == 0) return true;
    for (size_t i = 0; i < COUNT(ends); i++)
        if (path_ends(name, ends[i])) return true;
    return false;
}

/* The group of a name: its first part, all of the model's own prefix, or LoRA wherever such weights are. */
static void extra_group(const char *name, char *out, size_t room)
{
    static const char *const prefixes[] = {"model.diffusion_model.", "cond_stage_model.transformer.vision_model.",
                                           "cond_stage_model.transformer.", "first_stage_model."};
    if (strstr(name, "lora_") || strstr(name, ".lora.")) {
        snprintf(out, room, "LoRA");
        return;
    }
    for (size_t i = 0; i < COUNT(prefixes); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
            snprintf(out, room, "%s*", prefixes[i]);
            return;
        }
    const size_t length = strcspn(name, ".");
    snprintf(out, room, "%.*s%s", (int)(length < 60 ? length : 60), name, name[length] ? ".*" : "");
}

/* One warning for all tensors that no part asks for, in groups. Which ones the parts ask for is found by loading them dry.
   SPEC 10.3. */
static bool warn_of_extra_tensors(flis_ctx *ctx, flis_file *file)
{
    enum { MOST_GROUPS = 8 };
    char group[MOST_GROUPS][72], name[72], list[MOST_GROUPS * 96] = "";
    size_t in[MOST_GROUPS + 1] = {0}, groups = 0, extra = 0, used = 0;
    flis_ctx dry;
    if (!flis_ok(ctx) || !ctx->warn || !flis_init(&dry)) return flis_ok(ctx);
    dry.dry = true;
    flis_clip_free(flis_clip_load(&dry, file));
    flis_unet_free(flis_unet_load(&dry, file));
    flis_vae_free(flis_vae_load(&dry, file, true, flis_file_any(file, "first_stage_model.encoder.")));
    const bool complete = flis_ok(&dry);
    flis_free(&dry);
    for (size_t i = 0; complete && i < file->count; i++) { /* else loading will list what is wrong */
        if (file->entry[i].used || is_ordinary_extra(file->entry[i].name)) continue;
        extra_group(file->entry[i].name, name, sizeof name);
        size_t k = 0;
        while (k < groups && strcmp(group[k], name) != 0) k++;
        if (k == groups && groups < MOST_GROUPS) snprintf(group[groups++], sizeof *group, "%s", name);
        in[k]++;
        extra++;
    }
    for (size_t k = 0; k < groups; k++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s (%zu)", k ? ", " : "", group[k], in[k]);
    if (in[MOST_GROUPS]) snprintf(list + used, sizeof list - used, ", others (%zu)", in[MOST_GROUPS]);
    if (extra)
        flis_warn(ctx, "%s: %zu tensor%s of the file %s not used: %s", file->path, extra, extra == 1 ? "" : "s",
                  extra == 1 ? "is" : "are", list);
    return flis_ok(ctx);
}

/* ---- Layouts ----------------------------------------------------------------------------------------------------- */

enum { LARGEST_LAYOUT_FILE = 1 << 20, MOST_PHRASES = 1000, MOST_COLORS = 4096 };

/* A sentence about a place in a JSON file. */
static bool layout_fail(flis_ctx *ctx, const char *path, const flis_json *where, const char *format, ...)
{
    char what[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return flis_fail(ctx, "%s:%d:%d: %s", path, where->line, where->column, what);
}

/* A class id: a whole number from `least` to 255, since a label map's pixels are bytes. 1.0 and 1e0 are 1, as for Python.
   SPEC 10.9. */
static bool class_id(flis_ctx *ctx, const char *path, const char *what, const flis_json *json, int least, int *id)
{
    if (json->type == FLIS_STRING)
        return layout_fail(ctx, path, json, "%s: got \"%.40s\" in quotes, wanted a class id: an integer from %d to 255",
                           what, json->string, least);
    if (json->type != FLIS_NUMBER)
        return layout_fail(ctx, path, json, "%s: got %.40s, wanted a class id: an integer from %d to 255", what,
                           flis_json_got(json), least);
    if (floor(json->number) != json->number || json->number < least || json->number > 255)
        return layout_fail(ctx, path, json, "%s: an id out of range: got %.40s, wanted an integer from %d to 255", what,
                           json->literal, least);
    *id = (int)json->number;
    return true;
}

/* -1: the phrase acts everywhere (a style). 0..255: a class of the label map. SPEC 10.9. */
static bool phrase_id(flis_ctx *ctx, const char *path, const char *phrase, const flis_json *json, int *id)
{
    char what[256];
    snprintf(what, sizeof what, "phrase \"%.200s\"", phrase);
    if (json->type == FLIS_STRING && *phrase && strspn(phrase, "0123456789") == strlen(phrase))
        return layout_fail(ctx, path, json, "%s: got \"%.40s\": id and phrase are exchanged, wanted \"%.40s\": %s",
                           what, json->string, json->string, phrase);
    return class_id(ctx, path, what, json, -1, id);
}

static bool phrase_add(flis_ctx *ctx, const char *path, const flis_json *text, const flis_json *id, flis_layout *out)
{
    flis_phrase *phrase = &out->phrase[out->count];
    if (text->type != FLIS_STRING)
        return layout_fail(ctx, path, text, "got %.40s, wanted a phrase in quotes", flis_json_got(text));
    if (strlen(text->string) != text->length) return layout_fail(ctx, path, text, "a phrase has a NUL character in it");
    if (!phrase_id(ctx, path, text->string, id, &phrase->id)) return false;
    phrase->text = flis_alloc(ctx, text->length + 1, 1);
    if (!phrase->text) return false;
    memcpy(phrase->text, text->string, text->length);
    out->count++;
    return true;
}

/* {"phrase": id, …}: as in the authors' Python, a name that comes twice keeps its first place and gets its last id.
   [["phrase", id], …]: a phrase may come twice. SPEC 10.9. */
static bool layout_phrases(flis_ctx *ctx, const char *path, const flis_json *mapping, flis_layout *out)
{
    const bool object = mapping->type == FLIS_OBJECT;
    if (!object && mapping->type != FLIS_ARRAY)
        return layout_fail(ctx, path, mapping,
                           "text_label_mapping: got %.40s, wanted {\"phrase\": id, ...} or [[\"phrase\", id], ...]",
                           flis_json_got(mapping));
    if (mapping->count > MOST_PHRASES)
        return layout_fail(ctx, path, mapping, "text_label_mapping: got %zu phrases, wanted at most %d", mapping->count,
                           MOST_PHRASES);
    out->phrase = flis_alloc(ctx, mapping->count, sizeof *out->phrase);
    for (size_t i = 0; i < mapping->count && flis_ok(ctx); i++) {
        const flis_json *item = &mapping->item[i];
        if (!object) {
            if (item->type != FLIS_ARRAY || item->count != 2)
                return layout_fail(ctx, path, item, "got %.40s%s, wanted a pair [\"phrase\", id]", flis_json_got(item),
                                   item->type == FLIS_ARRAY ? " of another length" : "");
            phrase_add(ctx, path, &item->item[0], &item->item[1], out);
            continue;
        }
        const flis_json *key = &mapping->key[i];
        size_t k = 0;
        while (k < out->count && (strcmp(out->phrase[k].text, key->string) != 0 || strlen(key->string) != key->length))
            k++;
        if (k == out->count) {
            phrase_add(ctx, path, key, item, out);
            continue;
        }
        const int before = out->phrase[k].id;
        if (phrase_id(ctx, path, key->string, item, &out->phrase[k].id) && before != out->phrase[k].id)
            flis_warn(
                ctx,
                "%s:%d:%d: phrase \"%.200s\" occurs twice in an object: its last id, %d, replaces %d, as in Python "
                "(a list of pairs [\"phrase\", id] keeps both)",
                path, key->line, key->column, key->string, out->phrase[k].id, before);
    }
    return flis_ok(ctx);
}

/* ---- Members of a layout's JSON, and what is written in their place ---- */

static const char *const LAYOUT_MEMBERS[] = {"text_label_mapping", "layout_path", "colors", "labelmap"};
enum { IS_MAPPING, IS_PATH, IS_COLORS, IS_LABELMAP, LONGEST_NAME = 48 };

/* A name's letters and digits in lower case: layoutPath, layout-path and Layout_Path are the same. False: too long. */
static bool plain_name(const flis_json *key, char out[LONGEST_NAME])
{
    size_t used = 0;
    for (size_t i = 0; i < key->length; i++) {
        const char c = key->string[i];
        const bool upper = c >= 'A' && c <= 'Z';
        if (!upper && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) continue;
        if (used + 1 == LONGEST_NAME) return false;
        out[used++] = (char)(upper ? c - 'A' + 'a' : c);
    }
    out[used] = 0;
    return true;
}

/* Letters to insert, remove or change, to make one of the other (Levenshtein). */
static size_t edits(const char *a, const char *b)
{
    size_t row[LONGEST_NAME + 1];
    const size_t n = strlen(b);
    for (size_t k = 0; k <= n; k++) row[k] = k;
    for (size_t i = 0; a[i]; i++) {
        size_t corner = row[0];
        row[0] = i + 1;
        for (size_t k = 0; k < n; k++) {
            const size_t change = corner + (a[i] != b[k]), insert = row[k] + 1, removal = row[k + 1] + 1;
            corner = row[k + 1];
            row[k + 1] = change < insert ? change : insert;
            if (removal < row[k + 1]) row[k + 1] = removal;
        }
    }
    return row[n];
}

/* The member that a name resembles: at most a third of its letters differ. -1: none. */
static int similar_member(const flis_json *key)
{
    char name[LONGEST_NAME], member[LONGEST_NAME];
    int best = -1;
    size_t least = SIZE_MAX;
    if (!plain_name(key, name)) return -1;
    for (size_t i = 0; i < COUNT(LAYOUT_MEMBERS); i++) {
        flis_json known = {.string = (char *)LAYOUT_MEMBERS[i], .length = strlen(LAYOUT_MEMBERS[i])};
        plain_name(&known, member);
        const size_t distance = edits(name, member);
        if (distance > strlen(member) / 3 || distance >= least) continue;
        least = distance;
        best = (int)i;
    }
    return best;
}

/* True where one of the words of a name (layout, file of layout_file; image of imagePath) may mean the label map. */
static bool names_picture(const flis_json *key)
{
    static const char words[] =
        " layout layouts path paths label labels labelmap map maps mask masks image images img picture "
        "pictures pic segmentation seg segmap semantic file files filename png annotation ";
    char word[LONGEST_NAME + 2] = " ";
    size_t used = 1;
    for (size_t i = 0; i <= key->length; i++) {
        const char c = i < key->length ? key->string[i] : 0;
        const bool upper = c >= 'A' && c <= 'Z', letter = upper || (c >= 'a' && c <= 'z');
        if (!letter || (upper && i && key->string[i - 1] >= 'a')) {
            word[used] = ' ';
            word[used + 1] = 0;
            if (used > 1 && strstr(words, word)) return true;
            used = 1;
        }
        if (letter && used < LONGEST_NAME) word[used++] = (char)(upper ? c - 'A' + 'a' : c);
    }
    return false;
}

static bool ends_as_picture(const flis_json *value)
{
    static const char *const ends[] = {".png",  ".pgm", ".jpg",  ".jpeg", ".bmp", ".tif",
                                       ".tiff", ".gif", ".webp", ".ppm",  ".npy"};
    for (size_t i = 0; i < COUNT(ends); i++) {
        const size_t n = strlen(ends[i]);
        if (value->length > n && begins_with((const uint8_t *)value->string + value->length - n, n, ends[i]))
            return true;
    }
    return false;
}

/* Which member an unknown one was meant to be so surely that the picture would be another without it; -1: none.
   needs_map: the layout has no label map otherwise. */
static int meant_member(const flis_json *json, size_t i, bool needs_map)
{
    const flis_json *key = &json->key[i], *value = &json->item[i];
    const int similar = similar_member(key);
    const bool table = value->type == FLIS_OBJECT && value->count && value->key[0].string[0] == '#';
    const bool text = value->type == FLIS_STRING && value->length;
    const bool holds = text || ((value->type == FLIS_OBJECT || value->type == FLIS_ARRAY) && value->count);
    if (needs_map && (similar == IS_PATH || (holds && names_picture(key)) || (text && ends_as_picture(value))))
        return IS_PATH;
    if (flis_json_get(json, "colors") || flis_json_get(json, "labelmap")) return -1;
    if (table || (similar == IS_COLORS && (value->type == FLIS_OBJECT || value->type == FLIS_ARRAY))) return IS_COLORS;
    return similar == IS_LABELMAP && text ? IS_LABELMAP : -1;
}

/* Members that say nothing to flis, but are meant to be there: bin/world's caption, and names that mark a remark. */
static bool is_remark(const flis_json *key)
{
    return strcmp(key->string, "caption") == 0 || key->string[0] == '_' || key->string[0] == '$' ||
           key->string[0] == '/' || key->string[0] == '#';
}

static int known_member(const flis_json *key)
{
    for (size_t i = 0; i < COUNT(LAYOUT_MEMBERS); i++)
        if (strcmp(key->string, LAYOUT_MEMBERS[i]) == 0 && strlen(key->string) == key->length) return (int)i;
    return -1;
}

/* Refuses a member whose name hides what the picture depends on; warns of others that nobody knows. SPEC 10.9. */
static bool layout_members(flis_ctx *ctx, const char *path, const flis_json *json, bool needs_map)
{
    enum { MOST_WARNINGS = 8 };
    size_t unknown = 0;
    const bool lacks_map = needs_map && !flis_json_get(json, "layout_path");
    for (size_t i = 0; i < json->count; i++) {
        const flis_json *key = &json->key[i];
        const int known = known_member(key);
        if (known >= 0) {
            if (flis_json_get(json, LAYOUT_MEMBERS[known]) != &json->item[i])
                flis_warn(ctx, "%s:%d:%d: %s occurs twice: the last one counts, as in Python", path, key->line,
                          key->column, LAYOUT_MEMBERS[known]);
            continue;
        }
        const int meant = meant_member(json, i, lacks_map), similar = similar_member(key);
        if (meant >= 0)
            return layout_fail(ctx, path, key,
                               "\"%.60s\": a layout has no such member, and the picture depends on it: "
                               "wanted \"%s\"%s",
                               key->string, LAYOUT_MEMBERS[meant],
                               meant == IS_PATH ? " (or --no-layout for plain Stable Diffusion)" : "");
        if (is_remark(key) || ++unknown > MOST_WARNINGS) continue;
        flis_warn(ctx, "%s:%d:%d: \"%.60s\" is ignored: a layout has no such member%s%s%s", path, key->line,
                  key->column, key->string, similar < 0 ? "" : " (did you mean \"",
                  similar < 0 ? "" : LAYOUT_MEMBERS[similar], similar < 0 ? "" : "\"?)");
    }
    if (unknown > MOST_WARNINGS)
        flis_warn(ctx, "%s: %zu more members that a layout does not have", path, unknown - MOST_WARNINGS);
    for (int i = IS_COLORS; lacks_map && i <= IS_LABELMAP; i++) {
        const flis_json *table = flis_json_get(json, LAYOUT_MEMBERS[i]);
        if (table)
            return layout_fail(ctx, path, table,
                               "%s, the ids of a label map's colours, but no layout_path that names the map",
                               LAYOUT_MEMBERS[i]);
    }
    if (lacks_map)
        flis_warn(ctx, "%s: it has no layout_path: every phrase acts everywhere, as in plain Stable Diffusion", path);
    return flis_ok(ctx);
}

/* What a JSON text without text_label_mapping is. SPEC 10.9. */
static bool no_mapping(flis_ctx *ctx, const char *path, const flis_json *json)
{
    static const struct {
        const char *member, *kind;
    } others[] = {{"shapes", "an annotation of labelme"},
                  {"annotations", "an annotation file (COCO)"},
                  {"_via_img_metadata", "a project of the VGG image annotator"},
                  {"objects", "an annotation of Supervisely or Cityscapes"},
                  {"weight_map", "the index of a model in shards"},
                  {"_class_name", "a configuration of diffusers"}};
    for (size_t i = 0; i < COUNT(others); i++)
        if (flis_json_get(json, others[i].member))
            return layout_fail(ctx, path, json,
                               "text_label_mapping is missing: this looks like %s (\"%s\"), wanted phrases with their "
                               "class ids and layout_path, a label map",
                               others[i].kind, others[i].member);
    for (size_t i = 0; i < json->count; i++)
        if (similar_member(&json->key[i]) == IS_MAPPING)
            return layout_fail(ctx, path, &json->key[i], "text_label_mapping is missing: got \"%.60s\"",
                               json->key[i].string);
    return layout_fail(ctx, path, json, "text_label_mapping is missing");
}

/* The phrases of a layout's JSON. SPEC 10.9. */
static bool layout_mapping(flis_ctx *ctx, const char *path, const flis_json *json, flis_layout *out)
{
    if (json->type == FLIS_ARRAY && json->count && json->item[0].type == FLIS_OBJECT)
        return layout_fail(ctx, path, json, "got a list of %zu objects, wanted one layout: a file has one",
                           json->count);
    if (json->type != FLIS_OBJECT)
        return layout_fail(ctx, path, json, "got %.40s, wanted an object with text_label_mapping and layout_path",
                           flis_json_got(json));
    const flis_json *mapping = flis_json_get(json, "text_label_mapping");
    return mapping ? layout_phrases(ctx, path, mapping, out) : no_mapping(ctx, path, json);
}

/* ---- Colours that stand for ids ---- */

static void colors_free(flis_layout *layout)
{
    for (size_t i = 0; i < layout->colors; i++) free(layout->color[i].name);
    free(layout->color);
    free(layout->colors_path);
    layout->color = NULL;
    layout->colors_path = NULL;
    layout->colors = 0;
}

/* One colour more. It may come twice with the same id. SPEC 10.9. */
static bool color_add(flis_ctx *ctx, flis_layout *out, const uint8_t rgb[3], int id, const char *name, size_t length)
{
    for (size_t i = 0; i < out->colors; i++) {
        const flis_color *c = &out->color[i];
        if (c->red != rgb[0] || c->green != rgb[1] || c->blue != rgb[2]) continue;
        return c->id == id ||
               flis_fail(ctx, "colour #%02x%02x%02x has two ids, %d and %d", rgb[0], rgb[1], rgb[2], c->id, id);
    }
    if (out->colors == MOST_COLORS) return flis_fail(ctx, "got more than %d colours", MOST_COLORS);
    if (!(out->colors & (out->colors - 1))) { /* the room is the next power of two */
        flis_color *grown = realloc(out->color, (out->colors ? 2 * out->colors : 1) * sizeof *grown);
        if (!grown) return flis_fail(ctx, "out of memory: %zu colours", out->colors + 1);
        out->color = grown;
    }
    char *copy = name ? copy_text(ctx, name, length) : NULL;
    if (name && !copy) return false;
    out->color[out->colors++] = (flis_color){rgb[0], rgb[1], rgb[2], (uint8_t)id, 0, copy};
    return true;
}

/* "#rrggbb", or [red, green, blue] where it stands in a list. SPEC 10.9. */
static bool color_value(flis_ctx *ctx, const char *path, const flis_json *json, uint8_t rgb[3])
{
    uint64_t value = 0;
    bool good = json->type == FLIS_ARRAY && json->count == 3;
    for (size_t i = 0; good && i < 3; i++) {
        good = flis_json_u64(&json->item[i], &value) && value <= 255;
        rgb[i] = (uint8_t)value;
    }
    if (json->type == FLIS_STRING && json->length == 7 && json->string[0] == '#' &&
        strspn(json->string + 1, "0123456789abcdefABCDEF") == 6) {
        const unsigned long number = strtoul(json->string + 1, NULL, 16);
        for (int i = 0; i < 3; i++) rgb[i] = (uint8_t)(number >> (16 - 8 * i));
        good = true;
    }
    return good || layout_fail(ctx, path, json,
                               "colors: got %s%.40s%s, wanted a colour: \"#rrggbb\", six hexadecimal "
                               "digits, or in a list [red, green, blue]",
                               json->type == FLIS_STRING ? "\"" : "",
                               json->type == FLIS_STRING ? json->string : flis_json_got(json),
                               json->type == FLIS_STRING ? "\"" : "");
}

/* {"#rrggbb": id, …} or [[colour, id], …]. SPEC 10.9. */
static bool colors_member(flis_ctx *ctx, const char *path, const flis_json *colors, flis_layout *out)
{
    if (colors->type != FLIS_OBJECT && colors->type != FLIS_ARRAY)
        return layout_fail(ctx, path, colors, "colors: got %.40s, wanted {\"#rrggbb\": id, ...}",
                           flis_json_got(colors));
    if (!colors->count) return layout_fail(ctx, path, colors, "colors: got none, wanted {\"#rrggbb\": id, ...}");
    for (size_t i = 0; i < colors->count; i++) {
        const flis_json *color = colors->type == FLIS_OBJECT ? &colors->key[i] : NULL, *id = &colors->item[i];
        uint8_t rgb[3] = {0};
        int number = 0;
        if (!color && (id->type != FLIS_ARRAY || id->count != 2))
            return layout_fail(ctx, path, id, "colors: got %.40s, wanted a pair [\"#rrggbb\", id]", flis_json_got(id));
        if (!color) color = &id->item[0], id = &id->item[1];
        if (!color_value(ctx, path, color, rgb) || !class_id(ctx, path, "colors", id, 0, &number)) return false;
        if (color_add(ctx, out, rgb, number, NULL, 0)) continue;
        char why[128];
        snprintf(why, sizeof why, "%.100s", ctx->error);
        flis_clear_error(ctx);
        return layout_fail(ctx, path, color, "colors: %s", why);
    }
    return true;
}

/* "name:red,green,blue", then perhaps ":parts:actions", from *at to end. Moves *at behind the colour. */
static bool labelmap_color(const char *at, const char *end, uint8_t rgb[3])
{
    for (int i = 0; i < 3; i++) {
        unsigned value = 0, digits = 0;
        while (at < end && *at == ' ') at++;
        for (; at < end && *at >= '0' && *at <= '9' && digits < 4; at++, digits++)
            value = value * 10 + (unsigned)(*at - '0');
        while (at < end && *at == ' ') at++;
        if (!digits || value > 255 || (i < 2 && (at == end || *at++ != ','))) return false;
        rgb[i] = (uint8_t)value;
    }
    return at == end || *at == ':';
}

/* CVAT's table of a mask's colours (its format "Segmentation mask", after Pascal VOC): a line for each label,
   name:red,green,blue:parts:actions; # begins a comment. The ids are the labels' numbers in this order, from 0, as CVAT and
   VOC count them. SPEC 10.9. */
static bool labelmap_parse(flis_ctx *ctx, const char *path, const char *text, flis_layout *out)
{
    int id = 0, line = 1;
    if (strncmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3;
    for (const char *next; *text && flis_ok(ctx); text = next, line++) {
        const char *end = text + strcspn(text, "\r\n"), *colon = memchr(text, ':', (size_t)(end - text));
        uint8_t rgb[3];
        next = end + (*end == '\r') + (end[*end == '\r'] == '\n');
        if (text[strspn(text, " \t")] == '#' || text + strspn(text, " \t") >= end) continue;
        if (!colon || !labelmap_color(colon + 1, end, rgb))
            return flis_fail(ctx, "%s:%d: got \"%.*s\", wanted name:red,green,blue:parts:actions, as CVAT writes it",
                             path, line, (int)(end - text < 60 ? end - text : 60), text);
        if (id > 255) return flis_fail(ctx, "%s:%d: got more than 256 labels", path, line);
        if (!color_add(ctx, out, rgb, id++, text, (size_t)(colon - text))) return flis_fail_in(ctx, path);
    }
    return out->colors || flis_fail(ctx, "%s: got no labels, wanted lines name:red,green,blue:parts:actions", path);
}

static bool labelmap_read(flis_ctx *ctx, const char *path, flis_layout *out)
{
    size_t length;
    char *text = flis_read_file(ctx, path, LARGEST_LAYOUT_FILE, &length);
    if (!text) return false;
    const char *kind = flis_kind_text(flis_kind_of(text, length));
    bool ok = !kind || flis_fail(ctx, "%s: is %s, wanted lines name:red,green,blue:parts:actions", path, kind);
    if (ok && strlen(text) != length) ok = flis_fail(ctx, "%s: has a NUL character in it", path);
    ok = ok && labelmap_parse(ctx, path, text, out);
    free(text);
    return ok;
}

/* A phrase may be meant for the label of its name: its id should be that label's. */
static void warn_of_names(flis_ctx *ctx, const char *path, const flis_layout *layout)
{
    for (size_t i = 0; i < layout->count; i++)
        for (size_t k = 0; k < layout->colors; k++) {
            const flis_phrase *phrase = &layout->phrase[i];
            const flis_color *c = &layout->color[k];
            if (c->name && strcmp(c->name, phrase->text) == 0 && c->id != phrase->id)
                flis_warn(ctx, "phrase \"%.100s\" has id %d, but the label of this name in %s has id %d", phrase->text,
                          phrase->id, path, c->id);
        }
}

/* ---- Files that a layout names ---- */

/* A directory can be opened, but not read. */
static bool can_be_read(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    (void)fgetc(file);
    bool ok = !ferror(file);
    fclose(file);
    return ok;
}

static const char *base_name(const char *path)
{
    const char *base = path;
    for (; *path; path++)
        if (IS_SEPARATOR(*path)) base = path + 1;
    return base;
}

/* The last part of a path that was written on any system. */
static const char *last_part(const char *path)
{
    const char *last = path;
    for (; *path; path++)
        if (*path == '/' || *path == '\\') last = path + 1;
    return last;
}

/* Begins at the root of some system: /, \\server, C:\, or the shell's ~. */
static bool is_rooted(const char *path)
{
    const char c = (char)(path[0] | 0x20);
    return path[0] == '/' || path[0] == '\\' ||
           (c >= 'a' && c <= 'z' && path[1] == ':' && (path[2] == '/' || path[2] == '\\')) ||
           (path[0] == '~' && (path[1] == '/' || path[1] == '\\'));
}

/* A name that is no path, or one that JSON has changed. SPEC 10.9. */
static bool check_file_name(flis_ctx *ctx, const char *path, const char *member, const flis_json *where)
{
    static const char *const schemes[] = {"http://", "https://", "file:", "data:", "s3://", "gs://", "ftp://"};
    if (where->type != FLIS_STRING || !where->length || strlen(where->string) != where->length)
        return layout_fail(ctx, path, where, "%s: got %.40s, wanted the name of a file", member,
                           where->type == FLIS_STRING ? "an empty string or a NUL character" : flis_json_got(where));
    for (size_t i = 0; i < COUNT(schemes); i++)
        if (begins_with((const uint8_t *)where->string, where->length, schemes[i]))
            return layout_fail(ctx, path, where,
                               "%s: got the URL \"%.80s\", wanted the path of a file: no URL is opened", member,
                               where->string);
    for (size_t i = 0; i < where->length; i++)
        if ((uint8_t)where->string[i] < ' ')
            return layout_fail(ctx, path, where,
                               "%s: a control character, 0x%02X: in JSON each backslash of a path is written twice "
                               "(C:\\\\maps\\\\x.png), or as /",
                               member, (uint8_t)where->string[i]);
    return true;
}

/* A file that the JSON names: beside the JSON, then its last part beside the JSON (the authors write "examples/x.png" in
   examples/x.json; others bring paths of another machine), then from the working directory. Backslashes separate too.
   malloc'ed. SPEC 10.9. */
static char *layout_find(flis_ctx *ctx, const char *json_path, const char *member, const flis_json *where)
{
    if (!check_file_name(ctx, json_path, member, where)) return NULL;
    const char *given = where->string, *last = last_part(given);
    const size_t folder = (size_t)(base_name(json_path) - json_path);
    const size_t prefix[] = {0, folder, folder, folder, 0, 0};
    char *path = flis_alloc(ctx, folder + where->length + 1, 1), *turned = copy_text(ctx, given, where->length);
    const char *const rest[] = {given, given, turned, last, given, turned};
    for (char *c = turned; c && *c; c++)
        if (*c == '\\') *c = '/';
    const bool rooted = is_rooted(given); /* then only the path itself and its last part are tried */
    for (int i = IS_ABSOLUTE(given) ? 0 : 1; path && turned && i < 6; i++) {
        if (!*rest[i] || (rooted && i > 0 && i != 3) || (!rooted && i == 2 && strcmp(turned, given) == 0)) continue;
        memcpy(path, json_path, prefix[i]);
        strcpy(path + prefix[i], rest[i]);
        if (!can_be_read(path)) continue;
        if (rooted && i == 3)
            flis_warn(ctx, "%s:%d:%d: %s: \"%.400s\" cannot be read: \"%.200s\" beside the JSON is taken", json_path,
                      where->line, where->column, member, given, last);
        free(turned);
        return path;
    }
    if (path && turned && rooted)
        layout_fail(ctx, json_path, where, "%s: \"%.400s\" cannot be read, and no \"%.200s\" beside the JSON%s", member,
                    given, last, given[0] == '~' ? " (~ is the shell's, and no folder)" : "");
    else if (path && turned)
        layout_fail(ctx, json_path, where,
                    "%s: \"%.400s\" cannot be read, neither beside the JSON nor from the working "
                    "directory, and no \"%.200s\" beside the JSON",
                    member, given, last);
    free(turned);
    free(path);
    return NULL;
}

/* CVAT puts labelmap.txt beside the folder of the pictures; it may have been moved to them. malloc'ed; NULL: none. */
static char *labelmap_beside(flis_ctx *ctx, const char *picture_path)
{
    static const char *const names[] = {"labelmap.txt", "../labelmap.txt"};
    const size_t folder = (size_t)(base_name(picture_path) - picture_path);
    char *path = flis_alloc(ctx, folder + strlen(names[1]) + 1, 1);
    for (size_t i = 0; path && i < COUNT(names); i++) {
        memcpy(path, picture_path, folder);
        strcpy(path + folder, names[i]);
        if (can_be_read(path)) return path;
    }
    free(path);
    return NULL;
}

/* The table of the JSON: colors, or the file that labelmap names. SPEC 10.9. */
static bool layout_colors(flis_ctx *ctx, const char *path, const flis_json *json, bool may_open, flis_layout *out)
{
    const flis_json *colors = flis_json_get(json, "colors"), *labelmap = flis_json_get(json, "labelmap");
    if (colors && labelmap) return layout_fail(ctx, path, labelmap, "got colors and labelmap, wanted one of them");
    if (colors) return colors_member(ctx, path, colors, out);
    if (!labelmap) return true;
    if (!may_open)
        return layout_fail(ctx, path, labelmap,
                           "labelmap: a layout in memory opens no file: write its table as colors");
    out->colors_path = layout_find(ctx, path, "labelmap", labelmap);
    if (!out->colors_path || !labelmap_read(ctx, out->colors_path, out)) return false;
    warn_of_names(ctx, out->colors_path, out);
    return flis_ok(ctx);
}

/* The label map of a file: ids, or colours that a table turns into ids. A map in colours without a table has its
   labelmap.txt, where there is one. SPEC 10.9. */
static bool layout_picture(flis_ctx *ctx, const char *path, flis_layout *out)
{
    label_file file = {0};
    if (!label_read(ctx, path, &file)) return false;
    char *beside = file.picture.channels == 3 && !out->colors ? labelmap_beside(ctx, path) : NULL;
    if (beside && labelmap_read(ctx, beside, out) && !table_suits(ctx, &file, out)) colors_free(out);
    else if (beside && flis_ok(ctx)) {
        flis_warn(ctx,
                  "%s: its colours have the ids of %s, the number of their line there from 0 (\"labelmap\" or "
                  "\"colors\" in the JSON says which)",
                  path, beside);
        warn_of_names(ctx, beside, out);
        out->colors_path = beside;
        beside = NULL;
    }
    free(beside);
    if (flis_ok(ctx) && label_ids(ctx, path, &file, out)) out->label = file.picture;
    else flis_picture_free(&file.picture);
    return flis_ok(ctx);
}

/* The phrases, then the label map that layout_path names. SPEC 10.9. */
static bool layout_from_json(flis_ctx *ctx, const char *path, const flis_json *json, bool map, flis_layout *out)
{
    if (!layout_mapping(ctx, path, json, out)) return false;
    if (map && !layout_members(ctx, path, json, true)) return false;
    const flis_json *picture = flis_json_get(json, "layout_path");
    if (!picture || !map) return true;
    out->label_path = layout_find(ctx, path, "layout_path", picture);
    return out->label_path && layout_colors(ctx, path, json, true, out) && layout_picture(ctx, out->label_path, out);
}

/* The JSON of a layout; with its map unless that is not wanted. SPEC 10.9. */
static bool layout_read(flis_ctx *ctx, const char *json_path, bool map, flis_layout *out)
{
    size_t length = 0;
    char *text = NULL;
    if (out) memset(out, 0, sizeof *out); /* on a failed context too: its owner may free it */
    if (!flis_given(ctx, out, "layout: where it goes") || !named(ctx, json_path, "file: its path")) return false;
    const bool standard = strcmp(json_path, "-") == 0;
    if (standard) { /* the name has no folder: layout_path is looked up from the working directory */
        json_path = "standard input";
        text = read_stream(ctx, stdin, json_path, LARGEST_LAYOUT_FILE, &length);
    }
    const flis_kind kind = standard ? flis_kind_of(text, length) : flis_file_kind(json_path);
    if (flis_ok(ctx) && kind > FLIS_KIND_EMPTY && kind != FLIS_KIND_JSON && kind != FLIS_KIND_UTF16)
        flis_fail(ctx, "%s: is %s, wanted the JSON of a layout, which names its label map as layout_path", json_path,
                  flis_kind_text(kind));
    if (!standard && flis_ok(ctx)) text = flis_read_file(ctx, json_path, LARGEST_LAYOUT_FILE, &length);
    flis_json *json = text && flis_ok(ctx) ? flis_json_parse(ctx, json_path, text, length) : NULL;
    bool ok = json && layout_from_json(ctx, json_path, json, map, out);
    flis_json_free(json);
    free(text);
    if (!ok) flis_layout_free(out);
    return ok;
}

/* A layout from the disk: its JSON, and the label map beside it. SPEC 10.9. */
bool flis_layout_read(flis_ctx *ctx, const char *json_path, flis_layout *out)
{
    return layout_read(ctx, json_path, true, out);
}

/* The same without a map. SPEC 10.9. */
bool flis_layout_read_phrases(flis_ctx *ctx, const char *json_path, flis_layout *out)
{
    return layout_read(ctx, json_path, false, out);
}

/* A caller's map: ids, or colours. */
static bool layout_take(flis_ctx *ctx, const char *name, const flis_picture *label, flis_layout *out)
{
    label_file file = {0};
    if (label->channels != 3 && out->colors)
        return flis_fail(ctx, "%s: got colors and a label map of %zu channels, wanted 3: red, green, blue", name,
                         label->channels);
    if (label->channels != 3)
        return check_label(ctx, name, label) &&
               flis_layout_set_label(ctx, out, label->pixels, label->width, label->height);
    if (!flis_given(ctx, label->pixels, "label map: its pixels") || !size_fits(ctx, name, label->width, label->height))
        return false;
    file.picture = (flis_picture){label->width, label->height, 3, flis_alloc(ctx, label->width * 3, label->height)};
    if (file.picture.pixels) memcpy(file.picture.pixels, label->pixels, label->width * label->height * 3);
    if (file.picture.pixels && label_ids(ctx, name, &file, out)) out->label = file.picture;
    else flis_picture_free(&file.picture);
    return flis_ok(ctx);
}

/* A layout from memory. A file is never opened, so a layout_path needs the map beside it as an argument. SPEC 10.9. */
bool flis_layout_parse(flis_ctx *ctx, const char *name, const char *text, size_t length, const flis_picture *label,
                       flis_layout *out)
{
    if (out) memset(out, 0, sizeof *out); /* on a failed context too: its owner may free it */
    if (!flis_given(ctx, out, "layout: where it goes")) return false;
    if (!flis_given(ctx, text, "layout: its text")) return false;
    if (!name) name = "layout";
    flis_json *json = flis_json_parse(ctx, name, text, length);
    if (json && layout_mapping(ctx, name, json, out) && layout_members(ctx, name, json, !label)) {
        const flis_json *path = flis_json_get(json, "layout_path");
        if (!label && path)
            layout_fail(ctx, name, path,
                        "layout_path: a layout in memory opens no file: pass its label map as an array");
        else if (label && layout_colors(ctx, name, json, false, out)) layout_take(ctx, name, label, out);
    }
    flis_json_free(json);
    if (!flis_ok(ctx)) flis_layout_free(out);
    return flis_ok(ctx);
}

/* One phrase more, copied. SPEC 10.9. */
bool flis_layout_add(flis_ctx *ctx, flis_layout *layout, const char *phrase, int id)
{
    if (!flis_given(ctx, layout, "layout") || !flis_given(ctx, phrase, "layout: a phrase")) return false;
    if (id < -1 || id > 255)
        return flis_fail(ctx, "layout: phrase \"%.200s\": got id %d, wanted an integer from -1 to 255", phrase, id);
    if (layout->count >= MOST_PHRASES)
        return flis_fail(ctx, "layout: got %zu phrases, wanted at most %d", layout->count + 1, MOST_PHRASES);
    char *copy = flis_alloc(ctx, strlen(phrase) + 1, 1);
    flis_phrase *grown = copy ? realloc(layout->phrase, (layout->count + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(copy);
        return flis_fail(ctx, "out of memory: %zu phrases", layout->count + 1);
    }
    layout->phrase = grown;
    grown[layout->count++] = (flis_phrase){strcpy(copy, phrase), id};
    return true;
}

/* A copy of the caller's map, in place of the one that was there. SPEC 10.9. */
bool flis_layout_set_label(flis_ctx *ctx, flis_layout *layout, const uint8_t *label, size_t width, size_t height)
{
    if (!flis_given(ctx, layout, "layout") || !flis_given(ctx, label, "layout: its label map") ||
        !size_fits(ctx, "layout: its label map", width, height))
        return false;
    uint8_t *copy = flis_alloc(ctx, height, width);
    if (!copy) return false;
    memcpy(copy, label, height * width);
    free(layout->label.pixels);
    free(layout->label_path); /* the map is no longer that file's */
    layout->label_path = NULL;
    layout->label = (flis_picture){width, height, 1, copy};
    return true;
}

/* Frees phrases and map, and leaves a layout of zeros. SPEC 10.9. */
void flis_layout_free(flis_layout *layout)
{
    if (!layout) return;
    for (size_t i = 0; i < layout->count; i++) free(layout->phrase[i].text);
    colors_free(layout);
    free(layout->phrase);
    free(layout->label.pixels);
    free(layout->label_path);
    memset(layout, 0, sizeof *layout);
}

/* ---- Two rules of nearest ---------------------------------------------------------------------------------------- */

/* PIL looks up the middle of the new pixel: floor((i + 0.5) in / out), in integers floor((2 i + 1) in / (2 out)). The
   authors bring the file to 512 x 512 so. SPEC 4.1. */
void flis_label_pil(const uint8_t *in, size_t h, size_t w, uint8_t *out, size_t out_h, size_t out_w)
{
    for (size_t y = 0; y < out_h; y++) {
        const uint8_t *row = in + (size_t)((2 * (uint64_t)y + 1) * h / (2 * (uint64_t)out_h)) * w;
        for (size_t x = 0; x < out_w; x++)
            out[y * out_w + x] = row[(size_t)((2 * (uint64_t)x + 1) * w / (2 * (uint64_t)out_w))];
    }
}

/* torch looks up the corner of the new pixel, with the scale in float: F.interpolate(mode="nearest"), which
   attention_FLIS.py:203-226 brings the map to each scale with. The middle instead would move regions by half a cell.
   SPEC 4.2. */
static size_t torch_source(size_t i, size_t in, size_t out)
{
    const float scale = (float)in / (float)out;
    const size_t source = (size_t)floor((double)((float)i * scale));
    return source < in ? source : in - 1;
}

/* out[y][x] = in[source(y)][source(x)]: attention_FLIS.py:203-226. SPEC 4.2. */
void flis_label_torch(const uint8_t *in, size_t h, size_t w, uint8_t *out, size_t out_h, size_t out_w)
{
    for (size_t y = 0; y < out_h; y++) {
        const uint8_t *row = in + torch_source(y, h, out_h) * w;
        for (size_t x = 0; x < out_w; x++) out[y * out_w + x] = row[torch_source(x, w, out_w)];
    }
}

/* ---- Label maps -------------------------------------------------------------------------------------------------- */

enum { LARGEST_SIDE = 16384, MOST_PIXELS = 1 << 26, LARGEST_PICTURE_FILE = 1 << 28 };
static const uint8_t PNG_SIGNATURE[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

/* The picture in the bytes of a file, whose kind its first bytes show. SPEC 10.10. */
static bool label_bytes(flis_ctx *ctx, const char *name, const uint8_t *in, size_t length, label_file *out)
{
    static const struct {
        const char *start, *name;
        size_t length;
    } others[] = {{"P1", "a PBM bitmap", 2},
                  {"P3", "a PPM picture (RGB)", 2},
                  {"P4", "a PBM bitmap", 2},
                  {"P6", "a PPM picture (RGB)", 2},
                  {"P7", "a PAM picture", 2},
                  {"\xFF\xD8\xFF", "a JPEG picture, whose compression changes ids at every edge", 3},
                  {"GIF8", "a GIF picture", 4},
                  {"BM", "a BMP picture", 2},
                  {"II*\0", "a TIFF picture", 4},
                  {"MM\0*", "a TIFF picture", 4},
                  {"RIFF", "a WebP picture", 4}};
    if (length >= 4 && memcmp(in + 1, PNG_SIGNATURE + 1, 3) == 0) return read_png(ctx, name, in, length, out);
    if (length >= 2 && in[0] == 'P' && (in[1] == '2' || in[1] == '5'))
        return read_pgm(ctx, name, in, length, &out->picture);
    const char *kind = length ? flis_kind_text(flis_kind_of(in, length)) : "an empty file";
    for (size_t i = 0; i < COUNT(others); i++)
        if (length >= others[i].length && memcmp(in, others[i].start, others[i].length) == 0) kind = others[i].name;
    return flis_fail(ctx, "%s: got %s, wanted a label map: a PNG, or a PGM", name,
                     kind ? kind : "a file of another kind");
}

/* The same from the disk. SPEC 10.10. */
static bool label_read(flis_ctx *ctx, const char *path, label_file *out)
{
    size_t length;
    char *text = flis_read_file(ctx, path, LARGEST_PICTURE_FILE, &length);
    bool ok = text && label_bytes(ctx, path, (const uint8_t *)text, length, out);
    free(text);
    if (!ok) flis_picture_free(&out->picture);
    return ok;
}

/* Optimisers make a palette of a gray map, so that the values become other indices. The indices are the ids, as for the
   authors' code. SPEC 10.10. */
static void warn_of_gray_palette(flis_ctx *ctx, const char *path, const label_file *file)
{
    char indices[64] = "", values[64] = "";
    bool seen[256] = {false}, flat = true;
    const size_t count = file->picture.width * file->picture.height;
    for (size_t i = 0; i < file->colors; i++) {
        const uint8_t *c = file->color[i];
        if (c[0] != c[1] || c[1] != c[2]) return;
        flat = flat && c[0] == file->color[0][0];
    }
    if (flat) return; /* no colours at all */
    for (size_t i = 0; i < count; i++) seen[file->picture.pixels[i]] = true;
    for (size_t i = 0, some = 0; i < file->colors && some < 4; i++) {
        if (!seen[i] || file->color[i][0] == i) continue;
        snprintf(indices + strlen(indices), sizeof indices - strlen(indices), "%s%zu", some ? ", " : "", i);
        snprintf(values + strlen(values), sizeof values - strlen(values), "%s%d", some++ ? ", " : "",
                 file->color[i][0]);
    }
    if (*indices)
        flis_warn(ctx,
                  "%s: its palette is gray: the class ids are its indices (%s), not its gray values (%s); if those are "
                  "the ids, save the map as gray, without a palette",
                  path, indices, values);
}

/* The picture in RGB: a palette's colours, gray v as (v, v, v). SPEC 10.9. */
static bool label_colors(flis_ctx *ctx, const char *path, label_file *file)
{
    flis_picture *picture = &file->picture;
    if (picture->channels == 3) return true;
    uint8_t *rgb = flis_alloc(ctx, picture->width * 3, picture->height);
    for (size_t i = 0; rgb && i < picture->width * picture->height; i++) {
        const unsigned v = picture->pixels[i];
        if (file->palette && v >= file->colors) {
            free(rgb);
            return flis_fail(ctx, "%s: got index %u at pixel (%zu, %zu), wanted one of the %zu colours of its palette",
                             path, v, i % picture->width, i / picture->width, file->colors);
        }
        for (size_t c = 0; c < 3; c++)
            rgb[3 * i + c] = file->palette ? file->color[v][c] : (uint8_t)(file->bilevel ? 255 * v : v);
    }
    if (!rgb) return false;
    free(picture->pixels);
    picture->pixels = rgb;
    picture->channels = 3;
    return true;
}

/* Colours that have no id, in the order of their first pixels. */
typedef struct strangers {
    size_t count, last;
    bool more; /* than the array holds; then the counts are of a part */
    struct {
        const uint8_t *rgb;
        size_t pixels;
    } at[65];
} strangers;

static void strangers_add(strangers *s, const uint8_t *rgb)
{
    if (!s->count || memcmp(s->at[s->last].rgb, rgb, 3) != 0)
        for (s->last = 0; s->last < s->count && memcmp(s->at[s->last].rgb, rgb, 3) != 0;) s->last++;
    if (s->last == s->count) {
        if (s->count == COUNT(s->at)) {
            s->more = true;
            s->last = 0;
            return;
        }
        s->at[s->count].rgb = rgb;
        s->at[s->count++].pixels = 0;
    }
    s->at[s->last].pixels++;
}

/* Names the first such colour, its place, how many pixels have it, and some of the others. SPEC 10.9. */
static bool strangers_fail(flis_ctx *ctx, const char *path, const label_file *file, const strangers *s, size_t colors)
{
    enum { SOME = 4, MANY = 16 };
    static const char edges[] =
        "; so many colours come from smoothed edges or lossy compression: a label map has neither";
    char others[160] = "", wanted[192] = "a colour that has an id";
    const uint8_t *rgb = s->at[0].rgb;
    const size_t first = (size_t)(rgb - file->picture.pixels) / 3, width = file->picture.width;
    if (s->count > 1)
        snprintf(others, sizeof others, ", and %s%zu other colour%s:", s->more ? "more than " : "", s->count - 1,
                 s->count > 2 ? "s" : "");
    for (size_t i = 1; i < s->count && i <= SOME; i++)
        snprintf(others + strlen(others), sizeof others - strlen(others), " #%02x%02x%02x", s->at[i].rgb[0],
                 s->at[i].rgb[1], s->at[i].rgb[2]);
    if (s->count > 1 + SOME) strcat(others, " ...");
    if (!colors)
        snprintf(wanted, sizeof wanted,
                 "gray (R = G = B is the id), or \"colors\": {\"#%02x%02x%02x\": id, ...} in the layout's JSON, or a "
                 "labelmap.txt",
                 rgb[0], rgb[1], rgb[2]);
    return flis_fail(ctx, "%s: got colour #%02x%02x%02x at pixel (%zu, %zu) (%s%zu pixel%s of it%s), wanted %s%s", path,
                     rgb[0], rgb[1], rgb[2], first % width, first / width, s->more ? "at least " : "", s->at[0].pixels,
                     s->at[0].pixels == 1 ? "" : "s", others, wanted, s->count > MANY ? edges : "");
}

static int compare_keys(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The table, sorted: red, green, blue, then the number of the entry. */
static uint64_t *color_keys(flis_ctx *ctx, const flis_layout *layout)
{
    uint64_t *key = flis_alloc(ctx, layout->colors, sizeof *key);
    for (size_t i = 0; key && i < layout->colors; i++) {
        const flis_color *c = &layout->color[i];
        key[i] = ((uint64_t)c->red << 16 | (uint64_t)c->green << 8 | c->blue) << 16 | i;
    }
    if (key) qsort(key, layout->colors, sizeof *key, compare_keys);
    return key;
}

/* The entry of a colour; layout->colors: none. */
static size_t color_find(const uint64_t *key, size_t count, const uint8_t *rgb)
{
    const uint64_t wanted = (uint64_t)rgb[0] << 16 | (uint64_t)rgb[1] << 8 | rgb[2];
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (key[middle] >> 16 < wanted) low = middle + 1;
        else high = middle;
    }
    return low < count && key[low] >> 16 == wanted ? (size_t)(key[low] & 0xFFFF) : count;
}

/* Whether a table that the JSON does not name is this map's: it has colours, or all its grays are in the table. Other gray maps
   have ids already. SPEC 10.9. */
static bool table_suits(flis_ctx *ctx, const label_file *file, const flis_layout *layout)
{
    const size_t count = file->picture.width * file->picture.height;
    uint64_t *key = color_keys(ctx, layout);
    bool gray = true, covered = true;
    for (size_t i = 0; key && gray && i < count; i++) {
        const uint8_t *rgb = file->picture.pixels + 3 * i;
        gray = rgb[0] == rgb[1] && rgb[1] == rgb[2];
        covered = covered && color_find(key, layout->colors, rgb) < layout->colors;
    }
    free(key);
    return !gray || covered;
}

/* Three channels to one: the table's id, or without a table the gray value. SPEC 10.9. */
static bool colors_to_ids(flis_ctx *ctx, const char *path, label_file *file, flis_layout *layout)
{
    flis_picture *picture = &file->picture;
    const size_t count = picture->width * picture->height, colors = layout ? layout->colors : 0;
    uint64_t *key = colors ? color_keys(ctx, layout) : NULL;
    uint8_t *ids = flis_alloc(ctx, picture->width, picture->height);
    strangers s = {0};
    size_t last = colors;
    for (size_t i = 0; ids && (key || !colors) && i < count && !s.more; i++) {
        const uint8_t *rgb = picture->pixels + 3 * i;
        if (!colors && rgb[0] == rgb[1] && rgb[1] == rgb[2]) ids[i] = rgb[0];
        else if (!colors) strangers_add(&s, rgb);
        else {
            if (!i || memcmp(rgb, rgb - 3, 3) != 0) last = color_find(key, colors, rgb);
            if (last == colors) strangers_add(&s, rgb);
            else ids[i] = layout->color[last].id, layout->color[last].pixels++;
        }
    }
    free(key);
    if (s.count) strangers_fail(ctx, path, file, &s, colors);
    if (!flis_ok(ctx)) {
        free(ids);
        return false;
    }
    free(picture->pixels);
    picture->pixels = ids;
    picture->channels = 1;
    return true;
}

/* One id for each pixel. A table (layout->colors) applies to the colours of any picture; without one the ids are gray
   values, palette indices, and R = G = B. layout NULL: no table. SPEC 10.9. */
static bool label_ids(flis_ctx *ctx, const char *path, label_file *file, flis_layout *layout)
{
    if (layout && layout->colors) return label_colors(ctx, path, file) && colors_to_ids(ctx, path, file, layout);
    if (file->palette) warn_of_gray_palette(ctx, path, file);
    return file->picture.channels == 1 || colors_to_ids(ctx, path, file, NULL);
}

/* A label map from the bytes of a file. SPEC 10.10. */
bool flis_read_label_memory(flis_ctx *ctx, const char *name, const void *bytes, size_t length, flis_picture *out)
{
    label_file file = {0};
    if (out) memset(out, 0, sizeof *out); /* on a failed context too: its owner may free it */
    if (!flis_given(ctx, out, "label map: where it goes")) return false;
    if (!flis_given(ctx, bytes, "label map: its bytes")) return false;
    if (!name) name = "label map";
    if (label_bytes(ctx, name, bytes, length, &file)) label_ids(ctx, name, &file, NULL);
    *out = file.picture;
    if (flis_ok(ctx)) return true;
    flis_picture_free(out);
    return false;
}

/* The colours, for a layout with a table of them. SPEC 10.10. */
bool flis_read_label_colors(flis_ctx *ctx, const char *name, const void *bytes, size_t length, flis_picture *out)
{
    label_file file = {0};
    if (out) memset(out, 0, sizeof *out); /* on a failed context too: its owner may free it */
    if (!flis_given(ctx, out, "label map: where it goes")) return false;
    if (!flis_given(ctx, bytes, "label map: its bytes")) return false;
    if (!name) name = "label map";
    if (label_bytes(ctx, name, bytes, length, &file)) label_colors(ctx, name, &file);
    *out = file.picture;
    if (flis_ok(ctx)) return true;
    flis_picture_free(out);
    return false;
}

/* The ids of a file on disk. SPEC 10.10. */
bool flis_read_label(flis_ctx *ctx, const char *path, flis_picture *out)
{
    label_file file = {0};
    if (out) memset(out, 0, sizeof *out); /* on a failed context too: its owner may free it */
    if (!flis_given(ctx, out, "label map: where it goes")) return false;
    if (label_read(ctx, path, &file)) label_ids(ctx, path, &file, NULL);
    *out = file.picture;
    if (flis_ok(ctx)) return true;
    flis_picture_free(out);
    return false;
}

/* Frees the pixels and leaves a picture of zeros. SPEC 10.10. */
void flis_picture_free(flis_picture *picture)
{
    if (!picture) return;
    free(picture->pixels);
    memset(picture, 0, sizeof *picture);
}

/* ---- Safetensors: reading -------------------------------------------------------------------------------------- */

/* The format: 8 bytes little-endian N, N bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …,
   "__metadata__": {"key": "value"}}, then the data. Every rule is enforced: the header is at most 100,000,000 bytes and
   inside the file, ranges have no holes and no overlaps, a range is as long as its shape says, the last ends the file. */

static const struct {
    const char *name;
    size_t size;
} DTYPES[] = {
    [FLIS_F64] = {"F64", 8}, [FLIS_F32] = {"F32", 4},   [FLIS_F16] = {"F16", 2}, [FLIS_BF16] = {"BF16", 2},
    [FLIS_I64] = {"I64", 8}, [FLIS_I32] = {"I32", 4},   [FLIS_I16] = {"I16", 2}, [FLIS_I8] = {"I8", 1},
    [FLIS_U8] = {"U8", 1},   [FLIS_BOOL] = {"BOOL", 1},
};
enum { DTYPE_COUNT = sizeof DTYPES / sizeof *DTYPES };
static const uint64_t LARGEST_HEADER = 100000000;

/* Bytes of one value of a type. SPEC 10.1. */
size_t flis_dtype_size(flis_dtype dtype)
{
    return (unsigned)dtype < COUNT(DTYPES) ? DTYPES[dtype].size : 0;
}

/* The name that safetensors headers give the type. SPEC 10.1. */
const char *flis_dtype_name(flis_dtype dtype)
{
    return (unsigned)dtype < COUNT(DTYPES) ? DTYPES[dtype].name : "?";
}

/* The name of an entry's type, known or not. SPEC 10.1. */
const char *flis_entry_dtype(const flis_entry *entry)
{
    return !entry ? "?" : entry->other ? entry->other : flis_dtype_name(entry->dtype);
}

/* Bits of one value of the format's types that flis does not compute with. */
static const struct {
    const char *name;
    unsigned bits;
} OTHER_DTYPES[] = {{"F8_E4M3", 8},     {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
                    {"F8_E5M2FNUZ", 8}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},
                    {"U16", 16},        {"U32", 32},    {"U64", 64},    {"C64", 64}};

/* Bits of one value; 0: nobody knows the type. */
static unsigned bits_of(const flis_entry *entry)
{
    for (size_t i = 0; entry->other && i < COUNT(OTHER_DTYPES); i++)
        if (strcmp(entry->other, OTHER_DTYPES[i].name) == 0) return OTHER_DTYPES[i].bits;
    return 8 * (unsigned)flis_dtype_size(entry->dtype);
}

/* Number of values: the product of the shape, 1 for a scalar. SPEC 10.1. */
uint64_t flis_entry_count(const flis_entry *entry)
{
    uint64_t count = 1;
    for (int i = 0; entry && i < entry->rank; i++) count *= entry->shape[i];
    return entry ? count : 0;
}

static char *copy_text(flis_ctx *ctx, const char *text, size_t length)
{
    char *copy = flis_alloc(ctx, length + 1, 1);
    if (copy) memcpy(copy, text, length);
    return copy;
}

/* A string that a C program can hold: no NUL inside. */
static char *copy_string(flis_ctx *ctx, const char *path, const flis_json *json)
{
    if (strlen(json->string) != json->length) {
        flis_fail(ctx, "%s: its header:%d:%d: a NUL character in the name \"%.200s\"", path, json->line, json->column,
                  json->string);
        return NULL;
    }
    return copy_text(ctx, json->string, json->length);
}

/* One pair more; what comes first wins when it is looked up. SPEC 10.1. */
bool flis_file_set_metadata(flis_ctx *ctx, flis_file *file, const char *key, const char *value)
{
    if (!flis_given(ctx, file, "safetensors file") || !flis_given(ctx, key, "metadata: its key") ||
        !flis_given(ctx, value, "metadata: its value"))
        return false;
    char **grown = realloc(file->metadata, (file->metadata_count + 1) * 2 * sizeof *grown);
    if (!grown) return flis_fail(ctx, "out of memory: metadata of %s", file->path);
    file->metadata = grown;
    grown[2 * file->metadata_count] = copy_text(ctx, key, strlen(key));
    grown[2 * file->metadata_count + 1] = copy_text(ctx, value, strlen(value));
    file->metadata_count++;
    return flis_ok(ctx);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool read_metadata(flis_ctx *ctx, flis_file *file, const char *path, const flis_json *json)
{
    if (json->type != FLIS_OBJECT)
        return flis_fail(ctx, "%s: __metadata__: got %.40s, wanted an object of strings", path, flis_json_got(json));
    char **keys = flis_alloc(ctx, json->count, sizeof *keys);
    for (size_t i = 0; i < json->count && flis_ok(ctx); i++) {
        const flis_json *key = &json->key[i], *item = &json->item[i];
        keys[i] = key->string;
        if (item->type != FLIS_STRING)
            flis_fail(ctx, "%s: __metadata__: \"%.200s\": got %.40s, wanted a string", path, key->string,
                      flis_json_got(item));
        else if (strlen(key->string) != key->length || strlen(item->string) != item->length)
            flis_fail(ctx, "%s: __metadata__: \"%.200s\": a NUL character in it", path, key->string);
        else flis_file_set_metadata(ctx, file, key->string, item->string);
    }
    if (flis_ok(ctx)) qsort(keys, json->count, sizeof *keys, by_text);
    for (size_t i = 1; i < json->count && flis_ok(ctx); i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            flis_fail(ctx, "%s: __metadata__: \"%.200s\" is duplicated", path, keys[i]);
    free(keys);
    return flis_ok(ctx);
}

/* The shape, and that the range of bytes is as long as it says; the product is checked for overflow. SPEC 10.1. */
static bool read_shape(flis_ctx *ctx, const char *path, const flis_json *json, flis_entry *entry)
{
    const flis_json *shape = flis_json_get(json, "shape");
    if (!shape || shape->type != FLIS_ARRAY)
        return flis_fail(ctx, "%s: tensor \"%.200s\": shape: got %.40s, wanted an array", path, entry->name,
                         flis_json_got(shape));
    if (shape->count > FLIS_MAX_DIMS)
        return flis_fail(ctx, "%s: tensor \"%.200s\": got %zu dimensions, wanted at most %d", path, entry->name,
                         shape->count, FLIS_MAX_DIMS);
    const unsigned bits = bits_of(entry);
    uint64_t bytes = bits % 8 ? 1 : bits / 8; /* of less than a byte: values, until the end */
    entry->rank = (int)shape->count;
    for (size_t i = 0; i < shape->count; i++) {
        if (!flis_json_u64(&shape->item[i], &entry->shape[i]))
            return flis_fail(ctx, "%s: tensor \"%.200s\": got %.40s in its shape, wanted non-negative integers", path,
                             entry->name, flis_json_got(&shape->item[i]));
        if (entry->shape[i] && bytes > UINT64_MAX / entry->shape[i])
            return flis_fail(ctx, "%s: tensor \"%.200s\": got a shape of more than 2^64 bytes, wanted one of %llu",
                             path, entry->name, (unsigned long long)(entry->end - entry->begin));
        bytes *= entry->shape[i];
    }
    if (bits % 8) bytes = bytes / 8 * bits + (bytes % 8 * bits + 7) / 8;
    if (entry->end < entry->begin || (bits && entry->end - entry->begin != bytes))
        return flis_fail(ctx, "%s: tensor \"%.200s\": got data_offsets [%llu, %llu], wanted a range of %llu bytes",
                         path, entry->name, (unsigned long long)entry->begin, (unsigned long long)entry->end,
                         (unsigned long long)bytes);
    return true;
}

/* One member of the header: {"dtype", "shape", "data_offsets"}, each once. SPEC 10.1. */
static bool read_entry(flis_ctx *ctx, const char *path, const flis_json *key, const flis_json *json, flis_entry *entry)
{
    if (!(entry->name = copy_string(ctx, path, key))) return false;
    static const char *const members[3] = {"dtype", "shape", "data_offsets"};
    if (json->type != FLIS_OBJECT)
        return flis_fail(ctx, "%s: tensor \"%.200s\": got %.40s, wanted an object", path, entry->name,
                         flis_json_got(json));
    for (size_t i = 0, seen[3] = {0}; i < json->count; i++)
        for (int k = 0; k < 3; k++)
            if (is_string(&json->key[i], members[k]) && seen[k]++)
                return flis_fail(ctx, "%s: tensor \"%.200s\": %s is duplicated", path, entry->name, members[k]);
    const flis_json *dtype = flis_json_get(json, "dtype"), *offsets = flis_json_get(json, "data_offsets");
    int type = 0;
    while (type < DTYPE_COUNT && !(dtype && is_string(dtype, DTYPES[type].name))) type++;
    if (!dtype || dtype->type != FLIS_STRING || strlen(dtype->string) != dtype->length)
        return flis_fail(ctx, "%s: tensor \"%.200s\": got dtype %.40s, wanted a name like F32", path, entry->name,
                         dtype && dtype->type == FLIS_STRING ? "with a NUL character" : flis_json_got(dtype));
    if (type == DTYPE_COUNT && !(entry->other = copy_text(ctx, dtype->string, dtype->length))) return false;
    entry->dtype = type == DTYPE_COUNT ? FLIS_OTHER : (flis_dtype)type; /* refused only where it is read */
    if (!offsets || offsets->type != FLIS_ARRAY || offsets->count != 2 ||
        !flis_json_u64(&offsets->item[0], &entry->begin) || !flis_json_u64(&offsets->item[1], &entry->end))
        return flis_fail(ctx, "%s: tensor \"%.200s\": data_offsets: got %.40s%s, wanted two non-negative integers",
                         path, entry->name, flis_json_got(offsets),
                         offsets && offsets->type == FLIS_ARRAY ? " of something else" : "");
    return read_shape(ctx, path, json, entry);
}

static int by_begin(const void *a, const void *b)
{
    const flis_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const flis_entry *)a)->name, ((const flis_entry *)b)->name);
}

/* Ranges without holes or overlaps, up to the end of the file. SPEC 10.1. */
static bool check_ranges(flis_ctx *ctx, const char *path, flis_entry *entry, size_t count, uint64_t data_size)
{
    uint64_t at = 0;
    if (count) qsort(entry, count, sizeof *entry, by_begin);
    for (size_t i = 0; i < count; i++) {
        const flis_entry *e = &entry[i];
        if (e->begin != at)
            return flis_fail(ctx, "%s: tensor \"%.200s\": got data from byte %llu, wanted %llu: tensors %s", path,
                             e->name, (unsigned long long)e->begin, (unsigned long long)at,
                             e->begin < at ? "overlap" : "leave a hole");
        at = e->end;
    }
    if (at != data_size)
        return flis_fail(ctx, "%s: got %llu bytes of data, wanted %llu: the file is %s", path,
                         (unsigned long long)data_size, (unsigned long long)at,
                         data_size < at ? "cut short" : "too long");
    return true;
}

/* Appends the header's entries to the file's. SPEC 10.1. */
static bool read_header(flis_ctx *ctx, flis_file *file, const char *path, const char *text, size_t length,
                        uint64_t data_size)
{
    const size_t first = file->count;
    bool described = false;
    if (length && (uint8_t)*text == 0xEF) /* a text file may have a byte order mark, a header not */
        return flis_fail(ctx, "%s: its header:1:1: got byte 0xEF, wanted a value", path);
    flis_json *json = flis_json_parse(ctx, "its header", text, length);
    if (!json) return flis_fail_in(ctx, path);
    if (json->type != FLIS_OBJECT)
        flis_fail(ctx, "%s: its header is not a JSON object: got %.40s", path, flis_json_got(json));
    if (flis_ok(ctx)) {
        flis_entry *grown = realloc(file->entry, (first + json->count + 1) * sizeof *grown);
        if (grown) file->entry = grown;
        else flis_fail(ctx, "out of memory: a header of %zu tensors", json->count);
    }
    for (size_t i = 0; i < json->count && flis_ok(ctx); i++) {
        if (is_string(&json->key[i], "__metadata__")) {
            if (described) flis_fail(ctx, "%s: __metadata__ is duplicated in the header", path);
            else read_metadata(ctx, file, path, &json->item[i]);
            described = true;
        } else {
            flis_entry *entry = &file->entry[file->count++];
            memset(entry, 0, sizeof *entry);
            entry->shard = file->shards - 1;
            read_entry(ctx, path, &json->key[i], &json->item[i], entry);
        }
    }
    flis_json_free(json);
    return flis_ok(ctx) && check_ranges(ctx, path, file->entry + first, file->count - first, data_size);
}

static uint64_t little_endian(const unsigned char *bytes, int count)
{
    uint64_t value = 0;
    for (int i = count - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

/* The length of the header that a file of `size` bytes begins with, checked; head: its first bytes, 8 or more. SPEC 10.1. */
static bool header_length(flis_ctx *ctx, const char *path, const unsigned char *head, size_t got, uint64_t size,
                          uint64_t *length)
{
    const uint64_t left = size - 8;
    *length = little_endian(head, 8);
    if (*length <= LARGEST_HEADER && *length <= left) return true;
    if (*length > left && *length <= LARGEST_HEADER && flis_kind_of(head, got) == FLIS_KIND_SAFETENSORS)
        return flis_fail(ctx, "%s: cut short: got %llu bytes, wanted %llu for its header alone", path,
                         (unsigned long long)size, (unsigned long long)*length + 8);
    if (fail_kind(ctx, path, head, got, "a safetensors file") || !flis_ok(ctx)) return false;
    return flis_fail(ctx, "%s: not a safetensors file: its header would be %llu bytes, %s", path,
                     (unsigned long long)*length,
                     *length > left ? "more than the file has" : "wanted at most 100000000");
}

/* Opens one file and appends what its header lists. SPEC 10.1. */
static bool read_shard(flis_ctx *ctx, flis_file *file, flis_shard *shard)
{
    unsigned char head[FLIS_KIND_BYTES];
    uint64_t length;
    const char *path = shard->path;
    if (is_folder(path)) return flis_fail(ctx, "%s: is a folder, wanted a safetensors file", path);
    if (!(shard->stream = fopen(path, "rb"))) return flis_fail(ctx, "%s: cannot be opened", path);
    const size_t got = fread(head, 1, sizeof head, shard->stream);
    if (ferror(shard->stream))
        return flis_fail(ctx, "%s: cannot be read: is it a folder?", path); /* which can be opened */
    if (SEEK64(shard->stream, 0, SEEK_END) != 0) return flis_fail(ctx, "%s: cannot be read from any place", path);
    int64_t size = TELL64(shard->stream);
    if (got < 8 || size < 8 || SEEK64(shard->stream, 8, SEEK_SET) != 0)
        return flis_fail(ctx, "%s: too short for a safetensors file: got %lld bytes, wanted 8 and more", path,
                         (long long)size);
    if (!header_length(ctx, path, head, got, (uint64_t)size, &length)) return false;
    char *text = flis_alloc(ctx, (size_t)length + 1, 1);
    if (text && fread(text, 1, (size_t)length, shard->stream) != length) flis_fail(ctx, "%s: cannot be read", path);
    shard->data = 8 + length;
    shard->size = (uint64_t)size;
    file_state(shard->stream, &shard->size, &shard->time);
    bool read = flis_ok(ctx) && read_header(ctx, file, path, text, (size_t)length, (uint64_t)size - 8 - length);
    free(text);
    return read;
}

/* The same for a file in memory. SPEC 10.1. */
static bool read_memory(flis_ctx *ctx, flis_file *file, flis_shard *shard)
{
    uint64_t length;
    if (file->length < 8)
        return flis_fail(ctx, "%s: too short for a safetensors file: got %zu bytes, wanted 8 and more", shard->path,
                         file->length);
    if (!header_length(ctx, shard->path, file->bytes, file->length < FLIS_KIND_BYTES ? file->length : FLIS_KIND_BYTES,
                       file->length, &length))
        return false;
    shard->data = 8 + length;
    return read_header(ctx, file, shard->path, (const char *)file->bytes + 8, (size_t)length,
                       file->length - 8 - length);
}

/* A file without tensors, to which files on disk are appended. SPEC 10.1. */
flis_file *flis_file_new(flis_ctx *ctx, const char *path)
{
    if (!flis_given(ctx, path, "safetensors file: its path")) return NULL;
    flis_file *file = flis_alloc(ctx, 1, sizeof *file);
    if (file && (file->path = copy_text(ctx, path, strlen(path)))) return file;
    free(file);
    return NULL;
}

/* One shard more, without its tensors. SPEC 10.1. */
static flis_shard *add_shard(flis_ctx *ctx, flis_file *file, const char *path)
{
    flis_shard *grown = realloc(file->shard, (file->shards + 1) * sizeof *grown);
    if (!grown) {
        flis_fail(ctx, "out of memory: %zu files", file->shards + 1);
        return NULL;
    }
    file->shard = grown;
    grown[file->shards] = (flis_shard){.path = copy_text(ctx, path, strlen(path))};
    file->shards++;
    return flis_ok(ctx) ? &grown[file->shards - 1] : NULL;
}

/* Adds the tensors of one file on disk, under the names that rename_tensor gives them. SPEC 10.1. */
bool flis_file_append(flis_ctx *ctx, flis_file *file, const char *path, flis_rename *rename_tensor, void *user)
{
    if (!flis_given(ctx, file, "safetensors file") || !named(ctx, path, "safetensors file: its path")) return false;
    const size_t first = file->count;
    flis_shard *shard = add_shard(ctx, file, path);
    if (!shard || !read_shard(ctx, file, shard)) return false;
    for (size_t i = first; rename_tensor && i < file->count; i++) {
        char name[512];
        if (!rename_tensor(user, file->entry[i].name, name, sizeof name)) continue;
        char *renamed = copy_text(ctx, name, strlen(name));
        if (!renamed) return false;
        free(file->entry[i].name);
        file->entry[i].name = renamed;
    }
    return true;
}

/* Sorts the tensors by name, and refuses a name that is duplicated. SPEC 10.1. */
bool flis_file_ready(flis_ctx *ctx, flis_file *file)
{
    if (!flis_given(ctx, file, "safetensors file")) return false;
    if (file->count) qsort(file->entry, file->count, sizeof *file->entry, by_name);
    for (size_t i = 1; i < file->count; i++)
        if (strcmp(file->entry[i - 1].name, file->entry[i].name) == 0)
            return flis_fail(ctx, "%s: tensor \"%.200s\" is duplicated in the header%s", file->path,
                             file->entry[i].name, file->shards > 1 ? "s" : "");
    return true;
}

/* One file on disk. SPEC 10.1. */
flis_file *flis_file_open(flis_ctx *ctx, const char *path)
{
    flis_file *file = flis_file_new(ctx, path);
    if (file && flis_file_append(ctx, file, path, NULL, NULL) && flis_file_ready(ctx, file)) return file;
    flis_file_close(file);
    return NULL;
}

/* One file in memory, whose bytes are borrowed. SPEC 10.1. */
flis_file *flis_file_open_memory(flis_ctx *ctx, const char *name, const void *bytes, size_t length)
{
    if (!flis_given(ctx, bytes, "safetensors file: its bytes")) return NULL;
    if (!name) name = "safetensors file";
    flis_file *file = flis_file_new(ctx, name);
    flis_shard *shard = file ? add_shard(ctx, file, name) : NULL;
    if (shard) {
        file->bytes = bytes;
        file->length = length;
        if (read_memory(ctx, file, shard) && flis_file_ready(ctx, file)) return file;
    }
    flis_file_close(file);
    return NULL;
}

/* Closes the streams, or gives the bytes back; names and shapes stay, values can no longer be read. */
static void file_release(flis_file *file)
{
    for (size_t i = 0; i < file->shards; i++) {
        flis_shard *shard = &file->shard[i];
        unmap_file(shard->map, shard->size);
        if (shard->stream) fclose(shard->stream);
        shard->stream = NULL;
        shard->map = NULL;
    }
    file->bytes = NULL;
}

/* Closes what is open and frees everything. SPEC 10.1. */
void flis_file_close(flis_file *file)
{
    if (!file) return;
    file_release(file);
    free(file->vae_path);
    for (size_t i = 0; i < file->shards; i++) free(file->shard[i].path);
    for (size_t i = 0; i < file->count; i++) {
        free(file->entry[i].name);
        free(file->entry[i].other);
    }
    for (size_t i = 0; i < 2 * file->metadata_count; i++) free(file->metadata[i]);
    free(file->metadata);
    free(file->entry);
    free(file->shard);
    free(file->path);
    free(file);
}

/* Binary search; entries are sorted by name. */
static flis_entry *find_entry(const flis_file *file, const char *name)
{
    size_t low = 0, high = file && name ? file->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, file->entry[middle].name);
        if (order == 0) return &file->entry[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

/* Another file's autoencoder is named for that file. SPEC 10.3. */
const char *flis_file_path(const flis_file *file, const char *tensor)
{
    const bool vae = file && file->vae_path && tensor && strncmp(tensor, VAE_PREFIX, strlen(VAE_PREFIX)) == 0;
    return !file ? "" : vae ? file->vae_path : file->path;
}

/* By name; NULL: absent. SPEC 10.1. */
const flis_entry *flis_file_find(const flis_file *file, const char *name)
{
    return find_entry(file, name);
}

/* The first name that is not below the prefix has it, or none has. SPEC 10.1. */
bool flis_file_any(const flis_file *file, const char *prefix)
{
    if (!file || !prefix) return false;
    const size_t length = strlen(prefix);
    size_t low = 0, high = file->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (strncmp(file->entry[middle].name, prefix, length) < 0) low = middle + 1;
        else high = middle;
    }
    return low < file->count && strncmp(file->entry[low].name, prefix, length) == 0;
}

/* The value of a metadata key; NULL: absent. SPEC 10.1. */
const char *flis_file_metadata(const flis_file *file, const char *key)
{
    for (size_t i = 0; file && key && i < file->metadata_count; i++)
        if (strcmp(file->metadata[2 * i], key) == 0) return file->metadata[2 * i + 1];
    return NULL;
}

/* A metadata number, within what sizes and counts may be. SPEC 10.6. */
double flis_file_number(flis_ctx *ctx, const flis_file *file, const char *key, bool whole, double otherwise)
{
    flis_ctx quiet = FLIS_CTX_PLAIN; /* what is wrong with it as JSON is not what a user wants to know */
    const char *text = flis_file_metadata(file, key);
    if (!text) return otherwise;
    flis_json *json = flis_json_parse(&quiet, key, text, strlen(text));
    const double number = json && json->type == FLIS_NUMBER ? json->number : 0;
    flis_json_free(json);
    if (number > 0 && number <= 65536 && (!whole || floor(number) == number)) return number;
    flis_fail(ctx, "%s: metadata %s: got \"%.40s\", wanted a %snumber above 0, at most 65536", file->path, key, text,
              whole ? "whole " : "");
    return otherwise; /* callers turn it into a size, which a negative number has none of */
}

/* One value, little-endian on every machine. SPEC 10.1. */
static double value_from(const unsigned char *bytes, flis_dtype dtype)
{
    uint64_t u = little_endian(bytes, (int)DTYPES[dtype].size);
    uint32_t u32 = (uint32_t)u;
    double value;
    float f;
    switch (dtype) {
    case FLIS_F64: memcpy(&value, &u, sizeof value); return value;
    case FLIS_F32: memcpy(&f, &u32, sizeof f); return f;
    case FLIS_F16: return flis_half_to_float((uint16_t)u);
    case FLIS_BF16: return flis_bf16_to_float((uint16_t)u);
    case FLIS_I64: return (double)(int64_t)u;
    case FLIS_I32: return (double)(int32_t)u32;
    case FLIS_I16: return (double)(int16_t)u;
    case FLIS_I8: return (double)(int8_t)u;
    case FLIS_U8:
    case FLIS_BOOL: return (double)u;
    case FLIS_OTHER: break; /* read_pieces refuses it */
    }
    return 0;
}

/* Reads an entry in pieces of at most 64 KiB and passes each to `take` with the index of its first value. */
enum { PIECE = 1 << 16 };
typedef void take_fn(void *out, size_t first, const unsigned char *bytes, size_t count, flis_dtype dtype);

static bool read_pieces(flis_ctx *ctx, flis_file *file, const flis_entry *entry, take_fn *take, void *out)
{
    unsigned char bytes[PIECE];
    if (!flis_given(ctx, file, "safetensors file") || !flis_given(ctx, entry, "safetensors file: the tensor to read") ||
        !flis_given(ctx, out, "safetensors file: where values go"))
        return false;
    const flis_shard *shard = &file->shard[entry->shard];
    const size_t size = flis_dtype_size(entry->dtype);
    if (!size)
        return flis_fail(
            ctx, "%s: tensor \"%.200s\": got dtype %.40s, wanted one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL",
            shard->path, entry->name, flis_entry_dtype(entry));
    const uint64_t at = shard->data + entry->begin;
    if (!file->bytes && !shard->stream) return flis_fail(ctx, "%s: its data was released", shard->path);
    if (!file->bytes && SEEK64(shard->stream, at, SEEK_SET) != 0)
        return flis_fail(ctx, "%s: cannot be read at byte %llu", shard->path, (unsigned long long)at);
    const unsigned char *piece = file->bytes ? file->bytes + at : bytes;
    size_t first = 0;
    for (uint64_t left = entry->end - entry->begin; left;) {
        size_t want = left < PIECE ? (size_t)left : PIECE;
        if (!file->bytes && fread(bytes, 1, want, shard->stream) != want)
            return flis_fail(ctx, "%s: tensor \"%.200s\": the file ended inside it", shard->path, entry->name);
        take(out, first, piece, want / size, entry->dtype);
        if (file->bytes) piece += want;
        first += want / size;
        left -= want;
    }
    return true;
}

/* In the map, in the memory that holds the file, or in the arena. A mapped file that was cut would end the program when it is read:
   its length is asked for each time, which takes less than a microsecond. SPEC 14.3. */
const unsigned char *flis_file_bytes(flis_ctx *ctx, const flis_file *file, const flis_entry *entry)
{
    if (!flis_given(ctx, file, "safetensors file") || !flis_given(ctx, entry, "safetensors file: the tensor to read"))
        return NULL;
    const flis_shard *shard = &file->shard[entry->shard];
    const uint64_t at = shard->data + entry->begin, count = entry->end - entry->begin;
    uint64_t size = 0;
    int64_t time = 0;
    unsigned char *read = NULL;
    if (file->bytes) return file->bytes + at;
    if (!shard->stream) flis_fail(ctx, "%s: its data was released", shard->path);
    else if (!file_state(shard->stream, &size, &time)) flis_fail(ctx, "%s: can no longer be read", shard->path);
    else if (size != shard->size || time != shard->time)
        flis_fail(ctx, "%s: was changed while it was in use: got %llu bytes%s, wanted the %llu of before", shard->path,
                  (unsigned long long)size, size == shard->size ? ", which were written anew" : "",
                  (unsigned long long)shard->size);
    else if (shard->map) return ctx->dry ? NULL : shard->map + at;
    else if (count > SIZE_MAX) flis_fail(ctx, "%s: tensor \"%.200s\": too large", shard->path, entry->name);
    else read = flis_scratch(ctx, (size_t)count, 1);
    if (read && !ctx->dry && !read_shared(shard->stream, shard->path, at, read, (size_t)count))
        flis_fail(ctx, "%s: tensor \"%.200s\": the file ended inside it", shard->path, entry->name);
    return flis_ok(ctx) ? read : NULL;
}

static void take_real(void *out, size_t first, const unsigned char *bytes, size_t count, flis_dtype dtype)
{
    flis_real *x = (flis_real *)out + first;
    if (dtype == FLIS_F32) /* the common case, in a loop that compilers turn into copies */
        for (size_t i = 0; i < count; i++) {
            const unsigned char *b = bytes + 4 * i;
            uint32_t u = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
            float f;
            memcpy(&f, &u, sizeof f);
            x[i] = f;
        }
    else
        for (size_t i = 0; i < count; i++) x[i] = (flis_real)value_from(bytes + i * DTYPES[dtype].size, dtype);
}

static void take_f64(void *out, size_t first, const unsigned char *bytes, size_t count, flis_dtype dtype)
{
    for (size_t i = 0; i < count; i++) ((double *)out)[first + i] = value_from(bytes + i * DTYPES[dtype].size, dtype);
}

static void take_i64(void *out, size_t first, const unsigned char *bytes, size_t count, flis_dtype dtype)
{
    for (size_t i = 0; i < count; i++)
        ((int64_t *)out)[first + i] = dtype == FLIS_I64 ? (int64_t)little_endian(bytes + 8 * i, 8)
                                                        : (int64_t)value_from(bytes + i * DTYPES[dtype].size, dtype);
}

static void take_u16(void *out, size_t first, const unsigned char *bytes, size_t count, flis_dtype dtype)
{
    (void)dtype;
    for (size_t i = 0; i < count; i++) ((uint16_t *)out)[first + i] = (uint16_t)little_endian(bytes + 2 * i, 2);
}

static void take_u8(void *out, size_t first, const unsigned char *bytes, size_t count, flis_dtype dtype)
{
    (void)dtype;
    memcpy((uint8_t *)out + first, bytes, count);
}

/* The values as reals, whatever their type. SPEC 10.1. */
bool flis_file_read_real(flis_ctx *ctx, flis_file *file, const flis_entry *entry, flis_real *out)
{
    return read_pieces(ctx, file, entry, take_real, out);
}

/* The values as doubles, whatever their type. SPEC 10.1. */
bool flis_file_read_f64(flis_ctx *ctx, flis_file *file, const flis_entry *entry, double *out)
{
    return read_pieces(ctx, file, entry, take_f64, out);
}

/* The values of an integer tensor. SPEC 10.1. */
bool flis_file_read_i64(flis_ctx *ctx, flis_file *file, const flis_entry *entry, int64_t *out)
{
    if (entry->dtype == FLIS_F64 || entry->dtype == FLIS_F32 || entry->dtype == FLIS_F16 || entry->dtype == FLIS_BF16)
        return flis_fail(ctx, "%s: tensor \"%.200s\": got %s, wanted integers", file->path, entry->name,
                         flis_entry_dtype(entry));
    return read_pieces(ctx, file, entry, take_i64, out);
}

/* The bits of F16 and BF16 values. SPEC 10.1. */
bool flis_file_read_u16(flis_ctx *ctx, flis_file *file, const flis_entry *entry, uint16_t *out)
{
    if (entry->dtype != FLIS_F16 && entry->dtype != FLIS_BF16)
        return flis_fail(ctx, "%s: tensor \"%.200s\": got %s, wanted F16 or BF16", file->path, entry->name,
                         flis_entry_dtype(entry));
    return read_pieces(ctx, file, entry, take_u16, out);
}

/* Bytes and booleans. SPEC 10.1. */
bool flis_file_read_u8(flis_ctx *ctx, flis_file *file, const flis_entry *entry, uint8_t *out)
{
    if (entry->dtype != FLIS_U8 && entry->dtype != FLIS_BOOL)
        return flis_fail(ctx, "%s: tensor \"%.200s\": got %s, wanted U8", file->path, entry->name,
                         flis_entry_dtype(entry));
    return read_pieces(ctx, file, entry, take_u8, out);
}

/* ---- Safetensors: writing -------------------------------------------------------------------------------------- */

struct flis_writer {
    char *path;
    flis_output out;
    FILE *stream; /* out's */
    flis_entry *entry;
    size_t count, room;
    char **metadata; /* key, value, … */
    size_t metadata_count;
    bool header_written;
    size_t current; /* the entry being written, and how many of its values are */
    uint64_t values;
};

/* Removes what was written so far, and frees the writer. SPEC 10.2. */
void flis_write_abort(flis_writer *writer)
{
    if (!writer) return;
    flis_output_abort(&writer->out);
    for (size_t i = 0; i < writer->count; i++) free(writer->entry[i].name);
    for (size_t i = 0; i < 2 * writer->metadata_count; i++) free(writer->metadata[i]);
    free(writer->metadata);
    free(writer->entry);
    free(writer->path);
    free(writer);
}

/* A writer without tensors. SPEC 10.2. */
flis_writer *flis_write_begin(flis_ctx *ctx, const char *path)
{
    if (!named(ctx, path, "safetensors file: its path")) return NULL;
    flis_writer *writer = flis_alloc(ctx, 1, sizeof *writer);
    if (!writer) return NULL;
    writer->path = copy_text(ctx, path, strlen(path));
    writer->stream = writer->path ? flis_output_open(ctx, path, &writer->out) : NULL;
    if (writer->stream) return writer;
    flis_write_abort(writer);
    return NULL;
}

/* One pair of metadata more, which must be UTF-8. SPEC 10.2. */
bool flis_write_metadata(flis_ctx *ctx, flis_writer *writer, const char *key, const char *value)
{
    if (!flis_given(ctx, writer, "safetensors file: its writer") || !flis_given(ctx, key, "metadata: its key") ||
        !flis_given(ctx, value, "metadata: its value"))
        return false;
    if (!is_utf8(key) || !is_utf8(value))
        return flis_fail(ctx, "%s: metadata %.200s: got bytes that are not UTF-8", writer->path, key);
    char **grown = realloc(writer->metadata, (writer->metadata_count + 1) * 2 * sizeof *grown);
    if (!grown) return flis_fail(ctx, "out of memory");
    writer->metadata = grown;
    grown[2 * writer->metadata_count] = copy_text(ctx, key, strlen(key));
    grown[2 * writer->metadata_count + 1] = copy_text(ctx, value, strlen(value));
    writer->metadata_count++;
    return flis_ok(ctx);
}

/* The next tensor: its data follows that of the tensor before it. SPEC 10.2. */
bool flis_write_declare(flis_ctx *ctx, flis_writer *writer, const char *name, flis_dtype dtype, int rank,
                        const uint64_t *shape)
{
    if (!flis_given(ctx, writer, "safetensors file: its writer") || !flis_given(ctx, name, "tensor: its name") ||
        (rank && !flis_given(ctx, shape, "tensor: its shape")))
        return false;
    if (rank < 0 || rank > FLIS_MAX_DIMS)
        return flis_fail(ctx, "%s: tensor \"%.200s\": got %d dimensions, wanted 0 to %d", writer->path, name, rank,
                         (int)FLIS_MAX_DIMS);
    if (!flis_dtype_size(dtype))
        return flis_fail(ctx, "%s: tensor \"%.200s\": got dtype %d, wanted one of flis_dtype", writer->path, name,
                         (int)dtype);
    if (writer->header_written) return flis_fail(ctx, "%s: tensor \"%s\" declared after data", writer->path, name);
    if (!is_utf8(name)) return flis_fail(ctx, "%s: tensor \"%.200s\": its name is not UTF-8", writer->path, name);
    if (strcmp(name, "__metadata__") == 0)
        return flis_fail(ctx, "%s: tensor \"%s\": a safetensors file keeps that name for its metadata", writer->path,
                         name);
    if (writer->count == writer->room) {
        size_t room = writer->room ? 2 * writer->room : 64;
        flis_entry *grown = realloc(writer->entry, room * sizeof *grown);
        if (!grown) return flis_fail(ctx, "out of memory");
        writer->entry = grown;
        writer->room = room;
    }
    flis_entry *entry = &writer->entry[writer->count];
    memset(entry, 0, sizeof *entry);
    if (!(entry->name = copy_text(ctx, name, strlen(name)))) return false;
    entry->dtype = dtype;
    entry->rank = rank;
    for (int i = 0; i < rank; i++) entry->shape[i] = shape[i];
    entry->begin = writer->count ? writer->entry[writer->count - 1].end : 0;
    entry->end = entry->begin + flis_entry_count(entry) * flis_dtype_size(dtype);
    writer->count++;
    return true;
}

/* A string of the header; its length, also when only measured. SPEC 10.2. */
static size_t write_json_string(FILE *stream, const char *text)
{
    size_t length = 2;
    if (stream) putc('"', stream);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        char escaped[8];
        if (c == '"' || c == '\\') snprintf(escaped, sizeof escaped, "\\%c", c);
        else if (c < 32) snprintf(escaped, sizeof escaped, "\\u%04x", c);
        else snprintf(escaped, sizeof escaped, "%c", c);
        length += strlen(escaped);
        if (stream) fputs(escaped, stream);
    }
    if (stream) putc('"', stream);
    return length;
}

/* Writes the header, or only measures it (stream NULL): both by the same lines, so that they agree. SPEC 10.2. */
static size_t write_header(const flis_writer *writer, FILE *stream)
{
    size_t length = 1;
    char piece[96];
#define PUT(...) \
    (length += (size_t)snprintf(piece, sizeof piece, __VA_ARGS__), stream ? (void)fputs(piece, stream) : (void)0)
    if (stream) putc('{', stream);
    if (writer->metadata_count) PUT("\"__metadata__\":{");
    for (size_t i = 0; i < writer->metadata_count; i++) {
        if (i) PUT(",");
        length += write_json_string(stream, writer->metadata[2 * i]);
        PUT(":");
        length += write_json_string(stream, writer->metadata[2 * i + 1]);
    }
    if (writer->metadata_count) PUT(writer->count ? "}," : "}");
    for (size_t i = 0; i < writer->count; i++) {
        const flis_entry *e = &writer->entry[i];
        if (i) PUT(",");
        length += write_json_string(stream, e->name);
        PUT(":{\"dtype\":\"%s\",\"shape\":[", flis_dtype_name(e->dtype));
        for (int k = 0; k < e->rank; k++) PUT("%s%llu", k ? "," : "", (unsigned long long)e->shape[k]);
        PUT("],\"data_offsets\":[%llu,%llu]}", (unsigned long long)e->begin, (unsigned long long)e->end);
    }
    PUT("}");
#undef PUT
    return length;
}

/* The header, once, padded with spaces to a multiple of 8 bytes as the format recommends. SPEC 10.2. */
static bool header_out(flis_ctx *ctx, flis_writer *writer)
{
    if (writer->header_written) return true;
    size_t length = write_header(writer, NULL), padded = (length + 7) / 8 * 8;
    for (int i = 0; i < 8; i++) putc((int)((uint64_t)padded >> 8 * i & 255), writer->stream);
    write_header(writer, writer->stream);
    for (size_t i = length; i < padded; i++) putc(' ', writer->stream);
    writer->header_written = true;
    if (ferror(writer->stream)) return write_failed(ctx, writer->path);
    return true;
}

/* One value, little-endian on every machine; to nearest where the type is narrower. SPEC 10.2. */
static void value_to(unsigned char *bytes, flis_dtype dtype, double value)
{
    uint64_t u = 0;
    float f = (float)value;
    uint32_t u32;
    memcpy(&u32, &f, sizeof u32);
    switch (dtype) {
    case FLIS_F64: memcpy(&u, &value, sizeof u); break;
    case FLIS_F32: u = u32; break;
    case FLIS_F16: u = flis_float_to_half(f); break;
    case FLIS_BF16: u = flis_float_to_bf16(f); break;
    default: u = (uint64_t)(int64_t)value; break;
    }
    for (size_t i = 0; i < DTYPES[dtype].size; i++) bytes[i] = (unsigned char)(u >> 8 * i & 255);
}

/* Bytes of the next `count` values, in pieces; `fill` converts them. */
typedef void fill_fn(unsigned char *bytes, const void *x, size_t first, size_t count, flis_dtype dtype);

static bool write_pieces(flis_ctx *ctx, flis_writer *writer, const void *x, size_t count, fill_fn *fill)
{
    unsigned char bytes[PIECE];
    if (!flis_given(ctx, writer, "safetensors file: its writer") ||
        (count && !flis_given(ctx, x, "safetensors file: the values")) || !header_out(ctx, writer))
        return false;
    size_t done = 0;
    while (done < count) {
        while (writer->current < writer->count && writer->values == flis_entry_count(&writer->entry[writer->current])) {
            writer->current++;
            writer->values = 0;
        }
        if (writer->current == writer->count) return flis_fail(ctx, "%s: more values than were declared", writer->path);
        const flis_entry *entry = &writer->entry[writer->current];
        size_t size = flis_dtype_size(entry->dtype), now = PIECE / size;
        uint64_t left = flis_entry_count(entry) - writer->values;
        if (now > count - done) now = count - done;
        if (now > left) now = (size_t)left;
        fill(bytes, x, done, now, entry->dtype);
        if (fwrite(bytes, size, now, writer->stream) != now) return write_failed(ctx, writer->path);
        done += now;
        writer->values += now;
    }
    return true;
}

static void fill_real(unsigned char *bytes, const void *x, size_t first, size_t count, flis_dtype dtype)
{
    for (size_t i = 0; i < count; i++)
        value_to(bytes + i * DTYPES[dtype].size, dtype, ((const flis_real *)x)[first + i]);
}

static void fill_f64(unsigned char *bytes, const void *x, size_t first, size_t count, flis_dtype dtype)
{
    for (size_t i = 0; i < count; i++) value_to(bytes + i * DTYPES[dtype].size, dtype, ((const double *)x)[first + i]);
}

static void fill_i64(unsigned char *bytes, const void *x, size_t first, size_t count, flis_dtype dtype)
{
    for (size_t i = 0; i < count; i++)
        for (size_t b = 0; b < DTYPES[dtype].size; b++)
            bytes[i * DTYPES[dtype].size + b] =
                (unsigned char)((uint64_t)((const int64_t *)x)[first + i] >> 8 * b & 255);
}

static void fill_u8(unsigned char *bytes, const void *x, size_t first, size_t count, flis_dtype dtype)
{
    (void)dtype;
    memcpy(bytes, (const uint8_t *)x + first, count);
}

static void fill_raw(unsigned char *bytes, const void *x, size_t first, size_t count, flis_dtype dtype)
{
    const size_t size = DTYPES[dtype].size;
    memcpy(bytes, (const unsigned char *)x + first * size, count * size);
}

/* Bytes that are little-endian already. SPEC 10.2. */
bool flis_write_raw(flis_ctx *ctx, flis_writer *writer, const unsigned char *bytes, size_t count)
{
    return write_pieces(ctx, writer, bytes, count, fill_raw);
}

/* Reals, converted to the declared type. SPEC 10.2. */
bool flis_write_real(flis_ctx *ctx, flis_writer *writer, const flis_real *x, size_t count)
{
    return write_pieces(ctx, writer, x, count, fill_real);
}

/* Doubles, converted to the declared type. SPEC 10.2. */
bool flis_write_f64(flis_ctx *ctx, flis_writer *writer, const double *x, size_t count)
{
    return write_pieces(ctx, writer, x, count, fill_f64);
}

/* Integers, of the declared width. SPEC 10.2. */
bool flis_write_i64(flis_ctx *ctx, flis_writer *writer, const int64_t *x, size_t count)
{
    return write_pieces(ctx, writer, x, count, fill_i64);
}

/* Bytes and booleans. SPEC 10.2. */
bool flis_write_u8(flis_ctx *ctx, flis_writer *writer, const uint8_t *x, size_t count)
{
    return write_pieces(ctx, writer, x, count, fill_u8);
}

/* Every declared value must have been written; then the file appears under its name. SPEC 10.2. */
bool flis_write_end(flis_ctx *ctx, flis_writer *writer)
{
    if (!writer) return flis_given(ctx, writer, "safetensors file: its writer");
    if (flis_ok(ctx) && header_out(ctx, writer)) {
        while (writer->current < writer->count && writer->values == flis_entry_count(&writer->entry[writer->current])) {
            writer->current++;
            writer->values = 0;
        }
        if (writer->current < writer->count)
            flis_fail(ctx, "%s: tensor \"%s\" was declared but not written", writer->path,
                      writer->entry[writer->current].name);
    }
    flis_output_close(ctx, &writer->out);
    flis_write_abort(writer);
    return flis_ok(ctx);
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

/* A whole file, read until its end: what is no regular file (a pipe) can be read too. SPEC 10.8. */
char *flis_read_file(flis_ctx *ctx, const char *path, size_t limit, size_t *length)
{
    if (length) *length = 0;
    if (!named(ctx, path, "file: its path") || !flis_given(ctx, length, "file: where its length goes")) return NULL;
    FILE *file = fopen(path, "rb");
    if (!file) return flis_fail(ctx, "%s: cannot be opened", path), NULL;
    char *text = read_stream(ctx, file, path, limit, length);
    fclose(file);
    return text;
}

/* The same from where a stream stands. */
static char *read_stream(flis_ctx *ctx, FILE *file, const char *path, size_t limit, size_t *length)
{
    byte_buffer b = {0};
    for (size_t got = 1; got && b.count <= limit && bytes_reserve(ctx, &b, 4096); b.count += got)
        got = fread(b.at + b.count, 1, b.room - b.count, file);
    if (ferror(file)) flis_fail(ctx, "%s: cannot be read: is it a folder?", path);
    else if (b.count > limit) flis_fail(ctx, "%s: got more bytes than the %zu that are allowed", path, limit);
    bytes_put_u8(ctx, &b, 0);
    if (!flis_ok(ctx)) {
        free(b.at);
        return NULL;
    }
    *length = b.count - 1;
    return (char *)b.at;
}

/* ---- Kinds of files ---------------------------------------------------------------------------------------------- */

/* The bytes at a fixed place that name a kind. */
static const struct {
    flis_kind kind;
    size_t at;
    const char *magic;
    size_t length;
} MAGIC[] = {
#define BYTES(text) text, sizeof(text) - 1
    {FLIS_KIND_LFS, 0, BYTES("version https://git-lfs")},
    {FLIS_KIND_LFS, 0, BYTES("version https://hawser")}, /* the older name */
    {FLIS_KIND_ZIP, 0, BYTES("PK\3\4")},
    {FLIS_KIND_ZIP, 0, BYTES("PK\5\6")}, /* without entries */
    {FLIS_KIND_GZIP, 0, BYTES("\x1F\x8B")},
    {FLIS_KIND_ARCHIVE, 0, BYTES("7z\xBC\xAF\x27\x1C")},
    {FLIS_KIND_ARCHIVE, 0, BYTES("Rar!\x1A\7")},
    {FLIS_KIND_ARCHIVE, 0, BYTES("\xFD\x37zXZ\0")},
    {FLIS_KIND_ARCHIVE, 0, BYTES("BZh")},
    {FLIS_KIND_ARCHIVE, 0, BYTES("\x28\xB5\x2F\xFD")},
    {FLIS_KIND_TAR, 257, BYTES("ustar")},
    {FLIS_KIND_GGUF, 0, BYTES("GGUF")},
    {FLIS_KIND_GGUF, 0, BYTES("ggjt")},
    {FLIS_KIND_GGUF, 0, BYTES("lmgg")},
    {FLIS_KIND_TFLITE, 4, BYTES("TFL3")},
    {FLIS_KIND_HDF5, 0, BYTES("\x89HDF\r\n\x1A\n")},
    {FLIS_KIND_NPY, 0, BYTES("\x93NUMPY")},
    {FLIS_KIND_PNG, 0, BYTES("\x89PNG")},
    {FLIS_KIND_JPEG, 0, BYTES("\xFF\xD8\xFF")},
    {FLIS_KIND_PICTURE, 0, BYTES("GIF8")},
    {FLIS_KIND_PICTURE, 0, BYTES("II*\0")},
    {FLIS_KIND_PICTURE, 0, BYTES("MM\0*")},
    {FLIS_KIND_PICTURE, 8, BYTES("WEBPVP8")},
    {FLIS_KIND_PICTURE, 6, BYTES("\0\0\0\0")}, /* with "BM" before them: below */
    {FLIS_KIND_PDF, 0, BYTES("%PDF-")},
    {FLIS_KIND_PROGRAM, 0,
     BYTES("\x7F"
           "ELF")},
    {FLIS_KIND_PROGRAM, 0, BYTES("MZ\x90\0")},
    {FLIS_KIND_PROGRAM, 0, BYTES("\xCF\xFA\xED\xFE")},
    {FLIS_KIND_UTF16, 0, BYTES("\xFF\xFE")},
    {FLIS_KIND_UTF16, 0, BYTES("\xFE\xFF")},
#undef BYTES
};

static const char *const KIND_TEXT[FLIS_KINDS] = {
    [FLIS_KIND_EMPTY] = "an empty file",
    [FLIS_KIND_SAFETENSORS] = "a safetensors file",
    [FLIS_KIND_ZIP] = "a zip archive",
    [FLIS_KIND_PICKLE] = "a Python pickle",
    [FLIS_KIND_TAR] = "a tar archive",
    [FLIS_KIND_GZIP] = "a gzip file",
    [FLIS_KIND_ARCHIVE] = "a compressed archive (7z, RAR, xz, bzip2 or zstd)",
    [FLIS_KIND_LFS] = "a Git LFS pointer, not the file itself (`git lfs pull` fetches the file)",
    [FLIS_KIND_HTML] =
        "an HTML page, not the file (a download that asks for a confirmation or a log-in stores such a page)",
    [FLIS_KIND_XML] = "an XML text (perhaps a server's error message)",
    [FLIS_KIND_JSON] = "a JSON text",
    [FLIS_KIND_UTF16] = "text in UTF-16",
    [FLIS_KIND_GGUF] = "a GGUF file (quantised weights, which flis does not read)",
    [FLIS_KIND_ONNX] = "an ONNX file (a graph, which flis does not read)",
    [FLIS_KIND_TFLITE] = "a TensorFlow Lite file",
    [FLIS_KIND_HDF5] = "an HDF5 file (as Keras writes)",
    [FLIS_KIND_NPY] = "a NumPy array",
    [FLIS_KIND_PNG] = "a PNG picture",
    [FLIS_KIND_JPEG] = "a JPEG picture",
    [FLIS_KIND_PICTURE] = "a picture (GIF, BMP, TIFF or WebP)",
    [FLIS_KIND_PDF] = "a PDF document",
    [FLIS_KIND_PROGRAM] = "a program",
};

/* Whether text begins with the word, in any case. */
static bool begins_with(const uint8_t *text, size_t length, const char *word)
{
    size_t i = 0;
    for (; word[i]; i++) {
        if (i >= length) return false;
        const int c = text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i];
        if (c != (uint8_t)word[i]) return false;
    }
    return true;
}

/* After a byte-order mark and blanks. */
static flis_kind kind_of_text(const uint8_t *p, size_t length)
{
    static const char *const html[] = {"<!doctype html", "<html",  "<head", "<body", "<script",
                                       "<meta",          "<title", "<!--",  "<style"};
    size_t at = length >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < length && (p[at] == ' ' || p[at] == '\t' || p[at] == '\r' || p[at] == '\n')) at++;
    if (at == length) return FLIS_KIND_UNKNOWN;
    for (size_t i = 0; i < COUNT(html); i++)
        if (begins_with(p + at, length - at, html[i])) return FLIS_KIND_HTML;
    if (begins_with(p + at, length - at, "<?xml")) return FLIS_KIND_XML;
    return p[at] == '{' || p[at] == '[' ? FLIS_KIND_JSON : FLIS_KIND_UNKNOWN;
}

/* A protobuf message: field 1 (ir_version), a small number; then field 2 or 3, the name of the program that wrote the file. */
static bool is_onnx(const uint8_t *p, size_t length)
{
    if (length < 8 || p[0] != 8 || p[1] == 0 || p[1] > 31 || (p[2] != 0x12 && p[2] != 0x1A)) return false;
    const size_t name = p[3];
    if (name < 2 || 4 + name > length) return false;
    for (size_t i = 0; i < name; i++)
        if (p[4 + i] < ' ' || p[4 + i] > '~') return false;
    return true;
}

/* A table of marks, then what has none at a fixed place. SPEC 10.8. */
flis_kind flis_kind_of(const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    if (!p || !length) return FLIS_KIND_EMPTY;
    for (size_t i = 0; i < COUNT(MAGIC); i++) {
        if (MAGIC[i].at == 6 && (p[0] != 'B' || length < 2 || p[1] != 'M')) continue;
        if (length >= MAGIC[i].at + MAGIC[i].length && memcmp(p + MAGIC[i].at, MAGIC[i].magic, MAGIC[i].length) == 0)
            return MAGIC[i].kind;
    }
    if (length > 8 && p[8] == '{' && !p[4] && !p[5] && !p[6] && !p[7]) return FLIS_KIND_SAFETENSORS;
    if (length > 2 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5) return FLIS_KIND_PICKLE;
    return is_onnx(p, length) ? FLIS_KIND_ONNX : kind_of_text(p, length);
}

/* One phrase for each kind. SPEC 10.8. */
const char *flis_kind_text(flis_kind kind)
{
    return (unsigned)kind < FLIS_KINDS ? KIND_TEXT[kind] : NULL;
}

/* The beginning of a file on disk. SPEC 10.8. */
flis_kind flis_file_kind(const char *path)
{
    uint8_t head[FLIS_KIND_BYTES];
    if (!path || is_folder(path) || is_special(path)) return FLIS_KIND_UNKNOWN;
    FILE *file = fopen(path, "rb");
    if (!file) return FLIS_KIND_UNKNOWN;
    const size_t got = fread(head, 1, sizeof head, file);
    const bool read = !ferror(file);
    fclose(file);
    return read ? flis_kind_of(head, got) : FLIS_KIND_UNKNOWN;
}

/* The descriptor that a path names; -1: none. "-" is standard output; /dev/fd/3, /proc/self/fd/3 and the like, however they are
   spelled, are entries of the folder of this process's descriptors. SPEC 10.2. */
static int descriptor_of(const char *path)
{
    const char *name = base_name(path);
    const size_t folder = (size_t)(name - path), digits = strspn(name, "0123456789");
    if (strcmp(path, "-") == 0 || strcmp(path, "/dev/stdout") == 0) return 1;
    if (strcmp(path, "/dev/stderr") == 0) return 2;
    if (!folder || !digits || digits > 6 || name[digits]) return -1;
    if (!is_that_folder(path, folder, "/proc/self/fd") && !is_that_folder(path, folder, "/dev/fd")) return -1;
    return (int)strtol(name, NULL, 10);
}

/* What a path stands for once symbolic links are followed, whether or not it exists yet; malloc'ed. Links are followed
   one by one because the last may point to a file that does not exist, for which realpath has no answer, and because one
   on the way may name a descriptor of this process (*descriptor; -1: none). SPEC 10.2. */
static char *link_target(flis_ctx *ctx, const char *path, int *descriptor)
{
    enum { LONGEST_LINK = 4096, MOST_LINKS = 40 };
    char *target = copy_text(ctx, path, strlen(path)), next[LONGEST_LINK];
    for (int links = 0; target; links++) {
        *descriptor = descriptor_of(target);
        const ptrdiff_t length = *descriptor < 0 && !is_sink(path) ? link_text(target, next, sizeof next) : -1;
        if (length < 0) return target;
        const size_t folder = IS_ABSOLUTE(next) ? 0 : (size_t)(base_name(target) - target);
        char *joined = NULL;
        if (links == MOST_LINKS || length == LONGEST_LINK)
            flis_fail(ctx, "%s: the name is too long, or its links lead in a circle", path);
        else joined = flis_alloc(ctx, folder + (size_t)length + 1, 1);
        if (joined) {
            memcpy(joined, target, folder);
            memcpy(joined + folder, next, (size_t)length);
        }
        free(target);
        target = joined;
    }
    return NULL;
}

/* Only a regular file may be replaced, or a name that is free. SPEC 10.2. */
static bool replaceable(flis_ctx *ctx, const char *path, const char *target)
{
    if (is_folder(target)) return flis_fail(ctx, "%s: is a folder, wanted a file name", path);
    if (!*base_name(target)) return flis_fail(ctx, "%s: got the name of a folder, wanted a file name", path);
    if (is_special(target)) return flis_fail(ctx, "%s: is not a regular file, and only those are replaced", path);
    if (is_protected(target)) return flis_fail(ctx, "%s: cannot be written: the file is write-protected", path);
    return flis_ok(ctx);
}

/* What the system says of a write that failed. SPEC 10.2. */
static bool write_failed(flis_ctx *ctx, const char *path)
{
    return flis_fail(ctx, "%s: cannot be written: %s", path, errno ? strerror(errno) : "the disk may be full");
}

/* Why no temporary file could be made beside the target. SPEC 10.2. */
static void no_partial(flis_ctx *ctx, const flis_output *out, made how)
{
    const char *reason = strerror(errno);
    const size_t folder = (size_t)(base_name(out->target) - out->target);
    char *name = flis_alloc(ctx, folder + 1, 1);
    if (name) memcpy(name, out->target, folder);
    if (!name) return;
    if (how == EXISTED)
        flis_fail(ctx, "%s: cannot be written: there are too many unfinished files (%s) beside it", out->path,
                  out->partial);
    else if (HAVE_POSIX && folder && !is_folder(name))
        flis_fail(ctx, "%s: cannot be written: there is no folder %s", out->path, name);
    else flis_fail(ctx, "%s: cannot be written: %s", out->path, reason);
    free(name);
}

/* Makes the file that has the bytes until they are complete: TARGET.partial or, where a file of that name is somebody else's,
   TARGET.2.partial and so on; a target whose name is almost too long has flis.partial beside it. SPEC 10.2. */
static FILE *make_partial(flis_ctx *ctx, flis_output *out)
{
    enum { MOST = 100, ROOM = 32 };
    const size_t folder = (size_t)(base_name(out->target) - out->target), room = strlen(out->target) + ROOM;
    bool brief = false;
    made how = EXISTED;
    out->partial = flis_alloc(ctx, room, 1);
    for (int i = 1; out->partial && i <= MOST && (how == EXISTED || (how == NAME_TOO_LONG && !brief)); i++) {
        if (how == NAME_TOO_LONG) brief = true, i = 1;
        const int start = snprintf(out->partial, room, "%.*s%s", brief ? (int)folder : (int)strlen(out->target),
                                   out->target, brief ? "flis" : "");
        snprintf(out->partial + start, room - (size_t)start, i > 1 ? ".%d.partial" : ".partial", i);
        how = make_new(out->partial, out->target, &out->stream);
    }
    if (out->partial && how != MADE) no_partial(ctx, out, how);
    return out->stream;
}

/* The bytes go to a temporary name beside the target; those for a pipe or a device go straight to it. SPEC 10.2. */
FILE *flis_output_open(flis_ctx *ctx, const char *path, flis_output *out)
{
    int descriptor = -1;
    if (out) memset(out, 0, sizeof *out); /* first: whoever closes it after a failure must find it empty */
    if (!flis_given(ctx, out, "output: its record") || !named(ctx, path, "output: its path")) return NULL;
    out->path = copy_text(ctx, path, strlen(path));
    out->target = link_target(ctx, path, &descriptor);
    if (out->target && (descriptor >= 0 || is_sink(out->target))) {
        fflush(NULL); /* what was written to the same descriptor before comes first */
        errno = 0;
        out->stream = open_sink(descriptor, out->target);
        if (!out->stream) write_failed(ctx, path);
    } else if (out->target && replaceable(ctx, path, out->target)) make_partial(ctx, out);
    if (!out->stream) flis_output_abort(out);
    return out->stream;
}

/* The file appears under its name only when every byte of it is on the disk. SPEC 10.2. */
bool flis_output_close(flis_ctx *ctx, flis_output *out)
{
    if (!ctx || !out) return false;
    if (flis_ok(ctx) && out->stream) {
        bool written = !ferror(out->stream);
        errno = 0;
        if (written && !flush_to_disk(out->stream)) written = false;
        const int reason = written ? 0 : errno;
        written = fclose(out->stream) == 0 && written;
        out->stream = NULL;
        if (reason) errno = reason;
        if (!written) write_failed(ctx, out->path);
        else if (out->partial && replaceable(ctx, out->path, out->target) && REPLACE(out->partial, out->target) != 0)
            write_failed(ctx, out->path);
        if (!flis_ok(ctx) && out->partial) remove(out->partial);
    }
    flis_output_abort(out);
    return flis_ok(ctx);
}

/* Removes what was written; a closed output only frees its names. SPEC 10.2. */
void flis_output_abort(flis_output *out)
{
    if (!out) return;
    if (out->stream) {
        fclose(out->stream);
        if (out->partial) remove(out->partial);
    }
    free(out->path);
    free(out->target);
    free(out->partial);
    memset(out, 0, sizeof *out);
}

/* A file from bytes. SPEC 10.2. */
static bool write_file(flis_ctx *ctx, const char *path, const byte_buffer *b)
{
    flis_output out;
    FILE *stream = flis_output_open(ctx, path, &out);
    if (!stream) return false;
    if (fwrite(b->at, 1, b->count, stream) != b->count) write_failed(ctx, path);
    return flis_output_close(ctx, &out);
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------- */

/* Room for `more` bytes behind count; doubles, so that appending is linear. */
static bool bytes_reserve(flis_ctx *ctx, byte_buffer *b, size_t more)
{
    if (!flis_ok(ctx)) return false;
    if (b->room - b->count >= more) return true;
    size_t room = b->room < 4096 ? 4096 : b->room <= SIZE_MAX / 2 ? b->room * 2 : b->room;
    if (more > SIZE_MAX - b->count) return flis_fail(ctx, "out of memory: more than this machine can address");
    if (room < b->count + more) room = b->count + more;
    uint8_t *at = realloc(b->at, room);
    if (!at) return flis_fail(ctx, "out of memory: wanted %zu bytes", room);
    b->at = at;
    b->room = room;
    return true;
}

static void bytes_put(flis_ctx *ctx, byte_buffer *b, const void *from, size_t count)
{
    if (!count || !bytes_reserve(ctx, b, count)) return;
    memcpy(b->at + b->count, from, count);
    b->count += count;
}

static void bytes_put_u8(flis_ctx *ctx, byte_buffer *b, unsigned value)
{
    if (b->count == b->room && !bytes_reserve(ctx, b, 1)) return;
    b->at[b->count++] = (uint8_t)value;
}

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void bytes_put_u32(flis_ctx *ctx, byte_buffer *b, uint32_t value)
{
    const uint8_t four[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    bytes_put(ctx, b, four, 4);
}

/* One code point of UTF-8 (RFC 3629: shortest form, no surrogates) and its length; -1 and length 1 if it is none. */
static long utf8_next(const uint8_t *p, const uint8_t *end, size_t *length)
{
    static const long least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
               : (p[0] & 0xF0) == 0xE0       ? 3
               : (p[0] & 0xF8) == 0xF0       ? 4
                                             : 0;
    *length = 1;
    if (n == 1) return p[0];
    if (!n || (size_t)(end - p) < n) return -1;
    long point = p[0] & (0xFF >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) return -1;
        point = point << 6 | (p[i] & 0x3F);
    }
    if (point < least[n] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return -1;
    *length = n;
    return point;
}

static size_t utf8_put(char *out, long point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    const size_t n = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)((0xF00 >> n & 0xFF) | point);
    return n;
}

static bool is_utf8(const char *text)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + strlen(text);
    for (size_t length; at < end; at += length)
        if (utf8_next(at, end, &length) < 0) return false;
    return true;
}

/* ---- JSON (RFC 8259) --------------------------------------------------------------------------------------------- */

enum { JSON_DEPTH = 64, JSON_VALUES = 1 << 20 }; /* a value takes up to 200 bytes; a model's header has 10,000 */

typedef struct json_reader {
    flis_ctx *ctx;
    const char *name;
    const uint8_t *at, *end;
    int line, column; /* of `at`, from 1; columns count characters, as editors do */
    int depth, values;
} json_reader;

static bool json_value(json_reader *r, flis_json *out);

static bool json_fail(const json_reader *r, const char *format, ...)
{
    char sentence[256];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return flis_fail(r->ctx, "%s:%d:%d: %s", r->name, r->line, r->column, sentence);
}

/* What other formats have here and JSON has not; "": nothing that is known. */
static const char *json_hint(const json_reader *r)
{
    static const struct {
        const char *start, *hint;
    } hints[] = {{"//", " (JSON has no comments)"},
                 {"/*", " (JSON has no comments)"},
                 {"#", " (JSON has no comments)"},
                 {"--", " (JSON has no comments)"},
                 {"\x27", " (JSON has only double quotes)"},
                 {"\x60", " (JSON has only double quotes)"},
                 {"\xE2\x80\x9C", " (JSON has only straight quotes)"},
                 {"\xE2\x80\x9D", " (JSON has only straight quotes)"},
                 {"\xE2\x80\x98", " (JSON has only straight double quotes)"},
                 {"\xE2\x80\x99", " (JSON has only straight double quotes)"},
                 {"\xC2\xA0", " (a non-breaking space)"},
                 {"nan", " (JSON has no NaN)"},
                 {"inf", " (JSON has no Infinity)"},
                 {"-inf", " (JSON has no Infinity)"},
                 {"true", " (JSON writes true in lower case)"},
                 {"false", " (JSON writes false in lower case)"},
                 {"none", " (JSON has null instead)"},
                 {"undefined", " (JSON has null instead)"}};
    for (size_t i = 0; i < COUNT(hints); i++)
        if (begins_with(r->at, (size_t)(r->end - r->at), hints[i].start)) return hints[i].hint;
    return "";
}

/* "got X, wanted …", where X is what stands here. */
static bool json_unexpected(const json_reader *r, const char *wanted)
{
    if (r->at == r->end) return json_fail(r, "got the end of the text, wanted %s", wanted);
    const char *hint = json_hint(r);
    if (*r->at == '\n' || *r->at == '\r') return json_fail(r, "got the end of the line, wanted %s", wanted);
    if (*r->at > ' ' && *r->at < 0x7F) return json_fail(r, "got '%c', wanted %s%s", *r->at, wanted, hint);
    size_t length;
    const long point = utf8_next(r->at, r->end, &length);
    if (point < 0x80) return json_fail(r, "got byte 0x%02X, wanted %s", *r->at, wanted);
    return json_fail(r, "got character U+%04lX, wanted %s%s", (unsigned long)point, wanted, hint);
}

/* Moves past one character of `length` bytes. */
static void json_step(json_reader *r, size_t length)
{
    if (*r->at == '\n') {
        r->line++;
        r->column = 1;
    } else r->column++;
    r->at += length;
}

static void json_space(json_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) json_step(r, 1);
}

/* Moves past `c` if it is next. */
static bool json_accept(json_reader *r, char c)
{
    if (r->at == r->end || *r->at != (uint8_t)c) return false;
    json_step(r, 1);
    return true;
}

/* value = "null" / "false" / "true" */
static bool json_word(json_reader *r, const char *word, flis_json_type type, flis_json *out)
{
    const size_t left = (size_t)(r->end - r->at);
    if (begins_with(r->at, left, "nan") || begins_with(r->at, left, "none")) return json_unexpected(r, "a value");
    for (const char *c = word; *c; c++)
        if (!json_accept(r, *c)) return json_unexpected(r, "null, true, false or another value");
    out->type = type;
    return true;
}

static bool json_digits(json_reader *r)
{
    const uint8_t *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') json_step(r, 1);
    return r->at > start || json_unexpected(r, "a digit");
}

/* strtod reads the decimal point of the program's locale, which may be a comma. */
static double number_value(flis_ctx *ctx, const char *literal)
{
    char *end;
    double value = strtod(literal, &end);
    if (*end != '.') return value;
    const char *point = localeconv()->decimal_point;
    const size_t room = strlen(literal) + strlen(point) + 1, whole = strcspn(literal, ".");
    char *local = flis_alloc(ctx, room, 1);
    if (!local) return 0;
    memcpy(local, literal, whole);
    strcpy(local + whole, point);
    strcat(local, literal + whole + 1);
    value = strtod(local, NULL);
    free(local);
    return value;
}

/* number = [ "-" ] ( "0" / 1-9 digits ) [ "." digits ] [ "e" [ "+" / "-" ] digits ] */
static bool json_number(json_reader *r, flis_json *out)
{
    const json_reader start = *r;
    if (*json_hint(r)) return json_unexpected(r, "a value"); /* -Infinity, or -- */
    json_accept(r, '-');
    if (!json_accept(r, '0') && !json_digits(r)) return false;
    if (json_accept(r, '.') && !json_digits(r)) return false;
    if (json_accept(r, 'e') || json_accept(r, 'E')) {
        if (!json_accept(r, '+')) json_accept(r, '-');
        if (!json_digits(r)) return false;
    }
    out->type = FLIS_NUMBER;
    out->length = (size_t)(r->at - start.at);
    out->string = flis_alloc(r->ctx, out->length + 1, 1);
    if (!out->string) return false;
    memcpy(out->string, start.at, out->length);
    out->literal = out->string;
    out->number = number_value(r->ctx, out->literal);
    return fabs(out->number) <= DBL_MAX || json_fail(&start, "a number is larger than a double can hold");
}

/* Four hexadecimal digits after "\u". */
static long json_hex(json_reader *r)
{
    long value = 0;
    for (int i = 0; i < 4; i++) {
        int c = r->at < r->end ? *r->at : 0;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            json_unexpected(r, "a hexadecimal digit");
            return -1;
        }
        value = value << 4 | digit;
        json_step(r, 1);
    }
    return value;
}

/* The character after a backslash, as a code point; -1 where none is allowed. Characters beyond U+FFFF come as two
   escapes, a high surrogate and a low one; either alone is an error. */
static long json_escape(json_reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const json_reader start = *r;
    json_step(r, 1);
    const char *found = r->at < r->end && *r->at ? strchr(from, *r->at) : NULL;
    if (found) {
        json_step(r, 1);
        return to[found - from];
    }
    if (!json_accept(r, 'u')) {
        json_unexpected(r, "one of \" \\ / b f n r t u after a backslash (a backslash of a path is written twice)");
        return -1;
    }
    long high = json_hex(r), low = 0;
    if (high < 0xD800 || high > 0xDFFF) return high;
    if (high < 0xDC00 && r->end - r->at >= 2 && r->at[0] == '\\' && r->at[1] == 'u') {
        json_step(r, 1);
        json_step(r, 1);
        if ((low = json_hex(r)) < 0) return -1;
    }
    if (low < 0xDC00 || low > 0xDFFF) {
        json_fail(&start, "half of a surrogate pair: \\u%04lX", high);
        return -1;
    }
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

/* unescaped = %x20-21 / %x23-5B / %x5D-10FFFF */
static long json_character(json_reader *r, const uint8_t *close)
{
    size_t length;
    long point = utf8_next(r->at, close, &length);
    if (point >= 0x20) json_step(r, length);
    else if (point >= 0) json_fail(r, "a string has a control character, 0x%02lX, wanted an escape", point);
    else json_fail(r, "a string has a byte that is not UTF-8, 0x%02X", *r->at);
    return point >= 0x20 ? point : -1;
}

/* string = quote *( unescaped / escape ) quote. The decoded text is never longer than the written one. */
static bool json_string(json_reader *r, flis_json *out)
{
    const uint8_t *close = r->at + 1;
    while (close < r->end && *close != '"') close += *close == '\\' && r->end - close > 1 ? 2 : 1;
    if (close >= r->end) return json_fail(r, "a string has no closing quote");
    out->type = FLIS_STRING;
    out->string = flis_alloc(r->ctx, (size_t)(close - r->at), 1);
    if (!out->string) return false;
    for (json_step(r, 1); r->at < close;) {
        long point = *r->at == '\\' ? json_escape(r) : json_character(r, close);
        if (point < 0) return false;
        out->length += utf8_put(out->string + out->length, point);
    }
    return json_accept(r, '"');
}

/* A zeroed element after the `count` members of *items; the array's room is the next power of two. */
static flis_json *json_append(json_reader *r, flis_json **items, size_t count)
{
    if (++r->values > JSON_VALUES) {
        json_fail(r, "more than %d values", JSON_VALUES);
        return NULL;
    }
    if ((count & (count - 1)) == 0) {
        const size_t room = count ? 2 * count : 1;
        flis_json *grown = room <= SIZE_MAX / sizeof *grown ? realloc(*items, room * sizeof *grown) : NULL;
        if (!grown) {
            flis_fail(r->ctx, "%s: out of memory", r->name);
            return NULL;
        }
        *items = grown;
    }
    flis_json *last = *items + count;
    memset(last, 0, sizeof *last);
    last->line = r->line;
    last->column = r->column;
    return last;
}

/* member = string ":" value */
static bool json_member(json_reader *r, flis_json *out)
{
    if (r->at == r->end || *r->at != '"') return json_unexpected(r, "a name in quotes");
    flis_json *key = json_append(r, &out->key, out->count), *item = key ? json_append(r, &out->item, out->count) : NULL;
    if (!item) return false;
    out->count++;
    if (!json_string(r, key)) return false;
    json_space(r);
    if (!json_accept(r, ':')) return json_unexpected(r, "':'");
    json_space(r);
    return json_value(r, item);
}

static bool json_element(json_reader *r, flis_json *out)
{
    flis_json *item = json_append(r, &out->item, out->count);
    if (!item) return false;
    out->count++;
    return json_value(r, item);
}

/* object = "{" [ member *( "," member ) ] "}"; array = "[" [ value *( "," value ) ] "]" */
static bool json_group(json_reader *r, flis_json_type type, flis_json *out)
{
    const char close = type == FLIS_OBJECT ? '}' : ']';
    out->type = type;
    if (r->depth == JSON_DEPTH) return json_fail(r, "nested more than %d levels deep", JSON_DEPTH);
    r->depth++;
    json_step(r, 1);
    json_space(r);
    bool more = !json_accept(r, close), first = true;
    for (; more; first = false) {
        if (!first && r->at < r->end && *r->at == (uint8_t)close)
            return json_fail(r, "got '%c', wanted %s (JSON has no trailing commas)", close,
                             type == FLIS_OBJECT ? "a name in quotes" : "a value");
        if (!(type == FLIS_OBJECT ? json_member(r, out) : json_element(r, out))) return false;
        json_space(r);
        more = json_accept(r, ',');
        if (!more && !json_accept(r, close))
            return json_unexpected(r, type == FLIS_OBJECT ? "',' or '}'" : "',' or ']'");
        json_space(r);
    }
    r->depth--;
    return true;
}

static bool json_value(json_reader *r, flis_json *out)
{
    out->line = r->line;
    out->column = r->column;
    switch (r->at < r->end ? *r->at : 0) {
    case 'n': return json_word(r, "null", FLIS_NULL, out);
    case 'f': return json_word(r, "false", FLIS_FALSE, out);
    case 't': return json_word(r, "true", FLIS_TRUE, out);
    case '"': return json_string(r, out);
    case '{': return json_group(r, FLIS_OBJECT, out);
    case '[': return json_group(r, FLIS_ARRAY, out);
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9': return json_number(r, out);
    default: return json_unexpected(r, "a value");
    }
}

static void json_clear(flis_json *json)
{
    for (size_t i = 0; i < json->count; i++) {
        json_clear(&json->item[i]);
        if (json->key) free(json->key[i].string);
    }
    free(json->item);
    free(json->key);
    free(json->string);
}

/* Frees a whole tree. SPEC 10.8. */
void flis_json_free(flis_json *json)
{
    if (!json) return;
    json_clear(json);
    free(json);
}

/* The encoding of a text that is not UTF-8: by its byte order mark, or by the zeros of its first characters, which are ASCII
   in JSON; NULL: neither. */
static const char *other_encoding(const uint8_t *p, size_t length)
{
    if (length < 2) return NULL;
    const bool quad = length >= 4;
    if (quad && ((!p[0] && !p[1] && p[2] == 0xFE && p[3] == 0xFF) || (p[0] == 0xFF && p[1] == 0xFE && !p[2] && !p[3]) ||
                 (!p[0] && !p[1] && !p[2] && p[3]) || (p[0] && !p[1] && !p[2] && !p[3])))
        return "UTF-32";
    if ((p[0] == 0xFF && p[1] == 0xFE) || (p[0] == 0xFE && p[1] == 0xFF)) return "UTF-16";
    return quad && ((!p[0] && p[1] && !p[2] && p[3]) || (p[0] && !p[1] && p[2] && !p[3])) ? "UTF-16" : NULL;
}

/* text = space value space. SPEC 10.8. */
flis_json *flis_json_parse(flis_ctx *ctx, const char *name, const char *text, size_t length)
{
    if (!flis_given(ctx, text, "JSON: its text")) return NULL;
    json_reader r = {ctx, name ? name : "JSON", (const uint8_t *)text, (const uint8_t *)text + length, 1, 1, 0, 0};
    if (length > INT_MAX) {
        flis_fail(ctx, "%s: got %zu bytes of JSON, wanted at most %d", name, length, INT_MAX);
        return NULL;
    }
    const char *encoding = other_encoding(r.at, length);
    if (encoding) {
        flis_fail(ctx, "%s: is text in %s, wanted UTF-8: save the file as UTF-8", r.name, encoding);
        return NULL;
    }
    flis_json *json = flis_alloc(ctx, 1, sizeof *json);
    if (!json) return NULL;
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) r.at += 3; /* as RFC 8259, section 8.1, allows */
    json_space(&r);
    bool ok = json_value(&r, json);
    json_space(&r);
    if (ok && r.at < r.end)
        ok = json_unexpected(&r, *r.at == '{' || *r.at == '[' ? "nothing after the value (one JSON text has one value)"
                                                              : "nothing after the value");
    if (ok) return json;
    flis_json_free(json);
    return NULL;
}

/* The last member of that name, as in Python. SPEC 10.8. */
const flis_json *flis_json_get(const flis_json *object, const char *key)
{
    const size_t length = key ? strlen(key) : 0;
    if (!object || !key || object->type != FLIS_OBJECT) return NULL;
    for (size_t i = object->count; i-- > 0;)
        if (object->key[i].length == length && memcmp(object->key[i].string, key, length) == 0) return &object->item[i];
    return NULL;
}

/* Exact: read from the digits, not from the double. SPEC 10.8. */
bool flis_json_u64(const flis_json *number, uint64_t *out)
{
    uint64_t value = 0;
    if (!number || !out || number->type != FLIS_NUMBER) return false;
    for (const char *c = number->literal; *c; c++) {
        if (*c < '0' || *c > '9') return false;
        const unsigned digit = (unsigned)(*c - '0');
        if (value > (UINT64_MAX - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

/* What a sentence says it got. SPEC 10.8. */
const char *flis_json_got(const flis_json *json)
{
    static const char *const names[] = {"null", "false", "true", "a number", "a string", "an array", "an object"};
    return !json ? "nothing" : json->type == FLIS_NUMBER ? json->literal : names[json->type];
}

/* ---- PNG: label maps in (ISO/IEC 15948) -------------------------------------------------------------------------- */

/* Where the pixels of a pass are: x0, y0, dx, dy. The last is the only pass of a picture that is not interlaced. */
static const uint8_t PNG_PASS[8][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                       {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}, {0, 0, 1, 1}};
enum { PNG_GRAY = 0, PNG_RGB = 2, PNG_PALETTE = 3, PNG_GRAY_ALPHA = 4, PNG_RGB_ALPHA = 6 };

typedef struct png {
    flis_ctx *ctx;
    const char *path;
    const uint8_t *in;
    size_t length, at;
    size_t width, height;
    unsigned depth, color, samples; /* samples of a pixel */
    bool interlaced, has_palette;
    byte_buffer data; /* of the IDAT chunks that follow each other */
    char ignored[4];  /* the first ancillary chunk that is damaged */
    size_t ignored_at, ignored_count;
    label_file *out;
} png;

typedef struct png_chunk {
    const uint8_t *type, *data;
    size_t length, at; /* at: of its first byte in the file */
    bool damaged;      /* an ancillary chunk whose CRC differs */
} png_chunk;

static bool png_fail(const png *p, const char *format, ...)
{
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return flis_fail(p->ctx, "%s: damaged PNG: %s", p->path, what);
}

static bool is_type(const png_chunk *c, const char *type)
{
    return memcmp(c->type, type, 4) == 0;
}

/* length, type, data, CRC of type and data. A wrong CRC is damage, except in a chunk that the pixels do not depend on. */
static bool png_next(png *p, png_chunk *c)
{
    const size_t left = p->length - p->at;
    if (left < 12) return png_fail(p, "it is cut short at byte %zu, before its IEND chunk", p->length);
    const uint8_t *head = p->in + p->at;
    c->at = p->at;
    c->length = big_endian(head);
    c->type = head + 4;
    c->data = head + 8;
    for (int i = 0; i < 4; i++)
        if (!((c->type[i] | 0x20) >= 'a' && (c->type[i] | 0x20) <= 'z'))
            return png_fail(p, "no chunk where one should begin, at byte %zu", p->at);
    if (c->length > left - 12)
        return png_fail(p, "chunk %.4s at byte %zu is cut short: got %zu bytes, wanted %zu", (const char *)c->type,
                        p->at, left - 12, c->length);
    const uint32_t got = crc32(0, c->type, c->length + 4), wanted = big_endian(c->data + c->length);
    c->damaged = got != wanted;
    if (c->damaged && !(c->type[0] & 0x20))
        return png_fail(p, "chunk %.4s at byte %zu: got CRC %08lx, wanted %08lx", (const char *)c->type, p->at,
                        (unsigned long)got, (unsigned long)wanted);
    p->at += 12 + c->length;
    return true;
}

/* Refuses an empty picture and one that is too large. SPEC 10.10. */
static bool size_fits(flis_ctx *ctx, const char *path, size_t width, size_t height)
{
    if (width >= 1 && width <= LARGEST_SIDE && height >= 1 && height <= LARGEST_SIDE && width <= MOST_PIXELS / height)
        return true;
    return flis_fail(ctx, "%s: got a picture of %zu x %zu pixels, wanted sides from 1 to %d and at most %d pixels",
                     path, width, height, LARGEST_SIDE, MOST_PIXELS);
}

/* IHDR: width, height, bit depth, colour type, compression, filter, interlace (ISO/IEC 15948, 11.2.2). SPEC 10.10. */
static bool png_header(png *p, const png_chunk *c)
{
    static const uint8_t samples[7] = {1, 0, 3, 1, 2, 0, 4};
    static const char *const kinds[7] = {
        NULL, NULL, "RGB pixels", NULL, "gray pixels with alpha", NULL, "RGB pixels with alpha"};
    if (!is_type(c, "IHDR")) return png_fail(p, "got chunk %.4s first, wanted IHDR", (const char *)c->type);
    if (c->length != 13) return png_fail(p, "got an IHDR chunk of %zu bytes, wanted 13", c->length);
    p->width = big_endian(c->data);
    p->height = big_endian(c->data + 4);
    p->depth = c->data[8];
    p->color = c->data[9];
    p->interlaced = c->data[12] == 1;
    const bool power = p->depth == 1 || p->depth == 2 || p->depth == 4 || p->depth == 8;
    const bool wide = p->color < 7 && kinds[p->color];
    if (p->depth == 16 && wide)
        return flis_fail(p->ctx, "%s: got a PNG of %s with 16 bits, wanted a label map of 8 bits or less", p->path,
                         kinds[p->color]);
    if (!(p->color == PNG_PALETTE && power) && !(p->color == PNG_GRAY && (power || p->depth == 16)) &&
        !(wide && p->depth == 8))
        return png_fail(p, "colour type %u with %u bits does not exist", p->color, p->depth);
    if (c->data[10] || c->data[11] || c->data[12] > 1)
        return png_fail(p, "compression %u, filter method %u, interlace %u do not exist", c->data[10], c->data[11],
                        c->data[12]);
    p->samples = samples[p->color];
    return size_fits(p->ctx, p->path, p->width, p->height);
}

/* The palette names colours; the ids are its indices, so a picture without palette has ids too. SPEC 10.10. */
static bool png_palette(png *p, const png_chunk *c)
{
    const size_t most = (size_t)1 << (p->depth > 8 ? 8 : p->depth), got = c->length / 3;
    if (p->color != PNG_PALETTE) {
        if (p->color == PNG_GRAY || p->color == PNG_GRAY_ALPHA)
            flis_warn(p->ctx, "%s: a palette in a gray picture is ignored", p->path);
        return true; /* in RGB: colours that a screen of few colours should show */
    }
    if (p->has_palette) return png_fail(p, "a second palette");
    if (!got || c->length % 3 || got > 256)
        return png_fail(p, "got a palette of %zu bytes, wanted 3 for each of 1 to %zu colours", c->length, most);
    if (got > most)
        flis_warn(p->ctx, "%s: %zu colours of its palette are ignored: pixels of %u bits have %zu", p->path, got - most,
                  p->depth, most);
    p->has_palette = true;
    p->out->colors = got < most ? got : most;
    memcpy(p->out->color, c->data, 3 * p->out->colors);
    return true;
}

/* True where an ancillary chunk has the form that its type demands; unknown types have any (ISO/IEC 15948, 11.3). */
static bool png_is_sound(const png_chunk *c)
{
    static const struct {
        char type[5];
        size_t length;
    } fixed[] = {{"gAMA", 4}, {"cHRM", 32}, {"sRGB", 1}, {"pHYs", 9}, {"tIME", 7}, {"acTL", 8}};
    if (c->damaged) return false;
    for (size_t i = 0; i < COUNT(fixed); i++)
        if (is_type(c, fixed[i].type)) return c->length == fixed[i].length;
    if (!is_type(c, "tEXt") && !is_type(c, "zTXt") && !is_type(c, "iTXt") && !is_type(c, "iCCP")) return true;
    const uint8_t *end = c->length ? memchr(c->data, 0, c->length < 80 ? c->length : 80) : NULL;
    return end && end > c->data; /* a keyword of 1 to 79 bytes */
}

/* Over a chunk that is no IHDR, IDAT or IEND. */
static bool png_other(png *p, const png_chunk *c)
{
    if (is_type(c, "IHDR")) return png_fail(p, "a second IHDR chunk");
    if (is_type(c, "PLTE")) return png_palette(p, c);
    if (!(c->type[0] & 0x20))
        return png_fail(p, "unknown chunk %.4s, which must not be skipped", (const char *)c->type);
    if (is_type(c, "acTL") && !c->damaged)
        flis_warn(p->ctx, "%s: an animated PNG: its first picture is the label map", p->path);
    if (png_is_sound(c) || p->ignored_count++) return true;
    memcpy(p->ignored, c->type, 4);
    p->ignored_at = c->at;
    return true;
}

/* Pixels that are complete count, whatever follows them: the rest is only looked through. Nothing there is a failure. */
static void png_rest(png *p)
{
    flis_ctx quiet = FLIS_CTX_PLAIN, *ctx = p->ctx;
    png_chunk c = {.type = (const uint8_t *)"IDAT"};
    size_t at = p->at;
    bool sound = true, apart = false;
    p->ctx = &quiet;
    for (; sound && !is_type(&c, "IEND"); at = sound ? p->at : at) {
        sound = png_next(p, &c);
        if (sound && is_type(&c, "IDAT")) apart = true;
        else if (sound && !is_type(&c, "IEND")) sound = c.type[0] & 0x20 && png_other(p, &c);
    }
    p->ctx = ctx;
    if (!sound && at == p->length) flis_warn(ctx, "%s: its end is missing, the IEND chunk", p->path);
    else if (!sound)
        flis_warn(ctx, "%s: what is behind its pixels is damaged, and ignored from byte %zu on", p->path, at);
    else if (c.length || p->at < p->length)
        flis_warn(ctx, "%s: %zu bytes behind its end are ignored", p->path, c.length + p->length - p->at);
    if (apart) flis_warn(ctx, "%s: IDAT chunks that do not follow the others are ignored", p->path);
}

/* All chunks up to the last IDAT of the first run of them. SPEC 10.10. */
static bool png_chunks(png *p)
{
    png_chunk c;
    if (!png_next(p, &c) || !png_header(p, &c)) return false;
    do {
        if (!png_next(p, &c)) return false;
        if (is_type(&c, "IEND")) return png_fail(p, "no IDAT chunk");
        if (!is_type(&c, "IDAT") && !png_other(p, &c)) return false;
    } while (!is_type(&c, "IDAT"));
    do {
        bytes_put(p->ctx, &p->data, c.data, c.length);
        if (p->length - p->at < 12 || memcmp(p->in + p->at + 4, "IDAT", 4) != 0) return flis_ok(p->ctx);
    } while (png_next(p, &c));
    return false;
}

/* What a filter predicts, from the bytes one pixel to the left, above, and above left (ISO/IEC 15948, 9.2). SPEC 9.2. */
static unsigned png_predict(unsigned filter, unsigned left, unsigned up, unsigned corner)
{
    switch (filter) {
    case 1: return left;
    case 2: return up;
    case 3: return (left + up) / 2;
    case 4: { /* Paeth: whichever of the three is nearest to left + up - corner */
        const int to_left = abs((int)up - (int)corner), to_up = abs((int)left - (int)corner);
        const int to_corner = abs((int)left + (int)up - 2 * (int)corner);
        return to_left <= to_up && to_left <= to_corner ? left : to_up <= to_corner ? up : corner;
    }
    default: return 0;
    }
}

/* Undoes a row's filter in place. above: the row before it in this pass, or NULL. SPEC 10.10. */
static void png_unfilter(unsigned filter, uint8_t *row, const uint8_t *above, size_t count, size_t pixel)
{
    for (size_t i = 0; filter && i < count; i++) {
        const unsigned left = i >= pixel ? row[i - pixel] : 0, up = above ? above[i] : 0;
        const unsigned corner = above && i >= pixel ? above[i - pixel] : 0;
        row[i] = (uint8_t)(row[i] + png_predict(filter, left, up, corner));
    }
}

/* Pixels of a pass along one side. */
static size_t pass_size(size_t size, unsigned first, unsigned step)
{
    return size > first ? (size - first + step - 1) / step : 0;
}

/* Bytes of a row of w pixels. */
static size_t png_row(const png *p, size_t w)
{
    return (w * p->samples * p->depth + 7) / 8;
}

/* Sample i of a row: 1 to 8 bits from the high end of a byte, or 16 bits, high byte first. SPEC 10.10. */
static unsigned png_sample(const uint8_t *row, size_t i, unsigned depth)
{
    if (depth == 16) return (unsigned)row[2 * i] << 8 | row[2 * i + 1];
    const size_t bit = i * depth;
    return (unsigned)row[bit / 8] >> (8 - depth - bit % 8) & ((1u << depth) - 1);
}

/* A class id is a byte. SPEC 10.10. */
static bool label_fits(flis_ctx *ctx, const char *path, unsigned long value, size_t x, size_t y)
{
    if (value <= 255) return true;
    return flis_fail(ctx, "%s: got %lu at pixel (%zu, %zu), wanted class numbers up to 255", path, value, x, y);
}

/* Pixel i of a row to (x, y). Gray of 2 and 4 bits is what PIL's mode L makes of it, which the authors' code reads: times 85
   and 17, so that white is 255; of 1 bit (mode 1) it is 0 and 1. SPEC 10.10. */
static bool png_pixel(const png *p, const uint8_t *row, size_t i, size_t x, size_t y)
{
    const size_t channels = p->out->picture.channels;
    uint8_t *to = p->out->picture.pixels + (y * p->width + x) * channels;
    if (p->samples == 1) {
        const unsigned scale = p->color == PNG_GRAY && p->depth == 2   ? 85
                               : p->color == PNG_GRAY && p->depth == 4 ? 17
                                                                       : 1;
        const unsigned value = png_sample(row, i, p->depth) * scale;
        *to = (uint8_t)value;
        return label_fits(p->ctx, p->path, value, x, y);
    }
    const uint8_t *from = row + i * p->samples;
    memcpy(to, from, channels);
    if (channels == p->samples || from[channels] == 255) return true;
    return flis_fail(p->ctx, "%s: got alpha %u at pixel (%zu, %zu), wanted 255: a class id is not transparent", p->path,
                     from[channels], x, y);
}

/* One pass: filtered rows of a smaller picture. Moves *data over it. SPEC 10.10. */
static bool png_pass(const png *p, const uint8_t *pass, uint8_t **data)
{
    const size_t w = pass_size(p->width, pass[0], pass[2]), h = pass_size(p->height, pass[1], pass[3]);
    const size_t row_bytes = png_row(p, w), pixel = p->samples * p->depth / 8;
    const uint8_t *above = NULL;
    if (!w) return true;
    for (size_t j = 0; j < h; j++, *data += row_bytes + 1) {
        uint8_t *row = *data + 1;
        const size_t y = pass[1] + j * pass[3];
        if (**data > 4) return png_fail(p, "filter %u in row %zu does not exist", **data, y);
        png_unfilter(**data, row, above, row_bytes, pixel ? pixel : 1);
        above = row;
        for (size_t i = 0; i < w; i++)
            if (!png_pixel(p, row, i, pass[0] + i * pass[2], y)) return false;
    }
    return true;
}

/* True where more IDAT chunks come after another chunk. */
static bool png_apart(const png *p)
{
    flis_ctx quiet = FLIS_CTX_PLAIN;
    png rest = *p;
    png_chunk c = {.type = NULL};
    rest.ctx = &quiet;
    while (png_next(&rest, &c))
        if (is_type(&c, "IDAT")) return true;
    return false;
}

/* The bytes of all rows, inflated. What the stream has behind them is no pixel. SPEC 10.10. */
static uint8_t *png_rows(png *p, size_t wanted)
{
    size_t got = 0, spare = 0;
    inflate_end end = INFLATE_WHOLE;
    uint8_t *data = inflate_prefix(p->ctx, p->path, &p->data, wanted, &got, &end, &spare);
    if (data && got == wanted) {
        if (end == INFLATE_MORE) flis_warn(p->ctx, "%s: more pixels than its size says: those are ignored", p->path);
        if (end == INFLATE_CUT)
            flis_warn(p->ctx, "%s: its compressed pixels are complete, but cut before their checksum", p->path);
        if (end == INFLATE_WHOLE && spare)
            flis_warn(p->ctx, "%s: %zu bytes behind its compressed pixels are ignored", p->path, spare);
        return data;
    }
    free(data);
    if (png_apart(p)) {
        p->ctx->error[0] = 0;
        png_fail(p, "its IDAT chunks do not follow each other");
    }
    png_fail(p, "got %zu bytes of pixels, wanted %zu", got, wanted);
    return NULL;
}

/* Undoes the filters pass by pass (seven where the picture is interlaced). SPEC 10.10. */
static bool png_pixels(png *p)
{
    const unsigned first = p->interlaced ? 0 : 7, stop = p->interlaced ? 7 : 8;
    flis_picture *picture = &p->out->picture;
    size_t wanted = 0; /* below 2^29: sides and pixels are bounded */
    for (unsigned i = first; i < stop; i++) {
        const size_t w = pass_size(p->width, PNG_PASS[i][0], PNG_PASS[i][2]);
        if (w) wanted += (1 + png_row(p, w)) * pass_size(p->height, PNG_PASS[i][1], PNG_PASS[i][3]);
    }
    uint8_t *data = png_rows(p, wanted), *at = data;
    if (!data) return false;
    picture->width = p->width;
    picture->height = p->height;
    picture->channels = p->color == PNG_RGB || p->color == PNG_RGB_ALPHA ? 3 : 1;
    picture->pixels = flis_alloc(p->ctx, p->width * picture->channels, p->height);
    for (unsigned i = first; i < stop && flis_ok(p->ctx); i++) png_pass(p, PNG_PASS[i], &at);
    free(data);
    return flis_ok(p->ctx);
}

/* A PNG as a label map, as PIL and libpng read it: damage that no pixel depends on is a warning. SPEC 10.10. */
static bool read_png(flis_ctx *ctx, const char *path, const uint8_t *in, size_t length, label_file *out)
{
    png p = {.ctx = ctx, .path = path, .in = in, .length = length, .at = sizeof PNG_SIGNATURE, .out = out};
    if (length < sizeof PNG_SIGNATURE || memcmp(in, PNG_SIGNATURE, sizeof PNG_SIGNATURE) != 0)
        return png_fail(&p, "its first 8 bytes were changed, as by a transfer in text mode");
    if (png_chunks(&p) && png_pixels(&p)) png_rest(&p);
    free(p.data.at);
    out->palette = p.color == PNG_PALETTE;
    out->bilevel = p.color == PNG_GRAY && p.depth == 1;
    if (flis_ok(ctx) && out->palette && !p.has_palette)
        flis_warn(ctx, "%s: a palette picture without a palette: the class ids are the indices", path);
    if (p.ignored_count == 1)
        flis_warn(ctx, "%s: its damaged chunk %.4s at byte %zu is ignored", path, p.ignored, p.ignored_at);
    else if (p.ignored_count)
        flis_warn(ctx, "%s: %zu damaged chunks are ignored, the first is %.4s at byte %zu", path, p.ignored_count,
                  p.ignored, p.ignored_at);
    return flis_ok(ctx);
}

/* ---- PGM: label maps in (netpbm's P2 and P5) --------------------------------------------------------------------- */

typedef struct pgm {
    flis_ctx *ctx;
    const char *path;
    const uint8_t *in;
    size_t length, at;
} pgm;

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Spaces, and comments from # to the end of the line. */
static void pgm_space(pgm *p)
{
    while (p->at < p->length && (is_space(p->in[p->at]) || p->in[p->at] == '#')) {
        if (p->in[p->at] == '#')
            while (p->at < p->length && p->in[p->at] != '\n' && p->in[p->at] != '\r') p->at++;
        else p->at++;
    }
}

static bool pgm_number(pgm *p, const char *what, unsigned long *out)
{
    pgm_space(p);
    const size_t start = p->at;
    unsigned long value = 0;
    for (; p->at < p->length && p->in[p->at] >= '0' && p->in[p->at] <= '9'; p->at++)
        value = value < 400000000 ? value * 10 + (unsigned long)(p->in[p->at] - '0') : 4294967295;
    if (p->at == start && p->at == p->length)
        return flis_fail(p->ctx, "%s: damaged PGM: cut short, wanted its %s", p->path, what);
    if (p->at == start || (p->at < p->length && !is_space(p->in[p->at]) && p->in[p->at] != '#'))
        return flis_fail(p->ctx, "%s: damaged PGM: got byte 0x%02X at byte %zu, wanted its %s", p->path, p->in[p->at],
                         p->at, what);
    *out = value;
    return true;
}

static bool pgm_pixel(const pgm *p, unsigned long value, unsigned long largest, size_t i, flis_picture *out)
{
    const size_t x = i % out->width, y = i / out->width;
    if (value > largest)
        return flis_fail(p->ctx, "%s: damaged PGM: got %lu at pixel (%zu, %zu), wanted at most its own maximum, %lu",
                         p->path, value, x, y, largest);
    if (!label_fits(p->ctx, p->path, value, x, y)) return false;
    out->pixels[i] = (uint8_t)value;
    return true;
}

/* P5: values of one byte, or of two, high byte first, where the maximum needs it. SPEC 10.10. */
static bool pgm_binary(pgm *p, unsigned long largest, size_t count, flis_picture *out)
{
    const size_t each = largest > 255 ? 2 : 1, left = p->length - p->at;
    if (left < each * count + 1)
        return flis_fail(p->ctx, "%s: damaged PGM: got %zu bytes of pixels, wanted %zu", p->path, left ? left - 1 : 0,
                         each * count);
    const uint8_t *pixel = p->in + p->at + 1; /* one white space behind the maximum */
    if (!is_space(pixel[-1])) return flis_fail(p->ctx, "%s: damaged PGM: no white space before the pixels", p->path);
    if (pixel[-1] == '\r' && *pixel == '\n' && left == each * count + 2) /* read on, all pixels would move by one */
        return flis_fail(p->ctx, "%s: damaged PGM: CR LF before the pixels, wanted one white space: saved as text",
                         p->path);
    for (size_t i = 0; i < count; i++, pixel += each)
        if (!pgm_pixel(p, each == 2 ? (unsigned long)pixel[0] << 8 | pixel[1] : pixel[0], largest, i, out))
            return false;
    p->at += 1 + each * count;
    return true;
}

/* A PGM as a label map: P2 with decimal numbers, P5 with bytes. The values are the ids whatever the maximum is, as for Pillow
   9.0.1, which the authors use; 9.1 and later scale them so that the maximum is white. SPEC 10.10. */
static bool read_pgm(flis_ctx *ctx, const char *path, const uint8_t *in, size_t length, flis_picture *out)
{
    pgm p = {ctx, path, in, length, 2};
    unsigned long width, height, largest, value;
    if (!pgm_number(&p, "width", &width) || !pgm_number(&p, "height", &height) ||
        !pgm_number(&p, "maximum", &largest) || !size_fits(ctx, path, width, height))
        return false;
    if (largest < 1 || largest > 65535)
        return flis_fail(ctx, "%s: damaged PGM: got a maximum of %lu, wanted 1 to 65535", path, largest);
    const size_t count = (size_t)width * height;
    if ((length - p.at) / (in[1] == '2' ? 2 : 1) + 1 < count) /* before memory is asked for */
        return flis_fail(ctx, "%s: damaged PGM: cut short, wanted %zu pixels", path, count);
    out->width = width;
    out->height = height;
    out->channels = 1;
    out->pixels = flis_alloc(ctx, count, 1);
    if (!out->pixels || (in[1] == '5' && !pgm_binary(&p, largest, count, out))) return false;
    for (size_t i = 0; in[1] == '2' && i < count; i++)
        if (!pgm_number(&p, "next pixel", &value) || !pgm_pixel(&p, value, largest, i, out)) return false;
    while (p.at < length && is_space(in[p.at])) p.at++;
    if (p.at < length) flis_warn(ctx, "%s: %zu bytes behind its last pixel are ignored", path, length - p.at);
    return true;
}

/* ---- PNG: pictures out ------------------------------------------------------------------------------------------- */

/* length, type, data, CRC-32 of type and data (ISO/IEC 15948, 5.3). SPEC 9.2. */
static void put_chunk(flis_ctx *ctx, byte_buffer *out, const char *type, const void *data, size_t length)
{
    if (length > 0x7FFFFFFF) flis_fail(ctx, "PNG: got %zu bytes for a chunk, wanted at most %d", length, 0x7FFFFFFF);
    bytes_put_u32(ctx, out, (uint32_t)(length & 0x7FFFFFFF));
    bytes_put(ctx, out, type, 4);
    bytes_put(ctx, out, data, length);
    if (flis_ok(ctx)) bytes_put_u32(ctx, out, crc32(0, out->at + out->count - length - 4, length + 4));
}

/* A keyword is 1 to 79 printable Latin-1 characters (we take ASCII), without spaces at its ends or two in a row.
   SPEC 9.2. */
static bool keyword_fits(const char *key)
{
    const size_t length = strlen(key);
    for (size_t i = 0; i < length; i++)
        if (key[i] < ' ' || key[i] > '~' || (key[i] == ' ' && (i == 0 || i + 1 == length || key[i + 1] == ' ')))
            return false;
    return length >= 1 && length <= 79;
}

/* tEXt holds Latin-1; whatever else is in UTF-8 goes to iTXt. Bytes that are not UTF-8 (a file name may have some)
   become U+FFFD, so that a finished picture is not lost to its caption. SPEC 9.2. */
static bool put_text(flis_ctx *ctx, byte_buffer *out, const char *key, const char *value)
{
    const uint8_t *p = (const uint8_t *)value, *end = p + strlen(value);
    byte_buffer latin = {0}, utf8 = {0};
    bool is_latin = true;
    if (!keyword_fits(key))
        return flis_fail(ctx, "PNG: got the keyword \"%s\", wanted 1 to 79 printable characters", key);
    bytes_put(ctx, &latin, key, strlen(key) + 1);
    bytes_put(ctx, &utf8, key, strlen(key) + 1);
    bytes_put(ctx, &utf8, "\0\0\0\0", 4); /* not compressed, method 0, no language, no translated keyword */
    while (p < end) {
        size_t length;
        char four[4];
        long point = utf8_next(p, end, &length);
        p += length;
        if (point < 0) point = 0xFFFD;
        is_latin = is_latin && (point == '\n' || (point >= 0x20 && point < 0x7F) || (point > 0xA0 && point < 0x100));
        bytes_put_u8(ctx, &latin, (unsigned)point & 0xFF);
        bytes_put(ctx, &utf8, four, utf8_put(four, point));
    }
    if (flis_ok(ctx))
        put_chunk(ctx, out, is_latin ? "tEXt" : "iTXt", is_latin ? latin.at : utf8.at,
                  is_latin ? latin.count : utf8.count);
    free(latin.at);
    free(utf8.at);
    return flis_ok(ctx);
}

/* One row under one filter into out; returns the sum of its bytes as distances from 0, the usual guess at how well it
   will compress. SPEC 9.2. */
static unsigned long png_filter(unsigned filter, const uint8_t *row, const uint8_t *above, size_t count, size_t pixel,
                                uint8_t *out)
{
    unsigned long sum = 0;
    for (size_t i = 0; i < count; i++) {
        const unsigned left = i >= pixel ? row[i - pixel] : 0, up = above ? above[i] : 0;
        const unsigned corner = above && i >= pixel ? above[i - pixel] : 0;
        out[i] = (uint8_t)(row[i] - png_predict(filter, left, up, corner));
        sum += out[i] < 128 ? out[i] : 256u - out[i];
    }
    return sum;
}

/* Every row under the filter with the least sum, the lowest number among equals. SPEC 9.2. */
static bool put_pixels(flis_ctx *ctx, byte_buffer *out, const flis_picture *picture)
{
    const size_t row_bytes = picture->width * picture->channels, each = row_bytes + 1;
    uint8_t *data = flis_alloc(ctx, picture->height, each), *trial = flis_alloc(ctx, row_bytes, 1);
    byte_buffer packed = {0};
    for (size_t y = 0; data && trial && y < picture->height; y++) {
        const uint8_t *row = picture->pixels + y * row_bytes, *above = y ? row - row_bytes : NULL;
        unsigned long least = ULONG_MAX;
        for (unsigned filter = 0; filter < 5; filter++) {
            const unsigned long sum = png_filter(filter, row, above, row_bytes, picture->channels, trial);
            if (sum >= least) continue;
            least = sum;
            data[y * each] = (uint8_t)filter;
            memcpy(data + y * each + 1, trial, row_bytes);
        }
    }
    if (flis_ok(ctx) && deflate_zlib(ctx, data, picture->height * each, &packed))
        put_chunk(ctx, out, "IDAT", packed.at, packed.count);
    free(packed.at);
    free(data);
    free(trial);
    return flis_ok(ctx);
}

/* Signature, IHDR, texts, IDAT, IEND. SPEC 9.2. */
static bool put_png(flis_ctx *ctx, const char *name, const flis_picture *picture, const char *const *text,
                    byte_buffer *out)
{
    if (!flis_given(ctx, picture, "PNG: the picture") || !flis_given(ctx, picture->pixels, "PNG: the picture's pixels"))
        return false;
    const uint32_t w = (uint32_t)picture->width, h = (uint32_t)picture->height;
    if (!size_fits(ctx, name, picture->width, picture->height)) return false;
    if (picture->channels != 1 && picture->channels != 3)
        return flis_fail(ctx, "%s: got a picture of %zu channels, wanted 1 (gray) or 3 (RGB)", name, picture->channels);
    const uint8_t header[13] = {(uint8_t)(w >> 24),
                                (uint8_t)(w >> 16),
                                (uint8_t)(w >> 8),
                                (uint8_t)w,
                                (uint8_t)(h >> 24),
                                (uint8_t)(h >> 16),
                                (uint8_t)(h >> 8),
                                (uint8_t)h,
                                8,
                                picture->channels == 3 ? 2 : PNG_GRAY,
                                0,
                                0,
                                0};
    bytes_put(ctx, out, PNG_SIGNATURE, sizeof PNG_SIGNATURE);
    put_chunk(ctx, out, "IHDR", header, sizeof header);
    for (; text && text[0] && flis_ok(ctx); text += 2) put_text(ctx, out, text[0], text[1]);
    if (flis_ok(ctx) && put_pixels(ctx, out, picture)) put_chunk(ctx, out, "IEND", "", 0);
    return flis_ok(ctx);
}

/* A PNG in memory. SPEC 9.2. */
uint8_t *flis_png_bytes(flis_ctx *ctx, const flis_picture *picture, const char *const *text, size_t *length)
{
    byte_buffer out = {0};
    if (!flis_given(ctx, length, "PNG: where its length goes")) return NULL;
    if (!put_png(ctx, "PNG", picture, text, &out)) {
        free(out.at);
        return NULL;
    }
    *length = out.count;
    return out.at;
}

/* A PNG on the disk. SPEC 9.2. */
bool flis_write_png(flis_ctx *ctx, const char *path, const flis_picture *picture, const char *const *text)
{
    byte_buffer out = {0};
    if (!named(ctx, path, "PNG: its path")) return false;
    if (put_png(ctx, path, picture, text, &out)) write_file(ctx, path, &out);
    free(out.at);
    return flis_ok(ctx);
}

/* ---- Inflate: RFC 1951, 1950, 1952 ------------------------------------------------------------------------------- */

/* What follows length symbol 257 + i and distance symbol i: the least value, and how many bits say how much more. */
static const uint16_t LENGTH_BASE[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t LENGTH_BITS[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                        2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t DISTANCE_BASE[30] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                           33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                           1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t DISTANCE_BITS[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                          6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
/* The order in which a dynamic block gives the lengths of the code that its code lengths are written in. */
static const uint8_t LENGTHS_ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

enum { LONGEST = 15, QUICK = 9, LITERALS = 288, DISTANCES = 32, WINDOW = 32768, END_OF_BLOCK = 256 };

/* A canonical Huffman code: codes of one length are consecutive numbers, shorter ones come first. */
typedef struct huffman {
    uint16_t count[LONGEST + 1]; /* codes of each length */
    uint16_t first[LONGEST + 1]; /* the first code of each length */
    uint16_t start[LONGEST + 1]; /* where its symbols start in `symbol` */
    uint16_t symbol[LITERALS];   /* by length, then by number */
    uint16_t quick[1 << QUICK];  /* by the next QUICK bits: symbol << 4 | length; 0: longer, or none */
} huffman;

typedef struct inflater {
    flis_ctx *ctx;
    const char *name;
    const uint8_t *in;
    size_t length, at; /* bytes of input, and how many were taken */
    uint32_t hold;     /* bits taken but not yet used, the next one lowest */
    unsigned held;
    byte_buffer out;
    size_t begin, limit; /* where this stream's output begins: no match reaches before it */
    bool prefix;         /* the first `limit` bytes are wanted, whatever follows them */
    inflate_end end;     /* how a prefix ended early; INFLATE_WHOLE: not yet */
    huffman literal, distance;
} inflater;

static bool inflate_fail(const inflater *z, const char *what)
{
    return flis_fail(z->ctx, "%s: damaged compressed data: %s (at byte %zu of %zu)", z->name, what, z->at, z->length);
}

/* No input is left: a failure, unless all bytes that are wanted are there. */
static bool inflate_cut(inflater *z)
{
    if (!z->prefix || z->out.count < z->limit) return inflate_fail(z, "cut short");
    z->end = INFLATE_CUT;
    return false;
}

static bool inflate_on(const inflater *z)
{
    return flis_ok(z->ctx) && z->end == INFLATE_WHOLE;
}

static void refill(inflater *z, unsigned wanted)
{
    for (; z->held < wanted && z->at < z->length; z->held += 8) z->hold |= (uint32_t)z->in[z->at++] << z->held;
}

static unsigned take(inflater *z, unsigned count)
{
    refill(z, count);
    if (z->held < count) {
        inflate_cut(z);
        return 0;
    }
    const unsigned value = z->hold & ((1u << count) - 1);
    z->hold >>= count;
    z->held -= count;
    return value;
}

/* Returns the whole bytes to the input, and drops the rest of a byte begun. */
static void to_byte_boundary(inflater *z)
{
    z->at -= z->held / 8;
    z->hold = 0;
    z->held = 0;
}

static unsigned reversed(unsigned code, unsigned length)
{
    unsigned out = 0;
    for (; length; length--, code >>= 1) out = out << 1 | (code & 1);
    return out;
}

/* From the length of each symbol's code, 0: it has none. Returns how many codes of LONGEST bits are left unused; below
   zero: there are more than fit. SPEC 10.11. */
static long huffman_make(huffman *h, const uint8_t *length, size_t symbols)
{
    uint16_t next[LONGEST + 2] = {0};
    unsigned code = 0, start = 0;
    long left = 1L << LONGEST;
    memset(h, 0, sizeof *h);
    for (size_t i = 0; i < symbols; i++) h->count[length[i]]++;
    h->count[0] = 0;
    for (unsigned n = 1; n <= LONGEST; n++) {
        left -= (long)h->count[n] << (LONGEST - n);
        h->first[n] = (uint16_t)(code = (code + h->count[n - 1]) << 1);
        h->start[n] = next[n] = (uint16_t)start;
        start += h->count[n];
    }
    if (left < 0) return left;
    for (size_t i = 0; i < symbols; i++) {
        const unsigned n = length[i];
        if (!n) continue;
        const unsigned place = next[n]++;
        h->symbol[place] = (uint16_t)i;
        if (n > QUICK) continue;
        for (unsigned k = reversed(h->first[n] + (place - h->start[n]), n); k < 1 << QUICK; k += 1u << n)
            h->quick[k] = (uint16_t)(i << 4 | n);
    }
    return left;
}

/* The next symbol; -1 when failed. */
static int decode_symbol(inflater *z, const huffman *h)
{
    refill(z, LONGEST);
    const unsigned entry = h->quick[z->hold & ((1u << QUICK) - 1)];
    if (entry && (entry & 15) <= z->held) {
        z->hold >>= entry & 15;
        z->held -= entry & 15;
        return (int)(entry >> 4);
    }
    unsigned code = 0;
    for (unsigned n = 1; n <= LONGEST && n <= z->held; n++) {
        code = code << 1 | (z->hold >> (n - 1) & 1);
        if (code - h->first[n] >= h->count[n]) continue;
        z->hold >>= n;
        z->held -= n;
        return h->symbol[h->start[n] + (code - h->first[n])];
    }
    if (z->held < LONGEST) inflate_cut(z);
    else inflate_fail(z, "a code that stands for nothing");
    return -1;
}

/* How many of `more` bytes may be put out: all of them, or fewer where the stream goes on behind a prefix; 0: failed. */
static size_t inflate_room(inflater *z, size_t more)
{
    const size_t fits = z->limit - z->out.count;
    if (more > fits && !z->prefix) {
        flis_fail(z->ctx, "%s: unpacks to more than the %zu bytes that are allowed", z->name, z->limit);
        return 0;
    }
    if (more > fits) z->end = INFLATE_MORE;
    const size_t count = more > fits ? fits : more;
    return bytes_reserve(z->ctx, &z->out, count) ? count : 0;
}

static bool inflate_stored(inflater *z)
{
    to_byte_boundary(z);
    if (z->length - z->at < 4) return inflate_cut(z);
    const uint8_t *p = z->in + z->at;
    const unsigned count = p[0] | (unsigned)p[1] << 8, check = p[2] | (unsigned)p[3] << 8;
    if (count != (check ^ 0xFFFF)) return inflate_fail(z, "a stored block whose length and its complement differ");
    z->at += 4;
    const size_t left = z->length - z->at, there = count < left ? count : left;
    bytes_put(z->ctx, &z->out, z->in + z->at, inflate_room(z, there));
    if (there < count) return inflate_on(z) && inflate_cut(z);
    z->at += count;
    return inflate_on(z);
}

/* Copies a match; it may overlap what it makes. */
static bool inflate_match(inflater *z, unsigned symbol)
{
    if (symbol >= COUNT(LENGTH_BASE)) return inflate_fail(z, "a length that does not exist");
    size_t count = LENGTH_BASE[symbol] + take(z, LENGTH_BITS[symbol]);
    const int which = inflate_on(z) ? decode_symbol(z, &z->distance) : -1;
    if (which < 0) return false;
    if (which >= (int)COUNT(DISTANCE_BASE)) return inflate_fail(z, "a distance that does not exist");
    const size_t distance = DISTANCE_BASE[which] + take(z, DISTANCE_BITS[which]);
    if (!inflate_on(z)) return false;
    if (distance > z->out.count - z->begin) return inflate_fail(z, "a distance to before the beginning");
    count = inflate_room(z, count);
    if (!count) return false;
    uint8_t *to = z->out.at + z->out.count;
    const uint8_t *from = to - distance;
    for (size_t i = 0; i < count; i++) to[i] = from[i];
    z->out.count += count;
    return inflate_on(z);
}

static bool inflate_codes(inflater *z)
{
    for (;;) {
        const int symbol = decode_symbol(z, &z->literal);
        if (symbol < 0) return false;
        if (symbol == END_OF_BLOCK) return true;
        if (symbol > END_OF_BLOCK) {
            if (!inflate_match(z, (unsigned)symbol - END_OF_BLOCK - 1)) return false;
        } else {
            if (!inflate_room(z, 1)) return false;
            z->out.at[z->out.count++] = (uint8_t)symbol;
        }
    }
}

static void fixed_codes(inflater *z)
{
    uint8_t length[LITERALS];
    for (int i = 0; i < LITERALS; i++) length[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    huffman_make(&z->literal, length, LITERALS);
    memset(length, 5, DISTANCES);
    huffman_make(&z->distance, length, DISTANCES);
}

/* Lengths of literal and distance codes in one run; 16 repeats the last 3-6 times, 17 and 18 are 3-10 and 11-138
   zeros. */
static bool read_lengths(inflater *z, uint8_t *length, size_t total)
{
    for (size_t i = 0; i < total;) {
        const int symbol = decode_symbol(z, &z->literal);
        if (symbol < 0) return false;
        if (symbol < 16) {
            length[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16 && !i) return inflate_fail(z, "a repeated code length with none before it");
        const uint8_t value = symbol == 16 ? length[i - 1] : 0;
        const size_t count = symbol == 16 ? 3 + take(z, 2) : symbol == 17 ? 3 + take(z, 3) : 11 + take(z, 7);
        if (!inflate_on(z)) return false;
        if (count > total - i) return inflate_fail(z, "more code lengths than were announced");
        memset(length + i, value, count);
        i += count;
    }
    return true;
}

/* A code must use all bit patterns; the exception is a single code of one bit. SPEC 10.11. */
static bool complete(const huffman *h, long left)
{
    unsigned longer = 0;
    for (int n = 2; n <= LONGEST; n++) longer += h->count[n];
    return left == 0 || (left > 0 && !longer);
}

static bool dynamic_codes(inflater *z)
{
    uint8_t length[LITERALS + DISTANCES] = {0};
    const size_t literals = 257 + take(z, 5), distances = 1 + take(z, 5), order = 4 + take(z, 4);
    if (literals > 286 || distances > 30) return inflate_fail(z, "more symbols than exist");
    for (size_t i = 0; i < order; i++) length[LENGTHS_ORDER[i]] = (uint8_t)take(z, 3);
    if (!inflate_on(z)) return false;
    if (huffman_make(&z->literal, length, 19) != 0)
        return inflate_fail(z, "a code of code lengths that is no complete code");
    memset(length, 0, sizeof length);
    if (!read_lengths(z, length, literals + distances)) return false;
    if (!length[END_OF_BLOCK]) return inflate_fail(z, "a code without an end of block");
    long left = huffman_make(&z->literal, length, literals);
    if (!complete(&z->literal, left)) return inflate_fail(z, "a literal code that is no complete code");
    left = huffman_make(&z->distance, length + literals, distances);
    return complete(&z->distance, left) || inflate_fail(z, "a distance code that is no complete code");
}

/* One deflate stream: blocks up to the one that is marked as the last (RFC 1951, 3.2.3). SPEC 10.11. */
static bool inflate_blocks(inflater *z)
{
    z->begin = z->out.count;
    for (bool last = false; !last;) {
        last = take(z, 1);
        const unsigned kind = take(z, 2);
        if (!inflate_on(z)) return false;
        if (kind == 3) return inflate_fail(z, "a kind of block that does not exist");
        if (kind == 1) fixed_codes(z);
        if (kind == 2 && !dynamic_codes(z)) return false;
        if (!(kind == 0 ? inflate_stored(z) : inflate_codes(z))) return false;
    }
    to_byte_boundary(z);
    return true;
}

/* RFC 1950: two bytes of header, a deflate stream, Adler-32. SPEC 10.11. */
static bool inflate_zlib(inflater *z)
{
    const uint8_t *p = z->in;
    if (z->length < 2) return inflate_fail(z, "cut short");
    if ((p[0] << 8 | p[1]) % 31 || (p[0] & 15) != 8 || p[0] >> 4 > 7) return inflate_fail(z, "no zlib header");
    if (p[1] & 0x20) return inflate_fail(z, "it needs a preset dictionary");
    z->at = 2;
    if (!inflate_blocks(z)) return false;
    if (z->length - z->at < 4) return inflate_cut(z);
    if (big_endian(p + z->at) != adler32(z->out.at, z->out.count)) return inflate_fail(z, "the checksum differs");
    z->at += 4;
    return true;
}

/* Over a text that ends in NUL: gzip's file name and comment. */
static bool skip_text(inflater *z)
{
    const uint8_t *end = z->at < z->length ? memchr(z->in + z->at, 0, z->length - z->at) : NULL;
    if (!end) return inflate_fail(z, "cut short");
    z->at = (size_t)(end - z->in) + 1;
    return true;
}

static bool gzip_header(inflater *z)
{
    enum { HEADER_CRC = 2, EXTRA = 4, NAME = 8, COMMENT = 16, RESERVED = 0xE0 };
    const size_t start = z->at;
    const uint8_t *p = z->in + start;
    if (z->length - start < 10) return inflate_fail(z, "cut short");
    if (p[0] != 0x1F || p[1] != 0x8B || p[2] != 8 || p[3] & RESERVED) return inflate_fail(z, "no gzip header");
    z->at += 10;
    if (p[3] & EXTRA) {
        if (z->length - z->at < 2) return inflate_fail(z, "cut short");
        const size_t extra = z->in[z->at] | (size_t)z->in[z->at + 1] << 8;
        if (z->length - z->at - 2 < extra) return inflate_fail(z, "cut short");
        z->at += 2 + extra;
    }
    if (p[3] & NAME && !skip_text(z)) return false;
    if (p[3] & COMMENT && !skip_text(z)) return false;
    if (p[3] & HEADER_CRC) {
        if (z->length - z->at < 2) return inflate_fail(z, "cut short");
        const uint32_t crc = z->in[z->at] | (uint32_t)z->in[z->at + 1] << 8;
        if (crc != (crc32(0, p, z->at - start) & 0xFFFF)) return inflate_fail(z, "the header's checksum differs");
        z->at += 2;
    }
    return true;
}

/* A gzip file is one or more members, whose contents belong together. SPEC 10.11. */
static bool inflate_gzip(inflater *z)
{
    do {
        if (!gzip_header(z) || !inflate_blocks(z)) return false;
        const uint8_t *p = z->in + z->at;
        const size_t count = z->out.count - z->begin;
        if (z->length - z->at < 8) return inflate_fail(z, "cut short");
        if (little_endian(p, 4) != crc32(0, count ? z->out.at + z->begin : NULL, count))
            return inflate_fail(z, "the checksum differs");
        if (little_endian(p + 4, 4) != (uint32_t)(count & 0xFFFFFFFF)) return inflate_fail(z, "the length differs");
        z->at += 8;
    } while (z->at < z->length);
    return true;
}

/* The first `wanted` bytes of a zlib stream, for a picture: its rows are what counts, as for PIL and libpng. *end says what
   is wrong behind them; *spare how many bytes follow the stream. Damage before they are complete, a wrong checksum and a
   broken code behind them are failures. SPEC 10.11. */
static uint8_t *inflate_prefix(flis_ctx *ctx, const char *name, const byte_buffer *in, size_t wanted, size_t *got,
                               inflate_end *end, size_t *spare)
{
    inflater *z = flis_alloc(ctx, 1, sizeof *z);
    if (!z) return NULL;
    z->ctx = ctx;
    z->name = name;
    z->in = in->at;
    z->length = in->count;
    z->limit = wanted;
    z->prefix = true;
    inflate_zlib(z);
    byte_buffer out = z->out;
    *end = z->end;
    *spare = z->length - z->at;
    *got = out.count;
    free(z);
    bytes_put_u8(ctx, &out, 0); /* so that nothing unpacked is not NULL */
    if (flis_ok(ctx)) return out.at;
    free(out.at);
    return NULL;
}

/* Any of the three containers, whole. SPEC 10.11. */
uint8_t *flis_inflate(flis_ctx *ctx, const char *name, flis_stream_kind kind, const uint8_t *in, size_t length,
                      size_t limit, size_t *out_length)
{
    if (out_length) *out_length = 0;
    if (!flis_given(ctx, out_length, "compressed data: where its length goes") ||
        (length && !flis_given(ctx, in, "compressed data: its bytes")))
        return NULL;
    if ((unsigned)kind > FLIS_GZIP)
        return flis_fail(ctx, "compressed data: got kind %d, wanted one from FLIS_DEFLATE (%d) to FLIS_GZIP (%d)",
                         (int)kind, (int)FLIS_DEFLATE, (int)FLIS_GZIP),
               NULL;
    inflater *z = flis_alloc(ctx, 1, sizeof *z);
    if (!z) return NULL;
    z->ctx = ctx;
    z->name = name ? name : "compressed data";
    z->in = in;
    z->length = length;
    z->limit = limit;
    if (kind == FLIS_ZLIB) inflate_zlib(z);
    else if (kind == FLIS_GZIP) inflate_gzip(z);
    else inflate_blocks(z);
    if (flis_ok(ctx) && z->at < length) inflate_fail(z, "more data behind its end");
    byte_buffer out = z->out;
    free(z);
    *out_length = out.count;
    bytes_put_u8(ctx, &out, 0); /* so that nothing unpacked is not NULL, and text has its end */
    if (flis_ok(ctx)) return out.at;
    free(out.at);
    *out_length = 0;
    return NULL;
}

/* ---- Deflate: RFC 1951, for the pictures that we write ----------------------------------------------------------- */

/* A small compressor: the longest match among the last CHAIN positions with the same three bytes, taken at once (no lazy
   matching); blocks of BLOCK tokens with their own Huffman codes. No choice in it depends on the machine: the bytes are the same
   everywhere. */
enum { MIN_MATCH = 3, MAX_MATCH = 258, HASH_BITS = 15, CHAIN = 48, BLOCK = 1 << 15 };

typedef struct deflater {
    flis_ctx *ctx;
    byte_buffer *out;
    uint32_t hold; /* bits not yet written, the first one lowest */
    unsigned held;
    const uint8_t *in;
    size_t length;
    size_t tokens;
    uint32_t token[BLOCK];       /* a byte, or a match: length << 16 | distance */
    size_t head[1 << HASH_BITS]; /* the last position with this hash, plus 1; 0: none yet */
    size_t before[WINDOW];       /* by position modulo WINDOW: the one before it with the same hash, plus 1 */
} deflater;

/* Deflate packs bits from the low end of each byte (RFC 1951, 3.1.1). SPEC 9.4. */
static void put_bits(deflater *z, unsigned value, unsigned count)
{
    z->hold |= (uint32_t)value << z->held;
    for (z->held += count; z->held >= 8; z->held -= 8, z->hold >>= 8) bytes_put_u8(z->ctx, z->out, z->hold & 0xFF);
}

/* The root with the least weight; the lowest number among equals, so that everyone builds the same tree. SPEC 9.4. */
static size_t lightest(const uint32_t *weight, const uint16_t *parent, size_t nodes)
{
    size_t best = nodes;
    for (size_t i = 0; i < nodes; i++)
        if (weight[i] && !parent[i] && (best == nodes || weight[i] < weight[best])) best = i;
    return best;
}

/* Lengths of Huffman codes for symbols that occur frequency[i] times (which this changes), none above `longest`: where
   the tree gets deeper, frequencies are halved, which flattens it. SPEC 9.4. */
static void code_lengths(uint32_t *frequency, size_t symbols, unsigned longest, uint8_t *length)
{
    size_t used = 0;
    for (size_t i = 0; i < symbols; i++) used += frequency[i] != 0;
    for (size_t i = 0; used < 2; i++) /* a code of one symbol would be incomplete */
        if (!frequency[i]) {
            frequency[i] = 1;
            used++;
        }
    for (bool fits = false; !fits;) {
        uint32_t weight[2 * LITERALS] = {0};
        uint16_t parent[2 * LITERALS] = {0}; /* 0: still a root; no leaf is a parent */
        uint8_t depth[2 * LITERALS] = {0};
        size_t nodes = symbols;
        memcpy(weight, frequency, symbols * sizeof *weight);
        for (size_t joins = used - 1; joins; joins--, nodes++) {
            const size_t a = lightest(weight, parent, nodes);
            parent[a] = (uint16_t)nodes;
            const size_t b = lightest(weight, parent, nodes);
            parent[b] = (uint16_t)nodes;
            weight[nodes] = weight[a] + weight[b];
        }
        fits = true;
        for (size_t i = nodes - 1; i-- > 0;) {
            if (!weight[i]) continue;
            depth[i] = (uint8_t)(depth[parent[i]] + 1);
            fits = fits && (i >= symbols || depth[i] <= longest);
        }
        memcpy(length, depth, symbols);
        for (size_t i = 0; i < symbols; i++) frequency[i] = frequency[i] > 1 ? frequency[i] / 2 : frequency[i];
    }
}

/* The canonical codes of those lengths, in the order of their bits in the stream. SPEC 9.4. */
static void codes_from_lengths(const uint8_t *length, size_t symbols, uint16_t *code)
{
    unsigned next = 0;
    for (unsigned n = 1; n <= LONGEST; n++, next <<= 1)
        for (size_t i = 0; i < symbols; i++)
            if (length[i] == n) code[i] = (uint16_t)reversed(next++, n);
}

/* Code lengths as a dynamic block gives them: runs as symbols 16, 17, 18 with extra bits. Returns how many symbols.
   SPEC 9.4. */
static size_t run_lengths(const uint8_t *length, size_t total, uint8_t *symbol, uint8_t *extra)
{
    size_t n = 0;
    for (size_t i = 0; i < total;) {
        size_t run = 1;
        while (i + run < total && length[i + run] == length[i]) run++;
        if (!length[i] && run >= 3) {
            if (run > 138) run = 138;
            symbol[n] = run < 11 ? 17 : 18;
            extra[n++] = (uint8_t)(run - (run < 11 ? 3 : 11));
        } else if (i && length[i] == length[i - 1] && run >= 3) {
            if (run > 6) run = 6;
            symbol[n] = 16;
            extra[n++] = (uint8_t)(run - 3);
        } else {
            run = 1;
            symbol[n] = length[i];
            extra[n++] = 0;
        }
        i += run;
    }
    return n;
}

/* The code lengths of a dynamic block, themselves Huffman coded (RFC 1951, 3.2.7). SPEC 9.4. */
static void put_lengths(deflater *z, const uint8_t *length, size_t total)
{
    uint8_t symbol[LITERALS + DISTANCES], extra[LITERALS + DISTANCES], own[19];
    uint16_t code[19];
    uint32_t frequency[19] = {0};
    const size_t count = run_lengths(length, total, symbol, extra);
    size_t order = 19;
    for (size_t i = 0; i < count; i++) frequency[symbol[i]]++;
    code_lengths(frequency, 19, 7, own);
    codes_from_lengths(own, 19, code);
    while (order > 4 && !own[LENGTHS_ORDER[order - 1]]) order--;
    put_bits(z, (unsigned)order - 4, 4);
    for (size_t i = 0; i < order; i++) put_bits(z, own[LENGTHS_ORDER[i]], 3);
    for (size_t i = 0; i < count; i++) {
        put_bits(z, code[symbol[i]], own[symbol[i]]);
        if (symbol[i] >= 16) put_bits(z, extra[i], symbol[i] == 16 ? 2 : symbol[i] == 17 ? 3 : 7);
    }
}

/* The last base that is not above the value. SPEC 9.4. */
static unsigned symbol_of(const uint16_t *base, unsigned count, unsigned value)
{
    while (base[count - 1] > value) count--;
    return count - 1;
}

/* Writes the tokens so far as one dynamic block. SPEC 9.4. */
static void put_block(deflater *z, bool last)
{
    enum { L = 286, D = 30 };
    uint32_t literals[L] = {0}, distances[D] = {0};
    uint8_t length[L + D];
    uint16_t code[L], distance_code[D];
    literals[END_OF_BLOCK] = 1;
    for (size_t i = 0; i < z->tokens; i++) {
        const unsigned n = z->token[i] >> 16, d = z->token[i] & 0xFFFF;
        if (n) distances[symbol_of(DISTANCE_BASE, D, d)]++;
        literals[n ? END_OF_BLOCK + 1 + symbol_of(LENGTH_BASE, 29, n) : d]++;
    }
    code_lengths(literals, L, LONGEST, length);
    code_lengths(distances, D, LONGEST, length + L);
    codes_from_lengths(length, L, code);
    codes_from_lengths(length + L, D, distance_code);
    put_bits(z, last, 1);
    put_bits(z, 2, 2);
    put_bits(z, L - 257, 5);
    put_bits(z, D - 1, 5);
    put_lengths(z, length, L + D);
    for (size_t i = 0; i < z->tokens; i++) {
        const unsigned n = z->token[i] >> 16, d = z->token[i] & 0xFFFF;
        const unsigned ns = n ? symbol_of(LENGTH_BASE, 29, n) : 0, ds = n ? symbol_of(DISTANCE_BASE, D, d) : 0;
        const unsigned symbol = n ? END_OF_BLOCK + 1 + ns : d;
        put_bits(z, code[symbol], length[symbol]);
        if (!n) continue;
        put_bits(z, n - LENGTH_BASE[ns], LENGTH_BITS[ns]);
        put_bits(z, distance_code[ds], length[L + ds]);
        put_bits(z, d - DISTANCE_BASE[ds], DISTANCE_BITS[ds]);
    }
    put_bits(z, code[END_OF_BLOCK], length[END_OF_BLOCK]);
    z->tokens = 0;
}

/* The hash of three bytes: the top bits of a product with 2^32 / golden ratio (Knuth). SPEC 9.3. */
static size_t hash_of(const uint8_t *p)
{
    const uint32_t three = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    return (three * UINT32_C(2654435761) & UINT32_C(0xFFFFFFFF)) >> (32 - HASH_BITS);
}

/* The longest earlier occurrence of what begins at `at`, the nearest among equals; 0: none of 3 bytes or more.
   SPEC 9.3. */
static size_t longest_match(const deflater *z, size_t at, size_t *distance)
{
    const size_t most = z->length - at < MAX_MATCH ? z->length - at : MAX_MATCH;
    size_t best = MIN_MATCH - 1;
    if (most < MIN_MATCH) return 0;
    size_t where = z->head[hash_of(z->in + at)];
    for (int tries = CHAIN; where && at - (where - 1) <= WINDOW && tries && best < most; tries--) {
        const uint8_t *a = z->in + where - 1, *b = z->in + at;
        size_t n = 0;
        if (a[best] == b[best])
            while (n < most && a[n] == b[n]) n++;
        if (n > best) {
            best = n;
            *distance = at - (where - 1);
        }
        where = z->before[(where - 1) % WINDOW];
    }
    return best < MIN_MATCH ? 0 : best;
}

/* A zlib stream of `length` > 0 bytes, appended to out. SPEC 9.3. */
static bool deflate_zlib(flis_ctx *ctx, const uint8_t *in, size_t length, byte_buffer *out)
{
    deflater *z = flis_alloc(ctx, 1, sizeof *z);
    if (!z) return false;
    z->ctx = ctx;
    z->out = out;
    z->in = in;
    z->length = length;
    bytes_put_u8(ctx, out, 0x78); /* deflate, 32 KiB window */
    bytes_put_u8(ctx, out, 0x9C);
    for (size_t at = 0; at < length && flis_ok(ctx);) {
        size_t distance = 0;
        const size_t match = longest_match(z, at, &distance);
        z->token[z->tokens++] = match ? (uint32_t)(match << 16 | distance) : in[at];
        for (size_t stop = at + (match ? match : 1); at < stop; at++) {
            if (length - at < MIN_MATCH) continue;
            const size_t hash = hash_of(in + at);
            z->before[at % WINDOW] = z->head[hash];
            z->head[hash] = at + 1;
        }
        if (z->tokens == BLOCK || at == length) put_block(z, at == length);
    }
    put_bits(z, 0, 7); /* up to the end of the byte */
    bytes_put_u32(ctx, out, adler32(in, length));
    free(z);
    return flis_ok(ctx);
}

/* ---- Checksums --------------------------------------------------------------------------------------------------- */

/* CRC-32 of PNG and gzip (reflected 0xEDB88320), four bits at a time: entry i is i times x^4 modulo the polynomial.
   SPEC 9.2. */
static uint32_t crc32(uint32_t crc, const uint8_t *p, size_t count)
{
    static const uint32_t nibble[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                        0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                        0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc ^= p[i];
        crc = nibble[crc & 15] ^ crc >> 4;
        crc = nibble[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

/* Adler-32 of zlib. 4096 sums of bytes below 65521 + 4096 * 255 stay below 2^32. SPEC 9.3. */
static uint32_t adler32(const uint8_t *p, size_t count)
{
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < count; i++) {
        a += p[i];
        b += a;
        if (i % 4096 == 4095 || i + 1 == count) {
            a %= 65521;
            b %= 65521;
        }
    }
    return b << 16 | a;
}

/* ---- Digests: SHA-256 (FIPS 180-4) ----------------------------------------------------------------------------- */

static const uint32_t SHA256_K[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
};

static uint32_t rotate_right(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

/* FIPS 180-4 section 6.2.2: the message schedule w, then 64 rounds. A round changes two of the eight variables, so that
   renaming them takes the place of moving them. SPEC 10.13. */
static void sha256_block(uint32_t hash[8], const uint8_t *block)
{
    uint32_t w[64], v[8];
    for (int t = 0; t < 16; t++)
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 | (uint32_t)block[4 * t + 2] << 8 |
               block[4 * t + 3];
    for (int t = 16; t < 64; t++) {
        uint32_t a = w[t - 15], b = w[t - 2];
        w[t] = (rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10) + w[t - 7] +
               (rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3) + w[t - 16];
    }
    memcpy(v, hash, sizeof v);
#define ROUND(a, b, c, d, e, f, g, h, i) \
    do { \
        uint32_t t1 = v[h] + (rotate_right(v[e], 6) ^ rotate_right(v[e], 11) ^ rotate_right(v[e], 25)) + \
                      (v[g] ^ (v[e] & (v[f] ^ v[g]))) + SHA256_K[t + (i)] + w[t + (i)]; \
        v[d] += t1; \
        v[h] = t1 + (rotate_right(v[a], 2) ^ rotate_right(v[a], 13) ^ rotate_right(v[a], 22)) + \
               ((v[a] & v[b]) | (v[c] & (v[a] | v[b]))); \
    } while (0)
    for (int t = 0; t < 64; t += 8) {
        ROUND(0, 1, 2, 3, 4, 5, 6, 7, 0);
        ROUND(7, 0, 1, 2, 3, 4, 5, 6, 1);
        ROUND(6, 7, 0, 1, 2, 3, 4, 5, 2);
        ROUND(5, 6, 7, 0, 1, 2, 3, 4, 3);
        ROUND(4, 5, 6, 7, 0, 1, 2, 3, 4);
        ROUND(3, 4, 5, 6, 7, 0, 1, 2, 5);
        ROUND(2, 3, 4, 5, 6, 7, 0, 1, 6);
        ROUND(1, 2, 3, 4, 5, 6, 7, 0, 7);
    }
#undef ROUND
    for (int i = 0; i < 8; i++) hash[i] += v[i];
}

/* The initial hash value (FIPS 180-4, 5.3.3). SPEC 10.13. */
void flis_sha256_begin(flis_sha256 *s)
{
    static const uint32_t start[8] = {
        0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
    };
    memcpy(s->h, start, sizeof start);
    s->length = 0;
}

/* Blocks of 64 bytes; what is left waits for the next call. SPEC 10.13. */
void flis_sha256_add(flis_sha256 *s, const void *bytes, size_t count)
{
    const uint8_t *in = bytes;
    while (count) {
        size_t at = (size_t)(s->length % 64), piece = 64 - at < count ? 64 - at : count;
        memcpy(s->block + at, in, piece);
        s->length += piece;
        in += piece;
        count -= piece;
        if (at + piece == 64) sha256_block(s->h, s->block);
    }
}

/* A 1 bit, zeros, the length in bits as 64 bits (FIPS 180-4, 5.1.1); then the eight words in hexadecimal.
   SPEC 10.13. */
void flis_sha256_end(flis_sha256 *s, char hex[65])
{
    static const uint8_t padding[64] = {0x80};
    const uint64_t bits = s->length * 8;
    uint8_t tail[8];
    for (int i = 0; i < 8; i++) tail[i] = (uint8_t)(bits >> (56 - 8 * i));
    flis_sha256_add(s, padding, 1 + (size_t)((119 - s->length % 64) % 64));
    flis_sha256_add(s, tail, 8);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08lx", (unsigned long)s->h[i]);
}

/* Values first.. in the order that files have: in images the channels come before the positions. */
static void file_order(const flis_tensor *x, size_t first, size_t count, flis_real *out)
{
    if (x->rank != 4) {
        memcpy(out, x->x + first, count * sizeof *out);
        return;
    }
    const size_t positions = x->h * x->w;
    size_t n = first / positions / x->c, c = first / positions % x->c, position = first % positions;
    for (size_t i = 0; i < count; i++) {
        out[i] = x->x[(n * positions + position) * x->c + c];
        if (++position < positions) continue;
        position = 0;
        if (++c < x->c) continue;
        c = 0;
        n++;
    }
}

enum { STRETCH = 1024 }; /* values that are looked at together */

/* SHA-256 of the values as files hold them. SPEC 10.13. */
void flis_tensor_digest(const flis_tensor *x, char hex[65])
{
    flis_sha256 s;
    flis_real values[STRETCH];
    unsigned char bytes[STRETCH * sizeof *values];
    if (!hex) return;
    hex[0] = 0;
    if (!x || (!x->x && flis_count(x))) return;
    const size_t count = flis_count(x), size = x->bytes ? 1 : sizeof(flis_real);
    flis_sha256_begin(&s);
    for (size_t first = 0; first < count; first += STRETCH) {
        const size_t now = count - first < STRETCH ? count - first : STRETCH;
        file_order(x, first, now, values);
        if (x->bytes)
            for (size_t i = 0; i < now; i++) bytes[i] = (uint8_t)values[i];
        else /* a constant type: twice as fast */
            for (size_t i = 0; i < now; i++)
                value_to(bytes + i * sizeof(flis_real), sizeof(flis_real) == 8 ? FLIS_F64 : FLIS_F32, values[i]);
        flis_sha256_add(&s, bytes, now * size);
    }
    flis_sha256_end(&s, hex);
}

/* Adds the values' sum, or that of their squared distance from the mean, and (first pass) finds the largest. */
static double summary_pass(const flis_tensor *x, flis_summary *out, bool first_pass)
{
    flis_real values[STRETCH];
    double sum = 0;
    for (size_t first = 0; first < out->count; first += STRETCH) {
        const size_t now = out->count - first < STRETCH ? out->count - first : STRETCH;
        file_order(x, first, now, values);
        for (size_t i = 0; i < now; i++) {
            const double value = values[i], size = fabs(value), difference = value - out->mean;
            sum += first_pass ? value : difference * difference;
            if (!first_pass) continue;
            const bool finite = size <= DBL_MAX;
            if (!out->not_finite && (!finite || size > out->largest)) {
                out->largest = size;
                out->largest_at = first + i;
            }
            out->not_finite += !finite;
        }
    }
    return sum;
}

/* Sums in double, in the order that files have. SPEC 10.13. */
void flis_tensor_summary(const flis_tensor *x, flis_summary *out)
{
    const size_t count = flis_count(x);
    if (!out) return;
    memset(out, 0, sizeof *out);
    if (!x || (count && !x->x)) return;
    out->count = count;
    if (count) out->mean = summary_pass(x, out, true) / (double)count;
    if (count) out->std = sqrt(summary_pass(x, out, false) / (double)count);
    out->stride = count / FLIS_SAMPLES ? count / FLIS_SAMPLES : 1;
    for (; out->samples < FLIS_SAMPLES && out->samples < count; out->samples++) {
        flis_real value;
        file_order(x, out->samples * out->stride, 1, &value);
        out->sample[out->samples] = value;
    }
    flis_tensor_digest(x, out->sha256);
}
