"""The DDS domain of this test run; others on this machine have other ones.

Images pass through memory that they fit in: what Fast DDS loses on a busy machine says nothing of
the node. To be imported before rclpy.
"""

import fcntl
import os
import tempfile
from pathlib import Path


def _reserve():
    """A number that nobody else has, and the lock that keeps it as long as this process lives."""
    for number in range(1, 101):  # beyond, the ports are those of outgoing connections
        lock = (Path(tempfile.gettempdir()) / f"mppe_ros_test_domain_{number}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return number, lock
    raise RuntimeError("other test runs have all DDS domains")


_PROFILE = Path(__file__).resolve().parents[1] / "config" / "fastdds.xml"
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(_PROFILE))

DOMAIN_ID, _LOCK = _reserve()
