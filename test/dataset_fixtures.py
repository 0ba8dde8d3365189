"""Miniature data sets in the layouts of the reference release, made of seeded numbers.

Each function fills a folder and returns it. The people are stick figures with the proportions of
adults, so that boxes, joints, cameras and depths fit together as in the real data; the images are
noise with the bones drawn in. Nothing of a real data set is in here.
"""

import json

import cv2
import numpy as np
from scipy.io import savemat

from mppe_ros import skeletons
from mppe_ros.datasets.human36m import ACTIONS, SUBJECTS
from mppe_ros.skeletons import COCO_19, HUMAN36M_17, MPII_16, MUCO_21, MUPOTS_17, SMPL_24

WIDTH, HEIGHT = 320, 240
FOCAL = np.array([300.0, 305.0])
CENTRE = np.array([160.5, 119.0])

# A person who stands with spread arms; mm, y down, z away from the viewer.
PERSON = {
    "Pelvis": (0, 0, 0), "R_Hip": (-130, 10, 0), "L_Hip": (130, 10, 0),
    "R_Knee": (-150, 450, -40), "L_Knee": (150, 450, -60),
    "R_Ankle": (-160, 880, 30), "L_Ankle": (170, 880, 20),
    "R_Toe": (-180, 930, -110), "L_Toe": (190, 930, -120),
    "Torso": (0, -230, 10), "Spine": (0, -240, 12), "Chest": (0, -330, 15),
    "Thorax": (0, -470, 5), "Neck": (0, -500, 0), "L_Thorax": (70, -450, 5),
    "R_Thorax": (-70, -450, 5), "Head": (0, -640, -20), "Head_top": (0, -740, -10),
    "Nose": (0, -590, -110), "L_Eye": (35, -620, -100), "R_Eye": (-35, -620, -100),
    "L_Ear": (80, -610, -10), "R_Ear": (-80, -610, -10),
    "L_Shoulder": (180, -460, 10), "R_Shoulder": (-180, -460, 10),
    "L_Elbow": (420, -380, -30), "R_Elbow": (-430, -390, -20),
    "L_Wrist": (640, -300, -90), "R_Wrist": (-650, -310, -80),
    "L_Hand": (710, -280, -110), "R_Hand": (-720, -290, -100),
}  # fmt: skip


