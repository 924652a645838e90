"""Parses of crops, of a data set by a training set's medians: made where a run with `recrop: parse` reads them.

No profile names them. A key says all that such a file depends on beside its cache: CACHE-by-TRAINING_SET-THRESHOLDS.
"""

from typing import Any

from pipeline.base.errors import InputError
from pipeline.config import paths
from pipeline.config.known import Composition
from pipeline.config.plan import EMBED, EMBED_SEEN, TRAIN
from pipeline.config.profiles import Entry
from pipeline.config.schema import EXTERNAL

SECTIONS = ("parse_crops", "parse_crops_external", "parse_crops_described")
FILES = ("oracle", "precomputed")  # parsers that have parses of whole images alone


def crops_of(made: Composition, cache: str, train_on: str, train_cache: str, model: Entry, run: Entry, place: str
             ) -> str:
    """The key of the crops of a cache's images, and its entries where nobody has it yet.

    train_on, train_cache: the run's training set and its cache; model: the run's settings; run: its entry. InputError
    if the cache's parser cannot parse a crop.
    """
    parsed = made.known.caches[cache]
    if parsed.parser in FILES:
        raise InputError(f"{place}.model.recrop: is 'parse', and the cache {cache!r} is by {parsed.parser!r}, which "
                         "knows whole images alone and cannot parse a crop; write `recrop: maps`, or give the cache "
                         "a parser that can")

    for field in ("crop", "use_parts"):
        if not model[field]:
            raise InputError(f"{place}.model.recrop: is 'parse', and {field} is false: no map of a crop is read; write "
                             "`recrop: maps`")

    rule = {"thresholds": model["thresholds"], "scores": model["scores"], "max_ids": run.get("max_ids", 0)}
    key = crops_key(cache, train_on, **rule)
    if key in made.known.crops:
        return key

    data = made.known.datasets[parsed.dataset]
    plan = {"dataset": parsed.dataset, "index": paths.index(parsed.dataset).as_posix(), "raw": data.raw,
            "source": parsed.source, "cache": cache, "owner": parsed.owner,
            "parts": paths.cache(cache, "parts.h5").as_posix(), "train_index": paths.index(train_on).as_posix(),
            "train_parts": paths.cache(train_cache, "parts.h5").as_posix()}
    if parsed.description:
        plan["description"] = parsed.description

    section = SECTIONS[0] if parsed.parser not in EXTERNAL else SECTIONS[2] if parsed.description else SECTIONS[1]
    made.params["crops"][key], made.plan[section][key], made.known.crops[key] = rule, plan, None
    return key


def crops_key(cache: str, train_on: str, *, thresholds: Any, scores: str, max_ids: int) -> str:
    """No dots: in DVC's names of parameters a dot starts a level.

    >>> crops_key("partial-ilids-lip", "market1501", thresholds=[0.2] * 4, scores="normalised", max_ids=0)
    'partial-ilids-lip-by-market1501-0_2'
    >>> crops_key("a", "b", thresholds=[0, 0.25, 0, 0], scores="paper", max_ids=8)
    'a-by-b-0-0_25-0-0-paper-8ids'
    """
    shown = [f"{float(t):g}".replace(".", "_") for t in (thresholds[:1] if len(set(thresholds)) == 1 else thresholds)]
    more = [*(["paper"] if scores == "paper" else []), *([f"{max_ids}ids"] if max_ids else [])]
    return "-".join([cache, "by", train_on, *shown, *more])


def prune_crops(made: Composition) -> None:
    """Without those that no run and no embedding reads."""
    read = {plan["reads"] for section in TRAIN for plan in made.plan[section].values()}
    read |= {test["reads"] for section in (*EMBED, EMBED_SEEN) for plan in made.plan[section].values()
             for test in plan["sets"]}
    for section in SECTIONS:
        for key in [key for key in made.plan[section] if paths.cache(key, "crops.h5").as_posix() not in read]:
            del made.plan[section][key], made.params["crops"][key], made.known.crops[key]
