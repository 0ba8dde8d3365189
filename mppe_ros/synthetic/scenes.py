"""Whole pictures with people, as DetectNet and the pipeline see them.

Scene number i of a seed is the same whoever makes it; consecutive scenes share a cast and places.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..camera import pixel_rays
from ..structures import Intrinsics
from . import film, render, staging
from .annotations import Annotation, annotate
from .clothing import Figure
from .kernel import View
from .library import Library
from .people import Placed
from .places import Place
from .render import Lighting, Mesh, Scene, Truth

BLOCK = 16  # scenes that share a cast and places
CAST, PLACES = 16, 3
HEAD_COUNT_ODDS = (0.14, 0.24, 0.19, 0.14, 0.1, 0.08, 0.05, 0.03, 0.03)  # of 0 .. 8 people
PHOTO = 0.45  # share before a photograph instead of in a place, if the library has any
DISTORTED = 0.25  # share of scenes through a lens that bends lines


@dataclass(frozen=True)
class Picture:
    """One picture with its truth."""

    image: NDArray[np.uint8]  # (H, W, 3), RGB
    depth_mm: NDArray[np.uint16]  # (H, W), along the optical axis; 0 = nothing or beyond 65 m
    person: NDArray[np.int32]  # (H, W), track id, 0 = nobody
    annotations: list[Annotation]
    intrinsics: Intrinsics


class SceneGenerator:
    """Makes scenes by number."""

    def __init__(self, library: Library, seed: int, width: int = 640, height: int = 480) -> None:
        """Prepare; the library decides which split is drawn from."""
        self.library, self.seed = library, seed
        self.width, self.height = width, height
        self._block = functools.lru_cache(maxsize=2)(self._make_block)

    def _make_block(self, block: int) -> tuple[list[Figure], list[Place]]:
        rng = np.random.default_rng([self.seed, 5, block])
        numbers = rng.integers(1 << 31, size=CAST)
        figures = [self.library.cast(self.seed, int(number)) for number in numbers]
        return figures, [staging.draw_place(self.library, rng) for _ in range(PLACES)]

    def __call__(self, index: int) -> Picture:
        """Make scene number ``index``."""
        figures, sets = self._block(index // BLOCK)
        rng = np.random.default_rng([self.seed, 6, index])
        place = sets[rng.integers(len(sets))]
        lens = draw_intrinsics(rng, self.width, self.height)
        view = draw_view(rng, lens)
        placed, props = self._crowd(view, place, figures, rng)
        clear = 2.0 if rng.random() < 0.7 else 0.0
        around = [*place.meshes, *self._clutter(view, place, placed, rng)]
        around = staging.facing(around, view.eye_m, clear)
        meshes = [*(one.mesh for one in placed), *props, *around]
        photo = None
        solid = [mesh for mesh in meshes if not staging.is_flat(mesh)]
        if solid and self.library.photos and rng.random() < PHOTO:
            photo = self.library.photos[rng.integers(len(self.library.photos))]
            meshes = solid
        return photograph(view, lens, place, meshes, placed, rng, photo=photo)

    def _clutter(
        self, view: View, place: Place, placed: list[Placed], rng: np.random.Generator
    ) -> list[Mesh]:
        """Stand up to four things among the people, half of the time."""
        spots = [one.joints_m[14] * [1, 1, 0] for one in placed]
        people = len(spots)
        for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.5 else 0):
            spot = self._free_spot(view, place, spots, False, rng)
            if spot is not None:
                spots.append(spot)
        return staging.draw_clutter(self.library, rng, spots[people:])

    def _crowd(
        self, view: View, place: Place, figures: list[Figure], rng: np.random.Generator
    ) -> tuple[list[Placed], list[Mesh]]:
        """Set up to eight people on the ground the camera sees, none inside another."""
        placed: list[Placed] = []
        props: list[Mesh] = []
        spots: list[NDArray[np.float64]] = []
        wanted = int(rng.choice(len(HEAD_COUNT_ODDS), p=HEAD_COUNT_ODDS))
        together = rng.random() < 0.4
        for _ in range(wanted):
            spot = self._free_spot(view, place, spots, together, rng)
            if spot is None:
                continue
            figure = figures[rng.integers(len(figures))]
            act = staging.enact(self.library, figure, rng, person=len(placed) + 1)
            act = staging.move_act(act, spot)
            if float(view.to_camera(act.placed.vertices)[:, 2].min()) < 0.3:
                continue  # it would touch the camera
            placed.append(act.placed)
            props += act.props
            spots.append(spot)
        return placed, props

    def _free_spot(
        self,
        view: View,
        place: Place,
        spots: list[NDArray[np.float64]],
        together: bool,
        rng: np.random.Generator,
    ) -> NDArray[np.float64] | None:
        """Find a place on the floor in view; in a group, half a step to 1.5 m from the last."""
        for _ in range(12):
            if spots and together and rng.random() < 0.7:
                angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.5)
                spot = spots[-1] + distance * np.array([math.cos(angle), math.sin(angle), 0])
            else:
                distance = math.exp(rng.uniform(math.log(1.3), math.log(14)))
                aside = rng.uniform(-0.5, 0.5) * view.width / view.fx * distance
                flat = view.rotation * [1, 1, 0]
                spot = view.eye_m * [1, 1, 0] + flat[2] * distance + flat[0] * aside
            apart = all(np.linalg.norm(spot - other) > 0.45 for other in spots)
            if apart and bool(np.all(np.abs(spot[:2]) < place.half_size_m)):
                return np.asarray(spot, np.float64)
        return None


def draw_intrinsics(rng: np.random.Generator, width: int, height: int) -> Intrinsics:
    """Draw a camera: 40 to 100 degrees across, a quarter of them with barrel distortion."""
    focal = width / 2 / math.tan(math.radians(rng.uniform(40, 100)) / 2)
    aspect = rng.uniform(0.99, 1.01)
    cx, cy = rng.normal([(width - 1) / 2, (height - 1) / 2], 0.01 * width)
    pinhole = Intrinsics(focal, focal * aspect, float(cx), float(cy), width, height)
    if rng.random() > DISTORTED:
        return pinhole
    # A bend of k1 folds the image over at radius 2/3 / sqrt(3 k1): stay below that at the corners.
    corner = math.hypot(width / 2, height / 2) / focal
    k1 = -rng.uniform(0.1, 0.75) * (0.57 / corner) ** 2 / 3
    coefficients = (float(k1), 0.0, *rng.normal(0, 2e-4, 2).tolist(), 0.0)
    return replace(pinhole, distortion_model="plumb_bob", distortion=coefficients)


def draw_view(rng: np.random.Generator, lens: Intrinsics) -> View:
    """Put a camera somewhere over the floor, looking about level; its pinhole part."""
    azimuth = rng.uniform(0, 2 * math.pi)
    away, height = rng.uniform(1, 6), math.exp(rng.normal(math.log(1.35), 0.4))
    eye = np.array([away * math.cos(azimuth), away * math.sin(azimuth), height])
    heading = azimuth + math.pi + rng.normal(0, 0.3)
    pitch = math.radians(rng.normal(6, 7) + 8 * max(eye[2] - 1.6, 0))
    ahead = np.array([math.cos(heading), math.sin(heading), -math.tan(pitch)])
    roll = math.radians(rng.normal(0, 2))
    view = View.looking(
        eye.tolist(), (eye + ahead).tolist(), lens.fx, lens.width, lens.height, roll
    )
    return view.through(lens)


def photograph(
    view: View,
    lens: Intrinsics,
    place: Place,
    meshes: list[Mesh],
    placed: list[Placed],
    rng: np.random.Generator,
    noise: np.random.Generator | None = None,
    photo: NDArray[np.uint8] | None = None,
) -> Picture:
    """Render, bend by the lens, and develop.

    :param view: the camera with ``lens``' pinhole parameters.
    :param meshes: everything there is, people included.
    :param photo: (H, W, 3), shows where nothing is, instead of the place's panorama.
    """
    scene = Scene.of(meshes)
    lamps = [staging.aimed(lamp, view, placed) for lamp in place.lamps]
    lighting = Lighting.of(scene, lamps, place.ambient, place.panorama)
    wide = view if lens.distortion_model == "none" else _wider(view, lens)
    background = None
    if photo is not None:
        background = staging.photo_part(photo, wide.width, wide.height, rng, least=0.4)
    drawing = render.draw(wide, scene, supersample=2)
    light = render.shade(drawing, lighting, place.textures, background=background)
    seen = render.truth(wide, scene)
    if wide is not view:
        light, seen = _bend(light, seen, wide, lens)
    depth = np.clip(np.rint(seen.depth_m * 1000), 0, None)
    depth[depth > np.iinfo(np.uint16).max] = 0
    return Picture(
        film.develop(light, rng, noise),
        depth.astype(np.uint16),
        seen.person,
        annotate(view, lens, placed, seen),
        lens,
    )


def _wider(view: View, lens: Intrinsics) -> View:
    """Widen a pinhole view until it covers everything the lens sees."""
    edge_x, edge_y = np.linspace(0, lens.width - 1, 20), np.linspace(0, lens.height - 1, 20)
    border = np.concatenate(
        [np.stack([edge_x, np.full(20, y)], -1) for y in (0, lens.height - 1)]
        + [np.stack([np.full(20, x), edge_y], -1) for x in (0, lens.width - 1)]
    )
    rays = pixel_rays(border, lens)
    pixels = rays * [view.fx, view.fy] + [view.cx, view.cy]
    margin = np.ceil(np.maximum(-pixels.min(axis=0), 0)) + 2
    size = np.ceil(pixels.max(axis=0) + margin) + 3
    return replace(
        view,
        cx=view.cx + float(margin[0]),
        cy=view.cy + float(margin[1]),
        width=int(size[0]),
        height=int(size[1]),
    )


def _bend(
    light: NDArray[np.float32], seen: Truth, wide: View, lens: Intrinsics
) -> tuple[NDArray[np.float32], Truth]:
    """Resample a pinhole picture and its truth to what the lens gives."""
    u, v = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
    rays = pixel_rays(np.stack([u, v], -1).reshape(-1, 2), lens).reshape(*u.shape, 2)
    source = (rays * [wide.fx, wide.fy] + [wide.cx, wide.cy]).astype(np.float32)
    x, y = source[..., 0], source[..., 1]
    nearest = [
        cv2.remap(layer, x, y, cv2.INTER_NEAREST)
        for layer in (seen.depth_m, seen.person.astype(np.float32))
    ]
    bent = cv2.remap(light, x, y, cv2.INTER_LINEAR)
    return np.asarray(bent, np.float32), Truth(
        np.asarray(nearest[0], np.float32), np.asarray(nearest[1], np.int32)
    )
