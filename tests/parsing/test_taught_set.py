"""Photographs that a teacher divides, their mixture with rendered people, the stage train_taught, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from models.parsers.torchvision_parsers import load_parser
from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import write_image
from pipeline.caches.cache import compress, write_cache
from pipeline.caches.parts_layout import parts_arrays, parts_columns
from pipeline.parsing.augmentation import UNKNOWN
from pipeline.parsing.rendered_set import label_shares
from pipeline.parsing.taught_set import TALL, Mixture, TaughtPhotographs
from pipeline.parsing.training import training_batches
from pipeline.reporting.results import read_parser_scores
from stages.tools.release_parser import run as release
from stages.train_taught import run
from tests.helpers.bare_params import bare_experiment
from tests.helpers.figures import HEIGHT, WIDTH, pictures_of
from tests.parsing.test_photograph_set import write_ccp

STAGE = {"architecture": "lraspp-reduced", "layout": "ccp", "share": 0.5, "init": "none", "height": HEIGHT,
         "width": WIDTH, "image_steps": 8, "batch": 4, "lr": 1e-3, "augment": "surveillance", "seed": 0, "workers": 0}
ROWS, COLUMNS = 92, 72  # of the teacher's maps; the photographs are 90x70


def write_teacher(photographs: Path, path: Path, *, taxonomy="densepose24", status="ok") -> Path:
    """A teacher that sees head, torso, legs and feet as bands of the photograph, with an upper arm at the right."""
    native = np.zeros((ROWS, COLUMNS), np.uint8)
    for label, start in zip((23, 2, 9, 13, 6), (18, 34, 50, 62, 70), strict=True):
        native[start:] = label
    native[34:50, 40:] = 15
    files = sorted((photographs / "photos").glob("*.jpg"))
    arrays = parts_arrays(ROWS, COLUMNS, uv=False)
    chunks = {name: compress(np.zeros(shape, np.uint8)) for name, shape in arrays.items()}
    chunks["native"] = compress(native)
    keys = [f"gallery/photos/{file.name}" for file in files]
    rows = [{**chunks, "key": key, "image_sha256": file_sha256(file), "status": status,
             "visibility": np.zeros(8, np.uint8)} for key, file in zip(keys, files, strict=True)]
    write_cache(path, count=len(rows), arrays=arrays, columns=parts_columns(keys), rows=rows,
                maker=json.dumps({"parser": "bodypix", "taxonomy": taxonomy}))
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return write_ccp(tmp_path_factory.mktemp("ccp"))


@pytest.fixture(scope="module")
def teacher(photographs, tmp_path_factory) -> Path:
    return write_teacher(photographs, tmp_path_factory.mktemp("teacher") / "parts.h5")


def taught(photographs, teacher, part="train", height=HEIGHT, width=WIDTH) -> TaughtPhotographs:
    return TaughtPhotographs(photographs, part, layout="ccp", teacher=teacher, height=height, width=width)


def stage(folder, photographs, teacher, **changes):
    run(bare_experiment(params={"taught": {"small": STAGE | changes}, "threads": torch.get_num_threads()},
                        plan={"train_taught": {"small": {"rendered": str(folder), "raw": str(photographs),
                                                         "teacher": str(teacher), "start": str(folder)}}}), "small")


def test_a_photograph_is_hair_clothes_jeans_and_boots_as_the_teacher_divides_them(photographs, teacher):
    found = taught(photographs, teacher)
    assert (len(found), found.taxonomy, found.uv) == (8, "densepose24", False)
    for place, (image, labels, uv) in enumerate(found):
        assert image.shape[:2] == labels.shape == uv.shape[:2] and not uv.any() and len(labels) <= 2 * TALL
        names, counts = np.unique(DENSEPOSE24_TO_PARTS8[labels[labels != UNKNOWN]], return_counts=True)
        assert {*names, 3} == {0, 1, 2, 3, 5, 6, 7}, place  # and no lower arm, which nobody saw
        rows = [np.argwhere(DENSEPOSE24_TO_PARTS8[labels % 25] == part)[:, 0].mean() for part in (1, 2, 5, 6, 7)]
        assert rows == sorted(rows)
        cut_out = found.sample(place)
        assert cut_out[0].shape == (HEIGHT, WIDTH, 3) and (cut_out[1] > 0).mean() > (labels > 0).mean()
    assert np.isclose(label_shares(found).sum(), 1)
    assert {*taught(photographs, teacher, "val").paths, *found.paths} == {f"photos/{n:04d}.jpg" for n in range(1, 11)}
    with pytest.raises(IndexError):
        found[8]


def test_every_batch_has_its_photographs_and_only_the_others_have_uv(folder, photographs, teacher):
    people, found = pictures_of(folder), taught(photographs, teacher)
    mixture = Mixture(people, found, of_batch=1, batch=4, seed=0, augment="surveillance")
    whole = list(training_batches(mixture, batch=4, start=0, stop=10, workers=0))
    part = list(training_batches(mixture, batch=4, start=7, stop=10, workers=1))
    for one, other in zip(whole[7:], part, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    seen = torch.stack([batch["row"] for batch in whole])
    assert (seen[:, 0] < len(found)).all() and (seen[:, 1:] >= len(found)).all()
    assert sorted(seen[:8, 0].tolist()) == list(range(8))  # each photograph once before any comes again
    assert sorted(seen[:, 1:].flatten()[:8].tolist()) == [8 + row for row in range(8)]
    for batch in whole:
        assert batch["has_uv"].tolist() == [False, True, True, True] and not batch["uv"][0].any()
        assert batch["image"].shape == (4, 3, HEIGHT, WIDTH)
    other = next(training_batches(Mixture(people, found, of_batch=1, batch=4, seed=1, augment="flip"), batch=4, start=0,
                                  stop=1, workers=0))
    assert (other["labels"][1:] != UNKNOWN).all()  # `flip` leaves rendered people whole


def test_the_stage_trains_measures_both_and_what_came_out_may_be_given_on(folder, photographs, teacher, tmp_path,
                                                                         monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stage(folder, photographs, teacher)
    written = Path("data/parsers/small/weights.safetensors").read_bytes()
    assert "train: 8 photographs are here, published are 804" in capsys.readouterr().err
    scores = json.loads(Path("data/results/parsers/small.json").read_text())
    rendered, real = scores["details"]
    assert scores["mIoU"] == rendered["miou8"] and scores["mIoU_photographs"] == real["miou8"]
    assert real["held_out"] == "photographs" and "uv_error" in rendered and "uv_error" not in real
    assert (rendered["images"], real["images"], rendered["image_steps"]) == (5, 2, 8)

    source = Path("data/parsers/small/weights.safetensors")
    stage(folder, photographs, teacher)
    assert source.read_bytes() == written
    release(source, Path("data/parsers/small.safetensors"))
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["bytes"] < 4_000_000 and told["sha256"] == file_sha256("data/parsers/small.safetensors")
    assert read_parser_scores(Path("data/parsers/small.safetensors")) == rendered
    whole, half = load_parser(source), load_parser("data/parsers/small.safetensors")
    for name, value in whole.state_dict().items():
        assert half.state_dict()[name].dtype == value.dtype, name
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(half.state_dict()[name], expected), name

    stage(folder, photographs, teacher, init="data/parsers/small.safetensors", seed=1)
    assert source.read_bytes() != written


@pytest.mark.parametrize(("changes", "words"), [
    ({"share": 0.0}, r"taught\.small: share is 0\.0 and batch 4, so that a batch has 0 photographs"),
    ({"share": 1.0}, "has 4 photographs; it has at least one, and one rendered person"),
    ({"init": "imagenet"}, "torchvision has no such weights of lraspp-reduced"),
])
def test_settings_that_cannot_be_are_refused(folder, photographs, teacher, tmp_path, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        stage(folder, photographs, teacher, **changes)
    assert "\n" not in str(caught.value)


def test_a_teacher_of_other_pictures_or_labels_is_refused_by_name(photographs, tmp_path, teacher):
    other = write_teacher(write_ccp(tmp_path / "other", 3), tmp_path / "other.h5")
    with pytest.raises(InputError, match="other.h5': is a teacher's cache of other pictures: .*photos/.*jpg' is none "):
        taught(photographs, other)
    changed = taught(photographs, teacher).files[4].image
    kept = changed.read_bytes()
    write_image(changed, np.full((90, 70, 3), 9, np.uint8))
    with pytest.raises(InputError, match=rf"{changed.name}' is none of its 10 \(1 of 8 photographs are not\)"):
        taught(photographs, teacher)
    changed.write_bytes(kept)
    with pytest.raises(InputError, match=r"lip\.h5': has the labels lip20, and a teacher divides .* densepose24"):
        taught(photographs, write_teacher(photographs, tmp_path / "lip.h5", taxonomy="lip20"))
    with pytest.raises(InputError, match=r"none of its 0 \(8 of 8 photographs are not\)"):
        taught(photographs, write_teacher(photographs, tmp_path / "failed.h5", status="failed: damaged"))
    with pytest.raises(InputError, match="absent.h5': no such cache"):
        taught(photographs, tmp_path / "absent.h5")


def test_a_photograph_whose_labels_show_nobody_is_left_out_and_all_of_them_are_refused(tmp_path):
    write_ccp(tmp_path)
    maker = write_teacher(tmp_path, tmp_path / "parts.h5")
    whole = taught(tmp_path, maker)
    nobody = {"groundtruth": np.zeros((90, 70), np.uint8)}
    savemat(whole.files[0].labels, nobody)
    rest = taught(tmp_path, maker)
    assert rest.paths == whole.paths[1:] and len(rest) == len(rest.rows) == len(rest.kept) == len(whole) - 1
    assert all(np.array_equal(mine, yours) for mine, yours in zip(rest[0], whole[1], strict=True))
    assert f"the labels of 1 photograph ('{whole.paths[0]}' first) show nobody, and are left out" in rest.remark()

    for file in whole.files:
        savemat(file.labels, nobody)
    with pytest.raises(InputError, match=r"the labels of all \d+ photographs \(train\) show nobody") as caught:
        taught(tmp_path, maker)
    assert "\n" not in str(caught.value)


def test_photographs_without_labels_are_refused(tmp_path):
    write_ccp(tmp_path)
    maker = write_teacher(tmp_path, tmp_path / "parts.h5")
    for file in (tmp_path / "annotations/pixel-level").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="pixel-level': holds no .mat, so no photograph has labels"):
        taught(tmp_path, maker)
