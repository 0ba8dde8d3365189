"""Joints without jitter: the 1€ filter (Casiez, Roussel, Vogel, CHI 2012), per joint.

A still joint is averaged over many images, a fast one over few. Joints are filtered as seen from
the root, whose own place has a filter that knows its covariance (kalman.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class SmoothJoints(NamedTuple):
    """People's joints as far as they are smoothed: (..., J, 3), seen from the root, along axes
    that don't turn; NaN where a joint never had a place."""

    joints_mm: FloatArray
    raw_mm: FloatArray
    velocity_mm_s: FloatArray

    @classmethod
    def start(cls, joints_mm: FloatArray) -> SmoothJoints:
        """What is seen first is taken as it is."""
        return cls(joints_mm, joints_mm, np.zeros_like(joints_mm))

    def where_seen(self, joints_mm: FloatArray) -> FloatArray:
        """(..., J, 3) smoothed; NaN where a joint has no place in the newest image's joints."""
        return np.where(np.isfinite(joints_mm), self.joints_mm, joints_mm)

    @classmethod
    def stacked(cls, people: Sequence[SmoothJoints]) -> SmoothJoints:
        """Several people as one, which takes little longer than one; at least one."""
        return cls(*map(np.array, zip(*people, strict=True)))

    def each(self) -> list[SmoothJoints]:
        """The inverse."""
        return [SmoothJoints(*one) for one in zip(*self, strict=True)]

    def next(
        self,
        joints_mm: FloatArray,
        status: npt.NDArray[np.uint8],
        dt_s: npt.ArrayLike,
        options: SmoothingOptions,
    ) -> SmoothJoints:
        """With the joints of the next image; one that has no place there keeps its last.

        :param joints_mm: (..., J, 3), NaN where invalid.
        :param status: (..., J) JointStatus; those that aren't OK count less.
        :param dt_s: (...) time since the last image, > 0.
        """
        wait_s = np.asarray(dt_s, np.float64)[..., None]
        known = np.isfinite(joints_mm)
        # A joint without a place so far starts where it is.
        last_mm, last_raw_mm = (
            np.where(np.isfinite(last), last, joints_mm) for last in (self.joints_mm, self.raw_mm)
        )
        weight = np.maximum(_weight(_SPEED_CUTOFF_HZ, wait_s), _MIN_SPEED_WEIGHT)[..., None]
        change = (joints_mm - last_raw_mm) / wait_s[..., None] - self.velocity_mm_s
        velocity = self.velocity_mm_s + weight * np.where(np.isfinite(change), change, 0)
        speed = np.sqrt((velocity * velocity).sum(-1))
        cutoff = options.min_cutoff_hz + options.cutoff_slope_per_m * speed / 1000
        weights = np.maximum(_weight(cutoff, wait_s), 0.5 * np.minimum(speed / FAST_MM_S, 1))
        weights = np.where(status == JointStatus.OK, weights, weights * _DOUBTFUL_WEIGHT)
        smooth = last_mm + weights[..., None] * (joints_mm - last_mm)
        return SmoothJoints(
            np.where(known, smooth, last_mm), np.where(known, joints_mm, last_raw_mm), velocity
        )


def _weight(cutoff_hz: float | FloatArray, dt_s: FloatArray) -> FloatArray:
    """Of the newest value, in a low-pass filter of first order."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * dt_s * cutoff_hz)))
