"""The stages train and embed on a made-up set: features that depend on their image alone, and refusals."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

from models.histogram import Histogram
from models.sgam import Sgam
from pipeline.base import code
from pipeline.base.body_parts import PARTS8_TO_PARTS4
from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import write_image
from pipeline.config.loader import Experiment
from pipeline.config.paths import cache, weights
from pipeline.datasets.index import read_index
from pipeline.loading.augmentation import Chance
from pipeline.loading.dataset import Images, embedding_rows, ordered_batches, training_rows
from pipeline.loading.device_batch import finished
from pipeline.retrieval.features import embed_images, read_features
from pipeline.training.checkpoints import load_weights, read_weights
from stages import embed, train
from stages.shared.trained_run import _crop_of, build, open_run
from tests.helpers import fake_set
from tests.helpers.bare_params import bare_experiment, embed_entry
from tests.helpers.fake_runs import DATA, MODELS, RAW, READS, fake_experiment, fake_sections
from tests.helpers.fake_set import HEIGHT, WIDTH, fake_probabilities, write_fake_caches, write_fake_set

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder where each network was trained and has embedded the made-up set."""
    folder = tmp_path_factory.mktemp("project")
    frame = write_fake_set(folder / "data/raw", folder / f"data/index/{DATA}.csv")
    write_fake_caches(folder / f"data/cache/{DATA}", folder / "data/raw", frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in MODELS:
            train.run(fake_experiment(), name)
            embed.run(fake_experiment(), name)
        yield folder
    torch.use_deterministic_algorithms(False)


def opened(run: str, experiment: Experiment) -> Any:
    """A trained run's network."""
    return open_run(experiment.run(run), key=run, weights=weights(run), match=experiment.params.results[run].match
                    ).network


def _features(name: str) -> h5py.File:
    return h5py.File(f"data/features/{name}/{DATA}.h5")


@pytest.mark.parametrize("name", MODELS)
def test_features_are_what_evaluation_reads(project, name):
    found = read_features(f"data/features/{name}/{DATA}.h5")
    index = read_index(f"data/index/{DATA}.csv")
    assert found.query_key.tolist() == index.loc[index["split"] == "query", "image"].tolist()
    assert found.gallery.pid.tolist() == index.loc[index["split"] == "gallery", "pid"].tolist()
    assert found.provenance["weights_sha256"] == file_sha256(f"data/runs/{name}/weights.safetensors")
    assert found.provenance["model"] == name and found.provenance["train_on"] == DATA
    assert list(found.provenance["caches"]) == ([str(cache(DATA, READS[name]))] if name in READS else [])


@pytest.mark.parametrize("name", ["baseline", "sorn", "sgam"])
def test_training_again_gives_the_same_bytes(project, name):
    paths = [f"data/runs/{name}/weights.safetensors", f"data/runs/{name}/train.json",
             f"data/features/{name}/{DATA}.h5"]
    before = [file_sha256(path) for path in paths]
    train.run(fake_experiment(workers=1), name)
    embed.run(fake_experiment(workers=1), name)
    assert [file_sha256(path) for path in paths] == before


def test_training_leaves_its_record_and_nothing_unfinished(project):
    record = json.loads((project / "data/runs/sorn/train.json").read_text())
    assert record["ids"] == 6 and record["images"] == 24
    assert record["index_sha256"] == file_sha256(f"data/index/{DATA}.csv")
    parts = str(cache(DATA, "parts.h5"))
    assert record["caches"][parts]["sha256"] == file_sha256(parts)
    logged = (project / "data/runs/sorn/live/plots/metrics/loss.tsv").read_text().splitlines()
    assert len(logged) == 1 + 3 and record["final"]["loss"] == float(logged[-1].split("\t")[1])
    assert all(left.name.startswith("lock-") for left in (project / "scratch").glob("train/*"))


def test_stripes_can_be_told_from_outside(project):
    """SORN Table III: joints (+P), and the mask of a network that only segments (+S)."""
    params, plan = fake_sections()
    segments = params["runs"]["sorn"] | {"model": MODELS["sorn"] | {"use_global": False, "use_local": False}}
    params["runs"]["segments"], params["results"]["segments"] = segments, params["results"]["sorn"]
    params["results"]["told"] = params["results"]["sorn"]
    plan["train"]["segments"] = plan["train"]["sorn"]
    train.run(bare_experiment(params=params, plan=plan), "segments")
    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    joints = np.zeros((len(frame), 18, 3), np.float32)
    joints[:, 0] = 3, 2, 1                                # one in the upper stripe
    joints[::3, 1] = 3, HEIGHT - 2, 1                     # and of every third image one in the lower
    with h5py.File("data/raw/labels.h5", "w") as file:
        file["path"], file["joints"] = frame["path"].tolist(), joints
        file["size"] = np.full((len(frame), 2), (HEIGHT, WIDTH))

    def visibility(seen_by):
        entry = embed_entry("sorn", model="sorn", dataset=DATA, raw=RAW, result="told", seen_by=seen_by)
        embed.run(bare_experiment(params=params, plan=plan | {"embed_seen": {"told": entry}}), "told")
        with h5py.File(f"data/features/told/{DATA}.h5") as file:
            return file["visibility"][:]

    np.testing.assert_array_equal(visibility("data/raw/labels.h5")[:, 1:],
                                  np.stack([np.ones(len(frame)), np.arange(len(frame)) % 3 == 0], 1))
    told = visibility("data/runs/segments/weights.safetensors")
    network = opened("segments", bare_experiment(params=params, plan=plan))
    images = Images(frame, raw=RAW, cache=None, height=HEIGHT, width=WIDTH)
    with torch.no_grad():
        for batch in itertools.islice(ordered_batches(images, batch=1, workers=0, device=CPU), 0, None, 7):
            image, row = batch["image"], int(batch["row"])
            mask = network.eval().maps({"image": image})[1][0]
            shares = [float(half.mean()) for half in mask.split(len(mask) // 2)]
            assert told[row].tolist() == [1.0, *(float(share >= 0.15) for share in shares)]
    with pytest.raises(ValueError, match="segment only"):
        network.embed({"image": image})
    entry = embed_entry("baseline", model="baseline", dataset=DATA, raw=RAW, seen_by="data/raw/labels.h5")
    with pytest.raises(InputError, match="baseline has no stripes that could be told from outside"):
        embed.run(bare_experiment(params=params, plan=plan | {"embed_seen": {"x": entry}}), "x")


def test_what_training_measured_stays_with_the_weights(project):
    """SGAM's crop and medians, SGSFA's medians: from the cache's own numbers."""
    frame = training_rows(read_index(f"data/index/{DATA}.csv"), max_ids=0)
    areas = np.stack([fake_probabilities(key, PARTS8_TO_PARTS4)[1:].mean((1, 2)) / 255 for key in frame["image"]])
    medians = [np.median(column[column > 0]) for column in areas.T]
    tensors, provenance = read_weights("data/runs/sgam/weights.safetensors")
    np.testing.assert_allclose(provenance["crop"]["medians"], medians)
    assert provenance["crop"]["thresholds"] == [0.2] * 4 and (tensors["medians"] > 0).all()
    tensors, provenance = read_weights("data/runs/sgsfa/weights.safetensors")
    np.testing.assert_allclose(tensors["medians"], medians, rtol=1e-5)
    assert "crop" not in provenance


@pytest.fixture
def cropped(tmp_path, monkeypatch):
    """A folder with pictures of 96 x 64 whose people stand in rows 8 .. 28 and columns 4 .. 12 of 32 x 16 labels."""
    monkeypatch.chdir(tmp_path)
    body = np.zeros((HEIGHT, WIDTH), np.uint8)
    body[8:28, 4:12] = np.repeat([1, 2, 5, 7], [8, 4, 4, 4])[:, None]
    monkeypatch.setattr(fake_set, "fake_labels", lambda key: body)
    frame = write_fake_set(tmp_path / "data/raw", tmp_path / f"data/index/{DATA}.csv")
    for number, path in enumerate(frame["path"]):
        noise = np.random.default_rng(number).integers(0, 256, (96, 64, 3)).astype(np.uint8)
        write_image(tmp_path / "data/raw" / path, noise)
    write_fake_caches(tmp_path / f"data/cache/{DATA}", tmp_path / "data/raw", frame)
    return tmp_path


# In pixels: rows 24 .. 84, columns 16 .. 48, and a twentieth of the sides more, 3 and 1.6, outwards.
BOX = np.s_[21:87, 14:50]


def seen_in_box(path: str) -> torch.Tensor:
    """The box of a picture as the network is to see it, by OpenCV."""
    rgb = cv2.cvtColor(cv2.imread(f"data/raw/{path}"), cv2.COLOR_BGR2RGB)[BOX]
    rgb = cv2.resize(np.ascontiguousarray(rgb), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) / 255
    return torch.tensor((rgb - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).permute(2, 0, 1).float()


def test_sgam_trains_and_embeds_what_its_crop_leaves(cropped, monkeypatch):
    taken: list[Images] = []
    batches = train.training_batches
    monkeypatch.setattr(train, "training_batches", lambda images, *args, **more: (taken.append(images),
                                                                                  batches(images, *args, **more))[1])
    train.run(fake_experiment(), "sgam")
    image = finished(taken[0].load([(-1, 5)]), CPU)["image"][0]
    expected = seen_in_box(taken[0].paths[5].removeprefix("data/raw/"))
    assert (image - expected).abs().max() < 1e-5

    embed.run(fake_experiment(), "sgam")
    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    network = opened("sgam", fake_experiment())
    body = torch.zeros(1, 5, 66, 36)  # the box's pixels: 3 rows and 2 columns of background around four parts
    body[:, 0] = 1
    for part, (top, bottom) in enumerate([(3, 27), (27, 39), (39, 51), (51, 63)], start=1):
        body[0, :, top:bottom, 2:34] = 0
        body[0, part, top:bottom, 2:34] = 1
    probs4 = body.repeat_interleave(HEIGHT // 4, 2).repeat_interleave(WIDTH // 4, 3)
    probs4 = probs4.unflatten(2, (HEIGHT // 4, 66)).unflatten(4, (WIDTH // 4, 36)).mean((3, 5))
    with _features("sgam") as file, torch.no_grad():
        for row in (0, 13, 29):
            image = seen_in_box(frame["path"][row])[None]
            features, visibility = network.embed({"image": image, "probs4": probs4})
            np.testing.assert_allclose(file["features"][row], features[0], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(file["visibility"][row], visibility[0], atol=1e-5)

    write_image(f"data/raw/{frame['path'][4]}", np.zeros((96, 64, 3), np.uint8))
    with pytest.raises(InputError, match="was made from another image than"):
        embed.run(fake_experiment(), "sgam")


def test_the_crop_is_by_the_medians_and_thresholds_that_were_recorded():
    """Head in the upper half; shoes in a corner, half of their median: visible below a threshold of 0.5."""
    maps = np.zeros((5, 16, 16), np.uint8)
    maps[0], maps[0, 2:8, 4:12], maps[1, 2:8, 4:12] = 255, 0, 255
    maps[0, 14:, 14:], maps[4, 14:, 14:] = 0, 255
    for threshold, box in ((0.4, (5, 13, 64, 64)), (0.6, (6, 14, 34, 50))):
        recorded = {"crop": {"medians": [0.1, 0.1, 0.1, 1 / 32], "thresholds": [threshold] * 4}}
        crop = _crop_of(Sgam, recorded, None)
        assert crop(maps, 64, 64) == box
    assert _crop_of(Sgam, {}, None) is None


def test_a_network_is_drawn_from_its_run_s_seed():
    weights = [build(fake_experiment(seed=seed).run("pcb"), key="pcb", ids=3, init="none",
                     match=fake_experiment().params.results["pcb"].match).backbone.conv1.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_training_augments_as_the_recipe_says(cropped, monkeypatch):
    taken: list[Images] = []

    def stop(images: Images, *_: Any, **__: Any) -> Any:
        taken.append(images)
        raise InputError("enough")

    monkeypatch.setattr(train, "training_batches", stop)
    for fill in ("image", "imagenet"):
        with pytest.raises(InputError, match="enough"):
            train.run(fake_experiment(augment={"flip": 0.25, "pad": 3, "erase": 0.75, "fill": fill}, seed=4), "sorn")
        assert taken[-1].chance == Chance(seed=4, flip=0.25, pad=3, erase=0.75, fill=fill)


def test_the_file_says_which_part_is_the_whole_body_and_only_where_there_is_one(project):
    """SGSFA's: the first part, which has no weight of its own."""
    for run in MODELS:
        with _features(run) as file:
            assert json.loads(file.attrs["maker"]).get("whole_body") == (0 if run == "sgsfa" else None)
            assert run != "sgsfa" or not file["visibility"][:, 0].any()


def test_features_are_the_network_s_own(project):
    """Against each image alone, through the plain colour histogram."""
    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    images = Images(frame, raw=RAW, cache=None, height=HEIGHT, width=WIDTH)
    network = Histogram(stripes=2, bins=4, match="all")
    with _features("histogram") as file:
        for row, batch in enumerate(ordered_batches(images, batch=1, workers=0, device=CPU)):
            np.testing.assert_allclose(file["features"][row], network.embed(batch)[0][0], atol=1e-6)
            assert file["key"].asstr()[row] == frame["image"][row]


def test_an_image_s_features_do_not_depend_on_its_neighbours(project):
    network = opened("baseline", fake_experiment())
    frame = embedding_rows(read_index(f"data/index/{DATA}.csv"))
    few = frame[3::7].reset_index(drop=True)
    found = []
    for rows in (frame, few):
        images = Images(rows, raw=RAW, cache=None, height=HEIGHT, width=WIDTH)
        batches = ordered_batches(images, batch=8, workers=0, device=CPU)
        found.append(embed_images(network, batches, count=len(rows), device=CPU)[0])
    np.testing.assert_array_equal(found[0][3::7], found[1])


def test_weights_of_another_run_are_refused(project):
    params, plan = fake_sections()
    params["runs"]["other"], params["results"]["other"] = params["runs"]["sorn"], params["results"]["sorn"]
    plan["embed"]["x"] = embed_entry("other", model="sorn", dataset=DATA, raw=RAW)
    (project / "data/runs/other").mkdir()
    (project / "data/runs/other/weights.safetensors").write_bytes(
        (project / "data/runs/baseline/weights.safetensors").read_bytes())
    with pytest.raises(InputError, match="run 'baseline' .model 'baseline'.*run 'other' .model 'sorn'"):
        embed.run(bare_experiment(params=params, plan=plan), "x")
    with pytest.raises(InputError, match="trained with seed 0, and runs.baseline says 1"):
        embed.run(fake_experiment(seed=1), "baseline")


def test_weights_that_do_not_fit_are_refused(project):
    tensors, _ = read_weights("data/runs/baseline/weights.safetensors")
    with pytest.raises(InputError, match="other.*backbone.bn1.bias.*is absent"):
        load_weights(opened("baseline", fake_experiment()),
                     {key: value for key, value in tensors.items() if key != "backbone.bn1.bias"}, "other")


@pytest.mark.parametrize(("change", "match"), [
    ({"ids_per_batch": 8}, "baseline: there are 6 identities and ids_per_batch is 8"),
    ({"height": 40}, "baseline: height is 40; make it a multiple of 16"),
    ({"backbone": "vgg"}, "baseline: (unknown )?backbone 'vgg'"),
    ({"init": "package"}, "baseline: init package: no package ships weights of resnet18"),
    ({"max_ids": 3, "batch": 4}, "baseline: there are 3 identities")])
def test_runs_that_cannot_be_trained_are_refused(project, change, match):
    with pytest.raises(InputError, match=match):
        train.run(fake_experiment(**change), "baseline")


def test_a_run_without_its_cache_is_refused(project):
    params, plan = fake_sections()
    for entry in (plan["train"]["sorn"], plan["embed"]["dsa"]["sets"][0]):
        entry["reads"] = RAW
    experiment = bare_experiment(params=params, plan=plan)
    with pytest.raises(InputError, match=r"runs.sorn.cache: is none, and sorn .* reads a parts.h5"):
        train.run(experiment, "sorn")
    with pytest.raises(InputError, match="embed.dsa, fake: reads: .* reads a dsap.h5"):
        embed.run(experiment, "dsa")


def test_a_stage_embeds_all_data_sets_and_after_a_bad_one_only_what_is_missing(project, monkeypatch):
    """The second's last image is damaged and mended: the first is embedded once, and both get the bytes of a stage
    of their own."""
    params, plan = fake_sections()
    index = f"data/index/{DATA}.csv"
    shutil.copytree("data/raw", "data/raw-2")
    shutil.copy(index, "data/index/second.csv")
    stage = embed_entry("baseline", model="baseline", dataset=DATA, raw=RAW)
    second = embed_entry("baseline", model="baseline", dataset="second", raw="data/raw-2")
    experiment = bare_experiment(params=params, plan=plan | {
        "embed": {"alone": second}, "embed_two": {"both": stage | {"sets": [*stage["sets"], *second["sets"]]}}})
    files = [f"data/features/baseline/{name}.h5" for name in (DATA, "second")]
    embed.run(experiment, "alone")
    expected = [file_sha256(file) for file in files]

    counted: list[int] = []
    made = embed.embed_images
    monkeypatch.setattr(embed, "embed_images", lambda *given, count, **more: (
        counted.append(count), made(*given, count=count, **more))[1])
    image = Path("data/raw-2", embedding_rows(read_index(index))["path"].iloc[-1])
    whole = image.read_bytes()
    image.write_bytes(whole[:20])
    for file in files:
        Path(file).unlink()
    with pytest.raises(InputError, match=f"^plan.embed.both, second: '{image}'"):
        embed.run(experiment, "both")
    assert len(counted) == 2 and not any(Path(file).exists() for file in files)

    image.write_bytes(whole)
    embed.run(experiment, "both")
    assert len(counted) == 3 and [file_sha256(file) for file in files] == expected
    assert not list(Path("scratch/embed").iterdir())


def test_a_run_is_not_scored_on_another_set_s_people_whom_it_was_trained_on(project):
    """One training picture among another data set's gallery; in its own data set that is for prepare to say."""
    params, plan = fake_sections()
    raw, index = Path("data/raw-leaked"), read_index(f"data/index/{DATA}.csv")
    shutil.copytree(RAW, raw)
    shutil.copy(f"data/index/{DATA}.csv", "data/index/leaked.csv")
    seen, asked = (index.loc[index["split"] == split, "path"].iloc[0] for split in ("train", "gallery"))
    shutil.copy(Path(RAW, seen), raw / asked)
    plan["embed"]["x"] = embed_entry("baseline", model="baseline", dataset="leaked", raw=raw)
    plan["embed"]["untrained"] = embed_entry("histogram", model="histogram", dataset="leaked", raw=raw)
    with pytest.raises(InputError, match=f"^plan.embed.x, leaked: run 'baseline' was trained on '{DATA}', and that has "
                                         "1 of the people whom 'leaked' asks for"):
        embed.run(bare_experiment(params=params, plan=plan), "x")
    embed.run(bare_experiment(params=params, plan=plan), "untrained")


def test_what_is_unfinished_is_taken_for_what_it_was_made_of(project, monkeypatch):
    """A damaged file under scratch, and one of other images or by other code, are made again."""
    params, plan = fake_sections()
    opened_run = open_run(fake_experiment().run("baseline"), key="baseline", weights=weights("baseline"),
                          match=fake_experiment().params.results["baseline"].match)
    experiment = bare_experiment(params=params, plan=plan)
    entry = experiment.plan.embed["baseline"]

    def name() -> Path:
        return embed.embedded(experiment, entry, entry.sets[0], opened_run, device=CPU)

    file = name()
    expected = file.read_bytes()
    file.write_bytes(expected[:-100])
    assert name().read_bytes() == expected
    image = Path(RAW, embedding_rows(read_index(f"data/index/{DATA}.csv"))["path"].iloc[0])
    whole = image.read_bytes()
    write_image(image, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    other = name()
    assert other != file and other.read_bytes() != expected
    image.write_bytes(whole)
    for made in (file, other):
        made.unlink()

    monkeypatch.setattr(code, "ROOT", project / "code")
    network, stage = project / "code/models/baseline.py", project / "code/stages/embed.py"
    for file in (network, stage):
        file.parent.mkdir(parents=True)
        file.write_text("")
    by_code = []
    for text in ("a = 1\n", "a = 1\n", "a = 2\n"):
        network.write_text(text)
        by_code.append(name())
    assert by_code[0] == by_code[1] != by_code[2]
    for made in {*by_code}:
        made.unlink()
