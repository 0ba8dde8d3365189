"""A program beside the node: python neighbour.py camera|listener NAMESPACE RATE_HZ

A camera sends small grey images and its camera_info; a listener subscribes to all that the node
publishes and never reads. Both say "ready" and live until they are ended.
"""

import sys
import time

import numpy as np
import rclpy
from node_rig import FRAME_ID, make_image, make_info
from rclpy.qos import HistoryPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import MarkerArray

from mppe_ros.msg import Pose3DArray

PICTURE = np.full((48, 64, 3), 90, np.uint8)


def be_camera(node, rate_hz):
    images = node.create_publisher(Image, "image_raw", 5)
    infos = node.create_publisher(CameraInfo, "camera_info", 5)
    image, info = make_image(PICTURE), make_info(PICTURE)
    print("ready", flush=True)
    while rclpy.ok():
        for publisher, message in ((infos, info), (images, image)):
            message.header.frame_id = FRAME_ID
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)
        time.sleep(1 / rate_hz)


def be_listener(node, rate_hz):
    everything = QoSProfile(history=HistoryPolicy.KEEP_ALL)
    kinds = (Pose3DArray, "poses"), (MarkerArray, "markers"), (Image, "debug_image")
    kept = [
        node.create_subscription(kind, f"mppe/{name}", print, everything) for kind, name in kinds
    ]
    print("ready", flush=True)
    while rclpy.ok() and kept:
        time.sleep(1 / rate_hz)


def main():
    kind, namespace, rate_hz = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node(kind, namespace=namespace)
    {"camera": be_camera, "listener": be_listener}[kind](node, float(rate_hz))


if __name__ == "__main__":
    main()
