"""Poses: free motion capture (CMU), procedural poses and gestures, walking along a path.

A pose is skeleton-free: the world rotation of each body segment, relative to the *upright* person
who stands straight, arms hanging, palms at the thighs, facing -y (z up). Any body can take it.
"""

from __future__ import annotations

import gzip
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import rotations

Array = NDArray[np.float64]

_SIDED = ("upperarm", "forearm", "hand", "thigh", "shank", "foot", "toes")
SEGMENTS = ("pelvis", "spine", "chest", "neck", "head") + tuple(
    f"{segment}_{side}" for side in "LR" for segment in _SIDED
)
SEGMENT_INDEX = {name: i for i, name in enumerate(SEGMENTS)}
ARM_L, ARM_R = (
    [SEGMENT_INDEX[f"{s}_{side}"] for s in ("upperarm", "forearm", "hand")] for side in "LR"
)
LEGS = [SEGMENT_INDEX[f"{s}_{side}"] for side in "LR" for s in ("thigh", "shank", "foot", "toes")]
TRUNK = [SEGMENT_INDEX[s] for s in ("spine", "chest", "neck", "head")]
CHEST, HEAD, NECK = (SEGMENT_INDEX[s] for s in ("chest", "head", "neck"))

# How much each finger takes part in a curl; the thumb least.
FINGERS = {1: 0.35, 2: 0.9, 3: 1.0, 4: 1.0, 5: 1.0}

CMU_UNIT_M = 0.056444  # a length in the ASF and AMC files, in metres
CMU_RATE_HZ = 30.0  # of the decimated files; the originals run at 120
# CMU: y up, facing +z, left at +x. Here: z up, facing -y, left at +x.
_FROM_CMU = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True)
class Pose:
    """One instant of one person."""

    rotations: Array  # (segments, 3, 3), upright -> world
    position_m: Array = field(default_factory=lambda: np.zeros(3))  # hips' middle, world
    finger_curl: tuple[float, float] = (0.25, 0.25)  # radians per joint: left, right

    def turned(self, degrees: float) -> Pose:
        """Turn about the world's vertical; positive turns to the left."""
        turn = rotations.about("z", degrees)
        return replace(self, rotations=turn @ self.rotations, position_m=turn @ self.position_m)

    def moved(self, offset_m: Array) -> Pose:
        """Shift in the world."""
        return replace(self, position_m=self.position_m + offset_m)


def blend(a: Pose, b: Pose, share: float, segments: Sequence[int] | None = None) -> Pose:
    """Go from one pose towards another.

    :param share: 0 = a, 1 = b.
    :param segments: only these move, and the position stays; default all.
    """
    if segments is None:
        position = a.position_m + share * (b.position_m - a.position_m)
        segments = range(len(SEGMENTS))
    else:
        position = a.position_m
    index = np.array(segments)
    mixed = a.rotations.copy()
    mixed[index] = rotations.between(a.rotations[index], b.rotations[index], share)
    return replace(a, rotations=mixed, position_m=position)


@dataclass(frozen=True)
class Clip:
    """A motion: poses at a fixed rate."""

    name: str
    rotations: Array  # (T, segments, 3, 3)
    positions_m: Array  # (T, 3), hips' middle, of the recorded subject
    leg_m: float  # the subject's thigh plus shank
    rate_hz: float = CMU_RATE_HZ

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def duration_s(self) -> float:
        """Time from the first pose to the last."""
        return (len(self) - 1) / self.rate_hz

    def at(self, time_s: float) -> Pose:
        """Interpolate the pose at a time; the ends hold."""
        frame = min(max(time_s * self.rate_hz, 0.0), len(self) - 1.0)
        low = min(int(frame), len(self) - 2)
        a = Pose(self.rotations[low], self.positions_m[low])
        return blend(a, Pose(self.rotations[low + 1], self.positions_m[low + 1]), frame - low)

    def part(self, start: int, stop: int) -> Clip:
        """Cut out frames start to stop - 1."""
        return replace(
            self, rotations=self.rotations[start:stop], positions_m=self.positions_m[start:stop]
        )


# ---- CMU motion capture -------------------------------------------------------------------------


@dataclass(frozen=True)
class _AsfBone:
    direction: Array  # (3,), unit
    length: float
    axis: Array  # (3, 3)
    dof: str  # letters of "xyz" in file order


