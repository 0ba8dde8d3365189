"""Who is who: the same person has the same id in successive images, and a velocity.

Tracks live in a frame that doesn't move (or, where nobody says how the camera moves, in the
camera's). People are assigned to tracks all at once, for the least total cost of root, joints and
box. A track's state is that of Pose3D.msg: TENTATIVE until DetectNet found the person often
enough, TRACKED, COASTING while it isn't seen, LOST once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from . import camera
from .boxes import BoxFromPose, box_iou
from .kalman import FRESH_SHARE, Innovation, Motion
from .orientation import oriented
from .skeletons import Skeleton
from .smoothing import JointSmoother, SmoothingOptions
from .structures import (
    FloatArray,
    Intrinsics,
    JointStatus,
    Person,
    RootError,
    Tracking,
    TrackState,
)

# Chi-square with 3 degrees of freedom: 999 of 1000 true roots lie within.
_GATE = 16.27
# A person at the gate's edge, this far off in its joints, or without any overlap costs 1 each;
# who costs more than the limit in all is somebody else.
_JOINT_SCALE_MM = 300.0
_MAX_COST = 2.4
_COASTING_WEIGHT = 0.5  # of joints and overlap, while the track's person is out of sight
# Two people whose joints differ by less than this share of their size are one, seen in two boxes.
_SAME_POSE = 0.12
# Images that come late by less are taken as of the last one's time; more is time going back.
_LATE_S = 0.2
# Images nearer to each other are of one time: a velocity from such a difference says nothing.
_LEAST_PERIOD_S = 1e-3
# After a longer pause nobody is where they were.
_INTERRUPTION_S = 5.0
_USUAL_PERIOD_S = 1 / 15  # until the stamps tell
# Cosine of a camera's tilt: beyond, it isn't clear that the z axis of its world points up.
_UPRIGHT = 0.5
# Standard deviation, any direction, of a velocity that may be published.
_MAX_VELOCITY_ERROR_MM_S = 500.0


@dataclass(frozen=True)
class TrackingOptions:
    """When people are believed in, and for how long."""

    min_hits: int = 2  # images in which DetectNet found a person before it is TRACKED
    max_coasting_s: float = 1.5  # unseen for longer is LOST


class Seen(NamedTuple):
    """A person of the image at hand."""

    person: Person
    detected: bool  # in a box of DetectNet's, or in one that a track expected


class Expected(NamedTuple):
    """Where a track's person should be in the image at hand."""

    track_id: int
    bbox_xywh_px: FloatArray  # (4,), not a number where there is none
    score: float  # DetectNet's last
    state: TrackState  # in the last image
    joint_score: float  # mean over the joints, as usual for this person
    undetected_s: float  # since DetectNet last found the person


class _View(NamedTuple):
    """The camera of one image, and where it is."""

    intrinsics: Intrinsics
    rotation: FloatArray  # (3, 3) of points of the camera frame into the tracks' frame
    origin_mm: FloatArray  # (3,) the camera in the tracks' frame
    up: FloatArray | None  # (3,) in the tracks' frame, where it is known

    def to_tracks(self, points_mm: FloatArray) -> FloatArray:
        return points_mm @ self.rotation.T + self.origin_mm

    def to_camera(self, points_mm: FloatArray) -> FloatArray:
        return (points_mm - self.origin_mm) @ self.rotation

    def project(self, points_mm: FloatArray) -> FloatArray:
        """Pixels of points in the tracks' frame, NaN behind the camera."""
        points = self.to_camera(points_mm)
        points[~(points[..., 2] > 1.0)] = np.nan
        return camera.project(points, self.intrinsics)

    def pixels(self, points_mm: FloatArray, otherwise_px: FloatArray) -> FloatArray:
        """(N, 2) pixels of points in the camera frame; the others' where they have none."""
        pixels = camera.project(points_mm, self.intrinsics)
        known = np.isfinite(pixels).all(axis=1) & (points_mm[:, 2] > 1.0)
        return np.where(known[:, None], pixels, otherwise_px)

    def turned_to_tracks(self, covariance: FloatArray) -> FloatArray:
        return self.rotation @ covariance @ self.rotation.T

    def turned_to_camera(self, covariance: FloatArray) -> FloatArray:
        return self.rotation.T @ covariance @ self.rotation


