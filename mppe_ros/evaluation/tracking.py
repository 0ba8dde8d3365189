"""Is the same person the same id, and is its velocity right? Measured on films with known people.

IDF1 (Ristani et al. 2016), MOTA (Bernardin, Stiefelhagen 2008) and HOTA (Luiten et al. 2020) are
computed by TrackEval, Luiten's own code. A track and a person can be the same if their roots are
less than 0.5 m apart in space.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from ..pipeline import Pipeline
from ..sequence import DETECTION_INTERVAL, PoseSequence
from ..structures import FloatArray, Person, TrackState
from . import metrics
from .joints import LIMBS_13, PELVIS, in_order
from .matching import TruthError
from .methods import boxes_of
from .report import Column, markdown
from .truth import Photo, PhotoSet, read_photo_set

# It asks for libraries that none of this needs, among them an OpenCV that would replace ours.
REQUIREMENT = "--no-deps 'trackeval>=1.3'"
# Films of the generator's test split, with crossings and occlusions.
FILMS = Path(__file__).parent.parent / "resources" / "tracking"
# A root farther away than this is another's.
MAX_DISTANCE_M = 0.5
# Of a person who is going somewhere; standing people sway.
WALKING_MPS = 0.3
# The true velocity is a mean over about a step, as a walker's pelvis bobs: half of that time.
_HALF_STEP_S = 0.27
# Errors this far apart have forgotten of each other what they ever forget (kalman.py).
_FRESH_S = 0.5

_COLUMNS = (
    Column("idf1", "IDF1", 3),
    Column("hota", "HOTA", 3),
    Column("mota", "MOTA", 3),
    Column("id_switches", "id switches"),
    Column("velocity_rmse_mps", "velocity RMSE, m/s", 2),
    Column("nis", "NIS", 2),
    Column("nis_median", "median NIS", 2),
    Column("mpjpe_mm", "MPJPE, mm"),
    Column("mpjpe_ratio_to_every_frame", "to every frame", 3),
    Column("detector_share_of_frames", "detector share", 2),
    Column("fps", "images/s", 1),
)


@dataclass(frozen=True)
class Instant:
    """One image of a film: who was there, and who was said to be."""

    photo: Photo
    people: tuple[Person, ...]  # of `PoseSequence.step`
    raw: tuple[Person, ...]  # what the networks said, for plots; the same boxes
    innovations: tuple[float, ...]  # normalised, squared
    detected: bool  # DetectNet looked


@dataclass(frozen=True)
class Take:
    """A whole film, looked at once."""

    film: PhotoSet
    instants: tuple[Instant, ...]
    seconds: float  # that it took, without reading the images

    @property
    def name(self) -> str:
        """For tables and files."""
        return self.film.folder.name if self.film.name == "truth" else self.film.name


def run(
    pipeline: Pipeline,
    film: PhotoSet,
    *,
    detection_interval: int = DETECTION_INTERVAL,
    camera_known: bool = True,
    on_floor: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> Take:
    """Looks at a film, as a robot would.

    :param camera_known: use where the camera was, if the film says so.
    :param on_floor: people stand on the plane z = 0 of the film's world.
    :param tick: called after each image.
    """
    sequence = PoseSequence(
        pipeline, detection_interval=detection_interval, on_floor=on_floor
    )
    instants: list[Instant] = []
    seconds = 0.0
    for index, (photo, rgb) in enumerate(film.pictures()):
        raw: list[Person] = []

        def keep(people: list[Person], raw: list[Person] = raw) -> list[Person]:
            raw += people
            return people

        pose = photo.camera_to_world if camera_known else None
        started_s = time.perf_counter()
        people = sequence.step(rgb, photo.intrinsics, index / film.fps, pose, keep)
        seconds += time.perf_counter() - started_s
        innovations = tuple(sequence.tracker.innovations)
        instants.append(Instant(photo, tuple(people), tuple(raw), innovations, sequence.detected))
        tick()
    return Take(film, tuple(instants), seconds)


def read(folder: Path) -> list[PhotoSet]:
    """The films of a folder: as `mppe synth clips` writes them, or a JSON file and a video each.

    :raises TruthError: no film there, or a broken one.
    """
    paths = sorted(folder.glob("*/truth.json")) or sorted(folder.glob("*.json"))
    films = [film for film in map(read_photo_set, paths) if film.fps > 0]
    if not films:
        raise TruthError(f"{folder}: no film there, as 'mppe synth clips' writes them")
    return films


# --- who is who ----------------------------------------------------------------------------------


def tracked(people: Sequence[Person]) -> list[Person]:
    """Those that are said to be seen and sure."""
    return [p for p in people if p.tracking is not None and p.tracking.state == TrackState.TRACKED]


def similarity(people: Sequence[Person], true_roots_mm: FloatArray) -> FloatArray:
    """(G, P): 1 at the true root (G, 3), 0.5 at 0.5 m from it, 0 from 1 m on."""
    roots = np.array([person.root_mm for person in people]).reshape(-1, 3)
    apart_mm = np.linalg.norm(true_roots_mm[:, None] - roots[None], axis=-1)
    return np.clip(1 - apart_mm / (2000 * MAX_DISTANCE_M), 0, 1)


def identity_figures(takes: Sequence[Take]) -> dict[str, Any]:
    """IDF1, HOTA, MOTA and the number of switches over all films.

    :raises ImportError: TrackEval is not installed.
    """
    # It prints about parts that lack a library which isn't needed here.
    with redirect_stdout(io.StringIO()):
        library = import_module("trackeval.metrics")
        threshold = {"THRESHOLD": 0.5, "PRINT_CONFIG": False}
        scorers = {
            "HOTA": library.HOTA(),
            "CLEAR": library.CLEAR(threshold),
            "Identity": library.Identity(threshold),
        }
    data = {str(i): _trackeval_data(take) for i, take in enumerate(takes)}
    found = {
        name: scorer.combine_sequences({i: scorer.eval_sequence(one) for i, one in data.items()})
        for name, scorer in scorers.items()
    }
    return {
        "idf1": float(found["Identity"]["IDF1"]),
        "hota": float(np.mean(found["HOTA"]["HOTA"])),
        "mota": float(found["CLEAR"]["MOTA"]),
        "id_switches": int(found["CLEAR"]["IDSW"]),
        "recall": float(found["CLEAR"]["CLR_Re"]),
        "precision": float(found["CLEAR"]["CLR_Pr"]),
    }


def _trackeval_data(take: Take) -> dict[str, Any]:
    """A film in TrackEval's form: ids from 0, and similarities of each image."""
    true_ids, ids, similarities = [], [], []
    for instant in take.instants:
        people = _accountable(instant.photo, tracked(instant.people), take.film)
        true_ids.append([person.track_id for person in instant.photo.people])
        ids.append([person.tracking.track_id for person in people if person.tracking])
        similarities.append(similarity(people, roots_mm(instant.photo, take.film)))
    true_numbers, numbers = _from_zero(true_ids), _from_zero(ids)
    return {
        "gt_ids": true_numbers,
        "tracker_ids": numbers,
        "similarity_scores": similarities,
        "num_gt_dets": sum(map(len, true_ids)),
        "num_tracker_dets": sum(map(len, ids)),
        "num_gt_ids": len({one for row in true_ids for one in row}),
        "num_tracker_ids": len({one for row in ids for one in row}),
        "num_timesteps": len(take.instants),
    }


