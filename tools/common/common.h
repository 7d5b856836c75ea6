/* common.h - what the programs in tools/ share: options, terminal and progress, files, text, pictures, folders,
 * presets. Every program has -h, --help and --version, accepts --opt VALUE and --opt=VALUE, writes data to stdout and
 * everything else to stderr, and exits with 0 (done), 1 (failed) or 2 (wrong usage).
 */
#ifndef TOOLS_COMMON_H
#define TOOLS_COMMON_H

#include "flis.h"

enum { PATH_ROOM = 4096 };

/* ---- Options (options.c) ----------------------------------------------------------------------------------------- */

typedef enum {
    OPTION_FLAG,     /* bool, set to true */
    OPTION_TEXT,     /* const char *, not empty */
    OPTION_WHOLE,    /* uint64_t, min to max; max 0: up to 2^64-1 */
    OPTION_NUMBER,   /* double, min to max */
    OPTION_WORD,     /* int, the index of one of the words */
    OPTION_ARGUMENT, /* its value counts as an argument, in its place: the option may be given several times */
    OPTION_CALL      /* parse(options, text) sets the fields; false: invalid */
} option_kind;

/* One row of a table of options. value: the placeholder in the help ("N", "FILE"); wanted: what a CALL accepts, for the
   error message. The help text states the default: where it ends in "default ", options_help adds the value that the field has
   in the program's `defaults`. `commands` says which of a program's commands take the option. */
typedef struct option {
    const char *name; /* without dashes; "" if there is only a letter */
    char letter;      /* -x, or 0 */
    option_kind kind;
    size_t offset; /* of the field in the program's struct of options */
    const char *value, *help;
    double min, max;
    const char *const *words; /* NULL-terminated */
    bool (*parse)(void *options, const char *text);
    bool optional; /* CALL: --opt (text is NULL) or --opt=VALUE; `value` is "[=VALUE]" */
    const char *wanted;
    unsigned commands; /* bits; 0: all */
} option;

/* An option that other programs have, and that people try here. */
typedef struct foreign_option {
    const char *name;   /* without dashes, with _ where it is written with - too; NULL ends a table */
    const char *option; /* of this program: the row counts for the commands that take it */
    const char *advice; /* "unknown option --NAME: ADVICE" */
} foreign_option;

typedef struct program {
    const char *name;        /* "compare", "flis generate": starts every message */
    const char *arguments;   /* after the name in the usage line; '\n' starts another usage line */
    const char *summary;     /* one sentence or more */
    const char *details;     /* printed after the options, long lines wrapped; NULL: none */
    const char *exit_status; /* for the help; NULL: 0 done, 1 failed, 2 wrong usage */
    const option *options;
    size_t count;
    unsigned command; /* bit of the command that runs; 0: the program has no commands */
    const char *const
        *command_names;   /* by bit, NULL-terminated: the help names the commands of each option; NULL: it does not */
    const void *defaults; /* the struct of options before any is read, for the help; not the one that is being filled */
    const foreign_option *foreign; /* NULL: none */
} program;

/* Reads argv[1..]: options into *options, the other arguments to the front of argv (argv[0..*words - 1]). "--" ends the
   options; of equal options the last wins. In a long name '_' and '-' are the same, unless another option has the exact name. An
   unknown option is refused with what may have been meant. Returns -1 to continue, else the exit status: 0 after --help or
   --version, 2 after an error message. */
int options_read(const program *p, void *options, int argc, char **argv, int *words);
/* Sets one option of the table from a text that is not from a command line. False: invalid; `wanted` says what is valid. */
bool option_set(const program *p, void *options, const char *name, const char *text, char *wanted, size_t room);
/* The value that a command line gives an option, the last one of several, before options_read: for what sets other options'
   defaults. NULL: none. */
