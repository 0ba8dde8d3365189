"""What cameras and their wires do wrong: one row per fault, and what has to become of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from node_rig import FRAME_ID, make_image, make_info
from rig import GOOD, HEIGHT, WIDTH, Shot, make_depth
from sensor_msgs.msg import CompressedImage, RegionOfInterest

from mppe_ros.image_messages import BYTES_PER_PIXEL

NAN, INF = math.nan, math.inf
MOST = 2**32 - 1  # of uint32
STEP = 3 * WIDTH


@dataclass(frozen=True)
class Fault:
    """A row: what is sent, again and again.

    :param fate: what becomes of it, a count of `diagnostics.Stats`.
    :param complaint: the one warning or error in the log, a pattern; "" = there must be none.
    :param published: whether people may be published for it.
    :param node: which of ``NODES`` it is sent to.
    :param times: how often.
    """

    name: str
    make: Callable[[], Shot]
    fate: str = "failed"
    complaint: str = ""
    published: bool = False
    node: str = "plain"
    times: int = 3

    def __str__(self) -> str:
        return self.name


# Parameters of the nodes that faults are sent to. Smoothed joints have no pixels of their own, and
# a detector that rests may miss somebody in an image.
_RAW = {"smoothing.enabled": False, "detection_interval": 1}
NODES: dict[str, dict] = {
    "plain": _RAW,
    "untracked": {"tracking.enabled": False},
    "usual": {},
    "exact": {**_RAW, "camera_info_sync": "exact"},
    "approximate": {**_RAW, "camera_info_sync": "approximate"},
    "compressed": {**_RAW, "image_transport": "compressed"},
    "depth": {**_RAW, "depth_fusion": True},
    "assumed": {**_RAW, "assumed_fov_deg": 60.0},
}


# --- images ------------------------------------------------------------------------------------


def changed_image(**changes: object) -> Shot:
    message = make_image(GOOD)
    data = changes.pop("data", None)
    for name, value in changes.items():
        setattr(message, name, value)
    if data is not None:
        message.data = data
    return Shot(message, make_info(GOOD))


def of_length(size: int) -> Shot:
    return changed_image(data=(bytes(make_image(GOOD).data) + bytes(size))[:size])


def short_of(encoding: str) -> Shot:
    """An image in this encoding whose last byte got lost."""
    step = WIDTH * BYTES_PER_PIXEL[encoding]
    return changed_image(encoding=encoding, step=step, data=bytes(HEIGHT * step - 1))


def picture(rgb: np.ndarray) -> Shot:
    return Shot(make_image(rgb), make_info(rgb))


def noise(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def of_other_size(width: int, height: int) -> Shot:
    """An image that its camera_info doesn't fit."""
    return Shot(make_image(np.full((height, width, 3), 90, np.uint8)), make_info(GOOD))


def of_frame(frame_id: str) -> Shot:
    shot = Shot.good()
    shot.image.header.frame_id, shot.info.header.frame_id = frame_id, FRAME_ID
    return shot


UNKNOWN_ENCODINGS = (
    "", " ", "rgb", "RGB8", "rgb8 ", "8UC3", "16SC1", "32FC1", "64FC4", "jpeg", "h264", "nv12",
    "bayer_xxxx8", "цвет", "%s%n", "{0}", "'; --", "\n\n", "x" * 5000,
)  # fmt: skip
OTHER_SIZES = ((1, 1), (2, 2), (63, 48), (64, 47), (128, 96), (48, 64), (1, 2000), (3000, 1))


