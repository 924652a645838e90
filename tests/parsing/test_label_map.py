"""Label maps against their names, and what labels that leave something open mean."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.body_parts import (
    DENSEPOSE24,
    DENSEPOSE24_TO_PARTS8,
    LIP20,
    LIP20_FLIP,
    LIP20_TO_PARTS4,
    PARTS4,
    PARTS8,
    PARTS8_TO_PARTS4,
    TAXONOMIES,
    parts8_from_native,
)
from pipeline.base.errors import InputError
from pipeline.inspection.audit import confusion, part_overlap
from pipeline.parsing.label_map import SHIPPED, label_map_sha256, read_label_map
from pipeline.parsing.lip_to_parts import OPEN, close_labels, close_probabilities, open_labels, parts_of
from tests.helpers.rendered_people import people

COUNTS = {"lip20": 20, "cihp20": 20, "atr18": 18, "pascal7": 7, "ccp59": 59, "fashn18": 18, "sapiens28": 28}
FIELDS = {"pifpaf36": 36, "pifpaf8": 8, "pifpaf5": 5}
SKIN, ARM, LEG, SHOE = range(20, 24)


def test_every_shipped_map_is_whole():
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == COUNTS.keys() | FIELDS.keys()
    for name, count in (COUNTS | FIELDS).items():
        label_map = read_label_map(name)
        assert len(label_map.names) == len(set(label_map.names)) == count
        assert (0 in label_map.targets) != (name in FIELDS) == label_map.fields and len(label_map_sha256(name)) == 64
        assert name in FIELDS or label_map.targets[0] == 0
    assert read_label_map("lip20").names == LIP20 and read_label_map("lip20").targets == tuple(range(20))


@pytest.mark.parametrize("name", ["atr18", "cihp20"])
def test_labels_of_the_same_name_stay_what_they_are(name):
    label_map = read_label_map(name)
    renamed = {theirs: (*LIP20, *OPEN)[target]
               for theirs, target in zip(label_map.names, label_map.targets, strict=True)}
    changed = {theirs: ours for theirs, ours in renamed.items() if theirs != ours}
    assert changed == {"atr18": {"belt": "upper-clothes", "bag": "background"},
                       "cihp20": {"torso-skin": "upper-clothes"}}[name]


def test_torso_skin_is_upper_body():
    label_map = read_label_map("cihp20")
    native = label_map.native(np.full((2, 2), 10, np.uint8))
    assert set(LIP20_TO_PARTS4[native].ravel()) == {2}


@pytest.mark.parametrize(("name", "parts4"), [
    ("fashn18", "background head head upper-body upper-body lower-body lower-body upper-body background head "
                "upper-body head upper-body upper-body lower-body shoes upper-body"),
    ("sapiens28", "background background head head shoes upper-body upper-body lower-body shoes shoes upper-body "
                  "lower-body lower-body shoes upper-body upper-body lower-body shoes shoes upper-body lower-body "
                  "upper-body upper-body head head head head head")])
def test_fashn_and_sapiens_give_the_four_parts(name, parts4):
    """Each of its labels alone, but the one that may be worn anywhere."""
    label_map = read_label_map(name)
    wanted = parts4.split()
    for label, part in enumerate(wanted):
        native = label_map.native(np.full((2, 2), label, np.uint8))
        assert {PARTS4[four] for four in LIP20_TO_PARTS4[native].ravel()} == {part}, label_map.names[label]
    assert label_map.names[len(wanted):] in ((), ("jewelry",))


@pytest.mark.parametrize("tree", [
    {"fields": "yes"}, {"fields": True, "void": [9]}, {"fields": True, "labels": [["a", "background"]]}])
def test_fields_have_no_background(tmp_path, tree):
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump({"taxonomy": "lip20", "labels": [["a", "hat"]]} | tree))
    with pytest.raises(InputError, match="map.yaml'.*`fields` is true or false"):
        read_label_map(str(path))


def test_pascal_gives_the_eight_parts_but_feet():
    label_map = read_label_map("pascal7")
    native = label_map.native(np.arange(7, dtype=np.uint8)[None])
    assert [PARTS8[part] for part in DENSEPOSE24_TO_PARTS8[native[0]]] == [
        "background", "head", "torso", "upper-arm", "lower-arm", "upper-leg", "lower-leg"]
    assert not label_map.native(np.full((1, 1), 255, np.uint8)).any()


def figure() -> np.ndarray:
    """A standing person of clothing-co-parsing's labels, 40x20: face, shirt, bare arms, skirt, bare legs, shoes."""
    names = {name: label for label, name in enumerate(read_label_map("ccp59").names)}
    labels = np.zeros((40, 20), np.uint8)
    labels[1:3, 7:13] = names["hair"]
    labels[3:6, 7:13] = names["skin"]  # the face
    labels[6:16, 6:14] = names["shirt"]
    labels[8:18, 3:5] = labels[8:18, 15:17] = names["skin"]  # arms
    labels[16:24, 6:14] = names["skirt"]
    labels[24:36, 7:9] = labels[24:36, 11:13] = names["skin"]  # legs
    labels[36:38, 6:9] = labels[36:38, 11:14] = names["boots"]
    labels[20:26, 17:19] = names["bag"]
    return labels


