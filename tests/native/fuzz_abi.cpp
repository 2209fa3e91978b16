// libFuzzer: options and frames of any content over the null engine must end in a status, never in a crash.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "uare_rt.h"

namespace {

constexpr std::size_t kMemory = 1U << 14;

struct Reader {
  const std::uint8_t *data;
  std::size_t left;

  template <typename Value>
  Value take() {
    Value value{};
    const std::size_t size = left < sizeof value ? left : sizeof value;
    std::memcpy(&value, data, size);
    data += size;
    left -= size;
    return value;
  }
};

// Planes point into memory of a known size; a frame that claims more is one that a caller got wrong, not the library.
bool fill(Reader &reader, uare_frame &frame, std::vector<std::uint8_t> &memory) {
  frame = reader.take<uare_frame>();
  std::uint64_t bytes = 0;
  for (int i = 0; i < 4; ++i) {
    const auto where = reinterpret_cast<std::uintptr_t>(frame.plane[i]);
    frame.plane[i] = where % 8 == 0 ? nullptr : memory.data() + where % 64;
    if (frame.stride[i] > kMemory) continue;
    bytes = std::max<std::uint64_t>(bytes, 64 + std::uint64_t{frame.stride[i]} * frame.height);
  }
  if (reader.take<std::uint8_t>() % 4 != 0) {
    frame.struct_size = sizeof frame;
    frame.format = 1 + frame.format % 5;
    frame.width = 1 + frame.width % 16;
    frame.height = 1 + frame.height % 16;
    frame.reserved = 0;
    bytes = 0;
    for (std::size_t &stride : frame.stride) {
      stride %= 128;
      bytes = std::max<std::uint64_t>(bytes, 64 + stride * 16 + 128);
    }
  }
  return bytes <= kMemory;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  static std::vector<std::uint8_t> memory[2] = {std::vector<std::uint8_t>(kMemory), std::vector<std::uint8_t>(kMemory)};
  Reader reader{data, size};
  std::vector<std::string> texts = {"backend=null"};
  for (int i = reader.take<std::uint8_t>() % 4; i > 0; --i) {
    const std::size_t length = std::min<std::size_t>(reader.take<std::uint8_t>() % 32, reader.left);
    texts.emplace_back(reinterpret_cast<const char *>(reader.data), length);
    reader.data += length;
    reader.left -= length;
  }
  std::vector<const char *> options;
  for (const std::string &text : texts) options.push_back(text.c_str());
  uare_session *session = nullptr;
  if (uare_open(nullptr, options.data(), options.size(), &session) != UARE_OK) {
    const char *plain[] = {"backend=null"};
    uare_open(nullptr, plain, 1, &session);
  }
  uare_frame input, output;
  if (fill(reader, input, memory[0]) && fill(reader, output, memory[1])) {
    uare_process(session, &input, &output, nullptr);
    output = input;
    for (void *&plane : output.plane) {
      if (plane != nullptr) plane = memory[1].data() + (static_cast<std::uint8_t *>(plane) - memory[0].data());
    }
    uare_process(session, &input, &output, nullptr);
    auto verdict = reader.take<uare_assessment>();
    uare_assess(session, &input, &verdict);
    uare_context_update(session, &input, reader.take<float>(), nullptr);
  }
  uare_context_control(session, reader.take<std::uint32_t>());
  if (texts.size() > 1) uare_set(session, texts.back().c_str());
  uare_close(session);
  return 0;
}
