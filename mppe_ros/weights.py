"""Weight sets: what they are, where their files are, and how to load them.

A set names its files, its detector, what its networks expect to see and its licence. Files are
part of the package, the user's own by path, or in the cache folder (``$MPPE_CACHE``, else
``~/.cache/mppe_ros``), where ``mppe weights fetch`` or a person puts them. Only :func:`fetch` uses
the network.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .cache import cache_folder
from .checkpoints import CheckpointError, load_into, read_metadata, read_state_dict, sha256
from .inference import constants
from .networks import (
    DECODERS,
    DEPTH_BINS,
    DisjointRootPose,
    JointNet,
    JointRootPose,
    LiteJointNet,
    LiteJointRootPose,
    LitePoseNet,
    LiteRootNet,
    LiteRootPose,
    PoseNet,
    RootNet,
    SharedRootPose,
)
from .skeletons import (
    HUMAN36M_17,
    MUCO_21,
    SKELETONS,
    Skeleton,
    UnknownSkeletonError,
    skeleton_with,
)
from .structures import RootError
from .surface import SurfaceNet
from .trunks import TRUNKS

DEFAULT = "open-s"
SURFACE = "surface"  # the role of a `SurfaceNet`
RESOURCES = Path(__file__).parent / "resources"


@dataclass(frozen=True)
class CropSpec:
    """What root and pose networks expect to see: a property of the weights, not of the code."""

    size: int  # px
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_scale: float = 1.0  # grey values 0..255 are multiplied by this before mean and std
    antialias: bool = False
    ray_turn: tuple[float, float] = (0.0, 0.0)  # as `camera.back_project_pose` turns poses

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) grey values 0..255, RGB, as the networks expect them: float32."""
        pixels = pixels.float()
        mean, std = (constants(v, pixels)[:, None, None] for v in (self.mean, self.std))
        return (pixels * self.input_scale - mean) / std

    def metadata(self) -> dict[str, str]:
        """For the file of weights that expect it; :func:`from_files` reads it."""
        return {"crop": json.dumps(asdict(self))}

    @classmethod
    def of_file(cls, path: Path, otherwise: CropSpec | None = None) -> CropSpec:
        """What a file says of itself; of one that says nothing ``otherwise``, or the reference
        release's.

        :raises CheckpointError: something that is no such description.
        """
        written, usual = read_metadata(path).get("crop"), otherwise or REFERENCE_CROP
        if written is None:
            return usual
        try:
            # Older files say nothing of it.
            return cls.of_dict({"ray_turn": usual.ray_turn} | json.loads(written))
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path} describes its crops unintelligibly: {written}"
            ) from error

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> CropSpec:
        """The inverse of ``asdict``, of JSON too.

        :raises TypeError, KeyError: something that is no such description.
        """
        lists = {key: tuple(values[key]) for key in ("mean", "std", "ray_turn")}
        return cls(**dict(values) | lists)


@dataclass(frozen=True)
class WeightFile:
    """One file of a set. Without ``google_drive_id`` it is part of the package."""

    # detector, root, pose, or root_pose for both in one, surface; exported: the network's name
    role: str
    filename: str  # in the set's folder, or an absolute path
    sha256: str | None  # None: unknown until the first fetch records it
    google_drive_id: str | None = None


@dataclass(frozen=True)
class Exported:
    """What is special about networks that ``mppe export`` wrote."""

    form: str  # onnx or torchscript
    precision: str  # fp32 or fp16: it is built in
    device: str  # cpu or cuda, where TorchScript's networks run
    detector_size: int | None  # px, as `build_detector` takes it


RootPoseNetwork = (
    DisjointRootPose | JointRootPose | LiteJointRootPose | LiteRootPose | SharedRootPose
)


@dataclass(frozen=True)
class WeightSet:
    """A row of the registry."""

    name: str
    summary: str
    licence: str
    detector: str  # a row of detectors.DETECTORS
    files: tuple[WeightFile, ...]
    build: Callable[[Mapping[str, Path]], RootPoseNetwork]  # from paths by role
    crop: CropSpec
    root_error: RootError
    joints: str  # the joint set, or how it is found
    sharpness: float | None = None  # mean joint score of people, as `Pipeline` uses it
    exported: Exported | None = None  # its files are networks for another runtime

    def file(self, role: str) -> WeightFile | None:
        """The set's file for a role, if it has one of its own."""
        return next((file for file in self.files if file.role == role), None)


def _build_shared(paths: Mapping[str, Path]) -> SharedRootPose:
    network = SharedRootPose(HUMAN36M_17)
    load_into(network, read_state_dict(paths["root_pose"]), paths["root_pose"])
    return network.eval()


