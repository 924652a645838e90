"""Report of an experiment's results as one HTML page, images first: python -m stages.report rendered

Writes data/reports/EXPERIMENT/KEY/index.html, tables/*.md and *.csv and pictures/*.png and *.svg from the experiment's
own results, curves and neighbours, its parser's scores and the caches of one data set. The page stays below 8 MB.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.base.body_parts import DENSEPOSE24
from pipeline.base.errors import InputError
from pipeline.base.files import new_folder, writable
from pipeline.base.images import decode_image, read_bytes, read_image
from pipeline.base.spread import evenly
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import ReportPlan
from pipeline.datasets.index import read_index
from pipeline.inspection.audit import areas_of, outliers, survey
from pipeline.inspection.contact_sheets import side_colours
from pipeline.inspection.missing_parts import FAULTS, GROUPS, faults, good_parse
from pipeline.reporting import html_page
from pipeline.reporting.neighbours import Neighbours, read_neighbours, same_queries
from pipeline.reporting.part_names import part_names
from pipeline.reporting.plots import cmc_figure, dsap_figure, parse_figure
from pipeline.reporting.results import (
    CURVES,
    Result,
    Table,
    as_csv,
    as_markdown,
    dataset_table,
    differing,
    leading,
    parser_table,
    read_csv,
    read_parser_scores,
    read_results,
)
from pipeline.reporting.viewer import Album, Picture, as_text, overlay, query_entries, query_order, viewer
from stages import main

PARSED, WARPED = 6, 2  # images whose maps and warps are shown
LIMIT, RESERVE = 8_000_000, 100_000  # bytes of the page, and of them what is neither pictures, lists nor tables
CROPS_SHARE = 5  # one part in so many of what pictures and lists may take is the worst crops'
SURVEYED, MOST = 2000, 8  # rows of the cache in which they are looked for, spread evenly; crops of each kind
INTRODUCTION = ("A query image is compared with every gallery image, and images of the same person should come first. "
                "Every number here comes from the results of experiment {0}, whose runs are named beside it.")

Section = tuple[str, str, str]  # anchor, heading, HTML


def run(experiment: Experiment, key: str) -> None:
    """Build the report in a folder beside its place and put it there whole."""
    plan = pick(experiment.plan.report, key, "plan.report")
    target = paths.report(experiment.name, key)
    writable(target, folder=True)
    evaluated = experiment.plan.evaluations
    results = read_results(paths.RESULTS / experiment.name, list(evaluated))
    rendered = {dataset for result in evaluated.values() for dataset in result.rendered}

    with new_folder(target) as work:
        for folder in ("tables", "pictures"):
            (work / folder).mkdir()
        rest = [_images(plan, work), _results(experiment, results, plan, rendered, work), _parser(plan, work),
                _provenance(results)]
        room = LIMIT - RESERVE - sum(len(html.encode()) for *_, html in rest)
        sections = [*_viewer(experiment, key, results, plan, room), *rest]
        html = html_page.page(title=plan.title, introduction=INTRODUCTION.format(experiment.name), sections=sections)
        (work / "index.html").write_text(html, encoding="utf-8")


def _images(plan: ReportPlan, work: Path) -> Section:
    """What the caches hold of queries spread evenly over the data set."""
    parts, dsap = (Cache(paths.cache(plan.cache, file)) for file in ("parts.h5", "dsap.h5"))
    index = read_index(plan.index)
    queries = index[index["split"] == "query"]
    if queries.empty:
        raise InputError(f"{plan.index!r}: has no query whose image could be shown; name another cache in "
                         "report.pictures of the profile")

    shown = queries.iloc[evenly(len(queries), PARSED)]
    images = [read_image(Path(plan.raw) / path) for path in shown["path"]]
    rows = parts.rows(shown["image"])
    figure = parse_figure([(image, parts.read("labels", row), parts.read("entropy", row))
                           for image, row in zip(images, rows, strict=True)])
    (work / "pictures" / "parse.png").write_bytes(figure)
    html = html_page.heading("Images, parts and entropy") + html_page.png(figure, "Images, parts and entropy maps")
    html += html_page.note(f"Queries of {plan.dataset} and what {parts.path} holds of them: the likeliest of 8 parts "
                           "at each pixel, and how undecided the parser was.")

    html += html_page.heading("DSAP images")
    warps = dsap.rows(shown["image"])
    for place in evenly(len(shown), WARPED):
        figure = dsap_figure(images[place], dsap.read("dsap", warps[place]), dsap.read("valid", warps[place]))
        (work / "pictures" / f"dsap-{place + 1}.png").write_bytes(figure)
        html += html_page.png(figure, f"An image of {plan.dataset} and its 24 part images")
    html += html_page.note(f"Two of them with the 24 surface parts unwarped, from {dsap.path}. Grey texels were not "
                           "seen.")
    return "pictures", "What the caches hold", html


def _viewer(experiment: Experiment, key: str, results: Sequence[Result], plan: ReportPlan, room: int) -> list[Section]:
    """Queries and worst crops, which take at most `room` bytes of the page together."""
    runs = [_neighbours(experiment, key, name, results) for name in plan.shows]
    same_queries(runs)
    index = read_index(plan.index).set_index("image")
    parts = Cache(paths.cache(plan.cache, "parts.h5"))
    _check_images(plan, index, runs, parts)

    for_crops = max(room // CROPS_SHARE, 0)
    album = Album(_loader(plan, parts, index), for_crops)
    crops, surveyed = _crops(parts, album)
    album.room += max(room, 0) - for_crops
    queries = query_entries(runs, album, query_order(runs))

    content = {"images": album.entries, "queries": queries, "crops": crops, "runs": [
        {"name": run.result, "distance": run.distance, "reduction": run.reduction,
         "parts": part_names(run.model, run.sizes)} for run in runs]}
    lists = viewer(content) + html_page.note(_shown(plan.dataset, runs, len(queries)))
    worst = html_page.note(
        f"What looks wrong in a parse, judged without ground truth on {surveyed:,} of the {len(parts):,} rows of "
        f"{parts.path}; up to {MOST} crops of each kind, those that lack a part spread evenly, others the oddest "
        "first. The command stages.tools.audit_cache shows more of them.")
    return [("queries", "Queries", lists), ("worst", "The parser's worst crops", worst + '<div id="crops"></div>')]


def _neighbours(experiment: Experiment, key: str, name: str, results: Sequence[Result]) -> Neighbours:
    """A run's lists. InputError if they are of other features than its metrics."""
    path, dataset = paths.neighbours(experiment.name, key, name), experiment.plan.report[key].dataset
    stage = f"neighbours{'_listed' * (f'{key}-{name}' in experiment.plan.neighbours_listed)}@{key}-{name}"
    run = read_neighbours(path, result=name, dataset=dataset, remedy=f"run `dvc repro {stage}`")
    for result in results:
        if (result.name, result.dataset) != (name, dataset) or "trials" in result.metrics:
            continue
        rank1 = 100 * run.rank1()
        if abs(rank1 - result.metrics["rank1"]) > 0.01:
            raise InputError(f"{str(path)!r}: has a rank-1 of {rank1:.2f}, and the metrics of {name!r} on "
                             f"{dataset!r} one of {result.metrics['rank1']:.2f}: they are of other features; run "
                             f"`dvc repro {stage.replace('neighbours', 'evaluate').split('@')[0]}@{name} {stage}`")
    return run


