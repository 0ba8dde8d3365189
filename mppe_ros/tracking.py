"""Who is who: the same person has the same id in successive images, and a velocity.

Tracks live in a frame that doesn't move (or, where nobody says how the camera moves, in the
camera's). People are assigned to tracks all at once, for the least total cost of root, joints,
box and clothes. A track's state is that of Pose3D.msg: TENTATIVE until DetectNet found the person
often enough, TRACKED, COASTING while it isn't seen, LOST once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from . import appearance, camera, gait
from .boxes import BoxFromPose, box_iou
from .gait import Swing
from .kalman import SIDEWAYS_MM_S, SPEED_MM_S, Innovation, IntArray, Motion, Vertical, fresh
from .orientation import body_axes, orientations
from .skeletons import Skeleton
from .smoothing import SmoothingOptions, SmoothJoints
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
# 975 of 1000: those beyond count less.
_OUTLIER = 9.35
# A person at the gate's edge, this far off in its joints, or without any overlap costs 1 each,
# one whose clothes are unlike by so much (appearance.py) as much as these together. Who costs more
# than the limit in all is somebody else.
_JOINT_SCALE_MM = 300.0
_CLOTHES_WEIGHT, _OTHER_CLOTHES = 2.5, 0.5
_UNSEEN_CLOTHES = 0.5  # of that weight, what clothes cost that aren't seen
_MAX_COST = 4.2
_BEYOND = 0.3  # of what a pair costs beyond that, in the total
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
_SCORE_SHARE = 0.2  # of the newest in the mean joint score that is usual for a person
# Standard deviation, any direction, of a velocity that may be published.
_MAX_VELOCITY_ERROR_MM_S = 325.0


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
    vertical: Vertical  # in the tracks' frame

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
        """(..., 2) pixels of points in the camera frame; the others' where they have none."""
        pixels = camera.project(points_mm, self.intrinsics)
        known = np.isfinite(pixels).all(axis=-1) & (points_mm[..., 2] > 1.0)
        return np.where(known[..., None], pixels, otherwise_px)

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
        up = np.array([0.0, 0.0, 1.0]) if upright else -matrix[:3, 1]
        vertical = Vertical(up, known=bool(upright))
        self._view = _View(intrinsics, matrix[:3, :3], matrix[:3, 3] * 1000, vertical)
        self._move(dt_s, self._view)
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
        looks = _looks(_without_duplicates(seen), view)
        pairs = self._see(looks, view, smoothing)
        for row, track in enumerate(self._tracks):
            if row not in pairs:
                track.miss(self._now_s, self._options)
        matched = set(pairs.values())
        newcomers = [one for i, one in enumerate(looks) if i not in matched and one.seen.detected]
        # Numbered from left to right, whatever order they come in.
        for one in sorted(newcomers, key=lambda one: tuple(one.seen.person.bbox_xywh_px)):
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

    # What follows computes for all at once: of a few people NumPy takes as long as of one.

    def _move(self, dt_s: float, view: _View) -> None:
        """All tracks to where they should be now."""
        tracks = self._tracks
        if not tracks:
            return
        motions = Motion.stacked([track.motion for track in tracks])
        motions = motions.predicted(dt_s, view.vertical)
        moved = motions.position_mm - np.array([track.anchor_mm for track in tracks])
        joints = np.array([track.joints_mm for track in tracks]) + moved[:, None]
        joints_px = view.project(joints)
        boxes = BoxFromPose.stacked([track.box_from_pose for track in tracks])(joints_px)
        for track, *state in zip(tracks, motions.each(), joints_px, boxes, strict=True):
            track.expect(*state)

    def _see(
        self, looks: Sequence[_Look], view: _View, smoothing: SmoothingOptions
    ) -> dict[int, int]:
        """Assigns people to tracks, for the least total cost, and takes them in.

        :return: people by track, both as positions in their lists.
        """
        self.innovations = []
        if not self._tracks or not looks:
            return {}
        motions = Motion.stacked([track.motion for track in self._tracks])
        spreads = np.array([look.covariance_mm2 for look in looks])
        innovations = _innovations(motions, looks, spreads)
        rows, columns = assigned_pairs(_costs(self._tracks, looks, innovations, spreads))
        if len(rows):
            assigned = innovations.of(rows, columns)
            self.innovations = assigned.squared.tolist()
            tracks, looks = [self._tracks[i] for i in rows], [looks[i] for i in columns]
            motions = motions.of(rows)
            waits_s = np.array([self._now_s - track.seen_s for track in tracks])
            relative = np.array([look.relative_mm for look in looks])
            smooth = SmoothJoints.stacked([track.smooth for track in tracks]).next(
                relative,
                np.array([look.seen.person.joint_status for look in looks]),
                waits_s,
                smoothing,
            )
            scores = np.array([look.seen.person.joint_scores for look in looks])
            axes = body_axes(relative, self._skeleton)
            corrected = motions.corrected(assigned, _OUTLIER)
            corrected = corrected.walking(axes[..., 1], self._sideways_mm_s(scores), waits_s)
            swings = Swing.stacked([track.swing for track in tracks]).next(
                gait.ankles_mm(relative, self._skeleton),
                gait.forward(axes, view.vertical.up if view.vertical.known else None),
                waits_s,
            )
            learned = BoxFromPose.stacked([track.box_from_pose for track in tracks]).learn(
                np.array([look.seen.person.bbox_xywh_px for look in looks]),
                np.array([look.seen.person.joints_px for look in looks]),
                view.intrinsics,
                np.array([look.seen.detected for look in looks]),
            )
            colours = appearance.remembered(
                np.array([track.colours for track in tracks]),
                np.array([look.colours for look in looks]),
            )
            news = corrected.each(), smooth.each(), learned.each(), swings.each(), colours
            for track, look, *of_track in zip(tracks, looks, *news, strict=True):
                track.see(look, *of_track, self._now_s)
        return dict(zip(rows.tolist(), columns.tolist(), strict=True))

    def _sideways_mm_s(self, joint_scores: FloatArray) -> FloatArray:
        """Of people's scores (N, J) how fast they may go to their body's side (N,): standard
        deviation, as they may look elsewhere than it seems."""
        error = self._root_error
        turned = error.heading_rad * error.doubt(joint_scores) * SPEED_MM_S
        return np.hypot(SIDEWAYS_MM_S, turned)

    def _people(self, view: _View, smoothing: SmoothingOptions) -> list[Person]:
        """As published for this image; whose joints were moved is oriented anew."""
        tracks, now_s = self._tracks, self._now_s
        if not tracks:
            return []
        people = [one.seen if one.seen_s == now_s else one.predicted(view) for one in tracks]
        motions = Motion.stacked([track.motion for track in tracks])
        # What successive errors have in common no filter takes away.
        spreads = np.array([track.covariance_mm2 for track in tracks])
        changing = np.array([track.fresh_mm2 for track in tracks])
        spreads = motions.position_covariance_mm2 + spreads - changing
        covariances = view.turned_to_camera(spreads)
        roots = view.to_camera(motions.position_mm)
        roots_px = view.pixels(roots, np.array([person.root_px for person in people]))
        relative = np.array([track.relative_mm for track in tracks])
        if smoothing.enabled:
            relative = SmoothJoints.stacked([one.smooth for one in tracks]).where_seen(relative)
        joints = roots[:, None] + relative @ view.rotation
        joints_px = view.pixels(joints, np.array([person.joints_px for person in people]))
        moved = np.array([smoothing.enabled or track.seen_s != now_s for track in tracks])
        scores = np.array([person.joint_scores for person in people])
        turned = iter(orientations(joints[moved], scores[moved], self._skeleton, self._root_error))
        for i, tracking in enumerate(self._tracking(motions, view)):
            if not moved[i]:
                people[i] = replace(people[i], tracking=tracking)
                continue
            orientation_xyzw, turn_covariance = next(turned)
            people[i] = replace(
                people[i],
                root_mm=roots[i],
                root_covariance_mm2=covariances[i],
                root_px=roots_px[i],
                joints_mm=joints[i],
                joints_px=joints_px[i],
                root_orientation_xyzw=orientation_xyzw,
                root_orientation_covariance=turn_covariance,
                tracking=tracking,
            )
        return people

    def _tracking(self, motions: Motion, view: _View) -> Iterator[Tracking]:
        """Of all tracks."""
        velocities, spreads = motions.velocity_mm_s, motions.velocity_covariance_mm2_s2
        if self._camera_known:  # else the ground may move, too
            swings = Swing.stacked([track.swing for track in self._tracks])
            velocities, spreads = swings.velocity(velocities, spreads)
        known = np.linalg.eigvalsh(spreads)[:, -1] <= _MAX_VELOCITY_ERROR_MM_S**2
        known &= self._clock_runs
        velocities = velocities @ view.rotation
        spreads = view.turned_to_camera(spreads)
        for track, is_known, velocity, spread in zip(
            self._tracks, known, velocities, spreads, strict=True
        ):
            told = is_known and track.state in (TrackState.TRACKED, TrackState.COASTING)
            yield Tracking(
                track.track_id,
                track.state,
                self._now_s - track.detected_s,
                velocity if told else None,
                spread if told else None,
            )


