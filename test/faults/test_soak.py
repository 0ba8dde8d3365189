"""Three minutes of the built node: nothing grows. MPPE_SOAK_MINUTES=60 takes longer."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from node_rig import EXECUTABLE
from soak import Sample, growth

pytestmark = pytest.mark.ros


@pytest.mark.slow
@pytest.mark.skipif(not EXECUTABLE.exists(), reason="needs the built package: make setup")
def test_nothing_grows(soaking):
    """It began with the first of the faults, in a process of its own."""
    process, folder = soaking
    process.wait()
    report = folder / "soak.json"
    assert report.exists(), (folder / "log.txt").read_text()
    assert (folder / "soak.png").stat().st_size > 5000
    grown = growth([Sample(**sample) for sample in json.loads(report.read_text())["samples"]])
    # How busy this machine is shows in the latency only.
    grown.pop("latency_ms", None)
    assert grown == {}


FLAT = [Sample(float(i), 500.0 + i % 3, 20, 60, 100.0 + i % 7, 3 * i) for i in range(100)]


def test_growth_is_told_from_noise():
    assert growth(FLAT) == {}
    leaking = [replace(sample, memory_mb=500 + sample.time_s) for sample in FLAT]
    assert growth(leaking).keys() == {"memory_mb"}
    threads = [replace(sample, threads=20 + int(sample.time_s) // 10) for sample in FLAT]
    assert growth(threads).keys() == {"threads"}
    slower = [replace(sample, latency_ms=sample.time_s**2) for sample in FLAT]
    assert growth(slower).keys() == {"latency_ms"}
    assert growth([replace(sample, images=5) for sample in FLAT]).keys() == {"images"}
