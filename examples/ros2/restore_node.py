"""A ROS 2 node that restores a camera topic: image in, image_restored out, with the headers of the images.

    ros2 run ... or: python3 restore_node.py --ros-args -r image:=/camera/image_raw -p scale:=2

Takes rgb8 and bgr8. The newest image wins: what arrives while the engine is busy replaces what waits. Not run under ROS
here: the tests run it over stand-ins of rclpy and the messages.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

import uare_rt
from uare_rt.live import LiveOptions, LiveStream


def pixels_of(message: Image) -> np.ndarray:
    """RGB pixels of an image message, a view of its data where it is rgb8."""
    if message.encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"encoding {message.encoding} is not taken; publish rgb8 or bgr8")
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
    return pixels if message.encoding == "rgb8" else np.ascontiguousarray(pixels[..., ::-1])


def message_of(pixels: np.ndarray, header: Any) -> Image:
    """An rgb8 message of restored pixels."""
    message = Image()
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding, message.is_bigendian, message.step = "rgb8", 0, 3 * pixels.shape[1]
    message.data = np.ascontiguousarray(pixels).tobytes()
    return message


class RestoreNode(Node):
    """Restores what arrives on ``image``."""

    def __init__(self, session: uare_rt.Session) -> None:
        super().__init__("uare_restore")
        scale = self.declare_parameter("scale", 1).value
        self._publisher = self.create_publisher(Image, "image_restored", qos_profile_sensor_data)
        self._inbox: queue.SimpleQueue[Image | None] = queue.SimpleQueue()
        self._headers: dict[int, Any] = {}
        self.stream = LiveStream(self._frames(), session, LiveOptions(scale=scale))
        self._worker = threading.Thread(target=self._restore, daemon=True)
        self._worker.start()
        self.create_subscription(Image, "image", self._inbox.put, qos_profile_sensor_data)

    def close(self) -> None:
        """Finish the image under way."""
        self._inbox.put(None)
        self._worker.join()

    def _frames(self) -> Iterator[np.ndarray]:
        index = 0
        while (message := self._inbox.get()) is not None:
            try:
                pixels = pixels_of(message)
            except ValueError as error:
                self.get_logger().error(str(error))
                continue
            self._headers[index] = message.header
            yield pixels
            index += 1

    def _restore(self) -> None:
        try:
            for result in self.stream:
                header = self._headers[result.index]
                for old in [index for index in self._headers if index <= result.index]:
                    del self._headers[old]
                self._publisher.publish(message_of(result.pixels, header))
        except uare_rt.errors.UareError as error:
            self.get_logger().fatal(str(error))


def main() -> None:
    rclpy.init()
    with uare_rt.load() as session:
        node = RestoreNode(session)
        try:
            rclpy.spin(node)
        except KeyboardInterrupt:
            pass
        finally:
            node.close()
            node.destroy_node()


if __name__ == "__main__":
    main()
