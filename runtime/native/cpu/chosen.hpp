// The instructions that are used.
#pragma once

#include <atomic>

#include "variant.hpp"

namespace uare::cpu {

[[nodiscard]] std::atomic<const Variant *> &chosen();

}  // namespace uare::cpu
