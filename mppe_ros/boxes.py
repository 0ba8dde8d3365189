"""Boxes in the image, px: overlap, and the box that a known pose fills."""

from __future__ import annotations

import numpy as np

from .structures import FloatArray, Intrinsics

# How far the body reaches beyond its outermost joints: left, top, right, bottom, as shares of the
# joints' larger side. Medians of Human3.6M's 17 joints in the films of `mppe eval tracking`.
_USUAL_MARGINS = np.array([0.05, 0.02, 0.05, 0.06])
_LEAST_MARGIN, _GREATEST_MARGIN = -0.4, 0.3
# Of the newest box, in the running mean of margins.
_LEARNING_RATE = 0.5


class BoxFromPose:
    """The box that DetectNet would draw around a pose, as it drew it around this person before.

    It keeps how far the detected boxes reached beyond the outermost joints. Where furniture hides
    the legs, that is less than nothing.
    """

    def __init__(self) -> None:
        self._margins = _USUAL_MARGINS.copy()
        self._learned = False

    def learn(
        self, bbox_xywh_px: FloatArray, joints_px: FloatArray, intrinsics: Intrinsics
    ) -> None:
        """Takes in a detected box (4,) and the pose (J, 2) that was found in it."""
        corners = _corners(joints_px)
        size = (corners[2:] - corners[:2]).max()
        if not size > 0:
            return
        box = _xyxy(bbox_xywh_px)
        margins = (box - corners) / size * [-1, -1, 1, 1]
        # A side at the image's edge says nothing of the body.
        limits = np.array([0, 0, intrinsics.width, intrinsics.height])
        cut = np.abs(box - limits) < 2
        margins = np.where(cut, self._margins, margins).clip(_LEAST_MARGIN, _GREATEST_MARGIN)
        rate = _LEARNING_RATE if self._learned else 1.0
        self._margins += rate * (margins - self._margins)
        self._learned = True

    def __call__(self, joints_px: FloatArray) -> FloatArray:
        """The box (4,) of a pose (J, 2); NaN where no joint has a place."""
        corners = _corners(joints_px)
        size = (corners[2:] - corners[:2]).max()
        left, top, right, bottom = corners + size * self._margins * [-1, -1, 1, 1]
        return np.array([left, top, right - left, bottom - top])


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


def _xyxy(box: FloatArray) -> FloatArray:
    return np.concatenate([box[:2], box[:2] + box[2:]])


def _corners(points_px: FloatArray) -> FloatArray:
    """(4,) left, top, right, bottom of those that have a place."""
    known = points_px[np.isfinite(points_px).all(axis=1)]
    if len(known) == 0:
        return np.full(4, np.nan)
    return np.concatenate([known.min(axis=0), known.max(axis=0)])
