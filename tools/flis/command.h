/* command.h - what the files of the `flis` command share: one job, its options, and what it reads and writes.
 *
 * Nothing is computed here: each command reads its arguments, calls the library, and writes what came back. Others script
 * against names, shapes and exit codes: keep them.
 *
 *   main.c        the tables of commands and options        job.c         what long commands share
 *   find.c        default model, vocabulary, vectors        tensors.c     lists of tensors on their way to a file
 *   trace.c       traces, digests of traces, facts          batch.c       layouts and seeds: the pictures of a run
 *   record.c      pictures as files                          again.c       --again: the way back, with picture_text.c
 *   foreign.c     other programs' options                   outputs.c     no output over an input
 *   then one file per command
 */
#ifndef TOOLS_FLIS_COMMAND_H
#define TOOLS_FLIS_COMMAND_H

#include "tools/common/common.h"

/* ---- Options (main.c has the table) --------------------------------------------------------------------------------- */

enum { MAX_RANGES = 64 };
typedef struct range {
    uint64_t first, last;
} range;

/* Of pictures that are written. JPEG: quality 75, 4:2:0, PIL's default. */
typedef enum { FORMAT_BY_NAME = -1, FORMAT_PNG, FORMAT_JPEG } picture_format;

typedef struct settings {
    const char *model, *in, *out, *vocab, *noise, *negative, *again;
    const char *trace, *trace_digest, *trace_match;
    const char *truth, *json;     /* precision */
    const char *manifest, *match; /* conformance */
    const char *variant, *vae;    /* of the model's weights */
    range trace_step[MAX_RANGES]; /* --trace-steps */
    size_t trace_steps;           /* ranges; 0: every step */
    uint64_t steps, seed, count;  /* count: pictures of a layout, with the seeds from seed on */
    uint64_t threads;             /* 0: as many as there are */
    int sampler, rng;             /* index of the word: plms, ddim; cpu, cuda */
    int format;                   /* picture_format; of --format, then batch_plan's choice */
    double eta, scale;
    size_t width, height;
    bool no_layout, quiet, no_warnings, diffable, packed, verify;
    const char *dataset, *data_root, *txt_file, *outdir, *grid; /* of lis */
    uint64_t shard, shards;                                     /* this one, from 1, of all */
    bool plms, fixed_code, by_picture;
    bool of_batch;                             /* the noise is that of a batch: */
    uint64_t batch, batch_number, batch_index; /* its size, which batch of the run, which picture of the batch */
} settings;

/* ---- Lists of tensors (tensors.c) ----------------------------------------------------------------------------------- */

/* A tensor on its way to a file, in PyTorch's order. */
typedef struct named_tensor {
    char *name;
    flis_dtype dtype;
    int rank;
    uint64_t shape[4];
    size_t count;
    void *values; /* flis_real, int64_t (I64) or uint8_t (U8) */
} named_tensor;

typedef struct tensor_list {
    named_tensor *item;
    size_t count, room;
} tensor_list;

/* What reproduces a run: a key and its value. */
typedef struct fact {
    const char *key;
    char *value;
} fact;

/* The dtype of flis_real in files. */
flis_dtype real_type(void);
/* Adds a tensor and returns room for its values, which the caller fills. NULL: failed. */
void *add_tensor(flis_ctx *ctx, tensor_list *list, const char *name, flis_dtype dtype, int rank, const uint64_t *shape);
/* Adds an activation in the order that files have. */
void add_activation(flis_ctx *ctx, tensor_list *list, const char *name, const flis_tensor *x);
/* An activation's shape in a file: [n][h][w][c] is [n,c,h,w]; [n][t][c] and [n][c] stay. */
void file_shape(const flis_tensor *x, uint64_t shape[4]);
bool save_tensors(flis_ctx *ctx, const char *path, const tensor_list *list, const fact *facts, size_t fact_count);
void free_tensors(tensor_list *list);

/* The options of other programs that generate names when it refuses them (foreign.c). */
extern const foreign_option FOREIGN[];

/* ---- A job: one command at work --------------------------------------------------------------------------------------- */

/* Which files a picture was made with (record.c). Names are without folders; "" for a digest: not made, or none. */
typedef struct made_with {
    const char *software, *model, *vae, *vocab, *noise, *layout;
    char model_sha256[65], vae_sha256[65], configuration[65], vocab_sha256[65], noise_sha256[65];
} made_with;

