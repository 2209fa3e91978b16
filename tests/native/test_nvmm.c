/* uarerestore with NVMM memory, over a stand-in of NVIDIA's library: caps, pixels, colours, refusals. It shows nothing
 * of a Jetson. */
#include <nvbufsurface.h>
#include <stdlib.h>
#include <string.h>

#include "pictures.h"

#define NVMM "video/x-raw(memory:NVMM)"
#define SYSTEM "video/x-raw"
#define SIZE ",width=64,height=48,framerate=25/1"

static GstVideoInfo info_of(const char *caps_text) {
  GstCaps *caps = gst_caps_from_string(caps_text);
  GstVideoInfo info;
  CHECK(gst_video_info_from_caps(&info, caps));
  gst_caps_unref(caps);
  return info;
}

static Picture on_device(const NvBufSurface *surface) {
  Picture picture = {{NULL}, {0}};
  const NvBufSurfacePlaneParams *planes = &surface->surfaceList->planeParams;
  for (guint i = 0; i < planes->num_planes; ++i) {
    picture.plane[i] = (guint8 *)surface->surfaceList->dataPtr + planes->offset[i];
    picture.stride[i] = planes->pitch[i];
  }
  return picture;
}

static void destroy(gpointer surface) { CHECK(NvBufSurfaceDestroy(surface) == 0); /* fails while it is mapped */ }

static GstBuffer *wrap(NvBufSurface *surface) {
  GstBuffer *buffer = gst_buffer_new_wrapped_full(GST_MEMORY_FLAG_READONLY, surface, sizeof *surface, 0,
                                                  sizeof *surface, surface, destroy);
  GST_BUFFER_PTS(buffer) = 40 * GST_MSECOND;
  return buffer;
}

/* What a camera gives: a surface with a picture, the format of which the plugin takes from the caps. */
static NvBufSurface *shot(NvBufSurfaceColorFormat format, const GstVideoInfo *info) {
  NvBufSurfaceCreateParams params = {.width = 64, .height = 48, .colorFormat = format, .memType = stand_in_memory};
  NvBufSurface *surface = NULL;
  CHECK(NvBufSurfaceCreate(&surface, 1, &params) == 0);
  surface->numFilled = 1;
  fill(info, on_device(surface), 1);
  return surface;
}

static NvBufSurface *surface_of(GstBuffer *buffer) {
  GstMapInfo map;
  CHECK(gst_buffer_map(buffer, &map, GST_MAP_READ) && map.size == sizeof(NvBufSurface));
  gst_buffer_unmap(buffer, &map);
  return (NvBufSurface *)map.data;
}

static void check_memory(GstHarness *h, const char *feature) {
  GstCaps *caps = gst_pad_get_current_caps(h->sinkpad);
  CHECK(caps != NULL);
  if (caps == NULL) return;
  const GstCapsFeatures *features = gst_caps_get_features(caps, 0);
  CHECK(feature == NULL ? gst_caps_features_is_equal(features, GST_CAPS_FEATURES_MEMORY_SYSTEM_MEMORY)
                        : gst_caps_features_contains(features, feature));
  gst_caps_unref(caps);
}

static void test_pixels_to_system_memory(guint scale) {
  const GstVideoInfo info = info_of(SYSTEM ",format=NV12" SIZE);
  GstHarness *h = restore_between(NVMM ",format=NV12" SIZE, SYSTEM, scale);
  NvBufSurface *camera = shot(NVBUF_COLOR_FORMAT_NV12, &info);
  GstBuffer *in = wrap(camera);
  GstBuffer *out = gst_harness_push_and_pull(h, gst_buffer_ref(in));
  check_memory(h, NULL);
  GstCaps *caps = gst_pad_get_current_caps(h->sinkpad);
  GstVideoInfo large;
  GstVideoFrame frame;
  CHECK(gst_video_info_from_caps(&large, caps) && gst_video_frame_map(&frame, &large, out, GST_MAP_READ));
  CHECK(large.width == (gint)(64 * scale) && large.height == (gint)(48 * scale));
  CHECK(repeated(&info, on_device(camera), picture_of(&frame), scale));
  CHECK(GST_BUFFER_PTS(out) == 40 * GST_MSECOND);
  gst_video_frame_unmap(&frame);
  gst_caps_unref(caps);
  gst_buffer_unref(out);
  gst_buffer_unref(in);
  gst_harness_teardown(h);
}

static void test_pixels_to_surfaces(const char *format, const char *colours, NvBufSurfaceColorFormat wanted) {
  gchar *in_caps = g_strdup_printf(NVMM ",format=%s,colorimetry=%s" SIZE, format, colours);
  const GstVideoInfo info = info_of(in_caps);
  /* The sink takes every memory: surfaces stay surfaces. */
  GstHarness *h = restore_between(in_caps, NVMM ";" SYSTEM, 2);
  NvBufSurface *camera = shot(wanted, &info);
  GstBuffer *in = wrap(camera);
  GstBuffer *out = gst_harness_push_and_pull(h, gst_buffer_ref(in));
  check_memory(h, "memory:NVMM");
  const NvBufSurface *surface = surface_of(out);
  CHECK(surface->numFilled == 1 && surface->surfaceList->mappedAddr.addr[0] == NULL); /* given back */
  CHECK(surface->surfaceList->width == 128 && surface->surfaceList->height == 96);
  CHECK(surface->surfaceList->colorFormat == wanted);
  CHECK(repeated(&info, on_device(camera), on_device(surface), 2));
  gst_buffer_unref(out);
  gst_buffer_unref(in);
  gst_harness_teardown(h);
  g_free(in_caps);
}

