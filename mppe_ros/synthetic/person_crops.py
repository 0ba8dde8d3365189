"""Crops of single people, as RootNet and PoseNet see them, with their joints.

Crop number i of a seed is the same whoever makes it: every draw comes from (seed, i). People and
places are made once per block of consecutive crops, because dressing costs as much as drawing.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import crops
from . import film, render, staging
from .annotations import joint_visibility
from .clothing import Figure
from .kernel import View
from .library import Library
from .places import Place
from .render import Drawing, Lighting, Mesh, Scene
from .staging import Act

BLOCK = 128  # crops that share a cast and places
CAST, PLACES = 16, 4
SENSORS = ((640, 480), (1280, 720), (1920, 1080), (1000, 1002), (480, 640), (1080, 1920))


@dataclass(frozen=True)
class PersonCrop:
    """One training sample; pixels as in ``mppe_ros.crops``."""

    image: NDArray[np.uint8]  # (size, size, 3), RGB
    joints_px: NDArray[np.float32]  # (21, 2), crop pixels
    joints_camera_mm: NDArray[np.float32]  # (21, 3)
    visible: NDArray[np.bool_]  # (21,)
    box_xywh_px: NDArray[np.float32]  # (4,), the processed box, pixels of the whole image
    intrinsics: NDArray[np.float32]  # (4,), fx, fy, cx, cy of the whole image

    def fields(self) -> dict[str, NDArray[Any]]:
        """Give the arrays by name: one row of a shard."""
        return dict(self.__dict__)


class CropGenerator:
    """Makes crops by number."""

    def __init__(self, library: Library, seed: int, size: int = 160) -> None:
        """Prepare; the library decides which split is drawn from."""
        self.library, self.seed, self.size = library, seed, size
        self._block = functools.lru_cache(maxsize=2)(self._make_block)

    def _make_block(self, block: int) -> tuple[list[Figure], list[Place]]:
        rng = np.random.default_rng([self.seed, 3, block])
        numbers = rng.integers(1 << 31, size=CAST)
        figures = [self.library.cast(self.seed, int(number)) for number in numbers]
        sets = [staging.draw_place(self.library, rng) for _ in range(PLACES)]
        return figures, [staging.merged(place) for place in sets]

    def __call__(self, index: int) -> PersonCrop:
        """Make crop number ``index``."""
        figures, sets = self._block(index // BLOCK)
        rng = np.random.default_rng([self.seed, 4, index])
        while True:
            figure = figures[rng.integers(len(figures))]
            crop = self._attempt(figure, figures, sets[rng.integers(len(sets))], rng)
            if crop is not None:
                return crop

    def _attempt(
        self, figure: Figure, figures: list[Figure], place: Place, rng: np.random.Generator
    ) -> PersonCrop | None:
        """Try one draw; None where the person came out hidden, cut off or too small."""
        act = staging.enact(self.library, figure, rng, person=1)
        view = draw_camera(act.placed.joints_m, rng)
        if view is None:
            return None
        people = [act, *self._neighbours(view, figures, rng)]
        actors = [mesh for one in people for mesh in (one.placed.mesh, *one.props)]
        if rng.random() < 0.2:
            actors += _occluders(self.library, view, act.placed.joints_m, rng)
        surroundings = staging.facing(place.meshes, view.eye_m)
        # Flat walls, floors and ceilings come last: they never hide anybody.
        surroundings.sort(key=staging.is_flat)
        scene = Scene.of([*actors, *surroundings])
        solid = scene.part(
            0, sum(len(m.faces) for m in (*actors, *surroundings) if not staging.is_flat(m))
        )
        box = _visible_box(view, act, solid)
        square = _processed(_noisy(box, rng), view) if box else None
        if square is None:
            return None
        close = view.crop(square[0], square[1], square[2], self.size)
        joints_px = close.project(act.placed.joints_m)
        camera_mm = view.to_camera(act.placed.joints_m) * 1000
        if not _enough_inside(joints_px, self.size):
            return None
        drawn = render.draw(close, solid, supersample=2)
        visible = joint_visibility(joints_px, camera_mm[:, 2] / 1000, drawn.truth(), person=1)
        if visible.sum() < 4:
            return None
        touching = sum(len(mesh.faces) for mesh in actors)
        image = self._picture(drawn, scene, place, touching, rng)
        return PersonCrop(
            _outside_black(image, view, square),
            joints_px.astype(np.float32),
            camera_mm.astype(np.float32),
            visible,
            np.asarray(square, np.float32),
            np.array([view.fx, view.fy, view.cx, view.cy], np.float32),
        )

    def _neighbours(
        self, view: View, figures: list[Figure], rng: np.random.Generator
    ) -> list[Act]:
        """Put others beside, behind or a little before the person, four times in ten.

        Half of them so near that limbs of both are in front of each other: whose they are is what
        networks get wrong in photographs of groups.
        """
        others: list[Act] = []
        if rng.random() > 0.4:
            return others
        right, forward = view.rotation[0] * [1, 1, 0], view.rotation[2] * [1, 1, 0]
        for number in range(1 + int(rng.random() < 0.35)):
            figure = figures[rng.integers(len(figures))]
            other = staging.enact(self.library, figure, rng, person=2 + number)
            aside, behind = rng.uniform(0.4, 1.6), rng.uniform(-0.6, 2.5)
            if rng.random() < 0.5:
                aside, behind = rng.uniform(0.1, 0.6), behind + math.copysign(0.3, behind)
            offset = right * aside * rng.choice([-1, 1]) + forward * behind
            if float(view.to_camera(offset + [0, 0, 1])[2]) > 0.7:
                others.append(staging.move_act(other, offset))
        return others

    def _picture(
        self,
        drawn: Drawing,
        scene: Scene,
        place: Place,
        actors: int,
        rng: np.random.Generator,
    ) -> NDArray[np.uint8]:
        """Shade the surroundings once per pixel, the actors four times, and develop.

        :param actors: how many of the scene's first faces are people and what they touch.
        """
        lighting = Lighting.of(scene, place.lamps, place.ambient, place.panorama)
        photos = self.library.photos
        if photos and rng.random() < 0.35:
            background = staging.photo_part(
                photos[rng.integers(len(photos))], self.size, self.size, rng, least=0.15
            )
        else:
            behind = render.draw(drawn.view, scene.part(actors), supersample=1)
            background = render.shade(behind, lighting, place.textures, occlusion_m=0)
        light = render.shade(
            drawn,
            lighting,
            place.textures,
            occlusion_m=0.25,
            background=background,
            shaded_faces=actors,
        )
        return film.develop(light, rng)


def draw_camera(joints_m: NDArray[np.float64], rng: np.random.Generator) -> View | None:
    """Draw a camera that sees a person, near or far, level or from above, perhaps cut off.

    :param joints_m: (21, 3), world.
    :return: None where the camera would be under the floor or inside the person.
    """
    width, height = SENSORS[rng.integers(len(SENSORS))]
    focal = max(width, height) / 2 / math.tan(math.radians(rng.uniform(36, 95)) / 2)
    middle = (joints_m.min(axis=0) + joints_m.max(axis=0)) / 2
    distance = math.exp(rng.uniform(math.log(1.3), math.log(10.0)))
    kind = rng.random()
    pitch = rng.normal(5, 8) if kind < 0.77 else rng.uniform(12, 60) if kind < 0.94 else -12.0
    azimuth = rng.uniform(0, 2 * math.pi)
    flat = math.cos(math.radians(pitch))
    direction = np.array(
        [flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(math.radians(pitch))]
    )
    eye = middle + distance * direction
    if eye[2] < 0.15 or np.linalg.norm(joints_m - eye, axis=1).min() < 0.45:
        return None
    roll = math.radians(rng.normal(0, 3) if rng.random() < 0.75 else rng.normal(0, 18))
    ahead = View.looking(eye.tolist(), middle.tolist(), focal, width, height, roll)
    # Aim beside the person, so that it appears anywhere in the image.
    away = ahead.to_camera(joints_m)
    extent = (np.abs(away[:, :2]) / away[:, 2:] * focal).max(axis=0)
    room = np.maximum(np.array([width, height]) / 2 - 0.85 * extent, 0)
    shift = rng.uniform(-1, 1, 2) * room / focal * distance
    if rng.random() < 0.15:  # the image ends at the hips or thighs
        cut = joints_m[14] + [0, 0, rng.uniform(-0.35, 0.15)]
        _, down, depth = ahead.to_camera(cut)
        shift[1] = (down / depth - height / 2 / focal) * distance
    target = middle + ahead.rotation[0] * shift[0] + ahead.rotation[1] * shift[1]
    return View.looking(eye.tolist(), target.tolist(), focal, width, height, roll)


def _occluders(
    library: Library, view: View, joints_m: NDArray[np.float64], rng: np.random.Generator
) -> list[Mesh]:
    """Put one or two things between the camera and the person."""
    things = []
    for _ in range(1 + int(rng.random() < 0.3)):
        hidden = joints_m[rng.integers(len(joints_m))] + rng.normal(0, 0.12, 3)
        way = hidden - view.eye_m
        point = view.eye_m + way * rng.uniform(0.35, 0.85)
        size = rng.uniform([0.04, 0.02, 0.05], [0.6, 0.3, 0.8]) * np.linalg.norm(way) * 0.25
        if rng.random() < 0.5:  # it stands on the floor: tables, posts, plants' pots
            size[2] = point[2]
        base = point - [0, 0, size[2]]
        look = staging.draw_look(library, rng)
        things.append(render.box_mesh(base, size, rng.uniform(0, math.pi), [look]))
    return things


def _visible_box(view: View, act: Act, scene: Scene) -> tuple[float, float, float, float] | None:
    """Find the box (x, y, w, h) of the person's visible pixels, by a small picture."""
    pixels = view.project(act.placed.vertices[::5])
    if not np.isfinite(pixels).all():
        return None
    low = np.maximum(pixels.min(axis=0), 0.0)
    high = np.minimum(pixels.max(axis=0), [view.width - 1, view.height - 1])
    side = float((high - low).max())
    if (high - low).min() < 8 or side < 40:
        return None
    coarse = 80
    # Every third face is enough to find the outline.
    sparse = scene.part(0, None, 3)
    seen = render.truth(view.crop(low[0], low[1], side, coarse), sparse).person == 1
    columns = np.flatnonzero(seen.any(axis=0)) * side / coarse + low[0]
    rows = np.flatnonzero(seen.any(axis=1)) * side / coarse + low[1]
    columns = columns[columns <= high[0]]
    rows = rows[rows <= high[1]]
    if len(columns) < 4 or len(rows) < 4:
        return None
    x, y = float(columns[0]), float(rows[0])
    return x, y, float(columns[-1]) - x + side / coarse, float(rows[-1]) - y + side / coarse


