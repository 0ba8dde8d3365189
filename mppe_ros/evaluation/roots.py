"""Do roots lie where their covariance says, and what does a depth camera make of them?

Measured on the pipeline's own detections, as a robot sees them, against generated scenes
(``mppe synth scenes --depth``) or photographs with known people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from transforms3d.quaternions import mat2quat, quat2axangle, quat2mat

from .. import depth
from ..orientation import body_axes
from ..pipeline import Pipeline
from ..structures import FloatArray, Intrinsics, Person, RootError
from . import metrics
from .depth_noise import spoil
from .joints import LIMBS_13
from .methods import boxes_of
from .report import Column, as_person, markdown
from .synthetic import CONDITIONS, truncation
from .truth import PhotoSet, TruePerson

WITHOUT, PERFECT, NOISY = "RootNet", "perfect depth", "noisy depth"

_MAX_TORSO_DEPTH_MM = 400.0
_MIN_TORSOS = 20
# Share of a normal distribution that lies within one standard deviation.
ONE_SIGMA = 0.683

_COLUMNS = (
    Column("root_error_mm", "median root error"),
    Column("along_error_mm", "along"),
    Column("across_error_mm", "across"),
    Column("within_along", "1σ along", 1),
    Column("within_across", "across", 1),
    Column("within_3d", "3D", 1),
    Column("within_tilt", "tilt", 1),
    Column("within_heading", "heading", 1),
    Column("fell_back", "fell back", 1),
    Column("people", "people"),
)


@dataclass(frozen=True)
class Sample:
    """One detected person against the true one."""

    root_mm: FloatArray  # (3,) the true one, camera frame
    occlusion: float  # as in `synthetic.Subject`
    truncation: float
    distance_mm: float  # the estimated one
    parts_mm: FloatArray  # (3,) the root's error along the viewing ray, and twice across
    turn_rad: FloatArray  # (3,) the orientation's, about the body's axes; NaN unknown
    parts_sigma_mm: FloatArray  # (3,) their standard deviations by the covariances
    turn_sigma_rad: FloatArray  # (3,)
    fused: bool
    facing: float  # cosine between the true front and the viewing ray, -1 faces the camera
    torso_depth_mm: float  # of the true torso under the surface in a perfect depth image


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
            truth = _Truth.of(photo.people[owner], photo_set.joint_names, photo.intrinsics)
            if not np.isfinite(truth.root_mm).all():
                continue
            if PERFECT in images:
                truth = truth.seen_by(images[PERFECT])
            samples = {WITHOUT: _sample(person, truth, fused=False)}
            for name, depth_m in images.items():
                fused = depth.fuse(
                    person, depth_m, photo.intrinsics, pipeline.skeleton, pipeline.root_error
                )
                samples[name] = _sample(fused, truth, fused=fused is not person)
            yield samples


def _depth_images(path: Path, rng: np.random.Generator) -> dict[str, FloatArray]:
    millimetres = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if millimetres is None:
        return {}
    metres = np.asarray(millimetres, np.float64) / 1000
    return {PERFECT: metres, NOISY: spoil(metres, rng)}


@dataclass(frozen=True)
class _Truth:
    joints_mm: FloatArray  # of LIMBS_13
    occlusion: float
    truncation: float
    person: Person
    facing: float
    torso_depth_mm: float = float("nan")

    @classmethod
    def of(cls, person: TruePerson, names: Sequence[str], camera: Intrinsics) -> _Truth:
        known = as_person(person, names)
        axes = body_axes(known.joints_mm, LIMBS_13)
        ray = known.root_mm / np.linalg.norm(known.root_mm)
        return cls(
            joints_mm=known.joints_mm,
            occlusion=1 - person.visible_fraction,
            truncation=truncation(person, camera),
            person=known,
            facing=float(axes[:, 0] @ ray),
        )

    @property
    def root_mm(self) -> FloatArray:
        return self.person.root_mm

    def seen_by(self, depth_m: FloatArray) -> _Truth:
        """With how deep it is under its surface; others' and the background's are left out."""
        depths = self.root_mm[2] - depth.surface_mm(self.person, depth_m, LIMBS_13)
        depths = depths[np.abs(depths) < _MAX_TORSO_DEPTH_MM]
        return replace(self, torso_depth_mm=float(np.median(depths)) if depths.size else np.nan)


def _sample(person: Person, truth: _Truth, fused: bool) -> Sample:
    basis = _ray_basis(person.root_mm)
    turn, turn_sigma = _turn(person, truth.joints_mm)
    return Sample(
        root_mm=truth.root_mm,
        occlusion=truth.occlusion,
        truncation=truth.truncation,
        distance_mm=float(np.linalg.norm(person.root_mm)),
        parts_mm=basis @ (person.root_mm - truth.root_mm),
        turn_rad=turn,
        parts_sigma_mm=_deviations(person.root_covariance_mm2, basis),
        turn_sigma_rad=turn_sigma,
        fused=fused,
        facing=truth.facing,
        torso_depth_mm=truth.torso_depth_mm,
    )


def _deviations(covariance: FloatArray, axes: FloatArray) -> FloatArray:
    """Standard deviations along the rows of ``axes``."""
    return np.asarray(np.sqrt(np.diag(axes @ covariance @ axes.T)))


def _ray_basis(point_mm: FloatArray) -> FloatArray:
    """Rows: along the viewing ray, and two axes across, the first of them level."""
    along = point_mm / np.linalg.norm(point_mm)
    level = np.cross([0.0, 1.0, 0.0], along)
    level /= np.linalg.norm(level)
    return np.stack([along, level, np.cross(along, level)])


def _turn(person: Person, true_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rotation vector from the true to the estimated orientation, and its deviations."""
    true = body_axes(true_mm, LIMBS_13)
    xyzw, covariance = person.root_orientation_xyzw, person.root_orientation_covariance
    if np.isnan(true[0, 0]) or xyzw is None or covariance is None:
        return np.full(3, np.nan), np.full(3, np.nan)
    estimated = quat2mat(np.roll(xyzw, 1))
    axis, angle = quat2axangle(mat2quat(true.T @ estimated))
    # Beyond half a turn it is nearer the other way round.
    angle = angle if angle <= np.pi else angle - 2 * np.pi
    return np.asarray(axis * angle, np.float64), _deviations(covariance, estimated.T)


