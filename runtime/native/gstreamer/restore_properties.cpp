// Properties of uarerestore.
#include "properties.hpp"
#include "restore.hpp"

namespace uare::gst {
namespace {

GstStructure *statistics(UareRestore *self) {
  // Kept by the element: while a frame is under way the session would answer that it is busy.
  const uare_info &info = self->info;
  return gst_structure_new("uare-statistics", "frames", G_TYPE_UINT64, info.frames, "restored", G_TYPE_UINT64,
                           info.restored, "passed-through", G_TYPE_UINT64, self->passed, "assessed", G_TYPE_UINT64,
                           info.assessed, "scenes", G_TYPE_UINT64, info.scenes, "latency", G_TYPE_UINT64,
                           info.latency_ns, "latency-max", G_TYPE_UINT64, info.latency_max_ns, nullptr);
}

// The session hears of it with the next frame.
void set_changed(UareRestore *self) {
  GST_OBJECT_LOCK(self);
  self->changed = TRUE;
  GST_OBJECT_UNLOCK(self);
}

void renegotiate(UareRestore *self) { gst_base_transform_reconfigure_sink(GST_BASE_TRANSFORM(self)); }

void tell_latency(UareRestore *self) {
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}

}  // namespace

void install_restore_properties(GObjectClass *object) {
  Properties<UareRestore>::install(
      object,
      {
          {g_param_spec_double("strength", "Strength", "0 keeps the frame, 1 restores it fully", 0, 1, 1, kAnyTime),
           &UareRestore::strength, set_changed},
          {g_param_spec_uint("scale", "Scale", "Output size over input size: 1, 2 or 4", 1, 4, 1, kBeforeStart),
           &UareRestore::scale, renegotiate},
          {g_param_spec_uint("assess-interval", "Assess interval",
                             "Frames between two assessments inside a scene; 0 assesses at cuts only", 0, G_MAXUINT,
                             30, kAnyTime),
           &UareRestore::assess_interval, set_changed},
          {g_param_spec_double("skip-above", "Skip above",
                               "Frames of scenes above this score (1..5) are not restored; 6 is never", 1, kNever,
                               kNever, kAnyTime),
           &UareRestore::skip_above, set_changed},
          {g_param_spec_uint("max-latency", "Maximal latency",
                             "ms by which a frame of a live source may lag behind the clock before it passes through "
                             "without work; it is what a latency query is told. 0: no bound, and one frame is told",
                             0, 60000, 0, kAnyTime),
           &UareRestore::max_latency, tell_latency},
          {g_param_spec_boxed("stats", "Statistics",
                              "frames, restored, passed-through (late), assessed, scenes, latency and latency-max (ns)",
                              GST_TYPE_STRUCTURE, kReadOnly),
           statistics},
      });
}

}  // namespace uare::gst
