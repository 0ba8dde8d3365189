"""Three minutes of the built node: nothing grows. MPPE_SOAK_MINUTES=60 takes longer."""

import os
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from soak import Sample, growth, soak, write_report

pytestmark = pytest.mark.ros


@pytest.mark.slow
def test_nothing_grows(tmp_path):
    samples = soak(float(os.environ.get("MPPE_SOAK_MINUTES", 3)), "/soak_test")
    grown = growth(samples)
    # How busy this machine is shows in the latency only.
    grown.pop("latency_ms", None)
    write_report(tmp_path, samples, grown)
    assert (tmp_path / "soak.png").stat().st_size > 5000
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
