/* A camera on the network for the tests: rtsp_server PORT serves rtsp://127.0.0.1:PORT/camera. Ended by a signal. */
#include <gst/rtsp-server/rtsp-server.h>

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  if (argc != 2) return 2;
  GstRTSPServer *server = gst_rtsp_server_new();
  gst_rtsp_server_set_address(server, "127.0.0.1");
  gst_rtsp_server_set_service(server, argv[1]);
  GstRTSPMediaFactory *factory = gst_rtsp_media_factory_new();
  gst_rtsp_media_factory_set_launch(
      factory,
      "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=96,height=64,framerate=25/1 ! "
      "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 config-interval=-1 )");
  gst_rtsp_media_factory_set_shared(factory, TRUE);
  GstRTSPMountPoints *points = gst_rtsp_server_get_mount_points(server);
  gst_rtsp_mount_points_add_factory(points, "/camera", factory);
  g_object_unref(points);
  if (gst_rtsp_server_attach(server, NULL) == 0) return 1;
  g_main_loop_run(g_main_loop_new(NULL, FALSE));
  return 0;
}
