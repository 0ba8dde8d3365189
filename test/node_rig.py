"""What tests of nodes share: the other end of their topics, nodes in processes, a fake pipeline.

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

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
messages = pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

import torch  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rcl_interfaces.msg import Log  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter as RosParameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from mppe_ros import node as node_module  # noqa: E402
from mppe_ros import subscriptions  # noqa: E402
from mppe_ros.node import PoseNode  # noqa: E402
from mppe_ros.pipeline import PipelineOptions  # noqa: E402
from mppe_ros.skeletons import HUMAN36M_17  # noqa: E402
from mppe_ros.structures import Detections, Person, RootError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
EXECUTABLE = ROOT / "install" / "mppe_ros" / "lib" / "mppe_ros" / "pose_node"
CLIP = ROOT / "mppe_ros" / "resources" / "sample" / "clip.mp4"
DOMAIN_ID = 1 + os.getpid() % 100  # other test runs on this machine have other ones
TIMEOUT_S = int(os.environ.get("MPPE_TEST_TIMEOUT_S", 60))
FRAME_ID = "head_camera_optical_frame"
# What a node logged before we came, too.
KEPT_LOGS = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def wait_until(condition, action=lambda: None, timeout_s=TIMEOUT_S):
    """Repeats ``action`` until ``condition`` holds."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        action()
        for _ in range(20):
            if result := condition():
                return result
            time.sleep(0.02)
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


# --- a node in this process, without networks ----------------------------------------------------


class FakePipeline:
    """Sees one person in every image but a white one, on which it fails."""

    skeleton, model = HUMAN36M_17, "fake (0)"
    device, precision = torch.device("cpu"), torch.float32
    root_error = RootError(
        along=0.1, across_mm=40.0, tilt_rad=0.2, heading_rad=0.6, fused_mm=50.0
    )

    def __init__(self):
        self.options = PipelineOptions()
        self.image = None  # the last one seen
        self.complaint = ""
        self.stage_ms = {"detect": 1.0, "crop": 2.0, "estimate": 3.0, "place": 4.0}
        self.starts_s = []
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, images, intrinsics):
        self.starts_s.append(time.monotonic())
        assert self.may_end.wait(TIMEOUT_S)
        (self.image,) = images
        if (self.image == 255).all():
            raise RuntimeError(f"no memory for {len(self.starts_s)} bytes")
        return [[make_person()] for _ in images]

    # The same in two steps, for tracking.

    def upload(self, images, intrinsics):
        return images

    def detect(self, images):
        return [Detections(torch.tensor([[1.0, 1.0, 8.0, 8.0]]), torch.tensor([0.9]))]

    def estimate(self, images, intrinsics, detections):
        (people,), (found,) = self(images, intrinsics), detections
        return [people * len(found)]


def make_person():
    count = len(HUMAN36M_17)
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([1.0, 1.0, 8.0, 8.0]),
        root_px=np.array([5.0, 5.0]),
        root_mm=np.array([0.0, 0.0, 3000.0]),
        root_covariance_mm2=np.eye(3),
        joints_px=np.full((count, 2), 5.0),
        joints_mm=np.full((count, 3), 3000.0),
        joint_scores=np.ones(count),
        joint_status=np.zeros(count, np.uint8),
    )


SMALL = np.zeros((12, 16, 3), np.uint8)


class Host:
    """Runs nodes around a fake pipeline, in a thread of this process.

    They are configured and activated, unless ``autostart`` is false.
    """

    def __init__(self):
        # Threads that wait for each other take ten times as long on a busy machine.
        self._torch_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.pipeline = FakePipeline()
        self.nodes = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=DOMAIN_ID)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def start(self, namespace, **values):
        node = PoseNode(
            namespace=namespace,
            context=self._context,
            parameter_overrides=[RosParameter(k, value=v) for k, v in values.items()],
        )
        self.nodes.append(node)
        if node.settings.autostart:
            assert node.start()
        self._executor.add_node(node)
        self._executor.wake()
        return node

    @property
    def alive(self):
        """False as soon as a callback has raised."""
        return self._thread.is_alive()

    def close(self):
        if isinstance(self.pipeline, FakePipeline):
            self.pipeline.may_end.set()
        self._executor.shutdown()
        self._thread.join(TIMEOUT_S)
        for node in self.nodes:
            assert node.close()
        rclpy.shutdown(context=self._context)
        torch.set_num_threads(self._torch_threads)


def make_host(monkeypatch):
    """Nodes that complain soon, and never twice however slow this machine is."""
    host = Host()
    monkeypatch.setattr(node_module.Pipeline, "load", lambda *_, **__: host.pipeline)
    monkeypatch.setattr(subscriptions, "SILENCE_S", 0.3)
    monkeypatch.setattr(node_module, "_REPEAT_S", 3600.0)
    monkeypatch.setattr(node_module, "_DIAGNOSTICS_PERIOD_S", 0.2)
    return host
