"""Safe by default (docs/security.md): how files are read, when the network is used, the policy."""

import ast
import io
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from email.message import Message
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mppe_ros import weights
from mppe_ros.checkpoints import CheckpointError
from mppe_ros.detectors import DETECTORS, build_detector

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "mppe_ros").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])

# --- files -------------------------------------------------------------------------------------

# Modules that run what they read or unpack what they're given.
UNSAFE_MODULES = {
    "cloudpickle", "dill", "joblib", "marshal", "shelve", "tarfile", "zipfile",
}  # fmt: skip
UNSAFE_CALLS = {
    "eval", "exec", "os.popen", "os.system", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "shutil.unpack_archive", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter",
    "yaml.full_load", "yaml.load", "yaml.unsafe_load",
}  # fmt: skip
PLAIN_ADDRESS = r"\b(http|ftp)://(?!www\.w3\.org|localhost|127\.)"


def unsafe(tree: ast.AST) -> list[str]:
    """What a module does that docs/security.md says is never done."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += sorted(names & UNSAFE_CALLS)
            found += [node.module] if node.module in UNSAFE_MODULES else []
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in UNSAFE_CALLS:
                found.append(called)
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append("torch.load without weights_only")
            if given.get("weights_only", "True") != "True":
                found.append("weights_only")
            if called == "np.load" and given.get("allow_pickle", "False") != "False":
                found.append("np.load of objects")
            if given.get("shell", "False") != "False":
                found.append("shell")
            if given.get("verify", "True") != "True":
                found.append("TLS without verification")
        elif isinstance(node, ast.Constant) and re.search(PLAIN_ADDRESS, str(node.value)):
            found.append(str(node.value))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_trusted(path: Path) -> None:
    # Of exported networks, which docs/security.md says are programs.
    known = ["torch.jit.load"] if path.name == "runtimes.py" else []
    assert unsafe(ast.parse(path.read_text("utf-8"))) == known


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.loads(data)",
        "np.load(path, allow_pickle=True)", "run('ls', shell=True)", "import tarfile",
        "from zipfile import ZipFile", "from pickle import loads", "eval('1')",
        "yaml.load(text)", "requests.get(url, verify=False)", "fetch('http://example.org')",
    ],
)  # fmt: skip
def test_what_would_be_noticed(line: str) -> None:
    assert unsafe(ast.parse(line)) != []


# --- network -----------------------------------------------------------------------------------

# The interpreter tells of every use of a socket, however deep in a library.
ESTIMATE_WITHOUT_NETWORK = """
import sys

NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
           "socket.sendmsg", "urllib.Request", "http.client.connect")

def watch(event, arguments):
    if event in NETWORK:
        print(event, arguments, flush=True)
        raise PermissionError(f"{event} {arguments}")

sys.addaudithook(watch)
import cv2
from mppe_ros.pipeline import Pipeline
from mppe_ros.structures import Intrinsics

bgr = cv2.VideoCapture(sys.argv[1]).read()[1]
camera = Intrinsics.from_fov(60, *bgr.shape[1::-1])
for backend in sys.argv[2].split(","):
    (people,) = Pipeline.load(device="cpu", backend=backend)([bgr[..., ::-1].copy()], [camera])
    assert people
print("fine")
"""


def test_the_networks_in_the_package_need_no_network(tmp_path: Path) -> None:
    backends = "torch,openvino" if find_spec("openvino") else "torch"
    clip = ROOT / "mppe_ros" / "resources" / "sample" / "clip.mp4"
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "MPPE_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ESTIMATE_WITHOUT_NETWORK, str(clip), backends],
        cwd=ROOT, env={**os.environ, **home}, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fine"]


def test_downloads_are_over_tls_and_have_a_digest() -> None:
    published = [spec.weights for spec in DETECTORS.values() if hasattr(spec.weights, "url")]
    assert published
    for found in published:
        # torch compares the digits at the end of the name (check_hash).
        assert re.fullmatch(r"https://download\.pytorch\.org/.*-[0-9a-f]{8}\.pth", found.url)
    for weight_set in weights.SETS.values():
        for file in weight_set.files:
            assert file.sha256 or file.google_drive_id
        assert all(
            address.startswith("https://")
            for address in re.findall(r"\w+://\S+", weights.by_hand(weight_set))
        )


class Answer(io.BytesIO):
    """A server's answer to a request."""

    def info(self) -> Message:
        return Message()


def test_a_download_is_said_aloud_and_one_with_another_digest_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = []

    def urlopen(request, *_):
        asked.append(request.full_url)
        return Answer(b"something else")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    name = "ssdlite320_mobilenet_v3_large"
    with pytest.raises(CheckpointError, match=r"invalid hash.*by hand"):
        build_detector(name)
    assert asked == [DETECTORS[name].weights.url]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    said = capsys.readouterr()
    assert asked[0] in said.err and said.out == ""


# --- SROS 2 ------------------------------------------------------------------------------------


def allowed(namespace: str) -> dict[str, set[str]]:
    """Full names by what the policy allows, as if the node were in this namespace."""
    policy = ElementTree.parse(ROOT / "config" / "sros2" / "mppe.policy.xml").getroot()
    (profile,) = policy.findall("enclaves/enclave/profiles/profile")
    assert policy.get("version") == "0.2.0" and profile.get("ns") == "/"
    found: dict[str, set[str]] = {}
    for rules in profile:
        ((what, decision),) = rules.attrib.items()
        assert decision == "ALLOW"
        for name in (rule.text for rule in rules):
            full = name.replace("~", f"{namespace}/{profile.get('node')}")
            full = full if full.startswith("/") else f"{namespace}/{full}"
            assert full not in found.setdefault(what, set())
            found[what].add(full)
    return found


@pytest.mark.ros
def test_the_policy_allows_what_the_node_does_and_no_more(request) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    node_rig = pytest.importorskip("node_rig", reason="needs the built package: make setup")
    host, namespace = request.getfixturevalue("host"), "/security"
    nodes = [
        host.start(f"{namespace}_{transport}", depth_fusion=True, image_transport=transport)
        for transport in ("raw", "compressed")
    ]

    def uses(method: str) -> set[str]:
        return {
            name.replace(node.get_namespace(), namespace)
            for node in nodes
            for name, _ in getattr(node, f"get_{method}_names_and_types_by_node")(
                "mppe", node.get_namespace()
            )
        }

    expected = allowed(namespace)
    asked = expected["subscribe"] - {"/clock", "/tf", "/tf_static"}  # the parameters' say
    node_rig.wait_until(lambda: uses("service") == expected["reply"])
    node_rig.wait_until(lambda: uses("publisher") == expected["publish"])
    node_rig.wait_until(lambda: uses("subscriber") == asked)
