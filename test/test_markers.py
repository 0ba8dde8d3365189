"""Markers: what RViz must be told, as properties of random people."""

import math

import numpy as np
import pytest

pytest.importorskip("visualization_msgs", reason="needs ROS 2")

from transforms3d.quaternions import quat2mat
from visualization_msgs.msg import Marker, MarkerArray

from mppe_ros import markers
from mppe_ros.camera import ray_covariance
from mppe_ros.conversions import message_from_record
from mppe_ros.skeletons import HUMAN36M_17, SKELETONS
from mppe_ros.structures import JointStatus


class MarkerBuilder(markers.MarkerBuilder):
    """Its records as messages."""

    def build(self, *args, **options):
        return message_from_record(MarkerArray, super().build(*args, **options))

    def clear(self):
        return message_from_record(MarkerArray, super().clear())


NAMESPACES = {"joints", "bones", "labels", "boxes"}
LIFETIME_S = 0.5


def make_pose(skeleton, seed=0, track_id=0, invalid=()):
    rng = np.random.default_rng(seed)
    positions = rng.uniform((-3, -1, 2), (3, 1, 8), (len(skeleton), 3))
    positions[list(invalid)] = math.nan
    root = dict(zip("xyz", positions.mean(0).tolist(), strict=True))
    if invalid:
        root = {"x": 0.0, "y": 3.0, "z": 4.0}
    return {
        "track_id": track_id,
        "root": {"pose": {"position": root}},
        "joints": [
            {
                "position": dict(zip("xyz", position.tolist(), strict=True)),
                "status": int(JointStatus.INVALID if joint in invalid else JointStatus.OK),
            }
            for joint, position in enumerate(positions)
        ],
    }


def make_record(poses, stamp_s=10.0, frame_id="camera"):
    whole = int(stamp_s)
    stamp = {"sec": whole, "nanosec": int((stamp_s - whole) * 1e9)}
    return {"header": {"stamp": stamp, "frame_id": frame_id}, "poses": poses}


def people(skeleton, *track_ids):
    return [make_pose(skeleton, seed=i, track_id=i) for i in track_ids]


def keys(markers, action):
    return {(m.ns, m.id) for m in markers.markers if m.action == action}


def by_namespace(markers):
    return {marker.ns: marker for marker in markers.markers if marker.action == Marker.ADD}


def points_of(marker):
    return np.array([(p.x, p.y, p.z) for p in marker.points])


@pytest.fixture
def builder():
    return MarkerBuilder(HUMAN36M_17)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_each_person_has_one_marker_per_namespace(skeleton):
    markers = MarkerBuilder(skeleton).build(make_record(people(skeleton, 3, 7)), LIFETIME_S)
    assert sorted((m.ns, m.id) for m in markers.markers) == sorted(
        (namespace, track_id) for namespace in NAMESPACES for track_id in (3, 7)
    )


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("invalid", [(), (0,), (2, 5, 11), tuple(range(1, 12))])
def test_every_marker_is_one_that_rviz_accepts(skeleton, invalid):
    pose = make_pose(skeleton, invalid=invalid)
    for marker in MarkerBuilder(skeleton).build(make_record([pose]), LIFETIME_S).markers:
        orientation = marker.pose.orientation
        assert (orientation.x, orientation.y, orientation.z, orientation.w) == (0, 0, 0, 1)
        assert marker.header.frame_id == "camera"
        assert marker.header.stamp.sec == 10
        assert marker.lifetime.nanosec == 500_000_000
        assert np.isfinite(points_of(marker)).all()
        assert len(marker.colors) in (0, len(marker.points))
        for colour in (marker.color, *marker.colors):
            assert all(0 <= value <= 1 for value in (colour.r, colour.g, colour.b, colour.a))
        assert all(c.a > 0 for c in marker.colors or [marker.color])
        if marker.type == Marker.LINE_LIST:
            assert marker.points and len(marker.points) % 2 == 0
            assert marker.scale.x > 0 and (marker.scale.y, marker.scale.z) == (0, 0)
        if marker.type == Marker.TEXT_VIEW_FACING:
            assert marker.text and marker.scale.z > 0
        if marker.type == Marker.SPHERE_LIST:
            assert marker.points and min(marker.scale.x, marker.scale.y, marker.scale.z) > 0


def test_joints_and_bones_are_where_they_are_but_for_invalid_ones(builder):
    invalid = (3, 8)
    pose = make_pose(HUMAN36M_17, invalid=invalid)
    markers = by_namespace(builder.build(make_record([pose]), LIFETIME_S))
    positions = [tuple(joint["position"][axis] for axis in "xyz") for joint in pose["joints"]]
    valid = [i for i in range(len(HUMAN36M_17)) if i not in invalid]
    np.testing.assert_array_equal(points_of(markers["joints"]), [positions[i] for i in valid])
    ends = [end for bone in HUMAN36M_17.bones if not set(bone) & set(invalid) for end in bone]
    np.testing.assert_array_equal(points_of(markers["bones"]), [positions[i] for i in ends])


