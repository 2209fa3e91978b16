// The interface of an engine: runs the graphs of an opened bundle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "bundle.hpp"
#include "options.hpp"
#include "quality.hpp"

namespace uare {

class Engine {
 public:
  virtual ~Engine() = default;
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  // Runs `assess` on float [9, 3, 96, 96]; writes the logits, float [7, 5], and returns the context.
  virtual Context assess(const float *views, float *logits) = 0;

  // Memory for a frame of float [3, height, width]; valid until the next call.
  virtual float *frame(std::size_t height, std::size_t width) = 0;

  // Restores what was written there: float [3, scale * height, scale * width], valid until the next call.
  virtual const float *restore(std::size_t height, std::size_t width, const Context &context) = 0;

  // A cudaStream_t for the calls that follow, NULL for the engine's own; throws Failure where there is no CUDA.
  virtual void use_stream(void *stream) = 0;

 protected:
  Engine() = default;
};

// Loads `assess` and the restore graph of options.scale. Throws Failure.
using EngineMaker = std::unique_ptr<Engine> (*)(const Bundle &bundle, const Options &options);

std::unique_ptr<Engine> make_openvino_engine(const Bundle &bundle, const Options &options);
std::unique_ptr<Engine> make_tensorrt_engine(const Bundle &bundle, const Options &options);

// An engine that was compiled in.
struct EngineEntry {
  const char *name;
  EngineMaker make;
  bool compiled;  // runs what was compiled into the bundle, not its graphs
};

// The entry for "auto" or a name; nullptr for "null". Throws Failure with the names there are.
[[nodiscard]] const EngineEntry *find_engine(const std::string &backend);

// What "auto" means for a bundle: the first entry that it has all for, else the first. There is at least one.
[[nodiscard]] const EngineEntry *best_engine(const Bundle &bundle);

}  // namespace uare
