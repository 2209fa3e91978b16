// A pool of NVMM surfaces that the processor can write. Not run on a Jetson yet; see nvmm.cpp.
#include <gst/video/video.h>

#include <array>

#include "nvmm.hpp"
#include "nvmm_library.hpp"
#include "video.hpp"

struct UareNvmmPool {
  GstBufferPool parent;
  NvBufSurfaceCreateParams params;
};

struct UareNvmmPoolClass {
  GstBufferPoolClass parent;
};

G_DEFINE_TYPE(UareNvmmPool, uare_nvmm_pool, GST_TYPE_BUFFER_POOL)

namespace uare::gst {
namespace {

// A surface's format says its matrix and range too; there is none of BT.2020 in full range.
struct Formats {
  GstVideoFormat format;
  NvBufSurfaceColorFormat bt601, bt601_full, bt709, bt709_full, bt2020;
};

constexpr std::array<Formats, 3> kFormats = {{
    {GST_VIDEO_FORMAT_I420, NVBUF_COLOR_FORMAT_YUV420, NVBUF_COLOR_FORMAT_YUV420_ER, NVBUF_COLOR_FORMAT_YUV420_709,
     NVBUF_COLOR_FORMAT_YUV420_709_ER, NVBUF_COLOR_FORMAT_YUV420_2020},
    {GST_VIDEO_FORMAT_NV12, NVBUF_COLOR_FORMAT_NV12, NVBUF_COLOR_FORMAT_NV12_ER, NVBUF_COLOR_FORMAT_NV12_709,
     NVBUF_COLOR_FORMAT_NV12_709_ER, NVBUF_COLOR_FORMAT_NV12_2020},
    {GST_VIDEO_FORMAT_P010_10LE, NVBUF_COLOR_FORMAT_NV12_10LE, NVBUF_COLOR_FORMAT_NV12_10LE_ER,
     NVBUF_COLOR_FORMAT_NV12_10LE_709, NVBUF_COLOR_FORMAT_NV12_10LE_709_ER, NVBUF_COLOR_FORMAT_NV12_10LE_2020},
}};

NvBufSurfaceColorFormat format_of(const GstVideoInfo &info) {
  if (GST_VIDEO_INFO_FORMAT(&info) == GST_VIDEO_FORMAT_RGBA) return NVBUF_COLOR_FORMAT_RGBA;
  const uare_frame view = view_of(info);
  const bool full = view.range == UARE_RANGE_FULL;
  for (const Formats &each : kFormats) {
    if (each.format != GST_VIDEO_INFO_FORMAT(&info)) continue;
    if (view.matrix == UARE_MATRIX_BT2020) return full ? NVBUF_COLOR_FORMAT_INVALID : each.bt2020;
    if (view.matrix == UARE_MATRIX_BT709) return full ? each.bt709_full : each.bt709;
    return full ? each.bt601_full : each.bt601;
  }
  return NVBUF_COLOR_FORMAT_INVALID;
}

void destroy_surface(gpointer surface) { NvmmLibrary::get().destroy(static_cast<NvBufSurface *>(surface)); }

// A buffer's bytes are the description of its surface, whatever size of picture was asked for.
gboolean set_config(GstBufferPool *pool, GstStructure *config) {
  GstCaps *caps = nullptr;
  guint least = 0, most = 0;
  if (!gst_buffer_pool_config_get_params(config, &caps, nullptr, &least, &most)) return FALSE;
  gst_buffer_pool_config_set_params(config, caps, sizeof(NvBufSurface), least, most);
  return GST_BUFFER_POOL_CLASS(uare_nvmm_pool_parent_class)->set_config(pool, config);
}

GstFlowReturn alloc_buffer(GstBufferPool *pool, GstBuffer **buffer, GstBufferPoolAcquireParams *) {
  NvBufSurfaceCreateParams &params = reinterpret_cast<UareNvmmPool *>(pool)->params;
  NvBufSurface *surface = nullptr;
  // The processor can write the first kind on Jetson, the second on other machines with a GPU.
  for (const NvBufSurfaceMemType kind : {NVBUF_MEM_SURFACE_ARRAY, NVBUF_MEM_CUDA_UNIFIED}) {
    params.memType = kind;
    if (NvmmLibrary::get().create(&surface, 1, &params) == 0) break;
    surface = nullptr;
  }
  if (surface == nullptr) {
    GST_ERROR_OBJECT(pool, "NvBufSurfaceCreate failed for %ux%u", params.width, params.height);
    return GST_FLOW_ERROR;
  }
  surface->numFilled = 1;
  *buffer = gst_buffer_new_wrapped_full(static_cast<GstMemoryFlags>(0), surface, sizeof *surface, 0, sizeof *surface,
                                        surface, destroy_surface);
  return GST_FLOW_OK;
}

}  // namespace

std::string new_nvmm_pool(GstQuery *query, GstBufferPool **pool) {
  if (!NvmmLibrary::get().failure.empty()) return NvmmLibrary::get().failure;
  GstCaps *caps = nullptr;
  GstVideoInfo info;
  gst_query_parse_allocation(query, &caps, nullptr);
  if (caps == nullptr || !gst_video_info_from_caps(&info, caps)) return "no NVMM surface can be made without caps";
  NvBufSurfaceCreateParams params = {};
  params.width = static_cast<uint32_t>(GST_VIDEO_INFO_WIDTH(&info));
  params.height = static_cast<uint32_t>(GST_VIDEO_INFO_HEIGHT(&info));
  params.colorFormat = format_of(info);
  params.layout = NVBUF_LAYOUT_PITCH;
  if (params.colorFormat == NVBUF_COLOR_FORMAT_INVALID) {
    gchar *colours = gst_video_colorimetry_to_string(&info.colorimetry);
    const std::string failure = std::string("NVMM memory has no ") +
                                gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(&info)) + " with the colours " +
                                (colours != nullptr ? colours : "of this video") + "; put nvvidconv between";
    g_free(colours);
    return failure;
  }
  auto *made = static_cast<UareNvmmPool *>(g_object_new(uare_nvmm_pool_get_type(), nullptr));
  gst_object_ref_sink(made);
  made->params = params;
  *pool = GST_BUFFER_POOL(made);
  return "";
}

}  // namespace uare::gst

static void uare_nvmm_pool_init(UareNvmmPool *) {}

static void uare_nvmm_pool_class_init(UareNvmmPoolClass *klass) {
  klass->parent.set_config = uare::gst::set_config;
  klass->parent.alloc_buffer = uare::gst::alloc_buffer;
}
