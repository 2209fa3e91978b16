#include <new>

#include "chosen.hpp"
#include "uare_cpu.h"

using namespace uare::cpu;

namespace {

const SampleCode &code_for(int32_t bits) {
  const Variant &variant = *chosen().load();
  return bits == 8 ? variant.eight : variant.sixteen;
}

std::size_t size_of(int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace

int32_t uare_blend_part(const uare_blend *part, double *sums) {
  try {
    sums[0] = sums[1] = 0;
    code_for(part->bits).blend(*part, sums);
  } catch (const std::bad_alloc &) {
    return 1;
  }
  return 0;
}

void uare_drift(int32_t bits, const void *frame, const void *reference, int64_t samples, float steady, float *changes) {
  code_for(bits).drift(frame, reference, size_of(samples), steady, changes);
}

float uare_greatest(const float *values, int64_t count) { return chosen().load()->greatest_of(values, size_of(count)); }

void uare_add(int32_t bits, const void *base, const float *changes, int64_t samples, float response, void *out) {
  code_for(bits).add(base, changes, size_of(samples), response, out);
}

void uare_tone(int32_t bits, const void *frame, int64_t frame_line, int32_t height, int32_t width, const float *table,
               float *out) {
  const std::size_t bytes = static_cast<std::size_t>(bits) / 8, row = size_of(width), plane = size_of(height) * row;
  for (std::size_t y = 0; y < size_of(height); ++y)
    code_for(bits).tone(static_cast<const char *>(frame) + y * size_of(frame_line) * bytes, row, table, plane, out + y * row);
}

void uare_place(int32_t bits, const float *planes, int64_t plane, int64_t line, int32_t height, int32_t width, void *out,
                int64_t out_line) {
  const std::size_t bytes = static_cast<std::size_t>(bits) / 8;
  for (std::size_t y = 0; y < size_of(height); ++y)
    code_for(bits).place(planes + y * size_of(line), size_of(width), size_of(plane),
                         static_cast<char *>(out) + y * size_of(out_line) * bytes);
}
