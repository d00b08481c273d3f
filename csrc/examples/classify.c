/* Classifies a picture with one of the models, in plain C.
 *
 *     classify MODEL FOLDER PICTURE.ppm     weights from FOLDER/<name>.npy, float32, as numpy.save
 *                                           writes them
 *     classify --random MODEL PICTURE.ppm   random weights: shows that everything works, says
 *                                           nothing of the picture
 *     classify --classes N ...              another number of classes than 1000
 *
 * The picture is a binary PPM (P6), as "convert photo.jpg photo.ppm" makes. It is resized so that
 * its shorter side has 256 pixels, cropped to 224x224 in the middle and normalised; the five
 * likeliest class numbers are printed. Exit status 2 after an error. */
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lucid_c.h"

#define RESIZED 256
#define CROP 224
#define MAX_SIDE 30000 /* of the picture */

/* Prints what went wrong and gives -1, which callers pass on. */
static int fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("classify: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return -1;
}

/* ---- .npy files: magic, version, length and text of a Python dict, then the elements ---- */

typedef struct npy_head {
    int rank;
    int64_t shape[8], count;
} npy_head;

/* Reads the shape of "{'descr': '<f4', 'fortran_order': False, 'shape': (64, 3, 7, 7), }". */
static int parse_npy_head(const char *path, const char *text, npy_head *head)
{
    const char *shape = strstr(text, "'shape':");
    if (!strstr(text, "'descr': '<f4'"))
        return fail("%s: elements must be little-endian float32 ('<f4')", path);
    if (!strstr(text, "'fortran_order': False"))
        return fail("%s: the array must be in C order", path);
    if (!shape || !(shape = strchr(shape, '(')))
        return fail("%s: no shape in the header", path);
    shape++;
    head->rank = 0;
    head->count = 1;
    for (;;) {
        shape += strspn(shape, " ,");
        if (*shape == ')')
            return 0;
        char *end;
        long long size = strtoll(shape, &end, 10);
        if (end == shape || size < 0 || head->rank == 8 ||
            (size > 0 && head->count > INT32_MAX / size))
            return fail("%s: a shape that cannot be read, or too large", path);
        head->shape[head->rank++] = size;
        head->count *= size;
        shape = end;
    }
}

static int read_npy_head(FILE *file, const char *path, npy_head *head)
{
    unsigned char start[12];
    char text[4096];
    if (fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY", 6) != 0)
        return fail("%s: not a .npy file", path);
    size_t length = start[8] | (size_t)start[9] << 8;
    if (start[6] >= 2) { /* four bytes of length since version 2 */
        if (fread(start + 10, 1, 2, file) != 2)
            return fail("%s: ends too early", path);
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
    }
    if (length >= sizeof text)
        return fail("%s: a header of %zu bytes", path, length);
    if (fread(text, 1, length, file) != length)
        return fail("%s: ends too early", path);
    text[length] = '\0';
    return parse_npy_head(path, text, head);
}

/* An array of `count` elements. */
static int read_npy(const char *path, int64_t count, npy_head *head, float **data)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail("%s: cannot be opened", path);
    int status = read_npy_head(file, path, head);
    *data = NULL;
    if (status == 0 && head->count != count)
        status = fail("%s: %" PRId64 " elements, expected %" PRId64, path, head->count, count);
    if (status == 0) {
        *data = malloc(count ? (size_t)count * sizeof **data : 1);
        if (!*data)
            status = fail("%s: out of memory", path);
        else if (fread(*data, sizeof **data, (size_t)count, file) != (size_t)count)
            status = fail("%s: ends too early", path);
    }
    fclose(file);
    if (status != 0) {
        free(*data);
        *data = NULL;
    }
    return status;
}

