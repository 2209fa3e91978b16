// Threads that share the pieces of one call.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "uare_cpu.h"

struct uare_pool {
 public:
  // Throws std::bad_alloc and std::system_error.
  explicit uare_pool(int threads);
  ~uare_pool();
  uare_pool(const uare_pool &) = delete;
  uare_pool &operator=(const uare_pool &) = delete;

  // Calls piece(i) once for each i below `count`, on any of the threads, and returns when all have returned: 0, or 1
  // where one has thrown. While another call has the pool, this thread does it all.
  template <class Piece>
  int32_t run(std::size_t count, const Piece &piece) {
    return run({count, [](const void *context, std::size_t at) { (*static_cast<const Piece *>(context))(at); }, &piece});
  }

 private:
  struct Work {
    std::size_t count;
    void (*call)(const void *context, std::size_t at);
    const void *context;
  };

  int32_t run(const Work &work);
  void wait_for_work();
  void take(const Work &work);
  void end_threads();

  std::vector<std::thread> threads_;
  std::mutex busy_;  // held by the caller whose work it is
  std::mutex mutex_;
  std::condition_variable wake_;
  Work work_{};
  // A thread that wakes late finds its work done, and must not take pieces of the next as its own: it counts itself in
  // under the lock, and nothing is begun before all have counted themselves out.
  std::atomic<unsigned> begun_{0};
  std::atomic<std::size_t> next_{0}, done_{0};
  std::atomic<int> inside_{0};
  std::atomic<bool> failed_{false}, ending_{false};
};