def read_cmu(folder: Path) -> list[Clip]:
    """Read all CMU motions of a folder.

    :param folder: ``NN.asf`` skeletons with ``NN_MM.amc`` or ``NN_MM.amc.gz`` motions at 30 Hz.
    :return: clips sorted by name; empty when the folder has none.
    """
    clips = []
    for path in sorted(folder.glob("*_*.amc*")):
        name = path.name.split(".")[0]
        bones, parents = _read_asf(folder / f"{name.split('_')[0]}.asf")
        clips.append(_read_amc(path, name, bones, parents))
    return clips


def _read_asf(path: Path) -> tuple[dict[str, _AsfBone], dict[str, str]]:
    bones: dict[str, _AsfBone] = {}
    parents: dict[str, str] = {}
    section, values = "", dict[str, list[str]]()
    for line in path.read_text().splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            section = words[0]
        elif section == ":bonedata":
            if words[0] == "begin":
                values = {}
            elif words[0] == "end":
                direction = np.array([float(w) for w in values["direction"]])
                bones[values["name"][0]] = _AsfBone(
                    direction / np.linalg.norm(direction),
                    float(values["length"][0]),
                    rotations.euler("xyz", [float(w) for w in values["axis"][:3]]),
                    "".join(word[1] for word in values.get("dof", [])),
                )
            else:
                values[words[0]] = words[1:]
        elif section == ":hierarchy" and words[0] not in ("begin", "end"):
            parents.update(dict.fromkeys(words[1:], words[0]))
    return bones, parents


def _read_amc(path: Path, name: str, bones: dict[str, _AsfBone], parents: dict[str, str]) -> Clip:
    opener: Callable[[Path], bytes] = (
        (lambda p: gzip.decompress(p.read_bytes())) if path.suffix == ".gz" else Path.read_bytes
    )
    channels: dict[str, list[list[float]]] = {}
    for line in opener(path).decode("ascii", "ignore").splitlines():
        words = line.split()
        if len(words) > 1 and words[0][0] not in "#:":
            channels.setdefault(words[0], []).append([float(w) for w in words[1:]])
    root = np.array(channels["root"])
    turns = {"root": rotations.euler("xyz", root[:, 3:])}
    for bone, parent in parents.items():  # parents come first in the file
        turn = turns[parent]
        if bone in channels:
            axis = bones[bone].axis
            turn = turn @ axis @ rotations.euler(bones[bone].dof, channels[bone]) @ axis.T
        turns[bone] = turn
    hips = [turns[f"{s}hipjoint"] @ bones[f"{s}hipjoint"].direction for s in "lr"]
    middle = (hips[0] + hips[1]) / 2 * bones["lhipjoint"].length
    positions = (root[:, :3] + middle) * CMU_UNIT_M @ _FROM_CMU.T
    leg = (bones["lfemur"].length + bones["ltibia"].length) * CMU_UNIT_M
    segments = np.stack([_segment_from_cmu(s, turns, bones) for s in SEGMENTS], axis=1)
    return Clip(name, _FROM_CMU @ segments @ _FROM_CMU.T, positions, leg)


_CMU_NAMES = {
    "pelvis": "root",
    "spine": "lowerback",
    "chest": "thorax",
    "neck": "upperneck",
    "head": "head",
    "upperarm": "humerus",
    "forearm": "radius",
    "hand": "hand",
    "thigh": "femur",
    "shank": "tibia",
    "foot": "foot",
    "toes": "toes",
}


def _segment_from_cmu(segment: str, turns: dict[str, Array], bones: dict[str, _AsfBone]) -> Array:
    """World rotations (T, 3, 3) of a segment relative to upright, in CMU's axes.

    CMU's reference posture has arms sideways and legs apart, so limbs first hang down to it.
    """
    part, _, side = segment.partition("_")
    bone = side.lower() + _CMU_NAMES[part]
    if part == "hand":  # marker sets of 2000 saw hands badly: half of what they say, and the twist
        arm_bone = side.lower() + "radius"
        hang = rotations.align([0.0, -1.0, 0.0], bones[arm_bone].direction)
        return rotations.between(turns[arm_bone] @ hang, turns[bone] @ hang, 0.4)
    if part in ("upperarm", "forearm", "thigh", "shank"):
        return turns[bone] @ rotations.align([0.0, -1.0, 0.0], bones[bone].direction)
    return turns[bone]


