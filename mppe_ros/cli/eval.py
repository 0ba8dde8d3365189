"""``mppe eval``: figures against known people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from .. import media, weights
from ..detectors import DETECTORS, SCORE_THRESHOLD, Detector
from ..evaluation import photos as photos_
from ..evaluation import roots as roots_
from ..evaluation import synthetic as scenes_
from ..evaluation.blazepose import REQUIREMENT, BlazePose
from ..evaluation.matching import TruthError
from ..evaluation.report import overlay
from ..evaluation.truth import Photo, PhotoSet, read_folder, read_photo_set
from ..pipeline import Pipeline, PipelineOptions
from ..structures import Person
from .run import make_folder


class _TruthErrors(click.Group):
    """Broken ground truth is one sentence, not a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TruthError as error:
            raise click.ClickException(str(error)) from error


@click.group("eval", cls=_TruthErrors)
def eval_() -> None:
    """Measure a weight set against known people (docs/evaluation.md)."""


Command = Callable[..., None]


def pipeline_options(threshold: float) -> Callable[[Command], Command]:
    """What is measured; `load_pipeline` reads them.

    :param threshold: the default for detection scores.
    """
    path = click.Path(path_type=Path)
    options = (
        click.option("--weights", "weight_set", default=weights.DEFAULT, show_default=True,
                     help="Weight set ('mppe weights list'), or folder of an exported one."),
        click.option("--rootnet", type=path, help="RootNet checkpoint."),
        click.option("--posenet", type=path, help="PoseNet checkpoint."),
        click.option("--detector", type=click.Choice(list(DETECTORS)),
                     help="Instead of the set's own."),
        click.option("--detector-weights", type=path, help="File for --detector."),
        click.option("--threshold", type=click.FloatRange(0, 1), show_default=True,
                     default=threshold,
                     help="Least detection score."),
        click.option("--flip-test", is_flag=True, help="Average with the mirrored crop."),
        click.option("--device", default="auto", show_default=True,
                     help="auto, cpu, cuda, cuda:N."),
        click.option("--precision", default="auto", show_default=True,
                     help="auto, fp32, fp16, bf16."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object, no table."),
    )  # fmt: skip

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def load_pipeline(
    weight_set: str,
    rootnet: Path | None,
    posenet: Path | None,
    detector: str | Detector | None,
    detector_weights: Path | None,
    threshold: float,
    flip_test: bool,
    device: str,
    precision: str,
) -> Pipeline:
    """The pipeline that `pipeline_options` describe."""
    if (rootnet is None) != (posenet is None):
        raise click.UsageError("--rootnet and --posenet go together: each needs the other")
    return Pipeline.load(
        f"{rootnet},{posenet}" if rootnet else weight_set,
        device=device,
        precision=precision,
        detector=detector or "",
        detector_file=detector_weights,
        options=PipelineOptions(detection_threshold=threshold, flip_test=flip_test),
    )


@eval_.command()
@click.argument("folder", type=click.Path(path_type=Path))
@pipeline_options(PipelineOptions.detection_threshold)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for overlays.")
@click.option(
    "--blazepose/--no-blazepose",
    default=None,
    help="Measure BlazePose on the same boxes; by default if MediaPipe is there.",
)
def photos(
    folder: Path, as_json: bool, out: Path | None, blazepose: bool | None, **options: Any
) -> None:
    """Measure on the photographs of FOLDER: pose, root, detection.

    \b
    mppe eval photos ../shared/data/photos --out overlays
    mppe eval photos ../shared/data/photos --json
    """
    sets = read_folder(folder)
    pipeline = load_pipeline(**options)
    rival = _blazepose(blazepose)
    if out is not None:
        make_folder(out)
    with tqdm(total=sum(len(one.photos) for one in sets), disable=None, unit="photo") as bar:

        def seen(of: PhotoSet, photo: Photo, rgb: media.Rgb, people: Sequence[Person]) -> None:
            if out is not None:
                picture = overlay(rgb, photo, people, pipeline.skeleton, of.joint_names)
                media.write_image(out / f"{of.name}_{Path(photo.name).stem}.jpg", picture)
            bar.update()

        results = photos_.Evaluation(pipeline, rival)(sets, seen)
    if as_json:
        click.echo(json.dumps({"model": pipeline.model, **photos_.record(results)}))
        return
    click.echo(f"{pipeline.model}: mean (people); lengths in mm\n")
    click.echo(photos_.table(results))


def _blazepose(wanted: bool | None) -> BlazePose | None:
    if wanted is False or (wanted is None and find_spec("mediapipe") is None):
        return None
    need("mediapipe", "--blazepose", REQUIREMENT)
    return BlazePose()


@eval_.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--clip", is_flag=True, help="The sample clip of the package instead.")
@click.option(
    "--every", type=click.IntRange(1), default=1, show_default=True, help="Only each n-th image."
)
@pipeline_options(SCORE_THRESHOLD)  # average precision weighs the doubtful ones too
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the plot (needs matplotlib)."
)
def synthetic(
    folder: Path | None, clip: bool, every: int, as_json: bool, out: Path | None, **options: Any
) -> None:
    """Measure on generated scenes: the benchmark, FOLDER of 'mppe synth scenes', or --clip.

    The benchmark is made once, in some minutes, and kept in the cache folder.

    \b
    mppe eval synthetic
    mppe eval synthetic --clip --every 5
    mppe eval synthetic scenes --out figures
    """
    if clip and folder is not None:
        raise click.UsageError("give either FOLDER or --clip")
    sets = [read_photo_set(scenes_.CLIP)] if clip else scenes_.read(folder or _benchmark())
    if out is not None:
        need("matplotlib", "--out", "'mppe_ros[plot]'")
        make_folder(out)
    pipeline = load_pipeline(**options)
    count = sum(len(one.photos[::every]) for one in sets)
    each = (scene for one in sets for scene in scenes_.measure(pipeline, one, every))
    result = scenes_.record(list(tqdm(each, total=count, disable=None, unit="image")))
    if out is not None:
        scenes_.plot(result, out / "synthetic.png")
        click.echo(f"wrote {out / 'synthetic.png'}", err=True)
    if as_json:
        click.echo(json.dumps({"model": pipeline.model, **result}, allow_nan=False))
        return
    click.echo(
        f"{pipeline.model}: {result['images']} images; lengths in mm, 3DPCK, AUC, AP^root in %\n"
    )
    click.echo(scenes_.table(result))


