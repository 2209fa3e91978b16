// What each instruction set has of its own.
#pragma once

#include <algorithm>
#include <cstddef>

#include "uare_cpu.h"

namespace uare::cpu {

constexpr int kBlock = UARE_BLOCK;
constexpr int kTiles = 24;  // of 4x4 places that are computed together; a multiple of the places in registers

constexpr int kWindows = 4;  // that are computed together
constexpr int kMostArea = 64;  // tokens in a window
constexpr float kHidden = -30000.0f;  // added to the score of a token that does not exist

// Floats of memory that a thread needs for a layer of 3x3.
[[nodiscard]] inline std::size_t scratch_size(const uare_convolution &layer) {
  return std::size_t{36} * kTiles * static_cast<std::size_t>(layer.inputs + layer.outputs);
}

// Floats of memory that a thread needs for the stem: lines with two zeros on either side.
[[nodiscard]] inline std::size_t line_size(const uare_convolution &layer) {
  return std::size_t{18} * static_cast<std::size_t>(layer.width + 4);
}

// Floats of memory that a thread needs for windows of tokens.
[[nodiscard]] inline std::size_t window_size(const uare_tokens &tokens) {
  const auto size = [](int32_t value) { return static_cast<std::size_t>(value); };
  const std::size_t area = size(tokens.side * tokens.side), rows = kWindows * area, seen = size(tokens.context) + area;
  const std::size_t heads = size(tokens.heads * tokens.head_dim), depth = size(tokens.head_dim);
  const std::size_t attention = rows * (heads + 2 * depth) + 2 * seen * depth + seen + area * size(tokens.heads) * (seen + 1);
  return 2 * rows * size(tokens.hidden) + std::max(attention, rows * 2 * size(tokens.mlp));
}

// What is done to samples of 8 or of 16 bits.
struct SampleCode {
  void (*blend)(const uare_blend &part, double *sums);
  void (*drift)(const void *frame, const void *reference, std::size_t samples, float steady, float *changes);
  void (*add)(const void *base, const float *changes, std::size_t samples, float response, void *out);
  void (*tone)(const void *row, std::size_t width, const float *table, std::size_t plane, float *out);
  void (*place)(const float *row, std::size_t width, std::size_t plane, void *out);
};

struct Variant {
  const char *name;
  // Tiles [first, first + count), count <= kTiles, in the order of rows of tiles.
  void (*convolve_3x3)(const uare_convolution &layer, std::size_t first, std::size_t count, float *scratch);
  // One row of the result.
  void (*convolve_stem)(const uare_convolution &layer, std::size_t row, float *scratch);
  void (*convolve_down)(const uare_convolution &layer, std::size_t row);
  // What one row adds to two.
  void (*convolve_up)(const uare_convolution &layer, std::size_t row);
  void (*run_windows)(const uare_tokens &tokens, bool shifted, std::size_t first, std::size_t count, float *map,
                      float *stream, std::size_t height, std::size_t width, float *scratch);
  SampleCode eight, sixteen;
  float (*greatest_of)(const float *values, std::size_t count);
};

extern const Variant kPortable;
#if defined(__x86_64__)
extern const Variant kAvx2, kAvx512;
#endif

}  // namespace uare::cpu
