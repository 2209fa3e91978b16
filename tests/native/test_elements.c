/* uarerestore and uareassess in GstHarness: what a pipeline relies on, over the null engine. */
#include <gst/check/gstharness.h>
#include <gst/video/video.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static GstHarness *restore(const char *properties, const char *caps) {
  gchar *line = g_strdup_printf("uarerestore backend=null %s", properties);
  GstHarness *harness = gst_harness_new_parse(line);
  g_free(line);
  if (caps != NULL) gst_harness_set_src_caps_str(harness, caps);
  return harness;
}

static GstBuffer *picture(GstHarness *harness, gsize size, guint64 index) {
  GstBuffer *buffer = gst_harness_create_buffer(harness, size);
  gst_buffer_memset(buffer, 0, (guint8)index, size);
  GST_BUFFER_PTS(buffer) = index * 40 * GST_MSECOND;
  GST_BUFFER_DURATION(buffer) = 40 * GST_MSECOND;
  GST_BUFFER_OFFSET(buffer) = index;
  return buffer;
}

#define NV12_64x48 "video/x-raw,format=NV12,width=64,height=48,framerate=25/1,colorimetry=bt709,chroma-site=mpeg2"
#define NV12_SIZE (64 * 48 * 3 / 2)

static void test_caps(void) {
  const char *formats[] = {"NV12", "I420", "P010_10LE", "RGB", "RGBA"};
  for (guint i = 0; i < G_N_ELEMENTS(formats); ++i) {
    gchar *caps = g_strdup_printf("video/x-raw,format=%s,width=64,height=48,framerate=25/1", formats[i]);
    GstHarness *h = restore("scale=2", caps);
    g_free(caps);
    GstVideoInfo info;
    GstCaps *in = gst_pad_get_current_caps(GST_PAD_PEER(h->srcpad));
    CHECK(in != NULL && gst_video_info_from_caps(&info, in));
    CHECK(gst_harness_push(h, picture(h, info.size, 1)) == GST_FLOW_OK);
    GstCaps *out = gst_pad_get_current_caps(h->sinkpad);
    GstVideoInfo large;
    CHECK(out != NULL && gst_video_info_from_caps(&large, out));
    CHECK(large.width == 128 && large.height == 96 && GST_VIDEO_INFO_FORMAT(&large) == GST_VIDEO_INFO_FORMAT(&info));
    CHECK(gst_video_colorimetry_is_equal(&large.colorimetry, &info.colorimetry));
    gst_caps_unref(in);
    gst_caps_unref(out);
    gst_harness_teardown(h);
  }
}

static void test_caps_that_cannot_be_met(void) {
  GstHarness *h = restore("scale=2", NULL);
  gst_harness_set_sink_caps_str(h, "video/x-raw,format=NV12,width=99,height=100");
  gst_harness_set_src_caps_str(h, NV12_64x48);
  CHECK(gst_harness_push(h, picture(h, NV12_SIZE, 0)) == GST_FLOW_NOT_NEGOTIATED);
  gst_harness_teardown(h);
  h = restore("", "video/x-raw,format=GRAY8,width=64,height=48,framerate=25/1");
  CHECK(gst_harness_push(h, picture(h, 64 * 48, 0)) == GST_FLOW_NOT_NEGOTIATED);
  gst_harness_teardown(h);
  h = restore("", "video/x-raw,format=NV12,width=64,height=48,framerate=25/1,interlace-mode=interleaved");
  CHECK(gst_harness_push(h, picture(h, NV12_SIZE, 0)) == GST_FLOW_NOT_NEGOTIATED);
  gst_harness_teardown(h);
}

static void test_a_small_size_keeps_its_matrix_when_enlarged(void) {
  GstHarness *h = restore("scale=2", "video/x-raw,format=NV12,width=640,height=360,framerate=25/1");
  CHECK(gst_harness_push(h, picture(h, 640 * 360 * 3 / 2, 0)) == GST_FLOW_OK);
  GstCaps *out = gst_pad_get_current_caps(h->sinkpad);
  GstVideoInfo info;
  CHECK(gst_video_info_from_caps(&info, out) && info.colorimetry.matrix == GST_VIDEO_COLOR_MATRIX_BT601);
  gst_caps_unref(out);
  gst_harness_teardown(h);
}

static void test_times_flags_and_metas_are_kept(void) {
  GstHarness *h = restore("scale=2", NV12_64x48);
  GstBuffer *in = picture(h, NV12_SIZE, 7);
  GST_BUFFER_FLAG_SET(in, GST_BUFFER_FLAG_DISCONT | GST_BUFFER_FLAG_MARKER);
  gst_buffer_add_video_region_of_interest_meta(in, "face", 4, 6, 8, 10);
  GstCaps *reference = gst_caps_new_empty_simple("timestamp/x-unix");
  gst_buffer_add_reference_timestamp_meta(in, reference, 5, 6);
  gst_caps_unref(reference);
  GstBuffer *out = gst_harness_push_and_pull(h, in);
  CHECK(GST_BUFFER_PTS(out) == 280 * GST_MSECOND && GST_BUFFER_DURATION(out) == 40 * GST_MSECOND);
  CHECK(GST_BUFFER_FLAG_IS_SET(out, GST_BUFFER_FLAG_MARKER) && GST_BUFFER_FLAG_IS_SET(out, GST_BUFFER_FLAG_DISCONT));
  CHECK(gst_buffer_get_reference_timestamp_meta(out, NULL) != NULL);
  GstVideoRegionOfInterestMeta *region = 
      (GstVideoRegionOfInterestMeta *)gst_buffer_get_meta(out, GST_VIDEO_REGION_OF_INTEREST_META_API_TYPE);
  CHECK(region != NULL && region->x == 8 && region->y == 12 && region->w == 16 && region->h == 20);
  gst_buffer_unref(out);
  gst_harness_teardown(h);
}

