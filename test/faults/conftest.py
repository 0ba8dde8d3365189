"""Nodes under attack; how long the next good image took is printed at the end (`make faults`)."""

import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

# What holds on a machine that has nothing else to do (`make faults`).
MOST_S = float(os.environ.get("MPPE_ANSWER_WITHIN_S", "inf"))
ANSWERS_S: dict[str, float] = {}


def is_soak(item):
    return item.name == "test_nothing_grows"


def pytest_collection_modifyitems(items):
    """The soak's result comes last."""
    items.sort(key=is_soak)


@pytest.fixture(scope="session", autouse=True)
def soaking(request, tmp_path_factory):
    """The soak, if its test was chosen: a process beside the tests, and its folder."""
    if not any(map(is_soak, request.session.items)):
        yield None
        return
    folder = tmp_path_factory.mktemp("soak")
    minutes = os.environ.get("MPPE_SOAK_MINUTES", "3")
    program = Path(__file__).with_name("soak.py")
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, program, "--minutes", minutes, "--out", folder],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield process, folder
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait()


@pytest.fixture(scope="module")
def host():
    """Runs nodes, for which a camera is never silent for too long."""
    from node_host import make_host

    from mppe_ros import subscriptions

    with pytest.MonkeyPatch.context() as patch:
        host = make_host(patch)
        patch.setattr(subscriptions, "SILENCE_S", 3600.0)
        yield host
        host.close()


@pytest.fixture(scope="module")
def rig(request, host):
    """One node for a module's tests."""
    from cases import NODES
    from rig import Rig

    rig = Rig(host, f"/{request.module.__name__}", **NODES["plain"])
    yield rig
    rig.close()


@pytest.fixture
def note_answer(request):
    """Keeps how long a test's good image took, s."""

    def note(seconds):
        ANSWERS_S[request.node.name] = seconds
        assert seconds <= MOST_S

    return note


def pytest_terminal_summary(terminalreporter):
    if not ANSWERS_S:
        return
    ranked = sorted(ANSWERS_S.items(), key=lambda item: item[1])
    times_ms = [1000 * seconds for _, seconds in ranked]
    quantiles = statistics.quantiles(times_ms, n=100) if len(times_ms) > 1 else times_ms * 99
    late = sum(ms > 1000 for ms in times_ms)
    terminalreporter.section("time from a fault to the next answer")
    terminalreporter.write_line(
        f"{len(ranked)} faults: median {quantiles[49]:.0f} ms, 95 % within {quantiles[94]:.0f} ms,"
        f" longest {times_ms[-1]:.0f} ms ({ranked[-1][0]}); later than 1 s: {late}"
    )
