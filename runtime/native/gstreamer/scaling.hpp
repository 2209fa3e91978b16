// Caps of an element whose output is `scale` times its input.
#pragma once

#include <gst/gst.h>

namespace uare::gst {

// Sizes multiplied (from sink to source) or divided; structures whose size has no counterpart are left out.
// Colours that the input leaves to its size are stated, because the output's size would mean others.
[[nodiscard]] GstCaps *scaled_caps(const GstCaps *caps, GstPadDirection from, int scale);

}  // namespace uare::gst
