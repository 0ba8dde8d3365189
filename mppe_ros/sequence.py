"""People in successive images of one camera: ids, velocities, and a detector that rests.

DetectNet is most of the time that an image takes, and says little that the last image didn't. It
looks at every n-th image, and at those in which somebody new or somebody lost is to be found.
In between, each person's box follows from the predicted pose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from . import appearance, floor
from .boxes import box_iou
from .detectors import SCORE_THRESHOLD
from .devices import StageClock
from .pipeline import Pipeline, judge
from .smoothing import SmoothingOptions
from .structures import Detections, FloatArray, Image, Intrinsics, Person, TrackState
from .tracking import Expected, Seen, Tracker, TrackingOptions

# A detection and an expected box that overlap by this much are of one person.
_SAME_BOX = 0.4
# A doubtful detection is believed where somebody is expected (Zhang et al., ByteTrack, ECCV 2022).
_DOUBTFUL_SCORE = max(0.1, SCORE_THRESHOLD)
# In an expected box is nobody if the joints' heatmaps are this much blunter than usual, or if the
# pose found there fills another box.
_LEAST_SHARPNESS = 0.6
# Without DetectNet's word an expected box is believed for so long.
_MAX_UNDETECTED_S = 0.5

DETECTION_INTERVAL = 5

Refine = Callable[[list[Person]], list[Person]]


class PoseSequence:
    """A pipeline that knows about time: one camera, images in the order of their stamps. ::

        sequence = PoseSequence(pipeline)
        for frame in source:
            for person in sequence.step(frame.rgb, intrinsics, frame.time_s):
                print(person.tracking.track_id, person.tracking.state, person.root_mm)

    Each `Person` of `step` has a `Person.tracking` (id, state, velocity). People who aren't seen
    in the image are there too (COASTING: predicted), and once those who are given up (LOST).

    :param detection_interval: images; 1 = DetectNet looks at every one.
    :param on_floor: people stand on the plane z = 0 of the frame that ``camera_to_world`` leads
        to, which tells how far away they are (`floor.fuse`).
    :param ids: numbers for people, shared by sequences whose ids must not meet.

    ``smoothing`` may change from image to image, ``pipeline.options`` too. After a `step`,
    ``detected`` says whether DetectNet looked, ``seen`` whom the networks saw, ``stage_ms`` what
    took how long, and ``notice`` why all tracks were begun anew, if they were.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        tracking: TrackingOptions | None = None,
        smoothing: SmoothingOptions | None = None,
        detection_interval: int = DETECTION_INTERVAL,
        on_floor: bool = False,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.pipeline, self.detection_interval = pipeline, detection_interval
        self.smoothing, self.on_floor = smoothing or SmoothingOptions(), on_floor
        self.tracker = Tracker(pipeline.skeleton, pipeline.root_error, tracking, ids)
        self.stage_ms: dict[str, float] = {}
        self.detected = False
        self.seen: list[Seen] = []
        self._images_until_detection = 0

    @property
    def notice(self) -> str:
        """Why the last step began all tracks anew; empty if it didn't."""
        return self.tracker.notice

    def reset(self) -> None:
        """Forgets everybody; ids are not used again, and the next step calls the old ones LOST."""
        self.tracker.reset()
        self._images_until_detection = 0

    def step(
        self,
        image: Image,
        intrinsics: Intrinsics,
        stamp_s: float,
        camera_to_world: FloatArray | None = None,
        refine: Refine | None = None,
    ) -> list[Person]:
        """People of the next image, in the order of ids.

        :param image: (H, W, 3) uint8 RGB.
        :param stamp_s: when it was taken. A stamp that repeats or goes back is coped with, see
            `Tracker.predict`.
        :param camera_to_world: (4, 4), m, where the camera moves: where it is in a frame that
            doesn't. People are tracked in that frame and returned in the camera's.
        :param refine: improves what the networks found before it is tracked (depth fusion).
        :raises ValueError: an image that is no colour image or not of its camera's size.
        """
        pixels = self.pipeline.upload([image], [intrinsics])
        expected = self.tracker.predict(stamp_s, intrinsics, camera_to_world)
        if self.notice:
            self._images_until_detection = 0
        found = self._detect(pixels)
        detect_ms = self.pipeline.stage_ms if self.detected else {"detect": 0.0}
        boxes, of_track = self._boxes(found, expected)
        people = self.pipeline.estimate(pixels, [intrinsics], [boxes])[0]
        clock = StageClock(self.pipeline.device)
        seen = self._seen(people, of_track, expected)
        if refine is not None:
            better = refine([one.person for one in seen])
            seen = [Seen(new, old.detected) for new, old in zip(better, seen, strict=True)]
        seen = [
            one._replace(person=self._corrected(one.person, camera_to_world, intrinsics))
            for one in seen
        ]
        clock.lap("fuse")
        self.seen = seen = self._dressed(seen, image)
        result = self.tracker.update(seen, self.smoothing)
        self._plan_detection(expected, result)
        clock.lap("track")
        self.stage_ms = {**detect_ms, **self.pipeline.stage_ms, **clock.ms}
        return result

    def _detect(self, pixels: Sequence[torch.Tensor]) -> Detections | None:
        """All detections if it is time for some, doubtful ones too."""
        self.detected = self._images_until_detection <= 0
        if not self.detected:
            self._images_until_detection -= 1
            return None
        self._images_until_detection = self.detection_interval - 1
        (found,) = self.pipeline.detect(pixels)
        return found

    def _boxes(
        self, found: Detections | None, expected: Sequence[Expected]
    ) -> tuple[Detections, list[Expected | None]]:
        """The boxes to look into, and the track that expected each; None = a detection."""
        hoped = [one for one in expected if _followed(one)]
        rows: list[FloatArray] = []
        scores: list[float] = []
        if found is not None:
            detected, detected_scores = self._believed(found, expected)
            rows, scores = list(detected), list(detected_scores)
            hoped = [
                one
                for one in hoped
                if one.undetected_s <= _MAX_UNDETECTED_S
                and not (box_iou(one.bbox_xywh_px, detected) >= _SAME_BOX).any()
            ]
        limit = self.pipeline.options.max_persons
        del rows[limit:], scores[limit:]
        hoped = sorted(hoped, key=lambda one: -one.score)[: limit - len(rows)]
        of_track = [None] * len(rows) + hoped
        rows += [one.bbox_xywh_px for one in hoped]
        scores += [one.score for one in hoped]
        return Detections(np.array(rows).reshape(-1, 4), np.array(scores)), of_track

    def _believed(
        self, found: Detections, expected: Sequence[Expected]
    ) -> tuple[FloatArray, FloatArray]:
        """Boxes and scores of confident detections, and of doubtful ones of people expected."""
        confident = len(self.pipeline.options.select(found))
        boxes = np.asarray(found.boxes_xywh_px, np.float64)
        scores = np.asarray(found.scores, np.float64)
        sure, doubtful = boxes[:confident], boxes[confident:]
        doubtful = doubtful[scores[confident:] >= _DOUBTFUL_SCORE]
        hopes = _boxes_of(expected)
        unmet = hopes[~(box_iou(hopes, sure) >= _SAME_BOX).any(axis=1)]
        overlap = box_iou(unmet, doubtful)
        rows, columns = linear_sum_assignment(-overlap)
        kept = columns[overlap[rows, columns] >= _SAME_BOX]
        return (
            np.concatenate([sure, doubtful[kept]]),
            np.concatenate([scores[:confident], scores[confident:][kept]]),
        )

    def _seen(
        self,
        people: Sequence[Person | None],
        of_track: Sequence[Expected | None],
        expected: Sequence[Expected],
    ) -> list[Seen]:
        """Whom to believe in: a doubtful detection where somebody is expected, as of boxes."""
        least, seen = self.pipeline.options.detection_threshold, []
        for person, track in zip(people, of_track, strict=True):
            if person is None:
                continue
            if track is not None:
                there = _there(person, track)
            else:
                person = judge(person, self.pipeline.sharpness)
                overlap = box_iou(_boxes_of(expected), person.bbox_xywh_px)
                there = person.score >= least or bool((overlap >= _SAME_BOX).any())
            if there:
                seen.append(Seen(person, detected=track is None))
        return seen

    def _corrected(
        self, person: Person, camera_to_world: FloatArray | None, intrinsics: Intrinsics
    ) -> Person:
        """A person where the floor says, if it has a say."""
        if not self.on_floor or camera_to_world is None:
            return person
        skeleton, error = self.pipeline.skeleton, self.pipeline.root_error
        return floor.fuse(person, camera_to_world, intrinsics, skeleton, error)

    def _dressed(self, seen: Sequence[Seen], image: Image) -> list[Seen]:
        """People with the colours of their clothes."""
        if not seen:
            return []
        joints_px = np.array([one.person.joints_px for one in seen])
        status = np.array([one.person.joint_status for one in seen])
        colours = appearance.colours(image, joints_px, status, self.pipeline.skeleton)
        return [
            one._replace(person=replace(one.person, colours=of_one))
            for one, of_one in zip(seen, colours, strict=True)
        ]

    def _plan_detection(self, before: Sequence[Expected], people: Sequence[Person]) -> None:
        """DetectNet looks at the next image if somebody just went missing or isn't sure yet, and
        at every second one while somebody is missing."""
        were = {one.track_id: one.state for one in before}
        for person in people:
            assert person.tracking is not None
            state = person.tracking.state
            coasting = state == TrackState.COASTING
            missing = coasting and were.get(person.tracking.track_id) != TrackState.COASTING
            if missing or state == TrackState.TENTATIVE:
                self._images_until_detection = 0
            elif coasting:
                self._images_until_detection = min(self._images_until_detection, 1)


def _boxes_of(expected: Sequence[Expected]) -> FloatArray:
    """(N, 4)"""
    return np.array([one.bbox_xywh_px for one in expected]).reshape(-1, 4)


def _followed(track: Expected) -> bool:
    """Only who was seen in the last image is looked for where it should be."""
    seen = track.state in (TrackState.TENTATIVE, TrackState.TRACKED)
    return seen and bool(np.isfinite(track.bbox_xywh_px).all())


def _there(person: Person, track: Expected) -> bool:
    """Whether the pose found in an expected box is a person's."""
    return bool(person.joint_scores.mean() >= _LEAST_SHARPNESS * track.joint_score)
