// Frames of the caller: what their planes look like, and whether they may be touched at all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "uare_rt.h"

namespace uare {

// One plane of a format: samples per pixel position, bytes per sample, and how far it is subsampled.
struct PlaneLayout {
  std::uint32_t components;
  std::uint32_t bytes;
  std::uint32_t shift;  // 1 for chroma of 4:2:0
};

struct FormatLayout {
  std::uint32_t planes;
  PlaneLayout plane[3];
  bool yuv;
  bool deep;  // more than 8 bits
};

inline constexpr std::uint32_t kFormats = (1U << UARE_FORMAT_RGB24) | (1U << UARE_FORMAT_RGBA) |
                                          (1U << UARE_FORMAT_NV12) | (1U << UARE_FORMAT_I420) |
                                          (1U << UARE_FORMAT_P010);

// The layout of a format, or nullptr if there is no such format.
[[nodiscard]] const FormatLayout *layout_of(uare_format format) noexcept;

// Size of a plane in samples positions: width or height, halved and rounded up for chroma.
[[nodiscard]] constexpr std::uint32_t plane_side(std::uint32_t side, const PlaneLayout &plane) noexcept {
  return plane.shift == 0 ? side : side / 2 + side % 2;
}

// Throws Failure unless the frame can be read (and written) within its own planes. `name` is for messages.
void check_frame(const uare_frame *frame, const char *name);

// Throws Failure unless `output` is `input` enlarged: same format and colours, `scale` times the size, no overlap.
void check_pair(const uare_frame &input, const uare_frame &output, std::uint32_t scale);

[[nodiscard]] inline const std::uint8_t *row(const uare_frame &frame, std::size_t plane, std::size_t y) noexcept {
  return static_cast<const std::uint8_t *>(frame.plane[plane]) + y * frame.stride[plane];
}

[[nodiscard]] inline std::uint8_t *writable_row(const uare_frame &frame, std::size_t plane, std::size_t y) noexcept {
  return static_cast<std::uint8_t *>(frame.plane[plane]) + y * frame.stride[plane];
}

// Copies every plane, bytes beyond the rows left alone. The frames have the same format and size.
void copy_planes(const uare_frame &input, const uare_frame &output) noexcept;

// Repeats every sample of every plane scale x scale times.
void repeat_samples(const uare_frame &input, const uare_frame &output, std::uint32_t scale) noexcept;

}  // namespace uare
