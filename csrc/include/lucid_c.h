/* lucid_c for C programs: build one of the models, set its weights, run it. MIT licence.
 *
 *     lc_model *model;
 *     if (lc_model_create("resnet_50", 1000, 3, NULL, &model)) die(lc_error_text());
 *     lc_model_set(model, "conv1.weight", data, 4, shape);          ... for every name of
 * lc_model_state(model, i, ...) lc_model_run(model, images, n, 224, 224, logits); images (n, 3,
 * 224, 224), logits (n, 1000) lc_model_destroy(model);
 *
 * Functions that return int give 0, or an error code whose text lc_error_text() gives; nothing
 * aborts. A model may be run by several threads at once; setting weights while it runs elsewhere is
 * not allowed. Strings returned are static or live as long as the model. */
#ifndef LUCID_C_H
#define LUCID_C_H

#include <stdint.h>

#if defined(__GNUC__)
#define LC_API __attribute__((visibility("default")))
#else
#define LC_API
#endif

#define LUCID_C_VERSION "0.1.0"

typedef struct lc_module lc_model;

/* compat: NULL, or "lucid2" (the ResNeSt graphs of lucid 2.x). LC_ERR_KEY for an unknown name.
 * Weights are not set. */
LC_API int lc_model_create(const char *name, int64_t num_classes, int64_t in_channels,
                           const char *compat, lc_model **out);
LC_API void lc_model_destroy(lc_model *model);
LC_API int lc_model_init(lc_model *model, uint64_t seed); /* He initialisation */

LC_API int lc_model_count(void); /* variants known */
LC_API const char *lc_model_variant(int i);

/* The state dict: names in order, shapes, contents (float32, C order, copied). */
LC_API int lc_model_state_count(const lc_model *model);
LC_API int lc_model_state(const lc_model *model, int i, const char **name, int *rank,
                          int64_t shape[8]);
LC_API int lc_model_set(lc_model *model, const char *name, const float *data, int rank,
                        const int64_t *shape);
LC_API int lc_model_get(lc_model *model, const char *name, float *data, int64_t capacity);

/* Logits of a batch: images (n, in_channels, height, width) float32 in C order, logits (n,
 * num_classes). */
LC_API int lc_model_run(lc_model *model, const float *images, int64_t n, int64_t height,
                        int64_t width, float *logits);

LC_API const char *lc_error_text(void); /* of this thread's last failure */
LC_API const char *lc_config_isa(void); /* "scalar", "avx2", "avx512": kernels in use */
LC_API int lc_config_threads(void);
LC_API int lc_config_set_threads(int count);

#endif
