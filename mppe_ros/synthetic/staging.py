"""Sets and situations: drawn rooms and grounds, people at rest on things, things in hands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from . import places, surfaces
from .clothing import Figure
from .environment import Environment, plain_light
from .kernel import View
from .library import PRINTS, Library
from .people import Placed, place, place_on_ground
from .places import Place
from .render import Lamp, Mesh, box_mesh, merged_mesh, quad_mesh

LOOSE_COLORS = surfaces.CLOTH_TONES


# ---- surroundings -------------------------------------------------------------------------------


def draw_look(library: Library, rng: np.random.Generator) -> NDArray[np.void]:
    """Draw a material of things: a texture, a plain colour, or a pattern."""
    kind = rng.random()
    if kind < 0.45:
        texture = int(rng.integers(PRINTS, len(library.textures)))
        tint = np.minimum(rng.uniform(0.5, 1.0) * rng.uniform(0.85, 1.1, 3), 1.0)
        return places.look(texture, float(rng.uniform(0.7, 3)), tint)
    if kind < 0.6:
        texture = int(rng.integers(PRINTS))
        return places.look(texture, float(rng.uniform(0.4, 2)))
    tone = LOOSE_COLORS[rng.integers(len(LOOSE_COLORS))] * rng.uniform(0.7, 1.1, 3)
    shine = float(rng.uniform(0, 0.3)) if rng.random() < 0.4 else 0.0
    if kind < 0.85:
        return surfaces.material(tone, specular=shine)
    return surfaces.material(
        tone, tone * rng.uniform(0.4, 0.9), surfaces.Pattern.BLOTCHES, (6, 6), specular=shine
    )


def draw_place(library: Library, rng: np.random.Generator) -> Place:
    """Draw surroundings: a furnished room, or an outdoor ground under a panorama."""
    return _draw_room(library, rng) if rng.random() < 0.6 else _draw_outdoors(library, rng)


def _texture_look(library: Library, rng: np.random.Generator) -> NDArray[np.void]:
    texture = int(rng.integers(PRINTS, len(library.textures)))
    tint = np.minimum(rng.uniform(0.6, 1.0) * rng.uniform(0.93, 1.05, 3), 1.0)
    return places.look(texture, float(rng.uniform(0.8, 3)), tint)


def _draw_room(library: Library, rng: np.random.Generator) -> Place:
    half_x, half_y = rng.uniform(2.5, 6.5, 2)
    height = float(rng.uniform(2.4, 4.2))
    tone = np.clip(rng.uniform(0.5, 1.0) * rng.uniform(0.85, 1.1, 3), 0, 1)
    paint = _texture_look(library, rng) if rng.random() < 0.5 else surfaces.material(tone)
    corners = [(-half_x, -half_y), (-half_x, half_y), (half_x, half_y), (half_x, -half_y)]
    meshes = [
        places.floor((-half_x, half_x), (-half_y, half_y), _texture_look(library, rng)),
        places.ceiling(
            (-half_x, half_x), (-half_y, half_y), height, surfaces.material([0.85] * 3)
        ),
    ]
    for i in range(4):
        meshes += places.wall(corners[i], corners[(i + 1) % 4], height, paint)
    meshes += _furniture(library, rng, half_x, half_y)
    lamps, ambient = _draw_indoor_light(rng, half_x, half_y, height)
    outside = library.environments[rng.integers(len(library.environments))]
    return Place(
        "room",
        meshes,
        lamps,
        ambient,
        library.textures,
        outside.panorama,
        (half_x - 0.5, half_y - 0.5),
    )


def _furniture(
    library: Library, rng: np.random.Generator, half_x: float, half_y: float
) -> list[Mesh]:
    """Line the walls with cupboards, tables, sofas, shelves, plants and pictures."""
    meshes: list[Mesh] = []
    for _ in range(int(rng.integers(2, 11))):
        side = int(rng.integers(4))
        yaw = [0.0, -math.pi / 2, math.pi, math.pi / 2][side]  # faces away from its wall
        reach, along = (half_y, half_x) if side % 2 == 0 else (half_x, half_y)
        offset = rng.uniform(-0.85, 0.85) * along
        depth = rng.uniform(0.05, 0.45)
        local = np.array([offset, reach - depth - 0.05])
        c, s = math.cos(yaw), math.sin(yaw)
        x, y = float(c * local[0] - s * local[1]), float(s * local[0] + c * local[1])
        look = draw_look(library, rng)
        kind = rng.random()
        if kind < 0.3:
            size = rng.uniform([0.3, 2 * depth, 0.3], [1.6, 2 * depth + 0.01, 2.2])
            meshes.append(box_mesh([x, y, 0], size, yaw, [look]))
        elif kind < 0.45:
            meshes += places.table(x, y, yaw, rng.uniform([0.6, 0.4, 0.4], [1.8, 0.8, 1.0]), look)
        elif kind < 0.55:
            meshes += places.sofa(x, y, yaw, float(rng.uniform(1, 2.4)), look)
        elif kind < 0.62:
            size = rng.uniform([0.5, 0.25, 0.8], [1.6, 0.4, 2.2])
            meshes += places.shelf(x, y, yaw, size, look, rng, LOOSE_COLORS)
        elif kind < 0.7:
            meshes += places.plant(x, y, float(rng.uniform(0.7, 1.9)), rng)
        elif kind < 0.8:
            meshes += places.chair(x, y, yaw, 0.45, look)
        else:
            print_look = places.look(int(rng.integers(PRINTS)), 1.0)
            size = rng.uniform(0.3, 1.4, 2)
            print_look["scale"] = 1 / size
            wall_y = reach - 0.04
            x, y = c * offset - s * wall_y, s * offset + c * wall_y
            meshes += places.picture(x, y, rng.uniform(1.3, 2), yaw, size, print_look, look)
    return meshes


def _draw_indoor_light(
    rng: np.random.Generator, half_x: float, half_y: float, height: float
) -> tuple[list[Lamp], NDArray[np.float32]]:
    warmth = np.array([1.0, rng.uniform(0.86, 1.0), rng.uniform(0.7, 1.05)])
    level = rng.uniform(0.3, 0.75)
    if rng.random() < 0.7:  # a lamp
        position = np.array([*(rng.uniform(-0.7, 0.7, 2) * [half_x, half_y]), height + 0.1])
    else:  # a window
        azimuth = rng.uniform(0, 2 * math.pi)
        position = np.array([9 * math.cos(azimuth), 9 * math.sin(azimuth), rng.uniform(2, 8)])
    lamp = Lamp(position, warmth * level, np.zeros(3), 1.4, float(rng.uniform(1, 6)), 256)
    bias = rng.normal(0, 0.2, 2)
    up, down = rng.uniform(0.2, 0.6), rng.uniform(0.12, 0.4)
    return [lamp], plain_light(warmth * up, warmth * down, (float(bias[0]), float(bias[1])))


def _draw_outdoors(library: Library, rng: np.random.Generator) -> Place:
    environment = library.environments[rng.integers(len(library.environments))]
    half = 40.0
    meshes = []
    if rng.random() < 0.75:
        meshes.append(places.floor((-half, half), (-half, half), _texture_look(library, rng)))
    for _ in range(int(rng.integers(0, 8))):
        distance, azimuth = rng.uniform(3.5, 16), rng.uniform(0, 2 * math.pi)
        size = rng.uniform([0.1, 0.1, 0.3], [3.5, 3.5, 4.5]) * rng.uniform(0.2, 1.2)
        base = [distance * math.cos(azimuth), distance * math.sin(azimuth), 0.0]
        meshes.append(box_mesh(base, size, rng.uniform(0, 3), [draw_look(library, rng)]))
    return Place(
        environment.name,
        meshes,
        [sun(environment, np.zeros(3))],
        environment.ambient,
        library.textures,
        environment.panorama,
    )


def draw_clutter(
    library: Library, rng: np.random.Generator, spots: Sequence[NDArray[np.float64]]
) -> list[Mesh]:
    """Stand things about on the floor that a detector could take for people.

    :param spots: (2,) or (3,) each, world: one thing for each.
    """
    meshes: list[Mesh] = []
    for x, y, *_ in spots:
        kind, yaw = rng.integers(6), float(rng.uniform(0, 2 * math.pi))
        look = draw_look(library, rng)
        if kind == 0:
            meshes += _stand(float(x), float(y), draw_look(library, rng), look, rng)
        elif kind == 1:
            meshes += places.plant(x, y, float(rng.uniform(0.7, 1.9)), rng)
        elif kind == 2:
            meshes += places.chair(x, y, yaw, float(rng.uniform(0.4, 0.75)), look)
        elif kind == 3:
            size = rng.uniform([0.4, 0.4, 0.4], [1.6, 0.9, 1.1])
            meshes += places.table(x, y, yaw, size, look)
        elif kind == 4:
            size = rng.uniform([0.4, 0.25, 0.8], [1.2, 0.4, 2.0])
            meshes += places.shelf(x, y, yaw, size, look, rng, LOOSE_COLORS)
        else:  # a column, a machine, a bin
            size = rng.uniform([0.15, 0.15, 0.4], [0.7, 0.6, 2.0])
            meshes.append(box_mesh([x, y, 0], size, yaw, [look]))
    return meshes


def _stand(
    x: float, y: float, top: NDArray[np.void], look: NDArray[np.void], rng: np.random.Generator
) -> list[Mesh]:
    """Put up a lamp, a tripod or a sign: legs, a post, and something as high as a head."""
    height, width = float(rng.uniform(0.9, 2.0)), float(rng.uniform(0.02, 0.06))
    foot = np.array([x, y, 0.0])
    knot = foot + [0, 0, height * rng.uniform(0.1, 0.9)]
    turn = rng.uniform(0, math.pi)
    legs = [
        foot + rng.uniform(0.15, 0.5) * np.array([math.cos(a + turn), math.sin(a + turn), 0])
        for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)
    ]
    bars = [_bar(end, knot, width, look) for end in legs]
    size = rng.uniform([0.1, 0.05, 0.1], [0.55, 0.4, 0.5])
    head = box_mesh(foot + [0, 0, height], size, turn, [top])
    return [*bars, _bar(foot + [0, 0, 0.01], foot + [0, 0, height], width, look), head]


def photo_part(
    photo: NDArray[np.uint8], width: int, height: int, rng: np.random.Generator, least: float
) -> NDArray[np.float32]:
    """Cut a part out of a picture, as linear light (height, width, 3).

    :param least: how much of the largest such part is shown at least.
    """
    rows, columns = photo.shape[:2]
    across = max(24, min(columns, rows * (width / height)) * rng.uniform(least, 1.0))
    w, h = int(across), max(1, int(across * (height / width)))
    top, left = rng.integers(rows - h + 1), rng.integers(columns - w + 1)
    part = cv2.resize(
        photo[top : top + h, left : left + w],
        (width, height),
        interpolation=cv2.INTER_AREA if w > width else cv2.INTER_LINEAR,
    )
    if rng.random() < 0.5:
        part = part[:, ::-1]
    return np.ascontiguousarray(surfaces.linear(part / 255), np.float32)


def sun(environment: Environment, aim_m: NDArray[np.float64]) -> Lamp:
    """Make the panorama's sun a lamp that shines at a point."""
    direction = environment.sun_direction * [1, 1, 1]
    direction[2] = max(direction[2], 0.15)
    return Lamp(aim_m + 60 * direction, environment.sun_color, aim_m, 1.4, 1.5, 256)


