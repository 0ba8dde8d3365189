"""The demo: its parts, its processes, and one whole run on a short clip."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mppe_ros.msg", reason="the package is not built: make setup")

from mppe_ros import demo, drawing, media
from mppe_ros.demo import Child, DemoError, Recording, Result, SeenImage
from mppe_ros.evaluation.matching import Body, TrueImage
from mppe_ros.sample_camera import SAMPLE_CLIP
from mppe_ros.skeletons import MUCO_21

ROOT = Path(__file__).parents[1]
FRAMES = 10
PATIENCE_S = 120

pytestmark = pytest.mark.ros


def result(stamp_s, people=0, latency_ms=100.0, digest=0):
    sec, nanosec = divmod(round(stamp_s * 1e9), 10**9)
    record = {
        "header": {"stamp": {"sec": sec, "nanosec": nanosec}},
        "joint_names": ["Pelvis"],
        "poses": [
            {
                "bbox": [10.0, 10.0, 50.0, 100.0],
                "root": {"pose": {"position": {"x": 0.0, "y": 0.0, "z": 3.0}}},
                "joints": [{"position": {"x": 0.0, "y": 0.0, "z": 3.0}}],
            }
        ]
        * people,
    }
    return Result(record, latency_ms, SeenImage(digest, (0, 0)))


def test_figures_of_a_recording_worked_out_by_hand():
    results = [result(10.0, 1, 100, digest=7), result(10.5, 2, 300), result(11.0, 0, 200)]
    somebody = Body(
        np.array([10.0, 10, 50, 100]), np.array([0.0, 30, 3040]), np.full((13, 3), np.nan)
    )
    figures = demo.summary(
        Recording(None, frames_in=12, results=results),
        {7: TrueImage((somebody, somebody), ())},
    )
    assert (figures["frames_in"], figures["frames_processed"]) == (12, 3)
    assert figures["frames_dropped"] == 9
    assert figures["people_per_frame"] == pytest.approx(1)
    assert figures["fps"] == pytest.approx(2 / 1.1)
    assert figures["latency_ms"] == pytest.approx({"p50": 200, "p95": 290})
    assert (figures["detection_recall"], figures["detection_precision"]) == (0.5, 1)
    assert figures["root_error_mm"] == pytest.approx({"median": 50, "p90": 50})
    assert figures["mpjpe_mm"] == {"median": None}
    assert "50.0 %" in demo.table(figures)


def test_without_truth_or_results_figures_are_null():
    figures = demo.summary(Recording(None), {})
    assert figures["people_per_frame"] is figures["fps"] is figures["detection_recall"] is None
    assert figures["root_error_mm"] == {"median": None, "p90": None}
    assert "0 in, 0 processed" in demo.table(figures)


def test_the_video_plays_in_real_time():
    # 10 Hz, images 0, 3, 4 and 9 processed: each is shown until the next.
    results = [result(100 + k / 10) for k in (0, 3, 4, 9)]
    assert demo.shown_frames(results, 10) == [3, 1, 5, 1]


def test_pictures_of_other_sizes_fit_into_the_video():
    frame = drawing.fit(np.full((100, 300, 3), 200, np.uint8), (60, 80, 3))
    assert frame.shape == (60, 80, 3)
    assert frame[[30, 2], 40].tolist() == [[200] * 3, [0] * 3]


def write_clip(path, frames, images):
    with media.VideoWriter(path, 10) as writer:
        for frame in frames:
            writer.write(frame)
    truth = {"joint_names": MUCO_21.joint_names, "images": images}
    path.with_suffix(".json").write_text(json.dumps(truth))


def test_truth_belongs_to_what_an_image_shows(tmp_path):
    path = tmp_path / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), np.uint8)
    write_clip(path, noise, [{"frame": index, "people": []} for index in (0, 2)])
    with media.open_media(path) as source:
        truth = demo.truth_by_digest(source, str(path))
        shown = [demo._digest(frame.rgb) in truth for frame in source]
    assert shown == [True, False, True, False]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Lets Child run a small script in place of an installed executable."""

    def write(text):
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable} -S\n{text}")
        path.chmod(0o755)
        monkeypatch.setattr(demo, "_executable", lambda name: path)

    return write


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_that_fails_is_quoted(program, tmp_path):
    program("print('[INFO] hello'); print('[FATAL] no such weights'); raise SystemExit(3)")
    with Child("pose_node", {}, tmp_path / "log") as child, pytest.raises(
        DemoError, match=r"pose_node ended with code 3: \[FATAL\] no such weights"
    ):
        wait_until(lambda: not child.running)


