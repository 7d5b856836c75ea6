/* dice.c - random numbers from a seed. */
#include "tools/world/dice.h"

uint64_t scramble(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

uint64_t dice_next(dice *d)
{
    return scramble(d->state += UINT64_C(0x9E3779B97F4A7C15));
}

int roll(dice *d, int n)
{
    return (int)((dice_next(d) >> 32) * (uint64_t)n >> 32);
}

bool chance(dice *d, int percent)
{
    return roll(d, 100) < percent;
}

float spread(dice *d, float low, float high)
{
    return low + (high - low) * ((float)(dice_next(d) >> 40) * 0x1p-24f);
}
