// TensorRT 10 or newer, or TensorRT-RTX: engines that `uare-rt build` put into the bundle.
//
// Compiled where the headers are found (UARE_TENSORRT). Not run on a GPU yet: the tests run it against a stand-in of
// the two libraries. It is kept thin: one stream, buffers that grow, float32 in and out; precision lies in the engine.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine.hpp"
#include "failure.hpp"
#include "views.hpp"

namespace uare {
namespace {

namespace trt = nvinfer1;

void check(cudaError_t status, const char *what) {
  if (status == cudaSuccess) return;
  const auto code = status == cudaErrorMemoryAllocation ? UARE_ERROR_MEMORY : UARE_ERROR_BACKEND;
  throw Failure(code, std::string("CUDA failed to ") + what + ": " + cudaGetErrorString(status));
}

// Keeps TensorRT's last complaint for the message of our own failure.
class Logger final : public trt::ILogger {
 public:
  void log(Severity severity, const char *message) noexcept override {
    if (severity > Severity::kERROR) return;
    std::strncpy(last_, message, sizeof last_ - 1);
    std::replace(last_, last_ + sizeof last_ - 1, '\n', ' ');
  }
  [[nodiscard]] std::string last() const { return last_[0] == '\0' ? "no reason given" : last_; }

 private:
  char last_[300] = "";
};

// One tensor: memory on the device and pinned memory beside it, which grow and never shrink.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() { release(); }

  void reserve(std::size_t floats) {
    if (floats <= capacity_) return;
    release();
    check(cudaMalloc(&device_, floats * sizeof(float)), "allocate memory on the device");
    check(cudaMallocHost(&host_, floats * sizeof(float)), "allocate pinned memory");
    capacity_ = floats;
  }
  [[nodiscard]] float *host() const noexcept { return static_cast<float *>(host_); }
  [[nodiscard]] void *device() const noexcept { return device_; }

 private:
  void release() noexcept {
    cudaFree(device_);
    cudaFreeHost(host_);
    device_ = host_ = nullptr;
    capacity_ = 0;
  }

