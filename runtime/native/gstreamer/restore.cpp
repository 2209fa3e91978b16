// uarerestore: restores the frames that pass, and lets them pass as they are where it is too late for that.
#include <string>

#include "elements.hpp"
#include "scaling.hpp"
#include "video.hpp"

using namespace uare::gst;

struct UareRestore {
  GstVideoFilter parent;
  // Properties, under the object lock.
  gchar *bundle;
  gchar *backend;
  gdouble strength;
  guint scale;
  guint assess_interval;
  gdouble skip_above;
  guint max_latency;  // ms
  guint threads;
  gboolean changed;  // strength, assess-interval or skip-above since the last frame

  uare_session *session;
  GstClockTime frame_duration;  // of the negotiated rate
  GstClockTime earliest;        // running time that downstream still waits for, from its QoS events
  guint64 passed;               // frames enlarged or copied only, because they were late
  uare_info info;               // after the last frame, under the object lock
};

struct UareRestoreClass {
  GstVideoFilterClass parent;
};

G_DEFINE_TYPE(UareRestore, uare_restore, GST_TYPE_VIDEO_FILTER)

namespace {

enum {
  PROP_0,
  PROP_BUNDLE,
  PROP_BACKEND,
  PROP_STRENGTH,
  PROP_SCALE,
  PROP_ASSESS_INTERVAL,
  PROP_SKIP_ABOVE,
  PROP_MAX_LATENCY,
  PROP_THREADS,
  PROP_STATS
};

constexpr gdouble kNever = 6.0;  // above every score

GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(UARE_VIDEO_FORMATS)));
GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(UARE_VIDEO_FORMATS)));

UareRestore *self_of(gpointer object) { return static_cast<UareRestore *>(object); }

std::string number(gdouble value) {
  gchar text[G_ASCII_DTOSTR_BUF_SIZE];
  return g_ascii_formatd(text, sizeof text, "%.6f", value);
}

GstStructure *statistics(UareRestore *self) {
  // Kept by the element: while a frame is under way the session would answer that it is busy.
  const uare_info &info = self->info;
  return gst_structure_new("uare-statistics", "frames", G_TYPE_UINT64, info.frames, "restored", G_TYPE_UINT64,
                           info.restored, "passed-through", G_TYPE_UINT64, self->passed, "assessed", G_TYPE_UINT64,
                           info.assessed, "scenes", G_TYPE_UINT64, info.scenes, "latency", G_TYPE_UINT64,
                           info.latency_ns, "latency-max", G_TYPE_UINT64, info.latency_max_ns, nullptr);
}

void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
  UareRestore *self = self_of(object);
  bool renegotiate = false, relate = false;
  GST_OBJECT_LOCK(self);
  switch (id) {
    case PROP_BUNDLE:
      g_free(self->bundle);
      self->bundle = g_value_dup_string(value);
      break;
    case PROP_BACKEND:
      g_free(self->backend);
      self->backend = g_value_dup_string(value);
      break;
    case PROP_STRENGTH:
      self->strength = g_value_get_double(value);
      self->changed = TRUE;
      break;
    case PROP_SCALE:
      self->scale = g_value_get_uint(value);
      renegotiate = true;
      break;
    case PROP_ASSESS_INTERVAL:
      self->assess_interval = g_value_get_uint(value);
      self->changed = TRUE;
      break;
    case PROP_SKIP_ABOVE:
      self->skip_above = g_value_get_double(value);
      self->changed = TRUE;
      break;
    case PROP_MAX_LATENCY:
      self->max_latency = g_value_get_uint(value);
      relate = true;
      break;
    case PROP_THREADS:
      self->threads = g_value_get_uint(value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
  }
  GST_OBJECT_UNLOCK(self);
  if (renegotiate) gst_base_transform_reconfigure_sink(GST_BASE_TRANSFORM(self));
  if (relate) gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}

