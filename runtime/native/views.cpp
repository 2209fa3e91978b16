#include "views.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

namespace uare {
namespace {

constexpr std::size_t kStride = 64;     // distance between neighbouring crop places on small frames
constexpr std::size_t kMaxPlaces = 8;   // per axis
constexpr std::size_t kJpegGrid = 8;    // crops keep the phase of the 8x8 blocks of JPEG
constexpr int kPrecision = 22;          // fixed-point bits of Pillow's 8-bit resampling, which Python uses

std::vector<std::size_t> places(std::size_t length) {
  const std::size_t free = length - kViewSize;
  const std::size_t count = std::min(kMaxPlaces, 1 + (free + kStride - 1) / kStride);
  if (count == 1) return {0};
  std::vector<std::size_t> found(count);
  for (std::size_t i = 0; i < count; ++i) found[i] = i * free / (count - 1) / kJpegGrid * kJpegGrid;
  return found;
}

// A side continued to 96 px by reflection that repeats the edge.
std::size_t reflected(std::size_t at, std::size_t length) noexcept {
  const std::size_t folded = at % (2 * length);
  return folded < length ? folded : 2 * length - 1 - folded;
}

struct Crop {
  const View<const std::uint8_t> &frame;
  std::size_t top;
  std::size_t left;

  [[nodiscard]] const std::uint8_t *row(std::size_t y) const noexcept {
    return frame.row(reflected(top + y, frame.height));
  }
  [[nodiscard]] std::size_t column(std::size_t x) const noexcept { return reflected(left + x, frame.width) * 3; }
};

std::uint64_t energy(const Crop &crop) {
  std::array<int, kViewSize> above{}, now{};
  std::uint64_t sum = 0;
  for (std::size_t y = 0; y < kViewSize; ++y) {
    const std::uint8_t *pixels = crop.row(y);
    for (std::size_t x = 0; x < kViewSize; ++x) now[x] = pixels[crop.column(x) + 1];
    for (std::size_t x = 1; x < kViewSize; ++x) sum += static_cast<unsigned>(std::abs(now[x] - now[x - 1]));
    if (y > 0) {
      for (std::size_t x = 0; x < kViewSize; ++x) sum += static_cast<unsigned>(std::abs(now[x] - above[x]));
    }
    above = now;
  }
  return sum;
}

// Fixed-point weights of a box filter from `length` px to kViewSize, as Pillow computes them.
struct BoxWeights {
  std::array<std::size_t, kViewSize> first{};
  std::array<std::vector<std::int32_t>, kViewSize> weights;

  explicit BoxWeights(std::size_t length) {
    const double scale = static_cast<double>(length) / static_cast<double>(kViewSize);
    const double stretch = std::max(scale, 1.0), support = 0.5 * stretch;
    std::vector<double> exact;
    for (std::size_t i = 0; i < kViewSize; ++i) {
      const double centre = (static_cast<double>(i) + 0.5) * scale;
      const auto begin = std::max<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(centre - support + 0.5));
      const auto end =
          std::min(static_cast<std::ptrdiff_t>(length), static_cast<std::ptrdiff_t>(centre + support + 0.5));
      exact.clear();
      double total = 0;
      for (std::ptrdiff_t at = begin; at < end; ++at) {
        const double place = (static_cast<double>(at) - centre + 0.5) / stretch;
        exact.push_back(place > -0.5 && place <= 0.5 ? 1.0 : 0.0);
        total += exact.back();
      }
      first[i] = static_cast<std::size_t>(begin);
      for (const double weight : exact) {
        weights[i].push_back(static_cast<std::int32_t>(0.5 + weight / (total != 0.0 ? total : 1.0) * (1 << kPrecision)));
      }
    }
  }
};

std::uint8_t shrunk(std::int64_t sum) noexcept {
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> kPrecision, 0, 255));
}

void write_thumbnail(const View<const std::uint8_t> &frame, float *view) {
  const BoxWeights columns(frame.width), rows(frame.height);
  std::vector<std::uint8_t> narrow(frame.height * kViewSize * 3);
  constexpr std::int64_t kHalf = std::int64_t{1} << (kPrecision - 1);
  for (std::size_t y = 0; y < frame.height; ++y) {
    const std::uint8_t *source = frame.row(y);
    std::uint8_t *target = narrow.data() + y * kViewSize * 3;
    for (std::size_t x = 0; x < kViewSize; ++x) {
      std::int64_t sum[3] = {kHalf, kHalf, kHalf};
      const std::uint8_t *pixel = source + columns.first[x] * 3;
      for (const std::int32_t weight : columns.weights[x]) {
        for (std::size_t c = 0; c < 3; ++c) sum[c] += std::int64_t{weight} * pixel[c];
        pixel += 3;
      }
      for (std::size_t c = 0; c < 3; ++c) target[3 * x + c] = shrunk(sum[c]);
    }
  }
  for (std::size_t y = 0; y < kViewSize; ++y) {
    for (std::size_t x = 0; x < kViewSize * 3; ++x) {
      std::int64_t sum = kHalf;
      const std::uint8_t *sample = narrow.data() + rows.first[y] * kViewSize * 3 + x;
      for (const std::int32_t weight : rows.weights[y]) {
        sum += std::int64_t{weight} * *sample;
        sample += kViewSize * 3;
      }
      view[(x % 3) * kViewSize * kViewSize + y * kViewSize + x / 3] = static_cast<float>(shrunk(sum)) / 255.0F;
    }
  }
}

void write_crop(const Crop &crop, float *view) {
  for (std::size_t y = 0; y < kViewSize; ++y) {
    const std::uint8_t *pixels = crop.row(y);
    for (std::size_t x = 0; x < kViewSize; ++x) {
      const std::uint8_t *pixel = pixels + crop.column(x);
      for (std::size_t c = 0; c < 3; ++c) {
        view[c * kViewSize * kViewSize + y * kViewSize + x] = static_cast<float>(pixel[c]) / 255.0F;
      }
    }
  }
}

}  // namespace

void extract_views(const View<const std::uint8_t> &frame, float *views) {
  write_thumbnail(frame, views);
  std::vector<Crop> crops;
  const auto columns = places(std::max(frame.width, kViewSize));
  for (const std::size_t y : places(std::max(frame.height, kViewSize))) {
    for (const std::size_t x : columns) crops.push_back({frame, y, x});
  }
  std::vector<std::pair<std::uint64_t, std::size_t>> ranked;
  for (std::size_t i = 0; i < crops.size(); ++i) ranked.emplace_back(energy(crops[i]), i);
  std::sort(ranked.begin(), ranked.end());
  for (std::size_t k = 0; k < kCrops; ++k) {
    const std::size_t chosen = ranked[(2 * k + 1) * crops.size() / (2 * kCrops)].second;
    write_crop(crops[chosen], views + (k + 1) * 3 * kViewSize * kViewSize);
  }
}

}  // namespace uare
