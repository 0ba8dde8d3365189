"""People on the image, and seen from above. No ROS: records in, RGB arrays out.

Records have the fields of Pose3DArray.msg (`records.py`), as they come from the pipeline, a
message or a line of JSON. Everything returned is a new array; sizes of lines and letters follow
the size of the image.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .records import Record, present
from .structures import FloatArray, Intrinsics, JointStatus

Rgb = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

# Saturation and value of a person's hue: the left side pale, the right side deep.
_SHADES = {"left": (0.35, 1.0), "middle": (0.75, 0.95), "right": (1.0, 0.72)}
# Steps of the golden ratio keep the hues of consecutive ids far apart.
_HUE_STEP = (math.sqrt(5) - 1) / 2
# Without ids the hue follows the direction, from red on the left to violet on the right: it
# changes as slowly as people move, where colours by order would flicker.
_EDGE_DEG = 35.0
_LEFT_HUE, _RIGHT_HUE = 0.0, 0.82

_OUTLINE: Colour = (18, 20, 24)
_BACKGROUND: Colour = (24, 27, 33)
_FIELD_OF_VIEW: Colour = (33, 38, 47)
_GRID: Colour = (58, 64, 75)
_TEXT: Colour = (196, 202, 212)
_TRUTH: Colour = (255, 255, 255)

_FAINT = 0.45  # opacity of bones whose joints are doubtful
_SIGMAS = 2.0  # radius of the uncertainty ellipse
_SHOULDER_M = 0.42  # labels keep this distance from a root, so that they don't hide the body

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# OpenCV draws at fractions of a pixel in fixed point: 4 bits of them.
_SHIFT = 4
# Farther out nothing is visible, and fixed point would overflow.
_FARTHEST_PX = 1e5


@dataclass(frozen=True)
class Area:
    """The floor that a top view shows: ``half_width_m`` left and right, ``depth_m`` ahead."""

    half_width_m: float
    depth_m: float


class TopPoint(NamedTuple):
    """A place on the floor, camera frame: x to the right, z ahead."""

    x_m: float
    z_m: float


def draw_people(rgb: Rgb, record: Record) -> Rgb:
    """Skeletons, boxes and distances on the image they were found in; near people on top.

    :param rgb: (H, W, 3), not changed. May be larger or smaller than the image of the record.
    """
    image = np.ascontiguousarray(rgb).copy()
    scale = image.shape[1] / (record["image_width"] or image.shape[1])
    people = [_Figure(pose, record, scale) for pose in _far_to_near(record)]
    unit = _unit(image)

    def draw_faint(layer: Rgb) -> None:
        for person in people:
            person.draw_bones(layer, unit, sure=False)

    _blend(image, _FAINT, draw_faint)
    for person in people:
        person.draw_bones(image, unit, sure=True)
        person.draw_joints(image, unit)
        _draw_brackets(image, person.box, person.colours["middle"], unit)
    labels = _Labels(image, unit)
    for person in reversed(people):  # the near ones choose first
        left, top, right, bottom = person.box
        labels.put(
            label_of(person.pose),
            person.colours["middle"],
            [(left, top - labels.height), (left, bottom), (right, top), (left, top)],
        )
    return image


def draw_top_view(
    record: Record,
    area: Area,
    size: tuple[int, int],
    *,
    camera: Intrinsics | None = None,
    truth: Sequence[TopPoint] = (),
) -> Rgb:
    """The scene from above, the camera at the bottom looking up, one square per metre or more.

    A dot is a person's root, the ellipse around it holds it at two standard deviations.

    :param size: width and height, px.
    :param camera: draws its field of view.
    :param truth: true roots, drawn as hollow rings.
    :return: (height, width, 3)
    """
    width, height = size
    image = np.full((height, width, 3), _BACKGROUND, np.uint8)
    floor = _Floor(image, area)
    if camera is not None:
        floor.draw_field_of_view(camera)
    floor.draw_grid()
    people = _far_to_near(record)
    floor.draw_uncertainty(people)
    for pose in people:
        floor.draw_person(pose, record)
    for place in truth:
        floor.draw_truth(place)
    labels = _Labels(image, floor.unit)
    for pose in reversed(people):
        text = label_of(pose)
        places = floor.label_places(pose, labels.width(text), labels.height)
        labels.put(text, colours_of(pose)["middle"], places)
    floor.draw_legend(bool(truth))
    return image


def area_of(records: Iterable[Record], truth: Iterable[TopPoint] = ()) -> Area:
    """Floor enough for all of these people; a few wild results don't count."""
    roots = [_root_m(pose)[[0, 2]] for record in records for pose in present(record)]
    points = np.array([*roots, *truth], np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) == 0:
        return Area(2.5, 5.0)
    aside, ahead = np.percentile(np.abs(points), 98, axis=0, method="higher")
    return Area(max(1.5, float(aside) + 0.6), max(3.0, float(ahead) + 0.8))


