"""What a training run is: frozen dataclasses, written and read as YAML.

A preset is a file in ``presets/``, which may build on another one (``base``); a run keeps its own
copy. To add an option, give a dataclass a
field with a default: old files stay readable, and unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from ..datasets import DATASETS
from ..detectors import DETECTORS
from ..devices import PRECISIONS
from ..networks import DECODERS
from ..skeletons import SKELETONS
from ..trunks import TRUNKS, BlazePose

PRESETS = Path(__file__).parent / "presets"


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class Optimisation:
    """How parameters change. The clock is the number of samples seen, never wall time."""

    batch_size: int = 64  # of each process
    total_samples: int = 1_000_000  # 0: as many as there are in
    epochs: int = 0  # passes over the data
    head_rate: float = 1.5e-3  # learning rates, before the schedule
    trunk_rate: float = 1.5e-4
    frozen_blocks: int = 5  # of the trunk, beside its stem
    weight_decay: float = 1e-2
    schedule: str = "cosine"  # or "step"
    steps_at: tuple[float, ...] = ()  # "step": fractions of the run where rates fall to a tenth
    warmup_samples: int = 20_000
    clip_norm: float = 1.0  # of the gradient; 0: not limited
    average_samples: int = 25_000  # time constant of the parameters' moving average; 0: none
    precision: str = "bf16"  # of the convolutions: fp32, bf16 or fp16

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "step"):
            raise ConfigError(f"schedule {self.schedule!r} is neither cosine nor step")
        _check_name("precision", self.precision, PRECISIONS)
        if not (self.total_samples or self.epochs):
            raise ConfigError("total_samples and epochs are both 0: how long shall it last?")


@dataclass(frozen=True)
class Augmentation:
    """How samples vary beyond what the generator drew. Shares are of all samples."""

    flip: float = 0.5  # share mirrored
    rotate: float = 0.4  # share turned, by a normal angle of this many degrees:
    rotate_deg: float = 12.0
    zoom: tuple[float, float] = (0.8, 1.1)  # part of the square that is shown
    shift: float = 0.04  # of the side, standard deviation
    low_resolution: float = 0.1  # share shrunk to a quarter .. nine tenths and enlarged again
    gain: float = 0.15  # standard deviation of the log of brightness; of each channel a third
    bias: float = 8.0  # grey values
    saturation: float = 0.2  # share whose colours are weakened or strengthened
    erase: float = 0.3  # share with a rectangle of one colour or of noise
    blur: float = 0.1  # share
    noise: float = 0.15  # share, up to noise_grey:
    noise_grey: float = 12.0
    # As the reference release does it, beside or instead of the above:
    rotate_max_deg: float = 180.0  # larger angles are cut to this
    zoom_spread: float = 0.0  # if not 0: zoom is 1 + a normal number, cut at one deviation
    colour: float = 0.0  # each channel is multiplied by 1 ± up to this
    occlude: float = 0.0  # share with a rectangle of noise, up to seven tenths of the crop's area


@dataclass(frozen=True)
class Recording:
    """How often a run looks at itself."""

    log_samples: int = 4096
    validate_samples: int = 50_000
    validation_count: int = 2048  # samples
    snapshot_samples: int = 100_000
    checkpoint_minutes: float = 5.0


@dataclass(frozen=True)
class Config:
    """What all runs have; tasks add their own."""

    task: str = ""
    seed: int = 1
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    recording: Recording = field(default_factory=Recording)


@dataclass(frozen=True)
class CropConfig(Config):
    """What networks on crops of single people have in common."""

    crop_size: int = 128  # px, of the weight set
    skeleton: str = "muco_21"

    def __post_init__(self) -> None:
        if self.skeleton not in SKELETONS:
            raise ConfigError(f"skeleton {self.skeleton!r} is none of {', '.join(SKELETONS)}")
        _check_sizes(self.crop_size)


@dataclass(frozen=True)
class RootConfig(CropConfig):
    """RootNet on crops."""

    task: str = "root"
    image_size: int = 96  # px, to which the crop is shrunk
    channels: int = 48
    gamma_channels: int = 384
    gamma_weight: float = 0.5  # of the relative error of γ against that of u and v

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.image_size)


@dataclass(frozen=True)
class PoseConfig(CropConfig):
    """PoseNet on crops."""

    task: str = "pose"
    channels: int = 128
    z_weight: float = 1.0
    hidden_weight: float = 0.5  # of joints that something hides, against visible ones


@dataclass(frozen=True)
class RootPoseConfig(PoseConfig):
    """RootNet and PoseNet on one trunk."""

    task: str = "root_pose"
    crop_size: int = 192  # px
    gamma_channels: int = 384
    gamma_weight: float = 0.3  # of the relative error of γ against that of the joints

    def __post_init__(self) -> None:
        super().__post_init__()
        if not BlazePose.MIN_SIZE <= self.crop_size <= BlazePose.MAX_SIZE:
            raise ConfigError(
                f"crops of {self.crop_size} px: {self.task} takes {BlazePose.MIN_SIZE} to "
                f"{BlazePose.MAX_SIZE}"
            )


@dataclass(frozen=True)
class DetectorConfig(Config):
    """DetectNet on scenes."""

    task: str = "detector"
    channels: int = 96
    # px, width and height; each batch has one of them, validation the first
    sizes: tuple[tuple[int, int], ...] = ((384, 288), (288, 384), (384, 224), (320, 256))
    part: tuple[float, float] = (0.45, 1.0)  # how much of a scene's sides is shown
    min_box_px: int = 12  # network px: less high or wide is neither to be found nor wrong
    box_weight: float = 5.0  # of GIoU against the centres' focal loss

    def __post_init__(self) -> None:
        _check_sizes(*(side for size in self.sizes for side in size))


# ---------------------------------------------------------------- the paper's networks


@dataclass(frozen=True)
class ReferenceConfig(CropConfig):
    """What the paper's networks have in common (docs/training.md)."""

    crop_size: int = 256  # px
    trunk: str = "resnet50"
    pretrained: bool = True  # the trunk begins with ImageNet's weights; hourglasses have none
    # How grey values 0..255 are scaled before mean and std: to 0..1, or not, as the published
    # networks had it. The exported file says which, and the core does as it says.
    input_scale: str = "unit"
    # Half of each batch is of these data sets,
    sets_3d: tuple[str, ...] = ("muco",)
    sets_2d: tuple[str, ...] = ("mscoco",)  # and half of these, without depth; none: all 3D
    protocol: int = 2  # of Human3.6M: whom the training takes
    validation_set: str = ""  # and its split, for figures on the way
    validation_split: str = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_name("trunk", self.trunk, TRUNKS)
        _check_name("input_scale", self.input_scale, ("unit", "reference"))
        for name in (*self.sets_3d, *self.sets_2d, *filter(None, [self.validation_set])):
            _check_name("data set", name, DATASETS)
        if flat := [name for name in self.sets_3d if not DATASETS[name].has_depth]:
            raise ConfigError(f"{flat[0]} has no depth: it belongs to sets_2d")
        if self.validation_set and not DATASETS[self.validation_set].has_depth:
            raise ConfigError(f"validation_set {self.validation_set} has no depth to compare with")
        if not self.sets_3d:
            raise ConfigError("sets_3d is empty: depth cannot be learnt without it")
        if self.trunk.startswith("hourglass") and self.crop_size % 64:
            raise ConfigError(f"{self.trunk} takes multiples of 64 px, not {self.crop_size}")


