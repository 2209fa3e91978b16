#include "engine.hpp"

#include <string>

#include "failure.hpp"

namespace uare {
namespace {

// In the order in which "auto" takes them; the last entry is none.
constexpr EngineEntry kEngines[] = {
#ifdef UARE_HAS_TENSORRT
    {"tensorrt", make_tensorrt_engine, true},
#endif
#ifdef UARE_HAS_OPENVINO
    {"openvino", make_openvino_engine, false},
#endif
    {nullptr, nullptr, false},
};

std::string built_in() {
  std::string names;
  for (const EngineEntry *entry = kEngines; entry->name != nullptr; ++entry) names += std::string(entry->name) + ", ";
  return names + "null";
}

}  // namespace

const EngineEntry *find_engine(const std::string &backend) {
  if (backend == "null") return nullptr;
  for (const EngineEntry *entry = kEngines; entry->name != nullptr; ++entry) {
    if (backend == "auto" || backend == entry->name) return entry;
  }
  throw Failure(UARE_ERROR_BACKEND, "backend \"" + backend + "\" is not built into this library: it has backend=" +
                                        built_in());
}

const EngineEntry *best_engine(const Bundle &bundle) {
  for (const EngineEntry *entry = kEngines; entry->name != nullptr; ++entry) {
    if (!entry->compiled || !bundle.engines.empty()) return entry;
  }
  return kEngines;
}

}  // namespace uare
