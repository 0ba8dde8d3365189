"""MuPoTS-3D: 3DPCK of 20 sequences (Mehta et al. 2018), and AP_25^root (paper, section 7.1).

The headline figures are the plain means of the sequences' figures. The truth of 3DPCK is the
benchmark's ``univ_annot3``, that of the roots the reference release's JSON.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..datasets.boxes import BoxFile
from ..datasets.mupots import SEQUENCES, TrueFrame, sequence_truth
from ..skeletons import MUPOTS_17, Skeleton
from ..structures import FloatArray
from . import metrics
from .curves import depth_errors, error_per_joint, number, pck_curve
from .joints import PELVIS, common_joints
from .matching import TruthError
from .metrics import NOBODY, RootsOfImage
from .predictions import Prediction
from .release import FramePrediction
from .report import Column, markdown

ROOT_THRESHOLD_MM = 250.0

_KEYS = ("pck3d_rel", "pck3d_abs", "pck3d_rel_matched", "pck3d_abs_matched", "auc", "auc_abs")
COLUMNS = (
    Column("pck3d_rel", "3DPCK rel", 1),
    Column("pck3d_abs", "abs", 1),
    Column("pck3d_rel_matched", "rel, matched", 1),
    Column("pck3d_abs_matched", "abs, matched", 1),
    Column("auc", "AUC rel", 1),
    Column("auc_abs", "AUC abs", 1),
    Column("ap_root_25", "AP_25^root", 1),
    Column("people", "people"),
    Column("matched", "matched"),
)


@dataclass(frozen=True)
class SequenceErrors:
    """The valid people of a sequence: S joint errors each, inf where nobody was matched."""

    relative_mm: FloatArray  # (N, S)
    absolute_mm: FloatArray  # (N, S)
    true_depth_mm: FloatArray  # (N,) of the pelvis
    depth_error_mm: FloatArray  # (N,) NaN where nobody was matched


# --- 3DPCK ---------------------------------------------------------------------------------------


def frame_name(image: str) -> str:
    """An image's name in the release's predictions: TS1_img_000000."""
    path = Path(image)
    return f"{path.parent.name}_{path.stem}"


def frames_of(predictions: Iterable[Prediction]) -> dict[str, FramePrediction]:
    """The pipeline's predictions by frame."""
    by_frame: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        by_frame[frame_name(one.image)].append(one)
    return {
        name: FramePrediction(
            np.array([one.joints_px for one in people]),
            np.array([one.joints_mm for one in people]),
        )
        for name, people in by_frame.items()
    }


def measure_pck(
    dataset: Dataset, frames: Mapping[str, FramePrediction], skeleton: Skeleton
) -> tuple[dict[str, SequenceErrors], list[str]]:
    """Each sequence's errors, and the names of the scored joints.

    A frame that ``frames`` hasn't got has nobody predicted.

    :param dataset: whose images are measured; sequences without any are left out.
    :raises DatasetError: an ``annot.mat`` that is missing or broken.
    :raises TruthError: ``frames`` and the data set have no frame in common.
    """
    names = common_joints(MUPOTS_17.joint_names, skeleton.joint_names)
    if PELVIS not in names:
        raise TruthError(f"{skeleton.name} has no pelvis")
    wanted = {frame_name(image) for image in dataset.by_image()}
    if frames and not wanted & set(frames):
        raise TruthError("none of the predictions is of a frame of MuPoTS-3D with people")
    compare = _Comparison(names, skeleton)
    sequences = {}
    for sequence in SEQUENCES:
        if sequence in dataset.groups:
            truth = [f for f in sequence_truth(dataset.folder, sequence) if f.name in wanted]
            sequences[sequence] = compare.sequence(truth, frames)
    return sequences, [name for name in names if name in metrics.PCK3D_SCORED]


class _Comparison:
    """True and predicted frames in their common joints."""

    def __init__(self, names: Sequence[str], skeleton: Skeleton) -> None:
        self._names = names
        self._true, self._predicted = MUPOTS_17.indices(names), skeleton.indices(names)
        self._paired = [i for i, name in enumerate(names) if name in metrics.PCK3D_MATCHED]
        self._pelvis = names.index(PELVIS)

    def sequence(
        self, truth: Sequence[TrueFrame], frames: Mapping[str, FramePrediction]
    ) -> SequenceErrors:
        parts = [self._frame(frame, frames.get(frame.name)) for frame in truth]
        parts = [part for part in parts if len(part.true_depth_mm)]
        if not parts:
            raise TruthError("a sequence of MuPoTS-3D without a valid person")
        return SequenceErrors(*(
            np.concatenate([getattr(part, name) for part in parts])
            for name in SequenceErrors.__dataclass_fields__
        ))  # fmt: skip

    def _frame(self, truth: TrueFrame, found: FramePrediction | None) -> SequenceErrors:
        true_px, true_mm = truth.joints_px[:, self._true], truth.joints_mm[:, self._true]
        if found is None or len(found.joints_px) == 0:
            predicted_px, predicted_mm = np.empty((0, *true_px.shape[1:])), true_mm[:0]
        else:
            predicted_px = found.joints_px[:, self._predicted]
            predicted_mm = found.joints_mm[:, self._predicted]
        pairs = metrics.match_by_joints(predicted_px[:, self._paired], true_px[:, self._paired])
        relative, absolute = (
            metrics.pck3d_errors(predicted_mm, true_mm, pairs, self._names, relative=relative)
            for relative in (True, False)
        )
        depth = true_mm[:, self._pelvis, 2]
        error = np.full(len(depth), np.nan)
        matched = pairs != NOBODY
        error[matched] = predicted_mm[pairs[matched], self._pelvis, 2] - depth[matched]
        return SequenceErrors(relative, absolute, depth, error)


