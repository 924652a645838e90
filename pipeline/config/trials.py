"""A protocol that repeats: a data set of a profile with `trials: 10` is ten, each with a number at the end of its name.

    datasets: {cuhk01: {layout: cuhk01, raw: data/raw/cuhk01, trials: 10}}     # cuhk01-0 .. cuhk01-9
    caches: {cuhk01: {like: parse, dataset: cuhk01}}
    runs: {cuhk01-dsa: {like: dsa, train_on: cuhk01, eval_on: [cuhk01]}}

What is made of such a data set is ten too: ten caches, ten runs. The ten runs, each a network of its own, have one
result under the entry's name, whose metrics are means over the trials (docs/evaluation.md). A run that starts from one
of ten (`init: run:cuhk01-dsa`) starts from that of its own trial.
"""

from typing import Any

from pipeline.base.errors import InputError
from pipeline.config.schema import started_from

Section = dict[str, dict[str, Any]]


def by_trial(section: str, entries: Section, trials: dict[str, int]) -> Section:
    """A section's entries with what belongs to repeated data sets written out. trials: data set -> how many.

    InputError if a run trained on such a data set is to be evaluated on another, or a numbered name is taken.
    """
    found: Section = {}
    split: dict[str, int] = {}  # the entries that became several
    for name, entry in entries.items():
        number = next((trials[entry[field]] for field in ("dataset", "train_on") if entry.get(field) in trials),
                      split.get(entry.get("of", "")))
        if number is None:
            found[name] = entry | ({"eval_on": _each(entry["eval_on"], trials)} if "eval_on" in entry else {})
            continue
        split[name] = number
        names = trials.keys() | split.keys() | {other for other in entries if entries[other].get("train_on") in trials}
        for trial in range(number):
            if f"{name}-{trial}" in entries:
                raise InputError(f"{section}.{name}-{trial}: is one of the trials of {name!r}; choose another name")
            found[f"{name}-{trial}"] = _numbered(name, entry, names, trial)
    return found


def _each(datasets: list[str], trials: dict[str, int]) -> list[str]:
    """Data sets to evaluate on, each trial of the repeated ones."""
    found: list[str] = []
    for dataset in datasets:
        found += [f"{dataset}-{trial}" for trial in range(trials[dataset])] if dataset in trials else [dataset]
    return found


def _numbered(name: str, entry: dict[str, Any], names: set[str], trial: int) -> dict[str, Any]:
    """One trial's entry: the cache and whatever repeated it names get the trial's number."""
    own = {field: f"{value}-{trial}" if field == "cache" or (isinstance(value, str) and value in names) else value
           for field, value in entry.items()}
    if started_from(entry.get("init")) in names:
        own["init"] = f"{entry['init']}-{trial}"
    if "eval_on" in entry:
        other = next((dataset for dataset in entry["eval_on"] if dataset not in names), None)
        if other is not None:
            raise InputError(f"runs.{name}.eval_on: {name} is trained once for each trial of its data set, and "
                             f"{other!r} has no such trials; evaluate a run on it that is trained on one of them")
        own["eval_on"] = [f"{dataset}-{trial}" for dataset in entry["eval_on"]]
    return own | ({"result": name} if "eval_on" in entry or "of" in entry else {})
