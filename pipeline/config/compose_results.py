"""Results of an experiment: what is evaluated, the report, and the papers' tables, sweeps and pictures."""

from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.compose_crops import prune_crops
from pipeline.config.compose_runs import MATCHED, note_owner
from pipeline.config.figures import figure_plans
from pipeline.config.known import Composition, Known, Run, drop, find
from pipeline.config.loader import shown
from pipeline.config.paper_plans import paper_tables, sweep_plans
from pipeline.config.paper_rows import seeded
from pipeline.config.plan import EMBED, EMBED_SEEN, TRAIN
from pipeline.config.profiles import Entry, entries, take


def prune(made: Composition) -> None:
    """Of the papers' rows: without runs that have no result and whose weights nothing reads."""
    embeds = _embeddings(made)
    read = {Path(plan[field]).parent.name for plan in embeds for field in ("weights", "seen_by") if field in plan}
    for section in reversed(TRAIN):
        for key, plan in reversed(made.plan[section].copy().items()):  # a run stands behind the one it starts from
            if key in read:
                read |= {plan["start"]} if "start" in plan else set()
                continue
            del made.plan[section][key], made.params["runs"][key], made.known.runs[key]
            drop(made.known, "runs", key)

    prune_crops(made)
    for name in [name for name, sets in made.known.results.items() if not sets]:
        del made.known.results[name]
        drop(made.known, "results", name)
    shown = {plan["result"] for plan in embeds} | {key for section in TRAIN for key in made.plan[section]}
    made.params["results"] = {key: entry for key, entry in made.params["results"].items() if key in shown}


def _embeddings(made: Composition) -> list[Entry]:
    """The results' entries, in the order in which they were composed."""
    entries = {key: plan for section in (*EMBED, EMBED_SEEN) for key, plan in made.plan[section].items()}
    return sorted(entries.values(), key=lambda plan: [*made.known.results].index(plan["result"]))


def add_evaluations(made: Composition) -> None:
    """Every result of its own, and those of others that are shown beside them or in figures."""
    known = made.known
    names = dict.fromkeys(plan["result"] for plan in _embeddings(made))
    for name in made.profile.get("beside", []):
        if find(known, "results", name, "beside"):
            names[name] = None
    for figure in entries(made.profile, "figures").values():
        if figure.get("kind", "").endswith("lists"):
            names |= dict.fromkeys(name for name in figure.get("shows", []) if name in known.results)
    made.plan["evaluate"], made.plan["evaluate_listed"] = {}, {}
    for name in names:
        sets = known.results[name]
        plan = {"features": (paths.FEATURES / name).as_posix(), "datasets": sets,
                "rendered": [dataset for dataset in sets if known.datasets[dataset].rendered]}
        listed = [dataset for dataset in sets if known.datasets[dataset].listed]
        if listed:
            made.plan["evaluate_listed"][name] = plan | {"listed": listed}
        elif sets:
            made.plan["evaluate"][name] = plan


def _evaluations(made: Composition) -> Entry:
    return {**made.plan["evaluate"], **made.plan["evaluate_listed"]}


def add_reports(made: Composition) -> None:
    made.plan["neighbours"], made.plan["neighbours_listed"], made.plan["report"] = {}, {}, {}
    for name, entry in entries(made.profile, "report").items():
        place = f"report.{name}"
        pictures, parser, title = (take(entry, field, place) for field in ("pictures", "parser", "title"))
        cache = find(made.known, "warps", pictures, f"{place}.pictures")
        scores, learned = _parser_scores(made, parser, f"{place}.parser")
        if cache is None or scores is None or not _evaluations(made):
            continue
        dataset, parts = made.known.warps[cache].dataset, made.known.warps[cache].parts
        if parts != cache:
            raise InputError(f"{place}.pictures: the warps {cache!r} follow the cache {parts!r}, and the page shows "
                             "masks and warps of one name; give both the same")
        shows = _shown(made, dataset)
        if not shows:
            if made.known.dropped:  # what would be shown is left out
                continue
            raise InputError(f"{place}.pictures: is of {dataset!r}, on which nothing here is evaluated; name a data "
                             "set of some `eval_on`")
        made.plan["neighbours_listed" if made.known.datasets[dataset].listed else "neighbours"] |= {
            f"{name}-{result}": {"report": name, "result": result, "dataset": dataset,
                                 "features": paths.features(result, dataset).as_posix()} for result in shows}
        made.plan["report"][name] = {"title": title, "shows": shows, "scores": scores, "parsed_on": learned,
                                     "cache": cache, "dataset": dataset, "index": paths.index(dataset).as_posix(),
                                     "raw": made.known.datasets[dataset].raw}


