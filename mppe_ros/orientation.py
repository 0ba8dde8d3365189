"""Which way a person faces: the pelvis' orientation by REP 155, and how uncertain it is.

REP 155, "Body Frames": the origin lies midway between the hips, x points out of the body's front,
z towards the head, so that y points to the person's left.
"""

from __future__ import annotations

import math

import numpy as np
from transforms3d.quaternions import mat2quat

from .skeletons import Skeleton
from .structures import FloatArray, RootError

# The torso's corners, which every joint set has.
TORSO = ("R_Hip", "L_Hip", "R_Shoulder", "L_Shoulder")

# A torso that is shorter, narrower or nearer to a line than this has no front.
_MIN_LENGTH_MM = 30.0
_MIN_SINE = math.sin(math.radians(10))


def root_orientation(
    joints_mm: FloatArray, skeleton: Skeleton, error: RootError
) -> tuple[FloatArray, FloatArray] | tuple[None, None]:
    """The pelvis' orientation from hips and shoulders, as the fields of `Person`.

    :param joints_mm: (J, 3) camera frame, NaN where invalid.
    :return: unit quaternion (x, y, z, w) that turns the body's axes into the camera's, and the
        covariance (3, 3), rad², of small rotations about the camera's axes; None and None where
        the torso is invalid or has no front.
    """
    axes = body_axes(joints_mm, skeleton)
    if axes is None:
        return None, None
    w, x, y, z = mat2quat(axes)
    in_body = np.diag([error.tilt_rad**2, error.tilt_rad**2, error.heading_rad**2])
    return np.array([x, y, z, w]), axes @ in_body @ axes.T


def body_axes(joints_mm: FloatArray, skeleton: Skeleton) -> FloatArray | None:
    """The body's x, y and z axes as the columns of a rotation matrix (3, 3), camera frame.

    :param joints_mm: (J, 3) camera frame, NaN where invalid.
    :return: None where the torso is invalid or has no front.
    """
    if not set(TORSO) <= set(skeleton.joint_names):
        return None
    right_hip, left_hip, right_shoulder, left_shoulder = joints_mm[skeleton.indices(TORSO)]
    # A twisted torso counts as halfway: its four ends tell more than the hips, which are close.
    leftward = (left_hip - right_hip + left_shoulder - right_shoulder) / 2
    headward = (right_shoulder + left_shoulder - right_hip - left_hip) / 2
    forward = _cross(leftward, headward)
    width, length, area = (float(np.linalg.norm(v)) for v in (leftward, headward, forward))
    # Written so that NaN fails.
    if not (min(width, length) > _MIN_LENGTH_MM and area > _MIN_SINE * width * length):
        return None
    x, z = forward / area, headward / length
    return np.array([x, _cross(z, x), z]).T


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """NumPy's takes ten times as long for two vectors, and this runs for everybody in an image."""
    return a[[1, 2, 0]] * b[[2, 0, 1]] - a[[2, 0, 1]] * b[[1, 2, 0]]
