"""``mppe data``: the data sets that training and evaluation read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..datasets import DATASETS
from ..datasets.check import IMAGES, check


@click.group()
def data() -> None:
    """Data sets for training and evaluation (docs/datasets.md)."""


@data.command("list")
def list_() -> None:
    """The data sets, their splits and joints.

    \b
    mppe data list
    """
    for name, kind in DATASETS.items():
        splits = ", ".join(kind.splits)
        what = "3D" if kind.has_depth else "2D"
        click.echo(f"{name:10} {what}  {len(kind.skeleton):2} joints  {splits}")


@data.command("check")
@click.argument("name", type=click.Choice(list(DATASETS)))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--split", help="Only this one; all without.")
@click.option(
    "--images", type=click.IntRange(0), default=IMAGES, show_default=True,
    help="How many images of each split to look at.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check_(name: str, path: Path, split: str | None, images: int, as_json: bool) -> None:
    """Say what is missing or broken in the data set NAME in the folder PATH.

    \b
    mppe data check human36m data/Human36M
    mppe data check mupots data/MuPoTS --images 1000

    Exit code 1 if anything is.
    """
    reports = check(name, path, split, images)
    if as_json:
        click.echo(json.dumps({report.split: asdict(report) for report in reports}))
    else:
        for report in reports:
            verdict = f"{len(report.problems)} problems" if report.problems else "fine"
            click.echo(
                f"{report.split}: {report.people} people in {report.images} images: {verdict}"
            )
            for problem in report.problems:
                click.echo(f"  {problem}")
            for note in report.notes:
                click.echo(f"  (note) {note}")
    if any(report.problems for report in reports):
        raise click.exceptions.Exit(1)
