"""Films: people who walk, talk and act before a camera that stands or moves, with depth.

Clip number i of a seed is the same whoever makes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..skeletons import MUCO_21
from ..structures import Intrinsics
from . import motion, people, staging
from .acting import Actor, Script, perform, stage_people, stand_and_talk, walk
from .annotations import Annotation
from .kernel import View
from .library import Library
from .motion import Gait
from .places import Place
from .scenes import Picture, draw_intrinsics, photograph

MIN_VISIBLE_FRACTION, MIN_BOX_PX = 0.15, 24.0  # below, a person is to be ignored
STAGE_M = 3.0  # actors stay about this near to the world's origin


@dataclass(frozen=True)
class ClipPlan:
    """One clip before it is filmed."""

    actors: list[Actor]
    place: Place
    lens: Intrinsics
    views: list[View]  # one per frame


class ClipGenerator:
    """Makes clips by number."""

    def __init__(
        self, library: Library, seed: int, width: int = 640, height: int = 480,
        frames: int = 90, rate_hz: float = 15.0,
    ) -> None:  # fmt: skip
        """Prepare; the library decides which split is drawn from."""
        self.library, self.seed = library, seed
        self.width, self.height = width, height
        self.frames, self.rate_hz = frames, rate_hz

    def plan(self, index: int) -> ClipPlan:
        """Cast clip number ``index``, give everybody something to do, and move the camera."""
        rng = np.random.default_rng([self.seed, 7, index])
        place = staging.draw_place(self.library, rng)
        lens = draw_intrinsics(rng, self.width, self.height)
        gait = self._gait(rng)
        actors = [
            self._actor(person, gait, place, rng) for person in range(1, int(rng.integers(3, 7)))
        ]
        return ClipPlan(actors, place, lens, self._views(lens, rng))

    def __call__(self, index: int) -> Iterator[Picture]:
        """Film clip number ``index``, frame by frame; track ids are ``Annotation.person``."""
        plan = self.plan(index)
        crowd = stage_people(self.library.bank.model, plan.actors, self.frames, self.rate_hz)
        noise = np.random.default_rng([self.seed, 8, index])
        eyes = [view.eye_m for view in plan.views]
        furniture = [
            m for m in plan.place.meshes if all(staging.is_clear(m, e, 2.0) for e in eyes)
        ]
        for view, placed in zip(plan.views, crowd, strict=True):
            around = staging.facing(furniture, view.eye_m)
            meshes = [*(one.mesh for one in placed), *around]
            settings = np.random.default_rng([self.seed, 9, index])  # the same in every frame
            yield photograph(view, plan.lens, plan.place, meshes, placed, settings, noise)

    def _gait(self, rng: np.random.Generator) -> Gait:
        """Take a recorded walk where there is one."""
        walks = [clip for clip in self.library.clips if clip.name in ("02_01", "02_02")]
        return motion.find_gait(walks[rng.integers(len(walks))]) if walks else motion.drawn_gait()

    def _actor(self, person: int, gait: Gait, place: Place, rng: np.random.Generator) -> Actor:
        figure = self.library.cast(self.seed, int(rng.integers(1 << 31)))
        reach = np.minimum(place.half_size_m, STAGE_M)
        # Slices of the stage, so that standing people never stand inside each other.
        angle = 2 * math.pi * person / 6 + rng.uniform(-0.3, 0.3)
        spot = np.array([math.cos(angle), math.sin(angle)]) * reach * rng.uniform(0.3, 0.9)
        leg_m = people.leg_length_m(self.library.bank.model, figure)
        return Actor(person, figure, self._script(leg_m, gait, spot, reach, rng))

    def _script(
        self, leg_m: float, gait: Gait, spot: NDArray[np.float64],
        reach: NDArray[np.float64], rng: np.random.Generator,
    ) -> Script:  # fmt: skip
        kind = rng.random()
        if kind < 0.6:
            points = [spot, *(rng.uniform(-1, 1, (3, 2)) * reach)]
            return walk(gait, leg_m, np.array(points), 0.0)
        x, y = (float(v) for v in spot)
        yaw = float(rng.uniform(-180, 180))
        standing = [c for c in self.library.clips if np.ptp(c.positions_m, axis=0).max() < 1.2]
        if standing and kind < 0.8:
            clip = standing[rng.integers(len(standing))]
            start = rng.uniform(0, max(clip.duration_s - 0.8 * self.frames / self.rate_hz, 0.1))
            return perform(clip, x, y, yaw, float(start))
        return stand_and_talk(x, y, yaw, int(rng.integers(1 << 30)), float(rng.uniform(0, 1)))

    def _views(self, lens: Intrinsics, rng: np.random.Generator) -> list[View]:
        """Put the camera at the stage's edge; half of them stand, the others drift and turn."""
        azimuth, distance = rng.uniform(0, 2 * math.pi), rng.uniform(3.5, 6)
        height = rng.uniform(0.7, 2.2)
        moving = rng.random() < 0.5
        drift = rng.normal(0, 0.25, 3) * [1, 1, 0.2] if moving else np.zeros(3)
        sway = rng.uniform(0.1, 0.5) if moving else 0.0
        views = []
        for frame in range(self.frames):
            time_s = frame / self.rate_hz
            eye = np.array([distance * math.cos(azimuth), distance * math.sin(azimuth), height])
            eye += drift * time_s
            turn = sway * math.sin(0.8 * time_s)
            aim = np.array([-turn * math.sin(azimuth), turn * math.cos(azimuth), 0.95])
            view = View.looking(eye.tolist(), aim.tolist(), lens.fx, lens.width, lens.height)
            views.append(view.through(lens))
        return views


