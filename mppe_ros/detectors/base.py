"""What all detectors have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..runtimes import Range, Runner
from ..structures import Detections

# Low on purpose: the pipeline filters by its own threshold, which may change while it runs.
SCORE_THRESHOLD = 0.05
MAX_DETECTIONS = 100  # per image
LEAST_SIDE_PX = 1e-2  # of a box
IMAGES = Range(1, 1, 4)  # at once


class Detector(Protocol):
    """Finds people in images."""

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        """Boxes of the people in each image, best first; nobody gives boxes of shape (0, 4).

        :param images: (H, W, 3) uint8 RGB on the detector's device; sizes may differ. None at
            all is fine.
        :return: one per image. Boxes lie inside the image, whose edges are 0, W and 0, H (as
            torchvision has it: a pixel is a cell, and the first one's centre is at 0.5).
        """
        ...


class FixedBoxes:
    """Boxes known beforehand, from ground truth or another detector, wherever a Detector fits.

    They come back as they are: same order, neither clipped nor filtered.

    :param boxes_xywh_px: for each image (N, 4).
    :param scores: for each image (N,); all 1 if left out.
    :raises ValueError: boxes that are not (N, 4), or scores that do not fit them.
    """

    def __init__(
        self,
        boxes_xywh_px: Sequence[npt.ArrayLike],
        scores: Sequence[npt.ArrayLike] | None = None,
    ) -> None:
        boxes = [np.asarray(rows, np.float64).reshape(-1, 4) for rows in boxes_xywh_px]
        certain = [np.ones(len(rows)) for rows in boxes]
        given = certain if scores is None else [np.asarray(row, np.float64) for row in scores]
        if list(map(len, given)) != list(map(len, boxes)):
            raise ValueError("fixed boxes need one score per box of every image, or no scores")
        self._detections = list(map(Detections, boxes, given))

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        """
        :raises ValueError: another number of images than there are lists of boxes.
        """
        if len(images) != len(self._detections):
            raise ValueError(
                f"fixed boxes are for {len(self._detections)} images, got {len(images)}"
            )
        return self._detections


class NetworkDetector(ABC):
    """A Detector around a network, which sees images of equal size as one batch.

    Only equal sizes: padding smaller images to a common size would change what is found in them.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[tuple(image.shape)].append(index)
        found: dict[int, Detections] = {}
        for indices in groups.values():
            several = [images[index] for index in indices]
            batch = torch.stack(several) if len(several) > 1 else several[0][None]
            with torch.no_grad(), _no_autocast(batch.device.type):
                found.update(zip(indices, self.detect(batch), strict=True))
        return [found[index] for index in range(len(images))]

    @abstractmethod
    def detect(self, batch: torch.Tensor) -> list[Detections]:
        """``batch``: (B, H, W, 3) uint8 RGB."""


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """The network has its own precision: autocast around all of it would round boxes."""
    # Where there is none, entering torch's takes a tenth of a millisecond for nothing.
    autocast = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if autocast else nullcontext()


class Kind(NamedTuple):
    """What a row of the table is made of.

    ``network`` builds the untrained network; a resizable one takes ``min_size``, the px to which
    an image's shorter side is scaled. ``detector`` makes a Detector of the loaded network.
    ``weights`` are used when no file is given: a file of the package, torchvision's download (a
    ``WeightsEnum``), or None where there is only what the user has.
    """

    network: Callable[..., nn.Module]
    detector: Callable[[nn.Module, torch.dtype, Runner | None], NetworkDetector]
    weights: Any
