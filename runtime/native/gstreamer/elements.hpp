// The types of the elements.
#pragma once

#include <glib-object.h>

GType uare_restore_get_type();
GType uare_assess_element_get_type();
