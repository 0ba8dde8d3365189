"""``mppe eval human36m``, ``mupots`` and ``3dpw``: the paper's protocols."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from ..datasets import Dataset
from ..datasets.boxes import read_boxes
from ..datasets.human36m import Human36M
from ..datasets.mupots import MuPoTS
from ..datasets.pw3d import Pw3d
from ..detectors import SCORE_THRESHOLD, FixedBoxes
from ..evaluation import curves, release, single
from ..evaluation import human36m as human36m_
from ..evaluation import mupots as mupots_
from ..evaluation import pw3d as pw3d_
from ..evaluation.predictions import Boxes, BoxesOfFile, Prediction, Roots, Runner, TrueBoxes
from ..evaluation.release import Files, find_files
from ..pipeline import Pipeline
from ..skeletons import HUMAN36M_17, MUPOTS_17, Skeleton
from .eval import Command, load_pipeline, need, pipeline_options
from .run import make_folder

_DETECTOR, _TRUTH = "detector", "truth"


def _options(command: Command) -> Command:
    """What all three commands take."""
    path = click.Path(path_type=Path)
    options = (
        click.argument("folder", type=path),
        click.option("--boxes", default=_DETECTOR, show_default=True,
                     metavar="detector|truth|FILE",
                     help="Where boxes come from; FILE of the reference release "
                          "(bbox_*_output.json; roots too from bbox_root_*_output.json)."),
        click.option("--roots", type=click.Choice([one.value for one in Roots]),
                     default=Roots.ROOTNET.value, show_default=True,
                     help="Where roots come from; k is the baseline without RootNet."),
        click.option("--predictions", type=path, multiple=True,
                     help="Measure the reference release's files (or a folder of them) instead "
                          "of running anything."),
        click.option("--every", type=click.IntRange(1), default=1, show_default=True,
                     help="Only each n-th image, for a quick look."),
        pipeline_options(SCORE_THRESHOLD),
        click.option("--out", type=path,
                     help="Folder for Markdown, JSON, plots and, in the reference release's "
                          "formats, predictions (needs matplotlib)."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class _Job:
    """One evaluation: what is asked for, in words that go into its report."""

    dataset: Dataset
    boxes: str
    roots: Roots
    every: int
    out: Path | None
    as_json: bool
    options: Mapping[str, Any]  # of the pipeline

    def run(self) -> tuple[Pipeline, Dataset, list[Prediction]]:
        """The pipeline, the images it saw, and what it says."""
        images = list(self.dataset.by_image())[:: self.every]
        dataset = self.dataset
        if self.every > 1:
            wanted = set(images)
            dataset = dataset.only(
                [row for row, image in enumerate(dataset.image_names) if image in wanted]
            )
        source = self._source(dataset)
        # Where boxes are given, nobody should have to download a detector.
        detector = self.options["detector"] if source is None else FixedBoxes([])
        pipeline = load_pipeline(**{**self.options, "detector": detector})
        each = Runner(pipeline, self.roots, source)(dataset, images)
        bar = tqdm(each, total=len(images), disable=None, unit="image")
        return pipeline, dataset, [one for of_image in bar for one in of_image]

    def _source(self, dataset: Dataset) -> Boxes | None:
        if self.roots is Roots.TRUTH and self.boxes != _TRUTH:
            raise click.UsageError("--roots truth goes with --boxes truth: whose root is it else?")
        if self.boxes == _DETECTOR:
            return None
        if self.boxes == _TRUTH:
            return TrueBoxes(dataset, roots=self.roots is Roots.TRUTH)
        file = read_boxes(Path(self.boxes))
        if file.has_roots and self.roots is not Roots.ROOTNET:
            raise click.UsageError(f"{self.boxes} has roots already: leave out --roots")
        return BoxesOfFile(file, dataset)

    def variant(self, pipeline: Pipeline) -> dict[str, Any]:
        """How the pipeline was run, by name."""
        roots = self.roots.value
        if self.boxes not in (_DETECTOR, _TRUTH) and read_boxes(Path(self.boxes)).has_roots:
            roots = Path(self.boxes).name
        return {
            "model": pipeline.model,
            "boxes": Path(self.boxes).name,
            "roots": roots,
            "flip_test": pipeline.options.flip_test,
            "every": self.every,
        }

    def give(self, result: dict[str, Any], caption: str, table: str) -> None:
        """Print, and write what --out asks for."""
        if self.out is not None:
            name = str(result["dataset"])
            (self.out / f"{name}.json").write_text(json.dumps(result, indent=1, allow_nan=False))
            (self.out / f"{name}.md").write_text(f"{caption}\n\n{table}\n", encoding="utf-8")
            curves.plot(result, self.out, name)
            click.echo(f"wrote {self.out}", err=True)
        if self.as_json:
            click.echo(json.dumps(result, allow_nan=False))
        else:
            click.echo(f"{caption}\n\n{table}")


def _job(
    dataset: Callable[[], Dataset],
    *,
    boxes: str,
    roots: str,
    predictions: Sequence[Path],
    every: int,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> _Job:
    """Refuses what doesn't go together before anything slow begins."""
    if predictions and (boxes != _DETECTOR or roots != Roots.ROOTNET.value or every > 1):
        raise click.UsageError("--predictions goes without --boxes, --roots and --every")
    if out is not None:
        need("matplotlib", "--out", "'mppe_ros[plot]'")
        make_folder(out)
    return _Job(dataset(), boxes, Roots(roots), every, out, as_json, options)


