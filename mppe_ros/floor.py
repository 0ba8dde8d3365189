"""RootNet's distance, corrected by the floor that people stand on.

A picture alone can't tell a child from a distant adult: RootNet takes everybody for somewhat
average. Where the camera's height above a level floor is known, feet tell: the ray through the
lower ankle meets the height of ankles at one distance only (Hoiem et al., "Putting objects in
perspective", CVPR 2006). What is left is the foot's error, which counts the more the lower the
camera is.
"""

from __future__ import annotations

import numpy as np

from . import camera, distance
from .orientation import oriented
from .skeletons import ANKLES, Skeleton
from .structures import FloatArray, Intrinsics, JointStatus, Person, RootError

# Of a standing foot's ankle above the floor; and how far off the floor PoseNet's lower ankle
# seems (standard deviation that holds 68.3 %). Measured in generated films (docs/tracking.md).
ANKLE_HEIGHT_MM, FOOT_ERROR_MM = 100.0, 70.0
# From lower than this feet tell nothing.
_LEAST_HEIGHT_MM = 200.0
# Feet that contradict RootNet by more standard deviations than this stand elsewhere. A child is as
# many off RootNet's average of people, so it is wide.
_GATE = 5.0


def fuse(
    person: Person,
    camera_to_world: FloatArray,
    intrinsics: Intrinsics,
    skeleton: Skeleton,
    error: RootError,
) -> Person:
    """A person at the distance that RootNet and the feet agree on.

    :param camera_to_world: (4, 4), m: the camera in a frame whose plane z = 0 is the floor.
    :param error: the weight set's.
    :return: the same person where no foot is seen or RootNet disagrees.
    """
    height_mm = float(camera_to_world[2, 3]) * 1000 - ANKLE_HEIGHT_MM
    if height_mm < _LEAST_HEIGHT_MM:
        return person
    expected = float(person.root_mm[2])
    depths = _root_depths_mm(person, -camera_to_world[2, :3], height_mm, intrinsics, skeleton)
    if not len(depths):
        return person
    # A lifted foot is seen where the floor is farther away.
    measured = float(depths.min())
    foot_mm = FOOT_ERROR_MM * float(error.doubt(person.joint_scores))
    noise = measured * foot_mm / height_mm
    uncertainty = distance.uncertainty_mm(person)
    if abs(measured - expected) > _GATE * np.hypot(uncertainty, noise):
        return person
    nearer = distance.corrected(person, measured, noise, intrinsics, skeleton)
    return oriented([nearer], skeleton, error)[0]


def _root_depths_mm(
    person: Person, down: FloatArray, height_mm: float, intrinsics: Intrinsics, skeleton: Skeleton
) -> FloatArray:
    """(N,) the root's Z if this ankle were that of a standing foot, of each that is seen.

    :param down: (3,) unit vector, camera frame.
    :param height_mm: of the camera above ankles.
    """
    ankles = [i for i in skeleton.indices(ANKLES) if person.joint_status[i] == JointStatus.OK]
    rays = camera.back_project(person.joints_px[ankles], np.ones(len(ankles)), intrinsics)
    drops = rays @ down  # per mm of Z
    behind_root = person.joints_mm[ankles, 2] - person.root_mm[2]
    depths = height_mm / np.where(drops > 0, drops, np.nan) - behind_root
    return depths[depths > 0]
