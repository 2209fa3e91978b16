// Convolutions and tokens at the smallest and oddest sizes, in memory of exactly the size that is needed, with every
// instruction set of this processor and from several threads at once: what sanitizers see. That the values are right is
// held against NumPy and ONNX Runtime by the Python tests.
#include "uare_cpu.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using Floats = std::vector<float>;

std::mt19937 numbers(1);

Floats some(std::size_t count) {
  std::uniform_real_distribution<float> distribution(-1, 1);
  Floats values(count);
  for (float &value : values) value = distribution(numbers);
  return values;
}

std::size_t product(std::initializer_list<int32_t> sides) {
  std::size_t all = 1;
  for (const int32_t side : sides) all *= static_cast<std::size_t>(side);
  return all;
}

// What a piece of work on a pool gives; it owns all that it reads.
using Work = std::function<Floats(uare_pool *)>;

enum class Kind { kFull, kStem, kDown, kUp };

Work convolution(Kind kind, int32_t inputs, int32_t outputs, int32_t height, int32_t width) {
  const std::size_t taps[] = {9, 36, 4, 1};
  Floats weights = some(product({inputs, outputs}) * taps[static_cast<int>(kind)]);
  if (kind == Kind::kFull) {
    Floats filtered(product({36, inputs, outputs}));
    uare_filter(weights.data(), inputs, outputs, filtered.data());
    weights = filtered;
  }
  const std::size_t places = product({height, width});
  const std::size_t results = kind == Kind::kFull ? places : kind == Kind::kUp ? 4 * places : places / 4;
  return [=, in = some(product({inputs}) * places), scale = some(product({outputs})), shift = some(product({outputs}))](
             uare_pool *pool) {
    Floats out(product({outputs}) * results, 0.25f);
    const uare_convolution layer = {in.data(), weights.data(), scale.data(), shift.data(), out.data(),
                                    inputs,    outputs,        height,       width,        0.1f};
    decltype(&uare_convolve_3x3) const run[] = {uare_convolve_3x3, uare_convolve_stem, uare_convolve_down, uare_convolve_up};
    CHECK(run[static_cast<int>(kind)](pool, &layer) == 0);
    return out;
  };
}

Work tokens(int32_t height, int32_t width) {
  constexpr int32_t kHidden = 48, kHeads = 3, kDepth = 16, kMlp = 32, kContext = 32, kSide = 4, kLayers = 2;
  const Floats norm = some(kHidden), qkv = some(kHidden * (kHeads + 2) * kDepth), bias = some((kHeads + 2) * kDepth);
  const Floats head_norm = some(kDepth), o = some(kHeads * kDepth * kHidden), gate_up = some(kHidden * 2 * kMlp);
  const Floats down = some(kMlp * kHidden), keys = some(kContext * kDepth), values = some(kContext * kDepth);
  const Floats embedding = some(kSide * kSide * kHidden), mask(kContext, 0.0f);
  return [=, in = some(kHidden * product({height, width}))](uare_pool *pool) {
    const uare_token_layer layer = {norm.data(), qkv.data(),  bias.data(),    head_norm.data(), head_norm.data(), o.data(),
                                    norm.data(), gate_up.data(), down.data(), keys.data(),      values.data()};
    const uare_token_layer layers[kLayers] = {layer, layer};
    const uare_tokens all = {layers, embedding.data(), norm.data(), mask.data(), kLayers, 1,        kHidden,
                             kHeads, kDepth,           kMlp,        kSide,       kContext, 1e-6f};
    Floats map = in, stream(in.size());
    CHECK(uare_run_tokens(pool, &all, height, width, map.data(), stream.data()) == 0);
    return map;
  };
}

Work shuffle(int32_t times, int32_t height, int32_t width) {
  const std::size_t blocks = (product({3, times, times}) + UARE_BLOCK - 1) / UARE_BLOCK, places = product({height, width});
  return [=, in = some(blocks * UARE_BLOCK * places), base = some(product({3, times, times}) * places)](uare_pool *pool) {
    Floats out(base.size());
    CHECK(uare_shuffle(pool, in.data(), times, height, width, base.data(), out.data()) == 0);
    return out;
  };
}

// Lines with a gap between them that nobody may touch; the last ends with the memory.
template <typename Sample>
struct Lines {
  std::size_t line;
  std::vector<Sample> samples;

  Lines(std::size_t height, std::size_t width) : line(3 * width + 5), samples((height - 1) * line + 3 * width) {
    for (Sample &sample : samples) sample = static_cast<Sample>(numbers());
  }
};

