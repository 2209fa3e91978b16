// A session: a bundle on an engine, the context that follows the frames, and what has been counted.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine.hpp"
#include "options.hpp"
#include "picture.hpp"
#include "scenes.hpp"
#include "uare_rt.h"

namespace uare {

// Not for several threads at once: the C interface sees to that. Frames and structs are checked before.
class Session {
 public:
  // Throws Failure.
  Session(const char *path, const Options &options);

  void query(uare_info &info) const noexcept;
  void set(std::string_view option) { change_option(options_, option); }
  void process(const uare_frame &input, const uare_frame &output, void *stream);
  void assess(const uare_frame &input, uare_assessment *assessment);
  void fill(uare_assessment *assessment) const noexcept;  // with the newest verdict
  void update_context(const uare_frame &input, float weight, uare_assessment *assessment);
  void control_context(uare_context_action action);
  [[nodiscard]] std::uint32_t scale() const noexcept { return options_.scale; }

  std::atomic_flag busy = ATOMIC_FLAG_INIT;

 private:
  template <typename Sample>
  struct Buffers {
    Scratch<Sample> input;
    Scratch<Sample> output;
  };

  template <typename Sample>
  [[nodiscard]] Buffers<Sample> &buffers() noexcept;
  template <typename Sample>
  [[nodiscard]] View<const Sample> picture_of(const uare_frame &frame);
  template <typename Sample>
  void process_as(const uare_frame &input, const uare_frame &output);
  template <typename Sample>
  void follow(const View<const Sample> &picture);
  template <typename Sample>
  [[nodiscard]] Context look(const View<const Sample> &picture);
  [[nodiscard]] Context look(const uare_frame &frame);
  [[nodiscard]] std::pair<std::size_t, std::size_t> sides(std::size_t height, std::size_t width, std::size_t bytes);
  void count_latency(std::uint64_t nanoseconds) noexcept;

  Options options_;
  std::string engine_name_ = "null";
  Bundle bundle_;
  std::unique_ptr<Engine> engine_;  // none for the null engine
  Buffers<std::uint8_t> small_;
  Buffers<std::uint16_t> deep_;
  std::vector<std::uint8_t> reduced_;  // a deep frame in 8 bits, for the views
  std::vector<float> views_;

  CutDetector cuts_;
  Context smoothed_;  // what the scene has shown so far
  Context context_;   // what frames are restored with: follows it, but not every tremble
  Verdict verdict_;        // of the last assessment
  float score_ = 0;   // of the scene so far, smoothed
  bool frozen_ = false;
  std::uint32_t since_ = 0;

  struct {
    std::size_t height = 0;
    std::size_t width = 0;
    std::pair<std::size_t, std::size_t> sides;
  } plan_;
  std::uint64_t frames_ = 0, restored_ = 0, assessed_ = 0, scenes_ = 0, latency_ = 0, latency_max_ = 0;
};

}  // namespace uare
