"""A figure of the papers, drawn from this project's runs: python -m stages.figure default-sorn-4

Writes reports/figures/KEY/figure.png and figure.md, which says what it shows. Nobody picks the images: they are spread
evenly over the data set's queries, the same for every row.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.errors import InputError
from pipeline.features import read_features
from pipeline.figures import Shown, grid_figure, heat, part_colours, rank_figure
from pipeline.images import read_image
from pipeline.index import read_index
from pipeline.loading import Pictures, ordered_batches
from pipeline.params import EsaParams, FigureParams, MatchParams, Params, RunParams, SornParams, pick
from pipeline.report import LISTS, read_csv
from pipeline.weights import load_weights, read_weights
from stages import main
from stages.device import choose_device
from stages.networks import build, check_recorded

TOP = 5  # gallery images of a list, as the papers show
OCCLUDED = 0.2  # an image counts as occluded from this hidden share of the body on
SPREAD = "spread evenly over {0} in the order of their keys; nobody picked them"
FRAMES = (f"The {TOP} nearest gallery images of each query. Green frame: the same person; red: another. Images of the "
          "query's person from its own camera are left out.")
PATCHES = ("Blue border in a query: a stripe of the body that {0} finds visible and compares; yellow: one that it "
           "leaves out (SORN Eq. 12).")
AGGREGATION = ("The normalised aggregation maps M_n (SORN Eq. 4) of {0}, one for each channel set, at the size of its "
               "last map; black is 0, light yellow 1. The SPC loss asks map n to be dark outside the n-th stripe.")
MASKS = ("The likeliest of 8 labels at each pixel, from the semantic branch of each network. What is not background is "
         "the mask E by which SORN judges its stripes (Eq. 11).")
ENTROPY = ("Entropy E / log 8 (ESA Eq. 1) and the likeliest of 8 parts in each cell, from the parsing branch of {0}, "
           "at the size of its last map; black is certain, light yellow undecided.")


def run(params: Params, key: str) -> None:
    wanted = pick(params.figures, key, "figures")
    picture, said, keys = DRAWN[wanted.kind](params, f"figures.{key}", wanted)
    folder = Path("reports/figures") / key
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("figure.png", picture), ("figure.md", _caption(params, wanted, said, keys).encode())):
        temporary = folder / f"{name}.tmp"
        temporary.write_bytes(data)
        temporary.replace(folder / name)


def _caption(params: Params, wanted: FigureParams, said: Sequence[str], keys: Sequence[str]) -> str:
    made = "; ".join(f"{name}: `{key}`, trained on `{_run(params, key).train_on}`"
                     for name, key in zip(wanted.names, wanted.shows, strict=True))
    where = " and ".join(f"`{name}`" + " (rendered people)" * (name in params.render)
                         for name in dict.fromkeys(wanted.datasets))
    return (f"# In the place of {wanted.title}\n\n![{wanted.title}](figure.png)\n\n{' '.join(said)}\n\n"
            f"- {made}.\n- Images of {where}: {', '.join(f'`{key}`' for key in keys)}.\n")


def _run(params: Params, key: str) -> RunParams:
    """The run `key`, or the one of which `key` is a result."""
    if key in params.evaluate:
        key = params.embed[params.evaluate[key].features[0]].run
    return pick(params.runs, key, "runs")


def evenly(length: int, count: int) -> list[int]:
    """`count` places in the middles of as many equal stretches of 0..length-1, or all where there are fewer."""
    count = min(count, length)
    return [(2 * place + 1) * length // (2 * count) for place in range(count)]


Drawn = tuple[bytes, list[str], list[str]]  # PNG, sentences of its caption, the index keys of its images


def _lists(params: Params, name: str, wanted: FigureParams) -> Drawn:
    """Retrieval lists, all queries of the first result, then all of the second (SORN Figs. 2, 6, 7; SGAM Fig. 7)."""
    tables = [read_csv(Path(path), LISTS) for path in wanted.reads[:len(wanted.shows)]]
    chosen: list[tuple[str, str]] = []
    indexes = {}
    for dataset in dict.fromkeys(wanted.datasets):
        first = tables[0][tables[0]["dataset"] == dataset]
        queries = sorted(set(first["query"]))
        chosen += [(dataset, queries[place]) for place in evenly(len(queries), wanted.count)]
        indexes[dataset] = read_index(Path("data/index") / f"{dataset}.csv").set_index("image")
    if not chosen:
        raise InputError(f"{wanted.reads[0]!r}: lists no query of {' or '.join(indexes)}; let "
                         f"{wanted.shows[0]} be evaluated on it")
    images = dict(zip(wanted.datasets, wanted.images, strict=True))
    visible = _visible(params, wanted, [query for _, query in chosen])
    lines, names = [], []
    for called, path, table in zip(wanted.names, wanted.reads, tables, strict=False):
        for dataset, query in chosen:
            found = table[(table["dataset"] == dataset) & (table["query"] == query) & (table["position"] <= TOP)]
            absent = sorted({query, *found["gallery"]} - set(indexes[dataset].index))
            if found.empty or absent:
                wrong = f"{absent[0]!r} is not in the index of" if absent else f"has no list of {query!r} of"
                raise InputError(f"{path!r}: {wrong} {dataset!r}; run `dvc repro evaluate` again")
            found = found.sort_values("position")
            lines.append((_shown(query, indexes[dataset], images[dataset], stripes=visible.get(query, ())),
                          [_shown(key, indexes[dataset], images[dataset], right=bool(match))
                           for key, match in zip(found["gallery"], found["match"], strict=True)]))
            names.append(called)
    said = [FRAMES, "The queries are " + SPREAD.format("those whose lists `evaluate` keeps") + "."]
    if visible:
        said.append(PATCHES.format(wanted.names[-1]))
    return rank_figure(lines, names=names), said, [query for _, query in chosen]


def _shown(key: str, index: pd.DataFrame, images: str, *, right: bool | None = None,
           stripes: tuple[bool, ...] = ()) -> Shown:
    entry = index.loc[key]
    return Shown(read_image(Path(images) / entry["path"]), Path(entry["path"]).name, int(entry["pid"]), right, stripes)


def _visible(params: Params, wanted: FigureParams, queries: Sequence[str]) -> dict[str, tuple[bool, ...]]:
    """Of each query the indicators I_1 .. I_P of the last result's features, whose first part is the global one."""
    if wanted.kind != "patched_lists":
        return {}
    path = wanted.reads[len(wanted.shows)]
    found = read_features(path)
    model = pick(params.runs, found.maker["run"], f"{path!r}: runs").model
    if not isinstance(model, SornParams) or found.query.visibility.shape[1] != model.use_global + model.patches:
        raise InputError(f"{path!r}: has no stripes whose visibility could be shown; name a SORN with local features "
                         "last in `shows`, or take kind lists")
    rows = {key: row for row, key in enumerate(found.query_key)}
    absent = [query for query in queries if query not in rows]
    if absent:
        raise InputError(f"{path!r}: has no query {absent[0]!r}; run `dvc repro embed` again")
    local = found.query.visibility[:, int(model.use_global):] > 0
    return {query: tuple(map(bool, local[rows[query]])) for query in queries}