static int load_weights(lc_model *model, const char *folder)
{
    for (int i = 0; i < lc_model_state_count(model); i++) {
        const char *name;
        int rank;
        int64_t shape[8];
        char path[4096];
        if (lc_model_state(model, i, &name, &rank, shape))
            return fail("%s", lc_error_text());
        int n = snprintf(path, sizeof path, "%s/%s.npy", folder, name);
        if (n < 0 || (size_t)n >= sizeof path)
            return fail("the folder's name is too long");
        int64_t count = 1;
        for (int k = 0; k < rank; k++)
            count *= shape[k];
        npy_head head;
        float *data = NULL;
        if (read_npy(path, count, &head, &data))
            return -1;
        int status = lc_model_set(model, name, data, head.rank, head.shape);
        free(data);
        if (status)
            return fail("%s: %s", path, lc_error_text());
    }
    return 0;
}

/* ---- binary PPM ---- */

typedef struct picture {
    int width, height;
    float *rgb; /* height x width x 3, 0 .. 1 */
} picture;

/* The next number of the header; "#" starts a comment that ends with its line. */
static int ppm_number(FILE *file, int max)
{
    int c = fgetc(file);
    while (c == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        if (c == '#')
            while (c != '\n' && c != EOF)
                c = fgetc(file);
        c = fgetc(file);
    }
    int value = 0, digits = 0;
    for (; c >= '0' && c <= '9'; c = fgetc(file), digits++) {
        value = value * 10 + (c - '0');
        if (value > max)
            return -1;
    }
    return digits && c != EOF ? value : -1; /* the character after the number is taken, too */
}

static int read_samples(FILE *file, const char *path, int largest, picture *p)
{
    size_t row = (size_t)p->width * 3, bytes = largest > 255 ? 2 : 1;
    unsigned char *line = malloc(row * bytes);
    p->rgb = malloc((size_t)p->height * row * sizeof *p->rgb);
    int status = line && p->rgb ? 0 : fail("%s: out of memory", path);
    for (int y = 0; status == 0 && y < p->height; y++) {
        if (fread(line, bytes, row, file) != row)
            status = fail("%s: ends too early", path);
        for (size_t i = 0; status == 0 && i < row; i++) {
            int v = bytes == 2 ? line[2 * i] << 8 | line[2 * i + 1] : line[i];
            p->rgb[(size_t)y * row + i] = (float)(v < largest ? v : largest) / (float)largest;
        }
    }
    free(line);
    return status;
}

static int read_ppm(const char *path, picture *p)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail("%s: cannot be opened", path);
    int status;
    if (fgetc(file) != 'P' || fgetc(file) != '6') {
        status = fail("%s: not a binary PPM picture (P6)", path);
    } else {
        p->width = ppm_number(file, MAX_SIDE);
        p->height = ppm_number(file, MAX_SIDE);
        int largest = ppm_number(file, 65535);
        if (p->width < 1 || p->height < 1 || largest < 1)
            status =
                fail("%s: a PPM header that cannot be read, or a picture that is too large", path);
        else
            status = read_samples(file, path, largest, p);
    }
    fclose(file);
    return status;
}

/* ---- resizing: a pixel is the mean of the input under a triangle as wide as the step ---- */

static double triangle(double x)
{
    return fabs(x) < 1 ? 1 - fabs(x) : 0;
}

/* Resizes one axis: `outer` runs of `from` cells of `inner` floats become runs of `to` cells. NULL:
 * out of memory. */
static float *resize_axis(const float *in, size_t outer, int from, int to, size_t inner)
{
    double step = (double)from / to, reach = step > 1 ? step : 1;
    float *out = calloc(outer * (size_t)to * inner, sizeof *out);
    for (int i = 0; out && i < to; i++) {
        double centre = (i + 0.5) * step - 0.5, sum = 0;
        int first = (int)fmax(0, ceil(centre - reach)),
            last = (int)fmin(from - 1, floor(centre + reach));
        for (int k = first; k <= last; k++)
            sum += triangle((k - centre) / reach);
        for (int k = first; k <= last; k++) {
            float w = (float)(triangle((k - centre) / reach) / sum);
            for (size_t o = 0; o < outer; o++) {
                const float *cell = in + (o * (size_t)from + (size_t)k) * inner;
                float *to_cell = out + (o * (size_t)to + (size_t)i) * inner;
                for (size_t c = 0; c < inner; c++)
                    to_cell[c] += w * cell[c];
            }
        }
    }
    return out;
}

