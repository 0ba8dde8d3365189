"""The folder of files that can be fetched or made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$MPPE_CACHE``, else the user's cache folder."""
    if os.environ.get("MPPE_CACHE"):
        return Path(os.environ["MPPE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mppe_ros"
