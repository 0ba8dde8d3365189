"""Where people are: rooms with furniture, and outdoor grounds under a panorama."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .render import Lamp, Mesh, box_mesh, quad_mesh
from .surfaces import Pattern, material

Material = NDArray[Any]
Size = Sequence[float] | NDArray[np.float64]
Floats = NDArray[np.float32]

WALL_THICKNESS_M = 0.16


@dataclass(frozen=True)
class Place:
    """Surroundings without people; the floor is z = 0."""

    name: str
    meshes: list[Mesh]
    lamps: list[Lamp]
    ambient: Floats
    textures: NDArray[np.uint8]
    panorama: Floats | None = None
    half_size_m: tuple[float, float] = (30.0, 30.0)  # people stay within, along x and y


def look(texture: int, metres: float, srgb: ArrayLike = (1, 1, 1), **kwargs: Any) -> Material:
    """Make a material that shows a texture.

    :param texture: index in the place's stack.
    :param metres: how much of the world one repeat covers.
    :param srgb: factor.
    """
    return material(srgb, None, Pattern.IMAGE, (1 / metres, 1 / metres), texture=texture, **kwargs)


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: window or doorway."""

    left_m: float  # from the wall's first corner
    width_m: float
    sill_m: float
    top_m: float


def wall(
    start: Sequence[float],
    end: Sequence[float],
    height_m: float,
    looks: Material,
    openings: Sequence[Opening] = (),
) -> list[Mesh]:
    """Put up a wall with holes, and frames around them.

    :param start: (x, y), its first corner, ``end`` its last; the room is right of the way.
    """
    a, b = np.array([*start, 0.0]), np.array([*end, 0.0])
    length = float(np.linalg.norm(b - a))
    along = (b - a) / length
    up = np.array([0.0, 0.0, 1.0])

    def at(distance: float, height: float) -> NDArray[np.float64]:
        return np.asarray(a + along * distance + up * height)

    def panel(left: float, right: float, low: float, high: float) -> list[Any]:
        return [at(left, low), at(right, low), at(right, high), at(left, high)]

    panels, meshes, done = [], [], 0.0
    frame = material([0.86, 0.86, 0.84])
    for hole in sorted(openings, key=lambda o: o.left_m):
        right = hole.left_m + hole.width_m
        panels += [
            panel(done, hole.left_m, 0, height_m),
            panel(hole.left_m, right, hole.top_m, height_m),
        ]
        if hole.sill_m > 0:
            panels.append(panel(hole.left_m, right, 0, hole.sill_m))
        done = right
        meshes += _frame(at, along, hole, frame)
    panels.append(panel(done, length, 0, height_m))
    solid = [p for p in panels if np.linalg.norm(p[1] - p[0]) > 1e-6]
    # Patterns continue along the wall: shift each panel by where it starts.
    meshes += [
        quad_mesh([p], [looks], pattern_origin=(float((p[0] - a) @ along), float(p[0][2])))
        for p in solid
    ]
    return meshes


def _frame(at: Any, along: NDArray[np.float64], hole: Opening, looks: Material) -> list[Mesh]:
    """Bars around an opening, and a cross bar in windows."""
    yaw = float(np.arctan2(along[1], along[0]))
    bar = 0.07
    middle = hole.left_m + hole.width_m / 2
    height = hole.top_m - hole.sill_m
    uprights = [hole.left_m, hole.left_m + hole.width_m]
    levels = [hole.top_m]
    if hole.sill_m > 0:
        uprights.append(middle)
        levels.append(hole.sill_m)
    meshes = [
        box_mesh(at(x, hole.sill_m), [bar, WALL_THICKNESS_M, height], yaw, [looks])
        for x in uprights
    ]
    return meshes + [
        box_mesh(
            at(middle, z - bar / 2),
            [hole.width_m + bar, WALL_THICKNESS_M * 1.4, bar],
            yaw,
            [looks],
        )
        for z in levels
    ]


def floor(x: tuple[float, float], y: tuple[float, float], looks: Material, z: float = 0.0) -> Mesh:
    """Lay a floor (or a rug, a little higher); it casts no shadow."""
    corners = [[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]]
    return quad_mesh([corners], [looks], casts_shadow=False, pattern_origin=(x[0], y[0]))


def ceiling(
    x: tuple[float, float], y: tuple[float, float], height_m: float, looks: Material
) -> Mesh:
    """Close a room above; lamps hang below it, so it casts no shadow."""
    z = height_m
    corners = [[x[0], y[1], z], [x[1], y[1], z], [x[1], y[0], z], [x[0], y[0], z]]
    return quad_mesh([corners], [looks], casts_shadow=False)


def glowing(strength: float) -> Material:
    """A lamp's own surface: white far beyond what light it receives."""
    looks = material([1, 1, 1])
    looks["color"] = looks["second_color"] = strength
    return looks


# ---- furniture; each function gives meshes standing at (x, y), turned by yaw --------------------


def _placed(
    parts: Sequence[tuple[Sequence[float], Sequence[float], Material]],
    x: float,
    y: float,
    yaw: float,
) -> list[Mesh]:
    """Turn and move boxes given as (base middle, size, material) in the furniture's own frame."""
    c, s = np.cos(yaw), np.sin(yaw)
    return [
        box_mesh([x + c * bx - s * by, y + s * bx + c * by, bz], size, yaw, [looks])
        for (bx, by, bz), size, looks in parts
    ]


