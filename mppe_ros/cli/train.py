"""``mppe train``: networks of our own, from generated people to a file that a set can ship."""

from __future__ import annotations

import ctypes.util
import os
import sys
from pathlib import Path
from typing import Any

import click

from ..checkpoints import CheckpointError
from ..devices import DeviceError
from ..training.config import CONFIGS, Config, ConfigError, read_config
from ..training.files import RunFolder, average, export, read_snapshot, save_snapshot

# torch frees large tensors to the system, and gets their pages anew at every step, without these.
JEMALLOC_OPTIONS = "oversize_threshold:1,dirty_decay_ms:-1,muzzy_decay_ms:-1"

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE_OR_FOLDER = click.Path(exists=True, path_type=Path)


class TrainErrors(click.Group):
    """Errors that users can mend are one sentence, not a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run, and shorten what may go wrong."""
        from ..training.data import DataError
        from ..training.loop import DivergedError

        mendable = CheckpointError, ConfigError, DataError, DeviceError, DivergedError
        try:
            return super().invoke(context)
        except mendable as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=TrainErrors)
def train() -> None:
    """Train networks of our own; average and export what came out."""


@train.command("open")
@click.argument("task", type=click.Choice(list(CONFIGS)))
@click.option(
    "--config",
    "config_name",
    help="Preset or YAML file; open-TASK without, or that of the run to continue.",
)
@click.option("--data", type=_FOLDER, required=True, help="Folder of 'mppe synth'.")
@click.option("--validation", type=_FOLDER, help="Folder of 'mppe synth --split test'.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The run's folder. What is there already is continued.",
)
@click.option("--start", type=_FILE_OR_FOLDER, help="Snapshot or run to begin from.")
@click.option("--minutes", type=click.FloatRange(min=0), help="Stop then, to be continued.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's choice without.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or auto.")
@click.option(
    "--jemalloc",
    is_flag=True,
    help="Run under libjemalloc, which must be installed: faster on CPUs.",
)
def open_(
    task: str,
    config_name: str | None,
    data: Path,
    validation: Path | None,
    out: Path,
    start: Path | None,
    minutes: float | None,
    threads: int | None,
    device: str,
    jemalloc: bool,
) -> None:
    """Train RootNet, PoseNet or DetectNet on generated people.

    Ctrl-C (or SIGTERM) saves the state; the same command continues from it, with the same result
    as if it had never been stopped.
    """
    if jemalloc:
        restart_under_jemalloc()
    import torch

    from ..devices import select_device
    from ..training.loop import Session, Stop, Trainer
    from ..training.tasks import task_for

    if threads:
        torch.set_num_threads(threads)
    config = _config(task, config_name, RunFolder(out))
    job = task_for(config)
    sources = job.source(data), job.source(validation) if validation else None
    RunFolder(out).claim(config)
    trainer = Trainer(
        job,
        sources[0],
        RunFolder(out),
        validation=sources[1],
        start=read_snapshot(start) if start else None,
        device=select_device(device),
    )
    if Session(trainer).train(Stop(minutes)):
        click.echo(f"finished: mppe train export {out} --out {task}.safetensors")
    else:
        click.echo(f"stopped after {trainer.samples} samples: the same command continues")


def _config(task: str, name: str | None, run: RunFolder) -> Config:
    chosen = name or (run.config if run.config.is_file() else f"open-{task}")
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


@train.command("average")
@click.argument("snapshots", type=_FILE_OR_FOLDER, nargs=-1, required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def average_(snapshots: tuple[Path, ...], out: Path) -> None:
    """Write the mean of snapshots (or of runs' latest parameters)."""
    save_snapshot(out, average([read_snapshot(path) for path in snapshots]))
    click.echo(f"{out}: mean of {len(snapshots)}")


@train.command("export")
@click.argument("snapshot", type=_FILE_OR_FOLDER)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def export_(snapshot: Path, out: Path) -> None:
    """Write a snapshot, or a run's latest averaged parameters, for a weight set: fp16."""
    export(read_snapshot(snapshot), out)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
