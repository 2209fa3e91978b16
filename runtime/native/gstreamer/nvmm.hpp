// Frames in NVIDIA's NVMM memory (Jetson, DeepStream), read in place by the processor. Built with UARE_NVMM.
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
#define UARE_NVMM_CAPS ""
#endif

// Whether caps are of NVMM memory; never where it is not built in.
[[nodiscard]] bool is_nvmm(const GstCaps *caps);

// The caps on the other side of an element that takes NVMM and gives system memory: from the sink pad all become
// system memory, from the source pad both are offered. Takes `caps`.
[[nodiscard]] GstCaps *across_memory(GstCaps *caps, GstPadDirection from);

// A buffer of one NVMM surface, mapped for the processor for as long as this lives.
class NvmmFrame {
 public:
  explicit NvmmFrame(GstBuffer *buffer);
  ~NvmmFrame();
  NvmmFrame(const NvmmFrame &) = delete;
  NvmmFrame &operator=(const NvmmFrame &) = delete;

  // Points the planes of `view` at the surface. False where that failed; the reason is in `failure`.
  [[nodiscard]] bool describe(uare_frame &view, std::string *failure) const;

 private:
  GstBuffer *buffer_;
  GstMapInfo map_ = {};
  void *surface_ = nullptr;  // NvBufSurface, mapped
  std::string failure_;
};

}  // namespace uare::gst
