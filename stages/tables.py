"""Which runs the papers' tables need: profiles/tables/rows.csv and variants.yaml -> entries of a profile.

rows.csv has a line for every figure the papers print of their own methods: (paper, table, row, setting, dataset), the
variant that is, and the data set it is trained on. A profile takes papers in with

    rows: {papers: [sorn], prefix: small-, main: synth-occluded, counterparts: {market1501: synth-holistic, ...},
           elsewhere: {sorn: [synth-holistic, synth-occluded, synth-partial]}}

prefix: of the recipes' names; counterparts: data sets that stand in the place of others, and with main, the usual one
of the profile's trainings, whose runs carry the variant's name alone; elsewhere: runs that other profiles of the scale
have too, and what they are evaluated on there. Rows that come to the same run share it.
"""

import csv
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.papertables import own_key

ROWS, VARIANTS = Path("profiles/tables/rows.csv"), Path("profiles/tables/variants.yaml")

SLOTS = 16  # result files that stage `table` can depend on: SORN's Table III has most
RANK3 = ("partial-reid", "partial-ilids")  # where papers print rank-3, which only the CMC curve has


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of rows.csv. `dataset` and `train_on` are the papers' own data sets."""

    paper: str
    table: str
    row: str
    setting: str
    dataset: str
    variant: str
    train_on: str


def read_rows() -> list[Row]:
    with open(ROWS, encoding="utf-8", newline="") as file:
        return [Row(**line) for line in csv.DictReader(file)]


def table_runs(wanted: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Entries of `runs` and `warps` for the papers in `wanted`, which is a profile's `rows`."""
    variants = yaml.safe_load(VARIANTS.read_text(encoding="utf-8"))
    runs: dict[str, Any] = {}
    warps: dict[str, Any] = {}
    for row in read_rows():
        if row.paper in wanted["papers"]:
            train, test = (wanted["counterparts"].get(name, name) for name in (row.train_on, row.dataset))
            for name, entry, is_row in _needed(row.variant, variants, train, wanted):
                known = runs.setdefault(name, entry | {"train_on": train, "eval_on": []})
                if name in wanted["elsewhere"]:
                    known["eval_on"] = wanted["elsewhere"][name]
                elif is_row and test not in known["eval_on"]:
                    known["eval_on"].append(test)
                if "cache" in entry:
                    warps[entry["cache"]] = {"like": "warp", "dataset": train, "parts": train, "alignment": "csa"}
    return {"runs": runs, "warps": warps}


def run_name(variant: str, train: str, wanted: dict[str, Any]) -> str:
    """The run of a variant trained on `train`, one of the profile's own data sets."""
    return variant if train == wanted["main"] else f"{variant}-{train}"


def _needed(variant: str, variants: dict[str, Any], train: str, wanted: dict[str, Any]
            ) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """(run, entry, whether it is the row itself) of a variant and of what it needs to be trained before."""
    entry = dict(variants[variant])
    for field in ("of", "visible_by"):
        if entry.get(field, "joints") != "joints":
            yield from ((name, needed, False) for name, needed, _ in _needed(entry[field], variants, train, wanted))
            entry[field] = run_name(entry[field], train, wanted)
    if "like" in entry:
        entry["like"] = wanted["prefix"] + entry["like"]
    if entry.pop("alignment", None):
        entry["cache"] = f"{train}-csa"
    yield run_name(variant, train, wanted), entry, True


def paper_tables(wanted: dict[str, Any], *, scale: str, datasets: dict[str, str], tree: dict[str, Any]
                 ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of `tables` and `tables_page` for the papers in `wanted`, from a tree that has `evaluate` and `datasets`.

    datasets: all that the profile names -> their folders, whether they are on this machine or not.
    """
    tables: dict[str, Any] = {}
    for (paper, table), rows in itertools.groupby(read_rows(), lambda row: (row.paper, row.table)):
        if paper in wanted["papers"]:
            entries: dict[str, Any] = {}
            reads: dict[str, None] = {}
            for row in rows:
                entry = _own_row(row, wanted, scale, datasets, tree)
                entries[own_key(row.row, row.setting, row.dataset)] = entry
                if not entry["missing"]:
                    reads[f"metrics/{scale}/{entry['result']}.json"] = None
                    if row.dataset in RANK3:
                        reads[f"curves/{scale}/{entry['result']}.csv"] = None
            if len(reads) > SLOTS:  # DVC would leave out the rest
                raise InputError(f"rows: table {table} of {paper} reads {len(reads)} result files, and stage `table` "
                                 f"takes {SLOTS}; let sets share a counterpart, or add places in dvc.yaml")
            slots = list(itertools.islice(itertools.cycle(reads or [ROWS.as_posix()]), SLOTS))
            tables[f"{scale}-{paper}-{number(table)}"] = {"paper": paper, "table": table, "rows": entries,
                                                          "reads": slots}
    return tables, {f"{scale}-tables": {"scale": scale}} if tables else {}


def _own_row(row: Row, wanted: dict[str, Any], scale: str, datasets: dict[str, str], tree: dict[str, Any]
             ) -> dict[str, Any]:
    train, test = (wanted["counterparts"].get(name, name) for name in (row.train_on, row.dataset))
    result, data = f"{scale}-{run_name(row.variant, train, wanted)}", f"{scale}-{test}"
    absent = [name for name in dict.fromkeys((train, test)) if f"{scale}-{name}" not in tree["datasets"]]
    missing = "; ".join(f"put {name} in {datasets[name]}" if name in datasets else
                        f"name {name} under `datasets` of the profile" for name in absent)
    if not absent and f"{result}-on-{test}" not in tree["evaluate"].get(result, {"features": []})["features"]:
        missing = f"make {result} on {test}: the profile leaves it out, or a file that it needs is not there"
    return {"result": result, "data": data, "full": row.variant == row.paper, "missing": missing}


def number(table: str) -> int:
    """A table's number, Arabic or Roman.

    >>> number("5"), number("VI")
    (5, 6)
    """
    return int(table) if table.isdigit() else ("I", "II", "III", "IV", "V", "VI").index(table) + 1
