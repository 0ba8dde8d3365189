"""From the messages of one image to the record of its people. Knows no node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from std_msgs.msg import Header

from .camera_info import ImageSource, intrinsics_of
from .depth import fuse
from .devices import StageClock
from .frames import transform_record
from .image_messages import ImageArray, depth_to_m, image_to_rgb
from .markers import OPTICAL_UP
from .parameters import Settings
from .pipeline import Pipeline
from .records import Record, pose_array_record
from .structures import FloatArray, Intrinsics, Person
from .synchronisation import Frame

# Frame to reach, frame of an image, stamp of that image -> (4, 4) matrix, m.
Lookup = Callable[[str, str, Any], FloatArray]


class Fusion(NamedTuple):
    """People after a look at the depth image."""

    people: Sequence[Person]
    corrected: int = 0
    complaint: str = ""  # why none could be corrected


class Seen(NamedTuple):
    """What became of an image."""

    rgb: ImageArray
    header: Header  # the image's
    in_camera: Record  # Pose3DArray's fields, in the image's frame
    record: Record  # the same in output_frame
    up: Sequence[float]  # the camera's upward direction in the record's frame
    fusion: Fusion | None  # None = depth_fusion is off
    stage_ms: Mapping[str, float]


class Processor:
    """Looks at frames.

    :param lookup: needed where an output_frame is set.
    """

    def __init__(self, pipeline: Pipeline, lookup: Lookup | None = None) -> None:
        self.pipeline, self._lookup = pipeline, lookup

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
        (people,) = pipeline([rgb], [intrinsics])
        after = StageClock(pipeline.device)
        fusion = self._fuse(people, frame, intrinsics) if settings.depth_fusion else None
        after.lap("fuse")
        in_camera = pose_array_record(
            fusion.people if fusion else people,
            skeleton=pipeline.skeleton,
            model=pipeline.model,
            intrinsics=intrinsics,
            stamp=(header.stamp.sec, header.stamp.nanosec),
            frame_id=header.frame_id,
        )
        record, up = self._to_frame(settings.output_frame, in_camera, header)
        after.lap("transform")
        stage_ms = {**clock.ms, **pipeline.stage_ms, **after.ms}
        return Seen(rgb, header, in_camera, record, up, fusion, stage_ms)

    def _fuse(self, people: Sequence[Person], frame: Frame, intrinsics: Intrinsics) -> Fusion:
        """Where depth is of no use, people stay as they are."""
        if frame.depth is None:
            return Fusion(people, complaint="there is none of the image's time")
        try:
            depth_m = depth_to_m(frame.depth)
            skeleton, error = self.pipeline.skeleton, self.pipeline.root_error
            fused = [fuse(person, depth_m, intrinsics, skeleton, error) for person in people]
        except ValueError as error:
            return Fusion(people, complaint=str(error))
        return Fusion(fused, sum(new is not old for new, old in zip(fused, people, strict=True)))

    def _to_frame(
        self, frame_id: str, record: Record, header: Header
    ) -> tuple[Record, Sequence[float]]:
        if not frame_id or self._lookup is None:
            return record, OPTICAL_UP
        matrix = self._lookup(frame_id, header.frame_id, header.stamp)
        return transform_record(record, matrix, frame_id), matrix[:3, :3] @ np.array(OPTICAL_UP)
