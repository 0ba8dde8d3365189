"""Pictures of a stage: meshes, lamps and surroundings seen by a camera, and exact truth."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import kernel
from .clothing import Figure
from .kernel import CLight, View
from .rotations import cross

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Mesh:
    """A thing in the world."""

    vertices: Floats  # (V, 3), m
    normals: Floats  # (V, 3)
    surface: Floats  # (V, 3), pattern coordinates, m
    faces: Ints  # (F, 3)
    face_material: Ints  # (F,), rows of materials
    materials: NDArray[Any]  # (M,) kernel.MATERIAL
    person: int = 0  # track id, 0 for things
    casts_shadow: bool = True


def person_mesh(figure: Figure, vertices: Floats, person: int) -> Mesh:
    """Make the mesh of a posed figure.

    :param vertices: (V, 3), of ``figure.pose``.
    """
    layer = figure.layer
    normals = kernel.vertex_normals(vertices, layer.faces)
    return Mesh(
        vertices, normals, layer.surface, layer.faces, layer.face_material, layer.materials, person
    )


def quad_mesh(
    corners: ArrayLike,
    materials: Sequence[NDArray[Any]],
    casts_shadow: bool = True,
    pattern_origin: tuple[float, float] = (0.0, 0.0),
) -> Mesh:
    """Make flat four-cornered faces.

    :param corners: (Q, 4, 3), m, each around its outline.
    :param materials: one for all, or one for each.
    :param pattern_origin: m, shifts the patterns.
    """
    quads = np.asarray(corners, np.float64)
    along = quads[:, 1] - quads[:, 0]
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    normal = cross(along, quads[:, 3] - quads[:, 0])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    u = ((quads - quads[:, :1]) * (along / length)[:, None]).sum(-1)
    v = ((quads - quads[:, :1]) * cross(normal, along / length)[:, None]).sum(-1)
    surface = np.stack([u + pattern_origin[0], np.zeros_like(u), v + pattern_origin[1]], -1)
    first = 4 * np.arange(len(quads))[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    row = np.arange(len(quads)) if len(materials) > 1 else np.zeros(len(quads))
    return Mesh(
        quads.reshape(-1, 3).astype(np.float32),
        np.repeat(normal, 4, axis=0).astype(np.float32),
        surface.reshape(-1, 3).astype(np.float32),
        faces.astype(np.int32),
        np.tile(row, 2).astype(np.int32),
        np.array(materials),
        casts_shadow=casts_shadow,
    )


_BOX_FACES = [[0, 1, 3, 2], [5, 4, 6, 7], [4, 0, 2, 6], [1, 5, 7, 3], [2, 3, 7, 6], [4, 5, 1, 0]]


def box_mesh(
    base_m: ArrayLike, size_m: ArrayLike, yaw_rad: float, looks: Sequence[NDArray[Any]]
) -> Mesh:
    """Make an upright box.

    :param base_m: (3,), middle of its lower face.
    :param size_m: (3,), width, depth, height.
    :param looks: one material, or six: front, back, left, right, top, bottom.
    """
    x, y, z = np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [0, 1], indexing="ij")
    corners = np.stack([x, y, z], -1).transpose(1, 2, 0, 3).reshape(-1, 3) * size_m
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    turned = corners @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + np.asarray(base_m)
    return quad_mesh(turned[_BOX_FACES], looks)


@dataclass(frozen=True)
class Lamp:
    """A light that casts shadows; far away it is a sun."""

    position_m: NDArray[np.float64]  # (3,)
    color: NDArray[np.float64]  # (3,), irradiance at the aim, for white 1 = full exposure
    aim_m: NDArray[np.float64]  # (3,)
    reach_m: float = 4.0  # radius around the aim that the shadow map covers
    softness_px: float = 2.5
    map_size: int = 1024


@dataclass(frozen=True)
class Truth:
    """What is where in the picture, at pixel centres."""

    depth_m: Floats  # (H, W), along the optical axis; 0 = nothing
    person: Ints  # (H, W), track id of the nearest surface; 0 = no person


@dataclass(frozen=True)
class Scene:
    """Meshes joined for drawing; ``faces`` may be a part of them."""

    vertices: Floats
    normals: Floats
    surface: Floats
    faces: Ints
    face_material: Ints
    face_person: Ints
    face_casts: NDArray[np.bool_]
    materials: NDArray[Any]

    @classmethod
    def of(cls, meshes: Sequence[Mesh]) -> Scene:
        """Join meshes, in order; at least one."""
        faces = np.concatenate([m.faces for m in meshes])
        material = np.concatenate([m.face_material for m in meshes])
        person, casts = np.empty(len(faces), np.int32), np.empty(len(faces), np.bool_)
        # Mesh by mesh: an array that repeats each one's numbers would take as long as the rest.
        face = vertex = row = 0
        for mesh in meshes:
            own = slice(face, face + len(mesh.faces))
            faces[own] += np.int32(vertex)
            material[own] += np.int32(row)
            person[own], casts[own] = mesh.person, mesh.casts_shadow
            face = own.stop
            vertex += len(mesh.vertices)
            row += len(mesh.materials)
        raw = np.concatenate([np.atleast_1d(m.materials).view(np.uint8) for m in meshes])
        return cls(
            np.concatenate([m.vertices for m in meshes]),
            np.concatenate([m.normals for m in meshes]),
            np.concatenate([m.surface for m in meshes]),
            faces,
            material,
            person,
            casts,
            raw.view(kernel.MATERIAL),
        )

    @property
    def casters(self) -> Ints:
        """The faces that cast shadows."""
        count = np.count_nonzero(self.face_casts)
        if self.face_casts[:count].all():  # as a rule they come first: nothing is copied
            return self.faces[:count]
        return self.faces.compress(self.face_casts, axis=0)

    def part(self, start: int, stop: int | None = None, step: int = 1) -> Scene:
        """Keep only some of the faces."""
        keep = slice(start, stop, step)
        return replace(
            self,
            faces=np.ascontiguousarray(self.faces[keep]),
            face_material=np.ascontiguousarray(self.face_material[keep]),
            face_person=self.face_person[keep],
            face_casts=self.face_casts[keep],
        )


def merged_mesh(meshes: Sequence[Mesh]) -> Mesh:
    """Join things into one that casts shadows."""
    scene = Scene.of(meshes)
    return Mesh(
        scene.vertices,
        scene.normals,
        scene.surface,
        scene.faces,
        scene.face_material,
        scene.materials,
    )


@dataclass(frozen=True)
class Lighting:
    """Lamps with their shadow maps, and the light from all sides."""

    lights: Sequence[CLight]
    shadow_maps: Sequence[Floats]  # the lights point into them
    ambient: Floats  # (9, 3), spherical harmonics as in kernel.c
    panorama: Floats | None = None  # (h, w, 3), seen where there is nothing

    @classmethod
    def of(
        cls, scene: Scene, lamps: Sequence[Lamp], ambient: Floats, panorama: Floats | None = None
    ) -> Lighting:
        """Let the scene cast shadows."""
        casters = scene.casters
        lit = [_shadowed(lamp, scene.vertices, casters) for lamp in lamps]
        return cls([light for light, _ in lit], [shadow for _, shadow in lit], ambient, panorama)


def _shadowed(lamp: Lamp, vertices: Floats, faces: Ints) -> tuple[CLight, Floats]:
    """Draw a lamp's shadow map; the map must outlive the light."""
    distance = float(np.linalg.norm(lamp.position_m - lamp.aim_m))
    focal = lamp.map_size / 2 * distance / lamp.reach_m
    size = lamp.map_size
    view = View.looking(lamp.position_m.tolist(), lamp.aim_m.tolist(), focal, size, size)
    shadow = kernel.depth_map(view, vertices, faces)
    light = CLight(
        (ctypes.c_float * 3)(*lamp.position_m),
        (ctypes.c_float * 3)(*lamp.color),
        distance,
        lamp.softness_px,
        view.as_c(),
        shadow.ctypes.data,
    )
    return light, shadow


