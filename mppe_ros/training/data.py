"""Samples as training batches: crops of generated people, pictures with boxes; their order.

Every random draw is a function of the run's seed and of the number of samples seen, so that there
is no random state to keep. Folders may grow while a run reads them: the order takes in what is
there when an epoch begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..camera import k_value_mm
from ..datasets.files import Entry, of_image, read_coco, read_each
from ..networks import DEPTH_RANGE_MM
from ..skeletons import SKELETONS, Skeleton
from ..synthetic.dataset import Manifest, part_folder, read_manifest
from . import augmentation
from .config import Augmentation

Batch = dict[str, torch.Tensor]
Boxes = NDArray[np.float32]  # (P, 5): corners, px, and kind


class DataError(ValueError):
    """A folder that training cannot read; one sentence that says why."""


class Source(ABC):
    """Samples 0 .. len - 1."""

    def refresh(self) -> int:
        """Take in what has come since it was opened; tell the new length."""
        return len(self)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        """Samples by number, varied by ``rng``, or exactly as they are without."""

    def order(self, seed: int) -> Order:
        """In which order training takes the samples."""
        return SampleOrder(seed, self.refresh)


class GeneratedSource(Source):
    """Samples in a folder of parts that appear one after the other."""

    kind: str

    def __init__(self, folder: Path, skeleton: str | None = None) -> None:
        if not (folder / "manifest.json").is_file():
            raise DataError(
                f"{folder} holds no generated data: make some by 'mppe synth {self.kind}'"
            )
        self.folder, self.manifest = folder, _manifest(folder)
        if self.manifest.kind != self.kind:
            raise DataError(f"{folder} holds {self.manifest.kind}, not {self.kind}")
        if skeleton not in (None, self.manifest.skeleton):
            raise DataError(f"{folder} has {self.manifest.skeleton} joints, not {skeleton}")
        self._parts: list[Any] = []
        if self.refresh() == 0:
            raise DataError(f"{folder} has no finished part yet: wait for the generator")

    def refresh(self) -> int:
        """Open the parts that are new, up to the first that is missing; tell the new length."""
        self.manifest = _manifest(self.folder)
        while len(self._parts) < self.manifest.parts:
            part = part_folder(self.folder, len(self._parts))
            if not part.is_dir():
                break
            self._parts.append(self.read_part(part))
        return len(self)

    def __len__(self) -> int:
        return min(len(self._parts) * self.manifest.per_part, self.manifest.count)

    def locate(self, index: int) -> tuple[Any, int]:
        """The opened part that holds a sample, and its row there."""
        part, row = divmod(index, self.manifest.per_part)
        return self._parts[part], row

    @abstractmethod
    def read_part(self, folder: Path) -> Any:
        """Open a part; images stay on disk."""


def _manifest(folder: Path) -> Manifest:
    try:
        return read_manifest(folder)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder}/manifest.json is damaged or of another version") from error


class CropSource(GeneratedSource):
    """Crops of single people, from ``mppe synth crops``.

    A batch of N crops with J joints has, positions in 0..1 of the crop and of the depth range:

    ======================  =========================================================
    image                   (N, 3, size, size) grey values 0..255, float32, channels_last
    joints                  (N, J, 3); inside, visible, deep: (N, J) of 0 and 1 (inside the crop,
                            seen directly, inside the depth range)
    gamma                   (N,) root depth / k-value
    camera_mm               (N, J, 3); box_px (N, 4), intrinsics (N, 4): of the crop before
                            augmentation
    ======================  =========================================================
    """

    kind = "crops"

    def __init__(
        self, folder: Path, size: int, options: Augmentation, skeleton: str = "muco_21"
    ) -> None:
        super().__init__(folder, skeleton)
        self.size, self.options = size, options
        self.skeleton: Skeleton = SKELETONS[skeleton]

    def read_part(self, folder: Path) -> dict[str, NDArray[Any]]:
        return {
            path.stem: np.load(path, mmap_mode="r" if path.stem == "image" else None)
            for path in sorted(folder.glob("*.npy"))
        }

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        located = [self.locate(int(index)) for index in indices]

        def stacked(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([part[name][row] for part, row in located]))

        images = [np.asarray(part["image"][row]) for part, row in located]
        moves = [
            augmentation.draw_move(self.manifest.width, self.size, self.options, rng)
            for _ in images
        ]
        # One affine map does flip, rotation, zoom, shift and the resizing to the network's crop.
        moved = np.stack(
            [
                augmentation.warp(image, move, self.size)
                for image, move in zip(images, moves, strict=True)
            ]
        )
        camera_mm, joints_px = stacked("joints_camera_mm"), stacked("joints_px")
        visible, gamma = stacked("visible").float(), self._gamma(stacked)
        matrices = torch.from_numpy(np.stack([move.matrix for move in moves])).float()
        joints_px = joints_px @ matrices[:, :, :2].mT + matrices[:, None, :, 2]
        relative = camera_mm[..., 2] - camera_mm[:, self.skeleton.root_index, 2:]
        joints = torch.cat(
            [(joints_px + 0.5) / self.size, relative[..., None] / DEPTH_RANGE_MM / 2 + 0.5], -1
        )
        mirrored = torch.tensor([move.mirrored for move in moves])
        order = self.skeleton.mirrored
        joints[mirrored] = joints[mirrored][:, order]
        visible[mirrored] = visible[mirrored][:, order]
        inside = (joints > 0) & (joints < 1)
        pixels = torch.from_numpy(moved).permute(0, 3, 1, 2).float()
        if rng is not None:
            pixels = augmentation.vary_light(pixels, self.options, rng)
        return {
            "image": pixels,
            "joints": joints,
            "inside": inside[..., :2].all(-1).float(),
            "deep": inside[..., 2].float(),
            "visible": visible,
            "gamma": gamma * torch.tensor([move.zoom for move in moves]),
            "camera_mm": camera_mm,
            "box_px": stacked("box_xywh_px"),
            "intrinsics": stacked("intrinsics"),
        }

    def _gamma(self, stacked: Callable[[str], torch.Tensor]) -> torch.Tensor:
        lens = stacked("intrinsics")
        root_mm = stacked("joints_camera_mm")[:, self.skeleton.root_index, 2]
        return root_mm / k_value_mm(lens[:, 0], lens[:, 1], stacked("box_xywh_px"))


class PictureSource(Source):
    """Whole pictures with boxes.

    A batch has ``image`` (N, 3, H, W) as above, ``boxes`` (N, P, 4) corners in network px, and
    ``kind`` (N, P): 1 person, 2 neither to be found nor wrong, 0 nothing. Batches differ in H, W.
    """

    def __init__(
        self,
        sizes: tuple[tuple[int, int], ...],
        part: tuple[float, float],
        min_box_px: int,
        options: Augmentation,
    ) -> None:
        self.sizes, self.part, self.min_box_px, self.options = sizes, part, min_box_px, options

    @abstractmethod
    def picture(self, index: int) -> tuple[Path, Boxes]:
        """Where a picture is, and (P, 5) corners and kinds of its boxes, in its px."""

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        size = self.sizes[0] if rng is None else self.sizes[rng.integers(len(self.sizes))]
        samples = [self._sample(int(index), size, rng) for index in indices]
        pixels = torch.from_numpy(np.stack([image for image, _ in samples]))
        pixels = pixels.permute(0, 3, 1, 2).float()
        if rng is not None:
            pixels = augmentation.vary_light(pixels, self.options, rng)
        most = max(1, max(len(boxes) for _, boxes in samples))
        padded = np.stack([np.pad(b, ((0, most - len(b)), (0, 0))) for _, b in samples])
        boxes = torch.from_numpy(padded)
        return {"image": pixels, "boxes": boxes[..., :4], "kind": boxes[..., 4].long()}

    def _sample(
        self, index: int, size: tuple[int, int], rng: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        path, boxes = self.picture(index)
        picture = cv2.imread(str(path))
        if picture is None:
            raise DataError(f"{path} cannot be read as an image")
        window = augmentation.draw_window(picture.shape[:2], size, self.part, boxes, rng)
        image = augmentation.cut(np.asarray(picture[..., ::-1], np.uint8), window, size)
        boxes = augmentation.cut_boxes(boxes, window, size, self.min_box_px)
        if rng is not None and rng.random() < self.options.flip:
            image = np.ascontiguousarray(image[:, ::-1])
            boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
        return image, boxes


class SceneSource(GeneratedSource, PictureSource):
    """Pictures of ``mppe synth scenes``."""

    kind = "scenes"

    def __init__(self, folder: Path, *how: Any) -> None:
        GeneratedSource.__init__(self, folder)
        PictureSource.__init__(self, *how)

    def read_part(self, folder: Path) -> list[tuple[Path, Boxes]]:
        return read_pictures(folder / "annotations.json", self.folder)

    def picture(self, index: int) -> tuple[Path, Boxes]:
        part, row = self.locate(index)
        picture: tuple[Path, Boxes] = part[row]
        return picture


class CocoSource(PictureSource):
    """Pictures with boxes in COCO's layout, people being those of category 1."""

    def __init__(self, annotations: Path, images: Path, *how: Any) -> None:
        super().__init__(*how)
        self._pictures = read_pictures(annotations, images)
        if not self._pictures:
            raise DataError(f"{annotations} has no images")

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, index: int) -> tuple[Path, Boxes]:
        return self._pictures[index]


