"""Images one after another: when the detector looks, boxes from poses, and the targets that
tracking must reach whatever the networks are (their errors are as their covariance says)."""

import dataclasses
import math

import numpy as np
import pytest
from click.testing import CliRunner
from walkers import CAMERA, ERROR, FPS, WalkersPipeline, draw_film, figure_mm, true_person

from mppe_ros.boxes import box_iou
from mppe_ros.cli import main
from mppe_ros.evaluation import tracking
from mppe_ros.evaluation.truth import Photo
from mppe_ros.kalman import fresh
from mppe_ros.sequence import PoseSequence
from mppe_ros.structures import Tracking, TrackState
from mppe_ros.synthetic.kernel import View

SEEDS = (0, 1, 3)


def film_of(rows):
    """A film of the people (TruePerson) in each image."""
    empty = draw_film(0, people=0, frames=1)
    photos = tuple(Photo(str(i), CAMERA, tuple(row)) for i, row in enumerate(rows))
    return dataclasses.replace(empty, photos=photos)


def standing(x_m, track_id, z_m=4.0):
    return true_person(figure_mm(np.array([x_m, 0, z_m]) * 1000, np.zeros(3), 0.0), track_id)


def play(film, **options):
    """For each image: people, and whether the detector looked."""
    pipeline = WalkersPipeline(film, recall=options.pop("recall", 1.0))
    sequence = PoseSequence(pipeline, **options)
    for index, (photo, rgb) in enumerate(film.pictures()):
        yield sequence.step(rgb, photo.intrinsics, index / FPS), sequence.detected


def states(people):
    return [one.tracking.state for one in people]


@pytest.mark.parametrize("interval", [1, 4, 7])
def test_the_detector_looks_at_every_nth_image(interval):
    film = film_of([[standing(-0.8, 1), standing(0.8, 2)]] * 30)
    looked = [detected for _, detected in play(film, detection_interval=interval)]
    # Newcomers are looked at twice.
    since = looked[2:]
    assert looked[:2] == [True, True]
    assert sum(since) == pytest.approx(len(since) / interval, abs=1)


def test_between_detections_everybody_is_seen_by_the_last_pose():
    film = film_of([[standing(-0.8 + 0.03 * i, 1), standing(0.8, 2, 5.0)] for i in range(40)])
    for people, _ in list(play(film, detection_interval=10))[2:]:
        assert states(people) == [TrackState.TRACKED, TrackState.TRACKED]
        assert [one.tracking.track_id for one in people] == [1, 2]


def test_boxes_from_poses_do_not_drift_away():
    walkers = draw_film(1, people=1, frames=60)
    rows = [photo.people for photo in walkers.photos]
    for index, (people, _) in enumerate(play(film_of(rows), detection_interval=1000)):
        if rows[index] and index > 1:
            alike = box_iou(people[0].bbox_xywh_px, rows[index][0].bbox_xywh_px)
            assert alike[0, 0] > 0.6


@pytest.mark.parametrize("interval", [3, 6])
def test_new_people_appear_within_one_interval(interval):
    rows = [[standing(-0.8, 1)]] * 10 + [[standing(-0.8, 1), standing(0.8, 2)]] * 20
    found = [len(people) for people, _ in play(film_of(rows), detection_interval=interval)]
    assert found[9] == 1
    assert found[9 + interval] == 2


def test_the_detector_looks_as_soon_as_somebody_is_missing():
    rows = [[standing(-0.8, 1), standing(0.8, 2)]] * 12 + [[standing(-0.8, 1)]] * 6
    steps = list(play(film_of(rows), detection_interval=1000))
    gone = next(i for i, (people, _) in enumerate(steps) if TrackState.COASTING in states(people))
    assert gone == 12
    assert [detected for _, detected in steps[12:14]] == [False, True]


