/* A stand-in of the part of GStreamer's CUDA library (gst/cuda/gstcuda.h) that the plugin loads, and of its memory. */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_CUDA_CONTEXT_TYPE "gst.cuda.context"
#define GST_MAP_CUDA (GST_MAP_FLAG_LAST << 1)

typedef struct _GstCudaContext GstCudaContext;

gboolean gst_cuda_load_library(void);
void gst_cuda_memory_init_once(void);
GstCudaContext *gst_cuda_context_new(guint device_id);
gboolean gst_cuda_ensure_element_context(GstElement *element, gint device_id, GstCudaContext **context);
gboolean gst_cuda_handle_set_context(GstElement *element, GstContext *carrier, gint device_id,
                                     GstCudaContext **context);
gboolean gst_cuda_handle_context_query(GstElement *element, GstQuery *query, GstCudaContext *context);
GstContext *gst_context_new_cuda_context(GstCudaContext *context);
GstBufferPool *gst_cuda_buffer_pool_new(GstCudaContext *context);

/* Of the stand-in only: whether there is a driver, copies made so far, and the context that a buffer's memory is of. */
extern gboolean stand_in_driver;
extern int stand_in_uploads, stand_in_downloads;
GstCudaContext *stand_in_context(GstBuffer *buffer);

G_END_DECLS
