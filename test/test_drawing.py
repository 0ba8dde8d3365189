"""Pictures of people, checked by what must and must not change in them."""

import copy

import numpy as np
import pytest

from mppe_ros import camera, drawing, records
from mppe_ros.drawing import Area, TopPoint
from mppe_ros.skeletons import MUCO_21
from mppe_ros.structures import Intrinsics, JointStatus, Person

CAMERA = Intrinsics.from_fov(60, 640, 480)


def person(x_m, z_m, height_m=1.6):
    """Somebody standing like a post, with the joints spread along it."""
    count = len(MUCO_21)
    joints = np.zeros((count, 3))
    joints[:, 0] = 1000 * x_m + np.linspace(-200, 200, count)
    joints[:, 1] = 1000 * height_m * np.linspace(-0.5, 0.5, count)
    joints[:, 2] = 1000 * z_m
    pixels = camera.project(joints, CAMERA)
    root = np.array([1000 * x_m, 0, 1000 * z_m])
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([*pixels.min(0), *np.ptp(pixels, axis=0)]),
        root_px=camera.project(root, CAMERA),
        root_mm=root,
        root_covariance_mm2=camera.ray_covariance(root, 300, 50),
        joints_px=pixels,
        joints_mm=joints,
        joint_scores=np.full(count, 0.8),
        joint_status=np.full(count, JointStatus.OK, np.uint8),
    )


def record(*people, tracked=False):
    result = records.pose_array_record(
        people, skeleton=MUCO_21, model="test", intrinsics=CAMERA, frame_id="camera"
    )
    for index, pose in enumerate(result["poses"]):
        pose["track_id"] = index + 1 if tracked else 0
    return result


def grey(height=480, width=640):
    return np.full((height, width, 3), 128, np.uint8)


def changed(before, after):
    return np.any(before != after, axis=-1)


def colours_at(image, points, radius=2):
    """Mean colour around each point."""
    return np.array(
        [
            image[round(v) - radius : round(v) + radius + 1,
                  round(u) - radius : round(u) + radius + 1].reshape(-1, 3).mean(0)
            for u, v in points
        ]
    )  # fmt: skip


def test_pixels_change_at_the_joints_and_only_around_the_person():
    somebody = person(-0.5, 4)
    image = grey()
    drawn = drawing.draw_people(image, record(somebody))
    assert (image == 128).all(), "the input was changed"
    marks = changed(image, drawn)
    joints = np.round(somebody.joints_px).astype(int)
    assert marks[joints[:, 1], joints[:, 0]].all()
    x, y, w, h = np.round(somebody.bbox_xywh_px).astype(int)
    marks[max(0, y - 30) : y + h + 12, max(0, x - 12) : x + w + 60] = False
    assert not marks.any()


def test_without_people_the_image_stays_as_it_is():
    image = grey()
    np.testing.assert_array_equal(drawing.draw_people(image, record()), image)


def test_left_and_right_have_different_colours():
    somebody = person(0, 3)
    drawn = drawing.draw_people(grey(), record(somebody, tracked=True)).astype(int)
    left, right = (MUCO_21.indices([f"{side}_Wrist"])[0] for side in "LR")
    a, b = colours_at(drawn, somebody.joints_px[[left, right]], radius=0)
    assert np.abs(a - b).max() > 60


def test_a_person_keeps_the_colour_when_the_order_changes():
    people = [person(-1, 4), person(1, 4)]
    first = record(*people, tracked=True)
    second = copy.deepcopy(first)
    second["poses"].reverse()
    np.testing.assert_array_equal(
        drawing.draw_people(grey(), first), drawing.draw_people(grey(), second)
    )


def test_ids_tell_people_apart():
    people = [person(-1, 4), person(1, 4)]
    drawn = drawing.draw_people(grey(), record(*people, tracked=True)).astype(int)
    a, b = colours_at(drawn, [p.joints_px[MUCO_21.root_index] for p in people], radius=0)
    assert np.abs(a - b).max() > 60


@pytest.mark.parametrize("status", [JointStatus.INVALID, JointStatus.OK])
@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_joints_that_are_not_numbers_are_left_out(status, nothing):
    broken = record(person(0, 3), person(1, 4))
    for joint in broken["poses"][0]["joints"][3:9]:
        joint.update(u=nothing, v=nothing, status=int(status))
        joint["position"] = {"x": nothing, "y": nothing, "z": nothing}
    assert changed(grey(), drawing.draw_people(grey(), broken)).any()
    drawing.draw_top_view(broken, Area(3, 5), (300, 300))


