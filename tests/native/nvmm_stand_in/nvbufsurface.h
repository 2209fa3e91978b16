/* A stand-in of the part of NVIDIA's nvbufsurface.h that the plugin uses, with the names of the original. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NVBUF_MAX_PLANES 4

typedef enum { NVBUF_LAYOUT_PITCH, NVBUF_LAYOUT_BLOCK_LINEAR } NvBufSurfaceLayout;
typedef enum { NVBUF_MAP_READ, NVBUF_MAP_WRITE, NVBUF_MAP_READ_WRITE } NvBufSurfaceMemMapFlags;

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
  uint32_t dataSize;
  NvBufSurfaceLayout layout;
  void *dataPtr;
  NvBufSurfacePlaneParams planeParams;
  NvBufSurfaceMappedAddr mappedAddr;
} NvBufSurfaceParams;

typedef struct {
  uint32_t batchSize;
  uint32_t numFilled;
  NvBufSurfaceParams *surfaceList;
} NvBufSurface;

int NvBufSurfaceMap(NvBufSurface *surface, int index, int plane, NvBufSurfaceMemMapFlags type);
int NvBufSurfaceUnMap(NvBufSurface *surface, int index, int plane);
int NvBufSurfaceSyncForCpu(NvBufSurface *surface, int index, int plane);

#ifdef __cplusplus
}
#endif
