"""Joints without jitter: the 1€ filter (Casiez, Roussel, Vogel, CHI 2012), per joint.

A still joint is averaged over many images, a fast one over few. Joints are filtered as seen from
the root, whose own place has a filter that knows its covariance (kalman.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .structures import FloatArray, JointStatus

# At and above this speed a joint is never more than one image late: its newest position weighs at
# least half, and in steady motion a filter that weighs it w is (1 - w) / w images behind.
FAST_MM_S = 1000.0
# Of the velocity that the filter is steered by. The least weight of its newest value keeps the
# start of a fast movement from being slept through at high frame rates.
_SPEED_CUTOFF_HZ = 1.0
_MIN_SPEED_WEIGHT = 0.3
# A joint that is hardly seen moves its smoothed place less.
_DOUBTFUL_WEIGHT = 0.3


@dataclass(frozen=True)
class SmoothingOptions:
    """How much joints are smoothed."""

    enabled: bool = True  # false: exactly what the networks say
    min_cutoff_hz: float = 1.5  # of a joint at rest; lower = calmer
    cutoff_slope_per_m: float = 3.0  # Hz per m/s ("beta"); higher = less late


class JointSmoother:
    """Smooths one person's joints from image to image."""

    def __init__(self) -> None:
        self._joints_mm: FloatArray | None = None
        self._raw_mm = self._velocity_mm_s = np.empty((0, 3))

    def __call__(
        self,
        joints_mm: FloatArray,
        status: npt.NDArray[np.uint8],
        dt_s: float,
        options: SmoothingOptions,
    ) -> FloatArray:
        """The joints of the next image.

        :param joints_mm: (J, 3) seen from the root, along axes that don't turn; NaN stays NaN.
        :param status: (J,) JointStatus; those that aren't OK count less.
        :param dt_s: time since the last call, > 0.
        :return: (J, 3)
        """
        if self._joints_mm is None:
            self._joints_mm = self._raw_mm = joints_mm.copy()
            self._velocity_mm_s = np.zeros_like(joints_mm)
            return joints_mm
        # A joint without a place so far starts where it is.
        last_mm, last_raw_mm = (
            np.where(np.isfinite(last), last, joints_mm)
            for last in (self._joints_mm, self._raw_mm)
        )
        weight = max(float(_weight(_SPEED_CUTOFF_HZ, dt_s)), _MIN_SPEED_WEIGHT)
        change = (joints_mm - last_raw_mm) / dt_s - self._velocity_mm_s
        velocity = self._velocity_mm_s + weight * np.nan_to_num(change)
        speed = np.linalg.norm(velocity, axis=1)
        cutoff = options.min_cutoff_hz + options.cutoff_slope_per_m * speed / 1000
        weights = np.maximum(_weight(cutoff, dt_s), 0.5 * np.minimum(speed / FAST_MM_S, 1))
        weights = np.where(status == JointStatus.OK, weights, weights * _DOUBTFUL_WEIGHT)
        smooth = last_mm + weights[:, None] * (joints_mm - last_mm)
        known = np.isfinite(joints_mm)
        # One that has none now keeps its last.
        self._joints_mm = np.where(known, smooth, last_mm)
        self._raw_mm = np.where(known, joints_mm, last_raw_mm)
        self._velocity_mm_s = velocity
        return smooth


def _weight(cutoff_hz: float | FloatArray, dt_s: float) -> float | FloatArray:
    """Of the newest value, in a low-pass filter of first order."""
    return 1 / (1 + 1 / (2 * math.pi * dt_s * cutoff_hz))