# --- figures -------------------------------------------------------------------------------------


def record(samples: Sequence[Mapping[str, Sample]]) -> dict[str, Any]:
    """JSON: figures by method, under "by" those of RootNet alone for ranges of conditions (as in
    `synthetic`), under "root_error" what `RootError` should be by these people, under
    "torso_depth_mm" how deep their true torsos lie under the surface."""
    names = [name for name in (WITHOUT, PERFECT, NOISY) if samples and name in samples[0]]
    methods = {name: [one[name] for one in samples if name in one] for name in names}
    alone = methods.get(WITHOUT, [])
    if not alone:
        return {"methods": {}, "by": {}, "root_error": {}, "torso_depth_mm": {}}
    by = {
        f"{condition.name} {label}": figures(some)
        for condition in CONDITIONS
        for label, chosen in condition.ranges()
        if (some := [one for one in alone if chosen(one)])
    }
    return {
        "methods": {name: figures(some) for name, some in methods.items()},
        "by": by,
        "root_error": {
            name: value if np.isfinite(value) else None
            for name, value in asdict(calibrated(alone, methods.get(PERFECT, []))).items()
        },
        "torso_depth_mm": torso_depths(alone),
    }


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Median errors, mm, and how many lie within one standard deviation, per cent: of a normal
    distribution 68.3 along any axis (those across count as two), and 19.9 of points in space."""
    parts, sigmas, turn = (
        np.array([getattr(one, name) for one in samples])
        for name in ("parts_mm", "parts_sigma_mm", "turn_rad")
    )
    deviations = np.abs(parts) / sigmas
    turn = np.abs(turn) / [one.turn_sigma_rad for one in samples]
    turn = turn[np.isfinite(turn).all(axis=1)]
    fused = [one.fused for one in samples]
    return {
        "root_error_mm": float(np.median(np.linalg.norm(parts, axis=1))),
        "along_error_mm": float(np.median(np.abs(parts[:, 0]))),
        "across_error_mm": float(np.median(np.linalg.norm(parts[:, 1:], axis=1))),
        "within_along": _within(deviations[:, 0]),
        "within_across": _within(deviations[:, 1:]),
        "within_3d": _within(np.linalg.norm(deviations, axis=1)),
        "within_tilt": _within(turn[:, :2]),
        "within_heading": _within(turn[:, 2]),
        "fell_back": 100 * (1 - float(np.mean(fused))) if any(fused) else None,
        "people": len(samples),
    }


def _within(deviations: FloatArray) -> float | None:
    return 100 * float(np.mean(deviations <= 1)) if deviations.size else None


def calibrated(alone: Sequence[Sample], perfect: Sequence[Sample]) -> RootError:
    """The standard deviations within which `ONE_SIGMA` of these people lie; NaN where unknown.

    :param alone: by RootNet.
    :param perfect: with perfect depth; those whom it didn't correct are left out.
    """
    parts, turn = (
        np.array([getattr(one, name) for one in alone]) for name in ("parts_mm", "turn_rad")
    )
    distances = np.array([one.distance_mm for one in alone])
    return RootError(
        along=_sigma(parts[:, 0] / distances),
        across_mm=_sigma(parts[:, 1:]),
        tilt_rad=_sigma(turn[:, :2]),
        heading_rad=_sigma(turn[:, 2]),
        fused_mm=_sigma(np.array([one.parts_mm[0] for one in perfect if one.fused])),
    )


def torso_depths(samples: Sequence[Sample]) -> dict[str, float]:
    """How deep true torsos lie under their surface, seen from the front, the side and the back:
    a parabola of the facing's cosine, for the least absolute error. Empty without depth images."""
    known = [one for one in samples if np.isfinite([one.facing, one.torso_depth_mm]).all()]
    if len(known) < _MIN_TORSOS:
        return {}
    facing, depths = (np.array([getattr(one, name) for one in known])
                      for name in ("facing", "torso_depth_mm"))  # fmt: skip
    powers = np.vander(facing, 3, increasing=True)
    weights = np.ones(len(known))
    for _ in range(50):  # iteratively reweighted least squares
        fit = np.linalg.lstsq(powers * weights[:, None], depths * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(depths - powers @ fit), 1.0))
    ends = {"front": -1.0, "side": 0.0, "back": 1.0}
    return {name: float(fit @ (1, cosine, cosine**2)) for name, cosine in ends.items()}


def _sigma(errors: FloatArray) -> float:
    known = np.abs(errors[np.isfinite(errors)])
    return float(np.quantile(known, ONE_SIGMA)) if known.size else float("nan")


def table(result: Mapping[str, Any]) -> str:
    """Markdown of a `record`."""
    return markdown({**result["methods"], **result["by"]}, _COLUMNS)