def _build_reference(paths: Mapping[str, Path]) -> DisjointRootPose | JointRootPose:
    root, pose = paths["root"], paths["pose"]
    if root == pose:
        return JointRootPose(read_joint_net(root)).eval()
    pose_net = read_pose_net(pose)
    return DisjointRootPose(read_root_net(root), pose_net, pose_net.skeleton).eval()


def _build_lite(paths: Mapping[str, Path]) -> LiteRootPose:
    root_net, pose_net = LiteRootNet(), LitePoseNet(MUCO_21)
    load_into(root_net, read_state_dict(paths["root"]), paths["root"])
    load_into(pose_net, read_state_dict(paths["pose"]), paths["pose"])
    return LiteRootPose(root_net, pose_net).eval()


def _build_lite_joint(paths: Mapping[str, Path]) -> LiteJointRootPose:
    net, path = LiteJointNet(MUCO_21), paths.get("root_pose") or paths["root"]
    load_into(net, read_state_dict(path), path)
    return LiteJointRootPose(net).eval()


def read_root_net(path: Path) -> RootNet:
    """A RootNet from a checkpoint of the reference release or of ours; trunk read off the file."""
    parameters = read_state_dict(path)
    if "root.depth_layer.weight" not in parameters:
        hint = " (it is a PoseNet)" if _pose_layer(parameters) else ""
        raise CheckpointError(f"{path} is not a RootNet{hint}: it has no root.depth_layer")
    network = RootNet(_trunk_name(parameters, path))
    load_into(network, _without(parameters, "head."), path)
    return network


def read_pose_net(path: Path) -> PoseNet:
    """A PoseNet; its trunk and its joint set are read off the file, as is its decoder."""
    parameters = read_state_dict(path)
    network = PoseNet(*_pose_options(parameters, path))
    load_into(network, _without(parameters, "root."), path)
    return network


def read_joint_net(path: Path) -> JointNet:
    """Both on one trunk, from one file."""
    parameters = read_state_dict(path)
    if "root.depth_layer.weight" not in parameters:
        raise CheckpointError(f"{path} is given as RootNet, too, but it has no root.depth_layer")
    network = JointNet(*_pose_options(parameters, path))
    load_into(network, parameters, path)
    return network


def _without(parameters: dict[str, torch.Tensor], head: str) -> dict[str, torch.Tensor]:
    """Files of joint learning have both heads; either network can be had from them."""
    return {name: value for name, value in parameters.items() if not name.startswith(head)}


# Pose heads: the convolution that tells the number of joints, and its channels per joint.
_POSE_HEADS = {
    "head.final_layer.weight": DEPTH_BINS,
    "head.stack_layers.0.weight": DEPTH_BINS,
    "head.coordinates.weight": 3,
}


def _pose_layer(parameters: Mapping[str, torch.Tensor]) -> str | None:
    return next((name for name in _POSE_HEADS if name in parameters), None)


