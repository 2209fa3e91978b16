// For every processor whose compiler knows vectors of four floats: NEON, SSE.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "variant.hpp"

namespace uare::cpu {
namespace {

#if defined(__aarch64__)
constexpr int kLanes = 4, kRows = 6, kWide = 4;  // of 32 registers
constexpr bool kRounds = true;
#else
constexpr int kLanes = 4, kRows = 2, kWide = 4;  // of 16
constexpr bool kRounds = false;
#endif
#include "instructions.inc"

}  // namespace

const Variant kPortable = variant("portable");

}  // namespace uare::cpu
