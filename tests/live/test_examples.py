"""The examples run: OpenCV's loop on a clip, the ROS 2 node over stand-ins of ROS."""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uare_rt

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_opencvs_loop_restores_a_clip(encoded: Callable[..., bytes], tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "clip.ts").write_bytes(encoded(3))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "opencv_loop.py", tmp_path / "clip.ts", "2", tmp_path],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 frames, 0 dropped" in done.stdout
    assert len(list(tmp_path.glob("*.png"))) == 3
    refused = subprocess.run(
        [sys.executable, EXAMPLES / "opencv_loop.py", tmp_path / "none.ts"], capture_output=True, text=True, timeout=300
    )
    assert refused.returncode == 1
    assert "cannot open" in refused.stderr


class Image:
    """What the node uses of sensor_msgs.msg.Image."""

    def __init__(self) -> None:
        self.header, self.height, self.width, self.step, self.encoding = None, 0, 0, 0, ""
        self.data, self.is_bigendian = b"", 0


class FakeNode:
    """What the node uses of rclpy.node.Node."""

    def __init__(self, name: str) -> None:
        self.published: list[Image] = []
        self.errors: list[str] = []

    def declare_parameter(self, name: str, value: int) -> Any:
        return types.SimpleNamespace(value=2)

    def create_publisher(self, *_: object) -> Any:
        return types.SimpleNamespace(publish=self.published.append)

    def create_subscription(self, kind: object, topic: str, callback: Callable[[Image], None], qos: object) -> None:
        self.receive = callback

    def get_logger(self) -> Any:
        return types.SimpleNamespace(error=self.errors.append, fatal=self.errors.append)


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "rclpy": {},
        "rclpy.node": {"Node": FakeNode},
        "rclpy.qos": {"qos_profile_sensor_data": None},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Image},
    }
    for name, values in parts.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)


def test_the_ros_node_restores_a_topic(ros: None, session: uare_rt.Session) -> None:
    node = runpy.run_path(str(EXAMPLES / "ros2" / "restore_node.py"))["RestoreNode"](session)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for number, encoding in enumerate(("mono8", "rgb8", "bgr8")):
        message = Image()
        message.header, message.encoding = f"frame {number}", encoding
        message.height, message.width, message.step = 20, 30, 96
        shown = pixels if encoding == "rgb8" else pixels[..., ::-1]
        message.data = np.concatenate([shown.reshape(20, 90), np.zeros((20, 6), np.uint8)], axis=1).tobytes()
        sent = len(node.published)
        node.receive(message)
        deadline = time.monotonic() + 60
        while encoding != "mono8" and len(node.published) == sent and time.monotonic() < deadline:
            time.sleep(0.01)
    node.close()
    assert node.errors == ["encoding mono8 is not taken; publish rgb8 or bgr8"]
    assert [message.header for message in node.published] == ["frame 1", "frame 2"]
    expected = session.restore(pixels, scale=2).image
    for message in node.published:
        assert (message.height, message.width, message.step) == (40, 60, 180)
        assert np.array_equal(np.frombuffer(message.data, np.uint8).reshape(40, 60, 3), expected)