const char *options_find(const program *p, int argc, char *const *argv, const char *name);
/* "--rate 1e-06 --batch 1": the options whose values differ in two structs of options, with those of `to`. Appended to out. */
void options_list_changes(const program *p, const void *from, const void *to, char *out, size_t room);
void options_help(const program *p);
/* Wrong usage: prints "NAME: message (see NAME --help)" on stderr. Returns 2. */
int usage_error(const program *p, const char *format, ...);
/* usage_error with "WHAT is missing"; WHAT is spelled as in the usage line: "-o OUT.png", "MODEL". */
int missing_argument(const program *p, const char *what);
/* usage_error with "unexpected argument 'X'". */
int unexpected_argument(const program *p, const char *text);
/* How far a typed name is from one that exists: edits, more for a beginning of it; SIZE_MAX: too far to be meant. (suggest.c) */
size_t typed_distance(const char *typed, size_t length, const char *name);
/* The row of a table (may be NULL) with that name; NULL: none. */
const foreign_option *find_foreign(const foreign_option *table, const char *typed, size_t length);
/* A whole decimal number below 2^64; a finite decimal number, without blanks, not hexadecimal, not "inf". The whole
   text must match. */
bool parse_whole(const char *text, uint64_t *out);
bool parse_number(const char *text, double *out);
/* "1,2,4" of whole numbers from min to max, at most `room` of them; false: not such a list. */
bool parse_list(const char *text, uint64_t min, uint64_t max, uint64_t *out, size_t room, size_t *count);
/* For ctx->warn, with a progress (may be NULL) as warn_user's line to end: prints "NAME: warning: sentence" on stderr, each sentence
   once (a file that is read twice is warned of once). */
typedef struct warnings {
    const char *name; /* of the program */
    struct progress *progress;
    bool off;             /* --no-warnings */
    uint64_t printed[64]; /* hashes of the sentences so far */
    size_t count;
} warnings;
void print_warning(void *warnings, const char *sentence);
/* The end of main: prints ctx->error (unless status is 2), checks that stdout was written, returns the exit status. */
int finish(const char *name, const flis_ctx *ctx, int status);

/* ---- The machine (machine.c): everything outside C99, with fallbacks ---------------------------------------------- */

double seconds_now(void); /* since an arbitrary moment; monotonic where the system has such a clock */
void binary_stdout(void); /* Windows: data on stdout is the same bytes as elsewhere, lines end in LF alone */
bool is_terminal(FILE *stream);
bool wants_color(FILE *stream); /* a terminal, and NO_COLOR is not set */
/* The first Ctrl-C (or SIGTERM, SIGHUP) sets the flag, for ctx->interrupted; the second ends the program. Ignored signals stay
   ignored. */
const volatile int *catch_signals(void);
typedef enum { FILE_ABSENT, FILE_REGULAR, FILE_FOLDER, FILE_SPECIAL } file_kind;
file_kind kind_of_file(const char *path);     /* links are followed */
bool same_file(const char *a, const char *b); /* both exist and are the same file; links and hard links are followed */
enum { KEY_ROOM = PATH_ROOM + 64 };
/* A text that two paths have in common if and only if they lead to one file, through links and hard links, also to a file that
   does not exist yet. False: the folder does not exist, or the path is a device such as /dev/null. */
bool file_key(const char *path, char out[KEY_ROOM]);
bool is_pipe(const char *path); /* a named pipe, or a process substitution of the shell */
/* Outputs: "-" is standard output, also below its names /dev/stdout and /dev/fd/1. */
bool leads_to_terminal(const char *path);
bool leads_to_stdout(const char *path);
void ignore_broken_pipes(void); /* a write to a pipe that nobody reads fails; it does not end the program */
bool make_folder(flis_ctx *ctx, const char *path); /* makes the folder if it does not exist; its parent must exist */
/* Calls add for each entry of a folder; false: no such folder, or the system cannot list it. */
bool each_entry(const char *path, void (*add)(void *user, const char *name), void *user);
/* The file that a path's links lead to; false: too long, or a loop of links. */
bool resolve_links(const char *path, char out[PATH_ROOM]);
/* The path from the root, through links, of a file whose folder exists; false: it does not, or the system cannot tell. */
bool absolute_path(const char *path, char out[PATH_ROOM]);
bool is_separator(char c); /* between the folders of a path */
/* Also for positions beyond 2 GiB. file_size moves to the end. */
bool file_seek(FILE *stream, uint64_t position);
bool file_size(FILE *stream, uint64_t *size);
size_t processors(void);
/* Work beside the caller's: begin starts it in a thread, end waits for it. Where there are no threads (the program may use one,
   the system has none, or the program was compiled without OpenMP), end does the work itself. `t` and what `user` points to must
   stay in their places until end. On a thread that is zero end does nothing. */