def test_a_doubtful_detection_counts_only_where_somebody_is_expected():
    film = film_of([[standing(0.0, 1)]] * 12)

    class Doubtful(WalkersPipeline):
        score = 0.9

        def detect(self, images):
            (found,) = super().detect(images)
            return [dataclasses.replace(found, scores=found.scores * 0 + self.score)]

    pipeline = Doubtful(film, recall=1.0)
    pipeline.score = 0.2
    sequence = PoseSequence(pipeline, detection_interval=1)
    shown = iter(film.pictures())
    assert not any(_step(sequence, shown, i) for i in range(3))
    pipeline.score = 0.9
    for index in (3, 4):
        _step(sequence, shown, index)
    pipeline.score = 0.2
    for index in range(5, 12):
        (one,) = _step(sequence, shown, index)
        assert one.tracking.state == TrackState.TRACKED
        assert one.tracking.time_since_detection_s == 0


def _step(sequence, shown, index):
    photo, rgb = next(shown)
    return sequence.step(rgb, photo.intrinsics, index / FPS)


def test_what_refines_people_comes_before_tracking():
    film = film_of([[standing(0.0, 1)]] * 4)
    sequence, shown = PoseSequence(WalkersPipeline(film, recall=1.0)), iter(film.pictures())
    moved = np.array([0.0, 0.0, 500.0])
    for index in range(4):
        photo, rgb = next(shown)
        raw = []

        def farther(people, raw=raw):
            raw += [dataclasses.replace(one, root_mm=one.root_mm + moved) for one in people]
            return raw

        (one,) = sequence.step(rgb, photo.intrinsics, index / FPS, refine=farther)
    assert math.dist(one.root_mm, raw[0].root_mm) < 250
    assert {"detect", "fuse", "track"} <= sequence.stage_ms.keys() | {"detect"}


# --- the targets ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result():
    pytest.importorskip("trackeval", reason="needs TrackEval: docs/tracking.md")
    takes, every = [], []
    for seed in SEEDS:
        film = draw_film(seed, people=3, frames=120)
        takes.append(tracking.run(WalkersPipeline(film, seed), film))
        every.append(tracking.run(WalkersPipeline(film, seed), film, detection_interval=1))
    return tracking.record(WalkersPipeline(film), takes, every), takes


def test_ids_are_kept_through_crossings(result):
    assert result[0]["idf1"] >= 0.9
    assert result[0]["id_switches"] <= 3
    assert result[0]["hota"] > 0.6


def test_poses_are_as_good_as_with_the_detector_at_every_image(result):
    assert result[0]["mpjpe_ratio_to_every_frame"] < 1.02
    assert result[0]["detector_share_of_frames"] < 0.5


def test_velocities_and_what_the_filter_thinks_of_its_errors(result):
    assert result[0]["velocity_rmse_mps"] < 0.33
    assert 0.75 < result[0]["nis"] < 1.3
    assert 0.7 < result[0]["nis_median"] < 1.3


def test_the_share_of_new_noise_is_found_again(result):
    along_mm2 = (ERROR.along * 4000) ** 2
    share = fresh(np.diag([ERROR.across_mm**2, ERROR.across_mm**2, along_mm2]))[2, 2] / along_mm2
    assert result[0]["fresh_share"] == pytest.approx(share, rel=0.6)


def test_the_figures_are_those_of_each_film_too(result):
    whole, takes = result
    assert list(whole["by"]) == [take.name for take in takes]
    assert whole["images"] == sum(one["images"] for one in whole["by"].values())
    assert "| all " in tracking.table(whole)


def test_plots_are_drawn(result, tmp_path):
    pytest.importorskip("matplotlib")
    tracking.plot(result[1][0], tmp_path / "film.png")
    assert (tmp_path / "film.png").stat().st_size > 10_000