def images() -> Iterator[Fault]:
    whole = HEIGHT * STEP
    for size in (0, 1, STEP - 1, whole // 2, whole - 1, whole + 1, 2 * whole):
        name = f"image of {size} bytes instead of {whole}"
        yield Fault(name, partial(of_length, size), complaint="bytes of data, but height")
    for width, height in ((0, 0), (0, HEIGHT), (WIDTH, 0)):
        make = partial(changed_image, width=width, height=height)
        yield Fault(f"image of {width}x{height} px", make, complaint="px is empty")
    for step in (0, 1, WIDTH, STEP - 1):
        make = partial(changed_image, step=step)
        yield Fault(f"step of {step}", make, complaint="step of .* is too short")
    for step in (STEP + 1, 2 * STEP, MOST):
        make = partial(changed_image, step=step)
        yield Fault(f"step of {step}", make, complaint="truncated or wrongly described")
    for name in ("width", "height"):
        make = partial(changed_image, **{name: MOST})
        yield Fault(f"{name} of {MOST}", make, complaint="too short|truncated or wrongly")
    for encoding in UNKNOWN_ENCODINGS:
        make = partial(changed_image, encoding=encoding)
        name = f"encoding {encoding[:20]!r}"
        yield Fault(name, make, complaint="is not a colour or grey image that is understood")
    for encoding in BYTES_PER_PIXEL:
        make = partial(short_of, encoding)
        yield Fault(f"{encoding} without its last byte", make, complaint="truncated or wrongly")
    for width, height in OTHER_SIZES:
        make = partial(of_other_size, width, height)
        name = f"image of {width}x{height} px, not its camera's size"
        yield Fault(name, make, complaint="px, camera_info is for")
    for frame_id in ("other", "x" * 5000, "/" + FRAME_ID, "'"):
        make = partial(of_frame, frame_id)
        name = f"image of frame {frame_id[:20]!r}"
        yield Fault(name, make, complaint="are both topics of one camera")
    for node in ("untracked", "usual", "exact", "approximate"):
        make = partial(of_length, 100)
        name = f"truncated image, {node}"
        yield Fault(name, make, complaint="bytes of data, but height", node=node)


def harmless_images() -> Iterator[Fault]:
    """Strange, but images."""
    checks = (np.indices((HEIGHT, WIDTH)).sum(0) % 2 * 255).astype(np.uint8)
    contents = {
        "black": np.zeros_like(GOOD),
        "white": np.full_like(GOOD, 255),
        "noise": noise(),
        "checkerboard": np.repeat(checks[..., None], 3, axis=2),
        "one column": noise(1, HEIGHT, 1),
        "one row": noise(1, 1, WIDTH),
        "one pixel": noise(1, 1, 1),
    }
    for name, rgb in contents.items():
        yield Fault(f"image of {name}", partial(picture, rgb), "processed", published=True)
    large = partial(np.full, (4320, 7680, 3), 90, np.uint8)
    make = lambda: picture(large())  # noqa: E731
    yield Fault("8K image", make, "processed", published=True, times=1)
    for value in (1, 2, 255):
        make = partial(changed_image, is_bigendian=value)
        yield Fault(f"is_bigendian of {value}", make, "processed", published=True)
    anonymous = partial(of_frame, "")
    yield Fault("image without a frame", anonymous, "processed", published=True)


# --- camera_info -------------------------------------------------------------------------------


def with_info(**changes: object) -> Shot:
    info = make_info(GOOD)
    frame_id = changes.pop("frame_id", "")
    for name, value in changes.items():
        setattr(info, name, value)
    info.header.frame_id = frame_id
    return Shot(make_image(GOOD), info)


def with_k(index: int, value: float) -> Shot:
    k = list(make_info(GOOD).k)
    k[index] = value
    return with_info(k=k)


def with_roi(*numbers: int) -> Shot:
    x_offset, y_offset, width, height = numbers
    roi = RegionOfInterest(x_offset=x_offset, y_offset=y_offset, width=width, height=height)
    return with_info(roi=roi)


def calibrations() -> Iterator[Fault]:
    fault = partial(Fault, complaint="camera_info on .* is of no use")
    yield fault("K of zeros", partial(with_info, k=[0.0] * 9))
    yield fault("K of NaN", partial(with_info, k=[NAN] * 9))
    focal = (0.0, -1.0, -0.0, NAN, INF, -INF, 1e-300, 1e-9, 1e30, 1e300)
    for axis, index in (("fx", 0), ("fy", 4)):
        for value in focal:
            # fx = 0 says uncalibrated, and then nothing else counts.
            yield fault(f"{axis} of {value}", partial(with_k, index, value))
    for axis, index in (("cx", 2), ("cy", 5)):
        for value in (NAN, INF, -INF, 1e30, -1e300):
            yield fault(f"{axis} of {value}", partial(with_k, index, value))
    for value in (5.0, -5.0, NAN, INF):
        yield fault(f"skew of {value}", partial(with_k, 1, value))
    bends: dict[str, tuple[str, list[float]]] = {
        "distortion of NaN": ("plumb_bob", [NAN] * 5),
        "distortion with one infinity": ("plumb_bob", [0.1, INF, 0.0, 0.0, 0.0]),
        "three coefficients": ("plumb_bob", [0.1] * 3),
        "fifteen coefficients": ("rational_polynomial", [0.1] * 15),
        "eight coefficients of plumb_bob": ("plumb_bob", [0.1] * 8),
        "five coefficients of a fisheye": ("equidistant", [0.1] * 5),
        "unknown distortion model": ("fish", [0.1] * 5),
        "no distortion model": ("", [0.1] * 5),
        "long distortion model": ("x" * 5000, [0.1] * 5),
        "thousand coefficients": ("plumb_bob", [0.1] * 1000),
    }
    for name, (model, values) in bends.items():
        yield fault(name, partial(with_info, distortion_model=model, d=values))
    yield fault("P of NaN", partial(with_info, p=[NAN] * 12))
    yield fault("P with a negative fx", partial(with_info, p=[-50.0] + [0.0] * 11))
    yield fault("P of fx alone", partial(with_info, p=[50.0] + [0.0] * 11))
    yield fault("ROI beyond the image", partial(with_roi, 10, 10, WIDTH, HEIGHT))
    yield fault("ROI of the greatest numbers", partial(with_roi, MOST, MOST, MOST, MOST))

    mismatch = partial(Fault, complaint="px, camera_info is for")
    for width, height in ((0, 0), (HEIGHT, WIDTH), (32, 24), (WIDTH, 0), (MOST, MOST)):
        make = partial(with_info, width=width, height=height)
        yield mismatch(f"camera_info of {width}x{height} px", make)
    for binning in (2, 3, MOST):
        make = partial(with_info, binning_x=binning, binning_y=binning)
        yield mismatch(f"binning of {binning}", make)
    yield mismatch("ROI of a pixel", partial(with_roi, 0, 0, 1, 1))
    make = partial(with_info, frame_id="other")
    yield Fault("camera_info of another frame", make, complaint="are both topics of one camera")

    fine = partial(Fault, fate="processed", published=True)
    yield fine("R of NaN", partial(with_info, r=[NAN] * 9))
    yield fine("no distortion model and no coefficients", partial(with_info, distortion_model=""))
    for value in (1e3, 1e30, -1e30, -0.9):
        make = partial(with_info, distortion_model="plumb_bob", d=[value] * 5)
        yield fine(f"distortion of {value}", make)
    name = "field of view assumed"
    yield fine(f"K of zeros, {name}", partial(with_info, k=[0.0] * 9), node="assumed")
    yield fault(f"K of NaN, {name}", partial(with_info, k=[NAN] * 9), node="assumed")


# --- stamps ------------------------------------------------------------------------------------

STAMPS = {
    "zero": (0, 0),
    "one nanosecond": (0, 1),
    "repeated": (5000, 0),
    "far in the future": (2**31 - 1, 999_999_999),
    "before 1970": (-1, 0),
    "long before 1970": (-(2**31), 0),
    "with too many nanoseconds": (5000, 10**9),
    "of the most nanoseconds": (5000, MOST),
    "of the most of everything": (2**31 - 1, MOST),
}


def good_at(stamp: tuple[int, int]) -> Shot:
    shot = Shot.good()
    shot.stamp = stamp
    return shot


def backwards() -> Callable[[], Shot]:
    numbers = iter(range(900, 0, -1))
    return lambda: good_at((next(numbers), 0))


def stamps() -> Iterator[Fault]:
    for node in ("plain", "untracked", "exact", "approximate"):
        for name, stamp in STAMPS.items():
            make = partial(good_at, stamp)
            yield Fault(f"stamp {name}, {node}", make, "processed", published=True, node=node)
        name = f"stamps that go backwards, {node}"
        yield Fault(name, backwards(), "processed", published=True, node=node)


# --- compressed images -------------------------------------------------------------------------


def encoded(extension: str = ".jpg", rgb: np.ndarray = GOOD) -> bytes:
    return cv2.imencode(extension, rgb)[1].tobytes()


def compressed_of(data: bytes, description: str = "jpeg") -> Shot:
    return Shot(CompressedImage(format=description, data=data), make_info(GOOD))


def compressed() -> Iterator[Fault]:
    jpeg, png = encoded(), encoded(".png", noise())
    unreadable = {
        "nothing": b"",
        "one byte": b"\xff",
        "a JPEG's first two bytes": jpeg[:2],
        "a JPEG's header": jpeg[:100],
        "a PNG's first 20 bytes": png[:20],
        "zeros": bytes(1000),
        "text": b"this is no image" * 9,
        "noise": noise(3).tobytes(),
        "a JPEG turned round": jpeg[::-1],
        "HTML": b"<html><body>404</body></html>",
    }
    for name, data in unreadable.items():
        make = partial(compressed_of, data)
        yield Fault(
            f"compressed image of {name}", make, complaint="cannot be decoded", node="compressed"
        )
    larger = partial(compressed_of, encoded(rgb=noise(0, 96, 128)))
    yield Fault(
        "compressed image of another size", larger, complaint="px, camera_info is for",
        node="compressed",
    )  # fmt: skip
    for description in ("", "h265", "%s", "rgb8; jpeg compressed", "bayer_rggb8", "x" * 5000):
        make = partial(compressed_of, jpeg, description)
        name = f"format {description[:20]!r}"
        yield Fault(name, make, "processed", published=True, node="compressed")
    grey = partial(compressed_of, encoded(rgb=GOOD[..., 0]), "bayer_rggb8; jpeg compressed")
    yield Fault("mosaic", grey, "processed", published=True, node="compressed")


# --- depth -------------------------------------------------------------------------------------


def with_depth(**changes: object) -> Shot:
    depth = make_depth()
    for name, value in changes.items():
        setattr(depth, name, value)
    return Shot(make_image(GOOD), make_info(GOOD), depth)


def depths() -> Iterator[Fault]:
    """Depth is an extra: without it, people are where RootNet puts them."""
    fault = partial(
        Fault, fate="processed", published=True, node="depth",
        complaint="depth on .* is of no use",
    )  # fmt: skip
    fine = partial(Fault, fate="processed", published=True, node="depth")
    for encoding in ("", "rgb8", "32FC3", "64FC1"):
        yield fault(f"depth of encoding {encoding!r}", partial(with_depth, encoding=encoding))
    for size in (0, 1, 4 * WIDTH * HEIGHT - 1):
        yield fault(f"depth of {size} bytes", partial(with_depth, data=bytes(size)))
    half = partial(with_depth, height=HEIGHT // 2, data=bytes(2 * WIDTH * HEIGHT))
    yield fault("depth of half the size", half)
    yield fault("depth of 0x0 px", partial(with_depth, width=0, height=0, data=b""))
    yield fault("depth with a step of 1", partial(with_depth, step=1))
    for value in (0.0, NAN, INF, -INF, -3.0, 1e-30, 1e30, 3e38):
        data = np.full((HEIGHT, WIDTH), value, np.float32).tobytes()
        yield fine(f"depth of {value} everywhere", partial(with_depth, data=data))
    data = noise(0, HEIGHT, WIDTH).repeat(2, 2)[..., :4].tobytes()
    yield fine("depth of noise", partial(with_depth, data=data))
    yield fine("depth in the other byte order", partial(with_depth, is_bigendian=1))


FAULTS = (
    *images(), *harmless_images(), *calibrations(), *stamps(), *compressed(), *depths(),
)  # fmt: skip
