"""A weight set's networks as files for other runtimes, checked against torch: ``mppe export``."""

from __future__ import annotations

import copy
import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import nn

from . import runtimes, weights
from .checkpoints import CheckpointError, first_line, sha256
from .detectors import DETECTORS, build_detector
from .devices import DeviceError, select_device
from .inference import lower_precision, prepare
from .networks import GreyRootPose, compiled
from .runtimes import Argument


class ExportError(RuntimeError):
    """Networks that can't be exported, or whose files don't do what they do."""


class Form(NamedTuple):
    """What a network can be written as."""

    suffix: str
    write: Callable[[nn.Module, Sequence[Argument], Sequence[str], Path], None]
    backend: str  # of `runtimes.OPENERS`, to check the file with


def _write_onnx(
    network: nn.Module, arguments: Sequence[Argument], results: Sequence[str], path: Path
) -> None:
    # A graph of sides that are multiples of 32 is much simpler than one of any sides.
    ranges: tuple[Any, ...] = tuple(
        {
            i: torch.export.Dim.DYNAMIC
            if length.step == 1
            else length.step * torch.export.Dim(f"{argument.name}_{i}", min=1)
            for i, length in argument.variable.items()
        }
        for argument in arguments
    )
    parameters = inspect.signature(network.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        ranges = (ranges,)
    program = torch.onnx.export(
        network,
        tuple(argument.example for argument in arguments),
        dynamo=True,
        dynamic_shapes=ranges,
        input_names=[argument.name for argument in arguments],
        output_names=list(results),
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    graph: Any = program.model.graph
    for node in graph.all_nodes():
        node.metadata_props.clear()  # where in whose folders each step was written
    program.save(path, external_data=False)


def _write_torchscript(
    network: nn.Module, arguments: Sequence[Argument], _: Sequence[str], path: Path
) -> None:
    traced = runtimes.trace(network, [argument.example for argument in arguments])
    torch.jit.save(traced, path)


FORMS = {
    "onnx": Form(".onnx", _write_onnx, "onnxruntime"),
    "torchscript": Form(".pt", _write_torchscript, "torch"),
}

# As a share of a result's largest value: 0.1 px of a crop, 0.05 % of a depth; 6 px in fp16, which
# noise, of which networks are never sure, shows at its worst (on a GPU 1.5e-2; people 0.5 px).
_TOLERANCES = {"fp32": 5e-4, "fp16": 3e-2}


def export(
    weight_set: str,
    folder: Path,
    form: str,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    detector: str = "",
    detector_file: Path | None = None,
    detector_size: int | None = None,
    flip_test: bool = False,
    engine_builder: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Write a set's networks, and what else is needed to use them as a set, into a new folder.

    Each file is run as soon as it is written, and must do what the network does.

    :param weight_set: as of `weights.find`.
    :param form: a row of `FORMS`.
    :param device: where TorchScript's networks will run.
    :param precision: fp32 or fp16: what convolutions and matrix products compute in.
    :param detector: a row of `DETECTORS` instead of the set's own; its file and size as of
        `build_detector`.
    :param flip_test: write a network that averages with the mirrored crop, too.
    :param engine_builder: add a program that builds TensorRT's engines.
    :param report: gets a line for each network.
    :raises ExportError: a network that can't be written so; a folder that isn't empty.
    :raises CheckpointError: as `weights.find`, or a set that is an export itself.
    :raises DeviceError: a device or package that is not there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already: give another folder, or remove it")
    chosen = weights.find(weight_set)
    if chosen.exported:
        raise CheckpointError(f"{weight_set} is exported already: give what it was made of")
    row = detector or chosen.detector
    if detector_size and not DETECTORS[row].resizable:
        raise ExportError(f"detector {row} has a fixed input size: leave detector_size out")
    if form == "onnx":
        _need("onnx", "onnxscript", "onnxruntime")
    digest, paths = weights.verify(chosen), weights.locate(chosen)
    place = select_device(device)
    if detector_file is None and row == chosen.detector:
        detector_file = paths.get("detector")

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)
    except OSError as error:
        raise ExportError(f"{folder} can't be made: {error.strerror}") from error
    with temporary:
        part = Path(temporary.name, folder.name)
        part.mkdir()
        writer = _Writer(part, FORMS[form], place, precision, report)
        network = GreyRootPose(prepare(chosen.build(paths), place), chosen.crop)
        for flip in (False, True) if flip_test else (False,):
            compiled(network, chosen.crop.size, writer, flip)
        build_detector(row, detector_file, device=place, run=writer, min_size=detector_size)
        description = {
            "version": weights.EXPORT_VERSION,
            "name": chosen.name,
            "made_of": f"{chosen.name} ({digest})",
            "licence": chosen.licence,
            "form": form,
            "precision": precision,
            "device": place.type,
            "joints": network.skeleton.name,
            "crop": asdict(chosen.crop),
            "root_error": asdict(chosen.root_error),
            "sharpness": chosen.sharpness,
            "detector": row,
            "detector_size": detector_size,
            "networks": writer.written,
            weights.SURFACE: _copied(paths.get(weights.SURFACE), part),
        }
        text = json.dumps(description, indent=1)
        (part / weights.DESCRIPTION).write_text(text, encoding="utf-8")
        (part / "README.md").write_text(_readme(description, chosen), encoding="utf-8")
        if engine_builder:
            shutil.copy(weights.RESOURCES / ENGINE_BUILDER, part)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)


def _copied(path: Path | None, folder: Path) -> dict[str, str] | None:
    """A file that torch reads, whatever runs the networks; None of none."""
    if path is None:
        return None
    shutil.copyfile(path, folder / path.name)
    return {"file": path.name, "sha256": sha256(path)}


ENGINE_BUILDER = "build_engines.py"


def _need(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise DeviceError(
            f"exporting as ONNX needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )


@dataclass
class _Writer:
    """A Runner that writes networks, and has the files run from then on."""

    folder: Path
    form: Form
    device: torch.device
    precision: str
    report: Callable[[str], None]
    written: dict[str, Any] = field(default_factory=dict)  # as the description has them

    def __call__(
        self, name: str, network: nn.Module, arguments: Sequence[Argument], results: Sequence[str]
    ) -> nn.Module:
        path = self.folder / (name + self.form.suffix)
        chosen = _Half(network) if self.precision == "fp16" else network
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is deprecated in torch itself
                self.form.write(chosen.eval(), arguments, results, path)
        except Exception as error:  # exporters raise anything, around what was wrong
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise ExportError(
                f"{name} can't be written as {path.suffix[1:]}: {type(cause).__name__}: "
                f"{first_line(cause)}"
            ) from error
        loaded = runtimes.OPENERS[self.form.backend](path, self.device)
        difference = max(_differences(network, loaded, arguments))
        if not difference <= _TOLERANCES[self.precision]:  # NaN, too
            raise ExportError(
                f"{path.name} doesn't do what its network does: its results differ by "
                f"{difference:.1e} of their largest value"
            )
        megabytes = path.stat().st_size / 1e6
        self.report(
            f"{path.name}  {megabytes:.1f} MB, differs by {difference:.0e} of its largest results"
        )
        self.written[name] = {
            "file": path.name,
            "sha256": sha256(path),
            "arguments": [_describe(argument) for argument in arguments],
            "results": list(results),
        }
        return loaded


def _describe(argument: Argument) -> dict[str, Any]:
    shape = runtimes.shape_of(argument)
    lengths = [
        argument.variable.get(i, runtimes.Range(n, n, n))
        for i, n in enumerate(argument.example.shape)
    ]
    return {
        "name": argument.name,
        "type": str(argument.example.dtype).removeprefix("torch."),
        "shape": shape,
        "least": [length.least for length in lengths],
        "usual": [length.usual for length in lengths],
        "most": [length.most for length in lengths],
    }


@torch.no_grad()
def _differences(
    network: nn.Module, loaded: nn.Module, arguments: Sequence[Argument]
) -> Iterator[float]:
    """Of each result, for arguments of several sizes, as a share of its largest value."""
    generator = torch.Generator().manual_seed(0)
    for seen in _samples(arguments, generator):
        expected = network(*seen)
        if isinstance(expected, torch.Tensor):
            expected = (expected,)
        for wanted, found in zip(expected, loaded(*seen), strict=True):
            if wanted.shape != found.shape:
                raise ExportError(
                    f"a result has shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
                )
            largest = wanted.abs().max().clamp(min=1e-6)
            yield float((wanted - found.to(wanted.device)).abs().max() / largest)


def _samples(
    arguments: Sequence[Argument], generator: torch.Generator
) -> Iterator[list[torch.Tensor]]:
    """Noise of other sizes than the examples'; one item, too, and twice as large."""
    for items, factor in ((3, 1), (1, 2)):
        seen = []
        for argument in arguments:
            shape = [
                n if i not in argument.variable else items if i == 0 else factor * n
                for i, n in enumerate(argument.example.shape)
            ]
            example = argument.example
            if example.dtype == torch.uint8:
                noise = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            else:
                noise = torch.randn(shape, generator=generator)
            seen.append(noise.to(example.device))
        yield seen


class _Half(nn.Module):
    """A network whose convolutions and matrix products compute in fp16; results are float32.

    Without autocast, which not every graph can hold.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = lower_precision(copy.deepcopy(network), torch.float16)
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                layer.register_forward_pre_hook(_to_half)

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = self.network(*arguments)
        if isinstance(results, torch.Tensor):
            results = (results,)
        return tuple(result.float() for result in results)


def _to_half(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(argument.half() for argument in arguments)


_MEANINGS = f"""
Of `root_pose`:

* `pixels`: N crops of people, RGB.
* `root_px`: the pelvis, crop px.
* `gamma`: γ; the pelvis' depth is γ · sqrt(fx · fy) · 2000 mm / side of the square crop, image px.
* `joints_px`, `joints_z_mm`: the joints, crop px, and how far they are behind the pelvis.
* `joint_scores`: how sure the network is of each, 0..1.

`surface.safetensors`, if there, is what torch mends roots by where there is a depth image.

`{weights.DESCRIPTION}` tells the joint set and all else that the pipeline needs.
"""


def _readme(description: dict[str, Any], chosen: weights.WeightSet) -> str:
    lines = [
        f"# {description['made_of']}, exported as {description['form']}, "
        f"{description['precision']}\n",
        f"Licence: {description['licence']}. Detector {description['detector']}: "
        f"{DETECTORS[description['detector']].licence}.\n",
        "Use this folder wherever mppe_ros wants `weights`: `mppe run --weights FOLDER`, or the "
        "node's parameter.\n",
        "| network | takes | gives |",
        "|---|---|---|",
    ]
    for network in description["networks"].values():
        takes = (
            f"{argument['name']} {argument['type']} ({_dimensions(argument['shape'])})"
            for argument in network["arguments"]
        )
        lines.append(
            f"| `{network['file']}` | {'; '.join(takes)} | {', '.join(network['results'])} |"
        )
    return "\n".join(lines) + "\n" + _MEANINGS + "\n" + weights.model_card(chosen)


def _dimensions(shape: Sequence[int]) -> str:
    return ", ".join("any" if length < 0 else str(length) for length in shape)
