/* test_runner.c - the comparisons of test.h. */
#include "tests/unit/test.h"

/* NaN is never close to anything. */
void test_runner_nan_is_an_error(void)
{
    const flis_real a[3] = {1, (flis_real)NAN, 3};
    const double b[3] = {1, 2, 3.5}, c[3] = {1, NAN, 3};
    size_t where;
    CHECK(test_max_error(a, b, 3, &where) == HUGE_VAL && where == 1, "a NaN passed as a number");
    CHECK(test_max_error(a, c, 3, NULL) == HUGE_VAL, "NaN passed as equal to NaN");
    CHECK(test_max_error(a, b, 1, NULL) == 0, "equal values differ");
}
