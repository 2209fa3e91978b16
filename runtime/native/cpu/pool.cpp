#include "pool.hpp"

#include <chrono>

namespace {

// Layers follow each other within microseconds: for that long a thread asks before it sleeps.
constexpr std::chrono::microseconds kSpin{60};
constexpr int kAsks = 64;  // between looks at the clock

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <class Condition>
bool spin(const Condition &met) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int ask = 0; ask < kAsks; ++ask) {
      if (met()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

uare_pool::uare_pool(int threads) {
  try {
    for (int thread = 1; thread < threads; ++thread) threads_.emplace_back([this] { wait_for_work(); });
  } catch (...) {
    end_threads();
    throw;
  }
}

uare_pool::~uare_pool() { end_threads(); }

void uare_pool::end_threads() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread &thread : threads_) thread.join();
}

int32_t uare_pool::run(const Work &work) {
  std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
  if (!busy || threads_.empty() || work.count < 2) {
    try {
      for (std::size_t at = 0; at < work.count; ++at) work.call(work.context, at);
    } catch (...) {
      return 1;
    }
    return 0;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (!spin([this] { return inside_ == 0; })) std::this_thread::yield();
    work_ = work;
    failed_ = false;
    done_ = 0;
    next_ = 0;
    ++begun_;
  }
  wake_.notify_all();
  take(work);
  // The last pieces take as long as any: others may need this core meanwhile.
  while (!spin([this, &work] { return done_ == work.count; })) std::this_thread::yield();
  return failed_ ? 1 : 0;
}

void uare_pool::take(const Work &work) {
  for (std::size_t at = next_++; at < work.count; at = next_++) {
    try {
      work.call(work.context, at);
    } catch (...) {
      failed_ = true;
    }
    ++done_;
  }
}

void uare_pool::wait_for_work() {
  unsigned seen = 0;
  const auto there = [this, &seen] { return begun_ != seen || ending_; };
  for (;;) {
    spin(there);
    Work work;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, there);
      if (ending_) return;
      seen = begun_;
      work = work_;
      ++inside_;
    }
    take(work);
    --inside_;
  }
}
