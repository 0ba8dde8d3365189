"""Several cameras: a pose node for each, in the camera's namespace.

ros2 launch mppe_ros multi_camera.launch.py cameras:=/front/color,/rear/color

The node of /front/color reads /front/color/image_raw and /front/color/camera_info and publishes
/front/color/mppe/poses. The cameras' frames stay apart, unless output_frame in params_file brings
all people into one.
"""

from __future__ import annotations

from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

SHARE = FindPackageShare("mppe_ros")

ARGUMENTS = {
    "cameras": (None, "namespaces of the cameras, separated by commas"),
    "params_file": (
        PathJoinSubstitution([SHARE, "config", "mppe.yaml"]),
        "parameters of the nodes; /front/color/mppe: in it is for one of them",
    ),
    "rviz": ("false", "true starts an RViz for each camera"),
    "debug_image": ("false", "true: RViz shows the images with the people drawn in"),
    "use_sim_time": ("", "true takes the time from /clock"),
    "weights": ("", "weight set (`mppe weights list`) or folder of an exported one"),
    "device": ("", "auto, cpu, cuda or cuda:N"),
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=make_nodes)])


def make_nodes(context: LaunchContext) -> list[GroupAction]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = camera_names(given.pop("cameras"))
    # Scoped, so that nothing of one camera's reaches the next one.
    return [
        GroupAction([make_node({**given, "camera": camera, "namespace": camera})])
        for camera in cameras
    ]


def make_node(arguments: dict[str, str]) -> IncludeLaunchDescription:
    path = PathJoinSubstitution([SHARE, "launch", "mppe.launch.py"])
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
    )


def camera_names(text: str) -> list[str]:
    names = ["/" + name.strip(" /") for name in text.split(",")]
    if "/" in names or len(set(names)) < len(names):
        raise ValueError(f"cameras:={text} must name cameras, each of them once")
    return names
