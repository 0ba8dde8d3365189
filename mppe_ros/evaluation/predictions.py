"""What a method says about a data set's people, whoever ran it: the pipeline, or the reference
release, whose files `release.py` reads.
"""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from .. import camera
from ..crops import ENLARGE
from ..datasets import Dataset, read_picture
from ..datasets.boxes import BoxFile
from ..media import Rgb
from ..pipeline import Pipeline
from ..structures import Detections, FloatArray, Intrinsics, Person
from .matching import TruthError
from .truth import sized

_BATCH = 8  # images
_READ_AHEAD = 4 * _BATCH


@dataclass(frozen=True)
class Prediction:
    """One person in one image; J joints in the order of the method's skeleton."""

    image: str  # relative to the data set's folder
    score: float
    bbox_xywh_px: FloatArray  # (4,) as detected
    root_mm: FloatArray  # (3,) camera frame
    joints_px: FloatArray  # (J, 2)
    joints_mm: FloatArray  # (J, 3) camera frame, at the root's depth
    sample: int | None = None  # whose box it was, where boxes are the truth


class Roots(Enum):
    """Where depths come from."""

    ROOTNET = "rootnet"
    TRUTH = "truth"  # Table 2's oracle
    K = "k"  # gamma = 1, the box centre: Table 2's baseline


@dataclass(frozen=True)
class GivenBoxes:
    """One image's boxes: whose they are, and roots where those are given too."""

    boxes_xywh_px: FloatArray  # (N, 4) before `crops.process_boxes`
    scores: FloatArray  # (N,)
    samples: Sequence[int | None]
    roots_mm: FloatArray | None = None  # (N, 3)


class Boxes(Protocol):
    """A source of boxes other than the pipeline's detector."""

    def __call__(self, image: str, intrinsics: Intrinsics) -> GivenBoxes:
        """The boxes of an image, by its path relative to the data set's folder."""
        ...


class TrueBoxes:
    """The annotated boxes, and roots if wanted, with score 1."""

    def __init__(self, dataset: Dataset, *, roots: bool = False) -> None:
        self._dataset, self._roots = dataset, roots
        self._by_image = dataset.by_image()

    def __call__(self, image: str, intrinsics: Intrinsics) -> GivenBoxes:
        """See `Boxes`."""
        rows = self._by_image[image]
        return GivenBoxes(
            self._dataset.boxes_xywh_px[rows].astype(np.float64),
            np.ones(len(rows)),
            rows,
            self._dataset.roots_mm[rows].astype(np.float64) if self._roots else None,
        )


class BoxesOfFile:
    """The reference release's, with its roots where the file has them.

    :raises TruthError: none of them is of an image of the data set.
    """

    def __init__(self, file: BoxFile, dataset: Dataset) -> None:
        by_image = dataset.by_image()
        ids = {int(dataset.image_ids[rows[0]]): image for image, rows in by_image.items()}
        self._boxes = defaultdict(list)
        for box in file.boxes:
            if box.image_id in ids:
                self._boxes[ids[box.image_id]].append(box)
        if not self._boxes:
            raise TruthError(f"{file.path}: none of its boxes is of an image of {dataset.folder}")
        self._unit_mm, self._processed = dataset.root_unit_mm, file.has_roots

    def __call__(self, image: str, intrinsics: Intrinsics) -> GivenBoxes:
        """See `Boxes`."""
        found = self._boxes.get(image, [])
        boxes = np.array([box.bbox_xywh_px for box in found]).reshape(-1, 4)
        if not self._processed:
            return GivenBoxes(boxes, np.array([box.score for box in found]), [None] * len(found))
        roots = np.array([box.root for box in found], np.float64).reshape(-1, 3)
        return GivenBoxes(
            unprocessed(boxes, intrinsics),
            np.array([box.score for box in found]),
            [None] * len(found),
            roots * self._unit_mm,
        )


