// YUV to RGB and back: the conversion that docs/colour.md specifies.
#pragma once

#include "picture.hpp"
#include "uare_rt.h"

namespace uare {

// The matrix of a frame, guessed from its size where it is not stated.
[[nodiscard]] uare_matrix matrix_of(const uare_frame &frame) noexcept;

// Converts an NV12 or I420 frame to 8 bits, or a P010 frame to 16. The target has the frame's size.
void yuv_to_rgb(const uare_frame &frame, const View<std::uint8_t> &target);
void yuv_to_rgb(const uare_frame &frame, const View<std::uint16_t> &target);

// The reverse.
void rgb_to_yuv(const View<const std::uint8_t> &source, const uare_frame &frame);
void rgb_to_yuv(const View<const std::uint16_t> &source, const uare_frame &frame);

}  // namespace uare
