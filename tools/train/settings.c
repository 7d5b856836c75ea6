/* settings.c - the settings of a training: each stage's defaults, and recipes, which are defaults that belong together.
 *
 * The recipe "authors" is the fine-tuning of FreestyleNet@5dcb8b8: configs/stable-diffusion/v1-finetune_COCO.yaml and
 * v1-finetune_ADE20K.yaml (the same but for names), train_COCO.sh, main.py, ldm/models/diffusion/ddpm.py, ldm/data/COCO.py.
 * docs/training.md has the table with the lines.
 */
#include "tools/train/train.h"

static const struct {
    uint64_t steps, batch, warmup;
    double rate, decay, dropout;
} DEFAULT[STAGES] = {
    [VAE] = {4000, 8, 100, 1e-3, 0, 0},
    [TEXT2IMAGE] = {20000, 16, 200, 5e-4, 0.01, 0.1},
    [LAYOUT] = {6000, 16, 100, 2e-4, 0.01, 0.1},
    [SEGMENTER] = {2000, 8, 100, 1e-3, 0.01, 0},
};

void settings_default(options *o, stage s)
{
    *o = (options){.stage = s,
                   .steps = DEFAULT[s].steps,
                   .batch = DEFAULT[s].batch,
                   .accumulate = 1,
                   .warmup = DEFAULT[s].warmup,
                   .rate = DEFAULT[s].rate,
                   .fall = 0.2,
                   .decay = DEFAULT[s].decay,
                   .dropout = DEFAULT[s].dropout,
                   .flip = 0.5,
                   .ema = 0.999,
                   .clip = 1,
                   .kl = 2e-6,
                   .edges = 0.5,
                   .colours = 2,
                   .things_weight = 1,
                   .every = 10,
                   .workers = 1,
                   .validate_every = 500,
                   .validate_count = 64,
                   .show_count = 4,
                   .show_steps = 20,
                   .show_scale = 2,
                   .count = 20000,
                   .size = 512,
                   .crop = 64,
                   .set = "text2image"};
}

/* beta1 0.9, beta2 0.999 and eps 1e-8, PyTorch's defaults, are those of training_default (adamw.c). */
static void authors(options *o)
{
    o->steps = 10000000;      /* trainer.max_steps: in practice they stop by hand; a checkpoint is kept of each epoch */
    o->rate = 1e-6;           /* base_learning_rate, times 1 (accumulate) x 1 (gpus) x 1 (batch): main.py scale_lr */
    o->warmup = 0;            /* no scheduler_config: the rate is constant */
    o->fall = 0;              /* the same */
    o->batch = 1;             /* data.params.batch_size */
    o->accumulate = 1;        /* trainer has no accumulate_grad_batches */
    o->decay = 0.01;          /* torch.optim.AdamW's default: configure_optimizers passes the rate alone */
    o->ema = 0;               /* use_ema: False */
    o->clip = 0;              /* trainer has no gradient_clip_val */
    o->dropout = 0;           /* every caption is used */
    o->flip = 0.5;            /* flip_p */
    o->size = 512;            /* size */
    o->order = ORDER_EPOCHS;  /* DataLoader(shuffle=True) */
    o->phrases = PHRASES_ALL; /* the caption has every class of the label map */
    o->resize = RESIZE_BYTES; /* PIL resizes 8-bit pictures */
}

void settings_recipe(options *o, recipe_kind recipe)
{
    o->recipe = recipe;
    if (recipe == RECIPE_AUTHORS) authors(o);
}

bool learns_pictures(const options *o)
{
    return o->data || o->dataset;
}
