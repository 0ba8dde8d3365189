"""The demo (``make demo``): sample camera and pose node as two processes, watched over DDS.

Writes into one folder: ``poses.jsonl`` (a line per Pose3DArray), ``overlay.mp4`` and a still of it
(the image with its skeletons, beside the scene from above), ``summary.json`` (figures, against the
ground truth where there is one) and the logs of both processes.

The video shows each image that the node processed until the result of the next one: what a robot
would know, in real time. Images that the node dropped are left out, so skeletons always lie on the
image in which they were found.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mode
from typing import IO, Any

import cv2
import numpy as np
import rclpy
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from tqdm import tqdm

from mppe_ros.msg import Pose3DArray

from . import drawing, media
from .camera_info import ImageSource, intrinsics_of
from .conversions import record_from_message
from .drawing import TopPoint
from .evaluation.matching import (
    Scores,
    TrueImage,
    TruthError,
    percentile,
    predicted_bodies,
    read_truth,
)
from .image_messages import image_to_rgb
from .media import MediaError, Rgb
from .records import METRES_PER_MM, Record, present, to_json
from .sample_camera import SAMPLE_CLIP, calibration_file
from .structures import ASSUMED_FOV_DEG, Intrinsics, TrackState

POSES_TOPIC = "mppe/poses"

# A photo is shown for so long: enough for a slow machine to process it more than once.
PHOTO_SECONDS = 5.0
# Bigger pictures are shrunk for the video; the node sees them as they are.
MAX_PICTURE_HEIGHT = 720

_START_TIMEOUT_S = 300.0  # loading networks from a cold disk
_FIRST_IMAGE_TIMEOUT_S = 60.0
_DRAIN_TIMEOUT_S = 20.0  # without another result after the last image
_QUIET_S = 0.5  # with nothing more in any queue
_STOP_TIMEOUT_S = 10.0
_SPIN_PERIOD_S = 0.1
# In all that the publishers keep while this process is busy: nothing is lost on the way.
_QUEUE = 50

Stamp = tuple[int, int]  # s, ns


class DemoError(RuntimeError):
    """What kept the demo from its end; one sentence."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    input: str  # empty = the sample clip
    out: Path
    fov_deg: float | None
    weights: str | None
    detector: str | None
    rate: float
    seconds: float | None

    @property
    def source(self) -> str:
        return self.input or str(SAMPLE_CLIP)


# --- the two processes ---------------------------------------------------------------------------


