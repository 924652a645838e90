"""From disk to batches: the same whatever loads them, with what the caches hold, and errors that name files."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from pipeline.base.body_parts import PARTS8_TO_PARTS4
from pipeline.base.errors import InputError
from pipeline.base.images import IMAGENET_MEAN, IMAGENET_STD, read_image, write_image
from pipeline.base.seeds import rng
from pipeline.caches.cache import Cache
from pipeline.datasets.index import read_index
from pipeline.loading.augmentation import Chance
from pipeline.loading.collate import collate
from pipeline.loading.dataset import (
    Images,
    embedding_rows,
    images_sha256,
    ordered_batches,
    training_batches,
    training_rows,
)
from pipeline.loading.device_batch import finished
from pipeline.loading.samplers import Batches
from tests.helpers.fake_set import (
    HEIGHT,
    LEVELS,
    WIDTH,
    fake_dsap,
    fake_labels,
    fake_probabilities,
    write_fake_caches,
    write_fake_set,
)
from tests.helpers.plain_resize import plain_resize

CHANCE = Chance(seed=0, flip=0.5, pad=4, erase=0.5, fill="imagenet")
CPU = torch.device("cpu")
MEAN, STD = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fake")
    frame = write_fake_set(folder / "raw", folder / "index.csv")
    write_fake_caches(folder, folder / "raw", frame)
    return folder


def _pictures(folder, cache=None, rows=lambda index: training_rows(index, max_ids=0), **more) -> Images:
    frame = rows(read_index(folder / "index.csv"))
    return Images(frame, raw=folder / "raw", cache=cache and folder / cache, height=HEIGHT, width=WIDTH, **more)


def _steps(pictures: Images, *, workers: int, start: int = 0) -> list[dict[str, torch.Tensor]]:
    batches = Batches(pictures.targets, batch=6, ids_per_batch=3, seed=0)
    return list(training_batches(pictures, batches, start=start, stop=7, workers=workers, device=CPU))


def _one(pictures: Images, number: int, row: int) -> dict[str, np.ndarray]:
    """What a network gets of one picture."""
    batch = finished(pictures.load([(number, row)]), CPU, pieces=pictures.pieces)
    return {name: tensor[0].numpy() for name, tensor in batch.items()}


def _assert_equal(left: list, right: list) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("cache", ["parts.h5", "dsap.h5"])
def test_workers_and_resuming_change_nothing(fake, cache):
    pictures = _pictures(fake, cache, chance=CHANCE)
    alone = _steps(pictures, workers=0)
    _assert_equal(_steps(pictures, workers=2), alone)
    _assert_equal(_steps(pictures, workers=2, start=4), alone[4:])
    other = _pictures(fake, cache, chance=dataclasses.replace(CHANCE, seed=1))
    assert not torch.equal(_steps(other, workers=0)[0]["image"], alone[0]["image"])


def test_each_image_s_uniform_is_its_draw_s_alone(fake):
    """From its own named stream: whichever process loads it and whatever is augmented; and only where asked for."""
    pictures = _pictures(fake, "parts.h5", arrays=("probs4", "uniform"), chance=CHANCE)
    alone, shared = _steps(pictures, workers=0), _steps(pictures, workers=2)
    _assert_equal(shared, alone)
    found = torch.cat([batch["uniform"] for batch in alone])
    naive = [rng(0, "uniform", number).random(dtype=np.float32) for number in range(len(found))]
    assert found.tolist() == [float(value) for value in naive] and found.dtype == torch.float32
    assert len(set(found.tolist())) == len(found) and found.min() >= 0 and found.max() < 1
    still = dataclasses.replace(CHANCE, flip=0.0, pad=0, erase=0.0)
    assert torch.equal(_steps(_pictures(fake, "parts.h5", arrays=("uniform",), chance=still), workers=0)[0]["uniform"],
                       alone[0]["uniform"])
    assert "uniform" not in _steps(_pictures(fake, "parts.h5", arrays=("probs4",), chance=CHANCE), workers=0)[0]


def test_a_picture_is_augmented_anew_each_time(fake):
    pictures = _pictures(fake, chance=CHANCE)
    first = [_one(pictures, number, 3)["image"] for number in range(8)]
    assert len({image.tobytes() for image in first}) > 5


def test_every_draw_from_0_on_is_a_chance_and_ordered_batches_have_none(fake):
    always = _pictures(fake, chance=Chance(seed=0, flip=1, pad=0, erase=0, fill="imagenet"))
    plain = _pictures(fake)
    for number in (0, 1, 7):
        np.testing.assert_array_equal(_one(always, number, 3)["image"], _one(plain, -1, 3)["image"][:, :, ::-1])
    ordered = [[batch["image"] for batch in ordered_batches(pictures, batch=7, workers=0, device=CPU)]
               for pictures in (always, plain)]
    assert all(torch.equal(one, other) for one, other in zip(*ordered, strict=True))


def test_a_picture_s_row_of_the_cache_is_its_key_s(fake):
    """Queries and gallery stand behind the training part in the index and in the caches."""
    asked = []

    def crop(probabilities, height, width):
        asked.append(probabilities)
        return 0, 0, height, width

    frame = embedding_rows(read_index(fake / "index.csv"))
    parts = _pictures(fake, "parts.h5", rows=embedding_rows, arrays=("labels", "probs4"), crop=crop)
    warps = _pictures(fake, "dsap.h5", rows=embedding_rows, arrays=("dsap",))
    for row in (0, 11, 29):
        key = frame["image"][row]
        found = _one(parts, -1, row)
        np.testing.assert_array_equal(asked[-1], fake_probabilities(key, PARTS8_TO_PARTS4))
        np.testing.assert_array_equal(found["labels"], fake_labels(key)[::4, ::4])
        np.testing.assert_array_equal(found["probs4"] * 255, fake_probabilities(key, PARTS8_TO_PARTS4))
        np.testing.assert_array_equal(_one(warps, -1, row)["valid"], fake_dsap(key)[1] == 1)


@pytest.mark.parametrize("fill", ["imagenet", "image"])
def test_what_is_erased_becomes_what_the_chance_says(fake, fill):
    """The mean of the picture itself, by hand from the file, or ImageNet's, which is 0."""
    pictures = _pictures(fake, chance=Chance(seed=3, flip=0, pad=0, erase=1, fill=fill))
    plain = _pictures(fake, chance=Chance(seed=3, flip=0, pad=0, erase=0, fill=fill))
    for row in (2, 9):
        image, whole = _one(pictures, row, row)["image"], _one(plain, row, row)["image"]
        erased = (image != whole).any(0)
        rgb = read_image(pictures.paths[row]) / 255
        mean = (rgb.mean((0, 1)) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225] if fill == "image" else np.zeros(3)
        assert 0.02 * 0.5 < erased.mean() < 0.45
        np.testing.assert_allclose(image[:, erased], np.broadcast_to(mean[:, None], (3, erased.sum())), atol=1e-5)
        rows, columns = (np.flatnonzero(erased.any(axis)) for axis in (1, 0))
        assert erased[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].mean() > 0.95  # one rectangle


