#include "colour.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "frame_layout.hpp"

namespace uare {
namespace {

struct Coefficients {
  float kr;
  float kb;
  [[nodiscard]] float kg() const noexcept { return 1.0F - kr - kb; }
};

Coefficients coefficients(const uare_frame &frame) noexcept {
  switch (matrix_of(frame)) {
    case UARE_MATRIX_BT709:
      return {0.2126F, 0.0722F};
    case UARE_MATRIX_BT2020:
      return {0.2627F, 0.0593F};
    default:
      return {0.299F, 0.114F};
  }
}

// Code values of one depth and range: value = (code - offset) / span.
struct Codes {
  float luma_offset;
  float luma_span;
  float chroma_offset;
  float chroma_span;
  float top;  // largest code
};

Codes codes(const uare_frame &frame, int bits) noexcept {
  const auto unit = static_cast<float>(1 << (bits - 8));
  const float top = 256.0F * unit - 1.0F;
  if (frame.range == UARE_RANGE_FULL) return {0.0F, top, 128.0F * unit, top, top};
  return {16.0F * unit, 219.0F * unit, 128.0F * unit, 224.0F * unit, top};
}

// Where samples of one frame lie and how they are stored; Stored is the type of a sample in memory.
template <typename Stored>
struct Planes {
  static constexpr int kShift = sizeof(Stored) == 2 ? 6 : 0;  // P010 keeps its 10 bits at the top

  explicit Planes(const uare_frame &f)
      : frame(f), interleaved(f.format != UARE_FORMAT_I420), columns((f.width + 1) / 2), rows((f.height + 1) / 2) {}

  [[nodiscard]] static float load(Stored stored) noexcept { return static_cast<float>(stored >> kShift); }
  [[nodiscard]] static Stored store(float code, float top) noexcept {
    const float inside = code < 0.0F ? 0.0F : (code > top ? top : code);
    return static_cast<Stored>(static_cast<int>(rounded(inside)) << kShift);
  }
  [[nodiscard]] Stored *luma(std::size_t y) const noexcept {
    return reinterpret_cast<Stored *>(writable_row(frame, 0, y));
  }
  // First sample of Cb (part 0) or Cr (part 1) of a chroma row, and the step to the next.
  [[nodiscard]] Stored *chroma(std::size_t y, std::size_t part) const noexcept {
    if (interleaved) return reinterpret_cast<Stored *>(writable_row(frame, 1, y)) + part;
    return reinterpret_cast<Stored *>(writable_row(frame, 1 + part, y));
  }
  [[nodiscard]] std::size_t step() const noexcept { return interleaved ? 2 : 1; }