class Child:
    """An executable of this package as a process that cannot outlive this one.

    Its output goes to a log file. Use it as a context manager: leaving stops it.
    """

    def __init__(self, name: str, parameters: dict[str, Any], log: Path) -> None:
        self.name, self._log = name, log
        command = [str(_executable(name)), "--ros-args"]
        for key, value in parameters.items():
            # Parameters are YAML, of which JSON is a part: quoted, any path stays a text.
            command += ["-p", f"{key}:={json.dumps(value)}"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # The terminal's Ctrl-C is for the demo, which stops its children in order.
                start_new_session=True,
                preexec_fn=_prepare_child,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """False once it ended well.

        :raises DemoError: it failed; with the reason it gave.
        """
        code = self._process.poll()
        if code:
            raise DemoError(f"{self.name} ended with code {code}: {self._last_words()}")
        return code is None

    def stop(self) -> None:
        """Asks it to end, then insists."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                continue

    def _last_words(self) -> str:
        """The last error in the log, or whatever stands there that is no everyday message."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if "[FATAL]" in line or "[ERROR]" in line]
        others = [line for line in lines if line.strip() and not line.startswith("[")]
        return (errors or others or [f"no reason given, see {self._log}"])[-1]


def _executable(name: str) -> Path:
    try:
        path = Path(get_package_prefix("mppe_ros"), "lib", "mppe_ros", name)
    except PackageNotFoundError:
        raise DemoError("mppe_ros is not built, or its setup.bash not sourced") from None
    if not path.exists():
        raise DemoError(f"{path} is missing: build the package again")
    return path


_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _prepare_child() -> None:
    # A demo in a shell's background ignores SIGINT, which its children would inherit.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        # Even a demo that is killed leaves no process behind.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _node_parameters(options: Options) -> dict[str, Any]:
    # Reliable as the sample camera: big best-effort images get lost on many machines.
    parameters: dict[str, Any] = {
        f"qos_overrides./{topic}.subscription.reliability": "reliable"
        for topic in ("image_raw", "camera_info")
    }
    given = {"weights": options.weights, "detector": options.detector}
    return parameters | {name: value for name, value in given.items() if value}


def _camera_parameters(options: Options, fov_deg: float | None, loop: bool) -> dict[str, Any]:
    parameters = {
        "source": options.source,
        "rate": options.rate,
        "loop": loop,
        "wait_for_subscribers": 2,  # the pose node and the recorder
    }
    return parameters | ({} if fov_deg is None else {"fov_deg": fov_deg})


# --- the recorder --------------------------------------------------------------------------------


@dataclass
class SeenImage:
    """An image as it was published."""

    digest: int  # tells which frame of the source it is
    picture: tuple[int, int]  # where its JPEG lies in the spool: offset and size, bytes


@dataclass
class Result:
    """What the node made of one image."""

    record: Record
    latency_ms: float  # from the image's stamp to the arrival of the poses
    image: SeenImage

    @property
    def stamp_s(self) -> float:
        return _seconds(_stamp(self.record["header"]["stamp"]))


@dataclass
class Recording:
    """Everything that came over DDS."""

    spool: IO[bytes]
    frames_in: int = 0
    results: list[Result] = field(default_factory=list)
    camera: Intrinsics | None = None
    last_image: Stamp = (0, 0)
    last_result: Stamp = (0, 0)

    def picture(self, result: Result) -> Rgb:
        """The image that a result belongs to, at most MAX_PICTURE_HEIGHT high."""
        offset, size = result.image.picture
        self.spool.seek(offset)
        jpeg = np.frombuffer(self.spool.read(size), np.uint8)
        return media.decode_image(jpeg)


class Recorder(Node):
    """Receives images, their camera, and poses.

    :param lines: receives a line of JSON for each Pose3DArray.
    """

    def __init__(self, recording: Recording, lines: IO[str]) -> None:
        super().__init__("demo_recorder")
        self._recording, self._lines = recording, lines
        self._waiting: dict[Stamp, SeenImage] = {}  # for their result
        qos = QoSProfile(depth=_QUEUE)
        self._images = self.create_subscription(Image, "image_raw", self._on_image, qos)
        self._infos = self.create_subscription(CameraInfo, "camera_info", self._on_info, qos)
        self._poses = self.create_subscription(Pose3DArray, POSES_TOPIC, self._on_poses, qos)

    @property
    def node_is_ready(self) -> bool:
        """Someone publishes poses and, besides this node, someone takes images."""
        topics = self._images.topic_name, self._infos.topic_name
        return self.count_publishers(self._poses.topic_name) > 0 and all(
            self.count_subscribers(topic) > 1 for topic in topics
        )

    def _on_info(self, message: CameraInfo) -> None:
        source = ImageSource(message.header.frame_id, message.width, message.height)
        self._recording.camera = intrinsics_of(source, message)

    def _on_image(self, message: Image) -> None:
        rgb = image_to_rgb(message)
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        self._waiting[stamp] = SeenImage(_digest(rgb), self._store(rgb))
        self._recording.frames_in += 1
        self._recording.last_image = stamp

    def _store(self, rgb: Rgb) -> tuple[int, int]:
        height, width = rgb.shape[:2]
        if height > MAX_PICTURE_HEIGHT:
            size = round(width * MAX_PICTURE_HEIGHT / height), MAX_PICTURE_HEIGHT
            rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
        offset = self._recording.spool.seek(0, os.SEEK_END)
        return offset, self._recording.spool.write(jpeg.tobytes())

    def _on_poses(self, message: Pose3DArray, info: Any) -> None:
        record = record_from_message(message)
        self._lines.write(to_json(record) + "\n")
        stamp = _stamp(record["header"]["stamp"])
        image = self._waiting.get(stamp)
        if image is None:
            return
        # Those before it were dropped; their results will not come any more.
        self._waiting = {key: value for key, value in self._waiting.items() if key > stamp}
        arrival_s = info["received_timestamp"] * 1e-9 or time.time()
        latency_ms = (arrival_s - _seconds(stamp)) * 1e3
        self._recording.results.append(Result(record, latency_ms, image))
        self._recording.last_result = stamp


def _stamp(time_: Record) -> Stamp:
    return time_["sec"], time_["nanosec"]


def _seconds(stamp: Stamp) -> float:
    return stamp[0] + stamp[1] * 1e-9


def _digest(rgb: Rgb) -> int:
    return zlib.crc32(rgb.tobytes())


# --- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """What the demo knows of its input beforehand."""

    fps: float
    frame_count: int | None
    is_photo: bool
    truth: dict[int, TrueImage]  # by digest


def _inspect(options: Options) -> Source:
    """Opens the input once, so that mistakes are told before anything is started."""
    with media.open_media(options.source) as source:
        is_photo = source.frame_count == 1
        return Source(
            fps=options.rate or source.fps,
            frame_count=source.frame_count,
            is_photo=is_photo,
            truth=truth_by_digest(source, options.source),
        )


def truth_by_digest(source: media.FrameSource, path: str) -> dict[int, TrueImage]:
    """Ground truth by the digest of the pixels.

    Images are told apart by what they show: a lost or delayed one shifts nothing.
    """
    truth_file = Path(path).with_suffix(".json")
    if source.live or not truth_file.is_file():
        return {}
    try:
        truth = read_truth(truth_file)
    except TruthError:
        return {}  # a JSON with the camera only
    frames = (
        (round(frame.time_s * source.fps), _digest(frame.rgb)) for frame in source
    )
    return {digest: truth[index] for index, digest in frames if index in truth}


def _record(options: Options, source: Source, recording: Recording, lines: IO[str]) -> None:
    """Starts both processes, records until the camera ends, stops them.

    :raises DemoError: a process failed or never got ready.
    """
    fov_deg = _fov_deg(options)
    seconds = options.seconds or (PHOTO_SECONDS if source.is_photo else None)
    with ExitStack() as stack:
        node = Child("pose_node", _node_parameters(options), options.out / "pose_node.log")
        stack.enter_context(node)
        recorder = Recorder(recording, lines)
        stack.callback(recorder.destroy_node)
        executor = SingleThreadedExecutor()
        executor.add_node(recorder)

        def spin_while(going_on: Callable[[], bool]) -> None:
            while node.running and going_on():
                executor.spin_once(_SPIN_PERIOD_S)

        print("Loading networks ...", flush=True)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        spin_while(lambda: not recorder.node_is_ready and time.monotonic() < deadline_s)
        if not recorder.node_is_ready:
            raise DemoError("pose_node did not get ready, see pose_node.log")
        camera = stack.enter_context(
            Child(
                "sample_camera",
                _camera_parameters(options, fov_deg, loop=source.is_photo),
                options.out / "sample_camera.log",
            )
        )
        with _Progress(source, seconds, recording) as progress:
            spin_while(lambda: progress.update() and camera.running)
            if not recording.frames_in:
                raise DemoError("no image came from sample_camera, see sample_camera.log")
            camera.stop()
            spin_while(_results_to_come(recording))
            progress.update()


def _fov_deg(options: Options) -> float | None:
    """The field of view given, or assumed where nothing else is known."""
    if options.fov_deg is not None or calibration_file(options.source) is not None:
        return options.fov_deg
    print(
        f"NOTE: the camera is unknown, so a horizontal field of view of {ASSUMED_FOV_DEG:g} "
        "degrees is ASSUMED. Distances are right only as far as that is: set FOV=... "
        "(make demo) or --fov."
    )
    return ASSUMED_FOV_DEG


def _results_to_come(recording: Recording) -> Callable[[], bool]:
    """True until the newest image has its result and all is quiet, or for a long time is."""
    seen, since_s = (0, 0), time.monotonic()

    def waiting() -> bool:
        nonlocal seen, since_s
        now = recording.frames_in, len(recording.results)
        if now != seen:
            seen, since_s = now, time.monotonic()
        complete = recording.last_result >= recording.last_image
        return time.monotonic() - since_s < (_QUIET_S if complete else _DRAIN_TIMEOUT_S)

    return waiting


class _Progress:
    """A bar of the images that came."""

    def __init__(self, source: Source, seconds: float | None, recording: Recording) -> None:
        total = None if source.is_photo else source.frame_count
        if seconds is not None:
            in_time = max(1, round(seconds * source.fps))
            total = in_time if total is None else min(total, in_time)
        self._seconds, self._recording = seconds, recording
        self._opened_s, self._first_image_s = time.monotonic(), math.inf
        self._bar = tqdm(total=total, unit=" images", disable=None)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self) -> bool:
        """Shows the state; false when the time is up, or no image comes at all."""
        frames_in, now_s = self._recording.frames_in, time.monotonic()
        self._bar.update(frames_in - self._bar.n)
        self._bar.set_postfix(processed=len(self._recording.results), refresh=False)
        if not frames_in:
            return now_s - self._opened_s < _FIRST_IMAGE_TIMEOUT_S
        self._first_image_s = min(self._first_image_s, now_s)
        return self._seconds is None or now_s - self._first_image_s < self._seconds


