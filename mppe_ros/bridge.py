"""Poses for those who don't know our messages (``ros2 run mppe_ros pose_bridge``).

* ``~/root_poses``, geometry_msgs/PoseArray: everybody's pelvis, for planners.
* Where hri_msgs is installed, the bodies of REP 155 (ROS4HRI): ``/humans/bodies/tracked``, for
  each body ``/humans/bodies/ID/roi`` and ``.../skeleton2d``; with tf2_msgs its frame ``body_ID``.

Listens to ``mppe/poses``, the pose node's own name for its poses in the same namespace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseArray, TransformStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile

from mppe_ros.msg import Pose3D, Pose3DArray

from . import executables
from .declaration import Parameter

NODE_NAME = "pose_bridge"
POSES_TOPIC = "mppe/poses"
# Absolute, against our habit: it is how the listeners of REP 155 find them.
BODIES = "/humans/bodies"

PARAMETERS = (
    Parameter(
        "rep155",
        True,
        "Publish the bodies of REP 155 too, where hri_msgs is installed.",
        read_only=True,
    ),
    # No name in ROS may begin with a digit, as a track's number would.
    Parameter(
        "id_prefix",
        "b",
        "Begins every body's identifier; give each camera's bridge its own.",
        read_only=True,
    ),
)

# Our names of hri_msgs/Skeleton2D's points, in its order (OpenPose's 18); eyes and ears we lack.
SKELETON2D = (
    ("Nose",), ("Neck", "Thorax"),
    ("R_Shoulder",), ("R_Elbow",), ("R_Wrist",), ("L_Shoulder",), ("L_Elbow",), ("L_Wrist",),
    ("R_Hip",), ("R_Knee",), ("R_Ankle",), ("L_Hip",), ("L_Knee",), ("L_Ankle",),
    (), (), (), (),
)  # fmt: skip



class BridgeError(RuntimeError):
    """What the bridge needs and doesn't find; the message says how to get it."""


# --- from message to message ---------------------------------------------------------------------


def present(message: Pose3DArray) -> list[Pose3D]:
    """The people who are somewhere: not lost, and with a position."""
    return [
        pose
        for pose in message.poses
        if pose.tracking_state != Pose3D.STATE_LOST
        and all(math.isfinite(getattr(pose.root.pose.position, axis)) for axis in "xyz")
    ]


def root_poses(message: Pose3DArray) -> PoseArray:
    """Everybody's root. An unknown orientation, which PoseArray can't tell, is no rotation."""
    return PoseArray(header=message.header, poses=[pose.root.pose for pose in present(message)])


def orientation_known(pose: Pose3D) -> bool:
    """Pose3D marks an unknown orientation by a negative variance."""
    return bool(pose.root.covariance[21] >= 0)  # row 3, column 3 of 6x6


def normalised_box(pose: Pose3D, width: int, height: int) -> tuple[float, float, float, float]:
    """x and y of the box's top left and bottom right corners, 0..1 of the image."""
    x, y, w, h = map(float, pose.bbox)
    # The first pixel's centre is 0, its edge -0.5.
    corners = (x + 0.5) / width, (y + 0.5) / height, (x + w + 0.5) / width, (y + h + 0.5) / height
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in corners)
    return left, top, right, bottom


def skeleton2d_points(
    pose: Pose3D, joint_names: Sequence[str], width: int, height: int
) -> list[tuple[float, float, float]]:
    """x, y (0..1 of the image) and confidence of `SKELETON2D`; zeros where not in the image."""
    joints = dict(zip(joint_names, pose.joints, strict=True))
    points = []
    for names in SKELETON2D:
        joint = next((joints[name] for name in names if name in joints), None)
        point = (0.0, 0.0, 0.0)
        if joint is not None:
            x, y = (joint.u + 0.5) / width, (joint.v + 0.5) / height
            if 0 <= x <= 1 and 0 <= y <= 1:  # written so that NaN fails
                point = (x, y, min(max(float(joint.score), 0.0), 1.0))
        points.append(point)
    return points


def body_transform(message: Pose3DArray, pose: Pose3D, body_id: str) -> TransformStamped:
    """REP 155's frame of a body, in the frame of the poses."""
    transform = TransformStamped(header=message.header, child_frame_id=f"body_{body_id}")
    position = pose.root.pose.position
    translation = transform.transform.translation
    translation.x, translation.y, translation.z = position.x, position.y, position.z
    transform.transform.rotation = pose.root.pose.orientation
    return transform


# --- REP 155 -------------------------------------------------------------------------------------


