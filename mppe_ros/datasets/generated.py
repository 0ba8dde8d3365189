"""Generated scenes of ``mppe synth scenes``, whose layout is MuCo's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..skeletons import MUCO_21
from ..structures import Intrinsics
from .files import Entry, of_image, read_coco, read_each
from .samples import Dataset, Row


class Synthetic(Dataset):
    """People who are clear to be seen. The split is the folder's, whatever it was made as."""

    name = "synthetic"
    folder_name = "Synthetic"
    skeleton = MUCO_21
    has_depth = True
    splits = ("train", "test")

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.require_split(split)
        super().__init__(folder, split, self._rows(folder))

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        return [folder / "annotations.json"]

    def _rows(self, folder: Path) -> Iterator[Row]:
        (path,) = self.annotation_files(folder, "train")
        images, annotations = read_coco(path)
        cameras: dict[int, Intrinsics] = {}

        def row(annotation: Entry) -> Row | None:
            image = of_image(images, annotation)
            if annotation["iscrowd"]:
                return None
            lens = cameras.setdefault(image["id"], _camera(image))
            joints_mm = np.array(annotation["keypoints_cam"], np.float32).reshape(21, 3)
            return Row(
                image=image["file_name"],
                image_id=image["id"],
                annotation_id=annotation["id"],
                camera=lens,
                bbox_xywh_px=annotation["bbox"],
                joints_px=np.array(annotation["keypoints_img"], np.float32).reshape(21, 2),
                known=joints_mm[:, 2] > 0,  # those behind the camera have no place in the image
                visible=np.array(annotation["keypoints_vis"], bool).reshape(21),
                joints_mm=joints_mm,
            )

        return read_each(path, "annotation", annotations, row)


def _camera(image: Entry) -> Intrinsics:
    fx, fy, cx, cy = map(float, (*image["f"], *image["c"]))
    return Intrinsics(
        fx,
        fy,
        cx,
        cy,
        image["width"],
        image["height"],
        image.get("distortion_model", "none"),
        tuple(map(float, image.get("distortion", ()))),
    )
