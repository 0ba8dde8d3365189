"""Who is who, with people as numbers: ids, states, motion, clocks and moving cameras."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import chi2
from walkers import (
    CAMERA,
    ERROR,
    FPS,
    LEVEL,
    WalkersPipeline,
    draw_film,
    figure_mm,
    true_person,
)

from mppe_ros import appearance, camera
from mppe_ros.boxes import BoxFromPose, box_iou
from mppe_ros.estimates import Estimate, EstimateStore, Key
from mppe_ros.kalman import Motion, Vertical, fresh
from mppe_ros.skeletons import MUCO_21
from mppe_ros.smoothing import SmoothingOptions
from mppe_ros.structures import TrackState
from mppe_ros.tracking import Seen, Tracker, TrackingOptions, assigned_pairs

OFF = SmoothingOptions(enabled=False)
UPRIGHT = Vertical(np.array([0.0, -1, 0]), known=True)
EYES = WalkersPipeline(draw_film(0, people=1, frames=2))


def person(x_m=0.0, z_m=4.0, velocity_m_s=(0.0, 0.0), score=0.9):
    """As seen without error."""
    velocity = np.array([velocity_m_s[0], 0.0, velocity_m_s[1]]) * 1000
    truth = true_person(figure_mm(np.array([x_m, 0.0, z_m]) * 1000, velocity, 0.0), 1)
    seen = EYES.person(truth, truth.bbox_xywh_px, score)
    root = truth.joints_mm[MUCO_21.root_index]
    covariance = camera.ray_covariance(root, ERROR.along * np.linalg.norm(root), ERROR.across_mm)
    return dataclasses.replace(
        seen, root_mm=root, joints_mm=truth.joints_mm, joints_px=truth.joints_px,
        root_px=truth.joints_px[MUCO_21.root_index], root_covariance_mm2=covariance,
    )  # fmt: skip


def make_tracker(**options):
    return Tracker(MUCO_21, ERROR, TrackingOptions(**options))


def look(tracker, people, stamp_s, pose=None, smoothing=OFF, detected=True):
    tracker.predict(stamp_s, CAMERA, pose)
    return tracker.update([Seen(one, detected) for one in people], smoothing)


def states(people):
    return {one.tracking.track_id: one.tracking.state for one in people}


# --- states and ids ------------------------------------------------------------------------------


def test_the_life_of_a_track():
    tracker = make_tracker(min_hits=2, max_coasting_s=0.25)
    seen = [person()]
    assert states(look(tracker, seen, 0.0)) == {1: TrackState.TENTATIVE}
    assert states(look(tracker, seen, 0.1)) == {1: TrackState.TRACKED}
    assert states(look(tracker, [], 0.2)) == {1: TrackState.COASTING}
    assert states(look(tracker, seen, 0.3)) == {1: TrackState.TRACKED}
    for stamp_s in (0.4, 0.5):
        assert states(look(tracker, [], stamp_s)) == {1: TrackState.COASTING}
    assert states(look(tracker, [], 0.6)) == {1: TrackState.LOST}
    assert look(tracker, [], 0.7) == []
    assert states(look(tracker, seen, 0.8)) == {2: TrackState.TENTATIVE}


def test_a_newcomer_that_vanishes_is_lost_at_once():
    tracker = make_tracker()
    look(tracker, [person()], 0.0)
    assert states(look(tracker, [], 0.1)) == {1: TrackState.LOST}


def test_only_the_detector_makes_somebody_sure():
    tracker = make_tracker(min_hits=3)
    look(tracker, [person()], 0.0)
    for stamp_s in (0.1, 0.2, 0.3):
        people = look(tracker, [person()], stamp_s, detected=False)
        assert states(people) == {1: TrackState.TENTATIVE}
    assert people[0].tracking.time_since_detection_s == pytest.approx(0.3)
    look(tracker, [person()], 0.4)
    people = look(tracker, [person()], 0.5)
    assert states(people) == {1: TrackState.TRACKED}
    assert people[0].tracking.time_since_detection_s == 0


def test_who_is_only_expected_never_begins_a_track():
    assert look(make_tracker(), [person()], 0.0, detected=False) == []


def test_one_person_in_two_boxes_is_one():
    twice = [person(), dataclasses.replace(person(score=0.5), bbox_xywh_px=np.ones(4))]
    (only,) = look(make_tracker(), twice, 0.0)
    assert only.score == 0.9


@pytest.mark.parametrize("pose", [None, LEVEL], ids=["camera frame", "world"])
def test_who_left_the_image_goes_on_without_rising(pose):
    """Whose root is outside the image seems to stop and to rise, as the box ends at the edge."""
    tracker, period_s = make_tracker(), 1 / 15
    step = np.array([-0.8, 0.0, -0.8]) * period_s
    for index in range(50):
        here = np.array([1.0, 0.0, 5.5]) + index * step
        seen = [person(here[0], here[2], (-0.8, -0.8))] if index < 35 else []
        if 28 <= index < 35:  # cut off
            off = np.array([60.0, -30.0, 0.0]) * (index - 27)
            covariance = camera.ray_covariance(1000 * here, 4 * 0.1 * 4000, 2 * 4 * 30.0)
            seen[0] = dataclasses.replace(
                seen[0], root_mm=1000 * here + off, root_covariance_mm2=covariance
            )
        people = look(tracker, seen, index * period_s, pose)
        if index == 35:
            start = people[0].root_mm
    assert people[0].tracking.state == TrackState.COASTING
    moved, meant = people[0].root_mm - start, 14 * step * 1000
    assert abs(moved[1]) < 50
    assert moved @ meant > 0.35 * meant @ meant


def test_a_coasting_person_goes_on_and_says_that_it_is_not_seen():
    tracker = make_tracker()
    for index in range(20):
        look(tracker, [person(x_m=-1 + 0.08 * index, velocity_m_s=(1.2, 0))], index / 15)
    before = look(tracker, [person(x_m=0.6, velocity_m_s=(1.2, 0))], 20 / 15)[0]
    for index in range(21, 27):
        (after,) = look(tracker, [], index / 15)
    assert after.root_mm[0] - before.root_mm[0] == pytest.approx(480, abs=120)
    np.testing.assert_allclose(camera.project(after.joints_mm, CAMERA), after.joints_px, atol=15)
    assert (after.joint_scores == 0).all()
    assert np.trace(after.root_covariance_mm2) > np.trace(before.root_covariance_mm2)


def test_what_is_seen_in_expected_boxes_does_not_lower_the_usual_score():
    """Else nobody, seen less and less sharply in the box of who left, would be followed on."""
    blunt = dataclasses.replace(person(), joint_scores=np.full(len(MUCO_21), 0.4))
    usual = {}
    for detected in (True, False):
        tracker = make_tracker()
        look(tracker, [person()], 0.0)
        for index in range(1, 4):
            look(tracker, [blunt], index / 15, detected=detected)
        (expected,) = tracker.predict(4 / 15, CAMERA)
        usual[detected] = expected.joint_score
    assert usual[False] == pytest.approx(person().joint_scores.mean())
    assert usual[True] < usual[False]


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 100))
def test_the_order_of_people_does_not_matter(order, seed):
    rng = np.random.default_rng(seed)
    places = [(x, z) for x, z in zip((-1.5, -0.5, 0.5, 1.5), rng.uniform(3, 6, 4), strict=True)]
    results = []
    for numbers in (range(4), order):
        tracker = make_tracker()
        for index in range(3):
            people = [person(places[i][0] + 0.02 * index, places[i][1]) for i in numbers]
            found = look(tracker, people, index / 15)
        results.append({one.tracking.track_id: one.root_mm.tolist() for one in found})
    assert results[0] == results[1]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_happens_ids_are_unique_and_numbers_are_numbers(data):
    tracker = make_tracker()
    last_seen: dict[int, TrackState] = {}
    stamp_s = 0.0
    for _ in range(data.draw(st.integers(1, 12))):
        stamp_s += data.draw(st.sampled_from([0.0, 0.01, 0.1, 1.0, 7.0, -0.05, -3.0]))
        if data.draw(st.integers(0, 9)) == 0:
            tracker.reset()
        places = data.draw(st.lists(st.tuples(st.floats(-2, 2), st.floats(1.5, 8)), max_size=3))
        people = look(tracker, [person(x, z) for x, z in places], stamp_s, smoothing=None)
        ids = [one.tracking.track_id for one in people]
        assert len(set(ids)) == len(ids)
        for one in people:
            number, state = one.tracking.track_id, one.tracking.state
            assert last_seen.get(number) != TrackState.LOST
            assert number in last_seen or number > max(last_seen, default=0)
            assert np.isfinite([*one.root_mm, *one.root_covariance_mm2.ravel()]).all()
            assert np.linalg.eigvalsh(one.root_covariance_mm2)[0] > 0
            if one.tracking.velocity_mm_s is not None:
                assert np.isfinite(one.tracking.velocity_mm_s).all()
            last_seen[number] = state
        last_seen |= {one.tracking.track_id: one.tracking.state for one in people}


def test_trackers_that_share_numbers_share_no_id():
    ids = itertools.count(1)
    found = []
    for _ in range(2):
        tracker = Tracker(MUCO_21, ERROR, ids=ids)
        found += look(tracker, [person(-1), person(1)], 0.0)
    assert sorted(one.tracking.track_id for one in found) == [1, 2, 3, 4]


# --- clocks --------------------------------------------------------------------------------------


def walk_on(tracker, stamps_s, start_x_m=-1.0):
    """Somebody who walks 0.08 m from image to image; all ids."""
    ids = set()
    for index, stamp_s in enumerate(stamps_s):
        ids |= states(look(tracker, [person(start_x_m + 0.08 * index)], stamp_s)).keys()
    return ids


def test_a_clock_that_stands_still_keeps_ids_but_tells_no_velocity():
    tracker = make_tracker()
    assert walk_on(tracker, [5.0] * 20) == {1}
    (one,) = look(tracker, [person(0.6)], 5.0)
    assert one.tracking.velocity_mm_s is None
    assert not tracker.notice


def test_dropped_images_keep_ids_and_velocity():
    tracker = make_tracker()
    shown = [index for index in range(45) if index % 7 not in (2, 3, 4)]
    for index in shown:
        (one,) = look(tracker, [person(-1.5 + 0.06 * index, velocity_m_s=(0.9, 0))], index / 15)
    assert one.tracking.track_id == 1
    assert one.tracking.velocity_mm_s[0] == pytest.approx(900, abs=120)


def test_an_image_that_comes_a_little_late_is_no_jump_in_time():
    tracker = make_tracker()
    assert walk_on(tracker, [0.0, 0.1, 0.2, 0.15, 0.3]) == {1}


@pytest.mark.parametrize(("jump_s", "says"), [(-8.0, "went back by 8 s"), (60.0, "no image for")])
def test_a_jump_in_time_begins_anew_and_says_so(jump_s, says):
    tracker = make_tracker()
    walk_on(tracker, [10.0, 10.1, 10.2])
    people = look(tracker, [person(-0.76)], 10.2 + jump_s)
    assert says in tracker.notice
    assert states(people) == {1: TrackState.LOST, 2: TrackState.TENTATIVE}
    look(tracker, [person(-0.76)], 10.3 + jump_s)
    assert not tracker.notice


def test_reset_tells_the_old_ids_that_they_are_lost_and_uses_none_again():
    tracker = make_tracker()
    walk_on(tracker, [0.0, 0.1])
    tracker.reset()
    assert len(tracker) == 0
    assert states(look(tracker, [person()], 0.2)) == {1: TrackState.LOST, 2: TrackState.TENTATIVE}


# --- motion --------------------------------------------------------------------------------------


def turning_camera(angle_rad, x_m=0.0):
    """Turned about its y axis (down), and moved along the world's x; m."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    pose = np.eye(4)
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[0, 3] = x_m
    return pose


