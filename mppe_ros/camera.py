"""The camera model: lens distortion, projection and back-projection, the paper's k-value.

Distortion is OpenCV's, the library that calibrated most cameras. Everything here runs on a
handful of points per person, in float64 on the CPU.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from .structures import Array, FloatArray, Intrinsics

# A person is taken to fill an area of 2 m x 2 m (paper, section 5.2).
PERSON_SIDE_MM = 2000.0

# Newton's method on rays: three steps are enough but next to where distortion turns back.
_NEWTON_STEPS = 8
_TOLERANCE = 1e-6  # of image plane at focal length 1: a thousandth of a pixel
# Of rays from the axis; x/z and y/z describe nothing at and beyond 90 degrees.
_MAX_ANGLE = math.radians(89)


def k_value_mm(fx: Array | float, fy: Array | float, boxes_xywh_px: Array) -> Array:
    """The distance at which a 2 m x 2 m person fills the box (paper, eq. 2).

    :param fx, fy: focal lengths, px, broadcast against the boxes.
    :param boxes_xywh_px: (N, 4) *processed* boxes, i.e. square and enlarged.
    :return: (N,) k, mm.
    """
    area_px = boxes_xywh_px[:, 2] * boxes_xywh_px[:, 3]
    k_mm: Array = PERSON_SIDE_MM * (fx * fy / area_px) ** 0.5
    return k_mm


def magnification(boxes_xywh_px: npt.ArrayLike, intrinsics: Intrinsics) -> FloatArray:
    """How large lens distortion shows what is in a box; 1 where there is none.

    The k-value of a pinhole camera has to be multiplied by this: 45 degrees off the axis of an
    equidistant fisheye a standing person is shown 0.8 times as tall, and is not that much farther
    away. The longer side counts, as it alone makes the size of the processed box.

    :param boxes_xywh_px: (N, 4) boxes as detected, in the image as received.
    :return: (N,); 1, too, where no ray leads to the box.
    """
    boxes = np.asarray(boxes_xywh_px, np.float64)
    result = np.ones(len(boxes))
    if intrinsics.distortion_model == "none":
        return result
    # Of the whole box, or of its middle where it reaches out of the lens's view.
    for part in (0.01, 1.0):
        found = _magnification(boxes, part, intrinsics)
        result = np.where(np.isfinite(found), found, result)
    return result


def _magnification(boxes: FloatArray, part: float, intrinsics: Intrinsics) -> FloatArray:
    """(N,) how long that part of each box's longer middle line is, against a pinhole camera's."""
    centres, sides = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:] * part
    axis = np.eye(2)[sides.argmax(1)]  # (N, 2) along u or v
    half = sides / 2 * axis
    ends = pixel_rays(np.stack([centres - half, centres + half]), intrinsics)
    _, focal = _centre_and_focal(intrinsics)
    with np.errstate(divide="ignore", invalid="ignore"):
        pinhole = ((ends[1] - ends[0]) * focal * axis).sum(1)
        return np.asarray(sides.max(1) / pinhole, np.float64)


def pixel_rays(pixels: npt.ArrayLike, intrinsics: Intrinsics) -> FloatArray:
    """Viewing rays through pixels, lens distortion removed.

    :param pixels: (..., 2) u, v, px, in the image as received.
    :return: (..., 2) x/z and y/z of the ray; NaN where the lens shows nothing: the polynomials of
        strong distortion turn back somewhere, and beyond that they describe no lens.
    """
    points = np.asarray(pixels, np.float64)
    centre, focal = _centre_and_focal(intrinsics)
    landed = (points - centre) / focal
    if intrinsics.distortion_model == "none":
        return np.asarray(landed, np.float64)
    rays = _undistort(landed.reshape(-1, 2), intrinsics.distortion_model, intrinsics.distortion)
    return rays.reshape(points.shape)


def back_project(
    pixels: npt.ArrayLike, depths_mm: npt.ArrayLike, intrinsics: Intrinsics
) -> FloatArray:
    """Pixels and depths to points in the camera frame.

    :param pixels: (..., 2) u, v, px, in the image as received.
    :param depths_mm: (...) Z, mm (the z coordinate, not the distance along the ray).
    :return: (..., 3) x, y, z, mm; all NaN where no ray leads to the pixel.
    """
    directions = _directions(pixels, intrinsics)
    return np.asarray(directions * np.asarray(depths_mm, np.float64)[..., None], np.float64)


def _directions(pixels: npt.ArrayLike, intrinsics: Intrinsics) -> FloatArray:
    """(..., 3) rays of length 1 along the axis; all NaN where no ray leads to the pixel."""
    rays = pixel_rays(pixels, intrinsics)
    directions = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1)
    directions[~np.isfinite(rays).all(-1)] = np.nan
    return directions


def back_project_pose(
    root_px: FloatArray,
    root_z_mm: FloatArray,
    joints_px: FloatArray,
    joints_z_mm: FloatArray,
    intrinsics: Intrinsics,
    ray_turn: tuple[float, float] = (0.0, 0.0),
) -> tuple[FloatArray, FloatArray]:
    """Roots and the joints whose depth is known relative to them, as points in the camera frame.

    The paper takes relative depths as along the optical axis (section 6). But a network that sees
    a crop can't know where in the image that lies: 20 degrees right of the axis a person who
    faces the camera looks as on the axis, and is turned by 20 degrees in its frame. What the
    network says is then relative to the viewing ray, and the pose has to be turned by its angle.

    :param root_px, joints_px: (N, 2), (N, J, 2) u, v, px, in the image as received.
    :param root_z_mm: (N,) Z of the roots.
    :param joints_z_mm: (N, J) relative to the root, away from the camera.
    :param ray_turn: the share of the ray's angle to turn by, right and down: 0 measures along the
        optical axis, 1 along the ray.
    :return: (N, 3), (N, J, 3) x, y, z, mm; all NaN where no ray leads to the pixel or where the
        joint would be behind the camera.
    """
    directions = _directions(np.concatenate([root_px[:, None], joints_px], axis=1), intrinsics)
    along = directions[:, 0] * [*ray_turn, 1.0]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        forward = (directions * along[:, None]).sum(-1)
        depths = (root_z_mm[:, None] * forward[:, :1] + joints_z_mm) / forward[:, 1:]
    depths[~(depths > 0)] = np.nan  # no pixel shows what is behind the camera
    return directions[:, 0] * root_z_mm[:, None], directions[:, 1:] * depths[..., None]


def project(points_mm: npt.ArrayLike, intrinsics: Intrinsics) -> FloatArray:
    """Points in the camera frame to pixels of the image as received; inverse of back-projection.

    :param points_mm: (..., 3) x, y, z, z > 0.
    :return: (..., 2) u, v, px.
    """
    points = np.asarray(points_mm, np.float64)
    rays = (points[..., :2] / points[..., 2:]).reshape(-1, 2)
    landed = _distort(rays, intrinsics.distortion_model, intrinsics.distortion)
    centre, focal = _centre_and_focal(intrinsics)
    return np.asarray(landed.reshape(*points.shape[:-1], 2) * focal + centre, np.float64)


def inside(pixels: npt.ArrayLike, intrinsics: Intrinsics) -> npt.NDArray[np.bool_]:
    """(...) whether pixels (..., 2) lie in the image; false for what is no number."""
    points = np.asarray(pixels)
    last = np.array([intrinsics.width, intrinsics.height]) - 0.5
    return np.asarray(((points >= -0.5) & (points <= last)).all(axis=-1))


def _centre_and_focal(intrinsics: Intrinsics) -> tuple[FloatArray, FloatArray]:
    return (
        np.array([intrinsics.cx, intrinsics.cy], np.float64),
        np.array([intrinsics.fx, intrinsics.fy], np.float64),
    )


def _distort(rays: FloatArray, model: str, coefficients: tuple[float, ...]) -> FloatArray:
    """(N, 2) where rays x/z, y/z land in the image plane at focal length 1."""
    if model == "none" or len(rays) == 0:
        return rays
    points = np.concatenate([rays, np.ones_like(rays[:, :1])], axis=1)[:, None]
    still, one = np.zeros(3), np.eye(3)
    if model == "equidistant":
        landed, _ = cv2.fisheye.projectPoints(points, still, still, one, np.array(coefficients))
    else:
        landed, _ = cv2.projectPoints(points, still, still, one, np.array(coefficients))
    return np.asarray(landed, np.float64).reshape(-1, 2)


def _undistort(landed: FloatArray, model: str, coefficients: tuple[float, ...]) -> FloatArray:
    """The inverse, by Newton's method; NaN where there is none.

    OpenCV's own does not converge where distortion is strong, may end on a branch beyond the point
    where the polynomial turns back, and says neither.
    """
    ends, radii = _radial_profile(model, coefficients)
    distances = np.linalg.norm(landed, axis=1)
    # Exact but for tangential distortion, which is small.
    rays = landed * (np.interp(distances, ends, radii) / np.maximum(distances, 1e-12))[:, None]
    with np.errstate(all="ignore"):
        for _ in range(_NEWTON_STEPS):
            reached, jacobians = _linearise(rays, model, coefficients)
            a, b, c, d = jacobians.reshape(-1, 4).T
            determinants = a * d - b * c
            u, v = (landed - reached).T
            steps = np.stack([d * u - b * v, a * v - c * u], axis=1) / determinants[:, None]
            rays = rays + steps
            if not (np.abs(steps) > _TOLERANCE**2).any():
                break
        lost = np.abs(_distort(rays, model, coefficients) - landed).max(1, initial=0)
        within = np.linalg.norm(rays, axis=1) <= radii[-1]
        known = (lost < _TOLERANCE) & within & (determinants > 0)
    return np.where(known[:, None], rays, np.nan)


def _linearise(
    rays: FloatArray, model: str, coefficients: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    """(N, 2) where rays land and (N, 2, 2) the derivative of that by the ray."""
    step = 1e-7
    moved = np.concatenate([rays, rays + (step, 0), rays + (0, step)])
    reached, by_x, by_y = np.split(_distort(moved, model, coefficients), 3)
    return reached, np.stack([by_x - reached, by_y - reached], axis=-1) / step


@lru_cache(maxsize=64)
def _radial_profile(model: str, coefficients: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """Where rays at growing angles land: (M,) radii in the image plane and (M,) of the rays.

    Only as far as they land farther and farther out, and without tangential distortion.
    """
    if model != "equidistant":
        p1, s1 = 2, 8  # OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6 s1 ... s4 tau_x tau_y
        coefficients = (*coefficients[:p1], 0, 0, *coefficients[p1 + 2 : s1])
    radii = np.tan(np.linspace(0, _MAX_ANGLE, 2000))
    ends = _distort(np.stack([radii, np.zeros_like(radii)], axis=1), model, coefficients)[:, 0]
    turning = np.flatnonzero(~(np.diff(ends) > 0))
    count = turning[0] + 1 if len(turning) else len(ends)
    return ends[:count], radii[:count]


def ray_axes(points_mm: FloatArray) -> FloatArray:
    """The viewing ray of each point and two axes across it, the first of them level.

    :param points_mm: (..., 3) camera frame.
    :return: (..., 3, 3) rows of length 1: along the ray, to the right, down.
    """
    along = points_mm / np.maximum(np.linalg.norm(points_mm, axis=-1, keepdims=True), 1e-9)
    level = np.stack([along[..., 2], np.zeros_like(along[..., 0]), -along[..., 0]], axis=-1)
    level /= np.maximum(np.linalg.norm(level, axis=-1, keepdims=True), 1e-9)
    return np.stack([along, level, np.cross(along, level)], axis=-2)


def ray_covariance(
    points_mm: FloatArray, along_mm: npt.ArrayLike, across_mm: npt.ArrayLike
) -> FloatArray:
    """Covariance of points seen by a camera: long along the viewing ray, thin across.

    :param points_mm: (..., 3) the points, camera frame.
    :param along_mm, across_mm: (...) standard deviations.
    :return: (..., 3, 3) mm².
    """
    rays = points_mm / np.maximum(np.linalg.norm(points_mm, axis=-1, keepdims=True), 1e-9)
    along = rays[..., :, None] * rays[..., None, :]
    long, thin = (np.asarray(sigma, np.float64)[..., None, None] ** 2
                  for sigma in (along_mm, across_mm))  # fmt: skip
    return np.asarray(long * along + thin * (np.eye(3) - along))
