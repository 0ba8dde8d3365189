"""Data sets in the layout of the reference release: one class each, one line in `DATASETS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import DatasetError, read_picture
from .flat import Mpii, MsCoco
from .generated import Synthetic
from .human36m import Human36M
from .muco import MuCo
from .mupots import MuPoTS
from .pw3d import Pw3d
from .samples import Dataset, Sample

__all__ = ["DATASETS", "Dataset", "DatasetError", "Sample", "open_dataset", "read_picture"]

DATASETS: dict[str, type[Dataset]] = {
    dataset.name: dataset for dataset in (Human36M, MuCo, Mpii, MsCoco, MuPoTS, Pw3d, Synthetic)
}


def open_dataset(name: str, folder: Path, split: str, **options: Any) -> Dataset:
    """A split of a data set.

    :param name: a row of `DATASETS`.
    :param options: of its class, such as Human3.6M's ``protocol``.
    :raises DatasetError: no such data set or split; a file that is missing or broken.
    """
    if name not in DATASETS:
        raise DatasetError(f"no data set is called {name!r}: {', '.join(DATASETS)}")
    chosen: Callable[..., Dataset] = DATASETS[name]
    return chosen(folder, split, **options)
