"""Figure of a paper, drawn from this project's runs: python -m stages.paper_figure sorn-4 --experiment figures

Writes data/reports/EXPERIMENT/figures/KEY/figure.png and figure.md, which says what it shows. Nobody picks the images:
they are spread evenly over the data set's queries, the same for every row.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.base.files import new_folder, writable
from pipeline.base.images import read_image
from pipeline.base.spread import evenly
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import ListsPlan, MapsPlan, MasksPlan, PatchesPlan
from pipeline.config.schema import MatchParams
from pipeline.datasets.index import read_index
from pipeline.loading.dataset import Images, ordered_batches
from pipeline.reporting.plots import ListedImage, grid_figure, heat, part_colours, rank_figure
from pipeline.reporting.results import LISTS, read_csv
from pipeline.retrieval.features import read_features
from stages import main
from stages.shared.device import choose_device
from stages.shared.trained_run import open_run

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


FigurePlan = ListsPlan | MapsPlan | MasksPlan
Drawn = tuple[bytes, list[str], list[str]]  # PNG, sentences of its caption, the index keys of its images


def run(experiment: Experiment, key: str) -> None:
    plans = experiment.plan
    plan: FigurePlan = pick({**plans.figure_lists, **plans.figure_patches, **plans.figure_maps, **plans.figure_masks},
                            key, "plan.figure")
    target = paths.report(experiment.name, "figures", key)
    writable(target, folder=True)
    if isinstance(plan, ListsPlan):
        picture, said, keys = _lists(experiment, key, plan)
    elif isinstance(plan, MasksPlan):
        picture, said, keys = _masks(experiment, key, plan)
    else:
        picture, said, keys = {"aggregation": _aggregation, "entropy": _entropy}[plan.kind](experiment, key, plan)

    with new_folder(target) as folder:
        (folder / "figure.png").write_bytes(picture)
        (folder / "figure.md").write_text(_caption(plan, said, keys), encoding="utf-8")


def _caption(plan: FigurePlan, said: Sequence[str], keys: Sequence[str]) -> str:
    shows, trained_on, names = ([value] if isinstance(value, str) else value for value in (
        plan.shows, plan.trained_on, plan.name if isinstance(plan, MapsPlan) else plan.names))
    made = "; ".join(f"{name}: `{shown}`, trained on `{trained}`"
                     for name, shown, trained in zip(names, shows, trained_on, strict=True))
    where = f"`{plan.dataset}`" + " (rendered people)" * plan.rendered
    return (f"# In the place of {plan.title}\n\n![{plan.title}](figure.png)\n\n{' '.join(said)}\n\n"
            f"- {made}.\n- Images of {where}: {', '.join(f'`{key}`' for key in keys)}.\n")


def _lists(experiment: Experiment, key: str, plan: ListsPlan) -> Drawn:
    """Retrieval lists, all queries of the first result, then all of the second (SORN Figs. 2, 6, 7; SGAM Fig. 7)."""
    files = [Path(plan.first), Path(plan.second)]
    tables = [table[table["dataset"] == plan.dataset] for table in (read_csv(path, LISTS) for path in files)]
    index = read_index(plan.index).set_index("image")
    queries = sorted(set(tables[0]["query"]))
    if not queries:
        raise InputError(f"{str(files[0])!r}: lists no query of {plan.dataset}; let {plan.shows[0]} be evaluated on it")
    chosen = [queries[place] for place in evenly(len(queries), plan.count)]

    visible = _visible(experiment, plan, chosen)
    lines, names = [], []
    for name, path, table in zip(plan.names, files, tables, strict=True):
        for query in chosen:
            ranks = table[(table["query"] == query) & (table["position"] <= TOP)].sort_values("position")
            absent = sorted({query, *ranks["gallery"]} - set(index.index))
            if ranks.empty or absent:
                wrong = f"{absent[0]!r} is not in the index of" if absent else f"has no list of {query!r} of"
                raise InputError(f"{str(path)!r}: {wrong} {plan.dataset!r}; run `dvc repro evaluate` again")
            lines.append((_shown(query, index, plan.raw, stripes=visible.get(query, ())),
                          [_shown(other, index, plan.raw, right=bool(match))
                           for other, match in zip(ranks["gallery"], ranks["match"], strict=True)]))
            names.append(name)

    said = [FRAMES, "The queries are " + SPREAD.format("those whose lists `evaluate` keeps") + "."]
    if visible:
        said.append(PATCHES.format(plan.names[-1]))
    return rank_figure(lines, names=names), said, chosen


def _shown(key: str, index: pd.DataFrame, raw: str, *, right: bool | None = None,
           stripes: tuple[bool, ...] = ()) -> ListedImage:
    entry = index.loc[key]
    path = Path(raw) / entry["path"]
    return ListedImage(read_image(path), path.name, int(entry["pid"]), right, stripes)


def _visible(experiment: Experiment, plan: ListsPlan, queries: Sequence[str]) -> dict[str, tuple[bool, ...]]:
    """Of each query the indicators I_1 .. I_P of the last result's features, whose first part is the global one."""
    if not isinstance(plan, PatchesPlan):
        return {}
    path = plan.features
    embedded = read_features(path)
    model: Any = experiment.run(embedded.provenance["run"]).model
    parts = getattr(model, "patches", None)
    if parts is None or embedded.query.visibility.shape[1] != model.use_global + parts:
        raise InputError(f"{path!r}: has no stripes whose visibility could be shown; name a SORN with local features "
                         "last in `shows`, or take kind lists")

    rows = {key: row for row, key in enumerate(embedded.query_key)}
    absent = [query for query in queries if query not in rows]
    if absent:
        raise InputError(f"{path!r}: has no query {absent[0]!r}; delete the file and run `dvc repro`")
    local = embedded.query.visibility[:, int(model.use_global):] > 0
    return {query: tuple(map(bool, local[rows[query]])) for query in queries}


