"""Point the ROS 2 wheels' CMake files at this virtual environment.

The wheels export the header folders of the machine they were built on
(`/opt/python/cp311-cp311/include/python3.11`, …); CMake refuses targets whose folders don't exist.
Run with the environment's own Python; running it again changes nothing.
"""
import re
import sys
import sysconfig
from pathlib import Path

BUILD_HOST_PYTHON = r"/opt/python/cp\d+-cp\d+"
REPLACEMENTS = (
    (re.compile(BUILD_HOST_PYTHON + r"/include/python\d+\.\d+"), sysconfig.get_path("include")),
    (
        re.compile(BUILD_HOST_PYTHON + r"/lib/python\d+\.\d+/site-packages"),
        sysconfig.get_path("purelib"),
    ),
)


def fix_text(text: str) -> str:
    """Return the CMake code with every path of the build host replaced by this Python's."""
    for pattern, folder in REPLACEMENTS:
        # A function, because a replacement string would have its backslashes interpreted.
        text = pattern.sub(lambda _, folder=folder: folder, text)
    return text


def fix_tree(prefix: Path) -> int:
    """Fix `prefix/share/**/*.cmake` in place and return how many files changed."""
    changed = 0
    for path in sorted(prefix.glob("share/**/*.cmake")):
        text = path.read_text(encoding="utf-8")
        fixed = fix_text(text)
        if fixed != text:
            path.write_text(fixed, encoding="utf-8")
            changed += 1
    return changed


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        sys.exit("fix_cmake_paths.py: run me with the Python of the virtual environment")
    print(f"fixed the paths in {fix_tree(Path(sys.prefix))} CMake files")
