"""MuCo-3DHP (Mehta et al. 2018): composited people, training only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..skeletons import MUCO_21
from ..structures import FloatArray
from .files import Entry, camera, of_image, read_coco, read_each
from .samples import Dataset, Row

# People this near to somebody, as seen from the camera, are left out unless they are in front.
_APART_MM = 500.0
ROOT_DEPTH_MM = (1500.0, 7500.0)  # RootNet's training takes roots in this range only


class MuCo(Dataset):
    """The person nearest to the camera, and everybody who stands apart from all others.

    :param root_depth_mm: least and greatest root depth; RootNet is trained with `ROOT_DEPTH_MM`,
        PoseNet with everybody.
    """

    name = "muco"
    folder_name = "MuCo"
    skeleton = MUCO_21
    has_depth = True
    splits = ("train",)

    def __init__(
        self,
        folder: Path,
        split: str = "train",
        root_depth_mm: tuple[float, float] = (0.0, float("inf")),
    ) -> None:
        self.require_split(split)
        self.root_depth_mm = root_depth_mm
        super().__init__(folder, split, self._rows(folder))

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        return [folder / "data" / "MuCo-3DHP.json"]

    def _rows(self, folder: Path) -> Iterator[Row]:
        (path,) = self.annotation_files(folder, "train")
        images, annotations = read_coco(path)
        parsed = read_each(path, "annotation", annotations, lambda one: _row(images, one))
        by_image: dict[int, list[Row]] = {}
        for row in parsed:
            by_image.setdefault(row.image_id, []).append(row)
        low, high = self.root_depth_mm
        for image in images:
            people = by_image.get(image, [])
            roots = np.array([np.asarray(row.joints_mm)[MUCO_21.root_index] for row in people])
            for index in apart(roots.reshape(-1, 3)):
                if low <= roots[index, 2] <= high:
                    yield people[index]


def apart(roots_mm: FloatArray) -> Sequence[int]:
    """Whom of an image's people (N, 3) training takes: the nearest, then those apart."""
    if len(roots_mm) == 0:
        return ()
    nearest = int(roots_mm[:, 2].argmin())
    difference = roots_mm[:, None] - roots_mm[None]
    across = np.linalg.norm(difference[..., :2], axis=-1)
    across[np.diag_indices(len(across))] = np.inf
    # The distance in space is at least the one across, so that this is the only condition.
    alone = (across >= _APART_MM).all(axis=1)
    return (nearest, *(i for i in range(len(roots_mm)) if alone[i] and i != nearest))


def _row(images: dict[int, Entry], annotation: Entry) -> Row:
    image = of_image(images, annotation)
    return Row(
        image=f"data/{image['file_name']}",
        image_id=image["id"],
        annotation_id=annotation["id"],
        camera=camera(*image["f"], *image["c"], image["width"], image["height"]),
        bbox_xywh_px=annotation["bbox"],
        joints_px=np.array(annotation["keypoints_img"], np.float32).reshape(21, 2),
        known=np.ones(21),
        visible=np.array(annotation["keypoints_vis"], bool).reshape(21),
        joints_mm=np.array(annotation["keypoints_cam"], np.float32).reshape(21, 3),
    )
