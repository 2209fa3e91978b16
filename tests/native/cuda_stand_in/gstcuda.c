/* The stand-in's library. As in the original, what the processor maps is a copy of what the device has, made at its
 * first map, and copied back when the device's side is mapped next. */
#include "gstcuda.h"

#include <gst/video/video.h>
#include <string.h>

enum { PITCH_ALIGN = 256 };
#define NEED_UPLOAD GST_MEMORY_FLAG_LAST
#define NEED_DOWNLOAD (GST_MEMORY_FLAG_LAST << 1)

gboolean stand_in_driver = TRUE;
int stand_in_uploads = 0, stand_in_downloads = 0;

struct _GstCudaContext {
  GstObject parent;
};
typedef GstObjectClass GstCudaContextClass;
GType gst_cuda_context_get_type(void);
G_DEFINE_TYPE(GstCudaContext, gst_cuda_context, GST_TYPE_OBJECT)
static void gst_cuda_context_init(GstCudaContext *context) { (void)context; }
static void gst_cuda_context_class_init(GstCudaContextClass *klass) { (void)klass; }

gboolean gst_cuda_load_library(void) { return stand_in_driver; }

void gst_cuda_memory_init_once(void) {}

GstCudaContext *gst_cuda_context_new(guint device_id) {
  if (device_id != 0) return NULL;
  return gst_object_ref_sink(g_object_new(gst_cuda_context_get_type(), NULL));
}

GstContext *gst_context_new_cuda_context(GstCudaContext *context) {
  GstContext *carrier = gst_context_new(GST_CUDA_CONTEXT_TYPE, TRUE);
  gst_structure_set(gst_context_writable_structure(carrier), GST_CUDA_CONTEXT_TYPE, gst_cuda_context_get_type(),
                    context, NULL);
  return carrier;
}

gboolean gst_cuda_handle_set_context(GstElement *element, GstContext *carrier, gint device_id,
                                     GstCudaContext **context) {
  (void)element;
  if (device_id != -1 || !gst_context_has_context_type(carrier, GST_CUDA_CONTEXT_TYPE)) return FALSE;
  if (*context != NULL) return TRUE;
  return gst_structure_get(gst_context_get_structure(carrier), GST_CUDA_CONTEXT_TYPE, gst_cuda_context_get_type(),
                           context, NULL);
}

gboolean gst_cuda_ensure_element_context(GstElement *element, gint device_id, GstCudaContext **context) {
  const char *pads[] = {"src", "sink"};
  for (int i = 0; i < 2 && *context == NULL; ++i) {
    GstPad *pad = gst_element_get_static_pad(element, pads[i]);
    GstQuery *query = gst_query_new_context(GST_CUDA_CONTEXT_TYPE);
    GstContext *carrier = NULL;
    if (gst_pad_peer_query(pad, query)) gst_query_parse_context(query, &carrier);
    if (carrier != NULL) gst_element_set_context(element, carrier);
    gst_query_unref(query);
    gst_object_unref(pad);
  }
  if (*context == NULL) *context = gst_cuda_context_new(device_id < 0 ? 0 : (guint)device_id);
  return *context != NULL;
}

gboolean gst_cuda_handle_context_query(GstElement *element, GstQuery *query, GstCudaContext *context) {
  const gchar *type = NULL;
  (void)element;
  gst_query_parse_context_type(query, &type);
  if (strcmp(type, GST_CUDA_CONTEXT_TYPE) != 0) return FALSE;
  GstContext *carrier = gst_context_new_cuda_context(context);
  gst_query_set_context(query, carrier);
  gst_context_unref(carrier);
  return TRUE;
}

typedef struct {
  GstMemory parent;
  GstCudaContext *context;
  guint8 *device, *staging;
} CudaMemory;

typedef GstAllocator CudaAllocator;
typedef GstAllocatorClass CudaAllocatorClass;
GType cuda_allocator_get_type(void);
G_DEFINE_TYPE(CudaAllocator, cuda_allocator, GST_TYPE_ALLOCATOR)

static gpointer map(GstMemory *memory, gsize size, GstMapFlags flags) {
  CudaMemory *self = (CudaMemory *)memory;
  (void)size;
  if ((flags & GST_MAP_CUDA) != 0) {
    if (GST_MEMORY_FLAG_IS_SET(memory, NEED_UPLOAD)) {
      memcpy(self->device, self->staging, memory->size);
      ++stand_in_uploads;
    }
    GST_MEMORY_FLAG_UNSET(memory, NEED_UPLOAD);
    if ((flags & GST_MAP_WRITE) != 0) GST_MINI_OBJECT_FLAG_SET(memory, NEED_DOWNLOAD);
    return self->device;
  }
  if (self->staging == NULL) {
    self->staging = g_malloc(memory->size);
    GST_MINI_OBJECT_FLAG_SET(memory, NEED_DOWNLOAD);
  }
  if (GST_MEMORY_FLAG_IS_SET(memory, NEED_DOWNLOAD)) {
    memcpy(self->staging, self->device, memory->size);
    ++stand_in_downloads;
  }
  GST_MEMORY_FLAG_UNSET(memory, NEED_DOWNLOAD);
  if ((flags & GST_MAP_WRITE) != 0) GST_MINI_OBJECT_FLAG_SET(memory, NEED_UPLOAD);
  return self->staging;
}