  void *device_ = nullptr;
  void *host_ = nullptr;
  std::size_t capacity_ = 0;
};

std::size_t volume(const trt::Dims &shape) {
  std::size_t product = 1;
  for (int i = 0; i < shape.nbDims; ++i) product *= static_cast<std::size_t>(std::max<std::int64_t>(shape.d[i], 0));
  return product;
}

// One engine with one execution context.
class Graph {
 public:
  Graph(trt::IRuntime &runtime, const Logger &logger, const Bundle &bundle, const std::string &name)
      : logger_(logger), name_(name) {
    const auto found = bundle.engines.find(name);
    if (found == bundle.engines.end()) {
      throw Failure(UARE_ERROR_BUNDLE, "bundle " + bundle.path.string() + ": graph " + name +
                                           " has no engine; compile it on this device with: uare-rt build " +
                                           bundle.path.string());
    }
    std::ifstream stream(found->second, std::ios::binary);
    const std::vector<char> content((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    engine_.reset(runtime.deserializeCudaEngine(content.data(), content.size()));
    if (engine_ == nullptr) {
      throw Failure(UARE_ERROR_BACKEND, "tensorrt cannot load the engine of graph " + name + " (" + logger.last() +
                                            "); compile it on this device with: uare-rt build " +
                                            bundle.path.string());
    }
    context_.reset(engine_->createExecutionContext());
    if (context_ == nullptr) fail();
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
      const char *tensor = engine_->getIOTensorName(i);
      if (engine_->getTensorDataType(tensor) != trt::DataType::kFLOAT) {
        throw Failure(UARE_ERROR_BUNDLE, "graph " + name + ": the engine's tensor " + tensor +
                                             " is not float32; build the bundle again");
      }
      (engine_->getTensorIOMode(tensor) == trt::TensorIOMode::kINPUT ? inputs_ : outputs_)[tensor];
    }
  }

  // Memory to write an input into; `shape` is what the next run is given.
  float *input(const char *tensor, const std::vector<std::size_t> &shape) {
    const auto found = inputs_.find(tensor);
    if (found == inputs_.end()) throw Failure(UARE_ERROR_BUNDLE, "graph " + name_ + " has no input " + tensor);
    trt::Dims dims{};
    dims.nbDims = static_cast<int>(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) dims.d[i] = static_cast<std::int64_t>(shape[i]);
    if (!context_->setInputShape(tensor, dims)) {
      throw Failure(UARE_ERROR_SHAPE, "graph " + name_ + " takes no " + tensor + " of this size (" + logger_.last() +
                                          "); set a smaller tile, or build the bundle with a wider --profile");
    }
    found->second.reserve(volume(dims));
    return found->second.host();
  }

  void run(cudaStream_t stream) {
    for (auto &[tensor, buffer] : inputs_) {
      const std::size_t bytes = volume(context_->getTensorShape(tensor.c_str())) * sizeof(float);
      check(cudaMemcpyAsync(buffer.device(), buffer.host(), bytes, cudaMemcpyHostToDevice, stream), "copy an input");
      if (!context_->setTensorAddress(tensor.c_str(), buffer.device())) fail();
    }
    for (auto &[tensor, buffer] : outputs_) {
      buffer.reserve(volume(context_->getTensorShape(tensor.c_str())));
      if (!context_->setTensorAddress(tensor.c_str(), buffer.device())) fail();
    }
    if (!context_->enqueueV3(stream)) fail();
    for (auto &[tensor, buffer] : outputs_) {
      const std::size_t bytes = volume(context_->getTensorShape(tensor.c_str())) * sizeof(float);
      check(cudaMemcpyAsync(buffer.host(), buffer.device(), bytes, cudaMemcpyDeviceToHost, stream), "copy an output");
    }
    check(cudaStreamSynchronize(stream), ("run graph " + name_).c_str());
  }

  // An output of the last run, valid until the next.
  const float *output(const char *tensor, std::size_t count) const {
    const auto found = outputs_.find(tensor);
    const std::size_t given = found == outputs_.end() ? 0 : volume(context_->getTensorShape(tensor));
    if (given != count) {
      throw Failure(UARE_ERROR_BUNDLE, "graph " + name_ + " gives " + tensor + " with " + std::to_string(given) +
                                           " values, expected " + std::to_string(count) + "; build the bundle again");
    }
    return found->second.host();
  }

 private:
  [[noreturn]] void fail() const {
    throw Failure(UARE_ERROR_BACKEND, "tensorrt failed in graph " + name_ + ": " + logger_.last());
  }

  const Logger &logger_;
  std::string name_;
  std::unique_ptr<trt::ICudaEngine> engine_;
  std::unique_ptr<trt::IExecutionContext> context_;
  std::map<std::string, Buffer> inputs_;
  std::map<std::string, Buffer> outputs_;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;
  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class TensorRtEngine final : public Engine {
 public:
  TensorRtEngine(const Bundle &bundle, const Options &options)
      : layout_(bundle.context), scale_(options.scale), runtime_(trt::createInferRuntime(logger_)) {
    if (runtime_ == nullptr) throw Failure(UARE_ERROR_BACKEND, "tensorrt does not start: " + logger_.last());
    assess_ = std::make_unique<Graph>(*runtime_, logger_, bundle, "assess");
    restore_ = std::make_unique<Graph>(*runtime_, logger_, bundle, "restore_x" + std::to_string(scale_));
  }

  Context assess(const float *views, float *logits) override {
    std::copy_n(views, kViewFloats, assess_->input("views", {kCrops + 1, 3, kViewSize, kViewSize}));
    assess_->run(stream());
    std::copy_n(assess_->output("slot_logits", kSlots * kLevels), kSlots * kLevels, logits);
    return {values("ctx_k", layout_.keys()), values("ctx_v", layout_.keys()), values("ctx_vec", layout_.vector)};
  }

  float *frame(std::size_t height, std::size_t width) override {
    return restore_->input("frame", {1, 3, height, width});
  }

  const float *restore(std::size_t height, std::size_t width, const Context &context) override {
    const std::vector<std::size_t> keys = {layout_.layers, layout_.kv_heads, layout_.tokens, layout_.head_dim};
    std::copy(context.k.begin(), context.k.end(), restore_->input("ctx_k", keys));
    std::copy(context.v.begin(), context.v.end(), restore_->input("ctx_v", keys));
    std::copy(context.vec.begin(), context.vec.end(), restore_->input("ctx_vec", {layout_.vector}));
    restore_->run(stream());
    return restore_->output("restored", 3 * height * width * scale_ * scale_);
  }

  void use_stream(void *stream) override { given_ = static_cast<cudaStream_t>(stream); }

 private:
  [[nodiscard]] cudaStream_t stream() const noexcept { return given_ != nullptr ? given_ : own_.get(); }

  std::vector<float> values(const char *name, std::size_t count) const {
    const float *data = assess_->output(name, count);
    return {data, data + count};
  }

  ContextLayout layout_;
  std::size_t scale_;
  Logger logger_;
  Stream own_;
  cudaStream_t given_ = nullptr;
  // Engines must go before the runtime that made them.
  std::unique_ptr<trt::IRuntime> runtime_;
  std::unique_ptr<Graph> assess_;
  std::unique_ptr<Graph> restore_;
};

}  // namespace

std::unique_ptr<Engine> make_tensorrt_engine(const Bundle &bundle, const Options &options) {
  return std::make_unique<TensorRtEngine>(bundle, options);
}

}  // namespace uare