  const uare_frame &frame;
  bool interleaved;
  std::size_t columns;
  std::size_t rows;
};

// One row of chroma at full width, from the two chroma rows that lie next to it.
template <typename Stored>
void upsample_row(const Planes<Stored> &planes, std::size_t y, std::size_t part, std::vector<float> &half,
                  std::vector<float> &full) {
  std::size_t near = y / 2, far = near;
  float weight = 0.0F;  // of the far row
  if (planes.frame.siting == UARE_SITING_TOP_LEFT) {
    if (y % 2 == 1) far = std::min(near + 1, planes.rows - 1), weight = 0.5F;
  } else {
    far = y % 2 == 1 ? std::min(near + 1, planes.rows - 1) : (near == 0 ? 0 : near - 1);
    weight = 0.25F;
  }
  const Stored *a = planes.chroma(near, part), *b = planes.chroma(far, part);
  const std::size_t step = planes.step(), columns = planes.columns;
  for (std::size_t x = 0; x < columns; ++x) {
    half[x + 1] = (1.0F - weight) * planes.load(a[x * step]) + weight * planes.load(b[x * step]);
  }
  half[0] = half[1];
  half[columns + 1] = half[columns];
  const float *centre = half.data() + 1;
  if (planes.frame.siting == UARE_SITING_CENTRE) {
    for (std::size_t x = 0; x < columns; ++x) {
      full[2 * x] = 0.75F * centre[x] + 0.25F * half[x];
      full[2 * x + 1] = 0.75F * centre[x] + 0.25F * half[x + 2];
    }
  } else {
    for (std::size_t x = 0; x < columns; ++x) {
      full[2 * x] = centre[x];
      full[2 * x + 1] = 0.5F * (centre[x] + half[x + 2]);
    }
  }
}

template <typename Stored, typename Sample>
void to_rgb(const uare_frame &frame, const View<Sample> &target) {
  const Planes<Stored> planes(frame);
  const Codes code = codes(frame, sizeof(Stored) == 2 ? 10 : 8);
  const Coefficients k = coefficients(frame);
  const float red = 2.0F * (1.0F - k.kr), blue = 2.0F * (1.0F - k.kb);
  const float green_b = blue * k.kb / k.kg(), green_r = red * k.kr / k.kg();
  const float luma_gain = 1.0F / code.luma_span, chroma_gain = 1.0F / code.chroma_span;
  const std::size_t width = frame.width;
  std::vector<float> half(planes.columns + 2), cb(planes.columns * 2), cr(planes.columns * 2);
  std::vector<float> r(width), g(width), b(width);
  for (std::size_t y = 0; y < frame.height; ++y) {
    upsample_row(planes, y, 0, half, cb);
    upsample_row(planes, y, 1, half, cr);
    const Stored *luma = planes.luma(y);
    for (std::size_t x = 0; x < width; ++x) {
      const float l = (planes.load(luma[x]) - code.luma_offset) * luma_gain;
      const float u = (cb[x] - code.chroma_offset) * chroma_gain;
      const float v = (cr[x] - code.chroma_offset) * chroma_gain;
      r[x] = rounded(clipped(l + red * v) * kFullScale<Sample>);
      g[x] = rounded(clipped(l - green_b * u - green_r * v) * kFullScale<Sample>);
      b[x] = rounded(clipped(l + blue * u) * kFullScale<Sample>);
    }
    Sample *out = target.row(y);
    for (std::size_t x = 0; x < width; ++x) {
      out[3 * x] = static_cast<Sample>(r[x]);
      out[3 * x + 1] = static_cast<Sample>(g[x]);
      out[3 * x + 2] = static_cast<Sample>(b[x]);
    }
  }
}

// Rows of floats: a picture's channels in [0, 1], and full chroma as code values before rounding.
struct Channels {
  float *r, *g, *b;
  float *cb, *cr;
};

// Luma and full chroma of one row of pixels. What is constant comes by value: the bytes that are written could lie in
// what a reference leads to, and nothing would be vectorised.
template <typename Stored, typename Sample>
void encode_row(const Sample *in, std::size_t width, const Codes code, const Coefficients k, Stored *luma,
                const Channels to) {
  for (std::size_t x = 0; x < width; ++x) {
    to.r[x] = to_unit(in[3 * x]);
    to.g[x] = to_unit(in[3 * x + 1]);
    to.b[x] = to_unit(in[3 * x + 2]);
  }
  const float to_cb = 0.5F / (1.0F - k.kb) * code.chroma_span, to_cr = 0.5F / (1.0F - k.kr) * code.chroma_span;
  for (std::size_t x = 0; x < width; ++x) {
    const float l = k.kr * to.r[x] + k.kg() * to.g[x] + k.kb * to.b[x];
    luma[x] = Planes<Stored>::store(l * code.luma_span + code.luma_offset, code.top);
    to.cb[x] = (to.b[x] - l) * to_cb + code.chroma_offset;
    to.cr[x] = (to.r[x] - l) * to_cr + code.chroma_offset;
  }
}

// One chroma row from rows of full chroma with their weights (1 2 1)/4 or (1 1)/2.
template <typename Stored>
void downsample_row(const Planes<Stored> &planes, std::size_t row, std::size_t part, const std::vector<float> &full,
                    float top) {
  Stored *out = planes.chroma(row, part);
  const std::size_t step = planes.step(), columns = planes.columns, last = planes.frame.width - 1;
  const bool centre = planes.frame.siting == UARE_SITING_CENTRE;
  const float side = centre ? 0.0F : 0.25F, middle = 0.5F, right_side = centre ? 0.5F : 0.25F;
  const auto put = [&](std::size_t x, std::size_t left, std::size_t right) {
    const float value = side * full[left] + middle * full[2 * x] + right_side * full[right];
    out[x * step] = planes.store(value, top);
  };
  // The edges apart: the loop between them reaches over nothing and is vectorised.
  put(0, 0, std::min<std::size_t>(1, last));
  for (std::size_t x = 1; x + 1 < columns; ++x) put(x, 2 * x - 1, 2 * x + 1);
  if (columns > 1) put(columns - 1, 2 * columns - 3, std::min(2 * columns - 1, last));
}

template <typename Stored, typename Sample>
void to_yuv(const View<const Sample> &source, const uare_frame &frame) {
  const Planes<Stored> planes(frame);
  const Codes code = codes(frame, sizeof(Stored) == 2 ? 10 : 8);
  const Coefficients k = coefficients(frame);
  const std::size_t width = frame.width, height = frame.height;
  const bool cosited_rows = frame.siting == UARE_SITING_TOP_LEFT;
  // Rows of Cb and Cr: the one above, the even one and the odd one of a chroma row.
  std::vector<float> rows[3][2], mixed(width), r(width), g(width), b(width);
  for (auto &pair : rows) {
    for (auto &row : pair) row.resize(width);
  }
  const auto encode = [&](std::size_t y, std::vector<float> *chroma) {
    const Channels channels = {r.data(), g.data(), b.data(), chroma[0].data(), chroma[1].data()};
    encode_row(source.row(y), width, code, k, planes.luma(y), channels);
  };
  for (std::size_t row = 0; row < planes.rows; ++row) {
    rows[0][0].swap(rows[2][0]);
    rows[0][1].swap(rows[2][1]);
    encode(2 * row, rows[1]);
    if (2 * row + 1 < height) {
      encode(2 * row + 1, rows[2]);
    } else {
      rows[2][0] = rows[1][0];
      rows[2][1] = rows[1][1];
    }
    for (std::size_t part = 0; part < 2; ++part) {
      const auto &even = rows[1][part], &odd = rows[2][part], &above = row == 0 ? even : rows[0][part];
      for (std::size_t x = 0; x < width; ++x) {
        mixed[x] = cosited_rows ? 0.25F * above[x] + 0.5F * even[x] + 0.25F * odd[x] : 0.5F * (even[x] + odd[x]);
      }
      downsample_row(planes, row, part, mixed, code.top);
    }
  }
}

}  // namespace

uare_matrix matrix_of(const uare_frame &frame) noexcept {
  if (frame.matrix != UARE_MATRIX_GUESS) return frame.matrix;
  return frame.width >= 1280 || frame.height > 576 ? UARE_MATRIX_BT709 : UARE_MATRIX_BT601;
}

void yuv_to_rgb(const uare_frame &frame, const View<std::uint8_t> &target) { to_rgb<std::uint8_t>(frame, target); }
void yuv_to_rgb(const uare_frame &frame, const View<std::uint16_t> &target) { to_rgb<std::uint16_t>(frame, target); }
void rgb_to_yuv(const View<const std::uint8_t> &source, const uare_frame &frame) {
  to_yuv<std::uint8_t>(source, frame);
}
void rgb_to_yuv(const View<const std::uint16_t> &source, const uare_frame &frame) {
  to_yuv<std::uint16_t>(source, frame);
}

}  // namespace uare