# --- roots ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Root:
    """One predicted root."""

    image_id: int
    score: float
    root_mm: FloatArray  # (3,)


def roots_of(predictions: Iterable[Prediction], dataset: Dataset) -> list[Root]:
    """The pipeline's."""
    ids = {image: int(dataset.image_ids[rows[0]]) for image, rows in dataset.by_image().items()}
    return [Root(ids[one.image], one.score, one.root_mm) for one in predictions]


def roots_of_file(file: BoxFile) -> list[Root]:
    """RootNet's ``bbox_root_mupots_output.json``.

    :raises TruthError: its boxes have no roots.
    """
    if not file.has_roots:
        raise TruthError(f"{file.path} has boxes without root_cam: DetectNet's, not RootNet's?")
    return [Root(box.image_id, box.score, box.root) for box in file.boxes if box.root is not None]


def average_precision(dataset: Dataset, roots: Sequence[Root]) -> float:
    """AP_25^root, per cent. Of equal scores, the first in order counts as the better one."""
    order = sorted(range(len(roots)), key=lambda index: -roots[index].score)
    rank = np.empty(len(roots))
    rank[order] = np.arange(len(roots))
    of_image: dict[int, list[int]] = defaultdict(list)
    for index, root in enumerate(roots):
        of_image[root.image_id].append(index)
    images = []
    for rows in dataset.by_image().values():
        found = of_image.get(int(dataset.image_ids[rows[0]]), [])
        images.append(RootsOfImage(
            scores=-rank[found],
            predicted_mm=np.array([roots[index].root_mm for index in found]).reshape(-1, 3),
            true_mm=dataset.roots_mm[rows].astype(np.float64),
        ))  # fmt: skip
    return metrics.average_precision_root(images, ROOT_THRESHOLD_MM)


# --- figures -------------------------------------------------------------------------------------


def record(
    sequences: Mapping[str, SequenceErrors], joints: Sequence[str], ap_root_25: float | None
) -> dict[str, Any]:
    """JSON: means of the sequences, each sequence, and what curves are drawn from.

    :param sequences, joints: of `measure_pck`; empty if only roots were measured.
    :param ap_root_25: None if no roots were.
    """
    by = {name: _figures(errors) for name, errors in sequences.items()}
    means = {key: _mean_of([one[key] for one in by.values()]) for key in _KEYS}
    counts = {key: sum(one[key] for one in by.values()) for key in ("people", "matched")}
    result = {"dataset": "mupots", **means, "ap_root_25": ap_root_25, **counts,
              "by": by, "joints": list(joints)}  # fmt: skip
    if sequences:
        relative, absolute, depth, error = (
            np.concatenate([getattr(one, name) for one in sequences.values()])
            for name in SequenceErrors.__dataclass_fields__
        )
        result |= {
            "error_per_joint": error_per_joint(relative, joints),
            "pck_curve": pck_curve(relative, absolute),
            "depth_error": depth_errors(depth, error),
        }
    return result


def _figures(errors: SequenceErrors) -> dict[str, Any]:
    matched: metrics.BoolArray = np.asarray(np.isfinite(errors.relative_mm).all(axis=1))
    values = (
        metrics.pck3d(errors.relative_mm),
        metrics.pck3d(errors.absolute_mm),
        metrics.pck3d(errors.relative_mm[matched]),
        metrics.pck3d(errors.absolute_mm[matched]),
        metrics.auc3d(errors.relative_mm),
        metrics.auc3d(errors.absolute_mm),
    )
    return {
        **{key: number(value) for key, value in zip(_KEYS, values, strict=True)},
        "people": len(matched),
        "matched": int(matched.sum()),
    }


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table(result: Mapping[str, Any]) -> str:
    """Markdown of a `record`: a row per sequence."""
    return markdown({"mean": result, **result["by"]}, COLUMNS)
