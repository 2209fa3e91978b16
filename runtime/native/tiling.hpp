// Tiling: how a frame is cut so that every part fits in memory and the result does not change.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace uare {

inline constexpr std::size_t kFeather = 8;  // input px shared by neighbouring tiles

// The model's rules, from the manifest, in input px.
struct Tiling {
  std::size_t multiple = 16;
  std::size_t grid = 64;
  std::size_t before = 0;
  std::size_t after = 0;
  double bytes_per_pixel = 256;
};

// One tile along one axis: it reads start..stop, writes begin..end and shares the first `feather` px of that.
struct Span {
  std::size_t start;
  std::size_t stop;
  std::size_t begin;
  std::size_t end;
  std::size_t feather;
};

struct Tile {
  Span y;
  Span x;
};

[[nodiscard]] std::size_t padded(std::size_t length, std::size_t multiple) noexcept;
[[nodiscard]] std::size_t smallest_tile(const Tiling &tiling) noexcept;
[[nodiscard]] std::vector<Span> plan_axis(std::size_t length, std::size_t tile, const Tiling &tiling);

// Tiles of a frame in reading order; `sides` is the largest height and width of one.
[[nodiscard]] std::vector<Tile> plan_tiles(std::size_t height, std::size_t width,
                                           std::pair<std::size_t, std::size_t> sides, const Tiling &tiling);

// Height and width of a tile for a budget of pixels, so that the frame costs the least work, overlaps counted.
[[nodiscard]] std::pair<std::size_t, std::size_t> choose_sides(std::size_t height, std::size_t width, double pixels,
                                                               const Tiling &tiling);

// Where px `at` of a padded axis comes from; `stop` is the end of the part that is read.
[[nodiscard]] std::size_t reflect(std::size_t at, std::size_t stop, std::size_t length) noexcept;

// Bytes that this process can still take, limits of containers included; 2 GB where the system does not say.
[[nodiscard]] std::size_t available_memory();

// Pixels that one tile may have for a frame of that many bytes at that scale.
[[nodiscard]] double tile_budget(std::size_t frame_bytes, std::size_t scale, std::size_t free_bytes,
                                 const Tiling &tiling) noexcept;

}  // namespace uare
