"""Part tables against the names they must follow from, and LIP-20's cuts against hand-made figures."""

import numpy as np
import pytest

from pipeline.base import body_parts
from pipeline.base.body_parts import DENSEPOSE24, LIP20, PARTS4, PARTS8


def test_densepose_parts_follow_from_their_names():
    words = {"hand": "lower-arm", "foot": "foot", "upper leg": "upper-leg", "lower leg": "lower-leg",
             "upper arm": "upper-arm", "lower arm": "lower-arm", "head": "head", "torso": "torso"}
    for label, name in enumerate(DENSEPOSE24[1:], start=1):
        expected = next(part for word, part in words.items() if word in name)
        assert PARTS8[body_parts.DENSEPOSE24_TO_PARTS8[label]] == expected, name
    assert body_parts.DENSEPOSE24_TO_PARTS8[0] == 0


def test_lip_four_parts_are_the_ruled_groups():
    groups = {"head": {"hat", "hair", "sunglasses", "face"},
              "upper-body": {"glove", "upper-clothes", "dress", "coat", "scarf", "left-arm", "right-arm"},
              "lower-body": {"pants", "skirt", "left-leg", "right-leg", "jumpsuits"},
              "shoes": {"socks", "left-shoe", "right-shoe"}, "background": {"background"}}
    for part, name in enumerate(PARTS4):
        assert {LIP20[i] for i in np.flatnonzero(part == body_parts.LIP20_TO_PARTS4)} == groups[name]


def test_coarser_groups_of_the_eight_parts():
    assert [PARTS4[i] for i in body_parts.PARTS8_TO_PARTS4] == [
        "background", "head", "upper-body", "upper-body", "upper-body", "lower-body", "lower-body", "shoes"]


@pytest.mark.parametrize(("names", "table"), [(LIP20, body_parts.LIP20_FLIP),
                                              (DENSEPOSE24, body_parts.DENSEPOSE24_FLIP)])
def test_flipping_exchanges_left_and_right_in_the_names(names, table):
    sides = {"left": "right", "right": "left"}
    for label, name in enumerate(names):
        mirrored = "-".join(" ".join(sides.get(word, word) for word in piece.split(" ")) for piece in name.split("-"))
        assert names[table[label]] == mirrored


def figure() -> np.ndarray:
    """A standing LIP-20 person, 40x20: head 2-5, shirt 6-17, bare arms beside it, pants 18-33, shoes 34-35."""
    native = np.zeros((40, 20), np.uint8)
    native[2:6, 8:12] = LIP20.index("hair")
    native[6:18, 6:14] = LIP20.index("upper-clothes")
    native[8:20, 3:5] = LIP20.index("right-arm")
    native[8:20, 15:17] = LIP20.index("left-arm")
    native[18:34, 7:13] = LIP20.index("pants")
    native[34:36, 7:13] = LIP20.index("left-shoe")
    return native


def part_rows(parts: np.ndarray, name: str, columns: slice) -> tuple[int, int]:
    rows = np.flatnonzero((parts[:, columns] == PARTS8.index(name)).any(axis=1))
    return rows[0], rows[-1]


def test_lip_limbs_are_cut_at_their_middles():
    parts = body_parts.parts8_from_native(figure(), "lip20")
    for side in (slice(3, 5), slice(15, 17)):
        assert part_rows(parts, "upper-arm", side) == (8, 13)
        assert part_rows(parts, "lower-arm", side) == (14, 19)
    assert part_rows(parts, "upper-leg", slice(7, 13)) == (18, 25)
    assert part_rows(parts, "lower-leg", slice(7, 13)) == (26, 33)
    assert part_rows(parts, "foot", slice(7, 13)) == (34, 35)
    assert part_rows(parts, "torso", slice(6, 14)) == (6, 17)


def test_a_raised_arm_is_upper_at_the_shoulder():
    native = figure()
    native[native == LIP20.index("left-arm")] = 0
    for step in range(10):  # from the shoulder, up and outwards, past the head
        native[7 - step // 2, 14 + step // 2] = LIP20.index("left-arm")
    parts = body_parts.parts8_from_native(native, "lip20")
    assert part_rows(parts, "upper-arm", slice(14, 20))[1] == 7
    assert part_rows(parts, "lower-arm", slice(14, 20))[0] == 3


def test_a_horizontal_flip_commutes_with_the_cuts():
    native = figure()
    native[20:23, 3:5] = LIP20.index("glove")
    flipped = body_parts.LIP20_FLIP[native[:, ::-1]]
    np.testing.assert_array_equal(body_parts.parts8_from_native(flipped, "lip20"),
                                  body_parts.parts8_from_native(native, "lip20")[:, ::-1])


def test_socks_reach_the_ankle_and_belong_to_the_lower_leg():
    native = figure()
    native[30:34, 7:13] = LIP20.index("socks")
    parts = body_parts.parts8_from_native(native, "lip20")
    assert part_rows(parts, "lower-leg", slice(7, 13)) == (26, 33)


def test_one_hot_probabilities_give_the_labels_and_soft_ones_keep_their_sum():
    native = figure()
    one_hot = (np.arange(20)[:, None, None] == native).astype(np.float32)
    parts = body_parts.lip20_probabilities_to_parts8(one_hot, native)
    np.testing.assert_array_equal(parts.argmax(0), body_parts.parts8_from_native(native, "lip20"))
    soft = np.random.default_rng(0).dirichlet(np.ones(20), native.shape).transpose(2, 0, 1)
    parts = body_parts.lip20_probabilities_to_parts8(soft, native)
    np.testing.assert_allclose(parts.sum(0), 1)
    np.testing.assert_allclose(parts[PARTS8.index("upper-arm")] + parts[PARTS8.index("lower-arm")],
                               soft[[3, 14, 15]].sum(0))


def test_an_unknown_taxonomy_lists_the_known():
    with pytest.raises(ValueError, match="'atr18'.*lip20, densepose24"):
        body_parts.parts8_from_native(figure(), "atr18")
