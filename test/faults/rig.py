"""A node under attack: in this process, over real DDS, networks replaced by puppets.

Everything but the networks is the real thing: camera, DDS, node, worker, `Pipeline`, tracking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from node_host import Host
from node_rig import FRAME_ID, Robot, make_image, make_info, stamp_of, wait_until
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mppe_ros import camera
from mppe_ros.camera_info import ImageSource, intrinsics_of
from mppe_ros.networks import CropPoses
from mppe_ros.pipeline import Pipeline
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import Detections, JointStatus, RootError
from mppe_ros.throttle import Throttle
from mppe_ros.weights import CropSpec

WIDTH, HEIGHT = 64, 48
GOOD = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
_WARN = 30  # of rcl_interfaces/Log
_MAX_REPROJECTION_PX = 0.5


# --- networks that say what they are told --------------------------------------------------------


@dataclass
class Puppets:
    """DetectNet, RootNet and PoseNet: one person in every image that isn't black.

    :param broken: what a stage does instead; keys "detect" and "estimate".
    """

    skeleton = HUMAN36M_17
    people: int = 1
    broken: dict[str, Callable] = field(default_factory=dict)

    def detect(self, images: list[torch.Tensor]) -> list[Detections]:
        if "detect" in self.broken:
            return self.broken["detect"](images)
        found = [self.people if bool(image.any()) else 0 for image in images]
        return [Detections(boxes(count), np.full(count, 0.9)) for count in found]

    def __call__(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        if "estimate" in self.broken:
            return self.broken["estimate"](crops)
        return crop_poses(len(crops))


def boxes(count: int) -> NDArray[np.float64]:
    """Side by side, so that they are different people."""
    return np.array([[15.0 * i, 8, 14, 32] for i in range(count)]).reshape(-1, 4)


def crop_poses(count: int, **changes: float) -> CropPoses:
    """:param changes: a value for all of a field."""
    joints = len(HUMAN36M_17)
    spread = torch.linspace(8, 24, joints)
    poses = CropPoses(
        root_px=torch.full((count, 2), 16.0),
        gamma=torch.ones(count),
        joints_px=torch.stack([spread, spread.flip(0)], dim=1).expand(count, -1, -1).clone(),
        joints_z_mm=torch.linspace(-200, 200, joints).expand(count, -1).clone(),
        joint_scores=torch.full((count, joints), 0.9),
    )
    values = {name: torch.full_like(getattr(poses, name), v) for name, v in changes.items()}
    return poses._replace(**values)


def make_pipeline(puppets: Puppets) -> Pipeline:
    return Pipeline(
        puppets.detect,
        puppets,
        CropSpec(32, mean=(0, 0, 0), std=(1, 1, 1)),
        RootError(along=0.1, across_mm=40.0, tilt_rad=0.2, heading_rad=0.6, fused_mm=50.0),
        model="puppets (0)",
        device=torch.device("cpu"),
    )


# --- the node and the other end of its topics ----------------------------------------------------


@dataclass
class Shot:
    """What a camera sends at once; None = nothing on that topic."""

    image: Image | CompressedImage | np.ndarray | None = None
    info: CameraInfo | None = None
    depth: Image | None = None
    stamp: tuple[int, int] | None = None  # None = later than all before

    @classmethod
    def good(cls) -> Shot:
        return cls(make_image(GOOD), make_info(GOOD))


def jpeg(rgb: np.ndarray) -> CompressedImage:
    return CompressedImage(format="jpeg", data=cv2.imencode(".jpg", rgb)[1].tobytes())


def make_depth() -> Image:
    """Of a wall, 3 m away."""
    depth = Image(height=HEIGHT, width=WIDTH, encoding="32FC1", step=4 * WIDTH)
    depth.data = np.full((HEIGHT, WIDTH), 3.0, np.float32).tobytes()
    return depth


class Rig:
    """One node and its robot, for many cases one after the other.

    :param values: the node's parameters.
    """

    def __init__(self, host: Host, namespace: str, **values: object) -> None:
        self.host, self.values = host, values
        self.puppets = Puppets()
        host.pipeline = make_pipeline(self.puppets)
        self.robot = Robot(namespace)
        self.node = host.start(namespace, **values)
        self._clients: dict[str, object] = {}
        self._cases = 0
        self._sent: dict[tuple[int, int], CameraInfo | None] = {}
        self.answer()
        stats = self.node.stats
        # The first depth image may come before its connection stands.
        wait_until(lambda: not stats.complaint, lambda: self.send(self.good()))

    def close(self) -> None:
        self.robot.close()

    @contextmanager
    def case(self) -> Iterator[None]:
        """Checks what holds in every case: nothing but what was sent is answered, and truly."""
        self._cases += 1
        self.node._throttle = Throttle(3600.0)
        self._hear_all(f"case {self._cases} begins")  # what was said before it
        self._first_pose, self._first_log = len(self.robot.poses), len(self.robot.logs)
        yield
        assert self.host.alive
        for message in self.robot.poses[self._first_pose :]:
            fov_deg = self.node.settings.assumed_fov_deg
            check_poses(message, self._sent.get(stamp_of(message)), fov_deg)

    @property
    def complaints(self) -> list[str]:
        """Warnings and errors of this case, but for those about a camera beside ours: DDS takes a
        killed one for alive for a while.
        """
        self._hear_all(f"case {self._cases} ends")
        texts = [log.msg for log in self._logs() if log.level >= _WARN]
        return [text for text in texts if "publishers on" not in text]

    def _hear_all(self, mark: str) -> None:
        """Waits for all that the node has logged."""
        self.node.get_logger().info(mark)
        wait_until(lambda: self.robot.log(mark))

    @property
    def notices(self) -> list[str]:
        return [log.msg for log in self._logs()]

    def _logs(self) -> list:
        name = f"{self.robot.namespace}/mppe".strip("/").replace("/", ".")
        return [log for log in self.robot.logs[self._first_log :] if log.name == name]

    def send(self, shot: Shot) -> tuple[int, int]:
        """The stamp that the image had."""
        stamp = shot.stamp or self.robot.next_stamp()
        if shot.info is not None:
            self._introduce(shot.info, stamp)
        if shot.image is None:
            return stamp
        self._sent[stamp] = shot.info
        return self.robot.send(shot.image, None, stamp, shot.depth)

    def _introduce(self, info: CameraInfo, stamp: tuple[int, int]) -> None:
        """Sends a camera_info until the node has it: it holds for the next image."""
        subscriptions = self.node._camera
        before_s = subscriptions._last_info_s
        info.header.stamp.sec, info.header.stamp.nanosec = stamp
        wait_until(
            lambda: subscriptions._last_info_s > before_s,
            lambda: self.robot.infos.publish(info),
        )

    def inflict(self, make: Callable[[], Shot], fate: str, times: int = 3) -> list:
        """Sends faulty images until so many have met their fate (a count of `Stats`).

        :return: the stamps of those that were sent after the first had.
        """
        stamps: list[list] = []
        for _ in range(times):
            before, sent = getattr(self.node.stats, fate), []
            wait_until(
                lambda before=before: getattr(self.node.stats, fate) > before,
                lambda sent=sent: sent.append(self.send(make())),
            )
            stamps.append(sent)
        return [stamp for sent in stamps[1:] for stamp in sent]

    def good(self) -> Shot:
        """What this node's camera should send."""
        shot = Shot.good()
        if self.node.settings.image_transport == "compressed":
            shot.image = jpeg(GOOD)
        if self.node.settings.depth_fusion:
            shot.depth = make_depth()
        return shot

    def answer(self) -> float:
        """Sends good images until one is answered; how long that took from the first on, s."""
        sent: list[tuple[int, int]] = []
        began_s = time.monotonic()
        wait_until(
            lambda: any(self.robot.poses_of(stamp) for stamp in sent),
            lambda: sent.append(self.send(self.good())),
        )
        took_s = time.monotonic() - began_s
        answer = next(p for stamp in sent if (p := self.robot.poses_of(stamp)))
        assert answer.poses or self.node.settings.detection_interval > 1
        return took_s

    def change(self, name: str, value: object) -> tuple[bool, str]:
        """Sets a parameter through the node's service."""
        message = RosParameter(name, value=value).to_parameter_msg()
        return self.set_parameter(message)

    def set_parameter(self, message: object) -> tuple[bool, str]:
        client = self._clients.get("set_parameters")
        if client is None:
            client = self.robot.node.create_client(SetParameters, "mppe/set_parameters")
            self.robot._executor.wake()
            assert client.wait_for_service(60)
            self._clients["set_parameters"] = client
        future = client.call_async(SetParameters.Request(parameters=[message]))
        wait_until(future.done)
        (result,) = future.result().results
        return result.successful, result.reason


