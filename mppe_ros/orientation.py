"""Which way a person faces: the pelvis' orientation by REP 155, and how uncertain it is.

REP 155, "Body Frames": the origin lies midway between the hips, x points out of the body's front,
z towards the head, so that y points to the person's left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .skeletons import Skeleton
from .structures import FloatArray, Person, RootError

# The torso's corners, which every joint set has.
TORSO = ("R_Hip", "L_Hip", "R_Shoulder", "L_Shoulder")
# From right to left and from the hips to the shoulders, in its corners. A twisted torso counts as
# halfway: its four ends tell more than the hips, which are close.
_SIDES = np.array([[-1, 1, -1, 1], [-1, -1, 1, 1]]) / 2

# A torso that is shorter, narrower or nearer to a line than this has no front.
_MIN_LENGTH_MM = 30.0
_MIN_SINE = math.sin(math.radians(10))


def oriented(people: Sequence[Person], skeleton: Skeleton, error: RootError) -> list[Person]:
    """People with the orientations that their joints have."""
    if not people:
        return []
    joints_mm = np.stack([person.joints_mm for person in people])
    scores = np.stack([person.joint_scores for person in people])
    found = orientations(joints_mm, scores, skeleton, error)
    return [replace(person, **one._asdict()) for person, one in zip(people, found, strict=True)]


class Orientation(NamedTuple):
    """Fields of a `Person`; None where its torso is invalid or has no front."""

    root_orientation_xyzw: FloatArray | None
    root_orientation_covariance: FloatArray | None


def orientations(
    joints_mm: FloatArray, joint_scores: FloatArray, skeleton: Skeleton, error: RootError
) -> list[Orientation]:
    """N people's: of joints (N, J, 3), camera frame, and their scores (N, J)."""
    found = root_orientations(joints_mm, skeleton, error, error.doubt(joint_scores))
    return [
        Orientation(None, None) if math.isnan(one[0]) else Orientation(one, covariance)
        for one, covariance in zip(*found, strict=True)
    ]


def root_orientations(
    joints_mm: FloatArray, skeleton: Skeleton, error: RootError, doubt: npt.ArrayLike = 1.0
) -> tuple[FloatArray, FloatArray]:
    """The pelvis' orientations from hips and shoulders.

    :param joints_mm: (N, J, 3) camera frame, NaN where invalid.
    :param doubt: (N,) as of `RootError.doubt`.
    :return: (N, 4) unit quaternions (x, y, z, w; w not negative) that turn the body's axes into
        the camera's, and (N, 3, 3) covariances, rad², of small rotations about the camera's axes;
        NaN where the torso is invalid or has no front.
    """
    axes = body_axes(joints_mm, skeleton)
    in_body = np.square([error.tilt_rad, error.tilt_rad, error.heading_rad])
    in_camera = (axes * in_body) @ axes.swapaxes(1, 2)
    return _quaternions(axes), in_camera * np.square(doubt).reshape(-1, 1, 1)


def _quaternions(turns: FloatArray) -> FloatArray:
    """(N, 4) x, y, z, w of rotation matrices (N, 3, 3); w not negative."""
    back = turns.swapaxes(1, 2)
    trace = turns.trace(axis1=1, axis2=2)
    # Four times the quaternions' products with themselves: each row is a multiple of them.
    products = np.empty((len(turns), 4, 4))
    products[:, :3, :3] = turns + back + (1 - trace)[:, None, None] * np.eye(3)
    products[:, 3, :3] = products[:, :3, 3] = (turns - back)[:, [2, 0, 1], [1, 2, 0]]
    products[:, 3, 3] = 1 + trace
    # The one with the largest part of it loses no digits.
    largest = products.diagonal(axis1=1, axis2=2).argmax(axis=1)
    row = products[np.arange(len(turns)), largest]
    length = np.sqrt((row * row).sum(axis=1))
    return np.asarray(row / np.where(row[:, 3] < 0, -length, length)[:, None])


def body_axes(joints_mm: FloatArray, skeleton: Skeleton) -> FloatArray:
    """The bodies' x, y and z axes as the columns of rotation matrices, camera frame.

    :param joints_mm: (..., J, 3) camera frame, NaN where invalid.
    :return: (..., 3, 3), NaN where the torso is invalid or has no front.
    """
    if not set(TORSO) <= set(skeleton.joint_names):
        return np.full((*joints_mm.shape[:-2], 3, 3), np.nan)
    sides = _SIDES @ joints_mm[..., skeleton.indices(TORSO), :]
    leftward, headward = sides[..., 0, :], sides[..., 1, :]
    forward = cross(leftward, headward)
    vectors = np.array([leftward, headward, forward])
    width, length, area = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    # Written so that NaN fails.
    has_front = (np.minimum(width, length) > _MIN_LENGTH_MM) & (area > _MIN_SINE * width * length)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, z = forward / area, headward / length
    axes = np.stack([x, cross(z, x), z], -1)
    return np.where(has_front[..., None], axes, np.nan)


def cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """(..., 3) cross products, every image's: NumPy's takes ten times as long for few vectors."""
    forth, back = [1, 2, 0], [2, 0, 1]
    return np.asarray(
        a.take(forth, -1) * b.take(back, -1) - a.take(back, -1) * b.take(forth, -1)
    )