def seen_by(pose, world_m, score=0.9, velocity_m_s=(0.0, 0.0)):
    """Somebody at a place of the world, as seen by a camera at ``pose``."""
    x, _, z = pose[:3, :3].T @ (np.array([world_m[0], 0, world_m[1]]) - pose[:3, 3])
    right, _, forth = pose[:3, :3].T @ np.array([velocity_m_s[0], 0, velocity_m_s[1]])
    return person(x, z, (right, forth), score)


def test_a_moving_camera_does_not_make_people_move():
    tracker = make_tracker()
    for index in range(40):
        pose = turning_camera(0.5 * math.sin(index / 8), 0.04 * index)
        (one,) = look(tracker, [seen_by(pose, (0.3, 4.5))], index / 15, pose)
    assert one.tracking.track_id == 1
    assert np.linalg.norm(one.tracking.velocity_mm_s) < 60


def test_people_do_not_rise_where_it_is_known_which_way_is_up():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 40, (60, 3))
    rising = []
    for upright in (LEVEL, LEVEL[[0, 2, 1, 3]]):  # the other world's y axis points up
        tracker = make_tracker()
        velocities = []
        for index, off in enumerate(noise):
            seen = person(-1 + 0.04 * index, 5.0, (0.6, 0.0))
            seen = dataclasses.replace(seen, root_mm=seen.root_mm + off)
            (one,) = look(tracker, [seen], index / 15, upright)
            if one.tracking.velocity_mm_s is not None:
                velocities.append(one.tracking.velocity_mm_s)
        rising.append(np.std([velocity[1] for velocity in velocities]))
        assert np.mean(velocities[20:], axis=0)[0] == pytest.approx(600, abs=150)
    assert rising[0] < 0.5 * rising[1]


