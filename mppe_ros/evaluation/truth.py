"""Images with known people: lists of photographs, generated scenes and the sample clip.

One form of JSON for all of them (docs/evaluation.md has every key): ``joint_names`` and
``images``, each with a file name or the frame number of a video, a camera where it is known, and
``people``. Boxes and joints in px, joints also in mm in the camera frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import media
from ..structures import ASSUMED_FOV_DEG, DISTORTION_COEFFICIENTS, FloatArray, Intrinsics
from .joints import our_name, with_pelvis
from .matching import TruthError

_SIZE_TOLERANCE = 0.01
_FILM_FOLDER = "rgb"  # of films as `mppe synth clips` writes them


@dataclass(frozen=True)
class TruePerson:
    """One person; joints in the order of the set's ``joint_names``, NaN where unknown."""

    bbox_xywh_px: FloatArray  # (4,)
    joints_px: FloatArray  # (J, 2)
    joints_mm: FloatArray  # (J, 3) camera frame
    visible_fraction: float = float("nan")  # of the pixels that the person alone would fill
    track_id: int = 0  # the same person in successive images has the same; 0 = unknown

    @property
    def height_px(self) -> float:
        return float(self.bbox_xywh_px[3])


@dataclass(frozen=True)
class Photo:
    """One image and who is in it."""

    name: str  # relative to the JSON file, or a frame number
    intrinsics: Intrinsics  # an assumed camera where nobody calibrated it
    people: tuple[TruePerson, ...]
    ignored: tuple[TruePerson, ...] = ()  # crowds and hardly visible people
    camera_to_world: FloatArray | None = None  # (4, 4), m, of films whose camera may move


@dataclass(frozen=True)
class PhotoSet:
    """The images of one JSON file."""

    name: str
    joint_names: tuple[str, ...]  # our spelling; a pelvis is added where there are hips
    photos: tuple[Photo, ...]
    folder: Path
    video: Path | None = None  # where images are frames of a video
    fps: float = 0.0  # of a film, 0 of single images

    def pictures(self, every: int = 1) -> Iterator[tuple[Photo, media.Rgb]]:
        """Each photo, or each n-th, with its pixels.

        :raises MediaError: an image or the video that can't be read.
        :raises TruthError: an image of another size than its camera.
        """
        photos = self.photos[::every]
        for photo, rgb in self._frames(photos) if self.video else self._files(photos):
            camera = sized(photo.intrinsics, rgb, self.folder / photo.name)
            yield replace(photo, intrinsics=camera), rgb

    def _files(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, media.Rgb]]:
        for photo in photos:
            yield photo, media.read_image(self.folder / photo.name)

    def _frames(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, media.Rgb]]:
        by_frame = {int(photo.name): photo for photo in photos}
        assert self.video is not None
        with media.open_media(self.video) as source:
            for frame in source:
                photo = by_frame.get(round(frame.time_s * source.fps))
                if photo is not None:
                    yield photo, frame.rgb


def read_folder(folder: Path) -> list[PhotoSet]:
    """All photo lists of a folder, by name; other JSON files are left alone.

    :raises TruthError: no list there, or a broken one.
    """
    if not folder.is_dir():
        raise TruthError(f"{folder}: there is no such folder")
    found = [read_photo_set(path) for path in sorted(folder.glob("*.json")) if _is_list(path)]
    if not found:
        raise TruthError(f"{folder}: no JSON file with a list of photographs (docs/evaluation.md)")
    return found


def read_photo_set(path: Path) -> PhotoSet:
    """The images of one JSON file.

    :raises TruthError: not readable, or of another form.
    """
    return photo_set(load_json(path), path)


