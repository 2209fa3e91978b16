#include "session.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "bicubic.hpp"
#include "colour.hpp"
#include "failure.hpp"
#include "frame_layout.hpp"
#include "tiles.hpp"
#include "views.hpp"

namespace uare {
namespace {

constexpr float kFollowWeight = 0.3F;  // of a new assessment against what the scene has shown so far
constexpr double kSameContext = 0.02;      // relative difference of contexts that no picture shows
constexpr std::uint64_t kLatencyMemory = 8;  // frames that the mean latency remembers, about

void split_rgba(const uare_frame &frame, const View<std::uint8_t> &target) noexcept {
  for (std::size_t y = 0; y < frame.height; ++y) {
    const std::uint8_t *source = row(frame, 0, y);
    std::uint8_t *out = target.row(y);
    for (std::size_t x = 0; x < frame.width; ++x) {
      for (std::size_t c = 0; c < 3; ++c) out[3 * x + c] = source[4 * x + c];
    }
  }
}

void join_rgba(const View<const std::uint8_t> &picture, const uare_frame &input, const uare_frame &output,
               std::size_t scale) {
  std::vector<float> alpha(std::size_t{input.width} * input.height), large;
  for (std::size_t y = 0; y < input.height; ++y) {
    const std::uint8_t *source = row(input, 0, y);
    for (std::size_t x = 0; x < input.width; ++x) alpha[y * input.width + x] = to_unit(source[4 * x + 3]);
  }
  if (scale > 1) enlarge(alpha.data(), input.width, input.height, scale, large);
  const std::vector<float> &values = scale > 1 ? large : alpha;
  for (std::size_t y = 0; y < output.height; ++y) {
    const std::uint8_t *source = picture.row(y);
    std::uint8_t *out = writable_row(output, 0, y);
    for (std::size_t x = 0; x < output.width; ++x) {
      for (std::size_t c = 0; c < 3; ++c) out[4 * x + c] = source[3 * x + c];
      out[4 * x + 3] = from_unit<std::uint8_t>(values[y * output.width + x]);
    }
  }
}

View<const std::uint8_t> in_8_bits(const View<const std::uint8_t> &picture, std::vector<std::uint8_t> &) noexcept {
  return picture;
}

View<const std::uint8_t> in_8_bits(const View<const std::uint16_t> &picture, std::vector<std::uint8_t> &reduced) {
  const std::size_t samples = picture.width * 3;
  reduced.resize(samples * picture.height);
  for (std::size_t y = 0; y < picture.height; ++y) {
    const std::uint16_t *source = picture.row(y);
    std::uint8_t *out = reduced.data() + y * samples;
    for (std::size_t i = 0; i < samples; ++i) out[i] = from_unit<std::uint8_t>(to_unit(source[i]));
  }
  return {reduced.data(), picture.width, picture.height, samples};
}

}  // namespace

template <>
Session::Buffers<std::uint8_t> &Session::buffers() noexcept {
  return small_;
}
template <>
Session::Buffers<std::uint16_t> &Session::buffers() noexcept {
  return deep_;
}

Session::Session(const char *path, const Options &options) : options_(options) {
  const EngineEntry *entry = find_engine(options_.backend);
  if (entry == nullptr) {
    bundle_.name = "null";
    return;
  }
  if (path == nullptr) {
    throw Failure(UARE_ERROR_ARGUMENT, "bundle is NULL: name a directory NAME.uare, or take backend=null");
  }
  bundle_ = open_bundle(path);
  if (options_.backend == "auto") entry = best_engine(bundle_);
  engine_name_ = entry->name;
  if (std::find(bundle_.scales.begin(), bundle_.scales.end(), options_.scale) == bundle_.scales.end()) {
    throw Failure(UARE_ERROR_ARGUMENT,
                  "option scale is " + std::to_string(options_.scale) + ": " + bundle_.name + " does not offer it");
  }
  if (options_.tile > 0 && options_.tile < smallest_tile(bundle_.tiling)) {
    throw Failure(UARE_ERROR_ARGUMENT, "option tile is " + std::to_string(options_.tile) + ": " + bundle_.name +
                                           " needs at least " + std::to_string(smallest_tile(bundle_.tiling)) + " px");
  }
  engine_ = entry->make(bundle_, options_);
}

void Session::query(uare_info &info) const noexcept {
  info.scale = options_.scale;
  info.formats = kFormats;
  info.multiple = engine_ == nullptr ? 1 : static_cast<std::uint32_t>(bundle_.tiling.multiple);
  info.engine = engine_name_.c_str();
  info.model = bundle_.name.c_str();
  info.frames = frames_;
  info.restored = restored_;
  info.assessed = assessed_;
  info.scenes = scenes_;
  info.latency_ns = latency_;
  info.latency_max_ns = latency_max_;
}

void Session::process(const uare_frame &input, const uare_frame &output, void *stream) {
  if (engine_ == nullptr) {
    if (stream != nullptr) {
      throw Failure(UARE_ERROR_ARGUMENT, "cuda_stream is not NULL: the null engine has no CUDA");
    }
    repeat_samples(input, output, options_.scale);
  } else {
    engine_->use_stream(stream);
    layout_of(input.format)->deep ? process_as<std::uint16_t>(input, output) : process_as<std::uint8_t>(input, output);
  }
  ++frames_;
}

void Session::assess(const uare_frame &input, uare_assessment *assessment) {
  static_cast<void>(look(input));
  fill(assessment);
}

void Session::update_context(const uare_frame &input, float weight, uare_assessment *assessment) {
  Context seen = look(input);
  const bool had = !context_.empty();
  if (!had) {
    context_ = std::move(seen);
  } else {
    context_.blend(seen, weight);
  }
  smoothed_ = context_;
  score_ += (had ? weight : 1.0F) * (verdict_.score - score_);
  if (assessment != nullptr) fill(assessment);
}

void Session::control_context(uare_context_action action) {
  switch (action) {
    case UARE_CONTEXT_FOLLOW:
      frozen_ = false;
      return;
    case UARE_CONTEXT_FREEZE:
      frozen_ = true;
      return;
    case UARE_CONTEXT_RESET:
      context_ = smoothed_ = {};
      cuts_.reset();
      since_ = 0;
      return;
    default:
      throw Failure(UARE_ERROR_ARGUMENT, "action is " + std::to_string(action) + ": give UARE_CONTEXT_FOLLOW, " +
                                             "UARE_CONTEXT_FREEZE or UARE_CONTEXT_RESET");
  }
}

template <typename Sample>
View<const Sample> Session::picture_of(const uare_frame &frame) {
  if constexpr (sizeof(Sample) == 1) {
    if (frame.format == UARE_FORMAT_RGB24) return {row(frame, 0, 0), frame.width, frame.height, frame.stride[0]};
  }
  const View<Sample> picture = buffers<Sample>().input.take(frame.width, frame.height);
  if constexpr (sizeof(Sample) == 1) {
    if (frame.format == UARE_FORMAT_RGBA) {
      split_rgba(frame, picture);
      return picture;
    }
  }
  yuv_to_rgb(frame, picture);
  return picture;
}

template <typename Sample>
void Session::process_as(const uare_frame &input, const uare_frame &output) {
  float strength = options_.strength;
  const bool same_size = options_.scale == 1;
  if (strength == 0 && same_size) return copy_planes(input, output);
  const auto began = std::chrono::steady_clock::now();
  const View<const Sample> picture = picture_of<Sample>(input);
  if (strength > 0) {
    follow(picture);
    if (score_ > options_.skip_above) strength = 0;
    if (strength == 0 && same_size) return copy_planes(input, output);
  }
  View<Sample> target{};
  if constexpr (sizeof(Sample) == 1) {
    if (output.format == UARE_FORMAT_RGB24) {
      target = {writable_row(output, 0, 0), output.width, output.height, output.stride[0]};
    }
  }
  if (target.pixels == nullptr) target = buffers<Sample>().output.take(output.width, output.height);
  const std::size_t bytes = picture.width * picture.height * 3 * sizeof(Sample);
  const Restoration how{options_.scale, strength, &context_, sides(picture.height, picture.width, bytes)};
  restore_picture(picture, target, how, bundle_.tiling, engine_.get());
  if constexpr (sizeof(Sample) == 1) {
    if (output.format == UARE_FORMAT_RGBA) join_rgba(target, input, output, options_.scale);
  }
  if (layout_of(output.format)->yuv) {
    uare_frame coloured = output;
    // A guess is made once: an enlargement may cross the size that BT.709 begins at.
    coloured.matrix = matrix_of(input);
    rgb_to_yuv(target, coloured);
  }
  if (strength > 0) {
    ++restored_;
    const auto spent = std::chrono::steady_clock::now() - began;
    count_latency(static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count()));
  }
}

