"""The papers' pictures: what stands at each place of them is what lists, weights and index say."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.base.images import fit, read_image
from pipeline.config import paths
from pipeline.config.loader import Experiment
from pipeline.datasets.index import read_index, write_index
from pipeline.loading.device_batch import normalise
from pipeline.reporting import plots
from pipeline.retrieval.features import write_features
from pipeline.training.checkpoints import save_weights
from stages import paper_figure, train
from stages.shared.trained_run import open_run
from tests.helpers.bare_params import Entry, bare_experiment
from tests.helpers.fake_runs import DATA, RAW, fake_sections
from tests.helpers.fake_set import HEIGHT, WIDTH, write_fake_set
from tests.reporting.test_results import count, decode

GRID, LINES = 140, 150  # pixels left of the images, where rows or lines have names
STEP = plots.CROP[0] + plots.GAP
HIDDEN = [0.1, 0.25, 0.6, 0.3, 0.5, 0.45]  # of the six queries
INDEX = paths.index(DATA)


def figure(*shows: str, number: int = 2, **more: Any) -> Entry:
    """What every kind of figure has."""
    return {"title": "A Fig. 1", "shows": list(shows), "names": list(shows), "trained_on": [DATA] * len(shows),
            "count": number, "dataset": DATA, "index": str(INDEX), "raw": RAW, "rendered": True} | more


def lists(*shows: str, features: str = "", **more: Any) -> Entry:
    ranks = dict(zip(("first", "second"), (str(paths.ranks("default", name)) for name in shows), strict=True))
    return figure(*shows, **more) | ranks | ({"features": features} if features else {})


def maps_of(kind: str, run: str, **more: Any) -> Entry:
    entry = figure(run, **more) | {"kind": kind, "shows": run, "name": run, "trained_on": DATA}
    del entry["names"]
    return entry | {"model": MODEL[run], "weights": str(paths.weights(run))}


def masks(*shows: str, **more: Any) -> Entry:
    weights = (str(paths.weights(run)) for run in shows)
    return figure(*shows, number=4, **more) | dict(zip(("full", "hard", "external"), weights, strict=True))


MODEL = {"esa": "esa", "esa-cache": "esa", "sorn": "sorn", "sorn-local": "sorn", "pcb": "pcb"}
FEATURES = str(paths.features("sorn", DATA))
SORNS = ("sorn", "sorn-other", "sorn")
FIGURES = {"figure_maps": {"entropy": maps_of("entropy", "esa", number=3),
                           "aggregation": maps_of("aggregation", "sorn")},
           "figure_masks": {"masks": masks(*SORNS)},
           "figure_lists": {"lists": lists("pcb", "sorn")},
           "figure_patches": {"patched": lists("pcb", "sorn", number=1, features=FEATURES)}}


def experiment(**changes: Entry) -> Experiment:
    """Two ESA and three SORN, untrained, and the figures; changes: a section of the plan -> entries."""
    params, plan = fake_sections(image_steps=0)
    runs, train_on = params["runs"], plan["train"]
    runs["esa-cache"], train_on["esa-cache"] = runs["esa"], train_on["esa"]
    runs["esa"] = runs["esa"] | {"model": runs["esa"]["model"] | {"semantics": "branch"}}
    local = runs["sorn"]["model"] | {"use_global": False, "use_semantic": False}
    for key, more in (("sorn-other", {"seed": 1}), ("sorn-local", {"model": local})):
        runs[key], train_on[key] = runs["sorn"] | more, train_on["sorn"]
    for key in train_on:
        params["results"].setdefault(key, params["results"]["sorn"])
    return bare_experiment(params=params, plan=plan | {
        section: entries | changes.get(section, {}) for section, entries in FIGURES.items()})


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    """Networks whose maps differ from place to place, an index that knows occlusion."""
    folder = tmp_path_factory.mktemp("figures")
    frame = write_fake_set(folder / RAW, folder / INDEX)
    frame["occlusion"] = np.where(frame["split"] == "train", 0.0, 0.7)
    frame.loc[frame["split"] == "query", "occlusion"] = HIDDEN
    frame.loc[frame.index[frame["split"] == "gallery"][[2, 4, 5]], "occlusion"] = 0.0
    write_index(frame, folder / INDEX)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for key in ("esa", "esa-cache", "sorn", "sorn-other", "sorn-local", "pcb"):
            train.run(experiment(), key)
            opened = opened_run(key)
            for name, tensor in opened.network.state_dict().items():
                if name in ("expand.weight", "parse.weight") or name.endswith("classify.weight"):
                    tensor.mul_(900 if name == "expand.weight" else 40)
            save_weights(paths.weights(key), opened.network, opened.provenance)
        yield folder
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def project(weighed, tmp_path, monkeypatch) -> Path:
    """The same in a folder of the test's own, with rank lists and a SORN's features."""
    shutil.copytree(weighed, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    index = read_index(INDEX)
    queries = index[index["split"] == "query"]
    gallery = index.loc[index["split"] == "gallery", "image"].tolist()
    for shift, key in enumerate(("pcb", "sorn")):
        rows = [(DATA, query, place, gallery[(7 * number + place + shift) % len(gallery)], 0.5, RIGHT[shift][place - 1])
                for number, query in enumerate(queries["image"]) for place in range(6, 0, -1)]
        ranks(key).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=["dataset", "query", "position", "gallery", "distance", "match"]).to_csv(
            ranks(key), index=False)

    seen = np.array([[1, 1, number % 2] for number in range(len(queries))], np.float32)
    write_features(FEATURES, frame=index[index["split"] != "train"].sort_values(
        "split", ascending=False, kind="stable"), features=np.ones((30, 16 + 512 * 2), np.float32),
        visibility=np.concatenate([seen, np.ones((24, 3), np.float32)]), sizes=(16, 512, 512),
        provenance={"run": "sorn", "dataset": DATA, "model": "sorn", "distance": "cosine", "reduction": "mean"},
        dtype="float32")
    return tmp_path


RIGHT = [[1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1]]


def ranks(result: str) -> Path:
    return paths.ranks("default", result)


def opened_run(key: str) -> Any:
    made = experiment()
    return open_run(made.run(key), key=key, weights=paths.weights(key), match=made.params.results[key].match)


def made_folder(name: str) -> Path:
    return paths.report("default", "figures", name)


def drawn(name: str, **changes: Entry) -> np.ndarray:
    paper_figure.run(experiment(**changes), name)
    return decode((made_folder(name) / "figure.png").read_bytes())


def crop(picture: np.ndarray, left: int, top: int) -> np.ndarray:
    return picture[top:top + plots.CROP[1], left:left + plots.CROP[0]]


def enlarged(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, plots.CROP, interpolation=cv2.INTER_NEAREST)


def maps(network, path: str) -> list[np.ndarray]:
    """The backbone's maps (C, h, w) of one image, that image alone in its batch."""
    picture = normalise(torch.from_numpy(fit(read_image(f"{RAW}/{path}"), HEIGHT, WIDTH)))
    with torch.no_grad():
        return network.backbone(picture[None])


