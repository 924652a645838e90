"""The papers' pictures: what stands at each place of them is what lists, weights and index say."""

import dataclasses
import shutil
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from pipeline import figures
from pipeline.embedding import write_features
from pipeline.errors import InputError
from pipeline.finishing import normalise
from pipeline.images import read_image
from pipeline.index import read_index, write_index
from pipeline.params import EvaluateParams, FigureParams, Params, figure_files, pick
from pipeline.params_file import load_params
from pipeline.resizing import fit
from pipeline.weights import load_weights, read_weights, save_weights
from stages import compose, figure, train
from stages.networks import build
from tests.fake_set import HEIGHT, WIDTH, write_fake_set
from tests.test_embedding import DATA, _params
from tests.test_report import count, decode

ROOT = Path(__file__).resolve().parents[1]
GRID, LINES = 140, 150  # pixels left of the pictures, where rows or lines have names
STEP = figures.CROP[0] + figures.GAP
HIDDEN = [0.1, 0.25, 0.6, 0.3, 0.5, 0.45]  # of the six queries


def entry(kind: str, *shows: str, **changes) -> FigureParams:
    given = {"kind": kind, "title": "A Fig. 1", "shows": shows, "names": tuple(name[8:] for name in shows), "count": 2,
             "model": "sorn", "datasets": (DATA, DATA), "images": ("data/raw", "data/raw"),
             "reads": tuple(figure_files(kind, shows, scale="default", dataset=DATA))}
    return FigureParams(**given | changes)


FIGURES = {
    "esa": entry("entropy", "default-esa", count=3),
    "aggregation": entry("aggregation", "default-sorn"),
    "masks": entry("masks", "default-sorn", "default-sorn-other", count=4),
    "lists": entry("lists", "default-pcb", "default-sorn"),
    "patched": entry("patched_lists", "default-pcb", "default-sorn", count=1)}


