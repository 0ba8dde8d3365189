"""DetectNet: images in, boxes of people out (paper, section 4).

To add a detector, write a class that is a :class:`Detector` (for a network: a
:class:`NetworkDetector`) and give it a row in :data:`DETECTORS`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints import CheckpointError, read_state_dict
from ..inference import prepare
from ..runtimes import FileRunner, Runner
from .base import (
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
    Detector,
    FixedBoxes,
    Kind,
    NetworkDetector,
)
from .center import CenterDetector, CenterPersons, decode_centers

__all__ = [
    "DETECTORS",
    "MAX_DETECTIONS",
    "SCORE_THRESHOLD",
    "CenterDetector",
    "CenterPersons",
    "Detector",
    "DetectorSpec",
    "FixedBoxes",
    "NetworkDetector",
    "assemble_detector",
    "build_detector",
    "decode_centers",
    "fetch",
    "load_weights",
]


@dataclass(frozen=True)
class DetectorSpec:
    """A row of :data:`DETECTORS`; a ``resizable`` one's network takes ``min_size``."""

    name: str
    summary: str
    licence: str
    kind: Callable[[], Kind]  # called when the row is used
    resizable: bool = False

    @property
    def network(self) -> Callable[..., nn.Module]:
        """As `Kind`, and so are the following."""
        return self.kind().network

    @property
    def detector(self) -> Callable[[nn.Module, torch.dtype, Runner | None], NetworkDetector]:
        return self.kind().detector

    @property
    def weights(self) -> Any:
        return self.kind().weights


def _center(file: str) -> Callable[[], Kind]:
    path = Path(__file__).parents[1] / "resources" / file
    return lambda: Kind(CenterDetector, CenterPersons, path)


def _coco(name: str) -> Callable[[], Kind]:
    def kind() -> Kind:
        from .coco import KINDS

        return KINDS[name]

    return kind


_COCO_LICENCE = "BSD-3-Clause (torchvision); trained on COCO, whose photographs have own terms"

DETECTORS: dict[str, DetectorSpec] = {
    spec.name: spec
    for spec in (
        DetectorSpec(
            name="open_s",
            summary="small centre detector for CPUs, trained on generated people; in the package",
            licence="Apache-2.0; trained on free parts alone",
            kind=_center("open-s/detector.safetensors"),
        ),
        DetectorSpec(
            name="open_v0",
            summary="small centre detector for CPUs, trained on generated people; in the package",
            licence="trained by us; motion clips of unestablished licence: not for products",
            kind=_center("open-v0/detect.safetensors"),
        ),
        DetectorSpec(
            name="maskrcnn_r50_fpn",
            summary="the paper's Mask R-CNN, ResNet-50-FPN, boxes only",
            licence=_COCO_LICENCE,
            kind=_coco("maskrcnn_r50_fpn"),
            resizable=True,
        ),
        DetectorSpec(
            name="maskrcnn_x101_32x8d_fpn",
            summary="the paper's best Mask R-CNN, ResNeXt-101-32x8d-FPN, boxes only",
            licence="that of your file",
            kind=_coco("maskrcnn_x101_32x8d_fpn"),
            resizable=True,
        ),
        DetectorSpec(
            name="fasterrcnn_mobilenet_v3_large_fpn",
            summary="Faster R-CNN, MobileNetV3-Large-FPN",
            licence=_COCO_LICENCE,
            kind=_coco("fasterrcnn_mobilenet_v3_large_fpn"),
            resizable=True,
        ),
        DetectorSpec(
            name="fasterrcnn_mobilenet_v3_large_320_fpn",
            summary="the same for images scaled to 320 px: several times faster",
            licence=_COCO_LICENCE,
            kind=_coco("fasterrcnn_mobilenet_v3_large_320_fpn"),
            resizable=True,
        ),
        DetectorSpec(
            name="ssdlite320_mobilenet_v3_large",
            summary="SSDLite, MobileNetV3-Large, images squeezed to 320x320 px: the fastest",
            licence=_COCO_LICENCE,
            kind=_coco("ssdlite320_mobilenet_v3_large"),
        ),
    )
}


