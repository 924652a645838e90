"""Photographs with labels: each published layout made small, read, and trained on for a few steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from models.parsers.torchvision_parsers import load_parser
from pipeline.base.body_parts import LIP20, PARTS4
from pipeline.base.errors import InputError
from pipeline.base.images import read_image, write_image
from pipeline.parsing.label_map import read_label_map
from pipeline.parsing.photograph_set import MARGIN, Photographs, largest, person_box
from pipeline.parsing.published_sets import files_ccp, pick_labelled, read_ccp
from pipeline.parsing.rendered_set import Shuffled
from pipeline.parsing.training import training_batches
from tests.helpers.bare_params import bare_experiment
from tests.helpers.plain_resize import plain_resize

HEIGHT, WIDTH = 64, 32
REAL = Path(__file__).resolve().parents[2] / "data/raw/clothing-co-parsing"
COLOURS = np.random.default_rng(1).integers(20, 256, (60, 3), dtype=np.uint8)


def figure(labels=(2, 5, 9, 18), *, height=90, width=70, top=20, left=25, generator=None):
    """Hair, clothes, trousers and a shoe as blocks 15 rows high and 20 columns wide, or what `labels` says."""
    shift = int(generator.integers(-8, 9)) if generator else 0
    maps = np.zeros((height, width), np.uint8)
    for place, label in enumerate(labels):
        maps[top + 15 * place:top + 15 * place + 15, left + shift:left + shift + 20] = label
    return maps


def save(root: Path, picture: str, labels: str, maps: np.ndarray) -> None:
    for name in (picture, labels):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    write_image(root / picture, COLOURS[np.minimum(maps, 59)])
    if labels.endswith(".mat"):
        savemat(root / labels, {"groundtruth": maps})
    else:
        Image.fromarray(maps).save(root / labels)


def write_lip(root: Path, count: int = 5) -> Path:
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        names = [f"{number}_{part}" for number in range(count)]
        for name in names:
            save(root, f"TrainVal_images/{part}_images/{name}.jpg",
                 f"TrainVal_parsing_annotations/{part}_segmentations/{name}.png", figure(generator=generator))
        (root / f"TrainVal_images/{part}_id.txt").write_text("\n".join(names) + "\n")
    return root


def write_cihp(root: Path, count: int = 5) -> Path:
    """Two people a photograph, the second half as wide."""
    around = root / "instance-level_human_parsing"
    for part, folder in (("train", "Training"), ("val", "Validation")):
        for number in range(count):
            maps = figure(width=120, generator=np.random.default_rng(number))
            maps[20:60, 100:110] = 7
            name = f"{folder}/{{}}/{number:07d}"
            save(around, f"{name.format('Images')}.jpg", f"{name.format('Category_ids')}.png", maps)
            people = np.where(maps == 7, 1, np.where(maps > 0, 2, 0)).astype(np.uint8)
            (around / folder / "Human_ids").mkdir(exist_ok=True)
            Image.fromarray(people).save(around / f"{name.format('Human_ids')}.png")
        (around / folder / f"{part}_id.txt").write_text("".join(f"{number:07d}\n" for number in range(count)))
    return root


def write_ccp(root: Path, count: int = 10) -> Path:
    """Hair, a sweater, jeans and boots; two more photographs have no labels of their pixels."""
    generator = np.random.default_rng(0)
    for number in range(1, count + 1):
        save(root, f"photos/{number:04d}.jpg", f"annotations/pixel-level/{number:04d}.mat",
             figure((19, 48, 25, 7), generator=generator))
    for number in (count + 1, count + 2):
        write_image(root / f"photos/{number:04d}.jpg", np.zeros((9, 9, 3), np.uint8))
    return root


WRITE = {"lip": write_lip, "cihp": write_cihp, "ccp": write_ccp}


def pictures(root: Path, layout: str, part: str = "train", *, height=HEIGHT, width=WIDTH) -> Photographs:
    return Photographs(root, part, layout=layout, height=height, width=width)


def test_lip_is_read_whole_and_as_it_is(tmp_path):
    write_lip(tmp_path)
    for part in ("train", "val"):
        found = pictures(tmp_path, "lip", part, height=90, width=70)
        assert found.paths == [f"TrainVal_images/{part}_images/{number}_{part}.jpg" for number in range(5)]
        for place, path in enumerate(found.paths):
            image, labels, uv = found.sample(place)
            written = np.array(Image.open(tmp_path / path.replace(
                "TrainVal_images", "TrainVal_parsing_annotations").replace("_images", "_segmentations").replace(
                ".jpg", ".png")))
            np.testing.assert_array_equal(labels, written)
            np.testing.assert_array_equal(image, read_image(tmp_path / path))
            assert uv.shape == (90, 70, 2) and not uv.any()


def test_a_photograph_s_sides_are_resized_each_by_itself(tmp_path):
    found = pictures(write_lip(tmp_path), "lip", height=120, width=30)  # of 90x70
    expected = plain_resize(read_image(tmp_path / found.paths[0]), 120, 30)
    np.testing.assert_allclose(found.sample(0)[0], expected, atol=0.51)


def test_cihp_is_its_largest_person_cut_out(tmp_path):
    found = pictures(write_cihp(tmp_path), "cihp")
    for place in range(5):
        image, labels, _ = found.sample(place)
        assert set(np.unique(labels)) == {0, 2, 5, 9, 18}  # and not the other one's coat
        rows = np.flatnonzero((labels > 0).any(1))
        assert abs(len(rows) / HEIGHT - 1 / (1 + 2 * MARGIN)) < 0.05
        for label in (2, 5, 9, 18):  # the picture moved along
            middle = tuple(np.argwhere(labels == label).mean(0).astype(int))
            np.testing.assert_allclose(image[middle].astype(int), COLOURS[label], atol=12)


def test_ccp_is_split_once_for_all_and_its_labels_become_lips(tmp_path):
    write_ccp(tmp_path, 25)
    train, val = (pictures(tmp_path, "ccp", part) for part in ("train", "val"))
    assert len(val) == 5 and sorted(train.paths + val.paths) == [f"photos/{n:04d}.jpg" for n in range(1, 26)]
    assert pictures(tmp_path, "ccp", "val").paths == val.paths != val.paths[:1] + train.paths[:4]
    labels = train.sample(3)[1]
    assert {LIP20[label] for label in np.unique(labels)} == {"background", "hair", "upper-clothes", "pants",
                                                             "left-shoe", "right-shoe"}
    columns = [np.argwhere(labels == LIP20.index(f"{side}-shoe"))[:, 1].mean() for side in ("right", "left")]
    assert columns[0] < columns[1]


@pytest.mark.parametrize("aspect", [2.0, 1.0, 0.5])
def test_the_box_is_the_bodys(aspect):
    generator = np.random.default_rng(3)
    for _ in range(20):
        body = np.zeros((400, 600), bool)
        (top, left), (height, width) = generator.integers(150, 200, 2), generator.integers(8, 40, 2)
        body[top:top + height, left:left + width] = generator.random((height, width)) < 0.5
        body[top, left] = body[top + height - 1, left + width - 1] = True
        rows, columns = person_box(body, aspect=aspect)
        box = (rows.stop - rows.start, columns.stop - columns.start)
        assert box[0] >= height * 1.1 - 1 and box[1] >= width * 1.1 - 1
        assert min(box[0] - height * 1.1, box[1] - width * 1.1) <= 1  # no larger than one side asks for
        assert abs(box[0] - box[1] * aspect) <= 1 + aspect
        assert abs(rows.start + rows.stop - 2 * top - height) <= 2
        assert abs(columns.start + columns.stop - 2 * left - width) <= 2
    edge = np.zeros((30, 20), bool)
    edge[0, 19] = True
    rows, columns = person_box(edge, aspect=aspect)
    assert edge[rows, columns].any() and not edge[:0].any()
    assert person_box(np.zeros((30, 20), bool), aspect=aspect) == (slice(None), slice(None))


def test_nobody_is_the_largest_of_nobody():
    assert largest(np.array([[0, 255], [3, 3]], np.uint8)) == 3
    assert not (np.array([[0, 255]], np.uint8) == largest(np.array([[0, 255]], np.uint8))).any()


@pytest.mark.parametrize(("layout", "gone", "words"), [
    ("lip", "TrainVal_images/val_images", "no folder 'val_images'; unpack TrainVal_images.zip"),
    ("lip", "TrainVal_parsing_annotations", "no folder 'val_segmentations'; unpack TrainVal_parsing_annotations.zip"),
    ("lip", "TrainVal_parsing_annotations/val_segmentations/3_val.png", r"no .png of labels '3_val' \(1 of 5"),
    ("lip", "TrainVal_images/val_images/2_val.jpg", r"no image '2_val' \(1 of 5 are missing"),
    ("cihp", "instance-level_human_parsing/Validation", "no folder 'Validation'"),
    ("cihp", "instance-level_human_parsing/Validation/Human_ids", "no folder 'Human_ids'"),
    ("cihp", "instance-level_human_parsing/Validation/Human_ids/0000001.png", "no .png of labels '0000001'"),
    ("ccp", "annotations/pixel-level", "no folder 'pixel-level'"),
    ("ccp", "photos/0004.jpg", r"no image '0004' \(1 of 10"),
])
def test_what_is_missing_is_named(tmp_path, layout, gone, words):
    WRITE[layout](tmp_path / "set")
    (tmp_path / "set" / gone).rename(tmp_path / "gone")
    with pytest.raises(InputError, match=words) as caught:
        pictures(tmp_path / "set", layout, "val")
    assert str(tmp_path / "set") in str(caught.value) and "\n" not in str(caught.value)


def test_an_archives_folders_and_a_missing_list_do_not_matter(tmp_path):
    write_lip(tmp_path / "LIP/unpacked")
    (tmp_path / "LIP/unpacked/TrainVal_images/val_id.txt").unlink()
    assert len(pictures(tmp_path / "LIP/unpacked", "lip", "val")) == 5
    assert len(pictures(tmp_path / "LIP", "lip", "train")) == 5


@pytest.mark.parametrize("layout", ["lip", "cihp", "ccp"])
def test_two_photographs_do_not_share_their_labels(tmp_path, layout):
    WRITE[layout](tmp_path)
    path = tmp_path / pictures(tmp_path, layout).paths[0]
    path.with_suffix(".png").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=rf"'{path.name}' and '{path.stem}\.png' would have the same labels"):
        pictures(tmp_path, layout)


def test_damaged_and_foreign_files_are_named(tmp_path):
    write_ccp(tmp_path)
    found = pictures(tmp_path, "ccp")
    first = found.files[0].labels
    for content, words in (({"groundtruth": np.full((90, 70), 60, np.uint8)}, "the label 60 where 'ccp59' knows 59"),
                           ({"groundtruth": np.zeros((9, 7), np.uint8)}, "is 9x7 where .*0.*jpg' is 90x70"),
                           ({"tags": np.zeros(3)}, "no pixel-level annotation .KeyError"),
                           ({"groundtruth": np.zeros((9, 7))}, "float64 of shape")):
        savemat(first, content)
        with pytest.raises(InputError, match=words) as caught:
            pictures(tmp_path, "ccp").sample(0)
        assert str(first) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="unknown layout 'coco' .* lip, cihp, ccp"):
        pick_labelled("coco")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_fuzzed_annotations_are_an_error_or_an_answer(tmp_path_factory, noise, place, byte):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    savemat(folder / "good.mat", {"groundtruth": figure()})
    good = bytearray((folder / "good.mat").read_bytes())
    good[place % len(good)] = byte
    for content in (noise, bytes(good[:place]), bytes(good)):
        (folder / "a.mat").write_bytes(content)
        try:
            labels = read_ccp(folder / "a.mat")
        except InputError as error:
            assert "a.mat" in str(error) and "\n" not in str(error)
        else:
            assert labels.ndim == 2 and labels.dtype == np.uint8


def test_a_damaged_annotation_is_one_sentence_from_a_loading_process_too(tmp_path):
    write_ccp(tmp_path)
    found = pictures(tmp_path, "ccp")
    found.files[0].labels.write_bytes(b"no annotation")
    with pytest.raises(InputError) as caught:
        list(training_batches(Shuffled(found, seed=0, augment="all"), batch=2, start=0, stop=len(found), workers=1))
    assert str(found.files[0].labels) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("layout", "workers"), [("lip", 0), ("cihp", 0), ("ccp", 1)])  # .mat files in a worker
def test_the_stage_trains_on_each_layout(tmp_path, monkeypatch, capsys, layout, workers):
    from stages.train_photographs import run
    monkeypatch.chdir(tmp_path)
    WRITE[layout](tmp_path / "set")
    settings = {"architecture": "lraspp", "layout": layout, "init": "none", "height": HEIGHT, "width": WIDTH,
                "image_steps": 8, "batch": 4, "lr": 1e-3, "augment": "all", "seed": 0, "workers": workers}
    run(bare_experiment(params={"photographs": {"p": settings}, "threads": torch.get_num_threads()},
                        plan={"train_photographs": {"p": {"raw": "set", "start": "set"}}}), "p")
    published = pick_labelled(layout).published["train"]
    assert f"published are {published}; scores will not compare" in capsys.readouterr().err
    scores = json.loads(Path("data/results/parsers/p.json").read_text())["details"][0]
    assert scores.keys() == {"miou20", "miou5", "pixel_accuracy", "iou", "images", "image_steps", "architecture"}
    assert scores["iou"].keys() == {*LIP20, *PARTS4} and scores["image_steps"] == 8
    assert scores["images"] == {"lip": 5, "cihp": 5, "ccp": 2}[layout]
    parser = load_parser("data/parsers/p/weights.safetensors")
    assert (parser.taxonomy, parser.uv, parser.to_parts8) == ("lip20", False, None)


@pytest.mark.skipif(not REAL.is_dir(), reason="data/raw/clothing-co-parsing is not on this machine")
def test_real_clothes():
    """Heads above clothes above shoes, in pictures that keep the person's proportions."""
    assert {part: len(files_ccp(REAL, part)) for part in ("train", "val")} == {"train": 804, "val": 200}
    found = pictures(REAL, "ccp", "val", height=128, width=64)
    assert not found.remark() and len(read_label_map("ccp59").names) == 59
    seen = 0
    for place in range(0, 200, 25):
        image, labels, _ = found.sample(place)
        head, upper, shoes = (np.argwhere(np.isin(labels, [LIP20.index(name) for name in names]))
                              for names in (("hair", "face"), ("upper-clothes", "dress", "coat"),
                                            ("left-shoe", "right-shoe")))
        assert image.shape == (128, 64, 3) and image.std() > 10
        if len(head) and len(upper) and len(shoes):
            seen += 1
            assert head[:, 0].mean() < upper[:, 0].mean() < shoes[:, 0].mean()
    assert seen >= 5
