"""The reference release's files of boxes: DetectNet's, and RootNet's with roots.

DetectNet's (``bbox_*_output.json``) hold boxes as detected. RootNet's
(``bbox_root_*_output.json``, ``rootnet_pw3d_output.json``) hold boxes that are square and enlarged
already, to be cropped as they are: enlarging them again ruins the depth (paper, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..structures import FloatArray
from .files import DatasetError, Entry, read_each, read_json


@dataclass(frozen=True)
class Box:
    """One entry."""

    image_id: int
    bbox_xywh_px: FloatArray  # (4,)
    score: float  # 1 where the file has none
    annotation_id: int | None  # 3DPW's files say whom they mean
    root: FloatArray | None  # (3,) camera frame, in the data set's unit


@dataclass(frozen=True)
class BoxFile:
    """The entries of a file, in its order."""

    path: Path
    boxes: tuple[Box, ...]

    @property
    def has_roots(self) -> bool:
        """RootNet's: boxes are processed already."""
        return all(box.root is not None for box in self.boxes)


def read_boxes(path: Path) -> BoxFile:
    """A file of either kind.

    :raises DatasetError: missing, broken, empty, or of another form.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise DatasetError(f"{path}: not a list of boxes as the reference release writes it")
    numbered = (
        {**one, "id": i} if isinstance(one, dict) else one for i, one in enumerate(content)
    )
    file = BoxFile(path, tuple(read_each(path, "box", numbered, _box)))
    if not file.has_roots and any(box.root is not None for box in file.boxes):
        raise DatasetError(f"{path}: some boxes have a root_cam, some have none")
    return file


def _box(entry: Entry) -> Box:
    root, annotation = entry.get("root_cam"), entry.get("ann_id")
    return Box(
        image_id=int(entry["image_id"]),
        bbox_xywh_px=np.array(entry["bbox"], np.float64).reshape(4),
        score=float(entry.get("score", 1.0)),
        annotation_id=None if annotation is None else int(annotation),
        root=None if root is None else np.array(root, np.float64).reshape(3),
    )
