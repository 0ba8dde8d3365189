"""From the messages of one image to the record of its people. Knows no node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from std_msgs.msg import Header

from .camera_info import ImageSource, intrinsics_of
from .devices import StageClock
from .frames import FrameError, transform_record
from .image_messages import ImageArray, depth_to_m, image_to_rgb
from .markers import OPTICAL_UP
from .parameters import Settings
from .pipeline import Pipeline
from .records import Record, pose_array_record
from .sequence import PoseSequence
from .structures import FloatArray, Intrinsics, Person
from .synchronisation import Frame

# Frame to reach, frame of an image, stamp of that image -> (4, 4) matrix, m.
Lookup = Callable[[str, str, Any], FloatArray]


class Fusion(NamedTuple):
    """People after a look at the depth image."""

    people: Sequence[Person]
    corrected: int = 0
    complaint: str = ""  # why none could be corrected


class Tracks(NamedTuple):
    """How tracking fares."""

    people: int  # with an id, those out of sight too
    notice: str = ""  # why it began anew
    complaint: str = ""  # why the camera's motion is not known


class Seen(NamedTuple):
    """What became of an image."""

    rgb: ImageArray
    header: Header  # the image's
    in_camera: Record  # Pose3DArray's fields, in the image's frame
    record: Record  # the same in output_frame
    up: Sequence[float]  # the camera's upward direction in the record's frame
    fusion: Fusion | None  # None = depth_fusion is off
    stage_ms: Mapping[str, float]
    detected: bool = True  # DetectNet looked
    tracks: Tracks | None = None  # None = tracking is off
    complaint: str = ""  # the pipeline's


class _Looked(NamedTuple):
    """People of an image, in its frame."""

    people: Sequence[Person]
    fusion: Fusion | None
    stage_ms: Mapping[str, float]
    detected: bool = True
    tracks: Tracks | None = None


class Processor:
    """Looks at frames.

    :param settings: what can't change live.
    :param lookup: needed where an output_frame or a tracking_frame is set.
    :param ids: numbers for people.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        lookup: Lookup | None = None,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.pipeline, self._lookup = pipeline, lookup
        self._output_frame = settings.output_frame
        self._tracking_frame = settings.tracking_frame
        self._camera_pose: FloatArray | None = None  # the last that was known
        self._frame_id = ""  # of the last image
        self._reset_wanted = threading.Event()
        self._sequence: PoseSequence | None = None  # None = tracking is off
        if settings.tracking_enabled:
            self._sequence = PoseSequence(
                pipeline,
                tracking=settings.tracking_options,
                on_floor=settings.tracking_on_floor,
                ids=ids or count(1),
            )

    @property
    def tracking(self) -> bool:
        return self._sequence is not None

    def reset(self) -> None:
        """Before the next image, everybody is forgotten. May be called from any thread."""
        self._reset_wanted.set()

    def __call__(self, frame: Frame, settings: Settings) -> Seen:
        """:raises ConversionError, IntrinsicsError, FrameError: no poses, and why."""
        pipeline, header = self.pipeline, frame.image.header
        pipeline.options = settings.pipeline_options
        clock = StageClock(pipeline.device)
        rgb = image_to_rgb(frame.image)
        intrinsics = intrinsics_of(
            ImageSource(header.frame_id, width=rgb.shape[1], height=rgb.shape[0]),
            frame.camera_info,
            assumed_fov_deg=settings.assumed_fov_deg,
            rectification=settings.rectification,
        )
        clock.lap("convert")
        to_output = self._transform(self._output_frame, header)
        clock.lap("transform")
        if self._sequence is None:
            looked = self._look_at_one(rgb, intrinsics, frame, settings)
        else:
            looked = self._look_at_next(rgb, intrinsics, frame, settings, to_output)
        after = StageClock(pipeline.device)
        in_camera = pose_array_record(
            looked.people,
            skeleton=pipeline.skeleton,
            model=pipeline.model,
            intrinsics=intrinsics,
            stamp=(header.stamp.sec, header.stamp.nanosec),
            frame_id=header.frame_id,
        )
        record, up = in_camera, OPTICAL_UP
        if to_output is not None:
            record = transform_record(in_camera, to_output, self._output_frame)
            up = to_output[:3, :3] @ np.array(OPTICAL_UP)
        after.lap("transform")
        after.ms["transform"] += clock.ms.pop("transform")
        return Seen(
            rgb,
            header,
            in_camera,
            record,
            up,
            looked.fusion,
            {**clock.ms, **looked.stage_ms, **after.ms},
            looked.detected,
            looked.tracks,
            pipeline.complaint,
        )

    def _look_at_one(
        self, rgb: ImageArray, intrinsics: Intrinsics, frame: Frame, settings: Settings
    ) -> _Looked:
        (people,) = self.pipeline([rgb], [intrinsics])
        clock = StageClock(self.pipeline.device)
        fusion = self._fuse(people, frame, intrinsics) if settings.depth_fusion else None
        clock.lap("fuse")
        stage_ms = {**self.pipeline.stage_ms, **clock.ms}
        return _Looked(fusion.people if fusion else people, fusion, stage_ms)

    def _look_at_next(
        self,
        rgb: ImageArray,
        intrinsics: Intrinsics,
        frame: Frame,
        settings: Settings,
        to_output: FloatArray | None,
    ) -> _Looked:
        sequence, fusion, header = self._sequence, None, frame.image.header
        assert sequence is not None
        if header.frame_id != self._frame_id:  # where people were says nothing any more
            self._frame_id, self._camera_pose = header.frame_id, None
            self._reset_wanted.set()
        if self._reset_wanted.is_set():
            self._reset_wanted.clear()
            sequence.reset()
        sequence.smoothing = settings.smoothing_options
        sequence.detection_interval = settings.detection_interval

        def fuse_all(people: list[Person]) -> list[Person]:
            nonlocal fusion
            fusion = self._fuse(people, frame, intrinsics)
            return list(fusion.people)

        camera_pose, complaint = self._where_the_camera_is(header, to_output)
        people = sequence.step(
            rgb,
            intrinsics,
            header.stamp.sec + header.stamp.nanosec * 1e-9,
            camera_pose,
            fuse_all if settings.depth_fusion else None,
        )
        tracks = Tracks(len(sequence.tracker), sequence.notice, complaint)
        return _Looked(people, fusion, sequence.stage_ms, sequence.detected, tracks)

    def _where_the_camera_is(
        self, header: Header, to_output: FloatArray | None
    ) -> tuple[FloatArray | None, str]:
        """In the frame in which people are tracked, or where it was last, and why."""
        if not self._tracking_frame:
            return to_output, ""
        try:
            self._camera_pose = self._transform(self._tracking_frame, header)
        except FrameError as error:
            return self._camera_pose, f"people are tracked as if the camera stood still: {error}"
        return self._camera_pose, ""

    def _transform(self, frame_id: str, header: Header) -> FloatArray | None:
        """From the image's frame to another; None where there is none to go to."""
        if not frame_id or self._lookup is None:
            return None
        return self._lookup(frame_id, header.frame_id, header.stamp)

    def _fuse(self, people: Sequence[Person], frame: Frame, intrinsics: Intrinsics) -> Fusion:
        """Where depth is of no use, people stay as they are."""
        if frame.depth is None:
            return Fusion(people, complaint="there is none of the image's time")
        try:
            depth_m = depth_to_m(frame.depth)
            fused = self.pipeline.fuse(people, depth_m, intrinsics)
        except ValueError as error:
            return Fusion(people, complaint=str(error))
        return Fusion(fused, sum(new is not old for new, old in zip(fused, people, strict=True)))
