/* lis.h - what the files of `flis lis` share: a run over the layouts of a data set.
 *
 *   lis.c            the command: options, the loop over pictures, failures
 *   lis_layouts.c    the list of pictures, their label maps, their prompts
 *   lis_manifest.c   the record of a run: what is finished, and what it was made with
 *   lis_noise.c      random numbers drawn for whole batches
 *   lis_grid.c       --grid: layouts beside pictures, on the page of lis_page.c
 */
#ifndef TOOLS_FLIS_LIS_H
#define TOOLS_FLIS_LIS_H

#include "tools/flis/command.h"

typedef enum { PICTURE_TODO, PICTURE_DONE, PICTURE_FAILED } picture_state;

/* One layout of the list, and the picture that is painted of it. */
typedef struct lis_picture {
    const char *source; /* its line of the list; borrowed */
    char *name;         /* of the picture's file in the folder: NAME.jpg */
    char *error;        /* why it failed; NULL: it did not */
    char *text;         /* its prompt, the phrases joined by blanks; NULL: not known yet */
    size_t prompt;      /* index into lis.prompt, of those that are to be painted */
    picture_state state;
    bool recorded;  /* a manifest has it */
    char shard[32]; /* "2/4", as the record says */
    uint64_t seed;
    char digest[65]; /* SHA-256 of the file */
    double seconds;
} lis_picture;

/* A prompt that one layout or several have, and its text features for as long as they are needed. */
typedef struct lis_prompt {
    size_t uses; /* pictures that are still to be painted with it */
    flis_real *features;
} lis_prompt;

typedef struct lis {
    job *j;
    dataset set;
    names list;
    lis_picture *picture; /* [list.count] */
    size_t *by_name;      /* [list.count] indices, sorted by the pictures' names */
    lis_prompt *prompt;
    size_t prompts;
    flis_real *uncond;  /* text features of "" */
    size_t kept;        /* bytes of the prompts' features */
    size_t first, step; /* the shard: pictures first, first + step, … */
    size_t todo, done, failed,
        failed_painting; /* of the shard: to paint, painted by this run; failed, and while painting */
    buffer settings;     /* the manifest's lines of what the run is made with */
    char *manifest;      /* its path */
    double recorded;     /* when it was last written */
    struct lis_noise {
        flis_rng at; /* the generator before batch `number` */
        uint64_t number;
        flis_real *code; /* --fixed-code: the start of every picture of this place in its batch */
    } noise;
} lis;

/* ---- Layouts (lis_layouts.c) ---- */

/* The data set and the list; names of the pictures, which must differ. */
bool lis_list(lis *l);
/* Reads the label map of a picture and its phrases. The layout is to be freed with flis_layout_free. */
bool lis_layout(lis *l, size_t i, flis_layout *out);
/* Reads the layouts that this shard will paint: prompts, and failures. Nothing but the prompts is kept. */
bool lis_read_layouts(lis *l, const flis_vocab *vocab);
/* Marks a picture as failed: moves the context's error to it. */
void lis_fail(lis *l, size_t i);
/* The path of picture i's file; free() it. (lis.c) */
char *lis_picture_path(lis *l, size_t i);

/* ---- Manifest (lis_manifest.c) ---- */

/* Reads every manifest of the folder, checks that it belongs to a run with the same settings, and marks the pictures whose files
   are there with the digest that it states. A folder that has pictures of these names and no manifest is refused. */
bool lis_manifest_read(lis *l);
/* Writes the shard's own; also on a context that failed. Unless `now`, at most once a second. */
bool lis_manifest_write(lis *l, bool now);

/* ---- The page (lis_grid.c) ---- */

/* --grid: a page that shows the layouts beside the pictures that are finished, of all shards. */
bool lis_grid(lis *l);

/* ---- Noise (lis_noise.c) ---- */

/* Sets j->options' random numbers for picture i. */
bool lis_noise(lis *l, size_t i);

#endif
