#include "video.hpp"

namespace uare::gst {
namespace {

uare_format format_of(GstVideoFormat format) {
  switch (format) {
    case GST_VIDEO_FORMAT_NV12:
      return UARE_FORMAT_NV12;
    case GST_VIDEO_FORMAT_I420:
      return UARE_FORMAT_I420;
    case GST_VIDEO_FORMAT_P010_10LE:
      return UARE_FORMAT_P010;
    case GST_VIDEO_FORMAT_RGBA:
      return UARE_FORMAT_RGBA;
    default:
      return UARE_FORMAT_RGB24;
  }
}

uare_siting siting_of(GstVideoChromaSite site) {
  if (site == GST_VIDEO_CHROMA_SITE_NONE) return UARE_SITING_CENTRE;
  if ((site & GST_VIDEO_CHROMA_SITE_COSITED) == GST_VIDEO_CHROMA_SITE_COSITED) return UARE_SITING_TOP_LEFT;
  return UARE_SITING_LEFT;
}

uare_matrix matrix_of(GstVideoColorMatrix matrix) {
  switch (matrix) {
    case GST_VIDEO_COLOR_MATRIX_BT601:
      return UARE_MATRIX_BT601;
    case GST_VIDEO_COLOR_MATRIX_BT709:
      return UARE_MATRIX_BT709;
    case GST_VIDEO_COLOR_MATRIX_BT2020:
      return UARE_MATRIX_BT2020;
    default:
      return UARE_MATRIX_GUESS;
  }
}

void set_fields(GstStructure *structure, const uare_assessment &verdict) {
  gst_structure_set(structure, "score", G_TYPE_DOUBLE, double{verdict.score}, "noise", G_TYPE_DOUBLE,
                    double{verdict.noise}, "blur", G_TYPE_DOUBLE, double{verdict.blur}, "compression", G_TYPE_DOUBLE,
                    double{verdict.compression}, "low-resolution", G_TYPE_DOUBLE, double{verdict.low_resolution},
                    "low-light", G_TYPE_DOUBLE, double{verdict.low_light}, "haze", G_TYPE_DOUBLE,
                    double{verdict.haze}, "description", G_TYPE_STRING, verdict.description, nullptr);
}

}  // namespace

void register_meta() {
  static const gchar *tags[] = {nullptr};
  if (gst_meta_get_info(kMetaName) == nullptr) gst_meta_register_custom(kMetaName, tags, nullptr, nullptr, nullptr);
}

std::string last_message() {
  uare_error error = {sizeof error, UARE_OK, ""};
  uare_last_error(&error);
  return error.message;
}

uare_session *open_session(GstElement *element, const SessionSettings &settings) {
  std::vector<const char *> texts;
  for (const std::string &option : settings.options) texts.push_back(option.c_str());
  const char *bundle = settings.bundle ? settings.bundle->c_str() : nullptr;
  uare_session *session = nullptr;
  if (uare_open(bundle, texts.data(), texts.size(), &session) != UARE_OK) {
    GST_ELEMENT_ERROR(element, LIBRARY, INIT, ("%s", last_message().c_str()), (nullptr));
  }
  return session;
}

bool supported(const GstVideoInfo &info, std::string *reason) {
  const GstVideoInterlaceMode mode = GST_VIDEO_INFO_INTERLACE_MODE(&info);
  if (mode != GST_VIDEO_INTERLACE_MODE_PROGRESSIVE && mode != GST_VIDEO_INTERLACE_MODE_MIXED) {
    *reason = "video is interlaced (" + std::string(gst_video_interlace_mode_to_string(mode)) +
              "), which is not restored well as it is; put deinterlace before this element";
    return false;
  }
  const GstVideoColorMatrix matrix = info.colorimetry.matrix;
  if (!GST_VIDEO_INFO_IS_YUV(&info) || matrix == GST_VIDEO_COLOR_MATRIX_UNKNOWN ||
      matrix_of(matrix) != UARE_MATRIX_GUESS) {
    return true;
  }
  *reason = "colour matrix " + std::to_string(matrix) + " has no conversion here: BT.601, BT.709 and BT.2020 have; " +
            "put videoconvert before this element";
  return false;
}

uare_frame view_of(const GstVideoInfo &info) {
  uare_frame view = {};
  view.struct_size = sizeof view;
  view.format = format_of(GST_VIDEO_INFO_FORMAT(&info));
  view.width = static_cast<uint32_t>(GST_VIDEO_INFO_WIDTH(&info));
  view.height = static_cast<uint32_t>(GST_VIDEO_INFO_HEIGHT(&info));
  if (GST_VIDEO_INFO_IS_YUV(&info)) {
    view.matrix = matrix_of(info.colorimetry.matrix);
    view.range = info.colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255 ? UARE_RANGE_FULL : UARE_RANGE_LIMITED;
    view.siting = siting_of(info.chroma_site);
  }
  return view;
}

uare_frame view_of(const GstVideoFrame *frame) {
  uare_frame view = view_of(frame->info);
  for (guint i = 0; i < GST_VIDEO_FRAME_N_PLANES(frame); ++i) {
    view.plane[i] = GST_VIDEO_FRAME_PLANE_DATA(frame, i);
    view.stride[i] = static_cast<size_t>(GST_VIDEO_FRAME_PLANE_STRIDE(frame, i));
  }
  return view;
}

void post_verdict(GstElement *element, const uare_assessment &verdict, GstClockTime pts, GstClockTime running_time) {
  GstStructure *structure = gst_structure_new("uare-assessment", "pts", G_TYPE_UINT64, pts, "running-time",
                                              G_TYPE_UINT64, running_time, nullptr);
  set_fields(structure, verdict);
  gst_element_post_message(element, gst_message_new_element(GST_OBJECT(element), structure));
}

void attach_verdict(GstBuffer *buffer, const uare_assessment &verdict) {
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, kMetaName);
  if (meta == nullptr) meta = gst_buffer_add_custom_meta(buffer, kMetaName);
  set_fields(gst_custom_meta_get_structure(meta), verdict);
}

}  // namespace uare::gst
