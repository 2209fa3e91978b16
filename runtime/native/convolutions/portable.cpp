// For every processor whose compiler knows vectors of four floats: NEON, SSE.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "variant.hpp"

namespace uare::convolutions {
namespace {

#if defined(__aarch64__)
constexpr int kLanes = 4, kRows = 6, kWide = 4;  // of 32 registers
#else
constexpr int kLanes = 4, kRows = 2, kWide = 4;  // of 16
#endif
#include "kernels.inc"
#include "tokens.inc"

}  // namespace

const Variant kPortable = {"portable", convolve_3x3, convolve_stem, convolve_down, convolve_up, run_windows};

}  // namespace uare::convolutions