def side_by_side(left: Rgb, right: Rgb) -> Rgb:
    """Two pictures in one; the lower one gets dark bars above and below."""
    height = max(left.shape[0], right.shape[0])

    def padded(image: Rgb) -> Rgb:
        above = (height - image.shape[0]) // 2
        rows = np.full((height, *image.shape[1:]), _BACKGROUND, np.uint8)
        rows[above : above + image.shape[0]] = image
        return rows

    return np.hstack([padded(left), padded(right)])


def fit(rgb: Rgb, shape: tuple[int, ...]) -> Rgb:
    """The picture in a frame of another shape, shrunk and centred as needed."""
    if rgb.shape == shape:
        return rgb
    height, width = shape[:2]
    scale = min(height / rgb.shape[0], width / rgb.shape[1])
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = small[:height, :width]
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    frame = np.zeros(shape, np.uint8)
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame


def draw_caption(rgb: Rgb, text: str) -> Rgb:
    """A line of text on a darkened strip along the bottom."""
    image = rgb.copy()
    unit = _unit(image)
    strip = image[-round(24 * unit):]
    _blend(strip, 0.65, lambda layer: layer.__setitem__(slice(None), _OUTLINE))
    _put_text(image, text, (9 * unit, image.shape[0] - 8 * unit), _TEXT, 0.42 * unit)
    return image


# --- people --------------------------------------------------------------------------------------


class _Figure:
    """One person on an image."""

    def __init__(self, pose: Record, record: Record, scale: float) -> None:
        self.pose = pose
        self.colours = colours_of(pose)
        self._names = record["joint_names"]
        self._bones = bones_of(record)
        # Pixel centres are whole numbers, so a resized image's are shifted by half a pixel.
        joints = np.array([[j["u"], j["v"]] for j in pose["joints"]], np.float64).reshape(-1, 2)
        self._joints = (joints + 0.5) * scale - 0.5
        status = np.array([joint["status"] for joint in pose["joints"]], np.uint8)
        self._shown = np.isfinite(self._joints).all(axis=1) & (status != JointStatus.INVALID)
        self._sure = self._shown & (status == JointStatus.OK)
        x, y, w, h = (float("nan") if side is None else side * scale for side in pose["bbox"])
        self.box = (x, y, x + w, y + h)
        self._height_px = h if math.isfinite(h) else 0.0

    def draw_bones(self, image: Rgb, unit: float, *, sure: bool) -> None:
        """Bones between sure joints, or the other ones."""
        bones = [
            (*self._joints[[parent, child]], self.colours[_side(self._names[child])])
            for parent, child in self._bones
            if self._shown[parent] and self._shown[child]
            and bool(self._sure[parent] and self._sure[child]) == sure
        ]  # fmt: skip
        thickness = self._thickness(unit)
        for start, end, _ in bones:
            _line(image, start, end, _OUTLINE, thickness + 1.6 * unit)
        for start, end, colour in bones:
            _line(image, start, end, colour, thickness)

    def draw_joints(self, image: Rgb, unit: float) -> None:
        """A dot for each joint, hollow where it is doubtful."""
        radius = 0.75 * self._thickness(unit) + 0.6 * unit
        for index in np.flatnonzero(self._shown):
            colour = self.colours[_side(self._names[index])]
            centre = self._joints[index]
            if self._sure[index]:
                _disc(image, centre, radius + 0.8 * unit, _OUTLINE)
                _disc(image, centre, radius, colour)
            else:
                _ring(image, centre, 0.8 * radius, colour, unit)

    def _thickness(self, unit: float) -> float:
        """Thin lines on small people, so that arms and legs stay apart."""
        return float(np.clip(self._height_px / 90, 1.2 * unit, 3.2 * unit))


def _far_to_near(record: Record) -> list[Record]:
    def distance(pose: Record) -> float:
        distance_m = _distance_m(pose)
        return distance_m if math.isfinite(distance_m) else math.inf

    return sorted(present(record), key=distance, reverse=True)


