"""Poses in another frame than the camera's: ``output_frame``, by tf2.

The transform of a record knows no ROS. The look-up imports tf2_ros only when it is made, so that
everything else works where it isn't installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from transforms3d.quaternions import mat2quat, quat2mat

from .records import Record
from .structures import FloatArray


class FrameError(RuntimeError):
    """A frame that can't be reached; the message says which, and why."""


# --- records -------------------------------------------------------------------------------------


def transform_record(record: Record, matrix: npt.ArrayLike, frame_id: str) -> Record:
    """A Pose3DArray's record in another frame; pixels, boxes and scores stay.

    :param record: as of `records.pose_array_record`; it is not changed.
    :param matrix: (4, 4) rigid: points of the record's frame to points of ``frame_id``, m.
    """
    rigid = np.asarray(matrix, np.float64)
    return {
        **record,
        "header": {**record["header"], "frame_id": frame_id},
        "poses": [_transform_pose(pose, rigid[:3, :3], rigid[:3, 3]) for pose in record["poses"]],
    }


def _transform_pose(pose: Record, rotation: FloatArray, translation: FloatArray) -> Record:
    def moved(point: Mapping[str, float]) -> Record:
        return _xyz(rotation @ _vector(point) + translation)

    root = pose["root"]
    return {
        **pose,
        "root": {
            "pose": {
                "position": moved(root["pose"]["position"]),
                "orientation": _rotate(root["pose"]["orientation"], root["covariance"], rotation),
            },
            "covariance": rotate_covariance(root["covariance"], rotation),
        },
        "velocity": _xyz(rotation @ _vector(pose["velocity"])),
        "joints": [{**joint, "position": moved(joint["position"])} for joint in pose["joints"]],
    }


def _rotate(orientation: Record, covariance: list[float], rotation: FloatArray) -> Record:
    """An unknown orientation stays "no rotation", whatever the frame."""
    if _orientation_unknown(covariance):
        return orientation
    axes = quat2mat([orientation[axis] for axis in "wxyz"])
    return dict(zip("wxyz", map(float, mat2quat(rotation @ axes)), strict=True))


def rotate_covariance(covariance: npt.ArrayLike, rotation: FloatArray) -> list[float]:
    """geometry_msgs' 6x6 (row-major, 36) about the axes of another frame; an unknown orientation
    (-1 on its diagonal) stays unknown.

    :param rotation: (3, 3)
    """
    whole = np.zeros((6, 6))
    whole[:3, :3] = whole[3:, 3:] = rotation
    given = np.asarray(covariance, np.float64).reshape(6, 6)
    rotated = whole @ given @ whole.T
    if _orientation_unknown(given):
        rotated[3:, 3:] = given[3:, 3:]
    return [float(value) for value in rotated.ravel()]


def _orientation_unknown(covariance: npt.ArrayLike) -> bool:
    return bool(np.asarray(covariance).reshape(6, 6)[3, 3] < 0)


def _vector(point: Mapping[str, float]) -> FloatArray:
    return np.array([point[axis] for axis in "xyz"], np.float64)


def _xyz(point: FloatArray) -> Record:
    return dict(zip("xyz", map(float, point), strict=True))


# --- tf2 -----------------------------------------------------------------------------------------


class TransformLookup:
    """Where a camera was at an image's time. Listens to /tf and /tf_static from its making on.

    :param node: an rclpy Node, which must be spun.
    :param timeout_s: how long a look-up waits for a transform that is on its way; it blocks, so
        call it from another thread than the one that spins the node.
    :raises FrameError: tf2_ros is not installed.
    """

    def __init__(self, node: Any, timeout_s: float = 0.2) -> None:
        try:
            import tf2_ros
            from rclpy.duration import Duration
        except ImportError as error:
            raise FrameError(
                "output_frame and tracking_frame need tf2_ros, which isn't installed: "
                "apt install ros-$ROS_DISTRO-tf2-ros"
            ) from error
        self._tf2, self._timeout = tf2_ros, Duration(seconds=timeout_s)
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def __call__(self, frame_id: str, source_frame_id: str, stamp: Any) -> FloatArray:
        """The matrix (4, 4) that takes points of ``source_frame_id`` to ``frame_id``, m.

        :param stamp: builtin_interfaces/Time, the image's.
        :raises FrameError: no such transform at that time.
        """
        from rclpy.time import Time

        if frame_id == source_frame_id:
            return np.eye(4)
        try:
            found = self._buffer.lookup_transform(
                frame_id, source_frame_id, Time.from_msg(stamp), self._timeout
            )
        except self._tf2.TransformException as error:
            raise FrameError(
                f"no transform from {source_frame_id!r} to {frame_id!r} at the image's time: "
                f"{error}"
            ) from error
        return matrix_of(found.transform)

    def close(self) -> None:
        """Listens no more."""
        self._listener.unregister()


def matrix_of(transform: Any) -> FloatArray:
    """(4, 4) of a geometry_msgs/Transform, m.

    :raises FrameError: its quaternion is no rotation.
    """
    quaternion = np.array([getattr(transform.rotation, axis) for axis in "wxyz"])
    norm = float(np.linalg.norm(quaternion))
    if not abs(norm - 1) < 0.01:
        raise FrameError(f"the transform's quaternion has length {norm:g}, not 1")
    matrix = np.eye(4)
    matrix[:3, :3] = quat2mat(quaternion)
    matrix[:3, 3] = [getattr(transform.translation, axis) for axis in "xyz"]
    return matrix
