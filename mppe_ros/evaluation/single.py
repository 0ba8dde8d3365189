"""Figures of people who are known one by one: Human3.6M's and 3DPW's (paper, section 7.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..datasets import Dataset
from ..skeletons import Skeleton
from ..structures import FloatArray
from . import metrics
from .curves import depth_errors, error_per_joint, number, pck_curve
from .joints import PELVIS, common_joints
from .matching import TruthError
from .predictions import Prediction
from .report import Column, markdown

COLUMNS = (
    Column("mpjpe_mm", "MPJPE", 1),
    Column("pa_mpjpe_mm", "PA-MPJPE", 1),
    Column("mrpe_mm", "MRPE", 1),
    Column("mrpe_x_mm", "x", 1),
    Column("mrpe_y_mm", "y", 1),
    Column("mrpe_z_mm", "z", 1),
    Column("people", "people"),
    Column("missed", "missed"),
)
_ROOT_KEYS = ("mrpe_mm", "mrpe_x_mm", "mrpe_y_mm", "mrpe_z_mm")
_KEYS = ("mpjpe_mm", "pa_mpjpe_mm", *_ROOT_KEYS)


@dataclass(frozen=True)
class Measured:
    """N people; rows are NaN where somebody was missed, whole columns where nobody measured.

    S scored joints.
    """

    groups: Sequence[str]  # (N,) action or sequence
    joint_names: Sequence[str]  # (S,)
    true_roots_mm: FloatArray  # (N, 3)
    root_errors_mm: FloatArray  # (N, 3) predicted - true
    relative_mm: FloatArray  # (N, S) joint errors, both pelvises at the origin
    aligned_mm: FloatArray  # (N, S) joint errors after rigid alignment
    absolute_mm: FloatArray  # (N, S) joint errors in the camera frame
    aligned_on: int = 0  # joints


def compare(
    dataset: Dataset,
    predictions: Sequence[Prediction | None],
    skeleton: Skeleton,
    *,
    unscored: Sequence[str] = (),
) -> Measured:
    """Estimates, one per sample, against the truth, in the joints that both have.

    :param skeleton: the predictions' joint set.
    :param unscored: joints that help to align, but aren't scored.
    :raises TruthError: too few common joints.
    """
    names = common_joints(dataset.skeleton.joint_names, skeleton.joint_names)
    if PELVIS not in names:
        raise TruthError(f"{skeleton.name} and {dataset.name} have no pelvis in common")
    joints, pelvis = dataset.skeleton.indices(names), names.index(PELVIS)
    scored = [index for index, name in enumerate(names) if name not in unscored]
    # In single precision, where the reference release subtracts too.
    true = dataset.joints_mm[:, joints]
    true_relative = true - true[:, pelvis : pelvis + 1]
    order = skeleton.indices(names)
    predicted, roots = np.full(true.shape, np.nan), np.full((len(dataset), 3), np.nan)
    for row, one in enumerate(predictions):
        if one is not None:
            predicted[row], roots[row] = one.joints_mm[order], one.root_mm
    relative = metrics.root_relative(predicted, pelvis)
    aligned = np.full(true.shape, np.nan)
    found = np.isfinite(predicted).all(axis=(1, 2))
    aligned[found] = metrics.rigid_align(relative[found], true_relative[found])

    def errors(joints_mm: FloatArray, truth: npt.ArrayLike) -> FloatArray:
        truth = np.asarray(truth, np.float64)
        return metrics.joint_errors(joints_mm[:, scored], truth[:, scored])

    return Measured(
        groups=dataset.groups,
        joint_names=[names[index] for index in scored],
        true_roots_mm=dataset.roots_mm.astype(np.float64),
        root_errors_mm=roots - dataset.roots_mm,
        relative_mm=errors(relative, true_relative),
        aligned_mm=errors(aligned, true_relative),
        absolute_mm=errors(predicted, true),
        aligned_on=len(names),
    )


def record(measured: Measured, order: Sequence[str]) -> dict[str, Any]:
    """JSON: figures over everybody and by group, and what curves are drawn from.

    :param order: of the groups.
    """
    groups = np.array(measured.groups)
    everybody = np.ones(len(groups), bool)
    return {
        **_figures(measured, everybody),
        "by": {group: _figures(measured, groups == group) for group in order if group in groups},
        "joints": list(measured.joint_names),
        "error_per_joint": error_per_joint(measured.relative_mm, measured.joint_names),
        "pck_curve": pck_curve(measured.relative_mm, measured.absolute_mm),
        "depth_error": depth_errors(measured.true_roots_mm[:, 2], measured.root_errors_mm[:, 2]),
    }


def _figures(measured: Measured, chosen: np.ndarray) -> dict[str, Any]:
    roots = _known(measured.root_errors_mm[chosen])
    mrpe = metrics.mrpe(roots, np.zeros_like(roots))
    relative, aligned = (_known(m[chosen]) for m in (measured.relative_mm, measured.aligned_mm))
    values = [_mean(relative), _mean(aligned), *mrpe]
    found = max(len(roots), len(relative), len(aligned))
    return {
        **{key: number(value) for key, value in zip(_KEYS, values, strict=True)},
        "people": int(chosen.sum()),
        "missed": int(chosen.sum()) - found,
    }


def _known(rows: FloatArray) -> FloatArray:
    return rows[np.isfinite(rows).all(axis=1)]


def _mean(errors_mm: FloatArray) -> float:
    return float(errors_mm.mean()) if errors_mm.size else float("nan")


def without_roots(result: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose roots were given: their error says nothing."""
    blank: dict[str, Any] = dict.fromkeys(_ROOT_KEYS)
    by = {name: {**one, **blank} for name, one in result["by"].items()}
    return {**result, **blank, "by": by, "depth_error": []}


def table(result: Mapping[str, Any]) -> str:
    """Markdown of a `record`."""
    return markdown({"all": result, **result["by"]}, COLUMNS)
