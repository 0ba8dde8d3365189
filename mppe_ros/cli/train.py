"""``mppe train``: from data to a file that a weight set can ship or ``mppe run`` can read."""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..checkpoints import CheckpointError
from ..datasets import DatasetError
from ..devices import DeviceError
from ..training.config import (
    OPEN_CONFIGS,
    REFERENCE_CONFIGS,
    Config,
    ConfigError,
    RootPoseConfig,
    counted,
    read_config,
)
from ..training.files import RunFolder, Snapshot, average, export, read_snapshot, save_snapshot
from ..weights import DEFAULT

# torch frees large tensors to the system, and gets their pages anew at every step, without these.
# Kept for ever, pages would be 22 GB after half an hour.
JEMALLOC_OPTIONS = "oversize_threshold:1,dirty_decay_ms:20000,muzzy_decay_ms:20000"

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE_OR_FOLDER = click.Path(exists=True, path_type=Path)


class TrainErrors(click.Group):
    """Errors that users can mend are one sentence, not a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run, and shorten what may go wrong."""
        from ..training.data import DataError

        try:
            from ..training.loop import DivergedError
        except ImportError as error:
            raise click.ClickException(
                f"training needs the package {error.name}: pip install 'mppe_ros[train]'"
            ) from error
        mendable = (
            CheckpointError, ConfigError, DataError, DatasetError, DeviceError, DivergedError,
        )  # fmt: skip
        try:
            return super().invoke(context)
        except mendable as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=TrainErrors)
def train() -> None:
    """Train networks; average and export what came out."""


def _common_options(command: Callable[..., None]) -> Callable[..., None]:
    """What all trainings take."""
    options = (
        click.option(
            "--config",
            "config_name",
            help="Preset or YAML file; that of the run to continue, or the task's own, without.",
        ),
        click.option(
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            required=True,
            help="The run's folder. What is there already is continued.",
        ),
        click.option("--start", type=_FILE_OR_FOLDER, help="Snapshot or run to begin from."),
        click.option("--minutes", type=click.FloatRange(min=0), help="Stop then."),
        click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's choice."),
        click.option(
            "--workers",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Processes that read and vary images, for each device.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@train.command("open")
@click.argument("task", type=click.Choice(list(OPEN_CONFIGS)))
@click.option("--data", type=_FOLDER, required=True, help="Folder of 'mppe synth'.")
@click.option("--validation", type=_FOLDER, help="Folder of 'mppe synth --split test'.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or auto.")
@click.option(
    "--jemalloc",
    is_flag=True,
    help="Run under libjemalloc, which must be installed: faster on CPUs.",
)
@_common_options
def open_(
    task: str, data: Path, validation: Path | None, device: str, jemalloc: bool, **options: Any
) -> None:
    """Train RootNet, PoseNet or DetectNet of our own on generated people.

    \b
    mppe train open root --data data/crops --out runs/root
    mppe train open pose --data data/crops --out runs/pose --minutes 60

    Ctrl-C (or SIGTERM) saves the state; the same command continues from it, with the same result
    as if it had never been stopped.
    """
    if jemalloc:
        restart_under_jemalloc()
    config = _config(task, options.pop("config_name"), RunFolder(options["out"]), f"open-{task}")
    _train(config, data, validation, device=device, **options)


def _reference_command(task: str, summary: str, data_help: str) -> click.Command:
    """The command of one of the paper's networks."""

    @_common_options
    def command(data: Path, device: str, devices: int, nodes: int, **options: Any) -> None:
        run = RunFolder(options["out"])
        config = _config(task, options.pop("config_name"), run, f"reference-{task}")
        _train(config, data, data, device=device, devices=devices, nodes=nodes, **options)

    count = click.IntRange(1)
    options = (
        click.option("--data", type=_FOLDER, required=True, help=data_help),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:N]"),
        click.option("--devices", type=count, default=1, help="How many on each machine; 1."),
        click.option("--nodes", type=count, default=1, help="Machines, with torchrun on each; 1."),
    )
    for option in reversed(options):
        command = option(command)
    return click.command(task, help=_reference_help(task, summary))(command)


def _reference_help(task: str, summary: str) -> str:
    return f"""{summary}

    \b
    mppe train {task} --data data --out runs/{task}

    Presets: reference-*. Ctrl-C (or SIGTERM) saves the state; the same command continues from it,
    with the same result as if it had never been stopped."""


_SETS_HELP = "Folder that has Human36M, MuCo, MPII, MSCOCO … as 'mppe data check' wants them."

for _task, _summary, _help in (
    ("rootnet", "Train the paper's RootNet.", _SETS_HELP),
    ("posenet", "Train the paper's PoseNet, with any trunk and decoder of heat maps.", _SETS_HELP),
    ("joint", "Train RootNet and PoseNet on one trunk (the paper's ablation).", _SETS_HELP),
    ("detectnet", "Train a detector on pictures with boxes.", "Folder in COCO's layout."),
):
    assert _task in REFERENCE_CONFIGS
    train.add_command(_reference_command(_task, _summary, _help))


def _train(
    config: Config,
    data: Path,
    validation: Path | None,
    *,
    out: Path,
    start: Path | None,
    minutes: float | None,
    threads: int | None,
    workers: int,
    **devices: Any,
) -> None:
    import torch

    from ..training.loop import Session, Stop, Trainer
    from ..training.machines import launch
    from ..training.tasks import task_for

    if threads:
        torch.set_num_threads(threads)
    source = task_for(config).source(data)
    config = counted(config, len(source))
    job = task_for(config)
    looked_at = job.validation_source(validation) if validation else None
    begin = read_snapshot(start) if start else None
    RunFolder(out).claim(config)
    fabric = launch(config.optimisation.precision, **devices)
    trainer = Trainer(
        job,
        source,
        RunFolder(out),
        validation=looked_at,
        start=begin,
        fabric=fabric,
        workers=workers,
    )
    finished = Session(trainer).train(Stop(minutes))
    if not fabric.is_global_zero:
        return
    if finished:
        click.echo(f"finished: mppe train export {out} --out {config.task}.safetensors")
    else:
        click.echo(f"stopped after {trainer.samples} samples: the same command continues")


def _config(task: str, name: str | None, run: RunFolder, preset: str) -> Config:
    chosen = name or (run.config if run.config.is_file() else preset)
    config = read_config(chosen)
    if config.task != task:
        raise ConfigError(f"{chosen} is of the task {config.task}, not {task}")
    return config


def restart_under_jemalloc() -> None:
    """Begin this process anew with jemalloc in the place of malloc, unless it has it.

    :raises click.ClickException: there is none.
    """
    if "jemalloc" in os.environ.get("LD_PRELOAD", ""):
        return
    library = ctypes.util.find_library("jemalloc")
    if library is None:
        raise click.ClickException("no libjemalloc here (Debian: apt install libjemalloc2)")
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), library]))
    environment = {**os.environ, "LD_PRELOAD": preload, "MALLOC_CONF": JEMALLOC_OPTIONS}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


