"""``mppe run``: photos, videos, recordings in, skeletons out, without ROS."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import click
import torch
from tqdm import tqdm

from .. import weights
from ..bags import STORAGES
from ..calibration import Camera
from ..detectors import DETECTORS, FixedBoxes
from ..estimates import EstimateStore
from ..estimator import PoseEstimator, Poses
from ..exports import LIVE_AREA, WRITERS, draw_scene
from ..media import FrameSource, MediaError, write_image
from ..page import write_page
from ..pipeline import PipelineOptions
from ..results import NAME as RESULT
from ..results import Results
from ..runs import FilmOutputs, Input, InputOptions, Looked, Run, export_film, list_inputs

OVERLAY = "overlay"
PAGE = "html"
SAVED = (OVERLAY, *WRITERS, *STORAGES, PAGE)

_INTERRUPTED = 130  # as shells know it


class _Part(click.ParamType):
    """``i/n``."""

    name = "i/n"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[int, int]:
        try:
            index, parts = map(int, str(value).split("/"))
        except ValueError:
            self.fail(f"{value!r} is not like 2/4", param, context)
        if not 1 <= index <= parts:
            self.fail(f"{value!r}: parts are numbered from 1 to {parts}", param, context)
        return index, parts


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(number) for number in value.split(",") if number.strip())
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them", param, context)


_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option("--camera", "camera_file", type=_PATH, help="ROS camera YAML.")
@click.option("--fx", type=float, help="Focal length, px.")
@click.option("--fy", type=float, help="Focal length, px; as --fx if left out.")
@click.option("--cx", type=float, help="Principal point, px; the image's centre if left out.")
@click.option("--cy", type=float, help="Principal point, px; the image's centre if left out.")
@click.option("--distortion", type=_Numbers(), default=(),
              help="k1,k2,p1,p2,k3 (plumb_bob) or 8 (rational_polynomial).")  # fmt: skip
@click.option("--fov", type=float, help="Horizontal field of view, degrees, instead of --fx.")
@click.option("--image-topic", default="", help="Of a bag; found by its type if left out.")
@click.option("--camera-info-topic", default="", help="Of a bag; the image topic's neighbour.")
@click.option("--fps", type=click.FloatRange(0, min_open=True),
              help="The images of a folder are a film of that rate.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, min_open=True),
              help="Only so much of each film; when to stop a webcam.")  # fmt: skip
@click.option("--no-tracking", is_flag=True, help="Films too: each image for itself.")
@click.option("--boxes", type=_PATH,
              help='JSON {"bbox_xywh_px": [[x, y, w, h], ...]} for one photo, no detector.',
              )  # fmt: skip
@click.option("--weights", "weight_set", default=weights.DEFAULT, show_default=True,
              help="Weight set ('mppe weights list'), or folder of an exported one.")  # fmt: skip
@click.option("--rootnet", type=_PATH, help="RootNet checkpoint.")
@click.option("--posenet", type=_PATH, help="PoseNet checkpoint.")
@click.option("--detector", type=click.Choice(list(DETECTORS)), help="Instead of the set's own.")
@click.option("--detector-weights", type=_PATH, help="File for --detector.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Least detection score.",
              default=PipelineOptions.detection_threshold, show_default=True)  # fmt: skip
@click.option("--flip-test", is_flag=True, help="Average with the mirrored crop.")
@click.option("--k-only", is_flag=True, help="Root by the k-value alone (gamma = 1).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, fp16, bf16.")
@click.option("--json", "as_json", is_flag=True, help="One line per image: Pose3DArray's fields.")
@click.option("--out", type=_PATH, help="Folder for poses.jsonl, overlays and what --save names.")
@click.option("--save", "saved", type=click.Choice(SAVED), multiple=True,
              help="What to write besides poses.jsonl, many times; 'overlay' if left out.",
              )  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on where an earlier run into --out stopped.")
@click.option("--shard", type=_Part(), default="1/1",
              help="Look at part i of n only; --resume in the same --out puts all together.",
              )  # fmt: skip
@click.pass_context
def run(
    context: click.Context,
    inputs: tuple[str, ...],
    camera_file: Path | None,
    fx: float | None,
    fy: float | None,
    cx: float | None,
    cy: float | None,
    distortion: tuple[float, ...],
    fov: float | None,
    image_topic: str,
    camera_info_topic: str,
    fps: float | None,
    seconds: float | None,
    no_tracking: bool,
    out: Path | None,
    saved: tuple[str, ...],
    resume: bool,
    shard: tuple[int, int],
    as_json: bool,
    boxes: Path | None,
    **networks: Any,
) -> None:
    """Find people in INPUTS and place them in the camera's frame (docs/run.md).

    An input is an image, a folder of images, a video, a rosbag2 (sqlite3 or MCAP) or the number
    of a webcam.

    \b
    mppe run photo.jpg --fov 60 --out overlays
    mppe run photo.jpg --fx 1145 --fy 1144 --cx 512 --cy 515 --json
    mppe run video.mp4 --camera camera.yaml --out out --save overlay --save csv
    mppe run recording/ --out out --save mcap
    mppe run 0 --fov 70 --seconds 10 --out out

    Exit codes: 0 all done, 1 something failed or couldn't be read, 2 wrong options,
    130 interrupted.
    """
    _check_camera(camera_file, fx, fov, (fy, cx, cy), distortion)
    if out is None and (saved or resume or shard != (1, 1)):
        raise click.UsageError("--save, --resume and --shard need --out")
    camera = Camera(camera_file, fx, fy, cx, cy, distortion, fov)
    input_options = InputOptions(fps, image_topic, camera_info_topic)
    report = _Report()
    found = list_inputs(inputs, input_options, report)
    if shard != (1, 1) and (as_json or any(one.count is None for one in found)):
        raise click.UsageError("--shard is for recordings whose length is known, without --json")
    if out is not None:
        make_folder(out)
    given = _given_boxes(boxes, found, networks)
    estimator = _estimator(given, **networks)
    settings = {
        "weights": estimator.pipeline.model,
        "detector": networks["detector"] or "",
        "threshold": networks["threshold"],
        "flip_test": networks["flip_test"],
        "k_only": networks["k_only"],
        "tracking": not no_tracking,
        "camera": str(camera),
        "boxes": str(boxes or ""),
    }
    with contextlib.ExitStack() as stack:
        store = None
        if out is not None:
            store = EstimateStore(out / "estimates", shard, settings, resume)
            stack.enter_context(store)
        signals = stack.enter_context(_Signals(any(one.live for one in found)))
        job = Run(
            estimator,
            camera,
            report,
            store=store,
            track=not no_tracking,
            part=shard,
            seconds=seconds,
            stopped=lambda: signals.stopped,
        )
        outputs = _Outputs(found, out, saved or (OVERLAY,), as_json, shard != (1, 1))
        try:
            _look(job, found, outputs, report, given)
        except KeyboardInterrupt:
            report.close()
            again = "The same with --resume goes on" if out else "With --out it could go on"
            click.echo(f"Interrupted after {report.done} images. {again}.", err=True)
            context.exit(_INTERRUPTED)
        outputs.finish()
    if job.failed:
        noun = "photos" if all(not one.is_film for one in found) else "images"
        total = job.failed + report.done
        raise click.ClickException(f"{job.failed} of {total} {noun} could not be read")
    if shard != (1, 1):
        click.echo(
            f"Part {shard[0]} of {shard[1]} is done. When all are, the same with --resume and "
            "without --shard makes the results.",
            err=True,
        )


class _Report:
    """Sentences on stderr, above the progress bar if there is one."""

    def __init__(self) -> None:
        self.done = 0
        self._bar: Any = None

    def start(self, total: int | None) -> None:
        quiet = True if total == 1 else None  # None: where stderr is a terminal
        self._bar = tqdm(total=total, disable=quiet, unit="image")

    def __call__(self, sentence: str) -> None:
        with tqdm.external_write_mode():
            click.echo(sentence, err=True)

    def advance(self) -> None:
        self.done += 1
        self._bar.update()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _look(
    job: Run,
    inputs: Sequence[Input],
    outputs: _Outputs,
    report: _Report,
    given: torch.Tensor | None,
) -> None:
    report.start(job.count(inputs))
    with outputs:
        for one in inputs:
            for looked in outputs.of(one, job(one)):
                if given is not None and len(looked.poses) < len(given):
                    missing = len(given) - len(looked.poses)
                    report(
                        f"{missing} of {len(given)} boxes are empty or outside "
                        f"{looked.poses.image}"
                    )
                report.advance()
    report.close()


class _Outputs:
    """What a run prints and writes.

    :param partly: a part of the work, of which no results can be made.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        folder: Path | None,
        kinds: Sequence[str],
        as_json: bool,
        partly: bool,
    ) -> None:
        self._inputs, self._folder, self._kinds = inputs, folder, kinds
        self._as_json, self._partly = as_json, partly
        self._lines: IO[str] | None = None

    def __enter__(self) -> _Outputs:
        if self._folder is not None and not self._partly:
            self._lines = (self._folder / RESULT).open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.close()

    def of(self, one: Input, images: Iterator[Looked]) -> Iterator[Looked]:
        """Passes an input's images on, with what is printed and written meanwhile."""
        with contextlib.ExitStack() as stack:
            live = None
            if one.live and self._folder is not None:
                live = _LiveOutputs(self._folder, one, self._kinds, stack)
            for looked in images:
                if self._lines is not None:
                    self._lines.write(looked.poses.to_json() + "\n")
                    self._lines.flush()
                self._print(one, looked.poses)
                if live is not None:
                    live.write(looked)
                elif not one.is_film and self._folder is not None and not self._partly:
                    self._draw(looked)
                yield looked

    def finish(self) -> None:
        """What needs all lines."""
        if self._folder is None or self._partly:
            return
        results = Results(self._folder / RESULT)
        pictured = [kind for kind in self._kinds if kind == OVERLAY or kind in STORAGES]
        for one in self._inputs:
            if one.is_film and not one.live and pictured:
                numbers = export_film(self._folder, one, results, pictured)
                for _ in tqdm(numbers, "writing", one.count, disable=None, unit="image"):
                    pass
        for kind in self._kinds:
            try:
                if kind == PAGE:
                    write_page(results, self._folder / "view.html", self._open)
                elif kind in WRITERS:
                    name, write = WRITERS[kind]
                    write(results, self._folder / name)
            except ModuleNotFoundError as error:
                raise click.ClickException(
                    f"--save {kind} needs {error.name}: pip install 'mppe_ros[export,plot]'"
                ) from error
        click.echo(f"wrote {self._folder}", err=True)

    def _open(self, name: str) -> FrameSource:
        films = [one for one in self._inputs if one.name == name and not one.live]
        if not films:
            raise MediaError(f"{name} cannot be shown again")
        return films[0].open()

    def _print(self, one: Input, poses: Poses) -> None:
        if self._as_json:
            click.echo(poses.to_json())
        elif not one.is_film:
            _print_table(poses)

    def _draw(self, looked: Looked) -> None:
        if OVERLAY not in self._kinds or self._folder is None:
            return
        target = self._folder / f"{Path(looked.poses.image).stem}_overlay.jpg"
        poses = looked.poses
        write_image(target, draw_scene(looked.read(), poses.record, poses.intrinsics))


