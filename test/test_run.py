"""`mppe run` over films: tracking, interruption, shared work, recordings, cameras, damage."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from recordings import (
    CAMERA,
    FPS,
    calibration,
    clip_frames,
    jpeg_image,
    write_bag,
    write_film,
)

from mppe_ros import media
from mppe_ros.cli import main
from mppe_ros.media import open_media, write_image
from mppe_ros.pipeline import Pipeline

FRAMES = 5
PATIENCE_S = 240


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("film") / "walk.avi", clip_frames(FRAMES))


@pytest.fixture
def looks(monkeypatch):
    """How many images the networks looked at."""
    counted, detect = [], Pipeline.detect

    def counting(self, pixels):
        counted.extend(pixels)
        return detect(self, pixels)

    monkeypatch.setattr(Pipeline, "detect", counting)
    return counted


def mppe(*arguments, code=0):
    done = CliRunner().invoke(main, ["run", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def lines_of(folder):
    return [json.loads(line) for line in (folder / "poses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(film, tmp_path_factory):
    """A run from beginning to end, with everything that can be written."""
    out = tmp_path_factory.mktemp("whole")
    kinds = ("overlay", "coco", "csv", "bag", "html")
    pytest.importorskip("plotly")
    mppe(film, "--fov", 60, "--out", out, *(word for kind in kinds for word in ("--save", kind)))
    return out


def test_people_of_a_film_keep_their_ids(whole, film):
    lines = lines_of(whole)
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert {line["image"] for line in lines} == {str(film)}
    stamps = [line["header"]["stamp"] for line in lines]
    times = [stamp["sec"] + stamp["nanosec"] * 1e-9 for stamp in stamps]
    assert times == pytest.approx([i / FPS for i in range(FRAMES)])
    ids = [{pose["track_id"] for pose in line["poses"]} for line in lines]
    assert 0 not in set.union(*ids) and len(set.intersection(*ids)) >= 2


def test_everything_asked_for_is_there(whole):
    there = {path.name for path in whole.iterdir()}
    assert there == {
        "poses.jsonl", "estimates", "walk_overlay.mp4", "coco.json", "roots.csv", "walk_bag",
        "view.html",
    }  # fmt: skip
    with open_media(whole / "walk_overlay.mp4") as video:
        assert video.frame_count == FRAMES


def test_an_interrupted_run_goes_on_with_the_same_result(whole, film, tmp_path, looks):
    """A real process, stopped by a real signal."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from mppe_ros.cli import main; main(prog_name='mppe')"]
    process = subprocess.Popen(
        [*command, "run", str(film), "--fov", "60", "--out", str(out)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    estimates = out / "estimates" / "1-of-1.jsonl"
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if estimates.is_file() and len(estimates.read_bytes().splitlines()) >= 3:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    _, errors = process.communicate(timeout=PATIENCE_S)
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")  # on a machine that stalls
    assert process.returncode == 130, errors
    assert "--resume" in errors
    seen = len(estimates.read_bytes().splitlines()) - 1
    with estimates.open("ab") as file:
        file.write(b'{"image": "walk')  # as a crash leaves it
    mppe(film, "--fov", 60, "--out", out, "--resume")
    assert len(looks) == FRAMES - seen
    assert lines_of(out) == lines_of(whole)


def test_parts_make_the_whole(whole, film, tmp_path, looks):
    out = tmp_path / "out"
    for part in ("2/2", "1/2"):
        done = mppe(film, "--fov", 60, "--out", out, "--shard", part)
        assert f"Part {part[0]} of 2" in done.stderr
        assert not (out / "poses.jsonl").exists()
    assert len(looks) == FRAMES
    mppe(film, "--fov", 60, "--out", out, "--resume", "--save", "csv")
    assert len(looks) == FRAMES  # nothing is looked at twice
    lines = lines_of(out)
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    ids = [{pose["track_id"] for pose in line["poses"]} for line in lines]
    assert len(set.intersection(*ids)) >= 2
    assert not (out / "walk_overlay.mp4").exists() and (out / "roots.csv").exists()


def test_resuming_by_other_settings_is_refused(whole, film):
    done = mppe(film, "--fov", 70, "--out", whole, "--resume", code=1)
    assert "camera" in done.stderr and "fov_deg=60" in done.stderr
    assert "Traceback" not in done.output


def test_without_tracking_each_image_is_for_itself(film):
    done = mppe(film, "--fov", 60, "--no-tracking", "--seconds", 0.1, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2 and lines[0]["poses"]
    assert all(pose["track_id"] == 0 for line in lines for pose in line["poses"])


def test_a_recording_with_a_damaged_image(tmp_path):
    frames = clip_frames(3)
    images = [
        jpeg_image("/head/image_raw/compressed", rgb, 50 if number == 1 else None)
        for number, rgb in enumerate(frames)
    ]
    info = calibration(CAMERA)
    height, width = frames[0].shape[:2]
    info |= {"width": width, "height": height}
    bag = write_bag(tmp_path / "bag", images, [("/head/camera_info", info)])
    out = tmp_path / "out"
    done = mppe(bag, "--out", out, "--save", "mcap", "--fov", 90, code=1)
    assert "image 1" in done.stderr and "1 of 3 images" in done.stderr
    assert "camera_info is used" in done.stderr
    lines = lines_of(out)
    assert [line["frame"] for line in lines] == [0, 2]
    assert [line["header"]["frame_id"] for line in lines] == ["optical"] * 2
    assert lines[0]["intrinsics_source"] == 0
    assert lines[0]["camera"]["fx"] == CAMERA.fx
    assert (out / "bag_mcap").is_dir()


def test_a_folder_is_photos_or_a_film(tmp_path):
    for number, rgb in enumerate(clip_frames(2)):
        write_image(tmp_path / f"{number}.png", rgb)
    done = mppe(tmp_path, "--fov", 60, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(tmp_path / f"{n}.png") for n in (0, 1)]
    assert all(line["header"]["stamp"] == {"sec": 0, "nanosec": 0} for line in lines)
    done = mppe(tmp_path, "--fov", 60, "--json", "--fps", 10)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[1]["header"]["stamp"]["nanosec"] == 100_000_000
    assert all(pose["track_id"] for line in lines for pose in line["poses"])


def test_a_webcam_is_watched_for_a_while(tmp_path, monkeypatch):
    """OpenCV's capture of a film plays the camera."""
    black = write_film(tmp_path / "black.avi", [np.zeros((48, 64, 3), np.uint8)] * 2000)
    capture = cv2.VideoCapture(str(black))
    with monkeypatch.context() as patch:
        patch.setattr(media, "_open_capture", lambda number, complaint: capture)
        done = mppe(0, "--fov", 60, "--seconds", 0.5, "--out", tmp_path / "out")
    assert "camera 0" not in done.stdout
    lines = lines_of(tmp_path / "out")
    assert lines and {line["image"] for line in lines} == {"camera 0"}
    with open_media(tmp_path / "out" / "camera_0_overlay.mp4") as video:
        assert video.frame_count == len(lines)


def test_ctrl_c_ends_a_webcam_in_order(tmp_path, monkeypatch):
    black = write_film(tmp_path / "black.avi", [np.zeros((48, 64, 3), np.uint8)] * 50)
    capture = cv2.VideoCapture(str(black))

    class Camera:
        """Whose user has seen enough after 3 images."""

        frames = 0

        def read(self):
            self.frames += 1
            if self.frames == 4:  # one was read to see whether it works
                os.kill(os.getpid(), signal.SIGINT)
            return capture.read()

        def get(self, key):
            return capture.get(key)

        def release(self):
            capture.release()

    with monkeypatch.context() as patch:
        patch.setattr(media, "_open_capture", lambda number, complaint: Camera())
        before = signal.getsignal(signal.SIGINT)  # ignored in a shell's background jobs
        mppe(0, "--fov", 60, "--out", tmp_path / "out")
    count = len(lines_of(tmp_path / "out"))
    assert 1 <= count < 40
    with open_media(tmp_path / "out" / "camera_0_overlay.mp4") as video:
        assert video.frame_count == count
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--resume"], "need --out"),
        (["--save", "csv"], "need --out"),
        (["--shard", "3/2", "--out", "x"], "numbered from 1 to 2"),
        (["--shard", "half", "--out", "x"], "not like 2/4"),
        (["--shard", "1/2", "--json", "--out", "x"], "--shard is for"),
        (["--camera", "nowhere.yaml"], "nowhere.yaml"),
        (["--camera", "a.yaml", "--fov", "60"], "either --camera or"),
        (["--fx", "5", "--distortion", "1,x"], "'1,x' is not numbers"),
        (["--boxes", "boxes.json"], f"one photo, not {FRAMES} images"),
    ],
)
def test_errors_are_one_sentence(film, arguments, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["run", str(film), *arguments])
    assert done.exit_code in (1, 2) and complaint in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)
