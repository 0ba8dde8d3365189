"""The Python interface: from pictures to skeletons, without ROS."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from . import drawing, media, weights
from .calibration import Camera
from .detectors import Detector
from .estimates import Estimate
from .media import FrameSource, Images, MediaError, Report, Rgb, Shot, is_bag
from .pipeline import Pipeline, PipelineOptions
from .records import METRES_PER_MM, Record, pose_array_record, to_json
from .sequence import PoseSequence
from .skeletons import Skeleton
from .structures import FloatArray, Intrinsics, Person
from .tracking import Seen


@dataclass(frozen=True)
class Poses:
    """The people in one image, best detection first; in a film in the order of their ids.

    Iterating gives :class:`Person`; lengths in it are millimetres, here metres. Everything is in
    the camera's frame: x right, y down, z ahead.
    """

    people: tuple[Person, ...]
    skeleton: Skeleton
    intrinsics: Intrinsics
    model: str  # weight set and short hash
    image: str = ""  # the file's path, or the film's name
    frame: int = 0  # number of the image in its source
    stamp: tuple[int, int] = (0, 0)  # s, ns
    frame_id: str = ""
    rgb: Rgb | None = dataclasses.field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.people)

    def __iter__(self) -> Iterator[Person]:
        return iter(self.people)

    @property
    def roots_m(self) -> FloatArray:
        """(N, 3) pelvises."""
        return np.array([p.root_mm for p in self.people]).reshape(-1, 3) * METRES_PER_MM

    @property
    def joints_m(self) -> FloatArray:
        """(N, J, 3) joints in the order of ``skeleton.joint_names``; NaN where invalid."""
        joints = np.array([p.joints_mm for p in self.people]) * METRES_PER_MM
        return joints.reshape(-1, len(self.skeleton), 3)

    @cached_property
    def record(self) -> Record:
        """The fields of Pose3DArray.msg, as plain Python values."""
        return pose_array_record(
            self.people,
            skeleton=self.skeleton,
            model=self.model,
            intrinsics=self.intrinsics,
            stamp=self.stamp,
            frame_id=self.frame_id,
        )

    @property
    def line(self) -> Record:
        """A line of poses.jsonl: the record, which image it is of, and its camera."""
        where = {"image": self.image, "frame": self.frame}
        return {**where, "camera": dataclasses.asdict(self.intrinsics), **self.record}

    def to_json(self) -> str:
        """:attr:`line` as one line of strict JSON, without the line's end."""
        return to_json(self.line)

    def draw(self, rgb: Rgb | None = None) -> Rgb:
        """Skeletons, boxes and distances on the image they were found in.

        :param rgb: (H, W, 3) uint8, where the image isn't kept.
        :raises ValueError: there is no image.
        """
        image = self.rgb if rgb is None else rgb
        if image is None:
            raise ValueError("these poses came without their image: give draw() one")
        return drawing.draw_people(image, self.record)


class PoseEstimator:
    """Finds people in pictures and places them in the camera's frame.

    :param weights: a weight set (``mppe weights list``), ``ROOTNET,POSENET`` (two paths), or a
        folder of exported networks.
    :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    :param precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
    :param detector: a name of ``detectors.DETECTORS`` or a detector, instead of the set's own.
    :param options: thresholds and such.
    :raises CheckpointError: weights that are unknown, missing, damaged or of another network.
    :raises DeviceError: a device or precision that is not there.
    """

    def __init__(
        self,
        weights: str = weights.DEFAULT,
        *,
        device: str = "auto",
        precision: str = "auto",
        detector: str | Detector = "",
        detector_file: Path | None = None,
        options: PipelineOptions | None = None,
    ) -> None:
        self.pipeline = Pipeline.load(
            weights,
            device=device,
            precision=precision,
            detector=detector,
            detector_file=detector_file,
            options=options,
        )

    @property
    def skeleton(self) -> Skeleton:
        """Names, bones and order of the joints."""
        return self.pipeline.skeleton

    def __call__(
        self,
        image: str | Path | Rgb,
        camera: Intrinsics | Camera | None = None,
        *,
        fov_deg: float | None = None,
    ) -> Poses:
        """The people in one image.

        :param image: a file, or (H, W, 3) uint8 RGB.
        :param camera: what is known of it. Without, a photo's EXIF is asked, and else a field of
            view of 60 degrees assumed: all distances scale with the true focal length.
        :param fov_deg: horizontal field of view, instead of ``camera``.
        :raises MediaError: no readable image.
        :raises IntrinsicsError: a camera that cannot be, or of images of another size.
        """
        if isinstance(image, str | Path):
            (shot,) = Images(str(image), [Path(image)], lambda _: None).shots()
        else:
            shot = Shot("", 0, 0.0, lambda: image)
        rgb = shot.read()
        intrinsics = _intrinsics(_camera(camera, fov_deg), shot, rgb)
        (people,) = self.pipeline([rgb], [intrinsics])
        return self.poses(shot, people, intrinsics, rgb)

    def film(
        self,
        source: str | Path | FrameSource,
        camera: Intrinsics | Camera | None = None,
        *,
        fov_deg: float | None = None,
        track: bool = True,
        report: Report = media.log_warning,
    ) -> Iterator[Poses]:
        """The people of each image of a video, webcam or rosbag2, one image at a time.

        A damaged image is reported and left out.

        :param source: as :func:`open_source` takes it, or opened already.
        :param track: people keep their id (``Person.tracking``). Not those of separate photos.
        :raises MediaError: nothing there, not readable, or without a single frame.
        """
        known = _camera(camera, fov_deg)
        opened = source if isinstance(source, FrameSource) else open_source(source, report)
        observer = self.observer(track and opened.is_film)
        with opened:
            for shot in opened.shots():
                try:
                    rgb = shot.read()
                except MediaError as error:
                    report(f"skipped: {error}")
                    continue
                seen = observer.look(shot, rgb, _intrinsics(known, shot, rgb))
                yield self.poses(shot, seen.people, seen.estimate.intrinsics, rgb)

    def observer(self, track: bool) -> Observer:
        """What looks at the images of one source in their order.

        :param track: tell who is who.
        """
        return Tracked(self.pipeline) if track else Separate(self.pipeline)

    def poses(
        self,
        shot: Shot,
        people: Sequence[Person],
        intrinsics: Intrinsics,
        rgb: Rgb | None = None,
    ) -> Poses:
        """People with what is known of their image."""
        nanoseconds = round(shot.time_s * 1e9)
        return Poses(
            tuple(people),
            self.skeleton,
            intrinsics,
            self.pipeline.model,
            image=shot.image,
            frame=shot.index,
            stamp=shot.stamp or divmod(nanoseconds, 10**9),
            frame_id=shot.frame_id,
            rgb=rgb,
        )


