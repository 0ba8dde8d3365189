"""Which joints of two joint sets are the same places on the body: the one place that says so.

Names alone mislead. MuCo's Head is the middle of the head, Human3.6M's its top; MuCo's Thorax is
the neck, that of the reference release's 18 joints the mean of the shoulders; COCO's nose lies on
the skin. So a shared name counts between two sets of the same family, and the pelvis and the
limbs count everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..skeletons import HUMAN36M_18, LIMB_JOINTS, MUCO_21, Skeleton
from ..structures import FloatArray

PELVIS = "Pelvis"
COMMON_TO_ALL = (PELVIS, *LIMB_JOINTS)

# A joint set of just these, to draw and compare what has no other joints.
LIMBS_13 = Skeleton(
    name="limbs_13",
    joint_names=COMMON_TO_ALL,
    bones=((0, 1), (1, 2), (2, 3), (0, 7), (7, 8), (8, 9), (1, 4), (7, 10), (4, 10), (4, 5),
           (5, 6), (10, 11), (11, 12)),
    flip_pairs=tuple((right, right + 6) for right in range(1, 7)),
    root_index=0,
)  # fmt: skip

_FAMILIES = (MUCO_21, HUMAN36M_18)  # MuPoTS-3D's 17 and Human3.6M's 17 are parts of these
_SIDES = {"left_": "L_", "right_": "R_"}  # COCO's spelling


def our_name(name: str) -> str:
    """A joint's name in this package's spelling: ``left_wrist`` is ``L_Wrist``."""
    for theirs, ours in _SIDES.items():
        if name.lower().startswith(theirs):
            return ours + name[len(theirs) :].capitalize()
    return name


def common_joints(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Names that are the same place in both joint sets, in the order of ``a``."""
    alike = _family(a) is not None and _family(a) is _family(b)
    return [name for name in a if name in b and (alike or name in COMMON_TO_ALL)]


def with_pelvis(
    joint_names: Sequence[str], joints: npt.ArrayLike
) -> tuple[tuple[str, ...], FloatArray]:
    """The joint set with a pelvis: the middle of the hips where it has none of its own.

    :param joints: (..., J, D).
    :return: names, and joints (..., J or J + 1, D).
    """
    names, points = tuple(joint_names), np.asarray(joints, np.float64)
    hips = ("R_Hip", "L_Hip")
    if PELVIS in names or not set(hips) <= set(names):
        return names, points
    middle = points[..., [names.index(hip) for hip in hips], :].mean(axis=-2, keepdims=True)
    return (*names, PELVIS), np.concatenate([points, middle], axis=-2)


def in_order(joints: FloatArray, joint_names: Sequence[str], wanted: Sequence[str]) -> FloatArray:
    """Joints (J, D) as (len(wanted), D), NaN where a wanted one is lacking."""
    result = np.full((len(wanted), joints.shape[-1]), np.nan)
    for index, name in enumerate(wanted):
        if name in joint_names:
            result[index] = joints[joint_names.index(name)]
    return result


def _family(joint_names: Sequence[str]) -> object | None:
    """The one family that has all these names; None where none has, or both (limbs only)."""
    holding = [family for family in _FAMILIES if set(joint_names) <= set(family.joint_names)]
    return holding[0] if len(holding) == 1 else None
