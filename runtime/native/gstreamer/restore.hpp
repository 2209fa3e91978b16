// The element uarerestore, as its parts share it.
#pragma once

#include <gst/video/gstvideofilter.h>

#include "memory.hpp"
#include "uare_rt.h"

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
  uare::gst::Memory in_memory, out_memory;
  GstObject *cuda_context;      // of the pipeline, for output in CUDA memory; NULL before it is needed
  guint64 passed;               // frames enlarged or copied only, because they were late
  uare_info info;               // after the last frame, under the object lock
};

struct UareRestoreClass {
  GstVideoFilterClass parent;
};

namespace uare::gst {

inline constexpr gdouble kNever = 6.0;  // above every score

// Properties with their accessors.
void install_restore_properties(GObjectClass *object);

}  // namespace uare::gst
