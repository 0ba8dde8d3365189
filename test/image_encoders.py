"""Images in every encoding, straight from the definitions, to test what reads them."""

import numpy as np
from sensor_msgs.msg import Image

HEIGHT, WIDTH = 6, 8

CHANNELS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2], "bgra": [2, 1, 0]}
YUYV = {"yuyv", "yuv422_yuy2"}
UYVY = {"uyvy", "yuv422"}


def wide(values: np.ndarray, bits: int) -> np.ndarray:
    """8-bit values as 8 or, scaled to the full range, 16 bits."""
    return values.astype(np.uint8) if bits == 8 else values.astype(np.uint16) * 257


def encode(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """(H, W, ...) pixels in ``encoding``, of an image that it can hold."""
    if encoding in YUYV | UYVY:
        return encode_yuv(rgb, encoding)
    name, bits = encoding.rstrip("0123456789"), 16 if encoding.endswith("16") else 8
    if name == "mono":
        return wide(rgb[..., 0], bits)
    if name.startswith("bayer_"):
        mosaic = np.empty(rgb.shape[:2])
        for index, colour in enumerate(name.removeprefix("bayer_")):
            y, x = divmod(index, 2)
            mosaic[y::2, x::2] = rgb[y::2, x::2, "rgb".index(colour)]
        return wide(mosaic, bits)
    pixels = rgb[..., CHANNELS[name]]
    if name.endswith("a"):
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 99)], axis=-1)
    return wide(pixels, bits)


def encode_yuv(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """ITU-R BT.601, studio range; a pair of pixels shares its U and V."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    chroma = np.where(np.arange(rgb.shape[1]) % 2 == 0, u, v)
    pair = (y, chroma) if encoding in YUYV else (chroma, y)
    return np.stack(pair, axis=-1).round().astype(np.uint8)


def make_image(pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Image:
    height, width = pixels.shape[:2]
    if big:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=173)
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=int(big))
    message.step = rows.shape[1]
    message.data.frombytes(rows.tobytes())
    return message


def make_picture(encoding: str) -> np.ndarray:
    """(H, W, 3) random colours that ``encoding`` can hold."""
    rng = np.random.default_rng(len(encoding))
    if encoding.startswith("mono"):
        return np.repeat(rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8), 3, axis=2)
    if encoding.startswith("bayer"):  # where neighbours agree, nothing is lost
        return np.full((HEIGHT, WIDTH, 3), rng.integers(0, 256, 3, np.uint8), np.uint8)
    if encoding in YUYV | UYVY:  # a pair of pixels shares its colour
        return np.repeat(rng.integers(40, 216, (HEIGHT, WIDTH // 2, 3), np.uint8), 2, axis=1)
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def tolerance(encoding: str) -> int:
    if encoding in YUYV | UYVY:
        return 3  # three roundings
    return 1 if encoding.endswith("16") else 0