# ---- procedural poses ---------------------------------------------------------------------------


_PARENTS = {"spine": "pelvis", "chest": "spine", "neck": "chest", "head": "neck"}
for _side in "LR":
    _chain = ["chest", *(f"{s}_{_side}" for s in _SIDED[:3])]
    _PARENTS |= dict(zip(_chain[1:], _chain[:-1], strict=True))
    _chain = ["pelvis", *(f"{s}_{_side}" for s in _SIDED[3:])]
    _PARENTS |= dict(zip(_chain[1:], _chain[:-1], strict=True))

# Directions of turning, seen from the person: +x is its left, it faces -y.
#   about x: negative raises a limb forward, positive backward (knees bend with positive).
#   about y: away from the body for the right side with positive, for the left with negative.


def arm(
    side: str, forward: float, sideways: float, inward: float, bend: float
) -> dict[str, Array]:
    """Pose an arm; all angles in degrees.

    :param forward: raise forward (negative: backward).
    :param sideways: raise sideways, before ``forward``.
    :param inward: turn the upper arm about its axis, so that a bent forearm crosses the chest.
    :param bend: elbow, 0 straight.
    """
    sign = 1 if side == "L" else -1
    upper = (
        rotations.about("x", -forward)
        @ rotations.about("y", -sign * sideways)
        @ rotations.about("z", -sign * inward)
    )
    return {f"upperarm_{side}": upper, f"forearm_{side}": rotations.about("x", -bend)}


def leg(
    side: str, forward: float, sideways: float, bend: float, outward: float = 0, point: float = 0
) -> dict[str, Array]:
    """Pose a leg; all angles in degrees.

    :param forward: hip flexion.
    :param sideways: hip abduction.
    :param bend: knee, 0 straight.
    :param outward: turn the leg about its axis, toes outward.
    :param point: ankle; positive points the toes down.
    """
    sign = 1 if side == "L" else -1
    thigh = (
        rotations.about("x", -forward)
        @ rotations.about("y", -sign * sideways)
        @ rotations.about("z", sign * outward)
    )
    return {
        f"thigh_{side}": thigh,
        f"shank_{side}": rotations.about("x", bend),
        f"foot_{side}": rotations.about("x", point),
    }


def trunk(lean: float, side: float, turn: float, nod: float, look: float) -> dict[str, Array]:
    """Bend the trunk: lean forward, to the side, turn left; nod and look left; degrees."""
    half = rotations.euler("xyz", [lean / 2, side / 2, turn / 2])
    neck = rotations.euler("xyz", [nod / 2, 0, look / 2])
    return {"spine": half, "chest": half, "neck": neck, "head": neck}


_ARM_STYLES: dict[str, tuple[tuple[float, float], ...]] = {
    # forward, sideways, inward, bend: (mean, spread) in degrees
    "hang": ((2, 9), (7, 5), (5, 20), (14, 10)),
    "gesture": ((25, 18), (18, 14), (25, 28), (82, 24)),
    "reach": ((75, 32), (12, 22), (0, 25), (25, 22)),
    "raise": ((135, 30), (25, 22), (0, 30), (35, 30)),
    "side": ((5, 18), (75, 28), (0, 30), (25, 28)),
    "hip": ((-18, 8), (42, 8), (48, 10), (98, 12)),
    "fold": ((32, 8), (4, 6), (72, 10), (104, 10)),
    "face": ((62, 14), (14, 12), (28, 14), (138, 10)),
    "pocket": ((-10, 6), (17, 5), (10, 10), (38, 9)),
    "behind": ((-28, 8), (12, 6), (52, 10), (62, 14)),
    "carry": ((22, 8), (6, 5), (6, 8), (78, 9)),
}
_ARM_ODDS = {
    "hang": 0.27,
    "gesture": 0.16,
    "reach": 0.11,
    "raise": 0.08,
    "side": 0.06,
    "hip": 0.06,
    "fold": 0.06,
    "face": 0.06,
    "pocket": 0.05,
    "behind": 0.03,
    "carry": 0.06,
}
_BOTH_ARMS = ("fold", "carry")  # arms that always do it together


def _chosen(rng: np.random.Generator, odds: Mapping[str, float]) -> str:
    """What ``rng.choice`` with probabilities chooses, at a fraction of its overhead."""
    bounds = list(accumulate(odds.values()))
    return list(odds)[bisect_right([bound / bounds[-1] for bound in bounds], rng.random())]


