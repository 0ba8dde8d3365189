"""Boxes in the image, px: overlap, and the box that a known pose fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .structures import FloatArray, Intrinsics

# How far the body reaches beyond its outermost joints: left, top, right, bottom, as shares of the
# joints' larger side. Medians of Human3.6M's 17 joints in the films of `mppe eval tracking`.
_USUAL_MARGINS = np.array([0.05, 0.02, 0.05, 0.06])
_LEAST_MARGIN, _GREATEST_MARGIN = -0.4, 0.3
_OUTWARD = np.array([-1, -1, 1, 1])
# Of the newest box, in the running mean of margins.
_LEARNING_RATE = 0.5


class BoxFromPose(NamedTuple):
    """The box that DetectNet would draw around a pose, as it drew it around this person before.

    It keeps how far the detected boxes reached beyond the outermost joints. Where furniture hides
    the legs, that is less than nothing. Several people (...) take little longer than one.
    """

    margins: FloatArray  # (..., 4) left, top, right, bottom, as shares of the joints' larger side
    learned: npt.NDArray[np.bool_]  # (...) from a box at all

    @classmethod
    def usual(cls) -> BoxFromPose:
        """Of somebody of whom no box was seen."""
        return cls(_USUAL_MARGINS, np.array(False))

    @classmethod
    def stacked(cls, people: Sequence[BoxFromPose]) -> BoxFromPose:
        """Several people as one; at least one."""
        return cls(*map(np.array, zip(*people, strict=True)))

    def each(self) -> list[BoxFromPose]:
        """The inverse."""
        return [BoxFromPose(*one) for one in zip(*self, strict=True)]

    def learn(
        self,
        bbox_xywh_px: FloatArray,
        joints_px: FloatArray,
        intrinsics: Intrinsics,
        detected: npt.ArrayLike = True,
    ) -> BoxFromPose:
        """With detected boxes (..., 4) and the poses (..., J, 2) that were found in them.

        :param detected: (...) which of the boxes are; the others teach nothing.
        """
        corners = _corners(joints_px)
        size = (corners[..., 2:] - corners[..., :2]).max(axis=-1)
        taught = np.asarray(detected) & (size > 0)
        first = bbox_xywh_px[..., :2]
        box = np.concatenate([first, first + bbox_xywh_px[..., 2:]], axis=-1)
        margins = (box - corners) * _OUTWARD / np.where(taught, size, 1.0)[..., None]
        # A side at the image's edge says nothing of the body.
        limits = np.array([0, 0, intrinsics.width, intrinsics.height])
        says_nothing = (np.abs(box - limits) < 2) | ~taught[..., None]
        margins = np.where(says_nothing, self.margins, margins)
        margins = margins.clip(_LEAST_MARGIN, _GREATEST_MARGIN)
        rate = np.where(self.learned, _LEARNING_RATE, 1.0)[..., None]
        return BoxFromPose(self.margins + rate * (margins - self.margins), self.learned | taught)

    def __call__(self, joints_px: FloatArray) -> FloatArray:
        """The boxes (..., 4) of poses (..., J, 2); NaN where no joint has a place."""
        corners = _corners(joints_px)
        size = (corners[..., 2:] - corners[..., :2]).max(axis=-1, keepdims=True)
        corners = corners + size * self.margins * _OUTWARD
        return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], -1)


def box_iou(a_xywh: FloatArray, b_xywh: FloatArray) -> FloatArray:
    """Overlap of each box with each: intersection over union.

    :param a_xywh, b_xywh: (N, 4) and (M, 4).
    :return: (N, M) in 0..1; 0 for a box that is not a number.
    """
    a, b = np.reshape(a_xywh, (-1, 1, 4)), np.reshape(b_xywh, (1, -1, 4))
    near = np.maximum(a[..., :2], b[..., :2])
    far = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    intersection = np.maximum(far - near, 0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - intersection
    # Of a number and none, fmax takes the number.
    return np.asarray(np.fmax(intersection / np.maximum(union, 1e-9), 0))


def _corners(points_px: FloatArray) -> FloatArray:
    """(..., 4) left, top, right, bottom of those points (..., J, 2) that have a place."""
    known = np.isfinite(points_px).all(axis=-1, keepdims=True)
    places = np.where(known, points_px, np.nan)
    # Of a number and none both take the number.
    return np.concatenate([np.fmin.reduce(places, axis=-2), np.fmax.reduce(places, axis=-2)], -1)