def test_a_velocity_is_along_the_cameras_axes():
    tracker = make_tracker()
    pose = turning_camera(math.pi / 2, -4.0)  # looks along the world's x
    for index in range(40):
        place = (0.0, -1 + 0.06 * index)  # goes along the world's z
        seen = seen_by(pose, place, velocity_m_s=(0.0, 0.9))
        (one,) = look(tracker, [seen], index / 15, pose)
    expected = pose[:3, :3].T @ np.array([0, 0, 900.0])
    np.testing.assert_allclose(one.tracking.velocity_mm_s, expected, atol=100)


def velocity_after(frames, facing_m_s, velocity_m_s, noise_mm=0.0, seed=0):
    """(2,) x and z, m/s, as told in the end of somebody who goes by 4 m in front of the camera."""
    rng, tracker = np.random.default_rng(seed), make_tracker()
    for index in range(frames):
        x, z = np.array([0.0, 4.0]) + np.array(velocity_m_s) * (index - frames / 2) / 15
        seen = person(x, z, facing_m_s)
        along = rng.normal(0, noise_mm) * seen.root_mm / np.linalg.norm(seen.root_mm)
        seen = dataclasses.replace(seen, root_mm=seen.root_mm + along)
        (one,) = look(tracker, [seen], index / 15)
    return one.tracking.velocity_mm_s[[0, 2]] / 1000