def draw_arms(rng: np.random.Generator) -> dict[str, Array]:
    """Draw what both arms do: hang, gesture, touch the own body, reach, carry, ..."""
    first, second = (_chosen(rng, _ARM_ODDS) for _ in range(2))
    if second in _BOTH_ARMS:
        first = second
    elif first in _BOTH_ARMS or rng.random() < 0.35:
        second = first
    angles: dict[str, Array] = {}
    order = "LR" if rng.random() < 0.5 else "RL"
    for side, style in zip(order, (first, second), strict=True):
        forward, sideways, inward, bend = (rng.normal(*s) for s in _ARM_STYLES[style])
        angles |= arm(side, forward, max(sideways, 2.0), inward, float(np.clip(bend, 0, 150)))
        angles[f"hand_{side}"] = rotations.euler("xyz", rng.normal(0, [15, 8, 25]))
    return angles


def draw_legs(rng: np.random.Generator, style: str) -> dict[str, Array]:
    """Draw both legs of a style: "stand", "stride", "sit", "crouch" or "free"."""
    angles: dict[str, Array] = {}
    if style == "stride":
        reach = rng.uniform(8, 45) * rng.choice([-1, 1])
        for side, forward in (("L", reach), ("R", -reach * rng.uniform(0.4, 0.8))):
            bend = rng.uniform(3, 25) if forward > 0 else rng.uniform(5, 65)
            forward += bend * 0.3
            angles |= leg(side, forward, rng.normal(2, 3), bend, rng.normal(6, 6))
        return angles
    spread = abs(rng.normal(4, 9)) if rng.random() < 0.7 else rng.uniform(8, 30)
    bend_both = rng.uniform(60, 140)
    for side in "LR":
        outward = rng.normal(9, 9)
        if style == "stand":
            bend = abs(rng.normal(3, 6)) + (rng.random() < 0.25) * rng.uniform(5, 35)
            angles |= leg(side, bend * 0.55, spread + rng.normal(0, 2), bend, outward)
        elif style == "sit":
            bend = float(np.clip(rng.normal(85, 18), 20, 125))
            angles |= leg(side, rng.normal(86, 8), abs(rng.normal(9, 9)), bend, outward)
        elif style == "crouch":
            bend = float(np.clip(bend_both + rng.normal(0, 14), 20, 150))
            angles |= leg(side, bend * 0.78 + rng.normal(0, 12), abs(rng.normal(14, 12)), bend)
        else:
            angles |= leg(side, rng.uniform(-25, 115), rng.uniform(-8, 45), rng.uniform(0, 130))
    return angles


_LEG_ODDS = {"stand": 0.44, "stride": 0.2, "sit": 0.18, "crouch": 0.09, "free": 0.09}


def draw_pose(rng: np.random.Generator, style: str | None = None) -> tuple[Pose, str]:
    """Draw a procedural pose that faces -y; positions come later, from what it rests on.

    :param style: one of draw_legs' styles, or "lie"; default by odds of everyday life.
    :return: the pose and its style.
    """
    if style is None:
        lying = rng.random() < 0.04
        style = "lie" if lying else _chosen(rng, _LEG_ODDS)
    legs = str(rng.choice(["free", "stand"])) if style == "lie" else style
    angles = draw_legs(rng, legs)
    angles |= draw_arms(rng)
    lean = {"sit": rng.normal(4, 13), "crouch": rng.normal(30, 16)}.get(style, rng.normal(2, 7))
    if style == "stand" and rng.random() < 0.12:
        lean = rng.uniform(15, 85)
    angles |= trunk(lean, *rng.normal([0, 0, 6, 0], [6, 11, 14, 24]))
    tilt = rotations.about("x", lean * 0.25)
    if style == "lie":
        tilt = rotations.about("z", rng.normal(0, 40))
        tilt = rotations.about("x", rng.choice([-90, 90])) @ tilt
    angles["pelvis"] = tilt
    pose = angles_to_pose(angles)
    curl = rng.uniform(0.0, 0.9, 2)
    return replace(pose, finger_curl=(float(curl[0]), float(curl[1]))), style