class Tracker:
    """Gives people ids over successive images of one camera.

    Each image takes two calls: `predict`, then `update` with the people in it.

    :param ids: numbers for new tracks; several trackers may share it, so that no id comes twice.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        root_error: RootError,
        options: TrackingOptions | None = None,
        ids: Iterator[int] | None = None,
    ) -> None:
        self._skeleton, self._root_error = skeleton, root_error
        self._options = options or TrackingOptions()
        self._ids = itertools.count(1) if ids is None else ids
        self._tracks: list[_Track] = []
        self._parting: list[Person] = []  # to be called LOST with the next image
        self._stamp_s: float | None = None
        self._clock_runs = True
        self._period_s = _USUAL_PERIOD_S
        self._now_s = 0.0  # by the images' stamps, but never still and never back
        self._camera_known: bool | None = None
        self._view: _View | None = None
        # Of the last update: normalised innovations squared of the roots, before correction.
        self.innovations: list[float] = []
        self.notice = ""  # why the last `predict` began anew; empty if it didn't

    def __len__(self) -> int:
        """People with an id."""
        return len(self._tracks)

    def reset(self) -> None:
        """Forgets everybody. Ids are not used again; the next update calls the old ones LOST."""
        self._parting += [track.last_person(TrackState.LOST) for track in self._tracks]
        self._tracks = []

    def predict(
        self, stamp_s: float, intrinsics: Intrinsics, camera_to_world: FloatArray | None = None
    ) -> list[Expected]:
        """Moves all tracks to the time of the next image.

        Time that stands still or is a little late counts as one usual period; time that goes back
        (a recording that starts anew) or pauses for long makes everything begin anew, and `notice`
        says so.

        :param camera_to_world: (4, 4), m: where the camera is in a frame that doesn't move; None
            where nobody knows, then people are tracked in the camera frame.
        :return: what the image should show, in the order of ids.
        """
        dt_s = self._elapsed(stamp_s, camera_to_world is not None)
        matrix = np.eye(4) if camera_to_world is None else np.asarray(camera_to_world, np.float64)
        # Frames that don't move have their z axis up (REP 105), unless a camera's is such a frame.
        upright = -matrix[2, 1] > _UPRIGHT
        up = np.array([0.0, 0.0, 1.0]) if upright else None
        self._view = _View(intrinsics, matrix[:3, :3], matrix[:3, 3] * 1000, up)
        for track in self._tracks:
            track.predict(dt_s, self._view)
        return [track.expected(self._now_s) for track in self._tracks]

    def update(
        self, seen: Sequence[Seen], smoothing: SmoothingOptions | None = None
    ) -> list[Person]:
        """The people of the image that `predict` was called for, with their ids.

        :param seen: in any order; of one person seen in two boxes the better is kept.
        :param smoothing: of the joints; by default its defaults.
        :return: tracks in the order of ids, those unseen and lost too, `Person.tracking` filled.
        """
        view, smoothing = self._view, smoothing or SmoothingOptions()
        assert view is not None, "predict comes first"
        seen = _without_duplicates(seen)
        pairs = self._assign(seen, view)
        self.innovations = [
            self._tracks[row].see(seen[column], measured, self._now_s, view, smoothing)
            for row, (column, measured) in pairs.items()
        ]
        for row, track in enumerate(self._tracks):
            if row not in pairs:
                track.miss(self._now_s, self._options)
        matched = {column for column, _ in pairs.values()}
        newcomers = [one for i, one in enumerate(seen) if i not in matched and one.detected]
        # Numbered from left to right, whatever order they come in.
        for one in sorted(newcomers, key=lambda one: tuple(one.person.bbox_xywh_px)):
            self._tracks.append(_Track(next(self._ids), one, self._now_s, view))
        for track in self._tracks:
            track.settle(self._options)
        people = self._parting + self._people(view, smoothing)
        self._parting = []
        self._tracks = [track for track in self._tracks if track.state != TrackState.LOST]
        return people

    def _elapsed(self, stamp_s: float, camera_known: bool) -> float:
        """Time since the last image, s."""
        self.notice = ""
        last_s, was_known = self._stamp_s, self._camera_known
        self._stamp_s, self._camera_known = stamp_s, camera_known
        if last_s is None:
            return 0.0
        dt_s = stamp_s - last_s
        if dt_s < -_LATE_S:
            self.notice = f"time went back by {-dt_s:.3g} s"
        elif dt_s > _INTERRUPTION_S:
            self.notice = f"no image for {dt_s:.3g} s"
        elif camera_known != was_known:
            self.notice = "the tracking frame changed"
        if self.notice:
            self.reset()
        self._clock_runs = dt_s >= _LEAST_PERIOD_S
        if -_LATE_S <= dt_s < _LEAST_PERIOD_S:
            self._stamp_s = last_s
        elif not self.notice:
            self._period_s = dt_s
        self._now_s += self._period_s
        return self._period_s

    def _assign(self, seen: Sequence[Seen], view: _View) -> dict[int, tuple[int, Innovation]]:
        """People by track, for the least total cost; both as positions in their lists. With the
        person's root as the track sees it."""
        if not self._tracks or not seen:
            return {}
        people = [one.person for one in seen]
        innovations = _innovations(self._tracks, people, view)
        costs = _costs(self._tracks, people, innovations, view)
        possible = costs <= _MAX_COST
        rows, columns = linear_sum_assignment(np.where(possible, costs, 1e6))
        return {
            row: (column, innovations.of(row, column))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            if possible[row, column]
        }

    def _people(self, view: _View, smoothing: SmoothingOptions) -> list[Person]:
        """As published for this image; whose joints were moved is oriented anew."""
        people = [
            track.person(view, self._now_s, smoothing, self._clock_runs) for track in self._tracks
        ]
        moved = [
            i
            for i, (track, person) in enumerate(zip(self._tracks, people, strict=True))
            if person.joints_mm is not track.seen.joints_mm
        ]
        oriented_anew = oriented([people[i] for i in moved], self._skeleton, self._root_error)
        for i, person in zip(moved, oriented_anew, strict=True):
            people[i] = person
        return people