# --- what is written -----------------------------------------------------------------------------


def summary(recording: Recording, truth: dict[int, TrueImage]) -> dict[str, Any]:
    """The figures of summary.json; None where there is nothing to measure."""
    results = recording.results
    scores = Scores()
    for result in results:
        if result.image.digest in truth:
            scores.add(predicted_bodies(_seen(result.record)), truth[result.image.digest])
    people = [len(present(result.record)) for result in results]
    latencies = [result.latency_ms for result in results]
    return {
        "frames_in": recording.frames_in,
        "frames_processed": len(results),
        "frames_dropped": recording.frames_in - len(results),
        "people_per_frame": sum(people) / len(people) if people else None,
        "fps": _rate_hz(results),
        "latency_ms": {"p50": percentile(latencies, 50), "p95": percentile(latencies, 95)},
        **scores.summary(),
    }


def _rate_hz(results: Sequence[Result]) -> float | None:
    """Results per second, by the time at which they arrived."""
    arrivals = [result.stamp_s + result.latency_ms * 1e-3 for result in results]
    if len(arrivals) < 2 or arrivals[-1] <= arrivals[0]:
        return None
    return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])


def _write_pictures(recording: Recording, source: Source, out: Path) -> None:
    """overlay.mp4, and overlay.png of a typical image."""
    results = recording.results
    truth = [_places(source.truth.get(result.image.digest)) for result in results]
    area = drawing.area_of(
        (result.record for result in results), (place for places in truth for place in places)
    )
    shown = shown_frames(results, source.fps)
    still = _typical(results)
    with media.VideoWriter(out / "overlay.mp4", source.fps) as writer:
        for index, result in enumerate(tqdm(results, "drawing", unit=" images", disable=None)):
            picture = recording.picture(result)
            frame = _draw(picture, result, recording.camera, area, truth[index])
            if index == still:
                media.write_image(out / "overlay.png", frame)
            for _ in range(shown[index]):
                writer.write(drawing.fit(frame, writer.shape or frame.shape))


