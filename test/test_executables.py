"""The process of a node and the signals that end it, in a process of its own."""

import os
import subprocess
import sys

import domain
import pytest

TIMEOUT_S = 120
# A signal comes before each line of `run` in turn, once its handlers are there, and again while
# the node ends: ros2 launch repeats the terminal's Ctrl-C.
_SIGNALLED_BEFORE_EACH_LINE = """
import linecache, os, signal, sys
from rclpy.node import Node
from mppe_ros import executables

number = getattr(signal, sys.argv[1])

def make():
    made.append(Node("signalled"))
    return made[-1]

def finish(node):
    os.kill(os.getpid(), number)
    node.destroy_node()
    finished.append(node)

def trace(frame, event, argument):
    global line
    if frame.f_code is not executables.run.__code__:
        return None
    ready = "interrupt" in str(signal.getsignal(signal.SIGTERM))
    # Python handles no signal at a try, but traces it, in some versions as if outside of all.
    is_try = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() == "try:"
    if event == "line" and ready and not is_try:
        line += 1
        if line == signalled:
            os.kill(os.getpid(), number)
    return trace

def run():
    global line, made, finished
    line, made, finished = 0, [], []
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.settrace(trace)
    status = executables.run("signalled", make, lambda node: 0, finish, [])
    sys.settrace(None)
    assert (status, finished) == (0, made), (signalled, status, finished, made)

signalled = 0
run()
lines = line
for signalled in range(1, lines + 1):
    run()
print(lines)
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_in_order_wherever_it_comes(how):
    done = _python(_SIGNALLED_BEFORE_EACH_LINE, how)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert int(done.stdout.split()[-1]) > 8  # of the lines of `run`


def _python(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain.DOMAIN_ID)},
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
