"""People of data sets as training batches for the paper's RootNet and PoseNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..camera import k_value_mm
from ..crops import process_boxes
from ..datasets import DATASETS, Dataset, open_dataset
from ..datasets.files import read_picture
from ..datasets.muco import ROOT_DEPTH_MM
from ..networks import DEPTH_RANGE_MM
from ..skeletons import SKELETONS
from . import augmentation
from .augmentation import Image, Move
from .config import Augmentation, ReferenceConfig
from .data import Batch, MixedOrder, Order, SampleOrder, Source

# Below the folder of the data, as the reference release has them.
FOLDERS = {name: kind.folder_name for name, kind in DATASETS.items()}


class PeopleSource(Source):
    """Crops of one data set's people, cut from its images.

    A batch is that of :class:`~mppe_ros.training.data.CropSource`, with two more:
    ``k_mm`` (N,), the k-value of the crop as it is shown; ``has_depth`` (N,), 0 where ``gamma``
    and the joints' z mean nothing. What is not known is NaN in ``camera_mm``, and neither
    ``inside`` nor ``visible``; the latter is the data set's word.
    """

    def __init__(self, dataset: Dataset, size: int, options: Augmentation) -> None:
        self.dataset, self.size, self.options = dataset, size, options
        self._boxes = _processed(dataset)
        lenses = [(lens.fx, lens.fy, lens.cx, lens.cy) for lens in dataset.cameras]
        self._lenses = torch.tensor(lenses, dtype=torch.float32)
        self._k_mm = k_value_mm(self._lenses[:, 0], self._lenses[:, 1], self._boxes)

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        moves = [augmentation.draw_move(self.size, self.size, self.options, rng) for _ in indices]
        cut = [self._cut(int(index), move) for index, move in zip(indices, moves, strict=True)]
        pixels = torch.from_numpy(np.stack([image for image, _ in cut]))
        pixels = pixels.permute(0, 3, 1, 2).float()
        if rng is not None:
            pixels = augmentation.vary_light(pixels, self.options, rng)
        joints, known, visible = self._joints(indices, moves, [matrix for _, matrix in cut])
        inside = (joints > 0) & (joints < 1)
        zoom = torch.tensor([move.zoom for move in moves])
        rows = torch.from_numpy(indices)
        k_mm = self._k_mm[rows] / zoom
        roots_mm = torch.from_numpy(self.dataset.roots_mm[indices]).nan_to_num()
        return {
            "image": pixels,
            "joints": joints,
            "inside": (inside[..., :2].all(-1) & known).float(),
            "deep": inside[..., 2].float(),
            "visible": (visible & known).float(),
            "has_depth": torch.full((len(indices),), float(self.dataset.has_depth)),
            "k_mm": k_mm,
            "gamma": roots_mm[:, 2] / k_mm,
            "camera_mm": torch.from_numpy(self.dataset.joints_mm[indices]),
            "box_px": self._boxes[rows],
            "intrinsics": self._lenses[rows],
        }

    def _cut(self, index: int, move: Move) -> tuple[Image, NDArray[np.float64]]:
        """A crop, and the affine map (2, 3) from the image's px to its."""
        left, top, side, _ = self._boxes[index].tolist()
        scale = self.size / side  # of the map of mppe_ros.crops
        to_crop = np.array([[scale, 0, -left * scale], [0, scale, -top * scale], [0, 0, 1]])
        matrix = move.matrix @ to_crop
        picture = read_picture(self.dataset.image_path(index))
        cut = cv2.warpAffine(picture, matrix, (self.size, self.size), flags=cv2.INTER_LINEAR)
        return np.asarray(cut, np.uint8), matrix

    def _joints(
        self,
        indices: NDArray[np.int64],
        moves: Sequence[Move],
        matrices: Sequence[NDArray[np.float64]],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, J, 3) in 0..1, where unknown 0; which are known, and which visible, (N, J)."""
        columns = self.dataset.joints_px, self.dataset.known, self.dataset.visible
        joints_px, known, visible = (torch.from_numpy(column[indices]) for column in columns)
        maps = torch.from_numpy(np.stack(matrices)).float()
        joints_px = joints_px @ maps[:, :, :2].mT + maps[:, None, :, 2]
        depth_mm = (
            self.dataset.joints_mm[indices][..., 2] - self.dataset.roots_mm[indices, None, 2]
        )
        z = torch.from_numpy(depth_mm).nan_to_num() / DEPTH_RANGE_MM / 2 + 0.5
        joints = torch.cat([(joints_px.nan_to_num(-1) + 0.5) / self.size, z[..., None]], -1)
        order = self.dataset.skeleton.mirrored
        for row, move in enumerate(moves):
            if move.mirrored:
                joints[row] = joints[row, order]
                known[row], visible[row] = known[row, order], visible[row, order]
        return joints, known, visible


def _processed(dataset: Dataset) -> torch.Tensor:
    """(N, 4) boxes as the networks see them."""
    boxes = dataset.boxes_xywh_px.copy()
    sizes = np.array([(lens.width, lens.height) for lens in dataset.cameras])
    for width, height in np.unique(sizes, axis=0).tolist():
        rows = (sizes == (width, height)).all(1)
        boxes[rows] = process_boxes(boxes[rows], width, height)[0]
    return torch.from_numpy(boxes)


class ChainedSource(Source):
    """Sources one after the other: a larger data set is seen more often."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        which = np.searchsorted(self._ends, indices, side="right")
        starts = self._ends - [len(source) for source in self.sources]
        return _gathered(self.sources, which, indices - starts[which], rng)


