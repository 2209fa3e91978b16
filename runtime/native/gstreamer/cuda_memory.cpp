// Not run on a GPU yet: tested against a stand-in of GStreamer's CUDA library, which is loaded when it is needed, so
// that the plugin works without it and is built without CUDA. Buffers of CUDA memory map themselves for the processor.
#include "cuda_memory.hpp"

#ifdef UARE_CUDA_MEMORY
#include <dlfcn.h>
#endif

namespace uare::gst {
#ifdef UARE_CUDA_MEMORY
namespace {

constexpr const char *kContextType = "gst.cuda.context";
constexpr gint kAnyDevice = -1;

// Functions of gst/cuda/gstcuda.h (GStreamer 1.22 and newer); a GstCudaContext is a GstObject.
struct Library {
  gboolean (*load)() = nullptr;
  void (*prepare_memory)() = nullptr;
  gboolean (*ensure_context)(GstElement *, gint, GstObject **) = nullptr;
  gboolean (*handle_set_context)(GstElement *, GstContext *, gint, GstObject **) = nullptr;
  gboolean (*handle_query)(GstElement *, GstQuery *, GstObject *) = nullptr;
  GstBufferPool *(*new_pool)(GstObject *) = nullptr;
  std::string failure;  // why it cannot be used, or ""

  Library() {
    void *loaded = dlopen("libgstcuda-1.0.so.0", RTLD_NOW | RTLD_LOCAL);
    if (loaded == nullptr) {
      failure = std::string("CUDA memory cannot be used: ") + dlerror() + "; put cudadownload and cudaupload around";
      return;
    }
    const auto find = [&](auto &function, const char *name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(loaded, name));
      if (function == nullptr) failure = std::string("libgstcuda lacks ") + name + ": GStreamer 1.22 or newer has it";
    };
    find(load, "gst_cuda_load_library");
    find(prepare_memory, "gst_cuda_memory_init_once");
    find(ensure_context, "gst_cuda_ensure_element_context");
    find(handle_set_context, "gst_cuda_handle_set_context");
    find(handle_query, "gst_cuda_handle_context_query");
    find(new_pool, "gst_cuda_buffer_pool_new");
    if (!failure.empty()) return;
    if (!load()) {
      failure = "CUDA memory cannot be used: this machine has no CUDA driver";
      return;
    }
    prepare_memory();
  }
};

const Library &library() {
  static const Library loaded;
  return loaded;
}

}  // namespace

bool is_cuda_pool(GstBufferPool *pool) {
  return pool != nullptr && g_strcmp0(G_OBJECT_TYPE_NAME(pool), "GstCudaBufferPool") == 0;
}

std::string new_cuda_pool(GstElement *element, GstObject **context, GstBufferPool **pool) {
  if (!library().failure.empty()) return library().failure;
  if (!library().ensure_context(element, kAnyDevice, context)) return "no CUDA context can be made on this machine";
  *pool = library().new_pool(*context);
  return *pool != nullptr ? "" : "no pool of CUDA memory can be made";
}

void keep_cuda_context(GstElement *element, GstContext *carrier, GstObject **context) {
  if (carrier == nullptr || !gst_context_has_context_type(carrier, kContextType) || !library().failure.empty()) return;
  library().handle_set_context(element, carrier, kAnyDevice, context);
}

bool answer_cuda_query(GstElement *element, GstQuery *query, GstObject *context) {
  return context != nullptr && library().handle_query(element, query, context);
}
#else

bool is_cuda_pool(GstBufferPool *) { return false; }
std::string new_cuda_pool(GstElement *, GstObject **, GstBufferPool **) { return "CUDA memory is not built in"; }
void keep_cuda_context(GstElement *, GstContext *, GstObject **) {}
bool answer_cuda_query(GstElement *, GstQuery *, GstObject *) { return false; }
#endif

}  // namespace uare::gst
