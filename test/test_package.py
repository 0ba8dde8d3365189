"""The packaging: version, messages, colcon build, the wheel, the set-up's error messages."""
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The contract of every consumer: a change here is a change for robots in the field.
CONTRACT = {
    "Pose3DArray": """
        uint8 INTRINSICS_CALIBRATED=0
        uint8 INTRINSICS_ASSUMED=1
        std_msgs/Header header
        string skeleton
        string[] joint_names
        uint16[] bones
        uint16 root_index
        string model
        uint8 intrinsics_source
        uint32 image_width
        uint32 image_height
        Pose3D[] poses
    """,
    "Pose3D": """
        uint8 STATE_UNTRACKED=0
        uint8 STATE_TENTATIVE=1
        uint8 STATE_TRACKED=2
        uint8 STATE_COASTING=3
        uint8 STATE_LOST=4
        uint32 track_id
        uint8 tracking_state
        float32 time_since_detection
        float32 score
        geometry_msgs/PoseWithCovariance root
        bool velocity_valid
        geometry_msgs/Vector3 velocity
        Joint3D[] joints
        float32[4] bbox
    """,
    "Joint3D": """
        uint8 OK=0
        uint8 LOW_SCORE=1
        uint8 TRUNCATED=2
        uint8 INVALID=3
        geometry_msgs/Point position
        float32 u
        float32 v
        float32 score
        uint8 status
    """,
}


def declarations(text: str) -> list[str]:
    """Fields and constants of a message definition, in order, without comments."""
    lines = (" ".join(line.split("#")[0].split()) for line in text.splitlines())
    return [line for line in lines if line]


def copy_source(folder: Path) -> Path:
    """Copy what the package is made of, so that nothing is built inside the source tree."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    folder.mkdir()
    for name in ("mppe_ros", "msg", "launch", "config", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("package.xml", "CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [str(part) for part in command],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options,
    )
    assert result.returncode == 0, result.stdout
    return result


# --- metadata and messages ---------------------------------------------------------------------


def test_one_version() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert re.fullmatch(r"\d+\.\d+\.\d+", package.findtext("version"))
    setup = run([sys.executable, "setup.py", "--quiet", "--version"], cwd=ROOT)
    assert setup.stdout.splitlines()[-1] == package.findtext("version")


def test_package_xml_declares_every_message_package_used() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in package if element.tag.endswith("depend")}
    used = {
        match
        for path in (ROOT / "mppe_ros").rglob("*.py")
        for match in re.findall(
            r"^\s*(?:from|import) (\w+_(?:msgs|srvs|interfaces))\b", path.read_text("utf-8"), re.M
        )
    }
    assert used - {"hri_msgs"} <= declared  # optional, the bridge does without


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_message_is_the_contract(name: str) -> None:
    text = (ROOT / "msg" / f"{name}.msg").read_text(encoding="utf-8")
    assert declarations(text) == declarations(CONTRACT[name])


def test_no_other_messages() -> None:
    assert {path.stem for path in (ROOT / "msg").iterdir()} == set(CONTRACT)


# --- the colcon build --------------------------------------------------------------------------

USE_BUILT_PACKAGE = """
import mppe_ros, mppe_ros.skeletons
from mppe_ros.msg import Joint3D, Pose3D, Pose3DArray
pose = Pose3D(track_id=7, joints=[Joint3D(status=Joint3D.TRUNCATED)])
array = Pose3DArray(poses=[pose], joint_names=["pelvis"])
assert mppe_ros.Intrinsics is __import__("mppe_ros.structures").structures.Intrinsics
assert array.poses[0].joints[0].status == 2 and Pose3DArray.INTRINSICS_ASSUMED == 1
print(mppe_ros.skeletons.__file__)
"""


@pytest.mark.build
@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["--symlink-install"]], ids=["plain", "symlink"])
def test_colcon_build(tmp_path: Path, mode: list[str]) -> None:
    if not (os.environ.get("AMENT_PREFIX_PATH") and shutil.which("colcon")):
        pytest.skip("no ROS 2 in the environment: . scripts/env.sh")
    source = copy_source(tmp_path / "source")
    environment = {
        **os.environ,
        # Build on ROS 2 itself, not on the package that the environment already has.
        "AMENT_PREFIX_PATH": without_this_package("AMENT_PREFIX_PATH"),
        "PYTHONPATH": without_this_package("PYTHONPATH"),
    }
    run(
        ["colcon", "--log-base", tmp_path / "log", "build", "--base-paths", source,
         "--build-base", tmp_path / "build", "--install-base", tmp_path / "install", *mode,
         "--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}"],
        cwd=tmp_path, env=environment,
    )

    prefix = tmp_path / "install" / "mppe_ros"
    for script in ("pose_node", "sample_camera", "demo"):
        assert os.access(prefix / "lib" / "mppe_ros" / script, os.X_OK)
    for folder in ("config", "launch"):
        assert files_below(prefix / "share" / "mppe_ros" / folder) == files_below(source / folder)
    (installed,) = prefix.glob("**/mppe_ros/skeletons.py")
    package = installed.parent
    assert files_below(source / "mppe_ros") <= files_below(package)
    assert installed.is_symlink() == bool(mode)

    # In the source root the folder of this name comes first and must not hide the messages.
    for folder, imported_from in ((source, source / "mppe_ros"), (tmp_path, package)):
        use = ["bash", "-c", '. install/setup.bash && cd "$1" && exec "$2" -c "$3"', "bash"]
        result = run(
            [*use, folder, sys.executable, USE_BUILT_PACKAGE], cwd=tmp_path, env=environment
        )
        assert Path(result.stdout.splitlines()[-1]).parent == imported_from


def without_this_package(variable: str) -> str:
    entries = os.environ.get(variable, "").split(os.pathsep)
    kept = (entry for entry in entries if "mppe_ros" not in Path(entry).parts)
    return os.pathsep.join(kept)


def files_below(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# --- the wheel ---------------------------------------------------------------------------------

USE_LIBRARY = """
import sys
for name in ("rclpy", "sensor_msgs", "std_msgs", "geometry_msgs"):
    sys.modules[name] = None
