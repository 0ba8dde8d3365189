"""The built node for a long time: does anything grow?

    python test/faults/soak.py --minutes 60 --out soak_out

Node and camera are processes of their own: the sample clip over and over, at 30 Hz, people come
and go with it. Memory, threads and open files are the kernel's word (/proc), latency is from an
image's stamp to its poses. Writes ``soak.json`` and ``soak.png``; exit status 1 if something grew.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from node_rig import EXECUTABLE, BuiltNode, Robot, wait_until  # noqa: E402

RATE_HZ = 30
# Between the second quarter of the run and its last, in medians: a share, and what is noise.
ALLOWED = {
    "memory_mb": (0.05, 15.0),
    "threads": (0.0, 1.0),
    "files": (0.0, 3.0),
    "latency_ms": (2.0, 300.0),  # this machine may have other things to do
}


@dataclass(frozen=True)
class Sample:
    """The node at one moment."""

    time_s: float
    memory_mb: float
    threads: int
    files: int
    latency_ms: float  # median since the last sample
    images: int  # answered so far


class Watch:
    """Takes samples of a process."""

    def __init__(self, pid: int, robot: Robot) -> None:
        self._process, self._robot = Path(f"/proc/{pid}"), robot
        self._began_s, self._images = time.monotonic(), 0

    def sample(self) -> Sample:
        status = dict(
            line.split(":", 1) for line in (self._process / "status").read_text().splitlines()
        )
        latencies, self._robot.latencies_ms = self._robot.latencies_ms, []
        self._images += len(latencies)
        return Sample(
            time.monotonic() - self._began_s,
            int(status["VmRSS"].split()[0]) / 1024,
            int(status["Threads"]),
            len(list((self._process / "fd").iterdir())),
            statistics.median(latencies) if latencies else 0.0,
            self._images,
        )


class Listener(Robot):
    """Notes latencies, keeps no messages."""

    def __init__(self, namespace: str) -> None:
        self.latencies_ms: list[float] = []
        super().__init__(namespace)
        self.poses = self.markers = self.logs = []

    def listen(self, message_type, topic, callback, qos):
        keep = self._note if topic == "mppe/poses" else lambda _: None
        return super().listen(message_type, topic, keep, qos)

    def _note(self, message) -> None:
        stamp = message.header.stamp
        now_ns = self.node.get_clock().now().nanoseconds
        self.latencies_ms.append((now_ns - stamp.sec * 10**9 - stamp.nanosec) * 1e-6)


def soak(minutes: float, namespace: str = "/soak") -> list[Sample]:
    """Samples of a run of that length, after the first answer."""
    camera = EXECUTABLE.with_name("sample_camera")
    robot, node = Listener(namespace), BuiltNode(namespace)
    try:
        node.wait_for("listening on")
        source = BuiltNode(
            namespace, "-p", "loop:=true", "-p", f"rate:={RATE_HZ}.0", executable=camera
        )
        try:
            wait_until(lambda: robot.latencies_ms)
            return _samples(minutes, Watch(node.process.pid, robot), node)
        finally:
            source.end(signal.SIGTERM)
    finally:
        status = node.end(signal.SIGTERM)
        robot.close()
        assert status == 0, "".join(node.lines)


def _samples(minutes: float, watch: Watch, node: BuiltNode) -> list[Sample]:
    samples, seconds = [], minutes * 60
    count = max(40, min(600, round(seconds)))
    for _ in range(count):
        time.sleep(seconds / count)
        assert node.process.poll() is None, "".join(node.lines)
        samples.append(watch.sample())
    return samples


def growth(samples: list[Sample]) -> dict[str, str]:
    """What grew by more than noise, in words; the first quarter is warming up."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    found = {}
    for name, (share, noise) in ALLOWED.items():
        before = statistics.median(getattr(sample, name) for sample in early)
        after = statistics.median(getattr(sample, name) for sample in late)
        if after > before * (1 + share) + noise:
            found[name] = f"{name} grew from {before:.1f} to {after:.1f}"
    if samples[-1].images == samples[-quarter].images:
        found["images"] = "no image was answered in the last quarter"
    return found


def write_report(folder: Path, samples: list[Sample], grown: dict[str, str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    report = {"samples": [asdict(sample) for sample in samples], "grown": list(grown.values())}
    (folder / "soak.json").write_text(json.dumps(report, indent=1))
    figure, axes = plt.subplots(len(ALLOWED), sharex=True, figsize=(8, 9))
    minutes = [sample.time_s / 60 for sample in samples]
    for axis, name in zip(axes, ALLOWED, strict=True):
        values = [getattr(sample, name) for sample in samples]
        axis.plot(minutes, values)
        axis.set_ylabel(name.replace("_mb", ", MB").replace("_ms", ", ms"))
        axis.set_ylim(0, 1.1 * max(values))
    axes[-1].set_xlabel("time, min")
    figure.savefig(folder / "soak.png", dpi=100, bbox_inches="tight")
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description="runs the node for long and looks for growth")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("soak_out"))
    options = parser.parse_args()
    # Not at once: the node and its camera are to be ended, too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    samples = soak(options.minutes)
    grown = growth(samples)
    write_report(options.out, samples, grown)
    last = samples[-1]
    print(
        f"{last.images} images in {last.time_s / 60:.0f} min, {last.memory_mb:.0f} MB, "
        f"{last.threads} threads, {last.files} open files, {last.latency_ms:.0f} ms: "
        + ("; ".join(grown.values()) or "nothing grew")
        + f"; see {options.out}"
    )
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
