#include "null_engine.hpp"

#include <cstring>

namespace uare {

void repeat_pixels(const uare_frame &input, const uare_frame &output, std::uint32_t scale) noexcept {
  const std::size_t output_row = std::size_t{output.width} * kBytesPerPixel;
  for (std::size_t y = 0; y < input.height; ++y) {
    const auto *source = static_cast<const unsigned char *>(input.plane[0]) + y * input.stride[0];
    auto *target = static_cast<unsigned char *>(output.plane[0]) + y * scale * output.stride[0];
    if (scale == 1) {
      std::memcpy(target, source, output_row);
      continue;
    }
    auto *written = target;
    for (std::size_t x = 0; x < input.width; ++x, source += kBytesPerPixel) {
      for (std::uint32_t copy = 0; copy < scale; ++copy, written += kBytesPerPixel) {
        std::memcpy(written, source, kBytesPerPixel);
      }
    }
    for (std::uint32_t copy = 1; copy < scale; ++copy) {
      std::memcpy(target + copy * output.stride[0], target, output_row);
    }
  }
}

}  // namespace uare