def image_paths(split: str = "query") -> list[str]:
    index = read_index(INDEX)
    return index.loc[index["split"] == split, "path"].tolist()


def nearly(found: np.ndarray, values: np.ndarray) -> None:
    """Colours are those of the values but for a step of rounding, and the values are not all the same."""
    assert np.ptp(values) > 0.05
    colours = [enlarged(plots.heat(np.clip(np.round(values * 255) + step, 0, 255).astype(np.uint8)))
               for step in (-1, 0, 1)]
    same = [(colour == found).all(axis=2) for colour in colours]
    assert np.any(same, axis=0).all()


def test_aggregation_maps_are_those_of_the_equations(project):
    """Eq. 2 - 4 by loops over the deep maps T_g, which the network never makes."""
    picture = drawn("aggregation")
    network = opened_run("sorn").network
    for row, place in enumerate((1, 4)):
        top = plots.MARGIN + 34 + row * (plots.CROP[1] + plots.GAP)
        np.testing.assert_array_equal(crop(picture, plots.MARGIN, top),
                                      enlarged(read_image(f"{RAW}/{image_paths()[place]}")))
        t = maps(network, image_paths()[place])[-1][0].numpy().astype(np.float64)
        filters = network.expand.weight[:, :, 0, 0].detach().numpy().astype(np.float64)
        deep = np.einsum("dc,chw->dhw", filters, t)
        for number in range(2):
            a = sum(deep[channel] for channel in range(8 * number, 8 * number + 8))
            m = 1 / (1 + np.exp(-(a - a.mean())))
            nearly(crop(picture, plots.MARGIN + (1 + number) * STEP, top), m)