class _Look(NamedTuple):
    """A person of the image at hand, in the tracks' frame."""

    seen: Seen
    root_mm: FloatArray  # (3,)
    covariance_mm2: FloatArray  # (3, 3) of the root
    fresh_mm2: FloatArray  # (3, 3) what of that changes from image to image
    joints_mm: FloatArray  # (J, 3)
    relative_mm: FloatArray  # (J, 3) as seen from the root
    colours: FloatArray  # (P, 3) of the clothes, not a number where unseen


def _looks(seen: Sequence[Seen], view: _View) -> list[_Look]:
    if not seen:
        return []
    people = [one.person for one in seen]
    roots = view.to_tracks(np.array([person.root_mm for person in people]))
    spreads = view.turned_to_tracks(np.array([person.root_covariance_mm2 for person in people]))
    joints = view.to_tracks(np.array([person.joints_mm for person in people]))
    unseen = appearance.UNSEEN
    colours = [unseen if person.colours is None else person.colours for person in people]
    relative = joints - roots[:, None]
    return list(map(_Look, seen, roots, spreads, fresh(spreads), joints, relative, colours))


class _Track:
    """One person over time."""

    def __init__(self, track_id: int, look: _Look, now_s: float, view: _View) -> None:
        self.track_id = track_id
        self.state = TrackState.TENTATIVE
        self.hits = 1  # by DetectNet
        self.seen_s = self.detected_s = now_s
        self.motion = Motion.at(look.root_mm, look.covariance_mm2, view.vertical)
        # The filter starts with what it sees, whatever its options are.
        self.smooth = SmoothJoints.start(look.relative_mm)
        person = look.seen.person
        self.box_from_pose = BoxFromPose.usual().learn(
            person.bbox_xywh_px, person.joints_px, view.intrinsics, look.seen.detected
        )
        self._joint_score = float(person.joint_scores.mean())
        self.colours = look.colours
        self.swing = Swing.unknown()
        self._keep(look)

    def _keep(self, look: _Look) -> None:
        person = look.seen.person
        self.seen, self.box = person, person.bbox_xywh_px
        self.covariance_mm2, self.fresh_mm2 = look.covariance_mm2, look.fresh_mm2
        self.joints_mm, self.relative_mm = look.joints_mm, look.relative_mm  # unsmoothed
        self.anchor_mm = self.motion.position_mm

    def expect(self, motion: Motion, joints_px: FloatArray, box: FloatArray) -> None:
        """Takes in where the person should be now."""
        self.motion, self._joints_px, self.box = motion, joints_px, box

    def expected(self, now_s: float) -> Expected:
        return Expected(
            self.track_id,
            self.box,
            self.seen.score,
            self.state,
            self._joint_score,
            now_s - self.detected_s,
        )

    def see(
        self,
        look: _Look,
        motion: Motion,
        smooth: SmoothJoints,
        box_from_pose: BoxFromPose,
        swing: Swing,
        colours: FloatArray,
        now_s: float,
    ) -> None:
        """Takes the image's person in.

        :param motion, smooth, box_from_pose, swing, colours: with it.
        """
        self.motion, self.smooth, self.seen_s = motion, smooth, now_s
        self.box_from_pose, self.swing, self.colours = box_from_pose, swing, colours
        if look.seen.detected:
            self.hits, self.detected_s = self.hits + 1, now_s
            # Not of expected boxes: there may be nobody in them, less and less usual.
            score = float(look.seen.person.joint_scores.mean())
            self._joint_score += _SCORE_SHARE * (score - self._joint_score)
        self._keep(look)
        self.state = TrackState.TRACKED

    def miss(self, now_s: float, options: TrackingOptions) -> None:
        unseen_s = now_s - self.seen_s
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

    def predicted(self, view: _View) -> Person:
        """Nobody sees these joints."""
        pixels = self._joints_px
        root_px = view.project(self.motion.position_mm)
        known = np.isfinite(pixels).all(axis=1)
        inside = camera.inside(pixels, view.intrinsics)
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