def test_a_child_that_will_not_stop_is_killed(program, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_STOP_TIMEOUT_S", 0.2)
    program(
        "import signal, time\n"
        "for number in (2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "print('ready', flush=True); time.sleep(1000)"
    )
    log = tmp_path / "log"
    with Child("pose_node", {}, log) as child:
        wait_until(lambda: "ready" in log.read_text())
        assert child.running
    assert child._process.poll() == -signal.SIGKILL


def test_parameters_reach_the_child_as_they_are(program, tmp_path):
    program("import sys; print(sys.argv[1:])")
    log = tmp_path / "log"
    with Child("sample_camera", {"source": "0", "rate": 2.5, "loop": True}, log) as child:
        wait_until(lambda: not child.running)
    assert log.read_text().strip() == str(
        ["--ros-args", "-p", 'source:="0"', "-p", "rate:=2.5", "-p", "loop:=true"]
    )


def run_demo(*arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    environment.pop("ROS_DOMAIN_ID", None)
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLE_CLIP.exists(), reason="no sample clip yet")
def test_a_whole_run_on_the_beginning_of_the_sample_clip(tmp_path):
    clip, out = tmp_path / "short clip.mp4", tmp_path / "results"
    with media.open_media(SAMPLE_CLIP) as source:
        fps = source.fps
        with media.VideoWriter(clip, fps) as writer:
            for _, frame in zip(range(FRAMES), source, strict=False):
                writer.write(frame.rgb)
    truth = json.loads(SAMPLE_CLIP.with_suffix(".json").read_text())
    truth["images"] = [image for image in truth["images"] if image["frame"] < FRAMES]
    clip.with_suffix(".json").write_text(json.dumps(truth))

    run = run_demo("--input", str(clip), "--out", str(out), "--rate", "3", "--seconds", "20")
    logs = "".join(path.read_text() for path in sorted(out.glob("*.log")))
    assert run.returncode == 0, run.stdout + run.stderr + logs
    figures = json.loads((out / "summary.json").read_text())
    assert figures["frames_in"] == FRAMES
    assert 0 < figures["frames_processed"] <= FRAMES
    assert figures["frames_processed"] + figures["frames_dropped"] == FRAMES
    assert figures["latency_ms"]["p50"] > 0
    assert figures["detection_recall"] >= 0.5
    lines = [json.loads(line) for line in (out / "poses.jsonl").read_text().splitlines()]
    assert len(lines) == figures["frames_processed"]
    assert {line["header"]["frame_id"] for line in lines} == {"camera_optical_frame"}
    people = sum(len(line["poses"]) for line in lines)
    assert people == pytest.approx(figures["people_per_frame"] * len(lines))
    with media.open_media(out / "overlay.mp4") as overlay:
        assert overlay.width > truth["width"] and len(list(overlay)) <= FRAMES
    assert media.read_image(out / "overlay.png").shape[0] == truth["height"]
    assert str(out / "overlay.mp4") in run.stdout


def test_what_is_not_there_ends_the_demo_with_one_sentence(tmp_path, capsys):
    assert demo.main(["--input", str(tmp_path / "no.mp4"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.strip().endswith("there is no such file or folder")