def test_a_joint_that_is_not_a_number_is_left_out_whatever_its_status(builder):
    pose = make_pose(HUMAN36M_17)
    pose["joints"][4]["position"]["y"] = math.nan
    markers = by_namespace(builder.build(make_record([pose]), LIFETIME_S))
    assert len(markers["joints"].points) == len(HUMAN36M_17) - 1


def test_a_person_without_valid_joints_has_no_markers(builder):
    record = make_record(people(HUMAN36M_17, 1))
    builder.build(record, LIFETIME_S)
    nobody = make_pose(HUMAN36M_17, track_id=1, invalid=range(len(HUMAN36M_17)))
    markers = builder.build(make_record([nobody]), LIFETIME_S)
    assert keys(markers, Marker.ADD) == set()
    assert keys(markers, Marker.DELETE) == {(namespace, 1) for namespace in NAMESPACES}


def test_a_single_joint_has_no_bones(builder):
    pose = make_pose(HUMAN36M_17, invalid=range(1, len(HUMAN36M_17)))
    assert set(by_namespace(builder.build(make_record([pose]), LIFETIME_S))) == {
        "joints", "labels", "boxes",
    }  # fmt: skip


def test_boxes_hold_the_joints_and_touch_them(builder):
    pose = make_pose(HUMAN36M_17)
    markers = by_namespace(builder.build(make_record([pose]), LIFETIME_S))
    joints, box = points_of(markers["joints"]), points_of(markers["boxes"])
    np.testing.assert_array_equal(box.min(0), joints.min(0))
    np.testing.assert_array_equal(box.max(0), joints.max(0))
    edges = {frozenset(map(tuple, edge)) for edge in box.reshape(-1, 2, 3)}
    assert len(edges) == 12
    assert all((np.subtract(*edge) != 0).sum() == 1 for edge in map(tuple, edges))


def test_labels_tell_id_and_distance_above_the_head(builder):
    tracked = make_pose(HUMAN36M_17, track_id=12)
    tracked["root"]["pose"]["position"] = {"x": 0.0, "y": 3.0, "z": 4.0}
    label = by_namespace(builder.build(make_record([tracked]), LIFETIME_S))["labels"]
    assert label.text == "12: 5.0 m"
    assert label.pose.position.y < min(joint["position"]["y"] for joint in tracked["joints"])
    untracked = {**tracked, "track_id": 0}
    label = by_namespace(builder.build(make_record([untracked]), LIFETIME_S))["labels"]
    assert label.text == "5.0 m"  # a position in the array is no id


def test_whoever_vanishes_is_deleted_once(builder):
    random = np.random.default_rng(3)
    shown = set()
    for _ in range(30):
        track_ids = random.choice(np.arange(1, 9), random.integers(0, 6), replace=False)
        record = make_record(people(HUMAN36M_17, *map(int, track_ids)))
        markers = builder.build(record, LIFETIME_S)
        added, deleted = keys(markers, Marker.ADD), keys(markers, Marker.DELETE)
        assert added == {(n, int(i)) for n in NAMESPACES for i in track_ids}
        assert deleted == shown - added
        assert len(markers.markers) == len(added) + len(deleted)
        shown = added


def test_untracked_people_are_told_apart_by_their_position(builder):
    both = [make_pose(HUMAN36M_17, seed) for seed in (1, 2)]
    markers = builder.build(make_record(both), LIFETIME_S)
    assert {marker.id for marker in markers.markers} == {1, 2}
    markers = builder.build(make_record(both[1:]), LIFETIME_S)
    assert {marker_id for _, marker_id in keys(markers, Marker.ADD)} == {1}
    assert {marker_id for _, marker_id in keys(markers, Marker.DELETE)} == {2}


def test_clearing_is_a_lone_deleteall_and_forgets(builder):
    builder.build(make_record(people(HUMAN36M_17, 1)), LIFETIME_S)
    (marker,) = builder.clear().markers
    assert marker.action == Marker.DELETEALL
    assert builder.build(make_record([]), LIFETIME_S).markers == []


def test_colours_stay_with_the_id_and_differ_between_ids_and_sides(builder):
    def colours(track_id, seed):
        pose = make_pose(HUMAN36M_17, seed, track_id)
        marker = by_namespace(builder.build(make_record([pose]), LIFETIME_S))["joints"]
        return [(c.r, c.g, c.b) for c in marker.colors]

    assert colours(4, seed=1) == colours(4, seed=2)
    middles = [colours(track_id, 1)[HUMAN36M_17.root_index] for track_id in range(1, 13)]
    gaps = [math.dist(a, b) for i, a in enumerate(middles) for b in middles[:i]]
    assert min(gaps) > 0.05
    for right, left in HUMAN36M_17.flip_pairs:
        assert math.dist(colours(4, 1)[right], colours(4, 1)[left]) > 0.3


