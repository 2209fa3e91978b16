// Bicubic enlargement: what strength below 1 blends with at scales above 1. As in Python, through Pillow.
#pragma once

#include <cstddef>
#include <vector>

namespace uare {

// The taps of one enlarged sample.
struct BicubicTaps {
  std::size_t first;
  std::size_t count;
  double weight[5];
};

// Taps for every sample of an axis of `length` samples enlarged `scale` times.
[[nodiscard]] std::vector<BicubicTaps> bicubic_taps(std::size_t length, std::size_t scale);

// Enlarges a plane of width x height floats; `target` holds scale * scale times as many.
void enlarge(const float *source, std::size_t width, std::size_t height, std::size_t scale, std::vector<float> &target);

}  // namespace uare
