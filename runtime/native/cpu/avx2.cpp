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
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

namespace uare::cpu {
namespace {

constexpr int kLanes = 8, kRows = 6, kWide = 2;
constexpr bool kRounds = true;
#include "instructions.inc"

}  // namespace

const Variant kAvx2 = variant("avx2");

}  // namespace uare::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
