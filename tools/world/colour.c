/* colour.c - sine, colours near a given one, and noise. */
#include "tools/world/internal.h"

#include <math.h>
#include <string.h>

const tint MOONLIGHT = {0.60f, 0.65f, 0.86f};

/* p = 16 t (1/2 - |t|) is a parabola through the zeros of sin(2 pi t); p (0.775 + 0.225 |p|) is within 0.001 of the sine. */
float sine(float t)
{
    t -= floorf(t + 0.5f);
    float p = 16 * t * (0.5f - (t < 0 ? -t : t));
    return p * (0.775f + 0.225f * (p < 0 ? -p : p));
}

tint jittered(dice *d, tint a, float by)
{
    float r = spread(d, -by, by);
    float g = spread(d, -by, by);
    float b = spread(d, -by, by);
    return (tint){clamp01(a.r + r), clamp01(a.g + g), clamp01(a.b + b)};
}

void noise_tile(dice *d, int cells, int octaves, float *tile)
{
    float lattice[WORLD_TILE * WORLD_TILE], weight = 1, total = 0;
    memset(tile, 0, WORLD_TILE * WORLD_TILE * sizeof *tile);
    for (int o = 0; o < octaves; o++, cells *= 2, weight *= 0.5f) {
        for (int i = 0; i < cells * cells; i++) lattice[i] = (float)(dice_next(d) >> 40) * 0x1p-24f;
        int side = WORLD_TILE / cells;
        for (int y = 0; y < WORLD_TILE; y++) {
            const float *above = lattice + y / side * cells, *below = lattice + (y / side + 1) % cells * cells;
            float v = smooth((float)(y % side) / (float)side);
            for (int x = 0; x < WORLD_TILE; x++) {
                int i = x / side, j = (i + 1) % cells;
                float u = smooth((float)(x % side) / (float)side);
                tile[y * WORLD_TILE + x] += weight * lerp(lerp(above[i], above[j], u), lerp(below[i], below[j], u), v);
            }
        }
        total += weight;
    }
    for (int i = 0; i < WORLD_TILE * WORLD_TILE; i++) tile[i] /= total;
}

float texture(const float *tile, float u, float v)
{
    float fu = floorf(u), fv = floorf(v);
    int i = (int)fu & (WORLD_TILE - 1), j = (int)fv & (WORLD_TILE - 1);
    int k = (i + 1) & (WORLD_TILE - 1), l = (j + 1) & (WORLD_TILE - 1);
    const float *a = tile + j * WORLD_TILE, *b = tile + l * WORLD_TILE;
    return lerp(lerp(a[i], a[k], u - fu), lerp(b[i], b[k], u - fu), v - fv);
}
