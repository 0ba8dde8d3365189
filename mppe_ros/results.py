"""poses.jsonl, the result of a run: a line per image, read one at a time, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from .media import IMAGE_SUFFIXES, FrameSource, MediaError, Rgb, Shot, read_image
from .records import Record, from_json
from .structures import Intrinsics

NAME = "poses.jsonl"
# What a line has besides Pose3DArray's fields.
EXTRAS = ("image", "frame", "camera")


class ResultsError(ValueError):
    """No result that can be read; one sentence."""


class Results:
    """The lines of a poses.jsonl, from the first one at each iteration.

    :param path: the file, or the folder of a run.
    :raises ResultsError: there is none, or its first line is no Pose3DArray.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / NAME if path.is_dir() else path
        if not self.path.is_file():
            raise ResultsError(f"{self.path}: there is no such result; 'mppe run --out' makes one")
        self.first = next(iter(self), None)

    def __iter__(self) -> Iterator[Record]:
        with self.path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith("\n"):
                    return  # a run that was interrupted
                try:
                    line = from_json(text)
                    line["poses"], line["header"]["stamp"], line["joint_names"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ResultsError(
                        f"{self.path}: line {number} has not the fields of Pose3DArray"
                    ) from error
                yield {"image": "", "frame": number - 1, **line}


def stamp_s(line: Record) -> float:
    """The image's time, s."""
    stamp = line["header"]["stamp"]
    return float(stamp["sec"] + stamp["nanosec"] * 1e-9)


def camera_of(line: Record) -> Intrinsics | None:
    """The image's camera, where the line knows it."""
    if "camera" not in line:
        return None
    camera = line["camera"]
    return Intrinsics(**{**camera, "distortion": tuple(camera["distortion"])})


def message_of(line: Record) -> Record:
    """Pose3DArray's fields only."""
    return {name: value for name, value in line.items() if name not in EXTRAS}


def is_photo(line: Record) -> bool:
    """Of a file of its own, not of a film."""
    return Path(line["image"]).suffix.lower() in IMAGE_SUFFIXES


class Pictured(NamedTuple):
    """A line and its picture."""

    line: Record
    rgb: Rgb | None  # None where it isn't there any more
    shot: Shot | None


def with_pictures(
    lines: Iterator[Record], open_: Callable[[str], FrameSource]
) -> Iterator[Pictured]:
    """Lines and their pictures, which are decoded again.

    :param open_: opens a film by its name; a film that it can't open (MediaError) has no pictures.
    """
    for (photo, name), group in groupby(lines, key=lambda line: (is_photo(line), line["image"])):
        if photo:
            for line in group:
                yield Pictured(line, _read(partial(read_image, name)), None)
            continue
        try:
            source = open_(name)
        except MediaError:
            yield from (Pictured(line, None, None) for line in group)
            continue
        with source:
            shots = source.shots()
            for line in group:
                shot = next((s for s in shots if s.index == line["frame"]), None)
                yield Pictured(line, _read(shot.read) if shot else None, shot)


def _read(read: Callable[[], Rgb]) -> Rgb | None:
    try:
        return read()
    except MediaError:
        return None