def test_a_detection_without_a_pose_begins_no_track():
    film = film_of([[standing(0.0, 1)]] * 4)
    for sharpness, tracks in ((None, 1), (0.7, 1), (7.0, 0)):  # walkers' joints score 0.7
        eyes = WalkersPipeline(film, recall=1.0)
        eyes.sharpness = sharpness
        sequence = PoseSequence(eyes)
        for index, (photo, rgb) in enumerate(film.pictures()):
            sequence.step(rgb, photo.intrinsics, index / FPS)
        assert len(sequence.tracker) == tracks, sharpness


def test_who_is_known_is_believed_in_with_a_blunt_pose_too():
    film = film_of([[standing(0.0, 1)]] * 6)
    eyes = WalkersPipeline(film, recall=1.0)
    sequence = PoseSequence(eyes, detection_interval=1)
    for index, (photo, rgb) in enumerate(film.pictures()):
        eyes.sharpness = None if index < 3 else 7.0
        (one,) = sequence.step(rgb, photo.intrinsics, index / FPS)
        assert index < 3 or one.tracking.state == TrackState.TRACKED


# --- the measure ---------------------------------------------------------------------------------


def test_perfect_tracks_score_1_and_swapped_ones_less():
    pytest.importorskip("trackeval", reason="needs TrackEval: docs/tracking.md")
    film = draw_film(0, people=2, frames=40)
    eyes = WalkersPipeline(film)

    def take(swap_from):
        instants = []
        for index, photo in enumerate(film.photos):
            people = []
            for truth in photo.people:
                number = truth.track_id if index < swap_from else 3 - truth.track_id
                one = eyes.person(truth, truth.bbox_xywh_px, 0.9)
                people.append(
                    dataclasses.replace(
                        one, root_mm=truth.joints_mm[14],
                        tracking=Tracking(number, TrackState.TRACKED, 0.0),
                    )
                )  # fmt: skip
            instants.append(tracking.Instant(photo, tuple(people), (), (), True))
        return tracking.Take(film, tuple(instants), 1.0)

    perfect = tracking.identity_figures([take(1000)])
    assert perfect["idf1"] == perfect["mota"] == pytest.approx(1)
    assert perfect["hota"] == pytest.approx(1)
    assert perfect["id_switches"] == 0
    swapped = tracking.identity_figures([take(20)])
    assert swapped["idf1"] == pytest.approx(0.5, abs=0.05)
    assert swapped["id_switches"] == 2


def test_half_a_metre_is_the_limit():
    one = WalkersPipeline(draw_film(0, people=1, frames=1)).person(
        standing(0, 1), np.array([0, 0, 10, 10.0]), 0.9
    )
    apart = np.array([[0, 0, 0], [500, 0, 0], [0, 0, 1000.0], [0, 3000, 0]])
    expected = [[1], [0.5], [0], [0]]
    np.testing.assert_allclose(tracking.similarity([one], one.root_mm + apart), expected)


def test_the_packages_films_are_read():
    films = tracking.read(tracking.FILMS)
    assert len(films) == 3
    for film in films:
        assert film.fps == 15
        assert {one.track_id for photo in film.photos for one in photo.people} >= {1, 2}
        assert film.photos[0].camera_to_world.shape == (4, 4)


def test_a_folder_without_films_is_one_sentence(tmp_path):
    outcome = CliRunner().invoke(main, ["eval", "tracking", str(tmp_path)])
    assert outcome.exit_code == 1
    assert "no film there" in outcome.output
    assert "Traceback" not in outcome.output


def test_a_clips_camera_pose_takes_camera_points_back_into_the_world():
    view = View.looking([3.0, -2.0, 1.5], [0.2, 0.1, 0.9], 400.0, 480, 360, roll_rad=0.1)
    world_m = np.random.default_rng(0).uniform(-2, 2, (10, 3))
    back = view.to_camera(world_m) @ view.to_world[:3, :3].T + view.to_world[:3, 3]
    np.testing.assert_allclose(back, world_m, atol=1e-12)
    np.testing.assert_allclose(view.to_world[:3, 3], [3.0, -2.0, 1.5])