@pytest.mark.parametrize(
    ("period_s", "expected_s"),
    [(0.03, 0.5), (1.0, 3.0), (0.5, 1.5), (-100.0, 0.5), (3600.0, 10.0)],
)
def test_lifetime_is_three_periods_but_neither_too_short_nor_endless(
    builder, period_s, expected_s
):
    builder.build(make_record([], stamp_s=200.0), LIFETIME_S)
    record = make_record(people(HUMAN36M_17, 1), stamp_s=200.0 + period_s)
    for marker in builder.build(record, LIFETIME_S).markers:
        lifetime_s = marker.lifetime.sec + marker.lifetime.nanosec * 1e-9
        assert lifetime_s == pytest.approx(expected_s, abs=1e-6)


# --- uncertainty -------------------------------------------------------------------------------


def make_uncertain_pose(covariance_m2, position=(1.0, 2.0, 5.0)):
    pose = make_pose(HUMAN36M_17, track_id=3)
    whole = np.zeros((6, 6))
    whole[:3, :3] = covariance_m2
    pose["root"] = {
        "pose": {"position": dict(zip("xyz", position, strict=True))},
        "covariance": whole.ravel().tolist(),
    }
    return pose


def ellipsoids(pose, uncertainty=True):
    built = MarkerBuilder(HUMAN36M_17).build(
        make_record([pose]), LIFETIME_S, uncertainty=uncertainty
    )
    return [marker for marker in built.markers if marker.ns == "uncertainty"]


def covariance_of(marker):
    """What an ellipsoid of one standard deviation says."""
    q = marker.pose.orientation
    axes = quat2mat([q.w, q.x, q.y, q.z])
    radii = np.array([marker.scale.x, marker.scale.y, marker.scale.z]) / 2
    return axes @ np.diag(radii**2) @ axes.T


@pytest.mark.parametrize("seed", range(20))
def test_the_ellipsoid_is_the_covariance_at_one_standard_deviation(seed):
    root = np.random.default_rng(seed).normal(0, 0.3, (3, 3))
    (marker,) = ellipsoids(make_uncertain_pose(root @ root.T))
    q = marker.pose.orientation
    assert math.hypot(q.x, q.y, q.z, q.w) == pytest.approx(1)
    np.testing.assert_allclose(covariance_of(marker), root @ root.T, atol=2e-6)
    assert (marker.type, marker.id) == (Marker.SPHERE, 3)
    place = marker.pose.position
    assert (place.x, place.y, place.z) == (1, 2, 5)
    assert 0 < marker.color.a < 1


def test_a_root_seen_by_a_camera_has_an_ellipsoid_along_its_ray():
    position = np.array([1.0, 2.0, 5.0])
    covariance = ray_covariance(position * 1000, 600.0, 40.0) * 1e-6
    (marker,) = ellipsoids(make_uncertain_pose(covariance, position))
    q = marker.pose.orientation
    lengths = np.array([marker.scale.x, marker.scale.y, marker.scale.z])
    longest = quat2mat([q.w, q.x, q.y, q.z])[:, lengths.argmax()]
    assert abs(longest @ position) == pytest.approx(np.linalg.norm(position), rel=1e-6)
    np.testing.assert_allclose(np.sort(lengths), [0.08, 0.08, 1.2], rtol=1e-6)


@pytest.mark.parametrize("covariance", [np.zeros((3, 3)), np.diag([-1e-12, 0.01, 0.04])])
def test_a_flat_ellipsoid_is_still_one_that_rviz_shows(covariance):
    (marker,) = ellipsoids(make_uncertain_pose(covariance))
    assert min(marker.scale.x, marker.scale.y, marker.scale.z) > 0


def test_no_ellipsoid_where_nothing_is_known_or_nobody_asked():
    assert ellipsoids(make_uncertain_pose(np.full((3, 3), np.nan))) == []
    assert ellipsoids(make_uncertain_pose(np.eye(3), (math.nan, 0, 1))) == []
    assert ellipsoids(make_uncertain_pose(np.eye(3)), uncertainty=False) == []


def test_labels_stand_above_heads_in_any_frame():
    """Up is where the camera's upward direction is in the frame of the poses."""
    pose = make_pose(HUMAN36M_17)
    label = by_namespace(
        MarkerBuilder(HUMAN36M_17).build(make_record([pose]), LIFETIME_S, up=(0, 0, 1))
    )["labels"]
    highest = max(joint["position"]["z"] for joint in pose["joints"])
    assert label.pose.position.z == pytest.approx(highest + markers.LABEL_ABOVE_HEAD_M)
