// The identity engine: integrators test their pipelines with it, without a bundle and without computing anything.
#pragma once

#include <cstddef>
#include <cstdint>

#include "uare_rt.h"

namespace uare {

inline constexpr std::size_t kBytesPerPixel = 3;

// Writes every RGB24 pixel of `input` as a block of scale x scale pixels of `output`. The frames are checked already.
void repeat_pixels(const uare_frame &input, const uare_frame &output, std::uint32_t scale) noexcept;

}  // namespace uare
