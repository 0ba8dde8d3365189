"""The tasks: what is trained.

To add one, write a :class:`~mppe_ros.training.task.Task`, a configuration in ``config.py`` and a
row of :data:`TASKS`.
"""

from __future__ import annotations

from typing import Any

from .config import Config
from .open_tasks import DetectorTask, PoseTask, RootPoseTask, RootTask
from .reference_tasks import DetectNetTask, JointTask, PoseNetTask, RootNetTask
from .task import Task

TASKS: dict[str, type[Task[Any]]] = {
    "root": RootTask,
    "pose": PoseTask,
    "root_pose": RootPoseTask,
    "detector": DetectorTask,
    "rootnet": RootNetTask,
    "posenet": PoseNetTask,
    "joint": JointTask,
    "detectnet": DetectNetTask,
}


def task_for(config: Config) -> Task[Config]:
    """The task that a configuration belongs to."""
    return TASKS[config.task](config)
