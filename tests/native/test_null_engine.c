/* The C interface over the null engine: what it returns, what it refuses and what it says then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "uare_rt.h"

enum { WIDTH = 5, HEIGHT = 3, INPUT_STRIDE = WIDTH * 3 + 2, PADDING = 0xEE };

static uare_frame frame(void *pixels, uint32_t width, uint32_t height, size_t stride) {
  uare_frame view;
  memset(&view, 0, sizeof view);
  view.struct_size = sizeof view;
  view.format = UARE_FORMAT_RGB24;
  view.width = width;
  view.height = height;
  view.plane[0] = pixels;
  view.stride[0] = stride;
  return view;
}

static int last_error_is(uare_status status, const char *part) {
  uare_error error = {sizeof error, UARE_OK, NULL};
  return uare_last_error(&error) == UARE_OK && error.status == status && strstr(error.message, part) != NULL;
}

static uare_session *open_null(const char *scale) {
  const char *options[] = {"backend=null", scale};
  uare_session *session = NULL;
  CHECK(uare_open(NULL, options, 2, &session) == UARE_OK);
  CHECK(session != NULL);
  return session;
}

static void test_versions(void) {
  CHECK(uare_abi_version() == UARE_ABI_VERSION);
  CHECK(strcmp(uare_version(), EXPECTED_VERSION) == 0);
}

static void test_no_error_yet(void) { CHECK(last_error_is(UARE_OK, "")); }

static void test_pixels_are_repeated(uint32_t scale, const char *option) {
  unsigned char input[HEIGHT * INPUT_STRIDE];
  for (size_t i = 0; i < sizeof input; ++i) input[i] = (unsigned char)(i * 7 + 1);
  const size_t output_stride = WIDTH * scale * 3 + 4;
  const size_t output_size = output_stride * HEIGHT * scale;
  unsigned char *output = malloc(output_size);
  if (output == NULL) abort();
  memset(output, PADDING, output_size);

  uare_session *session = open_null(option);
  const uare_frame source = frame(input, WIDTH, HEIGHT, INPUT_STRIDE);
  const uare_frame target = frame(output, WIDTH * scale, HEIGHT * scale, output_stride);
  CHECK(uare_process(session, &source, &target, NULL) == UARE_OK);
  for (size_t y = 0; y < HEIGHT * scale; ++y) {
    for (size_t x = 0; x < WIDTH * scale; ++x) {
      CHECK(memcmp(output + y * output_stride + x * 3, input + y / scale * INPUT_STRIDE + x / scale * 3, 3) == 0);
    }
    for (size_t i = WIDTH * scale * 3; i < output_stride; ++i) CHECK(output[y * output_stride + i] == PADDING);
  }
  uare_close(session);
  free(output);
}

static void test_open_refuses(void) {
  uare_session *session = (uare_session *)&failures;
  const char *unavailable[] = {"backend=abacus"};
  CHECK(uare_open("nano.uare", unavailable, 1, &session) == UARE_ERROR_BACKEND);
  CHECK(session == NULL);
  CHECK(last_error_is(UARE_ERROR_BACKEND, "\"abacus\""));
  CHECK(last_error_is(UARE_ERROR_BACKEND, "null"));

  const char *wrong[] = {
      "scale=3",      "scale=",       "scale",        "sclae=2",       "=2",         "",
      "strength=1.1", "strength=-1",  "strength=nan", "strength=0,5",  "strength=",  "threads=0",
      "threads=-1",   "threads=9999", "tile=0",       "tile=12px",     "skip-above=7",
      "assess-interval=-1", "assess-interval=99999999999", NULL,
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    const char *options[] = {"backend=null", wrong[i]};
    CHECK(uare_open(NULL, options, 2, &session) == UARE_ERROR_ARGUMENT);
    CHECK(session == NULL);
  }
  CHECK(uare_open(NULL, NULL, 1, &session) == UARE_ERROR_ARGUMENT);
  CHECK(uare_open(NULL, unavailable, 1, NULL) == UARE_ERROR_ARGUMENT);

  char huge[2000];
  memset(huge, 'x', sizeof huge - 1);
  huge[sizeof huge - 1] = '\0';
  const char *long_option[] = {huge};
  CHECK(uare_open(NULL, long_option, 1, &session) == UARE_ERROR_ARGUMENT);
  CHECK(last_error_is(UARE_ERROR_ARGUMENT, "xxx"));
}

static void test_process_refuses(void) {
  unsigned char input[WIDTH * HEIGHT * 3] = {0};
  unsigned char output[WIDTH * HEIGHT * 3];
  memset(output, PADDING, sizeof output);
  uare_session *session = open_null("scale=1");
  const uare_frame good_input = frame(input, WIDTH, HEIGHT, WIDTH * 3);
  const uare_frame good_output = frame(output, WIDTH, HEIGHT, WIDTH * 3);

  CHECK(uare_process(NULL, &good_input, &good_output, NULL) == UARE_ERROR_ARGUMENT);
  CHECK(uare_process(session, NULL, &good_output, NULL) == UARE_ERROR_ARGUMENT);
  CHECK(uare_process(session, &good_input, NULL, NULL) == UARE_ERROR_ARGUMENT);
  CHECK(last_error_is(UARE_ERROR_ARGUMENT, "output"));

  uare_frame bad = good_input;
  bad.struct_size = 4;
  CHECK(uare_process(session, &bad, &good_output, NULL) == UARE_ERROR_STRUCT_SIZE);
  bad = good_input;
  bad.format = 77;
  CHECK(uare_process(session, &bad, &good_output, NULL) == UARE_ERROR_FORMAT);
  CHECK(last_error_is(UARE_ERROR_FORMAT, "77"));
  bad = good_input;
  bad.height = 0;
  CHECK(uare_process(session, &bad, &good_output, NULL) == UARE_ERROR_SHAPE);
  bad = good_input;
  bad.stride[0] = WIDTH * 3 - 1;
  CHECK(uare_process(session, &bad, &good_output, NULL) == UARE_ERROR_SHAPE);
  CHECK(last_error_is(UARE_ERROR_SHAPE, "14"));
  bad = good_input;
  bad.stride[0] = SIZE_MAX;
  CHECK(uare_process(session, &bad, &good_output, NULL) == UARE_ERROR_SHAPE);
  bad = good_input;
  bad.plane[0] = NULL;
  CHECK(uare_process(session, &bad, &good_output, NULL) == UARE_ERROR_ARGUMENT);
  bad = good_output;
  bad.width = WIDTH - 1;
  CHECK(uare_process(session, &good_input, &bad, NULL) == UARE_ERROR_SHAPE);

  for (size_t i = 0; i < sizeof output; ++i) CHECK(output[i] == PADDING);
  CHECK(uare_process(session, &good_input, &good_output, NULL) == UARE_OK);
  CHECK(output[0] == 0);
  uare_close(session);
  uare_close(NULL);
}

/* Every format: samples are repeated plane by plane, bytes between rows stay as they are. */
static void test_planes_are_repeated(uare_format format, uint32_t scale, const char *option) {
  enum { MAX = 64 * 64 };
  static unsigned char in[3][MAX], out[3][MAX];
  const int planes = format == UARE_FORMAT_I420 ? 3 : format == UARE_FORMAT_RGBA ? 1 : 2;
  const size_t bytes = format == UARE_FORMAT_P010 ? 2 : 1;
  uare_frame source = frame(NULL, WIDTH, HEIGHT, 0), target = frame(NULL, WIDTH * scale, HEIGHT * scale, 0);
  source.format = target.format = format;
  size_t pixel[3] = {bytes, 2 * bytes, 0};
  if (format == UARE_FORMAT_RGBA) pixel[0] = 4;
  if (format == UARE_FORMAT_I420) pixel[1] = pixel[2] = 1;
  for (int p = 0; p < planes; ++p) {
    for (size_t i = 0; i < MAX; ++i) in[p][i] = (unsigned char)(i * 13 + (size_t)p);
    memset(out[p], PADDING, MAX);
    const size_t columns = p == 0 ? WIDTH : (WIDTH + 1) / 2;
    const size_t wide = p == 0 ? target.width : (target.width + 1) / 2;
    source.plane[p] = in[p];
    target.plane[p] = out[p];
    source.stride[p] = columns * pixel[p] + 2 * bytes;
    target.stride[p] = wide * pixel[p] + 4 * bytes;
  }
  uare_session *session = open_null(option);
  CHECK(uare_process(session, &source, &target, NULL) == UARE_OK);
  for (int p = 0; p < planes; ++p) {
    const size_t wide = p == 0 ? target.width : (target.width + 1) / 2;
    const size_t high = p == 0 ? target.height : (target.height + 1) / 2;
    for (size_t y = 0; y < high; ++y) {
      for (size_t x = 0; x < wide; ++x) {
        const unsigned char *expected = in[p] + y / scale * source.stride[p] + x / scale * pixel[p];
        CHECK(memcmp(out[p] + y * target.stride[p] + x * pixel[p], expected, pixel[p]) == 0);
      }
      for (size_t i = wide * pixel[p]; i < target.stride[p]; ++i) CHECK(out[p][y * target.stride[p] + i] == PADDING);
    }
  }
  target.stride[planes - 1] -= 5 * bytes;
  CHECK(uare_process(session, &source, &target, NULL) == UARE_ERROR_SHAPE);
  target.stride[planes - 1] += 5 * bytes;
  target.plane[planes - 1] = NULL;
  CHECK(uare_process(session, &source, &target, NULL) == UARE_ERROR_ARGUMENT);
  target.plane[planes - 1] = in[0];
  CHECK(uare_process(session, &source, &target, NULL) == UARE_ERROR_ARGUMENT);
  CHECK(last_error_is(UARE_ERROR_ARGUMENT, "overlaps"));
  uare_close(session);
}

