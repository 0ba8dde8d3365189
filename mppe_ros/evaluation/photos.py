"""Figures on photographs: pose, root and detection against known people.

Each method is measured on the given boxes; the pipeline also with its own detector. Protocols
and keys are described in docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..media import Rgb
from ..pipeline import Pipeline
from ..skeletons import LIMB_JOINTS, Skeleton
from ..structures import FloatArray, Person
from . import metrics
from .joints import PELVIS, common_joints
from .methods import BoxMethod, OnGivenBoxes, boxes_of, pair_by_boxes
from .report import Column, Tally, markdown
from .truth import Photo, PhotoSet, TruePerson

# Smaller people don't count in the detection figures that the targets are about.
TALL_PX = 60.0

POSE_KEYS = (
    "mpjpe12_mm", "mpjpe_mm", "pa_mpjpe_mm", "root_error_mm", "root_error_pct", "pck10", "pck20",
)  # fmt: skip
DETECTION_KEYS = ("detection_recall", "detection_precision")  # people taller than TALL_PX
ALL_SIZES_KEYS = tuple(f"{key}_all_sizes" for key in DETECTION_KEYS)

GIVEN, DETECTED, BLAZEPOSE = "given boxes", "detected", "blazepose"

_COLUMNS = (
    Column("mpjpe12_mm", "MPJPE 12 limbs"),
    Column("mpjpe_mm", "MPJPE"),
    Column("pa_mpjpe_mm", "PA-MPJPE"),
    Column("root_error_mm", "root mm"),
    Column("root_error_pct", "root %", 1),
    Column("pck10", "PCK@0.1", 2),
    Column("pck20", "PCK@0.2", 2),
    Column("detection_recall", "recall", 2),
    Column("detection_precision", "precision", 2),
)

Seen = Callable[[PhotoSet, Photo, Rgb, Sequence[Person]], None]


@dataclass
class Result:
    """One set's or all sets' figures, by method."""

    tallies: dict[str, Tally] = field(default_factory=dict)

    def of(self, method: str) -> Tally:
        """The figures of GIVEN, DETECTED or BLAZEPOSE."""
        return self.tallies.setdefault(method, Tally())

    def merge(self, other: Result) -> None:
        """Another set's people too."""
        for method, tally in other.tallies.items():
            self.of(method).merge(tally)

    def record(self) -> dict[str, Any]:
        """JSON: the given boxes' figures, and those of detected boxes and BlazePose below."""
        keys = (*POSE_KEYS, *DETECTION_KEYS, *ALL_SIZES_KEYS)
        # Detection doesn't depend on the boxes that pose is measured on.
        whole = Tally()
        whole.merge(self.of(GIVEN))
        detection = self.of(DETECTED).values
        whole.merge(Tally({k: v for k, v in detection.items() if k not in POSE_KEYS}))
        record = whole.summary(keys)
        record["detected"] = self.of(DETECTED).summary(POSE_KEYS)
        if BLAZEPOSE in self.tallies:
            record["blazepose"] = self.of(BLAZEPOSE).summary(keys)
        return record


@dataclass(frozen=True)
class Evaluation:
    """What is measured with what."""

    pipeline: Pipeline
    blazepose: BoxMethod | None = None

    def __call__(
        self, sets: Iterable[PhotoSet], seen: Seen = lambda *_: None
    ) -> dict[str, Result]:
        """Results by the sets' names.

        :param seen: receives every photo with the people estimated in the given boxes.
        :raises MediaError, TruthError: photographs that don't fit their lists.
        """
        return {one.name: self._measure(one, seen) for one in sets}

    def _measure(self, photo_set: PhotoSet, seen: Seen) -> Result:
        result = Result()
        by_box: dict[str, BoxMethod] = {GIVEN: OnGivenBoxes(self.pipeline)}
        if self.blazepose is not None:
            by_box[BLAZEPOSE] = self.blazepose
        for photo, rgb in photo_set.pictures():
            for name, method in by_box.items():
                people = method(rgb, photo.intrinsics, boxes_of(photo.people))
                self._add(result.of(name), people, method.skeleton, photo, photo_set)
                if name == GIVEN:
                    seen(photo_set, photo, rgb, [one for one in people if one is not None])
            self._detect(result.of(DETECTED), photo, rgb, photo_set)
        return result

    def _detect(self, tally: Tally, photo: Photo, rgb: Rgb, photo_set: PhotoSet) -> None:
        found = self.pipeline([rgb], [photo.intrinsics])[0]
        pairing = pair_by_boxes(found, photo)
        shown = {person: found[index] for index, person in pairing.pairs}
        people = [shown.get(index) for index in range(len(photo.people))]
        self._add(tally, people, self.pipeline.skeleton, photo, photo_set)
        for person, one in zip(photo.people, people, strict=True):
            tally.add(_detection_scores(0, one is not None, person.height_px))
        for index in shown:
            tally.add(_detection_scores(1, True, photo.people[index].height_px))
        for index in pairing.false:
            tally.add(_detection_scores(1, False, float(found[index].bbox_xywh_px[3])))

    @staticmethod
    def _add(
        tally: Tally,
        people: Sequence[Person | None],
        skeleton: Skeleton,
        photo: Photo,
        photo_set: PhotoSet,
    ) -> None:
        for person, truth in zip(people, photo.people, strict=True):
            tally.add(score_person(person, skeleton, truth, photo_set.joint_names))