class Observed(NamedTuple):
    """One image."""

    estimate: Estimate  # as the networks saw it
    people: Sequence[Person]  # after tracking, if there is any


class Observer(Protocol):
    """Looks at the images of one source, in their order."""

    def look(self, shot: Shot, rgb: Rgb, intrinsics: Intrinsics) -> Observed:
        """An image that is new."""

    def recall(self, shot: Shot, estimate: Estimate) -> Observed:
        """An image that the networks have seen before."""


class Separate:
    """Images that have nothing to do with each other."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def look(self, shot: Shot, rgb: Rgb, intrinsics: Intrinsics) -> Observed:
        (people,) = self._pipeline([rgb], [intrinsics])
        return Observed(Estimate(tuple(people), intrinsics, (True,) * len(people)), people)

    def recall(self, shot: Shot, estimate: Estimate) -> Observed:
        return Observed(estimate, estimate.people)


class Tracked:
    """Images of one scene over time. DetectNet looks at each: recordings can wait for it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._sequence = PoseSequence(pipeline, detection_interval=1)

    def look(self, shot: Shot, rgb: Rgb, intrinsics: Intrinsics) -> Observed:
        people = self._sequence.step(rgb, intrinsics, _time_s(shot))
        seen = self._sequence.seen
        estimate = Estimate(
            tuple(one.person for one in seen), intrinsics, tuple(one.detected for one in seen)
        )
        return Observed(estimate, people)

    def recall(self, shot: Shot, estimate: Estimate) -> Observed:
        tracker = self._sequence.tracker
        tracker.predict(_time_s(shot), estimate.intrinsics)
        pairs = zip(estimate.people, estimate.detected, strict=True)
        people = tracker.update([Seen(*pair) for pair in pairs], self._sequence.smoothing)
        return Observed(estimate, people)


def _time_s(shot: Shot) -> float:
    return shot.time_s if shot.stamp is None else shot.stamp[0] + shot.stamp[1] * 1e-9


def _intrinsics(camera: Intrinsics | Camera, shot: Shot, rgb: Rgb) -> Intrinsics:
    if isinstance(camera, Intrinsics):
        return camera
    return camera.intrinsics(rgb.shape[1], rgb.shape[0], shot)


def open_source(
    source: str | Path,
    report: Report = media.log_warning,
    *,
    stills_fps: float | None = None,
    image_topic: str = "",
    info_topic: str = "",
) -> FrameSource:
    """Opens an image, folder, video, webcam (by its number) or rosbag2; a context manager.

    :param stills_fps: the images of a folder are a film of that rate.
    :param image_topic, info_topic: of a bag; chosen by their types if not given.
    :raises MediaError: nothing there, not readable, or without a single frame.
    """
    path = Path(source).expanduser()
    if is_bag(path):
        try:
            from .bags import BagSource  # a robot has other means to read its bags
        except ModuleNotFoundError as error:
            raise MediaError(f"{path} needs {error.name}: pip install rosbags") from error
        return BagSource(path, report, image_topic, info_topic)
    return media.open_media(source, report, stills_fps)


def _camera(camera: Intrinsics | Camera | None, fov_deg: float | None) -> Intrinsics | Camera:
    if fov_deg is None:
        return camera or Camera()
    if camera is not None:
        raise ValueError("give either camera or fov_deg")
    return Camera(fov_deg=fov_deg)
