/* coco.h - scenes of the small world in the folders of COCO-Stuff. */
#ifndef TOOLS_WORLD_COCO_H
#define TOOLS_WORLD_COCO_H

#include "tools/common/common.h"
#include "tools/world/world.h"

enum { WORLD_VALIDATION_SEED = 1000000, WORLD_TRAINING_MOST = WORLD_VALIDATION_SEED };

/* Writes DIR/val2017/NAME.jpg, DIR/train2017/NAME.jpg, DIR/stuffthingmaps_trainval2017/{val2017,train2017}/NAME.png,
   DIR/val.txt and DIR/train.txt (paths below DIR), DIR/classes.tsv. NAME is the scene's seed in 12 digits: those of training
   are seed, seed + 1, …, those of validation begin at seed + 1000000 and are held out from all training. The same bytes every
   time. A half of no scene is left out. */
bool world_write_coco(flis_ctx *ctx, const char *dir, uint64_t seed, uint64_t validation, uint64_t training,
                      world_scene *scene, progress *p);

#endif