def read_pictures(annotations: Path, images: Path) -> list[tuple[Path, Boxes]]:
    """Pictures and boxes of a file in COCO's layout; ``images`` is where names start.

    :raises DatasetError: missing or broken.
    """
    listed, entries = read_coco(annotations)
    boxes: dict[int, list[list[float]]] = {number: [] for number in listed}

    def row(one: Entry) -> tuple[int, list[float]] | None:
        if one.get("category_id", 1) != 1:
            return None
        x, y, w, h = map(float, one["bbox"])
        return of_image(listed, one)["id"], [x, y, x + w, y + h, 1.0 + one.get("iscrowd", 0)]

    for number, box in read_each(annotations, "annotation", entries, row):
        boxes[number].append(box)
    return [
        (images / image["file_name"], np.asarray(boxes[number], np.float32).reshape(-1, 5))
        for number, image in listed.items()
    ]


# ---------------------------------------------------------------- order


class Order(Protocol):
    """Which samples come next."""

    def take(self, count: int) -> NDArray[np.int64]:
        """The next ``count`` sample numbers."""
        ...

    def state(self) -> Any:
        """Where it stands, as plain data."""
        ...

    def resume(self, state: Any) -> None:
        """Go on from where another one stood.

        :raises DataError: samples that it counted on are no longer there.
        """
        ...


