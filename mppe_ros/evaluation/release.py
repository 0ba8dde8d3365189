"""The reference release's files of predictions, read and written.

RootNet's files of boxes and roots are read by `datasets.boxes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import loadmat, savemat

from ..crops import process_boxes
from ..datasets import Dataset, DatasetError
from ..datasets.files import Entry, read_each, read_json
from ..skeletons import HUMAN36M_17, MUPOTS_17, Skeleton
from ..structures import FloatArray
from .matching import TruthError
from .metrics import root_relative
from .predictions import Prediction

HUMAN36M_ROOTS = "bbox_root_human36m_output.json"
HUMAN36M_POSES = "bbox_root_pose_human36m_output.json"
MUPOTS_ROOTS = "bbox_root_mupots_output.json"
MUPOTS_2D, MUPOTS_3D = "preds_2d_kpt_mupots.mat", "preds_3d_kpt_mupots.mat"
PW3D_ROOTS = "rootnet_pw3d_output.json"


@dataclass(frozen=True)
class Files:
    """Files of predictions by what is in them; None where none was given."""

    roots: Path | None = None
    poses: Path | None = None
    poses_2d: Path | None = None


def find_files(paths: Sequence[Path], known: Mapping[str, str]) -> Files:
    """Which of the given files is which.

    :param paths: files, or folders that have them by the release's names.
    :param known: the release's file names and the fields of `Files` they fill.
    :raises DatasetError: a path that is missing, or nothing of use in a folder.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            here = {field: path / name for name, field in known.items() if (path / name).is_file()}
            if not here:
                raise DatasetError(f"{path} has none of {', '.join(known)}")
            found |= here
        elif not path.is_file():
            raise DatasetError(f"{path} is missing")
        else:
            field = known.get(path.name) or _kind(path)
            if field not in known.values():
                raise DatasetError(f"{path} is none of {', '.join(known)}")
            found[field] = path
    return Files(**found)


def _kind(path: Path) -> str:
    """By content, where a file was renamed."""
    if path.suffix == ".mat":
        arrays = read_mat(path)
        return "poses_2d" if next(iter(arrays.values())).shape[-1] == 2 else "poses"
    content = read_json(path)
    has_joints = isinstance(content, list) and content and "joint_cam" in content[0]
    return "poses" if has_joints else "roots"


# --- Human3.6M -----------------------------------------------------------------------------------


class Pose(NamedTuple):
    """One person of ``bbox_root_pose_human36m_output.json``."""

    image_id: int
    joints_mm: FloatArray  # (17, 3) or (18, 3) relative to the pelvis
    root_mm: FloatArray | None  # (3,) that PoseNet was given


def read_poses(path: Path) -> list[Pose]:
    """A file of Human3.6M poses.

    :raises DatasetError: missing, broken or of another form.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise DatasetError(f"{path}: not a list of poses as the reference release writes it")

    def pose(entry: Entry) -> Pose:
        joints = np.array(entry["joint_cam"], np.float64).reshape(-1, 3)
        if len(joints) not in (17, 18):
            raise ValueError(f"{len(joints)} joints, Human3.6M has 17 (18 with the Thorax)")
        root = entry.get("root_cam")
        root_mm = None if root is None else np.array(root, np.float64).reshape(3)
        return Pose(int(entry["image_id"]), joints, root_mm)

    return list(read_each(path, "pose", content, pose))


def write_poses(
    path: Path, dataset: Dataset, predictions: Sequence[Prediction], skeleton: Skeleton
) -> None:
    """As PoseNet's test of protocol 2 does: not aligned."""
    order = skeleton.indices(HUMAN36M_17.joint_names)
    ids, boxes = _image_ids(dataset), _processed(dataset, predictions)
    _write_json(path, [
        {"image_id": ids[one.image],
         "joint_cam": root_relative(one.joints_mm, skeleton.root_index)[order].tolist(),
         "bbox": box.tolist(), "root_cam": one.root_mm.tolist()}
        for one, box in zip(predictions, boxes, strict=True)
    ])  # fmt: skip