typedef struct thread {
    void (*work)(void *user);
    void *user;
    void *handle; /* NULL: no thread */
} thread;
void thread_begin(thread *t, int threads, void (*work)(void *user), void *user);
void thread_end(thread *t);
double memory_available(void); /* bytes; 0: unknown */
double memory_peak(void);      /* of this process, bytes; 0: unknown */
/* Makes a new folder below TMPDIR; out[PATH_ROOM]. */
bool scratch_folder(flis_ctx *ctx, const char *stem, char *out);
void scratch_remove(const char *folder); /* removes the folder that scratch_folder made; it must be empty */

/* ---- Progress (progress.c) ---------------------------------------------------------------------------------------- */

/* Progress: on a terminal one line that is redrawn, elsewhere a line for every tenth step and the last. Initialise it
   to zero. */
typedef struct progress {
    bool quiet;
    const char *unit; /* "step": seconds per step and the time left are shown; NULL: only counts */
    char what[32];
    double start, drawn;
    size_t first, done;
    bool line_open;
} progress;
void progress_show(progress *p, const char *what, size_t done, size_t total);
/* The same with text after the count: "loss 0.123". */
void progress_note(progress *p, const char *what, size_t done, size_t total, const char *format, ...);
/* Ends a line that is being redrawn. Must be called before any other output to stderr. */
void progress_end(progress *p);

/* ---- Outputs (outputs.c) ------------------------------------------------------------------------------------------- */

/* Every program writes files with flis_output_open: completely or not at all. "-", pipes and devices get the bytes directly. */
/* Writes a whole file. */
bool output_write(flis_ctx *ctx, const char *path, const void *bytes, size_t length);
/* Returns true if flis_output_open will succeed; to be called before hours of work. Refuses a folder, and a name in a folder that
   does not exist or is not writable. */
bool output_check(flis_ctx *ctx, const char *path);
bool binary_check(flis_ctx *ctx, const char *path); /* refuses a terminal; NULL is fine */
/* Removes a regular file that the program wrote; links are followed. */
bool output_remove(const char *path);
/* To be called before any work, with everything that a program reads and writes. Fails if an output cannot be written
   (output_check), if it is an input or a file inside a folder that is an input, if two outputs are one file, or if one is the
   other's temporary name. NULLs are skipped. */
bool outputs_check(flis_ctx *ctx, const char *const *in, size_t inputs, const char *const *out, size_t outputs);
/* The same without output_check: for thousands of files in a folder that output_check has passed. */
bool outputs_apart(flis_ctx *ctx, const char *const *in, size_t inputs, const char *const *out, size_t outputs);

/* ---- Files (files.c) ----------------------------------------------------------------------------------------------- */

/* Opens a file for reading; fails with an error message. */
FILE *input_open(flis_ctx *ctx, const char *path);
/* Returns true if the file can be opened; to be called before hours of work. Refuses a folder. Special files are not opened: a pipe
   can be read only once. */
bool input_check(flis_ctx *ctx, const char *path);
/* Fails if path is not a folder but a file. */
bool folder_check(flis_ctx *ctx, const char *path);
/* out = the first `length` bytes of folder, then name; true if there is such a file. */
bool file_in(const char *folder, size_t length, const char *name, char out[PATH_ROOM]);
/* Folder number i of those that default files are looked for in: `here` beside the program (beside its bin/), then in the working
   directory, last `installed` below the installed data. False: no more. program_path: argv[0]. */