enum { MAX_FACTS = 32 };
typedef struct job {
    flis_ctx ctx;
    const char *self;       /* argv[0]: defaults are looked for beside it */
    const program *program; /* name and options of the command, for sentences */
    settings set;
    char **word; /* the arguments that are not options */
    int words;
    settings fresh; /* before the command line was read */
    int argc;       /* the command line as it was */
    char **argv;
    flis_options options; /* the settings as the library takes them (job_begin) */
    flis_rng random;      /* that options.random points to, with noise of a batch */
    progress progress;
    char model_path[PATH_ROOM], vocab_path[PATH_ROOM]; /* as found */
    tensor_list outputs, traced;                       /* of stage; for --trace */
    fact fact[MAX_FACTS];                              /* what a trace says about its run */
    size_t facts;
    flis_output digest; /* --trace-digest, while it is being written */
    size_t digest_tensors;
    size_t step_count; /* of the sampler (job_check_steps) */
    size_t matches;    /* tensors that --trace-match took */
    made_with with;
    uint64_t model_bytes;             /* of the model's tensors (model_open_files) */
    flis_file *model_file, *vae_file; /* whose digests are still to be made; NULL: none */
    bool outputs_checked;             /* job_check_outputs has been called */
} job;

/* Threads, progress, signals, and the settings as flis_options. */
void job_begin(job *j);
/* The exit status that the context asks for. */
int job_status(const job *j);
/* For ctx->progress. */
void job_progress(void *user, const char *what, size_t done, size_t total);
/* One line on stderr: "flis COMMAND: KIND: sentence"; nothing with --quiet. */
void job_note(job *j, const char *kind, const char *format, ...);
/* The generator of picture `index` of batch `wanted` (from 0), with --seed and --batch-size. *at is the generator before batch
   *number; zero to begin with, and kept from picture to picture, because skipping takes time. (lis_noise.c) */
bool job_batch_noise(job *j, flis_rng *at, uint64_t *number, uint64_t wanted, size_t index, flis_rng *out);
/* --fixed-code: what all batches start from, for the picture at that place in its batch, as j->options' noise. *code: memory
   that is kept for it, NULL to begin with; free() it. (lis_noise.c) */
bool job_fixed_code(job *j, size_t index, flis_real **code);
/* "seed N" on stderr; nothing with --quiet. */
void job_print_seed(job *j);
/* Refuses, before anything is loaded, what the sampler would refuse later; counts the steps. */
bool job_check_steps(job *j);

/* ---- Finding files (find.c) ------------------------------------------------------------------------------------------- */

/* j->model_path: the model that was given, or the default one. */
bool find_model(job *j);
/* --variant and --vae as the library takes them. */
flis_choice model_choice(const job *j);
/* Opens the model that find_model found, with that choice; loads parts of it. */
flis_file *open_model(job *j);
flis_model *load_model(job *j, unsigned parts);
/* Reads its list of tensors: what is wrong with the file shows before anything else is looked for. */
bool check_tensors(job *j);
/* The vocabulary that was given (a file or a folder), the one in the model's folder, or the one beside the model, or (where no model
   was given) beside a default model. */
flis_vocab *find_vocab(job *j);
/* The folder of the conformance vectors, with its slash. */
bool find_manifest(job *j, char folder[PATH_ROOM]);

/* ---- Traces (trace.c) ------------------------------------------------------------------------------------------------- */

void add_fact(job *j, const char *key, const char *format, ...);
/* What every command's metadata begins with: version, precision, the command, the model and its SHA-256 (where there is one). */
void add_run_facts(job *j, const char *command, bool model);
void add_file_facts(job *j, const char *key, const char *digest_key, const char *path);
void add_layout_facts(job *j, const flis_vocab *vocab, const flis_layout *layout);
void add_sampling_facts(job *j);
/* {"metadata": {…} - without what follows. */
void put_facts(job *j, buffer *b);
void free_facts(job *j);

/* Whether any option asks for a trace. */
bool tracing(const job *j);
/* Refuses --trace-steps beyond the sampler's last step. 0, or 2: a usage error was printed. */
int trace_check_steps(const job *j);
void trace_begin(job *j);
/* Writes both files of a trace, or neither. */
bool trace_end(job *j);
/* Removes both files: the run failed afterwards. */
void trace_remove(const job *j);

/* ---- The pictures of one run (batch.c) ----------------------------------------------------------------------------------- */

typedef struct batch {
    const char **source;          /* [sources] the layouts' files, or the one of --again; borrowed */
    flis_layout *layout;          /* [sources] */
    size_t sources, seeds, count; /* count = sources * seeds pictures, seeds inside */
    char **out;                   /* [count] their files */
    bool folder;                  /* -o is one */
    char *made;                   /* its name, if this run made it; else NULL */
    size_t finished;              /* pictures so far */
    bool painting;                /* the first one has begun */
} batch;
/* The file's name, of standard input "stdin". */
const char *source_name(const batch *b, size_t i);
/* From b->source and the settings: what is painted where. 0, or 2: a usage error was printed. */
int batch_plan(job *j, batch *b);
/* Makes the folder of -o if it does not exist. */
bool batch_make_folder(job *j, batch *b);
/* Frees the lists; after a failure, says what is finished, and removes a new folder that stayed empty. */
void batch_end(job *j, batch *b);

