"""Figures, each with the number of people behind it, as JSON, Markdown tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import drawing, records
from ..media import Rgb
from ..skeletons import Skeleton
from ..structures import JointStatus, Person
from .joints import LIMBS_13, PELVIS, in_order
from .truth import Photo, TruePerson


@dataclass
class Tally:
    """Values of several figures, one value per person (or detection)."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, scores: Mapping[str, float]) -> None:
        """One person's figures; NaN is no value."""
        for key, value in scores.items():
            if not math.isnan(value):
                self.values.setdefault(key, []).append(value)

    def merge(self, other: Tally) -> None:
        """Another tally's people too."""
        for key, values in other.values.items():
            self.values.setdefault(key, []).extend(values)

    def summary(self, keys: Sequence[str]) -> dict[str, Any]:
        """The means (None without people), and under "people" how many there are of each."""
        counts = {key: len(self.values.get(key, ())) for key in keys}
        means = {key: sum(self.values[key]) / counts[key] if counts[key] else None for key in keys}
        return {**means, "people": counts}


@dataclass(frozen=True)
class Column:
    """A figure in a table: its key in the JSON, its heading and its decimals."""

    key: str
    heading: str
    decimals: int = 0


def markdown(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Rows of summaries by name; each cell shows the mean and, where figures have
    different people behind them, how many."""
    lines = [["", *(column.heading for column in columns)]]
    for name, row in rows.items():
        lines.append([name, *(_cell(row, column) for column in columns)])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cell(row: Mapping[str, Any], column: Column) -> str:
    value, people = row.get(column.key), row.get("people")
    if value is None:
        return "–"
    count = f" ({people[column.key]})" if isinstance(people, Mapping) else ""
    return f"{value:.{column.decimals}f}{count}"


def overlay(
    rgb: Rgb, photo: Photo, people: Sequence[Person], skeleton: Skeleton, names: Sequence[str]
) -> Rgb:
    """The estimate beside the truth, and where the place is known both from above.

    :param skeleton: the people's joint set. :param names: the truth's joints.
    """
    camera = photo.intrinsics
    estimated = records.pose_array_record(people, skeleton=skeleton, model="", intrinsics=camera)
    true = records.pose_array_record(
        [as_person(person, names) for person in photo.people],
        skeleton=LIMBS_13, model="truth", intrinsics=camera,
    )  # fmt: skip
    left, middle = (
        drawing.draw_caption(drawing.draw_people(rgb, one), text)
        for one, text in ((estimated, "estimate"), (true, "truth"))
    )
    picture = drawing.side_by_side(left, middle)
    if camera.assumed:
        return picture
    roots = (pose["root"]["pose"]["position"] for pose in true["poses"])
    places = [drawing.TopPoint(root["x"], root["z"]) for root in roots]
    area = drawing.area_of([estimated], places)
    size = min(rgb.shape[1], rgb.shape[0]), rgb.shape[0]
    above = drawing.draw_top_view(estimated, area, size, camera=camera, truth=places)
    return drawing.side_by_side(picture, above)


def as_person(truth: TruePerson, names: Sequence[str]) -> Person:
    """The truth as an estimate of `LIMBS_13` that is sure of itself."""
    joints_px = in_order(truth.joints_px, names, LIMBS_13.joint_names)
    joints_mm = in_order(truth.joints_mm, names, LIMBS_13.joint_names)
    pelvis = LIMBS_13.joint_names.index(PELVIS)
    known = np.isfinite(joints_px).all(axis=1)
    return Person(
        score=1.0,
        bbox_xywh_px=truth.bbox_xywh_px,
        root_px=joints_px[pelvis],
        root_mm=joints_mm[pelvis],
        root_covariance_mm2=np.zeros((3, 3)),
        joints_px=joints_px,
        joints_mm=joints_mm,
        joint_scores=np.asarray(known, np.float64),
        joint_status=np.where(known, JointStatus.OK, JointStatus.INVALID).astype(np.uint8),
    )
