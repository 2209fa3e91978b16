#include "chosen.hpp"

#include <cstring>
#include <vector>

namespace uare::cpu {
namespace {

// What this processor runs, the best first.
const std::vector<const Variant *> &supported() {
  static const std::vector<const Variant *> variants = [] {
    std::vector<const Variant *> found;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) found.push_back(&kAvx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kAvx2);
#endif
    found.push_back(&kPortable);
    return found;
  }();
  return variants;
}

}  // namespace

std::atomic<const Variant *> &chosen() {
  static std::atomic<const Variant *> variant{supported().front()};
  return variant;
}

}  // namespace uare::cpu

using namespace uare::cpu;

int32_t uare_cpu_version(void) { return UARE_CPU_VERSION; }

const char *uare_cpu_variant(void) { return chosen().load()->name; }

int32_t uare_cpu_use(const char *variant) {
  for (const Variant *each : supported()) {
    if (std::strcmp(each->name, variant) == 0) {
      chosen() = each;
      return 0;
    }
  }
  return 1;
}
