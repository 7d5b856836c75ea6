/* autoencoder.c - pictures as an autoencoder reproduces them. */
#include "tools/world/world.h"

#include <stdlib.h>
#include <string.h>

/* A picture as the autoencoder shows it: encoded to the mean of its posterior, and decoded, in place. */
bool through_autoencoder(flis_ctx *ctx, const flis_vae *vae, size_t side, uint8_t *rgb)
{
    const double factor = flis_vae_get_config(vae)->scale_factor;
    flis_picture picture = {0, 0, 0, NULL};
    flis_mark mark = flis_here(ctx);
    flis_tensor *x = flis_image(ctx, 1, side, side, 3),
                *z = flis_image(ctx, 1, side / FLIS_FACTOR, side / FLIS_FACTOR, 4);
    for (size_t i = 0; x && i < flis_count(x); i++) x->x[i] = (flis_real)rgb[i] / (flis_real)127.5 - 1;
    const flis_tensor *moments = flis_vae_encode(ctx, vae, x);
    for (size_t i = 0; z && moments && i < flis_count(z); i++)
        z->x[i] = (flis_real)(factor * (double)moments->x[i / 4 * 8 + i % 4]);
    if (moments && flis_decode_picture(ctx, vae, z, &picture)) memcpy(rgb, picture.pixels, side * side * 3);
    free(picture.pixels);
    flis_rewind(ctx, mark);
    return flis_ok(ctx);
}
