"""ONNX graphs: what onnxruntime finds is what the embedder finds, at any batch; what would be wrong is not written."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import fit, read_image
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.loading.dataset import MAPS
from pipeline.retrieval.exclusions import read_exclusions, without
from pipeline.retrieval.features import read_features
from pipeline.retrieval.matching import Side
from pipeline.retrieval.ranking import evaluate
from pipeline.retrieval.scores import data_set_metrics
from stages.shared.embedder import open_embedder
from stages.tools import export
from tests.helpers.bare_params import write_experiment
from tests.helpers.fake_runs import DATA, RAW
from tests.helpers.fake_set import HEIGHT, WIDTH
from tests.helpers.features_file import MAKER, write_features
from tests.helpers.pair_distances import pair_distances
from tests.helpers.parsed_runs import make_runs, parsed_experiment

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")

PAGE = Path(__file__).parents[2] / "docs/going-out.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_runs(folder, "sorn", "esa", "dsa", "sgam")
        experiment = parsed_experiment()
        plan = {name: value for name, value in vars(experiment.plan).items() if name != "name"}
        write_experiment(folder, params=vars(experiment.params), plan=plan)
        yield folder
    torch.use_deterministic_algorithms(False)


def test_a_graph_gives_the_embedder_s_features_and_feeds_an_assignment(project, tmp_path, capsys, monkeypatch):
    """At batches that it was not checked on; and the page's example finds each image in a shuffled list of them, by the
    distances that retrieval makes."""
    export.main(["sorn", str(tmp_path / "sorn.onnx")])
    assert "sorn.onnx: features (batch, 1040)" in capsys.readouterr().out
    images = [read_image(path) for path in sorted((Path(RAW) / "gallery").iterdir())[:5]]
    embedder = open_embedder("sorn", experiment=parsed_experiment())
    expected = embedder.embed(images)

    session = onnxruntime.InferenceSession(str(tmp_path / "sorn.onnx"))
    features, visibility = session.run(["features", "visibility"],
                                       {"image": np.stack([fit(image, HEIGHT, WIDTH) for image in images])})
    np.testing.assert_allclose(features, expected.features, atol=1e-4)
    np.testing.assert_array_equal(visibility, expected.visibility)

    card = json.loads(session.get_modelmeta().custom_metadata_map["semalign"])
    assert card["weights_sha256"] == file_sha256(paths.weights("sorn")) and card["sizes"] == list(expected.sizes)
    text = (tmp_path / "sorn.md").read_text()
    assert card["weights_sha256"] in text and file_sha256(tmp_path / "sorn.onnx") in text
    assert "not stated; weights are under the terms of what they were trained on, fake" in text
    assert "Not known of these weights" in text

    monkeypatch.chdir(tmp_path)
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "assignment" in block)
    given = {"tracks": images, "detections": [images[place] for place in (3, 0, 4, 1, 2)]}
    exec(code, given)
    assert given["columns"].tolist() == [1, 3, 4, 0, 2]
    side = Side(expected.features, expected.visibility, np.arange(5), np.zeros(5, np.int64))
    np.testing.assert_allclose(given["cost"][:, [1, 3, 4, 0, 2]], pair_distances(side, side, embedder.matching),
                               atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "inputs"), [("esa", ["image", "probs8", "entropy"]),
                                              ("dsa", ["image", "dsap", "valid"])])
def test_masks_and_warps_are_further_inputs(project, tmp_path, name, inputs):
    """The bytes of a cache beside its images give the features that the cache and the images give."""
    export.main([name, str(tmp_path / "graph.onnx")])
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    assert [taken.name for taken in session.get_inputs()] == inputs

    cache = Cache(paths.cache(DATA, "dsap.h5" if name == "dsa" else "parts.h5"))
    keys = [key for key in cache.column("key") if key.startswith("gallery")][:5]
    files = [Path(RAW) / key.replace(".jpg", ".png") for key in keys]
    taken = {"image": np.stack([fit(read_image(path), HEIGHT, WIDTH) for path in files])}
    taken |= {part: np.stack([cache.read(MAPS.get(part, part), int(row)) for row in cache.rows(keys)])
              for part in inputs[1:]}
    expected = open_embedder(name, experiment=parsed_experiment()).embed(files)
    features, visibility = session.run(["features", "visibility"], taken)
    np.testing.assert_allclose(features, expected.features, atol=1e-4)
    np.testing.assert_allclose(visibility, expected.visibility, atol=1e-4)


def test_maps_of_a_size_that_does_not_nest_in_the_run_s_are_seen_as_the_loader_has_them(project):
    """8 x 8 cells of the parser, 24 x 12 of the run, of which the network sees 6 x 3: by the areas that they share."""
    embedder = open_embedder("esa", experiment=parsed_experiment())
    cache = Cache(paths.cache(DATA, "parts.h5"))
    keys = [key for key in cache.column("key") if key.startswith("gallery")][:5]
    files = [Path(RAW) / key.replace(".jpg", ".png") for key in keys]
    maps = {name: torch.from_numpy(np.stack([cache.read(MAPS[name], int(row)) for row in cache.rows(keys)]))
            for name in ("probs8", "entropy")}
    assert maps["entropy"].shape[1:] == (8, 8)
    for height, width in ((96, 48), (HEIGHT, WIDTH), (32, 32)):
        sized = replace(embedder, run=replace(embedder.run, height=height, width=width))
        image = torch.from_numpy(np.stack([fit(read_image(path), height, width) for path in files]))
        expected = sized.embed(files)
        with torch.inference_mode():
            found = export.graph_of(sized).eval()({"image": image} | maps)
        np.testing.assert_allclose(found[0], expected.features, atol=1e-5)
        np.testing.assert_allclose(found[1], expected.visibility, atol=1e-6)


def test_the_card_has_what_features_of_these_weights_give(tmp_path, monkeypatch, capsys):
    """Not what the features of another time gave, nor what a list did that is gone."""
    monkeypatch.chdir(tmp_path)
    Path("weights").write_bytes(b"some")
    Path("list.csv").write_text("path,reason\ngallery/0001_1.jpg,two people\n")
    Path("lost.csv").write_text("path,reason\ngallery/0001_1.jpg,another\n")
    paths.metrics("mine", "net").mkdir(parents=True)
    for name in ("good", "listed", "lost", "old"):
        whole = read_features(write_features(paths.features("net", name), maker=MAKER | {
            "weights_sha256": file_sha256("weights")}))
        made = {"protocol": "market"}
        if name in ("listed", "lost"):
            whole, excluded = without(whole, read_exclusions("list.csv"))
            made["ignored"] = excluded.content() | ({"file": "lost.csv"} if name == "lost" else {})
        figures = data_set_metrics([evaluate(whole.query, whole.gallery, whole.matching)])
        figures["mAP"] += name == "old"
        (paths.metrics("mine", "net") / f"{name}.json").write_text(json.dumps(figures | {"provenance": [made]}))
    experiment = SimpleNamespace(name="mine", params=SimpleNamespace(results={"net": SimpleNamespace(match="f")}))
    rows = export.metrics(experiment, SimpleNamespace(key="net", match="f", weights=Path("weights")))
    assert {row["dataset"]: (row["gallery"], row["protocol"]) for row in rows} == {
        "good": (18, "market"),
        "listed": (17, "market; 0 queries and 1 gallery image left out by list.csv (1 two people)")}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "lost.json': the exclusion list 'lost.csv' that it was scored with is gone" in said[0]
    assert re.search(r"old.json': has a mAP of [\d.]+, and its features give [\d.]+; run `dvc repro", said[1])


def test_what_is_not_exported(project, tmp_path, capsys):
    for words, said in [
            (["sgam", "a.onnx"], "error: sgam: sgam crops each image by its masks before the network sees it"),
            (["baseline", "a.onnx"], "error: 'data/runs/baseline/weights.safetensors': no such weights"),
            (["sorn", "a.pt"], "a.pt': is no name of an ONNX graph; let it end in .onnx"),
            (["sorn", "a.onnx", "--opset", "999"], "error: --opset: is 999, which onnxruntime ")]:
        with pytest.raises(SystemExit, match="2"):
            export.main([words[0], str(tmp_path / words[1]), *words[2:]])
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


class Doubled(torch.nn.Module):
    """What the graphs of `test_what_a_check_finds` claim to be."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return 2 * inputs["image"], inputs["image"]


