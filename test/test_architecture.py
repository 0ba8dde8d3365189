"""The structure: imports point downward, and only the ROS files import ROS."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mppe_ros"

# From bottom to top; a module imports only from rows above its own (that is, lower layers).
LAYERS = (
    ("skeletons", "structures", "devices", "checkpoints", "media", "declaration", "throttle",
     "image_messages", "cache", "inference", "resnet", "executables", "winograd"),
    ("camera", "crops", "trunks", "runtimes", "records", "worker", "orientation", "camera_info",
     "boxes", "kalman", "smoothing", "estimates", "calibration", "results",
     "distance", "surface", "appearance"),
    ("networks", "drawing", "depth", "floor", "frames", "diagnostics", "markers", "datasets",
     "gait"),
    ("tracking", "weights", "detectors", "bags", "exports", "page", "plots"),
    ("pipeline",),
    ("sequence",),
    ("estimator",),
    ("runs", "deployment"),
    (
        "evaluation", "synthetic", "training", "benchmark",
        "conversions", "parameters", "synchronisation",
    ),
    ("processing", "subscriptions", "outputs"),
    ("cli", "node", "sample_camera", "bridge"),
    ("demo", "dds_benchmark"),
)  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ROS_MODULES = {
    "bridge", "conversions", "dds_benchmark", "declaration", "demo", "executables", "node",
    "outputs", "parameters", "processing", "sample_camera", "subscriptions", "synchronisation",
}  # fmt: skip


def modules() -> list[Path]:
    own = (path for path in PACKAGE.rglob("*.py") if "resources" not in path.parts)
    return sorted(path for path in own if path != PACKAGE / "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def internal_imports(path: Path) -> set[str]:
    """Names of the package's top-level modules that a file imports."""
    parts = ("mppe_ros", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = parts[: len(parts) - node.level] if node.level else ()
        full = [*base, *(node.module or "").split(".")] if node.module else list(base)
        if full[:1] != ["mppe_ros"]:
            continue
        found |= {full[1]} if len(full) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    own = layer_of(path)
    assert own in LEVEL, f"{own} has no place in the layers"
    for name in internal_imports(path) - {own, "msg"}:
        assert LEVEL[name] < LEVEL[own] or LAYERS[LEVEL[own]] == LAYERS[LEVEL[name]], (
            f"{path.name} imports {name}, which is above it"
        )


def test_the_core_works_where_there_is_no_ros() -> None:
    """Everything but the ROS files imports, and a pipeline runs, with rclpy blocked."""
    core = sorted({layer_of(path) for path in modules()} - ROS_MODULES)
    program = f"""
import sys
for name in ("rclpy", "sensor_msgs", "std_msgs", "geometry_msgs", "visualization_msgs",
             "builtin_interfaces", "rcl_interfaces", "mppe_ros.msg"):
    sys.modules[name] = None
import importlib
for name in {core!r}:
    importlib.import_module("mppe_ros." + name)
import numpy as np
from mppe_ros.pipeline import Pipeline
from mppe_ros.structures import Intrinsics
people = Pipeline.load(device="cpu")(
    [np.zeros((240, 320, 3), np.uint8)], [Intrinsics(300, 300, 160, 120, 320, 240)]
)
assert people == [[]]
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("fine")
