"""What every data set gives: samples of one person in one image, joints by name.

Annotations are read once, into arrays with a row per person; pixels stay on disk.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ..crops import process_boxes
from ..skeletons import Skeleton
from ..structures import FloatArray, Intrinsics
from .files import DatasetError

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One person in one image; J joints in the order of the data set's ``skeleton``."""

    image: Path
    image_id: int
    annotation_id: int
    group: str  # what figures are told apart by: action or sequence; "" without
    intrinsics: Intrinsics  # ``assumed`` where the data set has no cameras
    bbox_xywh_px: FloatArray  # (4,) as annotated, before `crops.process_boxes`
    joints_px: FloatArray  # (J, 2), NaN where unknown
    joints_mm: FloatArray  # (J, 3) camera frame, NaN where unknown: all of them of 2D data sets
    known: BoolArray  # (J,) has a place in the image
    visible: BoolArray  # (J,) as annotated: inside the image, or labelled
    root_mm: FloatArray  # (3,) the pelvis
    root_index: int

    @property
    def root_px(self) -> FloatArray:
        return self.joints_px[self.root_index]


class Row(NamedTuple):
    """A `Sample` as it is read; ``image`` relative to the data set's folder."""

    image: str
    image_id: int
    annotation_id: int
    camera: Intrinsics
    bbox_xywh_px: npt.ArrayLike  # (4,)
    joints_px: npt.ArrayLike  # (J, 2)
    known: npt.ArrayLike  # (J,)
    visible: npt.ArrayLike  # (J,)
    joints_mm: npt.ArrayLike | None = None  # (J, 3)
    root_mm: npt.ArrayLike | None = None  # (3,), joints_mm's pelvis if left out
    group: str = ""


