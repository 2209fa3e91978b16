// What the elements share: sessions from properties, frames from GStreamer's, and verdicts as messages and metas.
#pragma once

#include <gst/video/gstvideofilter.h>
#include <gst/video/video.h>

#include <optional>
#include <string>
#include <vector>

#include "uare_rt.h"

namespace uare::gst {

#define UARE_VIDEO_FORMATS "{ NV12, I420, P010_10LE, RGB, RGBA }"

inline constexpr const char *kMetaName = "UareAssessmentMeta";

// Must be called once, before any element exists.
void register_meta();

// The message of this thread's last failed call into the library.
[[nodiscard]] std::string last_message();

// What a session is opened with.
struct SessionSettings {
  std::optional<std::string> bundle;
  std::vector<std::string> options;  // "key=value"
};

// Opens a session; on failure posts an element error and returns NULL.
[[nodiscard]] uare_session *open_session(GstElement *element, const SessionSettings &settings);

// Whether the library can convert what `info` says; the reason if not.
[[nodiscard]] bool supported(const GstVideoInfo &info, std::string *reason);

// Format, size and colours of a frame, without its planes.
[[nodiscard]] uare_frame view_of(const GstVideoInfo &info);

// A view of a mapped frame.
[[nodiscard]] uare_frame view_of(const GstVideoFrame *frame);

// Posts the verdict as an element message "uare-assessment".
void post_verdict(GstElement *element, const uare_assessment &verdict, GstClockTime pts, GstClockTime running_time);

// Attaches the verdict to a writable buffer as the custom meta kMetaName, or renews the one that is there.
void attach_verdict(GstBuffer *buffer, const uare_assessment &verdict);

}  // namespace uare::gst
