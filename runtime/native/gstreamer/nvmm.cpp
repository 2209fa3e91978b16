// Not run on a Jetson yet: compiled and tested against a stand-in of nvbufsurface.h and its library. The library is
// loaded when the first such frame comes, so that the plugin works without it.
#include "nvmm.hpp"

#ifdef UARE_NVMM
#include <dlfcn.h>
#include <nvbufsurface.h>

#include "nvmm_library.hpp"
#endif

namespace uare::gst {
#ifdef UARE_NVMM

NvmmLibrary::NvmmLibrary() {
  void *loaded = nullptr;
  for (const char *name : {"libnvbufsurface.so.1.0.0", "libnvbufsurface.so"}) {
    if (loaded == nullptr) loaded = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (loaded == nullptr) {
    failure = std::string("NVMM memory cannot be used: ") + dlerror() + "; put nvvidconv between";
    return;
  }
  const auto find = [&](auto &function, const char *name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(loaded, name));
    if (function == nullptr) failure = std::string("libnvbufsurface lacks ") + name;
  };
  find(create, "NvBufSurfaceCreate");
  find(destroy, "NvBufSurfaceDestroy");
  find(map, "NvBufSurfaceMap");
  find(unmap, "NvBufSurfaceUnMap");
  find(sync_for_processor, "NvBufSurfaceSyncForCpu");
  find(sync_for_device, "NvBufSurfaceSyncForDevice");
}

const NvmmLibrary &NvmmLibrary::get() {
  static const NvmmLibrary loaded;
  return loaded;
}

NvmmSurface::NvmmSurface(GstBuffer *buffer, GstMapFlags access)
    : buffer_(buffer), failure_(NvmmLibrary::get().failure) {
  if (!failure_.empty()) return;
  // What a buffer holds is the description of its surface, which is read in both cases.
  if (!gst_buffer_map(buffer, &map_, GST_MAP_READ)) {
    failure_ = "the NVMM buffer cannot be mapped";
    return;
  }
  const NvmmLibrary &library = NvmmLibrary::get();
  const bool write = (access & GST_MAP_WRITE) != 0;
  auto *surface = reinterpret_cast<NvBufSurface *>(map_.data);
  if (map_.size < sizeof *surface || surface->numFilled != 1) {
    failure_ = "the NVMM buffer holds no single surface; a batch of nvstreammux is not taken";
  } else if (library.map(surface, 0, -1, write ? NVBUF_MAP_READ_WRITE : NVBUF_MAP_READ) != 0) {
    failure_ = "NvBufSurfaceMap failed; put nvvidconv between";
  } else {
    surface_ = surface;
    // The camera wrote behind the processor's caches.
    if (!write && library.sync_for_processor(surface, 0, -1) != 0) failure_ = "NvBufSurfaceSyncForCpu failed";
  }
}

NvmmSurface::~NvmmSurface() {
  if (surface_ != nullptr) NvmmLibrary::get().unmap(static_cast<NvBufSurface *>(surface_), 0, -1);
  if (map_.data != nullptr) gst_buffer_unmap(buffer_, &map_);
}

std::string NvmmSurface::describe(uare_frame &view) const {
  if (!failure_.empty()) return failure_;
  const NvBufSurfaceParams &surface = static_cast<NvBufSurface *>(surface_)->surfaceList[0];
  if (surface.layout != NVBUF_LAYOUT_PITCH) return "the NVMM surface is tiled (block linear); put nvvidconv between";
  if (surface.width < view.width || surface.height < view.height) {
    return "the NVMM surface is " + std::to_string(surface.width) + "x" + std::to_string(surface.height) +
           ", smaller than its caps say";
  }
  for (guint i = 0; i < surface.planeParams.num_planes && i < 4; ++i) {
    view.plane[i] = surface.mappedAddr.addr[i];
    view.stride[i] = surface.planeParams.pitch[i];
  }
  return "";
}

std::string NvmmSurface::give_to_device() {
  const int done = NvmmLibrary::get().sync_for_device(static_cast<NvBufSurface *>(surface_), 0, -1);
  return done == 0 ? "" : "NvBufSurfaceSyncForDevice failed";
}
#else
namespace {
constexpr const char *kMissing = "NVMM memory is not built in";
}

NvmmSurface::NvmmSurface(GstBuffer *buffer, GstMapFlags) : buffer_(buffer), failure_(kMissing) {}
NvmmSurface::~NvmmSurface() = default;
std::string NvmmSurface::describe(uare_frame &) const { return failure_; }
std::string NvmmSurface::give_to_device() { return failure_; }
std::string new_nvmm_pool(GstQuery *, GstBufferPool **) { return kMissing; }
#endif

}  // namespace uare::gst