static void test_latency(void) {
  GstHarness *h = restore("", NV12_64x48);
  gst_harness_set_upstream_latency(h, 10 * GST_MSECOND);
  gst_harness_push(h, picture(h, NV12_SIZE, 0));
  CHECK(gst_harness_query_latency(h) == 50 * GST_MSECOND); /* one frame */
  GstElement *element = gst_harness_find_element(h, "uarerestore");
  g_object_set(element, "max-latency", 25, NULL);
  CHECK(gst_harness_query_latency(h) == 35 * GST_MSECOND);
  gst_object_unref(element);
  gst_harness_teardown(h);
}

static guint64 statistic(GstHarness *h, const char *name) {
  GstElement *element = gst_harness_find_element(h, "uarerestore");
  GstStructure *stats = NULL;
  guint64 value = G_MAXUINT64;
  g_object_get(element, "stats", &stats, NULL);
  CHECK(stats != NULL && gst_structure_get_uint64(stats, name, &value));
  gst_structure_free(stats);
  gst_object_unref(element);
  return value;
}

static void test_late_frames_pass_through(void) {
  GstHarness *h = restore("", NV12_64x48);
  gst_harness_push(h, picture(h, NV12_SIZE, 0));
  gst_harness_push_upstream_event(h, gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 2.0, 100 * GST_MSECOND, 0));
  for (guint64 i = 1; i < 6; ++i) CHECK(gst_harness_push(h, picture(h, NV12_SIZE, i)) == GST_FLOW_OK);
  CHECK(gst_harness_buffers_received(h) == 6);     /* none is dropped */
  CHECK(statistic(h, "passed-through") == 3);      /* 40, 80, 120 ms are before 100 + 40 ms */
  CHECK(statistic(h, "frames") == 6);
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  CHECK(gst_harness_push(h, picture(h, NV12_SIZE, 1)) == GST_FLOW_OK); /* forgotten with the flush */
  CHECK(statistic(h, "passed-through") == 3);
  gst_harness_teardown(h);
}

static void test_old_frames_of_a_live_source_pass_through(void) {
  GstHarness *h = restore("max-latency=100", NV12_64x48);
  gst_harness_use_testclock(h);
  gst_harness_push(h, picture(h, NV12_SIZE, 0));
  gst_harness_set_time(h, 200 * GST_MSECOND);
  gst_harness_push(h, picture(h, NV12_SIZE, 2)); /* 120 ms old */
  gst_harness_push(h, picture(h, NV12_SIZE, 3)); /* 80 ms */
  CHECK(gst_harness_buffers_received(h) == 3);
  CHECK(statistic(h, "passed-through") == 1);
  gst_harness_teardown(h);
}

static void test_renegotiation_and_eos(void) {
  GstHarness *h = restore("scale=4", NV12_64x48);
  CHECK(gst_harness_push(h, picture(h, NV12_SIZE, 0)) == GST_FLOW_OK);
  gst_harness_set_src_caps_str(h, "video/x-raw,format=RGB,width=10,height=6,framerate=25/1");
  CHECK(gst_harness_push(h, picture(h, 32 * 6, 1)) == GST_FLOW_OK);
  GstCaps *caps = gst_pad_get_current_caps(h->sinkpad);
  GstVideoInfo info;
  CHECK(gst_video_info_from_caps(&info, caps) && info.width == 40 && info.height == 24);
  gst_caps_unref(caps);
  CHECK(gst_harness_push_event(h, gst_event_new_eos()));
  gboolean ended = FALSE;
  for (GstEvent *event; (event = gst_harness_try_pull_event(h)) != NULL; gst_event_unref(event)) {
    ended = ended || GST_EVENT_TYPE(event) == GST_EVENT_EOS;
  }
  CHECK(ended);
  gst_harness_teardown(h);
}

