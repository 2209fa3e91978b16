// A stand-in of the part of CUDA that the TensorRT engine calls: memory is the processor's, work is done when it is
// waited for, so that a missing synchronisation shows.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
constexpr unsigned cudaStreamNonBlocking = 1;

struct StandInStream {
  std::vector<std::function<void()>> work;
};
using cudaStream_t = StandInStream *;

namespace stand_in {
inline std::size_t allocations = 0;
inline bool out_of_memory = false;
}  // namespace stand_in

inline const char *cudaGetErrorString(cudaError_t) { return "out of memory"; }
inline cudaError_t cudaMalloc(void **memory, std::size_t bytes) {
  if (stand_in::out_of_memory) return cudaErrorMemoryAllocation;
  *memory = std::malloc(bytes);
  ++stand_in::allocations;
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void **memory, std::size_t bytes) { return cudaMalloc(memory, bytes); }
inline cudaError_t cudaFree(void *memory) {
  if (memory != nullptr) --stand_in::allocations;
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void *memory) { return cudaFree(memory); }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  *stream = new StandInStream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  for (const auto &work : stream->work) work();
  stream->work.clear();
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void *target, const void *source, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  stream->work.emplace_back([=] { std::memcpy(target, source, bytes); });
  return cudaSuccess;
}
