"""All measurements of ``mppe bench`` but those over DDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..devices import release_memory, select_device
from ..pipeline import Pipeline, PipelineOptions
from ..structures import Person
from . import networks
from .ours import BareNetworks, Following, Ours
from .reference import ReferenceWay
from .scene import Scene, first_frame
from .timing import PeakMemory, median_ms, ratio, resident_mb, summary, take_turns

SIZE = 640, 480  # px, of the comparison
PEOPLE = 4  # in it
FAST_SIZE = 480  # px: the fast profile's shorter side for the detector

Rows = list[dict[str, float]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is measured."""

    weight_sets: Sequence[str]
    precisions: Sequence[str]
    people: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    device: str
    backend: str
    rounds: int
    blazepose: bool


class Variant(NamedTuple):
    """A way to run a weight set."""

    name: str
    weight_set: str
    precision: str
    flip_test: bool = False
    detector_size: int | None = None


def variants(options: Options) -> list[Variant]:
    """Those that stand beside the reference way."""
    found = []
    for name in options.weight_sets:
        reference = name == networks.REFERENCE
        for precision in options.precisions:
            found.append(Variant(f"{name} {precision}", name, precision, flip_test=reference))
        if reference:
            # No flip test, and the lowest precision.
            fast = options.precisions[-1]
            found.append(Variant(f"{name} fast", name, fast, detector_size=FAST_SIZE))
    return found


def load(variant: Variant, options: Options, folder: Path) -> Pipeline:
    """A variant's pipeline."""
    files = networks.find(variant.weight_set, folder)
    pipeline = files.load(
        options.device, variant.precision, options.backend, variant.detector_size
    )
    pipeline.options = PipelineOptions(flip_test=variant.flip_test)
    return pipeline


