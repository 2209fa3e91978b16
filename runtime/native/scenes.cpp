#include "scenes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace uare {
namespace {

constexpr std::size_t kRows = 18, kColumns = 32, kBins = 16;
// A cut changes what is where (correlation of the thumbnails), and how much light or which tones there are.
constexpr double kMinChange = 0.015, kMaxCorrelation = 0.6, kMinHistogramChange = 0.35;

// Mean green of a 32x18 grid of blocks, 0..1.
template <typename Sample>
std::vector<float> thumbnail(const View<const Sample> &frame) {
  const std::size_t rows = std::min(kRows, frame.height), columns = std::min(kColumns, frame.width);
  const std::size_t step_y = frame.height / rows, step_x = frame.width / columns;
  std::vector<float> means(rows * columns);
  std::vector<std::uint64_t> sums(columns);
  const double norm = 1.0 / (static_cast<double>(step_y * step_x) * kFullScale<Sample>);
  for (std::size_t r = 0; r < rows; ++r) {
    std::fill(sums.begin(), sums.end(), 0);
    for (std::size_t y = r * step_y; y < (r + 1) * step_y; ++y) {
      const Sample *green = frame.row(y) + 1;
      for (std::size_t c = 0; c < columns; ++c) {
        for (std::size_t x = 0; x < step_x; ++x, green += 3) sums[c] += *green;
      }
    }
    for (std::size_t c = 0; c < columns; ++c) {
      means[r * columns + c] = static_cast<float>(static_cast<double>(sums[c]) * norm);
    }
  }
  return means;
}

double mean(const std::vector<float> &values) noexcept {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double correlation(const std::vector<float> &a, const std::vector<float> &b) noexcept {
  const double mean_a = mean(a), mean_b = mean(b);
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = a[i] - mean_a, y = b[i] - mean_b;
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  const double norm = std::sqrt(aa * bb);
  return norm > 1e-6 ? ab / norm : 0.0;
}

// Half the L1 distance of two histograms over the range both use together, 0..1.
double histogram_change(const std::vector<float> &a, const std::vector<float> &b) noexcept {
  const auto [low_a, high_a] = std::minmax_element(a.begin(), a.end());
  const auto [low_b, high_b] = std::minmax_element(b.begin(), b.end());
  const double low = std::min(*low_a, *low_b), high = std::max<double>(*high_a, *high_b) + 1e-6;
  std::array<double, kBins> difference{};
  const auto add = [&](const std::vector<float> &values, double step) {
    for (const float value : values) {
      const auto bin = static_cast<std::size_t>((value - low) / (high - low) * kBins);
      difference[std::min(bin, kBins - 1)] += step;
    }
  };
  add(a, 1.0 / static_cast<double>(a.size()));
  add(b, -1.0 / static_cast<double>(b.size()));
  double sum = 0;
  for (const double value : difference) sum += std::fabs(value);
  return sum / 2;
}

}  // namespace

template <typename Sample>
bool CutDetector::is_cut(const View<const Sample> &frame) {
  std::vector<float> now = thumbnail(frame);
  const std::vector<float> last = std::exchange(last_, now);
  // A source that changed its size is another scene.
  if (last.size() != now.size()) return true;
  double change = 0;
  for (std::size_t i = 0; i < now.size(); ++i) change += std::fabs(now[i] - last[i]);
  if (change / static_cast<double>(now.size()) < kMinChange) return false;
  return correlation(now, last) < kMaxCorrelation && histogram_change(now, last) > kMinHistogramChange;
}

template bool CutDetector::is_cut(const View<const std::uint8_t> &);
template bool CutDetector::is_cut(const View<const std::uint16_t> &);

}  // namespace uare