def draw_test_pose(rng: np.random.Generator) -> tuple[Pose, str]:
    """Draw a pose of the source that no network is trained on: every angle alike likely.

    :return: the pose, facing -y, and its style: "free", "sit" or "lie".
    """
    style = str(rng.choice(["free", "sit", "lie"], p=[0.76, 0.2, 0.04]))
    seated = style == "sit"
    angles = trunk(*rng.uniform([-8, -15, -25, -20, -40], [45, 15, 25, 35, 40]))
    for side in "LR":
        angles |= arm(side, *rng.uniform([-35, 2, -20, 0], [130, 70, 75, 145]))
        angles[f"hand_{side}"] = rotations.euler("xyz", rng.uniform(-25, 25, 3))
        low, high = [70.0, -5.0, 40.0, -10.0], [105.0, 30.0, 120.0, 30.0]
        if not seated:
            bend = rng.uniform(0, 90)
            low, high = [bend / 2 - 25, -4.0, bend, -10.0], [bend / 2 + 25, 28.0, bend, 30.0]
        angles |= leg(side, *rng.uniform(low, high))
    if style == "lie":
        down = rotations.about("x", rng.choice([-90, 90]))
        angles["pelvis"] = down @ rotations.about("z", rng.uniform(-180, 180))
    curl = rng.uniform(0.0, 0.9, 2)
    return replace(angles_to_pose(angles), finger_curl=(float(curl[0]), float(curl[1]))), style


def angles_to_pose(angles: dict[str, Array]) -> Pose:
    """Chain joints from the pelvis outwards.

    :param angles: by segment, (3, 3) relative to the segment that carries it; missing: straight.
    """
    world: dict[str, Array] = {}
    for segment in SEGMENTS:
        carried = world[_PARENTS[segment]] if segment in _PARENTS else np.eye(3)
        world[segment] = carried @ angles[segment] if segment in angles else carried
    return Pose(np.stack([world[segment] for segment in SEGMENTS]))


def jittered(pose: Pose, rng: np.random.Generator, degrees: float) -> Pose:
    """Turn each joint a little, everything beyond it included."""
    noise = rotations.from_rotation_vectors(
        np.radians(degrees) * rng.normal(size=(len(SEGMENTS), 3))
    )
    world = pose.rotations
    moved = world.copy()
    for i, segment in enumerate(SEGMENTS):
        if segment in _PARENTS:
            parent = SEGMENT_INDEX[_PARENTS[segment]]
            moved[i] = moved[parent] @ world[parent].T @ world[i] @ noise[i]
    return replace(pose, rotations=moved)


def with_arms(pose: Pose, rng: np.random.Generator) -> Pose:
    """Let the arms do something else, relative to the chest they hang on."""
    other = angles_to_pose(draw_arms(rng))
    moved = pose.rotations.copy()
    moved[ARM_L + ARM_R] = pose.rotations[CHEST] @ other.rotations[ARM_L + ARM_R]
    return replace(pose, rotations=moved)


def talking(clock_s: float, rng_seed: int, energy: float = 1.0) -> Pose:
    """Stand and speak with the hands: a pose for every time, smooth and without end.

    :param clock_s: time.
    :param rng_seed: which speaker.
    :param energy: 0 listens with hanging arms .. 1 gestures all the time.
    """
    rng = np.random.default_rng([91, rng_seed])
    phases = rng.uniform(0, 2 * math.pi, (12, 3))
    speeds = rng.uniform(0.12, 0.75, (12, 3))

    def wave(channel: int) -> float:
        return float(np.sin(2 * math.pi * speeds[channel] * clock_s + phases[channel]).mean())

    angles: dict[str, Array] = {}
    for i, side in enumerate("LR"):
        # Each hand rises now and then.
        up = energy / (1 + math.exp(-9 * (wave(i) + 0.1)))
        angles |= arm(
            side,
            forward=4 + up * (26 + 22 * wave(2 + i)),
            sideways=7 + up * (8 + 14 * wave(4 + i)),
            inward=8 + up * (16 + 34 * wave(6 + i)),
            bend=14 + up * (72 + 30 * wave(8 + i)),
        )
        twist = 25 * up if side == "L" else -25 * up
        angles[f"hand_{side}"] = rotations.euler("xyz", [-12 * up, 0, twist])
        angles |= leg(side, 1.5 + 2 * wave(10), 4 + wave(11), 4, 9)
    angles |= trunk(1 + 3 * wave(9), 2 * wave(10), 7 * wave(11), 4 + 6 * wave(3), 16 * wave(5))
    angles["pelvis"] = rotations.euler("xyz", [0, 1.5 * wave(10), 3 * wave(11)])
    return angles_to_pose(angles)


