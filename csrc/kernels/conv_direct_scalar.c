/* Plain loops for either block size. They fill the whole table; the other ISAs overwrite what they
 * improve. */
#include "kernels/conv_kernels.h"

#include <stdbool.h>

/* Adds a chunk's sum to y and finishes it where it is the last: the order of roundings that
 * conv_kernels.h promises. */
static void finish(const lc_conv_run *r, int64_t pixel, const float *sum)
{
    for (int v = 0; v < r->nv; v++) {
        float *y = r->y + pixel + v * r->y_vec;
        int lanes = r->lanes[v];
        for (int i = 0; i < r->block; i++) {
            bool valid = !(r->flags & LC_RUN_TAIL) || i < lanes;
            if (!valid && (r->flags & LC_RUN_CROP))
                break;
            float t = sum[v * r->block + i];
            if (!(r->flags & LC_RUN_FIRST))
                t = y[i] + t;
            if (r->flags & LC_RUN_LAST) {
                t += r->bias[v * r->block + i];
                if (r->add)
                    t += r->add[pixel + v * r->y_vec + i];
                if ((r->flags & LC_RUN_RELU) && t < 0.0f)
                    t = 0.0f; /* NaN stays */
            }
            y[i] = valid ? t : 0.0f;
        }
    }
}

void lc_conv_dense_f32__scalar(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1)
{
    const int width = r->nv * r->block;
    for (int64_t oh = oh0; oh < oh1; oh++)
        for (int64_t ow = ow0; ow < ow1; ow++) {
            float sum[LC_CONV_MAX_NV * LC_MAX_BLOCK] = {0};
            for (int64_t b = 0; b < r->blocks; b++)
                for (int64_t kh = 0; kh < r->kh; kh++) {
                    int64_t ih = oh * r->stride[0] + kh * r->dilation[0] - r->pad[0];
                    if (ih < 0 || ih >= r->h)
                        continue;
                    for (int64_t kw = 0; kw < r->kw; kw++) {
                        int64_t iw = ow * r->stride[1] + kw * r->dilation[1] - r->pad[1];
                        if (iw < 0 || iw >= r->w_in)
                            continue; /* adding zeros would change no bit but the sign of a zero */
                        const float *x = r->x + b * r->x_blk + ih * r->x_row + iw * r->x_col;
                        const float *w = r->w + b * r->w_blk + (kh * r->kw + kw) * r->cb * width;
                        for (int64_t c = 0; c < r->cb; c++, w += width)
                            for (int i = 0; i < width; i++)
                                sum[i] += x[c] * w[i];
                    }
                }
            finish(r, oh * r->y_row + ow * r->y_pix, sum);
        }
}

void lc_conv_lanes_f32__scalar(const lc_conv_run *r, int64_t oh0, int64_t oh1, int64_t ow0,
                               int64_t ow1)
{
    const int group = (int)r->cb; /* a power of two */
    for (int64_t oh = oh0; oh < oh1; oh++)
        for (int64_t ow = ow0; ow < ow1; ow++) {
            float sum[LC_CONV_MAX_NV * LC_MAX_BLOCK] = {0};
            for (int64_t kh = 0; kh < r->kh; kh++) {
                int64_t ih = oh * r->stride[0] + kh * r->dilation[0] - r->pad[0];
                if (ih < 0 || ih >= r->h)
                    continue;
                for (int64_t kw = 0; kw < r->kw; kw++) {
                    int64_t iw = ow * r->stride[1] + kw * r->dilation[1] - r->pad[1];
                    if (iw < 0 || iw >= r->w_in)
                        continue;
                    const float *x = r->x + ih * r->x_row + iw * r->x_col;
                    const float *w = r->w + (kh * r->kw + kw) * group * r->block;
                    for (int c = 0; c < group; c++, w += r->block)
                        for (int i = 0; i < r->block; i++)
                            sum[i] += x[(i & ~(group - 1)) + c] * w[i];
                }
            }
            finish(r, oh * r->y_row + ow * r->y_pix, sum);
        }
}

void lc_conv_kernels_fill__scalar(lc_conv_kernels *k)
{
    k->dense = lc_conv_dense_f32__scalar;
    k->lanes = lc_conv_lanes_f32__scalar;
    k->dense_px = 4;
    k->dense_name = "direct scalar";
    k->lanes_name = "small groups scalar";
}
