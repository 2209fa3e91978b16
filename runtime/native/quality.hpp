// What an assessment says, and the quality context that guides restoration.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

namespace uare {

inline constexpr std::size_t kSlots = 7;  // quality, noise, blur, compression, low_resolution, low_light, haze
inline constexpr std::size_t kLevels = 5;

struct Context {
  std::vector<float> k;
  std::vector<float> v;
  std::vector<float> vec;

  [[nodiscard]] bool empty() const noexcept { return vec.empty(); }
  // (1 - weight) * this + weight * other; both are of the same model.
  void blend(const Context &other, float weight) noexcept;
  // Largest relative difference of the three parts from those of `other`.
  [[nodiscard]] double distance(const Context &other) const noexcept;
};

struct Verdict {
  float score = 0;                          // 1..5
  std::array<float, kSlots - 1> severity{};  // 0..1, in the order of the slots
  std::string description;
};

// Reads the answer of the `assess` graph: float [7, 5].
[[nodiscard]] Verdict read_verdict(const float *logits);

}  // namespace uare