def build_detector(
    name: str,
    weights_file: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    run: Runner | None = None,
    min_size: int | None = None,
) -> Detector:
    """A detector of :data:`DETECTORS`, loaded and ready.

    :param weights_file: safetensors or torch checkpoint; without it the row's own weights, which
        for torchvision's detectors are downloaded once into torch's cache.
    :param run: has the network run by something else than torch.
    :param min_size: scale the image's shorter side to this many px instead of the detector's
        default; smaller is faster and misses small people.
    :raises ValueError: unknown detector, or a ``min_size`` for one with a fixed input size.
    :raises CheckpointError: weights that are missing, broken, another network's, or that cannot
        be downloaded; the message says what to do.
    """
    spec = _row(name, min_size)
    network = _untrained(spec, min_size)
    load_weights(network, spec, weights_file)
    return spec.detector(prepare(network, device), precision, run)


def assemble_detector(name: str, run: FileRunner, min_size: int | None = None) -> Detector:
    """A detector of :data:`DETECTORS` whose networks are all in files.

    :raises ValueError: as :func:`build_detector`.
    """
    spec = _row(name, min_size)
    network = _untrained(spec, min_size).eval().to(run.device)
    return spec.detector(network, torch.float32, run)


def _row(name: str, min_size: int | None) -> DetectorSpec:
    if name not in DETECTORS:
        raise ValueError(f"no detector is called {name!r}; there are: {', '.join(DETECTORS)}")
    spec = DETECTORS[name]
    if min_size is not None and not spec.resizable:
        raise ValueError(f"detector {name} has a fixed input size: leave min_size out")
    return spec


def _untrained(spec: DetectorSpec, min_size: int | None) -> nn.Module:
    return spec.network() if min_size is None else spec.network(min_size=min_size)


def load_weights(network: nn.Module, spec: DetectorSpec, weights_file: Path | None = None) -> None:
    """Give a row's network its parameters: those of a file, or the row's own.

    :raises CheckpointError: as :func:`build_detector`.
    """
    source = spec.weights if weights_file is None else Path(weights_file)
    parameters = _read_parameters(spec, source)
    complaint = f"{getattr(source, 'url', source)} does not fit detector {spec.name}"
    _load(network, parameters, complaint)


def _read_parameters(spec: DetectorSpec, source: Any) -> dict[str, torch.Tensor]:
    if source is None:
        raise CheckpointError(
            f"detector {spec.name} has no published weights in torchvision's format: give a file "
            "of your own, or use detector open_s, which needs no download"
        )
    parameters = read_state_dict(source) if isinstance(source, Path) else _download(spec)
    return {k: v for k, v in parameters.items() if not k.startswith("roi_heads.mask_")}


def fetch(name: str) -> None:
    """Download the weights of one of torchvision's detectors, if they are not here yet.

    :raises CheckpointError: as :func:`build_detector`.
    """
    if hasattr(DETECTORS[name].weights, "url"):
        _download(DETECTORS[name])


def _download(spec: DetectorSpec) -> dict[str, torch.Tensor]:
    try:
        # torch says aloud what it downloads and where to; standard output is for results.
        with redirect_stdout(sys.stderr):
            return spec.weights.get_state_dict(
                progress=True, check_hash=True, weights_only=True, map_location="cpu"
            )
    except (OSError, RuntimeError, EOFError, HTTPException, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"the weights of detector {spec.name} could not be downloaded ({error}): place "
            f"{spec.weights.url} by hand in {torch.hub.get_dir()}/checkpoints, or use detector "
            "open_s, which needs no download"
        ) from error


def _load(network: nn.Module, parameters: dict[str, torch.Tensor], complaint: str) -> None:
    """As checkpoints.load_into, but torchvision may rename what its older files call otherwise."""
    try:
        missing, unexpected = network.load_state_dict(parameters, strict=False)
    except RuntimeError as error:  # shapes: one per line, after a headline
        raise CheckpointError(_first(complaint, str(error).split("\n")[1:])) from error
    problems = [f"{key} is missing" for key in missing]
    problems += [f"{key} is not in the network" for key in unexpected]
    problems = [problem for problem in problems if "num_batches_tracked" not in problem]
    if problems:
        raise CheckpointError(_first(complaint, problems))


def _first(complaint: str, problems: Iterable[str]) -> str:
    lines = [problem.strip().rstrip(".") for problem in problems]
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return f"{complaint}: {'; '.join(lines[:3])}{more}"
