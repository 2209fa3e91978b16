// Restoring a picture tile by tile, from and to integer samples, so that no whole float picture ever exists.
#pragma once

#include <cstddef>
#include <utility>

#include "engine.hpp"
#include "picture.hpp"
#include "tiling.hpp"

namespace uare {

struct Restoration {
  std::size_t scale;
  float strength;                                // 0 keeps the picture, 1 is the full restoration
  const Context *context;                        // not used where strength is 0
  std::pair<std::size_t, std::size_t> sides;     // largest height and width of a tile
};

// Restores `picture` into `out`, which is `scale` times as large. `engine` may be null where strength is 0.
template <typename Sample>
void restore_picture(const View<const Sample> &picture, const View<Sample> &out, const Restoration &how,
                     const Tiling &tiling, Engine *engine);

}  // namespace uare
