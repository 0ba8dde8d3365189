"""Is a data set as its reader needs it? All that is wrong, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..camera import project
from . import DATASETS, Dataset, DatasetError
from .boxes import read_boxes
from .files import read_picture

IMAGES = 200  # looked at per split
_PEOPLE = 2000  # whose geometry is looked at
_PROJECTION_PX = 5.0  # annotated and projected joints differ by less, in the median
_DEPTH_RANGE_MM = (300, 100_000)  # of the median root; metres or centimetres are far off
_SIZE_TOLERANCE = 0.01  # some images of Human3.6M are 2 of 1000 px higher than said


@dataclass(frozen=True)
class Report:
    """What was found about one split."""

    split: str
    people: int
    images: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]  # harmless


def check(name: str, folder: Path, split: str | None = None, images: int = IMAGES) -> list[Report]:
    """Every split of a data set, or one.

    :param name: a row of `DATASETS`.
    :param images: how many images to look at, drawn at random (by a fixed seed).
    """
    chosen = DATASETS[name]
    splits = chosen.splits if split is None else (split,)
    return [_check_split(chosen, folder, one, images) for one in splits]


def _check_split(kind: type[Dataset], folder: Path, split: str, images: int) -> Report:
    kind.require_split(split)
    if not folder.is_dir():
        return Report(split, 0, 0, (f"{folder}: there is no such folder",), ())
    if (folder / kind.folder_name).is_dir():
        said = f"{folder} isn't the data set's own folder: {folder / kind.folder_name} is"
        return Report(split, 0, 0, (said,), ())
    missing = [path for path in kind.annotation_files(folder, split) if not path.is_file()]
    problems = [f"{path} is missing" for path in missing]
    people = pictures = 0
    if not any(path.suffix == ".json" for path in missing):
        try:
            dataset = kind.open_whole(folder, split)
        except DatasetError as error:
            problems.append(str(error))
        else:
            people, pictures = len(dataset), len(dataset.by_image())
            problems += [*_images(dataset, images), *_geometry(dataset), *dataset.own_problems()]
    notes = []
    for path in kind.optional_files(folder):
        if not path.is_file():
            notes.append(f"{path} is not there (only its own evaluations need it)")
            continue
        try:
            read_boxes(path)
        except DatasetError as error:
            problems.append(str(error))
    return Report(split, people, pictures, tuple(problems), tuple(notes))


def _images(dataset: Dataset, count: int) -> Iterator[str]:
    """Images that are missing, broken, or of another size than said."""
    by_image = dataset.by_image()
    names = sorted(by_image)
    if count < len(names):
        names = list(np.random.default_rng(0).choice(names, count, replace=False))
    lacking, broken, resized = [], [], []
    for name in names:
        path, camera = dataset.folder / name, dataset.cameras[by_image[name][0]]
        if not path.is_file():
            lacking.append(str(path))
            continue
        try:
            height, width = read_picture(path).shape[:2]
        except DatasetError:
            broken.append(str(path))
            continue
        if not np.allclose((width, height), (camera.width, camera.height), rtol=_SIZE_TOLERANCE):
            resized.append(f"{path} ({width}x{height}, not {camera.width}x{camera.height})")
    for found, what in (
        (lacking, "are missing"),
        (broken, "can't be read as images"),
        (resized, "have another size than annotated"),
    ):
        if found:
            yield f"{len(found)} of {len(names)} images looked at {what}, such as {found[0]}"


def _geometry(dataset: Dataset) -> Iterator[str]:
    """Boxes, joints, cameras and units that don't fit together."""
    rows = np.random.default_rng(0).permutation(len(dataset))[:_PEOPLE]
    middles = np.nanmedian(dataset.joints_px[rows], axis=1)
    boxes = dataset.boxes_xywh_px[rows]
    inside = ((middles >= boxes[:, :2]) & (middles <= boxes[:, :2] + boxes[:, 2:])).all(axis=1)
    outside = int((~inside).sum())
    if outside > 0.1 * len(rows):
        yield (
            f"the joints of {outside} of {len(rows)} people lie beside their boxes: is the camera "
            "of another version, or a box not left, top, width, height?"
        )
    if not dataset.has_depth:
        return
    depth_mm = float(np.median(dataset.roots_mm[rows, 2]))
    low, high = _DEPTH_RANGE_MM
    if not low < depth_mm < high:
        yield f"people are {depth_mm:g} mm from the camera in the median: other units?"
        return
    distances = [
        np.linalg.norm(project(one.joints_mm, one.intrinsics) - one.joints_px, axis=1)
        for one in (dataset[int(row)] for row in rows)
    ]
    off_px = float(np.nanmedian(np.concatenate(distances)))
    if off_px > _PROJECTION_PX:
        yield (
            f"joints in mm and in px are {off_px:.0f} px apart in the median: not the same camera?"
        )
