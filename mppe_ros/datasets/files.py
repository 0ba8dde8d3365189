"""Annotation files: read, or refused in one sentence that names the file and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ..structures import Intrinsics

Entry = dict[str, Any]
_T = TypeVar("_T")

# The reference release's camera of images that nobody calibrated.
_ASSUMED_FOCAL_PX = 1500.0


class DatasetError(ValueError):
    """A data set that can't be used as it is; one sentence that says why."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    :raises DatasetError: missing, unreadable, or cut off.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing (docs/datasets.md shows the folder)") from error
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(
            f"{path} is no whole JSON file ({error}): was its download cut off?"
        ) from error


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB as stored: annotations know nothing of orientation tags.

    :raises DatasetError: missing, or not an image.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        reason = "can't be read as an image" if path.is_file() else "is missing"
        raise DatasetError(f"{path} {reason}")
    return np.ascontiguousarray(picture[..., ::-1], np.uint8)


def read_coco(path: Path) -> tuple[dict[int, Entry], list[Entry]]:
    """Images by id and annotations of a file in COCO's layout.

    :raises DatasetError: as `read_json`, or of another layout.
    """
    content = read_json(path)
    try:
        images = {image["id"]: image for image in content["images"]}
        return images, list(content["annotations"])
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} isn't in COCO's layout: it lacks {_reason(error)} in 'images' or "
            "'annotations'"
        ) from error


def read_each(
    path: Path, kind: str, entries: Iterable[Entry], read: Callable[[Entry], _T | None]
) -> Iterator[_T]:
    """What ``read`` makes of each entry, without those it makes None of.

    :raises DatasetError: an entry without a field that is needed, or with another kind of value.
    """
    for entry in entries:
        try:
            made = read(entry)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            number = entry.get("id", "?") if isinstance(entry, dict) else "?"
            raise DatasetError(f"{path}: {kind} {number}: {_reason(error)}") from error
        if made is not None:
            yield made


def of_image(images: dict[int, Entry], annotation: Entry) -> Entry:
    """An annotation's image; ``ValueError`` if the file hasn't got it."""
    image = images.get(annotation["image_id"])
    if image is None:
        raise ValueError(f"its image {annotation['image_id']} is not among the images")
    return image


@lru_cache(maxsize=4096)
def camera(fx: float, fy: float, cx: float, cy: float, width: int, height: int) -> Intrinsics:
    """One object for all images of a camera."""
    return Intrinsics(float(fx), float(fy), float(cx), float(cy), int(width), int(height))


@lru_cache(maxsize=4096)
def assumed_camera(width: int, height: int) -> Intrinsics:
    """What the reference release takes for images without a camera: 1500 px, centred."""
    f = _ASSUMED_FOCAL_PX
    return Intrinsics(f, f, width / 2, height / 2, width, height, assumed=True)


def _reason(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)