def photo_set(content: Any, path: Path) -> PhotoSet:
    """The content of a JSON file that lies, or would lie, at ``path``.

    :raises TruthError: not of the form that docs/evaluation.md describes.
    """
    try:
        spelled = content["joint_names" if "joint_names" in content else "keypoint_names"]
        names = tuple(map(our_name, spelled))
        is_film = any("image" not in entry for entry in content["images"])
        in_folder = is_film and (path.parent / _FILM_FOLDER).is_dir()
        if in_folder:
            frames = (int(entry["frame"]) for entry in content["images"])
            files = [f"{_FILM_FOLDER}/{frame:06d}.jpg" for frame in frames]
            entries = zip(content["images"], files, strict=True)
            content = {**content, "images": [{**one, "image": file} for one, file in entries]}
        return PhotoSet(
            name=path.stem,
            joint_names=with_pelvis(names, np.empty((len(names), 2)))[0],
            photos=tuple(_photo(entry, content, names, path) for entry in content["images"]),
            folder=path.parent,
            video=path.with_suffix(".mp4") if is_film and not in_folder else None,
            fps=float(content.get("fps", 0.0)),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise TruthError(f"{path}: not a list of images with people ({error!r})") from error


def load_json(path: Path) -> Any:
    """What a JSON file holds.

    :raises TruthError: not readable.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TruthError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise TruthError(f"{path}: not JSON ({error})") from error


def _is_list(path: Path) -> bool:
    content = load_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and all("people" in image for image in images)


def _photo(
    entry: Mapping[str, Any], content: Mapping[str, Any], names: Sequence[str], path: Path
) -> Photo:
    crowds = [person for person in entry["people"] if person.get("iscrowd")]
    return Photo(
        name=str(entry["image"] if "image" in entry else entry["frame"]),
        intrinsics=_intrinsics({**content, **entry}, path),
        people=tuple(_person(p, names) for p in entry["people"] if not p.get("iscrowd")),
        ignored=tuple(_person(p, names) for p in (*crowds, *entry.get("ignored", ()))),
        camera_to_world=(
            _array(entry["camera_to_world"], 4) if "camera_to_world" in entry else None
        ),
    )


def _intrinsics(entry: Mapping[str, Any], path: Path) -> Intrinsics:
    if "width" not in entry:
        image = media.read_image(path.parent / entry["image"])
        entry = {**entry, "width": image.shape[1], "height": image.shape[0]}
    size = int(entry["width"]), int(entry["height"])
    if "fx" not in entry:
        # Only 2D is measured then, which doesn't depend on the guess.
        return Intrinsics.from_fov(ASSUMED_FOV_DEG, *size)
    model = next((m for m in DISTORTION_COEFFICIENTS if f"distortion_{m}" in entry), "none")
    fx, fy, cx, cy = (float(entry[key]) for key in ("fx", "fy", "cx", "cy"))
    coefficients = tuple(map(float, entry.get(f"distortion_{model}", ())))
    return Intrinsics(fx, fy, cx, cy, *size, model, coefficients)


def sized(intrinsics: Intrinsics, rgb: media.Rgb, path: Path) -> Intrinsics:
    """The camera with its image's size: Human3.6M's own lists are 2 of 1000 px off for some.

    :raises TruthError: an image of quite another size.
    """
    size, said = rgb.shape[1::-1], (intrinsics.width, intrinsics.height)
    if not np.allclose(size, said, rtol=_SIZE_TOLERANCE):
        raise TruthError(f"{path}: is {size[0]}x{size[1]} px, its truth says {said[0]}x{said[1]}")
    return replace(intrinsics, width=size[0], height=size[1])


def _person(person: Mapping[str, Any], names: Sequence[str]) -> TruePerson:
    unknown = [[np.nan] * 3] * len(names)
    labelled = _array(person.get("keypoints_px_v") or unknown, 3)  # u, v, 0 where not labelled
    points = np.where(labelled[:, 2:] > 0, labelled[:, :2], np.nan)
    if person.get("joints_px"):
        points = _array(person["joints_px"], 2)
    return TruePerson(
        bbox_xywh_px=np.array(person["bbox_xywh_px"], np.float64).reshape(4),
        joints_px=with_pelvis(names, _of_all(points, names))[1],
        joints_mm=with_pelvis(
            names, _of_all(_array(person.get("joints_camera_mm") or unknown, 3), names)
        )[1],
        visible_fraction=float(person.get("visible_fraction", np.nan)),
        track_id=int(person.get("id", 0)),
    )


def _of_all(points: FloatArray, names: Sequence[str]) -> FloatArray:
    if len(points) != len(names):
        raise ValueError(f"{len(points)} joints, {len(names)} names")
    return points


def _array(rows: npt.ArrayLike | Sequence[Any], width: int) -> FloatArray:
    """(N, width); JSON's null becomes NaN."""
    return np.array(rows, np.float64).reshape(-1, width)
