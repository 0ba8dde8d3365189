"""BlazePose's trunk, and its parameters from MediaPipe's model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mppe_ros.checkpoints import CheckpointError
from mppe_ros.cli.train import train
from mppe_ros.training.blazepose import load_blazepose
from mppe_ros.trunks import BlazePose


@pytest.mark.parametrize("size", [160, 192, 224, 256])
@torch.inference_mode()
def test_maps_have_their_strides_whatever_the_crop_s_size(size: int) -> None:
    features = BlazePose().eval()(torch.rand(2, 3, size, size))
    channels_of = BlazePose.pyramid_channels
    for stride, channels, maps in zip((8, 16, 32), channels_of, features[:3], strict=True):
        assert maps.shape == (2, channels, size // stride, size // stride)
    assert features.whole.shape == (2, BlazePose.whole_channels)


@pytest.mark.parametrize("content", [b"", b"no model", bytes(8) + b"TFL3"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pose_landmark_full.tflite"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no TFLite model: .* out of the wheel"):
        load_blazepose(BlazePose(), path)


@pytest.mark.parametrize("length", [0, 4, 500])
def test_a_damaged_model_is_refused(tmp_path: Path, length: int) -> None:
    pytest.importorskip("tflite")
    path = tmp_path / "pose_landmark_full.tflite"
    rng = np.random.default_rng(length)
    path.write_bytes(rng.bytes(4) + b"TFL3" + rng.bytes(length))
    with pytest.raises(CheckpointError, match="damaged|another model"):
        load_blazepose(BlazePose(), path)


def test_training_says_what_it_begins_with(tmp_path: Path) -> None:
    from test_training import write_crops

    data = write_crops(tmp_path / "data")
    words = ["open", "root_pose", "--data", str(data), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(train, words)
    assert result.exit_code == 1 and "mppe train blazepose MODEL" in result.output
