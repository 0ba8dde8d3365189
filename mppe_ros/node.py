"""The pose node (``ros2 run mppe_ros pose_node``): a camera's images in, skeletons out.

It only wires: callbacks store the newest image, a worker thread converts it, runs the pipeline and
publishes. What is computed lives in modules that know no node.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import (
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.time import Time
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from mppe_ros.msg import Pose3DArray

from . import parameters
from .conversions import (
    ConversionError,
    ImageSource,
    image_to_rgb,
    intrinsics_of,
    message_from_record,
)
from .markers import MarkerBuilder
from .pipeline import Pipeline
from .records import Record, pose_array_record
from .structures import IntrinsicsError
from .worker import Worker

NODE_NAME = "mppe"

# Often enough to notice a stop soon, seldom enough to cost nothing.
_SPIN_PERIOD_S = 0.2
# A job that takes longer is left behind when the node stops.
_STOP_TIMEOUT_S = 1.5
_SILENCE_S = 5.0  # without images: worth a warning
_REPEAT_S = 10.0  # the same complaint comes no more often


@dataclass
class Stats:
    """What became of the images since the node started. Each field is written by one thread."""

    received: int = 0
    without_camera: int = 0  # dropped: no camera_info yet
    replaced: int = 0  # dropped: a newer one came before the worker was free
    too_old: int = 0  # dropped: older than max_image_age
    processed: int = 0
    failed: int = 0
    last_ms: float = 0.0  # conversion to publishing

    @property
    def dropped(self) -> int:
        return self.without_camera + self.replaced + self.too_old


class Throttle:
    """Lets a text through once per period; texts that differ in numbers only count as one."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._last_s: dict[str, float] = {}

    def allows(self, text: str) -> bool:
        now_s, key = time.monotonic(), re.sub(r"\d+", "#", text)
        self._last_s = {k: t for k, t in self._last_s.items() if now_s - t < self._period_s}
        if key in self._last_s:
            return False
        self._last_s[key] = now_s
        return True


class Frame(NamedTuple):
    """An image and the camera_info that was the newest when it came."""

    image: Image | CompressedImage
    camera_info: CameraInfo | None