def _from_zero(rows: Sequence[Sequence[int]]) -> list[metrics.IntArray]:
    numbers = {one: i for i, one in enumerate(sorted({one for row in rows for one in row}))}
    return [np.array([numbers[one] for one in row], np.int64) for row in rows]


def _accountable(photo: Photo, people: Sequence[Person], film: PhotoSet) -> list[Person]:
    """Without those who stand for somebody hardly visible: neither right nor wrong."""
    everybody = np.concatenate([roots_mm(photo, film), roots_mm(photo, film, ignored=True)])
    alike = similarity(people, everybody)
    rows, columns = linear_sum_assignment(-alike)
    excused = {
        int(column)
        for row, column in zip(rows, columns, strict=True)
        if row >= len(photo.people) and alike[row, column] >= 0.5
    }
    return [person for index, person in enumerate(people) if index not in excused]


def roots_mm(photo: Photo, film: PhotoSet, ignored: bool = False) -> FloatArray:
    """(G, 3) true roots, camera frame."""
    people = photo.ignored if ignored else photo.people
    pelvis = film.joint_names.index(PELVIS)
    return np.array([person.joints_mm[pelvis] for person in people]).reshape(-1, 3)


# --- velocity ------------------------------------------------------------------------------------


def velocity_errors(take: Take, camera_known: bool = True) -> FloatArray:
    """(N, 2): the true speed and the velocity's error, m/s, of each person with a velocity.

    The true velocity is that of the pelvis over a step's time around the image.
    """
    film, found = take.film, []
    places = [_places_m(instant.photo, film, camera_known) for instant in take.instants]
    half = max(1, round(_HALF_STEP_S * film.fps))
    for index in range(half, len(places) - half):
        instant, before, after = take.instants[index], places[index - half], places[index + half]
        moving = [(p, v) for p in tracked(instant.people) if (v := _velocity(p)) is not None]
        alike = similarity([person for person, _ in moving], roots_mm(instant.photo, film))
        rotation = _rotation(instant.photo, camera_known)
        for row, column in zip(*linear_sum_assignment(-alike), strict=True):
            true_id = instant.photo.people[row].track_id
            if alike[row, column] < 0.5 or true_id not in before or true_id not in after:
                continue
            true = (after[true_id] - before[true_id]) * film.fps / (2 * half)
            error = rotation @ moving[column][1] / 1000 - true
            found.append((np.linalg.norm(true), np.linalg.norm(error)))
    return np.array(found).reshape(-1, 2)


