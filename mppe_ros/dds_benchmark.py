"""The part of ``mppe bench`` that needs ROS: the built node in a process of its own, over DDS.

``python -m mppe_ros.dds_benchmark WEIGHTS PRECISION DEVICE BACKEND`` prints a line of JSON.

Images are the sample clip's first frame, 640x480, where the embedded set sees four people. They
are serialised beforehand, so that this process, the camera, costs the node little. All have the
shared memory of ``config/fastdds.xml`` (docs/performance.md).
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from mppe_ros.msg import Joint3D, Pose3D, Pose3DArray

from .benchmark.scene import first_frame
from .demo import Child, DemoError, isolate
from .diagnostics import REPORT_PERIOD_S, WINDOW_S
from .structures import Intrinsics

_FOV_DEG = 60.0
_START_TIMEOUT_S = 300.0
_ANSWER_TIMEOUT_S = 20.0
_WARM_UP = 20  # images
_THROUGHPUT_S = 15.0
_REPORTS = 5  # of diagnostics, which look back on nothing but round trips
_LOOK_BACK_S = WINDOW_S + REPORT_PERIOD_S
_IN_FLIGHT = 2  # images under way, so that the node never waits for one
_ECHOED = 4, 21  # people and joints
# What of the node's time is the pipeline's, which begins with an image message.
_PIPELINE = ("convert", "detect", "crop", "estimate", "place")
_NODE, _ECHO = "", "echo/"


class Bench(Node):
    """A camera that sends an image for each answer.

    Stamps are CDR's first fields, so they can be changed in the serialised message.
    """

    def __init__(self) -> None:
        super().__init__("bench")
        rgb = first_frame()
        height, width = rgb.shape[:2]
        image = Image(height=height, width=width, encoding="bgr8", step=3 * width)
        image.header.frame_id = "camera"
        image.data.frombytes(np.ascontiguousarray(rgb[..., ::-1]).tobytes())
        self._image = bytearray(serialize_message(image))
        self._info = bytearray(serialize_message(self._camera_info(width, height)))
        qos = QoSProfile(depth=5)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos)
        self._images, self.answers = {}, {}
        for end in (_NODE, _ECHO):
            self._images[end] = self.create_publisher(Image, f"{end}image_raw", qos)
            self.answers[end] = dict[int, float]()  # stamp, ns: arrival, s
        self.people: list[int] = []
        self.create_subscription(Pose3DArray, "mppe/poses", self._on_poses, 10)
        self.create_subscription(Pose3DArray, "echo/poses", self._on_echo, 10)
        # When they came, s, and the mean ms of the pipeline for the node's last images.
        self.reports: list[tuple[float, float]] = []
        self._node_parameters = AsyncParameterClient(self, "mppe")
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def _camera_info(self, width: int, height: int) -> CameraInfo:
        camera = Intrinsics.from_fov(_FOV_DEG, width, height)
        info = CameraInfo(width=width, height=height)
        info.header.frame_id = "camera"
        info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
        return info

    def send(self, end: str) -> int:
        """An image of now; its stamp, ns."""
        stamp_ns = time.time_ns()
        sec, nanosec = divmod(stamp_ns, 10**9)
        for message in (self._image, self._info):
            struct.pack_into("<iI", message, 4, sec, nanosec)  # after CDR's own four bytes
        if end == _NODE:
            self._infos.publish(bytes(self._info))
        self._images[end].publish(bytes(self._image))
        return stamp_ns

    def wait(self, condition: Callable[[], Any], timeout_s: float) -> bool:
        """Spins until it holds; false if it doesn't in time."""
        until_s = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < until_s:
            self._executor.spin_once(timeout_sec=0.2)
        return bool(condition())

    def round_trip_ms(self, end: str) -> float | None:
        """From an image's stamp to the arrival of the answer; None if there is none."""
        stamp = self.send(end)
        if not self.wait(lambda: stamp in self.answers[end], _ANSWER_TIMEOUT_S):
            return None
        return (self.answers[end][stamp] - stamp * 1e-9) * 1e3

    def frames_per_second(self, seconds: float) -> float:
        """Answers of the node per second while images never lack."""
        answers, sent = self.answers[_NODE], set[int]()
        start, start_s = len(answers), time.monotonic()
        while (elapsed_s := time.monotonic() - start_s) < seconds:
            under_way = [s for s in sent if s not in answers and time.time_ns() - s < 5 * 10**8]
            if len(under_way) < _IN_FLIGHT:
                sent.add(self.send(_NODE))
            self._executor.spin_once(timeout_sec=0.005)
        return (len(answers) - start) / elapsed_s

    def _on_poses(self, message: Pose3DArray) -> None:
        self._note(_NODE, message)
        self.people.append(len(message.poses))

    def _on_echo(self, message: Pose3DArray) -> None:
        self._note(_ECHO, message)

    def _note(self, end: str, message: Pose3DArray) -> None:
        stamp = message.header.stamp
        self.answers[end][stamp.sec * 10**9 + stamp.nanosec] = time.time()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = {item.key: item.value for item in message.status[0].values}
        spent = [float(values.get(f"{stage} (ms)", 0)) for stage in _PIPELINE]
        self.reports.append((time.monotonic(), sum(spent)))

    def detect_always(self) -> None:
        """From now on all images take the node the same time.

        :raises DemoError: the node doesn't do as it is told.
        """
        done = self._node_parameters.set_parameters([Parameter("detection_interval", value=1)])
        self.wait(done.done, _ANSWER_TIMEOUT_S)
        result = done.result()
        if result is None or not result.results[0].successful:
            raise DemoError("the node's detection_interval can't be set")


