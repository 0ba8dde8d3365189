"""One thread that works on the newest item only: a newer one replaces whatever still waits."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Runs ``job`` on items in its own thread, which starts at once.

    :param job: is called with one item at a time. What it raises goes to ``on_error`` and never
        ends the thread.
    :param min_period_s: least time between the starts of two jobs; 0 = none.
    """

    def __init__(
        self,
        job: Callable[[Item], None],
        on_error: Callable[[Item, Exception], None],
        *,
        min_period_s: float = 0.0,
        name: str = "worker",
    ) -> None:
        self._job, self._on_error = job, on_error
        self._min_period_s = min_period_s
        self._last_start_s = float("-inf")
        self._slot: deque[Item] = deque(maxlen=1)
        self._changed = threading.Condition()
        self._stopping = self._busy = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Hands over an item; true if it replaced one that was still waiting."""
        with self._changed:
            replaced = bool(self._slot)
            self._slot.append(item)
            self._changed.notify_all()
        return replaced

    def discard(self) -> bool:
        """Drops what waits; true if something did. A job that runs goes on."""
        with self._changed:
            waited = bool(self._slot)
            self._slot.clear()
        return waited

    def wait_idle(self, timeout_s: float) -> bool:
        """Until no job runs and none may begin; false if one still does after that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._busy or self._slot), timeout_s)

    def set_min_period(self, min_period_s: float) -> None:
        """Changes the least time between the starts of two jobs, for a waiting item too."""
        with self._changed:
            self._min_period_s = min_period_s
            self._changed.notify_all()

    @property
    def stopping(self) -> bool:
        """True from the call of :meth:`stop`: a long job should then leave its result unused."""
        return self._stopping

    def stop(self, timeout_s: float) -> bool:
        """Drops what waits and ends the thread; false if its job was not done in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while items := self._wait():
            (item,) = items
            try:
                self._job(item)
            except Exception as error:
                self._report(item, error)
            # Not kept while waiting for the next one: an item may be a big image.
            del item, items
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _wait(self) -> tuple[Item] | None:
        """Until an item may be worked on (that one) or the worker is stopped (None)."""
        with self._changed:
            while not self._stopping:
                early_s = self._last_start_s + self._min_period_s - time.monotonic()
                if self._slot and early_s <= 0:
                    self._last_start_s = time.monotonic()
                    self._busy = True
                    return (self._slot.pop(),)
                self._changed.wait(early_s if self._slot else None)
        return None

    def _report(self, item: Item, error: Exception) -> None:
        try:
            self._on_error(item, error)
        except Exception:
            traceback.print_exc()
