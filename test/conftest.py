"""Fixtures of tests of nodes, and what the tests say at their end."""

import sys

import pytest


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
