"""Figures on generated scenes, whose truth is exact, and what they depend on.

Pose, MRPE and γ are measured on the true boxes, as RootNet's and PoseNet's own; 3DPCK, AUC and
the average precisions with the pipeline's detector. Protocols: docs/evaluation.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..camera import inside
from ..pipeline import Pipeline
from ..structures import FloatArray, Intrinsics, Person
from . import metrics
from .joints import PELVIS, common_joints, in_order
from .matching import TruthError
from .methods import OnGivenBoxes, boxes_of, k_values_mm
from .metrics import NOBODY, IntArray, RootsOfImage
from .report import Column, markdown
from .truth import Photo, PhotoSet, TruePerson, load_json, photo_set, read_folder

CLIP = Path(__file__).parent.parent / "resources" / "sample" / "clip.json"
SCENES_FILE = "annotations.json"  # as `mppe synth scenes` writes it

_COLUMNS = (
    Column("mpjpe_mm", "MPJPE"),
    Column("pa_mpjpe_mm", "PA-MPJPE"),
    Column("mrpe_mm", "MRPE"),
    Column("mrpe_x_mm", "x"),
    Column("mrpe_y_mm", "y"),
    Column("mrpe_z_mm", "z"),
    Column("gamma_error", "γ error", 3),
    Column("pck3d_rel", "3DPCK rel", 1),
    Column("pck3d_abs", "abs", 1),
    Column("auc", "AUC", 1),
    Column("ap_root_25", "AP_25^root", 1),
    Column("detection_ap50", "AP50", 2),
    Column("people", "people"),
)


@dataclass(frozen=True)
class Subject:
    """One true person: where it stands, how well it is seen, and what was measured."""

    root_mm: FloatArray  # (3,) camera frame
    occlusion: float  # share of its pixels that others or the image's edge hide; NaN unknown
    truncation: float  # share of its joints outside the image
    mpjpe_mm: float  # this and the next three in the true box, NaN where that is empty
    pa_mpjpe_mm: float
    root_difference_mm: FloatArray  # (3,) predicted - true
    gamma_error: float
    relative_mm: FloatArray  # (S,) joint errors for 3DPCK_rel, inf where the person was missed
    absolute_mm: FloatArray  # (S,) for 3DPCK_abs


@dataclass(frozen=True)
class Scene:
    """One image: its true people, and what the detector and RootNet said of it."""

    subjects: tuple[Subject, ...]
    ignored_roots_mm: FloatArray  # (I, 3)
    scores: FloatArray  # (P,)
    roots_mm: FloatArray  # (P, 3)
    shown: IntArray  # (P,) subject, NOBODY or IGNORED


def read(source: Path) -> list[PhotoSet]:
    """A folder of scenes: what ``mppe synth scenes`` wrote, or JSON as of docs/evaluation.md.

    :raises TruthError: neither is there.
    """
    path = source / SCENES_FILE
    return [_generated(path)] if path.is_file() else read_folder(source)


def _generated(path: Path) -> PhotoSet:
    """MuCo's layout, one list of images and one of people, as one list of images with people."""
    content = load_json(path)
    try:
        people = defaultdict(list)
        for one in content["annotations"]:
            people[one["image_id"]].append({
                "bbox_xywh_px": one["bbox"],
                "joints_px": one["keypoints_img"],
                "joints_camera_mm": one["keypoints_cam"],
                "visible_fraction": one["visible_fraction"],
                "iscrowd": one["iscrowd"],
            })  # fmt: skip
        images = [
            {
                "image": image["file_name"],
                **dict(zip(("fx", "fy", "cx", "cy"), (*image["f"], *image["c"]), strict=True)),
                "width": image["width"],
                "height": image["height"],
                f"distortion_{image['distortion_model']}": image["distortion"],
                "people": people[image["id"]],
            }
            for image in content["images"]
        ]
        names = content["categories"][0]["keypoints"]
    except (KeyError, TypeError, IndexError) as error:
        raise TruthError(f"{path}: not what `mppe synth scenes` writes ({error!r})") from error
    return photo_set({"joint_names": names, "images": images}, path)


def measure(pipeline: Pipeline, photo_set: PhotoSet, every: int = 1) -> Iterator[Scene]:
    """The scenes of a set, one after the other.

    :param every: only each n-th, for a quick look.
    """
    given = OnGivenBoxes(pipeline)
    names = common_joints(pipeline.skeleton.joint_names, photo_set.joint_names)
    if PELVIS not in names:
        raise TruthError(f"{photo_set.name}: its joints have neither a pelvis nor hips")
    in_common = _Common(pipeline, photo_set.joint_names, names)
    for photo, rgb in photo_set.pictures(every):
        yield in_common.scene(photo, given(rgb, photo.intrinsics, boxes_of(photo.people)),
                              pipeline([rgb], [photo.intrinsics])[0])  # fmt: skip


