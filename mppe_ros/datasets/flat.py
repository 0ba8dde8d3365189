"""Data sets of photographs with 2D joints only: MPII and MS COCO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..skeletons import COCO_19, MPII_16
from .files import Entry, assumed_camera, of_image, read_coco, read_each
from .samples import Dataset, Row


class Mpii(Dataset):
    """MPII Human Pose (Andriluka et al. 2014)."""

    name = "mpii"
    folder_name = "MPII"
    skeleton = MPII_16
    has_depth = False
    splits = ("train",)

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.require_split(split)
        (path,) = self.annotation_files(folder, split)
        images, annotations = read_coco(path)

        def row(annotation: Entry) -> Row | None:
            image = of_image(images, annotation)
            if not annotation["num_keypoints"]:
                return None
            joints = np.array(annotation["keypoints"], np.float32).reshape(16, 3)
            return _row(annotation, image, image["file_name"], joints)

        super().__init__(folder, split, read_each(path, "annotation", annotations, row))

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        return [folder / "annotations" / "train.json"]


class MsCoco(Dataset):
    """COCO 2017's people with keypoints (Lin et al. 2014), crowds left out."""

    name = "mscoco"
    folder_name = "MSCOCO"
    skeleton = COCO_19
    has_depth = False
    splits = ("train", "val")

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.require_split(split)
        super().__init__(folder, split, self._rows(folder, split))

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        return [folder / "annotations" / f"person_keypoints_{split}2017.json"]

    @classmethod
    def optional_files(cls, folder: Path) -> list[Path]:
        return [
            folder / "bbox_coco_output.json",
            folder / "bbox_root" / "bbox_root_coco_output.json",
        ]

    def _rows(self, folder: Path, split: str) -> Iterator[Row]:
        (path,) = self.annotation_files(folder, split)
        images, annotations = read_coco(path)

        def row(annotation: Entry) -> Row | None:
            image = of_image(images, annotation)
            if annotation["iscrowd"] or not annotation["num_keypoints"]:
                return None
            joints = np.array(annotation["keypoints"], np.float32).reshape(17, 3)
            joints = np.stack([*joints, *(_middle(joints, name) for name in ("Shoulder", "Hip"))])
            return _row(annotation, image, f"images/{split}2017/{image['file_name']}", joints)

        return read_each(path, "annotation", annotations, row)


def _middle(joints: np.ndarray, name: str) -> np.ndarray:
    """Of a left and a right joint, (u, v, labelled); labelled if both are."""
    left, right = joints[COCO_19.indices((f"L_{name}", f"R_{name}"))]
    return np.array([*(left[:2] + right[:2]) / 2, left[2] * right[2]], np.float32)


def _row(annotation: Entry, image: Entry, path: str, joints: np.ndarray) -> Row:
    labelled = joints[:, 2] > 0
    return Row(
        image=path,
        image_id=image["id"],
        annotation_id=annotation["id"],
        camera=assumed_camera(image["width"], image["height"]),
        bbox_xywh_px=annotation["bbox"],
        joints_px=joints[:, :2],
        known=labelled,
        visible=labelled,
    )
