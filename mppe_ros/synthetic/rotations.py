"""Rotation matrices: the few operations that poses need, vectorised over leading axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrices = NDArray[np.float64]  # (..., 3, 3)


def from_rotation_vectors(vectors: ArrayLike) -> Matrices:
    """Turn rotation vectors into matrices (Rodrigues' formula).

    :param vectors: (..., 3), axis times angle in radians.
    :return: (..., 3, 3).
    """
    vectors = np.asarray(vectors, np.float64)
    angle = np.sqrt((vectors * vectors).sum(-1))[..., None]
    cross = _cross_matrix(vectors / np.maximum(angle, 1e-12))
    angle = angle[..., None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _cross_matrix(v: Matrices) -> Matrices:
    """Make the matrix (..., 3, 3) whose product with w is v x w."""
    result = np.zeros((*v.shape, 3))
    result[..., 2, 1], result[..., 0, 2], result[..., 1, 0] = v[..., 0], v[..., 1], v[..., 2]
    result[..., 1, 2], result[..., 2, 0], result[..., 0, 1] = -v[..., 0], -v[..., 1], -v[..., 2]
    return result


def to_rotation_vectors(matrices: ArrayLike) -> NDArray[np.float64]:
    """Turn matrices into rotation vectors of at most pi radians.

    :param matrices: (..., 3, 3).
    :return: (..., 3), axis times angle in radians.
    """
    m = np.asarray(matrices, np.float64)
    skew = np.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
    )
    cosine = np.clip((np.trace(m, axis1=-2, axis2=-1) - 1) / 2, -1, 1)
    angle = np.arccos(cosine)[..., None]
    sine = np.sin(angle)
    # Near half a turn the skew part vanishes: the axis is a column of the symmetric part.
    symmetric = (m + np.swapaxes(m, -1, -2)) / 2 - cosine[..., None, None] * np.eye(3)
    column = np.argmax(np.diagonal(symmetric, axis1=-2, axis2=-1), -1)
    axis = np.take_along_axis(symmetric, column[..., None, None], -1)[..., 0]
    axis = axis / np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-12)
    axis = np.where((axis * skew).sum(-1, keepdims=True) < 0, -axis, axis)
    small = np.where(sine > 1e-7, angle / np.maximum(2 * sine, 1e-12), 0.5) * skew
    return np.where(cosine[..., None] < -0.999, axis * angle, small)


def about(axis: str, degrees: ArrayLike) -> Matrices:
    """Rotate about a coordinate axis.

    :param axis: "x", "y" or "z".
    :param degrees: (...), angles.
    :return: (..., 3, 3).
    """
    angle = np.radians(degrees)
    result = np.zeros((*np.shape(angle), 3, 3))
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    result[..., i, i] = 1
    result[..., j, j] = result[..., k, k] = np.cos(angle)
    result[..., k, j] = np.sin(angle)
    result[..., j, k] = -result[..., k, j]
    return result


def euler(order: str, degrees: ArrayLike) -> Matrices:
    """Compose rotations about fixed axes, the first letter applied first.

    :param order: letters of "xyz", one per column.
    :param degrees: (..., len(order)).
    :return: (..., 3, 3).
    """
    degrees = np.asarray(degrees, np.float64)
    result = np.broadcast_to(np.eye(3), (*degrees.shape[:-1], 3, 3))
    for i, letter in enumerate(order):
        result = about(letter, degrees[..., i]) @ result
    return result


def fraction(matrices: ArrayLike, share: ArrayLike) -> Matrices:
    """Rotate only a share of the way from no rotation.

    :param matrices: (..., 3, 3).
    :param share: (...), 0 = identity, 1 = the whole rotation.
    :return: (..., 3, 3).
    """
    return from_rotation_vectors(to_rotation_vectors(matrices) * np.asarray(share)[..., None])


def between(start: ArrayLike, end: ArrayLike, share: ArrayLike) -> Matrices:
    """Interpolate along the shortest rotation.

    :param start: (..., 3, 3) and ``end`` alike.
    :param share: (...), 0 = start, 1 = end.
    :return: (..., 3, 3).
    """
    start = np.asarray(start, np.float64)
    return start @ fraction(np.swapaxes(start, -1, -2) @ np.asarray(end, np.float64), share)


def align(source: ArrayLike, target: ArrayLike) -> Matrices:
    """Give the smallest rotation that turns one direction into another.

    :param source: (..., 3), not zero; ``target`` alike, not opposite.
    :return: (..., 3, 3) with result @ source parallel to target.
    """
    a = np.asarray(source, np.float64)
    b = np.asarray(target, np.float64)
    a = a / np.sqrt((a * a).sum(-1, keepdims=True))
    b = b / np.sqrt((b * b).sum(-1, keepdims=True))
    turn = _cross_matrix(a)
    cosine = (a * b).sum(-1)[..., None, None]
    turn = _cross_matrix((turn @ b[..., None])[..., 0])
    return np.eye(3) + turn + turn @ turn / np.maximum(1 + cosine, 1e-9)


def cross(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Multiply vectors (..., 3), as numpy.cross does, at a fraction of its overhead."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (_cross_matrix(a) @ b[..., None])[..., 0]


def twist(matrices: ArrayLike, axis: ArrayLike) -> Matrices:
    """Keep only the part of a rotation that spins about an axis.

    :param matrices: (..., 3, 3).
    :param axis: (3,), unit length.
    :return: (..., 3, 3); ``matrices @ inverse(result)`` is the swing.
    """
    matrices = np.asarray(matrices, np.float64)
    swing = align(np.broadcast_to(axis, matrices.shape[:-1]), matrices @ np.asarray(axis))
    return np.swapaxes(swing, -1, -2) @ matrices
