"""A run over recordings: inputs, estimates that survive an interruption, results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import drawing
from .bags import STORAGES, AnnotatedBag
from .calibration import ASSUMED, CAMERA_INFO, EXIF, Camera, described
from .estimates import EstimateStore, Key, part_of
from .estimator import Observer, PoseEstimator, Poses, open_source
from .exports import OverlayVideo
from .media import (
    IMAGE_SUFFIXES,
    STILLS_FPS,
    FrameSource,
    Images,
    MediaError,
    Report,
    Rgb,
    Shot,
    is_bag,
    list_images,
)
from .records import Record
from .results import Results, camera_of, message_of, with_pictures
from .skeletons import SKELETONS
from .structures import ASSUMED_FOV_DEG, Intrinsics


@dataclass(frozen=True)
class Input:
    """Something to look at, that is opened when its turn comes."""

    name: str
    open: Callable[[], FrameSource]
    count: int | None  # images; None where nobody knows
    is_film: bool
    live: bool = False
    fps: float = 0.0


@dataclass(frozen=True)
class InputOptions:
    """How inputs are read."""

    stills_fps: float | None = None  # the images of a folder are a film of that rate
    image_topic: str = ""  # of a bag; chosen by its type if not given
    info_topic: str = ""

    def open(self, name: str, report: Report) -> FrameSource:
        """Opens any input but separate photos.

        :raises MediaError: it can't be.
        """
        return open_source(
            name,
            report,
            stills_fps=self.stills_fps,
            image_topic=self.image_topic,
            info_topic=self.info_topic,
        )


def list_inputs(names: Sequence[str], options: InputOptions, report: Report) -> list[Input]:
    """The inputs in their order; all photos and folders of photos together are one.

    :raises MediaError: one isn't there or can't be opened.
    """
    inputs: list[Input] = []
    photos: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        album = path.is_dir() and not is_bag(path) and options.stills_fps is None
        if album or path.suffix.lower() in IMAGE_SUFFIXES:
            photos += list_images([path])
        else:
            inputs.append(_film(name, options, report))
    if photos:
        open_photos = partial(Images, "photos", photos, report, checked=False)
        inputs.insert(0, Input("photos", open_photos, len(photos), is_film=False))
    return inputs


def _film(name: str, options: InputOptions, report: Report) -> Input:
    source = options.open(name, report)
    if source.live:  # a camera that is closed may not open again
        return Input(source.name, lambda: source, None, True, live=True, fps=source.fps)
    with source:
        return Input(
            source.name,
            # What opening has to say was said now.
            lambda: options.open(name, lambda _: None),
            source.frame_count,
            True,
            fps=source.fps,
        )


class Looked(NamedTuple):
    """One image of a run."""

    poses: Poses
    shot: Shot
    read: Callable[[], Rgb]  # decodes it, once


class Run:
    """Looks at all images of all inputs.

    :param store: keeps what the networks saw, and knows what they saw before.
    :param part: which of how many parts of each input, from 1.
    :param seconds: of each film.
    :param stopped: asked before each image whether that was all.
    :param report: receives a sentence about each damaged image, and about assumed cameras.

    ``failed`` counts the images that could not be read.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        camera: Camera,
        report: Report,
        *,
        store: EstimateStore | None = None,
        track: bool = True,
        part: tuple[int, int] = (1, 1),
        seconds: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._estimator, self._camera, self._report = estimator, camera, report
        self._store, self._track, self._part, self._seconds = store, track, part, seconds
        self._stopped = stopped
        self._said: set[str] = set()
        self.failed = 0

    def count(self, inputs: Sequence[Input]) -> int | None:
        """Images of this part; None where nobody knows."""
        counts = [None if one.count is None else len(part_of(one.count, self._part))
                  for one in inputs]  # fmt: skip
        return None if None in counts else sum(count for count in counts if count is not None)

    def __call__(self, one: Input) -> Iterator[Looked]:
        """The images of an input; of those that were seen before, the pixels may not be needed.

        :raises IntrinsicsError: a camera that is not that of the images.
        """
        observer = self._estimator.observer(self._track and one.is_film)
        wanted = None if one.count is None else part_of(one.count, self._part)
        with one.open() as source:
            for shot in source.shots():
                if self._stopped():
                    return
                if self._seconds is not None and one.is_film and shot.time_s >= self._seconds:
                    return
                # A container may hold more frames than it says: the last part takes them.
                if wanted is not None and self._part[1] > 1:
                    last = self._part[0] == self._part[1]
                    if shot.index < wanted.start:
                        continue
                    if shot.index >= wanted.stop and not last:
                        return
                looked = self._look(observer, shot)
                if looked is not None:
                    yield looked

    def _look(self, observer: Observer, shot: Shot) -> Looked | None:
        read = _Once(shot.read)
        key = Key(shot.image, shot.index)
        estimate = None if self._store is None else self._store.get(key)
        if estimate is None:
            try:
                rgb = read()
            except MediaError as error:
                self._report(f"Skipped: {error}")
                self.failed += 1
                return None
            observed = observer.look(shot, rgb, self._intrinsics(shot, rgb))
            if self._store is not None:
                self._store.add(key, observed.estimate)
        else:
            observed = observer.recall(shot, estimate)
        poses = self._estimator.poses(shot, observed.people, observed.estimate.intrinsics)
        return Looked(poses, shot, read)

    def _intrinsics(self, shot: Shot, rgb: Rgb) -> Intrinsics:
        intrinsics, origin = self._camera.find(rgb.shape[1], rgb.shape[0], shot)
        if origin == ASSUMED:
            self._say_once(
                f"The camera is unknown: a field of view of {ASSUMED_FOV_DEG:g} degrees is "
                "assumed. Distances scale with the true focal length: give --camera, --fx (px) "
                "or --fov (degrees)."
            )
        elif origin == EXIF:
            self._say_once(f"The camera of {shot.image} by its EXIF: {described(intrinsics)}.")
        elif origin == CAMERA_INFO and self._camera != Camera():
            self._say_once("The recording's camera_info is used, not the options' camera.")
        return intrinsics

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._report(sentence)


