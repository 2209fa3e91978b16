/*
 * uare_rt.h: the C interface of uare-rt.
 *
 * Groups
 *   library     uare_abi_version, uare_version
 *   session     uare_open, uare_close
 *   frames      uare_process
 *   errors      uare_last_error
 *
 * Ownership
 *   The caller owns every struct and every pixel buffer; the library keeps no pointer to them after a call returns.
 *   A uare_session belongs to the caller from uare_open until uare_close. Strings that the library returns are its own.
 *
 * Threads
 *   Different sessions may be used by different threads at the same time. One session takes one call at a time:
 *   a call that meets another one on the same session returns UARE_ERROR_BUSY and does nothing.
 *   uare_close must not meet any other call on its session. The last error is kept per thread.
 *
 * Extension
 *   Set struct_size to sizeof the struct before passing it: a later library then knows which fields the caller has.
 *   A size that this library does not know is refused with UARE_ERROR_STRUCT_SIZE.
 */
#ifndef UARE_RT_H
#define UARE_RT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define UARE_API __attribute__((visibility("default")))
#else
#define UARE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when a program built against an older header can no longer run with the library. */
#define UARE_ABI_VERSION 1u

/* Values that a call can return. They are never renumbered. */
typedef int32_t uare_status;
#define UARE_OK 0
#define UARE_ERROR_ARGUMENT 1    /* a null pointer, an unknown option or a value outside its range */
#define UARE_ERROR_STRUCT_SIZE 2 /* struct_size is not one that this library knows */
#define UARE_ERROR_FORMAT 3      /* a pixel format that this library does not take */
#define UARE_ERROR_SHAPE 4       /* width, height or stride do not fit */
#define UARE_ERROR_BACKEND 5     /* the engine asked for is not built into this library */
#define UARE_ERROR_MEMORY 6      /* out of memory */
#define UARE_ERROR_BUSY 7        /* another thread is inside a call on the same session */
#define UARE_ERROR_INTERNAL 8    /* a defect of the library: please report the message */

/* Pixel formats. */
typedef uint32_t uare_format;
#define UARE_FORMAT_RGB24 1u /* 8 bits each of R, G, B; one plane */

/* An opened engine. */
typedef struct uare_session uare_session;

/* A view of a picture in the caller's memory. Row r of plane p starts at plane[p] + r * stride[p]; unused planes are 0. */
typedef struct uare_frame {
  uint32_t struct_size; /* sizeof(uare_frame) */
  uare_format format;
  uint32_t width;  /* pixels */
  uint32_t height; /* pixels */
  void *plane[4];
  size_t stride[4]; /* bytes from one row to the next */
} uare_frame;

/* What went wrong in this thread's last failed call. The message lives until the thread's next call that fails. */
typedef struct uare_error {
  uint32_t struct_size; /* sizeof(uare_error) */
  uare_status status;
  const char *message;
} uare_error;

/* The ABI version of the library that is loaded: compare it with UARE_ABI_VERSION. */
UARE_API uint32_t uare_abi_version(void);

/* The version of uare-rt, such as "1.2.3". */
UARE_API const char *uare_version(void);

/*
 * Opens an engine.
 *
 *   bundle        path of a NAME.uare directory; the null engine reads none and takes NULL
 *   options       option_count strings "key=value"; NULL when there are none
 *                   backend=null   the identity: repeats pixels, computes nothing; for integrators' own tests
 *                   scale=1|2|4    output size over input size; 1 when not given
 *   session       receives the handle, or NULL when the call fails
 */
UARE_API uare_status uare_open(const char *bundle, const char *const *options, size_t option_count,
                               uare_session **session);

/*
 * Restores one frame. `output` must be `scale` times as wide and high as `input` and must not overlap it;
 * bytes between the end of a row and the next stride are left as they are. `input` is not written to.
 */
UARE_API uare_status uare_process(uare_session *session, const uare_frame *input, const uare_frame *output);

/* Fills `error` with this thread's last failure; status is UARE_OK and message is "" when there was none. */
UARE_API uare_status uare_last_error(uare_error *error);

/* Frees the session. NULL is allowed and does nothing. */
UARE_API void uare_close(uare_session *session);

#ifdef __cplusplus
}
#endif

#endif /* UARE_RT_H */
