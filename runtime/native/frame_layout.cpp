#include "frame_layout.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "failure.hpp"

namespace uare {
namespace {

constexpr FormatLayout kRgb24{1, {{3, 1, 0}, {}, {}}, false, false};
constexpr FormatLayout kRgba{1, {{4, 1, 0}, {}, {}}, false, false};
constexpr FormatLayout kNv12{2, {{1, 1, 0}, {2, 1, 1}, {}}, true, false};
constexpr FormatLayout kI420{3, {{1, 1, 0}, {1, 1, 1}, {1, 1, 1}}, true, false};
constexpr FormatLayout kP010{2, {{1, 2, 0}, {2, 2, 1}, {}}, true, true};
// Beyond this no camera and no memory reaches, and no product of two sides and a scale overflows.
constexpr std::uint32_t kMaxSide = 1U << 20;

std::string size_text(std::uint64_t width, std::uint64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

void check_plane(const uare_frame &frame, const PlaneLayout &plane, std::size_t index, const std::string &name) {
  const std::string where = name + "->plane[" + std::to_string(index) + "]";
  if (frame.plane[index] == nullptr) throw Failure(UARE_ERROR_ARGUMENT, where + " is NULL");
  const std::uint64_t needed = std::uint64_t{plane_side(frame.width, plane)} * plane.components * plane.bytes;
  const std::size_t stride = frame.stride[index];
  const std::string shown = name + "->stride[" + std::to_string(index) + "] is " + std::to_string(stride) + " bytes";
  if (stride < needed) throw Failure(UARE_ERROR_SHAPE, shown + ": a row takes " + std::to_string(needed));
  if (stride > std::numeric_limits<std::size_t>::max() / 2 / frame.height) {
    throw Failure(UARE_ERROR_SHAPE, shown + ": the frame does not fit into memory");
  }
  if (plane.bytes == 2 && (stride % 2 != 0 || reinterpret_cast<std::uintptr_t>(frame.plane[index]) % 2 != 0)) {
    throw Failure(UARE_ERROR_SHAPE, shown + " at an address that is " +
                                        (stride % 2 != 0 ? "even or odd: 16-bit samples need an even stride"
                                                         : "odd: 16-bit samples need an even one"));
  }
  const std::uint64_t bytes = std::uint64_t{plane_side(frame.height, plane) - 1} * stride + needed;
  if (bytes > std::numeric_limits<std::uintptr_t>::max() - reinterpret_cast<std::uintptr_t>(frame.plane[index])) {
    throw Failure(UARE_ERROR_SHAPE, shown + ": the plane runs past the end of memory");
  }
}

struct Extent {
  std::uintptr_t begin;
  std::uintptr_t end;
};

Extent extent(const uare_frame &frame, const PlaneLayout &plane, std::size_t index) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(frame.plane[index]);
  const std::size_t row_bytes = std::size_t{plane_side(frame.width, plane)} * plane.components * plane.bytes;
  return {begin, begin + (plane_side(frame.height, plane) - 1) * frame.stride[index] + row_bytes};
}

template <std::size_t Bytes>
void repeat_row(const std::uint8_t *source, std::uint8_t *target, std::size_t count, std::size_t source_count,
                std::uint32_t scale) noexcept {
  for (std::size_t x = 0; x < count; ++x) {
    std::memcpy(target + x * Bytes, source + std::min(x / scale, source_count - 1) * Bytes, Bytes);
  }
}

}  // namespace

const FormatLayout *layout_of(uare_format format) noexcept {
  switch (format) {
    case UARE_FORMAT_RGB24:
      return &kRgb24;
    case UARE_FORMAT_RGBA:
      return &kRgba;
    case UARE_FORMAT_NV12:
      return &kNv12;
    case UARE_FORMAT_I420:
      return &kI420;
    case UARE_FORMAT_P010:
      return &kP010;
    default:
      return nullptr;
  }
}

void check_frame(const uare_frame *frame, const char *name) {
  const std::string text(name);
  if (frame == nullptr) throw Failure(UARE_ERROR_ARGUMENT, text + " is NULL");
  if (frame->struct_size != sizeof(uare_frame)) {
    throw Failure(UARE_ERROR_STRUCT_SIZE, text + "->struct_size is " + std::to_string(frame->struct_size) +
                                              ": set it to sizeof(uare_frame), " + std::to_string(sizeof(uare_frame)));
  }
  const FormatLayout *layout = layout_of(frame->format);
  if (layout == nullptr) {
    throw Failure(UARE_ERROR_FORMAT, text + "->format is " + std::to_string(frame->format) +
                                         ": RGB24, RGBA, NV12, I420 and P010 are taken");
  }
  if (frame->width == 0 || frame->height == 0) {
    throw Failure(UARE_ERROR_SHAPE, text + " is " + size_text(frame->width, frame->height) + ": it has no pixels");
  }
  if (frame->width > kMaxSide || frame->height > kMaxSide) {
    throw Failure(UARE_ERROR_SHAPE, text + " is " + size_text(frame->width, frame->height) + ": sides reach up to " +
                                        std::to_string(kMaxSide));
  }
  if (layout->yuv && (frame->matrix > UARE_MATRIX_BT2020 || frame->range > UARE_RANGE_FULL ||
                      frame->siting > UARE_SITING_TOP_LEFT)) {
    throw Failure(UARE_ERROR_FORMAT, text + " has matrix " + std::to_string(frame->matrix) + ", range " +
                                         std::to_string(frame->range) + ", siting " + std::to_string(frame->siting) +
                                         ": give UARE_MATRIX_..., UARE_RANGE_... and UARE_SITING_... values");
  }
  if (frame->reserved != 0) {
    throw Failure(UARE_ERROR_ARGUMENT, text + "->reserved is " + std::to_string(frame->reserved) + ": set it to 0");
  }
  for (std::size_t i = 0; i < layout->planes; ++i) check_plane(*frame, layout->plane[i], i, text);
}

void check_pair(const uare_frame &input, const uare_frame &output, std::uint32_t scale) {
  if (output.format != input.format) {
    throw Failure(UARE_ERROR_FORMAT, "output->format is " + std::to_string(output.format) + ": the input's is " +
                                         std::to_string(input.format));
  }
  const FormatLayout &layout = *layout_of(input.format);
  if (layout.yuv &&
      (output.matrix != input.matrix || output.range != input.range || output.siting != input.siting)) {
    throw Failure(UARE_ERROR_FORMAT, "output has another matrix, range or siting than input: colours are kept");
  }
  const auto width = std::uint64_t{input.width} * scale;
  const auto height = std::uint64_t{input.height} * scale;
  if (output.width != width || output.height != height) {
    throw Failure(UARE_ERROR_SHAPE, "output is " + size_text(output.width, output.height) + ": scale " +
                                        std::to_string(scale) + " of the input is " + size_text(width, height));
  }
  for (std::size_t i = 0; i < layout.planes; ++i) {
    const Extent written = extent(output, layout.plane[i], i);
    for (std::size_t j = 0; j < layout.planes; ++j) {
      const Extent read = extent(input, layout.plane[j], j);
      if (written.begin < read.end && read.begin < written.end) {
        throw Failure(UARE_ERROR_ARGUMENT, "output->plane[" + std::to_string(i) + "] overlaps input->plane[" +
                                               std::to_string(j) + "]: give it memory of its own");
      }
    }
  }
}

void copy_planes(const uare_frame &input, const uare_frame &output) noexcept {
  const FormatLayout &layout = *layout_of(input.format);
  for (std::size_t i = 0; i < layout.planes; ++i) {
    const PlaneLayout &plane = layout.plane[i];
    const std::size_t bytes = std::size_t{plane_side(input.width, plane)} * plane.components * plane.bytes;
    for (std::size_t y = 0; y < plane_side(input.height, plane); ++y) {
      std::memcpy(writable_row(output, i, y), row(input, i, y), bytes);
    }
  }
}

void repeat_samples(const uare_frame &input, const uare_frame &output, std::uint32_t scale) noexcept {
  if (scale == 1) return copy_planes(input, output);
  const FormatLayout &layout = *layout_of(input.format);
  for (std::size_t i = 0; i < layout.planes; ++i) {
    const PlaneLayout &plane = layout.plane[i];
    const std::size_t pixel = std::size_t{plane.components} * plane.bytes;
    const std::size_t columns = plane_side(output.width, plane), source_columns = plane_side(input.width, plane);
    const std::size_t rows = plane_side(output.height, plane), source_rows = plane_side(input.height, plane);
    const auto repeat = pixel == 1   ? repeat_row<1>
                        : pixel == 2 ? repeat_row<2>
                        : pixel == 3 ? repeat_row<3>
                                     : repeat_row<4>;
    for (std::size_t y = 0; y < rows; ++y) {
      std::uint8_t *target = writable_row(output, i, y);
      if (y % scale != 0) {
        std::memcpy(target, writable_row(output, i, y - 1), columns * pixel);
      } else {
        repeat(row(input, i, std::min(y / scale, source_rows - 1)), target, columns, source_columns, scale);
      }
    }
  }
}

}  // namespace uare
