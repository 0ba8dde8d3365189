"""Fixtures of tests of nodes, and what the tests say at their end."""

import os
import sys

import pytest

# Before torch is there, and for all processes: threads that wait for a busy core take several
# times as long, and small networks gain nothing by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def robot(request):
    """A camera and a listener, in a namespace of the test's own."""
    from node_rig import Robot, namespace_of

    robot = Robot(namespace_of(request))
    yield robot
    robot.close()


@pytest.fixture
def host(monkeypatch):
    """Runs nodes around a pipeline without networks."""
    from node_host import make_host

    host = make_host(monkeypatch)
    yield host
    host.close()


def pytest_terminal_summary(terminalreporter):
    fuzz = sys.modules.get("test_fuzz")
    if fuzz and fuzz.TRIED:
        count = sum(fuzz.TRIED.values())
        terminalreporter.write_line(f"fuzz: {count} inputs in {len(fuzz.TRIED)} tests")
