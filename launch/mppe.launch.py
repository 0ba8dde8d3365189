"""The pose node on a camera, with RViz if asked for.

ros2 launch mppe_ros mppe.launch.py camera:=/camera/color rviz:=true
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

CONFIG = PathJoinSubstitution([FindPackageShare("mppe_ros"), "config"])

# Empty = not given: the parameter file or the node's own default holds.
ARGUMENTS = {
    "camera": ("", "namespace of the camera: takes its image_raw and camera_info"),
    "image_topic": ("", "image topic, instead of <camera>/image_raw"),
    "camera_info_topic": ("", "camera_info topic, instead of <camera>/camera_info"),
    "namespace": ("", "namespace of the node"),
    "params_file": (PathJoinSubstitution([CONFIG, "mppe.yaml"]), "parameters of the node"),
    "rviz": ("false", "true starts RViz too"),
    "use_sim_time": ("", "true takes the time from /clock"),
    "weights": ("", "weight set, see `mppe weights list`"),
    "device": ("", "auto, cpu, cuda or cuda:N"),
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=make_nodes)])


def make_nodes(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    topics = camera_topics(given["camera"], given["image_topic"], given["camera_info_topic"])
    sim_time = {"use_sim_time": given["use_sim_time"].lower() == "true"}
    sim_times = [sim_time] if given["use_sim_time"] else []
    texts = {name: given[name] for name in ("weights", "device") if given[name]}
    return [
        Node(
            package="mppe_ros",
            executable="pose_node",
            name="mppe",
            namespace=given["namespace"],
            output="screen",
            parameters=[given["params_file"], *sim_times, *([texts] if texts else [])],
            remappings=list(topics.items()),
        ),
        Node(
            package="rviz2",
            executable="rviz2",
            # Its configuration names topics absolutely: these make them those of the node above.
            namespace=given["namespace"],
            remappings=[
                ("/image_raw", topics.get("image_raw", "image_raw")),
                ("/mppe/markers", "mppe/markers"),
            ],
            arguments=["-d", PathJoinSubstitution([CONFIG, "mppe.rviz"])],
            parameters=sim_times,
            condition=IfCondition(LaunchConfiguration("rviz")),
        ),
    ]


def camera_topics(camera: str, image_topic: str, camera_info_topic: str) -> dict[str, str]:
    """Remappings of the node's topics; a topic that is given wins over the camera's."""
    topics = {"image_raw": image_topic, "camera_info": camera_info_topic}
    if camera:
        base = camera.rstrip("/")
        topics = {name: topic or f"{base}/{name}" for name, topic in topics.items()}
    return {name: topic for name, topic in topics.items() if topic}
