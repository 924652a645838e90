"""Tables, curves and pictures of a scale's results as one HTML page: python -m stages.report default-rendered

Writes reports/KEY/index.html, reports/KEY/tables/*.md and *.csv, reports/KEY/pictures/*.png and *.svg from
metrics/SCALE, curves/SCALE, ranks/SCALE, the parser's scores and the caches of one data set.
"""

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import page
from pipeline.caches import Cache
from pipeline.errors import InputError
from pipeline.figures import Shown, cmc_figure, dsap_figure, parse_figure, rank_figure
from pipeline.images import read_image
from pipeline.index import read_index
from pipeline.params import Params, pick
from pipeline.report import (
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
    read_json,
    read_results,
    short,
)
from stages import main

PARSED, WARPED = 6, 2  # images whose maps and warps are shown
LISTED, TOP = 4, 5  # queries of a rank list, gallery images of each
INTRODUCTION = ("Person re-identification: a query picture is compared with every gallery picture, and pictures of the "
                "same person should come first. Every figure here comes from the result files of the runs named beside "
                "it.")

Section = tuple[str, str, str]  # anchor, heading, HTML


def run(params: Params, key: str) -> None:
    """Build the report in a folder beside its place and put it there whole."""
    wanted = pick(params.report, key, "report")
    results = read_results(Path("metrics") / params.scale)
    target, work = Path("reports") / key, Path("reports") / f"{key}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("tables", "pictures"):
        (work / folder).mkdir(parents=True)
    sections = [_results(params, results, wanted.dataset, work), _parser(params, wanted.parser, work),
                _pictures(wanted.pictures, wanted.dataset, wanted.images, params.scale, work),
                *_lists(results, wanted.dataset, wanted.images, params.scale, work),
                _made(results, params.scale)]
    html = page.page(title=wanted.title, introduction=INTRODUCTION, sections=sections)
    (work / "index.html").write_text(html, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def _results(params: Params, results: Sequence[Result], first: str, work: Path) -> Section:
    """Tables and CMC curves for each data set, the one whose pictures are shown first: the methods, then all else."""
    scale = params.scale
    datasets = sorted({result.dataset for result in results}, key=lambda name: (name != first, name))
    trained = _training_part(first)
    curves = pd.concat([read_csv(Path("curves") / scale / f"{run}.csv", CURVES)
                        for run in sorted({result.run for result in results})])
    html = ""
    for dataset in datasets:
        rows = [result for result in results if result.dataset == dataset]
        methods = leading(rows)
        others = [result for result in rows if result not in methods]
        table, *further = [
            dataset_table(dataset, part, scale=scale, rendered=dataset in params.render, trained=trained)
            for part in (methods, others) if part]
        labels = {result.run: short(result.run, scale) for result in methods}
        svg = cmc_figure(curves[curves["dataset"] == dataset], labels)
        (work / "pictures" / f"cmc-{table.name}.svg").write_bytes(svg)
        html += _table(table, work)
        if any("duke" in name.lower() for name in (dataset, *(str(row.about["protocol"]) for row in rows))):
            html += page.note(page.WITHDRAWN)
        html += page.drawing(svg, f"CMC curves on {table.name}")
        for more in further:
            html += _table(dataclasses.replace(more, name=f"{table.name}-further",
                                               title=f"{table.name}: variants and further seeds"), work)
    return "results", "Results", html


def _training_part(dataset: str) -> dict[str, tuple[int, int]]:
    """Images and people of the data set's training part; of no other set, because DVC knows of no other index here."""
    frame = read_index(Path("data/index") / f"{dataset}.csv")
    part = frame[frame["split"] == "train"]
    return {dataset: (len(part), part["pid"].nunique())}


def _table(table: Table, work: Path) -> str:
    """Write a table's files; its HTML."""
    (work / "tables" / f"{table.name}.md").write_text(as_markdown(table), encoding="utf-8")
    (work / "tables" / f"{table.name}.csv").write_text(as_csv(table), encoding="utf-8")
    return page.heading(table.title) + page.table_html(table)


def _parser(params: Params, parser: str, work: Path) -> Section:
    settings = pick(params.parsers, parser, "parsers")
    table = parser_table(read_json(Path("metrics/parsers") / f"{parser}.json"), parser=parser, data=settings.data,
                         scale=params.scale)
    return "parser", "The parser", _table(table, work)


def _pictures(cache: str, dataset: str, images: str, scale: str, work: Path) -> Section:
    """What the caches hold of queries spread evenly over the data set."""
    folder = Path("data/cache") / cache
    parts, dsap = Cache(folder / "parts.h5"), Cache(folder / "dsap.h5")
    index = read_index(Path("data/index") / f"{dataset}.csv")
    queries = index[index["split"] == "query"]
    if queries.empty:
        raise InputError(f"'data/index/{dataset}.csv': has no query whose pictures could be shown; name another cache "
                         "in report.pictures")
    shown = queries.iloc[_spread(len(queries), PARSED)]
    pictures = [read_image(Path(images) / path) for path in shown["path"]]
    rows = parts.rows(shown["image"])
    figure = parse_figure([(picture, parts.read("labels", row), parts.read("entropy", row))
                           for picture, row in zip(pictures, rows, strict=True)])
    (work / "pictures" / "parse.png").write_bytes(figure)
    html = page.heading("Images, parts and entropy") + page.picture(figure, "Images, parts and entropy maps")
    html += page.note(f"Queries of {short(dataset, scale)} and what {folder}/parts.h5 holds of them: the likeliest of "
                      "8 parts at each pixel, and how undecided the parser was.")
    html += page.heading("DSAP images")
    warps = dsap.rows(shown["image"])
    for number in _spread(len(shown), WARPED):
        figure = dsap_figure(pictures[number], dsap.read("dsap", warps[number]), dsap.read("valid", warps[number]))
        (work / "pictures" / f"dsap-{number + 1}.png").write_bytes(figure)
        html += page.picture(figure, f"An image of {dataset} and its 24 part images")
    html += page.note(f"Two of them with the 24 surface parts unwarped, from {folder}/dsap.h5. Grey texels "
                      "were not seen.")
    return "pictures", "What the caches hold", html


def _lists(results: Sequence[Result], dataset: str, images: str, scale: str, work: Path) -> Iterator[Section]:
    """Rank lists of the first trained run of each model on the data set, the same queries for all."""
    index = read_index(Path("data/index") / f"{dataset}.csv").set_index("image")
    html = ""
    for result in leading([result for result in results if result.dataset == dataset]):
        if control(result) in ("histogram", "untrained"):
            continue
        path = Path("ranks") / scale / f"{result.run}.csv"
        ranks = read_csv(path, LISTS)
        ranks = ranks[(ranks["dataset"] == dataset) & (ranks["position"] <= TOP)]
        absent = sorted({*ranks["query"], *ranks["gallery"]} - set(index.index))
        if ranks.empty or absent:
            wrong = f"{absent[0]!r} is not in the index of" if absent else "it lists no query of"
            raise InputError(f"{str(path)!r}: {wrong} {dataset!r}; run `dvc repro evaluate` again")
        figure = rank_figure(list(_shown(ranks, index, Path(images))))
        name = short(result.run, scale)
        (work / "pictures" / f"ranks-{name}.png").write_bytes(figure)
        html += page.heading(name) + page.picture(figure, f"Rank lists of {name} on {dataset}")
    if html:
        html += page.note(f"The {TOP} nearest gallery images of queries spread evenly over {short(dataset, scale)}, of "
                          "each model's first run. Green frame: the same person; red: another. Images of the query's "
                          "person from its own camera are left out.")
        yield "lists", "Rank lists", html


def _shown(ranks: pd.DataFrame, index: pd.DataFrame, images: Path) -> Iterator[tuple[Shown, list[Shown]]]:
    queries = sorted(set(ranks["query"]))
    for query in (queries[place] for place in _spread(len(queries), LISTED)):
        found = ranks[ranks["query"] == query].sort_values("position")
        yield _load(query, index, images), [_load(key, index, images, bool(match)) for key, match
                                            in zip(found["gallery"], found["match"], strict=True)]


def _load(key: str, index: pd.DataFrame, images: Path, right: bool | None = None) -> Shown:
    entry = index.loc[key]
    return Shown(read_image(images / entry["path"]), Path(entry["path"]).name, int(entry["pid"]), right)


def _made(results: Sequence[Result], scale: str) -> Section:
    """Versions and caches behind the figures, grouped so that runs made differently stand out."""
    versions, caches = (differing(results, field, scale=scale) for field in ("versions", "caches"))
    said = "All runs were made by the same versions." if len(versions) == 1 else (
        "The runs were NOT all made by the same versions; figures of different groups may differ for that reason.")
    html = page.paragraph(said) + page.bullets(versions) + page.paragraph("Caches the runs read, by SHA-256:")
    return "made", "What made the figures", html + page.bullets(caches)


def _spread(length: int, count: int) -> np.ndarray:
    """`count` places spread evenly over 0..length-1, or all where there are fewer."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int))


if __name__ == "__main__":
    main(run)