def bones_of(record: Record) -> list[tuple[int, int]]:
    """Pairs of joint indices."""
    flat = record["bones"]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _side(joint_name: str) -> str:
    return {"L_": "left", "R_": "right"}.get(joint_name[:2], "middle")


def _root_m(pose: Record) -> FloatArray:
    return _xyz_m(pose["root"]["pose"]["position"])


def _xyz_m(point: Record) -> FloatArray:
    # JSON's null stands for what is not a number.
    return np.array([point["x"], point["y"], point["z"]], np.float64)


def _distance_m(pose: Record) -> float:
    return float(np.linalg.norm(_root_m(pose)))


def label_of(pose: Record) -> str:
    """What is written at a person: id, if there is one, and distance."""
    distance_m = _distance_m(pose)
    distance = f"{distance_m:.1f} m" if math.isfinite(distance_m) else "? m"
    return f"#{pose['track_id']}  {distance}" if pose["track_id"] else distance


def colours_of(pose: Record) -> dict[str, Colour]:
    """A person's colours by side."""
    if pose["track_id"]:
        hue = pose["track_id"] * _HUE_STEP % 1
    else:
        hue = _direction_hue(_root_m(pose))
    return {side: _rgb(hue, *shade) for side, shade in _SHADES.items()}


def _direction_hue(root_m: FloatArray) -> float:
    if not np.isfinite(root_m).all():
        return 0.0
    direction_deg = math.degrees(math.atan2(root_m[0], root_m[2]))
    share = np.clip((direction_deg + _EDGE_DEG) / (2 * _EDGE_DEG), 0, 1)
    return _LEFT_HUE + (_RIGHT_HUE - _LEFT_HUE) * float(share)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


# --- the floor -----------------------------------------------------------------------------------