class _Common:
    """People and estimates in the joints that both have."""

    def __init__(
        self, pipeline: Pipeline, true_names: Sequence[str], names: Sequence[str]
    ) -> None:
        self._names, self._true_names = names, true_names
        self._of_skeleton = pipeline.skeleton.indices(names)
        self._root = names.index(PELVIS)
        self._paired = [i for i, name in enumerate(names) if name in metrics.PCK3D_MATCHED]

    def scene(
        self, photo: Photo, in_boxes: Sequence[Person | None], found: Sequence[Person]
    ) -> Scene:
        relative, absolute = self._pck_errors(photo, found)
        k_mm = k_values_mm(boxes_of(photo.people), photo.intrinsics)
        scores = np.array([person.score for person in found], np.float64)
        ignored = boxes_of(photo.ignored)
        roots = [self._joints_mm(one)[self._root] for one in photo.ignored]
        return Scene(
            subjects=tuple(
                self._subject(truth, person, photo.intrinsics, float(k), rel, abs_)
                for truth, person, k, rel, abs_ in zip(
                    photo.people, in_boxes, k_mm, relative, absolute, strict=True
                )
            ),
            ignored_roots_mm=_known(np.array(roots).reshape(-1, 3)),
            scores=scores,
            roots_mm=np.array([person.root_mm for person in found]).reshape(-1, 3),
            shown=metrics.match_detections(
                boxes_of(found), scores, boxes_of(photo.people), ignored
            ),
        )

    def _subject(
        self,
        truth: TruePerson,
        person: Person | None,
        camera: Intrinsics,
        k_mm: float,
        relative_mm: FloatArray,
        absolute_mm: FloatArray,
    ) -> Subject:
        true = self._joints_mm(truth)
        predicted = np.full_like(true, np.nan)
        root, gamma = np.full(3, np.nan), np.nan
        if person is not None:
            predicted, root, gamma = self._predicted(person), person.root_mm, person.gamma
        sides = (metrics.root_relative(joints, self._root) for joints in (predicted, true))
        return Subject(
            root_mm=true[self._root],
            occlusion=1 - truth.visible_fraction,
            truncation=truncation(truth, camera),
            mpjpe_mm=float(metrics.mpjpe(*sides)),
            pa_mpjpe_mm=np.nan if person is None else float(metrics.pa_mpjpe(predicted, true)),
            root_difference_mm=root - true[self._root],
            gamma_error=float(metrics.gamma_error(gamma, true[self._root, 2], k_mm)),
            relative_mm=relative_mm,
            absolute_mm=absolute_mm,
        )

    def _pck_errors(self, photo: Photo, found: Sequence[Person]) -> tuple[FloatArray, FloatArray]:
        shape = (-1, len(self._names))
        predicted = np.array([self._predicted(one) for one in found]).reshape(*shape, 3)
        true = np.array([self._joints_mm(one) for one in photo.people]).reshape(*shape, 3)
        predicted_px = np.array([one.joints_px[self._of_skeleton] for one in found])
        true_px = np.array([in_order(one.joints_px, self._true_names, self._names)
                            for one in photo.people])  # fmt: skip
        pairs = metrics.match_by_joints(
            predicted_px.reshape(*shape, 2)[:, self._paired],
            true_px.reshape(*shape, 2)[:, self._paired],
        )
        relative, absolute = (
            metrics.pck3d_errors(predicted, true, pairs, self._names, relative=relative)
            for relative in (True, False)
        )
        return relative, absolute

    def _joints_mm(self, truth: TruePerson) -> FloatArray:
        return in_order(truth.joints_mm, self._true_names, self._names)

    def _predicted(self, person: Person) -> FloatArray:
        return person.joints_mm[self._of_skeleton]


def truncation(person: TruePerson, intrinsics: Intrinsics) -> float:
    """Share of joints outside the image; those behind the camera (NaN) too."""
    return float(1 - inside(person.joints_px, intrinsics).mean())


def _known(points: FloatArray) -> FloatArray:
    return points[np.isfinite(points).all(axis=1)]


# --- figures -------------------------------------------------------------------------------------



class Situation(Protocol):
    """How a true person is seen: a `Subject`, or whatever else was measured about one."""

    @property
    def root_mm(self) -> FloatArray: ...

    @property
    def occlusion(self) -> float: ...

    @property
    def truncation(self) -> float: ...


Choice = Callable[[Situation], bool]