def _seen(record: Record) -> Record:
    """Without those of whom it is only said where they might be."""
    poses = [pose for pose in present(record) if pose.get("tracking_state") != TrackState.COASTING]
    return {**record, "poses": poses}


def _typical(results: Sequence[Result]) -> int:
    """The middle one of those images that have the most frequent number of people."""
    counts = [len(present(result.record)) for result in results]
    usual = [index for index, count in enumerate(counts) if count == mode(counts)]
    return usual[len(usual) // 2]


def _draw(
    picture: Rgb,
    result: Result,
    camera: Intrinsics | None,
    area: drawing.Area,
    truth: Sequence[TopPoint],
) -> Rgb:
    """One frame of the video."""
    count = len(present(result.record))
    people = "1 person" if count == 1 else f"{count} people"
    left = drawing.draw_people(picture, result.record)
    left = drawing.draw_caption(left, f"{people}   {result.latency_ms:.0f} ms after the image")
    side = picture.shape[0]
    right = drawing.draw_top_view(
        result.record, area, (side, side), camera=camera, truth=truth
    )
    return drawing.side_by_side(left, right)


def _places(truth: TrueImage | None) -> list[TopPoint]:
    """True roots on the floor, those of hardly visible people too."""
    if truth is None:
        return []
    roots_m = [body.root_mm * METRES_PER_MM for body in (*truth.people, *truth.ignored)]
    return [TopPoint(float(root[0]), float(root[2])) for root in roots_m]


def shown_frames(results: Sequence[Result], fps: float) -> list[int]:
    """For how many frames of the video each result is shown; each at least once."""
    starts = [round((result.stamp_s - results[0].stamp_s) * fps) for result in results]
    return [max(1, end - start) for start, end in pairwise(starts)] + [1]


def table(figures: dict[str, Any]) -> str:
    """The summary in short lines."""

    def text(value: float | None, unit: str = "", digits: int = 0) -> str:
        return "-" if value is None else f"{value:.{digits}f}{unit}"

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    latency, root = figures["latency_ms"], figures["root_error_mm"]
    rows = {
        "images": f"{figures['frames_in']} in, {figures['frames_processed']} processed, "
        f"{figures['frames_dropped']} dropped",
        "people per image": text(figures["people_per_frame"], digits=2),
        "rate": text(figures["fps"], " Hz", 1),
        "latency": f"median {text(latency['p50'], ' ms')}, 95 % {text(latency['p95'], ' ms')}",
    }
    if figures["detection_recall"] is not None:
        rows |= {
            "people found": f"{percent(figures['detection_recall'])} (recall), "
            f"{percent(figures['detection_precision'])} right (precision)",
            "root error": f"median {text(root['median'], ' mm')}, 90 % {text(root['p90'], ' mm')}",
            "joint error": f"median {text(figures['mpjpe_mm']['median'], ' mm')} (MPJPE, "
            "root-relative)",
        }
    return "\n".join(f"  {name:<18}{value}" for name, value in rows.items())


# --- the command ---------------------------------------------------------------------------------


def _parse(args: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Run sample camera and pose node, and write what comes out.",
        epilog="Example: demo --input photo.jpg --fov 60",
    )
    parser.add_argument(
        "--input",
        default="",
        metavar="PATH",
        help="image, folder of images, video, or webcam number; default: the sample clip",
    )
    parser.add_argument("--fov", type=float, metavar="DEG", help="horizontal field of view")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR")
    parser.add_argument("--weights", metavar="NAME", help="weight set, see 'mppe weights list'")
    parser.add_argument("--detector", metavar="NAME", help="instead of the weight set's own")
    parser.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="images per second")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after this time")
    given = parser.parse_args(args)
    if given.fov is not None and not 0 < given.fov < 180:
        parser.error("--fov must lie between 0 and 180 degrees")
    if given.rate < 0 or (given.seconds is not None and given.seconds <= 0):
        parser.error("--rate and --seconds must be positive")
    return Options(
        input=given.input,
        out=given.out,
        fov_deg=given.fov,
        weights=given.weights,
        detector=given.detector,
        rate=given.rate,
        seconds=given.seconds,
    )