# --- roots ---------------------------------------------------------------------------------------


def write_roots(path: Path, dataset: Dataset, predictions: Sequence[Prediction]) -> None:
    """As RootNet's test does: processed boxes, and roots in the data set's unit."""
    ids, boxes = _image_ids(dataset), _processed(dataset, predictions)
    entries: list[dict[str, Any]] = []
    for one, box in zip(predictions, boxes, strict=True):
        entry = {"image_id": ids[one.image], "bbox": box.tolist(), "score": one.score,
                 "root_cam": (one.root_mm / dataset.root_unit_mm).tolist()}  # fmt: skip
        if one.sample is not None:
            entry["ann_id"] = int(dataset.annotation_ids[one.sample])
        entries.append(entry)
    _write_json(path, entries)


def _image_ids(dataset: Dataset) -> dict[str, int]:
    return {image: int(dataset.image_ids[rows[0]]) for image, rows in dataset.by_image().items()}


def _processed(dataset: Dataset, predictions: Sequence[Prediction]) -> list[FloatArray]:
    by_image = dataset.by_image()
    boxes = []
    for one in predictions:
        camera = dataset.cameras[by_image[one.image][0]]
        boxes.append(process_boxes([one.bbox_xywh_px], camera.width, camera.height)[0][0])
    return boxes


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


# --- MuPoTS-3D -----------------------------------------------------------------------------------


class FramePrediction(NamedTuple):
    """One frame's people; J joints."""

    joints_px: FloatArray  # (P, J, 2)
    joints_mm: FloatArray  # (P, J, 3) camera frame


def read_mat(path: Path) -> dict[str, FloatArray]:
    """Arrays by frame, such as TS1_img_000000.

    :raises DatasetError: missing, broken or empty.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    try:
        content = loadmat(path)
    except Exception as error:  # scipy's reader raises all kinds of errors on broken files
        raise DatasetError(f"{path} is no .mat file ({error})") from error
    arrays = {
        name: np.asarray(value, np.float64)
        for name, value in content.items()
        if not name.startswith("__")
    }
    if not arrays:
        raise DatasetError(f"{path} has no predictions in it")
    return arrays


def read_frames(path_2d: Path, path_3d: Path) -> dict[str, FramePrediction]:
    """PoseNet's ``preds_2d_kpt_mupots.mat`` and ``preds_3d_kpt_mupots.mat``: 17 joints.

    :raises DatasetError: broken, or of different people.
    """
    flat, solid = read_mat(path_2d), read_mat(path_3d)
    if set(flat) != set(solid):
        raise DatasetError(f"{path_2d} and {path_3d} are of different frames")
    try:
        frames = {
            name: FramePrediction(flat[name].reshape(-1, 17, 2), solid[name].reshape(-1, 17, 3))
            for name in flat
        }
    except ValueError as error:
        raise DatasetError(f"{path_2d}, {path_3d}: not 17 joints in 2D and 3D") from error
    for name, frame in frames.items():
        if len(frame.joints_px) != len(frame.joints_mm):
            raise DatasetError(f"{path_2d} and {path_3d} have different people in {name}")
    return frames


def write_frames(folder: Path, frames: Mapping[str, FramePrediction], skeleton: Skeleton) -> None:
    """For the benchmark's own Matlab code.

    :raises TruthError: a joint set without MuPoTS-3D's joints.
    """
    if not set(MUPOTS_17.joint_names) <= set(skeleton.joint_names):
        raise TruthError(f"{skeleton.name} hasn't got the joints of MuPoTS-3D")
    order = skeleton.indices(MUPOTS_17.joint_names)
    some = {name: frame for name, frame in frames.items() if len(frame.joints_px)}
    savemat(folder / MUPOTS_2D, {name: frame.joints_px[:, order] for name, frame in some.items()})
    savemat(folder / MUPOTS_3D, {name: frame.joints_mm[:, order] for name, frame in some.items()})
