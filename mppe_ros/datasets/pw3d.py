"""3DPW (von Marcard et al. 2018): people outdoors, SMPL's joints, moving camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..camera import project
from ..skeletons import SMPL_24
from .files import Entry, camera, of_image, read_coco, read_each
from .samples import Dataset, Row

_MM_PER_M = 1000.0


class Pw3d(Dataset):
    """Joints are in metres in the files, in mm here."""

    name = "3dpw"
    folder_name = "PW3D"
    skeleton = SMPL_24
    has_depth = True
    splits = ("train", "validation", "test")
    root_unit_mm = _MM_PER_M

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.require_split(split)
        super().__init__(folder, split, self._rows(folder, split))

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        return [folder / "data" / f"3DPW_{split}.json"]

    def _rows(self, folder: Path, split: str) -> Iterator[Row]:
        (path,) = self.annotation_files(folder, split)
        images, annotations = read_coco(path)
        # The reference release's README has the images beside data/, its loader inside.
        inside = (folder / "data" / "imageFiles").is_dir()
        image_folder = "data/imageFiles" if inside else "imageFiles"

        def row(annotation: Entry) -> Row:
            image = of_image(images, annotation)
            width, height = image["width"], image["height"]
            lens = {
                key: np.array(image["cam_param"][key], np.float32).reshape(2)
                for key in ("focal", "princpt")
            }
            intrinsics = camera(*map(float, (*lens["focal"], *lens["princpt"])), width, height)
            joints_m = np.array(annotation["joint_cam"], np.float32).reshape(24, 3)
            joints_mm = joints_m.astype(np.float64) * _MM_PER_M
            pixels = project(joints_mm, intrinsics)
            return Row(
                image=f"{image_folder}/{image['sequence']}/{image['file_name']}",
                image_id=image["id"],
                annotation_id=annotation["id"],
                camera=intrinsics,
                bbox_xywh_px=annotation["bbox"],
                joints_px=pixels,
                known=np.ones(24),
                visible=((pixels >= 0) & (pixels < (width, height))).all(axis=1),
                joints_mm=joints_mm,
                group=image["sequence"],
            )

        return read_each(path, "annotation", annotations, row)