class SampleOrder:
    """Which samples come next: all of them once per epoch, in an order of the seed's and epoch's.

    :param refresh: gives the number of samples there are, asked when an epoch begins.
    :param stream: tells orders of the same seed apart.
    """

    def __init__(self, seed: int, refresh: Callable[[], int], stream: int = 1) -> None:
        self.seed, self.refresh, self.stream = seed, refresh, stream
        self.epoch, self.position, self.count = 0, 0, refresh()
        self._shuffled: tuple[int, NDArray[np.int64]] | None = None

    def take(self, count: int) -> NDArray[np.int64]:
        taken: list[NDArray[np.int64]] = []
        while count > 0:
            if self.position == self.count:
                self.epoch, self.position, self.count = self.epoch + 1, 0, self.refresh()
            chunk = self._order()[self.position : self.position + count]
            taken.append(chunk)
            self.position += len(chunk)
            count -= len(chunk)
        return np.concatenate(taken)

    def _order(self) -> NDArray[np.int64]:
        if self._shuffled is None or self._shuffled[0] != self.epoch:
            rng = np.random.default_rng([self.seed, self.stream, self.epoch])
            self._shuffled = self.epoch, rng.permutation(self.count)
        return self._shuffled[1]

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "count": self.count}

    def resume(self, state: dict[str, int]) -> None:
        if self.refresh() < state["count"]:
            raise DataError(
                f"the run was started on {state['count']} samples, only {self.refresh()} are here"
            )
        self.epoch, self.position, self.count = state["epoch"], state["position"], state["count"]
        self._shuffled = None


class MixedOrder:
    """Equal shares of several orders; sample i of order k is number i · orders + k."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self.orders = orders

    def take(self, count: int) -> NDArray[np.int64]:
        parts = len(self.orders)
        # In turn, so that each process' stretch of the batch has equal shares, too.
        shares = [order.take(len(range(k, count, parts))) for k, order in enumerate(self.orders)]
        taken = np.empty(count, np.int64)
        for k, share in enumerate(shares):
            taken[k::parts] = share * parts + k
        return taken

    def state(self) -> list[Any]:
        return [order.state() for order in self.orders]

    def resume(self, state: list[Any]) -> None:
        for order, own in zip(self.orders, state, strict=True):
            order.resume(own)
