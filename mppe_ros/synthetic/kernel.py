"""The C kernel, compiled on demand with the system's compiler and called through ctypes.

A maintained renderer would be preferred; docs/synthetic.md has the measurements that led here.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cache import cache_folder
from ..structures import Intrinsics
from .rotations import cross

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

SOURCE = Path(__file__).with_name("kernel.c")
# No reordering of sums, no contraction, no newer instructions than the architecture's first:
# machines of different makes shall draw the same picture.
FLAGS = (
    *("-O3", "-std=c11", "-shared", "-fPIC", "-ffp-contract=off"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffinite-math-only"),
    "-finline-limit=2000",
)

MATERIAL = np.dtype(
    [
        ("color", "f4", 3),
        ("second_color", "f4", 3),
        ("scale", "f4", 2),
        ("threshold", "f4"),
        ("bump", "f4"),
        ("bump_scale", "f4"),
        ("specular", "f4"),
        ("shininess", "f4"),
        ("wrap", "f4"),
        ("pattern", "i4"),
        ("texture", "i4"),
    ]
)


class KernelError(RuntimeError):
    """The kernel could not be built; the message says why."""


class CCamera(ctypes.Structure):
    """Mirror of the C struct Camera."""

    _fields_ = [
        ("rotation", ctypes.c_float * 9),
        ("translation", ctypes.c_float * 3),
        *((name, ctypes.c_float) for name in ("fx", "fy", "cx", "cy")),
        *((name, ctypes.c_int32) for name in ("width", "height")),
    ]


class CLight(ctypes.Structure):
    """Mirror of the C struct Light."""

    _fields_ = [
        ("position", ctypes.c_float * 3),
        ("color", ctypes.c_float * 3),
        ("reference", ctypes.c_float),
        ("softness", ctypes.c_float),
        ("camera", CCamera),
        ("inverse_depth", ctypes.c_void_p),
    ]


def compiler() -> str | None:
    """Give the path of the C compiler ($CC or cc), None where there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """Load the kernel; the first call on a machine compiles it into the cache folder.

    :raises KernelError: without a compiler, or when it fails.
    """
    source = SOURCE.read_bytes()
    key = hashlib.sha256(source + " ".join(FLAGS).encode()).hexdigest()[:12]
    path = cache_folder() / f"kernel-{os.uname().machine}-{key}.so"
    if not path.exists():
        command = compiler()
        if command is None:
            raise KernelError("no C compiler: install one (apt install gcc) or set CC")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.so")
        run = subprocess.run(
            [command, *FLAGS, str(SOURCE), "-o", str(temporary), "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise KernelError(f"{command} cannot compile {SOURCE}:\n{run.stderr}")
        temporary.replace(path)
    return ctypes.CDLL(str(path))


@dataclass(frozen=True)
class View:
    """A pinhole camera in the world: x right, y down, z forward; pixel centres at integers."""

    rotation: NDArray[np.float64]  # (3, 3), world -> camera
    translation: NDArray[np.float64]  # (3,), m
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @classmethod
    def looking(
        cls,
        eye_m: Sequence[float],
        target_m: Sequence[float],
        focal_px: float,
        width: int,
        height: int,
        roll_rad: float = 0.0,
    ) -> View:
        """Look from a point at a point; the image centre sees the target."""
        forward = np.subtract(target_m, eye_m).astype(np.float64)
        forward /= np.linalg.norm(forward)
        up = [0.0, 1.0, 0.0] if abs(forward[2]) > 0.999 else [0.0, 0.0, 1.0]
        right = cross(forward, up)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, cross(forward, right), forward])
        c, s = np.cos(roll_rad), np.sin(roll_rad)
        rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ rotation
        translation = -rotation @ np.asarray(eye_m, np.float64)
        cx, cy = (width - 1) / 2, (height - 1) / 2
        return cls(rotation, translation, focal_px, focal_px, cx, cy, width, height)

    def through(self, lens: Intrinsics) -> View:
        """Take over a camera's pinhole parameters and image size."""
        return replace(
            self,
            fx=lens.fx,
            fy=lens.fy,
            cx=lens.cx,
            cy=lens.cy,
            width=lens.width,
            height=lens.height,
        )

    @property
    def eye_m(self) -> NDArray[np.float64]:
        """Where the camera is, in the world."""
        return np.asarray(-self.rotation.T @ self.translation)

    @property
    def to_world(self) -> NDArray[np.float64]:
        """The matrix (4, 4) that takes points of the camera frame into the world, m."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation.T, self.eye_m
        return matrix

    def to_camera(self, world: NDArray[Any]) -> NDArray[np.float64]:
        """Carry world points (..., 3) into the camera frame, same unit (m)."""
        return np.asarray(world @ self.rotation.T + self.translation, np.float64)

    def project(self, world: NDArray[Any]) -> NDArray[np.float64]:
        """Project world points (..., 3) to pixels (..., 2); behind the camera: nan."""
        x, y, z = np.moveaxis(self.to_camera(world), -1, 0)
        z = np.where(z > 0, z, np.nan)
        return np.stack([self.fx * x / z + self.cx, self.fy * y / z + self.cy], -1)

    def crop(self, left: float, top: float, side: float, size: int) -> View:
        """See a square of this image as size x size pixels, mapped as ``mppe_ros.crops`` does.

        :param left, top: px, where crop pixel (0, 0) lies in this image.
        :param side: px of this image that the crop spans.
        """
        s = size / side
        cx, cy = (self.cx - left) * s, (self.cy - top) * s
        return View(self.rotation, self.translation, self.fx * s, self.fy * s, cx, cy, size, size)

    def enlarged(self, factor: int) -> View:
        """See the same in an image of more pixels."""
        return View(
            self.rotation,
            self.translation,
            self.fx * factor,
            self.fy * factor,
            (self.cx + 0.5) * factor - 0.5,
            (self.cy + 0.5) * factor - 0.5,
            self.width * factor,
            self.height * factor,
        )

    def as_c(self) -> CCamera:
        """Give the C struct."""
        return CCamera(
            (ctypes.c_float * 9)(*self.rotation.ravel()),
            (ctypes.c_float * 3)(*self.translation),
            self.fx,
            self.fy,
            self.cx,
            self.cy,
            self.width,
            self.height,
        )


@dataclass(frozen=True)
class Drawn:
    """What a camera sees, pixel by pixel, before shading."""

    inverse_depth: Floats  # (H, W), 1/m; 0 where there is nothing
    face: Ints  # (H, W), -1 where there is nothing
    barycentric: Floats  # (H, W, 2), weights of corners 1 and 2


def _pointer(array: NDArray[Any] | None, dtype: Any = np.float32) -> ctypes.c_void_p:
    if array is None:
        return ctypes.c_void_p()
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"the kernel wants a dense {np.dtype(dtype)} array, not {array.dtype}")
    # `array.ctypes` takes twice as long, some fifty times per picture.
    return ctypes.c_void_p(array.__array_interface__["data"][0])


def skin(rest: Floats, influences: Ints, weights: Floats, transforms: Floats) -> Floats:
    """Move rest vertices by their bones (linear blend skinning).

    :param rest: (V, 3); ``influences``, ``weights``: (V, K); ``transforms``: (B, 3, 4).
    :return: (V, 3).
    """
    posed = np.empty_like(rest)
    library().skin(
        len(rest),
        influences.shape[1],
        _pointer(rest),
        _pointer(influences, np.int32),
        _pointer(weights),
        _pointer(transforms),
        _pointer(posed),
    )
    return posed


def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Average the normals of the faces around each vertex: (V, 3), unit length."""
    normals = np.empty_like(vertices)
    library().vertex_normals(
        len(vertices),
        _pointer(vertices),
        len(faces),
        _pointer(faces, np.int32),
        _pointer(normals),
    )
    return normals


