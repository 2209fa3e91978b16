// libnvbufsurface, loaded when it is needed.
#pragma once

#include <nvbufsurface.h>

#include <string>

namespace uare::gst {

struct NvmmLibrary {
  decltype(&NvBufSurfaceCreate) create = nullptr;
  decltype(&NvBufSurfaceDestroy) destroy = nullptr;
  decltype(&NvBufSurfaceMap) map = nullptr;
  decltype(&NvBufSurfaceUnMap) unmap = nullptr;
  decltype(&NvBufSurfaceSyncForCpu) sync_for_processor = nullptr;
  decltype(&NvBufSurfaceSyncForDevice) sync_for_device = nullptr;
  std::string failure;  // why it cannot be used, or ""

  [[nodiscard]] static const NvmmLibrary &get();

 private:
  NvmmLibrary();
};

}  // namespace uare::gst