def _benchmark() -> Path:
    from ..synthetic.benchmark import BENCHMARK
    from ..synthetic.cli import mended

    with mended():
        return BENCHMARK.prepare()


@eval_.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--every", type=click.IntRange(1), default=1, show_default=True, help="Only each n-th image."
)
@pipeline_options(PipelineOptions.detection_threshold)
def roots(folder: Path, every: int, as_json: bool, **options: Any) -> None:
    """Measure roots against their covariance, and with depth images, if FOLDER has them.

    \b
    mppe synth scenes --out scenes --count 384 --split test --depth
    mppe eval roots scenes
    """
    sets = scenes_.read(folder)
    pipeline = load_pipeline(**options)
    each = (person for one in sets for person in roots_.measure(pipeline, one, every))
    result = roots_.record(list(tqdm(each, disable=None, unit="person")))
    if not result["methods"]:
        raise click.ClickException(f"{folder}: nobody with a known place was found")
    if as_json:
        click.echo(json.dumps({"model": pipeline.model, **result}, allow_nan=False))
        return
    click.echo(
        f"{pipeline.model}: medians in mm, shares in %; 68.3 belong within 1σ, of 3D 19.9\n"
    )
    click.echo(roots_.table(result))
    constants = (f"{name}={value:.3g}" for name, value in result["root_error"].items() if value)
    click.echo(f"\nby these people: RootError({', '.join(constants)})")
    torso = (f"{side} {value:.0f} mm" for side, value in result["torso_depth_mm"].items())
    click.echo(f"their torsos' depth under the surface: {', '.join(torso) or 'unknown'}")


def need(module: str, option: str, package: str) -> None:
    """Refuse an option whose optional dependency is missing."""
    if find_spec(module) is None:
        raise click.ClickException(
            f"{option} needs {module}, which isn't installed: pip install {package}"
        )
