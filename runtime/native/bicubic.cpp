#include "bicubic.hpp"

#include <algorithm>
#include <cmath>

namespace uare {
namespace {

constexpr double kSupport = 2.0;

// Keys' cubic with a = -0.5.
double cubic(double x) noexcept {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

}  // namespace

std::vector<BicubicTaps> bicubic_taps(std::size_t length, std::size_t scale) {
  std::vector<BicubicTaps> taps(length * scale);
  for (std::size_t i = 0; i < taps.size(); ++i) {
    const double centre = (static_cast<double>(i) + 0.5) / static_cast<double>(scale);
    const auto begin = std::max<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(std::floor(centre - kSupport + 0.5)));
    const auto end = std::min(static_cast<std::ptrdiff_t>(length), static_cast<std::ptrdiff_t>(centre + kSupport + 0.5));
    BicubicTaps &tap = taps[i];
    tap.first = static_cast<std::size_t>(begin);
    tap.count = static_cast<std::size_t>(end - begin);
    double total = 0;
    for (std::size_t k = 0; k < tap.count; ++k) {
      tap.weight[k] = cubic(static_cast<double>(tap.first + k) - centre + 0.5);
      total += tap.weight[k];
    }
    for (std::size_t k = 0; k < tap.count; ++k) tap.weight[k] /= total;
  }
  return taps;
}

void enlarge(const float *source, std::size_t width, std::size_t height, std::size_t scale,
             std::vector<float> &target) {
  const auto columns = bicubic_taps(width, scale), rows = bicubic_taps(height, scale);
  const std::size_t wide = width * scale;
  std::vector<float> widened(wide * height);
  for (std::size_t y = 0; y < height; ++y) {
    for (std::size_t x = 0; x < wide; ++x) {
      const BicubicTaps &tap = columns[x];
      double sum = 0;
      for (std::size_t k = 0; k < tap.count; ++k) {
        sum += static_cast<double>(source[y * width + tap.first + k]) * tap.weight[k];
      }
      widened[y * wide + x] = static_cast<float>(sum);
    }
  }
  target.resize(wide * height * scale);
  std::vector<double> sums(wide);
  for (std::size_t y = 0; y < height * scale; ++y) {
    const BicubicTaps &tap = rows[y];
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::size_t k = 0; k < tap.count; ++k) {
      const float *row = widened.data() + (tap.first + k) * wide;
      const double weight = tap.weight[k];
      for (std::size_t x = 0; x < wide; ++x) sums[x] += static_cast<double>(row[x]) * weight;
    }
    std::transform(sums.begin(), sums.end(), target.begin() + static_cast<std::ptrdiff_t>(y * wide),
                   [](double sum) { return static_cast<float>(sum); });
  }
}

}  // namespace uare