def _detection_scores(which: int, right: bool, height_px: float) -> dict[str, float]:
    """One person's share in the recall (0), or one detection's in the precision (1)."""
    scores = {ALL_SIZES_KEYS[which]: float(right)}
    if height_px > TALL_PX:
        scores[DETECTION_KEYS[which]] = float(right)
    return scores


def score_person(
    person: Person | None, skeleton: Skeleton, truth: TruePerson, truth_names: Sequence[str]
) -> dict[str, float]:
    """One person's figures, without those that it has no truth for.

    :param person: the estimate; None if nobody was found: nothing in mm, and PCK 0.
    """
    if np.isfinite(truth.joints_mm).any():
        return {} if person is None else _score_3d(person, skeleton, truth, truth_names)
    return _score_2d(person, skeleton, truth, truth_names)


def _score_3d(
    person: Person, skeleton: Skeleton, truth: TruePerson, truth_names: Sequence[str]
) -> dict[str, float]:
    known = set(_known(truth.joints_mm, truth_names)) & set(
        _known(person.joints_mm, skeleton.joint_names)
    )
    common = [n for n in common_joints(truth_names, skeleton.joint_names) if n in known]
    if PELVIS not in common:
        return {}
    predicted = person.joints_mm[skeleton.indices(common)]
    true = truth.joints_mm[[truth_names.index(name) for name in common]]
    root = common.index(PELVIS)
    errors = metrics.joint_errors(
        metrics.root_relative(predicted, root), metrics.root_relative(true, root)
    )
    limbs = [index for index, name in enumerate(common) if name in LIMB_JOINTS]
    root_error = float(metrics.joint_errors(person.root_mm, true[root]))
    return {
        "mpjpe12_mm": float(errors[limbs].mean()) if limbs else float("nan"),
        "mpjpe_mm": float(errors.mean()),
        "pa_mpjpe_mm": float(metrics.pa_mpjpe(predicted, true)),
        "root_error_mm": root_error,
        "root_error_pct": 100 * root_error / float(true[root, 2]),
    }


def _score_2d(
    person: Person | None, skeleton: Skeleton, truth: TruePerson, truth_names: Sequence[str]
) -> dict[str, float]:
    labelled = [name for name in _known(truth.joints_px, truth_names) if name in LIMB_JOINTS]
    if not labelled:
        return {}
    if person is None:
        return {"pck10": 0.0, "pck20": 0.0}
    predicted = person.joints_px[skeleton.indices(labelled)]
    true = truth.joints_px[[truth_names.index(name) for name in labelled]]
    return {
        "pck10": metrics.pck(predicted, true, truth.bbox_xywh_px, 0.1),
        "pck20": metrics.pck(predicted, true, truth.bbox_xywh_px, 0.2),
    }


def _known(joints: FloatArray, names: Sequence[str]) -> list[str]:
    return [n for n, joint in zip(names, joints, strict=True) if np.isfinite(joint).all()]


def total(results: dict[str, Result]) -> Result:
    """All sets as one."""
    whole = Result()
    for result in results.values():
        whole.merge(result)
    return whole


def record(results: dict[str, Result]) -> dict[str, Any]:
    """JSON: the figures over all people, and under "sets" those of each set."""
    sets = {name: result.record() for name, result in results.items()}
    return {**total(results).record(), "sets": sets}


def table(results: dict[str, Result]) -> str:
    """Markdown: a row per set and method, and how many people are behind each figure."""
    rows = {}
    everything = {**results, **({"all": total(results)} if len(results) > 1 else {})}
    for name, result in everything.items():
        for method, tally in result.tallies.items():
            keys = [column.key for column in _COLUMNS]
            rows[f"{name}, {method}"] = tally.summary(keys)
    return markdown(rows, _COLUMNS)
