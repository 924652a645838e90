"""The stage parse_crops on people painted in their own labels: what of each picture is parsed, by which rule, and what
training and embedding make of it."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.base.body_parts import DENSEPOSE24_TO_PARTS8, PARTS8_TO_PARTS4
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import read_image, write_image
from pipeline.caches.cache import Cache
from pipeline.config.loader import Experiment
from pipeline.config.paths import weights
from pipeline.datasets.index import read_index
from pipeline.inspection.soundness import inspect_cache
from pipeline.loading.dataset import Images, embedding_rows
from pipeline.loading.device_batch import finished
from pipeline.parsing import engine
from pipeline.training.checkpoints import read_weights
from stages import embed, parse, parse_crops, train
from stages.shared import cache_parsers
from stages.shared.trained_run import open_run
from tests.helpers.bare_params import bare_experiment
from tests.helpers.fake_runs import DATA, RAW, fake_sections
from tests.helpers.fake_set import HEIGHT, WIDTH, write_fake_set

CPU, BATCH = torch.device("cpu"), 8
KEY = f"{DATA}-by-{DATA}-0_2"
TALL, WIDE = 96, 64  # pixels of the pictures, three and four times those of the parser and of the network
EIGHT = torch.from_numpy(DENSEPOSE24_TO_PARTS8.astype(np.int64))


def painted(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """A parser of DensePose's 24 labels that knows each by its shade of red, and is less sure where it is green."""
    native = ((images[:, 0].int() + 5) // 10).clamp(0, 24)
    sure = 1 - images[:, 1].float()[..., None] / 1000
    parts8 = torch.nn.functional.one_hot(EIGHT[native.long()], 8) * sure + (1 - sure) / 8
    return {"native": native.to(torch.uint8), "parts8": parts8.permute(0, 3, 1, 2)}


class Painted(SimpleNamespace):
    """That parser as `load_parser` gives one; `seen`: the images of each forward pass."""

    def __init__(self) -> None:
        super().__init__(architecture="lraspp", taxonomy="densepose24", uv=False, height=HEIGHT, width=WIDTH, seen=[],
                         left=10**6)

    def parse(self, images: torch.Tensor, *, parts4: bool) -> dict[str, torch.Tensor]:
        assert not parts4
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen.append(images.clone())
        return painted(images)


def paint(number: int) -> np.ndarray:
    """(96, 64, 3): head, torso, legs and feet of a person, of another size and elsewhere in each picture; in every
    seventh nobody, in every third no feet."""
    random = np.random.default_rng(number)
    picture = np.zeros((TALL, WIDE, 3), np.uint8)
    picture[..., 1:] = random.integers(0, 256, (TALL, WIDE, 2))
    if number % 7 == 6:
        return picture
    top, left, unit = int(random.integers(0, 20)), int(random.integers(0, 24)), int(random.integers(6, 10))
    for label, rows, columns in ((23, slice(0, 2), slice(1, 3)), (2, slice(2, 5), slice(0, 4)),
                                 (9, slice(5, 7), slice(0, 4)), (5, slice(7, 8), slice(0, 3))):
        if label != 5 or number % 3:
            picture[top + rows.start * unit:top + rows.stop * unit, left + columns.start * unit:
                    left + columns.stop * unit, 0] = label * 10
    return picture


@pytest.fixture
def parser(monkeypatch) -> Painted:
    parser = Painted()
    monkeypatch.setattr(cache_parsers, "load_parser", lambda source, device: parser)
    return parser


@pytest.fixture
def project(tmp_path, monkeypatch, parser) -> Path:
    """A folder with the pictures and their parse."""
    monkeypatch.chdir(tmp_path)
    frame = write_fake_set(tmp_path / RAW, tmp_path / f"data/index/{DATA}.csv")
    for number, path in enumerate(frame["path"]):
        write_image(tmp_path / RAW / path, paint(number))
    Path("parser.safetensors").write_bytes(b"the parser")
    parse.run(experiment(), DATA)
    parser.seen.clear()
    return tmp_path


def experiment(*, crops: dict[str, Any] | None = None, plans: dict[str, Any] | None = None,
               model: dict[str, Any] | None = None, reads: str = f"data/cache/{KEY}/crops.h5") -> Experiment:
    """SGAM with `recrop: parse`. crops, plans: over those of params.yaml and plan.yaml; model: over the run's."""
    params, plan = fake_sections()
    params |= {"caches": {DATA: {"parser": "lraspp", "height": HEIGHT, "width": WIDTH, "batch": BATCH, "threads": 1}},
               "crops": {KEY: {"thresholds": [0.2] * 4, "scores": "normalised"} | (crops or {})}}
    params["runs"]["sgam"] |= {"cache": KEY, "model": params["runs"]["sgam"]["model"] | {"recrop": "parse"}
                               | (model or {})}
    parts, index = f"data/cache/{DATA}/parts.h5", f"data/index/{DATA}.csv"
    source = {"dataset": DATA, "index": index, "raw": RAW, "source": "parser.safetensors"}
    plan |= {"parse": {DATA: source},
             "parse_crops": {KEY: {**source, "cache": DATA, "owner": "default", "parts": parts, "train_index": index,
                                   "train_parts": parts} | (plans or {})}}
    plan["train"]["sgam"] |= {"cache": KEY, "reads": reads}
    plan["embed"]["sgam"]["sets"][0] |= {"reads": reads}
    return bare_experiment(params=params, plan=plan)


def box_by_hand(maps: np.ndarray, medians: np.ndarray, thresholds: list[float]) -> tuple[slice, slice]:
    """What is left of a picture of 96 x 64: its cells are 12 x 16 of these pixels."""
    s = np.minimum(maps[1:].mean((1, 2)) / 255 / medians, 1)
    cells = np.isin(maps.argmax(0), 1 + np.flatnonzero(s > thresholds))
    if not cells.any():
        return slice(0, TALL), slice(0, WIDE)
    sides = []
    for lines, pixels, cell in ((cells.any(1), TALL, 12), (cells.any(0), WIDE, 16)):
        start, stop = np.flatnonzero(lines)[[0, -1]] * cell + [0, cell]
        margin = (stop - start) / 20
        sides.append(slice(max(int(np.floor(start - margin)), 0), min(int(np.ceil(stop + margin)), pixels)))
    return sides[0], sides[1]


def medians_by_hand(maps: list[np.ndarray]) -> np.ndarray:
    """Of the regions' means over the pictures of whose argmax they are."""
    shows = [[(m.argmax(0) == part).any() for part in range(1, 5)] for m in maps]
    return np.array([np.median([m[part].mean() / 255 for m, shown in zip(maps, shows, strict=True) if shown[part - 1]])
                     for part in range(1, 5)])


def test_the_cropped_picture_goes_through_the_parser_again(project, parser):
    parse_crops.run(experiment(), KEY)
    index, whole = read_index(f"data/index/{DATA}.csv"), Cache(f"data/cache/{DATA}/parts.h5")
    maps = [whole.read("probs/parts4", row) for row in range(len(index))]
    medians = medians_by_hand([m for m, split in zip(maps, index["split"], strict=True) if split == "train"])
    crops = Cache(f"data/cache/{KEY}/crops.h5")
    np.testing.assert_allclose(crops.maker["training_medians"], medians, rtol=1e-12)
    assert crops.maker["crop"] == {"medians": crops.maker["training_medians"], "thresholds": [0.2] * 4}
    assert crops.maker["parts"] == whole.maker and crops.maker["source_sha256"] == file_sha256("parser.safetensors")

    kinds = set()
    for row, path in enumerate(index["path"]):
        rows, columns = box_by_hand(maps[row], medians, [0.2] * 4)
        assert crops.column("box")[row].tolist() == [rows.start, columns.start, rows.stop, columns.stop]
        cut = np.ascontiguousarray(read_image(Path(RAW) / path)[rows, columns])
        assert cut.shape[0] >= HEIGHT and cut.shape[1] >= WIDTH  # it shrinks on both axes, which OpenCV does right
        cut = cv2.resize(cut, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        parsed = painted(torch.from_numpy(cut).permute(2, 0, 1)[None])
        np.testing.assert_array_equal(crops.read("native", row), parsed["native"][0])
        np.testing.assert_array_equal(crops.read("labels", row), DENSEPOSE24_TO_PARTS8[parsed["native"][0]])
        eight = parsed["parts8"][0].unflatten(1, (HEIGHT // 4, 4)).unflatten(3, (WIDTH // 4, 4)).mean((2, 4))
        four = torch.stack([eight[torch.from_numpy(part == PARTS8_TO_PARTS4)].sum(0) for part in range(5)])
        np.testing.assert_allclose(crops.read("probs/parts4", row), four * 255, atol=4.99)  # less than a step
        kinds.add(((rows.stop - rows.start, columns.stop - columns.start) == (TALL, WIDE), crops.column("status")[row]))
    assert kinds == {(False, "parsed"), (True, "no person")}

    assert {tuple(images.shape) for images in parser.seen} == {(BATCH, 3, HEIGHT, WIDTH)}
    assert len(parser.seen) == -(-len(index) // BATCH) and not parser.seen[-1][len(index) % BATCH:].any()
    sound = inspect_cache(f"data/cache/{KEY}/crops.h5", index["image"].tolist())
    assert sound.sound, [check for check in sound.checks if check.wrong]
    crops.close()
    with h5py.File(f"data/cache/{KEY}/crops.h5", "r+") as file:
        file["box"][3] = 40, 10, 40, 30
    wrong = [check for check in inspect_cache(f"data/cache/{KEY}/crops.h5").checks if check.wrong]
    assert [(check.rule, check.examples) for check in wrong] == [
        ("box has rows and columns", [f"{index['image'][3]}: [40, 10, 40, 30]"])]


def test_thresholds_and_scores_are_the_crop_s(project):
    """A threshold of 1 hides every region that is not at its median; as printed, a pixel's worth of one is enough."""
    boxes = []
    for rule in ({}, {"thresholds": [1.0, 0.2, 1.0, 1.0]}, {"scores": "paper"}):
        parse_crops.run(experiment(crops=rule), KEY)
        boxes.append(Cache(f"data/cache/{KEY}/crops.h5").column("box").tolist())
    assert Cache(f"data/cache/{KEY}/crops.h5").maker["crop"]["medians"] is None
    areas = [sum((bottom - top) * (right - left) for top, left, bottom, right in kind) for kind in boxes]
    assert areas[1] < areas[0] <= areas[2]


def test_killed_it_goes_on_and_later_parses_only_what_is_new(project, parser, monkeypatch):
    parse_crops.run(experiment(), KEY)
    expected, count = file_sha256(f"data/cache/{KEY}/crops.h5"), len(parser.seen)
    shutil.rmtree(f"data/cache/{KEY}")
    parser.left = 6
    monkeypatch.setattr(engine, "TOGETHER", 1)
    with pytest.raises(KeyboardInterrupt):
        parse_crops.run(experiment(), KEY)
    parser.left = 10**6
    parser.seen.clear()
    parse_crops.run(experiment(), KEY)
    assert file_sha256(f"data/cache/{KEY}/crops.h5") == expected and 0 < len(parser.seen) < count

    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    write_image(Path(RAW) / frame["path"][0], paint(1000))
    parse.run(experiment(), DATA)
    parser.seen.clear()
    parse_crops.run(experiment(), KEY)
    appended = file_sha256(f"data/cache/{KEY}/crops.h5")
    assert len(parser.seen) == 1 and appended != expected
    parse_crops.run(experiment(), KEY)
    shutil.rmtree(f"data/cache/{KEY}")
    parse_crops.run(experiment(), KEY)
    assert file_sha256(f"data/cache/{KEY}/crops.h5") == appended


def test_training_and_embedding_see_the_crops_and_their_own_maps(project, monkeypatch):
    parse_crops.run(experiment(), KEY)
    taken: list[Images] = []
    batches = train.training_batches
    monkeypatch.setattr(train, "training_batches", lambda images, *args, **more: (taken.append(images),
                                                                                  batches(images, *args, **more))[1])
    train.run(experiment(), "sgam")
    crops, index = Cache(f"data/cache/{KEY}/crops.h5"), read_index(f"data/index/{DATA}.csv")

    def seen(key: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The crop of a picture, and the maps that were made of it."""
        row = index.index[index["image"] == key][0]
        top, left, bottom, right = crops.column("box")[row]
        cut = np.ascontiguousarray(read_image(Path(RAW) / index["path"][row])[top:bottom, left:right])
        cut = cv2.resize(cut, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) / 255
        image = torch.tensor((cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).permute(2, 0, 1).float()
        return image, torch.from_numpy(crops.read("probs/parts4", row) / 255).float()

    batch = finished(taken[0].load([(-1, row) for row in range(8)]), CPU)
    for place in range(8):
        image, maps = seen(taken[0].keys[place])
        assert (batch["image"][place] - image).abs().max() < 1e-5
        assert (batch["probs4"][place] - maps).abs().max() < 1e-6

    trains = index.index[index["split"] == "train"]
    tensors, provenance = read_weights(weights("sgam"))
    np.testing.assert_allclose(tensors["medians"], medians_by_hand([crops.read("probs/parts4", row) for row in trains]),
                               rtol=1e-6)
    assert provenance["crop"] == crops.maker["crop"]
    assert provenance["parameters"]["model"]["recrop"] == "parse"

    embed.run(experiment(), "sgam")
    made = experiment()
    network = open_run(made.run("sgam"), key="sgam", weights=weights("sgam"), match=made.params.results["sgam"].match
                       ).network
    with h5py.File(f"data/features/sgam/{DATA}.h5") as file, torch.no_grad():
        for row in (0, 6, 13, 29):
            image, maps = seen(file["key"].asstr()[row])
            features, visibility = network.embed({"image": image[None], "probs4": maps[None]})
            np.testing.assert_allclose(file["features"][row], features[0], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(file["visibility"][row], visibility[0], atol=1e-5)


def test_crops_of_another_rule_or_training_set_are_refused(project):
    parse_crops.run(experiment(), KEY)
    train.run(experiment(), "sgam")
    for wrong, said in (
            (experiment(crops={"thresholds": [0.2, 0.2, 0.25, 0.2]}),
             r"was cropped by thresholds \[0.2, 0.2, 0.25, 0.2\], and run 'sgam' crops by \[0.2, 0.2, 0.2, 0.2\]"),
            (experiment(crops={"max_ids": 3}), "was cropped by training images of SHA-256 [0-9a-f]{12}, and run"),
            (experiment(crops={"scores": "paper"}), r"was cropped by medians None, and run 'sgam' crops by \[0\.")):
        parse_crops.run(wrong, KEY)
        for stage, key in ((train, "sgam"), (embed, "sgam")):
            with pytest.raises(InputError, match=f"{KEY}/crops.h5': {said}"):
                stage.run(wrong, key)


def test_a_cache_of_the_other_kind_is_refused(project):
    """By its name and, under the right one, by what it holds."""
    parse_crops.run(experiment(), KEY)
    parts, crops = f"data/cache/{DATA}/parts.h5", f"data/cache/{KEY}/crops.h5"
    with pytest.raises(InputError, match="runs.sgam.cache: is .*parts.h5', and sgam with these .* reads a crops.h5"):
        train.run(experiment(reads=parts), "sgam")
    with pytest.raises(InputError, match="reads a parts.h5"):
        train.run(experiment(model={"recrop": "maps"}), "sgam")
    Path("other").mkdir()
    shutil.copy(parts, "other/crops.h5")
    with pytest.raises(InputError, match="'other/crops.h5' holds parses of whole images, and a crops.h5 is of crops"):
        train.run(experiment(reads="other/crops.h5"), "sgam")
    shutil.copy(crops, "other/parts.h5")
    with pytest.raises(InputError, match="'other/parts.h5' holds parses of crops, and a parts.h5 is of whole images"):
        train.run(experiment(model={"recrop": "maps"}, reads="other/parts.h5"), "sgam")
    train.run(experiment(), "sgam")
    with pytest.raises(InputError, match="plan.embed.sgam, fake: reads: is 'data/cache/fake/parts.h5'"):
        embed.run(experiment(reads=parts), "sgam")


def test_what_does_not_belong_together_is_one_sentence(project):
    frame = read_index(f"data/index/{DATA}.csv")
    path = Path(RAW) / frame["path"][4]
    kept = path.read_bytes()
    write_image(path, paint(2000))
    with pytest.raises(InputError, match="parts.h5': was made from another image than"):
        parse_crops.run(experiment(), KEY)
    path.write_bytes(kept)

    Path("parser.safetensors").write_bytes(b"another parser")
    with pytest.raises(InputError, match=r"parts.h5': was parsed with source_sha256 '.*', and its crops would be with"):
        parse_crops.run(experiment(), KEY)
    Path("parser.safetensors").write_bytes(b"the parser")

    pd.DataFrame(frame[frame["split"] != "train"]).to_csv("data/index/untaught.csv", index=False)
    with pytest.raises(InputError, match="crops.fake-by-fake-0_2: 'data/index/untaught.csv': .* no training images"):
        parse_crops.run(experiment(plans={"train_index": "data/index/untaught.csv"}), KEY)
    with pytest.raises(InputError, match="none/parts.h5': no such cache; make it with the stage parse"):
        parse_crops.run(experiment(plans={"parts": "none/parts.h5"}), KEY)

    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="have no parse"):
        parse.run(experiment(), DATA)
    with pytest.raises(InputError, match="parts.h5': holds no parse of 'gallery/.*failed"):
        parse_crops.run(experiment(), KEY)
    assert not Path(f"data/cache/{KEY}/crops.h5").exists()
