#include "quality.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace uare {
namespace {

constexpr const char *kQualityLevels[] = {"Bad", "Poor", "Fair", "Good", "Excellent"};
constexpr const char *kSeverityLevels[] = {"none", "slight", "moderate", "strong", "severe"};
constexpr const char *kPhrases[] = {"noise", "blur", "compression", "low resolution", "low light", "haze"};

// Expected level, 0..4, of softmax(logits).
double expected_level(const float *logits) noexcept {
  const double top = *std::max_element(logits, logits + kLevels);
  double total = 0, sum = 0;
  for (std::size_t i = 0; i < kLevels; ++i) {
    const double e = std::exp(static_cast<double>(logits[i]) - top);
    total += e;
    sum += e * static_cast<double>(i);
  }
  return sum / total;
}

std::string describe(const std::array<double, kSlots> &levels) {
  const auto nearest = [&](std::size_t slot) { return static_cast<std::size_t>(std::nearbyint(levels[slot])); };
  std::vector<std::pair<std::size_t, std::size_t>> found;  // level, degradation
  for (std::size_t i = 0; i + 1 < kSlots; ++i) {
    if (nearest(i + 1) > 0) found.emplace_back(nearest(i + 1), i);
  }
  std::stable_sort(found.begin(), found.end(), [](const auto &a, const auto &b) { return a.first > b.first; });
  std::string text = std::string(kQualityLevels[nearest(0)]) + " quality: ";
  if (found.empty()) return text + "clean.";
  for (std::size_t i = 0; i < found.size(); ++i) {
    text += std::string(i == 0 ? "" : ", ") + kSeverityLevels[found[i].first] + " " + kPhrases[found[i].second];
  }
  return text + (found.size() + 1 < kSlots ? "; otherwise clean." : ".");
}

void blend_values(std::vector<float> &values, const std::vector<float> &others, float weight) noexcept {
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += weight * (others[i] - values[i]);
}

double relative(const std::vector<float> &a, const std::vector<float> &b) noexcept {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = double{a[i]} - double{b[i]};
    difference += d * d;
    norm += double{b[i]} * double{b[i]};
  }
  return std::sqrt(difference) / (std::sqrt(norm) + 1e-12);
}

}  // namespace

double Context::distance(const Context &other) const noexcept {
  return std::max({relative(k, other.k), relative(v, other.v), relative(vec, other.vec)});
}

void Context::blend(const Context &other, float weight) noexcept {
  blend_values(k, other.k, weight);
  blend_values(v, other.v, weight);
  blend_values(vec, other.vec, weight);
}

Verdict read_verdict(const float *logits) {
  std::array<double, kSlots> levels{};
  for (std::size_t i = 0; i < kSlots; ++i) levels[i] = expected_level(logits + i * kLevels);
  Verdict verdict;
  verdict.score = static_cast<float>(levels[0] + 1.0);
  for (std::size_t i = 0; i + 1 < kSlots; ++i) verdict.severity[i] = static_cast<float>(levels[i + 1] / 4.0);
  verdict.description = describe(levels);
  return verdict;
}

}  // namespace uare
