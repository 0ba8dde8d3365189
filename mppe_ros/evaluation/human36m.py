"""Human3.6M's protocols 1 and 2 (paper, section 7.1; docs/evaluation.md).

Test subjects and every 64th frame are chosen by `datasets.human36m`. Protocol 1's figure is
PA-MPJPE, aligned on all joints that both sides have, the Thorax included, which isn't scored;
protocol 2's is MPJPE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..datasets.boxes import BoxFile
from ..datasets.human36m import ACTIONS
from ..skeletons import HUMAN36M_17, Skeleton
from ..structures import FloatArray
from . import metrics, single
from .matching import TruthError
from .predictions import Prediction
from .release import Pose
from .single import Measured

METRICS = {1: "pa_mpjpe_mm", 2: "mpjpe_mm"}
_UNSCORED = ("Thorax",)
_SAME_MM = 0.01


def measure(dataset: Dataset, predictions: Iterable[Prediction], skeleton: Skeleton) -> Measured:
    """The pipeline's predictions: of several in an image, the one with the best score."""
    best: dict[str, Prediction] = {}
    for one in predictions:
        if one.image not in best or one.score > best[one.image].score:
            best[one.image] = one
    chosen = [best.get(image) for image in dataset.image_names]
    return single.compare(dataset, chosen, skeleton, unscored=_UNSCORED)


def measure_files(
    dataset: Dataset, poses: Sequence[Pose] | None, roots: BoxFile | None
) -> tuple[Measured, dict[str, Any]]:
    """The reference release's predictions.

    :return: and how they differ from the protocol as it is, by name.
    :raises TruthError: nothing in them is of this data set, or poses aligned for some only.
    """
    count = len(dataset)
    unknown = np.full((count, 17), np.nan)
    measured = Measured(
        groups=dataset.groups,
        joint_names=HUMAN36M_17.joint_names,
        true_roots_mm=dataset.roots_mm.astype(np.float64),
        root_errors_mm=np.full((count, 3), np.nan),
        relative_mm=unknown,
        aligned_mm=unknown,
        absolute_mm=unknown,
    )
    variant: dict[str, Any] = {}
    if poses is not None:
        measured, variant = _with_poses(measured, dataset, poses)
    if roots is not None:
        by_id = {box.image_id: box.root for box in roots.boxes}
        errors = _root_errors(dataset, [by_id.get(int(number)) for number in dataset.image_ids])
        if not np.isfinite(errors).any():
            raise TruthError(f"{roots.path}: none of its roots is of an image of this protocol")
        measured = replace(measured, root_errors_mm=errors)
        variant["roots"] = roots.path.name
    return measured, variant


def _with_poses(
    measured: Measured, dataset: Dataset, poses: Sequence[Pose]
) -> tuple[Measured, dict[str, Any]]:
    by_id = {pose.image_id: pose for pose in poses}
    found = [by_id.get(int(number)) for number in dataset.image_ids]
    rows = [row for row, pose in enumerate(found) if pose is not None]
    if not rows:
        raise TruthError("none of the predicted poses is of an image of this protocol")
    given = [pose for pose in found if pose is not None]
    if len({len(pose.joints_mm) for pose in given}) > 1:
        raise TruthError("some of the predicted poses have 17 joints, some 18")
    predicted = np.array([pose.joints_mm for pose in given])
    # In single precision, as the reference release subtracts.
    true = dataset.joints_mm[rows, : predicted.shape[1]]
    true = true - true[:, :1]
    # A test of protocol 2 writes poses that begin with the pelvis at 0; one of protocol 1 writes
    # them turned onto the truth, where the pelvis ends up somewhere.
    unaligned = (predicted[:, 0] == 0).all(axis=1)
    if unaligned.any() != unaligned.all():
        raise TruthError("some of the predicted poses are aligned with the truth, some aren't")
    variant: dict[str, Any] = {"poses": "the reference release's file"}
    aligned, relative = predicted, np.full_like(predicted, np.nan)
    if unaligned.all():
        relative, aligned = predicted, metrics.rigid_align(predicted, true)
        variant["aligned_on_joints"] = predicted.shape[1]
    else:
        variant["aligned_on_joints"] = "as in the file, which has no MPJPE"
    errors = [np.full((len(dataset), 17), np.nan) for _ in range(2)]
    for values, joints in zip(errors, (relative, aligned), strict=True):
        values[rows] = metrics.joint_errors(joints, true)[:, :17]
    roots = _root_errors(dataset, [None if pose is None else pose.root_mm for pose in found])
    if not (np.abs(roots[np.isfinite(roots)]) > _SAME_MM).any():
        roots[:] = np.nan
        variant["roots"] = "truth"
    return replace(
        measured, relative_mm=errors[0], aligned_mm=errors[1], root_errors_mm=roots
    ), variant


def _root_errors(dataset: Dataset, roots_mm: Sequence[FloatArray | None]) -> FloatArray:
    errors = np.full((len(dataset), 3), np.nan)
    for row, root in enumerate(roots_mm):
        if root is not None:
            errors[row] = root - dataset.roots_mm[row]
    return errors


def record(measured: Measured, protocol: int) -> dict[str, Any]:
    """JSON: the protocol's metric by name, all figures, and those of each action."""
    return {
        "dataset": "human36m",
        "protocol": protocol,
        "metric": METRICS[protocol],
        **single.record(measured, ACTIONS),
    }
