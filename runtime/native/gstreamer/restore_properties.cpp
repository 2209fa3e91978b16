// Properties of uarerestore.
#include "restore.hpp"

namespace uare::gst {
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

UareRestore *self_of(gpointer object) { return static_cast<UareRestore *>(object); }

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

}  // namespace

void install_restore_properties(GObjectClass *object) {
  object->set_property = set_property;
  object->get_property = get_property;
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

}  // namespace uare::gst
