/* The stand-in's library. What is mapped shows nothing of the surface until it is synchronised. */
#include "nvbufsurface.h"

#include <stdlib.h>
#include <string.h>

int NvBufSurfaceMap(NvBufSurface *surface, int index, int plane, NvBufSurfaceMemMapFlags type) {
  NvBufSurfaceParams *params = &surface->surfaceList[index];
  if (plane != -1 || type != NVBUF_MAP_READ || params->mappedAddr.addr[0] != NULL) return -1;
  for (uint32_t i = 0; i < params->planeParams.num_planes; ++i) {
    params->mappedAddr.addr[i] = malloc(params->planeParams.psize[i]);
    memset(params->mappedAddr.addr[i], 0xEE, params->planeParams.psize[i]);
  }
  return 0;
}

int NvBufSurfaceSyncForCpu(NvBufSurface *surface, int index, int plane) {
  NvBufSurfaceParams *params = &surface->surfaceList[index];
  if (plane != -1) return -1;
  for (uint32_t i = 0; i < params->planeParams.num_planes; ++i) {
    const char *data = (const char *)params->dataPtr + params->planeParams.offset[i];
    memcpy(params->mappedAddr.addr[i], data, params->planeParams.psize[i]);
  }
  return 0;
}

int NvBufSurfaceUnMap(NvBufSurface *surface, int index, int plane) {
  NvBufSurfaceParams *params = &surface->surfaceList[index];
  if (plane != -1) return -1;
  for (uint32_t i = 0; i < params->planeParams.num_planes; ++i) {
    free(params->mappedAddr.addr[i]);
    params->mappedAddr.addr[i] = NULL;
  }
  return 0;
}