def rasterize(view: View, vertices: Floats, faces: Ints) -> Drawn:
    """Draw triangles through a camera (z-buffer)."""
    shape = (view.height, view.width)
    drawn = Drawn(
        np.zeros(shape, np.float32),
        np.full(shape, -1, np.int32),
        np.zeros((*shape, 2), np.float32),
    )
    camera = view.as_c()
    library().rasterize(
        ctypes.byref(camera),
        len(vertices),
        _pointer(vertices),
        len(faces),
        _pointer(faces, np.int32),
        _pointer(drawn.inverse_depth),
        _pointer(drawn.face, np.int32),
        _pointer(drawn.barycentric),
    )
    return drawn


def depth_map(view: View, vertices: Floats, faces: Ints) -> Floats:
    """Draw only inverse depth (H, W), 1/m: a light's shadow map."""
    inverse_depth = np.zeros((view.height, view.width), np.float32)
    camera = view.as_c()
    library().rasterize(
        ctypes.byref(camera),
        len(vertices),
        _pointer(vertices),
        len(faces),
        _pointer(faces, np.int32),
        _pointer(inverse_depth),
        None,
        None,
    )
    return inverse_depth


def ambient_occlusion(view: View, inverse_depth: Floats, radius_m: float, samples: int) -> Floats:
    """Give the share of ambient light that nearby surfaces leave, (H, W), 0..1."""
    open_share = np.empty_like(inverse_depth)
    camera = view.as_c()
    library().ambient_occlusion(
        ctypes.byref(camera),
        _pointer(inverse_depth),
        ctypes.c_float(radius_m),
        samples,
        _pointer(open_share),
    )
    return open_share


