/* What the Python package does on processors in compiled code: the layers of uare-nano (uare_rt.backends.convolutions),
 * and what is done to every sample of a frame (uare_rt.compiled).
 *
 * Maps of features are float[channels / 16][height][width][16], so that the sixteen channels of a place lie together.
 * Frames are uint8 or uint16 [height][width][3]. Nothing is checked here: the caller has. Functions may be called from several threads at once; one that finds a pool
 * busy computes alone. Those that return a number give 0, or 1 where there is no memory. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UARE_CPU_VERSION 1
#define UARE_BLOCK 16

#if defined(_WIN32)
#define UARE_EXPORT __declspec(dllexport)
#else
#define UARE_EXPORT __attribute__((visibility("default")))
#endif

/* Threads that wait for work; the caller of a function is one of them. */
typedef struct uare_pool uare_pool;

/* One convolution of `inputs` to `outputs` channels, both multiples of 16 but for the stem's three planes.
 * out = activated(scale * convolution(in) + shift), where activated(x) = max(x, slope * x), 0 <= slope <= 1.
 * Weights are laid out as the functions say, in blocks of sixteen outputs. */
typedef struct {
  const float *in, *weights, *scale, *shift;
  float *out;
  int32_t inputs, outputs, height, width; /* height and width of `in` */
  float slope;
} uare_convolution;

UARE_EXPORT int32_t uare_cpu_version(void);
/* The instructions that are used: avx512, avx2 or portable, at first the best of this processor. */
UARE_EXPORT const char *uare_cpu_variant(void);
UARE_EXPORT int32_t uare_cpu_use(const char *variant); /* 1: this processor does not have them */

UARE_EXPORT uare_pool *uare_pool_open(int32_t threads); /* NULL: no memory, or no threads */
UARE_EXPORT void uare_pool_close(uare_pool *pool);

/* 3x3, zeros around the map. Weights: uare_filter's. */
UARE_EXPORT int32_t uare_convolve_3x3(uare_pool *pool, const uare_convolution *layer);
/* float[outputs][inputs][3][3] to float[36][outputs / 16][inputs][16], outputs a multiple of 16. */
UARE_EXPORT void uare_filter(const float *weights, int32_t inputs, int32_t outputs, float *filtered);

/* 6x6 in steps of two, two zeros around; three planes float[3][height][width] in, even sides.
 * Weights: float[outputs / 16][3][6][6][16]. */
UARE_EXPORT int32_t uare_convolve_stem(uare_pool *pool, const uare_convolution *layer);

/* 2x2 in steps of two, even sides. Weights: float[outputs / 16][inputs / 16][2][2][16][16], the last but one of inputs. */
UARE_EXPORT int32_t uare_convolve_down(uare_pool *pool, const uare_convolution *layer);

/* 1x1, each result added to the four places of twice the size in `out`. Scale and slope are not used.
 * Weights: float[outputs / 16][inputs][16]. */
UARE_EXPORT int32_t uare_convolve_up(uare_pool *pool, const uare_convolution *layer);

/* The gen expert's layers on windows of tokens. Matrices are float[outputs / 16][inputs][16]. */
typedef struct {
  const float *input_norm, *qkv, *qkv_bias, *q_norm, *k_norm; /* queries of all heads, then keys and values of one */
  const float *o, *mlp_norm, *gate_up, *down;                 /* gates, then what they are multiplied with */
  const float *context_keys;                                  /* float[context / 16][head_dim][16] */
  const float *context_values;                                /* float[head_dim / 16][context][16] */
} uare_token_layer;

/* side * side, head_dim, hidden, mlp and context are multiples of 16, side is even and at most 8. */
typedef struct {
  const uare_token_layer *layers;
  const float *embedding, *final_norm, *context_mask; /* [side^2][hidden], [hidden]; 0 or, what fills up, -30000 */
  int32_t count, shifted, hidden, heads, head_dim, mlp, side, context; /* the last `shifted` of `count` layers */
  float epsilon;
} uare_tokens;

/* Adds what the layers make of a map of `hidden` channels to it. `stream` is float[height][width][hidden] to work in. */
UARE_EXPORT int32_t uare_run_tokens(uare_pool *pool, const uare_tokens *tokens, int32_t height, int32_t width, float *map,
                                    float *stream);

/* DepthToSpace in the order of columns and rows (CRD): out[c][r * y + i][r * x + j] = in[(c * r + i) * r + j][y][x] +
 * base[c][r * y + i][r * x + j] for three planes. */
UARE_EXPORT int32_t uare_shuffle(uare_pool *pool, const float *in, int32_t times, int32_t height, int32_t width, const float *base,
                  float *out);

/* A part of a video's frame whose result was computed again. `bits` is 8 or 16; lines lie *_line samples apart. */
typedef struct {
  const void *given, *made, *shown; /* the input, the result, and the result that was shown, [times * height] lines */
  void *there, *out;                /* the filtered input, and where the result goes */
  const float *drift, *weights;     /* [height][width][3] or NULL; [height][width], of the new against the old */
  const uint8_t *still;             /* [height][width], where the response is learnt */
  int64_t given_line, made_line, shown_line, there_line, out_line, drift_line;
  int32_t height, width, times, bits;
} uare_blend;

/* there = before + (given - before) * weights, where before = there + drift, out = shown + (made - shown) * weights, both
 * rounded; sums[0] is what changed
 * in the green of `given`, squared, sums[1] the same times what changed in that of `made`. 1: there is no memory. */
UARE_EXPORT int32_t uare_blend_part(const uare_blend *part, double *sums);

/* changes += (frame - reference - changes) * steady, for a count of samples. */
UARE_EXPORT void uare_drift(int32_t bits, const void *frame, const void *reference, int64_t samples, float steady,
                            float *changes);
UARE_EXPORT float uare_greatest(const float *values, int64_t count); /* of their sizes */
UARE_EXPORT void uare_add(int32_t bits, const void *base, const float *changes, int64_t samples, float response,
                          void *out); /* out = base + changes * response */

/* Samples to planes float[3][height][width] by a table float[3][levels], and such planes, `plane` floats apart with lines
 * `line` floats apart, to samples, clipped to [0, 1]. */
UARE_EXPORT void uare_tone(int32_t bits, const void *frame, int64_t frame_line, int32_t height, int32_t width,
                           const float *table, float *out);
UARE_EXPORT void uare_place(int32_t bits, const float *planes, int64_t plane, int64_t line, int32_t height, int32_t width,
                            void *out, int64_t out_line);

#ifdef __cplusplus
}
#endif
