"""The page of `mppe view`: what is in it, and what a real browser makes of it."""

import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from recordings import write_film, write_result

pytest.importorskip("plotly", reason="pip install 'mppe_ros[export]'")

from mppe_ros.cli import main
from mppe_ros.drawing import colours_of
from mppe_ros.page import write_page
from mppe_ros.results import Results
from mppe_ros.runs import open_film

BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
PATIENCE_S = 240


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    film = write_film(folder / "walk.mp4", [np.full((480, 640, 3), 90, np.uint8)] * 6)
    return write_result(folder / "result", str(film))


def content(page):
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found.group(1), parse_constant=pytest.fail)


def test_a_page_needs_nothing_else(result, tmp_path):
    count = write_page(Results(result), tmp_path / "page.html", open_film)
    data = content(tmp_path / "page.html")
    assert count == len(data["frames"]) == 6 and data["film"]
    assert [len(frame["people"]) for frame in data["frames"]] == [1, 2, 2, 2, 2, 2]
    assert data["frames"][1]["people"][1]["joints"][3] is None
    assert all(frame["picture"].startswith("data:image/jpeg") for frame in data["frames"])
    outside = re.sub(r"<script>.*?</script>", "", (tmp_path / "page.html").read_text(), flags=re.S)
    assert not re.search(r'(src|href)=["\']?(https?:)?//', outside)


def test_names_of_files_cannot_break_out_of_the_page(tmp_path):
    write_result(tmp_path / "result", "</script><script>alert(1)</script>.mp4", frames=1)
    write_page(Results(tmp_path / "result"), tmp_path / "page.html", open_film)
    assert "alert(1)</script>" not in (tmp_path / "page.html").read_text()
    assert content(tmp_path / "page.html")["frames"][0]["picture"] is None


def test_long_films_are_thinned(result, tmp_path):
    done = CliRunner().invoke(
        main, ["view", str(result), "--html", str(tmp_path / "page.html"), "--every", "4"]
    )
    assert done.exit_code == 0, done.stderr
    assert [frame["frame"] for frame in content(tmp_path / "page.html")["frames"]] == [0, 4]


def test_a_result_that_is_not_there_is_named(tmp_path):
    done = CliRunner().invoke(main, ["view", str(tmp_path / "nowhere")])
    assert done.exit_code == 1 and "nowhere" in done.stderr


@pytest.mark.slow
def test_a_browser_draws_it(result, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("needs Chromium: apt install chromium")
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    write_page(Results(result), page, open_film)
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--use-angle=swiftshader", "--hide-scrollbars",
         "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--window-size=1400,900",
         "--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'profile'}",
         f"--screenshot={picture}", page.as_uri()],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert picture.is_file(), done.stderr
    assert "Uncaught" not in done.stderr, done.stderr
    seen = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB).astype(int)
    colour = colours_of({"track_id": 1})["middle"]
    here = np.abs(seen - colour).max(axis=-1) < 40
    upper, lower = here[:520], here[520:]
    # In the picture, the 3D scene, the top view and the diagram of depth.
    for quarter in (upper[:, :700], upper[:, 700:], lower[:, :700], lower[:, 700:]):
        assert quarter.sum() > 20