def _caption(title: str, result: Mapping[str, Any]) -> str:
    variant = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in
                        result["variant"].items())  # fmt: skip
    joints = f"\n{len(result['joints'])} joints: {', '.join(result['joints'])}."
    return f"{title}\n{variant}.{joints if result['joints'] else ''}"


# --- Human3.6M -----------------------------------------------------------------------------------


@click.command("human36m")
@click.option(
    "--protocol", type=click.Choice(["1", "2"]), default="2", show_default=True,
    help="1: PA-MPJPE on S11; 2: MPJPE on S9 and S11.",
)  # fmt: skip
@_options
def human36m(folder: Path, protocol: str, predictions: Sequence[Path], **options: Any) -> None:
    """Human3.6M's protocols, every 64th frame; the best detection of each image counts.

    \b
    mppe eval human36m data/Human36M --protocol 2 --weights ROOTNET,POSENET --flip-test
    mppe eval human36m data/Human36M --protocol 2 --boxes truth --roots truth
    mppe eval human36m data/Human36M --protocol 1 --predictions bbox_root_pose_human36m_output.json
    """
    number = int(protocol)
    job = _job(lambda: Human36M(folder, "test", number), predictions=predictions, **options)
    if predictions:
        known = {release.HUMAN36M_ROOTS: "roots", release.HUMAN36M_POSES: "poses"}
        files = find_files(predictions, known)
        measured, variant = human36m_.measure_files(
            job.dataset,
            release.read_poses(files.poses) if files.poses else None,
            read_boxes(files.roots) if files.roots else None,
        )
    else:
        pipeline, dataset, predicted = job.run()
        measured = human36m_.measure(dataset, predicted, pipeline.skeleton)
        variant = job.variant(pipeline)
        variant["aligned_on_joints"] = measured.aligned_on
        if job.out is not None:
            release.write_roots(job.out / release.HUMAN36M_ROOTS, dataset, predicted)
            if set(HUMAN36M_17.joint_names) <= set(pipeline.skeleton.joint_names):
                path = job.out / release.HUMAN36M_POSES
                release.write_poses(path, dataset, predicted, pipeline.skeleton)
    result = human36m_.record(measured, number)
    if job.roots is Roots.TRUTH:
        result = single.without_roots(result)
    result["variant"] = variant
    title = (
        f"Human3.6M, protocol {number}, its metric {result['metric']}; mm. PA-MPJPE: rotation and "
        "translation, no scale."
    )
    job.give(result, _caption(title, result), single.table(result))


# --- MuPoTS-3D -----------------------------------------------------------------------------------