def measure(bench: Bench) -> dict[str, Any]:
    """The figures of a node and an echo that run already.

    :raises DemoError: they don't answer.
    """
    until_s = time.monotonic() + _START_TIMEOUT_S
    for end in (_NODE, _ECHO):
        while not bench.answers[end]:
            if time.monotonic() > until_s:
                raise DemoError(f"no answer from {'the echo' if end else 'the node'}")
            bench.send(end)
            bench.wait(lambda end=end: bench.answers[end], 1.0)  # type: ignore[misc]
    for _ in range(_WARM_UP):
        bench.round_trip_ms(_NODE)
    bench.people.clear()
    rate = bench.frames_per_second(_THROUGHPUT_S)
    bench.wait(lambda: False, 1.0)  # what is under way still
    bench.detect_always()
    trips: dict[str, list[tuple[float, float]]] = {_NODE: [], _ECHO: []}  # arrival, s, and ms
    from_s = time.monotonic() + _LOOK_BACK_S
    while len(reports := [one for one in bench.reports if one[0] > from_s]) < _REPORTS:
        for end, found in trips.items():
            if (trip_ms := bench.round_trip_ms(end)) is not None:
                found.append((time.monotonic(), trip_ms))
        if time.monotonic() > from_s + _START_TIMEOUT_S:
            raise DemoError("the node has no diagnostics")
    node_ms, echo_ms = (float(np.median([ms for _, ms in found])) for found in trips.values())
    # The machine's speed changes: means of the same seconds, and the median of those.
    around_ms = []
    for report_s, pipeline_ms in reports:
        node_mean_ms, echo_mean_ms = (
            np.mean([ms for at_s, ms in found if report_s - WINDOW_S < at_s < report_s])
            for found in trips.values()
        )
        around_ms.append(node_mean_ms - echo_mean_ms - pipeline_ms)
    people = float(np.median(bench.people))
    return {
        "open_fps_4_people_dds": rate if people == 4 else None,
        "ros_overhead_ms": float(np.median(around_ms)),
        "dds": {
            "people": people,
            "frames_per_second": rate,
            "image_to_poses_ms": node_ms,
            "image_to_echo_ms": echo_ms,
            "pipeline_ms": float(np.median([pipeline_ms for _, pipeline_ms in reports])),
        },
    }


def echo() -> None:
    """A node that answers images at once, to know what DDS and messages take."""
    rclpy.init()
    node = rclpy.create_node("echo")
    poses = node.create_publisher(Pose3DArray, "echo/poses", 10)
    people, joints = _ECHOED
    answer = Pose3DArray(poses=[Pose3D(joints=[Joint3D()] * joints)] * people)

    def send(image: Image) -> None:
        answer.header = image.header
        poses.publish(answer)

    node.create_subscription(Image, "echo/image_raw", send, 1)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


def main(arguments: list[str]) -> int:
    """See the module; 0, or 1 with a sentence on stderr."""
    if arguments == ["echo"]:
        echo()
        return 0
    os.environ.pop("ROS_DOMAIN_ID", None)  # other nodes' images must not come here
    isolate()
    names = ("weights", "precision", "device", "backend")
    parameters: dict[str, Any] = dict(zip(names, arguments, strict=True))
    for topic in ("image_raw", "camera_info"):
        parameters[f"qos_overrides./{topic}.subscription.reliability"] = "reliable"
    parameters["qos_overrides./image_raw.subscription.depth"] = _IN_FLIGHT
    rclpy.init()
    command = [sys.executable, "-m", "mppe_ros.dds_benchmark", "echo"]
    with tempfile.TemporaryDirectory() as folder:
        echoing = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with Child("pose_node", parameters, Path(folder, "pose_node.log")) as node:
                found = measure(Bench())
                assert node.running
        except DemoError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            echoing.kill()  # a node may miss a gentler signal, and has nothing to save
            echoing.wait()
            rclpy.try_shutdown()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
