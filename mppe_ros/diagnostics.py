"""How the node is doing, judged from what became of its images. Knows no node, no ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from .records import Record

# What the reasons of ``Stats.dropped`` are called, and what each means.
DROPS = {
    "idle": "nobody subscribes, or processing is off",
    "without_camera": "no camera_info yet",
    "unpaired": "without camera_info of the same time",
    "replaced": "a newer one came before they were begun",
    "too_old": "older than max_image_age",
    "paused": "not begun when it was deactivated or switched off",
    "late": "not done when it was deactivated or switched off",
}

REPORT_PERIOD_S = 1.0
# Rates and verdicts are of so many seconds: long enough for a camera of 1 Hz.
WINDOW_S = 5.0


class Level(IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass
class Stats:
    """What became of the images since the node started. Each field is written by one thread."""

    received: int = 0
    processed: int = 0
    failed: int = 0
    detector_runs: int = 0  # processed images that DetectNet looked at
    # Dropped, by reason: the keys of DROPS.
    idle: int = 0
    without_camera: int = 0
    unpaired: int = 0
    replaced: int = 0
    too_old: int = 0
    paused: int = 0
    late: int = 0
    spent_ms: Mapping[str, float] = field(default_factory=dict)  # by stage, all images together
    # Of the last image.
    people: int = 0
    tracks: int = 0  # people with an id, those out of sight too
    age_ms: float = 0.0  # from its stamp to the publishing, by the node's clock
    intrinsics: str = "none yet"
    depth: str = "off"
    complaint: str = ""  # what is worse than it could be
    error: str = ""  # why the last one that failed did

    def spend(self, stage_ms: Mapping[str, float]) -> None:
        """Adds the stages of an image."""
        spent_ms = dict(self.spent_ms)  # a new one: another thread may be reading the old
        for stage, ms in stage_ms.items():
            spent_ms[stage] = spent_ms.get(stage, 0.0) + ms
        self.spent_ms = spent_ms

    @property
    def drops(self) -> dict[str, int]:
        return {reason: getattr(self, reason) for reason in DROPS}

    @property
    def dropped(self) -> int:
        return sum(self.drops.values())


@dataclass(frozen=True)
class Situation:
    """What the node is and does, apart from its images."""

    state: str = "unconfigured"  # as the lifecycle calls it
    problem: str = ""  # why the last transition failed
    enabled: bool = True
    watched: bool = False  # somebody subscribes to an output
    silence: str = ""  # what the camera fails to send
    doubt: str = ""  # what may be wrong with what it sends
    values: Mapping[str, str] = field(default_factory=dict)  # device, weights, precision


@dataclass(frozen=True)
class Report:
    """One DiagnosticStatus, apart from its names."""

    level: Level
    message: str
    values: Mapping[str, str]

    def record(self, name: str, hardware_id: str, stamp: tuple[int, int]) -> Record:
        """DiagnosticArray.msg of this report alone."""
        return {
            "header": {"stamp": {"sec": stamp[0], "nanosec": stamp[1]}},
            "status": [
                {
                    "level": bytes([self.level]),
                    "name": name,
                    "message": self.message,
                    "hardware_id": hardware_id,
                    "values": [{"key": k, "value": v} for k, v in self.values.items()],
                }
            ],
        }


class Diagnostics:
    """Makes a report of the last seconds, each time that it is asked."""

    def __init__(self, now_s: float) -> None:
        self._samples = deque([(now_s, Stats())])

    def report(self, now_s: float, stats: Stats, situation: Situation) -> Report:
        """:param now_s: of a clock that only goes forward."""
        self._samples.append((now_s, replace(stats)))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - WINDOW_S:
            self._samples.popleft()
        since_s, before = self._samples[0]
        recent = _difference(stats, before)
        period_s = max(now_s - since_s, 1e-9)
        level, message = _verdict(recent, stats, situation, period_s)
        return Report(level, message, _values(recent, stats, situation, period_s))


def _difference(now: Stats, before: Stats) -> Stats:
    counts = ("received", "processed", "failed", "detector_runs", *DROPS)
    spent_ms = {stage: ms - before.spent_ms.get(stage, 0) for stage, ms in now.spent_ms.items()}
    differences = {name: getattr(now, name) - getattr(before, name) for name in counts}
    return Stats(**differences, spent_ms=spent_ms)


def _verdict(
    recent: Stats, stats: Stats, situation: Situation, period_s: float
) -> tuple[Level, str]:
    if situation.problem:
        return Level.ERROR, f"{situation.state}: {situation.problem}"
    if situation.state != "active":
        return Level.WARN, f"not active ({situation.state}): images are not processed"
    if not situation.enabled:
        return Level.WARN, "processing is off: switch it on by the service ~/enable"
    if situation.silence:
        return Level.ERROR, situation.silence
    losses = {
        f"failed; {stats.error}": recent.failed,
        f"dropped: {DROPS['too_old']}": recent.too_old,
        f"dropped: {DROPS['unpaired']}": recent.unpaired,
    }
    for reason, count in losses.items():
        if count:
            level = Level.WARN if recent.processed else Level.ERROR
            return level, f"{count} images in {period_s:.0f} s {reason}"
    if not situation.watched:
        return Level.OK, "idle: nobody subscribes to poses, markers or debug image"
    if not recent.processed:
        return Level.OK, "waiting for the first result"
    if complaint := stats.complaint or situation.doubt:
        return Level.WARN, complaint
    return Level.OK, f"{recent.processed / period_s:.1f} images/s, {stats.people} people"


def _values(recent: Stats, stats: Stats, situation: Situation, period_s: float) -> dict[str, str]:
    return {
        "state": situation.state,
        "enabled": str(situation.enabled).lower(),
        "rate in (Hz)": f"{recent.received / period_s:.2f}",
        "rate out (Hz)": f"{recent.processed / period_s:.2f}",
        "people": str(stats.people),
        "tracks": str(stats.tracks),
        "detector share": f"{recent.detector_runs / max(recent.processed, 1):.2f}",
        "age (ms)": f"{stats.age_ms:.1f}",
        **{
            f"{stage} (ms)": f"{ms / max(recent.processed, 1):.1f}"
            for stage, ms in recent.spent_ms.items()
        },
        "images received": str(stats.received),
        "images processed": str(stats.processed),
        "images failed": str(stats.failed),
        "images dropped": str(stats.dropped),
        **{f"dropped: {DROPS[reason]}": str(count) for reason, count in stats.drops.items()},
        "intrinsics": stats.intrinsics,
        "depth": stats.depth,
        **situation.values,
    }
