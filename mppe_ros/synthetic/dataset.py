"""Folders of generated data: written in parts, by several machines, resumable at any second.

A folder has a ``manifest.json`` that says what it is, and parts that appear whole or not at all.
Part p holds samples p·n .. p·n + n - 1, whoever made it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..skeletons import MUCO_21
from .annotations import Annotation
from .person_crops import CropGenerator
from .scenes import Picture, SceneGenerator

VERSION = 3  # of what the generator draws: raise it when the same seed gives other samples
CROPS_PER_PART, SCENES_PER_PART = 1024, 64
MIN_VISIBLE_FRACTION, MIN_BOX_PX = 0.15, 10.0  # below, a person is neither to be found nor wrong


PartWriter = Callable[[Path, range, Callable[[], Any]], None]


class DatasetError(ValueError):
    """A folder holds other data than asked for; the message says what differs."""


@dataclass(frozen=True)
class Manifest:
    """What a folder holds."""

    kind: str  # "crops" or "scenes"
    seed: int
    split: str
    count: int
    per_part: int
    width: int
    height: int
    with_assets: bool
    skeleton: str = MUCO_21.name
    version: int = VERSION

    @property
    def parts(self) -> int:
        """Number of parts; the last may be shorter."""
        return -(-self.count // self.per_part)

    def span(self, part: int) -> range:
        """Give the samples of a part."""
        return range(part * self.per_part, min((part + 1) * self.per_part, self.count))


@dataclass(frozen=True)
class Shard:
    """One worker's share: every ``of``-th part from ``index`` (0-based) on."""

    index: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "i/n", i from 0.

        :raises ValueError: for anything else.
        """
        index, of = (int(word) for word in text.split("/"))
        if not 0 <= index < of:
            raise ValueError(f"shard {text}: i/n needs 0 <= i < n")
        return cls(index, of)


def open_folder(out: Path, manifest: Manifest) -> None:
    """Claim a folder, or find it holding the same data.

    :raises DatasetError: when it holds something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "manifest.json"
    wanted = asdict(manifest)
    if path.exists():
        found = json.loads(path.read_text())
        # More of the same may be added; nothing else may differ.
        other = [k for k in wanted if k != "count" and found.get(k) != wanted[k]]
        if other:
            differs = ", ".join(f"{k} {found.get(k)} instead of {wanted[k]}" for k in other)
            raise DatasetError(
                f"{out} already holds other data ({differs}): choose another folder"
            )
        if found["count"] >= manifest.count:
            return
        _remove_short_part(out, found["count"], manifest)
    temporary = out / f".manifest.{os.getpid()}.json"
    temporary.write_text(json.dumps(wanted, indent=1) + "\n")
    temporary.replace(path)


