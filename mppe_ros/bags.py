"""rosbag2 recordings (sqlite3, MCAP) without ROS, by `rosbags`: images in, people out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, Nodetype
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from .image_messages import BYTES_PER_PIXEL, ConversionError, image_to_rgb
from .markers import MarkerBuilder
from .media import FALLBACK_FPS, FrameSource, MediaError, Report, Rgb, Shot
from .records import Record
from .skeletons import Skeleton
from .structures import Intrinsics

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
STORAGES = {"bag": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}

# What is written: the node's own topics, and the pictures of an input that is no bag.
POSES_TOPIC, MARKERS_TOPIC = "/mppe/poses", "/mppe/markers"
IMAGE_TOPIC, INFO_TOPIC = "/camera/image_raw/compressed", "/camera/camera_info"
FRAME_ID = "camera_optical_frame"
_MARKER_LIFETIME_S = 0.5

# The oldest distribution that is still looked after: its definitions are read by the later ones.
_STORE = Stores.ROS2_HUMBLE
# Of metadata.yaml: the newest that Humble reads.
_BAG_VERSION: Literal[8] = 8


# --- reading -----------------------------------------------------------------------------------


class BagSource(FrameSource):
    """The images of one topic, each with the newest camera_info before it.

    :param image_topic: chosen by its type if not given, see :func:`choose_image_topic`.
    :param info_topic: the image's neighbour if not given.
    """

    def __init__(
        self, path: Path, report: Report, image_topic: str = "", info_topic: str = ""
    ) -> None:
        self._report, self._path = report, path
        try:
            self._reader = AnyReader([path], default_typestore=get_typestore(_STORE))
            self._reader.open()
        except Exception as error:  # rosbags' own, and whatever broken bytes lead to
            raise MediaError(f"{path}: not a readable rosbag2 recording ({error})") from error
        self.image_topic = image_topic or self._choose_image_topic()
        self._images = self._connections(self.image_topic, IMAGE_TYPES)
        self.info_topic = info_topic or self._neighbour(self.image_topic)
        self._infos = (
            self._connections(self.info_topic, (INFO_TYPE,)) if self.info_topic else []
        )
        self._first_info = next((m for _, _, m in self._messages(self._infos)), None)
        count = sum(connection.msgcount for connection in self._images)
        seconds = self._reader.duration * 1e-9
        fps = (count - 1) / seconds if count > 1 and seconds > 0 else FALLBACK_FPS
        super().__init__(str(path), fps, count, report)

    def close(self) -> None:
        if self._reader.stack is not None:  # rosbags refuses to close twice
            self._reader.close()

    def shots(self) -> Iterator[Shot]:
        info, first_s, index = self._first_info, None, 0
        for connection, received_ns, message in self._messages(self._images + self._infos):
            if connection.msgtype == INFO_TYPE:
                info = message or info
                continue
            stamp, frame_id = _header(message, received_ns)
            time_s = stamp[0] + stamp[1] * 1e-9
            first_s = time_s if first_s is None else first_s
            yield Shot(
                self.name,
                index,
                time_s - first_s,
                partial(self._decode, index, message),
                stamp=stamp,
                frame_id=frame_id,
                camera_info=info,
                received_ns=received_ns,
            )
            index += 1

    def raw_messages(self) -> Iterator[tuple[Connection, int, bytes]]:
        """Everything in the bag as it stands there: (connection, time in ns, CDR)."""
        return self._reader.messages()

    @property
    def connections(self) -> Sequence[Connection]:
        return self._reader.connections

    @property
    def typestore(self) -> Typestore:
        return self._reader.typestore

    def _messages(
        self, connections: Sequence[Connection]
    ) -> Iterator[tuple[Connection, int, Any]]:
        """Deserialised; None where a message is damaged."""
        if not connections:
            return
        try:
            for connection, received_ns, raw in self._reader.messages(connections):
                yield connection, received_ns, self._deserialise(raw, connection.msgtype)
        except Exception as error:  # rosbags' own, and whatever broken bytes lead to
            self._report(f"{self._path}: damaged, ends early ({error})")

    def _deserialise(self, raw: bytes, type_name: str) -> Any:
        try:
            return self._reader.deserialize(raw, type_name)
        except Exception:  # whatever broken bytes lead to
            return None

    def _decode(self, index: int, message: Any) -> Rgb:
        if message is None:
            raise MediaError(f"{self.name}: image {index} is damaged")
        try:
            return image_to_rgb(message)
        except ConversionError as error:
            raise MediaError(f"{self.name}: image {index}: {error}") from error

    def _connections(self, topic: str, types: Sequence[str]) -> list[Connection]:
        found = [c for c in self._reader.connections if c.topic == topic and c.msgtype in types]
        if not found:
            there = sorted({c.topic for c in self._reader.connections if c.msgtype in types})
            raise MediaError(
                f"{self._path}: {topic} is not a topic of {types[0]}; "
                f"there are: {', '.join(there) or 'none'}"
            )
        return found

    def _choose_image_topic(self) -> str:
        counts: dict[str, int] = {}
        for connection in self._reader.connections:
            if connection.msgtype in IMAGE_TYPES and connection.msgcount:
                counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        topics = [topic for topic in counts if self._shows_colours(topic)]
        if not topics:
            raise MediaError(f"{self._path}: no images (sensor_msgs/Image, CompressedImage) in it")
        ranked = sorted(topics, key=lambda t: (not self._neighbour(t), -counts[t], t))
        if len(ranked) > 1:
            others = ", ".join(ranked[1:])
            self._report(f"{self._path}: images of {ranked[0]} (also there: {others})")
        return ranked[0]

    def _shows_colours(self, topic: str) -> bool:
        """Whether it isn't depth, by its first message."""
        messages = self._messages(self._connections(topic, IMAGE_TYPES))
        message: Any = next((message for _, _, message in messages if message), None)
        if hasattr(message, "encoding"):
            return message.encoding in BYTES_PER_PIXEL and "depth" not in topic
        # Of a compressed image: "16UC1; png compressed", "jpeg" or "rgb8; jpeg compressed bgr8".
        return not str(getattr(message, "format", "")).startswith(("16UC1", "32FC1"))

    def _neighbour(self, image_topic: str) -> str:
        """The camera_info topic in the nearest namespace; "" if there is none."""
        namespaces = Path(image_topic).parents
        infos = {c.topic for c in self._reader.connections if c.msgtype == INFO_TYPE}
        candidates = (str(namespace / "camera_info") for namespace in namespaces)
        return next((topic for topic in candidates if topic in infos), "")


