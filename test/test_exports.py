"""What is made of poses.jsonl, read back by those who are to read it."""

import csv
import json
import math

import numpy as np
import pytest
from recordings import CAMERA, FPS, person, poses, write_film, write_result

from mppe_ros.drawing import Area
from mppe_ros.exports import CSV_COLUMNS, OverlayVideo, write_coco, write_roots, write_trc
from mppe_ros.media import open_media, read_image
from mppe_ros.plots import write_plots
from mppe_ros.results import Results, ResultsError, camera_of, message_of, with_pictures
from mppe_ros.runs import open_film
from mppe_ros.skeletons import HUMAN36M_17


@pytest.fixture
def results(tmp_path):
    return Results(write_result(tmp_path / "result", "walk.mp4"))


def test_lines_know_their_image_and_camera(results):
    lines = list(results)
    assert {line["image"] for line in lines} == {"walk.mp4"}
    assert [line["frame"] for line in lines] == list(range(6))
    assert all(camera_of(line) == CAMERA for line in lines)
    record = poses("walk.mp4", 0, [person(1, 0)]).record
    assert message_of(lines[0]) == record
    invalid = lines[1]["poses"][1]["joints"][3]["position"]
    assert all(math.isnan(value) for value in invalid.values())


def test_a_line_cut_off_by_an_interruption_is_no_line(results):
    text = results.path.read_text()
    results.path.write_text(text[:-20])
    assert len(list(results)) == 5


@pytest.mark.parametrize("content", ["nonsense\n", "[1]\n", '{"poses": []}\n'])
def test_what_is_no_result_is_named(tmp_path, content):
    (tmp_path / "poses.jsonl").write_text(content)
    with pytest.raises(ResultsError, match="poses.jsonl: line 1"):
        Results(tmp_path)
    with pytest.raises(ResultsError, match="nowhere"):
        Results(tmp_path / "nowhere")


def test_coco_has_the_fields_that_its_tools_want(results, tmp_path):
    write_coco(results, tmp_path / "coco.json")
    coco = json.loads((tmp_path / "coco.json").read_text(), parse_constant=pytest.fail)
    (category,) = coco["categories"]
    assert category["keypoints"] == list(HUMAN36M_17.joint_names)
    assert category["skeleton"] == [[a + 1, b + 1] for a, b in HUMAN36M_17.bones]
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4, 5, 6]
    assert all((im["width"], im["height"]) == (640, 480) for im in coco["images"])
    assert [a["id"] for a in coco["annotations"]] == list(range(1, 12))
    by_image = [sum(a["image_id"] == i for a in coco["annotations"]) for i in range(1, 7)]
    assert by_image == [1, 2, 2, 2, 2, 2]
    second = next(a for a in coco["annotations"] if a["track_id"] == 2)
    keypoints = np.reshape(second["keypoints"], (17, 3))
    assert second["num_keypoints"] == 16 == (keypoints[:, 2] > 0).sum()
    assert keypoints[3].tolist() == [0, 0, 0] and second["keypoints_3d_m"][3] == [None] * 3
    np.testing.assert_allclose(keypoints[5, :2], person(2, 1).joints_px[5])
    np.testing.assert_allclose(second["root_m"], person(2, 1).root_mm / 1000)
    assert second["area"] == second["bbox"][2] * second["bbox"][3]


def test_an_empty_result_is_a_valid_coco_file_and_table(tmp_path):
    (tmp_path / "poses.jsonl").write_text("")
    write_coco(Results(tmp_path), tmp_path / "coco.json")
    assert json.loads((tmp_path / "coco.json").read_text())["annotations"] == []
    write_roots(Results(tmp_path), tmp_path / "roots.csv")
    assert (tmp_path / "roots.csv").read_text().splitlines() == [",".join(CSV_COLUMNS)]


def test_the_table_of_roots(results, tmp_path):
    write_roots(results, tmp_path / "roots.csv")
    with (tmp_path / "roots.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11 and tuple(rows[0]) == CSV_COLUMNS
    last = rows[-1]
    assert (last["image"], last["frame"], last["track_id"]) == ("walk.mp4", "5", "2")
    assert float(last["time_s"]) == pytest.approx(5 / FPS, abs=1e-5)
    root = [float(last[f"{axis}_m"]) for axis in "xyz"]
    np.testing.assert_allclose(root, person(2, 5).root_mm / 1000, rtol=1e-5)
    assert [float(last[f"std_{axis}_m"]) for axis in "xyz"] == [0.05, 0.06, 0.4]
    assert float(last["vx_m_s"]) == pytest.approx(0.6)


def test_a_motion_file_per_person(results, tmp_path):
    trc = pytest.importorskip("trc", reason="needs trc-data-reader")
    files = write_trc(results, tmp_path / "trc")
    assert sorted(path.name for path in files) == ["walk_1.trc", "walk_2.trc"]
    data = trc.TRCData()
    data.load(str(tmp_path / "trc" / "walk_2.trc"))
    assert data["NumFrames"] == 5 and data["DataRate"] == pytest.approx(FPS)
    assert data["Units"] == "mm" and tuple(data["Markers"]) == HUMAN36M_17.joint_names
    # The library that writes doesn't read empty cells; the format's other readers do.
    cells = (tmp_path / "trc" / "walk_2.trc").read_text().splitlines()[6].split("\t")
    assert float(cells[1]) == pytest.approx(1 / FPS, abs=1e-3)
    joints = np.array([float(cell or "nan") for cell in cells[2 : 2 + 3 * 17]]).reshape(17, 3)
    expected = person(2, 1, invalid=[3]).joints_mm * (1, -1, -1)
    np.testing.assert_allclose(joints, expected, atol=0.01)


def test_pictures_find_their_lines_again(tmp_path):
    film = write_film(
        tmp_path / "walk.mp4", [np.full((48, 64, 3), 30 * i, np.uint8) for i in range(6)]
    )
    results = Results(write_result(tmp_path / "result", str(film)))
    lines = [line for line in results if line["frame"] in (1, 4)]
    pairs = list(with_pictures(iter(lines), open_film))
    assert [round(rgb.mean() / 30) for _, rgb, _ in pairs] == [1, 4]
    film.unlink()
    assert [rgb for _, rgb, _ in with_pictures(iter(lines), open_film)] == [None, None]


def test_the_overlay_film_shows_people_and_floor(results, tmp_path):
    black = np.zeros((480, 640, 3), np.uint8)
    with OverlayVideo(tmp_path / "overlay.mp4", FPS, Area(3, 6)) as video:
        for line in results:
            video.write(line, black, CAMERA)
    with open_media(tmp_path / "overlay.mp4") as source:
        frames = [frame.rgb for frame in source]
    assert len(frames) == 6 and frames[0].shape == (480, 640 + 480, 3)
    assert all((frame[:, :640] > 128).any() for frame in frames)
    assert np.abs(frames[0].astype(int) - frames[5]).max() > 100


def test_diagrams_show_everybodys_colour(results, tmp_path):
    pytest.importorskip("matplotlib")
    write_plots(results, tmp_path / "plots.png")
    picture = read_image(tmp_path / "plots.png").astype(int)
    from mppe_ros.drawing import colours_of

    for track_id in (1, 2):
        colour = colours_of({"track_id": track_id})["middle"]
        assert (np.abs(picture - colour).max(axis=-1) < 12).sum() > 20
