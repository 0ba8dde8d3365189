"""3DPW: root error as the reference release measures it, and a pose protocol of ours.

The release has no pose evaluation for 3DPW. Ours: root-relative MPJPE and PA-MPJPE (no scale) of
the pelvis and the 12 limb joints, every annotated person of the split. SMPL's hips and shoulders
lie elsewhere in the body than Human3.6M's and MuCo's, which costs centimetres: compare only
figures of this protocol.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..datasets.boxes import BoxFile
from ..skeletons import Skeleton
from . import single
from .matching import TrueImage, TruthError, match
from .methods import bodies
from .predictions import Prediction
from .single import Measured


def measure(dataset: Dataset, predictions: Iterable[Prediction], skeleton: Skeleton) -> Measured:
    """The pipeline's predictions; those of detected boxes belong to the person they overlap by
    0.5 (IoU), paired one to one for the largest overlap in all."""
    of_image: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        of_image[one.image].append(one)
    chosen: list[Prediction | None] = [None] * len(dataset)
    for image, rows in dataset.by_image().items():
        found = of_image.get(image, [])
        if all(one.sample is not None for one in found):
            pairs = [(index, one.sample) for index, one in enumerate(found)]
        else:
            boxes = np.array([one.bbox_xywh_px for one in found])
            truth = TrueImage(bodies(dataset.boxes_xywh_px[rows].astype(np.float64)), ())
            pairs = [(index, rows[who]) for index, who in match(bodies(boxes), truth).pairs]
        for index, row in pairs:
            assert row is not None
            chosen[row] = found[index]
    return single.compare(dataset, chosen, skeleton)


def measure_roots(dataset: Dataset, roots: BoxFile) -> Measured:
    """RootNet's ``rootnet_pw3d_output.json``.

    :raises TruthError: it doesn't say whom it means, or nobody of this data set.
    """
    by_id = {box.annotation_id: box.root for box in roots.boxes}
    if None in by_id or not roots.has_roots:
        raise TruthError(f"{roots.path}: a box without ann_id or root_cam")
    errors = np.full((len(dataset), 3), np.nan)
    for row, number in enumerate(dataset.annotation_ids):
        root = by_id.get(int(number))
        if root is not None:
            # Both sides were metres in single precision: the truth exactly as it was read.
            errors[row] = root * dataset.root_unit_mm - dataset.roots_mm[row]
    if not np.isfinite(errors).any():
        raise TruthError(f"{roots.path}: none of its roots is of a person of this split")
    nobody = np.empty((len(dataset), 0))
    return Measured(dataset.groups, (), dataset.roots_mm.astype(np.float64), errors, nobody,
                    nobody, nobody)  # fmt: skip


def record(measured: Measured, sequences: Sequence[str], split: str) -> dict[str, Any]:
    """JSON: all figures, and those of each sequence."""
    return {"dataset": "3dpw", "split": split, **single.record(measured, sequences)}
