"""A root's place and velocity over time: a Kalman filter of walking people.

The root goes along a path, sways about it, and is seen with errors. All three are Gauss-Markov
processes of first order (Bar-Shalom et al. 2001, chapters 6 and 8), which differ in how soon
they forget: the path's velocity within seconds, as people turn and stop; the sway (a walker's
pelvis bobs with every step) and what is new in the network's error within some images. People
neither rise nor sink for long and, where it is known which way is up, sway little but up and
down. They mostly walk where they face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .structures import FloatArray

IntArray = npt.NDArray[np.intp]

# Standard deviations along a horizontal and the vertical axis, and the time after which a process
# has forgotten itself to 37 %: of generated people's pelvises (docs/tracking.md).
SPEED_MM_S, RISE_MM_S, SPEED_TIME_S = 700.0, 50.0, 2.5
SWAY_MM, BOB_MM, SWAY_TIME_S = 5.0, 30.0, 0.2
# Along what is only believed to be the vertical axis, and any axis may be.
_BELIEVED_RISE_MM_S, _ANY_SWAY_MM = 200.0, 25.0
# Of a measurement's variance along the viewing ray and across it, what changes from image to
# image, and how fast. The rest lasts: the network takes small people for distant ones, always the
# same way. Measured with `open-s` (docs/tracking.md).
_FRESH_ALONG, _FRESH_ACROSS, FRESH_TIME_S = 0.15, 0.5, 0.1
# People walk forward: their velocity to the side, and how long what a body's heading says of it is
# off by the same.
SIDEWAYS_MM_S, FACING_TIME_S = 150.0, 0.4
# A path that nobody knows yet, mm; a measurement tells all of it.
_ANYWHERE_MM = 1e5

_ZERO, _ONE = np.zeros((3, 3)), np.eye(3)
_ROOT = np.hstack([_ONE, _ZERO, _ONE, _ZERO])  # path + sway


class Vertical(NamedTuple):
    """Which way is up."""

    up: FloatArray  # (3,) unit vector
    known: bool  # or only believed: cameras are mostly held upright


class Innovation(NamedTuple):
    """Measurements seen from predictions: (...) as both broadcast."""

    residual_mm: FloatArray  # (..., 3)
    covariance_mm2: FloatArray  # (..., 3, 3) what the residual should scatter like
    seen: FloatArray  # (..., 3, 12) what of the state is measured; as the measurements

    def of(self, predictions: IntArray, measurements: IntArray) -> Innovation:
        """(K,) pairs of those of N predictions and M measurements."""
        at = predictions, measurements
        return Innovation(self.residual_mm[at], self.covariance_mm2[at], self.seen[measurements])

    @property
    def squared(self) -> FloatArray:
        """(...) normalised innovation squared: chi-square with 3 degrees of freedom if all is
        well."""
        whitened = np.linalg.solve(self.covariance_mm2, self.residual_mm[..., None])[..., 0]
        return np.asarray((self.residual_mm * whitened).sum(axis=-1))


@dataclass(frozen=True)
class Motion:
    """Where a root is and where it is going, mm and mm/s, in a frame that doesn't move.

    Or where several roots are, (...), which takes little longer than one. The error is kept in
    standard deviations of the measurement, which may change with it.
    """

    mean: FloatArray  # (..., 12) path, velocity, sway, error
    covariance: FloatArray  # (..., 12, 12)

    @classmethod
    def at(
        cls, position_mm: FloatArray, covariance_mm2: FloatArray, vertical: Vertical
    ) -> Motion:
        """Seen for the first time.

        :param covariance_mm2: (3, 3) of the measurement, all of it.
        """
        covariance = np.zeros((12, 12))
        covariance[:3, :3] = _ONE * _ANYWHERE_MM**2
        covariance[3:6, 3:6], covariance[6:9, 6:9] = _spreads(vertical)
        covariance[9:, 9:] = _ONE
        anywhere = cls(np.concatenate([position_mm, np.zeros(9)]), covariance)
        return anywhere.corrected(anywhere.innovation(position_mm, covariance_mm2))

    @classmethod
    def stacked(cls, motions: Sequence[Motion]) -> Motion:
        """N single ones as one; at least one."""
        means = np.array([motion.mean for motion in motions])
        return cls(means, np.array([motion.covariance for motion in motions]))

    def of(self, rows: IntArray) -> Motion:
        """(K,) of the N."""
        return Motion(self.mean[rows], self.covariance[rows])

    def each(self) -> list[Motion]:
        """The inverse."""
        return [Motion(*one) for one in zip(self.mean, self.covariance, strict=True)]

    @property
    def position_mm(self) -> FloatArray:
        """(..., 3) of the root, sway included."""
        return self.mean[..., :3] + self.mean[..., 6:9]

    @property
    def velocity_mm_s(self) -> FloatArray:
        """(..., 3) of the path."""
        return self.mean[..., 3:6]

    @property
    def position_covariance_mm2(self) -> FloatArray:
        """(..., 3, 3), without what lasts of the measurements' errors."""
        return _ROOT @ self.covariance @ _ROOT.T

    @property
    def velocity_covariance_mm2_s2(self) -> FloatArray:
        """(..., 3, 3)"""
        return self.covariance[..., 3:6, 3:6]

    def predicted(self, dt_s: float, vertical: Vertical) -> Motion:
        """The same ``dt_s`` later."""
        kept, sway_kept, error_kept = (
            math.exp(-dt_s / time_s) for time_s in (SPEED_TIME_S, SWAY_TIME_S, FRESH_TIME_S)
        )
        way = SPEED_TIME_S * (1 - kept)
        moves = np.diag(np.repeat([1, kept, sway_kept, error_kept], 3))
        moves[:3, 3:6] = way * _ONE
        speed, sway = _spreads(vertical)
        # What a velocity that forgets itself adds to the path, per its variance.
        path = 2 * SPEED_TIME_S * (dt_s - way) - way**2
        noise = np.zeros((12, 12))
        noise[:3, :3], noise[3:6, 3:6] = path * speed, (1 - kept**2) * speed
        noise[:3, 3:6] = noise[3:6, :3] = way * (1 - kept) * speed
        noise[6:9, 6:9] = (1 - sway_kept**2) * sway
        noise[9:, 9:] = (1 - error_kept**2) * _ONE
        return replace(
            self, mean=self.mean @ moves.T, covariance=moves @ self.covariance @ moves.T + noise
        )

    def walking(self, sideways: FloatArray, error_mm_s: FloatArray, dt_s: FloatArray) -> Motion:
        """With what the bodies say of where they go: people walk forward.

        :param sideways: (..., 3) unit vectors across the bodies, NaN where unknown.
        :param error_mm_s: (...) standard deviation of the velocity along them.
        :param dt_s: (...) time since the bodies were last asked; what they say now is much of
            what they said then.
        """
        sideways, known = np.nan_to_num(sideways), np.isfinite(sideways).all(-1)
        speed = (sideways * self.velocity_mm_s).sum(-1)
        share = (self.covariance[..., 3:6] @ sideways[..., None])[..., 0]  # of the whole state
        noise = error_mm_s**2 * np.maximum(FACING_TIME_S / dt_s, 1.0)
        spread = (sideways * share[..., 3:6]).sum(-1) + noise
        gain = np.where(known, 1 / spread, 0.0)
        return replace(
            self,
            mean=self.mean - (gain * speed)[..., None] * share,
            covariance=self.covariance
            - gain[..., None, None] * share[..., None] * share[..., None, :],
        )

    def innovation(self, position_mm: FloatArray, covariance_mm2: FloatArray) -> Innovation:
        """Measured positions (..., 3) against this prediction.

        :param covariance_mm2: (..., 3, 3)
        """
        seen = _seen(covariance_mm2)
        expected = seen @ self.covariance @ seen.swapaxes(-1, -2)
        return Innovation(position_mm - (seen @ self.mean[..., None])[..., 0], expected, seen)

    def corrected(self, innovation: Innovation, gate: float = math.inf) -> Motion:
        """With a measured position taken in.

        :param innovation: (...) as this.
        :param gate: of the normalised innovation squared; an outlier moves the estimate no more
            than a measurement at the gate's edge would.
        """
        seen = innovation.seen
        excess = np.maximum(1.0, innovation.squared / gate)[..., None, None]
        gain = np.linalg.solve(
            excess * innovation.covariance_mm2, seen @ self.covariance
        ).swapaxes(-1, -2)
        # Joseph's form stays symmetric and positive definite.
        kept = np.eye(12) - gain @ seen
        noise = (excess - 1) * innovation.covariance_mm2
        spread = kept @ self.covariance @ kept.swapaxes(-1, -2)
        spread += gain @ noise @ gain.swapaxes(-1, -2)
        step = (gain @ innovation.residual_mm[..., None])[..., 0]
        return replace(self, mean=self.mean + step, covariance=spread)


