"""Recordings and results made here, for the tests of what reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from mppe_ros.bags import message_from_record, typestore
from mppe_ros.estimator import Poses
from mppe_ros.media import VideoWriter, open_media
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import Intrinsics, Person, Tracking, TrackState

CLIP = Path(__file__).parents[1] / "mppe_ros" / "resources" / "sample" / "clip.mp4"
CAMERA = Intrinsics(500.0, 510.0, 320.0, 240.0, 640, 480)
FPS = 15.0
EPOCH_S = 1_700_000_000


def clip_frames(count: int) -> list[np.ndarray]:
    """The first images of the sample clip."""
    with open_media(CLIP) as source:
        return [frame.rgb for frame, _ in zip(source, range(count), strict=False)]


def write_film(path: Path, frames: Sequence[np.ndarray]) -> Path:
    with VideoWriter(path, FPS) as writer:
        for rgb in frames:
            writer.write(rgb)
    return path


def write_bag(
    path: Path,
    images: Sequence[tuple[str, str, dict]],
    camera_infos: Sequence[tuple[str, dict]] = (),
    storage: StoragePlugin = StoragePlugin.SQLITE3,
) -> Path:
    """A rosbag2 of (topic, type, fields) images, and (topic, fields) camera_infos before each.

    Images of a topic come at ``FPS``, their stamps tell.
    """
    store, connections = typestore(), {}
    counts: dict[str, int] = {}
    with Writer(path, version=8, storage_plugin=storage) as writer:

        def put(topic: str, kind: str, fields: dict, number: int) -> None:
            time_ns = round((EPOCH_S + number / FPS) * 1e9)
            sec, nanosec = divmod(time_ns, 10**9)
            header = {"stamp": {"sec": sec, "nanosec": nanosec}, "frame_id": "optical"}
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            message = message_from_record(kind, {"header": header, **fields})
            writer.write(connections[topic], time_ns, store.serialize_cdr(message, kind))

        for topic, kind, fields in images:
            number = counts.get(topic, 0)
            for info_topic, info in camera_infos if number == 0 else ():
                put(info_topic, "sensor_msgs/msg/CameraInfo", info, 0)
            put(topic, kind, fields, number)
            counts[topic] = number + 1
    return path


def raw_image(topic: str, rgb: np.ndarray) -> tuple[str, str, dict]:
    height, width = rgb.shape[:2]
    fields = {"height": height, "width": width, "encoding": "rgb8", "step": 3 * width,
              "data": rgb.reshape(-1)}  # fmt: skip
    return topic, "sensor_msgs/msg/Image", fields


def jpeg_image(topic: str, rgb: np.ndarray, size: int | None = None) -> tuple[str, str, dict]:
    """:param size: bytes kept of it."""
    _, jpeg = cv2.imencode(".jpg", rgb[..., ::-1])
    fields = {"format": "jpeg", "data": np.frombuffer(jpeg.tobytes()[:size], np.uint8)}
    return topic, "sensor_msgs/msg/CompressedImage", fields


def calibration(camera: Intrinsics) -> dict:
    """CameraInfo's fields but for its header."""
    from mppe_ros.bags import camera_info_record

    return {k: v for k, v in camera_info_record(camera, {}).items() if k != "header"}


def person(track_id: int, frame: int, invalid: Sequence[int] = ()) -> Person:
    """Someone who walks to the right and away."""
    rng = np.random.default_rng(track_id)
    root = np.array([200.0 * track_id - 500 + 40 * frame, 100.0, 3000.0 + 500 * track_id])
    joints = root + rng.normal(0, (200, 400, 150), (len(HUMAN36M_17), 3))
    joints[list(invalid)] = math.nan
    status = np.zeros(len(HUMAN36M_17), np.uint8)
    status[list(invalid)] = 3
    pixels = joints[:, :2] / joints[:, 2:] * (CAMERA.fx, CAMERA.fy) + (CAMERA.cx, CAMERA.cy)
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([100.0 + 60 * track_id, 100, 50, 150]),
        root_px=pixels[0],
        root_mm=root,
        root_covariance_mm2=np.diag([50.0**2, 60**2, 400**2]),
        joints_px=pixels,
        joints_mm=joints,
        joint_scores=np.full(len(HUMAN36M_17), 0.8),
        joint_status=status,
        tracking=Tracking(track_id, TrackState.TRACKED, 0.0, np.array([600.0, 0.0, 0.0])),
    )


def poses(image: str, frame: int, people: Sequence[Person]) -> Poses:
    stamp = divmod(round(frame / FPS * 1e9), 10**9)
    return Poses(tuple(people), HUMAN36M_17, CAMERA, "m", image, frame, stamp, "optical")


def write_result(folder: Path, image: str, frames: int = 6) -> Path:
    """poses.jsonl of two people; the second comes one image later and has an invalid joint."""
    folder.mkdir(exist_ok=True)
    with (folder / "poses.jsonl").open("w") as file:
        for frame in range(frames):
            people = [person(1, frame), *([person(2, frame, invalid=[3])] if frame else [])]
            file.write(poses(image, frame, people).to_json() + "\n")
    return folder