class _Floor:
    """A top view under construction: metres to pixels, and what lies on the floor."""

    def __init__(self, image: Rgb, area: Area) -> None:
        height, width = image.shape[:2]
        self.image, self.unit = image, _unit(image)
        bottom = 30 * self.unit
        self._px_per_m = min(width / 2 / area.half_width_m, (height - bottom) / area.depth_m)
        self._origin = np.array([(width - 1) / 2, height - 1 - bottom])
        self._half_width_m = width / 2 / self._px_per_m
        self._depth_m = height / self._px_per_m

    def pixel(self, point_m: FloatArray) -> FloatArray:
        """(..., 3) points of the camera frame to (..., 2) pixels."""
        return self._origin + np.asarray(point_m)[..., [0, 2]] * (1, -1) * self._px_per_m

    def draw_field_of_view(self, camera: Intrinsics) -> None:
        """The floor between the left and right edges of the image."""
        far_m = 2 * self._depth_m
        corners = [
            (far_m * (u - camera.cx) / camera.fx, 0, far_m) for u in (-0.5, camera.width - 0.5)
        ]
        points = self.pixel(np.array([(0, 0, 0), *corners]))
        cv2.fillPoly(self.image, [_fixed(points)], _FIELD_OF_VIEW, cv2.LINE_AA, _SHIFT)
        for corner in points[1:]:
            _line(self.image, points[0], corner, _GRID, 1.2 * self.unit)

    def draw_grid(self) -> None:
        """Lines in metres, as dense as stays readable, and the camera."""
        step = next(s for s in (1, 2, 5, 10, 20, 50, math.inf)
                    if s * self._px_per_m >= 34 * self.unit)  # fmt: skip
        if math.isfinite(step):
            self._draw_lines(step)
        x, y = self._origin
        size = 8 * self.unit
        camera = np.array([(x - size, y - size), (x + size, y - size), (x, y + 0.4 * size)])
        cv2.fillPoly(self.image, [_fixed(camera)], _TEXT, cv2.LINE_AA, _SHIFT)

    def _draw_lines(self, step_m: float) -> None:
        height, width = self.image.shape[:2]
        for z in np.arange(0, self._depth_m, step_m):
            y = self.pixel(np.array([0, 0, z]))[1]
            _line(self.image, (0, y), (width, y), _GRID, 1)
            if z > 0 and y > 20 * self.unit:
                self._text(f"{z:g} m", (5 * self.unit, y - 4 * self.unit))
        aside = np.arange(step_m, self._half_width_m, step_m)
        for x in (0, *aside, *-aside):
            u = self.pixel(np.array([x, 0, 0]))[0]
            _line(self.image, (u, 0), (u, height), _GRID, 1)

    def draw_uncertainty(self, people: Sequence[Record]) -> None:
        """Where the roots probably are."""
        ellipses = [(*ellipse, colours_of(pose)["middle"]) for pose in people
                    if (ellipse := self._ellipse(pose)) is not None]  # fmt: skip

        def fill(layer: Rgb) -> None:
            for centre, axes, angle, colour in ellipses:
                _ellipse(layer, centre, axes, angle, colour, -1)

        _blend(self.image, 0.22, fill)

    def _ellipse(self, pose: Record) -> tuple[FloatArray, FloatArray, float] | None:
        """Centre, half axes (px) and angle (deg), or None where they are not known."""
        covariance = np.array(pose["root"]["covariance"], np.float64).reshape(6, 6)
        floor = covariance[np.ix_([0, 2], [0, 2])] * [[1, -1], [-1, 1]]  # z ahead is -v
        root = _root_m(pose)
        if not (np.isfinite(floor).all() and np.isfinite(root).all()):
            return None
        variances, directions = np.linalg.eigh(floor)
        axes = _SIGMAS * np.sqrt(np.maximum(variances, 0)) * self._px_per_m
        angle = math.degrees(math.atan2(directions[1, 0], directions[0, 0]))
        return self.pixel(root), axes, angle

    def draw_person(self, pose: Record, record: Record) -> None:
        """The skeleton from above, and the root as a dot."""
        colours = colours_of(pose)
        joints = np.array([_xyz_m(joint["position"]) for joint in pose["joints"]]).reshape(-1, 3)
        shown = np.isfinite(joints).all(axis=1)
        shown &= [joint["status"] != JointStatus.INVALID for joint in pose["joints"]]
        points = self.pixel(joints)
        for parent, child in bones_of(record):
            if shown[parent] and shown[child]:
                colour = colours[_side(record["joint_names"][child])]
                _line(self.image, points[parent], points[child], colour, 1.8 * self.unit)
        if np.isfinite(root := _root_m(pose)).all():
            _disc(self.image, self.pixel(root), 4.6 * self.unit, _OUTLINE)
            _disc(self.image, self.pixel(root), 3.6 * self.unit, colours["middle"])

    def draw_truth(self, place: TopPoint) -> None:
        """A hollow ring."""
        centre = self.pixel(np.array([place.x_m, 0, place.z_m]))
        _ring(self.image, centre, 6.5 * self.unit, _TRUTH, 1.4 * self.unit)

    def label_places(
        self, pose: Record, width: float, height: float
    ) -> list[tuple[float, float]]:
        """Top left corners for a person's label, the best first: right of it, then left of it."""
        x, y = self.pixel(_root_m(pose))
        aside = max(7 * self.unit, _SHOULDER_M * self._px_per_m)
        sides = [x + aside, x - aside - width]
        if sides[0] + width > self.image.shape[1]:
            sides.reverse()
        return [(side, y - height * up) for side in sides for up in (0.5, 1.2, -0.2)]

    def draw_legend(self, with_truth: bool) -> None:
        """What the marks mean, along the bottom."""
        y = self.image.shape[0] - 9 * self.unit
        x = 12 * self.unit
        _disc(self.image, (x, y - 4 * self.unit), 3.6 * self.unit, _TEXT)
        x = self._text("estimate", (x + 8 * self.unit, y)) + 18 * self.unit
        if with_truth:
            _ring(self.image, (x, y - 4 * self.unit), 5 * self.unit, _TRUTH, 1.4 * self.unit)
            self._text("ground truth", (x + 10 * self.unit, y))

    def _text(self, text: str, place: tuple[float, float]) -> float:
        """Writes and returns where the text ends, px."""
        scale = 0.42 * self.unit
        _put_text(self.image, text, place, _TEXT, scale)
        return place[0] + float(cv2.getTextSize(text, _FONT, scale, _weight(scale))[0][0])


# --- labels --------------------------------------------------------------------------------------