template <typename Sample>
void Session::follow(const View<const Sample> &picture) {
  if (frozen_ && !context_.empty()) return;
  const bool cut = cuts_.is_cut(picture);
  ++since_;
  const bool due = options_.assess_interval > 0 && since_ >= options_.assess_interval;
  if (!cut && !due && !context_.empty()) return;
  since_ = 0;
  Context seen = look(picture);
  if (cut || context_.empty()) {
    ++scenes_;
    score_ = verdict_.score;
    context_ = smoothed_ = std::move(seen);
    return;
  }
  smoothed_.blend(seen, kFollowWeight);
  score_ += kFollowWeight * (verdict_.score - score_);
  if (smoothed_.distance(context_) > kSameContext) context_ = smoothed_;
}

template <typename Sample>
Context Session::look(const View<const Sample> &picture) {
  views_.resize(kViewFloats);
  extract_views(in_8_bits(picture, reduced_), views_.data());
  float logits[kSlots * kLevels] = {};
  Context context = engine_->assess(views_.data(), logits);
  if (!std::all_of(std::begin(logits), std::end(logits), [](float value) { return std::isfinite(value); })) {
    throw Failure(UARE_ERROR_BACKEND, "the assess graph gave NaN or infinity; check the bundle's weights with: "
                                      "uare-rt inspect NAME.uare");
  }
  verdict_ = read_verdict(logits);
  ++assessed_;
  return context;
}

