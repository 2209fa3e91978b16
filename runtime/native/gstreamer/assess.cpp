// uareassess: says how good the frames that pass are, in messages and metas.
#include <string>

#include "elements.hpp"
#include "properties.hpp"
#include "video.hpp"

using namespace uare::gst;

struct UareAssess {
  GstVideoFilter parent;
  gchar *bundle;
  gchar *backend;
  guint interval;
  guint threads;

  uare_session *session;
  guint64 seen;  // frames since start, flush or new caps
};

struct UareAssessClass {
  GstVideoFilterClass parent;
};

G_DEFINE_TYPE(UareAssess, uare_assess_element, GST_TYPE_VIDEO_FILTER)

namespace {

GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(UARE_VIDEO_FORMATS)));
GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(UARE_VIDEO_FORMATS)));

UareAssess *self_of(gpointer object) { return static_cast<UareAssess *>(object); }

gboolean start(GstBaseTransform *transform) {
  UareAssess *self = self_of(transform);
  self->seen = 0;
  self->session = open_session(GST_ELEMENT(self), Properties<UareAssess>::session_settings(self));
  return self->session != nullptr;
}

gboolean stop(GstBaseTransform *transform) {
  UareAssess *self = self_of(transform);
  uare_close(self->session);
  self->session = nullptr;
  return TRUE;
}

gboolean set_info(GstVideoFilter *filter, GstCaps *, GstVideoInfo *in, GstCaps *, GstVideoInfo *) {
  std::string reason;
  self_of(filter)->seen = 0;
  if (supported(*in, &reason)) return TRUE;
  GST_ELEMENT_ERROR(filter, STREAM, FORMAT, ("%s", reason.c_str()), (nullptr));
  return FALSE;
}

gboolean sink_event(GstBaseTransform *transform, GstEvent *event) {
  if (GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_STOP) self_of(transform)->seen = 0;
  return GST_BASE_TRANSFORM_CLASS(uare_assess_element_parent_class)->sink_event(transform, event);
}

GstFlowReturn transform_frame_ip(GstVideoFilter *filter, GstVideoFrame *frame) {
  UareAssess *self = self_of(filter);
  GST_OBJECT_LOCK(self);
  const guint interval = self->interval;
  GST_OBJECT_UNLOCK(self);
  const bool due = self->seen++ % interval == 0;
  uare_assessment verdict = {};
  verdict.struct_size = sizeof verdict;
  const uare_frame view = view_of(frame);
  const uare_status status =
      due ? uare_assess(self->session, &view, &verdict) : uare_last_assessment(self->session, &verdict);
  if (status != UARE_OK) {
    GST_ELEMENT_ERROR(self, STREAM, FAILED, ("%s", last_message().c_str()), (nullptr));
    return GST_FLOW_ERROR;
  }
  attach_verdict(frame->buffer, verdict);
  if (due) {
    const GstClockTime pts = GST_BUFFER_PTS(frame->buffer);
    const GstSegment *segment = &GST_BASE_TRANSFORM(filter)->segment;
    post_verdict(GST_ELEMENT(self), verdict, pts, gst_segment_to_running_time(segment, GST_FORMAT_TIME, pts));
  }
  return GST_FLOW_OK;
}

void finalize(GObject *object) {
  Properties<UareAssess>::free_texts(self_of(object));
  G_OBJECT_CLASS(uare_assess_element_parent_class)->finalize(object);
}

}  // namespace

static void uare_assess_element_init(UareAssess *self) {
  Properties<UareAssess>::set_defaults(self);
  // Metas need a writable buffer; its pixels are left alone.
  gst_base_transform_set_in_place(GST_BASE_TRANSFORM(self), TRUE);
  gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), FALSE);
}

static void uare_assess_element_class_init(UareAssessClass *klass) {
  auto *object = G_OBJECT_CLASS(klass);
  auto *element = GST_ELEMENT_CLASS(klass);
  auto *transform = GST_BASE_TRANSFORM_CLASS(klass);
  auto *filter = GST_VIDEO_FILTER_CLASS(klass);
  object->finalize = finalize;
  transform->start = start;
  transform->stop = stop;
  transform->sink_event = sink_event;
  filter->set_info = set_info;
  filter->transform_frame_ip = transform_frame_ip;

  Properties<UareAssess>::install(
      object, {{g_param_spec_uint("interval", "Interval", "Frames from one assessment to the next", 1, G_MAXUINT, 30,
                                  kAnyTime),
                &UareAssess::interval}});
  gst_element_class_add_static_pad_template(element, &sink_template);
  gst_element_class_add_static_pad_template(element, &src_template);
  gst_element_class_set_static_metadata(
      element, "UARE quality assessment", "Filter/Analyzer/Video",
      "Says how good frames are and what is wrong with them: element messages \"uare-assessment\" and the custom meta "
      "\"UareAssessmentMeta\" with score (1..5), severities (0..1) and a description",
      "uare-rt");
}
