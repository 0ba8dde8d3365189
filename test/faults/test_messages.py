"""Faulty messages: one complaint, nothing false, and the next good image is answered."""

import re

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from cases import FAULTS, NODES
from rig import Rig

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def rigs(host):
    """The nodes under attack, each started when it is first needed."""
    started = {}

    def rig_of(name):
        if name not in started:
            started[name] = Rig(host, f"/faults_{name}", **NODES[name])
        return started[name]

    yield rig_of
    for rig in started.values():
        rig.close()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_faulty_message(rigs, fault, note_answer):
    if fault.node in ("exact", "approximate"):
        pytest.importorskip("message_filters", reason="needs ros-$ROS_DISTRO-message-filters")
    rig = rigs(fault.node)
    with rig.case():
        stamps = rig.inflict(fault.make, fault.fate, fault.times)
        note_answer(rig.answer())
        if not fault.published:
            assert not [stamp for stamp in stamps if rig.robot.poses_of(stamp)]
        complaints = rig.complaints
        assert len(complaints) == bool(fault.complaint), complaints
        assert all(re.search(fault.complaint, text) for text in complaints)