@dataclass(frozen=True)
class RootNetConfig(ReferenceConfig):
    """The paper's RootNet (section 5)."""

    task: str = "rootnet"
    z_weight: float = 1.0  # of an error of one mm in depth, against one heatmap cell


@dataclass(frozen=True)
class PoseNetConfig(ReferenceConfig):
    """The paper's PoseNet (section 6), and what integral regression is compared with."""

    task: str = "posenet"
    decoder: str = "integral"
    sigma_cells: float = 2.0  # of the Gaussians that decoder "gaussian" imitates

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_name("decoder", self.decoder, DECODERS)
        if self.decoder == "regression" and self.trunk.startswith("hourglass"):
            raise ConfigError("decoder regression has no maps, which stacked hourglasses pass on")


@dataclass(frozen=True)
class JointConfig(PoseNetConfig, RootNetConfig):
    """Both on one trunk: the ablation "joint learning" (table 1)."""

    task: str = "joint"


@dataclass(frozen=True)
class DetectNetConfig(DetectorConfig):
    """A detector of the core's table, on pictures with boxes in COCO's layout."""

    task: str = "detectnet"
    detector: str = "maskrcnn_r50_fpn"
    pretrained: bool = True  # begins with the weights of the detector's row
    min_size: int = 0  # px to which a picture's shorter side is scaled; 0: the detector's own
    # In the folder of the data; no validation if that is empty.
    annotations: str = "annotations/person_keypoints_train2017.json"
    images: str = "images/train2017"
    validation_annotations: str = "annotations/person_keypoints_val2017.json"
    validation_images: str = "images/val2017"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_name("detector", self.detector, DETECTORS)