class Dataset(Sequence[Sample]):
    """Samples of one split.

    A data set is a subclass that says the below, reads `Row`s, and has a line in
    ``datasets.DATASETS``. Public arrays have one row per sample, single precision.

    :param folder: the data set's folder, e.g. ``data/Human36M`` of the reference release.
    :raises DatasetError: a file that is missing, broken or of another form; nobody in it.
    """

    name: ClassVar[str]  # in the command line and in presets
    folder_name: ClassVar[str]  # the reference release's, below its data/
    skeleton: Skeleton  # the joints' names and order
    has_depth: ClassVar[bool]  # joints in mm
    splits: ClassVar[tuple[str, ...]]
    root_unit_mm: ClassVar[float] = 1.0  # of the reference release's files of roots

    def __init__(self, folder: Path, split: str, rows: Iterable[Row]) -> None:
        self.folder, self.split = folder, split
        self.cameras: list[Intrinsics] = []
        self.groups: list[str] = []
        self._images: list[str] = []
        self._fill(rows)
        if not len(self):
            raise DatasetError(f"{folder}: nobody in its {split} split")

    # --- what a subclass says --------------------------------------------------------------------

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        """What must be there, besides images, for a split."""
        raise NotImplementedError

    @classmethod
    def optional_files(cls, folder: Path) -> list[Path]:
        """What the reference release reads too, for some of its tests."""
        return []

    @classmethod
    def open_whole(cls, folder: Path, split: str) -> Dataset:
        """The largest choice of a split, for checking."""
        return cls(folder, split)  # type: ignore[call-arg]

    def own_problems(self) -> list[str]:
        """What a check finds besides what all data sets need."""
        return []

    @classmethod
    def require_split(cls, split: str) -> None:
        """:raises DatasetError: a split that the data set hasn't."""
        if split not in cls.splits:
            raise DatasetError(f"{cls.name} has no split {split!r}: {', '.join(cls.splits)}")

    # --- what it gives ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Sample(
            image=self.image_path(index),
            image_id=int(self.image_ids[index]),
            annotation_id=int(self.annotation_ids[index]),
            group=self.groups[index],
            intrinsics=self.cameras[index],
            bbox_xywh_px=self.boxes_xywh_px[index].astype(np.float64),
            joints_px=self.joints_px[index].astype(np.float64),
            joints_mm=self.joints_mm[index].astype(np.float64),
            known=self.known[index],
            visible=self.visible[index],
            root_mm=self.roots_mm[index].astype(np.float64),
            root_index=self.skeleton.root_index,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image_path(self, index: int) -> Path:
        """Where a sample's image lies."""
        return self.folder / self._images[index]

    @property
    def image_names(self) -> Sequence[str]:
        """(N,) each sample's image, relative to the folder."""
        return self._images

    def by_image(self) -> dict[str, list[int]]:
        """Samples of each image, by the image's path relative to the folder."""
        found: dict[str, list[int]] = {}
        for index, image in enumerate(self._images):
            found.setdefault(image, []).append(index)
        return found

    def only(self, rows: Sequence[int]) -> Dataset:
        """Some of the samples."""
        chosen = copy.copy(self)
        for name in _COLUMNS:
            setattr(chosen, name, getattr(self, name)[list(rows)])
        for name in ("_images", "cameras", "groups"):
            setattr(chosen, name, [getattr(self, name)[row] for row in rows])
        return chosen

    def in_joints_of(self, skeleton: Skeleton) -> Dataset:
        """The same samples in another joint set: joints of the same name, the rest not known.

        The reference release mixes its data sets in this way, though a name may mean slightly
        different places (Head is the top for Human3.6M, the middle for MuCo).
        """
        mapped = copy.copy(self)
        mapped.skeleton = skeleton
        own = [self.skeleton.joint_names.index(name) if name in self.skeleton.joint_names else -1
               for name in skeleton.joint_names]  # fmt: skip
        lacking = np.array([index < 0 for index in own])
        for name, nothing in _JOINT_COLUMNS.items():
            values = getattr(self, name)[:, own].copy()
            values[:, lacking] = nothing
            setattr(mapped, name, values)
        return mapped

    def _fill(self, rows: Iterable[Row]) -> None:
        columns: list[Row] = []
        unknown = np.full((len(self.skeleton), 3), np.nan, np.float32)
        for row in rows:
            joints_mm = unknown if row.joints_mm is None else np.asarray(row.joints_mm, np.float32)
            root_mm = joints_mm[self.skeleton.root_index] if row.root_mm is None else row.root_mm
            known = np.asarray(row.known, bool)
            # NaN, not 0: nobody can take it for a place by mistake.
            joints_px = np.where(known[:, None], np.asarray(row.joints_px, np.float32), np.nan)
            columns.append(row._replace(
                bbox_xywh_px=np.asarray(row.bbox_xywh_px, np.float32).reshape(4),
                joints_px=joints_px.astype(np.float32), joints_mm=joints_mm, known=known,
                visible=np.asarray(row.visible, bool), root_mm=np.asarray(root_mm, np.float32),
            ))  # fmt: skip
        usable = _usable(columns)
        columns = [columns[index] for index in usable]
        self._images = [row.image for row in columns]
        self.cameras = [row.camera for row in columns]
        self.groups = [row.group for row in columns]
        self.image_ids = np.array([row.image_id for row in columns], np.int64)
        self.annotation_ids = np.array([row.annotation_id for row in columns], np.int64)

        def column(name: str, *shape: int) -> Float32Array:
            values = np.array([getattr(row, name) for row in columns], np.float32)
            return values.reshape(len(columns), *shape)

        count = len(self.skeleton)
        self.boxes_xywh_px = column("bbox_xywh_px", 4)
        self.joints_px = column("joints_px", count, 2)
        self.joints_mm = column("joints_mm", count, 3)
        self.roots_mm = column("root_mm", 3)
        self.known: BoolArray = column("known", count).astype(bool)
        self.visible: BoolArray = column("visible", count).astype(bool)


# Of the columns by joint, what stands where a joint isn't known.
_JOINT_COLUMNS = {"joints_px": np.nan, "joints_mm": np.nan, "known": False, "visible": False}
_COLUMNS = (*_JOINT_COLUMNS, "image_ids", "annotation_ids", "boxes_xywh_px", "roots_mm")


def _usable(rows: Sequence[Row]) -> list[int]:
    """Those whose box isn't empty once it is clipped to the image."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, row in enumerate(rows):
        by_size.setdefault((row.camera.width, row.camera.height), []).append(index)
    kept = []
    for (width, height), indices in by_size.items():
        boxes = np.array([rows[index].bbox_xywh_px for index in indices])
        kept += [indices[index] for index in process_boxes(boxes, width, height)[1].tolist()]
    return sorted(kept)
