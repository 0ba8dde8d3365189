"""The same complaint not over and over."""

from __future__ import annotations

import re
import threading
import time


class Throttle:
    """Lets a text through once per period; texts that differ in numbers only count as one.

    May be asked by several threads.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._last_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def allows(self, text: str) -> bool:
        now_s, key = time.monotonic(), re.sub(r"\d+", "#", text)
        with self._lock:
            self._last_s = {k: t for k, t in self._last_s.items() if now_s - t < self._period_s}
            if key in self._last_s:
                return False
            self._last_s[key] = now_s
            return True
