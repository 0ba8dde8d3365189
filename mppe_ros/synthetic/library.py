"""All that generation draws from: identities, clothes, motion, surroundings; split for testing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from . import motion, surfaces
from .bodies import Body, BodyBank, load_bank
from .clothing import Figure, Wardrobe
from .environment import Environment, procedural_sky, read_panoramas
from .motion import Clip, Pose

Named = TypeVar("Named")

COARSENESS_M = 0.008  # of hands and feet: a pixel or less of them in any training picture
PRINTS = 10  # textures at the head of the stack that clothes may carry


class Split(Enum):
    """Which half of everything may be used; nothing is in both."""

    TRAIN = "train"
    TEST = "test"


# Held out for testing: every eighth identity, and by name:
TEST_GARMENTS = frozenset(
    ["male_casualsuit05", "male_worksuit01", "female_sportsuit01", "shoes06", "bob01", "short04"]
)
TEST_CLIPS = frozenset(["01_04", "01_12", "02_06", "02_09", "03_02"])
TEST_PANORAMAS = frozenset(["lebombo_1k", "potsdamer_platz_1k", "forest_slope_1k"])


@dataclass(frozen=True)
class Library:
    """Everything that can be drawn, one split of it."""

    split: Split
    bank: BodyBank
    bodies: tuple[Body, ...]
    wardrobe: Wardrobe
    clips: tuple[Clip, ...]
    environments: tuple[Environment, ...]
    photos: tuple[NDArray[np.uint8], ...]  # person-free pictures (H, W, 3) RGB, as backgrounds
    has_assets: bool
    textures: NDArray[np.uint8] = field(repr=False)  # of surfaces.mipmaps; PRINTS prints first

    @classmethod
    def load(
        cls, assets: Path | None = None, split: Split = Split.TRAIN, bank: BodyBank | None = None
    ) -> Library:
        """Read the assets folder; whatever it lacks is procedural.

        :param assets: may have ``makehuman``, ``cmu_mocap``, ``hdri`` and ``backgrounds``.
        :param bank: identities, instead of the default ones.
        """
        bank = bank or load_bank()
        test = split is Split.TEST
        wardrobe = Wardrobe.load(bank.model, assets, PRINTS, COARSENESS_M)
        garments = {
            name: garment
            for name, garment in wardrobe.garments.items()
            if (name in TEST_GARMENTS) == test or name.startswith(("fedora", "shoes05"))
        }
        rng = np.random.default_rng([17, int(test)])
        return cls(
            split,
            bank,
            tuple(body for body in bank.bodies if (body.index % 8 == 7) == test),
            replace(wardrobe, garments=garments),
            _of_split(motion.read_cmu(assets / "cmu_mocap"), TEST_CLIPS, test) if assets else (),
            _environments(assets, test, rng),
            _photos(assets, test),
            assets is not None,
            _textures(rng),
        )

    def cast(self, seed: int, number: int) -> Figure:
        """Dress somebody: the same seed and number give the same figure everywhere."""
        rng = np.random.default_rng([seed, 2, number])
        return self.wardrobe.dress(self.bodies[rng.integers(len(self.bodies))], rng)

    def draw_pose(self, rng: np.random.Generator) -> tuple[Pose, str]:
        """Draw a pose with a random heading, and its style ("mocap" or one of draw_pose's)."""
        if self.clips and rng.random() < 0.4:
            pose, style = self._draw_mocap(rng), "mocap"
        elif self.split is Split.TEST:
            pose, style = motion.draw_test_pose(rng)
        else:
            pose, style = motion.draw_pose(rng)
        return pose.turned(float(rng.uniform(-180, 180))), style

    def _draw_mocap(self, rng: np.random.Generator) -> Pose:
        """Take a recorded pose, vary it, and sometimes give it other arms."""
        clip = self.clips[rng.integers(len(self.clips))]
        frame = rng.integers(len(clip))
        pose = Pose(clip.rotations[frame])
        curl = rng.uniform(0, 0.9, 2)
        pose = replace(
            motion.jittered(pose, rng, degrees=5.0), finger_curl=(float(curl[0]), float(curl[1]))
        )
        return motion.with_arms(pose, rng) if rng.random() < 0.3 else pose


def _of_split(items: Sequence[Any], held_out: frozenset[str], test: bool) -> tuple[Any, ...]:
    return tuple(item for item in items if (item.name in held_out) == test)


def _environments(
    assets: Path | None, test: bool, rng: np.random.Generator
) -> tuple[Environment, ...]:
    folder = assets / "hdri" if assets else None
    real = read_panoramas(folder) if folder and folder.is_dir() else []
    turned = [
        environment.turned(int(rng.integers(environment.panorama.shape[1])))
        for environment in _of_split(real, TEST_PANORAMAS, test)
        for _ in range(3)
    ]
    return (*turned, *(procedural_sky(rng) for _ in range(12)))


def _photos(assets: Path | None, test: bool) -> tuple[NDArray[np.uint8], ...]:
    folder = assets / "backgrounds" if assets else None
    if folder is None or not folder.is_dir():
        return ()
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photos = []
    for i, path in enumerate(paths):
        image = cv2.imread(str(path)) if (i % 8 == 7) == test else None
        if image is None or min(image.shape[:2]) < 200:
            continue
        shrink = min(1.0, 900 / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        photos.append(np.ascontiguousarray(small[..., ::-1], np.uint8))
    return tuple(photos)


def _textures(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make the stack: prints first, then floors, walls and grounds."""
    tone = functools.partial(_draw_tone, rng)
    stack = [surfaces.poster(rng) for _ in range(PRINTS)]
    stack += [surfaces.wood_planks(rng, tone(), int(rng.integers(4, 10))) for _ in range(3)]
    stack += [surfaces.tiles(rng, tone(), int(rng.integers(2, 7))) for _ in range(3)]
    stack += [surfaces.tiles(rng, tone(), int(rng.integers(3, 7)), -0.3, True) for _ in range(3)]
    stack += [surfaces.rough(rng, tone(), rng.uniform(0.01, 0.16)) for _ in range(6)]
    return surfaces.mipmaps(np.stack(stack))


def _draw_tone(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a muted colour of walls and floors."""
    grey = rng.uniform(0.25, 0.9)
    return np.asarray(np.clip(grey * rng.uniform(0.88, 1.1, 3), 0, 1))