def write_clip(generator: ClipGenerator, index: int, out: Path) -> None:
    """Write ``rgb/*.jpg``, ``depth/*.png`` (mm), ``camera_info.json`` and ``truth.json``."""
    for name in ("rgb", "depth"):
        (out / name).mkdir(parents=True, exist_ok=True)
    images = []
    plan = generator.plan(index)
    lens = plan.lens
    for frame, picture in enumerate(tqdm(generator(index), total=generator.frames, unit="frame")):
        cv2.imwrite(f"{out}/rgb/{frame:06d}.jpg", picture.image[..., ::-1])
        cv2.imwrite(f"{out}/depth/{frame:06d}.png", picture.depth_mm)
        pose = {"camera_to_world": plan.views[frame].to_world.round(6).tolist()}
        images.append({**describe(picture.annotations, frame), **pose})
    info = {
        "width": lens.width, "height": lens.height, "distortion_model": lens.distortion_model,
        "d": list(lens.distortion), "k": lens.matrix.ravel().tolist(),
    }  # fmt: skip
    (out / "camera_info.json").write_text(json.dumps(info) + "\n")
    (out / "truth.json").write_text(truth_json(lens, generator.rate_hz, "generated", images))


def describe(people_in_frame: list[Annotation], frame: int) -> dict[str, Any]:
    """Put one frame's people into the clip's JSON form."""
    found: dict[str, Any] = {"frame": frame, "people": [], "ignored": []}
    for a in people_in_frame:
        big = min(a.bbox_xywh_px[2:]) >= MIN_BOX_PX
        clear = big and a.visible_fraction >= MIN_VISIBLE_FRACTION
        found["people" if clear else "ignored"].append(
            {
                "id": a.person,
                "bbox_xywh_px": np.round(a.bbox_xywh_px, 1).tolist(),
                "joints_px": np.round(a.joints_px, 1).tolist(),
                "joints_camera_mm": np.round(a.joints_camera_mm, 1).tolist(),
                "visible": a.visible.astype(int).tolist(),
                "visible_fraction": round(a.visible_fraction, 3),
            }
        )
    return found


def truth_json(
    lens: Intrinsics, rate_hz: float, licence: str, images: list[dict[str, Any]]
) -> str:
    """Give the text of a clip's truth file.

    :param images: of ``describe``, in order.
    """
    truth: dict[str, Any] = {
        "skeleton": MUCO_21.name, "joint_names": list(MUCO_21.joint_names), "fps": rate_hz,
        "width": lens.width, "height": lens.height, "fx": lens.fx, "fy": lens.fy,
        "cx": lens.cx, "cy": lens.cy, "licence": licence,
    }  # fmt: skip
    if lens.distortion:
        truth[f"distortion_{lens.distortion_model}"] = list(lens.distortion)
    truth["images"] = images
    return json.dumps(truth, separators=(",", ":")) + "\n"