def _velocity(person: Person) -> FloatArray | None:
    return person.tracking.velocity_mm_s if person.tracking else None


def _rotation(photo: Photo, camera_known: bool) -> FloatArray:
    pose = photo.camera_to_world if camera_known else None
    return np.eye(3) if pose is None else pose[:3, :3]


def _places_m(photo: Photo, film: PhotoSet, camera_known: bool) -> dict[int, FloatArray]:
    """Everybody's pelvis, m, in the world if the camera's place is known."""
    pose = photo.camera_to_world if camera_known else None
    everybody = (*photo.people, *photo.ignored)
    roots = np.concatenate([roots_mm(photo, film), roots_mm(photo, film, ignored=True)]) / 1000
    if pose is not None:
        roots = roots @ pose[:3, :3].T + pose[:3, 3]
    return {person.track_id: root for person, root in zip(everybody, roots, strict=True)}


def fresh_share(takes: Sequence[Take]) -> float | None:
    """Of the variance of the roots' distance, what changes over time: half of that of the
    difference of errors `_FRESH_S` apart. By medians, as some errors are of another person."""
    errors: list[float] = []
    changes: list[float] = []
    for take in takes:
        lag = max(1, round(_FRESH_S * take.film.fps))
        found = [_distance_errors(instant, take.film) for instant in take.instants]
        errors += [error for now in found for error in now.values()]
        for before, now in zip(found, found[lag:], strict=False):
            changes += [now[key] - before[key] for key in now.keys() & before.keys()]
    if not changes:
        return None
    return float(np.median(np.abs(changes)) ** 2 / (2 * np.median(np.abs(errors)) ** 2))


def _distance_errors(instant: Instant, film: PhotoSet) -> dict[int, float]:
    """Of what the networks said, as a fraction of the true distance, by true id."""
    true_m = np.linalg.norm(roots_mm(instant.photo, film), axis=1)
    owners = _owners(instant.raw, instant.photo)
    return {
        instant.photo.people[owner].track_id: float(
            np.linalg.norm(person.root_mm) / true_m[owner] - 1
        )
        for person, owner in zip(instant.raw, owners, strict=True)
        if owner >= 0
    }


# --- pose ----------------------------------------------------------------------------------------


