// Views: the fixed budget of looks at a frame that the `assess` graph reads. The same as in Python, bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "picture.hpp"

namespace uare {

inline constexpr std::size_t kViewSize = 96;
inline constexpr std::size_t kCrops = 8;
inline constexpr std::size_t kViewFloats = (kCrops + 1) * 3 * kViewSize * kViewSize;

// Cuts the views of a frame of any size: float [9, 3, 96, 96] in [0, 1]. `views` holds kViewFloats.
void extract_views(const View<const std::uint8_t> &frame, float *views);

}  // namespace uare
