"""The benchmark measures what it says it does; no time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mppe_ros.benchmark import timing
from mppe_ros.benchmark.networks import REFERENCE
from mppe_ros.benchmark.report import HEADLINES
from mppe_ros.benchmark.run import Comparison, Options
from mppe_ros.benchmark.scene import Scene
from mppe_ros.benchmark.timing import TOTAL, PeakMemory, ratio, resident_mb, summary, take_turns
from mppe_ros.cli import main
from mppe_ros.image_messages import image_to_rgb

CPU = torch.device("cpu")


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def job(name: str) -> dict[str, float]:
        calls.append(name)
        return {"stage": float(len(calls))}

    jobs = {"a": lambda: job("a"), "b": lambda: job("b")}
    rows = take_turns(jobs, 2, CPU, turn_s=0)
    assert calls == ["a", "b"] * 3
    assert [row["stage"] for row in rows["a"]] == [3, 5]
    assert all(row[TOTAL] >= 0 for of in rows.values() for row in of)


def test_the_median_run_of_a_turn_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock))
    runs = iter([1.0, 9.0, 0.5, 2.0, 3.0, 1.0])  # s

    def job() -> dict[str, float]:
        nonlocal clock
        seconds = next(runs)
        clock += seconds
        return {"stage": seconds}

    (rows,) = take_turns({"a": job}, 0, CPU, turn_s=1).values()
    assert rows == []
    (rows,) = take_turns({"a": job}, 1, CPU, turn_s=6).values()
    assert rows == [{"stage": 2.0, TOTAL: 2000.0}]


def test_summaries_are_medians_percentiles_and_shares() -> None:
    rows = [{"detect": float(ms), TOTAL: 2.0 * ms} for ms in range(1, 102)]
    found = summary(rows)
    assert found["detect"] == {"median_ms": 51, "p95_ms": 96, "share": 0.5}
    assert found[TOTAL]["share"] == 1
    # Round by round: a slow round meets both.
    assert ratio([{TOTAL: 30.0}, {TOTAL: 300.0}], [{TOTAL: 10.0}, {TOTAL: 100.0}]) == 3


def test_the_peak_of_memory_is_of_what_came_after() -> None:
    before = PeakMemory(CPU)
    block = np.ones(25_000_000)  # 200 MB
    used, peak = resident_mb(), before.mb
    del block
    if used is None or peak is None:
        return
    assert peak >= used > 200


@pytest.mark.slow
def test_the_pipeline_says_what_the_reference_way_says(tmp_path: Path) -> None:
    """With random networks of the paper's kind: 0.1 px, 0.1 % of the distance."""
    options = Options(
        [REFERENCE], ["fp32"], [4], [(640, 480)], "cpu", "torch", rounds=1, blazepose=False
    )
    comparison = Comparison(options, tmp_path)
    assert comparison.reference is not None
    comparison.reference(comparison.scene.rgb)
    for ours in comparison.ours.values():
        ours()
    found = comparison.differences()[f"{REFERENCE} fp32"]
    assert found["people"] == 4
    assert found["joints_px"] < 0.1 and found["depth_percent"] < 0.1


def test_a_scene_has_its_size_and_people_inside() -> None:
    scene = Scene.make(320, 240, 5)
    assert scene.rgb.shape == (240, 320, 3) and scene.boxes_xywh_px.shape == (5, 4)
    x, y, w, h = scene.boxes_xywh_px.T
    assert (x >= 0).all() and (x + w <= 320).all() and (y >= 0).all() and (y + h <= 240).all()
    np.testing.assert_array_equal(image_to_rgb(scene.message), scene.rgb)
    assert (scene.camera.width, scene.camera.height) == (320, 240)


@pytest.fixture
def same_threads() -> Iterator[None]:
    """What the command pins is freed for the tests after this one."""
    cpus = os.sched_getaffinity(0)
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    os.sched_setaffinity(0, cpus)
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv_threads)


@pytest.mark.usefixtures("same_threads")
def test_the_command_gives_every_figure_and_the_stages(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main,
        ["bench", "--weights", "open-v0", "--precision", "fp32", "--backend", "torch",
         "--rounds", "1", "--people", "1", "--size", "160x120", "--frames", "10", "--threads", "1",
         "--device", "cpu", "--no-dds", "--no-blazepose", "--json", "--out", str(tmp_path)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert json.loads((tmp_path / "bench.json").read_text()) == record
    tables = (tmp_path / "bench.md").read_text()
    assert all(text in tables for text in HEADLINES.values()) and "| 160x120 |" in tables
    coloured = np.ptp(cv2.imread(str(tmp_path / "bench.png")).astype(int), axis=2) > 50
    by_people, by_size = np.split(coloured.any(axis=0), 2)
    assert by_people.sum() > 200 and by_size.any()  # a line between 1 and 4, and a point
    assert set(HEADLINES) <= set(record)
    assert record["open_ms_per_person_frame"] > 0 and record["overhead_ratio"] > 0
    assert record["speedup_fp32"] is None  # there was no reference way
    assert [(case["people"], case["width"]) for case in record["sweep"]] == [(1, 160), (4, 160)]
    stages = ["decode", "detect", "crop", "root and pose", "place", "publish", TOTAL]
    for case in record["sweep"]:
        assert sorted(case["stages"]) == sorted(stages)
        assert sum(case["stages"][name]["share"] for name in stages[:-1]) <= 1.001  # parts


@pytest.mark.usefixtures("same_threads")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], (11, True, 300)),
        (["--quick"], (3, False, 30)),
        (["--quick", "--rounds", "9", "--frames", "10000"], (9, False, 10000)),
        (["--quick", "--sweep", "--frames", "0"], (3, True, 0)),
    ],
)
def test_what_is_asked_for_counts_though_it_should_be_quick(
    monkeypatch: pytest.MonkeyPatch, given: list[str], expected: tuple[int, bool, int]
) -> None:
    asked = []

    def measure(options: Any, folder: Path, sweep: bool, frames: int) -> dict[str, Any]:
        asked.append((options.rounds, sweep, frames))
        return {}

    # Of the package `cli`, "bench" is the command.
    monkeypatch.setattr(sys.modules["mppe_ros.cli.bench"], "_measure", measure)
    done = CliRunner().invoke(main, ["bench", "--no-dds", "--json", *given])
    assert done.exit_code == 0, done.output
    assert asked == [expected]


OVER_DDS = """
import sys
from mppe_ros import dds_benchmark
dds_benchmark._WARM_UP, dds_benchmark._THROUGHPUT_S, dds_benchmark._REPORTS = 1, 1.0, 1
dds_benchmark._ANSWER_TIMEOUT_S = 120.0
sys.exit(dds_benchmark.main(["open-v0", "fp32", "cpu", "torch"]))
"""


@pytest.mark.ros
def test_the_node_is_measured_over_dds() -> None:
    """By a real camera, node and echo, though not for long."""
    pytest.importorskip("rclpy", reason="needs ROS 2")
    pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")
    done = subprocess.run([sys.executable, "-c", OVER_DDS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"open_fps_4_people_dds", "ros_overhead_ms", "dds"}
    assert found["dds"]["people"] > 0
    assert found["dds"]["image_to_poses_ms"] > 0 and found["dds"]["image_to_echo_ms"] > 0
