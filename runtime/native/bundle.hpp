// Bundles: a directory NAME.uare with manifest.json and the files it names, all checked when it is opened.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tiling.hpp"

namespace uare {

struct ContextLayout {
  std::size_t layers = 0;
  std::size_t kv_heads = 0;
  std::size_t tokens = 0;
  std::size_t head_dim = 0;
  std::size_t vector = 0;

  [[nodiscard]] std::size_t keys() const noexcept { return layers * kv_heads * tokens * head_dim; }
};

struct Bundle {
  std::filesystem::path path;
  std::string name;
  std::vector<std::size_t> scales;
  ContextLayout context;
  Tiling tiling;
  std::map<std::string, std::filesystem::path> graphs;   // by name: assess, restore_x1, ...; in float32 if it has both
  std::set<std::string> quantised;                       // names of those in INT8
  std::map<std::string, std::filesystem::path> engines;  // of the graphs that were compiled
};

// Opens a bundle and checks presence, size and SHA-256 of every file. Throws Failure with UARE_ERROR_BUNDLE.
[[nodiscard]] Bundle open_bundle(const char *path);

}  // namespace uare