static int resize(picture *p)
{
    int shorter = p->width < p->height ? p->width : p->height;
    int width = (int)((int64_t)p->width * RESIZED / shorter),
        height = (int)((int64_t)p->height * RESIZED / shorter);
    if (width > MAX_SIDE || height > MAX_SIDE)
        return fail("a picture of %dx%d pixels is too narrow", p->width, p->height);
    float *wide = resize_axis(p->rgb, (size_t)p->height, p->width, width, 3);
    float *both = wide ? resize_axis(wide, 1, p->height, height, (size_t)width * 3) : NULL;
    free(wide);
    free(p->rgb);
    *p = (picture){width, height, both};
    return both ? 0 : fail("out of memory");
}

/* The middle of the picture as the model wants it: (1, 3, CROP, CROP), normalised with ImageNet's
 * mean and deviation. */
static void crop_and_normalise(const picture *p, float *image)
{
    static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
    int top = (p->height - CROP) / 2, left = (p->width - CROP) / 2;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < CROP; y++)
            for (int x = 0; x < CROP; x++)
                *image++ = (p->rgb[((size_t)(top + y) * (size_t)p->width + (size_t)(left + x)) * 3 +
                                   (size_t)c] -
                            mean[c]) /
                           std[c];
}

/* ---- */

static void print_top5(const float *logits, int64_t classes)
{
    double sum = 0, largest = -INFINITY;
    for (int64_t i = 0; i < classes; i++)
        largest = fmax(largest, logits[i]);
    for (int64_t i = 0; i < classes; i++)
        sum += exp(logits[i] - largest);
    double above = INFINITY; /* no logit printed so far is below this one */
    int64_t before = -1;     /* of equal ones, the class printed last */
    for (int rank = 0; rank < 5 && rank < classes; rank++) {
        int64_t best = -1;
        for (int64_t i = 0; i < classes; i++) {
            int later = logits[i] < above || (logits[i] == above && i > before);
            if (later && (best < 0 || logits[i] > logits[best]))
                best = i;
        }
        if (best < 0)
            return; /* NaN */
        printf("%6.2f %%  class %" PRId64 "\n", 100 * exp(logits[best] - largest) / sum, best);
        above = logits[best];
        before = best;
    }
}

static int classify(lc_model *model, const char *picture_path, int64_t classes)
{
    picture p = {0};
    float *image = malloc((size_t)3 * CROP * CROP * sizeof *image);
    float *logits = malloc((size_t)classes * sizeof *logits);
    int status = image && logits ? read_ppm(picture_path, &p) : fail("out of memory");
    if (status == 0)
        status = resize(&p);
    if (status == 0) {
        crop_and_normalise(&p, image);
        if (lc_model_run(model, image, 1, CROP, CROP, logits))
            status = fail("%s", lc_error_text());
        else
            print_top5(logits, classes);
    }
    free(p.rgb);
    free(image);
    free(logits);
    return status;
}

int main(int argc, char **argv)
{
    int64_t classes = 1000;
    int random = 0, i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--random") == 0)
            random = 1;
        else if (strcmp(argv[i], "--classes") == 0 && i + 1 < argc)
            classes = strtoll(argv[++i], NULL, 10);
        else
            break;
    }
    if (argc - i != (random ? 2 : 3) || classes < 1 || classes > 1000000) {
        fprintf(stderr, "usage: classify [--classes N] MODEL FOLDER PICTURE.ppm\n"
                        "       classify [--classes N] --random MODEL PICTURE.ppm\n");
        return 2;
    }
    lc_model *model;
    if (lc_model_create(argv[i], classes, 3, NULL, &model)) {
        fail("%s", lc_error_text());
        return 2;
    }
    int status;
    if (random)
        status = lc_model_init(model, 1) ? fail("%s", lc_error_text()) : 0;
    else
        status = load_weights(model, argv[i + 1]);
    if (status == 0)
        status = classify(model, argv[argc - 1], classes);
    lc_model_destroy(model);
    return status == 0 ? 0 : 2;
}
