// Scene cuts, from thumbnails of consecutive frames.
#pragma once

#include <cstddef>
#include <vector>

#include "picture.hpp"

namespace uare {

class CutDetector {
 public:
  // Whether the frame starts a scene; true for the first one.
  template <typename Sample>
  [[nodiscard]] bool is_cut(const View<const Sample> &frame);
  void reset() noexcept { last_.clear(); }

 private:
  std::vector<float> last_;
};

}  // namespace uare
