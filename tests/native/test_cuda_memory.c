/* uarerestore with CUDA memory, over a stand-in of GStreamer's CUDA library: caps, pixels, pools, contexts, refusals.
 * It shows nothing of a GPU. "test_cuda_memory no-driver" is a machine without one. */
#include <gstcuda.h>
#include <stdlib.h>
#include <string.h>

#include "pictures.h"

#define CUDA "video/x-raw(memory:CUDAMemory)"
#define SYSTEM "video/x-raw"
#define NV12 ",format=NV12,width=64,height=48,framerate=25/1"

static GstBufferPool *pool_for(GstCudaContext *context, const char *caps_text) {
  GstBufferPool *pool = gst_cuda_buffer_pool_new(context);
  GstStructure *config = gst_buffer_pool_get_config(pool);
  GstCaps *caps = gst_caps_from_string(caps_text);
  gst_buffer_pool_config_set_params(config, caps, 0, 0, 0);
  gst_caps_unref(caps);
  CHECK(gst_buffer_pool_set_config(pool, config) && gst_buffer_pool_set_active(pool, TRUE));
  return pool;
}

static void map_device(GstVideoFrame *frame, const char *caps_text, GstBuffer *buffer, GstMapFlags access) {
  GstCaps *caps = gst_caps_from_string(caps_text);
  GstVideoInfo info;
  CHECK(gst_video_info_from_caps(&info, caps));
  CHECK(gst_video_frame_map(frame, &info, buffer, (GstMapFlags)(access | GST_MAP_CUDA)));
  gst_caps_unref(caps);
}

/* What a decoder gives: a picture that only the device has. */
static GstBuffer *shot(GstBufferPool *pool, const char *caps) {
  GstBuffer *buffer = NULL;
  GstVideoFrame frame;
  CHECK(gst_buffer_pool_acquire_buffer(pool, &buffer, NULL) == GST_FLOW_OK);
  map_device(&frame, caps, buffer, GST_MAP_WRITE);
  fill(&frame.info, picture_of(&frame), 3);
  gst_video_frame_unmap(&frame);
  GST_BUFFER_PTS(buffer) = 40 * GST_MSECOND;
  return buffer;
}

static void drop(GstBufferPool *pool) {
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
}

static void test_pixels(const char *format, guint scale) {
  gchar *in_caps = g_strdup_printf(CUDA ",format=%s,width=64,height=48,framerate=25/1", format);
  gchar *out_caps =
      g_strdup_printf(CUDA ",format=%s,width=%u,height=%u,framerate=25/1", format, 64 * scale, 48 * scale);
  GstCudaContext *context = gst_cuda_context_new(0);
  GstBufferPool *pool = pool_for(context, in_caps);
  GstHarness *h = restore_between(in_caps, CUDA ";" SYSTEM, scale);
  GstBuffer *in = shot(pool, in_caps);
  stand_in_uploads = stand_in_downloads = 0;
  GstBuffer *out = gst_harness_push_and_pull(h, gst_buffer_ref(in));
  CHECK(stand_in_downloads == 2 && stand_in_uploads == 0); /* the second is the library's, of a buffer's first map */
  GstVideoFrame small, large;
  map_device(&small, in_caps, in, GST_MAP_READ);
  map_device(&large, out_caps, out, GST_MAP_READ);
  CHECK(stand_in_uploads == 1);
  CHECK(repeated(&small.info, picture_of(&small), picture_of(&large), scale));
  CHECK(GST_BUFFER_PTS(out) == 40 * GST_MSECOND);
  gst_video_frame_unmap(&small);
  gst_video_frame_unmap(&large);
  gst_buffer_unref(in);
  gst_buffer_unref(out);
  gst_harness_teardown(h);
  drop(pool);
  gst_object_unref(context);
  g_free(in_caps);
  g_free(out_caps);
}

