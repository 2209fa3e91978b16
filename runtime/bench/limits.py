"""What the machine can do at most: matrix products and memory traffic, measured.

Run as a program it measures on request, so that BLAS takes the number of threads that this process was given:
every line on standard input (``gemm`` or ``copy``) is answered by one with seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from uare_rt.errors import UareError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["COPY_BYTES", "GEMM_FLOP", "Probe", "accelerator_limits"]

_SIDE = 1280
GEMM_FLOP = 2 * _SIDE**3
"""Operations of one float32 matrix product that is timed."""

_COPIED = 128 << 20
COPY_BYTES = 2 * _COPIED
"""Bytes read and written by one copy that is timed; far more than caches hold."""

_BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")


class Probe:
    """Times matrix products and copies of memory with a number of threads, in a process of its own.

    Args:
        threads: that both may use.

    Raises:
        UareError: the process did not start.
    """

    def __init__(self, threads: int) -> None:
        environment = os.environ | dict.fromkeys(_BLAS, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def gemm(self) -> float:
        """Seconds of one product of `GEMM_FLOP` operations."""
        return self._asked("gemm")

    def copy(self) -> float:
        """Seconds of one copy of `COPY_BYTES` bytes read and written."""
        return self._asked("copy")

    def _asked(self, what: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise UareError("the process that measures the machine's limits has ended; try again") from error

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.terminate()
        self._process.wait()


def accelerator_limits() -> dict[str, float] | None:
    """Copy and matrix products measured on the first CUDA device; None without one, or without PyTorch to measure.

    Returns:
        ``copy_gb_s`` (read and written), ``fp16_tflops`` and ``fp32_tflops``. Not yet run on a device.
    """
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None

    def seconds(call: Callable[[], object]) -> float:
        call()
        times = []
        for _ in range(5):
            torch.cuda.synchronize()
            began = time.perf_counter()
            call()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        return min(times)

    side = 4096
    source = torch.empty(COPY_BYTES // 2, dtype=torch.uint8, device="cuda")
    found = {"copy_gb_s": COPY_BYTES / seconds(source.clone) / 1e9}
    for name, dtype in (("fp16_tflops", torch.float16), ("fp32_tflops", torch.float32)):
        matrix = torch.randn(side, side, dtype=dtype, device="cuda")
        found[name] = 2 * side**3 / seconds(lambda m=matrix: m @ m) / 1e12  # type: ignore[misc]
    return found


def _serve(threads: int) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = (rng.random((_SIDE, _SIDE), dtype=np.float32) for _ in range(2))
    product = np.empty_like(a)
    blocks: list[tuple[object, object]] = []
    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            if line.strip() == "copy" and not blocks:
                each = _COPIED // threads
                blocks = [(np.ones(each, np.uint8), np.ones(each, np.uint8)) for _ in range(threads)]
            began = time.perf_counter()
            if line.strip() == "gemm":
                np.matmul(a, b, out=product)
            else:
                list(pool.map(lambda pair: np.copyto(*pair), blocks))
            sys.stdout.write(f"{time.perf_counter() - began}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