# ---- walking ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gait:
    """One stride (two steps) of a walk, to be repeated along any gentle path."""

    clip: Clip  # one period, facing -y, walking towards -y, sideways drift removed
    stride_m: float  # of the recorded subject

    def pose(self, distance_m: float, leg_m: float) -> Pose:
        """Give the pose after a walked distance, for a body with these legs; hips over the path.

        :param distance_m: along the path.
        :param leg_m: the body's thigh plus shank: long legs take long strides.
        """
        scale = leg_m / self.clip.leg_m
        phase = (distance_m / (self.stride_m * scale)) % 1.0
        times = np.linspace(0, 1, len(self.clip))
        # Walking speed varies within a stride; invert distance(time), which only rises.
        share = np.interp(phase, self._progress(), times)
        pose = self.clip.at(share * self.clip.duration_s)
        position = pose.position_m * scale
        position[1] = 0.0
        return replace(pose, position_m=position)

    def _progress(self) -> Array:
        along = self.clip.positions_m[0, 1] - self.clip.positions_m[:, 1]
        progress = np.maximum.accumulate(along) + 1e-9 * np.arange(len(along))
        return progress / progress[-1]


def find_gait(clip: Clip) -> Gait:
    """Cut the most periodic stride out of a straight walk and close its loop.

    :raises ValueError: when the clip has no stride of 0.8 to 1.6 s.
    """
    along = clip.positions_m[-1, :2] - clip.positions_m[0, :2]
    heading = math.degrees(math.atan2(along[0], -along[1]))  # 0 = towards -y
    turn = rotations.about("z", -heading)
    turned = replace(clip, rotations=turn @ clip.rotations, positions_m=clip.positions_m @ turn.T)
    best: tuple[float, int, int] | None = None
    lengths = range(int(0.8 * clip.rate_hz), int(1.6 * clip.rate_hz) + 1)
    for length in lengths:
        for start in range(4, len(clip) - length - 4):
            gap = np.abs(turned.rotations[start] - turned.rotations[start + length]).mean()
            if best is None or gap < best[0]:
                best = (float(gap), start, start + length)
    if best is None:
        raise ValueError(f"{clip.name}: too short for a stride")
    _, start, stop = best
    part = turned.part(start, stop + 1)
    share = np.linspace(0, 1, len(part))
    # Spread the mismatch between the ends over the stride.
    gap = np.swapaxes(part.rotations[-1], -1, -2) @ part.rotations[0]
    closed = part.rotations @ rotations.fraction(gap[None], share[:, None])
    positions = part.positions_m.copy()
    positions[:, [0, 2]] -= share[:, None] * (positions[-1] - positions[0])[[0, 2]]
    positions[:, 0] -= positions[:, 0].mean()
    stride = float(positions[0, 1] - positions[-1, 1])
    return Gait(replace(part, rotations=closed, positions_m=positions), stride)


def drawn_gait(frames: int = 33) -> Gait:
    """Make an adult's stride of 1.3 m by the textbook's joint angles, where no recording is."""
    poses, phases = [], 2 * math.pi * np.arange(frames) / (frames - 1)
    for phase in phases:
        angles = trunk(2, 0, 4 * math.sin(phase), 3, 0)
        for side, own in (("L", phase), ("R", phase + math.pi)):
            hip = 9 + 22 * math.cos(own)
            swing = max(0.0, math.sin(own + 0.45 * math.pi - math.pi)) ** 2
            knee = 6 + 52 * swing + 10 * max(0.0, math.cos(own - 0.6))
            angles |= leg(side, hip, 1, knee, 6, point=knee - hip if swing < 0.1 else 4)
            angles |= arm(side, -18 * math.cos(own) + 2, 6, 6, 18 - 10 * math.cos(own))
        poses.append(angles_to_pose(angles).rotations)
    height = 0.88 + 0.02 * np.cos(2 * phases)
    stride, duration_s = 1.3, 1.08
    along = -stride * np.linspace(0, 1, frames)
    positions = np.stack([np.zeros(frames), along, height], axis=1)
    rate = (frames - 1) / duration_s
    return Gait(Clip("drawn", np.stack(poses), positions, leg_m=0.82, rate_hz=rate), stride)
