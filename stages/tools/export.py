"""ONNX graph of a trained run, checked before it is written:

    python -m stages.tools.export sorn sorn.onnx
    python -m stages.tools.export elsewhere/weights.safetensors out.onnx --opset 18 --licence "research only"

Input `image` (B, H, W, 3) uint8 RGB, any B, at the run's size; outputs `features` (B, sum D_p) and `visibility`
(B, P). ESA-ReID and DSA-reID that read a cache at test time take its bytes beside the image (`probs8`, `entropy`;
`dsap`, `valid`). onnxruntime and torch have to agree to 1e-4 on 1 and on 7 rendered people, or nothing is written. A
card, out.md, says what the graph is; the same stands in its metadata as JSON, under `semalign`. Needs
requirements-export.txt. A minute.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.base.files import file_sha256, new_file, writable, write_text
from pipeline.base.images import IMAGENET_MEAN, IMAGENET_STD, fit
from pipeline.base.seeds import rng
from pipeline.caches.parts_layout import CELL
from pipeline.config import paths
from pipeline.config.loader import Experiment, load_experiment
from pipeline.config.schema import without_neutral
from pipeline.loading.dataset import MAPS
from pipeline.loading.sgam_crop import crop_maps
from pipeline.renderer.person import draw_person
from pipeline.renderer.picture import Wish, render_picture
from pipeline.renderer.scene import draw_look
from pipeline.reporting.protocol import left_out
from pipeline.reporting.results import read_json
from pipeline.retrieval.exclusions import read_exclusions, without
from pipeline.retrieval.features import Embedded, read_features
from pipeline.retrieval.paired import identity_sums
from pipeline.retrieval.ranking import evaluate
from stages import sentences
from stages.shared.compared import other_numbers
from stages.shared.embedder import Embedder, ParsedBy, named_by_file, open_embedder

METADATA = "semalign"
TOLERANCE = 1e-4  # of the largest number, or of 1
BATCHES = (1, 7)  # on which the graph is checked; it is traced on TRACED
TRACED = 2
INSTALL = "pip install -r requirements-export.txt"


class Graph(nn.Module):
    """What is exported: bytes, as images and caches have them, -> features (B, sum D_p), visibility (B, P).

    cells: rows and columns of cells that a cache's maps have, and that the network is to see, where these differ.
    """

    def __init__(self, network: nn.Module, cells: tuple[tuple[int, int], tuple[int, int]] | None = None) -> None:
        super().__init__()
        self.network = network
        self.resized = cells is not None
        if cells is not None:
            for name, old, new in zip(("rows", "columns"), *cells, strict=True):
                self.register_buffer(name, torch.from_numpy(cell_shares(old, new)), persistent=False)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values.tolist()).view(3, 1, 1), persistent=False)

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """image (B, H, W, 3), and of a cache probs8 (B, 8, h, w), probs4 (B, 5, h, w), entropy (B, h, w), or dsap
        (B, 24, S, S, 3) with valid (B, 24, S, S); all uint8."""
        batch = {name: values.float() / 255 for name, values in inputs.items()}
        batch["image"] = self._normalised(batch["image"])  # (B, H, W, 3) -> (B, 3, H, W)
        if "dsap" in batch:
            valid = batch.pop("valid") > 0
            batch["dsap"] = self._normalised(batch["dsap"]) * valid[:, :, None]  # -> (B, 24, 3, S, S)
        for name in MAPS if self.resized else ():
            if name in batch:
                batch[name] = self.rows @ batch[name] @ self.columns.mT  # type: ignore[operator, union-attr]
        return self.network.embed(batch)  # type: ignore[operator]

    def _normalised(self, rgb: Tensor) -> Tensor:
        return (rgb.movedim(-1, -3) - self.mean) / self.std  # type: ignore[operator]


def cell_shares(old: int, new: int) -> np.ndarray:
    """(new, old) float32: what each of `old` cells is of each of `new` ones, by the areas that the loader counts."""
    every = np.diag(np.full(old, 255, np.uint8))
    return crop_maps(every[None], (0, 0, old, old), image=(old, old), height=new, width=old)[0]


def graph_of(embedder: Embedder) -> Graph:
    """The embedder's network, for maps of the size that its parser makes."""
    run, parsed = embedder.run, embedder.parsed_by
    if parsed is None or not set(MAPS) & set(embedder.opened.arrays):
        return Graph(embedder.network)
    made, seen = cells_of(parsed), (run.height // CELL, run.width // CELL)
    return Graph(embedder.network, None if made == seen else (made, seen))


def cells_of(parsed: ParsedBy) -> tuple[int, int]:
    """Rows and columns of the cells of its maps: of the parser's input, not of the run's."""
    return parsed.made["height"] // CELL, parsed.made["width"] // CELL


def run(embedder: Embedder, out: Path, *, opset: int | None, card: dict[str, Any]) -> None:
    """Write OUT and its card beside it. InputError, and nothing is written, if the network cannot be exported, the
    runtime lacks the opset or finds other numbers than torch."""
    if embedder.match.flip != "none":
        raise InputError(f"match.flip: is {embedder.match.flip!r}, and a graph embeds an image as it is; export a run "
                         "that is matched with `flip: none`")
    _packages()
    if opset is not None:
        check_opset(opset)
    inputs = {count: check_inputs(embedder, count) for count in (TRACED, *BATCHES)}

    with warnings.catch_warnings(), new_file(out) as temporary:
        warnings.simplefilter("ignore")
        program = traced(embedder, inputs[TRACED], opset)
        card = card | {"opset": program.model.opset_imports[""], "inputs": {
            name: ["batch", *values.shape[1:]] for name, values in inputs[TRACED].items()}}
        program.model.metadata_props[METADATA] = json.dumps(card, sort_keys=True)
        program.save(temporary, external_data=False)
        card["largest_difference"] = check(temporary, graph_of(embedder), [inputs[count] for count in BATCHES])
    write_text(out.with_suffix(".md"), card_text(out, card, file_sha256(out)))


def _packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"the export needs {error.name}, which is not installed; {INSTALL}") from error


