"""The pose node on a camera, with RViz if asked for.

ros2 launch mppe_ros mppe.launch.py camera:=/camera/color rviz:=true
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import Action, LaunchContext, LaunchDescription

CONFIG = PathJoinSubstitution([FindPackageShare("mppe_ros"), "config"])

# Empty = not given: the parameter file or the node's own default holds.
ARGUMENTS = {
    "camera": ("", "namespace of the camera: takes its image_raw and camera_info"),
    "image_topic": ("", "image topic, instead of <camera>/image_raw"),
    "camera_info_topic": ("", "camera_info topic, instead of <camera>/camera_info"),
    "namespace": ("", "namespace of the node"),
    "params_file": (PathJoinSubstitution([CONFIG, "mppe.yaml"]), "parameters of the node"),
    "rviz": ("false", "true starts RViz too"),
    "fixed_frame": ("", "RViz's Fixed Frame: the images' frame_id, or any that tf connects"),
    "debug_image": ("false", "true: RViz shows the image with the people drawn in"),
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


def make_nodes(context: LaunchContext) -> list[Action]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    topics = camera_topics(given["camera"], given["image_topic"], given["camera_info_topic"])
    sim_time = given["use_sim_time"]
    sim_times = [{"use_sim_time": is_true(sim_time)}] if sim_time else []
    pose_node = make_pose_node(given, topics, sim_times)
    if is_true(given["rviz"]):
        return [pose_node, make_rviz(given, topics, sim_times)]
    if is_true(given["debug_image"]):
        return [pose_node, LogInfo(msg="debug_image:=true is for RViz: rviz:=true starts it")]
    return [pose_node]


def make_pose_node(given: dict[str, str], topics: dict[str, str], sim_times: list) -> Node:
    texts = {name: given[name] for name in ("weights", "device") if given[name]}
    return Node(
        package="mppe_ros",
        executable="pose_node",
        name="mppe",
        namespace=given["namespace"],
        output="screen",
        parameters=[given["params_file"], *sim_times, *([texts] if texts else [])],
        remappings=list(topics.items()),
    )


def make_rviz(given: dict[str, str], topics: dict[str, str], sim_times: list) -> Node:
    image = topics.get("image_raw", "image_raw")
    fixed_frame = ["-f", given["fixed_frame"]] if given["fixed_frame"] else []
    return Node(
        package="rviz2",
        executable="rviz2",
        # Its configuration names topics absolutely: these make them those of the node above.
        namespace=given["namespace"],
        remappings=[
            ("/image_raw", "mppe/debug_image" if is_true(given["debug_image"]) else image),
            ("/mppe/debug_image", "mppe/debug_image"),
            ("/mppe/markers", "mppe/markers"),
        ],
        arguments=["-d", PathJoinSubstitution([CONFIG, "mppe.rviz"]), *fixed_frame],
        parameters=sim_times,
    )


def camera_topics(camera: str, image_topic: str, camera_info_topic: str) -> dict[str, str]:
    """Remappings of the node's topics; a topic that is given wins over the camera's."""
    topics = {"image_raw": image_topic, "camera_info": camera_info_topic}
    if camera:
        base = camera.rstrip("/")
        topics = {name: topic or f"{base}/{name}" for name, topic in topics.items()}
    return {name: topic for name, topic in topics.items() if topic}


def is_true(text: str) -> bool:
    return text.lower() in ("true", "1")
