"""The camera model: lens distortion, projection and back-projection, the paper's k-value.

Distortion is OpenCV's, the library that calibrated most cameras. Everything here runs on a
handful of points per person, in float64 on the CPU.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from .structures import FloatArray, Intrinsics

# A person is taken to fill an area of 2 m x 2 m (paper, section 5.2).
PERSON_SIDE_MM = 2000.0

# Undistortion iterates; the default criterion of some OpenCV versions stops several px early.
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)


def k_value_mm(fx: torch.Tensor, fy: torch.Tensor, boxes_xywh_px: torch.Tensor) -> torch.Tensor:
    """The distance at which a 2 m x 2 m person fills the box (paper, eq. 2).

    :param fx, fy: focal lengths, px, broadcast against the boxes.
    :param boxes_xywh_px: (N, 4) *processed* boxes, i.e. square and enlarged.
    :return: (N,) k, mm.
    """
    area_px = boxes_xywh_px[:, 2] * boxes_xywh_px[:, 3]
    return PERSON_SIDE_MM * torch.sqrt(fx * fy / area_px)


def pixel_rays(pixels: npt.ArrayLike, intrinsics: Intrinsics) -> FloatArray:
    """Viewing rays through pixels, lens distortion removed.

    :param pixels: (..., 2) u, v, px, in the image as received.
    :return: (..., 2) x/z and y/z of the ray.
    """
    points = np.asarray(pixels, np.float64)
    flat = np.ascontiguousarray(points.reshape(-1, 1, 2))
    if len(flat) == 0 or intrinsics.distortion_model == "none":
        focal = np.array([intrinsics.fx, intrinsics.fy])
        return (points - (intrinsics.cx, intrinsics.cy)) / focal
    coefficients = np.array(intrinsics.distortion)
    if intrinsics.distortion_model == "equidistant":
        rays = cv2.fisheye.undistortPoints(
            flat, intrinsics.matrix, coefficients, criteria=_CRITERIA
        )
    else:
        rays = _undistort(flat, intrinsics.matrix, coefficients)
    return np.asarray(rays, np.float64).reshape(points.shape)


def _undistort(pixels: FloatArray, matrix: FloatArray, coefficients: FloatArray) -> FloatArray:
    # OpenCV 5 folded undistortPointsIter into undistortPoints; robots still carry OpenCV 4.
    iterate = getattr(cv2, "undistortPointsIter", None)
    if iterate is not None:
        return np.asarray(iterate(pixels, matrix, coefficients, None, None, _CRITERIA), np.float64)
    rays = cv2.undistortPoints(pixels, matrix, coefficients, criteria=_CRITERIA)
    return np.asarray(rays, np.float64)


def back_project(
    pixels: npt.ArrayLike, depths_mm: npt.ArrayLike, intrinsics: Intrinsics
) -> FloatArray:
    """Pixels and depths to points in the camera frame.

    :param pixels: (..., 2) u, v, px, in the image as received.
    :param depths_mm: (...) Z, mm (the z coordinate, not the distance along the ray).
    :return: (..., 3) x, y, z, mm.
    """
    depths = np.asarray(depths_mm, np.float64)[..., None]
    return np.concatenate([pixel_rays(pixels, intrinsics) * depths, depths], axis=-1)


def project(points_mm: npt.ArrayLike, intrinsics: Intrinsics) -> FloatArray:
    """Points in the camera frame to pixels of the image as received; inverse of back-projection.

    :param points_mm: (..., 3) x, y, z, z > 0.
    :return: (..., 2) u, v, px.
    """
    points = np.asarray(points_mm, np.float64)
    if intrinsics.distortion_model == "none":
        focal = np.array([intrinsics.fx, intrinsics.fy])
        return points[..., :2] / points[..., 2:] * focal + (intrinsics.cx, intrinsics.cy)
    if points.size == 0:
        return np.empty((*points.shape[:-1], 2))
    flat = np.ascontiguousarray(points.reshape(-1, 1, 3))
    coefficients = np.array(intrinsics.distortion)
    still = np.zeros(3)
    if intrinsics.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(flat, still, still, intrinsics.matrix, coefficients)
    else:
        pixels, _ = cv2.projectPoints(flat, still, still, intrinsics.matrix, coefficients)
    return np.asarray(pixels, np.float64).reshape(*points.shape[:-1], 2)


def ray_covariance(point_mm: FloatArray, along_mm: float, across_mm: float) -> FloatArray:
    """Covariance of a point seen by a camera: long along the viewing ray, thin across.

    :param point_mm: (3,) the point, camera frame.
    :param along_mm, across_mm: standard deviations.
    :return: (3, 3) mm².
    """
    ray = point_mm / max(float(np.linalg.norm(point_mm)), 1e-9)
    along = np.outer(ray, ray)
    return along_mm**2 * along + across_mm**2 * (np.eye(3) - along)