def test_skin_and_shoes_are_told_apart_by_place():
    native = read_label_map("ccp59").native(figure())
    places = {"hair": (1, 9), "face": (4, 9), "upper-clothes": (10, 9), "right-arm": (12, 3), "left-arm": (12, 16),
              "skirt": (20, 9), "right-leg": (30, 7), "left-leg": (30, 12), "right-shoe": (37, 6),
              "left-shoe": (37, 13), "background": (22, 18)}
    assert {name: LIP20[native[place]] for name, place in places.items()} == {name: name for name in places}
    assert (native > 0).sum() == (figure() > 0).sum() - 12
    parts = parts8_from_native(native, "lip20")
    assert [PARTS8[parts[place]] for place in ((4, 9), (9, 3), (17, 3), (25, 7), (34, 7), (37, 7))] == [
        "head", "upper-arm", "lower-arm", "upper-leg", "lower-leg", "foot"]


def test_a_mirrored_person_has_mirrored_sides():
    label_map = read_label_map("ccp59")
    np.testing.assert_array_equal(label_map.native(figure()[:, ::-1]), LIP20_FLIP[label_map.native(figure())][:, ::-1])


def meaning_in_loops(labels: np.ndarray) -> np.ndarray:
    """`open_labels` from its docstring, pixel by pixel, with clothes on."""
    torso = [LIP20.index(name) for name in ("upper-clothes", "dress", "coat", "jumpsuits")]
    lower = [LIP20.index(name) for name in ("pants", "skirt", "dress", "jumpsuits")]
    height, width = labels.shape
    neck = min(row for row in range(height) for column in range(width) if labels[row, column] in torso)
    hem = max(row for row in range(height) for column in range(width) if labels[row, column] in lower)
    middle = np.mean([column for row in range(height) for column in range(width) if labels[row, column] in torso])
    result = np.zeros((4, height, width), int)
    for row in range(height):
        for column in range(width):
            side = "right" if column < middle else "left"
            arm, leg, shoe = (LIP20.index(f"{side}-{limb}") for limb in ("arm", "leg", "shoe"))
            skin = LIP20.index("face") if row < neck else leg if row > hem else arm
            result[:, row, column] = skin, arm, leg, shoe
    return result


def test_open_labels_follow_their_rule():
    for seed in range(5):
        labels = np.random.default_rng(seed).integers(0, 24, (9, 7)).astype(np.uint8)
        labels[:2] = 0
        expected = meaning_in_loops(labels)
        np.testing.assert_array_equal(open_labels(labels), expected)
        closed = close_labels(labels)
        for row, column in np.ndindex(*labels.shape):
            label = labels[row, column]
            assert closed[row, column] == (label if label < 20 else expected[label - 20, row, column])


def test_without_clothes_the_persons_height_decides():
    labels = np.zeros((40, 10), np.uint8)
    labels[0:40, 3:7] = SKIN
    closed = close_labels(labels)
    assert LIP20[closed[2, 3]] == "face" and LIP20[closed[10, 3]] == "right-arm" and LIP20[closed[30, 6]] == "left-leg"
    assert not close_labels(np.zeros((4, 4), np.uint8)).any()
    assert open_labels(np.zeros((4, 4), np.uint8)).shape == (4, 4, 4)


def test_probabilities_keep_their_sum_and_certain_ones_give_the_labels():
    label_map = read_label_map("ccp59")
    certain = (np.arange(59)[:, None, None] == figure()).astype(np.float32)
    native, parts8, parts4 = label_map.parts(certain)
    np.testing.assert_array_equal(native, label_map.native(figure()))
    np.testing.assert_array_equal(parts8.argmax(0), parts8_from_native(native, "lip20"))
    np.testing.assert_array_equal(parts4.argmax(0), LIP20_TO_PARTS4[native])
    for name, count in COUNTS.items():
        soft = np.random.default_rng(0).dirichlet(np.full(count, 0.2), (12, 8)).transpose(2, 0, 1)
        native, parts8, parts4 = read_label_map(name).parts(soft)
        np.testing.assert_allclose(parts8.sum(0), 1)
        np.testing.assert_allclose(parts4.sum(0), 1)
        assert native.max() < len(TAXONOMIES[read_label_map(name).taxonomy])


