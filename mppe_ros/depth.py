"""RootNet's distance, corrected by a depth image that is registered to the colour image.

A grid of pixels on the torso is looked up in the depth image. Each one votes for a distance of the
root: the depth of the surface there, less how far PoseNet puts the torso from the root there, plus
how deep the torso's joints lie under its surface. The densest cluster of votes counts, so that an
arm, an occluder or the wall behind are outvoted. Where the votes are too few or contradict RootNet
by more than its own covariance allows, RootNet's word stands. Weight sets that have a `SurfaceNet`
let it mend what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transforms3d.quaternions import quat2mat

from . import camera, distance, surface
from .orientation import TORSO, oriented
from .skeletons import Skeleton
from .structures import DepthImage, FloatArray, Intrinsics, Person, RootError
from .surface import SurfaceNet

# How deep the plane through hips and shoulders lies under the surface that a camera sees, by the
# side that it is seen from. Measured on generated people with their true joints (docs/depth.md).
FRONT_DEPTH_MM, SIDE_DEPTH_MM, BACK_DEPTH_MM = 160.0, 197.0, 114.0
# What a depth camera adds to the error, as a fraction of the distance.
DEPTH_NOISE = 0.01

# Votes within this distance of each other are one surface: a torso is not flat.
_CLUSTER_MM = 100.0
# Of the grid's pixels, those that must agree; the others may be holes, occluders or background.
_MIN_AGREEING = 0.2
# Votes that contradict RootNet by more standard deviations than this are another's.
_GATE = 3.0

# The grid reaches from a little below the hips to the waist: PoseNet is less sure of shoulders.
_COLUMNS = np.linspace(0.1, 0.9, 9)  # from the right side to the left
_ROWS = np.linspace(-0.15, 0.45, 9)  # from the hips to the shoulders


def _bilinear(columns: FloatArray, rows: FloatArray) -> FloatArray:
    """(N, 4) weights of the four corners in `TORSO`'s order."""
    left, up = (axis.ravel() for axis in np.meshgrid(columns, rows))
    right, down = 1 - left, 1 - up
    return np.stack([right * down, left * down, right * up, left * up], axis=1)


_WEIGHTS = _bilinear(_COLUMNS, _ROWS)


def fuse(
    people: Sequence[Person],
    depth_m: DepthImage,
    intrinsics: Intrinsics,
    skeleton: Skeleton,
    error: RootError,
    surface_net: SurfaceNet | None = None,
) -> list[Person]:
    """People at the distances that RootNet and the depth image agree on.

    :param depth_m: (H, W) Z, m, of the same pixels as the image; 0 or not finite where unknown.
    :param error: the weight set's.
    :param surface_net: the weight set's, if it has one: corrects those whom depth corrected.
    :return: the same person where depth is missing or disagrees.
    :raises ValueError: a depth image of another size than the camera's image.
    """
    if depth_m.shape != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"the depth image is {depth_m.shape[1]}x{depth_m.shape[0]} px, the image "
            f"{intrinsics.width}x{intrinsics.height} px: it must be registered to the image"
        )
    fused = [_by_votes(person, depth_m, intrinsics, skeleton, error) for person in people]
    better = [i for i, person in enumerate(people) if fused[i] is not person]
    found = [fused[i] for i in better]
    if surface_net is not None and found:
        offsets_mm = surface_net.offsets_mm(surface.look(found, depth_m, intrinsics))
        for k, (person, offset) in enumerate(zip(found, offsets_mm, strict=True)):
            root_mm = person.root_mm - offset @ camera.ray_axes(person.root_mm)
            if root_mm[2] > 0:
                found[k] = distance.moved(person, root_mm, intrinsics, skeleton, error)
    for i, person in zip(better, oriented(found, skeleton, error), strict=True):
        fused[i] = person
    return fused


def _by_votes(
    person: Person,
    depth_m: DepthImage,
    intrinsics: Intrinsics,
    skeleton: Skeleton,
    error: RootError,
) -> Person:
    expected, uncertainty = float(person.root_mm[2]), distance.uncertainty_mm(person)
    fused_mm = error.fused_mm * float(error.doubt(person.joint_scores))
    votes = surface_mm(person, depth_m, skeleton) + _torso_depth_mm(person, error)
    measured = _measure(votes, expected, float(np.hypot(uncertainty, fused_mm)))
    if measured is None:
        return person
    noise = float(np.hypot(fused_mm, DEPTH_NOISE * measured))
    return distance.corrected(person, measured, noise, intrinsics, skeleton)


def torso_depth_mm(forward_along_ray: float, heading_rad: float) -> float:
    """How deep the torso's joints are expected under its surface.

    Between front, side and back lies a wave of the heading, which an uncertain heading flattens:
    its cosine's expectation is exp(-σ²/2) times that of the estimate.

    :param forward_along_ray: cosine of the angle between the body's front and the viewing ray: -1
        faces the camera.
    :param heading_rad: standard deviation of the heading.
    """
    once = np.exp(-(heading_rad**2) / 2) * forward_along_ray
    twice = np.exp(-2 * heading_rad**2) * (2 * forward_along_ray**2 - 1)
    ends = (FRONT_DEPTH_MM + BACK_DEPTH_MM) / 2
    middle, swing = (ends + SIDE_DEPTH_MM) / 2, (ends - SIDE_DEPTH_MM) / 2
    return float(middle + (BACK_DEPTH_MM - FRONT_DEPTH_MM) / 2 * once + swing * twice)


def _torso_depth_mm(person: Person, error: RootError) -> float:
    if person.root_orientation_xyzw is None:
        return torso_depth_mm(0.0, np.inf)
    x, y, z, w = person.root_orientation_xyzw
    forward = quat2mat([w, x, y, z])[:, 0]
    ray = person.root_mm / np.linalg.norm(person.root_mm)
    return torso_depth_mm(float(forward @ ray), error.heading_rad)


def surface_mm(person: Person, depth_m: DepthImage, skeleton: Skeleton) -> FloatArray:
    """(N,) what Z the root had by each pixel of the torso's grid if its joints lay on the surface;
    NaN where depth is unknown."""
    corners = skeleton.indices(TORSO)
    pixels = np.rint(_WEIGHTS @ person.joints_px[corners])
    behind_root_mm = _WEIGHTS @ (person.joints_mm[corners, 2] - person.root_mm[2])
    height, width = depth_m.shape
    # Written so that NaN fails.
    inside = np.all((pixels >= 0) & (pixels < (width, height)), axis=1)
    u, v = np.where(inside[:, None], pixels, 0).astype(np.intp).T
    seen_m = np.asarray(depth_m[v, u], np.float64)
    known = inside & np.isfinite(seen_m) & (seen_m > 0)
    return np.where(known, seen_m * 1000 - behind_root_mm, np.nan)


def _measure(votes_mm: FloatArray, expected_mm: float, uncertainty_mm: float) -> float | None:
    """The mean of the densest cluster of votes; None where too few agree with each other and
    with what is expected."""
    votes = votes_mm[np.abs(votes_mm - expected_mm) < _GATE * uncertainty_mm]
    if len(votes) == 0:
        return None
    reach = np.hypot(_CLUSTER_MM, 2 * DEPTH_NOISE * expected_mm)
    neighbours = np.abs(votes[:, None] - votes) <= reach
    counts = neighbours.sum(axis=1)
    if counts.max() < _MIN_AGREEING * len(votes_mm):
        return None
    return float(votes[neighbours[counts.argmax()]].mean())