bool data_folder(const char *program_path, int i, const char *here, const char *installed, char out[PATH_ROOM]);
/* The file models/NAME in the first of those folders that has it. False: none has; out is then models/NAME. */
bool data_file(const char *program_path, const char *name, char out[PATH_ROOM]);
/* The SHA-256 of a file's bytes. */
bool file_digest(flis_ctx *ctx, const char *path, char hex[65]);
/* The same in pieces: adds a file's bytes to a sum and to *done. ctx->progress gets "digest", megabytes done and in total; total 0:
   no progress. */
bool file_digest_add(flis_ctx *ctx, const char *path, flis_sha256 *sum, uint64_t *done, uint64_t total);
/* The same of an open file, from its beginning; path: its name, for sentences. */
bool stream_digest_add(flis_ctx *ctx, const char *path, FILE *file, flis_sha256 *sum, uint64_t *done, uint64_t total);
/* path + end, to be freed: "model.safetensors" -> "model.safetensors.state". */
char *path_with(flis_ctx *ctx, const char *path, const char *end);
size_t folder_length(const char *path); /* of the folder part, including its slash; 0: none */
const char *base_name(const char *path);

/* ---- Text (text.c) -------------------------------------------------------------------------------------------------- */

/* Text that grows by appending. Initialise it to zero, and free(at). If memory runs out, the context fails. */
typedef struct buffer {
    char *at;
    size_t length, room;
} buffer;
void buffer_put(flis_ctx *ctx, buffer *b, const char *format, ...);
void buffer_put_args(flis_ctx *ctx, buffer *b, const char *format, va_list args);
void buffer_json_string(flis_ctx *ctx, buffer *b, const char *string);
/* A number with `digits` significant digits; 0: as few as read back the same value. NaN and infinities, which JSON
   lacks, as the strings "NaN", "Infinity", "-Infinity". */
void buffer_json_number(flis_ctx *ctx, buffer *b, double x, int digits);
/* Appends to a text in an array of `room` bytes; the text is truncated to fit. */
void text_append(char *text, size_t room, const char *format, ...);
/* The shortest decimal text that reads back as x. */
void shortest_number(double x, char out[32]);
void print_json_string(FILE *stream, const char *string);
void print_json_number(FILE *stream, double x);    /* shortest; null for NaN and infinities */
void print_html(FILE *stream, const char *string); /* escaped for text and attributes */
/* The link from a page to a file, both by their paths: relative to the page's folder, with escapes, for href and src. */
void print_link(FILE *stream, const char *page, const char *file);
void print_base64(FILE *stream, const uint8_t *bytes, size_t length);
void buffer_base64(flis_ctx *ctx, buffer *b, const uint8_t *bytes, size_t length);
/* The bytes of a text in base64, to be freed. NULL: not such a text, or no memory. */
uint8_t *base64_bytes(flis_ctx *ctx, const char *text, size_t *length);
/* A name from an untrusted file, made safe for a terminal: what is not printable becomes '?'. */
void print_name(FILE *stream, const char *name);
/* A glob: * is any run of characters, ? any character, [a-z] [!a] one of a set. The whole text must match. */
bool glob_match(const char *pattern, const char *string);
bool ends_in(const char *string, const char *end);

/* ---- Pictures and folders (pictures.c, folders.c) ------------------------------------------------------------------- */

/* 8-bit RGB from a JPEG, a PNG (not interlaced) or a binary PPM, by the file's first bytes; free(out->pixels). Gray, palette and
   alpha are converted as PIL's convert("RGB") does it: alpha is dropped. */
bool read_picture(flis_ctx *ctx, const char *path, flis_picture *out);
/* A JPEG in memory; `name` is used in sentences. The pixels are those of PIL (with libjpeg-turbo 2.1) to the byte, of damaged files
   too where PIL reads them; EXIF's orientation is ignored. Arithmetic coding and 12 bits are refused. */
bool read_jpeg_memory(flis_ctx *ctx, const char *name, const uint8_t *bytes, size_t length, flis_picture *out);
/* A whole JPEG file of a picture of 1 or 3 channels, up to 65500 pixels wide and high, malloc'ed: the bytes of PIL's
   save(…, "JPEG", quality=…), baseline, 4:2:0. PIL's default quality is 75; quality 1 to 100. */
