/* The C interface over the null engine: what it returns, what it refuses and what it says then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uare_rt.h"

static int failures = 0;

/* assert() is compiled out of release builds, which are the ones that are tested. */
#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                               \
    }                                                                           \
  } while (0)

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
  CHECK(uare_process(session, &source, &target) == UARE_OK);
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
  CHECK(uare_open("nano.uare", NULL, 0, &session) == UARE_ERROR_BACKEND);
  CHECK(session == NULL);
  CHECK(last_error_is(UARE_ERROR_BACKEND, "backend=null"));

  const char *unavailable[] = {"backend=tensorrt"};
  CHECK(uare_open("nano.uare", unavailable, 1, &session) == UARE_ERROR_BACKEND);
  CHECK(last_error_is(UARE_ERROR_BACKEND, "\"tensorrt\""));

  const char *wrong[][2] = {
      {"backend=null", "scale=3"}, {"backend=null", "scale="},  {"backend=null", "scale"},
      {"backend=null", "sclae=2"}, {"backend=null", "=2"},      {"backend=null", NULL},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    CHECK(uare_open(NULL, wrong[i], 2, &session) == UARE_ERROR_ARGUMENT);
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

  CHECK(uare_process(NULL, &good_input, &good_output) == UARE_ERROR_ARGUMENT);
  CHECK(uare_process(session, NULL, &good_output) == UARE_ERROR_ARGUMENT);
  CHECK(uare_process(session, &good_input, NULL) == UARE_ERROR_ARGUMENT);
  CHECK(last_error_is(UARE_ERROR_ARGUMENT, "output"));

  uare_frame bad = good_input;
  bad.struct_size = 4;
  CHECK(uare_process(session, &bad, &good_output) == UARE_ERROR_STRUCT_SIZE);
  bad = good_input;
  bad.format = 77;
  CHECK(uare_process(session, &bad, &good_output) == UARE_ERROR_FORMAT);
  CHECK(last_error_is(UARE_ERROR_FORMAT, "77"));
  bad = good_input;
  bad.height = 0;
  CHECK(uare_process(session, &bad, &good_output) == UARE_ERROR_SHAPE);
  bad = good_input;
  bad.stride[0] = WIDTH * 3 - 1;
  CHECK(uare_process(session, &bad, &good_output) == UARE_ERROR_SHAPE);
  CHECK(last_error_is(UARE_ERROR_SHAPE, "14"));
  bad = good_input;
  bad.stride[0] = SIZE_MAX;
  CHECK(uare_process(session, &bad, &good_output) == UARE_ERROR_SHAPE);
  bad = good_input;
  bad.plane[0] = NULL;
  CHECK(uare_process(session, &bad, &good_output) == UARE_ERROR_ARGUMENT);
  bad = good_output;
  bad.width = WIDTH - 1;
  CHECK(uare_process(session, &good_input, &bad) == UARE_ERROR_SHAPE);

  for (size_t i = 0; i < sizeof output; ++i) CHECK(output[i] == PADDING);
  CHECK(uare_process(session, &good_input, &good_output) == UARE_OK);
  CHECK(output[0] == 0);
  uare_close(session);
  uare_close(NULL);
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
  test_last_error_refuses();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