def unprocessed(boxes_xywh_px: FloatArray, intrinsics: Intrinsics) -> FloatArray:
    """Boxes (N, 4) that `crops.process_boxes` makes the given, processed ones of.

    Before it was made square and enlarged, such a box lay in the image, with one side as long as
    the square's: a thin box along that side does as well as the true one.
    """
    boxes = np.asarray(boxes_xywh_px, np.float64).reshape(-1, 4)
    centres, sides = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2] / ENLARGE
    last = np.array([intrinsics.width - 1, intrinsics.height - 1])
    half = sides[:, None] / 2
    along = np.minimum(centres - half, last - centres - half).argmax(axis=1)
    lengths = np.zeros_like(centres)
    lengths[np.arange(len(boxes)), along] = sides
    # "+ 1" is what the processing takes off again.
    return np.concatenate([centres - lengths / 2, lengths + 1], axis=1)


class Runner:
    """The pipeline over the images of a data set.

    :param boxes: None for the pipeline's own detector.
    """

    def __init__(self, pipeline: Pipeline, roots: Roots, boxes: Boxes | None = None) -> None:
        self._pipeline, self._boxes = copy.copy(pipeline), boxes
        self._pipeline.options = replace(pipeline.options, k_only_root=roots is Roots.K)

    def __call__(self, dataset: Dataset, images: Sequence[str]) -> Iterator[list[Prediction]]:
        """Each image's people.

        :param images: paths relative to the data set's folder.
        :raises DatasetError: an image that is missing or broken.
        :raises TruthError: an image of another size than its camera.
        """
        by_image = dataset.by_image()
        read = _read_ahead(dataset.folder, images)
        while chunk := list(islice(read, _BATCH)):
            names, pictures = zip(*chunk, strict=True)
            cameras = [
                sized(dataset.cameras[by_image[image][0]], rgb, dataset.folder / image)
                for image, rgb in chunk
            ]
            yield from self._batch(names, pictures, cameras)

    def _batch(
        self, images: Sequence[str], pictures: Sequence[Rgb], cameras: Sequence[Intrinsics]
    ) -> Iterator[list[Prediction]]:
        pixels = self._pipeline.upload(pictures, cameras)
        if self._boxes is None:
            detections = [self._pipeline.options.select(d) for d in self._pipeline.detect(pixels)]
            given = [_as_given(found) for found in detections]
        else:
            given = [self._boxes(*one) for one in zip(images, cameras, strict=True)]
            detections = [Detections(one.boxes_xywh_px, one.scores) for one in given]
        people = self._pipeline.estimate(pixels, cameras, detections)
        for image, lens, of_image, boxes in zip(images, cameras, people, given, strict=True):
            yield [
                _prediction(image, person, boxes, index, lens)
                for index, person in enumerate(of_image)
                if person is not None
            ]


def _read_ahead(folder: Path, images: Sequence[str]) -> Iterator[tuple[str, Rgb]]:
    """Images in order, decoded in threads while the networks work."""
    with ThreadPoolExecutor() as pool:
        waiting: deque[tuple[str, Future[Rgb]]] = deque()
        for image in images:
            waiting.append((image, pool.submit(read_picture, folder / image)))
            if len(waiting) > _READ_AHEAD:
                name, picture = waiting.popleft()
                yield name, picture.result()
        for name, picture in waiting:
            yield name, picture.result()


def _as_given(found: Detections) -> GivenBoxes:
    boxes, scores = (np.asarray(v, np.float64) for v in (found.boxes_xywh_px, found.scores))
    return GivenBoxes(boxes, scores, [None] * len(scores))


def _prediction(
    image: str, person: Person, given: GivenBoxes, index: int, lens: Intrinsics
) -> Prediction:
    root_mm, joints_mm = person.root_mm, person.joints_mm
    if given.roots_mm is not None:
        depths = joints_mm[:, 2] - root_mm[2]
        root_mm = given.roots_mm[index]
        joints_mm = camera.back_project(person.joints_px, depths + root_mm[2], lens)
    return Prediction(
        image=image,
        score=float(given.scores[index]),
        bbox_xywh_px=given.boxes_xywh_px[index],
        root_mm=root_mm,
        joints_px=person.joints_px,
        joints_mm=joints_mm,
        sample=given.samples[index],
    )
