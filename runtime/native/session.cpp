// The C interface: checks what comes in, keeps exceptions from getting out, and runs the engine in between.

#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "null_engine.hpp"
#include "uare_rt.h"

struct uare_session {
  std::uint32_t scale = 1;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
};

namespace {

class Failure : public std::exception {
 public:
  Failure(uare_status status, std::string message) : status_(status), message_(std::move(message)) {}
  [[nodiscard]] uare_status status() const noexcept { return status_; }
  [[nodiscard]] const char *what() const noexcept override { return message_.c_str(); }

 private:
  uare_status status_;
  std::string message_;
};

struct LastError {
  uare_status status = UARE_OK;
  // A fixed buffer: reporting that memory ran out must not ask for memory.
  char message[512] = "";
};

thread_local LastError last_error;

uare_status fail(uare_status status, const char *message) noexcept {
  last_error.status = status;
  std::strncpy(last_error.message, message, sizeof last_error.message - 1);
  last_error.message[sizeof last_error.message - 1] = '\0';
  return status;
}

template <typename Body>
uare_status guarded(Body &&body) noexcept {
  try {
    body();
    return UARE_OK;
  } catch (const Failure &failure) {
    return fail(failure.status(), failure.what());
  } catch (const std::bad_alloc &) {
    return fail(UARE_ERROR_MEMORY, "out of memory");
  } catch (const std::exception &error) {
    return fail(UARE_ERROR_INTERNAL, error.what());
  } catch (...) {
    return fail(UARE_ERROR_INTERNAL, "unknown exception");
  }
}

struct Options {
  std::string backend;
  std::uint32_t scale = 1;
};

std::uint32_t parse_scale(std::string_view value) {
  if (value == "1") return 1;
  if (value == "2") return 2;
  if (value == "4") return 4;
  throw Failure(UARE_ERROR_ARGUMENT, "option scale is \"" + std::string(value) + "\": give 1, 2 or 4");
}

Options parse_options(const char *const *options, std::size_t count) {
  if (options == nullptr && count > 0) {
    throw Failure(UARE_ERROR_ARGUMENT, "options is NULL but option_count is " + std::to_string(count));
  }
  Options parsed;
  for (std::size_t i = 0; i < count; ++i) {
    if (options[i] == nullptr) {
      throw Failure(UARE_ERROR_ARGUMENT, "option " + std::to_string(i) + " is NULL");
    }
    const std::string_view option(options[i]);
    const auto equals = option.find('=');
    if (equals == std::string_view::npos) {
      throw Failure(UARE_ERROR_ARGUMENT, "option \"" + std::string(option) + "\" is not of the form key=value");
    }
    const auto key = option.substr(0, equals);
    const auto value = option.substr(equals + 1);
    if (key == "backend") {
      parsed.backend = std::string(value);
    } else if (key == "scale") {
      parsed.scale = parse_scale(value);
    } else {
      throw Failure(UARE_ERROR_ARGUMENT, "unknown option \"" + std::string(key) + "\": known are backend and scale");
    }
  }
  return parsed;
}

void check_frame(const uare_frame *frame, const char *name) {
  if (frame == nullptr) throw Failure(UARE_ERROR_ARGUMENT, std::string(name) + " is NULL");
  if (frame->struct_size != sizeof(uare_frame)) {
    throw Failure(UARE_ERROR_STRUCT_SIZE, std::string(name) + "->struct_size is " +
                                              std::to_string(frame->struct_size) + ": set it to sizeof(uare_frame), " +
                                              std::to_string(sizeof(uare_frame)));
  }
  if (frame->format != UARE_FORMAT_RGB24) {
    throw Failure(UARE_ERROR_FORMAT, std::string(name) + "->format is " + std::to_string(frame->format) +
                                         ": only UARE_FORMAT_RGB24 is taken");
  }
  if (frame->width == 0 || frame->height == 0) {
    throw Failure(UARE_ERROR_SHAPE, std::string(name) + " is " + std::to_string(frame->width) + "x" +
                                        std::to_string(frame->height) + ": it has no pixels");
  }
  if (frame->plane[0] == nullptr) throw Failure(UARE_ERROR_ARGUMENT, std::string(name) + "->plane[0] is NULL");
  const auto row = std::uint64_t{frame->width} * uare::kBytesPerPixel;
  if (frame->stride[0] < row) {
    throw Failure(UARE_ERROR_SHAPE, std::string(name) + "->stride[0] is " + std::to_string(frame->stride[0]) +
                                        " bytes: a row takes " + std::to_string(row));
  }
  if (frame->stride[0] > std::numeric_limits<std::size_t>::max() / 2 / frame->height) {
    throw Failure(UARE_ERROR_SHAPE, std::string(name) + "->stride[0] is " + std::to_string(frame->stride[0]) +
                                        " bytes: the frame does not fit into memory");
  }
}

void check_scaled(const uare_frame &input, const uare_frame &output, std::uint32_t scale) {
  const auto width = std::uint64_t{input.width} * scale;
  const auto height = std::uint64_t{input.height} * scale;
  if (output.width != width || output.height != height) {
    throw Failure(UARE_ERROR_SHAPE, "output is " + std::to_string(output.width) + "x" + std::to_string(output.height) +
                                        ": scale " + std::to_string(scale) + " of the input is " +
                                        std::to_string(width) + "x" + std::to_string(height));
  }
}

class Occupied {
 public:
  explicit Occupied(uare_session &session) : session_(session) {
    if (session_.busy.test_and_set(std::memory_order_acquire)) {
      throw Failure(UARE_ERROR_BUSY, "another thread is using this session: open one per thread");
    }
  }
  ~Occupied() { session_.busy.clear(std::memory_order_release); }
  Occupied(const Occupied &) = delete;
  Occupied &operator=(const Occupied &) = delete;

