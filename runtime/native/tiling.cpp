#include "tiling.hpp"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <tuple>

namespace uare {
namespace {

constexpr std::size_t kShapes = 16;  // shapes of tile that are compared
constexpr std::size_t kWorkingSet = std::size_t{1100} << 20, kLeastTile = std::size_t{256} << 20;
constexpr std::size_t kFallbackMemory = std::size_t{2} << 30;
constexpr double kBytesPerOutputPixel = 48;  // beyond scale 1: base, residual, sum and rounded copy

std::vector<Span> walk(std::size_t length, std::size_t side, const Tiling &tiling) {
  std::vector<Span> spans;
  const std::size_t whole = padded(length, tiling.multiple);
  std::size_t begin = 0, feather = 0;
  for (;;) {
    const std::size_t start = (begin > tiling.before ? begin - tiling.before : 0) / tiling.grid * tiling.grid;
    const std::size_t stop = std::min(start + side, whole);
    const std::size_t end = stop == whole ? length : std::min(length, stop - tiling.after);
    spans.push_back({start, stop, begin, end, feather});
    if (end == length) return spans;
    begin = end - kFeather;
    feather = kFeather;
  }
}

std::size_t work(std::size_t length, std::size_t side, const Tiling &tiling) {
  std::size_t sum = 0;
  for (const Span &span : plan_axis(length, side, tiling)) sum += span.stop - span.start;
  return sum;
}

std::size_t number_in(const std::string &path) {
  std::size_t value = 0;
  return std::ifstream(path) >> value ? value : std::numeric_limits<std::size_t>::max();
}

}  // namespace

std::size_t padded(std::size_t length, std::size_t multiple) noexcept {
  return (length + multiple - 1) / multiple * multiple;
}

std::size_t smallest_tile(const Tiling &tiling) noexcept {
  return padded(tiling.before + tiling.after + kFeather + tiling.grid, tiling.grid);
}

std::vector<Span> plan_axis(std::size_t length, std::size_t tile, const Tiling &tiling) {
  const std::size_t whole = padded(length, tiling.multiple);
  if (whole <= tile) return {{0, whole, 0, length, 0}};
  std::size_t side = std::max(tile / tiling.grid * tiling.grid, smallest_tile(tiling));
  auto spans = walk(length, side, tiling);
  // The same number of tiles, as small as that allows: less work in the overlaps.
  while (side > smallest_tile(tiling)) {
    auto smaller = walk(length, side - tiling.grid, tiling);
    if (smaller.size() > spans.size()) break;
    spans = std::move(smaller);
    side -= tiling.grid;
  }
  return spans;
}

std::vector<Tile> plan_tiles(std::size_t height, std::size_t width, std::pair<std::size_t, std::size_t> sides,
                             const Tiling &tiling) {
  const auto columns = plan_axis(width, sides.second, tiling);
  std::vector<Tile> tiles;
  for (const Span &y : plan_axis(height, sides.first, tiling)) {
    for (const Span &x : columns) tiles.push_back({y, x});
  }
  return tiles;
}

std::pair<std::size_t, std::size_t> choose_sides(std::size_t height, std::size_t width, double pixels,
                                                 const Tiling &tiling) {
  const std::size_t whole_h = padded(height, tiling.multiple), whole_w = padded(width, tiling.multiple);
  const std::size_t least = smallest_tile(tiling);
  const std::size_t area = std::max(static_cast<std::size_t>(pixels), least * least);
  const std::size_t widest = std::min(whole_w, area / std::min(least, whole_h)), narrowest = std::min(least, whole_w);
  std::set<std::tuple<std::size_t, std::size_t, std::size_t>> shapes;
  for (std::size_t step = 0; step <= kShapes; ++step) {
    const std::size_t side = narrowest + (widest - narrowest) * step / kShapes;
    const std::size_t high = std::min(whole_h, area / side);
    shapes.emplace(work(height, high, tiling) * work(width, side, tiling), high, side);
  }
  const auto &[cost, high, wide] = *shapes.begin();
  return {high, wide};
}

std::size_t reflect(std::size_t at, std::size_t stop, std::size_t length) noexcept {
  if (stop <= 2 * length - 1) return at < length ? at : 2 * (length - 1) - at;
  const std::size_t folded = at % (2 * length);
  return folded < length ? folded : 2 * length - 1 - folded;
}

std::size_t available_memory() {
  std::size_t found = std::numeric_limits<std::size_t>::max();
  std::ifstream lines("/proc/meminfo");
  for (std::string key; lines >> key;) {
    std::size_t kilobytes = 0;
    if (key == "MemAvailable:" && lines >> kilobytes) found = kilobytes * 1024;
    lines.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  // Inside a container the limit sits at the root of what it sees.
  const std::size_t limit = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  if (limit != std::numeric_limits<std::size_t>::max() && used < limit) found = std::min(found, limit - used);
  return found == std::numeric_limits<std::size_t>::max() ? kFallbackMemory : found;
}

double tile_budget(std::size_t frame_bytes, std::size_t scale, std::size_t free_bytes, const Tiling &tiling) noexcept {
  const double result = static_cast<double>(frame_bytes) * static_cast<double>(scale * scale);
  const double wanted =
      std::max<double>(kLeastTile, static_cast<double>(kWorkingSet) - static_cast<double>(frame_bytes) - result);
  const double possible = (static_cast<double>(free_bytes) - result) / 2;
  const double per_pixel = tiling.bytes_per_pixel + kBytesPerOutputPixel * static_cast<double>(scale * scale - 1);
  return std::max(0.0, std::min(wanted, possible)) / per_pixel;
}

}  // namespace uare