void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
  UareRestore *self = self_of(object);
  GST_OBJECT_LOCK(self);
  switch (id) {
    case PROP_BUNDLE:
      g_value_set_string(value, self->bundle);
      break;
    case PROP_BACKEND:
      g_value_set_string(value, self->backend);
      break;
    case PROP_STRENGTH:
      g_value_set_double(value, self->strength);
      break;
    case PROP_SCALE:
      g_value_set_uint(value, self->scale);
      break;
    case PROP_ASSESS_INTERVAL:
      g_value_set_uint(value, self->assess_interval);
      break;
    case PROP_SKIP_ABOVE:
      g_value_set_double(value, self->skip_above);
      break;
    case PROP_MAX_LATENCY:
      g_value_set_uint(value, self->max_latency);
      break;
    case PROP_THREADS:
      g_value_set_uint(value, self->threads);
      break;
    case PROP_STATS:
      g_value_take_boxed(value, statistics(self));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
  }
  GST_OBJECT_UNLOCK(self);
}

gboolean start(GstBaseTransform *transform) {
  UareRestore *self = self_of(transform);
  GST_OBJECT_LOCK(self);
  std::vector<std::string> options = {"backend=" + std::string(self->backend), "scale=" + std::to_string(self->scale),
                                      "strength=" + number(self->strength),
                                      "assess-interval=" + std::to_string(self->assess_interval),
                                      "skip-above=" + number(self->skip_above)};
  if (self->threads > 0) options.push_back("threads=" + std::to_string(self->threads));
  self->changed = FALSE;
  self->earliest = GST_CLOCK_TIME_NONE;
  self->passed = 0;
  self->info = {};
  const std::string bundle = self->bundle == nullptr ? "" : self->bundle;
  const bool named = self->bundle != nullptr;
  GST_OBJECT_UNLOCK(self);
  self->session = open_session(GST_ELEMENT(self), named ? bundle.c_str() : nullptr, options);
  return self->session != nullptr;
}

gboolean stop(GstBaseTransform *transform) {
  UareRestore *self = self_of(transform);
  GST_OBJECT_LOCK(self);
  uare_session *session = self->session;
  self->session = nullptr;
  GST_OBJECT_UNLOCK(self);
  uare_close(session);
  return TRUE;
}

