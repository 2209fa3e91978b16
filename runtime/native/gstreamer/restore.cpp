// uarerestore: restores the frames that pass, and lets them pass as they are where it is too late for that.
#include <string>

#include "elements.hpp"
#include "memory.hpp"
#include "properties.hpp"
#include "restore.hpp"
#include "scaling.hpp"
#include "video.hpp"

using namespace uare::gst;

G_DEFINE_TYPE(UareRestore, uare_restore, GST_TYPE_VIDEO_FILTER)

namespace {

GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(UARE_VIDEO_FORMATS) UARE_MEMORY_CAPS));
GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(UARE_VIDEO_FORMATS) UARE_MEMORY_CAPS));

UareRestore *self_of(gpointer object) { return static_cast<UareRestore *>(object); }

std::string number(gdouble value) {
  gchar text[G_ASCII_DTOSTR_BUF_SIZE];
  return g_ascii_formatd(text, sizeof text, "%.6f", value);
}

gboolean start(GstBaseTransform *transform) {
  UareRestore *self = self_of(transform);
  SessionSettings settings = Properties<UareRestore>::session_settings(self);
  GST_OBJECT_LOCK(self);
  settings.options.push_back("scale=" + std::to_string(self->scale));
  settings.options.push_back("strength=" + number(self->strength));
  settings.options.push_back("assess-interval=" + std::to_string(self->assess_interval));
  settings.options.push_back("skip-above=" + number(self->skip_above));
  self->changed = FALSE;
  self->earliest = GST_CLOCK_TIME_NONE;
  self->passed = 0;
  self->info = {};
  GST_OBJECT_UNLOCK(self);
  self->session = open_session(GST_ELEMENT(self), settings);
  return self->session != nullptr;
}

gboolean stop(GstBaseTransform *transform) {
  UareRestore *self = self_of(transform);
  GST_OBJECT_LOCK(self);
  uare_session *session = self->session;
  self->session = nullptr;
  GST_OBJECT_UNLOCK(self);
  uare_close(session);
  gst_clear_object(&self->cuda_context);
  return TRUE;
}

