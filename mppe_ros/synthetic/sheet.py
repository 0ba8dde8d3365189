"""The contact sheet: what generated samples look like, for a reader to judge."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..skeletons import MUCO_21
from .library import Library
from .person_crops import CropGenerator
from .scenes import Picture, SceneGenerator

Image = NDArray[np.uint8]

CROP_PX, CROPS_PER_ROW, CROP_ROWS = 160, 8, 4
SCENE_SIZE, SCENES_PER_ROW, SCENE_ROWS = (320, 240), 4, 2


def contact_sheet(library: Library, seed: int) -> Image:
    """Lay out crops, half of them with their joints, and scenes with boxes and joints: BGR."""
    crops = CropGenerator(library, seed, CROP_PX)
    rows = []
    for row in range(CROP_ROWS):
        cells = []
        for column in range(CROPS_PER_ROW):
            # Far apart, so that every crop shows another cast and place.
            crop = crops(128 * (row * CROPS_PER_ROW + column))
            picture = crop.image
            if row % 2:
                picture = with_joints(picture, crop.joints_px, crop.visible)
            cells.append(picture)
        rows.append(np.hstack(cells))
    scenes = SceneGenerator(library, seed, *SCENE_SIZE)
    for row in range(SCENE_ROWS):
        numbers = range(row * SCENES_PER_ROW, (row + 1) * SCENES_PER_ROW)
        rows.append(np.hstack([_scene_cell(scenes(16 * n), bool(row % 2)) for n in numbers]))
    return np.ascontiguousarray(np.vstack(rows)[..., ::-1])


def _scene_cell(picture: Picture, annotated: bool) -> Image:
    image = picture.image
    if annotated:
        for one in picture.annotations:
            x, y, w, h = (round(v) for v in one.bbox_xywh_px)
            image = with_joints(image, one.joints_px, one.visible)
            cv2.rectangle(image, (x, y), (x + w, y + h), (255, 220, 0), 1)
    return image


def with_joints(
    image: Image, joints_px: NDArray[np.floating], visible: NDArray[np.bool_]
) -> Image:
    """Draw MuCo's skeleton: green where both ends are visible, red elsewhere; a copy, RGB."""
    drawn = image.copy()
    for a, b in MUCO_21.bones:
        if np.isfinite(joints_px[[a, b]]).all():
            start, end = (tuple(int(v) for v in np.rint(joints_px[i])) for i in (a, b))
            color = (60, 230, 60) if visible[a] and visible[b] else (235, 60, 60)
            cv2.line(drawn, start, end, color, 1, cv2.LINE_AA)
    return drawn