def _check_images(plan: ReportPlan, index: pd.DataFrame, runs: Sequence[Neighbours], parts: Cache) -> None:
    """InputError if a list or the cache names an image that the index lacks, or if images are not where the index has
    them."""
    listed = {key for run in runs for one in run.lists for key in (one.query, *one.gallery)}
    strange = sorted(listed - set(index.index))
    if strange:
        raise InputError(f"{plan.index!r}: has no image {strange[0]!r}, of which {len(strange)} of the {len(listed)} "
                         "that were ranked are such: the features are of another index; run `dvc repro embed evaluate`")

    keys = parts.column("key")
    other = sorted(set(keys) - set(index.index))
    if other:
        raise InputError(f"{str(parts.path)!r}: holds {len(keys)} images, {len(other)} of which ({other[0]!r} first) "
                         f"are not among the {len(index)} of {plan.index!r}: it was made for another index; run "
                         "`dvc repro`")

    gone = [path for path in index["path"] if not Path(plan.raw, path).is_file()]
    if gone:
        raise InputError(f"{plan.raw!r}: {len(gone)} of the {len(index)} images of {plan.index!r} are not there "
                         f"({gone[0]!r} first); put them back where they were, or let `dvc repro "
                         f"prepare@{plan.dataset}` read the folder as it is now")


def _loader(plan: ReportPlan, parts: Cache, index: pd.DataFrame) -> Callable[[str], Picture]:
    """What gives a picture of the page by its key. InputError where the image is not the one that was parsed."""
    rows = {str(key): row for row, key in enumerate(parts.column("key"))}
    hashes, least = parts.column("image_sha256"), good_parse(parts.maker["taxonomy"])["least"]

    def load(key: str) -> Picture:
        found, path = index.loc[key], Path(plan.raw, index.loc[key]["path"])
        row = rows[key] if key in rows else int(parts.rows([key])[0])
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != hashes[row]:
            raise InputError(f"{str(path)!r}: is not the image that {str(parts.path)!r} was made from, whose parts "
                             "the page shows; put that one back, or run `dvc repro` to parse this one")

        labels = parts.read("labels", row)
        unknown = np.full(1, np.nan)
        flags = faults(areas_of(labels)[None], unknown, unknown, least)
        return Picture(decode_image(data, path), Path(found["path"]).name, int(found["pid"]), int(found["camid"]),
                       labels, parts.read("entropy", row), [group for group in GROUPS if flags[f"no_{group}"][0] == 1])

    return load


