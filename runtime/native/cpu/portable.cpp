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
#include "convolutions.inc"
#include "tokens.inc"
#include "blending.inc"

}  // namespace

const Variant kPortable = {"portable",     convolve_3x3,        convolve_stem,         convolve_down, convolve_up,
                         run_windows, code<std::uint8_t>(), code<std::uint16_t>(), greatest_of};

}  // namespace uare::cpu