class _Track:
    """One person over time."""

    def __init__(self, track_id: int, seen: Seen, now_s: float, view: _View) -> None:
        self.track_id = track_id
        self.state = TrackState.TENTATIVE
        self.hits = 1  # by DetectNet
        self._boxes = BoxFromPose()
        self._smoother = JointSmoother()
        self._born_s = self._seen_s = self._detected_s = now_s
        position = view.to_tracks(seen.person.root_mm)
        self._covariance_mm2 = view.turned_to_tracks(seen.person.root_covariance_mm2)
        self.motion = Motion.at(position, self._covariance_mm2, view.up)
        self._joint_score = float(seen.person.joint_scores.mean())
        self._keep(seen, view)
        # The filter starts with what it sees, whatever its options are.
        self._relative_mm = self._smoother(
            self.raw_relative_mm, seen.person.joint_status, 1.0, SmoothingOptions()
        )

    def _keep(self, seen: Seen, view: _View) -> None:
        person = seen.person
        self.seen = person
        self._joints_mm = view.to_tracks(person.joints_mm)
        self.raw_relative_mm = self._joints_mm - view.to_tracks(person.root_mm)
        self._anchor_mm = self.motion.position_mm
        self.box = person.bbox_xywh_px
        if seen.detected:
            self._boxes.learn(person.bbox_xywh_px, person.joints_px, view.intrinsics)

    def predict(self, dt_s: float, view: _View) -> None:
        self.motion = self.motion.predicted(dt_s)
        self._joints_px = view.project(self._joints_mm + self._moved_mm)
        self.box = self._boxes(self._joints_px)

    def expected(self, now_s: float) -> Expected:
        return Expected(
            self.track_id,
            self.box,
            self.seen.score,
            self.state,
            self._joint_score,
            now_s - self._detected_s,
        )

    def see(
        self,
        seen: Seen,
        innovation: Innovation,
        now_s: float,
        view: _View,
        smoothing: SmoothingOptions,
    ) -> float:
        """Takes the image's person in; its root's normalised innovation squared.

        :param innovation: the person's root against this track's prediction.
        """
        person = seen.person
        self._covariance_mm2 = view.turned_to_tracks(person.root_covariance_mm2)
        self.motion = self.motion.corrected(innovation, _GATE)
        dt_s, self._seen_s = now_s - self._seen_s, now_s
        if seen.detected:
            self.hits, self._detected_s = self.hits + 1, now_s
        self._joint_score += 0.2 * (float(person.joint_scores.mean()) - self._joint_score)
        self._keep(seen, view)
        self._relative_mm = self._smoother(
            self.raw_relative_mm, person.joint_status, dt_s, smoothing
        )
        self.state = TrackState.TRACKED
        return float(innovation.squared)

    def miss(self, now_s: float, options: TrackingOptions) -> None:
        unseen_s = now_s - self._seen_s
        lost = self.state == TrackState.TENTATIVE or unseen_s > options.max_coasting_s
        self.state = TrackState.LOST if lost else TrackState.COASTING

    def settle(self, options: TrackingOptions) -> None:
        """Who was found too seldom isn't trusted yet."""
        if self.state == TrackState.TRACKED and self.hits < options.min_hits:
            self.state = TrackState.TENTATIVE
        elif self.state == TrackState.TENTATIVE and self.hits >= options.min_hits:
            self.state = TrackState.TRACKED

    def last_person(self, state: TrackState) -> Person:
        """As last seen."""
        return replace(self.seen, tracking=Tracking(self.track_id, state, 0.0))

    def person(
        self, view: _View, now_s: float, smoothing: SmoothingOptions, clock_runs: bool
    ) -> Person:
        """As published for this image."""
        person = self.seen
        visible = self._seen_s == now_s
        if not visible:
            person = self._predicted(view)
        if smoothing.enabled or not visible:
            # What successive errors have in common no filter takes away.
            covariance = (
                self.motion.position_covariance_mm2 + (1 - FRESH_SHARE) * self._covariance_mm2
            )
            root = view.to_camera(self.motion.position_mm)
            relative = self._relative_mm if smoothing.enabled else self.raw_relative_mm
            joints = root + relative @ view.rotation
            person = replace(
                person,
                root_mm=root,
                root_covariance_mm2=view.turned_to_camera(covariance),
                root_px=view.pixels(root[None], person.root_px[None])[0],
                joints_mm=joints,
                joints_px=view.pixels(joints, person.joints_px),
            )
        return replace(person, tracking=self._tracking(view, now_s, clock_runs))

    @property
    def _moved_mm(self) -> FloatArray:
        """How far the root should have come since it was last seen."""
        return self.motion.position_mm - self._anchor_mm

    def _predicted(self, view: _View) -> Person:
        """Nobody sees these joints."""
        pixels = self._joints_px
        root_px = view.project(self.motion.position_mm)
        known = np.isfinite(pixels).all(axis=1)
        inside = known & (pixels >= -0.5).all(axis=1)
        inside &= (pixels <= (view.intrinsics.width - 0.5, view.intrinsics.height - 0.5)).all(1)
        status = np.where(inside, JointStatus.LOW_SCORE, JointStatus.TRUNCATED)
        valid = known & (self.seen.joint_status != JointStatus.INVALID)
        return replace(
            self.seen,
            bbox_xywh_px=np.where(np.isfinite(self.box), self.box, 0.0),
            root_px=root_px,
            joints_px=pixels,
            joint_scores=np.zeros(len(pixels)),
            joint_status=np.where(valid, status, JointStatus.INVALID).astype(np.uint8),
        )

    def _tracking(self, view: _View, now_s: float, clock_runs: bool) -> Tracking:
        spread = self.motion.velocity_covariance_mm2_s2
        known = clock_runs and self.state in (TrackState.TRACKED, TrackState.COASTING)
        known &= float(np.linalg.eigvalsh(spread)[-1]) <= _MAX_VELOCITY_ERROR_MM_S**2
        return Tracking(
            self.track_id,
            self.state,
            now_s - self._detected_s,
            self.motion.velocity_mm_s @ view.rotation if known else None,
            view.turned_to_camera(spread) if known else None,
        )


