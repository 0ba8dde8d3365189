"""Networks to measure: a set's own, or where its files aren't here, random ones of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import detection as zoo

from .. import crops, weights
from ..checkpoints import CheckpointError, read_state_dict
from ..detectors import DETECTORS
from ..networks import PoseNet, RootNet
from ..pipeline import Pipeline
from ..skeletons import MUCO_21
from .scene import Scene

REFERENCE = "3dmppe"

_GAMMA_SPREAD = 0.1  # of a random RootNet


@dataclass(frozen=True)
class Files:
    """What `Pipeline.load` needs to know."""

    weight_set: str
    detector: str
    detector_file: Path | None
    random: bool = False  # the same networks, not the set's weights

    def load(
        self, device: str, precision: str, backend: str, detector_size: int | None = None
    ) -> Pipeline:
        return Pipeline.load(
            self.weight_set,
            device=device,
            precision=precision,
            backend=backend,
            detector=self.detector,
            detector_file=self.detector_file,
            detector_size=detector_size,
        )


def find(name: str, folder: Path) -> Files:
    """A set's files; of the paper's networks random ones in ``folder``, if they aren't here.

    :raises CheckpointError: another set isn't here.
    """
    chosen = weights.find(name)
    try:
        paths = weights.locate(chosen)
    except CheckpointError:
        if name != REFERENCE:
            raise
        return _random(folder)
    if name != REFERENCE:
        return Files(name, chosen.detector, paths.get("detector"))
    return Files(name, chosen.detector, _detector_file(folder))


def _random(folder: Path) -> Files:
    paths = folder / "root.safetensors", folder / "pose.safetensors"
    if not paths[1].is_file():  # made before
        torch.manual_seed(0)
        seen = _crops()
        for path, network in zip(paths, (RootNet(), PoseNet(MUCO_21)), strict=True):
            _settle(network, seen)
            _save(network.state_dict(), path)
    return Files(f"{paths[0]},{paths[1]}", "maskrcnn_r50_fpn", _detector_file(folder), random=True)


def _crops() -> torch.Tensor:
    """What the networks will see, (4, 3, 256, 256)."""
    scene, spec = Scene.make(640, 480, people=4), weights.find(REFERENCE).crop
    camera = scene.camera
    squares, kept = crops.process_boxes(scene.boxes_xywh_px, camera.width, camera.height)
    image = torch.from_numpy(scene.rgb)
    return spec.normalise(
        crops.crop_people([image], squares, np.zeros_like(kept), spec.size).float()
    )


@torch.no_grad()
def _settle(network: nn.Module, seen: torch.Tensor) -> None:
    """Batch normalisations get statistics: without, numbers grow through the layers."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    network.train()(seen)
    if isinstance(network, RootNet):
        # Near one, as of people, who would be behind the camera else.
        weight = network.get_parameter("root.depth_layer.weight")
        nn.init.zeros_(network.get_parameter("root.depth_layer.bias"))
        _, gamma = network.eval()(seen)
        weight.mul_(_GAMMA_SPREAD / gamma.abs().max())
        nn.init.ones_(network.get_parameter("root.depth_layer.bias"))


def _detector_file(folder: Path) -> Path | None:
    """Random weights for the paper's detector; None if its own can be had."""
    own = DETECTORS["maskrcnn_r50_fpn"].weights
    if (Path(torch.hub.get_dir()) / "checkpoints" / Path(own.url).name).is_file():
        return None
    path = folder / "detector.safetensors"
    if path.is_file():
        return path
    torch.manual_seed(1)
    network = zoo.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    # Sure of people everywhere, so that there is something to draw masks of.
    network.roi_heads.box_predictor.cls_score.bias.data[1] = 4.0
    _save(network.state_dict(), path)
    return path


def _save(parameters: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in parameters.items()}, path)


def whole_mask_rcnn(files: Files, people: int) -> nn.Module:
    """torchvision's Mask R-CNN with masks, for at most so many of them."""
    network = zoo.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, box_detections_per_img=people
    )
    if files.detector_file is None:
        parameters = DETECTORS["maskrcnn_r50_fpn"].weights.get_state_dict(weights_only=True)
    else:
        parameters = read_state_dict(files.detector_file)
    network.load_state_dict(parameters)
    return network.eval().requires_grad_(False)
