"""A camera made of pictures (``ros2 run mppe_ros sample_camera``): image, folder, video or webcam.

Publishes ``image_raw`` (rgb8) and ``camera_info`` with the same stamp and frame. Both are
reliable, because best-effort images of this size get lost on many machines. The profile can be
overridden (``-p qos_overrides./image_raw.publisher.reliability:=best_effort``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from . import executables
from .conversions import image_message
from .declaration import Parameter
from .media import Frame, MediaError, Rgb, open_media
from .structures import Intrinsics, IntrinsicsError

NODE_NAME = "sample_camera"

# Several people at known places; the ground truth and the camera are in the JSON beside it.
SAMPLE_CLIP = Path(__file__).parent / "resources" / "sample" / "clip.mp4"

PARAMETERS = (
    Parameter(
        "source",
        "",
        "Image, folder of images, video, or number of a webcam; empty = the clip that comes with "
        "the package.",
    ),
    Parameter("rate", 0.0, "Images per second, Hz; 0 = the source's.", bounds=(0.0, 1000.0)),
    Parameter("loop", False, "Start again at the end instead of ending."),
    Parameter("fov_deg", 0.0, "Horizontal field of view, deg; 0 = not given.", (0.0, 179.0)),
    Parameter("fx", 0.0, "Focal length, px; 0 = not given.", (0.0, 1e6)),
    Parameter("fy", 0.0, "Focal length, px; 0 = as fx.", (0.0, 1e6)),
    Parameter("cx", -1.0, "Principal point, px; -1 = the image's centre.", (-1.0, 1e6)),
    Parameter("cy", -1.0, "Principal point, px; -1 = the image's centre.", (-1.0, 1e6)),
    Parameter("frame_id", "camera_optical_frame", "Frame of images and camera_info."),
    Parameter(
        "wait_for_subscribers",
        0,
        "Send nothing before this many have subscribed to both topics.",
        bounds=(0, 100),
    ),
)

_WAIT_PERIOD_S = 0.05
# Subscribers may learn of the match a little later than the publisher does.
_SETTLE_S = 1.0
# A source that is decoded too slowly falls behind by this much at most, then it runs slower.
_MAX_DELAY_S = 1.0
_ACKNOWLEDGE_TIMEOUT_S = 5.0
# Between a new camera and its first image.
_INTRODUCTION_S = 0.1


class CameraError(ValueError):
    """Settings that make no camera; one sentence that says what to do."""


@dataclass(frozen=True)
class Calibration:
    """What is known of a camera, for images of any size or of one.

    Either ``fov_deg``, or ``fx`` and what else is known; ``width`` and ``height`` where the values
    hold for one size only.
    """

    fov_deg: float | None = None
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    width: int | None = None
    height: int | None = None

    def intrinsics(self, width: int, height: int) -> Intrinsics:
        """The camera of an image of this size.

        :raises IntrinsicsError: no such camera, or it is for images of another size.
        """
        if self.fx is None:
            return Intrinsics.from_fov(self.fov_deg or 0.0, width, height)
        if (width, height) != (self.width or width, self.height or height):
            raise IntrinsicsError(
                f"the image is {width}x{height} px, its camera is known for "
                f"{self.width}x{self.height} px"
            )
        return Intrinsics(
            fx=self.fx,
            fy=self.fx if self.fy is None else self.fy,
            cx=(width - 1) / 2 if self.cx is None else self.cx,
            cy=(height - 1) / 2 if self.cy is None else self.cy,
            width=width,
            height=height,
        )


def calibration_file(source: str | Path) -> Path | None:
    """The JSON of the same name beside a video or image, if there is one with a camera in it."""
    path = Path(source).with_suffix(".json")
    try:
        return path if "fx" in json.loads(path.read_text(encoding="utf-8")) else None
    except (OSError, ValueError, TypeError):
        return None


def read_calibration(path: Path) -> Calibration:
    """fx, and fy, cx, cy, width, height where they are, of a JSON file.

    :raises CameraError: values that are no numbers.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    given = {name: content[name] for name in Calibration.__annotations__ if name in content}
    if not all(isinstance(value, int | float) for value in given.values()):
        raise CameraError(f"{path}: fx, fy, cx, cy, width and height must be numbers")
    return Calibration(**given)


def camera_info(intrinsics: Intrinsics, header: Header) -> CameraInfo:
    """The message of a camera without distortion."""
    matrix = intrinsics.matrix
    projection = [[*row, 0.0] for row in matrix]
    return CameraInfo(
        header=header,
        width=intrinsics.width,
        height=intrinsics.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=matrix.ravel().tolist(),
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[float(value) for row in projection for value in row],
    )