def person_mm(names, rng, centre_mm):
    """(J, 3): the figure, turned about the vertical, shaken, and put somewhere."""
    angle = rng.uniform(-np.pi, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    figure = np.array([PERSON[name] for name in names], float) * rng.uniform(0.9, 1.1)
    turned = figure @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    return turned + rng.normal(0, 15, turned.shape) + centre_mm


def to_pixels(points_mm, focal=FOCAL, centre=CENTRE):
    """(..., 3) to (..., 2)."""
    return points_mm[..., :2] / points_mm[..., 2:] * focal + centre


def box_of(joints_px):
    """Left, top, width, height with a margin, as the reference's converter makes them."""
    low, high = joints_px.min(0), joints_px.max(0)
    size = (high - low) * 1.2
    return [*((low + high - size) / 2).tolist(), *size.tolist()]


def inside(joints_px):
    return ((joints_px >= 0) & (joints_px < (WIDTH, HEIGHT))).all(-1)


def somewhere(rng, x_mm=0.0):
    return np.array([x_mm + rng.uniform(-200, 200), rng.uniform(-100, 100), rng.uniform(3e3, 5e3)])


def write_picture(path, people_px, names, rng):
    """A noisy picture with stick figures; bones between all joints that follow each other."""
    picture = rng.integers(90, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    known = [one for one in vars(skeletons).values() if isinstance(one, skeletons.Skeleton)]
    bones = next(one.bones for one in known if one.joint_names == tuple(names))
    for joints in people_px:
        for a, b in bones:
            ends = [tuple(int(x) for x in np.rint(joints[index])) for index in (a, b)]
            cv2.line(picture, *ends, (40, 180, 230), 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


# --- Human3.6M -----------------------------------------------------------------------------------


def human36m(folder, seed=0, subjects=SUBJECTS[1, "train"] + SUBJECTS[1, "test"],
             frames=(0, 5, 64), actions=(2, 3)):  # fmt: skip
    """Two cameras, two actions, three frames each; frames 0 and 5 train, 0 and 64 test."""
    rng = np.random.default_rng(seed)
    number = 0
    for subject in subjects:
        cameras = {str(index): _extrinsics(rng, index) for index in (1, 2)}
        joints = {}
        images, annotations = [], []
        for action in actions:
            for frame in frames:
                world = person_mm(HUMAN36M_17.joint_names, rng, np.array([0.0, 0.0, 0.0]))
                joints.setdefault(str(action), {}).setdefault("1", {})[str(frame)] = world.tolist()
                for index in (1, 2):
                    lens = cameras[str(index)]
                    camera_mm = world @ np.array(lens["R"]).T + lens["t"]
                    pixels = to_pixels(camera_mm, np.array(lens["f"]), np.array(lens["c"]))
                    stem = f"s_{subject:02d}_act_{action:02d}_subact_01_ca_{index:02d}"
                    name = f"{stem}/{stem}_{frame + 1:06d}.jpg"
                    images.append({
                        "id": number, "file_name": name, "width": WIDTH, "height": HEIGHT,
                        "subject": subject, "action_name": ACTIONS[action - 2],
                        "action_idx": action, "subaction_idx": 1, "cam_idx": index,
                        "frame_idx": frame,
                    })  # fmt: skip
                    annotations.append({
                        "id": number, "image_id": number, "bbox": box_of(pixels),
                        "keypoints_vis": inside(pixels).tolist(),
                    })  # fmt: skip
                    write_picture(folder / "images" / name, [pixels], HUMAN36M_17.joint_names, rng)
                    number += 1
        content = {
            "data": {"images": images, "annotations": annotations},
            "camera": cameras,
            "joint_3d": joints,
        }
        for kind, one in content.items():
            write_json(folder / "annotations" / f"Human36M_subject{subject}_{kind}.json", one)
    return folder


def _extrinsics(rng, index):
    """A camera some metres away that looks at the origin; R x + t, mm."""
    angle = rng.uniform(-np.pi, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    return {
        "R": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "t": [20.0 * index, -30.0, 4200.0 + 300 * index],
        "f": FOCAL.tolist(),
        "c": CENTRE.tolist(),
    }


# --- MuCo and generated scenes -------------------------------------------------------------------


def muco(folder, seed=0, images=4):
    """Two people far apart in each image."""
    content = _composited(folder / "data", seed, images, "augmented_set/{:06d}.jpg")
    write_json(folder / "data" / "MuCo-3DHP.json", content)
    (folder / "data" / "unaugmented_set").mkdir(exist_ok=True)
    return folder


def synthetic(folder, seed=0, images=4):
    """As `mppe synth scenes` writes it; the second person of the last image is hardly visible."""
    content = _composited(folder, seed, images, "part-00000/{:07d}.jpg")
    content["categories"] = [{"id": 1, "keypoints": list(MUCO_21.joint_names)}]
    for image in content["images"]:
        image |= {"distortion_model": "none", "distortion": []}
    for one in content["annotations"]:
        one |= {"iscrowd": 0, "visible_fraction": 1.0}
    content["annotations"][-1] |= {"iscrowd": 1, "visible_fraction": 0.1}
    write_json(folder / "annotations.json", content)
    return folder


def _composited(folder, seed, count, pattern):
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(count):
        people = [person_mm(MUCO_21.joint_names, rng, somewhere(rng, x)) for x in (-900, 900)]
        pixels = [to_pixels(one) for one in people]
        name = pattern.format(number)
        write_picture(folder / name, pixels, MUCO_21.joint_names, rng)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT,
                       "f": FOCAL.tolist(), "c": CENTRE.tolist()})  # fmt: skip
        annotations += [
            {"id": 10 * number + index, "image_id": number, "bbox": box_of(joints_px),
             "keypoints_img": joints_px.tolist(), "keypoints_cam": joints_mm.tolist(),
             "keypoints_vis": inside(joints_px).tolist()}
            for index, (joints_mm, joints_px) in enumerate(zip(people, pixels, strict=True))
        ]  # fmt: skip
    return {"images": images, "annotations": annotations}


# --- 2D ------------------------------------------------------------------------------------------


def mpii(folder, seed=0, images=4):
    """One person per image, the right wrist not labelled."""
    rng = np.random.default_rng(seed)
    unlabelled = MPII_16.joint_names.index("R_Wrist")
    entries, annotations = [], []
    for number in range(images):
        pixels = to_pixels(person_mm(MPII_16.joint_names, rng, somewhere(rng)))
        name = f"images/{number:09d}.jpg"
        write_picture(folder / name, [pixels], MPII_16.joint_names, rng)
        entries.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        annotations.append(_flat(number, number, pixels, unlabelled))
    write_json(folder / "annotations" / "train.json",
               {"images": entries, "annotations": annotations})  # fmt: skip
    return folder


def mscoco(folder, seed=0, images=4, splits=("train", "val")):
    """One person per image, the left hip not labelled, and in the first a crowd and a stranger
    without keypoints."""
    rng = np.random.default_rng(seed)
    names = COCO_19.joint_names[:17]
    unlabelled = names.index("L_Hip")
    for split in splits:
        entries, annotations = [], []
        for number in range(images):
            pixels = to_pixels(person_mm(COCO_19.joint_names, rng, somewhere(rng)))
            name = f"{number:012d}.jpg"
            write_picture(folder / "images" / f"{split}2017" / name, [pixels],
                          COCO_19.joint_names, rng)  # fmt: skip
            entries.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            annotations.append(
                {**_flat(number, number, pixels[:17], unlabelled), "category_id": 1}
            )
        nobody = {"image_id": 0, "bbox": [10, 10, 50, 50], "keypoints": [0] * 51, "category_id": 1}
        annotations += [{**nobody, "id": 900, "iscrowd": 1, "num_keypoints": 0},
                        {**nobody, "id": 901, "iscrowd": 0, "num_keypoints": 0}]  # fmt: skip
        write_json(folder / "annotations" / f"person_keypoints_{split}2017.json",
                   {"images": entries, "annotations": annotations})  # fmt: skip
    return folder


def _flat(number, image, joints_px, unlabelled):
    keypoints = np.concatenate([np.rint(joints_px), np.full((len(joints_px), 1), 2)], 1)
    keypoints[unlabelled] = 0
    return {"id": number, "image_id": image, "bbox": box_of(joints_px), "iscrowd": 0,
            "keypoints": keypoints.ravel().tolist(),
            "num_keypoints": len(joints_px) - 1}  # fmt: skip


# --- MuPoTS-3D -----------------------------------------------------------------------------------


def mupots(folder, seed=0, sequences=20, frames=2):
    """Two people per frame; in TS1's second frame one is not valid, in TS2's second nobody."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(1, sequences + 1):
        cells = np.empty((frames, 2), object)
        for frame in range(frames):
            image = len(images)
            name = f"TS{number}/img_{frame:06d}.jpg"
            images.append({"id": image, "file_name": name, "width": WIDTH, "height": HEIGHT,
                           "intrinsic": [*FOCAL.tolist(), *CENTRE.tolist()]})  # fmt: skip
            drawn = []
            for index, x in enumerate((-900, 900)):
                joints_mm = person_mm(MUPOTS_17.joint_names, rng, somewhere(rng, x))
                pixels = to_pixels(joints_mm)
                valid = not (frame == 1 and (number, index) in ((1, 1), (2, 0), (2, 1)))
                annotations.append({
                    "id": len(annotations), "image_id": image, "is_valid": int(valid),
                    "bbox": box_of(pixels), "keypoints_img": pixels.tolist(),
                    "keypoints_cam": joints_mm.tolist(),
                    "keypoints_vis": inside(pixels).tolist(),
                })  # fmt: skip
                cells[frame, index] = {
                    "annot2": pixels.T, "annot3": joints_mm.T,
                    # The universal skeleton: all people of the same height, at the same place.
                    "univ_annot3": (joints_mm * 1.02).T,
                    "isValidFrame": np.array([[float(valid)]]),
                }  # fmt: skip
                drawn.append(pixels)
            path = folder / "data" / "MultiPersonTestSet" / name
            write_picture(path, drawn, MUPOTS_17.joint_names, rng)
        savemat(path.parent / "annot.mat", {"annotations": cells})
    write_json(folder / "data" / "MuPoTS-3D.json", {"images": images, "annotations": annotations})
    return folder


# --- 3DPW ----------------------------------------------------------------------------------------


def pw3d(folder, seed=0, images=3, splits=("train", "validation", "test")):
    """One person per image; metres."""
    rng = np.random.default_rng(seed)
    for split in splits:
        entries, annotations = [], []
        for number in range(images):
            joints_mm = person_mm(SMPL_24.joint_names, rng, somewhere(rng))
            pixels = to_pixels(joints_mm)
            sequence, name = f"street_{split}_00", f"image_{number:05d}.jpg"
            path = folder / "imageFiles" / sequence / name
            write_picture(path, [pixels], SMPL_24.joint_names, rng)
            entries.append({
                "id": number, "file_name": name, "sequence": sequence,
                "width": WIDTH, "height": HEIGHT,
                "cam_param": {"focal": FOCAL.tolist(), "princpt": CENTRE.tolist()},
            })  # fmt: skip
            annotations.append({"id": number, "image_id": number, "bbox": box_of(pixels),
                                "joint_cam": (joints_mm / 1000).ravel().tolist()})  # fmt: skip
        write_json(folder / "data" / f"3DPW_{split}.json",
                   {"images": entries, "annotations": annotations})  # fmt: skip
    return folder


MAKERS = {"human36m": human36m, "muco": muco, "mpii": mpii, "mscoco": mscoco, "mupots": mupots,
          "3dpw": pw3d, "synthetic": synthetic}  # fmt: skip