@dataclass(frozen=True)
class Drawing:
    """A scene drawn through a camera, several samples per pixel, before any light."""

    view: View
    scene: Scene
    supersample: int
    samples: kernel.Drawn

    def truth(self) -> Truth:
        """Read depth and masks off; half a sample beside the pixels' centres, unless s = 1."""
        step = slice(self.supersample // 2, None, self.supersample)
        return _truth(
            self.samples.inverse_depth[step, step], self.samples.face[step, step], self.scene
        )


def draw(view: View, scene: Scene, supersample: int) -> Drawing:
    """Find what each sample sees.

    :param supersample: samples per pixel along each axis.
    """
    fine = view.enlarged(supersample) if supersample > 1 else view
    return Drawing(view, scene, supersample, kernel.rasterize(fine, scene.vertices, scene.faces))


def shade(
    drawing: Drawing,
    lighting: Lighting,
    textures: NDArray[np.uint8],
    *,
    occlusion_m: float = 0.35,
    background: Floats | None = None,
    shaded_faces: int | None = None,
) -> Floats:
    """Light a drawing: linear RGB (H, W, 3), 1 = full exposure.

    :param textures: of ``surfaces.mipmaps``.
    :param occlusion_m: how far surfaces darken each other; 0 = off.
    :param background: (H, W, 3), shows where there is no surface, instead of the panorama.
    :param shaded_faces: faces from here on hide others, but show the background.
    """
    view, scene, samples, s = drawing.view, drawing.scene, drawing.samples, drawing.supersample
    open_share = _occlusion(view, samples.inverse_depth, occlusion_m, s)
    if shaded_faces is not None:
        face = np.where(samples.face < shaded_faces, samples.face, np.int32(-1))
        samples = replace(samples, face=face)
    fine = view.enlarged(s) if s > 1 else view
    if background is not None and s > 1:
        background = _resized(background, fine.width, fine.height)
    rgb = kernel.shade(
        fine,
        samples,
        scene.vertices,
        scene.normals,
        scene.surface,
        scene.faces,
        scene.face_material,
        scene.materials,
        textures,
        lighting.lights,
        lighting.ambient,
        open_share,
        lighting.panorama if background is None else None,
        background,
    )
    if s == 1:
        return rgb
    # Samples brighter than the film are cut first, or a speck of sun would fill the pixel.
    np.minimum(rgb, 4, out=rgb)
    small = cv2.resize(rgb, (view.width, view.height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def render(
    view: View, scene: Scene, lighting: Lighting, textures: NDArray[np.uint8], supersample: int = 2
) -> Floats:
    """Take a picture: linear RGB (H, W, 3), 1 = full exposure."""
    return shade(draw(view, scene, supersample), lighting, textures)


def _occlusion(view: View, inverse_depth: Floats, radius_m: float, supersample: int) -> Floats:
    """Give the open share of each fine pixel, from every ``supersample``-th of them."""
    if radius_m <= 0:
        return np.ones_like(inverse_depth)
    coarse = np.ascontiguousarray(inverse_depth[::supersample, ::supersample])
    raw = cv2.blur(kernel.ambient_occlusion(view, coarse, radius_m, 8), (4, 4))
    height, width = inverse_depth.shape
    return _resized(raw, width, height) if supersample > 1 else np.asarray(raw, np.float32)


def _resized(image: NDArray[Any], width: int, height: int) -> Floats:
    return np.asarray(cv2.resize(image, (width, height)), np.float32)


def truth(view: View, scene: Scene) -> Truth:
    """Give exact depth and person masks at pixel centres."""
    return draw(view, scene, supersample=1).truth()


def _truth(inverse_depth: Floats, face: Ints, scene: Scene) -> Truth:
    depth = np.zeros_like(inverse_depth)
    np.divide(np.float32(1), inverse_depth, out=depth, where=face >= 0)
    # The last row is what -1, nothing, stands for.
    return Truth(depth, np.append(scene.face_person, np.int32(0))[face])
