"""The process of a node: started, served until it is done or a signal comes, ended in order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.signals import SignalHandlerOptions

NodeT = TypeVar("NodeT", bound=Node)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Often enough to notice a stop soon, seldom enough to cost nothing.
_SPIN_PERIOD_S = 0.2


def run(
    name: str,
    make: Callable[[], NodeT],
    work: Callable[[NodeT], int],
    finish: Callable[[NodeT], object] = Node.destroy_node,
    args: list[str] | None = None,
) -> int:
    """Makes a node and works with it; SIGINT and SIGTERM end the work, not what finishes it.

    :param make: what it can't be given (a ValueError, what rclpy raises) is one sentence.
    :param work: the exit status; see `spin`.
    :return: the exit status: 1 if the node could not be made, 0 if a signal ended it.
    """
    working, signalled = True, False

    def interrupt(*_: object) -> None:
        nonlocal working, signalled
        signalled = True
        # Once: ros2 launch repeats the terminal's Ctrl-C, which must not cut the end short.
        if working:
            working = False
            raise KeyboardInterrupt

    node: NodeT | None = None
    status = 0
    try:
        # Not rclpy's handlers: they end all communication before the last messages have arrived.
        # SIGINT too: a shell's background job starts with it ignored.
        for number in _SIGNALS:
            signal.signal(number, interrupt)
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
            node = make()
        except (RuntimeError, ValueError, ParameterException, InvalidQosOverridesError) as error:
            if signalled:
                raise
            get_logger(name).fatal(f"cannot start: {error}")
            status = 1
        else:
            status = work(node)
        working = False
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        # What interrupts rclpy's C++ comes out of it as an error of its own.
        if not signalled:
            raise
        get_logger(name).debug(f"ended by a signal: {error!r}")
    finally:
        working = False
        if node is not None:
            finish(node)
    rclpy.try_shutdown()
    return status


def spin(node: Node, until: Callable[[], bool] = lambda: False) -> None:
    """Serves a node's callbacks; for ever, if nothing else is said."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not until():
        executor.spin_once(_SPIN_PERIOD_S)