class Bodies:
    """The topics below /humans/bodies; those of a body live as long as it is tracked.

    :raises BridgeError: hri_msgs is not installed.
    """

    def __init__(self, node: Node, id_prefix: str) -> None:
        try:
            from hri_msgs import msg
        except ImportError as error:
            raise BridgeError(
                "the topics of REP 155 need hri_msgs, which isn't installed: "
                "apt install ros-$ROS_DISTRO-hri-msgs"
            ) from error
        self._node, self._messages, self._prefix = node, msg, id_prefix
        self._tracked = node.create_publisher(msg.IdsList, f"{BODIES}/tracked", 1)
        self._of_body: dict[str, tuple[Publisher, Publisher]] = {}
        self._frames = _Frames(node)

    def publish(self, message: Pose3DArray) -> None:
        """Everybody who has an id: a place in the array is none."""
        bodies = {
            f"{self._prefix}{pose.track_id}": pose for pose in present(message) if pose.track_id
        }
        self._forget(bodies.keys())
        for body_id, pose in bodies.items():
            roi, skeleton = self._publishers(body_id)
            roi.publish(self._roi(message, pose))
            skeleton.publish(self._skeleton(message, pose))
        # After their topics: whoever hears of a body may subscribe to it at once.
        self._tracked.publish(self._messages.IdsList(header=message.header, ids=list(bodies)))
        self._frames.publish([
            body_transform(message, pose, body_id)
            for body_id, pose in bodies.items()
            if orientation_known(pose)
        ])  # fmt: skip

    def _publishers(self, body_id: str) -> tuple[Publisher, Publisher]:
        if body_id not in self._of_body:
            create, msg = self._node.create_publisher, self._messages
            self._of_body[body_id] = (
                create(msg.NormalizedRegionOfInterest2D, f"{BODIES}/{body_id}/roi", 1),
                create(msg.Skeleton2D, f"{BODIES}/{body_id}/skeleton2d", 1),
            )
        return self._of_body[body_id]

    def _forget(self, tracked: Any) -> None:
        for body_id in self._of_body.keys() - tracked:
            for publisher in self._of_body.pop(body_id):
                self._node.destroy_publisher(publisher)

    def _roi(self, message: Pose3DArray, pose: Pose3D) -> Any:
        left, top, right, bottom = normalised_box(pose, message.image_width, message.image_height)
        return self._messages.NormalizedRegionOfInterest2D(
            header=message.header, xmin=left, ymin=top, xmax=right, ymax=bottom,
            c=float(pose.score),
        )  # fmt: skip

    def _skeleton(self, message: Pose3DArray, pose: Pose3D) -> Any:
        points = skeleton2d_points(
            pose, message.joint_names, message.image_width, message.image_height
        )
        point = self._messages.NormalizedPointOfInterest2D
        return self._messages.Skeleton2D(
            header=message.header, skeleton=[point(x=x, y=y, c=c) for x, y, c in points]
        )


class _Frames:
    """/tf, where tf2_msgs is installed."""

    def __init__(self, node: Node) -> None:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            node.get_logger().warning(
                "bodies have no frames: they need tf2_msgs, which isn't installed: "
                "apt install ros-$ROS_DISTRO-tf2-msgs"
            )
            self._publisher = None
            return
        self._message = TFMessage
        self._publisher = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))

    def publish(self, transforms: list[TransformStamped]) -> None:
        if self._publisher is not None and transforms:
            self._publisher.publish(self._message(transforms=transforms))


# --- the node ------------------------------------------------------------------------------------


class PoseBridge(Node):
    """Repeats every message of the pose node in other words."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NODE_NAME, **node_options)
        values: dict[str, Any] = {
            parameter.name: self.declare_parameter(
                parameter.name, parameter.default, parameter.descriptor()
            ).value
            for parameter in PARAMETERS
        }
        self._roots = self.create_publisher(PoseArray, "~/root_poses", 10)
        self._bodies: Bodies | None = None
        if values["rep155"]:
            try:
                self._bodies = Bodies(self, values["id_prefix"])
            except BridgeError as error:
                self.get_logger().warning(f"{error}; publishing {self._roots.topic_name} only")
        subscription = self.create_subscription(Pose3DArray, POSES_TOPIC, self._on_poses, 10)
        self.get_logger().info(
            f"listening on {subscription.topic_name}, publishing {self._roots.topic_name}"
            + (f" and {BODIES}" if self._bodies else "")
        )

    def _on_poses(self, message: Pose3DArray) -> None:
        self._roots.publish(root_poses(message))
        if self._bodies is None:
            return
        self._bodies.publish(message)
        if any(not pose.track_id for pose in message.poses):
            self.get_logger().warning(
                f"people without track_id are not published below {BODIES}: is tracking off?",
                once=True,
            )


def main(args: list[str] | None = None) -> int:
    """Runs until a signal comes; 0, or 1 with one sentence that says why."""
    return executables.run(NODE_NAME, PoseBridge, _work, args=args)


def _work(node: PoseBridge) -> int:
    executables.spin(node)
    return 0
