#include "ops/conv_form.h"

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        const int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

static bool transposed(const lc_conv2d_attr *a)
{
    return (a->flags & LC_CONV_TRANSPOSED) != 0;
}

/* Taps that far apart fall on the same outputs of a transposed convolution. */
static int64_t same_outputs(const lc_conv2d_attr *a, int axis)
{
    return a->stride[axis] / gcd(a->stride[axis], a->dilation[axis]);
}

int64_t lc_conv_parts(const lc_conv2d_attr *a, int axis, int64_t kernel)
{
    if (!transposed(a))
        return 1;
    const int64_t apart = same_outputs(a, axis);
    return kernel < apart ? kernel : apart;
}

/* Output i of the transposed convolution is the sum of x[o] * w[k] over o * stride + k * dilation -
 * pad == i. The taps k = part, part + apart, .. give the outputs i = from, from + stride, ..: with i
 * = from + stride * j, k = part + apart * t it is o = j + base - t * dilation / gcd. */
lc_conv_axis lc_conv_axis_get(const lc_conv2d_attr *a, int axis, int64_t kernel, int64_t part)
{
    const int64_t s = a->stride[axis], d = a->dilation[axis], pad = a->pad[2 * axis];
    if (!transposed(a))
        return (lc_conv_axis){.taps = kernel,
                              .stride = s,
                              .dilation = d,
                              .pad = pad,
                              .from = 0,
                              .step = 1,
                              .tap = 0,
                              .tap_step = 1,
                              .before = 0};
    const int64_t apart = same_outputs(a, axis), taps = (kernel - 1 - part) / apart + 1;
    const int64_t at = part * d - pad, from = (at % s + s) % s, base = (from - at) / s;
    const int64_t more = kernel % apart < part ? kernel % apart : part;
    return (lc_conv_axis){.taps = taps,
                          .stride = 1,
                          .dilation = d / (s / apart),
                          .pad = (taps - 1) * (d / (s / apart)) - base,
                          .from = from,
                          .step = s,
                          .tap = part + (taps - 1) * apart,
                          .tap_step = -apart,
                          .before = kernel / apart * part + more};
}

int64_t lc_conv_part_at(const lc_conv_form *f, int64_t kh, int64_t kw, const lc_conv_axis axis[2])
{
    return f->w_floats / (kh * kw) * (axis[0].before * kw + axis[0].taps * axis[1].before);
}