def main(args: Sequence[str] | None = None) -> int:
    """Runs the demo; 0, 1 if it failed or nothing was processed, 130 after Ctrl-C."""
    options = _parse(args)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        source = _inspect(options)
        with tempfile.TemporaryFile(dir=options.out) as spool:
            return _run(options, source, Recording(spool))
    except (MediaError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


# Of an earlier run they must not stay beside the results of this one.
_OUTPUTS = ("poses.jsonl", "overlay.mp4", "overlay.png", "summary.json")


def _run(options: Options, source: Source, recording: Recording) -> int:
    code = 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in _OUTPUTS:
        (options.out / name).unlink(missing_ok=True)
    isolate()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        with (options.out / "poses.jsonl").open("w", encoding="utf-8") as lines:
            _record(options, source, recording, lines)
    except KeyboardInterrupt:
        print("\nInterrupted: writing what there is.", file=sys.stderr)
        code = 130
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        code = 1
    finally:
        rclpy.try_shutdown()
    figures = summary(recording, source.truth)
    (options.out / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    if not recording.results:
        print("demo: no image was processed", file=sys.stderr)
        return code or 1
    _write_pictures(recording, source, options.out)
    print(f"\n{table(figures)}\n\nSee {options.out / 'overlay.mp4'} and its still overlay.png; "
          "poses.jsonl, summary.json and logs lie beside them.")  # fmt: skip
    return code


def isolate() -> None:
    """This process and its children in a domain of their own on this machine, so that a robot
    nearby is neither heard nor told, with shared memory that images fit in (docs/performance.md).
    """
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with suppress(PackageNotFoundError):  # which is complained of later
        profile = Path(get_package_share_directory("mppe_ros"), "config", "fastdds.xml")
        os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(profile))


if __name__ == "__main__":
    sys.exit(main())
