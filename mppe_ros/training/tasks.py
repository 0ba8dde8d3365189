"""What is trained: RootNet, PoseNet and DetectNet, each with its data, losses and figures.

To add one, write a :class:`Task`, a configuration in ``config.py`` and a row of :data:`TASKS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torchvision import ops

from .. import crops
from ..detectors import CenterDetector, decode_centers
from ..networks import DEPTH_RANGE_MM, LitePoseNet, LiteRootNet, shrink
from ..skeletons import LIMB_JOINTS, SKELETONS
from . import losses
from .config import Config, DetectorConfig, PoseConfig, RootConfig
from .data import Batch, CropSource, SceneSource, Source
from .preparation import add_batch_norm, normalise, prepare_trunk, trunk_of, zero_last

Terms = dict[str, torch.Tensor]
ConfigT = TypeVar("ConfigT", bound=Config)


class Task(ABC, Generic[ConfigT]):
    """One network's training, apart from the loop."""

    outputs: tuple[str, ...]  # layers without batch normalisation

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def network(self) -> nn.Module:
        """The core's network, with random parameters; its trunk is called ``trunk``."""

    @abstractmethod
    def source(self, folder: Path) -> Source:
        """Open a folder of the data that this task needs."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        """Scalars whose sum is the loss."""

    @abstractmethod
    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        """For validation: one value per sample (or person), whose mean is the figure."""

    def trainable(self) -> nn.Module:
        """The network made ready to learn."""
        network = self.network()
        for name in self.outputs:
            layer = network.get_submodule(name)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            zero_last(layer)
        add_batch_norm(network, self.outputs)
        prepare_trunk(trunk_of(network), self.config.optimisation.frozen_blocks)
        return network.to(memory_format=torch.channels_last)


class RootTask(Task[RootConfig]):
    """RootNet: the pelvis in the crop, and γ (paper, section 5)."""

    outputs = ("heatmap", "log_gamma")

    def network(self) -> nn.Module:
        return LiteRootNet(self.config.channels, self.config.gamma_channels)

    def source(self, folder: Path) -> Source:
        config = self.config
        return CropSource(folder, config.crop_size, config.augmentation, config.skeleton)

    @property
    def _pelvis(self) -> int:
        return SKELETONS[self.config.skeleton].root_index

    def _predict(self, network: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        # Shrunk as LiteRootPose does it, from crops of the size that PoseNet gets.
        root, gamma = network(normalise(shrink(batch["image"], self.config.image_size)))
        return root, gamma

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        root, gamma = self._predict(network, batch)
        true, inside = batch["joints"][:, self._pelvis, :2], batch["inside"][:, self._pelvis]
        return {
            "root_xy": losses.masked_l1(root, true, inside),
            "gamma": self.config.gamma_weight
            * losses.relative_error(gamma, batch["gamma"]).mean(),
        }

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        root, gamma = self._predict(network, batch)
        true_mm = batch["camera_mm"][:, self._pelvis]
        depth_mm = true_mm[:, 2] * gamma / batch["gamma"]
        found_mm = back_project(root[:, None], depth_mm[:, None], batch, self.config.crop_size)
        return {
            "gamma_error": losses.relative_error(gamma, batch["gamma"]),
            "root_error_mm": (found_mm[:, 0] - true_mm).norm(dim=-1),
        }


class PoseTask(Task[PoseConfig]):
    """PoseNet: root-relative joints by integral regression (paper, section 6)."""

    outputs = ("volume",)

    def network(self) -> nn.Module:
        return LitePoseNet(SKELETONS[self.config.skeleton], self.config.channels)

    def source(self, folder: Path) -> Source:
        config = self.config
        return CropSource(folder, config.crop_size, config.augmentation, config.skeleton)

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        joints, _ = network(normalise(batch["image"]))
        true, hidden = batch["joints"], self.config.hidden_weight
        weight = hidden + (1 - hidden) * batch["visible"]
        return {
            "xy": losses.masked_l1(joints[..., :2], true[..., :2], weight * batch["inside"]),
            "z": self.config.z_weight
            * losses.masked_l1(joints[..., 2:], true[..., 2:], weight * batch["deep"]),
        }

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        """With true roots, as in protocol 2 of Human3.6M."""
        skeleton = SKELETONS[self.config.skeleton]
        joints, _ = network(normalise(batch["image"]))
        true_mm = batch["camera_mm"]
        relative_mm = (joints[..., 2] * 2 - 1) * DEPTH_RANGE_MM
        depth_mm = true_mm[:, skeleton.root_index, 2:] + relative_mm
        found_mm = back_project(joints[..., :2], depth_mm, batch, self.config.crop_size)
        root = slice(skeleton.root_index, skeleton.root_index + 1)
        error = (found_mm - found_mm[:, root]) - (true_mm - true_mm[:, root])
        distance = error.norm(dim=-1)
        return {
            "mpjpe_mm": distance.mean(1),
            "mpjpe12_mm": distance[:, skeleton.indices(LIMB_JOINTS)].mean(1),
            "z_error_mm": error[..., 2].abs().mean(1),
        }


def back_project(
    unit: torch.Tensor, depth_mm: torch.Tensor, batch: Batch, size: int
) -> torch.Tensor:
    """Points of crops that were not augmented, in the camera frame.

    :param unit: (N, K, 2) in 0..1 of the crop; ``depth_mm``: (N, K).
    :return: (N, K, 3) mm.
    """
    pixels = crops.to_image(unit * size - 0.5, batch["box_px"], size)
    lens = batch["intrinsics"][:, None]
    rays = (pixels - lens[..., 2:]) / lens[..., :2]
    return torch.cat([rays * depth_mm[..., None], depth_mm[..., None]], -1)


class DetectorTask(Task[DetectorConfig]):
    """DetectNet: centres and boxes of people in scenes."""

    outputs = ("head",)
    SCORE, IOU = 0.35, 0.5  # of the figures

    def network(self) -> nn.Module:
        return CenterDetector(self.config.channels)

    def trainable(self) -> nn.Module:
        network = super().trainable()
        # At the start one cell in thirty is a person, of 16 e^0.8 = 36 network px to each side.
        head = network.get_submodule("head")
        assert isinstance(head, nn.Conv2d) and head.bias is not None
        with torch.no_grad():
            head.bias.copy_(torch.tensor([-3.5, 0.8, 0.8, 0.8, 0.8]))
        return network

    def source(self, folder: Path) -> Source:
        config = self.config
        return SceneSource(
            folder, config.sizes, config.part, config.min_box_px, config.augmentation
        )

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        heatmap, distances = network(normalise(batch["image"]))
        targets = losses.centre_targets(batch["boxes"], batch["kind"], *heatmap.shape[1:])
        return {
            "centre": losses.centre_focal_loss(heatmap, targets),
            "box": self.config.box_weight * losses.box_loss(distances, targets),
        }

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        """Recall and precision at a score of 0.35; ``mppe eval`` measures whole curves."""
        found, scores = decode_centers(*network(normalise(batch["image"])))
        recalled, right = [], []
        for boxes, score, true, kind in zip(
            found, scores, batch["boxes"], batch["kind"], strict=True
        ):
            likely = score > self.SCORE
            boxes = boxes[likely][ops.nms(boxes[likely], score[likely], 0.55)]
            matched, correct = _match(boxes, true[kind == 1], true[kind == 2], self.IOU)
            recalled.append(matched)
            right.append(correct)
        return {"recall": torch.cat(recalled).float(), "precision": torch.cat(right).float()}


def _match(
    found: torch.Tensor, true: torch.Tensor, ignored: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedily, best detection first: which people were found, which detections are right.

    Detections of nobody that lie half in an ignored box are left out.
    """
    matched = torch.zeros(len(true), dtype=torch.bool, device=true.device)
    right = []
    overlaps = ops.box_iou(found, true)
    for box, overlap in zip(found, overlaps, strict=True):
        free = torch.where(matched, torch.zeros_like(overlap), overlap)
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= threshold:
            matched[best] = True
            right.append(True)
        elif not _covered(box, ignored):
            right.append(False)
    return matched, torch.tensor(right, dtype=torch.bool, device=true.device)


def _covered(box: torch.Tensor, by: torch.Tensor) -> bool:
    low, high = torch.maximum(box[:2], by[:, :2]), torch.minimum(box[2:], by[:, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    return bool((inside > 0.5 * (box[2:] - box[:2]).prod()).any())


def task_for(config: Config) -> Task[Config]:
    """The task that a configuration belongs to."""
    return TASKS[config.task](config)


TASKS: dict[str, type[Task[Any]]] = {
    "root": RootTask,
    "pose": PoseTask,
    "detector": DetectorTask,
}