static void test_formats_refuse(void) {
  static unsigned char memory[2][1024];
  uare_session *session = open_null("scale=1");
  uare_frame in = frame(memory[0], 8, 8, 16), out = frame(memory[1], 8, 8, 16);
  in.format = out.format = UARE_FORMAT_P010;
  in.plane[1] = memory[0] + 256;
  out.plane[1] = memory[1] + 256;
  in.stride[1] = out.stride[1] = 16;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_OK);
  in.stride[0] = 17;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_ERROR_SHAPE);
  in.stride[0] = 16;
  in.plane[1] = memory[0] + 257;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_ERROR_SHAPE);
  in.plane[1] = memory[0] + 256;
  in.matrix = 4;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_ERROR_FORMAT);
  in.matrix = UARE_MATRIX_BT709;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_ERROR_FORMAT); /* the output says another */
  in.matrix = 0;
  in.reserved = 1;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_ERROR_ARGUMENT);
  in.reserved = 0;
  in.width = 1U << 30;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_ERROR_SHAPE);
  in.width = 8;
  CHECK(uare_process(session, &in, &out, memory) == UARE_ERROR_ARGUMENT); /* no CUDA here */
  in.format = UARE_FORMAT_NV12;
  CHECK(uare_process(session, &in, &out, NULL) == UARE_ERROR_FORMAT);
  uare_close(session);
}

