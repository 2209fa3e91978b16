// The TensorRT engine over a stand-in of TensorRT and CUDA: which memory it uses, what it waits for, what it refuses.
// It shows that the code is sound, not that an engine runs on a GPU.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "engine.hpp"
#include "failure.hpp"
#include "views.hpp"

namespace {

namespace fs = std::filesystem;

int failures = 0;

void check(bool condition, const char *text, int line) {
  if (condition) return;
  std::fprintf(stderr, "test_tensorrt.cpp:%d: not true: %s\n", line, text);
  ++failures;
}
#define CHECK(condition) check((condition), #condition, __LINE__)

uare::Bundle bundle_of(const fs::path &folder, const std::string &restore) {
  uare::Bundle bundle;
  bundle.path = folder;
  bundle.context = {2, 1, 3, 4, 6};
  for (const auto &[name, content] : {std::pair<std::string, std::string>{"assess", "assess"}, {"restore_x2", restore}}) {
    std::ofstream(folder / name) << content;
    bundle.engines[name] = folder / name;
  }
  return bundle;
}

template <typename Body>
bool refused(uare_status status, const char *part, Body &&body) {
  try {
    body();
  } catch (const uare::Failure &failure) {
    if (failure.status() == status && std::string(failure.what()).find(part) != std::string::npos) return true;
    std::fprintf(stderr, "%d: %s\n", failure.status(), failure.what());
  }
  return false;
}

void test_frames_go_through(const fs::path &folder, void *stream) {
  uare::Options options;
  options.scale = 2;
  const auto engine = uare::make_tensorrt_engine(bundle_of(folder, "restore 2"), options);
  engine->use_stream(stream);
  const std::vector<float> views(uare::kViewFloats, 0.25F);
  float logits[uare::kSlots * uare::kLevels] = {};
  const uare::Context context = engine->assess(views.data(), logits);
  CHECK(std::fabs(logits[34] - 0.25F) < 1e-3F);
  CHECK(context.k.size() == 24 && context.v.size() == 24 && context.vec.size() == 6);
  CHECK(std::fabs(context.vec[5] - 0.25F) < 1e-3F);
  const float shift = 54 * context.vec[0];
  for (const std::size_t height : {std::size_t{16}, std::size_t{48}, std::size_t{32}}) {  // larger, then smaller
    float *frame = engine->frame(height, 32);
    for (std::size_t i = 0; i < 3 * height * 32; ++i) frame[i] = static_cast<float>(i);
    const float *restored = engine->restore(height, 32, context);
    bool same = true;
    for (std::size_t y = 0; y < 2 * height; ++y) {
      for (std::size_t x = 0; x < 64; ++x) {
        const auto expected = static_cast<float>((height + y / 2) * 32 + x / 2) + shift;  // the green channel
        same = same && std::fabs(restored[(2 * height + y) * 64 + x] - expected) < 0.01F;
      }
    }
    CHECK(same);
  }
  CHECK(refused(UARE_ERROR_SHAPE, "outside the profile", [&] { engine->frame(1024, 32); }));
}

void test_refusals(const fs::path &folder) {
  uare::Options options;
  options.scale = 2;
  const auto open = [&](const uare::Bundle &bundle) { return [&] { uare::make_tensorrt_engine(bundle, options); }; };
  uare::Bundle bundle = bundle_of(folder, "of another kind");
  CHECK(refused(UARE_ERROR_BACKEND, "built by another version", open(bundle)));
  bundle = bundle_of(folder, "restore 9");
  CHECK(refused(UARE_ERROR_BUNDLE, "not float32", open(bundle)));
  bundle.engines.erase("restore_x2");
  CHECK(refused(UARE_ERROR_BUNDLE, "restore_x2 has no engine", open(bundle)));
  bundle = bundle_of(folder, "restore 2");
  bundle.context.vector = 7;
  const auto wrong = uare::make_tensorrt_engine(bundle, options);
  const std::vector<float> views(uare::kViewFloats);
  float logits[uare::kSlots * uare::kLevels];
  CHECK(refused(UARE_ERROR_BUNDLE, "ctx_vec with 6 values, expected 7", [&] { wrong->assess(views.data(), logits); }));
  stand_in::out_of_memory = true;
  CHECK(refused(UARE_ERROR_MEMORY, "out of memory", [&] { wrong->frame(16, 16); }));
  stand_in::out_of_memory = false;
}

}  // namespace

int main() {
  const fs::path folder = fs::temp_directory_path() / ("uare-tensorrt-" + std::to_string(std::random_device{}()));
  fs::create_directory(folder);
  StandInStream stream;
  test_frames_go_through(folder, nullptr);
  test_frames_go_through(folder, &stream);
  test_refusals(folder);
  fs::remove_all(folder);
  CHECK(stand_in::allocations == 0);
  return failures == 0 ? 0 : 1;
}
