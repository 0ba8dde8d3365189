"""What tests of nodes share: the other end of their topics, and nodes in processes.

Every test has a camera and a listener of its own; nodes are told apart by their namespaces.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from domain import DOMAIN_ID

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
messages = pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rcl_interfaces.msg import Log  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter as RosParameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
EXECUTABLE = ROOT / "install" / "mppe_ros" / "lib" / "mppe_ros" / "pose_node"
CLIP = ROOT / "mppe_ros" / "resources" / "sample" / "clip.mp4"
TIMEOUT_S = int(os.environ.get("MPPE_TEST_TIMEOUT_S", 120))
FRAME_ID = "head_camera_optical_frame"
SMALL = np.zeros((12, 16, 3), np.uint8)
# What a node logged before we came, too.
KEPT_LOGS = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)


# Most answers come at once; where one doesn't, this machine is busy enough.
_PAUSES_S = 10 * [0.002] + 20 * [0.02]


def wait_until(condition, action=lambda: None, timeout_s=TIMEOUT_S):
    """Repeats ``action`` until ``condition`` holds."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        action()
        for pause_s in _PAUSES_S:
            if result := condition():
                return result
            time.sleep(pause_s)
    raise AssertionError(f"{condition} did not come true within {timeout_s} s")


def namespace_of(request):
    """A namespace for one test alone: nodes of one name take each other's logs away."""
    return "/" + re.sub(r"\W+", "_", request.node.name).strip("_")


# --- the other end -----------------------------------------------------------------------------


class Robot:
    """A camera and a listener around the node of one namespace.

    :param listens: subscribes to poses and markers.
    """

    def __init__(self, namespace, listens=True):
        self.namespace = namespace
        self.poses, self.markers, self.logs, self.diagnostics = [], [], [], []
        self.debug_images = []
        self._count = 0
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=DOMAIN_ID)
        self.node = rclpy.create_node("robot", namespace=namespace, context=self._context)
        self.images = self.node.create_publisher(Image, "image_raw", 5)
        self.compressed = self.node.create_publisher(CompressedImage, "image_raw/compressed", 5)
        self.infos = self.node.create_publisher(CameraInfo, "camera_info", 5)
        self.depths = self.node.create_publisher(Image, "depth", 5)
        self.listen(Log, "/rosout", self.logs.append, KEPT_LOGS)
        self.listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        if listens:
            self.listen(messages.Pose3DArray, "mppe/poses", self.poses.append, 10)
            self.listen(MarkerArray, "mppe/markers", self.markers.append, 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self):
        self._executor.shutdown()
        self._thread.join(TIMEOUT_S)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def listen(self, message_type, topic, callback, qos):
        subscription = self.node.create_subscription(message_type, topic, callback, qos)
        if hasattr(self, "_executor"):
            self._executor.wake()
        return subscription

    def watch_debug_image(self):
        """From now on ``debug_images`` fills."""
        return self.listen(Image, "mppe/debug_image", self.debug_images.append, 10)

    def _on_diagnostics(self, message):
        (status,) = message.status
        if status.name.startswith(f"{self.namespace}/mppe:"):
            self.diagnostics.append(status)

    def status(self, pattern):
        """The last diagnosis if its message matches: level, values."""
        for status in self.diagnostics[-1:]:
            if re.search(pattern, status.message):
                return status.level[0], {item.key: item.value for item in status.values}
        return None

    def call(self, service_type, name, **fields):
        """The response of one of the node's services."""
        client = self.node.create_client(service_type, f"mppe/{name}")
        self._executor.wake()
        assert client.wait_for_service(TIMEOUT_S)
        future = client.call_async(service_type.Request(**fields))
        wait_until(future.done)
        response = future.result()
        self.node.destroy_client(client)
        return response

    def next_stamp(self):
        """A time that no other image of this robot has: s, ns."""
        self._count += 1
        return 1000 + self._count, 123456789

    def send(self, image, info=None, stamp=None, depth=None):
        """Publishes an image (array or message) and what goes with it; the image's stamp."""
        stamp = stamp or self.next_stamp()
        if not isinstance(image, (Image, CompressedImage)):
            image = make_image(image)
        images = self.compressed if isinstance(image, CompressedImage) else self.images
        # The image last: by then the node may have the others.
        for publisher, message in ((self.depths, depth), (self.infos, info), (images, image)):
            if message is not None:
                message.header.stamp.sec, message.header.stamp.nanosec = stamp
                message.header.frame_id = message.header.frame_id or FRAME_ID
                publisher.publish(message)
        return stamp

    def poses_of(self, stamp):
        """The poses with this stamp, None if there are none (yet)."""
        return next((m for m in self.poses if stamp_of(m) == stamp), None)

    def get_poses(self, image, info=None):
        """Sends until one of the images is answered; that answer."""
        sent = set()
        wait_until(
            lambda: sent & {stamp_of(m) for m in self.poses},
            lambda: sent.add(self.send(image, info)),
        )
        return next(m for m in self.poses if stamp_of(m) in sent)

    def log(self, pattern):
        """The node's log messages that match."""
        name = f"{self.namespace}/mppe".strip("/").replace("/", ".")
        texts = [log.msg for log in list(self.logs) if log.name == name]
        return [text for text in texts if re.search(pattern, text)]

    def change(self, name, value):
        """Sets a parameter of the node; (successful, reason)."""
        parameter = RosParameter(name, value=value).to_parameter_msg()
        (result,) = self.call(SetParameters, "set_parameters", parameters=[parameter]).results
        return result.successful, result.reason


def stamp_of(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def make_image(rgb, encoding="rgb8"):
    height, width = rgb.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=3 * width)
    message.data.frombytes(np.ascontiguousarray(rgb).tobytes())
    return message


def make_info(image, **changes):
    height, width = image.shape[:2]
    info = CameraInfo(width=width, height=height)
    info.k = [width * 1.0, 0.0, width / 2, 0.0, width * 1.0, height / 2, 0.0, 0.0, 1.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def added(markers):
    return {(m.ns, m.id) for m in markers.markers if m.action == Marker.ADD}


def deleted(markers):
    return {(m.ns, m.id) for m in markers.markers if m.action == Marker.DELETE}


# --- the built node, in a process of its own -----------------------------------------------------


class BuiltNode:
    """An installed executable; everything that it prints in ``lines``."""

    def __init__(self, namespace, *ros_arguments, executable=EXECUTABLE):
        if not executable.exists():
            pytest.skip(f"{executable} is not there: run make setup")
        self.lines = deque(maxlen=1000)
        self.process = subprocess.Popen(
            [sys.executable, executable, "--ros-args", "-r", f"__ns:={namespace}", *ros_arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN_ID), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def wait_for(self, pattern):
        wait_until(lambda: self.process.poll() is not None or self.has(pattern))
        assert self.has(pattern), "".join(self.lines)

    def has(self, pattern):
        return any(re.search(pattern, line) for line in list(self.lines))

    def end(self, with_signal):
        """Exit status after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.wait()

    def wait(self):
        try:
            status = self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
        self._reader.join(TIMEOUT_S)
        return status
