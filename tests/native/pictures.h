/* Pictures in memory of a device: filled with a pattern, and compared with one whose pixels are repeated. */
#pragma once

#include <gst/check/gstharness.h>
#include <gst/video/video.h>

#include "check.h"

typedef struct {
  guint8 *plane[GST_VIDEO_MAX_PLANES];
  size_t stride[GST_VIDEO_MAX_PLANES];
} Picture;

static inline guint plane_rows(const GstVideoInfo *info, guint plane) {
  return (guint)GST_VIDEO_FORMAT_INFO_SCALE_HEIGHT(info->finfo, plane, info->height);
}

static inline guint plane_columns(const GstVideoInfo *info, guint plane) {
  return (guint)GST_VIDEO_FORMAT_INFO_SCALE_WIDTH(info->finfo, plane, info->width);
}

/* Of formats whose component `plane` is the first one in that plane: all that the elements take. */
static inline guint pixel_bytes(const GstVideoInfo *info, guint plane) {
  return (guint)GST_VIDEO_FORMAT_INFO_PSTRIDE(info->finfo, plane);
}

static inline void fill(const GstVideoInfo *info, Picture picture, guint seed) {
  const gboolean ten_bits = GST_VIDEO_INFO_FORMAT(info) == GST_VIDEO_FORMAT_P010_10LE;
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(info); ++plane) {
    const guint bytes = plane_columns(info, plane) * pixel_bytes(info, plane);
    for (guint y = 0; y < plane_rows(info, plane); ++y) {
      guint8 *row = picture.plane[plane] + y * picture.stride[plane];
      for (guint i = 0; i < bytes; ++i) {
        row[i] = (guint8)(i * 7 + y * 3 + plane * 50 + seed);
        if (ten_bits && i % 2 == 0) row[i] &= 0xC0;
      }
    }
  }
}

/* Whether `large` is `small`, a picture of `info`, with every pixel repeated `scale` times in both directions. */
static inline gboolean repeated(const GstVideoInfo *info, Picture small, Picture large, guint scale) {
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(info); ++plane) {
    const guint bytes = pixel_bytes(info, plane);
    for (guint y = 0; y < plane_rows(info, plane) * scale; ++y) {
      for (guint x = 0; x < plane_columns(info, plane) * scale; ++x) {
        const guint8 *wanted = small.plane[plane] + y / scale * small.stride[plane] + x / scale * bytes;
        if (memcmp(large.plane[plane] + y * large.stride[plane] + x * bytes, wanted, bytes) != 0) return FALSE;
      }
    }
  }
  return TRUE;
}

/* Where a mapped frame's pixels are. */
static inline Picture picture_of(const GstVideoFrame *frame) {
  Picture picture = {{NULL}, {0}};
  for (guint i = 0; i < GST_VIDEO_FRAME_N_PLANES(frame); ++i) {
    picture.plane[i] = GST_VIDEO_FRAME_PLANE_DATA(frame, i);
    picture.stride[i] = (size_t)GST_VIDEO_FRAME_PLANE_STRIDE(frame, i);
  }
  return picture;
}

/* uarerestore without an engine, before caps that it has to reach; nothing is negotiated yet. */
static inline GstHarness *restore_to(const char *out_caps, guint scale) {
  gchar *line = g_strdup_printf("uarerestore backend=null scale=%u", scale);
  GstHarness *h = gst_harness_new_parse(line);
  g_free(line);
  gst_harness_set_sink_caps_str(h, out_caps);
  return h;
}

static inline GstHarness *restore_between(const char *in_caps, const char *out_caps, guint scale) {
  GstHarness *h = restore_to(out_caps, scale);
  gst_harness_set_src_caps_str(h, in_caps);
  return h;
}

/* Pushes a buffer that must end the stream with an error whose message has `part` in it. */
static inline void check_refused(GstHarness *h, GstBuffer *buffer, const char *part) {
  GstBus *bus = gst_bus_new();
  GstElement *element = gst_harness_find_element(h, "uarerestore");
  gst_element_set_bus(element, bus);
  CHECK(gst_harness_push(h, buffer) != GST_FLOW_OK);
  GstMessage *message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  CHECK(message != NULL);
  if (message != NULL) {
    GError *error = NULL;
    gst_message_parse_error(message, &error, NULL);
    if (strstr(error->message, part) == NULL) fprintf(stderr, "the message is: %s\n", error->message);
    CHECK(strstr(error->message, part) != NULL);
    g_clear_error(&error);
    gst_message_unref(message);
  }
  gst_element_set_bus(element, NULL);
  gst_object_unref(element);
  gst_object_unref(bus);
  gst_harness_teardown(h);
}
