"""Labels of a photograph out of a hand's and a teacher's: what each says counts where it should."""

import numpy as np
import pytest

from pipeline.base.body_parts import DENSEPOSE24, DENSEPOSE24_TO_PARTS8, PARTS8
from pipeline.parsing.augmentation import UNKNOWN
from pipeline.parsing.label_map import read_label_map
from pipeline.parsing.taught_labels import MAY_BE, divide, may_be

CCP = read_label_map("ccp59")
ALLOWED = may_be(CCP)
NAMES = {name: label for label, name in enumerate(CCP.names)}
PARTS = {name: label for label, name in enumerate(DENSEPOSE24)}


def column(*names, table=NAMES) -> np.ndarray:
    """One row of the picture a name, four equal pixels wide."""
    return np.repeat(np.array([table[name] for name in names], np.uint8)[:, None], 4, 1)


def divided(clothes, teacher, rows=10):
    """The result's names, a row each; every row stands `rows` times, so that reach is as on a person."""
    clothes, teacher = (np.repeat(maps, rows, 0) for maps in (column(*clothes), column(*teacher, table=PARTS)))
    found = divide(clothes, teacher, ALLOWED)
    assert found.dtype == np.uint8 and found.shape == clothes.shape
    return found[rows // 2::rows, 1].tolist(), found


def test_the_hand_s_silhouette_head_and_feet_and_the_teacher_s_division():
    clothes = ("null", "hair", "skin", "coat", "coat", "jeans", "jeans", "shoes", "null")
    teacher = ("head left", "head left", "head left", "torso front", "lower arm left back", "upper leg left front",
               "lower leg left front", "left foot", "left foot")
    found, _ = divided(clothes, teacher)
    assert found == [0, *(PARTS[name] for name in teacher[1:-1]), 0]


def test_what_the_clothes_rule_out_comes_from_the_nearest_label_that_they_allow():
    # the teacher takes the hat for background, the scarf for a head and the shoes for a lower leg
    clothes = ("hat", "hair", "scarf", "t-shirt", "jeans", "shoes")
    teacher = ("background", "head right", "head right", "torso back", "lower leg right back", "lower leg right back")
    _, maps = divided(clothes, teacher)
    names = [{DENSEPOSE24[label] if label != UNKNOWN else "?" for label in np.unique(maps[10 * row:10 * row + 10])}
             for row in range(6)]
    assert names[0] == names[1] == {"head right"} and names[3] == {"torso back"}
    assert names[2] == {"torso back", "?"}  # as far as REACH: 7 of its 10 rows
    assert [row[0] for row in maps[20:30] == UNKNOWN] == [True] * 3 + [False] * 7
    assert names[5] == {"right foot"}  # no foot was seen: the side is the nearest limb's


def test_a_label_comes_from_inside_the_person_where_there_is_one():
    clothes, teacher = np.zeros((20, 9), np.uint8), np.zeros((20, 9), np.uint8)
    clothes[2:18, 3:6] = NAMES["dress"]
    teacher[2:18, 2] = PARTS["torso front"]  # beside the silhouette
    teacher[2:18, 5] = PARTS["torso back"]  # inside it, farther from the left edge
    found = divide(clothes, teacher, ALLOWED)
    assert set(found[2:18, 3:6].ravel()) <= {PARTS["torso back"], UNKNOWN} and (found[2:18, 4] == 1).all()
    assert not found[:, 6:].any() and not found[:, :3].any()


@pytest.mark.parametrize(("clothes", "teacher", "expected"), [
    ("boots", "lower leg left front", "lower leg left front"),  # as high as the knee
    ("boots", "left foot", "left foot"),
    ("sneakers", "left foot", "left foot"),
    ("gloves", "left hand", "left hand"),
    ("bag", "torso front", "background"),
    ("watch", "lower arm left front", "lower arm left front"),
    ("tights", "left foot", "left foot"),
])
def test_single_labels(clothes, teacher, expected):
    assert divided([clothes] * 3, [teacher] * 3)[0] == [PARTS[expected]] * 3


def test_without_anything_near_the_label_stays_unknown():
    assert divided(["skin"], ["background"])[0] == [UNKNOWN]
    assert divided(["shoes"], ["background"])[0] == [UNKNOWN]
    assert divided(["null"], ["torso front"])[0] == [0]


def test_every_result_is_a_part_that_its_clothes_may_cover():
    generator = np.random.default_rng(0)
    for _ in range(20):
        clothes = generator.integers(0, 59, (12, 8), dtype=np.uint8)
        teacher = generator.integers(0, 25, (12, 8), dtype=np.uint8)
        found = divide(clothes, teacher, ALLOWED)
        inside = ALLOWED.any(1)[clothes]
        assert not found[~inside].any() and found[inside].all()
        known = inside & (found != UNKNOWN)
        assert ALLOWED[clothes[known], DENSEPOSE24_TO_PARTS8[found[known]]].all()


def test_each_label_says_what_it_may_be():
    assert set(MAY_BE) == {"background", *(name for name in MAY_BE if MAY_BE[name])}
    assert [CCP.names[label] for label in range(59) if not ALLOWED[label].any()] == [
        "null", "accessories", "bag", "purse", "wallet"]
    assert not ALLOWED[:, PARTS8.index("background")].any() and not ALLOWED[59:].any()