/* ---- Outputs (outputs.c) ---------------------------------------------------------------------------------------------- */

/* outputs_check of the command's files: -o or the pictures of a batch (may be NULL), --trace, --trace-digest, --json; and all that it
   reads, as far as it has been found: before files are read, when the model is found, and when the vocabulary and the layouts' label maps are
   known. */
bool job_check_outputs(job *j, const batch *b);

/* ---- Pictures and what they keep (record.c, picture_text.c, again.c) ------------------------------------------------------ */

/* Opens the files whose digests a picture keeps, without reading them, and sets j->model_bytes. 4 GB take several seconds to
   digest, so that is done when the first picture is written; the files stay open until then, so that they are those that were
   painted with. */
bool model_open_files(job *j);
void model_close_files(job *j);
/* j->with.model_sha256, vae_sha256 and configuration, when they are not made yet. */
bool model_digest(job *j);
/* All of j->with but the layout's name. */
bool find_digests(job *j);
/* The format that a name's ending says; FORMAT_BY_NAME: none of the two (batch.c). */
picture_format format_of_name(const char *name);
enum { JPEG_QUALITY = 75 }; /* PIL's default, with which the authors' programs write */
/* The bytes of a PNG with all that makes it again; free() them. */
uint8_t *picture_bytes(job *j, const flis_picture *picture, const flis_layout *layout, size_t *length);
/* The pixels as a JPEG, which keeps no texts. */
bool write_jpeg(flis_ctx *ctx, const flis_picture *picture, const char *out);
/* The PNG with all that makes it again. */
bool write_picture(job *j, const flis_picture *picture, const flis_layout *layout, const char *out);
/* [["phrase", id], …] */
void put_phrases(flis_ctx *ctx, buffer *b, const flis_layout *layout);

/* The texts of a PNG, in UTF-8: key, value, key, value… */
typedef struct picture_text {
    char **at;
    size_t count;
} picture_text;
bool picture_text_read(flis_ctx *ctx, const char *path, picture_text *out);
const char *picture_text_get(const picture_text *t, const char *key); /* the first of that name; NULL: none */
void picture_text_free(picture_text *t);

/* Reads the picture of --again: j->set becomes its options, with those of the command line over them; the layout is its. */
bool again_read(job *j, picture_text *t, flis_layout *layout);
/* Refuses files (j->with) other than the picture was made with; those are then named as it names them. */
bool again_check_files(job *j, const picture_text *t);

/* ---- Layouts (layout.c) ------------------------------------------------------------------------------------------------ */

enum { SCALES = 5 };
/* A picture's sides are divided by these: the picture, and the scales of the U-Net. */
extern const size_t SCALE_FACTOR[SCALES];
/* Whether a layout can be read from there; "-" is standard input. */
bool layout_check(flis_ctx *ctx, const char *path);

/* count[s][id]: how many cells have that id at scale s. */
typedef struct cell_counts {
    size_t count[SCALES][256];
} cell_counts;
bool count_cells(flis_ctx *ctx, const flis_picture *label, size_t width, size_t height, cell_counts *out);

/* ---- Inputs of stages (stage_inputs.c) ---------------------------------------------------------------------------------- */

/* One stage at work: the input file, and what the letters of the shapes stand for so far. */
typedef struct stage {
    job *j;
    flis_file *in, *model;
    size_t dim[128]; /* by letter; 0: not yet known */
} stage;

/* Finds an input and checks its shape against the pattern ("n,77,d"); one extra leading 1 is accepted. NULL: absent or wrong. */
const flis_entry *find_input(stage *s, const char *name, const char *pattern, bool optional);
/* The values of an input; free() them. NULL: absent (if optional) or failed. */
flis_real *real_input(stage *s, const char *name, const char *pattern, bool optional);
/* Whole numbers from low to high, of any integer type. */
int64_t *integer_input(stage *s, const char *name, const char *pattern, int64_t low, int64_t high, bool optional);
/* An [n,c,h,w] input as an activation. */
flis_tensor *image_input(stage *s, const char *name, const char *pattern, size_t channels, char h, char w);

/* label [H,W] and class_ids [k], both or neither; the arrays stay until free_rca. */
typedef struct rca_input {
    flis_rca rca;
    uint8_t *label;
    float *class_ids;
} rca_input;
/* False: not given (if optional), or failed. */
bool read_rca(stage *s, rca_input *r, bool optional);
void free_rca(rca_input *r);

/* ---- Commands ----------------------------------------------------------------------------------------------------------- */

int run_generate(job *j);
int run_lis(job *j);
int run_stage(job *j);
int run_precision(job *j);
int run_tokens(job *j);
int run_info(job *j);
int run_layout(job *j);
int run_digest(job *j);
int run_conformance(job *j);

#endif
