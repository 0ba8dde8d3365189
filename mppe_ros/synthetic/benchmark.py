"""The frozen benchmark of ``mppe eval synthetic``: scenes of the test split, without assets.

It is made on demand from its seed and kept in the cache folder. Last bits differ between
processors and JPEG libraries, so not the files are compared with what they were when it was
frozen, but who stands where: that tells another generator, seed or count, and lost parts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ..cache import cache_folder
from ..skeletons import MUCO_21
from . import dataset
from .dataset import DatasetError, Shard
from .library import Library, Split
from .scenes import SceneGenerator


@dataclass(frozen=True)
class Benchmark:
    """What it is made of, and what comes out."""

    digest: str  # of `digest`
    scenes: int = 512
    seed: int = 2026
    width: int = 640
    height: int = 480

    def prepare(self, folder: Path | None = None, library: Library | None = None) -> Path:
        """Make what is missing of it, and check it.

        :param folder: default: a folder of its own in the cache folder.
        :param library: what to draw from, instead of the test split without assets.
        :return: the folder, as ``mppe synth scenes`` writes it.
        :raises DatasetError: it is not what was frozen.
        """
        folder = folder or cache_folder() / f"benchmark-{self.digest[:8]}"
        annotations = folder / "annotations.json"
        if not annotations.is_file():
            library = library or Library.load(None, Split.TEST)
            generator = SceneGenerator(library, self.seed, self.width, self.height)
            dataset.write_scenes(folder, generator, self.scenes, Shard())
        found = digest(annotations)
        if found != self.digest:
            raise DatasetError(
                f"{folder} is not the benchmark (digest {found[:8]}, not {self.digest[:8]}): "
                "delete it, and the next call makes it anew"
            )
        return folder


def digest(annotations: Path) -> str:
    """SHA-256 of who stands where: image, track id and pelvis in whole centimetres.

    :raises DatasetError: the file is not what ``mppe synth scenes`` writes.
    """
    try:
        people = json.loads(annotations.read_text())["annotations"]
        lines = [
            (one["image_id"], one["track_id"],
             *(round(mm / 10) for mm in one["keypoints_cam"][MUCO_21.root_index]))
            for one in people
        ]  # fmt: skip
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DatasetError(f"{annotations} is damaged: delete it ({error!r})") from error
    return hashlib.sha256(json.dumps(sorted(lines)).encode()).hexdigest()


BENCHMARK = Benchmark(digest="c05a7cd6699e8a4eb3f3aa9c0b4cb2a7fa019425ddcfb8735813bdb0689ef894")
