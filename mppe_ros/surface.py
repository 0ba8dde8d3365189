"""What the body's surface in a depth image says of the root: a small learned correction.

`depth` finds the distance of the torso. What is left are PoseNet's errors: where in the image the
pelvis is, and how deep it lies under the surface. `SurfaceNet` looks at the joints and at the
surface around the pelvis, square to the viewing ray and in millimetres, so that neither distance
nor lens nor place in the image matter to it, and says how far the root is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from . import camera
from .checkpoints import load_into, read_state_dict
from .skeletons import Skeleton
from .structures import DepthImage, FloatArray, Intrinsics, Person

# The square of surface that is looked at, with the root in its middle: 1.9 m.
CELLS, CELL_MM = 48, 40.0
# Surfaces farther than this before or behind the root are as if they were so far.
_DEEPEST_MM = 450.0
# Nobody's pelvis is farther off: a network that says more has not seen the like before.
_MOST_MM = 250.0
# About the size of what the network says, and of what it is given: its numbers are near 1.
_STEP_MM, _DEPTH_MM, _BODY_MM = 100.0, 300.0, 1000.0


class View(NamedTuple):
    """What SurfaceNet is given of N people."""

    patches: torch.Tensor  # (N, 3, CELLS, CELLS) depth from the root, known, in image
    bodies: torch.Tensor  # (N, J, 4) joints from the root along the ray, right and down; scores

    def mirrored(self, skeleton: Skeleton) -> View:
        """The same people seen in a mirror: what is off to the right is off to the left."""
        bodies = self.bodies[:, skeleton.mirrored] * self.bodies.new_tensor([1, -1, 1, 1])
        return View(self.patches.flip(3), bodies)


MIRRORED = (1.0, -1.0, 1.0)  # how offsets change in a mirror


class SurfaceNet(nn.Module):
    """The network: three convolutions look at the surface, the rest is fully connected."""

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        self.skeleton = skeleton
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 24), (24, 32)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        cells = 32 * (CELLS // 8) ** 2
        self.surface = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(cells, 64), nn.ReLU()
        )
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(4 * len(skeleton), 64), nn.ReLU())
        self.offset = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 3)
        )

    @classmethod
    def load(cls, path: Path, skeleton: Skeleton) -> SurfaceNet:
        """
        :raises CheckpointError: no such file, or another network's.
        """
        network = cls(skeleton)
        load_into(network, read_state_dict(path), path)
        return network.eval()

    def forward(self, patches: torch.Tensor, bodies: torch.Tensor) -> torch.Tensor:
        """How far the root is off (N, 3), mm: along the viewing ray, to the right, and down."""
        features = torch.cat([self.surface(patches), self.body(bodies)], dim=1)
        return self.offset(features) * _STEP_MM

    @torch.inference_mode()
    def offsets_mm(self, view: View) -> FloatArray:
        """(N, 3) as `forward`, averaged with what the mirror says, and no farther than anybody's
        pelvis can be."""
        both = zip(view, view.mirrored(self.skeleton), strict=True)
        plain, turned = self(*map(torch.cat, both)).chunk(2)
        found = (plain + turned * turned.new_tensor(MIRRORED)) / 2
        offsets = found.nan_to_num().clamp(-_MOST_MM, _MOST_MM).numpy()
        return np.asarray(offsets, np.float64)


def look(
    people: Sequence[Person],
    depth_m: DepthImage,
    intrinsics: Intrinsics,
) -> View:
    """
    :param people: at least one, at the distances that depth gave them.
    :param depth_m: (H, W), as of `depth.fuse`.
    """
    roots = np.stack([person.root_mm for person in people])
    axes = camera.ray_axes(roots)
    steps = (np.arange(CELLS) - (CELLS - 1) / 2) * CELL_MM
    right, down = axes[:, None, None, 1], axes[:, None, None, 2]
    points = roots[:, None, None] + steps[:, None] * right + steps[:, None, None] * down
    before = points[..., 2] > 0
    points[..., 2] = np.where(before, points[..., 2], 1.0)
    pixels = np.rint(camera.project(points, intrinsics))
    height, width = depth_m.shape
    inside = before & np.all((pixels >= 0) & (pixels < (width, height)), axis=-1)
    u, v = np.moveaxis(np.where(inside[..., None], pixels, 0).astype(np.intp), -1, 0)
    seen_m = np.asarray(depth_m[v, u], np.float64)
    known = inside & np.isfinite(seen_m) & (seen_m > 0)
    behind_root = np.where(known, seen_m * 1000 - roots[:, None, None, 2], 0.0)
    behind_root = behind_root.clip(-_DEEPEST_MM, _DEEPEST_MM) / _DEPTH_MM
    joints = np.stack([person.joints_mm for person in people]) - roots[:, None]
    places = np.nan_to_num(joints) @ axes.transpose(0, 2, 1) / _BODY_MM
    scores = np.stack([person.joint_scores for person in people])
    patches = np.stack([behind_root, known, inside], axis=1)
    bodies = np.concatenate([places, scores[..., None]], axis=2)
    return View(torch.from_numpy(patches).float(), torch.from_numpy(bodies).float())
