// The C interface: finds the session of a handle, checks what comes in and keeps exceptions from getting out.
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>

#include "failure.hpp"
#include "frame_layout.hpp"
#include "options.hpp"
#include "session.hpp"
#include "uare_rt.h"

namespace {

using uare::Failure;
using uare::Session;

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

// Handles are numbers that are never given out twice, so that a closed one is told from an open one.
class Registry {
 public:
  uare_session *add(std::shared_ptr<Session> session) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::uintptr_t number = ++last_ * 16;
    sessions_.emplace(number, std::move(session));
    return reinterpret_cast<uare_session *>(number);
  }

  std::shared_ptr<Session> find(const uare_session *handle) {
    if (handle == nullptr) throw Failure(UARE_ERROR_ARGUMENT, "session is NULL");
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sessions_.find(reinterpret_cast<std::uintptr_t>(handle));
    if (found == sessions_.end()) throw Failure(UARE_ERROR_CLOSED, "session was closed, or was never opened");
    return found->second;
  }

  std::shared_ptr<Session> remove(const uare_session *handle) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = sessions_.find(reinterpret_cast<std::uintptr_t>(handle));
    if (found == sessions_.end()) return nullptr;
    std::shared_ptr<Session> session = std::move(found->second);
    sessions_.erase(found);
    return session;
  }

 private:
  std::mutex mutex_;
  std::uintptr_t last_ = 0;
  std::unordered_map<std::uintptr_t, std::shared_ptr<Session>> sessions_;
};

Registry &registry() {
  // Never destroyed: a session may outlive the static objects of its program.
  static auto *sessions = new Registry;
  return *sessions;
}

class Occupied {
 public:
  explicit Occupied(const uare_session *handle) : session_(registry().find(handle)) {
    if (session_->busy.test_and_set(std::memory_order_acquire)) {
      throw Failure(UARE_ERROR_BUSY, "another thread is using this session: open one per thread");
    }
  }
  ~Occupied() { session_->busy.clear(std::memory_order_release); }
  Occupied(const Occupied &) = delete;
  Occupied &operator=(const Occupied &) = delete;
  Session *operator->() const noexcept { return session_.get(); }

 private:
  std::shared_ptr<Session> session_;
};

template <typename Struct>
void check_struct(const Struct *value, const char *name, const char *type) {
  if (value == nullptr) throw Failure(UARE_ERROR_ARGUMENT, std::string(name) + " is NULL");
  if (value->struct_size != sizeof(Struct)) {
    throw Failure(UARE_ERROR_STRUCT_SIZE, std::string(name) + "->struct_size is " +
                                              std::to_string(value->struct_size) + ": set it to sizeof(" + type +
                                              "), " + std::to_string(sizeof(Struct)));
  }
}

}  // namespace

extern "C" {

std::uint32_t uare_abi_version(void) { return UARE_ABI_VERSION; }

const char *uare_version(void) { return UARE_RT_VERSION; }

uare_status uare_open(const char *bundle, const char *const *options, std::size_t option_count,
                      uare_session **session) {
  if (session != nullptr) *session = nullptr;
  return guarded([&] {
    if (session == nullptr) throw Failure(UARE_ERROR_ARGUMENT, "session is NULL");
    *session = registry().add(std::make_shared<Session>(bundle, uare::parse_options(options, option_count)));
  });
}

uare_status uare_query(uare_session *session, uare_info *info) {
  return guarded([&] {
    const Occupied occupied(session);
    check_struct(info, "info", "uare_info");
    occupied->query(*info);
  });
}

uare_status uare_set(uare_session *session, const char *option) {
  return guarded([&] {
    const Occupied occupied(session);
    if (option == nullptr) throw Failure(UARE_ERROR_ARGUMENT, "option is NULL");
    occupied->set(option);
  });
}

uare_status uare_process(uare_session *session, const uare_frame *input, const uare_frame *output, void *cuda_stream) {
  return guarded([&] {
    const Occupied occupied(session);
    uare::check_frame(input, "input");
    uare::check_frame(output, "output");
    uare::check_pair(*input, *output, occupied->scale());
    occupied->process(*input, *output, cuda_stream);
  });
}

uare_status uare_assess(uare_session *session, const uare_frame *input, uare_assessment *assessment) {
  return guarded([&] {
    const Occupied occupied(session);
    uare::check_frame(input, "input");
    check_struct(assessment, "assessment", "uare_assessment");
    occupied->assess(*input, assessment);
  });
}

uare_status uare_last_assessment(uare_session *session, uare_assessment *assessment) {
  return guarded([&] {
    const Occupied occupied(session);
    check_struct(assessment, "assessment", "uare_assessment");
    occupied->fill(assessment);
  });
}

uare_status uare_context_update(uare_session *session, const uare_frame *input, float weight,
                                uare_assessment *assessment) {
  return guarded([&] {
    const Occupied occupied(session);
    uare::check_frame(input, "input");
    if (assessment != nullptr) check_struct(assessment, "assessment", "uare_assessment");
    if (!(weight >= 0.0F && weight <= 1.0F)) {
      throw Failure(UARE_ERROR_ARGUMENT, "weight is " + std::to_string(weight) + ": give a number from 0 to 1");
    }
    occupied->update_context(*input, weight, assessment);
  });
}

uare_status uare_context_control(uare_session *session, uare_context_action action) {
  return guarded([&] {
    const Occupied occupied(session);
    occupied->control_context(action);
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

void uare_close(uare_session *session) {
  // A call that is under way keeps the session until it returns.
  registry().remove(session).reset();
}

}  // extern "C"
