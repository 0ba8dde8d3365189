"""People in the world: figures set on the ground in a pose, with their joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import bodies
from .bodies import BodyModel
from .clothing import Figure
from .motion import Pose
from .render import Mesh, person_mesh

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Placed:
    """One posed person in the world."""

    person: int  # track id, from 1
    figure: Figure
    vertices: Floats  # (V, 3), m
    joints_m: NDArray[np.float64]  # (21, 3), MuCo's order

    @property
    def mesh(self) -> Mesh:
        """What the renderer draws."""
        return person_mesh(self.figure, self.vertices, self.person)

    def moved(self, offset_m: NDArray[np.float64]) -> Placed:
        """Shift in the world."""
        return Placed(
            self.person,
            self.figure,
            self.vertices + offset_m.astype(np.float32),
            self.joints_m + offset_m,
        )


def place(model: BodyModel, figure: Figure, pose: Pose, person: int) -> Placed:
    """Pose a figure where its pose says."""
    posed = bodies.pose_bones(model, figure.body, pose)
    vertices = figure.pose(posed.transforms)
    joints = bodies.joints_muco(model, posed, vertices[figure.head_top])
    return Placed(person, figure, vertices, joints)


def place_on_ground(
    model: BodyModel, figure: Figure, pose: Pose, person: int, ground_m: float = 0.0
) -> Placed:
    """Pose a figure so that its lowest point touches the ground; x and y are the pose's."""
    placed = place(model, figure, pose, person)
    drop = ground_m - float(placed.vertices[:, 2].min())
    return placed.moved(np.array([0.0, 0.0, drop]))


def leg_length_m(model: BodyModel, figure: Figure) -> float:
    """Give thigh plus shank: the measure of strides."""
    heads = figure.body.bone_heads
    hip, knee, ankle = (
        heads[model.bone(f"{name}.L")] for name in ("upperleg01", "lowerleg01", "foot")
    )
    return float(np.linalg.norm(hip - knee) + np.linalg.norm(knee - ankle))
