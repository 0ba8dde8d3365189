"""Do roots lie where their covariance says, and what does a depth camera make of them?

Measured on the pipeline's own detections, as a robot sees them, against generated scenes
(``mppe synth scenes --depth``) or photographs with known people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from transforms3d.quaternions import mat2quat, quat2axangle, quat2mat

from .. import camera, depth
from ..orientation import body_axes
from ..pipeline import Pipeline
from ..structures import FloatArray, Intrinsics, Person, RootError
from . import metrics
from .depth_noise import spoil
from .joints import LIMBS_13
from .methods import boxes_of
from .report import Column, as_person, markdown
from .synthetic import CONDITIONS, truncation
from .truth import Photo, PhotoSet, TruePerson

WITHOUT, PERFECT, NOISY = "RootNet", "perfect depth", "noisy depth"

_MAX_TORSO_DEPTH_MM = 400.0
_MIN_TORSOS = 20
_MIN_SCORES = 20
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
    joint_score: float  # the mean
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
    for photo, people, truths in met(pipeline, photo_set, every):
        metres = depth_image(photo_set, photo)
        images = {} if metres is None else {PERFECT: metres, NOISY: spoil(metres, rng)}
        if metres is not None:
            truths = [truth.seen_by(metres) for truth in truths]
        fused = {
            name: pipeline.fuse(people, depth_m, photo.intrinsics)
            for name, depth_m in images.items()
        }
        for i, (person, truth) in enumerate(zip(people, truths, strict=True)):
            samples = {WITHOUT: _sample(person, truth, fused=False)}
            for name, others in fused.items():
                samples[name] = _sample(others[i], truth, fused=others[i] is not person)
            yield samples


def met(
    pipeline: Pipeline, photo_set: PhotoSet, every: int = 1
) -> Iterator[tuple[Photo, list[Person], list[Truth]]]:
    """Of each image the people who were found and whose place is known, and who they are."""
    for photo, rgb in photo_set.pictures(every):
        people = pipeline([rgb], [photo.intrinsics])[0]
        scores = np.array([person.score for person in people])
        owners = metrics.match_detections(
            boxes_of(people), scores, boxes_of(photo.people), boxes_of(photo.ignored)
        )
        pairs = [
            (person, Truth.of(photo.people[owner], photo_set.joint_names, photo.intrinsics))
            for person, owner in zip(people, owners, strict=True)
            if owner >= 0
        ]
        pairs = [(person, truth) for person, truth in pairs if np.isfinite(truth.root_mm).all()]
        yield photo, [person for person, _ in pairs], [truth for _, truth in pairs]


def depth_image(photo_set: PhotoSet, photo: Photo) -> FloatArray | None:
    """(H, W) m, the perfect one that lies beside a generated image; None without one."""
    path = (photo_set.folder / photo.name).with_suffix(".depth.png")
    millimetres = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    return None if millimetres is None else np.asarray(millimetres, np.float64) / 1000


@dataclass(frozen=True)
class Truth:
    """A person as they really are, camera frame."""

    joints_mm: FloatArray  # of LIMBS_13
    occlusion: float
    truncation: float
    person: Person
    facing: float
    torso_depth_mm: float = float("nan")

    @classmethod
    def of(cls, person: TruePerson, names: Sequence[str], camera: Intrinsics) -> Truth:
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

    def seen_by(self, depth_m: FloatArray) -> Truth:
        """With how deep it is under its surface; others' and the background's are left out."""
        depths = self.root_mm[2] - depth.surface_mm(self.person, depth_m, LIMBS_13)
        depths = depths[np.abs(depths) < _MAX_TORSO_DEPTH_MM]
        return replace(self, torso_depth_mm=float(np.median(depths)) if depths.size else np.nan)


def _sample(person: Person, truth: Truth, fused: bool) -> Sample:
    basis = camera.ray_axes(person.root_mm)
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
        joint_score=float(np.mean(person.joint_scores)),
        facing=truth.facing,
        torso_depth_mm=truth.torso_depth_mm,
    )


def _deviations(covariance: FloatArray, axes: FloatArray) -> FloatArray:
    """Standard deviations along the rows of ``axes``."""
    return np.asarray(np.sqrt(np.diag(axes @ covariance @ axes.T)))


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
    parts, turn, scores, distances = (
        np.array([getattr(one, name) for one in alone])
        for name in ("parts_mm", "turn_rad", "joint_score", "distance_mm")
    )
    error = RootError(
        *5 * (np.nan,),
        usual_score=float(np.median(scores)),
        blur=_blur(parts, distances, scores),
    )
    known = [one for one in perfect if one.fused]
    fused = np.array([one.parts_mm for one in known]).reshape(-1, 3)
    doubt, fused_doubt = (
        error.doubt(np.array([one.joint_score for one in some])[:, None])
        for some in (alone, known)
    )
    return replace(
        error,
        along=_sigma(parts[:, 0] / distances / doubt),
        across_mm=_sigma(parts[:, 1:] / doubt[:, None]),
        tilt_rad=_sigma(turn[:, :2] / doubt[:, None]),
        heading_rad=_sigma(turn[:, 2] / doubt),
        fused_mm=_sigma(fused[:, 0] / fused_doubt),
        surface_mm=_sigma(fused[:, 1:] / fused_doubt[:, None]),
    )


# Errors below these are luck: their logarithms would weigh most.
_LEAST_ALONG, _LEAST_ACROSS_MM = 1e-3, 3.0


def _blur(parts_mm: FloatArray, distances_mm: FloatArray, scores: FloatArray) -> float:
    """How fast errors along and across the ray grow as scores fall: mean slope of logarithms."""
    if len(np.unique(scores)) < _MIN_SCORES:
        return 0.0
    along = np.maximum(np.abs(parts_mm[:, 0]) / distances_mm, _LEAST_ALONG)
    across = np.maximum(np.linalg.norm(parts_mm[:, 1:], axis=1), _LEAST_ACROSS_MM)
    slopes = [np.polyfit(scores, np.log(errors), 1)[0] for errors in (along, across)]
    return float(-np.mean(slopes))


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
