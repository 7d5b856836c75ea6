/* dice.h - random numbers from a seed: splitmix64 (Steele, Lea, Flood 2014), the same on every machine.
 *
 * Call it once per full expression at most: C leaves the order within one expression open.
 */
#ifndef TOOLS_WORLD_DICE_H
#define TOOLS_WORLD_DICE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct dice {
    uint64_t state;
} dice;

uint64_t scramble(uint64_t z); /* splitmix64's output function: a hash of z */
uint64_t dice_next(dice *d);
int roll(dice *d, int n);                     /* 0 to n - 1 */
bool chance(dice *d, int percent);            /* true in `percent` of 100 calls */
float spread(dice *d, float low, float high); /* uniform in [low, high), 24 bits */

#endif
