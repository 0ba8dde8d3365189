"""Predicted people against true people of the same images: who was found, and how exactly.

The truth is a JSON file like the sample clip's (`read_truth`), the predictions are records with
the fields of Pose3DArray.msg. Lengths are millimetres, as in the field's tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..boxes import box_iou
from ..records import METRES_PER_MM, Record, present
from ..skeletons import LIMB_JOINTS
from ..structures import FloatArray

# A prediction and a person are the same from this overlap of their boxes on.
MATCH_IOU = 0.5

ROOT_JOINT = "Pelvis"
# Joints that all joint sets mean alike: others, such as Head, share only their name.
MEASURED_JOINTS = (ROOT_JOINT, *LIMB_JOINTS)


class TruthError(ValueError):
    """A ground truth file that cannot be used; one sentence that names it."""


@dataclass(frozen=True)
class Body:
    """One person, predicted or true."""

    bbox_xywh_px: FloatArray  # (4,)
    root_mm: FloatArray  # (3,) camera frame
    joints_mm: FloatArray  # (len(MEASURED_JOINTS), 3) camera frame; NaN where unknown


@dataclass(frozen=True)
class TrueImage:
    """Who is in one image."""

    people: tuple[Body, ...]
    ignored: tuple[Body, ...]  # hardly visible: finding or missing them says nothing


@dataclass(frozen=True)
class Match:
    """The pairing of one image's predictions and people."""

    pairs: tuple[tuple[int, int], ...]  # (prediction, person)
    false: tuple[int, ...]  # predictions of nobody, not even of somebody ignored


def read_truth(path: str | Path) -> dict[int, TrueImage]:
    """Ground truth by frame number.

    :raises TruthError: not readable, or not of the sample clip's format.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = content["joint_names"]
        return {
            int(image["frame"]): TrueImage(
                people=tuple(_true_body(person, names) for person in image["people"]),
                ignored=tuple(_true_body(person, names) for person in image.get("ignored", ())),
            )
            for image in content["images"]
        }
    except OSError as error:
        raise TruthError(f"{path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise TruthError(f"{path}: not a ground truth file ({error!r})") from error


def predicted_bodies(record: Record) -> list[Body]:
    """The people of a record with the fields of Pose3DArray.msg."""
    names = record["joint_names"]
    return [
        Body(
            bbox_xywh_px=np.array(pose["bbox"], np.float64),
            root_mm=_xyz_mm(pose["root"]["pose"]["position"]),
            joints_mm=_measured([_xyz_mm(joint["position"]) for joint in pose["joints"]], names),
        )
        for pose in present(record)
    ]


def match(predicted: Sequence[Body], truth: TrueImage) -> Match:
    """Pairs predictions with people, one to one, for the largest overlap in all."""
    overlap = _overlap(predicted, truth.people)
    # Pairs that don't count must not outweigh those that do.
    rows, columns = linear_sum_assignment(np.where(overlap >= MATCH_IOU, overlap, 0), True)
    pairs = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True)
             if overlap[i, j] >= MATCH_IOU]  # fmt: skip
    matched = {i for i, _ in pairs}
    of_ignored = np.any(_overlap(predicted, truth.ignored) >= MATCH_IOU, axis=1)
    false = [i for i in range(len(predicted)) if i not in matched and not of_ignored[i]]
    return Match(tuple(pairs), tuple(false))


@dataclass
class Scores:
    """Adds up images; `summary` gives the figures."""

    found: int = 0
    missed: int = 0
    false: int = 0
    root_errors_mm: list[float] = field(default_factory=list)
    mpjpe_mm: list[float] = field(default_factory=list)  # one per person found

    def add(self, predicted: Sequence[Body], truth: TrueImage) -> None:
        """One image's predictions and people."""
        result = match(predicted, truth)
        self.found += len(result.pairs)
        self.missed += len(truth.people) - len(result.pairs)
        self.false += len(result.false)
        for i, j in result.pairs:
            self.root_errors_mm.append(root_error_mm(predicted[i], truth.people[j]))
            self.mpjpe_mm.append(mpjpe_mm(predicted[i], truth.people[j]))

    def summary(self) -> dict[str, Any]:
        """Recall, precision and errors; None where nothing was there to measure."""
        return {
            "detection_recall": _ratio(self.found, self.found + self.missed),
            "detection_precision": _ratio(self.found, self.found + self.false),
            "root_error_mm": {
                "median": percentile(self.root_errors_mm, 50),
                "p90": percentile(self.root_errors_mm, 90),
            },
            "mpjpe_mm": {"median": percentile(self.mpjpe_mm, 50)},
        }


def root_error_mm(predicted: Body, true: Body) -> float:
    """Distance between predicted and true root."""
    return float(np.linalg.norm(predicted.root_mm - true.root_mm))


def mpjpe_mm(predicted: Body, true: Body) -> float:
    """Mean distance of the joints after moving each side's pelvis to the origin.

    Joints that either side doesn't know are left out; NaN without any or without a pelvis.
    """
    pelvis = MEASURED_JOINTS.index(ROOT_JOINT)
    difference = (predicted.joints_mm - predicted.joints_mm[pelvis]) - (
        true.joints_mm - true.joints_mm[pelvis]
    )
    errors = np.linalg.norm(difference, axis=1)
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if len(known) else float("nan")


def percentile(values: Sequence[float], percent: float) -> float | None:
    """A percentile of those values that are numbers, None without any."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.percentile(known, percent)) if known else None


def _true_body(person: dict[str, Any], names: Sequence[str]) -> Body:
    joints = _measured(np.array(person["joints_camera_mm"], np.float64), names)
    return Body(
        bbox_xywh_px=np.array(person["bbox_xywh_px"], np.float64).reshape(4),
        root_mm=joints[MEASURED_JOINTS.index(ROOT_JOINT)],
        joints_mm=joints,
    )


def _measured(joints: Sequence[FloatArray] | FloatArray, names: Sequence[str]) -> FloatArray:
    """Joints of any joint set in the order of MEASURED_JOINTS."""
    by_name = dict(zip(names, joints, strict=True))
    unknown = np.full(3, np.nan)
    return np.array([by_name.get(name, unknown) for name in MEASURED_JOINTS])


def _xyz_mm(point: Record) -> FloatArray:
    # JSON's null stands for a joint that could not be placed.
    metres = np.array([point["x"], point["y"], point["z"]], np.float64)
    return metres / METRES_PER_MM


def _overlap(predicted: Sequence[Body], people: Sequence[Body]) -> FloatArray:
    boxes = [np.array([b.bbox_xywh_px for b in bodies]).reshape(-1, 4)
             for bodies in (predicted, people)]  # fmt: skip
    return box_iou(*boxes)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
