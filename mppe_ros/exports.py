"""Results for other programs: COCO, CSV, TRC; overlays. Everything streams, films may be long."""

from __future__ import annotations

import csv
import json
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import drawing
from .media import Rgb, VideoWriter
from .plots import write_plots
from .records import Record, present, to_json
from .results import is_photo, stamp_s
from .structures import Intrinsics, JointStatus

Lines = Iterable[Record]  # may be iterated more than once, see results.Results

# COCO's visibility: 0 unknown, 1 there but not seen, 2 seen.
_VISIBILITY = {JointStatus.OK: 2, JointStatus.LOW_SCORE: 1, JointStatus.TRUNCATED: 1,
               JointStatus.INVALID: 0}  # fmt: skip

CSV_COLUMNS = (
    "image", "frame", "time_s", "track_id", "tracking_state", "score", "x_m", "y_m", "z_m",
    "std_x_m", "std_y_m", "std_z_m", "vx_m_s", "vy_m_s", "vz_m_s",
    "bbox_x_px", "bbox_y_px", "bbox_w_px", "bbox_h_px",
)  # fmt: skip
# Where a motion tool wants a rate and a film doesn't tell: by the first stamps.
_RATE_SAMPLES = 50
_MM_PER_M = 1000
# The floor of a top view while a camera runs: nobody knows where people will be.
LIVE_AREA = drawing.Area(4.0, 8.0)


