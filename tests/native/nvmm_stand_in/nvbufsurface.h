/* A stand-in of the part of NVIDIA's nvbufsurface.h that the plugin uses, with the names of the original. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NVBUF_MAX_PLANES 4

typedef enum { NVBUF_LAYOUT_PITCH, NVBUF_LAYOUT_BLOCK_LINEAR } NvBufSurfaceLayout;
typedef enum { NVBUF_MAP_READ, NVBUF_MAP_WRITE, NVBUF_MAP_READ_WRITE } NvBufSurfaceMemMapFlags;
typedef enum {
  NVBUF_MEM_DEFAULT,
  NVBUF_MEM_CUDA_PINNED,
  NVBUF_MEM_CUDA_DEVICE,
  NVBUF_MEM_CUDA_UNIFIED,
  NVBUF_MEM_SURFACE_ARRAY
} NvBufSurfaceMemType;

/* The original has many more. */
typedef enum {
  NVBUF_COLOR_FORMAT_INVALID,
  NVBUF_COLOR_FORMAT_YUV420,
  NVBUF_COLOR_FORMAT_YUV420_ER,
  NVBUF_COLOR_FORMAT_YUV420_709,
  NVBUF_COLOR_FORMAT_YUV420_709_ER,
  NVBUF_COLOR_FORMAT_YUV420_2020,
  NVBUF_COLOR_FORMAT_NV12,
  NVBUF_COLOR_FORMAT_NV12_ER,
  NVBUF_COLOR_FORMAT_NV12_709,
  NVBUF_COLOR_FORMAT_NV12_709_ER,
  NVBUF_COLOR_FORMAT_NV12_2020,
  NVBUF_COLOR_FORMAT_NV12_10LE,
  NVBUF_COLOR_FORMAT_NV12_10LE_ER,
  NVBUF_COLOR_FORMAT_NV12_10LE_709,
  NVBUF_COLOR_FORMAT_NV12_10LE_709_ER,
  NVBUF_COLOR_FORMAT_NV12_10LE_2020,
  NVBUF_COLOR_FORMAT_RGBA
} NvBufSurfaceColorFormat;

typedef struct {
  uint32_t num_planes;
  uint32_t pitch[NVBUF_MAX_PLANES];
  uint32_t offset[NVBUF_MAX_PLANES];
  uint32_t psize[NVBUF_MAX_PLANES];
} NvBufSurfacePlaneParams;

typedef struct {
  void *addr[NVBUF_MAX_PLANES];
} NvBufSurfaceMappedAddr;

typedef struct {
  uint32_t width;
  uint32_t height;
  NvBufSurfaceColorFormat colorFormat;
  NvBufSurfaceLayout layout;
  uint32_t dataSize;
  void *dataPtr;
  NvBufSurfacePlaneParams planeParams;
  NvBufSurfaceMappedAddr mappedAddr;
} NvBufSurfaceParams;

typedef struct {
  uint32_t gpuId;
  uint32_t batchSize;
  uint32_t numFilled;
  NvBufSurfaceMemType memType;
  NvBufSurfaceParams *surfaceList;
} NvBufSurface;

typedef struct {
  uint32_t gpuId;
  uint32_t width;
  uint32_t height;
  uint32_t size;
  bool isContiguous;
  NvBufSurfaceColorFormat colorFormat;
  NvBufSurfaceLayout layout;
  NvBufSurfaceMemType memType;
} NvBufSurfaceCreateParams;

int NvBufSurfaceCreate(NvBufSurface **surface, uint32_t count, NvBufSurfaceCreateParams *params);
int NvBufSurfaceDestroy(NvBufSurface *surface);
int NvBufSurfaceMap(NvBufSurface *surface, int index, int plane, NvBufSurfaceMemMapFlags type);
int NvBufSurfaceUnMap(NvBufSurface *surface, int index, int plane);
int NvBufSurfaceSyncForCpu(NvBufSurface *surface, int index, int plane);
int NvBufSurfaceSyncForDevice(NvBufSurface *surface, int index, int plane);

/* Of the stand-in only: which kind of memory this machine has (a Jetson's by default), and how many surfaces live. */
extern NvBufSurfaceMemType stand_in_memory;
extern int stand_in_surfaces;

#ifdef __cplusplus
}
#endif
