"""Joint sets: consistent, and those of the method."""

import pytest

from mppe_ros.skeletons import LIMB_JOINTS, SKELETONS, UnknownSkeletonError, skeleton_with


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_joint_sets_are_consistent(skeleton) -> None:
    count = len(skeleton)
    assert len(set(skeleton.joint_names)) == count
    assert skeleton.joint_names[skeleton.root_index] == "Pelvis"
    for first, second in skeleton.flip_pairs:
        sides = {skeleton.side(first), skeleton.side(second)}
        assert sides == {"left", "right"}
        assert skeleton.joint_names[first][2:] == skeleton.joint_names[second][2:]
    order = skeleton.mirrored
    assert sorted(order) == list(range(count))
    assert [order[i] for i in order] == list(range(count))  # mirrored twice is the original
    middle = [i for i in range(count) if order[i] == i]
    assert all(skeleton.side(i) == "middle" for i in middle)
    assert skeleton.indices(LIMB_JOINTS)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_bones_join_nearly_all_joints_in_one_tree(skeleton) -> None:
    reached = {skeleton.root_index}
    for _ in skeleton.bones:
        for a, b in skeleton.bones:
            if a in reached or b in reached:
                reached |= {a, b}
    # Human3.6M's Thorax is derived from the shoulders and has no bone in the reference.
    missing = {skeleton.joint_names[i] for i in range(len(skeleton))} - {
        skeleton.joint_names[i] for i in reached
    }
    assert missing <= {"Thorax"}
    assert len(skeleton.bones) == len(reached) - 1


def test_a_joint_count_names_its_joint_set() -> None:
    assert skeleton_with(21).name == "muco_21"
    assert skeleton_with(18).name == "human36m_18"
    with pytest.raises(UnknownSkeletonError, match="no joint set has 5 joints"):
        skeleton_with(5)
