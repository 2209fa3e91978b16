/*
 * Restores one binary PPM: restore NAME.uare in.ppm out.ppm
 * cc restore.c -o restore $(pkg-config --cflags --libs uare_rt)
 */
#include <stdio.h>
#include <stdlib.h>
#include <uare_rt.h>

static int failed(const char *what) {
  uare_error error = {sizeof error, UARE_OK, ""};
  uare_last_error(&error);
  fprintf(stderr, "error: %s: %s\n", what, error.message);
  return EXIT_FAILURE;
}

int main(int argc, char **argv) {
  if (argc != 4) return fprintf(stderr, "usage: restore NAME.uare in.ppm out.ppm\n"), 2;
  unsigned width = 0, height = 0;
  FILE *in = fopen(argv[2], "rb");
  if (in == NULL || fscanf(in, "P6 %u %u 255", &width, &height) != 2 || fgetc(in) == EOF) return failed(argv[2]);
  const size_t size = (size_t)width * height * 3;
  unsigned char *pixels = malloc(2 * size);
  if (pixels == NULL || fread(pixels, 1, size, in) != size) return failed(argv[2]);
  fclose(in);

  const char *options[] = {"scale=1", "strength=1"};
  uare_session *session = NULL;
  if (uare_open(argv[1], options, 2, &session) != UARE_OK) return failed(argv[1]);
  const uare_frame before = {sizeof before, UARE_FORMAT_RGB24, width, height, {pixels}, {width * 3u}, 0, 0, 0, 0};
  uare_frame after = before;
  after.plane[0] = pixels + size;
  uare_assessment verdict = {.struct_size = sizeof verdict};
  if (uare_assess(session, &before, &verdict) != UARE_OK) return failed("assess");
  printf("score %.2f: %s\n", verdict.score, verdict.description);
  if (uare_process(session, &before, &after, NULL) != UARE_OK) return failed("process");
  uare_close(session);

  FILE *out = fopen(argv[3], "wb");
  if (out == NULL || fprintf(out, "P6\n%u %u\n255\n", width, height) < 0) return failed(argv[3]);
  if (fwrite(pixels + size, 1, size, out) != size || fclose(out) != 0) return failed(argv[3]);
  free(pixels);
  return EXIT_SUCCESS;
}
