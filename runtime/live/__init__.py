"""Live video: frames as cameras give them. So far their colour conversion, `uare_rt.live.yuv`."""