def pose_errors(pipeline: Pipeline, take: Take) -> dict[tuple[int, int], float]:
    """MPJPE over pelvis and limbs, mm, by image and true id, of everybody seen."""
    errors = {}
    for index, instant in enumerate(take.instants):
        people = [person for person in instant.people if _seen(person)]
        for person, owner in zip(people, _owners(people, instant.photo), strict=True):
            if owner < 0:
                continue
            truth = instant.photo.people[owner]
            errors[index, truth.track_id] = _mpjpe_mm(
                in_order(person.joints_mm, pipeline.skeleton.joint_names, LIMBS_13.joint_names),
                in_order(truth.joints_mm, take.film.joint_names, LIMBS_13.joint_names),
            )
    return errors


def _owners(people: Sequence[Person], photo: Photo) -> metrics.IntArray:
    """(P,) whom each shows, by the boxes; negative = nobody that counts."""
    scores = np.array([person.score for person in people])
    return metrics.match_detections(
        boxes_of(people), scores, boxes_of(photo.people), boxes_of(photo.ignored)
    )


def _seen(person: Person) -> bool:
    seen = (TrackState.TENTATIVE, TrackState.TRACKED)
    return person.tracking is not None and person.tracking.state in seen


def _mpjpe_mm(predicted: FloatArray, true: FloatArray) -> float:
    pair = (metrics.root_relative(one, LIMBS_13.root_index) for one in (predicted, true))
    return float(metrics.mpjpe(*pair))


# --- all of it -----------------------------------------------------------------------------------


def record(
    pipeline: Pipeline,
    takes: Sequence[Take],
    every_frame: Sequence[Take],
    camera_known: bool = True,
) -> dict[str, Any]:
    """JSON: the figures of all films, and of each.

    :param every_frame: the same films with DetectNet looking at every image.
    """
    pairs = list(zip(takes, every_frame, strict=True))
    return {
        **_figures(pipeline, pairs, camera_known),
        "by": {a.name: _figures(pipeline, [(a, b)], camera_known) for a, b in pairs},
    }


def _figures(
    pipeline: Pipeline, pairs: Sequence[tuple[Take, Take]], camera_known: bool
) -> dict[str, Any]:
    takes = [take for take, _ in pairs]
    instants = [instant for take in takes for instant in take.instants]
    errors = np.concatenate([velocity_errors(take, camera_known) for take in takes])
    innovations = [value for instant in instants for value in instant.innovations]
    return {
        **identity_figures(takes),
        "velocity_rmse_mps": _rms(errors[errors[:, 0] >= WALKING_MPS, 1]),
        "velocity_rmse_standing_mps": _rms(errors[errors[:, 0] < WALKING_MPS, 1]),
        "nis": float(np.mean(innovations)) / 3 if innovations else None,
        "nis_median": float(np.median(innovations) / chi2.median(3)) if innovations else None,
        "fresh_share": fresh_share([every for _, every in pairs]),
        **_pose_figures(pipeline, pairs),
        "detector_share_of_frames": float(np.mean([one.detected for one in instants])),
        "fps": len(instants) / sum(take.seconds for take in takes),
        "images": len(instants),
    }


def _pose_figures(pipeline: Pipeline, pairs: Sequence[tuple[Take, Take]]) -> dict[str, Any]:
    """Over the people that both found."""
    own: list[float] = []
    reference: list[float] = []
    for take, every in pairs:
        a, b = pose_errors(pipeline, take), pose_errors(pipeline, every)
        common = sorted(a.keys() & b.keys())
        own += [a[key] for key in common]
        reference += [b[key] for key in common]
    if not own:
        return {"mpjpe_mm": None, "mpjpe_ratio_to_every_frame": None}
    return {
        "mpjpe_mm": float(np.mean(own)),
        "mpjpe_ratio_to_every_frame": float(np.mean(own) / np.mean(reference)),
    }


def _rms(values: FloatArray) -> float | None:
    return float(np.sqrt(np.mean(values**2))) if len(values) else None


def table(result: Mapping[str, Any]) -> str:
    """Markdown of a `record`."""
    return markdown({**result["by"], "all": result}, _COLUMNS)


# --- plots ---------------------------------------------------------------------------------------