def _innovations(motions: Motion, looks: Sequence[_Look], spreads: FloatArray) -> Innovation:
    """(N, M) of each of the M people's roots against each of the N tracks.

    :param spreads: (M, 3, 3) the roots' covariances.
    """
    return Motion(motions.mean[:, None], motions.covariance[:, None]).innovation(
        np.array([look.root_mm for look in looks]), spreads
    )


def _costs(
    tracks: Sequence[_Track],
    looks: Sequence[_Look],
    innovations: Innovation,
    spreads: FloatArray,
) -> FloatArray:
    """(N, M) of each of the M people being each track's."""
    # Errors that last are the track's too, but not those of another person.
    changing = np.array([look.fresh_mm2 for look in looks])
    expected = innovations.covariance_mm2 + spreads - changing
    distances = innovations._replace(covariance_mm2=expected).squared
    joints = np.array([look.relative_mm for look in looks])
    were = np.array([track.relative_mm for track in tracks])
    apart = np.linalg.norm(joints - were[:, None], axis=-1)  # (N, M, J)
    known = np.isfinite(apart)
    count = known.sum(-1)
    apart = np.where(known, apart, 0).sum(-1) / np.maximum(count, 1)
    unlike = np.where(count > 0, np.minimum(apart / _JOINT_SCALE_MM, 1.0), 1.0)
    overlap = box_iou(
        np.array([track.box for track in tracks]),
        np.array([look.seen.person.bbox_xywh_px for look in looks]),
    )
    colours = np.array([look.colours for look in looks])
    strange = appearance.unlike(colours, np.array([track.colours for track in tracks])[:, None])
    strange = np.minimum(np.where(np.isnan(strange), _UNSEEN_CLOTHES, strange / _OTHER_CLOTHES), 1)
    # Of somebody out of sight the last pose and box say less.
    weights = [_COASTING_WEIGHT if track.state == TrackState.COASTING else 1.0 for track in tracks]
    shape = np.array(weights)[:, None] * (unlike + 1 - overlap)
    return np.asarray(distances / _GATE + shape + _CLOTHES_WEIGHT * strange)


def assigned_pairs(costs: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows and columns of the likely pairs of least total cost.

    Unlikely ones have a part in the total: of two people who might both be this track's, one may
    well be nobody's, but the other stands next to another track.

    :param costs: (N, M)
    """
    beyond = np.minimum(_BEYOND * np.maximum(costs - _MAX_COST, 0), _MAX_COST)
    rows, columns = linear_sum_assignment(np.minimum(costs, _MAX_COST) + beyond)
    likely = costs[rows, columns] <= _MAX_COST
    return rows[likely], columns[likely]


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
