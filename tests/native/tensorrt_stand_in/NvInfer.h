// A stand-in of the part of TensorRT 10's interface that the engine calls. A file "restore SCALE" is an engine that
// repeats pixels and adds the sum of the context, "assess" one whose outputs are the mean of the views.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <numeric>
#include <string>

namespace nvinfer1 {

struct Dims {
  static constexpr int MAX_DIMS = 8;
  std::int32_t nbDims = 0;
  std::int64_t d[MAX_DIMS] = {};
};
enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2 };
  virtual void log(Severity severity, const char *message) noexcept = 0;
  virtual ~ILogger() = default;
};

constexpr std::int64_t kLargestSide = 512;

class IExecutionContext {
 public:
  IExecutionContext(ILogger &logger, int scale) : logger_(logger), scale_(scale) {}

  bool setInputShape(const char *tensor, const Dims &shape) {
    for (int i = 2; i < shape.nbDims; ++i) {
      if (std::string(tensor) == "frame" && shape.d[i] > kLargestSide) {
        logger_.log(ILogger::Severity::kERROR, "outside\nthe profile");
        return false;
      }
    }
    shapes_[tensor] = shape;
    return true;
  }
  Dims getTensorShape(const char *tensor) const {
    const std::string name = tensor;
    if (name == "restored") {
      Dims shape = shapes_.at("frame");
      shape.d[2] *= scale_;
      shape.d[3] *= scale_;
      return shape;
    }
    if (name == "slot_logits") return {2, {7, 5}};
    if (scale_ == 0 && name == "ctx_vec") return {1, {6}};
    if (scale_ == 0 && name != "views") return {4, {2, 1, 3, 4}};
    return shapes_.at(name);
  }
  bool setTensorAddress(const char *tensor, void *address) {
    addresses_[tensor] = static_cast<float *>(address);
    return true;
  }
  bool enqueueV3(cudaStream_t stream) {
    stream->work.emplace_back([this] { scale_ == 0 ? assess() : restore(); });
    return true;
  }

 private:
  std::size_t volume(const char *tensor) const {
    const Dims shape = getTensorShape(tensor);
    return static_cast<std::size_t>(std::accumulate(shape.d, shape.d + shape.nbDims, std::int64_t{1}, std::multiplies<>()));
  }
  float sum(const char *tensor) const {
    return std::accumulate(addresses_.at(tensor), addresses_.at(tensor) + volume(tensor), 0.0F);
  }
  void assess() {
    const float mean = sum("views") / static_cast<float>(volume("views"));
    for (const char *tensor : {"slot_logits", "ctx_k", "ctx_v", "ctx_vec"}) {
      std::fill_n(addresses_.at(tensor), volume(tensor), mean);
    }
  }
  void restore() {
    const Dims in = shapes_.at("frame");
    const float shift = sum("ctx_k") + sum("ctx_v") + sum("ctx_vec");
    const std::int64_t width = in.d[3] * scale_, height = in.d[2] * scale_;
    for (std::int64_t c = 0; c < 3; ++c) {
      for (std::int64_t y = 0; y < height; ++y) {
        for (std::int64_t x = 0; x < width; ++x) {
          addresses_.at("restored")[(c * height + y) * width + x] =
              addresses_.at("frame")[(c * in.d[2] + y / scale_) * in.d[3] + x / scale_] + shift;
        }
      }
    }
  }

  ILogger &logger_;
  int scale_;  // 0: assess
  std::map<std::string, Dims> shapes_;
  std::map<std::string, float *> addresses_;
};

class ICudaEngine {
 public:
  ICudaEngine(ILogger &logger, int scale) : logger_(logger), scale_(scale) {}
  std::int32_t getNbIOTensors() const { return 5; }
  const char *getIOTensorName(std::int32_t i) const {
    constexpr std::array<const char *, 5> restore = {"frame", "ctx_k", "ctx_v", "ctx_vec", "restored"};
    constexpr std::array<const char *, 5> assess = {"views", "slot_logits", "ctx_k", "ctx_v", "ctx_vec"};
    return (scale_ == 0 ? assess : restore)[static_cast<std::size_t>(i)];
  }
  DataType getTensorDataType(const char *) const { return scale_ == 9 ? DataType::kHALF : DataType::kFLOAT; }
  TensorIOMode getTensorIOMode(const char *tensor) const {
    const std::string name = tensor;
    const bool input = scale_ == 0 ? name == "views" : name != "restored";
    return input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  IExecutionContext *createExecutionContext() { return new IExecutionContext(logger_, scale_); }

 private:
  ILogger &logger_;
  int scale_;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger &logger) : logger_(logger) {}
  ICudaEngine *deserializeCudaEngine(const void *data, std::size_t size) {
    const std::string text(static_cast<const char *>(data), size);
    int scale = 0;
    if (text == "assess" || std::sscanf(text.c_str(), "restore %d", &scale) == 1) return new ICudaEngine(logger_, scale);
    logger_.log(ILogger::Severity::kERROR, "built by another version");
    return nullptr;
  }

 private:
  ILogger &logger_;
};

inline IRuntime *createInferRuntime(ILogger &logger) { return new IRuntime(logger); }

}  // namespace nvinfer1
