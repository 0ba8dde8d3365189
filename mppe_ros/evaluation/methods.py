"""Ways to find people, all called alike, so that they can be measured side by side."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from .. import camera, crops
from ..detectors import FixedBoxes
from ..media import Rgb
from ..pipeline import Pipeline
from ..skeletons import Skeleton
from ..structures import FloatArray, Intrinsics, Person
from .matching import Body, Match, TrueImage, match
from .metrics import covered
from .truth import Photo, TruePerson


class BoxMethod(Protocol):
    """Estimates the pose of the person in each given box."""

    @property
    def skeleton(self) -> Skeleton:
        """The joint set of its people."""
        ...

    def __call__(
        self, rgb: Rgb, intrinsics: Intrinsics, boxes_xywh_px: FloatArray
    ) -> list[Person | None]:
        """One person per box (N, 4), None where nobody was found or the box is empty."""
        ...


class OnGivenBoxes:
    """The pipeline's RootNet and PoseNet on given boxes instead of detected ones."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = copy.copy(pipeline)
        self._pipeline.sharpness = None  # nobody doubts these boxes, and scores are numbers here

    @property
    def skeleton(self) -> Skeleton:
        return self._pipeline.skeleton

    def __call__(
        self, rgb: Rgb, intrinsics: Intrinsics, boxes_xywh_px: FloatArray
    ) -> list[Person | None]:
        """See `BoxMethod`."""
        # The scores carry the boxes' numbers: the pipeline leaves out boxes without area.
        numbers = np.arange(len(boxes_xywh_px))
        self._pipeline.detector = FixedBoxes([boxes_xywh_px], [numbers])
        self._pipeline.options = replace(
            self._pipeline.options, detection_threshold=0.0, max_persons=len(boxes_xywh_px)
        )
        found = {round(person.score): person for person in self._pipeline([rgb], [intrinsics])[0]}
        return [found.get(number) for number in range(len(boxes_xywh_px))]


def k_values_mm(boxes_xywh_px: FloatArray, intrinsics: Intrinsics) -> FloatArray:
    """(N,) k of detected boxes (N, 4), mm; NaN for an empty one (paper, eq. 2)."""
    processed, kept = crops.process_boxes(boxes_xywh_px, intrinsics.width, intrinsics.height)
    k_mm = np.full(len(boxes_xywh_px), np.nan)
    k_mm[kept] = camera.k_value_mm(intrinsics.fx, intrinsics.fy, processed)
    return k_mm


def boxes_of(people: Sequence[Person] | Sequence[TruePerson]) -> FloatArray:
    """(N, 4)"""
    return np.array([person.bbox_xywh_px for person in people], np.float64).reshape(-1, 4)


def pair_by_boxes(found: Sequence[Person], photo: Photo) -> Match:
    """Detected people with true ones, as the demo pairs them; crowds excuse what lies in them."""
    ignored = boxes_of(photo.ignored)
    truth = TrueImage(bodies(boxes_of(photo.people)), bodies(ignored))
    pairing = match(bodies(boxes_of(found)), truth)
    excused = covered(boxes_of(found), ignored)
    return Match(pairing.pairs, tuple(index for index in pairing.false if not excused[index]))


def bodies(boxes: FloatArray) -> tuple[Body, ...]:
    """Boxes (N, 4) of people of whom nothing else is known, to be paired."""
    nowhere = np.full((1, 3), np.nan)
    return tuple(Body(box, nowhere[0], nowhere) for box in boxes)
