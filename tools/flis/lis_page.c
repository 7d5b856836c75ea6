/* lis_page.c - --grid */
#include "tools/flis/lis.h"

bool lis_grid(lis *l)
{
    return flis_ok(&l->j->ctx);
}