def _shown(made: Composition, dataset: str) -> list[str]:
    """Of the results on a data set the first of each network's that was trained; of networks where none was."""
    runs = {name: made.known.runs[made.known.result_runs[name]] for name, entry in _evaluations(made).items()
            if dataset in entry["datasets"]}
    trained = {name: run for name, run in runs.items() if run.entry.get("image_steps")} or runs
    first: dict[str, str] = {}
    for name, run in trained.items():
        first.setdefault(run.model["name"], name)
    return [*first.values()]


def _parser_scores(made: Composition, parser: str, place: str) -> tuple[str | None, str]:
    """Where a parser's scores stand and what it learned from: of one of `parsers`, or of a released weights' file."""
    if parser.endswith(".safetensors"):
        return parser, "what its provenance names"
    trained = find(made.known, "parsers", parser, place)
    return (paths.parser_scores(trained).as_posix(), made.known.parsers[trained]) if trained else (None, "")


def _networks(made: Composition, tables: list[Entry]) -> dict[str, str]:
    """Backbone and image size of every result that stands in the tables."""
    shown = dict.fromkeys(row["result"] for table in tables for row in (*table["rows"], *table.get("beside", ()))
                          if not row["missing"])
    entries = {name: made.known.runs[made.known.result_runs[name]].entry for name in shown}
    return {name: f"{entry.get('backbone')} at {entry.get('height')} x {entry.get('width')}"
            for name, entry in entries.items()}


def _check_seeds(known: Known, wanted: Entry) -> None:
    """InputError where a further seed, which a profile may write as a run of its own, differs in more than its seed.

    How results are matched is compared when a table is made: it costs no training.
    """
    for result, seeds in wanted["seeds"].items():
        further = [seeded(result, seed) for seed in seeds]
        if None in [find(known, "results", name, "rows.seeds") for name in (result, *further)]:
            continue
        first, *others = (known.runs[known.result_runs[name]] for name in (result, *further))
        for name, other in zip(further, others, strict=True):
            place, mine, wanted = f"rows.seeds.{result}: {name!r}", _training(other), _training(first)
            for field in (*wanted, *mine):
                if mine.get(field) != wanted.get(field):
                    raise InputError(f"{place} has {field} {shown(mine.get(field))}, and {result!r}, of which it is to "
                                     f"be a further seed, {shown(wanted.get(field))}; let them differ in `seed` alone")
        numbers = [run.entry.get("seed") for run in (first, *others)]
        if len(set(numbers)) < len(numbers):
            raise InputError(f"rows.seeds.{result}: it and {', '.join(further)} have the seeds "
                             f"{', '.join(map(str, numbers))}; give each a seed of its own")


def _training(run: Run) -> Entry:
    """What a run was trained with, but its seed."""
    entry = {field: value for field, value in run.entry.items() if field not in (*MATCHED, "seed", "model")}
    return {"train_on": run.train_on, **entry, **{f"model.{field}": value for field, value in run.model.items()}}


def add_papers(made: Composition, rows: Entry | None) -> None:
    """The papers' tables, sweeps and pictures."""
    known, plan = made.known, made.plan
    results = {name: set(evaluation["datasets"]) for name, evaluation in _evaluations(made).items()}
    plan["paper_tables"], plan["sweep"] = {}, {}
    if rows is not None:
        tables = paper_tables(rows, results=results, datasets=set(known.datasets), folders=made.folders)
        _check_seeds(known, rows)
        if tables and results:
            rendered = [name for name, data in known.datasets.items() if data.rendered]
            plan["paper_tables"]["all"] = {"rendered": rendered, "networks": _networks(made, tables), "tables": tables}
        plan["sweep"] = sweep_plans(rows, results)

    plan |= figure_plans(entries(made.profile, "figures"), known, made.name)
    for section in ("figure_maps", "figure_masks"):
        for figure in plan[section].values():
            for run in [figure["shows"]] if isinstance(figure["shows"], str) else figure["shows"]:
                note_owner(made, run)
    for figure in plan["figure_patches"].values():
        note_owner(made, known.result_runs[figure["shows"][-1]])
