// The GStreamer plugin: uarerestore and uareassess.
#include <gst/gst.h>

#include "elements.hpp"
#include "video.hpp"

static gboolean plugin_init(GstPlugin *plugin) {
  uare::gst::register_meta();
  return gst_element_register(plugin, "uarerestore", GST_RANK_NONE, uare_restore_get_type()) &&
         gst_element_register(plugin, "uareassess", GST_RANK_NONE, uare_assess_element_get_type());
}

extern "C" {
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, uare, "Image quality assessment and restoration", plugin_init,
                  UARE_RT_VERSION, "Apache 2.0", "uare-rt", "https://arxiv.org/abs/2512.06750")
}