static void test_to_and_from_system_memory(void) {
  GstCudaContext *context = gst_cuda_context_new(0);
  GstBufferPool *pool = pool_for(context, CUDA NV12);
  GstHarness *down = restore_between(CUDA NV12, SYSTEM, 1), *up = restore_between(SYSTEM NV12, CUDA, 1);
  GstBuffer *first = shot(pool, CUDA NV12);
  GstBuffer *middle = gst_harness_push_and_pull(down, gst_buffer_ref(first));
  GstBuffer *last = gst_harness_push_and_pull(up, gst_buffer_ref(middle));
  CHECK(!gst_memory_is_type(gst_buffer_peek_memory(middle, 0), "CUDAMemory"));
  CHECK(gst_memory_is_type(gst_buffer_peek_memory(last, 0), "CUDAMemory"));
  GstVideoFrame before, after;
  map_device(&before, CUDA NV12, first, GST_MAP_READ);
  map_device(&after, CUDA NV12, last, GST_MAP_READ);
  CHECK(repeated(&before.info, picture_of(&before), picture_of(&after), 1));
  gst_video_frame_unmap(&before);
  gst_video_frame_unmap(&after);
  gst_buffer_unref(first);
  gst_buffer_unref(middle);
  gst_buffer_unref(last);
  gst_harness_teardown(down);
  gst_harness_teardown(up);
  drop(pool);
  gst_object_unref(context);
}

static void test_the_context_is_shared(void) {
  GstCudaContext *context = gst_cuda_context_new(0);
  GstHarness *h = restore_to(CUDA, 1);
  GstElement *element = gst_harness_find_element(h, "uarerestore");
  GstContext *carrier = gst_context_new_cuda_context(context);
  gst_element_set_context(element, carrier); /* as the bin or the application does */
  gst_context_unref(carrier);
  gst_harness_set_src_caps_str(h, SYSTEM NV12);
  GstBuffer *out = gst_harness_push_and_pull(h, gst_harness_create_buffer(h, 64 * 48 * 3 / 2));
  CHECK(stand_in_context(out) == context);
  GstQuery *query = gst_query_new_context(GST_CUDA_CONTEXT_TYPE); /* as a neighbour does */
  GstContext *answer = NULL;
  CHECK(gst_pad_peer_query(h->sinkpad, query));
  gst_query_parse_context(query, &answer);
  GstCudaContext *told = NULL;
  CHECK(answer != NULL && gst_cuda_handle_set_context(element, answer, -1, &told) && told == context);
  gst_object_unref(told);
  gst_query_unref(query);
  gst_buffer_unref(out);
  gst_object_unref(element);
  gst_harness_teardown(h);
  CHECK(GST_OBJECT_REFCOUNT_VALUE(context) == 1);
  gst_object_unref(context);
}

static GstBufferPool *offered = NULL;
static GstPadQueryFunction others = NULL;

static gboolean offer(GstPad *pad, GstObject *parent, GstQuery *query) {
  if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION) return others(pad, parent, query);
  gst_query_add_allocation_pool(query, offered, 0, 0, 0);
  return TRUE;
}

/* A pool of CUDA memory that an encoder offers is taken, one of anything else is not. */
static void test_the_pool_of_downstream(gboolean cuda) {
  GstCudaContext *context = gst_cuda_context_new(0);
  offered = cuda ? gst_cuda_buffer_pool_new(context) : gst_video_buffer_pool_new();
  GstHarness *h = restore_to(CUDA, 1);
  others = GST_PAD_QUERYFUNC(h->sinkpad);
  gst_pad_set_query_function(h->sinkpad, offer);
  gst_harness_set_src_caps_str(h, SYSTEM NV12);
  GstBuffer *out = gst_harness_push_and_pull(h, gst_harness_create_buffer(h, 64 * 48 * 3 / 2));
  CHECK(gst_memory_is_type(gst_buffer_peek_memory(out, 0), "CUDAMemory"));
  CHECK((stand_in_context(out) == context) == cuda);
  gst_buffer_unref(out);
  gst_harness_teardown(h);
  gst_clear_object(&offered);
  gst_object_unref(context);
}

static void test_without_a_driver(void) {
  stand_in_driver = FALSE;
  GstHarness *h = restore_between(SYSTEM NV12, CUDA, 1);
  check_refused(h, gst_harness_create_buffer(h, 64 * 48 * 3 / 2), "no CUDA driver");
  h = restore_between(SYSTEM NV12, SYSTEM, 1);
  CHECK(gst_harness_push(h, gst_harness_create_buffer(h, 64 * 48 * 3 / 2)) == GST_FLOW_OK);
  gst_harness_teardown(h);
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  if (argc == 2 && strcmp(argv[1], "no-driver") == 0) {
    test_without_a_driver();
  } else {
    const char *formats[] = {"NV12", "I420", "P010_10LE", "RGB", "RGBA"};
    for (guint i = 0; i < G_N_ELEMENTS(formats); ++i) test_pixels(formats[i], i % 2 + 1);
    test_to_and_from_system_memory();
    test_the_context_is_shared();
    test_the_pool_of_downstream(TRUE);
    test_the_pool_of_downstream(FALSE);
  }
  gst_deinit();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