def check_opset(opset: int) -> None:
    """InputError, before a network is traced, if the runtime cannot load a graph of this opset."""
    import onnx
    import onnxruntime

    make = onnx.helper
    given, made = (make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("given", "made"))
    graph = make.make_graph([make.make_node("Identity", ["given"], ["made"])], "opset", [given], [made])
    try:
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=8)
        _session(model.SerializeToString())
    except Exception as error:  # the runtime's own kinds
        raise InputError(f"--opset: is {opset}, which onnxruntime {onnxruntime.__version__} has not; give one that it "
                         "has, or leave it out") from error


def _session(data: bytes) -> Any:
    """onnxruntime's, which says nothing but by raising."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def traced(embedder: Embedder, inputs: dict[str, Tensor], opset: int | None) -> Any:
    """The network as an ONNX program, batch free: torch fails where it would fix the batch to that of `inputs`."""
    torch.set_deterministic_debug_mode("default")  # it is run by another runtime
    logging.getLogger("onnxscript").setLevel(logging.CRITICAL)  # which opset is written is looked at below
    batch = torch.export.Dim("batch", min=1)
    try:
        graph = torch.export.export(graph_of(embedder).eval(), (inputs,), strict=True,
                                    dynamic_shapes={"inputs": {name: {0: batch} for name in inputs}})
        program = torch.onnx.export(graph, input_names=list(inputs), output_names=["features", "visibility"],
                                    opset_version=opset, verbose=False)
    except Exception as error:  # what the tracer and the exporter raise is of many kinds
        at = "" if opset is None else f" with --opset {opset}"
        raise InputError(f"{embedder.key}: {embedder.run.model.name} cannot be written as an ONNX graph{at} "
                         f"({_reason(error)}); leave --opset out or take another run") from error

    assert program is not None
    written = program.model.opset_imports[""]
    if opset is not None and written != opset:
        raise InputError(f"--opset: is {opset}, and torch {torch.__version__} writes {embedder.key} with {written}; "
                         "leave it out")
    return program


def check(file: Path, graph: Graph, batches: Sequence[dict[str, Tensor]]) -> float:
    """The largest difference of what onnxruntime finds from what torch does, over the largest number where that is
    above 1. InputError if it is above TOLERANCE, or the runtime cannot load the file."""
    import onnxruntime

    try:
        session = _session(file.read_bytes())
    except Exception as error:  # the runtime's own kinds
        raise InputError(f"the graph is not written, because onnxruntime {onnxruntime.__version__} cannot load it "
                         f"({_reason(error)}); give an --opset that it has") from error

    largest = 0.0
    for inputs in batches:
        with torch.inference_mode():
            expected = [values.numpy() for values in graph.eval()(inputs)]
        taken = {name.name: inputs[name.name].numpy() for name in session.get_inputs()}
        try:
            found = session.run(["features", "visibility"], taken)
        except Exception as error:
            raise InputError(f"the graph is not written, because onnxruntime cannot run a batch of "
                             f"{len(inputs['image'])} ({_reason(error)}); take another run") from error
        for name, one, other in zip(("features", "visibility"), found, expected, strict=True):
            far = float(abs(one - other).max() / max(1.0, abs(other).max())) if one.shape == other.shape else np.inf
            if not far <= TOLERANCE:
                raise InputError(f"the graph is not written, because its {name} of {len(inputs['image'])} images are "
                                 f"{far:.1e} from torch's, and {TOLERANCE:.0e} is allowed; take another run or opset")
            largest = max(largest, far)
    return largest


def check_inputs(embedder: Embedder, count: int) -> dict[str, Tensor]:
    """Rendered people at the run's size, and bytes drawn at random for what else it reads."""
    height, width, drawn = embedder.run.height, embedder.run.width, rng(0, "export", count)
    wish = Wish(hidden=None, style="test", crop="box", fault=0.0)
    people = [render_picture(draw_person(rng(0, "person", number)), draw_look(rng(0, "look", number)), wish,
                             rng(0, "picture", number), 128, 64).image for number in range(count)]
    inputs = {"image": np.stack([fit(image, height, width) for image in people])}

    parsed = embedder.parsed_by
    for name in embedder.opened.arrays:
        assert parsed is not None  # by whom, wherever a network reads more than the image
        cells = cells_of(parsed)
        if name == "dsap":
            side = parsed.warp["texels"]
            inputs["dsap"] = drawn.integers(0, 256, (count, 24, side, side, 3))
            inputs["valid"] = drawn.integers(0, 2, (count, 24, side, side))
        elif name == "entropy":
            inputs[name] = drawn.integers(0, 256, (count, *cells))
        else:
            shares = drawn.dirichlet(np.full({"probs8": 8, "probs4": 5}[name], 0.3), (count, *cells))
            inputs[name] = (255 * shares).round().transpose(0, 3, 1, 2)
    return {name: torch.from_numpy(np.ascontiguousarray(values.astype(np.uint8))) for name, values in inputs.items()}


