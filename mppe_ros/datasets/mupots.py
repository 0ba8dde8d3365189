"""MuPoTS-3D (Mehta et al. 2018): 20 sequences of several people, for testing only.

The reference release's JSON has cameras, boxes and absolute joints; its 3DPCK reads the
benchmark's own ``annot.mat``, whose ``univ_annot3`` is the truth there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from ..skeletons import MUPOTS_17
from ..structures import FloatArray
from .files import DatasetError, Entry, camera, of_image, read_coco, read_each
from .samples import Dataset, Row

SEQUENCES = tuple(f"TS{number}" for number in range(1, 21))
_IMAGES = Path("data") / "MultiPersonTestSet"


class MuPoTS(Dataset):
    """Valid people only; `sequence_truth` has the joints that 3DPCK is measured against."""

    name = "mupots"
    folder_name = "MuPoTS"
    skeleton = MUPOTS_17
    has_depth = True
    splits = ("test",)

    def __init__(self, folder: Path, split: str = "test") -> None:
        self.require_split(split)
        super().__init__(folder, split, self._rows(folder))

    @classmethod
    def annotation_files(cls, folder: Path, split: str) -> list[Path]:
        return [
            folder / "data" / "MuPoTS-3D.json",
            *(_annotations_of(folder, sequence) for sequence in SEQUENCES),
        ]

    @classmethod
    def optional_files(cls, folder: Path) -> list[Path]:
        return [
            folder / "bbox" / "bbox_mupots_output.json",
            folder / "bbox_root" / "bbox_root_mupots_output.json",
        ]

    def own_problems(self) -> list[str]:
        """Broken annot.mat, and sequences where its valid people aren't those of the JSON."""
        problems = []
        for sequence in SEQUENCES:
            if not _annotations_of(self.folder, sequence).is_file():
                continue  # said already
            try:
                frames = sequence_truth(self.folder, sequence)
            except DatasetError as error:
                problems.append(str(error))
                continue
            here, there = self.groups.count(sequence), sum(len(f.joints_px) for f in frames)
            if here != there:
                problems.append(
                    f"{sequence}: {here} valid people in MuPoTS-3D.json, {there} in annot.mat"
                )
        return problems

    def _rows(self, folder: Path) -> Iterator[Row]:
        path = self.annotation_files(folder, "test")[0]
        images, annotations = read_coco(path)

        def row(annotation: Entry) -> Row | None:
            image = of_image(images, annotation)
            if not annotation["is_valid"]:
                return None
            return Row(
                image=f"{_IMAGES.as_posix()}/{image['file_name']}",
                image_id=image["id"],
                annotation_id=annotation["id"],
                camera=camera(*image["intrinsic"], image["width"], image["height"]),
                bbox_xywh_px=annotation["bbox"],
                joints_px=np.array(annotation["keypoints_img"], np.float32).reshape(17, 2),
                known=np.ones(17),
                visible=np.array(annotation["keypoints_vis"], bool).reshape(17),
                joints_mm=np.array(annotation["keypoints_cam"], np.float32).reshape(17, 3),
                group=image["file_name"].split("/")[0],
            )

        return read_each(path, "annotation", annotations, row)


@dataclass(frozen=True)
class TrueFrame:
    """The valid people of one frame, in the benchmark's order."""

    name: str  # TS1_img_000000, as the reference release names its predictions
    joints_px: FloatArray  # (G, 17, 2), annot2
    joints_mm: FloatArray  # (G, 17, 3), univ_annot3


def sequence_truth(folder: Path, sequence: str) -> list[TrueFrame]:
    """All frames of a sequence, those without a valid person too.

    :raises DatasetError: ``annot.mat`` is missing, broken or of another form.
    """
    path = _annotations_of(folder, sequence)
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing: 3DPCK is measured against the benchmark's own annotations "
            "(docs/datasets.md)"
        )
    try:
        cells = loadmat(path)["annotations"]
        return [
            _frame(f"{sequence}_img_{number:06d}", [_struct(cell) for cell in frame])
            for number, frame in enumerate(cells)
        ]
    except Exception as error:  # scipy's reader raises all kinds of errors on broken files
        raise DatasetError(f"{path} is no annot.mat of MuPoTS-3D ({error!r})") from error


def _annotations_of(folder: Path, sequence: str) -> Path:
    return folder / _IMAGES / sequence / "annot.mat"


def _struct(cell: Any) -> dict[str, Any]:
    """One person's fields; loadmat gives a 1x1 array of a record."""
    record = cell if cell.dtype.names else cell[0, 0]
    record = record.reshape(-1)[0]
    return {name: record[name] for name in ("annot2", "univ_annot3", "isValidFrame")}


def _frame(name: str, people: list[dict[str, Any]]) -> TrueFrame:
    valid = [one for one in people if np.ravel(one["isValidFrame"])[0]]
    return TrueFrame(
        name,
        np.array([one["annot2"].T for one in valid], np.float64).reshape(-1, 17, 2),
        np.array([one["univ_annot3"].T for one in valid], np.float64).reshape(-1, 17, 3),
    )
