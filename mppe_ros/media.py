"""Pictures in and out: images, folders, videos and webcams as one stream; a video writer. No ROS.

Everything is RGB, uint8. Grey images are repeated into three channels, 16 bits become 8 and an
alpha channel is dropped. Orientation tags of photos and phone videos are honoured everywhere:
the networks know upright people; width and height are those after turning.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Images carry no time: a folder is shown at this rate unless its user says otherwise.
STILLS_FPS = 2.0
# Where a file or camera doesn't tell, or tells a container's clock (90000 Hz) instead of a rate.
FALLBACK_FPS = 30.0
PLAUSIBLE_FPS = 240.0

# A container may announce a few frames more than it holds; more than this share is damage.
_MISSING_SHARE = 0.05
# A webcam that fails this often in a row was unplugged.
_WEBCAM_FAILURES = 30

Report = Callable[[str], None]
log_warning: Report = logging.getLogger(__name__).warning


class MediaError(ValueError):
    """An input that cannot be shown; one sentence that names it."""


class Frame(NamedTuple):
    """One picture of a stream."""

    time_s: float  # since the first frame
    rgb: Rgb  # (H, W, 3)


@dataclass(frozen=True)
class Shot:
    """One picture of a stream that is decoded when it is read, and what is known of it."""

    image: str  # the file's path, or the source's name
    index: int  # in the source
    time_s: float  # since the first frame
    # Decodes; works until the next shot is asked for. Raises MediaError where it is damaged.
    read: Callable[[], Rgb]
    file: Path | None = None  # a photo's, which may tell of its camera
    stamp: tuple[int, int] | None = None  # s and ns, where a message said so
    frame_id: str = ""
    camera_info: Any = None  # a message, where one came with it
    received_ns: int = 0  # when a bag got it


class FrameSource:
    """A stream of frames; made by `open_media`. Each iteration starts at the first frame again.

    ``name`` says what it is; ``width`` and ``height`` (px) belong to the current frame, before
    the first one to the frame that is coming; ``frame_count`` is None where nobody knows;
    ``live`` means that frames come in the camera's own time and never end; ``is_film``, that they
    show one scene over time.
    """

    live = False
    is_film = True

    def __init__(
        self,
        name: str,
        fps: float,
        frame_count: int | None,
        report: Report,
        *,
        checked: bool = True,
    ) -> None:
        self.name, self.fps, self.frame_count = name, fps, frame_count
        self.width = self.height = 0
        self._report = report
        if checked:  # opening proves that there is something to show
            self._measure(self._first_frame())

    def __iter__(self) -> Iterator[Frame]:
        for shot in self.shots():
            try:
                rgb = shot.read()
            except MediaError as error:
                self._report(f"skipped: {error}")
                continue
            self._measure(rgb)
            yield Frame(shot.time_s, rgb)

    def shots(self) -> Iterator[Shot]:
        """The frames, undecoded: those that are not read cost little."""
        raise NotImplementedError

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of files and devices; can be called again."""

    def _first_frame(self) -> Rgb:
        shots, reason = self.shots(), ""
        try:
            for shot in shots:
                try:
                    return shot.read()
                except MediaError as error:
                    reason = reason or f" ({error})"
        finally:
            shots.close()  # type: ignore[attr-defined]
        raise MediaError(f"{self.name}: not a single readable frame{reason}")

    def _measure(self, rgb: Rgb) -> None:
        self.height, self.width = rgb.shape[:2]


def open_media(
    source: str | Path, report: Report = log_warning, stills_fps: float | None = None
) -> FrameSource:
    """Opens whatever shows pictures; use it as a context manager.

    :param source: an image, a folder of images (in the order of their names), a video, or the
        number of a webcam.
    :param report: receives one sentence about each frame that is skipped and each truncated file.
    :param stills_fps: the images of a folder are a film of that rate.
    :raises MediaError: nothing there, not readable, or without a single frame.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return Images(str(path), images_in(path), report, stills_fps)
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return Images(str(path), [path], report)
        return _Video(path, report)
    if str(source).isdecimal():
        return _Webcam(int(str(source)), report)
    raise MediaError(f"{source}: there is no such file or folder")


def is_bag(path: Path) -> bool:
    """A rosbag2: a folder with its metadata, or one of its files alone. `bags.py` reads it."""
    return (path / "metadata.yaml").is_file() or path.suffix in (".mcap", ".db3")


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Image files, and those of folders in the order of their names.

    :raises MediaError: nothing there, or a folder without images.
    """
    images: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise MediaError(f"{path}: there is no such file or folder")
        images += images_in(path) if path.is_dir() else [path]
    return images