def _noisy(
    box: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Misplace a box as detectors do: edges err by some percent, sometimes by a lot."""
    x, y, w, h = box
    spread = 0.03 if rng.random() < 0.85 else 0.09
    left, right = x + w * rng.normal(0, spread), x + w * (1 + rng.normal(0, spread))
    top, bottom = y + h * rng.normal(0, spread), y + h * (1 + rng.normal(0, spread))
    if rng.random() < 0.06:  # the legs were not found
        bottom = top + (bottom - top) * rng.uniform(0.5, 0.9)
    return left, top, right - left, bottom - top


def _processed(box: tuple[float, float, float, float], view: View) -> list[float] | None:
    """Make the box square and larger, exactly as at run time; None for an empty one."""
    squares, _ = crops.process_boxes([box], view.width, view.height)
    return squares[0].tolist() if len(squares) else None


def _enough_inside(joints_px: NDArray[np.float64], size: int) -> bool:
    with np.errstate(invalid="ignore"):
        inside = ((joints_px > 0) & (joints_px < size)).all(axis=1)
    return bool(np.isfinite(joints_px).all() and inside.mean() > 0.4)


def _outside_black(image: NDArray[np.uint8], view: View, square: list[float]) -> NDArray[np.uint8]:
    """Blacken what lies outside the camera's image, as the affine crop does."""
    size = image.shape[0]
    x, y = (square[i] + np.arange(size) * square[2] / size for i in (0, 1))
    image[(y < -0.5) | (y > view.height - 0.5)] = 0
    image[:, (x < -0.5) | (x > view.width - 0.5)] = 0
    return image
