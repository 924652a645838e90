"""Report of an experiment's results as one HTML page, images first: python -m stages.report rendered

Writes data/reports/EXPERIMENT/KEY/index.html, tables/*.md and *.csv and pictures/*.png and *.svg from the experiment's
own results, curves and rank lists, its parser's scores and the caches of one data set.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from pipeline.base.errors import InputError
from pipeline.base.files import new_folder, writable
from pipeline.base.images import read_image
from pipeline.base.spread import evenly
from pipeline.caches.cache import Cache
from pipeline.config import paths
from pipeline.config.loader import Experiment, pick
from pipeline.config.plan import ReportPlan
from pipeline.datasets.index import read_index
from pipeline.reporting import html_page
from pipeline.reporting.plots import ListedImage, cmc_figure, dsap_figure, parse_figure, rank_figure
from pipeline.reporting.results import (
    CURVES,
    LISTS,
    Result,
    Table,
    as_csv,
    as_markdown,
    control,
    dataset_table,
    differing,
    leading,
    parser_table,
    read_csv,
    read_parser_scores,
    read_results,
)
from stages import main

PARSED, WARPED = 6, 2  # images whose maps and warps are shown
LISTED, TOP = 4, 5  # queries of a rank list, gallery images of each
INTRODUCTION = ("Person re-identification: a query image is compared with every gallery image, and images of the same "
                "person should come first. Every number here comes from the results of experiment {0}, whose runs are "
                "named beside it.")

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
        sections = [_images(plan, work), *_lists(experiment.name, results, plan, work),
                    _results(experiment.name, results, plan, rendered, work), _parser(plan, work),
                    _provenance(results)]
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


def _lists(experiment: str, results: Sequence[Result], plan: ReportPlan, work: Path) -> Iterator[Section]:
    """Rank lists of the first trained run of each model on the data set, the same queries for all."""
    index = read_index(plan.index).set_index("image")
    html = ""
    for result in leading([result for result in results if result.dataset == plan.dataset]):
        if control(result) in ("histogram", "untrained"):
            continue
        path = paths.ranks(experiment, result.name)
        ranks = read_csv(path, LISTS)
        ranks = ranks[(ranks["dataset"] == plan.dataset) & (ranks["position"] <= TOP)]
        absent = sorted({*ranks["query"], *ranks["gallery"]} - set(index.index))
        if ranks.empty or absent:
            wrong = f"{absent[0]!r} is not in the index of" if absent else "it lists no query of"
            raise InputError(f"{str(path)!r}: {wrong} {plan.dataset!r}; run `dvc repro evaluate` again")

        figure = rank_figure(list(_listed(ranks, index, Path(plan.raw))))
        (work / "pictures" / f"ranks-{result.name}.png").write_bytes(figure)
        html += html_page.heading(result.name)
        html += html_page.png(figure, f"Rank lists of {result.name} on {plan.dataset}")

    if html:
        html += html_page.note(f"The {TOP} nearest gallery images of queries spread evenly over {plan.dataset}, of "
                               "each model's first run. Green frame: the same person; red: another. Images of the "
                               "query's person from its own camera are left out.")
        yield "lists", "Rank lists", html


def _listed(ranks: pd.DataFrame, index: pd.DataFrame, raw: Path) -> Iterator[tuple[ListedImage, list[ListedImage]]]:
    queries = sorted(set(ranks["query"]))
    for query in (queries[place] for place in evenly(len(queries), LISTED)):
        ranked = ranks[ranks["query"] == query].sort_values("position")
        yield _load(query, index, raw), [_load(key, index, raw, bool(match)) for key, match
                                         in zip(ranked["gallery"], ranked["match"], strict=True)]


def _load(key: str, index: pd.DataFrame, raw: Path, right: bool | None = None) -> ListedImage:
    entry = index.loc[key]
    return ListedImage(read_image(raw / entry["path"]), Path(entry["path"]).name, int(entry["pid"]), right)


def _results(experiment: str, results: Sequence[Result], plan: ReportPlan, rendered: set[str], work: Path) -> Section:
    """Tables and CMC curves for each data set, the one whose images are shown first: the methods, then all else."""
    datasets = sorted({result.dataset for result in results}, key=lambda name: (name != plan.dataset, name))
    trained = _training_part(plan)
    curves = pd.concat([read_csv(paths.curve(experiment, name), CURVES)
                        for name in sorted({result.name for result in results})])

    html = ""
    for dataset in datasets:
        rows = [result for result in results if result.dataset == dataset]
        methods = leading(rows)
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
