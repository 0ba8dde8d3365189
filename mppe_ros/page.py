"""A result as one self-contained web page: pictures, 3D scene, top view and depth over time.

Plotly draws it; its script, the pictures and all numbers are in the file, which needs no network.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from . import drawing
from .media import FrameSource, Rgb
from .records import Record
from .results import Pictured, is_photo, stamp_s, with_pictures
from .structures import JointStatus, TrackState

_RESOURCES = Path(__file__).parent / "resources" / "view"
# More make a page that browsers open slowly; some 25 kB each.
MAX_FRAMES = 300
PICTURE_WIDTH_PX = 560
_JPEG_QUALITY = 80


def write_page(
    lines: Iterable[Record],
    path: Path,
    open_: Callable[[str], FrameSource],
    *,
    every: int = 0,
    progress: Callable[[Iterator[Pictured]], Iterator[Pictured]] = lambda frames: frames,
) -> int:
    """Writes the page.

    :param lines: of a result; are iterated more than once.
    :param open_: opens a film by its name, as for :func:`results.with_pictures`.
    :param every: only each n-th image; 0 = as many as needed for at most ``MAX_FRAMES``.
    :return: the number of images in it.
    :raises ModuleNotFoundError: without plotly.
    """
    from plotly.offline import get_plotlyjs

    if not every:
        every = max(1, math.ceil(sum(1 for _ in lines) / MAX_FRAMES))
    chosen = with_pictures(islice(iter(lines), 0, None, every), open_)
    content = _content(progress(chosen))
    page = Template((_RESOURCES / "page.html").read_text("utf-8")).substitute(
        title="mppe_ros",
        # Nothing in a text may end the script that holds it.
        data=json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
        script=(_RESOURCES / "page.js").read_text("utf-8"),
    )
    path.write_text(page, encoding="utf-8")
    return len(content["frames"])


def _content(frames: Iterator[Pictured]) -> Record:
    """What page.js draws. Positions in metres, the camera's frame, null where unknown."""
    cameras: list[Record] = []
    drawn: list[Record] = []
    bones: list[list[int]] = []
    film, start_s = False, math.nan
    for line, rgb, _ in frames:
        film = film or not is_photo(line)
        start_s = stamp_s(line) if math.isnan(start_s) else start_s
        bones = [list(bone) for bone in drawing.bones_of(line)]
        camera = line.get("camera")
        if camera is not None and camera not in cameras:
            cameras.append(camera)
        drawn.append(
            {
                "image": Path(line["image"]).name,
                "frame": line["frame"],
                "time": round(stamp_s(line) - start_s, 4),
                "camera": None if camera is None else cameras.index(camera),
                "people": [
                    _person(pose) for pose in line["poses"]
                    if pose.get("tracking_state") != TrackState.LOST
                ],
                "picture": None if rgb is None else _data_uri(drawing.draw_people(rgb, line)),
            }
        )  # fmt: skip
    return {"bones": bones, "cameras": cameras, "frames": drawn, "film": film}


def _person(pose: Record) -> Record:
    colour = drawing.colours_of(pose)["middle"]
    variance = pose["root"]["covariance"][14]  # of z
    return {
        "id": pose["track_id"],
        "label": drawing.label_of(pose),
        "colour": "#{:02x}{:02x}{:02x}".format(*colour),
        "root": _point(pose["root"]["pose"]["position"]),
        "sigma": _number(math.sqrt(variance)) if variance >= 0 else None,
        "joints": [
            None if joint["status"] == JointStatus.INVALID else _point(joint["position"])
            for joint in pose["joints"]
        ],
    }


def _point(position: Record) -> list[float] | None:
    values = [position[axis] for axis in "xyz"]
    return [round(v, 3) for v in values] if np.isfinite(values).all() else None


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _data_uri(rgb: Rgb) -> str:
    scale = min(1.0, PICTURE_WIDTH_PX / rgb.shape[1])
    bgr: Any = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
