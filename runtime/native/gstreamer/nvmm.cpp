// Not run on a Jetson yet: compiled and tested against a stand-in of nvbufsurface.h and its library, which the library
// is loaded from when the first such frame comes, so that the plugin works without it.
#include "nvmm.hpp"

#ifdef UARE_NVMM
#include <dlfcn.h>
#include <nvbufsurface.h>
#endif

namespace uare::gst {

bool is_nvmm(const GstCaps *caps) {
  return kNvmm && gst_caps_get_size(caps) > 0 &&
         gst_caps_features_contains(gst_caps_get_features(caps, 0), kNvmmFeature);
}

GstCaps *across_memory(GstCaps *caps, GstPadDirection from) {
  if (!kNvmm) return caps;
  caps = gst_caps_make_writable(caps);
  const guint count = gst_caps_get_size(caps);
  for (guint i = 0; i < count; ++i) {
    if (from == GST_PAD_SINK) {
      gst_caps_set_features(caps, i, gst_caps_features_new_empty());
      continue;
    }
    GstStructure *copy = gst_structure_copy(gst_caps_get_structure(caps, i));
    gst_caps_append_structure_full(caps, copy, gst_caps_features_new(kNvmmFeature, nullptr));
  }
  return from == GST_PAD_SINK ? gst_caps_simplify(caps) : caps;
}

#ifdef UARE_NVMM
namespace {

struct Library {
  decltype(&NvBufSurfaceMap) map = nullptr;
  decltype(&NvBufSurfaceUnMap) unmap = nullptr;
  decltype(&NvBufSurfaceSyncForCpu) sync = nullptr;
  std::string failure;

  Library() {
    void *loaded = nullptr;
    for (const char *name : {"libnvbufsurface.so.1.0.0", "libnvbufsurface.so"}) {
      if (loaded == nullptr) loaded = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (loaded == nullptr) {
      failure = std::string("NVMM memory cannot be read: ") + dlerror() + "; put nvvidconv before this element";
      return;
    }
    map = reinterpret_cast<decltype(map)>(dlsym(loaded, "NvBufSurfaceMap"));
    unmap = reinterpret_cast<decltype(unmap)>(dlsym(loaded, "NvBufSurfaceUnMap"));
    sync = reinterpret_cast<decltype(sync)>(dlsym(loaded, "NvBufSurfaceSyncForCpu"));
    if (map == nullptr || unmap == nullptr || sync == nullptr) failure = "libnvbufsurface lacks functions to map memory";
  }
};

const Library &library() {
  static const Library loaded;
  return loaded;
}

}  // namespace

NvmmFrame::NvmmFrame(GstBuffer *buffer) : buffer_(buffer), failure_(library().failure) {
  if (!failure_.empty()) return;
  if (!gst_buffer_map(buffer, &map_, GST_MAP_READ)) {
    failure_ = "the NVMM buffer cannot be mapped";
    return;
  }
  auto *surface = reinterpret_cast<NvBufSurface *>(map_.data);
  if (map_.size < sizeof *surface || surface->numFilled != 1) {
    failure_ = "the NVMM buffer holds no single surface; a batch of nvstreammux is not taken";
  } else if (library().map(surface, 0, -1, NVBUF_MAP_READ) != 0) {
    failure_ = "NvBufSurfaceMap failed; put nvvidconv before this element";
  } else {
    surface_ = surface;
    // The camera wrote behind the processor's caches.
    if (library().sync(surface, 0, -1) != 0) failure_ = "NvBufSurfaceSyncForCpu failed";
  }
}

NvmmFrame::~NvmmFrame() {
  if (surface_ != nullptr) library().unmap(static_cast<NvBufSurface *>(surface_), 0, -1);
  if (map_.data != nullptr) gst_buffer_unmap(buffer_, &map_);
}

bool NvmmFrame::describe(uare_frame &view, std::string *failure) const {
  *failure = failure_;
  if (!failure_.empty()) return false;
  const NvBufSurfaceParams &surface = static_cast<NvBufSurface *>(surface_)->surfaceList[0];
  if (surface.layout != NVBUF_LAYOUT_PITCH) {
    *failure = "the NVMM surface is tiled (block linear); put nvvidconv before this element";
    return false;
  }
  for (guint i = 0; i < surface.planeParams.num_planes && i < 4; ++i) {
    view.plane[i] = surface.mappedAddr.addr[i];
    view.stride[i] = surface.planeParams.pitch[i];
  }
  return true;
}
#else
NvmmFrame::NvmmFrame(GstBuffer *buffer) : buffer_(buffer), failure_("NVMM memory is not built in") {}
NvmmFrame::~NvmmFrame() = default;
bool NvmmFrame::describe(uare_frame &, std::string *failure) const {
  *failure = failure_;
  return false;
}
#endif

}  // namespace uare::gst
