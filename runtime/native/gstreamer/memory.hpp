// Where the pixels of a buffer lie, and how the processor gets at them.
#pragma once

#include <gst/video/video.h>

#include <memory>
#include <string>

#include "cuda_memory.hpp"
#include "nvmm.hpp"
#include "uare_rt.h"

namespace uare::gst {

enum class Memory { kSystem, kNvmm, kCuda };

// Caps of the memories that are built in, besides the system's.
#define UARE_MEMORY_CAPS UARE_NVMM_CAPS UARE_CUDA_CAPS

[[nodiscard]] Memory memory_of(const GstCaps *caps);

// The caps on the other side of an element that takes and gives every memory: the same memory first. Takes `caps`.
[[nodiscard]] GstCaps *across_memory(GstCaps *caps);

// Makes a pool of buffers in `memory` (not the system's) the first one of an allocation query, unless downstream has
// offered one. Returns what went wrong, or "".
[[nodiscard]] std::string offer_pool(Memory memory, GstElement *element, GstObject **cuda_context, GstQuery *query);

// The pixels of a buffer, mapped for the processor for as long as this lives; takes no reference.
class Pixels {
 public:
  // `access` is GST_MAP_READ or GST_MAP_WRITE.
  Pixels(GstBuffer *buffer, const GstVideoInfo &info, Memory memory, GstMapFlags access);
  ~Pixels();
  Pixels(const Pixels &) = delete;
  Pixels &operator=(const Pixels &) = delete;

  // Why there is no view, or "".
  [[nodiscard]] const std::string &failure() const { return failure_; }
  [[nodiscard]] const uare_frame &view() const { return view_; }

  // Hands what was written to the device. Returns what went wrong, or "".
  [[nodiscard]] std::string finish();

 private:
  uare_frame view_;
  GstVideoFrame frame_ = {};
  bool mapped_ = false;
  std::unique_ptr<NvmmSurface> surface_;
  std::string failure_;
};

}  // namespace uare::gst
