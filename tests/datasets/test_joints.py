"""Which stripes show a joint: against a loop, and what a file of joints must hold."""

import h5py
import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.datasets.joints import read_joints, stripes_with_joints


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


def write(target, attributes=None, **arrays):
    with h5py.File(target, "w") as file:
        file.attrs.update(attributes or {})
        for name, values in arrays.items():
            file[name] = values
    return target


JOINTS = np.arange(3 * 18 * 3, dtype=np.float32).reshape(3, 18, 3)
NAMES = np.array(["a.jpg", "b.jpg", "c.jpg"], dtype=h5py.string_dtype())


@pytest.mark.parametrize(("size", "sizes"), [
    ({"size": np.array([[9, 5], [8, 4], [7, 3]])}, [(9, 5), (8, 4), (7, 3)]),
    ({"index": np.zeros((3, 12, 6), np.uint8)}, [(12, 6)] * 3),
    ({"lip": np.zeros((3, 12, 6), np.uint8)}, [(12, 6)] * 3),
    ({"attributes": {"height": 12, "width": 6}}, [(12, 6)] * 3)])
def test_joints_are_found_by_their_picture(tmp_path, size, sizes):
    read = read_joints(write(tmp_path / "joints.h5", path=NAMES, joints=JOINTS, **size))
    found, heights = read.of(["c.jpg", "a.jpg"])
    np.testing.assert_array_equal(found, JOINTS[[2, 0]])
    assert heights.tolist() == [sizes[2][0], sizes[0][0]]
    shares = read.shares({"key of c": "c.jpg", "key of a": "a.jpg", "unknown": "d.jpg"})
    assert list(shares) == ["key of c", "key of a"]
    for key, row in (("key of c", 2), ("key of a", 0)):
        height, width = sizes[row]
        for joint, (x, y, confidence) in enumerate(JOINTS[row].tolist()):
            assert shares[key][joint].tolist() == [x / width, y / height, confidence]
    with pytest.raises(InputError, match="joints.h5.*'d.jpg' and 1 other"):
        read.of(["a.jpg", "d.jpg", "e.jpg"])


def test_files_without_joints_are_named(tmp_path):
    (tmp_path / "text.h5").write_text("none")
    write(tmp_path / "lacking.h5", path=NAMES)
    write(tmp_path / "unsized.h5", path=NAMES, joints=JOINTS)
    write(tmp_path / "short.h5", path=NAMES, joints=JOINTS[:2], size=np.ones((3, 2)))
    write(tmp_path / "flat.h5", path=NAMES, joints=JOINTS[..., :2], size=np.ones((3, 2)))
    for name in ("text", "lacking", "unsized", "short", "flat"):
        with pytest.raises(InputError, match=rf"{name}\.h5': is damaged or no file of joints"):
            read_joints(tmp_path / f"{name}.h5")
    with pytest.raises(InputError, match="none.h5': no such file of joints"):
        read_joints(tmp_path / "none.h5")
