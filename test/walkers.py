"""People as numbers: stick figures that walk, stop and cross, and a pipeline that sees them.

The pipeline errs as its covariance says, so that tracking is tested apart from any network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mppe_ros import camera
from mppe_ros.boxes import box_iou
from mppe_ros.evaluation.truth import Photo, PhotoSet, TruePerson
from mppe_ros.kalman import FRESH_TIME_S, fresh
from mppe_ros.pipeline import PipelineOptions
from mppe_ros.skeletons import MUCO_21
from mppe_ros.structures import Detections, Intrinsics, JointStatus, Person, RootError

CAMERA = Intrinsics(400, 400, 239.5, 179.5, 480, 360)
ERROR = RootError(along=0.05, across_mm=40.0, tilt_rad=0.1, heading_rad=0.3, fused_mm=60.0)
FPS = 15.0
# The camera's place in a world whose floor is z = 0, m; it looks along the world's y axis.
LEVEL = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0.95], [0, 0, 0, 1]])
BOB_MM, BOB_HZ = 25.0, 1.8  # of a walker's pelvis: half of its way up and down
JOINT_NOISE_MM = 25.0

# A standing person, mm, pelvis at the origin: x to the person's right, y down, z to the front.
_STANDING = {
    "Head_top": (0, -720, 0), "Thorax": (0, -480, 0),
    "R_Shoulder": (180, -450, 0), "R_Elbow": (230, -180, 0), "R_Wrist": (240, 60, 40),
    "L_Shoulder": (-180, -450, 0), "L_Elbow": (-230, -180, 0), "L_Wrist": (-240, 60, 40),
    "R_Hip": (110, 20, 0), "R_Knee": (110, 430, 20), "R_Ankle": (110, 850, 0),
    "L_Hip": (-110, 20, 0), "L_Knee": (-110, 430, 20), "L_Ankle": (-110, 850, 0),
    "Pelvis": (0, 0, 0), "Spine": (0, -240, 0), "Head": (0, -600, 30),
    "R_Hand": (240, 140, 60), "L_Hand": (-240, 140, 60),
    "R_Toe": (110, 880, 150), "L_Toe": (-110, 880, 150),
}  # fmt: skip
STANDING_MM = np.array([_STANDING[name] for name in MUCO_21.joint_names], np.float64)
ANKLE_MM = 850.0  # below the pelvis
_SWINGING = {"R_Knee": 0.5, "R_Ankle": 1.0, "R_Toe": 1.0, "L_Knee": -0.5, "L_Ankle": -1.0,
             "L_Toe": -1.0, "R_Wrist": -0.7, "R_Hand": -0.8, "L_Wrist": 0.7,
             "L_Hand": 0.8}  # fmt: skip


def figure_mm(
    root_mm: np.ndarray, velocity_mm_s: np.ndarray, phase: float, scale: float = 1.0
) -> np.ndarray:
    """(21, 3) of a walker, camera frame: faces where it goes, limbs swing with its speed.

    :param phase: of its stride, in strides.
    """
    joints = STANDING_MM * scale
    speed = float(np.hypot(velocity_mm_s[0], velocity_mm_s[2]))
    reach = min(speed, 1500.0) * 0.22 * math.sin(2 * math.pi * phase)
    for name, share in _SWINGING.items():
        joints[MUCO_21.joint_names.index(name), 2] += share * reach
    heading = math.atan2(velocity_mm_s[0], velocity_mm_s[2]) if speed > 50 else math.pi
    c, s = math.cos(heading), math.sin(heading)
    return joints @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + root_mm


@dataclasses.dataclass(frozen=True)
class Walker:
    """Goes from point to point at its own pace, with a rest at some of them."""

    knots_s: np.ndarray
    points_mm: np.ndarray  # (N, 2) x, z
    phase: float
    scale: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, seconds: float) -> Walker:
        times, points = [0.0], [np.array([rng.uniform(-1800, 1800), rng.uniform(3000, 6500)])]
        while times[-1] < seconds:
            if rng.random() < 0.2:
                times.append(times[-1] + rng.uniform(0.5, 1.5))
                points.append(points[-1])
            target = np.array([rng.uniform(-1800, 1800), rng.uniform(3000, 6500)])
            times.append(times[-1] + np.linalg.norm(target - points[-1]) / rng.uniform(800, 1500))
            points.append(target)
        phase, scale = float(rng.random()), float(rng.uniform(0.9, 1.1))
        return cls(np.array(times), np.array(points), phase, scale)

    def roots_mm(self, times_s: np.ndarray) -> np.ndarray:
        """(T, 3); corners are rounded over half a second, as people turn, and each step lifts."""
        around = times_s[:, None] + np.linspace(-0.3, 0.3, 7)
        x, z = (np.interp(around, self.knots_s, self.points_mm[:, i]).mean(1) for i in (0, 1))
        on_feet = ANKLE_MM * (1 - self.scale)  # everybody's ankles are at the same height
        return np.stack([x, on_feet + self._bob_mm(times_s), z], axis=1)

    def _bob_mm(self, times_s: np.ndarray) -> np.ndarray:
        """(T,) of the pelvis, while it goes somewhere."""
        leg = np.searchsorted(self.knots_s, times_s, side="right").clip(1, len(self.knots_s) - 1)
        walks = (self.points_mm[leg] != self.points_mm[leg - 1]).any(axis=1)
        return BOB_MM * walks * np.sin(2 * np.pi * BOB_HZ * times_s + self.phase)

    def joints_mm(self, times_s: np.ndarray) -> list[np.ndarray]:
        """(21, 3) at each time."""
        roots = self.roots_mm(times_s)
        velocities = (self.roots_mm(times_s + 0.02) - self.roots_mm(times_s - 0.02)) / 0.04
        phases = 0.9 * times_s + self.phase
        return [
            figure_mm(*state, self.scale) for state in zip(roots, velocities, phases, strict=True)
        ]

    def collides(self, other: Walker, times_s: np.ndarray) -> bool:
        apart = np.linalg.norm(self.roots_mm(times_s) - other.roots_mm(times_s), axis=1)
        return bool(apart.min() < 500)


class Film(PhotoSet):
    """Black pictures; who is there is in the truth."""

    def pictures(self, every: int = 1) -> Iterator[tuple[Photo, np.ndarray]]:
        for photo in self.photos[::every]:
            yield photo, np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)


def true_person(joints_mm: np.ndarray, track_id: int, visible: float = 1.0) -> TruePerson:
    pixels = camera.project(joints_mm, CAMERA)
    size = np.ptp(pixels, axis=0).max()
    low, high = pixels.min(axis=0) - 0.06 * size, pixels.max(axis=0) + 0.06 * size
    low = np.clip(low, 0, (CAMERA.width, CAMERA.height))
    high = np.clip(high, 0, (CAMERA.width, CAMERA.height))
    return TruePerson(np.concatenate([low, high - low]), pixels, joints_mm, visible, track_id)


def hidden_share(box: np.ndarray, nearer: list[np.ndarray]) -> float:
    """Of a box, what the nearer ones cover; a body fills the middle of its box."""
    left, right = box[0], box[0] + box[2]
    columns = np.linspace(left, right, 20)
    covered = np.zeros(20, bool)
    for other in nearer:
        covered |= np.abs(columns - other[0] - other[2] / 2) < 0.3 * other[2]
    return float(covered.mean())


def draw_film(seed: int, people: int = 4, frames: int = 150) -> Film:
    """People who walk criss-cross before a camera that stands still."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(frames) / FPS
    walkers: list[Walker] = []
    while len(walkers) < people:
        one = Walker.drawn(rng, frames / FPS)
        if not any(one.collides(other, times_s) for other in walkers):
            walkers.append(one)
    photos = []
    for frame, poses in enumerate(zip(*(one.joints_mm(times_s) for one in walkers), strict=True)):
        everybody = [true_person(pose, number) for number, pose in enumerate(poses, 1)]
        everybody.sort(key=lambda person: person.joints_mm[14, 2])
        boxes = [person.bbox_xywh_px for person in everybody]
        seen = [
            dataclasses.replace(
                person, visible_fraction=1 - hidden_share(person.bbox_xywh_px, boxes[:index])
            )
            for index, person in enumerate(everybody)
        ]
        clear = tuple(p for p in seen if p.visible_fraction >= 0.3 and _in_view(p))
        hidden = tuple(p for p in seen if p.visible_fraction < 0.3 and _in_view(p))
        photos.append(Photo(str(frame), CAMERA, clear, hidden, LEVEL))
    return Film(f"walkers-{seed}", MUCO_21.joint_names, tuple(photos), Path(), None, FPS)


