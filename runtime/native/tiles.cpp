#include "tiles.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bicubic.hpp"
#include "failure.hpp"

namespace uare {
namespace {

constexpr std::size_t kBicubicReach = 4;  // px around a part that its enlargement depends on, with room to spare

// Where a plane of floats lies: value (y, x) of the part is origin[y * stride + x].
struct Plane {
  const float *origin;
  std::size_t stride;
};

template <typename Sample>
void read_tile(const View<const Sample> &picture, const Tile &tile, float *planes) {
  const std::size_t height = tile.y.stop - tile.y.start, width = tile.x.stop - tile.x.start;
  std::vector<std::size_t> columns(width);
  for (std::size_t x = 0; x < width; ++x) columns[x] = 3 * reflect(tile.x.start + x, tile.x.stop, picture.width);
  float *r = planes, *g = planes + height * width, *b = planes + 2 * height * width;
  for (std::size_t y = 0; y < height; ++y, r += width, g += width, b += width) {
    const Sample *source = picture.row(reflect(tile.y.start + y, tile.y.stop, picture.height));
    for (std::size_t x = 0; x < width; ++x) {
      const Sample *pixel = source + columns[x];
      r[x] = to_unit(pixel[0]);
      g[x] = to_unit(pixel[1]);
      b[x] = to_unit(pixel[2]);
    }
  }
}

// The part that a tile writes, bicubically enlarged (or as it is at scale 1), one channel.
template <typename Sample>
Plane base_plane(const View<const Sample> &picture, const Tile &tile, std::size_t scale, std::size_t channel,
                 std::vector<float> &part, std::vector<float> &large) {
  const std::size_t reach = scale == 1 ? 0 : kBicubicReach;
  const std::size_t top = tile.y.begin - std::min(tile.y.begin, reach), bottom = std::min(tile.y.end + reach, picture.height);
  const std::size_t left = tile.x.begin - std::min(tile.x.begin, reach), right = std::min(tile.x.end + reach, picture.width);
  const std::size_t height = bottom - top, width = right - left;
  part.resize(height * width);
  for (std::size_t y = 0; y < height; ++y) {
    const Sample *source = picture.row(top + y) + 3 * left + channel;
    for (std::size_t x = 0; x < width; ++x) part[y * width + x] = to_unit(source[3 * x]);
  }
  if (scale == 1) return {part.data(), width};
  enlarge(part.data(), width, height, scale, large);
  const std::size_t stride = width * scale;
  return {large.data() + (tile.y.begin - top) * scale * stride + (tile.x.begin - left) * scale, stride};
}

float ramp(std::size_t at, std::size_t rising) noexcept {
  return at < rising ? (static_cast<float>(at) + 0.5F) / static_cast<float>(rising) : 1.0F;
}

// Writes one row of one channel of a tile; blends with what neighbours wrote where the row or its start is shared.
template <typename Sample>
void write_row(const float *values, Sample *out, std::size_t count, float weight_y, bool shared_row,
               std::size_t rising_x) {
  const std::size_t blended = shared_row ? count : std::min(rising_x, count);
  for (std::size_t x = 0; x < blended; ++x) {
    const float weight = weight_y * ramp(x, rising_x), written = to_unit(out[3 * x]);
    out[3 * x] = from_unit<Sample>(written + weight * (clipped(values[x]) - written));
  }
  for (std::size_t x = blended; x < count; ++x) out[3 * x] = from_unit<Sample>(values[x]);
}

void mix_row(const float *restored, const float *base, float strength, std::size_t count, float *mixed) {
  for (std::size_t x = 0; x < count; ++x) mixed[x] = base[x] + strength * (restored[x] - base[x]);
}

// Zero times a number is zero; times NaN or infinity it is not.
bool finite(const float *values, std::size_t count) {
  float sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += values[i] * 0.0F;
  return sum == 0.0F;
}

}  // namespace

template <typename Sample>
void restore_picture(const View<const Sample> &picture, const View<Sample> &out, const Restoration &how,
                     const Tiling &tiling, Engine *engine) {
  const std::size_t scale = how.scale;
  std::vector<float> part, large, mixed;
  for (const Tile &tile : plan_tiles(picture.height, picture.width, how.sides, tiling)) {
    const std::size_t height = tile.y.stop - tile.y.start, width = tile.x.stop - tile.x.start;
    const float *restored = nullptr;
    if (how.strength > 0) {
      read_tile(picture, tile, engine->frame(height, width));
      restored = engine->restore(height, width, *how.context);
      if (!finite(restored, 3 * height * width * scale * scale)) {
        throw Failure(UARE_ERROR_BACKEND, "the restore graph gave NaN or infinity; check the bundle's weights with: "
                                          "uare-rt inspect NAME.uare");
      }
    }
    const std::size_t rows = (tile.y.end - tile.y.begin) * scale, columns = (tile.x.end - tile.x.begin) * scale;
    const std::size_t rising_y = tile.y.feather * scale, rising_x = tile.x.feather * scale;
    const std::size_t stride = width * scale;
    mixed.resize(columns);
    for (std::size_t channel = 0; channel < 3; ++channel) {
      const float *first = restored == nullptr ? nullptr
                                               : restored + channel * height * scale * stride +
                                                     (tile.y.begin - tile.y.start) * scale * stride +
                                                     (tile.x.begin - tile.x.start) * scale;
      const Plane base = how.strength < 1 ? base_plane(picture, tile, scale, channel, part, large) : Plane{};
      for (std::size_t y = 0; y < rows; ++y) {
        const float *values = how.strength > 0 ? first + y * stride : base.origin + y * base.stride;
        if (how.strength > 0 && how.strength < 1) {
          mix_row(values, base.origin + y * base.stride, how.strength, columns, mixed.data());
          values = mixed.data();
        }
        Sample *target = out.row(tile.y.begin * scale + y) + 3 * tile.x.begin * scale + channel;
        write_row(values, target, columns, ramp(y, rising_y), y < rising_y, rising_x);
      }
    }
  }
}

template void restore_picture(const View<const std::uint8_t> &, const View<std::uint8_t> &, const Restoration &,
                              const Tiling &, Engine *);
template void restore_picture(const View<const std::uint16_t> &, const View<std::uint16_t> &, const Restoration &,
                              const Tiling &, Engine *);

}  // namespace uare
