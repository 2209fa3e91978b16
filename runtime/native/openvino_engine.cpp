// OpenVINO on the processor, in float32 whatever the machine would prefer.
#include <sched.h>

#include <algorithm>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "engine.hpp"
#include "failure.hpp"
#include "views.hpp"

namespace uare {
namespace {

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.substr(0, 300);
}

// OpenVINO's own default takes every core of the machine, also those that this process may not use.
int cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int found = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::max(found, 1);
}

template <typename Body>
auto guarded(const char *graph, Body &&body) {
  try {
    return body();
  } catch (const ov::Exception &error) {
    throw Failure(UARE_ERROR_BACKEND, std::string("openvino failed in graph ") + graph + ": " + one_line(error.what()));
  }
}

class OpenVinoEngine final : public Engine {
 public:
  OpenVinoEngine(const Bundle &bundle, const Options &options) : layout_(bundle.context), scale_(options.scale) {
    const ov::AnyMap settings = {
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        ov::hint::inference_precision(ov::element::f32),
        ov::inference_num_threads(options.threads > 0 ? static_cast<int>(options.threads) : cores()),
    };
    // Not mapped: a bundle that is replaced or cut short while it is open must not change or crash the session.
    core_.set_property(ov::enable_mmap(false));
    assess_ = load(bundle, "assess", settings);
    restore_ = load(bundle, "restore_x" + std::to_string(scale_), settings);
  }

  Context assess(const float *views, float *logits) override {
    return guarded("assess", [&] {
      assess_.set_tensor("views", tensor({kCrops + 1, 3, kViewSize, kViewSize}, views));
      assess_.infer();
      const auto answer = values("slot_logits", kSlots * kLevels);
      std::copy(answer.begin(), answer.end(), logits);
      return Context{values("ctx_k", layout_.keys()), values("ctx_v", layout_.keys()),
                     values("ctx_vec", layout_.vector)};
    });
  }

  float *frame(std::size_t height, std::size_t width) override {
    frame_.resize(3 * height * width);
    return frame_.data();
  }

  const float *restore(std::size_t height, std::size_t width, const Context &context) override {
    return guarded("restore", [&] {
      const ov::Shape keys = {layout_.layers, layout_.kv_heads, layout_.tokens, layout_.head_dim};
      restore_.set_tensor("frame", tensor({1, 3, height, width}, frame_.data()));
      restore_.set_tensor("ctx_k", tensor(keys, context.k.data()));
      restore_.set_tensor("ctx_v", tensor(keys, context.v.data()));
      restore_.set_tensor("ctx_vec", tensor({layout_.vector}, context.vec.data()));
      restore_.infer();
      const ov::Tensor output = restore_.get_tensor("restored");
      const ov::Shape expected = {1, 3, height * scale_, width * scale_};
      if (output.get_shape() != expected || output.get_element_type() != ov::element::f32) {
        throw Failure(UARE_ERROR_BACKEND, "the restore graph gave shape " + output.get_shape().to_string() +
                                              ", expected " + expected.to_string());
      }
      return static_cast<const float *>(output.data<float>());
    });
  }

  void use_stream(void *stream) override {
    if (stream != nullptr) {
      throw Failure(UARE_ERROR_ARGUMENT, "cuda_stream is not NULL: the openvino engine has no CUDA");
    }
  }

 private:
  ov::InferRequest load(const Bundle &bundle, const std::string &name, const ov::AnyMap &settings) {
    const auto &path = bundle.graphs.at(name);
    ov::AnyMap all = settings;
    // Roundings to INT8 stay, sums are in float32: those in INT8 saturate on processors without VNNI.
    if (bundle.quantised.count(name) > 0) all["LP_TRANSFORMS_MODE"] = false;
    return guarded(name.c_str(), [&] {
      return core_.compile_model(path.string(), "CPU", all).create_infer_request();
    });
  }

  // OpenVINO only reads input tensors, but its type for foreign memory is not const.
  static ov::Tensor tensor(const ov::Shape &shape, const float *values) {
    return {ov::element::f32, shape, const_cast<float *>(values)};
  }

  std::vector<float> values(const char *name, std::size_t count) {
    const ov::Tensor output = assess_.get_tensor(name);
    if (output.get_size() != count || output.get_element_type() != ov::element::f32) {
      throw Failure(UARE_ERROR_BUNDLE, std::string("the assess graph gives ") + name + " with " +
                                           std::to_string(output.get_size()) + " values, the manifest says " +
                                           std::to_string(count) + "; export the bundle again");
    }
    const auto *data = static_cast<const float *>(output.data<float>());
    return {data, data + count};
  }

  ContextLayout layout_;
  std::size_t scale_;
  std::vector<float> frame_;
  ov::Core core_;
  ov::InferRequest assess_;
  ov::InferRequest restore_;
};

}  // namespace

std::unique_ptr<Engine> make_openvino_engine(const Bundle &bundle, const Options &options) {
  try {
    return std::make_unique<OpenVinoEngine>(bundle, options);
  } catch (const ov::Exception &error) {
    throw Failure(UARE_ERROR_BACKEND, "openvino does not start: " + one_line(error.what()));
  }
}

}  // namespace uare
