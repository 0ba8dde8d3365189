"""Our readers and figures beside the reference release's own code, on the miniatures.

Skipped unless $MPPE_REFERENCE_RELEASE names a folder with clones of the two repositories,
3DMPPE_ROOTNET_RELEASE and 3DMPPE_POSENET_RELEASE; nothing of them is in this package.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dataset_fixtures as fixtures
import numpy as np
import pytest
from click.testing import CliRunner

from mppe_ros.cli import main
from mppe_ros.crops import process_boxes
from mppe_ros.datasets import open_dataset

RELEASE = os.environ.get("MPPE_REFERENCE_RELEASE")
pytestmark = pytest.mark.skipif(not RELEASE, reason="$MPPE_REFERENCE_RELEASE is not set")

RUNNER = Path(__file__).parent / "reference_runner.py"
LINKS = {
    "human36m": ("Human36M", "images", "annotations"), "mpii": ("MPII", "images", "annotations"),
    "mscoco": ("MSCOCO", "images", "annotations"), "muco": ("MuCo", "data"),
    "mupots": ("MuPoTS", "data"), "3dpw": ("PW3D", "data"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    many = {
        "human36m": {"subjects": (9, 11), "frames": (0, 64), "actions": tuple(range(2, 17))},
        "muco": {"images": 20}, "mupots": {"frames": 3}, "3dpw": {"images": 20},
    }  # fmt: skip
    return {name: fixtures.MAKERS[name](root / name, seed=3, **many.get(name, {}))
            for name in LINKS}  # fmt: skip


@pytest.fixture(scope="module")
def release(folders, tmp_path_factory):
    """Runs something of it by `reference_runner`; gives its folder of results."""
    root = tmp_path_factory.mktemp("release")
    for kind in ("ROOTNET", "POSENET"):
        clone = Path(RELEASE) / f"3DMPPE_{kind}_RELEASE"
        for part in ("main", "common", "data"):
            shutil.copytree(clone / part, root / kind / part)
        for name, (folder, *parts) in LINKS.items():
            (root / kind / "data" / folder).mkdir(exist_ok=True)
            for part in parts:
                (root / kind / "data" / folder / part).symlink_to(folders[name] / part)

    def run(what):
        kind = "ROOTNET" if what.startswith("root") else "POSENET"
        out = root / "out" / what
        if not out.is_dir():
            command = [sys.executable, RUNNER, root / kind, what, out]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return out

    return run


def figures(*arguments):
    done = CliRunner().invoke(main, ["eval", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def printed(out):
    """All "name: number" of what was printed."""
    text = (out / "printed.txt").read_text()
    return {name: float(value) for name, value in re.findall(r"(\w+): (-?[\d.]+)", text)}


@pytest.mark.parametrize("protocol", [1, 2])
def test_human36m_poses(folders, release, protocol):
    out = release(f"pose-human36m-{protocol}")
    ours = figures("human36m", folders["human36m"], "--protocol", protocol, "--predictions", out)
    theirs = printed(out)
    assert ours[ours["metric"]] == pytest.approx(theirs["tot"], abs=1e-6)
    assert len(ours["by"]) == 15
    for action, one in ours["by"].items():
        assert one[ours["metric"]] == pytest.approx(theirs[action], abs=1e-6)


@pytest.mark.parametrize("protocol", [1, 2])
def test_human36m_roots(folders, release, protocol):
    out = release(f"root-human36m-{protocol}")
    ours = figures("human36m", folders["human36m"], "--protocol", protocol, "--predictions", out)
    theirs = printed(out)
    for key, name in (("mrpe_mm", "tot"), ("mrpe_x_mm", "x"), ("mrpe_y_mm", "y"),
                      ("mrpe_z_mm", "z")):  # fmt: skip
        assert ours[key] == pytest.approx(theirs[name], abs=1e-6)
    for action, one in ours["by"].items():
        assert one["mrpe_mm"] == pytest.approx(theirs[action], abs=1e-6)


def test_3dpw_roots(folders, release):
    out = release("root-3dpw")
    ours, theirs = figures("3dpw", folders["3dpw"], "--predictions", out), printed(out)
    for key, name in (("mrpe_mm", "total"), ("mrpe_x_mm", "x"), ("mrpe_y_mm", "y"),
                      ("mrpe_z_mm", "z")):  # fmt: skip
        assert ours[key] / 1000 == pytest.approx(theirs[name], abs=1e-6)


def test_ap_root(folders, release):
    out = release("root-mupots")
    ours = figures("mupots", folders["mupots"], "--predictions", out)
    assert ours["ap_root_25"] == pytest.approx(100 * printed(out)["AP_root"], abs=1e-6)
    assert 10 < ours["ap_root_25"] < 90


def test_files_of_mupots_poses_are_read(folders, release):
    ours = figures("mupots", folders["mupots"], "--predictions", release("pose-mupots"))
    assert 0 < ours["pck3d_rel"] < 50 and ours["matched"] > 50


@pytest.mark.parametrize(
    ("what", "name", "split", "options"),
    [("pose-human36m-1", "human36m", "test", {"protocol": 1}),
     ("pose-human36m-2", "human36m", "test", {"protocol": 2}),
     ("pose-muco", "muco", "train", {}), ("pose-mpii", "mpii", "train", {}),
     ("pose-mscoco", "mscoco", "train", {}), ("pose-mupots", "mupots", "test", {}),
     ("root-3dpw", "3dpw", "test", {})],
)  # fmt: skip
def test_readers(folders, release, what, name, split, options):
    """The same people in the same order, boxes, joints and masks; single precision."""
    theirs = np.load(release(what) / "loaded.npz")
    ours = open_dataset(name, folders[name], split, **options)
    assert [Path(path).name for path in theirs["img_path"]] == [
        ours.image_path(index).name for index in range(len(ours))
    ]
    boxes = [process_boxes([box], lens.width, lens.height)[0][0]
             for box, lens in zip(ours.boxes_xywh_px, ours.cameras, strict=True)]  # fmt: skip
    np.testing.assert_allclose(boxes, theirs["bbox"], atol=1e-3)
    if "joint_img" in theirs:
        known = ours.known
        np.testing.assert_array_equal(known, theirs["joint_vis"][..., 0] > 0)
        np.testing.assert_allclose(ours.joints_px[known], theirs["joint_img"][..., :2][known],
                                   atol=1e-3)  # fmt: skip
    if "joint_cam" in theirs:
        np.testing.assert_allclose(ours.joints_mm, theirs["joint_cam"], atol=1e-3)
    if "root_cam" in theirs:
        unit = ours.root_unit_mm
        np.testing.assert_allclose(ours.roots_mm, theirs["root_cam"] * unit, atol=1e-3)