def plot(take: Take, path: Path) -> None:
    """A film at a glance: ids over time, paths from above, raw against smoothed.

    :raises ImportError: matplotlib is not installed.
    """
    figure: Any = import_module("matplotlib.figure").Figure((13, 8), layout="constrained")
    panels = figure.subplot_mosaic([["ids", "top"], ["root", "top"], ["joint", "top"]])
    figure.suptitle(take.name)
    _plot_ids(panels["ids"], take)
    _plot_top(panels["top"], take)
    _plot_smoothing(panels["root"], panels["joint"], take)
    figure.savefig(path, dpi=110)


def _times_s(take: Take) -> FloatArray:
    return np.arange(len(take.instants)) / take.film.fps


def _colour(track_id: int) -> str:
    return f"C{track_id % 10}"


_LOOKS = {  # of a state: marker and how opaque
    TrackState.TENTATIVE: ("x", 1.0),
    TrackState.TRACKED: ("s", 1.0),
    TrackState.COASTING: ("s", 0.25),
    TrackState.LOST: ("|", 1.0),
}


def _plot_ids(axes: Any, take: Take) -> None:
    for time_s, instant in zip(_times_s(take), take.instants, strict=True):
        if instant.detected:
            axes.axvline(time_s, color="0.92", zorder=0)
        for person in instant.people:
            assert person.tracking is not None
            marker, alpha = _LOOKS[person.tracking.state]
            number = person.tracking.track_id
            axes.plot(time_s, number, marker, color=_colour(number), alpha=alpha, ms=4)
    axes.set(title="ids (pale: coasting, x: tentative; lines: DetectNet looked)", ylabel="id")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _plot_top(axes: Any, take: Take) -> None:
    true: dict[int, list[FloatArray]] = {}
    found: dict[int, list[FloatArray]] = {}
    for instant in take.instants:
        for number, place in _places_m(instant.photo, take.film, False).items():
            true.setdefault(number, []).append(place)
        for person in tracked(instant.people):
            assert person.tracking is not None
            found.setdefault(person.tracking.track_id, []).append(person.root_mm / 1000)
    for places in true.values():
        axes.plot(*np.array(places)[:, [0, 2]].T, color="0.6", lw=4, alpha=0.5)
    for number, places in found.items():
        path = np.array(places)
        axes.plot(path[:, 0], path[:, 2], color=_colour(number), lw=1.2, label=f"{number}")
        axes.plot(path[-1, 0], path[-1, 2], "o", color=_colour(number), ms=4)
    axes.plot(0, 0, "^", color="k")
    axes.set(title="from above, camera frame (grey: true)", xlabel="x, m", ylabel="z, m")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(title="id", loc="upper left")


def _plot_smoothing(root_axes: Any, joint_axes: Any, take: Take) -> None:
    """Of the longest track: the root's distance, and the height of a wrist above it."""
    lengths: dict[int, int] = {}
    for instant in take.instants:
        for person in tracked(instant.people):
            assert person.tracking is not None
            lengths[person.tracking.track_id] = lengths.get(person.tracking.track_id, 0) + 1
    if not lengths:
        return
    chosen = max(lengths, key=lengths.__getitem__)
    rows = []
    for time_s, instant in zip(_times_s(take), take.instants, strict=True):
        for person in tracked(instant.people):
            assert person.tracking is not None
            if person.tracking.track_id != chosen:
                continue
            raw = next(r for r in instant.raw if r.bbox_xywh_px is person.bbox_xywh_px)
            rows.append((time_s, raw, person))
    wrist = 4 if len(rows[0][1].joints_mm) == 21 else 16  # right
    times = [time_s for time_s, _, _ in rows]
    for which, name, style in ((1, "raw", "0.6"), (2, "smoothed", "C0")):
        people = [row[which] for row in rows]
        root_axes.plot(times, [p.root_mm[2] / 1000 for p in people], color=style, label=name)
        heights = [(p.root_mm[1] - p.joints_mm[wrist, 1]) / 1000 for p in people]
        joint_axes.plot(times, heights, color=style, label=name)
    root_axes.set(title=f"id {chosen}: distance of the root along the optical axis", ylabel="m")
    joint_axes.set(title=f"id {chosen}: right wrist above the root", ylabel="m", xlabel="s")
    root_axes.legend()