class _LiveOutputs:
    """A camera's pictures come once: they are drawn as they come."""

    def __init__(
        self, folder: Path, one: Input, kinds: Sequence[str], stack: contextlib.ExitStack
    ) -> None:
        self._folder, self._one, self._kinds, self._stack = folder, one, kinds, stack
        self._outputs: FilmOutputs | None = None

    def write(self, looked: Looked) -> None:
        if self._outputs is None:
            skeleton = looked.poses.skeleton.name
            self._outputs = self._stack.enter_context(
                FilmOutputs(self._folder, self._one, self._kinds, skeleton, LIVE_AREA)
            )
        poses = looked.poses
        self._outputs.write(poses.record, looked.shot, looked.read(), poses.intrinsics)


class _Signals:
    """Ctrl-C and SIGTERM interrupt a run; they end that of a camera, whose films are complete."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._before: dict[int, Any] = {}
        self.stopped = False

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        # Who is asked twice has no time to end in order.
        if self._live and not self.stopped:
            self.stopped = True
        else:
            raise KeyboardInterrupt


def _check_camera(
    file: Path | None,
    fx: float | None,
    fov: float | None,
    others: Sequence[float | None],
    distortion: Sequence[float],
) -> None:
    if fov is not None and fx is not None:
        raise click.UsageError("give either --fx or --fov")
    if file is not None and (fx is not None or fov is not None):
        raise click.UsageError("give either --camera or --fx or --fov")
    if fx is None and (any(value is not None for value in others) or distortion):
        raise click.UsageError("--fy, --cx, --cy and --distortion need --fx")


def _given_boxes(
    path: Path | None, inputs: Sequence[Input], networks: dict[str, Any]
) -> torch.Tensor | None:
    if path is None:
        return None
    if networks["detector"] or networks["detector_weights"]:
        raise click.UsageError("give either --boxes or --detector")
    count = sum(one.count or 0 for one in inputs)
    if count != 1 or inputs[0].is_film:
        raise click.UsageError(f"--boxes describes one photo, not {count} images")
    return read_boxes(path)


def _estimator(
    given: torch.Tensor | None,
    weight_set: str,
    rootnet: Path | None,
    posenet: Path | None,
    detector: str | None,
    detector_weights: Path | None,
    threshold: float,
    flip_test: bool,
    k_only: bool,
    device: str,
    precision: str,
) -> PoseEstimator:
    if (rootnet is None) != (posenet is None):
        raise click.UsageError("--rootnet and --posenet go together: each needs the other")
    return PoseEstimator(
        f"{rootnet},{posenet}" if rootnet else weight_set,
        device=device,
        precision=precision,
        detector=(detector or "") if given is None else FixedBoxes([given]),
        detector_file=detector_weights,
        options=PipelineOptions(
            detection_threshold=0.0 if given is not None else threshold,
            max_persons=len(given) if given is not None else PipelineOptions.max_persons,
            flip_test=flip_test,
            k_only_root=k_only,
        ),
    )


def make_folder(path: Path) -> None:
    """Make a folder for results, with a sentence where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be made a folder: {error.strerror}") from error


def read_boxes(path: Path) -> torch.Tensor:
    """(N, 4) boxes of ``{"bbox_xywh_px": [[x, y, w, h], ...]}``."""
    try:
        boxes = torch.tensor(json.loads(path.read_text())["bbox_xywh_px"], dtype=torch.float32)
        return boxes.reshape(-1, 4)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise click.ClickException(
            f'{path} is not readable as {{"bbox_xywh_px": [[x, y, w, h], ...]}}: {error}'
        ) from error


def _print_table(poses: Poses) -> None:
    click.echo(f"{poses.image}: {len(poses)} {'person' if len(poses) == 1 else 'people'}")
    for person in poses:
        x, y, z = person.root_mm / 1000
        left, top, width, height = person.bbox_xywh_px
        click.echo(
            f"  root x {x:6.2f}  y {y:6.2f}  z {z:6.2f} m   score {person.score:.2f}   "
            f"box {left:.0f},{top:.0f} {width:.0f}x{height:.0f} px"
        )
