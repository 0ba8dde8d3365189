"""Times of jobs that take turns, so that a machine's moods meet all of them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

Job = Callable[[], Mapping[str, float]]  # does it once; ms of its stages
TOTAL = "total"


def pin_threads(count: int | None) -> int:
    """This process on so many of its CPUs, with a thread on each; how many those are."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: count or len(allowed)])
        count = len(os.sched_getaffinity(0))
    count = count or os.cpu_count() or 1
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    return count


def take_turns(
    jobs: Mapping[str, Job],
    rounds: int,
    device: torch.device,
    done: Callable[[], None] = lambda: None,
    turn_s: float = 0.5,
) -> dict[str, list[dict[str, float]]]:
    """Each job in its turn once per round, after a round that doesn't count.

    A turn lasts a while, and its median run counts: the first run of a short job pays for what the
    long one before left in the caches, which a node that always does the same never does.

    :param done: is called after each turn.
    :param turn_s: how long a turn lasts at least; 0 = a single run.
    :return: ms of each job's stages by round, and in all as ``TOTAL``.
    """
    times: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            times[name].append(_median_run(job, device, turn_s))
            done()
    return {name: rows[1:] for name, rows in times.items()}


def _median_run(job: Job, device: torch.device, turn_s: float) -> dict[str, float]:
    """Of the runs that make a turn."""
    runs: list[dict[str, float]] = []
    until_s = time.perf_counter() + turn_s
    while not runs or time.perf_counter() < until_s:
        start_s = time.perf_counter()
        stages = job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        runs.append({**stages, TOTAL: (time.perf_counter() - start_s) * 1e3})
    return sorted(runs, key=lambda run: run[TOTAL])[len(runs) // 2]


def median_ms(rows: Sequence[Mapping[str, float]], stage: str = TOTAL) -> float:
    return float(np.median([row.get(stage, 0.0) for row in rows]))


def ratio(slow: Sequence[Mapping[str, float]], fast: Sequence[Mapping[str, float]]) -> float:
    """How many times the second goes into the first: the median over their rounds."""
    return float(np.median([a[TOTAL] / b[TOTAL] for a, b in zip(slow, fast, strict=True)]))


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Median, 95th percentile and share of the whole, of each stage and of all together."""
    whole = median_ms(rows)
    stages = [*dict.fromkeys(name for row in rows for name in row)]
    return {
        name: {
            "median_ms": median_ms(rows, name),
            "p95_ms": float(np.percentile([row.get(name, 0.0) for row in rows], 95)),
            "share": median_ms(rows, name) / whole,
        }
        for name in stages
    }


class PeakMemory:
    """The most memory used since it was made, MB: of this process, or of the GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _STATUS.exists():
            # Linux: sets the peak (VmHWM) back to what is used now.
            Path("/proc/self/clear_refs").write_text("5")

    @property
    def mb(self) -> float | None:
        """None where the system doesn't say."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        return _status_mb("VmHWM")


def resident_mb() -> float | None:
    """What this process uses now, MB; None where the system doesn't say."""
    return _status_mb("VmRSS")


_STATUS = Path("/proc/self/status")


def _status_mb(key: str) -> float | None:
    if not _STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) * 1024 / 1e6