GstCaps *transform_caps(GstBaseTransform *transform, GstPadDirection direction, GstCaps *caps, GstCaps *filter) {
  GstCaps *scaled = scaled_caps(caps, direction, static_cast<int>(self_of(transform)->scale));
  scaled = across_memory(scaled);
  if (filter == nullptr) return scaled;
  GstCaps *filtered = gst_caps_intersect_full(filter, scaled, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref(scaled);
  return filtered;
}

gboolean set_info(GstVideoFilter *filter, GstCaps *in_caps, GstVideoInfo *in, GstCaps *out_caps, GstVideoInfo *out) {
  UareRestore *self = self_of(filter);
  self->in_memory = memory_of(in_caps);
  self->out_memory = memory_of(out_caps);
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
  if (GST_QUERY_TYPE(query) == GST_QUERY_CONTEXT &&
      answer_cuda_query(GST_ELEMENT(transform), query, self_of(transform)->cuda_context)) {
    return TRUE;
  }
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

GstFlowReturn restore(UareRestore *self, GstBuffer *in, const uare_frame &input, GstBuffer *out, uare_frame output) {
  const GstClockTime pts = GST_BUFFER_PTS(in);
  const GstClockTime running_time =
      gst_segment_to_running_time(&GST_BASE_TRANSFORM(self)->segment, GST_FORMAT_TIME, pts);
  uare_info info = {};
  info.struct_size = sizeof info;
  uare_assessment verdict = {};
  verdict.struct_size = sizeof verdict;
  output.matrix = input.matrix;
  output.range = input.range;
  output.siting = input.siting;
  uare_status status = apply_changes(self);
  if (status == UARE_OK) status = work(self, input, output, too_late(self, running_time, in));
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
  if (info.assessed > 0) attach_verdict(out, verdict);
  if (assessed) post_verdict(GST_ELEMENT(self), verdict, pts, running_time);
  return GST_FLOW_OK;
}

// The base class would take what describes an NVMM surface for its pixels.
GstFlowReturn transform(GstBaseTransform *transform, GstBuffer *in, GstBuffer *out) {
  UareRestore *self = self_of(transform);
  auto *filter = GST_VIDEO_FILTER(transform);
  const Pixels input(in, filter->in_info, self->in_memory, GST_MAP_READ);
  if (!input.failure().empty()) {
    GST_ELEMENT_ERROR(self, RESOURCE, READ, ("%s", input.failure().c_str()), (nullptr));
    return GST_FLOW_ERROR;
  }
  Pixels output(out, filter->out_info, self->out_memory, GST_MAP_WRITE);
  std::string failure = output.failure();
  GstFlowReturn result = GST_FLOW_OK;
  if (failure.empty()) {
    result = restore(self, in, input.view(), out, output.view());
    failure = output.finish();
  }
  if (failure.empty()) return result;
  GST_ELEMENT_ERROR(self, RESOURCE, WRITE, ("%s", failure.c_str()), (nullptr));
  return GST_FLOW_ERROR;
}

// System memory of ours is of no use to a source of other memory.
gboolean propose_allocation(GstBaseTransform *transform, GstQuery *decide, GstQuery *query) {
  if (self_of(transform)->in_memory != Memory::kSystem) return FALSE;
  return GST_BASE_TRANSFORM_CLASS(uare_restore_parent_class)->propose_allocation(transform, decide, query);
}

gboolean decide_allocation(GstBaseTransform *transform, GstQuery *query) {
  UareRestore *self = self_of(transform);
  if (self->out_memory != Memory::kSystem) {
    const std::string failure = offer_pool(self->out_memory, GST_ELEMENT(self), &self->cuda_context, query);
    if (!failure.empty()) {
      GST_ELEMENT_ERROR(self, RESOURCE, OPEN_WRITE, ("%s", failure.c_str()), (nullptr));
      return FALSE;
    }
  }
  return GST_BASE_TRANSFORM_CLASS(uare_restore_parent_class)->decide_allocation(transform, query);
}

void set_context(GstElement *element, GstContext *context) {
  keep_cuda_context(element, context, &self_of(element)->cuda_context);
  GST_ELEMENT_CLASS(uare_restore_parent_class)->set_context(element, context);
}

void finalize(GObject *object) {
  UareRestore *self = self_of(object);
  Properties<UareRestore>::free_texts(self);
  gst_clear_object(&self->cuda_context);  // one that came before a start
  G_OBJECT_CLASS(uare_restore_parent_class)->finalize(object);
}

}  // namespace

static void uare_restore_init(UareRestore *self) {
  Properties<UareRestore>::set_defaults(self);
  self->earliest = GST_CLOCK_TIME_NONE;
  // Late frames lose their work, not their place: the base class would drop them.
  gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), FALSE);
}

static void uare_restore_class_init(UareRestoreClass *klass) {
  auto *object = G_OBJECT_CLASS(klass);
  auto *element = GST_ELEMENT_CLASS(klass);
  auto *transform = GST_BASE_TRANSFORM_CLASS(klass);
  auto *filter = GST_VIDEO_FILTER_CLASS(klass);
  object->finalize = finalize;
  element->set_context = set_context;
  transform->start = start;
  transform->stop = stop;
  transform->transform_caps = transform_caps;
  transform->sink_event = sink_event;
  transform->src_event = src_event;
  transform->query = query;
  transform->transform_meta = transform_meta;
  transform->transform = ::transform;
  transform->transform_ip = nullptr;  // nothing is done in place
  transform->propose_allocation = propose_allocation;
  transform->decide_allocation = decide_allocation;
  filter->set_info = set_info;
  install_restore_properties(object);
  gst_element_class_add_static_pad_template(element, &sink_template);
  gst_element_class_add_static_pad_template(element, &src_template);
  gst_element_class_set_static_metadata(
      element, "UARE restoration", "Filter/Effect/Video",
      "Restores frames, 1, 2 or 4 times as large, guided by its own assessment, which it also posts as element "
      "messages \"uare-assessment\" and attaches as the custom meta \"UareAssessmentMeta\"",
      "uare-rt");
}