def test_people_go_where_they_face():
    """Errors along the ray don't become a velocity across the way of somebody who goes by."""
    facing, elsewhere = (
        [velocity_after(40, facing, (0.8, 0.0), 200.0, seed) for seed in range(10)]
        for facing in ((0.8, 0.0), (0.0, 0.8))
    )
    assert np.std(facing, axis=0)[1] < 0.75 * np.std(elsewhere, axis=0)[1]
    assert np.mean(facing, axis=0)[0] == pytest.approx(0.8, abs=0.1)


def test_who_walks_backwards_or_sideways_is_believed():
    assert velocity_after(45, (-0.9, 0.0), (0.9, 0.0))[0] == pytest.approx(0.9, abs=0.1)
    assert velocity_after(45, (0.0, 0.9), (0.9, 0.0))[0] > 0.6


def test_unknown_facing_changes_nothing():
    motion = Motion.at(np.zeros(3), np.eye(3) * 900, UPRIGHT).predicted(0.1, UPRIGHT)
    unknown = motion.walking(np.full(3, np.nan), np.array(200.0), np.array(0.1))
    np.testing.assert_array_equal(unknown.mean, motion.mean)
    np.testing.assert_array_equal(unknown.covariance, motion.covariance)


@given(st.floats(0, 2 * math.pi), st.floats(1, 1000), st.floats(0.001, 2))
def test_facing_takes_doubt_away_to_the_side_only(angle, error, wait_s):
    motion = Motion.at(np.zeros(3), np.eye(3) * 900, UPRIGHT).predicted(0.1, UPRIGHT)
    side = np.array([math.cos(angle), 0.0, math.sin(angle)])
    facing = motion.walking(side, np.array(error), np.array(wait_s))
    forth = np.cross(side, [0.0, 1, 0])
    before, after = motion.velocity_covariance_mm2_s2, facing.velocity_covariance_mm2_s2
    assert side @ after @ side < side @ before @ side
    assert forth @ after @ forth == pytest.approx(forth @ before @ forth)
    assert np.linalg.eigvalsh(facing.covariance)[0] > -1e-6


def test_smoothing_off_is_exactly_what_the_networks_say():
    tracker = make_tracker()
    for index in range(5):
        seen = person(-1 + 0.07 * index)
        (one,) = look(tracker, [seen], index / 15)
        for name in ("root_mm", "joints_mm", "joints_px", "root_covariance_mm2", "bbox_xywh_px"):
            assert np.array_equal(getattr(one, name), getattr(seen, name)), name


