#include "uare_cpu.h"

#include <algorithm>
#include <cstddef>
#include <new>
#include <system_error>
#include <vector>

#include "chosen.hpp"
#include "pool.hpp"

namespace uare::cpu {
namespace {

// Memory of this thread, aligned to vectors; kept for the next call.
float *scratch(std::size_t size) {
  struct Memory {
    float *floats = nullptr;
    std::size_t size = 0;
    ~Memory() { ::operator delete[](floats, std::align_val_t{64}); }
  };
  thread_local Memory memory;
  if (memory.size < size) {
    ::operator delete[](memory.floats, std::align_val_t{64});
    memory.size = 0;
    memory.floats = nullptr;
    memory.floats = static_cast<float *>(::operator new[](size * sizeof(float), std::align_val_t{64}));
    memory.size = size;
  }
  return memory.floats;
}

std::size_t size_of(int32_t value) { return static_cast<std::size_t>(value); }

}  // namespace
}  // namespace uare::cpu

using namespace uare::cpu;

uare_pool *uare_pool_open(int32_t threads) {
  try {
    return new uare_pool(std::max(1, threads));
  } catch (const std::bad_alloc &) {
    return nullptr;
  } catch (const std::system_error &) {
    return nullptr;
  }
}

void uare_pool_close(uare_pool *pool) { delete pool; }

int32_t uare_convolve_3x3(uare_pool *pool, const uare_convolution *layer) {
  const std::size_t tiles = (size_of(layer->height) + 3) / 4 * ((size_of(layer->width) + 3) / 4);
  return pool->run((tiles + kTiles - 1) / kTiles, [&](std::size_t at) {
    const std::size_t first = at * kTiles;
    chosen().load()->convolve_3x3(*layer, first, std::min<std::size_t>(kTiles, tiles - first), scratch(scratch_size(*layer)));
  });
}

void uare_filter(const float *weights, int32_t inputs, int32_t outputs, float *filtered) {
  static const float kFilter[6][3] = {{1.f / 4, 0, 0},
                                      {-1.f / 6, -1.f / 6, -1.f / 6},
                                      {-1.f / 6, 1.f / 6, -1.f / 6},
                                      {1.f / 24, 1.f / 12, 1.f / 6},
                                      {1.f / 24, -1.f / 12, 1.f / 6},
                                      {0, 0, 1}};
  for (std::size_t output = 0; output < size_of(outputs); ++output) {
    for (std::size_t input = 0; input < size_of(inputs); ++input) {
      const float *taps = weights + (output * size_of(inputs) + input) * 9;
      for (std::size_t y = 0; y < 6; ++y) {
        for (std::size_t x = 0; x < 6; ++x) {
          double sum = 0;
          for (std::size_t i = 0; i < 3; ++i)
            for (std::size_t j = 0; j < 3; ++j) sum += double{kFilter[y][i]} * double{kFilter[x][j]} * double{taps[i * 3 + j]};
          filtered[(((y * 6 + x) * size_of(outputs) / kBlock + output / kBlock) * size_of(inputs) + input) * kBlock +
                   output % kBlock] = static_cast<float>(sum);
        }
      }
    }
  }
}

int32_t uare_convolve_stem(uare_pool *pool, const uare_convolution *layer) {
  return pool->run(size_of(layer->height) / 2,
            [&](std::size_t row) { chosen().load()->convolve_stem(*layer, row, scratch(line_size(*layer))); });
}

int32_t uare_convolve_down(uare_pool *pool, const uare_convolution *layer) {
  return pool->run(size_of(layer->height) / 2, [&](std::size_t row) { chosen().load()->convolve_down(*layer, row); });
}

int32_t uare_convolve_up(uare_pool *pool, const uare_convolution *layer) {
  return pool->run(size_of(layer->height), [&](std::size_t row) { chosen().load()->convolve_up(*layer, row); });
}

int32_t uare_run_tokens(uare_pool *pool, const uare_tokens *tokens, int32_t height, int32_t width, float *map,
                        float *stream) {
  for (const bool shifted : {false, true}) {
    const int32_t side = tokens->side, more = side - 1 + (shifted ? side / 2 : 0);
    const std::size_t windows = size_of((height + more) / side) * size_of((width + more) / side);
    const int32_t failed = pool->run((windows + kWindows - 1) / kWindows, [&](std::size_t at) {
      const std::size_t first = at * kWindows;
      chosen().load()->run_windows(*tokens, shifted, first, std::min<std::size_t>(kWindows, windows - first), map, stream,
                           size_of(height), size_of(width), scratch(window_size(*tokens)));
    });
    if (failed) return failed;
  }
  return 0;
}

int32_t uare_shuffle(uare_pool *pool, const float *in, int32_t times, int32_t height, int32_t width, const float *base,
                  float *out) {
  const std::size_t r = size_of(times), w = size_of(width), line = w * kBlock, plane = size_of(height) * line;
  return pool->run(size_of(height), [&](std::size_t y) {
    for (std::size_t c = 0; c < 3; ++c) {
      for (std::size_t i = 0; i < r; ++i) {
        const std::size_t start = ((c * size_of(height) + y) * r + i) * w * r;
        for (std::size_t j = 0; j < r; ++j) {
          const std::size_t channel = (c * r + i) * r + j;
          const float *from = in + channel / kBlock * plane + y * line + channel % kBlock;
          for (std::size_t x = 0; x < w; ++x) out[start + x * r + j] = base[start + x * r + j] + from[x * kBlock];
        }
      }
    }
  });
}