def texture_size(textures: NDArray[np.uint8]) -> int:
    """Give the largest square's side of a mip chain: S with S² + (S/2)² + ... + 1 texels."""
    return 1 << (int(textures.shape[1]).bit_length() - 1) // 2


def shade(
    view: View,
    drawn: Drawn,
    vertices: Floats,
    normals: Floats,
    surface: Floats,
    faces: Ints,
    face_material: Ints,
    materials: NDArray[Any],
    textures: NDArray[np.uint8],
    lights: Sequence[CLight],
    ambient: Floats,
    open_share: Floats,
    panorama: Floats | None,
    background: Floats | None = None,
) -> Floats:
    """Give the light that arrives at each pixel.

    :param surface: (V, 3), coordinates of patterns, m.
    :param materials: (M,) of dtype MATERIAL; ``face_material``: (F,) rows of it.
    :param textures: (T, texels, 3), sRGB, of ``surfaces.mipmaps``.
    :param ambient: (9, 3), spherical harmonics of the irradiance, as in kernel.c.
    :param panorama: (h, w, 3), radiance seen where nothing was drawn; None keeps background.
    :param background: (H, W, 3), copied; default black.
    :return: (H, W, 3), linear RGB.
    """
    shape = (view.height, view.width, 3)
    rgb = np.zeros(shape, np.float32) if background is None else background.copy()
    camera = view.as_c()
    height, width = panorama.shape[:2] if panorama is not None else (0, 0)
    library().shade(
        ctypes.byref(camera),
        _pointer(vertices),
        _pointer(normals),
        _pointer(surface),
        _pointer(open_share),
        _pointer(faces, np.int32),
        _pointer(face_material, np.int32),
        _pointer(materials, MATERIAL),
        _pointer(textures, np.uint8),
        texture_size(textures),
        len(lights),
        (CLight * max(len(lights), 1))(*lights),
        _pointer(ambient),
        _pointer(panorama),
        width,
        height,
        _pointer(drawn.inverse_depth),
        _pointer(drawn.face, np.int32),
        _pointer(drawn.barycentric),
        _pointer(rgb),
    )
    return rgb