def aimed(lamp: Lamp, view: View, placed: Sequence[Placed]) -> Lamp:
    """Spread a lamp's shadow map over all people, or over what the camera looks at."""
    if placed:
        points = np.concatenate([one.joints_m for one in placed])
        aim, reach = points.mean(axis=0), float(np.ptp(points, axis=0).max()) * 0.6 + 1.2
    else:
        aim, reach = view.eye_m + 4 * view.rotation[2], 4.0
    way = lamp.position_m - lamp.aim_m
    distant = float(np.linalg.norm(way)) > 40  # a sun keeps its direction
    position = aim + way if distant else lamp.position_m
    if float(np.linalg.norm(position - aim)) < 0.5:
        position = aim + [0.0, 0.0, 3.0]
    return replace(lamp, position_m=position, aim_m=aim, reach_m=reach, map_size=1024)


def facing(meshes: list[Mesh], eye_m: NDArray[np.float64], clear_m: float = 0.0) -> list[Mesh]:
    """Leave out walls, floors and ceilings seen from outside: cameras may stand behind walls.

    :param clear_m: also leave out furniture that comes nearer than this to the camera.
    """

    def faces(mesh: Mesh) -> bool:
        return not is_flat(mesh) or float((eye_m - mesh.vertices[0]) @ mesh.normals[0]) > 0

    return [mesh for mesh in meshes if faces(mesh) and is_clear(mesh, eye_m, clear_m)]