uint8_t *jpeg_bytes(flis_ctx *ctx, const flis_picture *picture, int quality, size_t *length);
/* PIL's BICUBIC (Keys 1981, a = -1/2; the kernel widens when shrinking): out [side][side][3] in -1..1. */
bool resize_picture(flis_ctx *ctx, const flis_picture *p, size_t side, flis_real *out);
/* PIL's resize to width x height with BICUBIC and with NEAREST, to the byte, 8 bits per value; any number of channels.
   out->pixels: free. resize_picture rounds nothing to bytes. */
bool resize_bicubic(flis_ctx *ctx, const flis_picture *p, size_t width, size_t height, flis_picture *out);
bool resize_nearest(flis_ctx *ctx, const flis_picture *p, size_t width, size_t height, flis_picture *out);
/* The means of 2 x 2 pixels in -1..1: out [height / 2][width / 2][3]. */
void half_picture(const uint8_t *rgb, size_t width, size_t height, flis_real *out);

typedef struct names {
    size_t count, room;
    char **name;
} names;
void names_free(names *n);
bool names_add(flis_ctx *ctx, names *n, const char *folder, const char *name,
               size_t length); /* folder NULL: the name alone */
/* Lists of endings end with NULL. Pictures: .png, .jpg, .jpeg, .ppm; label maps: .png, .pgm. */
extern const char *const PICTURE_ENDINGS[], *const LABEL_ENDINGS[];
bool ends_in_any(const char *name, const char *const *endings);
/* ".png, .jpg or .ppm", for sentences. Returns text. */
char *endings_text(const char *const *endings, char text[64]);
/* The files of a folder whose names have one of the endings, sorted; false without an error: there is no such folder. */
bool list_folder(flis_ctx *ctx, const char *path, const char *const *endings, names *out);
/* The same, or the lines of a text file; *folder is true for a folder. */
bool list_files(flis_ctx *ctx, const char *path, const char *const *endings, names *out, bool *folder);
/* A file's name without folder and ending. */
void name_stem(const char *path, const char **start, size_t *length);
/* The partner of file i of `of` in `in`: with the same stem if either list came from a folder, else on the same
   line. */
const char *name_partner(flis_ctx *ctx, const names *of, size_t i, const names *in, bool folders, const char *where);

/* ---- Lists of classes (classes.c) ------------------------------------------------------------------------------------ */

/* Lines of label (0 to 255), tab, name; further columns, empty lines and lines that begin with # are skipped. Any other line, and
   a label that is given twice, is refused with its number. */
enum { CLASS_LABELS = 256 };
typedef struct class_names {
    char *name[CLASS_LABELS]; /* UTF-8; NULL: the list does not have the label */
    size_t count;
} class_names;
bool classes_read(flis_ctx *ctx, const char *path, class_names *out);
bool classes_parse(flis_ctx *ctx, const char *path, const char *text, size_t length, class_names *out);
void classes_free(class_names *c);
/* Of a text file in memory: skips a byte order mark; refuses UTF-16 and NUL bytes. */
bool text_check(flis_ctx *ctx, const char *path, const char **text, size_t *length);

/* ---- Data sets (datasets.c) ------------------------------------------------------------------------------------------ */

/* A data set as the authors' code knows it, or a list of classes. */
typedef struct dataset {
    const char *name; /* "coco", "ade20k"; of a list: its file, borrowed */
    class_names classes;
    bool is_void[CLASS_LABELS]; /* coco: 255; ade20k: 0; of a list: 0 and 255 where it does not name them */
    const char *labels[2]; /* folders of label maps below the root: of training, of validation; NULL: the root itself */
    const char *word;      /* a picture whose path contains it is one of training; NULL: there is no such difference */
} dataset;
/* name: coco or ade20k (in any case), else the file of a list of classes. Errors: no such file; those of classes_read. */
bool dataset_open(flis_ctx *ctx, const char *name, dataset *out);
void dataset_close(dataset *d);
/* The label map of a picture, by its file's name without ending: below the root in the data set's folders, the authors' choice of
   the two first (a word in the picture's path), else in the root itself; for a list of classes in the root itself, else in coco's
   folders, else in ade20k's. .png, else .pgm. Errors: no such file. */