class Comparison:
    """The reference way, the package's, the bare networks and BlazePose, in turns."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.scene = options, Scene.make(*SIZE, PEOPLE)
        self.ours = {v.name: Ours(load(v, options, folder), self.scene) for v in variants(options)}
        self.reference: ReferenceWay | None = None
        if networks.REFERENCE in options.weight_sets:
            self.reference = ReferenceWay(
                networks.find(networks.REFERENCE, folder),
                self.scene.boxes_xywh_px,
                self.scene.camera,
                select_device(options.device),
            )
        open_sets = [name for name in options.weight_sets if name != networks.REFERENCE]
        # The embedded set at its fastest.
        self.embedded = f"{open_sets[0]} {options.precisions[-1]}" if open_sets else ""
        self.following: Following | None = None
        if self.embedded:
            self.following = Following(self.ours[self.embedded].pipeline)
        self.rows: dict[str, Rows] = {}

    def run(self, done: Callable[[], None]) -> None:
        jobs: dict[str, Callable[[], Mapping[str, float]]] = {}
        if self.reference:
            reference = self.reference
            jobs["reference"] = lambda: reference(self.scene.rgb)
        for name, ours in self.ours.items():
            jobs[name] = ours
            jobs[f"{name}: bare networks"] = BareNetworks(ours)
        if self.following:
            jobs[self._following_name] = self.following
        if self.options.blazepose:
            jobs["blazepose"] = _blazepose()
        device = select_device(self.options.device)
        self.rows = take_turns(jobs, self.options.rounds, device, done)

    @property
    def _following_name(self) -> str:
        return f"{self.embedded}: {Following.IMAGES} images followed"

    @property
    def count(self) -> int:
        """Of jobs, all rounds together."""
        others = self.reference, self.following, self.options.blazepose
        jobs = 2 * len(self.ours) + sum(map(bool, others))
        return jobs * (self.options.rounds + 1)

    def record(self) -> dict[str, Any]:
        """The keys of the JSON that come of it."""
        rows, ours = self.rows, self.ours
        over_floor = {name: ratio(rows[name], rows[f"{name}: bare networks"]) for name in ours}

        def speedup(name: str) -> float | None:
            return (
                ratio(rows["reference"], rows[name])
                if "reference" in rows and name in rows
                else None
            )

        return {
            "speedup_fp32": speedup(f"{networks.REFERENCE} fp32"),
            "speedup_bf16": speedup(f"{networks.REFERENCE} bf16"),
            "speedup_fast": speedup(f"{networks.REFERENCE} fast"),
            "speedup_open": speedup(self.embedded),
            "overhead_ratio": max(over_floor.values()),
            "open_ms_per_person_frame": self._ms_per_person(),
            "blazepose_ms_per_person_frame": median_ms(rows["blazepose"])
            if "blazepose" in rows
            else None,
            "overhead_ratios": over_floor,
            "speedups": {name: speedup(name) for name in ours},
            "differences": self.differences(),
            "comparison": {name: summary(of) for name, of in rows.items()},
        }

    def _ms_per_person(self) -> float | None:
        """Of an image in which people are followed; None where nobody is."""
        if self.following is None or not self.following.people:
            return None
        of = self.rows[self._following_name]
        return median_ms(of) / Following.IMAGES / self.following.people

    def differences(self) -> dict[str, dict[str, float]]:
        """How far variants with the reference's outputs are from them, at most.

        Of those people whom both place, and how many they are.
        """
        if self.reference is None:
            return {}
        reference, found = self.reference, {}
        for name, ours in self.ours.items():
            if not ours.pipeline.options.flip_test:
                continue
            every = zip(ours.people, reference.joints_px, reference.root_z_mm, strict=True)
            pairs = [(p, px, z) for p, px, z in every if isinstance(p, Person)]
            if not pairs:
                continue
            found[name] = {
                "people": len(pairs),
                "joints_px": max(float(np.abs(p.joints_px - px).max()) for p, px, _ in pairs),
                "depth_percent": max(float(100 * abs(p.root_mm[2] / z - 1)) for p, _, z in pairs),
            }
        return found


def _blazepose() -> Callable[[], Mapping[str, float]]:
    """One person, followed as in a video: BlazePose's fastest way."""
    solutions: Any = import_module("mediapipe").solutions
    network = solutions.pose.Pose(static_image_mode=False, model_complexity=1)
    frame = first_frame()

    def job() -> Mapping[str, float]:
        network.process(frame)
        return {}

    return job


def sweep(options: Options, folder: Path, done: Say) -> list[dict[str, Any]]:
    """Every set and precision by people, at the first size, and by size, with ``PEOPLE``."""
    cases = [(options.sizes[0], count) for count in options.people]
    cases += [(size, PEOPLE) for size in options.sizes if (size, PEOPLE) not in cases]
    device, found = select_device(options.device), []
    for name in options.weight_sets:
        for precision in options.precisions:
            variant = Variant(f"{name} {precision}", name, precision)
            pipeline = load(variant, options, folder)
            for size, people in cases:
                peak = PeakMemory(device)
                ours = Ours(pipeline, Scene.make(*size, people))
                (rows,) = take_turns({variant.name: ours}, options.rounds, device).values()
                found.append({
                    "weights": name, "precision": precision, "device": str(device),
                    "people": people, "width": size[0], "height": size[1],
                    "peak_memory_mb": peak.mb, "stages": summary(rows),
                })  # fmt: skip
                done(f"{variant.name}, {people} at {size[0]}x{size[1]}")
            del pipeline, ours
            release_memory()
    return found


def memory_growth_mb(
    options: Options, folder: Path, frames: int, done: Callable[[], None]
) -> float | None:
    """How much more memory the first set takes after so many frames than after a tenth of them."""
    variant = Variant("", options.weight_sets[0], options.precisions[-1])
    ours = Ours(load(variant, options, folder), Scene.make(*SIZE, PEOPLE))
    start: float | None = None
    for frame in range(frames):
        ours()
        done()
        if frame == frames // 10:
            start = resident_mb()
    end = resident_mb()
    return end - start if start is not None and end is not None else None