class SampleCamera(Node):
    """Publishes the frames of a source in their own time.

    :raises CameraError, MediaError, IntrinsicsError: settings or a source that cannot be used.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NODE_NAME, **node_options)
        settings = _declare(self)
        source = settings["source"] or SAMPLE_CLIP
        self._frame_id = settings["frame_id"]
        self._loop = settings["loop"]
        self._subscribers = settings["wait_for_subscribers"]
        self._source = open_media(source, report=self._warn)
        self._calibration = _calibration(settings, source)
        # Better now than after the first image.
        self._calibration.intrinsics(self._source.width, self._source.height)
        file_rate = settings["rate"] or self._source.fps
        self._rate = self._source.fps if self._source.live else file_rate
        self._frames = self._timed_frames()
        self._next: Frame | None = None
        self._start: Time | None = None
        self._known: Intrinsics | None = None  # the camera that subscribers know
        self.published = 0
        self.finished = False
        self.error: Exception | None = None  # why it finished early
        self._image_publisher = self._publisher(Image, "image_raw")
        self._info_publisher = self._publisher(CameraInfo, "camera_info")
        self._timer: Timer = self.create_timer(_WAIT_PERIOD_S, self._wait)
        self.get_logger().info(
            f"{self._source.name}: {self._source.width}x{self._source.height} px, "
            f"{self._rate:g} Hz, on {self._image_publisher.topic_name}"
        )

    def close(self) -> None:
        """Waits until everything sent has arrived, then lets go of the source."""
        if self.context.ok():
            timeout = Duration(seconds=_ACKNOWLEDGE_TIMEOUT_S)
            for publisher in (self._image_publisher, self._info_publisher):
                publisher.wait_for_all_acked(timeout)
        self._source.close()
        self.get_logger().info(f"{self.published} images published")

    def _publisher(self, message_type: type, topic: str) -> Publisher[Any]:
        # A profile of its own for each: overrides write into it.
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE
        )
        return self.create_publisher(
            message_type,
            topic,
            qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _wait(self) -> None:
        publishers = self._image_publisher, self._info_publisher
        if min(p.get_subscription_count() for p in publishers) < self._subscribers:
            return
        self.destroy_timer(self._timer)
        if self._subscribers:
            time.sleep(_SETTLE_S)
        self._timer = self.create_timer(1 / self._rate, self._tick)
        self._start = self.get_clock().now()
        self._tick()

    def _tick(self) -> None:
        """Publishes what is due."""
        try:
            if self._source.live:
                frame = next(self._frames)
                self._publish(frame.rgb, self.get_clock().now())
            else:
                self._publish_due()
        except StopIteration:
            self.finished = True
        except MediaError as error:
            self.finished, self.error = True, error

    def _publish_due(self) -> None:
        """Stamps keep the source's even spacing, whatever the timer does."""
        assert self._start is not None
        while True:
            if self._next is None:
                self._next = next(self._frames)
            due = self._start + Duration(seconds=self._next.time_s)
            delay_s = (self.get_clock().now() - due).nanoseconds * 1e-9
            if delay_s < 0:
                return
            if delay_s > _MAX_DELAY_S:
                self.get_logger().warning(
                    f"{self._rate:g} Hz are too fast for this machine", once=True
                )
                self._start += Duration(seconds=delay_s)
                due += Duration(seconds=delay_s)
            self._publish(self._next.rgb, due)
            self._next = None

    def _timed_frames(self) -> Iterator[Frame]:
        """Frames in the rate's time, over and over if looped."""
        slowness, pass_start_s = self._source.fps / self._rate, 0.0
        while True:
            time_s = pass_start_s
            for frame in self._source:
                time_s = pass_start_s + frame.time_s * slowness
                yield Frame(time_s, frame.rgb)
            if not self._loop:
                return
            pass_start_s = time_s + 1 / self._rate

    def _publish(self, rgb: Rgb, stamp: Time) -> None:
        header = Header(stamp=stamp.to_msg(), frame_id=self._frame_id)
        height, width = rgb.shape[:2]
        try:
            intrinsics = self._calibration.intrinsics(width, height)
        except IntrinsicsError as error:
            self._warn(f"skipped: {error}")
            return
        self._info_publisher.publish(camera_info(intrinsics, header))
        if intrinsics != self._known:
            # Whoever takes the newest camera_info for an image must not have to take an old one.
            time.sleep(_INTRODUCTION_S)
            self._known = intrinsics
        self._image_publisher.publish(image_message(rgb, header))
        self.published += 1

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text)


def _declare(node: Node) -> dict[str, Any]:
    """Declares the parameters and returns their values.

    :raises CameraError: a value that is not allowed.
    """
    values = {}
    for parameter in PARAMETERS:
        descriptor = parameter.descriptor()
        # A webcam's number is taken for an integer, not for a text.
        descriptor.dynamic_typing |= parameter.name == "source"
        value: Any = node.declare_parameter(parameter.name, parameter.default, descriptor).value
        if parameter.name == "source":
            value = str(value)
        if reason := parameter.problem(value):
            raise CameraError(reason)
        values[parameter.name] = type(parameter.default)(value)
    return values


def _calibration(settings: dict[str, Any], source: str | Path) -> Calibration:
    if settings["fx"] and settings["fov_deg"]:
        raise CameraError("give either fx or fov_deg, not both")
    if settings["fov_deg"]:
        return Calibration(fov_deg=settings["fov_deg"])
    if settings["fx"]:
        return Calibration(
            fx=settings["fx"],
            fy=settings["fy"] or None,
            cx=None if settings["cx"] == -1 else settings["cx"],
            cy=None if settings["cy"] == -1 else settings["cy"],
        )
    path = calibration_file(source)
    if path is None:
        raise CameraError(
            f"the camera of {source} is unknown: set fov_deg (horizontal field of view), or fx in "
            "pixels"
        )
    return read_calibration(path)


def main(args: list[str] | None = None) -> int:
    """Runs until the source ends or a signal comes; 0, or 1 with one sentence that says why."""
    return executables.run(NODE_NAME, SampleCamera, _work, SampleCamera.close, args)


def _work(camera: SampleCamera) -> int:
    executables.spin(camera, until=lambda: camera.finished)
    if camera.error is not None:
        camera.get_logger().fatal(f"stopped: {camera.error}")
    return 0 if camera.error is None else 1