def _crops(parts: Cache, album: Album) -> tuple[list[dict[str, Any]], int]:
    """The parser's worst crops by kind, as many as the album has room for, and how many were looked at."""
    seen = survey(parts, sample=SURVEYED)
    kinds = []
    for title, members in outliers(seen, None, MOST):
        shown = [(key, why) for key, why in members if album.add([key], 3000)]  # a mask of its own has room in these
        masks: list[list[str]] = [[] for _ in shown]
        if title.startswith(FAULTS["sides_exchanged"]):
            native = [parts.read("native", row) for row in parts.rows(key for key, _ in shown).tolist()]
            masks = [[as_text(overlay(one, side_colours(np.arange(len(DENSEPOSE24)))))] for one in native]
            title += ": the right limbs orange, the left ones blue"
        if shown:
            kinds.append({"title": title, "items": [[album.places[key], why, *mask] for (key, why), mask
                                                    in zip(shown, masks, strict=True)]})
    return kinds, len(seen.keys)


def _shown(dataset: str, runs: Sequence[Neighbours], count: int) -> str:
    """Which queries there are, and which were left out."""
    scored = len(query_order(runs))
    others = len(runs[0].lists) - scored
    said = (f"{count} of the {scored} scored queries of {dataset}, of each network's first run their nearest gallery "
            "images and, where none of those is right, the nearest that is. Green: the same person; red: another. "
            "Images of the query's person from its own camera are left out.")
    if others:
        said += f" {others} more queries have no match from another camera and are not scored."
    if count < scored:
        said += (f" The other {scored - count} are left out so that the page stays below {LIMIT // 10**6} MB: in turn "
                 "one that some run here answers wrongly and one that all answer rightly is drawn until nothing more "
                 "fits, so a share of what is here is no rank-1.")
    return said


def _results(experiment: Experiment, results: Sequence[Result], plan: ReportPlan, rendered: set[str], work: Path
             ) -> Section:
    """Tables and CMC curves for each data set, the one whose images are shown first: the methods, then all else.

    A method is there by the result whose queries are shown; of others, by the one that the plan evaluates first.
    """
    datasets = sorted({result.dataset for result in results}, key=lambda name: (name != plan.dataset, name))
    trained = _training_part(plan)
    curves = pd.concat([read_csv(paths.curve(experiment.name, name), CURVES)
                        for name in sorted({result.name for result in results})])
    order = [*plan.shows, *experiment.plan.evaluations]

    html = ""
    for dataset in datasets:
        rows = [result for result in results if result.dataset == dataset]
        first = leading(sorted(rows, key=lambda result: order.index(result.name)))
        methods = [result for result in rows if result in first]
        others = [result for result in rows if result not in methods]
        table, *further = [dataset_table(dataset, part, rendered=rendered, trained=trained)
                           for part in (methods, others) if part]
        svg = cmc_figure(curves[curves["dataset"] == dataset], {result.name: result.name for result in methods})
        (work / "pictures" / f"cmc-{table.name}.svg").write_bytes(svg)

        html += _table(table, work)
        if any("duke" in name.lower() for name in (dataset, *(str(row.provenance["protocol"]) for row in rows))):
            html += html_page.note(html_page.WITHDRAWN)
        html += html_page.svg(svg, f"CMC curves on {table.name}")
        for more in further:
            html += _table(dataclasses.replace(more, name=f"{table.name}-further",
                                               title=f"{table.name}: variants and further seeds"), work)
    return "results", "Results", html


def _training_part(plan: ReportPlan) -> dict[str, tuple[int, int]]:
    """Images and people of the data set's training part; of no other set, because DVC knows of no other index here."""
    frame = read_index(plan.index)
    part = frame[frame["split"] == "train"]
    return {plan.dataset: (len(part), part["pid"].nunique())}


def _table(table: Table, work: Path) -> str:
    """Write a table's files; its HTML."""
    (work / "tables" / f"{table.name}.md").write_text(as_markdown(table), encoding="utf-8")
    (work / "tables" / f"{table.name}.csv").write_text(as_csv(table), encoding="utf-8")
    return html_page.heading(table.title) + html_page.table_html(table)


def _parser(plan: ReportPlan, work: Path) -> Section:
    path = Path(plan.scores)
    table = parser_table(read_parser_scores(path), parser=path.stem, data=plan.parsed_on)
    return "parser", "The parser", _table(table, work)


def _provenance(results: Sequence[Result]) -> Section:
    """Versions and caches behind the metrics, grouped so that runs made differently stand out."""
    versions, caches = (differing(results, field) for field in ("versions", "caches"))
    said = "All runs were made by the same versions." if len(versions) == 1 else (
        "The runs were NOT all made by the same versions; metrics of different groups may differ for that reason.")
    html = html_page.paragraph(said) + html_page.bullets(versions)
    html += html_page.paragraph("Caches the runs read, by SHA-256:") + html_page.bullets(caches)
    return "provenance", "What made the metrics", html


if __name__ == "__main__":
    main(run)