import numpy as np
from mppe_ros import PoseEstimator
from mppe_ros import bags, cli
from mppe_ros.synthetic import kernel
from mppe_ros.training.config import PRESETS
assert kernel.SOURCE.is_file() and list(PRESETS.glob("*.yaml"))
assert bags.message_folder().is_relative_to(sys.argv[1])
assert len(PoseEstimator(device="cpu")(np.zeros((96, 128, 3), np.uint8), fov_deg=60)) == 0
print(cli.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_source(folder / "source")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--disable-pip-version-check", "--wheel-dir", folder, source])
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_is_for_every_machine_and_has_every_file(wheel: Path) -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert wheel.name == f"mppe_ros-{package.findtext('version')}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = wheel.parent / "source" / "mppe_ros"
    assert {f"mppe_ros/{path.as_posix()}" for path in files_below(source)} <= names
    assert "mppe_ros/py.typed" in names
    for message in CONTRACT:  # bags carry them
        assert any(name.endswith(f"/share/mppe_ros/msg/{message}.msg") for name in names)
    assert any(name.endswith("/LICENSE") for name in names)


def test_pip_install(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--target", target, wheel])

    assert files_below(ROOT / "msg") == files_below(target / "share" / "mppe_ros" / "msg")
    (distribution,) = metadata.distributions(path=[str(target)])
    (command,) = distribution.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("mppe", "mppe_ros.cli:main")
    required = {re.match(r"[\w-]+", line).group() for line in distribution.requires}
    assert {"torch", "torchvision", "numpy", "safetensors"} <= required
    # The library is free of ROS: nothing that only a ROS 2 installation brings.
    assert not {name for name in required if "rcl" in name or name.startswith("ros-")}

    used = run(
        [sys.executable, "-c", USE_LIBRARY, target],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)},
    )
    assert Path(used.stdout.splitlines()[-1]) == target / "mppe_ros" / "cli" / "__init__.py"


# --- the set-up says what is missing -----------------------------------------------------------


def path_without(folder: Path, *missing: str) -> str:
    """Make a folder with links to all commands on PATH but some, and return it."""
    folder.mkdir()
    for directory in reversed(os.environ["PATH"].split(os.pathsep)):
        for command in Path(directory).glob("*"):
            link = folder / command.name
            link.unlink(missing_ok=True)
            link.symlink_to(command)
    for pattern in missing:
        for link in folder.glob(pattern):
            link.unlink()
    return str(folder)


COMPILERS = ("c++*", "g++*", "clang*", "*-g++*")


@pytest.mark.parametrize(
    ("missing", "variables", "complaint", "advice"),
    [
        (COMPILERS, {}, r'"tools" failed: there is no C\+\+ compiler', "apt install g\\+\\+"),
        (("cmake",), {}, '"tools" failed: there is no CMake', "apt install cmake"),
        ((), {"ROS": "noetic"}, '"ros" failed: there are no wheels for ROS=noetic', "ROS=kilted"),
        ((), {"PYTHON": "/bin/false"}, '"python" failed: no usable Python', "PYTHON="),
    ],
    ids=["no compiler", "no cmake", "no such ros", "no python"],
)
def test_setup_names_what_is_missing(
    tmp_path: Path,
    missing: tuple[str, ...],
    variables: dict[str, str],
    complaint: str,
    advice: str,
) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CC", "CXX", "PYTHON", "ROS_DISTRO")
    }
    environment |= {"PATH": path_without(tmp_path / "bin", *missing), "ROS": "kilted"}
    result = subprocess.run(
        [ROOT / "scripts" / "setup.sh", "check"],
        env={**environment, **variables}, text=True, capture_output=True, check=False,
    )
    assert result.returncode == 1
    assert re.search(complaint, result.stderr)
    assert re.search(advice, result.stderr)


def test_cmake_paths_are_fixed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from fix_cmake_paths import fix_tree

    exported = tmp_path / "share" / "std_msgs" / "cmake" / "export.cmake"
    exported.parent.mkdir(parents=True)
    wheel = "/opt/python/cp312-cp312"
    exported.write_text(
        f'INCLUDES "{wheel}/include/python3.12;'
        f'{wheel}/lib/python3.12/site-packages/numpy/_core/include;${{_IMPORT_PREFIX}}/include"'
    )
    assert fix_tree(tmp_path) == 1
    text = exported.read_text()
    assert wheel not in text
    assert "/numpy/_core/include;${_IMPORT_PREFIX}/include" in text
    assert fix_tree(tmp_path) == 0
