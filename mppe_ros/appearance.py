"""What people wear: the colours of parts of their bodies, by which they are told apart.

Clothes stay the same while poses and places change, so that they tell who comes out from behind
whom. Some dozen pixels along each person's bones are enough, and cost next to nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .skeletons import LIMB_JOINTS, Skeleton
from .structures import FloatArray, Image, JointStatus

# Of each part: two bones or diagonals, and from where to where along them pixels are taken. Left
# and right are dressed alike, and PoseNet at times takes one for the other.
_PARTS = (
    (("R_Shoulder", "L_Hip"), ("L_Shoulder", "R_Hip"), 0.15, 0.45),  # chest
    (("R_Shoulder", "L_Hip"), ("L_Shoulder", "R_Hip"), 0.55, 0.85),  # belly
    (("R_Shoulder", "R_Elbow"), ("L_Shoulder", "L_Elbow"), 0.2, 0.8),
    (("R_Elbow", "R_Wrist"), ("L_Elbow", "L_Wrist"), 0.2, 0.8),
    (("R_Hip", "R_Knee"), ("L_Hip", "L_Knee"), 0.3, 0.8),
    (("R_Knee", "R_Ankle"), ("L_Knee", "L_Ankle"), 0.2, 0.7),
)
_PIXELS_PER_BONE = 8
_LEAST_PIXELS = 4  # of a part that is seen
# Colours this far apart, root mean square over the three channels of 255, are others.
_OTHER_COLOUR = 60.0
# Of the newest image, in the running mean of somebody's colours.
_LEARNING_RATE = 0.1

UNSEEN = np.full((len(_PARTS), 3), np.nan)  # colours of somebody of whom nothing is seen


def colours(
    image: Image, joints_px: FloatArray, joint_status: npt.NDArray[np.uint8], skeleton: Skeleton
) -> FloatArray:
    """The mean colours of people's parts, 0..255: (N, P, 3), NaN where a part isn't seen.

    :param image: (H, W, 3) uint8
    :param joints_px: (N, J, 2) in the image
    :param joint_status: (N, J) JointStatus; joints that aren't OK have no part.
    """
    limbs = skeleton.indices(LIMB_JOINTS)
    known = joint_status[:, limbs] == JointStatus.OK
    places = np.where(known[..., None], joints_px[:, limbs], 0.0)
    pixels = np.rint(_WEIGHTS @ places).astype(np.intp)  # (N, P * S, 2) of u, v
    seen = known[:, _ENDS].all(axis=-1)
    seen &= ((pixels >= 0) & (pixels < (image.shape[1], image.shape[0]))).all(axis=-1)
    u, v = np.where(seen[..., None], pixels, 0).transpose(2, 0, 1)
    taken = image[v, u]
    values = taken if isinstance(taken, np.ndarray) else taken.cpu().numpy()
    by_part = (len(joints_px), len(_PARTS), 2 * _PIXELS_PER_BONE)
    shares = seen.reshape(by_part).astype(np.float64)
    count = shares.sum(axis=-1)
    totals = (shares[..., None, :] @ values.reshape(*by_part, 3))[..., 0, :]
    return np.where(
        (count >= _LEAST_PIXELS)[..., None], totals / np.maximum(count, 1)[..., None], np.nan
    )


def unlike(a: FloatArray, b: FloatArray) -> FloatArray:
    """How far apart the colours of two people are: (...) from 0, the same, to 1, others in every
    part; NaN if no part was seen of both.

    :param a, b: (..., P, 3)
    """
    apart = np.sqrt(np.square(a - b).mean(axis=-1)) / _OTHER_COLOUR
    known = np.isfinite(apart)
    total = np.where(known, np.minimum(apart, 1), 0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / known.sum(axis=-1))


def remembered(before: FloatArray, now: FloatArray) -> FloatArray:
    """Somebody's colours (..., P, 3) over time, with those of the newest image."""
    return np.where(
        np.isfinite(before) & np.isfinite(now),
        before + _LEARNING_RATE * (now - before),
        np.fmax(before, now),  # of a number and none, the number
    )


def _weights() -> FloatArray:
    """(P * S, 12) pixels as weighted means of the limbs' joints."""
    rows = []
    for right, left, start, stop in _PARTS:
        for bone in (right, left):
            first, second = map(LIMB_JOINTS.index, bone)
            for along in np.linspace(start, stop, _PIXELS_PER_BONE):
                row = np.zeros(len(LIMB_JOINTS))
                row[first], row[second] = 1 - along, along
                rows.append(row)
    return np.array(rows)


_WEIGHTS = _weights()
_ENDS = np.argsort(-_WEIGHTS, axis=1)[:, :2]  # (P * S, 2) the joints that a pixel lies between
