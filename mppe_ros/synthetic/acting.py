"""What people do over time: walk along a path, talk, perform a recorded motion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from . import motion, people
from .bodies import BodyModel
from .clothing import Figure
from .motion import Gait, Pose
from .people import Placed

Script = Callable[[float], Pose]  # time, s -> pose with x and y; the ground is found afterwards

# Who walks turns by no more: a right angle takes most of a second.
_TURN_RAD_S = 2.0
_TABLE_STEP_M = 0.02


@dataclass(frozen=True)
class Actor:
    """One person and what it does."""

    person: int  # track id, from 1
    figure: Figure
    act: Script


def walk(gait: Gait, leg_m: float, route: NDArray[np.float64], start_s: float) -> Script:
    """Walk along a route at the gait's own speed, slower in tight turns; feet don't slide.

    :param route: (N, 2), m, way points, rounded off by a spline.
    :param start_s: when the first point is passed; before it the route is prolonged backwards.
    """
    knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(route, axis=0), axis=1))])
    spline = CubicSpline(knots, route, bc_type="natural")
    speed = gait.stride_m * (leg_m / gait.clip.leg_m) / gait.clip.duration_s
    # The spline's own parameter runs fast and slow: distances and times along it, from a table.
    parameter = np.linspace(0, knots[-1], 1 + math.ceil(knots[-1] / _TABLE_STEP_M))
    path, headings = spline(parameter), np.unwrap(np.arctan2(*spline(parameter, 1).T[::-1]))
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    times = np.maximum(steps / speed, np.abs(np.diff(headings)) / _TURN_RAD_S)
    distance_at, time_at = (np.concatenate([[0], np.cumsum(each)]) for each in (steps, times))

    def pose_at(time_s: float) -> Pose:
        since = time_s - start_s
        inside = float(np.interp(since, time_at, parameter))
        beyond = speed * (since - float(np.clip(since, 0, time_at[-1])))
        way = spline(inside, 1)
        way /= np.linalg.norm(way)
        distance = float(np.interp(since, time_at, distance_at)) + beyond
        pose = gait.pose(distance + 50 * gait.stride_m, leg_m)
        pose = pose.turned(float(np.degrees(np.arctan2(way[0], -way[1]))))
        return pose.moved(np.array([*(spline(inside) + way * beyond), 0.0]))

    return pose_at


def stand_and_talk(x: float, y: float, yaw_deg: float, voice: int, energy: float) -> Script:
    """Stand at a point and speak with the hands."""

    def pose_at(time_s: float) -> Pose:
        pose = motion.talking(time_s, voice, energy).turned(yaw_deg)
        return pose.moved(np.array([x, y, 0.0]))

    return pose_at


def perform(clip: motion.Clip, x: float, y: float, turn_deg: float, start_s: float) -> Script:
    """Play a recorded motion around a point, slowed a little."""
    middle = clip.positions_m.mean(axis=0) * [1, 1, 0]

    def pose_at(time_s: float) -> Pose:
        pose = clip.at(start_s + 0.8 * time_s).moved(-middle)
        return pose.turned(turn_deg).moved(np.array([x, y, 0.0]))

    return pose_at


def stage_people(
    model: BodyModel, actors: Sequence[Actor], frames: int, rate_hz: float
) -> Iterator[list[Placed]]:
    """Give everybody, frame by frame, feet on the ground."""

    def placed(actor: Actor, frame: int) -> Placed:
        return people.place(model, actor.figure, actor.act(frame / rate_hz), actor.person)

    drops = [
        _smooth(np.array([-placed(actor, i).vertices[:, 2].min() for i in range(frames)]))
        for actor in actors
    ]
    for frame in range(frames):
        yield [
            placed(actor, frame).moved(np.array([0.0, 0.0, drop[frame]]))
            for actor, drop in zip(actors, drops, strict=True)
        ]


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the jitter out of the ground contact (three frames)."""
    padded = np.pad(values, 1, mode="edge")
    return np.asarray(np.convolve(padded, [0.25, 0.5, 0.25], "valid"))
