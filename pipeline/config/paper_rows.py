"""Which runs the papers' tables and sweeps need: rows.csv, variants.yaml and sweeps.yaml -> entries of a profile.

All three lie in profiles/tables/. rows.csv has a line for every figure the papers print of their own methods: (paper,
table, row, setting, dataset), the variant that is, and the data set it is trained on. sweeps.yaml has the papers'
sweeps; each value is a variant, and each data set of the figure a row. A profile takes papers in with

    rows: {papers: [sorn], sweeps: [sorn], prefix: small-, main: synth-occluded,
           counterparts: {market1501: synth-holistic, ...}, seeds: {sorn: [1, 2]}}

papers, sweeps: whose rows and whose sweeps; prefix: of the recipes' names; counterparts: data sets that stand in the
place of others, `paper/dataset` for one paper's alone; main: the training set whose runs carry the variant's name
alone, where others' end in their training set's; seeds: of which runs further seeds are made, as RUN-seed1, ... A
variant `beside` another is made wherever that one has a row. Rows that come to the same run share it, and a run of an
experiment that the profile stands on is taken from there. A variant that is `pretrained_on` a data set starts from the
run of another variant there; where that set and the row's own have one counterpart there is nothing to pre-train on,
and the row is the other variant's.
Optional: `beside`, data sets that are evaluated where others are; `epochs` of each recipe and `images` of each training
set, which together give image_steps; `only`, the runs that are wanted.
"""

import csv
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.config.loader import parse, pick, shown
from pipeline.config.names import known_name
from pipeline.config.profiles import Entry
from pipeline.config.schema import started_from
from pipeline.config.yaml12 import read_yaml

ROWS, VARIANTS = Path("profiles/tables/rows.csv"), Path("profiles/tables/variants.yaml")
SWEEPS = Path("profiles/tables/sweeps.yaml")

RANK3 = ("partial-reid", "partial-ilids")  # where papers print rank-3, which only the CMC curve has


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What `rows` of a profile may say; all of it may be left out."""

    papers: tuple[str, ...]
    sweeps: tuple[str, ...]
    prefix: str
    main: str
    counterparts: dict[str, str]
    beside: dict[str, str]
    seeds: dict[str, tuple[int, ...]]
    epochs: dict[str, int]
    images: dict[str, int]
    only: tuple[str, ...]


NONE_WANTED: Entry = {"papers": [], "sweeps": [], "prefix": "", "main": "", "counterparts": {}, "beside": {},
                      "seeds": {}, "epochs": {}, "images": {}, "only": []}


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
    sets: list[Entry]
    at: dict[float, Entry] = dataclasses.field(default_factory=dict)

    def member(self, value: float) -> str:
        """The variant with this value. No dots: in DVC's names of parameters a dot starts a level."""
        return self.variant if value == self.own else f"{self.name}-{value:g}".replace(".", "_")

    def variants(self, known: Entry) -> dict[str, Entry]:
        """What each value changes against the full model, one of the variants `known`."""
        section, field = self.field.split(".")
        start: Entry = {"of": self.variant} if section == "match" else known[self.variant]
        start = {name: value for name, value in start.items() if name != "beside"}
        return {self.member(value): {**start, section: {**start.get(section, {}), field: value},
                                     **self.at.get(value, {})}
                for value in self.values if value != self.own}

    def rows(self) -> list[Row]:
        return [Row(self.paper, f"Fig. {self.figure}", f"{value:g}", "", dataset, self.member(value), each["train_on"])
                for each in self.sets for dataset in each["datasets"] for value in self.values]


def read_rows() -> list[Row]:
    """rows.csv. InputError if it is no such table."""
    try:
        with open(ROWS, encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(ROWS)!r}: cannot be read ({error}); `git checkout {ROWS}`") from error
    columns = [item.name for item in dataclasses.fields(Row)]
    if not lines or any(list(line) != columns or None in line.values() for line in lines):
        raise InputError(f"{str(ROWS)!r}: has other columns than {', '.join(columns)}; `git checkout {ROWS}`")
    return [Row(**line) for line in lines]


def read_sweeps() -> list[Sweep]:
    """sweeps.yaml. InputError if an entry is none."""
    sweeps = []
    for name, entry in _read_entries(SWEEPS).items():
        try:
            sweeps.append(Sweep(name=name, **entry))
        except TypeError as error:  # an unknown field, or one that is missing
            raise InputError(f"{str(SWEEPS)!r}: {name}: {error}; write it as its neighbours are") from error
    return sweeps


