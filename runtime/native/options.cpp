#include "options.hpp"

#include <charconv>
#include <limits>
#include <string>

#include "failure.hpp"

namespace uare {
namespace {

constexpr std::string_view kKnown = "backend, scale, strength, assess-interval, skip-above, threads and tile";

[[noreturn]] void refuse(std::string_view key, std::string_view value, std::string_view wanted) {
  throw Failure(UARE_ERROR_ARGUMENT,
                "option " + std::string(key) + " is \"" + std::string(value) + "\": give " + std::string(wanted));
}

// Locale-free: a decimal comma of the host program must not change what "0.5" means.
float number(std::string_view key, std::string_view value, float low, float high, std::string_view wanted) {
  float parsed = 0;
  const auto *end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, parsed);
  // The negation also refuses NaN.
  if (result.ec != std::errc() || result.ptr != end || !(parsed >= low && parsed <= high)) refuse(key, value, wanted);
  return parsed;
}

std::uint32_t count(std::string_view key, std::string_view value, std::uint32_t low, std::string_view wanted) {
  std::uint32_t parsed = 0;
  const auto *end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, parsed);
  if (result.ec != std::errc() || result.ptr != end || parsed < low) refuse(key, value, wanted);
  return parsed;
}

std::uint32_t parse_scale(std::string_view key, std::string_view value) {
  if (value == "1") return 1;
  if (value == "2") return 2;
  if (value == "4") return 4;
  refuse(key, value, "1, 2 or 4");
}

struct Pair {
  std::string_view key;
  std::string_view value;
};

Pair split(std::string_view option) {
  const auto equals = option.find('=');
  if (equals == std::string_view::npos) {
    throw Failure(UARE_ERROR_ARGUMENT, "option \"" + std::string(option) + "\" is not of the form key=value");
  }
  return {option.substr(0, equals), option.substr(equals + 1)};
}

bool apply_changeable(Options &options, const Pair &pair) {
  if (pair.key == "strength") {
    options.strength = number(pair.key, pair.value, 0.0F, 1.0F, "a number from 0 to 1");
  } else if (pair.key == "assess-interval") {
    options.assess_interval = count(pair.key, pair.value, 0, "a number of frames, 0 for cuts only");
  } else if (pair.key == "skip-above") {
    options.skip_above = number(pair.key, pair.value, 1.0F, 6.0F, "a score from 1 to 5, or 6 for never");
  } else {
    return false;
  }
  return true;
}

void apply(Options &options, const Pair &pair) {
  if (apply_changeable(options, pair)) return;
  if (pair.key == "backend") {
    options.backend = std::string(pair.value);
  } else if (pair.key == "scale") {
    options.scale = parse_scale(pair.key, pair.value);
  } else if (pair.key == "threads") {
    options.threads = count(pair.key, pair.value, 1, "a number of threads from 1");
    if (options.threads > 1024) refuse(pair.key, pair.value, "at most 1024 threads");
  } else if (pair.key == "tile") {
    options.tile = count(pair.key, pair.value, 1, "a side in pixels from 1");
  } else {
    throw Failure(UARE_ERROR_ARGUMENT,
                  "unknown option \"" + std::string(pair.key) + "\": known are " + std::string(kKnown));
  }
}

}  // namespace

Options parse_options(const char *const *options, std::size_t count) {
  if (options == nullptr && count > 0) {
    throw Failure(UARE_ERROR_ARGUMENT, "options is NULL but option_count is " + std::to_string(count));
  }
  Options parsed;
  for (std::size_t i = 0; i < count; ++i) {
    if (options[i] == nullptr) throw Failure(UARE_ERROR_ARGUMENT, "option " + std::to_string(i) + " is NULL");
    apply(parsed, split(options[i]));
  }
  return parsed;
}

void change_option(Options &options, std::string_view option) {
  const Pair pair = split(option);
  if (!apply_changeable(options, pair)) {
    throw Failure(UARE_ERROR_ARGUMENT, "option \"" + std::string(pair.key) +
                                           "\" cannot change in an open session: strength, assess-interval and "
                                           "skip-above can");
  }
}

}  // namespace uare