def _header(message: Any, received_ns: int) -> tuple[tuple[int, int], str]:
    """Stamp and frame; the bag's time where a camera sets none."""
    header = getattr(message, "header", None)
    stamp = (header.stamp.sec, header.stamp.nanosec) if header else (0, 0)
    return stamp if any(stamp) else divmod(received_ns, 10**9), header.frame_id if header else ""


# --- messages without ROS ----------------------------------------------------------------------


@cache
def typestore() -> Typestore:
    """The common message types and ours."""
    store = get_typestore(_STORE)
    types: dict[str, Any] = {}
    for path in sorted(message_folder().glob("*.msg")):
        types |= get_types_from_msg(path.read_text("utf-8"), f"mppe_ros/msg/{path.stem}")
    store.register(types)
    return store


def message_folder() -> Path:
    """Where our message definitions are: beside the source tree's package, or installed.

    :raises FileNotFoundError: nowhere.
    """
    for parent in Path(__file__).absolute().parents:
        for folder in (parent / "msg", parent / "share" / "mppe_ros" / "msg"):
            if (folder / "Pose3DArray.msg").is_file():
                return folder
    raise FileNotFoundError("the message definitions are missing: install the package again")


def message_from_record(type_name: str, record: Mapping[str, Any]) -> Any:
    """A message of `rosbags` from a nested dict of its fields; the others are zero or empty.

    :param type_name: such as ``"mppe_ros/msg/Pose3DArray"``.
    :raises KeyError: a field that the message does not have.
    """
    store = typestore()
    fields = dict(store.fielddefs[type_name][1])
    if unknown := record.keys() - fields.keys():
        raise KeyError(f"{type_name} has no field {', '.join(sorted(unknown))}")
    values = {name: _field_value(kind, record.get(name)) for name, kind in fields.items()}
    return store.types[type_name](**values)


def _field_value(description: Any, value: Any) -> Any:
    """:param description: of a field, as rosbags' types have it: (kind, details)."""
    kind, details = description
    if kind == Nodetype.NAME:
        return message_from_record(details, value or {})
    if kind == Nodetype.BASE:
        return _ZEROS[details[0]] if value is None else value
    item, length = details
    items = value if value is not None else [None] * (length if kind == Nodetype.ARRAY else 0)
    if item[0] == Nodetype.BASE and item[1][0] != "string":
        zero = _ZEROS[item[1][0]]
        dtype = np.dtype(item[1][0].replace("byte", "uint8"))
        return np.asarray([zero if one is None else one for one in items], dtype) if (
            not isinstance(items, np.ndarray)
        ) else items.astype(dtype, copy=False)
    return [_field_value(item, one) for one in items]


