/* uarerestore with NVMM input, over a stand-in of NVIDIA's library: caps, pixels, refusals. No Jetson is shown by it. */
#include <gst/check/gstharness.h>
#include <gst/video/video.h>
#include <nvbufsurface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                               \
    }                                                                           \
  } while (0)

enum { WIDTH = 64, HEIGHT = 48, PITCH = 256, PLANES = 2 };
#define NVMM_CAPS "video/x-raw(memory:NVMM),format=NV12,width=64,height=48,framerate=25/1"

static unsigned char pixels[PITCH * HEIGHT * 3 / 2];
static NvBufSurfaceParams params;
static NvBufSurface surface;

static GstBuffer *frame(guint filled, NvBufSurfaceLayout layout) {
  for (size_t i = 0; i < sizeof pixels; ++i) pixels[i] = (unsigned char)(i * 7 + i / PITCH);
  params = (NvBufSurfaceParams){.dataSize = sizeof pixels, .layout = layout, .dataPtr = pixels};
  params.planeParams.num_planes = PLANES;
  params.planeParams.pitch[0] = params.planeParams.pitch[1] = PITCH;
  params.planeParams.offset[1] = PITCH * HEIGHT;
  params.planeParams.psize[0] = PITCH * HEIGHT;
  params.planeParams.psize[1] = PITCH * HEIGHT / 2;
  surface = (NvBufSurface){.batchSize = 1, .numFilled = filled, .surfaceList = &params};
  GstBuffer *buffer = gst_buffer_new_wrapped_full(GST_MEMORY_FLAG_READONLY, &surface, sizeof surface, 0,
                                                  sizeof surface, NULL, NULL);
  GST_BUFFER_PTS(buffer) = 40 * GST_MSECOND;
  return buffer;
}

static void test_pixels_come_out_in_system_memory(guint scale) {
  gchar *line = g_strdup_printf("uarerestore backend=null scale=%u", scale);
  GstHarness *h = gst_harness_new_parse(line);
  g_free(line);
  gst_harness_set_src_caps_str(h, NVMM_CAPS);
  GstBuffer *out = gst_harness_push_and_pull(h, frame(1, NVBUF_LAYOUT_PITCH));
  GstCaps *caps = gst_pad_get_current_caps(h->sinkpad);
  GstVideoInfo info;
  GstVideoFrame view;
  CHECK(!gst_caps_features_contains(gst_caps_get_features(caps, 0), "memory:NVMM"));
  CHECK(gst_video_info_from_caps(&info, caps) && gst_video_frame_map(&view, &info, out, GST_MAP_READ));
  CHECK(info.width == (gint)(WIDTH * scale) && info.height == (gint)(HEIGHT * scale));
  for (guint plane = 0; plane < PLANES; ++plane) {
    const guint wide = plane == 0 ? WIDTH : WIDTH / 2, high = plane == 0 ? HEIGHT : HEIGHT / 2, bytes = plane + 1;
    const guint8 *data = GST_VIDEO_FRAME_PLANE_DATA(&view, plane);
    const size_t stride = (size_t)GST_VIDEO_FRAME_PLANE_STRIDE(&view, plane);
    for (guint y = 0; y < high * scale; ++y) {
      for (guint x = 0; x < wide * scale; ++x) {
        const unsigned char *expected = pixels + plane * PITCH * HEIGHT + y / scale * PITCH + x / scale * bytes;
        CHECK(memcmp(data + y * stride + x * bytes, expected, bytes) == 0);
      }
    }
  }
  CHECK(GST_BUFFER_PTS(out) == 40 * GST_MSECOND);
  CHECK(params.mappedAddr.addr[0] == NULL); /* given back */
  gst_video_frame_unmap(&view);
  gst_caps_unref(caps);
  gst_buffer_unref(out);
  gst_harness_teardown(h);
}

static void test_refused(guint filled, NvBufSurfaceLayout layout, const char *part) {
  GstHarness *h = gst_harness_new_parse("uarerestore backend=null");
  GstBus *bus = gst_bus_new();
  GstElement *element = gst_harness_find_element(h, "uarerestore");
  gst_element_set_bus(element, bus);
  gst_harness_set_src_caps_str(h, NVMM_CAPS);
  CHECK(gst_harness_push(h, frame(filled, layout)) == GST_FLOW_ERROR);
  GstMessage *message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  GError *error = NULL;
  CHECK(message != NULL);
  if (message != NULL) {
    gst_message_parse_error(message, &error, NULL);
    CHECK(strstr(error->message, part) != NULL);
    g_clear_error(&error);
    gst_message_unref(message);
  }
  CHECK(params.mappedAddr.addr[0] == NULL);
  gst_element_set_bus(element, NULL);
  gst_object_unref(element);
  gst_object_unref(bus);
  gst_harness_teardown(h);
}

static void test_system_memory_still_goes(void) {
  GstHarness *h = gst_harness_new_parse("uarerestore backend=null");
  gst_harness_set_src_caps_str(h, "video/x-raw,format=NV12,width=64,height=48,framerate=25/1");
  CHECK(gst_harness_push(h, gst_harness_create_buffer(h, WIDTH * HEIGHT * 3 / 2)) == GST_FLOW_OK);
  gst_harness_teardown(h);
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  test_pixels_come_out_in_system_memory(1);
  test_pixels_come_out_in_system_memory(2);
  test_refused(2, NVBUF_LAYOUT_PITCH, "no single surface");
  test_refused(1, NVBUF_LAYOUT_BLOCK_LINEAR, "tiled");
  test_system_memory_still_goes();
  gst_deinit();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