// What is done to the samples of a part of a frame, all of it in turn.
template <typename Sample>
Work samples(int32_t height, int32_t width, int32_t times, bool drifted) {
  constexpr int32_t kBits = 8 * sizeof(Sample);
  const auto h = static_cast<std::size_t>(height), w = static_cast<std::size_t>(width), t = static_cast<std::size_t>(times);
  const Lines<Sample> given(h, w), there(h, w), made(h * t, w * t), shown(h * t, w * t);
  std::vector<std::uint8_t> still(h * w);
  for (std::size_t i = 0; i < still.size(); ++i) still[i] = i % 3 != 0;
  Floats weights = some(h * w);
  for (float &weight : weights) weight = std::abs(weight);
  return [=, drift = some((h - 1) * (3 * w + 2) + 3 * w), table = some(3 * (std::size_t{1} << kBits)),
          planes = some(3 * h * w)](uare_pool *) {
    Lines<Sample> kept = there, out = shown;
    uare_blend part = {};
    part.given = given.samples.data(), part.made = made.samples.data(), part.shown = shown.samples.data();
    part.there = kept.samples.data(), part.out = out.samples.data();
    part.drift = drifted ? drift.data() : nullptr, part.weights = weights.data(), part.still = still.data();
    part.given_line = part.there_line = static_cast<int64_t>(given.line);
    part.made_line = part.shown_line = part.out_line = static_cast<int64_t>(made.line);
    part.drift_line = 3 * width + 2, part.height = height, part.width = width, part.times = times, part.bits = kBits;
    double sums[2];
    CHECK(uare_blend_part(&part, sums) == 0);
    Floats found(kept.samples.begin(), kept.samples.end());
    found.insert(found.end(), out.samples.begin(), out.samples.end());

    const auto count = static_cast<int64_t>(given.samples.size());
    Floats changes(given.samples.size(), 1.5f);
    uare_drift(kBits, given.samples.data(), there.samples.data(), count, 0.35f, changes.data());
    std::vector<Sample> added(changes.size());
    uare_add(kBits, given.samples.data(), changes.data(), count, 0.5f, added.data());
    found.insert(found.end(), added.begin(), added.end());
    found.push_back(uare_greatest(changes.data(), count));

    Floats toned(3 * h * w);
    uare_tone(kBits, given.samples.data(), static_cast<int64_t>(given.line), height, width, table.data(), toned.data());
    found.insert(found.end(), toned.begin(), toned.end());
    Lines<Sample> placed = given;
    uare_place(kBits, planes.data(), height * int64_t{width}, width, height, width, placed.samples.data(),
               static_cast<int64_t>(placed.line));
    found.insert(found.end(), placed.samples.begin(), placed.samples.end());
    return found;
  };
}

std::vector<Work> all_work() {
  std::vector<Work> work;
  for (const auto &[height, width] : {std::pair{1, 1}, {2, 3}, {5, 7}, {4, 8}, {23, 6}, {33, 50}})
    for (const auto &[inputs, outputs] : {std::pair{16, 16}, {32, 48}}) {
      work.push_back(convolution(Kind::kFull, inputs, outputs, height, width));
      work.push_back(convolution(Kind::kUp, inputs, outputs, height, width));
      work.push_back(convolution(Kind::kDown, inputs, outputs, 2 * height, 2 * width));
      work.push_back(convolution(Kind::kStem, 3, outputs, 2 * height, 2 * width));
    }
  for (const auto &[height, width] : {std::pair{1, 1}, {3, 2}, {4, 4}, {5, 9}, {17, 40}}) work.push_back(tokens(height, width));
  for (const int32_t times : {2, 4, 8}) work.push_back(shuffle(times, 3, 5));
  for (const auto &[height, width] : {std::pair{1, 1}, {3, 7}, {2, 41}})
    for (const int32_t times : {1, 2, 4})
      for (const bool drifted : {false, true}) {
        work.push_back(samples<std::uint8_t>(height, width, times, drifted));
        work.push_back(samples<std::uint16_t>(height, width, times, drifted));
      }
  return work;
}

bool same(const Floats &a, const Floats &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

int main() {
  CHECK(uare_cpu_version() == UARE_CPU_VERSION);
  const std::string best = uare_cpu_variant();
  CHECK(uare_cpu_use("none such") == 1);
  uare_pool *alone = uare_pool_open(1), *shared = uare_pool_open(4);
  CHECK(alone != nullptr && shared != nullptr);
  const std::vector<Work> work = all_work();
  const std::size_t layers = work.size() - 36;  // then samples

  CHECK(uare_cpu_use("portable") == 0);
  std::vector<Floats> expected;
  for (const Work &each : work) expected.push_back(each(alone));
  int variants = 0;
  for (const char *variant : {"portable", "avx2", "avx512"}) {
    if (uare_cpu_use(variant) != 0) continue;
    ++variants;
    CHECK(std::string(uare_cpu_variant()) == variant);
    std::vector<Floats> found;
    for (std::size_t at = 0; at < work.size(); ++at) {
      found.push_back(work[at](alone));
      const float at_most = at < layers ? 0.0f : 1.0f;  // a sample that is rounded the other way
      for (std::size_t i = 0; i < found[at].size(); ++i)
        CHECK(std::abs(found[at][i] - expected[at][i]) <= 2e-3f * (1 + std::abs(expected[at][i])) + at_most);
      // Which thread computes what changes nothing.
      CHECK(same(found[at], work[at](shared)));
    }
    // Several callers of one pool, which the first of them gets.
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller)
      callers.emplace_back([&] {
        for (std::size_t at = 0; at < work.size(); ++at) CHECK(same(found[at], work[at](shared)));
      });
    for (std::thread &caller : callers) caller.join();
  }
  CHECK(variants >= 1);
  CHECK(uare_cpu_use(best.c_str()) == 0);
  uare_pool_close(shared);
  uare_pool_close(alone);
  return failures != 0;
}
