/* What the C tests share. A test is plain: it counts its checks, prints "N passed, 0 failed" and
 * returns 0, or says what failed and returns 1. */
#ifndef LC_TESTS_CHECK_H
#define LC_TESTS_CHECK_H

#include <math.h>
#include <stdio.h>

static int passed, failed;

static inline void check(int ok, const char *what, const char *file, int line)
{
    if (ok) {
        passed++;
    } else {
        failed++;
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    }
}

#define CHECK(expr) check(!!(expr), #expr, __FILE__, __LINE__)

/* The larger of two errors; no number is larger than any. */
static inline double larger_error(double worst, double error)
{
    return isnan(error) ? INFINITY : fmax(worst, fabs(error));
}

/* The last line of a test, and what main() returns. */
static inline int check_report(void)
{
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#endif
