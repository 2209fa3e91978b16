#include "memory.hpp"

#include "video.hpp"

namespace uare::gst {
namespace {

GstBufferPool *offered_pool(GstQuery *query) {
  GstBufferPool *pool = nullptr;
  if (gst_query_get_n_allocation_pools(query) > 0) {
    gst_query_parse_nth_allocation_pool(query, 0, &pool, nullptr, nullptr, nullptr);
  }
  return pool;
}

}  // namespace

Memory memory_of(const GstCaps *caps) {
  if (gst_caps_get_size(caps) == 0) return Memory::kSystem;
  const GstCapsFeatures *features = gst_caps_get_features(caps, 0);
  if (kNvmm && gst_caps_features_contains(features, kNvmmFeature)) return Memory::kNvmm;
  if (kCuda && gst_caps_features_contains(features, kCudaFeature)) return Memory::kCuda;
  return Memory::kSystem;
}

GstCaps *across_memory(GstCaps *caps) {
  if (!kNvmm && !kCuda) return caps;
  GstCaps *result = gst_caps_copy(caps);
  const guint count = gst_caps_get_size(caps);
  for (const char *feature : {static_cast<const char *>(nullptr), kNvmm ? kNvmmFeature : nullptr,
                              kCuda ? kCudaFeature : nullptr}) {
    for (guint i = 0; i < count; ++i) {
      GstCapsFeatures *features =
          feature == nullptr ? gst_caps_features_new_empty() : gst_caps_features_new(feature, nullptr);
      result = gst_caps_merge_structure_full(result, gst_structure_copy(gst_caps_get_structure(caps, i)), features);
    }
  }
  gst_caps_unref(caps);
  return result;
}

std::string offer_pool(Memory memory, GstElement *element, GstObject **cuda_context, GstQuery *query) {
  GstBufferPool *offered = offered_pool(query), *pool = nullptr;
  // Of a pool of CUDA memory its type tells what it gives; of one for NVMM nothing does.
  const bool usable = memory == Memory::kCuda && is_cuda_pool(offered);
  if (offered != nullptr) gst_object_unref(offered);
  if (usable) return "";
  const std::string failure =
      memory == Memory::kCuda ? new_cuda_pool(element, cuda_context, &pool) : new_nvmm_pool(query, &pool);
  if (!failure.empty()) return failure;
  if (offered != nullptr) {
    gst_query_set_nth_allocation_pool(query, 0, pool, 0, 0, 0);
  } else {
    gst_query_add_allocation_pool(query, pool, 0, 0, 0);
  }
  gst_object_unref(pool);
  return "";
}

Pixels::Pixels(GstBuffer *buffer, const GstVideoInfo &info, Memory memory, GstMapFlags access) : view_(view_of(info)) {
  if (memory == Memory::kNvmm) {
    surface_ = std::make_unique<NvmmSurface>(buffer, access);
    failure_ = surface_->describe(view_);
    return;
  }
  // CUDA memory copies itself from the device, and back when the next element asks for it there.
  const auto flags = static_cast<GstMapFlags>(access | GST_VIDEO_FRAME_MAP_FLAG_NO_REF);
  mapped_ = gst_video_frame_map(&frame_, &info, buffer, flags);
  if (!mapped_) {
    failure_ = "the buffer cannot be mapped";
    return;
  }
  view_ = view_of(&frame_);
}

Pixels::~Pixels() {
  if (mapped_) gst_video_frame_unmap(&frame_);
}

std::string Pixels::finish() { return surface_ != nullptr ? surface_->give_to_device() : ""; }

}  // namespace uare::gst