def _pose_options(parameters: Mapping[str, torch.Tensor], path: Path) -> tuple[Skeleton, str, str]:
    """Joint set, trunk and decoder of a PoseNet."""
    layer = _pose_layer(parameters)
    if layer is None:
        hint = " (it is a RootNet)" if "root.depth_layer.weight" in parameters else ""
        raise CheckpointError(f"{path} is not a PoseNet{hint}: it has no head.final_layer")
    channels = len(parameters[layer])
    try:
        skeleton = skeleton_with(channels // _POSE_HEADS[layer])
    except UnknownSkeletonError as error:
        raise CheckpointError(f"{path} has {channels} output channels: {error}") from error
    decoder = read_metadata(path).get("decoder", "integral")
    if decoder not in DECODERS:
        raise CheckpointError(f"{path} has decoder {decoder!r}: none of {', '.join(DECODERS)}")
    return skeleton, _trunk_name(parameters, path), decoder


# (has bottlenecks, blocks in layer3) tells the ResNets apart.
_RESNETS = {
    (False, 2): "resnet18",
    (False, 6): "resnet34",
    (True, 6): "resnet50",
    (True, 23): "resnet101",
    (True, 36): "resnet152",
}


def _trunk_name(parameters: Mapping[str, torch.Tensor], path: Path) -> str:
    if "backbone.stem.weight" in parameters:
        return "efficientnet_lite0"
    if "backbone.hourglasses.0.up.layers.0.weight" in parameters:
        stacks = {name.split(".")[2] for name in parameters if ".hourglasses." in name}
        trunk: str | None = f"hourglass{len(stacks)}"
    else:
        blocks = {name.split(".")[2] for name in parameters if name.startswith("backbone.layer3.")}
        trunk = _RESNETS.get(("backbone.layer1.0.conv3.weight" in parameters, len(blocks)))
    if trunk not in TRUNKS:
        raise CheckpointError(f"{path} has a trunk that is none of {', '.join(TRUNKS)}")
    return trunk


# The release normalises 0..255 as if it were 0..1 (method.md, step 5), and so must its weights.
REFERENCE_CROP = CropSpec(256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# The same with what was meant: values 0..1.
UNIT_CROP = replace(REFERENCE_CROP, input_scale=1 / 255)

# What ``mppe train open`` trains its networks on; the joint one may have another size.
_LITE_CROP = CropSpec(128, mean=(127, 127, 127), std=(128, 128, 128), antialias=True)
# Whether a person is right or left of the axis no crop shows; whether the camera looks down on
# somebody it half shows.
BLAZEPOSE_CROP = CropSpec(
    192, mean=(0, 0, 0), std=(255, 255, 255), antialias=True, ray_turn=(1.0, 0.5)
)

# The rows of `mppe eval roots` (docs/covariance.md).
_OPEN_V0_ERROR = RootError(
    along=0.125,
    across_mm=43.0,
    tilt_rad=math.radians(8.8),
    heading_rad=math.radians(27),
    fused_mm=54.0,
    usual_score=0.66,
    blur=5.0,
)
# MRPE z, and x and y, of Human3.6M (paper, table 1): means of absolute errors, so 0.8 sigma. The
# rest is what `open-v0` has over all people.
_PAPER_ERROR = RootError(
    along=0.03,
    across_mm=29.0,
    tilt_rad=math.radians(11),
    heading_rad=math.radians(32),
    fused_mm=60.0,
)

_OPEN_S_ERROR = RootError(
    along=0.112,
    across_mm=30.0,
    tilt_rad=math.radians(8),
    heading_rad=math.radians(13.5),
    fused_mm=20.0,
    surface_mm=24.0,
    usual_score=0.7,
    blur=4.5,
)

SETS = {
    weight_set.name: weight_set
    for weight_set in (
        WeightSet(
            name="open-s",
            summary="small networks for CPUs, trained on generated people; part of the package",
            licence="Apache-2.0; trained on free parts alone (model card)",
            detector="open_s",
            files=(
                WeightFile(
                    "detector",
                    "detector.safetensors",
                    "550e0a7395dc6c258a29af9dfccb23536ba13dae6c0c705443e4dff4f907445d",
                ),
                WeightFile(
                    "root_pose",
                    "root_pose.safetensors",
                    "8bcc603cafe902d0dc8f34c164bb70c63903f9786a6a2f846f01d9efdaba4c6a",
                ),
                WeightFile(
                    SURFACE,
                    "surface.safetensors",
                    "a5eec012c14f9c17bb5d01cd0760726393c3f14698d8953aefd5b2a34ae5afa5",
                ),
            ),
            build=_build_lite_joint,
            crop=BLAZEPOSE_CROP,
            root_error=_OPEN_S_ERROR,
            joints=MUCO_21.name,
            sharpness=0.7,
        ),
        WeightSet(
            name="open-v0",
            summary="small networks for CPUs, trained on generated people; part of the package",
            licence="trained by us; motion clips of unestablished licence: not for products",
            detector="open_v0",
            files=(
                WeightFile(
                    "detector",
                    "detect.safetensors",
                    "89e67fe5982f1892e4b601b12b8f870b65790819bd6a9961eb20dd1e81381680",
                ),
                WeightFile(
                    "root_pose",
                    "root_pose.safetensors",
                    "912e4c99e65bb55d7c669a9efa05a579c456615269f6cb1ef300db5b16ee6549",
                ),
            ),
            build=_build_shared,
            crop=CropSpec(160, mean=(127, 127, 127), std=(128, 128, 128), antialias=True),
            root_error=_OPEN_V0_ERROR,
            joints=HUMAN36M_17.name,
        ),
        WeightSet(
            name="3dmppe",
            summary="the paper's published ResNet-50 networks (MuCo + COCO), 2 x 0.3 GB to fetch",
            licence="published for research; the data sets behind them forbid products",
            detector="maskrcnn_r50_fpn",
            files=(
                WeightFile(
                    "root", "snapshot_18.pth.tar", None, "1ZHoXNFxBBsmis-5Xzu7dfXYGNxjpntgt"
                ),
                WeightFile(
                    "pose", "snapshot_24.pth.tar", None, "1xjefKgjsH-W8v2lVn1Hbwzp2_Su7KtG0"
                ),
            ),
            build=_build_reference,
            crop=REFERENCE_CROP,
            root_error=_PAPER_ERROR,
            joints="read from the file: muco_21 (published) or human36m_18",
        ),
    )
}


def find(name: str) -> WeightSet:
    """A set of the registry by name; ``ROOTNET,POSENET``: two checkpoints by path; or the folder
    of exported networks.

    :raises CheckpointError: there is none of that name.
    """
    folder = Path(name).expanduser()
    if (folder / DESCRIPTION).is_file():
        return from_export(folder)
    if "," in name:
        root_net, _, pose_net = name.partition(",")
        return from_files(Path(root_net.strip()), Path(pose_net.strip()))
    if name not in SETS:
        what = f"{name} has no {DESCRIPTION}, so it holds no exported networks; weight sets"
        raise CheckpointError(
            f"{what if folder.is_dir() else f'no weight set is called {name!r}; there'} are: "
            f"{', '.join(SETS)}"
        )
    return SETS[name]


DESCRIPTION = "set.json"  # of exported networks
EXPORT_VERSION = 1


def from_export(folder: Path) -> WeightSet:
    """A set that ``mppe export`` wrote.

    :raises CheckpointError: its description is missing or damaged, or a newer version's.
    """
    path = folder / DESCRIPTION
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        version = told["version"]
        if version != EXPORT_VERSION:
            raise CheckpointError(
                f"{path} is of version {version}, this program reads version {EXPORT_VERSION}: "
                "run 'mppe export' again"
            )
        files = []
        surface_net = told.get(SURFACE)  # older versions say nothing of it
        for name, file in (told["networks"] | {SURFACE: surface_net}).items():
            if file is None:
                continue
            filename = str(file["file"])
            if Path(filename).name != filename:
                raise ValueError(f"{filename!r} is not in this folder")
            files.append(WeightFile(name, str((folder / filename).absolute()), file["sha256"]))
        exported = Exported(
            **{key: told[key] for key in ("form", "precision", "device", "detector_size")}
        )
        return WeightSet(
            name=str(told["name"]),
            summary=f"exported as {exported.form}",
            licence=str(told["licence"]),
            detector=str(told["detector"]),
            files=tuple(files),
            build=_no_build,
            crop=CropSpec.of_dict(told["crop"]),
            root_error=RootError(**told["root_error"]),
            joints=SKELETONS[told["joints"]].name,
            sharpness=told["sharpness"],
            exported=exported,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} doesn't describe exported networks ({type(error).__name__}: {error}): run "
            "'mppe export' again"
        ) from error


def _no_build(_: Mapping[str, Path]) -> RootPoseNetwork:
    raise CheckpointError("exported networks can only be run: give the set they were made of")


def from_files(root_net: Path, pose_net: Path) -> WeightSet:
    """A set of two checkpoints, wherever they are: the reference release's or ``mppe train``'s.

    :raises CheckpointError: a file that cannot be read.
    """
    root_net, pose_net = root_net.expanduser(), pose_net.expanduser()
    base = SETS["3dmppe"]
    if "pyramid.mix8.weight" in read_state_dict(root_net):
        joint = root_net == pose_net
        base = replace(
            SETS["open-s"],
            build=_build_lite_joint if joint else _build_lite,
            sharpness=SETS["open-s"].sharpness if joint else None,
            crop=CropSpec.of_file(root_net, BLAZEPOSE_CROP) if joint else _LITE_CROP,
        )
    else:
        base = replace(base, crop=CropSpec.of_file(root_net))
        if base.crop != CropSpec.of_file(pose_net):
            raise CheckpointError(
                f"{root_net} and {pose_net} were trained on crops of different kinds: "
                f"{base.crop}, {CropSpec.of_file(pose_net)}"
            )
    return replace(
        base,
        name=f"{root_net.name}+{pose_net.name}",
        summary="checkpoints given by path",
        licence="unknown",
        files=(
            WeightFile("root", str(root_net.absolute()), None),
            WeightFile("pose", str(pose_net.absolute()), None),
        ),
    )


def read_surface_net(paths: Mapping[str, Path], weight_set: WeightSet) -> SurfaceNet | None:
    """What improves the set's roots by depth images; None of sets that have no such network.

    :param paths: by role, of `locate`.
    :raises CheckpointError: a file of another network.
    """
    path = paths.get(SURFACE)
    return SurfaceNet.load(path, SKELETONS[weight_set.joints]) if path else None


def path_of(weight_set: WeightSet, file: WeightFile) -> Path:
    """Where a file is, or belongs."""
    if file.google_drive_id is None:
        return RESOURCES / weight_set.name / file.filename
    return cache_folder() / weight_set.name / file.filename


def locate(weight_set: WeightSet) -> dict[str, Path]:
    """Paths by role, each file there.

    :raises CheckpointError: a file is missing; the message says how to get it.
    """
    paths = {file.role: path_of(weight_set, file) for file in weight_set.files}
    for path in paths.values():
        if not path.is_file():
            raise CheckpointError(
                f"weight set {weight_set.name} is not here: {path} is missing{_remedy(weight_set)}"
            )
    return paths


def _remedy(weight_set: WeightSet) -> str:
    if any(file.google_drive_id for file in weight_set.files):
        return (
            f"; run 'mppe weights fetch {weight_set.name}' where there is internet, or place the "
            f"files by hand: {by_hand(weight_set)}"
        )
    return ""


def by_hand(weight_set: WeightSet) -> str:
    """How to get a set's files without this program: one sentence per file."""
    return "; ".join(
        f"https://drive.google.com/uc?id={file.google_drive_id} as {path_of(weight_set, file)}"
        for file in weight_set.files
        if file.google_drive_id
    )


def model_card(weight_set: WeightSet) -> str:
    """What the set was made of and what it can do, Markdown; empty for sets of other people."""
    card = RESOURCES / weight_set.name / "README.md"
    return card.read_text() if card.is_file() else ""


def digests(weight_set: WeightSet) -> dict[str, str | None]:
    """SHA-256 by file name as it must be; None where it was never seen."""
    recorded = _read_digests(weight_set)
    return {file.filename: file.sha256 or recorded.get(file.filename) for file in weight_set.files}


def verify(weight_set: WeightSet) -> str:
    """Compare the files' digests and record those never seen before.

    :return: eight hexadecimal digits that identify the set's files.
    :raises CheckpointError: a file is missing or is not the one it was.
    """
    paths = locate(weight_set)
    expected = digests(weight_set)
    actual = {}
    for file in weight_set.files:
        actual[file.filename] = sha256(paths[file.role])
        wanted = expected[file.filename]
        if wanted not in (None, actual[file.filename]):
            raise CheckpointError(
                f"{paths[file.role]} has changed or is damaged: SHA-256 "
                f"{actual[file.filename]}, expected {wanted}; delete it and fetch it again"
            )
    fetched = {file.filename for file in weight_set.files if file.google_drive_id}
    if any(expected[filename] is None for filename in fetched):
        _record_digests(weight_set, {filename: actual[filename] for filename in fetched})
    return hashlib.sha256("".join(actual.values()).encode()).hexdigest()[:8]


def fetch(weight_set: WeightSet) -> list[Path]:
    """Download what is missing of a set, then verify it. Needs internet and ``gdown``.

    :return: the files that were downloaded.
    :raises CheckpointError: no network, no ``gdown``, or a file that is not the one it was.
    """
    downloaded = []
    for file in weight_set.files:
        path = path_of(weight_set, file)
        if file.google_drive_id and not path.is_file():
            _download(file.google_drive_id, path, weight_set)
            downloaded.append(path)
    verify(weight_set)
    return downloaded


def _download(google_drive_id: str, path: Path, weight_set: WeightSet) -> None:
    try:
        import gdown
    except ImportError as error:
        raise CheckpointError(
            "fetching needs the package gdown: pip install gdown; or place the files by hand: "
            + by_hand(weight_set)
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        gdown.download(id=google_drive_id, output=str(partial))
        if not partial.is_file():
            raise OSError("nothing was downloaded")
        # A half-written file must never be taken for weights.
        partial.replace(path)
    except Exception as error:  # gdown raises requests' errors, OSError and its own
        raise CheckpointError(
            f"{path.name} could not be downloaded ({type(error).__name__}); check the network, "
            f"or place the files by hand: {by_hand(weight_set)}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _digest_file(weight_set: WeightSet) -> Path:
    return cache_folder() / weight_set.name / "sha256.json"


def _read_digests(weight_set: WeightSet) -> dict[str, str]:
    path = _digest_file(weight_set)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
        return {str(name): str(digest) for name, digest in content.items()}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: delete it to record the files anew") from error


def _record_digests(weight_set: WeightSet, recorded: Mapping[str, str]) -> None:
    path = _digest_file(weight_set)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps({**_read_digests(weight_set), **recorded}, indent=1))
    partial.replace(path)
