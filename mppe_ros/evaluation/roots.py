"""Do roots lie where their covariance says, and what does a depth camera make of them?

Measured on the pipeline's own detections, as a robot sees them, against generated scenes
(``mppe synth scenes --depth``) or photographs with known people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from transforms3d.quaternions import mat2quat, quat2axangle, quat2mat

from .. import depth
from ..orientation import body_axes
from ..pipeline import Pipeline
from ..structures import FloatArray, Person
from . import metrics
from .depth_noise import spoil
from .joints import LIMBS_13, PELVIS, in_order
from .methods import boxes_of
from .report import Column, markdown
from .truth import PhotoSet, TruePerson

WITHOUT, PERFECT, NOISY = "RootNet", "perfect depth", "noisy depth"

_COLUMNS = (
    Column("root_error_mm", "median root error"),
    Column("z_error_mm", "Z error"),
    Column("across_error_mm", "across"),
    Column("within_along", "1σ along", 1),
    Column("within_across", "across", 1),
    Column("within_tilt", "tilt", 1),
    Column("within_heading", "heading", 1),
    Column("fell_back", "fell back", 1),
    Column("people", "people"),
)


@dataclass(frozen=True)
class Sample:
    """One detected person against the true one."""

    error_mm: FloatArray  # (3,) of the root, camera frame
    across_error_mm: float  # the part of it that is not along the ray
    deviations: FloatArray  # (3,) of the root, in sigma: along the ray, and twice across
    turn: FloatArray  # (3,) of the orientation, in sigma about the body's axes; NaN unknown
    fused: bool


def measure(
    pipeline: Pipeline, photo_set: PhotoSet, every: int = 1, seed: int = 0
) -> Iterator[dict[str, Sample]]:
    """Each person that was found, with RootNet alone and, where a depth image lies beside the
    image (NAME.depth.png, 16 bit, mm), with that, as it is and as a depth camera spoils it.

    :param every: only each n-th image, for a quick look.
    """
    rng = np.random.default_rng(seed)
    for photo, rgb in photo_set.pictures(every):
        people = pipeline([rgb], [photo.intrinsics])[0]
        scores = np.array([person.score for person in people])
        shown = metrics.match_detections(
            boxes_of(people), scores, boxes_of(photo.people), boxes_of(photo.ignored)
        )
        images = _depth_images((photo_set.folder / photo.name).with_suffix(".depth.png"), rng)
        for person, owner in zip(people, shown, strict=True):
            if owner < 0:
                continue
            truth = _limbs(photo.people[owner], photo_set.joint_names)
            samples = {WITHOUT: _sample(person, truth, pipeline, person)}
            for name, depth_m in images.items():
                fused = depth.fuse(
                    person, depth_m, photo.intrinsics, pipeline.skeleton, pipeline.root_error
                )
                samples[name] = _sample(fused, truth, pipeline, person)
            if np.isfinite(samples[WITHOUT].error_mm).all():
                yield samples


def _depth_images(path: Path, rng: np.random.Generator) -> dict[str, FloatArray]:
    millimetres = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if millimetres is None:
        return {}
    metres = np.asarray(millimetres, np.float64) / 1000
    return {PERFECT: metres, NOISY: spoil(metres, rng)}


def _limbs(truth: TruePerson, names: Sequence[str]) -> FloatArray:
    return in_order(truth.joints_mm, names, LIMBS_13.joint_names)


def _sample(person: Person, true_mm: FloatArray, pipeline: Pipeline, unfused: Person) -> Sample:
    error = person.root_mm - true_mm[LIMBS_13.joint_names.index(PELVIS)]
    basis = _ray_basis(person.root_mm)
    parts = basis @ error
    sigmas = np.sqrt(np.diag(basis @ person.root_covariance_mm2 @ basis.T))
    return Sample(
        error_mm=error,
        across_error_mm=float(np.hypot(*parts[1:])),
        deviations=parts / sigmas,
        turn=_turn(person, true_mm),
        fused=person is not unfused,
    )


def _ray_basis(point_mm: FloatArray) -> FloatArray:
    """Rows: along the viewing ray, and two axes across, the first of them level."""
    along = point_mm / np.linalg.norm(point_mm)
    level = np.cross([0.0, 1.0, 0.0], along)
    level /= np.linalg.norm(level)
    return np.stack([along, level, np.cross(along, level)])


def _turn(person: Person, true_mm: FloatArray) -> FloatArray:
    """The rotation vector from the true to the estimated orientation, in sigma."""
    true = body_axes(true_mm, LIMBS_13)
    xyzw, covariance = person.root_orientation_xyzw, person.root_orientation_covariance
    if true is None or xyzw is None or covariance is None:
        return np.full(3, np.nan)
    estimated = quat2mat(np.roll(xyzw, 1))
    axis, angle = quat2axangle(mat2quat(true.T @ estimated))
    # Beyond half a turn it is nearer the other way round.
    angle = angle if angle <= np.pi else angle - 2 * np.pi
    sigmas = np.sqrt(np.diag(estimated.T @ covariance @ estimated))
    return np.asarray(axis * angle / sigmas, np.float64)


# --- figures -------------------------------------------------------------------------------------


def record(samples: Sequence[Mapping[str, Sample]]) -> dict[str, Any]:
    """JSON: figures by method."""
    names = [name for name in (WITHOUT, PERFECT, NOISY) if samples and name in samples[0]]
    return {name: figures([one[name] for one in samples if name in one]) for name in names}


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Median errors, mm, and how many lie within one standard deviation, per cent; 68.3 of a
    normal distribution do."""
    error = np.array([one.error_mm for one in samples])
    deviations, turn = (
        np.abs([getattr(one, name) for one in samples]) for name in ("deviations", "turn")
    )
    turn = turn[np.isfinite(turn).all(axis=1)]
    return {
        "root_error_mm": float(np.median(np.linalg.norm(error, axis=1))),
        "z_error_mm": float(np.median(np.abs(error[:, 2]))),
        "across_error_mm": float(np.median([one.across_error_mm for one in samples])),
        "within_along": _within(deviations[:, 0]),
        "within_across": _within(deviations[:, 1:]),
        "within_tilt": _within(turn[:, :2]),
        "within_heading": _within(turn[:, 2]),
        "fell_back": 100 * float(np.mean([not one.fused for one in samples])),
        "people": len(samples),
    }


def _within(deviations: FloatArray) -> float | None:
    return 100 * float(np.mean(deviations <= 1)) if deviations.size else None


def table(result: Mapping[str, Any]) -> str:
    """Markdown of a `record`."""
    return markdown(result, _COLUMNS)