def test_batches_hold_what_is_on_disk(fake):
    pictures = _pictures(fake, "parts.h5", arrays=("labels",))
    frame = training_rows(read_index(fake / "index.csv"), max_ids=0)
    batch = _steps(pictures, workers=0)[0]
    for place, row in enumerate(batch["row"].tolist()):
        line = frame.iloc[row]
        assert batch["pid"][place] == line["pid"] and batch["camid"][place] == line["camid"]
        np.testing.assert_array_equal(batch["labels"][place], fake_labels(line["image"])[::4, ::4])
    dsap = _one(_pictures(fake, "dsap.h5", arrays=("dsap",)), -1, 5)
    values, valid = fake_dsap(frame["image"][5])
    np.testing.assert_array_equal(dsap["valid"], valid == 1)
    back = (dsap["dsap"].transpose(0, 2, 3, 1) * IMAGENET_STD + IMAGENET_MEAN) * 255 * valid[..., None]
    np.testing.assert_allclose(back, values, atol=0.01)


@pytest.mark.parametrize("alignment", ["csa", "dsap"])
def test_pieces_of_a_flipped_picture_are_mirrored_by_columns_and_a_hand_s_chart_by_rows(fake, tmp_path, alignment):
    """Whichever the cache's maker says it holds, all the way into a training batch: the left hand (4) of a flipped
    picture is its right hand's (3), as a piece mirrored by columns, as a chart by rows, u -> 1 - u."""
    index = read_index(fake / "index.csv")
    write_fake_caches(tmp_path, fake / "raw", index, warps_maker=json.dumps({"alignment": alignment}))
    frame = training_rows(index, max_ids=0)
    pictures = Images(frame, raw=fake / "raw", cache=tmp_path / "dsap.h5", height=HEIGHT, width=WIDTH,
                      arrays=("dsap",), chance=Chance(seed=0, flip=1, pad=0, erase=0, fill="imagenet"))
    batch = _steps(pictures, workers=0)[0]
    for place, row in enumerate(batch["row"].tolist()):
        dsap, valid = fake_dsap(frame["image"][row])
        hand, shown = (dsap[2][:, ::-1], valid[2][:, ::-1]) if alignment == "csa" else (dsap[2][::-1], valid[2][::-1])
        np.testing.assert_array_equal(batch["valid"][place, 3], shown == 1)
        back = batch["dsap"][place, 3].permute(1, 2, 0).numpy() * IMAGENET_STD + IMAGENET_MEAN
        np.testing.assert_allclose(back * 255 * shown[..., None], hand, atol=0.01)