static void test_system_memory_to_surfaces(void) {
  const GstVideoInfo info = info_of(SYSTEM ",format=NV12" SIZE);
  GstHarness *h = restore_between(SYSTEM ",format=NV12" SIZE, NVMM, 1);
  GstBuffer *in = gst_harness_create_buffer(h, info.size);
  GstVideoFrame frame;
  CHECK(gst_video_frame_map(&frame, &info, in, GST_MAP_WRITE));
  fill(&info, picture_of(&frame), 5);
  gst_video_frame_unmap(&frame);
  GstBuffer *out = gst_harness_push_and_pull(h, gst_buffer_ref(in));
  check_memory(h, "memory:NVMM");
  CHECK(gst_video_frame_map(&frame, &info, in, GST_MAP_READ));
  CHECK(repeated(&info, picture_of(&frame), on_device(surface_of(out)), 1));
  gst_video_frame_unmap(&frame);
  gst_buffer_unref(out);
  gst_buffer_unref(in);
  gst_harness_teardown(h);
}

static void test_system_memory_stays_system_memory(void) {
  GstHarness *h = restore_between(SYSTEM ",format=NV12" SIZE, NVMM ";" SYSTEM, 1);
  CHECK(gst_harness_push(h, gst_harness_create_buffer(h, 64 * 48 * 3 / 2)) == GST_FLOW_OK);
  check_memory(h, NULL);
  gst_harness_teardown(h);
}

static void test_surfaces_are_used_again(void) {
  const GstVideoInfo info = info_of(SYSTEM ",format=NV12" SIZE);
  GstHarness *h = restore_between(NVMM ",format=NV12" SIZE, NVMM, 1);
  for (guint i = 0; i < 100; ++i) {
    gst_buffer_unref(gst_harness_push_and_pull(h, wrap(shot(NVBUF_COLOR_FORMAT_NV12, &info))));
    CHECK(stand_in_surfaces <= 2);
  }
  gst_harness_teardown(h);
}

static void test_the_other_kind_of_memory(void) {
  stand_in_memory = NVBUF_MEM_CUDA_UNIFIED;
  const GstVideoInfo info = info_of(SYSTEM ",format=NV12" SIZE);
  GstHarness *h = restore_between(NVMM ",format=NV12" SIZE, NVMM, 1);
  GstBuffer *out = gst_harness_push_and_pull(h, wrap(shot(NVBUF_COLOR_FORMAT_NV12, &info)));
  CHECK(surface_of(out)->memType == NVBUF_MEM_CUDA_UNIFIED);
  gst_buffer_unref(out);
  gst_harness_teardown(h);
  stand_in_memory = NVBUF_MEM_CUDA_DEVICE; /* which the processor cannot write */
  h = restore_between(NVMM ",format=NV12" SIZE, NVMM, 1);
  CHECK(gst_harness_push(h, wrap(shot(NVBUF_COLOR_FORMAT_NV12, &info))) == GST_FLOW_ERROR);
  gst_harness_teardown(h);
  stand_in_memory = NVBUF_MEM_SURFACE_ARRAY;
}

static void test_refused(void) {
  const GstVideoInfo info = info_of(SYSTEM ",format=NV12" SIZE);
  NvBufSurface *surface = shot(NVBUF_COLOR_FORMAT_NV12, &info);
  surface->numFilled = 2;
  check_refused(restore_between(NVMM ",format=NV12" SIZE, SYSTEM, 1), wrap(surface), "no single surface");
  surface = shot(NVBUF_COLOR_FORMAT_NV12, &info);
  surface->surfaceList->layout = NVBUF_LAYOUT_BLOCK_LINEAR;
  check_refused(restore_between(NVMM ",format=NV12" SIZE, SYSTEM, 1), wrap(surface), "tiled");
  surface = shot(NVBUF_COLOR_FORMAT_NV12, &info);
  check_refused(restore_between(NVMM ",format=NV12,width=64,height=50,framerate=25/1", SYSTEM, 1), wrap(surface),
                "64x48, smaller than its caps");
  const char *full = NVMM ",format=NV12,colorimetry=1:6:0:7" SIZE; /* BT.2020 in full range */
  check_refused(restore_between(full, NVMM, 1), wrap(shot(NVBUF_COLOR_FORMAT_NV12, &info)), "no NV12 with the colours");
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  test_pixels_to_system_memory(1);
  test_pixels_to_system_memory(2);
  test_pixels_to_surfaces("NV12", "bt601", NVBUF_COLOR_FORMAT_NV12);
  test_pixels_to_surfaces("NV12", "bt709", NVBUF_COLOR_FORMAT_NV12_709);
  test_pixels_to_surfaces("NV12", "1:4:0:0", NVBUF_COLOR_FORMAT_NV12_ER); /* BT.601 in full range */
  test_pixels_to_surfaces("I420", "bt709", NVBUF_COLOR_FORMAT_YUV420_709);
  test_pixels_to_surfaces("P010_10LE", "bt2020", NVBUF_COLOR_FORMAT_NV12_10LE_2020);
  test_pixels_to_surfaces("RGBA", "sRGB", NVBUF_COLOR_FORMAT_RGBA);
  test_system_memory_to_surfaces();
  test_system_memory_stays_system_memory();
  test_surfaces_are_used_again();
  test_the_other_kind_of_memory();
  test_refused();
  CHECK(stand_in_surfaces == 0);
  gst_deinit();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
