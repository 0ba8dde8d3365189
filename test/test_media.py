"""Images, folders and videos as one stream, and the writer, on files made here."""

import cv2
import numpy as np
import pytest

from mppe_ros.media import MediaError, VideoWriter, open_media, read_image, write_image

HEIGHT, WIDTH = 48, 64


def picture(index=0, height=HEIGHT, width=WIDTH):
    """A red square wandering over a gradient; no two indices alike."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = np.linspace(0, 120, width).astype(np.uint8)
    image[8:24, 4 * index : 4 * index + 16, 0] = 250
    return image


def video(path, frames=8, fps=12.5):
    with VideoWriter(path, fps) as writer:
        for index in range(frames):
            writer.write(picture(index))
    return path


def test_one_image(tmp_path):
    path = tmp_path / "photo.png"
    write_image(path, picture())
    with open_media(path) as source:
        assert (source.width, source.height, source.frame_count) == (WIDTH, HEIGHT, 1)
        frames = list(source)
    assert [frame.time_s for frame in frames] == [0]
    np.testing.assert_array_equal(frames[0].rgb, picture())


def test_a_folder_in_the_order_of_names_with_a_damaged_image(tmp_path):
    for index in (2, 0, 1):
        write_image(tmp_path / f"{index}.png", picture(index, height=HEIGHT + index))
    (tmp_path / "1.png").write_bytes(b"\x89PNG but not really")
    (tmp_path / "notes.txt").write_text("no image")
    reports = []
    with open_media(tmp_path, reports.append) as source:
        sizes = [(source.height, frame.rgb.shape[0], frame.time_s) for frame in source]
    assert sizes == [(HEIGHT, HEIGHT, 0), (HEIGHT + 2, HEIGHT + 2, 2 / source.fps)]
    assert len(reports) == 1 and "1.png" in reports[0]


def test_a_video_again_and_again(tmp_path):
    path = video(tmp_path / "clip.mp4")
    with open_media(path) as source:
        assert (source.fps, source.frame_count) == (12.5, 8)
        first, second = list(source), list(source)
    assert [frame.time_s for frame in first] == pytest.approx([k / 12.5 for k in range(8)])
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        # Lossy, but red stays red, where it was.
        assert np.abs(a.rgb.astype(int) - picture(index)).mean() < 6


@pytest.mark.parametrize(
    "stored",
    [
        np.full((10, 12), 77, np.uint8),
        np.full((10, 12), 77 * 257, np.uint16),
        np.full((10, 12, 3), 77, np.uint8),
        np.dstack([np.full((10, 12, 3), 77, np.uint8), np.full((10, 12), 200, np.uint8)]),
    ],
    ids=["grey", "grey16", "colour", "alpha"],
)
def test_every_kind_of_image_becomes_rgb(tmp_path, stored):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), stored)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.full((10, 12, 3), 77))


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    image = pil.fromarray(picture())
    orientation = image.getexif()
    orientation[0x0112] = 6  # the camera was turned left: show it turned right
    path = tmp_path / "sideways.jpg"
    image.save(path, exif=orientation, quality=95)
    with open_media(path) as source:
        assert (source.width, source.height) == (HEIGHT, WIDTH)
        shown = next(iter(source)).rgb.astype(int)
    assert np.abs(shown - np.rot90(picture(), -1)).mean() < 6


@pytest.mark.parametrize("name", ["missing.png", "missing.mp4", "missing"])
def test_what_is_not_there_is_named(tmp_path, name):
    with pytest.raises(MediaError, match=name):
        open_media(tmp_path / name)


@pytest.mark.parametrize("name", ["broken.jpg", "broken.mp4", "broken.txt"])
@pytest.mark.parametrize("content", [b"", b"this is no picture"])
def test_what_is_no_picture_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match=name):
        open_media(tmp_path / name)


def test_a_folder_without_images_or_with_damaged_ones_only(tmp_path):
    with pytest.raises(MediaError, match="without images"):
        open_media(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"nothing")
    with pytest.raises(MediaError, match="not a single readable frame"):
        open_media(tmp_path, report=lambda _: None)


def noise_video(path):
    """40 frames that compress badly, so that half of the file is about half of the frames."""
    noise = np.random.default_rng(0)
    with VideoWriter(path, 10) as writer:
        for _ in range(40):
            writer.write(cv2.resize(noise.integers(0, 255, (48, 64, 3), np.uint8), (320, 240)))
    return path.read_bytes()


def test_a_truncated_video_is_shown_as_far_as_it_goes(tmp_path):
    content = noise_video(tmp_path / "whole.avi")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(content[: len(content) // 2])
    reports = []
    with open_media(cut, reports.append) as source:
        assert source.frame_count == 40
        assert 5 < len(list(source)) < 35
    assert len(reports) == 1 and "truncated" in reports[0]


def test_a_truncated_video_without_its_index_is_refused(tmp_path):
    content = noise_video(tmp_path / "whole.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        open_media(cut)


def test_a_webcam_that_is_not_there():
    with pytest.raises(MediaError, match="camera 97"):
        open_media("97")


def test_a_video_appears_only_when_complete(tmp_path):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 10) as writer:
        writer.write(picture())
        assert not path.exists()
    assert path.exists()
    with pytest.raises(RuntimeError), VideoWriter(path, 10) as writer:
        writer.write(picture())
        raise RuntimeError
    with VideoWriter(tmp_path / "empty.mp4", 10):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_video_of_odd_size_is_padded_and_another_size_refused(tmp_path):
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, 10) as writer:
        writer.write(picture(height=47, width=63))
        with pytest.raises(ValueError, match="64"):
            writer.write(picture())
    with open_media(path) as source:
        assert (source.width, source.height, source.frame_count) == (64, 48, 1)


def test_nothing_can_be_written_to_a_missing_folder(tmp_path):
    with pytest.raises(MediaError, match=r"clip\.mp4"), VideoWriter(
        tmp_path / "no" / "clip.mp4", 10
    ) as writer:
        writer.write(picture())
    with pytest.raises(MediaError, match=r"photo\.png"):
        write_image(tmp_path / "no" / "photo.png", picture())