class _Labels:
    """Coloured labels that avoid each other and stay inside the image."""

    def __init__(self, image: Rgb, unit: float) -> None:
        self._image, self._unit = image, unit
        self._scale = 0.42 * unit
        self._taken: list[tuple[float, float, float, float]] = []
        self.height = 17 * unit

    def width(self, text: str) -> float:
        """Width of a label, px."""
        (text_width, _), _ = cv2.getTextSize(text, _FONT, self._scale, _weight(self._scale))
        return float(text_width + 10 * self._unit)

    def put(self, text: str, colour: Colour, places: Sequence[tuple[float, float]]) -> None:
        """Puts a label with its top left corner at the first of ``places`` that is free."""
        width = self.width(text)
        boxes = [self._inside(place, width) for place in places if np.isfinite(place).all()]
        if not boxes:
            return
        box = next((box for box in boxes if not any(_touch(box, t) for t in self._taken)),
                   boxes[0])  # fmt: skip
        self._taken.append(box)
        left, top, right, bottom = (round(side) for side in box)
        cv2.rectangle(self._image, (left, top), (right, bottom), colour, -1)
        dark = np.dot(colour, (0.299, 0.587, 0.114)) < 120
        ink: Colour = (255, 255, 255) if dark else _OUTLINE
        baseline = bottom - 0.29 * self.height
        cv2.putText(self._image, text, (round(left + 5 * self._unit), round(baseline)), _FONT,
                    self._scale, ink, _weight(self._scale), cv2.LINE_AA)  # fmt: skip

    def _inside(
        self, place: tuple[float, float], width: float
    ) -> tuple[float, float, float, float]:
        height_px, width_px = self._image.shape[:2]
        x = min(max(place[0], 0.0), max(width_px - 1 - width, 0.0))
        y = min(max(place[1], 0.0), max(height_px - 1 - self.height, 0.0))
        return x, y, x + width, y + self.height


def _touch(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- strokes -------------------------------------------------------------------------------------


def _unit(image: Rgb) -> float:
    """1 in an image of 480 px; line widths and letters are multiples of it."""
    return float(np.clip(min(image.shape[:2]) / 480, 0.7, 8))


def _blend(image: Rgb, opacity: float, draw: Callable[[Rgb], object]) -> None:
    """Lets ``draw`` paint translucently."""
    layer = image.copy()
    draw(layer)
    cv2.addWeighted(layer, opacity, image, 1 - opacity, 0, dst=image)


def _fixed(points: npt.ArrayLike) -> npt.NDArray[np.int32]:
    clipped = np.clip(np.asarray(points, np.float64), -_FARTHEST_PX, _FARTHEST_PX)
    return np.round(clipped * 2**_SHIFT).astype(np.int32)


def _point(point: npt.ArrayLike) -> tuple[int, int]:
    x, y = _fixed(point)
    return int(x), int(y)


def _line(
    image: Rgb, start: npt.ArrayLike, end: npt.ArrayLike, colour: Colour, width: float
) -> None:
    cv2.line(image, _point(start), _point(end), colour, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _disc(image: Rgb, centre: npt.ArrayLike, radius: float, colour: Colour) -> None:
    radius_fixed = round(radius * 2**_SHIFT)
    cv2.circle(image, _point(centre), radius_fixed, colour, -1, cv2.LINE_AA, _SHIFT)


def _ring(
    image: Rgb, centre: npt.ArrayLike, radius: float, colour: Colour, width: float
) -> None:
    radius_fixed = round(radius * 2**_SHIFT)
    thickness = max(1, round(width))
    cv2.circle(image, _point(centre), radius_fixed, colour, thickness, cv2.LINE_AA, _SHIFT)


def _ellipse(
    image: Rgb,
    centre: npt.ArrayLike,
    axes: FloatArray,
    angle_deg: float,
    colour: Colour,
    thickness: int,
) -> None:
    cv2.ellipse(image, _point(centre), _point(axes), angle_deg, 0, 360, colour, thickness,
                cv2.LINE_AA, _SHIFT)  # fmt: skip


def _draw_brackets(image: Rgb, box: Sequence[float], colour: Colour, unit: float) -> None:
    """The corners of a box: they hide less than its sides."""
    if not np.isfinite(box).all():
        return
    left, top, right, bottom = box
    length = 0.16 * min(right - left, bottom - top)
    for x, inwards in ((left, length), (right, -length)):
        for y, downwards in ((top, length), (bottom, -length)):
            corner = [(x + inwards, y), (x, y), (x, y + downwards)]
            for width, stroke in ((3.2, _OUTLINE), (1.6, colour)):
                for start, end in pairwise(corner):
                    _line(image, start, end, stroke, width * unit)


def _put_text(
    image: Rgb, text: str, place: tuple[float, float], colour: Colour, scale: float
) -> None:
    position = round(place[0]), round(place[1])
    cv2.putText(image, text, position, _FONT, scale, colour, _weight(scale), cv2.LINE_AA)


def _weight(scale: float) -> int:
    return max(1, round(1.6 * scale))