static void test_verdicts(void) {
  GstHarness *h = gst_harness_new_parse("uareassess backend=null interval=3");
  GstBus *bus = gst_bus_new();
  GstElement *element = gst_harness_find_element(h, "uareassess");
  gst_element_set_bus(element, bus);
  gst_harness_set_src_caps_str(h, NV12_64x48);
  for (guint64 i = 0; i < 7; ++i) {
    GstBuffer *out = gst_harness_push_and_pull(h, picture(h, NV12_SIZE, i));
    GstCustomMeta *meta = gst_buffer_get_custom_meta(out, "UareAssessmentMeta");
    gdouble score = 0;
    CHECK(meta != NULL && gst_structure_get_double(gst_custom_meta_get_structure(meta), "score", &score));
    CHECK(score == 3.0);
    gst_buffer_unref(out);
  }
  guint messages = 0;
  for (GstMessage *m; (m = gst_bus_pop_filtered(bus, GST_MESSAGE_ELEMENT)) != NULL; gst_message_unref(m)) {
    guint64 pts = 1;
    CHECK(gst_structure_has_name(gst_message_get_structure(m), "uare-assessment"));
    CHECK(gst_structure_get_uint64(gst_message_get_structure(m), "pts", &pts) && pts == messages * 120 * GST_MSECOND);
    ++messages;
  }
  CHECK(messages == 3);
  gst_element_set_bus(element, NULL);
  gst_object_unref(element);
  gst_object_unref(bus);
  gst_harness_teardown(h);
}

/* Where no engine is built in, that is what the message says. */
#ifdef HAS_ENGINE
#define MISSING "such.uare"
#else
#define MISSING "it has backend=null"
#endif

static void test_a_missing_bundle_is_an_error_message(void) {
  GstElement *pipeline = gst_parse_launch("fakesrc ! uarerestore name=u bundle=/no/such.uare ! fakesink", NULL);
  CHECK(gst_element_set_state(pipeline, GST_STATE_PAUSED) == GST_STATE_CHANGE_FAILURE);
  GstBus *bus = gst_element_get_bus(pipeline);
  GstMessage *message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  GError *error = NULL;
  CHECK(message != NULL);
  if (message != NULL) {
    gst_message_parse_error(message, &error, NULL);
    CHECK(error != NULL && strstr(error->message, MISSING) != NULL);
    g_clear_error(&error);
    gst_message_unref(message);
  }
  gst_object_unref(bus);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}

static void test_a_thousand_buffers(void) {
  GstHarness *h = restore("scale=2", NV12_64x48);
  for (guint64 i = 0; i < 1000; ++i) {
    GstBuffer *out = gst_harness_push_and_pull(h, picture(h, NV12_SIZE, i));
    guint8 first = 0;
    gst_buffer_extract(out, 0, &first, 1);
    CHECK(first == (guint8)i && GST_BUFFER_PTS(out) == i * 40 * GST_MSECOND);
    gst_buffer_unref(out);
  }
  CHECK(statistic(h, "frames") == 1000);
  gst_harness_teardown(h);
}

static void test_properties_keep_what_was_set(void) {
  const char *names[] = {"uarerestore", "uareassess"};
  for (guint i = 0; i < G_N_ELEMENTS(names); ++i) {
    GstElement *element = gst_object_ref_sink(gst_element_factory_make(names[i], NULL));
    guint count = 0, own = 0;
    GParamSpec **specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(element), &count);
    for (guint j = 0; j < count; ++j) {
      if (specs[j]->owner_type != G_OBJECT_TYPE(element) || (specs[j]->flags & G_PARAM_WRITABLE) == 0) continue;
      ++own;
      GValue value = G_VALUE_INIT, kept = G_VALUE_INIT;
      g_value_init(&value, specs[j]->value_type);
      g_object_get_property(G_OBJECT(element), specs[j]->name, &value);
      CHECK(g_param_value_defaults(specs[j], &value));
      if (G_VALUE_HOLDS_STRING(&value)) g_value_set_string(&value, "other");
      if (G_VALUE_HOLDS_UINT(&value)) g_value_set_uint(&value, 2);
      if (G_VALUE_HOLDS_DOUBLE(&value)) g_value_set_double(&value, 1.0 - g_value_get_double(&value));
      g_param_value_validate(specs[j], &value);
      g_object_set_property(G_OBJECT(element), specs[j]->name, &value);
      g_value_init(&kept, specs[j]->value_type);
      g_object_get_property(G_OBJECT(element), specs[j]->name, &kept);
      CHECK(!g_param_value_defaults(specs[j], &kept) && g_param_values_cmp(specs[j], &value, &kept) == 0);
      g_value_unset(&value);
      g_value_unset(&kept);
    }
    g_free(specs);
    CHECK(own == (i == 0 ? 8 : 4));
    g_object_set(element, "backend", NULL, "bundle", NULL, NULL); /* auto, which needs a bundle */
    CHECK(gst_element_set_state(element, GST_STATE_PAUSED) == GST_STATE_CHANGE_FAILURE);
    gst_element_set_state(element, GST_STATE_NULL);
    gst_object_unref(element);
  }
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  test_properties_keep_what_was_set();
  test_caps();
  test_caps_that_cannot_be_met();
  test_a_small_size_keeps_its_matrix_when_enlarged();
  test_times_flags_and_metas_are_kept();
  test_latency();
  test_late_frames_pass_through();
  test_old_frames_of_a_live_source_pass_through();
  test_renegotiation_and_eos();
  test_verdicts();
  test_a_missing_bundle_is_an_error_message();
  test_a_thousand_buffers();
  gst_deinit();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