@contextmanager
def _whole(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """A text file that appears under its name only when complete."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline=newline) as file:
        yield file
    os.replace(partial, path)


# --- COCO --------------------------------------------------------------------------------------


def write_coco(lines: Lines, path: Path) -> None:
    """COCO's keypoint format: images, annotations (with 3D beside the usual fields), category.

    ``id`` of images and annotations count from 1. ``keypoints_3d_m`` and ``root_m`` are metres in
    the camera's frame, null where invalid.
    """
    first: Record | None = None
    with _whole(path) as file:
        file.write('{"info":{"description":"mppe_ros"},"images":[')
        for number, line in enumerate(lines, start=1):
            first = first or line
            file.write(("," if number > 1 else "") + to_json(_coco_image(line, number)))
        file.write('],"annotations":[')
        count = 0
        for number, line in enumerate(lines, start=1):
            for pose in present(line):
                count += 1
                file.write("," if count > 1 else "")
                file.write(to_json({"id": count, "image_id": number, **_coco_person(pose)}))
        categories = [] if first is None else [_coco_category(first)]
        file.write('],"categories":' + json.dumps(categories) + "}\n")


def _coco_image(line: Record, number: int) -> Record:
    return {
        "id": number,
        "file_name": line["image"],
        "frame": line["frame"],
        "time_s": stamp_s(line),
        "width": line["image_width"],
        "height": line["image_height"],
        "camera": line.get("camera"),
    }


def _coco_person(pose: Record) -> Record:
    joints = pose["joints"]
    visible = [_VISIBILITY[JointStatus(joint["status"])] for joint in joints]
    keypoints: list[float] = []
    for joint, visibility in zip(joints, visible, strict=True):
        keypoints += [joint["u"], joint["v"], visibility] if visibility else [0, 0, 0]
    root = pose["root"]["pose"]["position"]
    return {
        "category_id": 1,
        "bbox": pose["bbox"],
        "area": pose["bbox"][2] * pose["bbox"][3],
        "iscrowd": 0,
        "score": pose["score"],
        "track_id": pose["track_id"],
        "keypoints": keypoints,
        "num_keypoints": sum(v > 0 for v in visible),
        "keypoints_3d_m": [[joint["position"][axis] for axis in "xyz"] for joint in joints],
        "root_m": [root[axis] for axis in "xyz"],
    }


def _coco_category(line: Record) -> Record:
    bones = [index + 1 for index in line["bones"]]  # COCO counts joints from 1
    return {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": line["joint_names"],
        "skeleton": [list(bone) for bone in zip(bones[::2], bones[1::2], strict=True)],
    }


# --- CSV ---------------------------------------------------------------------------------------


def write_roots(lines: Lines, path: Path) -> None:
    """A row per person and image: where the pelvis is; see ``CSV_COLUMNS``. Unknown is empty."""
    with _whole(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for line in lines:
            for pose in present(line):
                writer.writerow([_cell(value) for value in _root_row(line, pose)])


def _root_row(line: Record, pose: Record) -> list[Any]:
    position = pose["root"]["pose"]["position"]
    variances = np.diag(np.reshape(pose["root"]["covariance"], (6, 6)))[:3]
    velocity = pose["velocity"] if pose["velocity_valid"] else dict.fromkeys("xyz", math.nan)
    return [
        line["image"], line["frame"], stamp_s(line), pose["track_id"], pose["tracking_state"],
        pose["score"],
        *(position[axis] for axis in "xyz"),
        *np.sqrt(np.maximum(variances, 0)),
        *(velocity[axis] for axis in "xyz"),
        *pose["bbox"],
    ]  # fmt: skip


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.6f}" if math.isfinite(value) else ""


# --- TRC ---------------------------------------------------------------------------------------


def write_trc(lines: Lines, folder: Path) -> list[Path]:
    """A TRC file (OpenSim, Mokka) per person of each film, with the joints as markers, mm.

    Their axes are those of motion capture: x to the right, y up, z towards the camera. Images in
    which a person is unknown have empty cells. Untracked people are left out.

    :return: the files.
    :raises ModuleNotFoundError: without trc-data-reader.
    """
    from trc import TRCData

    tracks: dict[tuple[str, int], _Track] = {}
    names: list[str] = []
    times: dict[str, list[float]] = {}
    for line in lines:
        names = line["joint_names"]
        film = times.setdefault(line["image"], [])
        film.append(stamp_s(line))
        for pose in present(line):
            if pose["track_id"] and not is_photo(line):
                key = line["image"], pose["track_id"]
                tracks.setdefault(key, _Track()).add(len(film) - 1, pose)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for (film_name, track_id), track in tracks.items():
        path = folder / f"{Path(film_name).stem or 'film'}_{track_id}.trc"
        data = TRCData()
        _fill_trc(data, path.name, names, times[film_name], track)
        data.save(str(path), add_trailing_tab=True)
        files.append(path)
    return files


class _Track:
    """One person's joints: some 200 bytes an image, so that hours fit into memory."""

    def __init__(self) -> None:
        self.frames = array("L")
        self.joints_mm = array("f")  # x y z of all joints of a frame

    def add(self, frame: int, pose: Record) -> None:
        self.frames.append(frame)
        for joint in pose["joints"]:
            x, y, z = (joint["position"][axis] * _MM_PER_M for axis in "xyz")
            self.joints_mm.extend((x, -y, -z))


def _fill_trc(data: Any, name: str, markers: list[str], times: list[float], track: _Track) -> None:
    joints = np.array(track.joints_mm).reshape(len(track.frames), len(markers), 3)
    first, last = track.frames[0], track.frames[-1]
    periods = np.diff(times[:_RATE_SAMPLES])
    rate = 1 / float(np.median(periods)) if len(periods) and np.median(periods) > 0 else 1.0
    count = last - first + 1
    data.update(
        PathFileType=4, DataFormat="(X/Y/Z)", FileName=name, DataRate=rate, CameraRate=rate,
        NumFrames=count, NumMarkers=len(markers), Units="mm", OrigDataRate=rate,
        OrigDataStartFrame=1, OrigNumFrames=count, Markers=list(markers),
    )  # fmt: skip
    data["Frame#"] = list(range(1, count + 1))
    unknown = [[math.nan] * 3] * len(markers)
    rows = dict(zip(track.frames, joints, strict=True))
    for number in range(1, count + 1):
        frame = first + number - 1
        known = rows.get(frame)
        data[number] = times[frame], unknown if known is None else known.tolist()


# --- overlays ----------------------------------------------------------------------------------


def draw_scene(
    rgb: Rgb, record: Record, camera: Intrinsics | None, area: drawing.Area | None = None
) -> Rgb:
    """The picture with its skeletons, beside a top view of the scene.

    :param area: the floor of the top view; as needed for this picture if not given.
    """
    height = rgb.shape[0]
    floor = drawing.draw_top_view(
        record,
        area or drawing.area_of([record]),
        (min(rgb.shape[1], height), height),
        camera=camera,
    )
    return drawing.side_by_side(drawing.draw_people(rgb, record), floor)


class OverlayVideo:
    """A film of :func:`draw_scene`; use it as a context manager."""

    def __init__(self, path: Path, fps: float, area: drawing.Area) -> None:
        self._writer, self._area = VideoWriter(path, fps), area

    def write(self, record: Record, rgb: Rgb, camera: Intrinsics | None) -> None:
        """One more image."""
        frame = draw_scene(rgb, record, camera, self._area)
        self._writer.write(drawing.fit(frame, self._writer.shape or frame.shape))

    def __enter__(self) -> OverlayVideo:
        self._writer.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._writer.__exit__(*failure)


# Written from the lines alone, once they are complete: name on the command line -> writer.
WRITERS: dict[str, tuple[str, Callable[[Lines, Path], Any]]] = {
    "coco": ("coco.json", write_coco),
    "csv": ("roots.csv", write_roots),
    "trc": ("trc", write_trc),
    "plots": ("plots.png", write_plots),
}
