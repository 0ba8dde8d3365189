"""The node's people over time: real messages between real nodes, a pipeline without networks."""

import dataclasses

import numpy as np
import pytest
from node_host import FakePipeline
from node_rig import SMALL, added, deleted, make_image, make_info, wait_until
from std_srvs.srv import Trigger

from mppe_ros import node as node_module
from mppe_ros.frames import FrameError
from mppe_ros.skeletons import ANKLES
from mppe_ros.structures import Detections

TENTATIVE, TRACKED, COASTING, LOST = 1, 2, 3, 4


class Visitor(FakePipeline):
    """Its one person can leave."""

    there = True

    def detect(self, images):
        (found,) = super().detect(images)
        keep = len(found) if self.there else 0
        return [Detections(found.boxes_xywh_px[:keep], found.scores[:keep])]

    def estimate(self, images, intrinsics, detections):
        (people,) = super().estimate(images, intrinsics, detections)
        return [people if self.there else [None] * len(people)]


@pytest.fixture
def host(host):
    host.pipeline = Visitor()
    return host


class Film:
    """Images a tenth of a second apart, each sent when the last one is answered."""

    def __init__(self, robot):
        self._robot, self._time_ds = robot, 10_000

    def show(self, later_ds=1, frame_id=""):
        """The answer to the next image: poses, markers."""
        image, info = make_image(SMALL), make_info(SMALL)
        image.header.frame_id = info.header.frame_id = frame_id
        self._time_ds += later_ds
        stamp = self._time_ds // 10, self._time_ds % 10 * 10**8
        already = len(self._robot.markers)
        # Sent again until it is heard: the first may come before the connection stands.
        poses = wait_until(
            lambda: self._robot.poses_of(stamp),
            lambda: self._robot.send(image, info, stamp),
        )
        wait_until(lambda: len(self._robot.markers) > already)
        return poses


def person_of(poses):
    (person,) = poses.poses
    return person.track_id, person.tracking_state


def test_a_person_keeps_its_id_and_is_lost_once(robot, host):
    host.start(robot.namespace)
    film = Film(robot)
    track_id, _ = person_of(film.show())
    assert track_id == 1
    wait_until(lambda: person_of(film.show()) == (1, TRACKED))
    shown = wait_until(lambda: next((m for m in robot.markers if added(m)), None))
    assert {marker_id for _, marker_id in added(shown)} == {1}

    host.pipeline.there = False
    people = []
    wait_until(lambda: people.append(film.show()) or not people[-1].poses)
    states = [person_of(poses) for poses in people[:-1]]
    assert set(states) == {(1, COASTING), (1, LOST)}
    assert [state for _, state in states] == [COASTING] * (len(states) - 1) + [LOST]
    wait_until(lambda: any(("joints", 1) in deleted(m) for m in robot.markers))
    coasting = people[len(states) - 2].poses[0]
    assert 1 <= coasting.time_since_detection <= 1.6

    host.pipeline.there = True
    again = wait_until(lambda: film.show().poses)
    assert again[0].track_id == 2


def test_a_tracked_person_has_a_velocity_in_the_end(robot, host):
    host.start(robot.namespace)
    film = Film(robot)
    poses = wait_until(lambda: next((p for p in film.show().poses if p.velocity_valid), None))
    velocity = [poses.velocity.x, poses.velocity.y, poses.velocity.z]
    assert np.linalg.norm(velocity) < 0.3  # it stands still


def test_reset_tracks_gives_new_ids(robot, host):
    host.start(robot.namespace)
    film = Film(robot)
    before, _ = person_of(film.show())
    response = robot.call(Trigger, "reset_tracks")
    assert response.success
    assert "new ids" in response.message
    states = {person.track_id: person.tracking_state for person in film.show().poses}
    assert states[before] == LOST
    (after,) = set(states) - {before}
    assert after > before
    assert person_of(film.show())[0] == after


def test_another_camera_frame_gives_new_ids(robot, host):
    host.start(robot.namespace)
    film = Film(robot)
    before, _ = person_of(film.show())
    poses = film.show(frame_id="rear_camera")
    assert poses.header.frame_id == "rear_camera"
    assert {person.track_id: person.tracking_state for person in poses.poses}[before] == LOST


