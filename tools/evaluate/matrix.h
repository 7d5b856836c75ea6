/* matrix.h - products and decompositions of matrices in double precision, for frechet.c.
 *
 * Every result has the same bits for any number of threads, and on every machine: a sum of products is cut into blocks of
 * 256 along k; a block is added up in order from zero, without fma; and the blocks are added to the result in order.
 */
#ifndef TOOLS_EVALUATE_MATRIX_H
#define TOOLS_EVALUATE_MATRIX_H

#include "flis.h"

/* A matrix, or a part of one, or its transpose: entry (i, j) is at[i * down + j * right]. */
typedef struct matrix {
    double *at;
    size_t down, right;
} matrix;
static inline matrix rows_of(double *at, size_t columns)
{
    return (matrix){at, columns, 1};
}
static inline matrix part(matrix a, size_t i, size_t j)
{
    return (matrix){a.at + i * a.down + j * a.right, a.down, a.right};
}
static inline matrix transposed(matrix a)
{
    return (matrix){a.at, a.right, a.down};
}

/* c [m][n] += sign a [m][k] b [k][n]; sign is 1 or -1, c.right is 1. */
bool product_add(flis_ctx *ctx, size_t m, size_t n, size_t k, double sign, matrix a, matrix b, matrix c);
/* The same in one thread. room: PRODUCT_ROOM values, for DEEP of k at a time and BAND rows and STRIPE columns of c. */
enum { DEEP = 256, BAND = 128, STRIPE = 128, PRODUCT_ROOM = (BAND + STRIPE) * DEEP };
void product_part(size_t m, size_t n, size_t k, double sign, matrix a, matrix b, matrix c, double *room);
/* R of [R; W]: adds m more rows to a QR decomposition. r [d][d], upper triangular; w [m][d], overwritten. */
bool qr_add(flis_ctx *ctx, double *r, double *w, size_t d, size_t m);
/* Sum of the singular values of a [m][n], m >= n, which is overwritten. */
bool nuclear_norm(flis_ctx *ctx, double *a, size_t m, size_t n, double *out);
/* Eight partial sums, so that compilers may use vectors and the result is the same on every machine. */
double dot(const double *a, const double *b, size_t n);
void add_scaled(double *y, double k, const double *x, size_t n);

#endif
