"""Human3.6M (Ionescu et al. 2014), by the two protocols of the paper (section 7.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..skeletons import HUMAN36M_18
from .files import DatasetError, Entry, camera, of_image, read_coco, read_each, read_json
from .samples import Dataset, Row

# From 2 on, as in the names of the images: act_02 is Directions.
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
_FIRST_ACTION = 2

SUBJECTS = {
    (1, "train"): (1, 5, 6, 7, 8, 9),
    (1, "test"): (11,),
    (2, "train"): (1, 5, 6, 7, 8),
    (2, "test"): (9, 11),
}
EVERY = {"train": 5, "test": 64}  # each n-th frame

_SHOULDERS = HUMAN36M_18.indices(("L_Shoulder", "R_Shoulder"))
_Float32 = npt.NDArray[np.float32]


class Human36M(Dataset):
    """Joints are the 17 annotated and the Thorax, the middle of the shoulders.

    Like the reference release's, the arithmetic is in single precision.

    :param protocol: 1 or 2, which subjects train and which test.
    :param every: each n-th frame; the protocol's by default.
    """

    name = "human36m"
    folder_name = "Human36M"
    skeleton = HUMAN36M_18
    has_depth = True
    splits = ("train", "test")

    def __init__(
        self, folder: Path, split: str = "train", protocol: int = 2, every: int | None = None
    ) -> None:
        self.require_split(split)
        if (protocol, split) not in SUBJECTS:
            raise DatasetError(f"Human3.6M has protocols 1 and 2, not {protocol}")
        self.protocol, self.every = protocol, every or EVERY[split]
        rows = (
            row
            for subject in SUBJECTS[protocol, split]
            for row in self._subject(folder / "annotations", subject)
        )
        super().__init__(folder, split, rows)

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        return [
            _file(folder / "annotations", subject, kind)
            for subject in SUBJECTS[1, split]
            for kind in ("data", "camera", "joint_3d")
        ]

    @classmethod
    def optional_files(cls, folder: Path) -> list[Path]:
        return [
            folder / "bbox" / "bbox_human36m_output.json",
            folder / "bbox_root" / "bbox_root_human36m_output.json",
        ]

    @classmethod
    def open_whole(cls, folder: Path, split: str) -> Dataset:
        return cls(folder, split, protocol=1)

    def _subject(self, folder: Path, subject: int) -> Iterator[Row]:
        # One subject after the other: the files are hundreds of megabytes each.
        path = _file(folder, subject, "data")
        images, annotations = read_coco(path)
        cameras = _cameras(_file(folder, subject, "camera"))
        joints = read_json(_file(folder, subject, "joint_3d"))

        def row(annotation: Entry) -> Row | None:
            image = of_image(images, annotation)
            if image["frame_idx"] % self.every or image["subject"] != subject:
                return None
            return _row(annotation, image, cameras, joints)

        return read_each(path, "annotation", annotations, row)


def _file(folder: Path, subject: int, kind: str) -> Path:
    return folder / f"Human36M_subject{subject}_{kind}.json"


def _cameras(path: Path) -> dict[str, dict[str, _Float32]]:
    """R (3, 3), t (3,), f and c (2,) by the camera's number."""
    content = read_json(path)

    def one(entry: Entry) -> tuple[str, dict[str, _Float32]]:
        shapes = {"R": (3, 3), "t": (3,), "f": (2,), "c": (2,)}
        return entry["id"], {
            key: np.array(entry[key], np.float32).reshape(shape) for key, shape in shapes.items()
        }

    if not isinstance(content, dict):
        raise DatasetError(f"{path}: not a set of cameras by number")
    return dict(read_each(path, "camera", ({**v, "id": k} for k, v in content.items()), one))


def _row(
    annotation: Entry, image: Entry, cameras: dict[str, dict[str, _Float32]], joints: Any
) -> Row:
    lens = cameras.get(str(image["cam_idx"]))
    if lens is None:
        raise ValueError(f"no camera {image['cam_idx']} in the subject's _camera.json")
    world_mm = np.array(_of_frame(joints, image), np.float32).reshape(17, 3)
    world_mm = np.concatenate([world_mm, world_mm[_SHOULDERS].sum(0, keepdims=True) * 0.5])
    joints_mm, root_mm = (_to_camera(points, lens) for points in (world_mm, world_mm[:1]))
    pixels = joints_mm[:, :2] / joints_mm[:, 2:] * lens["f"] + lens["c"]
    visible = np.array(annotation["keypoints_vis"], bool).reshape(17)
    return Row(
        image=f"images/{image['file_name']}",
        image_id=image["id"],
        annotation_id=annotation["id"],
        camera=camera(*map(float, (*lens["f"], *lens["c"])), image["width"], image["height"]),
        bbox_xywh_px=annotation["bbox"],
        joints_px=pixels,
        known=np.ones(18),
        visible=np.append(visible, visible[_SHOULDERS].all()),
        joints_mm=joints_mm,
        root_mm=root_mm[0],  # on its own: single precision sums differently in a batch
        group=ACTIONS[image["action_idx"] - _FIRST_ACTION],
    )


def _of_frame(joints: Any, image: Entry) -> Any:
    keys = [str(image[key]) for key in ("action_idx", "subaction_idx", "frame_idx")]
    for key in keys:
        joints = joints.get(key) if isinstance(joints, dict) else None
    if joints is None:
        raise ValueError(f"no joints of action/subaction/frame {'/'.join(keys)} in _joint_3d.json")
    return joints


def _to_camera(world_mm: _Float32, lens: dict[str, _Float32]) -> _Float32:
    return np.asarray(np.dot(lens["R"], world_mm.T).T + lens["t"], np.float32)