bool dataset_label_path(flis_ctx *ctx, const dataset *d, const char *root, const char *picture, char out[PATH_ROOM]);
/* The classes that are present in a label map, in the order of their labels, without void: the authors' prompt. No phrases: all
   is void. `where` is used in sentences. *phrase is to be freed with phrases_free, also after an error. Errors: a label that is
   neither a class nor void. */
bool dataset_phrases(flis_ctx *ctx, const dataset *d, const char *where, const uint8_t *label, size_t count,
                     flis_phrase **phrase, size_t *phrases);
void phrases_free(flis_phrase *phrase, size_t count);

/* ---- Label maps in colours (palette.c) ------------------------------------------------------------------------------- */

/* The colour of a label, 0 to 255: a fixed palette whose colours lie far apart. */
void label_colour(int label, uint8_t rgb[3]);
/* A whole PNG of a label map in those colours, malloc'ed; void is gray. */
uint8_t *label_png(flis_ctx *ctx, const flis_picture *map, const bool is_void[CLASS_LABELS], size_t *length);

/* ---- NumPy's files (npy.c) ------------------------------------------------------------------------------------------- */

/* An array of floats ('f', 2, 4 or 8 bytes), integers ('i', 'u', 1 to 8 bytes) or bools ('b', 1 byte). */
typedef struct npy_array {
    char kind;
    size_t size, count; /* bytes of a value; values */
    bool big, fortran;  /* order of bytes, order of values: true where the first index varies fastest */
    int rank;
    uint64_t shape[FLIS_MAX_DIMS];
    const uint8_t *data;
    uint8_t *owned; /* what npy_free frees; NULL: data is borrowed */
} npy_array;
bool npy_read(flis_ctx *ctx, const char *path, npy_array *out);
/* From the bytes of a file, which are borrowed; `name` is used in sentences. */
bool npy_parse(flis_ctx *ctx, const char *name, const uint8_t *bytes, size_t length, npy_array *out);
void npy_free(npy_array *a);
/* Value i in C order (the last index varies fastest), whatever the order in the file; of unsigned 64-bit integers above INT64_MAX,
   npy_integer gives that. npy_integer: not of floats. */
double npy_number(const npy_array *a, size_t i);
int64_t npy_integer(const npy_array *a, size_t i);
/* Several named arrays: np.savez, np.savez_compressed. */
typedef struct npz_entry {
    char *name; /* without .npy */
    int method;
    size_t at, packed, size;
    uint32_t crc;
} npz_entry;
typedef struct npz {
    char *path;
    uint8_t *bytes;
    size_t length, count;
    npz_entry *entry;
} npz;
bool npz_open(flis_ctx *ctx, const char *path, npz *out);
/* From malloc'ed bytes, which npz_close frees; also when it fails. */
bool npz_parse(flis_ctx *ctx, const char *name, uint8_t *bytes, size_t length, npz *out);
void npz_close(npz *z);
int npz_find(const npz *z, const char *name); /* -1: none */
/* out: npy_free it before npz_close. */
bool npz_array(flis_ctx *ctx, const npz *z, int i, npy_array *out);

/* ---- Presets (presets.c): shapes of models with formula weights ----------------------------------------------------- */

typedef struct preset {
    const char *name;
    flis_clip_config clip;
    flis_unet_config unet;
    flis_vae_config vae;
} preset;
const preset *preset_find(const char *name); /* "tinyA", "tinyB", "sd14"; NULL: none */
/* Writes the whole model; dtype F32 or F16. encoder: with the autoencoder's encoder. Stops when ctx is interrupted. */
bool preset_write(flis_ctx *ctx, const preset *p, const char *path, flis_dtype dtype, bool encoder);

#endif
