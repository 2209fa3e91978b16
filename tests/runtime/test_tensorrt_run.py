"""The runner against a driver that enforces CUDA's rules. Not a proof that it runs on a GPU."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from uare_rt.backends.device_arrays import CPU, CUDA, DeviceArray, device_memory
from uare_rt.backends.tensorrt_ import _recorder
from uare_rt.backends.tensorrt_run import EngineRunner
from uare_rt.errors import BackendError

sys.path.insert(0, str(Path(__file__).parent))
from cuda_rules import FakeEngine, FakeTensorRt, Misuse, RecordingDriver


@pytest.fixture
def driver() -> RecordingDriver:
    return RecordingDriver()


@pytest.fixture
def engine(driver: RecordingDriver) -> FakeEngine:
    return FakeEngine(driver, _recorder(FakeTensorRt(driver)))


@pytest.fixture
def runner(driver: RecordingDriver, engine: FakeEngine) -> EngineRunner:
    return EngineRunner(FakeTensorRt(driver), engine, driver, "restore_x1")


def frame(rng: np.random.Generator, height: int = 32, width: int = 48) -> np.ndarray:
    return rng.random((1, 3, height, width), dtype=np.float32)


def test_results_are_right_and_belong_to_the_caller(runner: EngineRunner, rng: np.random.Generator) -> None:
    inputs = [frame(rng) for _ in range(5)]
    results = [runner.run({"frame": value})["restored"] for value in inputs]
    for value, result in zip(inputs, results, strict=True):
        np.testing.assert_array_equal(result, 2 * value)


def test_second_run_is_recorded_and_later_ones_launch_it(
    runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator
) -> None:
    for _ in range(4):
        runner.run({"frame": frame(rng)})
    work = [call for call in driver.calls if call in ("engine", "capture", "launch")]
    assert work == ["engine", "capture", "engine", "launch", "launch", "launch"]


def test_nothing_is_allocated_after_the_first_run_of_a_shape(
    runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator
) -> None:
    runner.run({"frame": frame(rng)})
    before = (set(driver.memory), set(driver.pinned))
    for _ in range(3):
        runner.run({"frame": frame(rng)})
    assert (set(driver.memory), set(driver.pinned)) == before


def test_shapes_have_graphs_of_their_own_and_the_oldest_make_room(
    runner: EngineRunner, driver: RecordingDriver, engine: FakeEngine, rng: np.random.Generator
) -> None:
    for _ in range(3):
        for side in (16, 32, 48, 64):
            value = frame(rng, side, 32)
            np.testing.assert_array_equal(runner.run({"frame": value})["restored"], 2 * value)
    assert engine.contexts == len(driver.graphs) == 4
    runner.run({"frame": frame(rng, 32, 64)})
    assert engine.contexts == 5
    assert len(driver.memory) == 8


def test_closing_gives_everything_back_once(
    runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator
) -> None:
    for side in (16, 32, 16, 16):
        runner.run({"frame": frame(rng, side)})
    runner.close()
    driver.check_nothing_left()
    runner.close()
    with pytest.raises(BackendError, match="'restore_x1' was closed"):
        runner.run({"frame": frame(rng)})


def test_without_graphs_every_run_is_launched_call_by_call(rng: np.random.Generator) -> None:
    driver = RecordingDriver(graphs=False)
    runner = EngineRunner(FakeTensorRt(driver), FakeEngine(driver), driver, "restore_x1")
    for _ in range(4):
        value = frame(rng)
        np.testing.assert_array_equal(runner.run({"frame": value})["restored"], 2 * value)
    assert "launch" not in driver.calls


def test_shape_outside_the_profile(runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator) -> None:
    with pytest.raises(
        BackendError, match=r"\[1, 3, 128, 32\], this engine takes \[1, 3, 16, 16\] to \[1, 3, 64, 64\]"
    ):
        runner.run({"frame": frame(rng, 128, 32)})
    assert not driver.memory


@pytest.mark.parametrize("value", [np.zeros((1, 3, 32, 32), np.float64), np.zeros((1, 3, 32, 32), np.uint8)])
def test_wrong_type(runner: EngineRunner, value: np.ndarray) -> None:
    with pytest.raises(BackendError, match=f"input frame is {value.dtype}, the engine takes float32"):
        runner.run({"frame": value})


def test_missing_input(runner: EngineRunner) -> None:
    with pytest.raises(BackendError, match="input frame is missing"):
        runner.run({})


def test_failure_says_what_the_error_recorder_got_and_leaves_the_runner_usable(
    runner: EngineRunner, driver: RecordingDriver, engine: FakeEngine, rng: np.random.Generator
) -> None:
    engine.fails = True
    with pytest.raises(BackendError, match=r"failed in graph 'restore_x1': no kernel for this$"):
        runner.run({"frame": frame(rng)})
    engine.fails = False
    value = frame(rng)
    np.testing.assert_array_equal(runner.run({"frame": value})["restored"], 2 * value)
    runner.close()
    driver.check_nothing_left()


class OnDevice:
    """An array of another library on the device."""

    def __init__(self, driver: RecordingDriver, value: np.ndarray, **changes: Any) -> None:
        self.stream = driver.create_stream()
        pointer = driver.allocate(value.nbytes)
        content = value.tobytes()
        # Filled by work that is still queued on the array's own stream.
        driver.enqueue(
            self.stream,
            "fill",
            lambda: driver.memory[pointer].__setitem__(slice(None), np.frombuffer(content, np.uint8)),
        )
        self.__cuda_array_interface__ = {
            "shape": value.shape, "typestr": value.dtype.str, "data": (pointer, False), "version": 3,
            "stream": self.stream, **changes,
        }  # fmt: skip


def test_device_arrays_are_read_after_their_own_stream(
    runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator
) -> None:
    value = frame(rng)
    for _ in range(3):
        result = runner.run({"frame": OnDevice(driver, value)})["restored"]
        np.testing.assert_array_equal(result, 2 * value)
    assert "upload" not in driver.calls


def test_strided_device_arrays_are_refused(runner: EngineRunner, driver: RecordingDriver) -> None:
    value = OnDevice(driver, np.zeros((1, 3, 32, 32), np.float32), strides=(4, 4, 4, 4))
    with pytest.raises(BackendError, match="not contiguous"):
        runner.run({"frame": value})


def test_results_stay_on_the_device_and_go_in_again(
    runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator
) -> None:
    for _ in range(4):
        value = frame(rng)
        once = runner.run_on_device({"frame": OnDevice(driver, value)})["restored"]
        assert (once.shape, once.dtype) == (value.shape, value.dtype)
        by_interface = runner.run({"frame": SimpleNamespace(__cuda_array_interface__=once.__cuda_array_interface__)})
        np.testing.assert_array_equal(by_interface["restored"], 4 * value)
        by_dlpack = runner.run({"frame": OnlyDlpack(once)})["restored"]
        np.testing.assert_array_equal(by_dlpack, 4 * value)
    assert "upload" not in driver.calls
    assert driver.calls.count("download") == 8


def test_results_on_the_device_are_freed_with_their_last_holder(
    runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator
) -> None:
    results = [runner.run_on_device({"frame": frame(rng)})["restored"] for _ in range(3)]
    assert len({result.pointer for result in results}) == 3
    runner.close()
    assert set(driver.memory) == {result.pointer for result in results}
    capsule = results[0].__dlpack__()
    del results
    gc.collect()
    assert len(driver.memory) == 1
    del capsule  # nobody took what is in it
    gc.collect()
    driver.check_nothing_left()


def test_a_taken_capsule_keeps_the_memory_until_it_is_given_back(
    runner: EngineRunner, driver: RecordingDriver, rng: np.random.Generator
) -> None:
    result = runner.run_on_device({"frame": frame(rng)})["restored"]
    runner.close()
    pointer, capsule = result.pointer, result.__dlpack__(stream=1, max_version=(1, 0))
    producer = SimpleNamespace(
        __dlpack_device__=lambda: (CUDA, 0), __dlpack__=lambda stream, held=[capsule]: held.pop()
    )
    del capsule
    taken = device_memory(producer, 1)
    assert taken is not None
    assert (taken.pointer, taken.shape, taken.dtype) == (pointer, result.shape, result.dtype)
    del result
    gc.collect()
    assert set(driver.memory) == {pointer}
    del taken
    gc.collect()
    driver.check_nothing_left()


def test_a_failed_run_leaves_no_results_behind(
    runner: EngineRunner, driver: RecordingDriver, engine: FakeEngine, rng: np.random.Generator
) -> None:
    engine.fails = True
    with pytest.raises(BackendError, match="no kernel for this"):
        runner.run_on_device({"frame": frame(rng)})
    runner.close()
    driver.check_nothing_left()


def test_results_go_nowhere_else(runner: EngineRunner, rng: np.random.Generator) -> None:
    result = runner.run_on_device({"frame": frame(rng)})["restored"]
    for asked in ({"dl_device": (CPU, 0)}, {"copy": True}):
        with pytest.raises(BufferError, match="without a copy"):
            result.__dlpack__(**asked)


class OnlyDlpack:
    """An array of a library that has no other protocol."""

    def __init__(self, array: DeviceArray) -> None:
        self._array = array

    def __dlpack__(self, stream: int) -> Any:
        return self._array.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int64, np.bool_])
def test_the_structs_are_those_of_other_libraries(dtype: type[np.generic]) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    producer = SimpleNamespace(__dlpack_device__=lambda: (CUDA, 0), __dlpack__=lambda stream: array.__dlpack__())
    read = device_memory(producer, 0)
    assert read is not None
    assert (read.shape, read.dtype, read.pointer) == (array.shape, array.dtype, array.ctypes.data)

    class OnHost(DeviceArray):
        def __dlpack_device__(self) -> tuple[int, int]:
            return CPU, 0

    freed: list[int] = []
    written = np.from_dlpack(OnHost(array.shape, array.dtype, array.ctypes.data, freed.append))
    np.testing.assert_array_equal(written, array)
    gc.collect()
    assert not freed
    del written
    gc.collect()
    assert freed == [array.ctypes.data]


def test_parts_of_a_dlpack_array_are_refused(runner: EngineRunner) -> None:
    part = np.zeros((1, 3, 32, 64), np.float32)[..., ::2]
    producer = SimpleNamespace(__dlpack_device__=lambda: (CUDA, 0), __dlpack__=lambda stream: part.__dlpack__())
    with pytest.raises(BackendError, match="input frame is not contiguous"):
        runner.run({"frame": producer})


def test_dlpack_arrays_of_the_host(runner: EngineRunner, rng: np.random.Generator) -> None:
    value = frame(rng)

    class Foreign:
        def __dlpack__(self, **options: Any) -> Any:
            return value.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return value.__dlpack_device__()

    np.testing.assert_array_equal(runner.run({"frame": Foreign()})["restored"], 2 * value)


def test_several_threads(runner: EngineRunner, rng: np.random.Generator) -> None:
    inputs = [frame(rng, 16 * (1 + index % 3)) for index in range(12)]
    results: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        results[index] = runner.run({"frame": inputs[index]})["restored"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, value in enumerate(inputs):
        np.testing.assert_array_equal(results[index], 2 * value)


def test_the_rules_are_enforced(driver: RecordingDriver) -> None:
    stream, pointer = driver.create_stream(), driver.allocate(16)
    with pytest.raises(Misuse, match="not pinned"):
        driver.upload(pointer, np.zeros(16, np.uint8), 16, stream)
    host = driver.allocate_host(32)
    with pytest.raises(Misuse, match="do not fit"):
        driver.upload(pointer, host, 32, stream)
    with pytest.raises(Misuse, match="default stream"):
        driver.upload(pointer, host, 16, 0)
    driver.upload(pointer, host, 16, stream)
    with pytest.raises(Misuse, match="while work is under way"):
        driver.free(pointer)
    driver.begin_capture(stream)
    for forbidden in (lambda: driver.synchronise(stream), lambda: driver.allocate(1)):
        with pytest.raises(Misuse, match="captured"):
            forbidden()
    driver.end_capture(stream)
    driver.synchronise(stream)
    driver.free(pointer)
    with pytest.raises(Misuse, match="double free"):
        driver.free(pointer)
    with pytest.raises(Misuse, match="freed memory"):
        driver.download(host, pointer, 16, stream)
