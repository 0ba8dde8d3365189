"""The same complaint not over and over."""

from __future__ import annotations

import re
import threading
import time

# Numbers, and names in quotation marks (not apostrophes).
_DETAILS = re.compile(r"""(?<!\w)'[^']*'|(?<!\w)"[^"]*"|\d+""")


class Throttle:
    """Lets a text through once per period; those that differ in numbers or quoted names are one.

    May be asked by several threads.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._last_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def allows(self, text: str) -> bool:
        now_s, key = time.monotonic(), _DETAILS.sub("#", text)
        with self._lock:
            self._last_s = {k: t for k, t in self._last_s.items() if now_s - t < self._period_s}
            if key in self._last_s:
                return False
            self._last_s[key] = now_s
            return True
