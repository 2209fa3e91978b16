#include "bundle.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>

#include "failure.hpp"
#include "quality.hpp"
#include "views.hpp"

namespace uare {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char *kManifest = "manifest.json";
constexpr const char *kFloat32 = "_fp32";  // ends the name of a graph that lies beside the same one in INT8
constexpr int kSchemaVersion = 1;
constexpr std::array<const char *, kSlots> kSlotNames = {"quality",        "noise",     "blur", "compression",
                                                         "low_resolution", "low_light", "haze"};
// Above any real value; keeps products of sizes from a hostile manifest inside std::size_t.
constexpr std::size_t kMaxSize = 1U << 20;
constexpr std::size_t kMaxManifestBytes = std::size_t{64} << 20;

[[noreturn]] void fail(const fs::path &bundle, const std::string &what) {
  throw Failure(UARE_ERROR_BUNDLE, "bundle " + bundle.string() + ": " + what);
}

std::string sha256(const fs::path &bundle, const fs::path &path) {
  std::ifstream stream(path, std::ios::binary);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> digest(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (digest == nullptr) throw std::bad_alloc();
  bool good = stream.is_open() && EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr) == 1;
  std::vector<char> chunk(std::size_t{1} << 20);
  while (good && stream) {
    stream.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    good = EVP_DigestUpdate(digest.get(), chunk.data(), static_cast<std::size_t>(stream.gcount())) == 1;
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> value{};
  unsigned length = 0;
  if (!good || stream.bad() || EVP_DigestFinal_ex(digest.get(), value.data(), &length) != 1) {
    fail(bundle, path.filename().string() + " cannot be read; copy or export the bundle again");
  }
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    text += "0123456789abcdef"[value[i] >> 4];
    text += "0123456789abcdef"[value[i] & 15];
  }
  return text;
}

bool stays_inside(const std::string &name) {
  if (name.empty() || name.find_first_of(std::string("\\:\0", 3)) != std::string::npos) return false;
  const fs::path path(name);
  return path.is_relative() && name.back() != '/' && name.find("//") == std::string::npos &&
         std::none_of(path.begin(), path.end(), [](const fs::path &part) { return part == "." || part == ".."; });
}

void check_file(const fs::path &bundle, const std::string &name, const json &entry) {
  if (!stays_inside(name)) fail(bundle, "path \"" + name + "\" of its manifest does not stay inside the bundle");
  std::error_code error;
  const fs::path root = fs::canonical(bundle, error), real = fs::canonical(bundle / name, error);
  if (error) fail(bundle, "file \"" + name + "\" is missing; copy or export the bundle again");
  if (std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first != root.end()) {
    fail(bundle, "\"" + name + "\" leads out of the bundle to " + real.string() + "; refused");
  }
  if (!fs::is_regular_file(real, error)) fail(bundle, "\"" + name + "\" is not a regular file");
  const auto size = fs::file_size(real, error), stated = entry.at("bytes").get<std::uintmax_t>();
  if (error || size != stated) {
    fail(bundle, name + " has " + std::to_string(size) + " bytes, not the " + std::to_string(stated) +
                     " of the manifest; it is incomplete or was changed, copy or export the bundle again");
  }
  const auto digest = sha256(bundle, real), expected = entry.at("sha256").get<std::string>();
  if (digest != expected) {
    fail(bundle, "SHA-256 of " + name + " is " + digest.substr(0, 12) + "..., the manifest says " +
                     expected.substr(0, 12) + "...; the file is damaged or was changed, copy or export it again");
  }
}

std::size_t size_at(const json &object, const char *key, std::size_t least) {
  const json &value = object.at(key);
  const auto number = value.is_number_unsigned() ? value.get<std::uint64_t>() : std::uint64_t{0};
  if (!value.is_number_unsigned() || number < least || number > kMaxSize) {
    throw std::out_of_range(std::string(key) + " is " + value.dump() + ", expected a whole number from " +
                            std::to_string(least));
  }
  return static_cast<std::size_t>(number);
}

json read_manifest(const fs::path &bundle) {
  std::error_code error;
  if (!fs::exists(bundle, error)) {
    throw Failure(UARE_ERROR_BUNDLE, "no bundle at " + bundle.string() + "; name a directory NAME.uare");
  }
  if (!fs::is_directory(bundle, error)) fail(bundle, "it is a file, but a bundle is a directory NAME.uare");
  const fs::path path = bundle / kManifest;
  if (!fs::is_regular_file(path, error)) fail(bundle, "it is not a bundle: it has no manifest.json");
  if (fs::file_size(path, error) > kMaxManifestBytes || error) fail(bundle, "manifest.json is not a manifest: too large");
  std::ifstream stream(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  json manifest = json::parse(text, nullptr, false);
  if (manifest.is_discarded() || !manifest.is_object()) {
    fail(bundle, "manifest.json is not valid JSON; it is cut short or damaged, copy or export it again");
  }
  return manifest;
}

void read_values(const json &manifest, Bundle &bundle) {
  bundle.name = manifest.at("name").get<std::string>();
  for (const json &scale : manifest.at("scales")) bundle.scales.push_back(scale.get<std::size_t>());
  if (manifest.at("slots") != json(kSlotNames)) {
    throw std::out_of_range("slots are " + manifest.at("slots").dump() + ", this uare-rt knows " +
                            json(kSlotNames).dump());
  }
  const json &views = manifest.at("views");
  if (size_at(views, "size", 1) != kViewSize || size_at(views, "crops", 1) != kCrops) {
    throw std::out_of_range("views are " + views.dump() + ", this uare-rt makes " + std::to_string(kCrops) +
                            " crops of " + std::to_string(kViewSize) + " px");
  }
  const json &context = manifest.at("context");
  bundle.context = {size_at(context, "layers", 1), size_at(context, "kv_heads", 1), size_at(context, "tokens", 1),
                    size_at(context, "head_dim", 1), size_at(context, "vector", 1)};
  const json &tiling = manifest.at("tiling");
  bundle.tiling = {size_at(tiling, "multiple", 1), size_at(tiling, "grid", 1), size_at(tiling, "before", 0),
                   size_at(tiling, "after", 0), tiling.value("bytes_per_pixel", 256.0)};
  if (bundle.tiling.grid % bundle.tiling.multiple != 0 || !(bundle.tiling.bytes_per_pixel > 0)) {
    throw std::out_of_range("tiling is " + tiling.dump() + ", its grid must be a multiple of its multiple");
  }
  const json &files = manifest.at("files");
  const auto listed = [&](const json &owner) {
    const auto file = owner.at("file").get<std::string>();
    if (!files.contains(file)) throw std::out_of_range("file \"" + file + "\" is used but not listed in files");
    return bundle.path / file;
  };
  for (const auto &[name, graph] : manifest.at("graphs").items()) {
    for (const json &input : graph.at("inputs")) {
      if (input.at("dtype") != "float32") {
        throw std::out_of_range("graph " + name + " takes " + input.at("dtype").dump() +
                                ", this library gives float32");
      }
    }
    bundle.graphs[name] = listed(graph);
    if (graph.at("precision") == "int8") bundle.quantised.insert(name);
    // null where none was built, "pending" where a device has yet to compile it.
    const json engine = graph.value("engine", json());
    if (engine.is_object()) bundle.engines[name] = listed(engine);
  }
  // This library does not measure which of the two is faster, and INT8 mostly is not.
  for (auto &[name, file] : bundle.graphs) {
    const auto exact = bundle.graphs.find(name + kFloat32);
    if (exact == bundle.graphs.end()) continue;
    file = exact->second;
    bundle.quantised.erase(name);
  }
  if (bundle.graphs.count("assess") == 0) throw std::out_of_range("graphs lacks assess");
  for (const std::size_t scale : bundle.scales) {
    if (bundle.graphs.count("restore_x" + std::to_string(scale)) == 0) {
      throw std::out_of_range("graphs lacks restore_x" + std::to_string(scale));
    }
  }
}

}  // namespace

Bundle open_bundle(const char *path) {
  Bundle bundle;
  bundle.path = path;
  const json manifest = read_manifest(bundle.path);
  try {
    const auto version = manifest.at("schema_version").get<int>();
    if (version > kSchemaVersion) {
      fail(bundle.path, "its manifest has schema version " + std::to_string(version) + ", this uare-rt reads up to " +
                            std::to_string(kSchemaVersion) + ": install a newer one");
    }
    read_values(manifest, bundle);
    for (const auto &[name, entry] : manifest.at("files").items()) check_file(bundle.path, name, entry);
  } catch (const json::exception &error) {
    fail(bundle.path, std::string("manifest.json is invalid: ") + error.what() + "; export the bundle again");
  } catch (const std::out_of_range &error) {
    fail(bundle.path, std::string("manifest.json is invalid: ") + error.what() + "; export the bundle again");
  } catch (const fs::filesystem_error &error) {
    fail(bundle.path, error.what());
  }
  return bundle;
}

}  // namespace uare
