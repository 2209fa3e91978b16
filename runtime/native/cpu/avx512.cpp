#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "variant.hpp"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC target("avx512f,prefer-vector-width=512")
#endif

namespace uare::cpu {
namespace {

constexpr int kLanes = 16, kRows = 12, kWide = 2;
constexpr bool kRounds = true;
#include "instructions.inc"

}  // namespace

const Variant kAvx512 = variant("avx512");

}  // namespace uare::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
