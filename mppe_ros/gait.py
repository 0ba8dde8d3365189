"""How fast people walk, by their legs: who swings them goes forward, at a walker's speed.

The filter of a root's motion (kalman.py) expects of nobody to go rather than to stand, so that it
takes a speed along the viewing ray, of which it sees little, for smaller than it is. Swinging legs
tell more: adults walk at 1.2 to 1.4 m/s where nothing hurries them (Bohannon and Williams Andrews
2011). Legs that hang still tell nothing, as people also ride and roll.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .kalman import SPEED_MM_S
from .orientation import cross
from .skeletons import ANKLES, Skeleton
from .structures import FloatArray

# A walker's speed, mean and standard deviation.
WALK_MM_S, WALK_SPREAD_MM_S = 1200.0, 250.0
# Of people whose ankles pass each other this fast, on average over so long a time, half walk; how
# sharp that border is, and how sure one can be. Measured in generated films (docs/tracking.md).
_SWING_MM_S, _BORDER_MM_S, _SWING_TIME_S, _SUREST = 680.0, 170.0, 0.4, 0.95
_FASTEST_SWING_MM_S = 4000.0  # more is PoseNet's error
# A filter that has learned less than this share of what it expected has learned nothing.
_LEAST_LEARNED = 1e-3


class Swing(NamedTuple):
    """Of one person's legs or of several people's (...), in a frame that doesn't move."""

    ankles_mm: FloatArray  # (..., 3) from the left one to the right one
    forward: FloatArray  # (..., 3) unit vectors, the way the bodies face
    speed_mm_s: FloatArray  # (...) of one ankle past the other, along it; NaN unknown, as all else

    @classmethod
    def unknown(cls) -> Swing:
        return cls(np.full(3, np.nan), np.full(3, np.nan), np.array(np.nan))

    @classmethod
    def stacked(cls, swings: Sequence[Swing]) -> Swing:
        """N single ones as one; at least one."""
        return cls(*map(np.array, zip(*swings, strict=True)))

    def each(self) -> list[Swing]:
        """The inverse."""
        return [Swing(*one) for one in zip(*self, strict=True)]

    def next(self, ankles_mm: FloatArray, forward: FloatArray, dt_s: FloatArray) -> Swing:
        """With the next image's legs, ``dt_s`` (...) later."""
        along_mm = ((ankles_mm - self.ankles_mm) * forward).sum(axis=-1)
        # What legs do meanwhile nobody knows, after a longer time.
        passing = np.where(dt_s > _SWING_TIME_S, np.nan, np.abs(along_mm) / dt_s)
        passing = np.minimum(passing, _FASTEST_SWING_MM_S)
        mean = self.speed_mm_s + (1 - np.exp(-dt_s / _SWING_TIME_S)) * (passing - self.speed_mm_s)
        return Swing(ankles_mm, forward, np.where(np.isnan(mean), passing, mean))

    def velocity(
        self, velocity_mm_s: FloatArray, covariance_mm2_s2: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """What the filter says of the velocities, and legs of their forward part.

        The filter's expectation, nil with `SPEED_MM_S`, gives way to a mixture of it and of a
        walker's speed by how likely it is that the legs walk. The result is the mixture's mean and
        covariance (Bar-Shalom et al. 2001, section 1.4.16).

        :param velocity_mm_s: (..., 3)
        :param covariance_mm2_s2: (..., 3, 3)
        :return: both; the same where legs tell nothing.
        """
        odds = np.clip((self.speed_mm_s - _SWING_MM_S) / _BORDER_MM_S, -30, 30)
        walks = _SUREST / (1 + np.exp(-odds))
        known = np.isfinite(walks) & np.isfinite(self.forward).all(axis=-1)
        walks, forward = np.where(known, walks, 0.0), np.where(known[..., None], self.forward, 0.0)
        forward_row = forward[..., None, :]
        speed = (forward * velocity_mm_s).sum(axis=-1)
        variance = (forward_row @ covariance_mm2_s2 @ forward[..., None])[..., 0, 0]
        variance = np.where(known, variance, 1.0)
        # What the measurements alone say: the filter's estimate without its expectation.
        expected, walking = SPEED_MM_S**2, WALK_SPREAD_MM_S**2
        learned = 1 / variance - 1 / expected
        noise = 1 / np.maximum(learned, _LEAST_LEARNED / expected)
        measured = speed / variance * noise
        # The same with a walker's speed expected, and how likely each of both is then.
        precision = 1 / noise + 1 / walking
        as_walker = (measured / noise + WALK_MM_S / walking) / precision
        log_odds = _log_density(measured - WALK_MM_S, noise + walking)
        log_odds = log_odds - _log_density(measured, noise + expected)
        share = walks / (walks + (1 - walks) * np.exp(np.clip(-log_odds, -30, 30)))
        apart = as_walker - speed
        mixed = (1 - share) * variance + share / precision + share * (1 - share) * apart**2
        stretch = np.sqrt(mixed / variance) - 1
        turn = np.eye(3) + stretch[..., None, None] * forward[..., None] * forward_row
        moved = velocity_mm_s + (share * apart)[..., None] * forward
        return moved, turn @ covariance_mm2_s2 @ turn


def ankles_mm(joints_mm: FloatArray, skeleton: Skeleton) -> FloatArray:
    """(..., 3) from the left ankle to the right one, of joints (..., J, 3); NaN in joint sets
    without ankles."""
    if not set(ANKLES) <= set(skeleton.joint_names):
        return np.full((*joints_mm.shape[:-2], 3), np.nan)
    right, left = np.moveaxis(joints_mm[..., skeleton.indices(ANKLES), :], -2, 0)
    return np.asarray(right - left)


def forward(axes: FloatArray, up: FloatArray | None) -> FloatArray:
    """(..., 3) unit vectors, the way that bodies face, level if it is known what is.

    :param axes: (..., 3, 3) of `orientation.body_axes`.
    """
    if up is None:
        return axes[..., 0]
    level = cross(axes[..., 1], up)
    length = np.linalg.norm(level, axis=-1, keepdims=True)
    return np.asarray(level / np.where(length > 0.1, length, np.nan))


def _log_density(residual: FloatArray, variance: FloatArray) -> FloatArray:
    """Of a normal distribution, up to a constant."""
    return np.asarray(-(residual**2) / (2 * variance) - np.log(variance) / 2)