class _Once:
    """Remembers what a function returned."""

    def __init__(self, read: Callable[[], Rgb]) -> None:
        self._read = read
        self._rgb: Rgb | None = None

    def __call__(self) -> Rgb:
        if self._rgb is None:
            self._rgb = self._read()
        return self._rgb


# --- films -------------------------------------------------------------------------------------


class FilmOutputs:
    """What is made of a film picture by picture: an overlay video, annotated bags."""

    def __init__(
        self,
        folder: Path,
        one: Input,
        kinds: Sequence[str],
        skeleton_name: str,
        area: drawing.Area,
    ) -> None:
        self._stack = ExitStack()
        self._source = one.open() if is_bag(Path(one.name)) else None
        if self._source:
            self._stack.enter_context(self._source)
        stem = film_stem(one.name)
        self._video = (
            self._stack.enter_context(OverlayVideo(folder / f"{stem}_overlay.mp4", one.fps, area))
            if "overlay" in kinds
            else None
        )
        self._bags = [
            self._stack.enter_context(
                AnnotatedBag(
                    folder / f"{stem}_{kind}", kind, SKELETONS[skeleton_name], self._source
                )
            )
            for kind in kinds
            if kind in STORAGES
        ]

    def write(self, line: Record, shot: Shot, rgb: Rgb, camera: Intrinsics) -> None:
        """One image."""
        record = message_of(line)
        if self._video:
            self._video.write(record, rgb, camera)
        for bag in self._bags:
            bag.write(record, shot, rgb, camera)

    def __enter__(self) -> FilmOutputs:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]


def open_film(name: str) -> FrameSource:
    """A film that a result names, to show its pictures again."""
    return open_source(name, lambda _: None, stills_fps=STILLS_FPS)


def film_stem(name: str) -> str:
    """What the files of a film are called."""
    return Path(name).resolve().stem.replace(" ", "_") or "film"


def export_film(folder: Path, one: Input, results: Results, kinds: Sequence[str]) -> Iterator[int]:
    """Makes a film's outputs from the result, and counts its images meanwhile."""

    def lines() -> Iterator[Record]:
        return (line for line in results if line["image"] == one.name)

    first = next(lines(), None)
    if first is None:
        return
    area = drawing.area_of(lines())
    with FilmOutputs(folder, one, kinds, first["skeleton"], area) as outputs:
        for number, (line, rgb, shot) in enumerate(with_pictures(lines(), lambda _: one.open())):
            camera = camera_of(line)
            if rgb is not None and shot is not None and camera is not None:
                outputs.write(line, shot, rgb, camera)
            yield number
