"""What a release rests on: changelog, CI, lock files, licences, the audit."""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import date
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROS = sorted(path.stem.removeprefix("ros-") for path in (ROOT / "requirements").glob("ros-*.txt"))
PYTHONS = ("310", "311", "312", "313")


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- changelog ---------------------------------------------------------------------------------

CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
RELEASES = re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\S+)$", CHANGELOG, re.M)


def test_the_newest_version_of_the_changelog_is_the_packages() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert ".".join(RELEASES[0][:3]) == package.findtext("version")


def test_the_changelog_is_in_order() -> None:
    headings = re.findall(r"^## .*$", CHANGELOG, re.M)
    assert headings[0] == "## [Unreleased]" and len(headings) == 1 + len(RELEASES)
    versions = [tuple(map(int, release[:3])) for release in RELEASES]
    dates = [date.fromisoformat(release[3]) for release in RELEASES]
    assert versions == sorted(set(versions), reverse=True) and dates == sorted(dates, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.M)) <= kinds


# --- CI ----------------------------------------------------------------------------------------


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))


def test_the_workflow_runs_lint_and_tests_for_each_ros() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert {"make setup", "make lint", "make test"} <= set(commands)
    assert {command.removeprefix("make ") for command in commands} <= targets()
    matrix = job["strategy"]["matrix"]
    assert sorted(matrix["ros"]) == ROS
    assert {python.replace(".", "") for python in matrix["python"]} <= set(PYTHONS)


def test_the_hooks_before_a_commit_are_the_linters() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert repository["repo"] == "local"  # nothing is downloaded
    lint = re.search(r"^lint:.*\n\t(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M).group(1)
    for hook in repository["hooks"]:
        assert hook["entry"].startswith(".venv/bin/python -m ")
        assert hook["entry"].removeprefix(".venv/bin/") in lint


@pytest.mark.parametrize(("broken", "status"), [("", 0), ("jazzy", 1)])
def test_the_matrix_tests_each_ros_in_a_clone(broken: str, status: int, tmp_path: Path) -> None:
    repository, tools = tmp_path / "repository", tmp_path / "tools"
    (repository / ".ci").mkdir(parents=True)
    tools.mkdir()
    (repository / ".ci" / "matrix").write_text((ROOT / ".ci" / "matrix").read_text("utf-8"))
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "all"], check=True)
    log = tmp_path / "log"
    make = tools / "make"
    make.write_text(
        f'#!/bin/sh\necho "$ROS $3 $(ls -A "$2")" | tr "\\n" " " >> {log}\necho >> {log}\n'
        f'[ "$ROS" != "{broken}" ]\n'
    )
    make.chmod(0o755)
    done = subprocess.run(
        ["bash", repository / ".ci" / "matrix"], text=True, capture_output=True,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
             "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert [line.split() for line in log.read_text().splitlines()] == [
        ["kilted", "test", ".ci", ".git"], ["jazzy", "test", ".ci", ".git"]
    ]  # fmt: skip
    assert ("failed with jazzy" in done.stderr) == bool(broken)
    assert not list(tmp_path.glob("tmp*"))  # the clones are gone


# --- lock files --------------------------------------------------------------------------------


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("ros", ROS)
def test_the_lock_pins_everything_that_is_asked_for(ros: str, python: str) -> None:
    text = (ROOT / "requirements" / "lock" / f"{ros}-py{python}.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*(\[.*\])?==[\w.+!]+", line) for line in lines)
    assert not re.search(r"://|index-url|find-links", text)  # nobody's index, nobody's disk

    pinned = dict(line.split("==") for line in lines)
    asked = (ROOT / "requirements" / f"ros-{ros}.txt").read_text("utf-8").splitlines()
    for line in [*asked, *requirements_of_the_package()]:
        requirement = Requirement(line)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), line


def requirements_of_the_package() -> list[str]:
    """Those of setup.py, with all extras."""
    setup = (ROOT / "setup.py").read_text("utf-8")
    return re.findall(r'"([\w-]+>=[\d.]+)"', setup)


# --- licences ----------------------------------------------------------------------------------


def test_no_licence_of_what_is_installed_forbids_too_much() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "licences.py"], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert {"numpy", "torch", "safetensors"} <= {
        line.split()[0] for line in done.stdout.splitlines()
    }


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ("License-Expression: MIT", False),
        ("License: Apache-2.0", False),
        ("Classifier: License :: OSI Approved :: BSD License", False),
        ("License-Expression: AGPL-3.0-or-later", True),
        ("Classifier: License :: OSI Approved :: GNU Affero General Public License v3", True),
        ("License: Creative Commons Attribution-NonCommercial 4.0", True),
        ("License-Expression: CC-BY-NC-SA-4.0", True),
        ("License: for non-commercial research purposes only", True),
        ("License: UNKNOWN", True),
        ("Summary: says nothing", True),
    ],
)
def test_which_licences_are_refused(fields: str, refused: bool, tmp_path: Path) -> None:
    folder = tmp_path / "some-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: some\nVersion: 1.0\n{fields}\n"
    )
    licences = script("licences")
    distribution = metadata.PathDistribution(folder)
    assert bool(licences.complaint(licences.licence_of(distribution))) == refused


# --- audit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ("", 0, "NOT DONE.*no route"),
        ('{"dependencies": [{"name": "a", "skip_reason": "?"}]}', 0, "NOT DONE.*knows no package"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "^audit: 0 known"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": '
            '[{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            1,
            "a 1: CVE-1, fixed in 2",
        ),
    ],
    ids=["no network", "unknown to the index", "clean", "vulnerable"],
)
def test_the_audit(
    answer: str, status: int, says: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    module = script("audit")
    monkeypatch.setattr(module, "find_spec", lambda name: True)
    monkeypatch.setattr(module, "audit", lambda: (answer, "Traceback\nno route to host"))
    assert module.main() == status
    out, err = capsys.readouterr()
    assert re.search(says, err + out)