GstCaps *transform_caps(GstBaseTransform *transform, GstPadDirection direction, GstCaps *caps, GstCaps *filter) {
  GstCaps *scaled = scaled_caps(caps, direction, static_cast<int>(self_of(transform)->scale));
  if (filter == nullptr) return scaled;
  GstCaps *filtered = gst_caps_intersect_full(filter, scaled, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref(scaled);
  return filtered;
}

gboolean set_info(GstVideoFilter *filter, GstCaps *, GstVideoInfo *in, GstCaps *, GstVideoInfo *out) {
  UareRestore *self = self_of(filter);
  std::string reason;
  if (!supported(*in, &reason)) {
    GST_ELEMENT_ERROR(self, STREAM, FORMAT, ("%s", reason.c_str()), (nullptr));
    return FALSE;
  }
  // What the input's size meant is meant still.
  out->colorimetry = in->colorimetry;
  out->chroma_site = in->chroma_site;
  const bool fixed = GST_VIDEO_INFO_FPS_N(in) > 0;
  self->frame_duration = fixed ? gst_util_uint64_scale_int(GST_SECOND, GST_VIDEO_INFO_FPS_D(in),
                                                           GST_VIDEO_INFO_FPS_N(in))
                               : 0;
  uare_context_control(self->session, UARE_CONTEXT_RESET);
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
  return TRUE;
}

gboolean sink_event(GstBaseTransform *transform, GstEvent *event) {
  UareRestore *self = self_of(transform);
  if (GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_STOP) {
    uare_context_control(self->session, UARE_CONTEXT_RESET);
    GST_OBJECT_LOCK(self);
    self->earliest = GST_CLOCK_TIME_NONE;
    GST_OBJECT_UNLOCK(self);
  }
  return GST_BASE_TRANSFORM_CLASS(uare_restore_parent_class)->sink_event(transform, event);
}

gboolean src_event(GstBaseTransform *transform, GstEvent *event) {
  if (GST_EVENT_TYPE(event) == GST_EVENT_QOS) {
    UareRestore *self = self_of(transform);
    GstClockTimeDiff jitter = 0;
    GstClockTime timestamp = GST_CLOCK_TIME_NONE;
    gst_event_parse_qos(event, nullptr, nullptr, &jitter, &timestamp);
    GST_OBJECT_LOCK(self);
    if (!GST_CLOCK_TIME_IS_VALID(timestamp) || (jitter < 0 && timestamp < static_cast<GstClockTime>(-jitter))) {
      self->earliest = GST_CLOCK_TIME_NONE;
    } else {
      // Frames that are as late as this one would be later still after the work.
      self->earliest = timestamp + static_cast<GstClockTime>(jitter) + (jitter > 0 ? self->frame_duration : 0);
    }
    GST_OBJECT_UNLOCK(self);
  }
  return GST_BASE_TRANSFORM_CLASS(uare_restore_parent_class)->src_event(transform, event);
}

// Metas that depend on nothing but the size (regions of interest) are scaled; the base class would leave them out.
gboolean transform_meta(GstBaseTransform *transform, GstBuffer *out, GstMeta *meta, GstBuffer *in) {
  static const gchar *const sized[] = {GST_META_TAG_VIDEO_STR, GST_META_TAG_VIDEO_ORIENTATION_STR,
                                       GST_META_TAG_VIDEO_SIZE_STR, nullptr};
  const gchar *const *tags = gst_meta_api_type_get_tags(meta->info->api);
  bool scalable = tags != nullptr && tags[0] != nullptr && meta->info->transform_func != nullptr;
  for (; scalable && *tags != nullptr; ++tags) scalable = g_strv_contains(sized, *tags);
  if (!scalable) return GST_BASE_TRANSFORM_CLASS(uare_restore_parent_class)->transform_meta(transform, out, meta, in);
  auto *filter = GST_VIDEO_FILTER(transform);
  GstVideoMetaTransform sizes = {&filter->in_info, &filter->out_info};
  meta->info->transform_func(out, meta, in, gst_video_meta_transform_scale_get_quark(), &sizes);
  return FALSE;  // copied already
}

// What the element adds: the bound on the age of frames where there is one, else the time of one frame.
GstClockTime own_latency(UareRestore *self) {
  return self->max_latency > 0 ? self->max_latency * GST_MSECOND : self->frame_duration;
}

gboolean query(GstBaseTransform *transform, GstPadDirection direction, GstQuery *query) {
  const gboolean answered =
      GST_BASE_TRANSFORM_CLASS(uare_restore_parent_class)->query(transform, direction, query);
  if (!answered || direction != GST_PAD_SRC || GST_QUERY_TYPE(query) != GST_QUERY_LATENCY) return answered;
  UareRestore *self = self_of(transform);
  gboolean live = FALSE;
  GstClockTime least = 0, most = GST_CLOCK_TIME_NONE;
  gst_query_parse_latency(query, &live, &least, &most);
  GST_OBJECT_LOCK(self);
  const GstClockTime own = own_latency(self);
  GST_OBJECT_UNLOCK(self);
  gst_query_set_latency(query, live, least + own, GST_CLOCK_TIME_IS_VALID(most) ? most + own : most);
  return TRUE;
}

// Whether a frame is too late to be worth its work; posts a QoS message then.
bool too_late(UareRestore *self, GstClockTime running_time, GstBuffer *buffer) {
  if (!GST_CLOCK_TIME_IS_VALID(running_time)) return false;
  GST_OBJECT_LOCK(self);
  const GstClockTime earliest = self->earliest, bound = self->max_latency * GST_MSECOND;
  const bool limited = self->max_latency > 0;
  GstClock *clock = limited && GST_ELEMENT_CLOCK(self) != nullptr
                        ? GST_CLOCK(gst_object_ref(GST_ELEMENT_CLOCK(self)))
                        : nullptr;
  const GstClockTime base = GST_ELEMENT_CAST(self)->base_time;
  GST_OBJECT_UNLOCK(self);
  bool late = GST_CLOCK_TIME_IS_VALID(earliest) && running_time < earliest;
  GstClockTimeDiff jitter = late ? GST_CLOCK_DIFF(running_time, earliest) : 0;
  if (clock != nullptr) {
    const GstClockTimeDiff age = GST_CLOCK_DIFF(base + running_time, gst_clock_get_time(clock));
    if (age > static_cast<GstClockTimeDiff>(bound)) late = true, jitter = age;
    gst_object_unref(clock);
  }
  if (!late) return false;
  GST_OBJECT_LOCK(self);
  const guint64 passed = ++self->passed;
  GST_OBJECT_UNLOCK(self);
  const GstSegment *segment = &GST_BASE_TRANSFORM(self)->segment;
  const GstClockTime pts = GST_BUFFER_PTS(buffer);
  GstMessage *message = gst_message_new_qos(GST_OBJECT(self), FALSE, running_time,
                                            gst_segment_to_stream_time(segment, GST_FORMAT_TIME, pts), pts,
                                            GST_BUFFER_DURATION(buffer));
  gst_message_set_qos_values(message, jitter, 1.0, 1000000);
  gst_message_set_qos_stats(message, GST_FORMAT_BUFFERS, GST_CLOCK_TIME_NONE, passed);
  gst_element_post_message(GST_ELEMENT(self), message);
  return true;
}

uare_status apply_changes(UareRestore *self) {
  GST_OBJECT_LOCK(self);
  const bool changed = self->changed;
  self->changed = FALSE;
  const std::string strength = "strength=" + number(self->strength);
  const std::string interval = "assess-interval=" + std::to_string(self->assess_interval);
  const std::string skip = "skip-above=" + number(self->skip_above);
  GST_OBJECT_UNLOCK(self);
  uare_status status = UARE_OK;
  for (const std::string *option : {&strength, &interval, &skip}) {
    if (changed && status == UARE_OK) status = uare_set(self->session, option->c_str());
  }
  return status;
}

uare_status work(UareRestore *self, const uare_frame &input, const uare_frame &output, bool late) {
  if (!late) return uare_process(self->session, &input, &output, nullptr);
  // Without strength there is no engine in the way: the frame is copied or enlarged.
  uare_status status = uare_set(self->session, "strength=0");
  if (status == UARE_OK) status = uare_process(self->session, &input, &output, nullptr);
  GST_OBJECT_LOCK(self);
  self->changed = TRUE;
  GST_OBJECT_UNLOCK(self);
  return status;
}

GstFlowReturn transform_frame(GstVideoFilter *filter, GstVideoFrame *in, GstVideoFrame *out) {
  UareRestore *self = self_of(filter);
  const GstClockTime pts = GST_BUFFER_PTS(in->buffer);
  const GstClockTime running_time =
      gst_segment_to_running_time(&GST_BASE_TRANSFORM(filter)->segment, GST_FORMAT_TIME, pts);
  uare_info info = {};
  info.struct_size = sizeof info;
  uare_assessment verdict = {};
  verdict.struct_size = sizeof verdict;
  const uare_frame input = view_of(in);
  uare_frame output = view_of(out);
  output.matrix = input.matrix;
  output.range = input.range;
  output.siting = input.siting;
  uare_status status = apply_changes(self);
  if (status == UARE_OK) status = work(self, input, output, too_late(self, running_time, in->buffer));
  if (status == UARE_OK) status = uare_query(self->session, &info);
  if (status == UARE_OK) status = uare_last_assessment(self->session, &verdict);
  if (status != UARE_OK) {
    GST_ELEMENT_ERROR(self, STREAM, FAILED, ("%s", last_message().c_str()), (nullptr));
    return GST_FLOW_ERROR;
  }
  GST_OBJECT_LOCK(self);
  const bool assessed = info.assessed > self->info.assessed;
  self->info = info;
  GST_OBJECT_UNLOCK(self);
  if (info.assessed > 0) attach_verdict(out->buffer, verdict);
  if (assessed) post_verdict(GST_ELEMENT(self), verdict, pts, running_time);
  return GST_FLOW_OK;
}

void finalize(GObject *object) {
  UareRestore *self = self_of(object);
  g_free(self->bundle);
  g_free(self->backend);
  G_OBJECT_CLASS(uare_restore_parent_class)->finalize(object);
}

void install_properties(GObjectClass *object) {
  constexpr auto kBoth = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
  constexpr auto kReady = static_cast<GParamFlags>(kBoth | GST_PARAM_MUTABLE_READY);
  constexpr auto kLive = static_cast<GParamFlags>(kBoth | GST_PARAM_MUTABLE_PLAYING);
  constexpr auto kRead = static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  const auto add = [object](guint id, GParamSpec *spec) { g_object_class_install_property(object, id, spec); };
  add(PROP_BUNDLE, g_param_spec_string("bundle", "Bundle", "Path of a NAME.uare directory", nullptr, kReady));
  add(PROP_BACKEND, g_param_spec_string("backend", "Backend", "auto, openvino, tensorrt, or null (repeats pixels)",
                                        "auto", kReady));
  add(PROP_STRENGTH, g_param_spec_double("strength", "Strength", "0 keeps the frame, 1 restores it fully", 0, 1, 1,
                                         kLive));
  add(PROP_SCALE, g_param_spec_uint("scale", "Scale", "Output size over input size: 1, 2 or 4", 1, 4, 1, kReady));
  add(PROP_ASSESS_INTERVAL,
      g_param_spec_uint("assess-interval", "Assess interval",
                        "Frames between two assessments inside a scene; 0 assesses at cuts only", 0, G_MAXUINT, 30,
                        kLive));
  add(PROP_SKIP_ABOVE, g_param_spec_double("skip-above", "Skip above",
                                           "Frames of scenes above this score (1..5) are not restored; 6 is never",
                                           1, kNever, kNever, kLive));
  add(PROP_MAX_LATENCY,
      g_param_spec_uint("max-latency", "Maximal latency",
                        "ms by which a frame of a live source may lag behind the clock before it passes through "
                        "without work; it is what a latency query is told. 0: no bound, and one frame is told",
                        0, 60000, 0, kLive));
  add(PROP_THREADS, g_param_spec_uint("threads", "Threads",
                                      "Processor threads for one frame; 0 takes the cores of this process", 0, 1024, 0,
                                      kReady));
  add(PROP_STATS,
      g_param_spec_boxed("stats", "Statistics",
                         "frames, restored, passed-through (late), assessed, scenes, latency and latency-max (ns)",
                         GST_TYPE_STRUCTURE, kRead));
}

}  // namespace

