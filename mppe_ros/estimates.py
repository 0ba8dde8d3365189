"""What the networks saw, image by image, on disk: interrupted runs go on, machines share the work.

One line of JSON per image, appended and flushed as it is made. The first line says by what
settings; estimates of other settings are refused.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from .records import to_json
from .structures import Intrinsics, Person


class EstimatesError(ValueError):
    """Estimates that cannot be used; one sentence that says what to do."""


class Key(NamedTuple):
    """An image among all inputs of a run."""

    image: str
    frame: int


@dataclass(frozen=True)
class Estimate:
    """People as the networks saw them in one image.

    ``detected`` tells of each whether DetectNet found it, or a track that expected it.
    """

    people: tuple[Person, ...]
    intrinsics: Intrinsics
    detected: tuple[bool, ...]


class EstimateStore:
    """The estimates in a folder, of which this run writes one file.

    :param part: which of how many parts of the work is this run's, from 1.
    :param settings: everything that the estimates depend on, as JSON knows it.
    :param resume: use what is there already.
    :raises EstimatesError: what is there was made by other settings.
    """

    def __init__(
        self, folder: Path, part: tuple[int, int], settings: dict[str, Any], resume: bool
    ) -> None:
        self._settings = json.loads(json.dumps(settings))
        self._places: dict[Key, tuple[Path, int]] = {}
        self._readers: dict[Path, IO[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"{part[0]}-of-{part[1]}.jsonl"
        if not resume:
            own.unlink(missing_ok=True)
        for path in sorted(folder.glob("*-of-*.jsonl")) if resume else []:
            self._index(path, mend=path == own)
        self._file = own.open("ab")
        if not self._file.tell():
            self._write({"settings": self._settings})

    def get(self, key: Key) -> Estimate | None:
        """What was seen in an image; None if nobody has looked yet."""
        place = self._places.get(key)
        if place is None:
            return None
        path, offset = place
        if path not in self._readers:
            self._readers[path] = path.open("rb")
        self._readers[path].seek(offset)
        return _from_line(json.loads(self._readers[path].readline()))

    def add(self, key: Key, estimate: Estimate) -> None:
        """Keeps an estimate."""
        self._places[key] = Path(self._file.name), self._file.tell()
        self._write(_to_line(key, estimate))

    def close(self) -> None:
        for file in (self._file, *self._readers.values()):
            file.close()
        self._readers.clear()

    def __enter__(self) -> EstimateStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(to_json(line).encode() + b"\n")
        self._file.flush()

    def _index(self, path: Path, mend: bool) -> None:
        """:param mend: cut off a last line that an interruption left unfinished."""
        offset = 0
        with path.open("rb") as file:
            for number, raw in enumerate(file):
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = json.loads(raw)
                    if number == 0:
                        self._check(path, line["settings"])
                    else:
                        self._places[Key(line["image"], line["frame"])] = path, offset
                except (ValueError, KeyError, TypeError) as error:
                    if isinstance(error, EstimatesError):
                        raise
                    raise EstimatesError(
                        f"{path}: line {number + 1} is damaged: delete the file and run again"
                    ) from error
                offset += len(raw)
        if mend and offset < path.stat().st_size:
            with path.open("rb+") as file:
                file.truncate(offset)

    def _check(self, path: Path, settings: dict[str, Any]) -> None:
        names = settings.keys() | self._settings.keys()
        for name in sorted(names):
            was, now = settings.get(name), self._settings.get(name)
            if was != now:
                raise EstimatesError(
                    f"{path} was made with {name} {was}, not {now}: resume with the same options, "
                    "leave --resume out, or give another --out"
                )


def _to_line(key: Key, estimate: Estimate) -> dict[str, Any]:
    return {
        **key._asdict(),
        "camera": dataclasses.asdict(estimate.intrinsics),
        "detected": list(estimate.detected),
        "people": [
            {field.name: _plain(getattr(person, field.name)) for field in _FIELDS}
            for person in estimate.people
        ],
    }


def _from_line(line: dict[str, Any]) -> Estimate:
    camera = {**line["camera"], "distortion": tuple(line["camera"]["distortion"])}
    return Estimate(
        tuple(_person(values) for values in line["people"]),
        Intrinsics(**camera),
        tuple(line["detected"]),
    )


# Who is who is not the networks' to say.
_FIELDS = tuple(field for field in dataclasses.fields(Person) if field.name != "tracking")
# Fields that may be unknown: null stays None.
_OPTIONAL = frozenset(field.name for field in _FIELDS if "None" in str(field.type))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _person(values: dict[str, Any]) -> Person:
    arrays: dict[str, Any] = {}
    for field in _FIELDS:
        value = values.get(field.name) if field.name in _OPTIONAL else values[field.name]
        if value is None and field.name in _OPTIONAL:
            arrays[field.name] = None
        elif isinstance(value, list):
            dtype = np.uint8 if field.name == "joint_status" else np.float64
            arrays[field.name] = np.array(value, dtype)
        else:
            arrays[field.name] = float("nan") if value is None else value
    return Person(**arrays)


def part_of(count: int, part: tuple[int, int]) -> range:
    """The images of one part: successive ones, so that people can be followed.

    :param part: which of how many, from 1.
    """
    index, parts = part
    return range(count * (index - 1) // parts, count * index // parts)
