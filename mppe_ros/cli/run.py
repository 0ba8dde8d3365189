"""``mppe run``: photographs in, skeletons out, without ROS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from tqdm import tqdm

from .. import drawing, media, records, weights
from ..detectors import DETECTORS, Detector, FixedBoxes
from ..pipeline import Pipeline, PipelineOptions
from ..structures import ASSUMED_FOV_DEG, Intrinsics, Person


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--fx", type=float, help="Focal length, px.")
@click.option("--fy", type=float, help="Focal length, px; as --fx if left out.")
@click.option("--cx", type=float, help="Principal point, px; the image's centre if left out.")
@click.option("--cy", type=float, help="Principal point, px; the image's centre if left out.")
@click.option("--distortion", help="k1,k2,p1,p2,k3 (plumb_bob) or 8 (rational_polynomial).")
@click.option("--fov", type=float, help="Horizontal field of view, degrees, instead of --fx.")
@click.option(
    "--boxes",
    type=click.Path(path_type=Path),
    help='JSON {"bbox_xywh_px": [[x, y, w, h], ...]} instead of the detector (one photo).',
)
@click.option(
    "--weights",
    "weight_set",
    default=weights.DEFAULT,
    show_default=True,
    help="Weight set, see 'mppe weights list'.",
)
@click.option("--rootnet", type=click.Path(path_type=Path), help="RootNet checkpoint.")
@click.option("--posenet", type=click.Path(path_type=Path), help="PoseNet checkpoint.")
@click.option("--detector", type=click.Choice(list(DETECTORS)), help="Instead of the set's own.")
@click.option("--detector-weights", type=click.Path(path_type=Path), help="File for --detector.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Least detection score.",
    default=PipelineOptions.detection_threshold,
    show_default=True,
)
@click.option("--flip-test", is_flag=True, help="Average with the mirrored crop.")
@click.option("--k-only", is_flag=True, help="Root by the k-value alone (gamma = 1).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, fp16, bf16.")
@click.option("--json", "as_json", is_flag=True, help="One line per image: Pose3DArray's fields.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for overlays.")
def run(
    photos: tuple[Path, ...],
    fx: float | None,
    fy: float | None,
    cx: float | None,
    cy: float | None,
    distortion: str | None,
    fov: float | None,
    boxes: Path | None,
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
    as_json: bool,
    out: Path | None,
) -> None:
    """Find people in PHOTOS (images or folders) and place them in the camera frame.

    \b
    mppe run photo.jpg --fov 60 --out overlays
    mppe run photo.jpg --fx 1145 --fy 1144 --cx 512 --cy 515 --json
    """
    if (rootnet is None) != (posenet is None):
        raise click.UsageError("--rootnet and --posenet go together: each needs the other")
    if fov is not None and fx is not None:
        raise click.UsageError("give either --fx or --fov")
    if fx is None and not (fy is None and cx is None and cy is None and distortion is None):
        raise click.UsageError("--fy, --cx, --cy and --distortion need --fx")
    images = media.list_images(photos)
    if out is not None:
        make_folder(out)
    chosen_detector: str | Detector = detector or ""
    given = None
    if boxes is not None:
        if detector or detector_weights:
            raise click.UsageError("give either --boxes or --detector")
        if len(images) != 1:
            raise click.UsageError(f"--boxes describes one photo, not {len(images)}")
        given = read_boxes(boxes)
        chosen_detector = FixedBoxes([given])
    pipeline = Pipeline.load(
        f"{rootnet},{posenet}" if rootnet else weight_set,
        device=device,
        precision=precision,
        detector=chosen_detector,
        detector_file=detector_weights,
        options=PipelineOptions(
            detection_threshold=0.0 if given is not None else threshold,
            max_persons=len(given) if given is not None else PipelineOptions.max_persons,
            flip_test=flip_test,
            k_only_root=k_only,
        ),
    )
    camera = CameraOptions(fx, fy, cx, cy, distortion, fov)
    if camera.unknown:
        click.echo(
            f"The camera is unknown: a field of view of {ASSUMED_FOV_DEG:g} degrees is assumed. "
            "Distances scale with the true focal length: give --fx (px) or --fov (degrees).",
            err=True,
        )
    failed = 0
    for path in tqdm(images, disable=None if len(images) > 1 else True, unit="photo"):
        try:
            rgb = media.read_image(path)
        except media.MediaError as error:
            click.echo(f"Skipped: {error}", err=True)
            failed += 1
            continue
        intrinsics = camera.intrinsics(rgb.shape[1], rgb.shape[0])
        people = pipeline([rgb], [intrinsics])[0]
        if given is not None and len(people) < len(given):
            click.echo(
                f"{len(given) - len(people)} of {len(given)} boxes are empty or outside {path}",
                err=True,
            )
        record = records.pose_array_record(
            people, skeleton=pipeline.skeleton, model=pipeline.model, intrinsics=intrinsics
        )
        if as_json:
            click.echo(records.to_json({"image": str(path), **record}))
        else:
            _print_table(path, people)
        if out is not None:
            target = out / f"{path.stem}_overlay.jpg"
            media.write_image(target, overlay(rgb, record, intrinsics))
            click.echo(f"wrote {target}", err=True)
    if failed:
        raise click.ClickException(f"{failed} of {len(images)} photos could not be read")


@dataclass(frozen=True)
class CameraOptions:
    """What the command line says of the camera."""

    fx: float | None
    fy: float | None
    cx: float | None
    cy: float | None
    distortion: str | None
    fov_deg: float | None

    @property
    def unknown(self) -> bool:
        return self.fx is None and self.fov_deg is None

    def intrinsics(self, width: int, height: int) -> Intrinsics:
        """The camera of an image of this size.

        :raises IntrinsicsError: values that no camera can have.
        """
        if self.fx is None:
            fov_deg = ASSUMED_FOV_DEG if self.fov_deg is None else self.fov_deg
            return Intrinsics.from_fov(fov_deg, width, height)
        coefficients = _numbers(self.distortion or "")
        model = "plumb_bob" if len(coefficients) <= 5 else "rational_polynomial"
        return Intrinsics(
            self.fx,
            self.fx if self.fy is None else self.fy,
            (width - 1) / 2 if self.cx is None else self.cx,
            (height - 1) / 2 if self.cy is None else self.cy,
            width,
            height,
            model if coefficients else "none",
            coefficients,
        )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(",") if number.strip())
    except ValueError as error:
        raise click.UsageError(f"--distortion takes numbers and commas, not {text!r}") from error


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


def overlay(rgb: media.Rgb, record: records.Record, camera: Intrinsics) -> media.Rgb:
    """The photo with skeletons beside a top view of the scene."""
    height = rgb.shape[0]
    top_view = drawing.draw_top_view(
        record, drawing.area_of([record]), (min(rgb.shape[1], height), height), camera=camera
    )
    return drawing.side_by_side(drawing.draw_people(rgb, record), top_view)


def _print_table(path: Path, people: Sequence[Person]) -> None:
    click.echo(f"{path}: {len(people)} {'person' if len(people) == 1 else 'people'}")
    for person in people:
        x, y, z = person.root_mm / 1000
        left, top, width, height = person.bbox_xywh_px
        click.echo(
            f"  root x {x:6.2f}  y {y:6.2f}  z {z:6.2f} m   score {person.score:.2f}   "
            f"box {left:.0f},{top:.0f} {width:.0f}x{height:.0f} px"
        )
