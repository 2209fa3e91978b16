/*
 * uare_rt.h: the C interface of uare-rt.
 *
 * Groups
 *   library     uare_abi_version, uare_version
 *   session     uare_open, uare_query, uare_set, uare_close
 *   frames      uare_process, uare_assess, uare_last_assessment
 *   context     uare_context_update, uare_context_control
 *   errors      uare_last_error
 *
 * Ownership
 *   The caller owns every struct and every pixel buffer; the library keeps no pointer to them after a call returns.
 *   A uare_session belongs to the caller from uare_open until uare_close. Strings that the library returns are its own:
 *   those of uare_info live until uare_close, those of uare_assessment until its next assessment or uare_close.
 *
 * Threads
 *   Different sessions may be used by different threads at the same time. One session takes one call at a time:
 *   a call that meets another one on the same session returns UARE_ERROR_BUSY and does nothing.
 *   uare_close may meet another call on its session: that call finishes, later ones return UARE_ERROR_CLOSED.
 *   The last error is kept per thread.
 *
 * Extension
 *   Set struct_size to sizeof the struct before passing it: a later library then knows which fields the caller has.
 *   A size that this library does not know is refused with UARE_ERROR_STRUCT_SIZE. Set the whole struct to zero first:
 *   zero is the default of every field, of those to come too.
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
#define UARE_ABI_VERSION 2u

/* Values that a call can return. They are never renumbered. */
typedef int32_t uare_status;
#define UARE_OK 0
#define UARE_ERROR_ARGUMENT 1    /* a null pointer, an unknown option or a value outside its range */
#define UARE_ERROR_STRUCT_SIZE 2 /* struct_size is not one that this library knows */
#define UARE_ERROR_FORMAT 3      /* a pixel format, matrix, range or siting that this library does not take */
#define UARE_ERROR_SHAPE 4       /* width, height or stride do not fit */
#define UARE_ERROR_BACKEND 5     /* the engine asked for is not built in, or failed */
#define UARE_ERROR_MEMORY 6      /* out of memory */
#define UARE_ERROR_BUSY 7        /* another thread is inside a call on the same session */
#define UARE_ERROR_INTERNAL 8    /* a defect of the library: please report the message */
#define UARE_ERROR_BUNDLE 9      /* the bundle is missing, damaged, altered or too new */
#define UARE_ERROR_CLOSED 10     /* the session was closed, or is no session */

/* Pixel formats. 4:2:0 chroma planes have (width + 1) / 2 columns and (height + 1) / 2 rows. */
typedef uint32_t uare_format;
#define UARE_FORMAT_RGB24 1u /* 8 bits each of R, G, B; one plane */
#define UARE_FORMAT_RGBA 2u  /* 8 bits each of R, G, B, A (straight alpha, kept or enlarged); one plane */
#define UARE_FORMAT_NV12 3u  /* 8 bits; plane 0 is Y, plane 1 is Cb and Cr in turn */
#define UARE_FORMAT_I420 4u  /* 8 bits; planes Y, Cb, Cr */
#define UARE_FORMAT_P010 5u  /* 10 bits in the upper bits of 16, little endian; planes as NV12; strides are even */

/* How YUV numbers mean colours (docs/colour.md). Ignored for RGB formats. */
typedef uint32_t uare_matrix;
#define UARE_MATRIX_GUESS 0u /* BT.709 from 1280 px of width or above 576 lines, else BT.601 */
#define UARE_MATRIX_BT601 1u
#define UARE_MATRIX_BT709 2u
#define UARE_MATRIX_BT2020 3u /* non-constant luminance */
typedef uint32_t uare_range;
#define UARE_RANGE_LIMITED 0u
#define UARE_RANGE_FULL 1u
typedef uint32_t uare_siting;
#define UARE_SITING_LEFT 0u     /* MPEG-2, H.264: with the left luma column, between two rows */
#define UARE_SITING_CENTRE 1u   /* JPEG, MPEG-1: between two columns and two rows */
#define UARE_SITING_TOP_LEFT 2u /* BT.2020, DV: with the upper left luma sample */

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
  uare_matrix matrix;
  uare_range range;
  uare_siting siting;
  uint32_t reserved; /* 0 */
} uare_frame;

/* What a session is, and what it has done. */
typedef struct uare_info {
  uint32_t struct_size; /* sizeof(uare_info) */
  uint32_t scale;       /* output size over input size */
  uint32_t formats;     /* bit 1 << UARE_FORMAT_... is set for every format it takes */
  uint32_t multiple;    /* sides are padded to this inside; any size from 1x1 is taken */
  const char *engine;   /* "openvino", "tensorrt" or "null" */
  const char *model;    /* name in the bundle; "null" without one */
  uint64_t frames;      /* frames that uare_process has given back */
  uint64_t restored;    /* of them through the engine; the others were copied or enlarged only */
  uint64_t assessed;    /* assessments made, by whatever call */
  uint64_t scenes;      /* first frames and cuts seen by uare_process */
  uint64_t latency_ns;  /* mean time of the last restored frames, newest weigh most; 0 before the first */
  uint64_t latency_max_ns;
} uare_info;