def table(x: float, y: float, yaw: float, size: Size, looks: Material) -> list[Mesh]:
    """A table of size (width, depth, height) m."""
    w, d, h = size
    legs = [
        ((sx * (w / 2 - 0.05), sy * (d / 2 - 0.05), 0), (0.05, 0.05, h - 0.04), looks)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return _placed([((0, 0, h - 0.04), (w, d, 0.04), looks), *legs], x, y, yaw)


def chair(x: float, y: float, yaw: float, seat_m: float, looks: Material) -> list[Mesh]:
    """A chair whose sitter faces -y before turning; the seat's middle is at (x, y)."""
    legs = [
        ((sx * 0.19, sy * 0.19, 0), (0.04, 0.04, seat_m - 0.03), looks)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    parts = [
        ((0, 0, seat_m - 0.04), (0.44, 0.44, 0.04), looks),
        ((0, 0.23, seat_m), (0.44, 0.04, 0.45), looks),
        *legs,
    ]
    return _placed(parts, x, y, yaw)


def sofa(x: float, y: float, yaw: float, width: float, looks: Material) -> list[Mesh]:
    """A sofa that faces -y before turning."""
    parts: list[tuple[Sequence[float], Sequence[float], Material]] = [
        ((0, 0, 0.08), (width, 0.85, 0.34), looks),
        ((0, 0.34, 0.42), (width, 0.18, 0.4), looks),
        ((-width / 2 + 0.1, 0, 0.42), (0.2, 0.85, 0.2), looks),
        ((width / 2 - 0.1, 0, 0.42), (0.2, 0.85, 0.2), looks),
    ]
    return _placed(parts, x, y, yaw)


def shelf(
    x: float,
    y: float,
    yaw: float,
    size: Size,
    looks: Material,
    rng: np.random.Generator,
    colors: NDArray[Any],
) -> list[Mesh]:
    """A shelf of size (width, depth, height) m with books."""
    w, d, h = size
    boards = max(int(h / 0.36), 2)
    parts: list[tuple[Sequence[float], Sequence[float], Material]] = [
        ((s * (w / 2 - 0.015), 0, 0), (0.03, d, h), looks) for s in (-1, 1)
    ]
    parts.append(((0, d / 2 - 0.01, 0), (w, 0.02, h), looks))
    for i in range(boards + 1):
        z = i * (h - 0.03) / boards
        parts.append(((0, 0, z), (w, d, 0.03), looks))
        left = -w / 2 + 0.05
        while i < boards and left < w / 2 - 0.12 and rng.random() < 0.97:
            thick = rng.uniform(0.02, 0.07)
            tall = rng.uniform(0.55, 0.9) * (h / boards - 0.04)
            book = material(colors[rng.integers(len(colors))])
            parts.append(((left + thick / 2, 0.02, z + 0.03), (thick, d * 0.7, tall), book))
            left += thick + (rng.uniform(0.05, 0.25) if rng.random() < 0.12 else 0.002)
    return _placed(parts, x, y, yaw)


def picture(
    x: float,
    y: float,
    z: float,
    yaw: float,
    size: Size,
    looks: Material,
    frame: Material,
) -> list[Mesh]:
    """A framed picture on a wall, facing -y before turning; size (width, height) m."""
    w, h = size
    back = ((0, 0.015, z - h / 2 - 0.03), (w + 0.06, 0.03, h + 0.06), frame)
    backing = _placed([back], x, y, yaw)
    c, s = np.cos(yaw), np.sin(yaw)
    corners = np.array(
        [
            [-w / 2, -0.006, z - h / 2],
            [w / 2, -0.006, z - h / 2],
            [w / 2, -0.006, z + h / 2],
            [-w / 2, -0.006, z + h / 2],
        ]
    )
    turned = corners @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [x, y, 0]
    return [*backing, quad_mesh([turned], [looks], casts_shadow=False)]


def plant(x: float, y: float, height: float, rng: np.random.Generator) -> list[Mesh]:
    """A pot with long leaves."""
    pot = box_mesh([x, y, 0], [0.3, 0.3, 0.32], 0.3, [material([0.75, 0.72, 0.68])])
    leaves = []
    for _ in range(46):
        azimuth, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5)
        length = rng.uniform(0.45, 1.0) * (height - 0.3)
        root = np.array([x, y, 0.3])
        flat = np.array([np.cos(azimuth), np.sin(azimuth), 0]) * np.cos(rise)
        out = flat + [0, 0, np.sin(rise)]
        side = np.array([-np.sin(azimuth), np.cos(azimuth), 0]) * 0.035
        bend = root + out * length * 0.6
        tip = root + out * length + [0, 0, -0.12 * length]
        leaves += [
            [root - side * 0.4, root + side * 0.4, bend + side, bend - side],
            [bend - side, bend + side, tip + side * 0.2, tip - side * 0.2],
        ]
    greens = [
        material(np.array([0.2, 0.42, 0.16]) * rng.uniform(0.6, 1.15), wrap=0.4) for _ in leaves
    ]
    return [pot, quad_mesh(leaves, greens)]