def test_aggregation_maps_need_no_semantic_branch(project):
    """SORN Table III's `w/o Semantic` has the global branch that Eq. 4 is of."""
    params, plan = fake_sections(image_steps=0)
    params["runs"]["bare"] = params["runs"]["sorn"] | {"model": params["runs"]["sorn"]["model"] | {
        "use_semantic": False}}
    plan["train"]["bare"] = plan["train"]["sorn"]
    params["results"]["bare"] = params["results"]["sorn"]
    entry = FIGURES["figure_maps"]["aggregation"] | {"shows": "bare", "weights": str(paths.weights("bare"))}
    bare = bare_experiment(params=params, plan=plan | {"figure_maps": {"x": entry}})
    train.run(bare, "bare")
    paper_figure.run(bare, "x")
    assert decode((made_folder("x") / "figure.png").read_bytes()).shape[1] > 3 * STEP


def test_entropy_and_parsing_are_the_network_s(project):
    picture = drawn("entropy")
    network = opened_run("esa").network
    for column, place in enumerate((1, 3, 5)):
        t = maps(network, image_paths()[place])[-1][0].numpy().astype(np.float64)
        weights = network.parse.weight[:, :, 0, 0].detach().numpy().astype(np.float64)
        logits = np.einsum("kc,chw->khw", weights, t) + network.parse.bias.detach().numpy()[:, None, None]
        p = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        entropy = np.zeros(t.shape[1:])
        for row, column_ in np.ndindex(*entropy.shape):
            entropy[row, column_] = -sum(q * np.log(q) for q in p[:, row, column_] if q > 0) / np.log(8)
        left, tops = GRID + column * STEP, [plots.MARGIN + row * (plots.CROP[1] + plots.GAP) for row in range(3)]
        np.testing.assert_array_equal(crop(picture, left, tops[0]),
                                      enlarged(read_image(f"{RAW}/{image_paths()[place]}")))
        nearly(crop(picture, left, tops[1]), entropy)
        np.testing.assert_array_equal(crop(picture, left, tops[2]), enlarged(plots.PART_COLOURS[p.argmax(0)]))


def test_masks_show_one_whole_and_three_occluded_people(project):
    """Queries hidden by 0.25, 0.6, 0.3, 0.5 and 0.45 are occluded, of which the 1st, 3rd and 5th are the middles."""
    picture = drawn("masks")
    whole = [path for path, share in zip(image_paths("gallery"), read_index(INDEX).query(
        "split == 'gallery'")["occlusion"], strict=True) if share == 0]
    expected = [whole[1], *(image_paths()[place] for place in (1, 3, 5))]
    for row, path in enumerate(expected):
        top = plots.MARGIN + 34 + row * (plots.CROP[1] + plots.GAP)
        np.testing.assert_array_equal(crop(picture, GRID, top), enlarged(read_image(f"{RAW}/{path}")))
        for column, key in enumerate(SORNS, 1):
            network = opened_run(key).network
            _, layer2, layer3, t = maps(network, path)
            with torch.no_grad():
                labels = network.semantic(layer2, layer3, t)[0].numpy().argmax(0)
            np.testing.assert_array_equal(crop(picture, GRID + column * STEP, top),
                                          enlarged(plots.PART_COLOURS[labels]))
    index = read_index(INDEX)
    index.loc[index["image"] == Path(image_paths()[0]).with_suffix(".jpg").as_posix(), "occlusion"] = 0.0
    write_index(index, INDEX)
    first = crop(drawn("masks"), GRID, plots.MARGIN + 34)
    np.testing.assert_array_equal(first, enlarged(read_image(f"{RAW}/{image_paths()[0]}")), "queries go before gallery")
    write_index(index.drop(columns="occlusion"), INDEX)
    second = crop(drawn("masks"), plots.MARGIN, plots.MARGIN + 34 + plots.CROP[1] + plots.GAP)
    np.testing.assert_array_equal(second, enlarged(read_image(f"{RAW}/{image_paths()[2]}")))
    assert "does not say which images are occluded" in (made_folder("masks") / "figure.md").read_text()


def test_lists_have_the_same_queries_and_frames_of_their_colours(project):
    picture = drawn("lists")
    index = read_index(INDEX).set_index("image")
    chosen = [image_paths()[place] for place in (1, 4)]
    lines = [(path, shift, 1 + 3 * number) for shift in range(2) for number, path in enumerate(chosen)]
    for line, (path, shift, number) in enumerate(lines):
        top = 36 + line * (plots.CROP[1] + 96)
        np.testing.assert_array_equal(crop(picture, LINES + plots.MARGIN, top),
                                      enlarged(read_image(f"{RAW}/{path}")))
        gallery = index.index[index["split"] == "gallery"]
        for place in range(1, 6):
            left = LINES + plots.MARGIN + place * STEP + plots.GAP
            key = gallery[(7 * number + place + shift) % len(gallery)]
            np.testing.assert_array_equal(crop(picture, left, top),
                                          enlarged(read_image(f"{RAW}/{index.loc[key, 'path']}")))
            frame = plots.RIGHT if RIGHT[shift][place - 1] else plots.WRONG
            for y, x in ((top - 3, left + 50), (top + plots.CROP[1] + 2, left), (top + 9, left - 4)):
                assert picture[y, x].tolist() == list(bytes.fromhex(frame[1:]))
    said = (made_folder("lists") / "figure.md").read_text()
    assert "trained on `fake`" in said and "nobody picked them" in said
    assert all(Path(path).with_suffix(".jpg").name in said for path in chosen)