static void test_query_set_and_context(void) {
  unsigned char input[WIDTH * HEIGHT * 3] = {0}, output[WIDTH * HEIGHT * 3];
  uare_session *session = open_null("scale=1");
  const uare_frame source = frame(input, WIDTH, HEIGHT, WIDTH * 3), target = frame(output, WIDTH, HEIGHT, WIDTH * 3);
  CHECK(uare_process(session, &source, &target, NULL) == UARE_OK);
  uare_assessment verdict = {sizeof verdict, 0, 0, 0, 0, 0, 0, 0, NULL};
  CHECK(uare_assess(session, &source, &verdict) == UARE_OK);
  CHECK(verdict.score == 3.0f && verdict.blur == 0.5f && strstr(verdict.description, "Fair quality") != NULL);
  CHECK(uare_context_update(session, &source, 0.5f, NULL) == UARE_OK);
  CHECK(uare_context_update(session, &source, 1.5f, &verdict) == UARE_ERROR_ARGUMENT);
  verdict.struct_size = 3;
  CHECK(uare_assess(session, &source, &verdict) == UARE_ERROR_STRUCT_SIZE);
  CHECK(uare_assess(session, &source, NULL) == UARE_ERROR_ARGUMENT);
  CHECK(uare_context_control(session, UARE_CONTEXT_FREEZE) == UARE_OK);
  CHECK(uare_context_control(session, UARE_CONTEXT_RESET) == UARE_OK);
  CHECK(uare_context_control(session, 9) == UARE_ERROR_ARGUMENT);

  uare_info info = {0};
  CHECK(uare_query(session, &info) == UARE_ERROR_STRUCT_SIZE);
  info.struct_size = sizeof info;
  CHECK(uare_query(session, &info) == UARE_OK);
  CHECK(info.scale == 1 && info.frames == 1 && info.restored == 0 && info.assessed == 2);
  CHECK(strcmp(info.engine, "null") == 0);
  CHECK((info.formats >> UARE_FORMAT_P010 & 1) == 1 && (info.formats & 1) == 0);
  CHECK(uare_query(session, NULL) == UARE_ERROR_ARGUMENT);

  CHECK(uare_set(session, "strength=0.25") == UARE_OK);
  CHECK(uare_set(session, "strength=2") == UARE_ERROR_ARGUMENT);
  CHECK(uare_set(session, "scale=2") == UARE_ERROR_ARGUMENT);
  CHECK(last_error_is(UARE_ERROR_ARGUMENT, "cannot change"));
  CHECK(uare_set(session, NULL) == UARE_ERROR_ARGUMENT);
  uare_close(session);
}

