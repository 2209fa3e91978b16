/* The C interface from four threads: sessions of their own, one session for all, and a close among the calls. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uare_rt.h"

enum { THREADS = 4, CALLS = 300, SIDE = 24 };

static uare_session *shared;

static uare_status process(uare_session *session) {
  unsigned char input[SIDE * SIDE * 3] = {1}, output[4 * SIDE * SIDE * 3] = {0};
  const uare_frame in = {sizeof in, UARE_FORMAT_RGB24, SIDE, SIDE, {input}, {SIDE * 3}, 0, 0, 0, 0};
  const uare_frame out = {sizeof out, UARE_FORMAT_RGB24, 2 * SIDE, 2 * SIDE, {output}, {2 * SIDE * 3}, 0, 0, 0, 0};
  const uare_status status = uare_process(session, &in, &out, NULL);
  if (status == UARE_OK && output[3] != 1) abort();
  uare_error error = {sizeof error, UARE_OK, NULL};
  if (status != UARE_OK && (uare_last_error(&error) != UARE_OK || error.status != status)) abort();
  return status;
}

static void *work(void *number) {
  const char *options[] = {"backend=null", "scale=2"};
  uare_session *own = NULL;
  size_t wrong = uare_open(NULL, options, 2, &own) != UARE_OK;
  for (int i = 0; i < CALLS; ++i) {
    wrong += process(own) != UARE_OK;
    const uare_status status = process(shared);
    wrong += status != UARE_OK && status != UARE_ERROR_BUSY && status != UARE_ERROR_CLOSED;
    if (number != NULL && i == CALLS / 2) uare_close(shared);
  }
  uare_close(own);
  return (void *)wrong;
}

int main(void) {
  const char *options[] = {"backend=null", "scale=2"};
  if (uare_open(NULL, options, 2, &shared) != UARE_OK) return EXIT_FAILURE;
  pthread_t threads[THREADS];
  size_t wrong = 0;
  for (int i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, work, i == 0 ? &shared : NULL);
  for (int i = 0; i < THREADS; ++i) {
    void *result = NULL;
    pthread_join(threads[i], &result);
    wrong += (size_t)result;
  }
  if (wrong != 0) fprintf(stderr, "%zu calls gave another status than documented\n", wrong);
  return wrong == 0 && process(shared) == UARE_ERROR_CLOSED ? EXIT_SUCCESS : EXIT_FAILURE;
}