def _check_name(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ConfigError(f"{what} {name!r} is none of {', '.join(known)}")


def _check_sizes(*sides: int) -> None:
    """The trunk halves its input five times."""
    for side in sides:
        if side <= 0 or side % 32:
            raise ConfigError(f"an image side of {side} px is no multiple of 32")


OPEN_CONFIGS: dict[str, type[Config]] = {
    "root": RootConfig,
    "pose": PoseConfig,
    "root_pose": RootPoseConfig,
    "detector": DetectorConfig,
}
REFERENCE_CONFIGS: dict[str, type[Config]] = {
    "rootnet": RootNetConfig,
    "posenet": PoseNetConfig,
    "joint": JointConfig,
    "detectnet": DetectNetConfig,
}
CONFIGS = OPEN_CONFIGS | REFERENCE_CONFIGS


def read_config(name_or_path: str | Path) -> Config:
    """A configuration from a preset's name or a YAML file.

    :raises ConfigError: no such preset or file, bad YAML, unknown key, value of another type.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = PRESETS / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ConfigError(f"{name_or_path} is neither a file nor a preset; presets: {_presets()}")
    return config_from(_read_content(path), str(path))


def _read_content(path: Path) -> Any:
    """A file's keys and values, on top of those of the preset that its ``base`` names."""
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict) or "base" not in content:
        return content
    base = PRESETS / f"{content.pop('base')}.yaml"
    if not base.is_file():
        raise ConfigError(f"{path}: base {base.stem!r} is none of the presets: {_presets()}")
    return _merged(_read_content(base), content)


def _merged(base: Any, content: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(content, dict)):
        return content
    return base | {key: _merged(base.get(key), value) for key, value in content.items()}


def _presets() -> str:
    return ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))


def counted(config: Config, samples: int) -> Config:
    """With ``total_samples``, where it is to be that of so many epochs of ``samples``."""
    options = config.optimisation
    if options.total_samples:
        return config
    options = replace(options, total_samples=options.epochs * samples)
    return replace(config, optimisation=options)


def config_from(content: Any, source: str) -> Config:
    """A configuration from plain data; ``source`` is named in errors."""
    task = content.get("task") if isinstance(content, dict) else None
    if task not in CONFIGS:
        raise ConfigError(f"{source}: 'task' must be one of {', '.join(CONFIGS)}, got {task!r}")
    config: Config = _value(CONFIGS[task], content, source)
    return config


def to_yaml(config: Config) -> str:
    """The whole configuration, defaults included."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(config: Config) -> dict[str, Any]:
    """As YAML and JSON have it: tuples are lists."""
    content: dict[str, Any] = _lists(asdict(config))
    return content


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _value(wanted: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``wanted``: a dataclass, a tuple, or a plain type."""
    if is_dataclass(wanted) and isinstance(wanted, type):
        return _instance(wanted, value, where)
    if get_origin(wanted) is tuple:
        return _tuple(get_args(wanted), value, where)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        raise ConfigError(f"{where}: expected {wanted.__name__}, got {value!r}")
    return value


def _instance(wanted: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected keys and values, got {value!r}")
    known = {item.name for item in fields(wanted)}
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {unknown[0]!r}; there are: {', '.join(sorted(known))}"
        )
    types = get_type_hints(wanted)
    given = {key: _value(types[key], item, f"{where}: {key}") for key, item in value.items()}
    try:
        return wanted(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, got {value!r}")
    types = [items[0]] * len(value) if items[-1] is Ellipsis else list(items)
    if len(types) != len(value):
        raise ConfigError(f"{where}: expected {len(types)} values, got {value!r}")
    return tuple(_value(kind, item, where) for kind, item in zip(types, value, strict=True))
