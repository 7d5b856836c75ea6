/* suggest.c - what a person may have meant: names that are close to a typed one, and options that other programs have. */
#include "tools/common/common.h"

#include <ctype.h>
#include <string.h>

/* Options are compared without regard to case, and - equals _. */
static int folded(char c)
{
    return c == '_' ? '-' : tolower((unsigned char)c);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

enum { LONGEST = 40 };

/* Insertions, deletions, substitutions and exchanges of neighbours that make b of a; LONGEST + 1: too long to compare. Row i of the
   table belongs to the first i characters of a; an exchange needs the last two rows. */
static size_t edit_distance(const char *a, size_t m, const char *b, size_t n)
{
    size_t row[3][LONGEST + 1];
    if (m > LONGEST || n > LONGEST) return LONGEST + 1;
    for (size_t k = 0; k <= n; k++) row[0][k] = k;
    for (size_t i = 1; i <= m; i++) {
        size_t *now = row[i % 3];
        const size_t *above = row[(i - 1) % 3];
        now[0] = i;
        for (size_t k = 1; k <= n; k++) {
            const bool same = folded(a[i - 1]) == folded(b[k - 1]);
            now[k] = least(least(above[k], now[k - 1]) + 1, above[k - 1] + !same);
            if (i > 1 && k > 1 && folded(a[i - 1]) == folded(b[k - 2]) && folded(a[i - 2]) == folded(b[k - 1]))
                now[k] = least(now[k], row[(i - 2) % 3][k - 2] + 1);
        }
    }
    return row[m % 3][n];
}

size_t typed_distance(const char *typed, size_t length, const char *name)
{
    const size_t n = strlen(name), distance = edit_distance(typed, length, name, n);
    const size_t most = length < 3 ? 0 : length < 5 ? 1 : 2;
    if (distance <= most) return distance;
    return length >= 3 && length < n && edit_distance(typed, length, name, length) == 0 ? most + 1 : SIZE_MAX;
}

const foreign_option *find_foreign(const foreign_option *table, const char *typed, size_t length)
{
    for (; table && table->name; table++) {
        size_t i = 0;
        if (strlen(table->name) != length) continue;
        while (i < length && (typed[i] == table->name[i] || (typed[i] == '-' && table->name[i] == '_'))) i++;
        if (i == length) return table;
    }
    return NULL;
}
