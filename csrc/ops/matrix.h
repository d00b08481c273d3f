/* y[m][n] = sum over k of x[m][k] * w[k][n], + bias[n]: what linear.c and matmul.c share. It runs
 * the convolution kernels with the rows of x as pixels.
 *
 * w is packed in panels of two blocks of columns (the last one may have one): [panel][k][blocks *
 * block], columns past n zero. */
#ifndef LC_OPS_MATRIX_H
#define LC_OPS_MATRIX_H

#include "kernels/kernels.h"

typedef struct lc_matrix {
    int64_t m, n, k;
    int64_t blocks, panels; /* of columns */
    int64_t tiles, splits;  /* work items: tiles of rows x parts of the panels */
} lc_matrix;

/* The schedule for `batch` products on `threads` threads; results do not depend on it. */
lc_matrix lc_matrix_plan(int64_t m, int64_t n, int64_t k, int64_t batch, int threads, int block);

int64_t lc_matrix_packed_floats(const lc_matrix *p, int block);

/* Packs one panel. `w` has element (k, n) at k * k_stride + n * n_stride. `to` is the start of the
 * whole packed matrix. */
void lc_matrix_pack_panel(const lc_matrix *p, int block, int64_t panel, float *to, const float *w,
                          int64_t k_stride, int64_t n_stride);

/* Item 0 .. tiles * splits - 1. y is (m, n), x (m, k), both row-major; bias NULL or with blocks *
 * block elements. */
void lc_matrix_item(const lc_matrix *p, const lc_kernels *kernels, int64_t item, float *y,
                    const float *x, const float *w, const float *bias);

#endif
