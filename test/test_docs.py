"""What the documentation says runs: every command of the README, the notebook, the API's page."""

import json
import re
import runpy
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner
from recordings import CAMERA, calibration, jpeg_image, write_bag, write_film

from mppe_ros.cli import main
from mppe_ros.media import write_image

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/run.md")

# Beginnings of commands that don't run here, and why.
LEFT_OUT = {
    "make ": "starts this test itself; test_demo.py runs the demo",
    "cd ": "a robot's workspace",
    "rosdep ": "needs ROS 2's tools and the network",
    "pip install": "needs the network; test_package.py installs the package",
    "colcon build": "test_package.py builds the package",
    "ros2 ": "needs ROS 2's tools; test_launch.py and test_node.py start the same",
    "sudo ": "changes the machine",
    "mppe weights fetch": "needs the network",
    "mppe data check": "needs a data set; test_datasets.py makes some",
    "mppe export": "takes long; test_deployment.py exports",
    "mppe train": "takes long; test_training.py and others train",
    "mppe eval mupots": "needs a data set; test_datasets.py makes some",
    "eval ": "a shell's; see test_completion",
}


def commands(page: str) -> list[str]:
    """The commands of a page's shell blocks."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    grey = np.full((240, 320, 3), 120, np.uint8)
    small = grey.repeat(2, 0).repeat(2, 1)
    write_image(tmp_path / "photo.jpg", grey)
    for name in ("video.mp4", "long.mp4"):
        write_film(tmp_path / name, [small] * 2)
    image = jpeg_image("/camera/image_raw/compressed", small)
    write_bag(tmp_path / "recording", [image] * 2, [("/camera/camera_info", calibration(CAMERA))])
    (tmp_path / "camera.yaml").write_text(
        "{image_width: 640, image_height: 480, camera_matrix: {data: [500, 0, 320, 0, 500, 240, "
        "0, 0, 1]}, distortion_model: plumb_bob, distortion_coefficients: {data: [0, 0, 0, 0, 0]}}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda url: url.startswith("file://"))
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_runs(page, folder):
    pytest.importorskip("plotly")
    ran = 0
    for command in commands(page):
        if any(command.startswith(beginning) for beginning in LEFT_OUT):
            continue
        program, *arguments = shlex.split(command)
        assert program == "mppe", f"{page}: say in LEFT_OUT why this cannot run: {command}"
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, f"{command}\n{done.output}"
        ran += 1
    assert ran >= 3


def test_the_readmes_python_is_that_of_run_md():
    blocks = [re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)
              for page in PAGES]  # fmt: skip
    assert blocks[0] == blocks[1] and len(blocks[0]) == 1
    assert len(re.findall(r"^.*\S.*$", blocks[0][0], re.M)) == 5


def test_the_readmes_python_runs(folder):
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert len(names["poses"]) == 0 and names["poses"].intrinsics.width == 320


def test_the_notebook_runs(tmp_path, monkeypatch):
    """Its cells one after the other, as a kernel does."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text("utf-8"))
    names: dict = {"print": lambda *_: None}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert len(names["paths"]) >= 2 and min(map(len, names["paths"].values())) >= 1
    assert (tmp_path / "overlay.jpg").is_file() and (tmp_path / "roots.csv").is_file()


def test_the_api_page_is_up_to_date():
    pages = runpy.run_path(str(ROOT / "scripts" / "api_docs.py"))
    now = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert pages["page"]() == now, "run python scripts/api_docs.py"


@pytest.mark.parametrize("page", [*PAGES, "docs/architecture.md", "docs/api.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


# --- the command line --------------------------------------------------------------------------


def all_commands(group=main, path=("mppe",)):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(("path", "command"), all_commands(), ids=lambda v: " ".join(v)
                         if isinstance(v, tuple) else "")  # fmt: skip
def test_each_command_explains_itself_by_example(path, command):
    done = CliRunner().invoke(main, [*path[1:], "--help"], terminal_width=200)
    assert done.exit_code == 0
    usage, _, rest = done.output.partition("\n")
    assert " ".join(path) in usage.replace("main", "mppe")
    assert " ".join(path) in rest, "no example"



def test_completion():
    complete = get_completion_class("bash")(main, {}, "mppe", "_MPPE_COMPLETE")
    assert "_MPPE_COMPLETE=bash_complete" in complete.source()
    assert {item.value for item in complete.get_completions([], "v")} == {"view"}
    options = {item.value for item in complete.get_completions(["run", "photo.jpg"], "--fo")}
    assert options == {"--fov"}
    kinds = {item.value for item in complete.get_completions(["run", "a", "--save"], "c")}
    assert kinds == {"coco", "csv"}