@pytest.mark.parametrize("known", [False, True])
def test_a_filter_whose_noise_is_as_said_is_consistent(known):
    """Normalised innovations of simulated walkers, whose noise and accelerations are the model's,
    follow chi-square."""
    rng = np.random.default_rng(0)
    squared = []
    noise = np.diag([900.0, 900, 10000])
    vertical = UPRIGHT._replace(known=known)
    still = Motion.at(np.array([0.0, 0, 4000]), noise, vertical)
    error = np.sqrt(fresh(noise))
    for _ in range(60):
        state = rng.multivariate_normal(still.mean, still.covariance)
        filtered = still
        for _ in range(40):
            step = dataclasses.replace(still, mean=state, covariance=np.zeros((12, 12)))
            step = step.predicted(1 / 15, vertical)
            state = rng.multivariate_normal(step.mean, step.covariance)
            measured = state[:3] + state[6:9] + error @ state[9:]
            filtered = filtered.predicted(1 / 15, vertical)
            innovation = filtered.innovation(measured, noise)
            squared.append(float(innovation.squared))
            filtered = filtered.corrected(innovation)
    count = len(squared)
    low, high = chi2.ppf([0.0005, 0.9995], 3 * count) / count
    assert low < np.mean(squared) < high


def test_velocities_of_walkers_are_right_within_their_covariance():
    film = draw_film(3, people=1, frames=120)
    eyes, tracker = WalkersPipeline(film, seed=3), make_tracker()
    deviations = []
    roots = np.array([photo.people[0].joints_mm[MUCO_21.root_index] for photo in film.photos])
    for index, photo in enumerate(film.photos[:-4]):
        truth = photo.people[0]
        seen = eyes.person(truth, truth.bbox_xywh_px, 0.9)
        (one,) = look(tracker, [seen], index / FPS)
        tracking = one.tracking
        if index >= 10 and tracking.velocity_mm_s is not None:
            true = (roots[index + 4] - roots[index - 4]) * FPS / 8
            error = tracking.velocity_mm_s - true
            spread = tracking.velocity_covariance_mm2_s2
            deviations.append(error @ np.linalg.solve(spread, error) / 3)
    assert len(deviations) > 50
    assert 0.1 < np.mean(deviations) < 2.5


def test_the_published_covariance_keeps_what_successive_errors_share():
    tracker = make_tracker()
    for index in range(60):
        (one,) = look(tracker, [person()], index / 15, smoothing=SmoothingOptions())
    lasting = person().root_covariance_mm2 - fresh(person().root_covariance_mm2)
    assert np.linalg.eigvalsh(one.root_covariance_mm2 - lasting)[0] > 0


# --- clothes -------------------------------------------------------------------------------------


def test_of_two_who_may_be_the_same_the_one_next_to_somebody_else_is_not():
    # The second person is a little more like the first track, but more yet like the second one.
    rows, columns = assigned_pairs(np.array([[2.82, 2.80], [17.0, 4.9]]))
    assert (rows.tolist(), columns.tolist()) == ([0], [0])


@given(arrays.arrays(np.float64, st.tuples(*[st.integers(1, 4)] * 2), elements=st.floats(0, 1e6)))
def test_nobody_is_assigned_twice_or_at_too_high_a_cost(costs):
    rows, columns = assigned_pairs(costs)
    assert len(set(rows.tolist())) == len(rows) == len(set(columns.tolist()))
    assert (costs[rows, columns] < 5).all()
    left = np.delete(np.delete(costs, rows, axis=0), columns, axis=1)
    assert not (left < 2).any()  # nobody is left over who is near


def dressed(one, colour):
    return dataclasses.replace(one, colours=np.full(appearance.UNSEEN.shape, float(colour)))


@pytest.mark.parametrize("red, blue, kept", [(200, 20, True), (100, 100, False)])
def test_clothes_tell_who_comes_out_from_behind_whom(red, blue, kept):
    """Two people meet, turn round while one hides the other, and part again."""
    tracker = make_tracker()
    ways = (-0.9, 0.9)
    for index in range(12):
        apart = 0.9 - 0.08 * index
        seen = [person(way * apart, velocity_m_s=(-way, 0)) for way in ways]
        people = look(tracker, list(map(dressed, seen, (red, blue))), index / 15)
    left = people[0].tracking.track_id
    for index in range(12, 18):
        look(tracker, [], index / 15)
    back = [person(way * 0.2, velocity_m_s=(way, 0)) for way in ways]
    people = look(tracker, list(map(dressed, back, (red, blue))), 18 / 15)
    (found,) = [p.tracking.track_id for p in people if p.colours[0, 0] == red and p.root_mm[0] < 0]
    assert (found == left) == kept


