/* adamw.h - the optimiser (adamw.c). Weights are trained in the order in which they were visited. */
#ifndef TOOLS_TRAIN_ADAMW_H
#define TOOLS_TRAIN_ADAMW_H

#include "flis.h"

typedef struct trained_weight {
    char *name;
    flis_param *param;
    flis_real *m, *v; /* AdamW's moments, in the checkpoint's order like param->value */
    flis_real *ema;   /* exponential moving average of the values; NULL: no averages */
} trained_weight;

typedef struct training {
    double rate, beta1, beta2, eps, decay; /* AdamW: 1e-4, 0.9, 0.999, 1e-8, 0.01; decay is decoupled */
    double clip; /* largest norm of all gradients as one vector; larger ones are scaled to it. 0: no limit */
    double ema;  /* decay of the moving averages, at most (1 + step) / (10 + step) as in LDM's LitEma; 0: no averages */
    size_t workers; /* each accumulates its own gradients, which training_step adds in order; 1 */
    uint64_t step;  /* updates done */
    double norm;    /* of the last update's gradients, before clipping */
    size_t count, room;
    trained_weight *item;
} training;

void training_default(training *t);
/* A visitor: the weight is trained from now on (flis_param_train), with moments and, where t->ema is set, an average. Wrap it
   to train some of the weights. */
bool training_visit(flis_ctx *ctx, void *t, const char *name, flis_param *param);
/* One update from the accumulated gradients of all workers, which are then set to zero; repacks the weights. Fails, and changes no
   weight, where a gradient is NaN or infinite. With step = 1, 2, ..., per value (torch.optim.AdamW's order):
     p = p (1 - rate decay); m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g g;
     p = p - rate / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps); ema = ema - (1 - d)(ema - p). */
bool training_step(flis_ctx *ctx, training *t);
void training_zero(training *t);
/* Exchanges every weight with its average, to sample or to write the model; a second call restores them for training. */
bool training_swap(flis_ctx *ctx, training *t);
/* The state that makes a resumed training give the same bits: declare it with the other tensors of a file, write it in the
   same place; read sets weights, moments, averages and step. Tensors: each weight under its own name, and under that after
   "adamw.m.", "adamw.v.", "ema."; metadata "adamw.step". F32 (flis64: F64). */
bool training_declare(flis_ctx *ctx, flis_writer *writer, const training *t);
bool training_write(flis_ctx *ctx, flis_writer *writer, const training *t);
bool training_read(flis_ctx *ctx, flis_file *file, training *t);
/* Frees the list, moments and averages. The weights keep their values, until flis_free_visit. */
void training_free(training *t);

#endif