def _aggregation(params: Params, name: str, wanted: FigureParams) -> Drawn:
    """Input and M_1 .. M_N (SORN Fig. 4)."""
    queries = _queries(wanted, name)
    frame = queries.iloc[evenly(len(queries), wanted.count)]
    network, batch = _ready(params, f"{name}.kind", wanted.shows[0], SornParams, frame, wanted.images[0])
    maps = network.maps(batch)[0]
    if maps is None:
        raise InputError(f"{name}.shows: {wanted.shows[0]} has no global branch and so no aggregation maps; name one "
                         "that has")
    rows = [("", [picture, *map(_heat, each)]) for picture, each in zip(_read(frame, wanted), maps, strict=True)]
    columns = ["image", *(f"M{number}" for number in range(1, maps.shape[1] + 1))]
    said = [AGGREGATION.format(wanted.names[0]), "The images are " + SPREAD.format("the data set's queries") + "."]
    return grid_figure(rows, columns=columns, heated="M: 0 to 1"), said, frame["image"].tolist()


def _masks(params: Params, name: str, wanted: FigureParams) -> Drawn:
    """Input and each network's labels, an image that shows all of the person first (SORN Fig. 5)."""
    frame, said = _whole_and_hidden(wanted, name)
    columns = []
    for key in wanted.shows:
        network, batch = _ready(params, f"{name}.kind", key, SornParams, frame, wanted.images[0])
        if not network.use_semantic or params.runs[key].model.labels != 8:  # type: ignore[union-attr] # a SORN
            raise InputError(f"{name}.shows: {key} has no semantic branch of 8 labels; name one that has")
        _, layer2, layer3, t = network.backbone(batch["image"])
        columns.append([part_colours(each.cpu().numpy()) for each in network.semantic(layer2, layer3, t).argmax(1)])
    hidden = [""] * len(frame)
    if "occlusion" in frame:
        hidden = [f"{100 * share:.0f} % hidden" for share in frame["occlusion"]]
    rows = [(called, pictures) for called, *pictures in zip(hidden, _read(frame, wanted), *columns, strict=True)]
    picture = grid_figure(rows, columns=["image", *wanted.names], parts=True)
    return picture, [MASKS, said], frame["image"].tolist()