def test_other_clothes_are_somebody_else():
    tracker = make_tracker()
    for index in range(5):
        look(tracker, [dressed(person(), 200)], index / 15)
    people = look(tracker, [dressed(person(0.3), 20)], 5 / 15)
    assert states(people)[1] == TrackState.COASTING and 2 in states(people)


def test_unseen_clothes_change_no_id():
    tracker = make_tracker()
    for index in range(9):
        one = person() if index % 3 else dressed(person(), 200)
        assert list(states(look(tracker, [one], index / 15))) == [1]


def test_estimates_keep_colours_and_older_ones_have_none(tmp_path):
    seen, key = dressed(person(), 200), Key("film.mp4", 0)
    with EstimateStore(tmp_path, (1, 1), {}, resume=False) as store:
        store.add(key, Estimate((seen,), CAMERA, (True,)))
        (kept,) = store.get(key).people
    np.testing.assert_array_equal(kept.colours, seen.colours)
    path = tmp_path / "1-of-1.jsonl"
    settings, line = map(json.loads, path.read_text().splitlines())
    del line["people"][0]["colours"]
    path.write_text(f"{json.dumps(settings)}\n{json.dumps(line)}\n")
    with EstimateStore(tmp_path, (1, 1), {}, resume=True) as store:
        (older,) = store.get(key).people
    assert older.colours is None
    assert list(states(look(make_tracker(), [older], 0.0))) == [1]


# --- boxes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("x_m", [-1.0, 0.0, 1.0])
def test_a_box_from_the_pose_is_the_box_that_was_detected(x_m):
    seen = person(x_m)
    boxes = BoxFromPose.usual().learn(seen.bbox_xywh_px, seen.joints_px, CAMERA)
    np.testing.assert_allclose(boxes(seen.joints_px), seen.bbox_xywh_px, atol=1e-6)
    larger = boxes(seen.joints_px * 2)
    np.testing.assert_allclose(larger, seen.bbox_xywh_px * 2, atol=1e-6)


def test_the_usual_margins_give_a_box_that_overlaps_the_persons():
    seen = person()
    assert box_iou(BoxFromPose.usual()(seen.joints_px), seen.bbox_xywh_px)[0, 0] > 0.7


def test_a_box_cut_by_the_image_teaches_nothing_about_the_cut_sides():
    seen = person()
    cut = seen.bbox_xywh_px.copy()
    cut[3] = CAMERA.height - cut[1]  # down to the image's edge, though the feet are seen
    boxes = BoxFromPose.usual().learn(cut, seen.joints_px, CAMERA)
    bottom = boxes(seen.joints_px)[[1, 3]].sum()
    assert bottom < CAMERA.height - 5


def test_several_boxes_are_learned_as_each_alone():
    seen = [person(-1.0), person(0.5, 6.0), person(1.0)]
    bboxes = np.array([one.bbox_xywh_px for one in seen])
    joints = np.array([one.joints_px for one in seen])
    several = BoxFromPose.stacked([BoxFromPose.usual()] * 3)
    for factor, detected in ((1.1, [True, False, True]), (0.9, [True, True, False])):
        several = several.learn(bboxes * factor, joints, CAMERA, np.array(detected))
    assert several.learned.all()
    alone = [BoxFromPose.usual() for _ in seen]
    for factor, detected in ((1.1, [True, False, True]), (0.9, [True, True, False])):
        for i in np.flatnonzero(detected):
            alone[i] = alone[i].learn(bboxes[i] * factor, joints[i], CAMERA)
    boxes = several(joints)
    for i, one in enumerate(alone):
        np.testing.assert_allclose(boxes[i], one(joints[i]))


def test_a_pose_without_places_has_no_box():
    nowhere = np.full((21, 2), np.nan)
    boxes = BoxFromPose.usual().learn(np.ones(4), nowhere, CAMERA)
    assert np.isnan(boxes(nowhere)).all()
    assert box_iou(boxes(nowhere), np.ones(4))[0, 0] == 0
