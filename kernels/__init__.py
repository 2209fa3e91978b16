"""Triton operators, each beside a plain torch reference; `uare_rt.kernels.dispatch` chooses between them."""
