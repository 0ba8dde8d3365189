"""``mppe eval tracking``: who is who over time, against films with known people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from ..evaluation import tracking as tracking_
from ..evaluation.synthetic import CLIP
from ..evaluation.truth import read_photo_set
from ..pipeline import PipelineOptions
from ..sequence import DETECTION_INTERVAL
from .eval import load_pipeline, need, pipeline_options
from .run import make_folder


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--clip", is_flag=True, help="The sample clip of the package instead.")
@click.option(
    "--interval",
    type=click.IntRange(1),
    default=DETECTION_INTERVAL,
    show_default=True,
    help="The detector looks at every n-th image, and when somebody is new or missing.",
)
@click.option(
    "--camera-pose/--no-camera-pose",
    default=True,
    help="Use where the camera was, if the film says so.",
)
@click.option("--on-floor", is_flag=True, help="People stand on the floor, z = 0 of the world.")
@pipeline_options(PipelineOptions.detection_threshold)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for plots (matplotlib).")
def tracking(
    folder: Path | None,
    clip: bool,
    interval: int,
    camera_pose: bool,
    on_floor: bool,
    as_json: bool,
    out: Path | None,
    **options: Any,
) -> None:
    """Measure ids, velocities and poses over time: the package's films, or those in FOLDER.

    \b
    mppe eval tracking --out plots
    mppe synth clips --out clips --count 4 --split test
    mppe eval tracking clips --json
    """
    if clip and folder is not None:
        raise click.UsageError("give either FOLDER or --clip")
    films = [read_photo_set(CLIP)] if clip else tracking_.read(folder or tracking_.FILMS)
    need("trackeval", "eval tracking", tracking_.REQUIREMENT)
    if out is not None:
        need("matplotlib", "--out", "'mppe_ros[plot]'")
        make_folder(out)
    pipeline = load_pipeline(**options)
    with tqdm(total=2 * sum(len(f.photos) for f in films), disable=None, unit="image") as bar:
        # Every film twice: as a robot would, and with the detector looking at every image.
        takes, every_frame = (
            [
                tracking_.run(
                    pipeline,
                    film,
                    detection_interval=n,
                    camera_known=camera_pose,
                    on_floor=on_floor,
                    tick=bar.update,
                )
                for film in films
            ]
            for n in (interval, 1)
        )
    if out is not None:
        for take in takes:
            tracking_.plot(take, out / f"{take.name}.png")
    result = tracking_.record(pipeline, takes, every_frame, camera_pose)
    if as_json:
        click.echo(json.dumps({"model": pipeline.model, **result}, allow_nan=False))
        return
    click.echo(f"{pipeline.model}: {result['images']} images; NIS 1 = as its covariance says\n")
    click.echo(tracking_.table(result))
