"""``mppe bench``: how fast it is here, beside the reference way."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from .. import weights
from ..devices import OWN_BACKENDS, PRECISIONS
from .run import make_folder


def _size(_: Any, __: Any, texts: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(width), int(height)) for width, height in (t.split("x") for t in texts))
    except ValueError as error:
        raise click.BadParameter("sizes are like 640x480") from error


@click.command()
@click.option("--weights", "weight_sets", multiple=True, default=[weights.DEFAULT, "3dmppe"],
              show_default=True, type=click.Choice(list(weights.SETS)),
              help="Sets to measure; the first is the embedded one. Of 3dmppe random weights "
              "serve where its files aren't here.")
@click.option("--precision", "precisions", multiple=True, default=["fp32", "bf16"],
              show_default=True, type=click.Choice(list(PRECISIONS)), help="Fastest last.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(OWN_BACKENDS),
              help="What runs the networks.")
@click.option("--people", multiple=True, type=click.IntRange(1), default=[1, 2, 4, 8, 16],
              show_default=True, help="How many, at the first size.")
@click.option("--size", "sizes", multiple=True, callback=_size, show_default=True,
              default=["640x480", "1280x720", "1920x1080"], help="Images, px.")
@click.option("--rounds", type=click.IntRange(1), show_default="11",
              help="Measurements of everything, in turns.")
@click.option("--threads", type=click.IntRange(1), help="CPUs to use, pinned; all without.")
@click.option("--blazepose/--no-blazepose", default=None,
              help="BlazePose too; by default if MediaPipe is there.")
@click.option("--dds/--no-dds", default=None,
              help="The node over DDS too; by default if ROS 2 is there.")
@click.option("--frames", type=click.IntRange(0), show_default="300",
              help="For the growth of memory; 0 = leave it out.")
@click.option("--sweep/--no-sweep", default=None, help="The table by people and size.")
@click.option("--quick", is_flag=True,
              help="3 rounds, no table by people and size, 30 frames, if nothing else is said.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, no tables.")
@click.option("--out", type=click.Path(path_type=Path),
              help="Folder for bench.json, bench.md and, with matplotlib, bench.png.")
def bench(
    threads: int | None,
    blazepose: bool | None,
    dds: bool | None,
    rounds: int | None,
    frames: int | None,
    sweep: bool | None,
    quick: bool,
    as_json: bool,
    out: Path | None,
    **choices: Any,
) -> None:  # fmt: skip
    """Measure the stages, and how they compare with the reference way and the bare networks.

    \b
    mppe bench --quick
    mppe bench --frames 10000 --out figures
    """
    from ..benchmark.report import markdown, plot
    from ..benchmark.run import Options
    from ..benchmark.timing import pin_threads

    rounds = rounds or (3 if quick else 11)
    frames = (30 if quick else 300) if frames is None else frames
    sweep = not quick if sweep is None else sweep
    if blazepose is None:
        blazepose = find_spec("mediapipe") is not None
    if out is not None:
        make_folder(out)
    options = Options(blazepose=blazepose, rounds=rounds, **choices)
    record: dict[str, Any] = {"machine": _machine(pin_threads(threads), options)}
    with tempfile.TemporaryDirectory() as folder:
        record |= _measure(options, Path(folder), sweep, frames)
    if dds is None:
        dds = find_spec("rclpy") is not None
    record |= _over_dds(options) if dds else {}
    record = {**dict.fromkeys(_headlines()), **record}
    of = record["machine"]
    text = f"{of['device']}, {of['threads']} threads, torch {of['torch']}, {of['backend']}\n\n"
    text += markdown(record)
    if out is not None:
        (out / "bench.json").write_text(json.dumps(record, indent=1) + "\n")
        (out / "bench.md").write_text(text + "\n")
        if sweep and find_spec("matplotlib"):
            plot(record, out / "bench.png")
    click.echo(json.dumps(record) if as_json else text)


def _headlines() -> list[str]:
    from ..benchmark.report import HEADLINES

    return list(HEADLINES)


def _measure(options: Any, folder: Path, sweep: bool, frames: int) -> dict[str, Any]:
    from ..benchmark import run
    from ..benchmark.networks import REFERENCE, find

    record: dict[str, Any] = {"random_weights": []}
    if REFERENCE in options.weight_sets and find(REFERENCE, folder).random:
        record["random_weights"] = [REFERENCE]
        click.echo(
            f"The files of {REFERENCE} aren't here: its networks run with random weights, which "
            "take the same time.",
            err=True,
        )
    if frames:  # before other networks: what they give back would be taken again
        with _bar(frames, "memory") as done:
            record["memory_growth_mb"] = run.memory_growth_mb(options, folder, frames, done)
        record["memory_frames"] = frames
    comparison = run.Comparison(options, folder)
    with _bar(comparison.count, "comparison") as done:
        comparison.run(done)
    record |= comparison.record()
    del comparison
    if sweep:
        count = len(options.people) + len(options.sizes) - 1
        total = count * len(options.weight_sets) * len(options.precisions)
        with _bar(total, "people and sizes") as done:
            record["sweep"] = run.sweep(options, folder, lambda _: done())
    return record


@contextmanager
def _bar(total: int, text: str) -> Iterator[Callable[[], Any]]:
    """A progress bar on stderr, of a terminal only; gives what advances it."""
    with tqdm(total=total, desc=text, disable=None) as bar:
        yield bar.update


def _machine(threads: int, options: Any) -> dict[str, Any]:
    import torch

    from ..devices import select_backend, select_device

    chosen = select_device(options.device)
    backend = select_backend(options.backend, chosen, torch.float32)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else _processor()
    return {"device": name, "threads": threads, "torch": torch.__version__, "backend": backend}


def _processor() -> str:
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        for line in lines.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _over_dds(options: Any) -> dict[str, Any]:
    """In a process of its own: this one has no ROS, and pinned threads."""
    command = [sys.executable, "-m", "mppe_ros.dds_benchmark", options.weight_sets[0],
               options.precisions[-1], options.device, options.backend]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        click.echo(f"Not measured over DDS: {reason}", err=True)
        return {}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