static void test_use_after_close(void) {
  unsigned char pixels[2][WIDTH * HEIGHT * 3] = {{0}};
  const uare_frame source = frame(pixels[0], WIDTH, HEIGHT, WIDTH * 3), target = frame(pixels[1], WIDTH, HEIGHT, WIDTH * 3);
  uare_session *session = open_null("scale=1"), *other = open_null("scale=1");
  uare_close(session);
  CHECK(uare_process(session, &source, &target, NULL) == UARE_ERROR_CLOSED);
  CHECK(last_error_is(UARE_ERROR_CLOSED, "closed"));
  uare_close(session);
  CHECK(uare_process((uare_session *)(uintptr_t)12345, &source, &target, NULL) == UARE_ERROR_CLOSED);
  CHECK(uare_process(other, &source, &target, NULL) == UARE_OK);
  uare_close(other);
}

static void test_last_error_refuses(void) {
  uare_error error = {1, UARE_OK, NULL};
  CHECK(uare_last_error(NULL) == UARE_ERROR_ARGUMENT);
  CHECK(uare_last_error(&error) == UARE_ERROR_STRUCT_SIZE);
  CHECK(error.message == NULL);
}

int main(void) {
  test_no_error_yet();
  test_versions();
  test_pixels_are_repeated(1, "scale=1");
  test_pixels_are_repeated(2, "scale=2");
  test_pixels_are_repeated(4, "scale=4");
  test_open_refuses();
  test_process_refuses();
  const uare_format formats[] = {UARE_FORMAT_RGBA, UARE_FORMAT_NV12, UARE_FORMAT_I420, UARE_FORMAT_P010};
  for (size_t i = 0; i < sizeof formats / sizeof formats[0]; ++i) {
    test_planes_are_repeated(formats[i], 1, "scale=1");
    test_planes_are_repeated(formats[i], 2, "scale=2");
    test_planes_are_repeated(formats[i], 4, "scale=4");
  }
  test_formats_refuse();
  test_query_set_and_context();
  test_use_after_close();
  test_last_error_refuses();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