def params(**changes: FigureParams) -> Params:
    given = _params(image_steps=0)
    esa, sorn = given.runs["default-esa"], given.runs["default-sorn"]
    runs = dict(given.runs) | {
        "default-esa": dataclasses.replace(esa, model=dataclasses.replace(esa.model, semantics="branch")),
        "default-esa-cache": esa, "default-sorn-other": dataclasses.replace(sorn, seed=1),
        "default-sorn-local": dataclasses.replace(sorn, model=dataclasses.replace(
            sorn.model, use_global=False, use_semantic=False))}
    results = {key: EvaluateParams(scale="default", features=(f"{key}-on-fake",)) for key in given.runs}
    return dataclasses.replace(given, runs=MappingProxyType(runs), evaluate=MappingProxyType(results),
                               figures=MappingProxyType(FIGURES | changes))


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    """Networks whose maps differ from place to place, an index that knows occlusion."""
    folder = tmp_path_factory.mktemp("figures")
    frame = write_fake_set(folder / "data/raw", folder / f"data/index/{DATA}.csv")
    frame["occlusion"] = np.where(frame["split"] == "train", 0.0, 0.7)
    frame.loc[frame["split"] == "query", "occlusion"] = HIDDEN
    frame.loc[frame.index[frame["split"] == "gallery"][[2, 4, 5]], "occlusion"] = 0.0
    write_index(frame, folder / f"data/index/{DATA}.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for key in ("default-esa", "default-esa-cache", "default-sorn", "default-sorn-other", "default-sorn-local"):
            train.run(params(), key)
            network, about = trained(key)
            for name, tensor in network.state_dict().items():
                if name in ("expand.weight", "parse.weight") or name.endswith("classify.weight"):
                    tensor.mul_(900 if name == "expand.weight" else 40)
            save_weights(f"runs/{key}/weights.safetensors", network, about)
        yield folder
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def project(weighed, tmp_path, monkeypatch) -> Path:
    """The same in a folder of the test's own, with rank lists and a SORN's features."""
    shutil.copytree(weighed, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    index = read_index(f"data/index/{DATA}.csv")
    queries = index[index["split"] == "query"]
    gallery = index.loc[index["split"] == "gallery", "image"].tolist()
    Path("ranks/default").mkdir(parents=True)
    for shift, key in enumerate(("default-pcb", "default-sorn")):
        rows = [(DATA, query, place, gallery[(7 * number + place + shift) % len(gallery)], 0.5, RIGHT[shift][place - 1])
                for number, query in enumerate(queries["image"]) for place in range(6, 0, -1)]
        pd.DataFrame(rows, columns=["dataset", "query", "position", "gallery", "distance", "match"]).to_csv(
            f"ranks/default/{key}.csv", index=False)
    seen = np.array([[1, 1, number % 2] for number in range(len(queries))], np.float32)
    write_features(f"features/default-sorn/{DATA}.h5", frame=index[index["split"] != "train"].sort_values(
        "split", ascending=False, kind="stable"), features=np.ones((30, 16 + 512 * 2), np.float32),
        visibility=np.concatenate([seen, np.ones((24, 3), np.float32)]), sizes=(16, 512, 512),
        maker={"run": "default-sorn", "dataset": DATA, "model": "sorn", "distance": "cosine", "reduction": "mean"})
    return tmp_path


RIGHT = [[1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1]]


def trained(key: str):
    tensors, about = read_weights(f"runs/{key}/weights.safetensors")
    network = build(params().runs[key], key=key, ids=about["ids"])
    load_weights(network, tensors, key)
    return network.eval(), about


def drawn(name: str, **changes) -> np.ndarray:
    figure.run(params(**changes), name)
    return decode(Path(f"reports/figures/{name}/figure.png").read_bytes())


def crop(picture: np.ndarray, left: int, top: int) -> np.ndarray:
    return picture[top:top + figures.CROP[1], left:left + figures.CROP[0]]


def enlarged(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, figures.CROP, interpolation=cv2.INTER_NEAREST)


def maps(network, path: str) -> list[np.ndarray]:
    """The backbone's maps (C, h, w) of one image, that image alone in its batch."""
    picture = normalise(torch.from_numpy(fit(read_image(f"data/raw/{path}"), HEIGHT, WIDTH)))
    with torch.no_grad():
        return network.backbone(picture[None])


def paths(split: str = "query") -> list[str]:
    index = read_index(f"data/index/{DATA}.csv")
    return index.loc[index["split"] == split, "path"].tolist()


def nearly(found: np.ndarray, values: np.ndarray) -> None:
    """Colours are those of the values but for a step of rounding, and the values are not all the same."""
    assert np.ptp(values) > 0.05
    colours = [enlarged(figures.heat(np.clip(np.round(values * 255) + step, 0, 255).astype(np.uint8)))
               for step in (-1, 0, 1)]
    same = [(colour == found).all(axis=2) for colour in colours]
    assert np.any(same, axis=0).all()


def test_places_are_the_middles_of_equal_stretches():
    assert figure.evenly(20, 2) == [5, 15] and figure.evenly(3, 7) == [0, 1, 2] and figure.evenly(0, 3) == []
    for length in range(1, 30):
        for wanted in range(1, length + 1):
            places = figure.evenly(length, wanted)
            assert places == sorted(set(places)) and len(places) == wanted
            for number, place in enumerate(places):
                assert place <= (Fraction(number * length, wanted) + Fraction((number + 1) * length, wanted)) / 2
                assert place + 1 > Fraction((2 * number + 1) * length, 2 * wanted)


def test_aggregation_maps_are_those_of_the_equations(project):
    """Eq. 2 - 4 by loops over the deep maps T_g, which the network never makes."""
    picture = drawn("aggregation")
    network, _ = trained("default-sorn")
    for row, place in enumerate((1, 4)):
        top = figures.MARGIN + 34 + row * (figures.CROP[1] + figures.GAP)
        np.testing.assert_array_equal(crop(picture, figures.MARGIN, top),
                                      enlarged(read_image(f"data/raw/{paths()[place]}")))
        t = maps(network, paths()[place])[-1][0].numpy().astype(np.float64)
        filters = network.expand.weight[:, :, 0, 0].detach().numpy().astype(np.float64)
        deep = np.einsum("dc,chw->dhw", filters, t)
        for number in range(2):
            a = sum(deep[channel] for channel in range(8 * number, 8 * number + 8))
            m = 1 / (1 + np.exp(-(a - a.mean())))
            nearly(crop(picture, figures.MARGIN + (1 + number) * STEP, top), m)


def test_entropy_and_parsing_are_the_network_s(project):
    picture = drawn("esa")
    network, _ = trained("default-esa")
    for column, place in enumerate((1, 3, 5)):
        t = maps(network, paths()[place])[-1][0].numpy().astype(np.float64)
        weights = network.parse.weight[:, :, 0, 0].detach().numpy().astype(np.float64)
        logits = np.einsum("kc,chw->khw", weights, t) + network.parse.bias.detach().numpy()[:, None, None]
        p = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        entropy = np.zeros(t.shape[1:])
        for row, column_ in np.ndindex(*entropy.shape):
            entropy[row, column_] = -sum(q * np.log(q) for q in p[:, row, column_] if q > 0) / np.log(8)
        left, tops = GRID + column * STEP, [figures.MARGIN + row * (figures.CROP[1] + figures.GAP) for row in range(3)]
        np.testing.assert_array_equal(crop(picture, left, tops[0]),
                                      enlarged(read_image(f"data/raw/{paths()[place]}")))
        nearly(crop(picture, left, tops[1]), entropy)
        np.testing.assert_array_equal(crop(picture, left, tops[2]), enlarged(figures.PART_COLOURS[p.argmax(0)]))


def test_masks_show_one_whole_and_three_occluded_people(project):
    """Queries hidden by 0.25, 0.6, 0.3, 0.5 and 0.45 are occluded, of which the 1st, 3rd and 5th are the middles."""
    picture = drawn("masks")
    whole = [path for path, share in zip(paths("gallery"), read_index(f"data/index/{DATA}.csv").query(
        "split == 'gallery'")["occlusion"], strict=True) if share == 0]
    expected = [whole[1], *(paths()[place] for place in (1, 3, 5))]
    for row, path in enumerate(expected):
        top = figures.MARGIN + 34 + row * (figures.CROP[1] + figures.GAP)
        np.testing.assert_array_equal(crop(picture, GRID, top), enlarged(read_image(f"data/raw/{path}")))
        for column, key in enumerate(("default-sorn", "default-sorn-other"), 1):
            network, _ = trained(key)
            _, layer2, layer3, t = maps(network, path)
            with torch.no_grad():
                labels = network.semantic(layer2, layer3, t)[0].numpy().argmax(0)
            np.testing.assert_array_equal(crop(picture, GRID + column * STEP, top),
                                          enlarged(figures.PART_COLOURS[labels]))
    index = read_index(f"data/index/{DATA}.csv")
    index.loc[index["image"] == Path(paths()[0]).with_suffix(".jpg").as_posix(), "occlusion"] = 0.0
    write_index(index, f"data/index/{DATA}.csv")
    first = crop(drawn("masks"), GRID, figures.MARGIN + 34)
    np.testing.assert_array_equal(first, enlarged(read_image(f"data/raw/{paths()[0]}")), "queries go before gallery")
    write_index(index.drop(columns="occlusion"), f"data/index/{DATA}.csv")
    second = crop(drawn("masks"), figures.MARGIN, figures.MARGIN + 34 + figures.CROP[1] + figures.GAP)
    np.testing.assert_array_equal(second, enlarged(read_image(f"data/raw/{paths()[2]}")))
    assert "does not say which images are occluded" in Path("reports/figures/masks/figure.md").read_text()


def test_lists_have_the_same_queries_and_frames_of_their_colours(project):
    picture = drawn("lists")
    index = read_index(f"data/index/{DATA}.csv").set_index("image")
    chosen = [paths()[place] for place in (1, 4)]
    lines = [(path, shift, 1 + 3 * number) for shift in range(2) for number, path in enumerate(chosen)]
    for line, (path, shift, number) in enumerate(lines):
        top = 36 + line * (figures.CROP[1] + 96)
        np.testing.assert_array_equal(crop(picture, LINES + figures.MARGIN, top),
                                      enlarged(read_image(f"data/raw/{path}")))
        gallery = index.index[index["split"] == "gallery"]
        for place in range(1, 6):
            left = LINES + figures.MARGIN + place * STEP + figures.GAP
            key = gallery[(7 * number + place + shift) % len(gallery)]
            np.testing.assert_array_equal(crop(picture, left, top),
                                          enlarged(read_image(f"data/raw/{index.loc[key, 'path']}")))
            frame = figures.RIGHT if RIGHT[shift][place - 1] else figures.WRONG
            for y, x in ((top - 3, left + 50), (top + figures.CROP[1] + 2, left), (top + 9, left - 4)):
                assert picture[y, x].tolist() == list(bytes.fromhex(frame[1:]))
    said = Path("reports/figures/lists/figure.md").read_text()
    assert "trained on `default-fake`" in said and "nobody picked them" in said
    assert all(Path(path).with_suffix(".jpg").name in said for path in chosen)


def test_a_query_s_stripes_are_those_that_sorn_compares(project):
    """Of query 3 (odd) both stripes are visible, of query 2 the upper alone."""
    for place, colours in ((3, (figures.SHOWING, figures.SHOWING)), (2, (figures.SHOWING, figures.HIDDEN))):
        for path in Path("ranks/default").iterdir():
            table = pd.read_csv(path)
            query = Path(paths()[place]).with_suffix(".jpg").as_posix()
            table[table["query"] == query].to_csv(f"{path}.one", index=False)
        reads = ("ranks/default/default-pcb.csv.one", "ranks/default/default-sorn.csv.one",
                 f"features/default-sorn/{DATA}.h5")
        picture = drawn("one", one=dataclasses.replace(FIGURES["patched"], reads=reads))
        left = LINES + figures.MARGIN
        for line in range(2):
            for half, colour in enumerate(colours):
                top = 36 + line * (figures.CROP[1] + 96) + half * 128
                stripe = picture[top:top + 128, left:left + figures.CROP[0]]
                around = 128 * 128 - (128 - 2 * figures.BORDER) ** 2
                assert count(stripe, colour) == around
                assert stripe[0, 0].tolist() == stripe[-1, -1].tolist() == list(bytes.fromhex(colour[1:]))


def test_the_same_results_give_the_same_bytes(project):
    def files() -> dict[str, bytes]:
        for name in FIGURES:
            figure.run(params(), name)
        return {path.as_posix(): path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()}
    before = files()
    assert files() == before and len(before) == 2 * len(FIGURES)


def stops(said: str, name: str, changed: FigureParams) -> None:
    with pytest.raises(InputError, match=said):
        drawn(name, **{name: changed})


def test_what_cannot_be_drawn_is_named(project):
    stops("figures.x.kind: cannot be drawn from default-esa, whose network is esa; name a sorn", "x",
          entry("aggregation", "default-esa"))
    stops("default-sorn-local has no global branch", "x", entry("aggregation", "default-sorn-local"))
    stops("default-sorn-local has no semantic branch of 8", "x", entry("masks", "default-sorn-local"))
    stops("default-esa-cache has semantics cache", "x", entry("entropy", "default-esa-cache"))
    stops("cannot be drawn from default-pcb, whose network is pcb", "x", entry("masks", "default-sorn", "default-pcb"))
    ranks = Path("ranks/default/default-sorn.csv")
    text = ranks.read_text()
    query = Path(paths()[4]).with_suffix(".jpg").as_posix()
    ranks.write_text("\n".join(line for line in text.splitlines() if query not in line))
    stops(f"default-sorn.csv': has no list of '{query}'", "lists", FIGURES["lists"])
    ranks.write_text(text.replace("gallery/", "galery/"))
    stops("default-sorn.csv': 'galery/.*' is not in the index of", "lists", FIGURES["lists"])
    ranks.write_text(text)
    shutil.copy(f"data/index/{DATA}.csv", "data/index/other.csv")
    stops("default-pcb.csv': lists no query of other; let default-pcb be evaluated on it", "lists",
          dataclasses.replace(FIGURES["lists"], datasets=("other", "other")))
    index = read_index(f"data/index/{DATA}.csv")
    write_index(index.assign(occlusion=index["occlusion"].clip(lower=0.1)), f"data/index/{DATA}.csv")
    stops("default-fake has 0 images of which nothing is hidden and 5 queries", "masks", FIGURES["masks"])
    features = Path(f"features/default-sorn/{DATA}.h5")
    features.unlink()
    stops("default-fake.h5'", "patched", FIGURES["patched"])
    write_index(index[index["split"] != "query"], f"data/index/{DATA}.csv")
    stops("default-fake has no query whose picture", "esa", FIGURES["esa"])
    assert not Path("reports/figures").exists()
    with pytest.raises(InputError, match="figures has no entry 'nothing'; params.yaml has: esa"):
        figure.run(params(), "nothing")


@pytest.fixture
def composed(tmp_path, monkeypatch) -> dict:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    return compose.compose("figures")


def test_a_profile_s_figures_name_their_files(composed):
    found = composed["figures"]
    assert set(found) == {f"default-{name}" for name in
                          ("esa-7", "sgam-7", "sorn-2", "sorn-4", "sorn-5", "sorn-6", "sorn-7")}
    assert found["default-sorn-5"]["reads"] == [f"runs/default-{name}/weights.safetensors"
                                                for name in ("sorn", "sorn-no-ls", "sorn-segmentation")]
    assert found["default-sorn-2"]["reads"] == ["ranks/default/default-pcb.csv", "ranks/default/default-sorn.csv",
                                                "features/default-sorn/default-synth-occluded.h5"]
    assert found["default-sorn-7"]["datasets"] == ["default-synth-partial"] * 2
    for entry_ in found.values():
        last = entry_["shows"][-1]
        run = composed["embed"][composed["evaluate"][last]["features"][0]]["run"] if last in composed["evaluate"] \
            else last
        assert entry_["model"] == pick(composed["runs"], run, "runs")["model"]["name"]


@pytest.mark.parametrize(("changes", "said"), [
    ({"kind": "map"}, "sorn-5.kind: unknown figure 'map'; it is one of lists"),
    ({"names": ["SORN"]}, "sorn-5: shows 3 results under 1 names"),
    ({"count": 0}, "and 0 queries of each"),
    ({"shows": ["default-sorn", "default-x", "default-y"]}, "sorn-5.shows: runs has no entry 'default-x'"),
    ({"datasets": ["default-synth-occluded", "default-synth-partial"]}, "are two, and masks shows one"),
    ({"images": ["data/raw/default-synth-partial"] * 2}, "sorn-5.images: .*write .*default-synth-occluded"),
    ({"reads": ["runs/default-sorn/weights.safetensors"] * 3}, "sorn-5.reads: .*write .*default-sorn-no-ls")])
def test_a_figure_s_parameters_are_checked(composed, changes, said):
    composed["figures"]["default-sorn-5"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(composed))
    with pytest.raises(InputError, match=said):
        load_params("params.yaml")


def test_figures_of_absent_data_are_left_out_and_unknown_runs_named(composed):
    profile = Path("profiles/mine.yaml")
    profile.write_text("include: [figures]\ndatasets: {synth-partial: null}\nrender: {synth-partial: null}\n"
                       "caches: {synth-partial: null}\nwarps: {synth-partial: null}\n")
    assert set(composed["figures"]) - set(compose.compose("mine")["figures"]) == {"default-sorn-7"}
    profile.write_text("include: [figures]\nruns: {pcb: null}\n")
    with pytest.raises(InputError, match="default-sgam-7.shows: 'default-pcb' is no run of this profile; it has"):
        compose.compose("mine")