def test_nothing_finite_at_all_draws_nothing():
    broken = record(person(0, 3))
    (pose,) = broken["poses"]
    pose["bbox"] = [None] * 4
    pose["root"]["pose"]["position"] = {"x": None, "y": None, "z": None}
    pose["root"]["covariance"] = [None] * 36
    for joint in pose["joints"]:
        joint.update(u=None, v=None, position={"x": None, "y": None, "z": None})
    np.testing.assert_array_equal(drawing.draw_people(grey(), broken), grey())
    np.testing.assert_array_equal(
        drawing.draw_top_view(broken, Area(3, 5), (300, 300)),
        drawing.draw_top_view(record(), Area(3, 5), (300, 300)),
    )
    assert drawing.area_of([broken]) == drawing.area_of([])


def test_people_far_outside_the_image_do_no_harm():
    wild = person(0, 3)
    wild.joints_px[::2] = 1e12
    wild.joints_px[1::2] = -1e12
    wild.bbox_xywh_px[:] = (-1e9, -1e9, 2e9, 2e9)
    drawing.draw_people(grey(), record(wild))


@pytest.mark.parametrize("scale", [0.5, 2.25])
def test_the_image_may_have_another_size_than_the_record(scale):
    somebody = person(0, 4)
    image = grey(round(480 * scale), round(640 * scale))
    marks = changed(image, drawing.draw_people(image, record(somebody)))
    joints = np.round((somebody.joints_px + 0.5) * scale - 0.5).astype(int)
    assert marks[joints[:, 1], joints[:, 0]].all()


def test_a_top_view_has_the_person_where_they_are():
    empty = drawing.draw_top_view(record(), Area(3, 6), (500, 400))
    assert empty.shape == (400, 500, 3)

    def middle(x_m, z_m):
        view = drawing.draw_top_view(record(person(x_m, z_m)), Area(3, 6), (500, 400))
        rows, columns = np.nonzero(changed(empty, view))
        return np.median(columns), np.median(rows)

    left, right = middle(-1.5, 3), middle(1.5, 3)
    near, far = middle(0, 2), middle(0, 5)
    assert left[0] < 250 < right[0] and left[1] == pytest.approx(right[1], abs=5)
    assert far[1] < near[1] - 60 and far[0] == pytest.approx(near[0], abs=10)


def test_the_truth_is_a_hollow_ring():
    place = TopPoint(1.0, 4.0)
    without = drawing.draw_top_view(record(), Area(3, 6), (480, 480))
    view = drawing.draw_top_view(record(), Area(3, 6), (480, 480), truth=[place])
    marks = changed(without, view)
    marks[-40:] = False  # the legend
    rows, columns = np.nonzero(marks)
    assert len(rows) > 10
    assert not marks[round(rows.mean()), round(columns.mean())]


def test_the_ellipse_points_at_the_camera():
    somebody = person(2, 2)
    sharp = Person(**{**vars(somebody), "root_covariance_mm2": np.zeros((3, 3))})
    views = [
        drawing.draw_top_view(record(p), Area(4, 6), (480, 480)).astype(int)
        for p in (somebody, sharp)
    ]
    rows, columns = np.nonzero(changed(*views))
    spread = np.cov(columns, -rows)
    # Along x = z, the viewing ray, the ellipse is longer than across.
    assert spread[0, 1] > 0.5 * spread[0, 0]


def test_the_camera_shows_its_field_of_view():
    views = [
        drawing.draw_top_view(record(), Area(3, 6), (300, 300), camera=c) for c in (None, CAMERA)
    ]
    assert changed(*views).any()


def test_the_area_holds_everybody_but_a_wild_result():
    crowd = [record(person(x / 10, 4), person(-x / 10, 6)) for x in range(20)]
    area = drawing.area_of(crowd)
    assert area.half_width_m > 1.9 and area.depth_m > 6
    wild = drawing.area_of([*crowd * 10, record(person(50, 90))])
    assert wild == area
    assert drawing.area_of([], [TopPoint(4, 9)]).depth_m > 9


def test_side_by_side_keeps_both_pictures():
    left, right = grey(100, 40), np.full((60, 50, 3), 9, np.uint8)
    both = drawing.side_by_side(left, right)
    assert both.shape == (100, 90, 3)
    np.testing.assert_array_equal(both[:, :40], left)
    np.testing.assert_array_equal(both[20:80, 40:], right)


def test_a_caption_stays_at_the_bottom():
    image = grey()
    marks = changed(image, drawing.draw_caption(image, "3 people"))
    assert marks[-20:].any() and not marks[:-40].any()
    assert (image == 128).all()
