"""A protocol that repeats: an entry of a profile with `trials: 10` is ten entries, one a trial, each with a number.

    datasets: {cuhk01: {layout: cuhk01, raw: data/raw/cuhk01, trials: 10}}                    # cuhk01-0 .. cuhk01-9
    caches: {cuhk01: {like: parse, dataset: cuhk01, trials: 10}}
    runs: {cuhk01-dsa: {like: dsa, train_on: cuhk01, eval_on: [cuhk01], trials: 10}}

Every data set, cache, run and layout that such an entry names gets the number too. The ten runs, each a network of its
own, have one result under the entry's name, whose figures are means over the trials (docs/evaluation.md).
"""

from typing import Any

NUMBERED = ("layout", "dataset", "parts", "train_on", "cache", "of")


def by_trial(section: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A profile's section with its entries of several trials as so many entries."""
    return {key: numbered for name, entry in section.items()
            for key, numbered in (_numbered(name, entry) if "trials" in entry else [(name, entry)])}


def _numbered(name: str, entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for trial in range(entry["trials"]):
        own = {field: f"{value}-{trial}" if field in NUMBERED else value for field, value in entry.items()
               if field != "trials"}
        if "eval_on" in entry or "of" in entry:
            own |= {"result": name}
        if "eval_on" in entry:
            own |= {"eval_on": [f"{dataset}-{trial}" for dataset in entry["eval_on"]]}
        found.append((f"{name}-{trial}", own))
    return found