def read_variants() -> dict[str, Entry]:
    """variants.yaml with what the sweeps' values change. InputError if one is none."""
    variants = _read_entries(VARIANTS)
    for sweep in read_sweeps():
        known_name(sweep.variant, variants, f"{str(SWEEPS)!r}: {sweep.name}.variant", "variant")
        variants |= sweep.variants(variants)
    return variants


def rows_beside(variants: Entry) -> list[Row]:
    """A row for each variant that stands `beside` another, wherever that one has a row. InputError for an unknown one.
    """
    rows = []
    for name, entry in variants.items():
        if "beside" in entry:
            other = known_name(entry["beside"]["variant"], variants, f"{str(VARIANTS)!r}: {name}.beside", "variant")
            rows += [dataclasses.replace(row, variant=name) for row in read_rows() if row.variant == other]
    return rows


def _read_entries(path: Path) -> dict[str, Entry]:
    try:
        tree = read_yaml(path)
    except FileNotFoundError as error:
        raise InputError(f"{str(path)!r}: is not there; `git checkout {path}`") from error
    if not isinstance(tree, dict) or not all(isinstance(entry, dict) for entry in tree.values()):
        raise InputError(f"{str(path)!r}: holds {shown(tree)} where entries belong; `git checkout {path}`")
    return tree


def add_rows(profile: Entry, *, runs: Collection[str], warps: Collection[str], results: Collection[str]
             ) -> tuple[Entry, Entry | None]:
    """A profile with the runs and warps that its `rows` need as entries, and its `rows`, all said; None without.

    runs, warps, results: of the experiments that it stands on, which are used and, results, shown beside its own.
    """
    if "rows" not in profile:
        return profile, None
    wanted = wanted_rows(profile["rows"])
    needed = table_runs(wanted)
    own = {section: {key: entry for key, entry in needed[section].items() if key not in shared}
           for section, shared in (("runs", runs), ("warps", warps))}
    beside = [*profile.get("beside", []), *(key for key in needed["runs"] if key in results)]
    written = {section: profile.get(section, {}) for section in own}
    return profile | {section: written[section] | {key: entry for key, entry in own[section].items()
                                                   if key not in written[section]} for section in own} | {
        "beside": list(dict.fromkeys(beside))}, wanted


def wanted_rows(rows: Entry) -> Entry:
    """`rows` of a profile with all that it leaves out. InputError for what is unknown or of a wrong type."""
    wanted: Entry = NONE_WANTED | rows
    wanted["seeds"] = {name: [*seeds] for name, seeds in parse(Wanted, wanted, "rows").seeds.items()}
    rows_there, sweeps_there = read_rows(), read_sweeps()
    sets = dict.fromkeys(name for row in rows_there for name in (row.train_on, row.dataset))
    sets |= dict.fromkeys(f"{row.paper}/{name}" for row in rows_there for name in (row.train_on, row.dataset))
    for field, known, what in (("papers", [row.paper for row in rows_there], "paper with tables"),
                               ("sweeps", [sweep.paper for sweep in sweeps_there], "paper with sweeps"),
                               ("counterparts", sets, "data set of the papers")):
        for name in wanted[field]:
            known_name(name, dict.fromkeys(known), f"rows.{field}", what)
    tested = {counterpart(row.paper, row.dataset, wanted): None for row in rows_there}
    for name in wanted["beside"]:
        known_name(name, tested, "rows.beside", "row's data set")
    return wanted


