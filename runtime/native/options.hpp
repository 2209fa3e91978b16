// Options of a session: "key=value" texts to checked values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace uare {

struct Options {
  std::string backend = "auto";
  std::uint32_t scale = 1;
  float strength = 1.0F;
  std::uint32_t assess_interval = 30;    // frames; 0: at cuts only
  float skip_above = 6.0F;               // score; 6 is above all
  std::uint32_t threads = 0;             // 0: the cores of this process
  std::uint32_t tile = 0;                // px; 0: from the memory at hand
};

// Throws Failure for NULL pointers, unknown keys and values outside their range.
[[nodiscard]] Options parse_options(const char *const *options, std::size_t count);

// Applies one option that may change while a session is open.
void change_option(Options &options, std::string_view option);

}  // namespace uare
