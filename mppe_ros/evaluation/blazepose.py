"""MediaPipe's BlazePose on given boxes, to compare with; see `REQUIREMENT`.

MediaPipe and the model in its wheel ("full") are under the Apache licence 2.0 (Google). It is no
dependency: it pins old libraries, and everything but this comparison works without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import cv2
import numpy as np
import torch

from .. import camera, crops
from ..media import Rgb
from ..skeletons import LIMB_JOINTS
from ..structures import FloatArray, Intrinsics, JointStatus, Person
from .joints import LIMBS_13, in_order, with_pelvis

REQUIREMENT = "mediapipe==0.10.14"  # later ones carry no models

CROP_PX = 384  # the network sees 256 px of it, turned and cut to its own liking

# BlazePose's numbers of our limb joints.
_LANDMARKS = (24, 26, 28, 12, 14, 16, 23, 25, 27, 11, 13, 15)


class BlazePose:
    """A `BoxMethod`: landmarks in a crop around each box, the root fitted to them.

    The crop is the square that RootNet and PoseNet see, black outside the image.

    :raises ImportError: MediaPipe is not installed.
    """

    skeleton = LIMBS_13

    def __init__(self) -> None:
        solutions: Any = import_module("mediapipe").solutions
        self._network = solutions.pose.Pose(static_image_mode=True, model_complexity=1)

    def __call__(
        self, rgb: Rgb, intrinsics: Intrinsics, boxes_xywh_px: FloatArray
    ) -> list[Person | None]:
        """See `BoxMethod`."""
        squares, kept = crops.process_boxes(boxes_xywh_px, intrinsics.width, intrinsics.height)
        image = torch.as_tensor(rgb)
        seen = crops.crop_people([image], squares, np.zeros_like(kept), CROP_PX, antialias=True)
        people: list[Person | None] = [None] * len(boxes_xywh_px)
        for number, square, crop in zip(kept.tolist(), squares, seen, strict=True):
            pixels = crop.permute(1, 2, 0).byte().contiguous().numpy()
            people[number] = self._person(pixels, square, boxes_xywh_px[number], intrinsics)
        return people

    def _person(
        self, crop: Rgb, square: FloatArray, bbox: FloatArray, intrinsics: Intrinsics
    ) -> Person | None:
        found = self._network.process(crop)
        if found.pose_landmarks is None:
            return None
        in_crop = _coordinates(found.pose_landmarks) * CROP_PX
        # MediaPipe's coordinates have 0 at the edge of the first pixel, ours at its centre.
        pixels = crops.to_image(in_crop[None, :, :2] - 0.5, square[None], CROP_PX)[0]
        metric_mm = 1000 * _coordinates(found.pose_world_landmarks)
        visibility = np.array([mark.visibility for mark in found.pose_landmarks.landmark])
        return _placed(pixels, metric_mm, visibility, bbox, intrinsics)


def _placed(
    pixels: FloatArray,
    metric_mm: FloatArray,
    visibility: FloatArray,
    bbox: FloatArray,
    intrinsics: Intrinsics,
) -> Person:
    """A person in the camera frame, from all 33 landmarks in px and in mm around the hips."""
    joints_px, scores = _limbs(pixels), _limbs(visibility[:, None])[:, 0]
    facing = metric_mm @ _turn_towards(camera.pixel_rays(joints_px[0], intrinsics)).T
    joints_mm = _limbs(facing + fit_translation(facing, pixels, intrinsics))
    return Person(
        score=1.0,
        bbox_xywh_px=bbox,
        root_px=joints_px[0],
        root_mm=joints_mm[0],
        root_covariance_mm2=np.zeros((3, 3)),
        joints_px=joints_px,
        joints_mm=joints_mm,
        joint_scores=scores,
        joint_status=np.full(len(LIMBS_13), JointStatus.OK, np.uint8),
    )


def _limbs(landmarks: FloatArray) -> FloatArray:
    """(33, D) landmarks to (13, D) joints of LIMBS_13."""
    names, joints = with_pelvis(LIMB_JOINTS, landmarks[list(_LANDMARKS)])
    return in_order(joints, names, LIMBS_13.joint_names)


def _turn_towards(ray: FloatArray) -> FloatArray:
    """(3, 3) from the crop's axes, whose z runs along the ray (x/z, y/z), to the camera's."""
    direction = np.array([*ray, 1.0]) / np.linalg.norm([*ray, 1.0])
    axis = np.cross([0.0, 0.0, 1.0], direction)
    sine = float(np.linalg.norm(axis))
    angle = np.arctan2(sine, direction[2])
    return np.asarray(cv2.Rodrigues(axis / max(sine, 1e-12) * angle)[0], np.float64)


def fit_translation(
    joints_mm: FloatArray, joints_px: FloatArray, intrinsics: Intrinsics
) -> FloatArray:
    """Where a rigid body is whose joints are seen at these pixels, by linear least squares.

    A joint X + t lies on the ray (x, y, 1) of its pixel if X_x + t_x = x (X_z + t_z), and alike
    for y: two equations per joint, linear in t.

    :param joints_mm: (J, 3). :param joints_px: (J, 2).
    :return: (3,) t, mm, camera frame.
    """
    rays = camera.pixel_rays(joints_px, intrinsics)
    count = len(rays)
    unknowns = np.zeros((2, count, 3))
    unknowns[0, :, 0] = unknowns[1, :, 1] = 1
    unknowns[..., 2] = -rays.T
    known = rays.T * joints_mm[:, 2] - joints_mm[:, :2].T
    solution = np.linalg.lstsq(unknowns.reshape(-1, 3), known.ravel(), rcond=None)[0]
    return np.asarray(solution, np.float64)


def _coordinates(landmarks: Any) -> FloatArray:
    return np.array([[mark.x, mark.y, mark.z] for mark in landmarks.landmark], np.float64)
