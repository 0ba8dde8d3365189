"""A look without a camera: the sample clip (or a picture, video, webcam), the pose node, RViz.

ros2 launch mppe_ros demo.launch.py
ros2 launch mppe_ros demo.launch.py source:=/path/to/video.mp4 fov_deg:=60.0
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare("mppe_ros")
CAMERA = "/sample_camera"  # the namespace of its topics; config/demo.yaml names it, too

ARGUMENTS = {
    "source": ("", "image, folder, video, or number of a webcam; empty = the sample clip"),
    "fov_deg": ("0.0", "its horizontal field of view, deg; the sample clip's is known"),
    "rviz": ("true", "false = without RViz"),
    "debug_image": ("true", "true: RViz shows the image with the people drawn in"),
    "weights": ("", "weight set (`mppe weights list`) or folder of an exported one"),
    "device": ("", "auto, cpu, cuda or cuda:N"),
}
_OF_THE_CAMERA = {"source": str, "fov_deg": float}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    camera = Node(
        package="mppe_ros",
        executable="sample_camera",
        name="sample_camera",
        output="screen",
        parameters=[
            {
                "loop": True,
                **{
                    name: ParameterValue(given.pop(name), value_type=kind)
                    for name, kind in _OF_THE_CAMERA.items()
                },
            }
        ],
        remappings=[(name, f"{CAMERA}/{name}") for name in ("image_raw", "camera_info")],
    )
    pose_node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "mppe.launch.py"])),
        launch_arguments={
            **given,
            "camera": CAMERA,
            "params_file": PathJoinSubstitution([SHARE, "config", "demo.yaml"]),
        }.items(),
    )
    return LaunchDescription([*arguments, camera, pose_node])