def figures(scenes: Sequence[Scene], chosen: Choice = lambda _: True) -> dict[str, Any]:
    """All figures over the chosen people; the others are neither missed nor false."""
    people = [one for scene in scenes for one in scene.subjects if chosen(one)]
    root = _known(np.array([one.root_difference_mm for one in people]).reshape(-1, 3))
    mrpe = metrics.mrpe(root, np.zeros_like(root))
    relative, absolute = (
        np.array([getattr(one, kind) for one in people]) for kind in ("relative_mm", "absolute_mm")
    )
    found = np.isfinite(relative).all(axis=-1)
    values = {
        **{key: _mean(getattr(one, key) for one in people)
           for key in ("mpjpe_mm", "pa_mpjpe_mm", "gamma_error")},
        **{f"mrpe{part}_mm": value for part, value in zip(("", "_x", "_y", "_z"), mrpe,
                                                          strict=True)},
        "pck3d_rel": metrics.pck3d(relative),
        "pck3d_abs": metrics.pck3d(absolute),
        "pck3d_rel_matched": metrics.pck3d(relative[found]),
        "pck3d_abs_matched": metrics.pck3d(absolute[found]),
        "auc": metrics.auc3d(relative),
        "ap_root_25": metrics.average_precision_root([_roots(s, chosen) for s in scenes]),
        "detection_ap50": _detection_ap(scenes, chosen),
    }  # fmt: skip
    return {
        **{key: value if np.isfinite(value) else None for key, value in values.items()},
        "people": len(people),
    }


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _roots(scene: Scene, chosen: Choice) -> RootsOfImage:
    roots = np.array([one.root_mm for one in scene.subjects]).reshape(-1, 3)
    wanted = np.array([chosen(one) for one in scene.subjects], bool)
    ignored = np.concatenate([roots[~wanted], scene.ignored_roots_mm])
    return RootsOfImage(scene.scores, scene.roots_mm, roots[wanted], ignored)


def _detection_ap(scenes: Sequence[Scene], chosen: Choice) -> float:
    scores, correct, count = [], [], 0
    for scene in scenes:
        wanted = np.array([chosen(one) for one in scene.subjects], bool)
        count += int(wanted.sum())
        right = np.array([owner >= 0 and wanted[owner] for owner in scene.shown], bool)
        counts = right | (scene.shown == NOBODY)
        scores.append(scene.scores[counts])
        correct.append(right[counts])
    return metrics.average_precision(np.concatenate(scores), np.concatenate(correct), count)


# --- what they depend on -------------------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """A property of people, cut into ranges [low, high)."""

    name: str
    value: Callable[[Situation], float]
    edges: tuple[float, ...]
    scale: float  # from the value to the unit shown
    unit: str

    def ranges(self) -> Iterator[tuple[str, Choice]]:
        """Name and members of each range."""
        for low, high in zip(self.edges, self.edges[1:], strict=False):
            yield self._label(low, high), self._between(low, high)

    def _between(self, low: float, high: float) -> Choice:
        return lambda one: low <= self.value(one) < high

    def _label(self, low: float, high: float) -> str:
        first, last = low * self.scale, high * self.scale
        return f"≥ {first:g} {self.unit}" if np.isinf(high) else f"{first:g}–{last:g} {self.unit}"


CONDITIONS = (
    Condition("distance", lambda one: float(one.root_mm[2]) / 1000,
              (0, 2, 3.5, 5, 8, np.inf), 1, "m"),
    Condition("occlusion", lambda one: one.occlusion, (0, 0.1, 0.4, np.inf), 100, "%"),
    Condition("truncation", lambda one: one.truncation, (0, 0.01, 0.25, np.inf), 100, "%"),
)  # fmt: skip


def record(scenes: Sequence[Scene]) -> dict[str, Any]:
    """JSON: the figures over everybody, and under "by" those of each condition's ranges."""
    by = {
        condition.name: {
            label: summary
            for label, chosen in condition.ranges()
            if (summary := figures(scenes, chosen))["people"]
        }
        for condition in CONDITIONS
    }
    return {**figures(scenes), "images": len(scenes), "by": by}


def table(result: Mapping[str, Any]) -> str:
    """Markdown of a `record`."""
    rows = {"all": result}
    for condition, ranges in result["by"].items():
        rows |= {f"{condition} {label}": summary for label, summary in ranges.items()}
    return markdown(rows, _COLUMNS)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Curves of a `record` over its conditions, as a picture.

    :raises ImportError: matplotlib is not installed.
    """
    figure: Any = import_module("matplotlib.figure").Figure((11, 6), layout="constrained")
    axes = figure.subplots(2, len(result["by"]), squeeze=False, sharey="row")
    curves = (
        ("mm", ("mpjpe_mm", "pa_mpjpe_mm", "mrpe_mm")),
        ("%", ("pck3d_rel", "pck3d_abs", "ap_root_25")),
    )
    headings = {column.key: column.heading for column in _COLUMNS} | {"pck3d_abs": "3DPCK abs"}
    for column, (condition, ranges) in enumerate(result["by"].items()):
        for row, (unit, keys) in enumerate(curves):
            panel = axes[row, column]
            for key in keys:
                values = [np.nan if (v := one[key]) is None else v for one in ranges.values()]
                panel.plot(list(ranges), values, marker="o", label=headings[key])
            panel.grid(alpha=0.3)
            panel.set_xlabel(condition if row else "")
            panel.set_ylabel("" if column else unit)
    for row in axes:
        row[0].set_ylim(bottom=0)  # shared by the whole row, so only once all curves are there
        row[-1].legend()
    figure.savefig(path, dpi=120)
