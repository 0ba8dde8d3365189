"""A root's place and velocity over time: a Kalman filter with constant velocity.

Positions are measured, each with a covariance of its own that is long along the viewing ray.
People accelerate at random (white noise acceleration; Bar-Shalom et al. 2001, section 6.2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .structures import FloatArray

# Spectral density of people's acceleration, mm²/s³. A walker changes by 0.5 m/s within about half
# a second when it turns or stops, and sways less than that (docs/tracking.md has the trials).
ACCELERATION_MM2_S3 = 0.5e6
# Before the second look nobody knows where a person is going: standard deviation, each axis.
INITIAL_SPEED_MM_S = 1000.0


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

    mean: FloatArray  # (6,) position, velocity
    covariance: FloatArray  # (6, 6)

    @classmethod
    def at(cls, position_mm: FloatArray, covariance_mm2: FloatArray) -> Motion:
        """Seen for the first time."""
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = covariance_mm2
        covariance[3:, 3:] = np.eye(3) * INITIAL_SPEED_MM_S**2
        return cls(np.concatenate([position_mm, np.zeros(3)]), covariance)

    @property
    def position_mm(self) -> FloatArray:
        """(3,)"""
        return self.mean[:3]

    @property
    def velocity_mm_s(self) -> FloatArray:
        """(3,)"""
        return self.mean[3:]

    @property
    def position_covariance_mm2(self) -> FloatArray:
        """(3, 3)"""
        return self.covariance[:3, :3]

    @property
    def velocity_covariance_mm2_s2(self) -> FloatArray:
        """(3, 3)"""
        return self.covariance[3:, 3:]

    def predicted(self, dt_s: float) -> Motion:
        """The same ``dt_s`` later."""
        moves = np.eye(6)
        moves[:3, 3:] = dt_s * np.eye(3)
        noise = np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]]) * ACCELERATION_MM2_S3
        spread = moves @ self.covariance @ moves.T + np.kron(noise, np.eye(3))
        return Motion(moves @ self.mean, spread)

    def innovation(self, position_mm: FloatArray, covariance_mm2: FloatArray) -> Innovation:
        """A measured position against this prediction."""
        return Innovation(
            position_mm - self.position_mm, self.position_covariance_mm2 + covariance_mm2
        )

    def corrected(self, position_mm: FloatArray, covariance_mm2: FloatArray) -> Motion:
        """With a measured position taken in."""
        residual, covariance = self.innovation(position_mm, covariance_mm2)
        gain = np.linalg.solve(covariance, self.covariance[:3]).T  # (6, 3)
        # Joseph's form stays symmetric and positive definite.
        kept = np.eye(6)
        kept[:, :3] -= gain
        spread = kept @ self.covariance @ kept.T + gain @ covariance_mm2 @ gain.T
        return Motion(self.mean + gain @ residual, spread)