Context Session::look(const uare_frame &frame) {
  if (engine_ != nullptr) {
    return layout_of(frame.format)->deep ? look(picture_of<std::uint16_t>(frame))
                                         : look(picture_of<std::uint8_t>(frame));
  }
  const float undecided[kSlots * kLevels] = {};
  verdict_ = read_verdict(undecided);
  ++assessed_;
  return {};
}

void Session::fill(uare_assessment *assessment) const noexcept {
  assessment->score = verdict_.score;
  assessment->noise = verdict_.severity[0];
  assessment->blur = verdict_.severity[1];
  assessment->compression = verdict_.severity[2];
  assessment->low_resolution = verdict_.severity[3];
  assessment->low_light = verdict_.severity[4];
  assessment->haze = verdict_.severity[5];
  assessment->description = verdict_.description.c_str();
}

std::pair<std::size_t, std::size_t> Session::sides(std::size_t height, std::size_t width, std::size_t bytes) {
  if (options_.tile > 0) return {options_.tile, options_.tile};
  // Planned once for a size: a stream must not change its tiles with the memory of the moment.
  if (plan_.height != height || plan_.width != width) {
    const double pixels = tile_budget(bytes, options_.scale, available_memory(), bundle_.tiling);
    plan_ = {height, width, choose_sides(height, width, pixels, bundle_.tiling)};
  }
  return plan_.sides;
}

void Session::count_latency(std::uint64_t nanoseconds) noexcept {
  latency_ = latency_ == 0 ? nanoseconds : (latency_ * (kLatencyMemory - 1) + nanoseconds) / kLatencyMemory;
  latency_max_ = std::max(latency_max_, nanoseconds);
}

}  // namespace uare
