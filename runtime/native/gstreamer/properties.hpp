// Properties of the elements: fields under the object lock, described in one table for each element.
#pragma once

#include <initializer_list>
#include <string>
#include <variant>
#include <vector>

#include "video.hpp"

namespace uare::gst {

inline constexpr auto kReadOnly = static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
inline constexpr auto kBeforeStart =
    static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
inline constexpr auto kAnyTime =
    static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING);

template <class Element>
class Properties {
 public:
  using Made = GstStructure *(*)(Element *);  // a value made when it is read, under the object lock
  using Field = std::variant<gchar *Element::*, guint Element::*, gdouble Element::*, Made>;

  struct Property {
    GParamSpec *spec;
    Field field;
    void (*changed)(Element *) = nullptr;  // called after a write, without the lock
  };

  // Must be called once, by the class. Every element has `bundle`, `backend` and `threads`; `own` are the others.
  static void install(GObjectClass *object, std::initializer_list<Property> own) {
    table = {
        {g_param_spec_string("bundle", "Bundle", "Path of a NAME.uare directory", nullptr, kBeforeStart),
         &Element::bundle},
        {g_param_spec_string("backend", "Backend", "auto, openvino, tensorrt, or null (repeats pixels; for tests)",
                             "auto", kBeforeStart),
         &Element::backend},
        {g_param_spec_uint("threads", "Threads", "Processor threads for one frame; 0 takes the cores of this process",
                           0, 1024, 0, kBeforeStart),
         &Element::threads},
    };
    table.insert(table.end(), own);
    object->set_property = set;
    object->get_property = get;
    for (guint i = 0; i < table.size(); ++i) g_object_class_install_property(object, i + 1, table[i].spec);
  }

  // Gives every field its default; for a new element.
  static void set_defaults(Element *self) {
    for (const Property &property : table) assign(self, property, g_param_spec_get_default_value(property.spec));
  }

  static void free_texts(Element *self) {
    for (const Property &property : table) {
      if (const auto *text = std::get_if<gchar *Element::*>(&property.field)) g_clear_pointer(&(self->**text), g_free);
    }
  }

  // What the properties that every element has say of its session.
  static SessionSettings session_settings(Element *self) {
    SessionSettings settings;
    GST_OBJECT_LOCK(self);
    if (self->bundle != nullptr) settings.bundle = self->bundle;
    if (self->backend != nullptr) settings.options.push_back("backend=" + std::string(self->backend));
    if (self->threads > 0) settings.options.push_back("threads=" + std::to_string(self->threads));
    GST_OBJECT_UNLOCK(self);
    return settings;
  }

 private:
  inline static std::vector<Property> table;  // property `id` is entry id - 1

  static void assign(Element *self, const Property &property, const GValue *value) {
    if (const auto *text = std::get_if<gchar *Element::*>(&property.field)) {
      g_free(self->**text);
      self->**text = g_value_dup_string(value);
    } else if (const auto *number = std::get_if<guint Element::*>(&property.field)) {
      self->**number = g_value_get_uint(value);
    } else if (const auto *real = std::get_if<gdouble Element::*>(&property.field)) {
      self->**real = g_value_get_double(value);
    }
  }

  static void set(GObject *object, guint id, const GValue *value, GParamSpec *) {
    auto *self = reinterpret_cast<Element *>(object);
    const Property &property = table[id - 1];
    GST_OBJECT_LOCK(self);
    assign(self, property, value);
    GST_OBJECT_UNLOCK(self);
    if (property.changed != nullptr) property.changed(self);
  }

  static void get(GObject *object, guint id, GValue *value, GParamSpec *) {
    auto *self = reinterpret_cast<Element *>(object);
    const Field &field = table[id - 1].field;
    GST_OBJECT_LOCK(self);
    if (const auto *text = std::get_if<gchar *Element::*>(&field)) {
      g_value_set_string(value, self->**text);
    } else if (const auto *number = std::get_if<guint Element::*>(&field)) {
      g_value_set_uint(value, self->**number);
    } else if (const auto *real = std::get_if<gdouble Element::*>(&field)) {
      g_value_set_double(value, self->**real);
    } else {
      g_value_take_boxed(value, std::get<Made>(field)(self));
    }
    GST_OBJECT_UNLOCK(self);
  }
};

}  // namespace uare::gst