static void uare_restore_init(UareRestore *self) {
  self->backend = g_strdup("auto");
  self->strength = 1;
  self->scale = 1;
  self->assess_interval = 30;
  self->skip_above = kNever;
  self->earliest = GST_CLOCK_TIME_NONE;
  // Late frames lose their work, not their place: the base class would drop them.
  gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), FALSE);
}

static void uare_restore_class_init(UareRestoreClass *klass) {
  auto *object = G_OBJECT_CLASS(klass);
  auto *element = GST_ELEMENT_CLASS(klass);
  auto *transform = GST_BASE_TRANSFORM_CLASS(klass);
  auto *filter = GST_VIDEO_FILTER_CLASS(klass);
  object->set_property = set_property;
  object->get_property = get_property;
  object->finalize = finalize;
  transform->start = start;
  transform->stop = stop;
  transform->transform_caps = transform_caps;
  transform->sink_event = sink_event;
  transform->src_event = src_event;
  transform->query = query;
  transform->transform_meta = transform_meta;
  filter->set_info = set_info;
  filter->transform_frame = transform_frame;
  install_properties(object);
  gst_element_class_add_static_pad_template(element, &sink_template);
  gst_element_class_add_static_pad_template(element, &src_template);
  gst_element_class_set_static_metadata(
      element, "UARE restoration", "Filter/Effect/Video",
      "Restores frames, 1, 2 or 4 times as large, guided by its own assessment, which it also posts as element "
      "messages \"uare-assessment\" and attaches as the custom meta \"UareAssessmentMeta\"",
      "uare-rt");
}