def _aggregation(experiment: Experiment, key: str, plan: MapsPlan) -> Drawn:
    """Input and M_1 .. M_N (SORN Fig. 4)."""
    frame = _spread_queries(plan, key)
    network, batch = _ready(experiment, key, plan.shows, plan.weights, frame, plan.raw, needs="aggregation maps")
    maps = network.maps(batch)[0]
    if maps is None:
        raise InputError(f"figures.{key}.shows: {plan.shows} has no global branch and so no aggregation maps; name one "
                         "that has")

    rows = [("", [image, *map(_heat, each)]) for image, each in zip(_read(frame, plan.raw), maps, strict=True)]
    columns = ["image", *(f"M{number}" for number in range(1, maps.shape[1] + 1))]
    said = [AGGREGATION.format(plan.name), "The images are " + SPREAD.format("the data set's queries") + "."]
    return grid_figure(rows, columns=columns, heated="M: 0 to 1"), said, frame["image"].tolist()


def _masks(experiment: Experiment, key: str, plan: MasksPlan) -> Drawn:
    """Input and each network's labels, an image that shows all of the person first (SORN Fig. 5)."""
    frame, said = _whole_and_hidden(plan, key)
    columns = []
    for shown, weights in zip(plan.shows, (plan.full, plan.hard, plan.external), strict=True):
        network, batch = _ready(experiment, key, shown, weights, frame, plan.raw, needs="semantic branch")
        if not network.use_semantic or experiment.run(shown).model.labels != 8:  # type: ignore[union-attr] # a SORN
            raise InputError(f"figures.{key}.shows: {shown} has no semantic branch of 8 labels; name one that has")
        _, layer2, layer3, t = network.backbone(batch["image"], batch.get("camid"))
        columns.append([part_colours(each.cpu().numpy()) for each in network.semantic(layer2, layer3, t).argmax(1)])

    hidden = [""] * len(frame)
    if "occlusion" in frame:
        hidden = [f"{100 * share:.0f} % hidden" for share in frame["occlusion"]]
    rows = [(title, images) for title, *images in zip(hidden, _read(frame, plan.raw), *columns, strict=True)]
    picture = grid_figure(rows, columns=["image", *plan.names], parts=True)
    return picture, [MASKS, said], frame["image"].tolist()