def test_ids_stay_unique_over_the_nodes_life(robot, host):
    node = host.start(robot.namespace)
    film = Film(robot)
    before, _ = person_of(film.show())
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        getattr(node, f"trigger_{transition}")()
    after = max(person.track_id for person in film.show().poses)
    assert after > before


def test_time_that_goes_back_gives_new_ids_and_says_so(robot, host):
    host.start(robot.namespace)
    film = Film(robot)
    before, _ = person_of(film.show())
    people = film.show(later_ds=-50).poses
    assert {person.track_id: person.tracking_state for person in people}[before] == LOST
    assert wait_until(lambda: robot.log("time went back by 5 s: people get new ids"))


def test_diagnostics_count_tracks_and_detector_runs(robot, host):
    host.start(robot.namespace, detection_interval=1000)
    film = Film(robot)
    wait_until(lambda: person_of(film.show()) == (1, TRACKED))
    _, values = wait_until(
        lambda: robot.status("1 people") if float(_share(robot)) < 1 else None, film.show
    )
    assert values["tracks"] == "1"
    assert 0 < float(values["detector share"]) < 1
    assert float(values["track (ms)"]) >= 0


def _share(robot):
    status = robot.status("people")
    return status[1]["detector share"] if status else 1


def test_without_tracking_people_have_no_ids(robot, host):
    host.start(robot.namespace, **{"tracking.enabled": False})
    film = Film(robot)
    assert person_of(film.show()) == (0, 0)
    response = robot.call(Trigger, "reset_tracks")
    assert response.success
    assert "tracking is off" in response.message


def test_smoothing_can_be_switched_while_the_node_runs(robot, host):
    node = host.start(robot.namespace)
    film = Film(robot)
    film.show()
    assert robot.change("smoothing.enabled", False) == (True, "")
    assert not node.settings.smoothing_options.enabled
    wait_until(lambda: film.show().poses[0].joints[0].position.z == 3.0)
    assert robot.change("smoothing.beta", -1.0)[0] is False


class NoTransforms:
    """A TransformLookup that has heard nothing."""

    def __init__(self, node):
        pass

    def __call__(self, frame_id, source_frame_id, stamp):
        raise FrameError(f"no transform from {source_frame_id!r} to {frame_id!r}")

    def close(self):
        pass


def test_a_missing_tracking_frame_is_said_and_people_are_tracked(robot, host, monkeypatch):
    monkeypatch.setattr(node_module, "TransformLookup", NoTransforms)
    host.start(robot.namespace, tracking_frame="odom")
    film = Film(robot)
    assert person_of(film.show())[0] == 1
    assert wait_until(lambda: robot.log("as if the camera stood still"))
    assert wait_until(lambda: robot.status("as if the camera stood still"), film.show)
    assert person_of(film.show())[0] == 1


class Level(NoTransforms):
    """A camera that looks ahead, 1.5 m above the floor of every frame."""

    def __call__(self, frame_id, source_frame_id, stamp):
        return np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1.0]])


class Standing(Visitor):
    """Its person seems to be at 3 m, give or take 1 m; its feet are where the floor is at 4 m."""

    def estimate(self, images, intrinsics, detections):
        ((person,),) = super().estimate(images, intrinsics, detections)
        (camera,) = intrinsics
        pixels = person.joints_px.copy()
        pixels[list(self.skeleton.indices(ANKLES))] = camera.cx, camera.cy + camera.fy * 1.4 / 4
        covariance = np.diag([50.0, 50.0, 1000.0]) ** 2
        return [[dataclasses.replace(person, joints_px=pixels, root_covariance_mm2=covariance)]]


@pytest.mark.parametrize(("on_floor", "distance_m"), [(False, 3.0), (True, 4.0)])
def test_people_on_the_floor_are_where_their_feet_are(
    robot, host, monkeypatch, on_floor, distance_m
):
    monkeypatch.setattr(node_module, "TransformLookup", Level)
    host.pipeline = Standing()
    options = {"tracking.on_floor": on_floor}
    host.start(robot.namespace, tracking_frame="odom", **options)
    (person,) = Film(robot).show().poses
    assert person.root.pose.position.z == pytest.approx(distance_m, abs=0.1)
