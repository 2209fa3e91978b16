// Conversion and enlargement at the smallest and oddest sizes, in memory of exactly the size that is needed: what
// sanitizers see. That the values are right is held against the Python runtime (test_parity.py).
#include <cstdlib>
#include <random>
#include <vector>

#include "bicubic.hpp"
#include "check.h"
#include "colour.hpp"

namespace {

std::mt19937 numbers(1);

template <typename Sample>
struct Yuv {
  uare_frame frame = {};
  std::vector<std::vector<Sample>> planes;

  Yuv(uare_format format, std::uint32_t width, std::uint32_t height) {
    const bool apart = format == UARE_FORMAT_I420;
    const std::size_t columns = (width + 1) / 2, rows = (height + 1) / 2, chroma = apart ? columns : 2 * columns;
    frame.struct_size = sizeof frame;
    frame.format = format;
    frame.width = width;
    frame.height = height;
    planes = {std::vector<Sample>(std::size_t{width} * height), std::vector<Sample>(chroma * rows)};
    if (apart) planes.push_back(planes.back());
    for (std::size_t i = 0; i < planes.size(); ++i) {
      frame.plane[i] = planes[i].data();
      frame.stride[i] = (i == 0 ? width : chroma) * sizeof(Sample);
    }
  }
};

// Random pictures go through both directions; grey ones come back as they were, at every matrix, range and siting.
template <typename Sample>
void test_both_ways(uare_format format, std::uint32_t width, std::uint32_t height) {
  constexpr int kUnit = sizeof(Sample) == 2 ? 256 : 1;  // a code of 8 bits in a sample: P010 has its bits at the top
  std::vector<Sample> rgb(std::size_t{width} * height * 3);
  const uare::View<Sample> view = {rgb.data(), width, height, width * 3 * sizeof(Sample)};
  Yuv<Sample> yuv(format, width, height);
  for (std::uint32_t choice = 0; choice < 4 * 2 * 3; ++choice) {
    yuv.frame.matrix = choice % 4;
    yuv.frame.range = choice / 4 % 2;
    yuv.frame.siting = choice / 8;
    for (auto &plane : yuv.planes) {
      for (Sample &sample : plane) sample = static_cast<Sample>(numbers());
    }
    uare::yuv_to_rgb(yuv.frame, view);
    uare::rgb_to_yuv(uare::View<const Sample>(view), yuv.frame);
    for (Sample &sample : yuv.planes[0]) sample = static_cast<Sample>(90 * kUnit);
    for (std::size_t i = 1; i < yuv.planes.size(); ++i) {
      for (Sample &sample : yuv.planes[i]) sample = static_cast<Sample>(128 * kUnit);
    }
    const auto before = yuv.planes;
    uare::yuv_to_rgb(yuv.frame, view);
    for (const Sample sample : rgb) CHECK(sample == rgb[0]);
    for (auto &plane : yuv.planes) plane.assign(plane.size(), 0);
    uare::rgb_to_yuv(uare::View<const Sample>(view), yuv.frame);
    CHECK(yuv.planes == before);
  }
}

void test_a_constant_stays_one_when_enlarged(std::size_t width, std::size_t height, std::size_t scale) {
  const std::vector<float> flat(width * height, 0.25F);
  std::vector<float> large;
  uare::enlarge(flat.data(), width, height, scale, large);
  CHECK(large.size() == width * height * scale * scale);
  for (const float value : large) CHECK(value > 0.2499F && value < 0.2501F);
}

}  // namespace

int main() {
  for (std::uint32_t width = 1; width < 10; ++width) {
    for (std::uint32_t height = 1; height < 6; ++height) {
      test_both_ways<std::uint8_t>(UARE_FORMAT_NV12, width, height);
      test_both_ways<std::uint8_t>(UARE_FORMAT_I420, width, height);
      test_both_ways<std::uint16_t>(UARE_FORMAT_P010, width, height);
      for (const std::size_t scale : {1, 2, 4}) test_a_constant_stays_one_when_enlarged(width, height, scale);
    }
  }
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