def fresh(covariance_mm2: FloatArray) -> FloatArray:
    """(..., 3, 3): of measurements' covariances, what changes from image to image."""
    variances, axes = np.linalg.eigh(covariance_mm2)
    return (axes * _fresh(variances)[..., None, :]) @ axes.swapaxes(-1, -2)


def _fresh(variances: FloatArray) -> FloatArray:
    """(..., 3) in rising order: the first is one across the viewing ray."""
    across = variances[..., :1]
    return np.asarray(_FRESH_ALONG * (variances - across) + _FRESH_ACROSS * across)


def _spreads(vertical: Vertical) -> tuple[FloatArray, FloatArray]:
    """(3, 3) each: covariances of velocity and sway of somebody of whom nothing is known."""
    upward = np.outer(vertical.up, vertical.up)
    level = _ONE - upward
    rise = RISE_MM_S if vertical.known else _BELIEVED_RISE_MM_S
    speed = SPEED_MM_S**2 * level + rise**2 * upward
    if not vertical.known:
        return speed, _ANY_SWAY_MM**2 * _ONE
    return speed, SWAY_MM**2 * level + BOB_MM**2 * upward


def _seen(covariance_mm2: FloatArray) -> FloatArray:
    """(..., 3, 12): path + sway + error, whose standard deviations are those of the measurement
    (..., 3, 3)."""
    variances, axes = np.linalg.eigh(covariance_mm2)
    spread = axes * np.sqrt(np.maximum(_fresh(variances), 0))[..., None, :]
    seen = np.zeros((*covariance_mm2.shape[:-1], 12))
    seen[..., :9], seen[..., 9:] = _ROOT[:, :9], spread @ axes.swapaxes(-1, -2)
    return seen
