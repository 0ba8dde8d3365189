"""A result as diagrams: the paths from above, depth over time. By matplotlib."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from . import drawing
from .records import Record
from .results import stamp_s
from .structures import TrackState

_SIZE_INCH = (12, 5.5)


class _Series:
    """One person's places; of people without an id, all of them."""

    def __init__(self, colour: drawing.Colour) -> None:
        self.colour = tuple(part / 255 for part in colour)
        self.values = array("f")  # time s, x, z, standard deviation of z, m

    @property
    def columns(self) -> Any:
        return np.array(self.values).reshape(-1, 4).T


def write_plots(lines: Iterable[Record], path: Path) -> None:
    """One picture: everybody's path from above, and depth over time with one deviation.

    :raises ModuleNotFoundError: without matplotlib.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    people = _series(lines)
    figure, (floor, depth) = pyplot.subplots(1, 2, figsize=_SIZE_INCH, layout="constrained")
    for track_id, series in sorted(people.items()):
        t, x, z, sigma = series.columns
        style = {"color": series.colour, "label": f"#{track_id}" if track_id else "without id"}
        if track_id:
            floor.plot(x, z, **style)
            depth.plot(t, z, **style)
            depth.fill_between(t, z - sigma, z + sigma, color=series.colour, alpha=0.15, lw=0)
        else:
            floor.plot(x, z, ".", **style)
            depth.plot(t, z, ".", **style)
    floor.plot(0, 0, "v", color="black")
    floor.annotate("camera", (0, 0), (6, 0), textcoords="offset points")
    floor.set(title="from above", xlabel="x, m", ylabel="z (ahead), m", aspect="equal")
    depth.set(title="depth, with one standard deviation", xlabel="time, s", ylabel="z, m")
    for axes in (floor, depth):
        axes.grid(alpha=0.3)
    if 0 < len(people) <= 12:
        depth.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _series(lines: Iterable[Record]) -> dict[int, _Series]:
    """By id."""
    people: dict[int, _Series] = {}
    start_s = math.nan
    for line in lines:
        time_s = stamp_s(line)
        start_s = time_s if math.isnan(start_s) else start_s
        for pose in line["poses"]:
            root = pose["root"]["pose"]["position"]
            if pose["tracking_state"] == TrackState.LOST or not math.isfinite(root["z"]):
                continue
            track_id = pose["track_id"]
            if track_id not in people:
                people[track_id] = _Series(drawing.colours_of(pose)["middle"])
            sigma = math.sqrt(max(pose["root"]["covariance"][14], 0.0))
            people[track_id].values.extend((time_s - start_s, root["x"], root["z"], sigma))
    return people
