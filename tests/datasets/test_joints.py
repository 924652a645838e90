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
JOINTS[..., 2] /= 3 * 18 * 3  # a confidence is within 0..1
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


def changed(row, joint, axis, value):
    joints = JOINTS.copy()
    joints[row, joint, axis] = value
    return joints


SIZES = np.array([[90, 50], [80, 40], [70, 30]])
SHARES = np.where(np.arange(3) == 2, JOINTS, JOINTS / JOINTS.max())


@pytest.mark.parametrize(("joints", "size", "said"), [
    (changed(1, 4, 0, np.nan), SIZES, "'b.jpg', of 80x40, has a joint that is not finite; write 0"),
    (changed(2, 0, 1, np.inf), SIZES, "'c.jpg', of 70x30, has a joint that is not finite"),
    (changed(1, 3, 2, np.nan), SIZES, "'b.jpg', of 80x40, has a joint that is not finite"),
    (changed(2, 3, 2, 1.01), SIZES, "'c.jpg', of 70x30, has a confidence outside of 0..1"),
    (changed(0, 3, 2, -0.1), SIZES, "'a.jpg', of 90x50, has a confidence outside of 0..1"),
    (JOINTS, SIZES * [[1], [0], [1]], "'b.jpg', of 0x0, has no size in pixels; write its height and width"),
    (JOINTS, SIZES * [0.01, 1], "'a.jpg', of 0.9x50, has no size in pixels"),
    (JOINTS, SIZES * [[1], [1], [np.nan]], "'c.jpg', of nanxnan, has no size in pixels"),
    (JOINTS, SIZES * [[1], [1], [np.inf]], "'c.jpg', of infxinf, has no size in pixels"),
    (SHARES, SIZES, "no joint that counts is beyond 1, in pictures of 90x50 and the like: they are shares, and")])
def test_numbers_that_are_no_pixels_are_named(tmp_path, joints, size, said):
    path = write(tmp_path / "joints.h5", path=NAMES, joints=joints, size=size)
    with pytest.raises(InputError) as caught:
        read_joints(path)
    assert f"joints.h5': {said}" in str(caught.value) and "\n" not in str(caught.value)


def test_what_only_looks_like_shares_is_read(tmp_path):
    """One joint beyond 1, none that counts, or pictures of one pixel; and a joint beside its picture."""
    for number, (joints, size) in enumerate([
            (np.maximum(SHARES, np.where(np.arange(3) == 2, 0, 1.5 * (SHARES == 1))), SIZES),
            (SHARES * [1, 1, 0.2], SIZES), (SHARES, np.ones((3, 2), int)), (changed(0, 3, 1, -20), SIZES)]):
        joints = joints.astype(np.float32)
        read = read_joints(write(tmp_path / f"{number}.h5", path=NAMES, joints=joints, size=size))
        np.testing.assert_array_equal(read.places, joints)
