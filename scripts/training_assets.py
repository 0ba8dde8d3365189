#!/usr/bin/env python3
"""Collect the backgrounds and panoramas that open-s was trained with, from Debian packages.

    apt-get download blender-data lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \\
        mate-backgrounds \\
        plasma-workspace-wallpapers redeclipse-data stellarium-data supertuxkart-data
    for deb in *.deb; do dpkg-deb -x "$deb" "unpacked/${deb%%_*}"; done
    pip install OpenEXR
    python scripts/training_assets.py unpacked ASSETS

ASSETS/backgrounds and ASSETS/hdri are filled; docs/synthetic.md says what else belongs in ASSETS.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

LIST = Path(__file__).parent.parent / "mppe_ros" / "resources" / "open-s" / "backgrounds.txt"
GAMES = ("redeclipse-data", "supertuxkart-data")


def copy_backgrounds(packages: Path, out: Path) -> int:
    """Shrink the listed pictures; tell how many there are."""
    out.mkdir(parents=True, exist_ok=True)
    lines = LIST.read_text().splitlines()
    for line in lines:
        name, source = line.split("\t")
        picture = cv2.imread(str(packages / source))
        if picture is None:
            raise SystemExit(f"{packages / source} is missing: another version of the package?")
        longest = 1000 if source.startswith(GAMES) else 1200
        shrink = min(1.0, longest / max(picture.shape[:2]))
        small = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(out / name), small, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return len(lines)


def convert_panoramas(packages: Path, out: Path) -> int:
    """Write Blender's studio lights (OpenEXR) as Radiance pictures; tell how many there are."""
    import OpenEXR

    out.mkdir(parents=True, exist_ok=True)
    files = sorted((packages / "blender-data").rglob("studiolights/world/*.exr"))
    files = [file for file in files if file.stem != "night"]  # a black sky
    for file in files:
        channels = OpenEXR.File(str(file)).channels()
        key = next(name for name in channels if name.startswith("RGB"))
        rgb = np.asarray(channels[key].pixels, np.float32)[..., :3]
        cv2.imwrite(str(out / f"blender_{file.stem}.hdr"), np.ascontiguousarray(rgb[..., ::-1]))
    return len(files)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("packages", type=Path)
    parser.add_argument("assets", type=Path)
    options = parser.parse_args()
    print(copy_backgrounds(options.packages, options.assets / "backgrounds"), "backgrounds")
    print(convert_panoramas(options.packages, options.assets / "hdri"), "panoramas")


if __name__ == "__main__":
    main()