def is_flat(mesh: Mesh) -> bool:
    """Tell walls, floors and ceilings from furniture."""
    return len(mesh.faces) == 2


def is_clear(mesh: Mesh, eye_m: NDArray[np.float64], clear_m: float) -> bool:
    """Tell whether a mesh stays away from the camera; what is flat always does."""
    if clear_m == 0 or is_flat(mesh):
        return True
    off = eye_m - mesh.vertices
    return float((off * off).sum(axis=1).min()) >= clear_m**2


def merged(place: Place) -> Place:
    """Make all furniture one mesh: quicker to draw, but no piece can be left out any more."""
    furniture = [mesh for mesh in place.meshes if not is_flat(mesh)]
    if len(furniture) < 2:
        return place
    flat = [mesh for mesh in place.meshes if is_flat(mesh)]
    return replace(place, meshes=[*flat, merged_mesh(furniture)])


# ---- people and the things they touch -----------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """One person with the things that belong to the pose."""

    placed: Placed
    props: list[Mesh]


def enact(library: Library, figure: Figure, rng: np.random.Generator, person: int) -> Act:
    """Pose a figure at the world's origin: on the ground, or sitting on a drawn seat."""
    pose, style = library.draw_pose(rng)
    props: list[Mesh] = []
    if style == "sit":
        placed, props = _seated(library, place(library.bank.model, figure, pose, person), rng)
    else:
        placed = place_on_ground(library.bank.model, figure, pose, person)
    if rng.random() < 0.14:
        props += _held(library, placed, rng)
    return Act(placed, props)