 private:
  uare_session &session_;
};

}  // namespace

extern "C" {

std::uint32_t uare_abi_version(void) { return UARE_ABI_VERSION; }

const char *uare_version(void) { return UARE_RT_VERSION; }

uare_status uare_open(const char * /*bundle*/, const char *const *options, std::size_t option_count,
                      uare_session **session) {
  if (session != nullptr) *session = nullptr;
  return guarded([&] {
    if (session == nullptr) throw Failure(UARE_ERROR_ARGUMENT, "session is NULL");
    const Options parsed = parse_options(options, option_count);
    if (parsed.backend.empty()) {
      throw Failure(UARE_ERROR_BACKEND, "no backend was named: this library has only the null engine, backend=null");
    }
    if (parsed.backend != "null") {
      throw Failure(UARE_ERROR_BACKEND,
                    "backend \"" + parsed.backend + "\" is not built into this library: it has backend=null");
    }
    auto *opened = new uare_session;
    opened->scale = parsed.scale;
    *session = opened;
  });
}

uare_status uare_process(uare_session *session, const uare_frame *input, const uare_frame *output) {
  return guarded([&] {
    if (session == nullptr) throw Failure(UARE_ERROR_ARGUMENT, "session is NULL");
    const Occupied occupied(*session);
    check_frame(input, "input");
    check_frame(output, "output");
    check_scaled(*input, *output, session->scale);
    uare::repeat_pixels(*input, *output, session->scale);
  });
}

uare_status uare_last_error(uare_error *error) {
  // Refusals here leave the last error alone: it is what the caller is asking about.
  if (error == nullptr) return UARE_ERROR_ARGUMENT;
  if (error->struct_size != sizeof(uare_error)) return UARE_ERROR_STRUCT_SIZE;
  error->status = last_error.status;
  error->message = last_error.message;
  return UARE_OK;
}

void uare_close(uare_session *session) { delete session; }

}  // extern "C"