def table_runs(wanted: Entry) -> dict[str, dict[str, Entry]]:
    """Entries of `runs` and `warps` for what is chosen in `wanted`, which is a profile's `rows`.

    Which data sets a run is evaluated on follows from all rows and sweeps, so that it is the same in each selection.
    """
    variants, sweeps = read_variants(), read_sweeps()
    lines = [(row, row.paper in wanted["papers"], True) for row in read_rows()]
    lines += [(row, row.paper in wanted["papers"], True) for row in rows_beside(variants)]
    lines += [(row, sweep.paper in wanted["sweeps"], False) for sweep in sweeps for row in sweep.rows()]
    runs: dict[str, Entry] = {}
    warps: dict[str, Entry] = {}
    chosen = set()
    for row, picked, in_table in lines:
        train, test = (counterpart(row.paper, name, wanted) for name in (row.train_on, row.dataset))
        tests = [test, *([wanted["beside"][test]] if in_table and test in wanted["beside"] else [])]
        known_name(row.variant, variants, repr(str(ROWS if in_table else SWEEPS)), "variant")
        variant = own_variant(row, variants, wanted)
        picked = picked and (not wanted["only"] or run_name(variant, train, wanted) in wanted["only"])
        for name, entry, is_row in _needed(row.paper, variant, variants, train, wanted):
            known = runs.setdefault(name, entry | {"eval_on": []})
            if is_row:
                known["eval_on"] += [test for test in tests if test not in known["eval_on"]]
            if picked:
                chosen.add(name)
            if picked and "cache" in entry:
                warps[entry["cache"]] = {"like": "warp", "dataset": entry["train_on"], "parts": entry["train_on"],
                                         "alignment": "csa"}
    missing = next((name for name in wanted["only"] if name not in chosen), None)
    if missing is not None:
        known_name(missing, chosen, "rows.only", "row's run")
    found = {name: entry for name, entry in runs.items() if name in chosen}
    for name in wanted["seeds"]:
        known_name(name, sorted(chosen), "rows.seeds", "row's run")
    for name in sorted(wanted["seeds"], key=[*runs].index):  # one `of` another stands behind it
        found |= {seeded(name, seed): _under(seed, runs[name]) for seed in wanted["seeds"][name]}
    return {"runs": found, "warps": warps}


def seeded(name: str, seed: int) -> str:
    """A run, or a result, under a further seed."""
    return f"{name}-seed{seed}"


def _under(seed: int, entry: Entry) -> Entry:
    """A run's entry under a further seed; one `of` another is of that one's under the seed."""
    others = {field: seeded(entry[field], seed) for field in ("of", "visible_by")
              if entry.get(field, "joints") != "joints"}
    return {**entry, **others} if "of" in entry else {**entry, **others, "seed": seed}


def counterpart(paper: str, dataset: str, wanted: Entry) -> str:
    """The profile's data set in the place of one of a paper's."""
    known = wanted["counterparts"]
    return known.get(f"{paper}/{dataset}", known.get(dataset, dataset))


def run_name(variant: str, train: str, wanted: Entry) -> str:
    """The run of a variant trained on `train`, one of the profile's own data sets."""
    return variant if train == wanted["main"] else f"{variant}-{train}"


def own_variant(row: Row, variants: Entry, wanted: Entry) -> str:
    """The variant that a row is here: where it would be pre-trained on its own training set, the one it starts from."""
    if "pretrained_on" not in variants[row.variant]:
        return row.variant
    before, start = _pretrained(row.paper, row.variant, variants, wanted)
    return start if before == counterpart(row.paper, row.train_on, wanted) else row.variant


def _pretrained(paper: str, variant: str, variants: Entry, wanted: Entry) -> tuple[str, str]:
    """(the profile's data set, the variant trained there) that a variant with `pretrained_on` starts from."""
    entry, place = variants[variant], f"{str(VARIANTS)!r}: {variant}.init"
    start = known_name(started_from(entry.get("init")), variants, place, "variant")
    return counterpart(paper, entry["pretrained_on"], wanted), start


def _needed(paper: str, variant: str, variants: Entry, train: str, wanted: Entry
            ) -> Iterator[tuple[str, Entry, bool]]:
    """(run, entry, whether it is the row itself) of a variant and of what it needs to be trained before."""
    entry = {**variants[variant], "train_on": train}
    entry.pop("beside", None)
    before = []
    for field in ("of", "visible_by"):
        if entry.get(field, "joints") != "joints":
            known_name(entry[field], variants, f"{str(VARIANTS)!r}: {variant}.{field}", "variant")
            before.append((entry[field], train))
            entry[field] = run_name(entry[field], train, wanted)
    if entry.pop("pretrained_on", None):
        place, start = _pretrained(paper, variant, variants, wanted)
        before.append((start, place))
        entry["init"] = f"run:{run_name(start, place, wanted)}"
    for other, place in before:
        yield from ((name, needed, False) for name, needed, _ in _needed(paper, other, variants, place, wanted))
    if "like" in entry:
        if wanted["epochs"]:
            entry["image_steps"] = (pick(wanted["epochs"], entry["like"], "rows.epochs")
                                    * pick(wanted["images"], train, "rows.images"))
        entry["like"] = wanted["prefix"] + entry["like"]
    if entry.pop("alignment", None):
        entry["cache"] = f"{train}-csa"
    yield run_name(variant, train, wanted), entry, True


def number(table: str) -> int:
    """A table's number, Arabic or Roman.

    >>> number("5"), number("VI")
    (5, 6)
    """
    return int(table) if table.isdigit() else ("I", "II", "III", "IV", "V", "VI").index(table) + 1
