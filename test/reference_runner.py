"""Runs the reference release's own loaders and evaluation on random predictions.

    python reference_runner.py COPY WHAT OUT

COPY is a copy of one of its two repositories with miniatures linked into ``data/``, WHAT one of
`RUNS`. Its files and numbers go to OUT: what its evaluation writes, ``printed.txt`` with more
digits than it prints by itself, and ``loaded.npz``, what its loader read. pycocotools, its drawing
and scikit-learn are replaced by stand-ins, as only their names are needed.
"""

import contextlib
import io
import json
import os
import sys
import types
from collections import defaultdict
from pathlib import Path

import numpy as np

# Its class, the split, and Human3.6M's protocol.
RUNS = {
    "root-human36m-1": ("Human36M", "test", 1), "root-human36m-2": ("Human36M", "test", 2),
    "root-mupots": ("MuPoTS", "test", 0), "root-3dpw": ("PW3D", "test", 0),
    "pose-human36m-1": ("Human36M", "test", 1), "pose-human36m-2": ("Human36M", "test", 2),
    "pose-mupots": ("MuPoTS", "test", 0), "pose-muco": ("MuCo", "train", 0),
    "pose-mpii": ("MPII", "train", 0), "pose-mscoco": ("MSCOCO", "train", 0),
}  # fmt: skip


class Coco:
    """The part of pycocotools that the loaders call."""

    def __init__(self, path=None):
        self.dataset = json.loads(Path(path).read_text()) if path else {}
        if path:
            self.createIndex()

    def createIndex(self):  # noqa: N802
        self.anns = {one["id"]: one for one in self.dataset["annotations"]}
        self.imgs = {one["id"]: one for one in self.dataset["images"]}
        self._of_image = defaultdict(list)
        for one in self.dataset["annotations"]:
            self._of_image[one["image_id"]].append(one["id"])

    def loadImgs(self, number):  # noqa: N802
        return [self.imgs[number]]

    def loadAnns(self, numbers):  # noqa: N802
        return [self.anns[number] for number in numbers]

    def getAnnIds(self, number):  # noqa: N802
        return self._of_image[number]


def module(name, **members):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(members)


def main():
    copy, what, out = Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3]).resolve()
    folder, split, protocol = RUNS[what]
    out.mkdir(parents=True, exist_ok=True)
    (copy / "data" / "PW3D").mkdir(exist_ok=True)
    os.chdir(copy / "main")
    sys.path[:0] = [str(copy / "main"), str(copy / "common"), str(copy / "data" / folder)]
    module("pycocotools")
    module("pycocotools.coco", COCO=Coco)
    module("sklearn")
    module("sklearn.metrics", average_precision_score=None)
    import utils  # noqa: F401  (the release's package, found in common/)

    module("utils.vis", vis_keypoints=None, vis_3d_skeleton=None)
    from config import cfg

    cfg.use_gt_bbox = cfg.use_gt_info = True
    source = (copy / "data" / folder / f"{folder}.py").read_text().replace("%.2f", "%.12f")
    if protocol:
        source = source.replace("self.protocol = 2", f"self.protocol = {protocol}")
    names = {"__name__": folder}
    exec(compile(source, folder, "exec"), names)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        database = names[folder](split)
        save(out / "loaded.npz", database.data)
        if split == "test":
            predictions = predict(database, what, np.random.default_rng(0))
            database.evaluate(predictions, str(out))
    (out / "printed.txt").write_text(printed.getvalue())


def save(path, data):
    keys = [key for key in ("img_path", "bbox", "joint_img", "joint_cam", "joint_vis", "root_cam")
            if key in data[0]]  # fmt: skip
    np.savez(path, **{key: np.array([one[key] for one in data]) for key in keys})


def predict(database, what, rng):
    """In heatmap cells, as the networks give them; roots near the truth now and then."""
    count = len(database.data)
    if what.startswith("pose"):
        joints = 21 if what == "pose-mupots" else 18
        return rng.uniform(10, 54, (count, joints, 3))
    if what == "root-mupots":
        for one in database.data:
            one["score"] = float(rng.integers(1, 10)) / 10  # with ties
    cells = np.array([one["root_img"] for one in database.data], float)
    boxes = np.array([one["bbox"] for one in database.data])
    cells[:, :2] = (cells[:, :2] - boxes[:, :2]) / boxes[:, 2:] * 64
    depths = cells[:, 2:] * rng.normal(1, 0.05, (count, 1))
    return np.concatenate([cells[:, :2] + rng.normal(0, 0.3, (count, 2)), depths], axis=1)


if __name__ == "__main__":
    main()
