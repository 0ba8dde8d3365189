"""What every protocol's figures are drawn from, and the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import FloatArray
from .metrics import AUC_THRESHOLDS_MM, pck3d

_BIN_M = 1.0


def error_per_joint(errors_mm: FloatArray, names: Sequence[str]) -> dict[str, float]:
    """Mean error by joint, mm; nothing if nobody has such errors.

    :param errors_mm: (N, S); rows that aren't numbers don't count.
    """
    known = errors_mm[np.isfinite(errors_mm).all(axis=1)]
    return dict(zip(names, known.mean(axis=0).tolist(), strict=True)) if len(known) else {}


def pck_curve(relative_mm: FloatArray, absolute_mm: FloatArray) -> dict[str, list[float]]:
    """Share of joints nearer than a threshold, per cent, relative to the pelvis and absolute;
    either is left out if nobody has such errors.

    :param relative_mm, absolute_mm: (N, S) errors, inf or NaN for missed people.
    """
    curves = {
        kind: [pck3d(errors, at) for at in AUC_THRESHOLDS_MM]
        for kind, errors in (("relative", relative_mm), ("absolute", absolute_mm))
        if np.isfinite(errors).any()
    }
    return {"thresholds_mm": list(AUC_THRESHOLDS_MM), **curves} if curves else {}


def depth_errors(true_depth_mm: FloatArray, difference_mm: FloatArray) -> list[dict[str, Any]]:
    """How the root's depth error grows with distance, by ranges of a metre.

    :param true_depth_mm, difference_mm: (N,); NaN for missed people.
    """
    known = np.isfinite(difference_mm)
    metres, errors = true_depth_mm[known] / 1000, difference_mm[known]
    bins = np.floor(metres / _BIN_M).astype(int)
    return [
        {
            "from_m": float(index * _BIN_M),
            "to_m": float((index + 1) * _BIN_M),
            "people": int((bins == index).sum()),
            "bias_mm": float(np.median(errors[bins == index])),
            "median_mm": float(np.median(np.abs(errors[bins == index]))),
            "p90_mm": float(np.percentile(np.abs(errors[bins == index]), 90)),
        }
        for index in np.unique(bins)
    ]


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def plot(result: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """The pictures of a record: those it has figures for.

    :raises ImportError: matplotlib is not installed.
    """
    drawn = []
    for what, draw in (
        ("error_per_joint", _draw_joints),
        ("pck_curve", _draw_pck),
        ("depth_error", _draw_depth),
    ):
        if result.get(what):
            figure: Any = import_module("matplotlib.figure").Figure((7, 4.5), layout="constrained")
            panel = figure.subplots()
            draw(panel, result[what])
            panel.grid(alpha=0.3)
            drawn.append(folder / f"{name}_{what}.png")
            figure.savefig(drawn[-1], dpi=120)
    return drawn


def _draw_joints(panel: Any, errors: Mapping[str, float]) -> None:
    panel.barh(list(errors), list(errors.values()))
    panel.invert_yaxis()
    panel.set_xlabel("mean error, mm")


def _draw_pck(panel: Any, curve: Mapping[str, Sequence[float]]) -> None:
    for kind in ("relative", "absolute"):
        if kind in curve:
            panel.plot(curve["thresholds_mm"], curve[kind], label=kind)
    panel.set_ylim(0, 100)
    panel.set_xlabel("threshold, mm")
    panel.set_ylabel("3DPCK, %")
    panel.legend()


def _draw_depth(panel: Any, ranges: Sequence[Mapping[str, Any]]) -> None:
    middles = [(one["from_m"] + one["to_m"]) / 2 for one in ranges]
    for key, label in (("median_mm", "median"), ("p90_mm", "90 %"), ("bias_mm", "bias")):
        panel.plot(middles, [one[key] for one in ranges], marker="o", label=label)
    panel.axhline(0, color="black", linewidth=0.8)
    panel.set_xlabel("distance, m")
    panel.set_ylabel("error of the root's depth, mm")
    panel.legend()
