"""The benchmark's tables and diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .timing import TOTAL

# The figures that targets are set for, and what they mean.
HEADLINES = {
    "speedup_fp32": "3dmppe with flip test, fp32: times faster than the reference way",
    "speedup_bf16": "3dmppe with flip test, bf16: times faster",
    "speedup_fast": "3dmppe, detector at 480 px, no flip test: times faster",
    "speedup_open": "embedded set: times faster",
    "overhead_ratio": "pipeline / bare networks, of the set where it is most",
    "open_fps_4_people_dds": "embedded set, image to pose message over DDS, 4 people: frames/s",
    "open_ms_per_person_frame": "embedded set, people followed: ms per person and frame",
    "blazepose_ms_per_person_frame": "BlazePose, one person followed: ms per frame",
    "ros_overhead_ms": "node minus pipeline minus DDS: ms per frame",
    "memory_growth_mb": "memory after all frames more than after a tenth of them: MB",
}


def markdown(record: Mapping[str, Any]) -> str:
    """All tables."""
    parts = [
        _table(
            ["figure", "value"],
            [[text, _number(record.get(key), 2)] for key, text in HEADLINES.items()],
        )
    ]
    if record.get("comparison"):
        parts.append(_comparison(record))
    if record.get("sweep"):
        parts.append(_sweep(record["sweep"]))
    return "\n\n".join(parts)


def _comparison(record: Mapping[str, Any]) -> str:
    rows = []
    for name, stages in record["comparison"].items():
        difference = record["differences"].get(name, {})
        rows.append([
            name,
            _number(stages[TOTAL]["median_ms"], 1),
            _number(stages[TOTAL]["p95_ms"], 1),
            _number(record["speedups"].get(name), 2),
            _number(record["overhead_ratios"].get(name), 2),
            _number(difference.get("joints_px"), 3),
            _number(difference.get("depth_percent"), 3),
            _shares(stages),
        ])  # fmt: skip
    heads = ["4 people, 640x480", "median ms", "p95 ms", "times faster", "/ bare networks",
             "px off", "depth % off", "stages: ms (share)"]  # fmt: skip
    return _table(heads, rows)


def _sweep(cases: list[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{case['weights']} {case['precision']} {case['device']}",
            str(case["people"]),
            f"{case['width']}x{case['height']}",
            _number(case["stages"][TOTAL]["median_ms"], 1),
            _number(case["stages"][TOTAL]["p95_ms"], 1),
            _number(case["peak_memory_mb"], 0),
            _shares(case["stages"]),
        ]
        for case in cases
    ]
    heads = ["set", "people", "image", "median ms", "p95 ms", "peak MB", "stages: ms (share)"]
    return _table(heads, rows)


def _shares(stages: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(
        f"{name} {one['median_ms']:.1f} ({one['share']:.0%})"
        for name, one in stages.items()
        if name != TOTAL
    )


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(record: Mapping[str, Any], path: Path) -> None:
    """Time against people, and against the image's size.

    :raises ModuleNotFoundError: without matplotlib.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (by_people, by_size) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    cases = record["sweep"]
    first = cases[0]["width"], cases[0]["height"]
    for name in dict.fromkeys(f"{case['weights']} {case['precision']}" for case in cases):
        own = [case for case in cases if f"{case['weights']} {case['precision']}" == name]
        at_first = [case for case in own if (case["width"], case["height"]) == first]
        _line(by_people, name, [(c["people"], c) for c in at_first])
        four = [case for case in own if case["people"] == 4]
        _line(by_size, name, [(c["width"] * c["height"] / 1e6, c) for c in four])
    by_people.set_xlabel(f"people in {first[0]}x{first[1]} px")
    by_size.set_xlabel("megapixels, 4 people")
    for axes in (by_people, by_size):
        axes.set_ylabel("ms per image")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
    by_people.legend()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _line(axes: Any, name: str, points: list[tuple[float, Mapping[str, Any]]]) -> None:
    points.sort(key=lambda point: point[0])
    times_ms = [case["stages"][TOTAL]["median_ms"] for _, case in points]
    axes.plot([x for x, _ in points], times_ms, "o-", label=name)
