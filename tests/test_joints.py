"""Which stripes show a joint: against a loop, and what a file of joints must hold."""

import h5py
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.joints import read_joints, stripes_with_joints


def test_a_stripe_is_visible_where_a_confident_joint_lies_in_it():
    draw = np.random.default_rng(0)
    joints = draw.uniform(0, 1, (40, 5, 3)).astype(np.float32)
    heights = draw.integers(20, 200, 40)
    joints[..., 1] *= 1.2 * heights[:, None]  # some lie below the picture
    joints[0] = 0, 0, 0.2  # not more than 0.2
    found = stripes_with_joints(joints, heights, 3)
    for row in range(40):
        for stripe in range(3):
            inside = [stripe * heights[row] / 3 <= y < (stripe + 1) * heights[row] / 3 and confidence > 0.2
                      for _, y, confidence in joints[row]]
            assert found[row, stripe] == any(inside)
    assert 0 < found.mean() < 1 and not found[0].any()


def write(target, **arrays):
    with h5py.File(target, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return target


def test_joints_are_found_by_their_picture(tmp_path):
    joints = np.arange(3 * 18 * 3, dtype=np.float32).reshape(3, 18, 3)
    names = np.array(["a.jpg", "b.jpg", "c.jpg"], dtype=h5py.string_dtype())
    sizes = write(tmp_path / "sizes.h5", path=names, joints=joints, size=np.array([[9, 5], [8, 4], [7, 3]]))
    maps = write(tmp_path / "maps.h5", path=names, joints=joints, index=np.zeros((3, 12, 6), np.uint8))
    for path, heights in ((sizes, [7, 9]), (maps, [12, 12])):
        found, high = read_joints(path, ["c.jpg", "a.jpg"])
        np.testing.assert_array_equal(found, joints[[2, 0]])
        assert high.tolist() == heights
    with pytest.raises(InputError, match="sizes.h5.*'d.jpg' and 1 other"):
        read_joints(sizes, ["a.jpg", "d.jpg", "e.jpg"])
    with pytest.raises(InputError, match="none.h5.*cannot be read"):
        read_joints(tmp_path / "none.h5", [])
    with pytest.raises(InputError, match="lacking.h5.*cannot be read"):
        read_joints(write(tmp_path / "lacking.h5", path=names), ["a.jpg"])
