#!/usr/bin/env python3
"""Ask pip-audit for known vulnerabilities of what this Python's environment has installed.

Ends with status 1 if there are some. Where the network or its index doesn't tell, that is said and
the status is 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

TIMEOUT_S = 600


def audit() -> tuple[str, str]:
    """What pip-audit prints, JSON, and what it says of errors."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {TIMEOUT_S} s"
    return done.stdout, done.stderr


def findings(answer: str) -> tuple[list[str], int, int]:
    """A line per vulnerability; how many packages are listed there, and how many are not."""
    packages = json.loads(answer)["dependencies"] if answer.strip() else []
    known = [package for package in packages if "vulns" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, "
        f"fixed in {', '.join(found['fix_versions']) or 'no version'}"
        for package in known
        for found in package["vulns"]
    ]
    return lines, len(known), len(packages) - len(known)


def main() -> int:
    """Print the vulnerabilities, or that there is nobody to ask."""
    if find_spec("pip_audit") is None:
        print("audit: there is no pip-audit: pip install pip-audit", file=sys.stderr)
        return 1
    answer, errors = audit()
    lines, known, unknown = findings(answer)
    if not known:
        why = errors.strip().split("\n")[-1] if unknown == 0 else "the index knows no package"
        print(f"audit: NOT DONE: no list of known vulnerabilities can be reached ({why})")
        return 0
    for line in lines:
        print(f"audit: {line}", file=sys.stderr)
    print(f"audit: {len(lines)} known vulnerabilities in {known} packages, {unknown} not listed")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