def check_poses(
    message: object, info: CameraInfo | None = None, assumed_fov_deg: float = 0.0
) -> None:
    """What holds for every Pose3DArray.

    :param info: the camera of its image, to project the joints; None = unknown.
    """
    ids = [pose.track_id for pose in message.poses if pose.track_id]
    assert len(ids) == len(set(ids))
    for pose in message.poses:
        position = pose.root.pose.position
        numbers = [position.x, position.y, position.z, *pose.root.covariance, *pose.bbox]
        assert np.isfinite([*numbers, pose.score, pose.velocity.x, pose.velocity.z]).all()
        assert position.z > 0
        assert len(pose.joints) == len(message.joint_names)
        valid = [joint for joint in pose.joints if joint.status != JointStatus.INVALID]
        points = np.array([[j.position.x, j.position.y, j.position.z] for j in valid])
        pixels = np.array([[joint.u, joint.v] for joint in valid])
        assert np.isfinite(points).all() and np.isfinite(pixels).all()
        if info is None or not len(valid) or pose.tracking_state > 2:
            continue
        source = ImageSource(FRAME_ID, message.image_width, message.image_height)
        lens = intrinsics_of(source, info, assumed_fov_deg=assumed_fov_deg)
        seen = camera.project(points * 1000, lens)
        assert np.abs(seen - pixels).max() < _MAX_REPROJECTION_PX