def _innovations(tracks: Sequence[_Track], people: Sequence[Person], view: _View) -> Innovation:
    """(N, M) of each of the M people's roots against each of the N tracks."""
    motions = Motion(
        np.array([track.motion.mean for track in tracks])[:, None],
        np.array([track.motion.covariance for track in tracks])[:, None],
    )
    roots = view.to_tracks(np.array([person.root_mm for person in people]))
    return motions.innovation(roots, _spreads(people, view))


def _spreads(people: Sequence[Person], view: _View) -> FloatArray:
    """(M, 3, 3) covariances of roots, in the tracks' frame."""
    return view.turned_to_tracks(np.array([person.root_covariance_mm2 for person in people]))


def _costs(
    tracks: Sequence[_Track], people: Sequence[Person], innovations: Innovation, view: _View
) -> FloatArray:
    """(N, M) of each of the M people being each track's."""
    # Errors that last are the track's too, but not those of another person.
    expected = innovations.covariance_mm2 + (1 - FRESH_SHARE) * _spreads(people, view)
    distances = innovations._replace(covariance_mm2=expected).squared
    joints = np.array([person.joints_mm - person.root_mm for person in people]) @ view.rotation.T
    were = np.array([track.raw_relative_mm for track in tracks])
    apart = np.linalg.norm(joints - were[:, None], axis=-1)  # (N, M, J)
    known = np.isfinite(apart)
    count = known.sum(-1)
    apart = np.where(known, apart, 0).sum(-1) / np.maximum(count, 1)
    unlike = np.where(count > 0, np.minimum(apart / _JOINT_SCALE_MM, 1.0), 1.0)
    overlap = box_iou(
        np.array([track.box for track in tracks]),
        np.array([person.bbox_xywh_px for person in people]),
    )
    # Of somebody out of sight the last pose and box say less.
    weights = [_COASTING_WEIGHT if track.state == TrackState.COASTING else 1.0 for track in tracks]
    return np.asarray(distances / _GATE + np.array(weights)[:, None] * (unlike + 1 - overlap))


def _without_duplicates(seen: Sequence[Seen]) -> list[Seen]:
    """Of people with the same pose in the image, the one in the better box."""
    if len(seen) < 2:
        return list(seen)
    best_first = sorted(seen, key=lambda one: (not one.detected, -one.person.score))
    joints = np.array([one.person.joints_px for one in best_first])
    sizes = np.ptp(joints, axis=1).max(axis=1)
    apart = np.linalg.norm(joints[:, None] - joints, axis=-1).mean(axis=-1)
    same = apart <= _SAME_POSE * np.minimum(sizes[:, None], sizes)  # false for what is no number
    kept: list[int] = []
    for i in range(len(best_first)):
        if not same[i, kept].any():
            kept.append(i)
    return [best_first[i] for i in kept]