def _remove_short_part(out: Path, old_count: int, manifest: Manifest) -> None:
    """Drop the last part of a smaller data set when it now becomes longer."""
    if old_count % manifest.per_part:
        shutil.rmtree(part_folder(out, old_count // manifest.per_part), ignore_errors=True)


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder holds."""
    return Manifest(**json.loads((folder / "manifest.json").read_text()))


def part_folder(out: Path, part: int) -> Path:
    """Give the folder of a part."""
    return out / f"part-{part:05d}"


def write_parts(out: Path, manifest: Manifest, shard: Shard, write: PartWriter) -> None:
    """Make every missing part of a shard, with a progress bar.

    :param write: fills an empty folder with the samples of a range, calling back after each.
    """
    open_folder(out, manifest)
    mine = range(shard.index, manifest.parts, shard.of)
    missing = [p for p in mine if not part_folder(out, p).exists()]
    total = sum(len(manifest.span(p)) for p in mine)
    done = total - sum(len(manifest.span(p)) for p in missing)
    with tqdm(total=total, initial=done, unit=manifest.kind.rstrip("s")) as bar:
        for part in missing:
            temporary = out / f".part-{part:05d}.{os.getpid()}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            write(temporary, manifest.span(part), bar.update)
            temporary.replace(part_folder(out, part))


# ---- crops: one .npy per field ------------------------------------------------------------------


def write_crops(out: Path, generator: CropGenerator, count: int, shard: Shard) -> None:
    """Write crops as arrays that ``open_crops`` maps into memory."""
    library = generator.library
    manifest = Manifest(
        "crops", generator.seed, library.split.value, count, CROPS_PER_PART,
        generator.size, generator.size, library.has_assets,
    )  # fmt: skip

    def write(folder: Path, span: range, advance: Callable[[], Any]) -> None:
        rows: dict[str, list[NDArray[Any]]] = {}
        for index in span:
            for name, value in generator(index).fields().items():
                rows.setdefault(name, []).append(value)
            advance()
        for name, values in rows.items():
            np.save(folder / f"{name}.npy", np.stack(values))

    write_parts(out, manifest, shard, write)


def open_crops(folder: Path) -> list[dict[str, NDArray[Any]]]:
    """Map the finished parts of a crop folder: for each, arrays by name with a row per crop.

    The names and shapes are those of ``PersonCrop``, with one more axis in front.
    """
    return [
        {path.stem: np.load(path, mmap_mode="r") for path in sorted(part.glob("*.npy"))}
        for part in sorted(folder.glob("part-*"))
    ]


# ---- scenes: pictures and COCO-style JSON -------------------------------------------------------


def write_scenes(
    out: Path, generator: SceneGenerator, count: int, shard: Shard, depth: bool = False
) -> None:
    """Write scenes as JPEG and JSON, optionally with depth and person masks as PNG."""
    library = generator.library
    manifest = Manifest(
        "scenes", generator.seed, library.split.value, count, SCENES_PER_PART,
        generator.width, generator.height, library.has_assets,
    )  # fmt: skip

    def write(folder: Path, span: range, advance: Callable[[], Any]) -> None:
        images, annotations = [], []
        for index in span:
            picture = generator(index)
            name = f"{part_folder(Path(), index // SCENES_PER_PART)}/{index:07d}"
            _write_picture(folder / f"{index:07d}", picture, depth)
            images.append(image_entry(picture, index, f"{name}.jpg"))
            annotations += [
                annotation_entry(one, index, 100 * index + one.person)
                for one in picture.annotations
            ]
            advance()
        part = {"images": images, "annotations": annotations}
        (folder / "annotations.json").write_text(json.dumps(part))

    write_parts(out, manifest, shard, write)
    merge_scenes(out, manifest)


def merge_scenes(out: Path, manifest: Manifest) -> bool:
    """Join the parts' JSON into ``annotations.json`` once all are there; tell whether they are."""
    folders = [part_folder(out, p) for p in range(manifest.parts)]
    if not all(folder.exists() for folder in folders):
        return False
    parts = [json.loads((folder / "annotations.json").read_text()) for folder in folders]
    joined = {
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(MUCO_21.joint_names),
             "skeleton": [list(bone) for bone in MUCO_21.bones]}
        ],
        "images": [image for part in parts for image in part["images"]],
        "annotations": [one for part in parts for one in part["annotations"]],
    }  # fmt: skip
    temporary = out / f".annotations.{os.getpid()}.json"
    temporary.write_text(json.dumps(joined))
    temporary.replace(out / "annotations.json")
    return True


def image_entry(picture: Picture, index: int, file_name: str) -> dict[str, Any]:
    """Describe an image as MuCo's JSON does (f, c), with the lens where it bends."""
    lens = picture.intrinsics
    return {
        "id": index, "file_name": file_name, "width": lens.width, "height": lens.height,
        "f": [lens.fx, lens.fy], "c": [lens.cx, lens.cy],
        "distortion_model": lens.distortion_model, "distortion": list(lens.distortion),
    }  # fmt: skip


def annotation_entry(one: Annotation, image: int, number: int) -> dict[str, Any]:
    """Describe a person as MuCo's JSON does; iscrowd 1 = neither to be found nor wrong."""
    clear = (
        one.visible_fraction >= MIN_VISIBLE_FRACTION and min(one.bbox_xywh_px[2:]) >= MIN_BOX_PX
    )
    return {
        "id": number, "image_id": image, "category_id": 1, "track_id": one.person,
        "iscrowd": int(not clear),
        "bbox": np.round(one.bbox_xywh_px, 2).tolist(),
        "full_bbox": np.round(one.full_bbox_xywh_px, 2).tolist(),
        "area": float(np.prod(one.bbox_xywh_px[2:])),
        "keypoints_img": np.round(np.nan_to_num(one.joints_px, nan=-1), 2).tolist(),
        "keypoints_cam": np.round(one.joints_camera_mm, 1).tolist(),
        "keypoints_vis": one.visible.astype(int).tolist(),
        "visible_fraction": round(one.visible_fraction, 3),
    }  # fmt: skip


def _write_picture(stem: Path, picture: Picture, depth: bool) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
    files: list[tuple[str, NDArray[Any], list[int]]] = [
        (".jpg", picture.image[..., ::-1], quality)
    ]
    if depth:
        files.append((".depth.png", picture.depth_mm, []))
        files.append((".person.png", picture.person.astype(np.uint8), []))
    for ending, pixels, options in files:
        if not cv2.imwrite(f"{stem}{ending}", pixels, options):
            raise OSError(f"cannot write {stem}{ending}")
