/* command.h - what the commands of the program evaluate share: main.c has the options, segment and attributes. */
#ifndef TOOLS_EVALUATE_COMMAND_H
#define TOOLS_EVALUATE_COMMAND_H

#include "tools/common/common.h"
#include "tools/evaluate/evaluate.h"

/* The size at which label maps are compared. */
typedef enum { SIZE_TRUTH, SIZE_PREDICTED, SIZE_GIVEN } map_size;

typedef struct options {
    const char *truth, *predicted, *layouts, *pictures, *tensor, *names, *out, *features, *classes;
    uint64_t first, void_label, predicted_first, modulo;
    bool first_given, void_given, predicted_first_given;
    map_size size;
    size_t width, height; /* SIZE_GIVEN */
    bool json, table, quiet;
    const char *file[2];
    int files;
} options;

typedef struct run {
    flis_ctx ctx;
    const options *o;
    const char *name; /* of the command, for messages */
    progress progress;
} run;

/* --classes N; 0: it is no number from 1 to 256, but a data set or a list. */
int classes_number(const options *o);
bool run_miou(run *p);
bool run_frechet(run *p);

#endif
