"""Joint sets: names, bones, mirror pairs and the root. The only copy in the package.

MuCo's 21 joints and Human3.6M's 18 are those of the reference release (method.md, "Joint sets");
the 17-joint set is Human3.6M's without the Thorax, which it derives from the shoulders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class UnknownSkeletonError(ValueError):
    """A joint set that this package does not know, by name or by joint count."""


@dataclass(frozen=True)
class Skeleton:
    """One joint set; indices refer to the position in ``joint_names``."""

    name: str
    joint_names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    root_index: int

    def __len__(self) -> int:
        return len(self.joint_names)

    @property
    def mirrored(self) -> list[int]:
        """Joint order seen in a mirror: ``joints[:, mirrored]`` swaps left and right."""
        order = list(range(len(self)))
        for right, left in self.flip_pairs:
            order[right], order[left] = left, right
        return order

    def side(self, joint: int) -> str:
        """``"left"``, ``"right"`` or ``"middle"``, read off the joint's name."""
        prefix = self.joint_names[joint][:2]
        return {"L_": "left", "R_": "right"}.get(prefix, "middle")

    def indices(self, names: Sequence[str]) -> list[int]:
        """Positions of ``names`` in this joint set; raises ``ValueError`` for an unknown joint."""
        return [self.joint_names.index(name) for name in names]


ANKLES = ("R_Ankle", "L_Ankle")
# The joints that every data set means alike; measuring across joint sets uses these.
LIMB_JOINTS = tuple(
    f"{side}_{joint}"
    for side in "RL"
    for joint in ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist")
)

MUCO_21 = Skeleton(
    name="muco_21",
    joint_names=(
        "Head_top", "Thorax",
        "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist",
        "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle",
        "Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe", "L_Toe",
    ),
    bones=(
        (0, 16), (16, 1), (1, 15), (15, 14), (14, 8), (14, 11), (8, 9), (9, 10), (10, 19),
        (11, 12), (12, 13), (13, 20), (1, 2), (2, 3), (3, 4), (4, 17), (1, 5), (5, 6), (6, 7),
        (7, 18),
    ),
    flip_pairs=((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (17, 18), (19, 20)),
    root_index=14,
)  # fmt: skip

HUMAN36M_18 = Skeleton(
    name="human36m_18",
    joint_names=(
        "Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle",
        "Torso", "Neck", "Nose", "Head",
        "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist", "Thorax",
    ),
    bones=(
        (0, 7), (7, 8), (8, 9), (9, 10), (8, 11), (11, 12), (12, 13), (8, 14), (14, 15),
        (15, 16), (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6),
    ),
    flip_pairs=((1, 4), (2, 5), (3, 6), (14, 11), (15, 12), (16, 13)),
    root_index=0,
)  # fmt: skip

HUMAN36M_17 = Skeleton(
    name="human36m_17",
    joint_names=HUMAN36M_18.joint_names[:17],
    bones=HUMAN36M_18.bones,
    flip_pairs=HUMAN36M_18.flip_pairs,
    root_index=0,
)

# The joint sets of data sets, as the reference release names and orders them. Networks aren't
# trained for these: `datasets` maps them by name to one of the above.

MUPOTS_17 = Skeleton(
    name="mupots_17",
    joint_names=MUCO_21.joint_names[:17],
    bones=tuple(bone for bone in MUCO_21.bones if max(bone) < 17),
    flip_pairs=MUCO_21.flip_pairs[:6],
    root_index=14,
)

MPII_16 = Skeleton(
    name="mpii_16",
    joint_names=(
        "R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Thorax", "Neck",
        "Head", "R_Wrist", "R_Elbow", "R_Shoulder", "L_Shoulder", "L_Elbow", "L_Wrist",
    ),
    bones=(
        (0, 1), (1, 2), (2, 6), (7, 12), (12, 11), (11, 10), (5, 4), (4, 3), (3, 6), (7, 13),
        (13, 14), (14, 15), (6, 7), (7, 8), (8, 9),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    root_index=6,
)  # fmt: skip

# COCO's 17 keypoints, and the middles of the shoulders and of the hips.
COCO_19 = Skeleton(
    name="coco_19",
    joint_names=(
        "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "L_Shoulder", "R_Shoulder", "L_Elbow",
        "R_Elbow", "L_Wrist", "R_Wrist", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle",
        "R_Ankle", "Thorax", "Pelvis",
    ),
    bones=(
        (1, 2), (0, 1), (0, 2), (2, 4), (1, 3), (6, 8), (8, 10), (5, 7), (7, 9), (12, 14),
        (14, 16), (11, 13), (13, 15), (5, 6), (11, 12),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    root_index=18,
)  # fmt: skip

SMPL_24 = Skeleton(
    name="smpl_24",
    joint_names=(
        "Pelvis", "L_Hip", "R_Hip", "Torso", "L_Knee", "R_Knee", "Spine", "L_Ankle", "R_Ankle",
        "Chest", "L_Toe", "R_Toe", "Neck", "L_Thorax", "R_Thorax", "Head", "L_Shoulder",
        "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "L_Hand", "R_Hand",
    ),
    bones=(
        (0, 1), (0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 9), (7, 10), (8, 11),
        (9, 12), (9, 13), (9, 14), (12, 15), (13, 16), (14, 17), (16, 18), (17, 19), (18, 20),
        (19, 21), (20, 22), (21, 23),
    ),
    flip_pairs=(
        (2, 1), (5, 4), (8, 7), (11, 10), (14, 13), (17, 16), (19, 18), (21, 20), (23, 22),
    ),
    root_index=0,
)  # fmt: skip

# Of networks' outputs, by name.
SKELETONS = {skeleton.name: skeleton for skeleton in (MUCO_21, HUMAN36M_18, HUMAN36M_17)}


def skeleton_with(joint_count: int) -> Skeleton:
    """The joint set with ``joint_count`` joints, as a checkpoint's channel count tells it."""
    for skeleton in SKELETONS.values():
        if len(skeleton) == joint_count:
            return skeleton
    known = ", ".join(f"{len(skeleton)} ({name})" for name, skeleton in SKELETONS.items())
    raise UnknownSkeletonError(f"no joint set has {joint_count} joints; known: {known}")