def describe(embedder: Embedder, *, licence: str, experiment: Experiment | None) -> dict[str, Any]:
    """What the card and the graph's metadata say. experiment: whose run it is, where it is named by its key."""
    made, network = embedder.opened.provenance, embedder.network
    rendered = (experiment is not None and embedder.run.train_on in experiment.params.render
                and embedder.run.init == "none")
    default = ("Apache-2.0, as the project: trained on rendered people, who are nobody" if rendered else
               f"not stated; weights are under the terms of what they were trained on, {embedder.run.train_on} "
               "(docs/datasets.md, Terms)")
    return {"run": embedder.key, "model": embedder.run.model.name, "height": embedder.run.height,
            "width": embedder.run.width, "sizes": list(network.sizes), "distance": network.distance,
            "reduction": network.reduction, "match": without_neutral(embedder.match),
            "data": {"train_on": embedder.run.train_on, "images": made["images"], "people": made["ids"]},
            "licence": licence or default, "weights_sha256": file_sha256(embedder.weights),
            "parameters": made["parameters"], "versions": made["versions"],
            "metrics": [] if experiment is None else metrics(experiment, embedder)}


def metrics(experiment: Experiment, embedder: Embedder) -> list[dict[str, Any]]:
    """A run's results of its own name, as far as features of these weights give them; none where something else is
    matched. What is left out because its features give other numbers is said."""
    found: list[dict[str, Any]] = []
    if embedder.match != experiment.params.results[embedder.key].match:
        return found

    sha = file_sha256(embedder.weights)
    for file in sorted(paths.metrics(experiment.name, embedder.key).glob("*.json")):
        features = paths.features(embedder.key, file.stem)
        if not features.exists() or (embedded := read_features(features)).provenance["weights_sha256"] != sha:
            continue
        result = read_json(file)
        made = result["provenance"][0]
        if why := not_of(embedded, result, made.get("ignored")):
            print(f"left out of the card: {str(file)!r}: {why}; run `dvc repro evaluate@{embedder.key}`",
                  file=sys.stderr)
            continue
        protocol = [str(made["protocol"]), *([left_out(made["ignored"])] if made.get("ignored") else [])]
        found.append({"dataset": file.stem, "protocol": "; ".join(protocol),
                      **{name: result[name] for name in ("rank1", "mAP", "mINP")},
                      **{name: result["details"][0][name] for name in ("queries", "gallery")}})
    return found


