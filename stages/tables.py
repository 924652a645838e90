"""Which runs the papers' tables and sweeps need: rows.csv, variants.yaml and sweeps.yaml -> entries of a profile.

All three lie in profiles/tables/. rows.csv has a line for every figure the papers print of their own methods: (paper,
table, row, setting, dataset), the variant that is, and the data set it is trained on. sweeps.yaml has the papers'
sweeps; each value is a variant, and each data set of the figure a row. A profile takes papers in with

    rows: {papers: [sorn], sweeps: [sorn], prefix: small-, main: synth-occluded,
           counterparts: {market1501: synth-holistic, ...},
           elsewhere: {sorn: [synth-holistic, synth-occluded, synth-partial]}}

papers, sweeps: whose rows and whose sweeps; prefix: of the recipes' names; counterparts: data sets that stand in the
place of others, `paper/dataset` for one paper's alone; main: the usual one of the profile's trainings, whose runs carry
the variant's name alone; elsewhere: runs that other profiles of the scale have too, and what they are evaluated on
there. Rows that come to the same run share it. Optional: `beside`, data sets that are evaluated where others are;
`epochs` of each recipe and `images` of each training set, which together give image_steps; `only`, the runs wanted.
"""

import csv
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.params import in_places

ROWS, VARIANTS = Path("profiles/tables/rows.csv"), Path("profiles/tables/variants.yaml")
SWEEPS = Path("profiles/tables/sweeps.yaml")

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


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One entry of sweeps.yaml, whose head explains the fields."""

    name: str
    paper: str
    figure: str
    what: str
    variant: str
    field: str
    own: float
    best: list[float]
    values: list[float]
    printed: list[float]
    axis: str
    sets: list[dict[str, Any]]
    at: dict[float, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def member(self, value: float) -> str:
        """The variant with this value. No dots: in DVC's names of parameters a dot starts a level."""
        return self.variant if value == self.own else f"{self.name}-{value:g}".replace(".", "_")

    def variants(self, known: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What each value changes against the full model, one of the variants `known`."""
        section, field = self.field.split(".")
        start: dict[str, Any] = {"of": self.variant} if section == "match" else known[self.variant]
        return {self.member(value): {**start, section: {**start.get(section, {}), field: value},
                                     **self.at.get(value, {})}
                for value in self.values if value != self.own}

    def rows(self) -> list[Row]:
        return [Row(self.paper, f"Fig. {self.figure}", f"{value:g}", "", dataset, self.member(value), each["train_on"])
                for each in self.sets for dataset in each["datasets"] for value in self.values]


def read_rows() -> list[Row]:
    with open(ROWS, encoding="utf-8", newline="") as file:
        return [Row(**line) for line in csv.DictReader(file)]


def read_sweeps() -> list[Sweep]:
    entries = yaml.safe_load(SWEEPS.read_text(encoding="utf-8"))
    return [Sweep(name=name, **entry) for name, entry in entries.items()]


def table_runs(wanted: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Entries of `runs`, `warps` and `sweeps` for what is chosen in `wanted`, which is a profile's `rows`.

    Which data sets a run is evaluated on follows from all rows and sweeps, so that it is the same in each selection.
    """
    variants, sweeps = yaml.safe_load(VARIANTS.read_text(encoding="utf-8")), read_sweeps()
    for sweep in sweeps:
        variants |= sweep.variants(variants)
    lines = [(row, row.paper in wanted["papers"], True) for row in read_rows()]
    lines += [(row, sweep.paper in wanted["sweeps"], False) for sweep in sweeps for row in sweep.rows()]
    runs: dict[str, Any] = {}
    warps: dict[str, Any] = {}
    chosen = set()
    for row, picked, in_table in lines:
        train, test = (counterpart(row.paper, name, wanted) for name in (row.train_on, row.dataset))
        tests = [test, *([wanted["beside"][test]] if in_table and test in wanted.get("beside", {}) else [])]
        picked = picked and ("only" not in wanted or run_name(row.variant, train, wanted) in wanted["only"])
        for name, entry, is_row in _needed(row.variant, variants, train, wanted):
            known = runs.setdefault(name, entry | {"train_on": train, "eval_on": []})
            if name in wanted["elsewhere"]:
                known["eval_on"] = wanted["elsewhere"][name]
            elif is_row:
                known["eval_on"] += [test for test in tests if test not in known["eval_on"]]
            if picked:
                chosen.add(name)
            if picked and "cache" in entry:
                warps[entry["cache"]] = {"like": "warp", "dataset": train, "parts": train, "alignment": "csa"}
    return {"runs": {name: entry for name, entry in runs.items() if name in chosen}, "warps": warps,
            "sweeps": {key: entry for sweep in sweeps if sweep.paper in wanted["sweeps"]
                       for key, entry in _pictures(sweep, wanted).items()}}


def counterpart(paper: str, dataset: str, wanted: dict[str, Any]) -> str:
    """The profile's data set in the place of one of a paper's."""
    known = wanted["counterparts"]
    return known.get(f"{paper}/{dataset}", known.get(dataset, dataset))


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
        if "epochs" in wanted:
            entry["image_steps"] = wanted["epochs"][entry["like"]] * _images(train, wanted)
        entry["like"] = wanted["prefix"] + entry["like"]
    if entry.pop("alignment", None):
        entry["cache"] = f"{train}-csa"
    yield run_name(variant, train, wanted), entry, True


def _images(train: str, wanted: dict[str, Any]) -> int:
    if train not in wanted["images"]:
        raise InputError(f"rows.images: has no {train!r}; write how many training images it has")
    return wanted["images"][train]


def _pictures(sweep: Sweep, wanted: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Entries of `sweeps`: one a data set of the profile, naming the papers' data sets in whose place it stands."""
    found: dict[str, dict[str, Any]] = {}
    for each in sweep.sets:
        train = counterpart(sweep.paper, each["train_on"], wanted)
        for dataset in each["datasets"]:
            test = counterpart(sweep.paper, dataset, wanted)
            entry = found.setdefault(f"{sweep.name}-on-{test}", {
                "paper": sweep.paper, "figure": sweep.figure, "what": sweep.what, "axis": sweep.axis,
                "dataset": test, "trained_on": train, "printed_on": [], "best": sweep.best, "values": sweep.values,
                "results": [run_name(sweep.member(value), train, wanted) for value in sweep.values]})
            entry["printed_on"].append(dataset)
    return found


def only_read(tree: dict[str, Any]) -> dict[str, Any]:
    """A composed tree without the runs that have no result, and without caches and data sets that nothing reads."""
    embed, runs = tree["embed"].values(), tree["runs"]
    read = {entry[field] for entry in embed for field in ("reads", "visible_by")}
    runs = {key: entry for key, entry in runs.items() if f"runs/{key}/weights.safetensors" in read
            or any(each["run"] == key for each in embed)}
    read |= {entry["reads"] for entry in runs.values()}
    shown = {entry["pictures"] for entry in tree["report"].values()}
    warps = {key: entry for key, entry in tree["warps"].items() if f"data/cache/{key}/dsap.h5" in read or key in shown}
    warped = {entry["parts"] for entry in warps.values()}
    caches = {key: entry for key, entry in tree["caches"].items()
              if f"data/cache/{key}/parts.h5" in read or key in warped | shown}
    used = {entry["train_on"] for entry in runs.values()} | {entry["dataset"] for entry in (
        *embed, *caches.values(), *warps.values())}
    return {**tree, "datasets": {key: entry for key, entry in tree["datasets"].items() if key in used},
            "caches": caches, "warps": warps, "runs": runs}


def paper_tables(wanted: dict[str, Any], *, scale: str, datasets: dict[str, str], tree: dict[str, Any]
                 ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of `tables` and `tables_page` for the papers in `wanted`, from a tree that has `evaluate` and `datasets`.

    datasets: all that the profile names -> their folders, whether they are on this machine or not. None where a profile
    wants only some runs: a table means the same in all profiles of a scale.
    """
    tables: dict[str, Any] = {}
    for (paper, table), rows in itertools.groupby(read_rows(), lambda row: (row.paper, row.table)):
        if paper in wanted["papers"] and "only" not in wanted:
            entries: dict[str, Any] = {}
            reads: dict[str, None] = {}
            for row in rows:
                entry = _own_row(row, wanted, scale, datasets, tree)
                entries[f"row-{len(entries) + 1:02}"] = {"row": row.row, "setting": row.setting, "dataset": row.dataset,
                                                         **entry}
                if not entry["missing"]:
                    reads[f"metrics/{scale}/{entry['result']}.json"] = None
                    if row.dataset in RANK3:
                        reads[f"curves/{scale}/{entry['result']}.csv"] = None
            tables[f"{scale}-{paper}-{number(table)}"] = {"paper": paper, "table": table, "rows": entries,
                                                          "reads": in_places("table", list(reads or [ROWS.as_posix()]))}
    return tables, {f"{scale}-tables": {"scale": scale}} if tables else {}


def _own_row(row: Row, wanted: dict[str, Any], scale: str, datasets: dict[str, str], tree: dict[str, Any]
             ) -> dict[str, Any]:
    train, test = (counterpart(row.paper, name, wanted) for name in (row.train_on, row.dataset))
    result, data = f"{scale}-{run_name(row.variant, train, wanted)}", f"{scale}-{test}"
    there = {known.removesuffix("-0") for known in tree["datasets"]} | tree["datasets"].keys()  # -0: its first trial
    absent = [name for name in dict.fromkeys((train, test)) if f"{scale}-{name}" not in there]
    missing = "; ".join(f"put {name} in {datasets[name]}" if name in datasets else
                        f"name {name} under `datasets` of the profile" for name in absent)
    scored = {tree["embed"][name]["dataset"] for name in tree["evaluate"].get(result, {"features": []})["features"]}
    if not absent and not scored & {data, f"{data}-0"}:
        missing = f"make {result} on {test}: the profile leaves it out, or a file that it needs is not there"
    return {"result": result, "data": data, "full": row.variant == row.paper, "missing": missing}


def number(table: str) -> int:
    """A table's number, Arabic or Roman.

    >>> number("5"), number("VI")
    (5, 6)
    """
    return int(table) if table.isdigit() else ("I", "II", "III", "IV", "V", "VI").index(table) + 1
