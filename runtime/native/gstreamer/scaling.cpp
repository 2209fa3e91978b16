#include "scaling.hpp"

#include <gst/video/video.h>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace uare::gst {
namespace {

int multiplied(int side, int scale) {
  return static_cast<int>(std::min<std::int64_t>(std::int64_t{side} * scale, std::numeric_limits<int>::max()));
}

// The scaled counterpart of a size; FALSE where there is none.
bool scale_side(const GValue *side, bool up, int scale, GValue *result) {
  if (G_VALUE_HOLDS_INT(side)) {
    const int value = g_value_get_int(side);
    if (!up && value % scale != 0) return false;
    g_value_init(result, G_TYPE_INT);
    g_value_set_int(result, up ? multiplied(value, scale) : value / scale);
    return true;
  }
  if (GST_VALUE_HOLDS_INT_RANGE(side)) {
    const int low = gst_value_get_int_range_min(side), high = gst_value_get_int_range_max(side);
    const int first = up ? multiplied(low, scale) : low / scale + (low % scale != 0);
    const int last = up ? multiplied(high, scale) : high / scale;
    if (first > last) return false;
    g_value_init(result, first == last ? G_TYPE_INT : GST_TYPE_INT_RANGE);
    first == last ? g_value_set_int(result, first) : gst_value_set_int_range(result, first, last);
    return true;
  }
  if (!GST_VALUE_HOLDS_LIST(side)) return false;
  g_value_init(result, GST_TYPE_LIST);
  for (guint i = 0; i < gst_value_list_get_size(side); ++i) {
    GValue scaled = G_VALUE_INIT;
    if (scale_side(gst_value_list_get_value(side, i), up, scale, &scaled)) {
      gst_value_list_append_and_take_value(result, &scaled);
    }
  }
  if (gst_value_list_get_size(result) > 0) return true;
  g_value_unset(result);
  return false;
}

bool scale_field(GstStructure *structure, const char *field, bool up, int scale) {
  const GValue *side = gst_structure_get_value(structure, field);
  if (side == nullptr) return true;
  GValue scaled = G_VALUE_INIT;
  if (!scale_side(side, up, scale, &scaled)) return false;
  gst_structure_take_value(structure, field, &scaled);
  return true;
}

void state_colours(GstStructure *structure) {
  GstCaps *alone = gst_caps_new_full(gst_structure_copy(structure), nullptr);
  GstVideoInfo info;
  if (gst_caps_is_fixed(alone) && gst_video_info_from_caps(&info, alone) && GST_VIDEO_INFO_IS_YUV(&info)) {
    gchar *colours = gst_video_colorimetry_to_string(&info.colorimetry);
    if (colours != nullptr && !gst_structure_has_field(structure, "colorimetry")) {
      gst_structure_set(structure, "colorimetry", G_TYPE_STRING, colours, nullptr);
    }
    g_free(colours);
  }
  gst_caps_unref(alone);
}

}  // namespace

GstCaps *scaled_caps(const GstCaps *caps, GstPadDirection from, int scale) {
  GstCaps *result = gst_caps_new_empty();
  const bool up = from == GST_PAD_SINK;
  for (guint i = 0; i < gst_caps_get_size(caps); ++i) {
    GstStructure *structure = gst_structure_copy(gst_caps_get_structure(caps, i));
    if (up && scale > 1) state_colours(structure);
    if (scale_field(structure, "width", up, scale) && scale_field(structure, "height", up, scale)) {
      GstCapsFeatures *features = gst_caps_get_features(caps, i);
      gst_caps_append_structure_full(result, structure, gst_caps_features_copy(features));
    } else {
      gst_structure_free(structure);
    }
  }
  return result;
}

}  // namespace uare::gst
