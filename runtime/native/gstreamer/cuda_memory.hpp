// Frames in CUDA memory, as GStreamer's own NVIDIA plugins (nvcodec) make and take them. Built with UARE_CUDA_MEMORY.
#pragma once

#include <gst/video/video.h>

#include <string>

namespace uare::gst {

inline constexpr const char *kCudaFeature = "memory:CUDAMemory";

#ifdef UARE_CUDA_MEMORY
inline constexpr bool kCuda = true;
#define UARE_CUDA_CAPS \
  ";" GST_VIDEO_CAPS_MAKE_WITH_FEATURES("memory:CUDAMemory", "{ NV12, I420, P010_10LE, RGB, RGBA }")
#else
inline constexpr bool kCuda = false;
#define UARE_CUDA_CAPS
#endif

// Whether a pool, which may be NULL, gives CUDA memory.
[[nodiscard]] bool is_cuda_pool(GstBufferPool *pool);

// Makes a pool in the CUDA context of the pipeline, which is kept in `context`, or made where there is none yet.
// Returns why not, or "".
[[nodiscard]] std::string new_cuda_pool(GstElement *element, GstObject **context, GstBufferPool **pool);

// Keeps the CUDA context that a GstContext carries, if it does; for GstElementClass.set_context.
void keep_cuda_context(GstElement *element, GstContext *carrier, GstObject **context);

// Answers a neighbour that asks for the CUDA context. Whether it was answered.
[[nodiscard]] bool answer_cuda_query(GstElement *element, GstQuery *query, GstObject *context);

}  // namespace uare::gst
