"""ONNX graphs: what onnxruntime finds is what the embedder finds, at any batch; what would be wrong is not written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256
from pipeline.base.images import fit, read_image
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.loading.dataset import MAPS
from pipeline.retrieval.distances import pair_distances
from pipeline.retrieval.matching import Side
from stages.shared.embedder import open_embedder
from stages.tools import export
from tests.helpers.bare_params import write_experiment
from tests.helpers.fake_runs import DATA, RAW
from tests.helpers.fake_set import HEIGHT, WIDTH
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