@click.command("mupots")
@_options
def mupots(folder: Path, predictions: Sequence[Path], **options: Any) -> None:
    """MuPoTS-3D's 3DPCK and AUC, relative and absolute, all and matched people, and AP_25^root.

    \b
    mppe eval mupots data/MuPoTS --weights 3dmppe --flip-test --out figures
    mppe eval mupots data/MuPoTS --boxes truth --roots truth
    mppe eval mupots data/MuPoTS --predictions output/result
    """
    job = _job(lambda: MuPoTS(folder), predictions=predictions, **options)
    if predictions:
        sequences, joints, roots, variant = _mupots_files(job.dataset, predictions)
        average_precision = mupots_.average_precision(job.dataset, roots) if roots else None
    else:
        pipeline, dataset, predicted = job.run()
        frames = mupots_.frames_of(predicted)
        sequences, joints = mupots_.measure_pck(dataset, frames, pipeline.skeleton)
        average_precision = mupots_.average_precision(
            dataset, mupots_.roots_of(predicted, dataset)
        )
        variant = job.variant(pipeline)
        if job.out is not None:
            release.write_roots(job.out / release.MUPOTS_ROOTS, dataset, predicted)
            if set(MUPOTS_17.joint_names) <= set(pipeline.skeleton.joint_names):
                release.write_frames(job.out, frames, pipeline.skeleton)
    result = mupots_.record(sequences, joints, average_precision)
    result["variant"] = variant
    title = (
        "MuPoTS-3D, means of the sequences; 3DPCK at 150 mm, AUC and AP in %. Missed people count "
        "as wrong, but in 'matched'."
    )
    job.give(result, _caption(title, result), mupots_.table(result))


def _mupots_files(
    dataset: Dataset, paths: Sequence[Path]
) -> tuple[dict[str, mupots_.SequenceErrors], list[str], list[mupots_.Root], dict[str, Any]]:
    known = {release.MUPOTS_ROOTS: "roots", release.MUPOTS_2D: "poses_2d",
             release.MUPOTS_3D: "poses"}  # fmt: skip
    files = find_files(paths, known)
    if (files.poses is None) != (files.poses_2d is None):
        raise click.UsageError(f"{release.MUPOTS_2D} and {release.MUPOTS_3D} go together")
    sequences: dict[str, mupots_.SequenceErrors] = {}
    joints: list[str] = []
    skeleton: Skeleton = MUPOTS_17
    if files.poses is not None and files.poses_2d is not None:
        frames = release.read_frames(files.poses_2d, files.poses)
        sequences, joints = mupots_.measure_pck(dataset, frames, skeleton)
    roots = mupots_.roots_of_file(read_boxes(files.roots)) if files.roots else []
    return sequences, joints, roots, {"predictions": _names(files)}


def _names(files: Files) -> str:
    paths = (files.roots, files.poses_2d, files.poses)
    return ", ".join(path.name for path in paths if path is not None)


# --- 3DPW ----------------------------------------------------------------------------------------


@click.command("3dpw")
@click.option(
    "--split", type=click.Choice(Pw3d.splits), default="test", show_default=True,
    help="Of the data set.",
)  # fmt: skip
@_options
def pw3d(folder: Path, split: str, predictions: Sequence[Path], **options: Any) -> None:
    """3DPW: MRPE as the reference release, MPJPE and PA-MPJPE of 13 joints.

    \b
    mppe eval 3dpw data/PW3D --boxes truth --weights 3dmppe
    mppe eval 3dpw data/PW3D --predictions rootnet_pw3d_output.json
    """
    job = _job(lambda: Pw3d(folder, split), predictions=predictions, **options)
    dataset = job.dataset
    if predictions:
        files = find_files(predictions, {release.PW3D_ROOTS: "roots"})
        assert files.roots is not None
        measured = pw3d_.measure_roots(dataset, read_boxes(files.roots))
        variant: dict[str, Any] = {"predictions": _names(files)}
    else:
        pipeline, dataset, predicted = job.run()
        measured = pw3d_.measure(dataset, predicted, pipeline.skeleton)
        variant = job.variant(pipeline)
        if job.out is not None:
            release.write_roots(job.out / release.PW3D_ROOTS, dataset, predicted)
    sequences = sorted(set(dataset.groups))
    result = pw3d_.record(measured, sequences, split)
    if job.roots is Roots.TRUTH:
        result = single.without_roots(result)
    result["variant"] = variant
    title = f"3DPW, {split}; mm. PA-MPJPE: rotation and translation, no scale."
    job.give(result, _caption(title, result), single.table(result))