def graph(path: Path, *, batch: int | str = "batch", factor: float = 2.0, opset: int = 18) -> Path:
    """`Doubled` as a graph that may have its batch fixed, another factor, or an opset of its own."""
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [make.make_node("Mul", ["image", "factor"], ["features"]),
             make.make_node("Identity", ["image"], ["visibility"])]
    given = [make.make_tensor_value_info(name, kind, [batch, 3]) for name in ("image", "features", "visibility")]
    model = make.make_model(make.make_graph(nodes, "doubled", given[:1], given[1:],
                                            [make.make_tensor("factor", kind, [], [factor])]),
                            opset_imports=[make.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_what_a_check_finds(tmp_path):
    batches = [{"image": torch.rand(count, 3)} for count in export.BATCHES]
    assert export.check(graph(tmp_path / "good.onnx"), Doubled(), batches) == 0
    for changes, said in [({"batch": 1}, "onnxruntime cannot run a batch of 7 "),
                          ({"batch": 2}, "onnxruntime cannot run a batch of 1 "),
                          ({"factor": 2.001}, r"its features of 1 images are \d.* from torch's, and 1e-04 is allowed"),
                          ({"opset": 99}, "onnxruntime .* cannot load it .*; give an --opset that it has")]:
        with pytest.raises(InputError, match=said):
            export.check(graph(tmp_path / "bad.onnx", **changes), Doubled(), batches)