_ZEROS: dict[str, Any] = {
    "bool": False, "string": "", "float32": 0.0, "float64": 0.0, "byte": 0, "char": 0,
    **{f"{sign}int{bits}": 0 for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def camera_info_record(camera: Intrinsics, header: Record) -> Record:
    """CameraInfo's fields. A camera without distortion is plumb_bob with zeros."""
    plain = camera.distortion_model == "none"
    projection = [[*row, 0.0] for row in camera.matrix.tolist()]
    return {
        "header": header,
        "width": camera.width,
        "height": camera.height,
        "distortion_model": "plumb_bob" if plain else camera.distortion_model,
        "d": [0.0] * 5 if plain else list(camera.distortion),
        "k": camera.matrix.ravel().tolist(),
        "r": np.eye(3).ravel().tolist(),
        "p": [value for row in projection for value in row],
    }


# --- writing -----------------------------------------------------------------------------------


class AnnotatedBag:
    """Writes people as Pose3DArray and MarkerArray, with what they were seen in.

    Of a bag everything is copied as it is; other pictures become JPEG images with a camera_info.
    The definitions of all messages are in it, so RViz and Foxglove need nothing else. It appears
    under its name only when complete, and takes the place of an older one.

    :param path: the bag's folder.
    :param storage: a key of ``STORAGES``.
    """

    def __init__(
        self, path: Path, storage: str, skeleton: Skeleton, source: FrameSource | None = None
    ) -> None:
        self.path = path
        self._folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        self._writer = Writer(
            self._folder / path.name, version=_BAG_VERSION, storage_plugin=STORAGES[storage]
        )
        self._writer.open()
        self._markers = MarkerBuilder(skeleton)
        self._topics: dict[str, Connection] = {}
        self._copy: Callable[[float], None] | None = (
            _Copy(source, self._writer) if isinstance(source, BagSource) else None
        )

    def write(self, record: Record, shot: Shot, rgb: Rgb, camera: Intrinsics) -> None:
        """One image and its people."""
        header = record["header"]
        if self._copy:
            time_ns = shot.received_ns
            self._copy(time_ns)
        else:
            time_ns = header["stamp"]["sec"] * 10**9 + header["stamp"]["nanosec"]
            header = {**header, "frame_id": header["frame_id"] or FRAME_ID}
            record = {**record, "header": header}
            info = camera_info_record(camera, header)
            self._put(INFO_TOPIC, INFO_TYPE, info, time_ns)
            self._put(IMAGE_TOPIC, IMAGE_TYPES[1], _jpeg_record(rgb, header), time_ns)
        self._put(POSES_TOPIC, "mppe_ros/msg/Pose3DArray", record, time_ns)
        markers = self._markers.build(record, _MARKER_LIFETIME_S)
        self._put(MARKERS_TOPIC, "visualization_msgs/msg/MarkerArray", markers, time_ns)

    def _put(self, topic: str, type_name: str, record: Record, time_ns: int) -> None:
        store = typestore()
        if topic not in self._topics:
            self._topics[topic] = self._writer.add_connection(topic, type_name, typestore=store)
        raw = store.serialize_cdr(message_from_record(type_name, record), type_name)
        self._writer.write(self._topics[topic], time_ns, raw)

    def close(self) -> None:
        """Finishes the bag and gives it its name."""
        if self._copy:
            self._copy(float("inf"))
        self._writer.close()
        shutil.rmtree(self.path, ignore_errors=True)
        os.replace(self._folder / self.path.name, self.path)
        self._folder.rmdir()

    def __enter__(self) -> AnnotatedBag:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is None:
            self.close()
        else:
            self._writer.close()
            shutil.rmtree(self._folder, ignore_errors=True)


class _Copy:
    """Copies a bag's messages up to a time, and goes on from there at the next call."""

    def __init__(self, source: BagSource, writer: Writer) -> None:
        self._writer = writer
        self._messages = source.raw_messages()
        ours = POSES_TOPIC, MARKERS_TOPIC  # of an earlier run: made anew
        self._connections = {
            connection.id: writer.add_connection(
                connection.topic,
                connection.msgtype,
                typestore=source.typestore,
                offered_qos_profiles=getattr(connection.ext, "offered_qos_profiles", ()),
            )
            for connection in source.connections
            # A bag may lack the definitions of types that nobody here knows.
            if connection.topic not in ours and connection.msgtype in source.typestore.fielddefs
        }
        self._next = next(self._messages, None)

    def __call__(self, until_ns: float) -> None:
        while self._next is not None and self._next[1] <= until_ns:
            connection, time_ns, raw = self._next
            if connection.id in self._connections:
                self._writer.write(self._connections[connection.id], time_ns, raw)
            self._next = next(self._messages, None)


def _jpeg_record(rgb: Rgb, header: Record) -> Record:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    data = np.frombuffer(jpeg.tobytes(), np.uint8)
    return {"header": header, "format": "rgb8; jpeg compressed bgr8", "data": data}
