"""Tables and sweeps of the papers as plan.yaml has them: which of an experiment's results stands in each row."""

import functools
import itertools
from collections.abc import Iterator

from pipeline.config.paper_rows import (
    Row,
    Sweep,
    counterpart,
    own_variant,
    read_rows,
    read_sweeps,
    read_variants,
    run_name,
    seeded,
)
from pipeline.config.profiles import Entry


def sweep_plans(wanted: Entry, results: dict[str, set[str]]) -> dict[str, Entry]:
    """The sweeps that have a result on their data set for each value. results: result -> the data sets it is on."""
    return {key: plan for sweep in read_sweeps() if sweep.paper in wanted["sweeps"]
            for key, plan in _per_dataset(sweep, wanted).items()
            if all(plan["dataset"] in results.get(name, ()) for name in plan["results"])}


def _per_dataset(sweep: Sweep, wanted: Entry) -> dict[str, Entry]:
    """A sweep's plans: one per data set of the profile, naming the papers' data sets in whose place it stands."""
    found: dict[str, Entry] = {}
    for each in sweep.sets:
        train = counterpart(sweep.paper, each["train_on"], wanted)
        for dataset in each["datasets"]:
            test = counterpart(sweep.paper, dataset, wanted)
            plan = found.setdefault(f"{sweep.name}-on-{test}", {
                "paper": sweep.paper, "figure": sweep.figure, "what": sweep.what, "axis": sweep.axis,
                "dataset": test, "trained_on": train, "printed_on": [], "best": sweep.best, "values": sweep.values,
                "results": [run_name(sweep.member(value), train, wanted) for value in sweep.values]})
            plan["printed_on"].append(dataset)
    return found


def paper_tables(wanted: Entry, *, results: dict[str, set[str]], datasets: set[str],
                 folders: dict[str, str]) -> list[Entry]:
    """The papers' tables for plan.yaml. results: result -> the data sets it is scored on; datasets: those that are
    kept; folders: of the users' data sets, kept or not.

    A table has all rows of the paper's own, and says of each that is not made here what it lacks. Where a profile wants
    only some runs, the tables that one of them stands in, and beside rows those runs alone.
    """
    tables: list[Entry] = []
    variants = read_variants()
    for (paper, table), group in itertools.groupby(read_rows(), lambda row: (row.paper, row.table)):
        if paper in wanted["papers"]:
            entries: list[Entry] = []
            beside: list[Entry] = []
            rows = list(group)
            tuned = {row.dataset for row in rows if "pretrained_on" in variants[own_variant(row, variants, wanted)]}
            for row in rows:
                place = {"row": row.row, "setting": row.setting, "dataset": row.dataset}
                test = counterpart(row.paper, row.dataset, wanted)
                variant = own_variant(row, variants, wanted)
                made = functools.partial(_made, row, variants=variants, wanted=wanted, results=results,
                                         datasets=datasets, folders=folders)
                # Where a row is pre-trained it is the full model, and the paper's plain variant the one without.
                full = "pretrained_on" in variants[variant] or (variant == row.paper and row.dataset not in tuned)
                entries.append(place | made(variant, test) | {"full": full})
                beside += [place | {"name": name, "reading": reading} | made(other, data)
                           for name, reading, other, data in _beside(row, variant, test, variants, wanted)]
            if wanted["only"]:
                beside = [entry for entry in beside if entry["result"] in wanted["only"]]
                if all(entry["missing"] for entry in entries):
                    continue
            tables.append({"paper": paper, "table": table, "rows": entries} | ({"beside": beside} if beside else {}))
    return tables


def _beside(row: Row, variant: str, test: str, variants: Entry, wanted: Entry) -> Iterator[tuple[str, str, str, str]]:
    """(name, reading, variant, data set) of what stands beside a row: variants that read the paper otherwise, and the
    row's own variant on the data set that is evaluated beside its own."""
    for name, entry in variants.items():
        if "beside" in entry and entry["beside"]["variant"] == row.variant:
            yield name, entry["beside"]["reading"], name, test
    if test in wanted["beside"]:
        other = wanted["beside"][test]
        yield f"on {other}", f"the same weights, scored on {other}", variant, other


def _made(row: Row, variant: str, test: str, *, variants: Entry, wanted: Entry, results: dict[str, set[str]],
          datasets: set[str], folders: dict[str, str]) -> Entry:
    """A variant, trained as a row is and scored on `test`: which result it is, and what it lacks here."""
    train = counterpart(row.paper, row.train_on, wanted)
    before = variants[variant].get("pretrained_on")
    needed = [train, test, *([counterpart(row.paper, before, wanted)] if before else [])]
    result = run_name(variant, train, wanted)
    there = {known.removesuffix("-0") for known in datasets} | datasets  # -0: its first trial
    absent = [name for name in dict.fromkeys(needed) if name not in there]
    missing = "; ".join(f"put {name} in {folders[name]} and compose with it" if name in folders else
                        f"name {name} under `datasets` of the profile" for name in absent)
    if not absent and not results.get(result, set()) & {test, f"{test}-0"}:
        missing = (f"make {result}{f' on {test}' if result in results else ''}: the profile, or what was kept when it "
                   "was composed, leaves it out")
    return {"result": result, "seeds": [seeded(result, seed) for seed in wanted["seeds"].get(result, [])], "data": test,
            "missing": missing}
