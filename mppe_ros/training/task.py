"""What a task is: a network with its data, losses and figures, apart from the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from .. import crops
from ..networks import DEPTH_RANGE_MM
from ..skeletons import LIMB_JOINTS, SKELETONS
from . import losses
from .config import Config, CropConfig
from .data import Batch, Source

Terms = dict[str, torch.Tensor]
ConfigT = TypeVar("ConfigT", bound=Config)


class Task(ABC, Generic[ConfigT]):
    """One network's training, apart from the loop."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def network(self) -> nn.Module:
        """The core's network, with random parameters."""

    @abstractmethod
    def source(self, folder: Path) -> Source:
        """Open a folder of the data that this task needs."""

    def validation_source(self, folder: Path) -> Source | None:
        """Open a folder of data to look at on the way; None: there is nothing to look at."""
        return self.source(folder)

    @abstractmethod
    def trainable(self) -> nn.Module:
        """The network made ready to learn, with random parameters."""

    @abstractmethod
    def pretrain(self, network: nn.Module) -> None:
        """Give a new network what it begins with, where that isn't random."""

    def metadata(self) -> dict[str, str]:
        """What the core must know of an exported file."""
        return {}

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        """Scalars whose sum is the loss."""

    @abstractmethod
    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        """For validation: one value per sample (or person), whose mean is the figure."""


def root_figures(
    root: torch.Tensor, gamma: torch.Tensor, batch: Batch, pelvis: int, config: CropConfig
) -> Terms:
    """Of a pelvis (N, 2) in 0..1 of the crop, and of γ (N,)."""
    true_mm = batch["camera_mm"][:, pelvis]
    depth_mm = true_mm[:, 2] * gamma / batch["gamma"]
    found_mm = back_project(root[:, None], depth_mm[:, None], batch, config.crop_size)
    return {
        "gamma_error": losses.relative_error(gamma, batch["gamma"]),
        "root_error_mm": (found_mm[:, 0] - true_mm).norm(dim=-1),
    }


def pose_figures(joints: torch.Tensor, batch: Batch, config: CropConfig) -> Terms:
    """Of joints (N, J, 3) in 0..1 of the crop and of the depth range, with true roots.

    As in protocol 2 of Human3.6M.
    """
    skeleton = SKELETONS[config.skeleton]
    true_mm = batch["camera_mm"]
    relative_mm = (joints[..., 2] * 2 - 1) * DEPTH_RANGE_MM
    depth_mm = true_mm[:, skeleton.root_index, 2:] + relative_mm
    found_mm = back_project(joints[..., :2], depth_mm, batch, config.crop_size)
    root = slice(skeleton.root_index, skeleton.root_index + 1)
    error = (found_mm - found_mm[:, root]) - (true_mm - true_mm[:, root])
    distance = error.norm(dim=-1)
    return {
        "mpjpe_mm": distance.nanmean(1),  # NaN: joints that the data set doesn't have
        "mpjpe12_mm": distance[:, skeleton.indices(LIMB_JOINTS)].nanmean(1),
        "z_error_mm": error[..., 2].abs().nanmean(1),
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
