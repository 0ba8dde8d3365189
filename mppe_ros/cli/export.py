"""``mppe export``: networks for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click
from tqdm import tqdm

from .. import deployment
from ..detectors import DETECTORS
from ..weights import DEFAULT

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=_PATH)
@click.option("--weights", "weight_set", default=DEFAULT, show_default=True,
              help="Weight set, see 'mppe weights list'.")
@click.option("--format", "form", default="onnx", show_default=True,
              type=click.Choice(["onnx", "torchscript", "tensorrt"]),
              help="tensorrt: ONNX and a program that builds engines where the GPU is.")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]),
              help="What convolutions compute in; by default fp32, for TensorRT fp16.")
@click.option("--device", default="cpu", show_default=True,
              help="Where TorchScript will run: cpu or cuda.")
@click.option("--flip-test", is_flag=True, help="Also the network for flip tests.")
@click.option("--detector", default="", type=click.Choice(["", *DETECTORS]), show_choices=False,
              help="A row of detectors instead of the set's own.")
@click.option("--detector-weights", type=_PATH, help="File for --detector.")
@click.option("--detector-size", type=click.IntRange(1),
              help="Image's shorter side for the detector, px.")
def export(
    folder: Path,
    weight_set: str,
    form: str,
    precision: str | None,
    device: str,
    flip_test: bool,
    detector: str,
    detector_weights: Path | None,
    detector_size: int | None,
) -> None:
    """Write a weight set's networks into a new FOLDER, as files for other runtimes.

    FOLDER is a weight set itself: for 'mppe run --weights FOLDER' and the node's parameter
    'weights'. Each file is checked against torch.

    \b
    mppe export exported
    mppe export exported --format tensorrt && python3 exported/build_engines.py
    """
    with tqdm(desc="exporting", unit=" networks") as bar:

        def report(line: str) -> None:
            bar.write(line)
            bar.update()

        deployment.export(
            weight_set,
            folder,
            "torchscript" if form == "torchscript" else "onnx",
            device=device,
            precision=precision or ("fp16" if form == "tensorrt" else "fp32"),
            detector=detector,
            detector_file=detector_weights,
            detector_size=detector_size,
            flip_test=flip_test,
            engine_builder=form == "tensorrt",
            report=report,
        )
    click.echo(f"{folder} is a weight set: mppe run --weights {folder} …")
    if form == "tensorrt":
        builder = folder / deployment.ENGINE_BUILDER
        click.echo(f"where the GPU is: python3 {builder}")
