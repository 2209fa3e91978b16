// Pictures inside the library: interleaved RGB of 8 or 16 bits, in the caller's memory or in our own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace uare {

template <typename Sample>
struct View {
  Sample *pixels = nullptr;    // first sample of row 0
  std::size_t width = 0;       // pixels
  std::size_t height = 0;
  std::size_t stride = 0;      // bytes from one row to the next

  [[nodiscard]] Sample *row(std::size_t y) const noexcept {
    using Byte = std::conditional_t<std::is_const_v<Sample>, const unsigned char, unsigned char>;
    return reinterpret_cast<Sample *>(reinterpret_cast<Byte *>(pixels) + y * stride);
  }
  operator View<const Sample>() const noexcept { return {pixels, width, height, stride}; }
};

template <typename Sample>
inline constexpr float kFullScale = sizeof(Sample) == 1 ? 255.0F : 65535.0F;

// Memory for a picture that keeps its size from frame to frame.
template <typename Sample>
class Scratch {
 public:
  [[nodiscard]] View<Sample> take(std::size_t width, std::size_t height) {
    samples_.resize(width * height * 3);
    return {samples_.data(), width, height, width * 3 * sizeof(Sample)};
  }

 private:
  std::vector<Sample> samples_;
};

// Rounds to nearest, halves to even, without a call to the C library, so that loops over it are vectorised.
[[nodiscard]] inline float rounded(float value) noexcept {
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23: adding it leaves no bits for fractions
  return (value + kMagic) - kMagic;
}

[[nodiscard]] inline float clipped(float value) noexcept {
  return value < 0.0F ? 0.0F : (value > 1.0F ? 1.0F : value);
}

template <typename Sample>
[[nodiscard]] inline float to_unit(Sample sample) noexcept {
  return static_cast<float>(sample) * (1.0F / kFullScale<Sample>);
}

template <typename Sample>
[[nodiscard]] inline Sample from_unit(float value) noexcept {
  return static_cast<Sample>(rounded(clipped(value) * kFullScale<Sample>));
}

}  // namespace uare