class PoseNode(Node):
    """Publishes ``~/poses`` and ``~/markers`` for every image that it gets around to."""

    # From load() on.
    _pipeline: Pipeline
    _markers: MarkerBuilder
    # From start() to stop().
    _worker: Worker[Frame]
    _image_subscription: Subscription
    _info_subscription: Subscription
    _watch: Timer

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NODE_NAME, **node_options)
        parameters.declare(self)
        self.settings = parameters.read(self)
        self.stats = Stats()
        self._camera_info: CameraInfo | None = None
        self._last_image_s = time.monotonic()
        self._throttle = Throttle(_REPEAT_S)
        self._pose_publisher = self.create_publisher(Pose3DArray, "~/poses", 10)
        self._marker_publisher = self.create_publisher(MarkerArray, "~/markers", 1)

    # --- what a lifecycle calls configure, activate and deactivate ---

    def load(self) -> None:
        """Loads the networks.

        :raises CheckpointError, DeviceError: weights or a device that are not there.
        """
        settings = self.settings
        self.get_logger().info(f"loading weights {settings.weights}")
        self._pipeline = Pipeline.load(
            settings.weights,
            device=settings.device,
            precision=settings.precision,
            detector=settings.detector,
            options=settings.pipeline_options,
        )
        self._markers = MarkerBuilder(self._pipeline.skeleton)
        self.get_logger().info(
            f"weights {self._pipeline.model}, skeleton {self._pipeline.skeleton.name}, "
            f"device {self._pipeline.device}, "
            f"precision {str(self._pipeline.precision).removeprefix('torch.')}"
        )

    def start(self) -> None:
        """Takes images from now on."""
        self._worker = Worker(self._process, self._report_failure, name="inference")
        self._apply()
        self.add_post_set_parameters_callback(self._apply)
        self._marker_publisher.publish(self._markers.clear())
        self._subscribe_to_camera()
        # A silent camera may mean a silent /clock too, so this timer has a clock of its own.
        self._watch = self.create_timer(
            _SILENCE_S, self._report_silence, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.get_logger().info(
            f"listening on {self._image_topic} and {self._info_topic}, publishing "
            f"{self._pose_publisher.topic_name} and {self._marker_publisher.topic_name}"
        )

    def stop(self) -> bool:
        """Takes no more images; false if the worker is still busy and had to be left behind."""
        self.destroy_timer(self._watch)
        self.destroy_subscription(self._image_subscription)
        self.destroy_subscription(self._info_subscription)
        self.remove_post_set_parameters_callback(self._apply)
        stopped = self._worker.stop(_STOP_TIMEOUT_S)
        if self.context.ok():
            self._marker_publisher.publish(self._markers.clear())
            self._marker_publisher.wait_for_all_acked(Duration(seconds=0.5))
        return stopped

    def _subscribe_to_camera(self) -> None:
        image_type, image_topic = Image, self.resolve_topic_name("image_raw")
        if self.settings.image_transport == "compressed":
            image_type, image_topic = CompressedImage, f"{image_topic}/compressed"
        self._image_subscription = self._subscribe(image_type, image_topic, self._on_image)
        self._info_subscription = self._subscribe(CameraInfo, "camera_info", self._on_camera_info)

    def _subscribe(self, message_type: type, topic: str, callback: Any) -> Subscription:
        # A profile of its own for each: overrides write into it.
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        resolved = self.resolve_topic_name(topic)

        def report_incompatible(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
            self.get_logger().error(
                f"the publisher of {resolved} offers another {policy} than is asked for: nothing "
                f"comes from it; set qos_overrides.{resolved}.subscription.{policy} to match"
            )

        return self.create_subscription(
            message_type,
            topic,
            callback,
            qos,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=report_incompatible),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    @property
    def _image_topic(self) -> str:
        return str(self._image_subscription.topic_name)

    @property
    def _info_topic(self) -> str:
        return str(self._info_subscription.topic_name)

    def _apply(self, _: Sequence[RosParameter] = ()) -> None:
        """Puts the live parameters into effect."""
        self.settings = parameters.read(self)
        self._pipeline.options = self.settings.pipeline_options
        self._worker.set_min_period(self.settings.min_period_s)

    # --- callbacks of the executor's thread ---

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.stats.received += 1
        self._last_image_s = time.monotonic()
        if self._camera_info is None and not self.settings.assumed_fov_deg:
            self.stats.without_camera += 1
        else:
            self.stats.replaced += self._worker.put(Frame(message, self._camera_info))

    def _report_silence(self) -> None:
        silent_s = time.monotonic() - self._last_image_s
        if silent_s >= _SILENCE_S:
            self._warn(f"no image on {self._image_topic} for {silent_s:.0f} s")
        elif self._camera_info is None and not self.settings.assumed_fov_deg:
            self._warn(
                f"no camera_info on {self._info_topic} yet, and images wait for it; for a camera "
                "without calibration set assumed_fov_deg"
            )

    # --- the worker's thread ---

    def _process(self, frame: Frame) -> None:
        started_s = time.monotonic()
        if self._too_old(frame):
            self.stats.too_old += 1
            return
        record = self._see(frame)
        if self._worker.stopping:
            return
        self._pose_publisher.publish(message_from_record(Pose3DArray, record))
        if self._marker_publisher.get_subscription_count():
            self._marker_publisher.publish(
                self._markers.build(record, self.settings.marker_lifetime)
            )
        self.stats.processed += 1
        self.stats.last_ms = (time.monotonic() - started_s) * 1e3

    def _too_old(self, frame: Frame) -> bool:
        limit_s = self.settings.max_image_age
        if not limit_s:
            return False
        age = self.get_clock().now() - Time.from_msg(frame.image.header.stamp)
        age_s = age.nanoseconds * 1e-9
        if age_s > limit_s:
            self._warn(
                f"images on {self._image_topic} are dropped as older than max_image_age: "
                f"{age_s:.2f} s > {limit_s:g} s; do the clocks agree, is use_sim_time right?"
            )
        return age_s > limit_s

    def _see(self, frame: Frame) -> Record:
        """The people of one image, as Pose3DArray's fields."""
        image = image_to_rgb(frame.image)
        header = frame.image.header
        source = ImageSource(header.frame_id, width=image.shape[1], height=image.shape[0])
        intrinsics = intrinsics_of(source, frame.camera_info, self.settings.assumed_fov_deg)
        (people,) = self._pipeline([image], [intrinsics])
        return pose_array_record(
            people,
            skeleton=self._pipeline.skeleton,
            model=self._pipeline.model,
            intrinsics=intrinsics,
            stamp=(header.stamp.sec, header.stamp.nanosec),
            frame_id=header.frame_id,
        )

    def _report_failure(self, _: Frame, error: Exception) -> None:
        self.stats.failed += 1
        if self._worker.stopping:
            return
        if isinstance(error, IntrinsicsError):
            text = f"camera_info on {self._info_topic} is of no use: {error}"
        elif isinstance(error, ConversionError):
            text = f"image on {self._image_topic} is of no use: {error}"
        else:
            text = f"image on {self._image_topic} failed: {type(error).__name__}: {error}"
            self.get_logger().debug("".join(traceback.format_exception(error)))
        if self._throttle.allows(text):
            self.get_logger().error(text)

    def _warn(self, text: str) -> None:
        if self._throttle.allows(text):
            self.get_logger().warning(text)


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM; 0, or 1 if it could not start."""
    # Not rclpy's handlers: they end all communication before the last markers are deleted.
    # SIGINT too: a shell's background job starts with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = PoseNode()
        node.load()
        node.start()
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        return 0
    # What weights, devices and detectors, rcl and torch say about what they were given.
    except (RuntimeError, ValueError, ParameterException, InvalidQosOverridesError) as error:
        get_logger(NODE_NAME).fatal(f"cannot start: {error}")
        get_logger(NODE_NAME).debug("".join(traceback.format_exception(error)))
        rclpy.try_shutdown()
        return 1
    try:
        _spin(node)
    finally:
        _finish(node)
    return 0


def _spin(node: Node) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        while True:
            executor.spin_once(_SPIN_PERIOD_S)


def _finish(node: PoseNode) -> None:
    # ros2 launch repeats the terminal's Ctrl-C, which must not cut this short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    stopped = node.stop()
    node.destroy_node()
    rclpy.try_shutdown()
    if not stopped:
        # Taking the interpreter down below a thread that computes would crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