def _in_view(person: TruePerson) -> bool:
    return min(person.bbox_xywh_px[2:]) > 20


class WalkersPipeline:
    """Sees a film's people, with errors drawn from the covariance that it states.

    Of the root's variance `kalman.fresh` changes from image to image, the rest stays with each
    person.

    :param recall: share of the detections that succeed.
    """

    skeleton, model, root_error = MUCO_21, "walkers (0)", ERROR
    device, precision, sharpness = torch.device("cpu"), torch.float32, None

    def __init__(self, film: Film, seed: int = 0, recall: float = 0.97) -> None:
        self.options = PipelineOptions()
        self.stage_ms: dict[str, float] = {}
        self._photos = iter(film.photos)
        self._rng = np.random.default_rng(seed)
        self._recall = recall
        self._lasting: dict[int, np.ndarray] = {}
        self._fresh: dict[int, np.ndarray] = {}  # as of the last image

    def upload(self, images, intrinsics):
        self._photo = next(self._photos)
        return images

    def detect(self, images):
        found = [
            (person.bbox_xywh_px + self._rng.normal(0, 0.01, 4) * person.bbox_xywh_px[3])
            for person in self._photo.people
            if self._rng.random() < self._recall
        ]
        return [Detections(np.array(found).reshape(-1, 4), np.full(len(found), 0.9))]

    def estimate(self, images, intrinsics, detections):
        (found,) = detections
        boxes = found.boxes_xywh_px
        return [
            [self._look(box, float(score)) for box, score in zip(boxes, found.scores, strict=True)]
        ]

    def _look(self, box: np.ndarray, score: float) -> Person:
        """The person that fills the box best; a blunt heatmap where there is none."""
        people = self._photo.people
        overlap = box_iou(box, np.array([p.bbox_xywh_px for p in people]).reshape(-1, 4))[0]
        if not len(people) or overlap.max() < 0.3:
            nobody = figure_mm(np.array([0.0, 0, 4000]), np.zeros(3), 0.0)
            return self.person(true_person(nobody, 0), box, score, sharpness=0.1)
        return self.person(people[int(overlap.argmax())], box, score)

    def person(
        self, truth: TruePerson, box: np.ndarray, score: float, sharpness: float = 0.7
    ) -> Person:
        root = truth.joints_mm[MUCO_21.root_index]
        covariance = camera.ray_covariance(root, ERROR.along * np.linalg.norm(root), 40.0)
        seen_root = root + self._error(truth.track_id, covariance)
        noise = self._rng.normal(0, JOINT_NOISE_MM, truth.joints_mm.shape)
        joints = seen_root + truth.joints_mm - root + noise
        count = len(joints)
        return Person(
            score=score,
            bbox_xywh_px=box,
            root_px=camera.project(seen_root, CAMERA),
            root_mm=seen_root,
            root_covariance_mm2=covariance,
            joints_px=camera.project(root + truth.joints_mm - root + noise, CAMERA),
            joints_mm=joints,
            joint_scores=np.full(count, sharpness),
            joint_status=np.full(count, JointStatus.OK, np.uint8),
        )

    def _error(self, track_id: int, covariance: np.ndarray) -> np.ndarray:
        """(3,) one image after the last that this person was seen in."""
        new = self._rng.normal(size=3)
        kept = math.exp(-1 / FPS / FRESH_TIME_S)
        lasting = self._lasting.setdefault(track_id, self._rng.normal(size=3))
        last = self._fresh.get(track_id)
        changing = new if last is None else kept * last + math.sqrt(1 - kept**2) * new
        self._fresh[track_id] = changing
        of_change = fresh(covariance)
        of_lasting = np.linalg.cholesky(covariance - of_change)
        return np.linalg.cholesky(of_change) @ changing + of_lasting @ lasting


if __name__ == "__main__":  # the figures of docs/tracking.md
    from mppe_ros.evaluation import tracking

    films = [draw_film(seed, people=3, frames=120) for seed in range(10)]
    for up in (True, False):
        takes = [
            tracking.run(WalkersPipeline(film, seed), film, camera_known=up)
            for seed, film in enumerate(films)
        ]
        print(tracking.table(tracking.record(WalkersPipeline(films[0]), takes, takes, up)))