def _seated(
    library: Library, placed: Placed, rng: np.random.Generator
) -> tuple[Placed, list[Mesh]]:
    """Put a seat under the hips, and the floor under the feet (or lower: legs may dangle)."""
    pelvis = placed.joints_m[14]
    near = np.linalg.norm(placed.vertices[:, :2] - pelvis[:2], axis=1) < 0.14
    below = near & (placed.vertices[:, 2] < pelvis[2])
    seat = float(np.median(np.sort(placed.vertices[below, 2])[:40]))
    floor = min(float(placed.vertices[:, 2].min()), seat - 0.25)
    placed = placed.moved(np.array([-pelvis[0], -pelvis[1], -floor]))
    height = seat - floor
    look = draw_look(library, rng)
    hips = placed.joints_m[8] - placed.joints_m[11]  # from left to right
    yaw = math.atan2(-hips[1], -hips[0])
    back = np.array([-math.sin(yaw), math.cos(yaw)]) * 0.06
    kind = rng.random()
    if kind < 0.5:
        return placed, places.chair(back[0], back[1], yaw, height, look)
    if kind < 0.75:
        size = [rng.uniform(0.35, 2.0), 0.42, height]
        return placed, [box_mesh([back[0], back[1], 0], size, yaw, [look])]
    if kind < 0.9 and height > 0.35:
        return placed, [
            box_mesh([back[0] * 4, back[1] * 4, 0], [1.8, 0.8, height], yaw, [look]),
            box_mesh([back[0] * 8, back[1] * 8, height], [1.8, 0.2, 0.4], yaw, [look]),
        ]
    return placed, []


def _held(library: Library, placed: Placed, rng: np.random.Generator) -> list[Mesh]:
    """Put a thing into one hand: phone, bag, stick, box, ball-sized parcel."""
    side = rng.integers(2)
    wrist, hand = placed.joints_m[[4, 7][side]], placed.joints_m[[17, 18][side]]
    reach = (hand - wrist) / np.linalg.norm(hand - wrist)
    look = draw_look(library, rng)
    yaw = rng.uniform(0, math.pi)
    kind = rng.random()
    if kind < 0.3:  # phone, cup
        return [box_mesh(hand + 0.04 * reach - [0, 0, 0.05], [0.07, 0.03, 0.13], yaw, [look])]
    if kind < 0.6:  # bag hanging from the hand
        size = rng.uniform([0.2, 0.06, 0.2], [0.45, 0.2, 0.5])
        base = hand + 0.03 * reach - [0, 0, size[2] + 0.05]
        return [box_mesh(np.maximum(base, [-9, -9, 0]), size, yaw, [look])]
    if kind < 0.8:  # stick
        tip = hand + rng.normal(0, 1, 3) * 0.6
        return [_bar(hand - 0.3 * (tip - hand), tip, float(rng.uniform(0.015, 0.05)), look)]
    size = rng.uniform(0.12, 0.4, 3)
    return [box_mesh(hand + 0.5 * size.max() * reach - [0, 0, size[2] / 2], size, yaw, [look])]


def _bar(
    start: NDArray[np.float64], end: NDArray[np.float64], width: float, look: NDArray[np.void]
) -> Mesh:
    """Make a square bar between two points."""
    axis = (end - start) / np.linalg.norm(end - start)
    side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    side *= width / 2 / np.linalg.norm(side)
    other = np.cross(axis, side)
    ring = [side + other, side - other, -side - other, -side + other]
    quads = [
        [start + ring[i], start + ring[(i + 1) % 4], end + ring[(i + 1) % 4], end + ring[i]]
        for i in range(4)
    ]
    return quad_mesh(quads, [look])


def shifted(mesh: Mesh, offset_m: NDArray[np.float64]) -> Mesh:
    """Move a mesh."""
    return replace(mesh, vertices=mesh.vertices + offset_m.astype(np.float32))


def move_act(act: Act, offset_m: NDArray[np.float64]) -> Act:
    """Move a person and its things."""
    return Act(act.placed.moved(offset_m), [shifted(mesh, offset_m) for mesh in act.props])