def _whole_and_hidden(plan: MasksPlan, key: str) -> tuple[pd.DataFrame, str]:
    """One image of which nothing is hidden, a query where there is one, and queries that are occluded."""
    queries = _queries(plan, key)
    if "occlusion" not in queries:
        return (queries.iloc[evenly(len(queries), plan.count)], "The index does not say which images are occluded: "
                "these are " + SPREAD.format("the data set's queries") + ".")

    everyone = _index(plan)
    whole = everyone[everyone["occlusion"] == 0].sort_values("split", ascending=False, kind="stable")
    hidden = queries[queries["occlusion"] >= OCCLUDED]
    if whole.empty or hidden.empty:
        raise InputError(f"figures.{key}.dataset: {plan.dataset} has {len(whole)} images of which nothing is hidden "
                         f"and {len(hidden)} queries of which {100 * OCCLUDED:.0f} % is; name a data set that has both")

    whole = whole[whole["split"] == whole["split"].iloc[0]]
    chosen = [whole.iloc[evenly(len(whole), 1)], hidden.iloc[evenly(len(hidden), plan.count - 1)]]
    return (pd.concat(chosen, ignore_index=True), "The first image, in the middle of those of which nothing is hidden "
            f"(of the gallery where no query is so), is followed by occluded ones, {100 * OCCLUDED:.0f} % of the body "
            "or more, " + SPREAD.format("the data set's queries") + ".")


def _entropy(experiment: Experiment, key: str, plan: MapsPlan) -> Drawn:
    """Input, entropy and parsing (ESA Fig. 7)."""
    frame = _spread_queries(plan, key)
    network, batch = _ready(experiment, key, plan.shows, plan.weights, frame, plan.raw, needs="entropy")
    if network.parse is None:
        raise InputError(f"figures.{key}.shows: {plan.shows} has semantics cache and so no parsing branch; name one "
                         "with semantics branch")

    _, p, ratio, _ = network.maps(batch)
    rows = [("image", _read(frame, plan.raw)), ("entropy", [*map(_heat, ratio)]),
            ("parsing", [part_colours(each.cpu().numpy()) for each in p.argmax(1)])]
    said = [ENTROPY.format(plan.name), "The images are " + SPREAD.format("the data set's queries") + "."]
    return grid_figure(rows, parts=True, heated="E / log 8: 0 to 1"), said, frame["image"].tolist()


def _index(plan: FigurePlan) -> pd.DataFrame:
    frame = read_index(plan.index)
    return frame[frame["split"] != "train"].assign(target=frame["pid"])  # `target` as batches want it


def _queries(plan: FigurePlan, key: str) -> pd.DataFrame:
    frame = _index(plan)
    frame = frame[frame["split"] == "query"]
    if frame.empty:
        raise InputError(f"figures.{key}.dataset: {plan.dataset} has no query whose image could be shown; name a data "
                         "set that has")
    return frame


def _spread_queries(plan: FigurePlan, key: str) -> pd.DataFrame:
    queries = _queries(plan, key)
    return queries.iloc[evenly(len(queries), plan.count)]


def _read(frame: pd.DataFrame, raw: str) -> list[np.ndarray]:
    return [read_image(Path(raw) / path) for path in frame["path"]]


def _heat(values: Tensor) -> np.ndarray:
    """(h, w) in [0, 1] -> colours (h, w, 3)."""
    return heat((values.float() * 255).round().cpu().numpy().astype(np.uint8))


NEEDED = {"aggregation maps": "aggregation_maps", "semantic branch": "use_semantic", "entropy": "parse"}  # attributes


def _ready(experiment: Experiment, key: str, shown: str, weights: str, frame: pd.DataFrame, raw: str, *, needs: str
           ) -> tuple[Any, dict[str, Tensor]]:
    """A run's trained network, for reading, and the images as the batch it takes. InputError if it has no such maps."""
    trained = experiment.run(shown)
    device = choose_device(experiment.params.device, threads=experiment.params.threads)
    network = open_run(trained, key=shown, weights=weights, match=MatchParams(features="all", tau=0.0)).network
    if not hasattr(network, "maps") or not hasattr(network, NEEDED[needs]):
        raise InputError(f"figures.{key}: cannot be drawn from {shown}, whose network is {trained.model.name} and has "
                         f"no {needs}; name another in `shows`")

    network.to(device).requires_grad_(False)
    images = Images(frame, raw=raw, cache=None, height=trained.height, width=trained.width)
    return network, next(iter(ordered_batches(images, batch=len(frame), workers=0, device=device)))


if __name__ == "__main__":
    main(run)