def test_an_open_labels_share_goes_to_what_it_means_there():
    labels = np.random.default_rng(1).integers(0, 24, (6, 5))
    soft = np.random.default_rng(0).dirichlet(np.ones(24), (6, 5)).transpose(2, 0, 1)
    meaning = open_labels(labels)
    expected = soft[:20].copy()
    for which, row, column in np.ndindex(4, 6, 5):
        expected[meaning[which, row, column], row, column] += soft[20 + which, row, column]
    np.testing.assert_allclose(close_probabilities(soft, labels), expected)


def test_parts_of_densepose_are_sums():
    soft = np.random.default_rng(0).dirichlet(np.ones(25), (3, 4)).transpose(2, 0, 1)
    parts8, parts4 = parts_of(soft.argmax(0), soft, "densepose24")
    for part in range(8):
        np.testing.assert_allclose(parts8[part], soft[part == DENSEPOSE24_TO_PARTS8].sum(0))
    for part in range(5):
        np.testing.assert_allclose(parts4[part], parts8[part == PARTS8_TO_PARTS4].sum(0))
    assert len(DENSEPOSE24) == 25


def test_lip_parts_agree_with_the_renderers_exact_ones():
    """How far geometry gets on rendered people: heads and feet stay, sleeves cost arms, long skirts legs. Only what no
    clothes can move is asserted; docs/parsers.md reports the rest."""
    counts = sum(confusion(parts8_from_native(person.lip, "lip20"), DENSEPOSE24_TO_PARTS8[person.index])
                 for person in people(8))
    overlap = dict(zip(PARTS8, part_overlap(counts), strict=True))
    assert np.diag(counts).sum() / counts.sum() > 0.85
    assert overlap["background"] > 0.95 and overlap["head"] > 0.8 and overlap["foot"] > 0.5


def test_names_of_a_checkpoint_must_be_the_maps():
    label_map = read_label_map("atr18")
    names = {label: name.replace("-", "_").title() for label, name in enumerate(label_map.names)}
    label_map.check_names(names, "folder")
    label_map.check_names({label: f"LABEL_{label}" for label in range(18)}, "folder")
    with pytest.raises(InputError, match="calls label 11 'Left_Leg' where the label map 'atr18' calls it 'face'"):
        label_map.check_names({**names, 11: names[12], 12: names[11]}, "folder")
    with pytest.raises(InputError, match="has 3 labels where the label map 'atr18' has 18"):
        label_map.check_names({0: "a", 1: "b", 2: "c"}, "folder")


def test_a_label_that_a_map_lacks_is_named():
    with pytest.raises(ValueError, match=r"the label 18 where 'atr18' knows 18 labels"):
        read_label_map("atr18").native(np.array([[3, 18]], np.uint8))


@pytest.mark.parametrize(("content", "words"), [
    ("a: [", "is no YAML"), ("[]", "is no label map"), ("taxonomy: lip20", "is no label map"),
    ("taxonomy: atr\nlabels: [[a, hat]]", "is no label map"), ("taxonomy: lip20\nlabels: [[a, hat]]\nx: 1", "not x"),
    ("taxonomy: lip20\nlabels: [[null, hat]]", "label 0 is no pair"), ("taxonomy: lip20\nlabels: [hat]", "no pair"),
    ("taxonomy: lip20\nlabels: [[a, skinn]]", "label 0 is 'skinn' here; known are .*skin"),
    ("taxonomy: densepose24\nlabels: [[a, skin]]", "label 0 is 'skin' here"),
    ("taxonomy: lip20\nlabels: []", "1 to 255 labels"),
    ("taxonomy: lip20\nlabels: [[a, hat]]\nvoid: [0]", "ids that are no label"),
    ("2001-99-99", "is no YAML"), ("a: !!python/object/apply:os.system [ls]", "is no YAML")])
def test_bad_label_maps_are_refused(tmp_path, content, words):
    path = tmp_path / "map.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        read_label_map(str(path))
    assert "map.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_map_lists_the_known(tmp_path):
    with pytest.raises(InputError, match=r"'lip'.*atr18, ccp59, cihp20, fashn18, lip20, pascal7, pifpaf36, "
                                         r"pifpaf5, pifpaf8, sapiens28, or a \.yaml file"):
        read_label_map("lip")


def test_a_map_of_ones_own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"taxonomy": "lip20", "void": [7], "labels": [
        ["nothing", "background"], ["sleeve", "arm"], ["shin", "leg"]]}))
    native = read_label_map(str(path)).native(np.array([[1, 7, 0, 1], [2, 0, 0, 2]], np.uint8))
    assert [[LIP20[label] for label in row] for row in native] == [
        ["right-arm", "background", "background", "left-arm"], ["right-leg", "background", "background", "left-leg"]]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_gives_a_map_or_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"fuzz\.yaml"):
        read_label_map(str(path))