def not_of(embedded: Embedded, result: dict[str, Any], ignored: dict[str, Any] | None) -> str:
    """Why a result is not of these features, scored as it says; empty where it is."""
    if ignored:
        if not Path(ignored["file"]).is_file() or file_sha256(ignored["file"]) != ignored["sha256"]:
            return f"the exclusion list {ignored['file']!r} that it was scored with is gone or another"
        embedded, _ = without(embedded, read_exclusions(ignored["file"]))
    scores = [evaluate(trial.query, trial.gallery, trial.matching) for trial in embedded.trials()]
    return other_numbers(identity_sums(scores)[1], result)


def card_text(out: Path, card: dict[str, Any], sha256: str) -> str:
    """The card as Markdown."""
    rows = [f"| {row['dataset']} | {row['rank1']} | {row['mAP']} | {row['mINP']} | {row['queries']} | {row['gallery']}"
            f" | {row['protocol']} |" for row in card["metrics"]]
    table = ["| data set | rank-1 | mAP | mINP | queries | gallery | protocol |", "|---|---:|---:|---:|---:|---:|---|",
             *rows, "", "Gallery images of the query's person and camera removed, no flip, no re-ranking, after the "
             "last step, step-sum average precision."] if rows else ["Not known of these weights here."]
    inputs = ", ".join(f"`{name}` {tuple(shape)} uint8".replace("'", "") for name, shape in card["inputs"].items())
    return "\n".join([
        f"# {out.name}", "",
        f"Run `{card['run']}` ({card['model']}, {card['parameters']['backbone']}) as an ONNX graph, opset "
        f"{card['opset']}, SHA-256 {sha256}.", "",
        f"- Input: {inputs}; RGB, at {card['height']} x {card['width']} pixels, normalised inside.",
        f"- Output: `features` (batch, {sum(card['sizes'])}), parts of {card['sizes']}; `visibility` (batch, "
        f"{len(card['sizes'])}).",
        f"- Compared by {card['distance']} per part, {card['reduction']} over parts weighed by both visibilities.",
        f"- Checked: onnxruntime is within {card['largest_difference']:.1e} of torch on batches of "
        f"{' and '.join(map(str, BATCHES))}.",
        f"- Data: {card['data']['train_on']}, {card['data']['images']} images of {card['data']['people']} people.",
        f"- Licence: {card['licence']}.",
        f"- Weights: SHA-256 {card['weights_sha256']}.", "",
        "## Metrics", "", *table, "",
        "## Parameters", "", "```json", json.dumps(card["parameters"] | {"match": card["match"]}, sort_keys=True,
                                                   indent=1), "```", ""])


def _reason(error: BaseException) -> str:
    """What an exception says first; of a chain, the first of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = str(error).strip().splitlines()
    return said[0][:200] if said else type(error).__name__


def check_exportable(embedder: Embedder) -> None:
    """InputError for a network that sees a crop of its image by masks, which happens before the graph."""
    if embedder.opened.crop is not None or (embedder.parsed_by and embedder.parsed_by.file == "crops.h5"):
        raise InputError(f"{embedder.key}: {embedder.run.model.name} crops each image by its masks before the network "
                         "sees it, which is no part of a graph; embed with stages/shared/embedder.py, or take a run "
                         "with crop false or another network")


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a trained run of the experiment, such as sorn, or a file of weights")
    parser.add_argument("out", type=Path, help="the graph, .onnx; its card lies beside it, .md")
    parser.add_argument("--opset", type=int, help="of ONNX (what torch's exporter takes)")
    parser.add_argument("--licence", default="", help="what the card says of it")
    parser.add_argument("--experiment", default="default", metavar="NAME", help="whose run it is (default)")
    parser.add_argument("--features", default="", help="what is matched, such as z of DSA (as the experiment's result)")
    parser.add_argument("--parser", type=Path, metavar="FILE", help="the parser of a network that reads a cache at "
                        "test time (that of its training, in data/parsers)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    given = parse_arguments(words)
    with sentences():
        if given.out.suffix != ".onnx":
            raise InputError(f"{str(given.out)!r}: is no name of an ONNX graph; let it end in .onnx")
        for path in (given.out, given.out.with_suffix(".md")):
            writable(path)
        experiment = None if named_by_file(given.run) else load_experiment(given.experiment)
        embedder = open_embedder(given.run, experiment=experiment, features=given.features, parser=given.parser,
                                 device="cpu")
        check_exportable(embedder)
        card = describe(embedder, licence=given.licence, experiment=experiment)
        run(embedder, given.out, opset=given.opset, card=card)
        print(f"{given.out}: features (batch, {sum(card['sizes'])}) in parts of {card['sizes']}, as torch's to 1e-4; "
              f"{given.out.with_suffix('.md').name} says what it is")


if __name__ == "__main__":
    main()
