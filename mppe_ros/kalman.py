"""A root's place and velocity over time: a Kalman filter of walking people.

The root goes along a path of constant velocity that random accelerations bend (Bar-Shalom et al.
2001, section 6.2.2), and sways about that path: a walker's pelvis bobs and rolls with every step,
which says nothing of where it is going. The sway is an Ornstein-Uhlenbeck process. Positions are
measured, each with a covariance of its own that is long along the viewing ray.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .structures import FloatArray

# Spectral density of people's acceleration, mm²/s³: a walker's velocity changes by 0.5 m/s within
# a second. Together with the sway the least velocity error on the paths of generated walkers.
ACCELERATION_MM2_S3 = 0.25e6
SWAY_MM = 25.0  # standard deviation, each axis
SWAY_TIME_S = 0.1  # after which it has forgotten itself to 37 %
# Before the second look nobody knows where a person is going: standard deviation, each axis.
INITIAL_SPEED_MM_S = 1000.0

_ROOT = np.hstack([np.eye(3), np.zeros((3, 3)), np.eye(3)])  # path + sway


class Innovation(NamedTuple):
    """A measurement seen from the prediction."""

    residual_mm: FloatArray  # (3,)
    covariance_mm2: FloatArray  # (3, 3) what the residual should scatter like

    @property
    def squared(self) -> float:
        """Normalised innovation squared: chi-square with 3 degrees of freedom if all is well."""
        return float(self.residual_mm @ np.linalg.solve(self.covariance_mm2, self.residual_mm))


@dataclass(frozen=True)
class Motion:
    """Where a root is and where it is going, mm and mm/s, in a frame that doesn't move."""

    mean: FloatArray  # (9,) path, velocity, sway
    covariance: FloatArray  # (9, 9)

    @classmethod
    def at(cls, position_mm: FloatArray, covariance_mm2: FloatArray) -> Motion:
        """Seen for the first time."""
        covariance = np.zeros((9, 9))
        covariance[:3, :3] = covariance_mm2
        covariance[3:6, 3:6] = np.eye(3) * INITIAL_SPEED_MM_S**2
        covariance[6:, 6:] = np.eye(3) * SWAY_MM**2
        return cls(np.concatenate([position_mm, np.zeros(6)]), covariance)

    @property
    def position_mm(self) -> FloatArray:
        """(3,) of the root, sway included."""
        return self.mean[:3] + self.mean[6:]

    @property
    def velocity_mm_s(self) -> FloatArray:
        """(3,) of the path."""
        return self.mean[3:6]

    @property
    def position_covariance_mm2(self) -> FloatArray:
        """(3, 3)"""
        return _ROOT @ self.covariance @ _ROOT.T

    @property
    def velocity_covariance_mm2_s2(self) -> FloatArray:
        """(3, 3)"""
        return self.covariance[3:6, 3:6]

    def predicted(self, dt_s: float) -> Motion:
        """The same ``dt_s`` later."""
        kept = math.exp(-dt_s / SWAY_TIME_S)
        moves = np.array([[1, dt_s, 0], [0, 1, 0], [0, 0, kept]])
        bent = ACCELERATION_MM2_S3
        noise = np.array([
            [bent * dt_s**3 / 3, bent * dt_s**2 / 2, 0],
            [bent * dt_s**2 / 2, bent * dt_s, 0],
            [0, 0, SWAY_MM**2 * (1 - kept**2)],
        ])  # fmt: skip
        # Each of the three axes alike.
        moves, noise = np.kron(moves, np.eye(3)), np.kron(noise, np.eye(3))
        return Motion(moves @ self.mean, moves @ self.covariance @ moves.T + noise)

    def innovation(self, position_mm: FloatArray, covariance_mm2: FloatArray) -> Innovation:
        """A measured position against this prediction."""
        return Innovation(
            position_mm - self.position_mm, self.position_covariance_mm2 + covariance_mm2
        )

    def corrected(self, position_mm: FloatArray, covariance_mm2: FloatArray) -> Motion:
        """With a measured position taken in."""
        residual, covariance = self.innovation(position_mm, covariance_mm2)
        gain = np.linalg.solve(covariance, _ROOT @ self.covariance).T  # (9, 3)
        # Joseph's form stays symmetric and positive definite.
        kept = np.eye(9) - gain @ _ROOT
        spread = kept @ self.covariance @ kept.T + gain @ covariance_mm2 @ gain.T
        return Motion(self.mean + gain @ residual, spread)