@train.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--config", "config_name", default="open-root_pose", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def blazepose(model: Path, config_name: str, out: Path) -> None:
    """Write what 'open root_pose' starts from: BlazePose's trunk, out of MediaPipe's wheel.

    \b
    pip download --no-deps --only-binary=:all: --python-version 3.12 mediapipe==0.10.14
    unzip -j mediapipe-0.10.14-*.whl '*/pose_landmark_full.tflite'
    mppe train blazepose pose_landmark_full.tflite --out blazepose.safetensors
    """
    import torch

    from ..training.blazepose import load_blazepose
    from ..training.open_tasks import RootPoseTask
    from ..training.preparation import trunk_of
    from ..trunks import BlazePose

    config = read_config(config_name)
    if not isinstance(config, RootPoseConfig):
        raise ConfigError(f"{config_name} is of the task {config.task}, not root_pose")
    torch.manual_seed(config.seed)
    network = RootPoseTask(config).trainable()
    trunk = trunk_of(network)
    assert isinstance(trunk, BlazePose)
    load_blazepose(trunk, model)
    save_snapshot(out, Snapshot(network.state_dict(), config, 0))
    click.echo(f"{out}: begin with it by --start")


@train.command()
@click.argument("snapshot", type=_FILE_OR_FOLDER)
@click.option("--data", type=_FOLDER, required=True, help="Folder of 'mppe synth crops'.")
@click.option("--samples", type=click.IntRange(1), default=22_000, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def gamma(snapshot: Path, data: Path, samples: int, out: Path) -> None:
    """Fit γ's layers of a 'root_pose' network anew, to what its finished trunk sees.

    \b
    mppe train gamma runs/both --data data/crops --out both.safetensors
    """
    from ..training.gamma_head import fit
    from ..training.tasks import task_for

    given = read_snapshot(snapshot)
    task = task_for(given.config)
    fitted, error = fit(given, task, task.source(data), samples)
    save_snapshot(out, fitted)
    click.echo(f"{out}: relative error of γ on {samples} varied crops {error:.3f}")


@train.command()
@click.argument("scenes", type=_FOLDER)
@click.option("--weights", "weight_set", default=DEFAULT, show_default=True, help="Whose roots.")
@click.option("--passes", type=click.IntRange(1), default=40, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def surface(scenes: Path, weight_set: str, passes: int, out: Path) -> None:
    """Fit the small network that improves a weight set's roots by depth images.

    \b
    mppe synth scenes --out data/depth --count 3072 --depth
    mppe train surface data/depth --out surface.safetensors
    """
    from ..evaluation.synthetic import read
    from ..pipeline import Pipeline
    from ..training import surface_fit

    pipeline = Pipeline.load(weight_set)
    try:
        lessons = surface_fit.collect(pipeline, read(scenes))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    network = surface_fit.fit(lessons, pipeline.skeleton, passes)
    surface_fit.write(network, out)
    click.echo(f"{out}: learnt from {len(lessons.offsets_mm)} views of people")


@train.command("average")
@click.argument("snapshots", type=_FILE_OR_FOLDER, nargs=-1, required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def average_(snapshots: tuple[Path, ...], out: Path) -> None:
    """Write the mean of snapshots (or of runs' latest parameters).

    \b
    mppe train average runs/root-1 runs/root-2 --out root.safetensors
    """
    save_snapshot(out, average([read_snapshot(path) for path in snapshots]))
    click.echo(f"{out}: mean of {len(snapshots)}")


@train.command("export")
@click.argument("snapshot", type=_FILE_OR_FOLDER)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Of the parameters.",
)
def export_(snapshot: Path, out: Path, precision: str) -> None:
    """Write a snapshot, or a run's latest averaged parameters, as 'mppe run' reads them.

    \b
    mppe train export runs/root --out root.safetensors
    """
    export(read_snapshot(snapshot), out, precision)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