static void unmap(GstMemory *memory) { (void)memory; }

static void free_memory(GstAllocator *allocator, GstMemory *memory) {
  CudaMemory *self = (CudaMemory *)memory;
  (void)allocator;
  gst_object_unref(self->context);
  g_free(self->device);
  g_free(self->staging);
  g_free(self);
}

static void cuda_allocator_init(CudaAllocator *allocator) {
  allocator->mem_type = "CUDAMemory";
  allocator->mem_map = map;
  allocator->mem_unmap = unmap;
  GST_OBJECT_FLAG_SET(allocator, GST_ALLOCATOR_FLAG_CUSTOM_ALLOC);
}

static void cuda_allocator_class_init(CudaAllocatorClass *klass) { klass->free = free_memory; }

GstCudaContext *stand_in_context(GstBuffer *buffer) {
  return ((CudaMemory *)gst_buffer_peek_memory(buffer, 0))->context;
}

typedef struct {
  GstBufferPool parent;
  GstCudaContext *context;
  GstAllocator *allocator;
  GstVideoInfo info; /* as laid out */
} GstCudaBufferPool;
typedef GstBufferPoolClass GstCudaBufferPoolClass;
GType gst_cuda_buffer_pool_get_type(void);
G_DEFINE_TYPE(GstCudaBufferPool, gst_cuda_buffer_pool, GST_TYPE_BUFFER_POOL)

static gboolean set_config(GstBufferPool *pool, GstStructure *config) {
  GstVideoInfo *info = &((GstCudaBufferPool *)pool)->info;
  GstVideoAlignment alignment;
  GstCaps *caps = NULL;
  guint least = 0, most = 0;
  if (!gst_buffer_pool_config_get_params(config, &caps, NULL, &least, &most) || caps == NULL ||
      !gst_video_info_from_caps(info, caps)) {
    return FALSE;
  }
  gst_video_alignment_reset(&alignment);
  for (guint i = 0; i < GST_VIDEO_INFO_N_PLANES(info); ++i) alignment.stride_align[i] = PITCH_ALIGN - 1;
  gst_video_info_align(info, &alignment);
  gst_buffer_pool_config_set_params(config, caps, (guint)info->size, least, most);
  return GST_BUFFER_POOL_CLASS(gst_cuda_buffer_pool_parent_class)->set_config(pool, config);
}

static GstFlowReturn alloc_buffer(GstBufferPool *pool, GstBuffer **buffer, GstBufferPoolAcquireParams *params) {
  GstCudaBufferPool *self = (GstCudaBufferPool *)pool;
  GstVideoInfo *info = &self->info;
  CudaMemory *memory = g_new0(CudaMemory, 1);
  (void)params;
  memory->context = gst_object_ref(self->context);
  memory->device = g_malloc(info->size);
  memset(memory->device, 0xDD, info->size);
  gst_memory_init(GST_MEMORY_CAST(memory), 0, self->allocator, NULL, info->size, 0, 0, info->size);
  *buffer = gst_buffer_new();
  gst_buffer_append_memory(*buffer, GST_MEMORY_CAST(memory));
  gst_buffer_add_video_meta_full(*buffer, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_INFO_FORMAT(info),
                                 (guint)info->width, (guint)info->height, GST_VIDEO_INFO_N_PLANES(info), info->offset,
                                 info->stride);
  return GST_FLOW_OK;
}

static void finalize(GObject *object) {
  GstCudaBufferPool *self = (GstCudaBufferPool *)object;
  gst_clear_object(&self->context);
  gst_clear_object(&self->allocator);
  G_OBJECT_CLASS(gst_cuda_buffer_pool_parent_class)->finalize(object);
}

static void gst_cuda_buffer_pool_init(GstCudaBufferPool *pool) {
  pool->allocator = gst_object_ref_sink(g_object_new(cuda_allocator_get_type(), NULL));
}

static void gst_cuda_buffer_pool_class_init(GstCudaBufferPoolClass *klass) {
  G_OBJECT_CLASS(klass)->finalize = finalize;
  klass->set_config = set_config;
  klass->alloc_buffer = alloc_buffer;
}

GstBufferPool *gst_cuda_buffer_pool_new(GstCudaContext *context) {
  GstCudaBufferPool *pool = g_object_new(gst_cuda_buffer_pool_get_type(), NULL);
  gst_object_ref_sink(pool);
  pool->context = gst_object_ref(context);
  return GST_BUFFER_POOL_CAST(pool);
}