def test_a_query_s_stripes_are_those_that_sorn_compares(project):
    """Of query 3 (odd) both stripes are visible, of query 2 the upper alone."""
    whole = {result: pd.read_csv(ranks(result)) for result in ("pcb", "sorn")}
    for place, colours in ((3, (plots.SHOWING, plots.SHOWING)), (2, (plots.SHOWING, plots.HIDDEN))):
        query = Path(image_paths()[place]).with_suffix(".jpg").as_posix()
        for result, table in whole.items():
            table[table["query"] == query].to_csv(ranks(result), index=False)
        picture = drawn("patched")
        left = LINES + plots.MARGIN
        for line in range(2):
            for half, colour in enumerate(colours):
                top = 36 + line * (plots.CROP[1] + 96) + half * 128
                stripe = picture[top:top + 128, left:left + plots.CROP[0]]
                around = 128 * 128 - (128 - 2 * plots.BORDER) ** 2
                assert count(stripe, colour) == around
                assert stripe[0, 0].tolist() == stripe[-1, -1].tolist() == list(bytes.fromhex(colour[1:]))


def test_the_same_results_give_the_same_bytes(project):
    def files() -> dict[str, bytes]:
        for name in ("entropy", "aggregation", "masks", "lists", "patched"):
            paper_figure.run(experiment(), name)
        return {path.as_posix(): path.read_bytes() for path in paths.REPORTS.rglob("*") if path.is_file()}
    before = files()
    assert files() == before and len(before) == 2 * 5


def stops(said: str, name: str, **changes: Entry) -> None:
    with pytest.raises(InputError, match=said):
        drawn(name, **changes)


def test_what_cannot_be_drawn_is_named(project):
    for said, section, entry in (
            ("figures.x: cannot be drawn from esa, whose network is esa and has no aggregation maps", "figure_maps",
             maps_of("aggregation", "esa")),
            ("figures.x: cannot be drawn from sorn, whose network is sorn and has no entropy", "figure_maps",
             maps_of("entropy", "sorn")),
            ("figures.x.shows: sorn-local has no global branch", "figure_maps", maps_of("aggregation", "sorn-local")),
            ("figures.x.shows: sorn-local has no semantic branch of 8", "figure_masks",
             masks("sorn", "sorn-local", "sorn")),
            ("figures.x.shows: esa-cache has semantics cache", "figure_maps", maps_of("entropy", "esa-cache")),
            ("cannot be drawn from pcb, whose network is pcb and has no semantic branch", "figure_masks",
             masks("sorn", "pcb", "sorn")),
            ("absent.h5': cannot be read|absent.h5': no such", "figure_patches",
             lists("pcb", "sorn", features="data/features/absent.h5"))):
        stops(said, "x", **{section: {"x": entry}})

    text = ranks("sorn").read_text()
    query = Path(image_paths()[4]).with_suffix(".jpg").as_posix()
    ranks("sorn").write_text("\n".join(line for line in text.splitlines() if query not in line))
    stops(f"sorn.csv': has no list of '{query}'", "lists")
    ranks("sorn").write_text(text.replace("gallery/", "galery/"))
    stops("sorn.csv': 'galery/.*' is not in the index of", "lists")
    ranks("sorn").write_text(text)
    shutil.copy(INDEX, paths.index("other"))
    stops("pcb.csv': lists no query of other; let pcb be evaluated on it", "x", figure_lists={
        "x": lists("pcb", "sorn", dataset="other", index=str(paths.index("other")))})

    index = read_index(INDEX)
    write_index(index.assign(occlusion=index["occlusion"].clip(lower=0.1)), INDEX)
    stops("figures.masks.dataset: fake has 0 images of which nothing is hidden and 5 queries", "masks")
    write_index(index[index["split"] != "query"], INDEX)
    stops("figures.entropy.dataset: fake has no query whose image", "entropy")
    assert not paths.report("default", "figures").exists()
    stops("plan.figure: has no entry 'entropi' .did you mean 'entropy'.*there are: lists, patched", "entropi")