class MixedSource(Source):
    """Equal shares of each batch from each source: sample i of source k is number i · sources + k.

    It is as long as the longest source makes it, so that an epoch has all of that one; the others
    come again meanwhile.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources) * max(len(source) for source in self.sources)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        which = indices % len(self.sources)
        lengths = np.array([len(source) for source in self.sources])
        return _gathered(self.sources, which, indices // len(self.sources) % lengths[which], rng)

    def order(self, seed: int) -> Order:
        return MixedOrder(
            [
                SampleOrder(seed, source.refresh, stream=100 + k)
                for k, source in enumerate(self.sources)
            ]
        )


def _gathered(
    sources: Sequence[Source],
    which: NDArray[np.int64],
    rows: NDArray[np.int64],
    rng: np.random.Generator | None,
) -> Batch:
    """One batch from samples of several sources, source by source."""
    used = [k for k in range(len(sources)) if (which == k).any()]
    parts = [sources[k].batch(rows[which == k], rng) for k in used]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def training_source(config: ReferenceConfig, folder: Path, *, roots: bool) -> Source:
    """Half 3D, half 2D (paper, section 7.1), as the configuration says.

    :param roots: for networks that learn absolute depth: without people whom the reference release
        leaves out there.
    :raises DatasetError: what is missing.
    """

    def opened(names: Sequence[str]) -> Source:
        sources = [_opened(config, name, folder, "train", roots=roots) for name in names]
        return sources[0] if len(sources) == 1 else ChainedSource(sources)

    halves = [opened(names) for names in (config.sets_3d, config.sets_2d) if names]
    return halves[0] if len(halves) == 1 else MixedSource(halves)


def validation_source(config: ReferenceConfig, folder: Path) -> Source | None:
    """The data set for figures on the way, if there is to be one."""
    if not config.validation_set:
        return None
    return _opened(config, config.validation_set, folder, config.validation_split, roots=False)


def _opened(
    config: ReferenceConfig, name: str, folder: Path, split: str, *, roots: bool
) -> PeopleSource:
    options: dict[str, Any] = {}
    if name == "human36m":
        options["protocol"] = config.protocol
    if name == "muco" and roots:
        options["root_depth_mm"] = ROOT_DEPTH_MM
    dataset = open_dataset(name, folder / FOLDERS[name], split, **options)
    dataset = dataset.in_joints_of(SKELETONS[config.skeleton])
    return PeopleSource(dataset, config.crop_size, config.augmentation)
