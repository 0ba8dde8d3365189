"""Ground truth of a picture: boxes, joints, visibility, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..camera import project
from ..structures import Intrinsics
from .kernel import View
from .people import Placed
from .render import Scene, Truth, truth

# A joint lies this deep under the surface at most (hips, shoulders): nearer than that is "seen".
JOINT_DEPTH_M = 0.2


@dataclass(frozen=True)
class Annotation:
    """One person in one picture."""

    person: int
    bbox_xywh_px: tuple[float, float, float, float]  # of the visible pixels
    full_bbox_xywh_px: tuple[float, float, float, float]  # of the whole body, beyond the image
    joints_px: NDArray[np.float64]  # (21, 2)
    joints_camera_mm: NDArray[np.float64]  # (21, 3)
    visible: NDArray[np.bool_]  # (21,), inside the image and not hidden by anything else
    visible_fraction: float  # visible pixels of those that the person alone would fill


def annotate(
    view: View, lens: Intrinsics, people: Sequence[Placed], seen: Truth
) -> list[Annotation]:
    """Describe everybody who has at least one visible pixel.

    :param view: where the camera stands, and its pinhole part.
    :param lens: the whole camera, distortion included.
    :param seen: ``render.truth`` of the same picture, with everything that hides.
    """
    found = []
    for placed in people:
        rows, columns = np.nonzero(seen.person == placed.person)
        if len(rows) == 0:
            continue
        camera = view.to_camera(placed.joints_m)
        joints = _in_front(project(camera, lens), camera)
        left, top = columns.min() - 0.5, rows.min() - 0.5
        box = (float(left), float(top), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1))
        found.append(
            Annotation(
                placed.person,
                box,
                _full_box(view, lens, placed),
                joints,
                camera * 1000,
                joint_visibility(joints, camera[:, 2], seen, placed.person),
                min(len(rows) / _pixels_alone(view, placed), 1.0),
            )
        )
    return found


def _in_front(pixels: NDArray[np.float64], camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make pixels of points behind the camera nan."""
    return np.where(camera[..., 2:] > 0, pixels, np.nan)


def _full_box(view: View, lens: Intrinsics, placed: Placed) -> tuple[float, float, float, float]:
    camera = view.to_camera(placed.vertices)
    pixels = project(camera[camera[:, 2] > 0], lens)
    left, top = pixels.min(axis=0)
    width, height = np.ptp(pixels, axis=0)
    return float(left), float(top), float(width), float(height)


def _pixels_alone(view: View, placed: Placed) -> float:
    """Count the pixels that the person would fill with nothing around it (pinhole)."""
    pixels = view.project(placed.vertices)
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    left, top = pixels.min(axis=0)
    side = 1.02 * float(max(np.ptp(pixels, axis=0).max(), 1.0))
    size = int(np.clip(side, 16, 512))
    close = view.crop(left - 0.01 * side, top - 0.01 * side, side, size)
    filled = truth(close, Scene.of([placed.mesh])).person > 0
    return max(float(filled.sum()) * (side / size) ** 2, 1.0)


def joint_visibility(
    joints_px: NDArray[np.float64], depth_m: NDArray[np.float64], seen: Truth, person: int
) -> NDArray[np.bool_]:
    """Tell which joints lie in the image, close under the person's own visible surface.

    :param joints_px: (J, 2) in the image that ``seen`` describes; ``depth_m``: (J,).
    :return: (J,).
    """
    height, width = seen.depth_m.shape
    with np.errstate(invalid="ignore"):
        cell = np.rint(np.nan_to_num(joints_px, nan=-1)).astype(np.int64)
    inside = (cell >= 0).all(axis=1) & (cell[:, 0] < width) & (cell[:, 1] < height)
    column, row = np.clip(cell, 0, [width - 1, height - 1]).T
    own = seen.person[row, column] == person
    return np.asarray(inside & own & (depth_m - seen.depth_m[row, column] < JOINT_DEPTH_M))
