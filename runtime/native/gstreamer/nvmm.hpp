// Frames in NVIDIA's NVMM memory (Jetson, DeepStream), which the processor reads and writes in place. For UARE_NVMM.
#pragma once

#include <gst/video/video.h>

#include <string>

#include "uare_rt.h"

namespace uare::gst {

inline constexpr const char *kNvmmFeature = "memory:NVMM";

#ifdef UARE_NVMM
inline constexpr bool kNvmm = true;
#define UARE_NVMM_CAPS \
  ";" GST_VIDEO_CAPS_MAKE_WITH_FEATURES("memory:NVMM", "{ NV12, I420, P010_10LE, RGBA }")
#else
inline constexpr bool kNvmm = false;
#define UARE_NVMM_CAPS
#endif

// A buffer of one NVMM surface, mapped for the processor for as long as this lives.
class NvmmSurface {
 public:
  // `access` is GST_MAP_READ or GST_MAP_WRITE.
  NvmmSurface(GstBuffer *buffer, GstMapFlags access);
  ~NvmmSurface();
  NvmmSurface(const NvmmSurface &) = delete;
  NvmmSurface &operator=(const NvmmSurface &) = delete;

  // Points the planes of `view` at the surface. Returns why not, or "".
  [[nodiscard]] std::string describe(uare_frame &view) const;

  // Makes what was written visible to the device. Returns why not, or "".
  [[nodiscard]] std::string give_to_device();

 private:
  GstBuffer *buffer_;
  GstMapInfo map_ = {};
  void *surface_ = nullptr;  // NvBufSurface, mapped
  std::string failure_;
};

// Makes a pool of surfaces for the caps of an allocation query. Returns why not, or "".
[[nodiscard]] std::string new_nvmm_pool(GstQuery *query, GstBufferPool **pool);

}  // namespace uare::gst