def test_labels_follow_their_picture(fake, tmp_path):
    """Images painted from their labels: after augmentation each cell of labels still names its pixels' grey."""
    frame = training_rows(read_index(fake / "index.csv"), max_ids=0)
    for key, path in zip(frame["image"], frame["path"], strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / path, LEVELS[fake_labels(key)][..., None].repeat(3, 2))
    write_fake_caches(tmp_path, tmp_path, frame)
    pictures = Images(frame, raw=tmp_path, cache=tmp_path / "parts.h5", height=HEIGHT, width=WIDTH, chance=CHANCE,
                      arrays=("labels", "labels16", "probs8", "probs4", "entropy"))
    for number in range(48):
        item = _one(pictures, number, number % len(frame))
        grey = ((item["image"] * IMAGENET_STD[:, None, None] + IMAGENET_MEAN[:, None, None]) * 255)[0]
        seen = np.abs(grey[..., None] - LEVELS.astype(float)).argmin(-1)
        seen[(item["image"] == 0).all(0)] = 0
        cells = seen.reshape(HEIGHT // 4, 4, WIDTH // 4, 4).transpose(0, 2, 1, 3).reshape(HEIGHT // 4, WIDTH // 4, 16)
        counts = (cells[..., None] == np.arange(8)).sum(2)
        np.testing.assert_array_equal(item["labels"], counts.argmax(-1))
        whole = counts.reshape(HEIGHT // 16, 4, WIDTH // 16, 4, 8).sum((1, 3))
        np.testing.assert_array_equal(item["labels16"], whole.argmax(-1))
        np.testing.assert_allclose(item["probs8"], counts.transpose(2, 0, 1) / 16, atol=1e-6)
        groups = (PARTS8_TO_PARTS4[cells][..., None] == np.arange(5)).sum(2)
        np.testing.assert_allclose(item["probs4"], groups.transpose(2, 0, 1) / 16, atol=1e-6)
        np.testing.assert_allclose(item["entropy"], cells.mean(-1) * 30 / 255, atol=1e-6)


def test_a_side_that_grows_while_the_other_shrinks_is_bilinear(fake, tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT // 2, 2 * WIDTH, 3)).astype(np.uint8)
    write_image(tmp_path / "a.png", rgb)
    frame = training_rows(read_index(fake / "index.csv"), max_ids=0).iloc[:1].assign(path="a.png")
    shown = _one(Images(frame, raw=tmp_path, cache=None, height=HEIGHT, width=WIDTH), -1, 0)["image"]
    expected = (plain_resize(rgb, HEIGHT, WIDTH).transpose(2, 0, 1) / 255 - MEAN) / STD
    np.testing.assert_allclose(shown, expected, atol=0.51 / 255 / STD.min())


def test_a_crop_is_what_a_picture_cut_beforehand_gives(fake):
    frame = training_rows(read_index(fake / "index.csv"), max_ids=0)
    box, asked = (4, 0, 28, 12), []

    def crop(probabilities, height, width):
        asked.append((probabilities, height, width))
        return box

    cropped = _one(_pictures(fake, "parts.h5", arrays=("probs4",), crop=crop), -1, 3)
    rgb = read_image(fake / "raw" / frame["path"][3])[4:28, 0:12]
    expected = (plain_resize(rgb, HEIGHT, WIDTH).transpose(2, 0, 1) / 255 - MEAN) / STD
    np.testing.assert_allclose(cropped["image"], expected, atol=1.01 / 255 / STD.min())  # a byte: OpenCV rounds twice
    np.testing.assert_array_equal(asked[0][0], fake_probabilities(frame["image"][3], PARTS8_TO_PARTS4))
    assert asked[0][1:] == (HEIGHT, WIDTH)
    pixels = fake_probabilities(frame["image"][3], PARTS8_TO_PARTS4).repeat(4, 1).repeat(4, 2)[:, 4:28, 0:12] / 255
    fine = pixels.repeat(HEIGHT // 4, 1).repeat(WIDTH // 4, 2)  # 24 x 12 pixels into 8 x 4 cells, by means
    cells = fine.reshape(5, HEIGHT // 4, 24, WIDTH // 4, 12).mean((2, 4))
    np.testing.assert_allclose(cropped["probs4"], cells, atol=1e-6)


def test_classes_count_the_training_people(fake):
    index = read_index(fake / "index.csv")
    index.loc[index["pid"] == 1, "pid"] = -1
    frame = training_rows(index, max_ids=3)
    assert sorted(set(zip(frame["pid"], frame["target"], strict=True))) == [(0, 0), (2, 1), (3, 2)]
    assert set(frame["split"]) == {"train"}
    with pytest.raises(InputError, match="no training images"):
        training_rows(index[index["split"] != "train"], max_ids=0)
    with pytest.raises(InputError, match="no query and gallery images"):
        embedding_rows(index[index["split"] == "train"])


def test_nobody_is_neither_query_nor_gallery(fake):
    index = read_index(fake / "index.csv")
    index.loc[index["split"] == "gallery", "pid"] = -1
    assert set(embedding_rows(index)["split"]) == {"query"}


def test_the_digest_of_images_is_of_their_keys_and_bytes(fake):
    frame = training_rows(read_index(fake / "index.csv"), max_ids=0)
    keys, paths = frame["image"], frame["path"]
    exchanged = [frame, frame.assign(path=paths.replace(paths[7], paths[8])),
                 frame.assign(image=keys.replace(keys[7], "train/other.jpg"))]
    assert len({images_sha256(each, fake / "raw", None) for each in exchanged}) == 3


def test_the_first_error_stands_for_a_batch_wherever_it_is():
    item, wrong = {"x": torch.zeros(2)}, InputError("a.jpg: is no image")
    assert collate([wrong, item]) is wrong and collate([item, wrong]) is wrong
    assert collate([item, item])["x"].shape == (2, 2)


def test_the_last_batch_repeats_its_last_picture(fake):
    pictures = _pictures(fake, rows=embedding_rows)
    rows = [batch["row"].tolist() for batch in ordered_batches(pictures, batch=8, workers=0, device=CPU)]
    assert [len(batch) for batch in rows] == [8] * 4
    assert sum(rows, []) == list(range(30)) + [29, 29]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_one_sentence_with_its_name(fake, workers):
    pictures = _pictures(fake)
    pictures.paths[4] = "train/nowhere.png"
    with pytest.raises(InputError) as error:
        list(ordered_batches(pictures, batch=5, workers=workers, device=CPU))
    assert "train/nowhere.png" in str(error.value) and "\n" not in str(error.value)


def test_labels_that_are_no_parts_are_refused(fake, tmp_path):
    shutil.copy(fake / "parts.h5", tmp_path / "parts.h5")
    with h5py.File(tmp_path / "parts.h5", "r+") as file:
        file["labels"][3, 0, 0] = 8
    frame = training_rows(read_index(fake / "index.csv"), max_ids=0)
    pictures = Images(frame, raw=fake / "raw", cache=tmp_path / "parts.h5", height=HEIGHT, width=WIDTH,
                        arrays=("labels",))
    with pytest.raises(InputError, match="parts.h5.*has a label 8, and the 8 parts end at 7"):
        list(ordered_batches(pictures, batch=6, workers=0, device=CPU))


def test_caches_of_other_images_and_of_images_without_a_parse_are_refused(fake, tmp_path, monkeypatch):
    index = read_index(fake / "index.csv")
    frame = training_rows(index, max_ids=0)
    assert images_sha256(frame, fake / "raw", fake / "parts.h5") == images_sha256(frame, fake / "raw", None)
    lacking = frame.assign(image=frame["image"].replace(frame["image"][7], "train/other.jpg"))
    with pytest.raises(InputError, match="parts.h5.*train/other.jpg"):
        images_sha256(lacking, fake / "raw", fake / "parts.h5")
    with pytest.raises(InputError, match="dsap.h5.*train/other.jpg"):
        Images(lacking, raw=fake / "raw", cache=fake / "dsap.h5", height=HEIGHT, width=WIDTH)
    status = np.array(["parsed"] * 9 + ["failed: NaN"] + ["parsed"] * (len(index) - 10), object)
    with monkeypatch.context() as patch:
        own, column = Cache.__contains__, Cache.column
        patch.setattr(Cache, "__contains__", lambda cache, name: name == "status" or own(cache, name))
        patch.setattr(Cache, "column", lambda cache, name: status if name == "status" else column(cache, name))
        with pytest.raises(InputError, match="parts.h5': holds no parse of '.*' .failed: NaN.; mend the image and run"):
            images_sha256(frame, fake / "raw", fake / "parts.h5")
    exchanged = frame.assign(path=frame["path"].replace(frame["path"][7], frame["path"][8]))
    with pytest.raises(InputError, match="parts.h5.*was made from another image"):
        images_sha256(exchanged, fake / "raw", fake / "parts.h5")