/* How good a frame is and what is wrong with it. */
typedef struct uare_assessment {
  uint32_t struct_size; /* sizeof(uare_assessment) */
  float score;          /* 1 (bad) to 5 (excellent); MOS-like, not from human ratings */
  float noise;          /* severities: 0 (none) to 1 (severe) */
  float blur;
  float compression;
  float low_resolution;
  float low_light;
  float haze;
  const char *description; /* one English sentence */
} uare_assessment;

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
 * Opens a bundle: checks every file of it, loads its graphs and keeps them. Its files are not needed afterwards.
 * The openvino engine computes in float32: of a bundle that holds float32 graphs beside those in INT8 it takes float32,
 * and graphs that are in INT8 alone, for a GPU, run with their roundings and give the quality that was proven.
 *
 *   bundle        path of a NAME.uare directory; the null engine reads none and takes NULL
 *   options       option_count strings "key=value"; NULL when there are none; given twice, the later one counts
 *                   backend=auto|openvino|tensorrt|null
 *                                         auto, the default: the first of tensorrt, openvino that is built in
 *                                         (tensorrt only for bundles with compiled engines);
 *                                         null: the identity, repeats pixels; for integrators' own tests
 *                   scale=1|2|4           output size over input size; default 1
 *                   strength=0..1         0 keeps the frame (bicubically enlarged), 1, the default, restores fully
 *                   assess-interval=0..   frames between two assessments inside a scene, default 30; 0: cuts only
 *                   skip-above=1..6       frames of scenes above this score are not restored; default 6: never
 *                   threads=1..           processor threads for one frame; default: the cores of this process
 *                   tile=PX               largest side of a tile; default: from the memory at hand
 *   session       receives the handle, or NULL when the call fails
 */
UARE_API uare_status uare_open(const char *bundle, const char *const *options, size_t option_count,
                               uare_session **session);

/* Fills `info`; its struct_size is set by the caller. */
UARE_API uare_status uare_query(uare_session *session, uare_info *info);

/* Changes "strength=...", "assess-interval=..." or "skip-above=..." from the next frame on. */
UARE_API uare_status uare_set(uare_session *session, const char *option);

/*
 * Restores one frame. `output` must have the format of `input`, be `scale` times as wide and high, and not overlap it;
 * bytes between the end of a row and the next stride are left as they are. `input` is not written to. A call that is
 * refused leaves `output` alone; one whose engine fails (UARE_ERROR_BACKEND, _MEMORY) may have written a part of it.
 * Unless the context is frozen it follows the frames: it is taken anew at the first frame and at every cut, and
 * every assess-interval frames it moves towards the frame's own.
 *
 *   cuda_stream   a cudaStream_t for the engine's work; NULL for the engine's own. The call returns when the
 *                 output is complete. Engines without CUDA refuse anything but NULL.
 */
UARE_API uare_status uare_process(uare_session *session, const uare_frame *input, const uare_frame *output,
                                  void *cuda_stream);

/* Assesses one frame. The context that guides uare_process is not touched. */
UARE_API uare_status uare_assess(uare_session *session, const uare_frame *input, uare_assessment *assessment);

/* The session's newest assessment, by whatever call it was made; a score of 0 and "" before the first. */
UARE_API uare_status uare_last_assessment(uare_session *session, uare_assessment *assessment);

/*
 * Assesses one frame and moves the context towards it: (1 - weight) * context + weight * frame's. A weight of 1 takes
 * the frame's own, and so does the first update of a session. `assessment` may be NULL.
 */
UARE_API uare_status uare_context_update(uare_session *session, const uare_frame *input, float weight,
                                         uare_assessment *assessment);

/* What uare_context_control does. */
typedef uint32_t uare_context_action;
#define UARE_CONTEXT_FOLLOW 0u /* let uare_process follow the frames again; how every session starts */
#define UARE_CONTEXT_FREEZE 1u /* keep the context; the next frame gives it where there is none yet */
#define UARE_CONTEXT_RESET 2u  /* forget it: the next frame starts a scene (after a seek, a new source) */
UARE_API uare_status uare_context_control(uare_session *session, uare_context_action action);

/* Fills `error` with this thread's last failure; status is UARE_OK and message is "" when there was none. */
UARE_API uare_status uare_last_error(uare_error *error);

/* Frees the session. NULL is allowed and does nothing; a second close of the same handle does nothing either. */
UARE_API void uare_close(uare_session *session);

#ifdef __cplusplus
}
#endif

#endif /* UARE_RT_H */