def _whole_and_hidden(wanted: FigureParams, name: str) -> tuple[pd.DataFrame, str]:
    """One image of which nothing is hidden, a query where there is one, and queries that are occluded."""
    queries = _queries(wanted, name)
    if "occlusion" not in queries:
        return (queries.iloc[evenly(len(queries), wanted.count)], "The index does not say which images are occluded: "
                "these are " + SPREAD.format("the data set's queries") + ".")
    everyone = _index(wanted)
    whole = everyone[everyone["occlusion"] == 0].sort_values("split", ascending=False, kind="stable")
    hidden = queries[queries["occlusion"] >= OCCLUDED]
    if whole.empty or hidden.empty:
        raise InputError(f"{name}.datasets: {wanted.datasets[0]} has {len(whole)} images of which nothing is hidden "
                         f"and {len(hidden)} queries of which {100 * OCCLUDED:.0f} % is; name a data set that has both")
    whole = whole[whole["split"] == whole["split"].iloc[0]]
    chosen = [whole.iloc[evenly(len(whole), 1)], hidden.iloc[evenly(len(hidden), wanted.count - 1)]]
    return (pd.concat(chosen, ignore_index=True), "The first image, in the middle of those of which nothing is hidden "
            f"(of the gallery where no query is so), is followed by occluded ones, {100 * OCCLUDED:.0f} % of the body "
            "or more, " + SPREAD.format("the data set's queries") + ".")


def _entropy(params: Params, name: str, wanted: FigureParams) -> Drawn:
    """Input, entropy and parsing (ESA Fig. 7)."""
    queries = _queries(wanted, name)
    frame = queries.iloc[evenly(len(queries), wanted.count)]
    network, batch = _ready(params, f"{name}.kind", wanted.shows[0], EsaParams, frame, wanted.images[0])
    if network.parse is None:
        raise InputError(f"{name}.shows: {wanted.shows[0]} has semantics cache and so no parsing branch; name one with "
                         "semantics branch")
    _, p, ratio, _ = network.maps(batch)
    rows = [("image", _read(frame, wanted)), ("entropy", [*map(_heat, ratio)]),
            ("parsing", [part_colours(each.cpu().numpy()) for each in p.argmax(1)])]
    said = [ENTROPY.format(wanted.names[0]), "The images are " + SPREAD.format("the data set's queries") + "."]
    return grid_figure(rows, parts=True, heated="E / log 8: 0 to 1"), said, frame["image"].tolist()


DRAWN = {"lists": _lists, "patched_lists": _lists, "aggregation": _aggregation, "masks": _masks, "entropy": _entropy}


def _index(wanted: FigureParams) -> pd.DataFrame:
    frame = read_index(Path("data/index") / f"{wanted.datasets[0]}.csv")
    return frame[frame["split"] != "train"].assign(target=frame["pid"])  # `target` as batches want it


def _queries(wanted: FigureParams, name: str) -> pd.DataFrame:
    frame = _index(wanted)
    frame = frame[frame["split"] == "query"]
    if frame.empty:
        raise InputError(f"{name}.datasets: {wanted.datasets[0]} has no query whose picture could be shown; name a "
                         "data set that has")
    return frame


def _read(frame: pd.DataFrame, wanted: FigureParams) -> list[np.ndarray]:
    return [read_image(Path(wanted.images[0]) / path) for path in frame["path"]]


def _heat(values: Tensor) -> np.ndarray:
    """(h, w) in [0, 1] -> colours (h, w, 3)."""
    return heat((values.float() * 255).round().cpu().numpy().astype(np.uint8))


def _ready(params: Params, name: str, key: str, kind: type, frame: pd.DataFrame, raw: str
           ) -> tuple[Any, dict[str, Tensor]]:
    """A run's trained network, for reading, and the images as the batch it takes. InputError if it is no `kind`."""
    trained: RunParams = pick(params.runs, key, "runs")
    if not isinstance(trained.model, kind):
        raise InputError(f"{name}: cannot be drawn from {key}, whose network is {trained.model.name}; name a "
                         f"{kind.__name__.removesuffix('Params').lower()} in `shows`")
    device = choose_device(params.device, threads=params.threads)
    path = Path("runs") / key / "weights.safetensors"
    tensors, about = read_weights(path)
    check_recorded(about, trained, key=key, path=path)
    network: Any = build(trained, key=key, ids=about["ids"], match=MatchParams(tau=0.0, features="all"))
    load_weights(network, tensors, path)
    network.to(device).eval().requires_grad_(False)
    pictures = Pictures(frame, raw=raw, cache=None, height=trained.height, width=trained.width)
    return network, next(iter(ordered_batches(pictures, batch=len(frame), workers=0, device=device)))


if __name__ == "__main__":
    main(run)
