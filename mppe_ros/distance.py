"""A person's distance, corrected by something else that measured it: a depth image, the floor.

Both measure the root from which PoseNet's joints are, so the corrected root has PoseNet's pixel,
too: on generated scenes it is nearer to the truth than RootNet's (docs/depth.md). Where the body's
surface tells more, the root moves from that pixel (`moved`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import camera
from .skeletons import Skeleton
from .structures import FloatArray, Intrinsics, Person, RootError


def uncertainty_mm(person: Person) -> float:
    """Standard deviation of the root's Z, by its covariance along the viewing ray."""
    along_mm, _ = _deviations_mm(person)
    return along_mm * float(person.root_mm[2]) / float(np.linalg.norm(person.root_mm))


def corrected(
    person: Person,
    measured_mm: float,
    noise_mm: float,
    intrinsics: Intrinsics,
    skeleton: Skeleton,
) -> Person:
    """A person at the distance between its own and the measured one, by their uncertainties.

    The joints keep their pixels and their depths relative to the root, whose pixel becomes that of
    PoseNet's pelvis; positions and covariance follow, not yet the orientation.

    :param measured_mm: the root's Z.
    :param noise_mm: its standard deviation.
    """
    expected, uncertainty = float(person.root_mm[2]), uncertainty_mm(person)
    # The better known of the two weighs more: a Kalman filter's update.
    gain = uncertainty**2 / (uncertainty**2 + noise_mm**2)
    root_z = expected + gain * (measured_mm - expected)
    along_mm, across_mm = _deviations_mm(person)
    root_px = _root_px(person, skeleton)
    root_mm = camera.back_project(root_px, root_z, intrinsics)
    covariance = camera.ray_covariance(root_mm, float(np.sqrt(1 - gain)) * along_mm, across_mm)
    placed = replace(person, root_px=root_px, root_mm=root_mm, root_covariance_mm2=covariance)
    return _followed(placed, expected, intrinsics)


def moved(
    person: Person,
    root_mm: FloatArray,
    intrinsics: Intrinsics,
    skeleton: Skeleton,
    error: RootError,
) -> Person:
    """A person whose root, and with it PoseNet's pelvis, was found elsewhere by a `SurfaceNet`.

    The other joints keep their pixels and their depths relative to the root; the orientation
    doesn't follow yet.

    :param root_mm: (3,) in the camera frame.
    :param error: the weight set's.
    """
    along_mm, across_mm = _deviations_mm(person)
    if error.surface_mm is not None:
        across_mm = error.surface_mm * float(error.doubt(person.joint_scores))
    root_px = camera.project(root_mm, intrinsics)
    joints_px = person.joints_px.copy()
    joints_px[skeleton.root_index] = root_px
    joints_mm = person.joints_mm.copy()
    joints_mm[skeleton.root_index] = person.root_mm
    placed = replace(
        person,
        root_px=root_px,
        root_mm=root_mm,
        root_covariance_mm2=camera.ray_covariance(root_mm, along_mm, across_mm),
        joints_px=joints_px,
        joints_mm=joints_mm,
    )
    return _followed(placed, float(person.root_mm[2]), intrinsics)


def _followed(person: Person, was_mm: float, intrinsics: Intrinsics) -> Person:
    """A person whose root's Z was ``was_mm``, with the joints where the root is now."""
    joints_z = person.joints_mm[:, 2] + person.root_mm[2] - was_mm
    return replace(person, joints_mm=camera.back_project(person.joints_px, joints_z, intrinsics))


def _deviations_mm(person: Person) -> tuple[float, float]:
    """The root's standard deviation along and across the viewing ray (`camera.ray_covariance`)."""
    ray = person.root_mm / np.linalg.norm(person.root_mm)
    along = float(ray @ person.root_covariance_mm2 @ ray)
    across = (float(np.trace(person.root_covariance_mm2)) - along) / 2
    return float(np.sqrt(along)), float(np.sqrt(max(across, 0.0)))


def _root_px(person: Person, skeleton: Skeleton) -> FloatArray:
    """PoseNet's; RootNet's where no ray leads to that."""
    known = np.isfinite(person.joints_mm[skeleton.root_index]).all()
    return np.asarray(person.joints_px[skeleton.root_index] if known else person.root_px)
