/* The stand-in's library. What is mapped shows nothing of the surface until it is synchronised for the processor, and
 * the surface nothing of what was written until it is synchronised for the device. */
#include "nvbufsurface.h"

#include <stdlib.h>
#include <string.h>

enum { PITCH_ALIGN = 256 };

NvBufSurfaceMemType stand_in_memory = NVBUF_MEM_SURFACE_ARRAY;
int stand_in_surfaces = 0;

/* Rows of all planes at one pitch, as on the device. */
static void lay_out(NvBufSurfaceParams *params, uint32_t planes, uint32_t bytes) {
  NvBufSurfacePlaneParams *plane = &params->planeParams;
  const bool packed = planes == 1;
  plane->num_planes = planes;
  for (uint32_t i = 0; i < planes; ++i) {
    const uint32_t columns = i == 0 ? params->width : (params->width + 1) / 2;
    const uint32_t rows = i == 0 ? params->height : (params->height + 1) / 2;
    const uint32_t each = packed ? bytes : planes == 2 && i == 1 ? 2 * bytes : bytes;
    plane->pitch[i] = (columns * each + PITCH_ALIGN - 1) / PITCH_ALIGN * PITCH_ALIGN;
    plane->offset[i] = params->dataSize;
    plane->psize[i] = plane->pitch[i] * rows;
    params->dataSize += plane->psize[i];
  }
}

int NvBufSurfaceCreate(NvBufSurface **surface, uint32_t count, NvBufSurfaceCreateParams *asked) {
  const NvBufSurfaceColorFormat format = asked->colorFormat;
  if (count != 1 || asked->memType != stand_in_memory || asked->layout != NVBUF_LAYOUT_PITCH || asked->size != 0 ||
      format == NVBUF_COLOR_FORMAT_INVALID) {
    return -1;
  }
  NvBufSurface *made = calloc(1, sizeof *made);
  NvBufSurfaceParams *params = made->surfaceList = calloc(1, sizeof *params);
  made->batchSize = 1;
  made->memType = asked->memType;
  params->width = asked->width;
  params->height = asked->height;
  params->colorFormat = format;
  if (format == NVBUF_COLOR_FORMAT_RGBA) {
    lay_out(params, 1, 4);
  } else if (format < NVBUF_COLOR_FORMAT_NV12) {
    lay_out(params, 3, 1);
  } else {
    lay_out(params, 2, format < NVBUF_COLOR_FORMAT_NV12_10LE ? 1 : 2);
  }
  params->dataPtr = malloc(params->dataSize);
  memset(params->dataPtr, 0xDD, params->dataSize);
  ++stand_in_surfaces;
  *surface = made;
  return 0;
}

int NvBufSurfaceDestroy(NvBufSurface *surface) {
  if (surface->surfaceList->mappedAddr.addr[0] != NULL) return -1;
  free(surface->surfaceList->dataPtr);
  free(surface->surfaceList);
  free(surface);
  --stand_in_surfaces;
  return 0;
}

int NvBufSurfaceMap(NvBufSurface *surface, int index, int plane, NvBufSurfaceMemMapFlags type) {
  NvBufSurfaceParams *params = &surface->surfaceList[index];
  if (plane != -1 || type == NVBUF_MAP_WRITE || params->mappedAddr.addr[0] != NULL) return -1;
  for (uint32_t i = 0; i < params->planeParams.num_planes; ++i) {
    params->mappedAddr.addr[i] = malloc(params->planeParams.psize[i]);
    memset(params->mappedAddr.addr[i], 0xEE, params->planeParams.psize[i]);
  }
  return 0;
}

static int synchronise(NvBufSurface *surface, int index, int plane, bool to_device) {
  NvBufSurfaceParams *params = &surface->surfaceList[index];
  if (plane != -1) return -1;
  for (uint32_t i = 0; i < params->planeParams.num_planes; ++i) {
    char *device = (char *)params->dataPtr + params->planeParams.offset[i];
    char *mapped = params->mappedAddr.addr[i];
    memcpy(to_device ? device : mapped, to_device ? mapped : device, params->planeParams.psize[i]);
  }
  return 0;
}

int NvBufSurfaceSyncForCpu(NvBufSurface *surface, int index, int plane) {
  return synchronise(surface, index, plane, false);
}

int NvBufSurfaceSyncForDevice(NvBufSurface *surface, int index, int plane) {
  return synchronise(surface, index, plane, true);
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