def read_image(path: str | Path) -> Rgb:
    """One image file as RGB; see the module's text for grey, 16 bit, alpha and orientation.

    :raises MediaError: missing, damaged or no image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from error
    try:
        return decode_image(data)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from None


def decode_image(data: npt.NDArray[np.uint8]) -> Rgb:
    """The bytes of an image file as RGB.

    :raises MediaError: damaged or no image.
    """
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise MediaError("damaged, or not an image")
    return _to_rgb(bgr)


def write_image(path: str | Path, rgb: Rgb) -> None:
    """Writes an image, whole or not at all.

    :raises MediaError: the format is unknown or the place cannot be written.
    """
    path = Path(path)
    partial = _partial(path)
    try:
        written = cv2.imwrite(str(partial), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise MediaError(f"{path}: cannot be written ({error.err})") from error
    if not written:
        raise MediaError(f"{path}: cannot be written")
    os.replace(partial, path)


class Images(FrameSource):
    """Image files.

    :param fps: they are a film of that rate; None of photos that have nothing to do with each
        other.
    :param checked: find out at once whether there is a readable one.
    """

    def __init__(
        self,
        name: str,
        paths: list[Path],
        report: Report,
        fps: float | None = None,
        *,
        checked: bool = True,
    ) -> None:
        self._paths, self.is_film = paths, fps is not None
        super().__init__(name, fps or STILLS_FPS, len(paths), report, checked=checked)

    def shots(self) -> Iterator[Shot]:
        for index, path in enumerate(self._paths):
            name = self.name if self.is_film else str(path)
            yield Shot(
                name,
                index,
                index / self.fps,
                partial(read_image, path),
                file=path,
                stamp=None if self.is_film else (0, 0),  # nobody knows when it was taken
            )


class _Video(FrameSource):
    """A video file, by OpenCV's decoder."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._capture = _open_capture(str(path), f"{path}: not a video that OpenCV can read")
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        super().__init__(str(path), _fps(self._capture), count if count > 0 else None, report)

    def close(self) -> None:
        self._capture.release()

    def shots(self) -> Iterator[Shot]:
        # Opening again is the one way of going back that all containers allow.
        self._capture.release()
        self._capture = _open_capture(str(self._path), f"{self._path}: cannot be opened again")
        index = 0
        while self._capture.grab():
            read = partial(self._retrieve, index)
            yield Shot(self.name, index, index / self.fps, read)
            index += 1
        missing = (self.frame_count or 0) - index
        if missing > _MISSING_SHARE * (self.frame_count or 0):
            self._report(
                f"{self.name}: truncated, ends after {index} of {self.frame_count} frames"
            )


    def _retrieve(self, index: int) -> Rgb:
        decoded, bgr = self._capture.retrieve()
        if not decoded:
            raise MediaError(f"{self.name}: frame {index} is damaged")
        return _to_rgb(bgr)


class _Webcam(FrameSource):
    """A camera of this computer, by its number."""

    live = True

    def __init__(self, number: int, report: Report) -> None:
        self._capture = _open_capture(number, f"camera {number}: not there, or in use")
        super().__init__(f"camera {number}", _fps(self._capture), None, report)

    def close(self) -> None:
        self._capture.release()

    def shots(self) -> Iterator[Shot]:
        index = failures = 0
        start_s = time.monotonic()
        while failures < _WEBCAM_FAILURES:
            arrived, bgr = self._capture.read()
            failures = 0 if arrived else failures + 1
            if arrived:
                # Whoever is slower than the camera misses frames: the clock counts.
                time_s = time.monotonic() - start_s
                yield Shot(self.name, index, time_s, partial(_to_rgb, bgr))
            index += 1
        raise MediaError(f"{self.name}: delivers no images any more")


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their names.

    :raises MediaError: there are none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        known = " ".join(IMAGE_SUFFIXES)
        raise MediaError(f"{folder}: a folder without images ({known})")
    return paths


def _to_rgb(bgr: npt.NDArray[Any]) -> Rgb:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _open_capture(source: str | int, complaint: str) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise MediaError(complaint)
    return capture


def _fps(capture: cv2.VideoCapture) -> float:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= PLAUSIBLE_FPS else FALLBACK_FPS


class VideoWriter:
    """Writes an .mp4 that appears under its name only when complete.

    The codec is MPEG-4 Part 2 ("mp4v"), the one that every OpenCV writes and VLC, mpv, ffmpeg and
    GStreamer play. OpenCV's wheels carry no H.264 encoder (PyAV's do, but it is x264, under the
    GPL), and their VP9 takes fifty times as long.

    The first frame fixes the size, made even as the codec wants it. Frames of another size are
    refused with ``ValueError``. Leaving the ``with`` block by an exception leaves no file.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path, self.fps = Path(path), fps
        self.frame_count = 0
        self._partial = _partial(self.path)
        self._writer: cv2.VideoWriter | None = None
        self.shape: tuple[int, ...] = ()  # of the frames so far

    def write(self, rgb: Rgb) -> None:
        """Appends a frame, (H, W, 3).

        :raises MediaError: the file cannot be written.
        """
        if self._writer is None:
            self._writer, self.shape = self._open(rgb), rgb.shape
        if rgb.shape != self.shape:
            raise ValueError(f"a frame of {rgb.shape} in a video of {self.shape}")
        bottom, right = (side % 2 for side in rgb.shape[:2])
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if bottom or right:
            bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        self._writer.write(bgr)
        self.frame_count += 1

    def close(self) -> None:
        """Finishes the file and gives it its name; without frames there is none."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Ends without leaving a file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.close() if failure is None else self.discard()

    def _open(self, rgb: Rgb) -> cv2.VideoWriter:
        height, width = rgb.shape[:2]
        size = (width + width % 2, height + height % 2)
        writer = cv2.VideoWriter(
            str(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, size
        )
        if not writer.isOpened():
            raise MediaError(f"{self.path}: no video can be written there")
        return writer


def _partial(path: Path) -> Path:
    """A hidden neighbour with the same suffix, which tells OpenCV the format."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")
